//! The content of the archive's objects, as records.
//!
//! ```text
//! SEGMENT   "TMAS", version u16 = 1, kind u8 (2 batches, 3 books, 4 streams, 5 events), zero u8, then RECORDs to the end
//! RECORD    length u32, and so many bytes:
//!   batches   position u64, agent str16, marks bytes32, quarantined u8 (0 or 1), reason str16, JUDGED bytes32,
//!             header [192], body as stored
//! JUDGED    what else was judged when it was admitted: (tag u8, bytes32), to its end; 1: the suppressed lines
//!           (ledger/duplicates.rs)
//!   books     number u64, then PUTs to the end
//!   streams   a row of what is known of a stream (ledger/codec.rs)
//!   events    stream [16], sequence u64, index u32, of u32, PIECE (formats.md: the wire)
//! PUT       table u8 (3 openings, 7 books, 9 ids), key bytes32, is put u8 (0: the row goes; 1: value bytes32)
//! ```
//! `str16`: length u16 and UTF-8; `bytes32`: length u32 and bytes; numbers are big-endian. Objects of books and streams are
//! compressed as a whole (Zstandard); bodies are already.
//!
//! **Owns** these bytes. **Does not own** what they mean: rows and batches are as they stand in the ledger's file.
//!
//! Limits: a record is at most [`RECORD_BYTES_MAX`], a segment unpacked at most [`SEGMENT_BYTES_MAX`].

use thiserror::Error;
use tidemark_common::batch::{HEADER_BYTES, Header};
use tidemark_common::id::{Sequence, StreamId};

use super::manifest::Kind;
use crate::ledger::codec::Fields;

const MAGIC: [u8; 4] = *b"TMAS";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 8;
/// A batch fills a frame, and a document with its rows is less.
pub const RECORD_BYTES_MAX: usize = 128 << 20;
/// What a segment is at most when it is unpacked, so that a damaged one takes no more memory.
pub const SEGMENT_BYTES_MAX: usize = 2 << 30;
const ZSTD_LEVEL: i32 = 3;

/// Bytes that are no segment.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SegmentError {
    #[error("it does not begin as a segment of {expected}")]
    Head { expected: &'static str },
    #[error("its record {record} {what}")]
    Record { record: u64, what: &'static str },
    #[error("it cannot be unpacked: {reason}")]
    Packed { reason: String },
}

/// A segment in the making.
#[derive(Debug)]
pub struct SegmentWriter {
    kind: Kind,
    bytes: Vec<u8>,
}

impl SegmentWriter {
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&[number(kind), 0]);
        Self { kind, bytes }
    }

    /// # Panics
    /// A record beyond [`RECORD_BYTES_MAX`]: nothing that large gets into a ledger.
    pub fn record(&mut self, record: &[u8]) {
        assert!(record.len() <= RECORD_BYTES_MAX, "records are bounded by what the ledger takes");
        put_bytes(&mut self.bytes, record);
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD_BYTES
    }

    /// The object.
    ///
    /// # Errors
    /// If it cannot be packed.
    pub fn finish(self) -> Result<Vec<u8>, SegmentError> {
        if !self.kind.is_compressed() {
            return Ok(self.bytes);
        }
        zstd::bulk::compress(&self.bytes, ZSTD_LEVEL).map_err(packed)
    }
}

fn packed(error: std::io::Error) -> SegmentError {
    SegmentError::Packed { reason: error.to_string() }
}

/// The records of an object.
#[derive(Debug)]
pub struct SegmentReader {
    bytes: Vec<u8>,
    at: usize,
    record: u64,
}

impl SegmentReader {
    /// Unpacks an object of this kind.
    ///
    /// # Errors
    /// Other bytes.
    pub fn new(kind: Kind, object: Vec<u8>) -> Result<Self, SegmentError> {
        let bytes = if kind.is_compressed() { unpack(&object)? } else { object };
        let mut head = Fields(&bytes);
        let found = (head.array(), head.array().map(u16::from_be_bytes), head.array());
        if found != (Some(MAGIC), Some(VERSION), Some([number(kind), 0])) {
            return Err(SegmentError::Head { expected: kind.name() });
        }
        Ok(Self { bytes, at: HEAD_BYTES, record: 0 })
    }

