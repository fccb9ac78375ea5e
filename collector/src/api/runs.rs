//! `POST /v1/billing-runs`: bills the periods that end on a date; one JSON object a line, as they are issued.
//!
//! It needs no idempotency key: a run that is asked for twice issues once.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use crate::billing_run::door::{self, AskError, AskedRun, Told};

use super::Api;
use super::bills::{CONTENT_TYPE, Lines};
use super::books::{Asked, asked};
use super::problem::Problem;

const LINES_WAITING_MAX: usize = 64;

pub(super) async fn run(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let Asked { actor, body, .. } = asked::<AskedRun>(request).await?;
    if !body.actor.is_empty() {
        return Err(refused("`actor` is the token's name: leave it out"));
    }
    let run = AskedRun { actor, ..body };
    run.request(&api.billing).map_err(|error| refused(&error.to_string()))?;
    let (tell, mut told) = mpsc::channel::<Told>(LINES_WAITING_MAX);
    let (lines, body) = mpsc::channel::<Bytes>(LINES_WAITING_MAX);
    let catalog = api.catalog.borrow().clone();
    tokio::spawn(async move {
        match door::run(&api.ledger, catalog, &run, &api.billing, tell).await {
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "a billing run ended"),
        }
    });
    tokio::spawn(async move {
        while let Some(line) = told.recv().await {
            if lines.send(line.line().into()).await.is_err() {
                break;
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(Lines(body))).into_response())
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-field", "A field cannot be used")
        .detail(detail)
        .remedy("deploy/docs/api.md says what it may hold")
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        refused(&error.to_string())
    }
}
