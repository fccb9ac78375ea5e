//! How long a billing run takes, and in how much memory: beside a bare loop that reads the same rows.
//!
//! A ledger is filled through the store's own door in this process ([`filled`]). Then, in this order:
//!
//! ```text
//! the yardstick   this process reads every customer's rows by `Snapshot::visit_usage`, and sums them
//! one customer    `tidemark-collector bill --dry-run` for one: what a start costs by itself
//! dry run         the same for all; rated, nothing written
//! issued          the run on a copy of the folder, and on another one through a running collector
//! ```
//! A run is a process of its own; its memory is the kernel's high-water mark of the process that rates: the command's,
//! or the collector's. Files are in the page cache for all alike.
//!
//! **Owns** the measurement. **Does not own** a verdict: it prints figures. What was issued is counted.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow ends the measurement")]

pub(crate) mod filled;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidemark_collector::ledger::store::UsageQuestion;
use tidemark_collector::ledger::{Ledger, LedgerOptions, ReadError};
use tidemark_collector::period::{Period, Zone};
use tidemark_common::id::CustomerId;
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;
use tokio::runtime::Runtime;

use self::filled::{Filling, catalogue, customer, fill};
use crate::binaries::Program;
use crate::process::{Process, resident_peak_kib};
use crate::settings::{Ports, Settings};
use crate::stack::Stack;
use crate::wait::{Stopwatch, unix_seconds, until};

const RUN_MAX: Duration = Duration::from_secs(3_600);
/// As far as a customer may have rows of usage.
const ROWS_MAX: u64 = 4_000_000;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub customers: u32,
    /// Rows of totals, all customers together.
    pub rows: u32,
}

/// What a process took.
pub(crate) struct Taken {
    pub(crate) length: Duration,
    pub(crate) peak_kib: u64,
    /// Its last line.
    pub(crate) end: String,
}

/// Fills a ledger, and bills it.
///
/// # Errors
/// When a program does not come up, or what is billed is not what was used.
pub fn run(options: Options, out: &mut dyn Write) -> Result<()> {
    let Options { customers, rows } = options;
    let rows_each = rows.checked_div(customers).unwrap_or(0);
    ensure!(rows_each > 0, "each customer has at least one row");
    let settings = Settings::new(Ports::free()?, &catalogue(customers));
    let mut stack = Stack::prepare(settings)?;
    let (data_dir, kept) = (stack.path("ledger"), stack.path("kept"));
    let month = last_month()?;
    let runtime = Runtime::new()?;
    let clock = Stopwatch::start();
    runtime.block_on(fill(&data_dir, Filling { customers, rows_each, streams: 0, month }))?;
    writeln!(out, "filled in {} ms: {}", clock.elapsed().as_millis(), sizes(&data_dir)?)?;
    let yardstick = runtime.block_on(read_all(&data_dir, customers, rows_each, month))?;
    drop(runtime);
    let (all, rows) = (u64::from(customers), u64::from(customers) * u64::from(rows_each));
    row(out, "yardstick: read and sum", yardstick, None, (all, rows))?;

    let date = Zone::utc().rfc3339(month.end.start())[..10].to_owned();
    let first = customer(0);
    let one = ["--dry-run", "--customer", &first];
    let one = bill(&stack, &date, &one, None)?;
    row(out, "one customer, dry run", one.length, Some(one.peak_kib), (1, u64::from(rows_each)))?;
    let dry = bill(&stack, &date, &["--dry-run"], None)?;
    row(out, "dry run", dry.length, Some(dry.peak_kib), (all, rows))?;
    ensure!(dry.end.starts_with(&format!("0 issued, {all} drafts, 0 issued")), "{}", dry.end);
    copy(&data_dir, &kept)?;
    let issued = bill(&stack, &date, &[], None)?;
    row(out, "issued, on the folder", issued.length, Some(issued.peak_kib), (all, rows))?;
    ensure!(issued.end.starts_with(&format!("{all} issued, 0 drafts, 0 issued")), "{}", issued.end);
    writeln!(out, "after it: {}", sizes(&data_dir)?)?;
    fs::remove_dir_all(&data_dir)?;
    fs::rename(&kept, &data_dir)?;
    stack.start_collector()?;
    let collector = stack.collector()?.id();
    let before = resident_peak_kib(collector)?;
    let served = bill(&stack, &date, &[], Some(collector))?;
    row(out, "issued, by a collector", served.length, Some(served.peak_kib), (all, rows))?;
    writeln!(out, "the collector had {before} KiB before; {}", served.end)?;
    ensure!(served.end == issued.end, "{}, on the folder {}", served.end, issued.end);
    let per = dry.length.as_micros() * 100 / yardstick.as_micros().max(1);
    writeln!(out, "a dry run takes {per} % of the yardstick's time")?;
    Ok(())
}

