//! Raw events of sealed batches: kept in order until they are archived, and the first to make room.

use tidemark_common::wire::events_chunks;

use super::*;

fn keeping(bytes: u64) -> JournalOptions {
    JournalOptions { raw_events_bytes_max: bytes, ..options() }
}

fn open_keeping(disk: &Disk, nth: u8, bytes: u64) -> Journal {
    let (mut journal, _) =
        Journal::open_on(disk.clone(), keeping(bytes), fresh(nth), NOON).unwrap();
    journal.commit(vec![welcome(journal.state().posted_sequence.0)], NOON).unwrap();
    journal
}

/// Seals a batch of chunks of these payloads, one event each.
fn kept(journal: &mut Journal, payloads: &[Vec<u8>]) -> Sequence {
    let (first, opening) = (journal.state().accepted, journal.state().opening);
    let group = first + 1;
    for payload in payloads {
        let chunk = append(journal, group, 1, payload.clone());
        journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
    }
    let Write::Seal(seal) = seal(group, opening, first, journal.state().accepted) else {
        unreachable!()
    };
    let seal = Seal { raw_events: RawEvents::Kept, ..seal };
    journal.commit(vec![Write::Seal(seal)], NOON).unwrap().sealed[0].0
}

/// The chunks of a batch, out of its pieces.
fn chunks(journal: &Journal, sequence: Sequence) -> Vec<Vec<u8>> {
    let (mut chunks, mut next) = (Vec::new(), 0);
    while let Some(piece) = journal.reader().raw_events((sequence, next), sequence).unwrap() {
        assert_eq!((piece.sequence, piece.index), (sequence, next));
        chunks.extend(events_chunks(&piece.bytes).map(|chunk| chunk.unwrap().to_vec()));
        next += 1;
        assert!(next <= piece.of && piece.bytes.len() <= 65_000 + 4);
        if next == piece.of {
            break;
        }
    }
    chunks
}

fn held(journal: &Journal) -> (u64, Option<u64>, Option<u64>, u64) {
    let raw = journal.state().raw_events;
    (raw.batches, raw.first.map(|first| first.0), raw.last.map(|last| last.0), raw.given_up)
}

#[test]
fn chunks_come_back_as_they_were_until_they_are_archived() {
    let disk = Disk::default();
    let mut journal = open_keeping(&disk, 1, 1 << 20);
    let small: Vec<Vec<u8>> = (0..30).map(|byte| vec![byte; 100]).collect();
    let large: Vec<Vec<u8>> = (0..5).map(|byte| vec![byte; 60_000]).collect();
    assert_eq!(kept(&mut journal, &small), Sequence(1));
    assert_eq!(batches(&mut journal, 1), [Sequence(2)]);
    assert_eq!(kept(&mut journal, &large), Sequence(3));
    for _ in 0..2 {
        assert_eq!(held(&journal), (2, Some(1), Some(3), 0));
        assert_eq!(chunks(&journal, Sequence(1)), small);
        assert!(chunks(&journal, Sequence(2)).is_empty());
        assert_eq!(chunks(&journal, Sequence(3)), large);
        let found = journal.reader().raw_events((Sequence(2), 0), Sequence(3)).unwrap().unwrap();
        assert_eq!((found.sequence, found.index, found.of), (Sequence(3), 0, 5));
        assert_eq!(journal.reader().raw_events((Sequence(2), 0), Sequence(2)), Ok(None));
        // A start finds the same, and the same room.
        let live_bytes = journal.state().live_bytes;
        drop(journal);
        journal = open_keeping(&disk, 2, 1 << 20);
        assert_eq!(journal.state().live_bytes, live_bytes);
    }
    journal.commit(vec![Write::Archived(Sequence(2))], NOON).unwrap();
    assert_eq!(held(&journal), (1, Some(3), Some(3), 0));
    journal.commit(vec![Write::Archived(Sequence(9))], NOON).unwrap();
    assert_eq!((held(&journal), journal.state().raw_events.bytes), ((0, None, None, 0), 0));
    assert_eq!(journal.reader().raw_events((Sequence(1), 0), Sequence(9)), Ok(None));
}

#[test]
fn beyond_their_bytes_the_oldest_leave() {
    let disk = Disk::default();
    let mut journal = open_keeping(&disk, 1, 100_000);
    for byte in 0..4 {
        kept(&mut journal, &[vec![byte; 40_000]]);
    }
    assert_eq!(held(&journal), (2, Some(3), Some(4), 2));
    // Where none are kept any more, those of before leave too.
    drop(journal);
    let journal = open_keeping(&disk, 2, 0);
    assert_eq!(held(&journal), (0, None, None, 2));
}

#[test]
fn at_the_budget_they_leave_before_anything_else() {
    let disk = Disk::default();
    let options = JournalOptions { bytes_max: 16 << 20, ..keeping(u64::MAX) };
    let (mut journal, _) = Journal::open_on(disk, options, fresh(1), NOON).unwrap();
    journal.commit(vec![welcome(0)], NOON).unwrap();
    let posted = *batches(&mut journal, 3).last().unwrap();
    journal.commit(vec![Write::Posted(posted)], NOON).unwrap();
    for _ in 0..400 {
        kept(&mut journal, &[vec![7; 60_000]]);
        assert!(!journal.state().full, "nobody is refused for them");
    }
    assert!(journal.state().raw_events.given_up > 0);
    assert_eq!(journal.state().retained_batches, 3, "what is retained stays");
    assert_eq!(journal.state().backlog_batches, 400);
}

#[test]
fn raw_events_of_a_batch_that_is_not_sealed_are_corruption() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("journal.redb");
    let options = || JournalOptions { path: path.clone(), ..keeping(1 << 20) };
    let opened = || Journal::open(options(), fresh(1), NOON, std::time::Duration::ZERO);
    drop(opened().unwrap());
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let table = crate::journal::tables::RAW_EVENTS;
    write.open_table(table).unwrap().insert((1, 0), &[1, 0, 0, 0, 0][..]).unwrap();
    write.commit().unwrap();
    drop(database);
    let told = opened().unwrap_err().to_string();
    assert!(told.contains("raw events 1.0"), "{told}");
}
