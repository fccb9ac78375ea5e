//! When the journal will be full, from how it has grown.
//!
//! **Owns** a bounded history of how many bytes the backlog needs. **Does not own** the clock.

use std::collections::VecDeque;

use tidemark_common::time::Timestamp;

/// Samples are at least this far apart.
const SAMPLE_MILLIS: i64 = 5_000;
/// And at most this many are kept: growth is measured over about ten minutes.
const SAMPLES_MAX: usize = 120;
/// Growth over less time says nothing.
const SPAN_MILLIS_MIN: i64 = 10_000;

/// How the backlog's need of disk has grown lately.
#[derive(Debug, Default)]
pub struct Growth {
    samples: VecDeque<(Timestamp, u64)>,
}

impl Growth {
    /// Takes note of what is needed now.
    pub fn observe(&mut self, now: Timestamp, bytes: u64) {
        match self.samples.back() {
            // A clock that was set back makes what came before meaningless.
            Some((last, _)) if now < *last => self.samples.clear(),
            Some((last, _)) if now.millis_since(*last) < SAMPLE_MILLIS => return,
            Some(_) | None => {}
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, bytes));
    }

    /// Milliseconds until `bytes_max` are needed, as it has grown; `None` if it has not.
    #[must_use]
    pub fn millis_to(&self, bytes_max: u64) -> Option<u64> {
        let (first_time, first) = *self.samples.front()?;
        let (last_time, last) = *self.samples.back()?;
        let span = last_time.millis_since(first_time);
        let grown = last.checked_sub(first).filter(|grown| *grown > 0)?;
        if span < SPAN_MILLIS_MIN {
            return None;
        }
        let left = u128::from(bytes_max.saturating_sub(last));
        let millis =
            left.saturating_mul(u128::from(span.unsigned_abs())).checked_div(u128::from(grown))?;
        Some(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples as (seconds, bytes), and the seconds until 1,000 bytes.
    #[track_caller]
    fn check(samples: &[(i64, u64)], expected: Option<u64>) {
        let mut growth = Growth::default();
        for (seconds, bytes) in samples {
            growth.observe(Timestamp(seconds.saturating_mul(1_000)), *bytes);
        }
        assert_eq!(growth.millis_to(1_000), expected.map(|seconds| seconds.saturating_mul(1_000)));
    }

    #[test]
    fn estimates() {
        check(&[], None);
        check(&[(0, 100)], None);
        check(&[(0, 100), (10, 100)], None);
        check(&[(0, 200), (10, 100)], None);
        check(&[(0, 100), (6, 200)], None);
        check(&[(0, 100), (10, 200)], Some(80));
        check(&[(0, 100), (10, 500), (20, 200)], Some(160));
        check(&[(0, 100), (10, 2_000)], Some(0));
        check(&[(100, 100), (0, 100), (10, 200)], Some(80));
    }

    #[test]
    fn only_the_last_ten_minutes_count() {
        let mut growth = Growth::default();
        for second in 0..7_200 {
            // Nothing for an hour, then a byte a second.
            growth.observe(Timestamp(second * 1_000), u64::try_from(second.max(3_600)).unwrap());
        }
        assert_eq!(growth.samples.len(), SAMPLES_MAX);
        assert_eq!(growth.millis_to(7_200), Some(5_000));
    }
}
