//! Charges by model, in cents.

use super::*;

fn check(model: Model, quantities: &str, cents: i64) {
    assert_eq!(
        amount(&price(model.clone()), MONTH, quantities),
        cents.into(),
        "{model:?} of {quantities}"
    );
}

const DOCUMENT: &str = "100 1.00 5, 1000 0.50 0, - 0.10 0";

#[test]
fn graduated() {
    for (billed, cents) in [("100", 10500), ("101", 10550), ("2000", 65500), ("-3", -300)] {
        check(Model::Graduated(tiers(DOCUMENT)), billed, cents);
    }
    let flats = |billed, cents| {
        check(Model::Graduated(tiers("2 1.00 5, 4.5 0.50 7, - 0.10 11")), billed, cents)
    };
    flats("0", 0);
    flats("0.000000001", 500);
    flats("2", 700);
    // The second tier's flat from the least quantity above 2.
    flats("2.000000001", 1400);
    flats("4.5", 1525);
    flats("5.5", 2635);
    flats("-2.5", -250);
    check(Model::Graduated(tiers("- 0.5 1")), "3", 250);
    check(Model::Graduated(tiers("10 0 0, - 2 0")), "12", 400);
    check(Model::Graduated(tiers("10 0 0, - 2 0")), "-12", 0);
}

#[test]
fn volume() {
    for (billed, cents) in [("100", 10500), ("101", 5050), ("2000", 20000), ("-3", -300)] {
        check(Model::Volume(tiers(DOCUMENT)), billed, cents);
    }
    let flats = |billed, cents| {
        check(Model::Volume(tiers("2 1.00 5, 4.5 0.50 7, - 0.10 11")), billed, cents)
    };
    flats("0", 0);
    flats("0.000000001", 500);
    flats("2", 700);
    flats("2.000000001", 800);
    flats("4.5", 925);
    flats("5.5", 1155);
    flats("-2.5", -250);
}

#[test]
fn package() {
    let of = |size: &str, quantities, cents| {
        check(Model::Package { size: size.to_owned(), price: "1".to_owned() }, quantities, cents);
    };
    of("1", "2.1", 300);
    of("1", "-2.9", -200);
    of("1", "-0.9", 0);
    of("1", "0", 0);
    of("10", "20", 200);
    of("10", "20.000000001", 300);
    of("10", "-20", -200);
    of("0.3", "0.9", 300);
    // Of the sum, and not of each event.
    of("10", "1 2 3", 100);
}

#[test]
fn percentage() {
    let of = |quantities, cents| {
        let (percent, per_event) = ("2.9".to_owned(), "0.25".to_owned());
        check(Model::Percentage { percent, per_event }, quantities, cents);
    };
    of("100", 315);
    of("100 50", 485);
    // A refund is an event too.
    of("100 -100", 50);
    of("-100", -265);
    of("0", 25);
    of("", 0);
}

/// The events of a percentage are all: those without a quantity, and those whose quantity is included.
#[test]
fn events_of_a_percentage() {
    let model = Model::Percentage { percent: "10".to_owned(), per_event: "1".to_owned() };
    let price = Price { included: Some("50".to_owned()), ..price(model) };
    let events = [event("40"), event("30"), Event { quantity: None, ..event("0") }];
    let amounts = rate(&Plan { prices: vec![price], ..plan() }, MONTH, &events);
    assert_eq!(amounts.prices, [(exact("70"), 500.into())]);
}

#[test]
fn per_unit_price() {
    let of = |unit_price: &str, quantities, cents| {
        check(Model::PerUnit { unit_price: unit_price.to_owned() }, quantities, cents);
    };
    of("1.5", "3", 450);
    of("1.5", "-3", -450);
    of("1.5", "", 0);
    of("0.000000000001", "5000000000", 1);
}

/// 5 * 10^24 + 10^6 - 0.005 - 10^-21: the last of 46 digits decides that the half cent is not rounded up.
#[test]
fn all_digits() {
    let amount = amount(&per_unit("999999999999999.999999999999"), MONTH, "5000000000.000000001");
    assert_eq!(amount.to_string(), "500000000000000000099999999");
}
