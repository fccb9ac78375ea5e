//! Terms: which version of which plan holds for a customer, when.
//!
//! **Owns** how a period is cut into parts. **Does not own** what a part costs (`rating`), or where periods begin
//! (`period`).
//!
//! Pure. A section is one subscription's share of its plan's period; its parts do not overlap, ascend, and cover it.

use std::num::NonZeroU32;

use tidemark_common::id::CustomerId;
use tidemark_common::time::{Bucket, Timestamp};

use crate::catalog::plan::{Fee, MeterPrice, Plan};
use crate::catalog::{Catalog, Customer, Subscription};
use crate::money::{Currency, Money, MoneyError, Price, Rounding};
use crate::period::{Period, PeriodError};
use crate::usage::UsageRow;

/// One subscription in one period of its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    pub subscription: &'a Subscription,
    pub period: Period,
    pub parts: Vec<Part<'a>>,
}

/// A stretch of a period with one version of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    pub plan: &'a Plan,
    pub subscription: &'a Subscription,
    pub share: Share,
    pub charging: Charging,
    /// The plan's, or the seller's.
    pub rounding: Rounding,
}

/// Whether a part is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charging {
    Charged,
    /// Nothing is.
    Trial,
}

impl<'a> Part<'a> {
    /// The plan's fees, or what the subscription has in their place, and then its own.
    pub fn fees(self) -> impl Iterator<Item = &'a Fee> {
        let Self { plan, subscription, .. } = self;
        let own =
            |fee: &'a Fee| subscription.fees.iter().find(|own| own.name == fee.name).unwrap_or(fee);
        let added = |own: &&Fee| plan.fees.iter().all(|fee| fee.name != own.name);
        plan.fees.iter().map(own).chain(subscription.fees.iter().filter(added))
    }

    /// The subscription's prices, then those of the plan that they do not hide.
    pub fn prices(self) -> impl Iterator<Item = &'a MeterPrice> {
        prices(self.subscription, self.plan)
    }
}

/// Which stretch of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub period: Period,
    /// Within the period, and not empty.
    pub part: Period,
}

impl Share {
    /// All of a period.
    #[must_use]
    pub fn whole(period: Period) -> Self {
        Self { period, part: period }
    }

    #[must_use]
    pub fn is_whole(self) -> bool {
        self.part == self.period
    }

    /// How many quarters of an hour the period has.
    #[must_use]
    pub fn length(self) -> NonZeroU32 {
        let length = self.period.end.0.saturating_sub(self.period.start.0);
        NonZeroU32::new(length).unwrap_or(NonZeroU32::MIN)
    }

    /// How many of them lie before the part's first, and before its end.
    #[must_use]
    pub fn bounds(self) -> [u32; 2] {
        [self.part.start, self.part.end].map(|edge| edge.0.saturating_sub(self.period.start.0))
    }

    /// The part's share of an amount for the whole period: what is due by its end, less what was due by its
    /// beginning, so that the shares of all parts add up to the whole.
    ///
    /// # Errors
    /// An amount beyond 128 bits of minor units.
    pub fn of(
        self,
        amount: Price,
        currency: Currency,
        rounding: Rounding,
    ) -> Result<Money, MoneyError> {
        let due = |by| amount.share(by, self.length(), currency, rounding);
        let [begin, end] = self.bounds();
        due(end)?.checked_sub(due(begin)?)
    }
}

fn prices<'a>(
    subscription: &'a Subscription,
    plan: &'a Plan,
) -> impl Iterator<Item = &'a MeterPrice> {
    let own = &subscription.prices;
    let left = |price: &&MeterPrice| !own.iter().any(|own| own.hides(price));
    own.iter().chain(plan.prices.iter().filter(left))
}

