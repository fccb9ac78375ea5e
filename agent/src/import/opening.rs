//! One opening's events, on their way into a journal of their own.
//!
//! **Owns** which of them are left out, how they become batches, and that the journal has its name only once it is
//! whole. **Does not own** whether the rows are ([`super::whole`]).
//!
//! The same rows make the same batches, to the byte, on every machine: they are cut by count and size alone, and
//! their salts come from the export's. Only events that were taken before there were rules, and those after them,
//! are kept as they are, and sealed when the collector has told its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemark_common::batch::{Evidence, Extras, KeyedId, Line, LineId, series_bytes};
use tidemark_common::chunk::{ChunkWriter, NumberedId, Record, RecordId, Unique};
use tidemark_common::code::EvidenceCode;
use tidemark_common::hex;
use tidemark_common::id::{LedgerId, OpeningId, RulesVersion, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::UniqueKey;

use super::read::{read_line, read_quantity, read_series, read_time};
use super::{ImportError, RowError, bad};
use crate::aggregate::{Amount, ID_EVENTS_MAX, OPEN_BODY_BYTES_MAX, OpenBatch, id_event_bytes};
use crate::config::Config;
use crate::export::{EventRow, LineRow};
use crate::journal::{
    Carried, Carrier, FreshIds, Journal, JournalState, Leftover, OpenError, hashed,
    remove_if_there, sync_folder_of,
};
use crate::life::journal_options;

/// A batch of imported events holds at most this many.
const EVENTS_PER_GROUP_MAX: u64 = 50_000;
/// As of the agent's chunks.
const CHUNK_ZSTD_LEVEL: i32 = 1;
/// What a digest adds to a batch's body.
const DIGEST_BYTES: usize = 16;
/// Stands in until the collector has told its own: nothing is digested before.
const NO_KEY: UniqueKey = UniqueKey { id: 0, key: [0; 32] };

/// What an opening's journal is made of, besides its events.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) opening: OpeningId,
    /// The stream that its events go to.
    pub(super) to: StreamId,
    /// Where the journal will be.
    pub(super) place: PathBuf,
    pub(super) ledger: Option<LedgerId>,
    pub(super) salt: Option<[u8; 32]>,
    pub(super) posted_below: u64,
}

/// The journal of one opening in the making.
#[derive(Debug)]
pub(super) struct Opening {
    origin: Origin,
    making: PathBuf,
    carrier: Carrier,
    accepted: u64,
    skipped: u64,
    whole: u64,
    missing: u64,
    batch: Option<Batch>,
    group: Option<Group>,
    /// Groups of chunks so far.
    groups: u64,
}

/// An opening whose journal is complete.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) opening: OpeningId,
    /// `None`: nothing of it is to be imported.
    pub(super) journal: Option<PathBuf>,
    /// Events that this export has for it.
    pub(super) accepted: u64,
    /// The journal is that of an import before this one, of other rows.
    pub(super) differs: bool,
    /// Events that were posted before.
    pub(super) skipped: u64,
    /// Events of batches that are posted in part.
    pub(super) whole: u64,
    /// Events that the exported journal had lost, of those that are not posted.
    pub(super) missing: u64,
}

/// A sealed batch, until its last line.
#[derive(Debug)]
struct Batch {
    sequence: u64,
    rules: RulesVersion,
    first: u64,
    end: u64,
    salt: [u8; 32],
    lines: Vec<Line>,
    id_key: u16,
    ids: Vec<LineId>,
}

/// Events that will be one batch.
#[derive(Debug)]
struct Group {
    rules: RulesVersion,
    unique_key: u16,
    batch: OpenBatch,
    /// Packs the events, where they cannot be sealed yet.
    chunk: Option<ChunkWriter>,
    /// A chunk of it is in the journal.
    begun: bool,
    /// Values that will be digests.
    raw_uniques: usize,
    /// Ids that lines of their own will have, and what these will take at most.
    raw_ids: usize,
    raw_id_bytes: usize,
    oldest: Timestamp,
}

impl Opening {
    pub(super) fn begin(config: &Config, origin: Origin) -> Result<Self, OpenError> {
        let making = origin.place.with_extension("making");
        remove_if_there(&making)?;
        let options = journal_options(config, &making);
        let start = Timestamp(0);
        let fresh = FreshIds { stream: origin.to, opening: origin.opening };
        let (journal, _) = Journal::open(options, fresh, start, Duration::ZERO)?;
        let mut carrier = Carrier::new(journal, start);
        if let Some(ledger) = origin.ledger {
            carrier.pin(ledger, None, NO_KEY)?;
        }
        Ok(Self {
            origin,
            making,
            carrier,
            accepted: 0,
            skipped: 0,
            whole: 0,
            missing: 0,
            batch: None,
            group: None,
            groups: 0,
        })
    }

    pub(super) fn missing(&mut self, first: u64, end: u64) -> Result<(), RowError> {
        self.end_batch()?;
        let unposted = end.saturating_sub(first.max(self.origin.posted_below));
        self.missing = self.missing.saturating_add(unposted);
        Ok(())
    }

