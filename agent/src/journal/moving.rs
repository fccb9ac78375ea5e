//! After a conflict: a new journal with the events of which the ledger provably has nothing, in one step.
//!
//! ```text
//! journal.redb (stream S, in conflict)          journal.redb (stream T)
//!   openings that are free      ------------->    their batches and chunks, numbered anew
//!   ids, dead letters, sources, rules --------->  copies
//!   the rest                                    journal.redb.conflict-S: the old file, complete
//! ```
//!
//! **Owns** which openings move, and the step. **Does not own** the conflict (`session.rs`), or what is
//! done about the rest (`export.rs`).
//!
//! # What is free
//! An opening is one process's use of the journal, under a random name, so its events are known apart from
//! all others. The collector answers a conflict with the openings that must stay; the others are free:
//! nothing of them is posted under S, and nothing ever will be. For the process that asks, because the
//! collector gives it its own opening and refuses it to everybody else from then on. For earlier openings,
//! because the ledger holds events of *another* opening at the number where this one begins: a journal that
//! holds it there can never continue S. So batches of a free opening that were sealed, and perhaps sent, were
//! never admitted: their lines are sums of events that nobody has counted, and travel as they are, in
//! batches with new numbers. What an opening has posted in part cannot be told apart inside a batch's
//! sums, and stays.
//!
//! T is derived from S and the first opening that moves, and a moved batch keeps its salt: two copies of one
//! journal that move the same openings, each on a machine of its own, make the same stream, and the
//! collector counts it once.
//!
//! # One step
//! The new file is made under a name of its own; the old one gets its second name by a hard link, and a
//! record of what moves; then the new file is renamed over the old name. That rename is the step: before
//! it, the next start finds the journal in conflict and begins again from the start, which gives the same;
//! after it, the new journal. Both names stay in one folder, which is synced. The lock of the old file is held
//! all along, and the rename is done only while the name still means that file.
//!
//! Without hard links in the file system nothing is moved: the file is set aside as a whole, once it says so
//! itself. Until either is noted in it, what is free may still move.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Durability, StorageBackend};
use sha2::{Digest as _, Sha256};
use tidemark_common::batch::{Body, Evidence};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{OpeningId, StreamId};

use super::Journal;
use super::carrier::{Carried, Carrier};
use super::leftover::{ChunkHeld, Held, Leftover};
use super::open::{
    OpenError, file_number, open_file, remove_if_there, set_aside, sync_folder_of, with_suffix,
};
use super::record::{MovedRow, Record};
use super::state::{FreshIds, JournalOptions};
use super::tables::{META, meta};
use super::write::Write;

/// What became of a journal in conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// A new stream begins with what was free.
    Moved(Moved),
    /// Nothing was free: the file has another name, and there is no journal.
    SetAside(PathBuf),
    /// Another process was here first: open the journal again.
    InOrder,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub to: StreamId,
    /// The old file's name now.
    pub aside: PathBuf,
    pub openings: usize,
    pub events: u64,
    /// Events that stay in the old file.
    pub left: u64,
}

/// Sets the journal in conflict at `options.path` aside, and begins a new stream with what is free of it.
///
/// # Errors
/// As [`Journal::open`]; then nothing has changed.
pub fn settle_conflict(options: &JournalOptions) -> Result<Settled, OpenError> {
    let path = &options.path;
    let before = file_number(path);
    let old = Leftover::open_to_note(path)?;
    // Whoever replaces the file holds its lock, so that a name which means this file now means it until the
    // end.
    if before.is_none() || before != file_number(path) || old.conflict.is_none() {
        return Ok(Settled::InOrder);
    }
    let suffix = format!("conflict-{}", old.stream);
    // What is noted to stay may have been exported since.
    let stays = old.moved.as_ref().is_some_and(|(_, openings)| openings.is_empty());
    let moved = match Plan::of(&old)?.filter(|_| !stays) {
        Some(plan) => step(&old, &plan, options, &suffix),
        None => Ok(None),
    };
    match moved {
        Ok(Some(moved)) => return Ok(Settled::Moved(moved)),
        Ok(None) => {}
        Err(error @ OpenError::Corrupt { .. }) => {
            tracing::error!(%error, "nothing is moved: the file is set aside as a whole");
        }
        Err(error) => return Err(error),
    }
    note(&old, &MovedRow { to: old.stream, openings: Vec::new() })?;
    set_aside(path, &suffix).map(Settled::SetAside)
}

