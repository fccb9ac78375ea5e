//! A plan, meters, a part and its events from a seed.
//!
//! Numbers are small more often than not, and come from few values, so that quantities lie on the edges of tiers
//! and charges at halves of a minor unit; but all lengths of digits that the document allows occur.
//!
//! **Owns** what is tried. **Does not own** what is right.

pub mod books;
mod numbers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::numbers::{Sign, amount, percent, positive, price, quantity};
use super::{Aggregation, Amounts, Event, Fee, Model, Plan, Price, Span, Tier, amounts, catalogue};
use crate::random::Random;

/// The dimensions that events may have; each has one of `VALUES`.
pub const DIMENSIONS: [&str; 2] = ["kind", "region"];
const VALUES: [&str; 3] = ["a", "b", "c"];

const METERS: [&str; 3] = ["calls", "seats", "traffic"];
const AGGREGATIONS: [Aggregation; 7] = [
    Aggregation::Sum,
    Aggregation::Count,
    Aggregation::Max,
    Aggregation::Min,
    Aggregation::Average,
    Aggregation::Latest,
    Aggregation::UniqueCount,
];

const QUARTER_MS: i64 = 15 * 60 * 1000;
const QUARTERS_PER_DAY: u32 = 96;
/// 2025-01-01T00:00Z, in quarters of an hour since 1970; the periods are the months of 2025, in UTC.
const YEAR_START: u32 = 1_928_544;
const MONTH_DAYS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// All that amounts are computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub plan: Plan,
    pub aggregations: BTreeMap<String, Aggregation>,
    pub span: Span,
    pub events: Vec<Event>,
}

impl Case {
    /// The case that `seed` names.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let span = span(&mut random.fork());
        let aggregations = aggregations(&mut random.fork());
        let places = *random.pick(&[0, 2, 2, 3]);
        let plan = plan(&mut random.fork(), &aggregations, places);
        let events = events(&mut random.fork(), &plan, &aggregations, span);
        Self { plan, aggregations, span, events }
    }

    /// What the second rater makes of it.
    #[must_use]
    pub fn amounts(&self) -> Amounts {
        amounts(&self.plan, &self.aggregations, self.span, &self.events)
    }

    /// Its plan and meters as TOML.
    #[must_use]
    pub fn catalogue(&self) -> String {
        catalogue::catalogue(&self.plan, &self.aggregations, &DIMENSIONS)
    }
}

/// A month, or its beginning, its end, or some of its middle; cut at days, or at any quarter of an hour.
fn span(random: &mut Random) -> Span {
    let month = *random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let start = YEAR_START + MONTH_DAYS[..month].iter().sum::<u32>() * QUARTERS_PER_DAY;
    let length = MONTH_DAYS[month] * QUARTERS_PER_DAY;
    let end = start + length;
    let unit = *random.pick(&[1, QUARTERS_PER_DAY, length / 2, length / 4]);
    // Not at 0 and not at the end.
    let mut cut = || start + (1 + below(random, length / unit - 1)) * unit;
    let (one, other) = (cut(), cut());
    match random.below(4) {
        0 => Span { start, from: start, to: end, end },
        1 => Span { start, from: start, to: one, end },
        2 => Span { start, from: one, to: end, end },
        _ if one == other => Span { start, from: one, to: one + 1, end },
        _ => Span { start, from: one.min(other), to: one.max(other), end },
    }
}

fn aggregations(random: &mut Random) -> BTreeMap<String, Aggregation> {
    let count = *random.pick(&[1, 1, 2, 3]);
    METERS[..count].iter().map(|meter| ((*meter).to_owned(), *random.pick(&AGGREGATIONS))).collect()
}

fn plan(
    random: &mut Random,
    aggregations: &BTreeMap<String, Aggregation>,
    currency_places: u32,
) -> Plan {
    let fees = (0..random.below(3)).map(|index| fee(random, index, currency_places)).collect();
    let mut prices: Vec<Price> = Vec::new();
    for _ in 0..=random.below(5) {
        let price = one_price(random, aggregations, currency_places);
        // The same dimensions twice are a mistake, whatever a catalogue says to it.
        if !prices.iter().any(|before| before.meter == price.meter && before.filter == price.filter)
        {
            prices.push(price);
        }
    }
    // One in four keeps a price of all usage where it is: it takes that of the prices after it.
    if random.below(4) != 0 {
        prices.sort_by_key(|price| price.filter.is_empty());
    }
    let half_even = random.below(2) == 0;
    let commitment = (random.below(4) == 0).then(|| amount(random, currency_places));
    Plan { currency_places, half_even, fees, prices, discount: None, commitment }
}

fn fee(random: &mut Random, index: u64, places: u32) -> Fee {
    let (name, amount) = (format!("fee{index}"), amount(random, places));
    Fee { name, amount, advance: random.below(4) == 0, tax: None }
}

