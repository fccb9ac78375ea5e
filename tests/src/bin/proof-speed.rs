//! `proof-speed`: see `tidemark_tests::proof_speed`. Build it, and the collector, with --release.

use anyhow::Result;
use clap::Parser;
use tidemark_tests::interrupts;
use tidemark_tests::proof_speed::{Options, run};

/// Prints how long reconciliation, certificates, proofs and verification take, in how much memory, and how large they are.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000)]
    customers: u32,
    /// Rows of usage, all customers together.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
    #[arg(long, default_value_t = 10_000)]
    streams: u32,
}

fn main() -> Result<()> {
    let Arguments { customers, rows, streams } = Arguments::parse();
    let _interrupted = interrupts::watch()?;
    run(Options { customers, rows, streams }, &mut std::io::stdout().lock())
}
