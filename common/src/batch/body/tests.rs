//! Bodies that are read back, and bodies that must be refused.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of a test are its own")]

use std::collections::BTreeMap;
use std::io::Write;

use proptest::prelude::*;

use super::super::golden;
use super::super::{BODY_VERSION, Codec, Header, KeyedId, LineId, LineKey, series_bytes};
use super::*;
use crate::id::EventNumber;
use crate::quantity::{Quantity, UNITS_LIMIT};
use crate::time::Timestamp;

fn zstd(raw: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(raw, ZSTD_LEVEL).unwrap()
}

/// The golden header, made to fit `stored`: all that is wrong is in the body.
fn header(codec: Codec, raw_length: usize, stored: &[u8]) -> Header {
    Header {
        codec,
        raw_length: u32::try_from(raw_length).unwrap(),
        stored_length: u32::try_from(stored.len()).unwrap(),
        body_digest: digest(stored),
        ..golden::header()
    }
}

fn header_of(body: &EncodedBody, events: u64) -> Header {
    Header {
        codec: body.codec,
        raw_length: body.raw_length,
        stored_length: u32::try_from(body.stored.len()).unwrap(),
        body_digest: body.body_digest,
        lines: body.lines,
        lines_root: body.lines_root,
        first_bucket: body.first_bucket,
        last_bucket: body.last_bucket,
        body_version: BODY_VERSION,
        first_event: EventNumber(0),
        end_event: EventNumber(events),
        ..golden::header()
    }
}

fn write(lines: &[Line]) -> Result<EncodedBody, BodyError> {
    let mut writer = BodyWriter::new(golden::SALT, &golden::evidence());
    for Line { key, value } in lines {
        writer.line(&key.series(), key.bucket, key.part, value)?;
    }
    writer.finish()
}

/// Opens `raw` under a header that fits it in length and digest, by both codecs.
fn check(case: &str, raw: &[u8], expected: Result<(), BodyError>) {
    for (codec, stored) in [(Codec::Raw, raw.to_vec()), (Codec::Zstd, zstd(raw))] {
        let opened = Body::open(&header(codec, raw.len(), &stored), &stored);
        assert_eq!(opened.map(|_| ()), expected, "{case}, {codec:?}");
    }
}

/// The golden raw body with `bytes` in place of those at `range`.
fn spliced(range: std::ops::Range<usize>, bytes: &[u8]) -> Vec<u8> {
    let mut raw = golden::raw_body();
    raw.splice(range, bytes.iter().copied());
    raw
}

const LINES_AT: usize = 32 + 2 + 3 * 10;
const LINE_BYTES: usize = 4 + 138;

#[test]
fn refused_raw_forms() {
    check("as it should be", &golden::raw_body(), Ok(()));
    for length in 0..golden::raw_body().len() {
        let raw = &golden::raw_body()[..length];
        let stored = zstd(raw);
        for (header, stored) in [
            (header(Codec::Raw, length, raw), raw),
            (header(Codec::Zstd, length, &stored), &stored),
        ] {
            let opened = Body::open(&header, stored);
            assert!(
                matches!(opened, Err(BodyError::Truncated { .. })),
                "{length} bytes: {opened:?}"
            );
        }
    }
    check(
        "one byte more",
        &spliced(348..348, &[0]),
        Err(BodyError::Trailing { raw: 1, stored: 0 }),
    );
    check("evidence twice", &spliced(44..46, &[0, 1]), Err(BodyError::EvidenceOrder { code: 1 }));
    check(
        "evidence descends",
        &spliced(54..56, &[0, 2]),
        Err(BodyError::EvidenceOrder { code: 2 }),
    );
    let second = golden::raw_body()[LINES_AT + LINE_BYTES..].to_vec();
    let first = golden::raw_body()[LINES_AT..LINES_AT + LINE_BYTES].to_vec();
    let lines = LINES_AT..LINES_AT + 2 * LINE_BYTES;
    check(
        "swapped",
        &spliced(lines.clone(), &[&second[..], &first].concat()),
        Err(BodyError::Order { index: 1 }),
    );
    check(
        "twice",
        &spliced(lines, &[&first[..], &first].concat()),
        Err(BodyError::Order { index: 1 }),
    );
    let bad = LineError::Name {
        field: "its meter",
        error: crate::id::NameError::Character { found: 'S' },
    };
    check(
        "bad name",
        &spliced(LINES_AT + 6..LINES_AT + 7, b"S"),
        Err(BodyError::Line { index: 0, error: bad }),
    );
    let long = LineError::Trailing { bytes: 4 };
    check(
        "long line",
        &spliced(LINES_AT + 3..LINES_AT + 4, &[142]),
        Err(BodyError::Line { index: 0, error: long }),
    );
    let huge = spliced(LINES_AT..LINES_AT + 4, &[0x7f, 0xff, 0xff, 0xff]);
    check("a length of 2 GiB", &huge, Err(BodyError::Truncated { field: "a line" }));
    let other_salt =
        Body::open(&header(Codec::Raw, 348, &spliced(0..1, &[9])), &spliced(0..1, &[9]));
    assert!(matches!(other_salt, Err(BodyError::Root { .. })), "{other_salt:?}");
}

