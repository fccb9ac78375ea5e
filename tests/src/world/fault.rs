//! What goes wrong in a world, and when.
//!
//! **Owns** the kinds of faults and how each is done. A seed draws a few kinds and how often they come, so that
//! every world has its own character.

use std::collections::VecDeque;

use super::disk::{Disk, Trouble};
use super::net::Path;
use super::oracle::Broken;
use super::planted::Bug;
use super::{EPOCH, World, collector, here, spare};
use crate::random::Random;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    BadPath,
    SlowPath,
    Partition,
    PartitionOneWay,
    KillAgent,
    KillCollector,
    KillAgentInWrite,
    KillCollectorInWrite,
    CrashAgent,
    CrashCollector,
    DiskFullAtAgent,
    DiskFullAtCollector,
    WriteErrorAtAgent,
    WriteErrorAtCollector,
    SyncErrorAtAgent,
    SyncErrorAtCollector,
    AgentClockJump,
    CollectorClockJump,
    FreshDisk,
    ClonedDisk,
    RolledBack,
    RolledBackAtOnce,
    LedgerRestored,
    SecondAgent,
    SecondCollector,
    SplitLedger,
    Zombie,
    Drainer,
    PausedAgent,
    PausedCollector,
    AgentStopped,
    CollectorStopped,
    RulesChanged,
    Throttled,
    Hostile,
}

impl Fault {
    pub const ALL: [Self; 35] = [
        Self::BadPath,
        Self::SlowPath,
        Self::Partition,
        Self::PartitionOneWay,
        Self::KillAgent,
        Self::KillCollector,
        Self::KillAgentInWrite,
        Self::KillCollectorInWrite,
        Self::CrashAgent,
        Self::CrashCollector,
        Self::DiskFullAtAgent,
        Self::DiskFullAtCollector,
        Self::WriteErrorAtAgent,
        Self::WriteErrorAtCollector,
        Self::SyncErrorAtAgent,
        Self::SyncErrorAtCollector,
        Self::AgentClockJump,
        Self::CollectorClockJump,
        Self::FreshDisk,
        Self::ClonedDisk,
        Self::RolledBack,
        Self::RolledBackAtOnce,
        Self::LedgerRestored,
        Self::SecondAgent,
        Self::SecondCollector,
        Self::SplitLedger,
        Self::Zombie,
        Self::Drainer,
        Self::PausedAgent,
        Self::PausedCollector,
        Self::AgentStopped,
        Self::CollectorStopped,
        Self::RulesChanged,
        Self::Throttled,
        Self::Hostile,
    ];

    /// Kinds that take a journal from its stream, or a stream from its journal: what is lost then is lost, so
    /// a world in which a bug is to be found has none of them.
    fn loses(self) -> bool {
        matches!(
            self,
            Self::FreshDisk
                | Self::ClonedDisk
                | Self::RolledBack
                | Self::RolledBackAtOnce
                | Self::Zombie
        )
    }
}

/// What is undone later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    Path { agent: usize, collector: usize },
    AgentDisk(usize),
    CollectorDisk,
    Standby,
}

/// When what goes wrong.
#[derive(Debug)]
pub struct Plan {
    random: Random,
    kinds: Vec<Fault>,
    pause: u64,
    pub next_at: u64,
    undo: VecDeque<(u64, Undo)>,
    pub trouble_until: u64,
    pub is_over: bool,
    pub other_ledger: bool,
    /// Agents forget at once what was acknowledged: a restored ledger lacks it for good.
    pub short_memory: bool,
    /// The ledger takes few streams, until somebody allows more.
    pub few_streams: bool,
    /// A disk was destroyed: what its stream lacks, it lacks for ever.
    pub has_lost_disks: bool,
}

