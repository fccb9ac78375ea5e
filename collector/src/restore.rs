//! A restore: a ledger made of a backup, told apart from the one that was lost.
//!
//! **Owns** the order: everything is checked while it is written beside; the incarnation is noted in the
//! backup; only then do the files take their names. **Does not own** the rows' meaning
//! (`ledger/check.rs`) or their writing (`ledger/redb/import.rs`).
//!
//! Invariants:
//! - A ledger that is there is never overwritten. A restore that did not finish is begun anew, and a
//!   collector does not start on it.
//! - The *incarnation*, the high part of every fence, lies above all that the lost ledger can have used. Each
//!   start uses one, so [`RESTORE_STEP`] above the backup's is enough, whatever any clock showed. Of
//!   ledgers restored from one backup the later is above the earlier: what was given is noted beside the
//!   backup; where that cannot be written, the clock tells them apart.
//! - Ledger time begins after the backup's limit, after what the caller knows of, and after this machine's clock with the margin that a
//!   running collector keeps.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_common::time::Timestamp;

use crate::archive::ArchiveError;
use crate::backup::last::BackupNote;
use crate::backup::manifest::{self, FileEntry, MANIFEST, Manifest, RESTORES, STREAMS};
use crate::backup::rows::{Row, RowReader, RowsError, Written};
use crate::backup::{PROGRESS_BYTES, READ_CACHE_BYTES};
use crate::ledger::books::sha256;
use crate::ledger::check::{Bodies, Checked, CheckedBatch, Checker, Findings, LedgerTable};
use crate::ledger::clock::{LIMIT_AHEAD_MILLIS, is_leap};
use crate::ledger::codec::RowError;
use crate::ledger::redb::{
    ARCHIVE_LEFT, Import, LEDGER_FILE, RESTORING_FOLDER, RedbOptions, Restored, TOTALS_FILE,
    export_stopped,
};
use crate::ledger::store::{StoreError, StoredBodies};
use crate::period::Zone;

/// A restored ledger's incarnation is this far above all that is known to be used. A ledger started
/// once a second since its backup reaches it after 48 days.
pub const RESTORE_STEP: u32 = 1 << 22;
/// A clock that shows more seconds than the backup's incarnation and this many is not believed.
const BELIEVED_SECONDS_MAX: u32 = 10 * 365 * 86_400;

/// Failed to restore a ledger or to check a backup.
#[derive(Debug, Error)]
pub enum RestoreError {
    #[error("failed to read the backup in {}: {source}; a folder without {MANIFEST} is no backup, or half of one", path.display())]
    Manifest { path: PathBuf, source: io::Error },
    #[error("failed to read the backup: its format {found} is newer than {known}; use a newer collector", known = manifest::FORMAT)]
    Newer { found: u16 },
    #[error("failed to read the backup: {0}")]
    Rows(#[from] RowsError),
    #[error("failed to read the backup: {what} differs from its manifest; use another backup")]
    Differs { what: &'static str },
    #[error(
        "failed to read the backup: it does not hold together in {count} places, first {first}; use another backup",
        count = .0.count(), first = first(.0)
    )]
    Unsound(Findings),
    #[error("failed to restore: {} holds a ledger; move it away, or name another folder", path.display())]
    Exists { path: PathBuf },
    #[error("failed to restore: another restore into {} is under way", path.display())]
    UnderWay { path: PathBuf },
    #[error("failed to restore: cannot write to {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to restore: {0}")]
    Store(#[from] StoreError),
    #[error(
        "failed to restore: the machine's clock shows {wall}, and the backup's time is {ledger_time}: set the clock right; if it is right, give --trust-clock"
    )]
    ClockLeaps { wall: String, ledger_time: String },
    #[error("failed to restore: {0}")]
    Archive(#[from] ArchiveError),
    #[error(
        "failed to restore: the bodies of {batches} batches had left the ledger for its archive: give the configuration that names it (--config)"
    )]
    Left { batches: u64 },
    #[error("failed to restore: there is no archive in {place}")]
    NoArchive { place: String },
    #[error("failed to restore: the ledger and the archive do not go together: {what}")]
    Forked { what: String },
    #[error("failed to restore: what came of it cannot be checked: {reason}")]
    Unchecked { reason: String },
    #[error(
        "failed to restore: what came of it does not hold together in {count} places, first {first}; run `tidemark-collector archive verify`",
        count = .0.count(), first = first(.0)
    )]
    Merged(Findings),
    #[error("failed to restore: the incarnations are used up; give a lower --incarnation-min")]
    Incarnations,
}

