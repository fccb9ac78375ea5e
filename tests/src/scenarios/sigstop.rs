//! A process that stands still for longer than every timeout, and then goes on as if nothing were.
//!
//! The short form sets the session's idle time to a second; the long form outlasts the shipped
//! times: 30 s of an idle session, 60 s of silence.

use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::bench::{Bench, Form};
use super::books::{AgentLife, settings};
use crate::binaries::Program;
use crate::stack::Stack;
use crate::wait::pause;

/// Who stands still.
const STOPPED: [(&str, &[Program]); 3] = [
    ("agent", &[Program::Agent]),
    ("collector", &[Program::Collector]),
    ("both", &[Program::Agent, Program::Collector]),
];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let length = bench.length(Duration::from_secs(5), Duration::from_secs(90));
    let settings = match bench.plan.form {
        Form::Short => settings()?
            .collector("session.idle_max", "1s")
            .collector("session.keep_alive", "300ms")
            .collector("session.confirm_interval", "1s")
            .collector("ledger.silent_after", "2s"),
        Form::Long => settings()?,
    };
    let mut stack = Stack::start(settings)?;
    let mut books = bench.books()?;
    for (name, programs) in STOPPED {
        let name = format!("{name} for {} s", length.as_secs());
        bench.case(&mut books, &mut stack, (&name, "SIGSTOP"), AgentLife::Lives, |stack, _| {
            signal(stack, programs, Signal::SIGSTOP)?;
            pause(length);
            signal(stack, programs, Signal::SIGCONT)?;
            for program in programs {
                let process = match program {
                    Program::Agent => stack.agent()?,
                    Program::Collector => stack.collector()?,
                };
                if let Some(status) = process.ended()? {
                    bail!("{} ended with {status} on SIGCONT", program.name());
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn signal(stack: &mut Stack, programs: &[Program], signal: Signal) -> Result<()> {
    for program in programs {
        match program {
            Program::Agent => stack.agent()?.signal(signal)?,
            Program::Collector => stack.collector()?.signal(signal)?,
        }
    }
    Ok(())
}
