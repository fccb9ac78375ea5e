//! How long to wait before the next attempt: full jitter under a doubling ceiling.
//!
//! After a collector's restart all its agents come at once; a wait that is random from zero to the
//! ceiling spreads them evenly (a fixed or half-random one leaves waves). A short success does not
//! reset the ceiling: only a session that proved itself does.

/// The first ceiling, milliseconds.
pub(super) const CEILING_MILLIS_FIRST: u64 = 100;
/// The last ceiling, milliseconds.
pub(super) const CEILING_MILLIS_MAX: u64 = 30_000;
/// Where only a person or a renewal can help, the wait is between one and two of these.
pub(super) const LATE_MILLIS: u64 = 60_000;

/// After a session that ended in good order, the wait is between nothing and this.
pub(super) const AGAIN_MILLIS: u64 = 1_000;

/// When the next attempt is worth making.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nothing is wrong: neither a failure nor a proof.
    Again,
    /// The fault may pass by itself.
    Soon,
    /// Somebody must act first; try now and then, so that nobody has to restart the agent after it.
    Late,
}

#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait before the next attempt, in milliseconds. `random` is uniform over its range.
    pub(super) fn wait_millis(&mut self, retry: Retry, random: u64) -> u64 {
        match retry {
            Retry::Again => within(random, AGAIN_MILLIS),
            Retry::Soon => {
                let doubled =
                    CEILING_MILLIS_FIRST.checked_shl(self.failures).unwrap_or(CEILING_MILLIS_MAX);
                self.failures = self.failures.saturating_add(1).min(32);
                within(random, doubled.min(CEILING_MILLIS_MAX))
            }
            Retry::Late => LATE_MILLIS.saturating_add(within(random, LATE_MILLIS)),
        }
    }

    /// A session proved itself: begin again at the first ceiling.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `random` folded into `0..=most`. `most` is far below 2^64, so the bias does not matter.
pub(super) fn within(random: u64, most: u64) -> u64 {
    most.checked_add(1).and_then(|values| random.checked_rem(values)).unwrap_or(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_last() {
        let mut backoff = Backoff::default();
        let ceilings = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000];
        for (round, ceiling) in ceilings.into_iter().enumerate() {
            let mut same = Backoff { failures: backoff.failures };
            assert_eq!(same.wait_millis(Retry::Soon, 0), 0, "round {round}");
            assert_eq!(backoff.wait_millis(Retry::Soon, ceiling), ceiling, "round {round}");
        }
        for _ in 0..100 {
            assert!(backoff.wait_millis(Retry::Soon, u64::MAX) <= CEILING_MILLIS_MAX);
        }
        assert_eq!(backoff.wait_millis(Retry::Again, 1_000), 1_000);
        assert_eq!(backoff.wait_millis(Retry::Soon, 30_000), 30_000, "that proved nothing");
        backoff.reset();
        for _ in 0..100 {
            assert!(backoff.wait_millis(Retry::Again, u64::MAX) <= AGAIN_MILLIS);
        }
        assert_eq!(backoff.wait_millis(Retry::Soon, 100), 100);
        assert_eq!(backoff.wait_millis(Retry::Late, 0), 60_000);
        assert_eq!(backoff.wait_millis(Retry::Late, 60_000), 120_000);
    }
}
