//! The embedded store: conformance, crashes, rebuilds.

mod damage;
mod ids;
mod import;
mod retired;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use tidemark_common::batch::{Line, LineKey};
use tidemark_common::id::{CustomerId, LedgerId};
use tidemark_common::time::{Bucket, Timestamp};

use super::*;
use crate::ledger::conformance::{self, Journal, NOW, commit, damaged, greet, words};
use crate::ledger::request::Reply;
use crate::ledger::store::UsageQuestion;
use crate::ledger::tail::TailBatch;

fn options() -> RedbOptions {
    RedbOptions {
        ledger_cache_bytes: 1 << 20,
        totals_cache_bytes: 1 << 20,
        ..RedbOptions::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

#[test]
fn conforms() {
    runtime().block_on(conformance::all(|| async {
        RedbStore::open_on(InMemoryBackend::new(), InMemoryBackend::new(), &options(), NOW).unwrap()
    }));
}

/// A disk in memory: what was written and not synced is gone after a crash.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    written: Vec<u8>,
    synced: Vec<u8>,
    syncs: u64,
    /// Offsets and bytes written since the last sync, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    /// What is on the disk after a crash, when the first `kept` unsynced writes had reached it.
    fn crash(&self, kept: usize) -> Self {
        let state = self.0.lock().unwrap();
        let mut bytes = state.synced.clone();
        for (offset, data) in state.unsynced.iter().take(kept) {
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[*offset..offset + data.len()].copy_from_slice(data);
        }
        let unsynced = Vec::new();
        Self(Arc::new(Mutex::new(DiskState {
            written: bytes.clone(),
            synced: bytes,
            syncs: 0,
            unsynced,
        })))
    }

    fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let bytes = state.written.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().written.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.synced = state.written.clone();
        state.unsynced.clear();
        state.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        state.written[offset..offset + data.len()].copy_from_slice(data);
        state.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}

fn open(ledger: &Disk, totals: &Disk) -> (RedbStore, Recovered) {
    RedbStore::open_on(ledger.clone(), totals.clone(), &options(), NOW).unwrap()
}

/// A customer's events in the totals and the tail that was recovered.
fn events(store: &RedbStore, tail: &[Arc<TailBatch>], customer: &str) -> u64 {
    let customer = CustomerId::parse(customer).unwrap();
    let question =
        UsageQuestion { customer: &customer, meter: None, from: Bucket(0), to: Bucket(u32::MAX) };
    let rows = store.totals().unwrap().usage(&question).unwrap();
    let folded: u64 = rows.iter().map(|row| row.usage.events).sum();
    let lines = tail.iter().flat_map(|batch| batch.lines.of(&customer));
    folded + lines.map(|classed| classed.line.value.events).sum::<u64>()
}

/// Steps of a life with crashes; afterwards every acknowledged batch is there, once.
#[derive(Debug, Clone)]
enum Step {
    /// The next `n` batches in one group.
    Admit(usize),
    /// The last `n` posted batches again, and the next one.
    Resend(usize),
    Fold,
    Checkpoint,
    /// Power fails while so many unsynced writes had reached each disk.
    Crash(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_usize..5).prop_map(Step::Admit),
        2 => (1_usize..5).prop_map(Step::Resend),
        2 => Just(Step::Fold),
        1 => Just(Step::Checkpoint),
        2 => (0_usize..40, 0_usize..40).prop_map(|(ledger, totals)| Step::Crash(ledger, totals)),
    ];
    proptest::collection::vec(step, 1..24)
}

