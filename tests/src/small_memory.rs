//! The agent in a control group with little memory, while every door is sent to as fast as it takes.
//!
//! What fills memory is sent on purpose: lines that are each of a series of their own, of sums, of unique values and of a
//! meter that is deduplicated in the whole ledger; ids; and CloudEvents in bodies as long as the agent takes. First with the collector there, then without it until the journal is full, then the agent
//! is killed and starts on that journal, then the collector comes back. All in one group, whose kernel kills whoever goes
//! beyond the limit.
//!
//! **Owns** the load and the measurement. What must hold: the kernel kills nothing, and every event that was accepted is
//! posted, once.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries::Program;
use crate::conserved::assert_conserved;
use crate::control_group::ControlGroup;
use crate::doors::{Datagrams, Frames, Lines, Udp};
use crate::full_journal::is_full;
use crate::http::Http;
use crate::random::Random;
use crate::settings::{Ports, Settings};
use crate::stack::Stack;
use crate::wait::{Stopwatch, pause};

const CATALOGUE: &str = r#"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["key"]
[[meter]]
name = "users"
aggregation = "unique_count"
dimensions = ["key"]
[[meter]]
name = "orders"
aggregation = "sum"
dimensions = ["key"]
deduplicate = "global"
[[customer]]
id = "acme"
"#;
const ACCEPTED: &str = "tidemark_agent_accepted_events_total";
const DATAGRAM_BYTES: usize = 8_000;
const UDP_BYTES: usize = 1_400;
/// One write to `events.socket`.
const LINES_BYTES: usize = 60_000;
/// A body may have 4 MiB and 10,000 events.
const EVENTS_PER_BODY: u32 = 10_000;
const HTTP_CLIENTS: u64 = 4;
const LINE_CLIENTS: u64 = 4;
/// Writes of one client of `events.socket` that are not durable yet; then it waits for the oldest.
const ON_THEIR_WAY_MAX: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A full journal reads no more; then the load may end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Without a collector the journal is full within this time.
const FULL_WAIT: Duration = Duration::from_secs(300);

/// What to try.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the group may keep in memory.
    pub limit: u64,
    /// How long it is sent to with the collector there.
    pub seconds: u64,
    /// Which of `udp`, `datagrams`, `frames`, `lines`, `bodies` are sent; all where none is named.
    pub only: Vec<String>,
    /// Keys of agent.toml besides the defaults, as the chart sets them.
    pub agent: Vec<(String, String)>,
}

/// Prints what each part took; fails where the limit does not hold, or an event is lost.
///
/// # Errors
/// So, and where this machine has no such control group.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<()> {
    let group = ControlGroup::new("memory", options.limit)?;
    let mut settings = Settings::new(Ports::free()?, CATALOGUE);
    for (key, value) in &options.agent {
        settings = settings.agent(key, value.as_str());
    }
    let mut stack = Stack::prepare(settings)?;
    stack.launch(Program::Agent, group.launch());
    stack.start_both()?;
    let outcome = parts(options, &group, &mut stack, out);
    outcome.and_then(|()| assert_conserved(&stack)).with_context(|| stack.logs())
}

fn parts(
    options: &Options,
    group: &ControlGroup,
    stack: &mut Stack,
    out: &mut dyn Write,
) -> Result<()> {
    let mut part = |name: &str, peak: Peak, stack: &Stack| -> Result<()> {
        let accepted = stack.agent_metrics()?.count_or_zero(ACCEPTED);
        let mib = peak.resident.div_ceil(1 << 20);
        writeln!(out, "{name:<34} {mib:>4} MiB at most, {accepted:>12} events accepted so far")?;
        out.flush()?;
        ensure!(group.killed()? == 0, "{name}: the kernel killed the agent: {mib} MiB");
        Ok(())
    };
    let length = Duration::from_secs(options.seconds);
    let clock = Stopwatch::start();
    let peak = loaded(&options.only, group, stack, |_| Ok(clock.elapsed() >= length))?;
    part("with the collector", peak, stack)?;
    every_door_took_some(&options.only, stack)?;
    let peak = watched(group, || stack.wait_posted(1).map(drop))?;
    part("until all was posted", peak, stack)?;
    stack.kill_collector()?;
    let clock = Stopwatch::start();
    let peak = loaded(&options.only, group, stack, |stack| {
        ensure!(clock.elapsed() < FULL_WAIT, "the journal is not full after {FULL_WAIT:?}");
        is_full(stack)
    })?;
    part("without it, until full", peak, stack)?;
    stack.kill_agent()?;
    let peak = watched(group, || stack.start_agent())?;
    part("start on the full journal", peak, stack)?;
    let peak = watched(group, || {
        stack.start_collector()?;
        stack.wait_posted(1).map(drop)
    })?;
    part("the collector is back, all posted", peak, stack)
}

