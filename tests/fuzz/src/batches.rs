//! A sealed batch as the collector opens it: header, compression, evidence, lines.
//!
//! ```text
//! input   form u8, skew u8, then by form
//!           0  bytes of a batch: header and body as stored
//!           1  a raw body
//!           2  records of a raw body: salt, evidence, then lines whose lengths are right, some repeated
//!           3  edits of a good raw body: offset u16, removed u8, n u8, inserted [n]
//!         4 more: stored raw; 8 more: of body version 2, with extras
//! ```
//!
//! Raw bodies are stored raw or by zstd behind a header that fits them, so that the decoder behind digest and
//! compression is reached; `skew` then changes one field of the header.
//!
//! - Memory follows what is there and the limits, never what is claimed.
//! - What is opened counts as many events and lines, in the buckets that its header says, in ascending order.
//! - What is opened and written again reads back as the same, and each of its lines can be proven.
//! - A body that a slow reader takes is opened under a header that fits; one with a byte changed is not.
//! - The collector posts what is opened, and quarantines with a reason what is not.

use sha2::{Digest as _, Sha256};
use tidemark_collector::ledger::request::{Admission, Opened};
use tidemark_common::batch::merkle::{Salts, Tree, leaf, path, verify};
use tidemark_common::batch::{
    BODY_VERSION, Body, BodyWriter, Codec, HEADER_BYTES, Header, Line, NewHeader, SealedBatch,
};
use tidemark_common::id::{
    Digest, EventNumber, Fence, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::time::Bucket;

use crate::choices::Choices;
use crate::memory::bounded;

/// A dimension of five bytes becomes two strings of their own and the pair that holds them.
const MEMORY_PER_BYTE: usize = 64;
const MEMORY_FIXED_BYTES: usize = 1 << 20;
/// Repeated lines make raw bodies up to about this large.
const RAW_BYTES_MAX: usize = 1 << 20;
const ZSTD_LEVEL: i32 = 1;

pub fn check(input: &[u8]) {
    let mut choices = Choices::new(input);
    let form = choices.byte();
    let skew = choices.byte();
    let version = if form & 8 == 0 { 1 } else { BODY_VERSION };
    let raw = match form & 3 {
        0 => return check_stored(choices.rest()),
        1 => choices.rest().to_vec(),
        2 => records(version, choices),
        _ => edited(good(version), choices),
    };
    let codec = if form & 4 == 0 { Codec::Zstd } else { Codec::Raw };
    let slow = Slow::read(version, &raw);
    let stored = match codec {
        Codec::Raw => raw.clone(),
        Codec::Zstd => zstd::bulk::compress(&raw, ZSTD_LEVEL).expect("zstd compresses all bytes"),
    };
    let fits = slow.header(codec, &stored, raw.len());
    let header = skewed(fits, skew);
    let body = check_opened(&header, &stored, raw.len());
    if header == fits {
        assert_eq!(body.is_some(), slow.is_body, "a slow reader says otherwise");
    }
}

/// Any bytes as a batch. What reads as a header under which nothing fits is most of it.
fn check_stored(bytes: &[u8]) {
    let Ok((header, stored)) = SealedBatch::split(bytes) else { return };
    assert_eq!(header.encode(), bytes[..HEADER_BYTES], "a header has one form");
    assert_eq!(Header::decode(&header.encode()), Ok(header));
    let header = Header { body_digest: digest(stored), ..header };
    let raw = usize::try_from(header.raw_length).unwrap_or(usize::MAX);
    // Whatever it claims, no more can be behind it than zstd makes of it at most.
    check_opened(&header, stored, raw.min(RAW_BYTES_MAX));
}

/// Opens a body as the session does; the body, if there is one.
fn check_opened(header: &Header, stored: &[u8], raw_bytes: usize) -> Option<Body> {
    let memory = raw_bytes * MEMORY_PER_BYTE + stored.len() + MEMORY_FIXED_BYTES;
    let body = bounded(memory, || Body::open(header, stored));
    let bytes = [&header.encode(), stored].concat();
    let admission = Admission::open(*header, bytes, Fence(0));
    assert_eq!(admission.digest, header.digest());
    match (&body, admission.content) {
        (Ok(body), Opened::Readable { evidence, lines, marks, ids, suppressed, raw_events }) => {
            assert_eq!(raw_events, body.extras.events_digest());
            assert!(suppressed.is_empty() && body.extras.line_ids().eq(ids));
            assert_eq!((&evidence, marks.is_empty()), (&body.evidence, true));
            assert_eq!(lines.events(), header.events(), "lines count what the header says");
            assert_eq!(lines.iter().count(), body.lines.len());
        }
        (Err(error), Opened::Quarantined(reason)) => assert_eq!(error.to_string(), reason),
        (body, content) => panic!("{body:?} is admitted as {content:?}"),
    }
    let body = body.ok()?;
    check_counts(header, &body);
    check_again(header, &body);
    check_damaged(header, stored);
    Some(body)
}

fn check_counts(header: &Header, body: &Body) {
    let events: u128 = body.lines.iter().map(|line| u128::from(line.value.events)).sum();
    assert_eq!(events, u128::from(header.events()));
    assert_eq!(u32::try_from(body.lines.len()), Ok(header.lines));
    let buckets = || body.lines.iter().map(|line| line.key.bucket);
    let span = (buckets().min().unwrap_or_default(), buckets().max().unwrap_or_default());
    assert_eq!(span, (header.first_bucket, header.last_bucket));
    assert!(body.lines.is_sorted_by(|one, next| key_bytes(one) < key_bytes(next)), "{body:?}");
    for line in &body.lines {
        let value = &line.value;
        assert!(value.quantity_events <= value.events && value.unique_events <= value.events);
        assert!(value.min <= value.max, "{line:?}");
        assert!(value.uniques.is_sorted_by(|one, next| one < next), "{line:?}");
    }
}

/// By these lines are ordered.
fn key_bytes(line: &Line) -> Vec<u8> {
    let end = [&line.key.bucket.0.to_be_bytes()[..], &line.key.part.to_be_bytes()].concat();
    [line.key.series(), end].concat()
}

/// Written again by the agent's writer, it is the same body with the same root.
fn check_again(header: &Header, body: &Body) {
    let mut writer = BodyWriter::with_extras(body.salt, &body.evidence, body.extras.clone());
    let salts = Salts::new(&body.salt);
    let mut leaves = Vec::new();
    for (index, line) in (0..).zip(&body.lines) {
        let bytes = line.encode();
        assert_eq!(Line::decode(&bytes).as_ref(), Ok(line));
        leaves.push(leaf(&salts.of(index), index, &bytes));
        let (bucket, part) = (line.key.bucket, line.key.part);
        let written = writer.line(&line.key.series(), bucket, part, &line.value);
        assert_eq!(written, Ok(()), "{line:?} was opened");
    }
    let encoded = writer.finish().expect("a body that was opened can be written");
    assert_eq!(encoded.lines_root, header.lines_root);
    let again = SealedBatch::assemble(place(header), encoded);
    let (read, stored) = SealedBatch::split(&again.bytes).expect("it was just written");
    assert_eq!(Body::open(&read, stored).as_ref(), Ok(body));
    for (index, leaf) in (0..).zip(&leaves).step_by(leaves.len() / 4 + 1) {
        let proof = path(&leaves, index).expect("there is such a line");
        assert!(verify(leaf, index, header.lines, &proof, &header.lines_root), "line {index}");
        assert!(!verify(leaf, index, header.lines, &proof, &header.body_digest));
    }
}

fn place(header: &Header) -> NewHeader {
    NewHeader {
        stream: header.stream,
        opening: header.opening,
        sequence: header.sequence,
        first_event: header.first_event,
        end_event: header.end_event,
        rules: header.rules,
        previous: header.previous,
    }
}

/// One bit, or one byte more or less, and the digest tells.
fn check_damaged(header: &Header, stored: &[u8]) {
    let mut damaged = stored.to_vec();
    let last = damaged.len() - 1;
    damaged[last / 2] ^= 1;
    assert!(Body::open(header, &damaged).is_err());
    assert!(Body::open(header, &stored[..last]).is_err());
}

fn digest(stored: &[u8]) -> Digest {
    let hash = Sha256::new().chain_update(b"tidemark/body/1").chain_update(stored);
    Digest(hash.finalize().into())
}

/// What a slow reader finds in a raw body.
struct Slow {
    version: u16,
    lines: u32,
    root: Digest,
    events: u64,
    buckets: (Bucket, Bucket),
    /// All of it is a body.
    is_body: bool,
}

impl Slow {
    fn read(version: u16, raw: &[u8]) -> Self {
        let salt: [u8; 32] = raw.first_chunk().copied().unwrap_or_default();
        let mut slow = Self {
            version,
            lines: 0,
            root: Tree::default().root(),
            events: 0,
            buckets: (Bucket(0), Bucket(0)),
            is_body: true,
        };
        let behind = after_evidence(raw).and_then(|rest| match version {
            1 => Some((rest, None)),
            _ => after_extras(rest),
        });
        let Some((rest, last_id)) = behind else { return Self { is_body: false, ..slow } };
        let (mut tree, salts) = (Tree::default(), Salts::new(&salt));
        let mut found: Vec<Line> = Vec::new();
        let mut rest = rest;
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some((line, behind)) = behind.split_at_checked(length) else { break };
            tree.push(leaf(&salts.of(slow.lines), slow.lines, line));
            slow.lines += 1;
            match Line::decode(line) {
                Ok(line) => found.push(line),
                Err(_) => slow.is_body = false,
            }
            rest = behind;
        }
        let events = found.iter().try_fold(0_u64, |sum, line| sum.checked_add(line.value.events));
        slow.is_body &= rest.is_empty()
            && last_id.is_none_or(|line| line < slow.lines)
            && events.is_some()
            && found.is_sorted_by(|one, next| key_bytes(one) < key_bytes(next));
        slow.root = tree.root();
        slow.events = events.unwrap_or(u64::MAX);
        let buckets = || found.iter().map(|line| line.key.bucket);
        slow.buckets = (buckets().min().unwrap_or_default(), buckets().max().unwrap_or_default());
        slow
    }

    fn header(&self, codec: Codec, stored: &[u8], raw_length: usize) -> Header {
        let length = |bytes| u32::try_from(bytes).expect("inputs are small");
        Header {
            body_version: self.version,
            stream: StreamId([1; 16]),
            opening: OpeningId([2; 16]),
            sequence: Sequence(1),
            first_event: EventNumber(0),
            end_event: EventNumber(self.events),
            first_bucket: self.buckets.0,
            last_bucket: self.buckets.1,
            lines: self.lines,
            codec,
            stored_length: length(stored.len()),
            raw_length: length(raw_length),
            rules: RulesVersion(1),
            previous: Digest([3; 32]),
            body_digest: digest(stored),
            lines_root: self.root,
        }
    }
}

