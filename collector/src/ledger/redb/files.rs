//! Opening the two files.
//!
//! **Owns** where they are and how they are made: private to the user, the folder synced.

use std::fs::{DirBuilder, File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError};

use super::{Fault, LEDGER_FILE, RESTORING_FOLDER, RedbOptions, TOTALS_FILE};
use crate::ledger::store::StoreError;

pub(super) fn open_ledger(folder: &Path, options: &RedbOptions) -> Result<Database, StoreError> {
    make_folder(folder).map_err(fault("make the folder of", LEDGER_FILE))?;
    let path = folder.join(LEDGER_FILE);
    if folder.join(RESTORING_FOLDER).is_dir() && !path.exists() {
        return Err(StoreError::HalfRestored);
    }
    make_file(&path).map_err(fault("make", LEDGER_FILE))?;
    let opened = unless_panic(LEDGER_FILE, || builder(options.ledger_cache_bytes).create(path))?;
    let database = opened.map_err(|error| match error {
        error if is_damage(&error) => {
            StoreError::Corrupt { file: LEDGER_FILE, reason: error.to_string() }
        }
        error => Fault::open(LEDGER_FILE)(error),
    })?;
    sync_folder(folder).map_err(fault("sync the folder of", LEDGER_FILE))?;
    Ok(database)
}

/// A damaged totals file is made anew: it is derived.
pub(super) fn open_totals(folder: &Path, options: &RedbOptions) -> Result<Database, StoreError> {
    make_folder(folder).map_err(fault("make the folder of", TOTALS_FILE))?;
    let path = folder.join(TOTALS_FILE);
    make_file(&path).map_err(fault("make", TOTALS_FILE))?;
    let opened = unless_panic(TOTALS_FILE, || builder(options.totals_cache_bytes).create(path));
    let damage = match opened {
        Ok(Ok(database)) => {
            sync_folder(folder).map_err(fault("sync the folder of", TOTALS_FILE))?;
            return Ok(database);
        }
        Ok(Err(error)) if is_damage(&error) => error.to_string(),
        Ok(Err(error)) => return Err(Fault::open(TOTALS_FILE)(error)),
        Err(panic) => panic.to_string(),
    };
    tracing::warn!(file = TOTALS_FILE, damage, "totals cannot be read and are rebuilt");
    remake_totals(folder, options)
}

/// Does what reads a file that may be damaged: redb trusts what it has written, and a page that was changed
/// since may end in a panic.
pub(super) fn unless_panic<T>(
    file: &'static str,
    read: impl FnOnce() -> T,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|_| StoreError::Corrupt {
        file,
        reason: "reading it ended in a panic, told above".to_owned(),
    })
}

/// Opens a file that must be there and that no collector runs on. It is written to only if its last user
/// did not end cleanly: then it is first brought in order, as a start would.
pub(super) fn open_stopped(
    folder: &Path,
    file: &'static str,
    cache_bytes: usize,
) -> Result<Database, StoreError> {
    builder(cache_bytes).open(folder.join(file)).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { file },
        error if is_damage(&error) => StoreError::Corrupt { file, reason: error.to_string() },
        error => Fault::open(file)(error),
    })
}

/// Damage, as against a lock, a full disk or a missing right.
fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::UpgradeRequired(_) | DatabaseError::Storage(StorageError::Corrupted(_)) => {
            true
        }
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

pub(super) fn remake_totals(folder: &Path, options: &RedbOptions) -> Result<Database, StoreError> {
    let path = folder.join(TOTALS_FILE);
    remove_file(&path).map_err(fault("remove", TOTALS_FILE))?;
    make_file(&path).map_err(fault("make", TOTALS_FILE))?;
    let database =
        builder(options.totals_cache_bytes).create(path).map_err(Fault::open(TOTALS_FILE))?;
    sync_folder(folder).map_err(fault("sync the folder of", TOTALS_FILE))?;
    Ok(database)
}

pub(super) fn open_on(
    file: &'static str,
    backend: impl StorageBackend,
    cache_bytes: usize,
) -> Result<Database, StoreError> {
    builder(cache_bytes).create_with_backend(backend).map_err(Fault::open(file))
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// An empty file for its owner only, where there is none.
fn make_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn fault(act: &'static str, file: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |error| StoreError::Storage { act, file, reason: error.to_string() }
}
