//! Decimals: quantities and prices against a slow reader that knows nothing of theirs.
//!
//! [`units`] adds and multiplies one digit at a time in plain text. It shares no idea with the product's
//! readers: no fast path, no 128-bit arithmetic, no counting of significant digits.

use tidemark_collector::money::{PRICE_FRACTION_DIGITS_MAX, Price};
use tidemark_common::quantity::{FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX, Quantity, QuantityError};

pub fn check(input: &[u8]) {
    check_quantity(input);
    if let Ok(text) = str::from_utf8(input)
        && let Ok(price) = Price::parse(text)
    {
        let shown = price.to_string();
        assert_eq!(Price::parse(&shown), Ok(price), "{text:?} is shown as {shown}");
        let slow = units(input, INTEGER_DIGITS_MAX, PRICE_FRACTION_DIGITS_MAX);
        let again = units(shown.as_bytes(), INTEGER_DIGITS_MAX, PRICE_FRACTION_DIGITS_MAX);
        assert_eq!(slow, again, "{text:?} is shown as {shown}");
        assert!(slow.is_ok(), "{text:?} was taken as a price of {shown}");
    }
}

/// Whether `text` is read as the slow reader reads it.
///
/// # Panics
/// If it is not.
pub fn check_quantity(text: &[u8]) {
    let slow = units(text, INTEGER_DIGITS_MAX, FRACTION_DIGITS_MAX);
    let read = Quantity::parse(text).map(|quantity| quantity.0.to_string()).map_err(Refused::from);
    assert_eq!(read, slow, "{:?}", String::from_utf8_lossy(text));
    if let Ok(quantity) = Quantity::parse(text) {
        let shown = quantity.to_string();
        assert_eq!(Quantity::parse(shown.as_bytes()), Ok(quantity), "{shown}");
    }
}

/// Why a text is no decimal of so many digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    NotANumber,
    NotFinite,
    /// More integer digits or more fraction digits: a reader may name either where both are so.
    Digits,
}

impl From<QuantityError> for Refused {
    fn from(error: QuantityError) -> Self {
        match error {
            QuantityError::NotANumber => Self::NotANumber,
            QuantityError::NotFinite => Self::NotFinite,
            QuantityError::TooPrecise | QuantityError::TooLarge => Self::Digits,
        }
    }
}

/// The decimal in `text`, as the digits of an integer in units of 10^-`fraction_digits_max`.
///
/// # Errors
/// A text that is none, or has more digits than are allowed.
pub fn units(
    text: &[u8],
    integer_digits_max: usize,
    fraction_digits_max: usize,
) -> Result<String, Refused> {
    let text = str::from_utf8(text).map_err(|_| Refused::NotANumber)?;
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if ["nan", "inf", "infinity"].contains(&unsigned.to_ascii_lowercase().as_str()) {
        return Err(Refused::NotFinite);
    }
    let lower = unsigned.to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let exponent = whole(exponent).ok_or(Refused::NotANumber)?;
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: Vec<u8> = integer.bytes().chain(fraction.bytes()).collect();
    if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
        return Err(Refused::NotANumber);
    }
    // Where each digit stands: 0 for ones, 1 for tens, -1 for tenths.
    let top = i128::try_from(integer.len()).map_err(|_| Refused::Digits)? - 1 + exponent;
    let mut places = vec![b'0'; integer_digits_max + fraction_digits_max];
    for (index, digit) in all.iter().enumerate().filter(|(_, digit)| **digit != b'0') {
        let place = top - i128::try_from(index).map_err(|_| Refused::Digits)?;
        let from_left =
            i128::try_from(integer_digits_max).map_err(|_| Refused::Digits)? - 1 - place;
        let slot = usize::try_from(from_left).ok().and_then(|slot| places.get_mut(slot));
        *slot.ok_or(Refused::Digits)? = *digit;
    }
    let digits: String = places.into_iter().map(char::from).collect();
    let digits = match digits.trim_start_matches('0') {
        "" => "0",
        some => some,
    };
    let sign = if text.starts_with('-') && digits != "0" { "-" } else { "" };
    Ok(format!("{sign}{digits}"))
}

/// A whole number, held at a thousand million million either way: no text has as many digits.
fn whole(text: &str) -> Option<i128> {
    const FAR: i128 = 1_000_000_000_000_000;
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut value: i128 = 0;
    for digit in unsigned.bytes() {
        value = (value * 10 + i128::from(digit - b'0')).min(FAR);
    }
    Some(if text.starts_with('-') { -value } else { value })
}
