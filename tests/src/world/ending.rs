//! The end of a world: peace, rest, and the last checks.

use tidemark_agent::journal::JournalState;
use tidemark_collector::ledger::{Missing, Snapshot};
use tidemark_common::id::{Sequence, StreamId};
use tidemark_common::time::Timestamp;

use super::oracle::{self, Broken, Posted};
use super::{EPOCH, World, here, spare};

/// After this long in peace everything must have come to rest.
const REST_MILLIS_MAX: u64 = 1_200_000;
/// At rest, completeness may lag behind ledger time by this much.
const LAG_MILLIS_MAX: i64 = 30_000;

impl World {
    /// No more trouble: everything runs, every path is open, every clock is about right.
    pub(super) fn make_peace(&mut self) {
        self.story.tell(self.now, || "peace");
        self.plan.end();
        self.network.heal();
        self.end_spare();
        self.end_standby();
        let spare = spare(self.agents.len());
        for host in &mut self.agents[..spare] {
            host.paused_until = 0;
            host.skew = host.skew.clamp(-1_000, 1_000);
            host.disk.trouble(super::disk::Trouble::None);
            host.step_at = self.now;
            if host.process.is_none() {
                host.start_at = Some(self.now);
            }
        }
        for host in &mut self.collectors {
            host.paused_until = 0;
            host.skew = host.skew.clamp(-1_000, 1_000);
            host.ledger.trouble(super::disk::Trouble::None);
            host.totals.trouble(super::disk::Trouble::None);
            host.step_at = self.now;
        }
        if self.plan.few_streams {
            // Agents that came after the last room was taken wait for somebody to make more.
            self.collectors[0].streams_max = 1_000;
            self.end_collector(0);
        }
        self.hostile.leave();
    }

    /// Every agent is given the address of the ledger that it has met, or else of the first.
    fn correct_addresses(&mut self) {
        let other = self.collectors[2].process.as_ref().map(|process| process.ledger.ledger());
        let spare = spare(self.agents.len());
        for host in &mut self.agents[..spare] {
            let Some(process) = &host.process else { continue };
            let met = process.state().ledger;
            host.collectors = if met.is_some() && met == other { vec![2] } else { vec![0] };
        }
    }

