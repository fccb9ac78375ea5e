//! The admitting transaction.
//!
//! **Owns** the order of things in it: each request is judged against the state that the ones before it
//! in the group left; everything is written; the commit; only then does memory change.

mod retire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redb::{Durability, ReadableTable, Table, WriteTransaction};
use tidemark_common::id::{EventNumber, Fence, OpeningId, StreamId};
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{HeldOpening, Hello, PostedOpening};

use super::archive;
use super::books::{BOOKS, OpenBooks};
use super::ids::{self, SUPPRESSED};
use super::retired::SUMS;
use super::{
    BATCHES, CHECKPOINT_BATCHES, CHECKPOINT_BYTES, FORMAT_WITH_BOOKS, FORMAT_WITH_IDS,
    FORMAT_WITH_MARKS, FORMAT_WITH_RETIRED, Fault, Inner, LEDGER_FILE, MARKS, META, Memory,
    OPENINGS, QUARANTINE, STREAMS,
};
use crate::archive::segment::Put;
use crate::dedupe::{self, Candidate, Content, Verdict};
use crate::ledger::books::{self, Change};
use crate::ledger::check::LedgerTable;
use crate::ledger::codec::GIVEN_AWAY;
use crate::ledger::request::{Admission, HelloRequest, Opened, Reply, Request, Welcomed};
use crate::ledger::retired::RetiredSums;
use crate::ledger::store::{Committed, StoreError};
use crate::ledger::stream::{Missing, StreamRecord};
use crate::ledger::tail::TailBatch;
use crate::ledger::{allowance, codec};
use crate::session::claim::{self, ClaimVerdict};
use crate::session::hello::{self, Contradiction, HelloVerdict};

/// So many allowances of new streams are kept before those that are whole again are left out.
const STREAMS_BEGUN_KEPT: usize = 1_024;

/// A group in the making: what will be in memory once it is committed.
struct Group<'a> {
    inner: &'a Inner,
    memory: &'a Memory,
    write: &'a WriteTransaction,
    at: Timestamp,
    changed: BTreeMap<StreamId, StreamRecord>,
    /// Allowances used by the streams that are new in this group.
    begun: BTreeMap<AgentName, Duration>,
    /// When the last of them began.
    begun_at: Duration,
    /// Streams whose row is written with the group.
    rows: BTreeSet<StreamId>,
    appended: Vec<(u64, AgentName, Admission)>,
    committed: Committed,
    next_position: u64,
    bytes: u64,
    has_booked: bool,
    /// The number of the next transaction that is noted for the archive.
    redo: Option<u64>,
    /// Lines that were judged by their ids.
    ids: usize,
    /// The streams of memory that retire with the group.
    gone: BTreeSet<StreamId>,
    /// What all that retired come to, once that changes.
    retired: Option<RetiredSums>,
}

impl Inner {
    /// Judges and applies a group in one transaction.
    pub(super) fn commit(
        &self,
        requests: Vec<Request>,
        at: Timestamp,
        clock_limit: Option<Timestamp>,
    ) -> Result<Committed, StoreError> {
        let mut memory = self.memory()?;
        let mut write = self.ledger.begin_write().map_err(Fault::write(LEDGER_FILE))?;
        write.set_durability(Durability::Immediate).map_err(Fault::write(LEDGER_FILE))?;
        let mut group = Group::new(self, &memory, &write, at);
        for request in requests {
            let reply = group.apply(request)?;
            group.committed.replies.push(reply);
        }
        let checkpoint = group.is_checkpoint_due();
        let done = group.write(clock_limit, checkpoint)?;
        write.commit().map_err(Fault::write(LEDGER_FILE))?;
        Ok(memory.take(done, checkpoint))
    }

    /// Writes the rows that are behind.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let mut memory = self.memory()?;
        let write = self.ledger.begin_write().map_err(Fault::write(LEDGER_FILE))?;
        let done = Group::new(self, &memory, &write, Timestamp(0)).write(None, true)?;
        write.commit().map_err(Fault::write(LEDGER_FILE))?;
        memory.take(done, true);
        Ok(())
    }
}

/// A group as written, to be taken into memory after the commit.
struct Written {
    changed: BTreeMap<StreamId, StreamRecord>,
    begun: BTreeMap<AgentName, Duration>,
    begun_at: Duration,
    rows: BTreeSet<StreamId>,
    positions: Vec<(StreamId, tidemark_common::id::Sequence, u64)>,
    committed: Committed,
    next_position: u64,
    bytes: u64,
    redo: Option<u64>,
    gone: BTreeSet<StreamId>,
    retired: Option<RetiredSums>,
}

