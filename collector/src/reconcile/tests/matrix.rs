//! The matrix: what each defect keeps back.

use super::*;

const WELL: [&str; 3] = ["shop-1", "web-1", "mail-1"];
const NOVEMBER: &str = "2026-11-12T00:00:00Z";

/// Who is kept back by what; the run is asked as a dry run first, which must say the same, and writes nothing.
async fn check(world: &World, expected: &[&str]) {
    let dry = world.bill(Mode::DryRun, None).await;
    assert_eq!(kept_back(&dry), expected, "dry run");
    let outcomes = world.bill(Mode::Issue, None).await;
    assert_eq!(kept_back(&outcomes), expected);
    let issued = outcomes.iter().filter(|outcome| outcome.outcome == EndedAs::Issued).count();
    assert_eq!(issued + expected.len(), 3, "{outcomes:?}");
    // The report names each finding too.
    let named = blocking(&world.report().await);
    for id in expected.iter().flat_map(|line| line.split(": ").nth(1).unwrap().split(", ")) {
        assert!(named.iter().any(|named| named == id), "{id} is not in {named:?}");
    }
}

async fn waive(world: &World, finding: &str, events_max: u64) {
    world.book(What::Waive { finding: finding.to_owned(), events_max }, "it is known").await;
}

fn id(stream: StreamId, kind: &str) -> String {
    format!("{kind}/{stream}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_defect_everybody_is_invoiced() {
    let world = World::november().await.december(&WELL).await;
    assert_eq!(blocking(&world.report().await), [""; 0]);
    check(&world, &[]).await;
    // The second run issues nothing anew.
    assert!(
        world.bill(Mode::Issue, None).await.iter().all(|one| one.outcome == EndedAs::IssuedBefore)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_its_invoice_is_told_until_it_is_charged() {
    let late = |report: &Reconciliation| -> Vec<String> {
        let found = report.findings.iter().filter(|one| one.kind == Kind::Late);
        found.map(|one| format!("{} {} {}", one.id, one.events, one.blocks())).collect()
    };
    let mut world = World::november().await.december(&WELL).await;
    let days = [bucket(NOVEMBER), bucket("2026-12-01T00:00:00Z")];
    world.post("shop-1", &[("acme", "calls", days[0], ONE), ("acme", "calls", days[1], ONE)]).await;
    assert_eq!(late(&world.report().await), [""; 0], "nothing is invoiced yet");
    check(&world, &[]).await;
    for day in days {
        world
            .post("web-1", &[("globex", "calls", day, ONE), ("globex", "calls", day + 1, ONE)])
            .await;
    }
    assert_eq!(late(&world.report().await), ["late/globex 2 false"]);
    // The next run charges it.
    let mut world = world.reopen("2027-01-01T01:00:00Z").await;
    for agent in WELL {
        world.confirm(agent).await;
    }
    let outcomes = world.bill_until("2027-01-01", Mode::Issue, None).await;
    assert_eq!(kept_back(&outcomes), [""; 0]);
    assert_eq!(late(&world.report().await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charges_that_are_not_what_the_usage_comes_to() {
    let world = World::november().await.december(&WELL).await;
    assert_eq!(world.bill_with(|_| ()).await, [""; 0], "as it is");
    let defects: [fn(&mut Issue); 5] = [
        |issue| issue.document.total = "7.01".to_owned(),
        |issue| issue.document.subtotal = "6.99".to_owned(),
        |issue| issue.document.sections[0].lines[0].amount = "7.01".to_owned(),
        |issue| drop(issue.document.sections[0].lines.pop()),
        |issue| {
            // Wrong from the line to the total, in itself it agrees.
            let document = &mut issue.document;
            let section = &mut document.sections[0];
            let amounts = [
                &mut section.lines[0].amount,
                &mut section.total,
                &mut document.subtotal,
                &mut document.taxes[0].net,
                &mut document.total,
                &mut document.amount_due,
            ];
            amounts.into_iter().for_each(|amount| *amount = amount.replace("7.00", "8.00"));
        },
    ];
    for defect in defects {
        let kept = world.bill_with(defect).await;
        let is_it = kept.len() == 1 && kept[0].starts_with("charges/acme: computed a second time");
        assert!(is_it, "{kept:?}");
    }
    waive(&world, "charges/acme", 0).await;
    assert_eq!(world.bill_with(defects[4]).await, [""; 0], "a person has said so");
    check(&world, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_sequence() {
    let mut world = World::november().await;
    world.post("web-2", &[("globex", "calls", bucket(NOVEMBER), ONE)]).await;
    world.confirm("web-2").await;
    let mut world = world.december(&WELL).await;
    // Its journal begins at batch 4, and two events are neither here nor there.
    let journal = world.journal("web-2");
    for _ in 0..4 {
        journal.seal(&[("globex", "calls", bucket(NOVEMBER), ONE)]);
    }
    let held = FirstHeld { sequence: Sequence(4), event: EventNumber(3) };
    let mut hello = journal.hello(1);
    hello.extras = vec![held.to_extra()];
    let agent = AgentName::parse("web-2").unwrap();
    let said = std::time::Duration::ZERO;
    world.ask(Request::Hello(Box::new(HelloRequest { hello, agent, said }))).await;
    check(&world, &["globex: missing/S4/2-3"]).await;
    let finding = format!("missing/{}/2-3", world.stream("web-2"));
    // Of globex's bill two events come to 8.00.
    let report = world.report().await;
    let found = report.findings.iter().find(|one| one.id == finding).unwrap();
    let exposed: Vec<_> = found.money.iter().map(|money| money.to_string()).collect();
    assert_eq!((found.events, exposed), (2, vec!["8.00 EUR".to_owned()]));
    // Too few: it is of two events.
    waive(&world, &finding, 1).await;
    assert_eq!(kept_back(&world.bill(Mode::Issue, None).await).len(), 1);
    waive(&world, &finding, 2).await;
    check_waived(&world).await;
}

/// All that was kept back is issued now.
async fn check_waived(world: &World) {
    let outcomes = world.bill(Mode::Issue, None).await;
    assert_eq!(kept_back(&outcomes), [""; 0]);
    assert!(outcomes.iter().any(|outcome| outcome.outcome == EndedAs::Issued), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream() {
    let mut world = World::november().await;
    world.post("shop-2", &[("acme", "calls", bucket(NOVEMBER), ONE)]).await;
    world.confirm("shop-2").await;
    let mut world = world.december(&WELL).await;
    check(&world, &["acme: silent/S4"]).await;
    // It comes back.
    world.confirm("shop-2").await;
    check_waived(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_silent_since_the_period_ended_keeps_nobody_back() {
    let mut world = World::november().await;
    world.post("shop-2", &[("acme", "calls", bucket(NOVEMBER), ONE)]).await;
    let mut world = world.reopen("2026-12-01T00:00:00Z").await;
    world.confirm("shop-2").await;
    let mut world = world.reopen("2026-12-02T00:00:00Z").await;
    for agent in WELL {
        world.confirm(agent).await;
    }
    assert_eq!(blocking(&world.report().await), ["silent/S4"]);
    check(&world, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_stream() {
    let mut world = World::november().await;
    world.post("shop-2", &[("acme", "calls", bucket(NOVEMBER), ONE)]).await;
    world.confirm("shop-2").await;
    let stream = world.stream("shop-2");
    let world = world.reopen("2026-11-25T00:00:00Z").await;
    world.lose(stream).await;
    let world = world.december(&WELL).await;
    check(&world, &["acme: lost/S4"]).await;
    let report = world.report().await;
    let lost = report.findings.iter().find(|finding| finding.kind == Kind::Lost).unwrap();
    assert_eq!(lost.span.to, at("2026-11-25T00:00:00Z"));
    assert_eq!(report.counts.streams["lost"], 1);
    // A later month is not concerned: the same finding keeps back no span that begins after the declaration.
    let after = Span { from: at("2026-12-01T00:00:00Z"), to: at("2027-01-01T00:00:00Z") };
    assert!(!lost.span.overlaps(after));
    waive(&world, &id(stream, "lost"), lost.events).await;
    check_waived(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_stream_that_is_heard_again_is_lost_no_more() {
    let mut world = World::november().await;
    world.post("shop-2", &[("acme", "calls", bucket(NOVEMBER), ONE)]).await;
    let stream = world.stream("shop-2");
    world.lose(stream).await;
    let mut world = world.december(&WELL).await;
    world.confirm("shop-2").await;
    check(&world, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_declares_lost_and_covers_within_its_bounds() {
    let policy = |per_stream: u64, total: u64| {
        format!(
            "[[policy]]\nname = \"spot\"\nsigned_by = \"the board\"\nkinds = [\"lost\"]\nidentities = [\"shop-*\"]\n\
             lost_after = \"1h\"\nevents_per_stream_max = {per_stream}\nevents_total_max = {total}\n"
        )
    };
    let mut world = World::november().await;
    // Ten minutes long each has one event every minute.
    for agent in ["shop-2", "shop-3"] {
        world.greet(agent).await;
    }
    world.wall.store(at("2026-11-20T00:15:00Z").0, Ordering::Relaxed);
    world.confirm("mail-1").await;
    let uses = [("acme", "calls", bucket(NOVEMBER), ONE); 15];
    for agent in ["shop-2", "shop-3"] {
        world.post(agent, &uses).await;
        world.confirm(agent).await;
    }
    let mut world = world.december(&WELL).await;
    check_kept(&world, "", &["acme: silent/S4, silent/S5"]).await;
    // One hour of one event a minute each.
    check_kept(&world, &policy(59, 1_000), &["acme: lost/S4, lost/S5"]).await;
    check_kept(&world, &policy(60, 119), &["acme: lost/S5"]).await;
    check_kept(&world, &policy(60, 120), &[]).await;
    let others = policy(60, 120).replace("shop-*", "web-*");
    check_kept(&world, &others, &["acme: silent/S4, silent/S5"]).await;
    world.catalog = format!("{CATALOG}{}", policy(60, 120));
    let report = world.report().await;
    let covered = report.findings.iter().filter(|finding| finding.kind == Kind::Lost);
    let by = Cover::Policy { name: "spot".to_owned(), signed_by: "the board".to_owned() };
    assert!(covered.into_iter().all(|finding| finding.cover.as_ref() == Some(&by)));
    check_waived(&world).await;
}

/// Who a dry run keeps back with a policy.
async fn check_kept(world: &World, policy: &str, expected: &[&str]) {
    let world = World {
        folder: tempfile::tempdir().unwrap(),
        ledger: world.ledger.clone(),
        catalog: format!("{CATALOG}{policy}"),
        settings: world.settings.clone(),
        wall: Arc::clone(&world.wall),
        journals: Vec::new(),
    };
    assert_eq!(kept_back(&world.bill(Mode::DryRun, None).await), expected, "{policy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_in_conflict() {
    let mut world = World::november().await;
    world.post("web-2", &[("globex", "calls", bucket(NOVEMBER), ONE)]).await;
    world.confirm("web-2").await;
    // A copy of it was used elsewhere, and sealed something else.
    let mut fork = Journal::new(4, world.ledger.ledger());
    fork.seal(&[("globex", "calls", bucket(NOVEMBER), 5 * ONE)]);
    let reply = world.ask(fork.hello_request(1, "web-2")).await;
    assert!(matches!(reply, Reply::HelloRefused { .. }), "{reply:?}");
    let mut world = world.december(&["shop-1", "web-1", "mail-1", "web-2"]).await;
    check(&world, &["globex: conflict/S4"]).await;
    let finding = id(world.stream("web-2"), "conflict");
    waive(&world, &finding, 0).await;
    check_waived(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantined_body() {
    let mut world = World::november().await;
    world.greet("mail-2").await;
    let journal = world.journal("mail-2");
    journal.seal(&[("initech", "calls", bucket(NOVEMBER), ONE)]);
    let unreadable = conformance::admit(&damaged(&journal.sealed[0]), journal.fence);
    world.ask(unreadable).await;
    let world = world.december(&["shop-1", "web-1", "mail-1", "mail-2"]).await;
    check(&world, &["initech: quarantine/S4"]).await;
}

type Bytes = &'static [u8];
const TOTALS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("totals");
const BATCHES: TableDefinition<'_, u64, Bytes> = TableDefinition::new("batches");

/// Makes one event more of each of a customer's rows.
fn edit_totals(folder: &Path, customer: &str) {
    let database = Database::open(folder.join("totals.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(TOTALS).unwrap();
        let rows: Vec<_> = table
            .iter()
            .unwrap()
            .map(|row| row.unwrap())
            .map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
            .filter(|(key, _)| codec::customer_of(key) == Some(customer))
            .collect();
        assert!(!rows.is_empty());
        for (key, value) in rows {
            let mut usage = codec::read_total(&value).unwrap();
            usage.sum = usage.sum.checked_add(Quantity(ONE)).unwrap();
            let value = codec::write_total(&usage);
            table.insert(key.as_slice(), &value[..]).unwrap();
        }
    }
    write.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_that_were_edited_behind_the_ledgers_back() {
    let world = World::november().await.damage(|folder| edit_totals(folder, "globex")).await;
    let world = world.december(&WELL).await;
    check(&world, &["globex: totals/globex/calls"]).await;
    let report = world.report().await;
    let found = report.findings.iter().find(|one| one.kind == Kind::TotalsDiffer).unwrap();
    assert_eq!(found.quantity.unwrap().to_string(), "1");
    assert_eq!(found.scope, Scope::Customer(CustomerId::parse("globex").unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_edited_behind_the_ledgers_back() {
    let edit = |folder: &Path| {
        let database = Database::open(folder.join("ledger.redb")).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(BATCHES).unwrap();
            let mut bytes = table.get(1).unwrap().unwrap().value().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            table.insert(1, bytes.as_slice()).unwrap();
        }
        write.commit().unwrap();
    };
    let world = World::november().await.damage(edit).await;
    let world = world.december(&WELL).await;
    check(&world, &["globex: totals/globex/calls, batch/S2/1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_meter_an_unknown_customer_and_a_dimension_without_a_price() {
    let mut world = World::november().await;
    let at = bucket(NOVEMBER);
    world.post("shop-1", &[("acme", "mystery", at, ONE), ("nobody", "calls", at, ONE)]).await;
    // Egress has a price in the zone eu only.
    world.post("web-1", &[("globex", "egress", at, ONE)]).await;
    let world = world.december(&WELL).await;
    let report = world.report().await;
    let unknown = |finding: &&Finding| finding.id == "suspense/nobody/calls/unknown_customer";
    let unknown = report.findings.iter().find(unknown).unwrap();
    assert_eq!((unknown.events, unknown.blocks(), &unknown.scope), (1, false, &Scope::Nobody));
    // With its dimensions, as the bill.
    assert!(blocking(&report).contains(&"suspense/globex/egress/unpriced".to_owned()));
    let dry = world.bill(Mode::DryRun, None).await;
    let expected =
        ["acme: suspense/acme/mystery/unknown_meter", "globex: suspense/globex/egress/unpriced"];
    assert_eq!(kept_back(&dry), expected);
    assert_eq!(kept_back(&world.bill(Mode::Issue, None).await), expected);
    // A reason for what is not complete is none for this.
    assert_eq!(kept_back(&world.bill(Mode::Issue, Some("we are in a hurry")).await), expected);
    waive(&world, "suspense/acme/mystery/unknown_meter", 1).await;
    assert_eq!(kept_back(&world.bill(Mode::Issue, None).await), expected[1..]);
    waive(&world, "suspense/globex/egress/unpriced", 1).await;
    check_waived(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_of_other_months_keeps_nobody_back() {
    let mut world = World::november().await;
    world.post("shop-1", &[("acme", "mystery", bucket("2026-10-12T00:00:00Z"), ONE)]).await;
    let world = world.december(&WELL).await;
    check(&world, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expected_instance_that_never_registered() {
    let mut world = World::november().await.december(&WELL).await;
    let list = world.folder.path().join("expected");
    world.settings.expected = ExpectedSource::File(list.clone());
    std::fs::write(&list, "shop-1\nweb-1\nmail-9 # the new one\n").unwrap();
    check(&world, &["initech: expected/mail-9"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_instances_that_cannot_be_read_keeps_everybody_back() {
    let mut world = World::november().await.december(&WELL).await;
    world.settings.expected = ExpectedSource::File(world.folder.path().join("nowhere"));
    let all = ["acme: expected_list", "globex: expected_list", "initech: expected_list"];
    check(&world, &all).await;
    check_although(&world).await;
}

/// A run's own reason issues although usage may be missing; the entries keep it.
async fn check_although(world: &World) {
    let outcomes = world.bill(Mode::Issue, Some("the registry is down, all are known")).await;
    assert!(outcomes.iter().all(|outcome| outcome.outcome == EndedAs::Issued), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_of_the_run_waives_what_is_not_complete_for_it_alone() {
    let mut world = World::november().await;
    world.post("shop-2", &[("acme", "calls", bucket(NOVEMBER), ONE)]).await;
    let world = world.december(&WELL).await;
    check(&world, &["acme: silent/S4"]).await;
    let outcomes = world.bill(Mode::Issue, Some("the disk is in the post")).await;
    assert_eq!(kept_back(&outcomes), [""; 0]);
    assert_eq!(blocking(&world.report().await), ["silent/S4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finding_that_grew_beyond_its_waiver_keeps_back_again() {
    let mut world = World::november().await;
    let at = bucket(NOVEMBER);
    world.post("shop-1", &[("acme", "mystery", at, ONE)]).await;
    let mut world = world.december(&WELL).await;
    waive(&world, "suspense/acme/mystery/unknown_meter", 1).await;
    world.post("shop-1", &[("acme", "mystery", at, ONE)]).await;
    world.confirm("shop-1").await;
    check(&world, &["acme: suspense/acme/mystery/unknown_meter"]).await;
}

/// Its agent leaves in good order, and the stream retires.
async fn leave(world: &mut World, agent: &'static str) {
    world.greet(agent).await;
    let request = world.journal(agent).close();
    let reply = world.ask(request).await;
    assert_eq!(reply, Reply::Claimed(crate::session::claim::ClaimVerdict::Take));
    let stream = world.stream(agent);
    // Once its batches are folded.
    loop {
        let request = Request::Retire { streams: vec![stream], after_millis: 0 };
        match world.ask(request).await {
            Reply::Retired(0) => tokio::task::yield_now().await,
            other => return assert_eq!(other, Reply::Retired(1)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_retired_keep_nobody_back_and_are_counted() {
    let mut world = World::november().await;
    world.post("shop-2", &[("acme", "calls", bucket(NOVEMBER), ONE)]).await;
    world.confirm("shop-2").await;
    let list = world.folder.path().join("expected");
    std::fs::write(&list, "shop-2\nweb-1\n").unwrap();
    world.settings.expected = ExpectedSource::File(list);
    let mut world = world.december(&WELL).await;
    let before = world.report().await;
    for agent in ["shop-2", "web-1"] {
        leave(&mut world, agent).await;
    }
    assert_eq!(world.ledger.snapshot().unwrap().streams().len(), 2);
    let after = world.report().await;
    // Their usage is in the totals, their batches are read, and their instances were here.
    assert_eq!(blocking(&after), [""; 0]);
    assert_eq!((after.counts.streams["open"], after.counts.streams["closed"]), (2, 2));
    let sums = |report: &Reconciliation| {
        let Counts { events_accepted, events_posted, batches, rows, .. } = report.counts;
        (events_accepted, events_posted, batches, rows)
    };
    assert_eq!(sums(&after), sums(&before));
    assert_eq!(sums(&after).0, 4);
    check(&world, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_edited_of_a_retired_stream_is_found() {
    let mut world = World::november().await.december(&WELL).await;
    leave(&mut world, "web-1").await;
    let world = world.damage(|folder| edit_totals(folder, "globex")).await;
    check(&world, &["globex: totals/globex/calls"]).await;
}
