//! The live bill while usage pours in: what the API answers from a snapshot is what a dry run of the billing makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::InMemoryBackend;
use serde_json::Value;
use tidemark_common::id::CustomerId;
use tidemark_common::time::Timestamp;
use tokio::sync::watch;

use crate::api::bill::answer;
use crate::billing_run::{Age, Drafted, Mode, Reading, RunRequest, Settings};
use crate::catalog::Catalog;
use crate::dedupe::Verdict;
use crate::invoice::SectionKind;
use crate::ledger::clock;
use crate::ledger::conformance::{Journal, Use};
use crate::ledger::redb::{RedbOptions, RedbStore};
use crate::ledger::request::{Reply, Request};
use crate::ledger::{Ledger, LedgerOptions, Snapshot, TimeSource};
use crate::period::{Day, parse_edge};

/// Every price model, a change of plan within the period, taxes in and on top of prices.
const CATALOG: &str = include_str!("worked_example.toml");
const CUSTOMERS: [&str; 3] = ["acme", "globex", "initech"];
const NOW: &str = "2026-11-15T00:00:00Z";
/// The first day after the period that holds `NOW`.
const PERIOD_END: &str = "2026-12-01";
const SAMPLES: u64 = 1_000;
/// So many batches are posted between a snapshot's first reading and its second one.
const BATCHES_BETWEEN: u64 = 2;
/// Each look at the clock takes so long, so that no two of them see the same time.
const TICK_MILLIS: u64 = 50;
/// Often: a snapshot may come before, amid and after a fold.
const FOLD_LINES_MAX: u64 = 100;

async fn ask(ledger: &Ledger, request: Request) -> Reply {
    ledger.submit(request).await.unwrap().await.unwrap()
}

async fn ledger() -> Ledger {
    let start = parse_edge(NOW).unwrap().start();
    let (files, options) = (InMemoryBackend::new, RedbOptions::default());
    let (store, recovered) = RedbStore::open_on(files(), files(), &options, start).unwrap();
    let looks = AtomicU64::new(0);
    let time = TimeSource::new(move || {
        let passed = looks.fetch_add(TICK_MILLIS, Ordering::Relaxed);
        let wall = Timestamp(start.0 + i64::try_from(passed).unwrap());
        clock::Reading { wall, monotonic_micros: passed * 1_000 }
    });
    let options = LedgerOptions { fold_lines_max: FOLD_LINES_MAX, ..LedgerOptions::default() };
    Ledger::start(store, recovered, options, time).await.unwrap()
}

/// Some of everything, before the change of plan and after it.
fn uses(number: u64) -> Vec<Use> {
    let bucket = |day: &str| parse_edge(day).unwrap().0 + u32::try_from(number % 8).unwrap();
    let [before, after] = ["2026-11-05T00:00:00Z", "2026-11-12T00:00:00Z"].map(bucket);
    // 2.51 to 2,502.47, and up to four billionths: as many unique values does a journal make of them.
    let units = (i128::from(number * 7_919 % 997) + 1) * 2_510_000_000 + i128::from(number % 5);
    [
        ("acme", "calls", before),
        ("acme", "seats", after),
        ("globex", "payments", after),
        ("globex", "storage", before),
        ("initech", "calls", before),
        ("initech", "calls", after),
        ("initech", "tokens", after),
    ]
    .map(|(customer, meter, bucket)| (customer, meter, bucket, units))
    .into()
}

/// Posts batch after batch until nobody listens to how many they are.
async fn pour(ledger: Ledger, posted: watch::Sender<u64>) {
    let mut journal = Journal::new(1, ledger.ledger());
    let Reply::Welcomed(welcomed) = ask(&ledger, journal.hello_request(0, "edge-1")).await else {
        panic!("the stream is not welcome")
    };
    journal.fence = welcomed.fence;
    for number in 1.. {
        journal.seal(&uses(number));
        match ask(&ledger, journal.admit(journal.sealed.len())).await {
            Reply::Judged { verdict: Verdict::Admit, .. } => {}
            other => panic!("{other:?}"),
        }
        if posted.send(number).is_err() {
            break;
        }
    }
}

