//! The API over a real ledger and real sockets.

mod bills;
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod certificates;
mod corrections;
mod duplicates;
mod events;
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod held;
mod hostile;
mod invoices;
mod openapi;
mod retired;
mod taxes;
mod terms;
mod worked_example;
mod world;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::api::DoorLimits;

use world::{ACME_TOKEN, TOKEN, World, line, unique};

const CATALOG: &str = r#"
[[meter]]
name = "tokens"
aggregation = "sum"
dimensions = ["model", "region"]
unit = "token"

[[meter]]
name = "peak"
aggregation = "max"

[[meter]]
name = "seats"
aggregation = "unique_count"

[[customer]]
id = "acme"
plan = "standard"
name = "Acme Ltd"
time_zone = "Asia/Kolkata"

[[customer]]
id = "zoë & sons/eu"
plan = "standard"

[[plan]]
name = "standard"
currency = "EUR"

[[plan.price]]
meter = "tokens"
unit_price = "0.002"

[[plan.price]]
meter = "seats"
unit_price = "9.5"
"#;

/// 2026-03-10T12:00:00Z.
const NOW: &str = "2026-03-10T12:00:00Z";

async fn world() -> World {
    let world = World::start(CATALOG, NOW).await;
    world
        .post(&[
            line("tokens", "acme", "2026-02-28T18:15:00Z", &[("model", "a")], "1000"),
            line("tokens", "acme", "2026-02-28T18:30:00Z", &[("model", "a")], "1.5"),
            line(
                "tokens",
                "acme",
                "2026-03-10T00:00:00Z",
                &[("model", "a"), ("region", "eu")],
                "2",
            ),
            line("tokens", "acme", "2026-03-10T00:15:00Z", &[("model", "b")], "4"),
            line("tokens", "acme", "2026-03-10T01:00:00Z", &[], "8"),
            line("peak", "acme", "2026-03-10T01:00:00Z", &[], "3"),
            line("mystery", "acme", "2026-03-10T01:00:00Z", &[], "7"),
            line("tokens", "stranger", "2026-03-10T01:00:00Z", &[], "5"),
            line("tokens", "zoë & sons/eu", "2026-03-10T01:00:00Z", &[], "6"),
            unique("seats", "acme", "2026-03-10T01:00:00Z", &["u1", "u2"]),
            unique("seats", "acme", "2026-03-10T02:00:00Z", &["u2"]),
        ])
        .await;
    world
}

/// Path and query -> each entry of `usage` as `meter from dimensions quantity`.
async fn check_usage(world: &World, target: &str, expected: &[&str]) {
    let answer = world.get(target).await.ok();
    let entries = answer["usage"].as_array().unwrap().iter().map(|entry| {
        let text = |key: &str| entry[key].as_str().unwrap_or("null").to_owned();
        format!("{} {} {} {}", text("meter"), text("from"), entry["dimensions"], text("quantity"))
    });
    assert_eq!(entries.collect::<Vec<_>>(), expected, "{target}");
}

#[tokio::test]
async fn usage_defaults_to_the_current_period_in_the_customers_zone() {
    let world = world().await;
    let start = "2026-03-01T00:00:00+05:30";
    // 2026-02-28T18:30Z is March in India; 18:15Z is still February.
    check_usage(
        &world,
        "/v1/customers/acme/usage",
        &[
            &format!("peak {start} {{}} 3"),
            &format!("seats {start} {{}} 2"),
            &format!("tokens {start} {{}} 15.5"),
        ],
    )
    .await;
    check_usage(
        &world,
        "/v1/customers/acme/usage?meter=peak&from=2026-03-11T00:00:00Z",
        &["peak 2026-03-11T05:30:00+05:30 {} null"],
    )
    .await;
}

