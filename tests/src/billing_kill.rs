//! Rounds of kill -9 at random points of billing runs: each customer is invoiced once.
//!
//! ```text
//! prepare   an agent posts usage of the month before to a collector; both end; the ledger's folder is kept
//! a round   on a copy of it: up to four runs that are killed, until one issues the last invoice or is let alone; then
//!           one that finds nothing to issue
//! ```
//! A run is asked for through a running collector, or made on the folder of a stopped one; by one command, or by two
//! at once; and the collector is killed, or a command: when so many customers were told of, or when a part of the time
//! has passed that a run takes which nobody kills.
//!
//! Whenever a collector starts, what is in its books so far is checked ([`books`]): one invoice a customer, of the
//! amount that was reckoned beside it, with all that was told as issued among them; numbers without a hole; a trial
//! balance that is what the invoices come to. In the end every customer has one. `fsck` reads the folder after each kill.
//!
//! A seed gives the same usage and the same plan of kills; the exact moment within the programs is up to the machine.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

mod books;
mod command;
mod prepared;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::books::Found;
use self::command::{Commands, Counts, Ended};
use self::prepared::Prepared;
use crate::binaries::Program;
use crate::random::Random;
use crate::wait::{Stopwatch, pause};

const KILLS_MAX: u64 = 4;
/// A kill comes at most so long after the line that it waits for.
const LATER_MAX_MICROS: u64 = 3_000;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: u32,
    pub customers: u32,
    pub seed: u64,
    /// Rounds go on, up to ten times as many, until so many kills came when some had an invoice and others had none.
    pub amid_min: u64,
}

impl Plan {
    /// The short form.
    #[must_use]
    pub fn quick(seed: u64) -> Self {
        Self { rounds: 3, customers: 200, seed, amid_min: 1 }
    }
}

/// What it came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub rounds: u32,
    /// Invoices, all rounds together.
    pub invoices: u64,
    pub kills: u64,
    /// Kills after which some of the customers had an invoice and others had none.
    pub amid: u64,
    pub fscks: u64,
}

/// Who is killed, in a run of which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The collector that makes the run.
    Collector,
    /// The command that makes it on a stopped collector's folder.
    Stopped,
    /// The collector that makes two at once.
    CollectorOfTwo,
    /// The command that asked for it: the collector may go on.
    Command,
    /// One of two that asked at once.
    CommandOfTwo,
    /// One of two on a folder, of which the ledger's lock refuses one.
    StoppedOfTwo,
}

impl Victim {
    const ALL: [Self; 6] = [
        Self::Collector,
        Self::Stopped,
        Self::CollectorOfTwo,
        Self::Command,
        Self::CommandOfTwo,
        Self::StoppedOfTwo,
    ];

    fn is_of_folder(self) -> bool {
        match self {
            Self::Stopped | Self::StoppedOfTwo => true,
            Self::Collector | Self::CollectorOfTwo | Self::Command | Self::CommandOfTwo => false,
        }
    }

    fn commands(self) -> usize {
        match self {
            Self::Collector | Self::Stopped | Self::Command => 1,
            Self::CollectorOfTwo | Self::CommandOfTwo | Self::StoppedOfTwo => 2,
        }
    }
}

/// When something is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So many customers were told of, and so much later.
    Told { lines: u64, later: Duration },
    /// So much after the command was started.
    Passed(Duration),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told { lines, .. } => write!(f, "line {lines}"),
            Self::Passed(length) => write!(f, "{} ms", length.as_millis()),
        }
    }
}

