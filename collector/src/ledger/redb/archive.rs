//! What is to be archived, in the ledger's file.
//!
//! ```text
//! redo      number u64 -> what one transaction put into openings and books (archive/segment.rs), until it is archived
//! meta      "archive" -> how far the archive is written (ledger/archived.rs), JSON
//!           "archive_means" -> the manifest that is about to be written
//!           "archive_left" -> which bodies have left: of their batches the headers alone stand in the ledger, JSON
//! ```
//! **Owns** these rows: each is written in the transaction of what it tells of. **Does not own** the archive.
//!
//! Batches need no row: they stand in the ledger by position. What is known of streams is archived now and then: its
//! batches tell the rest.
//!
//! Limits: the first rows tell of all books so far, in pieces of [`PIECE_BYTES_MAX`].

use std::borrow::Cow;
use std::ops::Range;

use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tidemark_common::batch::{HEADER_BYTES, Header};
use tidemark_common::id::{LedgerId, StreamId};
use tidemark_common::time::Timestamp;

use super::admit::raise_format;
use super::books::BOOKS;
use super::ids::{IDS, SUPPRESSED};
use super::retired::ReadTables;
use super::{
    BATCHES, FORMAT_WITH_ARCHIVE, Fault, Inner, LEDGER_FILE, MARKS, META, Memory, OPENINGS,
    QUARANTINE, RedbStore, read_header,
};
use crate::archive::segment::{ArchivedBatch, Put, Puts};
use crate::ledger::archived::{ArchiveNote, ArchiveStep, ChangedStreams, LeftBodies, Unarchived};
use crate::ledger::check::LedgerTable;
use crate::ledger::codec;
use crate::ledger::store::{StoreError, StoredBodies};
use crate::ledger::stream::{StreamRecord, StreamState};

pub(super) const REDO: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("redo");
pub(crate) const NOTE: &[u8] = b"archive";
pub(crate) const MEANS: &[u8] = b"archive_means";
pub(crate) const LEFT: &[u8] = b"archive_left";
const PIECE_BYTES_MAX: usize = 1 << 20;

/// What the ledger's file says of its archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveFacts {
    pub ledger: LedgerId,
    pub incarnation: u32,
    pub ledger_time_limit: Timestamp,
    /// `None`: it has none.
    pub note: Option<ArchiveNote>,
    /// The manifest that it is about to write.
    pub means: Option<Vec<u8>>,
}

/// What is noted of archiving, in memory.
#[derive(Debug, Default)]
pub(super) struct ArchiveMemory {
    /// The number of the next transaction; `None`: nothing is noted, as there is no archive.
    pub(super) next: Option<u64>,
    /// Streams that changed since they were archived.
    pub(super) streams: std::collections::BTreeSet<StreamId>,
}

impl ArchiveMemory {
    /// As a start finds it.
    pub(super) fn recover(
        database: &impl ReadableDatabase,
        streams: impl Iterator<Item = StreamRecord>,
    ) -> Result<Self, StoreError> {
        let read = database.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        let meta = read.open_table(META).map_err(Fault::read(LEDGER_FILE))?;
        let Some(note) = read_note(&meta)? else { return Ok(Self::default()) };
        let redo = read.open_table(REDO).map_err(Fault::read(LEDGER_FILE))?;
        let last = redo.last().map_err(Fault::read(LEDGER_FILE))?;
        let next = last.map_or(note.books, |(number, _)| number.value().saturating_add(1));
        let changed = streams.filter(|record| {
            record.last_heard >= note.streams_at || record.state == StreamState::Conflict
        });
        Ok(Self { next: Some(next), streams: changed.map(|record| record.stream).collect() })
    }
}

