//! Q of each aggregation, and which price takes which usage.

use super::*;

/// Events are `time:quantity:unique`, each of which may be left empty.
fn check(aggregation: Aggregation, events: &str, expected: &str) {
    let event = |text: &str| {
        let fields: Vec<&str> = text.split(':').collect();
        let optional = |field: &str| (!field.is_empty()).then(|| field.to_owned());
        let time = fields[0].parse().unwrap();
        Event { time, quantity: optional(fields[1]), unique: optional(fields[2]), ..event("0") }
    };
    let events: Vec<Event> = events.split_whitespace().map(event).collect();
    let plan = Plan { prices: vec![per_unit("1")], ..plan() };
    let amounts = amounts(&plan, &BTreeMap::from([("m".to_owned(), aggregation)]), MONTH, &events);
    assert_eq!(amounts.prices[0].0, exact(expected), "{aggregation:?} of {events:?}");
}

#[test]
fn aggregations() {
    check(Aggregation::Sum, "1:2: 1:: 1:-0.5: 1:2:", "3.5");
    check(Aggregation::Count, "1:2: 1:: 1::a 1:2:", "4");
    check(Aggregation::Max, "1:2: 2:10: 3:9:", "10");
    check(Aggregation::Max, "1:-2: 2:-10: 3::", "-2");
    check(Aggregation::Min, "1:2: 2:10: 3:9:", "2");
    check(Aggregation::Min, "1:-2: 2:-10: 3::", "-10");
    check(Aggregation::Min, "1:2: 2::", "2");
    check(Aggregation::UniqueCount, "1::a 2::b 3::a 4:: 5:1:", "2");
    check(Aggregation::Latest, "1:9: 3:2: 2:8:", "2");
    check(Aggregation::Latest, "3:9: 3:10: 3:-11:", "10");
    check(Aggregation::Latest, "3:9: 4::", "9");
    check(Aggregation::Latest, "-3:9: -4:1:", "9");
}

#[test]
fn averages() {
    check(Aggregation::Average, "1:1: 2:2: 3::", "1.5");
    check(Aggregation::Average, "1:1: 2:1: 3:0:", "0.666666667");
    check(Aggregation::Average, "1:-1: 2:-1: 3:0:", "-0.666666667");
    // Halves of the ninth digit, to the even neighbour.
    check(Aggregation::Average, "1:0.000000001: 2:0:", "0");
    check(Aggregation::Average, "1:0.000000003: 2:0:", "0.000000002");
    check(Aggregation::Average, "1:-0.000000003: 2:0:", "-0.000000002");
    check(Aggregation::Average, "1:0.000000005: 2:0:", "0.000000002");
}

#[test]
fn nothing() {
    for aggregation in [
        Aggregation::Sum,
        Aggregation::Max,
        Aggregation::Min,
        Aggregation::Average,
        Aggregation::Latest,
    ] {
        check(aggregation, "", "0");
        check(aggregation, "1::a", "0");
    }
    check(Aggregation::Count, "", "0");
    check(Aggregation::UniqueCount, "1:5:", "0");
}

/// Which of the prices, by the `where` of each, takes an event; `-` is none.
#[test]
fn takers() {
    let check = |filters: &[&str], dimensions: &str, expected: &str| {
        let filtered = |filter: &&str| Price { filter: pairs(filter), ..per_unit("1") };
        let plan = Plan { prices: filters.iter().map(filtered).collect(), ..plan() };
        let event = Event { dimensions: pairs(dimensions), ..event("1") };
        let amounts = rate(&plan, MONTH, &[event]);
        let taker = amounts.prices.iter().position(|(quantity, _)| *quantity == exact("1"));
        assert_eq!(
            taker.map_or("-".to_owned(), |taker| taker.to_string()),
            expected,
            "{filters:?}: {dimensions}"
        );
        assert_eq!(amounts.unpriced_events, u64::from(taker.is_none()));
        assert_eq!(amounts.total, if taker.is_some() { 100.into() } else { BigInt::ZERO });
    };
    let overlapping = ["region=eu kind=a", "region=eu", "kind=a"];
    check(&overlapping, "region=eu kind=a", "0");
    check(&overlapping, "region=eu kind=b", "1");
    check(&overlapping, "region=eu", "1");
    check(&overlapping, "region=us kind=a", "2");
    check(&overlapping, "region=us kind=b", "-");
    check(&overlapping, "", "-");
    check(&["region=eu", "kind=a"], "kind=a region=eu other=x", "0");
    check(&["kind=a", "region=eu"], "kind=a region=eu other=x", "0");
    check(&["kind=a", ""], "kind=b", "1");
    check(&["kind=a", ""], "", "1");
    check(&["", "kind=a"], "kind=a", "0");
    check(&[], "", "-");
}

/// A price takes usage of its own meter only.
#[test]
fn meters() {
    let other = |quantity| Event { meter: "other".to_owned(), ..event(quantity) };
    let aggregations =
        BTreeMap::from(["m", "n", "other"].map(|meter| (meter.to_owned(), Aggregation::Sum)));
    let plan = Plan {
        prices: vec![per_unit("1"), Price { meter: "n".to_owned(), ..per_unit("2") }],
        ..plan()
    };
    let events =
        [event("3"), other("4"), other("5"), Event { meter: "n".to_owned(), ..event("7") }];
    let amounts = amounts(&plan, &aggregations, MONTH, &events);
    assert_eq!(amounts.prices, [(exact("3"), 300.into()), (exact("7"), 1400.into())]);
    assert_eq!((amounts.total, amounts.unpriced_events), (1700.into(), 2));
}
