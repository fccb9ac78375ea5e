//! Chunks: the events of one group commit as compact records, before compression.
//!
//! **Owns** the bytes below. **Does not own** what surrounds them in the journal (opening, rules
//! version, first event number, evidence: `journal/`), nor compression.
//!
//! ```text
//! CHUNK    version u8 = 1, or 2 with ids; unique key id u16 big-endian (0: unique values are held raw),
//!          base time varint (zigzag, unix ms), then records to the end
//! RECORD   head varint = slot * 16 + form
//!            form bit 0: a quantity follows   bit 1: a unique value follows
//!            form bit 2: a time delta follows (else the time of the record before)
//!            form bit 3: the slot's series follows (its first use in the group)
//!          series length varint, series
//!          time delta varint (zigzag, ms)       to the record before, at first to the base time
//!          quantity varint                      zigzag(whole) * 2, or zigzag(units of 10^-9) * 2 + 1
//!          unique [16], or length varint, text  by the key id above
//! ID       marker varint = 2^26, then keyed id [16], or id digest [16], number varint, by the key id above:
//!          of the event in the record behind it
//! varint   little-endian base 128; zigzag maps 0, -1, 1, -2, ... to 0, 1, 2, 3, ...
//! ```
//!
//! The series table belongs to the *group* (the chunks of one open batch): a later chunk uses slots
//! that an earlier one defined, and the chunks of a group are read together and die together.

use thiserror::Error;

use crate::batch::KeyedId;
use crate::quantity::{Quantity, UNITS_PER_ONE};
use crate::time::Timestamp;

/// A chunk is handed to the journal once its raw bytes reach this. One line's packed values come on
/// top; compressed, a chunk stays under 65,500 bytes, where redb's pages are well filled.
pub const CHUNK_RAW_BYTES_MAX: usize = 56_000;

/// A chunk decompresses to at most this many bytes: it is cut at [`CHUNK_RAW_BYTES_MAX`], and one message on
/// top takes far less than the rest.
pub const RAW_BYTES_LIMIT: usize = 4 << 20;

const VERSION: u8 = 1;
const VERSION_WITH_IDS: u8 = 2;
const QUANTITY: u64 = 1;
const UNIQUE: u64 = 2;
const TIME: u64 = 4;
const SERIES: u64 = 8;

/// A slot is below this; intake closes a batch long before.
const SLOTS_MAX: u32 = 1 << 22;
/// In place of a head: an id follows.
const ID: u64 = (SLOTS_MAX as u64) << 4;

/// The number of a series in its group, from 0 in order of first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesSlot(pub u32);

/// The unique value of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unique<'a> {
    /// Its keyed digest.
    Digest([u8; 16]),
    /// The value itself, while no key is known.
    Raw(&'a str),
}

/// What stands for an event's id in the whole ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordId {
    Keyed(KeyedId),
    /// What it will be made of, while no key is known.
    Raw(NumberedId),
}

/// The id of a message, and which of the events of one meter that it was expanded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberedId {
    /// The digest by which the journal knows the message's id.
    pub id: [u8; 16],
    pub number: u32,
}

/// One event, as a chunk holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub slot: SeriesSlot,
    pub time: Timestamp,
    pub quantity: Option<Quantity>,
    pub unique: Option<Unique<'a>>,
    pub id: Option<RecordId>,
}

/// Writes the chunks of one group, one after the other.
#[derive(Debug)]
pub struct ChunkWriter {
    unique_key: u16,
    /// Which slots' series the group has written, one bit each.
    defined: Vec<u64>,
    bytes: Vec<u8>,
    events: u32,
    time: Timestamp,
}

/// One chunk's raw bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawChunk {
    pub bytes: Vec<u8>,
    pub events: u32,
}

impl ChunkWriter {
    #[must_use]
    pub fn new(unique_key: u16) -> Self {
        Self { unique_key, defined: Vec::new(), bytes: Vec::new(), events: 0, time: Timestamp(0) }
    }

    #[must_use]
    pub fn events(&self) -> u32 {
        self.events
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK_RAW_BYTES_MAX
    }

    /// Appends one event; `series` are the bytes of its slot.
    ///
    /// # Panics
    /// If a slot is out of bounds, or a unique value or an id does not fit the key.
    pub fn record(&mut self, record: &Record<'_>, series: &[u8]) {
        if self.bytes.is_empty() {
            self.begin(record.time);
        }
        self.events = self.events.saturating_add(1);
        if let Some(id) = record.id {
            self.id(id);
        }
        let moved = record.time.millis_since(self.time);
        let form = if record.quantity.is_some() { QUANTITY } else { 0 }
            | if record.unique.is_some() { UNIQUE } else { 0 }
            | if moved == 0 { 0 } else { TIME }
            | if self.is_defined(record.slot) { 0 } else { SERIES };
        put(&mut self.bytes, u128::from(u64::from(record.slot.0) << 4 | form));
        if form & SERIES != 0 {
            put_bytes(&mut self.bytes, series);
            self.define(record.slot);
        }
        if moved != 0 {
            put(&mut self.bytes, zigzag(i128::from(moved)));
            self.time = record.time;
        }
        if let Some(quantity) = record.quantity {
            put(&mut self.bytes, pack(quantity));
        }
        match (record.unique, self.unique_key) {
            (None, _) => {}
            (Some(Unique::Raw(text)), 0) => put_bytes(&mut self.bytes, text.as_bytes()),
            (Some(Unique::Digest(digest)), 1..) => self.bytes.extend_from_slice(&digest),
            (Some(unique), key) => panic!("{unique:?} does not fit unique key {key}"),
        }
    }

