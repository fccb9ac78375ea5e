//! Checks a ledger row by row: every chain, event number, body, stream row and opening.
//!
//! **Owns** what holds together in a sound ledger, and how a break is named. **Does not own** where the
//! rows come from (a file, a running collector, a backup) or the totals (`ledger/redb/compare.rs`).
//!
//! Rows come in the order of [`LedgerTable`]: what is known of the streams first, then the batches by
//! position. A break is named once: the walk goes on from where the batch stands.
//!
//! Limits: memory holds one entry for each stream, live or retired, for each opening and quarantined
//! batch, and the marks and suppressed lines of each batch that has some; of the findings the first [`FINDINGS_MAX`] are kept, all are counted.

mod finding;
mod left;
mod retired;
mod suppressed;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemark_common::batch::{Header, SealedBatch};
use tidemark_common::id::{EventNumber, LedgerId, OpeningId, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

pub use self::finding::{FINDINGS_MAX, Finding, FindingKind, Findings, Place};
use self::left::{Found, LeftCheck};
use self::retired::RetiredCheck;
use self::suppressed::SuppressedCheck;
pub use self::walk::StreamRow;
use self::walk::{Walk, Walked};
use crate::archive::segment::Puts;
use crate::ledger::books::check::BooksCheck;
use crate::ledger::codec::{self, Fields, GIVEN_AWAY};
use crate::ledger::redb::{ARCHIVE_LEFT, FORMAT_WITH_BOOKS, FORMAT_WITHOUT_MARKS};
use crate::ledger::request::{Opened, Stored};
use crate::ledger::store::StoredBodies;
use crate::ledger::stream::StreamRecord;
use crate::ledger::tail::TailBatch;

/// The tables of a ledger, in the order in which their rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LedgerTable {
    Meta,
    Streams,
    Retired,
    Openings,
    Quarantine,
    Marks,
    Books,
    Ids,
    Suppressed,
    Redo,
    Batches,
}

impl LedgerTable {
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Streams,
        Self::Retired,
        Self::Openings,
        Self::Quarantine,
        Self::Marks,
        Self::Books,
        Self::Ids,
        Self::Suppressed,
        Self::Redo,
        Self::Batches,
    ];

    /// The table's name in the ledger's file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Streams => "streams",
            Self::Retired => "retired",
            Self::Openings => "openings",
            Self::Quarantine => "quarantine",
            Self::Marks => "marks",
            Self::Books => "books",
            Self::Ids => "ids",
            Self::Suppressed => "suppressed",
            Self::Redo => "redo",
            Self::Batches => "batches",
        }
    }

    /// The table's byte in a backup. Marks and those below came after the others had theirs.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Streams => 2,
            Self::Openings => 3,
            Self::Quarantine => 4,
            Self::Batches => 5,
            Self::Marks => 6,
            Self::Books => 7,
            Self::Redo => 11,
            Self::Retired => 8,
            Self::Ids => 9,
            Self::Suppressed => 10,
        }
    }

    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }
}

/// Whether bodies are opened: decompression and hashing of all that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    Open,
    Leave,
}

/// What the ledger says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerFacts {
    pub format: u16,
    pub ledger: Option<LedgerId>,
    pub incarnation: u32,
    pub clock_limit: i64,
    pub checkpoint: u64,
}

/// What was counted on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    pub batches: u64,
    pub batch_bytes: u64,
    /// By the headers.
    pub events: u64,
    pub quarantined_batches: u64,
    pub quarantined_events: u64,
    /// In the lines of the bodies that were opened.
    pub line_events: u64,
    /// The retired ones included.
    pub streams: u64,
    pub retired_streams: u64,
    /// Of the books.
    pub entries: u64,
    /// Invoices and credit notes.
    pub documents: u64,
    /// Whose bodies have left for the archive, and were not looked at.
    pub left_batches: u64,
}

/// One stream, as its batches tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamChain {
    pub stream: StreamId,
    pub walked: Walked,
    /// The row, where it can be read.
    pub row: Option<StreamRow>,
}

