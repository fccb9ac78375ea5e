//! What the collector makes of a hello, given what the ledger knows of the stream.
//!
//! **Owns** the judgement that finds cloned and rolled-back journals before they ship anything.
//! **Does not own** transactions: the store calls [`judge_hello`] and [`record_hello`] inside one.
//!
//! A ledger that has posted less than the agent knows (restored from a backup) is no conflict: it
//! welcomes, and the agent sends what it retained again.

use tidemark_common::id::{Digest, Fence, LedgerId, OpeningId, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{FirstHeld, Hello};

use crate::ledger::stream::{Missing, StreamRecord, StreamState};

/// The oldest batch header that this collector reads.
const HEADER_VERSION_MIN: u16 = 1;

/// What the collector makes of a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloVerdict {
    Welcome,
    /// The journal was cloned or rolled back.
    Conflict(Contradiction),
    /// The stream belongs to another identity.
    OtherIdentity,
    /// The journal is pinned to another ledger.
    OtherLedger,
    /// No further stream is taken: the ledger knows as many as it may.
    TooManyStreams,
    /// The identity has begun as many new streams of late as it may.
    TooManyNewStreams,
    /// The agent seals only batches that this collector cannot read.
    Version {
        header_version: u16,
    },
}

/// How a journal contradicts the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    #[error(
        "the ledger has posted up to batch {posted}, the journal has sealed only up to {sealed}"
    )]
    PostedBeyondSealed { posted: Sequence, sealed: Sequence },
    #[error("batch {sequence} is posted with other bytes than the journal remembers")]
    OtherDigest { sequence: Sequence },
    #[error("the journal says that it accepted {accepted} events; {known} are known")]
    AcceptedFell { accepted: u64, known: u64 },
    #[error("the events of opening {opening} were given to another stream after a conflict")]
    GivenAway { opening: OpeningId },
}

impl Contradiction {
    /// The first sequence that ledger and journal do not share.
    #[must_use]
    pub fn sequence(self, posted: Sequence) -> Sequence {
        match self {
            Self::PostedBeyondSealed { sealed, .. } => sealed.next(),
            Self::OtherDigest { sequence } => sequence,
            Self::AcceptedFell { .. } | Self::GivenAway { .. } => posted.next(),
        }
    }
}

/// The sequence whose stored digest [`judge_hello`] needs besides the stream's record.
#[must_use]
pub fn digest_needed(record: &StreamRecord, hello: &Hello) -> Option<Sequence> {
    let earlier =
        Sequence::ZERO < hello.posted_sequence && hello.posted_sequence < record.posted_sequence;
    earlier.then_some(hello.posted_sequence)
}

/// Judges a hello from `agent`. `stored` is the digest that [`digest_needed`] asked for; `None` if
/// that batch has left the ledger.
#[must_use]
pub fn judge_hello(
    record: Option<&StreamRecord>,
    hello: &Hello,
    agent: &AgentName,
    ledger: LedgerId,
    stored: Option<Digest>,
) -> HelloVerdict {
    if hello.header_version < HEADER_VERSION_MIN {
        return HelloVerdict::Version { header_version: hello.header_version };
    }
    if hello.ledger.is_some_and(|pinned| pinned != ledger) {
        return HelloVerdict::OtherLedger;
    }
    let Some(record) = record else {
        return HelloVerdict::Welcome;
    };
    if record.agent != *agent && !agent.is_drainer() && !record.agent.is_drainer() {
        return HelloVerdict::OtherIdentity;
    }
    match contradiction(record, hello, stored) {
        Some(contradiction) => HelloVerdict::Conflict(contradiction),
        None => HelloVerdict::Welcome,
    }
}

fn contradiction(
    record: &StreamRecord,
    hello: &Hello,
    stored: Option<Digest>,
) -> Option<Contradiction> {
    let (posted, sealed) = (record.posted_sequence, hello.sealed_sequence);
    if posted > sealed {
        return Some(Contradiction::PostedBeyondSealed { posted, sealed });
    }
    let sequence = hello.posted_sequence;
    let known = if sequence == posted && posted > Sequence::ZERO {
        Some(record.posted_digest)
    } else {
        stored
    };
    if known.is_some_and(|digest| digest != hello.posted_digest) {
        return Some(Contradiction::OtherDigest { sequence });
    }
    // An agent tells of what is durable only, so what it told of before is in its journal still.
    let known = record.accepted.max(record.posted_end.0);
    if hello.accepted < known {
        return Some(Contradiction::AcceptedFell { accepted: hello.accepted, known });
    }
    None
}