    fn id(&mut self, id: RecordId) {
        // The one byte that an older agent looks at first.
        self.bytes[0] = VERSION_WITH_IDS;
        put(&mut self.bytes, u128::from(ID));
        match (id, self.unique_key) {
            (RecordId::Keyed(KeyedId(id)), 1..) => self.bytes.extend_from_slice(&id),
            (RecordId::Raw(NumberedId { id, number }), 0) => {
                self.bytes.extend_from_slice(&id);
                put(&mut self.bytes, u128::from(number));
            }
            (id, key) => panic!("{id:?} does not fit unique key {key}"),
        }
    }

    /// Takes what has been written as one chunk; `None` if that is nothing. The group goes on.
    pub fn take(&mut self) -> Option<RawChunk> {
        if self.bytes.is_empty() {
            return None;
        }
        let events = std::mem::take(&mut self.events);
        Some(RawChunk { bytes: std::mem::take(&mut self.bytes), events })
    }

    fn is_defined(&self, slot: SeriesSlot) -> bool {
        let (word, bit) = bit_of(slot);
        self.defined.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn define(&mut self, slot: SeriesSlot) {
        assert!(slot.0 < SLOTS_MAX, "a batch holds fewer than {SLOTS_MAX} series");
        let (word, bit) = bit_of(slot);
        if word >= self.defined.len() {
            self.defined.resize(word.saturating_add(1), 0);
        }
        self.defined[word] |= bit;
    }

    fn begin(&mut self, time: Timestamp) {
        self.bytes.reserve(CHUNK_RAW_BYTES_MAX.saturating_add(1_024));
        self.bytes.push(VERSION);
        self.bytes.extend_from_slice(&self.unique_key.to_be_bytes());
        put(&mut self.bytes, zigzag(i128::from(time.0)));
        self.time = time;
    }
}

/// A chunk that cannot be read: corruption, or a newer format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChunkError {
    #[error("failed to read a chunk: version {found} is unknown")]
    Version { found: u8 },
    #[error("failed to read a chunk: it ends inside a record, at byte {at}")]
    Truncated { at: usize },
    #[error("failed to read a chunk: {what} at byte {at} is out of range")]
    Range { what: &'static str, at: usize },
}

/// Reads the chunks of one group, in order.
#[derive(Debug, Default)]
pub struct GroupReader {
    /// By slot; empty where a slot has not been used yet.
    series: Vec<Box<[u8]>>,
}

impl GroupReader {
    /// Reads one chunk and hands each record, with its unique key id and series bytes, to `each`.
    ///
    /// # Errors
    /// Bytes that no [`ChunkWriter`] wrote, or a chunk out of order.
    pub fn read(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(u16, &Record<'_>, &[u8]),
    ) -> Result<u32, ChunkError> {
        let mut input = Input { bytes: chunk, at: 0 };
        let version = input.byte()?;
        if !(VERSION..=VERSION_WITH_IDS).contains(&version) {
            return Err(ChunkError::Version { found: version });
        }
        let unique_key = u16::from_be_bytes([input.byte()?, input.byte()?]);
        let mut time = Timestamp(input.signed("base time")?);
        let mut events: u32 = 0;
        while input.at < chunk.len() {
            let record = self.record(&mut input, unique_key, &mut time)?;
            each(unique_key, &record, &self.series[index(record.slot)]);
            events = events.saturating_add(1);
        }
        Ok(events)
    }

    fn record<'a>(
        &mut self,
        input: &mut Input<'a>,
        unique_key: u16,
        time: &mut Timestamp,
    ) -> Result<Record<'a>, ChunkError> {
        let mut head = input.unsigned("head")?;
        let mut id = None;
        if head == ID {
            id = Some(read_id(input, unique_key)?);
            head = input.unsigned("head")?;
        }
        let slot = u32::try_from(head >> 4).ok().filter(|slot| *slot < SLOTS_MAX);
        let slot = SeriesSlot(slot.ok_or_else(|| input.range("slot"))?);
        if head & SERIES != 0 {
            if index(slot) >= self.series.len() {
                self.series.resize(index(slot).saturating_add(1), Box::default());
            }
            self.series[index(slot)] = input.counted()?.into();
        }
        if self.series.get(index(slot)).is_none_or(|series| series.is_empty()) {
            return Err(input.range("slot"));
        }
        if head & TIME != 0 {
            *time = time.plus_millis(input.signed("time")?);
        }
        let quantity = match head & QUANTITY {
            0 => None,
            _ => Some(unpack(input.varint("quantity")?).ok_or_else(|| input.range("quantity"))?),
        };
        let unique = match (head & UNIQUE, unique_key) {
            (0, _) => None,
            (_, 0) => {
                let text =
                    std::str::from_utf8(input.counted()?).map_err(|_| input.range("unique"))?;
                Some(Unique::Raw(text))
            }
            (_, 1..) => Some(Unique::Digest(input.array()?)),
        };
        Ok(Record { slot, time: *time, quantity, unique, id })
    }
}

