//! From usage to amounts.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use std::sync::LazyLock;

use proptest::prelude::*;

use tidemark_common::batch::Dimensions;
use tidemark_common::time::{BUCKET_MILLIS, Bucket};

use super::*;
use crate::catalog::Subscription;
use crate::period::Period;
use crate::usage::{Class, Sign};

const APRIL: Period = Period { start: Bucket(100_000), end: Bucket(100_000 + 30 * 96) };

fn catalog(plan: &str) -> Catalog {
    let text = format!(
        "[[meter]]\nname = \"calls\"\naggregation = \"sum\"\ndimensions = [\"model\", \"region\"]\nnegative = true\n\
         [[meter]]\nname = \"peak\"\naggregation = \"max\"\n\
         [[plan]]\nname = \"p\"\ncurrency = \"EUR\"\n{plan}"
    );
    Catalog::parse(&text, "c").unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

fn row(meter: &str, dimensions: &[(&str, &str)], quantity: &str) -> UsageRow {
    let quantity = Quantity::parse(quantity.as_bytes()).unwrap();
    let pairs = dimensions.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    UsageRow {
        sign: Sign::Added,
        class: Class::Normal,
        meter: MeterName::parse(meter).unwrap(),
        dimensions: Dimensions::new(pairs.collect()).unwrap(),
        bucket: APRIL.start,
        usage: Accumulator {
            events: 1,
            quantity_events: 1,
            sum: quantity,
            min: quantity,
            max: quantity,
            ..Accumulator::default()
        },
    }
}

/// A stretch of April, charged, on the first plan without changes.
fn part(catalog: &Catalog, stretch: Period) -> Part<'_> {
    static PLAIN: LazyLock<Subscription> = LazyLock::new(Subscription::default);
    let share = Share { period: APRIL, part: stretch };
    let plan = &catalog.plans["p"][0];
    let rounding = plan.rounding.unwrap_or_default();
    Part { plan, subscription: &PLAIN, share, charging: Charging::Charged, rounding }
}

/// The amounts of all lines, and the total.
fn amounts(
    catalog: &Catalog,
    part: Part<'_>,
    rows: &[UsageRow],
) -> Result<Vec<String>, RatingError> {
    let mut gathered = Gathered::new(part);
    for row in rows {
        gathered.take(&UsageRow { bucket: part.share.part.start, ..row.clone() }).unwrap();
    }
    let bill = gathered.rate(catalog)?;
    let lines = bill.lines.iter().map(|line| line.amount().amount());
    Ok(lines.chain([bill.total.to_string()]).collect())
}

/// A plan's fees and prices, and usage of `calls` -> amounts of a whole month.
fn check(plan: &str, used: &str, expected: &str) {
    let rows: Vec<_> =
        used.split_whitespace().map(|quantity| row("calls", &[], quantity)).collect();
    let catalog = catalog(plan);
    let found = amounts(&catalog, part(&catalog, APRIL), &rows).unwrap().join(" ");
    assert_eq!(found, expected, "{plan} {used}");
}

const PRICE: &str = "[[plan.price]]\nmeter = \"calls\"\n";

#[test]
fn per_unit_and_its_bounds() {
    let plan = |more: &str| format!("{PRICE}unit_price = \"0.0035\"\n{more}");
    check(&plan(""), "", "0.00 0.00 EUR");
    check(&plan(""), "3", "0.01 0.01 EUR");
    check(&plan(""), "-10", "-0.04 -0.04 EUR");
    check(&plan("included = \"100\""), "100", "0.00 0.00 EUR");
    check(&plan("included = \"100\""), "1000 1100", "7.00 7.00 EUR");
    check(&plan("included = \"100\""), "-2", "-0.01 -0.01 EUR");
    check(&plan("minimum = \"2\""), "", "2.00 2.00 EUR");
    check(&plan("minimum = \"2\""), "1000", "3.50 3.50 EUR");
    check(&plan("maximum = \"3\""), "1000", "3.00 3.00 EUR");
}

