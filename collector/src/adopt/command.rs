//! `tidemark-collector catalog apply DIR`: all `*.toml` of a folder as one catalogue.
//!
//! Over the control socket, which takes `catalog 1 JSON` and answers one JSON object; or on a stopped collector's
//! ledger. Idempotent: what is there already changes nothing.
//!
//! **Owns** how files come together: in the order of their names, one below the other. What stands outside of any table
//! belongs at the top of the first. Problems name the file and its line.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{AdoptError, AdoptRequest, Adopted, AskedChange, CatalogSource, book, judge, stored};
use crate::archive::task::{Archiving, Place};
use crate::catalog::Catalog;
use crate::control;
use crate::ledger::redb::LEDGER_FILE;
use crate::ledger::{Ledger, LedgerError, LedgerOptions};

/// How long the archive of a stopped collector may take to be written.
const ARCHIVE_GRACE: Duration = Duration::from_secs(30);

/// Failed to apply.
#[derive(Debug, Error)]
pub enum ApplyError {
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("there is no *.toml in {}", path.display())]
    Empty { path: PathBuf },
    #[error("{0}")]
    Refused(String),
    #[error("failed to apply the catalogue: {0}")]
    Io(#[from] io::Error),
    #[error("failed to apply the catalogue: {0}")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Adopt(#[from] AdoptError),
}

/// The answer over the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Refused { refused: String },
    Adopted(Adopted),
}

/// The texts of a folder, one below the other, and at which line each file begins.
#[derive(Debug)]
pub struct Folder {
    pub text: String,
    files: Vec<(String, usize)>,
}

impl Folder {
    /// # Errors
    /// A file that cannot be read, or none at all.
    pub fn read(path: &Path) -> Result<Self, ApplyError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ApplyError::Read { path, source }
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(failed(path))? {
            let file = entry.map_err(failed(path))?.path();
            if file.extension().is_some_and(|extension| extension == "toml") {
                found.push(file);
            }
        }
        found.sort();
        let mut folder = Self { text: String::new(), files: Vec::new() };
        for file in &found {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            folder.add(name, &fs::read_to_string(file).map_err(failed(file))?);
        }
        if found.is_empty() {
            return Err(ApplyError::Empty { path: path.to_owned() });
        }
        Ok(folder)
    }

    fn add(&mut self, name: String, text: &str) {
        self.files.push((name, self.text.lines().count()));
        self.text.push_str(text);
        if !text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    /// Problems that were told of the whole text, by file.
    fn place(&self, told: &str) -> String {
        let line = |line: &str| self.placed(line).unwrap_or_else(|| line.to_owned());
        told.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    /// `catalog:LINE: ..` -> `FILE:LINE: ..`
    fn placed(&self, told: &str) -> Option<String> {
        let (number, rest) = told.strip_prefix("catalog:")?.split_once(": ")?;
        let number: usize = number.parse().ok()?;
        let (file, before) = self.files.iter().rev().find(|(_, before)| *before < number)?;
        Some(format!("{file}:{}: {rest}", number.saturating_sub(*before)))
    }
}

/// Where and how.
#[derive(Debug)]
pub struct Target<'t> {
    pub data_dir: &'t Path,
    pub source: CatalogSource,
    pub archive: Place,
}

/// Applies the folder's catalogue. Blocks.
///
/// # Errors
/// See [`ApplyError`]; nothing is changed then.
pub fn apply(
    target: &Target<'_>,
    folder: &Folder,
    mut asked: AskedChange,
) -> Result<Adopted, ApplyError> {
    asked.text.clone_from(&folder.text);
    let done = match control::connect(target.data_dir)? {
        Some(socket) => ask(socket, &asked),
        None => apply_stopped(target, &asked),
    };
    done.map_err(|error| match error {
        ApplyError::Refused(told) => ApplyError::Refused(folder.place(&told)),
        ApplyError::Adopt(error) => ApplyError::Refused(folder.place(&error.to_string())),
        error => error,
    })
}

