//! Reconciling by itself: all of the time looked at, in full, now and then.
//!
//! **Owns** when, and what is logged. **Does not own** the report; the last one is kept for `/metrics` alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::catalog::Catalog;
use crate::ledger::Ledger;
use crate::reconcile::door::{Answering, AskError, AskedReport};
use crate::reconcile::{Finding, Settings, Sweeps};

/// So many findings are logged, each in a line of its own.
const LOGGED_MAX: usize = 20;

/// Runs until it is aborted; a sweep that is under way ends by itself.
pub(super) async fn run(
    ledger: Ledger,
    catalogs: watch::Receiver<Arc<Catalog>>,
    settings: Settings,
    every: Duration,
    sweeps: Arc<Sweeps>,
) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Agents that were connected before a restart come back first.
    tick.tick().await;
    loop {
        tick.tick().await;
        let (ledger, settings) = (ledger.clone(), settings.clone());
        let (catalog, sweeps) = (catalogs.borrow().clone(), Arc::clone(&sweeps));
        let answering = Answering { ledger, catalog, settings };
        let swept = tokio::task::spawn_blocking(move || sweep(&answering, &sweeps)).await;
        match swept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "reconciling ended"),
            Err(error) => tracing::error!(%error, "reconciling ended in a panic"),
        }
    }
}

fn sweep(answering: &Answering, sweeps: &Sweeps) -> Result<(), AskError> {
    let Some(_turn) = sweeps.turn() else { return Ok(()) };
    let begun = answering.ledger.monotonic();
    let report = answering.report(&AskedReport::default())?;
    let took = answering.ledger.monotonic().saturating_sub(begun);
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    sweeps.ended(&report, answering.ledger.now(), millis);
    let blocking: Vec<_> = report.findings.iter().filter(|finding| finding.blocks()).collect();
    if blocking.is_empty() {
        tracing::debug!(millis, "reconciled: nothing keeps invoices back");
    } else {
        tracing::warn!(
            millis,
            findings = blocking.len(),
            "findings keep invoices back; `tidemark-collector reconcile` says what to do"
        );
    }
    for Finding { id, told, .. } in blocking.into_iter().take(LOGGED_MAX) {
        tracing::warn!(id, "{told}");
    }
    Ok(())
}
