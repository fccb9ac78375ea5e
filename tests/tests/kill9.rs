//! Every acknowledged event is billed exactly once, and every customer invoiced once, through kill -9.

use anyhow::{Result, ensure};
use tidemark_tests::billing_kill;
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

/// The short form. For more rounds, or the seed of a failure: `billing-kill --rounds N --seed S`.
#[test]
fn every_customer_is_invoiced_once_through_kill_9() -> Result<()> {
    let plan = billing_kill::Plan::quick(Random::fresh_seed());
    let outcome = billing_kill::run(plan, &mut std::io::stdout())?;
    ensure!(outcome.invoices == 200 * u64::from(outcome.rounds), "{outcome:?}");
    ensure!(outcome.kills >= 3 && outcome.amid >= 1, "{outcome:?}");
    Ok(())
}
