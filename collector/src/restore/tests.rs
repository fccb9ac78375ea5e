//! Backups and restores on real files.

use tidemark_common::id::Sequence;

use super::*;
use crate::backup::{self, BackupError};
use crate::fsck;
use crate::ledger::clock::{LEAP_MILLIS, NEVER_BEFORE};
use crate::ledger::conformance::{self, Journal, NOW, commit, damaged, greet};
use crate::ledger::fold::FoldSlice;
use crate::ledger::redb::RedbStore;
use crate::ledger::request::{Opened, Request};
use crate::ledger::store::LedgerStore;

fn block_on<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(task)
}

fn open(folder: &Path) -> RedbStore {
    RedbStore::open(folder, &RedbOptions::default(), NOW).unwrap().0
}

/// Makes a ledger of some batches, one quarantined; gives the journal that they come from.
async fn fill(folder: &Path) -> Journal {
    let (store, recovered) = RedbStore::open(folder, &RedbOptions::default(), NOW).unwrap();
    let mut journal = Journal::new(1, recovered.ledger);
    for bucket in 0..6 {
        journal.seal(&[("c", "m", bucket, 5), ("c", "n", bucket, 7)]);
    }
    greet(&store, &mut journal, 0).await;
    let unreadable = damaged(&journal.sealed[2]);
    let unreadable = conformance::admit(&unreadable, journal.fence);
    commit(&store, vec![journal.admit(1), journal.admit(2), unreadable, journal.admit(4)]).await;
    journal
}

/// A folder with a ledger in `ledger` and its backup in `backup`.
fn backed_up() -> (tempfile::TempDir, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let journal = block_on(fill(&folder.path().join("ledger")));
    let (ledger, to) = (folder.path().join("ledger"), folder.path().join("backup"));
    let manifest = backup::make(&ledger, &to, &mut |_| ()).unwrap();
    assert_eq!((manifest.batches, manifest.events, manifest.quarantined_events), (4, 8, 2));
    (folder, journal)
}

fn restored(folder: &Path, name: &str, now: i64) -> Result<Report, RestoreError> {
    restore(
        &folder.join("backup"),
        None,
        &folder.join(name),
        Used::default(),
        Timestamp(now),
        &mut |_| (),
    )
}

#[test]
fn a_restored_ledger_goes_on_where_the_backup_was_under_fences_of_its_own() {
    let (folder, mut journal) = backed_up();
    let report = restored(folder.path(), "new", NOW.0).unwrap();
    assert!(report.unnoted.is_none());
    block_on(async {
        let lost = open(&folder.path().join("ledger"));
        let before = greet(&lost, &mut journal, 4).await;
        let (store, recovered) =
            RedbStore::open(&folder.path().join("new"), &RedbOptions::default(), Timestamp(0))
                .unwrap();
        assert_eq!(recovered.restored_at, Some(NOW.plus_millis(LIMIT_AHEAD_MILLIS)));
        assert_eq!(recovered.clock_limit, NOW.plus_millis(LIMIT_AHEAD_MILLIS));
        assert!(recovered.tail.is_empty(), "the totals are complete");
        assert_eq!(store.totals().unwrap().events().unwrap(), 6);
        let after = greet(&store, &mut journal, 4).await;
        assert_eq!(after.posted_sequence, Sequence(4));
        assert!(after.fence.0 >> 32 > (before.fence.0 >> 32) + u64::from(RESTORE_STEP) - 9);
        let group = vec![journal.admit(4), journal.admit(5), journal.admit(6)];
        let words = conformance::words(&commit(&store, group).await);
        assert_eq!(words, "duplicate@4 admit@5 admit@6");
        let third = store.batch(journal.stream, Sequence(3)).await.unwrap().unwrap();
        assert_eq!(third, damaged(&journal.sealed[2]).bytes);
    });
}

