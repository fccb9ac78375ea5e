//! A look at everything that a journal holds, without changing it: for `inspect` and `fsck`.
//!
//! **Owns** what is counted and what is found wrong. **Does not own** how it is shown (`inspect.rs`, `fsck.rs`),
//! or what a start checks (`recover.rs`, which stops at the first thing wrong; this one goes on).
//!
//! One read transaction, so what an agent commits meanwhile is not seen. Rows are read one at a time; of a batch
//! or a group of chunks, one is in memory. Limits: [`FINDINGS_MAX`] are told, further ones counted.

mod batches;
mod chunks;

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle};
use tidemark_common::batch::Evidence;
use tidemark_common::id::{Digest, LedgerId, OpeningId, RulesVersion, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{HeldOpening, decode_rules};

use super::apply::to_u64;
use super::budget::{FIXED_BYTES, row_bytes};
use super::reader::{JournalReader, ReadError};
use super::record::{
    Conflicted, Counters, Identity, Opened, Pinned, Record, SourceRow, decode_dead_letter,
    decode_evidence, decode_ids, in_reach,
};
use super::tables::{DEAD_LETTERS, FORMAT, IDS, META, POSTED, RULES, RULES_ROW, SOURCES, meta};

/// An examination tells of at most this many things that are wrong.
const FINDINGS_MAX: usize = 100;

const SET_ASIDE: &str = "The agent's next start sets this file aside and begins a new stream. Keep the file, on \
                         another disk if this one is failing.";
const NEWER: &str = "Look at it with the newer agent that wrote it.";

/// How far an examination goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All rows, but neither the events in chunks nor the bodies of batches.
    Rows,
    Everything,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub place: String,
    pub problem: String,
    pub remedy: &'static str,
}

/// What is in the file.
#[derive(Debug, Default)]
pub struct Examined {
    pub format: Option<u16>,
    pub stream: Option<StreamId>,
    pub last_opening: Option<LastOpening>,
    pub ledger: Option<LedgerId>,
    pub rules: Option<RulesVersion>,
    pub positions: Option<Positions>,
    pub conflict: Option<Conflict>,
    pub evidence: Evidence,
    /// The openings whose events are not known to be posted, oldest first.
    pub openings: Vec<HeldOpening>,
    pub groups: u64,
    pub chunks: Figures,
    pub unposted: Figures,
    pub retained: Figures,
    /// Pieces of raw events that wait for the collector's archive; of how many events is not known.
    pub raw_events: Figures,
    /// The first and last batch that are held.
    pub first: Option<Sequence>,
    pub last: Option<Sequence>,
    /// Lines of batches, where everything was looked at.
    pub lines: u64,
    pub ids: u64,
    /// By the number of their reason's code.
    pub dead_letters: BTreeMap<u16, u64>,
    pub dead_letter_bytes: u64,
    pub sources: u64,
    /// What the rows need of the file.
    pub live_bytes: u64,
    pub findings: Vec<Finding>,
    pub findings_left_out: u64,
}

/// Rows of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub rows: u64,
    pub events: u64,
    pub bytes: u64,
}

impl Figures {
    fn add(&mut self, events: u64, bytes: u64) {
        self.rows = self.rows.saturating_add(1);
        self.events = self.events.saturating_add(events);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastOpening {
    pub opening: OpeningId,
    /// A Close was its last word.
    pub clean: bool,
}

/// What the journal has stored of its stream's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    pub accepted: u64,
    pub sealed_events: u64,
    pub posted_events: u64,
    pub sealed_sequence: Sequence,
    pub posted_sequence: Sequence,
    pub sealed_digest: Digest,
    pub posted_digest: Digest,
    /// The latest commit's time.
    pub newest: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub at: Timestamp,
    pub reason: String,
}

impl JournalReader {
    /// Looks at everything that is committed now. Reads the whole file.
    ///
    /// # Errors
    /// Only if no read can begin; what cannot be read is a finding.
    pub fn examine(&self, depth: Depth) -> Result<Examined, ReadError> {
        let transaction = self.begin()?;
        let mut found = Examined { live_bytes: FIXED_BYTES, ..Examined::default() };
        let parts: [(&str, Part); 7] = [
            ("meta", read_meta),
            ("rules", read_rules),
            ("batches", batches::read),
            ("raw events", chunks::read_raw_events),
            ("chunks", chunks::read),
            ("ids, dead letters and sources", read_kept),
            ("counters", check_counters),
        ];
        for (place, part) in parts {
            if let Err(error) = part(&transaction, depth, &mut found) {
                found.tell(place, error.reason, SET_ASIDE);
            }
        }
        Ok(found)
    }
}

type Part = fn(&ReadTransaction, Depth, &mut Examined) -> Result<(), ReadError>;

impl Examined {
    fn tell(&mut self, place: impl ToString, problem: impl ToString, remedy: &'static str) {
        if self.findings.len() >= FINDINGS_MAX {
            self.findings_left_out = self.findings_left_out.saturating_add(1);
            return;
        }
        let (place, problem) = (place.to_string(), problem.to_string());
        self.findings.push(Finding { place, problem, remedy });
    }

