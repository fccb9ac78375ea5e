//! A sound ledger has no findings; each planted damage has its own.

use redb::backends::InMemoryBackend;
use tidemark_common::batch::HEADER_BYTES;
use tidemark_common::id::{Fence, Sequence};

use super::*;
use crate::ledger::conformance::{self, Journal, NOW, commit, damaged, greet};
use crate::ledger::redb::{RedbOptions, RedbStore};
use crate::ledger::store::{LedgerStore, StoreError};

type Rows = Vec<(LedgerTable, Vec<u8>, Vec<u8>)>;

/// A ledger with two streams: one of three openings and a quarantined batch, checkpointed half-way;
/// one that comes behind the checkpoint.
async fn rows() -> Rows {
    let options = RedbOptions::default();
    let backend = InMemoryBackend::new;
    let (store, recovered) = RedbStore::open_on(backend(), backend(), &options, NOW).unwrap();
    let mut first = Journal::new(1, recovered.ledger);
    for opening in 1..=3 {
        first.opening = OpeningId([opening; 16]);
        first.seal(&[("c", "m", 1, 5), ("c", "n", 2, 5)]);
        first.seal(&[("c", "m", 3, 5)]);
    }
    greet(&store, &mut first, 0).await;
    let unreadable = damaged(&first.sealed[1]);
    let group = vec![first.admit(1), conformance::admit(&unreadable, first.fence), first.admit(3)];
    commit(&store, group).await;
    store.checkpoint().await.unwrap();
    commit(&store, vec![first.admit(4), first.admit(5)]).await;
    let mut second = Journal::new(2, recovered.ledger);
    second.seal(&[("d", "m", 1, 5)]);
    greet(&store, &mut second, 0).await;
    commit(&store, vec![second.admit(1), first.admit(6)]).await;
    exported(&store)
}