    /// Where the record that was read last ends in the unpacked segment.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// A length beyond the end.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, SegmentError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        self.record = self.record.saturating_add(1);
        let broken = || SegmentError::Record { record: self.record, what: "ends before its end" };
        let mut fields = Fields(rest);
        let record = take_bytes(&mut fields).ok_or_else(broken)?;
        self.at = self.bytes.len().saturating_sub(fields.0.len());
        Ok(Some(record))
    }
}

fn unpack(object: &[u8]) -> Result<Vec<u8>, SegmentError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = u64::try_from(SEGMENT_BYTES_MAX).unwrap_or(u64::MAX);
    let decoder = zstd::stream::read::Decoder::new(object).map_err(packed)?;
    decoder.take(limit).read_to_end(&mut bytes).map_err(packed)?;
    Ok(bytes)
}

fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Ledger => 1,
        Kind::Batches => 2,
        Kind::Books => 3,
        Kind::Streams => 4,
        Kind::Events => 5,
    }
}

/// A batch as it was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedBatch {
    /// Where it stands in its ledger.
    pub position: u64,
    /// Whose stream it is of.
    pub agent: String,
    /// Which of its lines are unauthorised (`ledger/marks.rs`).
    pub marks: Vec<u8>,
    /// Why its body could not be read.
    pub quarantined: Option<String>,
    /// What else was judged when it was admitted, by tags that this version may not know.
    pub judged: Vec<u8>,
    pub header: Header,
    /// Header and body as stored, verbatim.
    pub bytes: Vec<u8>,
}

/// Of suppressed lines, in what was judged.
const SUPPRESSED_TAG: u8 = 1;

impl ArchivedBatch {
    /// The body as stored.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// How suppressed lines stand in `judged`.
    #[must_use]
    pub fn judged_of(suppressed: &[u8]) -> Vec<u8> {
        let mut judged = Vec::new();
        if !suppressed.is_empty() {
            judged.push(SUPPRESSED_TAG);
            put_bytes(&mut judged, suppressed);
        }
        judged
    }

    /// The suppressed lines, as the ledger's row has them; empty without any.
    ///
    /// # Errors
    /// Another judgement, which this version does not know.
    pub fn suppressed(&self) -> Result<&[u8], &'static str> {
        let mut fields = Fields(&self.judged);
        if fields.0.is_empty() {
            return Ok(&[]);
        }
        let is_known = fields.array() == Some([SUPPRESSED_TAG]);
        let row = take_bytes(&mut fields).filter(|_| is_known && fields.0.is_empty());
        row.ok_or("was judged by more than this version knows; use a newer one")
    }

    /// As a record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut record = self.position.to_be_bytes().to_vec();
        put_text(&mut record, &self.agent);
        put_bytes(&mut record, &self.marks);
        record.push(u8::from(self.quarantined.is_some()));
        put_text(&mut record, self.quarantined.as_deref().unwrap_or_default());
        put_bytes(&mut record, &self.judged);
        record.extend_from_slice(&self.bytes);
        record
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(record: &[u8]) -> Result<Self, &'static str> {
        let mut fields = Fields(record);
        let position = fields.u64().ok_or("has no position")?;
        let agent = take_text(&mut fields).ok_or("names no agent")?;
        let marks = take_bytes(&mut fields).ok_or("has broken marks")?.to_vec();
        let is_quarantined = fields.array().ok_or("ends before its end")?;
        let reason = take_text(&mut fields).ok_or("has a broken reason")?;
        let quarantined = match (is_quarantined, reason.as_str()) {
            ([0], "") => None,
            ([1], _) => Some(reason),
            _ => return Err("is quarantined, or not"),
        };
        let judged = take_bytes(&mut fields).ok_or("has a broken judgement")?.to_vec();
        let bytes = fields.0.to_vec();
        let head = bytes.first_chunk::<HEADER_BYTES>().ok_or("has no header")?;
        let header = Header::decode(head).map_err(|_| "has a broken header")?;
        Ok(Self { position, agent, marks, quarantined, judged, header, bytes })
    }
}

