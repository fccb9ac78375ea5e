//! Live bills: what is on them, of which period, by which subscription.

use super::*;

#[tokio::test]
async fn a_bill_prices_the_current_period_and_names_what_it_leaves_out() {
    let world = world().await;
    let bill = world.get("/v1/customers/acme/bill").await.ok();
    let section = &bill["sections"][0];
    let lines: Vec<_> = section["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            [
                "kind",
                "meter",
                "aggregation",
                "quantity",
                "model",
                "unit_price",
                "amount",
                "currency",
            ]
            .map(|key| line[key].as_str().unwrap().to_owned())
            .join(" ")
        })
        .collect();
    assert_eq!(
        lines,
        [
            "usage tokens sum 15.5 per_unit 0.002 0.03 EUR",
            "usage seats unique_count 2 per_unit 9.5 19.00 EUR"
        ]
    );
    assert_eq!((&bill["total"], &bill["currency"]), (&json!("19.03"), &json!("EUR")));
    assert_eq!(
        section["period"],
        json!({"start": "2026-03-01T00:00:00+05:30", "end": "2026-04-01T00:00:00+05:30", "time_zone": "Asia/Kolkata"})
    );
    let left_out: Vec<_> = bill["suspense"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            format!(
                "{} {} {}",
                entry["meter"].as_str().unwrap(),
                entry["reason"].as_str().unwrap(),
                entry["events"]
            )
        })
        .collect();
    assert_eq!(left_out, ["mystery unknown_meter 1", "peak unpriced 1"]);
    assert_eq!(bill["as_of"], "2026-03-10T17:30:00+05:30");
}

#[tokio::test]
async fn a_bill_of_another_period_and_what_this_one_will_come_to() {
    let world = world().await;
    let totals = |bill: &Value| {
        let section = &bill["sections"][0];
        let start = section["period"]["start"].as_str().unwrap()[..10].to_owned();
        assert_eq!(bill["projected_total"], section["projected_total"]);
        [start, bill["total"].to_string(), bill["projected_total"].to_string()]
            .join(" ")
            .replace('"', "")
    };
    // 15.5 tokens in 917.25 of 2976 quarters of an hour: 50.289452163 at the end; seats stay.
    let now = world.get("/v1/customers/acme/bill").await.ok();
    assert_eq!(totals(&now), "2026-03-01 19.03 19.10");
    let before = world.get("/v1/customers/acme/bill?at=2026-02-28T18:15:00Z").await.ok();
    assert_eq!(totals(&before), "2026-02-01 2.00 2.00");
    let after = world.get("/v1/customers/acme/bill?at=2026-04-15T00:00:00Z").await.ok();
    assert_eq!(totals(&after), "2026-04-01 0.00 0.00");
    assert_eq!(after["as_of"], now["as_of"]);
}

#[tokio::test]
async fn a_change_of_plan_splits_the_bill_and_charges_usage_once() {
    let world = world().await;
    // On `standard` until the tenth in UTC, on `pro` from then on, on `extra` all along.
    let catalog = CATALOG.replacen("plan = \"standard\"\n", "", 1)
        + r#"
[[plan]]
name = "pro"
currency = "EUR"
[[plan.fee]]
name = "Base"
amount = "31"
[[plan.price]]
meter = "tokens"
where = { model = "b" }
model = "package"
package_size = "3"
package_price = "1"
[[plan]]
name = "extra"
currency = "EUR"
[[plan.price]]
meter = "tokens"
unit_price = "100"
[[subscription]]
customer = "acme"
plan = "standard"
end = "2026-03-10T00:00:00Z"
[[subscription]]
customer = "acme"
plan = "pro"
start = "2026-03-10T00:00:00Z"
[[subscription]]
customer = "acme"
plan = "extra"
"#;
    world.adopt(&catalog);
    let bill = world.get("/v1/customers/acme/bill").await.ok();
    let sections: Vec<_> = bill["sections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|section| {
            let lines = section["lines"].as_array().unwrap().iter().map(|line| {
                let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
                let part = &line["part"];
                format!(
                    "{} {} {}/{} {}",
                    text("meter"),
                    text("quantity"),
                    part["quarters"],
                    part["of"],
                    text("amount")
                )
            });
            let lines: Vec<_> = lines.collect();
            format!("{}: {}", section["plan"].as_str().unwrap(), lines.join(", "))
        })
        .collect();
    assert_eq!(
        sections,
        [
            // The month began at half past six in the evening of UTC: nine days and 22 quarters of an hour.
            "standard: tokens 1.5 886/2976 0.00, seats 0 886/2976 0.00",
            // 31.00 - round(31 * 886 / 2976) = 31.00 - 9.23.
            "pro: - - 2090/2976 21.77, tokens 4 2090/2976 2.00",
            "extra: tokens 10 null/null 1000.00",
        ]
    );
    assert_eq!(bill["total"], "1023.77");
    let left_out =
        bill["suspense"].as_array().unwrap().iter().map(|entry| entry["meter"].as_str().unwrap());
    assert_eq!(left_out.collect::<Vec<_>>(), ["mystery", "peak", "seats"]);
}

#[tokio::test]
async fn usage_is_on_the_bill_of_one_subscription_in_one_period() {
    let world = world().await;
    // Daily first, until the tenth at noon in India; then what is left of the month.
    let catalog = CATALOG.replacen("plan = \"standard\"\n", "", 1)
        + r#"
[[plan]]
name = "daily"
currency = "EUR"
interval = "day"
[[plan.price]]
meter = "tokens"
unit_price = "1"
[[plan]]
name = "monthly"
currency = "EUR"
[[plan.price]]
meter = "tokens"
unit_price = "0.5"
[[subscription]]
customer = "acme"
plan = "daily"
end = "2026-03-10T00:15:00Z"
[[subscription]]
customer = "acme"
plan = "monthly"
"#;
    world.adopt(&catalog);
    let totals = async |at: &str| {
        let bill = world.get(&format!("/v1/customers/acme/bill?at={at}")).await.ok();
        let sections = bill["sections"].as_array().unwrap().iter();
        let shown: Vec<_> =
            sections.map(|section| format!("{} {}", section["plan"], section["total"])).collect();
        shown.join(", ").replace('"', "")
    };
    // Tokens: 1.5 on the first, 2 on the tenth before the daily plan ended, 4 + 8 after it.
    assert_eq!(totals("2026-02-28T18:30:00Z").await, "daily 1.50, monthly 6.00");
    assert_eq!(totals("2026-03-10T00:00:00Z").await, "daily 2.00, monthly 6.00");
    assert_eq!(totals("2026-03-11T00:00:00Z").await, "monthly 6.00");
}
