//! The bytes of the embedded ledger's rows.
//!
//! ```text
//! TOTAL KEY    slot u32 (bucket / 96: a day), customer str, meter str, n u8, n * (name str, value str),
//!              class u8, bucket u32, part u16                       (str: length u16, UTF-8)
//! TOTAL        events u64, quantity events u64, unique events u64, sum i128, min i128, max i128,
//!              latest time i64, latest quantity i128
//! UNIQUE KEY   total key without its part, key id u16, digest [16]
//! SEEN KEY     customer str, meter str, class u8; of class 1 (unauthorised) the sender's identity follows, str
//! SEEN         events u64, first bucket u32, last bucket u32
//! INDEX KEY    stream [16], sequence u64                 INDEX      position u64
//! STREAM ROW   version u8 = 4, bincode 2 (standard configuration) of `StreamRow`; version 3 lacks its
//!              last field, version 2 the last two, version 1 the last three
//! ```
//! Numbers are big-endian, so that rows sort by them.
//!
//! **Owns** these bytes. The day comes first, so that folds write to few pages, however many rows there
//! are; a day's rows of one customer stand together, so that a month is read in 31 seeks.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_common::batch::{Evidence, LineKey, parse_series};
use tidemark_common::id::{
    CustomerId, Digest, EventNumber, Fence, MeterName, OpeningId, Sequence, StreamId,
};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::PostedOpening;

use crate::ledger::stream::{Confirmed, Missing, StreamRecord, StreamState};
use crate::usage::{Accumulator, Class, Seen, SeenAs, Sign, UniqueValue, UsageRow};

/// Buckets in a slot: a day.
pub const SLOT_BUCKETS: u32 = 96;
/// In an opening's row, in place of the end of what is posted: its events went to another stream after a
/// conflict, and this one takes them no more.
pub const GIVEN_AWAY: u64 = u64::MAX;

const STREAM_ROW_VERSION: u8 = 4;
const STREAM_ROW_BYTES_MAX: usize = 1 << 20;
/// Class, bucket and part.
const TOTAL_KEY_END: usize = 7;

/// A row that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("failed to read a {row} row: {reason}")]
pub struct RowError {
    pub row: &'static str,
    pub reason: String,
}

fn broken(row: &'static str, reason: impl Into<String>) -> RowError {
    RowError { row, reason: reason.into() }
}

pub(crate) fn put_str(bytes: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names are at most 128 bytes long");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// What the keys of one customer's rows in one slot begin with; narrowed to one meter if given.
#[must_use]
pub fn total_prefix(slot: u32, customer: &CustomerId, meter: Option<&MeterName>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&slot.to_be_bytes());
    put_str(&mut bytes, customer.as_str());
    if let Some(meter) = meter {
        put_str(&mut bytes, meter.as_str());
    }
    bytes
}

/// A total's key without its part.
#[must_use]
pub fn total_key(line: &LineKey, class: Class) -> Vec<u8> {
    let slot = line.bucket.0.div_euclid(SLOT_BUCKETS);
    let mut bytes = total_prefix(slot, &line.customer, Some(&line.meter));
    let dimensions = line.dimensions.iter();
    bytes.push(u8::try_from(dimensions.len()).expect("a line has at most 16 dimensions"));
    for (name, value) in dimensions {
        put_str(&mut bytes, name);
        put_str(&mut bytes, value);
    }
    bytes.push(class.number());
    bytes.extend_from_slice(&line.bucket.0.to_be_bytes());
    bytes
}

/// A total's whole key.
#[must_use]
pub fn with_part(key: &[u8], part: u16) -> Vec<u8> {
    [key, &part.to_be_bytes()].concat()
}

/// The bucket of a total's whole key, without reading the rest.
#[must_use]
pub fn bucket_of(key: &[u8]) -> Option<Bucket> {
    let end = key.last_chunk::<6>()?;
    Some(Bucket(u32::from_be_bytes(*end.first_chunk()?)))
}

