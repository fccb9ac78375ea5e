//! A plan and its meters as the TOML that the pricing document describes.
//!
//! **Owns** how keys are written: numbers in quotes, and no key whose value is the default, so that defaults are
//! tried too. **Does not own** what they mean.

use std::collections::BTreeMap;

use super::{Aggregation, Model, Plan, Price, Tier};

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
    lines.extend([
        "[[plan]]".to_owned(),
        key("name", PLAN),
        key("currency", currency(plan.currency_places)),
    ]);
    lines.push(key("interval", "month"));
    if plan.half_even {
        lines.push(key("rounding", "half_even"));
    }
    for fee in &plan.fees {
        lines.extend([
            String::new(),
            "[[plan.fee]]".to_owned(),
            key("name", &fee.name),
            key("amount", &fee.amount),
        ]);
    }
    for (index, price) in plan.prices.iter().enumerate() {
        lines.extend([String::new(), "[[plan.price]]".to_owned()]);
        // Every second price per unit says so; the others leave it to the default.
        let default_model = matches!(price.model, Model::PerUnit { .. }) && index % 2 == 0;
        price_lines(price, default_model, &mut lines);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn currency(places: u32) -> &'static str {
    match places {
        0 => "JPY",
        2 => "EUR",
        3 => "KWD",
        _ => panic!("no currency with {places} places"),
    }
}

fn price_lines(price: &Price, default_model: bool, lines: &mut Vec<String>) {
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
    match &price.model {
        Model::PerUnit { unit_price } => lines.push(key("unit_price", unit_price)),
        Model::Package { size, price } => {
            lines.extend([key("package_size", size), key("package_price", price)])
        }
        Model::Percentage { percent, per_event } => {
            lines.extend([key("percent", percent), key("per_event", per_event)]);
        }
        Model::Graduated(tiers) | Model::Volume(tiers) => {
            tiers.iter().for_each(|tier| tier_lines(tier, lines))
        }
    }
}

/// A `flat` of just "0" is left out; one of "0.00" is written.
fn tier_lines(tier: &Tier, lines: &mut Vec<String>) {
    lines.extend([String::new(), "[[plan.price.tier]]".to_owned()]);
    lines.extend(tier.up_to.iter().map(|up_to| key("up_to", up_to)));
    lines.push(key("unit_price", &tier.unit_price));
    if tier.flat != "0" {
        lines.push(key("flat", &tier.flat));
    }
}

fn key(name: &str, value: &str) -> String {
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
