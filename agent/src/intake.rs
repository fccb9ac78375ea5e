//! Intake: every door's bytes become recorded events, on one thread.
//!
//! ```text
//! datagram doors ── recvmmsg ──┐
//! stream, HTTP ── Submission ──┤ intake thread: core.rs judges and records ── Job ──> commit thread
//! driver ───────── Control ────┘
//! ```
//!
//! **Owns** the intake thread, its two bounded queues and who is answered when. **Does not own** what
//! is decided (`core`), sockets (`datagram`, `stream`, `http`) or durability ([`crate::commit`]).
//!
//! Invariants: a submission is answered only after the commit that follows its last event; while the
//! journal is full no submission is taken before the end, so the doors that can wait do; control is never behind
//! submissions.

mod alias;
pub mod answer;
mod arc_slot;
pub mod core;
pub mod datagram;
pub mod figures;
pub mod forward;
pub mod http;
mod ids;
pub mod job;
pub(crate) mod limited;
pub mod passage;
pub mod replay;
pub mod socket_file;
pub mod stream;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_slot::ArcSlot;
use bytes::Bytes;
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::RulesVersion;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Rules, UniqueKey};
use tokio::sync::{mpsc, oneshot};

use crate::Machine;
use crate::commit::{AtReplay, JobSender, Shared, Task, Waiter};
use crate::event::{Door, Parsed, RejectReason};
pub use answer::{Answer, Answered, Barrier, IntakeClosed};
use datagram::{Datagram, Received};
use forward::Forwarder;
use forward::packer::Packed;
use job::Job;
use replay::Replay;

/// Submissions that wait for the intake thread; a door that has more waits to send.
pub const SUBMISSIONS_QUEUED_MAX: usize = 64;
/// Control commands that wait for the intake thread.
const CONTROLS_QUEUED_MAX: usize = 16;
/// Submissions taken before datagrams get their turn.
const SUBMISSIONS_PER_TURN_MAX: usize = 32;

/// Parsed input of one acknowledged door.
#[derive(Debug)]
pub struct Submission {
    pub door: Door,
    /// The rules that CloudEvents were read under, 0 for the seed; `None` where rules do not matter.
    pub rules: Option<RulesVersion>,
    pub items: Vec<Item>,
}

/// One line or CloudEvent, and its bytes as received in case it becomes a dead letter.
#[derive(Debug)]
pub struct Item {
    pub parsed: Parsed,
    pub raw: Bytes,
}

/// A submission on its way.
#[derive(Debug)]
pub struct Submit {
    pub submission: Submission,
    pub reply: oneshot::Sender<Answered>,
}

/// What the driver and the shutdown ask of intake.
#[derive(Debug)]
pub enum Control {
    Barrier {
        reply: oneshot::Sender<Barrier>,
    },
    Adopt {
        rules: Option<Arc<Rules>>,
        unique_key: UniqueKey,
        clock_offset_millis: i64,
        reply: oneshot::Sender<()>,
    },
    /// Take dead letters once more. Answered as a submission is.
    Replay {
        /// As of a [`Submission`].
        rules: Option<RulesVersion>,
        replays: Vec<Replay>,
        reply: oneshot::Sender<Answered>,
    },
    /// Read what the kernel still holds, close all doors, seal everything.
    Stop {
        reply: oneshot::Sender<Barrier>,
    },
}

/// The receiving ends of an [`IntakeHandle`].
#[derive(Debug)]
pub struct Inbox {
    pub submissions: mpsc::Receiver<Submit>,
    pub controls: mpsc::Receiver<Control>,
}

/// How the other threads reach intake.
#[derive(Clone)]
pub struct IntakeHandle {
    submissions: mpsc::Sender<Submit>,
    controls: mpsc::Sender<Control>,
    wake: Arc<dyn Fn() + Send + Sync>,
    rules: ArcSlot<Rules>,
    shared: Arc<Shared>,
}

impl fmt::Debug for IntakeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntakeHandle").finish_non_exhaustive()
    }
}

