//! What a person asks of an agent: how is it, and if not well, what to do.
//!
//! **Owns** the shape of `/status` (and of `status --json`), the judgement of what is wrong, in order
//! of weight, and the text for people. **Does not own** where the figures come from (`admin.rs`).
//!
//! Invariants: every figure is drawn from durable state, or from the live session; events in transit
//! are counted on their own, so that `accepted = posted + in transit` is a check and not a definition.

pub mod text;
pub mod trouble;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An agent's figures at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    pub stream: String,
    pub opening: String,
    /// The ledger that the journal is pinned to; absent before the first Welcome.
    pub ledger: Option<String>,
    pub session: Session,
    pub events: EventFigures,
    #[serde(default)]
    pub recent: Recent,
    pub backlog: Backlog,
    pub journal: JournalFigures,
    pub fsync: Fsync,
    /// From SIGTERM to the end of the process.
    #[serde(default)]
    pub shutdown_grace_millis: u64,
    /// Whether it was told to prepare for a stop: batches are sealed fast until then.
    #[serde(default)]
    pub stop_is_near: bool,
    #[serde(default)]
    pub forward: Forward,
    pub doors: BTreeMap<String, DoorStatus>,
    /// The admin address; its messages and bytes are not counted.
    #[serde(default)]
    pub admin: DoorStatus,
}

/// The session with the collector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub state: SessionState,
    /// How long there has been a session; or how long there has been none, whatever was tried.
    pub since_age_millis: u64,
    pub collector: Option<String>,
    /// `quic` or `tcp`; absent while there is no link.
    #[serde(default)]
    pub transport: Option<String>,
    /// Until the agent's newest certificate ends; below zero once it has.
    #[serde(default)]
    pub certificate_left_millis: Option<i64>,
    pub fence: Option<String>,
    /// Batches sent and not yet acknowledged.
    pub in_flight: u64,
    /// How often a collector has asked for a pause since the process began, and whether one is being kept.
    #[serde(default)]
    pub throttles: u64,
    #[serde(default)]
    pub paused: bool,
    pub rtt_micros: Option<u64>,
    /// Ledger time less the agent's clock, as last measured.
    pub clock_offset_millis: Option<i64>,
    pub last_error: Option<String>,
    /// Until the next try; absent while connected, and if there will be none.
    pub retry_in_millis: Option<u64>,
}

/// "Connected" begins with Welcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// No session, and none being made right now.
    #[default]
    Disconnected,
    Connecting,
    Connected,
    /// Ended for a reason that a person must mend.
    Stopped,
}

impl SessionState {
    /// Every state, for a metric with one series each.
    pub const ALL: [Self; 4] =
        [Self::Disconnected, Self::Connecting, Self::Connected, Self::Stopped];

    /// The state's name, in JSON, text and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Stopped => "stopped",
        }
    }
}

/// Cumulative counts of the stream, but for those in transit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFigures {
    pub accepted: u64,
    pub posted: u64,
    /// Durable and not yet sealed.
    pub in_chunks: u64,
    /// Sealed and not yet posted.
    pub in_unposted_batches: u64,
    /// Rejected events by reason; reasons that never occurred are left out.
    pub rejected: BTreeMap<String, u64>,
    pub not_metered: u64,
    pub excluded_by_metered: u64,
    pub duplicates: u64,
    pub dropped_dimensions: u64,
    /// Accepted from dead letters: counted as rejected, too, when they first came.
    #[serde(default)]
    pub replayed: u64,
    /// Of meters whose events are told apart by their ids in the whole ledger.
    #[serde(default)]
    pub without_id: u64,
    /// Datagrams that the kernel dropped.
    pub kernel_drops: u64,
    /// Numbers missing in the counters of numbered sources.
    pub source_gaps: u64,
    pub unclean_starts: u64,
}

impl EventFigures {
    /// Accepted and on their way, counted on its own.
    #[must_use]
    pub fn in_transit(&self) -> u64 {
        self.in_chunks.saturating_add(self.in_unposted_batches)
    }

    /// Rejected for whatever reason.
    #[must_use]
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().fold(0, |total, count| total.saturating_add(*count))
    }

    /// Whether what was accepted is posted or in transit, to the event.
    #[must_use]
    pub fn are_conserved(&self) -> bool {
        self.posted.checked_add(self.in_transit()) == Some(self.accepted)
    }
}

/// What of the cumulative counts was added within the last minutes: trouble that is still going on. What was
/// counted before this start of the agent is never recent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    pub window_millis: u64,
    /// By reason; reasons without any are left out.
    pub rejected: BTreeMap<String, u64>,
    pub excluded_by_metered: u64,
    pub kernel_drops: u64,
    pub source_gaps: u64,
}

/// What waits for the collector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Sealed batches that are not posted, and their bytes.
    pub batches: u64,
    pub bytes: u64,
    pub oldest_unposted_age_millis: Option<u64>,
    /// Until all that is in transit is posted, at the rate of the last minute; absent without a session, and while
    /// nothing is posted.
    #[serde(default)]
    pub drain_estimate_millis: Option<u64>,
    pub sealed_sequence: u64,
    pub posted_sequence: u64,
}

/// The journal's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalFigures {
    /// The file's length, what its rows need of it, and its budget.
    pub bytes: u64,
    pub live_bytes: u64,
    pub bytes_max: u64,
    pub full: bool,
    /// At the present growth; absent while it does not grow.
    pub time_to_full_millis: Option<u64>,
    pub retained_batches: u64,
    pub retained_bytes: u64,
    #[serde(default)]
    pub raw_events: RawEvents,
    pub dead_letters: u64,
    /// Why the journal may not be used any more.
    pub conflict: Option<String>,
    /// Why commits have ended.
    pub failed: Option<String>,
}

/// Events of sealed batches that wait for the collector's archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawEvents {
    pub batches: u64,
    pub bytes: u64,
    /// Batches of which they had to leave unarchived, since the process began.
    pub given_up: u64,
}

/// How long commits took to reach the disk, since the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fsync {
    pub count: u64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub max_micros: u64,
    #[serde(default)]
    pub sum_micros: u64,
    /// Commits by how long they took: those of each bucket, whose bounds are [`FSYNC_BOUNDS_MICROS`](crate::commit::FSYNC_BOUNDS_MICROS), and at last those
    /// that took longer.
    #[serde(default)]
    pub buckets: Vec<u64>,
}

/// Lines that are not metered and were to go to another server, since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub forwarded: u64,
    /// What could not be sent at once, is JSON, or is longer than what is kept.
    pub forward_dropped: u64,
}

/// One door since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorStatus {
    pub messages: u64,
    pub bytes: u64,
    pub truncated: u64,
    pub errors: u64,
    pub connections_open: u64,
    pub connections_accepted: u64,
    pub connections_refused: u64,
    #[serde(default)]
    pub connections_forbidden: u64,
    pub connections_timed_out: u64,
    pub kernel_drops: u64,
    /// The smallest that the kernel granted; 0 for doors that have none.
    pub receive_buffer_bytes: u64,
}