/// The bill within the API's answer: all before what tells of the cut.
fn live(catalog: &Catalog, snapshot: &Snapshot, id: &CustomerId) -> String {
    let answer = serde_json::to_string(&answer(catalog, snapshot, id, None).unwrap()).unwrap();
    let (bill, _) = answer.split_once(r#","as_of""#).unwrap();
    format!("{bill}}}")
}

/// What a dry run shows: the bill, and the amounts of the document's lines of the period.
fn dry_run(reading: &Reading<'_>, ledger: &Ledger, id: &CustomerId) -> (String, Vec<String>) {
    let drafted = reading.draft_for(&*ledger.books().unwrap(), id).unwrap();
    let Drafted::Draft { issue, bill, .. } = drafted else { panic!("{drafted:?}") };
    let sections = issue.document.sections.iter();
    let lines = sections.filter(|section| section.kind == SectionKind::Period);
    let amounts = lines.flat_map(|section| &section.lines).map(|line| line.amount.clone());
    (serde_json::to_string(&bill.unwrap()).unwrap(), amounts.collect())
}

/// The amounts of a bill's lines, and how many events are on them.
fn lines_of(bill: &str) -> (Vec<String>, u64) {
    let bill: Value = serde_json::from_str(bill).unwrap();
    assert_eq!(bill["suspense"], Value::Array(Vec::new()));
    let (mut amounts, mut events) = (Vec::new(), 0);
    for section in bill["sections"].as_array().unwrap() {
        for line in section["lines"].as_array().unwrap() {
            amounts.push(line["amount"].as_str().unwrap().to_owned());
            events += line["events"].as_u64().unwrap_or(0);
        }
    }
    (amounts, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_bill_is_the_dry_run_of_the_same_snapshot_while_usage_pours_in() {
    let (ledger, catalog) = (ledger().await, Arc::new(Catalog::parse(CATALOG, "c").unwrap()));
    let (tell, mut posted) = watch::channel(0);
    let pouring = tokio::spawn(pour(ledger.clone(), tell));
    let customers = CUSTOMERS.map(|id| CustomerId::parse(id).unwrap());
    let request = RunRequest {
        date: Day::parse(PERIOD_END).unwrap(),
        mode: Mode::DryRun,
        actor: "test".to_owned(),
        although_incomplete: None,
        customers: None,
        settings: Settings::default(),
        age: Age::Any,
    };
    let mut events_before = [0; CUSTOMERS.len()];
    let mut first = None;
    for sample in 0..SAMPLES {
        posted.wait_for(|posted| *posted > 0).await.unwrap();
        let snapshot = ledger.snapshot().unwrap();
        let before = *posted.borrow();
        let bills = customers.each_ref().map(|id| live(&catalog, &snapshot, id));
        // More is posted and folded while the snapshot is held.
        posted.wait_for(|posted| *posted >= before + BATCHES_BETWEEN).await.unwrap();
        let reading =
            Reading { catalog: &catalog, snapshot: &snapshot, request: &request, blocked: None };
        for ((id, bill), events_before) in customers.iter().zip(&bills).zip(&mut events_before) {
            let (drafted, charged) = dry_run(&reading, &ledger, id);
            assert_eq!(*bill, drafted, "sample {sample}, {id}");
            let (amounts, events) = lines_of(bill);
            assert_eq!(amounts, charged, "sample {sample}, {id}");
            assert!(events > *events_before, "sample {sample}, {id}: {events} events");
            *events_before = events;
        }
        let later = ledger.snapshot().unwrap();
        assert_ne!(live(&catalog, &later, &customers[0]), bills[0], "sample {sample}");
        first.get_or_insert(bills);
    }
    drop(posted);
    pouring.await.unwrap();
    check_growth(&ledger, &catalog, &first.unwrap());
}

/// From the first sample's bills to the last all totals have grown, and much was folded meanwhile.
fn check_growth(ledger: &Ledger, catalog: &Catalog, first: &[String; CUSTOMERS.len()]) {
    let cents = |bill: &str| {
        let bill: Value = serde_json::from_str(bill).unwrap();
        bill["total"].as_str().unwrap().replace('.', "").parse::<u64>().unwrap()
    };
    let snapshot = ledger.snapshot().unwrap();
    for (id, first) in CUSTOMERS.iter().zip(first) {
        let last = live(catalog, &snapshot, &CustomerId::parse(id).unwrap());
        assert!(cents(&last) > cents(first), "{id}: {first} {last}");
    }
    let figures = ledger.figures().unwrap();
    assert!(figures.admitted > SAMPLES * BATCHES_BETWEEN, "{figures:?}");
    assert!(figures.folds > 100, "{figures:?}");
    println!("{SAMPLES} samples, {} batches, {} folds", figures.admitted, figures.folds);
}
