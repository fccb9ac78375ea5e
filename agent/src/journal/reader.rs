//! Reads of what is committed: for the uplink, the sealer's replay, and people.
//!
//! **Owns** read transactions; each call sees the last commit, a [`Chunks`] the one it began with. **Does
//! not own** anything that changes. Readers never wait for the writer, nor it for them; but what they
//! look at keeps its pages, so none is held for long.

use std::fmt;
use std::sync::Arc;

use redb::{Database, Range, ReadTransaction, ReadableDatabase, ReadableTable};
use thiserror::Error;
use tidemark_common::batch::{HEADER_BYTES, Header};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{Digest, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{EventsPiece, FirstHeld};

use super::record::{
    BatchRow, Counters, Record, RecordError, decode_chunk, decode_dead_letter, decode_piece,
};
use super::tables::{BATCHES, CHUNKS, DEAD_LETTERS, META, RAW_EVENTS, SEALED, meta};
use crate::event::Door;

/// Reads the journal, from any thread.
#[derive(Clone)]
pub struct JournalReader {
    database: Arc<Database>,
}

/// A row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("failed to read the journal: {reason}")]
pub struct ReadError {
    pub reason: String,
}

/// A dead letter and its number; newer ones have higher numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDeadLetter {
    pub number: u64,
    pub at: Timestamp,
    /// `None`: of a newer agent, which knows more doors.
    pub door: Option<Door>,
    /// `None`: of a newer agent, which knows more reasons.
    pub reason: Option<EvidenceCode>,
    pub bytes: Vec<u8>,
}

impl JournalReader {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// A batch's frozen bytes, header first; `None` if it is not sealed yet or not held any more.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn batch(&self, sequence: Sequence) -> Result<Option<Vec<u8>>, ReadError> {
        let sealed = self.begin()?.open_table(SEALED)?;
        Ok(sealed.get(sequence.0)?.map(|bytes| bytes.value().to_vec()))
    }

    /// A batch's header; `None` if it is not sealed yet or not held any more.
    ///
    /// # Errors
    /// If the file cannot be read, or holds no header there.
    pub fn header(&self, sequence: Sequence) -> Result<Option<Header>, ReadError> {
        let sealed = self.begin()?.open_table(SEALED)?;
        let Some(bytes) = sealed.get(sequence.0)? else {
            return Ok(None);
        };
        let header = bytes.value().get(..HEADER_BYTES).unwrap_or_default();
        Header::decode(header).map(Some).map_err(|error| ReadError { reason: error.to_string() })
    }

    /// A batch's digest: of one that is held, of the one before it, or of the last posted one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn digest(&self, sequence: Sequence) -> Result<Option<Digest>, ReadError> {
        let transaction = self.begin()?;
        if let Some(row) = transaction.open_table(BATCHES)?.get(sequence.0)? {
            return Ok(Some(BatchRow::decode(row.value())?.digest));
        }
        if let Some(row) = transaction.open_table(META)?.get(meta::COUNTERS)? {
            let counters = Counters::decode(row.value())?;
            if counters.posted_sequence == sequence {
                return Ok(Some(counters.posted_digest));
            }
        }
        drop(transaction);
        Ok(self.header(sequence.next())?.map(|next| next.previous))
    }

    /// The lowest batch that is held, and its first event.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn first_held(&self) -> Result<Option<FirstHeld>, ReadError> {
        let batches = self.begin()?.open_table(BATCHES)?;
        let Some((sequence, row)) = batches.first()? else {
            return Ok(None);
        };
        let event = BatchRow::decode(row.value())?.first_event;
        Ok(Some(FirstHeld { sequence: Sequence(sequence.value()), event }))
    }

    /// The payloads of a group's chunks, in order, one at a time.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn chunks(&self, group: u64) -> Result<Chunks, ReadError> {
        let chunks = self.begin()?.open_table(CHUNKS)?;
        Ok(Chunks { rows: chunks.range((group, 0)..=(group, u32::MAX))? })
    }

    /// The first piece of raw events at `from` (a batch and a piece of it) or behind, of batches up to `last`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn raw_events(
        &self,
        (sequence, index): (Sequence, u32),
        last: Sequence,
    ) -> Result<Option<EventsPiece>, ReadError> {
        let rows = self.begin()?.open_table(RAW_EVENTS)?;
        let first = rows.range((sequence.0, index)..=(last.0, u32::MAX))?.next().transpose()?;
        let Some((key, record)) = first else { return Ok(None) };
        let (sequence, index) = key.value();
        let of = rows.range((sequence, index)..=(sequence, u32::MAX))?.next_back().transpose()?;
        let of = of.map_or(index, |(last, _)| last.value().1).saturating_add(1);
        let bytes = decode_piece(record.value())?.to_vec();
        Ok(Some(EventsPiece { sequence: Sequence(sequence), index, of, bytes }))
    }

    /// Up to `limit` dead letters from number `from` on, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn dead_letters(
        &self,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>, ReadError> {
        let letters = self.begin()?.open_table(DEAD_LETTERS)?;
        let mut found = Vec::new();
        for entry in letters.range(from..)?.take(limit) {
            let (number, row) = entry?;
            found.push(decode_dead_letter(number.value(), row.value())?);
        }
        Ok(found)
    }

    pub(super) fn begin(&self) -> Result<ReadTransaction, ReadError> {
        Ok(self.database.begin_read()?)
    }
}

impl fmt::Debug for JournalReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalReader").finish_non_exhaustive()
    }
}

/// The payloads of one group's chunks, as of one commit.
pub struct Chunks {
    rows: Range<'static, (u64, u32), &'static [u8]>,
}

impl Iterator for Chunks {
    type Item = Result<Vec<u8>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match self.rows.next()? {
            Ok((_, row)) => row,
            Err(error) => return Some(Err(error.into())),
        };
        Some(
            decode_chunk(row.value()).map(|(_, payload)| payload.to_vec()).map_err(ReadError::from),
        )
    }
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}

impl From<redb::TransactionError> for ReadError {
    fn from(error: redb::TransactionError) -> Self {
        Self { reason: error.to_string() }
    }
}

impl From<redb::TableError> for ReadError {
    fn from(error: redb::TableError) -> Self {
        Self { reason: error.to_string() }
    }
}

impl From<redb::StorageError> for ReadError {
    fn from(error: redb::StorageError) -> Self {
        Self { reason: error.to_string() }
    }
}

impl From<RecordError> for ReadError {
    fn from(error: RecordError) -> Self {
        Self { reason: error.to_string() }
    }
}
