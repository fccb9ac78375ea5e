//! What each write does, refuses and drops; durability; the budget.

use proptest::prelude::*;

use tidemark_common::wire::FirstHeld;

use super::*;
use crate::event::{Door, IdDigest, SourceCount};
use crate::journal::apply::SOURCES_MAX;
use crate::journal::{DeadLetter, JournalError};

fn letter(bytes: usize) -> DeadLetter {
    DeadLetter {
        at: NOON,
        door: Door::Udp,
        reason: EvidenceCode::RejectedMalformed,
        bytes: vec![b'x'; bytes],
    }
}

fn conserved(journal: &Journal) {
    let state = journal.state();
    let parts = state.posted_events + state.events_in_chunks + state.events_in_unposted_batches;
    assert_eq!(state.accepted, parts, "{state:?}");
}

#[test]
fn an_append_is_synced_before_its_commit_returns() {
    let disk = Disk::default();
    let (mut journal, _) = open(&disk, 1);
    for _ in 0..10 {
        let before = disk.syncs();
        let chunk = append(&journal, 1, 3, vec![1; 50]);
        journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
        assert!(disk.syncs() > before);
    }
}

#[test]
fn opening_is_synced_before_anything_can_be_appended() {
    let disk = Disk::default();
    let (journal, _) = open(&disk, 1);
    let crashed = disk.after_crash(0);
    drop(journal);
    let (journal, recovered) = open(&crashed, 2);
    assert_eq!(journal.state().stream, STREAM);
    assert!(!recovered.clean);
    assert_eq!(journal.state().evidence.get(EvidenceCode::UncleanStarts), 1);
}

#[test]
fn nothing_is_sealed_before_a_ledger_is_known() {
    let (mut journal, _) = open(&Disk::default(), 1);
    let opening = journal.state().opening;
    let chunk = append(&journal, 1, 3, vec![1; 50]);
    journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
    assert_eq!(journal.commit(vec![seal(1, opening, 0, 3)], NOON), Err(JournalError::NoLedger));
    journal.commit(vec![welcome(0), seal(1, opening, 0, 3)], NOON).unwrap();
    assert_eq!(journal.state().sealed_sequence, Sequence(1));
    conserved(&journal);
}

