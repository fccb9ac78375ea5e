//! Q: what a meter's aggregation makes of the events that a price takes; 0 where there is nothing to aggregate.
//!
//! **Owns** the aggregations. **Does not own** which events they are.

use std::collections::BTreeSet;

use num_bigint::BigInt;
use num_rational::BigRational;

use super::exact::{Rounding, exact};
use super::{Aggregation, Event};

pub(super) fn aggregate(aggregation: Aggregation, events: &[&Event]) -> BigRational {
    match aggregation {
        Aggregation::Count => number(events.len()),
        Aggregation::UniqueCount => {
            let values: BTreeSet<&String> =
                events.iter().filter_map(|event| event.unique.as_ref()).collect();
            number(values.len())
        }
        Aggregation::Sum => sum(&quantities(events)),
        Aggregation::Max => quantities(events).into_iter().max().unwrap_or_else(|| exact("0")),
        Aggregation::Min => quantities(events).into_iter().min().unwrap_or_else(|| exact("0")),
        Aggregation::Average => average(&quantities(events)),
        Aggregation::Latest => latest(events),
    }
}

fn quantities(events: &[&Event]) -> Vec<BigRational> {
    events.iter().filter_map(|event| event.quantity.as_deref()).map(exact).collect()
}

fn sum(quantities: &[BigRational]) -> BigRational {
    quantities.iter().fold(exact("0"), |sum, quantity| sum + quantity)
}

fn average(quantities: &[BigRational]) -> BigRational {
    if quantities.is_empty() {
        return exact("0");
    }
    Rounding::HalfEven.to_places(&(sum(quantities) / number(quantities.len())), 9)
}

fn latest(events: &[&Event]) -> BigRational {
    let with_time = |event: &&Event| Some((event.time, exact(event.quantity.as_deref()?)));
    events.iter().filter_map(with_time).max().map_or_else(|| exact("0"), |(_, quantity)| quantity)
}

fn number(count: usize) -> BigRational {
    BigRational::from_integer(BigInt::from(count))
}
