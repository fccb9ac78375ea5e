//! Fills a journal that nobody runs on yet with events of another one, numbered anew.
//!
//! **Owns** the order of its writes, and how a sealed batch gets a new number. **Does not own** which events
//! are carried, or where to (`moving.rs`, `import.rs`).

use tidemark_common::batch::{BodyWriter, EncodedBody, Evidence, Extras, Line};
use tidemark_common::id::{EventNumber, LedgerId, OpeningId, RulesVersion, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Rules, UniqueKey};

use super::open::OpenError;
use super::state::JournalState;
use super::write::{Append, RawEvents, Seal, Welcomed, Write};
use super::{Journal, JournalError};
use crate::event::IdDigest;

/// Chunks and dead letters that one commit carries over.
const ROWS_PER_COMMIT: usize = 64;
/// The group of a batch that is stored in the commit that makes it.
const SEALED_GROUP: u64 = 0;

/// What is said of a batch or chunk besides what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    pub(crate) opening: OpeningId,
    pub(crate) rules: RulesVersion,
    pub(crate) events: u32,
    pub(crate) oldest: Timestamp,
    /// The counts behind it.
    pub(crate) evidence: Evidence,
}

/// The new journal, and what its next commit holds.
#[derive(Debug)]
pub(crate) struct Carrier {
    journal: Journal,
    now: Timestamp,
    writes: Vec<Write>,
    appended: u64,
}

impl Carrier {
    /// `now` is the time of every commit.
    pub(crate) fn new(journal: Journal, now: Timestamp) -> Self {
        Self { journal, now, writes: Vec::new(), appended: 0 }
    }

    pub(crate) fn pin(
        &mut self,
        ledger: LedgerId,
        rules: Option<Rules>,
        unique_key: UniqueKey,
    ) -> Result<(), OpenError> {
        let posted_sequence = Sequence::ZERO;
        self.push(Write::Welcomed(Welcomed { ledger, rules, unique_key, posted_sequence }))?;
        self.flush()
    }

    /// Seals the lines of a batch that was never posted, under the next number.
    pub(crate) fn batch(
        &mut self,
        carried: Carried,
        salt: [u8; 32],
        extras: Extras,
        lines: &[Line],
    ) -> Result<(), OpenError> {
        let body = encode(salt, extras, lines, &carried.evidence)?;
        self.sealed(carried, body)
    }

    /// Stores a batch under the next number.
    pub(crate) fn sealed(&mut self, carried: Carried, body: EncodedBody) -> Result<(), OpenError> {
        let Carried { opening, rules, events, .. } = carried;
        let first_event = EventNumber(self.appended);
        self.flush()?;
        // Sealed in the same commit, the chunk is read by nobody.
        self.append(SEALED_GROUP, carried, Vec::new());
        let end_event = first_event.plus(u64::from(events));
        let group = Some(SEALED_GROUP);
        let raw_events = RawEvents::Dropped;
        self.writes.push(Write::Seal(Seal {
            group,
            opening,
            rules,
            first_event,
            end_event,
            body,
            raw_events,
        }));
        self.flush()
    }

    /// Appends a chunk; `payload` is packed and compressed.
    pub(crate) fn chunk(
        &mut self,
        group: u64,
        carried: Carried,
        payload: Vec<u8>,
    ) -> Result<(), OpenError> {
        self.append(group, carried, payload);
        self.flush_if_full()
    }

    fn append(&mut self, group: u64, carried: Carried, bytes: Vec<u8>) {
        let Carried { opening, rules, events, oldest, evidence } = carried;
        let first_event = EventNumber(self.appended);
        self.appended = first_event.plus(u64::from(events)).0;
        self.writes.push(Write::Append(Append {
            group,
            opening,
            rules,
            first_event,
            events,
            oldest,
            evidence,
            bytes,
        }));
    }

    /// Ids keep the time of their commit: it decides how long they are known.
    pub(crate) fn ids(&mut self, at: Timestamp, ids: Vec<IdDigest>) -> Result<(), OpenError> {
        self.push(Write::CarriedIds { at, ids })
    }

    pub(crate) fn push(&mut self, write: Write) -> Result<(), OpenError> {
        self.writes.push(write);
        self.flush_if_full()
    }

    /// Ends the journal in order; what it holds.
    pub(crate) fn finish(mut self) -> Result<JournalState, OpenError> {
        self.writes.push(Write::Closed);
        self.flush()?;
        Ok(self.journal.state().clone())
    }

    fn flush_if_full(&mut self) -> Result<(), OpenError> {
        if self.writes.len() >= ROWS_PER_COMMIT { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), OpenError> {
        let writes = std::mem::take(&mut self.writes);
        self.journal.commit(writes, self.now).map_err(refused)?;
        Ok(())
    }
}

fn encode(
    salt: [u8; 32],
    extras: Extras,
    lines: &[Line],
    evidence: &Evidence,
) -> Result<EncodedBody, OpenError> {
    let mut writer = BodyWriter::with_extras(salt, evidence, extras);
    let mut written = Ok(());
    for line in lines {
        let (bucket, part) = (line.key.bucket, line.key.part);
        written = written.and_then(|()| writer.line(&line.key.series(), bucket, part, &line.value));
    }
    written.and_then(|()| writer.finish()).map_err(|error| OpenError::corrupt(error.to_string()))
}

/// What the new journal refuses, the old one says wrongly; unless it is the disk.
fn refused(error: JournalError) -> OpenError {
    match error.is_fatal() {
        true => OpenError::Storage { reason: error.to_string() },
        false => OpenError::corrupt(error.to_string()),
    }
}
