//! Flags and counters that intake, the commit thread and the driver share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use tidemark_common::time::Timestamp;

use super::{AtReplay, Room};

/// Flags and counters that the threads share.
#[derive(Debug)]
pub struct Shared {
    pub(super) room: Room,
    pub(super) full: AtomicBool,
    pub(super) uplink_room: AtomicBool,
    pub(super) seals_under_way: AtomicUsize,
    dropped_at_replay: AtomicU64,
    without_id_at_replay: AtomicU64,
    clock_offset_millis: AtomicI64,
    stop_is_near: AtomicBool,
    /// Whether raw events of sealed batches are to be kept, and whether the collector takes them, as far as is known.
    raw_events_wanted: bool,
    raw_events_refused: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            room: Room::default(),
            full: AtomicBool::new(false),
            uplink_room: AtomicBool::new(false),
            seals_under_way: AtomicUsize::new(0),
            dropped_at_replay: AtomicU64::new(0),
            without_id_at_replay: AtomicU64::new(0),
            clock_offset_millis: AtomicI64::new(0),
            stop_is_near: AtomicBool::new(false),
            raw_events_wanted: false,
            raw_events_refused: AtomicBool::new(false),
        }
    }
}

impl Shared {
    /// Whether the journal is at its budget.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether sealing now would not pile up: the uplink has room and no seal is under way.
    #[must_use]
    pub fn may_seal(&self) -> bool {
        self.uplink_room.load(Ordering::Relaxed)
            && self.seals_under_way.load(Ordering::Relaxed) == 0
    }

    /// Whether the agent was told that it will be stopped soon.
    #[must_use]
    pub fn is_stop_near(&self) -> bool {
        self.stop_is_near.load(Ordering::Relaxed)
    }

    pub(super) fn set_stop_near(&self) {
        self.stop_is_near.store(true, Ordering::Relaxed);
    }

    /// How much memory the open batch may take now.
    #[must_use]
    pub fn open_batch_bytes_max(&self) -> usize {
        self.room.left_for_open()
    }

    /// Takes over the offset of ledger time from the agent's clock, as last measured.
    pub fn set_clock_offset(&self, millis: i64) {
        self.clock_offset_millis.store(millis, Ordering::Relaxed);
    }

    /// Where raw events of sealed batches are kept for the collector's archive, or are not.
    #[must_use]
    pub fn with_raw_events(kept: bool) -> Self {
        Self { raw_events_wanted: kept, ..Self::default() }
    }

    /// What the last Welcome said of raw events.
    pub fn set_raw_events_taken(&self, taken: bool) {
        self.raw_events_refused.store(!taken, Ordering::Relaxed);
    }

    pub(super) fn keeps_raw_events(&self) -> bool {
        self.raw_events_wanted && !self.raw_events_refused.load(Ordering::Relaxed)
    }

    /// `clock`, corrected by the last measured offset.
    #[must_use]
    pub fn corrected(&self, clock: Timestamp) -> Timestamp {
        let corrected = clock.plus_millis(self.clock_offset_millis.load(Ordering::Relaxed));
        // Before 1970 there are no buckets.
        corrected.max(Timestamp(0))
    }

    /// What was counted when early chunks were read back, since the last call.
    pub fn take_at_replay(&self) -> AtReplay {
        AtReplay {
            dropped_dimensions: self.dropped_at_replay.swap(0, Ordering::Relaxed),
            without_id: self.without_id_at_replay.swap(0, Ordering::Relaxed),
        }
    }

    pub(super) fn count_at_replay(&self, counted: AtReplay) {
        self.dropped_at_replay.fetch_add(counted.dropped_dimensions, Ordering::Relaxed);
        self.without_id_at_replay.fetch_add(counted.without_id, Ordering::Relaxed);
    }
}
