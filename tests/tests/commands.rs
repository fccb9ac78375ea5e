//! The commands for people: what they say, and how they exit.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::doors::Lines;
use tidemark_tests::process::Process;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::{Stopwatch, until};

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
"#;

fn check(
    stack: &Stack,
    program: Program,
    arguments: &[&str],
    code: i32,
    named: &[&str],
) -> Result<String> {
    let (seen, text) = stack.command(program, arguments)?;
    ensure!(seen == Some(code), "{arguments:?} exits with {seen:?}: {text}");
    for name in named {
        ensure!(text.contains(name), "{arguments:?} does not say {name:?}: {text}");
    }
    Ok(text)
}

#[test]
fn status_and_dead_letters_of_a_running_agent() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        lines.send(b"api.calls:1|c|#customer:acme\nbroken\n\xff:1|c|#customer:acme\n", 3)?;
        ensure!(lines.wait_durable()?.len() == 2, "two are refused");
        stack.wait_posted(1)?;
        let agent = Program::Agent;
        let config = ["--config", "agent.toml"];
        check(stack, agent, &[&["status"], &config[..]].concat(), 0, &["accepted", "1 event"])?;
        let json = check(stack, agent, &[&["status", "--json"], &config[..]].concat(), 0, &[])?;
        let status: serde_json::Value = serde_json::from_str(&json)?;
        ensure!(status["events"]["accepted"] == 1, "{json}");
        ensure!(status["session"]["state"] == "connected", "{json}");

        let list = [&["dead-letters", "list"], &config[..]].concat();
        check(stack, agent, &list, 0, &["broken", "malformed", "not_utf8", "events"])?;
        let export = [&["dead-letters", "export"], &config[..]].concat();
        let exported = check(stack, agent, &export, 0, &[])?;
        ensure!(exported.lines().count() == 2, "{exported}");
        for line in exported.lines() {
            let letter: serde_json::Value = serde_json::from_str(line)?;
            ensure!(letter["remedy"].is_string(), "{letter}");
        }
        // The log tells of the first of a kind, and not of each.
        lines.send(b"broken again\n", 1)?;
        ensure!(lines.wait_durable()?.len() == 1, "one is refused");
        let log = std::fs::read_to_string(stack.path("agent.log"))?;
        ensure!(log.matches("dead-letters list").count() == 2, "{log}");
        // Also of an agent that does not run.
        stack.kill_agent()?;
        check(stack, agent, &list, 0, &["broken"])?;
        stack.start_agent()
    })
}

#[test]
fn configurations_are_checked_by_name_and_line() -> Result<()> {
    let stack = Stack::prepare(Settings::new(Ports::free()?, CATALOGUE))?;
    let check_config = |file| ["check-config", "--config", file];
    check(&stack, Program::Agent, &check_config("agent.toml"), 0, &["right"])?;
    check(&stack, Program::Collector, &check_config("collector.toml"), 0, &["ok"])?;

    let wrong = |name: &str, text: &str| std::fs::write(stack.path(name), text);
    wrong("wrong-agent.toml", "[uplink]\ncollectors = [\"localhost:1\"]\ncertificat = \"x\"\n")?;
    let named = ["wrong-agent.toml", "certificat", "certificate"];
    check(&stack, Program::Agent, &check_config("wrong-agent.toml"), 1, &named)?;
    check(&stack, Program::Agent, &["run", "--config", "wrong-agent.toml"], 1, &named)?;

    let missing = ["run", "--config", "missing.toml"];
    let text = check(&stack, Program::Agent, &missing, 1, &["No such file"])?;
    ensure!(text.matches("missing.toml").count() == 1, "{text}");

    wrong("wrong-collector.toml", "data_dir = \"x\"\n[listen]\nquick = \"127.0.0.1:1\"\n")?;
    let named = ["wrong-collector.toml:3", "quick", "quic"];
    check(&stack, Program::Collector, &check_config("wrong-collector.toml"), 1, &named)?;

    wrong("catalog.toml", "[[meter]]\nname = \"api.calls\"\naggregation = \"summ\"\n")?;
    let named = ["catalog.toml:3", "summ", "sum"];
    check(&stack, Program::Collector, &check_config("collector.toml"), 1, &named)?;
    check(&stack, Program::Collector, &["serve", "--config", "collector.toml"], 1, &named)?;
    Ok(())
}

#[test]
fn a_port_or_journal_in_use_is_a_clear_error() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let api = stack.ports().api.to_string();
        let collector = ["serve", "--config", "collector.toml"];
        check(stack, Program::Collector, &collector, 1, &[&api, "in use"])?;
        let agent = ["run", "--config", "agent.toml"];
        check(stack, Program::Agent, &agent, 1, &["tidemark-agent: ", "admin.listen", "in use"])?;
        // What is in use is said once.
        let admin = format!("127.0.0.1:{}", stack.ports().admin);
        let other = std::fs::read_to_string(stack.path("agent.toml"))?
            .replace(&admin, "127.0.0.1:0")
            .replace("journal.redb", "other.redb");
        std::fs::write(stack.path("other.toml"), other)?;
        let udp = stack.ports().udp.to_string();
        let agent = ["run", "--config", "other.toml"];
        let text = check(stack, Program::Agent, &agent, 1, &[&udp, "in use"])?;
        ensure!(text.matches("in use").count() == 1, "{text}");
        Ok(())
    })
}

/// Another agent is waited for up to a minute; whoever waits can still be told to end.
#[test]
fn an_agent_that_waits_for_the_journal_ends_when_asked() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let admin = format!("127.0.0.1:{}", stack.ports().admin);
        let first = std::fs::read_to_string(stack.path("agent.toml"))?;
        std::fs::write(stack.path("second.toml"), first.replace(&admin, "127.0.0.1:0"))?;
        let (config, log) = (stack.path("second.toml"), stack.path("second.log"));
        let config = config.to_string_lossy();
        let mut second = Process::start(Program::Agent, &["run", "--config", &config], &log)?;
        until("the second agent to wait", Duration::from_secs(20), || {
            let text = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
            match text.matches("waiting for the journal's lock").count() {
                1 => Ok(()),
                _ => Err(text),
            }
        })?;
        let clock = Stopwatch::start();
        second.terminate()?;
        ensure!(clock.elapsed() < Duration::from_secs(20), "it took {:?}", clock.elapsed());
        Ok(())
    })
}
