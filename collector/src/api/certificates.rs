//! Certificates, the keys that sign them, and documents with their proofs.
//!
//! ```text
//! GET /v1/certificates?after=&limit=            ascending by number
//! GET /v1/certificates/{number}                 the file, byte for byte
//! GET /v1/certificates/{number}/streams         a text for each stream, one a line
//! GET /v1/invoices/{number}/proof               invoice.json; the same below /v1/customers/{customer}
//! GET /.well-known/tidemark-keys                for everybody
//! ```
//! **Does not own** what stands in them (`certificate`, `deploy/docs/proofs.md`).

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::certificate::bundle::{BundleError, bundle};
use crate::certificate::keys::{self, PublishedKeys};
use crate::certificate::streams::read_piece;
use crate::certificate::{CertificateFile, Head, digest, row_key, streams_prefix};
use crate::ledger::books::rows;
use crate::ledger::store::{Books, StoreError};

use super::Api;
use super::books::page;
use super::invoices::{Which, limit_of};
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};

const JSON: &str = "application/json";

/// What a list shows of one.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    number: u64,
    /// The digest of its head.
    sha256: String,
    head: Head,
}

#[derive(Debug, Serialize)]
pub(super) struct Page {
    certificates: Vec<Listed>,
    /// Pass it as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Page>, Problem> {
    let parameters = Parameters::new(pairs, &["after", "limit"])?;
    let limit = limit_of(&parameters)?;
    let after = parameters.get("after").map(number_of).transpose()?;
    api.read_books(move |_, books| {
        let after = after.map_or_else(Vec::new, |after| after.to_be_bytes().to_vec());
        let (found, more) = page(books, rows::CERTIFICATES, &after, limit)?;
        let listed = |(_, bytes): (_, Vec<u8>)| {
            let broken = |error: serde_json::Error| StoreError::books(error.to_string());
            let file: CertificateFile = serde_json::from_slice(&bytes).map_err(broken)?;
            let head: Head = serde_json::from_str(&file.head).map_err(broken)?;
            Ok(Listed { number: head.number, sha256: digest(&file.head), head })
        };
        let certificates = found.into_iter().map(listed).collect::<Result<Vec<_>, StoreError>>()?;
        let next = certificates.last().filter(|_| more).map(|last| last.number.to_string());
        Ok(Page { certificates, next })
    })
    .await
    .map(Json)
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(number): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let file = api.read_books(move |_, books| certificate(books, &number)).await?;
    Ok(([(header::CONTENT_TYPE, JSON)], file).into_response())
}

pub(super) async fn streams(
    State(api): State<Api>,
    Path(number): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let texts = api.read_books(move |_, books| {
        certificate(books, &number)?;
        let number = number.parse().unwrap_or_default();
        let (mut texts, mut broken) = (Vec::new(), None);
        books.visit(&streams_prefix(number), &[], &mut |_, piece| match read_piece(piece) {
            Ok(piece) => {
                texts.extend(piece);
                std::ops::ControlFlow::Continue(())
            }
            Err(error) => {
                broken = Some(StoreError::books(format!("certificate {number}: {error}")));
                std::ops::ControlFlow::Break(())
            }
        })?;
        broken.map_or(Ok(texts), |error| Err(error.into()))
    });
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], texts.await?).into_response())
}

pub(super) async fn proof(
    State(api): State<Api>,
    Path(which): Path<Which>,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let ledger = api.ledger.clone();
    let file = api.read_books(move |_, books| {
        let (_, document) = which.read(books)?;
        bundle(books, ledger.signer(), which.number(), &document).map_err(of_bundle)
    });
    Ok(([(header::CONTENT_TYPE, JSON)], file.await?).into_response())
}

pub(super) async fn published(State(api): State<Api>) -> Result<Json<PublishedKeys>, Problem> {
    let ledger = api.ledger.ledger();
    api.read_books(move |_, books| Ok(keys::shown(ledger, books)?)).await.map(Json)
}

fn certificate(books: &dyn Books, number: &str) -> Result<Vec<u8>, Problem> {
    let key = number.parse().map(row_key).ok();
    key.map(|key| books.get(&key)).transpose()?.flatten().ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "unknown-certificate", "There is no such certificate")
            .detail(format!("there is no certificate {number:?}"))
            .remedy("GET /v1/certificates lists those that there are")
    })
}

fn number_of(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| bad("after", "is no whole number", "give a certificate's number"))
}

fn of_bundle(error: BundleError) -> Problem {
    match error {
        BundleError::Store(error) => error.into(),
        BundleError::NoProof { .. } => {
            Problem::new(StatusCode::NOT_FOUND, "no-proof", "The document has no proof")
                .detail(error.to_string())
                .remedy("documents of billing runs have one; of a credit note that a person wrote, its entry is the proof")
        }
        BundleError::NoKey => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-key", "Nothing can be signed now")
                .detail(error.to_string())
                .remedy("put data_dir/certificate.key back, or run `tidemark-collector keys rotate`")
        }
    }
}
