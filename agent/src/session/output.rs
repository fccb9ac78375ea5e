//! What a [`Session`] asks for, and how it stands.

use tidemark_common::id::{Digest, Fence, LedgerId, OpeningId, Sequence};
use tidemark_common::wire::{Close, FirstHeld, Frame, Hello, Rules, UniqueKey};

use super::backoff::Retry;
use super::joined::Phase;
use super::{Barrier, Monotonic, Session, State, WELCOME_MILLIS_MAX, Writing};
use crate::journal::ConflictAnswer;

/// What the driver is to do. Each but `Disconnect` and `Finished` is answered by a `handle_*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a link; answered by `handle_connected` or `handle_disconnected`.
    Connect,
    /// Close the link; answered by `handle_disconnected`.
    Disconnect,
    /// Say what the journal knows of `sequence`; answered by `handle_looked`.
    Look { ledger: LedgerId, sequence: Sequence },
    /// Read a sealed batch; answered by `handle_batch`.
    Read(Sequence),
    /// Read the first piece of raw events from there on, up to batch `last`; answered by `handle_events`.
    ReadEvents { from: (Sequence, u32), last: Sequence },
    /// Make this durable; answered by `handle_written`.
    Write(JournalWrite),
    /// Send a barrier through intake; answered by `handle_barrier`.
    Barrier,
    /// The session is over. The frames that `poll_frame` gave before are to be flushed.
    Finished(End),
}

/// What a session writes to the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalWrite {
    /// Pin the ledger and store the rules; then intake adopts them.
    Welcomed(Box<Welcomed>),
    Posted(Sequence),
    /// The raw events of all batches up to this one are archived.
    Archived(Sequence),
    Conflict {
        message: String,
        answer: Option<ConflictAnswer>,
    },
    Closed,
}

/// What of a Welcome the agent keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcomed {
    pub ledger: LedgerId,
    pub rules: Option<Rules>,
    pub unique_key: UniqueKey,
    pub posted_sequence: Sequence,
    /// Whether the collector archives raw events. Not stored.
    pub raw_events_taken: bool,
    /// Ledger time minus the agent's clock. Not stored; intake judges times by it.
    pub clock_offset_millis: i64,
}

/// What the journal knows of a sequence that the ledger has posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// The batch's digest (genesis for sequence 0); `None` if the journal no longer knows it.
    pub digest: Option<Digest>,
    /// The first batch that is still held.
    pub first_held: Option<FirstHeld>,
}

/// How a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All is posted, and Close is on its way.
    Closed,
    /// The journal was cloned or rolled back. A person is needed.
    Conflict { message: String },
}

/// How the session stands, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    pub state: SessionState,
    pub ledger: Option<LedgerId>,
    pub fence: Option<Fence>,
    pub in_flight: u64,
    pub last_error: Option<String>,
    pub clock_offset_millis: Option<i64>,
    /// How often a collector has asked for a pause, and whether one is being kept.
    pub throttles: u64,
    pub is_paused: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    Connecting,
    /// Batches flow: the Welcome is checked and stored.
    Live,
    Backoff {
        until: Monotonic,
    },
    /// All is posted and the stream is closed.
    Closed,
    /// Nothing is sent until somebody acts; `last_error` says what to do. Tried again at `until`, if any.
    Stopped {
        until: Option<Monotonic>,
    },
}