impl RestoreError {
    pub(crate) fn row(error: RowError) -> Self {
        Self::Forked { what: error.to_string() }
    }
}

fn first(findings: &Findings) -> String {
    findings.iter().next().map(ToString::to_string).unwrap_or_default()
}

/// What the lost ledger is known to have used, beyond what its backup says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub incarnation: u32,
    pub ledger_time: Timestamp,
    /// This machine's clock is right, however far ahead of the backup it is.
    pub trust_clock: bool,
}

/// A restored ledger.
#[derive(Debug)]
pub struct Report {
    pub manifest: Manifest,
    pub restored: Restored,
    /// Why the backup does not remember this restore.
    pub unnoted: Option<io::Error>,
    /// Milliseconds by which this machine's clock is behind the ledger time that is known to be used.
    pub behind_millis: i64,
}

impl Report {
    /// What was done and what to look at next, for people.
    #[must_use]
    pub fn told(&self, data_dir: &Path) -> String {
        let mut text = format!(
            "restored into {}: {}\nits next incarnation is above {}: nothing of the lost ledger is taken for its own\n",
            data_dir.display(),
            self.manifest.told(),
            self.restored.incarnation
        );
        if let Some(error) = &self.unnoted {
            text.push_str(&format!(
                "warning: the backup does not remember this restore ({error}); give --incarnation-min {} to the next one from it\n",
                self.restored.incarnation
            ));
        }
        if self.behind_millis > 0 {
            text.push_str(&format!(
                "warning: this machine's clock is {} s behind the ledger; ledger time stands still until it has caught up\n",
                self.behind_millis.div_euclid(1_000)
            ));
        }
        text.push_str(
            "next: start the collector; agents send again what they retain. GET /v1/streams names the streams that were \
             not heard of since, and what cannot be healed\n",
        );
        text
    }
}

/// What was given to a ledger restored from a backup.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    incarnation: u32,
    /// Unix milliseconds by the clock of the machine that restored it.
    at: i64,
}

/// Reads a whole backup and says what does not hold together.
///
/// # Errors
/// If it is not whole or not sound.
pub fn check(from: &Path, progress: &mut dyn FnMut(u64)) -> Result<Manifest, RestoreError> {
    let (manifest, checked) = read(from, None, progress, &mut |_, _, _, _| Ok(()))?;
    match checked.findings.count() {
        0 => Ok(manifest),
        _ => Err(RestoreError::Unsound(checked.findings)),
    }
}

/// Makes the ledger of the backup `from` in `data_dir`; `bodies` are those that had left the ledger for its archive. `now` is this machine's clock.
///
/// # Errors
/// See [`RestoreError`]; there is no ledger in `data_dir` then.
pub fn restore(
    from: &Path,
    bodies: Option<Arc<dyn StoredBodies>>,
    data_dir: &Path,
    used: Used,
    now: Timestamp,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, RestoreError> {
    into_place(data_dir, |restoring| make(from, bodies, restoring, used, now, progress))
}

/// Has `make` make the files of a ledger in a folder beside, and gives them their names in `data_dir`.
pub(crate) fn into_place<T>(
    data_dir: &Path,
    make: impl FnOnce(&Path) -> Result<T, RestoreError>,
) -> Result<T, RestoreError> {
    let failed = |source| RestoreError::Write { path: data_dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let lock = File::open(data_dir).map_err(failed)?;
    lock.try_lock().map_err(|_| RestoreError::UnderWay { path: data_dir.to_owned() })?;
    if data_dir.join(LEDGER_FILE).exists() {
        return Err(RestoreError::Exists { path: data_dir.to_owned() });
    }
    let restoring = data_dir.join(RESTORING_FOLDER);
    clear(&restoring).map_err(failed)?;
    let made = match make(&restoring) {
        Ok(made) => made,
        Err(error) => {
            let _removed = clear(&restoring).is_ok();
            return Err(error);
        }
    };
    // Of the ledger that comes none was made.
    BackupNote::of(data_dir).remove().map_err(failed)?;
    let placed = place(&restoring, data_dir, &lock);
    match &placed {
        // Of a ledger in its place there is a second name left.
        Ok(()) | Err(RestoreError::Exists { .. }) => {
            clear(&restoring).and_then(|()| lock.sync_all()).map_err(failed)?;
        }
        // No collector starts on what is half in its place.
        Err(_) => {}
    }
    placed.map(|()| made)
}

/// Gives the files their names. A collector that began to start before the restore may have made a ledger
/// meanwhile; it is not replaced.
fn place(restoring: &Path, data_dir: &Path, lock: &File) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Write { path: data_dir.to_owned(), source };
    if data_dir.join(LEDGER_FILE).exists() {
        return Err(RestoreError::Exists { path: data_dir.to_owned() });
    }
    // The totals first: with the ledger the restore is done.
    fs::rename(restoring.join(TOTALS_FILE), data_dir.join(TOTALS_FILE)).map_err(failed)?;
    lock.sync_all().map_err(failed)?;
    name_ledger(restoring, data_dir)?;
    lock.sync_all().map_err(failed)
}

/// By a second name: a rename would replace what is there.
fn name_ledger(restoring: &Path, data_dir: &Path) -> Result<(), RestoreError> {
    let path = data_dir.to_owned();
    match fs::hard_link(restoring.join(LEDGER_FILE), data_dir.join(LEDGER_FILE)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(RestoreError::Exists { path })
        }
        Err(source) => Err(RestoreError::Write { path, source }),
    }
}