impl Memory {
    fn take(&mut self, written: Written, checkpoint: bool) -> Committed {
        let Written {
            changed,
            begun,
            begun_at,
            rows,
            positions,
            mut committed,
            next_position,
            bytes,
            redo,
            gone,
            retired,
        } = written;
        if self.archive.next.is_none() && redo.is_some() {
            self.archive.streams = self.streams.keys().copied().collect();
        }
        if redo.is_none() {
            self.archive.streams.clear();
        }
        self.archive.next = redo;
        self.take_begun(begun, begun_at);
        let batches = next_position.saturating_sub(self.next_position);
        self.next_position = next_position;
        self.bytes_since_checkpoint = self.bytes_since_checkpoint.saturating_add(bytes);
        self.batches_since_checkpoint = self.batches_since_checkpoint.saturating_add(batches);
        self.unfolded
            .extend(positions.into_iter().map(|(stream, sequence, at)| ((stream, sequence), at)));
        for stream in &gone {
            self.streams.remove(stream);
            self.dirty.remove(stream);
        }
        committed.retired = gone.into_iter().collect();
        if let Some(sums) = &retired {
            self.retired = sums.clone();
        }
        committed.retired_sums = retired;
        committed.streams = changed.values().cloned().collect();
        for (stream, record) in changed {
            self.dirty.insert(stream);
            if redo.is_some() {
                self.archive.streams.insert(stream);
            }
            self.streams.insert(stream, record);
        }
        for stream in rows {
            self.dirty.remove(&stream);
        }
        if checkpoint {
            self.dirty.clear();
            (self.bytes_since_checkpoint, self.batches_since_checkpoint) = (0, 0);
        }
        committed
    }

    /// Allowances that are whole again say nothing, and are left out from time to time.
    fn take_begun(&mut self, begun: BTreeMap<AgentName, Duration>, now: Duration) {
        self.streams_begun.extend(begun);
        if self.streams_begun.len() > self.streams_begun_max {
            self.streams_begun.retain(|_, used| *used > now);
            let twice = self.streams_begun.len().saturating_mul(2);
            self.streams_begun_max = twice.max(STREAMS_BEGUN_KEPT);
        }
    }
}

impl<'a> Group<'a> {
    fn new(
        inner: &'a Inner,
        memory: &'a Memory,
        write: &'a WriteTransaction,
        at: Timestamp,
    ) -> Self {
        Self {
            inner,
            memory,
            write,
            at,
            changed: BTreeMap::new(),
            begun: BTreeMap::new(),
            begun_at: Duration::ZERO,
            rows: BTreeSet::new(),
            appended: Vec::new(),
            committed: Committed::default(),
            next_position: memory.next_position,
            bytes: 0,
            has_booked: false,
            redo: memory.archive.next,
            ids: 0,
            gone: BTreeSet::new(),
            retired: None,
        }
    }

    fn apply(&mut self, request: Request) -> Result<Reply, StoreError> {
        if let Some(stream) = request.stream() {
            self.bring_back(stream)?;
        }
        match request {
            Request::Hello(request) => self.hello(&request),
            Request::Admit(admission) => self.admit(*admission),
            Request::Confirm { stream, confirm } => {
                let verdict = claim::judge_confirm(self.record(stream), &confirm, self.at);
                if verdict == ClaimVerdict::Take {
                    let at = self.at;
                    self.change(stream, |record| claim::record_confirm(record, &confirm, at));
                    self.rows.insert(stream);
                }
                Ok(Reply::Claimed(verdict))
            }
            Request::Close { stream, close } => {
                let verdict = claim::judge_close(self.record(stream), &close);
                if verdict == ClaimVerdict::Take {
                    let at = self.at;
                    self.change(stream, |record| claim::record_close(record, &close, at));
                    self.rows.insert(stream);
                }
                Ok(Reply::Claimed(verdict))
            }
            Request::Book(change) => self.book(&change),
            Request::Archive(step) => {
                archive::step(self.write, &mut self.redo, &step)?;
                Ok(Reply::Archived)
            }
            Request::Retire { streams, after_millis } => self.retire(&streams, after_millis),
        }
    }

