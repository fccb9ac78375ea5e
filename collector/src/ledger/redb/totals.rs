//! `totals.redb`: usage summed from the batches in `ledger.redb`. It can be deleted: a start rebuilds it.
//!
//! ```text
//! totals   total key -> total          uniques  unique key -> ()
//! seen     seen key -> seen            folded   stream [16] -> sequence u64
//! index    index key -> position u64   meta     name -> bytes
//! ```
//! The rows' bytes are drawn in `ledger/codec.rs`.
//!
//! **Owns** the file. Limit: a key has at most [`PARTS_MAX`] parts. Usage beyond stays in its batches, out
//! of the totals, and is missing from their count of events.
//!
//! Invariant: a fold's rows, folded sequences, index and position change in one
//! transaction.

mod all;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, TableError,
};
use tidemark_common::id::{CustomerId, LedgerId, Sequence, StreamId};
use tidemark_common::time::Bucket;

use super::{Fault, TOTALS_FILE};
use crate::ledger::codec;
use crate::ledger::fold::{FoldSlice, SeenUsage};
use crate::ledger::store::{StoreError, Totals, UsageQuestion, Visit};
use crate::usage::{Accumulator, Seen, UsageRow};

pub(super) const TOTALS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("totals");
pub(super) const UNIQUES: TableDefinition<'_, &[u8], ()> = TableDefinition::new("uniques");
pub(super) const SEEN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("seen");
pub(super) const FOLDED: TableDefinition<'_, &[u8; 16], u64> = TableDefinition::new("folded");
pub(super) const INDEX: TableDefinition<'_, &[u8; 24], u64> = TableDefinition::new("index");
const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

/// Raised when the file's layout changes: older files are rebuilt.
const FORMAT: u16 = 1;

/// A key has at most this many parts: each after the first stands for a sum beyond 128 bits, which
/// takes 10^14 of the largest quantities.
pub(super) const PARTS_MAX: u16 = 16;
/// A row of distinct values holds at most this many.
const UNIQUES_AT_ONCE_MAX: usize = 1_024;

/// The totals' file.
#[derive(Debug, Clone)]
pub(super) struct TotalsFile {
    database: Arc<Database>,
}

/// What the totals' file is derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Derivation {
    pub(super) ledger: LedgerId,
    /// All positions before this one are folded.
    pub(super) end_position: u64,
}

impl TotalsFile {
    pub(super) fn new(database: Database) -> Self {
        Self { database: Arc::new(database) }
    }

