//! Live usage: what is in the totals plus what is admitted and not folded yet, as of one cut.
//!
//! **Owns** how the two are added. **Does not own** prices or the catalogue, or the order in which a
//! snapshot is taken: the tail first, then the totals, so that nothing is missing or counted twice.
//!
//! A read shows rows one by one and gathers none: its memory is what the reader makes of them.
//!
//! Reads block (they read a file): call them off the async tasks. They never block the writer.

mod retired;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use tidemark_common::batch::{Line, LineKey};
use tidemark_common::id::{CustomerId, LedgerId, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

use crate::ledger::books::correction::Corrections;
use crate::ledger::codec;
use crate::ledger::completeness::{self, Completeness};
use crate::ledger::retired::RetiredSums;
use crate::ledger::store::{Books, Retired, StoreError, Totals, UsageQuestion};
use crate::ledger::stream::{StreamRecord, StreamStatus};
use crate::ledger::tail::{ClassedLine, Tail, TailBatch};
use crate::usage::{Accumulator, Class, Seen, SeenAs, Sign, UsageRow};

/// The ledger at one moment: every stream's posted sequence, and the usage up to exactly there.
pub struct Snapshot {
    pub(crate) ledger: LedgerId,
    pub(crate) as_of: Timestamp,
    pub(crate) restored_at: Option<Timestamp>,
    pub(crate) silent_after_millis: i64,
    pub(crate) tail: Arc<Tail>,
    pub(crate) totals: Box<dyn Totals>,
    pub(crate) books: Box<dyn Books>,
    /// The live streams, ascending by id.
    pub(crate) records: Vec<Arc<StreamRecord>>,
    pub(crate) statuses: OnceLock<Vec<StreamStatus>>,
    /// Of the live streams.
    pub(crate) agents: OnceLock<BTreeSet<AgentName>>,
    pub(crate) retired: Box<dyn Retired>,
    pub(crate) retired_sums: Arc<RetiredSums>,
}

/// Usage that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("failed to read usage: the range holds more than {rows_max} rows")]
    TooManyRows { rows_max: u64 },
}

impl Snapshot {
    #[must_use]
    pub fn ledger(&self) -> LedgerId {
        self.ledger
    }

    /// The ledger time at which the snapshot was taken.
    #[must_use]
    pub fn ledger_time(&self) -> Timestamp {
        self.as_of
    }

    /// The ledger time at which the ledger was last restored from a backup.
    #[must_use]
    pub fn restored_at(&self) -> Option<Timestamp> {
        self.restored_at
    }

    /// Whether a stream that was open in the backup has not been heard of since the restore: what its agent
    /// had posted after the backup is not here, and nobody knows how much that is.
    #[must_use]
    pub fn is_unheard_since_restore(&self, status: &StreamStatus) -> bool {
        status.state.is_unheard_since(status.last_heard, self.restored_at)
    }

