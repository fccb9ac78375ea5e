//! `small-memory`: see `tidemark_tests::small_memory`. It needs root.

use anyhow::{Context, Result};
use clap::Parser;
use tidemark_tests::interrupts;
use tidemark_tests::small_memory::{Options, run};

/// Sends to every door of an agent whose memory is limited, with and without a collector, and prints what it took.
#[derive(Debug, Parser)]
struct Arguments {
    /// MiB that the agent may keep in memory.
    #[arg(long, default_value_t = 64)]
    limit_mib: u64,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// One of udp, datagrams, frames, lines, bodies; may be given several times; all of them without it.
    #[arg(long)]
    only: Vec<String>,
    /// A key of agent.toml, such as `journal.bytes_max=256MiB`; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn main() -> Result<()> {
    let Arguments { limit_mib, seconds, only, set } = Arguments::parse();
    let agent = set.iter().map(|set| {
        let (key, value) = set.split_once('=').context("--set takes KEY=VALUE")?;
        Ok((key.to_owned(), value.to_owned()))
    });
    let agent = agent.collect::<Result<_>>()?;
    let _interrupted = interrupts::watch()?;
    let options = Options { limit: limit_mib << 20, seconds, only, agent };
    run(&options, &mut std::io::stdout().lock())
}