fn read_note(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Option<ArchiveNote>, StoreError> {
    let row = meta.get(NOTE).map_err(Fault::read(LEDGER_FILE))?;
    row.map(|row| serde_json::from_slice(row.value())).transpose().map_err(|error| {
        StoreError::Corrupt { file: LEDGER_FILE, reason: format!("archive: {error}") }
    })
}

/// Notes what a transaction put. `next` is its number; `None`: there is no archive.
pub(super) fn note_puts(
    write: &WriteTransaction,
    next: &mut Option<u64>,
    puts: Vec<Put>,
) -> Result<(), StoreError> {
    let Some(number) = next.filter(|_| !puts.is_empty()) else { return Ok(()) };
    let mut redo = write.open_table(REDO).map_err(Fault::write(LEDGER_FILE))?;
    redo.insert(number, Puts(puts).encode().as_slice()).map_err(Fault::write(LEDGER_FILE))?;
    *next = Some(number.checked_add(1).expect("a ledger never holds 2^64 transactions"));
    Ok(())
}

/// Does a step, within the writer's transaction.
pub(super) fn step(
    write: &WriteTransaction,
    next: &mut Option<u64>,
    step: &ArchiveStep,
) -> Result<(), StoreError> {
    let mut meta = write.open_table(META).map_err(Fault::write(LEDGER_FILE))?;
    let put_note = |meta: &mut redb::Table<'_, &'static [u8], &'static [u8]>, note| {
        let bytes = serde_json::to_vec(note).expect("texts and numbers are JSON");
        meta.insert(NOTE, bytes.as_slice()).map(drop).map_err(Fault::write(LEDGER_FILE))
    };
    match step {
        ArchiveStep::Begin => {
            raise_format(&mut meta, FORMAT_WITH_ARCHIVE)?;
            put_note(&mut meta, &ArchiveNote::default())?;
            *next = Some(ArchiveNote::default().books);
            note_all(write, next)
        }
        ArchiveStep::Mean { manifest } => {
            meta.insert(MEANS, manifest.as_slice()).map(drop).map_err(Fault::write(LEDGER_FILE))
        }
        ArchiveStep::Leave { left } => {
            let before = read_left(&meta)?;
            let bytes = serde_json::to_vec(left).expect("numbers are JSON");
            meta.insert(LEFT, bytes.as_slice()).map_err(Fault::write(LEDGER_FILE))?;
            leave_headers(write, before.position..left.position)
        }
        ArchiveStep::Forget => {
            for name in [NOTE, MEANS] {
                meta.remove(name).map_err(Fault::write(LEDGER_FILE))?;
            }
            *next = None;
            let mut redo = write.open_table(REDO).map_err(Fault::write(LEDGER_FILE))?;
            redo.retain(|_, _| false).map_err(Fault::write(LEDGER_FILE))
        }
        ArchiveStep::Wrote { note } => {
            meta.remove(MEANS).map_err(Fault::write(LEDGER_FILE))?;
            put_note(&mut meta, note)?;
            let mut redo = write.open_table(REDO).map_err(Fault::write(LEDGER_FILE))?;
            redo.retain_in(..note.books, |_, _| false).map_err(Fault::write(LEDGER_FILE))
        }
    }
}

/// Takes the bodies of these batches away, but of those in quarantine.
fn leave_headers(write: &WriteTransaction, positions: Range<u64>) -> Result<(), StoreError> {
    let mut batches = write.open_table(BATCHES).map_err(Fault::write(LEDGER_FILE))?;
    let quarantine = write.open_table(QUARANTINE).map_err(Fault::read(LEDGER_FILE))?;
    for position in positions {
        if quarantine.get(position).map_err(Fault::read(LEDGER_FILE))?.is_some() {
            continue;
        }
        let head = {
            let bytes = batches.get(position).map_err(Fault::read(LEDGER_FILE))?;
            bytes.and_then(|bytes| bytes.value().first_chunk::<HEADER_BYTES>().copied())
        };
        if let Some(head) = head {
            batches.insert(position, &head[..]).map_err(Fault::write(LEDGER_FILE))?;
        }
    }
    Ok(())
}

