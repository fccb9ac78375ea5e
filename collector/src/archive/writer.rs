//! The task that writes the archive.
//!
//! ```text
//! compare once: the ledger's note, and the manifest after it          Current | Behind | Unknown (tried again)
//! a turn:   what there is as of one commit -> batches, then books, then streams, then raw events, object by object:
//!           object -> the ledger means this manifest -> manifest -> the ledger's note moves
//! ```
//! **Owns** this order. **Does not own** the rows (`ledger/redb/archive.rs`), or what is refused meanwhile
//! (`ledger/archived.rs`).
//!
//! Batches go before the books of the same commit or earlier, so that an archive never holds an invoice without the usage that
//! it was made of. The manifest that the ledger means is known again after a crash, by its bytes: one that is there and was not meant
//! is of another ledger, or of what this one has lost.
//!
//! Limits: an object is gathered in memory; rows of streams are archived at most every [`STREAMS_EVERY`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tidemark_common::hex;
use tidemark_common::id::StreamId;
use tidemark_common::wire::EventsPiece;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::documents::{Copies, entries_after};
use super::events::{Desk, EventsIndex, IndexError, Kept, RawEvents, Row};
use super::manifest::{FORMAT, Kind, Manifest, NO_DIGEST, digest, manifest_name, object_name};
use super::read::records;
use super::retention::{self, May, Next};
use super::segment::{ArchivedPiece, Puts, SegmentError, SegmentWriter, encode_books};
use super::store::{ArchiveStore, Made, put_same};
use super::{ArchiveError, Identity};
use crate::ledger::archived::{ArchiveNote, ArchiveState, ArchiveStep, ChangedStreams, Unarchived};
use crate::ledger::redb::{ArchiveFacts, FORMAT_WITH_ARCHIVE, RedbStore};
use crate::ledger::store::StoreError;
use crate::ledger::{Ledger, LedgerError};

/// How often rows of streams are archived: their confirmations come every few seconds, and say little new.
const STREAMS_EVERY: Duration = Duration::from_secs(600);
/// How often bodies are looked at that may leave the ledger.
const LEAVING_EVERY: Duration = Duration::from_secs(3_600);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The index of raw events looks at so many manifests in a turn, so that it holds nothing else up.
const INDEXED_MAX: u64 = 64;

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterOptions {
    pub every: Duration,
    pub segment_bytes: usize,
    /// Bodies leave the ledger once they are this old and their periods are closed; `None`: they stay.
    pub bodies_leave_after: Option<Duration>,
}

/// Failed to archive.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WriteError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("failed to archive: {0}")]
    Store(#[from] StoreError),
    #[error("failed to archive: {0}")]
    Ledger(#[from] LedgerError),
    #[error("failed to archive: {0}")]
    Segment(#[from] SegmentError),
    #[error("failed to archive: what is to be archived cannot be read: a transaction {0}")]
    Puts(&'static str),
    #[error(
        "{name} in {place} is not the one that this ledger has written: name the right archive"
    )]
    NotOurs { name: String, place: String },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("failed to archive: writing it ended in a panic, told above")]
    Panicked,
}

/// The writer of one ledger's archive.
#[derive(Debug)]
pub struct ArchiveWriter {
    ledger: Ledger,
    store: RedbStore,
    archive: Arc<dyn ArchiveStore>,
    options: WriterOptions,
    /// How far it is written; `None` until it was compared.
    note: Option<ArchiveNote>,
    /// Rows that are taken and not archived yet.
    streams: BTreeMap<StreamId, Vec<u8>>,
    streams_due: Option<Instant>,
    leaving_due: Option<Instant>,
    events: Option<Events>,
}

/// Raw events on their way, where they are archived.
#[derive(Debug)]
struct Events {
    desk: Arc<Desk>,
    index: Arc<EventsIndex>,
    /// Taken from the desk, and not archived yet.
    taken: Vec<Kept>,
}

/// What an object holds, as far as its manifest tells.
struct Content {
    kind: Kind,
    object: Vec<u8>,
    count: u64,
    first: u64,
    last: u64,
    events: u64,
    entries: u64,
}

