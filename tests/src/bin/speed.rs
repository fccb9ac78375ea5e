//! `speed`: see `tidemark_tests::speed`. Build it, and both programs, with --release.

use anyhow::Result;
use clap::Parser;
use tidemark_tests::speed::{Options, run};

/// Prints the agent's memory, and the events a second that it makes durable and gets posted, beside
/// those of a bare receiving loop.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long to send, for each door and each receiver.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    run(Options { seconds: arguments.seconds }, &mut std::io::stdout().lock())
}
