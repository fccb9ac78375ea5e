//! What a Welcome and an Ack change, and when a posted batch leaves.
//!
//! **Owns** the line between backlog and retained batches, in both directions. **Does not own** what the
//! collector posts.
//!
//! Invariants: an unposted batch never leaves. The last posted digest is kept for ever; a posted batch's
//! bytes as long as options and room allow.

use std::ops::RangeInclusive;

use redb::{ReadableTable, Table};
use tidemark_common::batch::{HEADER_BYTES, Header};
use tidemark_common::id::{Digest, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Rules, encode_rules};

use super::{ROWS_DROPPED_MAX, Transaction, missing, to_u64};
use crate::journal::JournalError;
use crate::journal::record::{BatchRow, Pinned, Record};
use crate::journal::tables::{RULES_ROW, meta};
use crate::journal::write::Welcomed;
use crate::seal::Position;

impl Transaction<'_, '_> {
    pub(super) fn welcomed(&mut self, welcomed: Welcomed) -> Result<(), JournalError> {
        let Welcomed { ledger, rules, unique_key, posted_sequence } = welcomed;
        match self.memory.state.ledger {
            Some(pinned) if pinned != ledger => {
                return Err(JournalError::OtherLedger { pinned, found: ledger });
            }
            Some(_) => {}
            None => {
                let state = &mut self.memory.state;
                let start = Position::start(ledger, state.stream);
                state.ledger = Some(ledger);
                state.sealed_digest = start.digest;
                state.posted_digest = start.digest;
            }
        }
        if self.before.state.ledger.is_none() || self.memory.unique_key != Some(unique_key) {
            let pinned = Pinned { ledger, unique_key };
            self.tables.meta.insert(meta::PINNED, pinned.encode().as_slice())?;
            self.memory.unique_key = Some(unique_key);
        }
        if let Some(rules) = rules {
            self.keep_rules(&rules)?;
        }
        if posted_sequence < self.memory.state.posted_sequence {
            return self.unpost(posted_sequence);
        }
        self.posted(posted_sequence)
    }

    fn keep_rules(&mut self, rules: &Rules) -> Result<(), JournalError> {
        let bytes = encode_rules(rules)
            .map_err(|error| JournalError::Rules { reason: error.to_string() })?;
        let before =
            self.tables.rules.insert(RULES_ROW, bytes.as_slice())?.map(|old| old.value().len());
        if let Some(value_bytes) = before {
            self.memory.left(value_bytes);
        }
        self.memory.took(bytes.len());
        Ok(())
    }

    pub(super) fn posted(&mut self, sequence: Sequence) -> Result<(), JournalError> {
        let known = self.memory.state.posted_sequence;
        if sequence <= known {
            return Ok(());
        }
        let sealed = self.memory.state.sealed_sequence;
        if sequence > sealed {
            return Err(JournalError::PostedBeyondSealed { posted: sequence, sealed });
        }
        let state = &mut self.memory.state;
        each_batch(&self.tables.batches, known.next()..=sequence, |row| {
            state.backlog_batches = state.backlog_batches.saturating_sub(1);
            state.backlog_bytes = state.backlog_bytes.saturating_sub(row.bytes);
            state.retained_batches = state.retained_batches.saturating_add(1);
            state.retained_bytes = state.retained_bytes.saturating_add(row.bytes);
            let left = state.events_in_unposted_batches.checked_sub(row.events());
            state.events_in_unposted_batches =
                left.expect("a batch's events are counted in when it is sealed");
            state.posted_events = state.posted_events.saturating_add(row.events());
            state.posted_digest = row.digest;
            state.release(row.end_event);
        })?;
        self.memory.state.posted_sequence = sequence;
        if self.tables.posted.insert(sequence.0, self.age_now.0)?.is_none() {
            self.memory.took(size_of::<i64>());
        }
        self.refresh_backlog_oldest()
    }

    /// The ledger was restored from a backup: batches after `sequence` are unposted again.
    fn unpost(&mut self, sequence: Sequence) -> Result<(), JournalError> {
        let known = self.memory.state.posted_sequence;
        let first =
            self.tables.batches.first()?.map_or(known.next(), |(first, _)| Sequence(first.value()));
        if first > sequence.next() {
            return Err(JournalError::NotRetained { posted: sequence, first });
        }
        let digest = self.digest_before(sequence.next())?;
        let state = &mut self.memory.state;
        each_batch(&self.tables.batches, sequence.next()..=known, |row| {
            state.retained_batches = state.retained_batches.saturating_sub(1);
            state.retained_bytes = state.retained_bytes.saturating_sub(row.bytes);
            state.posted_events = state.posted_events.saturating_sub(row.events());
            state.count_backlog(row);
        })?;
        self.memory.state.posted_sequence = sequence;
        self.memory.state.posted_digest = digest;

        let stale = keys(&self.tables.posted, sequence.next().0..=u64::MAX)?;
        for key in stale {
            self.tables.posted.remove(key)?;
            self.memory.left(size_of::<i64>());
        }
        if first <= sequence && self.tables.posted.insert(sequence.0, self.age_now.0)?.is_none() {
            self.memory.took(size_of::<i64>());
        }
        self.hold_again()?;
        self.refresh_backlog_oldest()
    }