impl Plan {
    #[must_use]
    pub fn new(random: &mut Random, bug: Option<Bug>) -> Self {
        let mut random = random.fork();
        let mut kinds = Vec::new();
        // One world in sixteen has no faults at all.
        let count = random.below(16) / 2;
        while kinds.len() < usize::try_from(count).expect("a few kinds") {
            let kind = *random.pick(&Fault::ALL);
            if bug.is_none() || !kind.loses() {
                kinds.push(kind);
            }
        }
        let mut other_ledger = random.below(8) == 0;
        if let Some(bug) = bug {
            kinds.extend([Fault::KillAgent, Fault::CrashAgent, Fault::KillAgentInWrite]);
            kinds.extend([Fault::BadPath, Fault::KillCollector]);
            match bug {
                Bug::LedgerTimeFell => kinds.extend([Fault::CollectorClockJump; 3]),
                Bug::StreamReused => kinds.extend([Fault::FreshDisk; 2]),
                Bug::SentToOtherLedger => other_ledger = true,
                Bug::PostedBeforeCommit | Bug::LedgerNotSynced => {
                    kinds.extend([Fault::CrashCollector; 4]);
                }
                Bug::AckBeforeSync
                | Bug::JournalNotSynced
                | Bug::KeyHoldsTime
                | Bug::IdsForgotten
                | Bug::Resequenced
                | Bug::GapSkipped
                | Bug::ResumedTooFar
                | Bug::TailDropped
                | Bug::TailDoubled
                | Bug::EvidenceLost
                | Bug::RawEventsSaidEarly
                | Bug::ConfirmedUnasked => {}
            }
        }
        let (mut short_memory, mut few_streams) = (false, false);
        if bug.is_none() {
            short_memory = random.below(16) == 0;
            few_streams = random.below(16) == 0;
        }
        if short_memory {
            kinds.extend([Fault::LedgerRestored; 3]);
        }
        if few_streams {
            kinds.extend([Fault::Hostile; 2]);
        }
        Self {
            pause: 500 + random.below(4_000),
            next_at: 2_000,
            undo: VecDeque::new(),
            trouble_until: 20_000 + random.below(20_000),
            is_over: false,
            other_ledger,
            short_memory,
            few_streams,
            has_lost_disks: false,
            kinds,
            random,
        }
    }

    #[must_use]
    pub fn undo_at(&self) -> u64 {
        self.undo.iter().map(|(at, _)| *at).min().unwrap_or(u64::MAX)
    }

    pub fn end(&mut self) {
        self.is_over = true;
        self.next_at = u64::MAX;
        self.undo.clear();
    }

    pub(super) fn undo_later(&mut self, at: u64, undo: Undo) {
        self.undo.push_back((at, undo));
    }
}

impl World {
    /// The next fault, if it is due; and the end of those that have lasted long enough.
    pub(super) fn trouble(&mut self) -> Result<(), Broken> {
        while let Some(index) = self.plan.undo.iter().position(|(at, _)| *at <= self.now) {
            if let Some((_, undo)) = self.plan.undo.remove(index) {
                self.undo(undo);
            }
        }
        if self.plan.next_at > self.now {
            return Ok(());
        }
        self.plan.next_at = self.now + self.plan.random.below(2 * self.plan.pause) + 1;
        if self.plan.kinds.is_empty() {
            return Ok(());
        }
        let kind = *self.plan.random.pick(&self.plan.kinds);
        let agents = u64::try_from(spare(self.agents.len())).expect("a few agents");
        let host = usize::try_from(self.plan.random.below(agents)).expect("a few agents");
        if self.do_fault(kind, host)? {
            self.story.count(format!("fault {kind:?}"));
            self.story.tell(self.now, || format!("fault {kind:?} (agent {host})"));
        }
        Ok(())
    }