/// A batch whose place is known; its lines, if bodies are opened.
#[derive(Debug)]
pub struct CheckedBatch {
    pub header: Header,
    pub position: u64,
    /// Whose it is, by its stream's row.
    pub agent: Option<AgentName>,
    pub opened: Option<Opened>,
    /// With its body, where that has left the ledger and was fetched.
    pub fetched: Option<Vec<u8>>,
}

impl CheckedBatch {
    /// The batch, to be folded; `None` if its stream has no row.
    #[must_use]
    pub fn into_tail(self) -> Option<TailBatch> {
        let lines = self.opened.and_then(Opened::lines);
        Some(TailBatch::new(&self.header, self.agent?, self.position, Timestamp(0), lines))
    }
}

/// A ledger that was walked to its end.
#[derive(Debug)]
pub struct Checked {
    pub facts: LedgerFacts,
    pub counts: LedgerCounts,
    pub chains: Vec<StreamChain>,
    pub findings: Findings,
}

/// The walk over a ledger's rows.
#[derive(Debug)]
pub struct Checker {
    bodies: Bodies,
    facts: LedgerFacts,
    rows: BTreeMap<StreamId, StreamRow>,
    retired: RetiredCheck,
    openings: BTreeMap<(StreamId, OpeningId), EventNumber>,
    quarantine: BTreeMap<u64, String>,
    marks: BTreeMap<u64, Vec<u8>>,
    suppressed: SuppressedCheck,
    books: BooksCheck,
    /// The last transaction that is noted for the archive.
    noted: Option<u64>,
    left: LeftCheck,
    walk: Walk,
    counts: LedgerCounts,
    findings: Findings,
}

impl Checker {
    #[must_use]
    pub fn new(bodies: Bodies) -> Self {
        Self {
            bodies,
            facts: LedgerFacts::default(),
            rows: BTreeMap::new(),
            retired: RetiredCheck::default(),
            openings: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            marks: BTreeMap::new(),
            suppressed: SuppressedCheck::default(),
            books: BooksCheck::default(),
            noted: None,
            left: LeftCheck::default(),
            walk: Walk::default(),
            counts: LedgerCounts::default(),
            findings: Findings::default(),
        }
    }

    /// Says where the bodies are that have left the ledger.
    #[must_use]
    pub fn with_bodies(mut self, bodies: Option<Arc<dyn StoredBodies>>) -> Self {
        self.left.bodies = bodies;
        self
    }

    /// Takes the next row. A batch that can be placed is given back.
    pub fn row(&mut self, table: LedgerTable, key: &[u8], value: &[u8]) -> Option<CheckedBatch> {
        match table {
            LedgerTable::Meta => self.meta(key, value),
            LedgerTable::Streams => self.live(key, value),
            LedgerTable::Retired => self.retired(key, value),
            LedgerTable::Openings => self.opening(key, value),
            LedgerTable::Quarantine => self.quarantined(key, value),
            LedgerTable::Marks => self.marked(key, value),
            LedgerTable::Books => self.book(key, value),
            LedgerTable::Redo => self.noted(key, value),
            LedgerTable::Ids => {
                self.suppressed.id(key, value, self.facts.format, &self.rows, &mut self.findings);
            }
            LedgerTable::Suppressed => self.suppressed.row(key, value, &mut self.findings),
            LedgerTable::Batches => return self.batch(key, value),
        }
        None
    }

    /// What the rows so far say of the ledger; whole once rows of another table have come.
    #[must_use]
    pub fn facts(&self) -> LedgerFacts {
        self.facts
    }

