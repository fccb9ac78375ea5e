//! Events that the ledger has admitted before, known again by their keyed ids.
//!
//! ```text
//! ID KEY       span u16 (bucket of admission / 3,360: 35 days), keyed id [16]
//! ID           bucket of admission u32, place
//! SUPPRESSED   n times: line u32, place of the first; ascending by line; n >= 1
//! place        stream [16], sequence u64, line u32
//! ```
//! **Owns** these bytes, and the judgement. **Does not own** the store of ids (`redb/ids.rs`), or how an id is made.
//!
//! Lines that hold one event with an id are judged in the transaction that admits their batch, so that of two batches
//! one finds the other. What is suppressed is posted under a class of its own: counted, listed, never billed.
//! An id is known for [`KNOWN_BUCKETS`] of ledger time since its first event was admitted; a later one does not make it
//! known for longer. What an identity may not bill is neither judged nor known: it must not take the place of what is.

use thiserror::Error;
use tidemark_common::batch::KeyedId;
use tidemark_common::id::{Sequence, StreamId};
use tidemark_common::time::Bucket;

use crate::ledger::codec::{Fields, RowError};

/// An id is known for 35 days of ledger time.
pub const KNOWN_BUCKETS: u32 = 35 * 96;

/// An id is looked for in the span of now and in the one before: a span is as long as an id is known.
const SPAN_BUCKETS: u32 = KNOWN_BUCKETS;
const SUPPRESSED_LINE_BYTES: usize = 4 + 28;

/// The span of a bucket of ledger time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u16);

/// Which line of which batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinePlace {
    pub stream: StreamId,
    pub sequence: Sequence,
    /// Its index in the body.
    pub line: u32,
}

/// When and where an id was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub admitted: Bucket,
    pub place: LinePlace,
}

/// What becomes of an event with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdVerdict {
    First,
    Again { first: LinePlace },
}

/// Judges an event whose id was found, or was not.
#[must_use]
pub fn judge(known: Option<Known>, now: Bucket) -> IdVerdict {
    match known {
        Some(Known { admitted, place }) if now.0.saturating_sub(admitted.0) < KNOWN_BUCKETS => {
            IdVerdict::Again { first: place }
        }
        Some(_) | None => IdVerdict::First,
    }
}

impl Span {
    #[must_use]
    pub fn of(bucket: Bucket) -> Self {
        let span = bucket.0.div_euclid(SPAN_BUCKETS);
        Self(u16::try_from(span).unwrap_or(u16::MAX))
    }

    /// The span before: the other one that holds ids which are known still.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    #[must_use]
    pub fn key(self, id: KeyedId) -> [u8; 18] {
        let mut key = [0; 18];
        key[..2].copy_from_slice(&self.0.to_be_bytes());
        key[2..].copy_from_slice(&id.0);
        key
    }

    /// The least key of the span.
    #[must_use]
    pub fn start(self) -> [u8; 18] {
        self.key(KeyedId([0; 16]))
    }
}

impl LinePlace {
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.stream.0);
        bytes.extend_from_slice(&self.sequence.0.to_be_bytes());
        bytes.extend_from_slice(&self.line.to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            stream: StreamId(fields.array()?),
            sequence: Sequence(fields.u64()?),
            line: fields.array().map(u32::from_be_bytes)?,
        })
    }
}

impl Known {
    #[must_use]
    pub fn bytes(self) -> [u8; 32] {
        let mut bytes = self.admitted.0.to_be_bytes().to_vec();
        self.place.put(&mut bytes);
        bytes.try_into().expect("a bucket and a place are 32 bytes")
    }

    /// Reads what [`Self::bytes`] made.
    ///
    /// # Errors
    /// Other bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, RowError> {
        let mut fields = Fields(bytes);
        let read = fields.bucket().zip(LinePlace::read(&mut fields));
        let (admitted, place) = read.filter(|_| fields.0.is_empty()).ok_or_else(|| RowError {
            row: "keyed id",
            reason: "its bytes do not hold together".to_owned(),
        })?;
        Ok(Self { admitted, place })
    }
}

/// A line that came again, and what it came again of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuppressedLine {
    pub line: u32,
    pub first: LinePlace,
}

/// The suppressed lines of a batch, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suppressed(Vec<SuppressedLine>);

/// Suppressed lines that are not of their batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("its suppressed lines do not ascend, or are not among its {lines} lines")]
pub struct SuppressedError {
    pub lines: usize,
}

impl Suppressed {
    /// Takes one more; they come ascending.
    pub fn push(&mut self, line: SuppressedLine) {
        assert!(
            self.0.last().is_none_or(|last| last.line < line.line),
            "lines are judged in order"
        );
        self.0.push(line);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = SuppressedLine> + '_ {
        self.0.iter().copied()
    }

