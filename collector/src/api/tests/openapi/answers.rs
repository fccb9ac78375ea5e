//! Every answer has the fields that its schema names and no others, and every field of every schema is in some answer.

use tidemark_common::id::{EventNumber, Fence, Sequence, StreamId};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{Confirm, FirstHeld};

use super::super::{events, retired};
use super::*;
use crate::catalog::Catalog;
use crate::ledger::request::{Admission, HelloRequest, Reply, Request};

/// What no answer of these worlds has: no ledger stops in them, and no totals are edited.
const UNSEEN: [&str; 3] =
    ["BillingRunEnd.awaiting_archive", "BillingRunLine.failed", "Finding.quantity"];

/// Fields of what is asked; `bodies_are_as_described` holds them against the handlers.
const ASKED: [&str; 8] =
    ["Advance", "BillingRun", "Correction", "Credit", "Lock", "NewWaiver", "Payment", "Reasoned"];

/// Answers that were held against the description, and what they had.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    async fn get(&mut self, world: &World, path: &str, target: &str) {
        let known = operation("get", path);
        let token = (!known.is_open()).then_some(ADMIN_TOKEN);
        let response = known.ask(world, target, "", token).await;
        assert_eq!(response.status, 200, "{target}: {}", response.body);
        self.0.extend(known.check(target, &response));
    }

    async fn post(&mut self, world: &World, path: &str, target: &str, body: &str) {
        self.change(world, operation("post", path), target, body).await;
    }

    async fn change(&mut self, world: &World, known: Operation, target: &str, body: &str) {
        let response = known.ask(world, target, body, Some(ADMIN_TOKEN)).await;
        assert_eq!(response.status, 200, "{target}: {}", response.body);
        self.0.extend(known.check(target, &response));
    }

    /// All that can be got, by the description's examples.
    async fn get_all(&mut self, world: &World) {
        for known in operations().into_iter().filter(|known| known.method == "get") {
            self.get(world, known.path, &known.example_target()).await;
        }
    }

    /// Every customer's bill, each of its lines explained, and usage.
    async fn get_bills(&mut self, world: &World, at: &str) {
        for customer in ["acme", "globex", "initech"] {
            let bill = format!("/v1/customers/{customer}/bill");
            self.get(world, "/v1/customers/{customer}/bill", &format!("{bill}?at={at}")).await;
            let shown = world.get(&format!("{bill}?at={at}")).await.ok();
            let sections = shown["sections"].as_array().unwrap().iter();
            let lines: usize =
                sections.map(|section| section["lines"].as_array().unwrap().len()).sum();
            for line in 1..=lines {
                let target = format!("{bill}/explain?line={line}&at={at}&sources=true");
                self.get(world, "/v1/customers/{customer}/bill/explain", &target).await;
            }
            let usage = format!("/v1/customers/{customer}/usage?window=day&group_by=model");
            self.get(world, "/v1/customers/{customer}/usage", &usage).await;
        }
        self.get(world, "/v1/bills", &format!("/v1/bills?at={at}")).await;
    }

    /// Every document there is, with its state and alone.
    async fn get_documents(&mut self, world: &World) {
        let all = world.get("/v1/invoices").await.ok();
        for state in all["invoices"].as_array().unwrap() {
            let number = state["number"].as_str().unwrap();
            for rest in ["", "/document"] {
                let path = format!("/v1/invoices/{{number}}{rest}");
                self.get(world, &path, &format!("/v1/invoices/{number}{rest}")).await;
            }
        }
        self.get(world, "/v1/invoices", "/v1/invoices?limit=1").await;
        self.get(world, "/v1/ledger/entries", "/v1/ledger/entries").await;
        self.get(world, "/v1/ledger/entries", "/v1/ledger/entries?limit=1").await;
        self.get(world, "/v1/certificates", "/v1/certificates?limit=1").await;
        self.get(world, "/v1/ledger/trial-balance", "/v1/ledger/trial-balance").await;
    }
}

/// Every request that books something, as it is described, each in a world of its own.
async fn book_all(seen: &mut Seen) {
    for known in operations().into_iter().filter(|known| known.method != "get") {
        let world = october().await;
        let (target, body) = (known.example_target(), known.body());
        seen.change(&world, known, &target, &body).await;
        seen.get_documents(&world).await;
    }
}

