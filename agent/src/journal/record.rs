//! The journal's records: the one place where its rows meet bytes.
//!
//! **Owns** the layout of every row (drawn in `deploy/docs/journal.md`) and its version byte. **Does
//! not own** keys and tables (`tables.rs`) or frozen batches (`tidemark_common::batch`).
//!
//! Invariants: decoding never panics, never trusts a length, and consumes a record whole. A version
//! newer than this code's is [`RecordError::Newer`], never corruption. Chunks and id rows are laid out by
//! hand, big-endian; the others are a version byte and bincode 2 (little-endian varints), where the
//! order of fields is the format: append only, and move the version.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_common::batch::Evidence;
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{
    Digest, EventNumber, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::time::Timestamp;
use tidemark_common::wire::UniqueKey;

use super::reader::StoredDeadLetter;
use super::write::{Append, ConflictAnswer, DeadLetter};
use crate::event::{Door, IdDigest};

/// The version of every record today.
const VERSION: u8 = 1;
/// No record is larger; a frozen batch is no record.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// No stream numbers or counts further than this: what a start goes on from leaves room for all it may add.
pub(super) const NUMBER_MAX: u64 = u64::MAX / 2;
/// A chunk's bytes before its evidence: version, crc32c, opening, rules, first event, events, oldest, n.
const CHUNK_FIXED_BYTES: usize = 1 + 4 + 16 + 8 + 8 + 4 + 8 + 2;

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum RecordError {
    #[error("the {record} record has version {version}; this agent knows up to {VERSION}")]
    Newer { record: &'static str, version: u8 },
    #[error("the {record} record is damaged: {reason}")]
    Damaged { record: &'static str, reason: String },
}

/// Which life of a journal this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) stream: StreamId,
}

/// The last opening and whether it ended with a Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) opening: OpeningId,
    pub(super) clean: bool,
}

/// Positions in the stream. Each is counted on its own; opening checks them against the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    pub(super) accepted: u64,
    pub(super) sealed_events: u64,
    pub(super) posted_events: u64,
    pub(super) sealed_sequence: Sequence,
    pub(super) posted_sequence: Sequence,
    pub(super) sealed_digest: Digest,
    pub(super) posted_digest: Digest,
    /// The latest commit's time.
    pub(super) newest: Timestamp,
}

/// The ledger that the journal is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pinned {
    pub(super) ledger: LedgerId,
    pub(super) unique_key: UniqueKey,
}

/// Proof that the journal was cloned or rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conflicted {
    pub(super) at: Timestamp,
    pub(super) reason: String,
}

/// Where the openings that are free of a conflict went. The file is set aside by then, or about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedRow {
    pub(super) to: StreamId,
    pub(super) openings: Vec<OpeningId>,
}

/// What is known of a sealed batch without reading its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BatchRow {
    pub(super) bytes: u64,
    pub(super) opening: OpeningId,
    pub(super) first_event: EventNumber,
    pub(super) end_event: EventNumber,
    /// The arrival of its oldest event; `None` without events.
    pub(super) oldest: Option<Timestamp>,
    pub(super) digest: Digest,
}

impl BatchRow {
    pub(super) fn events(&self) -> u64 {
        self.end_event.0.saturating_sub(self.first_event.0)
    }
}

/// The last number seen of a numbered source, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SourceRow {
    pub(super) count: u64,
    pub(super) at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct DeadLetterRow {
    at: Timestamp,
    door: u8,
    reason: u16,
    bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct EvidenceRow(Vec<(u16, u64)>);

/// A record that is a version byte and bincode.
pub(super) trait Record: Serialize + DeserializeOwned {
    const NAME: &'static str;

    /// Whether its figures can be those of a journal; what is wrong with them if not.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bincode::serde::encode_into_std_write(self, &mut bytes, config())
            .expect("a record fits its limit");
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let payload = versioned(Self::NAME, bytes)?;
        let (value, consumed): (Self, usize) = bincode::serde::decode_from_slice(payload, config())
            .map_err(|error| damaged(Self::NAME, error))?;
        if consumed != payload.len() {
            return Err(damaged(
                Self::NAME,
                format!("{consumed} of its {} bytes are read", payload.len()),
            ));
        }
        value.check().map_err(|reason| damaged(Self::NAME, reason))?;
        Ok(value)
    }
}

