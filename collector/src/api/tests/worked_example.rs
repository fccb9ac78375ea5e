//! A worked example: three customers, every price model, two periods, a late event; each bill by hand.

use tidemark_common::id::StreamId;

use super::world::{World, line, unique};
use super::*;
use crate::billing_run::Settings;

const CATALOG: &str = include_str!("worked_example.toml");
/// Within November everywhere.
const NOVEMBER: &str = "2026-11-15T00:00:00Z";
const OCTOBER: &str = "2026-10-15T00:00:00Z";

/// A customer's bill of the period that holds `at` -> its lines as `what quantity amount`, and its total.
async fn check_bill(world: &World, customer: &str, at: &str, expected: &[&str]) {
    let bill = world.get(&format!("/v1/customers/{customer}/bill?at={at}")).await.ok();
    let sections = bill["sections"].as_array().unwrap();
    let lines = sections.iter().flat_map(|section| section["lines"].as_array().unwrap());
    let shown = lines.map(|line| {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let what = [text("name"), text("meter")].concat();
        let what = if what.is_empty() { text("kind") } else { what };
        format!("{what} {} {}", text("quantity"), text("amount")).replace("  ", " ")
    });
    let total =
        format!("{} {}", bill["total"].as_str().unwrap(), bill["currency"].as_str().unwrap());
    assert_eq!(shown.chain([total]).collect::<Vec<_>>(), expected, "{customer} {at}");
    assert_eq!(bill["suspense"], json!([]), "{customer} {at}");
}

pub(super) async fn world_with_usage() -> World {
    world_billing(Settings::default()).await
}

pub(super) async fn world_billing(billing: Settings) -> World {
    let world = World::start_with(CATALOG, NOVEMBER, DoorLimits::default(), billing).await;
    world
        .post(&[
            // The last quarter of an hour of October in India, and the first of November.
            line("calls", "acme", "2026-10-31T18:15:00Z", &[], "12500"),
            line("calls", "acme", "2026-10-31T18:30:00Z", &[], "800"),
            unique("seats", "acme", "2026-11-05T10:00:00Z", &["ann", "bob", "cho"]),
            unique("seats", "acme", "2026-11-06T10:00:00Z", &["bob"]),
            // In New York, the night in which clocks go back is in November already.
            line("payments", "globex", "2026-11-01T03:45:00Z", &[], "20000"),
            line("payments", "globex", "2026-11-01T04:00:00Z", &[], "100"),
            line("payments", "globex", "2026-11-01T06:30:00Z", &[], "250.50"),
            line("payments", "globex", "2026-11-14T20:00:00Z", &[], "19.99"),
            line("storage", "globex", "2026-11-02T12:00:00Z", &[], "180.5"),
            line("storage", "globex", "2026-11-03T12:00:00Z", &[], "90"),
            // Before and after the change of plan.
            line("calls", "initech", "2026-11-10T23:45:00Z", &[], "3000"),
            unique("seats", "initech", "2026-11-02T09:00:00Z", &["dee"]),
            line("calls", "initech", "2026-11-11T00:00:00Z", &[], "6000"),
            line("tokens", "initech", "2026-11-12T00:00:00Z", &[("model", "large")], "250000"),
            line("tokens", "initech", "2026-11-12T00:00:00Z", &[("model", "small")], "1500"),
            line("tokens", "initech", "2026-11-12T00:00:00Z", &[], "1000"),
        ])
        .await;
    world
}

