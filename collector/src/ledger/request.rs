//! What sessions ask of the ledger's writer, and its answers.
//!
//! **Owns** nothing but these shapes. Requests of many sessions share one transaction; each is judged
//! inside it, in the order of arrival.

use tidemark_common::batch::{Body, Evidence, HEADER_BYTES, Header};
use tidemark_common::id::{Digest, Fence, Sequence, StreamId};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{Close, Confirm, Hello, PostedOpening};

use crate::dedupe::Verdict;
use crate::ledger::tail::CustomerLines;
use crate::session::claim::ClaimVerdict;
use crate::session::hello::HelloVerdict;

/// One session's wish to change the ledger.
#[derive(Debug)]
pub enum Request {
    Hello(Box<HelloRequest>),
    Admit(Box<Admission>),
    Confirm { stream: StreamId, confirm: Confirm },
    Close { stream: StreamId, close: Close },
}

/// A hello and who says it.
#[derive(Debug, Clone)]
pub struct HelloRequest {
    pub hello: Hello,
    /// From the session's certificate.
    pub agent: AgentName,
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
    },
    /// Why the body cannot be read. It is stored, counted and visible; the stream goes on.
    Quarantined(String),
}

impl Opened {
    /// Opens the body of a batch, given as stored: header and body.
    #[must_use]
    pub fn read(header: &Header, bytes: &[u8]) -> Self {
        match Body::open(header, bytes.get(HEADER_BYTES..).unwrap_or_default()) {
            Ok(body) => {
                Self::Readable { evidence: body.evidence, lines: CustomerLines::new(body.lines) }
            }
            Err(error) => Self::Quarantined(error.to_string()),
        }
    }
}

impl Admission {
    /// Opens and verifies the body: decompression and hashing, so not for the writer's task.
    #[must_use]
    pub fn open(header: Header, bytes: Vec<u8>, fence: Fence) -> Self {
        let content = Opened::read(&header, &bytes);
        Self { digest: header.digest(), header, bytes, content, fence }
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
}

/// A session that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcomed {
    pub fence: Fence,
    pub posted_sequence: Sequence,
    pub posted_digest: Digest,
}
