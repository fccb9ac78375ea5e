//! The door's figures, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use tidemark_common::time::Timestamp;

/// One count.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the door counts since it was opened.
#[derive(Debug, Default)]
pub(super) struct ListenCounters {
    pub(super) sessions_begun: Count,
    pub(super) sessions_ended: Count,
    pub(super) tcp_sessions_begun: Count,
    pub(super) tcp_sessions_ended: Count,
    pub(super) refusals: Count,
    pub(super) handshakes_failed: Count,
    pub(super) full: Count,
    pub(super) slow: Count,
    pub(super) unnamed: Count,
    pub(super) unauthorised: Count,
    pub(super) crowded_identities: Count,
    pub(super) crowded_addresses: Count,
    pub(super) streams_full: Count,
    pub(super) streams_limited: Count,
    pub(super) drainers: Count,
    pub(super) throttles: Count,
}

/// The door's figures at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenFigures {
    /// Sessions between Hello's connection and their end.
    pub sessions_open: u64,
    /// Those of them that go over TCP.
    pub tcp_sessions_open: u64,
    pub sessions_begun: u64,
    /// Sessions that the collector ended with Refuse.
    pub refusals: u64,
    pub handshakes_failed: u64,
    /// Connections refused because `sessions_max` were open, or `handshakes_max` under way.
    pub full: u64,
    /// Sessions ended because the peer did not read in time.
    pub slow: u64,
    /// Connections whose certificate names no agent.
    pub unnamed: u64,
    /// Batches with lines that their agent's identity may not bill.
    pub unauthorised: u64,
    /// Connections refused because their identity had `sessions_per_identity_max`.
    pub crowded_identities: u64,
    /// Connections refused because their address had `handshakes_per_address_max` under way.
    pub crowded_addresses: u64,
    /// New streams refused because the ledger knows `streams_max`.
    pub streams_full: u64,
    /// New streams refused because their identity has begun `streams_per_hour_max`.
    pub streams_limited: u64,
    /// Sessions of drainers, which ship the streams of others.
    pub drainers: u64,
    /// How often an agent was asked to pause.
    pub throttles: u64,
    /// Until when the certificate is valid that the next connection is shown.
    pub certified_until: Option<Timestamp>,
}

impl ListenCounters {
    pub(super) fn figures(&self, certified_until: Option<Timestamp>) -> ListenFigures {
        // Ends are read first: a session that ends in between must not make the difference negative.
        let ended = self.sessions_ended.read();
        let begun = self.sessions_begun.read();
        let tcp_ended = self.tcp_sessions_ended.read();
        let tcp_begun = self.tcp_sessions_begun.read();
        ListenFigures {
            certified_until,
            tcp_sessions_open: tcp_begun.saturating_sub(tcp_ended),
            sessions_open: begun.saturating_sub(ended),
            sessions_begun: begun,
            refusals: self.refusals.read(),
            handshakes_failed: self.handshakes_failed.read(),
            full: self.full.read(),
            slow: self.slow.read(),
            unnamed: self.unnamed.read(),
            unauthorised: self.unauthorised.read(),
            crowded_identities: self.crowded_identities.read(),
            crowded_addresses: self.crowded_addresses.read(),
            streams_full: self.streams_full.read(),
            streams_limited: self.streams_limited.read(),
            drainers: self.drainers.read(),
            throttles: self.throttles.read(),
        }
    }
}