fn one_price(
    random: &mut Random,
    aggregations: &BTreeMap<String, Aggregation>,
    places: u32,
) -> Price {
    let meters: Vec<_> = aggregations.iter().collect();
    let (meter, aggregation) = *random.pick(&meters);
    let filter = DIMENSIONS
        .iter()
        .filter_map(|dimension| {
            let value = VALUES[..2].get(size(random.below(6)))?;
            Some(((*dimension).to_owned(), (*value).to_owned()))
        })
        .collect();
    let minimum = (random.below(5) == 0).then(|| amount(random, places));
    let maximum = (random.below(5) == 0)
        .then(|| numbers::at_least(&amount(random, places), minimum.as_deref()));
    let included = (random.below(4) == 0).then(|| quantity(random, Sign::Positive));
    let model = model(random, *aggregation, places);
    Price { meter: meter.clone(), filter, included, minimum, maximum, model, tax: None }
}

fn model(random: &mut Random, aggregation: Aggregation, places: u32) -> Model {
    match random.below(6) {
        0 => Model::PerUnit { unit_price: price(random, places) },
        1 => Model::Package { size: positive(random), price: price(random, places) },
        2 => Model::Graduated(tiers(random, places)),
        3 => Model::Volume(tiers(random, places)),
        // A percentage is of an amount of money, which no number of events is.
        _ if aggregation.has_quantities() => {
            Model::Percentage { percent: percent(random), per_event: price(random, places) }
        }
        _ => Model::PerUnit { unit_price: price(random, places) },
    }
}

fn tiers(random: &mut Random, places: u32) -> Vec<Tier> {
    let count = random.below(4);
    let mut bounds: Vec<String> = (0..count).map(|_| positive(random)).collect();
    bounds.sort_by_key(|bound| super::exact(bound));
    bounds.dedup_by_key(|bound| super::exact(bound));
    let up_tos = bounds.into_iter().map(Some).chain([None]);
    up_tos
        .map(|up_to| {
            let flat = if random.below(2) == 0 { "0".to_owned() } else { price(random, places) };
            Tier { up_to, unit_price: price(random, places), flat }
        })
        .collect()
}

/// Often one or two, whose quantity is then on an edge; sometimes none.
fn events(
    random: &mut Random,
    plan: &Plan,
    aggregations: &BTreeMap<String, Aggregation>,
    span: Span,
) -> Vec<Event> {
    let count = *random.pick(&[0, 1, 1, 2, 3, 5, 8, 13, 40]);
    let sign = if random.below(2) == 0 { Sign::Any } else { Sign::Positive };
    let edges = edges(plan);
    let meters: Vec<_> = aggregations.iter().collect();
    (0..count)
        .map(|_| {
            let (meter, aggregation) = *random.pick(&meters);
            // One in eight lacks what its meter looks at, or has what it does not.
            let usual = random.below(8) != 0;
            let unique = *aggregation == Aggregation::UniqueCount;
            let quantity = match random.pick(&edges) {
                Some(edge) => edge.clone(),
                None => quantity(random, sign),
            };
            Event {
                meter: meter.clone(),
                dimensions: dimensions(random),
                time: time(random, span),
                quantity: (aggregation.has_quantities() == usual).then_some(quantity),
                unique: (unique && usual).then(|| format!("u{}", random.below(9))),
            }
        })
        .collect()
}

/// Where tiers, packages and included quantities end, and as many times nothing.
fn edges(plan: &Plan) -> Vec<Option<String>> {
    let mut edges = vec![None];
    for price in &plan.prices {
        let included = price.included.iter().cloned();
        let of_model: Vec<String> = match &price.model {
            Model::Graduated(tiers) | Model::Volume(tiers) => {
                tiers.iter().filter_map(|tier| tier.up_to.clone()).collect()
            }
            Model::Package { size, .. } => vec![size.clone()],
            Model::PerUnit { .. } | Model::Percentage { .. } => Vec::new(),
        };
        edges.extend(included.chain(of_model).flat_map(|edge| [Some(edge), None]));
    }
    edges
}

fn dimensions(random: &mut Random) -> BTreeMap<String, String> {
    DIMENSIONS
        .iter()
        .filter_map(|dimension| {
            // One in eight does not have it.
            let value = if random.below(8) == 0 { None } else { Some(random.pick(&VALUES)) };
            Some(((*dimension).to_owned(), (*value?).to_owned()))
        })
        .collect()
}

/// Often the part's first or last instant, so that times are equal and edges are met.
fn time(random: &mut Random, span: Span) -> i64 {
    let first = i64::from(span.from) * QUARTER_MS;
    let last = i64::from(span.to) * QUARTER_MS - 1;
    match random.below(4) {
        0 => first,
        1 => last,
        _ => first + i64::from(below(random, span.to - span.from)) * QUARTER_MS,
    }
}

fn below(random: &mut Random, end: u32) -> u32 {
    u32::try_from(random.below(u64::from(end))).expect("less than 32 bits")
}

fn size(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}
