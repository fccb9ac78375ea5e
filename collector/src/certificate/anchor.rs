//! Anchors: certificates kept by somebody else, so that history cannot be rewritten unseen.
//!
//! ```text
//! certificate.anchor_path   {"head":..,"signature":..} a line, ascending by number, each synced
//! certificate.anchor_url    POST of the same; any 2xx is taken as kept
//! data_dir/anchored         the number of the last one that the address took
//! ```
//! **Owns** bringing every certificate to both, in order, however often it takes. **Does not own** certificates.
//!
//! Limits: an address answers within [`ANSWER_MAX`]. One that does not, or a file that cannot be written, is tried again
//! every [`INTERVAL`]; nothing waits for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::{CertificateFile, Head, last, row_key};
use crate::ledger::books::rows;
use crate::ledger::store::Books;
use crate::ledger::{Ledger, LedgerError};

const INTERVAL: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(10);
const STATE_FILE: &str = "anchored";

/// Where certificates are anchored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchors {
    pub file: Option<PathBuf>,
    /// Plain HTTP.
    pub url: Option<String>,
}

/// What an anchor holds of one.
#[derive(Debug, Serialize, Deserialize)]
struct Anchored {
    head: String,
    signature: String,
}

/// Begins to bring certificates to their anchors, where there are any.
#[must_use]
pub fn begin(ledger: &Ledger, anchors: &Anchors, data_dir: &Path) -> Option<JoinHandle<()>> {
    (*anchors != Anchors::default())
        .then(|| tokio::spawn(run(ledger.clone(), anchors.clone(), data_dir.to_owned())))
}

async fn run(ledger: Ledger, anchors: Anchors, data_dir: PathBuf) {
    let mut tick = tokio::time::interval(INTERVAL);
    let mut told = None;
    loop {
        tick.tick().await;
        let (ledger, anchors, data_dir) = (ledger.clone(), anchors.clone(), data_dir.clone());
        let brought =
            tokio::task::spawn_blocking(move || bring_all(&ledger, &anchors, &data_dir)).await;
        let failed = match brought {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failed.as_ref().filter(|_| failed != told) {
            tracing::warn!(error, "certificates are not anchored; this is tried again");
        }
        told = failed;
    }
}

/// Brings what is not there yet. Blocks.
///
/// # Errors
/// The first anchor that does not take it; the other one has what it took.
pub fn bring_all(ledger: &Ledger, anchors: &Anchors, data_dir: &Path) -> io::Result<()> {
    let books = ledger.books().map_err(of_ledger)?;
    let newest = last(&*books).map_err(io::Error::other)?.number;
    let to_file = anchors.file.as_ref().map_or(Ok(()), |path| bring_to_file(&*books, newest, path));
    let to_url = anchors
        .url
        .as_ref()
        .map_or(Ok(()), |url| bring_to_url(&*books, newest, url, &data_dir.join(STATE_FILE)));
    to_file.and(to_url)
}

fn of_ledger(error: LedgerError) -> io::Error {
    io::Error::other(error)
}

fn anchored(books: &dyn Books, number: u64) -> io::Result<Vec<u8>> {
    let file: Option<CertificateFile> =
        rows::get(books, &row_key(number)).map_err(io::Error::other)?;
    let CertificateFile { head, signature, .. } =
        file.ok_or_else(|| io::Error::other(format!("certificate {number} is not in the books")))?;
    let mut line = rows::write(&Anchored { head, signature });
    line.push(b'\n');
    Ok(line)
}

fn bring_to_file(books: &dyn Books, newest: u64, path: &Path) -> io::Result<()> {
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let held = last_in_file(path).map_err(told)?;
    if held >= newest {
        return Ok(());
    }
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o644).open(path).map_err(told)?;
    for number in held.saturating_add(1)..=newest {
        file.write_all(&anchored(books, number)?).map_err(told)?;
    }
    file.sync_all().map_err(told)
}

/// The number in the file's last whole line. One that a crash cut short is an error: whoever keeps the file says what
/// becomes of it.
fn last_in_file(path: &Path) -> io::Result<u64> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        file => file?,
    };
    let mut newest = 0;
    for line in BufReader::new(file).lines() {
        let broken = |_| io::Error::other("a line is no anchored certificate; mend the file");
        let Anchored { head, .. } = serde_json::from_str(&line?).map_err(broken)?;
        let head: Head = serde_json::from_str(&head).map_err(broken)?;
        newest = newest.max(head.number);
    }
    Ok(newest)
}

fn bring_to_url(books: &dyn Books, newest: u64, url: &str, state: &Path) -> io::Result<()> {
    let held = match fs::read_to_string(state) {
        Ok(text) => text.trim().parse().map_err(io::Error::other)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0_u64,
        Err(error) => return Err(error),
    };
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(ANSWER_MAX)).build().into();
    for number in held.saturating_add(1)..=newest {
        let line = anchored(books, number)?;
        let sent = agent.post(url).content_type("application/json").send(&line);
        sent.map_err(|error| io::Error::other(format!("{url}: {error}")))?;
        let new = state.with_extension("new");
        fs::write(&new, format!("{number}\n"))?;
        fs::rename(&new, state)?;
    }
    Ok(())
}
