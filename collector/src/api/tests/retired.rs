//! Streams that retired: out of the list, and in every sum.

use serde_json::{Value, json};
use tidemark_common::id::{Sequence, StreamId};
use tidemark_common::wire::Close;

use super::world::{World, line};
use super::{CATALOG, DoorLimits, NOW};
use crate::billing_run::Settings;
use crate::ledger::LedgerOptions;
use crate::ledger::request::{HelloRequest, Reply, Request};

const AT: &str = "2026-03-10T00:00:00Z";

/// Streams 1 to 5 have posted as many events each; all is folded at once.
async fn world() -> World {
    let options = LedgerOptions { fold_age_millis: 1, ..LedgerOptions::default() };
    let (limits, billing) = (DoorLimits::default(), Settings::default());
    let world = World::start_over(CATALOG, NOW, limits, billing, options).await;
    for number in 1..=5 {
        let lines: Vec<_> = (0..number)
            .map(|model| line("tokens", "acme", AT, &[("model", &model.to_string())], "2"))
            .collect();
        world.post_from(StreamId([number; 16]), &lines).await;
    }
    world
}

/// Its agent, that has posted so many events in one batch or none, says hello and leaves; then it retires.
pub(super) async fn retire(world: &World, number: u8, accepted: u64) {
    let (stream, sequence) = (StreamId([number; 16]), Sequence(accepted.min(1)));
    let HelloRequest { mut hello, agent, said } = world.hello(stream);
    (hello.sealed_sequence, hello.accepted) = (sequence, accepted);
    let hello = Request::Hello(Box::new(HelloRequest { hello, agent, said }));
    let Reply::Welcomed(welcomed) = world.ask(hello).await else { panic!() };
    let (fence, extras) = (welcomed.fence, Vec::new());
    world.ask(Request::Close { stream, close: Close { sequence, accepted, fence, extras } }).await;
    // Once it is folded.
    loop {
        let asked = Request::Retire { streams: vec![stream], after_millis: 0 };
        match world.ask(asked).await {
            Reply::Retired(0) => tokio::task::yield_now().await,
            other => return assert_eq!(other, Reply::Retired(1)),
        }
    }
}

/// Each page's streams by the first byte of their ids.
async fn pages(world: &World, query: &str) -> Vec<Vec<String>> {
    let (mut pages, mut target) = (Vec::new(), format!("/v1/streams?{query}"));
    loop {
        let answer = world.get(&target).await.ok();
        let shown = |stream: &Value| stream["stream"].as_str().unwrap()[..2].to_owned();
        pages.push(answer["streams"].as_array().unwrap().iter().map(shown).collect());
        let Some(next) = answer["next"].as_str() else { return pages };
        target = format!("/v1/streams?{query}&after={next}");
    }
}

#[tokio::test]
async fn they_are_listed_by_themselves() {
    let world = world().await;
    for number in [4, 2, 5] {
        retire(&world, number, number.into()).await;
    }
    assert_eq!(pages(&world, "").await, [["01", "03"]]);
    assert_eq!(pages(&world, "retired=false&limit=1").await, [["01"], ["03"]]);
    assert_eq!(pages(&world, "retired=true").await, [["02", "04", "05"]]);
    assert_eq!(pages(&world, "retired=true&limit=2").await, [vec!["02", "04"], vec!["05"]]);
    assert_eq!(pages(&world, "retired=true&limit=3").await, [["02", "04", "05"]]);
    let answer = world.get("/v1/streams?retired=true&limit=1").await.ok();
    let stream = &answer["streams"][0];
    assert_eq!((&stream["state"], &stream["posted_events"]), (&json!("closed"), &json!(2)));
    assert!(stream["retired_at"].as_str() >= stream["last_heard"].as_str(), "{stream}");
    assert_eq!(
        (&answer["streams_retired"], &answer["cut"]["retired"]["streams"]),
        (&json!(3), &json!(3))
    );
    let refused = world.get("/v1/streams?retired=yes").await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let live = world.get("/v1/streams").await.ok();
    assert_eq!(
        (&live["streams"][0]["retired_at"], &live["streams_retired"]),
        (&json!(null), &json!(3))
    );
}

#[tokio::test]
async fn every_sum_has_them_in_it() {
    let world = world().await;
    let sources = || async {
        let target = "/v1/customers/acme/bill/explain?line=1&at=2026-03-10T12:00:00Z&sources=true";
        world.get(target).await.ok()["sources"].clone()
    };
    let metrics = || async {
        let body = world.get("/metrics").await.body;
        let is_sum = |line: &&str| {
            ["_streams ", "conservation", "_streams_", "in_transit_events ", "missing"]
                .iter()
                .any(|part| line.contains(part))
                && !line.starts_with('#')
                && !line.contains("by_state")
                && !line.contains("held_back_by")
                && !line.contains("streams_retired ")
        };
        body.lines().filter(is_sum).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = (sources().await, metrics().await);
    assert_eq!(before.0["streams"].as_array().unwrap().len(), 5, "{}", before.0);
    let expected =
        ["tidemark_collector_conservation_posted_events 15", "tidemark_collector_streams 5"];
    for expected in expected {
        assert!(before.1.iter().any(|line| line == expected), "{expected} in {:?}", before.1);
    }
    for number in [1, 2, 3, 4, 5] {
        retire(&world, number, number.into()).await;
        assert_eq!((sources().await, metrics().await), before, "{number}");
    }
    assert_eq!(pages(&world, "").await, [Vec::<String>::new()]);
    let text = world.get("/metrics").await.body;
    for expected in ["streams_retired 5", "streams_by_state{state=\"closed\"} 5"] {
        let line = format!("tidemark_collector_{expected}");
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}
