//! How fast, and in how much memory: the agent against a bare loop that only receives.
//!
//! For each door, packets are sent as fast as they are taken, first to a bare receiving loop in this
//! process (the yardstick: recvmmsg, or read, and nothing else), then to the agent, which parses, makes
//! durable, seals and ships them to a collector that posts them. Sender, receiver and collector share
//! the machine. Over UDP the sender looks at the receiver's queue now and then, and lets it be read;
//! without that, most of what a sender can send is dropped by the kernel, before any receiver.
//!
//! **Owns** the measurement. **Does not own** a verdict: it prints figures. Rates are of events that
//! arrived, and for the agent of events that are posted.

mod bare;
mod latency;
mod sender;
pub mod start;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::settings::{Ports, Settings};
use crate::stack::Stack;
use crate::wait::{Stopwatch, pause};

use bare::bare;
use sender::{Sender, To};

const CATALOGUE: &str = r#"
seal_interval = "100ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["key"]
[[customer]]
id = "acme"
"#;
const KEYS: u64 = 1_000;
/// After this much quiet, nothing more comes.
const QUIET: Duration = Duration::from_millis(500);
/// How long the idle agent is watched.
const IDLE: Duration = Duration::from_secs(5);

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// For each door and each of the two receivers.
    pub seconds: u64,
}

/// How events are sent, and packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    UdpSingle,
    Udp,
    UnixDatagram,
    Events,
}

impl Way {
    const ALL: [Self; 4] = [Self::UdpSingle, Self::Udp, Self::UnixDatagram, Self::Events];

    fn name(self) -> &'static str {
        match self {
            Self::UdpSingle => "udp, one event a datagram",
            Self::Udp => "udp, 1,400 bytes",
            Self::UnixDatagram => "unix datagram, 8,000 bytes",
            Self::Events => "events.socket, 60,000 bytes",
        }
    }

    fn packet_bytes(self) -> usize {
        match self {
            Self::UdpSingle => 0,
            Self::Udp => 1_400,
            Self::UnixDatagram => 8_000,
            Self::Events => 60_000,
        }
    }
}

/// A packet and what it holds.
struct Packet {
    bytes: Vec<u8>,
    events: u64,
    lines: u64,
}

/// Packets that together hold every key.
fn packets(way: Way) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut packet = Packet { bytes: Vec::new(), events: 0, lines: 0 };
    for key in 0..KEYS {
        // Eight values a line, as clients pack them, or one.
        let (values, events) =
            if way == Way::UdpSingle { ("1", 1) } else { ("1:2:3:4:5:6:7:8", 8) };
        let line = format!("api.calls:{values}|c|#customer:acme,key:k{key}\n");
        let is_full = packet.bytes.len().saturating_add(line.len()) > way.packet_bytes();
        if is_full && packet.events > 0 {
            let next = Packet { bytes: Vec::new(), events: 0, lines: 0 };
            packets.push(std::mem::replace(&mut packet, next));
        }
        packet.bytes.extend_from_slice(line.as_bytes());
        packet.events = packet.events.saturating_add(events);
        packet.lines = packet.lines.saturating_add(1);
    }
    packets.push(packet);
    packets
}

/// Measures all doors; a line for each goes to `out`.
///
/// # Errors
/// When the programs do not come up, or what is sent does not arrive.
pub fn run(options: Options, out: &mut dyn Write) -> Result<()> {
    let mut stack = Stack::start(Settings::new(Ports::free()?, CATALOGUE))?;
    let before = stack.agent()?.processor_millis()?;
    pause(IDLE);
    let used = stack.agent()?.processor_millis()?.saturating_sub(before);
    let resident = stack.agent()?.resident_kib()?;
    writeln!(
        out,
        "agent, idle: {resident} KiB resident, {used} ms of processor time in {} s",
        IDLE.as_secs()
    )?;
    writeln!(
        out,
        "{:<28} {:>13} {:>13} {:>6} {:>9} {:>11}",
        "door", "bare loop/s", "agent/s", "ratio", "lost", "resident"
    )?;
    let length = Duration::from_secs(options.seconds);
    for way in Way::ALL {
        let bare = bare(way, length)?;
        let agent = agent(way, length, &mut stack)?;
        let percent = agent.per_second.saturating_mul(100).checked_div(bare).unwrap_or(0);
        writeln!(
            out,
            "{:<28} {bare:>13} {:>13} {percent:>5}% {:>9} {:>7} KiB",
            way.name(),
            agent.per_second,
            agent.lost,
            agent.resident_kib
        )?;
    }
    let interval = "seal_interval 100 ms, looked for every 10 ms";
    for (what, took) in [
        ("to durable", latency::acknowledged(&stack)?),
        (&format!("to live usage ({interval})"), latency::seen(&stack)?),
    ] {
        let latency::Percentiles { p50, p99, max } = took;
        writeln!(out, "one event {what}: p50 {p50} us, p99 {p99} us, max {max} us")?;
    }
    crate::conserved::assert_conserved(&stack)
}

/// Sends until `stop`; returns how many events were sent.
fn send(packets: &[Packet], stop: &AtomicBool, mut sender: Sender) -> Result<u64> {
    let mut sent: u64 = 0;
    for packet in packets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        sender.send(packet)?;
        sent = sent.saturating_add(packet.events);
    }
    sender.finish()?;
    Ok(sent)
}

/// Lets `sender` run for `length`; returns what it sent and how long it took.
fn for_a_while(
    length: Duration,
    sender: impl FnOnce(&AtomicBool) -> Result<u64> + Send,
) -> Result<(u64, Duration)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clock = Stopwatch::start();
        let sending = scope.spawn(|| sender(&stop));
        pause(length);
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join().ok().context("the sender panicked")??;
        Ok((sent, clock.elapsed()))
    })
}

fn per_second(events: u64, took: Duration) -> u64 {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    events.saturating_mul(1_000).checked_div(millis).unwrap_or(0)
}

/// What the agent reached.
struct Reached {
    per_second: u64,
    lost: u64,
    resident_kib: u64,
}

/// Events a second that are accepted, durable and posted, the wait for the last of them included.
fn agent(way: Way, length: Duration, stack: &mut Stack) -> Result<Reached> {
    let packets = packets(way);
    let before = stack.wait_posted(0)?;
    let to = match way {
        Way::UdpSingle | Way::Udp => To::Udp(stack.ports().udp),
        Way::UnixDatagram => To::Datagrams(stack.path("dsd.socket")),
        Way::Events => To::Acknowledged(stack.path("events.socket")),
    };
    let clock = Stopwatch::start();
    let (sent, _) = for_a_while(length, |stop| send(&packets, stop, Sender::connect(&to)?))?;
    let resident_kib = stack.agent()?.resident_kib()?;
    let (accepted, took) = all_posted(stack, clock)?;
    let accepted = accepted.saturating_sub(before);
    Ok(Reached {
        per_second: per_second(accepted, took),
        lost: sent.saturating_sub(accepted),
        resident_kib,
    })
}

/// Waits until nothing more comes: what was sent last may still be in the kernel's queue when all that
/// was read is posted. Returns the count, and when it was reached.
fn all_posted(stack: &Stack, clock: Stopwatch) -> Result<(u64, Duration)> {
    loop {
        let accepted = stack.wait_posted(0)?;
        let took = clock.elapsed();
        pause(QUIET);
        if stack.wait_posted(0)? == accepted {
            return Ok((accepted, took));
        }
    }
}
