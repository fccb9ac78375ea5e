//! The demonstration's load: one sender a door.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::doors::{Datagrams, Frames, Udp};
use crate::expected::Expected;
use crate::random::Random;
use crate::resend::{Client, Mix, Route, with_clients};
use crate::stack::Stack;
use crate::wait::pause;

/// Who uses.
pub(super) const CUSTOMERS: &[&str] = &["acme", "globex", "initech", "tyrell", "wonka"];
/// What they use.
pub(super) const METERS: &[&str] = &["api.calls", "llm.tokens", "egress.gib"];
/// Between two packets of a sender.
const PAUSE: Duration = Duration::from_millis(10);
const LINES_PER_PACKET_MAX: u64 = 12;
const REGIONS: &[&str] = &["eu", "us", "ap"];

/// What was sent, by door.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// By (door, customer): handed to a socket, whatever became of it.
    pub(super) unacknowledged: BTreeMap<(&'static str, &'static str), u64>,
    /// By door: what the clients were told is durable.
    pub(super) durable: BTreeMap<&'static str, Expected>,
}

impl Sent {
    /// Events that clients were told are durable.
    pub(super) fn acknowledged(&self) -> u64 {
        self.durable.values().map(Expected::events).sum()
    }
}

/// The doors that do not answer.
#[derive(Debug, Clone)]
enum Way {
    Udp(u16),
    Datagrams(PathBuf),
    Frames(PathBuf),
}

impl Way {
    fn door(&self) -> &'static str {
        match self {
            Self::Udp(_) => "udp",
            Self::Datagrams(_) => "unix_datagram",
            Self::Frames(_) => "dsd_stream",
        }
    }

    fn connect(&self) -> Result<Connection> {
        Ok(match self {
            Self::Udp(port) => Connection::Udp(Udp::to(*port)?),
            Self::Datagrams(path) => Connection::Datagrams(Datagrams::to(path)?),
            Self::Frames(path) => Connection::Frames(Frames::to(path)?),
        })
    }
}

enum Connection {
    Udp(Udp),
    Datagrams(Datagrams),
    Frames(Frames),
}

impl Connection {
    fn send(&mut self, packet: &[u8]) -> Result<()> {
        match self {
            Self::Udp(udp) => udp.send(packet),
            Self::Datagrams(datagrams) => datagrams.send(packet),
            Self::Frames(frames) => frames.send(packet),
        }
    }
}

/// Every door's sender.
#[derive(Debug)]
pub(super) struct Load {
    ways: Vec<(Way, Random)>,
    events: Client,
    http: Client,
}

impl Load {
    pub(super) fn new(stack: &Stack, mut random: Random) -> Result<Self> {
        let ways = [
            Way::Udp(stack.ports().udp),
            Way::Datagrams(stack.path("dsd.socket")),
            Way::Frames(stack.path("dsd-stream.socket")),
        ];
        let mix = |door| Mix {
            customers: CUSTOMERS,
            meters: METERS,
            door,
            quantity_end: 3,
            pause: PAUSE,
        };
        let events = Route::Events(stack.path("events.socket"));
        let http = Route::Http(stack.events_url());
        Ok(Self {
            ways: ways.into_iter().map(|way| (way, random.fork())).collect(),
            events: Client::new("demo-events", events, mix("events"), random.fork())?,
            http: Client::new("demo-http", http, mix("http"), random.fork())?,
        })
    }

    /// Sends through every door while `during` runs.
    pub(super) fn run(self, during: impl FnOnce() -> Result<()>) -> Result<Sent> {
        let stop = AtomicBool::new(false);
        let mut sent = Sent::default();
        std::thread::scope(|scope| {
            let ways = self.ways.into_iter();
            let stop = &stop;
            let plain: Vec<_> =
                ways.map(|(way, random)| scope.spawn(move || send(&way, random, stop))).collect();
            // Each acknowledged client by itself, so that what it sent is known by door.
            let http = self.http;
            let events = self.events;
            let mut via_http = Ok(Expected::default());
            let via_events = with_clients(vec![events], |_| {
                via_http = with_clients(vec![http], |_| {
                    let outcome = during();
                    stop.store(true, Ordering::SeqCst);
                    outcome
                });
                Ok(())
            });
            stop.store(true, Ordering::SeqCst);
            for thread in plain {
                sent.unacknowledged.extend(thread.join().ok().context("a sender panicked")?);
            }
            sent.durable.insert("events", via_events?);
            sent.durable.insert("http", via_http?);
            Ok(sent)
        })
    }
}

/// Sends until `stop`. While the agent is dead, what the kernel refuses is not sent, and not counted;
/// what it takes is counted as sent, whether anyone will read it or not.
fn send(
    way: &Way,
    mut random: Random,
    stop: &AtomicBool,
) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut sent = BTreeMap::new();
    let mut connection = None;
    while !stop.load(Ordering::SeqCst) {
        pause(PAUSE);
        let mut held = match connection.take() {
            Some(held) => held,
            None => match way.connect() {
                Ok(made) => made,
                Err(_) => continue,
            },
        };
        let (packet, customers) = packet(&mut random, way.door());
        if held.send(packet.as_bytes()).is_ok() {
            for customer in customers {
                let count: &mut u64 = sent.entry((way.door(), customer)).or_default();
                *count = count.saturating_add(1);
            }
            connection = Some(held);
        }
    }
    sent
}

/// A few lines, and the customer of each event in them.
fn packet(random: &mut Random, door: &str) -> (String, Vec<&'static str>) {
    let mut lines = Vec::new();
    let mut customers = Vec::new();
    for _ in 0..random.below(LINES_PER_PACKET_MAX).saturating_add(1) {
        let customer = *random.pick::<&'static str>(CUSTOMERS);
        let region = *random.pick::<&str>(REGIONS);
        let tags = format!("#customer:{customer},door:{door}");
        lines.push(match random.below(3) {
            0 => format!("api.calls:{}|c|{tags},region:{region}", random.below(20)),
            1 => format!("llm.tokens:{}|c|{tags},model:small", random.below(4_000)),
            // Packed: two events in one line.
            _ => {
                customers.push(customer);
                format!("egress.gib:0.{}:0.{}|d|{tags}", random.below(99), random.below(99))
            }
        });
        customers.push(customer);
    }
    (lines.join("\n"), customers)
}
