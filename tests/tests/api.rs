//! The collector's API: who may ask, what is refused, and how refusals help.

use anyhow::{Result, ensure};
use tidemark_tests::doors::Lines;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::wide_range;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["region"]
[[customer]]
id = "acme"
plan = "standard"
time_zone = "Asia/Kolkata"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.price]]
meter = "api.calls"
unit_price = "0.10"
"#;

#[test]
fn refusals_say_what_to_do() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        lines.send(b"api.calls:2|c|#customer:acme,region:eu\n", 1)?;
        ensure!(lines.wait_durable()?.is_empty(), "refused");
        stack.wait_posted(1)?;
        unauthorised(stack)?;
        refused(stack)?;
        answered(stack)
    })
}

fn unauthorised(stack: &Stack) -> Result<()> {
    let api = stack.api();
    for path in
        ["/v1/customers/acme/usage", "/v1/customers/acme/bill", "/v1/streams", "/v1/suspense"]
    {
        for token in [None, Some("not-the-token-of-this-collector")] {
            let answer = api.get_as(path, token)?;
            ensure!(answer.status == 401, "{path}: {}", answer.status);
            ensure!(answer.header("www-authenticate").is_some(), "{path}: {answer:?}");
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = api.get_as(path, None)?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
    }
    Ok(())
}

/// Each request with its status and what its answer must name.
fn refused(stack: &Stack) -> Result<()> {
    let usage = "/v1/customers/acme/usage";
    for (path, status, named) in [
        // Not on a bucket's edge: the nearest ones are named.
        (
            format!("{usage}?from=2026-03-01T00:07:00Z"),
            400,
            ["2026-03-01T00:00:00", "2026-03-01T00:15:00"],
        ),
        (format!("{usage}?to=1767225601"), 400, ["2026-01-01T00:00:00", "2026-01-01T00:15:00"]),
        (format!("{usage}?from=yesterday"), 400, ["from", "RFC 3339"]),
        (format!("{usage}?from=1767226500&to=1767225600"), 400, ["from", "before"]),
        (format!("{usage}?form=1"), 400, ["form", "from"]),
        (format!("{usage}?window=week"), 400, ["week", "day"]),
        (format!("{usage}?group_by=colour"), 400, ["colour", "region"]),
        (format!("{usage}?meter=api.cals"), 404, ["api.cals", "api.calls"]),
        ("/v1/customers/nobody/bill".to_owned(), 404, ["nobody", "[[customer]]"]),
        ("/v1/streams?all=1".to_owned(), 400, ["all", "limit, after"]),
        ("/v2/streams".to_owned(), 404, ["/v2/streams", "/v1/streams"]),
    ] {
        let answer = stack.api().get(&path)?;
        ensure!(answer.status == status, "{path}: {} {}", answer.status, answer.body);
        let kind = answer.header("content-type");
        ensure!(kind == Some("application/problem+json"), "{path}: {kind:?}");
        for name in named {
            ensure!(answer.body.contains(name), "{path} does not name {name}: {}", answer.body);
        }
    }
    Ok(())
}

fn answered(stack: &Stack) -> Result<()> {
    let api = stack.api();
    let total = api.usage("acme", "")?;
    ensure!(total.known && total.time_zone == "Asia/Kolkata", "{total:?}");
    ensure!(total.events_in_transit == 0, "{total:?}");
    let days = api.usage("acme", "&window=day")?.usage;
    ensure!(days.len() == 1 && days[0].quantity.as_deref() == Some("2"), "{days:?}");
    // The customer's midnight, which is no midnight of UTC.
    ensure!(days[0].from.contains("T00:00:00+05:30"), "{days:?}");
    let unknown = api.usage("nobody", "")?;
    ensure!(!unknown.known, "{unknown:?}");
    // Answers are made of one cut, which they name.
    let (from, to) = wide_range();
    let answer = api.get(&format!("/v1/customers/acme/usage?from={from}&to={to}"))?.json()?;
    for key in ["cut", "as_of", "complete_through", "held_back_by"] {
        ensure!(answer.get(key).is_some(), "{key} is missing: {answer}");
    }
    Ok(())
}
