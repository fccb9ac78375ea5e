//! A batch's header: 192 bytes at fixed places, so that a chain is checked without a body.
//!
//! ```text
//!   0 "TMBH"                  4 header version u16 = 1         6 body version u16
//!   8 stream [16]            24 opening [16]
//!  40 sequence u64 (from 1)  48 first event number u64        56 end event number u64 (exclusive)
//!  64 first bucket u32       68 last bucket u32               (unix seconds / 900; 0, 0 without lines)
//!  72 lines u32              76 codec u16 (0 raw, 1 zstd)     78 zero u16
//!  80 stored length u32      84 raw length u32                88 rules version u64
//!  96 previous digest [32]  128 body digest [32]             160 lines root [32]
//! ```
//!
//! **Owns** what can be judged by the header alone. **Does not own** the body: a header that reads well
//! may stand over a body that does not ([`super::Body::open`] tells), of a version not known here too.

use thiserror::Error;

use crate::id::{Digest, EventNumber, OpeningId, RulesVersion, Sequence, StreamId};
use crate::time::Bucket;

use super::HEADER_VERSION;
use super::bytes::Fields;

/// A header's length.
pub const HEADER_BYTES: usize = 192;

const MAGIC: [u8; 4] = *b"TMBH";

/// How a body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Codec {
    /// The raw form itself.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// What a batch says of itself; its SHA-256 is the batch's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub body_version: u16,
    pub stream: StreamId,
    pub opening: OpeningId,
    pub sequence: Sequence,
    /// The batch holds the events [first, end) of its stream.
    pub first_event: EventNumber,
    pub end_event: EventNumber,
    /// The least and greatest bucket of all lines; 0 and 0 without lines.
    pub first_bucket: Bucket,
    pub last_bucket: Bucket,
    pub lines: u32,
    pub codec: Codec,
    /// The body's length in bytes as stored, and before compression.
    pub stored_length: u32,
    pub raw_length: u32,
    pub rules: RulesVersion,
    /// The digest of the batch before; of the first, [`super::genesis`].
    pub previous: Digest,
    pub body_digest: Digest,
    pub lines_root: Digest,
}

/// A header that cannot be read. Its stream stops there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    #[error("failed to read a batch header: {bytes} bytes are not {HEADER_BYTES}")]
    Length { bytes: usize },
    #[error("failed to read a batch header: it begins with {found:02x?} instead of \"TMBH\"")]
    Magic { found: [u8; 4] },
    #[error("failed to read a batch header: its version {version} is not {HEADER_VERSION}")]
    Version { version: u16 },
    #[error("failed to read a batch header: codec {number} is unknown")]
    Codec { number: u16 },
    #[error("failed to read a batch header: bytes 78 and 79 hold {found} instead of zero")]
    NotZero { found: u16 },
    #[error("failed to read a batch header: sequences begin at 1")]
    SequenceZero,
    #[error("failed to read a batch header: its events end at {end}, before they begin at {first}")]
    Events { first: EventNumber, end: EventNumber },
    #[error("failed to read a batch header: its last bucket {last} is before its first {first}")]
    Buckets { first: Bucket, last: Bucket },
    #[error(
        "failed to read a batch: its header tells of a body of {said} bytes, and {bytes} follow"
    )]
    StoredLength { said: u32, bytes: usize },
}

impl Header {
    /// The header's frozen bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let parts: [&[u8]; 19] = [
            &MAGIC,
            &HEADER_VERSION.to_be_bytes(),
            &self.body_version.to_be_bytes(),
            &self.stream.0,
            &self.opening.0,
            &self.sequence.0.to_be_bytes(),
            &self.first_event.0.to_be_bytes(),
            &self.end_event.0.to_be_bytes(),
            &self.first_bucket.0.to_be_bytes(),
            &self.last_bucket.0.to_be_bytes(),
            &self.lines.to_be_bytes(),
            &(self.codec as u16).to_be_bytes(),
            &[0, 0],
            &self.stored_length.to_be_bytes(),
            &self.raw_length.to_be_bytes(),
            &self.rules.0.to_be_bytes(),
            &self.previous.0,
            &self.body_digest.0,
            &self.lines_root.0,
        ];
        parts.concat().try_into().expect("the fields are 192 bytes together")
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Names the first field that no batch of this version holds.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() != HEADER_BYTES {
            return Err(HeaderError::Length { bytes: bytes.len() });
        }
        let mut fields = Fields(bytes);
        let magic = fields.array().expect(WHOLE);
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic });
        }
        let version = fields.u16().expect(WHOLE);
        if version != HEADER_VERSION {
            return Err(HeaderError::Version { version });
        }
        let header = Self {
            body_version: fields.u16().expect(WHOLE),
            stream: StreamId(fields.array().expect(WHOLE)),
            opening: OpeningId(fields.array().expect(WHOLE)),
            sequence: Sequence(fields.u64().expect(WHOLE)),
            first_event: EventNumber(fields.u64().expect(WHOLE)),
            end_event: EventNumber(fields.u64().expect(WHOLE)),
            first_bucket: Bucket(fields.u32().expect(WHOLE)),
            last_bucket: Bucket(fields.u32().expect(WHOLE)),
            lines: fields.u32().expect(WHOLE),
            codec: read_codec(&mut fields)?,
            stored_length: fields.u32().expect(WHOLE),
            raw_length: fields.u32().expect(WHOLE),
            rules: RulesVersion(fields.u64().expect(WHOLE)),
            previous: Digest(fields.array().expect(WHOLE)),
            body_digest: Digest(fields.array().expect(WHOLE)),
            lines_root: Digest(fields.array().expect(WHOLE)),
        };
        assert!(fields.0.is_empty(), "{WHOLE}");
        header.check()?;
        Ok(header)
    }

    /// The batch's digest, which the next batch holds as `previous`.
    #[must_use]
    pub fn digest(&self) -> Digest {
        super::sha256(b"tidemark/batch/1", &[&self.encode()])
    }

    /// How many events the batch holds.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.end_event.0.saturating_sub(self.first_event.0)
    }

    fn check(&self) -> Result<(), HeaderError> {
        if self.sequence == Sequence::ZERO {
            return Err(HeaderError::SequenceZero);
        }
        if self.end_event < self.first_event {
            return Err(HeaderError::Events { first: self.first_event, end: self.end_event });
        }
        if self.last_bucket < self.first_bucket {
            return Err(HeaderError::Buckets { first: self.first_bucket, last: self.last_bucket });
        }
        Ok(())
    }
}

const WHOLE: &str = "the fields are 192 bytes together, and there are as many";

fn read_codec(fields: &mut Fields<'_>) -> Result<Codec, HeaderError> {
    let codec = match fields.u16().expect(WHOLE) {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        number => return Err(HeaderError::Codec { number }),
    };
    match fields.u16().expect(WHOLE) {
        0 => Ok(codec),
        found => Err(HeaderError::NotZero { found }),
    }
}

#[cfg(test)]
mod tests;
