//! How many new streams an identity may begin: an agent that loses its journal at each start, and so begins
//! a stream each time, must not fill `streams_max` for everybody.
//!
//! **Owns** the arithmetic. **Does not own** whose allowance it is (the store keeps one instant for each
//! identity), or time: it is given, by the monotonic clock. Ledger time may stand still for a day.
//!
//! Each new stream uses up its share of an hour; shares that are used up at once lie behind each other, and
//! may fill the hour that follows. So an identity may begin `per_hour_max` streams at once, and as many in
//! each hour after it.
//!
//! It is kept in memory: a restart of the collector gives everybody a fresh hour.

use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

/// When an identity's allowance is used up to, after a new stream at `now`; `None` if it may begin none now.
/// `before` is what this returned last.
#[must_use]
pub fn begin_stream(
    before: Option<Duration>,
    now: Duration,
    per_hour_max: u32,
) -> Option<Duration> {
    let share = HOUR.checked_div(per_hour_max)?;
    let begun = before.map_or(now, |before| before.max(now));
    let used = begun.saturating_add(share);
    (used.saturating_sub(now) <= HOUR).then_some(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (minute, how many are tried, how many may begin) one after another.
    fn check(per_hour_max: u32, steps: &[(u64, usize, usize)]) {
        let mut used = None;
        for (minute, tried, expected) in steps {
            let now = Duration::from_secs(minute.saturating_mul(60));
            let begun = (0..*tried).filter(|_| {
                let after = begin_stream(used, now, per_hour_max);
                used = after.or(used);
                after.is_some()
            });
            assert_eq!(begun.count(), *expected, "minute {minute} of {steps:?}");
        }
    }

    #[test]
    fn an_hours_worth_at_once_and_then_one_a_share() {
        check(4, &[(0, 9, 4), (14, 9, 0), (15, 9, 1), (29, 9, 0), (60, 9, 3), (500, 9, 4)]);
        check(1, &[(0, 2, 1), (59, 2, 0), (60, 2, 1)]);
        check(1_000, &[(0, 2_000, 1_000)]);
        check(0, &[(0, 5, 0)]);
        check(u32::MAX, &[(0, 10_000, 10_000)]);
    }
}
