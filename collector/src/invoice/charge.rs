//! Charges: the lines of a rated period, each with a key by which later documents know it again.
//!
//! ```text
//! key = "fee/NAME" | "usage/METER" + "{NAME=VALUE,..}" | "discount" | "commitment"
//!       + "@" + the first quarter of an hour of its part + "%TAX" where a discount is split + "#2" for a second one
//! ```
//! **Owns** keys, descriptions, and which tax a line has. A discount on lines of several rates is split among them, by
//! what they come to. **Does not own** amounts (`rating`).

use std::collections::BTreeMap;

use crate::billing::RatedSection;
use crate::billing::shown::LineShown;
use crate::catalog::plan::{MeterPrice, Model, Timing};
use crate::catalog::seller::Seller;
use crate::catalog::{Catalog, Customer};
use crate::money::{Money, MoneyError};
use crate::rating::{self, Line, UsageLine};
use crate::terms::Part;

use super::tax::{Treatment, treatment};

/// One line of a period as it is rated now.
#[derive(Debug, Clone)]
pub struct Charge<'a> {
    pub key: String,
    pub description: String,
    pub details: Option<String>,
    /// Whose revenue it is: a meter, a fee, a plan.
    pub product: String,
    pub treatment: Treatment<'a>,
    pub rated: Option<LineShown>,
    pub source: Source<'a>,
    pub amount: Money,
}

/// What a line is made by.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub part: Part<'a>,
    /// Of a line of usage.
    pub price: Option<&'a MeterPrice>,
}

/// Which of a period's lines are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// Fees in advance alone.
    InAdvance,
}

/// Who is charged by whom.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    pub catalog: &'a Catalog,
    pub seller: &'a Seller,
    pub customer: &'a Customer,
}

/// All charges of a period.
///
/// # Errors
/// Sums beyond 128 bits.
pub fn charges<'a>(
    parties: Parties<'a>,
    section: &RatedSection<'a>,
    which: Which,
) -> Result<Vec<Charge<'a>>, MoneyError> {
    let mut charges = Vec::new();
    for part in &section.parts {
        of_part(parties, section.plan, part, which, &mut charges)?;
    }
    number_repeated(&mut charges);
    Ok(charges)
}

fn of_part<'a>(
    parties: Parties<'a>,
    plan: &str,
    part: &rating::Bill<'a>,
    which: Which,
    charges: &mut Vec<Charge<'a>>,
) -> Result<(), MoneyError> {
    let Parties { catalog, seller, customer } = parties;
    let taxed = |own: Option<&str>| treatment(catalog, seller, customer, own);
    let mut sums: Vec<(Treatment<'a>, Money)> = Vec::new();
    for line in &part.lines {
        let amount = line.amount();
        let (key, description, product, treatment) = match line {
            Line::Fee { fee, part, .. } => {
                if which == Which::InAdvance && fee.timing != Timing::Advance {
                    continue;
                }
                let key = keyed(&format!("fee/{}", fee.name), part);
                (key, fee.name.clone(), fee.name.clone(), taxed(fee.tax.as_deref()))
            }
            _ if which == Which::InAdvance => continue,
            Line::Usage(usage) => {
                let (meter, own) = (usage.meter.name.as_str(), usage.price.tax.as_deref());
                let key = keyed(&format!("usage/{}", told_usage(usage)), &usage.part);
                (key, told_usage(usage), meter.to_owned(), taxed(own))
            }
            Line::Discount { percent, part, .. } => {
                let split = split_discount(&sums, amount, part, taxed(None))?;
                for (key, treatment, share) in split {
                    let is_whole = share == amount;
                    charges.push(Charge {
                        key,
                        description: format!("Discount {percent} %"),
                        details: (!is_whole)
                            .then(|| format!("its share of what is taxed {}", treatment.label())),
                        product: plan.to_owned(),
                        treatment,
                        rated: is_whole.then(|| LineShown::of(line, &customer.zone)),
                        source: Source { part: *part, price: None },
                        amount: share,
                    });
                }
                continue;
            }
            Line::Commitment { part, .. } => {
                let key = keyed("commitment", part);
                (key, "Minimum commitment".to_owned(), plan.to_owned(), taxed(None))
            }
        };
        match sums.iter_mut().find(|(held, _)| *held == treatment) {
            Some((_, sum)) => *sum = sum.checked_add(amount)?,
            None => sums.push((treatment, amount)),
        }
        let (details, rated) = (details(line), Some(LineShown::of(line, &customer.zone)));
        let source = source_of(line);
        charges.push(Charge {
            key,
            description,
            details,
            product,
            treatment,
            rated,
            source,
            amount,
        });
    }
    Ok(())
}

fn source_of<'a>(line: &Line<'a>) -> Source<'a> {
    match line {
        Line::Usage(usage) => Source { part: usage.part, price: Some(usage.price) },
        Line::Fee { part, .. } | Line::Discount { part, .. } | Line::Commitment { part, .. } => {
            Source { part: *part, price: None }
        }
    }
}

