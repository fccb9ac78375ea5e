//! What the ledger asks of its storage.
//!
//! **Owns** the trait and its errors. Implementations: `ledger/redb.rs`. All hold to
//! `ledger/conformance.rs`.

use std::fmt::Debug;
use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use thiserror::Error;
use tidemark_common::batch::{Header, LineId};
use tidemark_common::id::{CustomerId, Digest, LedgerId, MeterName, Sequence, StreamId};
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::UniqueKey;

use crate::ledger::duplicates::Suppressed;
use crate::ledger::fold::FoldSlice;
use crate::ledger::request::{Reply, Request};
use crate::ledger::retired::{RetiredStream, RetiredSums};
use crate::ledger::stream::StreamRecord;
use crate::ledger::tail::{CustomerLines, TailBatch};
use crate::usage::{Seen, UsageRow};

/// Storage for one ledger. Every method's effect is one transaction: all of it or nothing.
pub trait LedgerStore: Debug + Send + Sync + 'static {
    /// Judges and applies a group of requests, in order, in one durable transaction, at ledger time
    /// `at`; stores `clock_limit` with it.
    ///
    /// # Errors
    /// Nothing of the group is in the ledger, or that cannot be told: reopen it.
    fn commit(
        &self,
        group: Vec<Request>,
        at: Timestamp,
        clock_limit: Option<Timestamp>,
    ) -> impl Future<Output = Result<Committed, StoreError>> + Send;

    /// Adds a slice to the totals, together with the folded sequences of its streams.
    ///
    /// # Errors
    /// [`StoreError::FoldedElsewhere`] if a stream's folded sequence is not the one before the slice.
    fn fold(&self, slice: Arc<FoldSlice>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The totals as of now. Does not wait for writers.
    ///
    /// # Errors
    /// If the totals cannot be read.
    fn totals(&self) -> Result<Box<dyn Totals>, StoreError>;

    /// The books as of now. Does not wait for writers.
    ///
    /// # Errors
    /// If they cannot be read.
    fn books(&self) -> Result<Box<dyn Books>, StoreError>;

    /// The streams that retired, as of now. Does not wait for writers.
    ///
    /// # Errors
    /// If they cannot be read.
    fn retired(&self) -> Result<Box<dyn Retired>, StoreError>;

    /// Shows the lines of every such batch that can be read, in the order of admission, until `visit` breaks. Reads all that
    /// is stored; blocks; writers do not wait for it.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    fn visit_batches(&self, which: WhichBatches, visit: VisitBatch<'_>) -> Result<(), StoreError>;

    /// Shows the batches with suppressed lines from `position` on, in the order of admission, until `visit` breaks.
    /// Blocks.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    fn visit_suppressed(&self, position: u64, visit: VisitSuppressed<'_>)
    -> Result<(), StoreError>;

    /// Shows every batch as it is stored, in the order of admission, until `visit` breaks: nothing of it is opened or
    /// verified. Blocks; writers do not wait for it.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    fn visit_stored(&self, visit: VisitStored<'_>) -> Result<(), StoreError>;

    /// Header and body of a posted batch, as stored; `None` if it is not in the ledger.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    fn batch(
        &self,
        stream: StreamId,
        sequence: Sequence,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    /// Writes what makes the next start quick. The ledger is complete without it.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    fn checkpoint(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The effect of a group.
#[derive(Debug, Default)]
pub struct Committed {
    /// One for each request, in order.
    pub replies: Vec<Reply>,
    /// The batches admitted, in order.
    pub admitted: Vec<Arc<TailBatch>>,
    /// The streams that changed, as they are now.
    pub streams: Vec<StreamRecord>,
    /// How many of the admitted batches are quarantined.
    pub quarantined: u64,
    /// Events of theirs that were admitted before.
    pub suppressed: u64,
    /// The streams that retired.
    pub retired: Vec<StreamId>,
    /// What all that ever retired come to, if that changed.
    pub retired_sums: Option<RetiredSums>,
}

/// What a store holds when it is opened.
#[derive(Debug)]
pub struct Recovered {
    pub ledger: LedgerId,
    pub unique_key: UniqueKey,
    /// The stored limit of ledger time.
    pub clock_limit: Timestamp,
    /// The ledger time at which the ledger was last restored from a backup.
    pub restored_at: Option<Timestamp>,
    /// The streams that are live.
    pub streams: Vec<StreamRecord>,
    /// What those that retired come to.
    pub retired: RetiredSums,
    /// The batches that are not folded yet.
    pub tail: Vec<Arc<TailBatch>>,
}

/// The totals at one moment. Reads block: not for an async task.
pub trait Totals: Send + Sync {
    /// Shows a customer's rows in the buckets `from..to`, of one meter or all, until `visit` breaks. A
    /// key's distinct values come in rows of their own, which count no events.
    ///
    /// # Errors
    /// If the totals cannot be read.
    fn visit_usage(
        &self,
        question: &UsageQuestion<'_>,
        visit: Visit<'_, UsageRow>,
    ) -> Result<ControlFlow<()>, StoreError>;

    /// Shows everybody's rows in the buckets `from..to`, as [`Self::visit_usage`] does, until `visit` breaks.
    ///
    /// # Errors
    /// If the totals cannot be read.
    fn visit_all(
        &self,
        from: Bucket,
        to: Bucket,
        visit: &mut dyn FnMut(&CustomerId, UsageRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Shows every (customer, meter, as what) in the totals whose [`codec::seen_key`](crate::ledger::codec::seen_key) is greater than `after`,
    /// ascending, until `visit` breaks.
    ///
    /// # Errors
    /// If the totals cannot be read.
    fn visit_seen(
        &self,
        after: &[u8],
        visit: Visit<'_, Seen>,
    ) -> Result<ControlFlow<()>, StoreError>;

    /// Up to where each of these streams is in these totals.
    ///
    /// # Errors
    /// If the totals cannot be read.
    fn folded_sequences(
        &self,
        streams: HashSet<StreamId>,
    ) -> Result<HashMap<StreamId, Sequence>, StoreError>;

    /// Before which of the ledger's positions all batches are in these totals.
    ///
    /// # Errors
    /// If the totals cannot be read.
    fn end_position(&self) -> Result<u64, StoreError>;

    /// Events in all of the totals' rows.
    ///
    /// # Errors
    /// If the totals cannot be read.
    fn events(&self) -> Result<u64, StoreError>;

    /// All rows of [`Self::visit_usage`], distinct values put to the first row of their key.
    #[cfg(test)]
    fn usage(&self, question: &UsageQuestion<'_>) -> Result<Vec<UsageRow>, StoreError> {
        let key =
            |row: &UsageRow| (row.class, row.meter.clone(), row.dimensions.clone(), row.bucket);
        let mut rows: Vec<UsageRow> = Vec::new();
        let mut add = |row: UsageRow| {
            match rows.iter_mut().find(|held| row.usage.events == 0 && key(held) == key(&row)) {
                Some(held) => held.usage.merge(&row.usage).expect("distinct values have no sum"),
                None => rows.push(row),
            }
            ControlFlow::Continue(())
        };
        let _all = self.visit_usage(question, &mut add)?;
        Ok(rows)
    }

    /// All of [`Self::visit_seen`].
    #[cfg(test)]
    fn seen(&self) -> Result<Vec<Seen>, StoreError> {
        let mut all = Vec::new();
        let mut add = |seen| {
            all.push(seen);
            ControlFlow::Continue(())
        };
        let _all = self.visit_seen(&[], &mut add)?;
        Ok(all)
    }

    /// [`Self::folded_sequences`] of one stream.
    #[cfg(test)]
    fn folded_sequence(&self, stream: StreamId) -> Result<Sequence, StoreError> {
        Ok(self.folded_sequences(HashSet::from([stream]))?[&stream])
    }
}

/// The books at one moment. Reads block: not for an async task.
pub trait Books: Send + Sync {
    /// # Errors
    /// If the row cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows rows whose keys begin with `prefix` and are greater than `after`, ascending, until `visit` breaks.
    ///
    /// # Errors
    /// If the rows cannot be read.
    fn visit(&self, prefix: &[u8], after: &[u8], visit: VisitRow<'_>) -> Result<(), StoreError>;
}

/// Bodies of batches that have left the ledger. Reads block.
pub trait StoredBodies: Debug + Send + Sync {
    /// Header and body of the batch with this header, which stood at `position`.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn batch(&self, position: u64, header: &Header) -> Result<Vec<u8>, String>;
}

/// The streams that retired, at one moment. Reads block: not for an async task.
pub trait Retired: Send + Sync {
    /// # Errors
    /// If the row cannot be read.
    fn find(&self, stream: StreamId) -> Result<Option<RetiredStream>, StoreError>;

    /// Shows those that retired at or after `since`, ascending by when, until `visit` breaks.
    ///
    /// # Errors
    /// If the rows cannot be read.
    fn visit_since(
        &self,
        since: Timestamp,
        visit: Visit<'_, RetiredStream>,
    ) -> Result<ControlFlow<()>, StoreError>;

    /// Shows those with a greater id than `after`, ascending by id, until `visit` breaks.
    ///
    /// # Errors
    /// If the rows cannot be read.
    fn visit_after(
        &self,
        after: Option<StreamId>,
        visit: Visit<'_, RetiredStream>,
    ) -> Result<ControlFlow<()>, StoreError>;

    /// Whether a stream of this agent ever retired.
    ///
    /// # Errors
    /// If that cannot be read.
    fn has_agent(&self, agent: &AgentName) -> Result<bool, StoreError>;
}

/// What is shown rows one by one, and says when it has seen enough.
pub type Visit<'v, T> = &'v mut dyn FnMut(T) -> ControlFlow<()>;

/// What is shown the keys and values of rows, and says when it has seen enough.
pub type VisitRow<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Which batches are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhichBatches {
    /// From this position on.
    pub from: u64,
    /// That may have lines in these buckets, both inclusive.
    pub first: Bucket,
    pub last: Bucket,
}

impl WhichBatches {
    /// All that have lines.
    pub const ALL: Self = Self { from: 0, first: Bucket(0), last: Bucket(u32::MAX) };

    /// Whether a batch with this header is one of them, wherever it stands.
    #[must_use]
    pub fn may_be(&self, header: &Header) -> bool {
        header.lines > 0 && header.first_bucket <= self.last && header.last_bucket >= self.first
    }
}

/// A batch that is shown.
#[derive(Debug, Clone, Copy)]
pub struct ShownBatch<'a> {
    pub position: u64,
    pub header: &'a Header,
    /// As stored.
    pub bytes: u64,
    pub lines: &'a CustomerLines,
    /// The ids of lines that are judged by them.
    pub ids: &'a [LineId],
    /// The digest of the raw events that its agent sends to the archive.
    pub raw_events: Option<Digest>,
}

/// What is shown a batch.
pub type VisitBatch<'v> = &'v mut dyn FnMut(&ShownBatch<'_>) -> ControlFlow<()>;

/// What is shown a batch: its position, its header, its lines, and which of them are suppressed.
pub type VisitSuppressed<'v> =
    &'v mut dyn FnMut(u64, &Header, &CustomerLines, &Suppressed) -> ControlFlow<()>;
/// A batch's bytes in the ledger, and what was judged of it when it was admitted.
#[derive(Debug, Clone, Copy)]
pub struct StoredBatch<'a> {
    pub position: u64,
    /// Header and body.
    pub bytes: &'a [u8],
    pub quarantined: bool,
    /// Which of its lines are unauthorised (`ledger/marks.rs`).
    pub marks: &'a [u8],
    /// Which of them were admitted before (`ledger/duplicates.rs`).
    pub suppressed: &'a [u8],
}

/// What is shown a batch as it is stored.
pub type VisitStored<'v> = &'v mut dyn FnMut(&StoredBatch<'_>) -> ControlFlow<()>;

/// Whose usage, of what, when.
#[derive(Debug, Clone, Copy)]
pub struct UsageQuestion<'a> {
    pub customer: &'a CustomerId,
    pub meter: Option<&'a MeterName>,
    pub from: Bucket,
    /// Exclusive.
    pub to: Bucket,
}

impl UsageQuestion<'_> {
    /// Whether the question asks for this bucket.
    #[must_use]
    pub fn covers(&self, bucket: Bucket) -> bool {
        self.from <= bucket && bucket < self.to
    }
}

/// What to do about a damaged file.
fn remedy(file: &str) -> &'static str {
    match file {
        "totals.redb" => "stop the collector and move it away: the next start makes it anew",
        _ => "keep it, and restore a backup with `tidemark-collector restore`",
    }
}

/// The storage failed. It is not retried: the process ends, reopens and verifies.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    #[error("failed to {act} the {file} file: {reason}")]
    Storage { act: &'static str, file: &'static str, reason: String },
    #[error("failed to read the {file} file: {reason}; {remedy}", remedy = remedy(file))]
    Corrupt { file: &'static str, reason: String },
    #[error(
        "failed to open the {file} file: its format {found} is newer than {known}; run a newer collector"
    )]
    Newer { file: &'static str, found: u16, known: u16 },
    #[error(
        "failed to open the ledger: a restore into its folder did not finish; run `tidemark-collector restore` again"
    )]
    HalfRestored,
    #[error(
        "failed to open the {file} file: a collector runs on it, or is just starting or stopping"
    )]
    InUse { file: &'static str },
    #[error(
        "failed to read batch {position}: its body has left the ledger for the archive ({reason}); name that archive as `archive.folder`"
    )]
    BodyLeft { position: u64, reason: String },
    #[error("failed to fold stream {stream}: batch {due} is due, the slice begins at {first}")]
    FoldedElsewhere { stream: StreamId, due: Sequence, first: Sequence },
}

impl StoreError {
    /// Rows of the books that do not hold together.
    #[must_use]
    pub fn books(reason: impl Into<String>) -> Self {
        Self::Corrupt { file: "ledger.redb", reason: format!("books: {}", reason.into()) }
    }
}
