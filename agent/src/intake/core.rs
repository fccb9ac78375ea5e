//! What intake decides: parsed input in, answers and jobs for the commit thread out.
//!
//! **Owns** the open batch, its chunks, the window of ids, the counts of evidence, and when a chunk
//! is handed over or a batch closed. **Does not own** sockets, channels, clocks or disk.
//!
//! Invariants:
//! - A message's events and its id are in one job, so that they become durable together.
//! - A group's chunks are handed over before it is closed, and groups close in order.
//! - Nothing is aggregated under one rules version and recorded under another.

mod replay;
mod turn;

pub use turn::STOP_NEAR_SEAL_MILLIS;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidemark_common::batch::{Evidence, keyed_id, parse_series, series_bytes, unique_digest};
use tidemark_common::chunk::{ChunkWriter, NumberedId, Record, RecordId, SeriesSlot, Unique};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{EventNumber, OpeningId, RulesVersion};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Rules, UniqueKey};

use crate::aggregate::{Amount, OpenBatch, id_event_bytes};
use crate::commit::ROOM_BYTES;
use crate::event::{
    Door, IdDigest, Message, Parsed, RejectReason, SourceCount, UsageEvent, judge_time,
};
use crate::journal::DeadLetter;
use crate::parse::dogstatsd::{self, Labels, RawMetric, Read, Value};

use super::Answer;
use super::alias::{Alias, Aliases, Known};
use super::forward::packer::Packer;
use super::ids::IdWindow;
use super::job::{IntakeSettings, IntakeStart, Job};

/// One job carries at most this many dead letters; what is rejected beyond them is only counted.
const DEAD_LETTERS_PER_JOB_MAX: usize = 64;
/// A dead letter keeps at most this many bytes of the input.
const DEAD_LETTER_BYTES_MAX: usize = 4_096;
/// Numbered sources that are followed at once; further ones are not checked for gaps.
const SOURCES_MAX: usize = 10_000;

/// Monotonic milliseconds since the agent's start.
pub type Ticks = u64;

/// See the module.
#[derive(Debug)]
pub struct Core {
    settings: IntakeSettings,
    opening: OpeningId,
    rules: Option<Arc<Rules>>,
    unique_key: Option<UniqueKey>,

    evidence: Evidence,
    not_metered: u64,
    next_event: EventNumber,
    sources: HashMap<String, u64>,
    ids: IdWindow,

    group: u64,
    group_first: EventNumber,
    group_began: Ticks,
    batch: OpenBatch,
    /// Unique values held raw in this group's chunks, which its aggregate does not see.
    raw_uniques: usize,
    /// Ids held raw, and what lines of their events will take at most.
    raw_ids: usize,
    raw_id_bytes: usize,
    chunk_bytes: u64,
    aliases: Aliases,

    chunk: ChunkWriter,
    chunk_first: EventNumber,
    chunk_oldest: Timestamp,
    chunk_began: Ticks,
    dead_letters: Vec<DeadLetter>,
    /// What is not metered, if it is to be forwarded.
    outgoing: Option<Packer>,
    /// Dead letters whose events are in the open chunk.
    replayed: Vec<u64>,
    /// What was rejected since the start, once each, and what of it the shell has not been told.
    rejections_seen: HashSet<(Door, RejectReason)>,
    rejections_new: Vec<(Door, RejectReason)>,
    /// Sources whose last number is not written yet.
    moved_sources: HashSet<String>,
    evidence_uncommitted: Option<Ticks>,
    evidence_unsealed: Option<Ticks>,
    evidence_sealed_at: Ticks,

    now: Ticks,
    full: bool,
    stop_is_near: bool,
    /// How much memory the open batch may take.
    batch_bytes_max: usize,
    jobs: Vec<Job>,
}

/// What an event says besides its series and time.
#[derive(Debug, Clone, Copy)]
struct Content<'a> {
    quantity: Option<Quantity>,
    unique: Option<&'a str>,
    id: Option<NumberedId>,
}

impl<'a> Content<'a> {
    fn of(event: &'a UsageEvent, id: Option<IdDigest>) -> Self {
        let id = id.map(|id| NumberedId { id: id.0, number: event.number });
        Self { quantity: event.quantity, unique: event.unique.as_deref(), id }
    }
}