async fn live(steps: &[Step]) {
    let (mut ledger, mut totals) = (Disk::default(), Disk::default());
    let (mut store, recovered) = open(&ledger, &totals);
    let mut journal = Journal::new(1, recovered.ledger);
    for _ in 0..80 {
        journal.seal(&[("c", "m", 1, 5), ("c", "n", 1, 5)]);
    }
    let mut tail = recovered.tail;
    let mut posted = 0_usize;
    greet(&store, &mut journal, posted).await;
    for step in steps {
        match step {
            Step::Admit(count) => {
                let count = (*count).min(journal.sealed.len() - posted);
                let group =
                    (posted + 1..=posted + count).map(|sequence| journal.admit(sequence)).collect();
                tail.extend(commit(&store, group).await.admitted);
                posted += count;
            }
            Step::Resend(count) => {
                let last = (posted + 1).min(journal.sealed.len());
                let first = posted.saturating_sub(*count).max(1);
                let group = (first..=last).map(|sequence| journal.admit(sequence)).collect();
                tail.extend(commit(&store, group).await.admitted);
                posted = last;
            }
            Step::Fold => {
                let slice = FoldSlice::of(tail.iter().map(AsRef::as_ref));
                store.fold(Arc::new(slice)).await.unwrap();
                tail.clear();
            }
            Step::Checkpoint => store.checkpoint().await.unwrap(),
            Step::Crash(kept_ledger, kept_totals) => {
                (ledger, totals) = (ledger.crash(*kept_ledger), totals.crash(*kept_totals));
                drop(store);
                let (reopened, recovered) = open(&ledger, &totals);
                (store, tail) = (reopened, recovered.tail);
                let welcomed = greet(&store, &mut journal, posted).await;
                assert_eq!(
                    usize::try_from(welcomed.posted_sequence.0),
                    Ok(posted),
                    "all that was acknowledged is there"
                );
            }
        }
        let expected = u64::try_from(posted).unwrap() * 2;
        assert_eq!(events(&store, &tail, "c"), expected, "every batch is there once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_batches_survive_crashes_and_count_once(steps in steps()) {
        runtime().block_on(live(&steps));
    }
}

#[test]
fn a_reply_comes_after_a_sync() {
    runtime().block_on(async {
        let (ledger, totals) = (Disk::default(), Disk::default());
        let (store, recovered) = open(&ledger, &totals);
        let mut journal = Journal::new(1, recovered.ledger);
        journal.seal(&[("c", "m", 1, 5)]);
        greet(&store, &mut journal, 0).await;
        let before = ledger.syncs();
        assert_eq!(words(&commit(&store, vec![journal.admit(1)]).await), "admit@1");
        assert!(ledger.syncs() > before);
        // And the backend does forget: without its sync the ledger would be empty.
        let (store, _) = open(&ledger.crash(0), &totals.crash(0));
        assert_eq!(greet(&store, &mut journal, 1).await.posted_sequence, Sequence(1));
    });
}

#[test]
fn a_restart_keeps_everything_it_must() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (store, recovered) = RedbStore::open(folder.path(), &options(), NOW).unwrap();
        let mut journal = Journal::new(1, recovered.ledger);
        journal.seal(&[("c", "m", 1, 5)]);
        journal.seal(&[("c", "m", 2, 5)]);
        journal.seal(&[("c", "m", 3, 5)]);
        let first = greet(&store, &mut journal, 0).await;
        let unreadable = damaged(&journal.sealed[1]);
        let group = vec![
            journal.admit(1),
            conformance::admit(&unreadable, journal.fence),
            journal.confirm(NOW),
        ];
        let committed = store.commit(group, NOW, Some(Timestamp(77_000))).await.unwrap();
        assert_eq!(words(&committed), "admit@1 admit@2 take");
        let before = commit(&store, vec![journal.admit(3)]).await.streams[0].clone();
        drop(store);

        let (store, again) = RedbStore::open(folder.path(), &options(), NOW).unwrap();
        assert_eq!((again.ledger, again.unique_key), (recovered.ledger, recovered.unique_key));
        assert_eq!(again.clock_limit, Timestamp(77_000));
        assert_eq!(again.streams, [before]);
        let tail: Vec<_> =
            again.tail.iter().map(|batch| (batch.sequence.0, batch.lines.events())).collect();
        assert_eq!(tail, [(1, 1), (2, 0), (3, 1)]);
        let second = greet(&store, &mut journal, 3).await;
        assert!(second.fence.0 >> 32 > first.fence.0 >> 32, "a new incarnation");
        store.checkpoint().await.unwrap();
    });
}

/// Fills `folder` with 20 batches, half of them folded.
async fn filled(folder: &Path) -> (Journal, LedgerId) {
    let (store, recovered) = RedbStore::open(folder, &options(), NOW).unwrap();
    let mut journal = Journal::new(1, recovered.ledger);
    greet(&store, &mut journal, 0).await;
    for half in 0..2 {
        let mut group = Vec::new();
        for _ in 0..10 {
            journal.seal(&[("c", "m", half, 5), ("c", "m", half + 100, 6)]);
            group.push(journal.admit(journal.sealed.len()));
        }
        let committed = commit(&store, group).await;
        if half == 0 {
            store
                .fold(Arc::new(FoldSlice::of(committed.admitted.iter().map(AsRef::as_ref))))
                .await
                .unwrap();
        }
    }
    (journal, recovered.ledger)
}

