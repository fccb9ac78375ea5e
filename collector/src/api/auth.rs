//! API tokens: who may read.
//!
//! **Owns** comparing tokens, and what each may see. **Does not own** how often one may fail (`logins.rs`), or where
//! they are configured. A token is held as its SHA-256 digest, and digests are compared in a time that does not depend
//! on them.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use tidemark_common::id::CustomerId;

use crate::listen::one_address;

use super::Api;
use super::door::Peer;
use super::logins::{Login, Logins};
use super::problem::Problem;

/// One configured token; its secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Who it was given to, for logs.
    pub name: String,
    /// The secret's SHA-256.
    pub digest: [u8; 32],
    /// The one customer that it may see; `None`: all that there is.
    pub customer: Option<CustomerId>,
    pub role: Role,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Reads all, issues documents, books payments and credits.
    Billing,
    /// Reads usage, bills and documents.
    #[default]
    Viewer,
    /// Reads the ledger's entries and balances too.
    Auditor,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Billing, Self::Viewer, Self::Auditor];

    /// The name, as the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Billing => "billing",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
        }
    }
}

/// What a resource asks of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Audit,
    Bill,
    Administer,
}

impl Need {
    fn is_met_by(self, role: Role) -> bool {
        match (self, role) {
            (Self::Read, _) | (_, Role::Admin) => true,
            (Self::Audit, Role::Billing | Role::Auditor) | (Self::Bill, Role::Billing) => true,
            (Self::Audit | Self::Bill | Self::Administer, _) => false,
        }
    }
}

/// The name of the token that a request bears.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub(super) name: String,
    /// It sees one customer alone.
    pub(super) is_limited: bool,
}

impl Token {
    /// A token that may see everything.
    #[must_use]
    pub fn of_secret(name: &str, secret: &str) -> Self {
        let digest = Sha256::digest(secret.as_bytes()).into();
        Self { name: name.to_owned(), digest, customer: None, role: Role::default() }
    }
}

/// All tokens, and who tried which.
#[derive(Debug)]
pub(super) struct Tokens {
    tokens: Vec<Token>,
    logins: Mutex<Logins>,
}

impl Tokens {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        Self { tokens, logins: Mutex::default() }
    }

    /// The number of the token that was presented; `None` if it is none of ours.
    fn find(&self, presented: &str) -> Option<usize> {
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        // Every token is compared to its end, whichever fits.
        self.tokens.iter().enumerate().fold(None, |found, (number, token)| {
            if equal(&token.digest, &presented) { Some(number) } else { found }
        })
    }

    /// What is made of a login, and the token, if it is one.
    fn judge(&self, presented: &str, peer: Peer, now: Duration) -> (Login, Option<&Token>) {
        let number = self.find(presented);
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let login = logins.judge(one_address(peer.0), number, now);
        (login, number.and_then(|number| self.tokens.get(number)))
    }
}

fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let difference = left.iter().zip(right).fold(0_u8, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Lets requests with a valid bearer token pass, to what that token may see.
pub(super) async fn guard(
    State((api, need)): State<(Api, Need)>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(token) = bearer(request.headers()) else {
        return refusal("the request bears no token").into_response();
    };
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Problem::internal(&"a request came from nowhere").into_response();
    };
    let (login, token) = api.tokens.judge(token, peer, api.ledger.monotonic());
    match login {
        Login::Admitted if !token.is_some_and(|token| token.may_see(parameters.as_ref().ok())) => {
            elsewhere().into_response()
        }
        Login::Admitted if !token.is_some_and(|token| need.is_met_by(token.role)) => {
            beyond(token.map(|token| token.role)).into_response()
        }
        Login::Admitted => {
            if let Some(token) = token {
                let (name, is_limited) = (token.name.clone(), token.customer.is_some());
                request.extensions_mut().insert(Actor { name, is_limited });
            }
            let mut response = next.run(request).await;
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        refused @ (Login::Refused | Login::LastRefused) => {
            api.door.logins_failed.fetch_add(1, Ordering::Relaxed);
            if refused == Login::LastRefused {
                tracing::warn!(peer = %peer.0, "too many logins failed; further ones are not looked at for a while");
            }
            refusal("the token is not one of those configured").into_response()
        }
        Login::TooMany => {
            api.door.logins_limited.fetch_add(1, Ordering::Relaxed);
            too_many().into_response()
        }
    }
}

impl Token {
    /// Whether a request with these parameters in its path is about what the token may see.
    fn may_see(&self, parameters: Option<&RawPathParams>) -> bool {
        let of = |id: &CustomerId| {
            let named = |parameters: &RawPathParams| {
                parameters.iter().any(|parameter| parameter == ("customer", id.as_str()))
            };
            parameters.is_some_and(named)
        };
        self.customer.as_ref().is_none_or(of)
    }
}

/// The token of `Authorization: Bearer TOKEN`; the scheme's case does not matter (RFC 9110).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

fn too_many() -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-logins", "Too many logins failed")
        .detail("so many logins failed of late that only tokens that have passed from this address are taken")
        .remedy("wait a minute, and look for the client that sends a token that is not configured")
}

fn elsewhere() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "The token may not see this")
        .detail("the token is limited to one customer, and this is about another one, or about all")
        .remedy("ask for the token's own customer, or with a token without `customer` in collector.toml")
}

fn beyond(role: Option<Role>) -> Problem {
    let role = role.unwrap_or_default().name();
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "The token may not do this")
        .detail(format!("the token's role is {role:?}"))
        .remedy("use a token whose `role` in collector.toml is \"admin\", or as deploy/docs/api.md says")
}

fn refusal(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid API token is needed")
        .detail(detail)
        .remedy(
            "send `Authorization: Bearer TOKEN` with a token of [[api.token]] in collector.toml",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_token_is_admitted() {
        let token = |secret: &str| Token::of_secret("n", secret);
        let tokens = Tokens::new(vec![token("one-long-secret"), token("another-secret")]);
        for (presented, expected) in [
            ("one-long-secret", true),
            ("another-secret", true),
            ("one-long-secre", false),
            ("", false),
        ] {
            assert_eq!(tokens.find(presented).is_some(), expected, "{presented}");
        }
        assert_eq!(Tokens::new(Vec::new()).find(""), None);
        assert!(!format!("{:?}", token("hidden")).contains("hidden"));
    }
}
