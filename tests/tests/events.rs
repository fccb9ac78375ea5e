//! "Show me these 4,312 calls": single events, looked up in the archive, and why others cannot be.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tidemark_tests::binaries::Program;
use tidemark_tests::doors::{Lines, Udp};
use tidemark_tests::second_agent::SecondAgent;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::SEEN_WAIT;
use tidemark_tests::wait::{until, wide_range};

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["route"]
[[meter]]
name = "tokens"
aggregation = "sum"
deduplicate = "global"
"#;

fn settings() -> Result<Settings> {
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .collector("session.idle_max", "2s")
        .collector("session.confirm_interval", "200ms")
        .collector("archive.folder", "archive")
        .collector("archive.every", "100ms")
        .collector("archive.raw_events_rate", "64 MiB")
        .agent("journal.raw_events_bytes_max", "32MiB")
        .agent("shutdown_grace", "4s");
    Ok(settings)
}

/// Numbers `from` to `to`, each the quantity of a call of acme's; every third call is birch's too.
fn send(stack: &Stack, from: u64, to: u64) -> Result<()> {
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    let (mut text, mut count) = (String::new(), 0);
    for number in from..to {
        let route = number % 3;
        text.push_str(&format!("api.calls:{number}|c|#customer:acme,route:r{route},pod:p\n"));
        count += 1;
        if route == 0 {
            text.push_str(&format!("api.calls:{number}|c|#customer:birch\n"));
            count += 1;
        }
    }
    lines.send(text.as_bytes(), count)?;
    let refusals = lines.wait_durable()?;
    ensure!(refusals.is_empty(), "{refusals:?}");
    Ok(())
}

/// All answers to one question, one after the other.
struct Seen {
    posted: u64,
    events: Vec<Value>,
    gaps: Vec<Value>,
}

impl Seen {
    fn of(stack: &Stack, customer: &str, more: &str) -> Result<Self> {
        let (from, to) = wide_range();
        let mut seen = Self { posted: 0, events: Vec::new(), gaps: Vec::new() };
        let mut after = String::new();
        loop {
            let target =
                format!("/v1/customers/{customer}/events?from={from}&to={to}{more}{after}");
            let answer = stack.api().get(&target)?;
            ensure!(answer.status == 200, "{target}: {}", answer.body);
            let answer = answer.json()?;
            seen.posted = answer["posted"].as_u64().context("posted")?;
            seen.events.extend(answer["events"].as_array().context("events")?.clone());
            seen.gaps.extend(answer["not_archived"].as_array().context("gaps")?.clone());
            let Some(next) = answer["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        let (shown, missing) = (seen.billed(), seen.missing(None));
        ensure!(shown + missing == seen.posted, "{shown} + {missing} of {}", seen.posted);
        Ok(seen)
    }

    fn billed(&self) -> u64 {
        self.events.iter().map(|event| u64::from(event["class"] == "normal")).sum()
    }

    fn missing(&self, reason: Option<&str>) -> u64 {
        let of = |gap: &&Value| reason.is_none_or(|reason| gap["reason"] == reason);
        self.gaps.iter().filter(of).filter_map(|gap| gap["events"].as_u64()).sum()
    }

    /// How often each quantity is shown.
    fn quantities(&self) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for event in &self.events {
            let quantity = event["quantity"].as_str().and_then(|text| text.parse().ok());
            *counts.entry(quantity.unwrap_or_default()).or_default() += 1;
        }
        counts
    }
}

/// Waits until all `posted` events of acme's are shown.
fn wait_shown(stack: &Stack, posted: u64) -> Result<Seen> {
    until("all events to be shown", SEEN_WAIT, || {
        let seen =
            Seen::of(stack, "acme", "&meter=api.calls").map_err(|error| format!("{error:#}"))?;
        match (seen.posted, seen.billed()) {
            (known, shown) if (known, shown) == (posted, posted) => Ok(seen),
            (known, shown) => Err(format!("{shown} of {known} are shown: {:?}", seen.gaps)),
        }
    })
}

fn collector(stack: &Stack, arguments: &[&str], code: i32) -> Result<String> {
    let (seen, told) = stack.command(Program::Collector, arguments)?;
    ensure!(seen == Some(code), "{arguments:?} exits with {seen:?}: {told}");
    Ok(told)
}

#[test]
fn every_event_is_shown_once_wherever_both_are_killed() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 0, 300)?;
        let seen = wait_shown(stack, 300)?;
        ensure!(seen.quantities() == (0..300).map(|number| (number, 1)).collect(), "quantities");
        let event = &seen.events[1];
        ensure!(event["dimensions"] == serde_json::json!({ "route": "r1" }), "{event}");
        ensure!(event["agent"] == "agent" && event["meter"] == "api.calls", "{event}");
        // In pages of any size, and of one customer alone.
        let paged = Seen::of(stack, "acme", "&meter=api.calls&limit=7")?;
        ensure!(paged.events == seen.events, "pages show other events");
        ensure!(Seen::of(stack, "birch", "")?.billed() == 100, "birch");
        ensure!(Seen::of(stack, "cedar", "")?.posted == 0, "cedar");
        for number in 1..4 {
            send(stack, number * 300, number * 300 + 300)?;
            match number {
                1 => stack.kill_agent()?,
                2 => stack.kill_collector()?,
                _ => stack.kill_both()?,
            }
            match number {
                1 => stack.start_agent()?,
                2 => stack.start_collector()?,
                _ => stack.start_both()?,
            }
        }
        let seen = wait_shown(stack, 1_200)?;
        ensure!(seen.quantities() == (0..1_200).map(|number| (number, 1)).collect(), "quantities");
        // What is archived leaves the journal.
        until("the journal to let them go", SEEN_WAIT, || {
            let metrics = stack.agent_metrics().map_err(|error| format!("{error:#}"))?;
            match metrics.count("tidemark_agent_raw_events_batches") {
                Ok(0) => Ok(()),
                left => Err(format!("{left:?} batches")),
            }
        })?;
        // An orderly end leaves nothing behind, though it is asked for at once.
        send(stack, 1_200, 1_500)?;
        stack.stop_agent()?;
        wait_shown(stack, 1_500)?;
        stack.start_agent()
    })
}

