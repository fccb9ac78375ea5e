//! The sealer thread: sorts, encodes and hashes closed batches, off the commit thread.
//!
//! **Owns** nothing that lasts: orders come in, encoded bodies go back, in order. A group without an
//! aggregate is made from its chunks, one chunk in memory at a time; if it was recorded before any
//! rules were known, its series are projected and its unique values digested on the way.

use std::sync::{Arc, mpsc};
use std::thread;

use tidemark_common::batch::{KeyedId, keyed_id, parse_series, series_bytes, unique_digest};
use tidemark_common::chunk::{
    GroupReader, NumberedId, RAW_BYTES_LIMIT, Record, RecordId, SeriesSlot, Unique,
};
use tidemark_common::id::{Digest, RulesVersion};
use tidemark_common::wire::{EVENTS_PIECE_BYTES_MAX, EventsDigest, Rules, UniqueKey};
use tokio::sync::oneshot;

use super::{Aggregate, AtReplay, JobSender, Reserved, SealError, Sealed, Shared, Task};
use crate::Machine;
use crate::aggregate::{Amount, OpenBatch};
use crate::intake::answer::{Barrier, IntakeClosed};
use crate::intake::job::Position;
use crate::journal::{JournalReader, RawEvents, Seal};

/// A larger chunk fits no piece with its length.
const EVENTS_CHUNK_BYTES_MAX: usize = EVENTS_PIECE_BYTES_MAX - 4;

/// What the sealer is to do, in order.
#[derive(Debug)]
pub(super) enum Order {
    Encode {
        group: u64,
        aggregate: Box<Aggregate>,
        position: Position,
    },
    /// The room for its aggregate is taken when its turn comes.
    Replay {
        group: u64,
        position: Position,
        rules: Arc<Rules>,
        unique_key: UniqueKey,
        bytes: usize,
        reserved: Option<Reserved>,
    },
    Evidence(Position),
    Barrier {
        reply: oneshot::Sender<Barrier>,
        accepted: u64,
    },
}

/// The sealer before it runs. [`Self::run`] takes the calling thread; [`Self::turn`] is one turn of it.
#[derive(Debug)]
pub struct Sealer {
    orders: mpsc::Receiver<Order>,
    reader: JournalReader,
    jobs: JobSender,
    shared: Arc<Shared>,
    machine: Machine,
}

impl Sealer {
    /// A sealer, and where its orders go.
    pub(super) fn new(
        reader: JournalReader,
        jobs: JobSender,
        shared: Arc<Shared>,
        machine: Machine,
    ) -> (mpsc::SyncSender<Order>, Self) {
        let (sender, orders) = mpsc::sync_channel(1);
        (sender, Self { orders, reader, jobs, shared, machine })
    }

    /// Runs on the calling thread until the commit thread is gone.
    pub fn run(self) {
        let last_word = LastWord(self.jobs.clone());
        while let Ok(order) = self.orders.recv() {
            if self.carry_out(order).is_err() {
                break;
            }
        }
        drop(last_word);
    }

    /// Carries out what is ordered now, if anything is.
    pub fn turn(&self) {
        if let Ok(order) = self.orders.try_recv() {
            // A commit thread that is gone needs nothing sealed.
            let _unheard = self.carry_out(order);
        }
    }

    fn carry_out(&self, order: Order) -> Result<(), IntakeClosed> {
        let keep = self.shared.keeps_raw_events();
        let sealed = carry_out(order, &self.reader, keep, self.machine);
        let sealed = sealed.unwrap_or_else(Sealed::Failed);
        self.jobs.send(Task::Sealed(sealed))
    }
}

/// Says so if the thread panics: nothing would be sealed any more.
struct LastWord(JobSender);

impl Drop for LastWord {
    fn drop(&mut self) {
        if thread::panicking() {
            // A commit thread that is gone has ended the agent already.
            let _unheard = self.0.send(Task::Sealed(Sealed::Failed(SealError::Ended)));
        }
    }
}

