//! Usage events, parsed and valid, and the closed list of reasons why one is not taken.
//!
//! **Owns** what an event is once it is read, its idempotency key, and the judgement of its time.
//! **Does not own** any syntax ([`crate::parse`] does), or which dimensions are kept (the rules do).
//!
//! Limits: an id 128 bytes, a source 256, a unique value 512. Names and dimensions are limited in
//! `tidemark_common::id`.

pub(crate) mod age_clock;

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tidemark_common::code::EvidenceCode;
use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::quantity::{Quantity, QuantityError};
use tidemark_common::time::{Bucket, Timestamp};

/// An idempotency id is at most this many bytes.
pub const ID_BYTES_MAX: usize = 128;
/// A source's name is at most this many bytes: CloudEvents sources are URIs.
pub const SOURCE_BYTES_MAX: usize = 256;
/// A unique value is at most this many bytes.
pub const UNIQUE_BYTES_MAX: usize = 512;

/// One fact: what a customer used, of which meter, when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    pub meter: MeterName,
    pub customer: CustomerId,
    /// Ascending by name, names unique. Not yet projected by the rules.
    pub dimensions: Arc<[(String, String)]>,
    /// As sent; absent stands for the time of arrival.
    pub time: Option<Timestamp>,
    pub quantity: Option<Quantity>,
    pub unique: Option<String>,
    /// Which of the events of its meter that its message was expanded to, from 0; rejected ones count.
    pub number: u32,
}

/// What one line or one CloudEvent says: one key, and one event or more after expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: Option<IdDigest>,
    pub source: Option<SourceCount>,
    /// In the order sent, never empty. One bad value rejects itself, not its neighbours.
    pub events: Vec<Result<UsageEvent, RejectReason>>,
}

/// What a parser makes of one line or one CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    Message(Message),
    /// `name`, as sent, is one that `metered` excludes.
    NotMetered {
        name: String,
    },
    Rejected(RejectReason),
}

/// What the names in an event take where they lie, short as they mostly are.
const LABELS_BYTES: usize = 256;

impl Parsed {
    /// About the memory that this takes beyond the text that it was read from: a packed value of two bytes
    /// becomes an event of fifty times that.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Message(message) => {
                let event = size_of::<Result<UsageEvent, RejectReason>>();
                message.events.len().saturating_mul(event.saturating_add(LABELS_BYTES))
            }
            Self::NotMetered { .. } | Self::Rejected(_) => 0,
        }
    }
}

/// The idempotency key of a message, as the journal keeps it: 16 bytes of SHA-256 over (source or
/// empty, name as sent, id), each behind its length. It never holds the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdDigest(pub [u8; 16]);

impl IdDigest {
    /// `name` is the metric's or event type's name as sent, before any pattern or rule.
    #[must_use]
    pub fn of(source: &str, name: &str, id: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [source, name, id] {
            // A line or body is far below 4 GiB, and a length that does not fit still hashes safely.
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut digest = [0; 16];
        for (byte, hashed) in digest.iter_mut().zip(hash.finalize()) {
            *byte = hashed;
        }
        Self(digest)
    }
}

/// A producer's name and its own counter, from which the agent reports gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCount {
    pub source: String,
    pub count: u64,
}

/// The ways by which events come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    Udp,
    UnixDatagram,
    DsdStream,
    Events,
    Http,
}

impl Door {
    pub const ALL: [Self; 5] =
        [Self::Udp, Self::UnixDatagram, Self::DsdStream, Self::Events, Self::Http];

    /// The door's name, as metric label and in dead letters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::UnixDatagram => "unix_datagram",
            Self::DsdStream => "dsd_stream",
            Self::Events => "events",
            Self::Http => "http",
        }
    }
}

/// How far an event's time may lie from its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    pub ahead_millis_max: i64,
    pub age_millis_max: i64,
    /// The newest entry of the journal. An arrival before it shows a clock that was set back, and such
    /// a clock rejects nothing.
    pub newest: Timestamp,
}

