//! The simplest usage: one meter, one customer, one unit an event; sent durably, and read back.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::doors::Lines;
use crate::stack::Stack;
use crate::wait::until;

/// A catalogue with this meter.
pub const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[customer]]
id = "acme"
"#;
/// How long usage may take to be seen, lost sessions included.
pub const SEEN_WAIT: Duration = Duration::from_secs(60);

/// Sends `count` events and waits until they are durable.
///
/// # Errors
/// When one is refused, or the door does not answer.
pub fn send(stack: &Stack, count: usize) -> Result<()> {
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    let text = "api.calls:1|c|#customer:acme\n".repeat(count);
    lines.send(text.as_bytes(), u64::try_from(count)?)?;
    let refusals = lines.wait_durable()?;
    ensure!(refusals.is_empty(), "{refusals:?}");
    Ok(())
}

/// What the collector says was used.
///
/// # Errors
/// When it does not answer.
pub fn used(stack: &Stack) -> Result<String> {
    let usage = stack.api().usage("acme", "")?.usage;
    Ok(usage.into_iter().find_map(|entry| entry.quantity).unwrap_or_default())
}

/// Waits until `events` were used, no more and no less.
///
/// # Errors
/// When that is not so in time.
pub fn wait_used(stack: &Stack, events: u64) -> Result<()> {
    until(&format!("{events} events used"), SEEN_WAIT, || match used(stack) {
        Ok(used) if used == events.to_string() => Ok(()),
        Ok(used) => Err(format!("{used} used")),
        Err(error) => Err(format!("{error:#}")),
    })
}