    /// What the file is derived from; `None` if it is new, or of a layout that this version rebuilds.
    pub(super) fn derivation(&self) -> Result<Option<Derivation>, StoreError> {
        let read = self.begin_read()?;
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(Fault::read(TOTALS_FILE)(error)),
        };
        let number = |name: &[u8]| -> Result<Option<u64>, StoreError> {
            let value = meta.get(name).map_err(Fault::read(TOTALS_FILE))?;
            Ok(value.and_then(|value| codec::Fields(value.value()).u64()))
        };
        if number(b"format")? != Some(u64::from(FORMAT)) {
            return Ok(None);
        }
        let ledger = meta.get(&b"ledger"[..]).map_err(Fault::read(TOTALS_FILE))?;
        let ledger = ledger.and_then(|value| codec::Fields(value.value()).array()).map(LedgerId);
        let (Some(ledger), Some(end_position)) = (ledger, number(b"end_position")?) else {
            return Ok(None);
        };
        Ok(Some(Derivation { ledger, end_position }))
    }

    /// Of how many streams there is anything in these totals.
    pub(super) fn folded_streams(&self) -> Result<u64, StoreError> {
        let read = self.begin_read()?;
        let folded = read.open_table(FOLDED).map_err(Fault::read(TOTALS_FILE))?;
        folded.len().map_err(Fault::read(TOTALS_FILE))
    }

    /// Whether the file has no tables yet.
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let read = self.begin_read()?;
        let mut tables = read.list_tables().map_err(Fault::read(TOTALS_FILE))?;
        Ok(tables.next().is_none())
    }

    /// Makes the tables of a new file.
    pub(super) fn create(&self, ledger: LedgerId) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(Fault::write(TOTALS_FILE))?;
        {
            let mut meta = write.open_table(META).map_err(Fault::write(TOTALS_FILE))?;
            let rows: [(&[u8], &[u8]); 4] = [
                (b"format", &u64::from(FORMAT).to_be_bytes()),
                (b"ledger", &ledger.0),
                (b"end_position", &0_u64.to_be_bytes()),
                (b"events", &0_u64.to_be_bytes()),
            ];
            for (name, value) in rows {
                meta.insert(name, value).map_err(Fault::write(TOTALS_FILE))?;
            }
            write.open_table(TOTALS).map_err(Fault::write(TOTALS_FILE))?;
            write.open_table(UNIQUES).map_err(Fault::write(TOTALS_FILE))?;
            write.open_table(SEEN).map_err(Fault::write(TOTALS_FILE))?;
            write.open_table(FOLDED).map_err(Fault::write(TOTALS_FILE))?;
            write.open_table(INDEX).map_err(Fault::write(TOTALS_FILE))?;
        }
        write.commit().map_err(Fault::write(TOTALS_FILE))
    }

    /// Adds a slice, if each of its streams is folded up to where it begins.
    pub(super) fn fold(&self, slice: &FoldSlice) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(Fault::write(TOTALS_FILE))?;
        {
            let mut folded = write.open_table(FOLDED).map_err(Fault::write(TOTALS_FILE))?;
            for (stream, range) in &slice.streams {
                let before = folded.get(&stream.0).map_err(Fault::read(TOTALS_FILE))?;
                let due = Sequence(before.map_or(0, |before| before.value())).next();
                if range.first != due {
                    return Err(StoreError::FoldedElsewhere {
                        stream: *stream,
                        due,
                        first: range.first,
                    });
                }
                folded.insert(&stream.0, range.last.0).map_err(Fault::write(TOTALS_FILE))?;
            }
            let mut index = write.open_table(INDEX).map_err(Fault::write(TOTALS_FILE))?;
            for (stream, sequence, position) in &slice.index {
                let key = codec::numbered_key(&stream.0, sequence.0);
                index.insert(&key, *position).map_err(Fault::write(TOTALS_FILE))?;
            }
            let mut totals = write.open_table(TOTALS).map_err(Fault::write(TOTALS_FILE))?;
            let mut uniques = write.open_table(UNIQUES).map_err(Fault::write(TOTALS_FILE))?;
            let mut left_out = 0_u64;
            for (key, parts) in &slice.totals {
                for usage in parts {
                    if let Added::Full = add_total(&mut totals, key, usage)? {
                        left_out = left_out.saturating_add(usage.events);
                        continue;
                    }
                    for unique in &usage.uniques {
                        let key = codec::unique_key(key, unique);
                        uniques.insert(key.as_slice(), ()).map_err(Fault::write(TOTALS_FILE))?;
                    }
                }
            }
            let mut seen = write.open_table(SEEN).map_err(Fault::write(TOTALS_FILE))?;
            add_seen(&mut seen, slice)?;
            let mut meta = write.open_table(META).map_err(Fault::write(TOTALS_FILE))?;
            if left_out > 0 {
                tracing::error!(
                    events = left_out,
                    parts_max = PARTS_MAX,
                    "usage does not fit into its rows and is left out of the totals; its batches are kept"
                );
            }
            // What is left out is missing here too, so that conservation shows it.
            let taken = slice.events.saturating_sub(left_out);
            let events = read_number(&meta, b"events")?.saturating_add(taken);
            let end = read_number(&meta, b"end_position")?.max(slice.end_position);
            for (name, number) in [(&b"events"[..], events), (b"end_position", end)] {
                meta.insert(name, &number.to_be_bytes()[..]).map_err(Fault::write(TOTALS_FILE))?;
            }
        }
        write.commit().map_err(Fault::write(TOTALS_FILE))
    }

    /// Where a folded batch stands in the ledger's file.
    pub(super) fn position(
        &self,
        stream: StreamId,
        sequence: Sequence,
    ) -> Result<Option<u64>, StoreError> {
        let read = self.begin_read()?;
        let index = read.open_table(INDEX).map_err(Fault::read(TOTALS_FILE))?;
        let key = codec::numbered_key(&stream.0, sequence.0);
        let position = index.get(&key).map_err(Fault::read(TOTALS_FILE))?;
        Ok(position.map(|position| position.value()))
    }

    pub(super) fn snapshot(&self) -> Result<TotalsSnapshot, StoreError> {
        Ok(TotalsSnapshot { read: self.begin_read()? })
    }

    /// Events in all rows, as counted when they were folded.
    pub(super) fn events(&self) -> Result<u64, StoreError> {
        self.snapshot()?.events()
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        self.database.begin_read().map_err(Fault::read(TOTALS_FILE))
    }
}

