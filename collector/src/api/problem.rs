//! Errors as `application/problem+json` (RFC 9457), each with what to do next.

use std::fmt::Display;

use axum::body::to_bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::catalog::QuantityOverflow;
use crate::ledger::store::StoreError;
use crate::ledger::{LedgerError, ReadError};
use crate::period::PeriodError;
use crate::rating::RatingError;
use crate::usage;

const PROBLEM_JSON: &str = "application/problem+json";
/// axum's own refusals are a line of text.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    remedy: String,
}

impl Problem {
    /// `kind` is the last part of the problem's type, and never changes its meaning.
    pub(super) fn new(status: StatusCode, kind: &str, title: &'static str) -> Self {
        Self {
            kind: format!("urn:tidemark:problem:{kind}"),
            title,
            status: status.as_u16(),
            detail: String::new(),
            remedy: String::new(),
        }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// More readers wait than may.
    pub(super) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many requests wait")
            .detail("as many reads wait as are allowed to")
            .remedy("ask again in a second")
    }

    /// Something failed here, not in the request.
    pub(super) fn internal(error: &dyn Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The collector failed to answer")
            .detail(error.to_string())
            .remedy("look at the collector's log; nothing that was posted is lost by this")
    }
}

/// Makes a problem of what axum refused by itself: a path or a query that cannot be read.
pub(super) async fn of_refusal(response: Response) -> Response {
    let status = response.status();
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes() == PROBLEM_JSON.as_bytes());
    if is_problem || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (head, body) = response.into_parts();
    let detail = to_bytes(body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let problem = Problem::new(status, "refused", "The request cannot be answered")
        .detail(String::from_utf8_lossy(&detail))
        .remedy("write paths and queries as UTF-8, percent-encoded");
    let mut response = problem.into_response();
    if let Some(methods) = head.headers.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, methods.clone());
    }
    response
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"tidemark\""),
            );
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        tracing::error!(%error, "the ledger could not be read");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ledger-unavailable",
            "The ledger cannot be read",
        )
        .detail(error.to_string())
        .remedy("look at the collector's log and at the disk that holds its data_dir")
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        LedgerError::from(error).into()
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::TooManyRows { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "too-many-rows",
                "The range holds too much usage",
            )
            .detail(error.to_string())
            .remedy("ask for a shorter range, or for one meter"),
        }
    }
}

impl From<usage::Overflow> for Problem {
    fn from(error: usage::Overflow) -> Self {
        too_large(&error)
    }
}

impl From<QuantityOverflow> for Problem {
    fn from(error: QuantityOverflow) -> Self {
        too_large(&error)
    }
}

impl From<RatingError> for Problem {
    fn from(error: RatingError) -> Self {
        too_large(&error)
    }
}

impl From<PeriodError> for Problem {
    fn from(error: PeriodError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "range", "The range cannot be cut")
            .detail(error.to_string())
            .remedy("ask for a shorter range or a larger window")
    }
}

/// A figure that 128 bits do not hold is told, never cut.
fn too_large(error: &dyn Display) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too-large", "A figure is too large")
        .detail(error.to_string())
        .remedy("ask for a shorter range, or look for the client that sends such quantities")
}