/// A piece of a batch's raw events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedPiece<'b> {
    pub stream: StreamId,
    pub sequence: Sequence,
    /// Its place among the batch's `of` pieces.
    pub index: u32,
    pub of: u32,
    /// As the agent sent it.
    pub bytes: &'b [u8],
}

impl<'b> ArchivedPiece<'b> {
    /// As a record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut record = self.stream.0.to_vec();
        record.extend_from_slice(&self.sequence.0.to_be_bytes());
        record.extend_from_slice(&self.index.to_be_bytes());
        record.extend_from_slice(&self.of.to_be_bytes());
        record.extend_from_slice(self.bytes);
        record
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(record: &'b [u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "ends before its end";
        let mut fields = Fields(record);
        let stream = StreamId(fields.array().ok_or(SHORT)?);
        let sequence = Sequence(fields.u64().ok_or(SHORT)?);
        let (index, of) = (fields.u32().ok_or(SHORT)?, fields.u32().ok_or(SHORT)?);
        Ok(Self { stream, sequence, index, of, bytes: fields.0 })
    }
}

/// What one transaction put into the ledger's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Puts(pub Vec<Put>);

/// One row: what it holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The table's byte in a backup (`backup/rows.rs`).
    pub table: u8,
    pub key: Vec<u8>,
    /// `None`: the row is gone.
    pub value: Option<Vec<u8>>,
}

impl Puts {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Put { table, key, value } in &self.0 {
            bytes.push(*table);
            put_bytes(&mut bytes, key);
            bytes.push(u8::from(value.is_some()));
            if let Some(value) = value {
                put_bytes(&mut bytes, value);
            }
        }
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (mut fields, mut puts) = (Fields(bytes), Vec::new());
        while !fields.0.is_empty() {
            let [table] = fields.array().ok_or("ends before its end")?;
            let key = take_bytes(&mut fields).ok_or("has a broken key")?.to_vec();
            let value = match fields.array().ok_or("ends before its end")? {
                [0] => None,
                [1] => Some(take_bytes(&mut fields).ok_or("has a broken value")?.to_vec()),
                _ => return Err("neither puts a row nor takes it away"),
            };
            puts.push(Put { table, key, value });
        }
        Ok(Self(puts))
    }
}

/// A transaction's puts, with their number.
#[must_use]
pub fn encode_books(number: u64, puts: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), puts].concat()
}

/// # Errors
/// What is wrong with the record.
pub fn decode_books(record: &[u8]) -> Result<(u64, Puts), &'static str> {
    let mut fields = Fields(record);
    let number = fields.u64().ok_or("has no number")?;
    Ok((number, Puts::decode(fields.0)?))
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("records are bounded far below 4 GiB");
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(bytes);
}

fn put_text(into: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    into.extend_from_slice(&u16::try_from(end).unwrap_or(0).to_be_bytes());
    into.extend_from_slice(text.get(..end).unwrap_or_default().as_bytes());
}

fn take_bytes<'b>(fields: &mut Fields<'b>) -> Option<&'b [u8]> {
    let length = u32::from_be_bytes(fields.array()?);
    take(fields, usize::try_from(length).ok()?)
}

fn take_text(fields: &mut Fields<'_>) -> Option<String> {
    let length = u16::from_be_bytes(fields.array()?);
    String::from_utf8(take(fields, usize::from(length))?.to_vec()).ok()
}

fn take<'b>(fields: &mut Fields<'b>, length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = fields.0.split_at_checked(length)?;
    fields.0 = rest;
    Some(taken)
}

#[cfg(test)]
mod tests;