#[test]
fn what_is_unauthorised_is_so_in_the_restored_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, new) = (folder.path().join("ledger"), folder.path().join("new"));
    block_on(async {
        let (store, recovered) = RedbStore::open(&ledger, &RedbOptions::default(), NOW).unwrap();
        let mut journal = Journal::new(1, recovered.ledger);
        journal.seal(&[("c", "m", 1, 5)]);
        journal.seal(&[("c", "m", 1, 6), ("d", "m", 1, 7)]);
        greet(&store, &mut journal, 0).await;
        let group = vec![journal.admit(1), conformance::only_for_d(&journal, 2)];
        let admitted = commit(&store, group).await.admitted;
        let slice = FoldSlice::of(admitted.iter().map(AsRef::as_ref));
        store.fold(slice.into()).await.unwrap();
    });
    let is_sound = |data_dir: &Path| {
        let report = fsck::run(data_dir, None, None, &mut |_| ()).unwrap();
        assert!(report.is_sound(), "{}", report.told());
    };
    is_sound(&ledger);
    let manifest = backup::make(&ledger, &folder.path().join("backup"), &mut |_| ()).unwrap();
    assert_eq!(manifest.ledger_format, 2, "an older collector would bill what is unauthorised");
    restored(folder.path(), "new", NOW.0).unwrap();
    is_sound(&new);
    let expected = ["c m normal 5", "c m unauthorised 6", "d m normal 7"];
    assert_eq!(conformance::classes_of(&open(&new)), expected);
    // The batches say so, not only the totals.
    fs::remove_file(new.join(TOTALS_FILE)).unwrap();
    block_on(async {
        let (store, recovered) = RedbStore::open(&new, &RedbOptions::default(), NOW).unwrap();
        let slice = FoldSlice::of(recovered.tail.iter().map(AsRef::as_ref));
        store.fold(slice.into()).await.unwrap();
        assert_eq!(conformance::classes_of(&store), expected);
    });
    is_sound(&new);
    let again = backup::make(&new, &folder.path().join("again"), &mut |_| ()).unwrap();
    assert_eq!((again.ledger_format, again.batches), (2, 2));
}

#[test]
fn incarnations_rise_whatever_the_clock_shows() {
    let step = RESTORE_STEP;
    let check = |used: u32, seconds: i64, expected: Option<u32>| {
        assert_eq!(
            incarnation_above(used, Timestamp(seconds * 1_000)),
            expected,
            "{used} {seconds}"
        );
    };
    check(1_000, 5_000, Some(5_000 + step));
    check(1_000, -7, Some(1_000 + step));
    check(1_000, 4_000_000_000, Some(1_000 + step));
    check(1_000, i64::MAX / 1_000, Some(1_000 + step));
    check(u32::MAX - 1, 0, None);

    // Twice of one backup, the second time under a clock that was set back.
    let (folder, _) = backed_up();
    let first = restored(folder.path(), "first", 90_000_000).unwrap().restored;
    let second = restored(folder.path(), "second", 10_000).unwrap().restored;
    assert!(second.incarnation >= first.incarnation + step, "{second:?} after {first:?}");
    let floor = second.incarnation + 5;
    let third = restore(
        &folder.path().join("backup"),
        None,
        &folder.path().join("third"),
        Used { incarnation: floor, ledger_time: Timestamp(777_000), trust_clock: false },
        NOW,
        &mut |_| (),
    );
    let third = third.unwrap().restored;
    assert_eq!((third.incarnation, third.at), (floor + step, Timestamp(777_000)));
}

#[test]
fn ledger_time_does_not_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("ledger");
    block_on(async {
        fill(&data_dir).await;
        let store = open(&data_dir);
        store.commit(Vec::new(), NOW, Some(Timestamp(500_000))).await.unwrap();
    });
    backup::make(&data_dir, &folder.path().join("backup"), &mut |_| ()).unwrap();
    let report = restored(folder.path(), "new", 2_000).unwrap();
    assert_eq!(report.restored.at, Timestamp(500_000));
    assert_eq!(report.behind_millis, 488_000);
    assert!(report.told(&data_dir).contains("488 s behind"));
}

