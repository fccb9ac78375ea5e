//! Posted usage that no bill has, and what came again.
//!
//! **Owns** which findings that comes to. **Does not own** whether usage is explained (`catalog`, `terms`, `billing`).
//!
//! A report lists what the catalogue does not explain of a meter as a whole; a bill also knows of the usage that no
//! price covers because of its dimensions or its time. An unknown customer's usage keeps nobody's invoice back.
//!
//! Limits: [`LISTED_MAX`] findings; the gate asks the bills themselves and has no limit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tidemark_common::id::{CustomerId, MeterName};

use super::{Certainty, Finding, Kind, Scope, Span};
use crate::catalog::{Catalog, Unbilled};
use crate::ledger::Snapshot;
use crate::ledger::store::StoreError;
use crate::usage::{Seen, SeenAs};

/// A report lists at most so many (customer, meter, reason).
const LISTED_MAX: usize = 20_000;

/// What the catalogue does not explain of the time looked at, and of each meter what came again. Blocks.
pub(super) fn findings(
    catalog: &Catalog,
    snapshot: &Snapshot,
    span: Span,
) -> Result<Vec<Finding>, StoreError> {
    let mut found: BTreeMap<(CustomerId, MeterName, Unbilled), (u64, Span)> = BTreeMap::new();
    let mut again: BTreeMap<MeterName, u64> = BTreeMap::new();
    snapshot.visit_seen(&[], |seen| {
        let own = Span { from: seen.first.start(), to: seen.last.end() };
        if seen.seen_as == SeenAs::Suppressed && own.overlaps(span) {
            let events = again.entry(seen.meter.clone()).or_default();
            *events = events.saturating_add(seen.events);
        }
        if let Some(reason) = reason(catalog, &seen).filter(|_| own.overlaps(span)) {
            let key = (seen.customer, seen.meter, reason);
            if found.len() < LISTED_MAX || found.contains_key(&key) {
                let held = found.entry(key).or_insert((0, own));
                held.0 = held.0.saturating_add(seen.events);
                held.1 = Span { from: held.1.from.min(own.from), to: held.1.to.max(own.to) };
            }
        }
        ControlFlow::Continue(())
    })?;
    let unbilled = found.into_iter().map(|((customer, meter, reason), (events, span))| {
        finding(&customer, &meter, reason, events, span)
    });
    let again = again.into_iter().map(|(meter, events)| suppressed(meter, events, span));
    Ok(unbilled.chain(again).collect())
}

/// Events of a meter that `deduplicate = "global"` told to be the same as earlier ones.
fn suppressed(meter: MeterName, events: u64, span: Span) -> Finding {
    Finding {
        kind: Kind::Suppressed,
        id: format!("suppressed/{meter}"),
        told: format!(
            "{events} events of {meter} had an id that the ledger knew, and are billed once"
        ),
        remedy: "nothing: `GET /v1/duplicates` lists them, each with the event that is billed"
            .to_owned(),
        events,
        certainty: Certainty::Exact,
        quantity: None,
        money: Vec::new(),
        streams: Vec::new(),
        meter: Some(meter),
        scope: Scope::Nobody,
        span,
        since: span.from,
        cover: None,
    }
}

/// What a customer's bill leaves out of a period.
#[must_use]
pub fn of_bill(
    customer: &CustomerId,
    suspense: &BTreeMap<(MeterName, Unbilled), u64>,
    span: Span,
) -> Vec<Finding> {
    let counted = suspense.iter().filter(|(_, events)| **events > 0);
    counted
        .map(|((meter, reason), events)| finding(customer, meter, *reason, *events, span))
        .collect()
}

/// Why this usage is on no bill; `None` if it is on one.
fn reason(catalog: &Catalog, seen: &Seen) -> Option<Unbilled> {
    match &seen.seen_as {
        SeenAs::Unauthorised(_) => Some(Unbilled::Unauthorised),
        // Billed once, by the event that came first.
        SeenAs::Suppressed => None,
        SeenAs::Normal => catalog.unbilled(&seen.customer, &seen.meter),
    }
}

/// The finding of so many events.
pub(super) fn finding(
    customer: &CustomerId,
    meter: &MeterName,
    reason: Unbilled,
    events: u64,
    span: Span,
) -> Finding {
    let (kind, scope) = match reason {
        Unbilled::UnknownCustomer => (Kind::UnknownCustomer, Scope::Nobody),
        Unbilled::UnknownMeter => (Kind::UnknownMeter, Scope::Customer(customer.clone())),
        Unbilled::Unpriced => (Kind::Unpriced, Scope::Customer(customer.clone())),
        Unbilled::Unauthorised => (Kind::Unauthorised, Scope::Customer(customer.clone())),
    };
    let (name, id) = (reason.name(), customer.as_str());
    let what = match reason {
        Unbilled::UnknownCustomer => "no customer of the catalogue",
        Unbilled::UnknownMeter => "no meter of the catalogue",
        Unbilled::Unpriced => "no price covers it, with its dimensions and at its time",
        Unbilled::Unauthorised => "its sender may not bill it",
    };
    Finding {
        kind,
        id: format!("suspense/{id}/{meter}/{name}"),
        told: format!("{events} events of {meter} by {id:?} are on no bill: {what}"),
        remedy: reason.remedy().to_owned(),
        events,
        certainty: Certainty::Exact,
        quantity: None,
        money: Vec::new(),
        streams: Vec::new(),
        meter: Some(meter.clone()),
        scope,
        span,
        since: span.from,
        cover: None,
    }
}
