//! Opening a journal's file: its folder, its lock, its format, its opening.
//!
//! **Owns** the path from a path to an open journal, and what to say when there is none. **Does not own**
//! what the rows say (`recover.rs`), or what follows a refusal: `main.rs` sets aside or stops.
//!
//! A new file is made under a name of its own and linked to its place once its first commit is synced, so
//! a file at that place is a whole journal: a crash while it is made leaves no half of one behind.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{
    Builder, CommitError, Database, DatabaseError, Durability, ReadableDatabase,
    SetDurabilityError, StorageBackend, StorageError, TableError, TableHandle, TransactionError,
    WriteTransaction,
};
use thiserror::Error;
use tidemark_common::id::{OpeningId, StreamId};
use tidemark_common::time::Timestamp;

use super::apply::Tables;
use super::backend::Measured;
use super::budget::{Budget, JOURNAL_BYTES_MIN};
use super::overlay::Overlay;
use super::reader::JournalReader;
use super::recover::recover;
use super::state::{FreshIds, JournalOptions, Recovered};
use super::tables::META;
use super::{CACHE_BYTES, Journal};

/// How often a held lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// Why there is no journal.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "failed to open the journal: another agent has held {} for {waited:?}; stop that one, or give this one \
         a journal of its own",
        path.display()
    )]
    Held { path: PathBuf, waited: Duration },
    #[error("failed to open the journal: {reason}; start the newer agent that wrote it")]
    Newer { reason: String },
    #[error(
        "failed to open the journal: its file has redb format {version}, which only an older agent reads"
    )]
    Older { version: u8 },
    #[error("failed to open the journal: the file is not one: {reason}; check the path")]
    NotAJournal { reason: String },
    #[error("failed to open the journal: it is damaged: {reason}")]
    Corrupt { reason: String },
    #[error(
        "failed to open the journal: stream {stream} in {} was cloned or rolled back, as its collector proved: \
         {reason}",
        path.display()
    )]
    Conflicted { path: PathBuf, stream: StreamId, reason: String },
    #[error("failed to open the journal: a budget of {bytes_max} bytes is below {bytes_min}")]
    Budget { bytes_max: u64, bytes_min: u64 },
    #[error("failed to {act} {}: {source}", path.display())]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("failed to open the journal: {reason}")]
    Storage { reason: String },
}

impl OpenError {
    pub(super) fn corrupt(reason: String) -> Self {
        Self::Corrupt { reason }
    }
}

impl Journal {
    /// Opens the journal at its path, or makes a new one, and writes the new opening into it.
    ///
    /// Blocks for up to `lock_wait` while another process holds the file.
    ///
    /// # Errors
    /// See [`OpenError`]. After `Corrupt` and `Conflicted` the file may be [`set_aside`]; its rows
    /// are as they were.
    pub fn open(
        options: JournalOptions,
        fresh: FreshIds,
        now: Timestamp,
        lock_wait: Duration,
    ) -> Result<(Self, Recovered), OpenError> {
        make_folder(&options.path)?;
        let mut waited = Duration::ZERO;
        loop {
            let opened = match Self::create(&options, fresh, now)? {
                Some(created) => Ok(created),
                None => open_file(&options.path)
                    .and_then(|backend| Self::open_on(backend, options.clone(), fresh, now)),
            };
            match opened {
                Err(OpenError::Held { path, .. }) if waited >= lock_wait => {
                    return Err(OpenError::Held { path, waited });
                }
                Err(OpenError::Held { path, .. }) => {
                    if waited.is_zero() {
                        tracing::warn!(
                            path = %path.display(), seconds_max = lock_wait.as_secs(),
                            "waiting for the journal's lock: another agent holds it"
                        );
                    }
                    waited = waited.saturating_add(pause());
                }
                Ok(_) | Err(_) => return opened,
            }
        }
    }

    /// Opens a journal that was left behind: none is made, and no lock is waited for.
    ///
    /// # Errors
    /// As [`Journal::open`]; `Io` where there is no file.
    pub fn open_left_behind(
        options: JournalOptions,
        fresh: FreshIds,
        now: Timestamp,
    ) -> Result<(Self, Recovered), OpenError> {
        let backend = open_there(&options.path, OpenOptions::new().read(true).write(true))?;
        Self::open_on(backend, options, fresh, now)
    }

