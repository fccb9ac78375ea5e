//! One agent's session: frames and the ledger's replies in, frames and requests out.
//!
//! ```text
//!   New --Hello--> Greeting --Welcomed--> Open --Close--> Closing --Claimed--> Ended
//!    any refusal: Refuse is sent, then Ended
//! ```
//!
//! **Owns** which frame is due when, the limit on batches in flight, and how verdicts become answers.
//! **Does not own** the verdicts (`dedupe.rs`, `session/hello.rs`, `session/claim.rs`), sockets and
//! timers (`listen.rs`), or transactions.
//!
//! Invariant: an Ack names only what a reply said is posted, and replies come after their commit.

pub mod claim;
pub mod hello;

use std::collections::VecDeque;
use std::sync::Arc;

use tidemark_common::batch::{BODY_VERSION, HEADER_VERSION, Header, SealedBatch};
use tidemark_common::id::{Fence, LedgerId, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{
    Ack, Close, Confirm, EXTRA_COME_AGAIN, Events, EventsAck, EventsPiece, Extra, Frame, Hello,
    PostedOpening, Refuse, RefuseReason, Rules, UniqueKey, Welcome,
};

use crate::dedupe::Verdict;
use crate::ledger::request::{Reply, Welcomed};
use crate::session::claim::ClaimVerdict;
use crate::session::hello::HelloVerdict;

/// At most this many Confirms of a session wait for their replies; further frames wait in the transport.
const CONFIRMS_IN_FLIGHT_MAX: u32 = 4;

/// What every session of a collector tells its agent.
#[derive(Debug, Clone)]
pub struct Terms {
    pub ledger: LedgerId,
    pub unique_key: UniqueKey,
    pub rules: Arc<Rules>,
    /// At most this many batches of a session may be sent and not yet acknowledged.
    pub batches_in_flight_max: u32,
    /// Whether raw events are archived.
    pub raw_events: bool,
}

/// What the shell must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Send(Frame),
    /// Pass on; the reply comes back through [`Session::handle_reply`].
    Hello(Box<Hello>),
    /// Open the body, then pass on.
    Admit(Box<Incoming>),
    Confirm(StreamId, Confirm),
    Close(StreamId, Close),
    /// So many bytes of raw events wait at the agent: find room for some of them, for [`Session::handle_granted`].
    Grant(u64),
    /// What was granted and not sent is not needed any more.
    GrantOver,
    /// Take a piece of raw events, within what was granted.
    Keep(StreamId, EventsPiece),
    /// Everything is said: finish sending and close the connection.
    End,
}

/// A batch as it came in, its header read.
#[derive(Debug, PartialEq, Eq)]
pub struct Incoming {
    pub header: Header,
    /// Header and body as stored, verbatim.
    pub bytes: Vec<u8>,
    pub fence: Fence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Greeting,
    Open { fence: Fence },
    Closing,
    Ended,
}

/// One agent's session, from its first frame to its last.
#[derive(Debug)]
pub struct Session {
    agent: AgentName,
    terms: Terms,
    phase: Phase,
    /// What Hello said, for Welcome.
    hello: Option<HelloFacts>,
    posted: Sequence,
    in_flight: u32,
    /// How often a Confirm was asked for without one having come.
    confirms_owed: u32,
    confirms_in_flight: u32,
    actions: VecDeque<Action>,
    ack: AckDue,
    events: EventsGrant,
    /// Why it ends once all that has come is answered.
    ending: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
struct HelloFacts {
    stream: StreamId,
    knows_rules: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AckDue {
    No,
    Posted,
    /// Ask for a Confirm too.
    Confirm,
}

impl Session {
    #[must_use]
    pub fn new(agent: AgentName, terms: Terms) -> Self {
        Self {
            agent,
            terms,
            phase: Phase::New,
            hello: None,
            posted: Sequence::ZERO,
            in_flight: 0,
            confirms_owed: 0,
            confirms_in_flight: 0,
            actions: VecDeque::new(),
            ack: AckDue::No,
            events: EventsGrant::default(),
            ending: None,
        }
    }

    #[must_use]
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The session's stream, once Hello named it.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        self.hello.map(|hello| hello.stream)
    }

    /// True until a Hello came.
    #[must_use]
    pub fn awaits_hello(&self) -> bool {
        self.phase == Phase::New
    }

