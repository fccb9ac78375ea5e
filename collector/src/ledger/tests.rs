//! The running ledger: cuts, limits, ends.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::redb::backends::InMemoryBackend;
use proptest::prelude::*;
use tidemark_common::id::{CustomerId, Sequence};
use tidemark_common::time::Bucket;

use super::clock::Reading;
use super::conformance::{Journal, NOW, commit, greet};
use super::fold::FoldSlice;
use super::request::Welcomed;
use super::store::{
    Books, Committed, UsageQuestion, VisitBatch, VisitStored, VisitSuppressed, WhichBatches,
};
use super::*;
use crate::dedupe::Verdict;
use crate::session::claim::ClaimVerdict;

fn memory() -> (RedbStore, Recovered) {
    RedbStore::open_on(InMemoryBackend::new(), InMemoryBackend::new(), &RedbOptions::default(), NOW)
        .unwrap()
}

fn still() -> TimeSource {
    TimeSource::new(|| Reading { wall: NOW, monotonic_micros: 0 })
}

fn options() -> LedgerOptions {
    LedgerOptions { fold_lines_max: 20, fold_age_millis: 3_600_000, ..LedgerOptions::default() }
}

async fn ask(ledger: &Ledger, request: Request) -> Reply {
    ledger.submit(request).await.unwrap().await.unwrap()
}

async fn open_stream(ledger: &Ledger, journal: &mut Journal) -> Welcomed {
    let Reply::Welcomed(welcomed) = ask(ledger, journal.hello_request(0, "agent")).await else {
        panic!()
    };
    journal.fence = welcomed.fence;
    welcomed
}

fn usage(snapshot: &Snapshot, customer: &str) -> u64 {
    let customer = CustomerId::parse(customer).unwrap();
    let question =
        UsageQuestion { customer: &customer, meter: None, from: Bucket(0), to: Bucket(u32::MAX) };
    let mut events = 0;
    let add = |row: UsageRow| {
        events += row.usage.events;
        Ok::<_, ReadError>(())
    };
    snapshot.visit_usage(&question, u64::MAX, add).unwrap();
    events
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Admit,
    /// A folder sums the tail, ...
    Sum,
    /// ... adds it to the totals, ...
    Store,
    /// ... and takes it from the tail.
    Publish,
    /// A reader takes the tail, and later the totals.
    TakeTail,
    TakeTotals,
}