    /// Shows a customer's usage, row by row, with what persons have corrected of it: rows of one key come several times, in no order, and a
    /// distinct value counts as a row. What `visit` makes of them is all that a read holds.
    ///
    /// # Errors
    /// If the totals cannot be read, there are more rows than `rows_max`, or `visit` failed.
    pub fn visit_usage<E: From<ReadError>>(
        &self,
        question: &UsageQuestion<'_>,
        rows_max: u64,
        mut visit: impl FnMut(UsageRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut rows, mut failed) = (0_u64, None);
        let corrections = Corrections::of(&*self.books, question).map_err(ReadError::from)?;
        let mut show = |row: UsageRow| {
            let uniques = u64::try_from(row.usage.uniques.len()).unwrap_or(u64::MAX);
            rows = rows.saturating_add(uniques.max(1));
            let shown = if rows > rows_max {
                Err(ReadError::TooManyRows { rows_max }.into())
            } else {
                visit(row)
            };
            failed = shown.err();
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut show_posted = |row: UsageRow| {
            if corrections.replace(&row) { ControlFlow::Continue(()) } else { show(row) }
        };
        let posted =
            self.totals.visit_usage(question, &mut show_posted).map_err(ReadError::from)?;
        if posted.is_continue() {
            let unfolded = self.unfolded().map_err(ReadError::from)?;
            let mut lines = unfolded
                .flat_map(|batch| batch.lines.of(question.customer))
                .filter(|classed| asked(question, &classed.line.key));
            let shown = lines.try_for_each(|classed| show_posted(row_of(classed)));
            if shown.is_continue() {
                let _shown = corrections.into_rows().try_for_each(show);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// How many events were posted and are billed, whatever persons corrected.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn posted_events(&self, question: &UsageQuestion<'_>) -> Result<u64, ReadError> {
        let mut events = 0_u64;
        let mut count = |row: UsageRow| {
            if row.class == Class::Normal {
                events = events.saturating_add(row.usage.events);
            }
            ControlFlow::Continue(())
        };
        let _all = self.totals.visit_usage(question, &mut count)?;
        for batch in self.unfolded()? {
            let lines = batch.lines.of(question.customer).iter();
            for classed in lines.filter(|classed| asked(question, &classed.line.key)) {
                let _goes_on = count(row_of(classed));
            }
        }
        Ok(events)
    }

    /// Shows every (customer, meter, as what) that usage was ever posted of and whose
    /// [`codec::seen_key`] is greater than `after`, ascending, until `visit` breaks.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn visit_seen(
        &self,
        after: &[u8],
        mut visit: impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut recent = self.recently_seen(after)?;
        let mut show = |seen: Seen| {
            let key = codec::seen_key(&seen.customer, &seen.meter, &seen.seen_as);
            while let Some(first) = recent.first_entry().filter(|first| *first.key() < key) {
                visit(first.remove())?;
            }
            visit(match recent.remove(&key) {
                Some(recent) => both(seen, &recent),
                None => seen,
            })
        };
        if self.totals.visit_seen(after, &mut show)?.is_continue() {
            let _shown = recent.into_values().try_for_each(visit);
        }
        Ok(())
    }

    /// What the tail holds beyond the totals, by [`codec::seen_key`].
    fn recently_seen(&self, after: &[u8]) -> Result<BTreeMap<Vec<u8>, Seen>, StoreError> {
        let mut recent: BTreeMap<Vec<u8>, Seen> = BTreeMap::new();
        let lines = self
            .unfolded()?
            .flat_map(|batch| batch.lines.iter().map(move |line| (&batch.agent, line)));
        for (agent, ClassedLine { class, line: Line { key, value }, .. }) in lines {
            let seen = Seen {
                customer: key.customer.clone(),
                meter: key.meter.clone(),
                seen_as: SeenAs::of(*class, agent),
                events: value.events,
                first: key.bucket,
                last: key.bucket,
            };
            let key = codec::seen_key(&seen.customer, &seen.meter, &seen.seen_as);
            if key.as_slice() > after {
                let seen = match recent.get(&key) {
                    Some(held) => both(seen, held),
                    None => seen,
                };
                recent.insert(key, seen);
            }
        }
        Ok(recent)
    }

    /// Every live stream's posted sequence, ascending by id.
    pub fn posted(&self) -> impl ExactSizeIterator<Item = (StreamId, Sequence)> {
        self.records.iter().map(|record| (record.stream, record.posted_sequence))
    }

    /// Every live stream, ascending by id.
    pub fn streams(&self) -> &[StreamStatus] {
        self.statuses.get_or_init(|| self.records.iter().map(|record| record.status()).collect())
    }

    /// Up to when everything accepted is posted, and which streams hold that back.
    #[must_use]
    pub fn complete_through(&self) -> Completeness {
        completeness::complete_through(&self.records, self.as_of, self.silent_after_millis)
    }

    /// Events that are known to be accepted and not to be here yet.
    #[must_use]
    pub fn in_transit(&self) -> u64 {
        let retired = self.retired_sums.in_transit;
        self.records.iter().fold(retired, |sum, record| sum.saturating_add(record.in_transit()))
    }

    /// Before which of the ledger's positions all batches are here.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn batches(&self) -> Result<u64, StoreError> {
        let folded = self.totals.end_position()?;
        Ok(self.tail.iter().fold(folded, |end, batch| end.max(batch.position.saturating_add(1))))
    }

    /// Events in all rows of the totals and lines of the tail: what [`Self::visit_usage`] draws from.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn events_by_lines(&self) -> Result<u64, StoreError> {
        let folded = self.totals.events()?;
        Ok(self.unfolded()?.fold(folded, |sum, batch| sum.saturating_add(batch.lines.events())))
    }

    /// What the tail holds beyond the totals, line by line.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn unfolded_rows(
        &self,
    ) -> Result<impl Iterator<Item = (&CustomerId, UsageRow)>, StoreError> {
        let lines = self.unfolded()?.flat_map(|batch| batch.lines.iter());
        Ok(lines.map(|classed| (&classed.line.key.customer, row_of(classed))))
    }

    /// The tail's batches that these totals do not hold.
    pub(crate) fn unfolded(&self) -> Result<impl Iterator<Item = &Arc<TailBatch>>, StoreError> {
        let streams = self.tail.iter().map(|batch| batch.stream).collect();
        let folded = self.totals.folded_sequences(streams)?;
        let beyond = move |batch: &&Arc<TailBatch>| {
            folded.get(&batch.stream).is_none_or(|last| batch.sequence > *last)
        };
        Ok(self.tail.iter().filter(beyond))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("ledger", &self.ledger)
            .field("as_of", &self.as_of)
            .finish_non_exhaustive()
    }
}

fn row_of(ClassedLine { class, line, .. }: &ClassedLine) -> UsageRow {
    UsageRow {
        class: *class,
        sign: Sign::Added,
        meter: line.key.meter.clone(),
        dimensions: line.key.dimensions.clone(),
        bucket: line.key.bucket,
        usage: Accumulator::from(&line.value),
    }
}

/// What two figures of one key say together.
fn both(seen: Seen, other: &Seen) -> Seen {
    Seen {
        events: seen.events.saturating_add(other.events),
        first: seen.first.min(other.first),
        last: seen.last.max(other.last),
        ..seen
    }
}

fn asked(question: &UsageQuestion<'_>, key: &LineKey) -> bool {
    question.covers(key.bucket) && question.meter.is_none_or(|meter| *meter == key.meter)
}
