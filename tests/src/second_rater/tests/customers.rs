//! Parts of a period, and who charges what, computed by hand. The month is January 1970: 31 days of 96 quarters.

use super::*;
use crate::second_rater::calendar::Interval;
use crate::second_rater::customer::{Line, Subscription, Terms, Version, Versions, bill, unpriced};

const DAY: u32 = 96;

/// A version with a fee of 31.00, so that a day costs 1.00, and the meter at `unit_price`.
fn version(effective: Option<u32>, unit_price: &str) -> Version {
    let fee = Fee { name: "base".to_owned(), amount: "31".to_owned(), ..Fee::default() };
    let plan = Plan { fees: vec![fee], prices: vec![per_unit(unit_price)], ..plan() };
    Version { effective, half_even: None, plan }
}

fn monthly(versions: Vec<Version>) -> Versions {
    Versions { interval: Interval::Month, versions }
}

fn on(plan: &str) -> Subscription {
    Subscription { plan: plan.to_owned(), ..Subscription::default() }
}

/// Of a quantity, within the day.
fn used(quantity: &str, day: u32) -> Event {
    Event { time: i64::from(day) * 24 * 3_600_000 + 1, ..event(quantity) }
}

/// `plan day..day amount...` of each part of the January.
fn parts(
    plans: &[(&str, Versions)],
    subscriptions: &[Subscription],
    events: &[Event],
) -> Vec<String> {
    let aggregations = BTreeMap::from([("m".to_owned(), Aggregation::Sum)]);
    let plans = plans.iter().map(|(name, plan)| ((*name).to_owned(), plan.clone())).collect();
    let terms =
        Terms { aggregations: &aggregations, plans: &plans, subscriptions, half_even: false };
    assert_eq!(unpriced(terms, events, 0, 31 * DAY), 0);
    let mut parts: Vec<(String, String)> = Vec::new();
    for Line { plan, span, trial, amount, .. } in bill(terms, events, DAY) {
        let trial = if trial { " trial" } else { "" };
        let part = format!("{plan} {}..{}{trial}", span.from / DAY, span.to / DAY);
        match parts.last_mut().filter(|(last, _)| *last == part) {
            Some((_, amounts)) => amounts.push_str(&format!(" {amount}")),
            None => parts.push((part, amount.to_string())),
        }
    }
    parts.into_iter().map(|(part, amounts)| format!("{part}: {amounts}")).collect()
}

#[test]
fn cuts() {
    let plans = [("p", monthly(vec![version(None, "1"), version(Some(20 * DAY), "2")]))];
    let events = [used("1", 5), used("1", 12), used("1", 25)];
    assert_eq!(parts(&plans, &[on("p")], &events), ["p 0..20: 2000 200", "p 20..31: 1100 200"]);
    let tried = Subscription { trial_end: Some(10 * DAY), end: Some(28 * DAY), ..on("p") };
    assert_eq!(
        parts(&plans, &[tried], &events),
        ["p 0..10 trial: 0 0", "p 10..20: 1000 100", "p 20..28: 800 200"]
    );
    // Before its first version a plan is nothing.
    let later = [("p", monthly(vec![version(Some(20 * DAY), "2")]))];
    assert_eq!(parts(&later, &[on("p")], &events[2..]), ["p 20..31: 1100 200"]);
}

#[test]
fn overrides_discounts_and_commitments() {
    let mut of = version(None, "1");
    of.plan.commitment = Some("62".to_owned());
    let fee = |name: &str, amount: &str| Fee {
        name: name.to_owned(),
        amount: amount.to_owned(),
        ..Fee::default()
    };
    let large = Price { filter: pairs("size=l"), ..per_unit("3") };
    let changed = Subscription {
        fees: vec![fee("base", "3.1"), fee("more", "0.31")],
        prices: vec![large],
        discount: Some("10".to_owned()),
        end: Some(10 * DAY),
        ..on("p")
    };
    let events = [Event { dimensions: pairs("size=l"), ..used("2", 5) }, used("1", 5)];
    let plans = [("p", monthly(vec![of]))];
    // 1.00 and 0.10 of fees, 6.00 and 1.00 of usage, 0.81 off, and 12.71 to the 20.00 of ten days.
    assert_eq!(
        parts(&plans, std::slice::from_ref(&changed), &events),
        ["p 0..10: 100 10 600 100 -81 1271"]
    );
    // One of all usage leaves the plan's own no line.
    let all = Subscription { prices: vec![per_unit("5")], discount: None, ..changed };
    assert_eq!(parts(&plans, &[all], &events), ["p 0..10: 100 10 1500 390"]);
}

#[test]
fn the_first_plan_with_a_price_charges() {
    let plan = || monthly(vec![version(None, "1")]);
    let plans = [("p", plan()), ("q", plan())];
    let first = Subscription { start: Some(10 * DAY), ..on("p") };
    let events = [used("1", 5), used("1", 12)];
    assert_eq!(
        parts(&plans, &[first.clone(), on("q")], &events),
        ["p 10..31: 2100 100", "q 0..31: 3100 100"]
    );
    assert_eq!(
        parts(&plans, &[on("q"), first.clone()], &events),
        ["q 0..31: 3100 200", "p 10..31: 2100 0"]
    );
    // A trial has its prices, and takes usage for nothing.
    let tried = Subscription { trial_end: Some(20 * DAY), ..first };
    assert_eq!(
        parts(&plans, &[tried, on("q")], &events),
        ["p 10..20 trial: 0 0", "p 20..31: 1100 0", "q 0..31: 3100 100"]
    );
}
