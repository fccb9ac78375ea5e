//! A second rater: what a plan charges for a part of a period, what a customer's bill comes to, and the taxes of
//! an invoice, from the words of the documents on pricing and invoices alone,
//! so that the product's amounts can be compared with those of a program that shares no line with it.
//!
//! ```text
//! exact      rationals from decimal texts, rounding, proration
//! quantity   Q: what a meter's aggregation makes of events
//! charge     the charge of B by a price's model
//! calendar   periods of the calendar, in UTC
//! customer   versions and subscriptions: the parts of a period, and who charges which usage
//! document   taxes and totals of an invoice, from its lines
//! catalogue  plans, meters and customers as the TOML that the product reads
//! random     all of these from a seed: one part of a plan, or books of many customers
//! ```
//!
//! **Owns** its reading of the document, and inputs of its own. **Does not own** the comparison. It is slow and
//! obvious on purpose: all numbers are exact rationals, nothing is kept between calls, and nothing of the product
//! is linked, not even a type.
//!
//! Inputs are valid or it panics: a text that is no decimal, a part outside its period, a meter without an
//! aggregation and a package of nothing are mistakes of the test.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "rationals are exact, divisors are asserted, other numbers are small"
)]

pub mod calendar;
pub mod catalogue;
mod charge;
pub mod customer;
pub mod document;
mod exact;
mod quantity;
pub mod random;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;

use self::exact::Rounding;
pub use self::exact::{exact, written};

/// A plan as it holds for a part, with all that a subscription changes; all its numbers are decimal texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Fraction digits of the currency's minor unit.
    pub currency_places: u32,
    /// Halves go to the even neighbour instead of away from zero.
    pub half_even: bool,
    pub fees: Vec<Fee>,
    pub prices: Vec<Price>,
    /// Percent of what the lines before it come to; a subscription's.
    pub discount: Option<String>,
    /// What a whole period comes to at least.
    pub commitment: Option<String>,
}

/// What is charged without regard to usage. When it is due makes no difference to its amount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fee {
    pub name: String,
    pub amount: String,
    /// `timing = "advance"`.
    pub advance: bool,
    /// The name of its tax.
    pub tax: Option<String>,
}

/// What usage of a meter costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    pub meter: String,
    /// `where`: the values of dimensions that usage must have. Empty: all usage.
    pub filter: BTreeMap<String, String>,
    pub included: Option<String>,
    pub minimum: Option<String>,
    pub maximum: Option<String>,
    pub model: Model,
    /// The name of its tax.
    pub tax: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    PerUnit { unit_price: String },
    Package { size: String, price: String },
    Graduated(Vec<Tier>),
    Volume(Vec<Tier>),
    Percentage { percent: String, per_event: String },
}

/// Tiers ascend; the last, and only it, has no `up_to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    pub up_to: Option<String>,
    pub unit_price: String,
    pub flat: String,
}

/// What a meter makes of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aggregation {
    Sum,
    /// All events, with a quantity or without.
    Count,
    Max,
    Min,
    /// Rounded to 9 fraction digits, half to even.
    Average,
    /// The quantity of the greatest (time, quantity).
    Latest,
    /// Different unique values; an event without one adds none.
    UniqueCount,
}

/// One event of usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub meter: String,
    pub dimensions: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub time: i64,
    pub quantity: Option<String>,
    pub unique: Option<String>,
}

/// A part `[from, to)` of a period `[start, end)`, in quarters of an hour since some beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub from: u32,
    pub to: u32,
    pub end: u32,
}

/// What a plan charges for a part, in minor units and in the plan's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amounts {
    pub fees: Vec<BigInt>,
    /// Q, before anything included is taken off, and the line's amount.
    pub prices: Vec<(BigRational, BigInt)>,
    pub discount: Option<BigInt>,
    pub commitment: Option<BigInt>,
    pub total: BigInt,
    /// Events that no price takes.
    pub unpriced_events: u64,
}

