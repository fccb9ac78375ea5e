//! Which letters can be replayed as they are, and what is said of those that cannot.

use tidemark_common::code::EvidenceCode;
use tidemark_common::time::Timestamp;

use super::*;

fn letter(door: Door, reason: EvidenceCode, text: &str, corrected: Option<&str>) -> Letter {
    let stored = StoredDeadLetter {
        number: 7,
        at: Timestamp(1_800_000_000_000),
        door: Some(door),
        reason: Some(reason),
        bytes: text.as_bytes().to_vec(),
    };
    Letter { stored, corrected: corrected.map(str::to_owned) }
}

/// `expected`: the number of events that go to intake, or why the letter stays.
fn check(letter: Letter, expected: &str) {
    let rules = Rules::default();
    let shown =
        format!("{:?} as {:?}", String::from_utf8_lossy(&letter.stored.bytes), letter.corrected);
    let (replays, kept) = read_again(&[letter], Some(&rules), &Naming::default());
    let found = match (replays.as_slice(), kept.as_slice()) {
        ([replay], []) => replay.message.events.len().to_string(),
        ([], [kept]) => kept.reason.clone(),
        _ => panic!("{shown}: {replays:?} {kept:?}"),
    };
    assert_eq!(found, expected, "{shown}");
}

#[test]
fn as_it_is_only_where_the_bytes_are_what_was_rejected() {
    use EvidenceCode as Code;
    let as_is = |door, reason, text: &str| letter(door, reason, text, None);
    let good = "calls:1|c|#customer:a";
    check(as_is(Door::Udp, Code::RejectedTooOld, good), "1");
    check(as_is(Door::Events, Code::RejectedMalformed, r#"{"meter":"calls","customer":"a"}"#), "1");
    check(as_is(Door::Udp, Code::RejectedMalformed, r#"{"meter":"calls","customer":"a"}"#), "1");
    check(as_is(Door::Udp, Code::RejectedNoCustomer, "calls:1|c"), "no_customer");
    check(as_is(Door::Udp, Code::RejectedSampled, "calls:1|c|@0.5|#customer:a"), "sampled");
    check(as_is(Door::Udp, Code::RejectedMalformed, "datadog.x:1|c"), "not_metered");
    // Cut on its way in, or when it was kept.
    check(as_is(Door::Events, Code::RejectedTruncated, good), "cut");
    check(as_is(Door::DsdStream, Code::RejectedOversize, good), "cut");
    let long = format!("{good},t:{}", "x".repeat(5_000));
    check(as_is(Door::Udp, Code::RejectedBadDimension, &long[..RAW_BYTES_MAX]), "cut");
    // Of this line two values were counted; and of that one none.
    check(as_is(Door::Udp, Code::RejectedBadQuantity, "calls:1:x:3|c|#customer:a"), "packed");
    check(as_is(Door::Udp, Code::RejectedTooOld, "calls:1:2|c|#customer:a"), "packed");
    check(as_is(Door::Udp, Code::RejectedBadCustomer, "calls:1:2|c|#customer:a"), "2");
    let long = format!("calls:{}|c|#customer:a", vec!["1"; 3_000].join(":"));
    check(as_is(Door::Udp, Code::RejectedTooManyValues, &long[..RAW_BYTES_MAX]), "packed");
    let mut newer = as_is(Door::Udp, Code::RejectedTooOld, good);
    newer.stored.reason = None;
    check(newer, "newer");
}

#[test]
fn a_mended_text_stands_for_itself() {
    let mended = |text| letter(Door::Udp, EvidenceCode::RejectedTruncated, "calls:1", Some(text));
    check(mended("calls:1|c|#customer:a"), "1");
    check(mended("calls:1:2|c|#customer:a"), "2");
    check(mended(r#"{"meter":"calls","customer":"a"}"#), "1");
    check(mended("calls:1|c"), "no_customer");
    check(mended(&"x".repeat(65_537)), "oversize");
}

#[test]
fn of_a_packed_line_a_letter_is_one_value_unless_all_of_it_was_rejected() {
    use EvidenceCode as Code;
    fn check(door: Door, reason: EvidenceCode, text: &str, expected: Share) {
        let mended = letter(door, reason, text, Some("calls:5|c|#customer:a,id:7"));
        let (replays, kept) = read_again(&[mended], None, &Naming::default());
        let found: Vec<_> = replays.iter().map(|replay| replay.share).collect();
        assert!(found == [expected] && kept.is_empty(), "{text}: {found:?} {kept:?}");
    }
    let packed = "calls:1:x|c|#customer:a,id:7";
    for door in [Door::Udp, Door::UnixDatagram, Door::DsdStream, Door::Events] {
        check(door, Code::RejectedBadQuantity, packed, Share::OneValue);
        check(door, Code::RejectedTooOld, packed, Share::OneValue);
        check(door, Code::RejectedBadDimension, packed, Share::Whole);
        check(door, Code::RejectedTruncated, packed, Share::Whole);
        check(door, Code::RejectedBadQuantity, "calls:x|c|#customer:a,id:7", Share::Whole);
    }
    // Names of tags and customers may mean something else by now.
    check(Door::Udp, Code::RejectedBadQuantity, "calls:1:x|c|#who:a,id:7", Share::OneValue);
    check(Door::Udp, Code::RejectedBadTime, "calls:1:2|c|#customer:a,id:7|Tx", Share::Whole);
    check(Door::Udp, Code::RejectedBadUnique, "calls:a:b|s|#customer:a,id:7", Share::Whole);
    let json = r#"{"meter":"calls","customer":"a","quantity":"x","id":"7"}"#;
    check(Door::Events, Code::RejectedBadQuantity, json, Share::Whole);
    // What was kept of these ends before their type.
    let cut = |values: &str| format!("calls:{values}")[..RAW_BYTES_MAX].to_owned();
    let many = cut(&"1:".repeat(3_000));
    check(Door::Udp, Code::RejectedTooManyValues, &many, Share::OneValue);
    check(Door::Udp, Code::RejectedBadUnique, &many, Share::Whole);
    check(Door::Udp, Code::RejectedBadTime, &many, Share::Whole);
    check(Door::Udp, Code::RejectedBadQuantity, &cut(&"1".repeat(6_000)), Share::Whole);

    // The whole line, mended, would count the others once more.
    let whole =
        letter(Door::Udp, Code::RejectedBadQuantity, packed, Some("calls:1:5|c|#customer:a"));
    tests::check(whole, "packed");
}

#[test]
fn cloud_events_are_read_by_the_rules_of_now() {
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"calls","subject":"a"}"#;
    let of = |text| letter(Door::Http, EvidenceCode::RejectedBadCloudEvent, text, None);
    check(of(event), "1");
    check(of("[]"), "bad_cloudevent");
    check(of("{"), "bad_cloudevent");
    let (replays, kept) = read_again(&[of(event)], None, &Naming::default());
    assert!(replays.is_empty());
    assert_eq!(kept[0].reason, "no_rules");
}