/// Reads a total's whole key; its usage is still empty.
///
/// # Errors
/// Bytes that [`total_key`] and [`with_part`] did not write.
pub fn read_total_key(key: &[u8]) -> Result<UsageRow, RowError> {
    let short = || broken("total key", "it is too short");
    let (names, end) =
        key.split_at_checked(key.len().saturating_sub(TOTAL_KEY_END)).ok_or_else(short)?;
    let names = names.get(4..).ok_or_else(short)?;
    let (customer, rest) = split_str(names).ok_or_else(short)?;
    let (meter, dimensions) = split_str(rest).ok_or_else(short)?;
    // A series stands as in a batch: the meter first.
    let series = [meter, customer, dimensions].concat();
    let (meter, _, dimensions) =
        parse_series(&series).map_err(|error| broken("total key", error.to_string()))?;
    let class = end.first().copied().and_then(Class::from_number);
    let class = class.ok_or_else(|| broken("total key", "its class is unknown"))?;
    let bucket = bucket_of(key).ok_or_else(short)?;
    Ok(UsageRow {
        class,
        sign: Sign::Added,
        meter,
        dimensions,
        bucket,
        usage: Accumulator::default(),
    })
}

/// Whose row it is, by a total's key.
#[must_use]
pub fn customer_of(key: &[u8]) -> Option<&str> {
    let (customer, _) = split_str(key.get(4..)?)?;
    std::str::from_utf8(customer.get(2..)?).ok()
}

/// A str with its length, and what follows it.
fn split_str(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_be_bytes(*bytes.first_chunk::<2>()?);
    bytes.split_at_checked(usize::from(length).saturating_add(2))
}

/// A total's value: all but its distinct values, which are rows of their own.
#[must_use]
pub fn write_total(usage: &Accumulator) -> [u8; 96] {
    let (time, latest) = usage.latest.unwrap_or_default();
    let mut bytes = [0; 96];
    let parts: [&[u8]; 8] = [
        &usage.events.to_be_bytes(),
        &usage.quantity_events.to_be_bytes(),
        &usage.unique_events.to_be_bytes(),
        &usage.sum.0.to_be_bytes(),
        &usage.min.0.to_be_bytes(),
        &usage.max.0.to_be_bytes(),
        &time.0.to_be_bytes(),
        &latest.0.to_be_bytes(),
    ];
    let mut rest = &mut bytes[..];
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
    bytes
}

/// Reads what [`write_total`] wrote.
///
/// # Errors
/// Bytes of another length.
pub fn read_total(bytes: &[u8]) -> Result<Accumulator, RowError> {
    let mut fields = Fields(bytes);
    let mut read = || -> Option<Accumulator> {
        let (events, quantity_events, unique_events) =
            (fields.u64()?, fields.u64()?, fields.u64()?);
        let (sum, min, max) = (fields.quantity()?, fields.quantity()?, fields.quantity()?);
        let latest = (Timestamp(i64::from_be_bytes(fields.array()?)), fields.quantity()?);
        let latest = (quantity_events > 0).then_some(latest);
        let uniques = std::collections::BTreeSet::new();
        Some(Accumulator { events, quantity_events, unique_events, sum, min, max, latest, uniques })
    };
    read().filter(|_| bytes.len() == 96).ok_or_else(|| broken("total", "it is not 96 bytes long"))
}

/// The key of one distinct value under a total's key without part.
#[must_use]
pub fn unique_key(total: &[u8], unique: &UniqueValue) -> Vec<u8> {
    [total, &unique.0.to_be_bytes(), &unique.1].concat()
}

/// The total's key without part, and the distinct value.
///
/// # Errors
/// Bytes that [`unique_key`] did not write.
pub fn read_unique_key(bytes: &[u8]) -> Result<(&[u8], UniqueValue), RowError> {
    let read = || {
        let (total, unique) = bytes.split_at_checked(bytes.len().checked_sub(18)?)?;
        let mut fields = Fields(unique);
        Some((total, (u16::from_be_bytes(fields.array()?), fields.array()?)))
    };
    read().ok_or_else(|| broken("unique", "it is too short"))
}

