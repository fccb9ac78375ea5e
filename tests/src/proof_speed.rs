//! How long reconciliation, a certificate, a proof and its verification take, in how much memory, and how large they are.
//!
//! A ledger is filled through the store's own door ([`filled`](crate::billing_speed)). Then each step is a process of its own:
//!
//! ```text
//! reconcile       everything, with all totals from the batches        on the stopped collector's folder
//! one document    `bill` for one customer: gate, certificate, proof
//! all documents   `bill` for the others: a second certificate
//! one proof       GET /v1/invoices/{number}/proof of a running collector
//! verify          `tidemark-collector verify` of that file
//! ```
//! **Owns** the measurement. **Does not own** a verdict: it prints figures.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow ends the measurement")]

use std::fs;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidemark_collector::period::Zone;
use tokio::runtime::Runtime;

use crate::billing_speed::filled::{Filling, catalogue, customer, fill};
use crate::billing_speed::{last_month, sizes, watch};
use crate::settings::{Ports, Settings, TOKEN};
use crate::stack::Stack;
use crate::wait::Stopwatch;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub customers: u32,
    /// Rows of totals, all customers together.
    pub rows: u32,
    pub streams: u32,
}

/// Fills a ledger, and proves its bills.
///
/// # Errors
/// When a program does not come up, or something does not verify.
pub fn run(options: Options, out: &mut dyn Write) -> Result<()> {
    let Options { customers, rows, streams } = options;
    let rows_each = rows.checked_div(customers).unwrap_or(0);
    ensure!(rows_each > 0, "each customer has at least one row");
    let mut stack = Stack::prepare(Settings::new(Ports::free()?, &catalogue(customers)))?;
    let (data_dir, month) = (stack.path("ledger"), last_month()?);
    let clock = Stopwatch::start();
    let runtime = Runtime::new()?;
    runtime.block_on(fill(&data_dir, Filling { customers, rows_each, streams, month }))?;
    drop(runtime);
    let all = sizes(&data_dir)?;
    writeln!(
        out,
        "{rows} rows of {customers} customers, {streams} streams, filled in {} ms: {all}",
        clock.elapsed().as_millis()
    )?;

    let date = Zone::utc().rfc3339(month.end.start())[..10].to_owned();
    let config = stack.path("collector.toml");
    let config = config.to_str().context("the folder's name is UTF-8")?;
    let first = customer(0);
    let bill = ["bill", "--config", config, "--period-end", &date];
    let reconciled = watch(&stack, &["reconcile", "--config", config, "--json"], None)?;
    row(out, "reconcile, all", reconciled.length, Some(reconciled.peak_kib))?;
    let one = watch(&stack, &[&bill[..], &["--customer", &first]].concat(), None)?;
    row(out, "one document, certified", one.length, Some(one.peak_kib))?;
    let rest = watch(&stack, &bill, None)?;
    row(out, "all others, certified", rest.length, Some(rest.peak_kib))?;
    ensure!(rest.end.starts_with(&format!("{} issued", customers - 1)), "{}", rest.end);
    writeln!(out, "after it: {}", sizes(&data_dir)?)?;

    stack.start_collector()?;
    let listed = stack.api().get(&format!("/v1/customers/{first}/invoices"))?.json()?;
    let number = listed["invoices"][0]["number"].as_str().context("a document")?.to_owned();
    let clock = Stopwatch::start();
    let proof = stack.api().get_as(&format!("/v1/invoices/{number}/proof"), Some(TOKEN))?;
    row(out, "one proof", clock.elapsed(), None)?;
    let (file, keys) = (stack.path("invoice.json"), stack.path("keys.json"));
    fs::write(&file, &proof.body)?;
    fs::write(&keys, stack.api().get("/.well-known/tidemark-keys")?.body)?;
    let [file, keys] = [&file, &keys].map(|path| path.to_str().unwrap_or_default());
    let verified = watch(&stack, &["verify", file, "--keys", keys], None)?;
    row(out, "verified", verified.length, Some(verified.peak_kib))?;
    let certificate = stack.api().get("/v1/certificates/2")?.body.len();
    let listed = stack.api().get("/v1/certificates/2/streams")?.body.len();
    writeln!(
        out,
        "a proof of {rows_each} rows has {} bytes, a certificate {certificate}, its streams {listed}",
        proof.body.len()
    )?;
    Ok(())
}

/// One line of figures.
fn row(out: &mut dyn Write, what: &str, length: Duration, peak_kib: Option<u64>) -> Result<()> {
    let peak = peak_kib.map_or_else(String::new, |peak| format!("{peak:>9} KiB at most"));
    writeln!(out, "{what:<26} {:>8} ms {peak}", length.as_millis())?;
    Ok(out.flush()?)
}
