//! Reads `[[plan]]`: fees, prices, tiers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use tidemark_common::id::MeterName;
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Bucket;

use super::seller::{Taxes, tax_named};
use super::{bounded, known_meter, one_of, parsed};
use crate::catalog::plan::{Fee, MeterPrice, Model, Plan, Tier, TierPrice, Tiers, Timing};
use crate::catalog::{FEES_MAX, Meter, PLANS_MAX, PRICES_MAX, Plans, TIERS_MAX};
use crate::document::{Located, Problems, Table};
use crate::money::{Currency, Percent, Price, Rounding};
use crate::period::{Interval, parse_edge};

const PRICE_REMEDY: &str =
    "write a decimal in quotes, such as \"0.002\", of at most 15 integer and 12 fraction digits";
pub(super) const PERCENT_REMEDY: &str =
    "write a decimal in quotes, such as \"2.9\", of at most 15 integer and 10 fraction digits";
const QUANTITY_REMEDY: &str =
    "write a decimal in quotes, such as \"1000\", of at most 15 integer and 9 fraction digits";

/// The meters, and the names of those that have problems of their own.
pub(super) struct Known<'a> {
    pub(super) meters: &'a BTreeMap<MeterName, Meter>,
    pub(super) broken: &'a BTreeSet<MeterName>,
    pub(super) taxes: &'a Taxes,
}

/// All plans by name, the versions of each ascending; and the names of those that have problems.
pub(super) fn plans(
    root: &mut Table<'_>,
    known: &Known<'_>,
    problems: &mut Problems<'_>,
) -> (Plans, BTreeSet<String>) {
    let (mut plans, mut broken) = (Plans::new(), BTreeSet::new());
    let tables = root.tables("plan", problems);
    if let Some(extra) = tables.get(PLANS_MAX) {
        let message = format!("there are more than {PLANS_MAX} plans and versions of plans");
        problems.report(extra.span.clone(), message, "remove those that nobody is on any more");
    }
    for mut table in tables {
        let span = table.span.clone();
        let name = table.required_text("name", "standard", problems);
        let name = name.and_then(|name| bounded(name, "name", problems));
        let read = plan(&mut table, name.as_ref(), known, problems);
        table.finish(problems);
        let Some(plan) = read else {
            broken.extend(name);
            continue;
        };
        let versions: &mut Vec<Plan> = plans.entry(plan.name.clone()).or_default();
        if let Some(first) = versions.first()
            && (first.currency, first.interval) != (plan.currency, plan.interval)
        {
            let message = format!(
                "this version of the plan {:?} has another currency or interval than the one before",
                plan.name
            );
            problems.report(span.clone(), message, "give it a name of its own");
        }
        if versions.iter().any(|other| other.effective == plan.effective) {
            let message = format!("the plan {:?} stands twice", plan.name);
            let remedy = "remove one of them, or say with `effective` when the newer one begins";
            problems.report(span, message, remedy);
        }
        versions.push(plan);
        versions.sort_by_key(|plan| plan.effective);
    }
    (plans, broken)
}

fn plan(
    table: &mut Table<'_>,
    name: Option<&String>,
    known: &Known<'_>,
    problems: &mut Problems<'_>,
) -> Option<Plan> {
    let currency = table.required_text("currency", "EUR", problems);
    let currency = currency
        .and_then(|code| parsed(&code, Currency::parse, "write a code such as \"EUR\"", problems));
    let interval = one_of(table, "interval", &Interval::ALL, Interval::name, problems);
    let rounding = one_of(table, "rounding", &Rounding::ALL, Rounding::name, problems);
    let effective = instant(table, "effective", problems);
    let commitment = optional(table, "commitment", price, PRICE_REMEDY, problems);
    let span = table.span.clone();
    let term = one_of(table, "commitment_term", &Interval::ALL, Interval::name, problems);
    if let (Some(Some(term)), Some(commitment)) = (term, &commitment) {
        check_term(term, interval.flatten(), commitment.is_some(), span, problems);
    }
    let fees = fees(table, known.taxes, problems);
    let prices = prices(table, known, problems);
    Some(Plan {
        name: name?.clone(),
        currency: currency?,
        interval: interval?.unwrap_or(Interval::Month),
        rounding: rounding?,
        effective: effective?,
        commitment: commitment?,
        commitment_term: term?,
        fees,
        prices,
    })
}

/// A term is made of whole periods.
fn check_term(
    term: Interval,
    interval: Option<Interval>,
    has_commitment: bool,
    span: std::ops::Range<usize>,
    problems: &mut Problems<'_>,
) {
    use Interval::{Day, Month, Quarter, Week, Year};
    let fits = match (interval.unwrap_or(Month), term) {
        (Month, Quarter | Year) | (Quarter, Year) => true,
        (Day | Week | Month | Quarter | Year, _) => false,
    };
    if !has_commitment {
        let message = "the plan has a `commitment_term` and no `commitment`";
        problems.report(span, message, "add the amount that is charged at least for a term");
    } else if !fits {
        let message = format!(
            "the plan's `commitment_term` is a {}, and its periods do not make one",
            term.name()
        );
        problems.report(span, message, "use months in a quarter or a year, or quarters in a year");
    }
}

