//! CloudEvents in JSON, single and in batches.
//!
//! ```text
//! input   shape u8, then a body
//! ```
//!
//! - An event in a batch comes to what it comes to alone: neighbours change nothing.
//! - One entry an element, in order, with the element's id.
//! - Numbers are exact by a slow decimal; field rules hold; what is accepted reads again as the same.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tidemark_agent::event::Parsed;
use tidemark_agent::parse::cloudevents::{Shape, messages};
use tidemark_agent::parse::naming::Naming;
use tidemark_common::id::{MeterName, RulesVersion};
use tidemark_common::quantity::Quantity;
use tidemark_common::wire::{CloudEventMeter, CloudEventRule, DimensionPath, MeterRule, Rules};

use crate::choices::Choices;
use crate::decimals::units;
use crate::fields;
use crate::json_lines::decimal_text;

const SHAPES: [Shape; 3] = [Shape::Either, Shape::One, Shape::Batch];

pub fn check(input: &[u8]) {
    let mut choices = Choices::new(input);
    let shape = *choices.of(&SHAPES);
    let body = choices.rest();
    let rules = rules();
    let naming = Naming::default();
    let Ok(read) = messages(body, shape, &rules, &naming) else { return };
    let elements = elements(body);
    assert_eq!(read.len(), elements.len(), "one entry an element");
    for ((id, parsed), element) in read.into_iter().zip(elements) {
        fields::check(&parsed);
        let alone = messages(element.get().as_bytes(), Shape::One, &rules, &naming);
        if element.get().starts_with('{') {
            assert_eq!(alone, Ok(vec![(id, parsed.clone())]), "alone it is the same");
        } else {
            assert!(
                alone.is_err() && matches!(parsed, Parsed::Rejected(_)),
                "{element} is no event"
            );
        }
        check_numbers(element, &parsed);
    }
}

fn elements(body: &[u8]) -> Vec<&RawValue> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return serde_json::from_slice(body).expect("what was accepted is an array");
    }
    vec![serde_json::from_slice(body).expect("what was accepted is JSON")]
}

/// The quantity of a type that no rule knows is `data.value`, else `data.quantity`, else 1.
fn check_numbers(element: &RawValue, parsed: &Parsed) {
    let Parsed::Message(message) = parsed else { return };
    type Members<'a> = BTreeMap<String, &'a RawValue>;
    let event: Members<'_> = serde_json::from_str(element.get()).expect("an event is an object");
    let kind = decimal_text(event["type"]);
    if ["Login", "Prompt"].contains(&kind.as_str()) {
        return;
    }
    assert_eq!(message.events.len(), 1, "without a rule an event is one");
    let Some(Ok(read)) = message.events.first() else { return };
    assert_eq!(read.meter.as_str(), kind);
    let data: Option<Members<'_>> =
        event.get("data").and_then(|data| serde_json::from_str(data.get()).ok());
    let data = data.unwrap_or_default();
    let expected = match data.get("value").or_else(|| data.get("quantity")) {
        Some(value) => units(decimal_text(value).as_bytes(), 15, 9),
        None => Ok(Quantity::ONE.0.to_string()),
    };
    assert_eq!(read.quantity.map(|quantity| quantity.0.to_string()), expected.ok());
}

/// A catalogue's rules: paths, several meters of one type, a type of none, kept dimensions.
fn rules() -> Rules {
    let meter = |name: &str| MeterName::parse(name).expect("a meter's name");
    let kept = |name: &str, dimensions: &[&str]| MeterRule {
        meter: meter(name),
        dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
        negative: false,
    };
    let plain = |name: &str| CloudEventMeter {
        meter: meter(name),
        quantity: None,
        unique: None,
        dimensions: vec![],
    };
    let model = DimensionPath { name: "model".to_owned(), path: "data.usage.model".to_owned() };
    let producer = DimensionPath { name: "producer".to_owned(), path: "source".to_owned() };
    let tokens = CloudEventMeter {
        quantity: Some("data.usage.tokens".to_owned()),
        dimensions: vec![model, producer],
        ..plain("tokens")
    };
    let users = CloudEventMeter { unique: Some("data.user".to_owned()), ..plain("users") };
    let rule =
        |event_type: &str, meters| CloudEventRule { event_type: event_type.to_owned(), meters };
    Rules {
        version: RulesVersion(1),
        seal_interval_millis: 1_000,
        meters: vec![
            kept("api.calls", &["plan", "region"]),
            kept("tokens", &["model", "plan", "producer"]),
        ],
        cloud_events: vec![
            rule("Login", vec![users]),
            rule("Prompt", vec![tokens, plain("prompts")]),
            rule("ignored", vec![]),
        ],
        deduplicated: vec![],
    }
}
