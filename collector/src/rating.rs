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
pub mod explain;

use thiserror::Error;

use tidemark_common::id::MeterName;
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;

use crate::catalog::plan::{Fee, MeterPrice};
use crate::catalog::{Aggregation, Catalog, Meter, QuantityOverflow};
use crate::money::{Money, MoneyError, Percent, Price};
use crate::period::Period;
use crate::terms::{Charging, Part, Share};
use crate::usage::{Accumulator, Overflow, UsageRow};

/// A part's usage, by the price that takes it.
#[derive(Debug, Clone)]
pub struct Gathered<'a> {
    part: Part<'a>,
    used: Vec<(&'a MeterPrice, Accumulator)>,
}

/// One line of a bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    Fee {
        fee: &'a Fee,
        part: Part<'a>,
        amount: Money,
    },
    Usage(UsageLine<'a>),
    /// What is taken off the lines before it.
    Discount {
        percent: Percent,
        part: Part<'a>,
        amount: Money,
    },
    /// What the lines before it are short of a commitment.
    Commitment {
        commitment: Price,
        part: Part<'a>,
        amount: Money,
        /// Where it is one of several periods.
        term: Option<TermDue>,
    },
}

/// A commitment of a term, in its last period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermDue {
    pub term: Period,
    /// The commitment, prorated to what of the term the plan is in force.
    pub due: Money,
    /// All that is charged of the term.
    pub charged: Money,
}

/// A price's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageLine<'a> {
    pub meter: &'a Meter,
    pub price: &'a MeterPrice,
    pub part: Part<'a>,
    pub events: u64,
    /// What was used, as the meter aggregates it.
    pub quantity: Quantity,
    /// What is not billed of it.
    pub included: Quantity,
    pub billed: Quantity,
    /// The charge before minimum, maximum and trial, rounded.
    pub charge: Money,
    pub amount: Money,
}

