//! What a line holds and what it refuses.

use proptest::prelude::*;

use super::*;

/// A `str` as drawn.
fn text(text: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

/// A key by hand, so that it may be wrong.
fn key(meter: &[u8], customer: &[u8], dimensions: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = [text(meter), text(customer)].concat();
    bytes.push(u8::try_from(dimensions.len()).unwrap());
    for (name, value) in dimensions {
        bytes.extend([text(name), text(value)].concat());
    }
    bytes.extend_from_slice(&[0; 6]);
    bytes
}

fn value() -> LineValue {
    LineValue {
        events: 3,
        quantity_events: 2,
        unique_events: 2,
        sum: Quantity(-5),
        min: Quantity(-6),
        max: Quantity(1),
        latest_time: Timestamp(-1),
        latest: Quantity(-6),
        unique_key: 9,
        uniques: vec![[1; 16], [2; 16]],
    }
}

fn value_bytes(value: &LineValue) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.put(&mut bytes);
    bytes
}

fn check(line: &[u8], expected: Result<(), LineError>) {
    assert_eq!(Line::decode(line).map(|_| ()), expected, "{line:02x?}");
}

#[test]
fn refused_keys() {
    let check = |meter: &[u8], customer: &[u8], dimensions: &[(&[u8], &[u8])], expected| {
        check(&[key(meter, customer, dimensions), value_bytes(&value())].concat(), expected);
    };
    let name = |field, error| Err(LineError::Name { field, error });
    check(b"m", b"c", &[], Ok(()));
    check(b"m", b"c", &[(b"a", b""), (b"b", b"x")], Ok(()));
    check(b"", b"c", &[], name(METER, NameError::Empty));
    check(b"M", b"c", &[], name(METER, NameError::Character { found: 'M' }));
    check(&[b'm'; 65], b"c", &[], name(METER, NameError::TooLong { bytes: 65, bytes_max: 64 }));
    check(b"m", b"", &[], name(CUSTOMER, NameError::Empty));
    check(b"m", b"a\n", &[], name(CUSTOMER, NameError::Character { found: '\n' }));
    check(b"m", b"c", &[(b"", b"x")], name(DIMENSION_NAME, NameError::Empty));
    check(
        b"m",
        b"c",
        &[(b"a", b"\x7f")],
        name(DIMENSION_VALUE, NameError::Character { found: '\x7f' }),
    );
    check(b"\xff", b"c", &[], Err(LineError::NotUtf8 { field: METER }));
    check(b"m", b"\xc3", &[], Err(LineError::NotUtf8 { field: CUSTOMER }));
    check(b"m", b"c", &[(b"a", b"\xff")], Err(LineError::NotUtf8 { field: DIMENSION_VALUE }));
    check(b"m", b"c", &[(b"b", b""), (b"a", b"")], Err(LineError::DimensionOrder { index: 1 }));
    check(b"m", b"c", &[(b"a", b"1"), (b"a", b"2")], Err(LineError::DimensionOrder { index: 1 }));
    let names: Vec<[u8; 1]> = (b'a'..=b'q').map(|name| [name]).collect();
    let pairs: Vec<(&[u8], &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    check(b"m", b"c", &pairs[..16], Ok(()));
    check(b"m", b"c", &pairs, Err(LineError::TooManyDimensions { dimensions: 17 }));
}

#[test]
fn refused_values() {
    let check = |change: fn(&mut LineValue), expected| {
        let mut changed = value();
        change(&mut changed);
        check(&[key(b"m", b"c", &[]), value_bytes(&changed)].concat(), expected);
    };
    check(|_| {}, Ok(()));
    check(|value| *value = LineValue::default(), Ok(()));
    let events = |events, quantity_events, unique_events| {
        Err(LineError::Events { events, quantity_events, unique_events })
    };
    check(|value| value.quantity_events = 4, events(3, 4, 2));
    check(|value| value.unique_events = 4, events(3, 2, 4));
    check(
        |value| value.min = Quantity(2),
        Err(LineError::MinMax { min: Quantity(2), max: Quantity(1) }),
    );
    let (sum, min, max) = (Quantity(-5), Quantity(-6), Quantity(1));
    check(|value| value.quantity_events = 0, Err(LineError::NoQuantity { sum, min, max }));
    let (least, most) = (1 - UNITS_LIMIT, UNITS_LIMIT - 1);
    fn quantities(value: &mut LineValue, count: u64, sum: i128, [min, max]: [i128; 2]) {
        (value.events, value.quantity_events) = (count.max(3), count);
        (value.sum, value.min, value.max) = (Quantity(sum), Quantity(min), Quantity(max));
        value.latest = Quantity(min);
    }
    check(|value| quantities(value, 2, -2, [-1, -1]), Ok(()));
    check(|value| quantities(value, u64::MAX, i128::MAX, [0, UNITS_LIMIT - 1]), Ok(()));
    check(|value| quantities(value, u64::MAX, i128::MIN, [1 - UNITS_LIMIT, 0]), Ok(()));
    for (count, sum, [min, max]) in [
        (1, i128::MAX, [1, 1]),
        (1, i128::MIN, [1, 1]),
        (2, 3, [1, 1]),
        (2, 1, [1, 1]),
        (2, -3, [-1, -1]),
        (2, -1, [-1, -1]),
        (u64::MAX, i128::MAX, [most, most]),
        (u64::MAX, i128::MIN, [least, least]),
    ] {
        let mut changed = value();
        quantities(&mut changed, count, sum, [min, max]);
        let (sum, min, max) = (Quantity(sum), Quantity(min), Quantity(max));
        let expected = Err(LineError::Sum { quantity_events: count, sum, min, max });
        assert_eq!(changed.check(), expected);
    }
    let beyond = |units| Err(LineError::Quantity { quantity: Quantity(units) });
    check(|value| quantities(value, 2, 0, [0, UNITS_LIMIT]), beyond(UNITS_LIMIT));
    check(|value| quantities(value, 2, 0, [-UNITS_LIMIT, 0]), beyond(-UNITS_LIMIT));
    check(|value| quantities(value, 2, 0, [i128::MIN, 0]), beyond(i128::MIN));
    let latest = |units| Err(LineError::Latest { latest: Quantity(units), min, max });
    check(|value| value.latest = Quantity(-7), latest(-7));
    check(|value| value.latest = Quantity(2), latest(2));
    check(|value| value.uniques.clear(), Err(LineError::Uniques { unique_events: 2, uniques: 0 }));
    check(|value| value.uniques = vec![[2; 16], [1; 16]], Err(LineError::UniqueOrder { index: 1 }));
    check(|value| value.uniques = vec![[2; 16], [2; 16]], Err(LineError::UniqueOrder { index: 1 }));
    check(
        |value| value.unique_events = 1,
        Err(LineError::Uniques { unique_events: 1, uniques: 2 }),
    );
}

#[test]
fn no_beginning_of_a_line_is_a_line_and_nothing_follows_one() {
    let line = [key(b"m", b"c", &[(b"a", b"x")]), value_bytes(&value())].concat();
    check(&line, Ok(()));
    for length in 0..line.len() {
        let cut = Line::decode(&line[..length]);
        assert!(matches!(cut, Err(LineError::Truncated { .. })), "{length} bytes: {cut:?}");
    }
    for bytes in [1, 15, 16, 17, 40] {
        check(&[&line[..], &vec![0; bytes]].concat(), Err(LineError::Trailing { bytes }));
    }
}

#[test]
fn counts_are_not_trusted() {
    let mut line = [key(b"m", b"c", &[]), value_bytes(&LineValue::default())].concat();
    let count = line.len() - 4;
    line[count..].copy_from_slice(&u32::MAX.to_be_bytes());
    check(&line, Err(LineError::Truncated { field: "its unique digests" }));
    check(&[0xff, 0xff, b'm'], Err(LineError::Truncated { field: METER }));
}

#[test]
fn series_read_back() {
    let series = series_bytes("m", "c", &[("a", "1"), ("b", "")]);
    let (meter, customer, dimensions) = parse_series(&series).unwrap();
    assert_eq!((meter.as_str(), customer.as_str()), ("m", "c"));
    assert_eq!(dimensions.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "")]);
    assert_eq!((dimensions.value("b"), dimensions.value("c")), (Some(""), None));
    assert_eq!(parse_series(&[series, vec![0]].concat()), Err(LineError::Trailing { bytes: 1 }));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic_and_lines_are_canonical(
        start in any::<bool>(),
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let line = match start {
            true => [key(b"m", b"c", &[]), rest].concat(),
            false => rest,
        };
        if let Ok(read) = Line::decode(&line) {
            prop_assert_eq!(read.encode(), line);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_as_it_stands(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut line = [key(b"m", b"c", &[(b"a", b"x"), (b"b", b"")]), value_bytes(&value())].concat();
        let at = at.index(line.len());
        line[at] = byte;
        if let Ok(read) = Line::decode(&line) {
            prop_assert_eq!(read.encode(), line);
        }
    }
}
