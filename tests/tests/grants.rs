//! An identity that may not bill a customer: what it sends is posted, in suspense, and on no bill.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::doors::Lines;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::until;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[identities]
default = "deny"
[[meter]]
name = "api.calls"
aggregation = "sum"
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
"#;
const ACME_ONLY: &str =
    "[[identity]]\nname = \"*\"\nmeters = [\"api.*\"]\ncustomers = [\"acme\"]\n";
const BOTH: &str =
    "[[identity]]\nname = \"*\"\nmeters = [\"*\"]\ncustomers = [\"acme\", \"glo*\"]\n";
const LEARNT_WAIT: Duration = Duration::from_secs(20);

fn send(stack: &Stack, customers: &[&str]) -> Result<()> {
    let mut socket = Lines::to(&stack.path("events.socket"))?;
    let line = |customer: &&str| format!("api.calls:2|c|#customer:{customer}\n");
    let text: String = customers.iter().map(line).collect();
    socket.send(text.as_bytes(), u64::try_from(customers.len())?)?;
    let refusals = socket.wait_durable()?;
    ensure!(refusals.is_empty(), "{refusals:?}");
    Ok(())
}

fn check(stack: &Stack, acme: &str, globex: &str, unauthorised: u64) -> Result<()> {
    for (customer, total) in [("acme", acme), ("globex", globex)] {
        let bill = stack.api().bill(customer)?;
        ensure!(bill.total == total, "{customer}: {bill:?}");
    }
    let suspense = stack.api().suspense()?;
    let told: Vec<_> = suspense
        .iter()
        .map(|entry| (entry.customer.as_str(), entry.reason.as_str(), entry.events))
        .collect();
    ensure!(told == [("globex", "unauthorised", unauthorised)], "{suspense:?}");
    ensure!(suspense.iter().all(|entry| entry.agent.is_some()), "{suspense:?}");
    Ok(())
}

#[test]
fn unauthorised_usage_is_posted_and_never_billed() -> Result<()> {
    let catalogue = format!("{CATALOGUE}{ACME_ONLY}");
    Stack::run(Settings::new(Ports::free()?, &catalogue), |stack| {
        send(stack, &["acme", "globex", "globex"])?;
        stack.wait_posted(3)?;
        check(stack, "1.00", "0.00", 2)?;

        // Further patterns are for further batches.
        stack.change_catalogue(&format!("{CATALOGUE}{BOTH}"))?;
        let mut sent = 3_u64;
        until("the new patterns", LEARNT_WAIT, || {
            send(stack, &["globex"]).map_err(|error| format!("{error:#}"))?;
            sent = sent.saturating_add(1);
            stack.wait_posted(sent).map_err(|error| format!("{error:#}"))?;
            let bill = stack.api().bill("globex").map_err(|error| format!("{error:#}"))?;
            if bill.total == "0.00" { Err(format!("{bill:?}")) } else { Ok(()) }
        })?;
        let billed = stack.api().bill("globex")?.total;
        ensure!(billed == "1.00", "what was posted before stays as it was judged: {billed}");
        let unauthorised = sent.saturating_sub(2);
        check(stack, "1.00", "1.00", unauthorised)?;

        // Neither a rebuild of the totals, nor patterns that changed since, change what it was.
        stack.stop_collector()?;
        std::fs::remove_file(stack.path("ledger/totals.redb"))?;
        stack.start_collector()?;
        check(stack, "1.00", "1.00", unauthorised)?;
        stack.wait_connected()
    })
}
