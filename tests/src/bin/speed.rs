//! `speed`: see `tidemark_tests::speed`. Build it, and both programs, with --release.

use anyhow::Result;
use clap::Parser;
use tidemark_tests::speed::{Options, run, start};

/// Prints the agent's memory, and the events a second that it makes durable and gets posted, beside
/// those of a bare receiving loop.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long to send, for each door and each receiver.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measure a start with a full journal of this size instead, such as 2GiB.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "2GiB")]
    start: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(bytes_max) = arguments.start {
        return start::run(&bytes_max, &mut std::io::stdout().lock());
    }
    run(Options { seconds: arguments.seconds }, &mut std::io::stdout().lock())
}
