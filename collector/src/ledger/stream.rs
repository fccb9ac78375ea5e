//! What the ledger knows of one stream.
//!
//! **Owns** the state that batches are judged against and how confirmations come to count. **Does not
//! own** the judgements (`dedupe.rs`, `session/hello.rs`) or where states are kept (the store).
//!
//! Invariant, per stream: accepted = posted + in transit + quarantined, where posted and quarantined
//! come from the headers admitted and accepted from what the agent says.
//!
//! Limits: at most [`CONFIRMS_PENDING_MAX`] confirmations wait for their batches.

use tidemark_common::batch::{Evidence, genesis};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{Digest, EventNumber, Fence, LedgerId, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;
use tidemark_common::wire::PostedOpening;

/// At most this many confirmations wait for their batches to be posted; of more, the newest one is
/// replaced, so that the oldest can still come to count.
pub const CONFIRMS_PENDING_MAX: usize = 8;

/// One stream: what is posted, who holds it, and what its agent said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    pub stream: StreamId,
    /// The identity of the first hello. Only it may continue the stream.
    pub agent: AgentName,
    /// Ledger time of the first hello; zero of a stream that began before this was noted.
    pub begun: Timestamp,
    pub state: StreamState,
    pub fence: Fence,
    pub posted_sequence: Sequence,
    /// The digest of the batch at `posted_sequence`; before the first, the genesis digest.
    pub posted_digest: Digest,
    /// All events before this number are in admitted batches, quarantined ones included.
    pub posted_end: EventNumber,
    /// The highest sequence that the agent said it has sealed.
    pub sealed_sequence: Sequence,
    /// The most events that the agent said the stream has accepted, ever.
    pub accepted: u64,
    pub quarantined_batches: u64,
    pub quarantined_events: u64,
    /// The confirmation that held when the first batch was quarantined: none later can count.
    pub quarantine_cap: Option<Option<Timestamp>>,
    /// The confirmation that held when another journal first showed up under this stream's id: none
    /// later can count, since that journal may hold events which nobody ships. Whatever the stream does
    /// after, only a person may lift it, once it is known what became of them; no command does so yet.
    pub conflict_cap: Option<Option<Timestamp>>,
    pub evidence: Evidence,
    pub duplicates: u64,
    /// Hellos and batches that showed another journal under this stream's id.
    pub conflicts: u64,
    pub last_heard: Timestamp,
    /// The newest confirmation whose batches are all posted.
    pub confirmed: Option<Confirmed>,
    /// Confirmations whose batches are not all posted yet, oldest first.
    pub pending: Vec<Confirmed>,
    /// What its agent no longer holds and the ledger does not have: nothing behind it can come.
    pub missing: Option<Missing>,
    /// The ends of the openings posted since they were last written to a table of their own; the
    /// newest stands last.
    pub openings: Vec<PostedOpening>,
}

/// Batches that are neither in the ledger nor in the agent's journal: the ledger was restored from a backup
/// that is older than what the journal retains. Only a newer backup has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub first: Sequence,
    pub last: Sequence,
    pub events: u64,
}

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    Open,
    /// Its agent left and nothing accepted is missing.
    Closed,
    /// Another journal showed up under its id: cloned or rolled back. A hello that fits reopens it.
    Conflict,
}

impl StreamState {
    /// Whether a stream in this state, last heard at `last_heard`, may have posted what a ledger that was
    /// restored at `restored_at` does not have, and its agent has not come since.
    #[must_use]
    pub fn is_unheard_since(self, last_heard: Timestamp, restored_at: Option<Timestamp>) -> bool {
        let may_have_posted = match self {
            Self::Open | Self::Conflict => true,
            Self::Closed => false,
        };
        may_have_posted && restored_at.is_some_and(|restored| last_heard < restored)
    }

    /// The state's name, in JSON and as a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Conflict => "conflict",
        }
    }
}

/// "All that I accepted before `ledger_time` is in sequences up to `sequence`; accepted: so many."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    pub ledger_time: Timestamp,
    pub sequence: Sequence,
    pub accepted: u64,
}

