//! A worked example: three customers, every price model, two periods, a late event; each bill by hand.

use tidemark_common::id::StreamId;

use super::world::{World, line, unique};
use super::*;

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

async fn world_with_usage() -> World {
    let world = World::start(CATALOG, NOVEMBER).await;
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
