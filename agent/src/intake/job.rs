//! What goes into intake at its start, and what it hands to the commit thread.

use std::sync::Arc;

use tidemark_common::batch::Evidence;
use tidemark_common::chunk::RawChunk;
use tidemark_common::id::{EventNumber, OpeningId, RulesVersion};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Rules, UniqueKey};

use crate::aggregate::OpenBatch;
use crate::event::{IdDigest, SourceCount, TimeLimits};
use crate::journal::DeadLetter;
use crate::parse::naming::{Naming, Patterns};

/// What intake is told once, at start.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    pub naming: Naming,
    /// Meters whose quantities may be below zero, besides those that the rules name.
    pub negative: Patterns,
    pub time: TimeLimits,
    pub linger_millis: u64,
    pub linger_max_millis: u64,
    pub open_lines_max: usize,
    pub open_chunk_bytes_max: u64,
    pub ids_max: usize,
    pub ids_window_millis: i64,
}

/// Where the journal stands as intake begins.
#[derive(Debug)]
pub struct IntakeStart {
    pub opening: OpeningId,
    pub accepted: u64,
    pub evidence: Evidence,
    pub next_group: u64,
    pub newest: Timestamp,
    pub ids: Vec<(Timestamp, Vec<IdDigest>)>,
    pub sources: Vec<SourceCount>,
    pub rules: Option<Arc<Rules>>,
    pub unique_key: Option<UniqueKey>,
}

/// What the commit thread is to do, in order.
#[derive(Debug)]
pub enum Job {
    Commit(CommitJob),
    Close(CloseJob),
}

/// Events and what commits with them.
#[derive(Debug)]
pub struct CommitJob {
    pub group: u64,
    pub opening: OpeningId,
    pub rules: RulesVersion,
    pub first_event: EventNumber,
    /// Arrival of the oldest event of the chunk.
    pub oldest: Timestamp,
    pub chunk: Option<RawChunk>,
    pub ids: Vec<IdDigest>,
    pub evidence: Evidence,
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters whose events are in the chunk: they leave with this commit.
    pub replayed: Vec<u64>,
    pub sources: Vec<SourceCount>,
}

/// A batch that takes no more events.
#[derive(Debug)]
pub struct CloseJob {
    /// `None`: evidence alone.
    pub group: Option<u64>,
    /// The aggregate; `None` if it must be made from the chunks, since rules were unknown.
    pub batch: Option<OpenBatch>,
    pub position: Position,
}

/// Where a batch stands in its stream, and the counts that it carries.
#[derive(Debug, Clone)]
pub struct Position {
    pub opening: OpeningId,
    pub rules: RulesVersion,
    pub first_event: EventNumber,
    pub end_event: EventNumber,
    pub evidence: Evidence,
}
