use super::super::tests::{naming, show};
use super::*;

fn check(line: &str, expected: &str) {
    assert_eq!(show(&message(line.as_bytes(), &Naming::default())), expected, "{line}");
}

/// An event of meter `a` and customer `x` with these further members.
fn check_members(members: &str, expected: &str) {
    check(&format!(r#"{{"meter":"a","customer":"x",{members}}}"#), expected);
}

#[test]
fn whole_events() {
    check(r#"{"meter":"a","customer":"x"}"#, "a x 1");
    check(
        r#" {"meter":"api.calls","customer":"acme","quantity":12.5,"time":"2026-11-22T14:31:15Z","id":"1",
            "source":"web","source_seq":17,"dimensions":{"tier":2,"region":"eu","trial":false}} "#,
        "id web#17 api.calls acme region=eu tier=2 trial=false @1795357875000 12.5",
    );
    check(r#"{"meter":"a","customer":"caf\u00e9"}"#, "a café 1");
}

#[test]
fn quantities_are_exact() {
    for (sent, expected) in [
        ("0.1", "a x 0.1"),
        ("999999999999999.999999999", "a x 999999999999999.999999999"),
        ("\"999999999999999.999999999\"", "a x 999999999999999.999999999"),
        ("-3", "a x -3"),
        ("-0", "a x 0"),
        ("1.5E+3", "a x 1500"),
        ("0.0000000001", "!too_precise"),
        ("1e-10", "!too_precise"),
        ("1e15", "!too_large"),
        ("1e999999999999999999999", "!too_large"),
        ("\"nan\"", "!not_finite"),
        ("\"-Infinity\"", "!not_finite"),
        ("\"\"", "!bad_quantity"),
        ("\" 1\"", "!bad_quantity"),
        ("\"0x10\"", "!bad_quantity"),
        ("null", "!bad_quantity"),
        ("true", "!bad_quantity"),
        ("[1]", "!bad_quantity"),
        ("{}", "!bad_quantity"),
        ("NaN", "!malformed"),
        ("01", "!malformed"),
    ] {
        check_members(&format!(r#""quantity":{sent}"#), expected);
    }
}

#[test]
fn unique_values() {
    check_members(r#""unique":"user-7""#, "a x 'user-7'");
    check_members(r#""unique":7"#, "a x '7'");
    check_members(r#""unique":"u","quantity":2"#, "a x 2 'u'");
    for bad in ["\"\"", "null", "true", "[]", &format!("\"{}\"", "u".repeat(513))] {
        check_members(&format!(r#""unique":{bad}"#), "!bad_unique");
    }
}

#[test]
fn times() {
    check_members(r#""time":1795362675"#, "a x @1795362675000 1");
    check_members(r#""time":1795362675.2509"#, "a x @1795362675250 1");
    check_members(r#""time":"2026-11-22T15:31:15+01:00""#, "a x @1795357875000 1");
    for bad in ["null", "\"\"", "\"1795362675\"", "\"2026-11-22\"", "true", "[]", "1e99"] {
        check_members(&format!(r#""time":{bad}"#), "!bad_time");
    }
}

#[test]
fn names_and_customers() {
    for bad in [
        "{}",
        r#"{"customer":"x"}"#,
        r#"{"meter":"A","customer":"x"}"#,
        r#"{"meter":7,"customer":"x"}"#,
    ] {
        check(bad, "!bad_meter");
    }
    check(r#"{"meter":"a"}"#, "!no_customer");
    for bad in ["null", "7", "\"\"", r#""a\nb""#] {
        check(&format!(r#"{{"meter":"a","customer":{bad}}}"#), "!bad_customer");
    }
    let naming = naming(|options| options.customer_default = Some("house".to_owned()));
    assert_eq!(show(&message(br#"{"meter":"a"}"#, &naming)), "a house 1");
    assert_eq!(show(&message(br#"{"meter":"a","customer":""}"#, &naming)), "!bad_customer");
}

#[test]
fn what_is_sent_here_is_metered_whatever_its_name() {
    check(r#"{"meter":"datadog.a","customer":"x"}"#, "datadog.a x 1");
}

#[test]
fn ids_and_sources() {
    check_members(r#""id":"7""#, "id a x 1");
    for bad in ["null", "7", "\"\"", &format!("\"{}\"", "i".repeat(129))] {
        check_members(&format!(r#""id":{bad}"#), "!bad_id");
    }
    check_members(r#""source":"s","source_seq":"3""#, "s#3 a x 1");
    check_members(r#""source":"s""#, "a x 1");
    for bad in [
        r#""source":null"#,
        r#""source":"""#,
        r#""source_seq":1"#,
        r#""source":"s","source_seq":-1"#,
        r#""source":"s","source_seq":1.0"#,
        r#""source":"s","source_seq":null"#,
    ] {
        check_members(bad, "!bad_source");
    }
}

#[test]
fn dimensions() {
    check_members(r#""dimensions":{}"#, "a x 1");
    check_members(r#""dimensions":{"b":1.50,"a":""}"#, "a x a= b=1.50 1");
    for bad in [
        "null",
        "[]",
        r#"{"a":null}"#,
        r#"{"a":[]}"#,
        r#"{"":"v"}"#,
        r#"{"a":"\u0000"}"#,
        r#"{"a":"1","a":"1"}"#,
    ] {
        check_members(&format!(r#""dimensions":{bad}"#), "!bad_dimension");
    }
    let many = |count: u32| {
        (0..count).map(|index| format!(r#""d{index}":1"#)).collect::<Vec<_>>().join(",")
    };
    check_members(&format!(r#""dimensions":{{{}}}"#, many(17)), "!too_many_dimensions");
}

#[test]
fn lines_that_do_not_hold_together() {
    check_members(r#""quantitiy":5"#, "!malformed");
    check_members(r#""quantity":5,"quantity":5"#, "!malformed");
    check_members(r#""quantity":5,"qu\u0061ntity":6"#, "!malformed");
    check_members(r#""id":"\ud800""#, "!bad_id");
    for line in ["", "{", "{}{}", "[]", "null", "{\"a\":1,}", "{\"meter\":\"a\"", "\u{feff}{}"] {
        check(line, "!malformed");
    }
    let line = format!(
        "{{{}}}",
        (0..2_000).map(|index| format!(r#""{index}":0"#)).collect::<Vec<_>>().join(",")
    );
    check(&line, "!malformed");
    check(&format!("{}1{}", "{\"dimensions\":".repeat(100_000), "}".repeat(100_000)), "!bad_meter");
    check(&"[".repeat(1_000_000), "!malformed");
    assert_eq!(
        message(b"{\"meter\":\"\xff\"}", &Naming::default()),
        Parsed::Rejected(RejectReason::NotUtf8)
    );
    assert_eq!(message(&[0; 64], &Naming::default()), Parsed::Rejected(RejectReason::Malformed));
}

#[test]
fn every_truncation_of_a_line_is_malformed() {
    let line = r#"{"meter":"a","customer":"x","quantity":1,"dimensions":{"a":"b"}}"#;
    for length in 0..line.len() {
        check(&line[..length], "!malformed");
    }
}