#[test]
fn totals_are_rebuilt_when_deleted_damaged_or_of_another_ledger() {
    runtime().block_on(async {
        let other = tempfile::tempdir().unwrap();
        filled(other.path()).await;
        for case in ["kept", "deleted", "damaged", "other"] {
            let folder = tempfile::tempdir().unwrap();
            let (mut journal, _) = filled(folder.path()).await;
            let totals = folder.path().join(TOTALS_FILE);
            match case {
                "kept" => {}
                "deleted" => std::fs::remove_file(&totals).unwrap(),
                "damaged" => {
                    std::fs::write(&totals, b"this is no database, and long enough to be read")
                        .unwrap()
                }
                "other" => drop(std::fs::copy(other.path().join(TOTALS_FILE), &totals).unwrap()),
                case => panic!("{case}"),
            }
            // A small limit of either kind: the rebuild folds on the way.
            let options = match case {
                "deleted" => RedbOptions { rebuild_bytes_max: 1_000, ..options() },
                _ => RedbOptions { rebuild_lines_max: 7, ..options() },
            };
            let (store, recovered) = RedbStore::open(folder.path(), &options, NOW).unwrap();
            assert_eq!(events(&store, &recovered.tail, "c"), 40, "{case}");
            assert!(recovered.tail.len() < 7, "{case}: {}", recovered.tail.len());
            let welcomed = greet(&store, &mut journal, 20).await;
            assert_eq!(welcomed.posted_sequence, Sequence(20), "{case}");
            assert_eq!(
                store.batch(journal.stream, Sequence(3)).await.unwrap(),
                Some(journal.sealed[2].bytes.clone())
            );
        }
    });
}

#[test]
fn what_was_unauthorised_stays_so_when_totals_are_rebuilt() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let format = |folder: &Path| {
            let database = Database::open(folder.join(LEDGER_FILE)).unwrap();
            let read = database.begin_read().unwrap();
            let meta = read.open_table(META).unwrap();
            meta.get(&b"format"[..]).unwrap().unwrap().value().to_vec()
        };
        let (store, recovered) = RedbStore::open(folder.path(), &options(), NOW).unwrap();
        let mut journal = Journal::new(1, recovered.ledger);
        journal.seal(&[("c", "m", 1, 5)]);
        journal.seal(&[("c", "m", 1, 6), ("d", "m", 1, 7)]);
        greet(&store, &mut journal, 0).await;
        commit(&store, vec![journal.admit(1)]).await;
        drop(store);
        assert_eq!(format(folder.path()), [0, 1], "older collectors may read it");
        let expected = ["c m normal 5", "c m unauthorised 6", "d m normal 7"];
        for case in ["from the ledger", "from nothing"] {
            let (store, recovered) = RedbStore::open(folder.path(), &options(), NOW).unwrap();
            let mut tail = recovered.tail;
            if case == "from the ledger" {
                greet(&store, &mut journal, 1).await;
                tail.extend(
                    commit(&store, vec![conformance::only_for_d(&journal, 2)]).await.admitted,
                );
            }
            store.fold(Arc::new(FoldSlice::of(tail.iter().map(AsRef::as_ref)))).await.unwrap();
            assert_eq!(conformance::classes_of(&store), expected, "{case}");
            drop(store);
            assert_eq!(format(folder.path()), [0, 2], "an older collector would bill it");
            std::fs::remove_file(folder.path().join(TOTALS_FILE)).unwrap();
        }
    });
}