#[tokio::test]
async fn usage_is_cut_into_windows_and_groups() {
    let world = world().await;
    check_usage(
        &world,
        "/v1/customers/acme/usage?meter=tokens&window=day",
        &["tokens 2026-03-01T00:00:00+05:30 {} 1.5", "tokens 2026-03-10T00:00:00+05:30 {} 14"],
    )
    .await;
    check_usage(
        &world,
        "/v1/customers/acme/usage?meter=tokens&window=hour&from=2026-03-10T00:00:00Z",
        &["tokens 2026-03-10T05:30:00+05:30 {} 6", "tokens 2026-03-10T06:00:00+05:30 {} 8"],
    )
    .await;
    let start = "2026-03-01T00:00:00+05:30";
    check_usage(
        &world,
        "/v1/customers/acme/usage?meter=tokens&group_by=model",
        &[
            &format!("tokens {start} {{\"model\":null}} 8"),
            &format!("tokens {start} {{\"model\":\"a\"}} 3.5"),
            &format!("tokens {start} {{\"model\":\"b\"}} 4"),
        ],
    )
    .await;
    check_usage(
        &world,
        "/v1/customers/acme/usage?meter=tokens&group_by=region,model&from=1773100800&to=1773101700",
        &["tokens 2026-03-10T05:30:00+05:30 {\"model\":\"a\",\"region\":\"eu\"} 2"],
    )
    .await;
}

#[tokio::test]
async fn unknown_customers_are_readable_and_marked() {
    let world = world().await;
    let answer = world.get("/v1/customers/stranger/usage?meter=tokens").await.ok();
    assert_eq!((&answer["known"], &answer["time_zone"]), (&json!(false), &json!("UTC")));
    assert_eq!(answer["usage"][0]["quantity"], "5");
    let answer =
        world.get("/v1/customers/zo%C3%AB%20%26%20sons%2Feu/usage?meter=tokens").await.ok();
    assert_eq!((&answer["known"], &answer["usage"][0]["quantity"]), (&json!(true), &json!("6")));
}

#[tokio::test]
async fn answers_carry_their_cut() {
    let world = world().await;
    let answer = world.get("/v1/customers/acme/usage").await.ok();
    assert_eq!(answer["as_of"], "2026-03-10T17:30:00+05:30");
    assert_eq!(answer["complete_through"], Value::Null);
    assert_eq!(answer["held_back_by"][0]["stream"], world.stream.to_string());
    assert_eq!(answer["events_in_transit"], 0);
    assert_eq!(answer["cut"]["ledger"], world.ledger.ledger().to_string());
    assert_eq!(answer["cut"]["streams"][world.stream.to_string()], 1);
}