#[test]
fn packages_are_sold_whole() {
    let plan =
        format!("{PRICE}model = \"package\"\npackage_size = \"1000\"\npackage_price = \"5\"");
    check(&plan, "", "0.00 0.00 EUR");
    check(&plan, "0.000000001", "5.00 5.00 EUR");
    check(&plan, "1000", "5.00 5.00 EUR");
    check(&plan, "1000.000000001", "10.00 10.00 EUR");
    check(&plan, "-2500", "-10.00 -10.00 EUR");
}

const TIERS: &str = "[[plan.price.tier]]\nup_to = \"100\"\nunit_price = \"1\"\nflat = \"5\"\n\
    [[plan.price.tier]]\nup_to = \"1000\"\nunit_price = \"0.5\"\n[[plan.price.tier]]\nunit_price = \"0.1\"\n";

#[test]
fn tiers_as_the_documentation_has_them() {
    let [graduated, volume] =
        ["graduated", "volume"].map(|model| format!("{PRICE}model = \"{model}\"\n{TIERS}"));
    let check = |used: &str, by_graduated: &str, by_volume: &str| {
        check(&graduated, used, &format!("{by_graduated} {by_graduated} EUR"));
        check(&volume, used, &format!("{by_volume} {by_volume} EUR"));
    };
    check("", "0.00", "0.00");
    check("100", "105.00", "105.00");
    check("101", "105.50", "50.50");
    check("1000", "555.00", "500.00");
    check("2000", "655.00", "200.00");
    check("-3", "-3.00", "-3.00");
}

#[test]
fn percentages_with_a_fee_for_each_event() {
    let plan = format!("{PRICE}model = \"percentage\"\npercent = \"2.9\"\nper_event = \"0.30\"\n");
    check(&plan, "100 50", "4.95 4.95 EUR");
    check(&plan, "100 -100", "0.60 0.60 EUR");
}

#[test]
fn rounding_is_the_plans() {
    let price = format!("{PRICE}unit_price = \"0.005\"\n");
    check(&price, "1", "0.01 0.01 EUR");
    check(&format!("rounding = \"half_even\"\n{price}"), "1", "0.00 0.00 EUR");
    // Two lines of half a cent are two cents, or none.
    let fee = "[[plan.fee]]\nname = \"f\"\namount = \"0.005\"\n";
    check(&format!("{fee}{price}"), "1", "0.01 0.01 0.02 EUR");
    check(&format!("rounding = \"half_even\"\n{fee}{price}"), "1", "0.00 0.00 0.00 EUR");
}

#[test]
fn usage_goes_to_the_first_price_that_takes_it() {
    let price = |filter: &str, unit_price: u32| {
        format!("{PRICE}where = {{ {filter} }}\nunit_price = \"{unit_price}\"\n")
    };
    let plan = price("model = \"a\", region = \"eu\"", 1)
        + &price("model = \"a\"", 10)
        + &price("region = \"eu\"", 100);
    let catalog = catalog(&plan);
    let mut gathered = Gathered::new(part(&catalog, APRIL));
    let mut take =
        |dimensions: &[(&str, &str)]| gathered.take(&row("calls", dimensions, "1")).unwrap();
    assert_eq!(take(&[("model", "a"), ("region", "eu")]), Taken::Priced);
    assert_eq!(take(&[("model", "a"), ("region", "us")]), Taken::Priced);
    assert_eq!(take(&[("model", "b"), ("region", "eu")]), Taken::Priced);
    assert_eq!(take(&[("model", "b"), ("region", "us")]), Taken::Unpriced);
    assert_eq!(take(&[]), Taken::Unpriced);
    assert_eq!(gathered.take(&row("peak", &[], "1")).unwrap(), Taken::Unpriced);
    let late = UsageRow { bucket: APRIL.end, ..row("calls", &[("model", "a")], "1") };
    assert_eq!(gathered.take(&late).unwrap(), Taken::OtherTime);
    let bill = gathered.rate(&catalog).unwrap();
    assert_eq!(bill.total.to_string(), "111.00 EUR");
}

