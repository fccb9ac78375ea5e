//! Pods that come and go, day after day, in simulated time: what the ledger holds of them, and how long it takes to
//! start and to read.
//!
//! ```text
//! fill   each pod: hello, a batch, a confirmation, and an hour later a close; some confirm once more instead, and
//!        vanish. The ledger is the product's, asked through its writer; its clock is the simulation's
//! read   a start; a reconciliation, under a policy that takes streams which vanished for lost; the streams that
//!        retired since a month's start; whether an agent was ever here
//! ```
//! What is done retires as it does in a running collector, but as soon as simulated time says so: a collector
//! looks once a minute.
//!
//! **Owns** the measurement. **Does not own** a verdict on its figures; that every event and every stream is counted is
//! checked.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow ends the measurement")]

mod pods;
mod tables;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tidemark_collector::catalog::Catalog;
use tidemark_collector::certificate::Certified;
use tidemark_collector::certificate::make::{Cut, make};
use tidemark_collector::ledger::clock::Reading;
use tidemark_collector::ledger::redb::{RedbOptions, RedbStore};
use tidemark_collector::ledger::request::Reply;
use tidemark_collector::ledger::stream::StreamRecord;
use tidemark_collector::ledger::{Ledger, LedgerOptions, Snapshot, TimeSource};
use tidemark_collector::reconcile::{
    Cover, Finding, Judging, Kind, Reconciliation, Reconciling, Settings, Span, default_cut, losses,
};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;
use tokio::runtime::{Handle, Runtime};

use self::pods::{EVENTS_PER_POD, Pod, agent};
use crate::process::{resident_kib, resident_peak_kib};
use crate::wait::Stopwatch;

/// 2026-01-01T00:00:00Z.
const BEGINS: Timestamp = Timestamp(1_767_225_600_000);
const DAY_MILLIS: i64 = 86_400_000;
/// A pod lives for so long.
const LIFE_MILLIS: i64 = 3_600_000;
/// So many pods come at once.
const AT_ONCE: u32 = 128;
/// Figures are printed so often.
const DAYS_TOLD: u32 = 30;
/// What a reconciliation of one month reads.
const MONTH_MILLIS: i64 = 30 * DAY_MILLIS;

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub days: u32,
    /// A day.
    pub pods: u32,
    /// Of a hundred.
    pub dirty: u32,
    /// Whether streams retire.
    pub retires: bool,
}

/// Whoever vanishes is lost after an hour, and somebody has signed for it.
const CATALOG: &str = r#"
[[meter]]
name = "calls"
aggregation = "sum"
[[plan]]
name = "basic"
currency = "EUR"
[[plan.price]]
meter = "calls"
unit_price = "1"
[[customer]]
id = "acme"
plan = "basic"
[[customer]]
id = "globex"
plan = "basic"
[[policy]]
name = "pods"
signed_by = "who answers for them"
kinds = ["lost"]
identities = ["service-*"]
lost_after = "1h"
events_per_stream_max = 1000
events_total_max = 10000000
"#;

/// What was found of a ledger that was filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub live: u64,
    pub retired: u64,
    /// Of them, those that retired within the last month.
    pub of_month: u64,
    /// Lost streams of the time looked at that the policy covers, and findings that keep invoices back.
    pub covered: u64,
    pub blocking: u64,
}

impl Options {
    fn all(self) -> u64 {
        u64::from(self.days) * u64::from(self.pods)
    }

    fn is_dirty(self, pod: u64) -> bool {
        pod % 100 < u64::from(self.dirty)
    }

    fn ledger(self) -> LedgerOptions {
        LedgerOptions {
            // A stream cannot retire before it is folded.
            fold_lines_max: 1_000,
            fold_age_millis: 100,
            retire_after_millis: if self.retires { DAY_MILLIS } else { i64::MAX },
            ..LedgerOptions::default()
        }
    }
}

/// Makes the ledger in `data_dir`.
///
/// # Errors
/// When the ledger fails, or refuses what it should not.
pub fn fill(options: Options, data_dir: &Path, out: &mut dyn Write) -> Result<()> {
    Runtime::new()?.block_on(fill_all(options, data_dir, out))
}

