//! The archive: what the ledger admitted and booked, on a second path, as a chain of objects that describe themselves.
//!
//! ```text
//! manifests/000000000001.json        one for each object, each with the SHA-256 of the manifest before: a chain
//! ledger/000000000001-HASH.json      whose ledger it is, and its key of unique values
//! batches/000000000002-HASH.seg      admitted batches, in the order of admission (archive/segment.rs)
//! books/000000000003-HASH.seg.zst    what each transaction put into the books
//! streams/000000000004-HASH.seg.zst  what is known of streams
//! events/000000000005-HASH.seg       raw events of batches, of agents that send them (archive/events.rs)
//! documents/NUMBER.json              issued documents, for people to read
//! certificates/NUMBER.json           certificates, as well
//! ```
//! **Owns** these names, formats, and the task that writes them. **Does not own** what the ledger notes for it
//! (`ledger/redb/archive.rs`), or what may be booked while it is not written (`ledger/archived.rs`). The formats are drawn
//! in `deploy/docs/archive.md`.
//!
//! Invariants: an object is never replaced. A manifest is written after its object, and the ledger moves on after the
//! manifest: a crash anywhere in between ends in the same chain. A manifest that is there and that this ledger has not
//! meant to write is another ledger's, or of what this one has lost: nothing is booked then.
//!
//! Limits: an object is gathered in memory, up to `archive.segment_size` and one batch.

pub mod bodies;
#[cfg(feature = "cloud-archive")]
pub mod cloud;
mod documents;
pub mod events;
pub mod manifest;
pub mod read;
pub mod restore;
mod retention;
pub mod segment;
pub mod store;
pub mod task;
pub mod verify;
pub mod writer;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::segment::SegmentError;

/// An archive that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArchiveError {
    #[error("failed to {act} {name} of the archive: {reason}")]
    Store { act: &'static str, name: String, reason: String },
    #[error("{name} of the archive is missing; look for it in a copy of the archive")]
    Missing { name: String },
    #[error("{name} of the archive is damaged: {reason}; look for it in a copy of the archive")]
    Damaged { name: String, reason: String },
    #[error(
        "{name} of the archive is there, and is another one: another ledger writes to it, or this one was restored and lacks what was archived since; run `tidemark-collector restore-from-archive`"
    )]
    Other { name: String },
    #[error(
        "{name} of the archive is of format {found}, and this version reads {known}; use a newer collector"
    )]
    Newer { name: String, found: u16, known: u16 },
}

/// Whose archive it is: its first object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub ledger: String,
    /// The format of the ledger's rows.
    pub ledger_format: u16,
    /// The key of unique values, 64 hexadecimal digits.
    pub unique_key: String,
}

impl ArchiveError {
    fn damaged(name: &str, reason: impl Into<String>) -> Self {
        Self::Damaged { name: name.to_owned(), reason: reason.into() }
    }

    fn segment(name: &str, error: &SegmentError) -> Self {
        Self::damaged(name, error.to_string())
    }
}
