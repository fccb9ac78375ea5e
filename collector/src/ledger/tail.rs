//! The tail: admitted batches that are not folded into the totals yet, kept in memory for readers.
//!
//! **Owns** the tail's shape and what a reader finds in it. **Does not own** when it changes: the
//! writer appends after a commit, the folder removes after a fold, each by making a new tail.
//!
//! Invariants: a tail never changes once made. A reader takes the tail first and the totals after it,
//! and adds only batches beyond the totals' folded sequences: what was folded in between is then in
//! the totals, and counted there alone.
//!
//! Limits: the ledger keeps the tail under `tail_bytes_max` by letting admission wait for the folder.

use std::sync::Arc;

use hashbrown::HashMap;
use tidemark_common::batch::{Header, Line};
use tidemark_common::id::{CustomerId, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

use crate::ledger::duplicates::Suppressed;
use crate::ledger::marks::Marks;
use crate::usage::Class;

/// A tail keeps its batches in segments of at most this many: appending copies one segment and the
/// list of segments, never the whole list of batches.
const SEGMENT_BATCHES_MAX: usize = 128;

/// Admitted batches in the order of their admission.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    segments: Vec<Arc<Vec<Arc<TailBatch>>>>,
    size: TailSize,
}

/// How much a tail holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TailSize {
    pub batches: u64,
    pub lines: u64,
    /// Bytes of the bodies' raw form.
    pub bytes: u64,
    /// Events in its lines.
    pub events: u64,
}

/// One admitted batch.
#[derive(Debug)]
pub struct TailBatch {
    pub stream: StreamId,
    /// The stream's identity.
    pub agent: AgentName,
    pub sequence: Sequence,
    /// Where the store keeps it.
    pub position: u64,
    pub admitted: Timestamp,
    /// Of its body's raw form.
    pub bytes: u64,
    /// Empty for a quarantined batch.
    pub lines: CustomerLines,
}

/// A batch's lines, one look-up from their customer.
#[derive(Debug, Default)]
pub struct CustomerLines {
    by_customer: HashMap<CustomerId, Vec<ClassedLine>>,
    lines: u64,
    events: u64,
}

/// A line, and whether it is billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassedLine {
    pub class: Class,
    /// Its place in the body.
    pub index: u32,
    pub line: Line,
}

impl CustomerLines {
    /// Takes a body's lines, in its order.
    #[must_use]
    pub fn new(all: Vec<Line>, marks: &Marks) -> Self {
        let mut found = Self::default();
        for (index, line) in (0..).zip(all) {
            let class = marks.class(usize::try_from(index).unwrap_or(usize::MAX));
            found.lines = found.lines.saturating_add(1);
            found.events = found.events.saturating_add(line.value.events);
            match found.by_customer.get_mut(&line.key.customer) {
                Some(lines) => lines.push(ClassedLine { class, index, line }),
                None => {
                    let customer = line.key.customer.clone();
                    found.by_customer.insert(customer, vec![ClassedLine { class, index, line }]);
                }
            }
        }
        found
    }

    /// Gives suppressed lines their class; how many events they hold.
    pub fn suppress(&mut self, suppressed: &Suppressed) -> u64 {
        let mut events = 0_u64;
        for held in self.by_customer.values_mut().flatten() {
            if suppressed.first_of(held.index).is_some() {
                held.class = Class::Suppressed;
                events = events.saturating_add(held.line.value.events);
            }
        }
        events
    }

    /// The lines of `customer`.
    #[must_use]
    pub fn of(&self, customer: &CustomerId) -> &[ClassedLine] {
        self.by_customer.get(customer).map_or(&[], Vec::as_slice)
    }

    /// All lines, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &ClassedLine> {
        self.by_customer.values().flatten()
    }

    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}

impl TailBatch {
    /// `lines` are `None` for a quarantined batch: then its header's raw length is a mere claim, and what
    /// is stored counts instead.
    #[must_use]
    pub fn new(
        header: &Header,
        agent: AgentName,
        position: u64,
        admitted: Timestamp,
        lines: Option<CustomerLines>,
    ) -> Self {
        let length = if lines.is_some() { header.raw_length } else { header.stored_length };
        Self {
            stream: header.stream,
            agent,
            sequence: header.sequence,
            position,
            admitted,
            bytes: u64::from(length),
            lines: lines.unwrap_or_default(),
        }
    }
}

