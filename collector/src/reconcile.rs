//! Reconciliation: what keeps one cut of the ledger from being all, and all right.
//!
//! ```text
//! one snapshot -> completeness, expected, calculation, suspense, informational -> findings
//!              -> waivers, then policies, cover some -> the gate: whose invoices wait for the rest
//! ```
//! **Owns** what a finding is, and the order of things. **Does not own** what each part looks for (`reconcile/*.rs`), or
//! what is issued (`billing_run`).
//!
//! A reconciliation is of one *cut*: an instant `at`, a bucket's edge, together with the posted sequences of the snapshot.
//! It looks at the time from `from` to `at`. The same snapshot, catalogue and list of instances give the same findings.
//!
//! Reads block.

mod calculation;
pub mod command;
mod completeness;
pub mod door;
mod expected;
mod exposed;
mod gate;
mod kind;
mod late;
mod loss;
mod page;
mod policy;
mod shown;
mod suspense;
mod sweep;
mod told;
mod waiver;

use std::collections::BTreeMap;

use tidemark_common::id::{CustomerId, LedgerId, MeterName, Sequence, StreamId};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;

use crate::catalog::Catalog;
use crate::ledger::retired::RetiredSums;
use crate::ledger::store::StoreError;
use crate::ledger::{Ledger, LedgerError, Snapshot, StreamState, StreamStatus};
use crate::money::Money;

pub use self::calculation::Wanted;
pub use self::completeness::{Declared, Judging};
pub use self::expected::{ExpectedSource, Instance};
pub use self::gate::{Concerned, Due, Gate, Worth};
pub use self::kind::{Class, Kind};
pub use self::loss::{Loss, LossRow, losses};
pub use self::page::page;
pub use self::policy::{POLICIES_MAX, Policy};
pub use self::shown::{Exposed, FindingShown, ReportShown};
pub use self::suspense::of_bill as suspense_of_bill;
pub use self::sweep::{LastSweep, Sweeps};
pub use self::waiver::{RunWaiver, Waiver, waivers};

/// A reconciliation looks at so much time before its cut, if the configuration says nothing else: a year and a month.
pub const RANGE_DEFAULT_MILLIS: i64 = 400 * 86_400_000;

/// One discrepancy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    /// The same at every reconciliation: what waivers name.
    pub id: String,
    /// What is wrong, for people.
    pub told: String,
    /// What to do next.
    pub remedy: String,
    /// Events concerned, or in danger; `certainty` says how sure that is.
    pub events: u64,
    pub certainty: Certainty,
    /// How much usage, where it is one meter's.
    pub quantity: Option<Quantity>,
    /// What it may come to, by the average of a customer's bill, as if all were its own; of each currency the greatest. Empty
    /// where nobody can say, and where it was not asked.
    pub money: Vec<Money>,
    pub streams: Vec<StreamPart>,
    pub meter: Option<MeterName>,
    pub scope: Scope,
    /// The time of the events that it is about.
    pub span: Span,
    /// When it began to be known: policies count by its month. Of a stream its last confirmation, or its first hello.
    pub since: Timestamp,
    /// Why invoices do not wait for it.
    pub cover: Option<Cover>,
}

/// How sure a number of events is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    Exact,
    /// Of a rate and a time.
    Estimated,
    /// There may be more, without bound: no policy covers it.
    AtLeast,
}

/// A stream, and which batches of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPart {
    pub stream: StreamId,
    pub agent: AgentName,
    /// First and last; `None` where it is about all of it.
    pub sequences: Option<(Sequence, Sequence)>,
}

/// Whose invoices a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    Global,
    /// Of those that this identity may bill, for a meter that they are charged for.
    Billable(AgentName),
    /// One customer's.
    Customer(CustomerId),
    /// Nobody's: no customer of the catalogue, or merely told.
    Nobody,
}

/// From, and before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Span {
    /// Whether the two have an instant in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

/// Why a finding keeps no invoice back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cover {
    /// A person has said so, in the entry of this number; a run's own reason is in the entries that it books.
    Waiver { entry: Option<u64>, actor: String, reason: String },
    /// A policy of the catalogue has.
    Policy { name: String, signed_by: String },
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams that bear on the time looked at, by state.
    pub streams: BTreeMap<&'static str, u64>,
    pub events_accepted: u64,
    pub events_posted: u64,
    pub events_quarantined: u64,
    pub events_in_transit: u64,
    /// Of the calculation check: batches and rows of the totals that were read.
    pub batches: u64,
    pub rows: u64,
}

/// How much is recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Streams, suspense and lists: what costs no reading of batches.
    Quick,
    /// All totals of the time looked at, from the stored batches; and the books.
    Full,
    /// The totals of the customers and periods that a billing run is about.
    Billed,
}

/// What holds for every reconciliation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub range_millis: i64,
    pub expected: ExpectedSource,
}

impl Default for Settings {
    fn default() -> Self {
        Self { range_millis: RANGE_DEFAULT_MILLIS, expected: ExpectedSource::Nowhere }
    }
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciliation {
    pub ledger: LedgerId,
    /// The snapshot's ledger time.
    pub as_of: Timestamp,
    /// The cut.
    pub at: Timestamp,
    pub from: Timestamp,
    /// Up to when all that known streams accepted is posted; `None` where one never confirmed.
    pub complete_through: Option<Timestamp>,
    pub depth: Depth,
    /// By class, then id.
    pub findings: Vec<Finding>,
    pub counts: Counts,
}

impl Finding {
    /// Whether an invoice waits for it.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.kind.class().blocks() && self.scope != Scope::Nobody && self.cover.is_none()
    }
}

