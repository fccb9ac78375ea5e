//! The events of a world, and the applications that send them.
//!
//! ```text
//! series   one customer, meter and plan: up to 79 events
//! event    its quantity is 2^bit of 10^-9, so that a series' sum shows which of its events it holds
//! client   one application: sends a few events, waits for the answer, sends them again with the same ids
//! ```
//! **Owns** what was sent and what applications were told. **Does not own** what must follow: `oracle.rs`.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_common::id::StreamId;
use tidemark_common::time::Timestamp;

use crate::random::Random;

/// 2^79 is the greatest power of two below 10^24, which no quantity may reach.
pub const BITS: u32 = 80;
/// An application sends at most this many events at once.
const EVENTS_AT_ONCE_MAX: u64 = 10;
/// After this long without an answer an application sends again.
pub const PATIENCE_MILLIS: u64 = 3_000;
pub const METERS: [&str; 4] = ["api.calls", "bytes.out", "jobs", "tokens"];
/// A meter that no catalogue knows.
pub const UNKNOWN_METER: &str = "mystery";

/// Who uses what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub customer: String,
    pub meter: String,
    pub plan: String,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    pub series: usize,
    pub bit: u32,
    pub told: Option<Told>,
}

/// Where and when an application was told that its event is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub stream: StreamId,
    /// A reading of ledger time after it was told; `None` until there is one.
    pub ledger_time: Option<Timestamp>,
}

/// Everything that was sent.
#[derive(Debug, Default)]
pub struct Load {
    pub series: Vec<Series>,
    pub events: Vec<Event>,
    numbers: BTreeMap<Series, usize>,
    used: Vec<u32>,
    /// Told, and without a reading of ledger time.
    unstamped: Vec<usize>,
    /// Rejections that applications were told of, by stream.
    pub rejected: BTreeMap<StreamId, u64>,
}

/// What one application has sent and not been answered.
#[derive(Debug, Clone)]
pub struct Sent {
    pub events: Vec<usize>,
    /// One a line, as JSON; the same bytes at each attempt.
    pub lines: Vec<String>,
    /// Lines that the agent must reject.
    pub bad: usize,
    /// The journal that it was first sent to.
    pub stream: StreamId,
    pub attempts: u32,
}

/// An application beside one agent.
#[derive(Debug)]
pub struct Client {
    pub host: usize,
    pub random: Random,
    pub next_at: u64,
    pub waits: Option<Sent>,
    /// Where the answer comes from: the process that was asked, and until when it may answer.
    pub asked: Option<(u64, u64)>,
    pub number: usize,
    pub batches: u64,
}

impl Load {
    fn number(&mut self, series: Series) -> usize {
        if let Some(known) = self.numbers.get(&series) {
            return *known;
        }
        let number = self.series.len();
        self.numbers.insert(series.clone(), number);
        self.series.push(series);
        self.used.push(0);
        number
    }

    /// A new event of some series.
    fn event(&mut self, random: &mut Random) -> usize {
        let meter = if random.below(40) == 0 { UNKNOWN_METER } else { *random.pick(&METERS) };
        let customer = format!("c{}", random.below(4));
        let plan = if meter == UNKNOWN_METER { String::new() } else { "p".to_owned() };
        // The first of its kind that has room.
        let mut number = 0;
        for round in 0.. {
            let plan = if plan.is_empty() { String::new() } else { format!("{plan}{round}") };
            let customer =
                if plan.is_empty() { format!("{customer}-{round}") } else { customer.clone() };
            number = self.number(Series { customer, meter: meter.to_owned(), plan });
            if self.used[number] < BITS {
                break;
            }
        }
        let bit = self.used[number];
        self.used[number] += 1;
        self.events.push(Event { series: number, bit, told: None });
        self.events.len() - 1
    }

    /// The event's quantity as text.
    #[must_use]
    pub fn quantity(&self, event: usize) -> String {
        let units = 1_u128 << self.events[event].bit;
        format!("{}.{:09}", units / 1_000_000_000, units % 1_000_000_000)
    }

    /// What an application sends to an acknowledged door next.
    pub fn batch(&mut self, client: &mut Client, stream: StreamId, wall: Timestamp) -> Sent {
        let random = &mut client.random;
        client.batches += 1;
        let mut sent = Sent { events: Vec::new(), lines: Vec::new(), bad: 0, stream, attempts: 0 };
        for index in 0..=random.below(EVENTS_AT_ONCE_MAX) {
            if random.below(25) == 0 {
                sent.bad += 1;
                sent.lines
                    .push(r#"{"meter":"api.calls","customer":"c0","quantity":"much"}"#.to_owned());
            }
            let event = self.event(random);
            let Series { customer, meter, plan } = &self.series[self.events[event].series];
            let quantity = self.quantity(event);
            let id = format!("{}-{}-{index}", client.number, client.batches);
            // Some events know their time; a little in the past, so that skewed clocks do not matter.
            let time = if random.below(3) == 0 {
                format!(r#","time":{}"#, wall.0.div_euclid(1_000) - 3_600)
            } else {
                String::new()
            };
            let dimensions = if plan.is_empty() {
                r#""region":"eu""#.to_owned()
            } else {
                format!(r#""plan":"{plan}","region":"eu""#)
            };
            sent.lines.push(format!(
                r#"{{"meter":"{meter}","customer":"{customer}","quantity":"{quantity}","id":"{id}","dimensions":{{{dimensions}}}{time}}}"#
            ));
            sent.events.push(event);
        }
        sent
    }

    /// A datagram, which nobody answers.
    pub fn datagram(&mut self, random: &mut Random) -> Vec<u8> {
        let mut lines = Vec::new();
        for _ in 0..=random.below(EVENTS_AT_ONCE_MAX) {
            let event = self.event(random);
            let Series { customer, meter, plan } = &self.series[self.events[event].series];
            let quantity = self.quantity(event);
            let plan = if plan.is_empty() { String::new() } else { format!(",plan:{plan}") };
            lines.push(format!("{meter}:{quantity}|c|#customer:{customer}{plan}"));
        }
        lines.join("\n").into_bytes()
    }

    /// The applications were told that these are accepted by `stream`.
    pub fn tell(&mut self, events: &[usize], stream: StreamId) {
        for event in events {
            self.events[*event].told = Some(Told { stream, ledger_time: None });
            self.unstamped.push(*event);
        }
    }

    /// A reading of ledger time: whatever was told before it was accepted before it.
    pub fn stamp(&mut self, ledger_time: Timestamp) {
        for event in self.unstamped.drain(..) {
            if let Some(told) = &mut self.events[event].told {
                told.ledger_time = Some(ledger_time);
            }
        }
    }

    /// Every customer that something was sent for.
    #[must_use]
    pub fn customers(&self) -> BTreeSet<&str> {
        self.series.iter().map(|series| series.customer.as_str()).collect()
    }

    /// The series of a usage row.
    #[must_use]
    pub fn find(&self, series: &Series) -> Option<usize> {
        self.numbers.get(series).copied()
    }
}
