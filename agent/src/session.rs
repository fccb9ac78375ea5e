//! One stream's side of the conversation with a collector: a state machine without I/O.
//!
//! ```text
//! Waiting -> Due -> Connecting -> Greeting -> Joined: Look -> Adopt -> Open
//!    ^                                |                 |        |       |
//!    +---- handle_disconnected -------+--- Leaving <----+--------+-------+
//!                                                       v                v
//!                                               Condemned -> Ended     Ended
//! ```
//! `handle_*` take what happened, `poll_*` say what to do, as in quinn-proto. The driver runs the
//! actions; at most one journal write, one look, one read and one barrier are under way at a time,
//! also across connections.
//!
//! **Owns** whom the journal's batches may go to, from where to resume, the window, confirmations,
//! when to give up a session and when to come again. **Does not own** sockets, files, the clock,
//! random numbers, or which batches the journal forgets.
//!
//! Invariants:
//! - Nothing is sent to a ledger that the journal is not pinned to: batches go out only after the
//!   Welcome is stored.
//! - `acked <= sent <= sealed`: an Ack beyond what this session sent ends it.
//! - A Confirm leaves after the batches that it speaks of, on the same ordered stream.
//! - A session that ends takes nothing with it: the next Welcome says where to resume.
//! - A conflict is the collector's to judge: what the agent finds itself, it states in its next Hello (its own
//!   digest of the sequence in question), so that the answer names what is posted of each opening.

mod backoff;
mod events;
mod joined;
mod output;
mod reasons;

#[cfg(test)]
mod tests;

use tidemark_common::batch::{BODY_VERSION, HEADER_VERSION};
use tidemark_common::id::{
    Digest, EventNumber, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{
    Ack, EventsAck, EventsPiece, FirstHeld, Frame, HeldOpening, Hello, OPENINGS_MAX, RefuseReason,
    Welcome,
};

use crate::journal::{ConflictAnswer, RawEventsHeld};
use backoff::{Backoff, Retry, within};
use joined::{Joined, Phase};
pub use output::{Action, End, JournalWrite, Looked, SessionState, SessionStatus, Welcomed};
use reasons::{
    Accusation, Fault, Leave, conflict_message, frame_name, hole, other_ledger, refused, too_new,
};

/// A Welcome must follow Hello within this time.
pub const WELCOME_MILLIS_MAX: u64 = 30_000;
/// A collector that is heard of less often is left. It repeats Ack every `confirm_interval` (10 s).
pub const SILENCE_MILLIS_MAX: u64 = 60_000;
/// A session that lived this long, with acks, resets the backoff.
pub const PROVEN_MILLIS: u64 = 60_000;
/// A Throttle pauses for at most this long.
pub const PAUSE_MILLIS_MAX: u64 = 30_000;
/// A session at its maximum age waits at most this long for the acks of what it has sent.
pub const DRAIN_MILLIS_MAX: u64 = 10_000;
/// A session that closes its stream waits at most this long for raw events to be sent.
pub const EVENTS_MILLIS_MAX: u64 = 5_000;
/// This many fenced sessions in a row are another agent, not an old session of our own.
pub const FENCED_IN_A_ROW_MAX: u32 = 3;

/// Milliseconds since the driver began: unlike a [`Timestamp`], no clock step moves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(pub u64);

impl Monotonic {
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the journal holds of the stream, as far as a session needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFacts {
    pub stream: StreamId,
    pub opening: OpeningId,
    /// The ledger that the journal is pinned to.
    pub ledger: Option<LedgerId>,
    pub posted_sequence: Sequence,
    pub posted_digest: Digest,
    pub sealed_sequence: Sequence,
    pub accepted: u64,
    /// Accepted and not in a sealed batch yet.
    pub unsealed_events: u64,
    pub rules_version: RulesVersion,
    /// Oldest first.
    pub openings: Vec<HeldOpening>,
    pub raw_events: RawEventsHeld,
    /// A conflict that an earlier run has stored.
    pub conflict: Option<String>,
}

/// The session's own limits.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// At most this many batches sent and not acknowledged; the collector may ask for fewer.
    pub batches_in_flight_max: u32,
    /// A session ends between half of this age and all of it, so that agents spread over collectors.
    pub session_millis_max: u64,
    /// The agent's version, for people.
    pub agent: String,
}

#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    facts: StreamFacts,
    state: State,
    backoff: Backoff,
    fenced_in_a_row: u32,
    /// The journal write under way.
    writing: Option<Writing>,
    looking: bool,
    /// What the journal begins with, once a ledger was found to lack what came before.
    held: Option<FirstHeld>,
    reading: Option<Sequence>,
    reading_events: bool,
    barrier: Barrier,
    /// Acknowledged, and not yet written to the journal.
    posted_due: Option<Sequence>,
    /// Their raw events are archived, and that is not yet written to the journal.
    archived_due: Option<Sequence>,
    /// All is sealed and intake has ended: close the stream once all is acknowledged.
    shutdown: bool,
    /// Until when raw events are waited for then; `None` once that has passed.
    events_until: Option<Monotonic>,
    closed_written: bool,
    last_error: Option<String>,
    clock_offset_millis: Option<i64>,
    /// What the next Hello says in place of the last posted sequence.
    accusation: Option<Accusation>,
    /// How often a collector asked for a pause.
    throttles: u64,
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Monotonic,
        retry: Retry,
    },
    Due,
    Connecting,
    Greeting(Greeting),
    Joined(Box<Joined>),
    /// The driver is asked to close the link, once.
    Leaving {
        leave: Leave,
        asked: bool,
    },
    /// The conflict is being written.
    Condemned {
        message: String,
        answer: Option<ConflictAnswer>,
    },
    Ended {
        end: End,
        told: bool,
    },
}

