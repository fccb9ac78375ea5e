//! The embedded ledger: two redb files, one collector, no other service.
//!
//! ```text
//! ledger.redb   batches    position u64 -> header [192] + body as stored, one append per commit
//!               streams    stream [16] -> stream row (ledger/codec.rs)
//!               openings   stream [16] + opening [16] -> end event u64
//!               quarantine position u64 -> reason
//!               ids        id key -> id, suppressed  position u64 -> suppressed lines (ledger/duplicates.rs)
//!               marks      position u64 -> marks (ledger/marks.rs), of batches with unauthorised lines only
//!               books      entries, documents and what they changed (ledger/books/rows.rs)
//!               redo       what was booked and is not archived yet (archive.rs)
//!               retired, retired_ids, agents                 see redb/retired.rs
//!               meta       name -> bytes
//! totals.redb   see totals.rs; derived, rebuilt when it is missing
//! ```
//! **Owns** both files; no type of redb leaves this module. **Does not own** the judgements: it calls
//! them inside its transactions.
//!
//! *Crash contract.* A commit appends its batches and makes the stream states advance together.
//! Stream rows are written by hellos and claims and at checkpoints only; what batches changed since is
//! recovered from the headers behind the checkpoint. So admission writes no hot rows.
//!
//! Limits: a checkpoint comes at least every [`CHECKPOINT_BYTES`] of batches; caches are bounded by
//! the options; at most `streams_max` streams are live. What a start reads and holds goes by these; those that retired
//! stay in the file.

mod admit;
mod archive;
mod books;
mod compare;
mod export;
mod files;
mod gather;
mod ids;
mod import;
mod recover;
mod retired;
mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};
use tidemark_common::batch::{HEADER_BYTES, Header};
use tidemark_common::id::{Digest, LedgerId, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

pub use self::archive::ArchiveFacts;
use self::archive::ArchiveMemory;
pub(crate) use self::archive::{
    LEFT as ARCHIVE_LEFT, MEANS as ARCHIVE_MEANS, NOTE as ARCHIVE_NOTE, has_left,
};
pub use self::compare::{FoundTotals, TotalsCheck};
pub use self::export::{ShowRow, export_stopped};
pub use self::import::{Import, Restored};
use self::retired::RetiredSnapshot;
pub(crate) use self::retired::SUMS as RETIRED_SUMS;
use self::totals::TotalsFile;
use crate::ledger::codec::RowError;
use crate::ledger::fold::FoldSlice;
use crate::ledger::off_task;
use crate::ledger::request::Request;
use crate::ledger::retired::RetiredSums;
use crate::ledger::store::{
    Books, Committed, LedgerStore, Recovered, Retired, StoreError, StoredBodies, Totals,
    VisitBatch, VisitStored, VisitSuppressed, WhichBatches,
};
use crate::ledger::stream::StreamRecord;

/// The truth.
pub const LEDGER_FILE: &str = "ledger.redb";
/// Derived from it.
pub const TOTALS_FILE: &str = "totals.redb";
/// Where a restore makes both, before they take their names.
pub const RESTORING_FOLDER: &str = "restoring";

const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
const STREAMS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("streams");
const OPENINGS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("openings");
const QUARANTINE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("quarantine");
const MARKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("marks");
const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

/// Raised when the ledger file's layout changes in a way that older collectors cannot read.
const FORMAT: u16 = FORMAT_WITH_ARCHIVE;
/// What a ledger without marks has: collectors that know of none read it as they should.
pub(super) const FORMAT_WITHOUT_MARKS: u16 = 1;
/// What one with marks has: collectors that know of none would bill their lines.
const FORMAT_WITH_MARKS: u16 = 2;
/// What one with books has: collectors that know of none would leave them out of backups.
pub(super) const FORMAT_WITH_BOOKS: u16 = 3;
/// What one has of which streams retired: collectors that know of none would not know these.
pub(super) const FORMAT_WITH_RETIRED: u16 = 4;
/// What one with ids of events has: collectors that know of none would bill what came again.
pub(super) const FORMAT_WITH_IDS: u16 = 5;
/// What one with an archive has: collectors that know of none would not note for it what they book.
pub(crate) const FORMAT_WITH_ARCHIVE: u16 = 6;
/// After this many bytes of batches the stream rows are written, so that a start reads no more.
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// The same for the number of batches.
const CHECKPOINT_BATCHES: u64 = 16_384;

/// How the files are opened.
#[derive(Debug, Clone)]
pub struct RedbOptions {
    /// redb's cache for each file, in bytes.
    pub ledger_cache_bytes: usize,
    pub totals_cache_bytes: usize,
    /// At most this many streams are live; hellos of further ones wait for a person.
    pub streams_max: usize,
    /// An identity may begin this many new ones at once, and as many in each hour after.
    pub streams_per_hour_max: u32,
    /// While the totals are rebuilt, this many lines are summed before they are written.
    pub rebuild_lines_max: u64,
    /// Or bodies of this many bytes, if that is reached before.
    pub rebuild_bytes_max: u64,
    /// Where the bodies are that have left the ledger.
    pub bodies: Option<Arc<dyn StoredBodies>>,
    /// Where a new ledger's id and key come from.
    pub random: fn(&mut [u8]) -> Result<(), getrandom::Error>,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            ledger_cache_bytes: 32 << 20,
            totals_cache_bytes: 128 << 20,
            streams_max: 1_000_000,
            streams_per_hour_max: 1_000,
            rebuild_lines_max: 200_000,
            rebuild_bytes_max: 64 << 20,
            bodies: None,
            random: getrandom::fill,
        }
    }
}

