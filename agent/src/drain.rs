//! `drain`: ships the journals that agents which are gone left on a machine.
//!
//! **Owns** which files of a folder are journals, their order, and what is said of each. **Does not own**
//! how one is shipped (`life/ship.rs`): each under its own stream, with the drainer's own certificate.
//!
//! Limits: journals are shipped one after the other, each for at most the time given; the folder and its
//! folders are looked into, not what is below those.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use thiserror::Error;

use crate::config::Config;
use crate::life::{MadeBy, ShipEnd, Shipped, ship};

/// What a journal's file is called at its end. Those that were set aside have more behind it.
const EXTENSION: &str = "redb";
/// How a journal's end counts; the worst one of all is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainEnd {
    /// All of it is posted.
    Done,
    /// Another process holds it: it may be shipping it, or not.
    InUse,
    /// Something is left.
    Left,
    /// It was cloned or rolled back: a person is needed.
    Conflict,
}

impl DrainEnd {
    pub(crate) fn of(end: &ShipEnd) -> Self {
        match end {
            ShipEnd::NothingToDo | ShipEnd::Closed => Self::Done,
            ShipEnd::InUse => Self::InUse,
            ShipEnd::Left { .. } => Self::Left,
            ShipEnd::Conflict { .. } => Self::Conflict,
        }
    }

    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Left => 1,
            Self::Conflict => 3,
            Self::InUse => 4,
        }
    }
}

/// Which journals, and how.
#[derive(Debug, Args)]
pub struct DrainArguments {
    /// The folder with the journals, or with a folder for each.
    #[arg(long, value_name = "DIR")]
    journal_dir: PathBuf,
    /// A configuration file: its `[uplink]` says where the collector is and holds the drainer's certificate.
    #[arg(long, value_name = "FILE", default_value = "/etc/tidemark/drainer.toml")]
    pub config: PathBuf,
    /// At most this long for each journal, in seconds. An agent that starts again waits 60 s for its journal.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=50))]
    seconds: u64,
}

/// Failed to drain.
#[derive(Debug, Error)]
pub enum DrainError {
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to say what was done: {0}")]
    Print(#[from] io::Error),
}

/// Ships every journal of the folder, says what became of it, and returns the exit code.
///
/// # Errors
/// If the folder cannot be read.
pub async fn drain(
    arguments: &DrainArguments,
    config: &Config,
    out: &mut impl Write,
) -> Result<u8, DrainError> {
    let folder = &arguments.journal_dir;
    let journals =
        journals(folder).map_err(|source| DrainError::Read { path: folder.clone(), source })?;
    let mut said = Said::to(out);
    if journals.is_empty() {
        said.line(format_args!("There are no journals in {}.", folder.display()));
    }
    let mut worst = DrainEnd::Done;
    for path in journals {
        let longest = Duration::from_secs(arguments.seconds);
        let (what, found) = match ship(config, &path, MadeBy::Agent, longest).await {
            Ok(shipped) => (told(&shipped), DrainEnd::of(&shipped.end)),
            Err(error) => (error.to_string(), DrainEnd::Left),
        };
        worst = worst.max(found);
        said.line(format_args!("{}: {what}", path.display()));
    }
    said.end()?;
    Ok(worst.code())
}

/// Says what was done, as it is done. A reader that has gone keeps nothing from being done.
pub(crate) struct Said<'a, W> {
    out: &'a mut W,
    failed: Option<io::Error>,
}

impl<'a, W: Write> Said<'a, W> {
    pub(crate) fn to(out: &'a mut W) -> Self {
        Self { out, failed: None }
    }

    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{text}").and_then(|()| self.out.flush()).err();
        }
    }

    /// Whether all was said.
    pub(crate) fn end(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

fn journals(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            for inner in fs::read_dir(&path)? {
                found.push(inner?.path());
            }
        } else {
            found.push(path);
        }
    }
    found.retain(|path| path.is_file() && path.extension().is_some_and(|ext| ext == EXTENSION));
    found.sort();
    Ok(found)
}

/// What became of a journal, in a sentence.
pub(crate) fn told(shipped: &Shipped) -> String {
    let Shipped { stream, accepted, posted_before, posted, end } = shipped;
    let name = stream.map_or_else(|| "a journal".to_owned(), |stream| format!("stream {stream}"));
    let now = posted.saturating_sub(*posted_before);
    match end {
        ShipEnd::NothingToDo => format!("{name}: all {accepted} events were posted before"),
        ShipEnd::Closed => {
            format!(
                "{name}: {now} events shipped; all {accepted} are posted, and the stream is closed"
            )
        }
        ShipEnd::InUse => {
            "in use by another process, nothing was done: an agent ships it itself, a \
                           command that reads it lets it go soon"
                .to_owned()
        }
        ShipEnd::Left { reason } => format!(
            "{name}: {now} events shipped, {} left: {reason}",
            accepted.saturating_sub(*posted)
        ),
        ShipEnd::Conflict { message } => format!("{name}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_found_in_the_folder_and_in_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "b.redb",
            "pod-1/journal.redb",
            "pod-1/deep/journal.redb",
            "journal.redb.conflict-1",
            "x.toml",
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let found = journals(folder.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["b.redb", "pod-1/journal.redb"]);
    }
}
