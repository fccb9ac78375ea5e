//! What an examination counts and finds; and that it leaves the file as it is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redb::{Database, TableDefinition};
use tempfile::TempDir;
use tidemark_common::chunk::{ChunkWriter, Record, SeriesSlot};
use tidemark_common::quantity::Quantity;

use super::*;
use crate::event::{Door, IdDigest, SourceCount};
use crate::journal::tables::{BATCHES, CHUNKS, DEAD_LETTERS, IDS, META, POSTED, SEALED, meta};
use crate::journal::{DeadLetter, Depth, Examined, JournalReader, OpenError};

/// The payload of a chunk of so many events.
fn payload(events: u32) -> Vec<u8> {
    let mut chunk = ChunkWriter::new(1);
    for _ in 0..events {
        let quantity = Some(Quantity::whole(1));
        chunk.record(
            &Record { slot: SeriesSlot(0), time: NOON, quantity, unique: None, id: None },
            b"series",
        );
    }
    zstd::bulk::compress(&chunk.take().unwrap().bytes, 1).unwrap()
}

/// A journal with two posted batches, two unposted ones, a group of two chunks and one of each other kind.
fn written(path: &Path) -> Journal {
    let ids = FreshIds { stream: STREAM, opening: OpeningId([1; 16]) };
    let options = JournalOptions { path: path.to_owned(), ..options() };
    let (mut journal, _) = Journal::open(options, ids, NOON, Duration::ZERO).unwrap();
    journal.commit(vec![welcome(0)], NOON).unwrap();
    let opening = journal.state().opening;
    for group in 1..=4 {
        let first = journal.state().accepted;
        let chunk = append(&journal, group, 1, payload(1));
        journal
            .commit(vec![Write::Append(chunk), empty_seal(group, opening, first)], NOON)
            .unwrap();
    }
    journal.commit(vec![Write::Posted(Sequence(2))], NOON).unwrap();
    for events in [3, 4] {
        let chunk = append(&journal, 9, events, payload(events));
        journal
            .commit(vec![Write::Append(chunk), Write::Ids(vec![IdDigest([7; 16])])], NOON)
            .unwrap();
    }
    let letter = DeadLetter {
        at: NOON,
        door: Door::Udp,
        reason: EvidenceCode::RejectedSampled,
        bytes: vec![b'x'; 10],
    };
    let source = SourceCount { source: "till-7".to_owned(), count: 5 };
    journal
        .commit(vec![Write::DeadLetters(vec![letter]), Write::SourceCounts(vec![source])], NOON)
        .unwrap();
    journal
}

/// Seals a group of one event as a body of one line.
fn empty_seal(group: u64, opening: OpeningId, first: u64) -> Write {
    let mut batch = crate::aggregate::OpenBatch::new(1);
    let slot = batch.slot(&tidemark_common::batch::series_bytes("calls", "acme", &[]));
    batch.add(
        slot,
        NOON,
        crate::aggregate::Amount { quantity: Some(Quantity::whole(1)), unique: None },
    );
    Write::Seal(Seal {
        group: Some(group),
        opening,
        rules: RulesVersion(1),
        first_event: EventNumber(first),
        end_event: EventNumber(first + 1),
        body: batch.encode([3; 32], &Evidence::default()).unwrap(),
        raw_events: RawEvents::Dropped,
    })
}

fn place() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    (folder, path)
}

fn examine(path: &Path) -> Examined {
    JournalReader::open(path).unwrap().examine(Depth::Everything).unwrap()
}