impl Session {
    /// The next thing to do; poll until `None` after every `handle_*`.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(write) = self.poll_write() {
            return Some(Action::Write(write));
        }
        let (sealed, raw_events) = (self.facts.sealed_sequence, self.facts.raw_events);
        match &mut self.state {
            State::Due => {
                self.state = State::Connecting;
                Some(Action::Connect)
            }
            State::Leaving { asked, .. } if !*asked => {
                *asked = true;
                Some(Action::Disconnect)
            }
            State::Ended { end, told } if !*told => {
                *told = true;
                Some(Action::Finished(end.clone()))
            }
            State::Joined(joined) => {
                if joined.phase == Phase::LookDue && !self.looking {
                    joined.phase = Phase::Looking;
                    self.looking = true;
                    return Some(Action::Look {
                        ledger: joined.welcome.ledger,
                        sequence: joined.welcome.posted_sequence,
                    });
                }
                if joined.wants_barrier() && self.barrier == Barrier::Idle {
                    self.barrier = Barrier::Running(joined.wanted.take());
                    return Some(Action::Barrier);
                }
                let due = joined.sent.next();
                if joined.may_send_batch()
                    && joined.loaded.is_none()
                    && due <= sealed
                    && self.reading.is_none()
                {
                    self.reading = Some(due);
                    return Some(Action::Read(due));
                }
                if joined.may_send_events(sealed)
                    && !self.reading_events
                    && let Some((from, last)) = joined.events.read_due(&raw_events, joined.acked)
                {
                    self.reading_events = true;
                    return Some(Action::ReadEvents { from, last });
                }
                None
            }
            State::Waiting { .. }
            | State::Connecting
            | State::Greeting(_)
            | State::Leaving { .. }
            | State::Condemned { .. }
            | State::Ended { .. } => None,
        }
    }

    /// The next frame to send. Polled when the link can take one.
    pub fn poll_frame(&mut self) -> Option<Frame> {
        let (sealed, raw_events) = (self.facts.sealed_sequence, self.facts.raw_events);
        match &mut self.state {
            State::Greeting(greeting) if !greeting.hello_sent => {
                greeting.hello_sent = true;
                let clock = greeting.clock;
                let hello = self.hello(clock);
                if let State::Greeting(greeting) = &mut self.state {
                    greeting.asked = asked(&hello);
                }
                Some(Frame::Hello(hello))
            }
            State::Joined(joined) if joined.may_send() => {
                if let Some(confirm) = joined.take_confirm() {
                    return Some(Frame::Confirm(confirm));
                }
                if joined.may_send_batch()
                    && let Some(bytes) = joined.loaded.take()
                {
                    joined.sent = joined.sent.next();
                    return Some(Frame::Batch(bytes));
                }
                if joined.may_send_events(sealed)
                    && let Some(events) = joined.events.take_frame(&raw_events, joined.acked)
                {
                    return Some(Frame::Events(events));
                }
                if self.shutdown
                    && self.closed_written
                    && self.facts.unsealed_events == 0
                    && joined.acked == self.facts.sealed_sequence
                {
                    joined.close_sent = true;
                    let close = Close {
                        sequence: joined.acked,
                        accepted: self.facts.accepted,
                        fence: joined.welcome.fence,
                        extras: Vec::new(),
                    };
                    self.state = State::Ended { end: End::Closed, told: false };
                    return Some(Frame::Close(close));
                }
                None
            }
            State::Waiting { .. }
            | State::Due
            | State::Connecting
            | State::Greeting(_)
            | State::Joined(_)
            | State::Leaving { .. }
            | State::Condemned { .. }
            | State::Ended { .. } => None,
        }
    }

    /// When [`Session::handle_timeout`] is due, unless something happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            State::Greeting(greeting) => Some(greeting.at.plus(WELCOME_MILLIS_MAX)),
            State::Joined(joined) => {
                self.events_until.into_iter().chain([joined.poll_timeout()]).min()
            }
            State::Due
            | State::Connecting
            | State::Leaving { .. }
            | State::Condemned { .. }
            | State::Ended { .. } => None,
        }
    }

    /// Whether another sealed batch would leave at once: sealing is lazy otherwise.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match &self.state {
            State::Joined(joined) => {
                joined.may_send()
                    && self.facts.sealed_sequence.0.saturating_sub(joined.acked.0) < joined.window
            }
            State::Waiting { .. }
            | State::Due
            | State::Connecting
            | State::Greeting(_)
            | State::Leaving { .. }
            | State::Condemned { .. }
            | State::Ended { .. } => false,
        }
    }

    #[must_use]
    pub fn status(&self) -> SessionStatus {
        let joined = if let State::Joined(joined) = &self.state {
            Some(joined).filter(|joined| joined.phase == Phase::Open)
        } else {
            None
        };
        let state = match &self.state {
            State::Waiting { until, retry: Retry::Soon | Retry::SoonWithOthers } => {
                SessionState::Backoff { until: *until }
            }
            State::Waiting { until, retry: Retry::Late } => {
                SessionState::Stopped { until: Some(*until) }
            }
            State::Joined(_) if joined.is_some() => SessionState::Live,
            State::Waiting { retry: Retry::Again, .. }
            | State::Due
            | State::Connecting
            | State::Greeting(_)
            | State::Joined(_)
            | State::Leaving { .. } => SessionState::Connecting,
            State::Ended { end: End::Closed, .. } => SessionState::Closed,
            State::Condemned { .. } | State::Ended { end: End::Conflict { .. }, .. } => {
                SessionState::Stopped { until: None }
            }
        };
        SessionStatus {
            state,
            ledger: self.facts.ledger,
            fence: joined.map(|joined| joined.welcome.fence),
            in_flight: joined.map_or(0, |joined| joined.in_flight()),
            last_error: self.last_error.clone(),
            clock_offset_millis: self.clock_offset_millis,
            throttles: self.throttles,
            is_paused: joined.is_some_and(|joined| joined.paused_until.is_some()),
        }
    }

    /// Journal writes go one at a time, so that they reach the journal in order.
    fn poll_write(&mut self) -> Option<JournalWrite> {
        if self.writing.is_some() {
            return None;
        }
        let (sealed, raw_events) = (self.facts.sealed_sequence, self.facts.raw_events);
        let waits_for_events = self.events_until.is_some();
        match &mut self.state {
            State::Condemned { message, answer } => {
                self.writing = Some(Writing::Conflict);
                let (message, answer) = (message.clone(), answer.clone());
                Some(JournalWrite::Conflict { message, answer })
            }
            State::Joined(joined) if joined.phase == Phase::AdoptDue => {
                joined.phase = Phase::Adopting;
                self.writing = Some(Writing::Welcomed);
                // An ack of the session before says less than this Welcome, or more than a restored
                // ledger holds.
                self.posted_due = None;
                let welcome = &mut joined.welcome;
                Some(JournalWrite::Welcomed(Box::new(Welcomed {
                    ledger: welcome.ledger,
                    rules: welcome.rules.take(),
                    unique_key: welcome.unique_key,
                    posted_sequence: welcome.posted_sequence,
                    raw_events_taken: joined.events.are_taken(),
                    clock_offset_millis: joined.clock_offset_millis,
                })))
            }
            State::Joined(joined)
                if self.shutdown
                    && self.facts.unsealed_events == 0
                    && joined.phase == Phase::Open
                    && joined.acked == sealed
                    && self.posted_due.is_none()
                    && !(waits_for_events
                        && joined.events.waiting(&raw_events, joined.acked).is_some())
                    && !self.closed_written =>
            {
                self.writing = Some(Writing::Closed);
                Some(JournalWrite::Closed)
            }
            // Until this session's Welcome is written, an ack of the session before may say more than a
            // restored ledger holds.
            State::Joined(joined) if joined.phase != Phase::Open => None,
            State::Waiting { .. }
            | State::Due
            | State::Connecting
            | State::Greeting(_)
            | State::Joined(_)
            | State::Leaving { .. }
            | State::Ended { .. } => {
                if let Some(posted) = self.posted_due.take() {
                    self.writing = Some(Writing::Posted);
                    return Some(JournalWrite::Posted(posted));
                }
                let archived = self.archived_due.take()?;
                self.writing = Some(Writing::Archived);
                Some(JournalWrite::Archived(archived))
            }
        }
    }
}

/// The openings that a hello asks about.
fn asked(hello: &Hello) -> Vec<OpeningId> {
    hello.openings.iter().map(|held| held.opening).chain([hello.opening]).collect()
}
