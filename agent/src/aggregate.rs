//! The open batch: durable events folded into one line per (meter, customer, dimensions, bucket).
//!
//! **Owns** the series table of a batch, its accumulators and their split on overflow. **Does not
//! own** sequence, evidence or durability; the chunks of the same events are [`tidemark_common::chunk`]'s.
//!
//! A *series* is the canonical bytes of (meter, customer, dimensions): the frozen line key before its
//! bucket. A *slot* numbers the series of one batch from 0, in order of first use; the chunks of the
//! batch use the same numbers.
//!
//! Invariants: the order in which events are added does not change the encoded lines; a line whose
//! sum would overflow, or whose set of unique values is full, goes on in a next part. An event that has an id in
//! the whole ledger is a part of its own, behind the others, in the order of ids.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use tidemark_common::batch::{
    BodyError, BodyWriter, EncodedBody, Evidence, Extras, KeyedId, LineId, LineValue,
};
use tidemark_common::chunk::SeriesSlot;
use tidemark_common::id::Digest;
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};

/// One part of a line holds at most this many digests of unique values (1 MiB).
pub const UNIQUES_PER_PART_MAX: usize = 65_536;
/// The raw body of an open batch stays below this, so that its sealed frame always fits.
pub const OPEN_BODY_BYTES_MAX: usize = 15 << 20;
/// An open batch is closed at this many events with an id: a line has 65,536 parts, and one message 1,024 events.
pub const ID_EVENTS_MAX: usize = 32_768;
/// What the id of a line takes in a raw body.
const LINE_ID_BYTES: usize = 4 + 16;
/// What a line takes in a raw body beyond its series and unique digests, in bytes: its length, bucket,
/// part and value.
const LINE_BYTES: usize = 4 + 4 + 2 + 3 * 8 + 3 * 16 + 8 + 16 + 2 + 4;

/// What the table of series takes for one of them, half of it empty.
const INDEX_BYTES: usize = 2 * (size_of::<SeriesSlot>() + 1);
/// What a unique digest takes in a tree of them, and a tree by itself: its first node has room for eleven.
const UNIQUE_BYTES: usize = 24;
const UNIQUES_BYTES: usize = 216;
/// An event with an id becomes a line when it is encoded, beside what it was.
const ID_EVENT_MEMORY_BYTES: usize = size_of::<IdEvent>()
    + size_of::<LineSlot>()
    + size_of::<(Place, KeyedId)>()
    + size_of::<LineId>();

/// What one event adds to its line. At least one of the two is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    pub quantity: Option<Quantity>,
    /// The keyed digest of the unique value.
    pub unique: Option<[u8; 16]>,
}

/// The lines of the batch that is being filled. See the module's invariants.
#[derive(Debug)]
pub struct OpenBatch {
    /// The id of the key that unique values are digested with; 0 while none is known.
    unique_key: u16,
    arena: Vec<u8>,
    series: Vec<Series>,
    index: HashTable<SeriesSlot>,
    lines: Vec<LineSlot>,
    /// Lines of a series in buckets other than its current one.
    elsewhere: HashMap<(SeriesSlot, Bucket), u32>,
    /// Events that become lines of their own.
    id_events: Vec<IdEvent>,
    /// The digest of its raw events, where they go to the archive.
    raw_events: Option<Digest>,
    hasher: DefaultHashBuilder,
    events: u64,
    /// Raw bytes of the lines so far, unique digests aside.
    line_bytes: usize,
    uniques: usize,
    /// Lines that have some.
    unique_sets: usize,
}

#[derive(Debug)]
struct Series {
    start: u32,
    length: u32,
    /// The line that the newest event of the series went to; `NO_LINE` before the first.
    line: u32,
}

const NO_LINE: u32 = u32::MAX;

/// One accumulator: a line of the batch, or one part of it.
#[derive(Debug)]
struct LineSlot {
    series: SeriesSlot,
    bucket: Bucket,
    part: u16,
    events: u64,
    quantity_events: u64,
    unique_events: u64,
    sum: Quantity,
    min: Quantity,
    max: Quantity,
    latest_time: Timestamp,
    latest: Quantity,
    /// Boxed: most lines have none, and a slot must stay small.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in each of 100,000 slots")]
    uniques: Option<Box<BTreeSet<[u8; 16]>>>,
}

