//! `import`: posts what `export` wrote, once.
//!
//! ```text
//! whole     are all rows there, each once?        opening   rows -> a journal for each opening
//! read      texts -> values                       then each journal is shipped, and said what became of it
//! ```
//!
//! **Owns** the order of these steps, and what is left out. **Does not own** how a journal is shipped
//! (`life/ship.rs`).
//!
//! # Why it counts once
//! The events of an opening go to a stream of their own, whose id is derived from the opening's old stream and
//! its name, in batches that are the same for everybody (`opening.rs`). So whoever imports them, wherever and
//! however often, continues one and the same stream, and the collector posts each of its batches once; nothing is
//! added to it. The journal is made under another name and renamed once it is whole, beside the agent's own; a start
//! after a kill makes the same again, and goes on with the one that is there. One import at a time works in a folder.
//!
//! Events that the collector had posted when it answered the conflict are left out, by their numbers. A sealed
//! batch that is posted in part cannot be taken apart: it is left out too, and said so. So is an opening of which
//! nobody knows how far it is posted, unless a person says it.

mod opening;
mod read;
mod whole;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tidemark_common::hex;
use tidemark_common::id::{LedgerId, OpeningId, StreamId};

use self::opening::{Filled, Opening, Origin};
use self::whole::Whole;
use crate::config::Config;
use crate::drain::{DrainEnd, Said, told};
use crate::export::{Row, Unknown};
use crate::journal::{OpenError, derived, folder_of, make_folder};
use crate::life::{MadeBy, ShipEnd, Shipped, ship};

/// What is imported, and how.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// What `export` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The agent's configuration file: where the collector is, and the folder of the journal. The agent may run.
    #[arg(long, value_name = "FILE", default_value = "/etc/tidemark/agent.toml")]
    pub config: PathBuf,
    /// At most this long for each opening, in seconds. What is left then goes on with the next import.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Of a journal that was set aside as damaged: how many events of its stream the ledger has, which are
    /// `posted_events` and `quarantined_events` of the collector's GET /v1/streams. They are left out.
    #[arg(long, value_name = "EVENTS")]
    posted_below: Option<u64>,
    /// Nothing of this opening is posted, under any stream, and nothing will be by another copy of the journal: a person
    /// knows that. May be given several times.
    #[arg(long, value_name = "OPENING")]
    unposted: Vec<OpeningId>,
}