impl Default for TimeLimits {
    /// 5 minutes ahead, 35 days old, an empty journal.
    fn default() -> Self {
        Self {
            ahead_millis_max: 5 * 60_000,
            age_millis_max: 35 * 86_400_000,
            newest: Timestamp(i64::MIN),
        }
    }
}

/// The instant that an event is billed at: its own time, or `arrival` without one. `arrival` is the
/// agent's clock corrected by its last measured offset.
///
/// # Errors
/// [`RejectReason::TooOld`] and [`RejectReason::InFuture`] beyond the limits;
/// [`RejectReason::BadTime`] for an instant that no bucket holds.
pub fn judge_time(
    time: Option<Timestamp>,
    arrival: Timestamp,
    limits: &TimeLimits,
) -> Result<Timestamp, RejectReason> {
    let judged = time.unwrap_or(arrival);
    if arrival >= limits.newest {
        if judged.millis_since(arrival) > limits.ahead_millis_max {
            return Err(RejectReason::InFuture);
        }
        if arrival.millis_since(judged) > limits.age_millis_max {
            return Err(RejectReason::TooOld);
        }
    }
    match Bucket::of(judged) {
        Some(_) => Ok(judged),
        None => Err(RejectReason::BadTime),
    }
}

/// Why an event is not taken. One reason for each rejection of [`EvidenceCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    Malformed,
    Truncated,
    Oversize,
    NotUtf8,
    BadMeter,
    NoCustomer,
    BadCustomer,
    BadTime,
    TooOld,
    InFuture,
    BadQuantity,
    NotFinite,
    TooPrecise,
    TooLarge,
    Negative,
    BadId,
    BadDimension,
    TooManyDimensions,
    Sampled,
    ServiceCheck,
    DogstatsdEvent,
    UnsupportedType,
    BadUnique,
    BadSource,
    BadCloudEvent,
    JournalFull,
    TooManyValues,
}

impl RejectReason {
    /// Every reason, in the order of its code.
    pub const ALL: [Self; 27] = [
        Self::Malformed,
        Self::Truncated,
        Self::Oversize,
        Self::NotUtf8,
        Self::BadMeter,
        Self::NoCustomer,
        Self::BadCustomer,
        Self::BadTime,
        Self::TooOld,
        Self::InFuture,
        Self::BadQuantity,
        Self::NotFinite,
        Self::TooPrecise,
        Self::TooLarge,
        Self::Negative,
        Self::BadId,
        Self::BadDimension,
        Self::TooManyDimensions,
        Self::Sampled,
        Self::ServiceCheck,
        Self::DogstatsdEvent,
        Self::UnsupportedType,
        Self::BadUnique,
        Self::BadSource,
        Self::BadCloudEvent,
        Self::JournalFull,
        Self::TooManyValues,
    ];

    /// The code under which this reason is counted.
    #[must_use]
    pub fn code(self) -> EvidenceCode {
        match self {
            Self::Malformed => EvidenceCode::RejectedMalformed,
            Self::Truncated => EvidenceCode::RejectedTruncated,
            Self::Oversize => EvidenceCode::RejectedOversize,
            Self::NotUtf8 => EvidenceCode::RejectedNotUtf8,
            Self::BadMeter => EvidenceCode::RejectedBadMeter,
            Self::NoCustomer => EvidenceCode::RejectedNoCustomer,
            Self::BadCustomer => EvidenceCode::RejectedBadCustomer,
            Self::BadTime => EvidenceCode::RejectedBadTime,
            Self::TooOld => EvidenceCode::RejectedTooOld,
            Self::InFuture => EvidenceCode::RejectedInFuture,
            Self::BadQuantity => EvidenceCode::RejectedBadQuantity,
            Self::NotFinite => EvidenceCode::RejectedNotFinite,
            Self::TooPrecise => EvidenceCode::RejectedTooPrecise,
            Self::TooLarge => EvidenceCode::RejectedTooLarge,
            Self::Negative => EvidenceCode::RejectedNegative,
            Self::BadId => EvidenceCode::RejectedBadId,
            Self::BadDimension => EvidenceCode::RejectedBadDimension,
            Self::TooManyDimensions => EvidenceCode::RejectedTooManyDimensions,
            Self::Sampled => EvidenceCode::RejectedSampled,
            Self::ServiceCheck => EvidenceCode::RejectedServiceCheck,
            Self::DogstatsdEvent => EvidenceCode::RejectedDogstatsdEvent,
            Self::UnsupportedType => EvidenceCode::RejectedUnsupportedType,
            Self::BadUnique => EvidenceCode::RejectedBadUnique,
            Self::BadSource => EvidenceCode::RejectedBadSource,
            Self::BadCloudEvent => EvidenceCode::RejectedBadCloudEvent,
            Self::JournalFull => EvidenceCode::RejectedJournalFull,
            Self::TooManyValues => EvidenceCode::RejectedTooManyValues,
        }
    }

