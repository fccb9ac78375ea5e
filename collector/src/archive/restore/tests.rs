//! Ledgers that are lost, or older than their archive.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::archive::store::FolderStore;
use crate::archive::writer::ArchiveWriter;
use crate::archive::writer::tests::{
    Archived, OPTIONS, ask, greet, lock, open as open_ledger, run,
};
use crate::ledger::Ledger;
use crate::ledger::archived::ArchiveState;
use crate::ledger::conformance::Journal;
use crate::ledger::redb::RedbStore;
use crate::ledger::store::LedgerStore;

const NOW: Timestamp = Timestamp(1_780_315_200_000);

fn restored(
    archived: &Archived,
    base: Option<&Path>,
    to: &str,
) -> Result<(PathBuf, Report), RestoreError> {
    let to = archived.folder.path().join(to);
    let archive = Archive::in_folder(&archived.archive())?;
    // The clocks of these ledgers are real.
    let used = Used { trust_clock: true, ..Used::default() };
    let report = restore(&archive, base, &to, used, NOW, &mut |_| ())?;
    Ok((to, report))
}

/// All rows of the books.
fn books(store: &RedbStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut take = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.books().unwrap().visit(&[], &[], &mut take).unwrap();
    rows
}

fn events(ledger: &Ledger) -> u64 {
    let figures = ledger.figures().unwrap();
    assert_eq!(
        figures.events_by_headers, figures.events_by_lines,
        "totals are what batches come to"
    );
    figures.events_by_headers
}

