//! The file system is full: under the journal, then under the ledger.
//!
//! What must hold: nothing acknowledged is lost, and nothing is acknowledged that is not on disk. The
//! program may push back or end with an error that names the full disk; once there is room, all is
//! posted.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::bench::Bench;
use super::books::{AgentLife, settings, wait_advance};
use super::disk::Disk;
use super::system::not_root;
use crate::binaries::Program;
use crate::process::log_tail;
use crate::resend::Shared;
use crate::settings::Settings;
use crate::stack::Stack;
use crate::wait::{pause, until};

const FULL: &str = "No space left on device";
/// How long a program may go on with what it holds already.
const END_WAIT: Duration = Duration::from_secs(60);

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    if let Some(why) = not_root() {
        return bench.skip("agent, collector", why);
    }
    let hold = bench.length(Duration::from_secs(1), Duration::from_secs(60));
    for program in [Program::Agent, Program::Collector] {
        // Declared before the stack, so that it is unmounted after both have ended.
        let disk = match Disk::new() {
            Ok(disk) => disk,
            Err(why) => {
                bench.skip(program.name(), format!("{why:#}"))?;
                continue;
            }
        };
        let mut stack = Stack::start(placed(settings()?, program, &disk))?;
        let mut books = bench.books()?;
        let (life, name) = match program {
            Program::Agent => (AgentLife::Dies, "under the journal"),
            Program::Collector => (AgentLife::Lives, "under the ledger"),
        };
        let during = |stack: &mut Stack, shared: &Shared| {
            disk.fill()?;
            wait_end(stack, program)?;
            if program == Program::Collector {
                // The agent goes on by itself.
                wait_advance(shared)?;
            }
            // With the disk still full it cannot begin, and says so; nothing is damaged by trying.
            match program {
                Program::Agent => stack.spawn_agent()?,
                Program::Collector => stack.spawn_collector()?,
            }
            pause(hold);
            disk.free()?;
            match program {
                Program::Agent => stack.start_agent(),
                Program::Collector => stack.start_collector(),
            }
        };
        bench.case(&mut books, &mut stack, (name, "ext4"), life, during)?;
    }
    Ok(())
}

fn placed(settings: Settings, program: Program, disk: &Disk) -> Settings {
    let on_disk = |name: &str| disk.path().join(name).to_string_lossy().into_owned();
    match program {
        Program::Agent => settings.agent("journal.path", on_disk("journal.redb")),
        Program::Collector => settings.collector("data_dir", on_disk("ledger")),
    }
}

/// Waits until the program has ended with a failure, and its log says why.
fn wait_end(stack: &mut Stack, program: Program) -> Result<()> {
    let (process, log) = match program {
        Program::Agent => (stack.agent()?, "agent.log"),
        Program::Collector => (stack.collector()?, "collector.log"),
    };
    let status = until(&format!("{} to meet the full disk", program.name()), END_WAIT, || {
        match process.ended() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })?;
    let log = log_tail(program, &stack.path(log));
    ensure!(status.code() == Some(1), "{} ended with {status}", program.name());
    ensure!(log.contains(FULL), "the log does not say {FULL:?}");
    Ok(())
}
