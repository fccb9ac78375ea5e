//! `kill-loop --rounds N --seed S`: the long form of the kill -9 test. See `tidemark_tests::kill_loop`.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use tidemark_tests::kill_loop::{Plan, run};
use tidemark_tests::random::Random;

/// Kills agent and collector at random moments under load; every acknowledged event must be billed
/// exactly once.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// The seed of load and kills; random unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients for each acknowledged door.
    #[arg(long, default_value_t = 3)]
    clients: u32,
    /// A kill comes after at most this many milliseconds of load.
    #[arg(long, default_value_t = 2_000)]
    moment_max_millis: u64,
    /// In the end, the collector is away for this many seconds.
    #[arg(long, default_value_t = 60)]
    away_seconds: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plan = Plan {
        rounds: arguments.rounds,
        seed: arguments.seed.unwrap_or_else(Random::fresh_seed),
        clients: arguments.clients,
        moment_max: Duration::from_millis(arguments.moment_max_millis),
        away: Duration::from_secs(arguments.away_seconds),
    };
    let mut out = std::io::stdout().lock();
    let outcome = run(plan, &mut out)?;
    use std::io::Write as _;
    writeln!(
        out,
        "{} events over {} kills, each billed exactly once; {} batches were sent again",
        outcome.events, outcome.kills, outcome.resent_batches
    )?;
    Ok(())
}
