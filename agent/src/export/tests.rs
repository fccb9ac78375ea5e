//! What an export says of each opening.

use std::path::Path;
use std::time::Duration;

use redb::{Database, TableDefinition};
use tempfile::TempDir;
use tidemark_common::batch::{Evidence, series_bytes};
use tidemark_common::chunk::{ChunkWriter, Record, SeriesSlot};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{EventNumber, LedgerId, RulesVersion, Sequence, StreamId};
use tidemark_common::wire::{PostedOpening, UniqueKey};

use super::*;
use crate::journal::{
    Append, ConflictAnswer, FreshIds, Journal, JournalOptions, Settled, Welcomed, Write as Entry,
    settle_conflict,
};

const NOON: Timestamp = Timestamp(1_800_000_000_000);

fn options(path: &Path) -> JournalOptions {
    JournalOptions {
        path: path.to_owned(),
        bytes_max: 64 << 20,
        retain_acked_millis: 60_000,
        retain_acked_bytes_max: 4 << 20,
        raw_events_bytes_max: 0,
        ids_max: 100,
        ids_window_millis: 60_000,
        dead_letters_max: 10,
        dead_letter_bytes_max: 10_000,
    }
}

fn opened(path: &Path, nth: u8) -> Journal {
    let fresh = FreshIds { stream: StreamId([1; 16]), opening: OpeningId([nth; 16]) };
    Journal::open(options(path), fresh, NOON, Duration::ZERO).unwrap().0
}

/// Three events of the journal's present opening, not sealed.
fn three(journal: &Journal, group: u64) -> Entry {
    let state = journal.state();
    let mut writer = ChunkWriter::new(1);
    for _ in 0..3 {
        let quantity = Some(Quantity::ONE);
        let record = Record { slot: SeriesSlot(0), time: NOON, quantity, unique: None, id: None };
        writer.record(&record, &series_bytes("calls", "a", &[]));
    }
    let mut evidence = Evidence::default();
    evidence.set_max(EvidenceCode::Accepted, state.accepted.saturating_add(3));
    Entry::Append(Append {
        group,
        opening: state.opening,
        rules: RulesVersion(1),
        first_event: EventNumber(state.accepted),
        events: 3,
        oldest: NOON,
        evidence,
        bytes: zstd::bulk::compress(&writer.take().unwrap().bytes, 1).unwrap(),
    })
}

/// Openings 1 and 2 with three events each, and what ended the journal.
fn journal(path: &Path, conflict: Option<Option<ConflictAnswer>>) {
    let mut journal = opened(path, 1);
    let welcomed = Welcomed {
        ledger: LedgerId([9; 16]),
        rules: None,
        unique_key: UniqueKey { id: 1, key: [7; 32] },
        posted_sequence: Sequence::ZERO,
    };
    journal.commit(vec![Entry::Welcomed(welcomed)], NOON).unwrap();
    journal.commit(vec![three(&journal, 1)], NOON).unwrap();
    drop(journal);
    let mut journal = opened(path, 2);
    journal.commit(vec![three(&journal, 2)], NOON).unwrap();
    if let Some(answer) = conflict {
        let reason = "cloned".to_owned();
        journal.commit(vec![Entry::Conflict { reason, answer }], NOON).unwrap();
    }
}

fn rows(path: &Path) -> (Vec<Row>, Exported) {
    let mut out = Vec::new();
    let held = Leftover::open(path).unwrap();
    let opens = held.conflict.is_some() || Journal::would_open(path).unwrap();
    let exported = write_rows(&held, opens, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), exported)
}

/// Of each opening how far it is posted, or why that is not known.
fn told(path: &Path) -> Vec<Result<u64, Unknown>> {
    let (rows, _) = rows(path);
    let told = rows.iter().filter_map(|row| match row {
        Row::Opening { posted_below: Some(below), unknown: None, .. } => Some(Ok(*below)),
        Row::Opening { posted_below: None, unknown: Some(why), .. } => Some(Err(*why)),
        Row::Opening { .. } => panic!("{row:?}"),
        _ => None,
    });
    told.collect()
}

