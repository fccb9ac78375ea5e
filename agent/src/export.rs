//! `export`: what a journal holds that is not known to be posted, as JSON for people and for `import`.
//!
//! **Owns** the rows, one JSON object a line, and reading them again. **Does not own** the journal's file, or
//! what is done with the rows (`import.rs`).
//!
//! ```text
//! {"row":"journal", ...}    first: the stream, its ledger, why it was set aside
//! {"row":"opening", ...}    before the events of each: how far the collector said it is posted
//! {"row":"event", ...}      one event that was not sealed
//! {"row":"line", ...}       one line of a sealed batch: sums of events, which stand together or not at all
//! {"row":"missing", ...}    in place of events that a damaged journal has lost
//! {"row":"end", ...}        last: how many events there were
//! ```
//!
//! What moved to another stream after a conflict is not exported: it is shipped from there. The rows of an
//! opening run from its first event to its last without a gap, so that a file that was cut shows it.
//!
//! # What is posted
//! Only the collector's answer to a conflict says how far an opening is posted (`posted_below`). One of which nothing
//! is posted under the journal's stream may be posted under another, where another copy has moved it. In this and
//! all other cases the row says why that is not known ([`Unknown`]), and `import` leaves the opening out unless a
//! person knows.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_common::batch::{Body, Dimensions, Header, KeyedId, Line, parse_series};
use tidemark_common::chunk::{GroupReader, NumberedId, RAW_BYTES_LIMIT, RecordId, Unique};
use tidemark_common::hex;
use tidemark_common::id::{EventNumber, OpeningId};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::HeldOpening;

use crate::journal::{ChunkHeld, Held, Journal, Leftover, OpenError, hashed};

/// The version of these rows.
pub const EXPORT_VERSION: u32 = 1;

/// What is exported, and where to.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// The journal's file; no agent may be running on it.
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
    /// A new file to write to; standard output without it.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Failed to export.
#[derive(Debug, Error)]
pub enum ExportError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("failed to write {}: {source}; name a file that does not exist yet", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("failed to write: {0}")]
    Write(#[from] io::Error),
}

/// One line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "lowercase", deny_unknown_fields)]
pub enum Row {
    Journal {
        version: u32,
        stream: String,
        ledger: Option<String>,
        conflict: Option<String>,
        /// The stream that free openings moved to; this one itself if none moved.
        moved_to: Option<String>,
        /// What an import makes the salts of its batches from, in hex: the same in every export of this journal, so
        /// that its imports make the same batches. Absent where there was no ledger yet.
        salt: Option<String>,
    },
    Opening {
        opening: String,
        first_event: u64,
        end_event: u64,
        /// The ledger has posted its events below this number, and no others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        posted_below: Option<u64>,
        /// Why that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unknown: Option<Unknown>,
    },
    Event(EventRow),
    Line(LineRow),
    Missing {
        opening: String,
        first_event: u64,
        end_event: u64,
    },
    End {
        events: u64,
    },
}

/// Why nobody can tell from the journal how far an opening is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// It is free, and the agent's next start moves it.
    Moves,
    /// Nothing of it is posted under its stream; another copy of the journal may have moved it, or ship it yet.
    Elsewhere,
    /// The collector has not answered for it.
    Unanswered,
    /// The journal is sound and in no conflict: it can be shipped itself.
    Sound,
    /// The journal is damaged, and was in no conflict: the collector's figures of its stream say it.
    Damaged,
}

impl Unknown {
    /// Why it is not imported, and what is to be done.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Moves => {
                "they are free: start the journal's agent, which moves them and ships them"
            }
            Self::Elsewhere => {
                "nothing of them is posted under their stream, but another copy of the journal may have moved them, or \
                 may ship them yet: if you know that none has and none will, import once more with --unposted and the \
                 opening's name"
            }
            Self::Unanswered => {
                "the collector has not said how far they are posted: compare them with the ledger; if you know that \
                 nothing of them is posted, import once more with --unposted and the opening's name"
            }
            Self::Sound => {
                "the journal is sound and in no conflict: `tidemark-agent drain` ships it itself"
            }
            Self::Damaged => {
                "the journal is damaged and does not say how far they are posted: of its stream in the collector's \
                 GET /v1/streams, `posted_events` and `quarantined_events` do together; import once more with \
                 --posted-below and their sum"
            }
        }
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    pub opening: String,
    pub event: u64,
    pub rules: u64,
    pub time: String,
    pub meter: String,
    pub customer: String,
    pub dimensions: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<String>,
    /// Where the unique value is known as a digest alone, and the key that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_digest: Option<String>,
    pub unique_key: u16,
    /// What stands for its id in the whole ledger, made with the same key. Where there was none yet, the digest of its
    /// id, and beside it which of its message's events of the meter it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_number: Option<u32>,
}