fn ask(socket: UnixStream, asked: &AskedChange) -> Result<Adopted, ApplyError> {
    let line = control::ask(socket, &control::request("catalog 1 ", asked)?)?;
    match serde_json::from_str(&line).map_err(io::Error::other)? {
        Answer::Adopted(adopted) => Ok(adopted),
        Answer::Refused { refused } => Err(ApplyError::Refused(refused)),
    }
}

/// On a ledger that no collector has open.
fn apply_stopped(target: &Target<'_>, asked: &AskedChange) -> Result<Adopted, ApplyError> {
    if target.source == CatalogSource::File {
        return Err(AdoptError::FileManaged.into());
    }
    if !target.data_dir.join(LEDGER_FILE).exists() {
        let place = target.data_dir.display();
        let told = format!(
            "there is no ledger in {place}; start the collector once, or name its data_dir"
        );
        return Err(ApplyError::Refused(told));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (ledger, store) =
            Ledger::open_embedded(target.data_dir, LedgerOptions::default()).await?;
        let archiving = Archiving::begin(target.archive.clone(), &ledger, &store).await;
        let applied = apply_to(&ledger, asked).await;
        if let Some(archiving) = archiving {
            archiving.end(ARCHIVE_GRACE).await;
        }
        ledger.shutdown().await?;
        Ok(applied?)
    })
}

async fn apply_to(ledger: &Ledger, asked: &AskedChange) -> Result<Adopted, AdoptError> {
    let (reading, text) = (ledger.clone(), asked.text.clone());
    let judged = tokio::task::spawn_blocking(move || {
        let books = reading.books()?;
        let current = stored(&*books)?.and_then(|text| Catalog::parse(&text, "catalog").ok());
        let had = current.as_ref().map(Catalog::aggregations).unwrap_or_default();
        judge(&text, "catalog", current.as_ref(), &had, &*books)
    });
    let judged = judged.await.map_err(|_| LedgerError::Stopped)??;
    let changes = judged.changes.iter().map(super::ItemChange::told).collect();
    let entry = if asked.dry_run {
        None
    } else {
        book(ledger, asked, CatalogSource::Ledger, &judged.changes).await?
    };
    Ok(Adopted { entry, changes })
}

/// Answers a caller of the control socket; blocks.
///
/// # Errors
/// If the caller cannot be told.
pub(crate) fn adopt_for(
    mut caller: &UnixStream,
    asked: &[u8],
    adoptions: &mpsc::Sender<AdoptRequest>,
) -> io::Result<String> {
    let answer = match serde_json::from_slice::<AskedChange>(asked) {
        Ok(asked) => {
            let (reply, answer) = oneshot::channel();
            let _waits = adoptions.blocking_send(AdoptRequest { asked, reply }).is_ok();
            match answer.blocking_recv() {
                Ok(Ok(adopted)) => Answer::Adopted(adopted),
                Ok(Err(error)) => Answer::Refused { refused: error.to_string() },
                Err(_) => Answer::Refused { refused: "the collector is stopping".to_owned() },
            }
        }
        Err(error) => Answer::Refused { refused: error.to_string() },
    };
    let mut line = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    line.push(b'\n');
    caller.write_all(&line)?;
    Ok(match answer {
        Answer::Adopted(Adopted { entry: Some(_), .. }) => "took a new catalogue".to_owned(),
        Answer::Adopted(_) => "was asked for a catalogue; nothing is changed".to_owned(),
        Answer::Refused { .. } => "refused a catalogue".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_placed_in_their_files() {
        let mut folder = Folder { text: String::new(), files: Vec::new() };
        folder.add("a.toml".to_owned(), "one\ntwo\n");
        folder.add("b.toml".to_owned(), "three");
        folder.add("c.toml".to_owned(), "four\n");
        let placed =
            folder.place("catalog:2: x; y\ncatalog:3: x; y\ncatalog:4: z\nother\ncatalog: w");
        assert_eq!(placed, "a.toml:2: x; y\nb.toml:1: x; y\nc.toml:1: z\nother\ncatalog: w");
        assert_eq!(folder.text, "one\ntwo\nthree\nfour\n");
    }
}