    pub(super) fn event(&mut self, row: &EventRow) -> Result<(), RowError> {
        self.end_batch()?;
        if row.event < self.origin.posted_below {
            self.skipped = self.skipped.saturating_add(1);
            return Ok(());
        }
        let (rules, unique_key) = (RulesVersion(row.rules), row.unique_key);
        if self.group.as_ref().is_some_and(|group| !group.takes(rules, unique_key)) {
            self.end_group()?;
        }
        // A batch does not overtake events that wait for rules.
        let waits = rules == RulesVersion(0) || self.groups > 0;
        let group = self.group.get_or_insert_with(|| Group::new(rules, unique_key, waits));
        group.add(row)?;
        match group.chunk.as_ref().is_some_and(ChunkWriter::is_full) {
            true => self.end_chunk(),
            false => Ok(()),
        }
    }

    pub(super) fn line(&mut self, row: LineRow) -> Result<(), RowError> {
        if self.batch.as_ref().is_some_and(|batch| batch.sequence != row.sequence) {
            self.end_batch()?;
        }
        let salt = hex::decode_array(&row.salt).ok_or_else(bad("salt"))?;
        let batch = self.batch.get_or_insert_with(|| Batch {
            sequence: row.sequence,
            rules: RulesVersion(row.rules),
            first: row.first_event,
            end: row.end_event,
            salt,
            lines: Vec::new(),
            id_key: 0,
            ids: Vec::new(),
        });
        if let Some(id) = &row.id {
            let id = KeyedId(hex::decode_array(id).ok_or_else(bad("id"))?);
            let line = u32::try_from(batch.lines.len()).map_err(|_| bad("number of lines")())?;
            batch.id_key = row.id_key.filter(|key| *key > 0).ok_or_else(bad("id_key"))?;
            batch.ids.push(LineId { line, id });
        }
        batch.lines.push(read_line(&row)?);
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), RowError> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        let Batch { rules, first, end, salt, lines, id_key, ids, .. } = batch;
        let events = end.saturating_sub(first);
        if end <= self.origin.posted_below {
            self.skipped = self.skipped.saturating_add(events);
        } else if first < self.origin.posted_below {
            self.whole = self.whole.saturating_add(events);
        } else {
            self.origin.ledger.ok_or_else(bad("ledger"))?;
            let times = lines.iter().map(|line| line.key.bucket.start());
            let oldest = times.min().unwrap_or(Timestamp(0));
            let carried = self.carried(rules, events, oldest)?;
            let mut extras = Extras::default();
            extras.set_line_ids(id_key, &ids);
            self.carrier.batch(carried, salt, extras, &lines)?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), RowError> {
        self.end_chunk()?;
        let Some(Group { rules, batch, chunk, oldest, .. }) = self.group.take() else {
            return Ok(());
        };
        if chunk.is_some() {
            return Ok(());
        }
        let salt = self.salt()?;
        let carried = self.carried(rules, batch.events(), oldest)?;
        let body = batch.encode(salt, &carried.evidence);
        self.carrier.sealed(carried, body.map_err(|error| RowError::Row(error.to_string()))?)?;
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), RowError> {
        let Some(group) = &mut self.group else { return Ok(()) };
        let (rules, oldest) = (group.rules, group.oldest);
        let Some(chunk) = group.chunk.as_mut().and_then(ChunkWriter::take) else { return Ok(()) };
        let is_first = !std::mem::replace(&mut group.begun, true);
        self.groups = self.groups.saturating_add(u64::from(is_first));
        let carried = self.carried(rules, u64::from(chunk.events), oldest)?;
        let payload = zstd::bulk::compress(&chunk.bytes, CHUNK_ZSTD_LEVEL)
            .map_err(|error| RowError::Import(ImportError::Pack(error)))?;
        self.carrier.chunk(self.groups, carried, payload)?;
        Ok(())
    }

    /// The salt of the next batch: nobody else can guess it, and every import makes the same.
    fn salt(&self) -> Result<[u8; 32], RowError> {
        self.origin.ledger.ok_or_else(bad("ledger"))?;
        let salt = self.origin.salt.ok_or_else(bad("salt"))?;
        let (stream, event) = (self.origin.to.0, self.accepted.to_be_bytes());
        Ok(hashed(b"tidemark/import-salt/1", &[&salt, &stream, &event]))
    }

    fn carried(
        &mut self,
        rules: RulesVersion,
        events: u64,
        oldest: Timestamp,
    ) -> Result<Carried, RowError> {
        self.accepted = self.accepted.saturating_add(events);
        let mut evidence = Evidence::default();
        evidence.set_max(EvidenceCode::Accepted, self.accepted);
        let events = u32::try_from(events).map_err(|_| bad("number of events")())?;
        Ok(Carried { opening: self.origin.opening, rules, events, oldest, evidence })
    }

