//! Ledger time: the wall clock, held so that it never goes back.
//!
//! **Owns** the rule; **does not own** the wall clock (an argument) or the file that holds the limit.
//!
//! Invariants: ledger time never decreases, through restarts too. It never exceeds a limit that is
//! stored before it is relied on and extended [`LIMIT_AHEAD_MILLIS`] ahead; a restart begins at the
//! stored limit. A wall clock that jumps by more than a minute is noted: closings stop on it.
//!
//! What it followed once it can never leave again, so it does not follow a wall clock that leaps ahead by
//! more than [`LEAP_MILLIS`]: while that lasts, it goes on with the monotonic clock. A wall clock from before
//! [`NEVER_BEFORE`], as machines show that were not told the time yet, is nothing to leap from.

use tidemark_common::time::Timestamp;

/// The stored limit is extended to this far ahead of the wall clock.
pub const LIMIT_AHEAD_MILLIS: i64 = 10_000;
/// The limit is extended once less than this is left of it.
const LIMIT_LEFT_MILLIS: i64 = 5_000;
/// The wall clock and the monotonic one may part by this much between two looks.
pub const JUMP_MILLIS: i64 = 60_000;

/// A wall clock that is so far ahead of what is expected is wrong. No machine sleeps that long.
pub const LEAP_MILLIS: i64 = 400 * 86_400_000;

/// 2025-01-01: no ledger is older.
pub const NEVER_BEFORE: Timestamp = Timestamp(1_735_689_600_000);

/// What the clocks of this machine show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub wall: Timestamp,
    /// Microseconds since any fixed moment; never goes back.
    pub monotonic_micros: u64,
}

/// Whether a wall clock that shows `wall` where `expected` is due is wrong.
#[must_use]
pub fn is_leap(expected: Timestamp, wall: Timestamp) -> bool {
    expected >= NEVER_BEFORE && wall.millis_since(expected) > LEAP_MILLIS
}

/// Ledger time of one ledger.
#[derive(Debug, Clone, Copy)]
pub struct LedgerClock {
    newest: Timestamp,
    limit: Timestamp,
    seen: Option<Reading>,
    /// The latest wall clock that was believed, and the monotonic one with it; `None` if the next is.
    believed: Option<Reading>,
    jumps: u64,
}

impl LedgerClock {
    /// Continues from the limit that the ledger stored last; a new ledger has none.
    #[must_use]
    pub fn resume(stored_limit: Timestamp) -> Self {
        // The monotonic clock begins with the process.
        let believed = Some(Reading { wall: stored_limit, monotonic_micros: 0 });
        Self { newest: stored_limit, limit: stored_limit, seen: None, believed, jumps: 0 }
    }

    /// Whatever the wall clock shows next is believed.
    pub fn trust(&mut self) {
        self.believed = None;
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
        if self.expected(reading).is_none_or(|due| believed > due) {
            self.believed = Some(Reading { wall: believed, ..reading });
        }
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
        let expected = self.expected(reading);
        expected.filter(|expected| is_leap(*expected, reading.wall)).unwrap_or(reading.wall)
    }

    /// What the wall clock should show by what was believed last.
    fn expected(&self, reading: Reading) -> Option<Timestamp> {
        self.believed.map(|last| last.wall.plus_millis(reading.monotonic_since(last)))
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

    const DAY: i64 = 86_400_000;

    /// Days after [`NEVER_BEFORE`], and microseconds of the monotonic clock.
    fn show(days: i64, micros: u64) -> Reading {
        Reading {
            wall: NEVER_BEFORE.plus_millis(days.saturating_mul(DAY)),
            monotonic_micros: micros,
        }
    }

    #[test]
    fn a_wall_clock_that_leaps_ahead_is_not_followed() {
        let rest = NEVER_BEFORE.plus_millis(365 * DAY);
        let mut clock = LedgerClock::resume(NEVER_BEFORE);
        clock.extended(Timestamp(i64::MAX));
        // A year's rest is believed; a leap to far ahead is not, and time goes on meanwhile.
        assert_eq!(clock.now(show(365, 0)), rest);
        assert_eq!(clock.leap(show(9_000, 7_000_000)), Some(rest));
        assert_eq!(clock.now(show(9_000, 7_000_000)), rest.plus_millis(7_000));
        for micros in (7_000_000..9_000_000).step_by(300) {
            clock.now(show(9_000, micros));
        }
        assert_eq!(clock.now(show(9_000, 9_000_000)), rest.plus_millis(9_000), "in short steps");
        assert_eq!(clock.now(show(366, 11_000_000)), rest.plus_millis(DAY));
        // A clock that was far behind and is right again has not leapt.
        let never = Reading { wall: Timestamp(0), monotonic_micros: 12_000_000 };
        assert_eq!(clock.now(never), rest.plus_millis(DAY));
        assert_eq!(clock.now(show(367, 13_000_000)), rest.plus_millis(2 * DAY));
    }

    #[test]
    fn a_start_under_a_clock_that_leapt_is_told_of() {
        let mut started = LedgerClock::resume(NEVER_BEFORE);
        assert_eq!(started.leap(show(9_000, 0)), Some(NEVER_BEFORE));
        started.trust();
        started.extended(Timestamp(i64::MAX));
        assert_eq!(started.leap(show(9_000, 0)), None);
        assert_eq!(started.now(show(9_000, 0)), NEVER_BEFORE.plus_millis(9_000 * DAY));
        assert_eq!(LedgerClock::resume(Timestamp(0)).leap(show(9_000, 0)), None, "a new ledger");
    }

    #[test]
    fn a_machine_that_is_told_the_time_after_the_first_start_has_not_leapt() {
        let mut clock = LedgerClock::resume(Timestamp(0));
        let never = |micros| Reading { wall: Timestamp(5_000), monotonic_micros: micros };
        clock.extended(Timestamp(i64::MAX));
        assert_eq!(clock.now(never(1)), Timestamp(5_000));
        assert_eq!(clock.leap(show(500, 2)), None);
        assert_eq!(clock.now(show(500, 2)), NEVER_BEFORE.plus_millis(500 * DAY));
        // So has one whose ledger was stopped before that.
        let mut again = LedgerClock::resume(Timestamp(15_000));
        assert_eq!(again.leap(show(500, 2)), None);
        again.now(show(500, 2));
        assert!(again.leap(show(1_000, 2)).is_some());
    }

    #[test]
    fn a_limit_is_not_stored_for_a_wall_clock_that_leaps() {
        let mut clock = LedgerClock::resume(NEVER_BEFORE);
        clock.now(show(1, 0));
        let due = NEVER_BEFORE.plus_millis(DAY + 1_000 + LIMIT_AHEAD_MILLIS);
        assert_eq!(clock.extension_due(show(500, 1_000_000)), Some(due));
    }
}
