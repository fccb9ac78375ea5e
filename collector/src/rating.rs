//! Rating: usage times prices, without a store and without a clock.
//!
//! ```text
//! usage rows --take--> Gathered: one accumulator a price    charge    billed quantity -> exact amount
//!                                     --rate--> Bill: lines, rounded once
//! ```
//! **Owns** which line a fee and a price get, and the order of the steps from usage to an amount; they are those of
//! `deploy/docs/pricing.md`. **Does not own** rounding (`money`), prorating (`terms`), or which quantity a meter bills
//! (`catalog::aggregation`).
//!
//! Pure: the same usage and prices give the same charges, on any machine, for ever.

mod charge;

use thiserror::Error;

use tidemark_common::id::MeterName;
use tidemark_common::quantity::Quantity;

use crate::catalog::plan::{Fee, MeterPrice, Plan};
use crate::catalog::{Catalog, Meter, QuantityOverflow};
use crate::money::{Money, MoneyError, Price};
use crate::terms::{Part, Share};
use crate::usage::{Accumulator, Overflow, UsageRow};

/// A part's usage, by the price that takes it.
#[derive(Debug, Clone)]
pub struct Gathered<'a> {
    part: &'a Part<'a>,
    used: Vec<Accumulator>,
}

/// One line of a bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    Fee { fee: &'a Fee, share: Share, amount: Money },
    Usage(UsageLine<'a>),
}

/// A price's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageLine<'a> {
    pub meter: &'a Meter,
    pub price: &'a MeterPrice,
    pub share: Share,
    pub events: u64,
    /// What was used, as the meter aggregates it.
    pub quantity: Quantity,
    /// What is not billed of it.
    pub included: Quantity,
    pub billed: Quantity,
    /// The charge before minimum and maximum, rounded.
    pub charge: Money,
    pub amount: Money,
}

/// The priced usage of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill<'a> {
    /// One for each fee and price of the plan, in its order, also without usage.
    pub lines: Vec<Line<'a>>,
    /// The sum of the lines' rounded amounts.
    pub total: Money,
}

/// Failed to rate a plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RatingError {
    #[error("failed to rate {meter}: {source}")]
    Quantity { meter: MeterName, source: QuantityOverflow },
    #[error("failed to rate {meter}: {source}")]
    Amount { meter: MeterName, source: MoneyError },
    #[error("failed to rate the fee {name:?}: {source}")]
    Fee { name: String, source: MoneyError },
    #[error("failed to total the bill: {0}")]
    Total(MoneyError),
}

impl<'a> Gathered<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new(part: &'a Part<'a>) -> Self {
        Self { part, used: vec![Accumulator::default(); part.plan.prices.len()] }
    }

    /// Takes a row of the part's time, if the plan has a price for it.
    ///
    /// # Errors
    /// A sum beyond 128 bits.
    pub fn take(&mut self, row: &UsageRow) -> Result<Taken, Overflow> {
        let Share { part, .. } = self.part.share;
        if !(part.start..part.end).contains(&row.bucket) {
            return Ok(Taken::OtherTime);
        }
        let price = self.part.plan.price_of(&row.meter, &row.dimensions);
        match price.and_then(|price| self.used.get_mut(price)) {
            None => Ok(Taken::Unpriced),
            Some(used) => used.merge(&row.usage).map(|()| Taken::Priced),
        }
    }

    /// All lines of the part.
    ///
    /// # Errors
    /// A quantity or an amount beyond 128 bits.
    ///
    /// # Panics
    /// If the plan is not of this catalogue.
    pub fn rate(&self, catalog: &'a Catalog) -> Result<Bill<'a>, RatingError> {
        let Part { plan, share } = *self.part;
        let fees = plan.fees.iter().map(|fee| rate_fee(fee, plan, share));
        let prices = plan.prices.iter().zip(&self.used).map(|(price, used)| {
            let meter = catalog.meters.get(&price.meter);
            let meter = meter.expect("a catalogue prices only meters that it holds");
            rate_usage(meter, price, plan, share, used).map(Line::Usage)
        });
        let lines = fees.chain(prices).collect::<Result<Vec<_>, _>>()?;
        let total = lines.iter().try_fold(Money::zero(plan.currency), |sum, line| {
            sum.checked_add(line.amount()).map_err(RatingError::Total)
        })?;
        Ok(Bill { lines, total })
    }
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Priced,
    /// The plan has no price for it.
    Unpriced,
    /// It is of another part.
    OtherTime,
}

impl Line<'_> {
    #[must_use]
    pub fn amount(&self) -> Money {
        match self {
            Self::Fee { amount, .. } => *amount,
            Self::Usage(line) => line.amount,
        }
    }
}

fn rate_fee<'a>(fee: &'a Fee, plan: &Plan, share: Share) -> Result<Line<'a>, RatingError> {
    let amount = share.of(fee.amount, plan.currency, plan.rounding);
    let amount = amount.map_err(|source| RatingError::Fee { name: fee.name.clone(), source })?;
    Ok(Line::Fee { fee, share, amount })
}

fn rate_usage<'a>(
    meter: &'a Meter,
    price: &'a MeterPrice,
    plan: &Plan,
    share: Share,
    used: &Accumulator,
) -> Result<UsageLine<'a>, RatingError> {
    let quantity = meter.aggregation.quantity(used);
    let quantity = quantity
        .map_err(|source| RatingError::Quantity { meter: meter.name.clone(), source })?
        .unwrap_or(Quantity::ZERO);
    let included = included(price.included, share);
    let billed = billed(quantity, included);
    let amounts = || {
        let too_large = MoneyError::TooLarge { currency: plan.currency };
        let exact = charge::exact(&price.model, billed, used.events).ok_or(too_large)?;
        let charge = exact.round(plan.currency, plan.rounding)?;
        Ok((charge, bounded(charge, price, plan, share)?))
    };
    let (charge, amount) =
        amounts().map_err(|source| RatingError::Amount { meter: meter.name.clone(), source })?;
    let events = used.events;
    Ok(UsageLine { meter, price, share, events, quantity, included, billed, charge, amount })
}

/// The part's share of what is included in the whole period, rounded up to what quantities can say.
fn included(whole: Quantity, share: Share) -> Quantity {
    let length = i128::from(share.length().get());
    let due = |by: u32| {
        // Below 10^24 * 2^32.
        let product = whole.0.saturating_mul(i128::from(by));
        let floor = product.checked_div_euclid(length).unwrap_or(product);
        let rest = product.checked_rem_euclid(length).unwrap_or(0);
        floor.saturating_add(i128::from(rest > 0))
    };
    let [begin, end] = share.bounds();
    Quantity(due(end).saturating_sub(due(begin)))
}

fn billed(quantity: Quantity, included: Quantity) -> Quantity {
    if quantity <= Quantity::ZERO {
        return quantity;
    }
    Quantity(quantity.0.saturating_sub(included.0).max(0))
}

/// The charge, raised to the minimum and lowered to the maximum of the part.
fn bounded(
    charge: Money,
    price: &MeterPrice,
    plan: &Plan,
    share: Share,
) -> Result<Money, MoneyError> {
    let of = |bound: Option<Price>| {
        bound.map(|bound| share.of(bound, plan.currency, plan.rounding)).transpose()
    };
    let raised = of(price.minimum)?.map_or(charge.minor, |bound| charge.minor.max(bound.minor));
    let minor = of(price.maximum)?.map_or(raised, |bound| raised.min(bound.minor));
    Ok(Money { minor, ..charge })
}

#[cfg(test)]
mod tests;
