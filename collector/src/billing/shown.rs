//! A bill as JSON, for the API and the command line alike.
//!
//! **Owns** names and shapes; money and quantities are decimal texts. **Does not own** any figure.

use std::collections::BTreeMap;

use serde::Serialize;

use tidemark_common::id::CustomerId;
use tidemark_common::quantity::Quantity;

use super::{Bill, RatedSection};
use crate::catalog::plan::{Fee, Model, Tiers};
use crate::money::Money;
use crate::period::{Period, Zone};
use crate::rating::{Line, UsageLine};
use crate::terms::{Charging, Part};

/// A customer's bill.
#[derive(Debug, Clone, Serialize)]
pub struct BillShown {
    customer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The sum of all lines' amounts.
    total: String,
    /// What the total will be at the period's end, if usage goes on as it did: an estimate.
    projected_total: String,
    currency: String,
    /// One for each subscription.
    sections: Vec<SectionShown>,
    /// This customer's usage of the period that is on no line, and why.
    suspense: Vec<SuspenseShown>,
}

#[derive(Debug, Clone, Serialize)]
struct SectionShown {
    plan: String,
    period: PeriodShown,
    lines: Vec<LineShown>,
    total: String,
    projected_total: String,
}

#[derive(Debug, Clone, Serialize)]
struct PeriodShown {
    start: String,
    end: String,
    time_zone: String,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct LineShown(LineKind);

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum LineKind {
    Fee(FeeShown),
    Usage(Box<UsageShown>),
    Discount(ChangeShown),
    Commitment(ChangeShown),
}

impl LineShown {
    #[must_use]
    pub fn of(line: &Line<'_>, zone: &Zone) -> Self {
        Self(line_shown(line, zone))
    }
}

/// What changes the sum of the lines before it.
#[derive(Debug, Clone, Serialize)]
struct ChangeShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<String>,
    /// For a whole period.
    #[serde(skip_serializing_if = "Option::is_none")]
    commitment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<PartShown>,
    /// Of a commitment for several periods.
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<TermShown>,
    amount: String,
    currency: String,
}

/// A term, what is committed of it, and what its lines come to.
#[derive(Debug, Clone, Serialize)]
struct TermShown {
    from: String,
    to: String,
    due: String,
    charged: String,
}

#[derive(Debug, Clone, Serialize)]
struct FeeShown {
    name: String,
    timing: &'static str,
    /// For a whole period.
    fee: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<PartShown>,
    amount: String,
    currency: String,
}

#[derive(Debug, Clone, Serialize)]
struct UsageShown {
    meter: String,
    #[serde(rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    filter: BTreeMap<String, String>,
    aggregation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    quantity: String,
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    included: Option<String>,
    /// The quantity that is charged, where something is included.
    #[serde(skip_serializing_if = "Option::is_none")]
    billed: Option<String>,
    #[serde(flatten)]
    model: ModelShown,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<String>,
    /// Before minimum, maximum and trial, where one of them holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<PartShown>,
    amount: String,
    currency: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "model", rename_all = "snake_case")]
enum ModelShown {
    PerUnit { unit_price: String },
    Package { package_size: String, package_price: String },
    Graduated { tiers: Vec<TierShown> },
    Volume { tiers: Vec<TierShown> },
    Percentage { percent: String, per_event: String },
}

#[derive(Debug, Clone, Serialize)]
struct TierShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to: Option<String>,
    unit_price: String,
    flat: String,
}

/// Which stretch of the period a line is for, and the fraction that it is: quarters of an hour.
#[derive(Debug, Clone, Serialize)]
struct PartShown {
    from: String,
    to: String,
    quarters: u32,
    of: u32,
    /// Nothing is charged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    trial: bool,
}

#[derive(Debug, Clone, Serialize)]
struct SuspenseShown {
    meter: String,
    reason: &'static str,
    events: u64,
    remedy: &'static str,
}

impl BillShown {
    #[must_use]
    pub fn of(bill: &Bill<'_>, id: &CustomerId) -> Self {
        let zone = &bill.customer.zone;
        let suspense = bill.suspense.iter().map(|((meter, reason), events)| SuspenseShown {
            meter: meter.as_str().to_owned(),
            reason: reason.name(),
            events: *events,
            remedy: reason.remedy(),
        });
        Self {
            customer: id.as_str().to_owned(),
            name: bill.customer.name.clone(),
            total: bill.total.amount(),
            projected_total: bill.projected.amount(),
            currency: bill.total.currency.to_string(),
            sections: bill.sections.iter().map(|section| section_shown(section, zone)).collect(),
            suspense: suspense.collect(),
        }
    }
}

