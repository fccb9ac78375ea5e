//! A collector restarts under many agents: when do they come again?
//!
//! **Owns** the measurement. Real: the agents' sessions with their backoff, the frames, the collector's sessions
//! and its ledger. Agents have no journal here: an idle one with all its events posted.

use tidemark_agent::journal::RawEventsHeld;
use tidemark_agent::session::{
    Action, JournalWrite, Monotonic, Session, SessionConfig, SessionState, StreamFacts,
};
use tidemark_common::id::{Digest, LedgerId, OpeningId, RulesVersion, Sequence, StreamId};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::FrameBuffer;

use super::collector::{CollectorHost, Surroundings};
use super::net::{Condition, LinkId, Network, Side};
use super::raw_events::RawArchive;
use super::story::Story;
use super::{EPOCH, here};
use crate::random::Random;

const TICK_MILLIS: u64 = 10;
/// The collector runs this long before it is stopped.
const UP_MILLIS: u64 = 8_000;
/// Whoever is not back by then never comes.
const PATIENCE_MILLIS: u64 = 120_000;
/// Hellos are counted by windows of this length.
const WINDOW_MILLIS: u64 = 100;

/// What a restart came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub agents: usize,
    /// The most Hellos within 100 ms.
    pub hellos_at_worst: u64,
    /// Milliseconds from the restart until half, and all, of the sessions are live again.
    pub half_live_after: u64,
    pub all_live_after: u64,
}

#[derive(Debug)]
struct Agent {
    session: Session,
    facts: StreamFacts,
    link: Option<LinkId>,
    is_up: bool,
    buffer: FrameBuffer,
}

/// Stops a collector in order under `agents` sessions, starts it again after `down_millis`, and watches.
///
/// # Panics
/// If the ledger cannot be started, or somebody never comes back.
#[must_use]
pub fn stampede(agents: usize, down_millis: u64, seed: u64) -> Figures {
    let mut scene = Scene::new(agents, seed);
    scene.start();
    while scene.live() < agents {
        scene.tick();
    }
    let stop_at = scene.now + UP_MILLIS;
    while scene.now < stop_at {
        scene.tick();
    }
    scene.stop();
    let start_at = scene.now + down_millis;
    while scene.now < start_at {
        scene.tick();
    }
    scene.start();
    let began = scene.now;
    let (mut half, mut worst, mut window) = (None, 0, (scene.now, scene.hellos()));
    while scene.live() < agents {
        assert!(scene.now < began + PATIENCE_MILLIS, "{} of {agents} came back", scene.live());
        scene.tick();
        if scene.live() >= agents / 2 {
            half.get_or_insert(scene.now - began);
        }
        if scene.now >= window.0 + WINDOW_MILLIS {
            worst = worst.max(scene.hellos() - window.1);
            window = (scene.now, scene.hellos());
        }
    }
    Figures {
        agents,
        hellos_at_worst: worst.max(scene.hellos() - window.1),
        half_live_after: half.unwrap_or_default(),
        all_live_after: scene.now - began,
    }
}

struct Scene {
    now: u64,
    agents: Vec<Agent>,
    names: Vec<AgentName>,
    collector: CollectorHost,
    network: Network,
    random: Random,
    story: Story,
    processes: u64,
}

impl Scene {
    fn new(agents: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        here::seed(random.fork());
        let facts = || StreamFacts {
            stream: StreamId(here::nonce()),
            opening: OpeningId(here::nonce()),
            ledger: None,
            posted_sequence: Sequence::ZERO,
            posted_digest: Digest([0; 32]),
            sealed_sequence: Sequence::ZERO,
            accepted: 0,
            unsealed_events: 0,
            rules_version: RulesVersion(0),
            openings: Vec::new(),
            raw_events: RawEventsHeld::default(),
            conflict: None,
        };
        let agent = |_| {
            let facts = facts();
            let config = SessionConfig {
                batches_in_flight_max: 8,
                session_millis_max: 3_600_000,
                agent: "world".to_owned(),
            };
            let session = Session::new(config, facts.clone());
            let buffer = FrameBuffer::default();
            Agent { session, facts, link: None, is_up: false, buffer }
        };
        let name = |number| AgentName::parse(&format!("agent-{number}")).expect("a name");
        Self {
            now: 0,
            agents: (0..agents).map(agent).collect(),
            names: (0..agents).map(name).collect(),
            collector: CollectorHost::new(0),
            network: Network::new(random.fork()),
            random,
            story: Story::default(),
            processes: 0,
        }
    }

    /// Hellos that the ledger has answered.
    fn hellos(&self) -> u64 {
        self.story.counts.get("verdict hello: Welcome").copied().unwrap_or_default()
    }

