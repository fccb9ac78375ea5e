//! Plans, meters and subscriptions as the TOML that the pricing document describes.
//!
//! **Owns** how keys are written: numbers in quotes, and no key whose value is the default, so that defaults are
//! tried too. **Does not own** what they mean.

use std::collections::BTreeMap;

use super::calendar::{Interval, instant};
use super::customer::{Subscription, Version};
use super::{Aggregation, Fee, Model, Plan, Price, Tier};

/// The plan's name in the catalogue.
pub const PLAN: &str = "p";

/// The catalogue of `plan` and of the meters of `aggregations`, each with all of `dimensions`.
///
/// # Panics
/// If the currency's places are not 0, 2 or 3.
#[must_use]
pub fn catalogue(
    plan: &Plan,
    aggregations: &BTreeMap<String, Aggregation>,
    dimensions: &[&str],
) -> String {
    let mut lines = meter_lines(aggregations, dimensions);
    let version =
        Version { effective: None, half_even: plan.half_even.then_some(true), plan: plan.clone() };
    version_lines(PLAN, Interval::Month, &version, &mut lines);
    lines.push(String::new());
    lines.join("\n")
}

/// `[[meter]]` of each.
#[must_use]
pub fn meter_lines(
    aggregations: &BTreeMap<String, Aggregation>,
    dimensions: &[&str],
) -> Vec<String> {
    let mut lines = Vec::new();
    for (meter, aggregation) in aggregations {
        let dimensions: Vec<String> =
            dimensions.iter().map(|dimension| quoted(dimension)).collect();
        lines.push("[[meter]]".to_owned());
        lines.push(key("name", meter));
        lines.push(key("aggregation", aggregation.name()));
        lines.push(format!("dimensions = [{}]", dimensions.join(", ")));
        if aggregation.has_quantities() {
            lines.push("negative = true".to_owned());
        }
        lines.push(String::new());
    }
    lines
}

/// `[[plan]]` of one version.
///
/// # Panics
/// If the currency's places are not 0, 2 or 3.
pub fn version_lines(name: &str, interval: Interval, version: &Version, lines: &mut Vec<String>) {
    let plan = &version.plan;
    lines.extend([
        "[[plan]]".to_owned(),
        key("name", name),
        key("currency", currency(plan.currency_places)),
        key("interval", interval.name()),
    ]);
    lines.extend(version.effective.map(|effective| key("effective", &instant(effective))));
    let rounding = |half_even| if half_even { "half_even" } else { "half_up" };
    lines.extend(version.half_even.map(|half_even| key("rounding", rounding(half_even))));
    lines.extend(plan.commitment.iter().map(|commitment| key("commitment", commitment)));
    plan.fees.iter().for_each(|fee| fee_lines("plan", fee, lines));
    for (index, price) in plan.prices.iter().enumerate() {
        // Every second price per unit says so; the others leave it to the default.
        let default_model = matches!(price.model, Model::PerUnit { .. }) && index % 2 == 0;
        price_lines("plan", price, default_model, lines);
    }
}

/// `[[subscription]]` of a customer.
pub fn subscription_lines(customer: &str, subscription: &Subscription, lines: &mut Vec<String>) {
    lines.extend([
        "[[subscription]]".to_owned(),
        key("customer", customer),
        key("plan", &subscription.plan),
    ]);
    let instants = [
        ("start", subscription.start),
        ("end", subscription.end),
        ("trial_end", subscription.trial_end),
    ];
    for (name, at) in instants {
        lines.extend(at.map(|at| key(name, &instant(at))));
    }
    lines.extend(subscription.discount.iter().map(|discount| key("discount", discount)));
    subscription.fees.iter().for_each(|fee| fee_lines("subscription", fee, lines));
    subscription.prices.iter().for_each(|price| price_lines("subscription", price, false, lines));
}

/// The ISO 4217 code of a currency with so many places.
///
/// # Panics
/// If they are not 0, 2 or 3.
#[must_use]
pub fn currency(places: u32) -> &'static str {
    match places {
        0 => "JPY",
        2 => "EUR",
        3 => "KWD",
        _ => panic!("no currency with {places} places"),
    }
}

fn fee_lines(of: &str, fee: &Fee, lines: &mut Vec<String>) {
    lines.extend([
        String::new(),
        format!("[[{of}.fee]]"),
        key("name", &fee.name),
        key("amount", &fee.amount),
    ]);
    if fee.advance {
        lines.push(key("timing", "advance"));
    }
    lines.extend(fee.tax.iter().map(|tax| key("tax", tax)));
}

fn price_lines(of: &str, price: &Price, default_model: bool, lines: &mut Vec<String>) {
    lines.extend([String::new(), format!("[[{of}.price]]")]);
    lines.push(key("meter", &price.meter));
    if !price.filter.is_empty() {
        let pairs: Vec<String> =
            price.filter.iter().map(|(dimension, value)| key(dimension, value)).collect();
        lines.push(format!("where = {{ {} }}", pairs.join(", ")));
    }
    if !default_model {
        lines.push(key("model", price.model.name()));
    }
    let bounds =
        [("included", &price.included), ("minimum", &price.minimum), ("maximum", &price.maximum)];
    for (name, value) in bounds {
        lines.extend(value.iter().map(|value| key(name, value)));
    }
    lines.extend(price.tax.iter().map(|tax| key("tax", tax)));
    match &price.model {
        Model::PerUnit { unit_price } => lines.push(key("unit_price", unit_price)),
        Model::Package { size, price } => {
            lines.extend([key("package_size", size), key("package_price", price)])
        }
        Model::Percentage { percent, per_event } => {
            lines.extend([key("percent", percent), key("per_event", per_event)]);
        }
        Model::Graduated(tiers) | Model::Volume(tiers) => {
            tiers.iter().for_each(|tier| tier_lines(of, tier, lines))
        }
    }
}

/// A `flat` of just "0" is left out; one of "0.00" is written.
fn tier_lines(of: &str, tier: &Tier, lines: &mut Vec<String>) {
    lines.extend([String::new(), format!("[[{of}.price.tier]]")]);
    lines.extend(tier.up_to.iter().map(|up_to| key("up_to", up_to)));
    lines.push(key("unit_price", &tier.unit_price));
    if tier.flat != "0" {
        lines.push(key("flat", &tier.flat));
    }
}

/// `name = "value"`
#[must_use]
pub fn key(name: &str, value: &str) -> String {
    format!("{name} = {}", quoted(value))
}

/// Names and numbers here have nothing to escape.
fn quoted(value: &str) -> String {
    format!("\"{value}\"")
}

impl Model {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::PerUnit { .. } => "per_unit",
            Self::Package { .. } => "package",
            Self::Graduated(_) => "graduated",
            Self::Volume(_) => "volume",
            Self::Percentage { .. } => "percentage",
        }
    }
}

impl Aggregation {
    pub(super) fn name(self) -> &'static str {
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

    /// Whether it looks at the quantities of events, and not only at the events.
    pub(super) fn has_quantities(self) -> bool {
        match self {
            Self::Sum | Self::Max | Self::Min | Self::Average | Self::Latest => true,
            Self::Count | Self::UniqueCount => false,
        }
    }
}