fn carry_out(
    order: Order,
    reader: &JournalReader,
    keep: bool,
    machine: Machine,
) -> Result<Sealed, SealError> {
    match order {
        Order::Encode { group, aggregate, position } => {
            let Aggregate { mut batch, _reserved } = *aggregate;
            batch.set_raw_events(if keep { raw_events(group, reader)? } else { None });
            seal(Some(group), batch, position, AtReplay::default(), machine)
        }
        Order::Evidence(position) => {
            seal(None, OpenBatch::new(0), position, AtReplay::default(), machine)
        }
        Order::Replay { group, mut position, rules, unique_key, bytes: _, reserved: _reserved } => {
            let (mut batch, at_replay) = replay(group, &position, reader, &rules, unique_key)?;
            batch.set_raw_events(if keep { raw_events(group, reader)? } else { None });
            if position.rules == RulesVersion(0) {
                position.rules = rules.version;
            }
            seal(Some(group), batch, position, at_replay, machine)
        }
        Order::Barrier { reply, accepted } => Ok(Sealed::Barrier { reply, accepted }),
    }
}

fn seal(
    group: Option<u64>,
    batch: OpenBatch,
    position: Position,
    at_replay: AtReplay,
    machine: Machine,
) -> Result<Sealed, SealError> {
    let mut salt = [0; 32];
    (machine.fill)(&mut salt).map_err(|error| SealError::Body { reason: error.to_string() })?;
    let raw_events = match batch.raw_events() {
        Some(_) => RawEvents::Kept,
        None => RawEvents::Dropped,
    };
    let body = batch
        .encode(salt, &position.evidence)
        .map_err(|error| SealError::Body { reason: error.to_string() })?;
    let seal = Seal {
        group,
        opening: position.opening,
        rules: position.rules,
        first_event: position.first_event,
        end_event: position.end_event,
        body,
        raw_events,
    };
    Ok(Sealed::Batch { seal: Box::new(seal), at_replay })
}

/// The digest of a group's chunks, by which its batch names its raw events; `None` if they cannot be archived.
fn raw_events(group: u64, reader: &JournalReader) -> Result<Option<Digest>, SealError> {
    let unreadable = |reason: String| SealError::Chunks { group, reason };
    let mut digest = EventsDigest::default();
    for chunk in reader.chunks(group).map_err(|error| unreadable(error.to_string()))? {
        let chunk = chunk.map_err(|error| unreadable(error.to_string()))?;
        if chunk.len() > EVENTS_CHUNK_BYTES_MAX {
            return Ok(None);
        }
        digest.chunk(&chunk);
    }
    Ok(Some(digest.finish()))
}

/// Makes a group's aggregate from its chunks; also tells what intake could not count.
fn replay(
    group: u64,
    position: &Position,
    reader: &JournalReader,
    rules: &Rules,
    unique_key: UniqueKey,
) -> Result<(OpenBatch, AtReplay), SealError> {
    let unreadable = |reason: String| SealError::Chunks { group, reason };
    let mut chunks = GroupReader::default();
    let mut projection = Projection::new(position, rules, unique_key);
    for chunk in reader.chunks(group).map_err(|error| unreadable(error.to_string()))? {
        let chunk = chunk.map_err(|error| unreadable(error.to_string()))?;
        let raw = zstd::bulk::decompress(&chunk, RAW_BYTES_LIMIT)
            .map_err(|error| unreadable(error.to_string()))?;
        chunks
            .read(&raw, |key_id, record, series| projection.add(key_id, record, series))
            .map_err(|error| unreadable(error.to_string()))?;
    }
    let expected = position.end_event.0.saturating_sub(position.first_event.0);
    if projection.batch.events() != expected {
        let found = projection.batch.events();
        return Err(unreadable(format!("they hold {found} events instead of {expected}")));
    }
    Ok((projection.batch, projection.counted))
}

