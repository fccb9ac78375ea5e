//! The journal: every accepted event, durable on local disk until the ledger has it.
//!
//! ```text
//! Append -> chunks --- Seal ---> sealed batch --- Posted ---> retained --- time, bytes ---> gone
//!           (a group)            (numbered, frozen)           (insurance)
//! ```
//!
//! **Owns** the file: its rows, its transactions, its budget, and the numbers and digests of batches.
//! **Does not own** when to commit or seal (`commit.rs`), what a chunk holds (`chunk.rs`) or what is sent
//! (`session.rs`). Types of redb and bincode do not leave this module.
//!
//! # The crash contract
//! 1. [`Journal::commit`] is one transaction: after a crash all of its writes are there or none.
//! 2. When it returns, they are synced to the disk. Only then may anyone be told "accepted".
//! 3. A batch gets its sequence and digest in the transaction that stores its bytes and removes its
//!    chunks. The bytes never change: read again, after any crash, they are identical.
//! 4. Nothing accepted leaves before the ledger has it. What leaves by age or size is what is posted, ids,
//!    dead letters and numbers of sources. A dead letter that is replayed leaves in the transaction of its events.
//! 5. A start writes the opening's nonce before anything is appended, checks every page's checksum, every
//!    chunk's crc32c and the counters against the rows, and takes seconds with a full journal, in memory
//!    that does not grow with it.
//! 6. Only proven corruption sets a journal aside. A lock that is held is waited for; a newer format, or a
//!    file that is something else, refuses.
//! 7. An I/O error is fatal: the journal answers every later call with it, an fsync is never retried, and
//!    the process must end.
//!
//! What this cannot tell: pages of the very last commit that rot on disk before an unclean restart look
//! like a commit that was cut short. The collector's digests catch it (Conflict).
//!
//! Limits: redb's cache holds [`CACHE_BYTES`]; see [`JournalOptions`] for the others.

mod apply;
mod backend;
mod budget;
mod carrier;
mod examine;
mod leftover;
mod moving;
mod open;
mod overlay;
mod reader;
mod record;
mod recover;
mod state;
mod tables;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability};
use thiserror::Error;
use tidemark_common::id::{Digest, LedgerId, OpeningId, Sequence};
use tidemark_common::time::Timestamp;

use apply::{Memory, Tables, Transaction};
use budget::Budget;
use record::RecordError;

pub use budget::JOURNAL_BYTES_MIN;
pub(crate) use carrier::{Carried, Carrier};
pub use examine::{Conflict, Depth, Examined, Figures, Finding, LastOpening, Positions};
pub use leftover::{ChunkHeld, Held, Leftover};
pub use moving::{Moved, Settled, settle_conflict};
pub(crate) use moving::{derived, hashed};
pub use open::{OpenError, set_aside};
pub(crate) use open::{folder_of, make_folder, remove_if_there, sync_folder_of};
pub use reader::{Chunks, JournalReader, ReadError, StoredDeadLetter};
pub use state::{FreshIds, Group, JournalOptions, JournalState, RawEventsHeld, Recovered};
pub use write::{Append, ConflictAnswer, DeadLetter, RawEvents, Seal, Welcomed, Write};

/// redb's cache: written pages on their way, and the inner pages of the trees.
const CACHE_BYTES: usize = 4 << 20;
/// A chunk's payload up to this fits one 64 KiB page together with its header and evidence; one byte
/// beyond the page and it takes two.
pub const CHUNK_PAYLOAD_BYTES_MAX: usize = 65_000;

/// The one writer of a journal's file.
pub struct Journal {
    database: Arc<Database>,
    options: JournalOptions,
    budget: Budget,
    memory: Memory,
    length: Arc<AtomicU64>,
    /// The first fatal error; every call after it gets the same.
    failed: Option<JournalError>,
}

/// What a commit made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The sequence and digest of each Seal, in order.
    pub sealed: Vec<(Sequence, Digest)>,
}

