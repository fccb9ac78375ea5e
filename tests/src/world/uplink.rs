//! What stands in for the agent's driver: it does what the session asks for, over the simulated network.
//!
//! **Owns** the link and the actions under way. **Does not own** any decision: the product's session has
//! them, as behind the real driver.

use std::pin::Pin;
use std::sync::Arc;

use tidemark_agent::commit::CommitHandle;
use tidemark_agent::driver::home::{AgentHome, Home as _, HomeError};
use tidemark_agent::intake::IntakeHandle;
use tidemark_agent::session::{
    Action, End, JournalWrite, Looked, Monotonic, Session, SessionState,
};
use tidemark_common::batch::{Header, SealedBatch, genesis};
use tidemark_common::id::{Digest, LedgerId, Sequence};
use tidemark_common::wire::{Frame, FrameBuffer, Welcome};

use super::agent::{Turn, poll};
use super::here;
use super::net::{Condition, LinkId, Network, Side};
use super::planted::Bug;
use super::story::Story;
use crate::random::Random;

type Future<T> = Pin<Box<dyn std::future::Future<Output = T>>>;

/// The agent's side of its session.
pub struct Uplink {
    pub session: Session,
    home: AgentHome,
    intake: IntakeHandle,
    commit: CommitHandle,
    link: Option<LinkId>,
    is_up: bool,
    buffer: FrameBuffer,
    writing: Option<Future<Result<(), HomeError>>>,
    barrier: Option<Future<Option<(Sequence, u64)>>>,
    stopping: Option<Future<bool>>,
    bug: Option<Bug>,
    /// For a bug: the chain that another ledger is shown.
    other_chain: Option<Digest>,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink").field("session", &self.session).finish_non_exhaustive()
    }
}

/// A batch that was handed to the network.
#[derive(Debug)]
pub struct Shipped {
    pub header: Header,
    pub bytes: Vec<u8>,
}

/// What a turn needs of the world.
#[derive(Debug)]
pub struct Surroundings<'a> {
    pub host: usize,
    pub collectors: &'a [usize],
    pub address: &'a mut usize,
    pub network: &'a mut Network,
    pub random: &'a mut Random,
    pub story: &'a mut Story,
    pub shipped: &'a mut Vec<Shipped>,
    pub now: u64,
    /// Since the process began.
    pub age: Monotonic,
}

impl Uplink {
    #[must_use]
    pub fn new(
        session: Session,
        home: AgentHome,
        intake: IntakeHandle,
        commit: CommitHandle,
        bug: Option<Bug>,
    ) -> Self {
        Self {
            session,
            home,
            intake,
            commit,
            link: None,
            is_up: false,
            buffer: FrameBuffer::default(),
            writing: None,
            barrier: None,
            stopping: None,
            bug,
            other_chain: None,
        }
    }

    /// Intake is asked to end; then the rest is shipped.
    pub fn stop(&mut self) {
        let intake = self.intake.clone();
        self.stopping = Some(Box::pin(async move { intake.stop().await.is_ok() }));
    }

