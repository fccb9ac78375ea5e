//! How fast a figure has grown lately, and so how long it takes to grow by more.
//!
//! **Owns** a bounded history of the figure. **Does not own** the clock, or what is to be reached.

use std::collections::VecDeque;

use tidemark_common::time::Timestamp;

/// The history of one figure.
#[derive(Debug)]
pub struct Pace {
    samples: VecDeque<(Timestamp, u64)>,
    /// Samples are at least this far apart, and at most so many are kept.
    sample_millis: i64,
    samples_max: usize,
    /// Growth over less time says nothing.
    span_millis_min: i64,
}

impl Pace {
    /// Of what the backlog needs on disk: over about ten minutes.
    #[must_use]
    pub fn of_growth() -> Self {
        Self::new(5_000, 120, 10_000)
    }

    /// Of what is posted: over a minute. A pod's end gives an agent `shutdown_grace` and no longer.
    #[must_use]
    pub fn of_posting() -> Self {
        Self::new(1_000, 60, 2_000)
    }

    fn new(sample_millis: i64, samples_max: usize, span_millis_min: i64) -> Self {
        Self { samples: VecDeque::new(), sample_millis, samples_max, span_millis_min }
    }

    /// Takes note of the figure now.
    pub fn observe(&mut self, now: Timestamp, figure: u64) {
        match self.samples.back() {
            // A clock that was set back makes what came before meaningless.
            Some((last, _)) if now < *last => self.samples.clear(),
            Some((last, _)) if now.millis_since(*last) < self.sample_millis => return,
            Some(_) | None => {}
        }
        if self.samples.len() == self.samples_max {
            self.samples.pop_front();
        }
        self.samples.push_back((now, figure));
    }

    /// Milliseconds until the figure is `reached`, as it has grown; `None` if it has not.
    #[must_use]
    pub fn millis_to(&self, reached: u64) -> Option<u64> {
        let (_, last) = *self.samples.back()?;
        self.millis_by(reached.saturating_sub(last))
    }

    /// Milliseconds until it has grown by `more`, as it has grown; `None` if it has not.
    #[must_use]
    pub fn millis_by(&self, more: u64) -> Option<u64> {
        let (first_time, first) = *self.samples.front()?;
        let (last_time, last) = *self.samples.back()?;
        let span = last_time.millis_since(first_time);
        let grown = last.checked_sub(first).filter(|grown| *grown > 0)?;
        if span < self.span_millis_min {
            return None;
        }
        let millis = u128::from(more)
            .saturating_mul(u128::from(span.unsigned_abs()))
            .checked_div(u128::from(grown))?;
        Some(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples as (seconds, bytes), and the seconds until 1,000 bytes.
    #[track_caller]
    fn check(samples: &[(i64, u64)], expected: Option<u64>) {
        let mut growth = Pace::of_growth();
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
    fn only_what_was_lately_counts() {
        let (mut growth, mut posting) = (Pace::of_growth(), Pace::of_posting());
        for second in 0..7_200 {
            // Nothing for an hour, then one a second.
            let figure = u64::try_from(second.max(3_600)).unwrap();
            growth.observe(Timestamp(second * 1_000), figure);
            posting.observe(Timestamp(second * 1_000), figure);
        }
        assert_eq!((growth.samples.len(), posting.samples.len()), (120, 60));
        assert_eq!(growth.millis_to(7_200), Some(5_000));
        assert_eq!(posting.millis_by(100), Some(100_000));
        // And then nothing for a minute.
        for second in 7_200..7_261 {
            posting.observe(Timestamp(second * 1_000), 7_199);
        }
        assert_eq!(posting.millis_by(100), None);
    }
}
