//! A backup: every row of the ledger as of one moment, in a folder that describes itself.
//!
//! ```text
//! DIR/manifest.json   what it is, with the digests of the others (backup/manifest.rs); written last
//!     ledger.rows     every row (backup/rows.rs)
//!     streams.jsonl   how far each stream is posted
//!     restores.jsonl  the incarnations of ledgers restored from it (restore.rs)
//! ```
//! While a collector runs it alone can read its ledger, so it sends the rows over the socket
//! `control.sock` in `data_dir` (control.rs, backup/door.rs), and this program writes them; else the file is
//! read directly.
//!
//! **Owns** the folder: it is made as `DIR.partial`, for its owner only, and takes its name once all is on
//! disk. **Does not own** what holds together in a ledger: chains are checked on the way
//! (`ledger/check.rs`), and what does not hold together makes no backup.
//!
//! Totals are not in it: they are derived. Nor are the rules: after a restore they get a new version.

pub mod door;
pub mod last;
pub mod manifest;
pub mod rows;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use self::manifest::{MANIFEST, Manifest, RESTORES, ROWS, STREAMS};
use self::rows::{RowReader, RowWriter, RowsError};
use crate::control;
use crate::ledger::check::{Bodies, Checker, LedgerTable};
use crate::ledger::redb::{LEDGER_FILE, export_stopped};
use crate::ledger::store::StoreError;

/// What redb may cache of a ledger that is read once, front to back, in bytes.
pub(crate) const READ_CACHE_BYTES: usize = 32 << 20;
/// Progress is told each time so many further bytes are done.
pub(crate) const PROGRESS_BYTES: u64 = 256 << 20;

/// Failed to make a backup.
#[derive(Debug, Error)]
pub enum BackupError {
    #[error("failed to make a backup: {} is there already; name a new folder", path.display())]
    Exists { path: PathBuf },
    #[error("failed to make a backup: there is no {LEDGER_FILE} in {}; name the collector's data_dir", path.display())]
    NoLedger { path: PathBuf },
    #[error("failed to make a backup: another one into {} is under way", path.display())]
    UnderWay { path: PathBuf },
    #[error("failed to make a backup: cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to make a backup: the collector does not answer on {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("failed to make a backup: {0}")]
    Rows(#[from] RowsError),
    #[error("failed to make a backup: {0}")]
    Store(#[from] StoreError),
    #[error(
        "failed to make a backup: the ledger does not hold together in {count} places, first {first}; stop the collector and run `tidemark-collector fsck`"
    )]
    Unsound { count: u64, first: String },
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        Self::Rows(error.into())
    }
}

/// Makes a backup of the ledger in `data_dir`, whether or not a collector runs on it. `progress` is told
/// how many bytes are written.
///
/// # Errors
/// See [`BackupError`]; no backup is left behind then.
pub fn make(
    data_dir: &Path,
    to: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Manifest, BackupError> {
    if to.exists() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    if !data_dir.join(LEDGER_FILE).exists() {
        return Err(BackupError::NoLedger { path: data_dir.to_owned() });
    }
    // Without a slash at its end.
    let to = &to.components().collect::<PathBuf>();
    let draft = draft_of(to);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Write { path, source }
    };
    let taken = take(&draft).map_err(failed(&draft))?;
    let _held = taken.ok_or_else(|| BackupError::UnderWay { path: to.clone() })?;
    let made = write(data_dir, &draft, progress);
    let made = made.and_then(|manifest| {
        fs::rename(&draft, to).and_then(|()| sync_parent(to)).map_err(failed(to))?;
        Ok(manifest)
    });
    if made.is_err() {
        // What is left over is no backup, and the next try removes it too.
        let _removed = clear(&draft).is_ok();
    }
    made
}

