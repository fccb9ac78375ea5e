//! `GET /v1/customers/{id}/bill`: what a customer owes of the current period, as of now.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Serialize;

use tidemark_common::id::{CustomerId, MeterName};

use crate::catalog::{Catalog, Unbilled};
use crate::ledger::Snapshot;
use crate::ledger::store::UsageQuestion;
use crate::rating::{Line, rate};
use crate::usage::{Accumulator, Class};

use super::cut::Cut;
use super::problem::Problem;
use super::query::{Pairs, Parameters};
use super::usage::customer_id;
use super::{Api, ROWS_MAX};

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    customer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    plan: String,
    period: PeriodShown,
    lines: Vec<LineShown>,
    /// The sum of the lines' amounts.
    total: String,
    currency: String,
    /// This customer's usage of the period that is on no line, and why.
    suspense: Vec<SuspenseShown>,
    #[serde(flatten)]
    cut: Cut,
}

#[derive(Debug, Serialize)]
struct PeriodShown {
    start: String,
    end: String,
    time_zone: String,
}

#[derive(Debug, Serialize)]
struct LineShown {
    meter: String,
    aggregation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    quantity: String,
    events: u64,
    unit_price: String,
    amount: String,
    currency: String,
}

#[derive(Debug, Serialize)]
struct SuspenseShown {
    meter: String,
    reason: &'static str,
    events: u64,
    remedy: &'static str,
}

pub(super) async fn handle(
    State(api): State<Api>,
    Path(customer): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    Parameters::new(pairs, &[])?;
    let customer = customer_id(&customer)?;
    api.read(move |catalog, snapshot| answer(catalog, snapshot, &customer)).await.map(Json)
}

fn answer(catalog: &Catalog, snapshot: &Snapshot, id: &CustomerId) -> Result<Answer, Problem> {
    let customer = catalog.customers.get(id).ok_or_else(|| unknown_customer(id))?;
    let plan = catalog.plan.as_ref().ok_or_else(no_plan)?;
    let period = customer.zone.month_of(snapshot.ledger_time())?;

    let mut usage: BTreeMap<MeterName, Accumulator> = BTreeMap::new();
    let mut suspense: BTreeMap<(MeterName, Unbilled), u64> = BTreeMap::new();
    let asked = UsageQuestion { customer: id, meter: None, from: period.start, to: period.end };
    snapshot.visit_usage(&asked, ROWS_MAX, |row| {
        let unbilled = match row.class {
            Class::Unauthorised => Some(Unbilled::Unauthorised),
            Class::Normal => catalog.unbilled(&row.meter),
        };
        match unbilled {
            None => usage.entry(row.meter).or_default().merge(&row.usage)?,
            Some(reason) => {
                let events = suspense.entry((row.meter, reason)).or_default();
                *events = events.saturating_add(row.usage.events);
            }
        }
        Ok::<_, Problem>(())
    })?;
    let bill = rate(catalog, plan, &usage)?;
    Ok(Answer {
        customer: id.as_str().to_owned(),
        name: customer.name.clone(),
        plan: plan.name.clone(),
        period: PeriodShown {
            start: customer.zone.rfc3339(period.start.start()),
            end: customer.zone.rfc3339(period.end.start()),
            time_zone: customer.zone.name().to_owned(),
        },
        lines: bill.lines.into_iter().map(shown).collect(),
        total: bill.total.amount(),
        currency: bill.total.currency.to_string(),
        suspense: suspense
            .into_iter()
            .map(|((meter, reason), events)| SuspenseShown {
                meter: meter.into(),
                reason: reason.name(),
                events,
                remedy: reason.remedy(),
            })
            .collect(),
        cut: Cut::of(snapshot, &customer.zone),
    })
}

fn shown(line: Line) -> LineShown {
    LineShown {
        meter: line.meter.into(),
        aggregation: line.aggregation.name(),
        unit: line.unit,
        quantity: line.quantity.to_string(),
        events: line.events,
        unit_price: line.unit_price.to_string(),
        amount: line.amount.amount(),
        currency: line.amount.currency.to_string(),
    }
}

fn unknown_customer(id: &CustomerId) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-customer", "The customer is not known")
        .detail(format!("the catalogue has no customer {:?}", id.as_str()))
        .remedy(
            "add a [[customer]] to the catalogue; what was sent for it is kept, see /v1/suspense",
        )
}

fn no_plan() -> Problem {
    Problem::new(StatusCode::CONFLICT, "no-plan", "There are no prices")
        .detail("the catalogue has no [plan]")
        .remedy("add [plan] with a currency and [[plan.price]] to the catalogue")
}