#[tokio::test]
async fn three_customers_two_periods() {
    let world = world_with_usage().await;

    // Calls: 1,000 free, 9,000 at 0.002 = 18.00, 2,500 at 0.001 = 2.50.
    check_bill(
        &world,
        "acme",
        OCTOBER,
        &["Base 30.00", "calls 12500 20.50", "seats 0 0.00", "50.50 EUR"],
    )
    .await;
    // Calls: all free. Seats: ann, bob and cho, of which two are included.
    check_bill(
        &world,
        "acme",
        NOVEMBER,
        &["Base 30.00", "calls 800 0.00", "seats 3 5.00", "35.00 EUR"],
    )
    .await;

    // 20,000 * 2.9 % + 0.30 = 580.30, at most 500. 10 % off.
    check_bill(
        &world,
        "globex",
        OCTOBER,
        &["payments 20000 500.00", "storage 0 0.00", "discount -50.00", "450.00 USD"],
    )
    .await;
    // 370.49 * 2.9 % + 3 * 0.30 = 11.64421, at least 25. Storage: 80.5 * 0.023 = 1.8515. Off: 2.685, half to even.
    check_bill(
        &world,
        "globex",
        NOVEMBER,
        &["payments 370.49 25.00", "storage 180.5 1.85", "discount -2.68", "24.17 USD"],
    )
    .await;

    // Ten of thirty days on `starter`: 30 / 3 = 10.00; 2,000 calls at 0.002 = 4.00; one seat less 2 / 3 that are included,
    // rounded up to 0.666666667: 0.333333333 * 5 = 1.666666665.
    // Then `pro`: 100 - round(100 / 3) = 66.67; all 6,000 calls at 0.0015 = 9.00; 250,000 large tokens at 0.00004 = 10.00;
    // 2,500 others are three packages; 85.70 so far, of a commitment of 150 - 50 = 100.00.
    check_bill(
        &world,
        "initech",
        NOVEMBER,
        &[
            "Base 10.00",
            "calls 3000 4.00",
            "seats 1 1.67",
            "Base 66.67",
            "calls 6000 9.00",
            "tokens 250000 10.00",
            "tokens 2500 0.03",
            "commitment 14.30",
            "115.67 EUR",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_late_event_belongs_to_its_own_period() {
    let world = world_with_usage().await;
    let late = [line("calls", "acme", OCTOBER, &[], "500")];
    world.post_from(StreamId([8; 16]), &late).await;
    check_bill(
        &world,
        "acme",
        OCTOBER,
        &["Base 30.00", "calls 13000 21.00", "seats 0 0.00", "51.00 EUR"],
    )
    .await;
    check_bill(
        &world,
        "acme",
        NOVEMBER,
        &["Base 30.00", "calls 800 0.00", "seats 3 5.00", "35.00 EUR"],
    )
    .await;
}

/// Line `number` of a customer's bill of November -> its steps.
async fn check_steps(world: &World, customer: &str, number: usize, expected: &[&str]) {
    let target = format!("/v1/customers/{customer}/bill/explain?line={number}&at={NOVEMBER}");
    let answer = world.get(&target).await.ok();
    let steps = answer["steps"].as_array().unwrap().iter();
    let shown: Vec<_> = steps
        .map(|step| {
            format!("{}: {}", step["text"].as_str().unwrap(), step["value"].as_str().unwrap())
        })
        .collect();
    assert_eq!(shown, expected, "{target}");
    let amount = format!(
        ": {} {}",
        answer["line"]["amount"].as_str().unwrap(),
        answer["line"]["currency"].as_str().unwrap()
    );
    assert!(shown.last().unwrap().ends_with(&amount), "the last step is the line's amount");
}

#[tokio::test]
async fn each_amount_is_explained() {
    let world = world_with_usage().await;
    check_steps(
        &world,
        "initech",
        1,
        &[
            "the fee \"Base\" of a whole period: 30 EUR",
            "it, prorated: round(30 * 960 / 2880) - round(30 * 0 / 2880), in quarters of an hour: 10.00 EUR",
        ],
    )
    .await;
    check_steps(
        &world,
        "initech",
        2,
        &[
            "events of calls that no price before takes: 1",
            "their sum: 3000",
            "above 0 up to 1000: 1000 at 0 each: 0",
            "above 1000 up to 3000: 2000 at 0.002 each: 4",
            "the charge: their sum, rounded, a half away from zero: 4.00 EUR",
        ],
    )
    .await;
    check_steps(
        &world,
        "initech",
        3,
        &[
            "events of seats that no price before takes: 1",
            "their unique_count: 1",
            "included: 2 of a whole period, prorated, rounded up: 0.666666667",
            "what is billed: the quantity less what is included, not below 0: 0.333333333",
            "0.333333333 at 5 each: 1.666666665",
            "the charge: their sum, rounded, a half away from zero: 1.67 EUR",
        ],
    )
    .await;
    check_steps(
        &world,
        "initech",
        7,
        &[
            "events of tokens that no price before takes: 2",
            "their sum: 2500",
            "3 packages of 1000, the last one begun or full, at 0.01 each: 0.03",
            "the charge: their sum, rounded, a half away from zero: 0.03 EUR",
        ],
    )
    .await;
}

#[tokio::test]
async fn bounds_and_what_changes_a_sum_are_explained() {
    let world = world_with_usage().await;
    check_steps(
        &world,
        "initech",
        8,
        &[
            "the commitment of a whole period: 150 EUR",
            "it, prorated: round(150 * 2880 / 2880) - round(150 * 960 / 2880), in quarters of an hour: 100.00 EUR",
            "the sum of the lines of this part before it: 85.70 EUR",
            "what that sum is short of the commitment, or nothing: 14.30 EUR",
        ],
    )
    .await;
    check_steps(
        &world,
        "globex",
        1,
        &[
            "events of payments that no price before takes: 3",
            "their sum: 370.49",
            "2.9 % of 370.49: 10.74421",
            "3 events at 0.3 each: 0.9",
            "the charge: their sum, rounded, a half to the even neighbour: 11.64 USD",
            "the minimum of a whole period: 25 USD",
            "it, rounded: 25.00 USD",
            "the maximum of a whole period: 500 USD",
            "it, rounded: 500.00 USD",
            "the charge, raised to the minimum, lowered to the maximum: 25.00 USD",
        ],
    )
    .await;
    check_steps(
        &world,
        "globex",
        3,
        &[
            "the sum of the lines of this part before it: 26.85 USD",
            "10 % of it, rounded, taken off: -2.68 USD",
        ],
    )
    .await;
    for line in ["0", "4", "x", ""] {
        let target = format!("/v1/customers/globex/bill/explain?line={line}&at={NOVEMBER}");
        let status = world.get(&target).await.status;
        assert_eq!(status, if line == "4" { 404 } else { 400 }, "{target}");
    }
}

#[tokio::test]
async fn all_bills_are_the_same_to_the_byte_as_each() {
    let world = world_with_usage().await;
    let mut bodies = Vec::new();
    for customer in ["acme", "globex", "initech"] {
        let target = format!("/v1/customers/{customer}/bill?at={NOVEMBER}");
        bodies.push(world.get(&target).await.body);
    }
    let all = world.get(&format!("/v1/bills?at={NOVEMBER}")).await;
    assert!(all.head.contains("content-type: application/x-ndjson"), "{}", all.head);
    // The client of the tests reads chunks as they were sent: a length, a line.
    let lines: Vec<_> = all.body.lines().filter(|line| line.starts_with('{')).collect();
    bodies.push(r#"{"end":{"bills":3,"problems":0}}"#.to_owned());
    assert_eq!(lines, bodies);

    // The first month of 1970 began before 1970 in New York and in India: they have a problem, and initech its bill.
    let first = world.get("/v1/bills?at=0").await;
    let lines = first.body.lines().filter(|line| line.starts_with('{'));
    let shown: Vec<_> = lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| format!("{} {} {}", line["customer"], line["problem"]["status"], line["end"]))
        .collect();
    assert_eq!(
        shown,
        [
            r#""acme" 400 null"#,
            r#""globex" 400 null"#,
            r#""initech" null null"#,
            r#"null null {"bills":1,"problems":2}"#
        ]
    );
}

#[tokio::test]
async fn a_line_names_the_batches_that_it_came_in() {
    let world = world_with_usage().await;
    let late = [
        line("calls", "acme", OCTOBER, &[], "500"),
        line("calls", "initech", "2026-11-10T23:45:00Z", &[], "1"),
    ];
    world.post_from(StreamId([8; 16]), &late).await;
    let check = async |customer: &str, number: usize, expected: Value| {
        let target = format!(
            "/v1/customers/{customer}/bill/explain?line={number}&at={NOVEMBER}&sources=true"
        );
        let sources = world.get(&target).await.ok()["sources"].clone();
        assert_eq!(sources, expected, "{customer} {number}");
    };
    let [first, second] = [7, 8].map(|byte| StreamId([byte; 16]).to_string());
    let batch = |events: u64| json!([{"sequence": 1, "events": events}]);
    // Before the change of plan two batches, after it one; tokens by the price that takes them.
    check(
        "initech",
        2,
        json!({"streams": [{"stream": first, "batches": batch(1)}, {"stream": second, "batches": batch(1)}],
            "corrected_events": 0, "events": 2}),
    )
    .await;
    let one = |events| json!({"streams": [{"stream": first, "batches": batch(events)}], "corrected_events": 0, "events": events});
    check("initech", 5, one(1)).await;
    check("initech", 6, one(1)).await;
    check("initech", 7, one(2)).await;
    check("initech", 1, Value::Null).await;
    let amend = r#"{"customer":"acme","reason":"r","kind":"backfill","meter":"calls","at":"2026-11-01T00:00:00Z","events":3,"quantity":"1"}"#;
    world.post_json("/v1/corrections", amend).await.ok();
    check(
        "acme",
        2,
        json!({"streams": [{"stream": first, "batches": batch(1)}], "corrected_events": 3, "events": 4}),
    )
    .await;
}
