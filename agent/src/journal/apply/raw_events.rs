//! The chunks of sealed batches that wait for the collector's archive.
//!
//! **Owns** how chunks become pieces, and when pieces leave: archived, or to make room, oldest batch first. **Does not
//! own** when they are sent (`session/events.rs`), or the digest that the batch holds of them (`commit/sealer.rs`).
//!
//! Invariant: they are there to be looked at, not to be billed: nothing else ever waits or leaves for them, and at the journal's
//! budget they go before anything else.

use redb::ReadableTable;
use tidemark_common::id::Sequence;
use tidemark_common::wire::put_events_chunk;

use super::{ROWS_DROPPED_MAX, Transaction, missing, to_u64};
use crate::journal::JournalError;
use crate::journal::record::{decode_chunk, decode_piece, encode_piece};

/// Chunks are put into one piece up to this many bytes, so that it fits a 64 KiB page of redb.
const PIECE_BYTES: usize = 65_000;

impl Transaction<'_, '_> {
    /// Removes a group's chunks, and puts them by as pieces of the batch that is being stored.
    pub(super) fn put_by(
        &mut self,
        group: u64,
        chunks: u32,
        sequence: Sequence,
    ) -> Result<(), JournalError> {
        let (mut piece, mut index) = (Vec::new(), 0_u32);
        for number in 0..chunks {
            let Some(record) = self.tables.chunks.remove((group, number))? else {
                return Err(missing("chunk", group));
            };
            let (_, payload) = decode_chunk(record.value())?;
            let grown = piece.len().saturating_add(payload.len()).saturating_add(4);
            let full =
                (grown > PIECE_BYTES && !piece.is_empty()).then(|| std::mem::take(&mut piece));
            put_events_chunk(&mut piece, payload);
            drop(record);
            if let Some(full) = full {
                self.put_piece(sequence, index, &full)?;
                index = index.saturating_add(1);
            }
        }
        self.put_piece(sequence, index, &piece)?;
        let raw = &mut self.memory.state.raw_events;
        raw.batches = raw.batches.saturating_add(1);
        raw.first = raw.first.or(Some(sequence));
        raw.last = Some(sequence);
        Ok(())
    }

    fn put_piece(
        &mut self,
        sequence: Sequence,
        index: u32,
        piece: &[u8],
    ) -> Result<(), JournalError> {
        let record = encode_piece(piece);
        self.tables.raw_events.insert((sequence.0, index), record.as_slice())?;
        self.memory.took(record.len());
        let raw = &mut self.memory.state.raw_events;
        raw.bytes = raw.bytes.saturating_add(to_u64(piece.len()));
        Ok(())
    }

    /// Those of all batches up to this one are archived.
    pub(super) fn archived(&mut self, sequence: Sequence) -> Result<(), JournalError> {
        for _ in 0..ROWS_DROPPED_MAX {
            if self.memory.state.raw_events.first.is_none_or(|first| first > sequence) {
                break;
            }
            self.drop_batch()?;
        }
        Ok(())
    }

    /// Beyond their bytes, or when the file is short, the oldest leave unarchived.
    pub(super) fn drop_raw_events(&mut self) -> Result<(), JournalError> {
        for _ in 0..ROWS_DROPPED_MAX {
            let raw = &self.memory.state.raw_events;
            let due = raw.bytes > self.options.raw_events_bytes_max || self.is_tight();
            if raw.first.is_none() || !due {
                break;
            }
            self.drop_batch()?;
            let raw = &mut self.memory.state.raw_events;
            raw.given_up = raw.given_up.saturating_add(1);
        }
        Ok(())
    }

    /// Removes the pieces of the first batch that has some.
    fn drop_batch(&mut self) -> Result<(), JournalError> {
        let Some(first) = self.memory.state.raw_events.first else { return Ok(()) };
        let range = (first.0, 0)..=(first.0, u32::MAX);
        let mut left = Vec::new();
        for row in self.tables.raw_events.extract_from_if(range, |_, _| true)? {
            let (_, record) = row?;
            left.push((record.value().len(), to_u64(decode_piece(record.value())?.len())));
        }
        for (record_bytes, piece_bytes) in left {
            self.memory.left(record_bytes);
            let raw = &mut self.memory.state.raw_events;
            raw.bytes = raw.bytes.saturating_sub(piece_bytes);
        }
        let next = self.tables.raw_events.first()?.map(|(key, _)| Sequence(key.value().0));
        let raw = &mut self.memory.state.raw_events;
        raw.batches = raw.batches.saturating_sub(1);
        raw.first = next;
        raw.last = raw.last.filter(|_| next.is_some());
        Ok(())
    }
}
