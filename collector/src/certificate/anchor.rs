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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;
    use crate::certificate::{Certified, digest, file};
    use crate::ledger::LedgerOptions;
    use crate::ledger::books::{Certify, Change, What};

    async fn certify(ledger: &Ledger, number: u64) {
        let before = last(&*ledger.books().unwrap()).unwrap();
        let head = serde_json::to_string(&Head {
            format: Head::FORMAT.to_owned(),
            ledger: String::new(),
            number,
            previous: before.sha256.clone(),
            at: 0,
            as_of: 0,
            complete_through: None,
            from_day: 0,
            batches: 0,
            entries: 0,
            entries_digest: String::new(),
            usage_root: String::new(),
            streams_root: String::new(),
            statement_sha256: String::new(),
            key: String::new(),
        });
        let head = head.unwrap();
        let certified = Certified { number, sha256: digest(&head) };
        let file = file(&head, "", "");
        let certify = Certify { certified, previous: before.sha256, file, streams: Vec::new() };
        let what = What::Certify(Box::new(certify));
        let (actor, reason, date, request) = ("test".to_owned(), None, None, None);
        let booked = ledger.book(Change { actor, reason, date, request, what }).await;
        booked.unwrap().unwrap();
    }

    /// Takes one request and answers with this status; what was sent.
    fn answer(listener: &TcpListener, status: &str) -> String {
        let (mut caller, _) = listener.accept().unwrap();
        let mut sent = Vec::new();
        let mut bytes = [0; 4_096];
        while !sent.ends_with(b"}\n") {
            let read = caller.read(&mut bytes).unwrap();
            sent.extend_from_slice(&bytes[..read]);
        }
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        caller.write_all(head.as_bytes()).unwrap();
        String::from_utf8(sent).unwrap()
    }

    fn numbers(texts: &[String]) -> Vec<bool> {
        let expected = ["\\\"number\\\":1,", "\\\"number\\\":2,"];
        texts.iter().zip(expected).map(|(text, number)| text.contains(number)).collect()
    }

    #[tokio::test]
    async fn every_certificate_comes_to_both_anchors_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), LedgerOptions::default()).await.unwrap();
        certify(&ledger, 1).await;
        certify(&ledger, 2).await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let path = folder.path().join("anchors");
        let anchors = Anchors { file: Some(path.clone()), url: Some(url) };
        let anchored = || fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        // The address takes the first, and not the second; the file has both.
        let far = std::thread::spawn(move || {
            let told = [
                answer(&listener, "200 OK"),
                answer(&listener, "500 No"),
                answer(&listener, "204 OK"),
            ];
            (told, listener)
        });
        let bring = |ledger: &Ledger| {
            let (ledger, anchors, data_dir) =
                (ledger.clone(), anchors.clone(), folder.path().to_owned());
            tokio::task::spawn_blocking(move || bring_all(&ledger, &anchors, &data_dir))
        };
        assert!(bring(&ledger).await.unwrap().is_err());
        let lines: Vec<String> = anchored();
        assert_eq!(numbers(&lines), [true, true]);
        bring(&ledger).await.unwrap().unwrap();
        let ([first, refused, second], _listening) = far.join().unwrap();
        assert_eq!(numbers(&[first, refused.clone()]), [true, true]);
        assert_eq!(refused.lines().last(), second.lines().last());
        // Nothing is sent again.
        bring(&ledger).await.unwrap().unwrap();
        assert_eq!(anchored(), lines);
    }
}
