//! Rating: usage times prices, without a store and without a clock.
//!
//! **Owns** how a quantity becomes an exact amount, and which line a meter gets. **Does not own**
//! rounding (`money`), or which quantity a meter bills (`catalog::aggregation`).
//!
//! Pure: the same usage and prices give the same charges, on any machine, for ever.

pub mod per_unit;

use std::collections::BTreeMap;

use thiserror::Error;

use tidemark_common::id::MeterName;
use tidemark_common::quantity::Quantity;

use crate::catalog::{Aggregation, Catalog, Plan, QuantityOverflow};
use crate::money::{Money, MoneyError, UnitPrice};
use crate::usage::Accumulator;

/// One meter of a bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub meter: MeterName,
    pub aggregation: Aggregation,
    pub unit: Option<String>,
    pub quantity: Quantity,
    pub events: u64,
    pub unit_price: UnitPrice,
    pub amount: Money,
}

/// The priced usage of one customer in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// One for each price of the plan, ascending by meter, also for meters without usage.
    pub lines: Vec<Line>,
    /// The sum of the lines' rounded amounts.
    pub total: Money,
}

/// Failed to rate a meter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RatingError {
    #[error("failed to rate {meter}: {source}")]
    Quantity { meter: MeterName, source: QuantityOverflow },
    #[error("failed to rate {meter}: {source}")]
    Amount { meter: MeterName, source: MoneyError },
    #[error("failed to total the bill: {0}")]
    Total(MoneyError),
}

/// Rates one customer's usage of one period, gathered by meter.
///
/// # Errors
/// A quantity or an amount beyond 128 bits.
pub fn rate(
    catalog: &Catalog,
    plan: &Plan,
    usage: &BTreeMap<MeterName, Accumulator>,
) -> Result<Bill, RatingError> {
    let nothing = Accumulator::default();
    let mut lines = Vec::with_capacity(plan.prices.len());
    let mut total = Money::zero(plan.currency);
    for (name, unit_price) in &plan.prices {
        let meter = catalog.meters.get(name).expect("a catalogue prices only meters that it holds");
        let used = usage.get(name).unwrap_or(&nothing);
        let quantity = meter
            .aggregation
            .quantity(used)
            .map_err(|source| RatingError::Quantity { meter: name.clone(), source })?
            .unwrap_or(Quantity::ZERO);
        let amount = per_unit::charge(quantity, *unit_price)
            .round(plan.currency)
            .map_err(|source| RatingError::Amount { meter: name.clone(), source })?;
        total = total.checked_add(amount).map_err(RatingError::Total)?;
        lines.push(Line {
            meter: name.clone(),
            aggregation: meter.aggregation,
            unit: meter.unit.clone(),
            quantity,
            events: used.events,
            unit_price: *unit_price,
            amount,
        });
    }
    Ok(Bill { lines, total })
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CATALOG: &str = r#"
        [[meter]]
        name = "calls"
        aggregation = "sum"
        [[meter]]
        name = "peak"
        aggregation = "max"
        [[meter]]
        name = "free"
        aggregation = "sum"
        [plan]
        name = "standard"
        currency = "EUR"
        [[plan.price]]
        meter = "calls"
        unit_price = "0.0035"
        [[plan.price]]
        meter = "peak"
        unit_price = "1.2"
    "#;

    fn used(units: i128) -> Accumulator {
        let quantity = Quantity(units);
        Accumulator {
            events: 1,
            quantity_events: 1,
            sum: quantity,
            min: quantity,
            max: quantity,
            ..Default::default()
        }
    }

    fn bill(usage: &[(&str, i128)]) -> Result<Bill, RatingError> {
        let catalog = Catalog::parse(CATALOG, "c").unwrap();
        let usage = usage
            .iter()
            .map(|(meter, units)| (MeterName::parse(meter).unwrap(), used(*units)))
            .collect();
        rate(&catalog, catalog.plan.as_ref().unwrap(), &usage)
    }

    /// (meter, units of 10^-9) -> each line's quantity and amount, and the total.
    fn check(usage: &[(&str, i128)], expected: &str) {
        let bill = bill(usage).unwrap();
        let mut shown: Vec<_> = bill
            .lines
            .iter()
            .map(|line| format!("{} {} {}", line.meter, line.quantity, line.amount.amount()))
            .collect();
        shown.push(bill.total.to_string());
        assert_eq!(shown.join(", "), expected);
    }

    #[test]
    fn bills_hold_every_price_and_nothing_unpriced() {
        check(&[], "calls 0 0.00, peak 0 0.00, 0.00 EUR");
        check(&[("calls", 3_000_000_000)], "calls 3 0.01, peak 0 0.00, 0.01 EUR");
        check(
            &[("peak", 2_500_000_000), ("free", 9_000_000_000)],
            "calls 0 0.00, peak 2.5 3.00, 3.00 EUR",
        );
        check(
            &[("calls", -10_000_000_000), ("peak", 1_000_000_000)],
            "calls -10 -0.04, peak 1 1.20, 1.16 EUR",
        );
    }

    #[test]
    fn lines_are_rounded_and_the_total_is_their_sum() {
        // 1.43 calls cost 0.005005 and a peak of 0.0042 costs 0.00504: two cents, not one.
        check(
            &[("calls", 1_430_000_000), ("peak", 4_200_000)],
            "calls 1.43 0.01, peak 0.0042 0.01, 0.02 EUR",
        );
    }

    proptest! {
        /// More usage never costs less.
        #[test]
        fn rating_is_monotonous(units in 0..10_i128.pow(24), more in 0..10_i128.pow(24)) {
            let less = bill(&[("calls", units)]).unwrap().total.minor;
            let greater = bill(&[("calls", units + more)]).unwrap().total.minor;
            prop_assert!(less <= greater);
        }
    }
}