type Bytes = &'static [u8];

/// What became of usage that was to be added.
enum Added {
    Whole,
    /// All of its key's parts are full.
    Full,
}

/// Adds usage to its key's last part, or as one more part.
fn add_total(
    totals: &mut Table<'_, Bytes, Bytes>,
    key: &[u8],
    usage: &Accumulator,
) -> Result<Added, StoreError> {
    let (mut part, mut sum) = last_part(totals, key)?;
    if sum.merge(usage).is_err() {
        part = part.saturating_add(1);
        sum = usage.clone();
    }
    if part >= PARTS_MAX {
        return Ok(Added::Full);
    }
    let value = codec::write_total(&sum);
    let key = codec::with_part(key, part);
    totals.insert(key.as_slice(), &value[..]).map_err(Fault::write(TOTALS_FILE))?;
    Ok(Added::Whole)
}

/// The number and content of a key's last part; part 0 and nothing if it has none.
fn last_part(
    totals: &Table<'_, Bytes, Bytes>,
    key: &[u8],
) -> Result<(u16, Accumulator), StoreError> {
    let (first, last) = (codec::with_part(key, 0), codec::with_part(key, u16::MAX));
    let mut parts =
        totals.range(first.as_slice()..=last.as_slice()).map_err(Fault::read(TOTALS_FILE))?;
    let Some(row) = parts.next_back() else {
        return Ok((0, Accumulator::default()));
    };
    let (held, value) = row.map_err(Fault::read(TOTALS_FILE))?;
    let part = held.value().last_chunk().map_or(0, |part| u16::from_be_bytes(*part));
    let sum = codec::read_total(value.value()).map_err(Fault::row(TOTALS_FILE))?;
    Ok((part, sum))
}

fn add_seen(table: &mut Table<'_, Bytes, Bytes>, slice: &FoldSlice) -> Result<(), StoreError> {
    for ((customer, meter, seen_as), usage) in &slice.seen {
        let key = codec::seen_key(customer, meter, seen_as);
        let held = table.get(key.as_slice()).map_err(Fault::read(TOTALS_FILE))?;
        let held = held.map(|value| codec::read_seen(&key, value.value())).transpose();
        let sum = match held.map_err(Fault::row(TOTALS_FILE))? {
            Some(held) => {
                usage.and(SeenUsage { events: held.events, first: held.first, last: held.last })
            }
            None => *usage,
        };
        let value = codec::write_seen(sum.events, sum.first, sum.last);
        table.insert(key.as_slice(), &value[..]).map_err(Fault::write(TOTALS_FILE))?;
    }
    Ok(())
}

fn read_number(meta: &impl ReadableTable<Bytes, Bytes>, name: &[u8]) -> Result<u64, StoreError> {
    let value = meta.get(name).map_err(Fault::read(TOTALS_FILE))?;
    value.and_then(|value| codec::Fields(value.value()).u64()).ok_or_else(|| StoreError::Corrupt {
        file: TOTALS_FILE,
        reason: format!("{} is missing", String::from_utf8_lossy(name)),
    })
}

/// The totals at one moment.
pub(super) struct TotalsSnapshot {
    read: ReadTransaction,
}

impl TotalsSnapshot {
    /// Up to where each of these streams is folded, in their order.
    pub(super) fn folded_of(
        &self,
        streams: impl IntoIterator<Item = StreamId>,
    ) -> Result<Vec<Sequence>, StoreError> {
        let table = self.read.open_table(FOLDED).map_err(Fault::read(TOTALS_FILE))?;
        let folded = |stream: StreamId| {
            let sequence = table.get(&stream.0).map_err(Fault::read(TOTALS_FILE))?;
            Ok(Sequence(sequence.map_or(0, |sequence| sequence.value())))
        };
        streams.into_iter().map(folded).collect()
    }

