//! Reads both programs' files after they have ended, and compares them byte by byte.
//!
//! What the agent sealed and retained is what the ledger holds, resends after restarts included; the
//! batches of a stream form one chain without holes from its genesis on; and their lines come to the
//! usage that was sent, by a sum of their own.
//!
//! **Owns** the knowledge of the two tables that it reads; formats.md and the heads of the two
//! `tables` say what is in them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use redb::{Database, ReadableDatabase, ReadableTable as _, TableDefinition};
use tidemark_common::batch::{Body, Header, SealedBatch};
use tidemark_common::id::{Sequence, StreamId};

use crate::expected::{Expected, Tally};

const SEALED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sealed");
const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");

/// What the files hold.
#[derive(Debug)]
pub struct Audit {
    pub batches: u64,
    /// Batches that the agent had retained, each the same in both files.
    pub compared: u64,
    /// The sums of all lines in the ledger.
    pub usage: Expected,
}

/// Compares the files in a stack's folder. Both programs must have ended.
///
/// # Errors
/// The first difference, broken link, or body that does not hold together.
pub fn audit(folder: &Path) -> Result<Audit> {
    let retained = rows(&folder.join("journal.redb"), SEALED)?;
    let posted = rows(&folder.join("ledger/ledger.redb"), BATCHES)?;
    let mut audit = Audit { batches: 0, compared: 0, usage: Expected::default() };
    let mut last: BTreeMap<StreamId, Header> = BTreeMap::new();
    for (position, bytes) in &posted {
        let (header, stored) = SealedBatch::split(bytes).context("a header of the ledger")?;
        let at = format!("position {position}, sequence {}", header.sequence.0);
        match last.get(&header.stream) {
            None => ensure!(header.sequence == Sequence(1), "{at}: the stream begins with it"),
            Some(before) => {
                let next = before.sequence.0.checked_add(1);
                ensure!(Some(header.sequence.0) == next, "{at} follows {}", before.sequence.0);
                ensure!(header.previous == before.digest(), "{at}: the chain is broken");
                ensure!(header.first_event == before.end_event, "{at}: events are missing");
            }
        }
        if let Some(sealed) = retained.get(&header.sequence.0) {
            ensure!(sealed == bytes, "{at}: the ledger's bytes are not the journal's");
            audit.compared = audit.compared.saturating_add(1);
        }
        let body = Body::open(&header, stored).with_context(|| at.clone())?;
        let mut events: u64 = 0;
        for line in body.lines {
            events = events.saturating_add(line.value.events);
            let tally = Tally { events: line.value.events, sum: line.value.sum };
            audit.usage.add_tally(line.key.customer.as_str(), line.key.meter.as_str(), tally)?;
        }
        ensure!(events == header.events(), "{at}: {events} events, {} numbered", header.events());
        audit.batches = audit.batches.saturating_add(1);
        last.insert(header.stream, header);
    }
    Ok(audit)
}

/// All rows of a table.
fn rows(file: &Path, table: TableDefinition<'_, u64, &[u8]>) -> Result<BTreeMap<u64, Vec<u8>>> {
    let read = || -> Result<BTreeMap<u64, Vec<u8>>, redb::Error> {
        let database = Database::open(file)?;
        let table = database.begin_read()?.open_table(table)?;
        let mut rows = BTreeMap::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.insert(key.value(), value.value().to_vec());
        }
        Ok(rows)
    };
    read().with_context(|| format!("failed to read {}", file.display()))
}
