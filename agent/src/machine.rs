//! What the agent reads of its machine: two clocks and random numbers.
//!
//! **Owns** the one place where its threads reach for them, so that whoever steps the threads by hand can
//! say what time it is. **Does not own** tokio's timers.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tidemark_common::time::Timestamp;

/// Where clocks and random numbers are read.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// The wall clock.
    pub wall: fn() -> Timestamp,
    /// Milliseconds that no clock step moves, from any beginning.
    pub ticks: fn() -> u64,
    /// Fills with random bytes.
    pub fill: fn(&mut [u8]) -> Result<(), getrandom::Error>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn real() -> Self {
        Self { wall, ticks, fill: getrandom::fill }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the agent reads the wall clock")]
fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the agent's threads time linger and sealing by this"
)]
fn ticks() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGUN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}
