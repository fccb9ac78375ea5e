//! One line of a body: what was used of a meter, by a customer, under dimensions, in a bucket.
//!
//! ```text
//! key    meter str, customer str, n u8, n * (dimension name str, value str) by name ascending,
//!        bucket u32, part u16 (from 0; more when a line had to be split)
//! value  count u64, events with a quantity u64, events with a unique value u64,
//!        sum i128, min i128, max i128 (units of 10^-9; zeros without a quantity),
//!        latest time i64 (unix ms), latest quantity i128,
//!        key id u16, n u32, n * unique digest [16] ascending
//! ```
//!
//! The key without bucket and part is the *series*. Keys are compared as bytes.
//!
//! **Owns** the bytes of a line, and what holds together in it. **Does not own** the order of lines, or
//! how usage is folded into one.

use std::sync::Arc;

use thiserror::Error;

use crate::id::{self, CustomerId, DIMENSIONS_MAX, MeterName, NameError};
use crate::quantity::{Quantity, UNITS_LIMIT};
use crate::time::{Bucket, Timestamp};

use super::bytes::{Fields, put_str};

/// Dimension names and values, ascending by name, no name twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dimensions(Arc<[(Arc<str>, Arc<str>)]>);

/// What a line counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineKey {
    pub meter: MeterName,
    pub customer: CustomerId,
    pub dimensions: Dimensions,
    pub bucket: Bucket,
    /// From 0; more where a line was split because its sum would have overflowed.
    pub part: u16,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineValue {
    pub events: u64,
    /// Events that carry a quantity, and events that carry a unique value.
    pub quantity_events: u64,
    pub unique_events: u64,
    /// Zeros without a quantity.
    pub sum: Quantity,
    pub min: Quantity,
    pub max: Quantity,
    /// The greatest (time, quantity).
    pub latest_time: Timestamp,
    pub latest: Quantity,
    /// The id of the key that unique values were digested with.
    pub unique_key: u16,
    /// Digests of unique values, strictly ascending.
    pub uniques: Vec<[u8; 16]>,
}

/// One line of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub key: LineKey,
    pub value: LineValue,
}

/// Why bytes are not a line, or values do not make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LineError {
    #[error("it ends within {field}")]
    Truncated { field: &'static str },
    #[error("{field} is not UTF-8")]
    NotUtf8 { field: &'static str },
    #[error("{field} {error}")]
    Name { field: &'static str, error: NameError },
    #[error("it has {dimensions} dimensions; at most {DIMENSIONS_MAX} are allowed")]
    TooManyDimensions { dimensions: usize },
    #[error("the name of dimension {index} does not come after the one before")]
    DimensionOrder { index: usize },
    #[error("unique digest {index} does not come after the one before")]
    UniqueOrder { index: usize },
    #[error(
        "of {events} events, {quantity_events} carry a quantity and {unique_events} a unique value"
    )]
    Events { events: u64, quantity_events: u64, unique_events: u64 },
    #[error("its events hold {quantity}, which is more than a quantity can be")]
    Quantity { quantity: Quantity },
    #[error("{quantity_events} quantities of {min} to {max} do not add up to {sum}")]
    Sum { quantity_events: u64, sum: Quantity, min: Quantity, max: Quantity },
    #[error("its latest quantity {latest} is not between {min} and {max}")]
    Latest { latest: Quantity, min: Quantity, max: Quantity },
    #[error("{unique_events} events with a unique value have {uniques} different ones")]
    Uniques { unique_events: u64, uniques: usize },
    #[error("its least quantity {min} is above its greatest {max}")]
    MinMax { min: Quantity, max: Quantity },
    #[error("it has no events with a quantity, but a sum of {sum}, {min} to {max}")]
    NoQuantity { sum: Quantity, min: Quantity, max: Quantity },
    #[error("{bytes} bytes follow it")]
    Trailing { bytes: usize },
}

impl Dimensions {
    /// # Errors
    /// Too many, an invalid name or value, or names that do not ascend.
    pub fn new(pairs: Vec<(Arc<str>, Arc<str>)>) -> Result<Self, LineError> {
        if pairs.len() > DIMENSIONS_MAX {
            return Err(LineError::TooManyDimensions { dimensions: pairs.len() });
        }
        let mut before: Option<&str> = None;
        for (index, (name, value)) in pairs.iter().enumerate() {
            let named = |field| move |error| LineError::Name { field, error };
            id::check_dimension_name(name).map_err(named(DIMENSION_NAME))?;
            id::check_dimension_value(value).map_err(named(DIMENSION_VALUE))?;
            if before.is_some_and(|before| before >= &**name) {
                return Err(LineError::DimensionOrder { index });
            }
            before = Some(name);
        }
        Ok(Self(pairs.into()))
    }

