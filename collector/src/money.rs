//! Money: currencies, unit prices, exact amounts, and the one place that rounds.
//!
//! ```text
//! Quantity (10^-9) x UnitPrice (10^-12) = ExactAmount (10^-21, 256 bits) --round--> Money (minor units)
//! ```
//!
//! **Owns** every rounding of money: half away from zero, once, in [`ExactAmount::round`].
//! **Does not own** what is priced or which quantity: `rating` does.
//!
//! Invariants: no floats; a product is never cut short (the 256 bits hold any two 128-bit factors);
//! a sum says when it overflows and refuses to mix currencies.

mod wide;

use std::fmt;

use thiserror::Error;

use tidemark_common::quantity::Quantity;

use wide::Wide;

/// A unit price has at most this many fraction digits.
pub const PRICE_FRACTION_DIGITS_MAX: usize = 12;
/// A unit price has at most this many integer digits.
pub const PRICE_INTEGER_DIGITS_MAX: usize = 15;

/// Decimal places of an [`ExactAmount`]: those of a quantity plus those of a price.
const EXACT_PLACES: u32 = 21;

/// Active codes of ISO 4217 whose minor unit is not a hundredth, with their decimal places.
const OTHER_MINOR_UNITS: [(&str, u32); 26] = [
    ("BHD", 3),
    ("BIF", 0),
    ("CLF", 4),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("IQD", 3),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("PYG", 0),
    ("RWF", 0),
    ("TND", 3),
    ("UGX", 0),
    ("UYI", 0),
    ("UYW", 4),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
    ("XOF", 0),
    ("XPF", 0),
];

/// Active codes of ISO 4217 with hundredths, in groups of three letters.
const HUNDREDTHS: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN \
    BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP \
    GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA \
    MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON \
    RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH \
    USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG";

/// A currency of ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: [u8; 3],
    places: u32,
}

/// Why a text is no currency.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code:?} is not an active currency code of ISO 4217")]
pub struct UnknownCurrency {
    pub code: String,
}

impl Currency {
    /// Reads a code in capital letters (`EUR`).
    ///
    /// # Errors
    /// A code that ISO 4217 does not list as active.
    pub fn parse(text: &str) -> Result<Self, UnknownCurrency> {
        let unknown = || UnknownCurrency { code: text.to_owned() };
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| unknown())?;
        let places = match OTHER_MINOR_UNITS.iter().find(|(other, _)| *other == text) {
            Some((_, places)) => *places,
            None if HUNDREDTHS.split_ascii_whitespace().any(|other| other == text) => 2,
            None => return Err(unknown()),
        };
        Ok(Self { code, places })
    }

    /// The three letters.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.code).expect("a code was parsed from ASCII letters")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What one unit of a meter costs, in units of 10^-12 of the currency; not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitPrice(i128);

/// Why a text is no unit price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PriceError {
    #[error("is not a plain decimal number such as \"0.002\"")]
    NotANumber,
    #[error("is negative")]
    Negative,
    #[error("has more than 12 fraction digits")]
    TooPrecise,
    #[error("has more than 15 integer digits")]
    TooLarge,
}

impl UnitPrice {
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
impl fmt::Display for UnitPrice {
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

/// A price times a quantity, nothing rounded: magnitude in units of 10^-21.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExactAmount {
    negative: bool,
    magnitude: Wide,
}

impl ExactAmount {
    /// `quantity` times `unit_price`, exactly.
    #[must_use]
    pub fn product(quantity: Quantity, unit_price: UnitPrice) -> Self {
        Self {
            negative: quantity.is_negative(),
            magnitude: Wide::product(quantity.0.unsigned_abs(), unit_price.0.unsigned_abs()),
        }
    }

    /// The amount in whole minor units of `currency`. Half a minor unit goes away from zero, so that
    /// a credit rounds as the charge that it takes back did.
    ///
    /// # Errors
    /// The amount does not fit 128 bits of minor units.
    pub fn round(self, currency: Currency) -> Result<Money, MoneyError> {
        let too_large = MoneyError::TooLarge { currency };
        // An exact amount has 21 places and no currency has more than 4.
        let dropped = EXACT_PLACES.saturating_sub(currency.places);
        let half = 5_u128.saturating_mul(10_u128.pow(dropped.saturating_sub(1)));
        let raised = self.magnitude.checked_add(half).ok_or(too_large)?;
        let magnitude = raised.shifted_right_by_digits(dropped).to_u128().ok_or(too_large)?;
        let minor = i128::try_from(magnitude).map_err(|_| too_large)?;
        Ok(Money { minor: if self.negative { minor.saturating_neg() } else { minor }, currency })
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
