//! Money: currencies, prices, exact amounts, and the one place that rounds.
//!
//! ```text
//! Quantity (10^-9) x Price (10^-12) = ExactAmount (10^-21, 256 bits) --round--> Money (minor units)
//! ```
//!
//! **Owns** every rounding of money: once for a line, in [`ExactAmount::round`] or [`Price::share`]; once
//! for a tax or a share of an amount, in [`Money::percent`] and its neighbours.
//! **Does not own** what is priced or which quantity: `rating` does.
//!
//! Invariants: no floats; a product is never cut short (the 256 bits hold any two 128-bit factors);
//! a sum says when it overflows and refuses to mix currencies.

mod currency;
mod price;
mod wide;

use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroU32;

use thiserror::Error;

use tidemark_common::quantity::Quantity;

pub use currency::{Currency, UnknownCurrency};
pub use price::{
    PERCENT_FRACTION_DIGITS_MAX, PRICE_FRACTION_DIGITS_MAX, PRICE_INTEGER_DIGITS_MAX, Percent,
    Price, PriceError,
};
use wide::Wide;

/// Decimal places of an [`ExactAmount`]: those of a quantity plus those of a price.
const EXACT_PLACES: u32 = 21;
/// Decimal places of a [`Price`].
const PRICE_PLACES: u32 = 12;

/// What becomes of half a minor unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rounding {
    /// It goes away from zero, so that a credit rounds as the charge that it takes back did.
    #[default]
    HalfUp,
    /// It goes to the even neighbour.
    HalfEven,
}

impl Rounding {
    pub const ALL: [Self; 2] = [Self::HalfUp, Self::HalfEven];

    /// The name, as the catalogue writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HalfUp => "half_up",
            Self::HalfEven => "half_even",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rounding| rounding.name() == name)
    }

    /// Whether a whole number goes up, given how its remainder compares with half of one.
    fn raises(self, whole: u128, remainder: Ordering) -> bool {
        match (remainder, self) {
            (Ordering::Less, _) => false,
            (Ordering::Equal, Self::HalfEven) => whole % 2 == 1,
            (Ordering::Equal, Self::HalfUp) | (Ordering::Greater, _) => true,
        }
    }
}

/// Failed to compute money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MoneyError {
    #[error("failed to round an amount: it exceeds what 128 bits of {currency} minor units hold")]
    TooLarge { currency: Currency },
    #[error("failed to add {left} and {right}: the sum exceeds 128 bits")]
    Overflow { left: Money, right: Money },
    #[error("failed to add {left} and {right}: they are of different currencies")]
    Mixed { left: Money, right: Money },
}

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is no amount of {currency}: write a decimal with at most {} places", currency.places)]
pub struct NotAnAmount {
    pub text: String,
    pub currency: Currency,
}

/// Prices times quantities, nothing rounded: magnitude in units of 10^-21.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExactAmount {
    negative: bool,
    magnitude: Wide,
}

impl ExactAmount {
    pub const ZERO: Self = Self { negative: false, magnitude: Wide::ZERO };

    /// `quantity` times `price`, exactly.
    #[must_use]
    pub fn product(quantity: Quantity, price: Price) -> Self {
        Self {
            negative: quantity.is_negative(),
            magnitude: Wide::product(quantity.0.unsigned_abs(), price.0.unsigned_abs()),
        }
    }

    /// The sum, or `None` beyond 256 bits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        if self.negative == other.negative {
            let magnitude = self.magnitude.checked_add(other.magnitude)?;
            return Some(Self { magnitude, ..self });
        }
        // The greater one has its way.
        match self.magnitude.checked_sub(other.magnitude) {
            Some(magnitude) => Some(Self { magnitude, ..self }),
            None => Some(Self { magnitude: other.magnitude.checked_sub(self.magnitude)?, ..other }),
        }
    }

    /// The amount in whole minor units of `currency`.
    ///
    /// # Errors
    /// The amount does not fit 128 bits of minor units.
    pub fn round(self, currency: Currency, rounding: Rounding) -> Result<Money, MoneyError> {
        let too_large = MoneyError::TooLarge { currency };
        // An exact amount has 21 places and no currency has more than 4.
        let one = 10_u128.pow(EXACT_PLACES.saturating_sub(currency.places));
        let (whole, remainder) = self.magnitude.div_rem(one).ok_or(too_large)?;
        let raised = rounding.raises(whole, remainder.saturating_mul(2).cmp(&one));
        Money::of(whole, raised, self.negative, currency)
    }
}

/// The shortest exact decimal.
impl fmt::Display for ExactAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((whole, fraction)) = self.magnitude.div_rem(10_u128.pow(EXACT_PLACES)) else {
            return f.write_str("beyond 128 bits");
        };
        let sign = if self.negative && (whole, fraction) != (0, 0) { "-" } else { "" };
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:021}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl Price {
    /// Numerator / denominator of the price, in whole minor units of `currency`.
    ///
    /// # Errors
    /// The amount does not fit 128 bits of minor units.
    pub fn share(
        self,
        numerator: u32,
        denominator: NonZeroU32,
        currency: Currency,
        rounding: Rounding,
    ) -> Result<Money, MoneyError> {
        let too_large = MoneyError::TooLarge { currency };
        // Below 10^27 * 2^32, and 2^32 * 10^12.
        let whole = self.0.unsigned_abs().checked_mul(numerator.into()).ok_or(too_large)?;
        let unit = 10_u128.pow(PRICE_PLACES.saturating_sub(currency.places));
        let one = unit.checked_mul(denominator.get().into()).ok_or(too_large)?;
        let (minor, remainder) =
            whole.checked_div(one).zip(whole.checked_rem(one)).ok_or(too_large)?;
        let raised = rounding.raises(minor, remainder.saturating_mul(2).cmp(&one));
        Money::of(minor, raised, false, currency)
    }
}

