//! Bodies leave, and what needs them still has them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidemark_common::batch::HEADER_BYTES;

use super::*;
use crate::archive::bodies::ArchivedBodies;
use crate::archive::store::FolderStore;
use crate::archive::writer::tests::{Archived, OPTIONS, run};
use crate::archive::writer::{ArchiveWriter, WriterOptions};
use crate::backup;
use crate::fsck;
use crate::ledger::redb::{RedbOptions, RedbStore};
use crate::ledger::store::{LedgerStore, ShownBatch, StoredBodies, WhichBatches};
use crate::ledger::{Ledger, LedgerOptions};
use crate::restore::{self, RestoreError, Used};

fn store(archived: &Archived) -> Arc<dyn ArchiveStore> {
    Arc::new(FolderStore::new(&archived.archive()))
}

fn bodies(archived: &Archived) -> Option<Arc<dyn StoredBodies>> {
    Some(Arc::new(ArchivedBodies::new(store(archived))))
}

/// A turn of a writer whose bodies leave once their month is locked.
async fn turn(archived: &Archived) {
    let options = WriterOptions { bodies_leave_after: Some(Duration::from_secs(1)), ..OPTIONS };
    let (ledger, redb) = (archived.ledger.clone(), archived.store.clone());
    let mut writer = ArchiveWriter::begin(ledger, redb, store(archived), options).await;
    writer.turn().await.unwrap();
}

/// Which batches are whole in the ledger.
fn whole(store: &RedbStore, batches: u64) -> String {
    let shown = |position| match store.batch_at(position).unwrap() {
        Some(bytes) if bytes.len() > HEADER_BYTES => 'w',
        Some(_) => 'h',
        None => '-',
    };
    (0..batches).map(shown).collect()
}

async fn reopen(archived: &mut Archived, bodies: Option<Arc<dyn StoredBodies>>) {
    archived.close().await;
    let redb = RedbOptions { bodies, ..RedbOptions::default() };
    let options = LedgerOptions { redb, ..LedgerOptions::default() };
    let data_dir = archived.folder.path().join("ledger");
    (archived.ledger, archived.store) = Ledger::open_embedded(&data_dir, options).await.unwrap();
}

fn events(ledger: &Ledger) -> u64 {
    let figures = ledger.figures().unwrap();
    assert_eq!(figures.events_by_headers, figures.events_by_lines);
    figures.events_by_headers
}

#[test]
fn a_month_that_is_locked_leaves_and_nothing_else() {
    run(async {
        let mut archived = Archived::new().await;
        // Two of January 1970, and one of its last hours, which in the east are February's.
        for bucket in [0, 96, 31 * 96 - 4] {
            archived.post_in(bucket).await;
        }
        let held = bodies(&archived);
        reopen(&mut archived, held).await;
        turn(&archived).await;
        assert_eq!(whole(&archived.store, 3), "www", "no month is locked");
        archived.lock("1970-01").await.unwrap();
        // An orderly end folds, and writes a checkpoint.
        let held = bodies(&archived);
        reopen(&mut archived, held).await;
        turn(&archived).await;
        assert_eq!(whole(&archived.store, 3), "hhw");
        assert_eq!(events(&archived.ledger), 3);
        archived.lock("1970-02").await.unwrap();
        turn(&archived).await;
        assert_eq!(whole(&archived.store, 3), "hhh");
    });
}

/// A ledger without bodies.
async fn left() -> Archived {
    let mut archived = Archived::new().await;
    for _ in 0..3 {
        archived.post().await;
    }
    archived.lock("1970-01").await.unwrap();
    turn(&archived).await;
    let held = bodies(&archived);
    reopen(&mut archived, held).await;
    turn(&archived).await;
    assert_eq!(whole(&archived.store, 3), "hhh");
    archived
}

#[test]
fn what_needs_a_body_reads_it_in_the_archive_or_says_where_it_is() {
    run(async {
        let mut archived = left().await;
        let sealed = archived.journal.sealed[1].clone();
        let (stream, sequence) = (sealed.header.stream, sealed.header.sequence);
        let found = archived.store.batch(stream, sequence).await.unwrap();
        assert_eq!(found, Some(sealed.bytes));
        let mut seen = 0;
        let mut visit = |batch: &ShownBatch<'_>| {
            seen += batch.lines.events();
            std::ops::ControlFlow::Continue(())
        };
        archived.ledger.visit_batches(WhichBatches::ALL, &mut visit).unwrap();
        assert_eq!(seen, 3);
        // Totals that are lost are made of the archive.
        let data_dir = archived.folder.path().join("ledger");
        archived.close().await;
        std::fs::remove_file(data_dir.join("totals.redb")).unwrap();
        let refused = Ledger::open(&data_dir, LedgerOptions::default()).await.unwrap_err();
        assert!(refused.to_string().contains("has left the ledger for the archive"), "{refused}");
        let held = bodies(&archived);
        reopen(&mut archived, held).await;
        assert_eq!(events(&archived.ledger), 3);
    });
}

#[test]
fn fsck_and_restore_take_them_from_the_archive() {
    run(async {
        let mut archived = left().await;
        let data_dir = archived.folder.path().join("ledger");
        archived.close().await;
        let report = fsck::run(&data_dir, None, bodies(&archived), &mut |_| ()).unwrap();
        assert!(report.is_sound() && report.with_totals, "{}", report.told());
        let report = fsck::run(&data_dir, None, None, &mut |_| ()).unwrap();
        assert!(report.is_sound() && !report.with_totals, "{}", report.told());
        assert!(report.told().contains("3 batches have left"), "{}", report.told());

        let at = |name: &str| archived.folder.path().join(name);
        backup::make(&data_dir, &at("backup"), &mut |_| ()).unwrap();
        restore::check(&at("backup"), &mut |_| ()).unwrap();
        let used = Used { trust_clock: true, ..Used::default() };
        let now = Timestamp(1_780_315_200_000);
        let made =
            |bodies, to: &Path| restore::restore(&at("backup"), bodies, to, used, now, &mut |_| ());
        let error = made(None, &at("without")).unwrap_err();
        assert!(matches!(error, RestoreError::Left { batches: 3 }), "{error}");
        made(bodies(&archived), &at("with")).unwrap();
        let (ledger, redb) = crate::archive::writer::tests::open(&at("with")).await;
        assert_eq!((events(&ledger), whole(&redb, 3)), (3, "www".to_owned()));
    });
}

#[test]
fn what_the_archive_does_not_hold_stays() {
    run(async {
        let mut archived = Archived::new().await;
        archived.post().await;
        archived.lock("1970-01").await.unwrap();
        archived.writer().await.turn().await.unwrap();
        reopen(&mut archived, None).await;
        let object = std::fs::read_dir(archived.archive().join("batches")).unwrap().next();
        let object = object.unwrap().unwrap().path();
        let mut bytes = std::fs::read(&object).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&object, bytes).unwrap();
        let options = WriterOptions { bodies_leave_after: Some(Duration::from_secs(1)), ..OPTIONS };
        let (ledger, redb) = (archived.ledger.clone(), archived.store.clone());
        let mut writer = ArchiveWriter::begin(ledger, redb, store(&archived), options).await;
        let told = writer.turn().await.unwrap_err().to_string();
        assert!(told.contains("its SHA-256 is not the one of its manifest"), "{told}");
        assert_eq!(whole(&archived.store, 1), "w");
    });
}
