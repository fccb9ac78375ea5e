//! Rounds of kill -9 under load on the acknowledged doors.
//!
//! In each round, clients send over `events.socket` and HTTP; at random moments the agent and the
//! collector are killed, and started again; the clients resend what was not acknowledged, with the
//! same ids. After each round every acknowledged event of all rounds so far is billed exactly once:
//! count and sum by customer and meter. The journal and the ledger live through all rounds.
//!
//! In the end both programs' files are compared: resends were byte-identical, and the stored batches
//! come to what was sent.
//!
//! A seed gives the same load and the same plan of kills. The exact moment within the programs is
//! up to the machine, so a seed that failed may need several tries to fail again.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::audit::audit;
use crate::conserved::assert_conserved;
use crate::expected::Expected;
use crate::random::Random;
use crate::resend::{Client, Mix, Route, Shared, with_clients};
use crate::settings::{Ports, Settings};
use crate::stack::Stack;
use crate::wait::{Stopwatch, pause, until};

/// Sums only, sealed often, so that a kill finds every stage at work.
const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["door"]
[[meter]]
name = "tokens"
aggregation = "sum"
dimensions = ["door"]
[[customer]]
id = "acme"
plan = "standard"
[[customer]]
id = "globex"
plan = "standard"
[[customer]]
id = "initech"
plan = "standard"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.price]]
meter = "api.calls"
unit_price = "0.001"
[[plan.price]]
meter = "tokens"
unit_price = "0.00002"
"#;
const CUSTOMERS: &[&str] = &["acme", "globex", "initech"];
const METERS: &[&str] = &["api.calls", "tokens"];
const ADVANCE_WAIT: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: u32,
    pub seed: u64,
    /// Clients for each acknowledged door.
    pub clients: u32,
    /// A kill comes after at most this much load.
    pub moment_max: Duration,
    /// In the last round the collector is away for this long.
    pub away: Duration,
}

impl Plan {
    /// The short form.
    #[must_use]
    pub fn quick(seed: u64) -> Self {
        Self {
            rounds: 20,
            seed,
            clients: 2,
            moment_max: Duration::from_millis(400),
            away: Duration::from_secs(10),
        }
    }
}

/// What it came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub events: u64,
    pub kills: u64,
    pub resent_batches: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Agent,
    Collector,
    Both,
    /// The second time while it starts, at what it does to recover from the first.
    AgentTwice,
    CollectorTwice,
}

impl Victim {
    const ALL: [Self; 5] =
        [Self::Agent, Self::Collector, Self::Both, Self::AgentTwice, Self::CollectorTwice];

    fn kills(self) -> u64 {
        match self {
            Self::Agent | Self::Collector => 1,
            Self::Both | Self::AgentTwice | Self::CollectorTwice => 2,
        }
    }
}

/// Runs the plan; progress goes to `out`, one line a round.
///
/// # Errors
/// With the seed and the round, when anything is lost, counted twice or not conserved.
pub fn run(plan: Plan, out: &mut dyn Write) -> Result<Outcome> {
    writeln!(out, "kill loop: seed {}, {} rounds", plan.seed, plan.rounds)?;
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        // A killed peer says no goodbye; the session's idle time is how long that goes unnoticed.
        .collector("session.idle_max", "2s")
        .collector("session.confirm_interval", "1s")
        .collector("ledger.fold_age", "500ms");
    let mut stack = Stack::start(settings)?;
    let mut run = Run {
        plan,
        random: Random::new(plan.seed),
        expected: Expected::default(),
        outcome: Outcome::default(),
    };
    for round in 1..=plan.rounds {
        run.round(&mut stack, round, out)
            .and_then(|()| assert_conserved(&stack))
            .with_context(|| format!("seed {}, round {round}\n{}", plan.seed, stack.logs()))?;
    }
    run.away(&mut stack, out)
        .and_then(|()| assert_conserved(&stack))
        .with_context(|| format!("seed {}, collector away\n{}", plan.seed, stack.logs()))?;
    run.outcome.events = run.expected.events();
    run.audit(&mut stack, out).with_context(|| format!("seed {}, the files", plan.seed))?;
    Ok(run.outcome)
}

struct Run {
    plan: Plan,
    random: Random,
    expected: Expected,
    outcome: Outcome,
}

