//! `tidemark-agent dead-letters replay`: asks the running agent, page by page, and says what became of each.
//!
//! **Owns** the command's arguments, the file of mended letters, and the text for people. **Does not own** what
//! can be replayed ([`crate::admin::replay`]).
//!
//! It can be run again after whatever cut it short: a letter that was replayed is gone.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use crate::admin::DeadLetterShown;
use crate::admin::client::{AdminClient, ClientError};
use crate::admin::replay::{Corrected, Kept, ReplayAnswer, ReplayAsked, Selection};
use crate::event::RejectReason;
use crate::intake::stream::LINE_BYTES_MAX;

/// Mended letters sent at once: even with each byte escaped, they are below what the agent reads.
const CORRECTED_PER_REQUEST: usize = 8;
/// A line of the file: a text, each of its bytes written as `\u0000`, and what stands around it.
const FILE_LINE_BYTES_MAX: u64 = 8 * LINE_BYTES_MAX as u64;

/// What is to be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    AsIs(Selection),
    /// An exported file whose texts were mended.
    Corrected(PathBuf),
}

/// `N`, or `N..M` with both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub from: u64,
    pub to: u64,
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) if from <= to => Ok(Self { from, to }),
            _ => Err("write one number, or two as 3..7; both are replayed".to_owned()),
        }
    }
}

/// A reason's name, if there is such a reason.
///
/// # Errors
/// Names all that there are.
pub fn parse_reason(text: &str) -> Result<String, String> {
    if RejectReason::ALL.iter().any(|reason| reason.name() == text) {
        return Ok(text.to_owned());
    }
    let names: Vec<_> = RejectReason::ALL.iter().map(|reason| reason.name()).collect();
    Err(format!("there are {}", names.join(", ")))
}

/// Why not all was tried.
#[derive(Debug, Error)]
pub enum ReplayCommandError {
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{}:{line}: {problem}\n    keep each line as `dead-letters export` wrote it, and change only its text",
        path.display()
    )]
    Line { path: PathBuf, line: usize, problem: String },
    #[error(transparent)]
    Agent(#[from] ClientError),
}

/// Replays all of `what`. What was replayed before an error is in the answer.
pub async fn replay(
    client: &AdminClient,
    what: &What,
) -> (ReplayAnswer, Result<(), ReplayCommandError>) {
    let mut total = ReplayAnswer::default();
    let ended = match what {
        What::AsIs(selection) => replay_as_is(client, selection.clone(), &mut total).await,
        What::Corrected(path) => replay_corrected(client, path, &mut total).await,
    };
    (total, ended)
}

async fn replay_as_is(
    client: &AdminClient,
    mut selection: Selection,
    total: &mut ReplayAnswer,
) -> Result<(), ReplayCommandError> {
    loop {
        let answer = client.replay(&ReplayAsked::AsIs(selection.clone())).await?;
        // Numbers ascend, so an answer that leads back would lead round in circles.
        let next = answer.next.filter(|next| *next > selection.from);
        add(total, answer);
        match next {
            Some(next) => selection.from = next,
            None => return Ok(()),
        }
    }
}

async fn replay_corrected(
    client: &AdminClient,
    path: &Path,
    total: &mut ReplayAnswer,
) -> Result<(), ReplayCommandError> {
    // The whole file is read first: a mistake in its last line replays nothing.
    let corrected = read(path)?;
    for part in corrected.chunks(CORRECTED_PER_REQUEST) {
        add(total, client.replay(&ReplayAsked::Corrected(part.to_vec())).await?);
    }
    Ok(())
}

fn add(total: &mut ReplayAnswer, answer: ReplayAnswer) {
    total.replayed.extend(answer.replayed);
    total.duplicates.extend(answer.duplicates);
    total.gone.extend(answer.gone);
    total.kept.extend(answer.kept);
}

fn read(path: &Path) -> Result<Vec<Corrected>, ReplayCommandError> {
    let unreadable = |source| ReplayCommandError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut corrected: Vec<Corrected> = Vec::new();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        let mut limited = io::Read::take(&mut file, FILE_LINE_BYTES_MAX);
        if limited.read_line(&mut text).map_err(unreadable)? == 0 {
            break;
        }
        let wrong = |problem| ReplayCommandError::Line { path: path.to_owned(), line, problem };
        if text.trim().is_empty() {
            continue;
        }
        let letter: DeadLetterShown =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let DeadLetterShown { number, time, text, .. } = letter;
        if corrected.iter().any(|other| other.number == number) {
            return Err(wrong(format!("dead letter {number} stands in the file twice")));
        }
        let text = text.ok_or_else(|| {
            wrong("it has no `text`: write one, in place of what is in `hex`".to_owned())
        })?;
        corrected.push(Corrected { number, time, text });
    }
    Ok(corrected)
}

/// For people: what stays, line by line, then the sums.
///
/// # Errors
/// If it cannot be written.
pub fn show(out: &mut impl Write, answer: &ReplayAnswer) -> io::Result<()> {
    let mut remedies = std::collections::BTreeMap::new();
    for Kept { number, reason, remedy } in &answer.kept {
        writeln!(out, "{number:>8}  stays  {reason}")?;
        remedies.insert(reason, remedy);
    }
    for number in &answer.gone {
        writeln!(
            out,
            "{number:>8}  is not there: replayed before, or it made room for newer ones"
        )?;
    }
    for (reason, remedy) in remedies {
        writeln!(out, "{reason}: {remedy}")?;
    }
    writeln!(
        out,
        "{} replayed, {} known by their id and removed, {} stay, {} not there",
        answer.replayed.len(),
        answer.duplicates.len(),
        answer.kept.len(),
        answer.gone.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check = |text: &str, expected: Option<(u64, u64)>| {
            let found = text.parse().ok().map(|Numbers { from, to }| (from, to));
            assert_eq!(found, expected, "{text}");
        };
        check("7", Some((7, 7)));
        check("3..7", Some((3, 7)));
        check("7..3", None);
        check("3..", None);
        check("-1", None);
        assert!(parse_reason("too_old").is_ok());
        assert!(parse_reason("too-old").unwrap_err().contains("too_old"));
    }

    fn check(file: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        std::fs::write(&path, file).unwrap();
        let found = match read(&path) {
            Ok(letters) => {
                letters.iter().map(|letter| format!("{}:{}", letter.number, letter.text)).collect()
            }
            Err(error) => vec![error.to_string()],
        };
        assert!(found.join(" ").contains(expected), "{file}: {found:?}");
    }

    #[test]
    fn an_exported_file_is_read_and_its_mistakes_are_named() {
        let line = |number: u64, text: &str| {
            format!(
                r#"{{"number":{number},"time":"t","door":"udp","reason":"x","remedy":"y",{text},"hex":null}}"#
            )
        };
        let good = line(7, r#""text":"a:1|c""#);
        check("", "");
        check(&format!("{good}\n\n{}\n", line(8, r#""text":"b""#)), "7:a:1|c 8:b");
        check(&format!("{good}\n{good}\n"), "letters:2: dead letter 7 stands in the file twice");
        check(&line(7, r#""text":null"#), "letters:1: it has no `text`");
        check(&format!("{good}\nnothing\n"), "letters:2: ");
    }
}
