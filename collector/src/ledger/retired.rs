//! Streams that are done: out of memory, kept for ever, and brought back when their agent comes again.
//!
//! ```text
//!   live  --closed, complete, not heard of for `retire_after`-->  retired
//!   live  <------------------a request that names it------------  retired
//! ```
//! **Owns** when a stream may retire, and what all the retired come to. **Does not own** where their rows are
//! (`ledger/redb/retired.rs`) or who looks for streams that are due (`ledger/retirer.rs`).
//!
//! Invariant: what is summed over all streams is summed over the live ones, plus [`RetiredSums`].
//!
//! ```text
//! SUMS   version u8 = 1, 13 * u64 in the order of the fields, digest [32], n u16, n * (code u16, count u64)
//! ```
//! Numbers are big-endian.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use tidemark_common::id::Sequence;
use tidemark_common::time::Timestamp;

use super::codec::{Fields, RowError};
use super::stream::{StreamRecord, StreamState};

const SUMS_VERSION: u8 = 1;

/// One that retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredStream {
    /// Ledger time at which it retired: nothing of it changed since.
    pub at: Timestamp,
    pub record: StreamRecord,
}

/// Whether nothing more is expected of a stream, by what the ledger knows: its agent left, and all that it
/// accepted is posted. Such a one bounds no completeness.
#[must_use]
pub fn may_retire(record: &StreamRecord) -> bool {
    match record.state {
        StreamState::Closed => is_whole(record),
        StreamState::Open | StreamState::Conflict => false,
    }
}

/// Whether it may, and was not heard of for so long.
#[must_use]
pub fn is_due(record: &StreamRecord, now: Timestamp, retire_after_millis: i64) -> bool {
    may_retire(record) && now.millis_since(record.last_heard) >= retire_after_millis
}

/// Nothing is missing, set aside, in doubt, or still to come.
fn is_whole(record: &StreamRecord) -> bool {
    record.in_transit() == 0
        && record.sealed_sequence <= record.posted_sequence
        && record.pending.is_empty()
        && record.missing.is_none()
        && record.quarantined_batches == 0
        && record.quarantine_cap.is_none()
        && record.conflict_cap.is_none()
}

/// What the retired streams come to. It changes in the transactions in which streams retire and return.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetiredSums {
    pub streams: u64,
    /// Of them, those with batches.
    pub with_batches: u64,
    pub batches: u64,
    /// Events of all batches, by their headers.
    pub events: u64,
    pub accepted: u64,
    pub in_transit: u64,
    pub quarantined_events: u64,
    pub quarantined_batches: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub missing_streams: u64,
    pub missing_events: u64,
    pub closed: u64,
    /// The sum modulo 2^256 of each one's SHA-256 of id, posted sequence and posted digest: any other
    /// set of streams, or the same ones posted otherwise, has another.
    pub digest: [u8; 32],
    /// The agents' counts, by code; none is zero.
    pub evidence: BTreeMap<u16, u64>,
}

impl RetiredSums {
    /// A stream retires.
    pub fn add(&mut self, record: &StreamRecord) {
        self.digest = plus(self.digest, digest_of(record));
        self.change(record, u64::saturating_add);
    }

    /// One returns.
    pub fn take(&mut self, record: &StreamRecord) {
        self.digest = plus(self.digest, negated(digest_of(record)));
        self.change(record, u64::saturating_sub);
        self.evidence.retain(|_, count| *count > 0);
    }

    fn change(&mut self, record: &StreamRecord, by: fn(u64, u64) -> u64) {
        let one = |is_so: bool| u64::from(is_so);
        let figures = [
            1,
            one(record.posted_sequence > Sequence::ZERO),
            record.posted_sequence.0,
            record.posted_end.0,
            record.accepted.max(record.posted_end.0),
            record.in_transit(),
            record.quarantined_events,
            record.quarantined_batches,
            record.duplicates,
            record.conflicts,
            one(record.missing.is_some()),
            record.missing.map_or(0, |missing| missing.events),
            one(record.state == StreamState::Closed),
        ];
        for (sum, figure) in self.figures_mut().into_iter().zip(figures) {
            *sum = by(*sum, figure);
        }
        for (code, count) in record.evidence.iter() {
            let sum = self.evidence.entry(code).or_insert(0);
            *sum = by(*sum, count);
        }
    }