/// What stands behind salt and evidence, if both are sound.
fn after_evidence(raw: &[u8]) -> Option<&[u8]> {
    let (codes, rest) = raw.get(32..)?.split_first_chunk::<2>()?;
    let (codes, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*codes)) * 10)?;
    let numbers: Vec<_> = codes.chunks(10).map(|code| [code[0], code[1]]).collect();
    numbers.is_sorted_by(|one, next| one < next).then_some(rest)
}

/// What stands behind the extras, if they are sound, and the last line that has an id.
fn after_extras(raw: &[u8]) -> Option<(&[u8], Option<u32>)> {
    let (count, mut rest) = raw.split_first_chunk::<2>()?;
    let (mut before, mut last_id) = (None, None);
    for _ in 0..u16::from_be_bytes(*count) {
        let (head, behind) = rest.split_first_chunk::<6>()?;
        let (tag, length) = (u16::from_be_bytes([head[0], head[1]]), &head[2..]);
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        let (bytes, behind) = behind.split_at_checked(length)?;
        if before >= Some(tag) || (tag == 1 && length != 32) {
            return None;
        }
        if tag == 2 {
            let (ids, rest) = bytes.get(2..)?.as_chunks::<20>();
            let line = |id: &[u8; 20]| u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
            let lines: Vec<_> = ids.iter().map(line).collect();
            if !rest.is_empty() || !lines.is_sorted_by(|one, next| one < next) {
                return None;
            }
            last_id = lines.last().copied();
        }
        (before, rest) = (Some(tag), behind);
    }
    Some((rest, last_id))
}

