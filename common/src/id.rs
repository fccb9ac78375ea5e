//! Names and numbers that both ends exchange: one newtype each, parsed once.
//!
//! **Owns** the rules of what a valid name is. **Does not own** where a name comes from.
//!
//! Limits: a meter 64 bytes, a customer 128, a dimension's name 64 and value 128.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A meter's name is at most this many bytes.
pub const METER_BYTES_MAX: usize = 64;
/// A customer's name is at most this many bytes.
pub const CUSTOMER_BYTES_MAX: usize = 128;
/// A dimension's name is at most this many bytes.
pub const DIMENSION_NAME_BYTES_MAX: usize = 64;
/// A dimension's value is at most this many bytes.
pub const DIMENSION_VALUE_BYTES_MAX: usize = 128;
/// A usage event, and a batch line, carries at most this many dimensions.
pub const DIMENSIONS_MAX: usize = 16;

/// Why a text is not a valid name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("is empty")]
    Empty,
    #[error("is {bytes} bytes long; at most {bytes_max} are allowed")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("holds {found:?}, which is not allowed there")]
    Character { found: char },
    #[error("is not 32 hexadecimal digits")]
    NotHex,
}

/// Declares a random 128-bit id that prints as 32 hexadecimal digits.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                crate::hex::decode_array(text).map(Self).ok_or(NameError::NotHex)
            }
        }
    };
}

random_id! {
    /// One life of one journal. Random, made with the journal, never reused.
    StreamId
}
random_id! {
    /// One process's use of a journal: a random nonce written before its first append.
    OpeningId
}
random_id! {
    /// One ledger. A journal pins the first that it hears from and ships to no other.
    LedgerId
}

/// The SHA-256 digest of a batch's header, or the genesis digest that a stream starts from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A batch's number in its stream: from 1, without holes. 0 stands for "before the first".
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Before the first batch of a stream.
    pub const ZERO: Self = Self(0);

    /// The sequence after this one.
    ///
    /// # Panics
    /// After 2^64 - 1 batches, which no stream lives to see.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a stream never numbers 2^64 batches"))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A usage event's number in its stream: from 0, in the order of acceptance, across openings.
/// As an end of a range it is also the count of events accepted before it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct EventNumber(pub u64);

impl EventNumber {
    /// The number `events` later.
    ///
    /// # Panics
    /// After 2^64 - 1 events.
    #[must_use]
    pub fn plus(self, events: u64) -> Self {
        Self(self.0.checked_add(events).expect("a stream never accepts 2^64 events"))
    }
}

impl fmt::Display for EventNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a session holds of a stream: the ledger's incarnation in the high 32 bits, a counter in the
/// low ones, raised by the collector at each Hello. A session with a lower one is refused.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The version of the collector's rules that a batch was made under. 0: none known yet.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RulesVersion(pub u64);

impl fmt::Display for RulesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is measured. `[a-z][a-z0-9_.-]*`, 1-64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MeterName(Arc<str>);

impl MeterName {
    /// # Errors
    /// Says what about `text` is not a meter's name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, METER_BYTES_MAX)?;
        for (index, found) in text.char_indices() {
            let allowed = match found {
                'a'..='z' => true,
                '0'..='9' | '_' | '.' | '-' => index > 0,
                _ => false,
            };
            if !allowed {
                return Err(NameError::Character { found });
            }
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MeterName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<MeterName> for String {
    fn from(name: MeterName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for MeterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who is billed. 1-128 bytes of printable UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CustomerId(Arc<str>);

impl CustomerId {
    /// # Errors
    /// Says what about `text` is not a customer's name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, CUSTOMER_BYTES_MAX)?;
        check_printable(text)?;
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CustomerId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<CustomerId> for String {
    fn from(name: CustomerId) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a dimension's name: 1-64 bytes of printable UTF-8.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_dimension_name(text: &str) -> Result<(), NameError> {
    check_length(text, DIMENSION_NAME_BYTES_MAX)?;
    check_printable(text)
}

/// Checks a dimension's value: 0-128 bytes of printable UTF-8.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_dimension_value(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Ok(());
    }
    check_length(text, DIMENSION_VALUE_BYTES_MAX)?;
    check_printable(text)
}

fn check_length(text: &str, bytes_max: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        bytes if bytes > bytes_max => Err(NameError::TooLong { bytes, bytes_max }),
        _ => Ok(()),
    }
}

/// Printable: no control characters (C0, DEL, C1).
fn check_printable(text: &str) -> Result<(), NameError> {
    match text.chars().find(|character| character.is_control()) {
        Some(found) => Err(NameError::Character { found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meter_names() {
        for good in ["a", "api.calls", "x-1_y.z", &"a".repeat(64)] {
            assert!(MeterName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", ".a", "a b", "é", &"a".repeat(65)] {
            assert!(MeterName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn customers() {
        for good in ["a", "Acme Ltd.", "客户", &"x".repeat(128)] {
            assert!(CustomerId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "\u{7f}", "\u{85}", &"x".repeat(129)] {
            assert!(CustomerId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn dimension_value_may_be_empty_but_its_name_not() {
        assert_eq!(check_dimension_value(""), Ok(()));
        assert_eq!(check_dimension_name(""), Err(NameError::Empty));
    }

    #[test]
    fn random_ids_print_and_parse() {
        let id = StreamId([0x0a; 16]);
        assert_eq!(id.to_string(), "0a".repeat(16));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("zz".repeat(16).parse::<StreamId>(), Err(NameError::NotHex));
    }
}
