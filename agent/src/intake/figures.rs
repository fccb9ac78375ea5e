//! What passes through each door, counted for `/metrics`.
//!
//! **Owns** the counters. **Does not own** what becomes of an event (evidence counts that, durably).
//!
//! These figures begin at zero with the process; nothing that is billed or proved depends on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::Door;

/// One set of counters for each door.
#[derive(Debug, Default)]
pub struct DoorFigures {
    udp: Arc<DoorCounts>,
    unix_datagram: Arc<DoorCounts>,
    dsd_stream: Arc<DoorCounts>,
    events: Arc<DoorCounts>,
    http: Arc<DoorCounts>,
    /// Lines that are not metered and were sent on, and those that could not be: the kernel did not take them at once,
    /// or they are JSON or longer than what is kept.
    pub forwarded: Count,
    pub forward_dropped: Count,
}

impl DoorFigures {
    #[must_use]
    pub fn of(&self, door: Door) -> &DoorCounts {
        self.held(door)
    }

    /// One door's counters, for whoever outlives a borrow.
    #[must_use]
    pub fn shared(&self, door: Door) -> Arc<DoorCounts> {
        Arc::clone(self.held(door))
    }

    fn held(&self, door: Door) -> &Arc<DoorCounts> {
        match door {
            Door::Udp => &self.udp,
            Door::UnixDatagram => &self.unix_datagram,
            Door::DsdStream => &self.dsd_stream,
            Door::Events => &self.events,
            Door::Http => &self.http,
        }
    }
}

/// What one door has seen since the process began.
#[derive(Debug, Default)]
pub struct DoorCounts {
    /// Connections that are open now.
    pub connections_open: Count,
    /// Connections that were served or are being served.
    pub connections_accepted: Count,
    /// Connections closed at once, because as many as are allowed were open.
    pub connections_refused: Count,
    /// Connections closed at once, because their user is none of `peer_uids`.
    pub connections_forbidden: Count,
    /// Connections closed because the client did not read its answers, began what it did not end, or was silent while
    /// its place was needed.
    pub connections_timed_out: Count,
    /// Datagrams, frames, lines that are not blank, or requests.
    pub messages: Count,
    /// Payload bytes.
    pub bytes: Count,
    /// Datagrams that were longer than the agent reads.
    pub truncated: Count,
    /// Receive or accept calls that failed; the door stays open.
    pub errors: Count,
    /// Datagrams that the kernel dropped since its socket was made.
    pub kernel_drops: Count,
    /// The smallest receive buffer that the kernel granted to one of the door's sockets.
    pub receive_buffer_bytes: Count,
}

/// A number that many tasks write and one reads now and then.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds a length in memory.
    pub fn add_len(&self, more: usize) {
        self.add(u64::try_from(more).unwrap_or(u64::MAX));
    }

    /// # Panics
    /// In tests, when more is taken than was added.
    pub fn subtract(&self, less: u64) {
        let before = self.0.fetch_sub(less, Ordering::Relaxed);
        debug_assert!(before >= less, "{before} is not less than {less}");
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
