//! Extras: tagged additions to a body, beside its lines.
//!
//! ```text
//! extras         n u16, then n * (tag u16, length u32, bytes), tags strictly ascending
//! tag 1          digest [32] of what the archive of raw events holds of the batch
//! tag 2          key id u16, then n * (line u32, keyed id [16]) to the end, lines strictly ascending
//! ```
//!
//! **Owns** these bytes, and what of them a reader can judge by the body alone. **Does not own** how a keyed
//! id is made ([`keyed_id`](super::keyed_id)), or what a collector makes of one.
//!
//! Invariants: tags that this version does not know are carried, and judged by nobody. What [`Extras`] holds
//! under tag 2 can be read.

use std::collections::BTreeMap;

use thiserror::Error;

use super::bytes::Fields;
use crate::id::Digest;

const EVENTS: u16 = 1;
const LINE_IDS: u16 = 2;
const LINE_ID_BYTES: usize = 20;

/// What stands for the id of an event in a whole ledger; [`keyed_id`](super::keyed_id) makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyedId(pub [u8; 16]);

/// The id of the one event that a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineId {
    /// The line's index in its body.
    pub line: u32,
    pub id: KeyedId,
}

/// A body's extras, by tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras(BTreeMap<u16, Vec<u8>>);

/// Extras that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ExtrasError {
    #[error("extra {tag} does not come after the one before")]
    Order { tag: u16 },
    #[error("extra {tag} cannot have {bytes} bytes")]
    Length { tag: u16, bytes: usize },
    #[error("the id of line {line} does not come after the one before, or there is no such line")]
    LineId { line: u32 },
}

impl Extras {
    /// The digest of the batch's raw events in their archive, if they are archived.
    #[must_use]
    pub fn events_digest(&self) -> Option<Digest> {
        Some(Digest(*self.0.get(&EVENTS)?.first_chunk()?))
    }

    pub fn set_events_digest(&mut self, digest: Digest) {
        self.0.insert(EVENTS, digest.0.to_vec());
    }

    /// The id of the key that [`Self::line_ids`] were made with; 0 without any.
    #[must_use]
    pub fn id_key(&self) -> u16 {
        self.line_id_fields().0
    }

    /// Which lines hold one event with an id, ascending by line.
    pub fn line_ids(&self) -> impl Iterator<Item = LineId> + '_ {
        let (records, _) = self.line_id_fields().1.as_chunks::<LINE_ID_BYTES>();
        records.iter().filter_map(|record| {
            let mut fields = Fields(record);
            Some(LineId { line: fields.u32()?, id: KeyedId(fields.array()?) })
        })
    }

    /// Sets [`Self::line_ids`], which stand ascending by line; none leave no extra.
    pub fn set_line_ids(&mut self, key: u16, ids: &[LineId]) {
        if ids.is_empty() {
            self.0.remove(&LINE_IDS);
            return;
        }
        let mut bytes =
            Vec::with_capacity(ids.len().saturating_mul(LINE_ID_BYTES).saturating_add(2));
        bytes.extend_from_slice(&key.to_be_bytes());
        for LineId { line, id } in ids {
            bytes.extend_from_slice(&line.to_be_bytes());
            bytes.extend_from_slice(&id.0);
        }
        self.0.insert(LINE_IDS, bytes);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// (tag, bytes), ascending by tag.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (u16, &[u8])> {
        self.0.iter().map(|(tag, bytes)| (*tag, &bytes[..]))
    }

    /// Takes one more extra, as it was read.
    pub(super) fn push(&mut self, tag: u16, bytes: Vec<u8>) -> Result<(), ExtrasError> {
        if self.0.last_key_value().is_some_and(|(before, _)| *before >= tag) {
            return Err(ExtrasError::Order { tag });
        }
        let ids = bytes.len().checked_sub(2).map(|ids| ids.checked_rem(LINE_ID_BYTES));
        let fits = match tag {
            EVENTS => bytes.len() == 32,
            LINE_IDS => ids == Some(Some(0)),
            _ => true,
        };
        if !fits {
            return Err(ExtrasError::Length { tag, bytes: bytes.len() });
        }
        self.0.insert(tag, bytes);
        Ok(())
    }

    /// Whether they fit a body of so many lines.
    pub(super) fn check(&self, lines: u32) -> Result<(), ExtrasError> {
        let mut least = 0;
        for LineId { line, .. } in self.line_ids() {
            if line < least || line >= lines {
                return Err(ExtrasError::LineId { line });
            }
            least = line.saturating_add(1);
        }
        Ok(())
    }

    fn line_id_fields(&self) -> (u16, &[u8]) {
        let mut fields = Fields(self.0.get(&LINE_IDS).map_or(&[][..], |bytes| bytes));
        (fields.u16().unwrap_or(0), fields.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(line: u32) -> LineId {
        LineId { line, id: KeyedId([7; 16]) }
    }

    #[test]
    fn what_is_set_is_there() {
        let mut extras = Extras::default();
        assert_eq!(
            (extras.events_digest(), extras.id_key(), extras.line_ids().count()),
            (None, 0, 0)
        );
        extras.set_line_ids(3, &[id(1), id(4)]);
        extras.set_events_digest(Digest([9; 32]));
        assert_eq!(extras.events_digest(), Some(Digest([9; 32])));
        assert_eq!(
            (extras.id_key(), extras.line_ids().collect::<Vec<_>>()),
            (3, vec![id(1), id(4)])
        );
        assert_eq!(
            extras.iter().map(|(tag, bytes)| (tag, bytes.len())).collect::<Vec<_>>(),
            [(1, 32), (2, 42)]
        );
        extras.set_line_ids(3, &[]);
        assert_eq!(extras.iter().len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let check = |extras: &[(u16, usize)], expected: Result<(), ExtrasError>| {
            let mut held = Extras::default();
            let pushed =
                extras.iter().try_for_each(|(tag, bytes)| held.push(*tag, vec![0; *bytes]));
            assert_eq!(pushed, expected, "{extras:?}");
        };
        check(&[(0, 0), (1, 32), (2, 2), (3, 5), (60_000, 1)], Ok(()));
        check(&[(3, 5), (3, 5)], Err(ExtrasError::Order { tag: 3 }));
        check(&[(3, 5), (1, 32)], Err(ExtrasError::Order { tag: 1 }));
        check(&[(1, 31)], Err(ExtrasError::Length { tag: 1, bytes: 31 }));
        for bytes in [0, 1, 3, 21, 23] {
            check(&[(2, bytes)], Err(ExtrasError::Length { tag: 2, bytes }));
        }
        check(&[(2, 22)], Ok(()));
    }

    #[test]
    fn ids_are_of_lines_that_there_are() {
        let check = |lines: &[u32], of: u32, expected: Result<(), ExtrasError>| {
            let mut extras = Extras::default();
            extras.set_line_ids(1, &lines.iter().map(|line| id(*line)).collect::<Vec<_>>());
            assert_eq!(extras.check(of), expected, "{lines:?} of {of}");
        };
        check(&[], 0, Ok(()));
        check(&[0, 1, 7], 8, Ok(()));
        check(&[0, 1, 8], 8, Err(ExtrasError::LineId { line: 8 }));
        check(&[0, 1, 1], 8, Err(ExtrasError::LineId { line: 1 }));
        check(&[0, 2, 1], 8, Err(ExtrasError::LineId { line: 1 }));
        check(&[u32::MAX], u32::MAX, Err(ExtrasError::LineId { line: u32::MAX }));
    }
}
