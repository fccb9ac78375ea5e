//! How writes reach the tables: one [`Transaction`] per commit.
//!
//! **Owns** the rules of each write, the order of the stream, and what leaves the journal when. **Does
//! not own** the commit itself, or the figures' meaning (`state.rs`).
//!
//! Invariants: the file and the memory change together or not at all: a transaction works on a copy of the
//! memory, which replaces the journal's only after redb has committed.
//! Limits: a commit drops at most [`ROWS_DROPPED_MAX`] rows of a kind, so that it stays short after a
//! long silence; every later commit goes on.

mod kept;
mod posted;
mod raw_events;

use std::collections::BTreeMap;

use redb::{Table, WriteTransaction};
use tidemark_common::id::{Digest, EventNumber, OpeningId, RulesVersion, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::UniqueKey;

use super::JournalError;
use super::budget::{Budget, row_bytes};
use super::record::{
    BatchRow, Conflicted, Counters, Opened, Record, encode_chunk, encode_evidence,
};
use super::state::{JournalOptions, JournalState};
use super::tables::{
    BATCHES, CHUNKS, DEAD_LETTERS, IDS, META, POSTED, RAW_EVENTS, RULES, SEALED, SOURCES, meta,
};
use super::write::{Append, ConflictAnswer, RawEvents, Seal, Write};
use crate::event::age_clock::AgeClock;
use crate::seal::{Content, Position};

#[cfg(test)]
pub(super) use kept::SOURCES_MAX;

/// At most this many rows of a kind leave in one commit.
pub(super) const ROWS_DROPPED_MAX: usize = 1_024;
/// A conflict's reason is cut here.
const CONFLICT_CHARS_MAX: usize = 2_000;

/// What the journal keeps in memory: its figures, and what finding a row would cost a read.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) state: JournalState,
    pub(super) unique_key: Option<UniqueKey>,
    /// Groups that are not sealed: a handful, whatever the backlog.
    pub(super) groups: BTreeMap<u64, GroupNote>,
    /// The arrival of the oldest event in sealed, unposted batches.
    pub(super) backlog_oldest: Option<Timestamp>,
    /// What the row of the largest batch costs: of those found at the start, and sealed since.
    pub(super) largest_batch: u64,
    pub(super) clean: bool,
    pub(super) newest: Timestamp,
    pub(super) ids_oldest: Option<Timestamp>,
    pub(super) age_clock: AgeClock,
    pub(super) next_ids_row: u64,
    pub(super) next_dead_letter: u64,
}

/// A group, without its evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupNote {
    pub(super) opening: OpeningId,
    pub(super) rules: RulesVersion,
    pub(super) first_event: EventNumber,
    pub(super) end_event: EventNumber,
    pub(super) chunks: u32,
    pub(super) bytes: u64,
    pub(super) live_bytes: u64,
    pub(super) oldest: Timestamp,
}

impl Memory {
    pub(super) fn counters(&self) -> Counters {
        let state = &self.state;
        Counters {
            accepted: state.accepted,
            sealed_events: state.sealed_events,
            posted_events: state.posted_events,
            sealed_sequence: state.sealed_sequence,
            posted_sequence: state.posted_sequence,
            sealed_digest: state.sealed_digest,
            posted_digest: state.posted_digest,
            newest: self.newest,
        }
    }

    pub(super) fn refresh_oldest(&mut self) {
        let chunks = || self.groups.values().next().map(|group| group.oldest);
        self.state.oldest_unposted = self.backlog_oldest.or_else(chunks);
    }

    /// Counts a row in.
    fn took(&mut self, value_bytes: usize) {
        self.state.live_bytes = self.state.live_bytes.saturating_add(cost(value_bytes));
    }

    /// Counts a row out.
    fn left(&mut self, value_bytes: usize) {
        let live_bytes = self.state.live_bytes.checked_sub(cost(value_bytes));
        self.state.live_bytes = live_bytes.expect("a row that leaves was counted in");
    }
}

