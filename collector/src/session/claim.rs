//! What the collector makes of an agent's claims: Confirm and Close.
//!
//! **Owns** the judgement and its effect on the stream. **Does not own** transactions (the store calls
//! these inside one), or when a confirmation comes to count (`ledger/stream.rs`).

use tidemark_common::id::{Fence, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Close, Confirm};

use crate::ledger::stream::{Confirmed, StreamRecord, StreamState};

/// What the collector makes of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimVerdict {
    Take,
    /// A newer session holds the stream.
    Fenced {
        current: Fence,
    },
    /// No hello introduced the stream, or it is closed.
    NotOpen,
    /// Close claims that all is shipped, and a batch is missing.
    Gap {
        expected: Sequence,
    },
    Invalid(ClaimFlaw),
}

/// What about a claim cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimFlaw {
    #[error("it says that {accepted} events were accepted, after it said {before}")]
    AcceptedFell { accepted: u64, before: u64 },
    #[error("it says that {accepted} events were accepted, and its batches hold {posted}")]
    AcceptedDiffers { accepted: u64, posted: u64 },
    #[error("it answers ledger time {}, which is still to come", .claimed.0)]
    FromTheFuture { claimed: Timestamp },
}

/// Judges "all that I accepted before this ledger time is in sequences up to N".
#[must_use]
pub fn judge_confirm(
    record: Option<&StreamRecord>,
    confirm: &Confirm,
    now: Timestamp,
) -> ClaimVerdict {
    let record = match held(record, confirm.fence) {
        Ok(record) => record,
        Err(verdict) => return verdict,
    };
    if confirm.ledger_time > now {
        return ClaimVerdict::Invalid(ClaimFlaw::FromTheFuture { claimed: confirm.ledger_time });
    }
    // Its barrier may be older than the counts in batches that were sent since.
    match fallen(confirm.accepted, record.confirmed_accepted()) {
        Some(flaw) => ClaimVerdict::Invalid(flaw),
        None => ClaimVerdict::Take,
    }
}

/// Takes a confirmation that [`judge_confirm`] let pass. One that answers an older ledger time than
/// the last says nothing new.
pub fn record_confirm(record: &mut StreamRecord, confirm: &Confirm, now: Timestamp) {
    record.last_heard = record.last_heard.max(now);
    let newest = record.pending.last().or(record.confirmed.as_ref());
    if newest.is_some_and(|newest| confirm.ledger_time < newest.ledger_time) {
        return;
    }
    record.confirm(Confirmed {
        ledger_time: confirm.ledger_time,
        sequence: confirm.sequence,
        accepted: confirm.accepted,
    });
}

/// Judges "nothing accepted is left beyond batch N".
#[must_use]
pub fn judge_close(record: Option<&StreamRecord>, close: &Close) -> ClaimVerdict {
    let record = match held(record, close.fence) {
        Ok(record) => record,
        Err(verdict) => return verdict,
    };
    if close.sequence > record.posted_sequence {
        return ClaimVerdict::Gap { expected: record.posted_sequence.next() };
    }
    if let Some(flaw) = fallen(close.accepted, record.accepted) {
        return ClaimVerdict::Invalid(flaw);
    }
    let (accepted, posted) = (close.accepted, record.posted_end.0);
    if accepted != posted {
        return ClaimVerdict::Invalid(ClaimFlaw::AcceptedDiffers { accepted, posted });
    }
    ClaimVerdict::Take
}

/// Closes the stream: nothing of it is missing. Up to when that holds is what it last confirmed: a
/// Close answers no ledger time.
pub fn record_close(record: &mut StreamRecord, close: &Close, now: Timestamp) {
    record.pending.clear();
    record.accepted = record.accepted.max(close.accepted);
    record.sealed_sequence = record.sealed_sequence.max(close.sequence);
    record.state = StreamState::Closed;
    record.last_heard = record.last_heard.max(now);
}

fn held(record: Option<&StreamRecord>, fence: Fence) -> Result<&StreamRecord, ClaimVerdict> {
    match record {
        Some(record) if record.fence != fence => {
            Err(ClaimVerdict::Fenced { current: record.fence })
        }
        Some(record) if record.state != StreamState::Closed => Ok(record),
        Some(_) | None => Err(ClaimVerdict::NotOpen),
    }
}

