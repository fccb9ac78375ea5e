//! What the journal knows of itself without reading rows: kept by each commit, recounted at each start.
//!
//! **Owns** the figures that status, metrics and the uplink show. **Does not own** how they change
//! (`apply.rs`) or how they are recounted (`recover.rs`).
//!
//! Invariants: `accepted`, `posted_events`, `events_in_chunks` and `events_in_unposted_batches` are each
//! counted on their own, so that `accepted = posted + chunks + batches` is a check and not a definition.

use std::path::PathBuf;

use tidemark_common::batch::Evidence;
use tidemark_common::id::{
    Digest, EventNumber, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{HeldOpening, Rules, UniqueKey};

use super::budget::Budget;
use crate::event::{IdDigest, SourceCount};

/// The limits of one journal.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    pub path: PathBuf,
    /// The file's length stays under this; see `budget.rs`. At least [`super::JOURNAL_BYTES_MIN`].
    pub bytes_max: u64,
    /// Posted batches are kept this long, and up to this many bytes, while there is room.
    pub retain_acked_millis: i64,
    pub retain_acked_bytes_max: u64,
    /// Idempotency ids are kept up to this many, and this long; whole rows leave, oldest first.
    pub ids_max: usize,
    pub ids_window_millis: i64,
    /// Dead letters are kept up to this many, and this many bytes together.
    pub dead_letters_max: usize,
    pub dead_letter_bytes_max: usize,
    /// Raw events of sealed batches are kept up to this many bytes; 0: none.
    pub raw_events_bytes_max: u64,
}

/// Random ids made by the caller: the stream's is used if the journal is new, the opening's always.
#[derive(Debug, Clone, Copy)]
pub struct FreshIds {
    pub stream: StreamId,
    pub opening: OpeningId,
}

/// The journal's figures after its last commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalState {
    pub stream: StreamId,
    pub opening: OpeningId,
    /// The ledger that the journal is pinned to, from its first Welcome on.
    pub ledger: Option<LedgerId>,
    pub sealed_sequence: Sequence,
    /// The digest of the last sealed batch; the genesis digest before the first, zeros before a ledger is known.
    pub sealed_digest: Digest,
    pub posted_sequence: Sequence,
    pub posted_digest: Digest,
    /// Events that the stream has accepted, ever; the next one's number.
    pub accepted: u64,
    /// Events in sealed batches, ever; the number that the next batch begins with.
    pub sealed_events: u64,
    pub posted_events: u64,
    pub events_in_chunks: u64,
    pub events_in_unposted_batches: u64,
    /// Stored bytes of the chunks.
    pub chunk_bytes: u64,
    /// Sealed batches that are not posted, and their frozen bytes.
    pub backlog_batches: u64,
    pub backlog_bytes: u64,
    /// The arrival of the oldest event that is not posted.
    pub oldest_unposted: Option<Timestamp>,
    /// Posted batches that are kept, and their frozen bytes.
    pub retained_batches: u64,
    pub retained_bytes: u64,
    /// The file's length, what its rows need of it, and its budget.
    pub file_bytes: u64,
    pub live_bytes: u64,
    pub bytes_max: u64,
    /// The doors are asked to stop.
    pub full: bool,
    pub evidence: Evidence,
    pub ids: u64,
    pub dead_letters: u64,
    pub dead_letter_bytes: u64,
    /// Why the journal may not be used any more.
    pub conflict: Option<String>,
    /// The openings whose events are not known to be posted, oldest first.
    pub held: Vec<HeldOpening>,
    pub raw_events: RawEventsHeld,
}

/// Raw events of sealed batches that wait for the collector's archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawEventsHeld {
    pub batches: u64,
    pub bytes: u64,
    /// The first and the last batch of which there are some.
    pub first: Option<Sequence>,
    pub last: Option<Sequence>,
    /// Batches whose raw events had to leave before they were archived, since the journal was opened.
    pub given_up: u64,
}

/// What a start finds in the file.
#[derive(Debug)]
pub struct Recovered {
    pub state: JournalState,
    pub rules: Option<Rules>,
    pub unique_key: Option<UniqueKey>,
    /// Rows of ids, oldest first.
    pub ids: Vec<(Timestamp, Vec<IdDigest>)>,
    /// Groups that are not sealed, oldest first: seal them before anything new.
    pub groups: Vec<Group>,
    pub next_group: u64,
    /// The last number seen of each numbered source.
    pub sources: Vec<SourceCount>,
    /// The opening before ended with a Close; true for a new journal.
    pub clean: bool,
    /// The latest commit's time. A clock behind it rejects nothing.
    pub newest: Timestamp,
}

/// The chunks of one batch that is still to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub group: u64,
    pub opening: OpeningId,
    pub rules: RulesVersion,
    pub first_event: EventNumber,
    pub end_event: EventNumber,
    pub chunks: u32,
    /// Stored bytes.
    pub bytes: u64,
    /// The cumulative counts once its last event was durable.
    pub evidence: Evidence,
    /// The arrival of its oldest event.
    pub oldest: Timestamp,
}

impl JournalState {
    /// The bytes of rows at which the journal calls itself full, while its batches are small.
    #[must_use]
    pub fn full_at_bytes(&self) -> u64 {
        Self::full_at(self.bytes_max)
    }

    /// The same for any budget.
    #[must_use]
    pub fn full_at(bytes_max: u64) -> u64 {
        Budget::new(bytes_max).full_at(0)
    }

    /// Takes note that events up to `end` of `opening` are held.
    pub(super) fn hold(&mut self, opening: OpeningId, first: EventNumber, end: EventNumber) {
        if first == end {
            return;
        }
        match self.held.last_mut() {
            Some(held) if held.opening == opening => held.end = end,
            Some(_) | None => self.held.push(HeldOpening { opening, first, end }),
        }
    }

    /// Takes note that all events before `end` are posted.
    pub(super) fn release(&mut self, end: EventNumber) {
        self.held.retain_mut(|held| {
            held.first = held.first.max(end);
            held.first < held.end
        });
    }
}
