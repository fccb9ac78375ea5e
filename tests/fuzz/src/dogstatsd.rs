//! DogStatsD datagrams.
//!
//! ```text
//! input   naming u8, then a datagram
//! ```
//!
//! - Each value of a line is one event or one counted reason: none is lost, none is invented.
//! - Numbers are exact, field rules hold, and what is accepted reads again as the same.
//! - Lines stand alone: what follows or precedes a line never changes it.

use tidemark_agent::event::{Parsed, RejectReason};
use tidemark_agent::parse::dogstatsd::{
    self, Kind, PACKED_VALUES_MAX, RawMetric, Value, labels, lines, split,
};
use tidemark_agent::parse::naming::Naming;

use crate::choices::Choices;
use crate::decimals::check_quantity;
use crate::fields;

pub fn check(input: &[u8]) {
    let mut choices = Choices::new(input);
    let namings = fields::namings();
    let naming = choices.of(&namings);
    let datagram = choices.rest();
    let read: Vec<&[u8]> = lines(datagram).collect();
    check_lines(datagram, &read);
    for line in read {
        check_line(line, naming);
    }
}

/// The same lines as a plain search finds.
fn check_lines(datagram: &[u8], read: &[&[u8]]) {
    let slow = datagram.split(|byte| *byte == b'\n');
    let slow = slow.map(|line| if line.ends_with(b"\r") { &line[..line.len() - 1] } else { line });
    let slow: Vec<&[u8]> = slow.filter(|line| !line.is_empty()).collect();
    assert_eq!(read, slow);
}

fn check_line(line: &[u8], naming: &Naming) {
    let parsed = dogstatsd::message(line, naming);
    fields::check(&parsed);
    if line.trim_ascii_start().first() != Some(&b'{') {
        assert_eq!(
            tidemark_agent::parse::line(line, naming),
            parsed,
            "the events door reads the same"
        );
    }
    let raw = match split(line) {
        Ok(raw) => raw,
        Err(reason) => {
            let refused =
                matches!(parsed, Parsed::NotMetered { .. }) || parsed == Parsed::Rejected(reason);
            assert!(refused, "{reason}, but {parsed:?}");
            return;
        }
    };
    check_parts(line, &raw);
    match parsed {
        Parsed::Message(message) => {
            assert_eq!(message.events.len(), values_of(&raw), "each value is counted once");
            let beyond = message.events.iter().skip(PACKED_VALUES_MAX);
            assert!(beyond.into_iter().all(|event| *event == Err(RejectReason::TooManyValues)));
        }
        Parsed::NotMetered { name } => assert!(!naming.metered(&name)),
        Parsed::Rejected(reason) => assert_eq!(labels(&raw, naming), Err(reason)),
    }
}

/// The parts stand where a plain search finds them.
fn check_parts(line: &[u8], raw: &RawMetric<'_>) {
    let mut fields = line.split(|byte| *byte == b'|');
    let first = fields.next().unwrap_or_default();
    let colon = first.iter().position(|byte| *byte == b':').expect("a metric has a colon");
    assert_eq!((raw.name, raw.values), (&first[..colon], &first[colon + 1..]));
    let tags: Vec<&[u8]> =
        fields.skip(1).filter(|field| field.starts_with(b"#")).map(|field| &field[1..]).collect();
    assert_eq!(raw.tags, tags.concat(), "one field of tags is read, or one that is empty");
    for (value, text) in dogstatsd::values(raw).zip(raw.values.split(|byte| *byte == b':')) {
        match (raw.kind, value) {
            (Kind::Set, value) => {
                let unique = value.map(
                    |value| matches!(value, Value::Unique(text) if text.as_bytes() == raw.values),
                );
                assert!(unique.unwrap_or(true), "a set is one value, colons and all");
            }
            (_, Ok(Value::Unique(_))) => panic!("only a set has unique values"),
            (_, _) => check_quantity(text),
        }
    }
}

fn values_of(raw: &RawMetric<'_>) -> usize {
    match raw.kind {
        Kind::Set => 1,
        Kind::Count | Kind::Gauge | Kind::Histogram | Kind::Distribution | Kind::Timing => {
            raw.values.iter().filter(|byte| **byte == b':').count() + 1
        }
    }
}
