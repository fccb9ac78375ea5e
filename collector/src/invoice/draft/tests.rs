//! Taxes of several rates, inclusive and not; discounts on them; nothing lost in between.

use super::super::tax::Treatment;
use super::*;
use crate::catalog::seller::Tax;
use crate::money::{Percent, Rounding};

fn eur(minor: i128) -> Money {
    Money { minor, currency: Currency::parse("EUR").unwrap() }
}

fn tax(percent: &str, inclusive: bool) -> Tax {
    let percent = Percent::parse(percent).unwrap();
    Tax { name: "t".to_owned(), label: "T".to_owned(), percent, inclusive }
}

/// Minor units at a rate -> net and tax.
fn check(minor: i128, percent: &str, inclusive: bool, rounding: Rounding, expected: (i128, i128)) {
    let tax = tax(percent, inclusive);
    let line = Treatment::Taxed(&tax).of(eur(minor), rounding).unwrap();
    assert_eq!((line.net.minor, line.tax.minor), expected, "{minor} {percent}");
}

#[test]
fn a_tax_is_rounded_once() {
    let (up, even) = (Rounding::HalfUp, Rounding::HalfEven);
    check(10_000, "19", false, up, (10_000, 1_900));
    check(50, "5", false, up, (50, 3));
    check(50, "5", false, even, (50, 2));
    check(-50, "5", false, up, (-50, -3));
    // 11900 * 19 / 119, and 105 * 5 / 105.
    check(11_900, "19", true, up, (10_000, 1_900));
    check(105, "5", true, up, (100, 5));
    check(1, "19", true, up, (1, 0));
    check(-11_900, "19", true, up, (-10_000, -1_900));
    check(0, "19", true, up, (0, 0));
    check(10_000, "0", true, up, (10_000, 0));
}

#[test]
fn shares_add_up_whatever_the_weights() {
    let check = |whole: i128, weights: &[i128], expected: &[i128]| {
        let shares = eur(whole).spread(weights, Rounding::HalfUp).unwrap();
        let shares: Vec<i128> = shares.iter().map(|share| share.minor).collect();
        assert_eq!(shares, expected);
        assert_eq!(shares.iter().sum::<i128>(), if weights.is_empty() { 0 } else { whole });
    };
    check(100, &[1, 1, 1], &[33, 34, 33]);
    check(-100, &[1, 1, 1], &[-33, -34, -33]);
    check(100, &[0, 0], &[100, 0]);
    check(100, &[5, -5], &[100, 0]);
    check(100, &[-1, -3], &[25, 75]);
    check(100, &[3, -1], &[150, -50]);
    check(7, &[], &[]);
}