    /// (name, value), ascending by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of the dimension `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(held, _)| *held == name).map(|(_, value)| value)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A line's key up to its bucket. `dimensions` ascend by name.
///
/// # Panics
/// With a name or value beyond 65,535 bytes or more than 255 dimensions, which nothing valid has.
#[must_use]
pub fn series_bytes(meter: &str, customer: &str, dimensions: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    put_series(&mut bytes, meter, customer, dimensions.iter().copied());
    bytes
}

/// Reads what [`series_bytes`] wrote.
///
/// # Errors
/// Says what is not a series there; trailing bytes are.
pub fn parse_series(bytes: &[u8]) -> Result<(MeterName, CustomerId, Dimensions), LineError> {
    let mut fields = Fields(bytes);
    let series = read_series(&mut fields, None)?;
    match fields.0.len() {
        0 => Ok(series),
        bytes => Err(LineError::Trailing { bytes }),
    }
}

impl LineKey {
    /// The key's bytes up to its bucket.
    #[must_use]
    pub fn series(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        put_series(&mut bytes, self.meter.as_str(), self.customer.as_str(), self.dimensions.iter());
        bytes
    }
}

impl Line {
    /// The line's bytes, as a proof shows them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.key.series();
        put_key_end(&mut bytes, self.key.bucket, self.key.part);
        self.value.put(&mut bytes);
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Names the first thing that no line holds.
    pub fn decode(bytes: &[u8]) -> Result<Self, LineError> {
        Self::decode_after(bytes, None).map(|(line, _)| line)
    }

    /// The line, and how many of its bytes are its key. Names that `before` holds too are shared.
    pub(super) fn decode_after(
        bytes: &[u8],
        before: Option<&LineKey>,
    ) -> Result<(Self, usize), LineError> {
        let mut fields = Fields(bytes);
        let (meter, customer, dimensions) = read_series(&mut fields, before)?;
        let bucket = Bucket(fields.u32().ok_or(LineError::Truncated { field: "its bucket" })?);
        let part = fields.u16().ok_or(LineError::Truncated { field: "its part" })?;
        let key_length = bytes.len().saturating_sub(fields.0.len());
        let value = LineValue::read(&mut fields)?;
        value.check()?;
        Ok((Self { key: LineKey { meter, customer, dimensions, bucket, part }, value }, key_length))
    }
}

impl LineValue {
    /// Whether the counts and quantities hold together: what sealing asserts and reading refuses.
    ///
    /// # Errors
    /// Names what does not.
    pub fn check(&self) -> Result<(), LineError> {
        let Self { events, quantity_events, unique_events, .. } = *self;
        if quantity_events > events || unique_events > events {
            return Err(LineError::Events { events, quantity_events, unique_events });
        }
        self.check_quantities()?;
        let uniques = self.uniques.len();
        let some = u64::from(unique_events > 0);
        if !u64::try_from(uniques).is_ok_and(|uniques| (some..=unique_events).contains(&uniques)) {
            return Err(LineError::Uniques { unique_events, uniques });
        }
        match self.uniques.windows(2).position(|pair| pair[0] >= pair[1]) {
            Some(index) => Err(LineError::UniqueOrder { index: index.saturating_add(1) }),
            None => Ok(()),
        }
    }

    /// A sum that its events cannot have would make sums overflow that no use does.
    fn check_quantities(&self) -> Result<(), LineError> {
        let Self { quantity_events, sum, min, max, latest, .. } = *self;
        if min > max {
            return Err(LineError::MinMax { min, max });
        }
        if quantity_events == 0 {
            return match [sum, min, max] == [Quantity::ZERO; 3] {
                true => Ok(()),
                false => Err(LineError::NoQuantity { sum, min, max }),
            };
        }
        let beyond = |quantity: &Quantity| quantity.0.unsigned_abs() >= UNITS_LIMIT.unsigned_abs();
        if let Some(quantity) = [min, max].into_iter().find(beyond) {
            return Err(LineError::Quantity { quantity });
        }
        // n * min <= sum <= n * max, divided by n, since the products may not fit into 128 bits.
        let count = i128::from(quantity_events);
        let (mean, rest) = (sum.0.div_euclid(count), sum.0.rem_euclid(count));
        if mean < min.0 || (mean, rest) > (max.0, 0) {
            return Err(LineError::Sum { quantity_events, sum, min, max });
        }
        if latest < min || latest > max {
            return Err(LineError::Latest { latest, min, max });
        }
        Ok(())
    }