impl Record for Identity {
    const NAME: &'static str = "identity";
}

impl Record for Opened {
    const NAME: &'static str = "opening";
}

impl Record for Counters {
    const NAME: &'static str = "counters";

    fn check(&self) -> Result<(), &'static str> {
        let events = [self.posted_events, self.sealed_events, self.accepted];
        let sequences = [self.posted_sequence.0, self.sealed_sequence.0];
        if !events.is_sorted() || !sequences.is_sorted() {
            return Err("more is posted than sealed, or sealed than accepted");
        }
        in_reach([self.accepted, self.sealed_sequence.0])
    }
}

impl Record for Pinned {
    const NAME: &'static str = "ledger";
}

impl Record for Conflicted {
    const NAME: &'static str = "conflict";
}

impl Record for ConflictAnswer {
    const NAME: &'static str = "conflict answer";
}

impl Record for MovedRow {
    const NAME: &'static str = "moved";
}

impl Record for BatchRow {
    const NAME: &'static str = "batch";

    fn check(&self) -> Result<(), &'static str> {
        if self.end_event < self.first_event {
            return Err("its events end before they begin");
        }
        in_reach([self.end_event.0])
    }
}

impl Record for SourceRow {
    const NAME: &'static str = "source";
}

impl Record for DeadLetterRow {
    const NAME: &'static str = "dead letter";
}

impl Record for EvidenceRow {
    const NAME: &'static str = "evidence";

    fn check(&self) -> Result<(), &'static str> {
        in_reach(self.0.iter().map(|(_, count)| *count))
    }
}

/// What a chunk's record says before its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    pub(super) opening: OpeningId,
    pub(super) rules: RulesVersion,
    pub(super) first_event: EventNumber,
    pub(super) events: u32,
    pub(super) oldest: Timestamp,
    pub(super) evidence: Evidence,
}

pub(super) fn encode_chunk(chunk: &Append) -> Vec<u8> {
    let counts =
        u16::try_from(chunk.evidence.iter().len()).expect("a u16 numbers the codes, and 0 is none");
    let mut bytes =
        Vec::with_capacity(CHUNK_FIXED_BYTES.saturating_add(chunk.bytes.len()).saturating_add(400));
    bytes.push(VERSION);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&chunk.opening.0);
    bytes.extend_from_slice(&chunk.rules.0.to_be_bytes());
    bytes.extend_from_slice(&chunk.first_event.0.to_be_bytes());
    bytes.extend_from_slice(&chunk.events.to_be_bytes());
    bytes.extend_from_slice(&chunk.oldest.0.to_be_bytes());
    bytes.extend_from_slice(&counts.to_be_bytes());
    for (code, count) in chunk.evidence.iter() {
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
    }
    bytes.extend_from_slice(&chunk.bytes);
    let checksum = crc32c::crc32c(&bytes[5..]).to_be_bytes();
    bytes[1..5].copy_from_slice(&checksum);
    bytes
}

/// The header of a chunk's record and the packed events behind it.
pub(super) fn decode_chunk(record: &[u8]) -> Result<(ChunkHeader, &[u8]), RecordError> {
    const NAME: &str = "chunk";
    let mut rest = Bytes { record: NAME, rest: versioned(NAME, record)? };
    let checksum = u32::from_be_bytes(rest.take()?);
    let found = crc32c::crc32c(rest.rest);
    if checksum != found {
        return Err(damaged(NAME, format!("its crc32c is {found:08x}, not {checksum:08x}")));
    }
    let header = ChunkHeader {
        opening: OpeningId(rest.take()?),
        rules: RulesVersion(u64::from_be_bytes(rest.take()?)),
        first_event: EventNumber(u64::from_be_bytes(rest.take()?)),
        events: u32::from_be_bytes(rest.take()?),
        oldest: Timestamp(i64::from_be_bytes(rest.take()?)),
        evidence: rest.evidence()?,
    };
    let end = header.first_event.0.saturating_add(u64::from(header.events));
    let counts = header.evidence.iter().map(|(_, count)| count);
    in_reach(counts.chain([end])).map_err(|reason| damaged(NAME, reason))?;
    Ok((header, rest.rest))
}

