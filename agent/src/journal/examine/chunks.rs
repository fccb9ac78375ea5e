//! Chunks: no hole in groups, indices or event numbers; checksums; and events that can be read back.

use redb::{ReadTransaction, ReadableTable, TableError};
use tidemark_common::chunk::{GroupReader, RAW_BYTES_LIMIT};
use tidemark_common::id::{EventNumber, OpeningId, RulesVersion};
use tidemark_common::wire::{HeldOpening, events_chunks};

use super::{Depth, Examined, SET_ASIDE};
use crate::journal::apply::to_u64;
use crate::journal::reader::ReadError;
use crate::journal::record::{ChunkHeader, decode_chunk, decode_piece, in_reach};
use crate::journal::tables::{CHUNKS, RAW_EVENTS};

const RAW_EVENTS_LOST: &str = "The events are counted in their batch; single ones of it cannot be looked up at the collector.";

/// A group whose chunks are being read.
struct Group {
    number: u64,
    /// `None` until one of its chunks could be read.
    made_by: Option<(OpeningId, RulesVersion)>,
    next_index: u32,
    /// `None` once a chunk is missing: those behind it use what it defined.
    events: Option<GroupReader>,
}

impl Group {
    fn begin(number: u64) -> Self {
        Self { number, made_by: None, next_index: 0, events: Some(GroupReader::default()) }
    }

    /// Takes chunk `index` as the next one; false if those before it are missing.
    fn reach(&mut self, index: u32) -> bool {
        let follows = self.next_index == index;
        if !follows {
            self.events = None;
        }
        self.next_index = index.saturating_add(1);
        follows
    }
}

/// Raw events of sealed batches: that they can be unpacked. A journal of an older agent has none.
pub(super) fn read_raw_events(
    transaction: &ReadTransaction,
    depth: Depth,
    found: &mut Examined,
) -> Result<(), ReadError> {
    let table = match transaction.open_table(RAW_EVENTS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        table => table?,
    };
    for entry in table.iter()? {
        let (key, record) = entry?;
        let (sequence, index) = key.value();
        found.took(record.value().len());
        let piece = match decode_piece(record.value()) {
            Ok(piece) => piece,
            Err(error) => {
                found.tell(format!("raw events {sequence}.{index}"), error, RAW_EVENTS_LOST);
                continue;
            }
        };
        found.raw_events.add(0, to_u64(piece.len()));
        let is_sound = |chunk: Option<&[u8]>| {
            chunk.is_some_and(|chunk| zstd::bulk::decompress(chunk, RAW_BYTES_LIMIT).is_ok())
        };
        if depth == Depth::Everything && !events_chunks(piece).all(is_sound) {
            let problem = "a chunk cannot be unpacked";
            found.tell(format!("raw events {sequence}.{index}"), problem, RAW_EVENTS_LOST);
        }
    }
    Ok(())
}

pub(super) fn read(
    transaction: &ReadTransaction,
    depth: Depth,
    found: &mut Examined,
) -> Result<(), ReadError> {
    let mut group: Option<Group> = None;
    let mut next = found.positions.map(|positions| EventNumber(positions.sealed_events));
    for entry in transaction.open_table(CHUNKS)?.iter()? {
        let (key, record) = entry?;
        let (number, index) = key.value();
        let bytes = record.value();
        found.took(bytes.len());
        let place = format!("chunk {number}.{index}");
        if let Err(problem) = in_reach([number]) {
            found.tell(&place, problem, SET_ASIDE);
        }
        let mut of = match group.take() {
            Some(of) if of.number == number => of,
            Some(_) | None => {
                found.groups = found.groups.saturating_add(1);
                Group::begin(number)
            }
        };
        let missing = of.next_index;
        if !of.reach(index) {
            found.tell(&place, format!("the group's chunk {missing} is missing"), SET_ASIDE);
        }
        match decode_chunk(bytes) {
            Ok((header, payload)) => {
                judge(&mut of, &header, payload, depth, &place, found);
                next = counts_on(next, &header, bytes.len(), &place, found);
            }
            Err(error) => {
                found.tell(place, error, SET_ASIDE);
                // Where the next one begins, and what it says, is not known any more.
                next = None;
                of.events = None;
            }
        }
        group = Some(of);
    }
    Ok(())
}

/// Counts a chunk, which must begin at `next`; where the next one must begin.
fn counts_on(
    next: Option<EventNumber>,
    header: &ChunkHeader,
    bytes: usize,
    place: &str,
    found: &mut Examined,
) -> Option<EventNumber> {
    let ChunkHeader { opening, first_event: first, events, .. } = *header;
    found.chunks.add(u64::from(events), to_u64(bytes));
    if let Some(expected) = next.filter(|expected| *expected != first) {
        found.tell(place, format!("it begins at event {first}, not {expected}"), SET_ASIDE);
    }
    let end = first.plus(u64::from(events));
    found.hold(HeldOpening { opening, first, end });
    Some(end)
}

/// Judges a chunk as one of its group.
fn judge(
    of: &mut Group,
    header: &ChunkHeader,
    payload: &[u8],
    depth: Depth,
    place: &str,
    found: &mut Examined,
) {
    let made_by = (header.opening, header.rules);
    if *of.made_by.get_or_insert(made_by) != made_by {
        found.tell(place, "its group began in another opening or under other rules", SET_ASIDE);
    }
    let Some(reader) = of.events.as_mut().filter(|_| depth == Depth::Everything) else { return };
    let read = zstd::bulk::decompress(payload, RAW_BYTES_LIMIT)
        .map_err(|error| error.to_string())
        .and_then(|raw| reader.read(&raw, |_, _, _| {}).map_err(|error| error.to_string()));
    match read {
        Ok(events) if events == header.events => {}
        Ok(events) => {
            let problem = format!("it holds {events} events, and says {}", header.events);
            found.tell(place, problem, SET_ASIDE);
        }
        Err(error) => {
            found.tell(place, error, SET_ASIDE);
            of.events = None;
        }
    }
}
