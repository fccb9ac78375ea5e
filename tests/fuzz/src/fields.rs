//! What every accepted event must be (design 4.2), checked apart from the code that accepts it, and the JSON
//! line that says the same.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tidemark_agent::event::{Message, Parsed, RejectReason, UsageEvent};
use tidemark_agent::parse::json_line;
use tidemark_agent::parse::naming::{Naming, NamingOptions};
use tidemark_common::quantity::UNITS_LIMIT;
use tidemark_common::time::Timestamp;

/// Names as the agent reads them: by default, and for clients without tags.
#[must_use]
pub fn namings() -> [Naming; 3] {
    let patterns = NamingOptions {
        name_patterns: vec!["usage.{customer}.{meter}".to_owned(), "{meter}@{customer}".to_owned()],
        customer_default: Some("nobody".to_owned()),
        ..NamingOptions::default()
    };
    let own_tags = NamingOptions {
        customer_tag: "tenant".to_owned(),
        id_tag: "key".to_owned(),
        source_tag: "from".to_owned(),
        source_count_tag: "n".to_owned(),
        metered: vec!["a*".to_owned(), "*.used".to_owned(), "!*.debug*".to_owned()],
        ..NamingOptions::default()
    };
    [NamingOptions::default(), patterns, own_tags]
        .map(|options| Naming::new(&options).expect("these options are sound"))
}

/// Checks all that came of one line or one CloudEvent.
///
/// # Panics
/// If an accepted event breaks a rule, or reads otherwise when it is said again.
pub fn check(parsed: &Parsed) {
    match parsed {
        Parsed::Message(message) => check_message(message),
        Parsed::NotMetered { .. } => {}
        Parsed::Rejected(reason) => check_reason(*reason),
    }
}

fn check_message(message: &Message) {
    assert!(!message.events.is_empty(), "a message without events is counted nowhere");
    if let Some(source) = &message.source {
        assert!(
            (1..=256).contains(&source.source.len()),
            "a source of {} bytes",
            source.source.len()
        );
    }
    let mut numbered = BTreeSet::new();
    for event in &message.events {
        match event {
            Ok(event) => {
                let is_new = numbered.insert((event.meter.clone(), event.number));
                assert!(is_new, "two events of a message are told apart: {message:?}");
                check_event(event);
            }
            Err(reason) => check_reason(*reason),
        }
    }
}

fn check_reason(reason: RejectReason) {
    assert!(
        RejectReason::from_code(reason.code()) == Some(reason),
        "{reason} is counted as another"
    );
}

fn check_event(event: &UsageEvent) {
    let meter = event.meter.as_str().as_bytes();
    assert!((1..=64).contains(&meter.len()) && meter[0].is_ascii_lowercase(), "{event:?}");
    let allowed =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(byte);
    assert!(meter.iter().all(allowed), "{event:?}");
    assert!(is_printable(event.customer.as_str(), 1, 128), "{event:?}");
    assert!(event.dimensions.len() <= 16, "{event:?}");
    for (name, value) in &*event.dimensions {
        assert!(is_printable(name, 1, 64) && is_printable(value, 0, 128), "{event:?}");
    }
    assert!(event.dimensions.is_sorted_by(|one, next| one.0 < next.0), "{event:?}");
    if let Some(quantity) = event.quantity {
        assert!((-UNITS_LIMIT + 1..UNITS_LIMIT).contains(&quantity.0), "{event:?}");
    }
    if let Some(unique) = &event.unique {
        assert!((1..=512).contains(&unique.len()), "{event:?}");
    }
    assert!(event.quantity.is_some() || event.unique.is_some(), "{event:?} says nothing");
    check_again(event);
}

fn is_printable(text: &str, bytes_min: usize, bytes_max: usize) -> bool {
    (bytes_min..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The event as a JSON line reads as the same event, whatever syntax it came in.
fn check_again(event: &UsageEvent) {
    let Some(line) = json_line(event) else { return };
    match json_line::message(line.as_bytes(), &Naming::default()) {
        Parsed::Message(Message { id: None, source: None, events }) => {
            // A line says one event, wherever this one stood in its message.
            assert_eq!(events, [Ok(UsageEvent { number: 0, ..event.clone() })], "{line}");
        }
        other => panic!("{line} reads as {other:?}"),
    }
}

/// `None` where a JSON line has no way to say it: an instant of more than 15 digits of seconds.
fn json_line(event: &UsageEvent) -> Option<String> {
    let mut members = Map::new();
    members.insert("meter".to_owned(), event.meter.as_str().into());
    members.insert("customer".to_owned(), event.customer.as_str().into());
    if let Some(quantity) = event.quantity {
        members.insert("quantity".to_owned(), quantity.to_string().into());
    }
    if let Some(unique) = &event.unique {
        members.insert("unique".to_owned(), unique.as_str().into());
    }
    let dimensions =
        event.dimensions.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    members.insert("dimensions".to_owned(), Value::Object(dimensions.collect()));
    let mut line = Value::Object(members).to_string();
    if let Some(time) = event.time {
        // As a number, which serde_json would make a float of.
        line.pop();
        line.push_str(&format!(",\"time\":{}}}", seconds(time)?));
    }
    Some(line)
}

fn seconds(time: Timestamp) -> Option<String> {
    let millis = time.0.unsigned_abs();
    if millis >= 1_000_000_000_000_000_000 {
        return None;
    }
    let sign = if time.0 < 0 { "-" } else { "" };
    Some(format!("{sign}{}.{:03}", millis / 1_000, millis % 1_000))
}
