//! The rows of retired streams, in `ledger.redb`.
//!
//! ```text
//! retired       at u64 + stream [16] -> stream row (ledger/codec.rs), ascending by when they retired
//! retired_ids   stream [16] -> at u64
//! agents        agent's name -> ()       of every stream that ever retired
//! ```
//! **Owns** these tables; the last two are derived from the first, and stand in no backup. They are made when the
//! first stream retires. **Does not own** when that is (`ledger/retired.rs`).
//!
//! Invariant: a stream has a row here or in `streams`, never in both.

use std::ops::{Bound, ControlFlow};

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    TableError, WriteTransaction,
};
use tidemark_common::id::StreamId;
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

use super::{Fault, LEDGER_FILE};
use crate::ledger::codec::{self, Fields};
use crate::ledger::retired::RetiredStream;
use crate::ledger::store::{Retired, StoreError, Visit};
use crate::ledger::stream::StreamRecord;

pub(super) const RETIRED: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("retired");
const RETIRED_IDS: TableDefinition<'_, &[u8; 16], u64> = TableDefinition::new("retired_ids");
const AGENTS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("agents");
/// What is made of the rows of others.
pub(super) const DERIVED: [&str; 2] = ["retired_ids", "agents"];
/// The name in `meta` of what all rows come to.
pub(crate) const SUMS: &[u8] = b"retired";

/// The tables, to be written.
pub(super) struct RetiredTables<'t> {
    rows: Table<'t, &'static [u8; 24], &'static [u8]>,
    ids: Table<'t, &'static [u8; 16], u64>,
    agents: Table<'t, &'static [u8], ()>,
}

impl<'t> RetiredTables<'t> {
    pub(super) fn open(write: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            rows: write.open_table(RETIRED).map_err(Fault::write(LEDGER_FILE))?,
            ids: write.open_table(RETIRED_IDS).map_err(Fault::write(LEDGER_FILE))?,
            agents: write.open_table(AGENTS).map_err(Fault::write(LEDGER_FILE))?,
        })
    }

    pub(super) fn insert(
        &mut self,
        at: Timestamp,
        record: &StreamRecord,
    ) -> Result<(), StoreError> {
        let row = codec::write_stream(record).map_err(Fault::row(LEDGER_FILE))?;
        self.insert_row(&key(at, record.stream), &row, &record.agent)
    }

    /// The same, with a row as it stood in another ledger.
    pub(super) fn insert_row(
        &mut self,
        key: &[u8; 24],
        row: &[u8],
        agent: &AgentName,
    ) -> Result<(), StoreError> {
        let (at, stream) = read_key(key);
        self.rows.insert(key, row).map_err(Fault::write(LEDGER_FILE))?;
        self.ids.insert(&stream.0, millis(at)).map_err(Fault::write(LEDGER_FILE))?;
        self.agents.insert(agent.as_str().as_bytes(), ()).map_err(Fault::write(LEDGER_FILE))?;
        Ok(())
    }

    /// Takes a stream out, if it retired. That its agent was ever here stays known.
    pub(super) fn take(&mut self, stream: StreamId) -> Result<Option<RetiredStream>, StoreError> {
        let found = find(&self.ids, &self.rows, stream)?;
        if let Some(found) = &found {
            self.ids.remove(&stream.0).map_err(Fault::write(LEDGER_FILE))?;
            let key = key(found.at, stream);
            self.rows.remove(&key).map_err(Fault::write(LEDGER_FILE))?;
        }
        Ok(found)
    }
}

/// The tables as of one moment.
pub(super) struct ReadTables {
    rows: ReadOnlyTable<&'static [u8; 24], &'static [u8]>,
    ids: ReadOnlyTable<&'static [u8; 16], u64>,
    agents: ReadOnlyTable<&'static [u8], ()>,
}

impl ReadTables {
    /// `None` of a ledger of which no stream ever retired.
    pub(super) fn of(read: &ReadTransaction) -> Result<Option<Self>, StoreError> {
        let rows = match read.open_table(RETIRED) {
            Ok(rows) => rows,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(Fault::read(LEDGER_FILE)(error)),
        };
        let ids = read.open_table(RETIRED_IDS).map_err(Fault::read(LEDGER_FILE))?;
        let agents = read.open_table(AGENTS).map_err(Fault::read(LEDGER_FILE))?;
        Ok(Some(Self { rows, ids, agents }))
    }

    pub(super) fn find(&self, stream: StreamId) -> Result<Option<RetiredStream>, StoreError> {
        find(&self.ids, &self.rows, stream)
    }
}

