//! What a plan says of more than one period: commitments of a term, and fees in advance.

use tidemark_common::id::StreamId;

use super::certificates::verify_all;
use super::invoices::{check_balance, check_document, run};
use super::world::{World, line};

const CATALOG: &str = r#"
[[seller]]
name = "main"
legal_name = "Tide GmbH"
[[meter]]
name = "calls"
aggregation = "sum"
[[plan]]
name = "p"
currency = "EUR"
commitment = "1200"
commitment_term = "quarter"
[[plan.price]]
meter = "calls"
unit_price = "1"
[[customer]]
id = "early"
plan = "p"
[[customer]]
id = "late"
[[subscription]]
customer = "late"
plan = "p"
start = "2026-02-01T00:00:00Z"
[[customer]]
id = "gone"
[[subscription]]
customer = "gone"
plan = "p"
end = "2026-02-11T00:00:00Z"
"#;

pub(super) async fn world() -> World {
    let world = World::start(CATALOG, "2026-04-02T00:00:00Z").await;
    let calls = |customer, at, quantity| line("calls", customer, at, &[], quantity);
    world
        .post(&[
            calls("early", "2026-01-10T00:00:00Z", "100"),
            calls("early", "2026-02-10T00:00:00Z", "50"),
            calls("early", "2026-03-10T00:00:00Z", "20"),
            calls("late", "2026-02-10T00:00:00Z", "1000"),
            calls("gone", "2026-01-10T00:00:00Z", "100"),
            calls("gone", "2026-02-10T00:00:00Z", "40"),
        ])
        .await;
    world
}

/// A customer's bill of the month that holds `at` -> its lines' amounts, and the total.
async fn check(world: &World, customer: &str, at: &str, expected: &[&str]) {
    let bill = world.get(&format!("/v1/customers/{customer}/bill?at={at}")).await.ok();
    let lines = bill["sections"][0]["lines"].as_array().unwrap();
    let mut shown: Vec<_> = lines
        .iter()
        .map(|line| {
            format!("{} {}", line["kind"].as_str().unwrap(), line["amount"].as_str().unwrap())
        })
        .collect();
    shown.push(bill["total"].as_str().unwrap().to_owned());
    assert_eq!(shown, expected, "{customer} {at}");
}

#[tokio::test]
async fn what_a_term_is_short_of_is_charged_with_its_last_period() {
    let world = world().await;
    check(&world, "early", "2026-01-15T00:00:00Z", &["usage 100.00", "100.00"]).await;
    check(&world, "early", "2026-02-15T00:00:00Z", &["usage 50.00", "50.00"]).await;
    // 1200 - 100 - 50 - 20.
    check(
        &world,
        "early",
        "2026-03-15T00:00:00Z",
        &["usage 20.00", "commitment 1030.00", "1050.00"],
    )
    .await;
    // 1200 - round(1200 * 31 / 90) = 786.67: that is reached.
    check(&world, "late", "2026-02-15T00:00:00Z", &["usage 1000.00", "1000.00"]).await;
    check(&world, "late", "2026-03-15T00:00:00Z", &["usage 0.00", "commitment 0.00", "0.00"]).await;
    // It ends in February: round(1200 * 41 / 90) = 546.67, less 140.
    check(&world, "gone", "2026-02-15T00:00:00Z", &["usage 40.00", "commitment 406.67", "446.67"])
        .await;
    let target = "/v1/customers/early/bill/explain?line=2&at=2026-03-15T00:00:00Z";
    let explained = world.get(target).await.ok();
    let steps = explained["steps"].as_array().unwrap().iter();
    let shown: Vec<_> = steps.map(|step| step["value"].as_str().unwrap()).collect();
    assert_eq!(shown, ["1200 EUR", "1200.00 EUR", "170.00 EUR", "1030.00 EUR"]);
    assert_eq!(explained["line"]["term"]["charged"], "170.00");
}

#[tokio::test]
async fn late_usage_of_a_term_takes_from_what_it_was_short_of() {
    let world = world().await;
    for date in ["2026-02-01", "2026-03-01"] {
        run(&world, date).await;
    }
    assert_eq!(run(&world, "2026-04-01").await[0], "early issued INV2026-000006 1050.00 1050.00");
    // 30 more of January: the quarter's commitment is reached by as much.
    let late = [line("calls", "early", "2026-01-20T00:00:00Z", &[], "30")];
    world.post_from(StreamId([8; 16]), &late).await;
    world.set_clock("2026-05-02T00:00:00Z").await;
    assert_eq!(run(&world, "2026-05-01").await[0], "early issued INV2026-000007 0.00 0.00");
    let document = world.get("/v1/invoices/INV2026-000007/document").await.ok();
    let sections = document["sections"].as_array().unwrap().iter();
    let lines = sections.flat_map(|section| section["lines"].as_array().unwrap());
    let shown: Vec<_> = lines
        .map(|line| {
            format!(
                "{} {}",
                line["description"].as_str().unwrap(),
                line["amount"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(shown, ["calls 0.00", "calls 30.00", "Minimum commitment -30.00"]);
    assert!(verify_all(&world).await > 0);
}

const YEARLY: &str = r#"
[[seller]]
name = "main"
legal_name = "Tide GmbH"
[[meter]]
name = "calls"
aggregation = "sum"
[[plan]]
name = "yearly"
currency = "EUR"
interval = "year"
[[plan.fee]]
name = "Annual"
amount = "1200"
timing = "advance"
[[plan]]
name = "monthly"
currency = "EUR"
[[plan.price]]
meter = "calls"
unit_price = "1"
[[customer]]
id = "acme"
plan = "monthly"
[[subscription]]
customer = "acme"
plan = "yearly"
start = "2026-01-01T00:00:00Z"
"#;

#[tokio::test]
async fn a_fee_in_advance_is_earned_when_its_period_is_over() {
    let world = World::start(YEARLY, "2026-01-02T00:00:00Z").await;
    assert_eq!(run(&world, "2026-01-01").await[0], "acme issued INV2026-000001 1200.00 1200.00");
    world.post(&[line("calls", "acme", "2026-01-15T00:00:00Z", &[], "7")]).await;
    world.set_clock("2026-03-02T00:00:00Z").await;
    assert_eq!(run(&world, "2026-02-01").await[0], "acme issued INV2026-000002 7.00 7.00");
    check_document(
        &world,
        "INV2026-000002",
        &["period calls 7.00", "No tax: 7.00 + 0.00", "7.00 7.00 0.00 7.00 EUR"],
    )
    .await;
    check_balance(
        &world,
        "EUR",
        &["deferred -1200.00", "receivable 1207.00", "revenue/calls -7.00"],
    )
    .await;
    // Of February nothing is due: no number is drawn; later usage of it is charged with March.
    assert_eq!(run(&world, "2026-03-01").await, ["acme nothing_due - 0.00 0.00", "0 0 0"]);
    assert_eq!(run(&world, "2026-03-01").await, ["acme nothing_due - - -", "0 0 0"]);
    let late = [line("calls", "acme", "2026-02-15T00:00:00Z", &[], "5")];
    world.post_from(StreamId([8; 16]), &late).await;
    world.set_clock("2026-04-02T00:00:00Z").await;
    assert_eq!(run(&world, "2026-04-01").await[0], "acme issued INV2026-000003 5.00 5.00");
    // A year that was mistyped.
    let old = run(&world, "2025-04-01").await;
    assert!(old[0].contains("more than 100 days ago"), "{old:?}");
    assert!(verify_all(&world).await > 0);
}
