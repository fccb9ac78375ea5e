//! How much the tables of a stopped ledger hold.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableHandle};

/// A line for each file, and for each of its tables.
pub(super) fn told(data_dir: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for file in ["ledger.redb", "totals.redb"] {
        let path = data_dir.join(file);
        lines.push(format!("{file:<22} {:>10} KiB", fs::metadata(&path)?.len() >> 10));
        let database = Database::open(&path)?;
        let read = database.begin_read()?;
        let mut tables = 0;
        for table in read.list_tables()? {
            let (name, table) = (table.name().to_owned(), read.open_untyped_table(table)?);
            let bytes = table.stats()?.stored_bytes();
            lines.push(format!("  {name:<20} {:>10} KiB  {} rows", bytes >> 10, table.len()?));
            tables += 1;
        }
        ensure!(tables > 0, "{file} holds no tables");
    }
    Ok(lines)
}
