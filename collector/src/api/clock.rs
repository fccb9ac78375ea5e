//! A sandbox's time.
//!
//! ```text
//! GET  /v1/test-clock      {"now": .., "sandbox": BOOL}
//! POST /v1/test-clock      {"advance_to": RFC 3339}     by at most 366 days at once; never back
//! ```

use axum::Json;
use axum::extract::{Query, Request, State};
use serde::{Deserialize, Serialize};

use crate::period::{Zone, parse_edge};

use super::Api;
use super::books::{BookedShown, asked};
use super::invoices::field_problem;
use super::problem::Problem;
use super::query::{Pairs, Parameters};

#[derive(Debug, Serialize)]
pub(super) struct Clock {
    now: String,
    /// Whether it can be advanced.
    sandbox: bool,
}

pub(super) async fn show(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Clock>, Problem> {
    Parameters::new(pairs, &[])?;
    Ok(Json(Clock { now: Zone::utc().rfc3339(api.ledger.now()), sandbox: api.ledger.is_sandbox() }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Advance {
    advance_to: String,
}

pub(super) async fn advance(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<Advance>(request).await?;
    if let Some(booked) = api.replayed(&asked).await? {
        return Ok(Json(booked));
    }
    let to = parse_edge(&asked.body.advance_to);
    let to = to.map_err(|error| field_problem("advance_to", &error.to_string()))?;
    let key = asked.needed_key()?;
    let booked = api.ledger.advance_test_clock(to.start(), &asked.actor, Some(key)).await??;
    Ok(Json(booked.into()))
}