#[test]
fn a_sound_journal_is_counted_as_the_agent_counts_it_and_stays_as_it_is() {
    let (_folder, path) = place();
    let journal = written(&path);
    let state = journal.state().clone();
    // Looked at through the agent that holds it, and as a copy of what a kill -9 leaves.
    let live = journal.reader().examine(Depth::Everything).unwrap();
    let crashed = path.with_extension("crashed");
    fs::copy(&path, &crashed).unwrap();
    drop(journal);
    for found in [live, examine(&path), examine(&crashed)] {
        assert_eq!(found.findings, []);
        assert_eq!(found.positions.unwrap().accepted, state.accepted);
        assert_eq!((found.stream, found.ledger), (Some(STREAM), Some(LEDGER)));
        assert_eq!((found.chunks.rows, found.chunks.events, found.groups), (2, 7, 1));
        assert_eq!(found.chunks.bytes, state.chunk_bytes);
        assert_eq!((found.unposted.rows, found.unposted.bytes), (2, state.backlog_bytes));
        assert_eq!((found.retained.rows, found.retained.bytes), (2, state.retained_bytes));
        assert_eq!((found.first, found.last), (Some(Sequence(1)), Some(Sequence(4))));
        assert_eq!((found.lines, found.ids, found.sources), (4, state.ids, 1));
        assert_eq!(
            (found.dead_letters[&118], found.dead_letter_bytes),
            (1, state.dead_letter_bytes)
        );
        assert_eq!((found.live_bytes, &found.openings), (state.live_bytes, &state.held));
        assert_eq!(found.evidence, state.evidence);
    }
    for path in [path, crashed] {
        let before = fs::read(&path).unwrap();
        examine(&path);
        assert!(fs::read(&path).unwrap() == before, "{} was changed", path.display());
    }
}

#[test]
fn a_held_journal_is_told_apart_and_a_looked_at_one_makes_an_agent_wait() {
    let (_folder, path) = place();
    let journal = written(&path);
    assert!(matches!(JournalReader::open(&path), Err(OpenError::Held { .. })));
    drop(journal);
    let (one, _two) = (JournalReader::open(&path).unwrap(), JournalReader::open(&path).unwrap());
    let ids = FreshIds { stream: STREAM, opening: OpeningId([2; 16]) };
    let options = JournalOptions { path: path.clone(), ..options() };
    let open = || Journal::open(options.clone(), ids, NOON, Duration::ZERO);
    assert!(matches!(open(), Err(OpenError::Held { .. })));
    drop((one, _two));
    open().unwrap();
}

