//! Makes a ledger of the rows of another: a restore.
//!
//! **Owns** writing both files in pieces, and what a restored ledger is told of itself. **Does not own**
//! judging the rows (`ledger/check.rs`), or when the files take their names (`restore.rs`).
//!
//! Invariant: the ledger's file says what it is in its last transaction only: half of one is none.
//!
//! Limits: at most [`PIECE_BYTES_MAX`] and one batch are held before they are written.

use std::path::Path;

use redb::{Database, Durability, StorageBackend};
use tidemark_common::id::{LedgerId, StreamId};
use tidemark_common::time::Timestamp;

use super::archive::REDO;
use super::books::BOOKS;
use super::gather::Gather;
use super::ids::{IDS, SUPPRESSED};
use super::retired::RetiredTables;
use super::totals::TotalsFile;
use super::{
    BATCHES, Fault, LEDGER_FILE, MARKS, META, OPENINGS, QUARANTINE, RedbOptions, STREAMS,
    TOTALS_FILE, files,
};
use crate::ledger::check::{CheckedBatch, LedgerTable};
use crate::ledger::codec::{self, Fields};
use crate::ledger::fold::FoldSlice;
use crate::ledger::store::StoreError;

/// Rows are written once they hold this many bytes.
const PIECE_BYTES_MAX: usize = 32 << 20;

/// What a restored ledger is given in place of what its backup says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The last incarnation that counts as used: the next start takes the one after.
    pub incarnation: u32,
    /// Ledger time begins here; streams not heard of since are shown so.
    pub at: Timestamp,
}

/// A ledger in the making.
#[derive(Debug)]
pub struct Import {
    ledger: Database,
    totals: TotalsFile,
    gather: Gather,
    created: bool,
    meta: Vec<(Vec<u8>, Vec<u8>)>,
    rows: Vec<(LedgerTable, Vec<u8>, Option<Vec<u8>>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Import {
    /// Makes both files in `folder`, which holds neither.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn begin(folder: &Path, options: &RedbOptions) -> Result<Self, StoreError> {
        Ok(Self::on(
            files::open_ledger(folder, options)?,
            files::open_totals(folder, options)?,
            options,
        ))
    }

    /// The same on given storage: for tests.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn begin_on(
        ledger: impl StorageBackend,
        totals: impl StorageBackend,
        options: &RedbOptions,
    ) -> Result<Self, StoreError> {
        Ok(Self::on(
            files::open_on(LEDGER_FILE, ledger, options.ledger_cache_bytes)?,
            files::open_on(TOTALS_FILE, totals, options.totals_cache_bytes)?,
            options,
        ))
    }

    fn on(ledger: Database, totals: Database, options: &RedbOptions) -> Self {
        Self {
            ledger,
            totals: TotalsFile::new(totals),
            gather: Gather::new(options),
            created: false,
            meta: Vec::new(),
            rows: Vec::new(),
            bytes: 0,
            bytes_max: PIECE_BYTES_MAX,
        }
    }

    #[cfg(test)]
    pub(super) fn writing_at(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// Takes the next row, as it stands in the ledger's file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn row(&mut self, table: LedgerTable, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if table == LedgerTable::Meta {
            self.meta.push((key.to_vec(), value.to_vec()));
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(key.len()).saturating_add(value.len());
        self.rows.push((table, key.to_vec(), Some(value.to_vec())));
        if self.bytes < self.bytes_max { Ok(()) } else { self.write() }
    }

