//! From a charge to a line: rounding, included quantities, minimums, maximums, proration, totals.

use super::*;

const THIRDS: [Span; 3] = [part(0, 960), part(960, 1920), part(1920, 2880)];

const fn part(from: u32, to: u32) -> Span {
    Span { from, to, ..MONTH }
}

/// The minor units of one unit at `unit_price`, or of -1 if it is below 0, half up and half even.
#[test]
fn halves() {
    let check = |currency_places, unit_price: &str, half_up: i64, half_even: i64| {
        let (quantity, unsigned) =
            unit_price.strip_prefix('-').map_or(("1", unit_price), |price| ("-1", price));
        for (half_even, expected) in [(false, half_up), (true, half_even)] {
            let plan =
                Plan { currency_places, half_even, prices: vec![per_unit(unsigned)], ..plan() };
            let amount = &rate(&plan, MONTH, &[event(quantity)]).prices[0].1;
            assert_eq!(
                *amount,
                expected.into(),
                "{unit_price} of {currency_places} places, even: {half_even}"
            );
        }
    };
    check(2, "0.005", 1, 0);
    check(2, "0.015", 2, 2);
    check(2, "0.025", 3, 2);
    check(2, "0.024999999999", 2, 2);
    check(2, "0.025000000001", 3, 3);
    check(2, "-0.005", -1, 0);
    check(2, "-0.015", -2, -2);
    check(2, "-0.025", -3, -2);
    check(2, "-0.024999999999", -2, -2);
    check(2, "-0.025000000001", -3, -3);
    check(0, "0.5", 1, 0);
    check(0, "2.5", 3, 2);
    check(0, "-3.5", -4, -4);
    check(3, "0.0005", 1, 0);
    check(3, "1.0025", 1003, 1002);
    check(3, "0.005", 5, 5);
}

/// A fee, in a currency of two places.
fn fee(amount: &str, half_even: bool, span: Span) -> BigInt {
    let fee = Fee { name: "f".to_owned(), amount: amount.to_owned(), ..Fee::default() };
    rate(&Plan { half_even, fees: vec![fee], ..plan() }, span, &[]).fees[0].clone()
}

#[test]
fn fees() {
    assert_eq!(fee("10.00", false, MONTH), 1000.into());
    // The document's: from day 10 to day 15.
    assert_eq!(fee("10.00", false, part(9 * 96, 14 * 96)), 167.into());
    // It is a difference of rounded amounts: 6.67 - 3.33, where a third is 3.33.
    assert_eq!(THIRDS.map(|third| fee("10.00", false, third)), [333, 334, 333].map(BigInt::from));
    assert_eq!(fee("0.01", false, part(0, 1440)), 1.into());
    assert_eq!(fee("0.01", false, part(1440, 2880)), 0.into());
    assert_eq!(fee("0.01", true, part(0, 1440)), 0.into());
    assert_eq!(fee("0.01", true, part(1440, 2880)), 1.into());
    assert_eq!(fee("0.015", false, MONTH), 2.into());
    // A period may begin anywhere.
    assert_eq!(fee("4", false, Span { start: 100, from: 101, to: 104, end: 104 }), 300.into());
}

/// Fees, minimums and maximums of the parts are together those of the whole, however it is cut.
#[test]
fn parts_add_up() {
    for amount in ["10.00", "0.01", "0.005", "7.77", "0.123456789012", "99.995"] {
        for half_even in [false, true] {
            for cuts in [vec![1440], vec![1, 2, 3], vec![960, 1920], vec![7, 1000, 1001, 2879]] {
                let (starts, ends) =
                    ([vec![0], cuts.clone()].concat(), [cuts.clone(), vec![2880]].concat());
                let parts = || starts.iter().zip(&ends).map(|(&from, &to)| part(from, to));
                let together = parts().map(|part| fee(amount, half_even, part)).sum::<BigInt>();
                assert_eq!(
                    together,
                    fee(amount, half_even, MONTH),
                    "{amount} cut at {cuts:?}, even: {half_even}"
                );

                let minimum = Price { minimum: Some(amount.to_owned()), ..per_unit("1") };
                let maximum = Price { maximum: Some(amount.to_owned()), ..per_unit("1") };
                for (price, quantity) in [(minimum, "0"), (maximum, "1000000")] {
                    let plan = Plan { half_even, prices: vec![price], ..plan() };
                    let of = |span| rate(&plan, span, &[event(quantity)]).total;
                    assert_eq!(parts().map(of).sum::<BigInt>(), together);
                }
            }
        }
    }
}