/// Removes what a restore has left, and nothing else.
fn clear(restoring: &Path) -> io::Result<()> {
    let files = [LEDGER_FILE, TOTALS_FILE].map(|name| fs::remove_file(restoring.join(name)));
    for removed in files.into_iter().chain([fs::remove_dir(restoring)]) {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Writes both files beside, checking all of it.
fn make(
    from: &Path,
    bodies: Option<Arc<dyn StoredBodies>>,
    restoring: &Path,
    used: Used,
    now: Timestamp,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, RestoreError> {
    let mut import = Import::begin(restoring, &RedbOptions::default())?;
    let (manifest, checked) = read(from, bodies, progress, &mut |table, key, value, batch| {
        if key == ARCHIVE_LEFT && table == LedgerTable::Meta {
            // All bodies are in it again.
            return Ok(());
        }
        let fetched = batch.as_ref().and_then(|batch| batch.fetched.as_deref());
        import.row(table, key, fetched.unwrap_or(value))?;
        batch.map_or(Ok(()), |batch| import.fold(batch).map_err(RestoreError::from))
    })?;
    if checked.findings.count() > 0 {
        return Err(RestoreError::Unsound(checked.findings));
    }
    refuse_left(&checked)?;
    let limit = used.ledger_time.max(Timestamp(checked.facts.clock_limit));
    refuse_leap(limit, now, used)?;
    let highest = checked.facts.incarnation.max(noted(from)).max(used.incarnation);
    let restored = Restored {
        incarnation: incarnation_above(highest, now).ok_or(RestoreError::Incarnations)?,
        at: begins_at(limit, now),
    };
    import.finish(restored)?;
    let unnoted = note(from, &Note { incarnation: restored.incarnation, at: now.0 }).err();
    let behind_millis = limit.millis_since(now.plus_millis(LIMIT_AHEAD_MILLIS)).max(0);
    Ok(Report { manifest, restored, unnoted, behind_millis })
}

/// Without its bodies a batch cannot be summed.
pub(crate) fn refuse_left(checked: &Checked) -> Result<(), RestoreError> {
    match checked.counts.left_batches {
        0 => Ok(()),
        batches => Err(RestoreError::Left { batches }),
    }
}

/// A clock that is far ahead of the ledger's time is believed only if a person says so.
pub(crate) fn refuse_leap(
    limit: Timestamp,
    now: Timestamp,
    used: Used,
) -> Result<(), RestoreError> {
    if used.trust_clock || !is_leap(limit, now) {
        return Ok(());
    }
    let [wall, ledger_time] = [now, limit].map(|at| Zone::utc().rfc3339(at));
    Err(RestoreError::ClockLeaps { wall, ledger_time })
}

/// Where a restored ledger's time begins.
pub(crate) fn begins_at(limit: Timestamp, now: Timestamp) -> Timestamp {
    limit.max(now.plus_millis(LIMIT_AHEAD_MILLIS))
}

/// An incarnation above `used` and, where it can be believed, the clock.
pub(crate) fn incarnation_above(used: u32, now: Timestamp) -> Option<u32> {
    let seconds = u32::try_from(now.0.div_euclid(1_000)).unwrap_or(0);
    let believed = if seconds <= used.saturating_add(BELIEVED_SECONDS_MAX) { seconds } else { 0 };
    used.max(believed).checked_add(RESTORE_STEP)
}

/// The highest incarnation that was given to a ledger restored from this backup before.
pub(crate) fn noted(from: &Path) -> u32 {
    let text = fs::read_to_string(from.join(RESTORES)).unwrap_or_default();
    let notes = text.lines().filter_map(|line| serde_json::from_str::<Note>(line).ok());
    notes.map(|note| note.incarnation).max().unwrap_or(0)
}

/// Durable before the ledger that it tells of can be started.
fn note(from: &Path, note: &Note) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(from.join(RESTORES))?;
    let mut line = serde_json::to_vec(note).map_err(io::Error::other)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_all()?;
    File::open(from)?.sync_all()
}

/// What takes one row after the other, and what was made of a batch.
pub(crate) type TakeRow<'t> =
    &'t mut dyn FnMut(LedgerTable, &[u8], &[u8], Option<CheckedBatch>) -> Result<(), RestoreError>;

/// A walk over the rows of a backup.
struct Reading<'r> {
    checker: Checker,
    bytes: u64,
    told: u64,
    progress: &'r mut dyn FnMut(u64),
    take: TakeRow<'r>,
}

impl Reading<'_> {
    fn row(&mut self, table: LedgerTable, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        self.bytes = self.bytes.saturating_add(u64::try_from(value.len()).unwrap_or(u64::MAX));
        if self.bytes >= PROGRESS_BYTES.saturating_add(self.told) {
            self.told = self.bytes;
            (self.progress)(self.bytes);
        }
        // Behind a break the batches do not come to sums; the restore ends with it.
        let is_sound = self.checker.is_sound();
        let batch = self.checker.row(table, key, value);
        let batch = batch.filter(|_| is_sound && self.checker.is_sound());
        (self.take)(table, key, value, batch)
    }
}