impl Core {
    #[must_use]
    pub fn new(mut settings: IntakeSettings, start: IntakeStart) -> Self {
        settings.time.newest = start.newest;
        let unique_key = start.unique_key.filter(|_| start.rules.is_some());
        let key_id = unique_key.map_or(0, |key| key.id);
        let next_event = EventNumber(start.accepted);
        let ids = IdWindow::new(settings.ids_max, settings.ids_window_millis, start.ids);
        let not_metered = start.evidence.get(EvidenceCode::NotMetered);
        Self {
            opening: start.opening,
            rules: start.rules,
            unique_key,
            evidence: start.evidence,
            not_metered,
            next_event,
            sources: start.sources.into_iter().map(|held| (held.source, held.count)).collect(),
            ids,
            group: start.next_group,
            group_first: next_event,
            group_began: 0,
            batch: OpenBatch::new(key_id),
            raw_uniques: 0,
            raw_ids: 0,
            raw_id_bytes: 0,
            chunk_bytes: 0,
            aliases: Aliases::default(),
            chunk: ChunkWriter::new(key_id),
            chunk_first: next_event,
            chunk_oldest: Timestamp(0),
            chunk_began: 0,
            dead_letters: Vec::new(),
            outgoing: None,
            replayed: Vec::new(),
            rejections_seen: HashSet::new(),
            rejections_new: Vec::new(),
            moved_sources: HashSet::new(),
            evidence_uncommitted: None,
            evidence_unsealed: Some(0),
            evidence_sealed_at: 0,
            now: 0,
            full: false,
            stop_is_near: false,
            batch_bytes_max: ROOM_BYTES,
            jobs: Vec::new(),
            settings,
        }
    }

    /// Whether doors that cannot wait must refuse, because the journal is at its budget.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether batches are to be closed as fast as is sensible.
    pub fn set_stop_near(&mut self, is_near: bool) {
        self.stop_is_near = is_near;
    }

    /// Closes the open batch once it takes this much memory.
    pub fn set_batch_bytes_max(&mut self, bytes: usize) {
        self.batch_bytes_max = bytes;
    }

    #[must_use]
    pub fn rules_version(&self) -> RulesVersion {
        self.rules.as_ref().map_or(RulesVersion(0), |rules| rules.version)
    }