/// An event that has an id in the whole ledger.
#[derive(Debug, Clone, Copy)]
struct IdEvent {
    series: SeriesSlot,
    time: Timestamp,
    amount: Amount,
    id: KeyedId,
}

/// Which line of its batch.
type Place = (SeriesSlot, Bucket, u16);

/// What an event with an id, of `series`, takes in a raw body, unless it has a unique value.
#[must_use]
pub fn id_event_bytes(series: usize) -> usize {
    LINE_BYTES.saturating_add(LINE_ID_BYTES).saturating_add(series)
}

impl OpenBatch {
    #[must_use]
    pub fn new(unique_key: u16) -> Self {
        Self {
            unique_key,
            arena: Vec::new(),
            series: Vec::new(),
            index: HashTable::new(),
            lines: Vec::new(),
            elsewhere: HashMap::new(),
            id_events: Vec::new(),
            raw_events: None,
            hasher: DefaultHashBuilder::default(),
            events: 0,
            line_bytes: 0,
            uniques: 0,
            unique_sets: 0,
        }
    }

    /// Names the key that the digests were made with, where it was not known at first.
    pub fn set_unique_key(&mut self, id: u16) {
        self.unique_key = id;
    }

    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Lines and series held, whichever is more: what memory grows with.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.lines.len().saturating_add(self.id_events.len()).max(self.series.len())
    }

    /// Events with an id, against [`ID_EVENTS_MAX`].
    #[must_use]
    pub fn id_events(&self) -> usize {
        self.id_events.len()
    }

    /// How long the raw body of this batch will be, in bytes, its evidence aside.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.line_bytes.saturating_add(self.uniques.saturating_mul(16))
    }

    /// About how much memory this batch takes, also while it is encoded.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        [
            (self.lines.len(), size_of::<LineSlot>()),
            (self.series.len(), size_of::<Series>().saturating_add(INDEX_BYTES)),
            (self.elsewhere.len(), size_of::<((SeriesSlot, Bucket), u32)>().saturating_mul(2)),
            (self.id_events.len(), ID_EVENT_MEMORY_BYTES),
            (self.uniques, UNIQUE_BYTES),
            (self.unique_sets, UNIQUES_BYTES),
        ]
        .into_iter()
        .fold(self.arena.len(), |sum, (count, bytes)| {
            sum.saturating_add(count.saturating_mul(bytes))
        })
    }

    /// The slot of a series, new or known.
    pub fn slot(&mut self, series: &[u8]) -> SeriesSlot {
        let hash = hash_of(&self.hasher, series);
        let (arena, known) = (&self.arena, &self.series);
        if let Some(slot) = self.index.find(hash, |slot| bytes_of(arena, known, *slot) == series) {
            return *slot;
        }
        let slot = SeriesSlot(
            u32::try_from(self.series.len()).expect("open lines are bounded far below 2^32"),
        );
        let start =
            u32::try_from(self.arena.len()).expect("open series are bounded far below 4 GiB");
        let length = u32::try_from(series.len()).expect("a series is a few KiB");
        self.arena.extend_from_slice(series);
        self.series.push(Series { start, length, line: NO_LINE });
        let (arena, known, hasher) = (&self.arena, &self.series, &self.hasher);
        self.index.insert_unique(hash, slot, |slot| hash_of(hasher, bytes_of(arena, known, *slot)));
        slot
    }

    /// The bytes of a series of this batch.
    #[must_use]
    pub fn series(&self, slot: SeriesSlot) -> &[u8] {
        bytes_of(&self.arena, &self.series, slot)
    }

    /// Adds one event.
    pub fn add(&mut self, slot: SeriesSlot, time: Timestamp, amount: Amount) {
        self.events = self.events.saturating_add(1);
        let bucket = bucket_of(time);
        let line = self.line_of(slot, bucket);
        let current = &mut self.lines[index(line)];
        if current.takes(amount) {
            let begins = current.uniques.is_none() && amount.unique.is_some();
            self.unique_sets = self.unique_sets.saturating_add(usize::from(begins));
            self.uniques = self.uniques.saturating_add(current.add(time, amount));
            return;
        }
        let part = next_part(current.part);
        let mut next = LineSlot::new(slot, bucket, part);
        self.uniques = self.uniques.saturating_add(next.add(time, amount));
        self.unique_sets = self.unique_sets.saturating_add(usize::from(amount.unique.is_some()));
        let line = self.push(next);
        self.series[index(slot.0)].line = line;
        self.elsewhere.insert((slot, bucket), line);
    }

    /// Adds one event as a line of its own, for the collector to judge by its id.
    pub fn add_alone(&mut self, slot: SeriesSlot, time: Timestamp, amount: Amount, id: KeyedId) {
        self.events = self.events.saturating_add(1);
        let bytes = id_event_bytes(bytes_of(&self.arena, &self.series, slot).len());
        self.line_bytes = self.line_bytes.saturating_add(bytes);
        self.uniques = self.uniques.saturating_add(usize::from(amount.unique.is_some()));
        self.unique_sets = self.unique_sets.saturating_add(usize::from(amount.unique.is_some()));
        self.id_events.push(IdEvent { series: slot, time, amount, id });
    }

    fn line_of(&mut self, slot: SeriesSlot, bucket: Bucket) -> u32 {
        let current = self.series[index(slot.0)].line;
        if current != NO_LINE && self.lines[index(current)].bucket == bucket {
            return current;
        }
        let line = match self.elsewhere.get(&(slot, bucket)) {
            Some(line) => *line,
            None => {
                let line = self.push(LineSlot::new(slot, bucket, 0));
                // The common case, one bucket a series, never touches this map.
                if current != NO_LINE {
                    self.elsewhere.insert((slot, self.lines[index(current)].bucket), current);
                    self.elsewhere.insert((slot, bucket), line);
                }
                line
            }
        };
        self.series[index(slot.0)].line = line;
        line
    }

    fn push(&mut self, line: LineSlot) -> u32 {
        let number =
            u32::try_from(self.lines.len()).expect("open lines are bounded far below 2^32");
        let series = bytes_of(&self.arena, &self.series, line.series).len();
        self.line_bytes = self.line_bytes.saturating_add(LINE_BYTES).saturating_add(series);
        self.lines.push(line);
        number
    }

    /// Names the raw events that go to the archive.
    pub fn set_raw_events(&mut self, digest: Option<Digest>) {
        self.raw_events = digest;
    }

    #[must_use]
    pub fn raw_events(&self) -> Option<Digest> {
        self.raw_events
    }

    /// Sorts, encodes and hashes the lines into a frozen body.
    ///
    /// # Errors
    /// If the body would be larger than the format allows.
    pub fn encode(mut self, salt: [u8; 32], evidence: &Evidence) -> Result<EncodedBody, BodyError> {
        let ids = self.place_id_events();
        let (arena, series) = (&self.arena, &self.series);
        self.lines.sort_unstable_by(|a, b| {
            bytes_of(arena, series, a.series)
                .cmp(bytes_of(arena, series, b.series))
                .then(a.bucket.cmp(&b.bucket))
                .then(a.part.cmp(&b.part))
        });
        let mut ids = ids.into_iter().peekable();
        let mut line_ids = Vec::with_capacity(ids.len());
        for (index, line) in (0..).zip(&self.lines) {
            if let Some((_, id)) = ids.next_if(|(place, _)| *place == line.place()) {
                line_ids.push(LineId { line: index, id });
            }
        }
        assert!(ids.next().is_none(), "ids stand in the order of their lines");
        let mut extras = Extras::default();
        if let Some(digest) = self.raw_events {
            extras.set_events_digest(digest);
        }
        extras.set_line_ids(self.unique_key, &line_ids);
        let mut writer = BodyWriter::with_extras(salt, evidence, extras);
        for line in &self.lines {
            let value = line.value(self.unique_key);
            writer.line(bytes_of(arena, series, line.series), line.bucket, line.part, &value)?;
        }
        writer.finish()
    }

    /// Makes lines of the events with an id, behind the parts that are there; in the order of encoded lines.
    fn place_id_events(&mut self) -> Vec<(Place, KeyedId)> {
        let mut events = std::mem::take(&mut self.id_events);
        if events.is_empty() {
            return Vec::new();
        }
        let (arena, series) = (&self.arena, &self.series);
        events.sort_unstable_by(|a, b| {
            bytes_of(arena, series, a.series)
                .cmp(bytes_of(arena, series, b.series))
                .then_with(|| bucket_of(a.time).cmp(&bucket_of(b.time)))
                .then_with(|| a.id.cmp(&b.id))
                .then_with(|| (a.time, a.amount).cmp(&(b.time, b.amount)))
        });
        let mut parts: HashMap<(SeriesSlot, Bucket), u16> = HashMap::new();
        for line in &self.lines {
            let next = parts.entry((line.series, line.bucket)).or_default();
            *next = (*next).max(next_part(line.part));
        }
        let placed = events.into_iter().map(|IdEvent { series, time, amount, id }| {
            let bucket = bucket_of(time);
            let part = parts.entry((series, bucket)).or_default();
            let mut line = LineSlot::new(series, bucket, *part);
            *part = next_part(*part);
            line.add(time, amount);
            let place = line.place();
            self.lines.push(line);
            (place, id)
        });
        placed.collect()
    }
}

