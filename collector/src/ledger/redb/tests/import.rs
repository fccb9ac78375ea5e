//! Power fails while a ledger is restored.

use super::*;
use crate::ledger::check::{Bodies, Checker, LedgerTable};

type Rows = Vec<(LedgerTable, Vec<u8>, Vec<u8>)>;

/// The rows of a ledger with 20 batches.
fn rows() -> Rows {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(filled(folder.path()));
    let mut rows = Rows::new();
    export_stopped::<StoreError>(folder.path(), 1 << 20, &mut |table, key, value| {
        rows.push((table, key.to_vec(), value.to_vec()));
        Ok(())
    })
    .unwrap();
    rows
}

/// Imports `rows`, `after` each of them, and leaves what is still to be finished.
fn import(rows: &Rows, ledger: &Disk, totals: &Disk, mut after: impl FnMut()) -> Import {
    let small = RedbOptions { rebuild_lines_max: 7, ..options() };
    let mut import = Import::begin_on(ledger.clone(), totals.clone(), &small).unwrap();
    import = import.writing_at(3_000);
    let mut checker = Checker::new(Bodies::Open);
    for (table, key, value) in rows {
        let batch = checker.row(*table, key, value);
        import.row(*table, key, value).unwrap();
        if let Some(batch) = batch {
            import.fold(batch).unwrap();
        }
        after();
    }
    import
}

#[test]
fn a_restored_ledger_is_durable_once_it_is_finished() {
    let (ledger, totals) = (Disk::default(), Disk::default());
    let import = import(&rows(), &ledger, &totals, || ());
    import.finish(Restored { incarnation: 70, at: Timestamp(9_000) }).unwrap();
    let (store, recovered) = open(&ledger.crash(0), &totals.crash(0));
    assert_eq!(events(&store, &recovered.tail, "c"), 40);
    assert!(recovered.tail.is_empty(), "all is in the totals");
    assert_eq!(recovered.restored_at, Some(Timestamp(9_000)));
    let mut journal = Journal::new(1, recovered.ledger);
    for half in 0..2 {
        for _ in 0..10 {
            journal.seal(&[("c", "m", half, 5), ("c", "m", half + 100, 6)]);
        }
    }
    let welcomed = runtime().block_on(greet(&store, &mut journal, 20));
    assert_eq!((welcomed.posted_sequence, welcomed.fence.0 >> 32), (Sequence(20), 71));
}

#[test]
fn half_a_restored_ledger_is_none() {
    let (ledger, totals) = (Disk::default(), Disk::default());
    let mut refused = 0;
    let check = || {
        for kept in [0, 1, 2, 5, usize::MAX] {
            let (ledger, totals) = (ledger.crash(kept), totals.crash(kept));
            match RedbStore::open_on(ledger, totals, &options(), NOW) {
                Err(error) => {
                    assert_eq!(error, StoreError::HalfRestored, "{kept}");
                    refused += 1;
                }
                Ok((_, recovered)) => assert!(recovered.streams.is_empty(), "{kept}"),
            }
        }
    };
    drop(import(&rows(), &ledger, &totals, check));
    assert!(refused > 20, "{refused} crashes found a part of it");
}

/// All rows of the books.
fn books(store: &RedbStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut take = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    };
    store.books().unwrap().visit(&[], &[], &mut take).unwrap();
    rows
}

#[test]
fn books_are_carried_and_older_collectors_refuse_them() {
    use crate::ledger::books::{Change, What};
    let memory = InMemoryBackend::new;
    let now = Timestamp(1_780_315_200_000);
    let (store, _) = RedbStore::open_on(memory(), memory(), &options(), now).unwrap();
    let lock = |month: &str| {
        let what = What::Lock { through: crate::period::Month::parse(month).unwrap() };
        let reason = Some("closed".to_owned());
        let change = Change { actor: "ann".to_owned(), reason, date: None, request: None, what };
        Request::Book(Box::new(change))
    };
    let group = vec![lock("2026-03"), lock("2026-03"), lock("2026-04")];
    let committed = runtime().block_on(store.commit(group, now, None)).unwrap();
    let told: Vec<_> = committed.replies.iter().map(|reply| format!("{reply:?}")).collect();
    assert!(told[1].contains("LockedAlready"), "{told:?}");
    let mut rows = Rows::new();
    store
        .export::<StoreError>(&mut |table, key, value| {
            rows.push((table, key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    let format = rows.iter().find(|(_, key, _)| key == b"format").map(|(_, _, value)| value);
    assert_eq!(format, Some(&vec![0, 3]));
    let mut checker = Checker::new(Bodies::Open);
    for (table, key, value) in &rows {
        checker.row(*table, key, value);
    }
    let checked = checker.finish();
    assert_eq!((checked.findings.count(), checked.counts.entries), (0, 2));
    let (ledger, totals) = (Disk::default(), Disk::default());
    let import = import(&rows, &ledger, &totals, || ());
    import.finish(Restored { incarnation: 70, at: now }).unwrap();
    let (restored, _) = open(&ledger.crash(0), &totals.crash(0));
    assert_eq!(books(&restored), books(&store));
    assert_eq!(books(&store).len(), 4, "two entries, the head, the lock");
}