#[test]
fn a_clock_that_leapt_keeps_a_ledger_from_being_restored() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("ledger");
    let limit = NEVER_BEFORE.plus_millis(1_000);
    block_on(async {
        fill(&data_dir).await;
        open(&data_dir).commit(Vec::new(), NOW, Some(limit)).await.unwrap();
    });
    backup::make(&data_dir, &folder.path().join("backup"), &mut |_| ()).unwrap();
    let wrong = limit.plus_millis(LEAP_MILLIS + 1);
    let error = restored(folder.path(), "new", wrong.0).unwrap_err();
    assert!(matches!(error, RestoreError::ClockLeaps { .. }), "{error}");
    let restored = restore(
        &folder.path().join("backup"),
        None,
        &folder.path().join("new"),
        Used { trust_clock: true, ..Used::default() },
        wrong,
        &mut |_| (),
    );
    assert_eq!(restored.unwrap().restored.at, wrong.plus_millis(LIMIT_AHEAD_MILLIS));
}

#[test]
fn nothing_is_overwritten_and_half_a_restore_is_none() {
    let (folder, _) = backed_up();
    let error = restored(folder.path(), "ledger", 0).unwrap_err();
    assert!(matches!(error, RestoreError::Exists { .. }), "{error}");

    // Killed while it wrote, and between the two names.
    for killed in [&[LEDGER_FILE, TOTALS_FILE][..], &[LEDGER_FILE][..], &[][..]] {
        let new = folder.path().join("new");
        let restoring = new.join(RESTORING_FOLDER);
        fs::create_dir_all(&restoring).unwrap();
        for name in killed {
            fs::write(restoring.join(name), b"half").unwrap();
        }
        if killed.len() == 1 {
            fs::write(new.join(TOTALS_FILE), b"half").unwrap();
        }
        let error = RedbStore::open(&new, &RedbOptions::default(), NOW).unwrap_err();
        assert!(matches!(error, StoreError::HalfRestored), "{error}");
        restored(folder.path(), "new", 0).unwrap();
        assert!(!restoring.exists());
        drop(open(&new));
        fs::remove_dir_all(&new).unwrap();
    }
    // Killed after the ledger had its name: the restore is done.
    restored(folder.path(), "new", 0).unwrap();
    fs::create_dir(folder.path().join("new").join(RESTORING_FOLDER)).unwrap();
    drop(open(&folder.path().join("new")));
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let flip = |name: &'static str, place: usize| {
        move |backup: &Path| {
            let mut bytes = fs::read(backup.join(name)).unwrap();
            let place = place.min(bytes.len() - 1);
            bytes[place] ^= 1;
            fs::write(backup.join(name), bytes).unwrap();
        }
    };
    type Damage = Box<dyn Fn(&Path)>;
    let cases: [(&str, Damage); 7] = [
        ("half of one", Box::new(|backup| fs::remove_file(backup.join(MANIFEST)).unwrap())),
        ("length of ledger.rows", {
            Box::new(|backup| {
                let bytes = fs::read(backup.join(manifest::ROWS)).unwrap();
                fs::write(backup.join(manifest::ROWS), &bytes[..bytes.len() - 4]).unwrap();
            })
        }),
        // A body's byte, and one that no check but the digest can see.
        ("differs from its manifest", Box::new(flip(manifest::ROWS, 1_600))),
        ("differs from its manifest", Box::new(flip(manifest::ROWS, 40))),
        ("streams.jsonl", Box::new(flip(STREAMS, 50))),
        ("failed to read", Box::new(flip(MANIFEST, 0))),
        ("format 9 is newer", {
            Box::new(|backup| {
                let text = fs::read_to_string(backup.join(MANIFEST)).unwrap();
                let text = text.replacen("\"format\": 1", "\"format\": 9", 1);
                fs::write(backup.join(MANIFEST), text).unwrap();
            })
        }),
    ];
    for (expected, damage) in cases {
        let (folder, _) = backed_up();
        check(&folder.path().join("backup"), &mut |_| ()).unwrap();
        damage(&folder.path().join("backup"));
        let error = restored(folder.path(), "new", 0).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        let left: Vec<_> = fs::read_dir(folder.path().join("new")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(
            check(&folder.path().join("backup"), &mut |_| ()).unwrap_err().to_string(),
            error
        );
    }
}

