//! Real files: making, locking, formats, corruption, setting aside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use redb::{Database, TableDefinition};
use tempfile::TempDir;

use super::*;
use crate::journal::tables::{CHUNKS, META, meta};
use crate::journal::{OpenError, set_aside};

fn at(path: &Path) -> JournalOptions {
    JournalOptions { path: path.to_owned(), ..options() }
}

fn try_open(path: &Path, nth: u8) -> Result<(Journal, Recovered), OpenError> {
    let ids = FreshIds { stream: StreamId([nth; 16]), opening: OpeningId([nth; 16]) };
    Journal::open(at(path), ids, NOON, Duration::ZERO)
}

/// A closed journal file with a backlog of one batch and one chunk.
fn written(path: &Path) {
    let (mut journal, _) = try_open(path, 1).unwrap();
    journal.commit(vec![welcome(0)], NOON).unwrap();
    batches(&mut journal, 1);
    let chunk = append(&journal, 9, 2, vec![0x5a; 20_000]);
    journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
}

/// What befalls a closed journal's file.
type Change = fn(&Path);

/// What `change` makes of a written journal.
fn after(change: impl FnOnce(&Path)) -> (TempDir, Result<(Journal, Recovered), OpenError>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    written(&path);
    change(&path);
    let opened = try_open(&path, 2);
    (folder, opened)
}

fn change_bytes(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Changes a row behind the journal's back, with valid checksums.
fn change_row(path: &Path, row: u16, value: &[u8]) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(row, value).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_new_journal_makes_its_folder_and_leaves_no_other_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b/journal.redb");
    let (journal, recovered) = try_open(&path, 1).unwrap();
    assert!(recovered.clean && recovered.groups.is_empty());
    assert_eq!(journal.state().file_bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(names, ["journal.redb"]);
}

#[test]
fn what_was_written_is_there_again() {
    let (_folder, opened) = after(|_| ());
    let (journal, recovered) = opened.unwrap();
    assert_eq!(journal.state().stream, StreamId([1; 16]));
    assert_eq!(journal.state().accepted, 3);
    assert_eq!(recovered.groups.len(), 1);
    assert_eq!(journal.reader().chunks(9).unwrap().next(), Some(Ok(vec![0x5a; 20_000])));
}

#[test]
fn two_agents_never_hold_one_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    let (journal, _) = try_open(&path, 1).unwrap();
    let error = try_open(&path, 2).unwrap_err();
    assert!(matches!(&error, OpenError::Held { path: held, .. } if *held == path), "{error}");
    // One that waits gets it as soon as the other has gone.
    let waiting = {
        let path = path.clone();
        std::thread::spawn(move || {
            Journal::open(at(&path), fresh(3), NOON, Duration::from_secs(60)).map(drop)
        })
    };
    drop(journal);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_zero_length_file_is_a_new_journal() {
    let (_folder, opened) = after(|path| fs::write(path, b"").unwrap());
    assert_eq!(opened.unwrap().0.state().stream, StreamId([2; 16]));
}

#[test]
fn newer_formats_refuse() {
    // The version bytes of redb's two commit slots.
    let newer_file = |path: &Path| {
        change_bytes(path, |bytes| {
            bytes[64] = 4;
            bytes[192] = 4;
        });
    };
    let newer_journal = |path: &Path| change_row(path, meta::FORMAT, &[0, 2]);
    let newer_record = |path: &Path| change_row(path, meta::COUNTERS, &[2, 0, 0]);
    for (_folder, opened) in [after(newer_file), after(newer_journal), after(newer_record)] {
        let error = opened.unwrap_err();
        assert!(matches!(error, OpenError::Newer { .. }), "{error:?}");
    }
}

#[test]
fn an_old_format_refuses() {
    let (_folder, opened) = after(|path| {
        change_bytes(path, |bytes| {
            bytes[64] = 2;
            bytes[192] = 2;
        });
    });
    assert!(matches!(opened.unwrap_err(), OpenError::Older { version: 2 }));
}

#[test]
fn a_file_of_something_else_refuses() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<u64, u64>::new("postings"))
        .unwrap()
        .insert(1, 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(try_open(&path, 1).unwrap_err(), OpenError::NotAJournal { .. }));

    let path = folder.path().join("other.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, u64>::new("meta"))
        .unwrap()
        .insert("a", 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(try_open(&path, 1).unwrap_err(), OpenError::NotAJournal { .. }));
}

