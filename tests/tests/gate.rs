//! The gate by real processes: who never came keeps an invoice back, until a person says why it need not wait; and a stream
//! is lost until its agent is heard again.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidemark_tests::binaries::Program;
use tidemark_tests::doors::Lines;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;

/// Periods are days, so that one is over: yesterday's.
const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[seller]]
name = "us"
legal_name = "Us Ltd"
address = ["Here"]
[[customer]]
id = "acme"
plan = "daily"
[[plan]]
name = "daily"
currency = "EUR"
interval = "day"
[[plan.price]]
meter = "api.calls"
unit_price = "0.5"
"#;
const WHY: [&str; 4] = ["--reason", "the test has killed it", "--by", "ada"];

/// Runs a command of the collector on its configuration; it must end with this code, and tell this.
fn check(stack: &Stack, arguments: &[&str], code: i32, told: &str) -> Result<String> {
    let config = stack.path("collector.toml");
    let (command, rest) = arguments.split_first().context("a command has a name")?;
    let mut all = vec![*command, "--config", config.to_str().context("a path is no text")?];
    all.extend(rest);
    let (ended, text) = stack.command(Program::Collector, &all)?;
    ensure!(ended == Some(code) && text.contains(told), "{arguments:?}: {ended:?}: {text}");
    Ok(text)
}

fn report(stack: &Stack, code: i32) -> Result<Value> {
    let text = check(stack, &["reconcile", "--json"], code, "")?;
    let line = text.lines().find(|line| line.starts_with('{')).context("no report")?;
    Ok(serde_json::from_str(line)?)
}

/// The agent posts one event, and is killed; its stream, and today.
fn lose_the_agent(stack: &mut Stack) -> Result<(String, String)> {
    let mut socket = Lines::to(&stack.path("events.socket"))?;
    socket.send(b"api.calls:2|c|#customer:acme\n", 1)?;
    ensure!(socket.wait_durable()?.is_empty(), "an event was refused");
    stack.wait_posted(1)?;
    stack.kill_agent()?;
    let streams = stack.api().streams()?;
    let [stream] = &streams.streams[..] else { anyhow::bail!("{streams:?}") };
    let today = streams.as_of.get(..10).context("no date")?.to_owned();
    Ok((stream.stream.clone(), today))
}

fn state(stack: &Stack) -> Result<String> {
    let streams = stack.api().streams()?;
    Ok(streams.streams.first().context("no stream")?.state.clone())
}

#[test]
fn what_is_missing_keeps_an_invoice_back_until_a_person_says_why_it_need_not_wait() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .collector("ledger.silent_after", "1s")
        .collector("reconcile.expected", "expected.txt");
    Stack::run(settings, |stack| {
        let (stream, today) = lose_the_agent(stack)?;
        // Without a list nobody knows who is missing.
        let bill = ["bill", "--period-end", &today];
        check(stack, &bill, 1, "expected_list")?;
        std::fs::write(stack.path("expected.txt"), "agent\nghost # never came\n")?;
        check(stack, &bill, 1, "acme: PROBLEM: a finding keeps it back: expected/ghost: ")?;
        let found = report(stack, 1)?;
        ensure!(found["depth"] == "full" && found["passes"] == false, "{found}");

        // A person's words are booked on a stopped collector's ledger as well.
        stack.stop_collector()?;
        let lose = [&["declare-lost", &stream][..], &WHY].concat();
        check(stack, &lose, 0, "declared lost: entry 2")?;
        check(stack, &lose, 1, "declared lost already")?;
        check(stack, &bill, 1, "expected/ghost")?;
        stack.start_collector()?;
        ensure!(state(stack)? == "lost", "{}", state(stack)?);

        let none = [&["waive", "lost/none"][..], &WHY].concat();
        check(stack, &none, 1, "there is no finding")?;
        let waive = [&["waive", "expected/ghost"][..], &WHY].concat();
        check(stack, &waive, 0, "waived: entry 3")?;
        check(stack, &bill, 0, "acme: nothing due")?;

        // The agent comes again: then it is not lost, and its stream goes on.
        stack.start_agent()?;
        stack.wait_connected()?;
        ensure!(state(stack)? == "open", "{}", state(stack)?);
        Ok(())
    })
}
