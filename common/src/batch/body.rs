//! A batch's body: salt, evidence, extras, lines; written and read as a stream.
//!
//! ```text
//! raw form   salt [32]
//!            n u16, then n * (evidence code u16, cumulative count u64), codes ascending
//!            n u16, then n * (tag u16, length u32, extra), tags ascending        (from version 2 on)
//!            then `lines` times: length u32, line
//! as stored  the raw form itself (codec 0), or one zstd frame of it (codec 1)
//! ```
//!
//! **Owns** the raw form, its compression and its limits. **Does not own** the bytes of a line or an extra.
//!
//! Invariants: lines stand strictly ascending by the bytes of their key. Neither side ever holds a raw
//! body: written bytes go straight into zstd and into the Merkle tree, and are read a line at a time.
//!
//! Limits: [`BODY_RAW_BYTES_MAX`](super::BODY_RAW_BYTES_MAX),
//! [`BODY_STORED_BYTES_MAX`](super::BODY_STORED_BYTES_MAX), [`BODY_LINES_MAX`](super::BODY_LINES_MAX);
//! a zstd window of at most 8 MiB.

mod open;

use std::io::{self, Write};

use thiserror::Error;
use zstd::stream::write::Encoder;

use crate::id::Digest;
use crate::time::Bucket;

use super::evidence::Evidence;
use super::extras::{Extras, ExtrasError};
use super::header::Codec;
use super::line::{Line, LineError, LineValue, parse_series, put_key_end};
use super::merkle::{Salts, Tree, leaf};
use super::{BODY_LINES_MAX, BODY_RAW_BYTES_MAX, BODY_STORED_BYTES_MAX};

const ZSTD_LEVEL: i32 = 1;

/// Raw forms up to this many bytes are kept until the end, and stored as they are if zstd cannot make
/// them smaller. Beyond it zstd costs at most 3 bytes in 128 KiB.
const RAW_KEPT_BYTES_MAX: usize = 4_096;

/// A body that was read, and is what its header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub salt: [u8; 32],
    pub evidence: Evidence,
    pub extras: Extras,
    pub lines: Vec<Line>,
}

/// A finished body and what a header says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBody {
    pub stored: Vec<u8>,
    pub codec: Codec,
    pub raw_length: u32,
    pub lines: u32,
    pub first_bucket: Bucket,
    pub last_bucket: Bucket,
    pub body_digest: Digest,
    pub lines_root: Digest,
}

/// A body that cannot be written, or is not what its header says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    #[error("failed to read a batch body: its version {version} is unknown")]
    Version { version: u16 },
    #[error("failed to read a batch body: its header tells of {said} bytes, and it has {bytes}")]
    StoredLength { said: u32, bytes: usize },
    #[error(
        "failed to make or read a batch body: stored it has {bytes} bytes; at most {bytes_max} are allowed"
    )]
    StoredTooLarge { bytes: usize, bytes_max: usize },
    #[error(
        "failed to make or read a batch body: raw it has {bytes} bytes; at most {bytes_max} are allowed"
    )]
    RawTooLarge { bytes: usize, bytes_max: usize },
    #[error(
        "failed to make or read a batch body: it has {lines} lines; at most {lines_max} are allowed"
    )]
    TooManyLines { lines: u32, lines_max: u32 },
    #[error("failed to read a batch body: its digest is {found} instead of {said}")]
    Digest { said: Digest, found: Digest },
    #[error("failed to read a batch body: zstd says {reason}")]
    Compression { reason: String },
    #[error("failed to read a batch body: it ends within {field}")]
    Truncated { field: &'static str },
    #[error(
        "failed to read a batch body: {raw} raw bytes and {stored} stored ones follow its last line"
    )]
    Trailing { raw: usize, stored: usize },
    #[error("failed to read a batch body: evidence code {code} does not come after the one before")]
    EvidenceOrder { code: u16 },
    #[error("failed to make or read a batch body: {error}")]
    Extras { error: ExtrasError },
    #[error("failed to make or read line {index} of a batch body: {error}")]
    Line { index: u32, error: LineError },
    #[error(
        "failed to read a batch body: the key of line {index} does not come after the one before"
    )]
    Order { index: u32 },
    #[error("failed to read a batch body: its lines count {found} events, and its header {said}")]
    Events { said: u64, found: u64 },
    #[error(
        "failed to read a batch body: its lines lie in buckets {found:?}, and its header says {said:?}"
    )]
    Buckets { said: (Bucket, Bucket), found: (Bucket, Bucket) },
    #[error("failed to read a batch body: the root of its lines is {found} instead of {said}")]
    Root { said: Digest, found: Digest },
}

