//! Clean ends and new beginnings of either program, and of both.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::conserved::assert_conserved;
use tidemark_tests::doors::send_durably;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::Stopwatch;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[customer]]
id = "acme"
plan = "standard"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.price]]
meter = "api.calls"
unit_price = "1"
"#;

fn send(stack: &Stack, ids: Range<u32>) -> Result<()> {
    send_durably(&stack.path("events.socket"), "restart", ids)
}

fn used(stack: &Stack) -> Result<String> {
    let usage = stack.api().usage("acme", "")?.usage;
    Ok(usage.into_iter().find_map(|entry| entry.quantity).unwrap_or_default())
}

#[test]
fn both_end_cleanly_and_go_on_where_they_were() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        send(stack, 0..100)?;
        stack.stop_agent()?;
        // SIGTERM ships all that was accepted before the agent ends, and closes the stream.
        ensure!(used(stack)? == "100", "{} after the agent's end", used(stack)?);
        let streams = stack.api().streams()?.streams;
        ensure!(streams.len() == 1 && streams[0].state == "closed", "{streams:?}");
        stack.stop_collector()?;

        stack.start_collector()?;
        ensure!(used(stack)? == "100", "{} after the collector's restart", used(stack)?);
        stack.start_agent()?;
        stack.wait_connected()?;
        // Ids are known across restarts.
        send(stack, 50..150)?;
        stack.wait_posted(150)?;
        ensure!(used(stack)? == "150", "{} in the end", used(stack)?);
        let streams = stack.api().streams()?.streams;
        ensure!(streams.len() == 1 && streams[0].state == "open", "{streams:?}");
        Ok(())
    })
}

#[test]
fn what_is_accepted_while_the_collector_is_away_is_posted_later() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE).collector("session.idle_max", "2s");
    Stack::run(settings, |stack| {
        send(stack, 0..10)?;
        stack.stop_collector()?;
        send(stack, 10..500)?;
        let metrics = stack.agent_metrics()?;
        ensure!(metrics.count("tidemark_agent_accepted_events_total")? == 500, "not accepted");
        stack.kill_agent()?;
        stack.start_agent()?;
        send(stack, 490..510)?;
        let metrics = stack.agent_metrics()?;
        let unclean = metrics.count("tidemark_agent_unclean_starts_total")?;
        ensure!(unclean == 1, "{unclean} unclean starts");
        stack.start_collector()?;
        stack.wait_posted(510)?;
        ensure!(used(stack)? == "510", "{}", used(stack)?);
        assert_conserved(stack)
    })
}

#[test]
fn with_nothing_left_to_ship_nobody_waits_for_the_collector() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        send(stack, 0..10)?;
        stack.wait_posted(10)?;
        stack.stop_collector()?;
        let clock = Stopwatch::start();
        stack.stop_agent()?;
        // The grace is 30 s.
        ensure!(clock.elapsed() < Duration::from_secs(20), "it took {:?}", clock.elapsed());
        // And it ended in order.
        stack.start_agent()?;
        let unclean = stack.agent_metrics()?.count_or_zero("tidemark_agent_unclean_starts_total");
        ensure!(unclean == 0, "{unclean} unclean starts");
        stack.start_collector()?;
        send(stack, 5..20)?;
        stack.wait_posted(20)?;
        assert_conserved(stack)
    })
}

#[test]
fn an_agent_that_starts_before_its_collector_keeps_what_it_is_sent() -> Result<()> {
    let mut stack = Stack::prepare(Settings::new(Ports::free()?, CATALOGUE))?;
    stack.start_agent()?;
    send(&stack, 0..20)?;
    let body = r#"{"specversion":"1.0","id":"x","source":"s","type":"api.calls","subject":"acme"}"#;
    let url = stack.events_url();
    let early = stack.http().post(&url, "application/cloudevents+json", body)?;
    // A CloudEvent's meaning depends on rules that are not known yet.
    ensure!(early.status == 503 && early.header("retry-after").is_some(), "{early:?}");
    stack.start_collector()?;
    stack.wait_connected()?;
    stack.wait_posted(20)?;
    let late = stack.http().post(&url, "application/cloudevents+json", body)?;
    ensure!(late.status == 204, "{late:?}");
    stack.wait_posted(21)?;
    ensure!(used(&stack)? == "21", "{}", used(&stack)?);
    assert_conserved(&stack)
}
