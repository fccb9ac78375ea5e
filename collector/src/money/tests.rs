#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use proptest::prelude::*;

use super::*;

fn price(text: &str) -> Price {
    Price::parse(text).unwrap()
}

/// quantity, unit price, currency -> the rounded amount.
fn check(quantity: Quantity, unit_price: &str, currency: &str, expected: &str) {
    let currency = Currency::parse(currency).unwrap();
    let money = ExactAmount::product(quantity, price(unit_price)).round(currency, Rounding::HalfUp);
    let shown = money.map_or_else(|error| error.to_string(), |money| money.to_string());
    assert_eq!(shown, expected, "{quantity} at {unit_price}");
}

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text.as_bytes()).unwrap()
}

#[test]
fn amounts_round_half_away_from_zero_in_the_currencys_minor_unit() {
    check(quantity("0"), "1", "EUR", "0.00 EUR");
    check(quantity("3"), "0.10", "EUR", "0.30 EUR");
    check(quantity("1"), "0.005", "EUR", "0.01 EUR");
    check(quantity("1"), "0.004999999999", "EUR", "0.00 EUR");
    check(quantity("-1"), "0.005", "EUR", "-0.01 EUR");
    check(quantity("-1"), "0.0049", "EUR", "0.00 EUR");
    check(quantity("2.5"), "1", "JPY", "3 JPY");
    check(quantity("-2.5"), "1", "JPY", "-3 JPY");
    check(quantity("1.0005"), "1", "KWD", "1.001 KWD");
    check(quantity("0.00005"), "1", "CLF", "0.0001 CLF");
    check(quantity("0.000000001"), "0.000000000001", "USD", "0.00 USD");
    check(
        quantity("999999999999999.999999999"),
        "999999999999999.999999999999",
        "USD",
        "999999999999999999999998999000.00 USD",
    );
}

#[test]
fn a_product_beyond_decimal_digits_stays_exact() {
    // rust_decimal's 96 bits would have rounded this: 38 digits.
    let sum = Quantity(i128::MAX);
    check(sum, "1", "USD", "170141183460469231731687303715.88 USD");
    check(sum, "0.000000000001", "USD", "170141183460469231.73 USD");
    check(Quantity(i128::MIN), "1", "USD", "-170141183460469231731687303715.88 USD");
    check(
        sum,
        "999999999999999",
        "CLF",
        "failed to round an amount: it exceeds what 128 bits of CLF minor units hold",
    );
}

#[test]
fn prices_are_read_exactly() {
    let check = |text: &str, expected: Result<&str, PriceError>| {
        let read = Price::parse(text).map(|price| price.to_string());
        assert_eq!(read.as_deref(), expected.as_ref().map(|text| &**text), "{text}");
    };
    check("0", Ok("0"));
    check("0.10", Ok("0.1"));
    check("007.5", Ok("7.5"));
    check("0.000000000001", Ok("0.000000000001"));
    check("0.0000000000010", Ok("0.000000000001"));
    check("999999999999999.999999999999", Ok("999999999999999.999999999999"));
    check("0.0000000000001", Err(PriceError::TooPrecise));
    check("1000000000000000", Err(PriceError::TooLarge));
    check("-1", Err(PriceError::Negative));
    for text in ["", ".", "1.", ".5", "1e3", "1,5", " 1", "+1", "0x1", "1.2.3", "١"] {
        check(text, Err(PriceError::NotANumber));
    }
}

#[test]
fn a_half_goes_where_the_rounding_says() {
    let check = |quantity: &str, half_up: i128, half_even: i128| {
        let yen = Currency::parse("JPY").unwrap();
        let exact = ExactAmount::product(self::quantity(quantity), price("1"));
        let rounded = Rounding::ALL.map(|rounding| exact.round(yen, rounding).unwrap().minor);
        assert_eq!(rounded, [half_up, half_even], "{quantity}");
    };
    check("0.5", 1, 0);
    check("1.5", 2, 2);
    check("2.5", 3, 2);
    check("2.500000001", 3, 3);
    check("2.499999999", 2, 2);
    check("-0.5", -1, 0);
    check("-2.5", -3, -2);
    check("-3.5", -4, -4);
}

#[test]
fn a_percentage_of_an_amount_is_rounded_once() {
    let check = |minor: i128, percent: &str, half_up: i128, half_even: i128| {
        let eur = Currency::parse("EUR").unwrap();
        let of = |rounding| {
            Money { minor, currency: eur }.percent(Percent::parse(percent).unwrap(), rounding)
        };
        assert_eq!(Rounding::ALL.map(|rounding| of(rounding).unwrap().minor), [half_up, half_even]);
    };
    check(1_900, "12.5", 238, 238);
    check(100, "0.5", 1, 0);
    check(-100, "1.5", -2, -2);
    check(-100, "0.5", -1, 0);
    check(i128::MAX, "100", i128::MAX, i128::MAX);
}

