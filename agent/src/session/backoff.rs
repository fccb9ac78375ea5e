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

/// A collector that stops tells all its agents at once, so the first ceiling after that is this: an attempt that
/// is under way when it is back gets through then, and what did not spread before arrives together.
pub(super) const CROWD_MILLIS: u64 = 2_000;

/// When the next attempt is worth making.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nothing is wrong: neither a failure nor a proof.
    Again,
    /// The fault may pass by itself.
    Soon,
    /// The same, and all other agents were told at the same moment.
    SoonWithOthers,
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
            Retry::Soon => within(random, self.ceiling_millis()),
            Retry::SoonWithOthers => within(random, self.ceiling_millis().max(CROWD_MILLIS)),
            Retry::Late => LATE_MILLIS.saturating_add(within(random, LATE_MILLIS)),
        }
    }

    fn ceiling_millis(&mut self) -> u64 {
        let doubled = CEILING_MILLIS_FIRST.checked_shl(self.failures).unwrap_or(CEILING_MILLIS_MAX);
        self.failures = self.failures.saturating_add(1).min(32);
        doubled.min(CEILING_MILLIS_MAX)
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
        backoff.reset();
        assert_eq!(backoff.wait_millis(Retry::SoonWithOthers, 2_000), 2_000);
        assert_eq!(backoff.wait_millis(Retry::Soon, 200), 200, "it counts as a failure");
        assert_eq!(backoff.wait_millis(Retry::Late, 0), 60_000);
        assert_eq!(backoff.wait_millis(Retry::Late, 60_000), 120_000);
    }
}
