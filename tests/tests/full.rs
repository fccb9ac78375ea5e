//! A journal at its budget: doors that can wait do, the others count what they refuse, nothing accepted is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::conserved::assert_conserved;
use tidemark_tests::doors::Lines;
use tidemark_tests::full_journal::{Filled, fill, is_full};
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::until;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
"#;
const BYTES_MAX: u64 = 16 << 20;
const FILL_MAX: Duration = Duration::from_secs(120);
const DRAINED_WAIT: Duration = Duration::from_secs(60);

fn length(stack: &Stack) -> Result<u64> {
    Ok(std::fs::metadata(stack.path("journal.redb"))?.len())
}

#[test]
fn a_full_journal_pushes_back_and_drains_to_the_last_event() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE).agent("journal.bytes_max", "16MiB");
    let mut stack = Stack::prepare(settings)?;
    stack.start_agent()?;
    let Filled { accepted, refused } = fill(&stack, FILL_MAX)?;
    ensure!(accepted > 100_000 && refused > 0, "{accepted} {refused}");
    ensure!(length(&stack)? <= BYTES_MAX, "the file has {} bytes", length(&stack)?);

    let event =
        r#"{"specversion":"1.0","id":"1","source":"/s","type":"api.calls","subject":"acme"}"#;
    let answer = stack.http().post(&stack.events_url(), "application/cloudevents+json", event)?;
    ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
    // More lines than are read ahead: the client waits, and is answered once there is room.
    let mut waiting = Lines::to(&stack.path("events.socket"))?;
    waiting.send(b"api.calls:1|c|#customer:acme,id:waiting\n", 1)?;

    stack.kill_agent()?;
    stack.start_agent()?;
    ensure!(is_full(&stack)?, "a start makes no room");
    let metrics = stack.agent_metrics()?;
    let held = metrics.count("tidemark_agent_accepted_events_total")?;
    ensure!(held == accepted, "{held} events after a kill, {accepted} before");
    ensure!(waiting.wait_durable().is_err(), "it was never accepted, and is told so");

    let mut waiting = Lines::to(&stack.path("events.socket"))?;
    waiting.send(b"api.calls:1|c|#customer:acme,id:waiting\n", 1)?;
    stack.start_collector()?;
    until("the journal to have room", DRAINED_WAIT, || {
        match is_full(&stack).map_err(|error| format!("{error:#}"))? {
            true => Err("full".to_owned()),
            false => Ok(()),
        }
    })?;
    ensure!(waiting.wait_durable()?.is_empty(), "the waiting line is refused");
    let expected = accepted.saturating_add(1);
    let seen = stack.wait_posted(expected)?;
    ensure!(seen == expected, "{seen} accepted, not {expected}");
    ensure!(length(&stack)? <= BYTES_MAX, "the file has {} bytes", length(&stack)?);
    assert_conserved(&stack)
}
