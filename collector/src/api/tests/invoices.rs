//! The worked example's invoices, each figure by hand; what is done with them, and what is refused.

use tidemark_common::id::StreamId;

use super::certificates::verify_all;
use super::worked_example::world_with_usage;
use super::world::{ADMIN_TOKEN, AUDITOR_TOKEN, BILLING_TOKEN, Response};
use super::*;

/// No stream of these tests ever confirms, so a reason must be given.
const ALTHOUGH: &str = "no agent confirms in this test";

/// What a run for `date` tells, a line each: `customer outcome number total due`.
pub(super) async fn run(world: &World, date: &str) -> Vec<String> {
    run_as(world, date, &format!(r#","although_incomplete":"{ALTHOUGH}""#)).await
}

async fn run_as(world: &World, date: &str, more: &str) -> Vec<String> {
    let body = format!(r#"{{"period_end":"{date}"{more}}}"#);
    let response = world.post_keyed("/v1/billing-runs", &body, BILLING_TOKEN, None).await;
    assert_eq!(response.status, 200, "{}", response.body);
    let lines = response.body.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(end) = line.get("end") {
                return format!("{} {} {}", end["issued"], end["issued_before"], end["problems"]);
            }
            let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
            let shown = ["customer", "outcome", "number", "total", "amount_due"].map(text);
            match line["problem"].as_str() {
                Some(problem) => format!("{}: {problem}", shown[0]),
                None => shown.join(" "),
            }
        })
        .collect()
}

/// A document's lines as `kind description amount`, taxes as `label net + tax`, and its sums.
pub(super) async fn check_document(world: &World, number: &str, expected: &[&str]) {
    let document = world.get(&format!("/v1/invoices/{number}/document")).await.ok();
    let mut shown = Vec::new();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    for section in document["sections"].as_array().unwrap() {
        for line in section["lines"].as_array().unwrap() {
            let before = match line["invoiced_before"].as_str() {
                Some(before) => format!(" (before: {before})"),
                None => String::new(),
            };
            let [kind, description, amount] =
                [text(section, "kind"), text(line, "description"), text(line, "amount")];
            shown.push(format!("{kind} {description} {amount}{before}"));
        }
    }
    for tax in document["taxes"].as_array().unwrap() {
        let [label, net, tax] = ["label", "net", "tax"].map(|key| text(tax, key));
        shown.push(format!("{label}: {net} + {tax}"));
    }
    let sums = ["subtotal", "total", "credit_applied", "amount_due", "currency"];
    shown.push(sums.map(|key| text(&document, key)).join(" "));
    assert_eq!(shown, expected, "{number}");
}

/// `state due paid credited`.
async fn check_state(world: &World, number: &str, expected: &str) {
    let state = world.get(&format!("/v1/invoices/{number}")).await.ok();
    let keys = ["state", "amount_due", "paid", "credited"];
    let shown = keys.map(|key| state[key].as_str().unwrap().to_owned()).join(" ");
    assert_eq!(shown, expected, "{number}");
}

/// Accounts of one currency as `account balance`, which come to nothing.
pub(super) async fn check_balance(world: &World, currency: &str, expected: &[&str]) {
    let answer =
        world.get_with("/v1/ledger/trial-balance", Some(&bearer(AUDITOR_TOKEN))).await.ok();
    let balances = &answer["currencies"][currency];
    assert_eq!(balances["sum"], "0.00");
    let accounts = balances["accounts"].as_object().unwrap().iter();
    let shown: Vec<_> =
        accounts.map(|(name, sum)| format!("{name} {}", sum.as_str().unwrap())).collect();
    assert_eq!(shown, expected);
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn refused(response: &Response, status: u16, detail: &str) {
    assert_eq!(response.status, status, "{}", response.body);
    assert!(response.body.contains(detail), "{}", response.body);
}

/// October's invoices, issued in the middle of November.
pub(super) async fn october() -> World {
    let world = world_with_usage().await;
    assert_eq!(
        run(&world, "2026-11-01").await,
        [
            "acme issued INV2026-000001 50.50 50.50",
            "globex issued INV2026-000002 450.00 450.00",
            "initech issued INV2026-000003 115.04 115.04",
            "3 0 0",
        ]
    );
    world
}

#[tokio::test]
pub(super) async fn october_is_invoiced_once() {
    let world = october().await;
    // 18 % are in it: 50.50 * 18 / 118 = 7.7034.
    check_document(
        &world,
        "INV2026-000001",
        &[
            "period Base 30.00",
            "period calls 20.50",
            "period seats 0.00",
            "GST 18 %: 42.80 + 7.70",
            "50.50 50.50 0.00 50.50 EUR",
        ],
    )
    .await;
    check_document(
        &world,
        "INV2026-000002",
        &[
            "period payments 500.00",
            "period storage 0.00",
            "period Discount 10 % -50.00",
            "Reverse charge: 450.00 + 0.00",
            "450.00 450.00 0.00 450.00 USD",
        ],
    )
    .await;
    // The new plan begins within November: 66.67 of its fee, in advance. 96.67 * 19 % = 18.3673.
    check_document(
        &world,
        "INV2026-000003",
        &[
            "period Base 30.00",
            "period calls 0.00",
            "period seats 0.00",
            "advance Base 66.67",
            "VAT 19 %: 96.67 + 18.37",
            "96.67 115.04 0.00 115.04 EUR",
        ],
    )
    .await;
    assert_eq!(
        run(&world, "2026-11-01").await,
        [
            "acme issued_before INV2026-000001 - -",
            "globex issued_before INV2026-000002 - -",
            "initech issued_before INV2026-000003 - -",
            "0 3 0",
        ]
    );
    let document = world.get("/v1/invoices/INV2026-000002/document").await.ok();
    assert_eq!(
        (&document["date"], &document["due_date"]),
        (&json!("2026-11-15"), &json!("2026-12-15"))
    );
    assert_eq!(
        document["notes"],
        json!(["Reverse charge: the recipient is liable for the tax.", "Thank you."])
    );
    // Nothing ends on this day, and November is not over.
    assert_eq!(run(&world, "2026-11-08").await, ["0 0 0"]);
    let early = run(&world, "2026-12-01").await;
    assert!(
        early[0].starts_with(
            "acme: the period ends on 2026-12-01 in Asia/Kolkata, and that, or the grace"
        ),
        "{early:?}"
    );
}

/// November's: a late event of October, a change of plan, fees in advance.
async fn november() -> World {
    let world = october().await;
    let late = [line("calls", "acme", "2026-10-15T00:00:00Z", &[], "500")];
    world.post_from(StreamId([8; 16]), &late).await;
    world.set_clock("2026-12-01T12:00:00Z").await;
    assert_eq!(
        run(&world, "2026-12-01").await,
        [
            "acme issued INV2026-000004 35.50 35.50",
            "globex issued INV2026-000005 24.17 24.17",
            "initech issued INV2026-000006 177.31 177.31",
            "3 0 0",
        ]
    );
    world
}

#[tokio::test]
async fn november_corrects_october_and_charges_december_in_advance() {
    let world = november().await;
    // October's calls come to 21.00 now. In it: 35.50 * 18 / 118 = 5.4153.
    check_document(
        &world,
        "INV2026-000004",
        &[
            "period Base 30.00",
            "period calls 0.00",
            "period seats 5.00",
            "correction calls 0.50 (before: 20.50)",
            "GST 18 %: 30.08 + 5.42",
            "35.50 35.50 0.00 35.50 EUR",
        ],
    )
    .await;
    // 49.00 of November, but for what was in advance, and 100 of December: 149.00 * 19 % = 28.31.
    check_document(
        &world,
        "INV2026-000006",
        &[
            "period Base 10.00",
            "period calls 4.00",
            "period seats 1.67",
            "period Base 0.00 (before: 66.67)",
            "period calls 9.00",
            "period tokens{model=large} 10.00",
            "period tokens 0.03",
            "period Minimum commitment 14.30",
            "advance Base 100.00",
            "VAT 19 %: 149.00 + 28.31",
            "149.00 177.31 0.00 177.31 EUR",
        ],
    )
    .await;
    // 500 + 25 of payments, less discounts of 50 and 2.68 on the plan of that name.
    check_balance(
        &world,
        "USD",
        &["receivable 474.17", "revenue/payments -472.32", "revenue/storage -1.85"],
    )
    .await;
    assert!(verify_all(&world).await > 0);
}

#[tokio::test]
async fn credit_notes_payments_and_credit_come_to_the_next_invoice() {
    let world = november().await;
    let target = "/v1/invoices/INV2026-000006";
    // 119.00 in the proportions of 149.00 and 28.31.
    let credit = r#"{"amount":"119.00","reason":"the outage of 3 November"}"#;
    let booked = world.post_json(&format!("{target}/credit-notes"), credit).await.ok();
    assert_eq!(booked["number"], "CN2026-000001");
    check_document(
        &world,
        "CN2026-000001",
        &[
            "credit Credit on invoice INV2026-000006 119.00",
            "VAT 19 %: 100.00 + 19.00",
            "119.00 119.00 0.00 0.00 EUR",
        ],
    )
    .await;
    check_state(&world, "INV2026-000006", "partly_paid 58.31 0.00 119.00").await;
    // 141.69 too much.
    let payment = r#"{"amount":"200.00","date":"2026-12-01","reference":"bank 77"}"#;
    let pay = format!("{target}/payments");
    let first = world.post_keyed(&pay, payment, BILLING_TOKEN, Some("pay-1")).await.ok();
    let again = world.post_keyed(&pay, payment, BILLING_TOKEN, Some("pay-1")).await.ok();
    assert_eq!((&first["replayed"], &again["replayed"]), (&json!(false), &json!(true)));
    assert_eq!(first["entry"], again["entry"]);
    let other = world.post_keyed(&pay, r#"{"amount":"1.00"}"#, BILLING_TOKEN, Some("pay-1")).await;
    refused(&other, 422, "used for another request");
    check_state(&world, "INV2026-000006", "paid 0.00 58.31 119.00").await;

    world.set_clock("2027-01-02T00:00:00Z").await;
    assert_eq!(
        run(&world, "2027-01-01").await,
        [
            "acme issued INV2027-000001 30.00 30.00",
            "globex issued INV2027-000002 22.50 22.50",
            "initech issued INV2027-000003 178.50 36.81",
            "3 0 0",
        ]
    );
    // December: the fee was paid in advance; 150 - 100 are left of the commitment. 150 * 19 % = 28.50.
    check_document(
        &world,
        "INV2027-000003",
        &[
            "period Base 0.00 (before: 100.00)",
            "period calls 0.00",
            "period tokens{model=large} 0.00",
            "period tokens 0.00",
            "period Minimum commitment 50.00",
            "advance Base 100.00",
            "VAT 19 %: 150.00 + 28.50",
            "150.00 178.50 141.69 36.81 EUR",
        ],
    )
    .await;
    check_balance(
        &world,
        "EUR",
        &[
            "clearing 200.00",
            "customer_credit 0.00",
            "deferred -100.00",
            // 50.50 + 115.04 + 35.50 + 30.00 + 36.81; initech's of November is settled.
            "receivable 267.85",
            // acme, net of 18 %: 25.43, 25.42, 25.42; initech: 30, 10, 66.67, 100; credited 100 * 76.67 / 115.67.
            "revenue/Base -216.66",
            // 17.37 and 0.42; 13.00, less 11.24.
            "revenue/calls -19.55",
            // 14.30 and 50.00, less 12.37.
            "revenue/pro -51.93",
            // 4.24; 1.67, less 1.44.
            "revenue/seats -4.47",
            // 10.03, less 8.67.
            "revenue/tokens -1.36",
            // 7.70 + 18.37 + 5.42 + 28.31 - 19.00 + 4.58 + 28.50.
            "tax_payable -73.88",
        ],
    )
    .await;
    assert!(verify_all(&world).await > 0);
}

#[tokio::test]
async fn a_void_invoice_keeps_its_number_and_is_issued_anew() {
    let world = october().await;
    let target = "/v1/invoices/INV2026-000003/void";
    let reason = r#"{"reason":"wrong address"}"#;
    world.post_json(target, reason).await.ok();
    check_state(&world, "INV2026-000003", "void 0.00 0.00 0.00").await;
    refused(&world.post_json(target, reason).await, 409, "is void, so it cannot be void");
    assert_eq!(
        run(&world, "2026-11-01").await,
        [
            "acme issued_before INV2026-000001 - -",
            "globex issued_before INV2026-000002 - -",
            "initech issued INV2026-000004 115.04 115.04",
            "1 2 0",
        ]
    );
    check_balance(
        &world,
        "EUR",
        &[
            "deferred -66.67",
            "receivable 165.54",
            "revenue/Base -55.43",
            "revenue/calls -17.37",
            "tax_payable -26.07",
        ],
    )
    .await;
    assert!(verify_all(&world).await > 0);
}

#[tokio::test]
async fn less_usage_than_was_invoiced_is_a_credit_note() {
    let world = october().await;
    let catalog = include_str!("worked_example.toml");
    // What invoices used is not edited: nobody is billed by such a catalogue.
    world.adopt(&catalog.replace("amount = \"30\"", "amount = \"31\""));
    let told = run(&world, "2026-12-01").await;
    assert!(
        told[0].contains("nobody is billed by it: the version of the plan \"starter\""),
        "{told:?}"
    );
    // A version that takes effect in the past supersedes it: all calls were free.
    let newer = "[[plan]]\nname = \"starter\"\ncurrency = \"EUR\"\neffective = \"2026-01-01T00:00:00Z\"\n\
        [[plan.fee]]\nname = \"Base\"\namount = \"0\"\n[[plan.price]]\nmeter = \"calls\"\nunit_price = \"0\"\n\
        [[plan.price]]\nmeter = \"seats\"\nunit_price = \"5\"\nincluded = \"2\"\n";
    world.adopt(&format!("{catalog}{newer}"));
    world.set_clock("2026-12-01T12:00:00Z").await;
    let told = run(&world, "2026-12-01").await;
    // 5.00 of November's seats, less 30.00 and 20.50 of October.
    assert_eq!(told[0], "acme issued CN2026-000001 45.50 0.00");
    check_document(
        &world,
        "CN2026-000001",
        &[
            "period Base 0.00",
            "period calls 0.00",
            "period seats -5.00",
            "correction Base 30.00 (before: 30.00)",
            "correction calls 20.50 (before: 20.50)",
            "GST 18 %: 38.56 + 6.94",
            "45.50 45.50 0.00 0.00 EUR",
        ],
    )
    .await;
    world.set_clock("2027-01-02T00:00:00Z").await;
    assert_eq!(run(&world, "2027-01-01").await[0], "acme nothing_due - 0.00 0.00");
    // The version that corrected October is used by that.
    let edited = format!("{catalog}{newer}").replace(
        "unit_price = \"0\"\n[[plan.price]]\nmeter = \"seats\"",
        "unit_price = \"1\"\n[[plan.price]]\nmeter = \"seats\"",
    );
    world.adopt(&edited);
    let told = run(&world, "2027-02-01").await;
    assert!(told[0].contains("\"starter\" from 2026-01-01T00:00:00Z is changed"), "{told:?}");
    assert!(verify_all(&world).await > 0);
}

#[tokio::test]
async fn what_cannot_be_booked_is_refused() {
    let world = october().await;
    let pay = "/v1/invoices/INV2026-000001/payments";
    let body = r#"{"amount":"1.00"}"#;
    for (response, status, detail) in [
        (world.post_keyed(pay, body, BILLING_TOKEN, None).await, 400, "bears no `Idempotency-Key`"),
        (world.post_keyed(pay, body, TOKEN, Some("k")).await, 403, "role is \\\"viewer\\\""),
        (world.post_keyed(pay, body, ACME_TOKEN, Some("k")).await, 403, "limited to one customer"),
        (world.post_json(pay, r#"{"amount":"1.001"}"#).await, 422, "at most 2 places"),
        (world.post_json(pay, r#"{"amount":"-1.00"}"#).await, 422, "above 0"),
        (world.post_json(pay, r#"{"amount":"1.00","note":1}"#).await, 400, "unknown field `note`"),
        (world.post_json(pay, "{").await, 400, "EOF"),
        (world.post_json("/v1/invoices/INV9/payments", body).await, 404, "no document"),
        (
            world
                .post_json(
                    "/v1/invoices/INV2026-000001/credit-notes",
                    r#"{"amount":"50.51","reason":"r"}"#,
                )
                .await,
            409,
            "comes to 50.50 EUR",
        ),
        (
            world.post_json("/v1/ledger/locks", r#"{"through":"2026-11","reason":"r"}"#).await,
            409,
            "not over",
        ),
        (
            world.post_json("/v1/billing-runs", r#"{"period_end":"tomorrow"}"#).await,
            422,
            "first day after",
        ),
        (world.get("/v1/ledger/entries").await, 403, "viewer"),
        (
            world
                .get_with("/v1/customers/acme/invoices/INV2026-000002", Some(&bearer(ACME_TOKEN)))
                .await,
            404,
            "no document",
        ),
    ] {
        refused(&response, status, detail);
    }
    // A month that is locked takes no payment; the token of one customer sees its own documents.
    world.post_json("/v1/ledger/locks", r#"{"through":"2026-10","reason":"closed"}"#).await.ok();
    let dated = r#"{"amount":"1.00","date":"2026-10-31"}"#;
    refused(&world.post_json(pay, dated).await, 409, "2026-10 is locked");
    let own = world.get_with("/v1/customers/acme/invoices", Some(&bearer(ACME_TOKEN))).await.ok();
    assert_eq!(own["invoices"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn usage_that_may_be_missing_keeps_a_document_back() {
    let world = world_with_usage().await;
    let told = run_as(&world, "2026-11-01", "").await;
    assert!(told[0].starts_with("acme: a finding keeps it back: never_confirmed/0707"), "{told:?}");
    assert_eq!(told[3], "0 0 3");
    // A dry run shows what would be issued, and the live bill to the byte.
    let body = r#"{"period_end":"2026-11-01","dry_run":true}"#;
    let dry = world.post_keyed("/v1/billing-runs", body, BILLING_TOKEN, None).await;
    let line = dry.body.lines().find(|line| line.contains(r#""customer":"acme""#)).unwrap();
    let live = world.get("/v1/customers/acme/bill?at=2026-10-15T00:00:00Z").await.body;
    let of_bill = live.split(r#","as_of""#).next().unwrap();
    assert!(line.contains(&format!(r#""bill":{of_bill}}}"#)), "{line}\n{of_bill}");
    assert_eq!(world.get("/v1/invoices").await.ok()["invoices"], json!([]));
}

#[tokio::test]
async fn pages_and_chains_are_whole() {
    let world = november().await;
    let mut numbers = Vec::new();
    let mut target = "/v1/invoices?limit=4".to_owned();
    loop {
        let page = world.get(&target).await.ok();
        numbers
            .extend(page["invoices"].as_array().unwrap().iter().map(|one| one["number"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/invoices?limit=4&after={next}");
    }
    let expected: Vec<_> = (1..=6).map(|number| json!(format!("INV2026-{number:06}"))).collect();
    assert_eq!(numbers, expected);
    let first = world.get("/v1/streams?limit=1").await.ok();
    let rest =
        world.get(&format!("/v1/streams?after={}", first["next"].as_str().unwrap())).await.ok();
    let ids = [&first["streams"][0]["stream"], &rest["streams"][0]["stream"]];
    assert_eq!(ids, [&json!("07".repeat(16)), &json!("08".repeat(16))]);
    assert_eq!(rest["next"], Value::Null);
    let auditor = bearer(AUDITOR_TOKEN);
    let mut previous = "0".repeat(64);
    let mut after = String::new();
    loop {
        let target = format!("/v1/ledger/entries?limit=2{after}");
        let page = world.get_with(&target, Some(&auditor)).await.ok();
        for shown in page["entries"].as_array().unwrap() {
            assert_eq!(shown["entry"]["previous"], json!(previous));
            previous = shown["digest"].as_str().unwrap().to_owned();
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let balance = world.get_with("/v1/ledger/trial-balance", Some(&auditor)).await.ok();
    assert_eq!((&balance["head"], &balance["entries"]), (&json!(previous), &json!(9)));
    // Before the first entry there is nothing.
    let early =
        world.get_with("/v1/ledger/trial-balance?at=2026-11-01T00:00:00Z", Some(&auditor)).await;
    assert_eq!(early.ok()["currencies"], json!({}));
}

#[tokio::test]
async fn runs_out_of_order_take_nothing_back() {
    let world = october().await;
    world.set_clock("2026-12-01T12:00:00Z").await;
    run(&world, "2026-12-01").await;
    // September, after October and November: its fee, and nothing of October.
    assert_eq!(run(&world, "2026-10-01").await[0], "acme issued INV2026-000007 30.00 30.00");
    // October's invoice is void, and written anew: November stays as it is.
    let void = r#"{"reason":"wrong address"}"#;
    world.post_json("/v1/invoices/INV2026-000003/void", void).await.ok();
    assert_eq!(run(&world, "2026-11-01").await[2], "initech issued INV2026-000010 115.04 115.04");
    check_document(
        &world,
        "INV2026-000010",
        &[
            "period Base 30.00",
            "period calls 0.00",
            "period seats 0.00",
            "correction Base 66.67 (before: 0.00)",
            "VAT 19 %: 96.67 + 18.37",
            "96.67 115.04 0.00 115.04 EUR",
        ],
    )
    .await;
    assert!(verify_all(&world).await > 0);
}

#[tokio::test]
async fn what_is_asked_again_is_answered_again() {
    let world = october().await;
    let notes = "/v1/invoices/INV2026-000001/credit-notes";
    let note = r#"{"amount":"50.50","reason":"r"}"#;
    let first = world.post_keyed(notes, note, BILLING_TOKEN, Some("note")).await.ok();
    let again = world.post_keyed(notes, note, BILLING_TOKEN, Some("note")).await.ok();
    assert_eq!((&again["number"], &again["replayed"]), (&first["number"], &json!(true)));
    let void = r#"{"customer":"acme","reason":"r","kind":"void","meter":"calls","at":"2026-10-31T18:15:00Z","events":1,"quantity":"12500"}"#;
    let first = world.post_keyed("/v1/corrections", void, BILLING_TOKEN, Some("void")).await.ok();
    let again = world.post_keyed("/v1/corrections", void, BILLING_TOKEN, Some("void")).await.ok();
    assert_eq!((&again["entry"], &again["replayed"]), (&first["entry"], &json!(true)));
}

#[tokio::test]
async fn a_sandbox_watches_periods_close() {
    let world = october().await;
    let advance = |to: &str| format!(r#"{{"advance_to":"{to}"}}"#);
    let target = "/v1/test-clock";
    refused(
        &world.post_json(target, &advance("2026-11-14T00:00:00Z")).await,
        422,
        "time goes forward",
    );
    refused(&world.post_json(target, &advance("2028-11-16T00:00:00Z")).await, 422, "366 days");
    let to = advance("2026-12-01T12:00:00Z");
    let first = world.post_keyed(target, &to, ADMIN_TOKEN, Some("clock")).await.ok();
    let again = world.post_keyed(target, &to, ADMIN_TOKEN, Some("clock")).await.ok();
    assert_eq!((&again["entry"], &again["replayed"]), (&first["entry"], &json!(true)));
    let clock = world.get(target).await.ok();
    assert_eq!(clock["sandbox"], json!(true));
    assert!(clock["now"].as_str().unwrap().starts_with("2026-12-01T12:00:0"), "{clock}");
    assert_eq!(run(&world, "2026-12-01").await[0], "acme issued INV2026-000004 35.00 35.00");
    let notes = world.get("/v1/invoices/INV2026-000004/document").await.ok()["notes"].clone();
    assert!(notes[0].as_str().unwrap().starts_with("TEST"), "{notes}");
    assert!(verify_all(&world).await > 0);
}