/// A header that tells otherwise than its body in one field.
fn skewed(header: Header, skew: u8) -> Header {
    let by = u32::from(skew >> 4);
    match skew & 15 {
        1 => Header { lines: header.lines.wrapping_sub(by), ..header },
        2 => Header { lines: u32::MAX >> by, ..header },
        3 => Header { end_event: EventNumber(header.end_event.0 ^ u64::from(by)), ..header },
        4 => Header { last_bucket: Bucket(header.last_bucket.0 ^ by), ..header },
        5 => Header { raw_length: header.raw_length.wrapping_sub(by), ..header },
        6 => Header { raw_length: u32::MAX >> by, ..header },
        7 => Header { body_version: header.body_version ^ u16::from(skew >> 4), ..header },
        8 => Header { stored_length: header.stored_length ^ by, ..header },
        9 => Header { lines_root: header.previous, ..header },
        10 => Header { body_digest: header.previous, ..header },
        _ => header,
    }
}

/// Salt, evidence, extras and lines of chosen content, whose lengths are right.
fn records(version: u16, mut choices: Choices<'_>) -> Vec<u8> {
    let mut raw = vec![choices.byte(); 32];
    let codes = choices.byte() % 8;
    raw.extend_from_slice(&u16::from(codes).to_be_bytes());
    for _ in 0..codes {
        raw.extend_from_slice(&choices.u16().to_be_bytes());
        raw.extend_from_slice(&choices.u64().to_be_bytes());
    }
    if version > 1 {
        let extras = choices.byte() % 4;
        raw.extend_from_slice(&u16::from(extras).to_be_bytes());
        for _ in 0..extras {
            let (tag, length) = (choices.byte(), usize::from(choices.byte()));
            let bytes = choices.take(length);
            raw.extend_from_slice(&u16::from(tag).to_be_bytes());
            raw.extend_from_slice(
                &u32::try_from(bytes.len()).expect("a byte's worth").to_be_bytes(),
            );
            raw.extend_from_slice(bytes);
        }
    }
    while !choices.is_empty() {
        let repeated = usize::from(choices.byte()) + 1;
        let length = usize::from(choices.byte());
        let content = choices.take(length);
        let line = if repeated > 128 { content.repeat(repeated) } else { content.to_vec() };
        if raw.len() + line.len() > RAW_BYTES_MAX {
            break;
        }
        raw.extend_from_slice(&u32::try_from(line.len()).expect("64 KiB at most").to_be_bytes());
        raw.extend_from_slice(&line);
    }
    raw
}

