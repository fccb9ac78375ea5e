//! What sessions and people ask of the ledger's writer, and its answers.
//!
//! **Owns** nothing but these shapes. Requests of many sessions share one transaction; each is judged
//! inside it, in the order of arrival.

use std::time::Duration;

use thiserror::Error;
use tidemark_common::batch::{
    BODY_RAW_BYTES_MAX, Body, BodyError, Evidence, HEADER_BYTES, Header, LineId,
};
use tidemark_common::id::{Digest, Fence, Sequence, StreamId};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{Close, Confirm, Hello, PostedOpening};

use crate::dedupe::Verdict;
use crate::grants::Grant;
use crate::ledger::archived::ArchiveStep;
use crate::ledger::books::{Booked, Change, Refused};
use crate::ledger::duplicates::{Suppressed, SuppressedError};
use crate::ledger::marks::{Marks, MarksError};
use crate::ledger::tail::CustomerLines;
use crate::session::claim::ClaimVerdict;
use crate::session::hello::HelloVerdict;

/// A wish to change the ledger.
#[derive(Debug)]
pub enum Request {
    Hello(Box<HelloRequest>),
    Admit(Box<Admission>),
    Confirm {
        stream: StreamId,
        confirm: Confirm,
    },
    Close {
        stream: StreamId,
        close: Close,
    },
    Book(Box<Change>),
    Archive(Box<ArchiveStep>),
    /// Streams that seem to be due; those that are not stay.
    Retire {
        streams: Vec<StreamId>,
        /// Not heard of for so long.
        after_millis: i64,
    },
}

impl Request {
    /// How much it is to write and to keep, against the writer's limit: a batch's body raw or as stored,
    /// whichever is more.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Admit(admission) => body_bytes(&admission.header),
            Self::Hello(_)
            | Self::Confirm { .. }
            | Self::Close { .. }
            | Self::Book(_)
            | Self::Archive(_)
            | Self::Retire { .. } => 0,
        }
    }

    /// The stream that it names as one of an agent's; one that has retired returns.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Hello(request) => Some(request.hello.stream),
            Self::Admit(admission) => Some(admission.header.stream),
            Self::Confirm { stream, .. } | Self::Close { stream, .. } => Some(*stream),
            Self::Book(_) | Self::Archive(_) | Self::Retire { .. } => None,
        }
    }
}

/// The greater of a body's two lengths; a raw length is believed only up to what is ever opened.
#[must_use]
pub fn body_bytes(header: &Header) -> usize {
    let length = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    length(header.stored_length).max(length(header.raw_length).min(BODY_RAW_BYTES_MAX))
}

/// A hello and who says it.
#[derive(Debug, Clone)]
pub struct HelloRequest {
    pub hello: Hello,
    /// From the session's certificate.
    pub agent: AgentName,
    /// When it was said, by [`Ledger::monotonic`](super::Ledger::monotonic).
    pub said: Duration,
}

/// A batch that asks to be admitted, its body already opened.
#[derive(Debug)]
pub struct Admission {
    pub header: Header,
    /// The header's digest.
    pub digest: Digest,
    /// Header and body as stored, verbatim.
    pub bytes: Vec<u8>,
    pub content: Opened,
    /// The sending session's fence.
    pub fence: Fence,
}

/// What opening a batch's body came to.
#[derive(Debug)]
pub enum Opened {
    Readable {
        evidence: Evidence,
        lines: CustomerLines,
        /// The lines that the sender's identity may not bill; stored with the batch.
        marks: Marks,
        /// The ids of lines that are judged by them.
        ids: Vec<LineId>,
        /// The lines whose events were admitted before; stored with the batch.
        suppressed: Suppressed,
        /// The digest of the raw events that its agent sends to the archive.
        raw_events: Option<Digest>,
    },
    /// Why the body cannot be read. It is stored, counted and visible; the stream goes on.
    Quarantined(String),
}

impl Opened {
    /// Opens the body of a batch, given as stored: header and body; judges whether its sender may bill
    /// each line.
    #[must_use]
    pub fn judge(header: &Header, bytes: &[u8], grant: &Grant<'_>) -> Self {
        match open_body(header, bytes) {
            Ok(body) => {
                let marks = Marks::of(&body.lines, |line| grant.class(&line.key));
                Self::readable(body, marks)
            }
            Err(error) => Self::Quarantined(error.to_string()),
        }
    }

