//! What the resources of the books share: reading rows, bodies, and booking a change once.
//!
//! **Owns** the shapes of errors, and `Idempotency-Key`: every request that books something bears one, and what is sent
//! twice under one key is booked once, whoever asks and whatever happened to the first answer.

use std::ops::ControlFlow;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request};
use axum::http::{Extensions, HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use tidemark_common::hex;

use crate::billing_run;
pub(super) use crate::ledger::books::rows::get as read;
use crate::ledger::books::rows::{self, RequestRow};
use crate::ledger::books::{Booked, Change, REQUEST_KEY_BYTES_MAX, Refused, RequestKey, What};
use crate::ledger::store::{Books, StoreError};
use crate::period::Day;

use super::Api;
use super::auth::Actor;
use super::problem::Problem;
use super::query::{Pairs, Parameters};

/// A body has at most this many bytes, and comes within this time.
const BODY_BYTES_MAX: usize = 1 << 20;
const BODY_MAX: Duration = Duration::from_secs(30);
const KEY: &str = "idempotency-key";

/// A request that asks for a change.
#[derive(Debug)]
pub(super) struct Asked<T> {
    pub(super) actor: String,
    pub(super) key: Option<RequestKey>,
    pub(super) body: T,
}

/// Reads a request's body, who sends it, and its key.
///
/// # Errors
/// A query, which no such request has, or a body that is none, too large or too slow.
pub(super) async fn asked<T: DeserializeOwned>(request: Request) -> Result<Asked<T>, Problem> {
    let (head, body) = request.into_parts();
    // `?dry_run=true` must not issue.
    let pairs = Query::<Pairs>::try_from_uri(&head.uri).map_err(|error| bad_query(&error))?;
    Parameters::new(pairs.0, &[])?;
    let actor = actor_of(&head.extensions)?;
    let bytes = read_body(body, BODY_BYTES_MAX).await?;
    let parsed = serde_json::from_slice(&bytes).map_err(|error| bad_body(&error.to_string()))?;
    let key = key_of(&head.headers)?.map(|key| {
        let mut sha = Sha256::new();
        for part in [actor.as_bytes(), head.uri.path().as_bytes(), &bytes] {
            sha.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            sha.update(part);
        }
        RequestKey { key, asked: sha.finalize().into() }
    });
    Ok(Asked { actor, key, body: parsed })
}

/// The name of the token that a request bears.
///
/// # Errors
/// A request that went around the guard.
pub(super) fn actor_of(extensions: &Extensions) -> Result<String, Problem> {
    let actor = extensions.get::<Actor>().map(|actor| actor.name.clone());
    actor.ok_or_else(|| Problem::internal(&"a request came from nobody"))
}

/// # Errors
/// A body that is too large or too slow.
pub(super) async fn read_body(body: Body, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    match tokio::time::timeout(BODY_MAX, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes.to_vec()),
        Ok(Err(error)) => Err(bad_body(&error.to_string())),
        Err(_) => {
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The body did not come")
                .detail("the body was not there within 30 s")
                .remedy("send it at once"))
        }
    }
}

fn bad_query(error: &QueryRejection) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "refused", "The request cannot be answered")
        .detail(error.body_text())
        .remedy("leave the query out: this resource takes none")
}

fn bad_body(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be used")
        .detail(detail)
        .remedy("send one JSON object with the fields that deploy/docs/api.md names")
}

/// The key that the request bears.
fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get(KEY) else { return Ok(None) };
    let text = key.to_str().ok().filter(|key| (1..=REQUEST_KEY_BYTES_MAX).contains(&key.len()));
    text.map(|key| Some(key.to_owned())).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "bad-key", "The idempotency key cannot be used")
            .detail("`Idempotency-Key` is empty, too long or not printable")
            .remedy("send 1 to 128 printable characters, such as a UUID")
    })
}

/// What was booked.
#[derive(Debug, Serialize)]
pub(super) struct BookedShown {
    /// The number of the ledger entry.
    entry: u64,
    /// The document that was issued or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<String>,
    /// The same request was booked before, and nothing was done now.
    replayed: bool,
}

impl From<Booked> for BookedShown {
    fn from(Booked { entry, document: number, replayed }: Booked) -> Self {
        Self { entry, number, replayed }
    }
}

impl<T> Asked<T> {
    /// The change that this request asks for.
    ///
    /// # Errors
    /// A request without a key.
    pub(super) fn change(
        &self,
        what: What,
        reason: Option<String>,
        date: Option<Day>,
    ) -> Result<Change, Problem> {
        let key = self.needed_key()?;
        Ok(Change { actor: self.actor.clone(), reason, date, request: Some(key), what })
    }

    /// # Errors
    /// A request without a key.
    pub(super) fn needed_key(&self) -> Result<RequestKey, Problem> {
        self.key.clone().ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST, "no-key", "An idempotency key is needed")
                .detail("the request bears no `Idempotency-Key`, so it could be booked twice")
                .remedy("send a new key with each request, and the same key when you send it again")
        })
    }
}