/// Runs the plan; progress goes to `out`, one line a round.
///
/// # Errors
/// With the seed and the round, whatever is not as it must be.
pub fn run(plan: Plan, out: &mut dyn Write) -> Result<Outcome> {
    let Plan { rounds, customers, seed, amid_min } = plan;
    writeln!(out, "billing kill: seed {seed}, {rounds} rounds of {customers} customers")?;
    let (mut random, clock) = (Random::new(seed), Stopwatch::start());
    let prepared = Prepared::new(customers, &mut random)?;
    writeln!(
        out,
        "prepared: {} events of usage before {} are posted ({} ms)",
        prepared.events,
        prepared.period_end,
        clock.elapsed().as_millis()
    )?;
    let mut run = Run {
        prepared,
        random,
        outcome: Outcome::default(),
        told: BTreeMap::new(),
        issued: BTreeSet::new(),
        seen: Vec::new(),
        serves: false,
        lengths: [Duration::ZERO; 2],
    };
    run.measure().with_context(|| format!("seed {seed}, without kills"))?;
    let [served, stopped] = run.lengths.map(|length| length.as_millis());
    writeln!(out, "a run takes {served} ms through a collector, {stopped} ms on a folder")?;
    while run.outcome.rounds < rounds
        || (run.outcome.amid < amid_min && run.outcome.rounds < rounds.saturating_mul(10))
    {
        let (clock, round) = (Stopwatch::start(), run.outcome.rounds + 1);
        let story = run.round(round).with_context(|| {
            format!("seed {seed}, round {round}: {:?}\n{}", run.seen, run.prepared.stack.logs())
        })?;
        writeln!(out, "round {round:>3}: {story} ({} ms)", clock.elapsed().as_millis())?;
        out.flush()?;
    }
    ensure!(run.outcome.amid >= amid_min, "only {:?}, with seed {seed}", run.outcome);
    Ok(run.outcome)
}

struct Run {
    prepared: Prepared,
    random: Random,
    outcome: Outcome,
    /// The number of each customer's invoice, as some command has told it in this round.
    told: BTreeMap<String, String>,
    /// The customers whose invoice some command has issued.
    issued: BTreeSet<String>,
    /// What was done in this round.
    seen: Vec<String>,
    /// Whether a collector runs.
    serves: bool,
    /// How long a run takes through a collector, and on a folder.
    lengths: [Duration; 2],
}

impl Run {
    fn round(&mut self, round: u32) -> Result<String> {
        self.prepared.copy_ledger()?;
        self.told.clear();
        self.issued.clear();
        self.seen.clear();
        let first = usize::try_from(round - 1)? % Victim::ALL.len();
        let kills = 1 + self.random.below(KILLS_MAX);
        for kill in 0..kills {
            let victim =
                if kill == 0 { Victim::ALL[first] } else { *self.random.pick(&Victim::ALL) };
            let found = self.killed(victim).with_context(|| format!("{victim:?}"))?;
            if found == self.customers() {
                break;
            }
        }
        self.complete()?;
        self.issue_nothing().context("a further run")?;
        let found = self.check()?;
        ensure!(found.invoices == self.customers(), "{} invoices", found.invoices);
        self.stop()?;
        let documents = self.fsck()?;
        ensure!(documents == found.invoices, "{documents} documents");
        self.outcome.invoices += found.invoices;
        self.outcome.rounds = round;
        Ok(format!("{}; {} invoices, once each", self.seen.join(", "), found.invoices))
    }

    /// How long runs take.
    fn measure(&mut self) -> Result<()> {
        for serves in [true, false] {
            self.prepared.copy_ledger()?;
            if serves {
                self.serve()?;
            }
            let clock = Stopwatch::start();
            let ended = Commands::start(&self.prepared, 1)?.finish()?;
            self.lengths[usize::from(!serves)] = clock.elapsed();
            ensure!(ended.iter().all(Ended::is_complete), "{ended:?}");
            self.stop()?;
        }
        Ok(())
    }

    /// A run that is killed at a random point; how many invoices there are then.
    fn killed(&mut self, victim: Victim) -> Result<u64> {
        if victim.is_of_folder() {
            self.stop()?;
        } else {
            self.serve()?;
        }
        let moment = self.moment();
        let mut commands = Commands::start(&self.prepared, victim.commands())?;
        match moment {
            Moment::Told { lines, later } => {
                commands.wait_told(lines)?;
                pause(later);
            }
            Moment::Passed(length) => pause(length),
        }
        match victim {
            Victim::Collector | Victim::CollectorOfTwo => {
                self.prepared.stack.kill_collector()?;
                self.serves = false;
            }
            Victim::Stopped | Victim::Command | Victim::CommandOfTwo | Victim::StoppedOfTwo => {
                commands.kill_first()?
            }
        }
        self.outcome.kills += 1;
        let ended = commands.finish()?;
        self.take_told(&ended)?;
        let other = ended.last().context("some were started")?;
        match victim {
            Victim::CommandOfTwo => ensure!(other.is_complete(), "the other one: {other:?}"),
            Victim::StoppedOfTwo => {
                ensure!(other.is_complete() || other.is_refused(), "the other one: {other:?}");
            }
            Victim::Collector | Victim::Stopped | Victim::CollectorOfTwo | Victim::Command => {}
        }
        // Where it still serves the run may go on: what is checked is what a reader sees meanwhile. Otherwise the next
        // command may find the folder as the kill has left it.
        let found = if self.serves { self.serve()?.invoices } else { self.fsck()? };
        if self.random.below(2) == 0 {
            self.serve()?;
        }
        self.outcome.amid += u64::from(0 < found && found < self.customers());
        self.seen.push(format!("{victim:?} at {moment}: {found}"));
        Ok(found)
    }

