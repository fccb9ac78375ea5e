//! Opens a body: reads it a line at a time and judges all of it against its header.

use std::io::{self, BufReader, Read};

use zstd::stream::read::Decoder;

use crate::time::Bucket;

use super::super::evidence::Evidence;
use super::super::extras::Extras;
use super::super::header::{Codec, Header};
use super::super::line::Line;
use super::super::merkle::{Salts, Tree, leaf};
use super::super::{BODY_LINES_MAX, BODY_RAW_BYTES_MAX, BODY_STORED_BYTES_MAX, BODY_VERSION};
use super::{Body, BodyError, digest, zstd_error};

/// No frame may ask its reader for a larger window: 2^23 bytes, which RFC 8878 asks of every decoder.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Lines up to this length are read into place; of longer ones only what is really there takes memory.
const LINE_TRUSTED_BYTES_MAX: usize = 64 << 10;

impl Body {
    /// Reads the body of `header`. Memory follows what is there, not what is claimed.
    ///
    /// # Errors
    /// Names the first thing by which `stored` is not the body of `header`, or no body of its version.
    pub fn open(header: &Header, stored: &[u8]) -> Result<Self, BodyError> {
        let mut raw = RawForm::open(header, stored)?;
        let salt = raw.array("its salt")?;
        let evidence = read_evidence(&mut raw)?;
        let extras = read_extras(header, &mut raw)?;
        let lines = read_lines(header, &mut raw, &salt)?;
        raw.end()?;
        check_counts(header, &lines)?;
        Ok(Self { salt, evidence, extras, lines })
    }
}

fn read_evidence(raw: &mut RawForm<'_>) -> Result<Evidence, BodyError> {
    const FIELD: &str = "its evidence";
    let codes = u16::from_be_bytes(raw.array(FIELD)?);
    let mut counts = Vec::new();
    for _ in 0..codes {
        let code = u16::from_be_bytes(raw.array(FIELD)?);
        if counts.last().is_some_and(|(before, _)| *before >= code) {
            return Err(BodyError::EvidenceOrder { code });
        }
        counts.push((code, u64::from_be_bytes(raw.array(FIELD)?)));
    }
    Ok(counts.into_iter().collect())
}

/// Bodies of version 1 have none.
fn read_extras(header: &Header, raw: &mut RawForm<'_>) -> Result<Extras, BodyError> {
    const FIELD: &str = "its extras";
    let mut extras = Extras::default();
    if header.body_version < 2 {
        return Ok(extras);
    }
    let refused = |error| BodyError::Extras { error };
    for _ in 0..u16::from_be_bytes(raw.array(FIELD)?) {
        let tag = u16::from_be_bytes(raw.array(FIELD)?);
        let length = u32::from_be_bytes(raw.array(FIELD)?);
        let mut bytes = Vec::new();
        raw.fill(&mut bytes, length, FIELD)?;
        extras.push(tag, bytes).map_err(refused)?;
    }
    extras.check(header.lines).map_err(refused)?;
    Ok(extras)
}

/// The header's count of lines, with their order and their root checked.
fn read_lines(
    header: &Header,
    raw: &mut RawForm<'_>,
    salt: &[u8; 32],
) -> Result<Vec<Line>, BodyError> {
    let salts = Salts::new(salt);
    let mut tree = Tree::default();
    let mut lines: Vec<Line> = Vec::new();
    let mut bytes = Vec::new();
    let mut key: Vec<u8> = Vec::new();
    for index in 0..header.lines {
        let length = u32::from_be_bytes(raw.array("the length of a line")?);
        raw.fill(&mut bytes, length, "a line")?;
        let before = lines.last().map(|line| &line.key);
        let (line, key_length) =
            Line::decode_after(&bytes, before).map_err(|error| BodyError::Line { index, error })?;
        if key[..] >= bytes[..key_length] {
            return Err(BodyError::Order { index });
        }
        key.clear();
        key.extend_from_slice(&bytes[..key_length]);
        tree.push(leaf(&salts.of(index), index, &bytes));
        lines.push(line);
    }
    let found = tree.root();
    if found != header.lines_root {
        return Err(BodyError::Root { said: header.lines_root, found });
    }
    Ok(lines)
}

fn check_counts(header: &Header, lines: &[Line]) -> Result<(), BodyError> {
    let found = lines.iter().try_fold(0_u64, |sum, line| sum.checked_add(line.value.events));
    if found != Some(header.events()) {
        let found = found.unwrap_or(u64::MAX);
        return Err(BodyError::Events { said: header.events(), found });
    }
    let buckets = || lines.iter().map(|line| line.key.bucket);
    let found = (buckets().min().unwrap_or(Bucket(0)), buckets().max().unwrap_or(Bucket(0)));
    let said = (header.first_bucket, header.last_bucket);
    if found != said {
        return Err(BodyError::Buckets { said, found });
    }
    Ok(())
}

