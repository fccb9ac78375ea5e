//! Exact numbers of any width: decimals as whole multiples of their last place, and the few ways in which they are
//! rounded.
//!
//! **Owns** reading, writing and rounding of numbers, and the minor units of currencies. **Does not own** when a number
//! is rounded. Integers have no largest value here, so nothing overflows.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "the integers are of any width, and every divisor is shown to be above 0"
)]

use num_bigint::{BigInt, Sign};

/// Places of a quantity, of a price, and of a percentage as written.
pub(super) const QUANTITY_PLACES: u32 = 9;
pub(super) const PRICE_PLACES: u32 = 12;
pub(super) const PERCENT_PLACES: u32 = 10;
/// Digits before the point, of what a plan may say.
const WHOLE_DIGITS_MAX: usize = 15;

/// Codes of ISO 4217 whose minor unit is no hundredth.
const NO_PLACES: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const THREE_PLACES: &str = "BHD IQD JOD KWD LYD OMR TND";
const FOUR_PLACES: &str = "CLF UYW";

/// What becomes of a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// It goes away from zero.
    HalfUp,
    /// It goes to the even neighbour.
    HalfEven,
}

impl Rounding {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "half_up" => Some(Self::HalfUp),
            "half_even" => Some(Self::HalfEven),
            _ => None,
        }
    }
}

/// `numerator` / `denominator`, to a whole number. A denominator of 0 or less is taken as 1: callers have none.
pub(super) fn round(numerator: &BigInt, denominator: &BigInt, rounding: Rounding) -> BigInt {
    let denominator = positive(denominator);
    let magnitude = BigInt::from(numerator.magnitude().clone());
    let (floor, rest) = (&magnitude / &denominator, &magnitude % &denominator);
    let twice = rest * 2;
    let is_odd = (&floor % 2) != BigInt::ZERO;
    let up = match rounding {
        Rounding::HalfUp => twice >= denominator,
        Rounding::HalfEven => twice > denominator || (twice == denominator && is_odd),
    };
    let rounded = if up { floor + 1 } else { floor };
    if numerator.sign() == Sign::Minus { -rounded } else { rounded }
}

/// The least whole number that is not below `numerator` / `denominator`.
pub(super) fn ceil(numerator: &BigInt, denominator: &BigInt) -> BigInt {
    let denominator = positive(denominator);
    let (quotient, rest) = (numerator / &denominator, numerator % &denominator);
    if rest > BigInt::ZERO { quotient + 1 } else { quotient }
}

fn positive(denominator: &BigInt) -> BigInt {
    if *denominator > BigInt::ZERO { denominator.clone() } else { BigInt::from(1) }
}

pub(super) fn add(left: &BigInt, right: &BigInt) -> BigInt {
    left + right
}

pub(super) fn subtract(left: &BigInt, right: &BigInt) -> BigInt {
    left - right
}

pub(super) fn multiply(left: &BigInt, right: &BigInt) -> BigInt {
    left * right
}

pub(super) fn negated(value: &BigInt) -> BigInt {
    -value
}

pub(super) fn sum<'a>(values: impl IntoIterator<Item = &'a BigInt>) -> BigInt {
    values.into_iter().sum()
}

pub(super) fn power_of_ten(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}

/// `digits[.digits]` as a multiple of 10^-places, not below 0; `None` for any other text, or more places.
pub(super) fn decimal(text: &str, places: u32) -> Option<BigInt> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let kept = fraction.trim_end_matches('0');
    let width = usize::try_from(places).ok()?;
    let is_sound = !whole.is_empty()
        && is_plain(whole)
        && is_plain(fraction)
        && whole.trim_start_matches('0').len() <= WHOLE_DIGITS_MAX
        && kept.len() <= width;
    is_sound.then(|| format!("{whole}{kept:0<width$}").parse().ok())?
}

/// The shortest decimal.
pub(super) fn shortest(value: &BigInt, places: u32) -> String {
    let text = with_places(value, places);
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}

