//! `tidemark-collector restore-from-archive`: a ledger made of an archive, and of an older ledger or backup where there is one.
//!
//! ```text
//! the older one, all of it -> the archive, object by object: batches that it lacks, in their order; what transactions put;
//! rows of streams -> everything checked, as fsck does -> the files take their names (restore.rs)
//! ```
//! **Owns** how the two come together. **Does not own** the files' names (`restore.rs`), or their writing
//! (`ledger/redb/import.rs`).
//!
//! Invariants: a batch is known by its stream and sequence, and continues its stream's chain; a transaction by its number.
//! Where both hold the same one, it is the same, or nothing is restored: the ledger was forked. Up to where positions in the
//! ledger are those in the archive, its batches count as archived; the others are archived again.
//!
//! Limits: memory holds every stream's state, and 8 bytes for each batch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tidemark_common::hex;
use tidemark_common::id::{Digest, LedgerId, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

use super::bodies::ArchivedBodies;
use super::manifest::{Kind, Manifest};
use super::read::Archive;
use super::segment::{ArchivedBatch, Put, Puts};
use super::{ArchiveError, Identity};
use crate::backup::manifest::Manifest as BackupManifest;
use crate::dedupe::{self, Content};
use crate::fsck;
use crate::ledger::archived::ArchiveNote;
use crate::ledger::books::rows::DOCUMENTS;
use crate::ledger::check::{CheckedBatch, LedgerTable};
use crate::ledger::codec;
use crate::ledger::redb::{
    ARCHIVE_LEFT, ARCHIVE_MEANS, ARCHIVE_NOTE, FORMAT_WITH_ARCHIVE, Import, RETIRED_SUMS,
    RedbOptions, Restored,
};
use crate::ledger::request::{Opened, Stored};
use crate::ledger::stream::StreamRecord;
use crate::restore::{self, RestoreError, Used};

/// Which incarnations were given to ledgers restored from it.
const RESTORES: &str = "restores";

/// A restored ledger.
#[derive(Debug)]
pub struct Report {
    pub ledger: LedgerId,
    /// What it began with.
    pub base: Option<BackupManifest>,
    /// Manifests of the archive.
    pub objects: u64,
    pub batches: u64,
    /// Of these, what the archive alone had.
    pub found_batches: u64,
    pub found_documents: u64,
    pub entries: u64,
    pub restored: Restored,
}

impl Report {
    /// What was done and what to look at next, for people.
    #[must_use]
    pub fn told(&self, data_dir: &Path) -> String {
        let Self {
            ledger,
            objects,
            batches,
            found_batches,
            found_documents,
            entries,
            restored,
            base,
        } = self;
        let began = match base {
            Some(base) => format!("began with {}\n", base.told()),
            None => String::new(),
        };
        format!(
            "{began}restored into {}: ledger {ledger}, {batches} batches and {entries} entries; of these the archive's {objects} objects alone had \
             {found_batches} batches and {found_documents} documents\nits next incarnation is above {}: nothing of the lost ledger is taken for its own\n\
             next: start the collector with this archive; agents send again what they retain. GET /v1/streams names the streams that were not \
             heard of since\n",
            data_dir.display(),
            restored.incarnation
        )
    }
}

/// Makes a ledger in `data_dir` of the archive, beginning with the backup or ledger in `base`.
///
/// # Errors
/// See [`RestoreError`]; there is no ledger in `data_dir` then.
pub fn restore(
    archive: &Archive,
    base: Option<&Path>,
    data_dir: &Path,
    used: Used,
    now: Timestamp,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Report, RestoreError> {
    if archive.is_empty() {
        return Err(RestoreError::NoArchive { place: archive.store().place() });
    }
    restore::into_place(data_dir, |restoring| {
        let report = make(archive, base, restoring, used, now, progress)?;
        let checked = fsck::run(restoring, None, None, progress);
        let checked =
            checked.map_err(|error| RestoreError::Unchecked { reason: error.to_string() })?;
        if !checked.is_sound() {
            return Err(RestoreError::Merged(checked.findings));
        }
        Ok(report)
    })
}

fn make(
    archive: &Archive,
    base: Option<&Path>,
    restoring: &Path,
    used: Used,
    now: Timestamp,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Report, RestoreError> {
    let mut merge = Merge::new(Import::begin(restoring, &RedbOptions::default())?);
    let bodies = Arc::new(ArchivedBodies::new(archive.shared_store()));
    let base_manifest = base.map(|base| merge.take_base(base, bodies, progress)).transpose()?;
    let had = merge.positions.len();
    let mut manifests = archive.manifests();
    let mut last: Option<Manifest> = None;
    while let Some(manifest) = manifests.next().transpose()? {
        merge.take_object(archive, &manifest)?;
        merge.is_of_this(manifest.number, manifests.digest())?;
        last = Some(manifest);
    }
    let last = last.ok_or_else(|| RestoreError::NoArchive { place: archive.store().place() })?;
    merge.is_as_long(last.number)?;
    let limit = used.ledger_time.max(merge.ledger_time_limit);
    restore::refuse_leap(limit, now, used)?;
    let given = given_before(archive)?;
    let noted = base.map_or(0, restore::noted);
    let highest = merge.incarnation.max(used.incarnation).max(given).max(noted);
    let restored = Restored {
        incarnation: restore::incarnation_above(highest, now).ok_or(RestoreError::Incarnations)?,
        at: restore::begins_at(limit, now),
    };
    note_given(archive, restored)?;
    let note = ArchiveNote {
        objects: last.number,
        digest: manifests.digest().to_owned(),
        position: merge.agree,
        books: merge.archived_books,
        entries: last.entries,
        // All rows of streams are archived again.
        ..ArchiveNote::default()
    };
    let report = Report {
        ledger: merge.ledger()?,
        base: base_manifest,
        objects: last.number,
        batches: count(merge.positions.len()),
        found_batches: count(merge.positions.len().saturating_sub(had)),
        found_documents: merge.found_documents,
        entries: merge.entries.max(last.entries),
        restored,
    };
    merge.finish(&note, restored)?;
    Ok(report)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The highest incarnation that was given to a ledger restored from this archive.
fn given_before(archive: &Archive) -> Result<u32, ArchiveError> {
    let names = archive.store().list(RESTORES)?;
    let given = |name: &String| {
        name.strip_prefix(RESTORES)?.strip_prefix('/')?.strip_suffix(".json")?.parse().ok()
    };
    Ok(names.iter().filter_map(given).max().unwrap_or(0))
}

/// Durable before the ledger that it tells of can be started.
fn note_given(archive: &Archive, restored: Restored) -> Result<(), ArchiveError> {
    let Restored { incarnation, at } = restored;
    let text = format!("{{\"incarnation\":{incarnation},\"at\":{}}}\n", at.0);
    let name = format!("{RESTORES}/{incarnation:010}.json");
    archive.store().put_new(&name, text.as_bytes()).map(drop)
}

/// The ledger in the making.
struct Merge {
    import: Import,
    ledger: Option<LedgerId>,
    format: u16,
    incarnation: u32,
    ledger_time_limit: Timestamp,
    streams: BTreeMap<StreamId, StreamRecord>,
    /// By position: the beginning of each batch's digest.
    positions: Vec<u64>,
    /// Before this position, what the archive said last of each one is what stands there.
    agree: u64,
    /// The number of the first transaction that it lacks; of the first that the archive does.
    books: u64,
    archived_books: u64,
    /// What the older ledger notes for the archive.
    noted: BTreeMap<u64, Vec<u8>>,
    entries: u64,
    found_documents: u64,
    /// How far the older one has written the archive: manifests, and the last one's digest.
    base_note: Option<(u64, String)>,
}

impl Merge {
    fn new(import: Import) -> Self {
        let first = ArchiveNote::default().books;
        Self {
            import,
            ledger: None,
            format: FORMAT_WITH_ARCHIVE,
            incarnation: 0,
            ledger_time_limit: Timestamp(0),
            streams: BTreeMap::new(),
            positions: Vec::new(),
            agree: 0,
            books: first,
            archived_books: first,
            noted: BTreeMap::new(),
            entries: 0,
            found_documents: 0,
            base_note: None,
        }
    }

    /// The archive is the one that the older ledger has written.
    fn is_of_this(&self, number: u64, digest: &str) -> Result<(), RestoreError> {
        match &self.base_note {
            Some((objects, held)) if *objects == number && held != digest => {
                let what =
                    format!("its manifest {number} is not the one that the ledger has written");
                Err(RestoreError::Forked { what })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn is_as_long(&self, last: u64) -> Result<(), RestoreError> {
        match &self.base_note {
            Some((objects, _)) if *objects > last => {
                let what =
                    format!("the ledger has written {objects} manifests, and there are {last}");
                Err(RestoreError::Forked { what })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn ledger(&self) -> Result<LedgerId, RestoreError> {
        self.ledger.ok_or(RestoreError::Forked {
            what: "it does not say which ledger it is of".to_owned(),
        })
    }

    /// All that the older one holds.
    fn take_base(
        &mut self,
        base: &Path,
        bodies: Arc<ArchivedBodies>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<BackupManifest, RestoreError> {
        let mut note: Option<ArchiveNote> = None;
        let (manifest, checked) =
            restore::read(base, Some(bodies), progress, &mut |table, key, value, batch| {
                match table {
                    LedgerTable::Meta if key == ARCHIVE_NOTE => {
                        note = serde_json::from_slice(value).ok()
                    }
                    LedgerTable::Meta => self.take_meta(key, value)?,
                    // Those that retired are live until they retire again.
                    LedgerTable::Streams | LedgerTable::Retired => {
                        let record = codec::read_stream(value).map_err(RestoreError::row)?;
                        self.streams.insert(record.stream, record);
                    }
                    LedgerTable::Redo => {
                        if let Some(number) = codec::Fields(key).u64() {
                            self.noted.insert(number, value.to_vec());
                        }
                    }
                    // What was booked before it had an archive is in the archive's first objects.
                    LedgerTable::Books if note.is_none() => {}
                    LedgerTable::Openings
                    | LedgerTable::Quarantine
                    | LedgerTable::Marks
                    | LedgerTable::Ids
                    | LedgerTable::Suppressed
                    | LedgerTable::Books => self.import.row(table, key, value)?,
                    LedgerTable::Batches => {
                        let fetched = batch.as_ref().and_then(|batch| batch.fetched.as_deref());
                        self.import.row(table, key, fetched.unwrap_or(value))?;
                        if let Some(batch) = batch {
                            self.take_checked(batch)?;
                        }
                    }
                }
                Ok(())
            })?;
        if checked.findings.count() > 0 {
            return Err(RestoreError::Unsound(checked.findings));
        }
        restore::refuse_left(&checked)?;
        if let Some(note) = note {
            let last = self.noted.last_key_value().map(|(number, _)| number.saturating_add(1));
            self.books = last.unwrap_or(note.books);
            self.entries = checked.counts.entries;
            self.base_note = Some((note.objects, note.digest)).filter(|(objects, _)| *objects > 0);
        }
        self.incarnation = self.incarnation.max(checked.facts.incarnation);
        self.ledger_time_limit = self.ledger_time_limit.max(Timestamp(checked.facts.clock_limit));
        Ok(manifest)
    }

    fn take_meta(&mut self, name: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let mut fields = codec::Fields(value);
        match name {
            b"ledger" => self.ledger = fields.array().map(LedgerId),
            b"format" => {
                let format = fields.array().map_or(0, u16::from_be_bytes);
                self.format = self.format.max(format);
                return Ok(());
            }
            // Said anew at the end.
            b"checkpoint" => return Ok(()),
            name if name == ARCHIVE_MEANS || name == ARCHIVE_LEFT => return Ok(()),
            // No stream is retired in it.
            name if name == RETIRED_SUMS => return Ok(()),
            _ => {}
        }
        Ok(self.import.row(LedgerTable::Meta, name, value)?)
    }

    /// A batch of the older one, which was checked.
    fn take_checked(&mut self, batch: CheckedBatch) -> Result<(), RestoreError> {
        let (header, digest) = (batch.header, batch.header.digest());
        if let (Some(record), Some(opened)) = (self.streams.get_mut(&header.stream), &batch.opened)
            && header.sequence > record.posted_sequence
        {
            advance(record, &header, digest, opened);
        }
        self.positions.push(short(&digest));
        Ok(self.import.fold(batch)?)
    }

    fn take_object(&mut self, archive: &Archive, manifest: &Manifest) -> Result<(), RestoreError> {
        self.incarnation = self.incarnation.max(manifest.incarnation);
        self.ledger_time_limit = self.ledger_time_limit.max(Timestamp(manifest.ledger_time_limit));
        match manifest.kind {
            Kind::Ledger => self.take_identity(manifest, &archive.object(manifest)?),
            Kind::Batches => {
                let mut records = archive.records(manifest)?;
                while let Some(batch) = records.batch()? {
                    self.take_batch(batch)?;
                }
                Ok(())
            }
            Kind::Books => {
                let mut records = archive.records(manifest)?;
                while let Some((number, puts)) = records.puts()? {
                    self.take_puts(number, puts)?;
                }
                Ok(())
            }
            // Nothing is made of them.
            Kind::Events => Ok(()),
            Kind::Streams => {
                let mut records = archive.records(manifest)?;
                while let Some(row) = records.row()? {
                    self.take_stream(&row)?;
                }
                Ok(())
            }
        }
    }

    fn take_identity(&mut self, manifest: &Manifest, object: &[u8]) -> Result<(), RestoreError> {
        let broken = |reason: &str| ArchiveError::damaged(&manifest.object, reason);
        let identity: Identity =
            serde_json::from_slice(object).map_err(|error| broken(&error.to_string()))?;
        let id = hex::decode_array(&identity.ledger).ok_or_else(|| broken("it names no ledger"))?;
        let key: [u8; 32] =
            hex::decode_array(&identity.unique_key).ok_or_else(|| broken("it has no key"))?;
        match self.ledger {
            Some(ledger) if ledger != LedgerId(id) => {
                return Err(RestoreError::Forked {
                    what: format!(
                        "it is of ledger {ledger}, and the archive of {}",
                        identity.ledger
                    ),
                });
            }
            Some(_) => {}
            None => {
                self.take_meta(b"ledger", &id)?;
                self.take_meta(b"unique_key", &key)?;
            }
        }
        self.format = self.format.max(identity.ledger_format);
        Ok(())
    }

    /// A batch of the archive: it is there already, or is the next of its stream.
    fn take_batch(&mut self, batch: ArchivedBatch) -> Result<(), RestoreError> {
        let (header, digest, ledger) = (batch.header, batch.header.digest(), self.ledger()?);
        let (stream, sequence) = (header.stream, header.sequence);
        let forked = |what: &str| RestoreError::Forked {
            what: format!("stream {stream}, batch {sequence}: {what}"),
        };
        let agent =
            AgentName::parse_identity(&batch.agent).map_err(|error| forked(&error.to_string()))?;
        let record = self.streams.entry(stream);
        let record =
            record.or_insert_with(|| StreamRecord::new(stream, agent, ledger, Timestamp(0)));
        if sequence > record.posted_sequence.next() {
            return Err(forked("the archive lacks the batches before"));
        }
        if sequence == record.posted_sequence && digest != record.posted_digest {
            return Err(forked("there are two of this number"));
        }
        let (position, archived_at) = (count(self.positions.len()), batch.position);
        if sequence > record.posted_sequence {
            if header.previous != record.posted_digest {
                return Err(forked("it does not continue the batch before"));
            }
            let opened = open(&batch).map_err(|what| forked(&what))?;
            advance(record, &header, digest, &opened);
            let agent = Some(record.agent.clone());
            let key = position.to_be_bytes();
            self.import.row(LedgerTable::Batches, &key, &batch.bytes)?;
            if !batch.marks.is_empty() {
                self.import.row(LedgerTable::Marks, &key, &batch.marks)?;
            }
            let suppressed = batch.suppressed().map_err(forked)?;
            if !suppressed.is_empty() {
                self.import.row(LedgerTable::Suppressed, &key, suppressed)?;
            }
            if let Some(reason) = &batch.quarantined {
                self.import.row(LedgerTable::Quarantine, &key, reason.as_bytes())?;
            }
            self.positions.push(short(&digest));
            let opened = Some(opened);
            self.import.fold(CheckedBatch { header, position, agent, opened, fetched: None })?;
        }
        self.agree = self.agree.min(archived_at);
        let there = usize::try_from(archived_at).ok().and_then(|at| self.positions.get(at));
        if archived_at == self.agree && there == Some(&short(&digest)) {
            self.agree = self.agree.saturating_add(1);
        }
        Ok(())
    }

    /// What a transaction put.
    fn take_puts(&mut self, number: u64, puts: Puts) -> Result<(), RestoreError> {
        self.archived_books = number.saturating_add(1);
        if let Some(noted) = self.noted.remove(&number)
            && noted != puts.encode()
        {
            let what = format!("transaction {number} of the books is another one");
            return Err(RestoreError::Forked { what });
        }
        if number < self.books {
            return Ok(());
        }
        self.books = self.archived_books;
        for Put { table, key, value } in puts.0 {
            let known = LedgerTable::from_number(table);
            match (known, value) {
                (
                    Some(table @ (LedgerTable::Books | LedgerTable::Openings | LedgerTable::Ids)),
                    Some(value),
                ) => {
                    if key.starts_with(DOCUMENTS) && table == LedgerTable::Books {
                        self.found_documents = self.found_documents.saturating_add(1);
                    }
                    self.import.row(table, &key, &value)?;
                }
                (Some(LedgerTable::Books), None) => self.import.remove_book(&key)?,
                _ => {
                    let what = format!(
                        "transaction {number} puts into a table that this version does not know"
                    );
                    return Err(RestoreError::Forked { what });
                }
            }
        }
        Ok(())
    }

    /// A stream as it was: its batches up to then are there.
    fn take_stream(&mut self, row: &[u8]) -> Result<(), RestoreError> {
        let found = codec::read_stream(row).map_err(RestoreError::row)?;
        let Some(held) = self.streams.get_mut(&found.stream) else {
            self.streams.insert(found.stream, found);
            return Ok(());
        };
        let is_as_far = held.posted_sequence == found.posted_sequence;
        if is_as_far && held.last_heard <= found.last_heard {
            let openings = std::mem::take(&mut held.openings);
            *held = StreamRecord { openings, ..found };
        } else if held.posted_sequence < found.posted_sequence {
            let what = format!("stream {}: the archive lacks batches before its row", found.stream);
            return Err(RestoreError::Forked { what });
        }
        Ok(())
    }

    fn finish(mut self, note: &ArchiveNote, restored: Restored) -> Result<(), RestoreError> {
        for record in self.streams.values() {
            let older = record.openings.len().saturating_sub(1);
            for opening in record.openings.iter().take(older) {
                let key = codec::opening_key(record.stream, opening.opening);
                self.import.row(LedgerTable::Openings, &key, &opening.end.0.to_be_bytes())?;
            }
            let row = codec::write_stream(record).map_err(RestoreError::row)?;
            self.import.row(LedgerTable::Streams, &record.stream.0, &row)?;
        }
        for (number, puts) in self.noted.range(self.archived_books..) {
            self.import.row(LedgerTable::Redo, &number.to_be_bytes(), puts)?;
        }
        let note = serde_json::to_vec(note).expect("texts and numbers are JSON");
        let checkpoint = count(self.positions.len()).to_be_bytes();
        for (name, value) in [
            (&b"format"[..], &self.format.to_be_bytes()[..]),
            (b"checkpoint", &checkpoint),
            (ARCHIVE_NOTE, &note),
        ] {
            self.import.row(LedgerTable::Meta, name, value)?;
        }
        Ok(self.import.finish(restored)?)
    }
}

/// Opens a batch as it was judged when it was admitted.
pub(super) fn open(batch: &ArchivedBatch) -> Result<Opened, String> {
    if let Some(reason) = &batch.quarantined {
        return Ok(Opened::Quarantined(reason.clone()));
    }
    let stored = Stored { marks: &batch.marks, suppressed: batch.suppressed()? };
    match Opened::read(&batch.header, &batch.bytes, stored) {
        Ok(Opened::Quarantined(reason)) => Err(reason),
        Ok(opened) => Ok(opened),
        Err(error) => Err(error.to_string()),
    }
}

fn advance(
    record: &mut StreamRecord,
    header: &tidemark_common::batch::Header,
    digest: Digest,
    opened: &Opened,
) {
    let content = match opened {
        Opened::Readable { evidence, .. } => Content::Posted(evidence),
        Opened::Quarantined(_) => Content::Quarantined,
    };
    let heard = record.last_heard;
    dedupe::record(record, header, digest, content, heard);
}

fn short(digest: &Digest) -> u64 {
    digest.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