#[test]
fn proven_corruption_is_told_apart() {
    let no_redb_file = |path: &Path| change_bytes(path, |bytes| bytes[0] ^= 1);
    let cut_short = |path: &Path| change_bytes(path, |bytes| bytes.truncate(5_000));
    let header_only = |path: &Path| change_bytes(path, |bytes| bytes.truncate(100));
    let rotten_chunk = |path: &Path| {
        change_bytes(path, |bytes| {
            let found = bytes.windows(64).position(|window| window == [0x5a; 64]).unwrap();
            bytes[found + 32] ^= 1;
        });
    };
    let rotten_record = |path: &Path| change_row(path, meta::COUNTERS, &[1, 0]);
    let no_identity = |path: &Path| change_row(path, meta::IDENTITY, &[]);
    let lost_chunk = |path: &Path| {
        let database = Database::open(path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(CHUNKS).unwrap().pop_first().unwrap();
        transaction.commit().unwrap();
    };
    let wrong_checksum = |path: &Path| {
        let database = Database::open(path).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut chunks = transaction.open_table(CHUNKS).unwrap();
        let (key, mut value) =
            chunks.pop_first().unwrap().map(|(k, v)| (k.value(), v.value().to_vec())).unwrap();
        *value.last_mut().unwrap() ^= 1;
        chunks.insert(key, value.as_slice()).unwrap();
        drop(chunks);
        transaction.commit().unwrap();
    };
    let changes: [(&str, Change); 8] = [
        ("no redb file", no_redb_file),
        ("cut short", cut_short),
        ("header only", header_only),
        ("rotten chunk", rotten_chunk),
        ("rotten record", rotten_record),
        ("no identity", no_identity),
        ("lost chunk", lost_chunk),
        ("wrong checksum", wrong_checksum),
    ];
    for (name, change) in changes {
        let (_folder, opened) = after(change);
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "{name}: {opened:?}");
    }
}

#[test]
fn a_conflicted_journal_is_told_apart_and_can_be_set_aside() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    for aside in ["journal.redb.conflict", "journal.redb.conflict-2"] {
        let (mut journal, _) = try_open(&path, 1).unwrap();
        journal
            .commit(vec![Write::Conflict { reason: "cloned".to_owned(), answer: None }], NOON)
            .unwrap();
        assert_eq!(journal.state().conflict.as_deref(), Some("cloned"));
        drop(journal);
        let error = try_open(&path, 2).unwrap_err();
        assert!(
            matches!(&error, OpenError::Conflicted { stream, reason, .. }
                if *stream == StreamId([1; 16]) && reason == "cloned"),
            "{error}"
        );
        assert_eq!(set_aside(&path, "conflict").unwrap(), folder.path().join(aside));
        assert!(!path.exists());
    }
    assert_eq!(try_open(&path, 2).unwrap().0.state().stream, StreamId([2; 16]));
    let aside = try_open(&folder.path().join("journal.redb.conflict"), 3).unwrap_err();
    assert!(matches!(aside, OpenError::Conflicted { .. }), "a refused open changed nothing");
}

#[test]
fn a_budget_below_the_least_is_refused() {
    let mut options = options();
    options.bytes_max = 1 << 20;
    let error = Journal::open_on(Disk::default(), options, fresh(1), NOON).unwrap_err();
    assert!(matches!(error, OpenError::Budget { .. }));
}