/// Failed to import.
#[derive(Debug, Error)]
pub enum ImportError {
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to read line {line} of {}: {reason}; is it what `export` wrote? Nothing is imported", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("failed to read {}: it is no regular file; write the export to one, as it is read twice", path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "failed to import: by --posted-below {told} events are posted, and the journal of stream {stream} holds {first} to {end}, \
         and knows that those before are posted; is {told} another stream's?"
    )]
    PostedBelow { told: u64, stream: String, first: u64, end: u64 },
    #[error("failed to import: --unposted {opening} is no opening of this export that is left out")]
    Unposted { opening: OpeningId },
    #[error("failed to read the working file {}: {source}; move it away, and import again", path.display())]
    WorkingFile { path: PathBuf, source: OpenError },
    #[error("failed to import: another import works in {}; wait for its end", folder.display())]
    Busy { folder: PathBuf },
    #[error("failed to lock {}: {source}", folder.display())]
    Lock { folder: PathBuf, source: io::Error },
    #[error(transparent)]
    Journal(#[from] OpenError),
    #[error("failed to pack events: {0}")]
    Pack(#[source] io::Error),
    #[error("failed to say what was done: {0}")]
    Print(#[from] io::Error),
}

/// Imports the file, says what became of each opening, and returns the exit code.
///
/// # Errors
/// A file that is not whole: then nothing is posted. Otherwise see [`ImportError`].
pub async fn import(
    arguments: &ImportArguments,
    config: &Config,
    out: &mut impl Write,
) -> Result<u8, ImportError> {
    let _alone = lock(&config.journal.path)?;
    let mut said = Said::to(out);
    let mut end = DrainEnd::Done;
    let openings = make(&arguments.file, &Told::of(arguments), config)?;
    if openings.is_empty() {
        said.line(format_args!("There is nothing to import in {}.", arguments.file.display()));
    }
    for made in openings {
        end = end.max(match made {
            Made::Filled(filled) => {
                ship_filled(config, arguments.seconds, &filled, &mut said).await
            }
            Made::LeftOut { opening, events, why } => {
                let remedy = why.remedy();
                said.line(format_args!(
                    "opening {opening}: {events} events are left out: {remedy}"
                ));
                DrainEnd::Left
            }
        });
    }
    said.end()?;
    Ok(end.code())
}

async fn ship_filled(
    config: &Config,
    seconds: u64,
    filled: &Filled,
    said: &mut Said<'_, impl Write>,
) -> DrainEnd {
    let Filled { opening, journal, accepted, differs, skipped, whole, missing } = filled;
    let (what, mut end) = match journal {
        None => ("nothing to import".to_owned(), DrainEnd::Done),
        Some(journal) => {
            match ship(config, journal, MadeBy::Import, Duration::from_secs(seconds)).await {
                Ok(shipped) => what_became(&shipped),
                Err(error) => (error.to_string(), DrainEnd::Left),
            }
        }
    };
    said.line(format_args!("opening {opening}: {what}"));
    if *skipped > 0 {
        said.line(format_args!("  {skipped} events were posted before, and are left out"));
    }
    let mut left = |is_so: bool, text: fmt::Arguments<'_>| {
        if is_so {
            end = end.max(DrainEnd::Left);
            said.line(text);
        }
    };
    left(
        *whole > 0,
        format_args!(
            "  {whole} events are in a batch that is posted in part: a person must compare its lines with the ledger"
        ),
    );
    left(*missing > 0, format_args!("  {missing} events are missing: the journal had lost them"));
    if let (true, Some(journal)) = (*differs, journal) {
        left(
            true,
            format_args!(
                "  its working file {} was made of other rows than these {accepted} events: another export, or another \
                 --posted-below; a person must compare the two",
                journal.display()
            ),
        );
    }
    end
}

fn what_became(shipped: &Shipped) -> (String, DrainEnd) {
    let end = DrainEnd::of(&shipped.end);
    match &shipped.end {
        ShipEnd::Closed => (format!("all {} events are posted", shipped.accepted), end),
        // Its events are not known to be posted.
        ShipEnd::InUse => (told(shipped), DrainEnd::Left),
        ShipEnd::Conflict { message } => (
            format!(
                "another import of this opening was of other rows, and nothing of this one was posted: a person must \
                 compare the two exports ({message})"
            ),
            end,
        ),
        ShipEnd::NothingToDo | ShipEnd::Left { .. } => (told(shipped), end),
    }
}

/// What a person has said of openings of which the export does not know how far they are posted.
#[derive(Debug, Clone, Default)]
struct Told {
    /// Of a damaged journal.
    posted_below: Option<u64>,
    /// Nothing of these is posted.
    unposted: Vec<OpeningId>,
}

impl Told {
    fn of(arguments: &ImportArguments) -> Self {
        Self { posted_below: arguments.posted_below, unposted: arguments.unposted.clone() }
    }

    /// How far an opening is posted, where a person may say it.
    fn posted_below(&self, opening: &str, why: Unknown, first: u64) -> Option<u64> {
        let names = |told: &OpeningId| told.to_string() == opening;
        match why {
            Unknown::Damaged => self.posted_below,
            Unknown::Elsewhere | Unknown::Unanswered => {
                self.unposted.iter().any(names).then_some(first)
            }
            Unknown::Moves | Unknown::Sound => None,
        }
    }
}

/// Keeps other imports away from the folder until it is dropped.
fn lock(journal: &Path) -> Result<File, ImportError> {
    make_folder(journal)?;
    let folder = folder_of(journal).to_owned();
    let opened = File::open(&folder);
    let file = opened.map_err(|source| ImportError::Lock { folder: folder.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ImportError::Busy { folder }),
        Err(TryLockError::Error(source)) => Err(ImportError::Lock { folder, source }),
    }
}

/// What an opening has become.
#[derive(Debug)]
enum Made {
    Filled(Filled),
    /// Nobody knows how far it is posted.
    LeftOut {
        opening: String,
        events: u64,
        why: Unknown,
    },
}

/// Makes a journal for each opening, once the whole file is known to be in order.
fn make(path: &Path, told: &Told, config: &Config) -> Result<Vec<Made>, ImportError> {
    let read = |source| ImportError::Read { path: path.to_owned(), source };
    // One file, whatever its name stands for by then.
    let mut file = File::open(path).map_err(read)?;
    if !file.metadata().map_err(read)?.is_file() {
        return Err(ImportError::NotAFile { path: path.to_owned() });
    }
    let mut whole = Whole::default();
    let mut known = Known::default();
    each_row(path, &file, |row| {
        if let Some(row) = &row {
            known.take(row);
        }
        whole.take(row.as_ref())
    })?;
    known.check(told)?;
    file.rewind().map_err(read)?;
    let folder = folder_of(&config.journal.path).to_owned();
    let mut importer = Importer { config, folder, told, source: None, current: None, made: vec![] };
    let mut whole = Whole::default();
    each_row(path, &file, |row| {
        whole.take(row.as_ref())?;
        row.map_or(Ok(()), |row| importer.take(row))
    })?;
    Ok(importer.made)
}

/// What a file has of which a person may say how far it is posted.
#[derive(Debug, Default)]
struct Known {
    stream: String,
    /// From the first to the last event of openings of a damaged journal.
    damaged: Option<(u64, u64)>,
    left_out: Vec<String>,
}

impl Known {
    fn take(&mut self, row: &Row) {
        match row {
            Row::Journal { stream, .. } => self.stream.clone_from(stream),
            Row::Opening { opening, first_event, end_event, unknown: Some(why), .. } => match why {
                Unknown::Damaged => {
                    let (first, _) = *self.damaged.get_or_insert((*first_event, *end_event));
                    self.damaged = Some((first, *end_event));
                }
                Unknown::Elsewhere | Unknown::Unanswered => self.left_out.push(opening.clone()),
                Unknown::Moves | Unknown::Sound => {}
            },
            Row::Opening { .. }
            | Row::Event(_)
            | Row::Line(_)
            | Row::Missing { .. }
            | Row::End { .. } => {}
        }
    }

    fn check(self, told: &Told) -> Result<(), ImportError> {
        if let (Some(told), Some((first, end))) = (told.posted_below, self.damaged)
            && !(first..=end).contains(&told)
        {
            return Err(ImportError::PostedBelow { told, stream: self.stream, first, end });
        }
        let named = |opening: &&OpeningId| !self.left_out.contains(&opening.to_string());
        match told.unposted.iter().find(named) {
            Some(opening) => Err(ImportError::Unposted { opening: *opening }),
            None => Ok(()),
        }
    }
}

/// Hands over each row of the file, and then its end.
fn each_row(
    path: &Path,
    file: &File,
    mut take: impl FnMut(Option<Row>) -> Result<(), RowError>,
) -> Result<(), ImportError> {
    let read = |source| ImportError::Read { path: path.to_owned(), source };
    let mut number: usize = 1;
    let mut lines = BufReader::new(file).lines();
    loop {
        let at = |reason: String| ImportError::Line { path: path.to_owned(), line: number, reason };
        let row = match lines.next() {
            None => None,
            Some(line) => {
                let row = serde_json::from_str(&line.map_err(read)?);
                Some(row.map_err(|error| at(error.to_string()))?)
            }
        };
        let is_last = row.is_none();
        take(row).map_err(|error| match error {
            RowError::Row(reason) => at(reason),
            RowError::Import(error) => error,
        })?;
        if is_last {
            return Ok(());
        }
        number = number.saturating_add(1);
    }
}

/// What is wrong: the row, or what is made of it.
#[derive(Debug)]
enum RowError {
    Row(String),
    Import(ImportError),
}

impl From<OpenError> for RowError {
    fn from(error: OpenError) -> Self {
        Self::Import(error.into())
    }
}

fn bad(what: &str) -> impl Fn() -> RowError {
    let what = what.to_owned();
    move || RowError::Row(format!("its {what} cannot be read"))
}

struct Importer<'a> {
    config: &'a Config,
    folder: PathBuf,
    told: &'a Told,
    source: Option<Source>,
    current: Option<Current>,
    made: Vec<Made>,
}