/// One stream as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    pub stream: StreamId,
    pub agent: AgentName,
    /// Ledger time of the first hello; `None` of a stream that began before this was noted.
    pub begun: Option<Timestamp>,
    pub state: StreamState,
    pub fence: Fence,
    pub posted_sequence: Sequence,
    pub sealed_sequence: Sequence,
    pub accepted: u64,
    /// Events in the totals or the tail; those of quarantined batches are not.
    pub posted_events: u64,
    pub quarantined_events: u64,
    pub quarantined_batches: u64,
    /// Events that are known to be accepted and not to be here yet.
    pub in_transit: u64,
    pub evidence: Evidence,
    pub duplicates: u64,
    pub conflicts: u64,
    pub missing: Option<Missing>,
    pub last_heard: Timestamp,
    /// The newest confirmation that counts.
    pub confirmed: Option<Confirmed>,
}

impl StreamRecord {
    /// A stream that nothing is posted of.
    #[must_use]
    pub fn new(stream: StreamId, agent: AgentName, ledger: LedgerId, now: Timestamp) -> Self {
        Self {
            stream,
            agent,
            begun: now,
            state: StreamState::Open,
            fence: Fence(0),
            posted_sequence: Sequence::ZERO,
            posted_digest: genesis(ledger, stream),
            posted_end: EventNumber(0),
            sealed_sequence: Sequence::ZERO,
            accepted: 0,
            quarantined_batches: 0,
            quarantined_events: 0,
            quarantine_cap: None,
            conflict_cap: None,
            evidence: Evidence::default(),
            duplicates: 0,
            conflicts: 0,
            last_heard: now,
            confirmed: None,
            pending: Vec::new(),
            missing: None,
            openings: Vec::new(),
        }
    }

    /// Takes a confirmation; it counts at once if its batches are posted.
    pub fn confirm(&mut self, confirmed: Confirmed) {
        self.accepted = self.accepted.max(confirmed.accepted);
        self.sealed_sequence = self.sealed_sequence.max(confirmed.sequence);
        if self.pending.len() == CONFIRMS_PENDING_MAX {
            self.pending.pop();
        }
        self.pending.push(confirmed);
        self.count_confirms();
    }

    /// Lets the newest confirmation count whose batches are posted by now.
    ///
    /// One that claims more events than its batches hold never counts: it is replaced by the next. One
    /// whose batches are missing keeps no other from counting.
    pub fn count_confirms(&mut self) {
        let (posted, end) = (self.posted_sequence, self.posted_end);
        let (due, waiting): (Vec<_>, Vec<_>) =
            self.pending.iter().partition(|confirmed| confirmed.sequence <= posted);
        self.pending = waiting;
        let counted = due.into_iter().rfind(|confirmed| confirmed.accepted <= end.0);
        self.confirmed = counted.or(self.confirmed);
    }

    /// The greatest accepted count that this stream ever confirmed, counted or not.
    #[must_use]
    pub fn confirmed_accepted(&self) -> u64 {
        self.pending.last().or(self.confirmed.as_ref()).map_or(0, |confirmed| confirmed.accepted)
    }

    /// Up to when all that was accepted is posted; `None` if it was never confirmed.
    #[must_use]
    pub fn complete_through(&self) -> Option<Timestamp> {
        let confirmed = self.confirmed.map(|confirmed| confirmed.ledger_time);
        let caps = [self.quarantine_cap, self.conflict_cap];
        caps.into_iter().flatten().fold(confirmed, Ord::min)
    }

    /// Another journal showed up under this stream's id.
    pub fn mark_conflict(&mut self) {
        self.conflict_cap.get_or_insert(self.complete_through());
        self.state = StreamState::Conflict;
        self.conflicts = self.conflicts.saturating_add(1);
    }

    /// Events that are known to be accepted and that no admitted batch holds.
    #[must_use]
    pub fn in_transit(&self) -> u64 {
        self.accepted.saturating_sub(self.posted_end.0)
    }

    #[must_use]
    pub fn status(&self) -> StreamStatus {
        StreamStatus {
            stream: self.stream,
            agent: self.agent.clone(),
            begun: (self.begun > Timestamp(0)).then_some(self.begun),
            state: self.state,
            fence: self.fence,
            posted_sequence: self.posted_sequence,
            sealed_sequence: self.sealed_sequence.max(self.posted_sequence),
            accepted: self.accepted.max(self.posted_end.0),
            posted_events: self.posted_end.0.saturating_sub(self.quarantined_events),
            quarantined_events: self.quarantined_events,
            quarantined_batches: self.quarantined_batches,
            in_transit: self.in_transit(),
            evidence: self.evidence.clone(),
            duplicates: self.duplicates,
            conflicts: self.conflicts,
            missing: self.missing,
            last_heard: self.last_heard,
            confirmed: self.confirmed,
        }
    }