async fn fill_all(options: Options, data_dir: &Path, out: &mut dyn Write) -> Result<()> {
    let wall = Arc::new(AtomicI64::new(BEGINS.0));
    let ledger = open(options, data_dir, &wall).await?;
    let Options { days, pods, dirty, .. } = options;
    writeln!(out, "{days} days of {pods} pods, of which {dirty} % vanish")?;
    let clock = Stopwatch::start();
    let (mut next, mut leaving) = (0_u64, std::collections::VecDeque::new());
    let step_millis = DAY_MILLIS / i64::from(pods.max(1));
    for day in 1..=days {
        let end = u64::from(day) * u64::from(pods);
        while next < end {
            let last = end.min(next + u64::from(AT_ONCE));
            let now = BEGINS.plus_millis(i64::try_from(last)? * step_millis);
            wall.store(now.0, Ordering::Relaxed);
            let arrived = pods::arrive(&ledger, next..last).await?;
            leaving.extend(arrived.into_iter().map(|pod| (now, pod)));
            next = last;
            let due = leaving.partition_point(|(came, _): &(Timestamp, Pod)| {
                now.millis_since(*came) >= LIFE_MILLIS
            });
            leave(&ledger, options, leaving.drain(..due).map(|(_, pod)| pod)).await?;
            retire(&ledger).await?;
        }
        if day % DAYS_TOLD == 0 || day == days {
            let elapsed = clock.elapsed().as_secs();
            writeln!(out, "day {day:>4}  {elapsed:>5} s  {}", told(&ledger)?)?;
            out.flush()?;
        }
    }
    // The last ones live for as long as all others, and two days later they are gone too.
    wall.fetch_add(LIFE_MILLIS, Ordering::Relaxed);
    pods::tick(&ledger).await?;
    leave(&ledger, options, leaving.into_iter().map(|(_, pod)| pod)).await?;
    wall.fetch_add(2 * DAY_MILLIS, Ordering::Relaxed);
    pods::tick(&ledger).await?;
    retire_all(&ledger, options).await?;
    check(options, &ledger)?;
    Ok(ledger.shutdown().await?)
}

async fn open(options: Options, data_dir: &Path, wall: &Arc<AtomicI64>) -> Result<Ledger> {
    let (store, recovered) = RedbStore::open(data_dir, &RedbOptions::default(), BEGINS)?;
    let wall = Arc::clone(wall);
    let time = TimeSource::new(move || {
        let wall = Timestamp(wall.load(Ordering::Relaxed));
        let passed = u64::try_from(wall.millis_since(BEGINS)).unwrap_or(0);
        Reading { wall, monotonic_micros: passed.saturating_mul(1_000) }
    });
    let options = LedgerOptions { keys: Some(data_dir.to_owned()), ..options.ledger() };
    Ok(Ledger::start(store, recovered, options, time).await?)
}

async fn leave(
    ledger: &Ledger,
    options: Options,
    leaving: impl Iterator<Item = Pod>,
) -> Result<()> {
    let (dirty, clean): (Vec<_>, Vec<_>) = leaving.partition(|pod| options.is_dirty(pod.number));
    // The last that is heard of them.
    pods::confirm(ledger, dirty.iter()).await?;
    pods::close(ledger, clean.into_iter()).await
}

/// Retires what is due and folded.
async fn retire(ledger: &Ledger) -> Result<u64> {
    let mut count = 0;
    while let Some(request) = ledger.due_to_retire() {
        match ledger.submit(request).await?.await? {
            Reply::Retired(0) => break,
            Reply::Retired(more) => count += u64::try_from(more)?,
            other => bail!("{other:?}"),
        }
    }
    Ok(count)
}

