//! Ledger time: the wall clock, held so that it never goes back.
//!
//! **Owns** the rule; **does not own** the wall clock (an argument) or the file that holds the limit.
//!
//! Invariants: ledger time never decreases, through restarts too. It never exceeds a limit that is
//! stored before it is relied on and extended [`LIMIT_AHEAD_MILLIS`] ahead; a restart begins at the
//! stored limit. A wall clock that jumps by more than a minute is noted: closings stop on it.
//!
//! What it followed once it can never leave again, so it does not follow a wall clock that leaps ahead by
//! more than [`LEAP_MILLIS`]: while that lasts, it goes on with the monotonic clock.

use tidemark_common::time::Timestamp;

/// The stored limit is extended to this far ahead of the wall clock.
pub const LIMIT_AHEAD_MILLIS: i64 = 10_000;
/// The limit is extended once less than this is left of it.
const LIMIT_LEFT_MILLIS: i64 = 5_000;
/// The wall clock and the monotonic one may part by this much between two looks.
pub const JUMP_MILLIS: i64 = 60_000;

/// A wall clock that is so far ahead of what is expected is wrong. No machine sleeps that long.
pub const LEAP_MILLIS: i64 = 400 * 86_400_000;

/// What the clocks of this machine show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub wall: Timestamp,
    /// Microseconds since any fixed moment; never goes back.
    pub monotonic_micros: u64,
}

/// Ledger time of one ledger.
#[derive(Debug, Clone, Copy)]
pub struct LedgerClock {
    newest: Timestamp,
    limit: Timestamp,
    seen: Option<Reading>,
    /// The latest wall clock that was believed, and what has passed since; `None` before the first of a new
    /// ledger.
    expected: Option<Timestamp>,
    jumps: u64,
}

impl LedgerClock {
    /// Continues from the limit that the ledger stored last; a new ledger has none.
    #[must_use]
    pub fn resume(stored_limit: Timestamp) -> Self {
        let expected = (stored_limit > Timestamp(0)).then_some(stored_limit);
        Self { newest: stored_limit, limit: stored_limit, seen: None, expected, jumps: 0 }
    }

    /// Whatever the wall clock shows next is believed.
    pub fn trust(&mut self) {
        self.expected = None;
    }

    /// Where ledger time stands, if the wall clock is too far ahead of it to be believed.
    #[must_use]
    pub fn leap(&self, reading: Reading) -> Option<Timestamp> {
        (self.believed(reading) < reading.wall).then_some(self.newest)
    }

    /// Ledger time now: not before any earlier answer, not after the stored limit.
    pub fn now(&mut self, reading: Reading) -> Timestamp {
        let believed = self.believed(reading);
        self.watch(reading);
        self.expected = self.expected_at(reading).max(Some(believed));
        self.seen = Some(reading);
        self.newest = self.newest.max(believed.min(self.limit));
        self.newest
    }

    /// The limit to store next, once the current one runs out. Pass it to [`Self::extended`] when it
    /// is durable.
    #[must_use]
    pub fn extension_due(&self, reading: Reading) -> Option<Timestamp> {
        let believed = self.believed(reading);
        let left = self.limit.millis_since(believed);
        (left < LIMIT_LEFT_MILLIS).then(|| believed.plus_millis(LIMIT_AHEAD_MILLIS))
    }

    /// Takes a limit that is durable now.
    pub fn extended(&mut self, limit: Timestamp) {
        self.limit = self.limit.max(limit);
    }

    /// How often the wall clock jumped by more than a minute.
    #[must_use]
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// What the wall clock shows, or what it should, if that is far less.
    fn believed(&self, reading: Reading) -> Timestamp {
        let expected = self.expected_at(reading);
        expected
            .filter(|expected| reading.wall.millis_since(*expected) > LEAP_MILLIS)
            .unwrap_or(reading.wall)
    }

    fn expected_at(&self, reading: Reading) -> Option<Timestamp> {
        let passed = self.seen.map_or(0, |before| reading.monotonic_since(before));
        self.expected.map(|expected| expected.plus_millis(passed))
    }

    fn watch(&mut self, reading: Reading) {
        let Some(before) = self.seen else { return };
        let wall = reading.wall.millis_since(before.wall);
        let passed = reading.monotonic_since(before);
        if wall.saturating_sub(passed).saturating_abs() > JUMP_MILLIS {
            self.jumps = self.jumps.saturating_add(1);
        }
    }
}

