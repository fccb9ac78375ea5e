//! The rows of the books in the ledger's file: within its transactions, and as of one moment.

use std::ops::ControlFlow;

use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError};

use super::{Fault, Inner, LEDGER_FILE};
use crate::archive::segment::Put;
use crate::ledger::books::BookRows;
use crate::ledger::check::LedgerTable;
use crate::ledger::store::{Books, StoreError, VisitRow};

pub(super) const BOOKS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("books");

/// The table, open in a transaction that writes.
pub(super) struct OpenBooks<'t> {
    pub(super) table: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) changed: bool,
    /// What was put, for the archive; `None`: there is none.
    pub(super) puts: Option<Vec<Put>>,
}

impl OpenBooks<'_> {
    fn note(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(puts) = &mut self.puts {
            let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
            puts.push(Put { table: LedgerTable::Books.number(), key, value });
        }
    }
}

impl BookRows for OpenBooks<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.table.get(key).map_err(Fault::read(LEDGER_FILE))?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.changed = true;
        self.note(key, Some(value));
        self.table.insert(key, value).map(drop).map_err(Fault::write(LEDGER_FILE))
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.note(key, None);
        self.table.remove(key).map(drop).map_err(Fault::write(LEDGER_FILE))
    }
}

/// The table as of one moment; none before anything was booked by any version.
struct SeenBooks(Option<ReadOnlyTable<&'static [u8], &'static [u8]>>);

impl Books for SeenBooks {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(table) = &self.0 else { return Ok(None) };
        let row = table.get(key).map_err(Fault::read(LEDGER_FILE))?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    fn visit(&self, prefix: &[u8], after: &[u8], visit: VisitRow<'_>) -> Result<(), StoreError> {
        let Some(table) = &self.0 else { return Ok(()) };
        let first = if after.is_empty() { prefix } else { after };
        for row in table.range(first..).map_err(Fault::read(LEDGER_FILE))? {
            let (key, value) = row.map_err(Fault::read(LEDGER_FILE))?;
            let (key, value) = (key.value(), value.value());
            if !key.starts_with(prefix) {
                break;
            }
            if key != after && visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl Inner {
    pub(super) fn books(&self) -> Result<Box<dyn Books>, StoreError> {
        let read = self.ledger.begin_read().map_err(Fault::read(LEDGER_FILE))?;
        let table = match read.open_table(BOOKS) {
            Ok(table) => Some(table),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(Fault::read(LEDGER_FILE)(error)),
        };
        Ok(Box::new(SeenBooks(table)))
    }
}
