//! Order independence, splits on overflow, and exact sums.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test panics, as it should")]

use proptest::prelude::*;
use tidemark_common::batch::{Body, Line, NewHeader, SealedBatch, series_bytes};
use tidemark_common::id::{Digest, EventNumber, OpeningId, RulesVersion, Sequence, StreamId};
use tidemark_common::quantity::UNITS_LIMIT;

use super::*;

type Event = (usize, i64, Option<i128>, Option<u8>);

fn lines(batch: OpenBatch) -> Vec<Line> {
    body(batch).lines
}

fn body(batch: OpenBatch) -> Body {
    let events = batch.events();
    let body = batch.encode([7; 32], &Evidence::default()).expect("it fits");
    let sealed = SealedBatch::assemble(
        NewHeader {
            stream: StreamId([1; 16]),
            opening: OpeningId([2; 16]),
            sequence: Sequence(1),
            first_event: EventNumber(0),
            end_event: EventNumber(events),
            rules: RulesVersion(1),
            previous: Digest([0; 32]),
        },
        body,
    );
    let (header, stored) = SealedBatch::split(&sealed.bytes).expect("it was just sealed");
    Body::open(&header, stored).expect("it was just sealed")
}

fn batch_of(events: &[Event]) -> OpenBatch {
    let series: Vec<Vec<u8>> =
        ["b", "a", "ab"].iter().map(|meter| series_bytes(meter, "c", &[("d", "v")])).collect();
    let mut batch = OpenBatch::new(1);
    for (number, time, quantity, unique) in events {
        let slot = batch.slot(&series[*number]);
        let amount =
            Amount { quantity: quantity.map(Quantity), unique: unique.map(|byte| [byte; 16]) };
        batch.add(slot, Timestamp(*time), amount);
    }
    batch
}

fn any_event() -> impl Strategy<Value = Event> {
    let units = 1 - UNITS_LIMIT..UNITS_LIMIT;
    (0..3_usize, 0..4_000_000_i64, proptest::option::of(units), proptest::option::of(any::<u8>()))
        .prop_map(|(series, time, quantity, unique)| {
            (series, time, quantity.or(unique.is_none().then_some(1)), unique)
        })
}

proptest! {
    #[test]
    fn order_does_not_matter(events in proptest::collection::vec(any_event(), 1..60), seed in any::<u64>()) {
        let mut shuffled = events.clone();
        let mut state = seed | 1;
        for index in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(index, usize::try_from(state >> 33).unwrap() % (index + 1));
        }
        prop_assert_eq!(lines(batch_of(&events)), lines(batch_of(&shuffled)));
    }

    #[test]
    fn nothing_is_lost_or_added(events in proptest::collection::vec(any_event(), 1..60)) {
        let lines = lines(batch_of(&events));
        let count: u64 = lines.iter().map(|line| line.value.events).sum();
        prop_assert_eq!(count, u64::try_from(events.len()).unwrap());
        let sum: i128 = lines.iter().map(|line| line.value.sum.0).sum();
        prop_assert_eq!(sum, events.iter().filter_map(|event| event.2).sum::<i128>());
    }
}

fn with_ids(events: &[(Event, Option<u8>)]) -> OpenBatch {
    let mut batch = batch_of(&[]);
    for ((number, time, quantity, unique), id) in events {
        let slot = batch.slot(&series_bytes(["b", "a", "ab"][*number], "c", &[("d", "v")]));
        let amount =
            Amount { quantity: quantity.map(Quantity), unique: unique.map(|byte| [byte; 16]) };
        match id {
            Some(id) => batch.add_alone(slot, Timestamp(*time), amount, KeyedId([*id; 16])),
            None => batch.add(slot, Timestamp(*time), amount),
        }
    }
    batch
}