    /// Events accepted so far, ever.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.next_event.0
    }

    /// Takes one datagram of DogStatsD lines.
    pub fn datagram(&mut self, door: Door, bytes: &[u8], whole: bool, arrival: Timestamp) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.begin(bytes.len());
        }
        let mut lines = dogstatsd::lines(bytes).peekable();
        while let Some(line) = lines.next() {
            // The kernel cut the datagram somewhere in its last line.
            if !whole && lines.peek().is_none() {
                self.reject(door, RejectReason::Truncated, line, arrival);
            } else {
                self.line(door, line, arrival);
            }
            self.hand_over_if_full(arrival);
        }
    }

    fn line(&mut self, door: Door, line: &[u8], arrival: Timestamp) {
        let raw = match dogstatsd::split(line) {
            Ok(raw) => raw,
            Err(reason) => return self.refused(door, reason, line, arrival),
        };
        match self.aliases.find(raw.name, raw.tags) {
            Some(Alias::Series(_)) if self.full => self.refuse(door, &raw),
            Some(Alias::Series(known)) => {
                self.values(door, &raw, known, None, line, arrival);
            }
            Some(Alias::NotMetered { excluded }) => self.not_metered(line, excluded),
            None => self.first_sight(door, &raw, line, arrival),
        }
    }

    /// A line that cannot be split may still be a metric that is not usage.
    fn refused(&mut self, door: Door, reason: RejectReason, line: &[u8], arrival: Timestamp) {
        match dogstatsd::refused(line, reason, &self.settings.naming) {
            Parsed::NotMetered { name } => {
                let excluded = self.is_of_catalogue(&name);
                self.not_metered(line, excluded);
            }
            Parsed::Message(_) | Parsed::Rejected(_) => self.reject(door, reason, line, arrival),
        }
    }

    fn first_sight(&mut self, door: Door, raw: &RawMetric<'_>, line: &[u8], arrival: Timestamp) {
        let labels = match dogstatsd::labels(raw, &self.settings.naming) {
            Ok(Read::Labels(labels)) => labels,
            Ok(Read::NotMetered) => {
                let name = std::str::from_utf8(raw.name).unwrap_or_default();
                let excluded = self.is_of_catalogue(name);
                self.aliases.remember(raw.name, raw.tags, Alias::NotMetered { excluded });
                return self.not_metered(line, excluded);
            }
            Err(reason) => return self.reject(door, reason, line, arrival),
        };
        if self.full {
            return self.refuse(door, raw);
        }
        if labels.id.is_some_and(|id| self.ids.holds(id)) {
            let events = dogstatsd::values(raw).count();
            return self.count(EvidenceCode::Duplicates, as_count(events));
        }
        let known = self.known(&labels);
        if labels.id.is_none() && labels.source.is_none() {
            self.aliases.remember(raw.name, raw.tags, Alias::Series(known));
        }
        let recorded = self.values(door, raw, known, labels.id, line, arrival);
        self.mark(labels.id.filter(|_| recorded), labels.source);
    }

    /// Records the values of one line; true if any was accepted.
    fn values(
        &mut self,
        door: Door,
        raw: &RawMetric<'_>,
        known: Known,
        id: Option<IdDigest>,
        line: &[u8],
        arrival: Timestamp,
    ) -> bool {
        let time = match judge_time(raw.time(), arrival, &self.settings.time) {
            Ok(time) => time,
            Err(reason) => {
                for _ in dogstatsd::values(raw) {
                    self.reject(door, reason, line, arrival);
                }
                return false;
            }
        };
        let mut recorded = false;
        for (number, value) in (0..).zip(dogstatsd::values(raw)) {
            let (quantity, unique) = match value {
                Ok(Value::Quantity(quantity)) if quantity.is_negative() && !known.negative => {
                    self.reject(door, RejectReason::Negative, line, arrival);
                    continue;
                }
                Ok(Value::Quantity(quantity)) => (Some(quantity), None),
                Ok(Value::Unique(unique)) => (None, Some(unique)),
                Err(reason) => {
                    self.reject(door, reason, line, arrival);
                    continue;
                }
            };
            let id = id.map(|id| NumberedId { id: id.0, number });
            self.record(known, time, arrival, Content { quantity, unique, id });
            recorded = true;
        }
        recorded
    }

    /// Takes one line or CloudEvent of an acknowledged door, judged as a whole.
    pub fn item(&mut self, door: Door, parsed: Parsed, raw: &[u8], arrival: Timestamp) -> Answer {
        let answer = match parsed {
            Parsed::Message(message) => self.message(door, &message, raw, arrival),
            Parsed::NotMetered { name } => {
                let excluded = self.is_of_catalogue(&name);
                self.count_not_metered(excluded);
                if let Some(outgoing) = self.outgoing.as_mut().filter(|_| door != Door::Http) {
                    outgoing.kept_line(raw);
                }
                Answer::NotMetered
            }
            Parsed::Rejected(reason) => {
                self.reject(door, reason, raw, arrival);
                Answer::Rejected(reason)
            }
        };
        self.hand_over_if_full(arrival);
        answer
    }

    fn message(&mut self, door: Door, message: &Message, raw: &[u8], arrival: Timestamp) -> Answer {
        if message.id.is_some_and(|id| self.ids.holds(id)) {
            self.count(EvidenceCode::Duplicates, as_count(message.events.len()));
            return Answer::Duplicate;
        }
        let mut answer = Answer::Accepted;
        let mut recorded = false;
        for event in &message.events {
            match self.event(event, message.id, arrival) {
                Ok(()) => recorded = true,
                Err(reason) => {
                    self.reject(door, reason, raw, arrival);
                    answer = Answer::Rejected(reason);
                }
            }
        }
        self.mark(message.id.filter(|_| recorded), message.source.clone());
        answer
    }

    fn event(
        &mut self,
        event: &Result<UsageEvent, RejectReason>,
        id: Option<IdDigest>,
        arrival: Timestamp,
    ) -> Result<(), RejectReason> {
        let event = event.as_ref().map_err(|reason| *reason)?;
        let (known, time) = self.judge(event, event.time, arrival)?;
        self.record(known, time, arrival, Content::of(event, id));
        Ok(())
    }

    /// Where an event of this time belongs, if it is to be taken.
    fn judge(
        &mut self,
        event: &UsageEvent,
        time: Option<Timestamp>,
        arrival: Timestamp,
    ) -> Result<(Known, Timestamp), RejectReason> {
        let time = judge_time(time, arrival, &self.settings.time)?;
        let known = self.known(&Labels {
            meter: event.meter.clone(),
            customer: event.customer.clone(),
            dimensions: Arc::clone(&event.dimensions),
            id: None,
            source: None,
        });
        if event.quantity.is_some_and(|quantity| quantity.is_negative()) && !known.negative {
            return Err(RejectReason::Negative);
        }
        Ok((known, time))
    }

    /// The slot of the labels' series under the current rules.
    fn known(&mut self, labels: &Labels) -> Known {
        let meter = labels.meter.as_str();
        let rule = self.rules.as_ref().and_then(|rules| rules.meter(meter));
        let all = self.rules.is_none();
        let is_kept = |name: &str| {
            all || rule.is_some_and(|rule| {
                rule.dimensions.binary_search_by(|kept| kept.as_str().cmp(name)).is_ok()
            })
        };
        let kept: Vec<(&str, &str)> = labels
            .dimensions
            .iter()
            .filter(|(name, _)| is_kept(name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let dropped = labels.dimensions.len().saturating_sub(kept.len());
        let negative =
            rule.is_some_and(|rule| rule.negative) || self.settings.negative.matches(meter);
        let deduplicated = self.rules.as_ref().is_some_and(|rules| rules.deduplicates(meter));
        let slot = self.batch.slot(&series_bytes(meter, labels.customer.as_str(), &kept));
        let dropped = u16::try_from(dropped).unwrap_or(u16::MAX);
        Known { slot, negative, deduplicated, dropped }
    }

    fn record(&mut self, known: Known, time: Timestamp, arrival: Timestamp, content: Content<'_>) {
        let Content { quantity, unique, id } = content;
        if self.chunk.events() == 0 {
            self.chunk_first = self.next_event;
            self.chunk_oldest = arrival;
            self.chunk_began = self.now;
        }
        if self.batch.events() == 0 {
            self.group_began = self.now;
        }
        let digest = unique.and_then(|value| self.digest(known.slot, value));
        let held = match (digest, unique) {
            (Some(digest), _) => Some(Unique::Digest(digest)),
            (None, Some(raw)) => {
                self.raw_uniques = self.raw_uniques.saturating_add(1);
                Some(Unique::Raw(raw))
            }
            (None, None) => None,
        };
        let id = id.and_then(|id| self.ledger_id(known, id));
        let amount = Amount { quantity, unique: digest };
        match id {
            Some(RecordId::Keyed(id)) => self.batch.add_alone(known.slot, time, amount, id),
            Some(RecordId::Raw(_)) | None => self.batch.add(known.slot, time, amount),
        }
        let record = Record { slot: known.slot, time, quantity, unique: held, id };
        self.chunk.record(&record, self.batch.series(known.slot));
        self.next_event = self.next_event.plus(1);
        self.settings.time.newest = self.settings.time.newest.max(arrival);
        if known.deduplicated && id.is_none() {
            self.count(EvidenceCode::WithoutId, 1);
        }
        if known.dropped > 0 {
            self.count(EvidenceCode::DroppedDimensions, u64::from(known.dropped));
        }
    }

    /// What stands for an event's id in the whole ledger. While it is not known whether its meter asks for it, that is
    /// what it would be made of.
    fn ledger_id(&mut self, known: Known, id: NumberedId) -> Option<RecordId> {
        let series = self.batch.series(known.slot);
        let Some(key) = self.unique_key.as_ref() else {
            self.raw_ids = self.raw_ids.saturating_add(1);
            self.raw_id_bytes = self.raw_id_bytes.saturating_add(id_event_bytes(series.len()));
            return Some(RecordId::Raw(id));
        };
        if !known.deduplicated {
            return None;
        }
        let (meter, customer, _) = parse_series(series).expect("intake encoded it");
        let NumberedId { id, number } = id;
        let keyed = keyed_id(key, meter.as_str(), customer.as_str(), &id, number);
        Some(RecordId::Keyed(keyed))
    }

    fn digest(&self, slot: SeriesSlot, value: &str) -> Option<[u8; 16]> {
        let key = self.unique_key.as_ref()?;
        let (meter, customer, _) =
            parse_series(self.batch.series(slot)).expect("intake encoded it");
        Some(unique_digest(key, meter.as_str(), customer.as_str(), value))
    }

    fn mark(&mut self, id: Option<IdDigest>, source: Option<SourceCount>) {
        if let Some(id) = id {
            self.ids.insert(id);
        }
        let Some(source) = source else { return };
        if let Some(last) = self.sources.get_mut(&source.source) {
            let missing = source.count.saturating_sub(*last).saturating_sub(1);
            *last = source.count;
            if missing > 0 {
                self.count(EvidenceCode::SourceGaps, missing);
            }
        } else if self.sources.len() < SOURCES_MAX {
            self.sources.insert(source.source.clone(), source.count);
        } else {
            return;
        }
        self.moved_sources.insert(source.source);
    }

    fn reject(&mut self, door: Door, reason: RejectReason, raw: &[u8], arrival: Timestamp) {
        self.count(reason.code(), 1);
        self.see_rejection(door, reason);
        if self.dead_letters.len() < DEAD_LETTERS_PER_JOB_MAX && !self.full {
            let bytes = raw[..raw.len().min(DEAD_LETTER_BYTES_MAX)].to_vec();
            self.dead_letters.push(DeadLetter { at: arrival, door, reason: reason.code(), bytes });
        }
    }

    fn refuse(&mut self, door: Door, raw: &RawMetric<'_>) {
        let events = dogstatsd::values(raw).count();
        self.count(EvidenceCode::RejectedJournalFull, as_count(events));
        self.see_rejection(door, RejectReason::JournalFull);
    }

    fn see_rejection(&mut self, door: Door, reason: RejectReason) {
        if self.rejections_seen.insert((door, reason)) {
            self.rejections_new.push((door, reason));
        }
    }

    /// Doors and reasons of which a first event was rejected since the last call. Each pair comes once
    /// in the agent's life, so there are at most as many as doors times reasons.
    pub fn take_new_rejections(&mut self) -> Vec<(Door, RejectReason)> {
        std::mem::take(&mut self.rejections_new)
    }

    fn is_of_catalogue(&self, name: &str) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.meter(name).is_some())
    }

    /// From now on what is not metered is packed, to be sent to another server.
    pub fn begin_forwarding(&mut self) {
        self.outgoing = Some(Packer::default());
    }

    /// What is not metered and waits to be forwarded; `None` if that is not wanted.
    pub fn outgoing(&mut self) -> Option<&mut Packer> {
        self.outgoing.as_mut()
    }

    fn not_metered(&mut self, line: &[u8], excluded: bool) {
        self.count_not_metered(excluded);
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.line(line);
        }
    }

    fn count_not_metered(&mut self, excluded: bool) {
        self.not_metered = self.not_metered.saturating_add(1);
        self.touch_evidence();
        if excluded {
            self.count(EvidenceCode::ExcludedByMetered, 1);
        }
    }

    /// Counts something that is evidence; kernel drops come from the shell through here too.
    pub fn count(&mut self, code: EvidenceCode, events: u64) {
        self.evidence.add(code, events);
        self.touch_evidence();
    }

    fn touch_evidence(&mut self) {
        self.evidence_uncommitted.get_or_insert(self.now);
        self.evidence_unsealed.get_or_insert(self.now);
    }

    fn evidence(&self) -> Evidence {
        let mut evidence = self.evidence.clone();
        evidence.set_max(EvidenceCode::NotMetered, self.not_metered);
        evidence.set_max(EvidenceCode::Accepted, self.next_event.0);
        evidence
    }
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