/// All tables of a write transaction.
#[derive(Debug)]
pub(super) struct Tables<'t> {
    pub(super) meta: Table<'t, u16, &'static [u8]>,
    pub(super) rules: Table<'t, u16, &'static [u8]>,
    pub(super) chunks: Table<'t, (u64, u32), &'static [u8]>,
    pub(super) sealed: Table<'t, u64, &'static [u8]>,
    pub(super) batches: Table<'t, u64, &'static [u8]>,
    pub(super) raw_events: Table<'t, (u64, u32), &'static [u8]>,
    pub(super) posted: Table<'t, u64, i64>,
    pub(super) ids: Table<'t, u64, &'static [u8]>,
    pub(super) dead_letters: Table<'t, u64, &'static [u8]>,
    pub(super) sources: Table<'t, &'static [u8], &'static [u8]>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::TableError> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            rules: transaction.open_table(RULES)?,
            chunks: transaction.open_table(CHUNKS)?,
            sealed: transaction.open_table(SEALED)?,
            batches: transaction.open_table(BATCHES)?,
            raw_events: transaction.open_table(RAW_EVENTS)?,
            posted: transaction.open_table(POSTED)?,
            ids: transaction.open_table(IDS)?,
            dead_letters: transaction.open_table(DEAD_LETTERS)?,
            sources: transaction.open_table(SOURCES)?,
        })
    }
}

/// One commit in the making.
#[derive(Debug)]
pub(super) struct Transaction<'t, 'o> {
    tables: Tables<'t>,
    before: &'o Memory,
    memory: Memory,
    options: &'o JournalOptions,
    budget: Budget,
    now: Timestamp,
    age_now: Timestamp,
    sealed: Vec<(Sequence, Digest)>,
}

impl<'t, 'o> Transaction<'t, 'o> {
    pub(super) fn new(
        tables: Tables<'t>,
        before: &'o Memory,
        options: &'o JournalOptions,
        budget: Budget,
        now: Timestamp,
    ) -> Self {
        let mut memory = before.clone();
        let age_now = memory.age_clock.tick(now);
        Self { tables, before, memory, options, budget, now, age_now, sealed: Vec::new() }
    }

    pub(super) fn apply(&mut self, write: Write) -> Result<(), JournalError> {
        match write {
            Write::Append(append) => self.append(&append),
            Write::Ids(ids) => self.remember(&ids),
            Write::CarriedIds { at, ids } => {
                self.memory.age_clock = AgeClock::resume(Some(at));
                self.age_now = at;
                self.remember(&ids)
            }
            Write::Evidence(evidence) => {
                self.memory.state.evidence.merge_max(&evidence);
                Ok(())
            }
            Write::DeadLetters(letters) => self.keep_letters(letters),
            Write::Replayed(numbers) => self.remove_letters(&numbers),
            Write::SourceCounts(counts) => self.keep_sources(&counts),
            Write::Seal(seal) => self.seal(seal),
            Write::Welcomed(welcomed) => self.welcomed(welcomed),
            Write::Posted(sequence) => self.posted(sequence),
            Write::Archived(sequence) => self.archived(sequence),
            Write::Conflict { reason, answer } => self.conflict(&reason, answer.as_ref()),
            Write::Closed => {
                self.memory.clean = true;
                Ok(())
            }
        }
    }

