//! What a request is answered with.

use std::borrow::Cow;

use axum::Json;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::intake::Answer;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What became of the events of a body.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Outcome {
    accepted: usize,
    duplicates: usize,
    not_metered: usize,
    rejected: Vec<Rejected>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Rejected {
    /// From 0, in the order of the body.
    index: usize,
    id: Option<String>,
    reason: &'static str,
    remedy: &'static str,
}

impl Outcome {
    pub(super) fn of(ids: Vec<Option<String>>, answers: &[Answer]) -> Self {
        assert_eq!(ids.len(), answers.len(), "intake answers every event");
        let mut outcome = Self::default();
        for (index, (id, answer)) in ids.into_iter().zip(answers).enumerate() {
            match answer {
                Answer::Accepted => outcome.accepted = outcome.accepted.saturating_add(1),
                Answer::Duplicate => outcome.duplicates = outcome.duplicates.saturating_add(1),
                Answer::NotMetered => outcome.not_metered = outcome.not_metered.saturating_add(1),
                Answer::Rejected(reason) => {
                    outcome.rejected.push(Rejected {
                        index,
                        id,
                        reason: reason.name(),
                        remedy: reason.remedy(),
                    });
                }
            }
        }
        outcome
    }
}

impl IntoResponse for Outcome {
    /// 204 unless something is rejected; then 200 if anything else was in the body, else 400. So a body
    /// that is sent again, all of it duplicates but what was rejected before, gets the same answer.
    fn into_response(self) -> Response {
        let taken =
            [self.accepted, self.duplicates, self.not_metered].iter().any(|&count| count > 0);
        match (self.rejected.is_empty(), taken) {
            (true, _) => StatusCode::NO_CONTENT.into_response(),
            (false, true) => (StatusCode::OK, Json(self)).into_response(),
            (false, false) => {
                let problem = Problem::new(
                    StatusCode::BAD_REQUEST,
                    "No event was accepted.",
                    "See `rejected` for each.",
                );
                problem.respond(Some(self))
            }
        }
    }
}

/// Why a request as a whole is refused: RFC 9457, with what to do about it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    remedy: &'static str,
    header: Header,
}

/// What the status asks to be said in a header.
#[derive(Debug)]
enum Header {
    Nothing,
    RetryAfter { seconds: u16 },
    Bearer,
    AllowPost,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    remedy: &'a str,
    #[serde(flatten)]
    outcome: Option<Outcome>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        detail: impl Into<Cow<'static, str>>,
        remedy: &'static str,
    ) -> Self {
        Self { status, detail: detail.into(), remedy, header: Header::Nothing }
    }

    /// Nothing is known to be taken; the same request may be well in `seconds`.
    pub(super) fn come_again(seconds: u16, detail: &'static str) -> Self {
        let remedy = "Send the same events again, with the same ids.";
        let header = Header::RetryAfter { seconds };
        Self { header, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail, remedy) }
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "The bearer token is missing or wrong.";
        let remedy = "Send `Authorization: Bearer TOKEN` with the token that the agent's `http_token` names.";
        Self { header: Header::Bearer, ..Self::new(StatusCode::UNAUTHORIZED, detail, remedy) }
    }

    pub(super) fn method_not_allowed() -> Self {
        let problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "Events are posted.",
            "Send POST /api/v1/events.",
        );
        Self { header: Header::AllowPost, ..problem }
    }

    fn respond(self, outcome: Option<Outcome>) -> Response {
        let body = ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            remedy: self.remedy,
            outcome,
        };
        let mut response = (self.status, Json(body)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        let header = match self.header {
            Header::Nothing => return response,
            Header::RetryAfter { seconds } => (RETRY_AFTER, HeaderValue::from(seconds)),
            Header::Bearer => (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Header::AllowPost => (ALLOW, HeaderValue::from_static("POST")),
        };
        response.headers_mut().insert(header.0, header.1);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond(None)
    }
}
