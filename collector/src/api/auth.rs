//! API tokens: who may read.
//!
//! **Owns** comparing tokens. **Does not own** how often one may fail (`logins.rs`), or where they are configured. A token is held as its
//! SHA-256 digest, and digests are compared in a time that does not depend on them.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use crate::listen::one_address;

use super::Api;
use super::door::Peer;
use super::logins::{Login, Logins};
use super::problem::Problem;

/// One configured token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Who it was given to, for logs.
    pub name: String,
    pub secret: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All tokens, as digests, and who tried which.
#[derive(Debug)]
pub(super) struct Tokens {
    digests: Vec<[u8; 32]>,
    logins: Mutex<Logins>,
}

impl Tokens {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        let digest = |token: Token| Sha256::digest(token.secret.as_bytes()).into();
        let digests = tokens.into_iter().map(digest).collect();
        Self { digests, logins: Mutex::default() }
    }

    /// The number of the token that was presented; `None` if it is none of ours.
    fn find(&self, presented: &str) -> Option<usize> {
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        // Every token is compared to its end, whichever fits.
        self.digests.iter().enumerate().fold(None, |found, (number, token)| {
            if equal(token, &presented) { Some(number) } else { found }
        })
    }

    fn judge(&self, presented: &str, peer: Peer, now: Duration) -> Login {
        let token = self.find(presented);
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.judge(one_address(peer.0), token, now)
    }
}

fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let difference = left.iter().zip(right).fold(0_u8, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Lets requests with a valid bearer token pass.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Some(token) = bearer(request.headers()) else {
        return refusal("the request bears no token").into_response();
    };
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Problem::internal(&"a request came from nowhere").into_response();
    };
    match api.tokens.judge(token, peer, api.ledger.monotonic()) {
        Login::Admitted => {
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
        let token = |secret: &str| Token { name: "n".to_owned(), secret: secret.to_owned() };
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