/// A reader may be anywhere in a fold: it sees every batch of its tail's moment once.
async fn interleave(steps: &[Step]) {
    let (store, recovered) = memory();
    let mut journal = Journal::new(1, recovered.ledger);
    greet(&store, &mut journal, 0).await;
    let mut tail = Tail::default();
    let (mut slice, mut stored) = (None, None);
    let mut reader: Option<(Tail, u64)> = None;
    let mut posted = 0;
    for step in steps {
        match step {
            // What is posted after a reader took its tail would be newer than its cut: the ledger's
            // lock keeps them apart.
            Step::Admit if reader.is_none() => {
                journal.seal(&[("c", "m", 1, 5)]);
                posted += 1;
                let admitted =
                    commit(&store, vec![journal.admit(journal.sealed.len())]).await.admitted;
                tail = tail.appended(admitted);
            }
            Step::Sum if slice.is_none() && stored.is_none() && !tail.is_empty() => {
                slice = Some(Arc::new(FoldSlice::of(tail.iter().map(AsRef::as_ref))));
            }
            Step::Store => {
                if let Some(slice) = slice.take() {
                    store.fold(Arc::clone(&slice)).await.unwrap();
                    stored = Some(slice);
                }
            }
            Step::Publish => {
                if let Some(slice) = stored.take() {
                    tail = tail.without_oldest(slice.batches);
                }
            }
            Step::TakeTail => reader = Some((tail.clone(), posted)),
            Step::TakeTotals => {
                if let Some((tail, expected)) = reader.take() {
                    let snapshot = Snapshot {
                        restored_at: None,
                        ledger: recovered.ledger,
                        as_of: NOW,
                        silent_after_millis: 0,
                        tail: Arc::new(tail),
                        totals: store.totals().unwrap(),
                        books: store.books().unwrap(),
                        records: Vec::new(),
                        statuses: OnceLock::new(),
                        agents: OnceLock::new(),
                        retired: store.retired().unwrap(),
                        retired_sums: Arc::default(),
                    };
                    assert_eq!(usage(&snapshot, "c"), expected, "{steps:?}");
                    assert_eq!(snapshot.events_by_lines().unwrap(), expected, "{steps:?}");
                    let mut seen = 0;
                    let count = |one: Seen| {
                        seen += one.events;
                        ControlFlow::Continue(())
                    };
                    snapshot.visit_seen(&[], count).unwrap();
                    assert_eq!(seen, expected, "{steps:?}");
                }
            }
            Step::Admit | Step::Sum => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_during_a_fold_sees_neither_double_nor_missing(
        steps in proptest::collection::vec(
            prop_oneof![
                Just(Step::Admit),
                Just(Step::Sum),
                Just(Step::Store),
                Just(Step::Publish),
                Just(Step::TakeTail),
                Just(Step::TakeTotals),
            ],
            1..48,
        ),
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(interleave(&steps));
    }
}

/// Every snapshot is one cut: usage is what the streams posted, while agents write and the folder folds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_cuts_while_everything_moves() {
    let (store, recovered) = memory();
    let ledger = Ledger::start(store, recovered, options(), still()).await.unwrap();
    let mut agents = Vec::new();
    for stream in 1..=4 {
        let ledger = ledger.clone();
        agents.push(tokio::spawn(async move {
            let mut journal = Journal::new(stream, ledger.ledger());
            open_stream(&ledger, &mut journal).await;
            for _ in 0..60 {
                journal.seal(&[("c", "m", 1, 5), ("d", "m", 2, 5)]);
                let reply = ask(&ledger, journal.admit(journal.sealed.len())).await;
                assert!(
                    matches!(reply, Reply::Judged { verdict: Verdict::Admit, .. }),
                    "{reply:?}"
                );
            }
        }));
    }
    let writing = Arc::new(AtomicBool::new(true));
    let reader = {
        let (ledger, writing) = (ledger.clone(), Arc::clone(&writing));
        tokio::task::spawn_blocking(move || {
            let mut looks = 0;
            while writing.load(Ordering::Relaxed) || looks == 0 {
                let snapshot = ledger.snapshot().unwrap();
                let posted: u64 =
                    snapshot.streams().iter().map(|stream| stream.posted_events).sum();
                assert_eq!(usage(&snapshot, "c") + usage(&snapshot, "d"), posted);
                let figures = ledger.figures().unwrap();
                assert_eq!(figures.events_by_lines, figures.events_by_headers);
                looks += 1;
            }
        })
    };
    for agent in agents {
        agent.await.unwrap();
    }
    writing.store(false, Ordering::Relaxed);
    reader.await.unwrap();
    let figures = ledger.figures().unwrap();
    assert_eq!((figures.admitted, figures.events_by_headers, figures.streams), (240, 480, 4));
    assert!(figures.folds > 0 && figures.groups <= 248, "{figures:?}");
    ledger.shutdown().await.unwrap();
    assert_eq!(ledger.snapshot().unwrap().tail.size(), TailSize::default());
    assert_eq!(usage(&ledger.snapshot().unwrap(), "c"), 240);
}

#[tokio::test]
async fn admission_waits_for_the_folder_at_the_tails_limit() {
    let (store, recovered) = memory();
    let options = LedgerOptions { fold_lines_max: u64::MAX, tail_bytes_max: 1_000, ..options() };
    let ledger = Ledger::start(store, recovered, options, still()).await.unwrap();
    let mut journal = Journal::new(1, ledger.ledger());
    open_stream(&ledger, &mut journal).await;
    let mut largest = 0;
    for _ in 0..50 {
        let batch = journal.seal(&[("c", "m", 1, 5)]);
        largest = largest.max(u64::from(batch.header.raw_length));
        ask(&ledger, journal.admit(journal.sealed.len())).await;
        assert!(ledger.snapshot().unwrap().tail.size().bytes < 1_000 + largest);
    }
    assert_eq!(usage(&ledger.snapshot().unwrap(), "c"), 50);
}

#[tokio::test]
async fn a_shutdown_takes_what_waits_and_a_start_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), LedgerOptions::default()).await.unwrap();
    let mut journal = Journal::new(1, ledger.ledger());
    open_stream(&ledger, &mut journal).await;
    let mut replies = Vec::new();
    for _ in 0..5 {
        journal.seal(&[("c", "m", 1, 5)]);
        replies.push(ledger.submit(journal.admit(journal.sealed.len())).await.unwrap());
    }
    ledger.shutdown().await.unwrap();
    for reply in replies {
        assert!(matches!(reply.await.unwrap(), Reply::Judged { verdict: Verdict::Admit, .. }));
    }
    assert_eq!(ledger.submit(journal.admit(1)).await.unwrap_err(), LedgerError::Stopped);
    let before = (ledger.ledger(), ledger.now());
    drop(ledger);

    let ledger = Ledger::open(folder.path(), LedgerOptions::default()).await.unwrap();
    assert_eq!(ledger.ledger(), before.0);
    assert!(ledger.now() >= before.1);
    let snapshot = ledger.snapshot().unwrap();
    assert_eq!((usage(&snapshot, "c"), snapshot.tail.size().batches), (5, 0));
    assert_eq!(snapshot.in_transit(), 0);
    ledger.shutdown().await.unwrap();
}