/// Shows all rows as they stand, once it is certain that as many are found by their ids.
pub(super) fn show_rows<E: From<StoreError>>(
    read: &ReadTransaction,
    mut show: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let Some(ReadTables { rows, ids, .. }) = ReadTables::of(read)? else { return Ok(()) };
    let count = rows.len().map_err(Fault::read(LEDGER_FILE))?;
    let found = ids.len().map_err(Fault::read(LEDGER_FILE))?;
    if count != found {
        let reason = format!("{found} of {count} retired streams are found by their ids");
        return Err(StoreError::Corrupt { file: LEDGER_FILE, reason }.into());
    }
    for row in rows.iter().map_err(Fault::read(LEDGER_FILE))? {
        let (key, row) = row.map_err(Fault::read(LEDGER_FILE))?;
        show(key.value(), row.value())?;
    }
    Ok(())
}

/// The retired streams as of one moment.
pub(super) struct RetiredSnapshot {
    pub(super) read: ReadTransaction,
}

impl Retired for RetiredSnapshot {
    fn find(&self, stream: StreamId) -> Result<Option<RetiredStream>, StoreError> {
        ReadTables::of(&self.read)?.map_or(Ok(None), |tables| tables.find(stream))
    }

    fn visit_since(
        &self,
        since: Timestamp,
        visit: Visit<'_, RetiredStream>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let Some(ReadTables { rows, .. }) = ReadTables::of(&self.read)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let first = key(since, StreamId([0; 16]));
        for row in rows.range::<&[u8; 24]>(&first..).map_err(Fault::read(LEDGER_FILE))? {
            let (key, row) = row.map_err(Fault::read(LEDGER_FILE))?;
            if visit(read(key.value(), row.value())?).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_after(
        &self,
        after: Option<StreamId>,
        visit: Visit<'_, RetiredStream>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let Some(ReadTables { rows, ids, .. }) = ReadTables::of(&self.read)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let after = after.map(|after| after.0);
        let first = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = (first, Bound::Unbounded);
        for row in ids.range::<&[u8; 16]>(range).map_err(Fault::read(LEDGER_FILE))? {
            let (stream, at) = row.map_err(Fault::read(LEDGER_FILE))?;
            let found = row_of(&rows, StreamId(*stream.value()), at.value())?;
            if visit(found).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn has_agent(&self, agent: &AgentName) -> Result<bool, StoreError> {
        let Some(ReadTables { agents, .. }) = ReadTables::of(&self.read)? else { return Ok(false) };
        let found = agents.get(agent.as_str().as_bytes()).map_err(Fault::read(LEDGER_FILE))?;
        Ok(found.is_some())
    }
}

fn find(
    ids: &impl ReadableTable<&'static [u8; 16], u64>,
    rows: &impl ReadableTable<&'static [u8; 24], &'static [u8]>,
    stream: StreamId,
) -> Result<Option<RetiredStream>, StoreError> {
    let at = ids.get(&stream.0).map_err(Fault::read(LEDGER_FILE))?.map(|at| at.value());
    at.map(|at| row_of(rows, stream, at)).transpose()
}

fn row_of(
    rows: &impl ReadableTable<&'static [u8; 24], &'static [u8]>,
    stream: StreamId,
    at: u64,
) -> Result<RetiredStream, StoreError> {
    let key = key(Timestamp(i64::try_from(at).unwrap_or(i64::MAX)), stream);
    let row = rows.get(&key).map_err(Fault::read(LEDGER_FILE))?;
    let row = row.ok_or_else(|| StoreError::Corrupt {
        file: LEDGER_FILE,
        reason: format!("the row of the retired stream {stream} is missing"),
    })?;
    read(&key, row.value())
}

fn read(key: &[u8; 24], row: &[u8]) -> Result<RetiredStream, StoreError> {
    let (at, _) = read_key(key);
    let record = codec::read_stream(row).map_err(Fault::row(LEDGER_FILE))?;
    Ok(RetiredStream { at, record })
}

/// A row's key.
fn key(at: Timestamp, stream: StreamId) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&millis(at).to_be_bytes());
    key[8..].copy_from_slice(&stream.0);
    key
}

fn read_key(key: &[u8; 24]) -> (Timestamp, StreamId) {
    let mut fields = Fields(key);
    let at = fields.u64().and_then(|at| i64::try_from(at).ok()).unwrap_or(i64::MAX);
    (Timestamp(at), StreamId(fields.array().unwrap_or_default()))
}

/// Ledger time begins after 1970.
fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.0).unwrap_or(0)
}