#[test]
fn percentages_are_hundredths() {
    let check = |text: &str, expected: Result<(&str, &str), PriceError>| {
        let read = Percent::parse(text).map(|read| (read.to_string(), read.of_one().to_string()));
        let read = read.as_ref().map(|(percent, price)| (percent.as_str(), price.as_str()));
        assert_eq!(read, expected.as_ref().map(|pair| *pair), "{text}");
    };
    check("2.9", Ok(("2.9", "0.029")));
    check("100", Ok(("100", "1")));
    check("0.0000000001", Ok(("0.0000000001", "0.000000000001")));
    check("0.00000000001", Err(PriceError::TooPrecise));
    check("-1", Err(PriceError::Negative));
}

#[test]
fn currencies_are_those_of_iso_4217() {
    let places = |code: &str| Currency::parse(code).map(|currency| currency.places);
    assert_eq!(places("EUR"), Ok(2));
    assert_eq!(places("JPY"), Ok(0));
    assert_eq!(places("TND"), Ok(3));
    for code in ["", "eur", "EURO", "XXX", "ABC", "€", "USD EUR"] {
        assert!(places(code).is_err(), "{code}");
    }
}

#[test]
fn sums_refuse_to_overflow_or_to_mix() {
    let [eur, usd] = ["EUR", "USD"].map(|code| Currency::parse(code).unwrap());
    let money = |minor, currency| Money { minor, currency };
    assert_eq!(money(5, eur).checked_add(money(-7, eur)), Ok(money(-2, eur)));
    assert!(matches!(money(5, eur).checked_add(money(7, usd)), Err(MoneyError::Mixed { .. })));
    assert!(matches!(
        money(i128::MAX, eur).checked_add(money(1, eur)),
        Err(MoneyError::Overflow { .. })
    ));
    assert_eq!(money(-5, eur).to_string(), "-0.05 EUR");
}

proptest! {
    /// Where 128 bits suffice, the wide arithmetic agrees with the plain one.
    #[test]
    fn wide_arithmetic_agrees_with_128_bits(units in -1_000_000_000_000_i128..1_000_000_000_000, price_units in 0..1_000_000_000_000_i128) {
        let eur = Currency::parse("EUR").unwrap();
        let money = ExactAmount::product(Quantity(units), Price(price_units)).round(eur, Rounding::HalfUp).unwrap();
        let exact = units.abs() * price_units;
        let cent = 10_i128.pow(19);
        let expected = (exact + cent / 2) / cent * units.signum();
        prop_assert_eq!(money.minor, expected);
    }

    #[test]
    fn wide_division_undoes_multiplication(value in any::<u128>(), divisor in 1..1_u128 << 127, less in any::<u128>()) {
        let left = less % divisor;
        let wide = Wide::product(value, divisor);
        prop_assert_eq!(wide.div_rem(divisor), Some((value, 0)));
        let sum = wide.checked_add(Wide::product(left, 1)).unwrap();
        prop_assert_eq!(sum.div_rem(divisor), Some((value, left)));
        prop_assert_eq!(sum.checked_sub(wide), Some(Wide::product(left, 1)));
        prop_assert_eq!(wide.checked_sub(sum).is_some(), left == 0);
    }

    /// Sums of either sign, where 128 bits suffice.
    #[test]
    fn exact_sums_agree_with_128_bits(left in -1_000_000_i128..1_000_000, right in -1_000_000_i128..1_000_000) {
        let yen = Currency::parse("JPY").unwrap();
        let of = |whole: i128| ExactAmount::product(Quantity(whole * 1_000_000_000), price("1"));
        let sum = of(left).checked_add(of(right)).unwrap();
        prop_assert_eq!(sum.round(yen, Rounding::HalfEven).unwrap().minor, left + right);
    }

    /// However a whole is cut, its parts sum to it.
    #[test]
    fn shares_of_a_price_sum_to_it(units in 0..10_i128.pow(27), cut in 0_u32..=2_976) {
        let whole = NonZeroU32::new(2_976).unwrap();
        for (rounding, code) in [(Rounding::HalfUp, "EUR"), (Rounding::HalfEven, "JPY")] {
            let currency = Currency::parse(code).unwrap();
            let upto = |end| Price(units).share(end, whole, currency, rounding).unwrap();
            let second = upto(2_976).checked_sub(upto(cut)).unwrap();
            prop_assert_eq!(upto(cut).checked_add(second), Ok(upto(2_976)));
            prop_assert!(second.minor >= 0);
        }
    }

    #[test]
    fn any_text_is_judged_without_panic(text in ".*") {
        let _judged = Price::parse(&text);
    }
}