    /// Whether a start would open the file at `path`, were it not in conflict. The file is not changed.
    ///
    /// # Errors
    /// As [`Journal::open_left_behind`], but for what is damaged.
    pub fn would_open(path: &Path) -> Result<bool, OpenError> {
        let file = open_there(path, OpenOptions::new().read(true))?;
        let measured = Overlay::new(file).map_err(|source| OpenError::Io {
            act: "measure",
            path: path.to_owned(),
            source,
        })?;
        let options = JournalOptions {
            path: path.to_owned(),
            bytes_max: u64::MAX / 4,
            retain_acked_millis: i64::MAX / 4,
            retain_acked_bytes_max: u64::MAX / 4,
            raw_events_bytes_max: u64::MAX / 4,
            ids_max: usize::MAX / 4,
            ids_window_millis: i64::MAX / 4,
            dead_letters_max: usize::MAX / 4,
            dead_letter_bytes_max: usize::MAX / 4,
        };
        let fresh = FreshIds { stream: StreamId([0; 16]), opening: OpeningId([0; 16]) };
        match Self::open_on(measured, options, fresh, Timestamp(0)) {
            Ok(_) | Err(OpenError::Conflicted { .. }) => Ok(true),
            Err(OpenError::Corrupt { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Opens a journal on any storage.
    ///
    /// # Errors
    /// As [`Journal::open`], without waiting for a lock.
    pub fn open_on(
        backend: impl StorageBackend,
        options: JournalOptions,
        fresh: FreshIds,
        now: Timestamp,
    ) -> Result<(Self, Recovered), OpenError> {
        if options.bytes_max < JOURNAL_BYTES_MIN {
            return Err(OpenError::Budget {
                bytes_max: options.bytes_max,
                bytes_min: JOURNAL_BYTES_MIN,
            });
        }
        let io_error =
            |source| OpenError::Io { act: "measure", path: options.path.clone(), source };
        let (backend, length) = Measured::new(backend).map_err(io_error)?;
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(|error| refusal(error, &options.path))?;

        let mut storage = database.begin_write()?;
        storage.set_durability(Durability::Immediate)?;
        check_kind(&storage)?;
        let mut tables = Tables::open(&storage)?;
        let (mut memory, mut recovered) = recover(&mut tables, &options, fresh, now)?;
        drop(tables);
        storage.commit()?;

        let budget = Budget::new(options.bytes_max);
        memory.state.file_bytes = length.load(Ordering::Relaxed);
        memory.state.full = budget.is_full(memory.state.live_bytes, memory.largest_batch, false);
        recovered.state = memory.state.clone();
        let journal =
            Self { database: Arc::new(database), options, budget, memory, length, failed: None };
        Ok((journal, recovered))
    }

    /// Makes a new journal; `None` if there is a file already.
    fn create(
        options: &JournalOptions,
        fresh: FreshIds,
        now: Timestamp,
    ) -> Result<Option<(Self, Recovered)>, OpenError> {
        let path = &options.path;
        if path.exists() {
            return Ok(None);
        }
        // The stream's id makes the name this process's own; or it is an import's, which is made anew after
        // one that was killed here.
        let making = with_suffix(path, &format!("new-{}", fresh.stream));
        remove_if_there(&making)?;
        let created = Self::open_on(open_file(&making)?, options.clone(), fresh, now)?;
        let placed = match fs::hard_link(&making, path) {
            // A file system without links: a rename would also replace, but there is nothing to replace.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
                fs::rename(&making, path).map(|()| Some(created))
            }
            Ok(()) => fs::remove_file(&making).map(|()| Some(created)),
            // Another process was faster: its file is the journal.
            Err(_) => fs::remove_file(&making).map(|()| None),
        };
        let placed =
            placed.map_err(|source| OpenError::Io { act: "make", path: path.clone(), source })?;
        sync_folder_of(path)?;
        Ok(placed)
    }
}

impl JournalReader {
    /// Opens the journal of an agent that is not running, to look into it, and checks every page. The file is
    /// not changed: what redb writes to repair it after a crash stays in memory.
    ///
    /// # Errors
    /// See [`OpenError`]; `Held` at once while an agent runs.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = open_there(path, OpenOptions::new().read(true))?;
        let measured = Overlay::new(file).map_err(|source| OpenError::Io {
            act: "open",
            path: path.to_owned(),
            source,
        })?;
        Self::of_storage(measured, path)
    }

    /// The same with the file itself in hand, for the one who will note in it what became of it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_to_note(path: &Path) -> Result<Self, OpenError> {
        Self::of_storage(open_there(path, OpenOptions::new().read(true).write(true))?, path)
    }

    fn of_storage(storage: impl StorageBackend, path: &Path) -> Result<Self, OpenError> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(storage)
            .map_err(|error| refusal(error, path))?;
        Self::of_journal(database)
    }

    fn of_journal(database: Database) -> Result<Self, OpenError> {
        let rows = database.begin_read()?;
        if !rows.list_tables()?.any(|table| table.name() == META.name()) {
            return Err(OpenError::NotAJournal {
                reason: "it has no table of a journal".to_owned(),
            });
        }
        Ok(Self::new(Arc::new(database)))
    }
}

