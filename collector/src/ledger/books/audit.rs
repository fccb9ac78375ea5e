//! Changes that move no money: corrections of usage, catalogues, a sandbox's time, locks, waivers, lost streams.
//!
//! **Owns** what each asks for and writes. **Does not own** what a correction does to usage (`correction.rs`), or which
//! catalogue may follow another (`adopt.rs`).

use tidemark_common::id::{Fence, StreamId};
use tidemark_common::time::Timestamp;

use super::rows;
use super::{
    Adopt, BookRows, Change, Correct, Draft, Failed, Plan, Refused, WEST_MILLIS, customer_row,
    customer_row_key, day_or, locked_through, sha256,
};
use crate::ledger::entry::{EntryKind, Postings};
use crate::ledger::store::{Books, StoreError};
use crate::period::{Month, Zone};
use crate::reconcile::{LossRow, Waiver};

/// Ledger time follows no leap of over 400 days.
pub(super) const CLOCK_STEP_DAYS: i64 = 366;

pub(super) fn judge_correction(
    rows: &dyn BookRows,
    change: &Change,
    correct: &Correct,
    entry: u64,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let Correct { customer, version, row } = correct;
    let mut held = customer_row(rows, customer)?;
    if held.version != *version {
        return Err(Refused::Stale.into());
    }
    held.version = held.version.saturating_add(1);
    let puts = vec![
        (row.key(customer, entry), Some(rows::write(row))),
        (customer_row_key(customer), Some(rows::write(&held))),
    ];
    let entry = Draft {
        kind: EntryKind::Correction,
        customer: Some(customer.as_str().to_owned()),
        document_sha256: None,
        subject: Some(row.told()),
        postings: Postings::default(),
        date: day_or(change, &Zone::utc(), at)?,
    };
    Ok(Plan { entry, puts, document: None })
}

pub(super) fn judge_adoption(
    rows: &dyn BookRows,
    change: &Change,
    adopt: &Adopt,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut puts = Vec::new();
    match &adopt.text {
        Some(text) if rows.get(rows::CATALOG)?.is_some_and(|held| held == text.as_bytes()) => {
            return Err(Refused::NothingNew.into());
        }
        Some(text) => {
            let key = rows::key(rows::CATALOGS, &sha256(text.as_bytes()));
            puts.push((rows::CATALOG.to_vec(), Some(text.clone().into_bytes())));
            puts.push((key, Some(text.clone().into_bytes())));
        }
        // Of a file, changes are told once there are books.
        None if rows.get(rows::HEAD)?.is_none() => return Err(Refused::NothingNew.into()),
        None => {}
    }
    let entry = Draft {
        kind: EntryKind::Catalog,
        customer: None,
        document_sha256: Some(adopt.sha256.clone()),
        subject: Some(adopt.told.clone()),
        postings: Postings::default(),
        date: day_or(change, &Zone::utc(), at)?,
    };
    Ok(Plan { entry, puts, document: None })
}

pub(super) fn judge_clock(
    to: Timestamp,
    by: i64,
    ahead: i64,
    at: Timestamp,
) -> Result<Plan, Failed> {
    if !is_clock_step(by) {
        return Err(Refused::ClockStep.into());
    }
    let entry = Draft {
        kind: EntryKind::TestClock,
        customer: None,
        document_sha256: None,
        subject: Some(Zone::utc().rfc3339(to)),
        postings: Postings::default(),
        date: Zone::utc().day_of(at)?,
    };
    let puts = vec![(rows::TEST_CLOCK.to_vec(), Some(rows::write(&ahead)))];
    Ok(Plan { entry, puts, document: None })
}

/// Whether a sandbox's time may be advanced by so many milliseconds at once.
#[must_use]
pub fn is_clock_step(by: i64) -> bool {
    (0..=CLOCK_STEP_DAYS.saturating_mul(86_400_000)).contains(&by)
}

/// How far a sandbox's time is ahead; `None` if this is none.
///
/// # Errors
/// If that cannot be read.
pub fn test_clock(books: &dyn Books) -> Result<Option<i64>, StoreError> {
    rows::get(books, rows::TEST_CLOCK)
}

pub(super) fn judge_lock(
    rows: &dyn BookRows,
    through: Month,
    at: Timestamp,
) -> Result<Plan, Failed> {
    // Somewhere a day lasts twelve hours longer than in UTC.
    let today = Zone::utc().day_of(at.plus_millis(WEST_MILLIS))?;
    if through >= today.month() {
        return Err(Refused::NotOver { through }.into());
    }
    if let Some(locked) = locked_through(rows)?.filter(|locked| *locked >= through) {
        return Err(Refused::LockedAlready { through: locked }.into());
    }
    let entry = Draft {
        kind: EntryKind::Lock,
        customer: None,
        document_sha256: None,
        subject: Some(through.to_string()),
        postings: Postings::default(),
        date: today,
    };
    let puts = vec![(rows::LOCK.to_vec(), Some(rows::write(&through.to_string())))];
    Ok(Plan { entry, puts, document: None })
}

pub(super) fn judge_waiver(
    change: &Change,
    finding: &str,
    events_max: u64,
    entry: u64,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let row = Waiver {
        at: at.0,
        actor: change.actor.clone(),
        reason: change.reason.clone().unwrap_or_default(),
        events_max,
        entry,
    };
    let subject = format!("{finding}: at most {events_max} events");
    audited(change, EntryKind::Waiver, subject, (Waiver::key(finding), rows::write(&row)), at)
}

pub(super) fn judge_loss(
    change: &Change,
    (stream, fence): (StreamId, Fence),
    agent: &str,
    entry: u64,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let row = LossRow {
        at: at.0,
        actor: change.actor.clone(),
        reason: change.reason.clone().unwrap_or_default(),
        entry,
        fence: fence.0,
    };
    let subject = format!("{stream} of {agent}");
    audited(change, EntryKind::StreamLost, subject, (LossRow::key(stream), rows::write(&row)), at)
}

/// A row, and the entry that tells of it.
fn audited(
    change: &Change,
    kind: EntryKind,
    subject: String,
    (key, row): (Vec<u8>, Vec<u8>),
    at: Timestamp,
) -> Result<Plan, Failed> {
    let entry = Draft {
        kind,
        customer: None,
        document_sha256: None,
        subject: Some(subject),
        postings: Postings::default(),
        date: day_or(change, &Zone::utc(), at)?,
    };
    Ok(Plan { entry, puts: vec![(key, Some(row))], document: None })
}
