//! What a journal holds that is not known to be posted: read from its file, without an opening of its own.
//!
//! **Owns** the walk over those rows, oldest first: sealed batches, then chunks. **Does not own** what
//! becomes of them (`moving.rs`, `export.rs`). One row is in memory at a time; nothing is changed.

use std::path::Path;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};
use tidemark_common::batch::{Evidence, Header, SealedBatch};
use tidemark_common::id::{
    Digest, EventNumber, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{HeldOpening, Rules, UniqueKey, decode_rules};

use super::open::OpenError;
use super::reader::JournalReader;
use super::record::{
    BatchRow, Conflicted, Counters, Identity, MovedRow, Pinned, Record, SourceRow, decode_chunk,
    decode_dead_letter, decode_evidence, decode_ids, in_reach,
};
use super::tables::{
    BATCHES, CHUNKS, DEAD_LETTERS, IDS, META, RULES, RULES_ROW, SEALED, SOURCES, meta,
};
use super::write::{ConflictAnswer, DeadLetter};
use crate::event::{IdDigest, SourceCount};

/// A journal's file, and what it says of itself.
#[derive(Debug)]
pub struct Leftover {
    reader: JournalReader,
    pub stream: StreamId,
    pub ledger: Option<LedgerId>,
    pub unique_key: Option<UniqueKey>,
    pub accepted: u64,
    pub posted_events: u64,
    pub sealed_sequence: Sequence,
    pub sealed_digest: Digest,
    /// The latest commit's time.
    pub newest: Timestamp,
    pub conflict: Option<String>,
    pub answer: Option<ConflictAnswer>,
    /// The conflict is settled: these openings moved to that stream, and no more will.
    pub moved: Option<(StreamId, Vec<OpeningId>)>,
    posted_sequence: u64,
}

/// Events that belong together: a sealed batch, or one chunk of a group.
#[derive(Debug)]
pub enum Held<'a> {
    Batch(Box<Header>, &'a [u8], Option<Timestamp>),
    Chunk(ChunkHeld<'a>),
}

impl Held<'_> {
    /// Whose events they are, the first one, and the one behind the last.
    #[must_use]
    pub fn events(&self) -> (OpeningId, EventNumber, EventNumber) {
        match self {
            Self::Batch(header, ..) => (header.opening, header.first_event, header.end_event),
            Self::Chunk(chunk) => {
                (chunk.opening, chunk.first_event, chunk.first_event.plus(u64::from(chunk.events)))
            }
        }
    }
}

/// A chunk; `payload` is compressed.
#[derive(Debug)]
pub struct ChunkHeld<'a> {
    pub group: u64,
    pub opening: OpeningId,
    pub rules: RulesVersion,
    pub first_event: EventNumber,
    pub events: u32,
    pub oldest: Timestamp,
    pub evidence: Evidence,
    pub payload: &'a [u8],
}

