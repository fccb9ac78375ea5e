//! The writer: the one task that changes the ledger.
//!
//! **Owns** the group commit. While one group commits, the next one gathers: the busier the ledger,
//! the larger its groups, and a lone batch waits for nobody.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::request::{Reply, Request};
use super::store::{Committed, LedgerStore, StoreError};
use super::{Shared, Stage, Waiting, until};

/// How often the limit of ledger time is looked at.
const CLOCK_TICK: Duration = Duration::from_secs(1);
/// A group holds at most this many requests, whatever their size.
const GROUP_REQUESTS_MAX: usize = 1_024;

pub(super) async fn run<S: LedgerStore>(
    shared: Arc<Shared>,
    store: Arc<S>,
    mut waiting: mpsc::Receiver<Waiting>,
) {
    let mut stage = shared.stage.subscribe();
    let mut tick = tokio::time::interval(CLOCK_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let step = tokio::select! {
            biased;
            () = until(&mut stage, |stage| *stage != Stage::Running) => break,
            _ = tick.tick() => extend_clock(&shared, &*store).await,
            first = waiting.recv() => match first {
                Some(first) => write_group(&shared, &*store, first, &mut waiting).await,
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
    waiting.close();
    while let Some(first) = waiting.recv().await {
        if let Err(error) = write_group(&shared, &*store, first, &mut waiting).await {
            return shared.fail(error);
        }
    }
    match store.checkpoint().await {
        Ok(()) => {
            shared.advance(&Stage::Running, Stage::Folding);
            shared.advance(&Stage::Stopping, Stage::Folding);
        }
        Err(error) => shared.fail(error),
    }
}

/// Stores a further limit of ledger time, if the current one runs out.
pub(super) async fn extend_clock<S: LedgerStore>(
    shared: &Shared,
    store: &S,
) -> Result<(), StoreError> {
    let due = shared.clock().extension_due(shared.time.read());
    if due.is_some() {
        commit(shared, store, Vec::new()).await?;
    }
    Ok(())
}

/// Commits `first` and what waits behind it, then answers.
async fn write_group<S: LedgerStore>(
    shared: &Shared,
    store: &S,
    first: Waiting,
    waiting: &mut mpsc::Receiver<Waiting>,
) -> Result<(), StoreError> {
    let bytes_max = shared.options.tail_bytes_max;
    let (mut size, mut stage) = (shared.size.subscribe(), shared.stage.subscribe());
    tokio::select! {
        () = until(&mut size, |size| size.bytes < bytes_max) => {}
        () = until(&mut stage, |stage| matches!(stage, Stage::Failed(_))) => return Ok(()),
    }
    let (mut group, mut replies, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0_usize;
    let mut next = Some(first);
    while let Some(Waiting { request, reply, room }) = next {
        bytes = bytes.saturating_add(request.bytes());
        group.push(request);
        replies.push(reply);
        rooms.extend(room);
        if bytes >= shared.options.group_bytes_max || group.len() >= GROUP_REQUESTS_MAX {
            break;
        }
        next = waiting.try_recv().ok();
    }
    let answers = commit(shared, store, group).await?;
    drop(rooms);
    assert_eq!(answers.len(), replies.len(), "the store answers every request");
    for (reply, answer) in replies.into_iter().zip(answers) {
        // A session that ended meanwhile does not wait for its reply any more.
        drop(reply.send(answer));
    }
    Ok(())
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
    let Committed { replies, admitted, streams, quarantined } =
        store.commit(group, at, limit).await?;
    if let Some(limit) = limit {
        shared.clock().extended(limit);
    }
    let micros = shared.time.read().monotonic_micros.saturating_sub(began.monotonic_micros);
    shared.counters.count_commit(micros);
    shared.counters.count_quarantined(quarantined);
    for reply in &replies {
        if let Reply::Judged { verdict, .. } = reply {
            shared.counters.count_verdict(verdict);
        }
    }
    if !admitted.is_empty() || !streams.is_empty() {
        let replaced = shared.publish(|published| {
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
