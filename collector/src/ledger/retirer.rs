//! The retirer: finds the streams that are due to retire, and asks the writer for it, some at a time.
//!
//! **Owns** when, and how many at once. **Does not own** the rule (`ledger/retired.rs`): the writer judges again, in
//! the transaction that moves them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::request::{Reply, Request};
use super::{Ledger, Shared, Stage, Waiting, retired, until};

/// So many streams retire in one transaction at most: that takes some milliseconds.
const STREAMS_AT_ONCE_MAX: usize = 256;
/// How often all live streams are looked at, at most and at least.
const TICK_MIN: Duration = Duration::from_millis(100);
const TICK_MAX: Duration = Duration::from_secs(60);
/// And for each time that they are to be silent, so often.
const TICKS: u32 = 10;

impl Ledger {
    /// Asks to retire streams that are due, the first [`STREAMS_AT_ONCE_MAX`] of them; `None` if there are none. The
    /// running ledger does so by itself.
    #[must_use]
    pub fn due_to_retire(&self) -> Option<Request> {
        self.shared.due_to_retire()
    }
}

impl Shared {
    fn due_to_retire(&self) -> Option<Request> {
        let (now, after_millis) = (self.now(), self.options.retire_after_millis);
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let due =
            published.streams.values().filter(|record| retired::is_due(record, now, after_millis));
        let streams: Vec<_> = due.map(|record| record.stream).take(STREAMS_AT_ONCE_MAX).collect();
        (!streams.is_empty()).then_some(Request::Retire { streams, after_millis })
    }
}

pub(super) async fn run(shared: Arc<Shared>, requests: mpsc::WeakSender<Waiting>) {
    let after = u64::try_from(shared.options.retire_after_millis).unwrap_or(0);
    let each = Duration::from_millis(after).checked_div(TICKS).unwrap_or(TICK_MIN);
    let mut tick = tokio::time::interval(each.clamp(TICK_MIN, TICK_MAX));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stage = shared.stage.subscribe();
    loop {
        tokio::select! {
            biased;
            () = until(&mut stage, |stage| *stage != Stage::Running) => return,
            _ = tick.tick() => {}
        }
        while let Some(request) = shared.due_to_retire() {
            let Some(requests) = requests.upgrade() else { return };
            let (reply, replied) = oneshot::channel();
            let since_micros = shared.time.read().monotonic_micros;
            let waiting = Waiting { request, reply, since_micros, room: None };
            if requests.send(waiting).await.is_err() {
                return;
            }
            drop(requests);
            match replied.await {
                // Those that are due are not folded yet.
                Ok(Reply::Retired(0)) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}
