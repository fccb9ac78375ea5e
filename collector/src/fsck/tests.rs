//! Damage planted in real files, each kind found by name.

use redb::{Database, ReadableTable as _, TableDefinition};

use super::*;
use crate::ledger::codec;
use crate::ledger::conformance::{self, Journal, NOW, commit, damaged, greet};
use crate::ledger::fold::FoldSlice;
use crate::ledger::redb::RedbStore;
use crate::ledger::store::LedgerStore;

type Bytes = &'static [u8];
const BATCHES: TableDefinition<'_, u64, Bytes> = TableDefinition::new("batches");
const STREAMS: TableDefinition<'_, &[u8; 16], Bytes> = TableDefinition::new("streams");
const TOTALS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("totals");
const UNIQUES: TableDefinition<'_, Bytes, ()> = TableDefinition::new("uniques");
const SEEN: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("seen");
const FOLDED: TableDefinition<'_, &[u8; 16], u64> = TableDefinition::new("folded");
const INDEX: TableDefinition<'_, &[u8; 24], u64> = TableDefinition::new("index");
const META: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("meta");

/// Two streams, a quarantined batch, all but the last batch folded.
async fn fill(folder: &Path) {
    let (store, recovered) = RedbStore::open(folder, &RedbOptions::default(), NOW).unwrap();
    let mut tail = Vec::new();
    for stream in 1..=2 {
        let mut journal = Journal::new(stream, recovered.ledger);
        for bucket in 0..4 {
            journal.seal(&[("c", "m", bucket, 5), ("d", "n", bucket, 7), ("d", "n", bucket, 2)]);
        }
        greet(&store, &mut journal, 0).await;
        let unreadable = conformance::admit(&damaged(&journal.sealed[1]), journal.fence);
        let group = vec![journal.admit(1), unreadable, journal.admit(3)];
        tail.extend(commit(&store, group).await.admitted);
        if stream == 2 {
            let slice = FoldSlice::of(tail.iter().map(AsRef::as_ref));
            store.fold(slice.into()).await.unwrap();
            commit(&store, vec![journal.admit(4)]).await;
        }
    }
    store.checkpoint().await.unwrap();
}

fn made() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(fill(folder.path()));
    folder
}

/// What is found after `damage`: kind, place, events.
fn check(name: &str, damage: impl FnOnce(&Path), expected: &[&str]) {
    let folder = made();
    damage(folder.path());
    let report = run(folder.path(), None, None, &mut |_| ()).unwrap();
    let (one, two) = ("01".repeat(16), "02".repeat(16));
    let told = |finding: &crate::ledger::check::Finding| {
        let events = finding.events.map_or(String::new(), |events| format!(", {events} events"));
        let line = format!("{} at {}{events}", finding.kind.name(), finding.place);
        line.replace(&one, "A").replace(&two, "B")
    };
    let found: Vec<_> = report.findings.iter().map(told).collect();
    assert_eq!(found, expected, "{name}: {}", report.told());
    assert_eq!(report.is_sound(), expected.is_empty());
    assert!(!folder.path().join(SCRATCH_FOLDER).exists(), "the scratch is removed");
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["findings"].as_array().unwrap().len(), expected.len());
}

fn edit(folder: &Path, file: &str, edit: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(folder.join(file)).unwrap();
    let write = database.begin_write().unwrap();
    edit(&write);
    write.commit().unwrap();
}

fn totals(change: impl FnOnce(&redb::WriteTransaction)) -> impl FnOnce(&Path) {
    move |folder| edit(folder, TOTALS_FILE, change)
}

fn first_key(write: &redb::WriteTransaction, table: TableDefinition<'_, Bytes, Bytes>) -> Vec<u8> {
    let table = write.open_table(table).unwrap();
    table.first().unwrap().unwrap().0.value().to_vec()
}

#[test]
fn sound_files_have_no_findings() {
    check("whole", |_| (), &[]);
    check("without totals", |folder| fs::remove_file(folder.join(TOTALS_FILE)).unwrap(), &[]);
    let folder = made();
    let report = run(folder.path(), None, None, &mut |_| ()).unwrap();
    assert!(report.with_totals);
    assert_eq!((report.counts.batches, report.counts.events), (7, 21));
    assert!(report.told().ends_with("sound\n"), "{}", report.told());
}

