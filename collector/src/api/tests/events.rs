//! Single events: those that are asked for, held against their batch, and why others cannot be shown.

use tidemark_common::batch::{
    Extras, KeyedId, LineId, LineValue, keyed_id, series_bytes, unique_digest,
};
use tidemark_common::chunk::{ChunkWriter, NumberedId, Record, RecordId, SeriesSlot, Unique};
use tidemark_common::id::StreamId;
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::wire::{EventsDigest, put_events_chunk};

use super::world::TestLine;
use super::*;
use crate::period::parse_edge;

/// An event, and the line that it is alone in.
#[derive(Clone)]
struct Raw {
    meter: &'static str,
    customer: &'static str,
    dimensions: &'static [(&'static str, &'static str)],
    time: Timestamp,
    quantity: Quantity,
    id: Option<u8>,
}

/// So many milliseconds behind `at`.
fn raw(meter: &'static str, customer: &'static str, at: &str, millis: i64, quantity: &str) -> Raw {
    let time = parse_edge(at).unwrap().start().plus_millis(millis);
    let quantity = Quantity::parse(quantity.as_bytes()).unwrap();
    Raw { meter, customer, dimensions: &[], time, quantity, id: None }
}

impl Raw {
    fn id(self, id: u8) -> Self {
        Self { id: Some(id), ..self }
    }

    fn series(&self) -> Vec<u8> {
        series_bytes(self.meter, self.customer, self.dimensions)
    }

    fn line(&self) -> TestLine {
        let value = LineValue {
            events: 1,
            quantity_events: 1,
            sum: self.quantity,
            min: self.quantity,
            max: self.quantity,
            latest_time: self.time,
            latest: self.quantity,
            ..LineValue::default()
        };
        (self.series(), Bucket::of(self.time).unwrap(), value)
    }
}

/// One chunk of events, which its agent recorded with a key.
fn piece(events: &[Raw]) -> Vec<u8> {
    let mut writer = ChunkWriter::new(1);
    for (slot, event) in (0..).zip(events) {
        let id = event.id.map(|id| RecordId::Keyed(KeyedId([id; 16])));
        let Raw { time, quantity, .. } = *event;
        let (slot, quantity) = (SeriesSlot(slot), Some(quantity));
        writer.record(&Record { slot, time, quantity, unique: None, id }, &event.series());
    }
    packed(&mut writer)
}

fn packed(writer: &mut ChunkWriter) -> Vec<u8> {
    let mut piece = Vec::new();
    put_events_chunk(&mut piece, &zstd::bulk::compress(&writer.take().unwrap().bytes, 1).unwrap());
    piece
}

fn extras(events: &[Raw], piece: &[u8]) -> Extras {
    let mut ordered: Vec<&Raw> = events.iter().collect();
    ordered.sort_by_key(|event| (event.series(), Bucket::of(event.time), event.id, event.time));
    let id = |(line, event): (u32, &&Raw)| Some(LineId { line, id: KeyedId([event.id?; 16]) });
    let mut digest = EventsDigest::default();
    digest.piece(piece);
    let mut extras = Extras::default();
    extras.set_line_ids(1, &(0..).zip(&ordered).filter_map(id).collect::<Vec<_>>());
    extras.set_events_digest(digest.finish());
    extras
}

/// Posts a batch of events as the only one of a stream, and archives them.
async fn post(world: &World, stream: u8, events: &[Raw]) {
    let piece = piece(events);
    let lines: Vec<_> = events.iter().map(Raw::line).collect();
    let header = world.post_with(StreamId([stream; 16]), &lines, extras(events, &piece)).await;
    world.raw_events.put(&header, &[piece]);
}

const RANGE: &str = "from=2026-03-01T00:00:00Z&to=2026-03-11T00:00:00Z";

async fn ask(world: &World, more: &str) -> Value {
    world.get(&format!("/v1/customers/acme/events?{RANGE}{more}")).await.ok()
}

fn shown(answer: &Value) -> Vec<String> {
    let events = answer["events"].as_array().unwrap().iter();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or("-").to_owned();
    events
        .map(|event| {
            let stream = text(event, "stream");
            let place = format!("{}.{}.{}", &stream[1..2], event["sequence"], event["number"]);
            let class = match text(event, "class").as_str() {
                "normal" => String::new(),
                other => format!(" ({other})"),
            };
            format!(
                "{place}: {} {} {}{class}",
                text(event, "meter"),
                text(event, "time"),
                text(event, "quantity")
            )
        })
        .collect()
}

/// The one gap of an answer without events.
fn gap(answer: &Value) -> (Value, Value, Value) {
    let gaps = answer["not_archived"].as_array().unwrap();
    assert_eq!((gaps.len(), &answer["events"]), (1, &json!([])), "{answer}");
    let gap = &gaps[0];
    (gap["reason"].clone(), gap["events"].clone(), gap["detail"].clone())
}

