//! The admin address: metrics, health, status and dead letters over HTTP, for people and machines.
//!
//! ```text
//! GET /metrics        OpenMetrics text
//! GET /healthz        200 while the process works; 503 and why once commits have ended
//! GET /readyz         200 while the doors are open; 503 and why otherwise
//! GET /status         what `tidemark-agent status` shows, as JSON
//!                     and from this machine only
//! GET /dead-letters?from=N&limit=N    rejected events from number N on, as JSON
//! POST /dead-letters/replay           takes some of them once more; see `replay`
//! POST /prepare-stop  batches are sealed fast from now on; `tidemark-agent prepare-stop` says why
//! GET /inspect        what is in the journal, as JSON
//! GET /fsck           whether all of it is sound, as JSON
//! GET /batches/N      a batch's frozen bytes
//! ```
//!
//! **Owns** these answers. **Does not own** the figures ([`observed`] draws them together) or their
//! shape ([`crate::status`], [`metrics`]).
//!
//! It asks for no password, and listens on localhost unless told otherwise. What changes something, takes long, or
//! holds usage is answered only to this machine, and not to what a browser sends for some page: see [`local::only_here`].

pub mod client;
pub mod dead_letter;
mod journal;
pub mod lately;
mod local;
pub mod metrics;
pub mod observed;
pub mod pace;
pub mod replay;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::inspect::JournalSeen;
use crate::intake::figures::DoorCounts;
use crate::intake::limited::{LimitedListener, Limits, Patience};
use crate::status::Status;
pub use dead_letter::DeadLetterShown;
use replay::{ReplayAnswer, ReplayAsked, ReplayError};

/// One answer lists at most this many dead letters.
pub const DEAD_LETTERS_PER_ANSWER_MAX: usize = 1_000;
/// And this many unless asked otherwise.
const DEAD_LETTERS_PER_ANSWER: usize = 100;
/// A request's body is at most this many bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// The address serves at most this many connections at once.
pub const CONNECTIONS_MAX: usize = 32;
/// Nothing moved on a connection for this long, or its request was not answered: it is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(75);

/// An answer that takes a while.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where the answers come from.
pub trait Observe: Send + Sync + 'static {
    /// The figures now.
    fn status(&self) -> Status;

    /// Whether the process still does its work.
    fn health(&self) -> Verdict;

    /// Whether applications can send.
    fn readiness(&self) -> Verdict;

    /// Dead letters with numbers from `from` on, at most `limit`, ascending. Reads the disk.
    ///
    /// # Errors
    /// What failed, for people.
    fn dead_letters(&self, from: u64, limit: usize) -> Result<Vec<DeadLetterShown>, String>;

    /// The journal, to look into it.
    fn journal(&self) -> JournalSeen;

    /// Seals fast from now on, and tells how often, in milliseconds.
    fn prepare_stop(&self) -> u64;

    /// Takes dead letters once more.
    fn replay(&self, asked: ReplayAsked) -> Later<Result<ReplayAnswer, ReplayError>>;
}

/// Yes, or no and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No(String),
}

/// One answer of `/dead-letters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterPage {
    pub dead_letters: Vec<DeadLetterShown>,
    /// Ask from here for more; absent after the last.
    pub next: Option<u64>,
}

/// What `/prepare-stop` is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopAsked {}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPrepared {
    /// How long an event waits at most for its batch to be sealed, where the collector takes it.
    pub seal_interval_millis: u64,
}

/// Why the admin address cannot be used.
#[derive(Debug, Error)]
#[error(
    "failed to listen on the admin address {address}: {error}; change admin.listen, or end what listens there"
)]
pub struct BindError {
    pub address: SocketAddr,
    pub error: std::io::Error,
}

/// The bound admin address.
#[derive(Debug)]
pub struct Admin {
    listener: LimitedListener,
}

/// Who asks, and how to have the connection wait for a long answer.
#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    patience: Patience,
}

impl Connected<IncomingStream<'_, LimitedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, LimitedListener>) -> Self {
        Self { address: *stream.remote_addr(), patience: stream.io().patience() }
    }
}