/// A store that fails where it is told to.
#[derive(Debug)]
struct Broken {
    store: RedbStore,
    commit: fn() -> Result<(), StoreError>,
    fold: fn() -> Result<(), StoreError>,
}

impl Broken {
    fn error() -> StoreError {
        StoreError::Storage {
            act: "write",
            file: "ledger.redb",
            reason: "the disk is on fire".to_owned(),
        }
    }
}

impl LedgerStore for Broken {
    async fn commit(
        &self,
        group: Vec<Request>,
        at: Timestamp,
        limit: Option<Timestamp>,
    ) -> Result<Committed, StoreError> {
        if !group.is_empty() {
            (self.commit)()?;
        }
        self.store.commit(group, at, limit).await
    }

    async fn fold(&self, slice: Arc<FoldSlice>) -> Result<(), StoreError> {
        (self.fold)()?;
        self.store.fold(slice).await
    }

    fn totals(&self) -> Result<Box<dyn Totals>, StoreError> {
        self.store.totals()
    }

    fn books(&self) -> Result<Box<dyn Books>, StoreError> {
        self.store.books()
    }

    fn retired(&self) -> Result<Box<dyn Retired>, StoreError> {
        self.store.retired()
    }

    fn visit_batches(&self, which: WhichBatches, visit: VisitBatch<'_>) -> Result<(), StoreError> {
        self.store.visit_batches(which, visit)
    }

    fn visit_suppressed(
        &self,
        position: u64,
        visit: VisitSuppressed<'_>,
    ) -> Result<(), StoreError> {
        self.store.visit_suppressed(position, visit)
    }

    fn visit_stored(&self, visit: VisitStored<'_>) -> Result<(), StoreError> {
        self.store.visit_stored(visit)
    }

    async fn batch(
        &self,
        stream: StreamId,
        sequence: Sequence,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.batch(stream, sequence).await
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.store.checkpoint().await
    }
}

#[tokio::test]
async fn a_failed_commit_ends_the_ledger_and_is_not_acknowledged() {
    let (store, recovered) = memory();
    let journal = Journal::new(1, recovered.ledger);
    let broken = Broken { store, commit: || Err(Broken::error()), fold: || Ok(()) };
    let ledger = Ledger::start(broken, recovered, options(), still()).await.unwrap();
    let reply = ledger.submit(journal.hello_request(0, "agent")).await.unwrap();
    assert!(reply.await.is_err());
    let failure = LedgerError::Store(Broken::error());
    assert_eq!(ledger.failed().await, failure);
    assert_eq!(ledger.shutdown().await, Err(failure));
}

#[tokio::test]
async fn a_panic_in_either_task_ends_the_ledger() {
    type Act = fn() -> Result<(), StoreError>;
    let cases: [(&str, Act, Act); 2] = [
        ("writer", || panic!("a test's panic in the writer"), || Ok(())),
        ("folder", || Ok(()), || panic!("a test's panic in the folder")),
    ];
    for (task, commit, fold) in cases {
        let (store, recovered) = memory();
        let mut journal = Journal::new(1, recovered.ledger);
        journal.seal(&[("c", "m", 1, 5)]);
        let options = LedgerOptions { fold_lines_max: 1, ..options() };
        let broken = Broken { store, commit, fold };
        let ledger = Ledger::start(broken, recovered, options, still()).await.unwrap();
        let reply = ledger.submit(journal.hello_request(0, "agent")).await.unwrap().await;
        if let Ok(Reply::Welcomed(welcomed)) = reply {
            journal.fence = welcomed.fence;
            ask(&ledger, journal.admit(1)).await;
        }
        let failure = ledger.failed().await;
        assert!(failure.to_string().contains(&format!("its {task} panicked")), "{failure}");
        assert_eq!(ledger.shutdown().await, Err(failure));
    }
}

