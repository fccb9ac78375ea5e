//! The figures of a running agent, drawn together from its parts.
//!
//! **Owns** what must be watched over time to be told: since when there has been no session, and how
//! the backlog and the counts of trouble grow. **Does not own** the parts.
//!
//! Gauges come from the journal's durable state; only sessions, doors and fsync times are of this
//! process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemark_common::batch::Evidence;
use tidemark_common::code::EvidenceCode;
use tidemark_common::time::Timestamp;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::lately::{Lately, WINDOW_MILLIS};
use super::pace::Pace;
use super::replay::{ReplayAnswer, ReplayAsked, ReplayError, Replayer};
use super::{DeadLetterShown, Later, Observe, Verdict};
use crate::commit::{CommitHandle, FsyncFigures};
use crate::driver::{UplinkState, UplinkStatus};
use crate::event::Door;
use crate::inspect::JournalSeen;
use crate::intake::core::STOP_NEAR_SEAL_MILLIS;
use crate::intake::figures::{DoorCounts, DoorFigures};
use crate::journal::JournalState;
use crate::status::{
    Backlog, DoorStatus, EventFigures, Forward, Fsync, JournalFigures, RawEvents, Recent, Session,
    SessionState, Status,
};

/// How often growth is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Whether applications can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doors {
    Opening,
    Open,
    Closed,
}

/// The parts that are observed.
#[derive(Debug)]
pub struct Parts {
    pub commit: CommitHandle,
    pub uplink: watch::Receiver<UplinkStatus>,
    pub figures: Arc<DoorFigures>,
    /// Of the admin address.
    pub admin: Arc<DoorCounts>,
    pub doors: watch::Receiver<Doors>,
    pub replayer: Replayer,
    pub shutdown_grace: Duration,
    /// Reads the wall clock.
    pub clock: fn() -> Timestamp,
}

/// Observes a running agent.
#[derive(Debug)]
pub struct Observer {
    parts: Parts,
    watched: Mutex<Watched>,
}

/// What one look cannot tell.
#[derive(Debug)]
struct Watched {
    growth: Pace,
    posting: Pace,
    lately: Lately,
    /// Whether the session was live, and since when it has or has not been.
    live: bool,
    since: Timestamp,
}

impl Watched {
    fn see_session(&mut self, live: bool, now: Timestamp) {
        if live != self.live {
            self.live = live;
            self.since = now;
        }
    }

    /// Until all that is in transit is posted; `None` without a session, or while nothing is posted.
    fn drain_estimate_millis(&self, journal: &JournalState) -> Option<u64> {
        match journal.events_in_chunks.saturating_add(journal.events_in_unposted_batches) {
            0 => Some(0),
            waiting => self.posting.millis_by(waiting).filter(|_| self.live),
        }
    }
}

