use std::collections::BTreeMap;

use num_bigint::BigInt;

use super::*;
use crate::second_rater::charge::charge;
use crate::second_rater::customer::{self, What};
use crate::second_rater::{exact, quantity};

const CASES: u64 = 2_000;

/// How often each thing that the generator must try comes up in `CASES` cases.
fn seen() -> BTreeMap<String, u64> {
    let mut seen = BTreeMap::new();
    let mut see = |what: String| *seen.entry(what).or_insert(0) += 1;
    for seed in 0..CASES {
        let case = Case::new(seed);
        of_case(&case, &mut see);
        case.plan.prices.iter().for_each(|price| of_price(&case, price, &mut see));
    }
    seen
}

fn of_case(case: &Case, see: &mut impl FnMut(String)) {
    let Case { plan, span, .. } = case;
    see(format!("part {:?}", (span.from == span.start, span.to == span.end)));
    see(format!("places {} even {}", plan.currency_places, plan.half_even));
    case.aggregations.values().for_each(|aggregation| see(format!("meter {}", aggregation.name())));
    let takers = |event: &&Event| plan.prices.iter().filter(|price| price.takes(event)).count();
    let choices = case.events.iter().filter(|event| takers(event) > 1).count();
    for (what, happened) in [
        ("several fees", plan.fees.len() > 1),
        ("several prices", plan.prices.len() > 1),
        ("a choice of prices", choices > 0),
        ("unpriced", case.amounts().unpriced_events > 0),
        ("no events", case.events.is_empty()),
        ("a negative total", case.amounts().total < BigInt::ZERO),
    ] {
        if happened {
            see(what.to_owned());
        }
    }
}

/// Works the price out again up to its charge, to see what it lies on.
fn of_price(case: &Case, price: &Price, see: &mut impl FnMut(String)) {
    let plan = &case.plan;
    let first = |event: &&Event| plan.prices.iter().find(|price| price.takes(event)) == Some(price);
    let events: Vec<&Event> = case.events.iter().filter(first).collect();
    let quantity = quantity::aggregate(case.aggregations[&price.meter], &events);
    let billed = price.billed(&quantity, case.span);
    let charge = charge(&price.model, &billed, events.len());
    let unit = BigInt::from(10).pow(plan.currency_places);
    let rounded = plan.rounding().minor_units(&charge, plan.currency_places);
    let amount = price.bounded(rounded.clone(), plan, case.span);
    let (zero, half) = (exact("0"), exact("0.5"));
    let is_half = |amount: &num_rational::BigRational| {
        let minor = amount * &unit;
        &minor - minor.floor() == half
    };
    let on_edge = match &price.model {
        Model::Graduated(tiers) | Model::Volume(tiers) => {
            tiers.iter().any(|tier| tier.up_to.as_ref().is_some_and(|up_to| exact(up_to) == billed))
        }
        Model::Package { size, .. } => billed > zero && (&billed / exact(size)).is_integer(),
        Model::PerUnit { .. } | Model::Percentage { .. } => false,
    };
    let model = price.model.name();
    for (what, happened) in [
        ("used", !events.is_empty()),
        ("negative", billed < zero),
        ("positive", billed > zero),
        ("some included", quantity > billed && billed > zero),
        ("all included", quantity > billed && billed == zero),
        ("half", is_half(&charge)),
        ("negative half", charge < zero && is_half(&charge)),
        ("at least", amount > rounded),
        ("at most", amount < rounded),
        ("edge", on_edge),
    ] {
        if happened {
            see(format!("{model} {what}"));
        }
    }
}

#[test]
fn all_is_tried() {
    let seen = seen();
    let check = |what: &str, at_least: u64| {
        let count = seen.get(what).copied().unwrap_or(0);
        assert!(
            count >= at_least,
            "{what}: {count} of {CASES} cases, not {at_least}; all: {seen:#?}"
        );
    };
    for model in ["per_unit", "package", "graduated", "volume", "percentage"] {
        for what in
            ["used", "negative", "positive", "some included", "all included", "at least", "at most"]
        {
            check(&format!("{model} {what}"), 10);
        }
        check(&format!("{model} half"), 10);
        check(&format!("{model} negative half"), 3);
    }
    ["package edge", "graduated edge", "volume edge"].iter().for_each(|what| check(what, 10));
    AGGREGATIONS
        .iter()
        .for_each(|aggregation| check(&format!("meter {}", aggregation.name()), 100));
    for part in ["(true, true)", "(true, false)", "(false, false)", "(false, true)"] {
        check(&format!("part {part}"), 100);
    }
    for places in [0, 2, 3] {
        [true, false].iter().for_each(|even| check(&format!("places {places} even {even}"), 50));
    }
    for what in [
        "several fees",
        "several prices",
        "a choice of prices",
        "unpriced",
        "no events",
        "a negative total",
    ] {
        check(what, 30);
    }
}

/// A seed names the same case every time, and its numbers have no more digits than the document allows.
#[test]
fn cases_are_valid() {
    for seed in 0..CASES {
        let case = Case::new(seed);
        assert_eq!(case, Case::new(seed), "seed {seed}");
        let catalogue: toml::Table = case.catalogue().parse().unwrap();
        assert_eq!(catalogue["plan"].as_array().unwrap().len(), 1);
        let (from, to) =
            (i64::from(case.span.from) * QUARTER_MS, i64::from(case.span.to) * QUARTER_MS);
        for event in &case.events {
            assert!((from..to).contains(&event.time), "seed {seed}");
            assert!(
                event.quantity.as_deref().is_none_or(|quantity| fraction(quantity) <= 9),
                "seed {seed}"
            );
        }
        for price in &case.plan.prices {
            let money = price.minimum.iter().chain(&price.maximum);
            assert!(money.clone().all(|amount| fraction(amount) <= 12), "seed {seed}");
            assert!(
                price.included.as_deref().is_none_or(|included| fraction(included) <= 9),
                "seed {seed}"
            );
        }
    }
}

fn fraction(text: &str) -> usize {
    text.split_once('.').map_or(0, |(_, fraction)| fraction.len())
}

/// How often lines of each kind come up on the bills of 300 customers.
#[test]
fn books_try_all() {
    let instants = books::months(2025, &[2, 7]);
    let books = books::Books::new(1, 300, instants.clone());
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut unpriced = 0;
    for customer in &books.customers {
        for at in &instants {
            let lines = books.bill(customer, *at);
            for line in &lines {
                let (span, charged) = (line.span, line.amount != BigInt::ZERO);
                let part = span.from != span.start || span.to != span.end;
                let changed = |what: &What| line.what == *what && charged;
                let advance = matches!(line.what, What::Fee { advance: true, .. });
                for (what, happened) in [
                    ("a trial", line.trial),
                    ("a part", part && charged),
                    ("a discount", changed(&What::Discount)),
                    ("a commitment", changed(&What::Commitment)),
                    ("a fee in advance", advance && charged),
                    ("usage", line.quantity.as_ref().is_some_and(|of| *of != exact("0"))),
                ] {
                    *seen.entry(what).or_default() += u64::from(happened);
                }
            }
            let terms = books.terms(customer);
            unpriced += customer::unpriced(terms, &customer.events, at - 3_000, at + 3_000);
        }
    }
    seen.insert("unpriced", unpriced);
    assert!(seen.len() == 7 && seen.values().all(|count| *count >= 30), "{seen:?}");
}
