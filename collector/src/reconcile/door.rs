//! Reconciliations, waivers and losses as they are asked for and answered: over the control socket, by the command line, by
//! the API.
//!
//! ```text
//! {"at": INSTANT, "quick": BOOL}                                                     -> the report (shown.rs)
//! {"finding": ID, "events_max": N, "actor": TEXT, "reason": TEXT}                    -> {"entry": N}
//! {"stream": ID, "actor": TEXT, "reason": TEXT}                                      -> {"entry": N}
//!                                                                       or, of each, -> {"failed": REASON}
//! ```
//! **Owns** these shapes and what is refused. **Does not own** findings, or the rows.
//!
//! Everything blocks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use tidemark_common::hex;
use tidemark_common::id::StreamId;

use super::{Reconciliation, Reconciling, ReportShown, Settings, Wanted, default_cut, losses};
use crate::catalog::Catalog;
use crate::ledger::books::{Booked, Change, Refused, RequestKey, TEXT_BYTES_MAX, What};
use crate::ledger::{Ledger, LedgerError};
use crate::period::{Zone, parse_edge};

/// What is asked for over the control socket begins with one of these.
pub const REPORT: &str = "reconcile 1 ";
pub const WAIVE: &str = "waive 1 ";
pub const LOSE: &str = "lost 1 ";

/// A report as it is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedReport {
    /// The cut; the newest, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Nothing is recomputed from the batches.
    #[serde(default)]
    pub quick: bool,
}

/// A waiver as it is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedWaiver {
    /// The finding's id.
    pub finding: String,
    /// As many events as the finding has now, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_max: Option<u64>,
    #[serde(default)]
    pub actor: String,
    pub reason: String,
}

/// A declaration as it is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedLoss {
    pub stream: String,
    #[serde(default)]
    pub actor: String,
    pub reason: String,
}

/// What was booked.
#[derive(Debug, Clone, Serialize)]
struct BookedShown {
    entry: u64,
}

/// Why it was not done.
#[derive(Debug, Error)]
pub enum AskError {
    #[error("failed to read the request: {reason}")]
    Request { reason: String },
    #[error("`{field}` is {found:?}: {remedy}")]
    Field { field: &'static str, found: String, remedy: String },
    #[error(
        "there is no finding {id:?} now; `tidemark-collector reconcile` lists them; to waive one that a billing run names, say how many events"
    )]
    NoFinding { id: String },
    #[error("there is no stream {stream:?}; GET /v1/streams lists them")]
    NoStream { stream: String },
    #[error("the stream {stream} is closed: its agent left in good order, and nothing is missing")]
    Closed { stream: StreamId },
    #[error("the stream {stream} is declared lost already, and was not heard since")]
    Lost { stream: StreamId },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What answers are made of.
#[derive(Debug, Clone)]
pub struct Answering {
    pub ledger: Ledger,
    pub catalog: Arc<Catalog>,
    pub settings: Settings,
}

impl Answering {
    /// The report, of a snapshot of now.
    ///
    /// # Errors
    /// A cut that cannot be, or a ledger that cannot be read.
    pub fn report(&self, asked: &AskedReport) -> Result<Reconciliation, AskError> {
        let snapshot = self.ledger.snapshot()?;
        let at = match &asked.at {
            None => default_cut(&snapshot),
            Some(text) => {
                let edge =
                    parse_edge(text).map_err(|error| field("at", text, &error.to_string()))?;
                if edge.start() > snapshot.ledger_time() {
                    let now = Zone::utc().rfc3339(snapshot.ledger_time());
                    return Err(field(
                        "at",
                        text,
                        &format!("it is {now} now; give an earlier time"),
                    ));
                }
                edge
            }
        };
        let reconciling = Reconciling {
            ledger: &self.ledger,
            catalog: &self.catalog,
            snapshot: &snapshot,
            settings: &self.settings,
            run: None,
        };
        let quick = reconciling.quick(at)?;
        if asked.quick { Ok(quick) } else { Ok(reconciling.deepen(&quick, Wanted::Everything)?) }
    }

    /// The change that a waiver asks for.
    ///
    /// # Errors
    /// A finding that there is not, or a field that cannot be used.
    pub fn waiver(&self, asked: &AskedWaiver) -> Result<Asked, AskError> {
        let finding = checked("finding", &asked.finding)?;
        let reason = checked("reason", &asked.reason)?;
        let events_max = match asked.events_max {
            Some(events) => events,
            None => self.events_of(&finding)?,
        };
        Ok(Asked { reason, what: What::Waive { finding, events_max } })
    }

