//! Dead letters that leave with their events: a crash at any moment replays each exactly once.

use super::*;
use crate::event::Door;
use crate::journal::DeadLetter;

/// Changes and syncs of a disk that one commit takes at most, generously.
const CHANGES_MAX: u64 = 60;

fn letters(count: u64) -> Write {
    let letter = |number: u64| DeadLetter {
        at: NOON,
        door: Door::Events,
        reason: EvidenceCode::RejectedNoCustomer,
        bytes: number.to_be_bytes().to_vec(),
    };
    Write::DeadLetters((0..count).map(letter).collect())
}

/// What the agent commits when it replays `number`.
fn replay(journal: &Journal, number: u64) -> Vec<Write> {
    let group = journal.state().accepted + 1;
    vec![Write::Append(append(journal, group, 1, vec![7; 300])), Write::Replayed(vec![number])]
}

fn held(journal: &Journal) -> Vec<u64> {
    let letters = journal.reader().dead_letters(0, usize::MAX).unwrap();
    letters.into_iter().map(|letter| letter.number).collect()
}

#[test]
fn a_letter_leaves_with_its_events_and_is_counted_out() {
    let disk = Disk::default();
    let mut journal = welcomed(&disk);
    journal.commit(vec![letters(3)], NOON).unwrap();
    let live_bytes = journal.state().live_bytes;
    let writes = replay(&journal, 1);
    journal.commit(writes, NOON).unwrap();
    assert_eq!(held(&journal), [0, 2]);
    assert_eq!((journal.state().dead_letters, journal.state().accepted), (2, 1));
    // One that has left already is no error: limits may have been faster.
    journal.commit(vec![Write::Replayed(vec![1, 99])], NOON).unwrap();
    journal.commit(vec![Write::Replayed(vec![0, 2])], NOON).unwrap();
    assert_eq!((journal.state().dead_letters, journal.state().dead_letter_bytes), (0, 0));
    assert!(journal.state().live_bytes < live_bytes + 4_096);
    drop(journal);
    let (journal, _) = open(&disk, 2);
    assert_eq!((journal.state().dead_letters, journal.state().accepted), (0, 1));
}

#[test]
fn a_crash_at_any_change_replays_each_letter_once() {
    const LETTERS: u64 = 4;
    let mut interrupted = 0;
    for changes in 0..CHANGES_MAX {
        for seed in [changes, changes + 1_000] {
            let mut disk = Disk::default();
            let mut journal = welcomed(&disk);
            journal.commit(vec![letters(LETTERS)], NOON).unwrap();
            // A person replays all, the agent dies on the way, and the person does it again.
            disk.fail_in(Some(changes));
            let mut nth = 2;
            while let Some(number) = held(&journal).first().copied() {
                let writes = replay(&journal, number);
                if journal.commit(writes, NOON).is_err() {
                    interrupted += 1;
                    drop(journal);
                    disk = disk.after_crash(seed);
                    (journal, _) = open(&disk, nth);
                    nth += 1;
                }
                let state = journal.state();
                let left = u64::try_from(held(&journal).len()).unwrap();
                assert_eq!(state.accepted + left, LETTERS, "changes {changes}, seed {seed}");
                assert_eq!(state.dead_letters, left);
            }
            assert_eq!(journal.state().accepted, LETTERS);
        }
    }
    assert!(interrupted > 20, "only {interrupted} crashes hit a replay");
}