    /// Puts the journal in its place, unless one is there, or there is nothing for it.
    pub(super) fn finish(mut self) -> Result<Filled, RowError> {
        self.end_batch()?;
        self.end_group()?;
        let Origin { opening, place, .. } = self.origin;
        let made = self.carrier.finish()?;
        assert_eq!(
            made.accepted, self.accepted,
            "every event that is to be imported is in the journal"
        );
        let is_there = place.exists();
        let differs = is_there && !holds_the_same(&place, &made)?;
        if is_there || made.accepted == 0 {
            remove_if_there(&self.making)?;
        } else {
            fs::rename(&self.making, &place).map_err(|source| OpenError::Io {
                act: "put in place",
                path: self.making.clone(),
                source,
            })?;
            sync_folder_of(&place)?;
        }
        Ok(Filled {
            opening,
            journal: Some(place).filter(|_| is_there || made.accepted > 0),
            accepted: self.accepted,
            differs,
            skipped: self.skipped,
            whole: self.whole,
            missing: self.missing,
        })
    }
}

/// Whether the journal at `place` was made of the same rows. What was not sealed yet is compared by its number.
fn holds_the_same(place: &Path, made: &JournalState) -> Result<bool, RowError> {
    let held = match Leftover::open(place) {
        Ok(held) => held,
        // Whoever ships it finds that out.
        Err(OpenError::Held { .. }) => return Ok(true),
        Err(source) => {
            let path = place.to_owned();
            return Err(RowError::Import(ImportError::WorkingFile { path, source }));
        }
    };
    let waits = made.events_in_chunks > 0;
    let sealed = (held.sealed_sequence, held.sealed_digest);
    Ok(held.accepted == made.accepted
        && (waits || sealed == (made.sealed_sequence, made.sealed_digest)))
}

impl Group {
    fn new(rules: RulesVersion, unique_key: u16, waits: bool) -> Self {
        Self {
            rules,
            unique_key,
            batch: OpenBatch::new(unique_key),
            chunk: waits.then(|| ChunkWriter::new(unique_key)),
            begun: false,
            raw_uniques: 0,
            raw_ids: 0,
            raw_id_bytes: 0,
            oldest: Timestamp(i64::MAX),
        }
    }

    fn takes(&self, rules: RulesVersion, unique_key: u16) -> bool {
        let uniques = self.raw_uniques.saturating_mul(DIGEST_BYTES);
        let later = uniques.saturating_add(self.raw_id_bytes);
        (self.rules, self.unique_key) == (rules, unique_key)
            && self.batch.id_events().max(self.raw_ids) < ID_EVENTS_MAX
            && self.batch.events() < EVENTS_PER_GROUP_MAX
            && self.batch.raw_bytes().saturating_add(later) < OPEN_BODY_BYTES_MAX
    }

    fn add(&mut self, row: &EventRow) -> Result<(), RowError> {
        let time = read_time(&row.time).ok_or_else(bad("time"))?;
        let (meter, customer, dimensions) =
            read_series(&row.meter, &row.customer, &row.dimensions)?;
        let pairs: Vec<(&str, &str)> = dimensions.iter().collect();
        let series = series_bytes(meter.as_str(), customer.as_str(), &pairs);
        let quantity = row.quantity.as_deref().map(read_quantity);
        let quantity = quantity.map(|read| read.ok_or_else(bad("quantity"))).transpose()?;
        let digest = match (&row.unique, &row.unique_digest, self.unique_key) {
            (None, Some(digest), 1..) => {
                Some(hex::decode_array(digest).ok_or_else(bad("unique_digest"))?)
            }
            (None, None, _) => None,
            (Some(_), None, 0) if self.chunk.is_some() => None,
            _ => return Err(bad("unique value")()),
        };
        if quantity.is_none() && digest.is_none() && row.unique.is_none() {
            return Err(bad("quantity")());
        }
        let slot = self.batch.slot(&series);
        let amount = Amount { quantity, unique: digest };
        let id = self.id(row)?;
        match id {
            Some(RecordId::Keyed(id)) => self.batch.add_alone(slot, time, amount, id),
            Some(RecordId::Raw(_)) => {
                self.raw_ids = self.raw_ids.saturating_add(1);
                self.raw_id_bytes = self.raw_id_bytes.saturating_add(id_event_bytes(series.len()));
                self.batch.add(slot, time, amount);
            }
            None => self.batch.add(slot, time, amount),
        }
        if let Some(chunk) = &mut self.chunk {
            let raw = row.unique.as_deref();
            self.raw_uniques = self.raw_uniques.saturating_add(usize::from(raw.is_some()));
            let unique = raw.map(Unique::Raw).or(digest.map(Unique::Digest));
            chunk.record(&Record { slot, time, quantity, unique, id }, &series);
        }
        self.oldest = self.oldest.min(time);
        Ok(())
    }
    fn id(&self, row: &EventRow) -> Result<Option<RecordId>, RowError> {
        let Some(id) = &row.id else { return Ok(None) };
        let id = hex::decode_array(id).ok_or_else(bad("id"))?;
        match (self.unique_key, row.id_number) {
            (1.., None) => Ok(Some(RecordId::Keyed(KeyedId(id)))),
            (0, Some(number)) if self.chunk.is_some() => {
                Ok(Some(RecordId::Raw(NumberedId { id, number })))
            }
            _ => Err(bad("id")()),
        }
    }
}