/// Writes a body line by line.
pub struct BodyWriter {
    extras: Extras,
    salts: Salts,
    tree: Tree,
    buckets: Option<(Bucket, Bucket)>,
    encoder: Encoder<'static, Vec<u8>>,
    /// The raw form while it is small enough to be stored as it is.
    raw: Option<Vec<u8>>,
    raw_length: usize,
    /// The series and the whole key of the line before.
    series: Vec<u8>,
    key: Vec<u8>,
    line: Vec<u8>,
}

impl BodyWriter {
    /// Begins a body. `salt` is random: whoever knows it can guess lines that a proof hides.
    ///
    /// # Panics
    /// If zstd cannot have its memory.
    #[must_use]
    pub fn new(salt: [u8; 32], evidence: &Evidence) -> Self {
        Self::with_extras(salt, evidence, Extras::default())
    }

    /// Begins a body that has extras. They stand before the lines, and are judged with the last.
    ///
    /// # Panics
    /// If zstd cannot have its memory, or an extra is beyond 4 GiB.
    #[must_use]
    pub fn with_extras(salt: [u8; 32], evidence: &Evidence, extras: Extras) -> Self {
        let mut writer = Self {
            extras: Extras::default(),
            salts: Salts::new(&salt),
            tree: Tree::default(),
            buckets: None,
            encoder: Encoder::new(Vec::new(), ZSTD_LEVEL).expect(ZSTD_IN_MEMORY),
            raw: Some(Vec::new()),
            raw_length: 0,
            series: Vec::new(),
            key: Vec::new(),
            line: Vec::new(),
        };
        writer.put(&salt);
        let codes = u16::try_from(evidence.iter().len())
            .expect("there are fewer than 65,536 evidence codes");
        writer.put(&codes.to_be_bytes());
        for (number, count) in evidence.iter() {
            writer.put(&number.to_be_bytes());
            writer.put(&count.to_be_bytes());
        }
        let tags = u16::try_from(extras.iter().len()).expect("extras are fewer than their tags");
        writer.put(&tags.to_be_bytes());
        for (tag, bytes) in extras.iter() {
            let length = u32::try_from(bytes.len()).expect("an extra is far below 4 GiB");
            writer.put(&tag.to_be_bytes());
            writer.put(&length.to_be_bytes());
            writer.put(bytes);
        }
        writer.extras = extras;
        writer
    }