    /// Whether nothing was found so far.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.count() == 0
    }

    fn meta(&mut self, name: &[u8], value: &[u8]) {
        let facts = &mut self.facts;
        let mut fields = Fields(value);
        match name {
            b"format" => facts.format = fields.array().map_or(0, u16::from_be_bytes),
            b"ledger" => facts.ledger = fields.array().map(LedgerId),
            b"incarnation" => facts.incarnation = fields.array().map_or(0, u32::from_be_bytes),
            b"clock_limit" => facts.clock_limit = fields.array().map_or(0, i64::from_be_bytes),
            b"checkpoint" => facts.checkpoint = fields.u64().unwrap_or(0),
            name if name == ARCHIVE_LEFT => self.left.say(value),
            b"retired" => self.retired.say(value),
            _ => {}
        }
    }

    fn live(&mut self, key: &[u8], value: &[u8]) {
        match Fields(key).array().map(StreamId) {
            Some(stream) => {
                if let Some(record) = self.stream(stream, value) {
                    self.rows.insert(stream, StreamRow::of(&record));
                }
            }
            None => {
                self.findings.add(FindingKind::StreamRow, Place::Table("streams"), None, || {
                    "a key is not a stream's id".to_owned()
                })
            }
        }
    }

    /// What a stream's row says, live or retired.
    fn stream(&mut self, stream: StreamId, value: &[u8]) -> Option<StreamRecord> {
        let place = Place::Stream(stream);
        let record = match codec::read_stream(value) {
            Ok(record) => record,
            Err(error) => {
                let why = || error.to_string();
                self.findings.add(FindingKind::StreamRow, place, None, why);
                return None;
            }
        };
        let incarnation = u64::from(self.facts.incarnation);
        if record.stream != stream {
            let why = || format!("the row under its id is that of stream {}", record.stream);
            self.findings.add(FindingKind::StreamRow, place, None, why);
            return None;
        }
        if record.fence.0 >> 32 > incarnation {
            self.findings.add(FindingKind::StreamRow, place.clone(), None, || {
                format!("its fence {} is of an incarnation after {incarnation}", record.fence)
            });
        }
        if record.accepted < record.posted_end.0 {
            let (accepted, posted) = (record.accepted, record.posted_end);
            self.findings.add(FindingKind::StreamRow, place, None, || {
                format!("it accepted {accepted} events and posted {posted}")
            });
        }
        Some(record)
    }

    fn opening(&mut self, key: &[u8], value: &[u8]) {
        let (mut key, mut value) = (Fields(key), Fields(value));
        let read = (key.array().map(StreamId), key.array().map(OpeningId), value.u64());
        match read {
            // Nothing of it is posted here, so no batch tells of it.
            (Some(_), Some(_), Some(GIVEN_AWAY)) => {}
            (Some(stream), Some(opening), Some(end)) => {
                self.openings.insert((stream, opening), EventNumber(end));
            }
            _ => self.findings.add(FindingKind::Opening, Place::Table("openings"), None, || {
                "a row is not a stream, an opening and an event number".to_owned()
            }),
        }
    }

    fn quarantined(&mut self, key: &[u8], value: &[u8]) {
        match Fields(key).u64() {
            Some(position) => {
                self.quarantine.insert(position, String::from_utf8_lossy(value).into_owned());
            }
            None => {
                self.findings.add(FindingKind::Quarantine, Place::Table("quarantine"), None, || {
                    "a key is not a position".to_owned()
                })
            }
        }
    }

    fn marked(&mut self, key: &[u8], value: &[u8]) {
        let place = Place::Table("marks");
        let Some(position) = Fields(key).u64() else {
            return self
                .findings
                .add(FindingKind::Marks, place, None, || "a key is not a position".to_owned());
        };
        if self.marks.is_empty() && self.facts.format <= FORMAT_WITHOUT_MARKS {
            let format = self.facts.format;
            self.findings.add(FindingKind::Marks, place, None, || {
                format!("the ledger's format {format} knows of no marks: older collectors would bill their lines")
            });
        }
        self.marks.insert(position, value.to_vec());
    }

    fn book(&mut self, key: &[u8], value: &[u8]) {
        if self.books.is_empty() && self.facts.format < FORMAT_WITH_BOOKS {
            let format = self.facts.format;
            let place = Place::Table("books");
            self.findings.add(FindingKind::Books, place, None, || {
                format!("the ledger's format {format} knows of no books: older collectors would not copy them")
            });
        }
        self.books.row(key, value, &mut self.findings);
    }

    /// What is noted for the archive is numbered without holes, and can be read.
    fn noted(&mut self, key: &[u8], value: &[u8]) {
        let (number, last) = (Fields(key).u64(), self.noted);
        let place = Place::Table("redo");
        if let Err(what) = Puts::decode(value) {
            self.findings.add(FindingKind::Books, place.clone(), None, || format!("a row {what}"));
        }
        if number.is_none() || last.is_some_and(|last| number != last.checked_add(1)) {
            self.findings.add(FindingKind::Books, place, None, || {
                "a row is missing, which the archive would lack".to_owned()
            });
        }
        self.noted = number;
    }

    fn batch(&mut self, key: &[u8], bytes: &[u8]) -> Option<CheckedBatch> {
        let Some(position) = Fields(key).u64() else {
            self.findings.add(FindingKind::BatchHeader, Place::Table("batches"), None, || {
                "a key is not a position".to_owned()
            });
            return None;
        };
        let due = self.walk.next_position;
        if position >= self.facts.checkpoint && due <= self.facts.checkpoint {
            self.walk.compare_at_checkpoint(&self.rows, &mut self.findings);
        }
        if position != due {
            let place = Place::Positions { first: due, last: position.saturating_sub(1) };
            let why = || "no batch stands there".to_owned();
            self.findings.add(FindingKind::BatchMissing, place, None, why);
        }
        self.walk.next_position = position.saturating_add(1);
        self.counts.batches = self.counts.batches.saturating_add(1);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.counts.batch_bytes = self.counts.batch_bytes.saturating_add(length);
        let quarantined = self.quarantine.remove(&position);
        let marks = self.marks.remove(&position).unwrap_or_default();
        let found = match self.bodies {
            Bodies::Open => self.left.find(position, bytes, &mut self.findings),
            Bodies::Leave => left::unopened(bytes),
        };
        let (whole, split) = match &found {
            Found::Whole => (Some(bytes), SealedBatch::split(bytes).map(|(header, _)| header)),
            Found::Fetched(whole) => {
                (Some(&whole[..]), SealedBatch::split(whole).map(|(header, _)| header))
            }
            Found::Left(header) => (None, Ok(*header)),
        };
        let header = match split {
            Ok(header) => header,
            Err(error) => {
                let place = Place::Positions { first: position, last: position };
                self.findings.add(FindingKind::BatchHeader, place, None, || error.to_string());
                return None;
            }
        };
        self.counts.events = self.counts.events.saturating_add(header.events());
        let suppressed = self.suppressed.take(position);
        let stored = Stored { marks: &marks, suppressed: &suppressed };
        let opened = whole
            .and_then(|bytes| self.body(&header, position, bytes, stored, quarantined.as_ref()));
        let is_quarantined = quarantined.is_some();
        if is_quarantined {
            let counts = &mut self.counts;
            counts.quarantined_batches = counts.quarantined_batches.saturating_add(1);
            counts.quarantined_events = counts.quarantined_events.saturating_add(header.events());
        }
        let ledger = self.facts.ledger.unwrap_or(LedgerId([0; 16]));
        let row = self.rows.get(&header.stream);
        let walk = &mut self.walk;
        walk.batch(ledger, &header, is_quarantined, row, &mut self.openings, &mut self.findings);
        let agent = row.map(|row| row.agent.clone());
        let fetched = found.fetched();
        Some(CheckedBatch { header, position, agent, opened, fetched })
    }

    /// Opens a body. What was readable when it was admitted must still be. What was not stays quarantined, though
    /// this version may read it: a ledger may be older than it.
    fn body(
        &mut self,
        header: &Header,
        position: u64,
        bytes: &[u8],
        stored: Stored<'_>,
        quarantined: Option<&String>,
    ) -> Option<Opened> {
        match self.bodies {
            Bodies::Leave => return None,
            Bodies::Open => {}
        }
        let place = Place::Batch { stream: header.stream, sequence: header.sequence, position };
        let events = Some(header.events());
        let opened = match (Opened::read(header, bytes, stored), quarantined) {
            (Err(error), _) => {
                self.findings.add(FindingKind::Marks, place, events, || error.to_string());
                Opened::Quarantined(error.to_string())
            }
            (Ok(_), Some(_)) if !(stored.marks.is_empty() && stored.suppressed.is_empty()) => {
                let why = || "it is quarantined, and has marks of lines".to_owned();
                self.findings.add(FindingKind::Marks, place, events, why);
                return None;
            }
            (Ok(Opened::Readable { .. }), Some(reason)) => Opened::Quarantined(reason.clone()),
            (Ok(Opened::Quarantined(reason)), None) => {
                self.findings.add(FindingKind::BatchBody, place, events, || reason.clone());
                Opened::Quarantined(reason)
            }
            (Ok(opened), _) => opened,
        };
        if let Opened::Readable { lines, .. } = &opened {
            let posted = |stream: &StreamId| self.walk.sequence(stream);
            self.suppressed.judged((header, position), &opened, posted, &mut self.findings);
            self.counts.line_events = self.counts.line_events.saturating_add(lines.events());
        }
        Some(opened)
    }

    /// What is known where the rows broke off: nothing is said of what would have followed.
    #[must_use]
    pub fn break_off(self) -> Checked {
        Checked {
            facts: self.facts,
            counts: self.counts,
            chains: Vec::new(),
            findings: self.findings,
        }
    }

    /// Judges what only the end can tell.
    #[must_use]
    pub fn finish(mut self) -> Checked {
        let facts = self.facts;
        if facts.ledger.is_none() || facts.format == 0 {
            self.findings.add(FindingKind::Meta, Place::Table("meta"), None, || {
                "it does not say which ledger this is, or in which format".to_owned()
            });
        }
        let end = self.walk.next_position;
        if facts.checkpoint > end {
            let place = Place::Positions { first: end, last: facts.checkpoint.saturating_sub(1) };
            self.findings.add(FindingKind::BatchMissing, place, None, || {
                "the checkpoint lies behind the last batch".to_owned()
            });
        }
        if facts.checkpoint >= end {
            self.walk.compare_at_checkpoint(&self.rows, &mut self.findings);
        }
        for (position, reason) in &self.quarantine {
            let place = Place::Positions { first: *position, last: *position };
            self.findings.add(FindingKind::Quarantine, place, None, || {
                format!("no batch stands where one is quarantined: {reason}")
            });
        }
        for position in self.marks.keys() {
            let place = Place::Positions { first: *position, last: *position };
            let why = || "no batch stands where one has marks".to_owned();
            self.findings.add(FindingKind::Marks, place, None, why);
        }
        self.suppressed.finish(&mut self.findings);
        for ((stream, opening), end) in &self.openings {
            self.findings.add(FindingKind::Opening, Place::Stream(*stream), None, || {
                format!("opening {opening} is said to end at event {end}, and no batch says so")
            });
        }
        let LedgerCounts { events, line_events, quarantined_events, .. } = self.counts;
        let counted =
            line_events.saturating_add(quarantined_events).saturating_add(self.left.events);
        self.counts.left_batches = self.left.batches;
        let is_whole = !self.findings.iter().any(|finding| finding.kind.is_of_batches());
        if self.bodies == Bodies::Open && is_whole && counted != events {
            let place = Place::Table("batches");
            self.findings.add(
                FindingKind::Conservation,
                place,
                Some(counted.abs_diff(events)),
                || format!("the headers count {events} events, and lines and quarantine {counted}"),
            );
        }
        (self.counts.entries, self.counts.documents) = self.books.finish(&mut self.findings);
        self.counts.retired_streams = self.retired.finish(&mut self.findings);
        let chains = self.walk.finish(self.rows, facts.ledger, &mut self.findings);
        self.counts.streams = u64::try_from(chains.len()).unwrap_or(u64::MAX);
        Checked { facts, counts: self.counts, chains, findings: self.findings }
    }
}
