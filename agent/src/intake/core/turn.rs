//! When what was recorded is handed over: chunks by size and linger, batches by limits and interval.
//!
//! **Owns** the jobs' order and their timing. **Does not own** clocks: it is told what time it is.

use std::mem;
use std::sync::Arc;

use tidemark_common::chunk::ChunkWriter;
use tidemark_common::id::EventNumber;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Rules, UniqueKey};

use super::{Core, Ticks, as_count};
use crate::aggregate::{ID_EVENTS_MAX, OPEN_BODY_BYTES_MAX, OpenBatch};
use crate::event::SourceCount;
use crate::intake::job::{CloseJob, CommitJob, Job, Position};

/// Changed evidence without events is committed after this.
const EVIDENCE_COMMIT_MILLIS: u64 = 1_000;
/// Changed evidence without events is sealed after this.
const EVIDENCE_SEAL_MILLIS: u64 = 60_000;
/// And a batch, unless the rules say otherwise.
const SEAL_MILLIS: u64 = 1_000;
/// With nothing to do, it is looked around this often.
const IDLE_WAIT_MILLIS: u64 = 100;
const STOP_NEAR_WAIT_MILLIS_MIN: u64 = 5;
/// What a stop that is near makes of these: as little as possible is then left to do in the end.
pub const STOP_NEAR_SEAL_MILLIS: u64 = 100;

/// When things are handed over.
impl Core {
    /// What has been decided since the last call, in order.
    pub fn take_jobs(&mut self) -> Vec<Job> {
        mem::take(&mut self.jobs)
    }

    /// How long the shell may wait for input before it calls [`Self::turn`] again.
    #[must_use]
    pub fn wait_millis(&self, waiting: bool) -> u64 {
        let age = self.now.saturating_sub(self.chunk_began);
        let commit = match (waiting, self.chunk.events()) {
            (true, 0) => self.settings.linger_millis,
            (true, _) => self.settings.linger_millis.saturating_sub(age),
            (false, 0) => IDLE_WAIT_MILLIS,
            (false, _) => self.settings.linger_max_millis.saturating_sub(age),
        };
        if !self.stop_is_near || self.batch.events() == 0 {
            return commit;
        }
        let open = self.now.saturating_sub(self.group_began);
        // What is due and cannot be sealed yet is looked at again soon, and not all the time.
        commit.min(self.seal_interval().saturating_sub(open).max(STOP_NEAR_WAIT_MILLIS_MIN))
    }

