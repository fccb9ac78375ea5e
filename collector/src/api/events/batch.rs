//! Which of a batch's raw events are asked for, held against its lines.
//!
//! **Owns** that what is found is what the lines count: in each meter and 15 minutes as many. **Does not own** reading raw events
//! (`archive/events/read.rs`).
//!
//! Limits: memory holds the events that are shown, and of those with an id a few words each.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidemark_common::batch::{KeyedId, keyed_id, parse_series, unique_digest};
use tidemark_common::chunk::{NumberedId, Record, RecordId, SeriesSlot, Unique};
use tidemark_common::id::{EventNumber, MeterName};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::wire::UniqueKey;

use crate::archive::events::{Missing, RawEvent};
use crate::ledger::store::{ShownBatch, UsageQuestion};
use crate::ledger::tail::ClassedLine;
use crate::usage::Class;

/// The lines of a batch that are asked for.
pub(super) struct Expected<'b> {
    asked: &'b UsageQuestion<'b>,
    lines: Vec<&'b ClassedLine>,
    /// The lines that hold one event with an id, by it and their bucket, in the body's order.
    by_id: HashMap<(KeyedId, Bucket), Vec<Class>>,
    /// What events without an id are.
    classes: BTreeMap<&'b MeterName, Class>,
}

/// What is shown of a batch.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) events: Vec<FoundEvent>,
    /// The number of the first event that found no room.
    pub(super) next: Option<u64>,
}

/// One event.
#[derive(Debug)]
pub(super) struct FoundEvent {
    pub(super) number: EventNumber,
    pub(super) time: Timestamp,
    pub(super) meter: MeterName,
    pub(super) dimensions: BTreeMap<String, String>,
    pub(super) quantity: Option<Quantity>,
    pub(super) unique: Option<[u8; 16]>,
    pub(super) class: Class,
}

/// An event with an id, in the order in which lines of one id and bucket stand.
type Placed = ((KeyedId, Bucket), Timestamp, Option<Quantity>, Option<[u8; 16]>, EventNumber);

/// A series of the customer's that is asked for.
struct Series {
    meter: MeterName,
    dimensions: BTreeMap<String, String>,
}