proptest! {
    #[test]
    fn events_with_ids_are_lines_of_their_own_in_whatever_order(
        mut events in proptest::collection::vec((any_event(), proptest::option::of(any::<u8>())), 1..60),
    ) {
        let batch = with_ids(&events);
        let foretold = batch.raw_bytes();
        let sealed = body(batch);
        let mut ids: Vec<u8> = events.iter().filter_map(|(_, id)| *id).collect();
        let mut found: Vec<u8> = sealed.extras.line_ids().map(|id| id.id.0[0]).collect();
        for id in sealed.extras.line_ids() {
            let line = &sealed.lines[usize::try_from(id.line).unwrap()];
            let of_it = |(event, own): &(Event, Option<u8>)| {
                *own == Some(id.id.0[0])
                    && event.2.unwrap_or(0) == line.value.sum.0
                    && Bucket::of(Timestamp(event.1)) == Some(line.key.bucket)
            };
            prop_assert!(line.value.events == 1 && events.iter().any(of_it), "{line:?}");
        }
        ids.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(&found, &ids);
        let extras = if ids.is_empty() { 0 } else { 8 };
        let encoded = with_ids(&events).encode([7; 32], &Evidence::default()).unwrap();
        prop_assert_eq!(foretold + 32 + 2 + 2 + extras, usize::try_from(encoded.raw_length).unwrap());
        events.reverse();
        prop_assert_eq!(body(with_ids(&events)), sealed);
    }
}

#[test]
fn a_line_has_parts_for_as_many_events_as_a_batch_takes() {
    let event = ((0, 0, Some(1), None), Some(7));
    let batch = with_ids(&vec![event; ID_EVENTS_MAX + 1_024]);
    assert_eq!(batch.lines(), ID_EVENTS_MAX + 1_024);
    let body = body(batch);
    assert_eq!(body.lines.len(), ID_EVENTS_MAX + 1_024);
    assert_eq!(body.extras.id_key(), 1);
}

#[test]
fn a_sum_that_would_overflow_splits_the_line() {
    // Only some 10^14 events have such a sum, so that it is not sealed here.
    let huge = i128::MAX - 5;
    let batch =
        batch_of(&[(0, 0, Some(huge), None), (0, 1, Some(10), None), (0, 2, Some(1), None)]);
    let parts: Vec<(u16, i128, u64)> =
        batch.lines.iter().map(|line| (line.part, line.sum.0, line.events)).collect();
    assert_eq!(parts, [(0, huge, 1), (1, 11, 2)]);
}

#[test]
fn each_bucket_has_its_line_even_when_events_alternate() {
    let lines = lines(batch_of(&[
        (0, 0, Some(1), None),
        (0, 900_000, Some(2), None),
        (0, 1, Some(4), None),
        (0, 900_001, Some(8), None),
    ]));
    let sums: Vec<(u32, i128)> =
        lines.iter().map(|line| (line.key.bucket.0, line.value.sum.0)).collect();
    assert_eq!(sums, [(0, 5), (1, 10)]);
}

#[test]
fn latest_is_the_greatest_time_then_quantity() {
    let lines = lines(batch_of(&[
        (0, 5, Some(1), None),
        (0, 9, Some(2), None),
        (0, 9, Some(3), None),
        (0, 7, Some(9), None),
    ]));
    assert_eq!((lines[0].value.latest_time, lines[0].value.latest), (Timestamp(9), Quantity(3)));
    assert_eq!((lines[0].value.min, lines[0].value.max), (Quantity(1), Quantity(9)));
}

#[test]
fn unique_values_count_once() {
    let lines =
        lines(batch_of(&[(0, 0, None, Some(1)), (0, 1, None, Some(1)), (0, 2, None, Some(2))]));
    assert_eq!((lines[0].value.unique_events, lines[0].value.uniques.len()), (3, 2));
    assert_eq!(lines[0].value.unique_key, 1);
}

#[test]
fn the_length_of_the_body_is_known_before_it_is_encoded() {
    let mut batch = OpenBatch::new(1);
    let value = "v".repeat(128);
    for number in 0..200_i64 {
        let dimensions = [("d", value.as_str())];
        let kept = if number < 3 { &dimensions[..] } else { &[] };
        let slot = batch.slot(&series_bytes("calls", &format!("c{number}"), kept));
        let buckets = if number < 3 { 300 } else { 1 };
        for bucket in 0..buckets {
            let unique = (bucket % 7 == 0).then_some([1; 16]);
            let amount = Amount { quantity: Some(Quantity::ONE), unique };
            batch.add(slot, Timestamp(bucket * 900_000), amount);
        }
    }
    let foretold = batch.raw_bytes();
    let body = batch.encode([0; 32], &Evidence::default()).expect("it fits");
    // Besides the lines: the salt, no evidence, no extras.
    assert_eq!(foretold + 32 + 2 + 2, usize::try_from(body.raw_length).unwrap());
}