#[derive(Debug)]
struct Greeting {
    at: Monotonic,
    clock: Timestamp,
    hello_sent: bool,
    ends_at: Monotonic,
    /// The openings that Hello asked about.
    asked: Vec<OpeningId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Welcomed,
    Posted,
    Archived,
    Conflict,
    Closed,
}

/// The barrier under way, and the ledger time that it answers: `None` once its session is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Barrier {
    Idle,
    Running(Option<Timestamp>),
}

impl Session {
    #[must_use]
    pub fn new(config: SessionConfig, facts: StreamFacts) -> Self {
        let state = match &facts.conflict {
            Some(message) => {
                State::Ended { end: End::Conflict { message: message.clone() }, told: false }
            }
            None => State::Due,
        };
        Self {
            config,
            facts,
            state,
            backoff: Backoff::default(),
            fenced_in_a_row: 0,
            writing: None,
            looking: false,
            held: None,
            reading: None,
            reading_events: false,
            barrier: Barrier::Idle,
            posted_due: None,
            archived_due: None,
            shutdown: false,
            events_until: None,
            closed_written: false,
            last_error: None,
            clock_offset_millis: None,
            accusation: None,
            throttles: 0,
        }
    }

    /// The journal has committed something.
    pub fn handle_journal(&mut self, facts: StreamFacts) {
        assert_eq!(facts.stream, self.facts.stream, "a journal holds one stream");
        // A barrier may have told of a later seal than the journal's published state.
        let sealed_sequence = self.facts.sealed_sequence.max(facts.sealed_sequence);
        self.facts = StreamFacts { sealed_sequence, ..facts };
    }

    /// Intake has ended and all that it accepted is sealed, and known by [`Self::handle_journal`].
    pub fn handle_shutdown(&mut self, now: Monotonic) {
        self.shutdown = true;
        self.events_until = Some(now.plus(EVENTS_MILLIS_MAX));
    }

    /// A link is up. `clock` is the wall clock, `random` uniform over its range.
    pub fn handle_connected(&mut self, now: Monotonic, clock: Timestamp, random: u64) {
        let half = self.config.session_millis_max / 2;
        let ends_at = now.plus(half).plus(within(random, half));
        let asked = Vec::new();
        self.state =
            State::Greeting(Greeting { at: now, clock, hello_sent: false, ends_at, asked });
    }

