//! A customer's bill: which parts the periods of its subscriptions have, and which of them charges which usage.
//!
//! **Owns** versions of plans, subscriptions and what they change, cuts, trials. **Does not own** what one part
//! costs (`super::amounts`), nor periods.
//!
//! A period is that of one subscription: the others of the same customer do not cut it.

use std::collections::{BTreeMap, BTreeSet};

use num_bigint::BigInt;
use num_rational::BigRational;

use super::calendar::Interval;
use super::{Aggregation, Event, Fee, Plan, Price, Span, amounts};

const QUARTER_MS: i64 = 15 * 60 * 1000;

/// All versions of a plan, ascending by when they take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    pub interval: Interval,
    pub versions: Vec<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `None`: always did.
    pub effective: Option<u32>,
    /// Whether halves go to the even neighbour; `None`: as the seller says.
    pub half_even: Option<bool>,
    /// Its own `half_even` and `discount` are not looked at.
    pub plan: Plan,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    pub plan: String,
    pub start: Option<u32>,
    pub end: Option<u32>,
    pub trial_end: Option<u32>,
    pub discount: Option<String>,
    pub fees: Vec<Fee>,
    pub prices: Vec<Price>,
}

/// What a customer's bill is made of.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    pub aggregations: &'a BTreeMap<String, Aggregation>,
    pub plans: &'a BTreeMap<String, Versions>,
    /// In the order of the catalogue; the plan that the customer is always on comes first.
    pub subscriptions: &'a [Subscription],
    /// Whether its seller rounds halves to the even neighbour.
    pub half_even: bool,
}

/// One line of a bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub plan: String,
    pub span: Span,
    pub trial: bool,
    pub what: What,
    /// Q, of usage.
    pub quantity: Option<BigRational>,
    pub amount: BigInt,
    /// The tax that its fee or price names.
    pub tax: Option<String>,
    /// By the plan, else the seller.
    pub half_even: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Fee { name: String, advance: bool },
    Usage { meter: String, filter: BTreeMap<String, String> },
    Discount,
    Commitment,
}

/// A part: its subscription's number, its place in the period, and the plan as it holds in it.
struct Part<'a> {
    subscription: usize,
    name: &'a str,
    span: Span,
    trial: bool,
    plan: Plan,
}

/// The lines of all periods that hold `at`, in the catalogue's order.
#[must_use]
pub fn bill(terms: Terms<'_>, events: &[Event], at: u32) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, subscription) in terms.subscriptions.iter().enumerate() {
        let period = terms.plans[&subscription.plan].interval.period(at);
        for part in parts(terms, number, period) {
            lines.extend(part_lines(terms, &part, events));
        }
    }
    lines
}

/// Events of the time `[from, to)` that no subscription charges.
#[must_use]
pub fn unpriced(terms: Terms<'_>, events: &[Event], from: u32, to: u32) -> u64 {
    let unpriced = events
        .iter()
        .filter(|event| (from..to).contains(&quarter(event)) && charged_by(terms, event).is_none());
    u64::try_from(unpriced.count()).expect("few events")
}

