//! The last sweep, for `/metrics`; and that one full report is made at a time.
//!
//! **Owns** what is kept of it. **Does not own** when it is made (`run/sweeps.rs`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use tidemark_common::time::Timestamp;

use super::{Kind, Reconciliation};

/// What a sweep came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastSweep {
    /// Ledger time at its end, and how long it took.
    pub at: Timestamp,
    pub millis: u64,
    /// Findings that keep invoices back, by kind; and those that are waived or covered.
    pub blocking: BTreeMap<Kind, u64>,
    pub covered: BTreeMap<Kind, u64>,
}

/// The last sweep that ended, and whose turn it is.
#[derive(Debug, Default)]
pub struct Sweeps {
    last: Mutex<Option<LastSweep>>,
    turn: Mutex<()>,
}

impl Sweeps {
    /// `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<LastSweep> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The turn to read all batches, which one has at a time; `None` while another has it.
    pub fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Keeps what is told of this one.
    pub fn ended(&self, report: &Reconciliation, at: Timestamp, millis: u64) {
        let mut sweep = LastSweep { at, millis, ..LastSweep::default() };
        for finding in &report.findings {
            let counts = match (finding.blocks(), &finding.cover) {
                (true, _) => &mut sweep.blocking,
                (false, Some(_)) => &mut sweep.covered,
                (false, None) => continue,
            };
            let count = counts.entry(finding.kind).or_default();
            *count = count.saturating_add(1);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(sweep);
    }
}