#[tokio::test]
async fn completeness_follows_confirmations() {
    let (store, recovered) = memory();
    let ledger = Ledger::start(store, recovered, options(), still()).await.unwrap();
    assert_eq!(ledger.snapshot().unwrap().complete_through().through, Some(ledger.now()));
    let mut journal = Journal::new(1, ledger.ledger());
    journal.seal(&[("c", "m", 1, 5)]);
    open_stream(&ledger, &mut journal).await;
    let snapshot = ledger.snapshot().unwrap();
    assert_eq!((snapshot.complete_through().through, snapshot.in_transit()), (None, 1));
    assert_eq!(snapshot.complete_through().held_back_by.len(), 1);
    ask(&ledger, journal.admit(1)).await;
    ask(&ledger, journal.confirm(Timestamp(900))).await;
    let snapshot = ledger.snapshot().unwrap();
    assert_eq!(
        (snapshot.complete_through().through, snapshot.in_transit()),
        (Some(Timestamp(900)), 0)
    );
    assert_eq!(snapshot.complete_through().held_back_by, []);
}

#[tokio::test]
async fn a_read_of_too_many_rows_ends_and_says_so() {
    let (store, recovered) = memory();
    let ledger = Ledger::start(store, recovered, options(), still()).await.unwrap();
    let mut journal = Journal::new(1, ledger.ledger());
    open_stream(&ledger, &mut journal).await;
    // Each a row and, once folded, a distinct value.
    journal.seal(&[("c", "m", 1, 5), ("c", "m", 2, 6), ("c", "m", 3, 7)]);
    ask(&ledger, journal.admit(1)).await;
    let snapshot = ledger.snapshot().unwrap();
    let customer = CustomerId::parse("c").unwrap();
    let question =
        UsageQuestion { customer: &customer, meter: None, from: Bucket(0), to: Bucket(9) };
    for (rows_max, expected) in [(3, Ok(())), (2, Err(ReadError::TooManyRows { rows_max: 2 }))] {
        let mut shown = 0;
        let read = snapshot.visit_usage(&question, rows_max, |_| {
            shown += 1;
            Ok::<_, ReadError>(())
        });
        assert_eq!((read, shown), (expected, rows_max));
    }
}

/// A reader comes at both edges of every commit.
#[derive(Debug)]
struct Watched {
    store: RedbStore,
    ledger: Arc<OnceLock<Ledger>>,
    looks: Arc<AtomicUsize>,
}