/// An instant on a quarter of an hour. `None`: it is wrong; `Some(None)`: it is not there.
pub(super) fn instant(
    table: &mut Table<'_>,
    key: &'static str,
    problems: &mut Problems<'_>,
) -> Option<Option<Bucket>> {
    let Some(text) = table.text(key, problems) else { return Some(None) };
    let remedy =
        "write a time on a quarter of an hour in quotes, such as \"2026-07-01T00:00:00+02:00\"";
    parsed(&text, parse_edge, remedy, problems).map(Some)
}

pub(super) fn fees(table: &mut Table<'_>, taxes: &Taxes, problems: &mut Problems<'_>) -> Vec<Fee> {
    let mut fees: Vec<Fee> = Vec::new();
    for mut table in table.tables("fee", problems) {
        let span = table.span.clone();
        let name = table.required_text("name", "Base fee", problems);
        let name = name.and_then(|name| bounded(name, "name", problems));
        let amount = required(&mut table, "amount", "10.00", price, PRICE_REMEDY, problems);
        let timing = one_of(&mut table, "timing", &Timing::ALL, Timing::name, problems);
        let tax = tax_named(&mut table, taxes, problems);
        table.finish(problems);
        let (Some(name), Some(amount), Some(timing)) = (name, amount, timing) else { continue };
        if fees.iter().any(|fee| fee.name == name) {
            let message = format!("the fee {name:?} stands twice");
            problems.report(span, message, "give each fee of a plan a name of its own");
        } else if fees.len() == FEES_MAX {
            let message = format!("the plan has more than {FEES_MAX} fees");
            problems.report(span, message, "draw some of them together");
        }
        fees.push(Fee { name, amount, timing: timing.unwrap_or(Timing::Arrears), tax });
    }
    fees
}

pub(super) fn prices(
    table: &mut Table<'_>,
    known: &Known<'_>,
    problems: &mut Problems<'_>,
) -> Vec<MeterPrice> {
    let mut prices: Vec<MeterPrice> = Vec::new();
    for mut table in table.tables("price", problems) {
        let span = table.span.clone();
        let read = meter_price(&mut table, known, problems);
        table.finish(problems);
        let Some(price) = read else { continue };
        if prices.iter().any(|before| before.hides(&price)) {
            let message = format!(
                "a price of the meter {} before this one takes all that it could",
                price.meter
            );
            let remedy = "remove one of them, or put the one with more in `where` first";
            problems.report(span, message, remedy);
        } else if prices.len() == PRICES_MAX {
            let message = format!("the plan has more than {PRICES_MAX} prices");
            problems.report(span, message, "draw some of them together");
        }
        prices.push(price);
    }
    prices
}

fn meter_price(
    table: &mut Table<'_>,
    known: &Known<'_>,
    problems: &mut Problems<'_>,
) -> Option<MeterPrice> {
    let meter = table.required_text("meter", "api.calls", problems);
    let meter = meter.and_then(|meter| known_meter(&meter, known.meters, known.broken, problems));
    let filter = filter(table, meter.as_ref().and_then(|meter| known.meters.get(meter)), problems);
    let included = optional(table, "included", quantity, QUANTITY_REMEDY, problems);
    let minimum = optional(table, "minimum", price, PRICE_REMEDY, problems);
    let maximum = optional(table, "maximum", price, PRICE_REMEDY, problems);
    let tax = tax_named(table, known.taxes, problems);
    let model = model(table, problems);
    let (minimum, maximum) = (minimum?, maximum?);
    if minimum.zip(maximum).is_some_and(|(minimum, maximum)| minimum > maximum) {
        let message = "the price's `minimum` is above its `maximum`";
        problems.report(table.span.clone(), message, "keep it at or below");
    }
    Some(MeterPrice {
        meter: meter?,
        filter,
        included: included?.unwrap_or(Quantity::ZERO),
        minimum,
        maximum,
        tax,
        model: model?,
    })
}