    fn book(&mut self, change: &Change) -> Result<Reply, StoreError> {
        let table = self.write.open_table(BOOKS).map_err(Fault::write(LEDGER_FILE))?;
        let mut rows = OpenBooks { table, changed: false, puts: self.redo.map(|_| Vec::new()) };
        let booked = books::book(&mut rows, change, self.at)?;
        self.has_booked |= rows.changed;
        archive::note_puts(self.write, &mut self.redo, rows.puts.unwrap_or_default())?;
        Ok(Reply::Booked(booked))
    }

    fn hello(&mut self, request: &HelloRequest) -> Result<Reply, StoreError> {
        let HelloRequest { hello, agent, said } = request;
        let (stream, ledger, at) = (hello.stream, self.inner.id, self.at);
        let record = self.record(stream);
        let needed = record.and_then(|record| hello::digest_needed(record, hello));
        let stored = match needed {
            Some(sequence) => self.digest(stream, sequence)?,
            None => None,
        };
        let record = self.record(stream);
        let posted = record.map_or_else(Default::default, |record| record.posted_sequence);
        let verdict = if record.is_none() && self.is_full() {
            HelloVerdict::TooManyStreams
        } else {
            hello::judge_hello(record, hello, agent, ledger, stored)
        };
        let verdict = match (verdict, self.first_given_away(hello)?) {
            (HelloVerdict::Welcome, Some(opening)) => {
                HelloVerdict::Conflict(Contradiction::GivenAway { opening })
            }
            (HelloVerdict::Welcome, None)
                if self.record(stream).is_none() && !self.begin_stream(agent, *said) =>
            {
                HelloVerdict::TooManyNewStreams
            }
            (verdict, _) => verdict,
        };
        if verdict != HelloVerdict::Welcome {
            let mut openings = Vec::new();
            if matches!(verdict, HelloVerdict::Conflict(_)) {
                openings = self.settled_openings(hello)?;
                self.mark_conflict(stream);
            }
            return Ok(Reply::HelloRefused { verdict, posted, openings });
        }
        if self.record(stream).is_none() {
            self.changed.insert(stream, StreamRecord::new(stream, agent.clone(), ledger, at));
        }
        let incarnation = self.inner.incarnation;
        self.change(stream, |record| {
            let fence = next_fence(record.fence, incarnation);
            let before = record.missing;
            hello::record_hello(record, hello, agent, fence, at);
            if let Some(missing) = record.missing.filter(|missing| before != Some(*missing)) {
                let (agent, Missing { first, last, events }) = (record.agent.as_str(), missing);
                tracing::error!(
                    %stream, agent, %first, %last, events,
                    "batches are neither here nor in the agent's journal: restore a newer backup, if there is one"
                );
            }
        });
        self.rows.insert(stream);
        let record = self.record(stream).expect("the stream was just opened");
        Ok(Reply::Welcomed(Welcomed {
            fence: record.fence,
            posted_sequence: record.posted_sequence,
            posted_digest: record.posted_digest,
        }))
    }

    fn admit(&mut self, mut admission: Admission) -> Result<Reply, StoreError> {
        let Admission { header, digest, fence, .. } = &admission;
        let (stream, ledger, at) = (header.stream, self.inner.id, self.at);
        let needed = self.record(stream).and_then(|record| dedupe::digest_needed(record, header));
        let stored = match needed {
            Some(sequence) => self.digest(stream, sequence)?,
            None => None,
        };
        let candidate = Candidate { header, digest: *digest, fence: *fence };
        let verdict = match dedupe::judge(self.record(stream), &candidate, stored, ledger) {
            Verdict::Admit if self.is_given_away(stream, header.opening)? => {
                Verdict::Conflict { sequence: header.sequence }
            }
            verdict => verdict,
        };
        let mut openings = Vec::new();
        match &verdict {
            Verdict::Admit => {
                let content = match &admission.content {
                    Opened::Readable { evidence, .. } => Content::Posted(evidence),
                    Opened::Quarantined(_) => Content::Quarantined,
                };
                self.change(stream, |record| dedupe::record(record, header, *digest, content, at));
                let now = self.now();
                let place = (stream, header.sequence);
                let events =
                    ids::judge(self.write, place, &mut admission.content, now, &mut self.redo)?;
                self.committed.suppressed = self.committed.suppressed.saturating_add(events);
                self.append(stream, admission);
            }
            Verdict::Duplicate => {
                self.change(stream, |record| {
                    record.duplicates = record.duplicates.saturating_add(1)
                });
            }
            Verdict::Conflict { .. } => {
                openings = self.posted(stream, header.opening)?.into_iter().collect();
                self.mark_conflict(stream);
            }
            Verdict::Gap { .. }
            | Verdict::Fenced { .. }
            | Verdict::OtherLedger
            | Verdict::NotOpen
            | Verdict::Invalid(_) => {}
        }
        let posted =
            self.record(stream).map_or_else(Default::default, |record| record.posted_sequence);
        Ok(Reply::Judged { verdict, posted, openings })
    }

