//! Batches: what an agent seals, numbers and ships, frozen byte by byte.
//!
//! ```text
//! BATCH           header [192], body as stored
//! digest          H("tidemark/batch/1" + header)
//! body digest     H("tidemark/body/1" + body as stored)
//! previous of 1   H("tidemark/genesis/1" + ledger id [16] + stream [16])
//! unique digest   first 16 bytes of HMAC-SHA256(key, "tidemark/unique/1" + meter str + customer str + value)
//! keyed id        first 16 bytes of HMAC-SHA256(key, "tidemark/id/1" + meter str + customer str + id digest [16] + n u32)
//! ```
//!
//! `H` is SHA-256, `str` a u16 length and UTF-8, all numbers are big-endian, `+` joins bytes. The whole
//! of it is drawn in `deploy/docs/formats.md`, with a verifier in Python.
//!
//! **Owns** the bytes of header and body, their digests and the proofs of lines. **Does not own** when a
//! batch is sealed, where it is stored, or what a collector makes of it.
//!
//! Invariants: sealed bytes never change, so neither does this format: a new one gets a new version
//! number beside it. Reading never panics and never trusts a length or a count.

mod body;
mod bytes;
mod evidence;
mod extras;
mod header;
mod line;
pub mod merkle;

#[cfg(test)]
pub(crate) mod golden;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

use crate::id::{Digest, EventNumber, LedgerId, OpeningId, RulesVersion, Sequence, StreamId};
use crate::wire::{self, UniqueKey};

pub use body::{Body, BodyError, BodyWriter, EncodedBody};
pub use evidence::Evidence;
pub use extras::{Extras, ExtrasError, KeyedId, LineId};
pub use header::{Codec, HEADER_BYTES, Header, HeaderError};
pub use line::{Dimensions, Line, LineError, LineKey, LineValue, parse_series, series_bytes};

/// The header version that this code writes, and the only one that it reads.
pub const HEADER_VERSION: u16 = 1;
/// The body version that this code writes. It reads those from 1 on; of version 1 are bodies without extras.
pub const BODY_VERSION: u16 = 2;
/// A body's raw form is at most this many bytes.
pub const BODY_RAW_BYTES_MAX: usize = 32 << 20;
/// A body has at most this many lines.
pub const BODY_LINES_MAX: u32 = 262_144;
/// A body as stored is at most this many bytes: with its header it fills one frame.
pub const BODY_STORED_BYTES_MAX: usize = wire::BATCH_FRAME_BYTES_MAX - HEADER_BYTES;

// The header holds both lengths in 32 bits.
const _: () = assert!(BODY_RAW_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(BODY_STORED_BYTES_MAX <= BODY_RAW_BYTES_MAX);

/// A batch as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBatch {
    pub header: Header,
    /// The header's 192 bytes and the body as stored.
    pub bytes: Vec<u8>,
}

/// What a header says that its body does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewHeader {
    pub stream: StreamId,
    pub opening: OpeningId,
    pub sequence: Sequence,
    pub first_event: EventNumber,
    pub end_event: EventNumber,
    pub rules: RulesVersion,
    pub previous: Digest,
}

impl SealedBatch {
    /// Joins a body with its place in the stream.
    #[must_use]
    pub fn assemble(header_fields: NewHeader, body: EncodedBody) -> Self {
        assert!(header_fields.sequence > Sequence::ZERO, "sequences begin at 1");
        assert!(header_fields.first_event <= header_fields.end_event, "event numbers ascend");
        let stored_length =
            u32::try_from(body.stored.len()).expect("BodyWriter::finish bounds the stored length");
        let header = Header {
            body_version: BODY_VERSION,
            stream: header_fields.stream,
            opening: header_fields.opening,
            sequence: header_fields.sequence,
            first_event: header_fields.first_event,
            end_event: header_fields.end_event,
            first_bucket: body.first_bucket,
            last_bucket: body.last_bucket,
            lines: body.lines,
            codec: body.codec,
            stored_length,
            raw_length: body.raw_length,
            rules: header_fields.rules,
            previous: header_fields.previous,
            body_digest: body.body_digest,
            lines_root: body.lines_root,
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES.saturating_add(body.stored.len()));
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&body.stored);
        Self { header, bytes }
    }

    /// The header of a batch and its body as stored. The body itself is judged by [`Body::open`].
    ///
    /// # Errors
    /// A header that cannot be read, or whose stored length is not what follows it.
    pub fn split(bytes: &[u8]) -> Result<(Header, &[u8]), HeaderError> {
        let Some((head, stored)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Length { bytes: bytes.len() });
        };
        let header = Header::decode(head)?;
        if usize::try_from(header.stored_length) != Ok(stored.len()) {
            return Err(HeaderError::StoredLength {
                said: header.stored_length,
                bytes: stored.len(),
            });
        }
        Ok((header, stored))
    }
}

/// What stands as `previous` in a stream's first batch: it binds the stream to one ledger.
#[must_use]
pub fn genesis(ledger: LedgerId, stream: StreamId) -> Digest {
    sha256(b"tidemark/genesis/1", &[&ledger.0, &stream.0])
}

/// The digest that stands for a unique value, comparable under one key within one meter and customer.
///
/// # Panics
/// With a meter or customer beyond 65,535 bytes, which no valid name is.
#[must_use]
pub fn unique_digest(key: &UniqueKey, meter: &str, customer: &str, value: &str) -> [u8; 16] {
    let mut mac = hmac(&key.key);
    mac.update(b"tidemark/unique/1");
    for name in [meter, customer] {
        mac.update(&bytes::str_length(name).to_be_bytes());
        mac.update(name.as_bytes());
    }
    mac.update(value.as_bytes());
    first_half(mac)
}

/// The id of one event in a whole ledger. `id` is the digest of the message's (source or empty, name as sent, id);
/// `number` counts the events of one meter that the message was expanded to, from 0. No time is in it. The customer
/// is, so that an agent which may bill one customer cannot take another's event for a duplicate.
///
/// # Panics
/// With a meter or customer beyond 65,535 bytes, which no valid name is.
#[must_use]
pub fn keyed_id(
    key: &UniqueKey,
    meter: &str,
    customer: &str,
    id: &[u8; 16],
    number: u32,
) -> KeyedId {
    let mut mac = hmac(&key.key);
    mac.update(b"tidemark/id/1");
    for name in [meter, customer] {
        mac.update(&bytes::str_length(name).to_be_bytes());
        mac.update(name.as_bytes());
    }
    mac.update(id);
    mac.update(&number.to_be_bytes());
    KeyedId(first_half(mac))
}

fn sha256(tag: &[u8], parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(tag);
    for part in parts {
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn first_half(mac: Hmac<Sha256>) -> [u8; 16] {
    let whole: [u8; 32] = mac.finalize().into_bytes().into();
    *whole.first_chunk().expect("32 bytes begin with 16")
}