/// The subscription that charges a row of the customer's usage, in whichever period: the first one that holds at its
/// time with a price that takes it.
#[must_use]
pub fn charged_by<'a>(
    catalog: &'a Catalog,
    id: &CustomerId,
    row: &UsageRow,
) -> Option<&'a Subscription> {
    let holds = |on: &&Subscription| {
        on.start.is_none_or(|start| start <= row.bucket)
            && on.end.is_none_or(|end| row.bucket < end)
    };
    let takes = |on: &&'a Subscription| {
        let versions = catalog.plans.get(&on.plan).map_or(&[][..], Vec::as_slice);
        let begun = |plan: &&Plan| plan.effective.is_none_or(|effective| effective <= row.bucket);
        let plan = versions.iter().rev().find(begun);
        plan.is_some_and(|plan| {
            prices(on, plan).any(|price| price.takes(&row.meter, &row.dimensions))
        })
    };
    let subscriptions = catalog.subscriptions.get(id).map_or(&[][..], Vec::as_slice);
    subscriptions.iter().filter(holds).find(takes)
}

/// What the customer is on at `at`: each subscription whose period that holds `at` it covers in part.
///
/// # Errors
/// An instant outside of what calendars cover.
pub fn sections<'a>(
    catalog: &'a Catalog,
    id: &CustomerId,
    customer: &Customer,
    at: Timestamp,
) -> Result<Vec<Section<'a>>, PeriodError> {
    let rounding =
        catalog.seller_of(customer).map_or_else(Rounding::default, |seller| seller.rounding);
    let mut sections = Vec::new();
    for subscription in catalog.subscriptions.get(id).into_iter().flatten() {
        let versions = catalog.plans.get(&subscription.plan).map_or(&[][..], Vec::as_slice);
        let Some(first) = versions.first() else { continue };
        let period = customer.zone.period_of(at, first.interval, customer.anchor)?;
        let parts = parts(subscription, versions, period, rounding);
        if !parts.is_empty() {
            sections.push(Section { subscription, period, parts });
        }
    }
    Ok(sections)
}

/// A customer's sections of one plan in a period that is known already, whichever periods begin now.
#[must_use]
pub fn sections_of<'a>(
    catalog: &'a Catalog,
    id: &CustomerId,
    customer: &Customer,
    plan: &str,
    period: Period,
) -> Vec<Section<'a>> {
    let rounding =
        catalog.seller_of(customer).map_or_else(Rounding::default, |seller| seller.rounding);
    let versions = catalog.plans.get(plan).map_or(&[][..], Vec::as_slice);
    let subscriptions = catalog.subscriptions.get(id).into_iter().flatten();
    let section = |subscription: &'a Subscription| {
        let parts = parts(subscription, versions, period, rounding);
        (!parts.is_empty()).then_some(Section { subscription, period, parts })
    };
    subscriptions.filter(|on| on.plan == plan).filter_map(section).collect()
}

/// Cuts what the subscription covers of the period where another version of its plan takes effect, and where its
/// trial ends.
fn parts<'a>(
    subscription: &'a Subscription,
    versions: &'a [Plan],
    period: Period,
    rounding: Rounding,
) -> Vec<Part<'a>> {
    let start = subscription.start.map_or(period.start, |start| start.max(period.start));
    let end = subscription.end.map_or(period.end, |end| end.min(period.end));
    let trial_end = subscription.trial_end.unwrap_or(Bucket(0));
    let begins = |plan: &Plan| plan.effective.unwrap_or(Bucket(0));
    let ends = versions.iter().skip(1).map(begins).chain([Bucket(u32::MAX)]);
    let cut = versions.iter().zip(ends).flat_map(|(plan, next)| {
        let (start, end) = (start.max(begins(plan)), end.min(next));
        let part = |charging, start, end| {
            let share = Share { period, part: Period { start, end } };
            let rounding = plan.rounding.unwrap_or(rounding);
            Part { plan, subscription, share, charging, rounding }
        };
        [
            part(Charging::Trial, start, end.min(trial_end)),
            part(Charging::Charged, start.max(trial_end), end),
        ]
    });
    cut.filter(|part| part.share.part.start < part.share.part.end).collect()
}

#[cfg(test)]
mod tests;
