//! Ledger time: the wall clock, held so that it never goes back.
//!
//! **Owns** the rule; **does not own** the wall clock (an argument) or the file that holds the limit.
//!
//! Invariants: ledger time never decreases, through restarts too. It never exceeds a limit that is
//! stored before it is relied on and extended [`LIMIT_AHEAD_MILLIS`] ahead; a restart begins at the
//! stored limit. A wall clock that jumps by more than a minute is noted: closings stop on it.

use tidemark_common::time::Timestamp;

/// The stored limit is extended to this far ahead of the wall clock.
pub const LIMIT_AHEAD_MILLIS: i64 = 10_000;
/// The limit is extended once less than this is left of it.
const LIMIT_LEFT_MILLIS: i64 = 5_000;
/// The wall clock and the monotonic one may part by this much between two looks.
pub const JUMP_MILLIS: i64 = 60_000;

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
    jumps: u64,
}

impl LedgerClock {
    /// Continues from the limit that the ledger stored last.
    #[must_use]
    pub fn resume(stored_limit: Timestamp) -> Self {
        Self { newest: stored_limit, limit: stored_limit, seen: None, jumps: 0 }
    }

    /// Ledger time now: not before any earlier answer, not after the stored limit.
    pub fn now(&mut self, reading: Reading) -> Timestamp {
        self.watch(reading);
        self.newest = self.newest.max(reading.wall.min(self.limit));
        self.newest
    }

    /// The limit to store next, once the current one runs out. Pass it to [`Self::extended`] when it
    /// is durable.
    #[must_use]
    pub fn extension_due(&self, reading: Reading) -> Option<Timestamp> {
        let left = self.limit.millis_since(reading.wall);
        (left < LIMIT_LEFT_MILLIS).then(|| reading.wall.plus_millis(LIMIT_AHEAD_MILLIS))
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

    fn watch(&mut self, reading: Reading) {
        if let Some(before) = self.seen {
            let wall = reading.wall.millis_since(before.wall);
            let micros = reading.monotonic_micros.saturating_sub(before.monotonic_micros);
            let monotonic = i64::try_from(micros.div_euclid(1_000)).unwrap_or(i64::MAX);
            if wall.saturating_sub(monotonic).saturating_abs() > JUMP_MILLIS {
                self.jumps = self.jumps.saturating_add(1);
            }
        }
        self.seen = Some(reading);
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
}