#[test]
fn refused_headers() {
    let stored = golden::raw_body();
    let check = |change: &dyn Fn(&mut Header), expected: BodyError| {
        let mut header = golden::header();
        change(&mut header);
        assert_eq!(Body::open(&header, &stored), Err(expected));
    };
    let body_digest = golden::header().body_digest;
    for version in [0, BODY_VERSION + 1] {
        check(&|header| header.body_version = version, BodyError::Version { version });
    }
    check(&|header| header.stored_length = 347, BodyError::StoredLength { said: 347, bytes: 348 });
    check(&|header| header.raw_length = 349, BodyError::Trailing { raw: 1, stored: 0 });
    check(&|header| header.raw_length = 347, BodyError::Truncated { field: "a line" });
    check(
        &|header| header.lines = 1,
        BodyError::Root { said: golden::header().lines_root, found: first_root() },
    );
    check(&|header| header.lines = 3, BodyError::Truncated { field: "the length of a line" });
    check(
        &|header| header.lines = BODY_LINES_MAX,
        BodyError::Truncated { field: "the length of a line" },
    );
    check(
        &|header| header.lines = BODY_LINES_MAX + 1,
        BodyError::TooManyLines { lines: BODY_LINES_MAX + 1, lines_max: BODY_LINES_MAX },
    );
    check(
        &|header| header.body_digest = Digest([0; 32]),
        BodyError::Digest { said: Digest([0; 32]), found: body_digest },
    );
    check(
        &|header| header.lines_root = Digest([0; 32]),
        BodyError::Root { said: Digest([0; 32]), found: golden::header().lines_root },
    );
    check(&|header| header.end_event = EventNumber(14), BodyError::Events { said: 4, found: 3 });
    let found = (Bucket(1_888_888), Bucket(1_888_889));
    let said = (Bucket(1_888_887), Bucket(1_888_889));
    check(&|header| header.first_bucket = said.0, BodyError::Buckets { said, found });
    let said = (Bucket(1_888_888), Bucket(1_888_890));
    check(&|header| header.last_bucket = said.1, BodyError::Buckets { said, found });
    let bytes_max = BODY_RAW_BYTES_MAX;
    check(
        &|header| header.raw_length = u32::MAX,
        BodyError::RawTooLarge { bytes: u32::MAX as usize, bytes_max },
    );
}

fn first_root() -> Digest {
    let line = &golden::raw_body()[LINES_AT + 4..LINES_AT + LINE_BYTES];
    leaf(&Salts::new(&golden::SALT).of(0), 0, line)
}

/// The golden body with `extras`, drawn by hand, in place of those of version 2.
fn open_with_extras(extras: &[u8]) -> Result<Extras, BodyError> {
    let raw = spliced(LINES_AT..LINES_AT, extras);
    let header = Header { body_version: 2, ..header(Codec::Raw, raw.len(), &raw) };
    Body::open(&header, &raw).map(|body| body.extras)
}