impl Observer {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let since = (parts.clock)();
        let evidence = parts.commit.state().borrow().evidence.clone();
        let lately = Lately::new(since, evidence);
        let watched = Watched {
            growth: Pace::of_growth(),
            posting: Pace::of_posting(),
            lately,
            live: false,
            since,
        };
        Self { parts, watched: Mutex::new(watched) }
    }

    /// Watches until the uplink is gone. Spawn it beside the server.
    pub async fn watch(&self) {
        let mut uplink = self.parts.uplink.clone();
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look();
            tokio::select! {
                _ = ticks.tick() => {}
                changed = uplink.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes note of how things stand now.
    fn look(&self) {
        let now = (self.parts.clock)();
        let live = is_live(&self.parts.uplink.borrow());
        let journal = Arc::clone(&self.parts.commit.state().borrow());
        let mut watched = self.watched();
        watched.see_session(live, now);
        watched.growth.observe(now, needed(&journal));
        watched.posting.observe(now, journal.posted_events);
        watched.lately.observe(now, &journal.evidence);
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        // Whatever was cut short has left figures that can be shown.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why commits have ended, if they have: the commit thread publishes for as long as it lives.
    fn commits_ended(&self) -> Option<String> {
        let ended = self.parts.commit.state().has_changed().is_err();
        ended.then(|| "the commit thread has ended; its error is in the log".to_owned())
    }
}

impl Observe for Observer {
    fn status(&self) -> Status {
        let now = (self.parts.clock)();
        let journal = Arc::clone(&self.parts.commit.state().borrow());
        let uplink = self.parts.uplink.borrow().clone();
        let mut watched = self.watched();
        watched.see_session(is_live(&uplink), now);
        let observed = Observed {
            now,
            journal: &journal,
            fsync: self.parts.commit.fsync(),
            uplink: &uplink,
            session_since: watched.since,
            time_to_full_millis: watched.growth.millis_to(journal.full_at_bytes()),
            drain_estimate_millis: watched.drain_estimate_millis(&journal),
            shutdown_grace: self.parts.shutdown_grace,
            stop_is_near: self.parts.commit.is_stop_near(),
            lately: &watched.lately.added(&journal.evidence),
            failed: self.commits_ended(),
            figures: &self.parts.figures,
            admin: &self.parts.admin,
        };
        observed.status()
    }

    fn health(&self) -> Verdict {
        self.commits_ended().map_or(Verdict::Yes, Verdict::No)
    }

    fn readiness(&self) -> Verdict {
        if let Some(failed) = self.commits_ended() {
            return Verdict::No(failed);
        }
        match *self.parts.doors.borrow() {
            Doors::Open => Verdict::Yes,
            Doors::Opening => Verdict::No("starting: the doors are not open yet".to_owned()),
            Doors::Closed => Verdict::No("stopping: the doors are closed".to_owned()),
        }
    }

    fn dead_letters(&self, from: u64, limit: usize) -> Result<Vec<DeadLetterShown>, String> {
        let letters = self
            .parts
            .commit
            .reader()
            .dead_letters(from, limit)
            .map_err(|error| error.to_string())?;
        Ok(letters.into_iter().map(DeadLetterShown::from).collect())
    }

    fn journal(&self) -> JournalSeen {
        let state = Arc::clone(&self.parts.commit.state().borrow());
        JournalSeen {
            reader: self.parts.commit.reader(),
            file_bytes: state.file_bytes,
            bytes_max: Some(state.bytes_max),
        }
    }

    fn prepare_stop(&self) -> u64 {
        if !self.parts.commit.is_stop_near() {
            tracing::info!("told that a stop is near: batches are sealed fast until then");
            self.parts.commit.prepare_stop();
        }
        STOP_NEAR_SEAL_MILLIS
    }

    fn replay(&self, asked: ReplayAsked) -> Later<Result<ReplayAnswer, ReplayError>> {
        let replayer = self.parts.replayer.clone();
        Box::pin(async move { replayer.replay(asked).await })
    }
}

/// All that a status is made of, at one instant.
#[derive(Debug)]
pub struct Observed<'a> {
    pub now: Timestamp,
    pub journal: &'a JournalState,
    pub fsync: FsyncFigures,
    pub uplink: &'a UplinkStatus,
    /// Since when there has, or has not, been a session.
    pub session_since: Timestamp,
    pub time_to_full_millis: Option<u64>,
    pub drain_estimate_millis: Option<u64>,
    pub shutdown_grace: Duration,
    pub stop_is_near: bool,
    /// What of the evidence was added within [`WINDOW_MILLIS`].
    pub lately: &'a Evidence,
    pub failed: Option<String>,
    pub figures: &'a DoorFigures,
    pub admin: &'a DoorCounts,
}

impl Observed<'_> {
    /// The figures in the shape that is shown.
    #[must_use]
    pub fn status(&self) -> Status {
        let journal = self.journal;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stream: journal.stream.to_string(),
            opening: journal.opening.to_string(),
            ledger: journal.ledger.map(|ledger| ledger.to_string()),
            session: self.session(),
            events: events(journal),
            recent: recent(self.lately),
            backlog: Backlog {
                batches: journal.backlog_batches,
                bytes: journal.backlog_bytes,
                drain_estimate_millis: self.drain_estimate_millis,
                oldest_unposted_age_millis: journal.oldest_unposted.map(|oldest| self.age(oldest)),
                sealed_sequence: journal.sealed_sequence.0,
                posted_sequence: journal.posted_sequence.0,
            },
            journal: self.journal(),
            fsync: Fsync {
                count: self.fsync.count,
                p50_micros: self.fsync.p50_micros,
                p99_micros: self.fsync.p99_micros,
                max_micros: self.fsync.max_micros,
                sum_micros: self.fsync.sum_micros,
                buckets: self.fsync.buckets.to_vec(),
            },
            shutdown_grace_millis: u64::try_from(self.shutdown_grace.as_millis())
                .unwrap_or(u64::MAX),
            stop_is_near: self.stop_is_near,
            forward: Forward {
                forwarded: self.figures.forwarded.value(),
                forward_dropped: self.figures.forward_dropped.value(),
            },
            doors: Door::ALL
                .map(|door| (door.name().to_owned(), door_status(self.figures.of(door))))
                .into(),
            admin: door_status(self.admin),
        }
    }

    fn session(&self) -> Session {
        let uplink = self.uplink;
        let (state, retry) = match &uplink.state {
            UplinkState::Live => (SessionState::Connected, None),
            UplinkState::Connecting => (SessionState::Connecting, None),
            UplinkState::Closed => (SessionState::Disconnected, None),
            UplinkState::Backoff { until } => (SessionState::Disconnected, Some(*until)),
            UplinkState::Stopped { reason: _, until } => (SessionState::Stopped, *until),
        };
        Session {
            state,
            since_age_millis: self.age(self.session_since),
            collector: Some(uplink.collector.clone()).filter(|collector| !collector.is_empty()),
            transport: uplink.transport.map(|transport| transport.name().to_owned()),
            certificate_left_millis: uplink
                .certified_until
                .map(|until| until.millis_since(self.now)),
            fence: uplink.fence.map(|fence| fence.to_string()),
            in_flight: uplink.in_flight,
            throttles: uplink.throttles,
            paused: uplink.is_paused,
            rtt_micros: uplink.rtt_micros,
            clock_offset_millis: uplink.clock_offset_millis,
            last_error: uplink.last_error.clone(),
            retry_in_millis: retry
                .map(|until| u64::try_from(until.millis_since(self.now)).unwrap_or(0)),
        }
    }

    fn journal(&self) -> JournalFigures {
        let journal = self.journal;
        JournalFigures {
            bytes: journal.file_bytes,
            live_bytes: journal.live_bytes,
            bytes_max: journal.bytes_max,
            full: journal.full,
            time_to_full_millis: self.time_to_full_millis,
            retained_batches: journal.retained_batches,
            retained_bytes: journal.retained_bytes,
            raw_events: RawEvents {
                batches: journal.raw_events.batches,
                bytes: journal.raw_events.bytes,
                given_up: journal.raw_events.given_up,
            },
            dead_letters: journal.dead_letters,
            conflict: journal.conflict.clone(),
            failed: self.failed.clone(),
        }
    }

    /// How long ago; 0 for what a clock that was set back calls the future.
    fn age(&self, then: Timestamp) -> u64 {
        u64::try_from(self.now.millis_since(then)).unwrap_or(0)
    }
}