impl Tail {
    #[must_use]
    pub fn size(&self) -> TailSize {
        self.size
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The batches, oldest admission first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TailBatch>> {
        self.segments.iter().flat_map(|segment| segment.iter())
    }

    /// This tail and `batches` after it.
    #[must_use]
    pub fn appended(&self, batches: Vec<Arc<TailBatch>>) -> Self {
        let mut next = self.clone();
        for batch in batches {
            next.size.add(&batch);
            match next.segments.last_mut() {
                Some(segment) if segment.len() < SEGMENT_BATCHES_MAX => {
                    Arc::make_mut(segment).push(batch)
                }
                Some(_) | None => next.segments.push(Arc::new(vec![batch])),
            }
        }
        next
    }

    /// This tail without its `folded` oldest batches.
    #[must_use]
    pub fn without_oldest(&self, folded: u64) -> Self {
        let folded = usize::try_from(folded).unwrap_or(usize::MAX);
        Self::default().appended(self.iter().skip(folded).cloned().collect())
    }
}

impl TailSize {
    fn add(&mut self, batch: &TailBatch) {
        self.batches = self.batches.saturating_add(1);
        self.lines = self.lines.saturating_add(batch.lines.lines);
        self.bytes = self.bytes.saturating_add(batch.bytes);
        self.events = self.events.saturating_add(batch.lines.events);
    }
}

#[cfg(test)]
mod tests {
    use tidemark_common::batch::{Dimensions, LineKey, LineValue};
    use tidemark_common::id::{LedgerId, MeterName};
    use tidemark_common::time::Bucket;

    use super::*;
    use crate::ledger::conformance::Journal;

    fn agent() -> AgentName {
        AgentName::parse("a").unwrap()
    }

    fn batch(sequence: u64) -> Arc<TailBatch> {
        let key = LineKey {
            meter: MeterName::parse("m").unwrap(),
            customer: CustomerId::parse("c").unwrap(),
            dimensions: Dimensions::default(),
            bucket: Bucket(1),
            part: 0,
        };
        let value = LineValue { events: 3, ..LineValue::default() };
        Arc::new(TailBatch {
            stream: StreamId([1; 16]),
            agent: agent(),
            sequence: Sequence(sequence),
            position: sequence,
            admitted: Timestamp(0),
            bytes: 10,
            lines: CustomerLines::new(vec![Line { key, value }], &Marks::default()),
        })
    }

    #[test]
    fn a_quarantined_batch_counts_as_stored_whatever_it_claims() {
        let header = Journal::new(1, LedgerId([0; 16])).seal(&[("c", "m", 1, 5)]).header;
        let header = Header { raw_length: u32::MAX, stored_length: 7, ..header };
        let bytes = |lines| TailBatch::new(&header, agent(), 0, Timestamp(0), lines).bytes;
        assert_eq!(bytes(None), 7);
        assert_eq!(bytes(Some(CustomerLines::default())), u64::from(u32::MAX));
    }

    fn sequences(tail: &Tail) -> Vec<u64> {
        tail.iter().map(|batch| batch.sequence.0).collect()
    }

    #[test]
    fn a_tail_held_by_a_reader_never_changes() {
        let first = Tail::default().appended((1..=200).map(batch).collect());
        let second = first.appended(vec![batch(201)]);
        let third = second.without_oldest(150);
        assert_eq!(sequences(&first), (1..=200).collect::<Vec<_>>());
        assert_eq!(sequences(&second), (1..=201).collect::<Vec<_>>());
        assert_eq!(sequences(&third), (151..=201).collect::<Vec<_>>());
        assert_eq!(third.size(), TailSize { batches: 51, lines: 51, bytes: 510, events: 153 });
        assert!(second.without_oldest(201).is_empty());
    }

    #[test]
    fn lines_are_one_look_up_from_their_customer() {
        let batch = batch(1);
        assert_eq!(batch.lines.of(&CustomerId::parse("c").unwrap()).len(), 1);
        assert_eq!(batch.lines.of(&CustomerId::parse("d").unwrap()).len(), 0);
    }
}