#[test]
fn the_index_is_made_anew_from_the_archive_and_a_lost_ledger_too() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 0, 300)?;
        let before = wait_shown(stack, 300)?.events;
        stack.stop_collector()?;
        let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
        ensure!(told.contains("raw events: ") && told.contains("; 0 objects"), "{told}");
        std::fs::remove_file(stack.path("ledger/events.redb"))?;
        stack.start_collector()?;
        ensure!(wait_shown(stack, 300)?.events == before, "the index shows other events");

        stack.stop_agent()?;
        stack.stop_collector()?;
        std::fs::remove_dir_all(stack.path("ledger"))?;
        collector(stack, &["restore-from-archive", "--config", "collector.toml"], 0)?;
        stack.start_collector()?;
        ensure!(wait_shown(stack, 300)?.events == before, "the restored ledger shows other events");

        // A copy without raw events is an archive like any other.
        stack.stop_collector()?;
        std::fs::remove_dir_all(stack.path("archive/events"))?;
        let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
        ensure!(told.contains("raw events: 0 pieces") && told.contains("sound"), "{told}");
        stack.start_collector()?;
        stack.start_agent()?;
        let seen = Seen::of(stack, "acme", "")?;
        ensure!((seen.billed(), seen.missing(Some("removed"))) == (0, 300), "{:?}", seen.gaps);
        Ok(())
    })
}

#[test]
fn what_is_not_archived_is_named() -> Result<()> {
    let settings = settings()?.agent("journal.raw_events_bytes_max", "0");
    Stack::run(settings, |stack| {
        send(stack, 0, 30)?;
        stack.wait_posted(40)?;
        let seen = Seen::of(stack, "acme", "")?;
        ensure!(seen.missing(Some("not_sent")) == 30 && seen.events.is_empty(), "{:?}", seen.gaps);
        let gap = &seen.gaps[0];
        let (first, last) = (&gap["first_sequence"], &gap["last_sequence"]);
        ensure!(seen.gaps.len() == 1 && first.as_u64() <= last.as_u64(), "{:?}", seen.gaps);
        ensure!(gap["agent"] == "agent", "{gap}");
        Ok(())
    })
}

#[test]
fn what_came_twice_is_shown_as_such() -> Result<()> {
    Stack::run(settings()?, |stack| {
        let second = SecondAgent::beside(stack)?;
        let send = |socket: &Path, ids: u64| -> Result<()> {
            let mut lines = Lines::to(socket)?;
            for id in 0..ids {
                let text = format!("tokens:{id}|c|#customer:acme,id:call-{id}\n");
                lines.send(text.as_bytes(), 1)?;
            }
            lines.wait_durable().map(drop)
        };
        send(&stack.path("events.socket"), 10)?;
        stack.wait_posted(10)?;
        send(&second.path("events.socket"), 5)?;
        second.wait_posted(stack, 5)?;
        until("five duplicates to be shown", SEEN_WAIT, || {
            let seen = Seen::of(stack, "acme", "").map_err(|error| format!("{error:#}"))?;
            let twice = seen.events.iter().filter(|event| event["class"] == "duplicate").count();
            match (seen.posted, seen.billed(), twice) {
                (10, 10, 5) => Ok(()),
                found => Err(format!("{found:?}, {:?}", seen.gaps)),
            }
        })
    })
}

#[test]
fn a_journal_without_room_gives_raw_events_up_and_nothing_else() -> Result<()> {
    let settings = settings()?.agent("journal.raw_events_bytes_max", "16KiB");
    Stack::run(settings, |stack| {
        stack.kill_collector()?;
        let udp = Udp::to(stack.ports().udp)?;
        for number in 0..3_000 {
            udp.send(format!("api.calls:{number}.{number:09}|c|#customer:acme").as_bytes())?;
        }
        send(stack, 0, 3)?;
        stack.start_collector()?;
        until("what is there to be shown", SEEN_WAIT, || {
            let told = |error: anyhow::Error| format!("{error:#}");
            let seen = Seen::of(stack, "acme", "").map_err(told)?;
            // Datagrams are still being taken: of them the kernel may have dropped some.
            let metrics = stack.agent_metrics().map_err(told)?;
            let accepted = metrics.count("tidemark_agent_accepted_events_total").map_err(told)?;
            match seen.missing(Some("not_archived")) {
                0 => Err("nothing is missing".to_owned()),
                _ if seen.posted + 1 == accepted => Ok(()),
                _ => Err(format!("{} of {accepted} posted", seen.posted)),
            }
        })
    })
}
