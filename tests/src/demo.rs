//! The demonstration: usage of a handful of customers through every door, both programs killed with
//! -9 while it flows, and what came of it.
//!
//! **Owns** the demonstration's catalogue, load and report. **Does not own** the two programs' doings:
//! every figure is asked of them over their public addresses, but for what the clients sent and what
//! they were told is durable.
//!
//! ```text
//! sent       events that the clients handed to a socket or request
//! accepted   acknowledged doors: what the clients were told is durable;
//!            the others are not told, so: what the agent made durable of them
//! posted     what the ledger shows of it
//! billed     events on the lines of the live bill
//! ```
//! The agent's own count of accepted events, the ledger's count of posted ones, and the sum of the
//! table are counted apart, and must agree to the event.

mod load;
mod report;

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::random::Random;
use crate::settings::{Ports, Settings, TOKEN};
use crate::stack::Stack;
use crate::wait::pause;

use load::Load;

pub use report::{CustomerRow, DoorRow, Report};

/// Meters of several kinds, five customers, one plan.
const CATALOGUE: &str = include_str!("demo/catalog.toml");

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long usage flows.
    pub seconds: u64,
    pub ports: Ports,
    pub seed: u64,
}

/// A demonstration whose programs are still running.
#[derive(Debug)]
pub struct Finished {
    pub report: Report,
    pub stack: Stack,
}

/// Runs it; progress goes to `progress`.
///
/// # Errors
/// When a port is taken, or a program does not come up.
pub fn run(options: Options, progress: &mut dyn Write) -> Result<Finished> {
    if let Some((port, key)) = options.ports.first_in_use() {
        bail!(
            "port {port} on localhost is in use, and `{key}` needs it: end the program that has it, \
             or run with --ports free"
        );
    }
    writeln!(progress, "starting: certificates, collector and agent in a scratch folder")?;
    let settings = Settings::new(options.ports, CATALOGUE).collector("session.idle_max", "3s");
    let mut stack = Stack::start(settings)?;
    writeln!(progress, "running:  {}", stack.folder().display())?;

    let load = Load::new(&stack, Random::new(options.seed))?;
    let sent = load.run(|| kill_both(&mut stack, options.seconds, progress))?;

    writeln!(progress, "settling: waiting until all that was accepted is posted")?;
    stack.wait_posted(sent.acknowledged())?;
    let report = report::make(&stack, &sent)?;
    Ok(Finished { report, stack })
}

/// Usage flows for `seconds`; a third into it the agent is killed, after two thirds the collector.
fn kill_both(stack: &mut Stack, seconds: u64, progress: &mut dyn Write) -> Result<()> {
    let third = Duration::from_millis(seconds.max(3).saturating_mul(1_000) / 3);
    writeln!(progress, "sending:  five customers, five doors, {} s", seconds.max(3))?;
    pause(third);
    stack.kill_agent()?;
    writeln!(progress, "kill -9:  agent; starting it again")?;
    stack.start_agent()?;
    pause(third);
    stack.kill_collector()?;
    writeln!(progress, "kill -9:  collector; starting it again")?;
    stack.start_collector()?;
    pause(third);
    Ok(())
}

/// Where to send to and look at, for people.
///
/// # Errors
/// When `out` cannot be written to.
pub fn write_addresses(stack: &Stack, out: &mut dyn Write) -> Result<()> {
    let Ports { udp, http, admin, api, .. } = stack.ports();
    let local = Ipv4Addr::LOCALHOST;
    let folder = stack.folder().display();
    writeln!(
        out,
        "
Send usage:
  UDP                 {local}:{udp}       echo 'api.calls:1|c|#customer:acme' | nc -u -w1 {local} {udp}
  Unix datagram       {folder}/dsd.socket
  DogStatsD stream    {folder}/dsd-stream.socket
  events (durable)    {folder}/events.socket
                      echo '{{\"meter\":\"api.calls\",\"customer\":\"acme\"}}' | nc -U -N {folder}/events.socket
  CloudEvents         http://{local}:{http}/api/v1/events

Look at it (the token is for this demonstration only):
  curl -H 'Authorization: Bearer {TOKEN}' 'http://{local}:{api}/v1/customers/acme/bill'
  curl -H 'Authorization: Bearer {TOKEN}' 'http://{local}:{api}/v1/customers/acme/usage?group_by=door'
  curl -H 'Authorization: Bearer {TOKEN}' 'http://{local}:{api}/v1/streams'
  curl http://{local}:{api}/metrics
  curl http://{local}:{admin}/status
  curl http://{local}:{admin}/metrics"
    )
    .context("failed to write")
}