impl Leftover {
    /// Reads the file at `path`, which no agent runs on.
    ///
    /// # Errors
    /// A file that is held, or is no journal that this version reads.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::of(JournalReader::open(path)?)
    }

    /// The same, for the one who moves what it holds and notes that in it.
    pub(super) fn open_to_note(path: &Path) -> Result<Self, OpenError> {
        Self::of(JournalReader::open_to_note(path)?)
    }

    pub(super) fn of(reader: JournalReader) -> Result<Self, OpenError> {
        let rows = reader.database().begin_read()?;
        let table = rows.open_table(META)?;
        let identity: Identity = required(&table)?;
        let counters: Counters = required(&table)?;
        let pinned: Option<Pinned> = stored(&table)?;
        let moved: Option<MovedRow> = stored(&table)?;
        Ok(Self {
            stream: identity.stream,
            ledger: pinned.map(|pinned| pinned.ledger),
            unique_key: pinned.map(|pinned| pinned.unique_key),
            accepted: counters.accepted,
            posted_events: counters.posted_events,
            sealed_sequence: counters.sealed_sequence,
            sealed_digest: counters.sealed_digest,
            newest: counters.newest,
            conflict: stored::<Conflicted>(&table)?.map(|conflicted| conflicted.reason),
            answer: stored(&table)?,
            moved: moved.map(|row| (row.to, row.openings)),
            posted_sequence: counters.posted_sequence.0,
            reader,
        })
    }

    pub(super) fn database(&self) -> &Database {
        self.reader.database()
    }

    /// The openings whose events are not known to be posted, oldest first.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub fn openings(&self) -> Result<Vec<HeldOpening>, OpenError> {
        let mut held: Vec<HeldOpening> = Vec::new();
        let mut hold = |opening, first: EventNumber, end: EventNumber| match held.last_mut() {
            _ if first == end => {}
            Some(last) if last.opening == opening => last.end = end,
            Some(_) | None => held.push(HeldOpening { opening, first, end }),
        };
        let rows = self.begin()?;
        for entry in rows.open_table(BATCHES)?.range(self.posted_sequence.saturating_add(1)..)? {
            let row = BatchRow::decode(entry?.1.value())?;
            hold(row.opening, row.first_event, row.end_event);
        }
        for entry in rows.open_table(CHUNKS)?.iter()? {
            let entry = entry?;
            let (header, _) = decode_chunk(entry.1.value())?;
            let end = header.first_event.plus(u64::from(header.events));
            hold(header.opening, header.first_event, end);
        }
        Ok(held)
    }

    /// Hands over all that is held, in the order of its events.
    ///
    /// # Errors
    /// Rows that cannot be read, or what `each` says.
    pub fn each(
        &self,
        mut each: impl FnMut(Held<'_>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let rows = self.begin()?;
        let batches = rows.open_table(BATCHES)?;
        for entry in rows.open_table(SEALED)?.range(self.posted_sequence.saturating_add(1)..)? {
            let (sequence, bytes) = entry?;
            let row = batches.get(sequence.value())?;
            let oldest = row.map(|row| BatchRow::decode(row.value())).transpose()?;
            let (header, body) = SealedBatch::split(bytes.value())
                .map_err(|error| OpenError::corrupt(error.to_string()))?;
            each(Held::Batch(Box::new(header), body, oldest.and_then(|row| row.oldest)))?;
        }
        for entry in rows.open_table(CHUNKS)?.iter()? {
            let (key, record) = entry?;
            let (header, payload) = decode_chunk(record.value())?;
            // What moves keeps its group's number, and the next start goes on from it.
            let group = key.value().0;
            in_reach([group])
                .map_err(|reason| OpenError::corrupt(format!("group {group}: {reason}")))?;
            each(Held::Chunk(ChunkHeld {
                group,
                opening: header.opening,
                rules: header.rules,
                first_event: header.first_event,
                events: header.events,
                oldest: header.oldest,
                evidence: header.evidence,
                payload,
            }))?;
        }
        Ok(())
    }

    /// The last counts.
    pub(super) fn evidence(&self) -> Result<Evidence, OpenError> {
        match self.begin()?.open_table(META)?.get(meta::EVIDENCE)? {
            Some(row) => Ok(decode_evidence(row.value())?),
            None => Ok(Evidence::default()),
        }
    }

    pub(super) fn rules(&self) -> Result<Option<Rules>, OpenError> {
        match self.begin()?.open_table(RULES)?.get(RULES_ROW)? {
            Some(row) => decode_rules(row.value())
                .map(Some)
                .map_err(|error| OpenError::corrupt(error.to_string())),
            None => Ok(None),
        }
    }

    /// Hands over the rows of ids, oldest first.
    pub(super) fn each_ids(
        &self,
        mut each: impl FnMut(Timestamp, Vec<IdDigest>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        for entry in self.begin()?.open_table(IDS)?.iter()? {
            let (at, ids) = decode_ids(entry?.1.value())?;
            each(at, ids)?;
        }
        Ok(())
    }

    /// Hands over the dead letters that this version can tell apart, oldest first.
    pub(super) fn each_dead_letter(
        &self,
        mut each: impl FnMut(DeadLetter) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        for entry in self.begin()?.open_table(DEAD_LETTERS)?.iter()? {
            let (number, row) = entry?;
            let letter = decode_dead_letter(number.value(), row.value())?;
            if let (Some(door), Some(reason)) = (letter.door, letter.reason) {
                each(DeadLetter { at: letter.at, door, reason, bytes: letter.bytes })?;
            }
        }
        Ok(())
    }

    pub(super) fn sources(&self) -> Result<Vec<SourceCount>, OpenError> {
        let mut sources = Vec::new();
        for entry in self.begin()?.open_table(SOURCES)?.iter()? {
            let (source, row) = entry?;
            let count = SourceRow::decode(row.value())?.count;
            let source = String::from_utf8_lossy(source.value()).into_owned();
            sources.push(SourceCount { source, count });
        }
        Ok(sources)
    }

    fn begin(&self) -> Result<ReadTransaction, OpenError> {
        Ok(self.database().begin_read()?)
    }
}

/// A record of `meta` with a row of its own.
trait MetaRecord: Record {
    const ROW: u16;
}

impl MetaRecord for Identity {
    const ROW: u16 = meta::IDENTITY;
}

impl MetaRecord for Counters {
    const ROW: u16 = meta::COUNTERS;
}

impl MetaRecord for Pinned {
    const ROW: u16 = meta::PINNED;
}

impl MetaRecord for Conflicted {
    const ROW: u16 = meta::CONFLICTED;
}

impl MetaRecord for ConflictAnswer {
    const ROW: u16 = meta::ANSWERED;
}

impl MetaRecord for MovedRow {
    const ROW: u16 = meta::MOVED;
}

fn stored<R: MetaRecord>(
    table: &impl ReadableTable<u16, &'static [u8]>,
) -> Result<Option<R>, OpenError> {
    Ok(table.get(R::ROW)?.map(|record| R::decode(record.value())).transpose()?)
}

fn required<R: MetaRecord>(table: &impl ReadableTable<u16, &'static [u8]>) -> Result<R, OpenError> {
    stored(table)?.ok_or_else(|| OpenError::corrupt(format!("its {} record is missing", R::NAME)))
}
