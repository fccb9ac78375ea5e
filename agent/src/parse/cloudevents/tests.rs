use super::super::tests::{naming, rules, show};
use super::*;

/// Each event is shown as `id: what it comes to`, one a line.
fn read(body: &[u8], shape: Shape) -> Result<String, BodyError> {
    let messages = messages(body, shape, &rules(), &Naming::default())?;
    let shown = messages
        .iter()
        .map(|(id, parsed)| format!("{}: {}", id.as_deref().unwrap_or("-"), show(parsed)));
    Ok(shown.collect::<Vec<_>>().join("\n"))
}

fn check_body(body: &str, shape: Shape, expected: &str) {
    assert_eq!(read(body.as_bytes(), shape).as_deref(), Ok(expected), "{body}");
}

/// An event of type `api.calls`, subject `x`, with these further members.
fn event(members: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"1","source":"s","type":"api.calls","subject":"x"{members}}}"#
    )
}

fn check(members: &str, expected: &str) {
    check_body(&event(members), Shape::One, &format!("1: {expected}"));
}

/// The same event with one attribute put in another way, or left out.
fn check_with(attribute: &str, json: Option<&str>, expected: &str) {
    let mut members = vec![
        ("specversion", "\"1.0\""),
        ("id", "\"1\""),
        ("source", "\"s\""),
        ("type", "\"api.calls\""),
        ("subject", "\"x\""),
    ];
    members.retain(|(name, _)| *name != attribute);
    members.extend(json.map(|json| (attribute, json)));
    let members: Vec<_> =
        members.into_iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
    let shown = read(format!("{{{}}}", members.join(",")).as_bytes(), Shape::One).unwrap();
    let (_, shown) = shown.split_once(": ").unwrap();
    assert_eq!(shown, expected, "{attribute} {json:?}");
}

#[test]
fn what_openmeter_clients_send() {
    check_body(
        r#"{"specversion":"1.0","id":"5c10","source":"service-0","type":"prompt","subject":"customer-1",
            "time":"2023-01-01T00:00:00.001Z","datacontenttype":"application/json","data":{"tokens":"12","model":"gpt-4"}}"#,
        Shape::Either,
        "5c10: id prompt customer-1 @1672531200001 1",
    );
    check(r#","data":null"#, "id api.calls x 1");
    check("", "id api.calls x 1");
}