/// From a group's recorded series to those of its batch.
struct Projection<'a> {
    /// `None`: the group was recorded under rules, its series stand as they are.
    rules: Option<&'a Rules>,
    unique_key: UniqueKey,
    batch: OpenBatch,
    slots: Vec<Option<(SeriesSlot, u64)>>,
    counted: AtReplay,
}

impl<'a> Projection<'a> {
    fn new(position: &Position, rules: &'a Rules, unique_key: UniqueKey) -> Self {
        let rules = (position.rules == RulesVersion(0)).then_some(rules);
        Self {
            rules,
            unique_key,
            batch: OpenBatch::new(unique_key.id),
            slots: Vec::new(),
            counted: AtReplay::default(),
        }
    }

    fn add(&mut self, key_id: u16, record: &Record<'_>, series: &[u8]) {
        let (slot, dropped) = self.slot(record.slot, series);
        let counted = &mut self.counted.dropped_dimensions;
        *counted = counted.saturating_add(dropped);
        let unique = record.unique.map(|unique| match unique {
            Unique::Digest(digest) => digest,
            Unique::Raw(value) => self.digest(slot, value),
        });
        if key_id != 0 {
            self.batch.set_unique_key(key_id);
        }
        let amount = Amount { quantity: record.quantity, unique };
        match self.id(slot, record.id) {
            Some(id) => self.batch.add_alone(slot, record.time, amount, id),
            None => self.batch.add(slot, record.time, amount),
        }
    }

    fn slot(&mut self, recorded: SeriesSlot, series: &[u8]) -> (SeriesSlot, u64) {
        let index = usize::try_from(recorded.0).expect("a u32 fits the address space");
        if index >= self.slots.len() {
            self.slots.resize(index.saturating_add(1), None);
        }
        if let Some(known) = self.slots[index] {
            return known;
        }
        let projected = match self.rules {
            None => (self.batch.slot(series), 0),
            Some(rules) => {
                let (kept, dropped) = project(series, rules);
                (self.batch.slot(&kept), dropped)
            }
        };
        self.slots[index] = Some(projected);
        projected
    }

    /// The event's id in the whole ledger, if its meter asks for one. Without an id it counts, where intake could
    /// not know that it should have one.
    fn id(&mut self, slot: SeriesSlot, id: Option<RecordId>) -> Option<KeyedId> {
        if let Some(RecordId::Keyed(id)) = id {
            return Some(id);
        }
        let rules = self.rules.filter(|rules| !rules.deduplicated.is_empty())?;
        let (meter, customer, _) =
            parse_series(self.batch.series(slot)).expect("intake encodes every series");
        if !rules.deduplicates(meter.as_str()) {
            return None;
        }
        let Some(RecordId::Raw(NumberedId { id, number })) = id else {
            self.counted.without_id = self.counted.without_id.saturating_add(1);
            return None;
        };
        Some(keyed_id(&self.unique_key, meter.as_str(), customer.as_str(), &id, number))
    }

    fn digest(&self, slot: SeriesSlot, value: &str) -> [u8; 16] {
        let series = parse_series(self.batch.series(slot));
        let (meter, customer, _) = series.expect("intake encodes every series");
        unique_digest(&self.unique_key, meter.as_str(), customer.as_str(), value)
    }
}

fn project(series: &[u8], rules: &Rules) -> (Vec<u8>, u64) {
    let (meter, customer, dimensions) = parse_series(series).expect("intake encodes every series");
    let rule = rules.meter(meter.as_str());
    let kept: Vec<(&str, &str)> = dimensions
        .iter()
        .filter(|(name, _)| {
            rule.is_some_and(|rule| rule.dimensions.iter().any(|kept| kept == name))
        })
        .collect();
    let dropped = dimensions.iter().len().saturating_sub(kept.len());
    let series = series_bytes(meter.as_str(), customer.as_str(), &kept);
    (series, u64::try_from(dropped).unwrap_or(u64::MAX))
}