    /// Takes a row of the books away that came before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn remove_book(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.bytes = self.bytes.saturating_add(key.len());
        self.rows.push((LedgerTable::Books, key.to_vec(), None));
        if self.bytes < self.bytes_max { Ok(()) } else { self.write() }
    }

    /// Adds a batch whose body was opened to the totals.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn fold(&mut self, batch: CheckedBatch) -> Result<(), StoreError> {
        let batch = batch.into_tail().ok_or_else(|| missing("stream"))?;
        match self.gather.add(batch) {
            Some(slice) => self.add(&slice),
            None => Ok(()),
        }
    }

    fn add(&mut self, slice: &FoldSlice) -> Result<(), StoreError> {
        self.create_totals()?;
        self.totals.fold(slice)
    }

    fn create_totals(&mut self) -> Result<(), StoreError> {
        if !std::mem::replace(&mut self.created, true) {
            let name = self.meta.iter().find(|(name, _)| name == b"ledger");
            let ledger = name.and_then(|(_, value)| Fields(value).array()).map(LedgerId);
            self.totals.create(ledger.ok_or_else(|| missing("ledger"))?)?;
        }
        Ok(())
    }

    /// Writes what is left, and at last what the ledger is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self, restored: Restored) -> Result<(), StoreError> {
        let slice = self.gather.slice();
        self.add(&slice)?;
        self.write()?;
        let write = self.ledger.begin_write().map_err(Fault::write(LEDGER_FILE))?;
        {
            let mut meta = write.open_table(META).map_err(Fault::write(LEDGER_FILE))?;
            let rows = self.meta.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
            let (incarnation, at) =
                (restored.incarnation.to_be_bytes(), restored.at.0.to_be_bytes());
            let given: [(&[u8], &[u8]); 3] =
                [(b"incarnation", &incarnation), (b"clock_limit", &at), (b"restored_at", &at)];
            for (name, value) in rows.chain(given) {
                meta.insert(name, value).map_err(Fault::write(LEDGER_FILE))?;
            }
        }
        write.commit().map_err(Fault::write(LEDGER_FILE))
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let mut write = self.ledger.begin_write().map_err(Fault::write(LEDGER_FILE))?;
        write.set_durability(Durability::Immediate).map_err(Fault::write(LEDGER_FILE))?;
        {
            let mut streams = write.open_table(STREAMS).map_err(Fault::write(LEDGER_FILE))?;
            let mut openings = write.open_table(OPENINGS).map_err(Fault::write(LEDGER_FILE))?;
            let mut quarantine = write.open_table(QUARANTINE).map_err(Fault::write(LEDGER_FILE))?;
            let mut marks = write.open_table(MARKS).map_err(Fault::write(LEDGER_FILE))?;
            let mut books = write.open_table(BOOKS).map_err(Fault::write(LEDGER_FILE))?;
            let mut ids = write.open_table(IDS).map_err(Fault::write(LEDGER_FILE))?;
            let mut suppressed = write.open_table(SUPPRESSED).map_err(Fault::write(LEDGER_FILE))?;
            let mut redo = write.open_table(REDO).map_err(Fault::write(LEDGER_FILE))?;
            let mut batches = write.open_table(BATCHES).map_err(Fault::write(LEDGER_FILE))?;
            let mut retired = None;
            for (table, key, value) in self.rows.drain(..) {
                let Some(value) = value else {
                    books.remove(key.as_slice()).map_err(Fault::write(LEDGER_FILE))?;
                    continue;
                };
                let (mut read, value) = (Fields(&key), value.as_slice());
                let broken = || missing(table.name());
                match table {
                    LedgerTable::Meta => unreachable!("meta rows are kept for the end"),
                    LedgerTable::Streams => {
                        let stream = StreamId(read.array().ok_or_else(broken)?);
                        streams.insert(&stream.0, value).map(drop)
                    }
                    LedgerTable::Retired => {
                        let key = read.array::<24>().ok_or_else(broken)?;
                        let record = codec::read_stream(value).map_err(|_| broken())?;
                        let tables = match &mut retired {
                            Some(tables) => tables,
                            None => retired.insert(RetiredTables::open(&write)?),
                        };
                        tables.insert_row(&key, value, &record.agent)?;
                        Ok(())
                    }
                    LedgerTable::Openings => {
                        let opening = read.array::<32>().ok_or_else(broken)?;
                        let end = Fields(value).u64().ok_or_else(broken)?;
                        openings.insert(&opening, end).map(drop)
                    }
                    LedgerTable::Quarantine => {
                        quarantine.insert(read.u64().ok_or_else(broken)?, value).map(drop)
                    }
                    LedgerTable::Marks => {
                        marks.insert(read.u64().ok_or_else(broken)?, value).map(drop)
                    }
                    LedgerTable::Ids => {
                        let key = read.array::<18>().ok_or_else(broken)?;
                        let id = Fields(value).array::<32>().ok_or_else(broken)?;
                        ids.insert(&key, &id).map(drop)
                    }
                    LedgerTable::Suppressed => {
                        suppressed.insert(read.u64().ok_or_else(broken)?, value).map(drop)
                    }
                    LedgerTable::Books => books.insert(key.as_slice(), value).map(drop),
                    LedgerTable::Redo => {
                        redo.insert(read.u64().ok_or_else(broken)?, value).map(drop)
                    }
                    LedgerTable::Batches => {
                        batches.insert(read.u64().ok_or_else(broken)?, value).map(drop)
                    }
                }
                .map_err(Fault::write(LEDGER_FILE))?;
            }
        }
        self.bytes = 0;
        write.commit().map_err(Fault::write(LEDGER_FILE))
    }
}

fn missing(what: &str) -> StoreError {
    StoreError::Corrupt { file: "backup", reason: format!("its {what} cannot be read") }
}
