//! The archive of a ledger that is open: begun with it, and ended before it.
//!
//! **Owns** that a ledger which has an archive books nothing without it. **Does not own** what is written (`writer.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ArchiveError;
use super::bodies::ArchivedBodies;
use super::events::{EventsIndex, RawEvents};
use super::manifest::manifest_name;
use super::store::ArchiveStore;
use super::writer::{ArchiveWriter, WriterOptions};
use crate::ledger::archived::{ArchiveState, ArchiveStep, LeftBodies};
use crate::ledger::redb::{LEDGER_FILE, RedbStore};
use crate::ledger::store::StoredBodies;
use crate::ledger::{Ledger, LedgerError, LedgerOptions};

/// Where the archive is, and how it is written.
#[derive(Debug, Clone)]
pub struct Place {
    /// `None`: there is none.
    pub store: Option<Arc<dyn ArchiveStore>>,
    pub options: WriterOptions,
    /// The folder of the index of raw events, where they are archived or looked up.
    pub index_in: Option<PathBuf>,
}

/// The task that writes it.
#[derive(Debug)]
pub struct Archiving {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    events: Option<RawEvents>,
}

impl Place {
    /// The bodies that have left the ledger.
    #[must_use]
    pub fn bodies(&self) -> Option<Arc<dyn StoredBodies>> {
        let store = Arc::clone(self.store.as_ref()?);
        Some(Arc::new(ArchivedBodies::new(store)))
    }

    /// Where the archive is, if it holds a ledger and the folder none: a new one would stand in the way of that.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn holding_the_lost_one(&self, data_dir: &Path) -> Result<Option<String>, ArchiveError> {
        match &self.store {
            Some(store) if !data_dir.join(LEDGER_FILE).exists() => {
                Ok(store.get(&manifest_name(1))?.map(|_| store.place()))
            }
            Some(_) | None => Ok(None),
        }
    }
}

impl Archiving {
    /// Compares the archive with the ledger, and begins to write it. `None`: there is none.
    pub async fn begin(place: Place, ledger: &Ledger, store: &RedbStore) -> Option<Self> {
        let Place { store: archive, options, index_in } = place;
        let Some(archive) = archive else {
            forbid_without(ledger, store).await;
            return None;
        };
        let events = index_in.and_then(|folder| open_events(&folder, &archive));
        let writer = ArchiveWriter::begin(ledger.clone(), store.clone(), archive, options).await;
        let writer = match &events {
            Some(events) => writer.with_events(events),
            None => writer,
        };
        let (stop, stopping) = watch::channel(false);
        Some(Self { stop, task: tokio::spawn(writer.run(stopping)), events })
    }

    /// The raw events in it, where they are archived.
    #[must_use]
    pub fn raw_events(&self) -> Option<&RawEvents> {
        self.events.as_ref()
    }

    /// Writes what is left, for at most `grace`. The ledger must still be open.
    pub async fn end(self, grace: Duration) {
        self.stop.send_replace(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(grace, self.task).await.is_err() {
            tracing::warn!(
                "the archive was not written to its end within the grace; the next start goes on"
            );
            abort.abort();
        }
    }
}

/// No index, no raw events; the ledger and its archive go on.
fn open_events(folder: &Path, archive: &Arc<dyn ArchiveStore>) -> Option<RawEvents> {
    match EventsIndex::open(folder) {
        Ok(index) => Some(RawEvents::new(index, Arc::clone(archive))),
        Err(error) => {
            tracing::error!(%error, "no raw events are archived or looked up");
            None
        }
    }
}

/// States that a stopped collector's ledger has no archive any more.
///
/// # Errors
/// A ledger that cannot be opened, or that a collector runs on.
pub fn forget(data_dir: &Path) -> Result<(), ForgetError> {
    if !data_dir.join(LEDGER_FILE).exists() {
        return Err(ForgetError::NoLedger { path: data_dir.to_owned() });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (ledger, store) = Ledger::open_embedded(data_dir, LedgerOptions::default()).await?;
        let forgotten = match store.left_bodies() {
            Ok((LeftBodies { position: 0, .. }, _)) => {
                ledger.archive_step(ArchiveStep::Forget).await.map_err(ForgetError::from)
            }
            Ok(_) => Err(ForgetError::BodiesLeft),
            Err(error) => Err(LedgerError::from(error).into()),
        };
        ledger.shutdown().await?;
        forgotten
    })
}

/// Failed to forget an archive.
#[derive(Debug, Error)]
pub enum ForgetError {
    #[error("failed to forget the archive: there is no {LEDGER_FILE} in {}; name the collector's data_dir", path.display())]
    NoLedger { path: PathBuf },
    #[error("failed to forget the archive: {0}")]
    Io(#[from] io::Error),
    #[error(
        "failed to forget the archive: bodies of batches have left the ledger for it, and it alone has them"
    )]
    BodiesLeft,
    #[error("failed to forget the archive: {0}; stop the collector first")]
    Ledger(#[from] LedgerError),
}

/// A ledger that has an archive, whose configuration names none: what it books would be missing there.
async fn forbid_without(ledger: &Ledger, store: &RedbStore) {
    let reading = store.clone();
    let facts = tokio::task::spawn_blocking(move || reading.archive_facts()).await;
    if facts.is_ok_and(|facts| facts.is_ok_and(|facts| facts.note.is_none())) {
        return;
    }
    let why = "this ledger has an archive, and the configuration names none: name it as `archive.folder`, or give it up with `tidemark-collector archive forget`".to_owned();
    tracing::error!(why, "nothing is booked");
    ledger.tell_archive(ArchiveState::Unknown { why });
}
