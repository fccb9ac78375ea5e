//! After a conflict: what moves, what stays, and a step that a crash cannot halve.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::Builder;
use tempfile::TempDir;
use tidemark_common::batch::{Body, SealedBatch, series_bytes};
use tidemark_common::id::EventNumber;
use tidemark_common::quantity::Quantity;
use tidemark_common::wire::PostedOpening;

use super::*;
use crate::aggregate::{Amount, OpenBatch};
use crate::event::{Door, IdDigest, SourceCount};
use crate::journal::leftover::{Held, Leftover};
use crate::journal::moving::{
    Plan, Settled, carry_over, moved_stream, note, note_moved, settle_conflict,
};
use crate::journal::reader::JournalReader;
use crate::journal::record::MovedRow;
use crate::journal::{ConflictAnswer, DeadLetter, OpenError};

/// A batch of `events` events of one unit each.
fn counted(journal: &mut Journal, group: u64, events: u32) {
    let (first, opening) = (journal.state().accepted, journal.state().opening);
    let end = first + u64::from(events);
    let mut batch = OpenBatch::new(0);
    let slot = batch.slot(&series_bytes("m", "c", &[]));
    for _ in 0..events {
        batch.add(slot, NOON, Amount { quantity: Some(Quantity::ONE), unique: None });
    }
    let chunk = append(journal, group, events, vec![7; 10]);
    let salt = [u8::try_from(end).unwrap(); 32];
    let body = batch.encode(salt, &chunk.evidence).unwrap();
    let (first_event, end_event) = (EventNumber(first), EventNumber(end));
    let rules = RulesVersion(1);
    let seal = Seal {
        group: Some(group),
        opening,
        rules,
        first_event,
        end_event,
        body,
        raw_events: RawEvents::Dropped,
    };
    journal.commit(vec![Write::Append(chunk), Write::Seal(seal)], NOON).unwrap();
}

fn rejected(journal: &mut Journal, times: u64) {
    let mut evidence = journal.state().evidence.clone();
    evidence.add(EvidenceCode::RejectedSampled, times);
    journal.commit(vec![Write::Evidence(evidence)], NOON).unwrap();
}

fn answer(settled: &[(u8, u64)]) -> Option<ConflictAnswer> {
    let opening = |nth: u8| OpeningId([nth; 16]);
    let posted = |&(nth, end)| PostedOpening { opening: opening(nth), end: EventNumber(end) };
    Some(ConflictAnswer {
        asked: vec![opening(1), opening(2), opening(3)],
        settled: settled.iter().map(posted).collect(),
    })
}

/// Of opening 1 two events are posted and three are not; openings 2 and 3 have a batch of two and chunks of
/// four and five events. Then the collector answers.
fn in_conflict(open: impl Fn(u8) -> Journal, answer: Option<ConflictAnswer>) {
    let mut journal = open(1);
    journal.commit(vec![welcome(0)], NOON).unwrap();
    counted(&mut journal, 1, 2);
    rejected(&mut journal, 100);
    counted(&mut journal, 2, 3);
    journal.commit(vec![Write::Posted(Sequence(1))], NOON).unwrap();
    drop(journal);

    let mut journal = open(2);
    rejected(&mut journal, 10);
    counted(&mut journal, 3, 2);
    let chunk = append(&journal, 4, 4, vec![4; 3_000]);
    journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
    drop(journal);

    let mut journal = open(3);
    let ids = |from: u8| Write::Ids((from..from + 3).map(|id| IdDigest([id; 16])).collect());
    journal.commit(vec![ids(1)], NOON).unwrap();
    rejected(&mut journal, 1);
    let chunk = append(&journal, 5, 5, vec![5; 70_000]);
    let sources = vec![SourceCount { source: "s".to_owned(), count: 9 }];
    let letter = DeadLetter {
        at: NOON,
        door: Door::Udp,
        reason: EvidenceCode::RejectedSampled,
        bytes: b"a:1|c|@0.1".to_vec(),
    };
    let writes = vec![
        Write::Append(chunk),
        ids(4),
        Write::SourceCounts(sources),
        Write::DeadLetters(vec![letter]),
    ];
    journal.commit(writes, NOON.plus_millis(1)).unwrap();
    let reason = "cloned".to_owned();
    journal.commit(vec![Write::Conflict { reason, answer }], NOON.plus_millis(2)).unwrap();
}