#[test]
fn an_identity_begins_only_so_many_new_streams_an_hour() {
    runtime().block_on(async {
        let options = RedbOptions { streams_per_hour_max: 2, ..options() };
        let memory = InMemoryBackend::new;
        let (store, recovered) = RedbStore::open_on(memory(), memory(), &options, NOW).unwrap();
        let hello =
            |stream, agent: &str| Journal::new(stream, recovered.ledger).hello_request(0, agent);
        // In one group as in several; who is refused takes nothing from another.
        let group = vec![hello(1, "a"), hello(2, "a"), hello(3, "a"), hello(4, "b")];
        let refused = "TooManyNewStreams";
        assert_eq!(
            words(&commit(&store, group).await),
            format!("welcome welcome {refused} welcome")
        );
        assert_eq!(words(&commit(&store, vec![hello(3, "a")]).await), refused);
        // Streams that are known are welcome at any time.
        assert_eq!(
            words(&commit(&store, vec![hello(1, "a"), hello(2, "a")]).await),
            "welcome welcome"
        );
        // Half an hour on, whatever ledger time does: it may stand still.
        let later = |stream| {
            let journal = Journal::new(stream, recovered.ledger);
            journal.hello_at(Duration::from_secs(1_800), 0, "a")
        };
        let committed = commit(&store, vec![later(3), later(5)]).await;
        assert_eq!(words(&committed), format!("welcome {refused}"));
    });
}

#[test]
fn a_row_that_is_full_is_left_out_and_the_ledger_goes_on() {
    runtime().block_on(async {
        let (store, recovered) = open(&Disk::default(), &Disk::default());
        let mut journal = Journal::new(1, recovered.ledger);
        journal.seal(&[("c", "m", 1, 5)]);
        journal.seal(&[("c", "m", 1, 5), ("c", "n", 1, 5)]);
        greet(&store, &mut journal, 0).await;
        let admitted = commit(&store, vec![journal.admit(1), journal.admit(2)]).await.admitted;
        let key = admitted[0].lines.iter().next().unwrap().line.key.clone();
        let parts = u16::MAX;
        let lines = (0..parts)
            .map(|part| LineKey { part, ..key.clone() })
            .map(|key| Line { key, value: conformance::huge() });
        let full = conformance::with_lines(&admitted[0], lines.collect());
        for batch in [&full, &admitted[1]] {
            store.fold(Arc::new(FoldSlice::of([&**batch]))).await.unwrap();
        }
        // Of the first batch there are as many as there are parts, of the second what has other rows.
        let expected = u64::from(totals::PARTS_MAX) + 1;
        assert_eq!(events(&store, &[], "c"), expected);
        assert_eq!(store.totals().unwrap().events().unwrap(), expected, "the rest is missing");
    });
}

#[test]
fn totals_ahead_of_a_restored_ledger_are_rebuilt() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path()).await;
        let backup = folder.path().join("backup");
        std::fs::copy(folder.path().join(LEDGER_FILE), &backup).unwrap();
        let (store, recovered) = RedbStore::open(folder.path(), &options(), NOW).unwrap();
        let mut journal = Journal::new(1, recovered.ledger);
        for half in 0..2 {
            for _ in 0..10 {
                journal.seal(&[("c", "m", half, 5), ("c", "m", half + 100, 6)]);
            }
        }
        journal.seal(&[("c", "m", 7, 7)]);
        greet(&store, &mut journal, 20).await;
        let mut tail = recovered.tail;
        tail.extend(commit(&store, vec![journal.admit(21)]).await.admitted);
        store.fold(Arc::new(FoldSlice::of(tail.iter().map(AsRef::as_ref)))).await.unwrap();
        assert_eq!(events(&store, &[], "c"), 41);
        drop(store);

        std::fs::copy(&backup, folder.path().join(LEDGER_FILE)).unwrap();
        let (store, recovered) = RedbStore::open(folder.path(), &options(), NOW).unwrap();
        assert_eq!(events(&store, &recovered.tail, "c"), 40);
        // The agent knows of 21; the ledger asks for it again, and heals.
        assert_eq!(greet(&store, &mut journal, 21).await.posted_sequence, Sequence(20));
        let mut tail: BTreeMap<_, _> =
            recovered.tail.into_iter().map(|batch| (batch.sequence, batch)).collect();
        let committed = commit(&store, vec![journal.admit(21)]).await;
        assert!(matches!(committed.replies[..], [Reply::Judged { .. }]));
        tail.extend(committed.admitted.into_iter().map(|batch| (batch.sequence, batch)));
        assert_eq!(events(&store, &tail.into_values().collect::<Vec<_>>(), "c"), 41);
    });
}