#[tokio::test]
async fn events_are_shown_by_customer_meter_and_time_page_by_page() {
    let world = World::start(CATALOG, NOW).await;
    let mut first = raw("tokens", "acme", "2026-03-02T00:00:00Z", 899_999, "1.5");
    first.dimensions = &[("model", "a")];
    let events = [
        first,
        raw("tokens", "globex", "2026-03-02T00:00:00Z", 1, "7"),
        raw("peak", "acme", "2026-03-02T00:00:00Z", 2, "3"),
        raw("tokens", "acme", "2026-03-02T00:15:00Z", 0, "2"),
        raw("tokens", "acme", "2026-02-02T00:15:00Z", 0, "9"),
    ];
    post(&world, 1, &events).await;
    post(&world, 2, &[raw("tokens", "acme", "2026-03-09T23:45:00Z", 5, "4")]).await;
    let all = [
        "1.1.0: tokens 2026-03-02T05:44:59.999+05:30 1.5",
        "1.1.2: peak 2026-03-02T05:30:00.002+05:30 3",
        "1.1.3: tokens 2026-03-02T05:45:00+05:30 2",
        "2.1.0: tokens 2026-03-10T05:15:00.005+05:30 4",
    ];
    let answer = ask(&world, "").await;
    assert_eq!(shown(&answer), all);
    assert_eq!((&answer["posted"], &answer["not_archived"]), (&json!(4), &json!([])));
    assert_eq!(answer["next"], Value::Null);
    let event = &answer["events"][0];
    assert_eq!(
        (&event["dimensions"], &event["agent"]),
        (&json!({ "model": "a" }), &json!("edge-1"))
    );
    assert_eq!(shown(&ask(&world, "&meter=peak").await), all[1..2]);
    let quarter = "/v1/customers/acme/events?from=2026-03-02T00:15:00Z&to=2026-03-02T00:30:00Z";
    let answer = world.get(quarter).await.ok();
    assert_eq!((shown(&answer), &answer["posted"]), (vec![all[2].to_owned()], &json!(1)));
    for limit in 1..=4 {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = ask(&world, &format!("&limit={limit}{after}")).await;
            assert!(shown(&page).len() <= limit && page["posted"] == json!(4));
            found.extend(shown(&page));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(found, all, "by {limit}");
    }
    for bad in ["after=x", "after=1", "limit=0", "limit=10001", "meter=", "from=1", "q=1"] {
        let status = world.get(&format!("/v1/customers/acme/events?{bad}")).await.status;
        assert_eq!(status, 400, "{bad}");
    }
    let refused = world.get_with(quarter, Some(&format!("Bearer {}", ACME_TOKEN))).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("limited-token"), "{}", refused.body);
}

#[tokio::test]
async fn what_is_not_billed_is_told_by_its_class() {
    let world = World::start(CATALOG, NOW).await;
    let at = "2026-03-02T00:00:00Z";
    post(&world, 1, &[raw("tokens", "acme", at, 0, "1").id(7)]).await;
    let events = [
        raw("tokens", "acme", at, 30, "3").id(8),
        raw("tokens", "acme", at, 20, "2").id(8),
        raw("tokens", "acme", at, 10, "1").id(7),
        raw("tokens", "acme", at, 40, "4"),
    ];
    post(&world, 2, &events).await;
    let answer = ask(&world, "").await;
    let expected = [
        "1.1.0: tokens 2026-03-02T05:30:00+05:30 1",
        // Of two with one id in a batch the earlier one counts.
        "2.1.0: tokens 2026-03-02T05:30:00.03+05:30 3 (duplicate)",
        "2.1.1: tokens 2026-03-02T05:30:00.02+05:30 2",
        "2.1.2: tokens 2026-03-02T05:30:00.01+05:30 1 (duplicate)",
        "2.1.3: tokens 2026-03-02T05:30:00.04+05:30 4",
    ];
    assert_eq!(
        (shown(&answer), &answer["posted"]),
        (expected.map(str::to_owned).to_vec(), &json!(3))
    );
}

#[tokio::test]
async fn what_cannot_be_shown_is_named_with_its_reason() {
    let at = "2026-03-02T00:00:00Z";
    let events = [raw("tokens", "acme", at, 0, "1"), raw("tokens", "acme", at, 1, "2").id(7)];
    let lines: Vec<_> = events.iter().map(Raw::line).collect();
    let sound = piece(&events);
    let check = async |archived: Option<&[u8]>, reason: &str, told: &str| {
        let world = World::start(CATALOG, NOW).await;
        let header = world.post_with(StreamId([1; 16]), &lines, extras(&events, &sound)).await;
        if let Some(piece) = archived {
            world.raw_events.put(&header, &[piece.to_vec()]);
        }
        if reason == "removed" {
            std::fs::remove_dir_all(world.archive_folder.path().join("events")).unwrap();
        }
        let answer = ask(&world, "").await;
        let (found, count, detail) = gap(&answer);
        assert_eq!((&found, &count, &answer["posted"]), (&json!(reason), &json!(2), &json!(2)));
        assert!(detail.as_str().unwrap().contains(told), "{detail}");
    };
    check(None, "not_archived", "have not come").await;
    check(Some(&sound), "removed", "events/000000000001").await;
    let mut broken = sound.clone();
    *broken.last_mut().unwrap() ^= 1;
    check(Some(&broken), "differ", "").await;
    let other = piece(&[events[0].clone(), events[0].clone()]);
    check(Some(&other), "differ", "digest").await;

    // The digest is right, and the lines count others.
    let world = World::start(CATALOG, NOW).await;
    let moved = [raw("tokens", "acme", at, 0, "1"), raw("tokens", "acme", at, 900_000, "2")];
    let piece = piece(&moved);
    let header = world.post_with(StreamId([1; 16]), &lines, extras(&events, &piece)).await;
    world.raw_events.put(&header, &[piece]);
    let (reason, count, detail) = gap(&ask(&world, "").await);
    assert_eq!((reason, count), (json!("differ"), json!(2)));
    assert!(detail.as_str().unwrap().contains("lines count others"), "{detail}");
}