impl IntakeHandle {
    /// A handle and what receives from it; `wake` interrupts the receiver's wait.
    #[must_use]
    pub fn channel(
        shared: Arc<Shared>,
        rules: Option<Arc<Rules>>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> (Self, Inbox) {
        let (submissions, submissions_inbox) = mpsc::channel(SUBMISSIONS_QUEUED_MAX);
        let (controls, controls_inbox) = mpsc::channel(CONTROLS_QUEUED_MAX);
        let handle = Self { submissions, controls, wake, rules: ArcSlot::new(rules), shared };
        (handle, Inbox { submissions: submissions_inbox, controls: controls_inbox })
    }

    /// Hands over a submission, waiting for room. The receiver resolves after its commit; answers come
    /// in the order of submission.
    ///
    /// # Errors
    /// Once intake has stopped.
    pub async fn submit(
        &self,
        submission: Submission,
    ) -> Result<oneshot::Receiver<Answered>, IntakeClosed> {
        let (reply, answered) = oneshot::channel();
        self.submissions.send(Submit { submission, reply }).await.map_err(|_| IntakeClosed)?;
        (self.wake)();
        Ok(answered)
    }

    /// The current rules; `None` until the journal's first Welcome.
    #[must_use]
    pub fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.load()
    }

    /// Whether the journal is at its budget: doors that can wait must.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.is_full()
    }

    /// Resolves once all that was accepted before is durable and sealed.
    ///
    /// # Errors
    /// Once intake has stopped.
    pub async fn barrier(&self) -> Result<Barrier, IntakeClosed> {
        self.ask(|reply| Control::Barrier { reply }).await
    }

    /// Takes over what a Welcome said, after the journal has stored it. Events that come once this has
    /// resolved are judged by it.
    ///
    /// # Errors
    /// Once intake has stopped.
    pub async fn adopt(
        &self,
        rules: Option<Arc<Rules>>,
        unique_key: UniqueKey,
        clock_offset_millis: i64,
    ) -> Result<(), IntakeClosed> {
        if let Some(rules) = &rules {
            self.rules.store(Arc::clone(rules));
        }
        let (reply, adopted) = oneshot::channel();
        let adopt = Control::Adopt { rules, unique_key, clock_offset_millis, reply };
        self.controls.send(adopt).await.map_err(|_| IntakeClosed)?;
        (self.wake)();
        adopted.await.map_err(|_| IntakeClosed)
    }

    /// Takes dead letters once more. The receiver resolves after their commit.
    ///
    /// # Errors
    /// Once intake has stopped.
    pub async fn replay(
        &self,
        rules: Option<RulesVersion>,
        replays: Vec<Replay>,
    ) -> Result<oneshot::Receiver<Answered>, IntakeClosed> {
        let (reply, answered) = oneshot::channel();
        let replay = Control::Replay { rules, replays, reply };
        self.controls.send(replay).await.map_err(|_| IntakeClosed)?;
        (self.wake)();
        Ok(answered)
    }

    /// Closes the datagram doors and seals everything that was accepted.
    ///
    /// # Errors
    /// If intake has stopped before.
    pub async fn stop(&self) -> Result<Barrier, IntakeClosed> {
        self.ask(|reply| Control::Stop { reply }).await
    }

    async fn ask(
        &self,
        control: impl FnOnce(oneshot::Sender<Barrier>) -> Control,
    ) -> Result<Barrier, IntakeClosed> {
        let (reply, barrier) = oneshot::channel();
        self.controls.send(control(reply)).await.map_err(|_| IntakeClosed)?;
        (self.wake)();
        barrier.await.map_err(|_| IntakeClosed)
    }
}

/// Where datagrams come from.
pub trait DatagramSource {
    /// Waits for datagrams, at most this long, and shows each.
    ///
    /// # Errors
    /// If it cannot wait any more.
    fn receive(
        &mut self,
        wait: Duration,
        each: impl FnMut(Door, Datagram<'_>),
    ) -> io::Result<Received>;

    /// Datagrams that were dropped before they could be received, so far.
    fn kernel_drops(&self) -> u64;

    /// Nothing is received any more.
    fn close(&mut self);
}

/// Intake before it runs. [`Self::run`] takes the calling thread; [`Self::turn`] is one turn of it.
#[derive(Debug)]
pub struct IntakeThread {
    core: core::Core,
    inbox: Inbox,
    jobs: JobSender,
    shared: Arc<Shared>,
    forwarder: Option<Forwarder>,
    machine: Machine,
    started: core::Ticks,
    /// Who waits for the commit that is being filled.
    waiters: Vec<Waiter>,
    kernel_drops: u64,
    stopping: Option<oneshot::Sender<Barrier>>,
}

impl IntakeThread {
    #[must_use]
    pub fn new(
        core: core::Core,
        inbox: Inbox,
        jobs: JobSender,
        shared: Arc<Shared>,
        machine: Machine,
    ) -> Self {
        Self {
            core,
            inbox,
            jobs,
            shared,
            forwarder: None,
            machine,
            started: (machine.ticks)(),
            waiters: Vec::new(),
            kernel_drops: 0,
            stopping: None,
        }
    }

