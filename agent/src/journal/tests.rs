//! The journal on simulated disks, against a model, and on files.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers of a test; an overflow panics and fails it"
)]

mod disk;
mod examine;
mod files;
mod golden;
mod letters;
mod model;
mod moving;
mod outage;
mod raw_events;
mod rules;

use std::path::PathBuf;

use tidemark_common::batch::{BodyWriter, EncodedBody, Evidence};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{EventNumber, LedgerId, OpeningId, RulesVersion, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::UniqueKey;

use super::{
    Append, FreshIds, Journal, JournalOptions, RawEvents, Recovered, Seal, Welcomed, Write,
};
use disk::Disk;

const STREAM: StreamId = StreamId([1; 16]);
const LEDGER: LedgerId = LedgerId([9; 16]);
const KEY: UniqueKey = UniqueKey { id: 1, key: [7; 32] };
const NOON: Timestamp = Timestamp(1_800_000_000_000);

fn options() -> JournalOptions {
    JournalOptions {
        path: PathBuf::from("journal.redb"),
        bytes_max: 64 << 20,
        retain_acked_millis: 60_000,
        retain_acked_bytes_max: 4 << 20,
        raw_events_bytes_max: 1_000,
        ids_max: 100,
        ids_window_millis: 60_000,
        dead_letters_max: 10,
        dead_letter_bytes_max: 10_000,
    }
}

/// The ids of the `nth` opening of the test stream.
fn fresh(nth: u8) -> FreshIds {
    FreshIds { stream: STREAM, opening: OpeningId([nth; 16]) }
}

fn open(disk: &Disk, nth: u8) -> (Journal, Recovered) {
    Journal::open_on(disk.clone(), options(), fresh(nth), NOON).unwrap()
}

/// A new journal that has heard from its ledger.
fn welcomed(disk: &Disk) -> Journal {
    let (mut journal, _) = open(disk, 1);
    journal.commit(vec![welcome(0)], NOON).unwrap();
    journal
}

fn welcome(posted: u64) -> Write {
    Write::Welcomed(Welcomed {
        ledger: LEDGER,
        rules: None,
        unique_key: KEY,
        posted_sequence: Sequence(posted),
    })
}

fn append(journal: &Journal, group: u64, events: u32, bytes: Vec<u8>) -> Append {
    let first = journal.state().accepted;
    let mut evidence = journal.state().evidence.clone();
    evidence.set_max(EvidenceCode::Accepted, first + u64::from(events));
    Append {
        group,
        opening: journal.state().opening,
        rules: RulesVersion(0),
        first_event: EventNumber(first),
        events,
        oldest: NOON,
        evidence,
        bytes,
    }
}

fn seal(group: u64, opening: OpeningId, first: u64, end: u64) -> Write {
    Write::Seal(Seal {
        group: Some(group),
        opening,
        rules: RulesVersion(1),
        first_event: EventNumber(first),
        end_event: EventNumber(end),
        body: body(end),
        raw_events: RawEvents::Dropped,
    })
}

/// A batch of evidence alone.
fn seal_evidence(opening: OpeningId, at: u64) -> Write {
    Write::Seal(Seal {
        group: None,
        opening,
        rules: RulesVersion(1),
        first_event: EventNumber(at),
        end_event: EventNumber(at),
        body: body(at),
        raw_events: RawEvents::Dropped,
    })
}

/// A body that nothing is in but a salt of its own.
fn body(salt: u64) -> EncodedBody {
    let mut salted = [0; 32];
    salted[..8].copy_from_slice(&salt.to_be_bytes());
    BodyWriter::new(salted, &Evidence::default()).finish().unwrap()
}

/// Appends, seals and returns the sequences of `count` batches of one event each.
fn batches(journal: &mut Journal, count: u64) -> Vec<Sequence> {
    (0..count)
        .map(|_| {
            let first = journal.state().accepted;
            let opening = journal.state().opening;
            let chunk = append(journal, first + 1, 1, vec![5; 100]);
            let writes = vec![Write::Append(chunk), seal(first + 1, opening, first, first + 1)];
            journal.commit(writes, NOON).unwrap().sealed[0].0
        })
        .collect()
}

#[test]
fn rejected_input_alone_never_fills_a_journal() {
    use crate::event::Door;
    let letters = JournalOptions {
        bytes_max: 64 << 20,
        dead_letters_max: 10_000,
        dead_letter_bytes_max: 16 << 20,
        ..options()
    };
    let (mut journal, _) = Journal::open_on(Disk::default(), letters, fresh(1), NOON).unwrap();
    let letter = || super::DeadLetter {
        at: NOON,
        door: Door::Udp,
        reason: EvidenceCode::RejectedMalformed,
        bytes: vec![b'x'; 4_096],
    };
    for _ in 0..100 {
        let letters = (0..64).map(|_| letter()).collect();
        journal.commit(vec![Write::DeadLetters(letters)], NOON).unwrap();
        assert!(!journal.state().full);
    }
    assert!(journal.state().dead_letters > 0);
}