    fn events_of(&self, id: &str) -> Result<u64, AskError> {
        for quick in [true, false] {
            let report = self.report(&AskedReport { at: None, quick })?;
            if let Some(finding) = report.findings.iter().find(|finding| finding.id == id) {
                return Ok(finding.events);
            }
        }
        Err(AskError::NoFinding { id: id.to_owned() })
    }

    /// The change that a declaration asks for.
    ///
    /// # Errors
    /// A stream that there is not, that is closed, or that is lost already.
    pub fn loss(&self, asked: &AskedLoss) -> Result<Asked, AskError> {
        let reason = checked("reason", &asked.reason)?;
        let none = || AskError::NoStream { stream: asked.stream.clone() };
        let stream = hex::decode_array(&asked.stream).map(StreamId).ok_or_else(none)?;
        let snapshot = self.ledger.snapshot()?;
        let record = snapshot.records.iter().find(|record| record.stream == stream);
        let Some(record) = record else {
            let retired = snapshot.retired_stream(stream).map_err(LedgerError::from)?;
            return Err(retired.map_or_else(none, |_| AskError::Closed { stream }));
        };
        if record.state == crate::ledger::StreamState::Closed {
            return Err(AskError::Closed { stream });
        }
        let lost = losses(&*snapshot.books).map_err(LedgerError::from)?;
        if lost.get(&stream).is_some_and(|loss| loss.holds(record)) {
            return Err(AskError::Lost { stream });
        }
        let agent = record.agent.to_string();
        Ok(Asked { reason, what: What::Lose { stream, agent, fence: record.fence } })
    }

    /// Answers what came over the control socket: one line.
    #[must_use]
    pub fn line(&self, asked: &[u8], runtime: &tokio::runtime::Handle) -> Vec<u8> {
        let answered = self.answer(asked, runtime);
        let mut line = answered.unwrap_or_else(|error| {
            let failed = Failed { failed: error.to_string() };
            serde_json::to_vec(&failed).expect("texts are JSON")
        });
        line.push(b'\n');
        line
    }

    fn answer(&self, asked: &[u8], runtime: &tokio::runtime::Handle) -> Result<Vec<u8>, AskError> {
        let (asked, actor) = if let Some(asked) = asked.strip_prefix(REPORT.as_bytes()) {
            let report = self.report(&read(asked)?)?;
            let shown = ReportShown::of(&report, &self.catalog);
            return Ok(serde_json::to_vec(&shown).expect("texts and numbers are JSON"));
        } else if let Some(asked) = asked.strip_prefix(WAIVE.as_bytes()) {
            let asked: AskedWaiver = read(asked)?;
            (self.waiver(&asked)?, asked.actor)
        } else if let Some(asked) = asked.strip_prefix(LOSE.as_bytes()) {
            let asked: AskedLoss = read(asked)?;
            (self.loss(&asked)?, asked.actor)
        } else {
            return Err(AskError::Request { reason: "it asks for nothing known".to_owned() });
        };
        let change = asked.change(checked("actor", &actor)?, None);
        let Booked { entry, .. } = runtime.block_on(self.ledger.book(change))??;
        Ok(serde_json::to_vec(&BookedShown { entry }).expect("numbers are JSON"))
    }
}

/// Something that may be booked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub reason: String,
    pub what: What,
}

impl Asked {
    #[must_use]
    pub fn change(self, actor: String, request: Option<RequestKey>) -> Change {
        Change { actor, reason: Some(self.reason), date: None, request, what: self.what }
    }
}

/// In place of an answer.
#[derive(Debug, Serialize)]
struct Failed {
    failed: String,
}

fn read<T: serde::de::DeserializeOwned>(asked: &[u8]) -> Result<T, AskError> {
    serde_json::from_slice(asked).map_err(|error| AskError::Request { reason: error.to_string() })
}

fn checked(field: &'static str, text: &str) -> Result<String, AskError> {
    if !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let remedy = format!("write 1 to {TEXT_BYTES_MAX} bytes of printable text");
    Err(AskError::Field { field, found: text.to_owned(), remedy })
}

fn field(field: &'static str, found: &str, remedy: &str) -> AskError {
    AskError::Field { field, found: found.to_owned(), remedy: remedy.to_owned() }
}
