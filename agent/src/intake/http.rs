//! The HTTP door: CloudEvents, acknowledged after the fsync.
//!
//! ```text
//! POST /api/v1/events
//!   application/cloudevents+json        one event           204  all accepted, duplicate or not metered
//!   application/cloudevents-batch+json  an array            200  some: {accepted, duplicates, not_metered,
//!   application/json                    either                   rejected: [{index, id, reason, remedy}]}
//!                                                           400  all rejected, or not JSON
//!   401, 405, 408, 413, 415             nothing was taken: the request must change
//!   503 and Retry-After                 nothing is known to be taken: the same request, later
//! ```
//!
//! **Owns** requests and answers. **Does not own** what a CloudEvent says ([`crate::parse`]) or what
//! becomes of it (intake).
//!
//! What a CloudEvent means depends on the collector's rules, so without any the answer is 503. A body
//! that was read under rules which changed on its way is read again. Errors are
//! `application/problem+json`; each says what to do.
//!
//! Limits: a body [`BODY_BYTES_MAX`]; all of it within [`BODY_WAIT_MAX`]; [`CONNECTIONS_MAX`]
//! connections; all bodies together within the room of a [`Passage`].

mod answer;
mod media;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tidemark_common::wire::Rules;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::datagram::is_absent_ipv6;
use super::limited::{LimitedListener, Limits};
use super::passage::{Passage, Reservation, raw};
use super::{Answered, IntakeClosed, Item, Submission};
use crate::event::{Door, Parsed};
use crate::parse::cloudevents::{self, BodyError};
use answer::{Outcome, Problem};

/// The HTTP door serves at most this many connections at once.
pub const CONNECTIONS_MAX: usize = 128;
/// Nothing moved on a connection for this long: it is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(75);
/// From a request's first byte to its answer.
pub const REQUEST_MAX: Duration = Duration::from_secs(120);
/// A body is at most this many bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// A body is read within this.
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(20);
/// A request waits this long for room, then for its body to become events, then for these to be durable.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// At shutdown, requests get this long to be answered.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Of a body that is too long, this much is read and thrown away, so that the client, which reads only
/// after it has sent, gets to see the answer.
const DISCARDED_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// A body is read under at most this many versions of the rules.
const PARSE_TRIES_MAX: usize = 4;
const RETRY_RULES_SECONDS: u16 = 2;
const RETRY_FULL_SECONDS: u16 = 10;
const RETRY_BUSY_SECONDS: u16 = 1;

/// Where HTTP is served. No address closes the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    pub listen: Vec<SocketAddr>,
    /// Asked for, if configured; otherwise any token is let through.
    pub token: Option<HttpToken>,
}

/// The digest of a bearer token. Digests are compared as a whole: the time tells nothing, not even of them.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpToken([u8; 32]);

impl HttpToken {
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether `sent` is the token, in a time that does not depend on how much of it is right.
    #[must_use]
    pub fn is(&self, sent: &str) -> bool {
        let Self(sent) = Self::new(sent);
        let differing = self.0.iter().zip(sent).fold(0, |bits, (own, other)| bits | (own ^ other));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for HttpToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpToken(..)")
    }
}

/// Why the HTTP door could not be opened.
#[derive(Debug, Error)]
pub enum HttpBindError {
    #[error("failed to listen for HTTP on {address}: {source}; is another agent running there?")]
    Listen { address: SocketAddr, source: io::Error },
}

/// The HTTP door, listening.
#[derive(Debug)]
pub struct HttpDoor {
    listeners: Vec<LimitedListener>,
    requests: Requests,
}

impl HttpDoor {
    /// Listens where `config` says. Called within a tokio runtime.
    ///
    /// # Errors
    /// Names the address. An absent IPv6 loopback is only a warning while another address serves.
    pub fn bind(config: HttpConfig, passage: &Passage) -> Result<Self, HttpBindError> {
        let passage = passage.beside();
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut listeners = Vec::new();
        let mut absent = None;
        for address in config.listen {
            match listen(address) {
                Ok(listener) => listeners.push(LimitedListener {
                    listener,
                    counts: passage.figures.shared(Door::Http),
                    limits: Limits { idle_max: IDLE_MAX, request_max: REQUEST_MAX },
                    connections: Arc::clone(&connections),
                }),
                Err(source) if is_absent_ipv6(address, &source) => absent = Some((address, source)),
                Err(source) => return Err(HttpBindError::Listen { address, source }),
            }
        }
        if let Some((address, source)) = absent {
            if listeners.is_empty() {
                return Err(HttpBindError::Listen { address, source });
            }
            tracing::warn!(%address, error = %source, "this host has no IPv6 loopback; the other HTTP addresses serve");
        }
        let requests = Requests { passage, token: config.token };
        Ok(Self { listeners, requests })
    }