/// One line of figures.
fn row(
    out: &mut dyn Write,
    what: &str,
    length: Duration,
    peak_kib: Option<u64>,
    (customers, rows): (u64, u64),
) -> Result<()> {
    let micros = u64::try_from(length.as_micros())?.max(1);
    let a_second = |count: u64| count.saturating_mul(1_000_000) / micros;
    let peak = peak_kib.map_or_else(String::new, |peak| format!("{peak:>9} KiB at most"));
    writeln!(
        out,
        "{what:<26} {:>8} ms {:>9} customers/s {:>10} rows/s {peak}",
        micros / 1_000,
        a_second(customers),
        a_second(rows)
    )?;
    Ok(out.flush()?)
}

/// Runs `bill`, and watches its memory, or that of another process.
fn bill(stack: &Stack, date: &str, more: &[&str], watched: Option<u32>) -> Result<Taken> {
    let config = stack.path("collector.toml");
    let config = config.to_str().context("the folder's name is UTF-8")?;
    let arguments = [&["bill", "--config", config, "--period-end", date][..], more].concat();
    watch(stack, &arguments, watched)
}

/// Runs a command of the collector's, and watches its memory, or that of another process.
pub(crate) fn watch(stack: &Stack, arguments: &[&str], watched: Option<u32>) -> Result<Taken> {
    let log = stack.path("command.log");
    let clock = Stopwatch::start();
    let mut process = Process::start(Program::Collector, arguments, &log)?;
    let watched = watched.unwrap_or(process.id());
    let mut peak = 0;
    let status = until("the run's end", RUN_MAX, || {
        // One that has just ended has none any more; what was seen last is at most a moment older.
        if let Ok(now) = resident_peak_kib(watched) {
            peak = peak.max(now);
        }
        process.ended().map_err(|error| error.to_string())?.ok_or_else(|| "it runs".to_owned())
    })?;
    let length = clock.elapsed();
    ensure!(
        status.success(),
        "{} ended with {status}\n{}",
        arguments.join(" "),
        process.log_tail()
    );
    let text = fs::read_to_string(&log)?;
    let end = text.lines().last().unwrap_or_default().to_owned();
    Ok(Taken { length, peak_kib: peak, end })
}

/// Reads and sums what [`fill`] has posted, row by row.
async fn read_all(
    data_dir: &Path,
    customers: u32,
    rows_each: u32,
    month: Period,
) -> Result<Duration> {
    let ledger = Ledger::open(data_dir, LedgerOptions::default()).await?;
    let reader = ledger.clone();
    let reading = tokio::task::spawn_blocking(move || -> Result<Duration> {
        let clock = Stopwatch::start();
        let snapshot = reader.snapshot()?;
        let (mut rows, mut sum) = (0_u64, 0_i128);
        for number in 0..customers {
            let customer = CustomerId::parse(&customer(number))?;
            let question = UsageQuestion {
                customer: &customer,
                meter: None,
                from: month.start,
                to: month.end,
            };
            snapshot.visit_usage(&question, ROWS_MAX, |row| {
                let Quantity(units) = row.usage.sum;
                (rows, sum) = (rows + 1, sum + units);
                Ok::<_, ReadError>(())
            })?;
        }
        let length = clock.elapsed();
        let expected = u64::from(customers) * u64::from(rows_each);
        ensure!(rows == expected && sum > 0, "{rows} rows of {expected}");
        Ok(length)
    });
    let length = reading.await??;
    ledger.shutdown().await?;
    Ok(length)
}

/// The month before this one, in UTC.
pub(crate) fn last_month() -> Result<Period> {
    let now = Timestamp(i64::try_from(unix_seconds())? * 1_000);
    let this = Zone::utc().month_of(now)?;
    Ok(Zone::utc().month_of(this.start.start().plus_millis(-1))?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// Each file's name and size.
pub(crate) fn sizes(folder: &Path) -> Result<String> {
    let mut sizes = Vec::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        sizes.push(format!("{name} {} KiB", file.metadata()?.len() >> 10));
    }
    sizes.sort();
    Ok(sizes.join(", "))
}