/// The embedded ledger.
#[derive(Debug, Clone)]
pub struct RedbStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ledger: Database,
    totals: TotalsFile,
    id: LedgerId,
    /// The high half of every fence that this opening of the ledger hands out.
    incarnation: u32,
    streams_max: usize,
    streams_per_hour_max: u32,
    memory: Mutex<Memory>,
    bodies: Option<Arc<dyn StoredBodies>>,
}

/// The stream states, as of the last commit.
#[derive(Debug, Default)]
struct Memory {
    /// The live ones.
    streams: BTreeMap<StreamId, StreamRecord>,
    /// What the others come to.
    retired: RetiredSums,
    /// Streams whose row is older than their state.
    dirty: BTreeSet<StreamId>,
    next_position: u64,
    bytes_since_checkpoint: u64,
    batches_since_checkpoint: u64,
    /// Positions of the batches that the totals' index does not hold yet.
    unfolded: BTreeMap<(StreamId, Sequence), u64>,
    /// Up to when each identity has used up its allowance of new streams (`ledger/allowance.rs`); of those
    /// that have some left, only as many as there are others.
    streams_begun: BTreeMap<AgentName, Duration>,
    /// They are sorted out when there are this many.
    streams_begun_max: usize,
    archive: ArchiveMemory,
}

impl RedbStore {
    /// Opens or makes the ledger in `folder`. Blocks; a rebuild of the totals reads every batch.
    ///
    /// # Errors
    /// A file that is locked, newer, damaged, or cannot be written.
    pub fn open(
        folder: &Path,
        options: &RedbOptions,
        now: Timestamp,
    ) -> Result<(Self, Recovered), StoreError> {
        let ledger = files::open_ledger(folder, options)?;
        let totals = || files::open_totals(folder, options);
        recover::recover(ledger, totals()?, || files::remake_totals(folder, options), options, now)
    }

    /// Opens or makes the ledger on given storage: for tests that count or forget writes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        ledger: impl StorageBackend,
        totals: impl StorageBackend,
        options: &RedbOptions,
        now: Timestamp,
    ) -> Result<(Self, Recovered), StoreError> {
        let memory = redb::backends::InMemoryBackend::new;
        Self::open_remaking(ledger, totals, memory, options, now)
    }

    /// The same; totals that are not of this ledger are made anew on what `remake` gives.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_remaking<B: StorageBackend>(
        ledger: impl StorageBackend,
        totals: impl StorageBackend,
        remake: impl FnOnce() -> B,
        options: &RedbOptions,
        now: Timestamp,
    ) -> Result<(Self, Recovered), StoreError> {
        let ledger = files::open_on(LEDGER_FILE, ledger, options.ledger_cache_bytes)?;
        let totals = files::open_on(TOTALS_FILE, totals, options.totals_cache_bytes)?;
        let remake = || files::open_on(TOTALS_FILE, remake(), options.totals_cache_bytes);
        recover::recover(ledger, totals, remake, options, now)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = off_task(move || act(&inner)).await;
        done.unwrap_or_else(|reason| {
            Err(StoreError::Storage { act: "use", file: LEDGER_FILE, reason })
        })
    }
}

impl LedgerStore for RedbStore {
    async fn commit(
        &self,
        group: Vec<Request>,
        at: Timestamp,
        clock_limit: Option<Timestamp>,
    ) -> Result<Committed, StoreError> {
        self.blocking(move |inner| inner.commit(group, at, clock_limit)).await
    }

    async fn fold(&self, slice: Arc<FoldSlice>) -> Result<(), StoreError> {
        self.blocking(move |inner| {
            inner.totals.fold(&slice)?;
            inner.memory()?.forget_folded(&slice);
            Ok(())
        })
        .await
    }

    fn totals(&self) -> Result<Box<dyn Totals>, StoreError> {
        Ok(Box::new(self.inner.totals.snapshot()?))
    }