    /// The digest of the batch before `sequence`, which is held.
    fn digest_before(&self, sequence: Sequence) -> Result<Digest, JournalError> {
        let Some(bytes) = self.tables.sealed.get(sequence.0)? else {
            return Err(missing("sealed batch", sequence.0));
        };
        let header = bytes.value().get(..HEADER_BYTES).unwrap_or_default();
        let header = Header::decode(header)
            .map_err(|error| JournalError::Damaged { reason: error.to_string() })?;
        Ok(header.previous)
    }

    /// Rebuilds the list of held openings from the rows: only when batches became unposted again.
    fn hold_again(&mut self) -> Result<(), JournalError> {
        let state = &mut self.memory.state;
        let unposted = state.posted_sequence.next()..=state.sealed_sequence;
        state.held.clear();
        each_batch(&self.tables.batches, unposted, |row| {
            state.hold(row.opening, row.first_event, row.end_event);
        })?;
        for note in self.memory.groups.values() {
            state.hold(note.opening, note.first_event, note.end_event);
        }
        Ok(())
    }

    fn refresh_backlog_oldest(&mut self) -> Result<(), JournalError> {
        self.memory.backlog_oldest = None;
        for entry in self.tables.batches.range(self.memory.state.posted_sequence.next().0..)? {
            let (_, row) = entry?;
            let oldest = BatchRow::decode(row.value())?.oldest;
            if oldest.is_some() {
                self.memory.backlog_oldest = oldest;
                break;
            }
        }
        Ok(())
    }

    /// Retained batches leave oldest first: after their time, beyond their bytes, or when the file is short.
    pub(super) fn drop_retained(&mut self) -> Result<(), JournalError> {
        for _ in 0..ROWS_DROPPED_MAX {
            let state = &self.memory.state;
            if state.retained_batches == 0 {
                break;
            }
            let Some((sequence, row_bytes)) =
                self.tables.batches.first()?.map(|(k, v)| (k.value(), v.value().len()))
            else {
                return Err(missing("retained batch", state.posted_sequence.0));
            };
            let due = state.retained_bytes > self.options.retain_acked_bytes_max
                || self.budget.is_tight(state.live_bytes, self.memory.largest_batch)
                || self.retained_since(sequence)?.plus_millis(self.options.retain_acked_millis)
                    < self.age_now;
            if !due {
                break;
            }
            let row = self.tables.batches.remove(sequence)?;
            let said = row.map(|row| BatchRow::decode(row.value())).transpose()?;
            self.memory.left(row_bytes);
            self.forget(sequence, said.map_or(0, |row| row.bytes))?;
        }
        Ok(())
    }

    /// When the journal learnt that `sequence` is posted, by the clock that ages follow.
    fn retained_since(&self, sequence: u64) -> Result<Timestamp, JournalError> {
        let Some(entry) = self.tables.posted.range(sequence..)?.next() else {
            return Err(missing("ack of batch", sequence));
        };
        Ok(Timestamp(entry?.1.value()))
    }

    /// Removes the last traces of a batch whose row, which said how long it is, is already gone.
    fn forget(&mut self, sequence: u64, said: u64) -> Result<(), JournalError> {
        let bytes = self.tables.sealed.remove(sequence)?.map(|frozen| frozen.value().len());
        let Some(bytes) = bytes else {
            return Err(missing("sealed batch", sequence));
        };
        if to_u64(bytes) != said {
            let reason = format!("batch {sequence} has {bytes} bytes, and its row says {said}");
            return Err(JournalError::Damaged { reason });
        }
        self.memory.left(bytes);
        let state = &mut self.memory.state;
        state.retained_batches = state.retained_batches.saturating_sub(1);
        state.retained_bytes = state.retained_bytes.saturating_sub(to_u64(bytes));
        if self.tables.posted.remove(sequence)?.is_some() {
            self.memory.left(size_of::<i64>());
        }
        Ok(())
    }
}

/// Calls `each` with the rows of all batches in `range`, none missing.
fn each_batch(
    batches: &Table<'_, u64, &'static [u8]>,
    range: RangeInclusive<Sequence>,
    mut each: impl FnMut(&BatchRow),
) -> Result<(), JournalError> {
    if range.is_empty() {
        return Ok(());
    }
    let mut expected = *range.start();
    for entry in batches.range(range.start().0..=range.end().0)? {
        let (sequence, row) = entry?;
        if sequence.value() != expected.0 {
            break;
        }
        each(&BatchRow::decode(row.value())?);
        expected = expected.next();
    }
    if expected == range.end().next() { Ok(()) } else { Err(missing("batch", expected.0)) }
}

fn keys(table: &Table<'_, u64, i64>, range: RangeInclusive<u64>) -> Result<Vec<u64>, JournalError> {
    table.range(range)?.map(|entry| Ok(entry?.0.value())).collect()
}