/// The period is cut at each instant where anything of the subscription or its plan changes.
fn parts(terms: Terms<'_>, number: usize, (start, end): (u32, u32)) -> Vec<Part<'_>> {
    let subscription = &terms.subscriptions[number];
    let changes = [subscription.start, subscription.end, subscription.trial_end];
    let effective =
        terms.plans[&subscription.plan].versions.iter().map(|version| version.effective);
    let mut cuts: BTreeSet<u32> = changes
        .into_iter()
        .chain(effective)
        .flatten()
        .filter(|cut| (start..end).contains(cut))
        .collect();
    cuts.extend([start, end]);
    let cuts: Vec<u32> = cuts.into_iter().collect();
    let mut parts = Vec::new();
    for cut in cuts.windows(2) {
        let (from, to) = (cut[0], cut[1]);
        let Some(plan) = plan_at(terms, number, from) else { continue };
        let trial = subscription.trial_end.is_some_and(|trial_end| from < trial_end);
        let span = Span { start, from, to, end };
        parts.push(Part { subscription: number, name: &subscription.plan, span, trial, plan });
    }
    parts
}

/// What a subscription's plan is at an instant, if the subscription holds then and has a version in force.
fn plan_at(terms: Terms<'_>, number: usize, at: u32) -> Option<Plan> {
    let subscription = &terms.subscriptions[number];
    let begun = subscription.start.is_none_or(|start| start <= at);
    let over = subscription.end.is_some_and(|end| end <= at);
    if !begun || over {
        return None;
    }
    let in_force = |version: &&Version| version.effective.is_none_or(|effective| effective <= at);
    let version = terms.plans[&subscription.plan].versions.iter().rfind(in_force)?;
    let half_even = version.half_even.unwrap_or(terms.half_even);
    let discount = subscription.discount.clone();
    Some(changed(&Plan { half_even, discount, ..version.plan.clone() }, subscription))
}

/// The plan with the subscription's fees and prices.
fn changed(plan: &Plan, subscription: &Subscription) -> Plan {
    let mut fees = plan.fees.clone();
    for fee in &subscription.fees {
        match fees.iter_mut().find(|of_plan| of_plan.name == fee.name) {
            Some(of_plan) => *of_plan = fee.clone(),
            None => fees.push(fee.clone()),
        }
    }
    let mut prices: Vec<Price> = Vec::new();
    for price in subscription.prices.iter().chain(&plan.prices) {
        if !prices.iter().any(|before| before.takes_all_of(price)) {
            prices.push(price.clone());
        }
    }
    Plan { fees, prices, ..plan.clone() }
}

/// The first subscription that has a price for the event at its time.
fn charged_by(terms: Terms<'_>, event: &Event) -> Option<usize> {
    (0..terms.subscriptions.len()).find(|number| {
        plan_at(terms, *number, quarter(event))
            .is_some_and(|plan| plan.prices.iter().any(|price| price.takes(event)))
    })
}

fn quarter(event: &Event) -> u32 {
    u32::try_from(event.time.div_euclid(QUARTER_MS)).expect("a time since 1970")
}

fn part_lines(terms: Terms<'_>, part: &Part<'_>, events: &[Event]) -> Vec<Line> {
    let Part { span, plan, .. } = part;
    let charged: Vec<Event> = events
        .iter()
        .filter(|event| (span.from..span.to).contains(&quarter(event)))
        .filter(|event| charged_by(terms, event) == Some(part.subscription))
        .cloned()
        .collect();
    let amounts = amounts(plan, terms.aggregations, *span, &charged);
    assert_eq!(amounts.unpriced_events, 0, "it has a price for each");
    let line = |what: What, amount: BigInt, tax: Option<&String>| Line {
        plan: part.name.to_owned(),
        span: *span,
        trial: part.trial,
        what,
        quantity: None,
        amount: if part.trial { BigInt::ZERO } else { amount },
        tax: tax.cloned(),
        half_even: plan.half_even,
    };
    let mut lines = Vec::new();
    for (fee, amount) in plan.fees.iter().zip(amounts.fees) {
        let what = What::Fee { name: fee.name.clone(), advance: fee.advance };
        lines.push(line(what, amount, fee.tax.as_ref()));
    }
    for (price, (quantity, amount)) in plan.prices.iter().zip(amounts.prices) {
        let what = What::Usage { meter: price.meter.clone(), filter: price.filter.clone() };
        let line = line(what, amount, price.tax.as_ref());
        lines.push(Line { quantity: Some(quantity), ..line });
    }
    lines.extend(amounts.discount.map(|amount| line(What::Discount, amount, None)));
    lines.extend(amounts.commitment.map(|amount| line(What::Commitment, amount, None)));
    lines
}
