//! The ledger's store as the world uses it: the product's own, with room for planted bugs around it.
//!
//! **Owns** nothing but those bugs; without one, every call is passed on as it is.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{HashMap, HashSet};
use tidemark_collector::dedupe::Verdict;
use tidemark_collector::ledger::fold::FoldSlice;
use tidemark_collector::ledger::redb::RedbStore;
use tidemark_collector::ledger::request::{Admission, Reply, Request};
use tidemark_collector::ledger::store::{
    Books, Committed, LedgerStore, Retired, StoreError, Totals, UsageQuestion, Visit, VisitBatch,
    VisitStored, VisitSuppressed, WhichBatches,
};
use tidemark_collector::usage::{Seen, UsageRow};
use tidemark_common::batch::{HEADER_BYTES, Header};
use tidemark_common::id::{CustomerId, Sequence, StreamId};
use tidemark_common::time::{Bucket, Timestamp};

use super::planted::Bug;

/// A store with a bug, or without.
#[derive(Debug)]
pub struct PlantedStore {
    pub inner: RedbStore,
    bug: Option<Bug>,
    skipped: Mutex<HashMap<StreamId, Skipped>>,
}

/// A stream of which a batch was skipped, and the last batch that went through.
#[derive(Debug, Clone, Copy)]
struct Skipped {
    last: Option<Header>,
    one_is: bool,
}

impl PlantedStore {
    #[must_use]
    pub fn new(inner: RedbStore, bug: Option<Bug>) -> Self {
        Self { inner, bug, skipped: Mutex::new(HashMap::new()) }
    }

    /// A batch is left out, and those after it close the gap.
    fn skip(&self, group: Vec<Request>) -> (Vec<Request>, Vec<(usize, Reply)>) {
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rest, mut answered) = (Vec::new(), Vec::new());
        for (index, request) in group.into_iter().enumerate() {
            let Request::Admit(mut admission) = request else {
                rest.push(request);
                continue;
            };
            let header = admission.header;
            let known =
                skipped.entry(header.stream).or_insert(Skipped { last: None, one_is: false });
            if known.one_is {
                if let Some(last) = known.last {
                    close_gap(&mut admission, &last);
                }
                known.last = Some(admission.header);
                rest.push(Request::Admit(admission));
            } else if known.last.is_some() && header.sequence.0 % 5 == 4 {
                known.one_is = true;
                let posted = header.sequence;
                let judged =
                    Reply::Judged { verdict: Verdict::Admit, posted, openings: Vec::new() };
                answered.push((index, judged));
            } else {
                known.last = Some(header);
                rest.push(Request::Admit(admission));
            }
        }
        (rest, answered)
    }
}

fn close_gap(admission: &mut Admission, last: &Header) {
    let header = admission.header;
    admission.header = Header {
        sequence: last.sequence.next(),
        previous: last.digest(),
        first_event: last.end_event,
        end_event: last.end_event.plus(header.events()),
        ..header
    };
    admission.digest = admission.header.digest();
    admission.bytes[..HEADER_BYTES].copy_from_slice(&admission.header.encode());
}

impl LedgerStore for PlantedStore {
    async fn commit(
        &self,
        group: Vec<Request>,
        at: Timestamp,
        clock_limit: Option<Timestamp>,
    ) -> Result<Committed, StoreError> {
        if self.bug != Some(Bug::GapSkipped) {
            return self.inner.commit(group, at, clock_limit).await;
        }
        let (rest, answered) = self.skip(group);
        let mut committed = self.inner.commit(rest, at, clock_limit).await?;
        for (index, reply) in answered {
            committed.replies.insert(index, reply);
        }
        Ok(committed)
    }

    async fn fold(&self, slice: Arc<FoldSlice>) -> Result<(), StoreError> {
        if self.bug != Some(Bug::TailDropped) {
            return self.inner.fold(slice).await;
        }
        let mut totals = slice.totals.clone();
        totals.pop_last();
        let less = FoldSlice {
            streams: slice.streams.clone(),
            totals,
            seen: slice.seen.clone(),
            index: slice.index.clone(),
            ..FoldSlice::default()
        };
        let less = FoldSlice {
            end_position: slice.end_position,
            batches: slice.batches,
            lines: slice.lines,
            events: slice.events,
            ..less
        };
        self.inner.fold(Arc::new(less)).await
    }

    fn books(&self) -> Result<Box<dyn Books>, StoreError> {
        self.inner.books()
    }

    fn retired(&self) -> Result<Box<dyn Retired>, StoreError> {
        self.inner.retired()
    }

    fn visit_batches(&self, which: WhichBatches, visit: VisitBatch<'_>) -> Result<(), StoreError> {
        self.inner.visit_batches(which, visit)
    }

    fn visit_suppressed(
        &self,
        position: u64,
        visit: VisitSuppressed<'_>,
    ) -> Result<(), StoreError> {
        self.inner.visit_suppressed(position, visit)
    }

    fn visit_stored(&self, visit: VisitStored<'_>) -> Result<(), StoreError> {
        self.inner.visit_stored(visit)
    }

    fn totals(&self) -> Result<Box<dyn Totals>, StoreError> {
        let totals = self.inner.totals()?;
        Ok(match self.bug {
            Some(Bug::TailDoubled) => Box::new(Doubled(totals)),
            _ => totals,
        })
    }

    async fn batch(
        &self,
        stream: StreamId,
        sequence: Sequence,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.batch(stream, sequence).await
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.inner.checkpoint().await
    }
}

/// Totals whose rows are newer than the sequences that they name.
struct Doubled(Box<dyn Totals>);

impl Totals for Doubled {
    fn visit_usage(
        &self,
        question: &UsageQuestion<'_>,
        visit: Visit<'_, UsageRow>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut twice = |row: UsageRow| {
            if row.usage.events % 7 == 3 {
                visit(row.clone())?;
            }
            visit(row)
        };
        self.0.visit_usage(question, &mut twice)
    }

    fn visit_all(
        &self,
        from: Bucket,
        to: Bucket,
        visit: &mut dyn FnMut(&CustomerId, UsageRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut twice = |customer: &CustomerId, row: UsageRow| {
            if row.usage.events % 7 == 3 {
                visit(customer, row.clone())?;
            }
            visit(customer, row)
        };
        self.0.visit_all(from, to, &mut twice)
    }

    fn visit_seen(
        &self,
        after: &[u8],
        visit: Visit<'_, Seen>,
    ) -> Result<ControlFlow<()>, StoreError> {
        self.0.visit_seen(after, visit)
    }

    fn folded_sequences(
        &self,
        streams: HashSet<StreamId>,
    ) -> Result<HashMap<StreamId, Sequence>, StoreError> {
        self.0.folded_sequences(streams)
    }

    fn end_position(&self) -> Result<u64, StoreError> {
        self.0.end_position()
    }

    fn events(&self) -> Result<u64, StoreError> {
        self.0.events()
    }
}