/// Where a backup is written before it takes its name.
fn draft_of(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Makes the draft's folder anew and holds its lock; `None` if another backup does. Nobody removes or renames
/// a folder of this name whose lock he does not hold.
fn take(draft: &Path) -> io::Result<Option<File>> {
    // Held until the new one is: whoever comes meanwhile finds either.
    let _left = match lock(draft) {
        Ok(None) => return Ok(None),
        Ok(Some(left)) => {
            clear(draft)?;
            Some(left)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    match DirBuilder::new().mode(0o700).create(draft) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        made => made?,
    }
    lock(draft)
}

/// The lock of the folder at `path`; `None` if another has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(path)?;
    match folder.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Another may have taken it away in between.
    let (held, found) = (folder.metadata()?, fs::metadata(path)?);
    let is_there = (held.dev(), held.ino()) == (found.dev(), found.ino());
    Ok(is_there.then_some(folder))
}

/// Removes what an earlier try has left, and nothing else.
fn clear(draft: &Path) -> io::Result<()> {
    for name in [MANIFEST, ROWS, STREAMS, RESTORES] {
        ignore_missing(fs::remove_file(draft.join(name)))?;
    }
    ignore_missing(fs::remove_dir(draft))
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn write(
    data_dir: &Path,
    draft: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Manifest, BackupError> {
    let failed = |name: &'static str| {
        let path = draft.join(name);
        move |source| BackupError::Write { path, source }
    };
    let file = make_file(&draft.join(ROWS)).map_err(failed(ROWS))?;
    let mut writer = RowWriter::new(BufWriter::new(file)).map_err(failed(ROWS))?;
    let mut checker = Checker::new(Bodies::Leave);
    let mut told = 0;
    each_row(data_dir, &mut |table, key, value| {
        checker.row(table, key, value);
        writer.row(table, key, value).map_err(failed(ROWS))?;
        if writer.bytes() >= PROGRESS_BYTES.saturating_add(told) {
            told = writer.bytes();
            progress(told);
        }
        Ok(())
    })?;
    let checked = checker.finish();
    if let Some(first) = checked.findings.iter().next() {
        let (count, first) = (checked.findings.count(), first.to_string());
        return Err(BackupError::Unsound { count, first });
    }
    let (file, rows) = writer.end().map_err(failed(ROWS))?;
    sync(file).map_err(failed(ROWS))?;
    let mut file = BufWriter::new(make_file(&draft.join(STREAMS)).map_err(failed(STREAMS))?);
    let streams = manifest::write_streams(&checked.chains, &mut file).map_err(failed(STREAMS))?;
    sync(file).map_err(failed(STREAMS))?;

    let manifest = Manifest::new(&checked, rows, streams);
    let mut file = BufWriter::new(make_file(&draft.join(MANIFEST)).map_err(failed(MANIFEST))?);
    serde_json::to_writer_pretty(&mut file, &manifest)
        .map_err(io::Error::other)
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| sync(file))
        .and_then(|()| File::open(draft)?.sync_all())
        .map_err(failed(MANIFEST))?;
    Ok(manifest)
}

/// What takes one row after the other.
type TakeRow<'t> = &'t mut dyn FnMut(LedgerTable, &[u8], &[u8]) -> Result<(), BackupError>;

/// Shows every row: from the running collector, else from the file.
fn each_row(data_dir: &Path, take: TakeRow<'_>) -> Result<(), BackupError> {
    let failed = |source| BackupError::Connect { path: data_dir.join(control::SOCKET), source };
    match control::connect(data_dir).map_err(failed)? {
        Some(socket) => {
            let socket = door::ask_for_rows(socket).map_err(failed)?;
            let mut reader = RowReader::new(BufReader::new(socket))?;
            while let Some(row) = reader.row()? {
                take(row.table, row.key, row.value)?;
            }
            Ok(())
        }
        None => export_stopped(data_dir, READ_CACHE_BYTES, take),
    }
}

fn make_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn sync(file: BufWriter<File>) -> io::Result<()> {
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
