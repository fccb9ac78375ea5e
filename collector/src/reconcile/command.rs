//! `tidemark-collector reconcile`, `waive`, `declare-lost`: asks the running collector, or does it on a stopped one's ledger.
//!
//! **Owns** which of the two, and what people read. **Does not own** the report.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Exposed;
use super::door::Answering;
use crate::archive::task::Archiving;
use crate::config::Config;
use crate::control;
use crate::ledger::redb::LEDGER_FILE;
use crate::ledger::{Ledger, LedgerError, LedgerOptions};

/// A report tells of so many findings in words; JSON has all.
const TOLD_MAX: usize = 1_000;

/// Failed to ask.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error("failed to use the ledger: {0}; stop the collector, or run this as its user")]
    Ledger(#[from] LedgerError),
    #[error("failed to ask: the collector does not answer on {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("failed: {0}")]
    Failed(String),
    #[error("failed to ask: {0}")]
    Io(#[from] io::Error),
}

/// An answer, as far as people read it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    failed: Option<String>,
    entry: Option<u64>,
    at: String,
    from: String,
    depth: String,
    complete_through: Option<String>,
    passes: bool,
    findings: Vec<Told>,
    counts: Counts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    streams: std::collections::BTreeMap<String, u64>,
    blocking: u64,
    covered: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    id: String,
    blocks: bool,
    told: String,
    remedy: String,
    scope: String,
    customers: Vec<String>,
    customers_concerned: usize,
    #[serde(default)]
    exposed: Vec<Exposed>,
    from: String,
    to: String,
    cover: Option<Cover>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cover {
    Waiver { actor: String, reason: String },
    Policy { name: String, signed_by: String },
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    /// The collector's answer.
    Json,
}

/// Asks for a report, and prints it. Whether nothing keeps an invoice back. Blocks.
///
/// # Errors
/// See [`CommandError`].
pub fn reconcile(
    config: &Config,
    data_dir: &Path,
    asked: &super::door::AskedReport,
    form: Form,
    output: &mut dyn Write,
) -> Result<bool, CommandError> {
    let (line, answer) = ask(config, data_dir, super::door::REPORT, asked)?;
    match form {
        Form::Json => writeln!(output, "{}", line.trim_end())?,
        Form::Text => tell(&answer, output)?,
    }
    output.flush()?;
    Ok(answer.passes)
}

/// Asks for something to be booked; the number of its entry. Blocks.
///
/// # Errors
/// See [`CommandError`].
pub fn book(
    config: &Config,
    data_dir: &Path,
    verb: &str,
    asked: &impl Serialize,
) -> Result<u64, CommandError> {
    let (_, answer) = ask(config, data_dir, verb, asked)?;
    answer.entry.ok_or_else(|| CommandError::Failed("the answer names no entry".to_owned()))
}

fn ask(
    config: &Config,
    data_dir: &Path,
    verb: &str,
    asked: &impl Serialize,
) -> Result<(String, Answer), CommandError> {
    let request = control::request(verb, asked)?;
    let failed = |source| CommandError::Connect { path: data_dir.join(control::SOCKET), source };
    let line = match control::connect(data_dir).map_err(failed)? {
        Some(socket) => control::ask(socket, &request)?,
        None => ask_stopped(config, data_dir, request)?,
    };
    if line.is_empty() {
        let told = "the collector ended before it answered; ask again".to_owned();
        return Err(CommandError::Failed(told));
    }
    let answer: Answer = serde_json::from_str(&line).map_err(io::Error::other)?;
    match answer.failed {
        Some(reason) => Err(CommandError::Failed(reason)),
        None => Ok((line, answer)),
    }
}

/// On a ledger that no collector has open.
fn ask_stopped(config: &Config, data_dir: &Path, request: Vec<u8>) -> Result<String, CommandError> {
    if !data_dir.join(LEDGER_FILE).exists() {
        let place = data_dir.display();
        let told = format!("there is no ledger in {place}; name the collector's data_dir");
        return Err(CommandError::Failed(told));
    }
    let place = config.archive.place().map_err(|error| CommandError::Failed(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = LedgerOptions::default();
        options.redb.bodies = place.bodies();
        let (ledger, store) = Ledger::open_embedded(data_dir, options).await?;
        let archiving = Archiving::begin(place, &ledger, &store).await;
        let answered = answer_stopped(config, &ledger, request).await;
        if let Some(archiving) = archiving {
            archiving.end(Duration::from_millis(config.shutdown_grace_millis)).await;
        }
        ledger.shutdown().await?;
        answered
    })
}

async fn answer_stopped(
    config: &Config,
    ledger: &Ledger,
    request: Vec<u8>,
) -> Result<String, CommandError> {
    let failed = |error: &dyn std::fmt::Display| CommandError::Failed(error.to_string());
    let catalog = config.catalog_of(ledger).map_err(|error| failed(&error))?;
    let settings = config.reconcile.settings();
    let answering = Answering { ledger: ledger.clone(), catalog: Arc::new(catalog), settings };
    let runtime = tokio::runtime::Handle::current();
    let answered = tokio::task::spawn_blocking(move || answering.line(&request, &runtime));
    let line = answered.await.map_err(|_| LedgerError::Stopped)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn tell(answer: &Answer, output: &mut dyn Write) -> io::Result<()> {
    let streams: Vec<_> =
        answer.counts.streams.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let through = answer.complete_through.as_deref().unwrap_or("nothing");
    writeln!(
        output,
        "cut {}, looked at from {} ({}); complete through {through}; streams: {}",
        answer.at,
        answer.from,
        answer.depth,
        if streams.is_empty() { "none".to_owned() } else { streams.join(", ") }
    )?;
    for finding in answer.findings.iter().take(TOLD_MAX) {
        tell_finding(finding, output)?;
    }
    if let Some(more) = answer.findings.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
        writeln!(output, "and {more} more: --json shows them")?;
    }
    let Counts { blocking, covered, .. } = answer.counts;
    writeln!(output, "{blocking} findings keep invoices back, {covered} are waived or covered")
}

fn tell_finding(finding: &Told, output: &mut dyn Write) -> io::Result<()> {
    let Told { id, told, from, to, remedy, .. } = finding;
    match &finding.cover {
        Some(Cover::Waiver { actor, reason }) => {
            return writeln!(output, "waived   {id}: {told}\n         by {actor}: {reason}");
        }
        Some(Cover::Policy { name, signed_by }) => {
            return writeln!(
                output,
                "covered  {id}: {told}\n         by the policy {name:?}, signed by {signed_by}"
            );
        }
        None if !finding.blocks => return writeln!(output, "told     {id}: {told}"),
        None => {}
    }
    let whom = match finding.scope.as_str() {
        "global" => "everybody".to_owned(),
        _ => {
            let named: Vec<_> = finding.customers.iter().take(5).map(String::as_str).collect();
            let more = finding.customers_concerned.saturating_sub(named.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            if named.is_empty() {
                "nobody".to_owned()
            } else {
                format!("{}{more}", named.join(", "))
            }
        }
    };
    writeln!(output, "BLOCKS   {id}: {told}\n         whom: {whom}; time: {from} to {to}")?;
    if let Some(exposed) = Exposed::told(&finding.exposed) {
        writeln!(output, "         exposed: {exposed}")?;
    }
    writeln!(output, "         do: {remedy}")
}
