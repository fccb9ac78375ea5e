//! Real processes under real faults, in their short form. For the long one, a seed or other lengths:
//! `cargo run -p tidemark-tests --bin scenarios -- --help`. (Kill -9 has a test of its own.)
//!
//! They are ignored unless asked for: they need root, and what `tests/run` installs. A case that this
//! machine cannot run prints SKIPPED and why, and `tests/run` counts it as such.

use std::io::Write as _;

use anyhow::{Result, ensure};
use tidemark_tests::random::Random;
use tidemark_tests::scenarios::{Form, Plan, failed, run, write_table};

fn check(scenario: &str) -> Result<()> {
    let plan = Plan { form: Form::Short, fault: None, seed: Random::fresh_seed() };
    let mut out = Vec::new();
    let rows = run(&[scenario.to_owned()], plan, &mut out)?;
    write_table(&mut out, &rows)?;
    // All of it at once, so that scenarios side by side do not mix their lines.
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "scenarios: seed {}\n{}", plan.seed, String::from_utf8_lossy(&out))?;
    ensure!(failed(&rows) == 0 && !rows.is_empty(), "{scenario}: see its rows");
    Ok(())
}

#[test]
#[ignore = "needs root, and what tests/run installs"]
fn both_are_killed_at_once() -> Result<()> {
    check("both-at-once")
}

#[test]
#[ignore = "needs root, and what tests/run installs"]
fn restarts_faster_than_anything_gets_done() -> Result<()> {
    check("restart-storm")
}

#[test]
#[ignore = "needs root, and what tests/run installs"]
fn processes_stand_still() -> Result<()> {
    check("sigstop")
}

#[test]
#[ignore = "needs root, and what tests/run installs"]
fn networks_fail() -> Result<()> {
    check("partition")
}

#[test]
#[ignore = "needs root, and what tests/run installs"]
fn disks_are_full() -> Result<()> {
    check("full-disk")
}

#[test]
#[ignore = "needs root, and what tests/run installs"]
fn clocks_jump() -> Result<()> {
    check("clock")
}

#[test]
#[ignore = "needs root, and what tests/run installs"]
fn descriptors_run_out() -> Result<()> {
    check("fd-exhaustion")
}