#[test]
fn parts_prorate_what_is_for_a_period() {
    let plan = format!(
        "[[plan.fee]]\nname = \"f\"\namount = \"10\"\n{PRICE}unit_price = \"1\"\nincluded = \"100\"\nminimum = \"7\"\n"
    );
    let catalog = catalog(&plan);
    let days = |from: u32, to: u32| {
        let [start, end] = [from, to].map(|day| Bucket(APRIL.start.0 + day * 96));
        amounts(&catalog, part(&catalog, Period { start, end }), &[row("calls", &[], "50")])
            .unwrap()
            .join(" ")
    };
    // A third of 100 is 33.333333334 by then, and 16.666666666 of the rest of the half.
    assert_eq!(days(0, 10), "3.33 16.67 20.00 EUR");
    assert_eq!(days(10, 15), "1.67 33.33 35.00 EUR");
    assert_eq!(days(15, 30), "5.00 3.50 8.50 EUR");
}

/// A plan and what a subscription changes of it, with ten calls -> amounts of April, charged and in a trial.
fn check_changes(plan: &str, subscription: &str, charged: &str, in_trial: &str) {
    let text = format!(
        "{plan}\n[[customer]]\nid = \"a\"\n[[subscription]]\ncustomer = \"a\"\nplan = \"p\"\n{subscription}"
    );
    let catalog = catalog(&text);
    let subscription = &catalog.subscriptions.first_key_value().unwrap().1[0];
    for (charging, expected) in [(Charging::Charged, charged), (Charging::Trial, in_trial)] {
        let part = Part { subscription, charging, ..part(&catalog, APRIL) };
        let found = amounts(&catalog, part, &[row("calls", &[("model", "a")], "10")]).unwrap();
        assert_eq!(found.join(" "), expected, "{text}");
    }
}

#[test]
fn a_subscription_changes_what_its_plan_costs() {
    let plan = format!("[[plan.fee]]\nname = \"f\"\namount = \"9\"\n{PRICE}unit_price = \"1\"\n");
    check_changes(&plan, "", "9.00 10.00 19.00 EUR", "0.00 0.00 0.00 EUR");
    check_changes(
        &plan,
        "discount = \"12.5\"",
        "9.00 10.00 -2.38 16.62 EUR",
        "0.00 0.00 0.00 0.00 EUR",
    );
    check_changes(
        &plan,
        "[[subscription.fee]]\nname = \"f\"\namount = \"5\"\n[[subscription.fee]]\nname = \"g\"\namount = \"1\"",
        "5.00 1.00 10.00 16.00 EUR",
        "0.00 0.00 0.00 0.00 EUR",
    );
    check_changes(
        &plan,
        "[[subscription.price]]\nmeter = \"calls\"\nwhere = { model = \"a\" }\nunit_price = \"0.5\"",
        "9.00 5.00 0.00 14.00 EUR",
        "0.00 0.00 0.00 0.00 EUR",
    );
    // What a price of the subscription hides charges no minimum either.
    check_changes(
        &format!("{PRICE}unit_price = \"1\"\nminimum = \"10\"\n"),
        "[[subscription.price]]\nmeter = \"calls\"\nunit_price = \"0.5\"",
        "5.00 5.00 EUR",
        "0.00 0.00 EUR",
    );
    let committed = format!("commitment = \"30\"\n{plan}");
    check_changes(&committed, "", "9.00 10.00 11.00 30.00 EUR", "0.00 0.00 0.00 0.00 EUR");
    check_changes(
        &committed,
        "discount = \"100\"",
        "9.00 10.00 -19.00 30.00 30.00 EUR",
        "0.00 0.00 0.00 0.00 0.00 EUR",
    );
    check_changes(
        &format!("commitment = \"19\"\n{plan}"),
        "",
        "9.00 10.00 0.00 19.00 EUR",
        "0.00 0.00 0.00 0.00 EUR",
    );
}