fn section_shown(section: &RatedSection<'_>, zone: &Zone) -> SectionShown {
    let Period { start, end } = section.period;
    let lines = section.parts.iter().flat_map(|part| &part.lines);
    SectionShown {
        plan: section.plan.to_owned(),
        period: PeriodShown {
            start: zone.rfc3339(start.start()),
            end: zone.rfc3339(end.start()),
            time_zone: zone.name().to_owned(),
        },
        lines: lines.map(|line| LineShown::of(line, zone)).collect(),
        total: section.total.amount(),
        projected_total: section.projected.amount(),
    }
}

fn line_shown(line: &Line<'_>, zone: &Zone) -> LineKind {
    let change = |percent, commitment, part: &Part<'_>, amount: &Money| ChangeShown {
        percent,
        commitment,
        part: part_shown(*part, zone),
        term: None,
        amount: amount.amount(),
        currency: amount.currency.to_string(),
    };
    match line {
        Line::Fee { fee, part, amount } => LineKind::Fee(fee_shown(fee, *part, *amount, zone)),
        Line::Usage(line) => LineKind::Usage(Box::new(usage_shown(line, zone))),
        Line::Discount { percent, part, amount } => {
            LineKind::Discount(change(Some(percent.to_string()), None, part, amount))
        }
        Line::Commitment { commitment, part, amount, term } => {
            let mut shown = change(None, Some(commitment.to_string()), part, amount);
            if let Some(due) = term {
                // It is about the term, whichever part comes last.
                shown.part = None;
                shown.term = Some(TermShown {
                    from: zone.rfc3339(due.term.start.start()),
                    to: zone.rfc3339(due.term.end.start()),
                    due: due.due.amount(),
                    charged: due.charged.amount(),
                });
            }
            LineKind::Commitment(shown)
        }
    }
}

fn fee_shown(fee: &Fee, part: Part<'_>, amount: Money, zone: &Zone) -> FeeShown {
    FeeShown {
        name: fee.name.clone(),
        timing: fee.timing.name(),
        fee: fee.amount.to_string(),
        part: part_shown(part, zone),
        amount: amount.amount(),
        currency: amount.currency.to_string(),
    }
}

fn usage_shown(line: &UsageLine<'_>, zone: &Zone) -> UsageShown {
    let UsageLine { meter, price, part, .. } = line;
    let includes = price.included != Quantity::ZERO;
    UsageShown {
        meter: meter.name.as_str().to_owned(),
        filter: price.filter.clone(),
        aggregation: meter.aggregation.name(),
        unit: meter.unit.clone(),
        quantity: line.quantity.to_string(),
        events: line.events,
        included: includes.then(|| line.included.to_string()),
        billed: includes.then(|| line.billed.to_string()),
        model: model_shown(&price.model),
        minimum: price.minimum.map(|bound| bound.to_string()),
        maximum: price.maximum.map(|bound| bound.to_string()),
        charge: (line.charge != line.amount).then(|| line.charge.amount()),
        part: part_shown(*part, zone),
        amount: line.amount.amount(),
        currency: line.amount.currency.to_string(),
    }
}

fn model_shown(model: &Model) -> ModelShown {
    match model {
        Model::PerUnit { unit_price } => ModelShown::PerUnit { unit_price: unit_price.to_string() },
        Model::Package { size, price } => {
            ModelShown::Package { package_size: size.to_string(), package_price: price.to_string() }
        }
        Model::Graduated(tiers) => ModelShown::Graduated { tiers: tiers_shown(tiers) },
        Model::Volume(tiers) => ModelShown::Volume { tiers: tiers_shown(tiers) },
        Model::Percentage { percent, per_event } => ModelShown::Percentage {
            percent: percent.to_string(),
            per_event: per_event.to_string(),
        },
    }
}

fn tiers_shown(tiers: &Tiers) -> Vec<TierShown> {
    let bounded = tiers.bounded.iter().map(|tier| (Some(tier.up_to), tier.price));
    bounded
        .chain([(None, tiers.last)])
        .map(|(up_to, price)| TierShown {
            up_to: up_to.map(|up_to| up_to.to_string()),
            unit_price: price.unit_price.to_string(),
            flat: price.flat.to_string(),
        })
        .collect()
}

/// Nothing for a whole period that is charged.
fn part_shown(Part { share, charging, .. }: Part<'_>, zone: &Zone) -> Option<PartShown> {
    let [begin, end] = share.bounds();
    let trial = charging == Charging::Trial;
    (trial || !share.is_whole()).then(|| PartShown {
        from: zone.rfc3339(share.part.start.start()),
        to: zone.rfc3339(share.part.end.start()),
        quarters: end.saturating_sub(begin),
        of: share.length().get(),
        trial,
    })
}
