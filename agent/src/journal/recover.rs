//! What a start finds: the figures recounted from the rows, and checked against the stored counters.
//!
//! **Owns** the recount. **Does not own** the file or its locks (`open.rs`). Memory is bounded by the
//! number of ids and sources kept, never by the backlog: rows are read one at a time, and batches by
//! their rows in `batches`, not by their bytes.

use std::collections::BTreeMap;

use redb::{ReadableTable, ReadableTableMetadata};
use tidemark_common::batch::Evidence;
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{Digest, EventNumber, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::decode_rules;

use super::apply::{GroupNote, Memory, Tables, to_u64};
use super::budget::{FIXED_BYTES, row_bytes};
use super::open::OpenError;
use super::record::{
    BatchRow, ChunkHeader, Conflicted, Counters, Identity, Opened, Pinned, Record, RecordError,
    SourceRow, decode_chunk, decode_evidence, decode_ids, decode_piece, encode_evidence, in_reach,
};
use super::state::{FreshIds, Group, JournalOptions, JournalState, RawEventsHeld, Recovered};
use super::tables::{FORMAT, RULES_ROW, meta};
use crate::event::SourceCount;
use crate::event::age_clock::AgeClock;

/// Reads and checks everything, and writes the new opening. Nothing counts until the caller commits.
pub(super) fn recover(
    tables: &mut Tables<'_>,
    options: &JournalOptions,
    fresh: FreshIds,
    now: Timestamp,
) -> Result<(Memory, Recovered), OpenError> {
    let is_new = begin(tables, fresh)?;
    let counters: Counters = required(tables, meta::COUNTERS)?;
    let identity: Identity = required(tables, meta::IDENTITY)?;
    if let Some(conflicted) = stored::<Conflicted>(tables, meta::CONFLICTED)? {
        return Err(OpenError::Conflicted {
            path: options.path.clone(),
            stream: identity.stream,
            reason: conflicted.reason,
        });
    }
    let mut memory = Memory {
        state: blank(identity, fresh, &counters, options),
        unique_key: None,
        groups: BTreeMap::new(),
        backlog_oldest: None,
        largest_batch: 0,
        clean: false,
        newest: counters.newest,
        ids_oldest: None,
        age_clock: AgeClock::default(),
        next_ids_row: 0,
        next_dead_letter: 0,
    };
    if let Some(pinned) = stored::<Pinned>(tables, meta::PINNED)? {
        memory.state.ledger = Some(pinned.ledger);
        memory.unique_key = Some(pinned.unique_key);
    }
    if let Some(row) = tables.meta.get(meta::EVIDENCE)? {
        memory.state.evidence = decode_evidence(row.value())?;
    }

    count_batches(tables, &mut memory)?;
    count_raw_events(tables, &mut memory)?;
    let groups = count_chunks(tables, &mut memory)?;
    let ids = read_ids(tables, &mut memory)?;
    let sources = count_rest(tables, &mut memory)?;
    let rules = match tables.rules.get(RULES_ROW)? {
        Some(row) => {
            memory.state.live_bytes =
                memory.state.live_bytes.saturating_add(cost(row.value().len()));
            Some(decode_rules(row.value()).map_err(|error| OpenError::corrupt(error.to_string()))?)
        }
        None => None,
    };
    check(&memory.state)?;
    memory.refresh_oldest();

    let clean = is_new || required::<Opened>(tables, meta::OPENED)?.clean;
    if !clean {
        memory.state.evidence.add(EvidenceCode::UncleanStarts, 1);
    }
    let opened = Opened { opening: fresh.opening, clean: false };
    tables.meta.insert(meta::OPENED, opened.encode().as_slice())?;
    tables.meta.insert(meta::EVIDENCE, encode_evidence(&memory.state.evidence).as_slice())?;

    let next_group = groups.last().map_or(1, |last| last.group.saturating_add(1));
    let newest = memory.newest;
    memory.newest = newest.max(now);
    let recovered = Recovered {
        state: memory.state.clone(),
        rules,
        unique_key: memory.unique_key,
        ids,
        groups,
        next_group,
        sources,
        clean,
        newest,
    };
    Ok((memory, recovered))
}

/// Writes the first rows of a new journal; true if it is one.
fn begin(tables: &mut Tables<'_>, fresh: FreshIds) -> Result<bool, OpenError> {
    let format = tables.meta.get(meta::FORMAT)?.map(|row| row.value().to_vec());
    if let Some(format) = format {
        let found = <[u8; 2]>::try_from(format.as_slice()).map(u16::from_be_bytes);
        return match found {
            Ok(FORMAT) => Ok(false),
            Ok(found) if found > FORMAT => Err(OpenError::Newer {
                reason: format!("its format is {found}; this agent knows up to {FORMAT}"),
            }),
            Ok(_) | Err(_) => {
                Err(OpenError::corrupt(format!("its format row holds {format:02x?}")))
            }
        };
    }
    if tables.meta.len()? != 0 || tables.sealed.len()? != 0 || tables.chunks.len()? != 0 {
        return Err(OpenError::NotAJournal {
            reason: "it holds rows, but no format of a journal".to_owned(),
        });
    }
    let nothing = Counters {
        accepted: 0,
        sealed_events: 0,
        posted_events: 0,
        sealed_sequence: Sequence::ZERO,
        posted_sequence: Sequence::ZERO,
        sealed_digest: Digest([0; 32]),
        posted_digest: Digest([0; 32]),
        newest: Timestamp(0),
    };
    tables.meta.insert(meta::FORMAT, FORMAT.to_be_bytes().as_slice())?;
    tables.meta.insert(meta::IDENTITY, Identity { stream: fresh.stream }.encode().as_slice())?;
    tables.meta.insert(meta::COUNTERS, nothing.encode().as_slice())?;
    Ok(true)
}

fn blank(
    identity: Identity,
    fresh: FreshIds,
    counters: &Counters,
    options: &JournalOptions,
) -> JournalState {
    JournalState {
        stream: identity.stream,
        opening: fresh.opening,
        ledger: None,
        sealed_sequence: counters.sealed_sequence,
        sealed_digest: counters.sealed_digest,
        posted_sequence: counters.posted_sequence,
        posted_digest: counters.posted_digest,
        accepted: counters.accepted,
        sealed_events: counters.sealed_events,
        posted_events: counters.posted_events,
        events_in_chunks: 0,
        events_in_unposted_batches: 0,
        chunk_bytes: 0,
        backlog_batches: 0,
        backlog_bytes: 0,
        oldest_unposted: None,
        retained_batches: 0,
        retained_bytes: 0,
        file_bytes: 0,
        live_bytes: FIXED_BYTES,
        bytes_max: options.bytes_max,
        full: false,
        evidence: Evidence::default(),
        ids: 0,
        dead_letters: 0,
        dead_letter_bytes: 0,
        conflict: None,
        held: Vec::new(),
        raw_events: RawEventsHeld::default(),
    }
}

fn count_batches(tables: &Tables<'_>, memory: &mut Memory) -> Result<(), OpenError> {
    let posted = memory.state.posted_sequence;
    let mut expected = None;
    let mut next_event = None;
    for entry in tables.batches.iter()? {
        let (sequence, record) = entry?;
        let sequence = Sequence(numbered("batch", sequence.value())?);
        if expected.is_some_and(|expected| expected != sequence) {
            return Err(OpenError::corrupt(format!("batch {sequence} follows a hole")));
        }
        expected = Some(sequence.next());
        let row = BatchRow::decode(record.value())?;
        // The first that is not posted begins where the posted ones end.
        if sequence == posted.next() {
            next_event = Some(EventNumber(memory.state.posted_events));
        }
        if next_event.is_some_and(|next| next != row.first_event) {
            let first = row.first_event;
            return Err(OpenError::corrupt(format!("batch {sequence} begins at event {first}")));
        }
        next_event = Some(row.end_event);
        memory.largest_batch = memory.largest_batch.max(row_bytes(row.bytes));
        let state = &mut memory.state;
        let live = cost(record.value().len()).saturating_add(row_bytes(row.bytes));
        state.live_bytes = state.live_bytes.saturating_add(live);
        if sequence <= posted {
            state.retained_batches = state.retained_batches.saturating_add(1);
            state.retained_bytes = state.retained_bytes.saturating_add(row.bytes);
        } else {
            state.count_backlog(&row);
            state.hold(row.opening, row.first_event, row.end_event);
            memory.backlog_oldest = memory.backlog_oldest.or(row.oldest);
        }
    }
    let state = &memory.state;
    let end = next_event.map_or(state.posted_events, |end| end.0);
    if end != state.sealed_events {
        return Err(OpenError::corrupt(format!(
            "its batches end at event {end}; {} were sealed",
            state.sealed_events
        )));
    }
    let last = expected.unwrap_or(posted.next());
    if last != state.sealed_sequence.next() || tables.sealed.len()? != tables.batches.len()? {
        return Err(OpenError::corrupt(format!(
            "its batches end before {last} with {} bodies for {} rows; {} were sealed",
            tables.sealed.len()?,
            tables.batches.len()?,
            state.sealed_sequence
        )));
    }
    check_beside_batches(tables, state)
}

/// Bodies stand where rows do (there are as many, and rows have no hole), and acks where the counters say.
fn check_beside_batches(tables: &Tables<'_>, state: &JournalState) -> Result<(), OpenError> {
    let ends = [
        (tables.batches.first()?, tables.sealed.first()?),
        (tables.batches.last()?, tables.sealed.last()?),
    ];
    for (row, body) in ends {
        let row = row.map(|(sequence, _)| sequence.value());
        if row != body.map(|(sequence, _)| sequence.value()) {
            let sequence = row.unwrap_or_default();
            return Err(OpenError::corrupt(format!("the body of batch {sequence} is missing")));
        }
    }
    let posted = state.posted_sequence.0;
    let acked = tables.posted.last()?.map(|(sequence, _)| sequence.value());
    let sound = match acked {
        Some(acked) if state.retained_batches > 0 => acked == posted,
        Some(acked) => acked <= posted,
        None => state.retained_batches == 0,
    };
    if sound {
        return Ok(());
    }
    let acked = acked.unwrap_or_default();
    Err(OpenError::corrupt(format!(
        "its last ack is of batch {acked}; {posted} is the last posted"
    )))
}

/// A row's number, which leaves room for those after it.
fn numbered(what: &str, number: u64) -> Result<u64, OpenError> {
    in_reach([number])
        .map_err(|reason| OpenError::corrupt(format!("{what} {number}: {reason}")))?;
    Ok(number)
}

/// They can be of sealed batches only; of which, and whether of all, is nobody's need.
fn count_raw_events(tables: &Tables<'_>, memory: &mut Memory) -> Result<(), OpenError> {
    let raw = &mut memory.state.raw_events;
    for entry in tables.raw_events.iter()? {
        let (key, record) = entry?;
        let (sequence, index) = key.value();
        let piece = decode_piece(record.value())?;
        raw.bytes = raw.bytes.saturating_add(to_u64(piece.len()));
        raw.batches = raw.batches.saturating_add(u64::from(raw.last != Some(Sequence(sequence))));
        raw.first = raw.first.or(Some(Sequence(sequence)));
        raw.last = Some(Sequence(sequence));
        let live_bytes = &mut memory.state.live_bytes;
        *live_bytes = live_bytes.saturating_add(cost(record.value().len()));
        if sequence > memory.state.sealed_sequence.0 {
            let reason = format!("raw events {sequence}.{index} are of a batch that is not sealed");
            return Err(OpenError::corrupt(reason));
        }
    }
    Ok(())
}

fn count_chunks(tables: &Tables<'_>, memory: &mut Memory) -> Result<Vec<Group>, OpenError> {
    let mut groups: Vec<Group> = Vec::new();
    let mut next = EventNumber(memory.state.sealed_events);
    for entry in tables.chunks.iter()? {
        let (key, record) = entry?;
        let (group, index) = key.value();
        numbered("group", group)?;
        let bytes = to_u64(record.value().len());
        let (header, _) = decode_chunk(record.value())?;
        let ChunkHeader { opening, rules, first_event, events, oldest, evidence } = header;
        if first_event != next {
            return Err(OpenError::corrupt(format!(
                "chunk {group}.{index} begins at {first_event}, not {next}"
            )));
        }
        next = first_event.plus(u64::from(events));
        let state = &mut memory.state;
        state.live_bytes = state.live_bytes.saturating_add(row_bytes(bytes));
        state.chunk_bytes = state.chunk_bytes.saturating_add(bytes);
        state.events_in_chunks = state.events_in_chunks.saturating_add(u64::from(events));
        state.hold(opening, first_event, next);
        let before = groups.last().filter(|last| last.group == group);
        if index != before.map_or(0, |last| last.chunks)
            || before.is_some_and(|last| (last.opening, last.rules) != (opening, rules))
        {
            return Err(OpenError::corrupt(format!(
                "chunk {group}.{index} does not go on with its group"
            )));
        }
        match groups.last_mut() {
            Some(last) if last.group == group => {
                last.end_event = next;
                last.chunks = last.chunks.saturating_add(1);
                last.bytes = last.bytes.saturating_add(bytes);
                last.evidence = evidence;
                last.oldest = last.oldest.min(oldest);
            }
            Some(_) | None => groups.push(Group {
                group,
                opening,
                rules,
                first_event,
                end_event: next,
                chunks: 1,
                bytes,
                evidence,
                oldest,
            }),
        }
        let live = groups.last().map_or(0, |last| live_of(memory.groups.get(&last.group), bytes));
        if let Some(last) = groups.last() {
            memory.groups.insert(last.group, note(last, live));
        }
    }
    Ok(groups)
}

/// What a group's rows cost with one more of `record_bytes`.
fn live_of(before: Option<&GroupNote>, record_bytes: u64) -> u64 {
    before.map_or(0, |note| note.live_bytes).saturating_add(row_bytes(record_bytes))
}

fn note(group: &Group, live_bytes: u64) -> GroupNote {
    GroupNote {
        opening: group.opening,
        rules: group.rules,
        first_event: group.first_event,
        end_event: group.end_event,
        chunks: group.chunks,
        bytes: group.bytes,
        live_bytes,
        oldest: group.oldest,
    }
}

fn read_ids(
    tables: &Tables<'_>,
    memory: &mut Memory,
) -> Result<Vec<(Timestamp, Vec<crate::event::IdDigest>)>, OpenError> {
    let mut rows = Vec::new();
    for entry in tables.ids.iter()? {
        let (number, record) = entry?;
        let (at, ids) = decode_ids(record.value())?;
        memory.next_ids_row = numbered("ids", number.value())?.saturating_add(1);
        memory.ids_oldest = memory.ids_oldest.or(Some(at));
        memory.state.ids = memory.state.ids.saturating_add(to_u64(ids.len()));
        memory.state.live_bytes =
            memory.state.live_bytes.saturating_add(cost(record.value().len()));
        rows.push((at, ids));
    }
    memory.age_clock = AgeClock::resume(rows.last().map(|(at, _)| *at));
    Ok(rows)
}

/// Counts dead letters and acks, reads the numbers of sources.
fn count_rest(tables: &Tables<'_>, memory: &mut Memory) -> Result<Vec<SourceCount>, OpenError> {
    let mut live_bytes = tables.posted.len()?.saturating_mul(cost(size_of::<i64>()));
    let newest = tables.posted.last()?.map(|(_, at)| Timestamp(at.value()));
    memory.age_clock = AgeClock::resume(memory.age_clock.now().max(newest));
    for entry in tables.dead_letters.iter()? {
        let (number, record) = entry?;
        memory.next_dead_letter = numbered("dead letter", number.value())?.saturating_add(1);
        let bytes = record.value().len();
        memory.state.dead_letters = memory.state.dead_letters.saturating_add(1);
        memory.state.dead_letter_bytes =
            memory.state.dead_letter_bytes.saturating_add(to_u64(bytes));
        live_bytes = live_bytes.saturating_add(cost(bytes));
    }
    let mut sources = Vec::new();
    for entry in tables.sources.iter()? {
        let (source, record) = entry?;
        let source = String::from_utf8(source.value().to_vec()).map_err(|error| {
            OpenError::corrupt(format!("a source's name is not UTF-8: {error}"))
        })?;
        live_bytes =
            live_bytes.saturating_add(cost(record.value().len().saturating_add(source.len())));
        sources.push(SourceCount { source, count: SourceRow::decode(record.value())?.count });
    }
    memory.state.live_bytes = memory.state.live_bytes.saturating_add(live_bytes);
    Ok(sources)
}

/// Accepted = sealed + chunks, and sealed = posted + unposted: each side counted on its own.
fn check(state: &JournalState) -> Result<(), OpenError> {
    let chunks = state.accepted.checked_sub(state.sealed_events);
    let unposted = state.sealed_events.checked_sub(state.posted_events);
    if chunks == Some(state.events_in_chunks) && unposted == Some(state.events_in_unposted_batches)
    {
        return Ok(());
    }
    Err(OpenError::corrupt(format!(
        "{} events were accepted, {} sealed, {} posted; but {} are in chunks and {} in unposted batches",
        state.accepted,
        state.sealed_events,
        state.posted_events,
        state.events_in_chunks,
        state.events_in_unposted_batches
    )))
}

fn stored<R: Record>(tables: &Tables<'_>, row: u16) -> Result<Option<R>, OpenError> {
    let record = tables.meta.get(row)?;
    Ok(record.map(|record| R::decode(record.value())).transpose()?)
}

fn required<R: Record>(tables: &Tables<'_>, row: u16) -> Result<R, OpenError> {
    stored(tables, row)?
        .ok_or_else(|| OpenError::corrupt(format!("its {} record is missing", R::NAME)))
}

fn cost(value_bytes: usize) -> u64 {
    row_bytes(to_u64(value_bytes))
}

impl From<RecordError> for OpenError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Newer { .. } => Self::Newer { reason: error.to_string() },
            RecordError::Damaged { .. } => Self::corrupt(error.to_string()),
        }
    }
}