impl<'b> Expected<'b> {
    pub(super) fn of(asked: &'b UsageQuestion<'b>, batch: &ShownBatch<'b>) -> Self {
        let is_asked = |line: &&ClassedLine| {
            let key = &line.line.key;
            asked.covers(key.bucket) && asked.meter.is_none_or(|meter| *meter == key.meter)
        };
        let lines: Vec<&ClassedLine> =
            batch.lines.of(asked.customer).iter().filter(is_asked).collect();
        let ids: HashMap<u32, KeyedId> = batch.ids.iter().map(|id| (id.line, id.id)).collect();
        let (mut by_id, mut classes) = (HashMap::<_, Vec<Class>>::new(), BTreeMap::new());
        for held in &lines {
            let key = &held.line.key;
            match ids.get(&held.index) {
                Some(id) => by_id.entry((*id, key.bucket)).or_default().push(held.class),
                None => drop(classes.insert(&key.meter, held.class)),
            }
        }
        Self { asked, lines, by_id, classes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How many events are billed.
    pub(super) fn billed(&self) -> u64 {
        let billed = self.lines.iter().filter(|held| held.class == Class::Normal);
        billed.fold(0, |sum, held| sum.saturating_add(held.line.value.events))
    }

    /// From the first bucket to the end of the last.
    pub(super) fn buckets(&self) -> (Bucket, Bucket) {
        let buckets = || self.lines.iter().map(|held| held.line.key.bucket);
        let end = buckets().max().map_or(0, |last| last.0.saturating_add(1));
        (buckets().min().unwrap_or(Bucket(0)), Bucket(end))
    }

    /// Finds the events among those that `read` shows, from number `least` on as many as there is `room` for.
    ///
    /// # Errors
    /// Why they cannot be shown.
    pub(super) fn find(
        &self,
        key: &UniqueKey,
        least: u64,
        room: usize,
        read: impl FnOnce(&mut dyn FnMut(&RawEvent<'_>)) -> Result<(), Missing>,
    ) -> Result<Found, Missing> {
        let mut series: HashMap<SeriesSlot, Option<Series>> = HashMap::new();
        let mut counted: BTreeMap<(MeterName, Bucket), u64> = BTreeMap::new();
        let (mut events, mut next, mut placed) = (Vec::new(), None, Vec::new());
        read(&mut |raw| {
            let record = raw.record;
            let known = series.entry(record.slot).or_insert_with(|| self.series(raw.series));
            let (Some(Series { meter, dimensions }), Some(bucket)) =
                (known, Bucket::of(record.time).filter(|bucket| self.asked.covers(*bucket)))
            else {
                return;
            };
            let count = counted.entry((meter.clone(), bucket)).or_default();
            *count = count.saturating_add(1);
            let unique = self.unique(key, record, meter);
            if let Some(id) = self.id(key, record, meter) {
                placed.push(((id, bucket), record.time, record.quantity, unique, raw.number));
            }
            if raw.number.0 < least {
                return;
            }
            if events.len() == room {
                next = next.or(Some(raw.number.0));
                return;
            }
            events.push(FoundEvent {
                number: raw.number,
                time: record.time,
                meter: meter.clone(),
                dimensions: dimensions.clone(),
                quantity: record.quantity,
                unique,
                class: self.classes.get(meter).copied().unwrap_or_default(),
            });
        })?;
        self.check(&counted)?;
        let by_id = self.classes_by_id(placed);
        for event in &mut events {
            event.class = by_id.get(&event.number).copied().unwrap_or(event.class);
        }
        Ok(Found { events, next })
    }

    fn series(&self, bytes: &[u8]) -> Option<Series> {
        let (meter, customer, dimensions) = parse_series(bytes).ok()?;
        let is_asked = customer == *self.asked.customer
            && self.asked.meter.is_none_or(|asked| *asked == meter);
        let named = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        is_asked.then(|| Series { meter, dimensions: dimensions.iter().map(named).collect() })
    }

    /// The digest of a unique value. An agent that knew no key yet has recorded the value.
    fn unique(&self, key: &UniqueKey, record: &Record<'_>, meter: &MeterName) -> Option<[u8; 16]> {
        Some(match record.unique? {
            Unique::Digest(digest) => digest,
            Unique::Raw(value) => {
                unique_digest(key, meter.as_str(), self.asked.customer.as_str(), value)
            }
        })
    }

    fn id(&self, key: &UniqueKey, record: &Record<'_>, meter: &MeterName) -> Option<KeyedId> {
        Some(match record.id? {
            RecordId::Keyed(id) => id,
            RecordId::Raw(NumberedId { id, number }) => {
                keyed_id(key, meter.as_str(), self.asked.customer.as_str(), &id, number)
            }
        })
    }

    fn check(&self, counted: &BTreeMap<(MeterName, Bucket), u64>) -> Result<(), Missing> {
        let mut expected: BTreeMap<(MeterName, Bucket), u64> = BTreeMap::new();
        for held in &self.lines {
            let key = &held.line.key;
            let count = expected.entry((key.meter.clone(), key.bucket)).or_default();
            *count = count.saturating_add(held.line.value.events);
        }
        if *counted == expected {
            return Ok(());
        }
        let reason = "its lines count others of this customer's".to_owned();
        Err(Missing::Differ { reason })
    }

    /// What each event with an id is: lines of one id and bucket stand in the order of their events' times and amounts.
    fn classes_by_id(&self, mut placed: Vec<Placed>) -> HashMap<EventNumber, Class> {
        placed.sort_unstable();
        let numbers: BTreeSet<_> = placed.iter().map(|(place, ..)| *place).collect();
        let mut classes = HashMap::new();
        for place in numbers {
            let lines = self.by_id.get(&place).into_iter().flatten();
            let first = placed.partition_point(|(at, ..)| *at < place);
            let events = placed.iter().skip(first).take_while(|(at, ..)| *at == place);
            classes.extend(events.zip(lines).map(|((.., number), class)| (*number, *class)));
        }
        classes
    }
}
