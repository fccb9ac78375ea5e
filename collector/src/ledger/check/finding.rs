//! What a check found, named so that a person can act on it.

use std::fmt;

use tidemark_common::id::{Sequence, StreamId};

/// Of the findings this many are kept; all are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// A file that cannot be read, or not to its end.
    File,
    /// What the ledger says of itself.
    Meta,
    /// A batch whose header cannot be read.
    BatchHeader,
    /// A body that is not the one of its header.
    BatchBody,
    /// A position or sequence without a batch.
    BatchMissing,
    /// A batch that does not continue the digest of the one before.
    Chain,
    /// A batch whose events do not continue those before.
    EventNumbers,
    /// A stream's row that says other than its batches.
    StreamRow,
    /// The end of an opening.
    Opening,
    /// A quarantine of no batch.
    Quarantine,
    /// Marks of unauthorised lines that are not of their batch.
    Marks,
    /// Suppressed lines that are not of their batch, or ids of events that are not there.
    Suppressed,
    /// An entry, a document or a balance that does not hold together with the others.
    Books,
    /// A row of the totals that the batches do not come to.
    Totals,
    /// Events that are counted differently on two ways.
    Conservation,
}

impl FindingKind {
    /// The kind's name, in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Meta => "meta",
            Self::BatchHeader => "batch_header",
            Self::BatchBody => "batch_body",
            Self::BatchMissing => "batch_missing",
            Self::Chain => "chain",
            Self::EventNumbers => "event_numbers",
            Self::StreamRow => "stream_row",
            Self::Opening => "opening",
            Self::Quarantine => "quarantine",
            Self::Marks => "marks",
            Self::Suppressed => "suppressed",
            Self::Books => "books",
            Self::Totals => "totals",
            Self::Conservation => "conservation",
        }
    }

    /// Whether a batch, or what was judged of it, is damaged or not there, so that the totals may be the only ones to tell of it.
    #[must_use]
    pub fn is_of_batches(self) -> bool {
        match self {
            Self::File
            | Self::BatchHeader
            | Self::BatchBody
            | Self::BatchMissing
            | Self::Chain
            | Self::EventNumbers
            | Self::Marks
            | Self::Suppressed => true,
            Self::Meta
            | Self::StreamRow
            | Self::Opening
            | Self::Quarantine
            | Self::Books
            | Self::Totals
            | Self::Conservation => false,
        }
    }

    /// What to do.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::File
            | Self::Meta
            | Self::BatchHeader
            | Self::BatchBody
            | Self::BatchMissing
            | Self::Chain
            | Self::EventNumbers => {
                "keep this file, look at the disk, and restore the newest backup: agents send again what they retain"
            }
            Self::Marks => {
                "keep this file and restore the newest backup; the totals may be the only ones that tell which usage is unauthorised"
            }
            Self::Suppressed => {
                "keep this file and restore the newest backup: events may be billed twice, or not at all"
            }
            Self::Books => {
                "keep this file, and restore the newest backup: documents that were issued since must be found again before a billing run"
            }
            Self::StreamRow | Self::Opening => {
                "keep this file and restore the newest backup; the batches themselves are sound where nothing else is named"
            }
            Self::Quarantine => {
                "report it with the collector's version: the batch is kept, and its events are on no bill"
            }
            Self::Totals | Self::Conservation => {
                "stop the collector and move totals.redb away: its next start makes it anew from the batches"
            }
        }
    }
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file of `data_dir`.
    File(&'static str),
    Table(&'static str),
    /// A row of totals.redb, its key as people read it.
    Row {
        table: &'static str,
        key: String,
    },
    Stream(StreamId),
    /// `first` to `last` of one stream.
    Sequences {
        stream: StreamId,
        first: Sequence,
        last: Sequence,
    },
    Batch {
        stream: StreamId,
        sequence: Sequence,
        position: u64,
    },
    /// `first` to `last` of the ledger.
    Positions {
        first: u64,
        last: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => f.write_str(name),
            Self::Table(name) => write!(f, "table {name}"),
            Self::Row { table, key } => write!(f, "totals.redb, {table}: {key}"),
            Self::Stream(stream) => write!(f, "stream {stream}"),
            Self::Sequences { stream, first, last } => {
                write!(f, "stream {stream}, batches {first} to {last}")
            }
            Self::Batch { stream, sequence, position } => {
                write!(f, "stream {stream}, batch {sequence} at position {position}")
            }
            Self::Positions { first, last } if first == last => write!(f, "position {first}"),
            Self::Positions { first, last } => write!(f, "positions {first} to {last}"),
        }
    }
}

/// One break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: FindingKind,
    pub place: Place,
    /// Events concerned, where that is known.
    pub events: Option<u64>,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind.name(), self.place, self.what)?;
        match self.events {
            Some(events) => write!(f, " ({events} events)"),
            None => Ok(()),
        }
    }
}

/// All that was found: the first ones in full, the others by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    kept: Vec<Finding>,
    count: u64,
}

impl Findings {
    pub fn add(
        &mut self,
        kind: FindingKind,
        place: Place,
        events: Option<u64>,
        what: impl FnOnce() -> String,
    ) {
        self.count = self.count.saturating_add(1);
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(Finding { kind, place, events, what: what() });
        }
    }

    /// Takes over what another check found.
    pub fn extend(&mut self, others: Self) {
        self.count = self.count.saturating_add(others.count);
        let room = FINDINGS_MAX.saturating_sub(self.kept.len());
        self.kept.extend(others.kept.into_iter().take(room));
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first of them.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.kept.iter()
    }
}
