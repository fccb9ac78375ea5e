//! Exactly once: what the collector makes of a batch, given what its stream has posted.
//!
//! **Owns** the judgement and how an admitted batch advances its stream. **Does not own** transactions
//! (the store calls [`judge`] and [`record`] inside one) or answers (`session.rs`).
//!
//! Invariants: a stream's batches are admitted in order, without holes, each continuing the digest
//! and the event numbers of the one before; what was admitted once is never admitted again.

use tidemark_common::batch::{Evidence, Header, genesis};
use tidemark_common::id::{Digest, EventNumber, Fence, LedgerId, Sequence};
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::wire::PostedOpening;

use crate::ledger::stream::{StreamRecord, StreamState};

/// What the collector makes of a batch, before anything is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Admit,
    /// Posted before, with these bytes: acknowledge it again.
    Duplicate,
    /// One before it is missing.
    Gap {
        expected: Sequence,
    },
    /// This sequence is posted with other bytes: the journal was cloned or rolled back.
    Conflict {
        sequence: Sequence,
    },
    /// A newer session holds the stream.
    Fenced {
        current: Fence,
    },
    /// The stream's chain starts from another ledger.
    OtherLedger,
    /// No hello introduced the stream, or it has been closed since.
    NotOpen,
    /// The header does not hold together with itself or with the batch before.
    Invalid(Flaw),
}

/// What about a header does not hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("its previous digest is not that of batch {previous}")]
    BrokenChain { previous: Sequence },
    #[error("its first event is {found}, where {expected} is due")]
    EventNumbers { expected: EventNumber, found: EventNumber },
    #[error("its events end at {end}, before they begin at {first}")]
    EventRange { first: EventNumber, end: EventNumber },
    #[error("it has {lines} lines for {events} events")]
    Lines { lines: u32, events: u64 },
    #[error("its buckets {first} to {last} do not fit its {lines} lines")]
    Buckets { first: Bucket, last: Bucket, lines: u32 },
    #[error("sequences begin at 1")]
    SequenceZero,
}

/// A batch and who sends it, as it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub header: &'a Header,
    /// The header's digest.
    pub digest: Digest,
    /// The sending session's fence.
    pub fence: Fence,
}

/// The sequence whose stored digest [`judge`] needs besides the stream's record.
#[must_use]
pub fn digest_needed(record: &StreamRecord, header: &Header) -> Option<Sequence> {
    let earlier = Sequence::ZERO < header.sequence && header.sequence < record.posted_sequence;
    earlier.then_some(header.sequence)
}

/// Judges a batch against its stream's record and `ledger`.
///
/// `stored` is the digest that [`digest_needed`] asked for; `None` if the batch has left the ledger
/// (its period is closed), which the chain behind it vouches for.
#[must_use]
pub fn judge(
    record: Option<&StreamRecord>,
    candidate: &Candidate<'_>,
    stored: Option<Digest>,
    ledger: LedgerId,
) -> Verdict {
    let Some(record) = record else {
        return Verdict::NotOpen;
    };
    let header = candidate.header;
    if candidate.fence != record.fence {
        return Verdict::Fenced { current: record.fence };
    }
    match record.state {
        // Another journal's conflict does not stop the one whose chain fits.
        StreamState::Open | StreamState::Conflict => {}
        StreamState::Closed => return Verdict::NotOpen,
    }
    if header.sequence == Sequence::ZERO {
        return Verdict::Invalid(Flaw::SequenceZero);
    }
    if header.sequence <= record.posted_sequence {
        let posted = if header.sequence == record.posted_sequence {
            Some(record.posted_digest)
        } else {
            stored
        };
        return match posted {
            Some(digest) if digest != candidate.digest => {
                Verdict::Conflict { sequence: header.sequence }
            }
            Some(_) | None => Verdict::Duplicate,
        };
    }
    let expected = record.posted_sequence.next();
    if header.sequence > expected {
        return Verdict::Gap { expected };
    }
    judge_next(record, header, ledger)
}

/// Judges the batch that is due.
fn judge_next(record: &StreamRecord, header: &Header, ledger: LedgerId) -> Verdict {
    let first = record.posted_sequence == Sequence::ZERO;
    if first && header.previous != genesis(ledger, record.stream) {
        return Verdict::OtherLedger;
    }
    if !first && header.previous != record.posted_digest {
        return Verdict::Invalid(Flaw::BrokenChain { previous: record.posted_sequence });
    }
    match flaw(header, record.posted_end) {
        Some(flaw) => Verdict::Invalid(flaw),
        None => Verdict::Admit,
    }
}

fn flaw(header: &Header, expected: EventNumber) -> Option<Flaw> {
    let (first, end) = (header.first_event, header.end_event);
    if first != expected {
        return Some(Flaw::EventNumbers { expected, found: first });
    }
    if end < first {
        return Some(Flaw::EventRange { first, end });
    }
    // Every line holds at least one event, and every event is in one line.
    let (lines, events) = (header.lines, end.0.saturating_sub(first.0));
    if u64::from(lines) > events || (lines == 0 && events > 0) {
        return Some(Flaw::Lines { lines, events });
    }
    let (first, last) = (header.first_bucket, header.last_bucket);
    if first > last || (lines == 0 && last != Bucket(0)) {
        return Some(Flaw::Buckets { first, last, lines });
    }
    None
}

/// What an admitted batch's body turned out to be.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    Posted(&'a Evidence),
    Quarantined,
}

/// Advances the stream past a batch that [`judge`] admitted; in the transaction that stores the batch.
pub fn record(
    record: &mut StreamRecord,
    header: &Header,
    digest: Digest,
    content: Content<'_>,
    now: Timestamp,
) {
    assert_eq!(
        header.sequence,
        record.posted_sequence.next(),
        "only the batch that is due is recorded"
    );
    match content {
        Content::Posted(evidence) => record.take_evidence(evidence),
        Content::Quarantined => {
            // What was confirmed up to here stays complete; nothing later can be told complete.
            let confirmed = record.confirmed.map(|confirmed| confirmed.ledger_time);
            record.quarantine_cap.get_or_insert(confirmed);
            record.quarantined_batches = record.quarantined_batches.saturating_add(1);
            record.quarantined_events = record.quarantined_events.saturating_add(header.events());
        }
    }
    // The batch that is due has come, so nothing before it is missing.
    record.missing = None;
    record.posted_sequence = header.sequence;
    record.posted_digest = digest;
    record.posted_end = header.end_event;
    record.sealed_sequence = record.sealed_sequence.max(header.sequence);
    record.accepted = record.accepted.max(header.end_event.0);
    record.last_heard = record.last_heard.max(now);
    let end = header.end_event;
    match record.openings.last_mut() {
        Some(opening) if opening.opening == header.opening => opening.end = end,
        Some(_) | None => record.openings.push(PostedOpening { opening: header.opening, end }),
    }
    record.count_confirms();
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests;
