//! `deploy/demo`: see `tidemark_tests::demo`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tidemark_tests::demo::{Options, run, write_addresses};
use tidemark_tests::interrupts;
use tidemark_tests::random::Random;
use tidemark_tests::settings::Ports;
use tidemark_tests::wait;

/// Sends usage of five customers through every door, kills agent and collector with -9 while it flows,
/// and shows what was accepted, posted and billed.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave both programs running until Ctrl-C, at the documented ports, and print their addresses.
    #[arg(long)]
    stay: bool,
    /// Print one JSON object instead of tables; progress goes to standard error.
    #[arg(long)]
    json: bool,
    /// How long usage flows.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Which ports to use: any that are free (the default), or those of the documentation (the
    /// default with --stay).
    #[arg(long, value_enum)]
    ports: Option<PortChoice>,
    /// The seed of the load; random unless given.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PortChoice {
    Free,
    Documented,
}

fn main() -> ExitCode {
    let outcome = execute(&Arguments::parse());
    let mut stderr = std::io::stderr();
    // Where standard error is closed, there is nobody to tell.
    let _told = match &outcome {
        Ok(_) => Ok(()),
        Err(_) if wait::is_interrupted() => {
            writeln!(stderr, "interrupted: both programs are ended, their folder is removed")
        }
        Err(error) => writeln!(stderr, "demo: {error:#}"),
    };
    outcome.unwrap_or(ExitCode::FAILURE)
}

fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let default = if arguments.stay { PortChoice::Documented } else { PortChoice::Free };
    let ports = match arguments.ports.unwrap_or(default) {
        PortChoice::Free => Ports::free()?,
        PortChoice::Documented => Ports::DOCUMENTED,
    };
    let options = Options {
        seconds: arguments.seconds,
        ports,
        seed: arguments.seed.unwrap_or_else(Random::fresh_seed),
    };
    let interrupted = interrupts::watch()?;
    let mut progress = std::io::stderr().lock();
    let finished = run(options, &mut progress)?;

    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&finished.report)?)?;
    } else {
        finished.report.write(&mut out)?;
    }
    out.flush()?;
    if arguments.stay {
        write_addresses(&finished.stack, &mut progress)?;
        writeln!(progress, "\nBoth keep running. Ctrl-C ends them and removes their folder.")?;
        // An error means that the watcher is gone, which is as good a reason to end.
        let _watcher_gone = interrupted.recv();
    }
    Ok(if finished.report.conserved { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