    /// True from Welcome on.
    #[must_use]
    pub fn is_welcome(&self) -> bool {
        matches!(self.phase, Phase::Open { .. } | Phase::Closing)
    }

    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Takes a frame of the agent's.
    pub fn handle_frame(&mut self, frame: Frame) {
        match (self.phase, frame) {
            (Phase::Ended, _) => {}
            (Phase::New, Frame::Hello(hello)) => self.greet(hello),
            (Phase::Open { fence }, Frame::Batch(bytes)) => self.take_batch(bytes, fence),
            (Phase::Open { .. }, Frame::Confirm(confirm)) => self.take_confirm(confirm),
            (Phase::Open { .. }, Frame::Events(events)) => self.take_events(events),
            (Phase::Open { .. }, Frame::Close(close)) => {
                self.phase = Phase::Closing;
                self.actions.extend(self.stream().map(|stream| Action::Close(stream, close)));
            }
            (phase, frame) => {
                self.refuse(
                    RefuseReason::Invalid,
                    format!("a {} frame came while {phase:?}", name(&frame)),
                );
            }
        }
    }

    fn greet(&mut self, hello: Hello) {
        let knows_rules = hello.rules_version == self.terms.rules.version;
        self.hello = Some(HelloFacts { stream: hello.stream, knows_rules });
        self.phase = Phase::Greeting;
        self.actions.push_back(Action::Hello(Box::new(hello)));
    }

    fn take_batch(&mut self, bytes: Vec<u8>, fence: Fence) {
        let limit = self.terms.batches_in_flight_max;
        if self.in_flight >= limit {
            self.refuse(
                RefuseReason::Invalid,
                format!("more than {limit} batches came unacknowledged"),
            );
            return;
        }
        let header = match SealedBatch::split(&bytes) {
            Ok((header, _)) => header,
            Err(error) => {
                self.refuse(
                    RefuseReason::Invalid,
                    format!("a batch's header cannot be read: {error}"),
                );
                return;
            }
        };
        if Some(header.stream) != self.stream() {
            let message =
                format!("a batch of stream {} came on another stream's session", header.stream);
            self.refuse(RefuseReason::Invalid, message);
            return;
        }
        self.in_flight = self.in_flight.saturating_add(1);
        self.actions.push_back(Action::Admit(Box::new(Incoming { header, bytes, fence })));
    }

    /// A Confirm costs a transaction's row: an agent that sends more of them than it was asked for ends
    /// its session. It may answer several asks at once.
    fn take_confirm(&mut self, confirm: Confirm) {
        let Some(owed) = self.confirms_owed.checked_sub(1) else {
            self.refuse(RefuseReason::Invalid, "a Confirm came unasked".to_owned());
            return;
        };
        self.confirms_owed = owed;
        self.confirms_in_flight = self.confirms_in_flight.saturating_add(1);
        self.actions.extend(self.stream().map(|stream| Action::Confirm(stream, confirm)));
    }

    /// Takes the ledger's answer to the oldest request that is not answered yet.
    pub fn handle_reply(&mut self, reply: Reply, now: Timestamp) {
        if self.phase == Phase::Ended {
            return;
        }
        match reply {
            Reply::Welcomed(welcomed) => self.welcome(welcomed, now),
            Reply::HelloRefused { verdict, posted, openings } => {
                let (reason, message) =
                    hello_refusal(&verdict, posted, openings, self.terms.ledger);
                self.refuse(reason, message);
            }
            Reply::Judged { verdict, posted, openings } => {
                self.take_verdict(&verdict, posted, openings)
            }
            Reply::Claimed(verdict) => self.take_claim(&verdict),
            Reply::Booked(_) | Reply::Archived | Reply::Retired(_) => {
                unreachable!("sessions ask for none of these")
            }
        }
    }

    fn welcome(&mut self, welcomed: Welcomed, now: Timestamp) {
        let Some(hello) = self.hello else {
            return;
        };
        self.phase = Phase::Open { fence: welcomed.fence };
        self.posted = welcomed.posted_sequence;
        let rules = (!hello.knows_rules).then(|| Rules::clone(&self.terms.rules));
        self.actions.push_back(Action::Send(Frame::Welcome(Welcome {
            ledger: self.terms.ledger,
            fence: welcomed.fence,
            posted_sequence: welcomed.posted_sequence,
            posted_digest: welcomed.posted_digest,
            ledger_time: now,
            header_version: HEADER_VERSION,
            body_version: BODY_VERSION,
            rules,
            unique_key: self.terms.unique_key,
            batches_in_flight_max: self.terms.batches_in_flight_max,
            extras: self.terms.raw_events.then(Events::taken).into_iter().collect(),
        })));
        // A stream that begins holds completeness back until it confirms: ask at once.
        self.ack = AckDue::Confirm;
    }

    fn take_verdict(&mut self, verdict: &Verdict, posted: Sequence, openings: Vec<PostedOpening>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.posted = self.posted.max(posted);
        match verdict_refusal(verdict, openings, self.terms.ledger) {
            Some((reason, message)) => self.refuse(reason, message),
            None if self.ack == AckDue::No => self.ack = AckDue::Posted,
            None => {}
        }
    }