/// What `plan` charges for the part `span`, of which `events` are all the usage.
///
/// # Panics
/// If an input is not valid.
#[must_use]
pub fn amounts(
    plan: &Plan,
    aggregations: &BTreeMap<String, Aggregation>,
    span: Span,
    events: &[Event],
) -> Amounts {
    assert!(
        span.start <= span.from && span.from < span.to && span.to <= span.end,
        "{span:?} is no part of a period"
    );
    let mut taken: Vec<Vec<&Event>> = vec![Vec::new(); plan.prices.len()];
    let mut unpriced_events = 0;
    for event in events {
        match plan.prices.iter().position(|price| price.takes(event)) {
            Some(first) => taken[first].push(event),
            None => unpriced_events += 1,
        }
    }

    let rounding = plan.rounding();
    let fees: Vec<BigInt> = plan.fees.iter().map(|fee| span.money(&fee.amount, plan)).collect();
    let mut prices = Vec::new();
    for (price, events) in plan.prices.iter().zip(taken) {
        let quantity = quantity::aggregate(aggregations[&price.meter], &events);
        let billed = price.billed(&quantity, span);
        let charge = charge::charge(&price.model, &billed, events.len());
        let amount = price.bounded(rounding.minor_units(&charge, plan.currency_places), plan, span);
        prices.push((quantity, amount));
    }
    let mut total =
        fees.iter().sum::<BigInt>() + prices.iter().map(|(_, amount)| amount).sum::<BigInt>();
    let discount = plan.discount.as_ref().map(|percent| -plan.percent_of(&total, percent));
    total += discount.iter().sum::<BigInt>();
    let commitment = plan.commitment.as_ref().map(|commitment| {
        let short = span.money(commitment, plan) - &total;
        short.max(BigInt::ZERO)
    });
    total += commitment.iter().sum::<BigInt>();
    Amounts { fees, prices, discount, commitment, total, unpriced_events }
}

impl Plan {
    fn rounding(&self) -> Rounding {
        Rounding::of(self.half_even)
    }

    /// A percentage of an amount in minor units, rounded.
    fn percent_of(&self, amount: &BigInt, percent: &str) -> BigInt {
        let share = BigRational::from_integer(amount.clone()) * exact(percent) / exact("100");
        self.rounding().minor_units(&share, 0)
    }
}

impl Price {
    /// Whether the usage has all the price's dimensions with their values. Whether a price before takes it is
    /// not looked at.
    fn takes(&self, event: &Event) -> bool {
        self.meter == event.meter
            && self
                .filter
                .iter()
                .all(|(dimension, value)| event.dimensions.get(dimension) == Some(value))
    }

    /// Whether nothing is left for `other`, which comes after it: it takes all that `other` could.
    fn takes_all_of(&self, other: &Self) -> bool {
        self.meter == other.meter
            && self
                .filter
                .iter()
                .all(|(dimension, value)| other.filter.get(dimension) == Some(value))
    }

    /// B: Q less what is included, but not below 0; a Q of 0 or less is billed as it is.
    fn billed(&self, quantity: &BigRational, span: Span) -> BigRational {
        let zero = exact("0");
        let Some(included) = &self.included else { return quantity.clone() };
        if *quantity <= zero {
            return quantity.clone();
        }
        let left = quantity - span.included(included);
        if left < zero { zero } else { left }
    }

    /// Raised to the minimum, then lowered to the maximum, so that the maximum has the last word.
    fn bounded(&self, mut amount: BigInt, plan: &Plan, span: Span) -> BigInt {
        if let Some(minimum) = &self.minimum {
            amount = amount.max(span.money(minimum, plan));
        }
        if let Some(maximum) = &self.maximum {
            amount = amount.min(span.money(maximum, plan));
        }
        amount
    }
}

impl Span {
    /// What an amount of the period comes to in this part, in minor units.
    fn money(self, amount: &str, plan: &Plan) -> BigInt {
        self.prorate(amount, |share| plan.rounding().minor_units(share, plan.currency_places))
    }

    /// What a quantity included in the period comes to in this part: rounded up to 9 fraction digits.
    fn included(self, included: &str) -> BigRational {
        self.prorate(included, |share| exact::ceil_to(share, 9))
    }

    /// round(A * (to - start) / (end - start)) - round(A * (from - start) / (end - start)).
    fn prorate<T: std::ops::Sub<Output = T>>(
        self,
        whole: &str,
        round: impl Fn(&BigRational) -> T,
    ) -> T {
        let until = |instant: u32| {
            let elapsed = BigRational::new(
                BigInt::from(instant - self.start),
                BigInt::from(self.end - self.start),
            );
            round(&(exact(whole) * elapsed))
        };
        until(self.to) - until(self.from)
    }
}
