//! The catalogue: read, and, where it is in the ledger, replaced.
//!
//! ```text
//! GET /v1/catalog                      the whole text, TOML
//! PUT /v1/catalog?dry_run=&reason=     another one in its place: its whole text
//! ```
//! **Does not own** what may take its place (`adopt.rs`).

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use crate::adopt::{AdoptError, AdoptRequest, Adopted, AskedChange};
use crate::document;

use super::Api;
use super::books::{actor_of, read_body};
use super::invoices::text;
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};

const TOML: &str = "application/toml";

pub(super) async fn show(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let catalog = api.catalog.borrow().clone();
    Ok(([(header::CONTENT_TYPE, TOML)], catalog.to_toml()).into_response())
}

pub(super) async fn replace(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
    request: Request,
) -> Result<Json<Adopted>, Problem> {
    let parameters = Parameters::new(pairs, &["dry_run", "reason"])?;
    let dry_run = match parameters.get("dry_run") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(bad("dry_run", "is neither true nor false", "leave it out")),
    };
    let reason = parameters.get("reason").map(|reason| text("reason", reason)).transpose()?;
    let (head, body) = request.into_parts();
    let actor = actor_of(&head.extensions)?;
    let bytes = read_body(body, document::TEXT_BYTES_MAX).await?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be used")
            .detail("it is not UTF-8")
            .remedy("send the catalogue's text")
    })?;
    let (reply, answer) = oneshot::channel();
    let asked = AskedChange { text, dry_run, actor, reason };
    let stopping = || Problem::internal(&"the collector is stopping");
    api.adoptions.send(AdoptRequest { asked, reply }).await.map_err(|_| stopping())?;
    Ok(Json(answer.await.map_err(|_| stopping())??))
}

impl From<AdoptError> for Problem {
    fn from(error: AdoptError) -> Self {
        let told = error.to_string();
        let (status, kind, remedy) = match error {
            AdoptError::FileManaged => {
                (StatusCode::CONFLICT, "file-managed", "change the file, and send SIGHUP")
            }
            AdoptError::Problems(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "bad-catalog",
                "each line of `detail` names a place and what to do there",
            ),
            AdoptError::NotASuccessor(_) | AdoptError::Used(_) => (
                StatusCode::CONFLICT,
                "not-a-successor",
                "each line of `detail` says what to keep, and what to add in place of the change",
            ),
            AdoptError::Refused(refused) => return refused.into(),
            AdoptError::Ledger(error) => return error.into(),
        };
        Self::new(status, kind, "The catalogue is not taken").detail(told).remedy(remedy)
    }
}