    /// False if it cannot be now.
    fn do_fault(&mut self, kind: Fault, host: usize) -> Result<bool, Broken> {
        let (now, lasting) = (self.now, 1_000 + self.plan.random.below(15_000));
        match kind {
            Fault::BadPath | Fault::SlowPath | Fault::Partition | Fault::PartitionOneWay => {
                self.trouble_path(kind, host, now + lasting);
            }
            Fault::KillAgent => return Ok(self.kill_agent(host)),
            Fault::CrashAgent => {
                if self.agents[host].process.is_some() {
                    let mut random = self.plan.random.fork();
                    self.agents[host].disk.crash(&mut random);
                }
                return Ok(self.kill_agent(host));
            }
            Fault::KillCollector => return Ok(self.kill_collector()),
            Fault::CrashCollector => {
                if self.collectors[0].process.is_some() {
                    let mut random = self.plan.random.fork();
                    self.collectors[0].ledger.crash(&mut random);
                    self.collectors[0].totals.crash(&mut random);
                }
                return Ok(self.kill_collector());
            }
            Fault::KillAgentInWrite
            | Fault::WriteErrorAtAgent
            | Fault::SyncErrorAtAgent
            | Fault::DiskFullAtAgent => self.trouble_agent_disk(kind, host, now + lasting),
            Fault::KillCollectorInWrite
            | Fault::WriteErrorAtCollector
            | Fault::SyncErrorAtCollector
            | Fault::DiskFullAtCollector => self.trouble_collector_disk(kind, now + lasting),
            Fault::AgentClockJump => self.agents[host].skew += self.jump(),
            Fault::CollectorClockJump => self.collectors[0].skew += self.jump(),
            Fault::FreshDisk => self.fresh_disk(host),
            Fault::RolledBack => return Ok(self.roll_back(host)),
            Fault::RolledBackAtOnce => {
                self.take_snapshot(host);
                return Ok(self.roll_back(host));
            }
            Fault::ClonedDisk => return Ok(self.clone_disk(host)),
            Fault::Zombie => {
                let cloned = self.clone_disk(host);
                if cloned {
                    self.agents[host].paused_until = now + 35_000 + lasting;
                }
                return Ok(cloned);
            }
            Fault::Drainer => return self.drain(host),
            Fault::SecondAgent => return Ok(self.second_agent(host)),
            Fault::SecondCollector => return Ok(self.second_collector()),
            Fault::SplitLedger => return Ok(self.split_ledger(now + lasting)),
            Fault::LedgerRestored => {
                let by_hand = self.plan.random.below(4) == 0;
                return self.restore_ledger(by_hand);
            }
            Fault::PausedAgent => self.agents[host].paused_until = now + 3 * lasting,
            Fault::PausedCollector => self.collectors[0].paused_until = now + 3 * lasting,
            Fault::AgentStopped => return Ok(self.stop_agent(host)),
            Fault::CollectorStopped => return Ok(self.stop_collector()),
            Fault::RulesChanged => {
                let host = &mut self.collectors[0];
                host.rules += 1;
                if let Some(process) = &mut host.process {
                    process.adopt_rules(host.rules);
                    host.step_at = now;
                }
            }
            Fault::Throttled => self.collectors[0].throttled_until = now + lasting,
            Fault::Hostile => self.hostile.come(now),
        }
        Ok(true)
    }

    /// What happens to a disk at one of its next operations, or for a while.
    fn next_trouble(&mut self, kind: Fault) -> Trouble {
        let after = self.plan.random.below(60);
        match kind {
            Fault::KillAgentInWrite | Fault::KillCollectorInWrite => Trouble::Kill { after },
            Fault::WriteErrorAtAgent | Fault::WriteErrorAtCollector => {
                Trouble::WriteError { after }
            }
            Fault::SyncErrorAtAgent | Fault::SyncErrorAtCollector => {
                Trouble::SyncError { after: after % 4 }
            }
            _ => Trouble::NoSpace,
        }
    }

    fn trouble_agent_disk(&mut self, kind: Fault, host: usize, until: u64) {
        let trouble = self.next_trouble(kind);
        self.agents[host].disk.trouble(trouble);
        if trouble == Trouble::NoSpace {
            self.plan.undo_later(until, Undo::AgentDisk(host));
        }
    }

