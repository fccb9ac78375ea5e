//! The time by which ids and acknowledged batches grow old: the wall clock without its steps.
//!
//! A clock that is set ahead must not make the agent forget the ids of a minute ago: a batch that a
//! client sends again across the step would count twice. Nor may it forget the batches of a minute ago,
//! which a ledger restored from a backup asks for. So whatever passes at once beyond [`STEP_MILLIS`] did
//! not pass, and neither did anything backwards. An agent that was down, or had nothing to write, for
//! longer than that keeps both for longer, which their limits in number and bytes allow.

use tidemark_common::time::Timestamp;

/// Between two looks, at most an hour passes: far below any useful time to keep either.
const STEP_MILLIS: i64 = 3_600_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AgeClock {
    now: Option<Timestamp>,
    wall: Option<Timestamp>,
}

impl AgeClock {
    /// Goes on from the newest row that is kept.
    pub(crate) fn resume(newest: Option<Timestamp>) -> Self {
        Self { now: newest, wall: None }
    }

    /// The last time that it showed.
    pub(crate) fn now(self) -> Option<Timestamp> {
        self.now
    }

    /// The time now, by what the wall clock shows.
    pub(crate) fn tick(&mut self, wall: Timestamp) -> Timestamp {
        let passed = self.wall.map_or(0, |before| wall.millis_since(before));
        let passed = if (0..=STEP_MILLIS).contains(&passed) { passed } else { 0 };
        let now = self.now.map_or(wall, |now| now.plus_millis(passed));
        *self = Self { now: Some(now), wall: Some(wall) };
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    /// Shows walls to a clock that goes on from `newest`; what it makes of each.
    fn check(newest: Option<i64>, walls: &[i64], expected: &[i64]) {
        let mut clock = AgeClock::resume(newest.map(Timestamp));
        let seen: Vec<i64> = walls.iter().map(|wall| clock.tick(Timestamp(*wall)).0).collect();
        assert_eq!(seen, expected, "{newest:?} {walls:?}");
    }

    #[test]
    fn time_goes_by_and_steps_do_not_count() {
        check(None, &[5, 7, 1_007], &[5, 7, 1_007]);
        check(None, &[5, 5 + 5_000 * DAY, 8 + 5_000 * DAY], &[5, 5, 8]);
        check(None, &[5 + DAY, 5, 9], &[5 + DAY, 5 + DAY, 9 + DAY]);
        check(Some(100), &[7 * DAY, 7 * DAY + 3], &[100, 103]);
        check(None, &[0, STEP_MILLIS, STEP_MILLIS * 2 + 1], &[0, STEP_MILLIS, STEP_MILLIS]);
    }
}