impl Api {
    /// What the same request came to before, if it was booked.
    ///
    /// # Errors
    /// A key that was used for another request.
    pub(super) async fn replayed<T>(
        &self,
        asked: &Asked<T>,
    ) -> Result<Option<BookedShown>, Problem> {
        let Some(key) = asked.key.clone() else { return Ok(None) };
        let row = rows::key(rows::REQUESTS, key.key.as_bytes());
        let held = self.read_books(move |_, books| Ok(read::<RequestRow>(books, &row)?)).await?;
        match held {
            None => Ok(None),
            Some(held) if held.asked == hex::encode(&key.asked) => {
                let shown =
                    BookedShown { entry: held.entry, number: held.document, replayed: true };
                self.archived(shown).await.map(Some)
            }
            Some(_) => Err(Refused::KeyReused.into()),
        }
    }

    /// Books it.
    ///
    /// # Errors
    /// What the books refuse, or a ledger that has stopped.
    pub(super) async fn book(&self, change: Change) -> Result<BookedShown, Problem> {
        self.archived(self.ledger.book(change).await??.into()).await
    }

    /// What was booked, once the archive holds it: before that, it may be lost with the ledger.
    async fn archived(&self, shown: BookedShown) -> Result<BookedShown, Problem> {
        match billing_run::archived(&self.ledger, shown.entry).await {
            Ok(()) => Ok(shown),
            Err(why) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "archive",
                "It is booked, and the archive does not hold it yet",
            )
            .detail(format!("entry {} is not in the archive: {why}", shown.entry))
            .remedy(
                "send the request again, with the same `Idempotency-Key`, until it is answered",
            )),
        }
    }
}

/// A page of rows: their keys without the prefix, and their values.
pub(super) type Page = Vec<(Vec<u8>, Vec<u8>)>;

/// Up to `limit` rows of a prefix behind `after`; whether there are more.
///
/// # Errors
/// If they cannot be read.
pub(super) fn page(
    books: &dyn Books,
    prefix: &[u8],
    after: &[u8],
    limit: usize,
) -> Result<(Page, bool), StoreError> {
    let (mut found, mut more) = (Vec::new(), false);
    let after = if after.is_empty() { Vec::new() } else { [prefix, after].concat() };
    books.visit(prefix, &after, &mut |key, value| {
        if found.len() == limit {
            more = true;
            return ControlFlow::Break(());
        }
        let rest = key.get(prefix.len()..).unwrap_or_default().to_vec();
        found.push((rest, value.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok((found, more))
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (status, kind, remedy) = match &refused {
            Refused::UnknownDocument { .. } => (
                StatusCode::NOT_FOUND,
                "unknown-document",
                "GET /v1/invoices lists the documents that there are",
            ),
            Refused::Stale => (
                StatusCode::CONFLICT,
                "overtaken",
                "look at the customer's documents, and ask again",
            ),
            Refused::AlreadyIssued { .. } | Refused::State { .. } | Refused::TooMuch { .. } => (
                StatusCode::CONFLICT,
                "document-state",
                "GET /v1/invoices/{number} shows what is due, paid and credited",
            ),
            Refused::Settled { .. } => {
                (StatusCode::CONFLICT, "document-state", "write a credit note in place of it")
            }
            Refused::Locked { .. } | Refused::LockedAlready { .. } => (
                StatusCode::CONFLICT,
                "locked",
                "give a date in a month that is open; a locked month stays locked",
            ),
            Refused::Archive { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "archive",
                "deploy/docs/archive.md says how a ledger is brought up to its archive",
            ),
            Refused::ClockStep => {
                (StatusCode::UNPROCESSABLE_ENTITY, "clock-step", "advance it in several steps")
            }
            Refused::NotASandbox => (
                StatusCode::CONFLICT,
                "no-sandbox",
                "begin a sandbox: `tidemark-collector serve --test-clock` with an empty data_dir",
            ),
            Refused::SeriesFull { .. } => {
                (StatusCode::CONFLICT, "series-full", "give the seller another prefix")
            }
            Refused::NotOver { .. } => {
                (StatusCode::CONFLICT, "not-over", "lock a month that is over")
            }
            Refused::NothingNew => (StatusCode::CONFLICT, "nothing-new", "there is nothing to do"),
            Refused::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "send a new `Idempotency-Key` with each new request",
            ),
            Refused::Currency { .. }
            | Refused::NoAmount
            | Refused::TooLarge
            | Refused::Future { .. }
            | Refused::Period(_)
            | Refused::Money(_)
            | Refused::Entry(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "bad-amount",
                "look at amount, currency and date",
            ),
        };
        let title = match refused {
            Refused::UnknownDocument { .. } => "There is no such document",
            _ => "It was not booked",
        };
        Self::new(status, kind, title).detail(refused.to_string()).remedy(remedy)
    }
}
