//! `scenarios [NAME...]`: real processes under real faults. See `tidemark_tests::scenarios`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use tidemark_tests::interrupts;
use tidemark_tests::random::Random;
use tidemark_tests::scenarios::{Form, Plan, failed, run, write_table};

/// Does harm to an agent and a collector while clients send, and checks that what was accepted is
/// posted, exactly. Exits with 1 on any loss or double.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which scenarios: kill-9, both-at-once, restart-storm, sigstop, partition, full-disk, clock,
    /// fd-exhaustion; all unless named.
    names: Vec<String>,
    /// The timeouts as shipped, and faults that outlast them.
    #[arg(long)]
    long: bool,
    /// How long each fault lasts, in place of the form's own length.
    #[arg(long)]
    seconds: Option<u64>,
    /// The seed of load and kills; random unless given.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let plan = Plan {
        form: if arguments.long { Form::Long } else { Form::Short },
        fault: arguments.seconds.map(Duration::from_secs),
        seed: arguments.seed.unwrap_or_else(Random::fresh_seed),
    };
    use std::io::Write as _;
    // So that processes, mounts and namespaces are gone also then.
    let _interrupted = interrupts::watch()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "scenarios: seed {}", plan.seed)?;
    let rows = run(&arguments.names, plan, &mut out)?;
    write_table(&mut out, &rows)?;
    Ok(if failed(&rows) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
