//! Ships one journal that no agent runs on: a life without doors.
//!
//! **Owns** the order: open, seal what is left, ship, wait for acks, close the stream. **Does not own** any
//! of these parts, which are the agent's own, or which journals are shipped (`drain.rs`, `import.rs`).
//!
//! A journal whose lock is held is left alone, and none is made where there is none. One that is held for too long here is
//! let go, as an agent that starts again waits for it: whatever was posted until then is known to both.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidemark_common::id::{EventNumber, RulesVersion, StreamId};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::{RunError, clock, driver_config, opening, read_pem, spawn};
use crate::Machine;
use crate::commit::{CommitStart, Committer, JobSender, Shared, Task};
use crate::config::Config;
use crate::driver::home::AgentHome;
use crate::driver::{Driver, DriverStop};
use crate::intake::IntakeHandle;
use crate::intake::job::{CloseJob, Position};
use crate::journal::{Journal, JournalState, OpenError, Recovered, Write};

/// What became of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shipped {
    /// `None`: it could not be looked into.
    pub(crate) stream: Option<StreamId>,
    pub(crate) accepted: u64,
    /// Events that were posted before, and that are posted now.
    pub(crate) posted_before: u64,
    pub(crate) posted: u64,
    pub(crate) end: ShipEnd,
}

/// How shipping a journal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShipEnd {
    /// All was posted and closed before.
    NothingToDo,
    /// All is posted, and the stream is closed.
    Closed,
    /// Another process holds it: an agent, another drainer, or a command that reads it.
    InUse,
    /// Some of it is still there.
    Left { reason: String },
    /// It was cloned or rolled back.
    Conflict { message: String },
}

/// Who made a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MadeBy {
    /// Its own agent: what that counted last is shipped too, if anything is left.
    Agent,
    /// An import: nothing is added to it, as every import of it must be the same; and the collector is asked even
    /// if all was posted, for its ledger may have been restored since.
    Import,
}

impl Shipped {
    fn unseen(end: ShipEnd) -> Self {
        Self { stream: None, accepted: 0, posted_before: 0, posted: 0, end }
    }
}

/// Ships the journal at `path` with the uplink of `config`, for at most `longest`.
///
/// # Errors
/// A journal that cannot be opened, or a disk that fails. What is not shipped is still there.
pub(crate) async fn ship(
    config: &Config,
    path: &Path,
    made_by: MadeBy,
    longest: Duration,
) -> Result<Shipped, RunError> {
    let options = opening::journal_options(config, path);
    let opened = tokio::task::spawn_blocking(move || {
        Ok::<_, RunError>(Journal::open_left_behind(options, opening::fresh_ids()?, clock())?)
    });
    match opened.await.map_err(|_| RunError::PartEnded)? {
        Ok((journal, recovered)) => ship_open(config, journal, recovered, made_by, longest).await,
        Err(RunError::Journal(OpenError::Held { .. })) => Ok(Shipped::unseen(ShipEnd::InUse)),
        Err(RunError::Journal(OpenError::Conflicted { stream, reason, .. })) => {
            let end = ShipEnd::Conflict { message: reason };
            Ok(Shipped { stream: Some(stream), ..Shipped::unseen(end) })
        }
        Err(error) => Err(error),
    }
}

async fn ship_open(
    config: &Config,
    mut journal: Journal,
    recovered: Recovered,
    made_by: MadeBy,
    longest: Duration,
) -> Result<Shipped, RunError> {
    let before = journal.state().clone();
    let shipped = |state: &JournalState, end| Shipped {
        stream: Some(state.stream),
        accepted: state.accepted,
        posted_before: before.posted_events,
        posted: state.posted_events,
        end,
    };
    if made_by == MadeBy::Agent && is_done(&before, recovered.clean) {
        journal.commit(vec![Write::Closed], clock()).map_err(crate::commit::CommitError::from)?;
        return Ok(shipped(&before, ShipEnd::NothingToDo));
    }

    let raw_events = config.journal.keeps_raw_events() && made_by == MadeBy::Agent;
    let shared = Arc::new(Shared::with_raw_events(raw_events));
    let rules = recovered.rules.map(Arc::new);
    let last = evidence_position(&before, rules.as_ref().map(|rules| rules.version));
    let last = Some(last).filter(|_| made_by == MadeBy::Agent);
    let (committer, sealer, commit, jobs) = Committer::new(CommitStart {
        journal,
        groups: recovered.groups,
        rules: rules.clone(),
        unique_key: recovered.unique_key,
        shared: Arc::clone(&shared),
        machine: Machine::real(),
    })?;
    // An intake that has ended: nothing is accepted any more.
    let (intake, _) = IntakeHandle::channel(Arc::clone(&shared), rules, Arc::new(|| ()));
    let (_kept, pem) = watch::channel(Arc::new(read_pem(config)?));
    let home = AgentHome::new(commit.clone(), intake);
    let (driver, uplink) = Driver::new(driver_config(config, pem), home)?;
    spawn("tidemark-sealer", move || sealer.run())?;
    let committed = spawn("tidemark-commit", move || committer.run())?;

    let sealed = all_sealed(commit.state(), jobs, shared, last);
    let end = tokio::select! {
        ended = driver.run(sealed) => match ended {
            Ok(()) => Ok(ShipEnd::Closed),
            Err(DriverStop::Conflict { message }) => Ok(ShipEnd::Conflict { message }),
            Err(stop @ DriverStop::Home(_)) => Err(RunError::Driver(stop)),
        },
        () = sleep(longest) => {
            let told = uplink.borrow().last_error.clone();
            let reason = told.unwrap_or_else(|| "the time is over".to_owned());
            Ok(ShipEnd::Left { reason })
        }
    };
    let state = commit.state();
    commit.stop().await;
    if let Ok(Err(error)) = committed.await {
        return Err(error.into());
    }
    let last = Arc::clone(&state.borrow());
    end.map(|end| shipped(&last, end))
}

/// Whether nothing is left to tell the collector.
fn is_done(state: &JournalState, clean: bool) -> bool {
    state.accepted == state.posted_events
        && (state.ledger.is_none() || (clean && state.posted_sequence == state.sealed_sequence))
}

/// The last counts, in a batch of their own behind all events.
fn evidence_position(state: &JournalState, rules: Option<RulesVersion>) -> Position {
    Position {
        opening: state.opening,
        rules: rules.unwrap_or(RulesVersion(0)),
        first_event: EventNumber(state.accepted),
        end_event: EventNumber(state.accepted),
        evidence: state.evidence.clone(),
    }
}

/// Resolves once everything in the journal is sealed, which takes a ledger and its rules; then the `last` counts.
async fn all_sealed(
    mut state: watch::Receiver<Arc<JournalState>>,
    jobs: JobSender,
    shared: Arc<Shared>,
    last: Option<Position>,
) {
    // A ledger may be known before its rules are, for which the chunks wait.
    let all = |state: &Arc<JournalState>| state.ledger.is_some() && state.events_in_chunks == 0;
    let pinned = state.wait_for(all).await.is_ok();
    let accepted = state.borrow().accepted;
    let (reply, reached) = oneshot::channel();
    let ordered = tokio::task::spawn_blocking(move || {
        if let Some(position) = last {
            let close = CloseJob { group: None, batch: None, position };
            jobs.send(Task::close(close, &shared))?;
        }
        jobs.send(Task::Barrier { reply, accepted })
    });
    if !pinned || !matches!(ordered.await, Ok(Ok(()))) || reached.await.is_err() {
        // The commit thread has ended, which whoever drives the session sees too.
        std::future::pending::<()>().await;
    }
}