    fn take_claim(&mut self, verdict: &ClaimVerdict) {
        // Replies come in the order of their requests, and nothing comes after a Close.
        let of_confirm = self.confirms_in_flight > 0;
        self.confirms_in_flight = self.confirms_in_flight.saturating_sub(1);
        let (reason, message) = match verdict {
            ClaimVerdict::Take if of_confirm => return,
            ClaimVerdict::Take => {
                self.phase = Phase::Ended;
                self.actions.push_back(Action::End);
                return;
            }
            ClaimVerdict::Fenced { current } => fenced(*current),
            ClaimVerdict::NotOpen => not_open(),
            ClaimVerdict::Gap { expected } => gap(*expected),
            ClaimVerdict::Invalid(flaw) => {
                (RefuseReason::Invalid, format!("a claim cannot be: {flaw}"))
            }
        };
        self.refuse(reason, message);
    }

    /// Every `confirm_interval`: repeats Ack and asks for a Confirm.
    pub fn handle_confirm_due(&mut self) {
        if matches!(self.phase, Phase::Open { .. }) {
            self.ack = AckDue::Confirm;
            self.actions.extend(self.events.wanted.map(Action::Grant));
        }
    }

    /// Ends the session in good order: takes no further frame, answers what has come, then asks the agent to
    /// come again at once.
    pub fn handle_ending(&mut self, message: &'static str) {
        self.ending = Some(message);
    }

    /// Ends the session because of this end: it stops, or cannot write.
    pub fn handle_unavailable(&mut self, message: &str) {
        self.refuse(RefuseReason::Unavailable, message.to_owned());
    }

    /// Ends the session because the agent's bytes cannot be read.
    pub fn handle_unreadable(&mut self, message: String) {
        self.refuse(RefuseReason::Invalid, message);
    }

    /// Whether a frame may be read: while many replies are due, frames wait in the transport.
    #[must_use]
    pub fn wants_frames(&self) -> bool {
        match self.phase {
            Phase::New => true,
            Phase::Open { .. } => {
                self.ending.is_none() && self.confirms_in_flight < CONFIRMS_IN_FLIGHT_MAX
            }
            Phase::Greeting | Phase::Closing | Phase::Ended => false,
        }
    }

    /// The next thing to do; `None` until something comes in. Acks are merged while others wait.
    pub fn poll_action(&mut self, now: Timestamp) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let confirm = match self.ack {
            AckDue::No => return self.end_in_order(),
            AckDue::Posted => false,
            AckDue::Confirm => true,
        };
        self.confirms_owed = self.confirms_owed.saturating_add(u32::from(confirm));
        self.ack = AckDue::No;
        let posted_sequence = self.posted;
        let extras = self.events.take_ack().map(EventsAck::to_extra).into_iter().collect();
        Some(Action::Send(Frame::Ack(Ack { posted_sequence, ledger_time: now, confirm, extras })))
    }

    /// Raw events cost memory until they are archived: an agent that sends more of them than it was granted ends its
    /// session.
    fn take_events(&mut self, events: Events) {
        if !self.terms.raw_events {
            self.refuse(RefuseReason::Invalid, "raw events came, and none are archived".to_owned());
            return;
        }
        let Events { rest, piece } = events;
        if let Some(piece) = piece {
            let Some(left) = self.events.grant.checked_sub(piece.bytes.len()) else {
                self.refuse(RefuseReason::Invalid, "raw events came ungranted".to_owned());
                return;
            };
            if piece.sequence > self.posted {
                let message = format!("raw events of batch {} came before it", piece.sequence);
                self.refuse(RefuseReason::Invalid, message);
                return;
            }
            self.events.grant = left;
            self.actions.extend(self.stream().map(|stream| Action::Keep(stream, piece)));
        } else if rest > 0 {
            self.events.wanted = Some(rest);
            self.actions.push_back(Action::Grant(rest));
        }
        if rest == 0 {
            self.events.grant = 0;
            self.events.wanted = None;
            self.actions.push_back(Action::GrantOver);
        }
    }

    /// Room was found for so many bytes of raw events; 0: none, it is asked for again with the next Confirm.
    pub fn handle_granted(&mut self, bytes: u32) {
        if bytes == 0 {
            return;
        }
        self.events.wanted = None;
        self.events.grant = self.events.grant.saturating_add(usize::try_from(bytes).unwrap_or(0));
        self.events.granted = self.events.granted.saturating_add(bytes);
        self.ack = self.ack.max(AckDue::Posted);
    }

    /// All raw events of batches up to this one that came are archived.
    pub fn handle_archived(&mut self, sequence: Sequence) {
        if matches!(self.phase, Phase::Open { .. }) {
            self.events.archived = Some(sequence);
            self.ack = self.ack.max(AckDue::Posted);
        }
    }