#[test]
fn seals_of_one_commit_chain_and_take_their_chunks_along() {
    let mut journal = welcomed(&Disk::default());
    let opening = journal.state().opening;
    let first = append(&journal, 1, 2, vec![1; 50]);
    journal.commit(vec![Write::Append(first)], NOON).unwrap();
    let second = append(&journal, 2, 3, vec![2; 50]);
    journal.commit(vec![Write::Append(second)], NOON).unwrap();

    let writes = vec![seal(1, opening, 0, 2), seal_evidence(opening, 2), seal(2, opening, 2, 5)];
    let committed = journal.commit(writes, NOON).unwrap();
    let reader = journal.reader();
    assert_eq!(
        committed.sealed.iter().map(|(sequence, _)| sequence.0).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    for (sequence, digest) in &committed.sealed {
        assert_eq!(reader.digest(*sequence).unwrap(), Some(*digest));
        assert_eq!(reader.header(*sequence).unwrap().unwrap().digest(), *digest);
    }
    let second = reader.header(Sequence(2)).unwrap().unwrap();
    assert_eq!((second.previous, second.events()), (committed.sealed[0].1, 0));
    assert_eq!(reader.header(Sequence(3)).unwrap().unwrap().previous, committed.sealed[1].1);
    assert_eq!(reader.chunks(1).unwrap().count() + reader.chunks(2).unwrap().count(), 0);
    assert_eq!(journal.state().events_in_unposted_batches, 5);
    assert_eq!(journal.state().chunk_bytes, 0);
    conserved(&journal);
}

#[test]
fn writes_out_of_order_are_refused_whole_and_the_journal_goes_on() {
    let mut journal = welcomed(&Disk::default());
    let opening = journal.state().opening;
    let chunk = append(&journal, 1, 2, vec![1; 50]);
    journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
    let before = journal.state().clone();

    let good = || append(&journal, 1, 1, vec![1]);
    let hole = Append { first_event: EventNumber(3), ..good() };
    let stranger = Append { opening: OpeningId([8; 16]), ..good() };
    let other_ledger = Welcomed {
        ledger: LedgerId([8; 16]),
        rules: None,
        unique_key: KEY,
        posted_sequence: Sequence::ZERO,
    };
    let refused = [
        vec![Write::Append(good()), Write::Append(good())],
        vec![Write::Append(hole)],
        vec![Write::Append(stranger)],
        vec![seal(7, opening, 0, 2)],
        vec![seal(1, opening, 0, 1)],
        vec![seal(1, opening, 1, 2)],
        vec![seal(1, OpeningId([8; 16]), 0, 2)],
        vec![Write::Posted(Sequence(1))],
        vec![welcome(1)],
        vec![Write::Welcomed(other_ledger)],
    ];
    for writes in refused {
        let error = format!("{writes:?}");
        let error = journal.commit(writes, NOON).expect_err(&error);
        assert!(!error.is_fatal(), "{error}");
        assert_eq!(*journal.state(), before);
    }
    journal.commit(vec![seal(1, opening, 0, 2)], NOON).unwrap();
}

#[test]
fn a_failed_disk_fails_every_later_call() {
    let disk = Disk::default();
    let mut journal = welcomed(&disk);
    disk.fail_in(Some(0));
    let chunk = append(&journal, 1, 1, vec![1]);
    let error = journal.commit(vec![Write::Append(chunk)], NOON).unwrap_err();
    assert!(error.is_fatal());
    disk.fail_in(None);
    let syncs = disk.syncs();
    assert_eq!(journal.commit(vec![Write::Closed], NOON), Err(error));
    assert_eq!(disk.syncs(), syncs, "an fsync was tried again");
}

#[test]
fn posted_batches_leave_after_their_time() {
    let mut journal = welcomed(&Disk::default());
    batches(&mut journal, 3);
    journal.commit(vec![Write::Posted(Sequence(1))], NOON).unwrap();
    journal.commit(vec![Write::Posted(Sequence(2))], NOON.plus_millis(10_000)).unwrap();
    let held =
        |journal: &Journal| (journal.state().retained_batches, journal.state().backlog_batches);
    assert_eq!(held(&journal), (2, 1));

    journal.commit(vec![Write::Ids(Vec::new())], NOON.plus_millis(60_000)).unwrap();
    assert_eq!(held(&journal), (2, 1));
    journal.commit(vec![Write::Ids(Vec::new())], NOON.plus_millis(60_001)).unwrap();
    assert_eq!(held(&journal), (1, 1));
    // A clock that is set ahead has not made anything older; after it, time goes on.
    let ahead = NOON.plus_millis(9_000_000_000);
    journal.commit(vec![Write::Ids(Vec::new())], ahead).unwrap();
    assert_eq!(held(&journal), (1, 1));
    journal.commit(vec![Write::Ids(Vec::new())], ahead.plus_millis(10_000)).unwrap();
    assert_eq!(held(&journal), (0, 1));
    let reader = journal.reader();
    let first = reader.header(Sequence(3)).unwrap().unwrap().first_event;
    assert_eq!(
        reader.first_held().unwrap(),
        Some(FirstHeld { sequence: Sequence(3), event: first })
    );
    assert_eq!(reader.batch(Sequence(2)).unwrap(), None);
    assert_eq!(reader.digest(Sequence(2)).unwrap(), Some(journal.state().posted_digest));
    conserved(&journal);
}

#[test]
fn the_last_posted_digest_outlives_its_batch_and_a_restart() {
    let disk = Disk::default();
    let mut journal = welcomed(&disk);
    batches(&mut journal, 2);
    let digest = journal.state().sealed_digest;
    journal.commit(vec![Write::Posted(Sequence(2))], NOON).unwrap();
    journal.commit(vec![Write::Closed], NOON.plus_millis(60_001)).unwrap();
    assert_eq!(journal.state().retained_batches, 0);
    drop(journal);
    let (journal, recovered) = open(&disk, 2);
    assert!(recovered.clean);
    assert_eq!(
        (journal.state().posted_sequence, journal.state().posted_digest),
        (Sequence(2), digest)
    );
    assert_eq!(journal.reader().digest(Sequence(2)).unwrap(), Some(digest));
    assert_eq!(journal.reader().digest(Sequence(1)).unwrap(), None);
}

#[test]
fn retained_batches_are_bounded_in_bytes() {
    let mut options = options();
    options.retain_acked_bytes_max = 1_000;
    let (mut journal, _) = Journal::open_on(Disk::default(), options, fresh(1), NOON).unwrap();
    journal.commit(vec![welcome(0)], NOON).unwrap();
    batches(&mut journal, 10);
    journal.commit(vec![Write::Posted(Sequence(10))], NOON).unwrap();
    let state = journal.state();
    assert!(state.retained_bytes <= 1_000 && state.retained_batches > 1, "{state:?}");
}

#[test]
fn a_restored_ledger_gets_retained_batches_again() {
    let disk = Disk::default();
    let mut journal = welcomed(&disk);
    batches(&mut journal, 5);
    journal.commit(vec![Write::Posted(Sequence(4))], NOON).unwrap();
    let digest = journal.reader().digest(Sequence(2)).unwrap().unwrap();
    journal.commit(vec![welcome(2)], NOON).unwrap();

    let state = journal.state().clone();
    assert_eq!((state.posted_sequence, state.posted_digest), (Sequence(2), digest));
    assert_eq!((state.posted_events, state.events_in_unposted_batches), (2, 3));
    assert_eq!((state.backlog_batches, state.retained_batches), (3, 2));
    assert_eq!((state.held[0].first, state.held[0].end), (EventNumber(2), EventNumber(5)));
    conserved(&journal);
    journal.commit(vec![welcome(0)], NOON).unwrap();
    assert_eq!(journal.state().backlog_batches, 5);
    assert_eq!(
        journal.state().posted_digest,
        journal.reader().header(Sequence(1)).unwrap().unwrap().previous
    );
    drop(journal);
    assert_eq!(open(&disk, 2).0.state().backlog_batches, 5);
}

#[test]
fn a_ledger_behind_all_that_is_retained_is_refused() {
    let mut journal = welcomed(&Disk::default());
    batches(&mut journal, 5);
    journal.commit(vec![Write::Posted(Sequence(3))], NOON).unwrap();
    journal.commit(vec![Write::Posted(Sequence(5))], NOON.plus_millis(60_001)).unwrap();
    let error = journal.commit(vec![welcome(1)], NOON.plus_millis(60_001)).unwrap_err();
    assert_eq!(error, JournalError::NotRetained { posted: Sequence(1), first: Sequence(4) });
    journal.commit(vec![welcome(3)], NOON.plus_millis(60_001)).unwrap();
    assert_eq!(journal.state().backlog_batches, 2);
}

#[test]
fn ids_outlast_a_step_of_the_clock() {
    let disk = Disk::default();
    let (mut journal, _) = open(&disk, 1);
    let ahead = NOON.plus_millis(13 * 365 * 86_400_000);
    let row = |byte: u8| Write::Ids(vec![IdDigest([byte; 16])]);
    journal.commit(vec![row(1)], NOON).unwrap();
    journal.commit(vec![row(2)], ahead).unwrap();
    drop(journal);
    let (mut journal, recovered) = open(&disk, 2);
    let kept = [(NOON, vec![IdDigest([1; 16])]), (NOON, vec![IdDigest([2; 16])])];
    assert_eq!(recovered.ids, kept);
    journal.commit(vec![row(3)], NOON).unwrap();
    assert_eq!(journal.state().ids, 3, "and the step back");
}

#[test]
fn ids_leave_in_whole_rows_by_number_and_by_time() {
    let disk = Disk::default();
    let (mut journal, _) = open(&disk, 1);
    let row = |byte: u8, ids: usize| Write::Ids(vec![IdDigest([byte; 16]); ids]);
    journal.commit(vec![row(1, 60)], NOON).unwrap();
    journal.commit(vec![row(2, 40)], NOON.plus_millis(1_000)).unwrap();
    assert_eq!(journal.state().ids, 100);
    journal.commit(vec![row(3, 1)], NOON.plus_millis(2_000)).unwrap();
    assert_eq!(journal.state().ids, 41);
    journal.commit(vec![row(4, 1)], NOON.plus_millis(61_001)).unwrap();
    assert_eq!(journal.state().ids, 2);
    drop(journal);
    let (_, recovered) = open(&disk, 2);
    let kept = [
        (NOON.plus_millis(2_000), vec![IdDigest([3; 16])]),
        (NOON.plus_millis(61_001), vec![IdDigest([4; 16])]),
    ];
    assert_eq!(recovered.ids, kept);
    assert_eq!(recovered.newest, NOON.plus_millis(61_001));
}

#[test]
fn dead_letters_are_bounded_in_number_and_bytes() {
    let (mut journal, _) = open(&Disk::default(), 1);
    let numbers = |journal: &Journal| {
        journal
            .reader()
            .dead_letters(0, 100)
            .unwrap()
            .iter()
            .map(|letter| letter.number)
            .collect::<Vec<_>>()
    };
    journal.commit(vec![Write::DeadLetters((0..12).map(letter).collect())], NOON).unwrap();
    assert_eq!(journal.state().dead_letters, 10);
    journal
        .commit(vec![Write::DeadLetters(vec![letter(4_000), letter(20_000), letter(5_000)])], NOON)
        .unwrap();
    assert_eq!(numbers(&journal), [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    journal.commit(vec![Write::DeadLetters(vec![letter(4_000)])], NOON).unwrap();
    assert_eq!(numbers(&journal), [11, 12]);
    assert_eq!(journal.reader().dead_letters(12, 1).unwrap()[0].bytes.len(), 4_000);
    assert!(journal.state().dead_letter_bytes <= 10_000);
}

#[test]
fn the_longest_silent_sources_make_room() {
    let disk = Disk::default();
    let (mut journal, _) = open(&disk, 1);
    let count = |name: &str, count| SourceCount { source: name.to_owned(), count };
    journal.commit(vec![Write::SourceCounts(vec![count("silent", 1)])], NOON).unwrap();
    let later = NOON.plus_millis(1);
    let many = (0..SOURCES_MAX - 1).map(|index| count(&format!("s{index}"), 1)).collect();
    journal.commit(vec![Write::SourceCounts(many)], later).unwrap();
    journal
        .commit(
            vec![Write::SourceCounts(vec![count("new", 5), count("new", 6)])],
            later.plus_millis(1),
        )
        .unwrap();
    drop(journal);
    let (_, recovered) = open(&disk, 2);
    assert_eq!(recovered.sources.len(), SOURCES_MAX - SOURCES_MAX / 4);
    assert!(recovered.sources.contains(&count("new", 6)));
    assert!(!recovered.sources.iter().any(|source| source.source == "silent"));
}

#[test]
fn evidence_never_goes_back() {
    let disk = Disk::default();
    let (mut journal, _) = open(&disk, 1);
    let evidence =
        |drops| Evidence::from_iter([(EvidenceCode::KernelDrops.number(), drops), (60_000, 1)]);
    journal.commit(vec![Write::Evidence(evidence(5))], NOON).unwrap();
    journal.commit(vec![Write::Evidence(evidence(3))], NOON).unwrap();
    drop(journal);
    let (journal, _) = open(&disk, 2);
    assert_eq!(journal.state().evidence.get(EvidenceCode::KernelDrops), 5);
    assert_eq!(journal.state().evidence.get(EvidenceCode::UncleanStarts), 1);
    assert!(journal.state().evidence.iter().any(|count| count == (60_000, 1)));
}

#[test]
fn a_close_is_clean_until_something_follows_it() {
    let disk = Disk::default();
    let (mut journal, _) = open(&disk, 1);
    journal.commit(vec![Write::Closed], NOON).unwrap();
    drop(journal);
    let (mut journal, recovered) = open(&disk, 2);
    assert!(recovered.clean);
    journal.commit(vec![Write::Closed], NOON).unwrap();
    let chunk = append(&journal, 1, 1, vec![1]);
    journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
    drop(journal);
    let (journal, recovered) = open(&disk, 3);
    assert!(!recovered.clean);
    drop(journal);
    let (journal, _) = open(&disk, 4);
    assert_eq!(journal.state().evidence.get(EvidenceCode::UncleanStarts), 2);
}

#[test]
fn groups_come_back_oldest_first_with_their_last_evidence() {
    let disk = Disk::default();
    let (mut journal, recovered) = open(&disk, 1);
    assert_eq!(recovered.next_group, 1);
    for (group, events) in [(1, 2), (1, 3), (4, 5)] {
        let mut chunk = append(&journal, group, events, vec![7; 10]);
        chunk.oldest = NOON.plus_millis(-i64::from(events));
        journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
    }
    assert_eq!(journal.state().oldest_unposted, Some(NOON.plus_millis(-3)));
    drop(journal);
    let (journal, recovered) = open(&disk, 2);
    let groups: Vec<_> = recovered
        .groups
        .iter()
        .map(|group| {
            (group.group, group.first_event.0, group.end_event.0, group.chunks, group.oldest)
        })
        .collect();
    assert_eq!(groups, [(1, 0, 5, 2, NOON.plus_millis(-3)), (4, 5, 10, 1, NOON.plus_millis(-5))]);
    let accepted = recovered.groups.iter().map(|group| group.evidence.get(EvidenceCode::Accepted));
    assert_eq!(accepted.collect::<Vec<_>>(), [5, 10]);
    assert_eq!(recovered.next_group, 5);
    assert_eq!(journal.state().held.len(), 1);
    assert_eq!(journal.state().held[0].opening, OpeningId([1; 16]));
}

/// The budget of a journal with the least that is allowed.
fn small() -> JournalOptions {
    JournalOptions { bytes_max: 16 << 20, retain_acked_bytes_max: u64::MAX, ..options() }
}

#[test]
fn retained_batches_leave_before_the_journal_is_full() {
    let (mut journal, _) = Journal::open_on(Disk::default(), small(), fresh(1), NOON).unwrap();
    journal.commit(vec![welcome(0)], NOON).unwrap();
    for nth in 0..4_000 {
        let sequence = batches(&mut journal, 1)[0];
        journal.commit(vec![Write::Posted(sequence)], NOON).unwrap();
        assert!(!journal.state().full, "after {nth}");
    }
    assert!(journal.state().retained_batches > 1_000);
    let mut events = 0;
    while !journal.state().full {
        let chunk = append(&journal, 10_000, 1, vec![3; 60_000]);
        journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
        events += 1;
    }
    assert_eq!(journal.state().retained_batches, 0);
    assert!(events > 60);
    conserved(&journal);
}

/// Fills, seals and posts again and again; the file must stay in its budget.
fn fill(chunk_bytes: usize, chunks: u64, body_bytes: usize) {
    let (mut journal, _) = Journal::open_on(Disk::default(), small(), fresh(1), NOON).unwrap();
    journal.commit(vec![welcome(0)], NOON).unwrap();
    let opening = journal.state().opening;
    let mut times_full = 0;
    for group in 1..4_000 {
        let first = journal.state().accepted;
        for _ in 0..chunks {
            let chunk = append(&journal, group, 1, vec![3; chunk_bytes]);
            journal.commit(vec![Write::Append(chunk)], NOON).unwrap();
        }
        let mut body = body(group);
        body.stored.resize(body_bytes, 0);
        let (first_event, end_event) = (EventNumber(first), EventNumber(first + chunks));
        let seal = Seal {
            group: Some(group),
            opening,
            rules: RulesVersion(1),
            first_event,
            end_event,
            body,
            raw_events: RawEvents::Dropped,
        };
        journal.commit(vec![Write::Seal(seal)], NOON).unwrap();
        assert!(journal.state().file_bytes <= small().bytes_max, "{:?}", journal.state());
        if journal.state().full {
            times_full += 1;
            let sealed = journal.state().sealed_sequence;
            journal.commit(vec![Write::Posted(sealed)], NOON).unwrap();
            assert!(!journal.state().full);
        }
        if times_full == 4 {
            break;
        }
    }
    conserved(&journal);
}

#[test]
fn batches_as_large_as_the_reserve_fit_the_file() {
    fill(2_000, 2, 525_041);
    fill(65_501, 19, 999_999);
    fill(65_000, 1, 1_100_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_file_stays_in_its_budget(
        chunk_bytes in 2_000_usize..66_000,
        chunks in 1_u64..20,
        body_bytes in 200_usize..1_000_000,
    ) {
        fill(chunk_bytes, chunks, body_bytes);
    }
}
