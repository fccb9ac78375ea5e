//! The seeded world in its short form: some hundred seeds, and every planted bug found.
//!
//! `cargo run --release -p tidemark-tests --bin world -- --seeds 1..10001` is the long form.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tidemark_tests::world::many::{Many, Span};
use tidemark_tests::world::planted::Bug;
use tidemark_tests::world::stampede::stampede;
use tidemark_tests::world::{Options, run};

/// Worlds of the short form.
const SEEDS: Span = Span { first: 1, end: 301 };
/// A planted bug must show within so many worlds.
const SEEDS_TO_FIND_A_BUG: u64 = 60;

#[test]
fn every_promise_holds_in_some_hundred_worlds() -> Result<()> {
    let many = Many { span: SEEDS, minutes: None, threads: None, options: Options::default() };
    let summary = many.run(|line| println!("{line}"));
    ensure!(!summary.has_failed(), "promises are broken:\n{summary}");
    let missing = summary.not_reached(1);
    ensure!(missing.is_empty(), "these never happened: {}", missing.join(", "));
    Ok(())
}

#[test]
fn every_planted_bug_is_found() -> Result<()> {
    let mut hidden = BTreeSet::new();
    for bug in Bug::ALL {
        let options = Options { bug: Some(bug), told: false };
        let found = (1..=SEEDS_TO_FIND_A_BUG).find_map(|seed| {
            let outcome = std::panic::catch_unwind(|| run(seed, options)).ok()?;
            Some((seed, outcome.broken?))
        });
        match found {
            Some((seed, broken)) => println!("{bug:?}: seed {seed}: {broken}"),
            None => {
                hidden.insert(bug);
            }
        }
    }
    ensure!(hidden.is_empty(), "not found within {SEEDS_TO_FIND_A_BUG} worlds: {hidden:?}");
    Ok(())
}

#[test]
fn a_seed_tells_the_same_story_twice() -> Result<()> {
    for seed in 1..=20 {
        let (first, second) = (run(seed, Options::default()), run(seed, Options::default()));
        ensure!(first == second, "seed {seed} is not deterministic:\n{first:#?}\n{second:#?}");
    }
    Ok(())
}

#[test]
fn a_restart_under_a_thousand_agents_is_no_stampede() -> Result<()> {
    for down_millis in [100, 2_000] {
        let figures = stampede(1_000, down_millis, 1);
        println!("down for {down_millis} ms: {figures:?}");
        // All at once would be 1,000.
        ensure!(figures.hellos_at_worst <= 200, "{figures:?}");
        ensure!(figures.all_live_after <= 60_000, "{figures:?}");
    }
    Ok(())
}
