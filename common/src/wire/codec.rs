//! The codec of [`Frame`]s: the one place where control frames meet bincode.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{
    BATCH_FRAME_BYTES_MAX, CONTROL_BYTES_MAX, Events, Extra, Frame, OPENINGS_MAX, Rules,
    deduplicated,
};

const LENGTH_BYTES: usize = 4;
const TYPE_BYTES: usize = 2;
/// The type of a batch, the one frame that may be larger than a control frame.
const BATCH: u16 = 3;
/// The other type that is laid out by hand.
const EVENTS: u16 = 9;
/// An empty buffer keeps at most this much memory.
const IDLE_BYTES_MAX: usize = 64 << 10;

/// A frame that cannot be read. The session ends with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("failed to read a frame: its length {bytes} is not between 2 and {bytes_max}")]
    Length { bytes: usize, bytes_max: usize },
    #[error("failed to read a frame: type {number} is unknown")]
    UnknownType { number: u16 },
    #[error("failed to read a {frame} frame: {reason}")]
    Payload { frame: &'static str, reason: String },
    #[error("failed to read a {frame} frame: extension {tag} is unknown and must be understood")]
    UnknownExtra { frame: &'static str, tag: u16 },
    #[error("failed to encode a frame: {reason}")]
    Encode { reason: String },
}

impl Frame {
    /// The frame's bytes, length first.
    ///
    /// # Errors
    /// Only if the frame breaks a limit of its own format.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        self.check_limits()?;
        match self {
            Self::Hello(frame) => control(1, frame),
            Self::Welcome(frame) => {
                control(2, deduplicated::to_extras(frame)?.as_ref().unwrap_or(frame))
            }
            Self::Batch(bytes) => envelope(BATCH, bytes, BATCH_FRAME_BYTES_MAX),
            Self::Ack(frame) => control(4, frame),
            Self::Refuse(frame) => control(5, frame),
            Self::Confirm(frame) => control(6, frame),
            Self::Close(frame) => control(7, frame),
            Self::Throttle(frame) => control(8, frame),
            Self::Events(events) => envelope(EVENTS, &events.encode(), CONTROL_BYTES_MAX),
        }
    }

    /// Reads a control frame. A batch is not read: its payload is the frame.
    fn decode_control(number: u16, payload: &[u8]) -> Result<Self, FrameError> {
        let frame = match number {
            1 => Self::Hello(read("Hello", payload)?),
            2 => {
                let mut welcome = read("Welcome", payload)?;
                deduplicated::from_extras(&mut welcome)?;
                Self::Welcome(welcome)
            }
            4 => Self::Ack(read("Ack", payload)?),
            5 => Self::Refuse(read("Refuse", payload)?),
            6 => Self::Confirm(read("Confirm", payload)?),
            7 => Self::Close(read("Close", payload)?),
            8 => Self::Throttle(read("Throttle", payload)?),
            EVENTS => Self::Events(Events::decode(payload).map_err(|reason| {
                FrameError::Payload { frame: "Events", reason: reason.to_owned() }
            })?),
            number => return Err(FrameError::UnknownType { number }),
        };
        frame.check_limits()?;
        frame.check_extras()?;
        Ok(frame)
    }

    /// Limits that a frame's types do not show, checked at both ends.
    fn check_limits(&self) -> Result<(), FrameError> {
        match self {
            Self::Hello(frame) if frame.openings.len() > OPENINGS_MAX => {
                let reason =
                    format!("it names {} openings; at most {OPENINGS_MAX}", frame.openings.len());
                Err(FrameError::Payload { frame: "Hello", reason })
            }
            Self::Hello(_)
            | Self::Welcome(_)
            | Self::Batch(_)
            | Self::Ack(_)
            | Self::Refuse(_)
            | Self::Confirm(_)
            | Self::Close(_)
            | Self::Throttle(_)
            | Self::Events(_) => Ok(()),
        }
    }

    fn check_extras(&self) -> Result<(), FrameError> {
        let (name, extras): (&'static str, &[Extra]) = match self {
            Self::Hello(frame) => ("Hello", &frame.extras),
            Self::Welcome(frame) => {
                let problem = match &frame.rules {
                    Some(rules) => rules.check().err(),
                    None => None,
                };
                let keyless = (frame.unique_key.id == 0).then_some("a unique key without an id");
                if let Some(problem) = problem.or(keyless) {
                    let reason = format!("it holds {problem}");
                    return Err(FrameError::Payload { frame: "Welcome", reason });
                }
                ("Welcome", &frame.extras)
            }
            Self::Batch(_) | Self::Events(_) => return Ok(()),
            Self::Ack(frame) => ("Ack", &frame.extras),
            Self::Refuse(frame) => ("Refuse", &frame.extras),
            Self::Confirm(frame) => ("Confirm", &frame.extras),
            Self::Close(frame) => ("Close", &frame.extras),
            Self::Throttle(frame) => ("Throttle", &frame.extras),
        };
        match extras.iter().find(|extra| extra.tag % 2 == 1) {
            Some(extra) => Err(FrameError::UnknownExtra { frame: name, tag: extra.tag }),
            None => Ok(()),
        }
    }
}

/// Collects the bytes of a stream and yields its frames.
///
/// Holds at most one incomplete frame beyond what was pushed last: [`Self::unfinished`] tells how long
/// that one will be, so that room for it can be had before its bytes are read.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    read: usize,
}

