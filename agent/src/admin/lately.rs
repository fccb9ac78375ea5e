//! What was added lately to counts that only grow.
//!
//! **Owns** a bounded history of the evidence. **Does not own** the clock, or what of it is trouble.
//!
//! Evidence counts over a stream's whole life, so a total says that something was wrong once; what is
//! wrong now shows in what was added.

use std::collections::{BTreeMap, VecDeque};

use tidemark_common::batch::Evidence;
use tidemark_common::time::Timestamp;

/// What is older than this is past.
pub const WINDOW_MILLIS: i64 = 5 * 60_000;
/// Samples are at least this far apart, so that about sixty are held.
const SAMPLE_MILLIS: i64 = 5_000;

/// How the evidence has grown lately.
#[derive(Debug)]
pub struct Lately {
    /// The first is what `added` counts from: the newest that is as old as the window, or the beginning.
    samples: VecDeque<(Timestamp, Evidence)>,
}

impl Lately {
    /// `evidence` is what was counted before: none of it is recent.
    #[must_use]
    pub fn new(now: Timestamp, evidence: Evidence) -> Self {
        Self { samples: VecDeque::from([(now, evidence)]) }
    }

    /// Takes note of what is counted now.
    pub fn observe(&mut self, now: Timestamp, evidence: &Evidence) {
        let last = self.samples.back().map_or(now, |(last, _)| *last);
        if now < last {
            // A clock that was set back: nobody can say any more when it was, and nothing is forgotten.
            self.samples.truncate(1);
            if let Some((first, _)) = self.samples.front_mut() {
                *first = now;
            }
        } else if now.millis_since(last) >= SAMPLE_MILLIS {
            self.samples.push_back((now, evidence.clone()));
        }
        while self.samples.get(1).is_some_and(|(next, _)| now.millis_since(*next) >= WINDOW_MILLIS)
        {
            self.samples.pop_front();
        }
    }

    /// What of `evidence`, which is counted now, was added within the window.
    #[must_use]
    pub fn added(&self, evidence: &Evidence) -> Evidence {
        let Some((_, before)) = self.samples.front() else { return Evidence::default() };
        let before: BTreeMap<u16, u64> = before.iter().collect();
        evidence
            .iter()
            .map(|(code, count)| {
                (code, count.saturating_sub(before.get(&code).copied().unwrap_or(0)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use tidemark_common::code::EvidenceCode;

    use super::*;

    fn drops(count: u64) -> Evidence {
        let mut evidence = Evidence::default();
        evidence.add(EvidenceCode::KernelDrops, count);
        evidence
    }

    /// Begins at second 0 with 10; samples as (seconds, count); what of the last count is recent.
    #[track_caller]
    fn check(samples: &[(i64, u64)], expected: u64) {
        let mut lately = Lately::new(Timestamp(0), drops(10));
        let mut newest = 10;
        for (seconds, count) in samples {
            lately.observe(Timestamp(seconds.saturating_mul(1_000)), &drops(*count));
            newest = *count;
        }
        let added = lately.added(&drops(newest));
        assert_eq!(added.get(EvidenceCode::KernelDrops), expected, "{samples:?}");
    }

    #[test]
    fn what_is_recent() {
        check(&[], 0);
        check(&[(1, 10)], 0);
        check(&[(1, 12)], 2);
        check(&[(5, 12), (299, 12)], 2);
        check(&[(5, 12), (304, 12)], 2);
        check(&[(5, 12), (305, 12)], 0);
        check(&[(5, 12), (305, 13)], 1);
        check(&[(1_000, 12)], 2);
        check(&[(1_000, 12), (1_300, 12)], 0);
        // A clock that was set back.
        check(&[(1_000, 12), (1_010, 13), (0, 13), (299, 13)], 3);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut lately = Lately::new(Timestamp(0), drops(0));
        for second in 0..7_200_i64 {
            let count = u64::try_from(second).unwrap();
            lately.observe(Timestamp(second.saturating_mul(1_000)), &drops(count));
        }
        assert!(lately.samples.len() <= 62, "{}", lately.samples.len());
        assert_eq!(lately.added(&drops(7_199)).get(EvidenceCode::KernelDrops), 304);
    }
}
