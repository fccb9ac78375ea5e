//! Prices: decimals of a currency, exact.

use std::fmt;

use thiserror::Error;

/// A price has at most this many fraction digits.
pub const PRICE_FRACTION_DIGITS_MAX: usize = 12;
/// A price has at most this many integer digits.
pub const PRICE_INTEGER_DIGITS_MAX: usize = 15;

/// What one unit, a package, a month costs: in units of 10^-12 of the currency; not negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(pub(super) i128);

/// Why a text is no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PriceError {
    #[error("is not a plain decimal number such as \"0.002\"")]
    NotANumber,
    #[error("is negative")]
    Negative,
    #[error("has too many fraction digits")]
    TooPrecise,
    #[error("has more than 15 integer digits")]
    TooLarge,
}

impl Price {
    /// Reads `digits[.digits]` exactly.
    ///
    /// # Errors
    /// Names what keeps `text` from being an exact price; nothing is rounded.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        if text.starts_with('-') {
            return Err(PriceError::Negative);
        }
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) | Some(("", _)) => return Err(PriceError::NotANumber),
            Some(parts) => parts,
            None => (text, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return Err(PriceError::NotANumber);
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        if whole.len() > PRICE_INTEGER_DIGITS_MAX {
            return Err(PriceError::TooLarge);
        }
        if fraction.len() > PRICE_FRACTION_DIGITS_MAX {
            return Err(PriceError::TooPrecise);
        }
        let padded = format!("{whole}{fraction:0<12}");
        padded.parse().map(Self).map_err(|_| PriceError::NotANumber)
    }
}

/// The shortest exact decimal: no trailing zeros.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = 10_i128.pow(12);
        let (whole, fraction) = (self.0.div_euclid(one), self.0.rem_euclid(one));
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:012}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// A percentage, in units of 10^-10 of one; not negative. As a factor it is a price of 10^-12 for each unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(Price);

/// A percentage has at most this many fraction digits.
pub const PERCENT_FRACTION_DIGITS_MAX: usize = 10;

impl Percent {
    pub const HUNDRED: Self = Self(Price(1_000_000_000_000));

    /// Reads `digits[.digits]` exactly: "2.9".
    ///
    /// # Errors
    /// As [`Price::parse`], with two fraction digits less.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let Price(units) = Price::parse(text)?;
        match (units.checked_div(100), units.checked_rem(100)) {
            (Some(factor), Some(0)) => Ok(Self(Price(factor))),
            _ => Err(PriceError::TooPrecise),
        }
    }

    /// What one unit costs.
    #[must_use]
    pub fn of_one(self) -> Price {
        self.0
    }
}

impl Percent {
    /// Nothing.
    pub const ZERO: Self = Self(Price(0));
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At most 10^25 units.
        write!(f, "{}", Price(self.0.0.saturating_mul(100)))
    }
}
