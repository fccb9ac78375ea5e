//! The writer: the one task that changes the ledger.
//!
//! **Owns** the group commit. While one group commits, the next one gathers: the busier the ledger,
//! the larger its groups, and a lone batch waits for nobody.

use std::collections::btree_map::Entry;
use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tidemark_common::id::StreamId;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::request::{Reply, Request};
use super::retired::RetiredStream;
use super::store::{Committed, LedgerStore, StoreError};
use super::{Shared, Stage, Waiting, off_task, until};

/// How often the limit of ledger time is looked at.
const CLOCK_TICK: Duration = Duration::from_secs(1);
/// A group holds at most this many requests, whatever their size.
const GROUP_REQUESTS_MAX: usize = 1_024;

/// The writer before it runs: [`Ledger::start`](super::Ledger::start) runs it, [`Self::turn`] is one turn of
/// it.
#[derive(Debug)]
pub struct Writer<S> {
    shared: Arc<Shared>,
    store: Arc<S>,
    waiting: mpsc::Receiver<Waiting>,
    /// The wall clock is not believed now, and the log says so.
    has_leapt: bool,
}

impl<S: LedgerStore> Writer<S> {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Arc<S>,
        waiting: mpsc::Receiver<Waiting>,
    ) -> Self {
        Self { shared, store, waiting, has_leapt: false }
    }

    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut stage = shared.stage.subscribe();
        let mut tick = tokio::time::interval(CLOCK_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                biased;
                () = until(&mut stage, |stage| *stage != Stage::Running) => break,
                _ = tick.tick() => self.extend_clock().await,
                first = self.waiting.recv() => match first {
                    Some(first) => self.write_group(first).await,
                    None => break,
                },
            };
            if let Err(error) = step {
                return shared.fail(error);
            }
        }
        if shared.has_failed() {
            return;
        }
        self.waiting.close();
        while let Some(first) = self.waiting.recv().await {
            if let Err(error) = self.write_group(first).await {
                return shared.fail(error);
            }
        }
        match self.store.checkpoint().await {
            Ok(()) => {
                shared.advance(&Stage::Running, Stage::Folding);
                shared.advance(&Stage::Stopping, Stage::Folding);
            }
            Err(error) => shared.fail(error),
        }
    }

    /// Commits what waits now, and a further limit of ledger time when that is due.
    ///
    /// # Errors
    /// If the store failed: it is reopened, or not used any more.
    pub async fn turn(&mut self) -> Result<(), StoreError> {
        self.extend_clock().await?;
        match self.waiting.try_recv() {
            Ok(first) => self.write_group(first).await,
            Err(_) => Ok(()),
        }
    }

    /// Writes what makes the next start quick, as an orderly end does.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.store.checkpoint().await
    }

    /// Stores a further limit of ledger time, if the current one runs out.
    pub(super) async fn extend_clock(&mut self) -> Result<(), StoreError> {
        let reading = self.shared.time.read();
        let (due, leap) = {
            let clock = self.shared.clock();
            (clock.extension_due(reading), clock.leap(reading))
        };
        if leap.is_some() != self.has_leapt {
            self.has_leapt = leap.is_some();
            match leap {
                Some(_) => tracing::error!(
                    "the machine's clock leapt ahead by over 400 days and is not followed: set it right; if it is right, restart once with --trust-clock"
                ),
                None => tracing::info!("the machine's clock is believed again"),
            }
        }
        if due.is_some() {
            commit(&self.shared, &*self.store, Vec::new()).await?;
        }
        Ok(())
    }

    /// Commits `first` and what waits behind it, then answers.
    async fn write_group(&mut self, first: Waiting) -> Result<(), StoreError> {
        let Self { shared, store, waiting, .. } = self;
        let bytes_max = shared.options.tail_bytes_max;
        let (mut size, mut stage) = (shared.size.subscribe(), shared.stage.subscribe());
        tokio::select! {
            () = until(&mut size, |size| size.bytes < bytes_max) => {}
            () = until(&mut stage, |stage| matches!(stage, Stage::Failed(_))) => return Ok(()),
        }
        let (mut group, mut replies, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0_usize;
        let mut next = Some(first);
        let now = shared.time.read().monotonic_micros;
        while let Some(Waiting { request, reply, since_micros, room }) = next {
            shared.counters.count_wait(now.saturating_sub(since_micros));
            bytes = bytes.saturating_add(request.bytes());
            group.push(request);
            replies.push(reply);
            rooms.extend(room);
            if bytes >= shared.options.group_bytes_max || group.len() >= GROUP_REQUESTS_MAX {
                break;
            }
            next = waiting.try_recv().ok();
        }
        let answers = commit(shared, &**store, group).await?;
        drop(rooms);
        assert_eq!(answers.len(), replies.len(), "the store answers every request");
        for (reply, answer) in replies.into_iter().zip(answers) {
            // A session that ended meanwhile does not wait for its reply any more.
            drop(reply.send(answer));
        }
        Ok(())
    }
}

