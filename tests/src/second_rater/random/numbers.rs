//! Decimal texts: few values often, all lengths of digits sometimes.
//!
//! **Owns** how a number is made up, within the digits that the document allows. **Does not own** what for.

use crate::random::Random;
use crate::second_rater::exact;

const PRICE_PLACES_MAX: u32 = 12;
const PRICE_INTEGER_DIGITS_MAX: u32 = 15;
const PERCENT_PLACES_MAX: u32 = 10;
const QUANTITY_PLACES_MAX: u32 = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Positive,
    /// Either, and 0.
    Any,
}

/// A unit price, a flat or the like, in a currency of `places`: often some halves of its minor unit.
pub(super) fn price(random: &mut Random, places: u32) -> String {
    match random.below(16) {
        0 => "0".to_owned(),
        1..8 => halves(random, 20, places),
        8 | 9 => random.below(13).to_string(),
        10 => digits(random, 2, places),
        11 | 12 => digits(random, 1, places + 2),
        13 | 14 => digits(random, 3, PRICE_PLACES_MAX),
        _ => digits(random, PRICE_INTEGER_DIGITS_MAX, PRICE_PLACES_MAX),
    }
}

/// A fee, a minimum or a maximum: large enough to count, and seldom with more digits than the currency has.
pub(super) fn amount(random: &mut Random, places: u32) -> String {
    match random.below(12) {
        0 => "0".to_owned(),
        1 | 2 => random.below(13).to_string(),
        3..7 => digits(random, 2, places),
        7 | 8 => halves(random, 200, places),
        9 | 10 => digits(random, 3, PRICE_PLACES_MAX),
        _ => digits(random, PRICE_INTEGER_DIGITS_MAX, PRICE_PLACES_MAX),
    }
}

/// `amount`, or `bound` if that is greater.
pub(super) fn at_least(amount: &str, bound: Option<&str>) -> String {
    match bound {
        Some(bound) if exact(bound) > exact(amount) => bound.to_owned(),
        _ => amount.to_owned(),
    }
}

pub(super) fn percent(random: &mut Random) -> String {
    match random.below(6) {
        0 => "0".to_owned(),
        1 => (random.below(8) * 25).to_string(),
        2 | 3 => halves(random, 8, 0),
        4 => digits(random, 1, 2),
        _ => digits(random, 2, PERCENT_PLACES_MAX),
    }
}

/// The quantity of an event, or one included.
pub(super) fn quantity(random: &mut Random, sign: Sign) -> String {
    let text = match random.below(12) {
        0..6 => random.below(13).to_string(),
        6 | 7 => scaled(random.below(26) * 5, 1),
        8 => digits(random, 2, 3),
        9 => digits(random, 1, QUANTITY_PLACES_MAX),
        10 => digits(random, 6, QUANTITY_PLACES_MAX),
        _ => digits(random, 4, 0),
    };
    let below_zero = sign == Sign::Any && random.below(2) == 0 && exact(&text) != exact("0");
    if below_zero { format!("-{text}") } else { text }
}

/// A tier's end or a package's size.
pub(super) fn positive(random: &mut Random) -> String {
    loop {
        let text = quantity(random, Sign::Positive);
        if exact(&text) > exact("0") {
            return text;
        }
    }
}

/// An odd number of halves of the minor unit of `places`.
fn halves(random: &mut Random, end: u64, places: u32) -> String {
    scaled((random.below(end) * 2 + 1) * 5, places + 1)
}

/// Up to so many integer digits, and exactly so many of a fraction, whose last may be 0.
fn digits(random: &mut Random, integer: u32, fraction: u32) -> String {
    let whole = random.below(10_u64.pow(integer));
    if fraction == 0 {
        return whole.to_string();
    }
    let part = random.below(10_u64.pow(fraction));
    format!("{whole}.{part:0width$}", width = usize::try_from(fraction).expect("few digits"))
}

/// `number / 10^places`, with all the places.
fn scaled(number: u64, places: u32) -> String {
    let unit = 10_u64.pow(places);
    let (whole, part) = (number / unit, number % unit);
    format!("{whole}.{part:0width$}", width = usize::try_from(places).expect("few digits"))
}
