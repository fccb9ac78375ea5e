//! Live usage: what is in the totals plus what is admitted and not folded yet, as of one cut.
//!
//! **Owns** how the two are added. **Does not own** prices or the catalogue, or the order in which a
//! snapshot is taken: the tail first, then the totals, so that nothing is missing or counted twice.
//!
//! Reads block (they read a file): call them off the async tasks. They never block the writer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;

use hashbrown::HashMap;
use tidemark_common::batch::{Dimensions, Line};
use tidemark_common::id::{CustomerId, LedgerId, MeterName, Sequence, StreamId};
use tidemark_common::time::{Bucket, Timestamp};

use crate::ledger::completeness::{self, Completeness};
use crate::ledger::store::{StoreError, Totals, UsageQuestion};
use crate::ledger::stream::{StreamRecord, StreamStatus};
use crate::ledger::tail::{Tail, TailBatch};
use crate::usage::{Accumulator, Class, Seen, UsageRow};

/// The ledger at one moment: every stream's posted sequence, and the usage up to exactly there.
pub struct Snapshot {
    pub(crate) ledger: LedgerId,
    pub(crate) as_of: Timestamp,
    pub(crate) silent_after_millis: i64,
    pub(crate) tail: Arc<Tail>,
    pub(crate) totals: Box<dyn Totals>,
    pub(crate) records: Vec<Arc<StreamRecord>>,
    pub(crate) statuses: OnceLock<Vec<StreamStatus>>,
}

type RowKey = (MeterName, Dimensions, Bucket, Class);

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

    /// A customer's usage in the buckets `from..to`, of one meter or all, by meter, dimensions, bucket.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn usage(
        &self,
        customer: &CustomerId,
        meter: Option<&MeterName>,
        from: Bucket,
        to: Bucket,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let question = UsageQuestion { customer, meter, from, to };
        let mut rows: BTreeMap<RowKey, Vec<Accumulator>> = BTreeMap::new();
        for row in self.totals.usage(&question)? {
            let key = (row.meter, row.dimensions, row.bucket, row.class);
            row.usage.merge_into_parts(rows.entry(key).or_default());
        }
        for batch in self.unfolded()? {
            for line in batch.lines.of(customer).iter().filter(|line| asked(&question, line)) {
                let key = (
                    line.key.meter.clone(),
                    line.key.dimensions.clone(),
                    line.key.bucket,
                    Class::Normal,
                );
                Accumulator::from(&line.value).merge_into_parts(rows.entry(key).or_default());
            }
        }
        let row = |((meter, dimensions, bucket, class), parts): (RowKey, Vec<Accumulator>)| {
            let row = move |usage| UsageRow {
                class,
                meter: meter.clone(),
                dimensions: dimensions.clone(),
                bucket,
                usage,
            };
            parts.into_iter().map(row)
        };
        Ok(rows.into_iter().flat_map(row).collect())
    }

    /// Every (customer, meter, class) that usage was ever posted of.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn seen(&self) -> Result<Vec<Seen>, StoreError> {
        let mut all: BTreeMap<(CustomerId, MeterName, Class), Seen> = BTreeMap::new();
        let mut add = |seen: Seen| {
            let key = (seen.customer.clone(), seen.meter.clone(), seen.class);
            all.entry(key)
                .and_modify(|held| {
                    held.events = held.events.saturating_add(seen.events);
                    held.first = held.first.min(seen.first);
                    held.last = held.last.max(seen.last);
                })
                .or_insert(seen);
        };
        self.totals.seen()?.into_iter().for_each(&mut add);
        for batch in self.unfolded()? {
            for Line { key, value } in batch.lines.iter() {
                add(Seen {
                    customer: key.customer.clone(),
                    meter: key.meter.clone(),
                    class: Class::Normal,
                    events: value.events,
                    first: key.bucket,
                    last: key.bucket,
                });
            }
        }
        Ok(all.into_values().collect())
    }

    /// Every stream, ascending by id.
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
        self.records.iter().fold(0, |sum, record| sum.saturating_add(record.in_transit()))
    }

    /// Events in all rows of the totals and lines of the tail: what [`Self::usage`] draws from.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn events_by_lines(&self) -> Result<u64, StoreError> {
        let folded = self.totals.events()?;
        Ok(self.unfolded()?.fold(folded, |sum, batch| sum.saturating_add(batch.lines.events())))
    }

    /// The tail's batches that these totals do not hold.
    fn unfolded(&self) -> Result<impl Iterator<Item = &Arc<TailBatch>>, StoreError> {
        let mut folded: HashMap<StreamId, Sequence> = HashMap::new();
        for batch in self.tail.iter() {
            if !folded.contains_key(&batch.stream) {
                folded.insert(batch.stream, self.totals.folded_sequence(batch.stream)?);
            }
        }
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

fn asked(question: &UsageQuestion<'_>, line: &Line) -> bool {
    question.covers(line.key.bucket) && question.meter.is_none_or(|meter| *meter == line.key.meter)
}
