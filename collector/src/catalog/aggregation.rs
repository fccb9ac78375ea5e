//! How a meter's lines become one quantity.
//!
//! **Owns** reading a quantity off an accumulator. **Does not own** merging accumulators, which is
//! exact and independent of order: `usage` does.

use std::fmt;

use thiserror::Error;

use tidemark_common::quantity::{Quantity, UNITS_PER_ONE};

use crate::usage::Accumulator;

/// How a meter's events become one quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    /// The sum of all quantities.
    Sum,
    /// The number of events, with or without a quantity.
    Count,
    Max,
    Min,
    /// The sum divided by the number of events with a quantity, to 9 fraction digits, half to even.
    Average,
    /// The quantity of the greatest (time, quantity).
    Latest,
    /// The number of distinct unique values.
    UniqueCount,
}

/// Failed to express a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("failed to express the quantity: it exceeds 128 bits")]
pub struct QuantityOverflow;

impl Aggregation {
    pub const ALL: [Self; 7] = [
        Self::Sum,
        Self::Count,
        Self::Max,
        Self::Min,
        Self::Average,
        Self::Latest,
        Self::UniqueCount,
    ];

    /// The name, as the catalogue and the API write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Max => "max",
            Self::Min => "min",
            Self::Average => "average",
            Self::Latest => "latest",
            Self::UniqueCount => "unique_count",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|aggregation| aggregation.name() == name)
    }

    /// The quantity of all that `usage` gathered; `None` where nothing with a quantity was, and the
    /// aggregation has no value for nothing.
    ///
    /// # Errors
    /// A count beyond what a quantity holds, which takes 10^29 events.
    pub fn quantity(self, usage: &Accumulator) -> Result<Option<Quantity>, QuantityOverflow> {
        let measured = usage.quantity_events > 0;
        match self {
            Self::Sum => Ok(Some(usage.sum)),
            Self::Count => whole(usage.events.into()).map(Some),
            Self::Max => Ok(measured.then_some(usage.max)),
            Self::Min => Ok(measured.then_some(usage.min)),
            Self::Average => Ok(average(usage)),
            Self::Latest => Ok(usage.latest.map(|(_, quantity)| quantity)),
            Self::UniqueCount => {
                let distinct = u64::try_from(usage.uniques.len()).map_err(|_| QuantityOverflow)?;
                whole(distinct.into()).map(Some)
            }
        }
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn whole(count: i128) -> Result<Quantity, QuantityOverflow> {
    count.checked_mul(UNITS_PER_ONE).map(Quantity).ok_or(QuantityOverflow)
}

/// Half to even, so that averages of many buckets do not drift upwards.
fn average(usage: &Accumulator) -> Option<Quantity> {
    let events = i128::from(usage.quantity_events);
    let floor = usage.sum.0.checked_div_euclid(events)?;
    let remainder = usage.sum.0.checked_rem_euclid(events)?;
    let twice = remainder.checked_mul(2)?;
    let up = twice > events || (twice == events && floor.rem_euclid(2) == 1);
    floor.checked_add(i128::from(up)).map(Quantity)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidemark_common::time::Timestamp;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text.as_bytes()).unwrap()
    }

    fn usage() -> Accumulator {
        Accumulator {
            events: 5,
            quantity_events: 4,
            unique_events: 3,
            sum: quantity("10"),
            min: quantity("-1"),
            max: quantity("8"),
            latest: Some((Timestamp(7), quantity("2"))),
            uniques: BTreeSet::from([(0, [1; 16]), (0, [2; 16]), (1, [1; 16])]),
        }
    }

    fn check(aggregation: Aggregation, usage: &Accumulator, expected: Option<&str>) {
        let read = aggregation.quantity(usage).unwrap().map(|quantity| quantity.to_string());
        assert_eq!(read.as_deref(), expected, "{aggregation}");
    }

    #[test]
    fn each_aggregation_reads_its_figure() {
        let usage = usage();
        check(Aggregation::Sum, &usage, Some("10"));
        check(Aggregation::Count, &usage, Some("5"));
        check(Aggregation::Max, &usage, Some("8"));
        check(Aggregation::Min, &usage, Some("-1"));
        check(Aggregation::Average, &usage, Some("2.5"));
        check(Aggregation::Latest, &usage, Some("2"));
        check(Aggregation::UniqueCount, &usage, Some("3"));
    }

    #[test]
    fn nothing_has_a_sum_and_a_count_but_no_maximum() {
        let nothing = Accumulator::default();
        check(Aggregation::Sum, &nothing, Some("0"));
        check(Aggregation::Count, &nothing, Some("0"));
        check(Aggregation::UniqueCount, &nothing, Some("0"));
        for aggregation in
            [Aggregation::Max, Aggregation::Min, Aggregation::Average, Aggregation::Latest]
        {
            check(aggregation, &nothing, None);
        }
    }

    #[test]
    fn averages_round_half_to_even_at_nine_digits() {
        let check_average = |sum: i128, events: u64, expected: i128| {
            let usage = Accumulator {
                sum: Quantity(sum),
                quantity_events: events,
                ..Accumulator::default()
            };
            assert_eq!(
                Aggregation::Average.quantity(&usage),
                Ok(Some(Quantity(expected))),
                "{sum} / {events}"
            );
        };
        check_average(1, 2, 0);
        check_average(3, 2, 2);
        check_average(5, 2, 2);
        check_average(-1, 2, 0);
        check_average(-3, 2, -2);
        check_average(10, 3, 3);
        check_average(11, 3, 4);
        check_average(-11, 3, -4);
        check_average(i128::MAX, 1, i128::MAX);
    }

    #[test]
    fn names_come_back() {
        for aggregation in Aggregation::ALL {
            assert_eq!(Aggregation::parse(aggregation.name()), Some(aggregation));
        }
        assert_eq!(Aggregation::parse("Sum"), None);
    }
}
