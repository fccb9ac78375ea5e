//! The ids of events in `ledger.redb`, and the lines that they suppress.
//!
//! ```text
//! ids          id key -> id                      of first events, until no look-up can find them
//! suppressed   position u64 -> suppressed lines  of batches with some, for as long as the batches
//! ```
//! The rows' bytes are drawn in `ledger/duplicates.rs`.
//!
//! **Owns** both tables. **Does not own** the judgement.
//!
//! Keys begin with a span of ledger time: what nobody can find any more stands together, at the table's beginning,
//! and is removed from there, a bounded number of rows in one transaction.

use redb::{ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use tidemark_common::id::{Sequence, StreamId};
use tidemark_common::time::Bucket;

use super::recover::Judged;
use super::{BATCHES, Fault, Inner, LEDGER_FILE, archive, read_header};
use crate::archive::segment::Put;
use crate::ledger::check::LedgerTable;
use crate::ledger::duplicates::{
    self, IdVerdict, Known, LinePlace, Span, Suppressed, SuppressedLine,
};
use crate::ledger::request::Opened;
use crate::ledger::store::{StoreError, VisitSuppressed};
use crate::usage::Class;

pub(super) const IDS: TableDefinition<'_, &[u8; 18], &[u8; 32]> = TableDefinition::new("ids");
pub(super) const SUPPRESSED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("suppressed");

/// A group that knows no new ids removes at most this many old ones; one that does, twice as many besides.
const REMOVED_MAX: usize = 1_024;

type Ids<'w> = Table<'w, &'static [u8; 18], &'static [u8; 32]>;

/// Judges the lines with ids of a batch that is being admitted, knows the new ones, and marks the others; how many
/// events these hold.
pub(super) fn judge(
    write: &WriteTransaction,
    (stream, sequence): (StreamId, Sequence),
    opened: &mut Opened,
    now: Bucket,
    redo: &mut Option<u64>,
) -> Result<u64, StoreError> {
    let Opened::Readable { marks, ids, .. } = opened else { return Ok(0) };
    if ids.is_empty() {
        return Ok(0);
    }
    let mut puts = Vec::new();
    let mut table = write.open_table(IDS).map_err(Fault::write(LEDGER_FILE))?;
    let mut suppressed = Suppressed::default();
    for line_id in ids {
        let line = line_id.line;
        match marks.class(usize::try_from(line).unwrap_or(usize::MAX)) {
            Class::Normal => {}
            Class::Unauthorised | Class::Suppressed => continue,
        }
        let span = Span::of(now);
        let known = match known(&table, span.key(line_id.id))? {
            None => known(&table, span.before().key(line_id.id))?,
            found => found,
        };
        match duplicates::judge(known, now) {
            IdVerdict::Again { first } => suppressed.push(SuppressedLine { line, first }),
            IdVerdict::First => {
                let place = LinePlace { stream, sequence, line };
                let held = Known { admitted: now, place }.bytes();
                let key = span.key(line_id.id);
                table.insert(&key, &held).map_err(Fault::write(LEDGER_FILE))?;
                if redo.is_some() {
                    let (table, value) = (LedgerTable::Ids.number(), Some(held.to_vec()));
                    puts.push(Put { table, key: key.to_vec(), value });
                }
            }
        }
    }
    archive::note_puts(write, redo, puts)?;
    Ok(opened.suppress(suppressed))
}

fn known(table: &Ids<'_>, key: [u8; 18]) -> Result<Option<Known>, StoreError> {
    let held = table.get(&key).map_err(Fault::read(LEDGER_FILE))?;
    let known = held.map(|held| Known::read(held.value())).transpose();
    known.map_err(Fault::row(LEDGER_FILE))
}

/// Removes ids that no look-up can find any more, when `judged` were looked for.
pub(super) fn remove_old(
    write: &WriteTransaction,
    now: Bucket,
    judged: usize,
) -> Result<(), StoreError> {
    let mut table = write.open_table(IDS).map_err(Fault::write(LEDGER_FILE))?;
    let end = Span::of(now).before().start();
    for _ in 0..REMOVED_MAX.saturating_add(judged.saturating_mul(2)) {
        if !begins_before(&table, &end)? {
            break;
        }
        table.pop_first().map_err(Fault::write(LEDGER_FILE))?;
    }
    Ok(())
}

fn begins_before(table: &Ids<'_>, end: &[u8; 18]) -> Result<bool, StoreError> {
    let first = table.first().map_err(Fault::read(LEDGER_FILE))?;
    Ok(first.is_some_and(|(key, _)| key.value() < end))
}

impl Inner {
    /// Shows batches with suppressed lines from `position` on, until `visit` breaks.
    pub(super) fn visit_suppressed(
        &self,
        position: u64,
        visit: VisitSuppressed<'_>,
    ) -> Result<(), StoreError> {
        let read = self.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        let table = read.open_table(SUPPRESSED).map_err(Fault::read(LEDGER_FILE))?;
        let batches = read.open_table(BATCHES).map_err(Fault::read(LEDGER_FILE))?;
        let judged = Judged::of(&read, self.bodies.clone())?;
        for row in table.range(position..).map_err(Fault::read(LEDGER_FILE))? {
            let (position, _) = row.map_err(Fault::read(LEDGER_FILE))?;
            let position = position.value();
            let Some(bytes) = batches.get(position).map_err(Fault::read(LEDGER_FILE))? else {
                continue;
            };
            let header = read_header(bytes.value())?;
            let opened = judged.open(position, bytes.value())?;
            if let Opened::Readable { lines, suppressed, .. } = &opened
                && visit(position, &header, lines, suppressed).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}
