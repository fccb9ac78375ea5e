//! `ids-speed`: see `tidemark_tests::ids_speed`. Build it with --release.

use anyhow::Result;
use clap::Parser;
use tidemark_tests::ids_speed::{Options, run};
use tidemark_tests::interrupts;

/// Prints how fast a ledger admits lines without ids, with new ones, and with known ones.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Batches of each kind in a round.
    #[arg(long, default_value_t = 100)]
    batches: u32,
    /// Lines of a batch.
    #[arg(long, default_value_t = 1_000)]
    lines: u32,
}

fn main() -> Result<()> {
    let Arguments { rounds, batches, lines } = Arguments::parse();
    let _interrupted = interrupts::watch()?;
    run(Options { rounds, batches, lines }, &mut std::io::stdout().lock())
}
