//! API tokens: who may read.
//!
//! **Owns** comparing tokens. **Does not own** where they are configured. A token is held as its
//! SHA-256 digest, and digests are compared in a time that does not depend on them.

use std::fmt;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::Api;
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

/// All tokens, as digests.
#[derive(Debug)]
pub(super) struct Tokens(Vec<[u8; 32]>);

impl Tokens {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        Self(
            tokens
                .into_iter()
                .map(|token| Sha256::digest(token.secret.as_bytes()).into())
                .collect(),
        )
    }

    fn admit(&self, presented: &str) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        // Every token is compared to its end, whichever fits.
        self.0.iter().fold(false, |admitted, token| admitted | equal(token, &presented))
    }
}

fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let difference = left.iter().zip(right).fold(0_u8, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Lets requests with a valid bearer token pass.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Some(token) if api.tokens.admit(token) => {
            let mut response = next.run(request).await;
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Some(_) => refusal("the token is not one of those configured").into_response(),
        None => refusal("the request bears no token").into_response(),
    }
}

/// The token of `Authorization: Bearer TOKEN`; the scheme's case does not matter (RFC 9110).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
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
            assert_eq!(tokens.admit(presented), expected, "{presented}");
        }
        assert!(!Tokens::new(Vec::new()).admit(""));
        assert!(!format!("{:?}", token("hidden")).contains("hidden"));
    }
}
