//! Opening the ledger: the stream states, the tail, and the totals when they are not usable.
//!
//! **Owns** the order: stream rows, then the headers behind the checkpoint, then the batches that are
//! not folded. **Does not own** how files are made (`files.rs`).
//!
//! Memory is bounded: what is not folded is folded in pieces once it passes `rebuild_lines_max`
//! or `rebuild_bytes_max`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableError,
};
use tidemark_common::id::{Digest, LedgerId, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::UniqueKey;

use super::archive::{self, ArchiveMemory, REDO};
use super::books::BOOKS;
use super::gather::Gather;
use super::ids::{IDS, SUPPRESSED};
use super::retired::{ReadTables, SUMS};
use super::totals::{Derivation, TotalsFile};
use super::{
    BATCHES, FORMAT, FORMAT_WITHOUT_MARKS, Fault, Inner, LEDGER_FILE, MARKS, META, Memory,
    OPENINGS, QUARANTINE, RedbOptions, RedbStore, STREAMS, TOTALS_FILE, files, read_header,
};
use crate::dedupe::{self, Content};
use crate::ledger::codec::{self, Fields};
use crate::ledger::request::{Opened, Stored};
use crate::ledger::retired::RetiredSums;
use crate::ledger::store::{Recovered, StoreError, StoredBodies};
use crate::ledger::stream::StreamRecord;
use crate::ledger::tail::{Tail, TailBatch};

/// The first key for unique values.
const UNIQUE_KEY_ID: u16 = 1;

/// What the ledger file says of itself.
struct Meta {
    ledger: LedgerId,
    unique_key: UniqueKey,
    incarnation: u32,
    clock_limit: Timestamp,
    /// When the ledger was last restored from a backup.
    restored_at: Option<Timestamp>,
    checkpoint: u64,
    /// What the streams that retired come to.
    retired: RetiredSums,
}

pub(super) fn recover(
    ledger: Database,
    totals: Database,
    remake_totals: impl FnOnce() -> Result<Database, StoreError>,
    options: &RedbOptions,
    now: Timestamp,
) -> Result<(RedbStore, Recovered), StoreError> {
    let (meta, mut memory) = files::unless_panic(LEDGER_FILE, || {
        let meta = begin(&ledger, options, now)?;
        let mut memory = read_streams(&ledger, &meta, options)?;
        memory.archive = ArchiveMemory::recover(&ledger, memory.streams.values().cloned())?;
        Ok((meta, memory))
    })
    .flatten()?;
    let (totals, derivation) = usable_totals(totals, remake_totals, &memory, meta.ledger)?;
    let tail = read_tail(&ledger, &totals, &derivation, options, &mut memory)?;
    tell_restored(&meta, &memory);
    let recovered = Recovered {
        ledger: meta.ledger,
        unique_key: meta.unique_key,
        clock_limit: meta.clock_limit,
        restored_at: meta.restored_at,
        streams: memory.streams.values().cloned().collect(),
        retired: memory.retired.clone(),
        tail: tail.iter().cloned().collect(),
    };
    let inner = Inner {
        ledger,
        totals,
        id: meta.ledger,
        incarnation: meta.incarnation,
        streams_max: options.streams_max,
        streams_per_hour_max: options.streams_per_hour_max,
        memory: Mutex::new(memory),
        bodies: options.bodies.clone(),
    };
    Ok((RedbStore { inner: Arc::new(inner) }, recovered))
}

/// Until their agents come, nobody knows what these streams posted after the backup.
fn tell_restored(meta: &Meta, memory: &Memory) {
    let unheard =
        |record: &&StreamRecord| record.state.is_unheard_since(record.last_heard, meta.restored_at);
    let streams = memory.streams.values().filter(unheard).count();
    if streams > 0 {
        tracing::warn!(
            streams,
            "streams whose agents did not come since the ledger was restored; /v1/streams names them"
        );
    }
}

/// Begins a new incarnation of the ledger, making it if it is new.
///
/// Each start takes the next one, whatever the clocks show: so a lost ledger has used no more
/// incarnations beyond its backup than it was started since, and a restore can go above them all.
fn begin(database: &Database, options: &RedbOptions, now: Timestamp) -> Result<Meta, StoreError> {
    let write = database.begin_write().map_err(Fault::write(LEDGER_FILE))?;
    let found;
    {
        let mut meta = write.open_table(META).map_err(Fault::write(LEDGER_FILE))?;
        let mut held = BTreeMap::new();
        for row in meta.iter().map_err(Fault::read(LEDGER_FILE))? {
            let (name, value) = row.map_err(Fault::read(LEDGER_FILE))?;
            held.insert(name.value().to_vec(), value.value().to_vec());
        }
        if held.is_empty() {
            let batches = write.open_table(BATCHES).map_err(Fault::write(LEDGER_FILE))?;
            let streams = write.open_table(STREAMS).map_err(Fault::write(LEDGER_FILE))?;
            let is_new = batches.is_empty().map_err(Fault::read(LEDGER_FILE))?
                && streams.is_empty().map_err(Fault::read(LEDGER_FILE))?;
            if !is_new {
                return Err(StoreError::HalfRestored);
            }
            held = new_ledger(options.random, now)?;
        }
        found = read_meta(&held)?;
        held.insert(b"incarnation".to_vec(), found.incarnation.to_be_bytes().to_vec());
        for (name, value) in &held {
            meta.insert(name.as_slice(), value.as_slice()).map_err(Fault::write(LEDGER_FILE))?;
        }
        write.open_table(BATCHES).map_err(Fault::write(LEDGER_FILE))?;
        write.open_table(STREAMS).map_err(Fault::write(LEDGER_FILE))?;
        write.open_table(OPENINGS).map_err(Fault::write(LEDGER_FILE))?;
        write.open_table(QUARANTINE).map_err(Fault::write(LEDGER_FILE))?;
        write.open_table(MARKS).map_err(Fault::write(LEDGER_FILE))?;
        write.open_table(BOOKS).map_err(Fault::write(LEDGER_FILE))?;
        write.open_table(IDS).map_err(Fault::write(LEDGER_FILE))?;
        write.open_table(SUPPRESSED).map_err(Fault::write(LEDGER_FILE))?;
        write.open_table(REDO).map_err(Fault::write(LEDGER_FILE))?;
    }
    write.commit().map_err(Fault::write(LEDGER_FILE))?;
    Ok(found)
}

fn new_ledger(
    random: fn(&mut [u8]) -> Result<(), getrandom::Error>,
    now: Timestamp,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let (mut id, mut key) = ([0; 16], [0; 32]);
    let fault = |error: getrandom::Error| StoreError::Storage {
        act: "make",
        file: LEDGER_FILE,
        reason: error.to_string(),
    };
    random(&mut id).map_err(fault)?;
    random(&mut key).map_err(fault)?;
    // From the clock, so that the ledgers of one machine are told apart in fences too.
    let incarnation = u32::try_from(now.0.div_euclid(1_000)).unwrap_or(0);
    let rows: [(&[u8], &[u8]); 6] = [
        (b"format", &FORMAT_WITHOUT_MARKS.to_be_bytes()),
        (b"incarnation", &incarnation.to_be_bytes()),
        (b"ledger", &id),
        (b"unique_key", &key),
        (b"clock_limit", &0_i64.to_be_bytes()),
        (b"checkpoint", &0_u64.to_be_bytes()),
    ];
    Ok(rows.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}

fn read_meta(held: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Meta, StoreError> {
    let fields = |name: &str| Fields(held.get(name.as_bytes()).map_or(&[], Vec::as_slice));
    let missing = |name: &str| StoreError::Corrupt {
        file: LEDGER_FILE,
        reason: format!("{name} is missing"),
    };
    let format =
        fields("format").array().map(u16::from_be_bytes).ok_or_else(|| missing("format"))?;
    if format > FORMAT {
        return Err(StoreError::Newer { file: LEDGER_FILE, found: format, known: FORMAT });
    }
    let before = fields("incarnation").array().map_or(0, u32::from_be_bytes);
    let incarnation = before.checked_add(1).ok_or_else(|| StoreError::Corrupt {
        file: LEDGER_FILE,
        reason: "its incarnations are used up".to_owned(),
    })?;
    let key = fields("unique_key").array().ok_or_else(|| missing("unique_key"))?;
    let clock_limit = fields("clock_limit")
        .array()
        .map(i64::from_be_bytes)
        .ok_or_else(|| missing("clock_limit"))?;
    Ok(Meta {
        ledger: LedgerId(fields("ledger").array().ok_or_else(|| missing("ledger"))?),
        unique_key: UniqueKey { id: UNIQUE_KEY_ID, key },
        incarnation,
        clock_limit: Timestamp(clock_limit),
        restored_at: fields("restored_at").array().map(i64::from_be_bytes).map(Timestamp),
        checkpoint: fields("checkpoint").u64().ok_or_else(|| missing("checkpoint"))?,
        retired: match held.get(SUMS) {
            Some(bytes) => RetiredSums::read(bytes).map_err(Fault::row(LEDGER_FILE))?,
            None => RetiredSums::default(),
        },
    })
}

/// The stream rows, brought up to date by the batches behind the checkpoint.
fn read_streams(
    database: &Database,
    meta: &Meta,
    options: &RedbOptions,
) -> Result<Memory, StoreError> {
    let read = database.begin_read().map_err(Fault::read(LEDGER_FILE))?;
    let mut memory = Memory { retired: meta.retired.clone(), ..Memory::default() };
    let retired = ReadTables::of(&read)?;
    let streams = read.open_table(STREAMS).map_err(Fault::read(LEDGER_FILE))?;
    for row in streams.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (_, row) = row.map_err(Fault::read(LEDGER_FILE))?;
        let record = codec::read_stream(row.value()).map_err(Fault::row(LEDGER_FILE))?;
        memory.streams.insert(record.stream, record);
    }
    let judged = Judged::of(&read, options.bodies.clone())?;
    memory.next_position = meta.checkpoint;
    let batches = read.open_table(BATCHES).map_err(Fault::read(LEDGER_FILE))?;
    for row in batches.range(meta.checkpoint..).map_err(Fault::read(LEDGER_FILE))? {
        let (position, bytes) = row.map_err(Fault::read(LEDGER_FILE))?;
        let (position, bytes) = (position.value(), bytes.value());
        memory.next_position = position.saturating_add(1);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        memory.bytes_since_checkpoint = memory.bytes_since_checkpoint.saturating_add(length);
        memory.batches_since_checkpoint = memory.batches_since_checkpoint.saturating_add(1);
        let header = read_header(bytes)?;
        let Some(record) = memory.streams.get_mut(&header.stream) else {
            let found = find(retired.as_ref(), header.stream)?;
            match found.is_some_and(|record| header.sequence <= record.posted_sequence) {
                true => continue,
                false => return Err(damaged(position, "its stream has no row")),
            }
        };
        if header.sequence <= record.posted_sequence {
            continue;
        }
        if header.previous != record.posted_digest
            || header.sequence != record.posted_sequence.next()
        {
            return Err(damaged(position, "it does not continue its stream"));
        }
        let opened = judged.open(position, bytes)?;
        replay(record, &header, &opened);
        memory.dirty.insert(header.stream);
    }
    Ok(memory)
}

fn find(
    retired: Option<&ReadTables>,
    stream: StreamId,
) -> Result<Option<StreamRecord>, StoreError> {
    let found = retired.map_or(Ok(None), |retired| retired.find(stream))?;
    Ok(found.map(|found| found.record))
}

fn replay(record: &mut StreamRecord, header: &tidemark_common::batch::Header, opened: &Opened) {
    let content = match opened {
        Opened::Readable { evidence, .. } => Content::Posted(evidence),
        Opened::Quarantined(_) => Content::Quarantined,
    };
    let digest: Digest = header.digest();
    let heard = record.last_heard;
    dedupe::record(record, header, digest, content, heard);
}

/// The totals if they are derived from a part of this ledger; else new, empty ones.
fn usable_totals(
    totals: Database,
    remake: impl FnOnce() -> Result<Database, StoreError>,
    memory: &Memory,
    ledger: LedgerId,
) -> Result<(TotalsFile, Derivation), StoreError> {
    let file = TotalsFile::new(totals);
    let found = files::unless_panic(TOTALS_FILE, || file.derivation()).flatten();
    if let Ok(Some(derivation)) = &found {
        let is_of_these = derivation.ledger == ledger
            && derivation.end_position <= memory.next_position
            && is_of_streams(&file, memory)?;
        if is_of_these {
            return Ok((file, *derivation));
        }
    }
    let file = match found {
        // A new file, without tables.
        Ok(None) if file.is_empty()? => file,
        Ok(_) | Err(_) => {
            let damage = found.err().map(|error| error.to_string());
            tracing::warn!(damage, "totals are not derived from this ledger and are rebuilt");
            let _closed = files::unless_panic(TOTALS_FILE, || drop(file)).is_ok();
            TotalsFile::new(remake()?)
        }
    };
    file.create(ledger)?;
    Ok((file, Derivation { ledger, end_position: 0 }))
}

/// Whether no stream is folded beyond what is posted of it. Of those that retired, all of which was folded
/// before, it is enough that no more are folded.
fn is_of_streams(file: &TotalsFile, memory: &Memory) -> Result<bool, StoreError> {
    let folded = file.snapshot()?.folded_of(memory.streams.keys().copied())?;
    let mut posted = memory.streams.values().map(|record| record.posted_sequence);
    let is_ahead = folded.iter().any(|folded| posted.next().is_none_or(|posted| *folded > posted));
    let live = folded.iter().filter(|folded| **folded > Sequence::ZERO).count();
    let known = u64::try_from(live).unwrap_or(u64::MAX).saturating_add(memory.retired.with_batches);
    Ok(!is_ahead && file.folded_streams()? <= known)
}

/// The batches that are not folded; if they are many, all but the newest are folded now.
fn read_tail(
    database: &Database,
    totals: &TotalsFile,
    derivation: &Derivation,
    options: &RedbOptions,
    memory: &mut Memory,
) -> Result<Tail, StoreError> {
    let read = database.begin_read().map_err(Fault::read(LEDGER_FILE))?;
    let judged = Judged::of(&read, options.bodies.clone())?;
    let retired = ReadTables::of(&read)?;
    let batches = read.open_table(BATCHES).map_err(Fault::read(LEDGER_FILE))?;
    let mut gather = Gather::new(options);
    for row in batches.range(derivation.end_position..).map_err(Fault::read(LEDGER_FILE))? {
        let (position, bytes) = row.map_err(Fault::read(LEDGER_FILE))?;
        let (position, bytes) = (position.value(), bytes.value());
        let header = read_header(bytes)?;
        let opened = judged.open(position, bytes)?;
        let agent = match memory.streams.get(&header.stream) {
            Some(record) => Some(record.agent.clone()),
            None => find(retired.as_ref(), header.stream)?.map(|record| record.agent),
        };
        let agent = agent.ok_or_else(|| damaged(position, "its stream has no row"))?;
        memory.unfolded.insert((header.stream, header.sequence), position);
        let batch = TailBatch::new(&header, agent, position, Timestamp(0), opened.lines());
        if let Some(slice) = gather.add(batch) {
            totals.fold(&slice)?;
            memory.forget_folded(&slice);
            tracing::info!(batches = slice.batches, lines = slice.lines, "folded while starting");
        }
    }
    Ok(gather.into_tail())
}

/// What was judged of the stored batches when they were admitted.
pub(super) struct Judged {
    bodies: Option<Arc<dyn StoredBodies>>,
    quarantine: BTreeMap<u64, String>,
    marks: ReadOnlyTable<u64, &'static [u8]>,
    suppressed: ReadOnlyTable<u64, &'static [u8]>,
}

impl Judged {
    /// `bodies` are those that have left the ledger.
    pub(super) fn of(
        read: &ReadTransaction,
        bodies: Option<Arc<dyn StoredBodies>>,
    ) -> Result<Self, StoreError> {
        let marks = read.open_table(MARKS).map_err(Fault::read(LEDGER_FILE))?;
        let suppressed = read.open_table(SUPPRESSED).map_err(Fault::read(LEDGER_FILE))?;
        Ok(Self { bodies, quarantine: quarantined(read)?, marks, suppressed })
    }

    /// Whether the batch at `position` is quarantined, its marks, and its suppressed lines.
    pub(super) fn of_batch(&self, position: u64) -> Result<(bool, Vec<u8>, Vec<u8>), StoreError> {
        let marks = self.marks.get(position).map_err(Fault::read(LEDGER_FILE))?;
        let marks = marks.map_or_else(Vec::new, |marks| marks.value().to_vec());
        let suppressed = self.suppressed.get(position).map_err(Fault::read(LEDGER_FILE))?;
        let suppressed = suppressed.map_or_else(Vec::new, |lines| lines.value().to_vec());
        Ok((self.quarantine.contains_key(&position), marks, suppressed))
    }

    /// Opens a stored batch. What was readable when it was admitted must still be.
    pub(super) fn open(&self, position: u64, bytes: &[u8]) -> Result<Opened, StoreError> {
        if let Some(reason) = self.quarantine.get(&position) {
            return Ok(Opened::Quarantined(reason.clone()));
        }
        let marks = self.marks.get(position).map_err(Fault::read(LEDGER_FILE))?;
        let suppressed = self.suppressed.get(position).map_err(Fault::read(LEDGER_FILE))?;
        let stored = Stored {
            marks: marks.as_ref().map_or(&[][..], |marks| marks.value()),
            suppressed: suppressed.as_ref().map_or(&[][..], |suppressed| suppressed.value()),
        };
        let header = read_header(bytes)?;
        let bytes = &*archive::whole(self.bodies.as_deref(), position, &header, bytes)?;
        match Opened::read(&header, bytes, stored) {
            Ok(opened @ Opened::Readable { .. }) => Ok(opened),
            Ok(Opened::Quarantined(reason)) => Err(damaged(position, &reason)),
            Err(error) => Err(damaged(position, &error.to_string())),
        }
    }
}

fn quarantined(read: &ReadTransaction) -> Result<BTreeMap<u64, String>, StoreError> {
    let table = match read.open_table(QUARANTINE) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(Fault::read(LEDGER_FILE)(error)),
    };
    let mut all = BTreeMap::new();
    for row in table.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (position, reason) = row.map_err(Fault::read(LEDGER_FILE))?;
        all.insert(position.value(), String::from_utf8_lossy(reason.value()).into_owned());
    }
    Ok(all)
}

fn damaged(position: u64, reason: &str) -> StoreError {
    StoreError::Corrupt { file: LEDGER_FILE, reason: format!("batch at {position}: {reason}") }
}
