//! What a backup says of itself: `manifest.json`, written last.
//!
//! **Owns** its shape and the line of a stream. A folder without it is no backup.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::rows::Written;
use crate::ledger::check::{Checked, LedgerCounts, LedgerFacts, StreamChain};

/// The files of a backup.
pub const MANIFEST: &str = "manifest.json";
pub const ROWS: &str = "ledger.rows";
pub const STREAMS: &str = "streams.jsonl";
/// Which incarnations were given to ledgers restored from it; grows with each.
pub const RESTORES: &str = "restores.jsonl";
/// The version of this shape.
pub const FORMAT: u16 = 1;

/// A backup's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u16,
    /// The program that made it.
    pub made_by: String,
    pub ledger: String,
    /// The format of the ledger's rows.
    pub ledger_format: u16,
    pub incarnation: u32,
    /// No ledger time after this was shown to anybody by then; unix milliseconds.
    pub ledger_time_limit: i64,
    pub batches: u64,
    pub batch_bytes: u64,
    pub events: u64,
    pub quarantined_batches: u64,
    pub quarantined_events: u64,
    pub streams: u64,
    pub rows_file: FileEntry,
    /// Its digest is the root over all streams' posted sequences and digests.
    pub streams_file: FileEntry,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

impl FileEntry {
    #[must_use]
    pub fn new(name: &str, written: Written) -> Self {
        Self {
            name: name.to_owned(),
            bytes: written.bytes,
            sha256: tidemark_common::hex::encode(&written.sha256),
        }
    }
}

impl Manifest {
    /// Describes what was walked and written.
    #[must_use]
    pub fn new(checked: &Checked, rows: Written, streams: Written) -> Self {
        let LedgerFacts { format, ledger, incarnation, clock_limit, checkpoint: _ } = checked.facts;
        let LedgerCounts { batches, batch_bytes, events, .. } = checked.counts;
        Self {
            format: FORMAT,
            made_by: format!("tidemark-collector {}", env!("CARGO_PKG_VERSION")),
            ledger: ledger.map(|ledger| ledger.to_string()).unwrap_or_default(),
            ledger_format: format,
            incarnation,
            ledger_time_limit: clock_limit,
            batches,
            batch_bytes,
            events,
            quarantined_batches: checked.counts.quarantined_batches,
            quarantined_events: checked.counts.quarantined_events,
            streams: checked.counts.streams,
            rows_file: FileEntry::new(ROWS, rows),
            streams_file: FileEntry::new(STREAMS, streams),
        }
    }
}

impl Manifest {
    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> [u64; 6] {
        [
            self.batches,
            self.batch_bytes,
            self.events,
            self.quarantined_batches,
            self.quarantined_events,
            self.streams,
        ]
    }

    /// One line for people.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { ledger, incarnation, batches, events, streams, .. } = self;
        format!(
            "ledger {ledger}, incarnation {incarnation}, {batches} batches with {events} events in {streams} streams, \
             {} bytes",
            self.rows_file.bytes
        )
    }

    /// Which ledger it is of, and from when.
    #[must_use]
    pub fn identity(&self) -> (&str, u16, u32, i64) {
        (&self.ledger, self.ledger_format, self.incarnation, self.ledger_time_limit)
    }
}

/// How far one stream was posted.
#[derive(Debug, Serialize)]
struct StreamLine<'a> {
    stream: String,
    agent: Option<&'a str>,
    posted_sequence: u64,
    posted_digest: String,
    posted_events: u64,
    accepted: Option<u64>,
}

/// Writes one line a stream, and hashes them.
///
/// # Errors
/// If they cannot be written.
pub fn write_streams(chains: &[StreamChain], output: &mut impl Write) -> io::Result<Written> {
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    for chain in chains {
        let line = StreamLine {
            stream: chain.stream.to_string(),
            agent: chain.row.as_ref().map(|row| row.agent.as_str()),
            posted_sequence: chain.walked.sequence.0,
            posted_digest: chain.walked.digest.to_string(),
            posted_events: chain.walked.end.0,
            accepted: chain.row.as_ref().map(|row| row.accepted),
        };
        let mut line = serde_json::to_vec(&line).map_err(io::Error::other)?;
        line.push(b'\n');
        hash.update(&line);
        bytes = bytes.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        output.write_all(&line)?;
    }
    Ok(Written { bytes, sha256: hash.finalize().into() })
}

/// Reads the manifest of the backup in `folder`.
///
/// # Errors
/// If there is none, or it is no manifest.
pub fn read(folder: &Path) -> io::Result<Manifest> {
    serde_json::from_reader(io::BufReader::new(File::open(folder.join(MANIFEST))?))
        .map_err(io::Error::other)
}
