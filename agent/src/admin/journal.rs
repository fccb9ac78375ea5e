//! What the admin address tells of the journal itself.
//!
//! **Owns** these answers. **Does not own** what is looked at: `inspect.rs` and `fsck.rs`.
//!
//! One look at a time: each reads the whole file.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tidemark_common::id::Sequence;
use tokio::sync::Semaphore;

use super::Observe;
use crate::fsck::{Fsck, Pages};
use crate::inspect::{Inspection, JournalSeen};
use crate::journal::ReadError;

pub(super) fn router() -> Router<Arc<dyn Observe>> {
    let inspecting = Arc::new(Semaphore::new(1));
    let checking = Arc::clone(&inspecting);
    Router::new()
        .route(
            "/inspect",
            get(async move |State(source): State<Arc<dyn Observe>>| {
                look(inspecting, source.journal(), |seen| Inspection::of(&seen)).await
            }),
        )
        .route(
            "/fsck",
            get(async move |State(source): State<Arc<dyn Observe>>| {
                let check = |seen: JournalSeen| Fsck::of(&seen.reader, Pages::CheckedAtStart);
                look(checking, source.journal(), check).await
            }),
        )
        .route("/batches/{sequence}", get(answer_batch))
}

async fn look<T: Serialize + Send + 'static>(
    looks: Arc<Semaphore>,
    seen: JournalSeen,
    look: impl FnOnce(JournalSeen) -> Result<T, ReadError> + Send + 'static,
) -> Response {
    let Ok(alone) = looks.try_acquire_owned() else {
        let told = "The journal is being looked at already; try again in a while.\n";
        return (StatusCode::SERVICE_UNAVAILABLE, told).into_response();
    };
    let looked = tokio::task::spawn_blocking(move || {
        let _alone = alone;
        look(seen)
    });
    answer(looked.await.map(|found| found.map(|found| Json(found).into_response())))
}

async fn answer_batch(
    State(source): State<Arc<dyn Observe>>,
    Path(sequence): Path<u64>,
) -> Response {
    let seen = source.journal();
    let read = tokio::task::spawn_blocking(move || seen.reader.batch(Sequence(sequence))).await;
    answer(read.map(|found| {
        found.map(|bytes| match bytes {
            Some(bytes) => {
                ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
            }
            None => (StatusCode::NOT_FOUND, "That batch is not held.\n").into_response(),
        })
    }))
}

fn answer(found: Result<Result<Response, ReadError>, tokio::task::JoinError>) -> Response {
    let problem = match found {
        Ok(Ok(response)) => return response,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response()
}