fn read_left(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<LeftBodies, StoreError> {
    let row = meta.get(LEFT).map_err(Fault::read(LEDGER_FILE))?;
    let read = row.map(|row| serde_json::from_slice(row.value())).transpose();
    read.map(Option::unwrap_or_default).map_err(|error| StoreError::Corrupt {
        file: LEDGER_FILE,
        reason: format!("archive: {error}"),
    })
}

/// Notes every row of openings and books, as if they were put now.
fn note_all(write: &WriteTransaction, next: &mut Option<u64>) -> Result<(), StoreError> {
    let (mut puts, mut bytes) = (Vec::new(), 0_usize);
    let mut add = |table: LedgerTable, key: &[u8], value: &[u8]| {
        bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
        puts.push(Put { table: table.number(), key: key.to_vec(), value: Some(value.to_vec()) });
        if bytes < PIECE_BYTES_MAX {
            return Ok(());
        }
        bytes = 0;
        note_puts(write, next, std::mem::take(&mut puts))
    };
    let openings = write.open_table(OPENINGS).map_err(Fault::read(LEDGER_FILE))?;
    for row in openings.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (opening, end) = row.map_err(Fault::read(LEDGER_FILE))?;
        add(LedgerTable::Openings, opening.value(), &end.value().to_be_bytes())?;
    }
    let books = write.open_table(BOOKS).map_err(Fault::read(LEDGER_FILE))?;
    for row in books.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (key, value) = row.map_err(Fault::read(LEDGER_FILE))?;
        add(LedgerTable::Books, key.value(), value.value())?;
    }
    let ids = write.open_table(IDS).map_err(Fault::read(LEDGER_FILE))?;
    for row in ids.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (key, value) = row.map_err(Fault::read(LEDGER_FILE))?;
        add(LedgerTable::Ids, key.value(), value.value())?;
    }
    note_puts(write, next, puts)
}

impl RedbStore {
    /// What the ledger's file says of its archive. Blocks, as all of these.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn archive_facts(&self) -> Result<ArchiveFacts, StoreError> {
        let read = self.inner.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        let meta = read.open_table(META).map_err(Fault::read(LEDGER_FILE))?;
        let row = |name: &[u8]| meta.get(name).map_err(Fault::read(LEDGER_FILE));
        let limit = row(b"clock_limit")?.and_then(|row| codec::Fields(row.value()).array());
        Ok(ArchiveFacts {
            ledger: self.inner.id,
            incarnation: self.inner.incarnation,
            ledger_time_limit: Timestamp(limit.map_or(0, i64::from_be_bytes)),
            note: read_note(&meta)?,
            means: row(MEANS)?.map(|row| row.value().to_vec()),
        })
    }

    /// Which bodies have left; and before which position more could: what is folded, and no start reads again.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn left_bodies(&self) -> Result<(LeftBodies, u64), StoreError> {
        let folded = {
            let memory = self.inner.memory()?;
            memory.unfolded.values().copied().min().unwrap_or(memory.next_position)
        };
        let read = self.inner.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        let meta = read.open_table(META).map_err(Fault::read(LEDGER_FILE))?;
        let checkpoint = meta.get(&b"checkpoint"[..]).map_err(Fault::read(LEDGER_FILE))?;
        let checkpoint = checkpoint.and_then(|row| codec::Fields(row.value()).u64()).unwrap_or(0);
        Ok((read_left(&meta)?, folded.min(checkpoint)))
    }

    /// A batch as it stands at a position.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn batch_at(&self, position: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.batch_at(position, <[u8]>::to_vec)
    }

    /// Up to where there is something to archive, as of the last commit.
    ///
    /// # Errors
    /// If an earlier change failed half-way.
    pub fn unarchived(&self) -> Result<Unarchived, StoreError> {
        let memory = self.inner.memory()?;
        Ok(Unarchived { position: memory.next_position, books: memory.archive.next.unwrap_or(0) })
    }

    /// The same, and takes the rows of streams that changed since they were taken: they are the caller's to archive.
    ///
    /// # Errors
    /// As [`Self::unarchived`].
    pub fn take_unarchived(&self) -> Result<(Unarchived, ChangedStreams), StoreError> {
        let mut memory = self.inner.memory()?;
        let taken = std::mem::take(&mut memory.archive.streams);
        let mut changed = ChangedStreams::default();
        let retired = self.inner.read_retired()?;
        for stream in taken {
            let Some(record) = record_of(&memory, retired.as_ref(), stream)? else { continue };
            let row = codec::write_stream(&record).map_err(Fault::row(LEDGER_FILE))?;
            changed.rows.push((stream, row));
        }
        let unarchived =
            Unarchived { position: memory.next_position, books: memory.archive.next.unwrap_or(0) };
        Ok((unarchived, changed))
    }

    /// Batches from `from` on, before `to`, until they hold `bytes_max`.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn batches_to_archive(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<ArchivedBatch>, StoreError> {
        let read = self.inner.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        let batches = read.open_table(BATCHES).map_err(Fault::read(LEDGER_FILE))?;
        let marks = read.open_table(MARKS).map_err(Fault::read(LEDGER_FILE))?;
        let quarantine = read.open_table(QUARANTINE).map_err(Fault::read(LEDGER_FILE))?;
        let suppressed = read.open_table(SUPPRESSED).map_err(Fault::read(LEDGER_FILE))?;
        let (mut found, mut held) = (Vec::new(), 0_usize);
        for row in batches.range(from..to).map_err(Fault::read(LEDGER_FILE))? {
            let (position, bytes) = row.map_err(Fault::read(LEDGER_FILE))?;
            let (position, bytes) = (position.value(), bytes.value().to_vec());
            let header = read_header(&bytes)?;
            let marks = marks.get(position).map_err(Fault::read(LEDGER_FILE))?;
            let reason = quarantine.get(position).map_err(Fault::read(LEDGER_FILE))?;
            let suppressed = suppressed.get(position).map_err(Fault::read(LEDGER_FILE))?;
            let suppressed = suppressed.as_ref().map_or(&[][..], |suppressed| suppressed.value());
            held = held.saturating_add(bytes.len());
            found.push(ArchivedBatch {
                position,
                agent: String::new(),
                marks: marks.map(|marks| marks.value().to_vec()).unwrap_or_default(),
                quarantined: reason
                    .map(|reason| String::from_utf8_lossy(reason.value()).into_owned()),
                judged: ArchivedBatch::judged_of(suppressed),
                header,
                bytes,
            });
            if held >= bytes_max {
                break;
            }
        }
        // At last, and once: whoever commits holds them.
        let memory = self.inner.memory()?;
        let retired = self.inner.read_retired()?;
        for batch in &mut found {
            let stream = batch.header.stream;
            let record = record_of(&memory, retired.as_ref(), stream)?;
            let record = record.ok_or_else(|| StoreError::Corrupt {
                file: LEDGER_FILE,
                reason: format!("stream {stream} has batches and no row"),
            })?;
            batch.agent = record.agent.as_str().to_owned();
        }
        Ok(found)
    }

    /// What transactions from `from` on, before `to`, put, until they hold `bytes_max`.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn puts_to_archive(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let read = self.inner.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        let redo = read.open_table(REDO).map_err(Fault::read(LEDGER_FILE))?;
        let (mut found, mut held) = (Vec::new(), 0_usize);
        for row in redo.range(from..to).map_err(Fault::read(LEDGER_FILE))? {
            let (number, puts) = row.map_err(Fault::read(LEDGER_FILE))?;
            let puts = puts.value().to_vec();
            held = held.saturating_add(puts.len());
            found.push((number.value(), puts));
            if held >= bytes_max {
                break;
            }
        }
        Ok(found)
    }
}

