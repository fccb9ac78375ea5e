//! The commit thread: group commit, seals, and the answers that wait for them.
//!
//! ```text
//! intake ── Task::Commit, Close, Barrier ──┐
//! driver, admin ── Task::Write ────────────┤  commit thread ── one transaction, one fsync ── answers
//! sealer ── Task::Sealed ──────────────────┘        │  ^
//!                            closed batches, in order v  │ encoded bodies
//!                                              sealer thread (`sealer`)
//! ```
//!
//! **Owns** the journal's one writer, the order of commits and seals, and the published
//! [`JournalState`]. **Does not own** what is written, nor encoding.
//!
//! Invariants: nobody is answered before the transaction that holds what he waits for is durable;
//! groups are sealed in the order in which they closed; an aggregate for which there is no [room] is dropped and
//! made again from its chunks. A failed commit ends the thread: the
//! process must exit, reopen and re-verify.
//!
//! [room]: room::Room

mod fsync;
mod room;
mod sealer;
mod shared;
mod task;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::time::Instant;

use thiserror::Error;
use tidemark_common::wire::{Rules, UniqueKey};
use tokio::sync::{mpsc, oneshot, watch};

use fsync::FsyncRecorder;
pub use fsync::{FSYNC_BOUNDS_MICROS, FsyncFigures};
use room::Reserved;
pub use room::{ROOM_BYTES, Room};
pub use sealer::Sealer;
pub use shared::Shared;
pub use task::{Aggregate, AtReplay, Sealed, Task, Waiter};

use crate::Machine;
use crate::intake::answer::{Answered, Barrier, IntakeClosed};
use crate::intake::job::{CloseJob, CommitJob, Position};
use crate::journal::{
    Append, Committed, Group, Journal, JournalError, JournalReader, JournalState, Write,
};

/// Tasks that wait for the commit thread: about 300 ms of chunks at full rate.
const TASKS_QUEUED_MAX: usize = 128;
/// One transaction holds at most this many tasks.
const TASKS_PER_COMMIT_MAX: usize = 64;
/// zstd level of chunks: the fastest that pays.
const CHUNK_ZSTD_LEVEL: i32 = 1;

/// A batch that cannot be sealed: its chunks cannot be read back, or it breaks a limit of its own.
#[derive(Debug, Error)]
pub enum SealError {
    #[error("failed to seal group {group}: its chunks cannot be read: {reason}")]
    Chunks { group: u64, reason: String },
    #[error("failed to seal a batch: {reason}")]
    Body { reason: String },
    #[error("failed to seal: the sealer thread has ended")]
    Ended,
}

/// Why the commit thread ended.
#[derive(Debug, Error)]
pub enum CommitError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("failed to compress a chunk: {0}")]
    Compress(std::io::Error),
}

/// The commit thread is gone; the agent is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("failed to write to the journal: the commit thread has stopped")]
pub struct CommitStopped;

/// The sending end for threads.
#[derive(Debug, Clone)]
pub struct JobSender(mpsc::Sender<Task>);

impl JobSender {
    /// Hands over a task, blocking while the queue is full.
    ///
    /// # Errors
    /// Once the commit thread is gone.
    pub fn send(&self, task: Task) -> Result<(), IntakeClosed> {
        self.0.blocking_send(task).map_err(|_| IntakeClosed)
    }
}

/// How the async side reaches the journal.
#[derive(Debug, Clone)]
pub struct CommitHandle {
    tasks: mpsc::Sender<Task>,
    state: watch::Receiver<Arc<JournalState>>,
    reader: JournalReader,
    shared: Arc<Shared>,
    fsync: Arc<Mutex<FsyncRecorder>>,
}