/// One transaction, then what readers see.
async fn commit<S: LedgerStore>(
    shared: &Shared,
    store: &S,
    group: Vec<Request>,
) -> Result<Vec<Reply>, StoreError> {
    let began = shared.time.read();
    let (at, limit) = {
        let mut clock = shared.clock();
        (clock.now(began), clock.extension_due(began))
    };
    show_returning(shared, store, &group).await?;
    let Committed { replies, admitted, streams, quarantined, suppressed, retired, retired_sums } =
        store.commit(group, at, limit).await?;
    if let Some(limit) = limit {
        shared.clock().extended(limit);
    }
    let micros = shared.time.read().monotonic_micros.saturating_sub(began.monotonic_micros);
    shared.counters.count_commit(micros);
    shared.counters.count_quarantined(quarantined);
    shared.counters.count_suppressed(suppressed);
    for reply in &replies {
        if let Reply::Judged { verdict, .. } = reply {
            shared.counters.count_verdict(verdict);
        }
    }
    if !admitted.is_empty() || !streams.is_empty() || !retired.is_empty() {
        let replaced = shared.publish(|published| {
            for stream in &retired {
                published.streams.remove(stream);
            }
            if let Some(sums) = retired_sums {
                published.retired = Arc::new(sums);
            }
            published
                .streams
                .extend(streams.into_iter().map(|record| (record.stream, Arc::new(record))));
            let tail = Arc::new(published.tail.appended(admitted));
            mem::replace(&mut published.tail, tail)
        });
        // Its batches are in the new one.
        drop(replaced);
    }
    Ok(replies)
}

/// Shows the retired streams that the group names as live, before they leave the retired: a reader in between
/// finds them in both places, and shows them once.
async fn show_returning<S: LedgerStore>(
    shared: &Shared,
    store: &S,
    group: &[Request],
) -> Result<(), StoreError> {
    let unknown: Vec<StreamId> = {
        let published = shared.published.read().unwrap_or_else(PoisonError::into_inner);
        if published.retired.streams == 0 {
            return Ok(());
        }
        let named = group.iter().filter_map(Request::stream);
        named.filter(|stream| !published.streams.contains_key(stream)).collect()
    };
    if unknown.is_empty() {
        return Ok(());
    }
    let retired = store.retired()?;
    let find = move || unknown.into_iter().map(|stream| retired.find(stream)).collect();
    let found: Result<Vec<_>, StoreError> = off_task(find)
        .await
        .map_err(|reason| StoreError::Storage { act: "read", file: "ledger.redb", reason })?;
    let returning: Vec<_> = found?.into_iter().flatten().collect();
    if returning.is_empty() {
        return Ok(());
    }
    shared.publish(|published| {
        let sums = Arc::make_mut(&mut published.retired);
        for RetiredStream { record, .. } in returning {
            if let Entry::Vacant(place) = published.streams.entry(record.stream) {
                sums.take(&record);
                place.insert(Arc::new(record));
            }
        }
    });
    Ok(())
}
