//! `inspect` and `fsck`: through a running agent, on the file that a kill -9 leaves, and on a damaged one.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidemark_tests::binaries::Program;
use tidemark_tests::doors::Lines;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["region"]
"#;

/// The exit code, and what was written to standard output and standard error.
fn run(stack: &Stack, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(Program::Agent.path()?);
    let output = command.args(arguments).current_dir(stack.folder()).output()?;
    let [out, err] = [output.stdout, output.stderr].map(String::from_utf8);
    Ok((output.status.code(), out?, err?))
}

fn json(stack: &Stack, arguments: &[&str]) -> Result<Value> {
    let (code, out, err) = run(stack, &[arguments, &["--json"]].concat())?;
    ensure!(code == Some(0), "{arguments:?}: {out}{err}");
    serde_json::from_str(&out).context(out)
}

/// Five events: three posted, two on their way to a collector that is gone; and one rejected.
fn prepare(stack: &mut Stack) -> Result<()> {
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    lines.send("api.calls:2|c|#customer:acme,region:eu\n".repeat(3).as_bytes(), 3)?;
    lines.send(b"broken\n", 1)?;
    lines.wait_durable()?;
    stack.wait_posted(3)?;
    stack.kill_collector()?;
    lines.send("api.calls:7|c|#customer:acme\n".repeat(2).as_bytes(), 2)?;
    lines.wait_durable()?;
    Ok(())
}

fn check(stack: &Stack, place: &[&str]) -> Result<()> {
    let found = json(stack, &[&["inspect"], place].concat())?;
    ensure!(found["accepted"] == 5 && found["posted"]["events"] == 3, "{found:#}");
    let in_transit: u64 = ["chunks", "unposted"]
        .map(|place| found[place]["events"].as_u64().unwrap_or_default())
        .iter()
        .sum();
    ensure!(in_transit == 2 && found["damages"] == 0, "{found:#}");
    ensure!(found["dead_letters"]["malformed"] == 1, "{found:#}");
    ensure!(found["ledger"].is_string() && found["conflict"].is_null(), "{found:#}");

    let batch = found["first_batch"].as_u64().context("posted batches are retained")?.to_string();
    let batch = json(stack, &[&["inspect", "--batch", &batch], place].concat())?;
    let line = &batch["lines"][0];
    ensure!(line["customer"] == "acme" && line["sum"] == "6", "{batch:#}");
    ensure!(line["dimensions"]["region"] == "eu" && batch["problem"].is_null(), "{batch:#}");

    let found = json(stack, &[&["fsck"], place].concat())?;
    ensure!(found["sound"] == true && found["lines"].as_u64() > Some(0), "{found:#}");
    let (code, out, _) = run(stack, &[&["fsck"], place].concat())?;
    ensure!(code == Some(0) && out.contains("sound"), "{out}");
    let (code, _, err) = run(stack, &[&["inspect", "--batch", "999"], place].concat())?;
    ensure!(code == Some(1) && err.contains("batch 999 is not held"), "{err}");
    Ok(())
}

#[test]
fn the_same_is_seen_through_the_agent_and_in_the_file_of_one_that_was_killed() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        prepare(stack)?;
        let admin = format!("http://127.0.0.1:{}", stack.ports().admin);
        check(stack, &["--admin", &admin])?;
        check(stack, &["--config", "agent.toml"])?;
        let (code, _, err) = run(stack, &["inspect", "--journal", "journal.redb"])?;
        ensure!(code == Some(1) && err.contains("an agent holds it"), "{err}");

        stack.kill_agent()?;
        let path = stack.path("journal.redb");
        let before = std::fs::read(&path)?;
        check(stack, &["--journal", "journal.redb"])?;
        check(stack, &["--config", "agent.toml"])?;
        let (code, out, _) = run(stack, &["dead-letters", "list", "--config", "agent.toml"])?;
        ensure!(code == Some(0) && out.contains("broken"), "{out}");
        ensure!(std::fs::read(&path)? == before, "looking at the file has changed it");

        // One bit of each batch, for some may stand in pages that are no longer used.
        let mut damaged = before.clone();
        for (at, bytes) in before.windows(4).enumerate() {
            if bytes == b"TMBH" {
                damaged[at] ^= 1;
            }
        }
        std::fs::write(stack.path("damaged.redb"), &damaged)?;
        let (code, out, _) = run(stack, &["fsck", "--journal", "damaged.redb"])?;
        ensure!(code == Some(1) && out.contains("DAMAGED"), "{out}");
        let (code, _, err) = run(stack, &["inspect", "--journal", "damaged.redb"])?;
        ensure!(code == Some(1) && err.contains("damaged"), "{err}");
        ensure!(std::fs::read(stack.path("damaged.redb"))? == damaged);
        let (code, out, _) = run(stack, &["fsck", "--journal", "agent.toml"])?;
        ensure!(code == Some(1) && out.contains("pages: "), "{out}");
        let (code, _, err) = run(stack, &["inspect", "--journal", "nothing.redb"])?;
        ensure!(code == Some(1) && err.contains("nothing.redb"), "{err}");
        ensure!(!stack.path("nothing.redb").exists());

        stack.start_collector()?;
        stack.start_agent()?;
        stack.wait_posted(5)?;
        Ok(())
    })
}
