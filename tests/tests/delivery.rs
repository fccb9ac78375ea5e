//! From each door to the usage API and the bill, exactly.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::json;
use tidemark_tests::doors::{Datagrams, Frames, Lines, Udp};
use tidemark_tests::resend::{CLOUDEVENT, CLOUDEVENTS_BATCH};
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;

/// One meter of each aggregation, all of them priced but one.
const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["region"]
[[meter]]
name = "jobs"
aggregation = "count"
[[meter]]
name = "storage.gib"
aggregation = "max"
[[meter]]
name = "temperature"
aggregation = "min"
negative = true
[[meter]]
name = "latency.ms"
aggregation = "average"
[[meter]]
name = "seats"
aggregation = "latest"
[[meter]]
name = "users.active"
aggregation = "unique_count"
[[meter]]
name = "tokens"
aggregation = "sum"
dimensions = ["model"]
cloud_event = { type = "com.example.completion", quantity = "data.usage.total", dimensions = { model = "data.model" } }
[[customer]]
id = "acme"
plan = "standard"
[[customer]]
id = "globex"
plan = "standard"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.price]]
meter = "api.calls"
unit_price = "0.25"
[[plan.price]]
meter = "jobs"
unit_price = "1"
[[plan.price]]
meter = "tokens"
unit_price = "0.5"
"#;

/// Sends through one door and says what the usage API must show of acme: `meter quantity/events`.
fn check(
    send: impl FnOnce(&mut Stack) -> Result<()>,
    accepted: u64,
    expected: &[&str],
) -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE);
    Stack::run(settings, |stack| {
        send(stack)?;
        let seen = stack.wait_posted(accepted)?;
        ensure!(seen == accepted, "{seen} events accepted, {accepted} expected");
        ensure!(shown(stack, "acme", "")? == expected, "{:?}", shown(stack, "acme", "")?);
        Ok(())
    })
}

fn shown(stack: &Stack, customer: &str, parameters: &str) -> Result<Vec<String>> {
    let used = stack.api().usage(customer, parameters)?.usage;
    let used = used.into_iter().filter(|entry| entry.events > 0);
    let words = used.map(|entry| {
        let values: Vec<String> = entry
            .dimensions
            .into_iter()
            .map(|(name, value)| format!("{name}={}", value.unwrap_or_else(|| "null".to_owned())))
            .collect();
        let quantity = entry.quantity.unwrap_or_default();
        [vec![entry.meter], values, vec![format!("{quantity}/{}", entry.events)]].concat().join(" ")
    });
    Ok(words.collect())
}

const DOGSTATSD: &[&str] = &[
    "api.calls:2|c|#customer:acme,region:eu",
    // Packed: three events.
    "api.calls:1:2.5:0.000000001|c|#customer:acme,region:us,dropped:x",
    "storage.gib:10|g|#customer:acme\nstorage.gib:7|g|#customer:acme",
    "temperature:-3.5|g|#customer:acme",
    "latency.ms:10|ms|#customer:acme\nlatency.ms:20|h|#customer:acme\n",
    "users.active:ann|s|#customer:acme\nusers.active:bob|s|#customer:acme\nusers.active:ann|s|#customer:acme",
    "jobs:1|c|#customer:acme|c:container|e:external|card:low",
];
const DOGSTATSD_EVENTS: u64 = 13;
const DOGSTATSD_SHOWN: &[&str] = &[
    "api.calls 5.500000001/4",
    "jobs 1/1",
    "latency.ms 15/2",
    "storage.gib 10/2",
    "temperature -3.5/1",
    "users.active 2/3",
];

#[test]
fn udp() -> Result<()> {
    let send = |stack: &mut Stack| {
        let udp = Udp::to(stack.ports().udp)?;
        DOGSTATSD.iter().try_for_each(|datagram| udp.send(datagram.as_bytes()))
    };
    check(send, DOGSTATSD_EVENTS, DOGSTATSD_SHOWN)
}

#[test]
fn unix_datagram() -> Result<()> {
    let send = |stack: &mut Stack| {
        let datagrams = Datagrams::to(&stack.path("dsd.socket"))?;
        DOGSTATSD.iter().try_for_each(|datagram| datagrams.send(datagram.as_bytes()))
    };
    check(send, DOGSTATSD_EVENTS, DOGSTATSD_SHOWN)
}

#[test]
fn dsd_stream() -> Result<()> {
    let send = |stack: &mut Stack| {
        let mut frames = Frames::to(&stack.path("dsd-stream.socket"))?;
        DOGSTATSD.iter().try_for_each(|payload| frames.send(payload.as_bytes()))
    };
    check(send, DOGSTATSD_EVENTS, DOGSTATSD_SHOWN)
}

#[test]
fn events_socket_takes_json_and_dogstatsd_lines() -> Result<()> {
    let send = |stack: &mut Stack| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        let text = concat!(
            r#"{"meter":"api.calls","customer":"acme","quantity":2,"dimensions":{"region":"eu"}}"#,
            "\n\n",
            r#"{"meter":"api.calls","customer":"acme","quantity":"1.5","id":"a","source":"s"}"#,
            "\n",
            // The same id again: known, and not counted twice.
            r#"{"meter":"api.calls","customer":"acme","quantity":"1.5","id":"a","source":"s"}"#,
            "\n",
            r#"{"meter":"jobs","customer":"acme"}"#,
            "\n",
            r#"{"meter":"users.active","customer":"acme","unique":"ann"}"#,
            "\r\n",
            "api.calls:1:1|c|#customer:acme\n",
        );
        lines.send(text.as_bytes(), 7)?;
        let refusals = lines.wait_durable()?;
        ensure!(refusals.is_empty(), "{refusals:?}");
        Ok(())
    };
    check(send, 6, &["api.calls 5.5/4", "jobs 1/1", "users.active 1/1"])
}