impl Reading {
    /// Milliseconds by the monotonic clock.
    fn monotonic_since(self, before: Self) -> i64 {
        let micros = self.monotonic_micros.saturating_sub(before.monotonic_micros);
        i64::try_from(micros.div_euclid(1_000)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Reading {
        Reading {
            wall: Timestamp(millis),
            monotonic_micros: millis.unsigned_abs().saturating_mul(1_000),
        }
    }

    #[test]
    fn never_goes_back_nor_beyond_the_stored_limit() {
        let mut clock = LedgerClock::resume(Timestamp(1_000));
        assert_eq!(clock.now(at(400)), Timestamp(1_000));
        assert_eq!(clock.now(at(2_000)), Timestamp(1_000));
        assert_eq!(clock.extension_due(at(2_000)), Some(Timestamp(12_000)));
        clock.extended(Timestamp(12_000));
        assert_eq!(clock.now(at(2_500)), Timestamp(2_500));
        assert_eq!(clock.now(at(2_400)), Timestamp(2_500));
        assert_eq!(clock.now(at(90_000)), Timestamp(12_000));
    }

    #[test]
    fn a_restart_begins_at_the_stored_limit() {
        let mut clock = LedgerClock::resume(Timestamp(0));
        clock.extended(Timestamp(10_000));
        let before = clock.now(at(9_999));
        let mut restarted = LedgerClock::resume(Timestamp(10_000));
        assert!(restarted.now(at(5_000)) >= before);
    }

    #[test]
    fn the_limit_is_extended_before_it_runs_out() {
        let mut clock = LedgerClock::resume(Timestamp(0));
        clock.extended(Timestamp(10_000));
        assert_eq!(clock.extension_due(at(5_000)), None);
        assert_eq!(clock.extension_due(at(5_001)), Some(Timestamp(15_001)));
    }

    #[test]
    fn jumps_of_the_wall_clock_are_noted() {
        let mut clock = LedgerClock::resume(Timestamp(0));
        for (wall, monotonic, jumps) in
            [(0, 0, 0), (60_000, 1, 0), (120_002, 1, 1), (5, 2, 2), (6, 3, 2)]
        {
            clock.now(Reading { wall: Timestamp(wall), monotonic_micros: monotonic });
            assert_eq!(clock.jumps(), jumps, "wall {wall}");
        }
    }

    #[test]
    fn a_wall_clock_that_leaps_ahead_is_not_followed() {
        const DAY: i64 = 86_400_000;
        let show = |wall, seconds: u64| Reading {
            wall: Timestamp(wall),
            monotonic_micros: seconds * 1_000_000,
        };
        let mut clock = LedgerClock::resume(Timestamp(1_000 * DAY));
        clock.extended(Timestamp(i64::MAX));
        // A year's rest is believed; a leap to far ahead is not, and time goes on meanwhile.
        assert_eq!(clock.now(show(1_365 * DAY, 0)), Timestamp(1_365 * DAY));
        let wrong = show(9_000 * DAY, 7);
        assert_eq!(clock.leap(wrong), Some(Timestamp(1_365 * DAY)));
        assert_eq!(clock.now(wrong), Timestamp(1_365 * DAY + 7_000));
        assert_eq!(clock.now(show(9_000 * DAY, 9)), Timestamp(1_365 * DAY + 9_000));
        assert_eq!(clock.now(show(1_365 * DAY + 11_000, 11)), Timestamp(1_365 * DAY + 11_000));
        // A clock that was far behind and is right again has not leapt.
        assert_eq!(clock.now(show(0, 12)), Timestamp(1_365 * DAY + 11_000));
        assert_eq!(clock.now(show(1_365 * DAY + 13_000, 13)), Timestamp(1_365 * DAY + 13_000));

        let mut started = LedgerClock::resume(Timestamp(1_000 * DAY));
        assert_eq!(started.leap(wrong), Some(Timestamp(1_000 * DAY)));
        started.trust();
        started.extended(Timestamp(i64::MAX));
        assert_eq!(started.leap(wrong), None);
        assert_eq!(started.now(wrong), Timestamp(9_000 * DAY));
        assert_eq!(LedgerClock::resume(Timestamp(0)).leap(wrong), None, "a new ledger");
    }

    #[test]
    fn a_limit_is_not_stored_for_a_wall_clock_that_leaps() {
        let mut clock = LedgerClock::resume(Timestamp(20_000));
        clock.now(at(16_000));
        let wrong = Reading { wall: Timestamp(i64::MAX / 2), monotonic_micros: 17_000_000 };
        assert_eq!(clock.extension_due(wrong), Some(Timestamp(31_000)));
    }
}