/// Until nothing is left that may retire.
async fn retire_all(ledger: &Ledger, options: Options) -> Result<()> {
    let dirty = (0..options.all()).filter(|pod| options.is_dirty(*pod)).count();
    while options.retires && ledger.snapshot()?.streams().len() > dirty {
        retire(ledger).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Every stream and every event is counted.
fn check(options: Options, ledger: &Ledger) -> Result<()> {
    let figures = ledger.figures()?;
    let (all, events) = (options.all(), options.all() * EVENTS_PER_POD);
    ensure!(figures.streams == all, "{} streams of {all}", figures.streams);
    ensure!(
        (figures.events_by_headers, figures.events_by_lines) == (events, events)
            && figures.events_accepted == events
            && figures.events_in_transit == 0,
        "{events} events are not all there: {figures:?}"
    );
    Ok(())
}

/// How many streams are where, and the process's memory.
fn told(ledger: &Ledger) -> Result<String> {
    let clock = Stopwatch::start();
    let snapshot = ledger.snapshot()?;
    let complete = snapshot.complete_through();
    let micros = clock.elapsed().as_micros();
    let id = std::process::id();
    Ok(format!(
        "{:>8} live {:>8} retired {:>8} KiB resident; complete_through in {micros} us, held back by {}",
        snapshot.streams().len(),
        snapshot.retired().streams,
        resident_kib(id)?,
        complete.held_back_by.len()
    ))
}

/// Reads the ledger in `data_dir` as a start and a reconciliation do.
///
/// # Errors
/// When it cannot be read, or lacks something.
pub fn read(options: Options, data_dir: &Path, out: &mut dyn Write) -> Result<Found> {
    for line in tables::told(data_dir)? {
        writeln!(out, "{line}")?;
    }
    Runtime::new()?.block_on(read_all(options, data_dir, out))
}

async fn read_all(options: Options, data_dir: &Path, out: &mut dyn Write) -> Result<Found> {
    let id = std::process::id();
    let before = resident_kib(id)?;
    let ends = BEGINS.plus_millis(i64::from(options.days + 2) * DAY_MILLIS + LIFE_MILLIS);
    let clock = Stopwatch::start();
    let ledger = open(options, data_dir, &Arc::new(AtomicI64::new(ends.0))).await?;
    let (start, after) = (clock.elapsed().as_millis(), resident_kib(id)?);
    writeln!(out, "start {start:>12} ms  {before} KiB resident before, {after} after")?;
    check(options, &ledger)?;
    let reader = ledger.clone();
    let found = tokio::task::spawn_blocking(move || reconcile(&reader, ends)).await??;
    let (lines, found) = found;
    for line in lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "most memory {:>6} KiB", resident_peak_kib(id)?)?;
    ledger.shutdown().await?;
    Ok(found)
}

/// What a reconciliation reads of the streams, each part timed.
fn reconcile(ledger: &Ledger, ends: Timestamp) -> Result<(Vec<String>, Found)> {
    let mut lines = vec![told(ledger)?];
    let snapshot = ledger.snapshot()?;
    let (told, covered, blocking) = report(ledger, &snapshot)?;
    lines.push(told);
    let since = [("last month", ends.plus_millis(-MONTH_MILLIS)), ("all", Timestamp(0))];
    let mut counts = Vec::new();
    for (name, since) in since {
        let clock = Stopwatch::start();
        let (mut streams, mut events) = (0_u64, 0_u64);
        let _all = snapshot.visit_retired(since, |retired| {
            (streams, events) = (streams + 1, events + retired.record.posted_end.0);
            ControlFlow::Continue(())
        })?;
        let millis = clock.elapsed().as_millis();
        lines.push(format!(
            "retired, {name:<11} {millis:>6} ms  {streams} streams, {events} events"
        ));
        counts.push((streams, events));
    }
    let (retired, events) = counts[1];
    let sums = snapshot.retired();
    ensure!((sums.streams, sums.events) == (retired, events), "the sums are other than the rows");
    let clock = Stopwatch::start();
    for number in 0..1_000 {
        let known = snapshot.has_agent(&agent(number)?)?;
        let unknown = snapshot.has_agent(&AgentName::parse(&format!("never-{number}"))?)?;
        ensure!(retired == 0 || (known && !unknown), "agent {number}");
    }
    lines.push(format!("has_agent {:>8} us each", clock.elapsed().as_micros() / 2_000));
    let live = u64::try_from(snapshot.streams().len())?;
    Ok((lines, Found { live, retired, of_month: counts[0].0, covered, blocking }))
}

/// The certificate of a run after a month: how long it takes, and how large it is. The first one lists every stream that ever
/// was; one a month later those of the month.
fn certify(
    ledger: &Ledger,
    snapshot: &Snapshot,
    report: &Reconciliation,
    catalog: &Catalog,
) -> Result<String> {
    let signer = ledger.signer().context("a place for the key")?;
    Handle::current().block_on(signer.ensure(ledger, "churn"))?;
    let losses = losses(&*ledger.books()?)?;
    let judging = Judging {
        now: report.as_of,
        span: Span { from: report.from, to: report.at },
        silent_after_millis: LedgerOptions::default().silent_after_millis,
        losses: &losses,
        policies: &catalog.policies,
    };
    let none = Certified { number: 0, sha256: "0".repeat(64) };
    let state_of = |record: &StreamRecord| judging.state_of(record);
    let cut = Cut { snapshot, reconciliation: report, before: none, state_of: &state_of };
    let clock = Stopwatch::start();
    let (_, certify) = make(&cut, signer)?;
    let streams: usize = certify.streams.iter().map(Vec::len).sum();
    Ok(format!(
        "certificate {:>6} ms  {} bytes, and of all streams {streams} bytes, compressed",
        clock.elapsed().as_millis(),
        certify.file.len()
    ))
}

/// What the gate of a billing run judges streams by.
fn report(ledger: &Ledger, snapshot: &Snapshot) -> Result<(String, u64, u64)> {
    let catalog = Catalog::parse(CATALOG, "churn")
        .map_err(|problems| anyhow!("the catalogue: {problems:?}"))?;
    let settings = Settings::default();
    let reconciling =
        Reconciling { ledger, catalog: &catalog, snapshot, settings: &settings, run: None };
    let clock = Stopwatch::start();
    let report = reconciling.quick(default_cut(snapshot))?;
    let millis = clock.elapsed().as_millis();
    let certified = certify(ledger, snapshot, &report, &catalog)?;
    let is_covered =
        |one: &&Finding| one.kind == Kind::Lost && matches!(one.cover, Some(Cover::Policy { .. }));
    let covered = u64::try_from(report.findings.iter().filter(is_covered).count())?;
    let blocking = u64::try_from(report.findings.iter().filter(|one| one.blocks()).count())?;
    let told = format!(
        "{certified}\nreconcile {millis:>8} ms  {} findings: {covered} lost and covered by the policy, {blocking} keep invoices back; {:?}",
        report.findings.len(),
        report.counts.streams
    );
    Ok((told, covered, blocking))
}
