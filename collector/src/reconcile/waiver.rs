//! Waivers: a person says that invoices need not wait for a finding.
//!
//! ```text
//! row   "W" finding's id -> who waived it, why, and up to how many events, JSON
//! ```
//! **Owns** these rows. **Does not own** the entry that tells of one (`ledger/books/audit.rs`).
//!
//! A waiver is of one finding, by its id, and of no more events than it says: a finding that grew beyond it keeps
//! invoices back again. A later waiver of the same finding takes the place of the one before; entries keep both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Class, Cover, Finding};
use crate::ledger::books::rows;
use crate::ledger::store::{Books, StoreError};

/// A waiver, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// Milliseconds since 1970, ledger time.
    pub at: i64,
    pub actor: String,
    pub reason: String,
    /// It does not hold for more events than these.
    pub events_max: u64,
    /// The entry that tells of it.
    pub entry: u64,
}

impl Waiver {
    #[must_use]
    pub fn key(finding: &str) -> Vec<u8> {
        rows::key(rows::WAIVERS, finding.as_bytes())
    }
}

/// All waivers, by the finding's id.
///
/// # Errors
/// If the rows cannot be read.
pub fn waivers(books: &dyn Books) -> Result<BTreeMap<String, Waiver>, StoreError> {
    let mut found = BTreeMap::new();
    rows::visit(books, rows::WAIVERS, |key, row: Waiver| {
        found.insert(String::from_utf8_lossy(key).into_owned(), row);
    })?;
    Ok(found)
}

/// What a billing run's own reason for issuing although usage may be missing covers: what is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunWaiver {
    pub actor: String,
    pub reason: String,
}

/// Covers what is waived.
pub(super) fn apply(
    findings: &mut [Finding],
    waivers: &BTreeMap<String, Waiver>,
    run: Option<&RunWaiver>,
) {
    for finding in findings.iter_mut().filter(|finding| finding.blocks()) {
        let waived = waivers.get(&finding.id).filter(|waiver| finding.events <= waiver.events_max);
        finding.cover = match (waived, run, finding.kind.class()) {
            (Some(waiver), _, _) => Some(Cover::Waiver {
                entry: Some(waiver.entry),
                actor: waiver.actor.clone(),
                reason: waiver.reason.clone(),
            }),
            (None, Some(run), Class::Completeness | Class::Expected) => Some(Cover::Waiver {
                entry: None,
                actor: run.actor.clone(),
                reason: run.reason.clone(),
            }),
            (None, _, _) => None,
        };
    }
}