/// A line of a batch that holds the events from `first_event` to before `end_event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRow {
    pub opening: String,
    pub sequence: u64,
    pub first_event: u64,
    pub end_event: u64,
    pub rules: u64,
    pub salt: String,
    pub meter: String,
    pub customer: String,
    pub dimensions: BTreeMap<String, String>,
    /// The beginning of its quarter of an hour.
    pub bucket: String,
    pub part: u16,
    pub events: u64,
    pub quantity_events: u64,
    pub unique_events: u64,
    pub sum: String,
    pub min: String,
    pub max: String,
    pub latest_time: String,
    pub latest: String,
    pub unique_key: u16,
    pub uniques: Vec<String>,
    /// What stands for the id of its one event in the whole ledger, and the key that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_key: Option<u16>,
}

/// Writes what the journal holds, and says to `notes` what that is.
///
/// # Errors
/// See [`ExportError`].
pub fn export(
    arguments: &ExportArguments,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), ExportError> {
    let held = Leftover::open(&arguments.journal)?;
    let opens = held.conflict.is_some() || Journal::would_open(&arguments.journal)?;
    let exported = match &arguments.output {
        Some(path) => {
            let make = |source| ExportError::Make { path: path.clone(), source };
            let mut file = BufWriter::new(File::create_new(path).map_err(make)?);
            let exported = write_rows(&held, opens, &mut file)?;
            file.flush()?;
            file.get_ref().sync_all()?;
            exported
        }
        None => write_rows(&held, opens, out)?,
    };
    let Exported { events, missing, unknown } = exported;
    writeln!(notes, "{events} events of stream {} are not known to be posted.", held.stream)?;
    if missing > 0 {
        writeln!(notes, "{missing} of them are not in the file any more: it is damaged.")?;
    }
    for (why, events) in &unknown {
        writeln!(notes, "{events} of them are not imported: {}.", why.remedy())?;
    }
    if unknown.values().sum::<u64>() < events {
        writeln!(notes, "{ADVICE}")?;
    }
    Ok(())
}

const ADVICE: &str = "Of an opening, those below `posted_below` are posted. The others may still be posted by \
    another copy of this journal: import them (`tidemark-agent import`) once no other agent runs on a copy.";

/// How many events there are rows for, and of how many of them nobody can tell whether they are posted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    pub(crate) events: u64,
    /// Those of them that the file has lost.
    pub(crate) missing: u64,
    pub(crate) unknown: BTreeMap<Unknown, u64>,
}

/// Writes all rows. `opens` says whether the agent, or a drainer, could ship the journal itself.
pub(crate) fn write_rows(
    held: &Leftover,
    opens: bool,
    out: &mut impl Write,
) -> Result<Exported, ExportError> {
    let moved: &[OpeningId] = held.moved.as_ref().map_or(&[], |(_, openings)| openings);
    put(
        out,
        &Row::Journal {
            version: EXPORT_VERSION,
            stream: held.stream.to_string(),
            ledger: held.ledger.map(|ledger| ledger.to_string()),
            conflict: held.conflict.clone(),
            moved_to: held.moved.as_ref().map(|(to, _)| to.to_string()),
            salt: held.unique_key.map(|key| {
                hex::encode(&hashed(b"tidemark/export-salt/1", &[&key.key, &held.stream.0]))
            }),
        },
    )?;
    let mut openings = held.openings()?.into_iter().filter(|held| !moved.contains(&held.opening));
    let mut exported = Exported::default();
    let mut current = None;
    let mut next = EventNumber(0);
    let mut group = (0, GroupReader::default());
    let mut written = Ok(());
    held.each(|row| {
        let (opening, first, end) = row.events();
        if moved.contains(&opening) || first == end || written.is_err() {
            return Ok(());
        }
        if current != Some(opening) {
            current = Some(opening);
            if let Some(held_opening) = openings.next() {
                let row = opening_row(held, &held_opening, opens);
                exported.count(&row);
                written = put(out, &row);
                next = held_opening.first;
            }
        }
        if first < next {
            let reason = format!("events of opening {opening} overlap at {first}");
            return Err(OpenError::Corrupt { reason });
        }
        if first > next && written.is_ok() {
            let row = missing_row(opening, next, first);
            exported.count(&row);
            written = put(out, &row);
        }
        next = end;
        let rows = match row {
            Held::Batch(header, stored, _) => {
                let body = Body::open(&header, stored).map_err(|error| unreadable(&error))?;
                line_rows(&header, &body)
            }
            Held::Chunk(chunk) => {
                if group.0 != chunk.group {
                    group = (chunk.group, GroupReader::default());
                }
                event_rows(&chunk, &mut group.1)?
            }
        };
        for row in rows {
            written = std::mem::replace(&mut written, Ok(())).and_then(|()| put(out, &row));
        }
        Ok(())
    })?;
    written?;
    put(out, &Row::End { events: exported.events })?;
    out.flush()?;
    Ok(exported)
}

impl Exported {
    fn count(&mut self, row: &Row) {
        match row {
            Row::Opening { first_event, end_event, unknown, .. } => {
                let events = end_event.saturating_sub(*first_event);
                self.events = self.events.saturating_add(events);
                if let Some(why) = unknown {
                    let count = self.unknown.entry(*why).or_default();
                    *count = count.saturating_add(events);
                }
            }
            Row::Missing { first_event, end_event, .. } => {
                let events = end_event.saturating_sub(*first_event);
                self.missing = self.missing.saturating_add(events);
            }
            Row::Journal { .. } | Row::Event(_) | Row::Line(_) | Row::End { .. } => {}
        }
    }
}

