//! Dead letters that are taken once more: what the admin door hands to intake.
//!
//! **Owns** the shape. **Does not own** which letters are replayed or what they say (`admin/replay.rs`), or
//! what becomes of them (`core/replay.rs`).

use tidemark_common::time::Timestamp;

use crate::event::Message;

/// One dead letter, read again.
#[derive(Debug)]
pub struct Replay {
    /// It leaves the journal in the commit that holds its events.
    pub number: u64,
    /// When it came first: the time of events that name none.
    pub at: Timestamp,
    pub share: Share,
    pub message: Message,
}

/// What a letter is of the line or CloudEvent that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All of it: an id that is known says that it was counted.
    Whole,
    /// One value of a packed line: a known id may be known because of the line's other values.
    OneValue,
}
