//! `GET /v1/customers/{id}/bill?at=`: what a customer owes of the current period, or of the one that holds `at`.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Serialize;

use tidemark_common::id::CustomerId;
use tidemark_common::time::{Bucket, Timestamp};

use crate::billing::shown::BillShown;
use crate::billing::{BillError, Terms};
use crate::catalog::Catalog;
use crate::ledger::Snapshot;
use crate::live::ReadError;
use crate::period::Zone;

use super::cut::Cut;
use super::problem::Problem;
use super::query::{Pairs, Parameters};
use super::usage::customer_id;
use super::{Api, ROWS_MAX};

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    bill: BillShown,
    #[serde(flatten)]
    cut: Cut,
}

pub(super) async fn handle(
    State(api): State<Api>,
    Path(customer): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    let parameters = Parameters::new(pairs, &["at"])?;
    let customer = customer_id(&customer)?;
    let at = parameters.edge("at")?.map(Bucket::start);
    api.read(move |catalog, snapshot| Ok(answer(catalog, snapshot, &customer, at)?)).await.map(Json)
}

/// The bill of the periods that hold `at`, or the snapshot's own time.
pub(super) fn answer(
    catalog: &Catalog,
    snapshot: &Snapshot,
    id: &CustomerId,
    at: Option<Timestamp>,
) -> Result<Answer, BillError> {
    let terms = Terms::at(catalog, id, at.unwrap_or(snapshot.ledger_time()))?;
    let bill = terms.bill(catalog, snapshot, ROWS_MAX)?;
    let zone: &Zone = &bill.customer.zone;
    Ok(Answer {
        bill: BillShown::of(&bill, id),
        cut: Cut::of(catalog, snapshot, zone).map_err(ReadError::from)?,
    })
}

impl From<BillError> for Problem {
    fn from(error: BillError) -> Self {
        match error {
            BillError::UnknownCustomer { .. } => {
                Self::new(StatusCode::NOT_FOUND, "unknown-customer", "The customer is not known")
                    .detail(error.to_string())
                    .remedy(
                        "add a [[customer]] to the catalogue; what was sent for it is kept, see /v1/suspense",
                    )
            }
            BillError::NoPlan { .. } => {
                Self::new(StatusCode::CONFLICT, "no-plan", "There are no prices")
                    .detail(error.to_string())
                    .remedy(
                        "name a [[plan]] as the customer's `plan`, or add a [[subscription]] to the catalogue",
                    )
            }
            BillError::Period(error) => error.into(),
            BillError::Read(error) => error.into(),
            BillError::Usage(error) => error.into(),
            BillError::Rating(error) => error.into(),
            BillError::Total(error) => crate::rating::RatingError::Total(error).into(),
        }
    }
}
