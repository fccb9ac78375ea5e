//! Reconciliations, waivers, streams that are declared lost.
//!
//! ```text
//! GET  /v1/reconciliation?at=&depth=         the report, as JSON; `depth=quick` recomputes nothing
//! GET  /v1/reconciliation/html?at=&depth=    the same for people
//! GET  /v1/waivers                           all, by the finding's id
//! POST /v1/waivers                           {"finding": ID, "events_max": N, "reason": TEXT}
//! POST /v1/streams/{stream}/lost             {"reason": TEXT}
//! ```
//! **Does not own** what they do (`reconcile`).
//!
//! Limits: one full report is made at a time.

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::period::Zone;
use crate::reconcile::door::{Answering, AskError, AskedLoss, AskedReport, AskedWaiver};
use crate::reconcile::{ReportShown, page as html};

use super::Api;
use super::books::{BookedShown, asked};
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};

/// Of all waivers.
#[derive(Debug, Serialize)]
pub(super) struct Waivers {
    waivers: Vec<WaiverShown>,
}

#[derive(Debug, Serialize)]
struct WaiverShown {
    finding: String,
    events_max: u64,
    actor: String,
    reason: String,
    at: String,
    entry: u64,
}

/// Asks for a waiver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWaiver {
    finding: String,
    #[serde(default)]
    events_max: Option<u64>,
    reason: String,
}

/// Asks to declare a stream lost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reasoned {
    reason: String,
}

pub(super) async fn report(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<ReportShown>, Problem> {
    api.reconcile(pairs).await.map(Json)
}

pub(super) async fn page(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let report = api.reconcile(pairs).await?;
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html(&report)).into_response())
}

pub(super) async fn waivers(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Waivers>, Problem> {
    Parameters::new(pairs, &[])?;
    let all = api.read_books(|_, books| Ok(crate::reconcile::waivers(books)?)).await?;
    let utc = Zone::utc();
    let waivers = all.into_iter().map(|(finding, waiver)| WaiverShown {
        finding,
        events_max: waiver.events_max,
        actor: waiver.actor,
        reason: waiver.reason,
        at: utc.rfc3339(tidemark_common::time::Timestamp(waiver.at)),
        entry: waiver.entry,
    });
    Ok(Json(Waivers { waivers: waivers.collect() }))
}

pub(super) async fn waive(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<NewWaiver>(request).await?;
    let key = asked.needed_key()?;
    if let Some(booked) = api.replayed(&asked).await? {
        return Ok(Json(booked));
    }
    let NewWaiver { finding, events_max, reason } = asked.body;
    let body = AskedWaiver { finding, events_max, actor: String::new(), reason };
    let waiver = api.answer(move |answering| answering.waiver(&body)).await?;
    api.book(waiver.change(asked.actor, Some(key))).await.map(Json)
}

pub(super) async fn lose(
    State(api): State<Api>,
    Path(stream): Path<String>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<Reasoned>(request).await?;
    let key = asked.needed_key()?;
    if let Some(booked) = api.replayed(&asked).await? {
        return Ok(Json(booked));
    }
    let reason = asked.body.reason.clone();
    let body = AskedLoss { stream, actor: String::new(), reason };
    let loss = api.answer(move |answering| answering.loss(&body)).await?;
    api.book(loss.change(asked.actor, Some(key))).await.map(Json)
}

impl Api {
    async fn reconcile(&self, pairs: Pairs) -> Result<ReportShown, Problem> {
        let parameters = Parameters::new(pairs, &["at", "depth"])?;
        let quick = match parameters.get("depth") {
            None | Some("full") => false,
            Some("quick") => true,
            Some(_) => return Err(bad("depth", "is no depth", "use full or quick")),
        };
        parameters.edge("at")?;
        let asked = AskedReport { at: parameters.get("at").map(str::to_owned), quick };
        let sweeps = self.sweeps.clone();
        self.answer(move |answering| {
            let report = if quick {
                answering.report(&asked)
            } else {
                let Some(_turn) = sweeps.turn() else { return Ok(None) };
                answering.report(&asked)
            };
            Ok(Some(ReportShown::of(&report?, &answering.catalog)))
        })
        .await?
        .ok_or_else(Problem::busy)
    }

    /// Answers on the blocking pool.
    async fn answer<T, F>(&self, answer: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Answering) -> Result<T, AskError> + Send + 'static,
    {
        let answering = Answering {
            ledger: self.ledger.clone(),
            catalog: self.catalog.borrow().clone(),
            settings: self.billing.reconcile.clone(),
        };
        self.blocking(move |_| Ok(answer(&answering)?)).await
    }
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-field", "A field cannot be used")
        .detail(detail)
        .remedy("deploy/docs/reconciliation.md says what it may hold")
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let (status, kind, title) = match error {
            AskError::NoFinding { .. } => {
                (StatusCode::NOT_FOUND, "unknown-finding", "There is no such finding")
            }
            AskError::NoStream { .. } => {
                (StatusCode::NOT_FOUND, "unknown-stream", "There is no such stream")
            }
            AskError::Closed { .. } => {
                (StatusCode::CONFLICT, "stream-closed", "The stream is closed")
            }
            AskError::Lost { .. } => {
                (StatusCode::CONFLICT, "stream-lost", "The stream is lost already")
            }
            AskError::Refused(refused) => return refused.into(),
            AskError::Ledger(error) => return error.into(),
            AskError::Field { .. } | AskError::Request { .. } => {
                return refused(&error.to_string());
            }
        };
        Self::new(status, kind, title)
            .detail(error.to_string())
            .remedy("GET /v1/reconciliation lists findings, GET /v1/streams streams")
    }
}
