//! Exact numbers: decimal texts as rationals, and the few ways in which they are rounded.
//!
//! **Owns** reading and rounding of numbers. **Does not own** when a number is rounded.

use num_bigint::BigInt;
use num_rational::BigRational;

/// What becomes of a half; all else goes to the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Away from zero: 0.5 to 1, -0.5 to -1.
    HalfUp,
    /// To the even neighbour: 0.5 to 0, 1.5 to 2, -0.5 to 0.
    HalfEven,
}

impl Rounding {
    pub(super) fn of(half_even: bool) -> Self {
        if half_even { Self::HalfEven } else { Self::HalfUp }
    }

    /// `amount` of a currency with `places` fraction digits, in whole minor units.
    pub(super) fn minor_units(self, amount: &BigRational, places: u32) -> BigInt {
        self.whole(&(amount * power_of_ten(places)))
    }

    /// `value` with at most `places` fraction digits.
    pub(super) fn to_places(self, value: &BigRational, places: u32) -> BigRational {
        BigRational::from_integer(self.minor_units(value, places)) / power_of_ten(places)
    }

    fn whole(self, value: &BigRational) -> BigInt {
        let half = BigRational::new(BigInt::from(1), BigInt::from(2));
        let below = value.floor();
        let above = value.floor() + exact("1");
        let rest = value - &below;
        let up = if rest == half {
            match self {
                Self::HalfUp => *value > exact("0"),
                Self::HalfEven => below.to_integer() % 2 != BigInt::ZERO,
            }
        } else {
            rest > half
        };
        if up { above.to_integer() } else { below.to_integer() }
    }
}

/// The least number with at most `places` fraction digits that is not below `value`.
pub(super) fn ceil_to(value: &BigRational, places: u32) -> BigRational {
    (value * power_of_ten(places)).ceil() / power_of_ten(places)
}

/// A decimal text, `-12.50` or `7`, as the number that it writes.
///
/// # Panics
/// If it is no such text.
#[must_use]
pub fn exact(text: &str) -> BigRational {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    let unsigned = digits.strip_prefix('-').unwrap_or(&digits);
    let plain = !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    assert!(plain, "{text:?} is no decimal");
    let numerator: BigInt = digits.parse().expect("digits are a number");
    let places = u32::try_from(fraction.len()).expect("a short text");
    BigRational::from_integer(numerator) / power_of_ten(places)
}

/// An amount of minor units as a decimal text with all `places`, as the product writes it.
#[must_use]
pub fn written(minor: &BigInt, places: u32) -> String {
    let (sign, digits) = match minor.sign() {
        num_bigint::Sign::Minus => ("-", (-minor).to_string()),
        num_bigint::Sign::NoSign | num_bigint::Sign::Plus => ("", minor.to_string()),
    };
    let places = usize::try_from(places).expect("few places");
    let digits = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

fn power_of_ten(exponent: u32) -> BigRational {
    BigRational::from_integer(BigInt::from(10).pow(exponent))
}
