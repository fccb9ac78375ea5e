//! The catalogue may learn late: what was sent before is kept, and explained once it is.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tidemark_tests::doors::Lines;
use tidemark_tests::resend::CLOUDEVENT;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::until;

const BEFORE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[customer]]
id = "acme"
plan = "standard"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.price]]
meter = "api.calls"
unit_price = "0.5"
"#;
/// A dimension, a meter with a price and a CloudEvents type, and a customer are new.
const AFTER: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["region"]
[[meter]]
name = "tokens"
aggregation = "sum"
cloud_event = { type = "completion", quantity = "data.total" }
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
unit_price = "0.5"
[[plan.price]]
meter = "tokens"
unit_price = "2"
"#;
const LEARNT_WAIT: Duration = Duration::from_secs(20);

fn send(stack: &Stack, lines: &[&str]) -> Result<()> {
    let mut socket = Lines::to(&stack.path("events.socket"))?;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    socket.send(text.as_bytes(), u64::try_from(lines.len())?)?;
    let refusals = socket.wait_durable()?;
    ensure!(refusals.is_empty(), "{refusals:?}");
    Ok(())
}

#[test]
fn suspense_is_billed_once_the_catalogue_learns_of_it() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, BEFORE), |stack| {
        send(
            stack,
            &[
                "api.calls:2|c|#customer:acme,region:eu",
                "tokens:3|c|#customer:acme",
                "api.calls:4|c|#customer:globex",
            ],
        )?;
        stack.wait_posted(3)?;
        let suspense = stack.api().suspense()?;
        ensure!(suspense.len() == 2, "{suspense:?}");
        ensure!(stack.api().bill("acme")?.total == "1.00", "{:?}", stack.api().bill("acme")?);
        ensure!(stack.api().get("/v1/customers/globex/bill")?.status == 404, "globex is known");

        stack.change_catalogue(AFTER)?;
        until("the catalogue to be read", LEARNT_WAIT, || {
            let suspense = stack.api().suspense().map_err(|error| format!("{error:#}"))?;
            if suspense.is_empty() { Ok(()) } else { Err(format!("{suspense:?}")) }
        })?;
        ensure!(stack.api().bill("acme")?.total == "7.00", "{:?}", stack.api().bill("acme")?);
        ensure!(stack.api().bill("globex")?.total == "2.00", "{:?}", stack.api().bill("globex")?);

        // The rules reach an agent whose session goes on: its next events are read under them.
        let url = stack.events_url();
        let mut number: u64 = 0;
        until("the new rules at the agent", LEARNT_WAIT, || {
            number = number.saturating_add(1);
            let event = json!({"specversion": "1.0", "id": number.to_string(), "source": "t",
                "type": "completion", "subject": "globex", "data": {"total": 5}});
            let answer = stack.http().post(&url, CLOUDEVENT, event.to_string());
            let answer = answer.map_err(|error| format!("{error:#}"))?;
            if answer.status != 204 {
                return Err(format!("{} {}", answer.status, answer.body));
            }
            let usage = stack.api().usage("globex", "").map_err(|error| format!("{error:#}"))?;
            let tokens = usage.usage.iter().find(|entry| entry.meter == "tokens");
            match tokens.filter(|entry| entry.events > 0) {
                Some(_) => Ok(()),
                None => Err(format!("{usage:?}")),
            }
        })?;
        send(stack, &["api.calls:1|c|#customer:acme,region:us"])?;
        stack.wait_posted(number.saturating_add(4))?;
        let regions = stack.api().usage("acme", "&meter=api.calls&group_by=region")?.usage;
        ensure!(regions.len() == 2, "one without a region, one with: {regions:?}");
        Ok(())
    })
}

#[test]
fn a_broken_catalogue_leaves_the_one_before() -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, BEFORE), |stack| {
        stack.change_catalogue("[[meter]]\nname = 7\n")?;
        send(stack, &["api.calls:2|c|#customer:acme"])?;
        stack.wait_posted(1)?;
        ensure!(stack.api().bill("acme")?.total == "1.00", "{:?}", stack.api().bill("acme")?);
        Ok(())
    })
}
