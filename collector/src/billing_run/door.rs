//! Billing runs as they are asked for and told: over the control socket, by the command line, by the API.
//!
//! ```text
//! {"period_end": DATE, "dry_run": BOOL, "old": BOOL, "actor": TEXT, "although_incomplete": REASON, "customers": [ID, ..]}
//! -> {"customer": ID, "outcome": ..}      one a line
//! -> {"end": {"issued": N, ..}}           last; or {"failed": REASON}
//! ```
//! **Owns** these shapes. **Does not own** the run.

use std::io::{self, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use tidemark_common::id::CustomerId;

use super::{Age, Mode, Outcome, RunRequest, Settings, Summary};
use crate::catalog::Catalog;
use crate::ledger::books::TEXT_BYTES_MAX;
use crate::ledger::{Ledger, LedgerError};
use crate::period::Day;

const OUTCOMES_WAITING_MAX: usize = 64;

/// A run as it is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedRun {
    pub period_end: String,
    #[serde(default)]
    pub dry_run: bool,
    /// Also what ended long ago.
    #[serde(default)]
    pub old: bool,
    #[serde(default)]
    pub actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub although_incomplete: Option<String>,
    /// Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub customers: Vec<String>,
}

/// What is told of a run.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Told {
    Outcome(Box<Outcome>),
    End { end: Summary },
    Failed { failed: String },
}

impl Told {
    /// One line.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("texts and numbers are JSON");
        line.push(b'\n');
        line
    }
}

/// Failed to ask for a run, or to hear of it.
#[derive(Debug, Error)]
pub enum AskError {
    #[error("failed to read the request: {reason}")]
    Request { reason: String },
    #[error("`{field}` is {found:?}: {remedy}")]
    Field { field: &'static str, found: String, remedy: String },
    #[error("failed to tell of the run: {0}")]
    Io(#[from] io::Error),
    #[error("failed to bill: {0}")]
    Ledger(#[from] LedgerError),
}

impl AskedRun {
    /// # Errors
    /// A field that cannot be used.
    pub fn request(&self, settings: &Settings) -> Result<RunRequest, AskError> {
        let date = Day::parse(&self.period_end).map_err(|_| AskError::Field {
            field: "period_end",
            found: self.period_end.clone(),
            remedy: "write the first day after the period, such as 2026-12-01".to_owned(),
        })?;
        let customer = |id: &String| {
            CustomerId::parse(id).map_err(|error| AskError::Field {
                field: "customers",
                found: id.clone(),
                remedy: error.to_string(),
            })
        };
        let customers = self.customers.iter().map(customer).collect::<Result<_, _>>()?;
        checked("actor", &self.actor)?;
        if let Some(reason) = &self.although_incomplete {
            checked("although_incomplete", reason)?;
        }
        Ok(RunRequest {
            date,
            mode: if self.dry_run { Mode::DryRun } else { Mode::Issue },
            actor: self.actor.clone(),
            although_incomplete: self.although_incomplete.clone(),
            settings: settings.clone(),
            age: if self.old { Age::Any } else { Age::Recent },
            customers: (!self.customers.is_empty()).then_some(customers),
        })
    }
}

fn checked(field: &'static str, text: &str) -> Result<(), AskError> {
    if !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let remedy = format!("write 1 to {TEXT_BYTES_MAX} bytes of printable text");
    Err(AskError::Field { field, found: text.to_owned(), remedy })
}

/// Runs it, and shows each outcome and the end to `tell` until that fails.
///
/// # Errors
/// A request that cannot be read, a ledger that cannot be used, or `tell`'s own.
pub async fn run(
    ledger: &Ledger,
    catalog: Arc<Catalog>,
    asked: &AskedRun,
    settings: &Settings,
    tell: mpsc::Sender<Told>,
) -> Result<Summary, AskError> {
    let request = asked.request(settings)?;
    let (outcomes, mut told) = mpsc::channel(OUTCOMES_WAITING_MAX);
    let telling = async {
        while let Some(outcome) = told.recv().await {
            if tell.send(Told::Outcome(Box::new(outcome))).await.is_err() {
                break;
            }
        }
        // Closed here, so that the run ends with its listener.
        drop(told);
    };
    let running = async {
        let ended = super::run(ledger, catalog, request, &outcomes).await;
        drop(outcomes);
        ended
    };
    let (ended, ()) = tokio::join!(running, telling);
    let last = match &ended {
        Ok(summary) => Told::End { end: summary.clone() },
        Err(error) => Told::Failed { failed: error.to_string() },
    };
    let _heard = tell.send(last).await.is_ok();
    Ok(ended?)
}

/// Answers a caller of the control socket; blocks.
///
/// # Errors
/// As [`run`]; the caller is told too.
pub(crate) fn bill_to(
    caller: &UnixStream,
    asked: &[u8],
    ledger: &Ledger,
    catalogs: &watch::Receiver<Arc<Catalog>>,
    settings: &Settings,
    runtime: &tokio::runtime::Handle,
) -> Result<String, AskError> {
    let mut output = BufWriter::new(caller);
    let parsed = serde_json::from_slice::<AskedRun>(asked)
        .map_err(|error| AskError::Request { reason: error.to_string() })
        .and_then(|asked| asked.request(settings).map(|_| asked));
    let asked = match parsed {
        Ok(asked) => asked,
        Err(error) => {
            output.write_all(&Told::Failed { failed: error.to_string() }.line())?;
            output.flush()?;
            return Err(error);
        }
    };
    let (tell, mut told) = mpsc::channel(OUTCOMES_WAITING_MAX);
    let (ledger, catalog) = (ledger.clone(), catalogs.borrow().clone());
    let settings = settings.clone();
    let running =
        runtime.spawn(async move { run(&ledger, catalog, &asked, &settings, tell).await });
    while let Some(line) = told.blocking_recv() {
        output.write_all(&line.line())?;
        if told.is_empty() {
            output.flush()?;
        }
    }
    output.flush()?;
    let summary = runtime.block_on(running).map_err(|_| LedgerError::Stopped)??;
    let Summary { issued, drafts, issued_before, problems, .. } = summary;
    Ok(format!(
        "billed: {issued} issued, {drafts} drafts, {issued_before} before, {problems} problems"
    ))
}
