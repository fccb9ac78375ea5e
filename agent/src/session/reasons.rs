//! Why a session ends, in words that say what a person can do.

use tidemark_common::batch::{BODY_VERSION, HEADER_VERSION};
use tidemark_common::id::{Digest, LedgerId, OpeningId, Sequence, StreamId};
use tidemark_common::wire::{EXTRA_COME_AGAIN, Frame, Refuse, RefuseReason};

use super::FENCED_IN_A_ROW_MAX;
use super::backoff::Retry;
use crate::journal::ConflictAnswer;

/// What ends a session.
#[derive(Debug)]
pub(super) enum Fault {
    Leave(Leave),
    /// What was found, and what the collector said of the openings; the journal takes no further part.
    Conflict {
        found: String,
        answer: Option<ConflictAnswer>,
    },
    /// The journal and the ledger differ at this sequence: a Hello that says so has the collector judge.
    Accuse {
        found: String,
        accusation: Accusation,
    },
}

/// What the journal holds where the ledger holds something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accusation {
    pub(super) sequence: Sequence,
    pub(super) digest: Digest,
}

/// Why a session is given up; no reason for one that ends in good order.
#[derive(Debug, Clone)]
pub(super) struct Leave {
    pub(super) retry: Retry,
    pub(super) reason: Option<String>,
}

impl Leave {
    pub(super) fn soon(reason: impl Into<String>) -> Self {
        Self { retry: Retry::Soon, reason: Some(reason.into()) }
    }

    /// In good order: the session has reached its age, at this end or at the other.
    pub(super) fn aged() -> Self {
        Self { retry: Retry::Again, reason: None }
    }

    /// As every other agent of this collector must.
    pub(super) fn soon_with_others(reason: impl Into<String>) -> Self {
        Self { retry: Retry::SoonWithOthers, reason: Some(reason.into()) }
    }

    pub(super) fn late(reason: impl Into<String>) -> Self {
        Self { retry: Retry::Late, reason: Some(reason.into()) }
    }
}

/// What the agent makes of a refusal. `fenced` counts the sessions in a row that ended as fenced; `asked` are
/// the openings of the Hello that is refused, `None` if it was welcome.
pub(super) fn refused(
    refuse: &Refuse,
    pinned: Option<LedgerId>,
    fenced: u32,
    asked: Option<&[OpeningId]>,
) -> Fault {
    let message = &refuse.message;
    Fault::Leave(match &refuse.reason {
        RefuseReason::Gap { expected } => Leave::soon(format!(
            "the collector asks again for the batches from {expected} on: {message}"
        )),
        RefuseReason::Conflict { sequence, .. } if asked.is_none() => Leave::soon(format!(
            "the ledger knows batch {sequence} otherwise ({message}): the next Hello asks what it has posted"
        )),
        RefuseReason::Conflict { sequence, openings } => {
            let posted: String = openings
                .iter()
                .map(|posted| {
                    format!(
                        "; of opening {} it has posted the events below {}",
                        posted.opening, posted.end
                    )
                })
                .collect();
            return Fault::Conflict {
                found: format!(
                    "the ledger knows it otherwise at sequence {sequence}{posted} ({message})"
                ),
                answer: asked.map(|asked| ConflictAnswer {
                    asked: asked.to_vec(),
                    settled: openings.clone(),
                }),
            };
        }
        RefuseReason::Fenced { current } if fenced >= FENCED_IN_A_ROW_MAX => Leave::soon(format!(
            "another session took over the stream (fence {current}), {fenced} times in a row: another agent is running on \
             a copy of this journal; stop one of the two"
        )),
        RefuseReason::Fenced { current } => {
            Leave::soon(format!("a newer session holds the stream (fence {current})"))
        }
        RefuseReason::Invalid => Leave::late(format!(
            "the collector cannot read what this agent sends: {message}; the batches stay on disk; upgrade the collector, \
             or report this as a defect"
        )),
        RefuseReason::Unauthorized => Leave::late(format!(
            "the collector does not let this agent in: {message}; check the name in its certificate \
             (tidemark://agent/NAME), or renew it"
        )),
        RefuseReason::OtherLedger { ledger } => match pinned {
            Some(pinned) => other_ledger(pinned, *ledger),
            None => Leave::late(format!("the collector keeps ledger {ledger}: {message}")),
        },
        RefuseReason::Unavailable
            if refuse.extras.iter().any(|extra| extra.tag == EXTRA_COME_AGAIN) =>
        {
            Leave::aged()
        }
        RefuseReason::Unavailable => {
            Leave::soon_with_others(format!("the collector is not available now: {message}"))
        }
    })
}

/// The collector reads no batches as new as this agent's.
pub(super) fn too_new(header_version: u16, body_version: u16) -> Leave {
    Leave::late(format!(
        "the collector reads batches up to version {header_version}.{body_version}, and this agent seals \
         {HEADER_VERSION}.{BODY_VERSION}: upgrade the collectors first"
    ))
}

pub(super) fn hole(first: Sequence, last: Sequence) -> Leave {
    Leave::late(format!(
        "the ledger lacks batches {first} to {last}, which this journal held once and has forgotten as posted: nothing \
         is sent over a hole; restore a newer backup of the ledger, or declare the range lost there"
    ))
}

pub(super) fn other_ledger(pinned: LedgerId, found: LedgerId) -> Leave {
    Leave::late(format!(
        "this journal belongs to ledger {pinned}, and the collector keeps {found}: nothing is sent; correct the \
         collector's address, or give this agent another journal"
    ))
}

pub(super) fn conflict_message(stream: StreamId, found: &str) -> String {
    format!(
        "stream {stream} is in conflict: {found}. The journal was cloned or rolled back. The agent's next start sets \
         the journal's file aside and begins a new stream with what is known not to be posted. What cannot be told posted \
         from unposted stays in that file: keep it, and see `tidemark-agent export`"
    )
}

pub(super) fn frame_name(frame: &Frame) -> &'static str {
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