fn edited(mut raw: Vec<u8>, mut choices: Choices<'_>) -> Vec<u8> {
    while !choices.is_empty() {
        let start = usize::from(choices.u16()).min(raw.len());
        let end = (start + usize::from(choices.byte())).min(raw.len());
        let length = usize::from(choices.byte());
        drop(raw.splice(start..end, choices.take(length).iter().copied()));
    }
    raw
}

/// A raw body with evidence and three lines: quantities, unique values, dimensions.
fn good(version: u16) -> Vec<u8> {
    let mut raw = vec![7; 32];
    raw.extend_from_slice(&[0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
    if version > 1 {
        raw.extend_from_slice(&[0, 3, 0, 1, 0, 0, 0, 32]);
        raw.extend_from_slice(&[5; 32]);
        raw.extend_from_slice(&[0, 2, 0, 0, 0, 42, 0, 1, 0, 0, 0, 0]);
        raw.extend_from_slice(&[6; 16]);
        raw.extend_from_slice(&[0, 0, 0, 1]);
        raw.extend_from_slice(&[6; 16]);
        raw.extend_from_slice(&[0, 9, 0, 0, 0, 1, 8]);
    }
    let bucket = 1_888_888_u32;
    for (series, bucket, events, quantity, unique) in [
        (&b"\0\x05seats\0\x04acme\0"[..], bucket, 1_u64, None, true),
        (b"\0\x05seats\0\x04acme\0", bucket + 1, 2, None, true),
        (b"\0\x09api.calls\0\x04acme\x01\0\x06region\0\x02eu", bucket, 3, Some(5_i128), false),
    ] {
        let mut line = series.to_vec();
        line.extend_from_slice(&bucket.to_be_bytes());
        line.extend_from_slice(&[0, 0]);
        let with_quantity = if quantity.is_some() { events } else { 0 };
        let with_unique = if unique { events } else { 0 };
        for count in [events, with_quantity, with_unique] {
            line.extend_from_slice(&count.to_be_bytes());
        }
        let least = quantity.unwrap_or(0);
        for number in [least * i128::from(events), least, least] {
            line.extend_from_slice(&number.to_be_bytes());
        }
        line.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes());
        line.extend_from_slice(&least.to_be_bytes());
        line.extend_from_slice(&[0, 1]);
        let uniques = u8::try_from(with_unique).expect("a few");
        line.extend_from_slice(&[0, 0, 0, uniques]);
        (0..uniques).for_each(|digest| line.extend_from_slice(&[digest; 16]));
        raw.extend_from_slice(&u32::try_from(line.len()).expect("a short line").to_be_bytes());
        raw.extend_from_slice(&line);
    }
    raw
}
