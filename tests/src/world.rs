//! A world in one process: agents and collectors under every fault, deterministic from one seed.
//!
//! ```text
//! here      clocks and random numbers of a host      disk      forgets, tears, fails, stops a process
//! net       packets lost, late, twice, flipped       load      events and the applications that send them
//! agent     intake, journal, sealer, session         uplink    what stands in for the agent's driver
//! collector sessions and the ledger                  store     the ledger's store, and bugs around it
//! hostile   a stranger with a valid identity         fault     what goes wrong, and when
//! copies    journals and ledgers lost, copied, restored
//! oracle    the promises                             planted   bugs that the oracle must find
//! story     counts, and what happened
//! ```
//! Real: the parsers, intake's core and thread, the journal, the sealer, both sessions, the frames' codec, the
//! ledger with its writer, folder and store, snapshots. Simulated: disks, the network, clocks, random numbers,
//! processes. The shells between them (threads, sockets, the listener) are stood in for by short loops here.
//!
//! **Owns** time: the next thing that is due, on any host, happens next. One thread, no waiting.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "a world counts in small numbers, and an overflow ends it with a panic, as it should"
)]

pub mod agent;
pub mod backup;
pub mod collector;
pub mod disk;
pub mod fault;
pub mod here;
pub mod hostile;
pub mod load;
pub mod many;
pub mod net;
pub mod oracle;
pub mod planted;
mod raw_events;
pub mod stampede;
pub mod store;
pub mod story;
pub mod uplink;

mod copies;
mod ending;
mod hosts;

use std::collections::BTreeSet;

use tidemark_common::id::StreamId;
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

use self::agent::AgentHost;
use self::collector::CollectorHost;
use self::fault::Plan;
use self::hostile::Hostile;
use self::load::{Client, Load, PATIENCE_MILLIS};
use self::net::{Network, Side};
use self::oracle::{Broken, Oracle};
use self::planted::Bug;
use self::raw_events::RawArchive;
use self::story::Story;
use crate::random::Random;

/// The worlds' clock at their beginning: 2026-01-01.
const EPOCH: Timestamp = Timestamp(1_767_225_600_000);
/// A world in which more happens at one instant is stuck.
const STEPS_AT_ONCE_MAX: u32 = 100_000;
/// The promises are looked at this often, and at the end.
const CHECK_MILLIS: u64 = 2_500;
/// At least so many events are sent in each world.
pub const EVENTS_MIN: usize = 1_000;

/// How to run a world.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A bug to plant.
    pub bug: Option<Bug>,
    /// Tell the story.
    pub told: bool,
}

/// What came of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    pub broken: Option<Broken>,
    pub story: Story,
    pub events: usize,
    /// Simulated milliseconds.
    pub millis: u64,
}

/// Runs the world of `seed` to its end, or until a promise is broken.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options);
    let broken = world.live().err();
    if let Some(broken) = &broken {
        world.story.tell(world.now, || format!("BROKEN: {broken}"));
    }
    Outcome { seed, broken, events: world.load.events.len(), millis: world.now, story: world.story }
}

/// Everything there is.
#[derive(Debug)]
struct World {
    now: u64,
    random: Random,
    bug: Option<Bug>,
    agents: Vec<AgentHost>,
    /// By number of the host: who its certificate says it is.
    names: Vec<AgentName>,
    collectors: Vec<CollectorHost>,
    network: Network,
    hostile: Hostile,
    load: Load,
    clients: Vec<Client>,
    oracle: Oracle,
    raw_events: RawArchive,
    /// Streams that the world's agents did not make.
    strangers: BTreeSet<StreamId>,
    story: Story,
    plan: Plan,
    check_at: u64,
    /// What the ledger last said to be complete.
    through: Option<Timestamp>,
    next_process: u64,
}

/// The host without applications, where clones and drainers run.
const fn spare(agents: usize) -> usize {
    agents - 1
}

impl World {
    fn new(seed: u64, options: Options) -> Self {
        let mut random = Random::new(seed);
        here::seed(random.fork());
        here::enter(here::Clocks { wall: EPOCH, ticks: 0 });
        let count = 2 + usize::try_from(random.below(2)).expect("a few agents");
        // One more for clones and drainers.
        let mut agents: Vec<AgentHost> =
            (0..=count).map(|number| AgentHost::new(number, &format!("agent-{number}"))).collect();
        let mut collectors: Vec<CollectorHost> = (0..3).map(CollectorHost::new).collect();
        let mut names: Vec<AgentName> = agents.iter().map(|host| host.name.clone()).collect();
        let hostile = Hostile::new(names.len(), random.fork());
        names.push(hostile.name.clone());
        let plan = Plan::new(&mut random, options.bug);
        for host in &mut agents[..count] {
            host.start_at = Some(random.below(500));
            host.skew = i64::try_from(random.below(4_000)).expect("seconds") - 2_000;
            host.collectors = vec![0];
        }
        if plan.short_memory {
            agents.iter_mut().for_each(|host| host.retain_bytes = 0);
        }
        if plan.few_streams {
            collectors[0].streams_max = count + 2;
        }
        collectors[0].start_at = Some(random.below(1_500));
        collectors[0].fold_millis = 500 + random.below(5_000);
        if plan.other_ledger {
            collectors[2].start_at = Some(0);
            for host in &mut agents[..count] {
                host.collectors = vec![0, 2];
            }
        }
        let clients = (0..count * 2)
            .map(|number| Client {
                host: number % count,
                random: random.fork(),
                next_at: random.below(2_000),
                waits: None,
                asked: None,
                number,
                batches: 0,
            })
            .collect();
        let story = if options.told { Story::told() } else { Story::default() };
        Self {
            now: 0,
            network: Network::new(random.fork()),
            random,
            bug: options.bug,
            agents,
            names,
            collectors,
            hostile,
            load: Load::default(),
            clients,
            oracle: Oracle::default(),
            raw_events: RawArchive::default(),
            strangers: BTreeSet::new(),
            story,
            plan,
            check_at: CHECK_MILLIS,
            through: None,
            next_process: 1,
        }
    }