    /// Shows one slot's rows of a customer, then their distinct values. Continues with the next slot
    /// that has rows of anybody.
    fn visit_slot(
        &self,
        slot: u32,
        question: &UsageQuestion<'_>,
        visit: Visit<'_, UsageRow>,
    ) -> Result<ControlFlow<(), Option<u32>>, StoreError> {
        let prefix = codec::total_prefix(slot, question.customer, question.meter);
        let totals = self.read.open_table(TOTALS).map_err(Fault::read(TOTALS_FILE))?;
        let (mut with_uniques, mut next) = (false, None);
        for row in totals.range(prefix.as_slice()..).map_err(Fault::read(TOTALS_FILE))? {
            let (key, value) = row.map_err(Fault::read(TOTALS_FILE))?;
            let key = key.value();
            if !key.starts_with(&prefix) {
                let found = key.first_chunk().map_or(slot, |slot| u32::from_be_bytes(*slot));
                next = Some(found.max(slot.saturating_add(1)));
                break;
            }
            if !codec::bucket_of(key).is_some_and(|bucket| question.covers(bucket)) {
                continue;
            }
            let mut row = codec::read_total_key(key).map_err(Fault::row(TOTALS_FILE))?;
            row.usage = codec::read_total(value.value()).map_err(Fault::row(TOTALS_FILE))?;
            with_uniques |= row.usage.unique_events > 0;
            if visit(row).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if with_uniques && self.visit_uniques(&prefix, question, visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(next))
    }

    fn visit_uniques(
        &self,
        prefix: &[u8],
        question: &UsageQuestion<'_>,
        visit: Visit<'_, UsageRow>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let uniques = self.read.open_table(UNIQUES).map_err(Fault::read(TOTALS_FILE))?;
        let mut gathered: Option<(Vec<u8>, UsageRow)> = None;
        for row in uniques.range(prefix..).map_err(Fault::read(TOTALS_FILE))? {
            let (key, _) = row.map_err(Fault::read(TOTALS_FILE))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let (total, unique) =
                codec::read_unique_key(key.value()).map_err(Fault::row(TOTALS_FILE))?;
            if let Some((key, row)) = &mut gathered
                && key == total
                && row.usage.uniques.len() < UNIQUES_AT_ONCE_MAX
            {
                row.usage.uniques.insert(unique);
                continue;
            }
            if let Some((_, row)) = gathered.take()
                && visit(row).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            let key = codec::with_part(total, 0);
            let mut row = codec::read_total_key(&key).map_err(Fault::row(TOTALS_FILE))?;
            if question.covers(row.bucket) {
                row.usage.uniques.insert(unique);
                gathered = Some((total.to_vec(), row));
            }
        }
        Ok(gathered.map_or(ControlFlow::Continue(()), |(_, row)| visit(row)))
    }
}

impl Totals for TotalsSnapshot {
    fn visit_usage(
        &self,
        question: &UsageQuestion<'_>,
        visit: Visit<'_, UsageRow>,
    ) -> Result<ControlFlow<()>, StoreError> {
        if question.from >= question.to {
            return Ok(ControlFlow::Continue(()));
        }
        let last = question.to.0.saturating_sub(1).div_euclid(codec::SLOT_BUCKETS);
        let mut due = Some(question.from.0.div_euclid(codec::SLOT_BUCKETS));
        while let Some(slot) = due.filter(|slot| *slot <= last) {
            due = match self.visit_slot(slot, question, visit)? {
                ControlFlow::Continue(next) => next,
                ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
            };
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_all(
        &self,
        from: Bucket,
        to: Bucket,
        visit: &mut dyn FnMut(&CustomerId, UsageRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        all::visit_all(&self.read, from, to, visit)
    }

    fn visit_seen(
        &self,
        after: &[u8],
        visit: Visit<'_, Seen>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let table = self.read.open_table(SEEN).map_err(Fault::read(TOTALS_FILE))?;
        let beyond = (Bound::Excluded(after), Bound::Unbounded);
        for row in table.range::<&[u8]>(beyond).map_err(Fault::read(TOTALS_FILE))? {
            let (key, value) = row.map_err(Fault::read(TOTALS_FILE))?;
            let seen = codec::read_seen(key.value(), value.value());
            if visit(seen.map_err(Fault::row(TOTALS_FILE))?).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn folded_sequences(
        &self,
        streams: HashSet<StreamId>,
    ) -> Result<HashMap<StreamId, Sequence>, StoreError> {
        let folded = self.folded_of(streams.iter().copied())?;
        Ok(streams.into_iter().zip(folded).collect())
    }

    fn end_position(&self) -> Result<u64, StoreError> {
        let meta = self.read.open_table(META).map_err(Fault::read(TOTALS_FILE))?;
        read_number(&meta, b"end_position")
    }

    fn events(&self) -> Result<u64, StoreError> {
        let meta = self.read.open_table(META).map_err(Fault::read(TOTALS_FILE))?;
        read_number(&meta, b"events")
    }
}