    /// What the body's line at `index` came again of, if it is suppressed.
    #[must_use]
    pub fn first_of(&self, index: u32) -> Option<LinePlace> {
        let at = self.0.binary_search_by_key(&index, |suppressed| suppressed.line).ok()?;
        self.0.get(at).map(|suppressed| suppressed.first)
    }

    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_mul(SUPPRESSED_LINE_BYTES));
        for SuppressedLine { line, first } in &self.0 {
            bytes.extend_from_slice(&line.to_be_bytes());
            first.put(&mut bytes);
        }
        bytes
    }

    /// Reads [`Self::bytes`] of a batch with so many lines.
    ///
    /// # Errors
    /// Lines that there are not, or that do not ascend.
    pub fn read(bytes: &[u8], lines: usize) -> Result<Self, SuppressedError> {
        let error = SuppressedError { lines };
        let (records, rest) = bytes.as_chunks::<SUPPRESSED_LINE_BYTES>();
        let mut suppressed = Self::default();
        for record in records {
            let mut fields = Fields(record);
            let line = fields.array().map(u32::from_be_bytes).ok_or(error)?;
            let first = LinePlace::read(&mut fields).ok_or(error)?;
            let is_next = suppressed.0.last().is_none_or(|last| last.line < line);
            if !is_next || usize::try_from(line).is_ok_and(|line| line >= lines) {
                return Err(error);
            }
            suppressed.0.push(SuppressedLine { line, first });
        }
        if rest.is_empty() { Ok(suppressed) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32) -> LinePlace {
        LinePlace { stream: StreamId([1; 16]), sequence: Sequence(7), line }
    }

    fn suppressed(lines: &[u32]) -> Suppressed {
        let line = |line: &u32| SuppressedLine { line: *line, first: place(3) };
        Suppressed(lines.iter().map(line).collect())
    }

    #[test]
    fn an_id_is_known_for_35_days() {
        let check = |admitted: u32, now: u32, expected: bool| {
            let known = Known { admitted: Bucket(admitted), place: place(0) };
            let again = judge(Some(known), Bucket(now)) != IdVerdict::First;
            assert_eq!(again, expected, "{admitted} {now}");
            // Where it is looked for.
            let (at, span) = (Span::of(Bucket(admitted)), Span::of(Bucket(now)));
            assert!(!expected || at == span || at == span.before(), "{admitted} {now}");
        };
        check(100_000, 100_000, true);
        check(100_000, 100_000 + KNOWN_BUCKETS - 1, true);
        check(100_000, 100_000 + KNOWN_BUCKETS, false);
        check(3_359, 3_360, true);
        check(3_359, 6_718, true);
        check(3_359, 6_719, false);
        assert_eq!(judge(None, Bucket(5)), IdVerdict::First);
    }

    #[test]
    fn frozen_bytes() {
        let known = Known { admitted: Bucket(0x0102_0304), place: place(9) };
        let bytes =
            [&[1, 2, 3, 4][..], &[1; 16], &[0, 0, 0, 0, 0, 0, 0, 7], &[0, 0, 0, 9]].concat();
        assert_eq!(known.bytes(), *bytes);
        assert_eq!(Known::read(&bytes).unwrap(), known);
        assert!(
            Known::read(&bytes[..31]).is_err()
                && Known::read(&[&bytes[..], &[0]].concat()).is_err()
        );
        let row = [&[0, 0, 0, 5][..], &[1; 16], &[0, 0, 0, 0, 0, 0, 0, 7], &[0, 0, 0, 3]].concat();
        assert_eq!(suppressed(&[5]).bytes(), row);
        assert_eq!(
            Span::of(Bucket(3_360)).key(KeyedId([7; 16])),
            *[&[0, 1][..], &[7; 16]].concat()
        );
    }

    #[test]
    fn lines_of_a_batch_ascend_and_are_there() {
        let read = |lines: &[u32], of: usize| Suppressed::read(&suppressed(lines).bytes(), of);
        assert_eq!(read(&[0, 4, 5], 6), Ok(suppressed(&[0, 4, 5])));
        for (lines, of) in [(&[0, 6][..], 6), (&[4, 4], 6), (&[5, 4], 6), (&[0], 0)] {
            assert_eq!(read(lines, of), Err(SuppressedError { lines: of }), "{lines:?}");
        }
        let bytes = suppressed(&[0]).bytes();
        assert!(Suppressed::read(&bytes[..31], 6).is_err());
        assert_eq!(suppressed(&[2, 5]).first_of(5), Some(place(3)));
        assert_eq!(suppressed(&[2, 5]).first_of(3), None);
    }
}