#[test]
fn a_projection_grows_sums_and_nothing_else() {
    let plan = "[[plan.fee]]\nname = \"f\"\namount = \"9\"\n[[plan.price]]\nmeter = \"calls\"\nmodel = \"percentage\"\n\
                percent = \"100\"\nper_event = \"1\"\n[[plan.price]]\nmeter = \"peak\"\nunit_price = \"1\"\n";
    let catalog = catalog(plan);
    let mut gathered = Gathered::new(part(&catalog, APRIL));
    gathered.take(&row("calls", &[], "10")).unwrap();
    gathered.take(&row("peak", &[], "7")).unwrap();
    let check = |quarters: i64, expected: &str| {
        let now = APRIL.start.start().plus_millis(quarters * BUCKET_MILLIS);
        let bill = gathered.project(&catalog, now).unwrap();
        let amounts: Vec<_> = bill.lines.iter().map(|line| line.amount().amount()).collect();
        assert_eq!(amounts.join(" "), expected, "{quarters}");
    };
    // A tenth has passed: ten times as much, in ten times as many events.
    check(288, "9.00 110.00 7.00");
    check(2_880, "9.00 11.00 7.00");
    check(9_999, "9.00 11.00 7.00");
    check(0, "9.00 11.00 7.00");
}

#[test]
fn what_is_too_large_is_an_error() {
    let plan = format!("{PRICE}unit_price = \"999999999999999\"\n");
    let mut huge = row("calls", &[], "1");
    huge.usage.sum = Quantity(i128::MAX);
    let catalog = catalog(&plan);
    let refused = amounts(&catalog, part(&catalog, APRIL), &[huge]).unwrap_err();
    assert!(matches!(refused, RatingError::Amount { .. }), "{refused}");
}

fn quantity(units: i128) -> UsageRow {
    let mut row = row("calls", &[], "0");
    (row.usage.sum, row.usage.min, row.usage.max) =
        (Quantity(units), Quantity(units), Quantity(units));
    row
}

fn minor(catalog: &Catalog, units: i128) -> i128 {
    let mut gathered = Gathered::new(part(catalog, APRIL));
    gathered.take(&quantity(units)).unwrap();
    gathered.rate(catalog).unwrap().total.minor
}

proptest! {
    /// More usage never costs less, by any model but volume; there, within a tier.
    #[test]
    fn more_never_costs_less(units in 0..10_i128.pow(14), more in 0..10_i128.pow(14)) {
        let package = "model = \"package\"\npackage_size = \"7.5\"\npackage_price = \"0.004\"\n";
        let percentage = "model = \"percentage\"\npercent = \"0.37\"\n";
        let graduated = format!("model = \"graduated\"\n{TIERS}");
        let bounded = "unit_price = \"0.003\"\nincluded = \"5\"\nminimum = \"1\"\nmaximum = \"9\"\n";
        for model in [package, percentage, &graduated, bounded] {
            let catalog = catalog(&format!("{PRICE}{model}"));
            prop_assert!(minor(&catalog, units) <= minor(&catalog, units + more), "{}", model);
        }
        let volume = catalog(&format!("{PRICE}model = \"volume\"\n{TIERS}"));
        let tier = |units: i128| [100, 1_000].iter().filter(|edge| units > **edge * 1_000_000_000).count();
        if tier(units) == tier(units + more) {
            prop_assert!(minor(&volume, units) <= minor(&volume, units + more));
        }
    }

    /// At an edge, a billionth more costs at most a minor unit more.
    #[test]
    fn graduated_is_continuous_at_edges(edges in proptest::collection::btree_set(1_u32..10_000, 1..5), price in 1_u32..1_000) {
        let tiers: String = edges
            .iter()
            .map(|edge| format!("[[plan.price.tier]]\nup_to = \"{edge}\"\nunit_price = \"{}\"\n", price / edge + 1))
            .collect();
        let plan = format!("{PRICE}model = \"graduated\"\n{tiers}[[plan.price.tier]]\nunit_price = \"0.5\"\n");
        let catalog = catalog(&plan);
        for edge in edges {
            let at = i128::from(edge) * 1_000_000_000;
            let step = minor(&catalog, at + 1) - minor(&catalog, at);
            prop_assert!((0..=1).contains(&step), "{} at {}", step, edge);
        }
    }
}
