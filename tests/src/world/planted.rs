//! Bugs that the world plants into its own processes, to see that it would find them.
//!
//! **Owns** their list. Each stands at a seam between the product's parts, where the world's shell stands in
//! for the product's, so that the product itself holds no bugs to be switched on.

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// The application is told "accepted" before the commit.
    AckBeforeSync,
    /// The journal's disk forgets to sync.
    JournalNotSynced,
    /// The ledger's disk forgets to sync.
    LedgerNotSynced,
    /// The collector acknowledges a batch before its commit.
    PostedBeforeCommit,
    /// The idempotency key holds the time of sending.
    KeyHoldsTime,
    /// The window of ids is forgotten at a restart.
    IdsForgotten,
    /// A batch that is sent again is numbered and made anew.
    Resequenced,
    /// A batch that was lost on the way is skipped.
    GapSkipped,
    /// The agent resumes one batch too late.
    ResumedTooFar,
    /// Of what is folded, a line never reaches the totals.
    TailDropped,
    /// A reader takes the tail and newer totals: what was folded in between counts twice.
    TailDoubled,
    /// Retained batches are sent to another ledger.
    SentToOtherLedger,
    /// Counts of evidence begin anew after a kill.
    EvidenceLost,
    /// A Confirm is answered without a barrier.
    ConfirmedUnasked,
    /// Ledger time does not begin at its stored limit.
    LedgerTimeFell,
    /// A new journal goes on under the former stream's id.
    StreamReused,
    /// Raw events are said to be archived before they are.
    RawEventsSaidEarly,
}

impl Bug {
    pub const ALL: [Self; 17] = [
        Self::AckBeforeSync,
        Self::JournalNotSynced,
        Self::LedgerNotSynced,
        Self::PostedBeforeCommit,
        Self::KeyHoldsTime,
        Self::IdsForgotten,
        Self::Resequenced,
        Self::GapSkipped,
        Self::ResumedTooFar,
        Self::TailDropped,
        Self::TailDoubled,
        Self::SentToOtherLedger,
        Self::EvidenceLost,
        Self::ConfirmedUnasked,
        Self::LedgerTimeFell,
        Self::StreamReused,
        Self::RawEventsSaidEarly,
    ];

    /// The bug by its name, as `Debug` writes it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    }
}