    fn append(&mut self, stream: StreamId, admission: Admission) {
        let agent = self.record(stream).expect("only known streams append").agent.clone();
        let bytes = u64::try_from(admission.bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
        if let Opened::Readable { ids, .. } = &admission.content {
            self.ids = self.ids.saturating_add(ids.len());
        }
        self.appended.push((self.next_position, agent, admission));
        self.next_position =
            self.next_position.checked_add(1).expect("a ledger never holds 2^64 batches");
    }

    /// Ledger time as ids know it.
    fn now(&self) -> Bucket {
        Bucket::of(self.at).unwrap_or_default()
    }

    fn record(&self, stream: StreamId) -> Option<&StreamRecord> {
        let held = || self.memory.streams.get(&stream).filter(|_| !self.gone.contains(&stream));
        self.changed.get(&stream).or_else(held)
    }

    /// Changes a known stream's record.
    fn change(&mut self, stream: StreamId, change: impl FnOnce(&mut StreamRecord)) {
        let known =
            || self.memory.streams.get(&stream).cloned().expect("only known streams change");
        change(self.changed.entry(stream).or_insert_with(known));
    }

    fn mark_conflict(&mut self, stream: StreamId) {
        self.change(stream, StreamRecord::mark_conflict);
        self.rows.insert(stream);
    }

    /// Uses an identity's allowance for one new stream; false if none is left.
    fn begin_stream(&mut self, agent: &AgentName, now: Duration) -> bool {
        let before = self.begun.get(agent).or_else(|| self.memory.streams_begun.get(agent));
        let most = self.inner.streams_per_hour_max;
        let used = allowance::begin_stream(before.copied(), now, most);
        if let Some(used) = used {
            self.begun.insert(agent.clone(), used);
            self.begun_at = self.begun_at.max(now);
        }
        used.is_some()
    }

    fn is_full(&self) -> bool {
        let new =
            self.changed.keys().filter(|stream| !self.memory.streams.contains_key(*stream)).count();
        self.memory.streams.len().saturating_add(new) >= self.inner.streams_max
    }

    /// The digest of a posted batch, of this group too.
    fn digest(
        &self,
        stream: StreamId,
        sequence: tidemark_common::id::Sequence,
    ) -> Result<Option<tidemark_common::id::Digest>, StoreError> {
        let here = self.appended.iter().map(|(_, _, admission)| admission);
        let mut here = here.filter(|admission| admission.header.stream == stream);
        match here.find(|admission| admission.header.sequence == sequence) {
            Some(admission) => Ok(Some(admission.digest)),
            None => self.inner.stored_digest(self.memory, stream, sequence),
        }
    }

    /// The answer to a hello in conflict: which of its openings must stay where they are, and how far each
    /// is posted. Of one that is left out nothing is posted, and nothing ever will be under this stream:
    /// - the asker's own opening is given to it: whoever else ships it is refused from now on;
    /// - where an earlier one begins, the ledger has posted events of another, so that no journal which
    ///   holds it can ever continue the stream.
    ///
    /// One that another copy of the journal may still ship is named, with nothing posted.
    fn settled_openings(&mut self, hello: &Hello) -> Result<Vec<PostedOpening>, StoreError> {
        let Some(record) = self.record(hello.stream) else { return Ok(Vec::new()) };
        let end = record.posted_end;
        let mut settled = Vec::new();
        for HeldOpening { opening, first, .. } in hello.openings.iter().copied() {
            if opening == hello.opening {
                continue;
            }
            match self.posted(hello.stream, opening)? {
                Some(posted) => settled.push(posted),
                None if first < end && !self.is_given_away(hello.stream, opening)? => {}
                None => settled.push(PostedOpening { opening, end: end.min(first) }),
            }
        }
        match self.posted(hello.stream, hello.opening)? {
            Some(posted) => settled.push(posted),
            None => {
                let key = codec::opening_key(hello.stream, hello.opening);
                let mut table =
                    self.write.open_table(OPENINGS).map_err(Fault::write(LEDGER_FILE))?;
                table.insert(&key, GIVEN_AWAY).map_err(Fault::write(LEDGER_FILE))?;
                let (table, value) = (LedgerTable::Openings.number(), GIVEN_AWAY.to_be_bytes());
                let put = Put { table, key: key.to_vec(), value: Some(value.to_vec()) };
                archive::note_puts(self.write, &mut self.redo, vec![put])?;
            }
        }
        Ok(settled)
    }

    /// The first opening of a hello that went to another stream.
    fn first_given_away(&self, hello: &Hello) -> Result<Option<OpeningId>, StoreError> {
        let held = hello.openings.iter().map(|held| held.opening);
        for opening in held.chain([hello.opening]) {
            if self.is_given_away(hello.stream, opening)? {
                return Ok(Some(opening));
            }
        }
        Ok(None)
    }

    fn is_given_away(&self, stream: StreamId, opening: OpeningId) -> Result<bool, StoreError> {
        // Only a conflict gives any away.
        if self.record(stream).is_none_or(|record| record.conflicts == 0) {
            return Ok(false);
        }
        Ok(self.opening_row(stream, opening)? == Some(GIVEN_AWAY))
    }

    /// How far an opening is posted; `None` if nothing of it is.
    fn posted(
        &self,
        stream: StreamId,
        opening: OpeningId,
    ) -> Result<Option<PostedOpening>, StoreError> {
        let recent = self.record(stream).map_or(&[][..], |record| &record.openings);
        if let Some(recent) = recent.iter().find(|recent| recent.opening == opening) {
            return Ok(Some(*recent));
        }
        let end = self.opening_row(stream, opening)?.filter(|end| *end != GIVEN_AWAY);
        Ok(end.map(|end| PostedOpening { opening, end: EventNumber(end) }))
    }

    fn opening_row(&self, stream: StreamId, opening: OpeningId) -> Result<Option<u64>, StoreError> {
        let table = self.write.open_table(OPENINGS).map_err(Fault::read(LEDGER_FILE))?;
        let key = codec::opening_key(stream, opening);
        let row = table.get(&key).map_err(Fault::read(LEDGER_FILE))?;
        Ok(row.map(|end| end.value()))
    }

    fn is_checkpoint_due(&self) -> bool {
        let bytes = self.memory.bytes_since_checkpoint.saturating_add(self.bytes);
        let batches = self.memory.batches_since_checkpoint;
        bytes >= CHECKPOINT_BYTES || batches >= CHECKPOINT_BATCHES
    }

    /// Writes everything into the transaction.
    fn write(
        mut self,
        clock_limit: Option<Timestamp>,
        checkpoint: bool,
    ) -> Result<Written, StoreError> {
        let write = self.write;
        if checkpoint {
            self.rows.extend(self.memory.dirty.iter().chain(self.changed.keys()));
        }
        self.write_rows()?;
        let mut meta = write.open_table(META).map_err(Fault::write(LEDGER_FILE))?;
        if let Some(limit) = clock_limit {
            meta.insert(&b"clock_limit"[..], &limit.0.to_be_bytes()[..])
                .map_err(Fault::write(LEDGER_FILE))?;
        }
        if checkpoint {
            let position = self.next_position.to_be_bytes();
            meta.insert(&b"checkpoint"[..], &position[..]).map_err(Fault::write(LEDGER_FILE))?;
        }
        if self.ids > 0 || checkpoint {
            ids::remove_old(write, self.now(), self.ids)?;
        }
        self.write_formats(&mut meta)?;
        let mut batches = write.open_table(BATCHES).map_err(Fault::write(LEDGER_FILE))?;
        let mut positions = Vec::with_capacity(self.appended.len());
        for (position, agent, admission) in self.appended {
            batches
                .insert(position, admission.bytes.as_slice())
                .map_err(Fault::write(LEDGER_FILE))?;
            match &admission.content {
                Opened::Quarantined(reason) => {
                    let mut table =
                        write.open_table(QUARANTINE).map_err(Fault::write(LEDGER_FILE))?;
                    table.insert(position, reason.as_bytes()).map_err(Fault::write(LEDGER_FILE))?;
                    self.committed.quarantined = self.committed.quarantined.saturating_add(1);
                }
                Opened::Readable { marks, suppressed, .. } => {
                    if !marks.is_empty() {
                        let table = write.open_table(MARKS);
                        let mut table = table.map_err(Fault::write(LEDGER_FILE))?;
                        table.insert(position, marks.bytes()).map_err(Fault::write(LEDGER_FILE))?;
                        raise_format(&mut meta, FORMAT_WITH_MARKS)?;
                    }
                    if !suppressed.is_empty() {
                        let table = write.open_table(SUPPRESSED);
                        let mut table = table.map_err(Fault::write(LEDGER_FILE))?;
                        let row = suppressed.bytes();
                        table.insert(position, &row[..]).map_err(Fault::write(LEDGER_FILE))?;
                    }
                }
            }
            let (header, lines) = (admission.header, admission.content.lines());
            let batch = TailBatch::new(&header, agent, position, self.at, lines);
            positions.push((batch.stream, batch.sequence, position));
            self.committed.admitted.push(Arc::new(batch));
        }
        Ok(Written {
            changed: self.changed,
            begun: self.begun,
            begun_at: self.begun_at,
            rows: self.rows,
            positions,
            committed: self.committed,
            next_position: self.next_position,
            bytes: self.bytes,
            redo: self.redo,
            gone: self.gone,
            retired: self.retired,
        })
    }

    /// What this group is the first of makes older collectors refuse the ledger.
    fn write_formats(
        &self,
        meta: &mut Table<'_, &'static [u8], &'static [u8]>,
    ) -> Result<(), StoreError> {
        if self.ids > 0 {
            raise_format(meta, FORMAT_WITH_IDS)?;
        }
        if self.has_booked {
            raise_format(meta, FORMAT_WITH_BOOKS)?;
        }
        if let Some(sums) = &self.retired {
            meta.insert(SUMS, sums.write().as_slice()).map_err(Fault::write(LEDGER_FILE))?;
            raise_format(meta, FORMAT_WITH_RETIRED)?;
        }
        Ok(())
    }

    /// Writes the rows that are due. Openings before the newest move to their own table.
    fn write_rows(&mut self) -> Result<(), StoreError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let write = self.write;
        let mut streams = write.open_table(STREAMS).map_err(Fault::write(LEDGER_FILE))?;
        let mut openings = write.open_table(OPENINGS).map_err(Fault::write(LEDGER_FILE))?;
        for stream in &self.rows {
            let Some(mut record) = self.record(*stream).cloned() else { continue };
            let several = record.openings.len() > 1;
            flush_openings(&mut openings, &mut record)?;
            let row = codec::write_stream(&record).map_err(Fault::row(LEDGER_FILE))?;
            streams.insert(&stream.0, row.as_slice()).map_err(Fault::write(LEDGER_FILE))?;
            if several {
                self.changed.insert(*stream, record);
            }
        }
        Ok(())
    }
}

