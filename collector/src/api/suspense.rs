//! `GET /v1/suspense`: posted usage that the catalogue does not explain, and how to explain it.
//!
//! Decided when it is read: once the catalogue learns of a customer, a meter or a price, the usage is
//! on the bill of the period that it was posted for.

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;

use crate::catalog::{Catalog, Unbilled};
use crate::ledger::Snapshot;
use crate::period::Zone;
use crate::usage::{Class, Seen};

use super::Api;
use super::cut::Cut;
use super::problem::Problem;
use super::query::{Pairs, Parameters};

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    suspense: Vec<Entry>,
    #[serde(flatten)]
    cut: Cut,
}

#[derive(Debug, Serialize)]
struct Entry {
    customer: String,
    meter: String,
    reason: &'static str,
    remedy: &'static str,
    events: u64,
    /// The first and the last 15 minutes that have some.
    first: String,
    last: String,
}

pub(super) async fn handle(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    Parameters::new(pairs, &[])?;
    api.read(answer).await.map(Json)
}

fn answer(catalog: &Catalog, snapshot: &Snapshot) -> Result<Answer, Problem> {
    let utc = Zone::utc();
    let entries = snapshot.seen()?.into_iter().filter_map(|seen| {
        let reason = reason(catalog, &seen)?;
        Some(Entry {
            customer: seen.customer.into(),
            meter: seen.meter.into(),
            reason: reason.name(),
            remedy: reason.remedy(),
            events: seen.events,
            first: utc.rfc3339(seen.first.start()),
            last: utc.rfc3339(seen.last.start()),
        })
    });
    Ok(Answer { suspense: entries.collect(), cut: Cut::of(snapshot, &utc) })
}

/// Why this usage is on no bill; `None` if it is on one.
pub(super) fn reason(catalog: &Catalog, seen: &Seen) -> Option<Unbilled> {
    match seen.class {
        Class::Unauthorised => Some(Unbilled::Unauthorised),
        Class::Normal if !catalog.customers.contains_key(&seen.customer) => {
            Some(Unbilled::UnknownCustomer)
        }
        Class::Normal => catalog.unbilled(&seen.meter),
    }
}