impl LineSlot {
    fn new(series: SeriesSlot, bucket: Bucket, part: u16) -> Self {
        Self {
            series,
            bucket,
            part,
            events: 0,
            quantity_events: 0,
            unique_events: 0,
            sum: Quantity::ZERO,
            min: Quantity::ZERO,
            max: Quantity::ZERO,
            latest_time: Timestamp(0),
            latest: Quantity::ZERO,
            uniques: None,
        }
    }

    fn place(&self) -> Place {
        (self.series, self.bucket, self.part)
    }

    fn takes(&self, amount: Amount) -> bool {
        let sums = amount.quantity.is_none_or(|quantity| self.sum.checked_add(quantity).is_some());
        let uniques = match (&self.uniques, amount.unique) {
            (Some(held), Some(unique)) => {
                held.len() < UNIQUES_PER_PART_MAX || held.contains(&unique)
            }
            (None, _) | (_, None) => true,
        };
        sums && uniques
    }

    /// Adds an event that [`Self::takes`]; returns how many digests that added.
    fn add(&mut self, time: Timestamp, amount: Amount) -> usize {
        self.events = self.events.saturating_add(1);
        if let Some(quantity) = amount.quantity {
            self.add_quantity(time, quantity);
        }
        let Some(unique) = amount.unique else { return 0 };
        self.unique_events = self.unique_events.saturating_add(1);
        usize::from(self.uniques.get_or_insert_default().insert(unique))
    }

