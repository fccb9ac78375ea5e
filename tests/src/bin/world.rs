//! Runs seeded worlds: `--seed N` tells one's story, `--seeds A..B` and `--minutes M` run many.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tidemark_tests::random::Random;
use tidemark_tests::world::many::{Many, Span};
use tidemark_tests::world::planted::Bug;
use tidemark_tests::world::stampede::stampede;
use tidemark_tests::world::{self, Options};

/// Agents and collectors in one process, under every fault, deterministic from one seed.
#[derive(Debug, Parser)]
#[command(name = "world")]
struct Arguments {
    /// Run this world and tell what happens in it.
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Run these worlds: `1..101` are a hundred.
    #[arg(long, value_parser = Span::parse, conflicts_with = "minutes")]
    seeds: Option<Span>,
    /// Run worlds for so long.
    #[arg(long)]
    minutes: Option<u64>,
    /// Restart a collector under so many agents instead, and measure how they come again.
    #[arg(long, value_name = "AGENTS", conflicts_with_all = ["seed", "seeds", "minutes", "plant"])]
    stampede: Option<usize>,
    /// Plant a bug, by its name.
    #[arg(long, value_parser = bug)]
    plant: Option<Bug>,
    /// Worlds run at once [default: the processors].
    #[arg(long)]
    threads: Option<usize>,
}

fn bug(name: &str) -> Result<Bug, String> {
    Bug::named(name).ok_or_else(|| {
        let all: Vec<String> = Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect();
        format!("there is no bug of that name; there are {}", all.join(", "))
    })
}

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let options = Options { bug: arguments.plant, told: arguments.seed.is_some() };
    let mut out = io::stdout().lock();
    if let Some(agents) = arguments.stampede {
        for down_millis in [100, 2_000, 30_000] {
            let figures = stampede(agents, down_millis, 1);
            writeln!(out, "down for {down_millis} ms: {figures:?}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let broken = if let Some(seed) = arguments.seed {
        let outcome = world::run(seed, options);
        for line in outcome.story.lines() {
            writeln!(out, "{line}")?;
        }
        for (what, count) in &outcome.story.counts {
            writeln!(out, "{count:>9}  {what}")?;
        }
        writeln!(out, "seed {seed}: {} events in {} s", outcome.events, outcome.millis / 1_000)?;
        if let Some(broken) = &outcome.broken {
            writeln!(out, "broken: {broken}")?;
        }
        outcome.broken.is_some()
    } else {
        let span = arguments.seeds.unwrap_or_else(|| Span::from(Random::fresh_seed()));
        let many = Many { span, minutes: arguments.minutes, threads: arguments.threads, options };
        let summary = many.run(|line| {
            // A progress line that nobody can see does not matter.
            drop(writeln!(io::stderr().lock(), "{line}"));
        });
        write!(out, "{summary}")?;
        summary.has_failed()
    };
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