/// The journal that was exported.
#[derive(Debug, Clone, Copy)]
struct Source {
    stream: StreamId,
    ledger: Option<LedgerId>,
    salt: Option<[u8; 32]>,
}

/// The opening whose rows are read.
enum Current {
    Filling(Box<Opening>),
    LeftOut(Made),
}

impl Importer<'_> {
    /// The next row of a file that is whole.
    fn take(&mut self, row: Row) -> Result<(), RowError> {
        match row {
            Row::Journal { stream, ledger, salt, .. } => {
                let ledger = ledger.map(|ledger| ledger.parse());
                let salt = salt.map(|salt| hex::decode_array(&salt).ok_or_else(bad("salt")));
                self.source = Some(Source {
                    stream: stream.parse().map_err(|_| bad("stream")())?,
                    ledger: ledger.transpose().map_err(|_| bad("ledger")())?,
                    salt: salt.transpose()?,
                });
                Ok(())
            }
            Row::Opening { opening, first_event, end_event, posted_below, unknown } => {
                self.close()?;
                let why = unknown.unwrap_or(Unknown::Unanswered);
                let told = || self.told.posted_below(&opening, why, first_event);
                self.current = Some(match posted_below.or_else(told) {
                    Some(posted_below) => self.begin(&opening, posted_below)?,
                    None => {
                        let events = end_event.saturating_sub(first_event);
                        Current::LeftOut(Made::LeftOut { opening, events, why })
                    }
                });
                Ok(())
            }
            Row::Event(row) => self.filling().map_or(Ok(()), |opening| opening.event(&row)),
            Row::Line(row) => self.filling().map_or(Ok(()), |opening| opening.line(row)),
            Row::Missing { first_event, end_event, .. } => {
                self.filling().map_or(Ok(()), |opening| opening.missing(first_event, end_event))
            }
            Row::End { .. } => self.close(),
        }
    }

    fn begin(&self, opening: &str, posted_below: u64) -> Result<Current, RowError> {
        let Source { stream, ledger, salt } = self.source.ok_or_else(bad("journal"))?;
        let opening: OpeningId = opening.parse().map_err(|_| bad("opening")())?;
        let to = StreamId(derived(b"tidemark/import/1", &[&stream.0, &opening.0]));
        let place = self.folder.join(format!("import-{to}.redb"));
        let origin = Origin { opening, to, place, ledger, salt, posted_below };
        Ok(Current::Filling(Box::new(Opening::begin(self.config, origin)?)))
    }

    fn filling(&mut self) -> Option<&mut Opening> {
        match &mut self.current {
            Some(Current::Filling(opening)) => Some(opening),
            Some(Current::LeftOut(_)) | None => None,
        }
    }

    fn close(&mut self) -> Result<(), RowError> {
        match self.current.take() {
            Some(Current::Filling(opening)) => self.made.push(Made::Filled(opening.finish()?)),
            Some(Current::LeftOut(made)) => self.made.push(made),
            None => {}
        }
        Ok(())
    }
}