fn copy(archived: &Archived, to: &str) -> PathBuf {
    let (from, to) = (archived.folder.path().join("ledger"), archived.folder.path().join(to));
    std::fs::create_dir(&to).unwrap();
    for file in ["ledger.redb", "totals.redb"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    to
}

async fn writer(archived: &Archived, ledger: &Ledger, store: &RedbStore) -> ArchiveWriter {
    let place = Arc::new(FolderStore::new(&archived.archive()));
    ArchiveWriter::begin(ledger.clone(), store.clone(), place, OPTIONS).await
}

#[test]
fn a_lost_ledger_comes_back_and_its_archive_goes_on() {
    run(async {
        let mut archived = Archived::new().await;
        archived.lock("2020-01").await.unwrap();
        archived.post().await;
        let mut writing = archived.writer().await;
        writing.turn().await.unwrap();
        archived.post().await;
        archived.lock("2020-02").await.unwrap();
        writing.turn().await.unwrap();
        // What is not archived comes from the agent again.
        archived.post().await;
        let held = books(&archived.store);
        let (to, report) = restored(&archived, None, "again").unwrap();
        assert_eq!((report.batches, report.entries), (2, 2));
        let told = report.told(&to);
        assert!(told.contains("2 batches and 2 entries"), "{told}");

        let (ledger, store) = open_ledger(&to).await;
        assert_eq!((ledger.ledger(), books(&store)), (archived.ledger.ledger(), held));
        assert_eq!(ledger.unique_key(), archived.ledger.unique_key());
        assert_eq!(events(&ledger), 2);
        let mut again = writer(&archived, &ledger, &store).await;
        assert_eq!(ledger.archive_state(), ArchiveState::Current { entries: 2, trouble: None });
        let mut journal = archived.journal.clone();
        greet(&ledger, &mut journal, 3).await;
        assert!(journal.fence.0 >> 32 > archived.journal.fence.0 >> 32);
        ask(&ledger, journal.admit(3)).await;
        assert_eq!(events(&ledger), 3);
        assert_eq!(lock(&ledger, "2020-03").await, Ok(3));
        again.turn().await.unwrap();

        // And once more, of what both have written.
        let held = books(&store);
        let (to, report) = restored(&archived, None, "third").unwrap();
        assert_eq!((report.batches, report.entries), (3, 3));
        let (ledger, store) = open_ledger(&to).await;
        assert_eq!((events(&ledger), books(&store)), (3, held));
        // The one that is left behind finds out.
        assert!(writing.turn().await.is_err());
        assert!(matches!(archived.ledger.archive_state(), ArchiveState::Behind { .. }));
        assert!(archived.lock("2020-04").await.is_err());
    });
}

#[test]
fn an_older_ledger_is_brought_up_to_its_archive() {
    run(async {
        let mut archived = Archived::new().await;
        archived.post().await;
        let mut writing = archived.writer().await;
        writing.turn().await.unwrap();
        archived.lock("2020-01").await.unwrap();
        archived.ledger.shutdown().await.unwrap();
        drop(writing);
        let older = copy(&archived, "older");
        archived.reopen().await;
        let mut writing = archived.writer().await;
        let mut journal = archived.journal.clone();
        greet(&archived.ledger, &mut journal, 1).await;
        archived.journal = journal;
        archived.post().await;
        archived.lock("2020-02").await.unwrap();
        writing.turn().await.unwrap();
        let held = books(&archived.store);

        let (to, report) = restored(&archived, Some(&older), "again").unwrap();
        assert_eq!((report.batches, report.found_batches, report.entries), (2, 1, 2));
        let (ledger, store) = open_ledger(&to).await;
        assert_eq!((events(&ledger), books(&store)), (2, held));
        let mut again = writer(&archived, &ledger, &store).await;
        again.turn().await.unwrap();
        assert_eq!(ledger.archive_state(), ArchiveState::Current { entries: 2, trouble: None });
        assert_eq!(lock(&ledger, "2020-03").await, Ok(3));
        again.turn().await.unwrap();
        assert_eq!(ledger.archive_state(), ArchiveState::Current { entries: 3, trouble: None });
    });
}

#[test]
fn one_that_went_on_differently_is_merged_by_streams() {
    run(async {
        let mut archived = Archived::new().await;
        let mut writing = archived.writer().await;
        archived.post().await;
        writing.turn().await.unwrap();
        archived.ledger.shutdown().await.unwrap();
        drop(writing);
        let older = copy(&archived, "older");
        archived.reopen().await;
        let mut writing = archived.writer().await;
        let mut journal = archived.journal.clone();
        greet(&archived.ledger, &mut journal, 1).await;
        archived.journal = journal;
        archived.post().await;
        writing.turn().await.unwrap();

        // The older one went on: another stream stands where the archive has this one.
        let (ledger, store) = open_ledger(&older).await;
        let mut other = Journal::new(2, ledger.ledger());
        other.seal(&[("d", "m", 3, 5)]);
        greet(&ledger, &mut other, 0).await;
        ask(&ledger, other.admit(1)).await;
        ledger.shutdown().await.unwrap();
        drop((ledger, store));

        let (to, report) = restored(&archived, Some(&older), "again").unwrap();
        assert_eq!((report.batches, report.found_batches), (3, 1));
        let (ledger, store) = open_ledger(&to).await;
        assert_eq!(events(&ledger), 3);
        // What stands elsewhere is archived again, so that the archive alone is enough.
        writer(&archived, &ledger, &store).await.turn().await.unwrap();
        let (to, report) = restored(&archived, None, "third").unwrap();
        assert_eq!(report.batches, 3);
        let (ledger, _) = open_ledger(&to).await;
        assert_eq!(events(&ledger), 3);
    });
}

#[test]
fn a_ledger_that_booked_something_else_is_refused() {
    run(async {
        let mut archived = Archived::new().await;
        let mut writing = archived.writer().await;
        writing.turn().await.unwrap();
        archived.ledger.shutdown().await.unwrap();
        drop(writing);
        let older = copy(&archived, "older");
        archived.reopen().await;
        let mut writing = archived.writer().await;
        archived.lock("2020-01").await.unwrap();
        writing.turn().await.unwrap();
        // Nobody compared it with the archive.
        let (ledger, store) = open_ledger(&older).await;
        ledger.tell_archive(ArchiveState::Off);
        lock(&ledger, "2020-07").await.unwrap();
        ledger.shutdown().await.unwrap();
        drop((ledger, store));
        let told = restored(&archived, Some(&older), "again").unwrap_err().to_string();
        assert!(told.contains("transaction 1 of the books is another one"), "{told}");
        assert!(!archived.folder.path().join("again/ledger.redb").exists());
    });
}

#[test]
fn half_an_archive_restores_nothing() {
    run(async {
        let mut archived = Archived::new().await;
        archived.post().await;
        archived.writer().await.turn().await.unwrap();
        let object = std::fs::read_dir(archived.archive().join("batches")).unwrap().next();
        std::fs::remove_file(object.unwrap().unwrap().path()).unwrap();
        let told = restored(&archived, None, "again").unwrap_err().to_string();
        assert!(told.contains("batches/000000000002") && told.contains("is missing"), "{told}");
        std::fs::remove_dir_all(archived.archive()).unwrap();
        let told = restored(&archived, None, "again").unwrap_err().to_string();
        assert!(told.contains("there is no archive"), "{told}");
    });
}