/// Opens the stream for a session of `agent` with `fence`, after [`judge_hello`] welcomed it. A stream that
/// a drainer introduced becomes the first agent's that comes with its journal. Confirmations of batches
/// that the journal has not sealed can never count: they are dropped.
pub fn record_hello(
    record: &mut StreamRecord,
    hello: &Hello,
    agent: &AgentName,
    fence: Fence,
    now: Timestamp,
) {
    assert!(fence > record.fence, "a hello raises the fence: {fence} after {}", record.fence);
    if record.agent.is_drainer() {
        record.agent = agent.clone();
    }
    record.fence = fence;
    record.state = StreamState::Open;
    record.sealed_sequence = record.sealed_sequence.max(hello.sealed_sequence);
    record.pending.retain(|pending| pending.sequence <= hello.sealed_sequence);
    record.accepted = record.accepted.max(hello.accepted);
    record.last_heard = record.last_heard.max(now);
    if let Some(missing) = missing(record, hello) {
        record.missing = Some(missing);
    }
}

/// What the journal no longer holds and the ledger does not have, if the hello says so. It stays noted until
/// the batch that is due comes after all: an agent that was restarted does not say it at once.
fn missing(record: &StreamRecord, hello: &Hello) -> Option<Missing> {
    let held = FirstHeld::among(&hello.extras)?;
    let first = record.posted_sequence.next();
    let sealed = hello.sealed_sequence.next();
    if held.sequence <= first || held.sequence > sealed || held.event.0 > hello.accepted {
        return None;
    }
    let last = Sequence(held.sequence.0.checked_sub(1)?);
    Some(Missing { first, last, events: held.event.0.checked_sub(record.posted_end.0)? })
}

#[cfg(test)]
mod tests {
    use tidemark_common::id::{EventNumber, OpeningId, RulesVersion, StreamId};

    use super::*;
    use crate::ledger::stream::Confirmed;

    const LEDGER: LedgerId = LedgerId([9; 16]);

    fn digest_of(sequence: u64) -> Digest {
        Digest([u8::try_from(sequence).unwrap(); 32])
    }

    fn agent(name: &str) -> AgentName {
        AgentName::parse(name).unwrap()
    }

    fn hello(posted: u64, sealed: u64, accepted: u64) -> Hello {
        Hello {
            header_version: 1,
            body_version: 1,
            stream: StreamId([1; 16]),
            ledger: Some(LEDGER),
            opening: OpeningId([2; 16]),
            posted_sequence: Sequence(posted),
            posted_digest: digest_of(posted),
            sealed_sequence: Sequence(sealed),
            accepted,
            rules_version: RulesVersion(0),
            openings: Vec::new(),
            clock: Timestamp(0),
            token: None,
            agent: "test".to_owned(),
            extras: Vec::new(),
        }
    }

    /// The ledger has posted batches 1 to 5 with events 0 to 49, and heard of 60 accepted.
    fn known() -> StreamRecord {
        let mut record = StreamRecord::new(StreamId([1; 16]), agent("a"), LEDGER, Timestamp(0));
        record.posted_sequence = Sequence(5);
        record.posted_digest = digest_of(5);
        record.posted_end = EventNumber(50);
        record.confirm(Confirmed {
            ledger_time: Timestamp(1),
            sequence: Sequence(7),
            accepted: 60,
        });
        record
    }

    fn check(hello: &Hello, identity: &str, stored: Option<Digest>, expected: &HelloVerdict) {
        let verdict = judge_hello(Some(&known()), hello, &agent(identity), LEDGER, stored);
        assert_eq!(verdict, *expected, "{hello:?}");
    }

    #[test]
    fn fitting_hellos_are_welcome() {
        check(&hello(5, 5, 60), "a", None, &HelloVerdict::Welcome);
        check(&hello(3, 9, 90), "a", Some(digest_of(3)), &HelloVerdict::Welcome);
        // The batch left the ledger: nothing to compare.
        check(&hello(3, 9, 90), "a", None, &HelloVerdict::Welcome);
        // The ledger was restored from a backup: it will ask for 6 and 7 again.
        check(&hello(7, 9, 90), "a", None, &HelloVerdict::Welcome);
        check(&Hello { ledger: None, ..hello(0, 5, 60) }, "a", None, &HelloVerdict::Welcome);
    }

    #[test]
    fn rolled_back_and_cloned_journals_are_found() {
        let beyond = Contradiction::PostedBeyondSealed { posted: Sequence(5), sealed: Sequence(4) };
        check(&hello(4, 4, 60), "a", Some(digest_of(4)), &HelloVerdict::Conflict(beyond));
        let other = Contradiction::OtherDigest { sequence: Sequence(5) };
        let forked = Hello { posted_digest: digest_of(8), ..hello(5, 6, 60) };
        check(&forked, "a", None, &HelloVerdict::Conflict(other));
        let other = Contradiction::OtherDigest { sequence: Sequence(3) };
        check(&hello(3, 6, 60), "a", Some(digest_of(8)), &HelloVerdict::Conflict(other));
        let fell = Contradiction::AcceptedFell { accepted: 59, known: 60 };
        check(&hello(5, 5, 59), "a", None, &HelloVerdict::Conflict(fell));
    }