#[test]
fn http_takes_cloud_events() -> Result<()> {
    let send = |stack: &mut Stack| {
        let event = |id: &str, kind: &str, data: serde_json::Value| {
            json!({"specversion": "1.0", "id": id, "source": "/tests", "type": kind,
                "subject": "acme", "data": data})
        };
        let calls = event("1", "api.calls", json!({"value": 2.25, "region": "eu"}));
        let url = stack.events_url();
        let one = stack.http().post(&url, CLOUDEVENT, calls.to_string())?;
        ensure!(one.status == 204, "{} {}", one.status, one.body);
        let batch = json!([
            calls,
            event("2", "api.calls", json!({"quantity": "0.75"})),
            event("3", "jobs", json!(null)),
            event(
                "4",
                "com.example.completion",
                json!({"model": "large", "usage": {"total": 900}})
            ),
        ]);
        for content_type in [
            CLOUDEVENTS_BATCH.to_owned(),
            format!("{CLOUDEVENTS_BATCH}; charset=utf-8"),
            "application/json".to_owned(),
        ] {
            let answer = stack.http().post(&url, &content_type, batch.to_string())?;
            ensure!(answer.status == 204, "{content_type}: {} {}", answer.status, answer.body);
        }
        Ok(())
    };
    check(send, 4, &["api.calls 3/2", "jobs 1/1", "tokens 900/1"])
}

#[test]
fn usage_is_grouped_billed_and_reported() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        let text = concat!(
            "api.calls:2|c|#customer:acme,region:eu\n",
            "api.calls:3|c|#customer:acme,region:us\n",
            "api.calls:5|c|#customer:acme\n",
            "jobs:1|c|#customer:acme\n",
            "api.calls:7|c|#customer:globex\n",
            "unknown.meter:1|c|#customer:acme\n",
            "api.calls:1|c|#customer:nobody\n",
        );
        lines.send(text.as_bytes(), 7)?;
        ensure!(lines.wait_durable()?.is_empty(), "refused");
        stack.wait_posted(7)?;

        let by_region = shown(stack, "acme", "&meter=api.calls&group_by=region")?;
        ensure!(
            by_region
                == [
                    "api.calls region=null 5/1",
                    "api.calls region=eu 2/1",
                    "api.calls region=us 3/1"
                ],
            "{by_region:?}"
        );
        let hours = stack.api().usage("acme", "&meter=api.calls&window=hour")?.usage;
        let in_hours: u64 = hours.iter().map(|entry| entry.events).sum();
        ensure!(in_hours == 3, "{hours:?}");

        let bill = stack.api().bill("acme")?;
        let lines: BTreeMap<&str, (&str, &str)> = bill
            .sections
            .iter()
            .flat_map(|section| &section.lines)
            .map(|line| (line.meter.as_str(), (line.quantity.as_str(), line.amount.as_str())))
            .collect();
        ensure!(lines.get("api.calls") == Some(&("10", "2.50")), "{lines:?}");
        ensure!(lines.get("jobs") == Some(&("1", "1.00")), "{lines:?}");
        ensure!((bill.total.as_str(), bill.currency.as_str()) == ("3.50", "EUR"), "{bill:?}");
        ensure!(bill.events_in_transit == 0, "{bill:?}");

        let suspense = stack.api().suspense()?;
        let mut suspense: Vec<String> = suspense
            .iter()
            .map(|entry| format!("{} {} {}", entry.customer, entry.meter, entry.events))
            .collect();
        suspense.sort();
        ensure!(suspense == ["acme unknown.meter 1", "nobody api.calls 1"], "{suspense:?}");
        Ok(())
    })
}

#[test]
fn clients_without_tags_are_known_by_name_patterns() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .agent("naming.name_patterns", vec!["{customer}.{meter}"])
        .agent("naming.metered", vec!["acme.*", "globex.*"]);
    Stack::run(settings, |stack| {
        let udp = Udp::to(stack.ports().udp)?;
        for datagram in
            ["acme.api.calls:4|c", "globex.jobs:1|c", "python.gc:3|c", "acme.api.calls:1|c"]
        {
            udp.send(datagram.as_bytes())?;
        }
        stack.wait_posted(3)?;
        ensure!(shown(stack, "acme", "")? == ["api.calls 5/2"], "{:?}", shown(stack, "acme", "")?);
        ensure!(shown(stack, "globex", "")? == ["jobs 1/1"], "globex");
        let not_metered = stack.agent_metrics()?.count("tidemark_agent_not_metered_total")?;
        ensure!(not_metered == 1, "{not_metered} not metered");
        Ok(())
    })
}

#[test]
fn exact_sums_survive_the_largest_and_smallest_digits() -> Result<()> {
    let send = |stack: &mut Stack| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        let text = "api.calls:999999999999999.999999999|c|#customer:acme\n\
                    api.calls:0.000000001|c|#customer:acme\n";
        for _ in 0..500 {
            lines.send(text.as_bytes(), 2)?;
        }
        ensure!(lines.wait_durable()?.is_empty(), "refused");
        Ok(())
    };
    check(send, 1_000, &["api.calls 500000000000000000/1000"])
}