    /// Until every journal is posted and every application has its answer.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Broken> {
        let end = self.now + REST_MILLIS_MAX;
        let mut rest_since = None;
        while self.now < end {
            // A Welcome that was under way pins a journal in peace too.
            self.correct_addresses();
            self.advance()?;
            match (self.restless(), rest_since) {
                (Some(_), _) => rest_since = None,
                (None, None) => rest_since = Some(self.now),
                // Confirmations follow.
                (None, Some(since)) if self.now >= since + 6_000 => return Ok(()),
                (None, Some(_)) => {}
            }
        }
        let why =
            self.restless().unwrap_or_else(|| "all is at rest, but never for long".to_owned());
        Err(format!("does not come to rest: {why}"))
    }

    /// What is still under way.
    fn restless(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().find(|client| client.waits.is_some()) {
            return Some(format!("application {} waits for its answer", client.number));
        }
        for host in &self.agents[..spare(self.agents.len())] {
            let Some(process) = &host.process else {
                return Some(format!("agent {} does not run", host.number));
            };
            let state = process.state();
            // What a ledger has for good not, it names; its agent then waits for a person.
            if self.missing(state.stream).is_some() {
                continue;
            }
            if let Some(behind) = self.is_behind(&state) {
                return Some(behind);
            }
            // An agent that has nothing to say to anybody yet has heard from no ledger either.
            if !process.uplink.is_live() || state.posted_events != state.accepted {
                return Some(format!(
                    "agent {} is {:?}, with {} of {} events posted",
                    host.number,
                    process.uplink.session.status(),
                    state.posted_events,
                    state.accepted
                ));
            }
            if let Some(first) = state.raw_events.first {
                return Some(format!("agent {} holds raw events of batch {first}", host.number));
            }
        }
        None
    }

    /// What the ledger of a stream says to be neither there nor in its journal.
    fn missing(&self, stream: StreamId) -> Option<Missing> {
        let snapshot = self.collectors[0].process.as_ref()?.ledger.snapshot().ok()?;
        snapshot.streams().iter().find(|status| status.stream == stream)?.missing
    }

    /// A ledger that was restored since has less of a journal than the journal knows to be posted: its agent
    /// does not know yet.
    fn is_behind(&self, state: &JournalState) -> Option<String> {
        let processes = self.collectors.iter().filter_map(|host| host.process.as_ref());
        let mut ledgers = processes.filter(|process| Some(process.ledger.ledger()) == state.ledger);
        let snapshot = ledgers.next()?.ledger.snapshot().ok()?;
        let posted = snapshot.posted().find(|(stream, _)| *stream == state.stream);
        let posted = posted.map_or(Sequence::ZERO, |(_, sequence)| sequence);
        (posted < state.posted_sequence).then(|| {
            format!("stream {}: {posted} of {} is posted", state.stream, state.posted_sequence)
        })
    }

    /// Every promise, on what is left.
    pub(super) fn final_checks(&mut self) -> Result<(), Broken> {
        let mut shown = Posted::default();
        let mut snapshots = Vec::new();
        for number in [0, 2] {
            let host = &self.collectors[number];
            let Some(process) = &host.process else { continue };
            here::enter(host.clocks(EPOCH, self.now));
            let snapshot = process.ledger.snapshot().map_err(|error| error.to_string())?;
            let posted = self.oracle.check(number, &snapshot, &self.load)?;
            oracle::check_batches(&process.store, &snapshot, &posted, &self.load, &self.strangers)?;
            shown = shown.and(&posted)?;
            snapshots.push(snapshot);
        }
        self.check_missing(&snapshots)?;
        self.oracle.check_told(&shown, &self.load)?;
        let all: Vec<_> = snapshots.iter().collect();
        self.oracle.check_rejected(&all, &self.load)?;
        self.check_figures(&all)?;
        let nothing_is_lost = self.oracle.contested.is_empty() && !self.plan.has_lost_disks;
        self.raw_events.check(&self.oracle, nothing_is_lost, &mut self.story)?;
        if let Some(first) = snapshots.first() {
            self.check_lag(first)?;
        }
        for _ in 0..shown.events() {
            self.story.count("event posted");
        }
        Ok(())
    }

    /// What is missing for good is named with its size.
    fn check_missing(&mut self, snapshots: &[Snapshot]) -> Result<(), Broken> {
        let streams = snapshots.iter().flat_map(|snapshot| snapshot.streams());
        for status in streams {
            let Some(missing) = status.missing else { continue };
            self.oracle.missing(status.stream, missing)?;
            self.story.count("recovery hole named");
        }
        for status in snapshots.iter().flat_map(|snapshot| snapshot.streams()) {
            if status.quarantined_events > 0 {
                self.story.count("recovery body quarantined");
            }
        }
        Ok(())
    }

    /// Both ends count the same.
    fn check_figures(&self, snapshots: &[&Snapshot]) -> Result<(), Broken> {
        for host in &self.agents[..spare(self.agents.len())] {
            let Some(process) = &host.process else { continue };
            let state = process.state();
            if self.oracle.lacking.contains(&state.stream) {
                continue;
            }
            let known = oracle::statuses(snapshots, state.stream);
            // Another ledger may have welcomed the stream too, and has nothing of it.
            let Some(status) = known.iter().max_by_key(|status| status.accepted) else {
                return Err(format!("no ledger knows stream {}", state.stream));
            };
            if status.posted_events != state.accepted || status.quarantined_events != 0 {
                return Err(format!(
                    "agent {} accepted {} events, the ledger holds {} of them",
                    host.number, state.accepted, status.posted_events
                ));
            }
        }
        Ok(())
    }

    /// Completeness comes back by itself where nothing is lost.
    fn check_lag(&self, snapshot: &Snapshot) -> Result<(), Broken> {
        let completeness = snapshot.complete_through();
        let through = completeness.through.unwrap_or(Timestamp(i64::MIN));
        let lag = snapshot.ledger_time().millis_since(through);
        // A stream that was welcomed here and went on in another ledger is missed here, as it should be.
        let elsewhere = |stream: StreamId| {
            self.agents.iter().filter_map(|host| host.process.as_ref()).any(|process| {
                let state = process.state();
                state.stream == stream && state.ledger != Some(snapshot.ledger())
            })
        };
        let lost = completeness.held_back_by.iter().any(|(stream, _)| elsewhere(*stream))
            || !self.oracle.contested.is_empty()
            || !self.oracle.lacking.is_empty()
            || !self.strangers.is_empty()
            || self.plan.has_lost_disks;
        if lag > LAG_MILLIS_MAX && !lost {
            return Err(format!("completeness lags by {lag} ms: {:?}", completeness.held_back_by));
        }
        Ok(())
    }
}
