//! A whole journal whose rows are damaged or forged, under pages that are sound.
//!
//! ```text
//! input   template u8 (bit 7: left as kill -9 leaves it), what is posted u8, then edits; see `edits.rs`
//! ```
//!
//! - A start opens the file or refuses it as damaged, newer or no journal, in bounded memory; it never panics.
//! - What it opens, it conserves: accepted = posted + in unposted batches + in chunks, after every commit too.
//! - A commit is done, or refused for a reason that the file gives; and what was committed is there after
//!   the next start.
//! - `fsck` and `export` read any such file to its end; a file with which `fsck` finds nothing wrong opens.
//! - A conflict is settled, or the file is set aside, or it is refused.

pub mod edits;
pub mod ram;
pub mod templates;

use std::path::Path;

use tempfile::TempDir;
use tidemark_agent::event::{Door, IdDigest, SourceCount};
use tidemark_agent::journal::{
    DeadLetter, Depth, FreshIds, Journal, JournalError, JournalReader, JournalState, Leftover,
    OpenError, Recovered, Write, settle_conflict,
};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{OpeningId, Sequence, StreamId};
use tidemark_common::time::Timestamp;

use crate::choices::Choices;
use crate::memory::bounded;
use ram::Ram;
use templates::{NOON, TEMPLATES, append, options, seal, template, welcome};

/// Twice redb's cache of a start, a chunk's most raw bytes, and the file itself with its growth.
const MEMORY_BYTES_MAX: usize = 64 << 20;
/// All times of the commits lie after those of the template.
const LATER: Timestamp = Timestamp(NOON.0 + 1_000);
/// The opening of the start that meets the damage.
const OPENING: OpeningId = OpeningId([0x77; 16]);

pub fn check(input: &[u8]) {
    let mut choices = Choices::new(input);
    let kind = choices.byte();
    let posted = choices.byte();
    let bytes =
        edits::apply(template(usize::from(kind & 0x7f) % TEMPLATES), kind & 0x80 != 0, choices);

    let sound = bounded(MEMORY_BYTES_MAX, || look(&bytes));
    let disk = Ram::holding(bytes.clone());
    match bounded(MEMORY_BYTES_MAX, || open(&disk)) {
        Ok((journal, recovered)) => work(journal, &recovered, posted, &disk),
        Err(OpenError::Conflicted { .. }) => settle(&bytes),
        Err(OpenError::Corrupt { reason }) => {
            assert!(!sound, "fsck finds nothing wrong, and a start says {reason}");
        }
        Err(OpenError::Newer { .. } | OpenError::NotAJournal { .. }) => {}
        Err(error) => panic!("rows are no reason for {error:?}"),
    }
}

fn open(disk: &Ram) -> Result<(Journal, Recovered), OpenError> {
    let fresh = FreshIds { stream: StreamId([0x66; 16]), opening: OPENING };
    Journal::open_on(disk.clone(), options(Path::new("journal.redb")), fresh, LATER)
}

/// A folder in memory, where there is one.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.exists() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a folder can be made")
}

fn place(bytes: &[u8]) -> (TempDir, std::path::PathBuf) {
    let folder = folder();
    let path = folder.path().join("journal.redb");
    std::fs::write(&path, bytes).expect("a file can be written");
    (folder, path)
}

/// Looks at a file as `fsck` and `export` do; whether nothing is wrong with it.
fn look(bytes: &[u8]) -> bool {
    let (_folder, path) = place(bytes);
    let reader = match JournalReader::open(&path) {
        Ok(reader) => reader,
        Err(error) => panic!("its pages are sound: {error}"),
    };
    let mut sound = true;
    for depth in [Depth::Rows, Depth::Everything] {
        let found = reader.examine(depth).expect("a read can begin");
        for finding in &found.findings {
            let complete = !finding.place.is_empty()
                && !finding.problem.is_empty()
                && !finding.remedy.is_empty();
            assert!(complete, "{finding:?}");
        }
        sound &= found.findings.is_empty();
    }
    drop(reader);
    if let Ok(leftover) = Leftover::open(&path) {
        let walked = leftover.openings().and_then(|_| leftover.each(|_| Ok(())));
        refused_for_its_rows(walked);
    }
    sound
}

fn refused_for_its_rows<T>(outcome: Result<T, OpenError>) {
    match outcome {
        Ok(_)
        | Err(
            OpenError::Corrupt { .. }
            | OpenError::Newer { .. }
            | OpenError::NotAJournal { .. }
            | OpenError::Conflicted { .. },
        ) => {}
        Err(error) => panic!("rows are no reason for {error:?}"),
    }
}

