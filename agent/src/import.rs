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
//! however often, continues one and the same stream, and the collector posts each of its batches once. An import
//! that finds more posted than it has sealed is refused as a copy: another one has posted it all. The journal is
//! made under another name and renamed once it is whole, beside the agent's own; a start after a kill finds it and
//! goes on, and after its end it says that all was posted. One import at a time works in a folder.
//!
//! Events that the collector had posted when it answered the conflict are left out, by their numbers. A sealed
//! batch that is posted in part cannot be taken apart: it is left out too, and said so. So is an opening of which
//! nobody knows how far it is posted; of a damaged journal a person may say it.

mod opening;
mod read;
mod whole;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tidemark_common::id::{LedgerId, OpeningId, StreamId};

use self::opening::{Filled, Opening, Origin};
use self::read::unhex;
use self::whole::Whole;
use crate::config::Config;
use crate::drain::{DrainEnd, told};
use crate::export::{Row, Unknown};
use crate::journal::{OpenError, derived, folder_of, make_folder};
use crate::life::{ShipEnd, ship};

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
}

/// Failed to import.
#[derive(Debug, Error)]
pub enum ImportError {
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to read line {line} of {}: {reason}; is it what `export` wrote? Nothing is imported", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
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
    let mut end = DrainEnd::Done;
    for made in make(&arguments.file, arguments.posted_below, config)? {
        end = end.max(match made {
            Made::Filled(filled) => ship_filled(config, arguments.seconds, filled, out).await?,
            Made::LeftOut { opening, events, why } => {
                writeln!(out, "opening {opening}: {events} events are left out: {}", why.remedy())?;
                DrainEnd::Left
            }
        });
        out.flush()?;
    }
    Ok(end.code())
}

async fn ship_filled(
    config: &Config,
    seconds: u64,
    filled: Filled,
    out: &mut impl Write,
) -> Result<DrainEnd, ImportError> {
    let Filled { opening, journal, accepted, begun_with, skipped, whole } = filled;
    let (said, mut end) = match &journal {
        None => ("nothing to import".to_owned(), DrainEnd::Done),
        Some(journal) => match ship(config, journal, Duration::from_secs(seconds)).await {
            Ok(shipped) => (
                told(&shipped),
                match shipped.end {
                    // Its events are not known to be posted.
                    ShipEnd::InUse => DrainEnd::Left,
                    end => DrainEnd::of(&end),
                },
            ),
            Err(error) => (error.to_string(), DrainEnd::Left),
        },
    };
    writeln!(out, "opening {opening}: {said}")?;
    if skipped > 0 {
        writeln!(out, "  {skipped} events were posted before the conflict, and are left out")?;
    }
    if whole > 0 {
        end = end.max(DrainEnd::Left);
        writeln!(
            out,
            "  {whole} events are in a batch that is posted in part: a person must compare its lines with the ledger"
        )?;
    }
    if let (Some(held), Some(journal)) = (begun_with, &journal) {
        end = end.max(DrainEnd::Left);
        writeln!(
            out,
            "  its working file {} holds {held} events, and this export {accepted}: it was made from another export; a \
             person must compare the two",
            journal.display()
        )?;
    }
    if end == DrainEnd::Conflict {
        writeln!(
            out,
            "  another import of these events came first, with a working file elsewhere: if that one has not ended \
             with exit code 0, run it again there"
        )?;
    }
    Ok(end)
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
fn make(file: &Path, posted_below: Option<u64>, config: &Config) -> Result<Vec<Made>, ImportError> {
    let mut whole = Whole::default();
    each_row(file, |row| match row {
        Some(row) => whole.take(&row),
        None => whole.end(),
    })?;
    let folder = folder_of(&config.journal.path).to_owned();
    let mut importer =
        Importer { config, folder, posted_below, source: None, current: None, made: vec![] };
    each_row(file, |row| match row {
        Some(row) => importer.take(row),
        None => importer.close(),
    })?;
    Ok(importer.made)
}

/// Hands over each row of the file, and then its end.
fn each_row(
    path: &Path,
    mut take: impl FnMut(Option<Row>) -> Result<(), RowError>,
) -> Result<(), ImportError> {
    let read = |source| ImportError::Read { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(read)?);
    let mut number: usize = 1;
    let mut lines = file.lines();
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
    /// What a person has said.
    posted_below: Option<u64>,
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
                let salt = salt.map(|salt| unhex(&salt).ok_or_else(bad("salt")));
                self.source = Some(Source {
                    stream: stream.parse().map_err(|_| bad("stream")())?,
                    ledger: ledger.transpose().map_err(|_| bad("ledger")())?,
                    salt: salt.transpose()?,
                });
                Ok(())
            }
            Row::Opening { opening, first_event, end_event, posted_below, unknown } => {
                self.close()?;
                let told = self.posted_below.filter(|_| unknown == Some(Unknown::Damaged));
                self.current = Some(match posted_below.or(told) {
                    Some(posted_below) => self.begin(&opening, posted_below)?,
                    None => Current::LeftOut(Made::LeftOut {
                        opening,
                        events: end_event.saturating_sub(first_event),
                        why: unknown.unwrap_or(Unknown::Unanswered),
                    }),
                });
                Ok(())
            }
            Row::Event(row) => self.filling().map_or(Ok(()), |opening| opening.event(&row)),
            Row::Line(row) => self.filling().map_or(Ok(()), |opening| opening.line(row)),
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