#[test]
fn refused_extras() {
    assert_eq!(open_with_extras(&[0, 0]), Ok(Extras::default()));
    let unknown = open_with_extras(&[0, 1, 0, 9, 0, 0, 0, 1, 5]).unwrap();
    assert_eq!(unknown.iter().collect::<Vec<_>>(), [(9, &[5][..])]);
    let refused = |error| Err(BodyError::Extras { error });
    let twice = [0, 2, 0, 9, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
    assert_eq!(open_with_extras(&twice), refused(ExtrasError::Order { tag: 9 }));
    let short = [0, 1, 0, 1, 0, 0, 0, 1, 5];
    assert_eq!(open_with_extras(&short), refused(ExtrasError::Length { tag: 1, bytes: 1 }));
    let of_line_2 = [&[0, 1, 0, 2, 0, 0, 0, 22, 0, 1, 0, 0, 0, 2][..], &[7; 16]].concat();
    assert_eq!(open_with_extras(&of_line_2), refused(ExtrasError::LineId { line: 2 }));
    let long = open_with_extras(&[0, 1, 0, 9, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(long, Err(BodyError::Truncated { field: "its extras" }));
}

#[test]
fn the_writer_writes_no_extras_that_no_reader_takes() {
    let with_id_of = |line| {
        let mut extras = Extras::default();
        extras.set_line_ids(1, &[LineId { line, id: KeyedId([7; 16]) }]);
        let mut writer = BodyWriter::with_extras(golden::SALT, &Evidence::default(), extras);
        let series = series_bytes("m", "c", &[]);
        writer.line(&series, Bucket(1), 0, &LineValue::default()).unwrap();
        writer.finish().map(|body| body.lines)
    };
    assert_eq!(with_id_of(0), Ok(1));
    let error = ExtrasError::LineId { line: 1 };
    assert_eq!(with_id_of(1), Err(BodyError::Extras { error }));
    let mut extras = Extras::default();
    extras.push(9, vec![0; BODY_RAW_BYTES_MAX]).unwrap();
    let large = BodyWriter::with_extras(golden::SALT, &Evidence::default(), extras).finish();
    assert!(matches!(large, Err(BodyError::RawTooLarge { .. })), "{large:?}");
}

#[test]
fn compression_is_bounded_and_whole() {
    let raw = golden::raw_body();
    let whole = zstd(&raw);
    let open =
        |stored: &[u8]| Body::open(&header(Codec::Zstd, raw.len(), stored), stored).map(|_| ());
    assert_eq!(open(&whole), Ok(()));

    let bomb = zstd(&[&raw[..], &vec![0; 8 << 20]].concat());
    assert!(bomb.len() < 4_096, "8 MiB of zeros, in {} bytes", bomb.len());
    assert!(matches!(open(&bomb), Err(BodyError::Trailing { raw: 1, .. })));
    assert_eq!(open(&[&whole[..], b"x"].concat()), Err(BodyError::Trailing { raw: 0, stored: 1 }));
    let second_frame = open(&[&whole[..], &whole].concat());
    assert_eq!(second_frame, Err(BodyError::Trailing { raw: 0, stored: whole.len() }));
    for cut in [0, 1, 8, whole.len() / 2] {
        assert!(matches!(open(&whole[..cut]), Err(BodyError::Truncated { .. })), "{cut} bytes");
    }
    let without_end = open(&whole[..whole.len() - 1]);
    assert!(without_end.is_err(), "the last byte of a frame is missing");
    assert!(matches!(open(&raw), Err(BodyError::Compression { .. })), "no zstd at all");
    let skippable = [&b"\x50\x2a\x4d\x18\x01\x00\x00\x00x"[..], &whole].concat();
    assert!(open(&skippable).is_err(), "a body is one frame");
}

#[test]
fn a_frame_may_not_ask_for_more_window_than_8_mib() {
    let framed = |window_log| {
        let mut encoder = Encoder::new(Vec::new(), ZSTD_LEVEL).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&golden::raw_body()).unwrap();
        encoder.finish().unwrap()
    };
    let open = |stored: &[u8]| Body::open(&header(Codec::Zstd, 348, stored), stored).map(|_| ());
    assert_eq!(open(&framed(23)), Ok(()));
    assert!(matches!(open(&framed(24)), Err(BodyError::Compression { .. })));
}

#[test]
fn a_small_body_is_stored_as_it_is_unless_zstd_makes_it_smaller() {
    let plain = BodyWriter::new([0xa5; 32], &Evidence::default()).finish().unwrap();
    assert_eq!((plain.codec, plain.raw_length), (Codec::Zstd, 36), "a salt of one byte 32 times");
    assert!(plain.stored.len() < 36);
    let salted = BodyWriter::new(golden::SALT, &Evidence::default()).finish().unwrap();
    assert_eq!((salted.codec, salted.stored.len(), salted.raw_length), (Codec::Raw, 36, 36));
    assert_eq!((salted.first_bucket, salted.last_bucket, salted.lines), (Bucket(0), Bucket(0), 0));
    let body = Body::open(&header_of(&salted, 0), &salted.stored).unwrap();
    let extras = Extras::default();
    let empty = Body { salt: golden::SALT, evidence: Evidence::default(), extras, lines: vec![] };
    assert_eq!(body, empty);
}

#[test]
fn buckets_are_the_least_and_the_greatest_of_all_lines() {
    let mut writer = BodyWriter::new(golden::SALT, &Evidence::default());
    for (meter, bucket) in [("a", 7), ("b", 3), ("b", 9), ("c", 5)] {
        writer
            .line(&series_bytes(meter, "c", &[]), Bucket(bucket), 0, &LineValue::default())
            .unwrap();
    }
    let body = writer.finish().unwrap();
    assert_eq!((body.first_bucket, body.last_bucket), (Bucket(3), Bucket(9)));
}

/// `count` digests without pattern, ascending.
fn digests(count: u64) -> Vec<[u8; 16]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut digests: Vec<[u8; 16]> = (0..count)
        .map(|index| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (u128::from(index) << 100 | u128::from(state) << 36).to_be_bytes()
        })
        .collect();
    digests.sort_unstable();
    digests
}

