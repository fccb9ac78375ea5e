use proptest::prelude::*;

use super::super::tests::{naming, show};
use super::*;

fn check(line: &[u8], expected: &str) {
    assert_eq!(show(&message(line, &Naming::default())), expected, "{}", line.escape_ascii());
}

/// A count of customer `x` with these further tags.
fn check_tags(tags: &str, expected: &str) {
    check(format!("a:1|c|#customer:x,{tags}").as_bytes(), expected);
}

#[test]
fn what_real_clients_send() {
    check(b"billing.api_calls:3|c|#customer:acme,plan:pro", "billing.api_calls acme plan=pro 3");
    check(b"x.y:5|c|#customer:a|T1795362675", "x.y a @1795362675000 5");
    check(b"m:1:2.5:3|d|#customer:a", "m a 1 + m a 2.5 + m a 3");
    check(b"mau:u1|s|#customer:a", "mau a 'u1'");
    check(b"t:3.2|ms|#customer:a|c:ci-abc|e:it-false,cn-x|card:low|later", "t a 3.2");
    check(b"g:-4.50|g|@1|#customer:a", "g a -4.5");
    check(b"g:+4|g|@1.000|#customer:a", "g a 4");
    check(b"h:1e3|h|#customer:a||", "h a 1000");
    check(b"x:5|c|T1795362675|#customer:a", "x a @1795362675000 5");
}

#[test]
fn sets_are_one_value_whatever_they_hold() {
    check(b"u:a:b:c|s|#customer:x", "u x 'a:b:c'");
    check(b"u:1|s|#customer:x", "u x '1'");
    check(b"u:|s|#customer:x", "!bad_unique");
    check(
        &[b"u:", "v".repeat(512).as_bytes(), b"|s|#customer:x"].concat(),
        &format!("u x '{}'", "v".repeat(512)),
    );
    check(&[b"u:", "v".repeat(513).as_bytes(), b"|s|#customer:x"].concat(), "!bad_unique");
    check(b"u:\xff|s|#customer:x", "!not_utf8");
}

#[test]
fn a_bad_value_rejects_itself_only() {
    check(
        b"m:1:x:nan:2:-inf:0.0000000001:1e15::3|d|#customer:a",
        "m a 1 + !bad_quantity + !not_finite + m a 2 + !not_finite + !too_precise + !too_large + !bad_quantity + m a 3",
    );
    check(b"m:|c|#customer:a", "!bad_quantity");
    check(b"m:\xff\xfe|c|#customer:a", "!bad_quantity");
    check(b"m:1 |c|#customer:a", "!bad_quantity");
    check(b"m:999999999999999.999999999|c|#customer:a", "m a 999999999999999.999999999");
}

#[test]
fn values_beyond_the_maximum_are_each_rejected() {
    let line = format!("m{}|c|#customer:a", ":1".repeat(PACKED_VALUES_MAX + 2));
    let raw = split(line.as_bytes()).unwrap();
    let (taken, rejected): (Vec<_>, Vec<_>) = values(&raw).partition(Result::is_ok);
    assert_eq!(taken.len(), PACKED_VALUES_MAX);
    assert_eq!(rejected, [Err(RejectReason::TooManyValues); 2]);
}

#[test]
fn lines_that_do_not_hold_together() {
    let lines: [&[u8]; 11] = [
        b"",
        b"a",
        b"a:",
        b"a:1",
        b":1|c",
        b"a|1:c",
        b"|",
        b":",
        b"\xff\xfe\x00",
        b"a:1|c|#x:1|#y:2",
        b"a:1|c|T1|T1",
    ];
    for line in lines {
        check(line, "!malformed");
    }
    for kind in ["", "C", "m", "cc", "c ", "\u{e9}", "#customer:a"] {
        check(format!("a:1|{kind}").as_bytes(), "!unsupported_type");
    }
}

#[test]
fn every_truncation_of_a_line_is_judged() {
    let line: &[u8] = b"api.calls:1:2|c|@1|#customer:acme,plan:pro|T1795362675";
    let whole = split(line).unwrap();
    for length in 0..line.len() {
        assert_ne!(split(&line[..length]), Ok(whole), "{length}");
    }
}

#[test]
fn a_bill_is_never_estimated() {
    for rate in ["0.999", "0.5", "", "1.", "2", "x", "1.0001", "01", "-1"] {
        let expected = if rate == "1." { "a x 1" } else { "!sampled" };
        check(format!("a:1|c|@{rate}|#customer:x").as_bytes(), expected);
    }
}

#[test]
fn service_checks_and_events_are_named() {
    check(b"_sc|disk|0|#customer:a", "!service_check");
    check(b"_e{1,1}:t|b|#customer:a", "!dogstatsd_event");
    check(b"_x:1|c|#customer:a", "!bad_meter");
}

#[test]
fn times_are_unix_seconds() {
    check(b"a:1|c|#customer:x|T0", "a x @0 1");
    for time in ["", "x", "-1", "1.5", "+1", "9999999999999999999"] {
        check(format!("a:1|c|#customer:x|T{time}").as_bytes(), "!bad_time");
    }
    check(b"a:1|c|#customer:x|T999999999999999999", "a x @9223372036854775807 1");
}