#[tokio::test]
async fn each_stream_has_gaps_of_its_own_and_corrections_are_no_events() {
    let world = World::start(CATALOG, NOW).await;
    for (stream, at) in [(1, "2026-03-02T00:00:00Z"), (2, "2026-03-04T00:00:00Z")] {
        world.post_from(StreamId([stream; 16]), &[line("tokens", "acme", at, &[], "1")]).await;
    }
    let answer = ask(&world, "").await;
    let gaps = answer["not_archived"].as_array().unwrap();
    assert_eq!(gaps.len(), 2, "one of each stream");
    for (gap, day) in gaps.iter().zip(["02", "04"]) {
        assert_eq!((&gap["reason"], &gap["events"]), (&json!("not_sent"), &json!(1)));
        assert_eq!(gap["from"], json!(format!("2026-03-{day}T05:30:00+05:30")));
        assert_eq!(gap["to"], json!(format!("2026-03-{day}T05:45:00+05:30")));
    }
    // Corrections are no events.
    let body = r#"{"customer":"acme","meter":"tokens","at":"2026-03-02T00:00:00Z","kind":"backfill","quantity":"5","events":3,"reason":"lost"}"#;
    let corrected = world.post_json("/v1/corrections", body).await;
    assert_eq!(corrected.status, 200, "{}", corrected.body);
    assert_eq!(ask(&world, "").await["posted"], json!(2));
}

#[tokio::test]
async fn what_was_recorded_before_any_key_was_known_is_digested_when_it_is_shown() {
    let world = recorded_early().await;
    let digest = unique_digest(&world.ledger.unique_key(), "seats", "acme", "u1");
    let answer = ask(&world, "").await;
    let [first, second] = &answer["events"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!(first["unique"], json!(tidemark_common::hex::encode(&digest)));
    assert_eq!(first["dimensions"], json!({ "pod": "p-1" }), "as it was recorded");
    assert_eq!((&first["class"], &second["class"]), (&json!("normal"), &json!("duplicate")));
}

/// Two streams with an event of one id, recorded before any key was known.
async fn recorded_early() -> World {
    let world = World::start(CATALOG, NOW).await;
    let key = world.ledger.unique_key();
    let time = parse_edge("2026-03-02T00:00:00Z").unwrap().start();
    let dimensions = [("pod", "p-1")];
    let mut writer = ChunkWriter::new(0);
    let (quantity, unique) = (None, Some(Unique::Raw("u1")));
    let id = Some(RecordId::Raw(NumberedId { id: [4; 16], number: 2 }));
    let record = Record { slot: SeriesSlot(0), time, quantity, unique, id };
    writer.record(&record, &series_bytes("seats", "acme", &dimensions));
    let piece = packed(&mut writer);
    let digest = unique_digest(&key, "seats", "acme", "u1");
    let value = LineValue {
        events: 1,
        unique_events: 1,
        unique_key: key.id,
        uniques: vec![digest],
        ..LineValue::default()
    };
    let kept = (series_bytes("seats", "acme", &[]), Bucket::of(time).unwrap(), value);
    for stream in [1, 2] {
        let id = keyed_id(&key, "seats", "acme", &[4; 16], 2);
        let mut extras = extras(&[], &piece);
        extras.set_line_ids(key.id, &[LineId { line: 0, id }]);
        let lines = std::slice::from_ref(&kept);
        let header = world.post_with(StreamId([stream; 16]), lines, extras).await;
        world.raw_events.put(&header, std::slice::from_ref(&piece));
    }
    world
}

/// Events of every shape, and such as are not archived; what asks for them.
pub(super) async fn of_every_kind() -> (World, String) {
    let world = recorded_early().await;
    post(&world, 3, &[raw("tokens", "acme", "2026-03-02T00:00:00Z", 0, "1")]).await;
    let lines = [line("tokens", "acme", "2026-03-02T00:00:00Z", &[], "1")];
    world.post_from(StreamId([4; 16]), &lines).await;
    (world, format!("/v1/customers/acme/events?{RANGE}"))
}