    /// Events in the totals; those of quarantined batches are not.
    #[must_use]
    pub fn posted_events(&self) -> u64 {
        self.events.saturating_sub(self.quarantined_events)
    }

    fn figures_mut(&mut self) -> [&mut u64; 13] {
        [
            &mut self.streams,
            &mut self.with_batches,
            &mut self.batches,
            &mut self.events,
            &mut self.accepted,
            &mut self.in_transit,
            &mut self.quarantined_events,
            &mut self.quarantined_batches,
            &mut self.duplicates,
            &mut self.conflicts,
            &mut self.missing_streams,
            &mut self.missing_events,
            &mut self.closed,
        ]
    }

    /// As drawn above.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![SUMS_VERSION];
        for figure in self.clone().figures_mut() {
            bytes.extend_from_slice(&figure.to_be_bytes());
        }
        bytes.extend_from_slice(&self.digest);
        let codes = u16::try_from(self.evidence.len()).expect("a code has 16 bits");
        bytes.extend_from_slice(&codes.to_be_bytes());
        for (code, count) in &self.evidence {
            bytes.extend_from_slice(&code.to_be_bytes());
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// A newer version, or bytes that do not hold together.
    pub fn read(bytes: &[u8]) -> Result<Self, RowError> {
        let mut fields = Fields(bytes);
        let mut read = || -> Option<Self> {
            let [SUMS_VERSION] = fields.array()? else { return None };
            let mut sums = Self::default();
            for figure in sums.figures_mut() {
                *figure = fields.u64()?;
            }
            sums.digest = fields.array()?;
            for _ in 0..u16::from_be_bytes(fields.array()?) {
                sums.evidence.insert(u16::from_be_bytes(fields.array()?), fields.u64()?);
            }
            Some(sums)
        };
        read().filter(|sums| sums.write() == bytes).ok_or_else(|| RowError {
            row: "retired sums",
            reason: "its bytes do not hold together, or its version is unknown".to_owned(),
        })
    }
}

fn digest_of(record: &StreamRecord) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(record.stream.0);
    hash.update(record.posted_sequence.0.to_be_bytes());
    hash.update(record.posted_digest.0);
    hash.finalize().into()
}

/// Of big-endian numbers, modulo 2^256.
fn plus(left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    let (mut sum, mut carry) = ([0; 32], false);
    for ((place, left), right) in sum.iter_mut().zip(left).zip(right).rev() {
        let (partly, over) = left.overflowing_add(right);
        let (digit, over_again) = partly.overflowing_add(u8::from(carry));
        (*place, carry) = (digit, over || over_again);
    }
    sum
}