    /// Sends on what is not metered.
    #[must_use]
    pub fn forward_to(mut self, forwarder: Option<Forwarder>) -> Self {
        if forwarder.is_some() {
            self.core.begin_forwarding();
        }
        self.forwarder = forwarder;
        self
    }

    /// Runs on the calling thread until it is told to stop or the commit thread is gone.
    pub fn run(mut self, mut datagrams: impl DatagramSource) {
        while self.turn(&mut datagrams).is_ok() {}
    }

    /// How long nothing is due, unless something comes in.
    #[must_use]
    pub fn wait_millis(&self) -> u64 {
        self.core.wait_millis(!self.waiters.is_empty())
    }

    /// Waits for input, takes what there is, and hands over what is due.
    ///
    /// # Errors
    /// Once it is at its end.
    pub fn turn(&mut self, datagrams: &mut impl DatagramSource) -> Result<(), IntakeClosed> {
        let wait = Duration::from_millis(self.wait_millis());
        self.core.set_full(self.shared.is_full());
        self.core.set_stop_near(self.shared.is_stop_near());
        self.core.set_batch_bytes_max(self.shared.open_batch_bytes_max());
        let received = self.receive(datagrams, wait)?;
        self.send_jobs()?;
        self.submissions()?;
        forward(&mut self.core, &mut self.forwarder, Packed::All);
        self.controls()?;
        let AtReplay { dropped_dimensions, without_id } = self.shared.take_at_replay();
        for (code, count) in [
            (EvidenceCode::DroppedDimensions, dropped_dimensions),
            (EvidenceCode::WithoutId, without_id),
        ] {
            if count > 0 {
                self.core.count(code, count);
            }
        }
        self.log_new_rejections();
        self.count_drops(datagrams);
        let ticks = self.ticks();
        let may_seal = self.shared.may_seal();
        self.core.turn(ticks, self.arrival(), !self.waiters.is_empty(), may_seal);
        self.send_jobs()?;
        if !self.waiters.is_empty() && self.core.is_handed_over() {
            self.flush_waiters()?;
        }
        // Everything the kernel held has been read once nothing more comes.
        if received == 0 && self.stopping.is_some() {
            datagrams.close();
            // The kernel tells of the last drops only now.
            self.count_drops(datagrams);
            return self.stop();
        }
        Ok(())
    }

    fn count_drops(&mut self, datagrams: &impl DatagramSource) {
        let drops = datagrams.kernel_drops();
        if drops > self.kernel_drops {
            self.core.count(EvidenceCode::KernelDrops, drops.saturating_sub(self.kernel_drops));
            self.kernel_drops = drops;
        }
    }

    /// Whoever begins to send looks into the log first; whoever sends much must not fill it.
    fn log_new_rejections(&mut self) {
        for (door, reason) in self.core.take_new_rejections() {
            let (door, remedy) = (door.name(), reason.remedy());
            if reason == RejectReason::JournalFull {
                tracing::warn!(door, %reason, remedy, "refusing events, the first since the start");
            } else {
                tracing::warn!(
                    door, %reason, remedy,
                    "rejecting events, the first since the start; `tidemark-agent dead-letters list` shows them"
                );
            }
        }
    }

    fn receive(
        &mut self,
        datagrams: &mut impl DatagramSource,
        wait: Duration,
    ) -> Result<usize, IntakeClosed> {
        let (core, shared, clock) = (&mut self.core, &self.shared, self.machine.wall);
        let forwarder = &mut self.forwarder;
        let wait = if self.stopping.is_some() { Duration::ZERO } else { wait };
        let received = datagrams.receive(wait, |door, datagram| {
            let arrival = shared.corrected(clock());
            core.datagram(door, datagram.bytes, !datagram.truncated, arrival);
            forward(core, forwarder, Packed::Full);
        });
        received.map(|received| received.datagrams).map_err(|error| {
            tracing::error!(%error, "failed to wait for datagrams; intake stops");
            IntakeClosed
        })
    }

    fn submissions(&mut self) -> Result<(), IntakeClosed> {
        for _ in 0..SUBMISSIONS_PER_TURN_MAX {
            if self.shared.is_full() {
                return Ok(());
            }
            let Ok(submit) = self.inbox.submissions.try_recv() else { return Ok(()) };
            self.submit(submit)?;
        }
        Ok(())
    }

