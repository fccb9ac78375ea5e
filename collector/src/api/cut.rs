//! The cut that an answer was made from: when, up to which batch of each stream, and what is missing.

use std::collections::BTreeMap;

use serde::Serialize;

use tidemark_common::time::Timestamp;

use crate::ledger::Snapshot;
use crate::period::Zone;

/// Stands in every answer.
#[derive(Debug, Serialize)]
pub(super) struct Cut {
    /// The ledger time of the snapshot.
    as_of: String,
    /// All usage before this instant, from every known stream, is in the answer; null where some
    /// stream never confirmed.
    complete_through: Option<String>,
    held_back_by: Vec<HeldBack>,
    /// Accepted events that are known to be on their way.
    events_in_transit: u64,
    cut: Streams,
}

/// A stream that keeps `complete_through` from moving.
#[derive(Debug, Serialize)]
struct HeldBack {
    stream: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Streams {
    ledger: String,
    /// Each stream's posted sequence.
    streams: BTreeMap<String, u64>,
}

impl Cut {
    /// Times are written in `zone`.
    pub(super) fn of(snapshot: &Snapshot, zone: &Zone) -> Self {
        let completeness = snapshot.complete_through();
        let held_back_by = completeness
            .held_back_by
            .into_iter()
            .map(|(stream, why)| HeldBack { stream: stream.to_string(), why });
        Self {
            as_of: zone.rfc3339(snapshot.ledger_time()),
            complete_through: completeness.through.map(|through: Timestamp| zone.rfc3339(through)),
            held_back_by: held_back_by.collect(),
            events_in_transit: snapshot.in_transit(),
            cut: Streams {
                ledger: snapshot.ledger().to_string(),
                streams: snapshot
                    .streams()
                    .iter()
                    .map(|status| (status.stream.to_string(), status.posted_sequence.0))
                    .collect(),
            },
        }
    }
}
