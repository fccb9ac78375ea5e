//! The machine's clocks, or a sandbox's, which are ahead.
//!
//! **Owns** the one place where the ledger reads the machine's clocks. **Does not own** ledger time (`clock.rs`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tidemark_common::time::Timestamp;

use super::clock::Reading;

/// Where the ledger reads the clocks.
#[derive(Clone)]
pub struct TimeSource {
    read: Arc<dyn Fn() -> Reading + Send + Sync>,
    /// Of a sandbox: how far its time is ahead, in milliseconds.
    pub(super) ahead: Option<Arc<AtomicI64>>,
}

impl TimeSource {
    pub fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), ahead: None }
    }

    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the ledger's one place that reads the machine's clocks"
        )]
        let start = std::time::Instant::now();
        Self::new(move || {
            #[expect(
                clippy::disallowed_methods,
                reason = "the ledger's one place that reads the machine's clocks"
            )]
            let wall = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            Reading {
                wall: Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
                monotonic_micros: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            }
        })
    }

    #[must_use]
    pub fn read(&self) -> Reading {
        let reading = (self.read)();
        match &self.ahead {
            None => reading,
            Some(ahead) => {
                Reading { wall: reading.wall.plus_millis(ahead.load(Ordering::Relaxed)), ..reading }
            }
        }
    }

    /// The same, so far ahead; it can be advanced.
    #[must_use]
    pub fn ahead(self, millis: i64) -> Self {
        Self { ahead: Some(Arc::new(AtomicI64::new(millis))), ..self }
    }
}

impl fmt::Debug for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimeSource")
    }
}
