//! What became of billing runs, for `/metrics`.
//!
//! **Owns** what is kept of them: of this process, since its start. **Does not own** what they did, which is in the books.

use std::sync::{Mutex, PoisonError};

use tidemark_common::time::Timestamp;

use super::Summary;
use crate::ledger::LedgerError;

/// The runs that issue; dry runs are none.
#[derive(Debug, Default)]
pub struct Runs {
    kept: Mutex<RunFigures>,
}

/// The figures at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunFigures {
    pub running: u64,
    /// Those that came to their end, whatever customers' problems.
    pub completed: u64,
    /// Those that the ledger or the archive ended.
    pub failed: u64,
    /// Of all runs that ended, see [`LastRun::problems`].
    pub problems: u64,
    /// `None` before the first of them ended.
    pub last: Option<LastRun>,
}

/// The last one that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    pub at: Timestamp,
    pub has_failed: bool,
    pub issued: u64,
    /// Customers without a document for a reason that a person must look at: not that their period is not over.
    pub problems: u64,
    pub awaiting_archive: u64,
}

impl Runs {
    #[must_use]
    pub fn figures(&self) -> RunFigures {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a run as under way until what is given back is dropped.
    pub(super) fn begun(&self) -> UnderWay<'_> {
        self.change(|kept| kept.running = kept.running.saturating_add(1));
        UnderWay(self)
    }

    pub(super) fn ended(&self, ended: &Result<Summary, LedgerError>, at: Timestamp) {
        let summary = ended.as_ref().ok();
        let of = |count: fn(&Summary) -> u64| summary.map_or(0, count);
        let last = LastRun {
            at,
            has_failed: summary.is_none(),
            issued: of(|summary| summary.issued),
            problems: of(|summary| summary.problems.saturating_sub(summary.waiting)),
            awaiting_archive: of(|summary| summary.awaiting_archive),
        };
        self.change(|kept| {
            let count = if last.has_failed { &mut kept.failed } else { &mut kept.completed };
            *count = count.saturating_add(1);
            kept.problems = kept.problems.saturating_add(last.problems);
            kept.last = Some(last);
        });
    }

    fn change(&self, change: impl FnOnce(&mut RunFigures)) {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A run that is under way; also when whoever waits for it gives up.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a Runs);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.change(|kept| kept.running = kept.running.saturating_sub(1));
    }
}
