//! Kill -9: rounds of it (`crate::kill_loop`), both programs at once as the kernel's memory killer or
//! a power cut would, and restarts faster than either gets anywhere.

use std::time::Duration;

use anyhow::Result;

use super::bench::{Bench, Form, Outcome};
use super::books::{AgentLife, Figures, settings, wait_advance};
use crate::kill_loop;
use crate::resend::Shared;
use crate::stack::Stack;
use crate::wait::{Stopwatch, pause};

const SHORT_ROUNDS: u32 = 5;
const LONG_ROUNDS: u32 = 100;
/// Between two kills of a storm.
const STORM_PERIOD: Duration = Duration::from_secs(1);

/// The kill loop, as rows of this table.
pub(super) fn kill_9(bench: &mut Bench<'_>) -> Result<()> {
    let clock = Stopwatch::start();
    let rounds = match bench.plan.form {
        Form::Short => SHORT_ROUNDS,
        Form::Long => LONG_ROUNDS,
    };
    let plan = kill_loop::Plan { rounds, ..kill_loop::Plan::quick(bench.plan.seed) };
    let outcome = kill_loop::run(plan, bench.out())?;
    let figures = Figures {
        acknowledged: outcome.events,
        resent: outcome.resent_batches,
        posted: outcome.events,
        ..Figures::default()
    };
    bench.row(
        &format!("{} kills, files compared", outcome.kills),
        "SIGKILL",
        clock,
        Outcome::Exact(figures),
    )
}

/// Both die in the same moment, and both come back.
pub(super) fn both_at_once(bench: &mut Bench<'_>) -> Result<()> {
    let rounds = match bench.plan.form {
        Form::Short => 3,
        Form::Long => 50,
    };
    let mut stack = Stack::start(settings()?)?;
    let mut books = bench.books()?;
    let mut random = bench.random();
    let name = format!("{rounds} times");
    bench.case(&mut books, &mut stack, (&name, "SIGKILL"), AgentLife::Dies, |stack, shared| {
        for _ in 0..rounds {
            pause(Duration::from_millis(random.below(700)));
            stack.kill_both()?;
            stack.start_both()?;
            wait_advance(shared)?;
        }
        Ok(())
    })
}

/// Both are killed every second, whatever they are at.
pub(super) fn restart_storm(bench: &mut Bench<'_>) -> Result<()> {
    let length = bench.length(Duration::from_secs(6), Duration::from_secs(180));
    let mut stack = Stack::start(settings()?)?;
    let mut books = bench.books()?;
    let storm = |stack: &mut Stack, shared: &Shared| {
        let clock = Stopwatch::start();
        while clock.elapsed() < length {
            stack.kill_both()?;
            stack.spawn_agent()?;
            stack.spawn_collector()?;
            pause(STORM_PERIOD);
        }
        stack.kill_both()?;
        stack.start_both()?;
        wait_advance(shared)
    };
    let name = format!("both every second for {} s", length.as_secs());
    bench.case(&mut books, &mut stack, (&name, "SIGKILL"), AgentLife::Dies, storm)
}