fn missing_row(opening: OpeningId, first: EventNumber, end: EventNumber) -> Row {
    Row::Missing { opening: opening.to_string(), first_event: first.0, end_event: end.0 }
}

fn opening_row(held: &Leftover, opening: &HeldOpening, opens: bool) -> Row {
    let HeldOpening { opening, first, end } = *opening;
    let posted = match (&held.conflict, &held.answer) {
        (None, _) if opens => Err(Unknown::Sound),
        (None, _) => Err(Unknown::Damaged),
        (Some(_), None) => Err(Unknown::Unanswered),
        (Some(_), Some(answer)) => match answer.posted(opening) {
            Some(posted) if posted > first => Ok(posted.0),
            Some(_) => Err(Unknown::Elsewhere),
            None if !answer.is_free(opening) => Err(Unknown::Unanswered),
            None if held.moved.is_some() => Err(Unknown::Elsewhere),
            None => Err(Unknown::Moves),
        },
    };
    Row::Opening {
        opening: opening.to_string(),
        first_event: first.0,
        end_event: end.0,
        posted_below: posted.ok(),
        unknown: posted.err(),
    }
}

fn event_rows(chunk: &ChunkHeld<'_>, reader: &mut GroupReader) -> Result<Vec<Row>, OpenError> {
    let raw = zstd::bulk::decompress(chunk.payload, RAW_BYTES_LIMIT)
        .map_err(|error| unreadable(&error))?;
    let mut rows = Vec::new();
    let mut event = chunk.first_event.0;
    let mut unread = None;
    reader
        .read(&raw, |unique_key, record, series| {
            let (meter, customer, dimensions) = match parse_series(series) {
                Ok(series) => series,
                Err(error) => {
                    unread = Some(unreadable(&error));
                    return;
                }
            };
            let (unique, unique_digest) = match record.unique {
                None => (None, None),
                Some(Unique::Raw(text)) => (Some(text.to_owned()), None),
                Some(Unique::Digest(digest)) => (None, Some(hex::encode(&digest))),
            };
            let (id, id_number) = match record.id {
                None => (None, None),
                Some(RecordId::Keyed(KeyedId(id))) => (Some(hex::encode(&id)), None),
                Some(RecordId::Raw(NumberedId { id, number })) => {
                    (Some(hex::encode(&id)), Some(number))
                }
            };
            rows.push(Row::Event(EventRow {
                opening: chunk.opening.to_string(),
                event,
                rules: chunk.rules.0,
                time: time_text(record.time),
                meter: meter.as_str().to_owned(),
                customer: customer.as_str().to_owned(),
                dimensions: named(&dimensions),
                quantity: record.quantity.map(|quantity| quantity.to_string()),
                unique,
                unique_digest,
                unique_key,
                id,
                id_number,
            }));
            event = event.saturating_add(1);
        })
        .map_err(|error| unreadable(&error))?;
    match unread {
        Some(error) => Err(error),
        None => Ok(rows),
    }
}

fn line_rows(header: &Header, body: &Body) -> Vec<Row> {
    let mut ids = body.extras.line_ids().peekable();
    let row = |(index, line)| {
        let id = ids.next_if(|id| id.line == index).map(|id| hex::encode(&id.id.0));
        let id_key = id.is_some().then(|| body.extras.id_key());
        Row::Line(LineRow { id, id_key, ..line_row(header, body, line) })
    };
    (0..).zip(&body.lines).map(row).collect()
}

fn line_row(header: &Header, body: &Body, line: &Line) -> LineRow {
    let (key, value) = (&line.key, &line.value);
    let text = |quantity: Quantity| quantity.to_string();
    LineRow {
        opening: header.opening.to_string(),
        sequence: header.sequence.0,
        first_event: header.first_event.0,
        end_event: header.end_event.0,
        rules: header.rules.0,
        salt: hex::encode(&body.salt),
        meter: key.meter.as_str().to_owned(),
        customer: key.customer.as_str().to_owned(),
        dimensions: named(&key.dimensions),
        bucket: time_text(key.bucket.start()),
        part: key.part,
        events: value.events,
        quantity_events: value.quantity_events,
        unique_events: value.unique_events,
        sum: text(value.sum),
        min: text(value.min),
        max: text(value.max),
        latest_time: time_text(value.latest_time),
        latest: text(value.latest),
        unique_key: value.unique_key,
        uniques: value.uniques.iter().map(|unique| hex::encode(unique)).collect(),
        id: None,
        id_key: None,
    }
}

fn named(dimensions: &Dimensions) -> BTreeMap<String, String> {
    dimensions.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn put(out: &mut impl Write, row: &Row) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *out, row).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn time_text(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| at.0.to_string(), |time| format!("{time:.3}"))
}

fn unreadable(error: &dyn std::error::Error) -> OpenError {
    OpenError::Corrupt { reason: error.to_string() }
}
