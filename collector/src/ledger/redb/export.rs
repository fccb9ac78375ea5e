//! All rows of a ledger, as of one moment, while it goes on.
//!
//! **Owns** the order of reading, and that it costs the writer nothing. **Does not own** what becomes of
//! the rows.
//!
//! Invariants: what changes (what is known of streams) is read in one transaction, together with the
//! position at which the batches end. Batches never change and never leave, so they are read after
//! it, piece by piece, each in a transaction of its own: no page that a commit frees is held for longer
//! than one piece takes to be read into memory.
//!
//! Limits: [`PIECE_BYTES_MAX`] and one batch are held in memory.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableError, TableHandle};

use super::archive::{self, REDO};
use super::books::BOOKS;
use super::ids::{IDS, SUPPRESSED};
use super::recover::Judged;
use super::{
    BATCHES, Fault, LEDGER_FILE, MARKS, META, OPENINGS, QUARANTINE, RedbStore, STREAMS, files,
    read_header, retired,
};
use crate::ledger::check::LedgerTable;
use crate::ledger::request::Opened;
use crate::ledger::store::{
    ShownBatch, StoreError, StoredBatch, StoredBodies, VisitBatch, VisitStored, WhichBatches,
};

/// Batches are read until they hold this many bytes, then shown.
const PIECE_BYTES_MAX: usize = 8 << 20;

/// What is shown a row: its table, key and value.
pub type ShowRow<'v, E> = &'v mut dyn FnMut(LedgerTable, &[u8], &[u8]) -> Result<(), E>;

impl RedbStore {
    /// Shows every row of the running ledger as of now, in the order of [`LedgerTable`]. Blocks.
    ///
    /// # Errors
    /// If the ledger cannot be read, holds a table that this version does not know, or `show` failed.
    pub fn export<E: From<StoreError>>(&self, show: ShowRow<'_, E>) -> Result<(), E> {
        export(&self.inner.ledger, show)
    }
}

/// The same for the ledger in `folder`, which no collector runs on.
///
/// # Errors
/// As [`RedbStore::export`], or a file that is locked or cannot be opened.
pub fn export_stopped<E: From<StoreError>>(
    folder: &Path,
    cache_bytes: usize,
    show: ShowRow<'_, E>,
) -> Result<(), E> {
    export(&files::open_stopped(folder, LEDGER_FILE, cache_bytes)?, show)
}

fn export<E: From<StoreError>>(
    database: &impl ReadableDatabase,
    show: ShowRow<'_, E>,
) -> Result<(), E> {
    let end = {
        let read = database.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        known_tables(&read)?;
        show_rows(&read, show)?;
        let batches = read.open_table(BATCHES).map_err(Fault::read(LEDGER_FILE))?;
        let last = batches.last().map_err(Fault::read(LEDGER_FILE))?;
        last.map_or(0, |(position, _)| position.value().saturating_add(1))
    };
    let mut next = 0;
    while next < end {
        let piece = read_piece(database, next, end)?;
        // The last position is there: a piece is empty only if it is not.
        next = piece.last().map_or(end, |(position, _)| position.saturating_add(1));
        for (position, bytes) in piece {
            show(LedgerTable::Batches, &position.to_be_bytes(), &bytes)?;
        }
    }
    Ok(())
}

