//! Up to when everything accepted is posted, and what holds that back.
//!
//! **Owns** the rule over all streams. **Does not own** when one stream's confirmation counts
//! (`ledger/stream.rs`).
//!
//! Every stream bounds completeness, but a closed one of which nothing is missing: no events on their
//! way, no quarantined batches, never another journal under its id.

use std::sync::Arc;

use tidemark_common::id::StreamId;
use tidemark_common::time::Timestamp;

use crate::ledger::stream::{Missing, StreamRecord, StreamState};

/// All that the known streams accepted before `through` is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completeness {
    /// `None` while a stream never confirmed.
    pub through: Option<Timestamp>,
    /// The streams that hold it back, and why.
    pub held_back_by: Vec<(StreamId, Why)>,
}

/// Why a stream holds completeness back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// One of [`REASONS`].
    pub reason: &'static str,
    /// The reason and its figures, for people.
    pub told: String,
}

/// Every reason, for a metric with one series each.
pub const REASONS: [&str; 7] =
    ["conflict", "quarantine", "missing", "closed", "unconfirmed", "backlog", "silent"];

/// Judges all streams at ledger time `now`. A stream that did not confirm for `silent_after_millis` is
/// named as silent.
#[must_use]
pub fn complete_through<'r>(
    streams: impl IntoIterator<Item = &'r Arc<StreamRecord>>,
    now: Timestamp,
    silent_after_millis: i64,
) -> Completeness {
    let mut found = Completeness { through: Some(now), held_back_by: Vec::new() };
    for record in streams.into_iter().filter(|record| bounds(record)) {
        found.through = found.through.min(record.complete_through());
        if let Some(why) = why(record, now, silent_after_millis) {
            found.held_back_by.push((record.stream, why));
        }
    }
    found
}

fn bounds(record: &StreamRecord) -> bool {
    let closed = match record.state {
        StreamState::Closed => true,
        StreamState::Open | StreamState::Conflict => false,
    };
    !closed
        || record.in_transit() > 0
        || record.quarantine_cap.is_some()
        || record.conflict_cap.is_some()
}

fn why(record: &StreamRecord, now: Timestamp, silent_after_millis: i64) -> Option<Why> {
    let why = |reason, told: String| Some(Why { reason, told: format!("{reason}: {told}") });
    if record.state == StreamState::Conflict || record.conflict_cap.is_some() {
        return why("conflict", "its journal was cloned or rolled back".to_owned());
    }
    if record.quarantined_batches > 0 {
        let (batches, events) = (record.quarantined_batches, record.quarantined_events);
        return why("quarantine", format!("{batches} batches with {events} events cannot be read"));
    }
    if let Some(Missing { first, last, events }) = record.missing {
        let told = format!(
            "batches {first} to {last} with {events} events are neither here nor in its journal"
        );
        return why("missing", told);
    }
    if record.state == StreamState::Closed {
        let events = record.in_transit();
        return why("closed", format!("{events} events that it accepted never came"));
    }
    let Some(through) = record.complete_through() else {
        return why("unconfirmed", "it never confirmed that all it accepted is posted".to_owned());
    };
    if now.millis_since(through) <= silent_after_millis {
        return None;
    }
    match record.pending.last() {
        Some(pending) => {
            let (posted, sealed) = (record.posted_sequence, pending.sequence);
            why("backlog", format!("batch {posted} of {sealed} is posted"))
        }
        None => {
            let seconds = now.millis_since(record.last_heard).div_euclid(1_000);
            why("silent", format!("last heard {seconds} s ago"))
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemark_common::id::{LedgerId, Sequence};
    use tidemark_common::tls::AgentName;

    use super::*;
    use crate::ledger::stream::Confirmed;

    /// `state confirmed-at` of each stream; the answer is `through; why | why`.
    fn check(streams: &str, expected: &str) {
        let records: Vec<_> = streams
            .split_whitespace()
            .enumerate()
            .map(|(index, text)| record(index, text))
            .collect();
        let found = complete_through(&records, Timestamp(100_000), 30_000);
        let through = found.through.map_or("none".to_owned(), |through| through.0.to_string());
        let why: Vec<_> = found.held_back_by.iter().map(|(_, why)| why.reason).collect();
        assert_eq!(format!("{through}; {}", why.join(" | ")), expected, "{streams}");
    }

    fn record(index: usize, text: &str) -> Arc<StreamRecord> {
        let stream = StreamId([u8::try_from(index).unwrap(); 16]);
        let mut record = StreamRecord::new(
            stream,
            AgentName::parse("a").unwrap(),
            LedgerId([9; 16]),
            Timestamp(0),
        );
        let (state, at) = text.split_at(1);
        if let Ok(millis) = at.parse() {
            let sequence = Sequence(u64::from(state == "b"));
            record.confirm(Confirmed {
                ledger_time: Timestamp(90_000),
                sequence: Sequence(0),
                accepted: 0,
            });
            record.confirmed =
                Some(Confirmed { ledger_time: Timestamp(millis), sequence, accepted: 0 });
        }
        match state {
            "o" => {}
            "c" => record.state = StreamState::Closed,
            "m" => (record.state, record.accepted) = (StreamState::Closed, 1),
            "x" => record.mark_conflict(),
            // After a conflict, its agent went on and confirmed: reopened, and closed.
            "r" | "R" => {
                record.mark_conflict();
                record.confirm(Confirmed {
                    ledger_time: Timestamp(99_000),
                    sequence: Sequence(0),
                    accepted: 0,
                });
                record.state = if state == "R" { StreamState::Closed } else { StreamState::Open };
            }
            "b" => record.confirm(Confirmed {
                ledger_time: Timestamp(99_000),
                sequence: Sequence(1),
                accepted: 1,
            }),
            "q" | "Q" => {
                record.quarantined_batches = 1;
                record.quarantine_cap = Some(Some(Timestamp(50_000)));
                record.state = if state == "Q" { StreamState::Closed } else { StreamState::Open };
            }
            other => panic!("{other} is no state"),
        }
        Arc::new(record)
    }

    #[test]
    fn the_slowest_stream_decides() {
        check("", "100000; ");
        check("o95000 o90000", "90000; ");
        check("o95000 o", "none; unconfirmed");
        check("o95000 c10000", "95000; ");
        check("o95000 o10000", "10000; silent");
        check("o95000 b10000", "10000; backlog");
        check("x95000", "95000; conflict");
        check("r95000", "95000; conflict");
        check("R95000", "95000; conflict");
        check("m95000", "95000; closed");
        check("q95000", "50000; quarantine");
        check("Q95000", "50000; quarantine");
    }
}
