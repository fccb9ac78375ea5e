//! Bytes to usage events, or to a counted reason why not.
//!
//! ```text
//! {"meter": ...}                    json_line    one event a line
//! name:1:2|c|#customer:acme         dogstatsd    one event a value
//! {"specversion": "1.0", ...}       cloudevents  a body of one event or of many
//! ```
//!
//! **Owns** the syntaxes and who is billed by which meter ([`naming`]). **Does not own** the doors, the
//! sizes that they let in, or the judgement of time.
//!
//! Invariants: nothing here panics on any bytes, and one bad event never costs its neighbours. A name
//! that is given twice with two different values is refused, never guessed: a bill must not depend on
//! which one a parser happens to see first.

pub mod cloudevents;
pub mod dogstatsd;
mod json;
pub mod json_line;
pub mod naming;

use tidemark_common::id::{DIMENSIONS_MAX, check_dimension_name, check_dimension_value};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;

use crate::event::{
    ID_BYTES_MAX, IdDigest, Parsed, RejectReason, SOURCE_BYTES_MAX, SourceCount, UNIQUE_BYTES_MAX,
};
use naming::Naming;

/// Reads one line: JSON if it opens with a brace, else DogStatsD.
#[must_use]
pub fn line(line: &[u8], naming: &Naming) -> Parsed {
    match line.trim_ascii_start() {
        [b'{', ..] => json_line::message(line, naming),
        _ => dogstatsd::message(line, naming),
    }
}

/// The idempotency key and the source's count of a message, from what any syntax calls so.
fn identify(
    name: &str,
    id: Option<&str>,
    source: Option<&str>,
    count: Option<u64>,
) -> Result<(Option<IdDigest>, Option<SourceCount>), RejectReason> {
    if id.is_some_and(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
        return Err(RejectReason::BadId);
    }
    if source.is_some_and(|source| source.is_empty() || source.len() > SOURCE_BYTES_MAX) {
        return Err(RejectReason::BadSource);
    }
    let digest = id.map(|id| IdDigest::of(source.unwrap_or_default(), name, id));
    let count = match (source, count) {
        (Some(source), Some(count)) => Some(SourceCount { source: source.to_owned(), count }),
        (None, Some(_)) => return Err(RejectReason::BadSource),
        (_, None) => None,
    };
    Ok((digest, count))
}

/// A source's counter: decimal digits that 64 bits hold.
fn source_count(text: &str) -> Result<u64, RejectReason> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RejectReason::BadSource);
    }
    text.parse().map_err(|_| RejectReason::BadSource)
}

/// Valid dimensions, ascending by name. One that is repeated with the same value counts once.
fn dimensions<T>(mut pairs: Vec<(T, T)>) -> Result<Vec<(String, String)>, RejectReason>
where
    T: AsRef<str> + Ord + Into<String>,
{
    for (name, value) in &pairs {
        check_dimension_name(name.as_ref()).map_err(|_| RejectReason::BadDimension)?;
        check_dimension_value(value.as_ref()).map_err(|_| RejectReason::BadDimension)?;
    }
    pairs.sort_unstable();
    pairs.dedup();
    if pairs.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(RejectReason::BadDimension);
    }
    if pairs.len() > DIMENSIONS_MAX {
        return Err(RejectReason::TooManyDimensions);
    }
    Ok(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

fn check_unique(value: &str) -> Result<&str, RejectReason> {
    match value.len() {
        1..=UNIQUE_BYTES_MAX => Ok(value),
        _ => Err(RejectReason::BadUnique),
    }
}

/// An instant as RFC 3339, to the millisecond; what is finer is cut off.
fn rfc3339(text: &str) -> Result<Timestamp, RejectReason> {
    // Brackets would name a time zone, which RFC 3339 does not know.
    if text.contains('[') {
        return Err(RejectReason::BadTime);
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| RejectReason::BadTime)?;
    Ok(Timestamp(time.as_millisecond()))
}

/// An instant as Unix seconds with an optional fraction, to the millisecond; what is finer is cut off.
fn unix_seconds(text: &str) -> Result<Timestamp, RejectReason> {
    const UNITS_PER_MILLI: i128 = 1_000_000;
    let seconds = Quantity::parse(text.as_bytes()).map_err(|_| RejectReason::BadTime)?;
    let millis = seconds.0.div_euclid(UNITS_PER_MILLI);
    i64::try_from(millis).map(Timestamp).map_err(|_| RejectReason::BadTime)
}

#[cfg(test)]
mod tests;