impl CommitHandle {
    /// Commits `writes` as one transaction, with whatever else is waiting.
    ///
    /// # Errors
    /// Once the commit thread is gone.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Committed, CommitStopped> {
        let (reply, committed) = oneshot::channel();
        self.tasks.send(Task::Write { writes, reply }).await.map_err(|_| CommitStopped)?;
        committed.await.map_err(|_| CommitStopped)
    }

    /// The journal's durable state, published after each commit.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<JournalState>> {
        self.state.clone()
    }

    #[must_use]
    pub fn reader(&self) -> JournalReader {
        self.reader.clone()
    }

    /// Tells intake whether batches that are sealed now can be sent now.
    pub fn uplink_room(&self, room: bool) {
        self.shared.uplink_room.store(room, Ordering::Relaxed);
    }

    /// Has batches sealed as fast as is sensible, until the process ends: it will be soon.
    pub fn prepare_stop(&self) {
        self.shared.set_stop_near();
    }

    #[must_use]
    pub fn is_stop_near(&self) -> bool {
        self.shared.is_stop_near()
    }

    /// What the last Welcome said of raw events.
    pub fn raw_events_taken(&self, taken: bool) {
        self.shared.set_raw_events_taken(taken);
    }

    #[must_use]
    pub fn fsync(&self) -> FsyncFigures {
        self.fsync.lock().unwrap_or_else(PoisonError::into_inner).figures()
    }

    /// Ends the commit thread after what is queued.
    pub async fn stop(&self) {
        // A thread that is gone has stopped.
        drop(self.tasks.send(Task::Stop).await);
    }
}

/// The commit thread before it runs.
pub struct Committer {
    journal: Journal,
    tasks: mpsc::Receiver<Task>,
    shared: Arc<Shared>,
    published: watch::Sender<Arc<JournalState>>,
    fsync: Arc<Mutex<FsyncRecorder>>,
    sealer: std_mpsc::SyncSender<sealer::Order>,
    /// What waits for the sealer, in order. One order is under way at a time.
    orders: VecDeque<sealer::Order>,
    sealing: bool,
    /// Groups that were closed before any rules were known.
    unruled: Vec<Unsealed>,
    rules: Option<Arc<Rules>>,
    unique_key: Option<UniqueKey>,
    compressor: zstd::bulk::Compressor<'static>,
    machine: Machine,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("journal", &self.journal).finish_non_exhaustive()
    }
}

/// What [`Committer::new`] starts from.
#[derive(Debug)]
pub struct CommitStart {
    pub journal: Journal,
    /// What earlier openings left unsealed, oldest first.
    pub groups: Vec<Group>,
    pub rules: Option<Arc<Rules>>,
    pub unique_key: Option<UniqueKey>,
    pub shared: Arc<Shared>,
    pub machine: Machine,
}

impl Committer {
    /// Makes the two ends, and the sealer, which runs beside.
    ///
    /// # Errors
    /// If the compressor cannot be had.
    pub fn new(start: CommitStart) -> Result<(Self, Sealer, CommitHandle, JobSender), CommitError> {
        let (tasks, inbox) = mpsc::channel(TASKS_QUEUED_MAX);
        let (published, state) = watch::channel(Arc::new(start.journal.state().clone()));
        let reader = start.journal.reader();
        let jobs = JobSender(tasks.clone());
        let (orders, sealer) =
            Sealer::new(reader.clone(), jobs.clone(), Arc::clone(&start.shared), start.machine);
        let fsync = Arc::new(Mutex::new(FsyncRecorder::new()));
        let handle = CommitHandle {
            tasks,
            state,
            reader,
            shared: Arc::clone(&start.shared),
            fsync: Arc::clone(&fsync),
        };
        let mut committer = Self {
            journal: start.journal,
            tasks: inbox,
            shared: start.shared,
            published,
            fsync,
            sealer: orders,
            orders: VecDeque::new(),
            sealing: false,
            unruled: start.groups.into_iter().map(Unsealed::from).collect(),
            rules: start.rules,
            unique_key: start.unique_key,
            compressor: zstd::bulk::Compressor::new(CHUNK_ZSTD_LEVEL)
                .map_err(CommitError::Compress)?,
            machine: start.machine,
        };
        committer.publish();
        Ok((committer, sealer, handle, jobs))
    }