#[test]
fn a_copy_of_the_file_is_restored_too() {
    let (folder, mut journal) = backed_up();
    let (ledger, new) = (folder.path().join("ledger"), folder.path().join("new"));
    let manifest = check(&ledger, &mut |_| ()).unwrap();
    assert_eq!((manifest.batches, manifest.events), (4, 8));
    let report = restore(&ledger, None, &new, Used::default(), NOW, &mut |_| ()).unwrap();
    assert!(report.unnoted.is_none() && ledger.join(RESTORES).exists());
    let welcomed = block_on(greet(&open(&new), &mut journal, 4));
    assert_eq!(welcomed.posted_sequence, Sequence(4));
    assert!(welcomed.fence.0 >> 32 > u64::from(RESTORE_STEP));
}

#[test]
fn backups_are_whole_or_not_there() {
    let (folder, _) = backed_up();
    let (ledger, to) = (folder.path().join("ledger"), folder.path().join("second"));
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
    };
    // One that was killed half-way is taken over.
    let draft = folder.path().join("second.partial");
    fs::create_dir(&draft).unwrap();
    fs::write(draft.join(manifest::ROWS), b"half").unwrap();
    backup::make(&ledger, &to, &mut |_| ()).unwrap();
    assert!(!draft.exists());
    assert_eq!(mode(&to), 0o700);
    for name in [MANIFEST, manifest::ROWS, STREAMS] {
        assert_eq!(mode(&to.join(name)), 0o600, "{name}");
    }
    let again = backup::make(&ledger, &to, &mut |_| ()).unwrap_err();
    assert!(matches!(again, BackupError::Exists { .. }), "{again}");
    let none = backup::make(&folder.path().join("none"), &draft, &mut |_| ()).unwrap_err();
    assert!(matches!(none, BackupError::NoLedger { .. }), "{none}");
    // Held, and without a control socket.
    let held = open(&ledger);
    let used = backup::make(&ledger, &folder.path().join("third"), &mut |_| ()).unwrap_err();
    assert!(matches!(used, BackupError::Store(StoreError::InUse { .. })), "{used}");
    assert!(!folder.path().join("third.partial").exists());
    drop(held);
}

#[test]
fn a_backup_leaves_the_draft_of_another_alone() {
    let (folder, _) = backed_up();
    let (ledger, to) = (folder.path().join("ledger"), folder.path().join("second"));
    let draft = folder.path().join("second.partial");
    fs::create_dir(&draft).unwrap();
    fs::write(draft.join(manifest::ROWS), b"half").unwrap();
    let first = File::open(&draft).unwrap();
    first.try_lock().unwrap();
    let second = backup::make(&ledger, &to, &mut |_| ()).unwrap_err();
    assert!(matches!(second, BackupError::UnderWay { .. }), "{second}");
    assert_eq!(fs::read(draft.join(manifest::ROWS)).unwrap(), b"half");
    drop(first);
    backup::make(&ledger, &to, &mut |_| ()).unwrap();
    check(&to, &mut |_| ()).unwrap();
}

#[test]
fn a_folder_whose_path_is_too_long_for_a_socket_is_backed_up_once_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("l".repeat(120));
    block_on(fill(&ledger));
    let held = open(&ledger);
    let used = backup::make(&ledger, &folder.path().join("first"), &mut |_| ()).unwrap_err();
    assert!(matches!(used, BackupError::Store(StoreError::InUse { .. })), "{used}");
    drop(held);
    backup::make(&ledger, &folder.path().join("second"), &mut |_| ()).unwrap();
}

#[test]
fn a_ledger_that_came_meanwhile_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path();
    let restoring = data_dir.join(RESTORING_FOLDER);
    fs::create_dir(&restoring).unwrap();
    for name in [LEDGER_FILE, TOTALS_FILE] {
        fs::write(restoring.join(name), b"restored").unwrap();
        fs::write(data_dir.join(name), b"running").unwrap();
    }
    let lock = File::open(data_dir).unwrap();
    let error = place(&restoring, data_dir, &lock).unwrap_err();
    assert!(matches!(error, RestoreError::Exists { .. }), "{error}");
    for name in [LEDGER_FILE, TOTALS_FILE] {
        assert_eq!(fs::read(data_dir.join(name)).unwrap(), b"running", "{name}");
    }
    // Not even behind a look that did not see it.
    let error = name_ledger(&restoring, data_dir).unwrap_err();
    assert!(matches!(error, RestoreError::Exists { .. }), "{error}");
    assert_eq!(fs::read(data_dir.join(LEDGER_FILE)).unwrap(), b"running");
}

