//! Exact amounts of usage: integers of 10^-9, never floats.
//!
//! **Owns** reading a decimal from text without rounding, and sums that say when they overflow.
//! One quantity has at most 15 integer and 9 fraction digits; a sum of quantities may be larger.

use std::fmt;

use thiserror::Error;

/// Units in one: a quantity is held in billionths.
pub const UNITS_PER_ONE: i128 = 1_000_000_000;
/// A quantity has at most this many integer digits.
pub const INTEGER_DIGITS_MAX: usize = 15;
/// A quantity has at most this many fraction digits.
pub const FRACTION_DIGITS_MAX: usize = 9;

/// A quantity lies strictly between this many units and as many below zero.
pub const UNITS_LIMIT: i128 = 1_000_000_000_000_000 * UNITS_PER_ONE;

/// An exact amount of usage in units of 10^-9.
///
/// Read from text it lies strictly between -10^15 and 10^15; as a sum it may be anything that 128
/// bits hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(pub i128);

/// Why a text is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QuantityError {
    #[error("is not a decimal number")]
    NotANumber,
    #[error("is not a finite number")]
    NotFinite,
    #[error("has more than 9 fraction digits")]
    TooPrecise,
    #[error("has more than 15 integer digits")]
    TooLarge,
}

impl Quantity {
    pub const ZERO: Self = Self(0);
    pub const ONE: Self = Self(UNITS_PER_ONE);

    /// Reads `[+-]digits[.digits][(e|E)[+-]digits]` exactly.
    ///
    /// # Errors
    /// Names what keeps `text` from being an exact quantity; nothing is ever rounded.
    pub fn parse(text: &[u8]) -> Result<Self, QuantityError> {
        let (negative, unsigned) = split_sign(text);
        if is_not_finite(unsigned) {
            return Err(QuantityError::NotFinite);
        }
        let units = match plain_integer(unsigned) {
            Some(integer) => integer.checked_mul(UNITS_PER_ONE).ok_or(QuantityError::TooLarge)?,
            None => scientific(unsigned)?,
        };
        if units >= UNITS_LIMIT {
            return Err(QuantityError::TooLarge);
        }
        Ok(Self(if negative { units.wrapping_neg() } else { units }))
    }

    /// A whole amount.
    #[must_use]
    pub fn whole(amount: u32) -> Self {
        Self(i128::from(amount).saturating_mul(UNITS_PER_ONE))
    }

    /// The sum, or `None` where 128 bits cannot hold it.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// The shortest exact decimal: no exponent, no trailing zeros.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let one = UNITS_PER_ONE.unsigned_abs();
        let (whole, fraction) = (units.div_euclid(one), units.rem_euclid(one));
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:09}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

fn is_not_finite(unsigned: &[u8]) -> bool {
    [&b"nan"[..], b"inf", b"infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word))
}

/// The fast path: 1 to 18 digits and nothing else.
fn plain_integer(digits: &[u8]) -> Option<i128> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // 18 digits stay below 10^18, which 64 bits hold.
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')));
    }
    Some(i128::from(value))
}

/// Reads digits with an optional fraction and exponent, exactly, into units of 10^-9.
fn scientific(unsigned: &[u8]) -> Result<i128, QuantityError> {
    let (mantissa, exponent) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&unsigned[..at], read_exponent(&unsigned[at.saturating_add(1)..])?),
        None => (unsigned, 0),
    };
    let (integer, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at.saturating_add(1)..]),
        None => (mantissa, &[][..]),
    };
    if integer.is_empty() && fraction.is_empty() {
        return Err(QuantityError::NotANumber);
    }
    let digits: Vec<u8> = integer.iter().chain(fraction).copied().collect();
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(QuantityError::NotANumber);
    }
    let fraction_length = i64::try_from(fraction.len()).map_err(|_| QuantityError::TooPrecise)?;
    place(&digits, exponent.saturating_sub(fraction_length))
}