    /// Whether something of the agent's own is under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.writing.is_some() || self.barrier.is_some() || self.stopping.is_some()
    }

    #[must_use]
    pub fn is_live(&self) -> bool {
        self.session.status().state == SessionState::Live
    }

    /// One round of the driver's loop: what has happened, then what is asked for.
    pub fn turn(&mut self, around: &mut Surroundings<'_>) -> Turn {
        self.poll_home(around);
        self.watch_link(around);
        if let Err(turn) = self.read(around) {
            return turn;
        }
        if self.session.poll_timeout().is_some_and(|due| due <= around.age) {
            self.session.handle_timeout(around.age);
        }
        match self.settle(around) {
            Ok(()) => Turn::Running,
            Err(turn) => turn,
        }
    }

    fn poll_home(&mut self, around: &mut Surroundings<'_>) {
        self.session.handle_journal(self.home.facts());
        // A home that is gone ends the process in the commit thread's turn.
        if let Some(done) = self.writing.as_mut().and_then(poll) {
            self.writing = None;
            if done.is_ok() {
                self.session.handle_journal(self.home.facts());
                self.session.handle_written(around.age);
            }
        }
        if let Some(passed) = self.barrier.as_mut().and_then(poll) {
            self.barrier = None;
            self.session.handle_barrier(passed);
        }
        if self.stopping.as_mut().and_then(poll).is_some() {
            self.stopping = None;
            self.session.handle_journal(self.home.facts());
            self.session.handle_shutdown(around.age);
        }
    }

    fn watch_link(&mut self, around: &mut Surroundings<'_>) {
        let Some(link) = self.link else { return };
        match around.network.condition(link, Side::Agent) {
            Condition::Opening => {}
            Condition::Up | Condition::Finished if !self.is_up => {
                self.is_up = true;
                self.session.handle_journal(self.home.facts());
                let random = around.random.next_u64();
                self.session.handle_connected(around.age, here::wall(), random);
            }
            // What came before the end is read first.
            Condition::Up | Condition::Finished => {}
            Condition::Lost(reason) => self.disconnected(reason, around),
        }
    }

    fn read(&mut self, around: &mut Surroundings<'_>) -> Result<(), Turn> {
        let Some(link) = self.link else { return Ok(()) };
        self.buffer.push(&around.network.receive(link, Side::Agent));
        loop {
            match self.buffer.next_frame() {
                Ok(Some(frame)) => {
                    around.story.count(format!("frame {}", name(&frame)));
                    let frame = self.planted_in(frame);
                    self.tell(&frame, around);
                    self.session.handle_frame(frame, around.age);
                    self.settle(around)?;
                    if self.link != Some(link) {
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    around.story.count("verdict agent: unreadable frame");
                    self.disconnected(&error.to_string(), around);
                    return Ok(());
                }
            }
        }
        if around.network.condition(link, Side::Agent) == Condition::Finished {
            self.disconnected("the collector closed the link", around);
        }
        Ok(())
    }

    /// What changes how a session goes on, for the story.
    fn tell(&self, frame: &Frame, around: &mut Surroundings<'_>) {
        let (host, now, stream) = (around.host, around.now, self.home.facts().stream);
        match frame {
            Frame::Welcome(welcome) => around.story.tell(now, || {
                let Welcome { ledger, posted_sequence, .. } = welcome;
                format!(
                    "agent {host}: ledger {ledger} has posted {posted_sequence} of stream {stream}"
                )
            }),
            Frame::Refuse(refuse) => {
                around.story.tell(now, || format!("agent {host}: refused: {:?}", refuse.reason));
            }
            _ => {}
        }
    }

    fn settle(&mut self, around: &mut Surroundings<'_>) -> Result<(), Turn> {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect => {
                    let count = around.collectors.len().max(1);
                    let collector = around.collectors.get(*around.address % count).copied();
                    let to = collector.unwrap_or_default();
                    around.story.count("session begun");
                    self.link = Some(around.network.open(around.host, to, around.now));
                    self.is_up = false;
                    self.buffer = FrameBuffer::default();
                }
                Action::Disconnect => self.disconnected("", around),
                Action::Look { ledger, sequence } => {
                    let looked = self.look(ledger, sequence).map_err(Turn::Failed)?;
                    self.session.handle_looked(&looked, around.age);
                }
                Action::Read(sequence) => {
                    let bytes = self.commit.reader().batch(sequence);
                    let bytes = bytes.map_err(|error| Turn::Failed(error.reason))?;
                    self.session.handle_batch(sequence, bytes, around.age);
                }
                Action::ReadEvents { from, last } => {
                    let piece = self.commit.reader().raw_events(from, last);
                    let piece = piece.map_err(|error| Turn::Failed(error.reason))?;
                    self.session.handle_events(from, last, piece);
                }
                Action::Write(write) => {
                    if let JournalWrite::Conflict { message, .. } = &write {
                        around.story.count("recovery journal in conflict");
                        around.story.tell(around.now, || {
                            format!("agent {}: conflict: {message}", around.host)
                        });
                    }
                    self.writing = Some(Box::pin(self.home.write(write)));
                }
                Action::Barrier => {
                    self.barrier = Some(if self.bug == Some(Bug::ConfirmedUnasked) {
                        let state = Arc::clone(&self.commit.state().borrow());
                        let said = (state.sealed_sequence, state.sealed_events);
                        Box::pin(async move { Some(said) })
                    } else {
                        Box::pin(self.home.barrier())
                    });
                }
                Action::Finished(End::Closed) => {
                    if let Some(link) = self.link {
                        around.network.finish(link, Side::Agent, around.now);
                        around.network.drop_end(link, Side::Agent, around.now, around.story);
                    }
                    return Err(Turn::Closed);
                }
                Action::Finished(End::Conflict { message }) => return Err(Turn::Conflict(message)),
            }
        }
        self.put_frames(around);
        self.home.room(self.session.has_room());
        Ok(())
    }

    fn put_frames(&mut self, around: &mut Surroundings<'_>) {
        while let Some(link) = self.link.filter(|_| self.is_up)
            && around.network.has_room(link, Side::Agent)
            && let Some(frame) = self.session.poll_frame()
        {
            let frame = self.planted_out(frame);
            if let Frame::Batch(bytes) = &frame {
                let (header, _) = SealedBatch::split(bytes).expect("the journal holds batches");
                around.shipped.push(Shipped { header, bytes: bytes.clone() });
            }
            around.story.count(format!("frame {}", name(&frame)));
            let bytes = frame.encode().expect("frames of a session are within their limits");
            around.network.send(link, Side::Agent, &bytes, around.now);
        }
    }

    fn look(&self, ledger: LedgerId, sequence: Sequence) -> Result<Looked, String> {
        let reader = self.commit.reader();
        let digest = match sequence {
            Sequence::ZERO => Some(genesis(ledger, self.home.facts().stream)),
            sequence => reader.digest(sequence).map_err(|error| error.reason)?,
        };
        let first_held = reader.first_held().map_err(|error| error.reason)?;
        Ok(Looked { digest, first_held })
    }

    fn disconnected(&mut self, reason: &str, around: &mut Surroundings<'_>) {
        if let Some(link) = self.link.take() {
            around.network.drop_end(link, Side::Agent, around.now, around.story);
        }
        self.is_up = false;
        *around.address = around.address.wrapping_add(1);
        if !reason.is_empty() {
            around.story.tell(around.now, || format!("agent {}: link lost: {reason}", around.host));
        }
        self.session.handle_disconnected(around.age, around.random.next_u64(), reason);
    }

    fn planted_in(&mut self, frame: Frame) -> Frame {
        match (self.bug, frame) {
            (Some(Bug::ResumedTooFar), Frame::Welcome(welcome)) => {
                Frame::Welcome(self.resumed_too_far(welcome))
            }
            (Some(Bug::SentToOtherLedger), Frame::Welcome(welcome)) => {
                Frame::Welcome(self.taken_for_ours(welcome))
            }
            (_, frame) => frame,
        }
    }

    fn resumed_too_far(&self, mut welcome: Welcome) -> Welcome {
        let next = welcome.posted_sequence.next();
        if let Ok(Some(digest)) = self.commit.reader().digest(next) {
            (welcome.posted_sequence, welcome.posted_digest) = (next, digest);
        }
        welcome
    }

    /// Another ledger's Welcome, as if it were the journal's own that begins anew.
    fn taken_for_ours(&mut self, mut welcome: Welcome) -> Welcome {
        let stream = self.home.facts().stream;
        let pinned = self.commit.state().borrow().ledger;
        self.other_chain = None;
        if let Some(pinned) = pinned.filter(|pinned| *pinned != welcome.ledger)
            && welcome.posted_sequence == Sequence::ZERO
        {
            self.other_chain = Some(genesis(welcome.ledger, stream));
            (welcome.ledger, welcome.posted_digest) = (pinned, genesis(pinned, stream));
        }
        welcome
    }

    fn planted_out(&mut self, frame: Frame) -> Frame {
        match (self.bug, frame) {
            (Some(Bug::SentToOtherLedger), Frame::Hello(mut hello)) => {
                hello.ledger = None;
                Frame::Hello(hello)
            }
            (Some(Bug::SentToOtherLedger), Frame::Batch(bytes)) => match self.other_chain {
                Some(previous) => {
                    let (header, body) =
                        SealedBatch::split(&bytes).expect("the journal holds batches");
                    let header = Header { previous, ..header };
                    self.other_chain = Some(header.digest());
                    Frame::Batch([&header.encode()[..], body].concat())
                }
                None => Frame::Batch(bytes),
            },
            (Some(Bug::Resequenced), Frame::Batch(bytes)) => Frame::Batch(made_anew(&bytes)),
            (_, frame) => frame,
        }
    }
}

/// The batch with another header: as if it had been sealed again for this session.
fn made_anew(bytes: &[u8]) -> Vec<u8> {
    let (header, body) = SealedBatch::split(bytes).expect("the journal holds batches");
    let rules = tidemark_common::id::RulesVersion(u64::from(here::nonce()[0]));
    let mut anew = Header { rules, ..header }.encode().to_vec();
    anew.extend_from_slice(body);
    anew
}

/// The frame's name.
#[must_use]
pub fn name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "Hello",
        Frame::Welcome(_) => "Welcome",
        Frame::Batch(_) => "Batch",
        Frame::Ack(_) => "Ack",
        Frame::Refuse(_) => "Refuse",
        Frame::Confirm(_) => "Confirm",
        Frame::Close(_) => "Close",
        Frame::Throttle(_) => "Throttle",
        Frame::Events(_) => "Events",
    }
}