/// A whole number of a currency's minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    pub minor: i128,
    pub currency: Currency,
}

impl Money {
    /// Nothing, in `currency`.
    #[must_use]
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    fn of(
        whole: u128,
        raised: bool,
        negative: bool,
        currency: Currency,
    ) -> Result<Self, MoneyError> {
        let magnitude = whole.checked_add(u128::from(raised));
        let minor = magnitude.and_then(|magnitude| i128::try_from(magnitude).ok());
        let minor = minor.ok_or(MoneyError::TooLarge { currency })?;
        Ok(Self { minor: if negative { minor.saturating_neg() } else { minor }, currency })
    }

    /// The sum.
    ///
    /// # Errors
    /// Different currencies, or a sum beyond 128 bits.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed { left: self, right: other });
        }
        match self.minor.checked_add(other.minor) {
            Some(minor) => Ok(Self { minor, currency: self.currency }),
            None => Err(MoneyError::Overflow { left: self, right: other }),
        }
    }

    /// That many percent of it.
    ///
    /// # Errors
    /// A share beyond 128 bits.
    pub fn percent(self, percent: Percent, rounding: Rounding) -> Result<Self, MoneyError> {
        // A factor has the places of a price.
        self.fraction(percent.of_one().0.unsigned_abs(), 10_u128.pow(PRICE_PLACES), rounding)
    }

    /// How much of it is a percentage that it holds: p / (100 + p) of it.
    ///
    /// # Errors
    /// A share beyond 128 bits.
    pub fn percent_within(self, percent: Percent, rounding: Rounding) -> Result<Self, MoneyError> {
        let too_large = MoneyError::TooLarge { currency: self.currency };
        let factor = percent.of_one().0.unsigned_abs();
        let whole = 10_u128.pow(PRICE_PLACES).checked_add(factor).ok_or(too_large)?;
        self.fraction(factor, whole, rounding)
    }

    /// `numerator` / `denominator` of it, rounded.
    fn fraction(
        self,
        numerator: u128,
        denominator: u128,
        rounding: Rounding,
    ) -> Result<Self, MoneyError> {
        let (whole, remainder) = Wide::product(self.minor.unsigned_abs(), numerator)
            .div_rem(denominator)
            .ok_or(MoneyError::TooLarge { currency: self.currency })?;
        // A remainder is below the denominator, which is below 2^127.
        let raised = rounding.raises(whole, remainder.saturating_mul(2).cmp(&denominator));
        Self::of(whole, raised, self.minor < 0, self.currency)
    }

    /// Cuts it into shares by `weights`, whose sum it is a share of: what is due by each, less what was due by
    /// the ones before, so that the shares add up to it. All of it is the first's, if the weights come to nothing.
    ///
    /// # Errors
    /// Sums beyond 128 bits.
    pub fn spread(self, weights: &[i128], rounding: Rounding) -> Result<Vec<Self>, MoneyError> {
        let too_large = MoneyError::TooLarge { currency: self.currency };
        let add = |sum: i128, weight: &i128| sum.checked_add(*weight);
        let sum = weights.iter().try_fold(0, add).ok_or(too_large)?;
        let (mut until, mut given) = (0_i128, Self::zero(self.currency));
        let mut shares = Vec::with_capacity(weights.len());
        for weight in weights {
            until = until.checked_add(*weight).ok_or(too_large)?;
            let due = if sum == 0 {
                self
            } else {
                let (part, whole) = (until.unsigned_abs(), sum.unsigned_abs());
                let due = self.fraction(part, whole, rounding)?;
                if (until < 0) == (sum < 0) { due } else { due.negated() }
            };
            shares.push(due.checked_sub(given)?);
            given = due;
        }
        Ok(shares)
    }

    /// With the other sign.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { minor: self.minor.saturating_neg(), ..self }
    }

    /// Reads what [`Self::amount`] wrote: a decimal with no more places than the currency has.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, NotAnAmount> {
        let wrong = || NotAnAmount { text: text.to_owned(), currency };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let places = usize::try_from(currency.places).unwrap_or(0);
        let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let is_sound = !whole.is_empty()
            && is_plain(whole)
            && is_plain(fraction)
            && fraction.len() <= places
            && !digits.ends_with('.');
        if !is_sound {
            return Err(wrong());
        }
        let minor: i128 = format!("{whole}{fraction:0<places$}").parse().map_err(|_| wrong())?;
        let minor = if text.starts_with('-') { minor.saturating_neg() } else { minor };
        Ok(Self { minor, currency })
    }

    /// What is left without `other`.
    ///
    /// # Errors
    /// As [`Self::checked_add`].
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed { left: self, right: other });
        }
        match self.minor.checked_sub(other.minor) {
            Some(minor) => Ok(Self { minor, currency: self.currency }),
            None => Err(MoneyError::Overflow { left: self, right: other }),
        }
    }

    /// The number alone, with all the currency's decimal places: `12.30`.
    #[must_use]
    pub fn amount(&self) -> String {
        let sign = if self.minor < 0 { "-" } else { "" };
        let places = usize::try_from(self.currency.places).expect("at most 4 places");
        if places == 0 {
            return self.minor.to_string();
        }
        let digits =
            format!("{:0>width$}", self.minor.unsigned_abs(), width = places.saturating_add(1));
        let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places));
        format!("{sign}{whole}.{fraction}")
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency)
    }
}

#[cfg(test)]
mod tests;