    /// The reason that `code` counts; `None` for a code that counts something else.
    #[must_use]
    pub fn from_code(code: EvidenceCode) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The reason's name, as metric label and in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.code().name()
    }

    /// What an application's developer can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Malformed => {
                "Send `name:value|type|#tag:value`, or one JSON object with only the documented keys, each once."
            }
            Self::Truncated => {
                "End every line with a newline, and keep datagrams within the door's size limit."
            }
            Self::Oversize => {
                "Send smaller lines, datagrams or bodies: split a batch into several."
            }
            Self::NotUtf8 => "Encode names, tags and values as UTF-8.",
            Self::BadMeter => {
                "Name the meter with 1 to 64 of a-z, 0-9, '_', '.', '-', beginning with a letter, or map it by a rule."
            }
            Self::NoCustomer => {
                "Name the customer: a `customer:` tag, a `customer` key, a `subject`; or set customer_default."
            }
            Self::BadCustomer => "Send one customer of 1 to 128 bytes without control characters.",
            Self::BadTime => {
                "Send the time as RFC 3339 with an offset, or as Unix seconds since 1970."
            }
            Self::TooOld => {
                "Send events within the agent's age limit (35 days by default); bill older ones by correction."
            }
            Self::InFuture => {
                "Send Unix times in seconds, not milliseconds, and set the sender's clock."
            }
            Self::BadQuantity => {
                "Send the quantity as a plain decimal number; leave it out to count 1."
            }
            Self::NotFinite => {
                "Do not send NaN or infinities: leave the event out, or send a number."
            }
            Self::TooPrecise => {
                "Send at most 9 digits after the decimal point; round where you know the unit."
            }
            Self::TooLarge => {
                "Send at most 15 digits before the decimal point; choose a larger unit."
            }
            Self::Negative => {
                "Send amounts of zero or more, or allow negative quantities for this meter in the catalogue."
            }
            Self::BadId => "Send one id of 1 to 128 bytes, or none.",
            Self::BadDimension => {
                "Give each dimension one text: a name of 1 to 64 bytes, a value of at most 128, no control characters."
            }
            Self::TooManyDimensions => {
                "Send at most 16 dimensions; leave out those that nobody is billed by."
            }
            Self::Sampled => {
                "Turn sampling off for this metric (a rate of 1): a bill is never estimated."
            }
            Self::ServiceCheck => "Send service checks to a monitoring agent; they are not usage.",
            Self::DogstatsdEvent => {
                "Send DogStatsD events to a monitoring agent; they are not usage."
            }
            Self::UnsupportedType => "Use one of the types c, g, h, d, ms and s.",
            Self::BadUnique => "Send a unique value of 1 to 512 bytes.",
            Self::BadSource => {
                "Send one source of 1 to 256 bytes, and its counter as a whole number from 0 up."
            }
            Self::BadCloudEvent => {
                "Send a CloudEvents 1.0 object with specversion, id, source, type, and a JSON object (or nothing) as data."
            }
            Self::JournalFull => {
                "Send again later, or use a door that acknowledges; an operator must see why nothing ships."
            }
            Self::TooManyValues => "Pack at most 1,024 values into one line.",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<QuantityError> for RejectReason {
    fn from(error: QuantityError) -> Self {
        match error {
            QuantityError::NotANumber => Self::BadQuantity,
            QuantityError::NotFinite => Self::NotFinite,
            QuantityError::TooPrecise => Self::TooPrecise,
            QuantityError::TooLarge => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests;