fn at(path: &Path) -> JournalOptions {
    JournalOptions { path: path.to_owned(), ..options() }
}

fn file(path: &Path, answer: Option<ConflictAnswer>) {
    let open = |nth| Journal::open(at(path), fresh(nth), NOON, Duration::ZERO).unwrap().0;
    in_conflict(open, answer);
}

fn leftover(disk: &Disk) -> Leftover {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    Leftover::of(JournalReader::new(Arc::new(database))).unwrap()
}

/// What a journal holds: sequence, opening, events and lines of its batches; opening, events and group of its
/// chunks.
fn rows(held: &Leftover) -> Vec<String> {
    let mut rows = Vec::new();
    held.each(|row| {
        rows.push(match row {
            Held::Batch(header, stored, _) => {
                let body = Body::open(&header, stored).unwrap();
                let lines: Vec<_> = body
                    .lines
                    .iter()
                    .map(|line| {
                        format!("{}={}x{}", line.key.meter, line.value.sum, line.value.events)
                    })
                    .collect();
                format!(
                    "batch {} of {} [{}, {}) {} {:?}",
                    header.sequence,
                    header.opening.0[0],
                    header.first_event,
                    header.end_event,
                    lines.join(" "),
                    body.evidence.iter().collect::<Vec<_>>()
                )
            }
            Held::Chunk(chunk) => format!(
                "chunk {} of {} {}+{} {:?} {} bytes",
                chunk.group,
                chunk.opening.0[0],
                chunk.first_event,
                chunk.events,
                chunk.evidence.iter().collect::<Vec<_>>(),
                chunk.payload.len()
            ),
        });
        Ok(())
    })
    .unwrap();
    rows
}

const MOVED: [&str; 3] = [
    "batch 1 of 2 [0, 2) m=2x2 [(1, 2), (5, 1), (118, 10)]",
    "chunk 4 of 2 2+4 [(1, 6), (5, 1), (118, 10)] 3000 bytes",
    "chunk 5 of 3 6+5 [(1, 11), (5, 2), (118, 11)] 70000 bytes",
];

/// The journal that opening 1 is left behind by.
fn assert_moved(path: &Path) {
    let (journal, recovered) =
        Journal::open(at(path), fresh(9), NOON.plus_millis(3), Duration::ZERO).unwrap();
    let state = journal.state().clone();
    assert_eq!(state.stream, moved_stream(STREAM, OpeningId([2; 16])));
    assert_eq!(
        (state.accepted, state.events_in_unposted_batches, state.events_in_chunks),
        (11, 2, 9)
    );
    assert_eq!((state.ledger, state.ids, state.dead_letters), (Some(LEDGER), 6, 1));
    assert_eq!(recovered.ids.iter().map(|(at, _)| at.0 - NOON.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(recovered.sources, [SourceCount { source: "s".to_owned(), count: 9 }]);
    assert!(recovered.clean && recovered.unique_key == Some(KEY));
    // The chain begins anew, and holds.
    let frozen = journal.reader().batch(Sequence(1)).unwrap().unwrap();
    let (header, _) = SealedBatch::split(&frozen).unwrap();
    assert_eq!(header.previous, tidemark_common::batch::genesis(LEDGER, state.stream));
    assert_eq!(header.digest(), state.sealed_digest);
}

#[test]
fn what_is_free_moves_and_the_rest_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    file(&path, answer(&[(1, 2)]));
    let Settled::Moved(moved) = settle_conflict(&at(&path)).unwrap() else { panic!("not moved") };
    assert_eq!((moved.openings, moved.events, moved.left), (2, 11, 3));
    assert_eq!(rows(&Leftover::open(&path).unwrap()), MOVED);
    assert_moved(&path);

    let aside = Leftover::open(&moved.aside).unwrap();
    assert_eq!(aside.moved, Some((moved.to, vec![OpeningId([2; 16]), OpeningId([3; 16])])));
    assert_eq!(rows(&aside).len(), 4, "the old file is as it was");
    // Whoever comes late finds nothing to do.
    assert_eq!(settle_conflict(&at(&path)).unwrap(), Settled::InOrder);
}

#[test]
fn without_a_word_of_the_collector_nothing_moves() {
    let elsewhere = Some(ConflictAnswer { asked: vec![OpeningId([7; 16])], settled: vec![] });
    for answer in [None, elsewhere, answer(&[(1, 2), (2, 5), (3, 5)])] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal.redb");
        file(&path, answer);
        let Settled::SetAside(aside) = settle_conflict(&at(&path)).unwrap() else {
            panic!("moved")
        };
        let moved = Leftover::open(&aside).unwrap().moved;
        assert_eq!((path.exists(), moved), (false, Some((STREAM, vec![]))));
    }
}

