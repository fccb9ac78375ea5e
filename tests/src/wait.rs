//! Waiting and the wall clock, for everything in this crate.
//!
//! **Owns** the only `sleep` and the only reading of clocks. Other processes cannot be awaited, so
//! what they come to is polled, always with a time limit and a name for what is waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(10);
/// An interrupted pause ends after at most this long.
const PAUSE_SLICE: Duration = Duration::from_millis(50);
const SECONDS_PER_BUCKET: u64 = 900;
/// Set by Ctrl-C in programs that clean up after themselves.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this process end at once, those that check something with an error.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether [`interrupt`] was called.
#[must_use]
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Polls `probe` until it has an answer. `Err(why)` of the probe says what it saw instead.
///
/// # Errors
/// After `limit`: what was waited for, and what was seen last.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let clock = Stopwatch::start();
    loop {
        match probe() {
            Ok(answer) => return Ok(answer),
            Err(_) if is_interrupted() => bail!("interrupted while waiting for {what}"),
            Err(seen) if clock.elapsed() > limit => {
                bail!("waited {} s in vain for {what}; last seen: {seen}", limit.as_secs())
            }
            Err(_) => pause(POLL),
        }
    }
}

/// Lets load run for a while, or picks the moment of a kill.
#[expect(clippy::disallowed_methods, reason = "the one place that waits; see this file's head")]
pub fn pause(length: Duration) {
    let mut left = length;
    while !left.is_zero() && !is_interrupted() {
        let slice = left.min(PAUSE_SLICE);
        std::thread::sleep(slice);
        left = left.saturating_sub(slice);
    }
}

/// The same for a task: how long a bad network takes.
pub async fn delay(length: Duration) {
    tokio::time::sleep(length).await;
}

/// Measures how long something took.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Unix seconds now.
#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Bucket edges, as unix seconds, from 40 days before now to a day after: all that a test sends.
#[must_use]
pub fn wide_range() -> (u64, u64) {
    const DAY: u64 = 86_400;
    let edge = |seconds: u64| seconds.saturating_sub(seconds % SECONDS_PER_BUCKET);
    let now = unix_seconds();
    (edge(now.saturating_sub(DAY.saturating_mul(40))), edge(now.saturating_add(DAY)))
}
