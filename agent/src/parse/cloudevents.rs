//! CloudEvents 1.0 in JSON: one object, or an array of them.
//!
//! `type` is the meter, `subject` the customer, (`source`, `type`, `id`) the idempotency key, `time`
//! optional. The quantity is `data.value`, else `data.quantity`, else 1. A rule for the type says
//! otherwise: which meters it makes, and by which paths they read quantity, unique value and
//! dimensions. A meter that counts unique values and names no path for a quantity has none.
//!
//! Dimensions are those that the rules list for the meter, each read from `data.NAME` unless a path
//! says otherwise; the rest of `data` is the application's own and is not looked at, so a long text in
//! it harms nobody.
//!
//! The extension `sequence`, where it is a whole number, is the counter of its `source`.
//!
//! **Owns** this syntax. **Does not own** content types or the size of a body (the HTTP door does).
//!
//! Invariants: what comes out stands in the order of the body, one entry an element; an element that
//! is no event at all rejects itself only. As the JSON format demands, a null attribute is an absent
//! one. A null *quantity* is not: it is what JavaScript makes of NaN, and must not count as 1.

use std::borrow::Cow;

use thiserror::Error;
use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{CloudEventMeter, Rules};

use super::json::{Elements, Json, Kind, Object};
use super::naming::{Naming, parse_meter};
use super::{check_unique, dimensions, identify, rfc3339};
use crate::event::{Message, Parsed, RejectReason, UsageEvent};

/// A body holds at most this many events.
pub const EVENTS_MAX: usize = 10_000;

/// What the content type says of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    One,
    Batch,
    Either,
}

/// Why a body as a whole cannot be read. Nothing of it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    #[error("failed to read the body: it is not JSON: {reason}")]
    NotJson { reason: String },
    #[error("failed to read the body: it is not {expected}; send what the content type says")]
    Shape { expected: &'static str },
    #[error("failed to read the body: it holds more than {events_max} events; send several")]
    TooManyEvents { events_max: usize },
}

/// Reads a body: each event's id, as far as it has one, and what it comes to.
///
/// # Errors
/// A body that is not JSON, not of this shape, or too long. A bad event is not an error.
pub fn messages(
    body: &[u8],
    shape: Shape,
    rules: &Rules,
    naming: &Naming,
) -> Result<Vec<(Option<String>, Parsed)>, BodyError> {
    let text =
        str::from_utf8(body).map_err(|error| BodyError::NotJson { reason: error.to_string() })?;
    let body = Json::read(text).map_err(|reason| BodyError::NotJson { reason })?;
    let one = body.kind() == Kind::Object;
    let elements = match shape {
        Shape::One | Shape::Either if one => Elements::All(vec![body]),
        Shape::One => return Err(BodyError::Shape { expected: "an object" }),
        Shape::Batch => {
            body.elements(EVENTS_MAX).ok_or(BodyError::Shape { expected: "an array" })?
        }
        Shape::Either => body
            .elements(EVENTS_MAX)
            .ok_or(BodyError::Shape { expected: "an object or an array" })?,
    };
    match elements {
        Elements::All(events) => {
            Ok(events.into_iter().map(|event| message(event, rules, naming)).collect())
        }
        Elements::TooMany => Err(BodyError::TooManyEvents { events_max: EVENTS_MAX }),
    }
}

fn message(event: Json<'_>, rules: &Rules, naming: &Naming) -> (Option<String>, Parsed) {
    let Some(attributes) = event.object() else {
        return (None, Parsed::Rejected(RejectReason::BadCloudEvent));
    };
    let id = attributes.present("id").and_then(Json::string).map(Cow::into_owned);
    let parsed = Event::read(&attributes, naming).and_then(|event| event.message(rules));
    (id, parsed.unwrap_or_else(Parsed::Rejected))
}

/// One event whose attributes are sound.
struct Event<'a> {
    event_type: Cow<'a, str>,
    id: Cow<'a, str>,
    source: Cow<'a, str>,
    count: Option<u64>,
    customer: CustomerId,
    time: Option<Timestamp>,
    data: Object<'a>,
    attributes: &'a Object<'a>,
}