    /// Appends a line. `series` is what [`series_bytes`](super::series_bytes) makes.
    ///
    /// # Errors
    /// A line that no reader would take, or one more than the limits allow. Nothing of it is written:
    /// the lines before it can still be finished.
    ///
    /// # Panics
    /// If (series, bucket, part) does not come after that of the line before.
    pub fn line(
        &mut self,
        series: &[u8],
        bucket: Bucket,
        part: u16,
        value: &LineValue,
    ) -> Result<(), BodyError> {
        let index = self.tree.leaves();
        if index >= BODY_LINES_MAX {
            let lines = index.saturating_add(1);
            return Err(BodyError::TooManyLines { lines, lines_max: BODY_LINES_MAX });
        }
        let line_error = |error| BodyError::Line { index, error };
        if self.key.is_empty() || series != self.series {
            parse_series(series).map_err(line_error)?;
        }
        value.check().map_err(line_error)?;

        self.line.clear();
        self.line.extend_from_slice(series);
        put_key_end(&mut self.line, bucket, part);
        let key_length = self.line.len();
        assert!(self.key < self.line, "line {index} does not come after the one before");
        value.put(&mut self.line);

        let line = std::mem::take(&mut self.line);
        let raw_length = self.raw_length.saturating_add(4).saturating_add(line.len());
        if raw_length > BODY_RAW_BYTES_MAX {
            self.line = line;
            return Err(BodyError::RawTooLarge {
                bytes: raw_length,
                bytes_max: BODY_RAW_BYTES_MAX,
            });
        }
        let length = u32::try_from(line.len()).expect("a line is within the raw limit");
        self.put(&length.to_be_bytes());
        self.put(&line);
        self.tree.push(leaf(&self.salts.of(index), index, &line));
        let (first, last) = self.buckets.unwrap_or((bucket, bucket));
        self.buckets = Some((first.min(bucket), last.max(bucket)));
        self.series.clear();
        self.series.extend_from_slice(series);
        self.key.clear();
        self.key.extend_from_slice(&line[..key_length]);
        self.line = line;
        Ok(())
    }

    /// The raw form's length so far, against [`BODY_RAW_BYTES_MAX`](super::BODY_RAW_BYTES_MAX).
    #[must_use]
    pub fn raw_length(&self) -> usize {
        self.raw_length
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.tree.leaves()
    }

    /// Ends the body.
    ///
    /// # Errors
    /// If it is too large, raw by its extras alone or as stored: digests do not compress, and 16 MiB hold a
    /// million. Or if its extras tell of lines that there are not.
    ///
    /// # Panics
    /// If zstd cannot have its memory.
    pub fn finish(self) -> Result<EncodedBody, BodyError> {
        self.extras.check(self.tree.leaves()).map_err(|error| BodyError::Extras { error })?;
        if self.raw_length > BODY_RAW_BYTES_MAX {
            return Err(BodyError::RawTooLarge {
                bytes: self.raw_length,
                bytes_max: BODY_RAW_BYTES_MAX,
            });
        }
        let compressed = self.encoder.finish().expect(ZSTD_IN_MEMORY);
        let (codec, stored) = match self.raw {
            Some(raw) if raw.len() <= compressed.len() => (Codec::Raw, raw),
            Some(_) | None => (Codec::Zstd, compressed),
        };
        if stored.len() > BODY_STORED_BYTES_MAX {
            return Err(BodyError::StoredTooLarge {
                bytes: stored.len(),
                bytes_max: BODY_STORED_BYTES_MAX,
            });
        }
        let (first_bucket, last_bucket) = self.buckets.unwrap_or_default();
        Ok(EncodedBody {
            body_digest: digest(&stored),
            stored,
            codec,
            raw_length: u32::try_from(self.raw_length).expect("the raw form is within its limit"),
            lines: self.tree.leaves(),
            first_bucket,
            last_bucket,
            lines_root: self.tree.root(),
        })
    }

    fn put(&mut self, bytes: &[u8]) {
        self.encoder.write_all(bytes).expect(ZSTD_IN_MEMORY);
        self.raw_length = self.raw_length.saturating_add(bytes.len());
        if self.raw_length > RAW_KEPT_BYTES_MAX {
            self.raw = None;
        }
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(bytes);
        }
    }
}

impl std::fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyWriter")
            .field("lines", &self.tree.leaves())
            .field("raw_length", &self.raw_length)
            .finish_non_exhaustive()
    }
}

const ZSTD_IN_MEMORY: &str = "zstd into memory fails only without memory";

fn digest(stored: &[u8]) -> Digest {
    super::sha256(b"tidemark/body/1", &[stored])
}

fn zstd_error(error: &io::Error) -> BodyError {
    BodyError::Compression { reason: error.to_string() }
}

#[cfg(test)]
mod tests;