impl ArchiveWriter {
    /// Compares the archive with the ledger. What cannot be compared now is tried again by [`Self::run`]; nothing is
    /// booked until then.
    pub async fn begin(
        ledger: Ledger,
        store: RedbStore,
        archive: Arc<dyn ArchiveStore>,
        options: WriterOptions,
    ) -> Self {
        let mut writer = Self {
            ledger,
            store,
            archive,
            options,
            note: None,
            streams: BTreeMap::new(),
            streams_due: None,
            leaving_due: None,
            events: None,
        };
        let why = "the archive was not read yet".to_owned();
        writer.ledger.tell_archive(ArchiveState::Unknown { why });
        if let Err(error) = writer.compare().await {
            writer.tell_failed(&error);
        }
        writer
    }

    /// Archives raw events too: what the desk holds.
    #[must_use]
    pub fn with_events(self, events: &RawEvents) -> Self {
        let (desk, index) = (Arc::clone(&events.desk), Arc::clone(&events.index));
        Self { events: Some(Events { desk, index, taken: Vec::new() }), ..self }
    }

    /// Writes what there is, at intervals and when somebody waits for it, until `stopping`; then once more.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(self.options.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_last = false;
        loop {
            let ended = self.turn().await;
            if is_last {
                return;
            }
            let desk = self.events.as_ref().map(|events| Arc::clone(&events.desk));
            let wait = async {
                match ended {
                    Ok(Turn::Unfinished) => {}
                    Ok(Turn::Done) => tokio::select! {
                        _ = tick.tick() => {}
                        () = self.ledger.archive_wanted() => {}
                        () = is_full(desk.as_deref()) => {}
                    },
                    Err(_) => tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = self.ledger.archive_wanted() => {}
                    },
                }
            };
            is_last = tokio::select! {
                () = wait => false,
                _stopped = stopping.wait_for(|stopping| *stopping) => true,
            };
            if is_last {
                self.streams_due = None;
            }
        }
    }

    /// Writes all that there is now; tells what came of it.
    ///
    /// # Errors
    /// What stood in the way. It is tried again.
    pub async fn turn(&mut self) -> Result<Turn, WriteError> {
        if matches!(self.ledger.archive_state(), ArchiveState::Behind { .. }) {
            return Ok(Turn::Done);
        }
        let done = self.write_all().await;
        if let Err(error) = &done {
            self.tell_failed(error);
        }
        done
    }

    async fn write_all(&mut self) -> Result<Turn, WriteError> {
        if self.note.is_none() {
            self.compare().await?;
        }
        // Behind: a person has to act.
        if self.note.is_none() {
            return Ok(Turn::Done);
        }
        let (now, at) = (Instant::now(), self.ledger.now());
        let is_due = self.streams_due.is_none_or(|due| due <= now);
        let unarchived = if is_due {
            let (unarchived, ChangedStreams { rows }) = self.store.take_unarchived()?;
            self.streams.extend(rows);
            unarchived
        } else {
            self.store.unarchived()?
        };
        self.write_batches(unarchived).await?;
        self.write_books(unarchived).await?;
        if is_due {
            self.write_streams(u64::try_from(at.0).unwrap_or(0)).await?;
            self.streams_due = now.checked_add(STREAMS_EVERY);
        }
        self.tell_current(None);
        self.ledger.tell_archived_at(at);
        if let Some(age) = self.options.bodies_leave_after
            && self.leaving_due.is_none_or(|due| due <= now)
        {
            self.let_leave(age).await?;
            self.leaving_due = now.checked_add(LEAVING_EVERY);
        }
        while self.write_events().await? {}
        match self.catch_up().await {
            Ok(false) => Ok(Turn::Unfinished),
            Ok(true) => Ok(Turn::Done),
            Err(error) => {
                tracing::error!(%error, "raw events cannot be looked up");
                Ok(Turn::Done)
            }
        }
    }

    /// Lets bodies leave the ledger, object by object, as far as their periods are closed.
    async fn let_leave(&mut self, age: Duration) -> Result<(), WriteError> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let archived = self.note.as_ref().map_or(0, |note| note.position);
        loop {
            let (ledger, store) = (self.ledger.clone(), self.store.clone());
            let archive = Arc::clone(&self.archive);
            let looked = blocking(move || {
                let (left, folded) = store.left_bodies()?;
                let closed = retention::closed_before(&*ledger.books()?, ledger.now(), age)?;
                let end = folded.min(archived);
                retention::next(&*archive, left, |batch| {
                    let header = &batch.header;
                    if batch.position >= end || (header.lines > 0 && header.last_bucket >= closed) {
                        return Ok(May::Wait);
                    }
                    let held = store.batch_at(batch.position)?;
                    Ok(if held.is_some_and(|held| held == batch.bytes) {
                        May::Leave
                    } else {
                        May::Other
                    })
                })
            });
            match looked.await? {
                Next::Nothing => return Ok(()),
                Next::Left(left) => self.ledger.archive_step(ArchiveStep::Leave { left }).await?,
            }
        }
    }

    async fn write_batches(
        &mut self,
        Unarchived { position, .. }: Unarchived,
    ) -> Result<(), WriteError> {
        while let Some(from) =
            self.note.as_ref().map(|note| note.position).filter(|from| *from < position)
        {
            let (store, bytes_max) = (self.store.clone(), self.options.segment_bytes);
            let content = blocking(move || {
                let batches = store.batches_to_archive(from, position, bytes_max)?;
                let mut segment = SegmentWriter::new(Kind::Batches);
                let mut content = Content::empty(Kind::Batches, from);
                for batch in &batches {
                    segment.record(&batch.encode());
                    content.take(batch.position);
                    content.events = content.events.saturating_add(batch.header.events());
                }
                content.object = segment.finish()?;
                Ok(content)
            });
            self.write(content.await?).await?;
        }
        Ok(())
    }

    async fn write_books(
        &mut self,
        Unarchived { books, .. }: Unarchived,
    ) -> Result<(), WriteError> {
        while let Some(note) = self.note.clone().filter(|note| note.books < books) {
            let (store, archive) = (self.store.clone(), Arc::clone(&self.archive));
            let bytes_max = self.options.segment_bytes;
            let content = blocking(move || {
                let mut segment = SegmentWriter::new(Kind::Books);
                let mut content = Content::empty(Kind::Books, note.books);
                content.entries = note.entries;
                let mut copies = Copies::default();
                for (number, puts) in store.puts_to_archive(note.books, books, bytes_max)? {
                    segment.record(&encode_books(number, &puts));
                    content.take(number);
                    let puts = Puts::decode(&puts).map_err(WriteError::Puts)?;
                    content.entries = entries_after(&puts, content.entries);
                    copies.take(&puts);
                }
                copies.write(&*archive)?;
                content.object = segment.finish()?;
                Ok(content)
            });
            self.write(content.await?).await?;
        }
        Ok(())
    }

    /// As they were at ledger time `at`, or later.
    async fn write_streams(&mut self, at: u64) -> Result<(), WriteError> {
        while !self.streams.is_empty() {
            let mut segment = SegmentWriter::new(Kind::Streams);
            let mut content = Content::empty(Kind::Streams, 0);
            let mut written = Vec::new();
            for (stream, row) in &self.streams {
                segment.record(row);
                content.count = content.count.saturating_add(1);
                written.push(*stream);
                if segment.len() >= self.options.segment_bytes {
                    break;
                }
            }
            content.last = at;
            content.object = blocking(move || Ok(segment.finish()?)).await?;
            self.write(content).await?;
            for stream in written {
                self.streams.remove(&stream);
            }
        }
        Ok(())
    }

    /// What the desk holds, one object of it; whether there may be another full one.
    async fn write_events(&mut self) -> Result<bool, WriteError> {
        let Some(events) = &mut self.events else { return Ok(false) };
        if events.taken.is_empty() {
            events.taken = events.desk.take(self.options.segment_bytes);
        }
        if events.taken.is_empty() {
            return Ok(false);
        }
        let (mut segment, mut content) =
            (SegmentWriter::new(Kind::Events), Content::empty(Kind::Events, 0));
        for Kept { stream, piece, .. } in &events.taken {
            let EventsPiece { sequence, index, of, bytes } = piece;
            let (stream, sequence, index, of) = (*stream, *sequence, *index, *of);
            segment.record(&ArchivedPiece { stream, sequence, index, of, bytes }.encode());
            content.count = content.count.saturating_add(1);
        }
        let is_full = segment.len() >= self.options.segment_bytes;
        content.object = segment.finish()?;
        self.write(content).await?;
        let Some(events) = &mut self.events else { return Ok(false) };
        let last = events.taken.last().map_or(0, |kept| kept.ticket);
        events.taken.clear();
        events.desk.archived(last);
        Ok(is_full)
    }

    /// Brings the index of raw events up to what is archived, some manifests of it; whether it is.
    async fn catch_up(&mut self) -> Result<bool, WriteError> {
        let (Some(events), Some(note)) = (&self.events, &self.note) else { return Ok(true) };
        let (index, archive) = (Arc::clone(&events.index), Arc::clone(&self.archive));
        let objects = note.objects;
        blocking(move || {
            let mut seen = index.seen()?.unwrap_or((0, NO_DIGEST.to_owned()));
            if seen.0 > 0
                && archive.get(&manifest_name(seen.0))?.map(|bytes| digest(&bytes)) != Some(seen.1)
            {
                tracing::info!("the index of raw events is of another archive: it is made anew");
                index.clear()?;
                seen.0 = 0;
            }
            let last = objects.min(seen.0.saturating_add(INDEXED_MAX));
            for number in seen.0.saturating_add(1)..=last {
                let name = manifest_name(number);
                let bytes =
                    archive.get(&name)?.ok_or(ArchiveError::Missing { name: name.clone() })?;
                let manifest = Manifest::decode(&name, &bytes)?;
                index.put(&manifest, &digest(&bytes), &rows_of(&*archive, &manifest)?)?;
            }
            Ok(last == objects)
        })
        .await
    }

    /// Writes an object and its manifest, and moves the ledger's note.
    async fn write(&mut self, mut content: Content) -> Result<(), WriteError> {
        let note = self.note.clone().unwrap_or_default();
        if content.kind != Kind::Books {
            content.entries = note.entries;
        }
        let (store, archive) = (self.store.clone(), Arc::clone(&self.archive));
        let before = note.clone();
        let manifest = blocking(move || {
            let manifest = content.describe(&store.archive_facts()?, &before);
            put_same(&*archive, &manifest.object, &content.object)?;
            Ok(manifest)
        });
        let manifest = manifest.await?;
        let encoded = manifest.encode();
        self.ledger.archive_step(ArchiveStep::Mean { manifest: encoded.clone() }).await?;
        let (archive, bytes) = (Arc::clone(&self.archive), encoded.clone());
        let name = manifest_name(manifest.number);
        let put = blocking(move || match archive.put_new(&name, &bytes)? {
            Made::Now => Ok(()),
            Made::Before if archive.get(&name)?.as_deref() == Some(&bytes) => Ok(()),
            Made::Before => Err(ArchiveError::Other { name }.into()),
        });
        put.await?;
        self.wrote(note.after(&manifest, &encoded)).await
    }

    async fn wrote(&mut self, note: ArchiveNote) -> Result<(), WriteError> {
        self.ledger.archive_step(ArchiveStep::Wrote { note: note.clone() }).await?;
        self.note = Some(note);
        self.tell_current(None);
        Ok(())
    }

    /// Finds out whether the archive holds what the ledger does, and no more.
    async fn compare(&mut self) -> Result<(), WriteError> {
        let (store, archive) = (self.store.clone(), Arc::clone(&self.archive));
        let found = blocking(move || {
            let facts = store.archive_facts()?;
            let objects = facts.note.as_ref().map_or(0, |note| note.objects);
            let last = match objects {
                0 => None,
                number => archive.get(&manifest_name(number))?,
            };
            let next = archive.get(&manifest_name(objects.saturating_add(1)))?;
            Ok((facts, last, next))
        });
        let (facts, last, next) = found.await?;
        let place = self.archive.place();
        let why = match &facts.note {
            Some(note)
                if note.objects > 0 && last.as_deref().map(digest) != Some(note.digest.clone()) =>
            {
                return Err(WriteError::NotOurs { name: manifest_name(note.objects), place });
            }
            None if next.is_some() => Some(format!(
                "{place} holds an archive, and this ledger has none: name an empty place, or run `tidemark-collector restore-from-archive`"
            )),
            Some(_) if next.is_some() && next != facts.means => Some(format!(
                "{place} holds what this ledger lacks, since it was restored or is older: stop the collector, move its ledger away, and run `tidemark-collector restore-from-archive --from` that folder"
            )),
            Some(_) | None => None,
        };
        if let Some(why) = why {
            tracing::error!(why, "nothing is booked or archived");
            self.ledger.tell_archive(ArchiveState::Behind { why });
            return Ok(());
        }
        match (facts.note, next) {
            (None, _) => {
                self.ledger.archive_step(ArchiveStep::Begin).await?;
                self.note = Some(ArchiveNote::default());
                self.write_identity().await?;
            }
            // It was written, and the ledger ended before it noted that.
            (Some(note), Some(next)) => {
                let name = manifest_name(note.objects.saturating_add(1));
                let manifest = Manifest::decode(&name, &next)?;
                self.wrote(note.after(&manifest, &next)).await?;
            }
            (Some(note), None) => self.note = Some(note),
        }
        self.tell_current(None);
        Ok(())
    }

    async fn write_identity(&mut self) -> Result<(), WriteError> {
        let identity = Identity {
            ledger: self.ledger.ledger().to_string(),
            ledger_format: FORMAT_WITH_ARCHIVE,
            unique_key: hex::encode(&self.ledger.unique_key().key),
        };
        let mut content = Content::empty(Kind::Ledger, 0);
        content.count = 1;
        content.object = serde_json::to_vec(&identity).expect("texts and numbers are JSON");
        self.write(content).await
    }

    fn tell_failed(&self, error: &WriteError) {
        let why = error.to_string();
        if matches!(error, WriteError::Archive(ArchiveError::Other { .. })) {
            tracing::error!(why, "nothing is booked or archived any more");
            self.ledger.tell_archive(ArchiveState::Behind { why });
        } else if self.note.is_some() {
            tracing::warn!(why, "the archive lags");
            self.tell_current(Some(why));
        } else {
            tracing::error!(why, "nothing is booked until the archive was read");
            self.ledger.tell_archive(ArchiveState::Unknown { why });
        }
    }

    fn tell_current(&self, trouble: Option<String>) {
        let entries = self.note.as_ref().map_or(0, |note| note.entries);
        self.ledger.tell_archive(ArchiveState::Current { entries, trouble });
    }
}

