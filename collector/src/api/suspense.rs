//! `GET /v1/suspense?limit=&after=`: posted usage that the catalogue does not explain, and how to explain it.
//!
//! Decided when it is read: once the catalogue learns of a customer, a meter or a price, the usage is
//! on the bill of the period that it was posted for.
//!
//! Limits: an answer has at most `limit` entries and looks at [`LOOKED_AT_MAX`] (customer, meter) pairs;
//! where it ends before all are looked at, its `next` is the `after` of the next one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;

use tidemark_common::hex;
use tidemark_common::time::Timestamp;

use crate::catalog::{Catalog, Unbilled};
use crate::ledger::store::StoreError;
use crate::ledger::{Snapshot, codec};
use crate::period::Zone;
use crate::usage::{Seen, SeenAs};

use super::Api;
use super::cut::Cut;
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};

/// Without `limit`, an answer has at most this many entries.
const LIMIT_DEFAULT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
/// An answer looks at no more pairs of customer and meter, explained or not.
const LOOKED_AT_MAX: usize = 100_000;
/// A count is used for this long.
const COUNT_AGE_MILLIS_MAX: i64 = 60_000;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    suspense: Vec<Entry>,
    /// Null where nothing follows.
    next: Option<String>,
    #[serde(flatten)]
    cut: Cut,
}

#[derive(Debug, Serialize)]
struct Entry {
    customer: String,
    meter: String,
    reason: &'static str,
    remedy: &'static str,
    /// Who sent it, of what is unauthorised.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    events: u64,
    /// The first and the last 15 minutes that have some.
    first: String,
    last: String,
}

pub(super) async fn handle(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    let page = page(pairs)?;
    api.read(move |catalog, snapshot| answer(catalog, snapshot, &page)).await.map(Json)
}

/// Which part of all that is in suspense.
#[derive(Debug)]
struct Page {
    limit: usize,
    looked_at_max: usize,
    /// A [`codec::seen_key`], or nothing.
    after: Vec<u8>,
}

fn page(pairs: Pairs) -> Result<Page, Problem> {
    let parameters = Parameters::new(pairs, &["limit", "after"])?;
    let limit = parameters.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = hex::decode(parameters.get("after").unwrap_or_default()).ok_or_else(|| {
        bad("after", "is no answer's `next`", "copy `next` of the answer before, or leave it out")
    })?;
    Ok(Page { limit, looked_at_max: LOOKED_AT_MAX, after })
}

fn answer(catalog: &Catalog, snapshot: &Snapshot, page: &Page) -> Result<Answer, Problem> {
    let utc = Zone::utc();
    let (mut entries, mut looked_at, mut last, mut more) = (Vec::new(), 0_usize, Vec::new(), false);
    snapshot.visit_seen(&page.after, |seen| {
        if entries.len() == page.limit || looked_at == page.looked_at_max {
            more = true;
            return ControlFlow::Break(());
        }
        looked_at = looked_at.saturating_add(1);
        last = codec::seen_key(&seen.customer, &seen.meter, &seen.seen_as);
        if let Some(reason) = reason(catalog, &seen) {
            let agent = match seen.seen_as {
                SeenAs::Normal | SeenAs::Suppressed => None,
                SeenAs::Unauthorised(agent) => Some(agent.to_string()),
            };
            entries.push(Entry {
                customer: seen.customer.into(),
                meter: seen.meter.into(),
                reason: reason.name(),
                remedy: reason.remedy(),
                agent,
                events: seen.events,
                first: utc.rfc3339(seen.first.start()),
                last: utc.rfc3339(seen.last.start()),
            });
        }
        ControlFlow::Continue(())
    })?;
    let next = more.then(|| hex::encode(&last));
    Ok(Answer { suspense: entries, next, cut: Cut::of(catalog, snapshot, &utc)? })
}

/// How many events are in suspense, by reason. A count looks at every pair of customer and meter, so
/// it is used again for a while.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Option<(Timestamp, BTreeMap<Unbilled, u64>)>>);

impl Counts {
    pub(super) fn read(
        &self,
        catalog: &Catalog,
        snapshot: &Snapshot,
    ) -> Result<BTreeMap<Unbilled, u64>, StoreError> {
        // Whoever else asks meanwhile waits for this count.
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = snapshot.ledger_time();
        if let Some((at, counts)) = &*held
            && now.millis_since(*at) < COUNT_AGE_MILLIS_MAX
        {
            return Ok(counts.clone());
        }
        let mut counts: BTreeMap<Unbilled, u64> = BTreeMap::new();
        snapshot.visit_seen(&[], |seen| {
            if let Some(reason) = reason(catalog, &seen) {
                let events = counts.entry(reason).or_default();
                *events = events.saturating_add(seen.events);
            }
            ControlFlow::Continue(())
        })?;
        *held = Some((now, counts.clone()));
        Ok(counts)
    }
}

/// Why this usage is on no bill; `None` if it is on one.
pub(super) fn reason(catalog: &Catalog, seen: &Seen) -> Option<Unbilled> {
    match &seen.seen_as {
        SeenAs::Unauthorised(_) => Some(Unbilled::Unauthorised),
        // Billed once, by the event that came first.
        SeenAs::Suppressed => None,
        SeenAs::Normal => catalog.unbilled(&seen.customer, &seen.meter),
    }
}
