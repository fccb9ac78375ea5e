//! Folding: many batches summed in memory into one consolidated change of the totals.
//!
//! **Owns** what a fold adds. **Does not own** the totals (the store adds a slice to them, and compares
//! and sets each stream's folded sequence, in one transaction) or when to fold (the folder).
//!
//! A hot row is written once per fold, however many batches hold it.

use std::collections::BTreeMap;

use tidemark_common::id::{CustomerId, MeterName, Sequence, StreamId};
use tidemark_common::time::Bucket;
use tidemark_common::tls::AgentName;

use crate::ledger::codec::total_key;
use crate::ledger::tail::{ClassedLine, TailBatch};
use crate::usage::{Accumulator, SeenAs};

/// What one fold adds to the totals.
#[derive(Debug, Default)]
pub struct FoldSlice {
    pub streams: BTreeMap<StreamId, FoldedRange>,
    /// By key without part: usually one accumulator, more where sums overflow.
    pub totals: BTreeMap<Vec<u8>, Vec<Accumulator>>,
    pub seen: BTreeMap<(CustomerId, MeterName, SeenAs), SeenUsage>,
    /// Where each batch stands.
    pub index: Vec<(StreamId, Sequence, u64)>,
    /// All positions before this one are folded after it.
    pub end_position: u64,
    pub batches: u64,
    pub lines: u64,
    pub events: u64,
}

/// The batches of one stream in a slice: `first..=last`, without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldedRange {
    pub first: Sequence,
    pub last: Sequence,
}

/// Usage of one meter by one customer, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenUsage {
    pub events: u64,
    pub first: Bucket,
    pub last: Bucket,
}

impl SeenUsage {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

impl FoldSlice {
    /// Sums `batches`, given in the order of their admission.
    #[must_use]
    pub fn of<'a>(batches: impl IntoIterator<Item = &'a TailBatch>) -> Self {
        let mut slice = Self::default();
        for batch in batches {
            slice.add(batch);
        }
        slice
    }

    fn add(&mut self, batch: &TailBatch) {
        let range = FoldedRange { first: batch.sequence, last: batch.sequence };
        self.streams
            .entry(batch.stream)
            .and_modify(|range| {
                assert_eq!(
                    batch.sequence,
                    range.last.next(),
                    "a stream's batches are admitted in order"
                );
                range.last = batch.sequence;
            })
            .or_insert(range);
        self.index.push((batch.stream, batch.sequence, batch.position));
        self.end_position = self.end_position.max(batch.position.saturating_add(1));
        self.batches = self.batches.saturating_add(1);
        for line in batch.lines.iter() {
            self.add_line(line, &batch.agent);
        }
    }

    fn add_line(&mut self, line: &ClassedLine, agent: &AgentName) {
        let ClassedLine { class, line, .. } = line;
        self.lines = self.lines.saturating_add(1);
        self.events = self.events.saturating_add(line.value.events);
        let parts = self.totals.entry(total_key(&line.key, *class)).or_default();
        Accumulator::from(&line.value).merge_into_parts(parts);
        let (events, bucket) = (line.value.events, line.key.bucket);
        let seen = SeenUsage { events, first: bucket, last: bucket };
        self.seen
            .entry((line.key.customer.clone(), line.key.meter.clone(), SeenAs::of(*class, agent)))
            .and_modify(|held| *held = held.and(seen))
            .or_insert(seen);
    }
}