    pub(super) fn put(&self, bytes: &mut Vec<u8>) {
        for count in [self.events, self.quantity_events, self.unique_events] {
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        for quantity in [self.sum, self.min, self.max] {
            bytes.extend_from_slice(&quantity.0.to_be_bytes());
        }
        bytes.extend_from_slice(&self.latest_time.0.to_be_bytes());
        bytes.extend_from_slice(&self.latest.0.to_be_bytes());
        bytes.extend_from_slice(&self.unique_key.to_be_bytes());
        let uniques =
            u32::try_from(self.uniques.len()).expect("a body has no bytes for 2^32 digests");
        bytes.extend_from_slice(&uniques.to_be_bytes());
        bytes.extend_from_slice(self.uniques.as_flattened());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, LineError> {
        let mut value =
            Self::read_counts(fields).ok_or(LineError::Truncated { field: "its value" })?;
        let uniques = fields.u32().ok_or(LineError::Truncated { field: "its value" })?;
        let (digests, rest) = fields.0.as_chunks::<16>();
        // The count is believed only where as many digests stand there.
        let uniques = usize::try_from(uniques).unwrap_or(usize::MAX);
        let Some((digests, beyond)) = digests.split_at_checked(uniques) else {
            return Err(LineError::Truncated { field: "its unique digests" });
        };
        let trailing = beyond.as_flattened().len().saturating_add(rest.len());
        if trailing > 0 {
            return Err(LineError::Trailing { bytes: trailing });
        }
        value.uniques = digests.to_vec();
        Ok(value)
    }

    fn read_counts(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            events: fields.u64()?,
            quantity_events: fields.u64()?,
            unique_events: fields.u64()?,
            sum: Quantity(fields.i128()?),
            min: Quantity(fields.i128()?),
            max: Quantity(fields.i128()?),
            latest_time: Timestamp(fields.i64()?),
            latest: Quantity(fields.i128()?),
            unique_key: fields.u16()?,
            uniques: Vec::new(),
        })
    }
}

const METER: &str = "its meter";
const CUSTOMER: &str = "its customer";
const DIMENSION_NAME: &str = "a dimension's name";
const DIMENSION_VALUE: &str = "a dimension's value";

fn put_series<'a>(
    bytes: &mut Vec<u8>,
    meter: &str,
    customer: &str,
    dimensions: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) {
    put_str(bytes, meter);
    put_str(bytes, customer);
    bytes.push(u8::try_from(dimensions.len()).expect("a series has at most 16 dimensions"));
    for (name, value) in dimensions {
        put_str(bytes, name);
        put_str(bytes, value);
    }
}

pub(super) fn put_key_end(bytes: &mut Vec<u8>, bucket: Bucket, part: u16) {
    bytes.extend_from_slice(&bucket.0.to_be_bytes());
    bytes.extend_from_slice(&part.to_be_bytes());
}

fn read_series(
    fields: &mut Fields<'_>,
    before: Option<&LineKey>,
) -> Result<(MeterName, CustomerId, Dimensions), LineError> {
    let meter = read_str(fields, METER)?;
    let meter = match before {
        Some(before) if before.meter.as_str() == meter => before.meter.clone(),
        Some(_) | None => {
            MeterName::parse(meter).map_err(|error| LineError::Name { field: METER, error })?
        }
    };
    let customer = read_str(fields, CUSTOMER)?;
    let customer = match before {
        Some(before) if before.customer.as_str() == customer => before.customer.clone(),
        Some(_) | None => CustomerId::parse(customer)
            .map_err(|error| LineError::Name { field: CUSTOMER, error })?,
    };
    let count = usize::from(fields.u8().ok_or(LineError::Truncated { field: "its dimensions" })?);
    if count > DIMENSIONS_MAX {
        return Err(LineError::TooManyDimensions { dimensions: count });
    }
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        pairs.push((read_str(fields, DIMENSION_NAME)?, read_str(fields, DIMENSION_VALUE)?));
    }
    let dimensions = match before {
        Some(before) if before.dimensions.iter().eq(pairs.iter().copied()) => {
            before.dimensions.clone()
        }
        Some(_) | None => Dimensions::new(
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        )?,
    };
    Ok((meter, customer, dimensions))
}

fn read_str<'a>(fields: &mut Fields<'a>, field: &'static str) -> Result<&'a str, LineError> {
    let bytes = fields.str_bytes().ok_or(LineError::Truncated { field })?;
    std::str::from_utf8(bytes).map_err(|_| LineError::NotUtf8 { field })
}

#[cfg(test)]
mod tests;
