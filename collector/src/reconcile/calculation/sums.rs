//! Sums of one key, from batches and from totals, side by side.
//!
//! **Owns** how they are added and compared. Addition is of its own, in 256 bits: what 128 bits hold is split into rows
//! by one side and not by the other.

use hashbrown::HashMap;

use tidemark_common::batch::Line;
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;

use crate::usage::{Accumulator, UniqueValue};

/// A sum of quantities in 256 bits, two's complement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wide {
    high: i128,
    low: u128,
}

impl Wide {
    fn add(&mut self, quantity: Quantity) {
        let (low, carried) = self.low.overflowing_add(quantity.0.cast_unsigned());
        let sign = if quantity.0 < 0 { -1_i128 } else { 0 };
        self.low = low;
        self.high = self.high.wrapping_add(sign).wrapping_add(i128::from(carried));
    }

    fn minus(self, other: Self) -> Self {
        let (low, borrowed) = self.low.overflowing_sub(other.low);
        let high = self.high.wrapping_sub(other.high).wrapping_sub(i128::from(borrowed));
        Self { high, low }
    }

    /// The same in 128 bits, if it fits.
    fn narrow(self) -> Option<Quantity> {
        let low = self.low.cast_signed();
        let sign = if low < 0 { -1_i128 } else { 0 };
        (self.high == sign).then_some(Quantity(low))
    }
}

/// What one side says of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Side {
    events: u64,
    quantity_events: u64,
    unique_events: u64,
    sum: Wide,
    /// Least, greatest, and the latest with its time; `None` without a quantity.
    extremes: Option<(Quantity, Quantity, (Timestamp, Quantity))>,
}

/// One addition to a side.
struct More {
    events: u64,
    quantity_events: u64,
    unique_events: u64,
    sum: Quantity,
    extremes: Option<(Quantity, Quantity, (Timestamp, Quantity))>,
}

impl Side {
    fn add(&mut self, more: &More) {
        self.events = self.events.saturating_add(more.events);
        self.quantity_events = self.quantity_events.saturating_add(more.quantity_events);
        self.unique_events = self.unique_events.saturating_add(more.unique_events);
        self.sum.add(more.sum);
        self.extremes = match (self.extremes, more.extremes) {
            (None, only) | (only, None) => only,
            (
                Some((least, greatest, latest)),
                Some((other_least, other_greatest, other_latest)),
            ) => {
                let least = if other_least < least { other_least } else { least };
                let greatest = if other_greatest > greatest { other_greatest } else { greatest };
                let latest = if other_latest > latest { other_latest } else { latest };
                Some((least, greatest, latest))
            }
        };
    }
}

/// Which side has a distinct value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Has {
    batches: bool,
    totals: bool,
}

/// Both sides of a key.
#[derive(Debug, Default)]
pub(super) struct Pair {
    batches: Side,
    totals: Side,
    /// Most keys have none.
    uniques: Option<Box<HashMap<UniqueValue, Has>>>,
}

impl Pair {
    /// A stored batch's line. How many distinct values are new by it.
    pub(super) fn take_batch(&mut self, line: &Line) -> usize {
        self.batches.add(&of_line(line));
        self.note(uniques_of(line), |has| has.batches = true)
    }

    /// A line that is not folded yet: it comes to the totals.
    pub(super) fn take_tail(&mut self, line: &Line) -> usize {
        self.totals.add(&of_line(line));
        self.note(uniques_of(line), |has| has.totals = true)
    }

    /// A row of the totals; one of distinct values counts no events.
    pub(super) fn take_row(&mut self, row: &Accumulator) -> usize {
        let extremes = row.latest.map(|latest| (row.min, row.max, latest));
        self.totals.add(&More {
            events: row.events,
            quantity_events: row.quantity_events,
            unique_events: row.unique_events,
            sum: row.sum,
            extremes,
        });
        self.note(row.uniques.iter().copied(), |has| has.totals = true)
    }

    fn note(
        &mut self,
        values: impl Iterator<Item = UniqueValue>,
        mark: impl Fn(&mut Has),
    ) -> usize {
        let count = |held: &Option<Box<HashMap<_, _>>>| held.as_ref().map_or(0, |all| all.len());
        let before = count(&self.uniques);
        for value in values {
            mark(self.uniques.get_or_insert_default().entry(value).or_default());
        }
        count(&self.uniques).saturating_sub(before)
    }

    pub(super) fn differs(&self) -> bool {
        let both = Has { batches: true, totals: true };
        self.batches != self.totals
            || self.uniques.iter().flat_map(|all| all.values()).any(|has| *has != both)
    }

    /// Events by the batches, and by the totals.
    pub(super) fn events(&self) -> (u64, u64) {
        (self.batches.events, self.totals.events)
    }

    /// How much more the totals have; `None`: beyond 128 bits.
    pub(super) fn quantity_more(&self) -> Option<Quantity> {
        self.totals.sum.minus(self.batches.sum).narrow()
    }
}

fn of_line(line: &Line) -> More {
    let value = &line.value;
    let latest = (value.latest_time, value.latest);
    More {
        events: value.events,
        quantity_events: value.quantity_events,
        unique_events: value.unique_events,
        sum: value.sum,
        extremes: (value.quantity_events > 0).then_some((value.min, value.max, latest)),
    }
}

fn uniques_of(line: &Line) -> impl Iterator<Item = UniqueValue> {
    line.value.uniques.iter().map(|digest| (line.value.unique_key, *digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_beyond_128_bits_are_the_same_in_any_order() {
        let numbers = [i128::MAX, i128::MAX, -5, i128::MIN, 7, i128::MIN, i128::MAX, 0];
        let sum = |numbers: &mut dyn Iterator<Item = i128>| {
            let mut sum = Wide::default();
            numbers.for_each(|number| sum.add(Quantity(number)));
            sum
        };
        let forward = sum(&mut numbers.into_iter());
        assert_eq!(sum(&mut numbers.into_iter().rev()), forward);
        assert_eq!(forward.narrow(), Some(Quantity(i128::MAX)));
        let twice = sum(&mut [i128::MAX, i128::MAX].into_iter());
        assert_eq!(twice.narrow(), None);
        assert_eq!(
            twice.minus(sum(&mut [i128::MAX].into_iter())).narrow(),
            Some(Quantity(i128::MAX))
        );
        let negative = sum(&mut [-3].into_iter());
        assert_eq!(negative.minus(sum(&mut [4].into_iter())).narrow(), Some(Quantity(-7)));
    }
}
