//! JSON lines, as the events door reads them.
//!
//! ```text
//! input   naming u8, then lines
//! ```
//!
//! - Field rules hold; what is accepted reads again as the same.
//! - The quantity is the very number that stands in the text, by another JSON reader and a slow decimal.
//! - White space around a line changes nothing; a line is one event or one reason.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tidemark_agent::event::{Parsed, UsageEvent};
use tidemark_agent::parse;
use tidemark_agent::parse::naming::Naming;
use tidemark_common::quantity::Quantity;

use crate::choices::Choices;
use crate::decimals::{check_quantity, units};
use crate::fields;

pub fn check(input: &[u8]) {
    let mut choices = Choices::new(input);
    let namings = fields::namings();
    let naming = choices.of(&namings);
    for line in choices.rest().split(|byte| *byte == b'\n') {
        check_line(line, naming);
    }
}

fn check_line(line: &[u8], naming: &Naming) {
    let parsed = parse::json_line::message(line, naming);
    fields::check(&parsed);
    let spaced = [b" \t", line, b" \r"].concat();
    assert_eq!(parse::json_line::message(&spaced, naming), parsed, "white space changes nothing");
    if line.trim_ascii_start().first() == Some(&b'{') {
        assert_eq!(parse::line(line, naming), parsed, "the events door reads the same");
    }
    match parsed {
        Parsed::Message(message) => {
            let [Ok(event)] = &message.events[..] else { panic!("{:?}", message.events) };
            check_number(line, event);
        }
        Parsed::NotMetered { name } => panic!("{name} was sent here on purpose"),
        Parsed::Rejected(_) => {}
    }
}

/// The members as another reader finds them.
fn check_number(line: &[u8], event: &UsageEvent) {
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(line).expect("what was accepted is a JSON object");
    match members.get("quantity") {
        Some(value) => {
            let text = decimal_text(value);
            check_quantity(text.as_bytes());
            let read = event.quantity.expect("an event with a quantity has one");
            assert_eq!(units(text.as_bytes(), 15, 9), Ok(read.0.to_string()), "{text}");
        }
        None if event.unique.is_some() => assert_eq!(event.quantity, None),
        None => assert_eq!(event.quantity, Some(Quantity::ONE)),
    }
}

/// The text of a number, or the content of a string.
#[must_use]
pub fn decimal_text(value: &RawValue) -> String {
    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned())
}