/// Whether a batch is its header alone: the body has left.
pub(crate) fn has_left(header: &Header, bytes: &[u8]) -> bool {
    bytes.len() == HEADER_BYTES && header.stored_length > 0
}

/// A batch with its body, which may have left the ledger.
pub(super) fn whole<'b>(
    bodies: Option<&dyn StoredBodies>,
    position: u64,
    header: &Header,
    bytes: &'b [u8],
) -> Result<Cow<'b, [u8]>, StoreError> {
    if !has_left(header, bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let left = |reason: String| StoreError::BodyLeft { position, reason };
    let bodies = bodies.ok_or_else(|| left("none is known here".to_owned()))?;
    bodies.batch(position, header).map(Cow::Owned).map_err(left)
}

impl Inner {
    fn read_retired(&self) -> Result<Option<ReadTables>, StoreError> {
        ReadTables::of(&self.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?)
    }
}

/// What is known of a stream, live or retired.
fn record_of<'m>(
    memory: &'m Memory,
    retired: Option<&ReadTables>,
    stream: StreamId,
) -> Result<Option<Cow<'m, StreamRecord>>, StoreError> {
    if let Some(record) = memory.streams.get(&stream) {
        return Ok(Some(Cow::Borrowed(record)));
    }
    let found = retired.map(|retired| retired.find(stream)).transpose()?.flatten();
    Ok(found.map(|found| Cow::Owned(found.record)))
}