    /// Drops what has had its time and writes the figures that changed.
    pub(super) fn finish(mut self) -> Result<(Memory, Vec<(Sequence, Digest)>), JournalError> {
        // At the budget, what is kept for convenience leaves before what guards against duplicates.
        self.drop_raw_events()?;
        self.drop_retained()?;
        self.drop_letters()?;
        self.drop_ids()?;
        self.memory.newest = self.memory.newest.max(self.now);
        self.memory.refresh_oldest();
        let state = &mut self.memory.state;
        state.full = self.budget.is_full(state.live_bytes, self.memory.largest_batch, state.full);

        let counters = self.memory.counters();
        if counters != self.before.counters() {
            self.tables.meta.insert(meta::COUNTERS, counters.encode().as_slice())?;
        }
        if self.memory.state.evidence != self.before.state.evidence {
            self.tables
                .meta
                .insert(meta::EVIDENCE, encode_evidence(&self.memory.state.evidence).as_slice())?;
        }
        if self.memory.clean != self.before.clean {
            let opened = Opened { opening: self.memory.state.opening, clean: self.memory.clean };
            self.tables.meta.insert(meta::OPENED, opened.encode().as_slice())?;
        }
        Ok((self.memory, self.sealed))
    }

    fn append(&mut self, append: &Append) -> Result<(), JournalError> {
        let memory = &mut self.memory;
        in_order("append: the first event", memory.state.accepted, append.first_event.0)?;
        let end = append.first_event.plus(u64::from(append.events));
        let record = encode_chunk(append);
        let note = note_chunk(&mut memory.groups, append, end, to_u64(record.len()))?;
        let index = note.chunks.saturating_sub(1);
        self.tables.chunks.insert((append.group, index), record.as_slice())?;
        memory.took(record.len());

        memory.clean = false;
        let state = &mut memory.state;
        state.evidence.merge_max(&append.evidence);
        state.accepted = end.0;
        state.events_in_chunks = state.events_in_chunks.saturating_add(u64::from(append.events));
        state.chunk_bytes = state.chunk_bytes.saturating_add(to_u64(record.len()));
        state.hold(append.opening, append.first_event, end);
        Ok(())
    }

    fn seal(&mut self, seal: Seal) -> Result<(), JournalError> {
        if self.memory.state.ledger.is_none() {
            return Err(JournalError::NoLedger);
        }
        in_order("seal: the first event", self.memory.state.sealed_events, seal.first_event.0)?;
        let oldest = match seal.group {
            Some(group) => Some(self.take_group(group, &seal)?),
            None => {
                in_order(
                    "seal: the end of a batch without events",
                    seal.first_event.0,
                    seal.end_event.0,
                )?;
                None
            }
        };

        let state = &self.memory.state;
        let position = Position {
            stream: state.stream,
            sequence: state.sealed_sequence,
            digest: state.sealed_digest,
        };
        let Seal { opening, rules, first_event, end_event, body, .. } = seal;
        let (batch, position) =
            position.seal(Content { opening, rules, first_event, end_event }, body);
        let row = BatchRow {
            bytes: to_u64(batch.bytes.len()),
            opening,
            first_event,
            end_event,
            oldest,
            digest: position.digest,
        };
        let record = row.encode();
        self.tables.sealed.insert(position.sequence.0, batch.bytes.as_slice())?;
        self.tables.batches.insert(position.sequence.0, record.as_slice())?;

        let memory = &mut self.memory;
        memory.took(batch.bytes.len());
        memory.largest_batch = memory.largest_batch.max(row_bytes(row.bytes));
        memory.took(record.len());
        memory.clean = false;
        memory.backlog_oldest = memory.backlog_oldest.or(oldest);
        let state = &mut memory.state;
        state.sealed_sequence = position.sequence;
        state.sealed_digest = position.digest;
        state.sealed_events = end_event.0;
        state.count_backlog(&row);
        self.sealed.push((position.sequence, position.digest));
        Ok(())
    }

