//! A checker for the part of JSON Schema that `openapi.json` uses, which tells what it saw.
//!
//! **Owns** these keywords: `$ref`, `type`, `enum`, `minimum`, `properties`, `required`, `additionalProperties`, `items`,
//! `oneOf`. **Does not own** any other: [`ANNOTATIONS`] are left out, and the rest is refused by [`unknown_keywords`].

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Keywords that say nothing about values. Formats are for readers.
const ANNOTATIONS: [&str; 5] = ["description", "format", "default", "examples", "maximum"];
const KEYWORDS: [&str; 9] = [
    "$ref",
    "type",
    "enum",
    "minimum",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "oneOf",
];

/// What is wrong with a value, and which properties it had: `Bill.total`.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) wrong: Vec<String>,
    pub(super) seen: BTreeSet<String>,
}

impl Checked {
    fn take(&mut self, other: Self) {
        self.wrong.extend(other.wrong);
        self.seen.extend(other.seen);
    }
}

/// What `$ref` names, and the last part of its name.
pub(super) fn resolve<'d>(document: &'d Value, of: &'d Value) -> (&'d Value, Option<&'d str>) {
    let Some(reference) = of["$ref"].as_str() else { return (of, None) };
    let pointer = reference.strip_prefix('#').expect("references stay in the document");
    let found = document.pointer(pointer).unwrap_or_else(|| panic!("{reference} names nothing"));
    (found, reference.rsplit('/').next())
}

/// Holds `value`, which stands at `place`, against `schema`.
pub(super) fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Checked {
    let mut checked = Checked::default();
    if let (found, Some(name)) = resolve(document, schema) {
        checked.take(check(document, found, value, name));
    }
    let types: Vec<_> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    if !types.is_empty() && !types.contains(&type_of(value)) {
        checked.wrong.push(format!("{place} is {value}, and no {}", types.join(" or ")));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        checked.wrong.push(format!("{place} is {value}, and none of {}", schema["enum"]));
    }
    if schema["minimum"].as_i64().zip(value.as_i64()).is_some_and(|(least, value)| value < least) {
        checked.wrong.push(format!("{place} is {value}, which is too little"));
    }
    check_object(document, schema, value, place, &mut checked);
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(items) = schema.get("items") {
            let mut of_item = check(document, items, item, &format!("{place}[]"));
            of_item.wrong.iter_mut().for_each(|wrong| *wrong = format!("item {number}: {wrong}"));
            checked.take(of_item);
        }
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let all = choices.iter().map(|choice| check(document, choice, value, place));
        let (fits, others): (Vec<_>, Vec<_>) = all.partition(|choice| choice.wrong.is_empty());
        if fits.len() != 1 {
            let why: Vec<_> = others.into_iter().flat_map(|choice| choice.wrong).collect();
            let fit = fits.len();
            checked.wrong.push(format!("{place}: {fit} choices fit: {}", why.join("; ")));
        }
        fits.into_iter().for_each(|choice| checked.take(choice));
    }
    checked
}

fn check_object(
    document: &Value,
    schema: &Value,
    value: &Value,
    place: &str,
    checked: &mut Checked,
) {
    let Some(fields) = value.as_object() else { return };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| !fields.contains_key(*name)) {
        checked.wrong.push(format!("{place} lacks {name}"));
    }
    for (name, field) in fields {
        let inner = format!("{place}.{name}");
        if let Some(property) = schema["properties"].get(name) {
            checked.seen.insert(inner.clone());
            checked.take(check(document, property, field, &inner));
            continue;
        }
        match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => checked.wrong.push(format!("{place} has {name}")),
            Some(values) => {
                checked.take(check(document, values, field, &format!("{place}.*")));
            }
            None => {}
        }
    }
}

/// Integers have no fraction, as everywhere in this API.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Calls `visit` with a schema, its place, and all that it is made of; references are not followed.
pub(super) fn walk<'d>(schema: &'d Value, place: &str, visit: &mut dyn FnMut(&'d Value, &str)) {
    visit(schema, place);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{place}.{name}"), visit);
    }
    for choice in schema["oneOf"].as_array().into_iter().flatten() {
        walk(choice, place, visit);
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{place}[]"), visit);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        walk(values, &format!("{place}.*"), visit);
    }
}

/// The keywords of one schema that this checker does not know.
pub(super) fn unknown_keywords(schema: &Value) -> Vec<&str> {
    let keywords = schema.as_object().into_iter().flatten().map(|(keyword, _)| keyword.as_str());
    keywords.filter(|word| !KEYWORDS.contains(word) && !ANNOTATIONS.contains(word)).collect()
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let document = json!({"components": {"schemas": {
        "Pair": {
            "type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"a": {"type": "integer", "minimum": 0}, "b": {"type": ["string", "null"]}}
        },
        "Either": {"oneOf": [{"$ref": "#/components/schemas/Pair"}, {"type": "array", "items": {"enum": [1, 2]}}]}
    }}});
    let check = |name: &str, value: Value, expected: &str| {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        assert_eq!(check(&document, &schema, &value, "").wrong.join(", "), expected, "{value}");
    };
    check("Pair", json!({"a": 1, "b": null}), "");
    check("Pair", json!({"b": 1}), "Pair lacks a, Pair.b is 1, and no string or null");
    check("Pair", json!({"a": -1, "c": 1}), "Pair.a is -1, which is too little, Pair has c");
    check("Pair", json!({"a": 1.5}), "Pair.a is 1.5, and no integer");
    check("Pair", json!([]), "Pair is [], and no object");
    check("Either", json!([1, 2]), "");
    check(
        "Either",
        json!([1, 3]),
        "Either: 0 choices fit: Pair is [1,3], and no object; item 1: Either[] is 3, and none of [1,2]",
    );
}
