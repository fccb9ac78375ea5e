//! What the rest of the agent asks the journal to write.
//!
//! **Owns** the shapes of [`Write`] and what each asks for. **Does not own** when a commit happens
//! (`commit.rs`) or how a write reaches the tables (`apply.rs`).

use serde::{Deserialize, Serialize};
use tidemark_common::batch::{EncodedBody, Evidence};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{EventNumber, LedgerId, OpeningId, RulesVersion, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{PostedOpening, Rules, UniqueKey};

use crate::event::{Door, IdDigest, SourceCount};

/// One change of the journal. All writes of a commit take effect together, in their order.
#[derive(Debug)]
pub enum Write {
    /// Durable events.
    Append(Append),
    /// The idempotency ids of the events appended in the same commit: one packed row.
    Ids(Vec<IdDigest>),
    /// Such a row of another journal: it goes on growing old from its own time.
    CarriedIds { at: Timestamp, ids: Vec<IdDigest> },
    /// Cumulative counts; a code never goes back, whatever is written.
    Evidence(Evidence),
    /// Rejected input, kept within its bounds; the oldest leave first.
    DeadLetters(Vec<DeadLetter>),
    /// The numbers of dead letters whose events are appended, or known duplicates, in the same commit: they
    /// leave. One that has left already is no error.
    Replayed(Vec<u64>),
    /// The last number seen of each numbered source.
    SourceCounts(Vec<SourceCount>),
    /// The next batch. Its group's chunks leave in the same commit.
    Seal(Seal),
    /// What a Welcome said.
    Welcomed(Welcomed),
    /// All batches up to this one are in the ledger.
    Posted(Sequence),
    /// The collector proved that the journal was cloned or rolled back: never open it again.
    Conflict { reason: String, answer: Option<ConflictAnswer> },
    /// The raw events of all batches up to this one are archived, or not wanted: they leave.
    Archived(Sequence),
    /// The opening ends cleanly. Appending or sealing afterwards takes it back.
    Closed,
}

/// The events of one group commit, as one chunk.
#[derive(Debug)]
pub struct Append {
    /// The open batch that the events belong to; ascending, never used again by this opening.
    pub group: u64,
    pub opening: OpeningId,
    pub rules: RulesVersion,
    /// Must be the number of events accepted so far.
    pub first_event: EventNumber,
    pub events: u32,
    /// The arrival of the oldest of the events.
    pub oldest: Timestamp,
    /// The cumulative counts once these events are durable.
    pub evidence: Evidence,
    /// Packed and compressed; up to [`super::CHUNK_PAYLOAD_BYTES_MAX`] fill a page well.
    pub bytes: Vec<u8>,
}

/// A closed batch that waits for its number.
#[derive(Debug)]
pub struct Seal {
    /// The group that the batch is made of; `None` for a batch of evidence alone, which holds no events.
    pub group: Option<u64>,
    pub opening: OpeningId,
    pub rules: RulesVersion,
    /// Must be the end of the batch sealed before.
    pub first_event: EventNumber,
    pub end_event: EventNumber,
    pub body: EncodedBody,
    pub raw_events: RawEvents,
}

/// What becomes of the chunks of a batch that is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawEvents {
    /// They stay, beside the batch, until they are archived.
    Kept,
    Dropped,
}

/// The part of a Welcome that the journal keeps.
#[derive(Debug, Clone)]
pub struct Welcomed {
    pub ledger: LedgerId,
    /// `None`: the cached rules are as new.
    pub rules: Option<Rules>,
    pub unique_key: UniqueKey,
    /// How far the ledger has posted. Lower than the journal knew: the ledger was restored from a
    /// backup, and retained batches are unposted again.
    pub posted_sequence: Sequence,
}

/// What the collector said of a journal's openings when it proved the conflict. Of an opening that was asked
/// about and is not settled, nothing is posted under the journal's stream, and nothing ever will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictAnswer {
    pub asked: Vec<OpeningId>,
    /// How far each is posted. One with nothing posted may still be, by another copy of the journal.
    pub settled: Vec<PostedOpening>,
}

impl ConflictAnswer {
    /// Whether the events of `opening` may move to another stream.
    #[must_use]
    pub fn is_free(&self, opening: OpeningId) -> bool {
        self.asked.contains(&opening) && self.posted(opening).is_none()
    }

    /// How far `opening` is posted, where the collector says that it stays.
    #[must_use]
    pub fn posted(&self, opening: OpeningId) -> Option<EventNumber> {
        self.settled.iter().find(|settled| settled.opening == opening).map(|settled| settled.end)
    }
}

/// Rejected input, to be listed and exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub at: Timestamp,
    pub door: Door,
    pub reason: EvidenceCode,
    /// The input as received.
    pub bytes: Vec<u8>,
}