/// Why a commit wrote nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JournalError {
    #[error(
        "failed to write the journal: {reason}; the agent must stop, and verify the file at its next start"
    )]
    Storage { reason: String },
    #[error(
        "failed to write the journal: its file is damaged: {reason}; stop the agent, see what else is wrong with \
         `tidemark-agent fsck`, and move the file away: it can be read with `tidemark-agent export --journal FILE`"
    )]
    Damaged { reason: String },
    #[error("failed to seal: the journal has not heard from a ledger yet")]
    NoLedger,
    #[error("failed to {what} should be {expected}, not {found}")]
    OutOfOrder { what: &'static str, expected: u64, found: u64 },
    #[error("failed to write to group {group}: it is sealed or was never begun")]
    UnknownGroup { group: u64 },
    #[error("failed to write to group {group} of opening {opening} in the name of opening {found}")]
    OtherOpening { group: u64, opening: OpeningId, found: OpeningId },
    #[error(
        "failed to take a Welcome: it is from ledger {found}, and the journal belongs to ledger {pinned}"
    )]
    OtherLedger { pinned: LedgerId, found: LedgerId },
    #[error("failed to take an Ack: it is for batch {posted}, and the last sealed one is {sealed}")]
    PostedBeyondSealed { posted: Sequence, sealed: Sequence },
    #[error(
        "failed to resume after batch {posted}: the first that the journal still holds is {first}"
    )]
    NotRetained { posted: Sequence, first: Sequence },
    #[error("failed to keep the rules: {reason}")]
    Rules { reason: String },
}

impl JournalError {
    /// True when the file is not to be trusted until it is opened again. Otherwise the commit was
    /// refused, nothing of it was written, and the journal goes on.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Storage { .. } | Self::Damaged { .. } => true,
            Self::NoLedger
            | Self::OutOfOrder { .. }
            | Self::UnknownGroup { .. }
            | Self::OtherOpening { .. }
            | Self::OtherLedger { .. }
            | Self::PostedBeyondSealed { .. }
            | Self::NotRetained { .. }
            | Self::Rules { .. } => false,
        }
    }
}

impl Journal {
    /// Writes all of `writes`, durably, or none: one transaction, synced when this returns.
    ///
    /// # Errors
    /// A write that does not fit the journal (nothing is written; see [`JournalError::is_fatal`]), or a
    /// failed disk, after which every call fails.
    pub fn commit(
        &mut self,
        writes: Vec<Write>,
        now: Timestamp,
    ) -> Result<Committed, JournalError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if writes.is_empty() {
            return Ok(Committed::default());
        }
        match self.transact(writes, now) {
            Ok((memory, sealed)) => {
                self.memory = memory;
                self.memory.state.file_bytes = self.length.load(Ordering::Relaxed);
                Ok(Committed { sealed })
            }
            Err(error) => {
                if error.is_fatal() {
                    self.failed = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    fn transact(
        &self,
        writes: Vec<Write>,
        now: Timestamp,
    ) -> Result<(Memory, Vec<(Sequence, Digest)>), JournalError> {
        let mut storage = self.database.begin_write()?;
        storage.set_durability(Durability::Immediate)?;
        let tables = Tables::open(&storage)?;
        let mut transaction =
            Transaction::new(tables, &self.memory, &self.options, self.budget, now);
        for write in writes {
            transaction.apply(write)?;
        }
        let done = transaction.finish()?;
        storage.commit()?;
        Ok(done)
    }

    /// The figures after the last commit.
    #[must_use]
    pub fn state(&self) -> &JournalState {
        &self.memory.state
    }

    /// A reader of what is committed. It keeps the file open, and locked, as long as it lives.
    #[must_use]
    pub fn reader(&self) -> JournalReader {
        JournalReader::new(Arc::clone(&self.database))
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.options.path)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl From<redb::Error> for JournalError {
    fn from(error: redb::Error) -> Self {
        let reason = error.to_string();
        if matches!(error, redb::Error::Corrupted(_)) {
            Self::Damaged { reason }
        } else {
            Self::Storage { reason }
        }
    }
}

impl From<redb::StorageError> for JournalError {
    fn from(error: redb::StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::TableError> for JournalError {
    fn from(error: redb::TableError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::TransactionError> for JournalError {
    fn from(error: redb::TransactionError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::SetDurabilityError> for JournalError {
    fn from(error: redb::SetDurabilityError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::CommitError> for JournalError {
    fn from(error: redb::CommitError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<RecordError> for JournalError {
    fn from(error: RecordError) -> Self {
        Self::Damaged { reason: error.to_string() }
    }
}