/// Reads all of a backup; compares it with its manifest, digest by digest. A folder with a copy of the
/// ledger's file has no manifest: what it holds is judged by itself.
pub(crate) fn read(
    from: &Path,
    bodies: Option<Arc<dyn StoredBodies>>,
    progress: &mut dyn FnMut(u64),
    take: TakeRow<'_>,
) -> Result<(Manifest, Checked), RestoreError> {
    let (checker, bytes, told) = (Checker::new(Bodies::Open).with_bodies(bodies), 0, 0);
    let mut reading = Reading { checker, bytes, told, progress, take };
    if from.join(LEDGER_FILE).exists() && !from.join(MANIFEST).exists() {
        export_stopped(from, READ_CACHE_BYTES, &mut |table, key, value| {
            reading.row(table, key, value)
        })?;
        let checked = reading.checker.finish();
        let none = Written { bytes: reading.bytes, sha256: [0; 32] };
        return Ok((Manifest::new(&checked, none, none), checked));
    }
    let unreadable = |source| RestoreError::Manifest { path: from.to_owned(), source };
    let manifest = manifest::read(from).map_err(unreadable)?;
    if manifest.format > manifest::FORMAT {
        return Err(RestoreError::Newer { found: manifest.format });
    }
    let file = File::open(from.join(manifest::ROWS)).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length != manifest.rows_file.bytes {
        return Err(RestoreError::Differs { what: "the length of ledger.rows" });
    }
    let mut reader = RowReader::new(BufReader::with_capacity(1 << 20, file))?;
    while let Some(Row { table, key, value }) = reader.row()? {
        reading.row(table, key, value)?;
    }
    let checked = reading.checker.finish();
    let streams = manifest::write_streams(&checked.chains, &mut io::sink()).map_err(unreadable)?;
    let found = Manifest::new(&checked, reader.written(), streams);
    let listed = fs::read(from.join(STREAMS)).map_err(unreadable)?;
    let listed =
        Written { bytes: u64::try_from(listed.len()).unwrap_or(u64::MAX), sha256: sha256(&listed) };
    differs(&manifest, &found, &FileEntry::new(STREAMS, listed))?;
    Ok((manifest, checked))
}

/// What is in a backup is what its manifest says, whichever version made it.
fn differs(said: &Manifest, found: &Manifest, listed: &FileEntry) -> Result<(), RestoreError> {
    for (what, is_same) in [
        ("the digest of ledger.rows", said.rows_file == found.rows_file),
        ("the digest of streams.jsonl", said.streams_file == *listed),
        ("what its rows say of the streams", found.streams_file == *listed),
        ("a count of its rows", said.counts() == found.counts()),
        ("which ledger it is", said.identity() == found.identity()),
    ] {
        if !is_same {
            return Err(RestoreError::Differs { what });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
