//! `tidemark-agent fsck`: whether all that a journal holds is sound.
//!
//! **Owns** the shape of the report and its text. **Does not own** what is checked (`journal/examine.rs`).
//!
//! Pages' checksums are checked when a file is opened; an agent has done so at its start, and its file cannot be
//! checked again while it writes. All else is checked either way.

use serde::{Deserialize, Serialize};

use crate::inspect::Page;
use crate::journal::{Depth, Examined, Finding, JournalReader, ReadError};
use crate::status::text::{grouped, plural};

/// What was checked, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fsck {
    pub sound: bool,
    pub pages: Pages,
    pub batches: u64,
    pub lines: u64,
    pub chunks: u64,
    pub events_in_chunks: u64,
    pub ids: u64,
    pub dead_letters: u64,
    pub damages: Vec<Damage>,
    /// Further ones.
    pub damages_left_out: u64,
}

/// Whether the checksum of every page was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pages {
    Checked,
    CheckedAtStart,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    pub place: String,
    pub problem: String,
    pub remedy: String,
}

impl From<Finding> for Damage {
    fn from(finding: Finding) -> Self {
        let Finding { place, problem, remedy } = finding;
        Self { place, problem, remedy: remedy.to_owned() }
    }
}

impl Fsck {
    /// Checks everything. Reads the whole file.
    ///
    /// # Errors
    /// If no read can begin.
    pub fn of(reader: &JournalReader, pages: Pages) -> Result<Self, ReadError> {
        let found = reader.examine(Depth::Everything)?;
        let letters = found.dead_letters.values();
        let dead_letters = letters.fold(0_u64, |sum, count| sum.saturating_add(*count));
        let Examined {
            unposted, retained, chunks, lines, ids, findings, findings_left_out, ..
        } = found;
        Ok(Self {
            sound: findings.is_empty(),
            pages,
            batches: unposted.rows.saturating_add(retained.rows),
            lines,
            chunks: chunks.rows,
            events_in_chunks: chunks.events,
            ids,
            dead_letters,
            damages: findings.into_iter().map(Damage::from).collect(),
            damages_left_out: findings_left_out,
        })
    }

    /// A file whose pages do not hold together: nothing in it can be trusted.
    #[must_use]
    pub fn of_damaged_pages(reason: &str) -> Self {
        let damage = Damage {
            place: "pages".to_owned(),
            problem: reason.to_owned(),
            remedy: "The agent's next start sets this file aside and begins a new stream; the collector names what \
                     the old one had not shipped. Check the disk, and keep the file on another one."
                .to_owned(),
        };
        Self {
            sound: false,
            pages: Pages::Checked,
            batches: 0,
            lines: 0,
            chunks: 0,
            events_in_chunks: 0,
            ids: 0,
            dead_letters: 0,
            damages: vec![damage],
            damages_left_out: 0,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = Page::default();
        let verdict = match self.damages.len() {
            0 => "sound".to_owned(),
            damages => {
                let damages = u64::try_from(damages).unwrap_or(u64::MAX);
                let damages = damages.saturating_add(self.damages_left_out);
                format!("DAMAGED: {} wrong", plural(damages, "thing is", "things are"))
            }
        };
        page.row("journal", format_args!("{verdict}"));
        let pages = match self.pages {
            Pages::Checked => "every checksum was checked",
            Pages::CheckedAtStart => "checked when its agent started; stop it to check them again",
        };
        page.row("pages", format_args!("{pages}"));
        let batches = plural(self.batches, "batch", "batches");
        page.row("batches", format_args!("{batches}, {}", plural(self.lines, "line", "lines")));
        let chunks = plural(self.chunks, "chunk", "chunks");
        let events = plural(self.events_in_chunks, "event", "events");
        page.row("chunks", format_args!("{chunks}, {events}"));
        page.row("ids", format_args!("{}", grouped(self.ids)));
        page.row("dead letters", format_args!("{}", grouped(self.dead_letters)));
        for Damage { place, problem, remedy } in &self.damages {
            page.row("", format_args!(""));
            page.0.push_str(&format!("{place}: {problem}\n    {remedy}\n"));
        }
        page.0
    }
}
