//! Every acknowledged event is billed exactly once, through kill -9 on either side.

use anyhow::{Result, ensure};
use tidemark_tests::kill_loop::{Plan, run};
use tidemark_tests::random::Random;

/// The short form. For more rounds, or the seed of a failure: `kill-loop --rounds N --seed S`.
#[test]
fn every_acknowledged_event_is_billed_once_through_kill_9() -> Result<()> {
    let plan = Plan::quick(Random::fresh_seed());
    let outcome = run(plan, &mut std::io::stdout())?;
    ensure!(outcome.kills >= 20, "{outcome:?}");
    ensure!(outcome.resent_batches > 0, "no kill met a batch on its way: {outcome:?}");
    ensure!(outcome.events > 10_000, "hardly any load: {outcome:?}");
    Ok(())
}