/// `where`: dimensions that the meter keeps.
fn filter(
    table: &mut Table<'_>,
    meter: Option<&Meter>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, String> {
    let mut filter = BTreeMap::new();
    let Some(mut listed) = table.table("where", problems) else { return filter };
    for name in listed.names() {
        let Some(value) = listed.text_named(&name.value, problems) else { continue };
        if let Some(meter) = meter.filter(|meter| !meter.dimensions.contains(&name.value)) {
            let message =
                format!("the meter {} does not keep the dimension {:?}", meter.name, name.value);
            problems.report(name.span, message, "list it in the meter's `dimensions`");
        }
        filter.insert(name.value, value.value);
    }
    listed.finish(problems);
    filter
}

fn model(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Model> {
    let name = one_of(table, "model", &Model::NAMES, |name| name, problems)?;
    match name.unwrap_or("per_unit") {
        "package" => {
            let size = required(table, "package_size", "1000", quantity, QUANTITY_REMEDY, problems);
            let price = required(table, "package_price", "5.00", price, PRICE_REMEDY, problems);
            let (size, price) = (size?, price?);
            if size == Quantity::ZERO {
                let message = "the price's `package_size` is 0";
                problems.report(table.span.clone(), message, "write how many are sold together");
                return None;
            }
            Some(Model::Package { size, price })
        }
        "graduated" => tiers(table, problems).map(Model::Graduated),
        "volume" => tiers(table, problems).map(Model::Volume),
        "percentage" => {
            let parse = |text: &str| Percent::parse(text).map_err(|error| error.to_string());
            let percent = required(table, "percent", "2.9", parse, PERCENT_REMEDY, problems);
            let per_event = optional(table, "per_event", price, PRICE_REMEDY, problems);
            let per_event = per_event?.unwrap_or_default();
            Some(Model::Percentage { percent: percent?, per_event })
        }
        _ => {
            let unit_price = required(table, "unit_price", "0.002", price, PRICE_REMEDY, problems);
            Some(Model::PerUnit { unit_price: unit_price? })
        }
    }
}

fn tiers(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Tiers> {
    let span = table.span.clone();
    let tables = table.tables("tier", problems);
    let count = tables.len();
    if count == 0 || count > TIERS_MAX {
        let message = format!("the price has {count} tiers");
        let remedy = format!("write 1 to {TIERS_MAX} [[plan.price.tier]] below it");
        problems.report(span, message, remedy);
        return None;
    }
    let (mut bounded, mut last, mut sound) = (Vec::<Tier>::new(), None, true);
    for (index, mut table) in tables.into_iter().enumerate() {
        let is_last = index.saturating_add(1) == count;
        let span = table.span.clone();
        let up_to = optional(&mut table, "up_to", quantity, QUANTITY_REMEDY, problems);
        let unit_price = required(&mut table, "unit_price", "0.002", price, PRICE_REMEDY, problems);
        let flat = optional(&mut table, "flat", price, PRICE_REMEDY, problems);
        table.finish(problems);
        let (Some(up_to), Some(unit_price), Some(flat)) = (up_to, unit_price, flat) else {
            sound = false;
            continue;
        };
        let price = TierPrice { unit_price, flat: flat.unwrap_or_default() };
        let below = bounded.last().map_or(Quantity::ZERO, |tier| tier.up_to);
        let wrong = match up_to {
            None if is_last => None,
            None => Some((
                "this tier has no `up_to`, and is not the last",
                "add one above the last tier's",
            )),
            Some(_) if is_last => Some((
                "the last tier has an `up_to`",
                "leave it out: the last tier holds all above",
            )),
            Some(up_to) if up_to <= below => Some((
                "this tier's `up_to` is not above that of the tier before it",
                "write the tiers in ascending order",
            )),
            Some(_) => None,
        };
        if let Some((message, remedy)) = wrong {
            problems.report(span, message, remedy);
            sound = false;
        }
        match up_to {
            Some(up_to) => bounded.push(Tier { up_to, price }),
            None => last = Some(price),
        }
    }
    last.filter(|_| sound).map(|last| Tiers { bounded, last })
}

/// A percentage of all that is charged.
pub(super) fn discount(
    table: &mut Table<'_>,
    problems: &mut Problems<'_>,
) -> Option<Option<Percent>> {
    let parse = |text: &str| match Percent::parse(text) {
        Ok(percent) if percent.of_one() > Percent::HUNDRED.of_one() => {
            Err("is above 100".to_owned())
        }
        Ok(percent) => Ok(percent),
        Err(error) => Err(error.to_string()),
    };
    optional(table, "discount", parse, PERCENT_REMEDY, problems)
}

fn price(text: &str) -> Result<Price, String> {
    Price::parse(text).map_err(|error| error.to_string())
}

fn quantity(text: &str) -> Result<Quantity, String> {
    match Quantity::parse(text.as_bytes()) {
        Ok(quantity) if quantity.is_negative() => Err("is negative".to_owned()),
        Ok(quantity) => Ok(quantity),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn required<T, E: Display>(
    table: &mut Table<'_>,
    key: &'static str,
    example: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
    remedy: &str,
    problems: &mut Problems<'_>,
) -> Option<T> {
    // A number in TOML is a binary float for most tools that touch the file: 0.1 is not a tenth.
    let text = table.required_text(key, example, problems)?;
    parsed_as(&text, key, parse, remedy, problems)
}

/// `None`: it is wrong; `Some(None)`: it is not there.
fn optional<T, E: Display>(
    table: &mut Table<'_>,
    key: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
    remedy: &str,
    problems: &mut Problems<'_>,
) -> Option<Option<T>> {
    match table.text(key, problems) {
        Some(text) => parsed_as(&text, key, parse, remedy, problems).map(Some),
        None => Some(None),
    }
}

fn parsed_as<T, E: Display>(
    text: &Located<String>,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
    remedy: &str,
    problems: &mut Problems<'_>,
) -> Option<T> {
    match parse(&text.value) {
        Ok(value) => Some(value),
        Err(error) => {
            let message = format!("`{key}` is {:?}, which {error}", text.value);
            problems.report(text.span.clone(), message, remedy);
            None
        }
    }
}