impl Depth {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Billed => "billed",
        }
    }
}

/// The newest cut up to which every stream that is not silent should have confirmed.
#[must_use]
pub fn default_cut(snapshot: &Snapshot) -> Bucket {
    let confirmed = snapshot.as_of.plus_millis(snapshot.silent_after_millis.saturating_neg());
    Bucket::of(confirmed).unwrap_or_default()
}

/// By what streams are judged now: who is lost, and since when.
///
/// # Errors
/// If declarations cannot be read.
pub fn judged<T>(
    catalog: &Catalog,
    snapshot: &Snapshot,
    ask: impl FnOnce(&Judging<'_>) -> T,
) -> Result<T, StoreError> {
    let now = snapshot.as_of;
    Ok(ask(&Judging {
        now,
        span: Span { from: Timestamp(0), to: now },
        silent_after_millis: snapshot.silent_after_millis,
        losses: &losses(&*snapshot.books)?,
        policies: &catalog.policies,
    }))
}

/// One snapshot, and what it is judged by.
#[derive(Debug)]
pub struct Reconciling<'a> {
    pub ledger: &'a Ledger,
    pub catalog: &'a Catalog,
    pub snapshot: &'a Snapshot,
    pub settings: &'a Settings,
    /// Of a billing run that issues although usage may be missing.
    pub run: Option<&'a RunWaiver>,
}

impl Reconciling<'_> {
    /// Looks at the time up to the cut `at`: all, but what needs the batches. Blocks.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn quick(&self, at: Bucket) -> Result<Reconciliation, LedgerError> {
        let Self { catalog, snapshot, .. } = self;
        let at = at.start();
        let span =
            Span { from: at.plus_millis(self.settings.range_millis.saturating_neg()), to: at };
        let losses = losses(&*snapshot.books)?;
        let judging = Judging {
            now: snapshot.as_of,
            span,
            silent_after_millis: snapshot.silent_after_millis,
            losses: &losses,
            policies: &catalog.policies,
        };
        let records = &snapshot.records;
        let mut findings = judging.findings(records);
        findings.extend(expected::findings(&self.settings.expected.read(), snapshot, span)?);
        findings.extend(suspense::findings(catalog, snapshot, span)?);
        findings.extend(told::findings(snapshot, span)?);
        self.cover(&mut findings)?;
        let mut counts = Counts::of_retired(snapshot.retired());
        for record in records {
            counts.take(judging.state_of(record), &record.status());
        }
        Ok(Reconciliation {
            ledger: snapshot.ledger,
            as_of: snapshot.as_of,
            at,
            from: span.from,
            complete_through: judging.complete_through(snapshot).through,
            depth: Depth::Quick,
            findings,
            counts,
        })
    }

    /// Adds what the stored batches say of the totals that are wanted, and what the books say of themselves. Blocks.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn deepen(
        &self,
        quick: &Reconciliation,
        wanted: Wanted<'_>,
    ) -> Result<Reconciliation, LedgerError> {
        let mut deep = quick.clone();
        let span = Span { from: quick.from, to: quick.at };
        let checked =
            calculation::Check::new((self.ledger, self.catalog), self.snapshot, span, wanted)?
                .run()?;
        deep.depth = match wanted {
            Wanted::Everything => Depth::Full,
            Wanted::Only(_) => Depth::Billed,
        };
        deep.findings.extend(checked.findings);
        deep.findings.extend(calculation::of_books(&*self.snapshot.books, span)?);
        if deep.depth == Depth::Full {
            exposed::estimate(self.catalog, self.snapshot, &mut deep.findings);
        }
        (deep.counts.batches, deep.counts.rows) = (checked.batches, checked.rows);
        self.cover(&mut deep.findings)?;
        Ok(deep)
    }

    /// Waivers, then policies; and the order of findings.
    fn cover(&self, findings: &mut [Finding]) -> Result<(), LedgerError> {
        waiver::apply(findings, &waivers(&*self.snapshot.books)?, self.run);
        policy::apply(findings, &self.catalog.policies);
        let class = |finding: &Finding| finding.kind.class();
        findings.sort_by(|left, right| {
            class(left).cmp(&class(right)).then_with(|| left.id.cmp(&right.id))
        });
        Ok(())
    }
}

impl Counts {
    /// Streams that retired are closed, and whole.
    fn of_retired(sums: &RetiredSums) -> Self {
        let closed = (sums.streams > 0).then_some((StreamState::Closed.name(), sums.streams));
        Self {
            streams: closed.into_iter().collect(),
            events_accepted: sums.accepted,
            events_posted: sums.posted_events(),
            events_quarantined: sums.quarantined_events,
            events_in_transit: sums.in_transit,
            ..Self::default()
        }
    }

    fn take(&mut self, state: &'static str, status: &StreamStatus) {
        let count = self.streams.entry(state).or_default();
        *count = count.saturating_add(1);
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.events_accepted, status.accepted);
        add(&mut self.events_posted, status.posted_events);
        add(&mut self.events_quarantined, status.quarantined_events);
        add(&mut self.events_in_transit, status.in_transit);
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests;
