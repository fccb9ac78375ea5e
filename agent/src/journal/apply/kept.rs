//! What the journal keeps beside events: ids, dead letters, the numbers of sources.
//!
//! **Owns** their bounds: each is kept up to a number and a size or an age, the oldest leave first; at the
//! journal's budget they make room for events. **Does
//! not own** what a duplicate or a gap is: the intake judges.

use redb::{ReadableTable, ReadableTableMetadata};

use super::{ROWS_DROPPED_MAX, Transaction, to_u64};
use crate::event::{IdDigest, SourceCount};
use crate::journal::JournalError;
use crate::journal::record::{
    Record, SourceRow, decode_ids, encode_dead_letter, encode_ids, ids_in,
};
use crate::journal::write::DeadLetter;

/// The last numbers of at most this many sources are kept; a quarter of them, the longest silent, leave at once.
pub(in crate::journal) const SOURCES_MAX: usize = 4_096;

/// At the budget the oldest ids leave too, down to this many: retries come soon after.
const IDS_KEPT_WHEN_TIGHT: u64 = 10_000;

impl Transaction<'_, '_> {
    pub(super) fn is_tight(&self) -> bool {
        self.budget.is_tight(self.memory.state.live_bytes, self.memory.largest_batch)
    }

    pub(super) fn remember(&mut self, ids: &[IdDigest]) -> Result<(), JournalError> {
        if ids.is_empty() {
            return Ok(());
        }
        let memory = &mut self.memory;
        let record = encode_ids(self.age_now, ids);
        self.tables.ids.insert(memory.next_ids_row, record.as_slice())?;
        memory.next_ids_row = memory.next_ids_row.saturating_add(1);
        memory.ids_oldest = memory.ids_oldest.or(Some(self.age_now));
        memory.state.ids = memory.state.ids.saturating_add(to_u64(ids.len()));
        memory.took(record.len());
        Ok(())
    }

    pub(super) fn drop_ids(&mut self) -> Result<(), JournalError> {
        let horizon = self.age_now.plus_millis(self.options.ids_window_millis.saturating_neg());
        for _ in 0..ROWS_DROPPED_MAX {
            let ids = self.memory.state.ids;
            let too_many = ids > to_u64(self.options.ids_max)
                || (ids > IDS_KEPT_WHEN_TIGHT && self.is_tight());
            if !too_many && self.memory.ids_oldest.is_none_or(|oldest| oldest >= horizon) {
                break;
            }
            let dropped = self.tables.ids.pop_first()?.map(|(_, row)| row.value().len());
            if let Some(value_bytes) = dropped {
                self.memory.left(value_bytes);
                let left = self.memory.state.ids.saturating_sub(to_u64(ids_in(value_bytes)));
                self.memory.state.ids = left;
            }
            self.memory.ids_oldest = match self.tables.ids.first()? {
                Some((_, row)) => Some(decode_ids(row.value())?.0),
                None => None,
            };
        }
        Ok(())
    }

    pub(super) fn keep_letters(&mut self, letters: Vec<DeadLetter>) -> Result<(), JournalError> {
        let surplus = letters.len().saturating_sub(self.options.dead_letters_max);
        for letter in letters.into_iter().skip(surplus) {
            let record = encode_dead_letter(letter);
            if record.len() > self.options.dead_letter_bytes_max {
                continue;
            }
            let memory = &mut self.memory;
            self.tables.dead_letters.insert(memory.next_dead_letter, record.as_slice())?;
            memory.next_dead_letter = memory.next_dead_letter.saturating_add(1);
            memory.state.dead_letters = memory.state.dead_letters.saturating_add(1);
            memory.state.dead_letter_bytes =
                memory.state.dead_letter_bytes.saturating_add(to_u64(record.len()));
            memory.took(record.len());
        }
        Ok(())
    }

    pub(super) fn remove_letters(&mut self, numbers: &[u64]) -> Result<(), JournalError> {
        for number in numbers {
            let removed = self.tables.dead_letters.remove(*number)?.map(|row| row.value().len());
            if let Some(value_bytes) = removed {
                self.letter_left(value_bytes);
            }
        }
        Ok(())
    }

    fn letter_left(&mut self, value_bytes: usize) {
        self.memory.left(value_bytes);
        let state = &mut self.memory.state;
        state.dead_letters = state.dead_letters.saturating_sub(1);
        state.dead_letter_bytes = state.dead_letter_bytes.saturating_sub(to_u64(value_bytes));
    }

    pub(super) fn drop_letters(&mut self) -> Result<(), JournalError> {
        for _ in 0..ROWS_DROPPED_MAX {
            let state = &self.memory.state;
            let too_many = state.dead_letters > to_u64(self.options.dead_letters_max)
                || state.dead_letter_bytes > to_u64(self.options.dead_letter_bytes_max);
            if !too_many && !self.is_tight() {
                break;
            }
            let Some(value_bytes) =
                self.tables.dead_letters.pop_first()?.map(|(_, row)| row.value().len())
            else {
                break;
            };
            self.letter_left(value_bytes);
        }
        Ok(())
    }

    pub(super) fn keep_sources(&mut self, counts: &[SourceCount]) -> Result<(), JournalError> {
        for SourceCount { source, count } in counts {
            let record = SourceRow { count: *count, at: self.now }.encode();
            let before = self
                .tables
                .sources
                .insert(source.as_bytes(), record.as_slice())?
                .map(|old| old.value().len());
            if let Some(value_bytes) = before {
                self.memory.left(value_bytes.saturating_add(source.len()));
            }
            self.memory.took(record.len().saturating_add(source.len()));
        }
        if self.tables.sources.len()? <= to_u64(SOURCES_MAX) {
            return Ok(());
        }
        let mut silent = Vec::new();
        for entry in self.tables.sources.iter()? {
            let (source, row) = entry?;
            silent.push((SourceRow::decode(row.value())?.at, source.value().to_vec()));
        }
        silent.sort_unstable();
        silent.truncate(silent.len().saturating_sub(SOURCES_MAX).saturating_add(SOURCES_MAX / 4));
        for (_, source) in silent {
            let value_bytes =
                self.tables.sources.remove(source.as_slice())?.map(|row| row.value().len());
            self.memory.left(value_bytes.unwrap_or_default().saturating_add(source.len()));
        }
        Ok(())
    }
}