    /// Tells if two figures that must agree do not.
    fn compare<T: PartialEq + ToString>(&mut self, place: &str, what: &str, said: T, is: T) {
        if said != is {
            let problem =
                format!("{what}: {} is stored, {} was found", said.to_string(), is.to_string());
            self.tell(place, problem, SET_ASIDE);
        }
    }

    fn took(&mut self, value_bytes: usize) {
        self.live_bytes = self.live_bytes.saturating_add(row_bytes(to_u64(value_bytes)));
    }

    /// Takes note that events up to `end` of `opening` are held.
    fn hold(&mut self, held: HeldOpening) {
        if held.first == held.end {
            return;
        }
        match self.openings.last_mut() {
            Some(last) if last.opening == held.opening => last.end = held.end,
            Some(_) | None => self.openings.push(held),
        }
    }
}

fn read_meta(
    transaction: &ReadTransaction,
    _: Depth,
    found: &mut Examined,
) -> Result<(), ReadError> {
    let table = transaction.open_table(META)?;
    let stored = |row: u16| -> Result<Option<Vec<u8>>, ReadError> {
        Ok(table.get(row)?.map(|record| record.value().to_vec()))
    };
    match stored(meta::FORMAT)?.map(|format| <[u8; 2]>::try_from(format.as_slice())) {
        Some(Ok(format)) => found.format = Some(u16::from_be_bytes(format)),
        Some(Err(_)) | None => found.tell("meta, row FORMAT", "it is missing or broken", SET_ASIDE),
    }
    if let Some(format) = found.format.filter(|format| *format != FORMAT) {
        found.tell(
            "meta, row FORMAT",
            format!("{format} is unknown here, {FORMAT} is known"),
            NEWER,
        );
    }
    let identity: Option<Identity> = decode(found, stored(meta::IDENTITY)?, Needed::Yes);
    found.stream = identity.map(|identity| identity.stream);
    let opened: Option<Opened> = decode(found, stored(meta::OPENED)?, Needed::Yes);
    found.last_opening = opened.map(|Opened { opening, clean }| LastOpening { opening, clean });
    let counters: Option<Counters> = decode(found, stored(meta::COUNTERS)?, Needed::Yes);
    found.positions = counters.map(Positions::from);
    let pinned: Option<Pinned> = decode(found, stored(meta::PINNED)?, Needed::No);
    found.ledger = pinned.map(|pinned| pinned.ledger);
    let conflicted: Option<Conflicted> = decode(found, stored(meta::CONFLICTED)?, Needed::No);
    found.conflict = conflicted.map(|Conflicted { at, reason }| Conflict { at, reason });
    match stored(meta::EVIDENCE)?.map(|row| decode_evidence(&row)).transpose() {
        Ok(evidence) => found.evidence = evidence.unwrap_or_default(),
        Err(error) => found.tell("meta, row EVIDENCE", error, SET_ASIDE),
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Needed {
    Yes,
    No,
}

fn decode<R: Record>(found: &mut Examined, row: Option<Vec<u8>>, needed: Needed) -> Option<R> {
    let problem = match row.map(|row| R::decode(&row)) {
        Some(Ok(record)) => return Some(record),
        Some(Err(error)) => error.to_string(),
        None if needed == Needed::Yes => format!("the {} record is missing", R::NAME),
        None => return None,
    };
    found.tell("meta", problem, SET_ASIDE);
    None
}

impl From<Counters> for Positions {
    fn from(counters: Counters) -> Self {
        Self {
            accepted: counters.accepted,
            sealed_events: counters.sealed_events,
            posted_events: counters.posted_events,
            sealed_sequence: counters.sealed_sequence,
            posted_sequence: counters.posted_sequence,
            sealed_digest: counters.sealed_digest,
            posted_digest: counters.posted_digest,
            newest: counters.newest,
        }
    }
}

fn read_rules(
    transaction: &ReadTransaction,
    _: Depth,
    found: &mut Examined,
) -> Result<(), ReadError> {
    let Some(row) = transaction.open_table(RULES)?.get(RULES_ROW)?.map(|row| row.value().to_vec())
    else {
        return Ok(());
    };
    found.took(row.len());
    match decode_rules(&row) {
        Ok(rules) => found.rules = Some(rules.version),
        Err(error) => found.tell("rules", error, SET_ASIDE),
    }
    Ok(())
}

/// What is kept beside events, and the times of acks.
fn read_kept(
    transaction: &ReadTransaction,
    _: Depth,
    found: &mut Examined,
) -> Result<(), ReadError> {
    each(transaction, IDS, found, |number, row, found| match decode_ids(row) {
        Ok((_, ids)) => found.ids = found.ids.saturating_add(to_u64(ids.len())),
        Err(error) => found.tell(format!("ids, row {number}"), error, SET_ASIDE),
    })?;
    each(transaction, DEAD_LETTERS, found, |number, row, found| {
        found.dead_letter_bytes = found.dead_letter_bytes.saturating_add(to_u64(row.len()));
        match decode_dead_letter(number, row) {
            Ok(letter) => {
                let code = letter.reason.map_or(0, tidemark_common::code::EvidenceCode::number);
                let count = found.dead_letters.entry(code).or_default();
                *count = count.saturating_add(1);
            }
            Err(error) => found.tell(format!("dead_letters, row {number}"), error, SET_ASIDE),
        }
    })?;
    for entry in transaction.open_table(SOURCES)?.iter()? {
        let (name, row) = entry?;
        found.sources = found.sources.saturating_add(1);
        found.took(row.value().len().saturating_add(name.value().len()));
        let sound = std::str::from_utf8(name.value()).is_ok();
        if let Some(problem) = match SourceRow::decode(row.value()) {
            Err(error) => Some(error.to_string()),
            Ok(_) if !sound => Some("its name is not UTF-8".to_owned()),
            Ok(_) => None,
        } {
            let place = format!("sources, {}", String::from_utf8_lossy(name.value()));
            found.tell(place, problem, SET_ASIDE);
        }
    }
    let posted = transaction.open_table(POSTED)?;
    for _ in 0..posted.len()? {
        found.took(size_of::<i64>());
    }
    let last = posted.last()?.map(|(sequence, _)| sequence.value());
    let known = found.positions.map_or(u64::MAX, |positions| positions.posted_sequence.0);
    match last {
        Some(last) if last > known => {
            let problem =
                format!("an ack of batch {last} is stored, and {known} is the last posted");
            found.tell("posted", problem, SET_ASIDE);
        }
        last if found.retained.rows > 0 && last != Some(known) => {
            found.tell("posted", format!("the ack of batch {known} is missing"), SET_ASIDE);
        }
        Some(_) | None => {}
    }
    Ok(())
}

/// Calls `each` with the number and bytes of every row.
fn each(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, u64, &'static [u8]>,
    found: &mut Examined,
    mut each: impl FnMut(u64, &[u8], &mut Examined),
) -> Result<(), ReadError> {
    for entry in transaction.open_table(table)?.iter()? {
        let (number, row) = entry?;
        found.took(row.value().len());
        if let Err(problem) = in_reach([number.value()]) {
            found.tell(format!("{}, row {}", table.name(), number.value()), problem, SET_ASIDE);
        }
        each(number.value(), row.value(), found);
    }
    Ok(())
}

/// Accepted = sealed + chunks, and sealed = posted + unposted: each side counted on its own.
fn check_counters(_: &ReadTransaction, _: Depth, found: &mut Examined) -> Result<(), ReadError> {
    let Some(positions) = found.positions else { return Ok(()) };
    let Positions { accepted, sealed_events, posted_events, .. } = positions;
    let (chunks, unposted) = (found.chunks.events, found.unposted.events);
    let place = "counters";
    found.compare(place, "accepted events", accepted, sealed_events.saturating_add(chunks));
    found.compare(place, "sealed events", sealed_events, posted_events.saturating_add(unposted));
    let counted = found.evidence.get(tidemark_common::code::EvidenceCode::Accepted);
    if counted > accepted {
        let problem =
            format!("evidence tells of {counted} accepted events, and {accepted} are stored");
        found.tell(place, problem, SET_ASIDE);
    }
    Ok(())
}