fn fallen(accepted: u64, before: u64) -> Option<ClaimFlaw> {
    (accepted < before).then_some(ClaimFlaw::AcceptedFell { accepted, before })
}

#[cfg(test)]
mod tests {
    use tidemark_common::id::{EventNumber, LedgerId, StreamId};
    use tidemark_common::tls::AgentName;

    use super::*;

    const FENCE: Fence = Fence(7);

    /// Batches 1 and 2 are posted with 9 events; 9 were confirmed at ledger time 5.
    fn known() -> StreamRecord {
        let agent = AgentName::parse("a").unwrap();
        let mut record =
            StreamRecord::new(StreamId([1; 16]), agent, LedgerId([9; 16]), Timestamp(0));
        record.fence = FENCE;
        record.posted_sequence = Sequence(2);
        record.posted_end = EventNumber(9);
        record.confirm(Confirmed { ledger_time: Timestamp(5), sequence: Sequence(2), accepted: 9 });
        record
    }

    fn confirm(ledger_time: i64, sequence: u64, accepted: u64) -> Confirm {
        let (ledger_time, sequence) = (Timestamp(ledger_time), Sequence(sequence));
        Confirm { ledger_time, sequence, accepted, fence: FENCE, extras: Vec::new() }
    }

    fn close(sequence: u64, accepted: u64) -> Close {
        Close { sequence: Sequence(sequence), accepted, fence: FENCE, extras: Vec::new() }
    }

    #[test]
    fn confirmations() {
        let now = Timestamp(20);
        let check = |confirm: Confirm, expected| {
            assert_eq!(judge_confirm(Some(&known()), &confirm, now), expected, "{confirm:?}");
        };
        check(confirm(20, 4, 30), ClaimVerdict::Take);
        check(confirm(20, 2, 9), ClaimVerdict::Take);
        let claimed = Timestamp(21);
        check(confirm(21, 2, 9), ClaimVerdict::Invalid(ClaimFlaw::FromTheFuture { claimed }));
        check(
            confirm(20, 2, 8),
            ClaimVerdict::Invalid(ClaimFlaw::AcceptedFell { accepted: 8, before: 9 }),
        );
        let stale = Confirm { fence: Fence(6), ..confirm(20, 2, 9) };
        check(stale, ClaimVerdict::Fenced { current: FENCE });
        assert_eq!(judge_confirm(None, &confirm(20, 2, 9), now), ClaimVerdict::NotOpen);
    }

    #[test]
    fn an_older_ledger_time_says_nothing_new() {
        let mut record = known();
        record_confirm(&mut record, &confirm(4, 2, 9), Timestamp(20));
        assert_eq!(record.complete_through(), Some(Timestamp(5)));
        record_confirm(&mut record, &confirm(6, 2, 9), Timestamp(20));
        assert_eq!(record.complete_through(), Some(Timestamp(6)));
    }

    #[test]
    fn only_a_stream_without_remainder_closes() {
        let check = |close: Close, expected| {
            assert_eq!(judge_close(Some(&known()), &close), expected, "{close:?}")
        };
        check(close(2, 9), ClaimVerdict::Take);
        check(close(3, 9), ClaimVerdict::Gap { expected: Sequence(3) });
        let differs = ClaimFlaw::AcceptedDiffers { accepted: 10, posted: 9 };
        check(close(2, 10), ClaimVerdict::Invalid(differs));
        // A hello or a batch told of 10 accepted, which are durable: the journal was rolled back.
        let told = StreamRecord { accepted: 10, ..known() };
        let fell = ClaimVerdict::Invalid(ClaimFlaw::AcceptedFell { accepted: 9, before: 10 });
        assert_eq!(judge_close(Some(&told), &close(2, 9)), fell);
        assert_eq!(
            judge_confirm(Some(&told), &confirm(20, 2, 9), Timestamp(20)),
            ClaimVerdict::Take
        );
        check(Close { fence: Fence(8), ..close(2, 9) }, ClaimVerdict::Fenced { current: FENCE });

        let mut record = known();
        record_close(&mut record, &close(2, 9), Timestamp(20));
        assert_eq!(
            (record.state, record.complete_through()),
            (StreamState::Closed, Some(Timestamp(5)))
        );
        assert_eq!(judge_close(Some(&record), &close(2, 9)), ClaimVerdict::NotOpen);
    }
}