impl<'a> Event<'a> {
    fn read(attributes: &'a Object<'a>, naming: &Naming) -> Result<Self, RejectReason> {
        let required = |name| match attributes.present(name).and_then(Json::string) {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) | None => Err(RejectReason::BadCloudEvent),
        };
        if required("specversion")? != "1.0" || attributes.present("data_base64").is_some() {
            return Err(RejectReason::BadCloudEvent);
        }
        let subject = match attributes.present("subject") {
            Some(subject) => Some(subject.string().ok_or(RejectReason::BadCustomer)?),
            None => None,
        };
        let time = match attributes.present("time") {
            Some(time) => Some(rfc3339(&time.string().ok_or(RejectReason::BadTime)?)?),
            None => None,
        };
        let data = match attributes.present("data") {
            Some(data) => data.object().ok_or(RejectReason::BadCloudEvent)?,
            None => Object::default(),
        };
        Ok(Self {
            event_type: required("type")?,
            id: required("id")?,
            source: required("source")?,
            count: attributes.present("sequence").and_then(read_sequence),
            customer: naming.customer(subject.as_deref())?,
            time,
            data,
            attributes,
        })
    }

    fn message(&self, rules: &Rules) -> Result<Parsed, RejectReason> {
        let (id, source) =
            identify(&self.event_type, Some(&self.id), Some(&self.source), self.count)?;
        let events: Vec<_> = match rules.cloud_event(&self.event_type) {
            Some(rule) => {
                let event = |(index, meter): (usize, &CloudEventMeter)| {
                    let before = rule.meters.iter().take(index);
                    let same = before.filter(|before| before.meter == meter.meter).count();
                    let number = u32::try_from(same).unwrap_or(u32::MAX);
                    Ok(UsageEvent { number, ..self.ruled(meter, rules)? })
                };
                rule.meters.iter().enumerate().map(event).collect()
            }
            None => vec![Ok(self.unruled(parse_meter(&self.event_type)?, rules)?)],
        };
        if events.is_empty() {
            return Ok(Parsed::NotMetered { name: self.event_type.to_string() });
        }
        Ok(Parsed::Message(Message { id, source, events }))
    }

    /// The event's usage of the meter that its type names.
    fn unruled(&self, meter: MeterName, rules: &Rules) -> Result<UsageEvent, RejectReason> {
        let dimensions = self.dimensions(&meter, None, rules)?;
        Ok(self.usage(meter, dimensions, Some(self.quantity()?), None))
    }

    /// The event's usage of a meter that a rule draws from it.
    fn ruled(&self, rule: &CloudEventMeter, rules: &Rules) -> Result<UsageEvent, RejectReason> {
        let unique = match &rule.unique {
            Some(path) => {
                let value = self.at(path).and_then(Json::scalar).ok_or(RejectReason::BadUnique)?;
                Some(check_unique(&value)?.to_owned())
            }
            None => None,
        };
        let quantity = match &rule.quantity {
            Some(path) => Some(read_quantity(self.at(path).ok_or(RejectReason::BadQuantity)?)?),
            None if unique.is_some() => None,
            None => Some(self.quantity()?),
        };
        let dimensions = self.dimensions(&rule.meter, Some(rule), rules)?;
        Ok(self.usage(rule.meter.clone(), dimensions, quantity, unique))
    }

    fn usage(
        &self,
        meter: MeterName,
        dimensions: Vec<(String, String)>,
        quantity: Option<Quantity>,
        unique: Option<String>,
    ) -> UsageEvent {
        UsageEvent {
            meter,
            customer: self.customer.clone(),
            dimensions: dimensions.into(),
            time: self.time,
            quantity,
            unique,
            number: 0,
        }
    }

    /// `data.value`, else `data.quantity`, else 1.
    fn quantity(&self) -> Result<Quantity, RejectReason> {
        match self.data.get("value").or_else(|| self.data.get("quantity")) {
            Some(value) => read_quantity(value),
            None => Ok(Quantity::ONE),
        }
    }

    /// The dimensions that the rules list for `meter`, as far as the event has them.
    fn dimensions(
        &self,
        meter: &MeterName,
        rule: Option<&CloudEventMeter>,
        rules: &Rules,
    ) -> Result<Vec<(String, String)>, RejectReason> {
        let Some(kept) = rules.meter(meter.as_str()) else {
            return Ok(Vec::new());
        };
        let mut pairs = Vec::with_capacity(kept.dimensions.len());
        for name in &kept.dimensions {
            let path = rule
                .and_then(|rule| rule.dimensions.iter().find(|dimension| dimension.name == *name));
            let value = match path {
                Some(dimension) => self.at(&dimension.path),
                None => self.data.get(name),
            };
            if let Some(value) = value.filter(|value| value.kind() != Kind::Null) {
                let value = value.scalar().ok_or(RejectReason::BadDimension)?;
                pairs.push((name.clone(), value.into_owned()));
            }
        }
        dimensions(pairs)
    }

    /// What stands at a dotted path from the event's root.
    fn at(&self, path: &str) -> Option<Json<'a>> {
        let mut names = path.split('.');
        let root = names.next()?;
        let mut value = match (root, names.next()) {
            ("data", Some(name)) => self.data.get(name)?,
            (root, Some(name)) => self.attributes.get(root)?.object()?.get(name)?,
            (root, None) => self.attributes.get(root)?,
        };
        for name in names {
            value = value.object()?.get(name)?;
        }
        Some(value)
    }
}

fn read_quantity(value: Json<'_>) -> Result<Quantity, RejectReason> {
    let text = value.number().ok_or(RejectReason::BadQuantity)?;
    Ok(Quantity::parse(text.as_bytes())?)
}

/// The extension is any text that sorts; only a whole number is a counter.
fn read_sequence(value: Json<'_>) -> Option<u64> {
    super::source_count(&value.number()?).ok()
}

#[cfg(test)]
mod tests;
