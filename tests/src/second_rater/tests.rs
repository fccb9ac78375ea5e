//! The document's examples, and others computed by hand.

mod calendar;
mod catalogue;
mod customers;
mod documents;
mod lines;
mod models;
mod quantities;

use super::*;

const MONTH: Span = Span { start: 0, from: 0, to: 30 * 96, end: 30 * 96 };

/// In euro, half up, with nothing in it.
fn plan() -> Plan {
    Plan { currency_places: 2, ..Plan::default() }
}

/// Of the meter "m", all usage.
fn price(model: Model) -> Price {
    let filter = BTreeMap::new();
    Price {
        meter: "m".to_owned(),
        filter,
        included: None,
        minimum: None,
        maximum: None,
        model,
        tax: None,
    }
}

fn per_unit(unit_price: &str) -> Price {
    price(Model::PerUnit { unit_price: unit_price.to_owned() })
}

/// `up_to unit_price flat` of each tier; the last has `-`.
fn tiers(text: &str) -> Vec<Tier> {
    let tier = |tier: &str| {
        let words: Vec<&str> = tier.split_whitespace().collect();
        let up_to = (words[0] != "-").then(|| words[0].to_owned());
        Tier { up_to, unit_price: words[1].to_owned(), flat: words[2].to_owned() }
    };
    text.split(',').map(tier).collect()
}

/// `dimension=value` pairs.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| {
        let (dimension, value) = pair.split_once('=').unwrap();
        (dimension.to_owned(), value.to_owned())
    };
    text.split_whitespace().map(pair).collect()
}

fn event(quantity: &str) -> Event {
    let quantity = Some(quantity.to_owned());
    Event { meter: "m".to_owned(), dimensions: BTreeMap::new(), time: 0, quantity, unique: None }
}

/// Of the events' sum.
fn rate(plan: &Plan, span: Span, events: &[Event]) -> Amounts {
    amounts(plan, &BTreeMap::from([("m".to_owned(), Aggregation::Sum)]), span, events)
}

/// The amount of one price for events of these quantities.
fn amount(price: &Price, span: Span, quantities: &str) -> BigInt {
    let events: Vec<Event> = quantities.split_whitespace().map(event).collect();
    rate(&Plan { prices: vec![price.clone()], ..plan() }, span, &events).prices[0].1.clone()
}
