//! JSON lines: one object is one event.
//!
//! ```text
//! {"meter": "api.calls",              required
//!  "customer": "acme",                required, unless a default customer is configured
//!  "quantity": 12.5 or "12.5",        absent: 1, or nothing where `unique` is there
//!  "unique": "user-7" or 7,           the value that a unique-count meter counts
//!  "time": "2026-11-22T14:31:15Z" or 1795362675.25,           absent: arrival
//!  "id": "...", "source": "...", "source_seq": 17,            optional
//!  "dimensions": {"region": "eu", "tier": 2, "trial": false}} optional
//! ```
//!
//! **Owns** these keys. Others are refused, so that a misspelt `quantity` is not billed as 1; so is
//! null, which is what JavaScript makes of NaN: leave a key out instead.

use std::borrow::Cow;

use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;

use super::json::{Json, Kind, Object};
use super::naming::{Naming, parse_meter};
use super::{check_unique, dimensions, identify, rfc3339, source_count, unix_seconds};
use crate::event::{Message, Parsed, RejectReason, UsageEvent};

const KEYS: [&str; 9] =
    ["meter", "customer", "quantity", "unique", "time", "id", "source", "source_seq", "dimensions"];

/// Reads a line. Surrounding white space is allowed.
#[must_use]
pub fn message(line: &[u8], naming: &Naming) -> Parsed {
    match read(line, naming) {
        Ok(message) => Parsed::Message(message),
        Err(reason) => Parsed::Rejected(reason),
    }
}

fn read(line: &[u8], naming: &Naming) -> Result<Message, RejectReason> {
    let text = str::from_utf8(line).map_err(|_| RejectReason::NotUtf8)?;
    let object = Json::read(text).ok().and_then(Json::object).ok_or(RejectReason::Malformed)?;
    if object.members().any(|(name, _)| !KEYS.contains(&name)) {
        return Err(RejectReason::Malformed);
    }
    let name = string(&object, "meter", RejectReason::BadMeter)?.ok_or(RejectReason::BadMeter)?;
    let meter = parse_meter(&name)?;
    let customer =
        naming.customer(string(&object, "customer", RejectReason::BadCustomer)?.as_deref())?;
    let unique = object.get("unique").map(read_unique).transpose()?;
    let quantity = match object.get("quantity") {
        Some(value) => Some(read_quantity(value)?),
        None => unique.is_none().then_some(Quantity::ONE),
    };
    let id = string(&object, "id", RejectReason::BadId)?;
    let source = string(&object, "source", RejectReason::BadSource)?;
    let count = object.get("source_seq").map(read_count).transpose()?;
    let (id, source) = identify(&name, id.as_deref(), source.as_deref(), count)?;
    let event = UsageEvent {
        meter,
        customer,
        dimensions: object
            .get("dimensions")
            .map_or_else(|| Ok(Vec::new()), read_dimensions)?
            .into(),
        time: object.get("time").map(read_time).transpose()?,
        quantity,
        unique,
        number: 0,
    };
    Ok(Message { id, source, events: vec![Ok(event)] })
}

/// The content of a member that must be a string if it is there.
fn string<'a>(
    object: &Object<'a>,
    name: &str,
    reason: RejectReason,
) -> Result<Option<Cow<'a, str>>, RejectReason> {
    match object.get(name) {
        Some(value) => value.string().map(Some).ok_or(reason),
        None => Ok(None),
    }
}

fn read_quantity(value: Json<'_>) -> Result<Quantity, RejectReason> {
    let text = value.number().ok_or(RejectReason::BadQuantity)?;
    Ok(Quantity::parse(text.as_bytes())?)
}

fn read_unique(value: Json<'_>) -> Result<String, RejectReason> {
    let text = value.number().ok_or(RejectReason::BadUnique)?;
    check_unique(&text).map(str::to_owned)
}

fn read_count(value: Json<'_>) -> Result<u64, RejectReason> {
    source_count(&value.number().ok_or(RejectReason::BadSource)?)
}

fn read_time(value: Json<'_>) -> Result<Timestamp, RejectReason> {
    let text = value.number().ok_or(RejectReason::BadTime)?;
    match value.kind() {
        Kind::Number => unix_seconds(&text),
        Kind::String => rfc3339(&text),
        Kind::Null | Kind::Bool | Kind::Array | Kind::Object => Err(RejectReason::BadTime),
    }
}

fn read_dimensions(value: Json<'_>) -> Result<Vec<(String, String)>, RejectReason> {
    let object = value.object().ok_or(RejectReason::BadDimension)?;
    let mut pairs = Vec::new();
    for (name, value) in object.members() {
        let value = value.scalar().ok_or(RejectReason::BadDimension)?;
        pairs.push((name.to_owned(), value.into_owned()));
    }
    dimensions(pairs)
}

#[cfg(test)]
mod tests;