#[test]
fn quantities() {
    check(
        r#","data":{"value":"999999999999999.999999999"}"#,
        "id api.calls x 999999999999999.999999999",
    );
    check(
        r#","data":{"value":999999999999999.999999999}"#,
        "id api.calls x 999999999999999.999999999",
    );
    check(r#","data":{"quantity":2,"value":3}"#, "id api.calls x 3");
    check(r#","data":{"quantity":2}"#, "id api.calls x 2");
    for (sent, reason) in [
        ("null", "!bad_quantity"),
        ("true", "!bad_quantity"),
        ("{}", "!bad_quantity"),
        ("\"much\"", "!bad_quantity"),
        ("\"NaN\"", "!not_finite"),
        ("1e-10", "!too_precise"),
        ("1e15", "!too_large"),
    ] {
        check(&format!(r#","data":{{"value":{sent}}}"#), reason);
        check(&format!(r#","data":{{"quantity":{sent}}}"#), reason);
    }
}

#[test]
fn attributes() {
    for (attribute, json, expected) in [
        ("specversion", None, "!bad_cloudevent"),
        ("specversion", Some("\"0.3\""), "!bad_cloudevent"),
        ("specversion", Some("1.0"), "!bad_cloudevent"),
        ("id", None, "!bad_cloudevent"),
        ("id", Some("null"), "!bad_cloudevent"),
        ("id", Some("\"\""), "!bad_cloudevent"),
        ("id", Some("7"), "!bad_cloudevent"),
        ("id", Some("\"\\ud800\""), "!bad_cloudevent"),
        ("source", None, "!bad_cloudevent"),
        ("source", Some("\"\""), "!bad_cloudevent"),
        ("type", None, "!bad_cloudevent"),
        ("type", Some("\"com.Example\""), "!bad_meter"),
        ("subject", None, "!no_customer"),
        ("subject", Some("null"), "!no_customer"),
        ("subject", Some("\"\""), "!bad_customer"),
        ("subject", Some("\"a\\u0000\""), "!bad_customer"),
        ("subject", Some("7"), "!bad_customer"),
        ("time", Some("null"), "id api.calls x 1"),
        ("time", Some("\"2026-11-22T15:31:15+01:00\""), "id api.calls x @1795357875000 1"),
        ("time", Some("\"yesterday\""), "!bad_time"),
        ("time", Some("1795357875"), "!bad_time"),
        ("data", Some("\"text\""), "!bad_cloudevent"),
        ("data", Some("[1]"), "!bad_cloudevent"),
        ("data", Some("{\"value\":1,\"value\":1}"), "!bad_cloudevent"),
        ("data_base64", Some("\"AA==\""), "!bad_cloudevent"),
        ("extension", Some("{\"any\":[]}"), "id api.calls x 1"),
    ] {
        check_with(attribute, json, expected);
    }
    let long = |length: usize| format!("\"{}\"", "i".repeat(length));
    check_with("id", Some(&long(128)), "id api.calls x 1");
    check_with("id", Some(&long(129)), "!bad_id");
    check_with("source", Some(&long(256)), "id api.calls x 1");
    check_with("source", Some(&long(257)), "!bad_source");
    check_with("type", Some(&long(65)), "!bad_meter");
    check_with("subject", Some(&long(129)), "!bad_customer");
}

#[test]
fn an_attribute_that_is_given_twice_is_refused() {
    check_body(&event(r#","subject":"y""#), Shape::One, "-: !bad_cloudevent");
}

#[test]
fn the_default_customer_serves_events_without_a_subject() {
    let naming = naming(|options| options.customer_default = Some("house".to_owned()));
    let body = br#"{"specversion":"1.0","id":"1","source":"s","type":"a"}"#;
    let messages = messages(body, Shape::One, &rules(), &naming).unwrap();
    assert_eq!(show(&messages[0].1), "id a house 1");
}

#[test]
fn the_sequence_extension_counts_its_source() {
    for (sent, expected) in [
        ("\"0017\"", "id s#17 api.calls x 1"),
        ("17", "id s#17 api.calls x 1"),
        ("null", "id api.calls x 1"),
        ("-1", "id api.calls x 1"),
        ("\"2026-11-22\"", "id api.calls x 1"),
    ] {
        check(&format!(r#","sequence":{sent}"#), expected);
    }
}

#[test]
fn dimensions_are_those_of_the_rules() {
    check(r#","data":{"plan":"pro","region":null,"prompt":"long"}"#, "id api.calls x plan=pro 1");
    check(r#","data":{"plan":1.50,"region":true}"#, "id api.calls x plan=1.50 region=true 1");
    check(r#","data":{"plan":["pro"]}"#, "!bad_dimension");
    check(&format!(r#","data":{{"plan":"{}"}}"#, "p".repeat(129)), "!bad_dimension");
    check(&format!(r#","data":{{"prompt":"{}"}}"#, "p".repeat(100_000)), "id api.calls x 1");
    check_with("type", Some("\"unknown\""), "id unknown x 1");
}

#[test]
fn rules_that_list_more_dimensions_than_a_line_holds_reject_what_has_them_all() {
    let mut rules = rules();
    rules.meters[0].dimensions = (10..27).map(|index| format!("d{index}")).collect();
    let read = |dimensions: std::ops::Range<u32>| {
        let data: Vec<_> = dimensions.map(|index| format!(r#""d{index}":0"#)).collect();
        let body = event(&format!(r#","data":{{{}}}"#, data.join(",")));
        let messages = messages(body.as_bytes(), Shape::One, &rules, &Naming::default()).unwrap();
        show(&messages[0].1)
    };
    assert_eq!(read(10..27), "!too_many_dimensions");
    assert!(read(10..26).starts_with("id api.calls x d10=0 "));
}

/// An event of this type with this `data`.
fn check_rule(event_type: &str, data: &str, expected: &str) {
    let body = format!(
        r#"{{"specversion":"1.0","id":"1","source":"s","type":"{event_type}","subject":"x","data":{data}}}"#
    );
    check_body(&body, Shape::One, &format!("1: {expected}"));
}

#[test]
fn rules_say_what_an_event_comes_to() {
    check_rule(
        "Prompt",
        r#"{"usage":{"tokens":"12","model":"m1"},"plan":"pro","value":3}"#,
        "id tokens x model=m1 plan=pro producer=s 12 + prompts x 3",
    );
    check_rule("Prompt", r#"{"usage":{}}"#, "id !bad_quantity + prompts x 1");
    check_rule("Prompt", r#"{"usage":[1]}"#, "id !bad_quantity + prompts x 1");
    check_rule("Prompt", r#"{"usage":{"tokens":1,"tokens":2}}"#, "id !bad_quantity + prompts x 1");
    check_rule("Prompt", r#"{"usage":{"tokens":1,"model":{}}}"#, "id !bad_dimension + prompts x 1");
    check_rule("Login", r#"{"user":"u7","value":"not looked at"}"#, "id users x 'u7'");
    check_rule("Login", r#"{"user":7}"#, "id users x '7'");
    for bad in ["{}", r#"{"user":null}"#, r#"{"user":""}"#, r#"{"user":{}}"#] {
        check_rule("Login", bad, "id !bad_unique");
    }
    check_rule("ignored", "{}", "not_metered");
}

#[test]
fn one_bad_event_never_costs_its_neighbours() {
    let good = event("");
    let body = format!(
        r#"[{good}, null, 7, "x", [], {{}}, [{good}], {{"id":"9"}}, {}, {good}]"#,
        event(r#","time":0"#)
    );
    check_body(
        &body,
        Shape::Batch,
        "1: id api.calls x 1\n-: !bad_cloudevent\n-: !bad_cloudevent\n-: !bad_cloudevent\n-: !bad_cloudevent\n\
         -: !bad_cloudevent\n-: !bad_cloudevent\n9: !bad_cloudevent\n1: !bad_time\n1: id api.calls x 1",
    );
    let many = (0..2_000).map(|index| format!(r#""{index}":0"#)).collect::<Vec<_>>().join(",");
    check_body(
        &format!("[{{{many}}},{good}]"),
        Shape::Either,
        "-: !bad_cloudevent\n1: id api.calls x 1",
    );
    let deep = format!("{}{}", r#"{"data":"#.repeat(10_000), "1".to_owned() + &"}".repeat(10_000));
    check_body(
        &format!("[{deep},{good}]"),
        Shape::Either,
        "-: !bad_cloudevent\n1: id api.calls x 1",
    );
}

#[test]
fn shapes() {
    let (one, batch) = (event(""), format!("[{}]", event("")));
    let expected = "1: id api.calls x 1";
    check_body(&one, Shape::One, expected);
    check_body(&one, Shape::Either, expected);
    check_body(&batch, Shape::Batch, expected);
    check_body(&batch, Shape::Either, expected);
    check_body("[]", Shape::Batch, "");
    // The shape of another product's client that posts to the same path.
    check_body(r#"{"event":{"transaction_id":"1"}}"#, Shape::Either, "-: !bad_cloudevent");
    let refused = |body: &str, shape| match read(body.as_bytes(), shape) {
        Err(BodyError::Shape { expected }) => expected,
        other => panic!("{body}: {other:?}"),
    };
    assert_eq!(refused(&batch, Shape::One), "an object");
    assert_eq!(refused(&one, Shape::Batch), "an array");
    assert_eq!(refused("7", Shape::Either), "an object or an array");
    assert_eq!(refused("null", Shape::One), "an object");
}

#[test]
fn a_body_that_is_not_json_is_refused_whole() {
    let whole = format!("[{}]", event(""));
    let broken: Vec<&[u8]> =
        vec![b"", b"[", b"{} {}", b"[NaN]", b"\xff", b"[\"\xff\"]", &[0; 100], b"\xef\xbb\xbf[]"];
    let truncated = (0..whole.len()).map(|length| &whole.as_bytes()[..length]);
    for body in broken.into_iter().chain(truncated) {
        let error = read(body, Shape::Either).unwrap_err();
        assert!(matches!(error, BodyError::NotJson { .. }), "{}: {error}", body.escape_ascii());
    }
    assert!(matches!(
        read("[".repeat(1_000_000).as_bytes(), Shape::Batch),
        Err(BodyError::NotJson { .. })
    ));
}

#[test]
fn a_batch_has_a_maximum() {
    let batch = |events: usize| format!("[{}]", vec!["0"; events].join(","));
    let read =
        |events| messages(batch(events).as_bytes(), Shape::Batch, &rules(), &Naming::default());
    assert_eq!(read(EVENTS_MAX).unwrap().len(), EVENTS_MAX);
    assert_eq!(read(EVENTS_MAX + 1), Err(BodyError::TooManyEvents { events_max: EVENTS_MAX }));
}