/// The priced usage of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill<'a> {
    /// One for each fee and price, in the plan's order, also without usage; then discount and commitment.
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
    pub fn new(part: Part<'a>) -> Self {
        Self { part, used: part.prices().map(|price| (price, Accumulator::default())).collect() }
    }

    /// Takes a row of the part's time, if there is a price for it.
    ///
    /// # Errors
    /// A sum beyond 128 bits.
    pub fn take(&mut self, row: &UsageRow) -> Result<Taken, Overflow> {
        let Share { part, .. } = self.part.share;
        if !(part.start..part.end).contains(&row.bucket) {
            return Ok(Taken::OtherTime);
        }
        let takes =
            |(price, _): &&mut (&MeterPrice, Accumulator)| price.takes(&row.meter, &row.dimensions);
        match self.used.iter_mut().find(takes) {
            None => Ok(Taken::Unpriced),
            Some((_, used)) => used.apply(row).map(|()| Taken::Priced),
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
        self.rate_at(catalog, Pace::NONE)
    }

    /// What the lines will come to at the part's end, if usage goes on as it did from its beginning until `now`: sums
    /// and counts grow, the other aggregations stay. An estimate.
    ///
    /// # Errors
    /// As [`Self::rate`].
    pub fn project(&self, catalog: &'a Catalog, now: Timestamp) -> Result<Bill<'a>, RatingError> {
        let Period { start, end } = self.part.share.part;
        let passed = now.millis_since(start.start());
        let length = end.start().millis_since(start.start());
        let running = (1..length).contains(&passed);
        self.rate_at(catalog, if running { Pace { length, passed } } else { Pace::NONE })
    }

    fn rate_at(&self, catalog: &'a Catalog, pace: Pace) -> Result<Bill<'a>, RatingError> {
        let part = self.part;
        let fees = part.fees().map(|fee| rate_fee(fee, part));
        let prices = self.used.iter().map(|(price, used)| {
            let meter = catalog.meters.get(&price.meter);
            let meter = meter.expect("a catalogue prices only meters that it holds");
            rate_usage(meter, price, part, used, pace).map(Line::Usage)
        });
        let lines = fees.chain(prices).collect::<Result<Vec<_>, _>>()?;
        let mut bill = Bill { lines, total: Money::zero(part.plan.currency) };
        let amounts = bill.lines.iter().map(Line::amount);
        bill.total = sum(bill.total, amounts).map_err(RatingError::Total)?;
        bill.add_discount(part).map_err(RatingError::Total)?;
        bill.add_commitment(part).map_err(RatingError::Total)?;
        Ok(bill)
    }
}

fn sum(zero: Money, mut amounts: impl Iterator<Item = Money>) -> Result<Money, MoneyError> {
    amounts.try_fold(zero, Money::checked_add)
}

impl<'a> Bill<'a> {
    fn add_discount(&mut self, part: Part<'a>) -> Result<(), MoneyError> {
        let Some(percent) = part.subscription.discount else { return Ok(()) };
        let off = self.total.percent(percent, part.rounding)?;
        let amount = Money { minor: off.minor.saturating_neg(), ..off };
        self.add(Line::Discount { percent, part, amount })
    }

    fn add_commitment(&mut self, part: Part<'a>) -> Result<(), MoneyError> {
        let Some(commitment) = part.plan.commitment else { return Ok(()) };
        if part.plan.commitment_term.is_some() {
            return Ok(());
        }
        let least = match part.charging {
            Charging::Trial => Money::zero(part.plan.currency),
            Charging::Charged => part.share.of(commitment, part.plan.currency, part.rounding)?,
        };
        let short = least.checked_sub(self.total)?;
        let amount = Money { minor: short.minor.max(0), ..short };
        self.add(Line::Commitment { commitment, part, amount, term: None })
    }

    /// One more line, at the end.
    ///
    /// # Errors
    /// A sum beyond 128 bits.
    pub fn add(&mut self, line: Line<'a>) -> Result<(), MoneyError> {
        self.total = self.total.checked_add(line.amount())?;
        self.lines.push(line);
        Ok(())
    }
}

/// How far usage has come of what it will be.
#[derive(Debug, Clone, Copy)]
struct Pace {
    length: i64,
    /// Above 0.
    passed: i64,
}

impl Pace {
    /// Usage as it is.
    const NONE: Self = Self { length: 1, passed: 1 };

    fn of(self, figure: i128) -> Result<i128, QuantityOverflow> {
        let grown = figure.checked_mul(self.length.into());
        grown.and_then(|grown| grown.checked_div(self.passed.into())).ok_or(QuantityOverflow)
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
            Self::Fee { amount, .. }
            | Self::Discount { amount, .. }
            | Self::Commitment { amount, .. } => *amount,
            Self::Usage(line) => line.amount,
        }
    }
}

fn rate_fee<'a>(fee: &'a Fee, part: Part<'a>) -> Result<Line<'a>, RatingError> {
    let amount = part.share.of(fee.amount, part.plan.currency, part.rounding);
    let amount = amount.map_err(|source| RatingError::Fee { name: fee.name.clone(), source })?;
    Ok(Line::Fee { fee, part, amount: charged(amount, part) })
}

fn rate_usage<'a>(
    meter: &'a Meter,
    price: &'a MeterPrice,
    part: Part<'a>,
    used: &Accumulator,
    pace: Pace,
) -> Result<UsageLine<'a>, RatingError> {
    let too_large = |source| RatingError::Quantity { meter: meter.name.clone(), source };
    let quantity = meter.aggregation.quantity(used).map_err(too_large)?.unwrap_or(Quantity::ZERO);
    let quantity = match meter.aggregation {
        Aggregation::Sum | Aggregation::Count => Quantity(pace.of(quantity.0).map_err(too_large)?),
        Aggregation::Max
        | Aggregation::Min
        | Aggregation::Average
        | Aggregation::Latest
        | Aggregation::UniqueCount => quantity,
    };
    let events = pace.of(used.events.into()).map_err(too_large)?;
    let events = u64::try_from(events).map_err(|_| too_large(QuantityOverflow))?;
    let included = included(price.included, part.share);
    let billed = billed(quantity, included);
    let amounts = || {
        let (currency, rounding) = (part.plan.currency, part.rounding);
        let exact = charge::exact(&price.model, billed, events);
        let charge = exact.ok_or(MoneyError::TooLarge { currency })?.round(currency, rounding)?;
        Ok((charge, charged(bounded(charge, price, part)?, part)))
    };
    let (charge, amount) =
        amounts().map_err(|source| RatingError::Amount { meter: meter.name.clone(), source })?;
    Ok(UsageLine { meter, price, part, events, quantity, included, billed, charge, amount })
}

/// Nothing in a trial.
fn charged(amount: Money, part: Part<'_>) -> Money {
    match part.charging {
        Charging::Charged => amount,
        Charging::Trial => Money { minor: 0, ..amount },
    }
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
fn bounded(charge: Money, price: &MeterPrice, part: Part<'_>) -> Result<Money, MoneyError> {
    let of = |bound: Option<Price>| {
        let due = |bound| part.share.of(bound, part.plan.currency, part.rounding);
        bound.map(due).transpose()
    };
    let raised = of(price.minimum)?.map_or(charge.minor, |bound| charge.minor.max(bound.minor));
    let minor = of(price.maximum)?.map_or(raised, |bound| raised.min(bound.minor));
    Ok(Money { minor, ..charge })
}

#[cfg(test)]
mod tests;