    /// Whether no event waits in an open chunk.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.chunk.events() == 0
    }

    /// Hands over what is due. `waiting`: an acknowledgement waits for the open chunk; `may_seal`: the
    /// uplink has room and no earlier seal is under way.
    pub fn turn(&mut self, now: Ticks, clock: Timestamp, waiting: bool, may_seal: bool) {
        self.now = now;
        let linger =
            if waiting { self.settings.linger_millis } else { self.settings.linger_max_millis };
        let age = now.saturating_sub(self.chunk_began);
        let evidence_due = self
            .evidence_uncommitted
            .is_some_and(|since| now.saturating_sub(since) >= EVIDENCE_COMMIT_MILLIS);
        if (self.chunk.events() > 0 && age >= linger) || evidence_due {
            self.hand_over(clock);
        }
        let group_due =
            self.batch.events() > 0 && now.saturating_sub(self.group_began) >= self.seal_interval();
        // At the budget, sealing makes room: a batch takes less than its chunks.
        if (may_seal && group_due || self.full) && self.rules.is_some() {
            self.close(clock);
        }
        let alone_due = self.evidence_unsealed.is_some()
            && now.saturating_sub(self.evidence_sealed_at) >= self.or_sooner(EVIDENCE_SEAL_MILLIS);
        if may_seal && alone_due && self.batch.events() == 0 && self.rules.is_some() {
            self.close_evidence(clock);
        }
    }

    fn seal_interval(&self) -> u64 {
        let rules = self.rules.as_ref();
        self.or_sooner(rules.map_or(SEAL_MILLIS, |rules| u64::from(rules.seal_interval_millis)))
    }

    fn or_sooner(&self, millis: u64) -> u64 {
        if self.stop_is_near { millis.min(STOP_NEAR_SEAL_MILLIS) } else { millis }
    }

    /// Hands over the open chunk and what commits with it, if there is anything.
    pub fn hand_over(&mut self, clock: Timestamp) {
        let chunk = self.chunk.take();
        let ids = self.ids.take_row(clock);
        let nothing = chunk.is_none() && ids.is_empty() && self.replayed.is_empty();
        if nothing && self.evidence_uncommitted.is_none() {
            return;
        }
        self.evidence_uncommitted = None;
        if let Some(chunk) = &chunk {
            self.chunk_bytes = self.chunk_bytes.saturating_add(as_count(chunk.bytes.len()));
        }
        let moved = mem::take(&mut self.moved_sources);
        let count_of = |source: String| {
            let count = *self.sources.get(&source)?;
            Some(SourceCount { source, count })
        };
        let sources = moved.into_iter().filter_map(count_of).collect();
        self.jobs.push(Job::Commit(CommitJob {
            group: self.group,
            opening: self.opening,
            rules: self.rules_version(),
            first_event: self.chunk_first,
            oldest: self.chunk_oldest,
            chunk,
            ids,
            evidence: self.evidence(),
            dead_letters: mem::take(&mut self.dead_letters),
            replayed: mem::take(&mut self.replayed),
            sources,
        }));
    }

    /// Closes the open batch, if it holds events. What it holds is handed over first.
    pub fn close(&mut self, clock: Timestamp) {
        self.hand_over(clock);
        if self.batch.events() > 0 {
            let batch = self.begin_group();
            self.jobs.push(Job::Close(CloseJob {
                group: Some(self.group),
                batch: self.rules.is_some().then_some(batch),
                position: self.position(self.group_first),
            }));
            self.group = self.group.checked_add(1).expect("a journal never has 2^64 groups");
            self.group_first = self.next_event;
            self.evidence_is_sealed();
        } else if self.batch.lines() > 0 {
            // Series whose every event was rejected must not pile up.
            self.begin_group();
        }
    }

    /// An empty table of series, for a group that holds no events yet; returns the one before.
    fn begin_group(&mut self) -> OpenBatch {
        let key_id = self.unique_key.map_or(0, |key| key.id);
        self.raw_uniques = 0;
        (self.raw_ids, self.raw_id_bytes) = (0, 0);
        self.chunk_bytes = 0;
        self.aliases.clear();
        self.chunk = ChunkWriter::new(key_id);
        mem::replace(&mut self.batch, OpenBatch::new(key_id))
    }

    /// Seals changed evidence that no events carry.
    pub fn close_evidence(&mut self, clock: Timestamp) {
        self.hand_over(clock);
        // Before the first Welcome nothing is sealed.
        if self.evidence_unsealed.is_none() || self.rules.is_none() {
            return;
        }
        self.jobs.push(Job::Close(CloseJob {
            group: None,
            batch: None,
            position: self.position(self.next_event),
        }));
        self.evidence_is_sealed();
    }

    fn position(&self, first_event: EventNumber) -> Position {
        Position {
            opening: self.opening,
            rules: self.rules_version(),
            first_event,
            end_event: self.next_event,
            evidence: self.evidence(),
        }
    }

    fn evidence_is_sealed(&mut self) {
        self.evidence_unsealed = None;
        self.evidence_sealed_at = self.now;
    }

    pub(super) fn hand_over_if_full(&mut self, arrival: Timestamp) {
        if self.chunk.is_full() {
            self.hand_over(arrival);
        }
        let body = self.batch.raw_bytes().saturating_add(self.raw_uniques.saturating_mul(16));
        let body = body.saturating_add(self.raw_id_bytes);
        let ids = self.batch.id_events().max(self.raw_ids);
        if self.batch.lines() >= self.settings.open_lines_max
            || body >= OPEN_BODY_BYTES_MAX
            || self.batch.memory_bytes() >= self.batch_bytes_max
            || ids >= ID_EVENTS_MAX
            || self.chunk_bytes >= self.settings.open_chunk_bytes_max
        {
            self.close(arrival);
        }
    }

    /// Takes over the rules of a Welcome. A change closes the open batch.
    pub fn adopt(&mut self, rules: Option<Arc<Rules>>, unique_key: UniqueKey, clock: Timestamp) {
        let changed = rules.as_ref().is_some_and(|rules| rules.version != self.rules_version());
        if !changed && (self.rules.is_none() || self.unique_key == Some(unique_key)) {
            return;
        }
        self.close(clock);
        self.rules = rules.or_else(|| self.rules.take());
        self.unique_key = Some(unique_key);
        // An empty group has written nothing yet, but may know series of the former rules.
        self.begin_group();
    }
}
