//! Each defect keeps back exactly the invoices it should, and is named: on a real ledger's files, by real billing runs.
//!
//! Three teams, each with an agent of its own that may bill one customer. In November all post usage; on 1 December, after
//! a restart, agents that are well confirm, and the month is billed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use redb::{Database, ReadableTable as _, TableDefinition};
use tidemark_common::id::{CustomerId, EventNumber, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;
use tidemark_common::wire::FirstHeld;
use tokio::sync::mpsc;

use super::*;
use crate::billing_run::{self, Age, EndedAs, Gated, Mode, Outcome, RunRequest};
use crate::ledger::books::{Change, Issue, What};
use crate::ledger::clock::Reading;
use crate::ledger::codec;
use crate::ledger::conformance::{self, Journal, Use, damaged};
use crate::ledger::redb::{RedbOptions, RedbStore};
use crate::ledger::request::{HelloRequest, Reply, Request};
use crate::ledger::{LedgerOptions, TimeSource};
use crate::period::{Day, parse_edge};

mod matrix;

const CATALOG: &str = r#"
[[meter]]
name = "calls"
aggregation = "sum"
[[meter]]
name = "egress"
aggregation = "sum"
dimensions = ["zone"]
[[plan]]
name = "basic"
currency = "EUR"
[[plan.price]]
meter = "calls"
unit_price = "1"
[[plan.price]]
meter = "egress"
where = { zone = "eu" }
unit_price = "2"
[[seller]]
name = "us"
legal_name = "Us Ltd"
address = ["Here"]
[identities]
default = "deny"
[[identity]]
name = "shop-*"
meters = ["*"]
customers = ["acme"]
[[identity]]
name = "web-*"
meters = ["*"]
customers = ["globex"]
[[identity]]
name = "mail-*"
meters = ["calls"]
customers = ["initech", "dormant"]
[[customer]]
id = "acme"
plan = "basic"
[[customer]]
id = "globex"
plan = "basic"
[[customer]]
id = "initech"
plan = "basic"
[[customer]]
id = "dormant"
"#;

/// Quantities are in units of 10^-9.
const ONE: i128 = 1_000_000_000;

/// A collector's folder, its agents, and the time.
struct World {
    folder: tempfile::TempDir,
    ledger: Ledger,
    catalog: String,
    settings: Settings,
    wall: Arc<AtomicI64>,
    /// In the order of their streams' numbers, from 1.
    journals: Vec<(&'static str, Journal)>,
}

fn at(text: &str) -> Timestamp {
    parse_edge(text).unwrap().start()
}

fn bucket(text: &str) -> u32 {
    parse_edge(text).unwrap().0
}

async fn open(folder: &Path, wall: &Arc<AtomicI64>) -> Ledger {
    let now = Timestamp(wall.load(Ordering::Relaxed));
    let (store, recovered) = RedbStore::open(folder, &RedbOptions::default(), now).unwrap();
    let shown = Arc::clone(wall);
    let time = TimeSource::new(move || Reading {
        wall: Timestamp(shown.load(Ordering::Relaxed)),
        monotonic_micros: 0,
    });
    let options = LedgerOptions { keys: Some(folder.to_owned()), ..LedgerOptions::default() };
    Ledger::start(store, recovered, options, time).await.unwrap()
}

impl World {
    /// On 20 November: each team's agent has posted one batch of usage, and confirmed.
    async fn november() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wall = Arc::new(AtomicI64::new(at("2026-11-20T00:00:00Z").0));
        let ledger = open(folder.path(), &wall).await;
        let (catalog, settings) = (CATALOG.to_owned(), Settings::default());
        let mut world = Self { folder, ledger, catalog, settings, wall, journals: Vec::new() };
        for (agent, customer) in [("shop-1", "acme"), ("web-1", "globex"), ("mail-1", "initech")] {
            world
                .post(agent, &[(customer, "calls", bucket("2026-11-10T00:00:00Z"), 7 * ONE)])
                .await;
            world.confirm(agent).await;
        }
        world
    }

    /// The same ledger, opened again at another time.
    async fn reopen(self, now: &str) -> Self {
        self.wall.store(at(now).0, Ordering::Relaxed);
        let world = self.damage(|_| ()).await;
        let (reached, asked) = (world.ledger.now(), at(now));
        assert!(reached >= asked, "{reached:?}, and not {asked:?}");
        world
    }

    /// What a stopped collector's files suffer.
    async fn damage(self, damage: impl FnOnce(&Path)) -> Self {
        let Self { folder, ledger, catalog, settings, wall, journals } = self;
        ledger.shutdown().await.unwrap();
        drop(ledger);
        damage(folder.path());
        let ledger = open(folder.path(), &wall).await;
        Self { folder, ledger, catalog, settings, wall, journals }
    }

    async fn ask(&self, request: Request) -> Reply {
        self.ledger.submit(request).await.unwrap().await.unwrap()
    }

    /// The agent's journal; a new one if it has none.
    fn journal(&mut self, agent: &'static str) -> &mut Journal {
        let ledger = self.ledger.ledger();
        if let Some(place) = self.journals.iter().position(|(name, _)| *name == agent) {
            return &mut self.journals[place].1;
        }
        let number = u8::try_from(self.journals.len() + 1).unwrap();
        self.journals.push((agent, Journal::new(number, ledger)));
        &mut self.journals.last_mut().unwrap().1
    }

    fn stream(&mut self, agent: &'static str) -> StreamId {
        self.journal(agent).stream
    }

    /// Greets with all that was sealed before being posted.
    async fn greet(&mut self, agent: &'static str) {
        let posted = self.journal(agent).sealed.len();
        let request = self.journal(agent).hello_request(posted, agent);
        match self.ask(request).await {
            Reply::Welcomed(welcomed) => self.journal(agent).fence = welcomed.fence,
            other => panic!("{agent}: {other:?}"),
        }
    }

    async fn post(&mut self, agent: &'static str, uses: &[Use]) {
        self.greet(agent).await;
        let journal = self.journal(agent);
        journal.seal(uses);
        let request = journal.admit(journal.sealed.len());
        let reply = self.ask(request).await;
        assert!(matches!(reply, Reply::Judged { .. }), "{reply:?}");
    }

    /// All that it accepted up to now is posted.
    async fn confirm(&mut self, agent: &'static str) {
        self.greet(agent).await;
        let now = self.ledger.now();
        let request = self.journal(agent).confirm(now);
        self.ask(request).await;
    }

    /// On 1 December those that are well confirm.
    async fn december(self, well: &[&'static str]) -> Self {
        let mut world = self.reopen("2026-12-01T01:00:00Z").await;
        for agent in well {
            world.confirm(agent).await;
        }
        world
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::new(Catalog::parse(&self.catalog, "c").unwrap())
    }

    async fn book(&self, what: What, reason: &str) {
        let (actor, reason) = ("ada".to_owned(), Some(reason.to_owned()));
        let change = Change { actor, reason, date: None, request: None, what };
        self.ledger.book(change).await.unwrap().unwrap();
    }

    /// The stream is declared lost.
    async fn lose(&self, stream: StreamId) {
        let answering = door::Answering {
            ledger: self.ledger.clone(),
            catalog: self.catalog(),
            settings: self.settings.clone(),
        };
        let reason = "its node burnt".to_owned();
        let asked = door::AskedLoss { stream: stream.to_string(), actor: String::new(), reason };
        let judged = tokio::task::spawn_blocking(move || answering.loss(&asked).unwrap());
        let change = judged.await.unwrap().change("ada".to_owned(), None);
        self.ledger.book(change).await.unwrap().unwrap();
    }

    /// Bills November.
    async fn bill(&self, mode: Mode, although_incomplete: Option<&str>) -> Vec<Outcome> {
        self.bill_until("2026-12-01", mode, although_incomplete).await
    }

    /// Bills the month that ends before this day.
    async fn bill_until(
        &self,
        date: &str,
        mode: Mode,
        although_incomplete: Option<&str>,
    ) -> Vec<Outcome> {
        let request = self.request(date, mode, although_incomplete);
        let (outcomes, mut told) = mpsc::channel(100);
        billing_run::run(&self.ledger, self.catalog(), request, &outcomes).await.unwrap();
        drop(outcomes);
        let mut all = Vec::new();
        while let Some(outcome) = told.recv().await {
            all.push(outcome);
        }
        all
    }

    fn request(&self, date: &str, mode: Mode, although_incomplete: Option<&str>) -> RunRequest {
        RunRequest {
            date: Day::parse(date).unwrap(),
            mode,
            actor: "bob".to_owned(),
            although_incomplete: although_incomplete.map(str::to_owned),
            settings: billing_run::Settings {
                reconcile: self.settings.clone(),
                ..billing_run::Settings::default()
            },
            age: Age::Recent,
            customers: None,
        }
    }

    /// Draws up acme's document of November, with a defect before it is verified; the findings that keep it back.
    async fn bill_with(&self, defect: fn(&mut Issue)) -> Vec<String> {
        let (ledger, catalog) = (self.ledger.clone(), self.catalog());
        let request = self.request("2026-12-01", Mode::Issue, None);
        let proving = tokio::task::spawn_blocking(move || {
            let acme = CustomerId::parse("acme").unwrap();
            Gated::prove_changed(&ledger, catalog, request, &acme, defect)
        });
        match proving.await.unwrap() {
            Ok(()) => Vec::new(),
            Err(billing_run::Problem::KeptBack(kept)) => kept
                .findings
                .iter()
                .map(|finding| format!("{}: {}", finding.id, finding.told))
                .collect(),
            Err(other) => panic!("{other}"),
        }
    }

    /// The full report as of now.
    async fn report(&self) -> Reconciliation {
        let (ledger, catalog, settings) =
            (self.ledger.clone(), self.catalog(), self.settings.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let snapshot = ledger.snapshot().unwrap();
            let reconciling = Reconciling {
                ledger: &ledger,
                catalog: &catalog,
                snapshot: &snapshot,
                settings: &settings,
                run: None,
            };
            let quick = reconciling.quick(default_cut(&snapshot)).unwrap();
            reconciling.deepen(&quick, Wanted::Everything).unwrap()
        });
        reading.await.unwrap()
    }
}

/// `customer: ID, ID` of each that is kept back; streams by their number.
fn kept_back(outcomes: &[Outcome]) -> Vec<String> {
    let kept = outcomes.iter().filter(|outcome| outcome.outcome == EndedAs::Problem);
    kept.map(|outcome| {
        let ids: Vec<_> = outcome.findings.iter().map(|finding| named(&finding.id)).collect();
        assert!(!ids.is_empty(), "{outcome:?}");
        format!("{}: {}", outcome.customer, ids.join(", "))
    })
    .collect()
}

/// A finding's id with streams by their number.
fn named(id: &str) -> String {
    (1_u8..10).fold(id.to_owned(), |id, number| {
        id.replace(&StreamId([number; 16]).to_string(), &format!("S{number}"))
    })
}

/// The ids of what the report finds, but what is merely told.
fn blocking(report: &Reconciliation) -> Vec<String> {
    let blocking = report.findings.iter().filter(|finding| finding.blocks());
    blocking.map(|finding| named(&finding.id)).collect()
}
