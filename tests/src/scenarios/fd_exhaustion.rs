//! No file descriptor is left, at the agent and at the collector.
//!
//! A limit is set a little above what the running process has open, and connections are opened until
//! far beyond it. What is connected goes on; what comes new waits or is refused; the process does not
//! spin meanwhile; and once the connections are closed, new ones are served.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bench::Bench;
use super::books::{AgentLife, settings, wait_advance};
use super::system::call;
use crate::binaries::Program;
use crate::process::Process;
use crate::resend::Shared;
use crate::stack::Stack;
use crate::wait::{Stopwatch, pause, until};

/// Between what is open and the limit.
const SPARE: u64 = 20;
/// More than that, and fewer than what the kernel lets wait for an `accept`.
const CONNECTIONS: usize = 60;
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Of the processor time of one core, while nothing is asked of it.
const IDLE_PERCENT_MAX: u64 = 35;
const RECOVERY_WAIT: Duration = Duration::from_secs(30);

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let length = bench.length(Duration::from_secs(4), Duration::from_secs(60));
    for program in [Program::Agent, Program::Collector] {
        let mut stack = Stack::start(settings()?)?;
        let mut books = bench.books()?;
        let during = |stack: &mut Stack, shared: &Shared| {
            let held = exhaust(stack, program)?;
            let clock = Stopwatch::start();
            while clock.elapsed() < length {
                wait_advance(shared)?;
                pause(Duration::from_millis(100));
            }
            drop(held);
            wait_served(stack, program)
        };
        let name = format!("{}, with load", program.name());
        bench.case(&mut books, &mut stack, (&name, "prlimit"), AgentLife::Lives, during)?;

        let held = exhaust(&mut stack, program)?;
        let percent = busy_percent(process(&mut stack, program)?, length)?;
        ensure!(
            percent <= IDLE_PERCENT_MAX,
            "{} used {percent}% of a core with nothing to do but refuse\n{}",
            program.name(),
            stack.logs()
        );
        drop(held);
        let name = format!("{}, idle at {percent}% of a core", program.name());
        let served = |stack: &mut Stack, _: &Shared| wait_served(stack, program);
        bench.case(&mut books, &mut stack, (&name, "prlimit"), AgentLife::Lives, served)?;
    }
    Ok(())
}

fn process(stack: &mut Stack, program: Program) -> Result<&mut Process> {
    match program {
        Program::Agent => stack.agent(),
        Program::Collector => stack.collector(),
    }
}

/// Connections that are held open, whether they were accepted or wait.
struct Held {
    _unix: Vec<UnixStream>,
    _tcp: Vec<TcpStream>,
}

/// Sets the limit, and opens connections until the process can have no more.
fn exhaust(stack: &mut Stack, program: Program) -> Result<Held> {
    let open = process(stack, program)?.files_open()?;
    let limit = open.saturating_add(SPARE);
    let id = process(stack, program)?.id();
    // The soft limit alone: a hard one that was lowered could not be raised again by everybody.
    call(&["prlimit", "--pid", &id.to_string(), &format!("--nofile={limit}:")])?;
    let (mut unix, mut tcp) = (Vec::new(), Vec::new());
    match program {
        Program::Agent => {
            let http = SocketAddr::from(([127, 0, 0, 1], stack.ports().http));
            for _ in 0..CONNECTIONS {
                unix.extend(UnixStream::connect(stack.path("events.socket")).ok());
                unix.extend(UnixStream::connect(stack.path("dsd-stream.socket")).ok());
                tcp.extend(TcpStream::connect_timeout(&http, CONNECT_WAIT).ok());
            }
        }
        Program::Collector => {
            let api = SocketAddr::from(([127, 0, 0, 1], stack.ports().api));
            for _ in 0..CONNECTIONS {
                tcp.extend(TcpStream::connect_timeout(&api, CONNECT_WAIT).ok());
            }
        }
    }
    let process = process(stack, program)?;
    until("no descriptor to be left", CONNECT_WAIT, || match process.files_open() {
        Ok(open) if open >= limit.saturating_sub(1) => Ok(()),
        Ok(open) => Err(format!("{open} of {limit} are open")),
        Err(error) => Err(format!("{error:#}")),
    })?;
    Ok(Held { _unix: unix, _tcp: tcp })
}

/// Processor time over a while, in percent of one core.
fn busy_percent(process: &Process, length: Duration) -> Result<u64> {
    let before = process.processor_millis()?;
    let clock = Stopwatch::start();
    pause(length);
    let used = process.processor_millis()?.saturating_sub(before);
    let millis = u64::try_from(clock.elapsed().as_millis())?;
    used.saturating_mul(100).checked_div(millis).context("some time has passed")
}

/// New connections are served again.
fn wait_served(stack: &Stack, program: Program) -> Result<()> {
    until("new connections to be served", RECOVERY_WAIT, || {
        let scraped = match program {
            Program::Agent => stack.agent_metrics(),
            Program::Collector => stack.collector_metrics(),
        };
        scraped.map(|_| ()).map_err(|error| format!("{error:#}"))
    })
}
