//! Billing by itself: once an hour, the periods that ended of late.
//!
//! **Owns** which dates are run, and when. **Does not own** the run: what is issued already stays, and what cannot be
//! issued yet is tried again an hour later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::billing_run::{self, Age, Mode, Outcome, RunRequest, Settings, Summary};
use crate::catalog::Catalog;
use crate::ledger::Ledger;
use crate::period::{Day, Zone};

const INTERVAL: Duration = Duration::from_secs(3_600);
/// A customer whose problem is mended within so many days is billed without a hand.
const DAYS: u16 = 7;
const OUTCOMES_WAITING_MAX: usize = 64;
const DAY_MILLIS: i64 = 86_400_000;
/// Runs of longer ago are asked for by hand.
const GRACE_DAYS_MAX: u16 = 90;
/// Who has billed, in entries.
const ACTOR: &str = "schedule";

/// Runs until it is aborted.
pub(super) async fn run(
    ledger: Ledger,
    catalogs: watch::Receiver<Arc<Catalog>>,
    settings: Settings,
) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Ok(today) = Zone::utc().day_of(ledger.now()) else { continue };
        for date in dates(today, settings.grace_millis) {
            let catalog = catalogs.borrow().clone();
            bill(&ledger, catalog, date, settings.clone()).await;
        }
    }
}

/// The dates on which periods ended of late; tomorrow begins earlier in the east.
fn dates(today: Day, grace_millis: i64) -> impl Iterator<Item = Day> {
    let grace_days = u16::try_from(grace_millis.div_euclid(DAY_MILLIS)).unwrap_or(GRACE_DAYS_MAX);
    let days = DAYS.saturating_add(grace_days.min(GRACE_DAYS_MAX));
    let first = today.minus_days(days);
    (0..=days.saturating_add(1)).map(move |days| first.plus_days(days))
}

async fn bill(ledger: &Ledger, catalog: Arc<Catalog>, date: Day, settings: Settings) {
    let request = RunRequest {
        date,
        mode: Mode::Issue,
        actor: ACTOR.to_owned(),
        although_incomplete: None,
        settings,
        age: Age::Recent,
        customers: None,
    };
    let (outcomes, mut told) = mpsc::channel::<Outcome>(OUTCOMES_WAITING_MAX);
    let telling = async {
        let mut first_problem = None;
        while let Some(outcome) = told.recv().await {
            // What is not over yet is no problem.
            if let Some(problem) = outcome.problem.filter(|_| !outcome.waits) {
                first_problem.get_or_insert((outcome.customer, problem));
            }
        }
        first_problem
    };
    let running = async {
        let ended = billing_run::run(ledger, catalog, request, &outcomes).await;
        drop(outcomes);
        ended
    };
    let (ended, first_problem) = tokio::join!(running, telling);
    match (ended, first_problem) {
        (Ok(Summary { issued, .. }), Some((customer, problem))) => {
            tracing::warn!(%date, issued, customer, problem, "not everybody was billed");
        }
        (Ok(Summary { issued: 0, .. }), None) => {}
        (Ok(Summary { issued, .. }), None) => tracing::info!(%date, issued, "billed"),
        (Err(error), _) => tracing::error!(%date, %error, "billing ended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_and_tomorrow() {
        let shown: Vec<_> =
            dates(Day::parse("2026-03-03").unwrap(), 0).map(|day| day.to_string()).collect();
        let late = dates(Day::parse("2026-03-03").unwrap(), 8 * DAY_MILLIS).count();
        assert_eq!(late, 17);
        assert_eq!(
            (shown.len(), shown.first(), shown.last()),
            (9, Some(&"2026-02-24".to_owned()), Some(&"2026-03-04".to_owned()))
        );
    }
}