fn unique_value(count: u64) -> LineValue {
    LineValue {
        events: count,
        unique_events: count,
        uniques: digests(count),
        ..LineValue::default()
    }
}

#[test]
fn a_line_beyond_the_raw_limit_is_refused_and_the_body_still_finishes() {
    let (value, value_bytes) = (unique_value((2 << 20) - 64), 102);
    let mut writer = BodyWriter::new(golden::SALT, &Evidence::default());
    writer.line(&series_bytes("m", "c", &[]), Bucket(1), 0, &value).unwrap();
    let refused = writer.line(&series_bytes("m", "c", &[]), Bucket(1), 1, &value);
    let line = series_bytes("m", "c", &[]).len() + 6 + value_bytes + 16 * value.uniques.len();
    let bytes = writer.raw_length() + 4 + line;
    assert_eq!(refused, Err(BodyError::RawTooLarge { bytes, bytes_max: BODY_RAW_BYTES_MAX }));
    assert_eq!(writer.lines(), 1);
    let stored = writer.finish().map(|body| body.stored.len());
    assert!(matches!(stored, Err(BodyError::StoredTooLarge { .. })), "{stored:?}");
}

#[test]
fn a_line_beyond_the_limit_of_lines_is_refused() {
    let (series, value) = (series_bytes("m", "c", &[]), LineValue::default());
    let mut writer = BodyWriter::new(golden::SALT, &Evidence::default());
    for bucket in 0..BODY_LINES_MAX {
        writer.line(&series, Bucket(bucket), 0, &value).unwrap();
    }
    let refused = writer.line(&series, Bucket(BODY_LINES_MAX), 0, &value);
    let (lines, lines_max) = (BODY_LINES_MAX + 1, BODY_LINES_MAX);
    assert_eq!(refused, Err(BodyError::TooManyLines { lines, lines_max }));
    assert_eq!(writer.lines(), BODY_LINES_MAX);
}

#[test]
fn long_lines_are_read_back() {
    let value = unique_value(100_000);
    let mut writer = BodyWriter::new(golden::SALT, &Evidence::default());
    writer.line(&series_bytes("m", "c", &[]), Bucket(1), 0, &value).unwrap();
    let body = writer.finish().unwrap();
    assert_eq!(body.codec, Codec::Zstd);
    let opened = Body::open(&header_of(&body, 100_000), &body.stored).unwrap();
    assert_eq!(opened.lines[0].value, value);
}

/// Found by `tests/fuzz`: a sum of events that stops at 64 bits is no sum.
#[test]
fn lines_of_more_events_than_64_bits_are_no_body() {
    let mut lines = golden::lines();
    lines[0].value.events = u64::MAX;
    let body = write(&lines).unwrap();
    let found = Body::open(&header_of(&body, u64::MAX), &body.stored);
    assert_eq!(found, Err(BodyError::Events { said: u64::MAX, found: u64::MAX }));
}

#[test]
#[should_panic(expected = "line 1 does not come after the one before")]
fn the_writer_insists_on_order() {
    let mut lines = golden::lines();
    lines.reverse();
    let _never = write(&lines);
}

