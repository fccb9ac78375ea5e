//! The window of idempotency ids that the journal knows.
//!
//! **Owns** which ids are duplicates. **Does not own** their rows on disk, which the journal drops by
//! the same two limits. The key never holds the event's time: a retry with a new time is a duplicate.
//!
//! Limits: `ids_max` ids, and `window` of time, which no clock step spends; whole rows (one a commit) go, oldest first.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use tidemark_common::time::Timestamp;

use crate::event::IdDigest;
use crate::event::age_clock::AgeClock;

#[derive(Debug)]
pub(crate) struct IdWindow {
    /// Every id that is known, in the order in which they came; the last `pending` are of the commit that is being filled.
    ids: VecDeque<IdDigest>,
    pending: usize,
    /// When the others were committed, and how many at once.
    rows: VecDeque<(Timestamp, usize)>,
    /// Where each stands: its number, of which the first in `ids` has `first`. Numbers wrap around. Each id is held
    /// once, since hundreds of thousands are.
    places: HashTable<u32>,
    first: u32,
    hasher: DefaultHashBuilder,
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
        let mut window = Self {
            ids: VecDeque::new(),
            pending: 0,
            rows: VecDeque::new(),
            places: HashTable::new(),
            first: 0,
            hasher: DefaultHashBuilder::default(),
            ids_max,
            window_millis,
            clock,
        };
        for (at, row) in rows {
            row.into_iter().for_each(|id| window.insert(id));
            window.close_row(at);
        }
        window
    }

    pub(crate) fn holds(&self, id: IdDigest) -> bool {
        let (ids, first) = (&self.ids, self.first);
        self.places.find(self.hasher.hash_one(id), |place| *at(ids, first, *place) == id).is_some()
    }

    /// Marks an id whose events have just been recorded.
    pub(crate) fn insert(&mut self, id: IdDigest) {
        if self.holds(id) {
            return;
        }
        let place = u32::try_from(self.ids.len()).expect("far fewer ids than 2^32 are held");
        self.ids.push_back(id);
        self.pending = self.pending.saturating_add(1);
        let (ids, first, hasher) = (&self.ids, self.first, &self.hasher);
        self.places.insert_unique(hasher.hash_one(id), first.wrapping_add(place), |place| {
            hasher.hash_one(at(ids, first, *place))
        });
    }

    /// The ids of the commit that is being handed over, as its row; drops rows beyond the limits.
    pub(crate) fn take_row(&mut self, wall: Timestamp) -> Vec<IdDigest> {
        let now = self.clock.tick(wall);
        let committed = self.ids.len().saturating_sub(self.pending);
        let row = self.ids.range(committed..).copied().collect();
        self.close_row(now);
        while let Some((at, count)) = self.rows.front().copied() {
            let expired = now.millis_since(at) > self.window_millis;
            if !expired && self.ids.len() <= self.ids_max {
                break;
            }
            (0..count).for_each(|_| self.forget_first());
            self.rows.pop_front();
        }
        row
    }

    fn close_row(&mut self, at: Timestamp) {
        match std::mem::take(&mut self.pending) {
            0 => {}
            count => self.rows.push_back((at, count)),
        }
    }

    fn forget_first(&mut self) {
        let Some(id) = self.ids.front() else { return };
        let first = self.first;
        if let Ok(entry) = self.places.find_entry(self.hasher.hash_one(id), |place| *place == first)
        {
            entry.remove();
        }
        self.ids.pop_front();
        self.first = first.wrapping_add(1);
    }
}

/// The id with this number, where the first has `first`.
fn at(ids: &VecDeque<IdDigest>, first: u32, place: u32) -> &IdDigest {
    let index = usize::try_from(place.wrapping_sub(first)).expect("a u32 fits the address space");
    &ids[index]
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
    fn numbers_wrap_around() {
        let mut window = IdWindow::new(2, 1_000, Vec::new());
        window.first = u32::MAX - 2;
        for number in 0..10 {
            window.insert(id(number));
            assert_eq!(window.take_row(Timestamp(0)), vec![id(number)]);
            let held: Vec<u8> = (0..10).filter(|held| window.holds(id(*held))).collect();
            assert_eq!(held, (number.saturating_sub(1)..=number).collect::<Vec<_>>());
        }
        assert_eq!((window.places.len(), window.ids.len(), window.rows.len()), (2, 2, 2));
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