    fn moment(&mut self) -> Moment {
        let micros =
            |length: Duration| u64::try_from(length.as_micros()).unwrap_or(u64::MAX).max(1);
        match self.random.below(2) {
            0 => Moment::Told {
                lines: self.random.below(self.customers()),
                later: Duration::from_micros(self.random.below(LATER_MAX_MICROS)),
            },
            _ => {
                let length = self.lengths[usize::from(!self.serves)];
                Moment::Passed(Duration::from_micros(self.random.below(micros(length))))
            }
        }
    }

    /// Runs that nobody kills: whatever is missing is issued.
    fn complete(&mut self) -> Result<()> {
        let count = match self.random.below(3) {
            0 => {
                self.stop()?;
                1
            }
            1 => {
                self.serve()?;
                1
            }
            _ => {
                self.serve()?;
                2
            }
        };
        let ended = Commands::start(&self.prepared, count)?.finish()?;
        self.take_told(&ended)?;
        for one in &ended {
            ensure!(one.is_complete(), "a run that nobody killed: {one:?}");
        }
        let form = if self.serves { "served" } else { "stopped" };
        self.seen.push(format!("{count} {form}"));
        Ok(())
    }

    fn issue_nothing(&mut self) -> Result<()> {
        let again = Commands::start(&self.prepared, 1)?.finish()?;
        self.take_told(&again)?;
        let expected = Counts { issued_before: self.customers(), ..Counts::default() };
        ensure!(again.iter().all(|one| one.end == Some(expected)), "{again:?}");
        Ok(())
    }

    /// What commands have told as issued is durable: no customer is told another number.
    fn take_told(&mut self, ended: &[Ended]) -> Result<()> {
        for line in ended.iter().flat_map(|one| &one.outcomes) {
            let number = line.number.as_ref().with_context(|| format!("{line:?}"))?;
            let before = self.told.insert(line.customer.clone(), number.clone());
            let is_same = before.as_ref().is_none_or(|before| before == number);
            ensure!(is_same, "{line:?}, and {before:?} was told before");
            let is_once = line.outcome != "issued" || self.issued.insert(line.customer.clone());
            ensure!(is_once, "{line:?} was told as issued before");
        }
        Ok(())
    }

    /// Has a collector run, and checks its books.
    fn serve(&mut self) -> Result<Found> {
        if !self.serves {
            self.prepared.stack.start_collector()?;
            self.serves = true;
        }
        self.check()
    }

    fn stop(&mut self) -> Result<()> {
        if self.serves {
            self.prepared.stack.stop_collector()?;
            self.serves = false;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<Found> {
        if !self.serves {
            return self.serve();
        }
        self.prepared.books(&self.told)
    }

    /// Of a folder that no collector has open; how many documents the books have.
    fn fsck(&mut self) -> Result<u64> {
        let arguments = ["fsck", "--config", "collector.toml", "--json"];
        let (code, text) = self.prepared.stack.command(Program::Collector, &arguments)?;
        ensure!(code == Some(0), "fsck ended with {code:?}: {text}");
        self.outcome.fscks += 1;
        let report: serde_json::Value =
            serde_json::from_str(&text).with_context(|| text.clone())?;
        report["documents"].as_u64().context("a report tells of documents")
    }

    fn customers(&self) -> u64 {
        u64::try_from(self.prepared.calls.len()).expect("a number of customers fits 64 bits")
    }
}
