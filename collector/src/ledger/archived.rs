//! What the ledger knows of its archive: how far it is written, and what may be booked meanwhile.
//!
//! **Owns** the note of it in the ledger's file, the steps that move it, and that nothing is booked by a ledger which may
//! lack what its archive holds. **Does not own** the archive itself (`archive.rs`), or the rows (`ledger/redb/archive.rs`).
//!
//! Invariants: the note moves once a manifest is durable, in the transaction that forgets what it tells of. A ledger that
//! was restored of a backup finds, in its archive, manifests that its note does not know: then it is *behind*, and books
//! nothing, as the numbers of its next documents and entries were given already.

use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};
use tidemark_common::id::StreamId;
use tidemark_common::time::Timestamp;
use tokio::sync::{Notify, watch};

use super::books::Refused;
use super::request::{Reply, Request};
use super::{Ledger, LedgerError};
use crate::archive::manifest::{Kind, Manifest, NO_DIGEST, digest};

/// How far the archive is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveNote {
    /// Manifests so far.
    pub objects: u64,
    /// The digest of the last one.
    pub digest: String,
    /// Batches before this position are archived.
    pub position: u64,
    /// Transactions of the books before this number are.
    pub books: u64,
    /// Entries of the books that are.
    pub entries: u64,
    /// Streams are archived as they were at this ledger time.
    pub streams_at: Timestamp,
}

impl Default for ArchiveNote {
    fn default() -> Self {
        Self {
            objects: 0,
            digest: NO_DIGEST.to_owned(),
            position: 0,
            books: 1,
            entries: 0,
            streams_at: Timestamp(i64::MIN),
        }
    }
}

impl ArchiveNote {
    /// The note once the object of `manifest`, as `encoded`, is written.
    #[must_use]
    pub fn after(&self, manifest: &Manifest, encoded: &[u8]) -> Self {
        let mut note = Self {
            objects: manifest.number,
            digest: digest(encoded),
            entries: manifest.entries,
            ..self.clone()
        };
        match manifest.kind {
            Kind::Ledger | Kind::Events => {}
            Kind::Batches => note.position = manifest.last.saturating_add(1),
            Kind::Books => note.books = manifest.last.saturating_add(1),
            Kind::Streams => {
                note.streams_at = Timestamp(i64::try_from(manifest.last).unwrap_or(i64::MAX));
            }
        }
        note
    }
}

/// Which bodies have left the ledger: the archive holds them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBodies {
    /// Those before this position, but quarantined ones.
    pub position: u64,
    /// The archive's objects up to this one need not be looked at again.
    pub objects: u64,
}

/// A step of archiving, done by the ledger's writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveStep {
    /// From now on, what is booked is noted for the archive, beginning with all that was booked before.
    Begin,
    /// This manifest is about to be written.
    Mean { manifest: Vec<u8> },
    /// It is.
    Wrote { note: ArchiveNote },
    /// Bodies before this position leave the ledger: the archive was seen to hold them.
    Leave { left: LeftBodies },
    /// There is no archive any more: nothing is noted, and nothing is known of it.
    Forget,
}

/// What stands in the archive's way, and what may be booked meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveState {
    /// There is none.
    Off,
    /// It was not compared yet, or cannot be: nothing is booked.
    Unknown { why: String },
    /// It holds what this ledger lacks: nothing is booked.
    Behind { why: String },
    /// It holds a part of what this ledger does, and nothing else.
    Current {
        entries: u64,
        /// Why it lags.
        trouble: Option<String>,
    },
}