/// Whether what was sent was not refused.
fn every_door_took_some(only: &[String], stack: &Stack) -> Result<()> {
    let metrics = stack.agent_metrics()?;
    for (load, door) in LOADS.iter().filter(|(load, _)| is_wanted(only, load)) {
        let series = format!("tidemark_agent_door_messages_total{{door=\"{door}\"}}");
        ensure!(metrics.count(&series)? > 0, "{load}: nothing has come in by {door}");
    }
    // Of UDP the kernel drops some before the agent reads them; nothing that arrives is rejected.
    let rejected = metrics.rejected();
    ensure!(rejected.is_empty(), "rejected: {rejected:?}");
    Ok(())
}

/// What is sent, and the door that it comes in by.
const LOADS: [(&str, &str); 5] = [
    ("udp", "udp"),
    ("datagrams", "unix_datagram"),
    ("frames", "dsd_stream"),
    ("lines", "events"),
    ("bodies", "http"),
];

fn is_wanted(only: &[String], load: &str) -> bool {
    only.is_empty() || only.iter().any(|only| only == load)
}

/// The most that the group held.
#[derive(Debug, Clone, Copy, Default)]
struct Peak {
    resident: u64,
}

/// Watches the group while `act` runs.
fn watched(group: &ControlGroup, act: impl FnOnce() -> Result<()>) -> Result<Peak> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| -> Result<Peak> {
            let mut peak = Peak::default();
            while !ended.load(Ordering::Relaxed) {
                peak.resident = peak.resident.max(group.resident()?);
                pause(LOOK_EVERY);
            }
            Ok(peak)
        });
        let outcome = act();
        ended.store(true, Ordering::Relaxed);
        let peak = watching.join().ok().context("the watching thread panicked")??;
        outcome.with_context(|| format!("killed {:?} for want of memory", group.killed()))?;
        Ok(peak)
    })
}