/// Settles a conflict as a start does, then starts.
fn settle(bytes: &[u8]) {
    let (_folder, path) = place(bytes);
    let options = options(&path);
    let settled = bounded(MEMORY_BYTES_MAX, || settle_conflict(&options));
    let moved = settled.is_ok();
    refused_for_its_rows(settled);
    if moved {
        let fresh = FreshIds { stream: StreamId([0x66; 16]), opening: OPENING };
        let opened = Journal::open(options, fresh, LATER, std::time::Duration::ZERO);
        let (journal, _) = opened.expect("what a conflict leaves opens");
        conserved(journal.state());
    }
}

/// What an agent does after a start: hears from its ledger, seals what it finds, goes on, ends.
fn work(mut journal: Journal, recovered: &Recovered, posted: u8, disk: &Ram) {
    conserved(journal.state());
    let welcomed = posted_of(journal.state(), posted);
    let mut alive = commit(&mut journal, vec![welcome(welcomed)]);
    for group in &recovered.groups {
        let sealed =
            seal(Some(group.group), group.opening, group.rules, group.first_event, group.end_event);
        alive = alive && commit(&mut journal, vec![sealed]);
    }
    let ids = vec![IdDigest([9; 16]); 3];
    let chunk = append(journal.state(), recovered.next_group, 3);
    let (first, end) = (chunk.first_event, chunk.first_event.plus(u64::from(chunk.events)));
    let sealed = seal(Some(recovered.next_group), OPENING, chunk.rules, first, end);
    let letter = DeadLetter {
        at: LATER,
        door: Door::Udp,
        reason: EvidenceCode::RejectedMalformed,
        bytes: vec![b'x'; 100],
    };
    let source = SourceCount { source: "till-7".to_owned(), count: 8 };
    let turns = [
        vec![Write::Append(chunk), Write::Ids(ids)],
        vec![Write::DeadLetters(vec![letter]), Write::SourceCounts(vec![source])],
        vec![sealed],
        vec![Write::Replayed(vec![0, 1, u64::MAX])],
    ];
    for writes in turns {
        alive = alive && commit(&mut journal, writes);
    }
    let sealed = journal.state().sealed_sequence;
    let end = vec![Write::Posted(sealed), Write::Closed];
    alive = alive && commit(&mut journal, end);
    if alive {
        again(journal, disk);
    }
}

/// How far the ledger says that it has posted.
fn posted_of(state: &JournalState, choice: u8) -> Sequence {
    let (posted, sealed) = (state.posted_sequence.0, state.sealed_sequence.0);
    Sequence(match choice % 6 {
        0 => posted,
        1 => posted.saturating_sub(u64::from(choice) / 6),
        2 => posted.saturating_add(u64::from(choice) / 6),
        3 => sealed,
        4 => 0,
        _ => u64::MAX,
    })
}

/// False if the journal is not to be written any more.
fn commit(journal: &mut Journal, writes: Vec<Write>) -> bool {
    let before = journal.state().clone();
    match journal.commit(writes, LATER) {
        Ok(_) => {
            conserved(journal.state());
            true
        }
        Err(JournalError::Storage { reason }) => panic!("memory does not fail: {reason}"),
        Err(error) => {
            assert_eq!(journal.state(), &before, "what is refused changes nothing");
            !error.is_fatal()
        }
    }
}

fn conserved(state: &JournalState) {
    let parts = [state.posted_events, state.events_in_unposted_batches, state.events_in_chunks];
    let sum: u128 = parts.into_iter().map(u128::from).sum();
    assert_eq!(u128::from(state.accepted), sum, "{state:?}");
}

/// What was committed is there at the next start. A forged number that stood where no stream comes is one further
/// now, and may be refused.
fn again(journal: Journal, disk: &Ram) {
    let before = journal.state().clone();
    drop(journal);
    let (journal, recovered) = match open(disk) {
        Ok(opened) => opened,
        Err(OpenError::Corrupt { reason }) if reason.contains("further than any stream") => return,
        Err(error) => panic!("what was written on opens again: {error}"),
    };
    let after = journal.state();
    let figures = |state: &JournalState| {
        (
            [state.accepted, state.sealed_events, state.posted_events, state.events_in_chunks],
            [state.retained_batches, state.retained_bytes, state.backlog_batches, state.live_bytes],
            [state.ids, state.dead_letters, state.dead_letter_bytes],
            (
                state.sealed_sequence,
                state.posted_sequence,
                state.sealed_digest,
                state.posted_digest,
            ),
        )
    };
    assert_eq!(figures(after), figures(&before));
    assert!(recovered.clean, "its last opening was closed");
}