    /// Opens the body of a batch that was judged before.
    ///
    /// # Errors
    /// What was judged of another batch.
    pub fn read(header: &Header, bytes: &[u8], stored: Stored<'_>) -> Result<Self, StoredError> {
        Ok(match open_body(header, bytes) {
            Ok(body) => {
                let marks = Marks::read(stored.marks, body.lines.len())?;
                let suppressed = Suppressed::read(stored.suppressed, body.lines.len())?;
                let mut opened = Self::readable(body, marks);
                opened.suppress(suppressed);
                opened
            }
            Err(error) => Self::Quarantined(error.to_string()),
        })
    }

    fn readable(body: Body, marks: Marks) -> Self {
        let lines = CustomerLines::new(body.lines, &marks);
        let (ids, suppressed) = (body.extras.line_ids().collect(), Suppressed::default());
        let raw_events = body.extras.events_digest();
        Self::Readable { evidence: body.evidence, lines, marks, ids, suppressed, raw_events }
    }

    /// Says which lines hold events that were admitted before; how many events these are.
    pub fn suppress(&mut self, found: Suppressed) -> u64 {
        match self {
            Self::Readable { lines, suppressed, .. } if !found.is_empty() => {
                *suppressed = found;
                lines.suppress(suppressed)
            }
            Self::Readable { .. } | Self::Quarantined(_) => 0,
        }
    }

    /// The lines; `None` of a body that cannot be read.
    #[must_use]
    pub fn lines(self) -> Option<CustomerLines> {
        match self {
            Self::Readable { lines, .. } => Some(lines),
            Self::Quarantined(_) => None,
        }
    }
}

/// What was judged of a batch when it was admitted, as stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stored<'a> {
    pub marks: &'a [u8],
    pub suppressed: &'a [u8],
}

/// What is stored of the judgement is not of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StoredError {
    #[error(transparent)]
    Marks(#[from] MarksError),
    #[error(transparent)]
    Suppressed(#[from] SuppressedError),
}

fn open_body(header: &Header, bytes: &[u8]) -> Result<Body, BodyError> {
    Body::open(header, bytes.get(HEADER_BYTES..).unwrap_or_default())
}

impl Admission {
    /// As [`Self::open_for`], for an identity that may bill everything.
    #[must_use]
    pub fn open(header: Header, bytes: Vec<u8>, fence: Fence) -> Self {
        Self::open_for(&Grant::All, header, bytes, fence)
    }

    /// Opens and verifies the body, and judges what its sender may bill: decompression and hashing, so not
    /// for the writer's task.
    #[must_use]
    pub fn open_for(grant: &Grant<'_>, header: Header, bytes: Vec<u8>, fence: Fence) -> Self {
        let content = Opened::judge(&header, &bytes, grant);
        Self { digest: header.digest(), header, bytes, content, fence }
    }

    /// Whether the sender may not bill some of the lines.
    #[must_use]
    pub fn has_unauthorised_lines(&self) -> bool {
        match &self.content {
            Opened::Readable { marks, .. } => !marks.is_empty(),
            Opened::Quarantined(_) => false,
        }
    }
}

/// The answer to a [`Request`], after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Welcomed(Welcomed),
    HelloRefused {
        verdict: HelloVerdict,
        posted: Sequence,
        openings: Vec<PostedOpening>,
    },
    /// The verdict on a batch, and up to where the stream is posted now. `openings` is filled for
    /// Conflict only.
    Judged {
        verdict: Verdict,
        posted: Sequence,
        openings: Vec<PostedOpening>,
    },
    Claimed(ClaimVerdict),
    Booked(Result<Booked, Refused>),
    Archived,
    /// How many streams retired.
    Retired(usize),
}

/// A session that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcomed {
    pub fence: Fence,
    pub posted_sequence: Sequence,
    pub posted_digest: Digest,
}

#[cfg(test)]
mod tests {
    use tidemark_common::id::LedgerId;

    use super::*;
    use crate::ledger::conformance::Journal;

    #[test]
    fn a_batch_counts_by_the_greater_of_its_lengths() {
        let header = Journal::new(1, LedgerId([0; 16])).seal(&[("c", "m", 1, 5)]).header;
        let check = |stored_length, raw_length, expected| {
            assert_eq!(body_bytes(&Header { stored_length, raw_length, ..header }), expected);
        };
        check(10, 100, 100);
        check(10, 5, 10);
        check(10, u32::MAX, BODY_RAW_BYTES_MAX);
        let admission = Admission::open(header, Vec::new(), Fence(0));
        let raw = usize::try_from(header.raw_length).unwrap();
        assert_eq!(Request::Admit(Box::new(admission)).bytes(), raw);
    }
}
