//! `GET /openapi.json`: this API, described for machines (OpenAPI 3.1).
//!
//! **Owns** serving it. **Does not own** the shapes: they are their handlers'; `openapi.json` says the same of them by hand,
//! and the tests hold it against every route, answer, parameter and role.

use axum::http::header;
use axum::response::IntoResponse;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn handle() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}