impl FrameBuffer {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.read = 0;
            // One large batch must not cost an idle session its memory for ever.
            if self.bytes.is_empty() {
                self.bytes.shrink_to(IDLE_BYTES_MAX);
            }
        }
        self.make_room(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// The length with its prefix of the frame that is not here whole yet, as far as that is known.
    #[must_use]
    pub fn unfinished(&self) -> Option<usize> {
        let rest = &self.bytes[self.read..];
        let head = rest.first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        let whole = length.saturating_add(LENGTH_BYTES);
        (whole > rest.len()).then_some(whole)
    }

    /// Grows by doubling, but not beyond the frame that is awaited: its batch takes this memory over.
    fn make_room(&mut self, more: usize) {
        let wanted = self.bytes.len().saturating_add(more);
        if wanted <= self.bytes.capacity() {
            return;
        }
        let doubled = self.bytes.capacity().saturating_mul(2);
        let target = self.unfinished().map_or(doubled, |whole| doubled.min(whole)).max(wanted);
        self.bytes.reserve_exact(target.saturating_sub(self.bytes.len()));
    }

    /// The next whole frame; `None` until more bytes come.
    ///
    /// # Errors
    /// A length out of bounds, an unknown type, or a payload that does not hold together. The stream
    /// cannot be read further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.bytes[self.read..];
        let Some((head, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        let widest = BATCH_FRAME_BYTES_MAX.saturating_add(TYPE_BYTES);
        if !(TYPE_BYTES..=widest).contains(&length) {
            return Err(FrameError::Length { bytes: length, bytes_max: widest });
        }
        let Some((number, _)) = rest.split_first_chunk::<TYPE_BYTES>() else {
            return Ok(None);
        };
        let number = u16::from_be_bytes(*number);
        // A control frame is refused by its length before its bytes are waited for.
        let control_max = CONTROL_BYTES_MAX.saturating_add(TYPE_BYTES);
        if number != BATCH && length > control_max {
            return Err(FrameError::Length { bytes: length, bytes_max: control_max });
        }
        let Some(payload) = rest.get(TYPE_BYTES..length) else {
            return Ok(None);
        };
        let end = self.read.saturating_add(LENGTH_BYTES).saturating_add(length);
        if number == BATCH {
            return Ok(Some(Frame::Batch(self.take(end, payload.len()))));
        }
        let frame = Frame::decode_control(number, payload)?;
        self.read = end;
        Ok(Some(frame))
    }

    /// Takes the `length` bytes before `end`. Where less follows than that, their memory goes with them
    /// and what follows is copied: so a batch of many megabytes is never in memory twice.
    fn take(&mut self, end: usize, length: usize) -> Vec<u8> {
        let start = end.saturating_sub(length);
        if self.bytes.len().saturating_sub(end) >= length {
            self.read = end;
            return self.bytes[start..end].to_vec();
        }
        let rest = self.bytes.split_off(end);
        let mut taken = std::mem::replace(&mut self.bytes, rest);
        self.read = 0;
        taken.drain(..start);
        taken
    }
}

/// The rules' bytes, for the agent's cache.
///
/// # Errors
/// Only if the rules are larger than a control frame may be.
pub fn encode_rules(rules: &Rules) -> Result<Vec<u8>, FrameError> {
    let mut bytes = write(rules)?;
    if !rules.deduplicated.is_empty() {
        bytes.extend(write(&rules.deduplicated)?);
    }
    Ok(bytes)
}

/// Reads what [`encode_rules`] wrote.
///
/// # Errors
/// Bytes that are no rules of this version.
pub fn decode_rules(bytes: &[u8]) -> Result<Rules, FrameError> {
    let (mut rules, rest): (Rules, _) = read_first("Rules", bytes)?;
    if !rest.is_empty() {
        rules.deduplicated = read("Rules", rest)?;
        if rules.deduplicated.is_empty() {
            let reason = "an empty list stands behind them".to_owned();
            return Err(FrameError::Payload { frame: "Rules", reason });
        }
    }
    Ok(rules)
}

fn control<T: Serialize>(number: u16, frame: &T) -> Result<Vec<u8>, FrameError> {
    envelope(number, &write(frame)?, CONTROL_BYTES_MAX)
}

fn envelope(number: u16, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, FrameError> {
    if payload.len() > bytes_max {
        return Err(FrameError::Length { bytes: payload.len(), bytes_max });
    }
    let length = payload.len().saturating_add(TYPE_BYTES);
    let prefix =
        u32::try_from(length).map_err(|_| FrameError::Length { bytes: length, bytes_max })?;
    let mut bytes = Vec::with_capacity(length.saturating_add(LENGTH_BYTES));
    bytes.extend_from_slice(&prefix.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

type ControlConfig = Configuration<LittleEndian, Varint, Limit<CONTROL_BYTES_MAX>>;

fn config() -> ControlConfig {
    bincode::config::standard().with_limit::<CONTROL_BYTES_MAX>()
}

pub(super) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    bincode::serde::encode_to_vec(value, config())
        .map_err(|error| FrameError::Encode { reason: error.to_string() })
}

pub(super) fn read<T: DeserializeOwned>(
    frame: &'static str,
    payload: &[u8],
) -> Result<T, FrameError> {
    match read_first(frame, payload)? {
        (value, []) => Ok(value),
        (_, rest) => {
            let (all, consumed) = (payload.len(), payload.len().saturating_sub(rest.len()));
            let reason = format!("{consumed} of its {all} bytes are read");
            Err(FrameError::Payload { frame, reason })
        }
    }
}

/// Reads a value and returns what stands behind it.
fn read_first<'a, T: DeserializeOwned>(
    frame: &'static str,
    payload: &'a [u8],
) -> Result<(T, &'a [u8]), FrameError> {
    let (value, consumed) = bincode::serde::decode_from_slice(payload, config())
        .map_err(|error| FrameError::Payload { frame, reason: error.to_string() })?;
    Ok((value, payload.get(consumed..).unwrap_or_default()))
}