fn exported(store: &RedbStore) -> Rows {
    let mut rows = Rows::new();
    store
        .export::<StoreError>(&mut |table, key, value| {
            rows.push((table, key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    rows
}

fn checked(rows: &Rows) -> Checked {
    let mut checker = Checker::new(Bodies::Open);
    for (table, key, value) in rows {
        checker.row(*table, key, value);
    }
    checker.finish()
}

fn made() -> Rows {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(rows())
}

/// What is found, a line each: kind, place, events.
fn found(rows: &Rows) -> Vec<String> {
    let told = |finding: &Finding| {
        let events = finding.events.map_or(String::new(), |events| format!(", {events} events"));
        format!("{} at {}{events}", finding.kind.name(), finding.place)
    };
    checked(rows).findings.iter().map(told).collect()
}

/// What is found after `change`.
fn check(name: &str, change: impl FnOnce(&mut Rows), expected: &[&str]) {
    let mut rows = made();
    change(&mut rows);
    let (one, two) = ("01".repeat(16), "02".repeat(16));
    let found: Vec<_> =
        found(&rows).iter().map(|line| line.replace(&one, "A").replace(&two, "B")).collect();
    assert_eq!(found, expected, "{name}");
}

fn nth(rows: &Rows, table: LedgerTable, number: usize) -> usize {
    let mut places = rows.iter().enumerate().filter(|(_, row)| row.0 == table);
    places.nth(number).unwrap().0
}

/// Writes one stream's row anew.
fn with_row(rows: &mut Rows, stream: usize, change: impl FnOnce(&mut StreamRecord)) {
    let place = nth(rows, LedgerTable::Streams, stream);
    let mut record = codec::read_stream(&rows[place].2).unwrap();
    change(&mut record);
    rows[place].2 = codec::write_stream(&record).unwrap();
}

#[test]
fn a_sound_ledger_has_no_findings() {
    let checked = checked(&made());
    assert_eq!(checked.findings, Findings::default());
    let counts = checked.counts;
    assert_eq!((counts.batches, counts.events, counts.streams), (7, 10, 2));
    assert_eq!((counts.quarantined_batches, counts.quarantined_events), (1, 1));
    assert_eq!(counts.line_events + counts.quarantined_events, counts.events);
    let ends: Vec<_> = checked.chains.iter().map(|chain| chain.walked.sequence.0).collect();
    assert_eq!(ends, [6, 1]);
}

#[test]
fn batches() {
    let batch = |number| move |rows: &Rows| nth(rows, LedgerTable::Batches, number);
    let flip = |number: usize, byte: usize| {
        move |rows: &mut Rows| {
            let place = batch(number)(rows);
            rows[place].2[byte] ^= 1;
        }
    };
    check(
        "a flipped body byte",
        flip(3, HEADER_BYTES + 9),
        &["batch_body at stream A, batch 4 at position 3, 1 events"],
    );
    check("a header's magic", flip(6, 0), &["batch_header at position 6"]);
    check(
        "a header's end of events",
        flip(2, 63),
        &[
            "batch_body at stream A, batch 3 at position 2, 1 events",
            // Where the row tells of this batch: digest and events.
            "stream_row at stream A",
            "stream_row at stream A",
            "chain at stream A, batches 4 to 4, 1 events",
        ],
    );
    check(
        "a batch removed",
        |rows| drop(rows.remove(nth(rows, LedgerTable::Batches, 3))),
        &["batch_missing at position 3", "batch_missing at stream A, batches 4 to 4, 1 events"],
    );
    check(
        "batches before the checkpoint removed, and all behind",
        |rows| rows.truncate(nth(rows, LedgerTable::Batches, 2)),
        &[
            "batch_missing at position 2",
            "opening at stream A",
            "batch_missing at stream A, batches 3 to 3, 2 events",
        ],
    );
    check(
        "two batches exchanged",
        |rows| {
            let (one, two) =
                (nth(rows, LedgerTable::Batches, 3), nth(rows, LedgerTable::Batches, 4));
            let (three, four) = (rows[one].2.clone(), rows[two].2.clone());
            (rows[one].2, rows[two].2) = (four, three);
        },
        &[
            "batch_missing at stream A, batches 4 to 4, 1 events",
            "chain at stream A, batches 4 to 4, 1 events",
            "batch_missing at stream A, batches 5 to 5, 2 events",
        ],
    );
}

#[test]
fn rows_of_streams_and_openings() {
    check(
        "another digest",
        |rows| with_row(rows, 0, |record| record.posted_digest.0[0] ^= 1),
        &["stream_row at stream A"],
    );
    check(
        "more events than its batches",
        |rows| {
            with_row(rows, 0, |record| {
                record.posted_end = record.posted_end.plus(7);
                record.accepted += 100;
            });
        },
        &["stream_row at stream A"],
    );
    check(
        "fewer accepted than posted",
        |rows| with_row(rows, 0, |record| record.accepted = 2),
        &["stream_row at stream A"],
    );
    check(
        "a fence of an incarnation to come",
        |rows| with_row(rows, 0, |record| record.fence = Fence(u64::MAX)),
        &["stream_row at stream A"],
    );
    check(
        "a row older than the checkpoint",
        |rows| with_row(rows, 0, |record| record.posted_sequence = Sequence(1)),
        // At batch 1 digest, events, quarantine and opening do not fit either.
        &["stream_row at stream A"; 5],
    );
    check(
        "a row ahead of its batches",
        |rows| with_row(rows, 1, |record| record.posted_sequence = Sequence(9)),
        &["batch_missing at stream B, batches 2 to 9, 0 events"],
    );
    check(
        "no quarantine in the row",
        |rows| {
            with_row(rows, 0, |record| {
                (record.quarantined_batches, record.quarantined_events) = (0, 0);
            });
        },
        &["stream_row at stream A"],
    );
}

#[test]
fn rows_that_are_lost_or_none() {
    check(
        "a row lost",
        |rows| drop(rows.remove(nth(rows, LedgerTable::Streams, 0))),
        &["stream_row at stream A"],
    );
    check(
        "a row that is none",
        |rows| {
            let place = nth(rows, LedgerTable::Streams, 0);
            rows[place].2.truncate(9);
        },
        &["stream_row at stream A", "stream_row at stream A"],
    );
    check(
        "an opening's end",
        |rows| {
            let place = nth(rows, LedgerTable::Openings, 0);
            rows[place].2[7] += 1;
        },
        &["opening at stream A"],
    );
    check(
        "an opening that no batch has",
        |rows| {
            let place = nth(rows, LedgerTable::Openings, 0);
            let mut row = rows[place].clone();
            row.1[20] ^= 1;
            rows.insert(place, row);
        },
        &["opening at stream A"],
    );
}

/// Adds a row of marks, as a collector writes it for a ledger of format `format`.
fn marked(position: u64, marks: &[u8], format: u16) -> impl FnOnce(&mut Rows) {
    move |rows| {
        let place = nth(rows, LedgerTable::Batches, 0);
        rows.insert(place, (LedgerTable::Marks, position.to_be_bytes().to_vec(), marks.to_vec()));
        for row in rows.iter_mut().filter(|row| row.1 == b"format") {
            row.2 = format.to_be_bytes().to_vec();
        }
    }
}

#[test]
fn marks() {
    check("marks of a batch's lines", marked(0, &[3], 2), &[]);
    check(
        "marks of lines that there are not",
        marked(0, &[4], 2),
        &["marks at stream A, batch 1 at position 0, 2 events"],
    );
    check(
        "marks of a batch in quarantine",
        marked(1, &[1], 2),
        &["marks at stream A, batch 2 at position 1, 1 events"],
    );
    check("marks of no batch", marked(99, &[1], 2), &["marks at position 99"]);
    check("marks that older collectors pass over", marked(0, &[1], 1), &["marks at table marks"]);
}

#[test]
fn quarantine_and_what_the_ledger_says_of_itself() {
    check(
        "a quarantine lost",
        |rows| drop(rows.remove(nth(rows, LedgerTable::Quarantine, 0))),
        &["batch_body at stream A, batch 2 at position 1, 1 events", "stream_row at stream A"],
    );
    check(
        "a quarantine of a batch that reads well",
        |rows| {
            let place = nth(rows, LedgerTable::Quarantine, 0);
            rows.insert(place + 1, (LedgerTable::Quarantine, 5_u64.to_be_bytes().to_vec(), vec![]));
        },
        // A version that reads more than the one that admitted it; what it may not do is change the counts.
        &[],
    );
    check(
        "a quarantine that the stream's row does not count",
        |rows| {
            let place = nth(rows, LedgerTable::Quarantine, 0);
            rows.insert(place, (LedgerTable::Quarantine, 0_u64.to_be_bytes().to_vec(), vec![]));
        },
        &["stream_row at stream A"],
    );
    check(
        "a quarantine of nothing",
        |rows| {
            let place = nth(rows, LedgerTable::Quarantine, 0);
            rows.insert(
                place + 1,
                (LedgerTable::Quarantine, vec![0, 0, 0, 0, 0, 0, 0, 99], vec![]),
            );
        },
        &["quarantine at position 99"],
    );
    check(
        "no ledger's id",
        |rows| rows.retain(|row| row.1 != b"ledger"),
        &[
            "chain at stream A, batches 1 to 1, 2 events",
            // A row without batches yet begins at the same place.
            "stream_row at stream B",
            "chain at stream B, batches 1 to 1, 1 events",
            "meta at table meta",
        ],
    );
}