fn negated(number: [u8; 32]) -> [u8; 32] {
    let mut one = [0; 32];
    one[31] = 1;
    plus(number.map(|digit| !digit), one)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests {
    use tidemark_common::id::{EventNumber, LedgerId, StreamId};
    use tidemark_common::tls::AgentName;

    use super::*;
    use crate::ledger::stream::{Confirmed, Missing};

    /// Closed at ledger time 100; batches 1 to `batches` are posted, with 10 events each.
    fn closed(id: u8, batches: u64) -> StreamRecord {
        let agent = AgentName::parse("a").unwrap();
        let mut record =
            StreamRecord::new(StreamId([id; 16]), agent, LedgerId([9; 16]), Timestamp(0));
        record.state = StreamState::Closed;
        record.posted_sequence = Sequence(batches);
        record.sealed_sequence = Sequence(batches);
        record.posted_end = EventNumber(batches * 10);
        record.accepted = batches * 10;
        record.duplicates = u64::from(id);
        record.evidence = [(1, batches * 10), (100 + u16::from(id), 3)].into_iter().collect();
        record.last_heard = Timestamp(100);
        record
    }

    #[test]
    fn only_what_is_closed_and_whole_may_retire() {
        let check = |change: fn(&mut StreamRecord), expected| {
            let mut record = closed(1, 2);
            change(&mut record);
            assert_eq!(may_retire(&record), expected, "{record:?}");
        };
        check(|_| {}, true);
        check(|record| record.conflicts = 1, true);
        check(|record| record.state = StreamState::Open, false);
        check(|record| record.state = StreamState::Conflict, false);
        check(|record| record.accepted += 1, false);
        check(|record| record.sealed_sequence = Sequence(3), false);
        check(|record| record.quarantined_batches = 1, false);
        check(|record| record.quarantine_cap = Some(None), false);
        check(|record| record.conflict_cap = Some(None), false);
        check(
            |record| {
                let (ledger_time, sequence, accepted) = (Timestamp(1), Sequence(3), 99);
                record.pending.push(Confirmed { ledger_time, sequence, accepted });
            },
            false,
        );
        check(
            |record| {
                let (first, last) = (Sequence(3), Sequence(4));
                record.missing = Some(Missing { first, last, events: 0 });
            },
            false,
        );
    }

    #[test]
    fn it_is_due_once_it_was_not_heard_of_for_long_enough() {
        let record = closed(1, 2);
        assert!(!is_due(&record, Timestamp(149), 50));
        assert!(is_due(&record, Timestamp(150), 50));
        assert!(!is_due(&StreamRecord { accepted: 21, ..record }, Timestamp(150), 50));
    }

    #[test]
    fn what_returns_leaves_the_sums_as_they_were() {
        let records: Vec<_> = (1..=40).map(|id| closed(id, u64::from(id % 5))).collect();
        let mut sums = RetiredSums::default();
        let mut before = Vec::new();
        for record in &records {
            before.push(sums.clone());
            sums.add(record);
        }
        assert_eq!((sums.streams, sums.with_batches, sums.batches), (40, 32, 80));
        assert_eq!((sums.events, sums.accepted, sums.posted_events()), (800, 800, 800));
        assert_eq!((sums.duplicates, sums.evidence[&1], sums.evidence[&140]), (820, 800, 3));
        assert_eq!(RetiredSums::read(&sums.write()), Ok(sums.clone()));
        // In another order, they come to the same.
        let mut other = RetiredSums::default();
        records.iter().rev().for_each(|record| other.add(record));
        assert_eq!(other, sums);
        let mut altered = sums.clone();
        altered.take(&records[7]);
        altered.add(&StreamRecord {
            posted_digest: tidemark_common::id::Digest([1; 32]),
            ..records[7].clone()
        });
        assert_ne!(altered.digest, sums.digest);
        for (record, before) in records.iter().zip(&before).rev() {
            sums.take(record);
            assert_eq!(sums, *before);
        }
        assert_eq!(sums, RetiredSums::default());
    }

    #[test]
    fn the_sums_have_these_bytes() {
        let mut sums = RetiredSums::default();
        sums.add(&closed(2, 3));
        let mut expected = vec![1];
        for figure in [1_u64, 1, 3, 30, 30, 0, 0, 0, 2, 0, 0, 0, 1] {
            expected.extend(figure.to_be_bytes());
        }
        expected.extend(digest_of(&closed(2, 3)));
        expected.extend([0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 30, 0, 102, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(sums.write(), expected);
        for cut in 0..expected.len() {
            assert!(RetiredSums::read(&expected[..cut]).is_err(), "cut at {cut}");
        }
        assert!(RetiredSums::read(&[&expected[..], &[0]].concat()).is_err());
        expected[0] = 2;
        assert!(RetiredSums::read(&expected).is_err());
    }
}
