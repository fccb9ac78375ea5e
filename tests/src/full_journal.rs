//! An agent without a collector, fed until its journal is full.
//!
//! **Owns** the events, which hardly compress, so that a journal is full after few. **Does not own** what is made of
//! it: the test of full journals and the measurement of a start do.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::doors::Datagrams;
use crate::random::Random;
use crate::stack::Stack;
use crate::wait::{Stopwatch, until};

/// Different datagrams; more would not fill it faster.
const DATAGRAMS: usize = 64;
const VALUES_PER_LINE: usize = 32;
const DATAGRAM_BYTES: usize = 8_000;
/// Datagrams sent between two looks at the agent.
const PER_LOOK: usize = 500;
const SETTLED_WAIT: Duration = Duration::from_secs(30);

/// What filled it.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    pub accepted: u64,
    /// Refused as `journal_full`.
    pub refused: u64,
}

/// Sends to `dsd.socket` until the journal calls itself full and nothing more is taken.
///
/// # Errors
/// When the agent is gone, or it is not full within `longest`.
pub fn fill(stack: &Stack, longest: Duration) -> Result<Filled> {
    let mut random = Random::new(7);
    let datagrams: Vec<_> = (0..DATAGRAMS).map(|_| datagram(&mut random)).collect();
    let door = Datagrams::to(&stack.path("dsd.socket"))?;
    let clock = Stopwatch::start();
    while !is_full(stack)? {
        ensure!(clock.elapsed() < longest, "the journal is not full after {longest:?}");
        for datagram in datagrams.iter().cycle().take(PER_LOOK) {
            door.send(datagram)?;
        }
    }
    // What comes now is refused.
    datagrams.iter().try_for_each(|datagram| door.send(datagram))?;
    settle(stack)
}

/// Whether the agent calls its journal full.
///
/// # Errors
/// When it does not answer.
pub fn is_full(stack: &Stack) -> Result<bool> {
    Ok(stack.agent_metrics()?.count("tidemark_agent_journal_full")? == 1)
}

/// Waits until what was sent is taken or refused: two looks find the same. Refusals are committed within a second.
fn settle(stack: &Stack) -> Result<Filled> {
    let mut before = None;
    until("the agent to have read what was sent", SETTLED_WAIT, || {
        let metrics = stack.agent_metrics().map_err(|error| format!("{error:#}"))?;
        let now = Filled {
            accepted: metrics.count_or_zero("tidemark_agent_accepted_events_total"),
            refused: metrics.rejected().get("journal_full").copied().unwrap_or(0),
        };
        match before.replace((now.accepted, now.refused)) {
            Some(then) if then == (now.accepted, now.refused) && now.refused > 0 => Ok(now),
            _ => Err(format!("{now:?}")),
        }
    })
}

fn datagram(random: &mut Random) -> Vec<u8> {
    let mut datagram = Vec::new();
    while datagram.len() < DATAGRAM_BYTES {
        let values: Vec<_> =
            (0..VALUES_PER_LINE).map(|_| random.below(100_000_000_000_000).to_string()).collect();
        datagram.extend_from_slice(b"api.calls:");
        datagram.extend_from_slice(values.join(":").as_bytes());
        datagram.extend_from_slice(b"|d|#customer:acme\n");
    }
    datagram
}
