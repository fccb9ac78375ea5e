//! Dead letters, replayed through the running agent: each becomes an event once, or stays and says why.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidemark_tests::binaries::Program;
use tidemark_tests::conserved::assert_conserved;
use tidemark_tests::doors::Lines;
use tidemark_tests::random::Random;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::pause;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[meter]]
name = "completion"
aggregation = "sum"
[[customer]]
id = "acme"
"#;

fn dead_letters(stack: &Stack, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(Program::Agent.path()?);
    command.arg("dead-letters").args(arguments).args(["--config", "agent.toml"]);
    Ok(command.current_dir(stack.folder()).output()?)
}

/// Replays; the exit code and what became of the letters.
fn replay(stack: &Stack, arguments: &[&str]) -> Result<(Option<i32>, Value)> {
    let output = dead_letters(stack, &[&["replay", "--json"], arguments].concat())?;
    let answer = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), answer))
}

fn exported(stack: &Stack) -> Result<Vec<Value>> {
    let output = dead_letters(stack, &["export"])?;
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Writes a file of mended letters: what is exported, each text changed by `mend`.
fn write_mended(stack: &Stack, mend: impl Fn(&str) -> String) -> Result<()> {
    let mut file = String::new();
    for mut letter in exported(stack)? {
        let text = letter["text"].as_str().context("it was sent as text")?;
        letter["text"] = mend(text).into();
        file.push_str(&format!("{letter}\n"));
    }
    Ok(std::fs::write(stack.path("mended"), file)?)
}

/// Starts the agent anew, with this customer for what names none.
fn restart_with_default(stack: &mut Stack, customer: &str) -> Result<()> {
    stack.stop_agent()?;
    let settings = stack.settings().clone().agent("naming.customer_default", customer);
    settings.write(stack.folder())?;
    stack.start_agent()?;
    stack.wait_connected()
}

#[test]
fn each_letter_is_replayed_once_or_says_why_it_stays() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        let sent = "api.calls:1|c\napi.calls:2:3|c\napi.calls:5:x|c|#customer:acme,id:b\n\
                    api.calls:7|c|@0.5|#customer:acme\napi.calls:9|c|#id:a\n";
        lines.send(sent.as_bytes(), 5)?;
        ensure!(lines.wait_durable()?.len() == 5, "five are refused");
        drop(lines);
        let nobody = r#"{"specversion":"1.0","id":"1","source":"/s","type":"completion","data":{"value":11}}"#;
        let answer =
            stack.http().post(&stack.events_url(), "application/cloudevents+json", nobody)?;
        ensure!(answer.status == 400, "{answer:?}");
        stack.wait_posted(1)?;

        // As long as nothing is mended, all stay, and are not counted again.
        let rejected = stack.agent_metrics()?.rejected();
        let (code, answer) = replay(stack, &["--as-is"])?;
        ensure!(code == Some(1) && answer["kept"].as_array().map(Vec::len) == Some(6), "{answer}");
        ensure!(exported(stack)?.len() == 6);
        ensure!(stack.agent_metrics()?.rejected() == rejected);

        restart_with_default(stack, "acme")?;
        let (code, answer) = replay(stack, &["--as-is", "--reason", "no_customer"])?;
        ensure!(code == Some(0), "{answer}");
        ensure!(answer["replayed"].as_array().map(Vec::len) == Some(4), "{answer}");
        // 5 at once; then 1, 2 + 3, 9, and the completion.
        stack.wait_posted(6)?;
        let (code, answer) = replay(stack, &["--as-is"])?;
        let kept = answer["kept"].as_array().context("some stay")?;
        let reasons: Vec<_> = kept.iter().map(|kept| kept["reason"].clone()).collect();
        ensure!(code == Some(1) && reasons == ["packed", "sampled"], "{answer}");

        // Mended, both are taken; and the second time there is nothing left.
        write_mended(stack, |text| text.replace("5:x", "6").replace("|@0.5", ""))?;
        let (code, answer) = replay(stack, &["--corrected", "mended"])?;
        ensure!(code == Some(0), "{answer}");
        let (code, answer) = replay(stack, &["--corrected", "mended"])?;
        ensure!(code == Some(0) && answer["gone"].as_array().map(Vec::len) == Some(2), "{answer}");
        ensure!(exported(stack)?.is_empty());

        stack.wait_posted(8)?;
        let metrics = stack.agent_metrics()?;
        ensure!(metrics.rejected() == rejected, "rejected counts are cumulative");
        ensure!(metrics.count("tidemark_agent_replayed_events_total")? == 7);
        let usage = stack.api().usage("acme", "&meter=api.calls")?;
        let total: Vec<_> = usage.usage.iter().filter_map(|row| row.quantity.as_deref()).collect();
        ensure!(total == ["33"], "5 + 1 + 2 + 3 + 9 + 6 + 7: {total:?}");
        assert_conserved(stack)
    })
}

#[test]
fn only_this_machine_and_no_page_may_replay() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let url = format!("http://127.0.0.1:{}/dead-letters/replay", stack.ports().admin);
        let asked = json!({ "as_is": {} }).to_string();
        let answer = stack.http().post(&url, "application/json", asked.clone())?;
        ensure!(answer.status == 200, "{answer:?}");
        // What a form of a page can send is refused by its content type.
        let answer = stack.http().post(&url, "text/plain", asked)?;
        ensure!(answer.status == 415, "{answer:?}");
        let answer = stack.http().get(&url, None)?;
        ensure!(answer.status == 405, "{answer:?}");
        Ok(())
    })
}

/// The agent dies while letters are replayed, again and again, and somebody replays the rest.
#[test]
fn a_kill_half_way_replays_each_letter_once() -> Result<()> {
    const LETTERS: u64 = 600;
    const KILLS_MAX: u64 = 25;
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        // Of one commit at most 64 are kept.
        for _ in 0..LETTERS / 50 {
            lines.send("api.calls:1|c\n".repeat(50).as_bytes(), 50)?;
            lines.wait_durable()?;
        }
        drop(lines);
        restart_with_default(stack, "acme")?;
        write_mended(stack, |text| format!("{text}|#"))?;
        let mut kills = 0_u64;
        loop {
            let mut command = Command::new(Program::Agent.path()?);
            command.args(["dead-letters", "replay", "--corrected", "mended"]);
            command.args(["--config", "agent.toml"]).current_dir(stack.folder());
            let mut replaying = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            if kills < KILLS_MAX {
                pause(Duration::from_millis(20_u64.saturating_add(random.below(120))));
                stack.kill_agent()?;
                kills = kills.saturating_add(1);
                replaying.wait()?;
                stack.start_agent()?;
            } else {
                ensure!(replaying.wait()?.success(), "the last one ends well");
            }
            if exported(stack)?.is_empty() {
                break;
            }
        }
        println!("{kills} kills");
        ensure!(kills > 1, "it was never cut short");
        let accepted = stack.wait_posted(LETTERS)?;
        ensure!(accepted == LETTERS, "{accepted} accepted of {LETTERS} letters");
        assert_conserved(stack)
    })
}
