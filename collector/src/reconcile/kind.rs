//! The kinds of findings.
//!
//! **Owns** their names, and which keep invoices back. **Does not own** when one is found.

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// What was accepted may not all be posted.
    Completeness,
    /// Who should report is not known.
    Expected,
    /// Figures that should be the same are not.
    Calculation,
    /// Posted usage that no bill has.
    Suspense,
    /// Told, and nobody's invoice waits for it.
    Informational,
}

/// What is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Batches are neither in the ledger nor in their journal.
    Missing,
    /// Sealed batches are on their way.
    Backlog,
    /// It confirms, but has not yet confirmed up to the cut.
    Unconfirmed,
    /// It has not confirmed for longer than it should.
    Silent,
    /// It registered, and never confirmed.
    NeverConfirmed,
    /// Its agent will not come again, says a person or a policy.
    Lost,
    /// Another journal showed up under its id.
    Conflict,
    /// Batches whose bodies cannot be read.
    Quarantine,
    /// It is closed, and not all that it accepted came.
    ClosedShort,
    /// An expected instance never registered.
    ExpectedMissing,
    /// The list of expected instances cannot be read.
    ExpectedUnreadable,
    /// Totals are not what the stored batches add up to.
    TotalsDiffer,
    /// A stored batch is damaged, or not where it should be.
    DamagedBatch,
    /// Documents, their states and the entries contradict each other.
    DocumentsDiffer,
    /// Charges come out otherwise at a second rater.
    ChargesDiffer,
    UnknownMeter,
    UnknownCustomer,
    Unpriced,
    Unauthorised,
    /// Usage of periods that were invoiced came after.
    Late,
    Rejected,
    Duplicates,
    /// Held back by deduplication over all agents.
    Suppressed,
    /// Without an id, of meters that are deduplicated: counted each time.
    WithoutId,
    KernelDrops,
    SourceGaps,
    /// Metrics of the catalogue that an agent's `metered` excludes.
    ExcludedByMetered,
}

impl Kind {
    pub const ALL: [Self; 27] = {
        use Kind::*;
        [
            Missing,
            Backlog,
            Unconfirmed,
            Silent,
            NeverConfirmed,
            Lost,
            Conflict,
            Quarantine,
            ClosedShort,
            ExpectedMissing,
            ExpectedUnreadable,
            TotalsDiffer,
            DamagedBatch,
            DocumentsDiffer,
            ChargesDiffer,
            UnknownMeter,
            UnknownCustomer,
            Unpriced,
            Unauthorised,
            Late,
            Rejected,
            Duplicates,
            Suppressed,
            WithoutId,
            KernelDrops,
            SourceGaps,
            ExcludedByMetered,
        ]
    };

    #[must_use]
    pub fn class(self) -> Class {
        use Kind::*;
        match self {
            Missing | Backlog | Unconfirmed | Silent | NeverConfirmed | Lost | Conflict
            | Quarantine | ClosedShort => Class::Completeness,
            ExpectedMissing | ExpectedUnreadable => Class::Expected,
            TotalsDiffer | DamagedBatch | DocumentsDiffer | ChargesDiffer => Class::Calculation,
            UnknownMeter | UnknownCustomer | Unpriced | Unauthorised => Class::Suspense,
            Late | Rejected | Duplicates | Suppressed | WithoutId | KernelDrops | SourceGaps
            | ExcludedByMetered => Class::Informational,
        }
    }

    /// Its name in reports, policies and as a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        use Kind::*;
        match self {
            Missing => "missing",
            Backlog => "backlog",
            Unconfirmed => "unconfirmed",
            Silent => "silent",
            NeverConfirmed => "never_confirmed",
            Lost => "lost",
            Conflict => "conflict",
            Quarantine => "quarantine",
            ClosedShort => "closed_short",
            ExpectedMissing => "expected_missing",
            ExpectedUnreadable => "expected_unreadable",
            TotalsDiffer => "totals_differ",
            DamagedBatch => "damaged_batch",
            DocumentsDiffer => "documents_differ",
            ChargesDiffer => "charges_differ",
            UnknownMeter => "unknown_meter",
            UnknownCustomer => "unknown_customer",
            Unpriced => "unpriced",
            Unauthorised => "unauthorised",
            Late => "late",
            Rejected => "rejected",
            Duplicates => "duplicates",
            Suppressed => "suppressed",
            WithoutId => "without_id",
            KernelDrops => "kernel_drops",
            SourceGaps => "source_gaps",
            ExcludedByMetered => "excluded_by_metered",
        }
    }

    /// Whether a policy may cover it: what a bound on events says something about.
    #[must_use]
    pub fn is_coverable(self) -> bool {
        self.class() == Class::Completeness
    }
}

impl Class {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completeness => "completeness",
            Self::Expected => "expected",
            Self::Calculation => "calculation",
            Self::Suspense => "suspense",
            Self::Informational => "informational",
        }
    }

    /// Whether invoices wait for it.
    #[must_use]
    pub fn blocks(self) -> bool {
        match self {
            Self::Completeness | Self::Expected | Self::Calculation | Self::Suspense => true,
            Self::Informational => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Kind::ALL.map(Kind::name).into();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(Kind::ALL.is_sorted());
    }
}