#[test]
fn included() {
    let check = |included: &str, span, quantities, cents: i64| {
        let price = Price { included: Some(included.to_owned()), ..per_unit("1") };
        assert_eq!(amount(&price, span, quantities), cents.into(), "{included} in {quantities}");
    };
    check("3", MONTH, "5", 200);
    check("3", MONTH, "3", 0);
    check("3", MONTH, "2", 0);
    check("3", MONTH, "0", 0);
    check("3", MONTH, "-2", -200);
    check("3", MONTH, "2 2", 100);
    check("0", MONTH, "2", 200);
    check("3", part(960, 1920), "5", 400);

    // Rounded up to 9 digits, as a difference: 1/3 is 0.333333334 in the first third, 0.333333333 in the others.
    let nano = |span| {
        let price = Price { included: Some("1".to_owned()), ..per_unit("10000000") };
        amount(&price, span, "1")
    };
    assert_eq!(THIRDS.map(nano), [666_666_666, 666_666_667, 666_666_667].map(BigInt::from));
}

/// What is included is taken off before the model is asked: 12 - 2 lies in the first tier.
#[test]
fn included_before_the_tiers() {
    let model = Model::Volume(tiers("10 1 0, - 5 0"));
    assert_eq!(
        amount(&Price { included: Some("2".to_owned()), ..price(model) }, MONTH, "12"),
        1000.into()
    );
}

#[test]
fn minimum_and_maximum() {
    let check = |minimum: &str, maximum: &str, span, quantities, cents: i64| {
        let bound = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let price = Price { minimum: bound(minimum), maximum: bound(maximum), ..per_unit("1") };
        assert_eq!(
            amount(&price, span, quantities),
            cents.into(),
            "{minimum}..{maximum} of {quantities}"
        );
    };
    check("5", "", MONTH, "", 500);
    check("5", "", MONTH, "4.99", 500);
    check("5", "", MONTH, "5.01", 501);
    check("5", "", MONTH, "-7", 500);
    check("0", "", MONTH, "-7", 0);
    check("", "5", MONTH, "-7", -700);
    check("", "5", MONTH, "5.01", 500);
    check("", "0", MONTH, "5", 0);
    check("3", "5", MONTH, "4", 400);
    // The maximum is looked at last.
    check("5", "3", MONTH, "4", 300);
    check("10", "", part(960, 1920), "", 334);
    check("", "10", part(960, 1920), "5", 334);
    // The charge is rounded first, and the minimum on its own.
    check("0.005", "", MONTH, "", 1);
    check("", "0.004", MONTH, "5", 0);
}

/// Only fees, minimums, maximums and included quantities depend on the part.
#[test]
fn not_prorated() {
    let half = part(0, 1440);
    let check = |model: Model, quantities, cents: i64| {
        assert_eq!(
            amount(&price(model.clone()), half, quantities),
            cents.into(),
            "{model:?} of {quantities}"
        );
    };
    check(Model::PerUnit { unit_price: "2".to_owned() }, "3", 600);
    check(Model::Package { size: "10".to_owned(), price: "4".to_owned() }, "11", 800);
    check(Model::Percentage { percent: "10".to_owned(), per_event: "1".to_owned() }, "50", 600);
    check(Model::Graduated(tiers("10 1 6, - 2 4")), "12", 2400);
    check(Model::Volume(tiers("10 1 6, - 2 4")), "10", 1600);
}

/// A total is the sum of rounded lines.
#[test]
fn totals() {
    let fee = Fee { name: "f".to_owned(), amount: "0.005".to_owned(), ..Fee::default() };
    let second = Price { filter: pairs("kind=a"), ..per_unit("0.005") };
    let plan =
        Plan { fees: vec![fee.clone(), fee], prices: vec![second, per_unit("0.005")], ..plan() };
    let amounts =
        rate(&plan, MONTH, &[event("1"), Event { dimensions: pairs("kind=a"), ..event("1") }]);
    assert_eq!(amounts.fees, [1.into(), 1.into()]);
    assert_eq!(amounts.prices, [(exact("1"), 1.into()), (exact("1"), 1.into())]);
    assert_eq!(amounts.total, 4.into());
}