    fn books(&self) -> Result<Box<dyn Books>, StoreError> {
        self.inner.books()
    }

    fn retired(&self) -> Result<Box<dyn Retired>, StoreError> {
        let read = self.inner.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        Ok(Box::new(RetiredSnapshot { read }))
    }

    fn visit_batches(&self, which: WhichBatches, visit: VisitBatch<'_>) -> Result<(), StoreError> {
        export::visit_batches(&self.inner.ledger, self.inner.bodies.clone(), which, visit)
    }

    fn visit_suppressed(
        &self,
        position: u64,
        visit: VisitSuppressed<'_>,
    ) -> Result<(), StoreError> {
        self.inner.visit_suppressed(position, visit)
    }

    fn visit_stored(&self, visit: VisitStored<'_>) -> Result<(), StoreError> {
        export::visit_stored(&self.inner.ledger, self.inner.bodies.clone(), visit)
    }

    async fn batch(
        &self,
        stream: StreamId,
        sequence: Sequence,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.blocking(move |inner| {
            let unfolded = inner.memory()?.unfolded.get(&(stream, sequence)).copied();
            match inner.position(unfolded, stream, sequence)? {
                Some(position) => inner.whole_batch_at(position),
                None => Ok(None),
            }
        })
        .await
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.blocking(Inner::checkpoint).await
    }
}

impl Inner {
    fn memory(&self) -> Result<MutexGuard<'_, Memory>, StoreError> {
        self.memory.lock().map_err(|_| StoreError::Storage {
            act: "use",
            file: LEDGER_FILE,
            reason: "an earlier change failed half-way".to_owned(),
        })
    }

    fn position(
        &self,
        unfolded: Option<u64>,
        stream: StreamId,
        sequence: Sequence,
    ) -> Result<Option<u64>, StoreError> {
        match unfolded {
            Some(position) => Ok(Some(position)),
            None => self.totals.position(stream, sequence),
        }
    }

    /// What `read` makes of a stored batch's bytes, where they stand; `None` if there is none.
    fn batch_at<T>(
        &self,
        position: u64,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, StoreError> {
        let transaction = self.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        let batches = transaction.open_table(BATCHES).map_err(Fault::read(LEDGER_FILE))?;
        let bytes = batches.get(position).map_err(Fault::read(LEDGER_FILE))?;
        Ok(bytes.map(|bytes| read(bytes.value())))
    }

    /// A batch with its body, wherever that is.
    fn whole_batch_at(&self, position: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(bytes) = self.batch_at(position, <[u8]>::to_vec)? else { return Ok(None) };
        let (header, bodies) = (read_header(&bytes)?, self.bodies.as_deref());
        Ok(Some(archive::whole(bodies, position, &header, &bytes)?.into_owned()))
    }

    /// The digest of a posted batch; `None` if it has left the ledger.
    fn stored_digest(
        &self,
        memory: &Memory,
        stream: StreamId,
        sequence: Sequence,
    ) -> Result<Option<Digest>, StoreError> {
        let unfolded = memory.unfolded.get(&(stream, sequence)).copied();
        let Some(position) = self.position(unfolded, stream, sequence)? else {
            return Ok(None);
        };
        let header = self.batch_at(position, read_header)?.transpose()?;
        Ok(header.map(|header| header.digest()))
    }
}

impl Memory {
    fn forget_folded(&mut self, slice: &FoldSlice) {
        for (stream, sequence, _) in &slice.index {
            self.unfolded.remove(&(*stream, *sequence));
        }
    }
}

fn read_header(bytes: &[u8]) -> Result<Header, StoreError> {
    let head = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
    Header::decode(head)
        .map_err(|error| StoreError::Corrupt { file: LEDGER_FILE, reason: error.to_string() })
}

/// Turns redb's errors into the store's.
struct Fault;

impl Fault {
    fn read<E: Into<redb::Error>>(file: &'static str) -> impl Fn(E) -> StoreError {
        Self::of("read", file)
    }

    fn write<E: Into<redb::Error>>(file: &'static str) -> impl Fn(E) -> StoreError {
        Self::of("write", file)
    }

    fn open<E: Into<redb::Error>>(file: &'static str) -> impl Fn(E) -> StoreError {
        Self::of("open", file)
    }

    fn row(file: &'static str) -> impl Fn(RowError) -> StoreError {
        move |error| StoreError::Corrupt { file, reason: error.to_string() }
    }

    fn of<E: Into<redb::Error>>(act: &'static str, file: &'static str) -> impl Fn(E) -> StoreError {
        move |error| match error.into() {
            redb::Error::Corrupted(reason) => StoreError::Corrupt { file, reason },
            error => StoreError::Storage { act, file, reason: error.to_string() },
        }
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests;