impl Watched {
    /// Every stream is there once, and all of them come to the same, wherever a stream is on its way.
    fn look(&self) {
        let Some(ledger) = self.ledger.get() else { return };
        let snapshot = ledger.snapshot().unwrap();
        let live = snapshot.streams().iter().map(|status| (status.stream, status.posted_events));
        let mut all: Vec<_> = live.collect();
        let count = all.len();
        let _all = snapshot
            .visit_retired(Timestamp(0), |retired| {
                all.push((retired.record.stream, retired.record.posted_end.0));
                ControlFlow::Continue(())
            })
            .unwrap();
        all.sort_unstable();
        let expected: Vec<_> = (1..=3).map(|id| (StreamId([id; 16]), u64::from(id))).collect();
        assert_eq!(all, expected);
        assert_eq!(snapshot.retired().streams, u64::try_from(all.len() - count).unwrap());
        for (stream, _) in all {
            let retired = snapshot.retired_stream(stream).unwrap();
            let is_live = snapshot.streams().iter().any(|status| status.stream == stream);
            assert_ne!(retired.is_some(), is_live);
        }
        let sums = ledger.figures().unwrap();
        assert_eq!((sums.streams, sums.events_by_headers, sums.events_accepted), (3, 6, 6));
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

impl LedgerStore for Watched {
    async fn commit(
        &self,
        group: Vec<Request>,
        at: Timestamp,
        limit: Option<Timestamp>,
    ) -> Result<Committed, StoreError> {
        self.look();
        let committed = self.store.commit(group, at, limit).await;
        self.look();
        committed
    }

    async fn fold(&self, slice: Arc<FoldSlice>) -> Result<(), StoreError> {
        self.store.fold(slice).await
    }

    fn totals(&self) -> Result<Box<dyn Totals>, StoreError> {
        self.store.totals()
    }

    fn books(&self) -> Result<Box<dyn Books>, StoreError> {
        self.store.books()
    }

    fn retired(&self) -> Result<Box<dyn Retired>, StoreError> {
        self.store.retired()
    }

    fn visit_suppressed(
        &self,
        position: u64,
        visit: VisitSuppressed<'_>,
    ) -> Result<(), StoreError> {
        self.store.visit_suppressed(position, visit)
    }

    fn visit_stored(&self, visit: VisitStored<'_>) -> Result<(), StoreError> {
        self.store.visit_stored(visit)
    }

    fn visit_batches(&self, which: WhichBatches, visit: VisitBatch<'_>) -> Result<(), StoreError> {
        self.store.visit_batches(which, visit)
    }

    async fn batch(
        &self,
        stream: StreamId,
        sequence: Sequence,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.batch(stream, sequence).await
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.store.checkpoint().await
    }
}

#[tokio::test]
async fn a_reader_sees_a_stream_once_while_it_retires_and_returns() {
    let (store, recovered) = memory();
    let (seen, looks) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let watched = Watched { store, ledger: Arc::clone(&seen), looks: Arc::clone(&looks) };
    let mut journals: Vec<_> = (1..=3).map(|id| Journal::new(id, recovered.ledger)).collect();
    let options = LedgerOptions { retire_after_millis: 0, ..options() };
    let (ledger, mut writer, folder) =
        Ledger::prepare(watched, recovered, options, still()).await.unwrap();
    // By hand: nothing retires by itself.
    let mut ask = async |request: Request| {
        let reply = ledger.submit(request).await.unwrap();
        writer.turn().await.unwrap();
        reply.await.unwrap()
    };
    for (events, journal) in (1..).zip(&mut journals) {
        let Reply::Welcomed(welcomed) = ask(journal.hello_request(0, "agent")).await else {
            panic!()
        };
        journal.fence = welcomed.fence;
        let uses: Vec<_> = (0..events).map(|bucket| ("c", "m", bucket, 5)).collect();
        journal.seal(&uses);
        ask(journal.admit(1)).await;
        assert_eq!(ask(journal.close()).await, Reply::Claimed(ClaimVerdict::Take));
    }
    folder.turn().await.unwrap();
    seen.set(ledger.clone()).unwrap();
    let returned = |reply| matches!(reply, Reply::Welcomed(_));
    let retire = || ledger.due_to_retire().unwrap();
    assert_eq!(ask(retire()).await, Reply::Retired(3));
    assert!(ledger.due_to_retire().is_none());
    assert!(returned(ask(journals[1].hello_request(1, "agent")).await));
    assert!(ledger.due_to_retire().is_none(), "it is open");
    // A hello that is refused brings its stream back too, as it was: it is due again.
    let stranger = ask(journals[2].hello_request(1, "stranger")).await;
    assert!(matches!(stranger, Reply::HelloRefused { .. }), "{stranger:?}");
    assert_eq!(ask(retire()).await, Reply::Retired(1));
    // A batch for a stream that is closed, as it would be told while it was live.
    let judged = ask(journals[0].admit(1)).await;
    assert!(matches!(judged, Reply::Judged { verdict: Verdict::NotOpen, .. }), "{judged:?}");
    assert_eq!(ask(retire()).await, Reply::Retired(1));
    let snapshot = ledger.snapshot().unwrap();
    assert_eq!((snapshot.streams().len(), snapshot.retired().streams), (1, 2));
    let agent = |name: &str| AgentName::parse(name).unwrap();
    assert!(snapshot.has_agent(&agent("agent")).unwrap());
    assert!(!snapshot.has_agent(&agent("stranger")).unwrap());
    assert!(looks.load(Ordering::Relaxed) >= 12, "{looks:?}");
}

#[tokio::test]
async fn the_running_ledger_retires_what_is_due() {
    let (store, recovered) = memory();
    let mut journal = Journal::new(1, recovered.ledger);
    let options = LedgerOptions { retire_after_millis: 0, ..options() };
    let ledger = Ledger::start(store, recovered, options, still()).await.unwrap();
    open_stream(&ledger, &mut journal).await;
    ask(&ledger, journal.close()).await;
    while ledger.snapshot().unwrap().retired().streams == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ledger.snapshot().unwrap().streams().len(), 0);
    ledger.shutdown().await.unwrap();
}
