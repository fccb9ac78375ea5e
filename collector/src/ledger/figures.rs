//! The ledger's figures, for `/metrics`.
//!
//! **Owns** counting. **Does not own** what is durable: gauges that must survive a restart come from
//! the stream records and the totals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::dedupe::Verdict;
use crate::ledger::tail::TailSize;

/// Bounds of the durations' buckets: 0.5 ms, and twice as much each, up to 16.4 s.
const BUCKET_FIRST_SECONDS: f64 = 0.0005;
const BUCKETS: u16 = 16;

/// What the writer and the folder count since they started.
#[derive(Debug, Default)]
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
    latencies: Latencies,
}

/// How long the writer and the folder took, in seconds, since they started.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// A group's transaction, fsync included.
    pub commit: Histogram,
    /// From summing the tail to its totals' fsync.
    pub fold: Histogram,
    /// From a request's arrival to the begin of its group's transaction.
    pub writer_wait: Histogram,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(BUCKET_FIRST_SECONDS, 2.0, BUCKETS));
        Self { commit: histogram(), fold: histogram(), writer_wait: histogram() }
    }
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
    pub folds: u64,
    pub folded_lines: u64,
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
        self.latencies.commit.observe(seconds(micros));
    }

    pub fn count_fold(&self, lines: u64, micros: u64) {
        self.folds.fetch_add(1, Ordering::Relaxed);
        self.folded_lines.fetch_add(lines, Ordering::Relaxed);
        self.latencies.fold.observe(seconds(micros));
    }

    pub fn count_wait(&self, micros: u64) {
        self.latencies.writer_wait.observe(seconds(micros));
    }

    #[must_use]
    pub fn latencies(&self) -> Latencies {
        self.latencies.clone()
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
            folds: read(&self.folds),
            folded_lines: read(&self.folded_lines),
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

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}
