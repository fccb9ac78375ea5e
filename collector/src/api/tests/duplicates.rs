//! Events that were admitted before: listed, counted, on no bill, and no suspense.

use tidemark_common::id::StreamId;

use super::world::AUDITOR_TOKEN;
use super::*;

/// Three events of two streams' with two ids between them, in two periods; the second stream repeats both.
async fn duplicated() -> World {
    let world = World::start(CATALOG, NOW).await;
    let early = line("tokens", "acme", "2026-03-01T00:00:00Z", &[], "1000");
    let late = line("tokens", "acme", "2026-03-09T00:00:00Z", &[], "2000");
    let earlier = line("tokens", "acme", "2026-02-10T00:00:00Z", &[], "1000");
    let seat = unique("seats", "acme", "2026-03-09T00:00:00Z", &["u1"]);
    world.post_with_ids(StreamId([1; 16]), &[early, late.clone()], &[7, 8]).await;
    // In the body's order: the shorter name first, then by time.
    world.post_with_ids(StreamId([2; 16]), &[seat, earlier, late], &[9, 7, 8]).await;
    let again = unique("seats", "acme", "2026-03-10T00:00:00Z", &["u2"]);
    world.post_with_ids(StreamId([3; 16]), &[again], &[9]).await;
    world
}

fn shown(entry: &Value) -> String {
    let place = |of: &Value| {
        let stream = of["stream"].as_str().unwrap();
        format!("{}.{}.{}", &stream[1..2], of["sequence"], of["line"])
    };
    let quantity = entry["quantity"].as_str().unwrap_or("-");
    let (meter, time) = (entry["meter"].as_str().unwrap(), entry["time"].as_str().unwrap());
    assert_eq!((&entry["customer"], &entry["agent"]), (&json!("acme"), &json!("edge-1")));
    format!("{} of {}: {meter} {quantity} {time}", place(entry), place(&entry["first"]))
}

async fn list(world: &World, target: &str) -> (Vec<String>, Option<String>) {
    let answer = world.get(target).await.ok();
    let duplicates = answer["duplicates"].as_array().unwrap().iter().map(shown).collect();
    (duplicates, answer["next"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn what_came_again_is_listed_with_what_came_first() {
    let world = duplicated().await;
    let all = [
        "2.1.1 of 1.1.0: tokens 1000 2026-02-10T00:00:00Z",
        "2.1.2 of 1.1.1: tokens 2000 2026-03-09T00:00:00Z",
        "3.1.0 of 2.1.0: seats - 2026-03-10T00:00:00Z",
    ];
    assert_eq!(list(&world, "/v1/duplicates").await, (all.map(str::to_owned).to_vec(), None));
    let of = async |target: &str| list(&world, target).await.0;
    assert_eq!(of("/v1/duplicates?customer=acme&meter=tokens").await, all[..2]);
    assert_eq!(of("/v1/duplicates?meter=seats").await, all[2..]);
    assert!(of("/v1/duplicates?customer=globex").await.is_empty());
    let (mut found, mut after) = (Vec::new(), "0.0".to_owned());
    loop {
        let (page, next) = list(&world, &format!("/v1/duplicates?limit=1&after={after}")).await;
        assert!(page.len() <= 1);
        found.extend(page);
        let Some(next) = next else { break };
        after = next;
    }
    assert_eq!(found, all);
    for bad in ["after=x", "limit=0", "meter=", "customer=", "q=1"] {
        assert_eq!(world.get(&format!("/v1/duplicates?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn what_came_again_is_on_no_bill_and_no_suspense() {
    let world = duplicated().await;
    let bill = async |at: &str| {
        let target = format!("/v1/customers/acme/bill?at={at}");
        world.get(&target).await.ok()["total"].as_str().unwrap().to_owned()
    };
    // 3,000 tokens at 0.002 and one seat at 9.5; the month before has nothing of its own.
    assert_eq!(bill("2026-03-10T00:00:00Z").await, "15.50");
    assert_eq!(bill("2026-02-11T00:00:00Z").await, "0.00");
    let usage = "/v1/customers/acme/usage?meter=tokens&from=2026-02-01T00:00:00Z";
    check_usage(&world, usage, &["tokens 2026-02-01T05:30:00+05:30 {} 3000"]).await;
    assert_eq!(world.get("/v1/suspense").await.ok()["suspense"], json!([]));
    let target = "/v1/reconciliation?depth=quick";
    let reconciliation =
        world.get_with(target, Some(&format!("Bearer {AUDITOR_TOKEN}"))).await.ok();
    let findings = reconciliation["findings"].as_array().unwrap().iter();
    let again = findings.filter(|finding| finding["kind"] == "suppressed");
    let again: Vec<_> = again.map(|of| json!([of["id"], of["events"], of["blocks"]])).collect();
    let expected = [json!(["suppressed/seats", 1, false]), json!(["suppressed/tokens", 2, false])];
    assert_eq!(again, expected);
    let metrics = world.get_with("/metrics", None).await.body;
    let has = |line: &str| metrics.lines().any(|found| found == line);
    assert!(has("tidemark_collector_duplicates_suppressed_total 3"), "{metrics}");
}
