//! `GET /v1/bills?at=`: every customer's bill, one JSON object a line, all from one snapshot.
//!
//! ```text
//! {"customer": ...}                    as GET /v1/customers/{id}/bill answers it, to the byte
//! {"customer": ID, "problem": {...}}   in its place, if it cannot be made
//! {"end": {"bills": N, "problems": N}} last; without it the answer was cut off
//! ```
//! **Owns** the order, by customer's id, and that one customer's problem keeps nobody else's bill. **Does not own** a
//! bill (`bill.rs`). Customers that are on no plan then have no line.
//!
//! Lines are made as they are read: [`LINES_WAITING_MAX`] wait for a slow reader, whom the door cuts off in the end.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

use tidemark_common::time::{Bucket, Timestamp};

use crate::billing::BillError;
use crate::catalog::Catalog;
use crate::ledger::Snapshot;

use super::problem::Problem;
use super::query::{Pairs, Parameters};
use super::{Api, bill};

const LINES_WAITING_MAX: usize = 64;
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";

pub(super) async fn handle(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    let parameters = Parameters::new(pairs, &["at"])?;
    let at = parameters.edge("at")?.map(Bucket::start);
    let (lines, body) = mpsc::channel(LINES_WAITING_MAX);
    let (begun, begins) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(async move {
        let read = api.read(move |catalog, snapshot| {
            // Whoever has gone needs no bills.
            let _waits = begun.send(()).is_ok();
            send_all(catalog, snapshot, at, &lines);
            Ok(())
        });
        read.await
    });
    match begins.await {
        Ok(()) => {
            Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(Lines(body))).into_response())
        }
        Err(_) => Err(match reading.await {
            Ok(Err(problem)) => problem,
            Ok(Ok(())) | Err(_) => Problem::internal(&"the bills did not begin"),
        }),
    }
}

/// The lines, as they come.
pub(super) struct Lines(pub(super) mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[derive(Debug, Serialize)]
struct Failed<'a> {
    customer: &'a str,
    problem: Problem,
}

#[derive(Debug, Serialize)]
struct Last {
    end: Counts,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    bills: u64,
    problems: u64,
}

/// Sends every line, until the reader is gone; blocks.
fn send_all(
    catalog: &Catalog,
    snapshot: &Snapshot,
    at: Option<Timestamp>,
    lines: &mpsc::Sender<Bytes>,
) {
    let mut counts = Counts::default();
    for id in catalog.customers.keys() {
        let line = match bill::answer(catalog, snapshot, id, at) {
            Ok(answer) => {
                counts.bills = counts.bills.saturating_add(1);
                line_of(&answer)
            }
            Err(BillError::NoPlan { .. }) => continue,
            Err(error) => {
                counts.problems = counts.problems.saturating_add(1);
                line_of(&Failed { customer: id.as_str(), problem: error.into() })
            }
        };
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
    let _unread = lines.blocking_send(line_of(&Last { end: counts })).is_err();
}

fn line_of(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("texts and numbers are JSON");
    line.push(b'\n');
    line.into()
}
