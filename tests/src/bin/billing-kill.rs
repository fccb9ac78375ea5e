//! `billing-kill --rounds N --customers N --seed S`: the long form. See `tidemark_tests::billing_kill`.

use anyhow::Result;
use clap::Parser;
use tidemark_tests::billing_kill::{Plan, run};
use tidemark_tests::interrupts;
use tidemark_tests::random::Random;

/// Kills collectors and commands at random points of billing runs; every customer must be invoiced once.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many rounds, each on a ledger of its own.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    #[arg(long, default_value_t = 1_000)]
    customers: u32,
    /// The seed of usage and kills; random unless given.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> Result<()> {
    let Arguments { rounds, customers, seed } = Arguments::parse();
    let seed = seed.unwrap_or_else(Random::fresh_seed);
    let plan = Plan { rounds, customers, seed, amid_min: 1 };
    use std::io::Write as _;
    let _interrupted = interrupts::watch()?;
    let mut out = std::io::stdout().lock();
    let outcome = run(plan, &mut out)?;
    writeln!(
        out,
        "{} invoices in {} rounds, each once; {} kills, {} of them amid the invoices; {} times fsck, sound",
        outcome.invoices, outcome.rounds, outcome.kills, outcome.amid, outcome.fscks
    )?;
    Ok(())
}