fn events(journal: &JournalState) -> EventFigures {
    let evidence = &journal.evidence;
    let count = |code| count(evidence, code);
    EventFigures {
        accepted: journal.accepted,
        posted: journal.posted_events,
        in_chunks: journal.events_in_chunks,
        in_unposted_batches: journal.events_in_unposted_batches,
        rejected: rejected(evidence),
        not_metered: count(EvidenceCode::NotMetered),
        excluded_by_metered: count(EvidenceCode::ExcludedByMetered),
        duplicates: count(EvidenceCode::Duplicates),
        dropped_dimensions: count(EvidenceCode::DroppedDimensions),
        replayed: count(EvidenceCode::Replayed),
        without_id: count(EvidenceCode::WithoutId),
        kernel_drops: count(EvidenceCode::KernelDrops),
        source_gaps: count(EvidenceCode::SourceGaps),
        unclean_starts: count(EvidenceCode::UncleanStarts),
    }
}

fn recent(lately: &Evidence) -> Recent {
    Recent {
        window_millis: WINDOW_MILLIS.unsigned_abs(),
        rejected: rejected(lately),
        excluded_by_metered: count(lately, EvidenceCode::ExcludedByMetered),
        kernel_drops: count(lately, EvidenceCode::KernelDrops),
        source_gaps: count(lately, EvidenceCode::SourceGaps),
    }
}

fn rejected(evidence: &Evidence) -> BTreeMap<String, u64> {
    let reasons = EvidenceCode::ALL.into_iter().filter(|code| code.is_rejection());
    let counted = reasons.map(|code| (code.name().to_owned(), count(evidence, code)));
    counted.filter(|(_, count)| *count > 0).collect()
}

fn count(evidence: &Evidence, code: EvidenceCode) -> u64 {
    evidence.get(code)
}

fn is_live(uplink: &UplinkStatus) -> bool {
    matches!(uplink.state, UplinkState::Live)
}

/// What the backlog needs of the file: retained batches and raw events leave when it is needed.
fn needed(journal: &JournalState) -> u64 {
    let leaves = journal.retained_bytes.saturating_add(journal.raw_events.bytes);
    journal.live_bytes.saturating_sub(leaves)
}

fn door_status(counts: &DoorCounts) -> DoorStatus {
    DoorStatus {
        messages: counts.messages.value(),
        bytes: counts.bytes.value(),
        truncated: counts.truncated.value(),
        errors: counts.errors.value(),
        connections_open: counts.connections_open.value(),
        connections_accepted: counts.connections_accepted.value(),
        connections_refused: counts.connections_refused.value(),
        connections_forbidden: counts.connections_forbidden.value(),
        connections_timed_out: counts.connections_timed_out.value(),
        kernel_drops: counts.kernel_drops.value(),
        receive_buffer_bytes: counts.receive_buffer_bytes.value(),
    }
}

#[cfg(test)]
mod tests {
    use tidemark_common::id::{Digest, OpeningId, Sequence, StreamId};

    use super::*;
    use crate::journal::RawEventsHeld;

    const NOW: Timestamp = Timestamp(1_770_000_000_000);

