//! `tidemark-collector bill`: asks the running collector for a billing run, or runs it on a stopped one's ledger.
//!
//! **Owns** which of the two, and what people read. **Does not own** the run.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use tokio::sync::mpsc;

use super::Settings;
use super::door::{self, AskError, AskedRun};
use crate::archive::task::Archiving;
use crate::config::Config;
use crate::control;
use crate::ledger::{Ledger, LedgerError, LedgerOptions};

const LINES_WAITING_MAX: usize = 64;

/// Failed to run.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("failed to bill: {0}; stop the collector, or run this as its user")]
    Ledger(#[from] LedgerError),
    #[error("failed to bill: the collector does not answer on {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error(
        "failed to bill: the collector ended before the run did; run it again: what is issued stays issued"
    )]
    CutOff,
    #[error("failed to bill: {0}")]
    Failed(String),
    #[error("failed to bill: {0}")]
    Io(#[from] io::Error),
}

/// One line of the answer, as far as people read it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    customer: String,
    outcome: String,
    number: Option<String>,
    kind: Option<String>,
    total: Option<String>,
    amount_due: Option<String>,
    currency: Option<String>,
    problem: Option<String>,
    end: Option<Counts>,
    failed: Option<String>,
}

/// What the run came to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub issued: u64,
    pub drafts: u64,
    pub issued_before: u64,
    /// Issued, and not in the archive yet.
    pub awaiting_archive: u64,
    pub nothing_due: u64,
    pub problems: u64,
    pub totals: std::collections::BTreeMap<String, String>,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line for each customer, and the sums.
    Text,
    /// One JSON object a line, as the collector tells them.
    Json,
}

/// Asks, and prints what comes. Blocks.
///
/// # Errors
/// See [`CommandError`].
pub fn bill(
    config: &Config,
    data_dir: &std::path::Path,
    asked: &AskedRun,
    form: Form,
    output: &mut dyn Write,
) -> Result<Counts, CommandError> {
    let settings = config.billing_settings();
    asked.request(&settings)?;
    let failed = |source| CommandError::Connect { path: data_dir.join(control::SOCKET), source };
    if let Some(mut socket) = control::connect(data_dir).map_err(failed)? {
        socket.write_all(&control::request("bill 1 ", asked)?)?;
        return print_all(BufReader::new(socket).lines(), form, output);
    }
    let (lines, told) = std::sync::mpsc::sync_channel(LINES_WAITING_MAX);
    let (config, data_dir, asked) = (config.clone(), data_dir.to_owned(), asked.clone());
    let running =
        std::thread::spawn(move || run_stopped(&config, &data_dir, &asked, &settings, &lines));
    let printed = print_all(told.into_iter().map(Ok), form, output);
    match running.join() {
        Ok(Ok(())) => printed,
        Ok(Err(error)) => Err(error),
        Err(_) => Err(CommandError::CutOff),
    }
}

/// The run on a ledger that no collector has open.
fn run_stopped(
    config: &Config,
    data_dir: &std::path::Path,
    asked: &AskedRun,
    settings: &Settings,
    lines: &std::sync::mpsc::SyncSender<String>,
) -> Result<(), CommandError> {
    if !data_dir.join(crate::ledger::redb::LEDGER_FILE).exists() {
        return Err(CommandError::Failed(format!(
            "there is no ledger in {}; name the collector's data_dir",
            data_dir.display()
        )));
    }
    let place = config.archive.place().map_err(|error| CommandError::Failed(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = LedgerOptions::default();
        options.redb.bodies = place.bodies();
        let (ledger, store) = Ledger::open_embedded(data_dir, options).await?;
        let catalog = match config.catalog_of(&ledger).map_err(CommandError::Failed) {
            Ok(catalog) => catalog,
            Err(error) => {
                ledger.shutdown().await?;
                return Err(error);
            }
        };
        let archiving = Archiving::begin(place, &ledger, &store).await;
        let (tell, mut told) = mpsc::channel::<door::Told>(LINES_WAITING_MAX);
        let telling = async {
            while let Some(line) = told.recv().await {
                let text = String::from_utf8_lossy(&line.line()).trim_end().to_owned();
                if lines.send(text).is_err() {
                    break;
                }
            }
        };
        let (ran, ()) =
            tokio::join!(door::run(&ledger, Arc::new(catalog), asked, settings, tell), telling);
        if let Some(archiving) = archiving {
            archiving.end(Duration::from_millis(config.shutdown_grace_millis)).await;
        }
        ledger.shutdown().await?;
        ran?;
        Ok(())
    })
}

fn print_all(
    lines: impl Iterator<Item = io::Result<String>>,
    form: Form,
    output: &mut dyn Write,
) -> Result<Counts, CommandError> {
    for line in lines {
        let text = line?;
        if form == Form::Json {
            writeln!(output, "{text}")?;
        }
        let line: Line = serde_json::from_str(&text).map_err(io::Error::other)?;
        if let Some(reason) = line.failed {
            return Err(CommandError::Failed(reason));
        }
        if let Some(counts) = line.end {
            if form == Form::Text {
                writeln!(output, "{}", told_counts(&counts))?;
            }
            output.flush()?;
            return Ok(counts);
        }
        if form == Form::Text {
            writeln!(output, "{}", told_line(&line))?;
        }
    }
    Err(CommandError::CutOff)
}

fn told_line(line: &Line) -> String {
    let number = line.number.as_deref().unwrap_or_default();
    let Line { customer, outcome, .. } = line;
    match (&line.problem, &line.total) {
        (Some(problem), _) => format!("{customer}: PROBLEM: {problem}"),
        (None, _) if outcome == "nothing_due" => format!("{customer}: nothing due"),
        (None, Some(total)) => {
            let currency = line.currency.as_deref().unwrap_or_default();
            let due = line.amount_due.as_deref().unwrap_or_default();
            let kind = match line.kind.as_deref() {
                Some("credit_note") => "credit note",
                _ => "invoice",
            };
            format!("{customer}: {outcome} {kind} {number} {total} {currency}, due {due}")
                .replace("  ", " ")
        }
        (None, None) => format!("{customer}: {} {number}", outcome.replace('_', " ")),
    }
}

fn told_counts(counts: &Counts) -> String {
    let Counts { issued, drafts, issued_before, awaiting_archive, nothing_due, problems, totals } =
        counts;
    let waiting = match awaiting_archive {
        0 => String::new(),
        count => format!("{count} waiting for the archive, "),
    };
    let sums: Vec<_> = totals.iter().map(|(currency, sum)| format!("{sum} {currency}")).collect();
    let sums = if sums.is_empty() { String::new() } else { format!("; {}", sums.join(", ")) };
    format!(
        "{issued} issued, {drafts} drafts, {issued_before} issued before, {nothing_due} with nothing due, {waiting}{problems} problems{sums}"
    )
}
