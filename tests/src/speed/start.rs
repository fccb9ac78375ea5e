//! How long a start takes with a full journal, after kill -9.
//!
//! From the start of the process until the doors are open: every page, chunk and sum is checked. Once with the
//! file in memory, as after a crash of the agent alone, and once from the disk, as after a reboot. Then how long
//! `inspect` and `fsck` take with it.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::binaries::Program;
use crate::full_journal::{Filled, fill, is_full};
use crate::settings::{Ports, Settings};
use crate::stack::Stack;
use crate::wait::Stopwatch;

/// Nothing fills a journal for longer.
const FILL_MAX: Duration = Duration::from_secs(900);

/// Fills the journal of an agent without a collector, kills it, and measures its starts.
///
/// # Errors
/// When the agent does not come up, or its journal does not get full.
pub fn run(bytes_max: &str, out: &mut dyn Write) -> Result<()> {
    let settings = Settings::new(Ports::free()?, super::CATALOGUE);
    let mut stack = Stack::prepare(settings.agent("journal.bytes_max", bytes_max))?;
    stack.start_agent()?;
    let clock = Stopwatch::start();
    let Filled { accepted, refused } = fill(&stack, FILL_MAX)?;
    let path = stack.path("journal.redb");
    let length = std::fs::metadata(&path)?.len();
    writeln!(
        out,
        "full after {:?}: {accepted} events accepted, {refused} refused; a file of {} MiB within {bytes_max}",
        clock.elapsed(),
        length >> 20
    )?;
    for from in ["memory", "disk"] {
        stack.kill_agent()?;
        if from == "disk" {
            let file = File::open(&path)?;
            file.sync_all()?;
            let whole = posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            whole.context("failed to have the kernel forget the file")?;
        }
        let clock = Stopwatch::start();
        stack.start_agent()?;
        let took = clock.elapsed();
        let resident = stack.agent()?.resident_kib()?;
        writeln!(
            out,
            "start, from {from}: {took:?} until the doors are open, {resident} KiB resident"
        )?;
        ensure!(is_full(&stack)?, "the journal is not full any more");
        let held = stack.agent_metrics()?.count("tidemark_agent_accepted_events_total")?;
        ensure!(held == accepted, "{held} events after the start, {accepted} before");
    }
    look(&stack, "through the agent", out)?;
    stack.kill_agent()?;
    look(&stack, "on the file of one that was killed", out)
}

/// Times the two commands that look at all of a journal.
fn look(stack: &Stack, from: &str, out: &mut dyn Write) -> Result<()> {
    for command in ["inspect", "fsck"] {
        let mut agent = Command::new(Program::Agent.path()?);
        agent.args([command, "--config", "agent.toml"]).current_dir(stack.folder());
        let clock = Stopwatch::start();
        let output = agent.output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        writeln!(out, "{command}, {from}: {:?}", clock.elapsed())?;
    }
    Ok(())
}
