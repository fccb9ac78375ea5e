//! How the uplink stands, for the admin door.

use std::time::Duration;

use tidemark_common::id::{Fence, LedgerId};
use tidemark_common::time::Timestamp;

use crate::session::{Monotonic, SessionState, SessionStatus};
use crate::uplink::chooser::Transport;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkStatus {
    pub state: UplinkState,
    /// When it came into this state.
    pub since: Timestamp,
    /// The collector in use, or next to be tried.
    pub collector: String,
    /// What carries the link, while there is one.
    pub transport: Option<Transport>,
    /// Until when the agent's newest certificate is valid.
    pub certified_until: Option<Timestamp>,
    /// The ledger that the journal is pinned to.
    pub ledger: Option<LedgerId>,
    /// The session's fence, while it is live.
    pub fence: Option<Fence>,
    /// Batches sent and not acknowledged.
    pub in_flight: u64,
    /// How often a collector has asked for a pause, and whether one is being kept.
    pub throttles: u64,
    pub is_paused: bool,
    /// What went wrong last, even if it goes well again.
    pub last_error: Option<String>,
    pub rtt_micros: Option<u64>,
    /// Ledger time minus this agent's clock, as last measured.
    pub clock_offset_millis: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkState {
    Connecting,
    /// Batches flow.
    Live,
    /// Tried again at `until`.
    Backoff {
        until: Timestamp,
    },
    /// All is posted and the stream is closed: the agent is leaving.
    Closed,
    /// Nothing is sent until somebody acts. Tried again at `until`, if at all.
    Stopped {
        reason: String,
        until: Option<Timestamp>,
    },
}

impl UplinkState {
    /// The state's name, as metric label and in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Backoff { .. } => "backoff",
            Self::Closed => "closed",
            Self::Stopped { .. } => "stopped",
        }
    }
}

impl UplinkStatus {
    pub(super) fn beginning(since: Timestamp) -> Self {
        Self {
            state: UplinkState::Connecting,
            since,
            collector: String::new(),
            transport: None,
            certified_until: None,
            ledger: None,
            fence: None,
            in_flight: 0,
            throttles: 0,
            is_paused: false,
            last_error: None,
            rtt_micros: None,
            clock_offset_millis: None,
        }
    }

    /// Takes over how the session stands; true if anything is new. Logs a change of state, which is
    /// where a lost link or a refusal is handled.
    pub(super) fn update(
        &mut self,
        session: SessionStatus,
        collector: String,
        link: Option<(Transport, Option<Duration>)>,
        certified_until: Option<Timestamp>,
        clock: Timestamp,
        wall: impl Fn(Monotonic) -> Timestamp,
    ) -> bool {
        let state = match session.state {
            SessionState::Connecting => UplinkState::Connecting,
            SessionState::Live => UplinkState::Live,
            SessionState::Backoff { until } => UplinkState::Backoff { until: wall(until) },
            SessionState::Closed => UplinkState::Closed,
            SessionState::Stopped { until } => UplinkState::Stopped {
                reason: session.last_error.clone().unwrap_or_default(),
                until: until.map(&wall),
            },
        };
        let same_kind = state.name() == self.state.name();
        let new = Self {
            // The wall clock moves under a deadline; the one first told stands.
            state: if same_kind && session.last_error == self.last_error {
                self.state.clone()
            } else {
                state
            },
            since: if same_kind { self.since } else { clock },
            collector,
            transport: link.map(|(transport, _)| transport),
            certified_until,
            ledger: session.ledger,
            fence: session.fence,
            in_flight: session.in_flight,
            throttles: session.throttles,
            is_paused: session.is_paused,
            last_error: session.last_error,
            rtt_micros: link
                .and_then(|(_, round_trip)| round_trip)
                .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            clock_offset_millis: session.clock_offset_millis,
        };
        if !same_kind {
            new.log();
        }
        let news = new != *self;
        *self = new;
        news
    }

    fn log(&self) {
        let (collector, error) = (&self.collector, self.last_error.as_deref());
        match &self.state {
            UplinkState::Connecting => tracing::debug!(collector, "uplink connecting"),
            UplinkState::Live => {
                tracing::info!(
                    collector,
                    transport = self.transport.map(Transport::name),
                    fence = self.fence.map(|fence| fence.to_string()),
                    "uplink live"
                );
            }
            UplinkState::Backoff { .. } => {
                tracing::warn!(next = collector, error, "uplink down, trying again")
            }
            UplinkState::Closed => tracing::info!(collector, "stream closed, all is posted"),
            UplinkState::Stopped { reason, .. } => tracing::error!(reason, "uplink stopped"),
        }
    }
}
