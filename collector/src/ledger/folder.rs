//! The folder: the one task that moves batches from the tail into the totals.
//!
//! **Owns** when that happens: at limits on the tail's lines and age, and at the end. Rarely on
//! purpose: a hot row is written once per fold, however busy it is.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::fold::FoldSlice;
use super::store::{LedgerStore, StoreError};
use super::tail::{Tail, TailSize};
use super::{Shared, Stage, off_task, until};

/// The folder before it runs: [`Ledger::start`](super::Ledger::start) runs it, [`Self::turn`] is one turn of
/// it.
#[derive(Debug)]
pub struct Folder<S> {
    shared: Arc<Shared>,
    store: Arc<S>,
}

impl<S: LedgerStore> Folder<S> {
    pub(super) fn new(shared: Arc<Shared>, store: Arc<S>) -> Self {
        Self { shared, store }
    }

    pub(super) async fn run(self) {
        run(self.shared, self.store).await;
    }

    /// Folds all that the tail holds now.
    ///
    /// # Errors
    /// If the store failed: it is reopened, or not used any more.
    pub async fn turn(&self) -> Result<(), StoreError> {
        fold(&self.shared, &*self.store).await
    }
}

async fn run<S: LedgerStore>(shared: Arc<Shared>, store: Arc<S>) {
    let (lines_max, bytes_max) = (shared.options.fold_lines_max, shared.options.tail_bytes_max);
    let is_full = |size: &TailSize| size.lines >= lines_max || size.bytes >= bytes_max;
    let mut size = shared.size.subscribe();
    let mut stage = shared.stage.subscribe();
    let mut age =
        tokio::time::interval(Duration::from_millis(shared.options.fold_age_millis.max(1)));
    age.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            biased;
            () = until(&mut stage, |stage| !matches!(stage, Stage::Running | Stage::Stopping)) => true,
            () = until(&mut size, is_full) => false,
            _ = age.tick() => false,
        };
        if shared.has_failed() {
            return;
        }
        if let Err(error) = fold(&shared, &*store).await {
            return shared.fail(error);
        }
        if last {
            return shared.advance(&Stage::Folding, Stage::Stopped);
        }
    }
}

/// Folds all that the tail holds now.
async fn fold<S: LedgerStore>(shared: &Shared, store: &S) -> Result<(), StoreError> {
    let tail: Arc<Tail> = {
        let published = shared.published.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(&published.tail)
    };
    if tail.is_empty() {
        return Ok(());
    }
    let began = shared.time.read();
    let slice = blocking("sum", move || FoldSlice::of(tail.iter().map(AsRef::as_ref)))
        .await
        .map(Arc::new)?;
    store.fold(Arc::clone(&slice)).await?;
    let folded = shared.publish(|published| {
        let rest = Arc::new(published.tail.without_oldest(slice.batches));
        mem::replace(&mut published.tail, rest)
    });
    let micros = shared.time.read().monotonic_micros.saturating_sub(began.monotonic_micros);
    shared.counters.count_fold(slice.lines, micros);
    tracing::debug!(batches = slice.batches, lines = slice.lines, micros, "folded");
    // Freeing 200,000 lines takes as long as many commits do.
    blocking("free", move || drop((folded, slice))).await
}

/// Does what takes long with the tail, off the async tasks.
async fn blocking<T: Send + 'static>(
    act: &'static str,
    done: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    off_task(done).await.map_err(|reason| StoreError::Storage { act, file: "tail", reason })
}