/// With all places.
pub(super) fn with_places(value: &BigInt, places: u32) -> String {
    let sign = if value.sign() == Sign::Minus { "-" } else { "" };
    let places = usize::try_from(places).unwrap_or(0);
    let digits = format!("{:0>width$}", value.magnitude().to_string(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let point = if places == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// An amount with all places of its currency, in minor units; `None` for any other text.
pub(super) fn minor(text: &str, places: u32) -> Option<BigInt> {
    // 128 bits of minor units, a sign and a point.
    if text.len() > 48 {
        return None;
    }
    let digits: String = text.chars().filter(|letter| *letter != '.').collect();
    let value: BigInt = digits.parse().ok()?;
    (with_places(&value, places) == text).then_some(value)
}

/// A decimal in its shortest form, of either sign and any length that a sum has; `None` for any other text.
pub(super) fn signed(text: &str, places: u32) -> Option<BigInt> {
    if text.len() > 64 {
        return None;
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let width = usize::try_from(places).ok()?;
    let value: BigInt = format!("{whole}{fraction:0<width$}").parse().ok()?;
    (shortest(&value, places) == text).then_some(value)
}

/// Places of a currency's minor unit; `None` for what is no code.
pub(super) fn currency_places(code: &str) -> Option<u32> {
    let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_of = |list: &str| list.split(' ').any(|other| other == code);
    is_code.then(|| match () {
        () if is_of(NO_PLACES) => 0,
        () if is_of(THREE_PLACES) => 3,
        () if is_of(FOUR_PLACES) => 4,
        () => 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numerator: i64, denominator: i64, up: i64, even: i64) {
        let of = |rounding| round(&numerator.into(), &denominator.into(), rounding);
        assert_eq!((of(Rounding::HalfUp), of(Rounding::HalfEven)), (up.into(), even.into()));
    }

    #[test]
    fn places_are_those_of_the_product() {
        let letters = || b'A'..=b'Z';
        let codes = letters().flat_map(|a| {
            letters().flat_map(move |b| {
                letters().map(move |c| String::from_utf8(vec![a, b, c]).unwrap())
            })
        });
        let mut known = 0_u32;
        for code in codes {
            let Ok(currency) = crate::money::Currency::parse(&code) else { continue };
            let smallest = crate::money::Money { minor: 1, currency }.amount();
            let places = smallest.split_once('.').map_or(0, |(_, rest)| rest.len());
            assert_eq!(currency_places(&code), u32::try_from(places).ok(), "{code}");
            known = known.saturating_add(1);
        }
        assert!(known > 150, "{known}");
    }

    #[test]
    fn halves() {
        check(1, 2, 1, 0);
        check(3, 2, 2, 2);
        check(-1, 2, -1, 0);
        check(-3, 2, -2, -2);
        check(7, 5, 1, 1);
        check(-8, 5, -2, -2);
        assert_eq!(ceil(&21.into(), &10.into()), 3.into());
        assert_eq!(ceil(&(-29).into(), &10.into()), (-2).into());
        assert_eq!(ceil(&(-30).into(), &10.into()), (-3).into());
    }

    #[test]
    fn texts() {
        assert_eq!(decimal("0012.5000", 2), Some(1250.into()));
        for text in ["", ".5", "1.", "-1", "1e3", "1.005", "1234567890123456", "1 "] {
            assert_eq!(decimal(text, 2), None, "{text}");
        }
        assert_eq!(shortest(&(-12_500).into(), 3), "-12.5");
        assert_eq!(shortest(&12_000.into(), 3), "12");
        assert_eq!(with_places(&(-5).into(), 2), "-0.05");
        assert_eq!(minor("-0.05", 2), Some((-5).into()));
        assert_eq!(minor("7", 0), Some(7.into()));
        for text in
            ["-0.00", "+1.00", "1.0", "01.00", "1.000", "1", "", "--1.00", "1_0.00", "0.1.0"]
        {
            assert_eq!(minor(text, 2), None, "{text}");
        }
    }
}