impl ArchiveState {
    /// The names of all states but `off`.
    pub const NAMES: [&'static str; 4] = ["unknown", "behind", "current", "lagging"];

    /// Why nothing may be booked.
    #[must_use]
    pub fn refuses(&self) -> Option<&str> {
        match self {
            Self::Off | Self::Current { .. } => None,
            Self::Unknown { why } | Self::Behind { why } => Some(why),
        }
    }

    /// Whether the archive holds so many entries, or there is none.
    #[must_use]
    pub fn holds(&self, entries: u64) -> bool {
        match self {
            Self::Off => true,
            Self::Unknown { .. } | Self::Behind { .. } => false,
            Self::Current { entries: held, .. } => *held >= entries,
        }
    }

    /// Why it is not written.
    #[must_use]
    pub fn stands_in_the_way(&self) -> Option<&str> {
        match self {
            Self::Off => None,
            Self::Current { trouble, .. } => trouble.as_deref(),
            Self::Unknown { why } | Self::Behind { why } => Some(why),
        }
    }

    /// The state's name, as a metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Unknown { .. } => "unknown",
            Self::Behind { .. } => "behind",
            Self::Current { trouble: None, .. } => "current",
            Self::Current { trouble: Some(_), .. } => "lagging",
        }
    }
}

/// The archive as the ledger's users see it.
#[derive(Debug)]
pub(super) struct ArchiveDoor {
    state: watch::Sender<ArchiveState>,
    wanted: Notify,
    /// The ledger time at which it held all that there was; 0 before that was so.
    whole_at: AtomicI64,
}

impl Default for ArchiveDoor {
    fn default() -> Self {
        let state = watch::Sender::new(ArchiveState::Off);
        Self { state, wanted: Notify::new(), whole_at: AtomicI64::new(0) }
    }
}

impl Ledger {
    /// What stands in the archive's way.
    #[must_use]
    pub fn archive_state(&self) -> ArchiveState {
        self.shared.archive.state.borrow().clone()
    }

    /// Says how the archive is now.
    pub fn tell_archive(&self, state: ArchiveState) {
        self.shared.archive.state.send_replace(state);
    }

    /// Says that the archive holds all that there was at `at`.
    pub fn tell_archived_at(&self, at: Timestamp) {
        self.shared.archive.whole_at.store(at.0, Ordering::Relaxed);
    }

    /// The ledger time at which the archive held all that there was; `None` before this process saw that.
    #[must_use]
    pub fn archived_at(&self) -> Option<Timestamp> {
        let at = self.shared.archive.whole_at.load(Ordering::Relaxed);
        (at != 0).then_some(Timestamp(at))
    }

    /// Waits until somebody waits for the archive.
    pub async fn archive_wanted(&self) {
        self.shared.archive.wanted.notified().await;
    }

    /// Asks for the archive to be written, and waits until it holds so many entries. Without an archive it waits for
    /// nothing.
    ///
    /// # Errors
    /// Why it does not, once that is known.
    pub async fn archived(&self, entries: u64) -> Result<(), String> {
        let mut state = self.shared.archive.state.subscribe();
        while !state.borrow_and_update().holds(entries) {
            self.shared.archive.wanted.notify_one();
            if state.changed().await.is_err() {
                return Err("the ledger is stopping".to_owned());
            }
            let now = state.borrow();
            if let Some(why) = now.stands_in_the_way().filter(|_| !now.holds(entries)) {
                return Err(why.to_owned());
            }
        }
        Ok(())
    }

    /// Why a request is not taken: books that may be older than the archive's would give numbers twice.
    pub(super) fn refuses(&self, request: &Request) -> Option<Refused> {
        if !matches!(request, Request::Book(_)) {
            return None;
        }
        let state = self.shared.archive.state.borrow();
        state.refuses().map(|why| Refused::Archive { why: why.to_owned() })
    }

    /// Has the writer do a step of archiving.
    ///
    /// # Errors
    /// If the ledger has stopped.
    pub async fn archive_step(&self, step: ArchiveStep) -> Result<(), LedgerError> {
        let reply = self.submit(Request::Archive(Box::new(step))).await?;
        match reply.await {
            Ok(Reply::Archived) => Ok(()),
            Ok(_) | Err(_) => Err(self.shared.ended()),
        }
    }
}

/// What is not archived yet, as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unarchived {
    /// Batches before this position are in the ledger.
    pub position: u64,
    /// Transactions of the books before this number are.
    pub books: u64,
}

/// Rows of streams that changed since they were archived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangedStreams {
    pub rows: Vec<(StreamId, Vec<u8>)>,
}
