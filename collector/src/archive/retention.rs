//! Bodies leave the ledger once their periods are closed and the archive was seen to hold them.
//!
//! ```text
//! object after object: all its buckets are closed, and old enough -> it is read again, and compared with the ledger, byte by
//! byte -> the ledger keeps the headers
//! ```
//! **Owns** which bodies may leave. **Does not own** the rows (`ledger/redb/archive.rs`), or reading what has left (`bodies.rs`).
//!
//! A period is closed when its month is locked in the books: no entry counts for it any more, wherever on Earth the month
//! ended last. Quarantined bodies stay: a person may still release them.

use tidemark_common::time::{Bucket, Timestamp};

use super::manifest::{Kind, Manifest, manifest_name};
use super::read;
use super::segment::ArchivedBatch;
use super::store::ArchiveStore;
use super::writer::WriteError;
use crate::ledger::archived::LeftBodies;
use crate::ledger::books::rows::{self, LOCK};
use crate::ledger::store::{Books, StoreError};
use crate::period::{Day, Zone};

/// Where a month ends first: as against UTC.
const EAST_MILLIS: i64 = 14 * 3_600_000;

/// Buckets before this one are closed, and older than `age_millis`.
///
/// # Errors
/// Books that cannot be read.
pub(super) fn closed_before(
    books: &dyn Books,
    now: Timestamp,
    age_millis: i64,
) -> Result<Bucket, StoreError> {
    let none = Bucket(0);
    let Some(locked) = rows::get::<String>(books, LOCK)? else { return Ok(none) };
    let broken = |error: &dyn std::fmt::Display| StoreError::books(error.to_string());
    let first = |month: &str| Day::parse(&format!("{month}-01")).map_err(|error| broken(&error));
    let next = first(&locked)?.plus_days(31).month().to_string();
    let end = Zone::utc().start_of(first(&next)?).map_err(|error| broken(&error))?;
    let edge = end.start().plus_millis(EAST_MILLIS.saturating_neg());
    Ok(Bucket::of(edge.min(now.plus_millis(age_millis.saturating_neg()))).unwrap_or(none))
}

/// What the next object lets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing now.
    Nothing,
    /// All before this.
    Left(LeftBodies),
}

/// What may become of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    Leave,
    /// Its buckets are not all closed.
    Wait,
    /// The ledger holds another batch there: the object is of a ledger before this one was put together.
    Other,
}

/// Reads the next object, and asks of each batch in it what may become of the ledger's.
///
/// # Errors
/// An archive or a ledger that cannot be read, or that is damaged.
pub(super) fn next(
    archive: &dyn ArchiveStore,
    left: LeftBodies,
    mut judge: impl FnMut(&ArchivedBatch) -> Result<May, StoreError>,
) -> Result<Next, WriteError> {
    let name = manifest_name(left.objects.saturating_add(1));
    let Some(bytes) = archive.get(&name)? else { return Ok(Next::Nothing) };
    let manifest = Manifest::decode(&name, &bytes)?;
    let mut passed = LeftBodies { objects: manifest.number, ..left };
    if manifest.kind != Kind::Batches || manifest.last < left.position {
        return Ok(Next::Left(passed));
    }
    let mut records = read::records(archive, &manifest)?;
    while let Some(batch) = records.batch()? {
        if batch.position < left.position {
            continue;
        }
        match judge(&batch)? {
            May::Leave => passed.position = batch.position.saturating_add(1),
            May::Wait => return Ok(Next::Nothing),
            May::Other => break,
        }
    }
    Ok(Next::Left(passed))
}

#[cfg(test)]
mod tests;