    /// Runs on the calling thread until told to stop.
    ///
    /// # Errors
    /// A failed commit or seal: nothing more may be acknowledged.
    pub fn run(mut self) -> Result<(), CommitError> {
        self.begin()?;
        while let Some(first) = self.tasks.blocking_recv() {
            if self.take(vec![first])? == Next::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Orders what earlier openings left unsealed. Comes before the first [`Self::turn`].
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn begin(&mut self) -> Result<(), CommitError> {
        self.order_unruled();
        self.dispatch()?;
        Ok(())
    }

    /// Does what waits now, in one transaction.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn turn(&mut self) -> Result<Next, CommitError> {
        match self.tasks.try_recv() {
            Ok(first) => self.take(vec![first]),
            Err(mpsc::error::TryRecvError::Empty) => Ok(Next::GoOn),
            Err(mpsc::error::TryRecvError::Disconnected) => Ok(Next::Stop),
        }
    }

    fn take(&mut self, mut tasks: Vec<Task>) -> Result<Next, CommitError> {
        while tasks.len() < TASKS_PER_COMMIT_MAX
            && let Ok(task) = self.tasks.try_recv()
        {
            tasks.push(task);
        }
        self.apply(tasks)
    }

    /// One transaction for all of `tasks`; then what waits for it.
    fn apply(&mut self, tasks: Vec<Task>) -> Result<Next, CommitError> {
        let mut next = Next::GoOn;
        let mut writes = Vec::new();
        let mut after = Vec::new();
        for task in tasks {
            match task {
                Task::Commit { commit, waiters } => {
                    self.push_commit(commit, &mut writes)?;
                    after.push(After::Answer(waiters));
                }
                Task::Answer { waiters } => after.push(After::Answer(waiters)),
                Task::Close { close, aggregate, bytes } => {
                    after.push(After::Close(Box::new(close), aggregate, bytes))
                }
                Task::Barrier { reply, accepted } => after.push(After::Barrier { reply, accepted }),
                Task::Write { writes: more, reply } => {
                    after.push(self.push_writes(more, reply, &mut writes));
                }
                Task::Sealed(Sealed::Batch { seal, at_replay }) => {
                    self.shared.count_at_replay(at_replay);
                    writes.push(Write::Seal(*seal));
                    after.push(After::Sealed);
                }
                Task::Sealed(Sealed::Barrier { reply, accepted }) => {
                    after.push(After::BarrierReached { reply, accepted });
                }
                Task::Sealed(Sealed::Failed(error)) => return Err(error.into()),
                Task::Stop => next = Next::Stop,
            }
        }
        let committed = self.commit(writes)?;
        for act in after {
            self.follow(act, &committed);
        }
        self.dispatch()?;
        Ok(next)
    }

    fn push_commit(
        &mut self,
        commit: CommitJob,
        writes: &mut Vec<Write>,
    ) -> Result<(), CommitError> {
        if let Some(chunk) = commit.chunk {
            let bytes = self.compressor.compress(&chunk.bytes).map_err(CommitError::Compress)?;
            writes.push(Write::Append(Append {
                group: commit.group,
                opening: commit.opening,
                rules: commit.rules,
                first_event: commit.first_event,
                events: chunk.events,
                oldest: commit.oldest,
                evidence: commit.evidence.clone(),
                bytes,
            }));
        }
        if !commit.ids.is_empty() {
            writes.push(Write::Ids(commit.ids));
        }
        writes.push(Write::Evidence(commit.evidence));
        if !commit.dead_letters.is_empty() {
            writes.push(Write::DeadLetters(commit.dead_letters));
        }
        if !commit.replayed.is_empty() {
            writes.push(Write::Replayed(commit.replayed));
        }
        if !commit.sources.is_empty() {
            writes.push(Write::SourceCounts(commit.sources));
        }
        Ok(())
    }

    fn push_writes(
        &mut self,
        more: Vec<Write>,
        reply: oneshot::Sender<Committed>,
        writes: &mut Vec<Write>,
    ) -> After {
        let mut welcomed = None;
        for write in &more {
            if let Write::Welcomed(welcome) = write {
                let rules = welcome.rules.clone().map(Arc::new);
                welcomed = Some((rules, welcome.unique_key));
            }
        }
        writes.extend(more);
        After::Written { reply, welcomed }
    }

    fn commit(&mut self, writes: Vec<Write>) -> Result<Committed, CommitError> {
        if writes.is_empty() {
            return Ok(Committed::default());
        }
        let began = now();
        let at = self.shared.corrected((self.machine.wall)());
        let committed = self.journal.commit(writes, at)?;
        let micros = u64::try_from(now().duration_since(began).as_micros()).unwrap_or(u64::MAX);
        self.fsync.lock().unwrap_or_else(PoisonError::into_inner).record(micros);
        self.publish();
        Ok(committed)
    }

    fn publish(&mut self) {
        let state = self.journal.state();
        self.shared.full.store(state.full, Ordering::Relaxed);
        self.published.send_replace(Arc::new(state.clone()));
    }

    fn follow(&mut self, act: After, committed: &Committed) {
        match act {
            After::Answer(waiters) => {
                for waiter in waiters {
                    tell(waiter.reply, Answered::Durable(waiter.answers));
                }
            }
            After::Close(close, aggregate, bytes) => self.order_close(*close, aggregate, bytes),
            After::Barrier { reply, accepted } if self.rules.is_none() => {
                self.reached(reply, accepted)
            }
            After::Barrier { reply, accepted } => {
                self.orders.push_back(sealer::Order::Barrier { reply, accepted })
            }
            After::BarrierReached { reply, accepted } => {
                self.sealing = false;
                self.reached(reply, accepted);
            }
            After::Sealed => {
                self.sealing = false;
                self.count_orders();
            }
            After::Written { reply, welcomed } => {
                if let Some((rules, key)) = welcomed {
                    self.rules = rules.or_else(|| self.rules.take());
                    self.unique_key = Some(key);
                    self.order_unruled();
                }
                tell(reply, committed.clone());
            }
        }
    }

    fn reached(&self, reply: oneshot::Sender<Barrier>, accepted: u64) {
        let sequence = self.journal.state().sealed_sequence;
        tell(reply, Barrier { sequence, accepted });
    }

    fn order_close(&mut self, close: CloseJob, aggregate: Option<Box<Aggregate>>, bytes: usize) {
        // A journal in conflict ships nothing more, and events that are not summed up can be told apart.
        if self.journal.state().conflict.is_some() {
            return;
        }
        let position = close.position;
        match (close.group, aggregate) {
            (None, _) => self.orders.push_back(sealer::Order::Evidence(position)),
            (Some(group), Some(aggregate)) => {
                self.orders.push_back(sealer::Order::Encode { group, aggregate, position });
            }
            (Some(group), None) => {
                self.unruled.push(Unsealed { group, position, bytes });
                self.order_unruled();
            }
        }
        self.count_orders();
    }

    /// Orders the groups that must be made from their chunks, once rules are known.
    fn order_unruled(&mut self) {
        let (Some(rules), Some(unique_key)) = (&self.rules, self.unique_key) else { return };
        for Unsealed { group, position, bytes } in std::mem::take(&mut self.unruled) {
            let rules = Arc::clone(rules);
            self.orders.push_back(sealer::Order::Replay {
                group,
                position,
                rules,
                unique_key,
                bytes,
                reserved: None,
            });
        }
        self.count_orders();
    }

    fn count_orders(&self) {
        let under_way = self.orders.len().saturating_add(usize::from(self.sealing));
        self.shared.seals_under_way.store(under_way, Ordering::Relaxed);
    }

    /// Hands the next order to the sealer, if it is idle.
    fn dispatch(&mut self) -> Result<(), SealError> {
        if self.sealing {
            return Ok(());
        }
        if let Some(mut order) = self.orders.pop_front() {
            if let sealer::Order::Replay { bytes, reserved, .. } = &mut order {
                *reserved = Some(self.shared.room.reserve(*bytes));
            }
            // The sealer's queue holds one order and is empty, so this does not wait.
            self.sealer.send(order).map_err(|_| SealError::Ended)?;
            self.sealing = true;
        }
        self.count_orders();
        Ok(())
    }
}

/// A closed group whose aggregate must be made from its chunks.
#[derive(Debug)]
struct Unsealed {
    group: u64,
    position: Position,
    /// How much memory its aggregate takes at most.
    bytes: usize,
}

impl From<Group> for Unsealed {
    fn from(held: Group) -> Self {
        let position = Position {
            opening: held.opening,
            rules: held.rules,
            first_event: held.first_event,
            end_event: held.end_event,
            evidence: held.evidence,
        };
        Self { group: held.group, position, bytes: ROOM_BYTES }
    }
}

/// Whether the commit thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    GoOn,
    Stop,
}

/// What follows a commit.
enum After {
    Answer(Vec<Waiter>),
    Close(Box<CloseJob>, Option<Box<Aggregate>>, usize),
    Barrier { reply: oneshot::Sender<Barrier>, accepted: u64 },
    BarrierReached { reply: oneshot::Sender<Barrier>, accepted: u64 },
    Sealed,
    Written { reply: oneshot::Sender<Committed>, welcomed: Option<(Option<Arc<Rules>>, UniqueKey)> },
}

/// Who went away needs no answer; what he sent is durable all the same.
fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    if reply.send(answer).is_err() {
        tracing::trace!("nobody waits for this answer any more");
    }
}

#[expect(clippy::disallowed_methods, reason = "the commit thread is a shell: it measures fsync")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