    fn add_quantity(&mut self, time: Timestamp, quantity: Quantity) {
        self.sum = self.sum.checked_add(quantity).expect("`takes` has said that the sum fits");
        if self.quantity_events == 0 {
            (self.min, self.max) = (quantity, quantity);
            (self.latest_time, self.latest) = (time, quantity);
        } else {
            self.min = self.min.min(quantity);
            self.max = self.max.max(quantity);
            (self.latest_time, self.latest) = (self.latest_time, self.latest).max((time, quantity));
        }
        self.quantity_events = self.quantity_events.saturating_add(1);
    }

    fn value(&self, unique_key: u16) -> LineValue {
        LineValue {
            events: self.events,
            quantity_events: self.quantity_events,
            unique_events: self.unique_events,
            sum: self.sum,
            min: self.min,
            max: self.max,
            latest_time: self.latest_time,
            latest: self.latest,
            unique_key: if self.uniques.is_some() { unique_key } else { 0 },
            uniques: self.uniques.iter().flat_map(|held| held.iter().copied()).collect(),
        }
    }
}

fn bucket_of(time: Timestamp) -> Bucket {
    Bucket::of(time).expect("times are judged at intake to lie after 1970")
}

fn next_part(part: u16) -> u16 {
    part.checked_add(1).expect("a line has fewer than 65,536 parts")
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("a u32 fits the address space")
}

fn bytes_of<'a>(arena: &'a [u8], series: &[Series], slot: SeriesSlot) -> &'a [u8] {
    let Series { start, length, .. } = series[index(slot.0)];
    &arena[index(start)..index(start.saturating_add(length))]
}

fn hash_of(hasher: &DefaultHashBuilder, bytes: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(bytes);
    state.finish()
}

#[cfg(test)]
mod tests;