    /// The world's life: trouble while there is load, then peace until all has come to rest.
    fn live(&mut self) -> Result<(), Broken> {
        while self.load.events.len() < EVENTS_MIN || self.now < self.plan.trouble_until {
            self.advance()?;
        }
        self.make_peace();
        self.come_to_rest()?;
        self.final_checks()
    }

    /// Goes to the next instant at which something is due, and lets it happen.
    fn advance(&mut self) -> Result<(), Broken> {
        let due = self.due().max(self.now);
        self.now = due;
        for _ in 0..STEPS_AT_ONCE_MAX {
            self.trouble()?;
            self.applications();
            self.network.step(self.now, &mut self.story);
            self.step_hosts()?;
            self.check_now_and_then()?;
            if self.due() > self.now {
                return Ok(());
            }
        }
        Err(format!("stuck at {} ms", self.now))
    }

    fn due(&self) -> u64 {
        let hosts = self.agents.iter().map(AgentHost::due);
        let collectors = self.collectors.iter().map(CollectorHost::due);
        let clients = self.clients.iter().map(|client| client.next_at);
        let others = [self.plan.next_at, self.plan.undo_at(), self.check_at, self.hostile.next_at];
        let due = hosts.chain(collectors).chain(clients).chain(others).min();
        let due = due.unwrap_or(u64::MAX).min(self.network.due().unwrap_or(u64::MAX));
        // What was due before waits for its turn now.
        due.max(self.now)
    }

    fn check_now_and_then(&mut self) -> Result<(), Broken> {
        if self.now < self.check_at {
            return Ok(());
        }
        self.check_at = self.now + CHECK_MILLIS;
        for number in 0..self.collectors.len() {
            let host = &self.collectors[number];
            here::enter(host.clocks(EPOCH, self.now));
            let Some(process) = host.process.as_ref().filter(|_| host.paused_until <= self.now)
            else {
                continue;
            };
            // A standby's copy of the ledger is checked by what it hands back to the first.
            let snapshot = process.ledger.snapshot().map_err(|error| error.to_string())?;
            self.oracle.check(number, &snapshot, &self.load)?;
        }
        for host in &self.agents {
            if let Some(process) = &host.process {
                agent::conserved(&process.state())?;
            }
        }
        Ok(())
    }

    /// Applications send, and send again what was not answered.
    fn applications(&mut self) {
        for index in 0..self.clients.len() {
            if self.clients[index].next_at <= self.now {
                self.application(index);
            }
        }
    }

    fn application(&mut self, index: usize) {
        let Self { agents, clients, load, oracle, story, .. } = self;
        let client = &mut clients[index];
        let host = &mut agents[client.host];
        let pause = 50 + client.random.below(400);
        client.next_at = self.now + pause;
        let quiet = self.plan.is_over;
        let reachable = host.paused_until <= self.now;
        let Some(process) =
            host.process.as_mut().filter(|process| process.stop_by.is_none() && reachable)
        else {
            client.asked = None;
            return;
        };
        if client.asked.is_some_and(|(asked, until)| asked == process.id && until > self.now) {
            return;
        }
        let stream = process.state().stream;
        // Another journal does not know the ids: what became of these events cannot be told.
        if client
            .waits
            .as_ref()
            .is_some_and(|sent| sent.stream != stream || oracle.contested.contains(&stream))
        {
            client.waits = None;
        }
        if client.waits.is_none() && quiet {
            return;
        }
        if client.waits.is_none() && client.random.below(4) == 0 {
            let datagram = load.datagram(&mut client.random);
            if !process.kernel().push(datagram) {
                story.count("datagram dropped by the kernel");
            }
            host.step_at = self.now;
            return;
        }
        let mut sent = match client.waits.take() {
            Some(sent) => sent,
            None => load.batch(
                client,
                stream,
                EPOCH.plus_millis(i64::try_from(self.now).expect("a world is short")),
            ),
        };
        sent.attempts += 1;
        if sent.attempts > 1 {
            story.count("application sent again");
        }
        let mut lines = sent.lines.clone();
        if self.bug == Some(Bug::KeyHoldsTime) {
            for line in &mut lines {
                *line = line.replace("\"id\":\"", &format!("\"id\":\"{}-", sent.attempts));
            }
        }
        process.submit(index, &lines);
        if self.bug == Some(Bug::AckBeforeSync) {
            load.tell(&sent.events, stream);
            client.waits = None;
            host.step_at = self.now;
            return;
        }
        client.asked = Some((process.id, self.now + PATIENCE_MILLIS));
        client.waits = Some(sent);
        host.step_at = self.now;
    }

    /// The next process's number.
    fn process_number(&mut self) -> u64 {
        self.next_process += 1;
        self.next_process
    }

    fn vanish(&mut self, side: Side, host: usize) {
        self.network.vanish(side, host);
        if side == Side::Collector {
            self.network.collector_up(host, false);
        }
    }
}