    fn submit(&mut self, submit: Submit) -> Result<(), IntakeClosed> {
        let Submit { submission, reply } = submit;
        if submission.rules.is_some_and(|rules| rules != self.core.rules_version()) {
            // A door that went away meanwhile needs no answer.
            drop(reply.send(Answered::RulesChanged));
            return Ok(());
        }
        let arrival = self.arrival();
        let answers = submission
            .items
            .into_iter()
            .map(|item| self.core.item(submission.door, item.parsed, &item.raw, arrival))
            .collect();
        // Jobs handed over so far hold events of this submission, but not the last ones.
        self.send_jobs()?;
        self.waiters.push(Waiter { reply, answers });
        Ok(())
    }

    fn replay(
        &mut self,
        rules: Option<RulesVersion>,
        replays: &[Replay],
        reply: oneshot::Sender<Answered>,
    ) -> Result<(), IntakeClosed> {
        if rules.is_some_and(|rules| rules != self.core.rules_version()) {
            drop(reply.send(Answered::RulesChanged));
            return Ok(());
        }
        let arrival = self.arrival();
        let answers = replays.iter().map(|replay| self.core.replay(replay, arrival)).collect();
        self.send_jobs()?;
        self.waiters.push(Waiter { reply, answers });
        Ok(())
    }

    fn controls(&mut self) -> Result<(), IntakeClosed> {
        while let Ok(control) = self.inbox.controls.try_recv() {
            let arrival = self.arrival();
            match control {
                Control::Barrier { reply } => {
                    self.core.close(arrival);
                    self.flush_waiters()?;
                    self.jobs.send(Task::Barrier { reply, accepted: self.core.accepted() })?;
                }
                Control::Adopt { rules, unique_key, clock_offset_millis, reply } => {
                    self.shared.set_clock_offset(clock_offset_millis);
                    self.core.adopt(rules, unique_key, arrival);
                    self.send_jobs()?;
                    // A driver that is gone has ended the agent.
                    let _unheard = reply.send(());
                }
                Control::Replay { rules, replays, reply } => {
                    self.replay(rules, &replays, reply)?;
                }
                Control::Stop { reply } => self.stopping = Some(reply),
            }
        }
        Ok(())
    }

    /// The last turn: whatever was submitted is taken, all is sealed.
    fn stop(&mut self) -> Result<(), IntakeClosed> {
        self.inbox.submissions.close();
        while let Ok(submit) = self.inbox.submissions.try_recv() {
            self.submit(submit)?;
        }
        forward(&mut self.core, &mut self.forwarder, Packed::All);
        self.log_new_rejections();
        let arrival = self.arrival();
        self.core.close(arrival);
        self.core.close_evidence(arrival);
        self.flush_waiters()?;
        if let Some(reply) = self.stopping.take() {
            self.jobs.send(Task::Barrier { reply, accepted: self.core.accepted() })?;
        }
        Err(IntakeClosed)
    }

    fn flush_waiters(&mut self) -> Result<(), IntakeClosed> {
        let arrival = self.arrival();
        self.core.hand_over(arrival);
        self.send_jobs()?;
        if self.waiters.is_empty() {
            return Ok(());
        }
        // Nothing new to write, but what is written before must be durable first.
        let waiters = std::mem::take(&mut self.waiters);
        self.jobs.send(Task::Answer { waiters })
    }

    fn send_jobs(&mut self) -> Result<(), IntakeClosed> {
        for job in self.core.take_jobs() {
            let task = match job {
                Job::Commit(commit) => {
                    Task::Commit { commit, waiters: std::mem::take(&mut self.waiters) }
                }
                Job::Close(close) => Task::close(close, &self.shared),
            };
            self.jobs.send(task)?;
        }
        self.core.set_batch_bytes_max(self.shared.open_batch_bytes_max());
        Ok(())
    }

    fn arrival(&self) -> Timestamp {
        self.shared.corrected((self.machine.wall)())
    }

    fn ticks(&self) -> core::Ticks {
        (self.machine.ticks)().saturating_sub(self.started)
    }
}

/// Sends on what is not metered, if that is wanted.
fn forward(core: &mut core::Core, forwarder: &mut Option<Forwarder>, packed: Packed) {
    if let (Some(forwarder), Some(packer)) = (forwarder, core.outgoing()) {
        forwarder.send(packer, packed);
    }
}
