//! Golden bytes, and what is refused.

use tidemark_common::batch::Dimensions;

use super::*;

fn line() -> LineKey {
    let dimensions = vec![("region".into(), "eu".into()), ("tier".into(), "".into())];
    LineKey {
        meter: MeterName::parse("api.calls").unwrap(),
        customer: CustomerId::parse("acme").unwrap(),
        dimensions: Dimensions::new(dimensions).unwrap(),
        bucket: Bucket(961),
        part: 3,
    }
}

#[test]
fn a_totals_key_is_day_customer_meter_dimensions_class_bucket_part() {
    let key = with_part(&total_key(&line(), Class::Unauthorised), 2);
    let mut expected = vec![0, 0, 0, 10, 0, 4];
    expected.extend(b"acme");
    expected.extend([0, 9]);
    expected.extend(b"api.calls");
    expected.extend([2, 0, 6]);
    expected.extend(b"region");
    expected.extend([0, 2]);
    expected.extend(b"eu");
    expected.extend([0, 4]);
    expected.extend(b"tier");
    expected.extend([0, 0]);
    expected.extend([1, 0, 0, 3, 0xc1, 0, 2]);
    assert_eq!(key, expected);

    let row = read_total_key(&key).unwrap();
    assert_eq!(
        (row.meter, row.dimensions, row.bucket),
        (line().meter, line().dimensions, Bucket(961))
    );
    assert_eq!((row.class, bucket_of(&key)), (Class::Unauthorised, Some(Bucket(961))));
    assert!(key.starts_with(&total_prefix(10, &line().customer, Some(&line().meter))));
    for cut in 0..key.len() {
        assert!(read_total_key(&key[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn totals_read_back() {
    let usage = Accumulator {
        events: 7,
        quantity_events: 3,
        unique_events: 4,
        sum: Quantity(i128::MIN),
        min: Quantity(-5),
        max: Quantity(i128::MAX),
        latest: Some((Timestamp(-1), Quantity(9))),
        uniques: std::collections::BTreeSet::new(),
    };
    let bytes = write_total(&usage);
    assert_eq!((bytes[7], bytes[15], bytes[23], bytes[24], bytes[40]), (7, 3, 4, 0x80, 0xff));
    assert_eq!(read_total(&bytes), Ok(usage));
    assert_eq!(read_total(&write_total(&Accumulator::default())), Ok(Accumulator::default()));
    assert!(read_total(&bytes[..95]).is_err());
    assert!(read_total(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn distinct_values_and_seen_rows_read_back() {
    let key = unique_key(b"total", &(7, [9; 16]));
    assert_eq!(key.len(), 5 + 2 + 16);
    assert_eq!(read_unique_key(&key), Ok((&b"total"[..], (7, [9; 16]))));
    let (customer, meter) = (line().customer, line().meter);
    let seen_as = SeenAs::Unauthorised(AgentName::parse("shop").unwrap());
    let key = seen_key(&customer, &meter, &seen_as);
    assert_eq!(key[key.len() - 7..], [1, 0, 4, b's', b'h', b'o', b'p']);
    let seen = read_seen(&key, &write_seen(5, Bucket(1), Bucket(8))).unwrap();
    assert_eq!(seen.seen_as, seen_as);
    // A drainer's, and what both have in common.
    let drainer = SeenAs::Unauthorised(AgentName::parse_identity("drainer:node").unwrap());
    let drained = seen_key(&customer, &meter, &drainer);
    let seen = read_seen(&drained, &write_seen(5, Bucket(1), Bucket(8))).unwrap();
    assert_eq!(seen.seen_as, drainer);
    assert_eq!(seen_prefix(&drained), seen_prefix(&key));
    let key = seen_key(&customer, &meter, &SeenAs::Normal);
    assert_eq!(seen_prefix(&key), key);
    let seen = read_seen(&key, &write_seen(5, Bucket(1), Bucket(8))).unwrap();
    assert_eq!(
        seen,
        Seen {
            customer,
            meter,
            seen_as: SeenAs::Normal,
            events: 5,
            first: Bucket(1),
            last: Bucket(8)
        }
    );
    assert!(read_seen(&key[..9], &[0; 16]).is_err());
}

fn record() -> StreamRecord {
    let confirmed = |time, sequence| Confirmed {
        ledger_time: Timestamp(time),
        sequence: Sequence(sequence),
        accepted: 300,
    };
    StreamRecord {
        stream: StreamId([1; 16]),
        agent: AgentName::parse("till-7").unwrap(),
        begun: Timestamp(33),
        state: StreamState::Conflict,
        fence: Fence(5),
        posted_sequence: Sequence(2),
        posted_digest: Digest([3; 32]),
        posted_end: EventNumber(251),
        sealed_sequence: Sequence(4),
        accepted: 300,
        quarantined_batches: 1,
        quarantined_events: 6,
        quarantine_cap: Some(None),
        evidence: [(1, 300), (104, 2)].into_iter().collect(),
        duplicates: 7,
        conflicts: 8,
        last_heard: Timestamp(64),
        confirmed: Some(confirmed(10, 2)),
        pending: vec![confirmed(20, 4)],
        openings: vec![PostedOpening { opening: OpeningId([2; 16]), end: EventNumber(251) }],
        conflict_cap: Some(Some(Timestamp(7))),
        missing: Some(Missing { first: Sequence(3), last: Sequence(4), events: 49 }),
    }
}

#[test]
fn a_stream_row_has_these_bytes() {
    let bytes = write_stream(&record()).unwrap();
    let mut expected = vec![4];
    expected.extend([1; 16]);
    expected.extend(b"\x06till-7");
    expected.extend([2, 5, 2]);
    expected.extend([3; 32]);
    expected.extend([251, 251, 0, 4, 251, 0x2c, 1, 1, 6]);
    expected.extend([1, 0]);
    expected.extend([2, 1, 251, 0x2c, 1, 104, 2]);
    expected.extend([7, 8, 128]);
    expected.extend([1, 20, 2, 251, 0x2c, 1]);
    expected.extend([1, 40, 4, 251, 0x2c, 1]);
    expected.push(1);
    expected.extend([2; 16]);
    expected.extend([251, 251, 0]);
    expected.extend([1, 1, 14]);
    expected.extend([1, 3, 4, 49]);
    expected.push(66);
    assert_eq!(bytes, expected);
    assert_eq!(read_stream(&bytes), Ok(record()));
}

#[test]
fn older_stream_rows_lack_the_last_fields() {
    let bytes = write_stream(&record()).unwrap();
    let third = StreamRecord { begun: Timestamp(0), ..record() };
    let second = StreamRecord { missing: None, ..third.clone() };
    let first = StreamRecord { conflict_cap: None, ..second.clone() };
    for (version, shorter, expected) in [(3, 1, third), (2, 5, second), (1, 8, first)] {
        let older = [&[version], &bytes[1..bytes.len() - shorter]].concat();
        assert_eq!(read_stream(&older), Ok(expected));
        for cut in 0..older.len() {
            assert!(read_stream(&older[..cut]).is_err(), "version {version} cut at {cut}");
        }
    }
}

#[test]
fn other_stream_rows_are_refused() {
    let bytes = write_stream(&record()).unwrap();
    for cut in 0..bytes.len() {
        assert!(read_stream(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(read_stream(&[&bytes[..], &[0]].concat()).is_err());
    let newer = [&[5], &bytes[1..]].concat();
    assert!(read_stream(&newer).unwrap_err().reason.contains("version 5"));
}