#[must_use]
pub fn seen_key(customer: &CustomerId, meter: &MeterName, seen_as: &SeenAs) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    put_str(&mut bytes, customer.as_str());
    put_str(&mut bytes, meter.as_str());
    match seen_as {
        SeenAs::Normal => bytes.push(Class::Normal.number()),
        SeenAs::Unauthorised(agent) => {
            bytes.push(Class::Unauthorised.number());
            put_str(&mut bytes, agent.as_str());
        }
        SeenAs::Suppressed => bytes.push(Class::Suppressed.number()),
    }
    bytes
}

/// What [`seen_key`] wrote, without the identity.
#[must_use]
pub fn seen_prefix(key: &[u8]) -> &[u8] {
    let prefix = || {
        let (_, rest) = split_str(key)?;
        let (_, rest) = split_str(rest)?;
        let class = key.len().checked_sub(rest.len())?;
        key.get(..=class)
    };
    prefix().unwrap_or(key)
}

#[must_use]
pub fn write_seen(events: u64, first: Bucket, last: Bucket) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&events.to_be_bytes());
    bytes[8..12].copy_from_slice(&first.0.to_be_bytes());
    bytes[12..].copy_from_slice(&last.0.to_be_bytes());
    bytes
}

/// Reads what [`seen_key`] and [`write_seen`] wrote.
///
/// # Errors
/// Other bytes.
pub fn read_seen(key: &[u8], value: &[u8]) -> Result<Seen, RowError> {
    let read = || {
        let (customer, rest) = split_str(key)?;
        let (meter, rest) = split_str(rest)?;
        let customer = CustomerId::parse(std::str::from_utf8(customer.get(2..)?).ok()?).ok()?;
        let meter = MeterName::parse(std::str::from_utf8(meter.get(2..)?).ok()?).ok()?;
        let (class, agent) = rest.split_first()?;
        let seen_as = match Class::from_number(*class)? {
            Class::Normal => SeenAs::Normal,
            Class::Unauthorised => {
                let agent = std::str::from_utf8(agent.get(2..)?).ok()?;
                SeenAs::Unauthorised(AgentName::parse_identity(agent).ok()?)
            }
            Class::Suppressed => SeenAs::Suppressed,
        };
        let mut fields = Fields(value);
        let (events, first, last) = (fields.u64()?, fields.bucket()?, fields.bucket()?);
        Some(Seen { customer, meter, seen_as, events, first, last })
    };
    read().ok_or_else(|| broken("seen", "its bytes do not hold together"))
}

/// A key of 16 bytes and a number that sorts after it.
#[must_use]
pub fn numbered_key(id: &[u8; 16], number: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(id);
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The key of an opening's end.
#[must_use]
pub fn opening_key(stream: StreamId, opening: OpeningId) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&stream.0);
    bytes[16..].copy_from_slice(&opening.0);
    bytes
}

/// The order of fields is the format: append only, and raise the version.
#[derive(Debug, Serialize, Deserialize)]
struct StreamRow {
    stream: StreamId,
    agent: String,
    state: u8,
    fence: Fence,
    posted_sequence: Sequence,
    posted_digest: Digest,
    posted_end: EventNumber,
    sealed_sequence: Sequence,
    accepted: u64,
    quarantined_batches: u64,
    quarantined_events: u64,
    quarantine_cap: Option<Option<Timestamp>>,
    evidence: Vec<(u16, u64)>,
    duplicates: u64,
    conflicts: u64,
    last_heard: Timestamp,
    confirmed: Option<(Timestamp, Sequence, u64)>,
    pending: Vec<(Timestamp, Sequence, u64)>,
    opening: Option<PostedOpening>,
    conflict_cap: Option<Option<Timestamp>>,
    missing: Option<(Sequence, Sequence, u64)>,
    begun: Timestamp,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<STREAM_ROW_BYTES_MAX>()
}