    /// Takes the cumulative counts of a batch. They only grow, whatever a batch says.
    pub fn take_evidence(&mut self, evidence: &Evidence) {
        self.evidence.merge_max(evidence);
        self.accepted = self.accepted.max(self.evidence.get(EvidenceCode::Accepted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(millis: i64, sequence: u64, accepted: u64) -> Confirmed {
        Confirmed { ledger_time: Timestamp(millis), sequence: Sequence(sequence), accepted }
    }

    fn record() -> StreamRecord {
        let agent = AgentName::parse("a").unwrap();
        StreamRecord::new(StreamId([1; 16]), agent, LedgerId([2; 16]), Timestamp(0))
    }

    fn post(record: &mut StreamRecord, sequence: u64, end: u64) {
        record.posted_sequence = Sequence(sequence);
        record.posted_end = EventNumber(end);
        record.count_confirms();
    }

    #[test]
    fn a_confirmation_counts_once_its_batches_are_posted() {
        let mut record = record();
        record.confirm(confirmed(10, 0, 0));
        assert_eq!(record.complete_through(), Some(Timestamp(10)));
        record.confirm(confirmed(20, 2, 7));
        assert_eq!((record.complete_through(), record.in_transit()), (Some(Timestamp(10)), 7));
        post(&mut record, 1, 3);
        assert_eq!((record.complete_through(), record.in_transit()), (Some(Timestamp(10)), 4));
        post(&mut record, 2, 7);
        assert_eq!((record.complete_through(), record.in_transit()), (Some(Timestamp(20)), 0));
    }

    #[test]
    fn under_a_lasting_backlog_the_oldest_waiting_confirmation_still_comes_to_count() {
        let mut record = record();
        for turn in 1..40 {
            record.confirm(confirmed(turn, turn.unsigned_abs(), turn.unsigned_abs()));
        }
        assert_eq!(record.pending.len(), CONFIRMS_PENDING_MAX);
        post(&mut record, 1, 1);
        assert_eq!(record.complete_through(), Some(Timestamp(1)));
        post(&mut record, 39, 39);
        assert_eq!(record.complete_through(), Some(Timestamp(39)));
    }

    #[test]
    fn a_confirmation_that_claims_more_than_its_batches_hold_never_counts() {
        let mut record = record();
        record.confirm(confirmed(10, 1, 5));
        post(&mut record, 1, 4);
        assert_eq!((record.complete_through(), record.in_transit()), (None, 1));
    }

    #[test]
    fn a_confirmation_of_what_is_never_sealed_holds_up_no_other() {
        let mut record = record();
        record.confirm(confirmed(10, 99, 0));
        record.confirm(confirmed(20, 1, 3));
        post(&mut record, 1, 3);
        assert_eq!(record.complete_through(), Some(Timestamp(20)));
        record.confirm(confirmed(30, 1, 3));
        assert_eq!(record.complete_through(), Some(Timestamp(30)));
        assert_eq!(record.pending, [confirmed(10, 99, 0)]);
    }

    #[test]
    fn a_conflict_holds_completeness_where_it_was() {
        let mut record = record();
        record.confirm(confirmed(10, 0, 0));
        record.mark_conflict();
        assert_eq!((record.state, record.conflicts), (StreamState::Conflict, 1));
        record.confirm(confirmed(20, 0, 0));
        record.mark_conflict();
        assert_eq!((record.complete_through(), record.conflicts), (Some(Timestamp(10)), 2));
    }

    #[test]
    fn quarantine_holds_completeness_where_it_was() {
        let mut record = record();
        record.confirm(confirmed(10, 0, 0));
        record.quarantine_cap = Some(Some(Timestamp(10)));
        record.confirm(confirmed(20, 0, 0));
        assert_eq!(record.complete_through(), Some(Timestamp(10)));
    }
}