#[test]
fn the_writer_writes_no_line_that_no_reader_takes() {
    let mut writer = BodyWriter::new(golden::SALT, &Evidence::default());
    let bad = LineValue { unique_events: 1, ..LineValue::default() };
    let error = LineError::Events { events: 0, quantity_events: 0, unique_events: 1 };
    let refused = writer.line(&series_bytes("m", "c", &[]), Bucket(1), 0, &bad);
    assert_eq!(refused, Err(BodyError::Line { index: 0, error }));
    let refused = writer.line(
        &series_bytes("m", "c", &[("b", ""), ("a", "")]),
        Bucket(1),
        0,
        &LineValue::default(),
    );
    let error = LineError::DimensionOrder { index: 1 };
    assert_eq!(refused, Err(BodyError::Line { index: 0, error }));
    let refused = writer.line(&[], Bucket(1), 0, &LineValue::default());
    let error = LineError::Truncated { field: "its meter" };
    assert_eq!(refused, Err(BodyError::Line { index: 0, error }));
    assert_eq!((writer.lines(), writer.raw_length()), (0, 36));
}

fn any_value() -> impl Strategy<Value = LineValue> {
    (
        0_u64..1_000,
        any::<i64>(),
        [1 - UNITS_LIMIT..UNITS_LIMIT, 1 - UNITS_LIMIT..UNITS_LIMIT],
        any::<u16>(),
        prop::collection::btree_set(any::<[u8; 16]>(), 1..5),
    )
        .prop_map(|(events, time, [one, other], unique_key, uniques)| LineValue {
            events: events + 5,
            quantity_events: events + 1,
            unique_events: 5,
            sum: Quantity(one + other * i128::from(events)),
            min: Quantity(one.min(other)),
            max: Quantity(one.max(other)),
            latest_time: Timestamp(time),
            latest: Quantity(one),
            unique_key,
            uniques: uniques.into_iter().collect(),
        })
}

/// Lines in the order of their keys' bytes.
fn any_lines() -> impl Strategy<Value = Vec<Line>> {
    let key = (
        "[a-z][a-z0-9_.-]{0,5}",
        "\\PC{1,8}",
        prop::collection::btree_map("[a-z]{1,3}", "\\PC{0,4}", 0..4),
    );
    let line = (key, any::<u32>(), 0_u16..3, any_value());
    prop::collection::vec(line, 0..60).prop_map(|drawn| {
        let mut lines = BTreeMap::new();
        for ((meter, customer, dimensions), bucket, part, value) in drawn {
            let pairs: Vec<_> =
                dimensions.iter().map(|(name, value)| (&**name, &**value)).collect();
            let series = series_bytes(&meter, &customer, &pairs);
            let Ok((meter, customer, dimensions)) = parse_series(&series) else { continue };
            let key = LineKey { meter, customer, dimensions, bucket: Bucket(bucket), part };
            lines.insert((series, bucket, part), Line { key, value });
        }
        lines.into_values().collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(lines in any_lines()) {
        let body = write(&lines).unwrap();
        let events = lines.iter().map(|line| line.value.events).sum();
        let opened = Body::open(&header_of(&body, events), &body.stored);
        let extras = Extras::default();
        prop_assert_eq!(opened, Ok(Body { salt: golden::SALT, evidence: golden::evidence(), extras, lines }));
    }

    #[test]
    fn a_changed_byte_never_passes(codec in any::<bool>(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let raw = golden::raw_body();
        let (codec, mut stored) = match codec {
            true => (Codec::Raw, raw.clone()),
            false => (Codec::Zstd, zstd(&raw)),
        };
        let honest = header(codec, raw.len(), &stored);
        let at = at.index(stored.len());
        stored[at] ^= flip;
        let said = honest.body_digest;
        prop_assert_eq!(Body::open(&honest, &stored), Err(BodyError::Digest { said, found: digest(&stored) }));
        // With a digest that fits, the root still tells; evidence and zstd's own spare bits are not in it.
        if let Ok(opened) = Body::open(&header(codec, raw.len(), &stored), &stored) {
            prop_assert_eq!((opened.lines, opened.salt), (golden::lines(), golden::SALT));
        }
    }

    #[test]
    fn any_bytes_are_judged_without_panic(codec in any::<bool>(), stored in prop::collection::vec(any::<u8>(), 0..600)) {
        let codec = if codec { Codec::Raw } else { Codec::Zstd };
        prop_assert!(Body::open(&header(codec, stored.len(), &stored), &stored).is_err());
        let framed = zstd(&stored);
        prop_assert!(Body::open(&header(Codec::Zstd, stored.len(), &framed), &framed).is_err());
    }
}
