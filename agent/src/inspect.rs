//! `tidemark-agent inspect`: what is in a journal, of an agent that runs or of one that does not.
//!
//! **Owns** the shape of that (JSON), its text for people, and the way to a journal ([`JournalAt`]). **Does not
//! own** what is counted (`journal/examine.rs`).
//!
//! Nothing is written: see `journal/overlay.rs`.

pub mod batch;
mod journal_at;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use tidemark_common::batch::Evidence;
use tidemark_common::code::EvidenceCode;
use tidemark_common::wire::HeldOpening;

pub use journal_at::{JournalAt, LookError};

use crate::admin::dead_letter::rfc3339;
use crate::journal::{Depth, Examined, Figures, JournalReader, JournalState, Positions, ReadError};
use crate::status::text::{bytes, grouped, plural};

/// A journal, and how large its file may be, where that is known.
#[derive(Debug, Clone)]
pub struct JournalSeen {
    pub reader: JournalReader,
    pub file_bytes: u64,
    pub bytes_max: Option<u64>,
}

/// What is in a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    pub format: Option<u16>,
    pub stream: Option<String>,
    /// The ledger that the journal is pinned to, from its first session on.
    pub ledger: Option<String>,
    pub rules: Option<u64>,
    /// Who wrote last, and whether it ended in order.
    pub opening: Option<String>,
    pub ended_in_order: Option<bool>,
    pub newest_commit: Option<String>,
    pub accepted: u64,
    pub sealed: Place,
    pub posted: Place,
    /// Whose events are not known to be posted, oldest first.
    pub openings: Vec<Opening>,
    pub chunks: Chunks,
    pub unposted: Batches,
    pub retained: Batches,
    /// Pieces of raw events that wait for the archive, and their bytes.
    #[serde(default)]
    pub raw_events: RawEvents,
    /// The batches that are held.
    pub first_batch: Option<u64>,
    pub last_batch: Option<u64>,
    pub ids: u64,
    pub sources: u64,
    /// By reason.
    pub dead_letters: BTreeMap<String, u64>,
    pub dead_letter_bytes: u64,
    pub evidence: BTreeMap<String, u64>,
    /// Why this journal may not be used any more.
    pub conflict: Option<Conflict>,
    pub room: Room,
    /// Things that are wrong; `fsck` names them.
    pub damages: u64,
}

/// Events of sealed batches, as they wait for the archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawEvents {
    pub pieces: u64,
    pub bytes: u64,
}

/// How far something has come in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub sequence: u64,
    pub digest: String,
    pub events: u64,
}

/// Events [first, end) of one opening.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    pub opening: String,
    pub first_event: u64,
    pub end_event: u64,
}

/// What is not sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunks {
    pub groups: u64,
    pub chunks: u64,
    pub events: u64,
    pub bytes: u64,
}

/// What is sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batches {
    pub batches: u64,
    pub events: u64,
    pub bytes: u64,
}

/// Proof that the journal was cloned or rolled back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    pub time: String,
    pub reason: String,
}

/// The file's length, what its rows need of it, and its budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub file_bytes: u64,
    pub live_bytes: u64,
    /// Absent where no configuration was read.
    pub bytes_max: Option<u64>,
    /// The rows' bytes at which the doors push back.
    pub full_at_bytes: Option<u64>,
}

impl Inspection {
    /// Looks at all rows of a journal.
    ///
    /// # Errors
    /// If no read can begin.
    pub fn of(seen: &JournalSeen) -> Result<Self, ReadError> {
        let found = seen.reader.examine(Depth::Rows)?;
        let damages = u64::try_from(found.findings.len()).unwrap_or(u64::MAX);
        let mut inspection = Self {
            format: found.format,
            stream: found.stream.map(|stream| stream.to_string()),
            ledger: found.ledger.map(|ledger| ledger.to_string()),
            rules: found.rules.map(|rules| rules.0),
            opening: found.last_opening.map(|last| last.opening.to_string()),
            ended_in_order: found.last_opening.map(|last| last.clean),
            openings: found.openings.iter().map(Opening::from).collect(),
            chunks: Chunks {
                groups: found.groups,
                chunks: found.chunks.rows,
                events: found.chunks.events,
                bytes: found.chunks.bytes,
            },
            unposted: found.unposted.into(),
            retained: found.retained.into(),
            raw_events: RawEvents { pieces: found.raw_events.rows, bytes: found.raw_events.bytes },
            first_batch: found.first.map(|first| first.0),
            last_batch: found.last.map(|last| last.0),
            ids: found.ids,
            sources: found.sources,
            dead_letters: dead_letters(&found),
            dead_letter_bytes: found.dead_letter_bytes,
            evidence: evidence(&found.evidence),
            room: room(seen, found.live_bytes),
            damages: damages.saturating_add(found.findings_left_out),
            ..Self::default()
        };
        inspection.conflict = found
            .conflict
            .map(|conflict| Conflict { time: rfc3339(conflict.at), reason: conflict.reason });
        if let Some(positions) = found.positions {
            inspection.place(&positions);
        }
        Ok(inspection)
    }