    /// The link is down, or could not be made, for `reason`. `random` is uniform over its range.
    pub fn handle_disconnected(&mut self, now: Monotonic, random: u64, reason: &str) {
        if let Barrier::Running(answers) = &mut self.barrier {
            *answers = None;
        }
        self.credit(now);
        let before = std::mem::replace(&mut self.state, State::Due);
        let leave = match before {
            State::Leaving { leave, .. } => leave,
            State::Waiting { .. }
            | State::Due
            | State::Connecting
            | State::Greeting(_)
            | State::Joined(_) => Leave::soon(reason),
            State::Condemned { .. } | State::Ended { .. } => {
                self.state = before;
                return;
            }
        };
        if leave.reason.is_some() {
            self.last_error = leave.reason;
        }
        let until = now.plus(self.backoff.wait_millis(leave.retry, random));
        self.state = State::Waiting { until, retry: leave.retry };
    }

    /// A frame has come.
    pub fn handle_frame(&mut self, frame: Frame, now: Monotonic) {
        let verdict = match (&mut self.state, frame) {
            (State::Greeting(greeting), Frame::Welcome(welcome)) if greeting.hello_sent => {
                let greeting = (greeting.at, greeting.clock, greeting.ends_at);
                self.welcome(welcome, greeting, now)
            }
            (State::Greeting(_) | State::Joined(_), Frame::Refuse(refuse)) => {
                self.credit(now);
                if let RefuseReason::Fenced { .. } = refuse.reason {
                    self.fenced_in_a_row = self.fenced_in_a_row.saturating_add(1);
                }
                let asked = match &self.state {
                    State::Greeting(greeting) => Some(greeting.asked.as_slice()),
                    _ => None,
                };
                Err(refused(&refuse, self.facts.ledger, self.fenced_in_a_row, asked))
            }
            (State::Joined(joined), Frame::Ack(ack)) => {
                joined.last_heard = now;
                self.acknowledged(&ack)
            }
            (State::Joined(joined), Frame::Throttle(throttle)) => {
                joined.last_heard = now;
                self.throttles = self.throttles.saturating_add(1);
                joined.paused_until =
                    Some(now.plus(u64::from(throttle.pause_millis).min(PAUSE_MILLIS_MAX)));
                Ok(())
            }
            (State::Greeting(_) | State::Joined(_), frame) => Err(Fault::Leave(Leave::soon(
                format!("the collector sent {} out of turn", frame_name(&frame)),
            ))),
            // What still comes while the link is being closed means nothing any more.
            (
                State::Waiting { .. }
                | State::Due
                | State::Connecting
                | State::Leaving { .. }
                | State::Condemned { .. }
                | State::Ended { .. },
                _,
            ) => Ok(()),
        };
        self.apply(verdict, now);
    }