    fn trouble_collector_disk(&mut self, kind: Fault, until: u64) {
        let trouble = self.next_trouble(kind);
        self.collector_disk().trouble(trouble);
        if trouble == Trouble::NoSpace {
            self.plan.undo_later(until, Undo::CollectorDisk);
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Path { agent, collector } => {
                *self.network.path(agent, collector) = Path::default();
            }
            Undo::AgentDisk(host) => self.agents[host].disk.trouble(Trouble::None),
            Undo::CollectorDisk => {
                self.collectors[0].ledger.trouble(Trouble::None);
                self.collectors[0].totals.trouble(Trouble::None);
            }
            Undo::Standby => self.end_standby(),
        }
    }

    fn jump(&mut self) -> i64 {
        let far = *self.plan.random.pick(&[30_000, 120_000, 3_600_000, 86_400_000]);
        let by = i64::try_from(self.plan.random.below(far)).expect("a day in milliseconds");
        if self.plan.random.below(2) == 0 { by } else { -by }
    }

    fn trouble_path(&mut self, kind: Fault, agent: usize, until: u64) {
        let random = &mut self.plan.random;
        let one_way = random.below(2) == 0;
        let path = match kind {
            Fault::SlowPath => {
                Path { delay: random.below(800), slowness: 5 + random.below(40), ..Path::default() }
            }
            Fault::Partition => {
                Path { to_agent_blocked: true, to_collector_blocked: true, ..Path::default() }
            }
            Fault::PartitionOneWay => Path {
                to_agent_blocked: one_way,
                to_collector_blocked: !one_way,
                ..Path::default()
            },
            _ => Path {
                loss: random.below(300),
                duplication: random.below(200),
                corruption: random.below(100),
                reordering: random.below(300),
                delay: random.below(100),
                ..Path::default()
            },
        };
        *self.network.path(agent, 0) = path;
        // Some partitions outlast a link's idle time.
        let until = if self.plan.random.below(4) == 0 { until + 35_000 } else { until };
        self.plan.undo_later(until, Undo::Path { agent, collector: 0 });
    }

    fn collector_disk(&mut self) -> &Disk {
        let ledger = self.plan.random.below(3) > 0;
        let host = &self.collectors[0];
        if ledger { &host.ledger } else { &host.totals }
    }

    fn kill_agent(&mut self, host: usize) -> bool {
        let ran = self.agents[host].process.is_some();
        if ran {
            self.end_agent(host, true);
        }
        ran
    }

    fn kill_collector(&mut self) -> bool {
        let ran = self.collectors[0].process.is_some();
        if ran {
            self.end_collector(0);
        }
        ran
    }

    fn stop_agent(&mut self, host: usize) -> bool {
        let host = &mut self.agents[host];
        here::enter(host.clocks(EPOCH, self.now));
        host.step_at = self.now;
        host.process.as_mut().map(|process| process.stop(self.now)).is_some()
    }

    fn stop_collector(&mut self) -> bool {
        let mut acknowledged = Vec::new();
        let host = &mut self.collectors[0];
        here::enter(host.clocks(EPOCH, self.now));
        let Some(process) = &mut host.process else { return false };
        let mut around = collector::Surroundings {
            number: 0,
            network: &mut self.network,
            names: &self.names,
            story: &mut self.story,
            acknowledged: &mut acknowledged,
            archived: &mut self.raw_events,
            throttles: false,
            now: self.now,
        };
        let done = process.stop(&mut around);
        if self.collectors[0].is_whole() && done.is_ok() {
            for said in acknowledged {
                self.oracle.acknowledged(0, said);
            }
        }
        self.end_collector(0);
        true
    }

    fn second_agent(&mut self, host: usize) -> bool {
        let held = self.agents[host].disk.hold(u64::MAX);
        match held {
            None => {
                self.story.count("recovery second agent is kept out");
                true
            }
            // Nobody ran: there is no second one.
            Some(_) => {
                self.agents[host].disk.release();
                false
            }
        }
    }

    fn second_collector(&mut self) -> bool {
        let held = self.collectors[0].ledger.hold(u64::MAX);
        match held {
            None => {
                self.story.count("recovery second collector is kept out");
                true
            }
            Some(_) => {
                self.collectors[0].ledger.release();
                false
            }
        }
    }
}