/// Reads the raw form, at most as much as the header claims.
struct RawForm<'a> {
    source: Source<'a>,
    remaining: usize,
}

enum Source<'a> {
    Raw(&'a [u8]),
    Zstd(BufReader<Decoder<'static, &'a [u8]>>),
}

impl<'a> RawForm<'a> {
    fn open(header: &Header, stored: &'a [u8]) -> Result<Self, BodyError> {
        if !(1..=BODY_VERSION).contains(&header.body_version) {
            return Err(BodyError::Version { version: header.body_version });
        }
        if stored.len() > BODY_STORED_BYTES_MAX {
            return Err(BodyError::StoredTooLarge {
                bytes: stored.len(),
                bytes_max: BODY_STORED_BYTES_MAX,
            });
        }
        if usize::try_from(header.stored_length) != Ok(stored.len()) {
            return Err(BodyError::StoredLength {
                said: header.stored_length,
                bytes: stored.len(),
            });
        }
        let found = digest(stored);
        if found != header.body_digest {
            return Err(BodyError::Digest { said: header.body_digest, found });
        }
        let remaining = usize::try_from(header.raw_length).unwrap_or(usize::MAX);
        if remaining > BODY_RAW_BYTES_MAX {
            return Err(BodyError::RawTooLarge { bytes: remaining, bytes_max: BODY_RAW_BYTES_MAX });
        }
        if header.lines > BODY_LINES_MAX {
            return Err(BodyError::TooManyLines { lines: header.lines, lines_max: BODY_LINES_MAX });
        }
        let source = match header.codec {
            Codec::Raw => Source::Raw(stored),
            Codec::Zstd => {
                let mut decoder = Decoder::with_buffer(stored)
                    .map_err(|error| zstd_error(&error))?
                    .single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| zstd_error(&error))?;
                Source::Zstd(BufReader::new(decoder))
            }
        };
        Ok(Self { source, remaining })
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BodyError> {
        let mut bytes = [0; N];
        self.claim(N, field)?;
        self.source.read_exact(&mut bytes).map_err(|error| self.source.explain(&error, field))?;
        Ok(bytes)
    }

    /// Fills `bytes` with the `length` bytes of a field.
    fn fill(
        &mut self,
        bytes: &mut Vec<u8>,
        length: u32,
        field: &'static str,
    ) -> Result<(), BodyError> {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        self.claim(wanted, field)?;
        bytes.clear();
        if wanted <= LINE_TRUSTED_BYTES_MAX {
            bytes.resize(wanted, 0);
            return self
                .source
                .read_exact(bytes)
                .map_err(|error| self.source.explain(&error, field));
        }
        let read = (&mut self.source).take(u64::from(length)).read_to_end(bytes);
        match read.map_err(|error| self.source.explain(&error, field))? {
            read if read == wanted => Ok(()),
            _ => Err(BodyError::Truncated { field }),
        }
    }

    /// Nothing may follow: neither in the raw form, nor in the frame, nor behind it.
    fn end(self) -> Result<(), BodyError> {
        let (mut raw, mut stored) = (self.remaining, 0);
        match self.source {
            Source::Raw(rest) => raw = raw.max(rest.len()),
            Source::Zstd(mut reader) => {
                let beyond = reader.read(&mut [0]).map_err(|error| zstd_error(&error))?;
                raw = raw.max(beyond);
                stored = reader.into_inner().finish().len();
            }
        }
        if raw > 0 || stored > 0 {
            return Err(BodyError::Trailing { raw, stored });
        }
        Ok(())
    }

    fn claim(&mut self, bytes: usize, field: &'static str) -> Result<(), BodyError> {
        self.remaining = self.remaining.checked_sub(bytes).ok_or(BodyError::Truncated { field })?;
        Ok(())
    }
}

impl Source<'_> {
    /// An end that comes too early, told apart from a frame that zstd cannot read.
    fn explain(&self, error: &io::Error, field: &'static str) -> BodyError {
        match (self, error.kind()) {
            (Self::Raw(_), _) | (Self::Zstd(_), io::ErrorKind::UnexpectedEof) => {
                BodyError::Truncated { field }
            }
            (Self::Zstd(_), _) => zstd_error(error),
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Raw(rest) => rest.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}
