//! How tests show what was parsed, and what all syntaxes must stand.

use proptest::prelude::*;
use tidemark_common::id::{MeterName, RulesVersion};
use tidemark_common::wire::{CloudEventMeter, CloudEventRule, DimensionPath, MeterRule, Rules};

use super::naming::{Naming, NamingOptions};
use super::*;
use crate::event::UsageEvent;

/// `meter customer name=value @millis 3 'unique'`, events joined by ` + `, behind `id` and `source#count`.
pub(super) fn show(parsed: &Parsed) -> String {
    let message = match parsed {
        Parsed::Message(message) => message,
        Parsed::NotMetered { .. } => return "not_metered".to_owned(),
        Parsed::Rejected(reason) => return format!("!{reason}"),
    };
    let mut words = Vec::new();
    if message.id.is_some() {
        words.push("id".to_owned());
    }
    if let Some(source) = &message.source {
        words.push(format!("{}#{}", source.source, source.count));
    }
    let events: Vec<_> = message.events.iter().map(show_event).collect();
    words.push(events.join(" + "));
    words.join(" ")
}

fn show_event(event: &Result<UsageEvent, RejectReason>) -> String {
    let event = match event {
        Ok(event) => event,
        Err(reason) => return format!("!{reason}"),
    };
    let mut words = vec![event.meter.to_string(), event.customer.to_string()];
    words.extend(event.dimensions.iter().map(|(name, value)| format!("{name}={value}")));
    words.extend(event.time.map(|time| format!("@{}", time.0)));
    words.extend(event.quantity.map(|quantity| quantity.to_string()));
    words.extend(event.unique.as_ref().map(|unique| format!("'{unique}'")));
    words.join(" ")
}

pub(super) fn naming(change: impl FnOnce(&mut NamingOptions)) -> Naming {
    let mut options = NamingOptions::default();
    change(&mut options);
    Naming::new(&options).unwrap()
}

/// A catalogue with a kept dimension, a type of two meters, one of paths, and one that counts nothing.
pub(super) fn rules() -> Rules {
    let meter = |name: &str| MeterName::parse(name).unwrap();
    let meter_rule = |name: &str, dimensions: &[&str]| MeterRule {
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
    let path = |text: &str| Some(text.to_owned());
    let dimension =
        |name: &str, path: &str| DimensionPath { name: name.to_owned(), path: path.to_owned() };
    let tokens = CloudEventMeter {
        quantity: path("data.usage.tokens"),
        dimensions: vec![dimension("model", "data.usage.model"), dimension("producer", "source")],
        ..plain("tokens")
    };
    let rule =
        |event_type: &str, meters| CloudEventRule { event_type: event_type.to_owned(), meters };
    Rules {
        version: RulesVersion(1),
        seal_interval_millis: 1_000,
        meters: vec![
            meter_rule("api.calls", &["plan", "region"]),
            meter_rule("tokens", &["model", "plan", "producer"]),
        ],
        cloud_events: vec![
            rule("Login", vec![CloudEventMeter { unique: path("data.user"), ..plain("users") }]),
            rule("Prompt", vec![tokens, plain("prompts")]),
            rule("ignored", vec![]),
        ],
        deduplicated: vec![],
    }
}

#[test]
fn a_line_is_json_if_it_opens_with_a_brace() {
    let read = |text: &str| show(&line(text.as_bytes(), &Naming::default()));
    assert_eq!(read("a:1|c|#customer:x"), "a x 1");
    assert_eq!(read(r#" {"meter":"a","customer":"x"}"#), "a x 1");
    assert_eq!(read("{a:1|c|#customer:x"), "!malformed");
    assert_eq!(read(""), "!malformed");
}

#[test]
fn instants() {
    let rfc = |text: &str| rfc3339(text).map(|time| time.0).map_err(RejectReason::name);
    assert_eq!(rfc("2026-11-22T14:31:15Z"), Ok(1_795_357_875_000));
    assert_eq!(rfc("2026-11-22T15:31:15.0019+01:00"), Ok(1_795_357_875_001));
    assert_eq!(rfc("1969-12-31T23:59:59.999Z"), Ok(-1));
    for text in [
        "",
        "now",
        "2026-11-22",
        "2026-11-22T14:31:15",
        "2026-02-30T00:00:00Z",
        "2026-11-22T14:31:15Z[UTC]",
    ] {
        assert_eq!(rfc(text), Err("bad_time"), "{text}");
    }
    let unix = |text: &str| unix_seconds(text).map(|time| time.0).map_err(RejectReason::name);
    assert_eq!(unix("1795357875"), Ok(1_795_357_875_000));
    assert_eq!(unix("1795357875.0019"), Ok(1_795_357_875_001));
    assert_eq!(unix("1.795357875e9"), Ok(1_795_357_875_000));
    assert_eq!(unix("-0.0001"), Ok(-1));
    for text in ["", "1e99", "nan", "0x10", "1.0123456789"] {
        assert_eq!(unix(text), Err("bad_time"), "{text}");
    }
}

/// Bytes that are likely to reach deep into a parser: its own pieces, shuffled.
fn shuffled(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::sample::select(pieces), 0..40)
        .prop_map(|pieces| pieces.concat().into_bytes())
}

const LINE_PIECES: &[&str] = &[
    "a.b",
    ":",
    "|",
    "c",
    "s",
    "ms",
    "|c",
    "|#",
    "customer:x",
    ",",
    "id:",
    "source:",
    "source_seq:9",
    "|@1",
    "|T",
    "17",
    "-1.5e3",
    "é",
    "\u{0}",
    "_sc|",
    "_e{1,1}",
    "datadog.",
    "\n",
    "\r",
];

const JSON_PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\ud800",
    "null",
    "true",
    "1e999",
    "-0.5",
    "\"meter\":",
    "\"a.b\"",
    "\"customer\":",
    "\"dimensions\":{",
    "\"specversion\":\"1.0\"",
    "\"id\":\"1\"",
    "\"source\":\"s\"",
    "\"type\":",
    "\"Prompt\"",
    "\"subject\":\"x\"",
    "\"data\":{",
    "\"value\":",
    "\"usage\":{",
    "\"time\":",
    " ",
];

fn check_stands(bytes: &[u8]) {
    let naming = naming(|options| options.name_patterns = vec!["{customer}.{meter}".to_owned()]);
    for line in dogstatsd::lines(bytes) {
        check_not_empty(&super::line(line, &naming));
        check_not_empty(&dogstatsd::message(line, &naming));
    }
    check_not_empty(&json_line::message(bytes, &naming));
    let rules = rules();
    for shape in [cloudevents::Shape::One, cloudevents::Shape::Batch, cloudevents::Shape::Either] {
        for (_, parsed) in cloudevents::messages(bytes, shape, &rules, &naming).unwrap_or_default()
        {
            check_not_empty(&parsed);
        }
    }
}

fn check_not_empty(parsed: &Parsed) {
    if let Parsed::Message(message) = parsed {
        assert!(!message.events.is_empty());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_stands(&bytes);
    }

    #[test]
    fn shuffled_lines_are_judged_without_panic(bytes in shuffled(LINE_PIECES)) {
        check_stands(&bytes);
    }

    #[test]
    fn shuffled_json_is_judged_without_panic(bytes in shuffled(JSON_PIECES)) {
        check_stands(&bytes);
    }
}
