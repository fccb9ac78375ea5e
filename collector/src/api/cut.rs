//! The cut that an answer was made from: when, up to which batch of each stream, and what is missing.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use tidemark_common::id::{Digest, Sequence, StreamId};
use tidemark_common::time::Timestamp;

use crate::catalog::Catalog;
use crate::ledger::Snapshot;
use crate::ledger::retired::RetiredSums;
use crate::ledger::store::StoreError;
use crate::period::Zone;
use crate::reconcile::judged;

/// At most this many streams are named one by one, here and as holding back; all are in
/// `/v1/streams`.
const STREAMS_SHOWN_MAX: usize = 100;

/// Stands in every answer.
#[derive(Debug, Serialize)]
pub(super) struct Cut {
    /// The ledger time of the snapshot.
    as_of: String,
    /// All usage before this instant, from every known stream that is not lost, is in the answer; null where some
    /// stream never confirmed.
    complete_through: Option<String>,
    held_back_by: Vec<HeldBack>,
    /// How many streams hold it back, shown or not.
    held_back_by_streams: usize,
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
    #[serde(flatten)]
    posted: Posted,
    /// Those that are done, and are not among the streams that are shown or digested; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    retired: Option<Retired>,
}

#[derive(Debug, Serialize)]
struct Retired {
    streams: u64,
    batches: u64,
    /// The sum modulo 2^256 of each one's SHA-256 of id, posted sequence (u64 big-endian) and posted digest.
    digest: String,
}

/// Up to where the streams are posted.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Posted {
    Each {
        /// Each stream's posted sequence.
        streams: BTreeMap<String, u64>,
    },
    Many {
        streams_known: usize,
        /// SHA-256 of every stream's id and posted sequence (16 bytes, u64 big-endian), ascending by id.
        streams_digest: String,
        streams_listed_at: &'static str,
    },
}

impl Posted {
    fn of(streams: impl ExactSizeIterator<Item = (StreamId, Sequence)>) -> Self {
        if streams.len() <= STREAMS_SHOWN_MAX {
            let shown = streams.map(|(stream, posted)| (stream.to_string(), posted.0));
            return Self::Each { streams: shown.collect() };
        }
        let (streams_known, mut sha) = (streams.len(), Sha256::new());
        for (stream, posted) in streams {
            sha.update(stream.0);
            sha.update(posted.0.to_be_bytes());
        }
        Self::Many {
            streams_known,
            streams_digest: Digest(sha.finalize().into()).to_string(),
            streams_listed_at: "/v1/streams",
        }
    }
}

impl Retired {
    fn of(sums: &RetiredSums) -> Option<Self> {
        let RetiredSums { streams, batches, digest, .. } = *sums;
        let digest = Digest(digest).to_string();
        (streams > 0).then_some(Self { streams, batches, digest })
    }
}

impl Cut {
    /// Times are written in `zone`.
    ///
    /// # Errors
    /// If what was declared lost cannot be read.
    pub(super) fn of(
        catalog: &Catalog,
        snapshot: &Snapshot,
        zone: &Zone,
    ) -> Result<Self, StoreError> {
        let completeness = judged(catalog, snapshot, |judging| judging.complete_through(snapshot))?;
        let held_back_by_streams = completeness.held_back_by.len();
        let held_back_by = completeness
            .held_back_by
            .into_iter()
            .take(STREAMS_SHOWN_MAX)
            .map(|(stream, why)| HeldBack { stream: stream.to_string(), why: why.told });
        Ok(Self {
            as_of: zone.rfc3339(snapshot.ledger_time()),
            complete_through: completeness.through.map(|through: Timestamp| zone.rfc3339(through)),
            held_back_by: held_back_by.collect(),
            held_back_by_streams,
            events_in_transit: snapshot.in_transit(),
            cut: Streams {
                ledger: snapshot.ledger().to_string(),
                posted: Posted::of(snapshot.posted()),
                retired: Retired::of(snapshot.retired()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This many streams, each posted up to 7 -> the cut as JSON.
    fn shown(streams: u8) -> serde_json::Value {
        let streams: Vec<_> =
            (0..streams).map(|number| (StreamId([number; 16]), Sequence(7))).collect();
        serde_json::to_value(Posted::of(streams.into_iter())).unwrap()
    }

    #[test]
    fn few_streams_are_shown_and_many_are_digested() {
        let one = serde_json::json!({"streams": {StreamId([0; 16]).to_string(): 7}});
        assert_eq!(shown(1), one);
        assert_eq!(shown(100)["streams"].as_object().unwrap().len(), 100);
        let many = shown(101);
        assert_eq!(many.get("streams"), None);
        assert_eq!(many["streams_known"], 101);
        assert_eq!(many["streams_digest"].as_str().unwrap().len(), 64);
        assert_ne!(many["streams_digest"], shown(102)["streams_digest"]);
    }
}