/// Sends to every door until `done`, which is asked now and then.
fn loaded(
    only: &[String],
    group: &ControlGroup,
    stack: &Stack,
    mut done: impl FnMut(&Stack) -> Result<bool>,
) -> Result<Peak> {
    let stop = AtomicBool::new(false);
    let until_done = || -> Result<()> {
        while !done(stack)? {
            pause(LOOK_EVERY);
        }
        Ok(())
    };
    let (udp, datagrams) = (stack.ports().udp, stack.path("dsd.socket"));
    let (frames, url) = (stack.path("dsd-stream.socket"), stack.events_url());
    let events = stack.path("events.socket");
    std::thread::scope(|scope| {
        let stop = &stop;
        // A door that pushes back lets its client wait, or go; that is no fault of the load.
        let send = |sender: &dyn Fn(&AtomicBool) -> Result<()>| {
            while !stop.load(Ordering::Relaxed) {
                if sender(stop).is_err() {
                    pause(LOOK_EVERY);
                }
            }
        };
        let wanted = |load| is_wanted(only, load);
        if wanted("udp") {
            scope.spawn(move || send(&|stop| send_udp(udp, stop)));
        }
        if wanted("datagrams") {
            scope.spawn(move || send(&|stop| send_datagrams(&datagrams, stop)));
        }
        if wanted("frames") {
            scope.spawn(move || send(&|stop| send_frames(&frames, stop)));
        }
        for _ in (0..LINE_CLIENTS).filter(|_| wanted("lines")) {
            let events = events.clone();
            scope.spawn(move || send(&|stop| send_lines(&events, stop)));
        }
        for _ in (0..HTTP_CLIENTS).filter(|_| wanted("bodies")) {
            let url = url.clone();
            scope.spawn(move || send(&|stop| send_bodies(&url, stop)));
        }
        let outcome = watched(group, until_done);
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// A word that nobody else sends: a series, or an id, of its own.
fn word(random: &mut Random) -> String {
    format!("{:016x}{:08x}", random.next_u64(), random.next_u64() >> 32)
}

fn lines(random: &mut Random, bytes: usize, with_ids: bool) -> (String, u64) {
    let (mut text, mut count) = (String::new(), 0_u64);
    while text.len() < bytes.saturating_sub(100) {
        let (key, id) = (word(random), word(random));
        let what = *random.pick(&["api.calls:1|c", "users:u|s", "orders:1|c"]);
        // A deduplicated meter wants ids.
        let with_id = with_ids || what.starts_with("orders");
        let id = if with_id { format!(",id:{id}") } else { String::new() };
        // To a text nothing fails to be written.
        let _written = writeln!(text, "{what}|#customer:acme,key:{key}{id}").is_ok();
        count = count.saturating_add(1);
    }
    (text, count)
}

fn send_udp(port: u16, stop: &AtomicBool) -> Result<()> {
    let (door, mut random) = (Udp::to(port)?, Random::new(Random::fresh_seed()));
    while !stop.load(Ordering::Relaxed) {
        door.send(lines(&mut random, UDP_BYTES, false).0.as_bytes())?;
    }
    Ok(())
}

fn send_datagrams(path: &Path, stop: &AtomicBool) -> Result<()> {
    let (door, mut random) = (Datagrams::to(path)?, Random::new(Random::fresh_seed()));
    while !stop.load(Ordering::Relaxed) {
        door.send(lines(&mut random, DATAGRAM_BYTES, false).0.as_bytes())?;
    }
    Ok(())
}

fn send_frames(path: &Path, stop: &AtomicBool) -> Result<()> {
    let (mut door, mut random) = (Frames::to(path)?, Random::new(Random::fresh_seed()));
    door.give_up_after(PATIENCE)?;
    while !stop.load(Ordering::Relaxed) {
        door.send(lines(&mut random, LINES_BYTES, false).0.as_bytes())?;
    }
    Ok(())
}

fn send_lines(path: &Path, stop: &AtomicBool) -> Result<()> {
    let (mut door, mut random) = (Lines::to(path)?, Random::new(Random::fresh_seed()));
    let mut on_their_way = VecDeque::new();
    door.give_up_after(PATIENCE)?;
    while !stop.load(Ordering::Relaxed) {
        let (text, count) = lines(&mut random, LINES_BYTES, true);
        door.send(text.as_bytes(), count)?;
        on_their_way.push_back(door.sent());
        if on_their_way.len() > ON_THEIR_WAY_MAX
            && let Some(oldest) = on_their_way.pop_front()
        {
            door.wait_durable_to(oldest)?;
        }
    }
    Ok(())
}

fn send_bodies(url: &str, stop: &AtomicBool) -> Result<()> {
    let (http, mut random) = (Http::new()?, Random::new(Random::fresh_seed()));
    while !stop.load(Ordering::Relaxed) {
        let events: Vec<_> = (0..EVENTS_PER_BODY)
            .map(|_| {
                let (id, key) = (word(&mut random), word(&mut random));
                format!(
                    r#"{{"specversion":"1.0","id":"{id}","source":"/load","type":"api.calls","subject":"acme","data":{{"value":1,"key":"{key}"}}}}"#
                )
            })
            .collect();
        let body = format!("[{}]", events.join(","));
        http.post(url, "application/cloudevents-batch+json", body)?;
    }
    Ok(())
}
