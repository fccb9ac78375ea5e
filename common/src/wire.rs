//! Frames between an agent and a collector, and their bounded codec.
//!
//! ```text
//! FRAME    length u32 (big-endian: type + payload), type u16 (big-endian), payload
//! type 3   Batch: header [192], body as stored. Verbatim; laid out in `batch`.
//! type 9   Events: raw events for the archive; laid out in `wire/events.rs`.
//! others   Control: bincode 2, standard configuration (little-endian varints).
//! ```
//!
//! **Owns** the frames' bytes and their limits. **Does not own** sockets, or what a frame means: the
//! two `session.rs` do.
//!
//! Invariants: decoding never panics and never trusts a length; a payload is consumed whole. Every
//! control frame ends in `extras` (tag, bytes): unknown even tags are ignored, unknown odd ones
//! refused. The order of enum variants and fields is the format: append only.

mod codec;
mod deduplicated;
mod events;
mod held;
mod rules;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::id::{
    Digest, EventNumber, Fence, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};
use crate::time::Timestamp;

pub use codec::{FrameBuffer, FrameError, decode_rules, encode_rules};
pub use events::{
    EVENTS_PIECE_BYTES_MAX, Events, EventsAck, EventsDigest, EventsPiece, events_chunks,
    put_events_chunk,
};
pub use held::FirstHeld;
pub use rules::{
    CLOUD_EVENT_METERS_MAX, CloudEventMeter, CloudEventRule, DimensionPath, MeterRule, Rules,
};

/// A control frame's payload is at most this many bytes.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;
/// A batch frame's payload (header and stored body) is at most this many bytes.
pub const BATCH_FRAME_BYTES_MAX: usize = 16 << 20;
/// Hello names at most this many openings.
pub const OPENINGS_MAX: usize = 4_096;
/// The ALPN protocol of a session.
pub const ALPN: &[u8] = b"tidemark/1";

/// In a Refuse that says Unavailable, without bytes: the session ends in good order, all that came is
/// answered, and the agent may come again at once. Whoever does not know it takes it for a failure.
pub const EXTRA_COME_AGAIN: u16 = 2;

/// One message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Agent to collector, first: what the stream holds.
    Hello(Hello),
    /// Collector to agent, answering Hello: the session's fence and where to resume.
    Welcome(Welcome),
    /// Agent to collector: one sealed batch, header and stored body, verbatim.
    Batch(Vec<u8>),
    /// Collector to agent, after its ledger commit, and every `confirm_interval`.
    Ack(Ack),
    /// Collector to agent: the session ends, and why.
    Refuse(Refuse),
    /// Agent to collector, answering the ledger time of an Ack.
    Confirm(Confirm),
    /// Agent to collector: a clean end of the opening.
    Close(Close),
    /// Collector to agent: pause.
    Throttle(Throttle),
    /// Agent to collector, where Welcome said that raw events are archived.
    Events(Events),
}

/// A tagged extension: unknown even tags are ignored, unknown odd ones refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    pub tag: u16,
    pub bytes: Vec<u8>,
}

/// What the agent's journal holds of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest batch header and body versions that the agent can seal.
    pub header_version: u16,
    pub body_version: u16,
    pub stream: StreamId,
    /// The ledger that the journal is pinned to, once it has heard from one.
    pub ledger: Option<LedgerId>,
    /// The opening that this process made.
    pub opening: OpeningId,
    /// The highest sequence that the agent knows to be posted, and that batch's digest.
    pub posted_sequence: Sequence,
    pub posted_digest: Digest,
    /// The highest sequence that the journal has sealed.
    pub sealed_sequence: Sequence,
    /// Events that the stream has accepted, ever.
    pub accepted: u64,
    /// The version of the rules that the journal has cached; 0 for none.
    pub rules_version: RulesVersion,
    /// The openings whose events the journal still holds, oldest first.
    pub openings: Vec<HeldOpening>,
    /// The agent's clock, for measuring its offset from ledger time.
    pub clock: Timestamp,
    /// A bearer token, where the collector does not ask for client certificates.
    pub token: Option<String>,
    /// The agent's version, for people.
    pub agent: String,
    pub extras: Vec<Extra>,
}

/// The events of one opening that a journal holds, sealed or not: [first, end).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOpening {
    pub opening: OpeningId,
    pub first: EventNumber,
    pub end: EventNumber,
}

/// The answer to Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub ledger: LedgerId,
    pub fence: Fence,
    /// The highest sequence that the ledger has posted of the stream, and that batch's digest (the
    /// genesis digest for sequence 0). The agent resumes after it.
    pub posted_sequence: Sequence,
    pub posted_digest: Digest,
    pub ledger_time: Timestamp,
    /// The newest batch versions that the collector reads; agents seal no newer ones.
    pub header_version: u16,
    pub body_version: u16,
    /// The current rules, unless the agent's are as new.
    pub rules: Option<Rules>,
    /// The key that unique values are digested with.
    pub unique_key: UniqueKey,
    /// At most this many batches may be sent and not yet acknowledged.
    pub batches_in_flight_max: u32,
    pub extras: Vec<Extra>,
}

/// The ledger's key for digests of unique values.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKey {
    pub id: u16,
    pub key: [u8; 32],
}

impl std::fmt::Debug for UniqueKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UniqueKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All batches of the stream up to `posted_sequence` are in the ledger, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub posted_sequence: Sequence,
    pub ledger_time: Timestamp,
    /// Whether the agent is asked to answer with Confirm for this ledger time.
    pub confirm: bool,
    pub extras: Vec<Extra>,
}

/// Why the collector ends a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    pub reason: RefuseReason,
    /// What happened and what to do, for people.
    pub message: String,
    pub extras: Vec<Extra>,
}

/// What the agent must make of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefuseReason {
    /// A batch came before the one that was due: resume from `expected`.
    Gap { expected: Sequence },
    /// The journal was cloned or rolled back. Stop; set it aside.
    Conflict { sequence: Sequence, openings: Vec<PostedOpening> },
    /// A newer session holds the stream.
    Fenced { current: Fence },
    /// A frame or header that cannot be read or does not hold together. Stop; a person is needed.
    Invalid,
    /// The identity may not do this.
    Unauthorized,
    /// The batch is for another ledger.
    OtherLedger { ledger: LedgerId },
    /// The collector is stopping or cannot write now. Come again.
    Unavailable,
}

/// How far the ledger has posted one opening's events: all before `end`. In the answer to a Hello in conflict,
/// an opening with nothing posted is named where another copy of the journal may still ship it; one that is left
/// out never will be posted under this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostedOpening {
    pub opening: OpeningId,
    pub end: EventNumber,
}

/// All that the agent accepted before `ledger_time` is in sequences up to `sequence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    pub ledger_time: Timestamp,
    pub sequence: Sequence,
    /// Events that the stream had accepted, ever, at that barrier.
    pub accepted: u64,
    pub fence: Fence,
    pub extras: Vec<Extra>,
}

/// A clean end of the opening: nothing accepted is left beyond `sequence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    pub sequence: Sequence,
    pub accepted: u64,
    pub fence: Fence,
    pub extras: Vec<Extra>,
}

/// Send nothing for this long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    pub pause_millis: u32,
    pub extras: Vec<Extra>,
}