#[test]
fn names_and_customers() {
    check(b"Api:1|c|#customer:x", "!bad_meter");
    check(format!("{}:1|c|#customer:x", "a".repeat(65)).as_bytes(), "!bad_meter");
    check(b"\xff:1|c|#customer:x", "!not_utf8");
    check(b"a:1|c", "!no_customer");
    check(b"a:1|c|#plan:pro", "!no_customer");
    check(b"a:1|c|#customer:", "!bad_customer");
    check(b"a:1|c|#customer", "!bad_customer");
    check(b"a:1|c|#customer:x\x01", "!bad_customer");
    check(b"a:1|c|#customer:\xff", "!not_utf8");
    check_tags("customer:x", "a x 1");
    check_tags("customer:y", "!bad_customer");
    check("a:1|c|#customer:客户:7".as_bytes(), "a 客户:7 1");
}

#[test]
fn dimensions_are_sorted_and_unambiguous() {
    check_tags("plan:pro,az:eu:1,beta,,", "a x az=eu:1 beta= plan=pro 1");
    check_tags("plan:pro,plan:pro", "a x plan=pro 1");
    check_tags("plan:pro,plan:free", "!bad_dimension");
    check_tags("plan,plan:free", "!bad_dimension");
    check_tags(":v", "!bad_dimension");
    check_tags(&format!("{}:v", "n".repeat(65)), "!bad_dimension");
    check_tags(&format!("n:{}", "v".repeat(129)), "!bad_dimension");
    check_tags("n:\u{1}", "!bad_dimension");
    let many =
        |count: u32| (0..count).map(|index| format!("d{index:02}:v")).collect::<Vec<_>>().join(",");
    let kept = many(16).replace(':', "=").replace(',', " ");
    check_tags(&many(16), &format!("a x {kept} 1"));
    check_tags(&format!("{},d00:v", many(16)), &format!("a x {kept} 1"));
    check_tags(&many(17), "!too_many_dimensions");
}

#[test]
fn ids_and_sources() {
    check_tags("id:7", "id a x 1");
    check_tags("id:7,id:7", "id a x 1");
    check_tags("id:7,id:8", "!bad_id");
    check_tags("id", "!bad_id");
    check_tags(&format!("id:{}", "i".repeat(129)), "!bad_id");
    check_tags("source:web-1,source_seq:18446744073709551615", "web-1#18446744073709551615 a x 1");
    check_tags("source:web-1", "a x 1");
    check_tags("source_seq:1", "!bad_source");
    check_tags("source:,source_seq:1", "!bad_source");
    check_tags("source:a,source:b", "!bad_source");
    check_tags(&format!("source:{}", "s".repeat(257)), "!bad_source");
    for count in ["", "-1", "+1", "1.0", "x", "18446744073709551616"] {
        check_tags(&format!("source:a,source_seq:{count}"), "!bad_source");
    }
}

#[test]
fn the_key_is_source_name_and_id_whatever_else_changes() {
    let id = |line: &[u8]| match message(line, &Naming::default()) {
        Parsed::Message(message) => message.id,
        Parsed::NotMetered { .. } | Parsed::Rejected(_) => None,
    };
    let first = id(b"a:1|c|#customer:x,id:7,source:s|T5");
    assert_eq!(first, Some(IdDigest::of("s", "a", "7")));
    assert_eq!(first, id(b"a:2:3|g|#source:s,customer:y,id:7|T6"));
    assert_ne!(first, id(b"a:1|c|#customer:x,id:7"));
    assert_ne!(first, id(b"b:1|c|#customer:x,id:7,source:s"));
}

#[test]
fn special_tags_can_have_other_names() {
    let naming = naming(|options| {
        options.customer_tag = "tenant".to_owned();
        options.id_tag = "key".to_owned();
        options.source_tag = "host".to_owned();
        options.source_count_tag = "n".to_owned();
    });
    let line = b"a:1|c|#tenant:x,key:1,host:h,n:4,customer:y,id:z";
    assert_eq!(show(&message(line, &naming)), "id h#4 a x customer=y id=z 1");
}

#[test]
fn clients_without_tags_are_served_by_pattern_and_default() {
    let naming = naming(|options| {
        options.name_patterns = vec!["{customer}.{meter}".to_owned()];
        options.customer_default = Some("house".to_owned());
    });
    let check = |line: &[u8], expected: &str| assert_eq!(show(&message(line, &naming)), expected);
    check(b"acme.calls:2|c", "calls acme 2");
    check(b"calls:2|c", "calls house 2");
    check(b"acme.calls:2|c|#customer:x", "acme.calls x 2");
}

#[test]
fn what_is_not_usage_is_not_rejected_however_it_is_sent() {
    check(b"datadog.a:1|c", "not_metered");
    check(b"datadog.a:1|c|@0.1|#customer:x", "not_metered");
    check(b"datadog.a:1|zz", "not_metered");
    check(b"datadog.a:x|c|#\xff", "not_metered");
    check(b"datadog.a", "!malformed");
}

#[test]
fn datagrams_are_cut_into_lines() {
    let lines: Vec<_> = lines(b"a\n\nb\r\n\r\nc\r\r\n").collect();
    assert_eq!(lines, [&b"a"[..], b"b", b"c\r"]);
    assert_eq!(super::lines(b"").count(), 0);
}

proptest! {
    #[test]
    fn finding_eight_bytes_a_step_finds_the_first(
        bytes in proptest::collection::vec(prop_oneof![Just(b'|'), Just(b'}'), Just(b'{'), any::<u8>()], 0..40),
        wanted in prop_oneof![Just(b'|'), any::<u8>()],
    ) {
        prop_assert_eq!(find(&bytes, wanted), bytes.iter().position(|byte| *byte == wanted));
    }
}
