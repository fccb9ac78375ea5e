//! The archive of raw events, which outlives every process; and what must be true of it.
//!
//! **Owns** the rule: what it holds of a batch is what the batch was made of, and nothing is missing that no disk took along.

use std::collections::BTreeMap;

use tidemark_common::batch::{Body, SealedBatch};
use tidemark_common::id::{Sequence, StreamId};
use tidemark_common::wire::{EventsDigest, EventsPiece};

use super::oracle::{Broken, Oracle};
use super::story::Story;

/// The pieces that were archived, by their batches.
#[derive(Debug, Default)]
pub struct RawArchive(BTreeMap<(StreamId, Sequence), BTreeMap<u32, EventsPiece>>);

impl RawArchive {
    pub fn take(&mut self, stream: StreamId, piece: EventsPiece) {
        self.0.entry((stream, piece.sequence)).or_default().insert(piece.index, piece);
    }

    /// Holds all that crossed the network against it. Where nothing was lost, nothing may be missing.
    pub fn check(
        &self,
        oracle: &Oracle,
        nothing_is_lost: bool,
        story: &mut Story,
    ) -> Result<(), Broken> {
        for ((stream, sequence), bytes) in oracle.batches() {
            let (header, body) = SealedBatch::split(bytes).map_err(|error| error.to_string())?;
            let Ok(body) = Body::open(&header, body) else { continue };
            let Some(digest) = body.extras.events_digest() else { continue };
            let pieces = self.0.get(&(*stream, *sequence));
            let of = pieces.and_then(|pieces| Some(pieces.first_key_value()?.1.of)).unwrap_or(0);
            let held = pieces.map_or(0, BTreeMap::len);
            if pieces.is_none() || u32::try_from(held) != Ok(of) {
                if nothing_is_lost && !oracle.lacking.contains(stream) {
                    return Err(format!(
                        "raw events: {held} of {of} pieces of batch {sequence} of stream {stream} are archived"
                    ));
                }
                continue;
            }
            let mut found = EventsDigest::default();
            pieces.into_iter().flatten().for_each(|(_, piece)| found.piece(&piece.bytes));
            if found.finish() != digest {
                return Err(format!(
                    "raw events: batch {sequence} of stream {stream} was made of others than are archived"
                ));
            }
            story.count("raw events hold");
        }
        Ok(())
    }
}