#[test]
fn edited_totals() {
    check(
        "an edited sum",
        totals(|write| {
            let key = first_key(write, TOTALS);
            let mut table = write.open_table(TOTALS).unwrap();
            let mut value = table.get(key.as_slice()).unwrap().unwrap().value().to_vec();
            value[39] += 1;
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        }),
        &["totals at totals.redb, totals: c, m, normal, from unix second 0, 2 events"],
    );
    check(
        "a row removed",
        totals(|write| {
            let key = first_key(write, TOTALS);
            write.open_table(TOTALS).unwrap().remove(key.as_slice()).unwrap();
        }),
        &["totals at totals.redb, totals: c, m, normal, from unix second 0, 2 events"],
    );
    check(
        "a row that no batch comes to",
        totals(|write| {
            let key = first_key(write, TOTALS);
            let mut table = write.open_table(TOTALS).unwrap();
            let value = table.get(key.as_slice()).unwrap().unwrap().value().to_vec();
            let mut other = key.clone();
            other[key.len() - 3] = 9;
            table.insert(other.as_slice(), value.as_slice()).unwrap();
        }),
        &["totals at totals.redb, totals: c, m, normal, from unix second 8100, 2 events"],
    );
}

#[test]
fn what_else_the_totals_hold() {
    check(
        "a distinct value removed",
        totals(|write| {
            let mut table = write.open_table(UNIQUES).unwrap();
            let key = table.first().unwrap().unwrap().0.value().to_vec();
            table.remove(key.as_slice()).unwrap();
        }),
        &["totals at totals.redb, uniques: c, m, normal, from unix second 0, value 1 \
           05050505050505050505050505050505"],
    );
    check(
        "what was seen",
        totals(|write| {
            let key = first_key(write, SEEN);
            write.open_table(SEEN).unwrap().insert(key.as_slice(), &[7_u8; 16][..]).unwrap();
        }),
        &["totals at totals.redb, seen: c, m, normal"],
    );
    check(
        "a wrong place",
        totals(|write| {
            let key = codec::numbered_key(&[1; 16], 3);
            write.open_table(INDEX).unwrap().insert(&key, 5).unwrap();
        }),
        &["totals at totals.redb, index: stream A, batch 3"],
    );
    check(
        "folded too far",
        totals(|write| drop(write.open_table(FOLDED).unwrap().insert(&[1; 16], 9).unwrap())),
        &["totals at totals.redb, folded: A"],
    );
    check(
        "other counts",
        totals(|write| {
            let mut table = write.open_table(META).unwrap();
            table.insert(&b"events"[..], &10_u64.to_be_bytes()[..]).unwrap();
        }),
        &["conservation at totals.redb, 2 events"],
    );
    check(
        "of another ledger",
        totals(|write| {
            let mut table = write.open_table(META).unwrap();
            table.insert(&b"ledger"[..], &[9_u8; 16][..]).unwrap();
        }),
        &["totals at totals.redb"],
    );
    check(
        "no database",
        |folder| fs::write(folder.join(TOTALS_FILE), vec![7; 9_000]).unwrap(),
        &["totals at totals.redb"],
    );
}

#[test]
fn damaged_ledgers() {
    check(
        "a flipped body byte",
        |folder| {
            edit(folder, LEDGER_FILE, |write| {
                let mut table = write.open_table(BATCHES).unwrap();
                let mut bytes = table.get(2).unwrap().unwrap().value().to_vec();
                bytes[200] ^= 1;
                table.insert(2, bytes.as_slice()).unwrap();
            });
        },
        &["batch_body at stream A, batch 3 at position 2, 3 events"],
    );
    check(
        "a batch removed",
        |folder| {
            edit(folder, LEDGER_FILE, |write| {
                write.open_table(BATCHES).unwrap().remove(4).unwrap();
            });
        },
        &[
            "batch_missing at position 4",
            "batch_missing at stream B, batches 2 to 2, 3 events",
            // Whose quarantine is left over, and counted in the row.
            "stream_row at stream B",
            "quarantine at position 4",
        ],
    );
    check(
        "a stream's row of another time",
        |folder| {
            edit(folder, LEDGER_FILE, |write| {
                let mut table = write.open_table(STREAMS).unwrap();
                let row = table.get(&[1; 16]).unwrap().unwrap().value().to_vec();
                let mut record = codec::read_stream(&row).unwrap();
                record.posted_end = record.posted_end.plus(2);
                record.accepted += 2;
                let row = codec::write_stream(&record).unwrap();
                table.insert(&[1; 16], row.as_slice()).unwrap();
            });
        },
        &["stream_row at stream A"],
    );
    check(
        "no database",
        |folder| fs::write(folder.join(LEDGER_FILE), vec![7; 9_000]).unwrap(),
        &["file at ledger.redb"],
    );
}

#[test]
fn what_cannot_be_checked_is_no_finding() {
    let folder = made();
    let held = RedbStore::open(folder.path(), &RedbOptions::default(), NOW).unwrap();
    let error = run(folder.path(), None, None, &mut |_| ()).unwrap_err();
    assert!(matches!(error, FsckError::InUse(_)), "{error}");
    drop(held);
    let error = run(&folder.path().join("none"), None, None, &mut |_| ()).unwrap_err();
    assert!(matches!(error, FsckError::NoLedger { .. }), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = run(folder.path(), Some(&file), None, &mut |_| ()).unwrap_err();
    assert!(matches!(error, FsckError::Scratch { .. }), "{error}");
}