fn read_id(input: &mut Input<'_>, unique_key: u16) -> Result<RecordId, ChunkError> {
    let id = input.array()?;
    if unique_key > 0 {
        return Ok(RecordId::Keyed(KeyedId(id)));
    }
    let number = u32::try_from(input.unsigned("number")?).map_err(|_| input.range("number"))?;
    Ok(RecordId::Raw(NumberedId { id, number }))
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, ChunkError> {
        let byte = self.bytes.get(self.at).ok_or(ChunkError::Truncated { at: self.at })?;
        self.at = self.at.saturating_add(1);
        Ok(*byte)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], ChunkError> {
        let end = self.at.saturating_add(length);
        let slice = self.bytes.get(self.at..end).ok_or(ChunkError::Truncated { at: self.at })?;
        self.at = end;
        Ok(slice)
    }

    fn array(&mut self) -> Result<[u8; 16], ChunkError> {
        let at = self.at;
        self.slice(16)?.try_into().map_err(|_| ChunkError::Truncated { at })
    }

    fn counted(&mut self) -> Result<&'a [u8], ChunkError> {
        let length = self.unsigned("length")?;
        self.slice(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn unsigned(&mut self, what: &'static str) -> Result<u64, ChunkError> {
        u64::try_from(self.varint(what)?).map_err(|_| self.range(what))
    }

    fn signed(&mut self, what: &'static str) -> Result<i64, ChunkError> {
        i64::try_from(unzigzag(self.varint(what)?)).map_err(|_| self.range(what))
    }

    fn varint(&mut self, what: &'static str) -> Result<u128, ChunkError> {
        let mut value: u128 = 0;
        let mut shift: u32 = 0;
        loop {
            let byte = self.byte()?;
            let digit = u128::from(byte & 0x7f);
            if shift >= 128 || (shift == 126 && digit > 3) {
                return Err(self.range(what));
            }
            value |= digit << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift = shift.saturating_add(7);
        }
    }

    fn range(&self, what: &'static str) -> ChunkError {
        ChunkError::Range { what, at: self.at }
    }
}

fn bit_of(slot: SeriesSlot) -> (usize, u64) {
    (index(slot) >> 6, 1 << (slot.0 & 63))
}

fn index(slot: SeriesSlot) -> usize {
    usize::try_from(slot.0).expect("a u32 fits the address space")
}

fn put(bytes: &mut Vec<u8>, mut value: u128) {
    // The common value is small: stay in 64 bits as soon as it fits.
    while value > u128::from(u64::MAX) {
        bytes.push(low_seven(value) | 0x80);
        value >>= 7;
    }
    let mut value = u64::try_from(value).expect("the loop has brought it below 2^64");
    while value >= 0x80 {
        bytes.push(low_seven(u128::from(value)) | 0x80);
        value >>= 7;
    }
    bytes.push(low_seven(u128::from(value)));
}

fn put_bytes(bytes: &mut Vec<u8>, counted: &[u8]) {
    put(bytes, u128::try_from(counted.len()).expect("a length fits 128 bits"));
    bytes.extend_from_slice(counted);
}

fn low_seven(value: u128) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit a byte")
}

fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)).cast_unsigned()
}

fn unzigzag(value: u128) -> i128 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

/// A quantity of an event has at most 15 integer digits, so twice its zigzag fits 128 bits.
fn pack(quantity: Quantity) -> u128 {
    if let Ok(units) = i64::try_from(quantity.0) {
        // 64-bit division is several times faster, and most quantities are small.
        if units.wrapping_rem(1_000_000_000) == 0 {
            return zigzag(i128::from(units.wrapping_div(1_000_000_000))) << 1;
        }
    } else if quantity.0.wrapping_rem(UNITS_PER_ONE) == 0 {
        return zigzag(quantity.0.wrapping_div(UNITS_PER_ONE)) << 1;
    }
    zigzag(quantity.0) << 1 | 1
}

fn unpack(packed: u128) -> Option<Quantity> {
    let value = unzigzag(packed >> 1);
    match packed & 1 {
        0 => value.checked_mul(UNITS_PER_ONE).map(Quantity),
        _ => Some(Quantity(value)),
    }
}

#[cfg(test)]
mod tests;