fn answer(asked: &[u8], settled: &[(u8, u64)]) -> ConflictAnswer {
    let opening = |nth: u8| OpeningId([nth; 16]);
    ConflictAnswer {
        asked: asked.iter().copied().map(opening).collect(),
        settled: settled
            .iter()
            .map(|&(nth, end)| PostedOpening { opening: opening(nth), end: EventNumber(end) })
            .collect(),
    }
}

#[test]
fn an_opening_is_posted_as_far_as_the_collector_has_said() {
    let check = |conflict, expected: [Result<u64, Unknown>; 2]| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal.redb");
        journal(&path, conflict);
        assert_eq!(told(&path), expected);
    };
    check(None, [Err(Unknown::Sound); 2]);
    check(Some(None), [Err(Unknown::Unanswered); 2]);
    check(Some(Some(answer(&[1, 2], &[(1, 2), (2, 4)]))), [Ok(2), Ok(4)]);
    // Nothing of the second one: another copy may have moved it.
    check(Some(Some(answer(&[1, 2], &[(1, 2), (2, 3)]))), [Ok(2), Err(Unknown::Elsewhere)]);
    check(Some(Some(answer(&[1], &[(1, 2)]))), [Ok(2), Err(Unknown::Unanswered)]);
    check(Some(Some(answer(&[1, 2], &[(1, 2)]))), [Ok(2), Err(Unknown::Moves)]);
}

#[test]
fn a_file_that_is_set_aside_notes_that_nothing_moved() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    journal(&path, Some(Some(answer(&[1, 2], &[(1, 2), (2, 3)]))));
    // Nothing moves, and the file says so.
    let Settled::SetAside(aside) = settle_conflict(&options(&path)).unwrap() else { panic!() };
    assert_eq!(told(&aside), [Ok(2), Err(Unknown::Elsewhere)]);
    assert!(Leftover::open(&aside).unwrap().moved.is_some_and(|(_, moved)| moved.is_empty()));
}

#[test]
fn a_damaged_journal_asks_for_what_is_posted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    journal(&path, None);
    // The row of the last opening (2), of which a start needs all.
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let meta: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("meta");
    write.open_table(meta).unwrap().insert(2, &[1][..]).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(told(&path), [Err(Unknown::Damaged); 2]);
}

#[test]
fn what_a_damaged_journal_has_lost_is_told_in_its_place() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    journal(&path, None);
    let mut journal = opened(&path, 3);
    for group in 3..6 {
        journal.commit(vec![three(&journal, group)], NOON).unwrap();
    }
    drop(journal);
    let database = Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let chunks: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("chunks");
    let mut table = write.open_table(chunks).unwrap();
    let lost = table.extract_if(|(group, _), _| group == 4).unwrap().count();
    assert_eq!(lost, 1);
    drop(table);
    write.commit().unwrap();
    drop(database);
    let (rows, exported) = rows(&path);
    let missing =
        Row::Missing { opening: OpeningId([3; 16]).to_string(), first_event: 9, end_event: 12 };
    assert_eq!(rows.iter().filter(|row| **row == missing).count(), 1, "{rows:?}");
    assert_eq!((exported.events, exported.missing), (15, 3));
}

#[test]
fn the_rows_are_whole_and_tell_their_number() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    journal(&path, Some(Some(answer(&[1], &[(1, 2)]))));
    let (rows_once, exported) = rows(&path);
    assert_eq!(rows_once.len(), 1 + 2 * (1 + 3) + 1);
    assert_eq!(rows_once.last(), Some(&Row::End { events: 6 }));
    assert_eq!((exported.events, exported.unknown), (6, [(Unknown::Unanswered, 3)].into()));
    let Row::Journal { salt: Some(salt), .. } = &rows_once[0] else { panic!("no salt") };
    assert_eq!(salt.len(), 64);
    assert_eq!(rows(&path).0, rows_once, "salts too are the same again");
}