    /// The addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.listener.local_addr().ok()).collect()
    }

    /// Serves until `shutdown` turns true or its sender is gone; returns when all requests were
    /// answered, at most [`DRAIN`] later.
    pub async fn serve(self, mut shutdown: watch::Receiver<bool>) {
        let router = Router::new()
            .route("/api/v1/events", post(events).fallback(method_not_allowed))
            .fallback(not_found)
            .with_state(Arc::new(self.requests));
        let mut serving = JoinSet::new();
        for listener in self.listeners {
            let mut shutdown = shutdown.clone();
            let stopped = async move { fired(&mut shutdown).await };
            serving.spawn(
                axum::serve(listener, router.clone()).with_graceful_shutdown(stopped).into_future(),
            );
        }
        fired(&mut shutdown).await;
        // Who is not done by now gets no answer, and sends again.
        let _cut_off = timeout(DRAIN, serving.join_all()).await;
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Resolves when `shutdown` turns true, or nobody is left to turn it.
async fn fired(shutdown: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which ends the door as well.
    let _fired = shutdown.wait_for(|fired| *fired).await;
}

async fn events(State(requests): State<Arc<Requests>>, request: Request) -> Response {
    requests.passage.counts(Door::Http).messages.add(1);
    match requests.events(request).await {
        Ok(outcome) => outcome.into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "Nothing is served here.", "Send POST /api/v1/events.")
}

/// What all requests are served with.
#[derive(Debug)]
struct Requests {
    passage: Passage,
    token: Option<HttpToken>,
}

impl Requests {
    async fn events(&self, request: Request) -> Result<Outcome, Problem> {
        let (head, body) = request.into_parts();
        self.authorize(&head.headers)?;
        let shape = media::shape(&head.headers).map_err(|unsupported| {
            Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                unsupported.detail(),
                unsupported.remedy(),
            )
        })?;
        self.rules()?;
        let expected = expected_bytes(&head.headers);
        let mut reservation = Some(self.reserve(expected.min(BODY_BYTES_MAX)).await?);
        let body = read_body(body, expected).await?;
        self.passage.counts(Door::Http).bytes.add_len(body.len());
        for _ in 0..PARSE_TRIES_MAX {
            let room = match reservation.take() {
                Some(room) => room,
                None => self.reserve(body.len()).await?,
            };
            let room = in_time(self.passage.reserve_parsed(room, body.len())).await?;
            let rules = self.rules()?;
            let read = cloudevents::messages(&body, shape, &rules, &self.passage.naming)
                .map_err(unreadable)?;
            if let Some(outcome) = self.submit(&body, &rules, read, room).await? {
                return Ok(outcome);
            }
        }
        Err(Problem::come_again(RETRY_RULES_SECONDS, "The collector's rules keep changing."))
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(expected) = &self.token else { return Ok(()) };
        let sent =
            headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = sent.trim().split_once(' ').unwrap_or_default();
        let right = scheme.eq_ignore_ascii_case("bearer") && expected.is(token.trim());
        if right { Ok(()) } else { Err(Problem::unauthorized()) }
    }

    /// The current rules, while events can be taken.
    fn rules(&self) -> Result<Arc<Rules>, Problem> {
        takes(self.passage.intake.rules(), self.passage.intake.is_full())
    }

    async fn reserve(&self, bytes: usize) -> Result<Reservation, Problem> {
        in_time(self.passage.reserve(bytes)).await
    }

    /// `None` if the rules have changed: nothing was taken.
    async fn submit(
        &self,
        body: &Bytes,
        rules: &Rules,
        read: Vec<(Option<String>, Parsed)>,
        room: Reservation,
    ) -> Result<Option<Outcome>, Problem> {
        let (ids, parsed): (Vec<_>, Vec<_>) = read.into_iter().unzip();
        if ids.is_empty() {
            return Ok(Some(Outcome::default()));
        }
        let texts = elements(body, ids.len());
        let items = parsed
            .into_iter()
            .zip(texts)
            .map(|(parsed, text)| Item { parsed, raw: body.slice_ref(raw(text)) })
            .collect();
        let submission = Submission { door: Door::Http, rules: Some(rules.version), items };
        let stopping = |_| Problem::come_again(RETRY_RULES_SECONDS, "The agent is stopping.");
        let answered = async {
            let answered = self.passage.submit(submission, room).await?;
            answered.await.map_err(|_| IntakeClosed)
        };
        let late = |_| Problem::come_again(RETRY_FULL_SECONDS, "The events are not durable yet.");
        match timeout(ANSWER_WAIT_MAX, answered).await.map_err(late)?.map_err(stopping)? {
            Answered::Durable(answers) => Ok(Some(Outcome::of(ids, &answers))),
            Answered::RulesChanged => Ok(None),
        }
    }
}