/// A stream's row. Of its openings it holds the newest.
///
/// # Errors
/// Never with a record that holds to its limits.
pub fn write_stream(record: &StreamRecord) -> Result<Vec<u8>, RowError> {
    let flat =
        |confirmed: &Confirmed| (confirmed.ledger_time, confirmed.sequence, confirmed.accepted);
    let row = StreamRow {
        stream: record.stream,
        agent: record.agent.as_str().to_owned(),
        state: match record.state {
            StreamState::Open => 0,
            StreamState::Closed => 1,
            StreamState::Conflict => 2,
        },
        fence: record.fence,
        posted_sequence: record.posted_sequence,
        posted_digest: record.posted_digest,
        posted_end: record.posted_end,
        sealed_sequence: record.sealed_sequence,
        accepted: record.accepted,
        quarantined_batches: record.quarantined_batches,
        quarantined_events: record.quarantined_events,
        quarantine_cap: record.quarantine_cap,
        evidence: record.evidence.iter().collect(),
        duplicates: record.duplicates,
        conflicts: record.conflicts,
        last_heard: record.last_heard,
        confirmed: record.confirmed.as_ref().map(flat),
        pending: record.pending.iter().map(flat).collect(),
        opening: record.openings.last().copied(),
        conflict_cap: record.conflict_cap,
        missing: record.missing.map(|missing| (missing.first, missing.last, missing.events)),
        begun: record.begun,
    };
    let mut bytes = vec![STREAM_ROW_VERSION];
    let row = bincode::serde::encode_to_vec(&row, config())
        .map_err(|error| broken("stream", error.to_string()))?;
    bytes.extend_from_slice(&row);
    Ok(bytes)
}

/// Reads what [`write_stream`] wrote.
///
/// # Errors
/// A newer version, or bytes that do not hold together.
pub fn read_stream(bytes: &[u8]) -> Result<StreamRecord, RowError> {
    let (version, bytes) = bytes.split_first().ok_or_else(|| broken("stream", "it is empty"))?;
    let bytes = match *version {
        STREAM_ROW_VERSION => Cow::Borrowed(bytes),
        // What the later ones append, as `None` and zero.
        3 => Cow::Owned([bytes, &[0]].concat()),
        2 => Cow::Owned([bytes, &[0, 0]].concat()),
        1 => Cow::Owned([bytes, &[0, 0, 0]].concat()),
        version => return Err(broken("stream", format!("its version {version} is unknown"))),
    };
    let (row, read): (StreamRow, usize) = bincode::serde::decode_from_slice(&bytes, config())
        .map_err(|error| broken("stream", error.to_string()))?;
    if read != bytes.len() {
        return Err(broken("stream", format!("{read} of its {} bytes are read", bytes.len())));
    }
    let full = |(ledger_time, sequence, accepted)| Confirmed { ledger_time, sequence, accepted };
    Ok(StreamRecord {
        stream: row.stream,
        agent: AgentName::parse_identity(&row.agent)
            .map_err(|error| broken("stream", format!("its agent {error}")))?,
        begun: row.begun,
        state: match row.state {
            0 => StreamState::Open,
            1 => StreamState::Closed,
            2 => StreamState::Conflict,
            state => return Err(broken("stream", format!("its state {state} is unknown"))),
        },
        fence: row.fence,
        posted_sequence: row.posted_sequence,
        posted_digest: row.posted_digest,
        posted_end: row.posted_end,
        sealed_sequence: row.sealed_sequence,
        accepted: row.accepted,
        quarantined_batches: row.quarantined_batches,
        quarantined_events: row.quarantined_events,
        quarantine_cap: row.quarantine_cap,
        conflict_cap: row.conflict_cap,
        evidence: row.evidence.into_iter().collect::<Evidence>(),
        duplicates: row.duplicates,
        conflicts: row.conflicts,
        last_heard: row.last_heard,
        confirmed: row.confirmed.map(full),
        pending: row.pending.into_iter().map(full).collect(),
        missing: row.missing.map(|(first, last, events)| Missing { first, last, events }),
        openings: row.opening.into_iter().collect(),
    })
}

/// Big-endian fields, front to back.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes; `None` if fewer are left.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn bucket(&mut self) -> Option<Bucket> {
        self.array().map(u32::from_be_bytes).map(Bucket)
    }

    fn quantity(&mut self) -> Option<Quantity> {
        self.array().map(i128::from_be_bytes).map(Quantity)
    }
}

#[cfg(test)]
mod tests;