    fn live(&self) -> usize {
        let live = |agent: &&Agent| agent.session.status().state == SessionState::Live;
        self.agents.iter().filter(live).count()
    }

    fn start(&mut self) {
        here::enter(self.collector.clocks(EPOCH, self.now));
        self.processes += 1;
        let started = self.collector.start(self.processes, self.now, None);
        assert_eq!(started, Ok(true), "the ledger starts");
        self.network.collector_up(0, true);
    }

    /// An orderly end: every agent hears of it at once.
    fn stop(&mut self) {
        here::enter(self.collector.clocks(EPOCH, self.now));
        if let Some(mut process) = self.collector.process.take() {
            let stopped = process.stop(&mut Surroundings {
                number: 0,
                network: &mut self.network,
                names: &self.names,
                story: &mut self.story,
                acknowledged: &mut Vec::new(),
                archived: &mut RawArchive::default(),
                throttles: false,
                now: self.now,
            });
            assert_eq!(stopped, Ok(()), "the ledger stops");
            self.collector.release();
        }
        self.network.collector_up(0, false);
    }

    fn tick(&mut self) {
        self.now += TICK_MILLIS;
        here::enter(self.collector.clocks(EPOCH, self.now));
        self.network.step(self.now, &mut self.story);
        if let Some(process) = &mut self.collector.process {
            let done = process.turn(
                5_000,
                &mut Surroundings {
                    number: 0,
                    network: &mut self.network,
                    names: &self.names,
                    story: &mut self.story,
                    acknowledged: &mut Vec::new(),
                    archived: &mut RawArchive::default(),
                    throttles: false,
                    now: self.now,
                },
            );
            assert_eq!(done, Ok(()), "the ledger goes on");
        }
        for number in 0..self.agents.len() {
            self.step(number);
        }
    }

    fn step(&mut self, number: usize) {
        let Self { agents, network, random, story, now, .. } = self;
        let (agent, now) = (&mut agents[number], *now);
        let age = Monotonic(now);
        if let Some(link) = agent.link {
            match network.condition(link, Side::Agent) {
                Condition::Up | Condition::Finished if !agent.is_up => {
                    agent.is_up = true;
                    agent.session.handle_connected(age, here::wall(), random.next_u64());
                }
                Condition::Opening | Condition::Up | Condition::Finished => {}
                Condition::Lost(reason) => {
                    agent.link = None;
                    agent.session.handle_disconnected(age, random.next_u64(), reason);
                }
            }
        }
        if let Some(link) = agent.link {
            agent.buffer.push(&network.receive(link, Side::Agent));
            while let Ok(Some(frame)) = agent.buffer.next_frame() {
                agent.session.handle_frame(frame, age);
            }
        }
        if agent.session.poll_timeout().is_some_and(|due| due <= age) {
            agent.session.handle_timeout(age);
        }
        while let Some(action) = agent.session.poll_action() {
            match action {
                Action::Connect => {
                    (agent.link, agent.is_up) = (Some(network.open(number, 0, now)), false);
                    agent.buffer = FrameBuffer::default();
                }
                Action::Disconnect => {
                    if let Some(link) = agent.link.take() {
                        network.drop_end(link, Side::Agent, now, story);
                    }
                    agent.session.handle_disconnected(age, random.next_u64(), "");
                }
                Action::Look { ledger, .. } => agent.look(ledger, age),
                Action::Write(write) => agent.write(&write, age),
                Action::Barrier => agent.session.handle_barrier(Some((Sequence::ZERO, 0))),
                Action::Read(sequence) => agent.session.handle_batch(sequence, None, age),
                Action::ReadEvents { from, last } => agent.session.handle_events(from, last, None),
                Action::Finished(_) => break,
            }
        }
        while let Some(link) = agent.link.filter(|_| agent.is_up)
            && let Some(frame) = agent.session.poll_frame()
        {
            let bytes = frame.encode().expect("a session's frames are within their limits");
            network.send(link, Side::Agent, &bytes, now);
        }
    }
}

impl Agent {
    fn look(&mut self, ledger: LedgerId, age: Monotonic) {
        let digest = Some(tidemark_common::batch::genesis(ledger, self.facts.stream));
        let looked = tidemark_agent::session::Looked { digest, first_held: None };
        self.session.handle_looked(&looked, age);
    }

    fn write(&mut self, write: &JournalWrite, age: Monotonic) {
        if let JournalWrite::Welcomed(welcomed) = write {
            self.facts.ledger = Some(welcomed.ledger);
            self.facts.posted_digest =
                tidemark_common::batch::genesis(welcomed.ledger, self.facts.stream);
        }
        self.session.handle_journal(self.facts.clone());
        self.session.handle_written(age);
    }
}