/// Room that comes before the client gives up.
async fn in_time(room: impl Future<Output = Reservation>) -> Result<Reservation, Problem> {
    let busy = |_| Problem::come_again(RETRY_BUSY_SECONDS, "The agent is busy with other events.");
    timeout(ANSWER_WAIT_MAX, room).await.map_err(busy)
}

/// The rules to read events under, unless none can be taken now.
fn takes(rules: Option<Arc<Rules>>, full: bool) -> Result<Arc<Rules>, Problem> {
    if full {
        return Err(Problem::come_again(
            RETRY_FULL_SECONDS,
            "The journal is full: the collector is behind or away.",
        ));
    }
    rules.ok_or_else(|| {
        Problem::come_again(
            RETRY_RULES_SECONDS,
            "The agent has not heard the collector's rules yet.",
        )
    })
}

/// How long the body says it is; as long as it may be, if it does not say.
fn expected_bytes(headers: &HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(BODY_BYTES_MAX)
}

async fn read_body(mut body: Body, expected: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is longer than {BODY_BYTES_MAX} bytes."),
            "Send fewer events at once.",
        )
    };
    if expected > DISCARDED_BYTES_MAX {
        return Err(too_large());
    }
    // Room for it is reserved.
    let mut bytes = Vec::with_capacity(expected.min(BODY_BYTES_MAX));
    let mut length = 0_usize;
    let reading = async {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    format!("The body breaks off: {error}."),
                    "Send it whole.",
                )
            })?;
            let Ok(data) = frame.into_data() else { continue };
            length = length.saturating_add(data.len());
            if length > DISCARDED_BYTES_MAX {
                break;
            }
            if length <= BODY_BYTES_MAX {
                bytes.extend_from_slice(&data);
            } else {
                bytes = Vec::new();
            }
        }
        Ok(())
    };
    let slow = |_| {
        let detail = format!("The body was not there after {} s.", BODY_WAIT_MAX.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail, "Send it in one go, or in smaller parts.")
    };
    timeout(BODY_WAIT_MAX, reading).await.map_err(slow)??;
    if length > BODY_BYTES_MAX { Err(too_large()) } else { Ok(bytes.into()) }
}

fn unreadable(error: BodyError) -> Problem {
    let remedy = match error {
        BodyError::NotJson { .. } => "Send JSON in UTF-8: one CloudEvent, or an array of them.",
        BodyError::Shape { .. } => {
            "Send application/json, which stands for one event and for an array."
        }
        BodyError::TooManyEvents { .. } => {
            return Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                error.to_string(),
                "Send fewer events at once.",
            );
        }
    };
    Problem::new(StatusCode::BAD_REQUEST, error.to_string(), remedy)
}

/// The text of each event of a body that was read as `count` events.
fn elements(body: &[u8], count: usize) -> Vec<&[u8]> {
    if body.trim_ascii_start().starts_with(b"[")
        && let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(body)
    {
        assert_eq!(elements.len(), count, "both readings find the same events");
        return elements.into_iter().map(|element| element.get().as_bytes()).collect();
    }
    assert_eq!(count, 1, "what is no array is one event");
    vec![body]
}
