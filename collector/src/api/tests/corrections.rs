//! Usage and prices that an invoice used: corrected, and never edited.

use super::certificates::verify_all;
use super::invoices::{check_document, october, run};
use super::*;

/// What `{"customer":"acme", ..}` comes to: 200, or status and detail.
async fn correct(world: &World, more: &str, status: u16, detail: &str) {
    let body = format!(r#"{{"customer":"acme","reason":"r",{more}}}"#);
    let response = world.post_json("/v1/corrections", &body).await;
    assert_eq!(response.status, status, "{more}: {}", response.body);
    assert!(response.body.contains(detail), "{more}: {}", response.body);
}

#[tokio::test]
async fn usage_is_corrected_and_charged_with_the_next_invoice() {
    let world = october().await;
    let at = r#""at":"2026-10-31T18:15:00Z""#;
    // 12,500 calls become 13,000 - 1,000 = 12,000; the bill shows it at once.
    correct(
        &world,
        &format!(r#""kind":"backfill","meter":"calls",{at},"events":2,"quantity":"500""#),
        200,
        "entry",
    )
    .await;
    correct(
        &world,
        &format!(r#""kind":"amend","meter":"calls",{at},"events":-1,"quantity":"-1000""#),
        200,
        "entry",
    )
    .await;
    let bill = world.get("/v1/customers/acme/bill?at=2026-10-15T00:00:00Z").await.ok();
    let calls = &bill["sections"][0]["lines"][1];
    assert_eq!(
        (&calls["quantity"], &calls["events"], &calls["amount"]),
        (&json!("12000"), &json!(2), &json!("20.00"))
    );
    // Globex stored less than was measured: 180.5 GiB become 120.
    let replace = r#"{"customer":"globex","reason":"r","kind":"replace","meter":"storage","at":"2026-11-02T12:00:00Z","quantity":"120"}"#;
    world.post_json("/v1/corrections", replace).await.ok();
    world.set_clock("2026-12-01T12:00:00Z").await;
    let told = run(&world, "2026-12-01").await;
    assert_eq!(told[0], "acme issued INV2026-000004 34.50 34.50");
    // 25.00 + 20 * 0.023 = 0.46; off: 2.546, to 2.55.
    assert_eq!(told[1], "globex issued INV2026-000005 22.91 22.91");
    check_document(
        &world,
        "INV2026-000004",
        &[
            "period Base 30.00",
            "period calls 0.00",
            "period seats 5.00",
            "correction calls -0.50 (before: 20.50)",
            "GST 18 %: 29.24 + 5.26",
            "34.50 34.50 0.00 34.50 EUR",
        ],
    )
    .await;
    assert!(verify_all(&world).await > 0);
}

#[tokio::test]
async fn corrections_that_cannot_be_are_refused() {
    let world = october().await;
    let at = r#""at":"2026-10-31T18:15:00Z""#;
    for (more, detail) in [
        (
            format!(r#""kind":"void","meter":"calls",{at},"events":2,"quantity":"1""#),
            "only 1 events are there",
        ),
        (format!(r#""kind":"amend","meter":"calls",{at},"quantity":"0""#), "changes nothing"),
        (format!(r#""kind":"amend","meter":"calls",{at},"events":1"#), "`quantity`: is missing"),
        (format!(r#""kind":"replace","meter":"calls",{at},"quantity":"1""#), "are not replaced"),
        (format!(r#""kind":"amend","meter":"storage",{at},"quantity":"1""#), "use \\\"replace\\\""),
        (format!(r#""kind":"backfill","meter":"seats",{at},"events":1"#), "distinct values"),
        (format!(r#""kind":"backfill","meter":"cals",{at},"events":1"#), "no such meter"),
        (
            r#""kind":"amend","meter":"calls","at":"2026-10-31T18:14:00Z","quantity":"1""#
                .to_owned(),
            "15 minutes",
        ),
        (
            r#""kind":"amend","meter":"calls","at":"2036-10-31T18:15:00Z","quantity":"1""#
                .to_owned(),
            "in the future",
        ),
        (
            format!(
                r#""kind":"amend","meter":"calls",{at},"quantity":"1","dimensions":{{"x":"y"}}"#
            ),
            "does not keep",
        ),
    ] {
        correct(&world, &more, 422, detail).await;
    }
    correct(
        &world,
        &format!(r#""kind":"void","meter":"calls",{at},"events":1,"quantity":"12500""#),
        200,
        "entry",
    )
    .await;
    correct(
        &world,
        &format!(r#""kind":"void","meter":"calls",{at},"events":1,"quantity":"1""#),
        422,
        "only 0 events",
    )
    .await;
    let bill = world.get("/v1/customers/acme/bill?at=2026-10-15T00:00:00Z").await.ok();
    assert_eq!(bill["sections"][0]["lines"][1]["quantity"], json!("0"));
}

#[tokio::test]
async fn a_price_that_an_invoice_used_is_superseded_and_never_edited() {
    use crate::adopt::judge;
    use crate::catalog::Catalog;
    let world = october().await;
    let text = include_str!("worked_example.toml");
    let check = |text: &str, expected: &str| {
        let before = include_str!("worked_example.toml");
        let (current, books) = (Catalog::parse(before, "c").ok(), world.ledger.books().unwrap());
        let had = current.as_ref().map(Catalog::aggregations).unwrap_or_default();
        let told = match judge(text, "c", current.as_ref(), &had, &*books) {
            Ok(_) => "taken".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(told.starts_with(expected), "{told}");
    };
    check(text, "taken");
    check(
        &text.replace("amount = \"30\"", "amount = \"31\""),
        "the version of the plan \"starter\" that always was is changed, and invoice INV2026-000001 used it; put it back",
    );
    check(
        &text.replace(
            "name = \"starter\"",
            "name = \"starter\"\neffective = \"2026-01-01T00:00:00Z\"",
        ),
        "the version of the plan \"starter\" that always was is gone, and invoice INV2026-000001 used it",
    );
    check(
        &text.replace("Asia/Kolkata", "Asia/Tokyo"),
        "the customer \"acme\", which was invoiced, has another time_zone; keep it",
    );
    check(
        &text.replace("id = \"acme\"", "id = \"acne\""),
        "the customer \"acme\", which was invoiced, is gone",
    );
    let newer = "[[plan]]\nname = \"starter\"\ncurrency = \"EUR\"\neffective = \"2026-10-01T00:00:00Z\"\n\
        [[plan.fee]]\nname = \"Base\"\namount = \"31\"\n";
    check(&format!("{text}{newer}"), "taken");
    // Pro's fee of November was charged in advance; what nobody was invoiced by may change.
    check(
        &text.replace("amount = \"100\"", "amount = \"101\""),
        "the version of the plan \"pro\" that always was is changed",
    );
    assert!(verify_all(&world).await > 0);
}