/// Renames a journal that cannot be used: `journal.redb` becomes `journal.redb.SUFFIX`. A file that has that
/// name already is kept, and the new name gets a number.
///
/// # Errors
/// If the file cannot be renamed.
pub fn set_aside(path: &Path, suffix: &str) -> Result<PathBuf, OpenError> {
    let mut aside = with_suffix(path, suffix);
    let mut number = 2_u32;
    while aside.exists() {
        aside = with_suffix(path, &format!("{suffix}-{number}"));
        number = number.saturating_add(1);
    }
    fs::rename(path, &aside).map_err(|source| OpenError::Io {
        act: "set aside",
        path: path.to_owned(),
        source,
    })?;
    sync_folder_of(path)?;
    Ok(aside)
}

/// The file, for its owner only: it holds customers' names and the ledger's key for unique values.
pub(super) fn open_file(path: &Path) -> Result<FileBackend, OpenError> {
    let io_error = |source| OpenError::Io { act: "open", path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io_error)?;
    FileBackend::new(file).map_err(|error| refusal(error, path))
}

/// A file that is there, with its lock.
fn open_there(path: &Path, how: &OpenOptions) -> Result<FileBackend, OpenError> {
    let io_error = |source| OpenError::Io { act: "open", path: path.to_owned(), source };
    let file = how.open(path).map_err(io_error)?;
    if file.metadata().map_err(io_error)?.len() == 0 {
        // redb would make a database of it.
        return Err(OpenError::NotAJournal { reason: "it is empty".to_owned() });
    }
    FileBackend::new(file).map_err(|error| refusal(error, path))
}

/// Makes the folder of the file at `path`, and syncs each folder that got a new entry.
pub(crate) fn make_folder(path: &Path) -> Result<(), OpenError> {
    let folder = folder_of(path);
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(folder).map_err(|source| OpenError::Io {
        act: "make the folder",
        path: folder.to_owned(),
        source,
    })?;
    missing.into_iter().try_for_each(|made| sync_folder(folder_of(made)))
}

fn sync_folder(folder: &Path) -> Result<(), OpenError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| OpenError::Io {
        act: "sync the folder",
        path: folder.to_owned(),
        source,
    })
}

/// Makes the entry of `path` in its folder durable.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), OpenError> {
    sync_folder(folder_of(path))
}

/// Removes what a process that was killed may have left.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(OpenError::Io { act: "remove", path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What tells the file at `path` from all others; `None` if there is none.
pub(super) fn file_number(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// The folder that the file at `path` is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a file lock held elsewhere tells nobody when it is released"
)]
fn pause() -> Duration {
    std::thread::sleep(LOCK_RETRY);
    LOCK_RETRY
}

/// Refuses a redb file that was made for something else, before a table is added to it.
fn check_kind(storage: &WriteTransaction) -> Result<(), OpenError> {
    let names: Vec<String> = storage.list_tables()?.map(|table| table.name().to_owned()).collect();
    if names.is_empty() || names.iter().any(|name| name == META.name()) {
        return Ok(());
    }
    Err(OpenError::NotAJournal {
        reason: format!("it is a database of the tables {}", names.join(", ")),
    })
}

/// What redb's refusal means.
fn refusal(error: DatabaseError, path: &Path) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::Held { path: path.to_owned(), waited: Duration::ZERO }
        }
        DatabaseError::UpgradeRequired(version) => OpenError::Older { version },
        // redb has no variant for a file format above its own.
        DatabaseError::Storage(StorageError::Corrupted(reason))
            if reason.contains("file format version") =>
        {
            OpenError::Newer { reason }
        }
        DatabaseError::Storage(StorageError::Corrupted(reason)) => OpenError::Corrupt { reason },
        // Not a redb file, or a truncated one: so it was when it was opened, whatever it was before.
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            OpenError::Corrupt { reason: error.to_string() }
        }
        DatabaseError::Storage(StorageError::Io(source)) => {
            OpenError::Io { act: "open", path: path.to_owned(), source }
        }
        other => OpenError::Storage { reason: other.to_string() },
    }
}

impl From<redb::Error> for OpenError {
    fn from(error: redb::Error) -> Self {
        let reason = error.to_string();
        match error {
            redb::Error::Corrupted(_) => Self::Corrupt { reason },
            redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => Self::NotAJournal { reason },
            _ => Self::Storage { reason },
        }
    }
}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<TableError> for OpenError {
    fn from(error: TableError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<TransactionError> for OpenError {
    fn from(error: TransactionError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<SetDurabilityError> for OpenError {
    fn from(error: SetDurabilityError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<CommitError> for OpenError {
    fn from(error: CommitError) -> Self {
        redb::Error::from(error).into()
    }
}