impl Run {
    fn round(&mut self, stack: &mut Stack, round: u32, out: &mut dyn Write) -> Result<()> {
        let clock = Stopwatch::start();
        let clients = self.clients(stack, &format!("round-{round}"))?;
        let victim = *self.random.pick(&Victim::ALL);
        let before = self.random.below(millis(self.plan.moment_max));
        let between = self.random.below(millis(self.plan.moment_max) / 4);
        let mut resent = 0;
        let sent = with_clients(clients, |shared| {
            // At least one batch is on its way before anything is killed.
            wait_advance(shared, 0)?;
            pause(Duration::from_millis(before));
            kill(stack, victim, Duration::from_millis(between))?;
            wait_advance(shared, shared.acknowledged())?;
            resent = shared.resent();
            Ok(())
        })?;
        self.settle(stack, &sent)?;
        self.outcome.kills = self.outcome.kills.saturating_add(victim.kills());
        self.outcome.resent_batches = self.outcome.resent_batches.saturating_add(resent);
        writeln!(
            out,
            "round {round:>3}: {victim:?} killed after {before} ms, {} events so far, exact ({} ms)",
            self.expected.events(),
            clock.elapsed().as_millis()
        )?;
        Ok(())
    }

    /// The collector is away for long, under load, and the agent is killed while it is.
    fn away(&mut self, stack: &mut Stack, out: &mut dyn Write) -> Result<()> {
        let clients = self.clients(stack, "away")?;
        let away = self.plan.away;
        let half = Duration::from_millis(millis(away) / 2);
        let sent = with_clients(clients, |shared| {
            wait_advance(shared, 0)?;
            stack.kill_collector()?;
            pause(half);
            stack.kill_agent()?;
            stack.start_agent()?;
            pause(half);
            let acknowledged = shared.acknowledged();
            stack.start_collector()?;
            wait_advance(shared, acknowledged)
        })?;
        self.settle(stack, &sent)?;
        self.outcome.kills = self.outcome.kills.saturating_add(2);
        writeln!(
            out,
            "collector away for {} s: {} events, exact",
            away.as_secs(),
            self.expected.events()
        )?;
        Ok(())
    }

    /// Ends both programs, and compares their files with each other and with what was sent.
    fn audit(&self, stack: &mut Stack, out: &mut dyn Write) -> Result<()> {
        stack.stop_agent()?;
        stack.stop_collector()?;
        let audit = audit(stack.folder())?;
        ensure!(audit.usage == self.expected, "the ledger's batches do not come to what was sent");
        ensure!(audit.compared > 0, "the journal retained nothing to compare");
        writeln!(
            out,
            "files: {} batches in one chain, {} compared byte by byte with the journal",
            audit.batches, audit.compared
        )?;
        Ok(())
    }

    fn clients(&mut self, stack: &Stack, name: &str) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for number in 0..self.plan.clients {
            let events = Route::Events(stack.path("events.socket"));
            let http = Route::Http(stack.events_url());
            for (route, door) in [(events, "events"), (http, "http")] {
                let mix = Mix {
                    customers: CUSTOMERS,
                    meters: METERS,
                    door,
                    quantity_end: 1_000,
                    pause: Duration::ZERO,
                };
                let name = format!("{name}-{door}-{number}");
                clients.push(Client::new(&name, route, mix, self.random.fork())?);
            }
        }
        Ok(clients)
    }

    fn settle(&mut self, stack: &Stack, sent: &Expected) -> Result<()> {
        self.expected.merge(sent)?;
        stack.wait_posted(self.expected.events())?;
        self.expected.check(&stack.api())
    }
}

/// Kills, and has both running again in the end.
fn kill(stack: &mut Stack, victim: Victim, between: Duration) -> Result<()> {
    match victim {
        Victim::Agent => {
            stack.kill_agent()?;
            pause(between);
            stack.start_agent()
        }
        Victim::Collector => {
            stack.kill_collector()?;
            pause(between);
            stack.start_collector()
        }
        Victim::Both => {
            stack.kill_collector()?;
            pause(between);
            stack.kill_agent()?;
            stack.start_agent()?;
            stack.start_collector()
        }
        Victim::AgentTwice => {
            stack.kill_agent()?;
            stack.spawn_agent()?;
            pause(between);
            stack.kill_agent()?;
            stack.start_agent()
        }
        Victim::CollectorTwice => {
            stack.kill_collector()?;
            stack.spawn_collector()?;
            pause(between);
            stack.kill_collector()?;
            stack.start_collector()
        }
    }
}

/// Waits until more than `acknowledged` events are acknowledged.
fn wait_advance(shared: &Shared, acknowledged: u64) -> Result<()> {
    until("an acknowledgement", ADVANCE_WAIT, || match shared.acknowledged() {
        now if now > acknowledged => Ok(()),
        now => Err(format!("{now} events acknowledged")),
    })
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1)
}
