//! Query parameters: each is known and given once, or the request is refused by its name.

use std::collections::BTreeMap;

use axum::http::StatusCode;

use tidemark_common::time::Bucket;

use crate::document::closest;
use crate::period::parse_edge;

use super::problem::Problem;

/// A request's query parameters, as axum reads them.
pub(super) type Pairs = Vec<(String, String)>;

/// Parameters by name.
#[derive(Debug)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// # Errors
    /// A parameter that is not among `known`, or is given twice.
    pub(super) fn new(pairs: Pairs, known: &[&str]) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                let remedy = match closest(&name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if known.is_empty() => "remove it: this resource takes none".to_owned(),
                    None => format!("this resource takes {}", known.join(", ")),
                };
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "unknown-parameter",
                    "A parameter is not known",
                )
                .detail(format!("there is no query parameter `{name}`"))
                .remedy(remedy));
            }
            if parameters.insert(name.clone(), value).is_some() {
                return Err(bad(&name, "is given twice", "give it once"));
            }
        }
        Ok(Self(parameters))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// How much of it a page holds, from 1 to `max`; `default` unless it is given.
    ///
    /// # Errors
    /// A text that is no such number.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        let given = text.parse().ok().filter(|limit| (1..=max).contains(limit));
        given.ok_or_else(|| bad("limit", &format!("is {text:?}"), format!("use 1 to {max}")))
    }

    /// An instant on a quarter of an hour, if it is given.
    ///
    /// # Errors
    /// A text that is none.
    pub(super) fn edge(&self, name: &str) -> Result<Option<Bucket>, Problem> {
        let edge = self.get(name).map(parse_edge).transpose();
        edge.map_err(|error| {
            bad(
                name,
                &error.to_string(),
                "give RFC 3339 or unix seconds on a multiple of 15 minutes of UTC",
            )
        })
    }
}

/// A parameter whose value cannot be used.
pub(super) fn bad(name: &str, detail: &str, remedy: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", "A parameter cannot be used")
        .detail(format!("`{name}` {detail}"))
        .remedy(remedy)
}
