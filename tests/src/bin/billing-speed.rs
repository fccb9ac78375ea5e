//! `billing-speed`: see `tidemark_tests::billing_speed`. Build it, and the collector, with --release.

use anyhow::Result;
use clap::Parser;
use tidemark_tests::billing_speed::{Options, run};
use tidemark_tests::interrupts;

/// Prints how long billing runs take, and in how much memory, beside a bare loop that reads the same rows.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 10_000)]
    customers: u32,
    /// Rows of usage, all customers together: a meter's sum in a quarter of an hour for a value of its dimension.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
}

fn main() -> Result<()> {
    let Arguments { customers, rows } = Arguments::parse();
    let _interrupted = interrupts::watch()?;
    run(Options { customers, rows }, &mut std::io::stdout().lock())
}
