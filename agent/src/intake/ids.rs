//! The window of idempotency ids that the journal knows.
//!
//! **Owns** which ids are duplicates. **Does not own** their rows on disk, which the journal drops by
//! the same two limits. The key never holds the event's time: a retry with a new time is a duplicate.
//!
//! Limits: `ids_max` ids, and `window` of time, which no clock step spends; whole rows (one a commit) go, oldest first.

use std::collections::VecDeque;

use hashbrown::HashSet;
use tidemark_common::time::Timestamp;

use crate::event::IdDigest;
use crate::event::age_clock::AgeClock;

#[derive(Debug)]
pub(crate) struct IdWindow {
    known: HashSet<IdDigest>,
    rows: VecDeque<(Timestamp, Box<[IdDigest]>)>,
    /// Ids of the commit that is being filled.
    pending: Vec<IdDigest>,
    ids_max: usize,
    window_millis: i64,
    clock: AgeClock,
}

impl IdWindow {
    /// The window as the journal has kept it, oldest row first.
    pub(crate) fn new(
        ids_max: usize,
        window_millis: i64,
        rows: Vec<(Timestamp, Vec<IdDigest>)>,
    ) -> Self {
        let clock = AgeClock::resume(rows.last().map(|(at, _)| *at));
        let known = rows.iter().flat_map(|(_, row)| row.iter().copied()).collect();
        let rows = rows.into_iter().map(|(at, row)| (at, row.into_boxed_slice())).collect();
        Self { known, rows, pending: Vec::new(), ids_max, window_millis, clock }
    }

    pub(crate) fn holds(&self, id: IdDigest) -> bool {
        self.known.contains(&id)
    }

    /// Marks an id whose events have just been recorded.
    pub(crate) fn insert(&mut self, id: IdDigest) {
        if self.known.insert(id) {
            self.pending.push(id);
        }
    }

    /// The ids of the commit that is being handed over, as its row; drops rows beyond the limits.
    pub(crate) fn take_row(&mut self, wall: Timestamp) -> Vec<IdDigest> {
        let now = self.clock.tick(wall);
        let row = std::mem::take(&mut self.pending);
        if !row.is_empty() {
            self.rows.push_back((now, row.clone().into_boxed_slice()));
        }
        while let Some((at, oldest)) = self.rows.front() {
            let expired = now.millis_since(*at) > self.window_millis;
            if !expired && self.known.len() <= self.ids_max {
                break;
            }
            for id in oldest {
                self.known.remove(id);
            }
            self.rows.pop_front();
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> IdDigest {
        IdDigest([number; 16])
    }

    #[test]
    fn an_id_is_held_from_its_insertion_until_a_limit() {
        let mut window = IdWindow::new(3, 1_000, vec![(Timestamp(0), vec![id(1), id(2)])]);
        assert!(window.holds(id(1)) && !window.holds(id(3)));
        window.insert(id(3));
        assert!(window.holds(id(3)));
        assert_eq!(window.take_row(Timestamp(10)), vec![id(3)]);
        assert!(window.holds(id(1)), "three fit");
        window.insert(id(4));
        assert_eq!(window.take_row(Timestamp(20)), vec![id(4)]);
        assert!(
            !window.holds(id(1)) && !window.holds(id(2)) && window.holds(id(3)),
            "a row goes whole"
        );
        window.take_row(Timestamp(1_011));
        assert!(!window.holds(id(3)) && window.holds(id(4)), "time goes by");
    }

    #[test]
    fn a_clock_set_ahead_forgets_nothing() {
        let mut window = IdWindow::new(3, 1_000, Vec::new());
        window.insert(id(1));
        window.take_row(Timestamp(0));
        window.take_row(Timestamp(2_208_988_800_000));
        assert!(window.holds(id(1)));
        window.take_row(Timestamp(2_208_988_801_001));
        assert!(!window.holds(id(1)), "time goes by there too");
    }

    #[test]
    fn an_id_is_written_once() {
        let mut window = IdWindow::new(3, 1_000, Vec::new());
        window.insert(id(1));
        window.insert(id(1));
        assert_eq!(window.take_row(Timestamp(0)), vec![id(1)]);
        assert_eq!(window.take_row(Timestamp(0)), vec![]);
    }
}