    fn place(&mut self, positions: &Positions) {
        self.accepted = positions.accepted;
        self.newest_commit = Some(rfc3339(positions.newest));
        self.sealed = Place {
            sequence: positions.sealed_sequence.0,
            digest: positions.sealed_digest.to_string(),
            events: positions.sealed_events,
        };
        self.posted = Place {
            sequence: positions.posted_sequence.0,
            digest: positions.posted_digest.to_string(),
            events: positions.posted_events,
        };
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = Page::default();
        let unknown = || "none".to_owned();
        if let Some(Conflict { time, reason }) = &self.conflict {
            page.row("CONFLICT", format_args!("since {time}: {reason}"));
        }
        if self.damages > 0 {
            let damages = plural(self.damages, "thing is", "things are");
            page.row("DAMAGED", format_args!("{damages} wrong; `tidemark-agent fsck` names them"));
        }
        page.row("format", format_args!("{}", self.format.map_or_else(unknown, |n| n.to_string())));
        page.row("stream", format_args!("{}", self.stream.clone().unwrap_or_else(unknown)));
        let ledger = self.ledger.clone();
        let ledger = ledger.unwrap_or_else(|| "none yet: no collector has answered".to_owned());
        page.row("ledger", format_args!("{ledger}"));
        let rules = self.rules.map_or_else(unknown, |rules| format!("version {rules}"));
        page.row("rules", format_args!("{rules}"));
        let ended = match self.ended_in_order {
            Some(true) => "ended in order",
            Some(false) => "is running, or was cut off",
            None => "unknown",
        };
        let opening = self.opening.clone().unwrap_or_else(unknown);
        page.row("last opening", format_args!("{opening}, {ended}"));
        if let Some(newest) = &self.newest_commit {
            page.row("last commit", format_args!("{newest}"));
        }
        self.events(&mut page);
        self.beside(&mut page);
        page.0
    }

    fn events(&self, page: &mut Page) {
        page.row("accepted", format_args!("{}", plural(self.accepted, "event", "events")));
        for (name, place) in [("sealed", &self.sealed), ("posted", &self.posted)] {
            let (events, sequence) = (grouped(place.events), grouped(place.sequence));
            page.row(
                name,
                format_args!("{events} events, to batch {sequence}, digest {}", place.digest),
            );
        }
        let Chunks { groups, chunks, events, bytes: held } = self.chunks;
        page.row(
            "not sealed",
            format_args!(
                "{} events in {} of {} ({})",
                grouped(events),
                plural(chunks, "chunk", "chunks"),
                plural(groups, "group", "groups"),
                bytes(held)
            ),
        );
        for (name, of) in [("not posted", self.unposted), ("retained", self.retained)] {
            let batches = plural(of.batches, "batch", "batches");
            let (events, held) = (grouped(of.events), bytes(of.bytes));
            page.row(name, format_args!("{events} events in {batches} ({held})"));
        }
        if self.raw_events.pieces > 0 {
            let RawEvents { pieces, bytes: held } = self.raw_events;
            let pieces = plural(pieces, "piece", "pieces");
            page.row("raw events", format_args!("{pieces} ({}) for the archive", bytes(held)));
        }
        if let (Some(first), Some(last)) = (self.first_batch, self.last_batch) {
            page.row("batches", format_args!("{first} to {last}; --batch N shows one"));
        }
        for (index, of) in self.openings.iter().enumerate() {
            let title = if index == 0 { "openings held" } else { "" };
            let Opening { opening, first_event, end_event } = of;
            page.row(title, format_args!("{opening}: events {first_event} to {end_event}"));
        }
    }

    fn beside(&self, page: &mut Page) {
        page.row("ids", format_args!("{}", grouped(self.ids)));
        page.row("sources", format_args!("{}", grouped(self.sources)));
        let letters =
            self.dead_letters.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let held = bytes(self.dead_letter_bytes);
        page.row("dead letters", format_args!("{} ({held})", grouped(letters)));
        for (reason, count) in &self.dead_letters {
            page.row("", format_args!("{reason} {}", grouped(*count)));
        }
        for (index, (code, count)) in self.evidence.iter().enumerate() {
            let title = if index == 0 { "counted, ever" } else { "" };
            page.row(title, format_args!("{code} {}", grouped(*count)));
        }
        let Room { file_bytes, live_bytes, bytes_max, full_at_bytes } = self.room;
        let budget = match (bytes_max, full_at_bytes) {
            (Some(bytes_max), Some(full_at)) => {
                format!("; full at {}, the file may have {}", bytes(full_at), bytes(bytes_max))
            }
            (Some(_) | None, _) => String::new(),
        };
        page.row(
            "room",
            format_args!(
                "the file has {}, its rows need {}{budget}",
                bytes(file_bytes),
                bytes(live_bytes)
            ),
        );
    }
}

impl From<&HeldOpening> for Opening {
    fn from(held: &HeldOpening) -> Self {
        Self { opening: held.opening.to_string(), first_event: held.first.0, end_event: held.end.0 }
    }
}

impl From<Figures> for Batches {
    fn from(figures: Figures) -> Self {
        Self { batches: figures.rows, events: figures.events, bytes: figures.bytes }
    }
}

fn room(seen: &JournalSeen, live_bytes: u64) -> Room {
    Room {
        file_bytes: seen.file_bytes,
        live_bytes,
        bytes_max: seen.bytes_max,
        full_at_bytes: seen.bytes_max.map(JournalState::full_at),
    }
}

fn name_of(code: u16) -> String {
    let known = EvidenceCode::from_number(code);
    known.map_or_else(|| format!("code {code}"), |code| code.name().to_owned())
}

fn dead_letters(found: &Examined) -> BTreeMap<String, u64> {
    found.dead_letters.iter().map(|(code, count)| (name_of(*code), *count)).collect()
}

fn evidence(evidence: &Evidence) -> BTreeMap<String, u64> {
    evidence.iter().map(|(code, count)| (name_of(code), count)).collect()
}

/// Names in a column, text behind them.
#[derive(Default)]
pub(crate) struct Page(pub(crate) String);

impl Page {
    pub(crate) fn row(&mut self, name: &str, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{name:14}{text}").expect("writing to a String does not fail");
    }
}