    /// The time that [`Self::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        self.events_until.take_if(|until| *until <= now);
        let verdict = match &mut self.state {
            State::Waiting { until, .. } if *until <= now => {
                self.state = State::Due;
                Ok(())
            }
            State::Greeting(greeting) if greeting.at.plus(WELCOME_MILLIS_MAX) <= now => {
                Err(Fault::Leave(Leave::soon(
                    "the collector took the connection and did not answer Hello",
                )))
            }
            State::Joined(joined) => joined.handle_timeout(now).map_err(Fault::Leave),
            State::Waiting { .. }
            | State::Due
            | State::Connecting
            | State::Greeting(_)
            | State::Leaving { .. }
            | State::Condemned { .. }
            | State::Ended { .. } => Ok(()),
        };
        self.apply(verdict, now);
    }

    /// The session is to begin anew, over a better link: it drains as if it had reached its age.
    pub fn handle_leave(&mut self, now: Monotonic) {
        match &mut self.state {
            State::Greeting(greeting) => greeting.ends_at = now,
            State::Joined(joined) => joined.ends_at = joined.ends_at.min(now),
            State::Waiting { .. }
            | State::Due
            | State::Connecting
            | State::Leaving { .. }
            | State::Condemned { .. }
            | State::Ended { .. } => {}
        }
    }

    /// The journal's answer to [`Action::Look`].
    pub fn handle_looked(&mut self, looked: &Looked, now: Monotonic) {
        self.looking = false;
        let State::Joined(joined) = &mut self.state else { return };
        if joined.phase != Phase::Looking {
            return;
        }
        let verdict = judge_posted(joined, looked, &self.facts, &mut self.held);
        if verdict.is_ok() {
            joined.phase = Phase::AdoptDue;
        }
        self.apply(verdict, now);
    }

    /// The journal's answer to [`Action::Read`]: `None` if it no longer holds the batch.
    pub fn handle_batch(&mut self, sequence: Sequence, bytes: Option<Vec<u8>>, now: Monotonic) {
        self.reading = None;
        let State::Joined(joined) = &mut self.state else { return };
        if joined.phase != Phase::Open || sequence != joined.sent.next() {
            return;
        }
        match bytes {
            Some(bytes) => joined.loaded = Some(bytes),
            None => self.apply(Err(Fault::Leave(hole(sequence, sequence))), now),
        }
    }

    /// The journal's answer to [`Action::ReadEvents`]: the first piece that it holds there.
    pub fn handle_events(
        &mut self,
        from: (Sequence, u32),
        last: Sequence,
        piece: Option<EventsPiece>,
    ) {
        self.reading_events = false;
        if let State::Joined(joined) = &mut self.state
            && joined.phase == Phase::Open
        {
            joined.events.read(from, last, piece);
        }
    }

    /// The journal write under way is durable.
    pub fn handle_written(&mut self, now: Monotonic) {
        let Some(writing) = self.writing.take() else { return };
        match (writing, &mut self.state) {
            (Writing::Welcomed, State::Joined(joined)) if joined.phase == Phase::Adopting => {
                joined.phase = Phase::Open;
                joined.since = now;
                self.facts.ledger = Some(joined.welcome.ledger);
            }
            (Writing::Conflict, State::Condemned { message, .. }) => {
                let message = std::mem::take(message);
                self.state = State::Ended { end: End::Conflict { message }, told: false };
            }
            (Writing::Closed, _) => self.closed_written = true,
            (Writing::Welcomed | Writing::Posted | Writing::Archived | Writing::Conflict, _) => {}
        }
    }

    /// The barrier has passed: all accepted before it is in sequences up to `sequence`; `None` if
    /// intake has ended before it.
    pub fn handle_barrier(&mut self, passed: Option<(Sequence, u64)>) {
        let running = std::mem::replace(&mut self.barrier, Barrier::Idle);
        let Some((sequence, accepted)) = passed else { return };
        self.facts.sealed_sequence = self.facts.sealed_sequence.max(sequence);
        if let (Barrier::Running(Some(ledger_time)), State::Joined(joined)) =
            (running, &mut self.state)
        {
            joined.confirm_after(ledger_time, sequence, accepted);
        }
    }

    fn welcome(
        &mut self,
        welcome: Welcome,
        (hello_at, clock, ends_at): (Monotonic, Timestamp, Monotonic),
        now: Monotonic,
    ) -> Result<(), Fault> {
        if welcome.header_version < HEADER_VERSION || welcome.body_version < BODY_VERSION {
            return Err(Fault::Leave(too_new(welcome.header_version, welcome.body_version)));
        }
        if let Some(pinned) = self.facts.ledger.filter(|pinned| *pinned != welcome.ledger) {
            return Err(Fault::Leave(other_ledger(pinned, welcome.ledger)));
        }
        if welcome.posted_sequence > self.facts.sealed_sequence {
            let found = format!(
                "the ledger has posted sequence {}, and this journal has sealed only {}",
                welcome.posted_sequence, self.facts.sealed_sequence
            );
            return Err(Fault::Conflict { found, answer: None });
        }
        self.accusation = None;
        // The collector read its time about half way between Hello and now.
        let half = i64::try_from(now.since(hello_at) / 2).unwrap_or(i64::MAX);
        let offset = welcome.ledger_time.millis_since(clock.plus_millis(half));
        self.clock_offset_millis = Some(offset);
        let window =
            u64::from(welcome.batches_in_flight_max.min(self.config.batches_in_flight_max).max(1));
        self.state = State::Joined(Box::new(Joined::new(welcome, offset, window, now, ends_at)));
        Ok(())
    }

    fn acknowledged(&mut self, ack: &Ack) -> Result<(), Fault> {
        let State::Joined(joined) = &mut self.state else { return Ok(()) };
        if joined.acknowledge(ack).map_err(Fault::Leave)? {
            self.posted_due = Some(joined.acked);
        }
        if let Some(events) = EventsAck::among(&ack.extras) {
            let archived = joined.events.acknowledge(events).map_err(Fault::Leave)?;
            if self.facts.raw_events.first.is_some_and(|first| first <= archived) {
                self.archived_due = Some(archived);
            }
        }
        match joined.is_drained() {
            true => Err(Fault::Leave(Leave::aged())),
            false => Ok(()),
        }
    }

    fn apply(&mut self, verdict: Result<(), Fault>, now: Monotonic) {
        let fault = match verdict {
            Ok(()) => return,
            Err(fault) => fault,
        };
        self.credit(now);
        self.state = match fault {
            Fault::Leave(leave) => State::Leaving { leave, asked: false },
            Fault::Accuse { found, accusation } => {
                self.accusation = Some(accusation);
                let reason =
                    format!("{found}: the next Hello asks the collector what it has posted");
                State::Leaving { leave: Leave::soon(reason), asked: false }
            }
            Fault::Conflict { found, answer } => {
                let message = conflict_message(self.facts.stream, &found);
                self.last_error = Some(message.clone());
                State::Condemned { message, answer }
            }
        };
    }

    /// A session that proved itself makes up for the failures before it.
    fn credit(&mut self, now: Monotonic) {
        if let State::Joined(joined) = &self.state
            && joined.is_proven(now)
        {
            self.backoff.reset();
            self.fenced_in_a_row = 0;
        }
    }

    fn hello(&self, clock: Timestamp) -> Hello {
        let facts = &self.facts;
        let (posted_sequence, posted_digest) = match self.accusation {
            Some(Accusation { sequence, digest }) => (sequence, digest),
            None => (facts.posted_sequence, facts.posted_digest),
        };
        Hello {
            header_version: HEADER_VERSION,
            body_version: BODY_VERSION,
            stream: facts.stream,
            ledger: facts.ledger,
            opening: facts.opening,
            posted_sequence,
            posted_digest,
            sealed_sequence: facts.sealed_sequence,
            accepted: facts.accepted,
            rules_version: facts.rules_version,
            openings: facts.openings.iter().take(OPENINGS_MAX).copied().collect(),
            clock,
            token: None,
            agent: self.config.agent.clone(),
            extras: self.held.map(FirstHeld::to_extra).into_iter().collect(),
        }
    }
}