#[test]
fn what_an_older_version_could_not_read_stays_quarantined() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    block_on(async {
        let (store, recovered) = RedbStore::open(&ledger, &RedbOptions::default(), NOW).unwrap();
        let mut journal = Journal::new(1, recovered.ledger);
        journal.seal(&[("c", "m", 1, 5)]);
        journal.seal(&[("c", "m", 1, 6)]);
        greet(&store, &mut journal, 0).await;
        let Request::Admit(mut unknown) = journal.admit(2) else { unreachable!() };
        unknown.content = Opened::Quarantined("its version is newer".to_owned());
        commit(&store, vec![journal.admit(1), Request::Admit(unknown)]).await;
    });
    let report = fsck::run(&ledger, None, None, &mut |_| ()).unwrap();
    assert!(report.is_sound(), "{}", report.told());
    backup::make(&ledger, &folder.path().join("backup"), &mut |_| ()).unwrap();
    let report = restored(folder.path(), "new", NOW.0).unwrap();
    assert_eq!(report.manifest.quarantined_events, 1);
    assert_eq!(conformance::classes_of(&open(&folder.path().join("new"))), ["c m normal 5"]);
}

#[test]
fn streams_that_retired_are_carried_and_return() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, new) = (folder.path().join("ledger"), folder.path().join("new"));
    let mut journals = block_on(async {
        let (store, recovered) = RedbStore::open(&ledger, &RedbOptions::default(), NOW).unwrap();
        let mut journals: Vec<_> = (1..=5).map(|id| Journal::new(id, recovered.ledger)).collect();
        let mut admitted = Vec::new();
        for journal in &mut journals {
            journal.seal(&[("c", "m", 1, 5), ("c", "m", 2, 5)]);
            greet(&store, journal, 0).await;
            let group = vec![journal.admit(1), journal.close()];
            admitted.extend(commit(&store, group).await.admitted);
        }
        let slice = FoldSlice::of(admitted.iter().map(AsRef::as_ref));
        store.fold(slice.into()).await.unwrap();
        let streams = journals[..3].iter().map(|journal| journal.stream).collect();
        let retired = commit(&store, vec![Request::Retire { streams, after_millis: 0 }]).await;
        assert_eq!(conformance::words(&retired), "retired3");
        journals
    });
    let is_sound = |data_dir: &Path| {
        let report = fsck::run(data_dir, None, None, &mut |_| ()).unwrap();
        assert!(report.is_sound(), "{}", report.told());
        assert_eq!((report.counts.streams, report.counts.retired_streams), (5, 3));
    };
    is_sound(&ledger);
    let manifest = backup::make(&ledger, &folder.path().join("backup"), &mut |_| ()).unwrap();
    assert_eq!((manifest.streams, manifest.events, manifest.ledger_format), (5, 10, 4));
    restored(folder.path(), "new", NOW.0).unwrap();
    is_sound(&new);
    let (store, recovered) = RedbStore::open(&new, &RedbOptions::default(), Timestamp(0)).unwrap();
    assert_eq!(
        (recovered.streams.len(), recovered.retired.streams, recovered.retired.events),
        (2, 3, 6)
    );
    let agent = tidemark_common::tls::AgentName::parse("agent").unwrap();
    assert!(store.retired().unwrap().has_agent(&agent).unwrap());
    block_on(async {
        let journal = &mut journals[1];
        assert_eq!(greet(&store, journal, 1).await.posted_sequence, Sequence(1));
        journal.seal(&[("c", "m", 3, 5)]);
        let words = conformance::words(&commit(&store, vec![journal.admit(2)]).await);
        assert_eq!(words, "admit@2");
    });
    drop(store);
    let report = fsck::run(&new, None, None, &mut |_| ()).unwrap();
    assert!(report.is_sound(), "{}", report.told());
    assert_eq!(report.counts.retired_streams, 2);
}