#[test]
fn what_is_noted_to_stay_does_not_move_any_more() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    file(&path, answer(&[(1, 2)]));
    // As a start leaves it that could make no hard link, and ended before it gave the file its new name.
    let old = Leftover::open_to_note(&path).unwrap();
    note(&old, &MovedRow { to: STREAM, openings: vec![] }).unwrap();
    drop(old);
    assert!(matches!(settle_conflict(&at(&path)).unwrap(), Settled::SetAside(_)));
}

#[test]
fn a_step_that_was_cut_short_is_done_again() {
    let making = format!("journal.redb.moving-{}", moved_stream(STREAM, OpeningId([2; 16])));
    let aside = format!("journal.redb.conflict-{STREAM}");
    type Leave = fn(&Path, &Path, &Path);
    let half_made: Leave = |_, making, _| fs::write(making, b"half").unwrap();
    let linked: Leave = |path, _, aside| fs::hard_link(path, aside).unwrap();
    let noted: Leave = |path, _, aside| {
        fs::hard_link(path, aside).unwrap();
        let old = Leftover::open(path).unwrap();
        note_moved(&old, &Plan::of(&old).unwrap().unwrap()).unwrap();
    };
    for leave in [half_made, linked, noted] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("journal.redb");
        file(&path, answer(&[(1, 2)]));
        leave(&path, &folder.path().join(&making), &folder.path().join(&aside));
        // Until the step is done, the journal is in conflict.
        let opened = Journal::open(at(&path), fresh(9), NOON, Duration::ZERO);
        assert!(matches!(opened, Err(OpenError::Conflicted { .. })));
        assert!(matches!(settle_conflict(&at(&path)).unwrap(), Settled::Moved(_)));
        assert_moved(&path);
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["journal.redb".to_owned(), aside.clone()]);
    }
}

#[test]
fn a_crash_at_any_write_leaves_the_old_state() {
    let old = Disk::default();
    in_conflict(|nth| open(&old, nth).0, answer(&[(1, 2)]));
    let before = rows(&leftover(&old));
    let plan = Plan::of(&leftover(&old)).unwrap().unwrap();

    // The new file counts only once it is whole; until then it is thrown away and made again.
    let mut crashes = 0;
    loop {
        let new = Disk::default();
        new.fail_in(Some(crashes));
        match carry_over(&leftover(&old), &plan, new.clone(), options()) {
            Ok(()) => {
                new.fail_in(None);
                assert_eq!(rows(&leftover(&new)), MOVED);
                break;
            }
            Err(_) => crashes += 1,
        }
    }
    assert!(crashes > 20, "{crashes} crashes");

    // The note in the old file is there or not; either way the same moves.
    for changes in 0.. {
        let disk = Disk::holding(old.bytes());
        let held = leftover(&disk);
        disk.fail_in(Some(changes));
        let noted = note_moved(&held, &plan).is_ok();
        drop(held);
        for seed in 0..4 {
            let after = leftover(&disk.after_crash(seed));
            assert_eq!(rows(&after), before, "{changes} changes, seed {seed}");
            assert_eq!(Plan::of(&after).unwrap().as_ref(), Some(&plan));
            assert!(!noted || after.moved.is_some());
        }
        if noted {
            assert!(changes > 0);
            break;
        }
    }
}