/// Whether a turn has done all that there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Done,
    Unfinished,
}

async fn is_full(desk: Option<&Desk>) {
    match desk {
        Some(desk) => desk.is_full().await,
        None => std::future::pending().await,
    }
}

/// Where pieces of raw events stand in an object; of one that was removed there are none.
fn rows_of(archive: &dyn ArchiveStore, manifest: &Manifest) -> Result<Vec<Row>, ArchiveError> {
    let mut rows = Vec::new();
    if manifest.kind != Kind::Events {
        return Ok(rows);
    }
    match records(archive, manifest) {
        Err(ArchiveError::Missing { .. }) => {}
        Err(error @ ArchiveError::Damaged { .. }) => {
            tracing::error!(%error, "its raw events cannot be looked up");
        }
        Err(error) => return Err(error),
        Ok(mut pieces) => {
            while let Some(row) = pieces.piece()? {
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

impl Content {
    fn empty(kind: Kind, first: u64) -> Self {
        Self { kind, object: Vec::new(), count: 0, first, last: first, events: 0, entries: 0 }
    }

    fn take(&mut self, number: u64) {
        self.count = self.count.saturating_add(1);
        self.last = number;
    }

    fn describe(&self, facts: &ArchiveFacts, note: &ArchiveNote) -> Manifest {
        let (number, sha256) = (note.objects.saturating_add(1), digest(&self.object));
        Manifest {
            format: FORMAT,
            number,
            previous: note.digest.clone(),
            ledger: facts.ledger.to_string(),
            incarnation: facts.incarnation,
            ledger_time_limit: facts.ledger_time_limit.0,
            kind: self.kind,
            object: object_name(self.kind, number, &sha256),
            bytes: u64::try_from(self.object.len()).unwrap_or(u64::MAX),
            sha256,
            count: self.count,
            first: self.first,
            last: self.last,
            events: self.events,
            entries: self.entries,
        }
    }
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, WriteError> + Send + 'static,
) -> Result<T, WriteError> {
    tokio::task::spawn_blocking(act).await.unwrap_or(Err(WriteError::Panicked))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
pub(crate) mod tests;