/// A discount's shares by rate: key, rate, amount.
fn split_discount<'a>(
    sums: &[(Treatment<'a>, Money)],
    amount: Money,
    part: &Part<'_>,
    default: Treatment<'a>,
) -> Result<Vec<(String, Treatment<'a>, Money)>, MoneyError> {
    let key = keyed("discount", part);
    match sums {
        [] => Ok(vec![(key, default, amount)]),
        [(treatment, _)] => Ok(vec![(key, *treatment, amount)]),
        _ => {
            let weights: Vec<i128> = sums.iter().map(|(_, sum)| sum.minor).collect();
            let shares = amount.spread(&weights, part.rounding)?;
            let split = sums.iter().zip(shares).map(|((treatment, _), share)| {
                (format!("{key}%{}", treatment.name().unwrap_or_default()), *treatment, share)
            });
            Ok(split.collect())
        }
    }
}

fn keyed(what: &str, part: &Part<'_>) -> String {
    format!("{what}@{}", part.share.part.start)
}

/// Subscriptions to one plan may overlap.
pub fn number_repeated(charges: &mut [Charge<'_>]) {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for charge in charges {
        let count = seen.entry(charge.key.clone()).or_default();
        *count = count.saturating_add(1);
        if *count > 1 {
            charge.key = format!("{}#{count}", charge.key);
        }
    }
}

/// `calls`, `tokens{model=large}`.
fn told_usage(usage: &UsageLine<'_>) -> String {
    let filter = usage.price.filter.iter().map(|(name, value)| format!("{name}={value}"));
    let filter = filter.collect::<Vec<_>>().join(",");
    let meter = &usage.meter.name;
    if filter.is_empty() { meter.to_string() } else { format!("{meter}{{{filter}}}") }
}

/// The amount in words.
fn details(line: &Line<'_>) -> Option<String> {
    match line {
        Line::Fee { part, .. } => part_told(part),
        Line::Usage(usage) => {
            let unit = usage.meter.unit.as_deref().unwrap_or_default();
            let mut told = format!("{} {unit}", usage.quantity).trim_end().to_owned();
            if usage.billed != usage.quantity {
                told.push_str(&format!(", of which {} are billed", usage.billed));
            }
            told.push_str(&match &usage.price.model {
                Model::PerUnit { unit_price } => format!(", {unit_price} each"),
                Model::Package { size, price } => format!(", {price} for every {size}"),
                Model::Graduated(_) => ", graduated".to_owned(),
                Model::Volume(_) => ", by volume".to_owned(),
                Model::Percentage { percent, per_event } => {
                    format!(", {percent} % and {per_event} for each of {} events", usage.events)
                }
            });
            if let Some(part) = part_told(&usage.part) {
                told.push_str(&format!(", {part}"));
            }
            Some(told)
        }
        Line::Discount { part, .. } => part_told(part),
        Line::Commitment { commitment, term: Some(due), .. } => Some(format!(
            "what the term's lines, {}, are short of {commitment} for the whole term, prorated {}",
            due.charged.amount(),
            due.due.amount()
        )),
        Line::Commitment { commitment, part, .. } => {
            let part = part_told(part).map(|part| format!(", {part}")).unwrap_or_default();
            Some(format!("what the lines before are short of {commitment}{part}"))
        }
    }
}

/// Nothing for a whole period.
fn part_told(part: &Part<'_>) -> Option<String> {
    let [begin, end] = part.share.bounds();
    (!part.share.is_whole()).then(|| {
        let quarters = end.saturating_sub(begin);
        format!("prorated: {quarters} of {} quarters of an hour", part.share.length())
    })
}