    #[test]
    fn a_journal_rolled_back_below_its_last_hello_is_found() {
        let mut record = known();
        record_hello(&mut record, &hello(5, 8, 100), &agent("a"), Fence(3), Timestamp(4));
        let verdict = judge_hello(Some(&record), &hello(5, 7, 70), &agent("a"), LEDGER, None);
        let fell = Contradiction::AcceptedFell { accepted: 70, known: 100 };
        assert_eq!(verdict, HelloVerdict::Conflict(fell));
    }

    #[test]
    fn a_hello_drops_confirmations_of_what_is_not_sealed() {
        let mut record = known();
        let beyond = Confirmed { ledger_time: Timestamp(2), sequence: Sequence(99), accepted: 60 };
        record.confirm(beyond);
        record_hello(&mut record, &hello(5, 8, 70), &agent("a"), Fence(3), Timestamp(4));
        let kept: Vec<_> = record.pending.iter().map(|pending| pending.sequence.0).collect();
        assert_eq!(kept, [7]);
    }

    #[test]
    fn a_stream_belongs_to_its_first_identity_and_ledger() {
        check(&hello(5, 5, 60), "b", None, &HelloVerdict::OtherIdentity);
        let pinned = Hello { ledger: Some(LedgerId([8; 16])), ..hello(5, 5, 60) };
        check(&pinned, "a", None, &HelloVerdict::OtherLedger);
        let ancient = Hello { header_version: 0, ..hello(5, 5, 60) };
        check(&ancient, "a", None, &HelloVerdict::Version { header_version: 0 });
    }

    #[test]
    fn what_neither_side_holds_is_noted_with_its_size() {
        let check = |sequence, event, expected: Option<(u64, u64, u64)>| {
            let mut record = known();
            let held = FirstHeld { sequence: Sequence(sequence), event: EventNumber(event) };
            let hello = Hello { extras: vec![held.to_extra()], ..hello(9, 12, 120) };
            record_hello(&mut record, &hello, &agent("a"), Fence(3), Timestamp(4));
            let found = record.missing.map(|found| (found.first.0, found.last.0, found.events));
            assert_eq!(found, expected, "{held:?}");
            // An agent that says nothing of it does not take it back.
            let silent = Hello { extras: Vec::new(), ..hello };
            record_hello(&mut record, &silent, &agent("a"), Fence(4), Timestamp(5));
            assert_eq!(record.missing.is_some(), expected.is_some());
        };
        check(9, 93, Some((6, 8, 43)));
        check(13, 120, Some((6, 12, 70)));
        check(6, 50, None);
        check(1, 0, None);
        // More than it sealed or accepted, or fewer events than are posted.
        check(14, 120, None);
        check(u64::MAX, 120, None);
        check(9, 121, None);
        check(9, 49, None);
    }

    #[test]
    fn a_drainer_ships_the_streams_of_others_and_keeps_none() {
        let drainer = AgentName::parse_drainer("node-7").unwrap();
        let (fitting, ledger) = (hello(5, 8, 70), LEDGER);
        let judged = |record: &StreamRecord, agent: &AgentName| {
            judge_hello(Some(record), &fitting, agent, ledger, None)
        };
        let mut record = known();
        assert_eq!(judged(&record, &drainer), HelloVerdict::Welcome);
        record_hello(&mut record, &fitting, &drainer, Fence(3), Timestamp(4));
        assert_eq!(record.agent, agent("a"));
        assert_eq!(judged(&record, &agent("b")), HelloVerdict::OtherIdentity);

        // One that the drainer introduced belongs to the agent that comes back for it.
        record.agent = drainer.clone();
        assert_eq!(judged(&record, &agent("b")), HelloVerdict::Welcome);
        record_hello(&mut record, &fitting, &agent("b"), Fence(4), Timestamp(5));
        assert_eq!(judged(&record, &agent("a")), HelloVerdict::OtherIdentity);
        assert_eq!(judged(&record, &drainer), HelloVerdict::Welcome);
    }

    #[test]
    fn a_hello_reopens_a_stream_under_a_higher_fence() {
        let mut record = known();
        record.state = StreamState::Closed;
        record_hello(&mut record, &hello(5, 8, 70), &agent("a"), Fence(3), Timestamp(4));
        assert_eq!(
            (record.state, record.fence, record.accepted),
            (StreamState::Open, Fence(3), 70)
        );
    }
}