/// `digits` * 10^`scale` in units of 10^-9; zeros at either end cost no digits.
fn place(digits: &[u8], scale: i64) -> Result<i128, QuantityError> {
    let start = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    let end = digits
        .iter()
        .rposition(|digit| *digit != b'0')
        .map_or(start, |last| last.saturating_add(1));
    let significant = &digits[start..end.max(start)];
    if significant.is_empty() {
        return Ok(0);
    }
    let trailing =
        i64::try_from(digits.len().saturating_sub(end)).map_err(|_| QuantityError::TooLarge)?;
    let scale = scale.saturating_add(trailing);
    let length = i64::try_from(significant.len()).map_err(|_| QuantityError::TooPrecise)?;
    if length.saturating_add(scale) > 15 {
        return Err(QuantityError::TooLarge);
    }
    let Ok(shift) = u32::try_from(scale.saturating_add(9)) else {
        return Err(QuantityError::TooPrecise);
    };
    // At most 15 integer and 9 fraction digits remain: below 10^24, which 128 bits hold.
    let value = significant.iter().fold(0_i128, |value, digit| {
        value.wrapping_mul(10).wrapping_add(i128::from(digit.wrapping_sub(b'0')))
    });
    value.checked_mul(10_i128.pow(shift)).ok_or(QuantityError::TooLarge)
}

/// An exponent far beyond any quantity is held at a bound, which the digits' check then refuses.
fn read_exponent(text: &[u8]) -> Result<i64, QuantityError> {
    let (negative, digits) = split_sign(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(QuantityError::NotANumber);
    }
    let value = digits.iter().fold(0_i64, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(i64::from(digit.wrapping_sub(b'0')))
            .min(1_000_000_000)
    });
    Ok(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&str, QuantityError>) {
        let read = Quantity::parse(text.as_bytes()).map(|quantity| quantity.to_string());
        assert_eq!(read.as_deref(), expected.as_ref().map(|text| &**text), "{text}");
    }

    #[test]
    fn exact_decimals() {
        check("3", Ok("3"));
        check("-0", Ok("0"));
        check("+1.50", Ok("1.5"));
        check(".5", Ok("0.5"));
        check("5.", Ok("5"));
        check("1e3", Ok("1000"));
        check("1.25E-2", Ok("0.0125"));
        check("0.000000001", Ok("0.000000001"));
        check("999999999999999.999999999", Ok("999999999999999.999999999"));
        check("-999999999999999", Ok("-999999999999999"));
        check("0000000000000000000000001", Ok("1"));
        check("1.000000000000000000", Ok("1"));
        check("10e-10", Ok("0.000000001"));
        check("0e999999999999", Ok("0"));
    }

    #[test]
    fn refused_decimals() {
        use QuantityError::{NotANumber, NotFinite, TooLarge, TooPrecise};
        for text in
            ["", "-", ".", "e5", "1e", "1e+", "--1", "1,5", "0x10", "1_000", " 1", "1 ", "١"]
        {
            check(text, Err(NotANumber));
        }
        for text in ["NaN", "-inf", "Infinity"] {
            check(text, Err(NotFinite));
        }
        for text in ["0.0000000001", "1e-10", "1e-999999999999"] {
            check(text, Err(TooPrecise));
        }
        for text in ["1000000000000000", "1e15", "1e999999999999", "99999999999999999999"] {
            check(text, Err(TooLarge));
        }
    }

    #[test]
    fn fifteen_and_nine_digits_survive_millions_of_additions() {
        let one = Quantity::parse(b"999999999999999.999999999").unwrap();
        let mut sum = Quantity::ZERO;
        for _ in 0..2_000_000 {
            sum = sum.checked_add(one).unwrap();
        }
        assert_eq!(sum.to_string(), "1999999999999999999999.998");
    }

    #[test]
    fn overflow_is_told() {
        assert_eq!(Quantity(i128::MAX).checked_add(Quantity(1)), None);
    }

    proptest! {
        #[test]
        fn printed_quantities_read_back(units in -(UNITS_LIMIT - 1)..UNITS_LIMIT) {
            let quantity = Quantity(units);
            prop_assert_eq!(Quantity::parse(quantity.to_string().as_bytes()), Ok(quantity));
        }

        #[test]
        fn any_bytes_are_judged_without_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _judged = Quantity::parse(&text);
        }
    }
}