/// Changes rows behind the journal's back, with valid checksums.
fn change<K: redb::Key + 'static>(
    path: &Path,
    table: TableDefinition<'_, K, &'static [u8]>,
    key: K::SelfType<'_>,
    change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(table).unwrap();
        let row = rows.remove(&key).unwrap().unwrap().value().to_vec();
        if let Some(row) = change(row) {
            rows.insert(&key, row.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn flipped(at: usize) -> impl Fn(Vec<u8>) -> Option<Vec<u8>> {
    move |mut row| {
        let at = at.min(row.len() - 1);
        row[at] ^= 1;
        Some(row)
    }
}

/// What is found after `damage`: each finding's place, and a part of its problem.
fn check(damage: impl FnOnce(&Path), expected: &[(&str, &str)]) {
    let (_folder, path) = place();
    drop(written(&path));
    damage(&path);
    let found = examine(&path).findings;
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (finding, (place, problem)) in found.iter().zip(expected) {
        assert_eq!(finding.place, *place, "{finding:?}");
        assert!(finding.problem.contains(problem), "{finding:?}, not {problem}");
        assert!(!finding.remedy.is_empty());
    }
}

#[test]
fn each_damage_is_found_where_it_is() {
    let end = usize::MAX;
    check(|path| change(path, SEALED, 2, flipped(end)), &[("batch 2", "digest")]);
    // The digest before: the batch is another one, and no longer follows the one before.
    check(
        |path| change(path, SEALED, 3, flipped(100)),
        &[("batch 3", "its header's digest is"), ("batch 3", "it follows digest")],
    );
    check(|path| change(path, SEALED, 4, flipped(0)), &[("batch 4", "TMBH")]);
    check(
        |path| change(path, SEALED, 3, |_| None),
        &[("batches", "4 is stored, 3 was found"), ("batch 3", "its body is missing")],
    );
    check(
        |path| change(path, BATCHES, 4, |_| None),
        &[
            ("batches", "bodies"),
            ("counters", "sealed sequence"),
            ("counters", "sealed events"),
            ("counters", "sealed digest"),
            ("counters", "sealed events"),
        ],
    );
    check(
        |path| change(path, CHUNKS, (9, 0), flipped(end)),
        &[("chunk 9.0", "crc32c"), ("counters", "accepted")],
    );
    check(
        |path| change(path, CHUNKS, (9, 0), |_| None),
        &[
            ("chunk 9.1", "chunk 0 is missing"),
            ("chunk 9.1", "begins at event 7, not 4"),
            ("counters", "accepted"),
        ],
    );
    check(|path| change(path, META, meta::IDENTITY, |_| None), &[("meta", "identity")]);
    check(
        |path| change(path, META, meta::FORMAT, |_| Some(vec![0, 9])),
        &[("meta, row FORMAT", "9 is unknown")],
    );
    check(|path| change(path, IDS, 0, flipped(0)), &[("ids, row 0", "version")]);
    check(
        |path| change(path, DEAD_LETTERS, 0, |_| Some(vec![1])),
        &[("dead_letters, row 0", "damaged")],
    );
}

#[test]
fn a_page_that_rots_is_damage() {
    let (_folder, path) = place();
    drop(written(&path));
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).rposition(|window| window == b"till-7").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(JournalReader::open(&path), Err(OpenError::Corrupt { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// Found by `tests/fuzz`: rows under sound checksums that no agent wrote. A start refuses what is in its way, and an
/// examination, which goes to the end, names it.
#[test]
fn forged_rows_are_refused_at_the_start_and_found() {
    let forged: [(&str, Forgery); 10] = [
        ("counters", |path| change(path, META, meta::COUNTERS, |row| varint(&row, 1))),
        ("evidence", |path| change(path, META, meta::EVIDENCE, |row| varint(&row, 3))),
        ("row of a batch", |path| change(path, BATCHES, 3, |row| varint(&row, 20))),
        ("number of a batch", |path| renumber(path, BATCHES, 4, u64::MAX)),
        ("number of a body", |path| renumber(path, SEALED, 4, u64::MAX)),
        ("number of a group", |path| renumber(path, CHUNKS, (9, 1), (u64::MAX, 0))),
        ("place in a group", |path| renumber(path, CHUNKS, (9, 1), (9, 7))),
        ("number of ids", |path| renumber(path, IDS, 1, u64::MAX)),
        ("number of a dead letter", |path| renumber(path, DEAD_LETTERS, 0, u64::MAX)),
        ("ack", |path| {
            let database = Database::open(path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(POSTED).unwrap().remove(2).unwrap();
            transaction.commit().unwrap();
        }),
    ];
    for (what, forge) in forged {
        let (_folder, path) = place();
        drop(written(&path));
        forge(&path);
        assert!(!examine(&path).findings.is_empty(), "{what}");
        let ids = FreshIds { stream: STREAM, opening: OpeningId([2; 16]) };
        let options = JournalOptions { path, ..options() };
        let opened = Journal::open(options, ids, NOON, Duration::ZERO);
        assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "{what}: {opened:?}");
    }
}

type Forgery = fn(&Path);

/// The row with the varint of one byte at `at` as that of 2^64 - 1.
fn varint(row: &[u8], at: usize) -> Option<Vec<u8>> {
    Some([&row[..at], &[0xfd], &[0xff; 8], &row[at + 1..]].concat())
}

/// Moves a row to another key.
fn renumber<'k, K: redb::Key + 'static>(
    path: &Path,
    table: TableDefinition<'_, K, &'static [u8]>,
    from: K::SelfType<'k>,
    to: K::SelfType<'k>,
) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(table).unwrap();
        let row = rows.remove(&from).unwrap().unwrap().value().to_vec();
        rows.insert(&to, row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}