pub(super) fn encode_piece(piece: &[u8]) -> Vec<u8> {
    [&[VERSION], piece].concat()
}

pub(super) fn decode_piece(record: &[u8]) -> Result<&[u8], RecordError> {
    versioned("raw events", record)
}

pub(super) fn encode_ids(at: Timestamp, ids: &[IdDigest]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&at.0.to_be_bytes());
    ids.iter().for_each(|id| bytes.extend_from_slice(&id.0));
    bytes
}

pub(super) fn decode_ids(record: &[u8]) -> Result<(Timestamp, Vec<IdDigest>), RecordError> {
    const NAME: &str = "ids";
    let mut rest = Bytes { record: NAME, rest: versioned(NAME, record)? };
    let at = Timestamp(i64::from_be_bytes(rest.take()?));
    let (digests, odd) = rest.rest.as_chunks::<16>();
    if !odd.is_empty() {
        return Err(damaged(NAME, format!("{} bytes stand behind its last digest", odd.len())));
    }
    Ok((at, digests.iter().copied().map(IdDigest).collect()))
}

/// The digests in an id row of `value_bytes`.
pub(super) fn ids_in(value_bytes: usize) -> usize {
    value_bytes.saturating_sub(9) / 16
}

pub(super) fn encode_dead_letter(letter: DeadLetter) -> Vec<u8> {
    let DeadLetter { at, door, reason, bytes } = letter;
    DeadLetterRow { at, door: door_number(door), reason: reason.number(), bytes }.encode()
}

/// The dead letter of row `number`.
pub(super) fn decode_dead_letter(
    number: u64,
    record: &[u8],
) -> Result<StoredDeadLetter, RecordError> {
    let DeadLetterRow { at, door, reason, bytes } = DeadLetterRow::decode(record)?;
    let (door, reason) = (door_of(door), EvidenceCode::from_number(reason));
    Ok(StoredDeadLetter { number, at, door, reason, bytes })
}

pub(super) fn encode_evidence(evidence: &Evidence) -> Vec<u8> {
    EvidenceRow(evidence.iter().collect()).encode()
}

pub(super) fn decode_evidence(record: &[u8]) -> Result<Evidence, RecordError> {
    Ok(EvidenceRow::decode(record)?.0.into_iter().collect())
}

/// A door's number in a record: never reused.
fn door_number(door: Door) -> u8 {
    match door {
        Door::Udp => 1,
        Door::UnixDatagram => 2,
        Door::DsdStream => 3,
        Door::Events => 4,
        Door::Http => 5,
    }
}

fn door_of(number: u8) -> Option<Door> {
    [Door::Udp, Door::UnixDatagram, Door::DsdStream, Door::Events, Door::Http]
        .into_iter()
        .find(|door| door_number(*door) == number)
}

/// The bytes behind the version byte.
fn versioned<'a>(record: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], RecordError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((&version, _)) if version > VERSION => Err(RecordError::Newer { record, version }),
        Some((&version, _)) => Err(damaged(record, format!("there is no version {version}"))),
        None => Err(damaged(record, "it is empty")),
    }
}

pub(super) fn in_reach(numbers: impl IntoIterator<Item = u64>) -> Result<(), &'static str> {
    match numbers.into_iter().all(|number| number <= NUMBER_MAX) {
        true => Ok(()),
        false => Err("it numbers or counts further than any stream comes"),
    }
}

fn damaged(record: &'static str, reason: impl ToString) -> RecordError {
    RecordError::Damaged { record, reason: reason.to_string() }
}

fn config() -> Configuration<LittleEndian, Varint, Limit<RECORD_BYTES_MAX>> {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

/// The bytes of a hand-laid record that are not read yet.
struct Bytes<'a> {
    record: &'static str,
    rest: &'a [u8],
}

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let Some((field, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(damaged(self.record, "it ends early"));
        };
        self.rest = rest;
        Ok(*field)
    }

    fn evidence(&mut self) -> Result<Evidence, RecordError> {
        let counts = u16::from_be_bytes(self.take()?);
        (0..counts)
            .map(|_| Ok((u16::from_be_bytes(self.take()?), u64::from_be_bytes(self.take()?))))
            .collect()
    }
}