    /// The end that was asked for, once nothing is left to answer.
    fn end_in_order(&mut self) -> Option<Action> {
        let answered = self.in_flight == 0 && self.confirms_in_flight == 0;
        let message =
            self.ending.filter(|_| answered && matches!(self.phase, Phase::Open { .. }))?;
        let extras = vec![Extra { tag: EXTRA_COME_AGAIN, bytes: Vec::new() }];
        self.end(Refuse { reason: RefuseReason::Unavailable, message: message.to_owned(), extras });
        self.actions.pop_front()
    }

    fn refuse(&mut self, reason: RefuseReason, message: String) {
        self.end(Refuse { reason, message, extras: Vec::new() });
    }

    fn end(&mut self, refuse: Refuse) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        self.ack = AckDue::No;
        self.actions.clear();
        self.actions.push_back(Action::Send(Frame::Refuse(refuse)));
        self.actions.push_back(Action::End);
    }
}

/// Raw events: what may come, and what is to be said of them.
#[derive(Debug, Default)]
struct EventsGrant {
    /// Bytes that may come.
    grant: usize,
    /// The agent said that so many bytes wait, and was granted none since.
    wanted: Option<u64>,
    /// What the next Ack says.
    granted: u32,
    archived: Option<Sequence>,
    /// Up to where they were said to be archived.
    said: Sequence,
}

impl EventsGrant {
    fn take_ack(&mut self) -> Option<EventsAck> {
        let (grant, archived) = (std::mem::take(&mut self.granted), self.archived.take());
        self.said = archived.unwrap_or(self.said);
        (grant > 0 || archived.is_some()).then_some(EventsAck { archived: self.said, grant })
    }
}

type Refusal = (RefuseReason, String);

fn hello_refusal(
    verdict: &HelloVerdict,
    posted: Sequence,
    openings: Vec<PostedOpening>,
    ledger: LedgerId,
) -> Refusal {
    match verdict {
        HelloVerdict::Welcome => unreachable!("a welcome is not refused"),
        HelloVerdict::Conflict(contradiction) => {
            let message = format!(
                "{contradiction}: this journal was cloned or rolled back; its agent sets it aside at its next start"
            );
            let reason =
                RefuseReason::Conflict { sequence: contradiction.sequence(posted), openings };
            (reason, message)
        }
        HelloVerdict::OtherIdentity => {
            let message = "the stream belongs to another identity: give this agent its own journal, or the \
                           certificate that the journal began with";
            (RefuseReason::Unauthorized, message.to_owned())
        }
        HelloVerdict::OtherLedger => other_ledger(ledger),
        HelloVerdict::TooManyStreams => {
            let message = "the ledger knows as many streams as it may: raise streams_max, or find out why so \
                           many journals are made";
            (RefuseReason::Unavailable, message.to_owned())
        }
        HelloVerdict::TooManyNewStreams => {
            let message = "this identity has begun as many new streams of late as it may: find out why its agents lose \
                           their journals, or raise streams_per_hour_max; the agent tries again";
            (RefuseReason::Unavailable, message.to_owned())
        }
        HelloVerdict::Version { header_version } => {
            let message = format!(
                "batch headers of version {header_version} are not read: upgrade the agent"
            );
            (RefuseReason::Invalid, message)
        }
    }
}

fn verdict_refusal(
    verdict: &Verdict,
    openings: Vec<PostedOpening>,
    ledger: LedgerId,
) -> Option<Refusal> {
    Some(match verdict {
        Verdict::Admit | Verdict::Duplicate => return None,
        Verdict::Gap { expected } => gap(*expected),
        Verdict::Conflict { sequence } => {
            let message = format!(
                "batch {sequence} is posted with other bytes: this journal was cloned or rolled back; its agent sets \
                 it aside at its next start"
            );
            (RefuseReason::Conflict { sequence: *sequence, openings }, message)
        }
        Verdict::Fenced { current } => fenced(*current),
        Verdict::OtherLedger => other_ledger(ledger),
        Verdict::NotOpen => not_open(),
        Verdict::Invalid(flaw) => {
            (RefuseReason::Invalid, format!("a batch does not hold together: {flaw}"))
        }
    })
}

fn gap(expected: Sequence) -> Refusal {
    (RefuseReason::Gap { expected }, format!("batch {expected} is due: resume from it"))
}

fn fenced(current: Fence) -> Refusal {
    (
        RefuseReason::Fenced { current },
        format!("a newer session holds the stream under fence {current}"),
    )
}

fn not_open() -> Refusal {
    (RefuseReason::Invalid, "the stream is not open: begin with Hello".to_owned())
}

fn other_ledger(ledger: LedgerId) -> Refusal {
    let message = format!(
        "this is ledger {ledger}; the journal ships to another: check the collector's address"
    );
    (RefuseReason::OtherLedger { ledger }, message)
}

fn name(frame: &Frame) -> &'static str {
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

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests;
