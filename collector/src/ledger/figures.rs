//! The ledger's figures, for `/metrics`.
//!
//! **Owns** counting. **Does not own** what is durable: gauges that must survive a restart come from
//! the stream records and the totals.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::dedupe::Verdict;
use crate::ledger::tail::TailSize;

/// Durations are told apart up to a minute, to three digits.
const MICROS_MAX: u64 = 60_000_000;

/// What the writer and the folder count since they started.
#[derive(Debug)]
pub struct LedgerCounters {
    admitted: AtomicU64,
    duplicates: AtomicU64,
    gaps: AtomicU64,
    conflicts: AtomicU64,
    fenced: AtomicU64,
    refused: AtomicU64,
    quarantined: AtomicU64,
    suppressed: AtomicU64,
    groups: AtomicU64,
    folds: AtomicU64,
    folded_lines: AtomicU64,
    commits: Mutex<Histogram<u64>>,
    fold_durations: Mutex<Histogram<u64>>,
}

/// The figures at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFigures {
    /// Batches by verdict, since the start.
    pub admitted: u64,
    pub duplicates: u64,
    pub gaps: u64,
    pub conflicts: u64,
    pub fenced: u64,
    /// For another ledger, not open, or invalid.
    pub refused: u64,
    /// Of the admitted ones, those that cannot be read.
    pub quarantined: u64,
    /// Events of admitted batches that were admitted before.
    pub suppressed: u64,
    /// Transactions of the writer.
    pub groups: u64,
    pub commit: Durations,
    pub folds: u64,
    pub folded_lines: u64,
    pub fold: Durations,
    pub tail: TailSize,
    pub streams: u64,
    /// Events that the headers of all admitted batches hold, ever.
    pub events_by_headers: u64,
    /// The same events, counted on their own: lines in the totals and the tail, and quarantined ones.
    pub events_by_lines: u64,
    pub events_quarantined: u64,
    pub events_accepted: u64,
    pub events_in_transit: u64,
    pub clock_jumps: u64,
}

/// A latency recorder's figures, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    pub count: u64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub max_micros: u64,
}

impl Default for LedgerCounters {
    fn default() -> Self {
        let recorder = || {
            let histogram = Histogram::new_with_max(MICROS_MAX, 3);
            Mutex::new(histogram.expect("three digits up to a minute are valid bounds"))
        };
        Self {
            admitted: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            fenced: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            folds: AtomicU64::new(0),
            folded_lines: AtomicU64::new(0),
            commits: recorder(),
            fold_durations: recorder(),
        }
    }
}

impl LedgerCounters {
    pub fn count_verdict(&self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Admit => &self.admitted,
            Verdict::Duplicate => &self.duplicates,
            Verdict::Gap { .. } => &self.gaps,
            Verdict::Conflict { .. } => &self.conflicts,
            Verdict::Fenced { .. } => &self.fenced,
            Verdict::OtherLedger | Verdict::NotOpen | Verdict::Invalid(_) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_quarantined(&self, batches: u64) {
        self.quarantined.fetch_add(batches, Ordering::Relaxed);
    }

    pub fn count_suppressed(&self, events: u64) {
        self.suppressed.fetch_add(events, Ordering::Relaxed);
    }

    pub fn count_commit(&self, micros: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        record(&self.commits, micros);
    }

    pub fn count_fold(&self, lines: u64, micros: u64) {
        self.folds.fetch_add(1, Ordering::Relaxed);
        self.folded_lines.fetch_add(lines, Ordering::Relaxed);
        record(&self.fold_durations, micros);
    }

    /// The counters' part of the figures; the rest is zero.
    #[must_use]
    pub fn figures(&self) -> LedgerFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LedgerFigures {
            admitted: read(&self.admitted),
            duplicates: read(&self.duplicates),
            gaps: read(&self.gaps),
            conflicts: read(&self.conflicts),
            fenced: read(&self.fenced),
            refused: read(&self.refused),
            quarantined: read(&self.quarantined),
            suppressed: read(&self.suppressed),
            groups: read(&self.groups),
            commit: durations(&self.commits),
            folds: read(&self.folds),
            folded_lines: read(&self.folded_lines),
            fold: durations(&self.fold_durations),
            tail: TailSize::default(),
            streams: 0,
            events_by_headers: 0,
            events_by_lines: 0,
            events_quarantined: 0,
            events_accepted: 0,
            events_in_transit: 0,
            clock_jumps: 0,
        }
    }
}

fn record(histogram: &Mutex<Histogram<u64>>, micros: u64) {
    if let Ok(mut histogram) = histogram.lock() {
        histogram.saturating_record(micros);
    }
}

fn durations(histogram: &Mutex<Histogram<u64>>) -> Durations {
    let Ok(histogram) = histogram.lock() else {
        return Durations::default();
    };
    Durations {
        count: histogram.len(),
        p50_micros: histogram.value_at_quantile(0.5),
        p99_micros: histogram.value_at_quantile(0.99),
        max_micros: histogram.max(),
    }
}