    /// Removes the chunks of a group whose batch is being stored; the arrival of its oldest event.
    fn take_group(&mut self, group: u64, seal: &Seal) -> Result<Timestamp, JournalError> {
        let memory = &mut self.memory;
        let Some(note) = memory.groups.remove(&group) else {
            return Err(JournalError::UnknownGroup { group });
        };
        in_order("seal: the group's first event", note.first_event.0, seal.first_event.0)?;
        in_order("seal: the group's end", note.end_event.0, seal.end_event.0)?;
        if note.opening != seal.opening {
            return Err(JournalError::OtherOpening {
                group,
                opening: note.opening,
                found: seal.opening,
            });
        }
        let state = &mut memory.state;
        state.live_bytes = state.live_bytes.saturating_sub(note.live_bytes);
        state.chunk_bytes = state.chunk_bytes.saturating_sub(note.bytes);
        let events = note.end_event.0.saturating_sub(note.first_event.0);
        let left = state.events_in_chunks.checked_sub(events);
        state.events_in_chunks = left.expect("a group's events are counted in as chunks");
        let sequence = state.sealed_sequence.next();
        match seal.raw_events {
            RawEvents::Kept => self.put_by(group, note.chunks, sequence)?,
            RawEvents::Dropped => self.drop_chunks(group, note.chunks)?,
        }
        Ok(note.oldest)
    }

    fn drop_chunks(&mut self, group: u64, chunks: u32) -> Result<(), JournalError> {
        for index in 0..chunks {
            if self.tables.chunks.remove((group, index))?.is_none() {
                return Err(missing("chunk", group));
            }
        }
        Ok(())
    }

    fn conflict(
        &mut self,
        reason: &str,
        answer: Option<&ConflictAnswer>,
    ) -> Result<(), JournalError> {
        let reason: String = reason.chars().take(CONFLICT_CHARS_MAX).collect();
        let conflicted = Conflicted { at: self.now, reason };
        self.tables.meta.insert(meta::CONFLICTED, conflicted.encode().as_slice())?;
        if let Some(answer) = answer {
            self.tables.meta.insert(meta::ANSWERED, answer.encode().as_slice())?;
        }
        self.memory.state.conflict = Some(conflicted.reason);
        Ok(())
    }
}

impl JournalState {
    /// Takes note of a sealed batch that is not posted.
    pub(super) fn count_backlog(&mut self, row: &BatchRow) {
        self.backlog_batches = self.backlog_batches.saturating_add(1);
        self.backlog_bytes = self.backlog_bytes.saturating_add(row.bytes);
        self.events_in_unposted_batches =
            self.events_in_unposted_batches.saturating_add(row.events());
    }
}

/// Takes note of a chunk as the last of its group.
fn note_chunk(
    groups: &mut BTreeMap<u64, GroupNote>,
    append: &Append,
    end: EventNumber,
    record_bytes: u64,
) -> Result<GroupNote, JournalError> {
    let newest = groups.last_key_value().map(|(group, _)| *group);
    if newest.is_some_and(|newest| append.group < newest) {
        return Err(JournalError::UnknownGroup { group: append.group });
    }
    let note = groups.entry(append.group).or_insert(GroupNote {
        opening: append.opening,
        rules: append.rules,
        first_event: append.first_event,
        end_event: append.first_event,
        chunks: 0,
        bytes: 0,
        live_bytes: 0,
        oldest: append.oldest,
    });
    if note.opening != append.opening {
        let (group, opening, found) = (append.group, note.opening, append.opening);
        return Err(JournalError::OtherOpening { group, opening, found });
    }
    in_order("append: the group's rules", note.rules.0, append.rules.0)?;
    note.end_event = end;
    note.chunks = note.chunks.saturating_add(1);
    note.bytes = note.bytes.saturating_add(record_bytes);
    note.live_bytes = note.live_bytes.saturating_add(row_bytes(record_bytes));
    note.oldest = note.oldest.min(append.oldest);
    Ok(*note)
}

fn in_order(what: &'static str, expected: u64, found: u64) -> Result<(), JournalError> {
    if expected == found { Ok(()) } else { Err(JournalError::OutOfOrder { what, expected, found }) }
}

fn missing(what: &str, number: u64) -> JournalError {
    JournalError::Damaged { reason: format!("{what} {number} is missing") }
}

fn cost(value_bytes: usize) -> u64 {
    row_bytes(to_u64(value_bytes))
}

pub(super) fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a length fits 64 bits")
}
