//! A session after Welcome: the window, what is sent and acknowledged, confirmations.

use tidemark_common::id::Sequence;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Ack, Confirm, Events, Welcome};

use super::events::EventsSender;
use super::reasons::Leave;
use super::{DRAIN_MILLIS_MAX, Monotonic, PROVEN_MILLIS, SILENCE_MILLIS_MAX};

#[derive(Debug)]
pub(super) struct Joined {
    pub(super) welcome: Welcome,
    pub(super) clock_offset_millis: i64,
    pub(super) phase: Phase,
    /// At most this many batches sent and not acknowledged.
    pub(super) window: u64,
    pub(super) sent: Sequence,
    pub(super) acked: Sequence,
    /// The batch after `sent`, ready to go.
    pub(super) loaded: Option<Vec<u8>>,
    pub(super) paused_until: Option<Monotonic>,
    pub(super) acks: u64,
    /// When it became Open.
    pub(super) since: Monotonic,
    pub(super) last_heard: Monotonic,
    pub(super) ends_at: Monotonic,
    /// The session is at its maximum age: sends nothing more and leaves at the latest then.
    drains_until: Option<Monotonic>,
    /// The newest ledger time that the collector wants confirmed and no barrier answers yet.
    pub(super) wanted: Option<Timestamp>,
    /// Answered by a barrier; leaves once the batches that it speaks of are sent.
    confirm: Option<Confirm>,
    pub(super) close_sent: bool,
    pub(super) events: EventsSender,
}

/// How far a session is. The `Due` ones wait for the driver to take their action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    LookDue,
    Looking,
    AdoptDue,
    Adopting,
    Open,
}

impl Joined {
    pub(super) fn new(
        welcome: Welcome,
        clock_offset_millis: i64,
        window: u64,
        now: Monotonic,
        ends_at: Monotonic,
    ) -> Self {
        Self {
            clock_offset_millis,
            phase: Phase::LookDue,
            events: EventsSender::new(Events::are_taken(&welcome.extras)),
            window,
            sent: welcome.posted_sequence,
            acked: welcome.posted_sequence,
            welcome,
            loaded: None,
            paused_until: None,
            acks: 0,
            since: now,
            last_heard: now,
            ends_at,
            drains_until: None,
            wanted: None,
            confirm: None,
            close_sent: false,
        }
    }

    /// Takes an Ack; true if it posts something new.
    pub(super) fn acknowledge(&mut self, ack: &Ack) -> Result<bool, Leave> {
        if ack.posted_sequence > self.sent {
            return Err(Leave::soon(format!(
                "the collector acknowledged sequence {}, and this session has sent only {}",
                ack.posted_sequence, self.sent
            )));
        }
        self.acks = self.acks.saturating_add(1);
        if ack.confirm {
            self.wanted = self.wanted.max(Some(ack.ledger_time));
        }
        let news = ack.posted_sequence > self.acked;
        self.acked = self.acked.max(ack.posted_sequence);
        Ok(news)
    }

    /// At its age, and nothing is left to wait for.
    pub(super) fn is_drained(&self) -> bool {
        self.drains_until.is_some() && self.in_flight() == 0
    }

    /// It lived long enough, with acks, to make up for failures before it.
    pub(super) fn is_proven(&self, now: Monotonic) -> bool {
        self.phase == Phase::Open && self.acks > 0 && now.since(self.since) >= PROVEN_MILLIS
    }

    pub(super) fn handle_timeout(&mut self, now: Monotonic) -> Result<(), Leave> {
        if self.last_heard.plus(SILENCE_MILLIS_MAX) <= now {
            return Err(Leave::soon(format!(
                "the collector was silent for {} s; {} batches are not acknowledged",
                SILENCE_MILLIS_MAX / 1_000,
                self.in_flight()
            )));
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        let at_its_end = match self.drains_until {
            Some(until) => until <= now,
            None if self.ends_at <= now => {
                self.drains_until = Some(now.plus(DRAIN_MILLIS_MAX));
                self.is_drained()
            }
            None => false,
        };
        match at_its_end {
            true => Err(Leave::aged()),
            false => Ok(()),
        }
    }

    pub(super) fn poll_timeout(&self) -> Monotonic {
        let age = self.drains_until.unwrap_or(self.ends_at);
        let silence = self.last_heard.plus(SILENCE_MILLIS_MAX);
        self.paused_until.into_iter().chain([age, silence]).min().unwrap_or(silence)
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.sent.0.saturating_sub(self.acked.0)
    }

    /// Whether frames may leave.
    pub(super) fn may_send(&self) -> bool {
        self.phase == Phase::Open
            && self.paused_until.is_none()
            && self.drains_until.is_none()
            && !self.close_sent
    }

    /// Whether the batch after `sent` may leave, once it is loaded.
    pub(super) fn may_send_batch(&self) -> bool {
        self.may_send() && self.in_flight() < self.window
    }

    /// Whether raw events may leave: everything else has.
    pub(super) fn may_send_events(&self, sealed: Sequence) -> bool {
        self.may_send() && self.sent == sealed && self.loaded.is_none()
    }

    /// Whether a barrier may start: the Confirm before has left, so a long backlog delays
    /// confirmations and never starves them.
    pub(super) fn wants_barrier(&self) -> bool {
        self.phase == Phase::Open && self.wanted.is_some() && self.confirm.is_none()
    }

    pub(super) fn confirm_after(
        &mut self,
        ledger_time: Timestamp,
        sequence: Sequence,
        accepted: u64,
    ) {
        let fence = self.welcome.fence;
        self.confirm = Some(Confirm { ledger_time, sequence, accepted, fence, extras: Vec::new() });
    }

    /// The Confirm whose batches have all been sent.
    pub(super) fn take_confirm(&mut self) -> Option<Confirm> {
        let sent = self.sent;
        self.confirm.take_if(|confirm| confirm.sequence <= sent)
    }
}
