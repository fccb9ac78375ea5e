//! Sound journals of each kind, made by the product once.

use std::path::Path;
use std::sync::OnceLock;

use tidemark_agent::aggregate::{Amount, OpenBatch};
use tidemark_agent::event::{Door, IdDigest, SourceCount};
use tidemark_agent::journal::{
    Append, ConflictAnswer, DeadLetter, FreshIds, Journal, JournalOptions, JournalState, RawEvents,
    Seal, Welcomed, Write,
};
use tidemark_common::batch::{Evidence, series_bytes};
use tidemark_common::chunk::{ChunkWriter, Record, SeriesSlot};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{EventNumber, LedgerId, OpeningId, RulesVersion, Sequence, StreamId};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Rules, UniqueKey};

use super::ram::Ram;

pub const NOON: Timestamp = Timestamp(1_800_000_000_000);
/// Without a ledger; at work; closed with nothing held; in conflict.
pub const TEMPLATES: usize = 4;

const LEDGER: LedgerId = LedgerId([9; 16]);
const OPENING: OpeningId = OpeningId([2; 16]);

/// Small limits, so that a commit drops what is beyond them.
#[must_use]
pub fn options(path: &Path) -> JournalOptions {
    JournalOptions {
        path: path.to_owned(),
        bytes_max: 64 << 20,
        retain_acked_millis: 60_000,
        retain_acked_bytes_max: 2_000,
        raw_events_bytes_max: 0,
        ids_max: 6,
        ids_window_millis: 60_000,
        dead_letters_max: 3,
        dead_letter_bytes_max: 10_000,
    }
}

/// The bytes of a journal of a kind below [`TEMPLATES`].
#[must_use]
pub fn template(kind: usize) -> &'static [u8] {
    static MADE: OnceLock<[Vec<u8>; TEMPLATES]> = OnceLock::new();
    &MADE.get_or_init(|| [without_ledger(), made(at_work), made(closed), made(in_conflict)])[kind]
}

fn begin() -> (Ram, Journal) {
    let disk = Ram::default();
    let fresh = FreshIds { stream: StreamId([1; 16]), opening: OPENING };
    let opened = Journal::open_on(disk.clone(), options(Path::new("journal.redb")), fresh, NOON);
    (disk, opened.expect("memory does not fail").0)
}

fn made(by: fn(&mut Journal)) -> Vec<u8> {
    let (disk, mut journal) = begin();
    commit(&mut journal, vec![welcome(Sequence::ZERO)]);
    by(&mut journal);
    drop(journal);
    disk.bytes()
}

fn commit(journal: &mut Journal, writes: Vec<Write>) {
    journal.commit(writes, NOON).expect("these writes are sound");
}

fn without_ledger() -> Vec<u8> {
    let (disk, mut journal) = begin();
    for (group, events) in [(1, 2), (1, 3), (2, 1)] {
        let chunk = append(journal.state(), group, events);
        commit(&mut journal, vec![Write::Append(chunk)]);
    }
    drop(journal);
    disk.bytes()
}

/// Posted and retained batches, unposted ones, an open group of two chunks, and a few of all else.
fn at_work(journal: &mut Journal) {
    for group in 1..=4 {
        batch(journal, group, 2);
        if group == 2 {
            commit(journal, vec![Write::Posted(Sequence(2))]);
        }
    }
    for (group, events) in [(7, 3), (7, 2), (8, 1)] {
        let chunk = append(journal.state(), group, events);
        commit(journal, vec![Write::Append(chunk), Write::Ids(vec![IdDigest([7; 16]); 2])]);
    }
    let letter = || DeadLetter {
        at: NOON,
        door: Door::Udp,
        reason: EvidenceCode::RejectedSampled,
        bytes: vec![b'x'; 10],
    };
    let source = SourceCount { source: "till-7".to_owned(), count: 5 };
    let kept =
        vec![Write::DeadLetters(vec![letter(), letter()]), Write::SourceCounts(vec![source])];
    commit(journal, kept);
}

fn closed(journal: &mut Journal) {
    batch(journal, 1, 2);
    batch(journal, 2, 3);
    commit(journal, vec![Write::Posted(Sequence(2)), Write::Closed]);
}

fn in_conflict(journal: &mut Journal) {
    at_work(journal);
    let answer = ConflictAnswer { asked: vec![OPENING], settled: Vec::new() };
    let conflict = Write::Conflict { reason: "cloned".to_owned(), answer: Some(answer) };
    commit(journal, vec![conflict]);
}

fn batch(journal: &mut Journal, group: u64, events: u32) {
    let chunk = append(journal.state(), group, events);
    let (first, end) = (chunk.first_event, chunk.first_event.plus(u64::from(events)));
    let sealed = seal(Some(group), chunk.opening, chunk.rules, first, end);
    commit(journal, vec![Write::Append(chunk), sealed]);
}

#[must_use]
pub fn welcome(posted_sequence: Sequence) -> Write {
    let rules = Rules {
        version: RulesVersion(1),
        seal_interval_millis: 1_000,
        meters: Vec::new(),
        cloud_events: Vec::new(),
        deduplicated: Vec::new(),
    };
    Write::Welcomed(Welcomed {
        ledger: LEDGER,
        rules: Some(rules),
        unique_key: UniqueKey { id: 1, key: [7; 32] },
        posted_sequence,
    })
}

/// The next events, as a chunk of `group`.
#[must_use]
pub fn append(state: &JournalState, group: u64, events: u32) -> Append {
    let mut chunk = ChunkWriter::new(1);
    for _ in 0..events {
        let quantity = Some(Quantity::whole(1));
        let record = Record { slot: SeriesSlot(0), time: NOON, quantity, unique: None, id: None };
        chunk.record(&record, &series());
    }
    let raw = chunk.take().expect("it holds events").bytes;
    let mut evidence = state.evidence.clone();
    evidence.set_max(EvidenceCode::Accepted, state.accepted + u64::from(events));
    Append {
        group,
        opening: state.opening,
        rules: RulesVersion(1),
        first_event: EventNumber(state.accepted),
        events,
        oldest: NOON,
        evidence,
        bytes: zstd::bulk::compress(&raw, 1).expect("zstd compresses all bytes"),
    }
}

/// A batch of the events from `first_event` to `end_event`, as one line.
#[must_use]
pub fn seal(
    group: Option<u64>,
    opening: OpeningId,
    rules: RulesVersion,
    first_event: EventNumber,
    end_event: EventNumber,
) -> Write {
    let mut batch = OpenBatch::new(1);
    let slot = batch.slot(&series());
    // However many a forged group claims, a few are counted: the journal does not read bodies.
    for _ in 0..end_event.0.saturating_sub(first_event.0).min(8) {
        batch.add(slot, NOON, Amount { quantity: Some(Quantity::whole(1)), unique: None });
    }
    let body = batch.encode([3; 32], &Evidence::default()).expect("a body of one line");
    let raw_events = RawEvents::Kept;
    Write::Seal(Seal { group, opening, rules, first_event, end_event, body, raw_events })
}

fn series() -> Vec<u8> {
    series_bytes("calls", "acme", &[])
}