/// Two months of the worked example: drafts, late usage, runs that issue, did before, and cannot.
async fn bill_two_months(seen: &mut Seen) {
    let world = world_with_usage().await;
    let runs = "/v1/billing-runs";
    seen.get_bills(&world, "2026-10-15T00:00:00Z").await;
    seen.get_bills(&world, "2026-11-15T00:00:00Z").await;
    // Two customers' first month of 1970 began before 1970.
    seen.get(&world, "/v1/bills", "/v1/bills?at=0").await;
    seen.post(&world, runs, runs, r#"{"period_end":"2026-11-01"}"#).await;
    let run = |date: &str, dry: bool| {
        format!(
            r#"{{"period_end":"{date}","dry_run":{dry},"although_incomplete":"none confirms"}}"#
        )
    };
    for (date, dry) in [("2026-11-01", true), ("2026-11-01", false), ("2026-11-01", false)] {
        seen.post(&world, runs, runs, &run(date, dry)).await;
    }
    world
        .post_from(StreamId([8; 16]), &[line("calls", "acme", "2026-10-15T00:00:00Z", &[], "500")])
        .await;
    world.set_clock("2026-12-01T12:00:00Z").await;
    for dry in [true, false] {
        seen.post(&world, runs, runs, &run("2026-12-01", dry)).await;
    }
    seen.get_all(&world).await;
    seen.get_documents(&world).await;
}

/// A trial, a discount on a part of the period, a seller with an address for mail.
async fn try_out(seen: &mut Seen) {
    let world = october().await;
    let catalog = include_str!("../worked_example.toml")
        .replace("due_days = 30", "due_days = 30\nemail = \"bills@example.com\"")
        .replace(
            "discount = \"10\"",
            "discount = \"10\"\nstart = \"2026-11-02T00:00:00Z\"\ntrial_end = \"2026-11-09T00:00:00Z\"",
        );
    assert!(catalog.contains("email") && catalog.contains("trial_end"));
    world.adopt(&catalog);
    seen.get_bills(&world, "2026-11-15T00:00:00Z").await;
    let credit = r#"{"amount":"1.00","reason":"r"}"#;
    let path = "/v1/invoices/{number}/credit-notes";
    seen.post(&world, path, "/v1/invoices/INV2026-000001/credit-notes", credit).await;
    seen.get_documents(&world).await;
}

/// Streams that confirmed, that lack batches for good, and whose agent may bill nobody.
async fn open_streams_of_every_kind(seen: &mut Seen) {
    let world = world().await;
    let [confirmed, lacking, denied] = [21, 22, 23].map(|number| StreamId([number; 16]));
    let mut hello = world.hello(lacking);
    (hello.hello.accepted, hello.hello.sealed_sequence) = (10, Sequence(5));
    let held = FirstHeld { sequence: Sequence(3), event: EventNumber(5) };
    hello.hello.extras = vec![held.to_extra()];
    welcome(&world, hello).await;

    let fence = welcome(&world, world.hello(confirmed)).await;
    let (sequence, extras) = (Sequence::ZERO, Vec::new());
    let confirm = Confirm { ledger_time: world.ledger.now(), sequence, accepted: 0, fence, extras };
    world.ask(Request::Confirm { stream: confirmed, confirm }).await;

    let fence = welcome(&world, world.hello(denied)).await;
    let lines = [line("tokens", "acme", "2026-03-10T01:00:00Z", &[], "1")];
    let batch = world.batch(denied, &lines, 1);
    let grants = Catalog::parse("[identities]\ndefault = \"deny\"", "c").unwrap().grants;
    let grant = grants.of(&AgentName::parse("edge-1").unwrap());
    let admission = Admission::open_for(&grant, batch.header, batch.bytes, fence);
    world.ask(Request::Admit(Box::new(admission))).await;
    seen.get(&world, "/v1/streams", "/v1/streams").await;
    seen.get(&world, "/v1/streams", "/v1/streams?limit=2").await;
    retired::retire(&world, 24, 0).await;
    seen.get(&world, "/v1/streams", "/v1/streams?retired=true").await;
    seen.get(&world, "/v1/suspense", "/v1/suspense").await;
    let again = line("tokens", "acme", "2026-03-10T02:00:00Z", &[], "1");
    for stream in [121, 122] {
        world.post_with_ids(StreamId([stream; 16]), std::slice::from_ref(&again), &[7]).await;
    }
    seen.get(&world, "/v1/duplicates", "/v1/duplicates").await;
}

async fn welcome(world: &World, hello: HelloRequest) -> Fence {
    match world.ask(Request::Hello(Box::new(hello))).await {
        Reply::Welcomed(welcomed) => welcomed.fence,
        other => panic!("{other:?}"),
    }
}

/// Usage that the catalogue does not explain, and more streams than an answer names.
async fn leave_much_unexplained(seen: &mut Seen) {
    let world = world().await;
    seen.get(&world, "/v1/customers/{customer}/bill", "/v1/customers/acme/bill").await;
    seen.get(&world, "/v1/suspense", "/v1/suspense?limit=1").await;
    for number in 10..120 {
        let at = "2026-03-10T01:00:00Z";
        world.post_from(StreamId([number; 16]), &[line("tokens", "acme", at, &[], "1")]).await;
    }
    seen.get(&world, "/v1/suspense", "/v1/suspense").await;
    retired::retire(&world, 9, 0).await;
    seen.get(&world, "/v1/streams", "/v1/streams").await;
}

/// Findings that block, that are waived, and that a policy covers; a stream that is lost.
async fn reconcile(seen: &mut Seen) {
    let world = october().await;
    let [waived, lacking] = [StreamId([8; 16]), StreamId([22; 16])];
    let lines = [line("mystery", "acme", "2026-11-12T00:00:00Z", &[], "1")];
    world.post_from(waived, &lines).await;
    let mut hello = world.hello(lacking);
    (hello.hello.accepted, hello.hello.sealed_sequence) = (10, Sequence(5));
    let held = FirstHeld { sequence: Sequence(3), event: EventNumber(5) };
    hello.hello.extras = vec![held.to_extra()];
    welcome(&world, hello).await;
    // It lived for a while, and accepted nothing.
    let idle = StreamId([21; 16]);
    welcome(&world, world.hello(idle)).await;
    world.set_clock("2026-11-16T12:00:00Z").await;
    welcome(&world, world.hello(idle)).await;
    world.set_clock("2026-12-01T12:00:00Z").await;
    for depth in ["quick", "full"] {
        let target = format!("/v1/reconciliation?depth={depth}");
        seen.get(&world, "/v1/reconciliation", &target).await;
    }
    let body = format!(r#"{{"finding":"silent/{waived}","reason":"it is known"}}"#);
    seen.post(&world, "/v1/waivers", "/v1/waivers", &body).await;
    seen.get(&world, "/v1/reconciliation", "/v1/reconciliation").await;
    seen.get(&world, "/v1/waivers", "/v1/waivers").await;
    let policy = "[[policy]]\nname = \"gone\"\nsigned_by = \"ada\"\nkinds = [\"lost\"]\nidentities = [\"*\"]\n\
                  lost_after = \"1h\"\nevents_per_stream_max = 1000000\nevents_total_max = 1000000000\n";
    world.adopt(&format!("{}{policy}", include_str!("../worked_example.toml")));
    seen.get(&world, "/v1/reconciliation", "/v1/reconciliation").await;
    seen.get(&world, "/v1/streams", "/v1/streams").await;
}

#[tokio::test]
async fn answers_are_as_described() {
    let mut seen = Seen::default();
    let target = "/v1/customers/early/bill?at=2026-03-15T00:00:00Z";
    seen.get(&terms::world().await, "/v1/customers/{customer}/bill", target).await;
    book_all(&mut seen).await;
    bill_two_months(&mut seen).await;
    try_out(&mut seen).await;
    open_streams_of_every_kind(&mut seen).await;
    leave_much_unexplained(&mut seen).await;
    reconcile(&mut seen).await;
    let (world, target) = events::of_every_kind().await;
    seen.get(&world, "/v1/customers/{customer}/events", &target).await;

    let mut unseen = BTreeSet::new();
    walk_all(&mut |schema, place| {
        let names = schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys());
        let fields = names.map(|name| format!("{place}.{name}"));
        unseen.extend(fields.filter(|field| !seen.0.contains(field)));
    });
    unseen.retain(|field| !ASKED.iter().any(|asked| field.starts_with(&format!("{asked}."))));
    assert_eq!(unseen, BTreeSet::from(UNSEEN.map(str::to_owned)));
}