    fn journal() -> JournalState {
        let mut evidence = Evidence::default();
        evidence.add(EvidenceCode::KernelDrops, 3);
        evidence.add(EvidenceCode::RejectedSampled, 2);
        JournalState {
            stream: StreamId([1; 16]),
            opening: OpeningId([2; 16]),
            ledger: None,
            sealed_sequence: Sequence(5),
            sealed_digest: Digest([0; 32]),
            posted_sequence: Sequence(4),
            posted_digest: Digest([0; 32]),
            accepted: 100,
            sealed_events: 90,
            posted_events: 70,
            events_in_chunks: 10,
            events_in_unposted_batches: 20,
            chunk_bytes: 50,
            backlog_batches: 1,
            backlog_bytes: 200,
            oldest_unposted: Some(Timestamp(NOW.0 - 1_500)),
            retained_batches: 4,
            retained_bytes: 800,
            file_bytes: 4_096,
            live_bytes: 2_000,
            bytes_max: 1 << 30,
            full: false,
            evidence,
            ids: 0,
            dead_letters: 2,
            dead_letter_bytes: 10,
            raw_events: RawEventsHeld {
                batches: 3,
                bytes: 70,
                given_up: 2,
                ..RawEventsHeld::default()
            },
            conflict: None,
            held: Vec::new(),
        }
    }

    fn uplink(state: UplinkState) -> UplinkStatus {
        UplinkStatus {
            state,
            since: NOW,
            collector: String::new(),
            transport: None,
            certified_until: None,
            ledger: None,
            fence: None,
            in_flight: 1,
            throttles: 0,
            is_paused: false,
            last_error: None,
            rtt_micros: None,
            clock_offset_millis: None,
        }
    }

    fn status(state: UplinkState) -> Status {
        let mut lately = Evidence::default();
        lately.add(EvidenceCode::KernelDrops, 1);
        Observed {
            now: NOW,
            journal: &journal(),
            fsync: FsyncFigures::default(),
            uplink: &uplink(state),
            session_since: Timestamp(NOW.0 - 60_000),
            time_to_full_millis: None,
            drain_estimate_millis: Some(12_000),
            shutdown_grace: Duration::from_secs(30),
            stop_is_near: false,
            lately: &lately,
            failed: None,
            figures: &DoorFigures::default(),
            admin: &DoorCounts::default(),
        }
        .status()
    }

    #[test]
    fn figures_come_from_the_journal() {
        let status = status(UplinkState::Live);
        assert!(status.events.are_conserved());
        assert_eq!(
            (status.events.accepted, status.events.posted, status.events.in_transit()),
            (100, 70, 30)
        );
        assert_eq!((status.events.kernel_drops, status.recent.kernel_drops), (3, 1));
        assert_eq!(status.recent.rejected, BTreeMap::new());
        assert_eq!(status.events.rejected, BTreeMap::from([("sampled".to_owned(), 2)]));
        assert_eq!(status.backlog.oldest_unposted_age_millis, Some(1_500));
        assert_eq!((status.backlog.sealed_sequence, status.backlog.posted_sequence), (5, 4));
        assert_eq!(status.doors.len(), Door::ALL.len());
        assert_eq!(needed(&journal()), 1_130);
    }

    #[test]
    fn session_states() {
        let check = |state, expected, retry| {
            let session = status(state).session;
            assert_eq!((session.state, session.retry_in_millis), (expected, retry));
            assert_eq!((session.since_age_millis, session.collector), (60_000, None));
        };
        let until = Timestamp(NOW.0 + 2_000);
        check(UplinkState::Live, SessionState::Connected, None);
        check(UplinkState::Connecting, SessionState::Connecting, None);
        check(UplinkState::Closed, SessionState::Disconnected, None);
        check(UplinkState::Backoff { until }, SessionState::Disconnected, Some(2_000));
        check(UplinkState::Backoff { until: Timestamp(0) }, SessionState::Disconnected, Some(0));
        check(
            UplinkState::Stopped { reason: String::new(), until: None },
            SessionState::Stopped,
            None,
        );
        check(
            UplinkState::Stopped { reason: String::new(), until: Some(until) },
            SessionState::Stopped,
            Some(2_000),
        );
    }

    #[test]
    fn tries_to_reconnect_do_not_make_an_outage_younger() {
        let since = Timestamp(0);
        let lately = Lately::new(since, Evidence::default());
        let mut watched = Watched {
            growth: Pace::of_growth(),
            posting: Pace::of_posting(),
            lately,
            live: false,
            since,
        };
        watched.see_session(true, Timestamp(10));
        watched.see_session(false, Timestamp(20));
        watched.see_session(false, Timestamp(30));
        assert_eq!(watched.since, Timestamp(20));
        watched.see_session(true, Timestamp(40));
        assert_eq!(watched.since, Timestamp(40));
    }
}