/// Compares what the ledger has posted with what the journal knows of the same sequence. What the journal
/// begins with is noted for the next hello, if the ledger lacks what came before.
fn judge_posted(
    joined: &Joined,
    looked: &Looked,
    facts: &StreamFacts,
    held: &mut Option<FirstHeld>,
) -> Result<(), Fault> {
    let posted = joined.welcome.posted_sequence;
    let due = posted.next();
    let told = held.take();
    if posted < facts.sealed_sequence && looked.first_held.is_none_or(|first| first.sequence > due)
    {
        let first = looked.first_held.unwrap_or(FirstHeld {
            sequence: facts.sealed_sequence.next(),
            event: EventNumber(facts.accepted.saturating_sub(facts.unsealed_events)),
        });
        *held = Some(first);
        let leave = hole(due, Sequence(first.sequence.0.saturating_sub(1)));
        // Once more at once, so that the collector hears of it; then it waits for a person.
        return Err(Fault::Leave(match told == Some(first) {
            true => leave,
            false => Leave { retry: Retry::Soon, ..leave },
        }));
    }
    match looked.digest {
        Some(digest) if digest == joined.welcome.posted_digest => Ok(()),
        Some(digest) => Err(Fault::Accuse {
            found: format!(
                "the ledger's digest of sequence {posted} is {}, and this journal's is {digest}",
                joined.welcome.posted_digest
            ),
            accusation: Accusation { sequence: posted, digest },
        }),
        // All later batches are held, so a journal that cannot tell has lost what it must keep.
        None => {
            let found = format!("this journal no longer knows its own sequence {posted}");
            Err(Fault::Conflict { found, answer: None })
        }
    }
}