/// Moves what the plan says; `None` where the file system has no hard links.
fn step(
    old: &Leftover,
    plan: &Plan,
    options: &JournalOptions,
    suffix: &str,
) -> Result<Option<Moved>, OpenError> {
    let path = &options.path;
    let making = with_suffix(path, &format!("moving-{}", plan.to));
    remove_if_there(&making)?;
    carry_over(old, plan, open_file(&making)?, options.clone())?;
    let Some(aside) = link_aside(path, suffix)? else {
        remove_if_there(&making)?;
        return Ok(None);
    };
    note_moved(old, plan)?;
    let io_error = |source| OpenError::Io { act: "put in place", path: making.clone(), source };
    fs::rename(&making, path).map_err(io_error)?;
    sync_folder_of(path)?;
    Ok(Some(Moved {
        to: plan.to,
        aside,
        openings: plan.openings.len(),
        events: plan.events,
        left: plan.left,
    }))
}

/// The stream that `opening`, and what is free after it, moves to.
#[must_use]
pub(super) fn moved_stream(stream: StreamId, opening: OpeningId) -> StreamId {
    StreamId(derived(b"tidemark/moved/1", &[&stream.0, &opening.0]))
}

/// The first 16 bytes of [`hashed`].
pub(crate) fn derived(tag: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    *hashed(tag, parts).first_chunk().expect("32 bytes begin with 16")
}

/// The SHA-256 of a tag and parts of fixed lengths.
pub(crate) fn hashed(tag: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(tag);
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// What moves, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) to: StreamId,
    pub(super) openings: Vec<OpeningId>,
    pub(super) events: u64,
    left: u64,
}

impl Plan {
    /// `None` if nothing is free.
    pub(super) fn of(old: &Leftover) -> Result<Option<Self>, OpenError> {
        let (Some(_), Some(answer)) = (&old.conflict, &old.answer) else { return Ok(None) };
        let mut plan = None;
        let mut left: u64 = 0;
        for held in old.openings()? {
            let events = held.end.0.saturating_sub(held.first.0);
            if !answer.is_free(held.opening) {
                left = left.saturating_add(events);
                continue;
            }
            let plan = plan.get_or_insert_with(|| Self {
                to: moved_stream(old.stream, held.opening),
                openings: Vec::new(),
                events: 0,
                left: 0,
            });
            plan.openings.push(held.opening);
            plan.events = plan.events.saturating_add(events);
        }
        Ok(plan.map(|plan| Self { left, ..plan }))
    }

    fn holds(&self, opening: OpeningId) -> bool {
        self.openings.contains(&opening)
    }
}

