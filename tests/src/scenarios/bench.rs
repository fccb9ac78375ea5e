//! A run of scenarios: how long, with which seed, and the rows of its table.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};

use super::books::{AgentLife, Books, Figures};
use crate::random::Random;
use crate::resend::Shared;
use crate::stack::Stack;
use crate::wait::Stopwatch;

/// How thorough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Seconds a case, with timeouts set short where the configuration allows it.
    Short,
    /// The timeouts as shipped, and faults that outlast them.
    Long,
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub form: Form,
    /// How long each fault lasts, in place of the form's own length.
    pub fault: Option<Duration>,
    pub seed: u64,
}

/// What a case came to.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Accepted is posted, to the event.
    Exact(Figures),
    /// This machine cannot run it, and why.
    Skipped(String),
    Failed(String),
}

/// One case of one scenario.
#[derive(Debug, Clone)]
pub struct Row {
    pub scenario: &'static str,
    pub case: String,
    /// The means that did the harm.
    pub by: String,
    pub seconds: u64,
    pub outcome: Outcome,
}

/// One scenario's run.
pub(super) struct Bench<'o> {
    scenario: &'static str,
    pub(super) plan: Plan,
    random: Random,
    out: &'o mut dyn Write,
    rows: Vec<Row>,
}

impl<'o> Bench<'o> {
    pub(super) fn new(scenario: &'static str, plan: Plan, out: &'o mut dyn Write) -> Self {
        Self { scenario, plan, random: Random::new(plan.seed), out, rows: Vec::new() }
    }

    /// How long a fault lasts.
    pub(super) fn length(&self, short: Duration, long: Duration) -> Duration {
        self.plan.fault.unwrap_or(match self.plan.form {
            Form::Short => short,
            Form::Long => long,
        })
    }

    pub(super) fn random(&mut self) -> Random {
        self.random.fork()
    }

    pub(super) fn out(&mut self) -> &mut dyn Write {
        self.out
    }

    /// Clients of a stack that has just started.
    pub(super) fn books(&mut self) -> Result<Books> {
        let books = Books::new(self.random());
        if let Some(missing) = books.library_missing() {
            self.row("client libraries", "", Stopwatch::start(), Outcome::Skipped(missing))?;
        }
        Ok(books)
    }

    /// One case: `during` does the harm and ends it while clients send; then all must be posted.
    pub(super) fn case(
        &mut self,
        books: &mut Books,
        stack: &mut Stack,
        (name, by): (&str, &str),
        agent: AgentLife,
        during: impl FnOnce(&mut Stack, &Shared) -> Result<()>,
    ) -> Result<()> {
        let clock = Stopwatch::start();
        match books.under_load(stack, agent, during) {
            Ok(figures) => self.row(name, by, clock, Outcome::Exact(figures)),
            Err(error) => bail!("{name}: {error:#}; seed {}\n{}", self.plan.seed, stack.logs()),
        }
    }

    pub(super) fn skip(&mut self, name: &str, why: impl Into<String>) -> Result<()> {
        self.row(name, "", Stopwatch::start(), Outcome::Skipped(why.into()))
    }

    pub(super) fn row(
        &mut self,
        case: &str,
        by: &str,
        clock: Stopwatch,
        outcome: Outcome,
    ) -> Result<()> {
        let row = Row {
            scenario: self.scenario,
            case: case.to_owned(),
            by: by.to_owned(),
            seconds: clock.elapsed().as_secs(),
            outcome,
        };
        write_row(self.out, &row)?;
        if let Outcome::Failed(why) = &row.outcome {
            writeln!(self.out, "{why}")?;
        }
        self.out.flush()?;
        self.rows.push(row);
        Ok(())
    }

    /// The rows; an error of the scenario is the last of them.
    pub(super) fn finish(mut self, outcome: Result<()>) -> Result<Vec<Row>> {
        if let Err(error) = outcome {
            let failed = Outcome::Failed(format!("{error:#}"));
            self.row("ended early", "", Stopwatch::start(), failed)?;
        }
        Ok(self.rows)
    }
}

/// How many of the rows failed.
#[must_use]
pub fn failed(rows: &[Row]) -> usize {
    rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).count()
}

/// All rows, and how many there are of each outcome.
///
/// # Errors
/// When `out` is closed.
pub fn write_table(out: &mut dyn Write, rows: &[Row]) -> Result<()> {
    writeln!(
        out,
        "\n{:<14} {:<34} {:<10} {:>4} {:>9} {:>8} {:>7} {:>9}  outcome",
        "scenario", "case", "by", "s", "acknowl.", "plain", "resent", "posted"
    )?;
    let mut exact: usize = 0;
    let mut skipped: usize = 0;
    for row in rows {
        write_row(out, row)?;
        match row.outcome {
            Outcome::Exact(_) => exact = exact.saturating_add(1),
            Outcome::Skipped(_) => skipped = skipped.saturating_add(1),
            Outcome::Failed(_) => {}
        }
    }
    writeln!(out, "{exact} exact, {} failed, {skipped} skipped", failed(rows))?;
    Ok(())
}

fn write_row(out: &mut dyn Write, row: &Row) -> Result<()> {
    let Row { scenario, case, by, seconds, outcome } = row;
    write!(out, "{scenario:<14} {case:<34} {by:<10} {seconds:>4} ")?;
    match outcome {
        Outcome::Exact(figures) => {
            let Figures { acknowledged, plain, plain_lost, resent, posted } = figures;
            write!(out, "{acknowledged:>9} {plain:>8} {resent:>7} {posted:>9}  exact")?;
            if *plain_lost > 0 {
                write!(out, ", {plain_lost} datagrams lost before the agent")?;
            }
            writeln!(out)?;
        }
        Outcome::Skipped(why) => writeln!(out, "SKIPPED: {why}")?,
        Outcome::Failed(why) => {
            writeln!(out, "FAILED: {}", why.lines().next().unwrap_or_default())?;
        }
    }
    Ok(())
}