#[tokio::test]
async fn suspense_is_what_the_catalogue_does_not_explain() {
    let world = world().await;
    let suspense = || async {
        let answer = world.get("/v1/suspense").await.ok();
        let shown = |entry: &Value| {
            ["customer", "meter", "reason"]
                .map(|key| entry[key].as_str().unwrap().to_owned())
                .join(" ")
        };
        answer["suspense"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(
        suspense().await,
        ["acme peak unpriced", "acme mystery unknown_meter", "stranger tokens unknown_customer"]
    );
    // The catalogue learns, and the usage is explained without being posted again.
    world.adopt(&format!("{CATALOG}\n[[customer]]\nid = \"stranger\"\nplan = \"standard\"\n"));
    assert_eq!(suspense().await, ["acme peak unpriced", "acme mystery unknown_meter"]);
    let bill = world.get("/v1/customers/stranger/bill").await.ok();
    assert_eq!(bill["total"], "0.01");
}

#[tokio::test]
async fn suspense_comes_in_pages() {
    let world = world().await;
    let (mut found, mut target) = (Vec::new(), "/v1/suspense?limit=1".to_owned());
    loop {
        let answer = world.get(&target).await.ok();
        for entry in answer["suspense"].as_array().unwrap() {
            found.push(format!("{} {}", entry["customer"], entry["meter"]).replace('"', ""));
        }
        let Some(next) = answer["next"].as_str() else { break };
        target = format!("/v1/suspense?limit=1&after={next}");
    }
    assert_eq!(found, ["acme peak", "acme mystery", "stranger tokens"]);
}

#[tokio::test]
async fn streams_tell_what_is_posted() {
    let world = world().await;
    let answer = world.get("/v1/streams").await.ok();
    let stream = &answer["streams"][0];
    assert_eq!(stream["stream"], world.stream.to_string());
    assert_eq!((&stream["agent"], &stream["state"]), (&json!("edge-1"), &json!("open")));
    let begun: jiff::Timestamp = stream["begun"].as_str().unwrap().parse().unwrap();
    let heard: jiff::Timestamp = stream["last_heard"].as_str().unwrap().parse().unwrap();
    assert!(begun <= heard, "{stream}");
    assert_eq!((&stream["posted_sequence"], &stream["posted_events"]), (&json!(1), &json!(12)));
    assert_eq!((&stream["accepted"], &stream["events_in_transit"]), (&json!(12), &json!(0)));
    assert_eq!(stream["rejected"], json!({"malformed": 3}));
    assert_eq!(stream["evidence"], json!({"kernel_drops": 2}));
}

#[tokio::test]
async fn metrics_show_the_conservation_pair() {
    let world = world().await;
    let metrics = world.get_with("/metrics", None).await;
    assert_eq!(metrics.status, 200);
    for expected in [
        "tidemark_collector_conservation_posted_events 12",
        "tidemark_collector_conservation_usage_events 12",
        "tidemark_collector_suspense_events{reason=\"unknown_customer\"} 1",
        "tidemark_collector_batches_total{verdict=\"admitted\"} 1",
    ] {
        assert!(
            metrics.body.lines().any(|line| line == expected),
            "{expected} in {}",
            metrics.body
        );
    }
    let rejected = format!(
        "tidemark_collector_rejected_events_total{{stream=\"{}\",agent=\"edge-1\",reason=\"malformed\"}} 3",
        world.stream
    );
    assert!(metrics.body.contains(&rejected), "{}", metrics.body);
}

/// A request that cannot be answered -> its status and what it says.
async fn check_refused(
    world: &World,
    target: &str,
    status: u16,
    kind: &str,
    detail: &str,
    remedy: &str,
) {
    let response = world.get(target).await;
    assert_eq!(response.status, status, "{target}");
    assert!(response.head.contains("content-type: application/problem+json"), "{target}");
    let problem: Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!(problem["type"], format!("urn:tidemark:problem:{kind}"), "{target}");
    assert_eq!(problem["status"], status, "{target}");
    assert_eq!(
        (&problem["detail"], &problem["remedy"]),
        (&json!(detail), &json!(remedy)),
        "{target}"
    );
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
}

/// Path and query, status, kind, detail, remedy.
const REFUSED: [(&str, u16, &str, &str, &str); 17] = [
    (
        "/v1/customers/acme/usage?metre=a",
        400,
        "unknown-parameter",
        "there is no query parameter `metre`",
        "this resource takes meter, from, to, group_by, window",
    ),
    (
        "/v1/customers/acme/usage?groupby=a",
        400,
        "unknown-parameter",
        "there is no query parameter `groupby`",
        "did you mean `group_by`?",
    ),
    (
        "/v1/customers/acme/usage?meter=peak&meter=peak",
        400,
        "bad-parameter",
        "`meter` is given twice",
        "give it once",
    ),
    (
        "/v1/customers/acme/usage?from=2026-03-01T00:07:00Z",
        400,
        "bad-parameter",
        "`from` is not a multiple of 15 minutes; the nearest are 2026-03-01T00:00:00Z and 2026-03-01T00:15:00Z",
        EDGES,
    ),
    (
        "/v1/customers/acme/usage?to=tomorrow",
        400,
        "bad-parameter",
        "`to` is neither RFC 3339 (2026-01-31T00:00:00Z) nor unix seconds, between 1970 and 2100",
        EDGES,
    ),
    (
        "/v1/customers/acme/usage?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z",
        400,
        "bad-parameter",
        "`from` is not before `to`: 2026-03-02T05:30:00+05:30 and 2026-03-01T05:30:00+05:30",
        "give both; without them the current period is meant",
    ),
    (
        "/v1/customers/acme/usage?from=0",
        400,
        "bad-parameter",
        "`from` is more than 400 days before `to`",
        "ask for shorter ranges",
    ),
    (
        "/v1/customers/acme/usage?window=week",
        400,
        "bad-parameter",
        "`window` is \"week\"",
        "use total, hour or day",
    ),
    (
        "/v1/customers/acme/usage?meter=token",
        404,
        "unknown-meter",
        "the catalogue has no meter token",
        "did you mean tokens?",
    ),
    (
        "/v1/customers/acme/usage?meter=tokens&group_by=colour",
        400,
        "bad-parameter",
        "`group_by` names the dimension \"colour\", which is not kept",
        "use some of: model, region",
    ),
    (
        "/v1/customers/a%00b/usage",
        400,
        "bad-customer",
        "\"a\\0b\" holds '\\0', which is not allowed there",
        "use 1 to 128 bytes of printable text, percent-encoded",
    ),
    (
        "/v1/customers/stranger/bill",
        404,
        "unknown-customer",
        "the catalogue has no customer \"stranger\"",
        "add a [[customer]] to the catalogue; what was sent for it is kept, see /v1/suspense",
    ),
    (
        "/v1/streams?x=1",
        400,
        "unknown-parameter",
        "there is no query parameter `x`",
        "this resource takes limit, after, retired",
    ),
    ("/v1/suspense?limit=0", 400, "bad-parameter", "`limit` is \"0\"", "use 1 to 10000"),
    (
        "/v1/suspense?after=00+1",
        400,
        "bad-parameter",
        "`after` is no answer's `next`",
        "copy `next` of the answer before, or leave it out",
    ),
    (
        "/v1/customers/a%FFb/usage",
        400,
        "refused",
        "Invalid URL: Invalid UTF-8 in `customer`",
        "write paths and queries as UTF-8, percent-encoded",
    ),
    (
        "/v2",
        404,
        "not-found",
        "no resource has the path /v2",
        "use /v1/customers/{id}/usage, /v1/customers/{id}/bill, /v1/streams or /v1/suspense; /openapi.json describes all",
    ),
];
const EDGES: &str = "give RFC 3339 or unix seconds on a multiple of 15 minutes of UTC";

#[tokio::test]
async fn what_cannot_be_answered_says_why_and_what_to_do() {
    let world = world().await;
    for (target, status, kind, detail, remedy) in REFUSED {
        check_refused(&world, target, status, kind, detail, remedy).await;
    }
    world.adopt("[[customer]]\nid = \"acme\"");
    check_refused(
        &world,
        "/v1/customers/acme/bill",
        409,
        "no-plan",
        "the customer \"acme\" is on no plan in this period",
        "name a [[plan]] as the customer's `plan`, or add a [[subscription]] to the catalogue",
    )
    .await;
}

#[tokio::test]
async fn methods_that_change_something_are_refused_as_problems() {
    let world = world().await;
    let token = format!("Bearer {TOKEN}");
    for target in ["/v1/streams", "/healthz"] {
        let response = world.request("POST", target, Some(&token)).await;
        assert_eq!(response.status, 405, "{target}");
        assert!(response.head.contains("application/problem+json"), "{target} {}", response.head);
    }
}

#[tokio::test]
async fn connections_that_do_not_ask_make_room_for_others() {
    let limits = DoorLimits {
        connections_max: 1,
        head_read_max: Duration::from_millis(50),
        ..DoorLimits::default()
    };
    let world = World::start_behind(CATALOG, NOW, limits).await;
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    assert_eq!(world.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn only_token_bearers_read_v1() {
    let world = world().await;
    for target in
        ["/v1/streams", "/v1/suspense", "/v1/customers/acme/usage", "/v1/customers/acme/bill"]
    {
        for token in [
            None,
            Some("Bearer wrong-wrong-wrong-wrong"),
            Some("Basic dXNlcjpwYXNz"),
            Some("Bearer"),
        ] {
            let response = world.get_with(target, token).await;
            assert_eq!(response.status, 401, "{target} {token:?}");
            assert!(response.head.contains("www-authenticate: Bearer"), "{target}");
        }
        assert_eq!(
            world.get_with(target, Some(&format!("bearer {TOKEN}"))).await.status,
            200,
            "{target}"
        );
    }
    for target in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(world.get_with(target, None).await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn a_token_of_one_customer_sees_that_customer_alone() {
    let world = world().await;
    let token = format!("Bearer {ACME_TOKEN}");
    let check = async |target: &str, status: u16| {
        let response = world.get_with(target, Some(&token)).await;
        assert_eq!(response.status, status, "{target}: {}", response.body);
    };
    check("/v1/customers/acme/bill", 200).await;
    check("/v1/customers/%61cme/usage", 200).await;
    check("/v1/customers/zo%C3%AB%20&%20sons%2Feu/bill", 403).await;
    check("/v1/customers/acme%2F/bill", 403).await;
    check("/v1/customers/nobody/usage", 403).await;
    check("/v1/bills", 403).await;
    check("/v1/streams", 403).await;
    check("/v1/suspense", 403).await;
    check("/v1/nothing", 404).await;
}