/// Older collectors refuse the ledger from now on.
pub(super) fn raise_format(
    meta: &mut Table<'_, &'static [u8], &'static [u8]>,
    to: u16,
) -> Result<(), StoreError> {
    let held = meta.get(&b"format"[..]).map_err(Fault::read(LEDGER_FILE))?;
    let held = held.and_then(|held| codec::Fields(held.value()).array()).map(u16::from_be_bytes);
    if held.is_none_or(|held| held < to) {
        meta.insert(&b"format"[..], &to.to_be_bytes()[..]).map_err(Fault::write(LEDGER_FILE))?;
    }
    Ok(())
}

fn flush_openings(
    table: &mut Table<'_, &'static [u8; 32], u64>,
    record: &mut StreamRecord,
) -> Result<(), StoreError> {
    let older = record.openings.len().saturating_sub(1);
    for posted in record.openings.drain(..older) {
        let key = codec::opening_key(record.stream, posted.opening);
        table.insert(&key, posted.end.0).map_err(Fault::write(LEDGER_FILE))?;
    }
    Ok(())
}

/// The fence after `held`: counted within this incarnation of the ledger.
fn next_fence(held: Fence, incarnation: u32) -> Fence {
    let first = u64::from(incarnation) << 32;
    Fence(
        held.0
            .max(first)
            .checked_add(1)
            .expect("a stream never sees 2^32 sessions of one incarnation"),
    )
}
