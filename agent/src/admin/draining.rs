//! How long what waits will take to be posted, from how fast it was posted lately.
//!
//! **Owns** a bounded history of what was posted. **Does not own** the clock.
//!
//! A pod's end gives an agent `shutdown_grace` and no longer: what would take more stays on its disk.

use std::collections::VecDeque;

use tidemark_common::time::Timestamp;

/// Samples are at least this far apart.
const SAMPLE_MILLIS: i64 = 1_000;
/// And at most this many are kept: the rate is that of the last minute.
const SAMPLES_MAX: usize = 60;
/// A rate over less time says nothing.
const SPAN_MILLIS_MIN: i64 = 2_000;

/// How fast events were posted lately.
#[derive(Debug, Default)]
pub struct Draining {
    samples: VecDeque<(Timestamp, u64)>,
}

impl Draining {
    /// Takes note of how many events are posted now.
    pub fn observe(&mut self, now: Timestamp, posted: u64) {
        match self.samples.back() {
            // A clock that was set back makes what came before meaningless.
            Some((last, _)) if now < *last => self.samples.clear(),
            Some((last, _)) if now.millis_since(*last) < SAMPLE_MILLIS => return,
            Some(_) | None => {}
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, posted));
    }

    /// Milliseconds until `waiting` events are posted, at the rate of the last minute; `None` if none were posted in it.
    #[must_use]
    pub fn millis_for(&self, waiting: u64) -> Option<u64> {
        if waiting == 0 {
            return Some(0);
        }
        let (first_time, first) = *self.samples.front()?;
        let (last_time, last) = *self.samples.back()?;
        let span = last_time.millis_since(first_time);
        let posted = last.checked_sub(first).filter(|posted| *posted > 0)?;
        if span < SPAN_MILLIS_MIN {
            return None;
        }
        let millis = u128::from(waiting)
            .saturating_mul(u128::from(span.unsigned_abs()))
            .checked_div(u128::from(posted))?;
        Some(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples as (seconds, posted), and the seconds for 1,000 events.
    #[track_caller]
    fn check(samples: &[(i64, u64)], expected: Option<u64>) {
        let mut draining = Draining::default();
        for (seconds, posted) in samples {
            draining.observe(Timestamp(seconds.saturating_mul(1_000)), *posted);
        }
        let expected = expected.map(|seconds| seconds.saturating_mul(1_000));
        assert_eq!(draining.millis_for(1_000), expected);
        assert_eq!(draining.millis_for(0), Some(0));
    }

    #[test]
    fn estimates() {
        check(&[], None);
        check(&[(0, 100)], None);
        check(&[(0, 100), (10, 100)], None);
        check(&[(0, 100), (1, 200)], None);
        check(&[(0, 100), (10, 200)], Some(100));
        check(&[(0, 0), (5, 500), (10, 1_000)], Some(10));
        check(&[(100, 100), (0, 100), (10, 200)], Some(100));
    }

    #[test]
    fn only_the_last_minute_counts() {
        let mut draining = Draining::default();
        for second in 0..600 {
            // Nothing for five minutes, then ten a second.
            let posted = u64::try_from((second - 300).max(0) * 10).unwrap();
            draining.observe(Timestamp(second * 1_000), posted);
        }
        assert_eq!(draining.samples.len(), SAMPLES_MAX);
        assert_eq!(draining.millis_for(100), Some(10_000));
    }
}