/// Writes the new journal, whole. Nothing else knows of it yet.
pub(super) fn carry_over(
    old: &Leftover,
    plan: &Plan,
    backend: impl StorageBackend,
    options: JournalOptions,
) -> Result<(), OpenError> {
    let opening = *plan.openings.first().expect("a plan moves something");
    let fresh = FreshIds { stream: plan.to, opening };
    let (journal, _) = Journal::open_on(backend, options, fresh, old.newest)?;
    let mut new = Carrier::new(journal, old.newest);
    if let (Some(ledger), Some(unique_key)) = (old.ledger, old.unique_key) {
        new.pin(ledger, old.rules()?, unique_key)?;
    }
    let mut counts = Counts::default();
    old.each(|held| match held {
        Held::Batch(header, stored, oldest) => {
            let body = Body::open(&header, stored)
                .map_err(|error| OpenError::corrupt(error.to_string()))?;
            let moves = plan.holds(header.opening);
            counts.pass(&body.evidence, moves, header.events());
            if !moves || header.events() == 0 {
                return Ok(());
            }
            let carried = Carried {
                opening: header.opening,
                rules: header.rules,
                events: u32::try_from(header.events())
                    .map_err(|_| OpenError::corrupt("a batch has 2^32 events".to_owned()))?,
                oldest: oldest.unwrap_or(old.newest),
                evidence: counts.evidence(),
            };
            new.batch(carried, body.salt, body.extras, &body.lines)
        }
        Held::Chunk(chunk) => {
            let ChunkHeld { group, opening, rules, events, oldest, evidence, payload, .. } = chunk;
            let moves = plan.holds(opening);
            counts.pass(&evidence, moves, u64::from(events));
            if !moves {
                return Ok(());
            }
            let evidence = counts.evidence();
            new.chunk(group, Carried { opening, rules, events, oldest, evidence }, payload.to_vec())
        }
    })?;
    counts.pass(&old.evidence()?, true, 0);
    new.push(Write::Evidence(counts.evidence()))?;
    old.each_dead_letter(|letter| new.push(Write::DeadLetters(vec![letter])))?;
    new.push(Write::SourceCounts(old.sources()?))?;
    old.each_ids(|at, ids| new.ids(at, ids))?;
    // Rows say what a plan moves, and headers what is moved.
    let carried = new.finish()?.accepted;
    if carried == plan.events {
        return Ok(());
    }
    Err(OpenError::corrupt(format!(
        "its rows hold {} events that are free, and its batches and chunks {carried}",
        plan.events
    )))
}

/// The new stream's counts: what the rows that move have added to those of the old one.
#[derive(Debug, Default)]
struct Counts {
    before: Option<Evidence>,
    carried: Evidence,
    accepted: u64,
}

impl Counts {
    /// Goes past a row, with the old stream's counts behind it.
    fn pass(&mut self, after: &Evidence, moves: bool, events: u64) {
        // What was counted before the first row that is held is the old stream's.
        let before = self.before.replace(after.clone()).unwrap_or_else(|| after.clone());
        if !moves {
            return;
        }
        self.accepted = self.accepted.saturating_add(events);
        let before: BTreeMap<u16, u64> = before.iter().collect();
        let carried: BTreeMap<u16, u64> = self.carried.iter().collect();
        let of = |counts: &BTreeMap<u16, u64>, code| counts.get(&code).copied().unwrap_or(0);
        self.carried = after
            .iter()
            .map(|(code, count)| {
                let added = count.saturating_sub(of(&before, code));
                (code, of(&carried, code).saturating_add(added))
            })
            .filter(|(code, _)| *code != EvidenceCode::Accepted.number())
            .collect();
    }

    fn evidence(&self) -> Evidence {
        let mut evidence = self.carried.clone();
        evidence.set_max(EvidenceCode::Accepted, self.accepted);
        evidence
    }
}

/// Gives the file at `path` its second name; `None` where the file system has no hard links.
fn link_aside(path: &Path, suffix: &str) -> Result<Option<PathBuf>, OpenError> {
    let mut number = 1_u32;
    loop {
        let numbered = if number == 1 { suffix.to_owned() } else { format!("{suffix}-{number}") };
        let aside = with_suffix(path, &numbered);
        match fs::hard_link(path, &aside) {
            Ok(()) => {
                sync_folder_of(path)?;
                return Ok(Some(aside));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A start before this one was cut short.
                if file_number(path) == file_number(&aside) {
                    return Ok(Some(aside));
                }
                number = number.saturating_add(1);
            }
            Err(error) => {
                tracing::warn!(%error, "no hard link can be made: nothing is moved");
                return Ok(None);
            }
        }
    }
}

/// Says in the old file what moved, so that nobody takes it from there too.
pub(super) fn note_moved(old: &Leftover, plan: &Plan) -> Result<(), OpenError> {
    note(old, &MovedRow { to: plan.to, openings: plan.openings.clone() })
}

/// Writes the record of what moved, durably.
pub(super) fn note(old: &Leftover, row: &MovedRow) -> Result<(), OpenError> {
    let mut write = old.database().begin_write()?;
    write.set_durability(Durability::Immediate)?;
    write.open_table(META)?.insert(meta::MOVED, row.encode().as_slice())?;
    write.commit()?;
    Ok(())
}