/// Shows all batches from `next` on, each with what is known of its piece.
fn visit_pieces(
    database: &impl ReadableDatabase,
    mut next: u64,
    bodies: Option<&Arc<dyn StoredBodies>>,
    mut visit: impl FnMut(&Judged, u64, &[u8]) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    loop {
        let (piece, judged) = {
            let piece = read_piece(database, next, u64::MAX)?;
            let read = database.begin_read().map_err(Fault::read(LEDGER_FILE))?;
            (piece, Judged::of(&read, bodies.cloned())?)
        };
        let Some((last, _)) = piece.last() else { return Ok(()) };
        next = last.saturating_add(1);
        for (position, bytes) in &piece {
            if visit(&judged, *position, bytes)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// The lines of all batches, as they were judged when they were admitted.
pub(super) fn visit_batches(
    database: &impl ReadableDatabase,
    bodies: Option<Arc<dyn StoredBodies>>,
    which: WhichBatches,
    visit: VisitBatch<'_>,
) -> Result<(), StoreError> {
    visit_pieces(database, which.from, bodies.as_ref(), |judged, position, bytes| {
        let header = &read_header(bytes)?;
        if !which.may_be(header) {
            return Ok(ControlFlow::Continue(()));
        }
        match judged.open(position, bytes)? {
            Opened::Quarantined(_) => Ok(ControlFlow::Continue(())),
            Opened::Readable { lines, ids, raw_events, .. } => {
                let (lines, ids) = (&lines, &ids);
                let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                Ok(visit(&ShownBatch { position, header, bytes, lines, ids, raw_events }))
            }
        }
    })
}

/// All batches as they are stored.
pub(super) fn visit_stored(
    database: &impl ReadableDatabase,
    bodies: Option<Arc<dyn StoredBodies>>,
    visit: VisitStored<'_>,
) -> Result<(), StoreError> {
    visit_pieces(database, 0, bodies.as_ref(), |judged, position, bytes| {
        let (quarantined, marks, suppressed) = judged.of_batch(position)?;
        let (marks, suppressed) = (&marks, &suppressed);
        let header = read_header(bytes)?;
        let bytes = &*archive::whole(bodies.as_deref(), position, &header, bytes)?;
        Ok(visit(&StoredBatch { position, bytes, quarantined, marks, suppressed }))
    })
}

/// A table that is not known here would be missing from a backup without anybody knowing.
fn known_tables(read: &ReadTransaction) -> Result<(), StoreError> {
    for table in read.list_tables().map_err(Fault::read(LEDGER_FILE))? {
        let is_known = LedgerTable::ALL.iter().any(|known| known.name() == table.name());
        if !is_known && !retired::DERIVED.contains(&table.name()) {
            return Err(StoreError::Corrupt {
                file: LEDGER_FILE,
                reason: format!("this version does not know its table {}", table.name()),
            });
        }
    }
    Ok(())
}

/// All rows but the batches.
fn show_rows<E: From<StoreError>>(read: &ReadTransaction, show: ShowRow<'_, E>) -> Result<(), E> {
    let meta = read.open_table(META).map_err(Fault::read(LEDGER_FILE))?;
    for row in meta.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (name, value) = row.map_err(Fault::read(LEDGER_FILE))?;
        show(LedgerTable::Meta, name.value(), value.value())?;
    }
    let streams = read.open_table(STREAMS).map_err(Fault::read(LEDGER_FILE))?;
    for row in streams.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (stream, record) = row.map_err(Fault::read(LEDGER_FILE))?;
        show(LedgerTable::Streams, stream.value(), record.value())?;
    }
    retired::show_rows(read, |key, row| show(LedgerTable::Retired, key, row))?;
    let openings = read.open_table(OPENINGS).map_err(Fault::read(LEDGER_FILE))?;
    for row in openings.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (opening, end) = row.map_err(Fault::read(LEDGER_FILE))?;
        show(LedgerTable::Openings, opening.value(), &end.value().to_be_bytes())?;
    }
    let quarantine = read.open_table(QUARANTINE).map_err(Fault::read(LEDGER_FILE))?;
    for row in quarantine.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (position, reason) = row.map_err(Fault::read(LEDGER_FILE))?;
        show(LedgerTable::Quarantine, &position.value().to_be_bytes(), reason.value())?;
    }
    if let Some(marks) = if_there(read.open_table(MARKS))? {
        for row in marks.iter().map_err(Fault::read(LEDGER_FILE))? {
            let (position, marks) = row.map_err(Fault::read(LEDGER_FILE))?;
            show(LedgerTable::Marks, &position.value().to_be_bytes(), marks.value())?;
        }
    }
    if let Some(books) = if_there(read.open_table(BOOKS))? {
        for row in books.iter().map_err(Fault::read(LEDGER_FILE))? {
            let (key, value) = row.map_err(Fault::read(LEDGER_FILE))?;
            show(LedgerTable::Books, key.value(), value.value())?;
        }
    }
    if let Some(ids) = if_there(read.open_table(IDS))? {
        for row in ids.iter().map_err(Fault::read(LEDGER_FILE))? {
            let (key, value) = row.map_err(Fault::read(LEDGER_FILE))?;
            show(LedgerTable::Ids, key.value(), value.value())?;
        }
    }
    if let Some(suppressed) = if_there(read.open_table(SUPPRESSED))? {
        for row in suppressed.iter().map_err(Fault::read(LEDGER_FILE))? {
            let (position, lines) = row.map_err(Fault::read(LEDGER_FILE))?;
            show(LedgerTable::Suppressed, &position.value().to_be_bytes(), lines.value())?;
        }
    }
    if let Some(redo) = if_there(read.open_table(REDO))? {
        for row in redo.iter().map_err(Fault::read(LEDGER_FILE))? {
            let (number, puts) = row.map_err(Fault::read(LEDGER_FILE))?;
            show(LedgerTable::Redo, &number.value().to_be_bytes(), puts.value())?;
        }
    }
    Ok(())
}

/// A table that is not there if no collector that knows of it was started on the ledger yet.
fn if_there<T>(opened: Result<T, TableError>) -> Result<Option<T>, StoreError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(Fault::read(LEDGER_FILE)(error)),
    }
}

/// Batches from `next` on, before `end`.
fn read_piece(
    database: &impl ReadableDatabase,
    next: u64,
    end: u64,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let read = database.begin_read().map_err(Fault::read(LEDGER_FILE))?;
    let batches = read.open_table(BATCHES).map_err(Fault::read(LEDGER_FILE))?;
    let (mut piece, mut held) = (Vec::new(), 0_usize);
    for row in batches.range(next..end).map_err(Fault::read(LEDGER_FILE))? {
        let (position, bytes) = row.map_err(Fault::read(LEDGER_FILE))?;
        let bytes = bytes.value().to_vec();
        held = held.saturating_add(bytes.len());
        piece.push((position.value(), bytes));
        if held >= PIECE_BYTES_MAX {
            break;
        }
    }
    Ok(piece)
}