impl Admin {
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let listener =
            TcpListener::bind(address).await.map_err(|error| BindError { address, error })?;
        let listener = LimitedListener {
            listener,
            counts: Arc::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            limits: Limits { idle_max: IDLE_MAX, request_max: IDLE_MAX },
        };
        Ok(Self { listener })
    }

    /// Where it listens, with the port that it got.
    ///
    /// # Errors
    /// If the socket does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.listener.local_addr()
    }

    /// What passes through it.
    #[must_use]
    pub fn counts(&self) -> Arc<DoorCounts> {
        Arc::clone(&self.listener.counts)
    }

    /// Answers until `stop` resolves.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve(
        self,
        source: Arc<dyn Observe>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let service = router(source).into_make_service_with_connect_info::<Peer>();
        axum::serve(self.listener, service).with_graceful_shutdown(stop).await
    }
}

/// All paths.
fn router(source: Arc<dyn Observe>) -> Router {
    let here = Router::new()
        .route("/dead-letters", get(answer_dead_letters))
        .route("/dead-letters/replay", post(answer_replay))
        .route("/prepare-stop", post(answer_prepare_stop))
        .merge(journal::router())
        .layer(from_fn(local::only_here));
    Router::new()
        .route("/metrics", get(answer_metrics))
        .route(
            "/healthz",
            get(async |State(source): State<Arc<dyn Observe>>| verdict(source.health())),
        )
        .route(
            "/readyz",
            get(async |State(source): State<Arc<dyn Observe>>| verdict(source.readiness())),
        )
        .route("/status", get(async |State(source): State<Arc<dyn Observe>>| Json(source.status())))
        .merge(here)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "Here are /metrics, /healthz, /readyz, /status, /dead-letters, /prepare-stop, /inspect and /fsck.\n",
            )
        })
        .with_state(source)
}

async fn answer_metrics(State(source): State<Arc<dyn Observe>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::encode(&source.status()))
        .into_response()
}

fn verdict(verdict: Verdict) -> Response {
    match verdict {
        Verdict::Yes => "ok\n".into_response(),
        Verdict::No(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    from: u64,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    DEAD_LETTERS_PER_ANSWER
}

async fn answer_dead_letters(
    State(source): State<Arc<dyn Observe>>,
    Query(asked): Query<Asked>,
) -> Response {
    let limit = asked.limit.clamp(1, DEAD_LETTERS_PER_ANSWER_MAX);
    let read = tokio::task::spawn_blocking(move || source.dead_letters(asked.from, limit)).await;
    let problem = match read {
        Ok(Ok(dead_letters)) => return Json(page(dead_letters, limit)).into_response(),
        Ok(Err(problem)) => problem,
        Err(error) => error.to_string(),
    };
    (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to read the dead letters: {problem}\n"))
        .into_response()
}

/// It is JSON, so that no page of a browser can send it; see [`local`].
async fn answer_prepare_stop(
    State(source): State<Arc<dyn Observe>>,
    Json(StopAsked {}): Json<StopAsked>,
) -> Response {
    Json(StopPrepared { seal_interval_millis: source.prepare_stop() }).into_response()
}

async fn answer_replay(
    State(source): State<Arc<dyn Observe>>,
    Json(asked): Json<ReplayAsked>,
) -> Response {
    let error = match source.replay(asked).await {
        Ok(answer) => return Json(answer).into_response(),
        Err(error) => error,
    };
    let status = match error {
        ReplayError::UnknownReason(_) | ReplayError::TooMany { .. } => StatusCode::BAD_REQUEST,
        ReplayError::Full | ReplayError::Stopping | ReplayError::RulesChanging => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ReplayError::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n")).into_response()
}

/// A full answer may not be the last.
fn page(dead_letters: Vec<DeadLetterShown>, limit: usize) -> DeadLetterPage {
    let last = dead_letters.last().filter(|_| dead_letters.len() >= limit);
    DeadLetterPage { next: last.map(|last| last.number.saturating_add(1)), dead_letters }
}
