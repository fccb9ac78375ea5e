//! Asks a running agent's admin address, for the command line.
//!
//! **Owns** the requests and how their failures read. **Does not own** how answers are shown.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use thiserror::Error;
use tidemark_common::id::Sequence;

use super::replay::{ReplayAnswer, ReplayAsked};
use super::{DeadLetterPage, DeadLetterShown, StopAsked, StopPrepared};
use crate::fsck::Fsck;
use crate::inspect::Inspection;
use crate::status::Status;

/// An agent that is well answers in milliseconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Dead letters asked for at once.
const DEAD_LETTERS_PER_REQUEST: usize = 100;
/// To look at a whole journal takes seconds, on a slow disk more.
const LOOK_TIME_MAX: Duration = Duration::from_secs(600);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("nothing answers at {base}; is the agent running, and is this its admin.listen?")]
    NobodyThere { base: String },
    #[error(
        "failed to reach an agent at {url}: {reason}; is it running, and is this its admin.listen?"
    )]
    Unreachable { url: String, reason: String },
    #[error("failed to get {url}: it answered {status}: {text}")]
    Refused { url: String, status: u16, text: String },
    #[error("failed to read the answer of {url}: {reason}; is it an agent of this version?")]
    Unreadable { url: String, reason: String },
}

impl ClientError {
    /// Whether no agent was heard at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NobodyThere { .. } | Self::Unreachable { .. } => true,
            Self::Refused { .. } | Self::Unreadable { .. } => false,
        }
    }
}

/// One agent's admin address.
#[derive(Debug, Clone)]
pub struct AdminClient {
    base: String,
    http: reqwest::Client,
}

impl AdminClient {
    /// `base` is a URL such as `http://127.0.0.1:8128`.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        // Built in one go with a collector that knows object stores, the HTTP client can do TLS, and demands a provider of
        // it even where it is never used. One that is there already is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default().is_ok();
        // A proxy of the environment would be asked for an address that means this machine.
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIME_MAX).build().map_err(
            |error| ClientError::Unreachable {
                url: base.clone(),
                reason: chain(&error.without_url()),
            },
        )?;
        Ok(Self { base, http })
    }

    /// The agent's figures.
    ///
    /// # Errors
    /// If it does not answer, or not with a status.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask("/status").await
    }

    /// The dead letters with numbers from `from` on, page by page; `None` after the last.
    ///
    /// # Errors
    /// As [`AdminClient::status`].
    pub async fn dead_letters(
        &self,
        from: u64,
    ) -> Result<(Vec<DeadLetterShown>, Option<u64>), ClientError> {
        let path = format!("/dead-letters?from={from}&limit={DEAD_LETTERS_PER_REQUEST}");
        let page: DeadLetterPage = self.ask(&path).await?;
        // Numbers ascend, so a page that leads back would lead round in circles.
        let next = page.next.filter(|next| *next > from);
        Ok((page.dead_letters, next))
    }

    /// Has dead letters taken once more.
    ///
    /// # Errors
    /// As [`AdminClient::status`].
    pub async fn replay(&self, asked: &ReplayAsked) -> Result<ReplayAnswer, ClientError> {
        let url = format!("{}/dead-letters/replay", self.base);
        self.answer(self.http.post(&url).json(asked), url).await
    }

    /// Has the agent seal fast until it ends.
    ///
    /// # Errors
    /// As [`AdminClient::status`].
    pub async fn prepare_stop(&self) -> Result<StopPrepared, ClientError> {
        let url = format!("{}/prepare-stop", self.base);
        self.answer(self.http.post(&url).json(&StopAsked {}), url).await
    }

    /// What is in the agent's journal.
    ///
    /// # Errors
    /// As [`AdminClient::status`].
    pub async fn inspect(&self) -> Result<Inspection, ClientError> {
        let url = format!("{}/inspect", self.base);
        self.answer(self.http.get(&url).timeout(LOOK_TIME_MAX), url).await
    }

    /// Whether the agent's journal is sound.
    ///
    /// # Errors
    /// As [`AdminClient::status`].
    pub async fn fsck(&self) -> Result<Fsck, ClientError> {
        let url = format!("{}/fsck", self.base);
        self.answer(self.http.get(&url).timeout(LOOK_TIME_MAX), url).await
    }

    /// A batch's frozen bytes; `None` if it is not held.
    ///
    /// # Errors
    /// As [`AdminClient::status`].
    pub async fn batch(&self, sequence: Sequence) -> Result<Option<Vec<u8>>, ClientError> {
        let url = format!("{}/batches/{sequence}", self.base);
        match self.bytes(self.http.get(&url), url).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let url = format!("{}{path}", self.base);
        self.answer(self.http.get(&url), url).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        url: String,
    ) -> Result<T, ClientError> {
        let bytes = self.bytes(request, url.clone()).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::Unreadable { url, reason: error.to_string() })
    }

    async fn bytes(
        &self,
        request: reqwest::RequestBuilder,
        url: String,
    ) -> Result<Vec<u8>, ClientError> {
        let unreachable = |error: reqwest::Error| match is_refused(&error) {
            true => ClientError::NobodyThere { base: self.base.clone() },
            false => {
                ClientError::Unreachable { url: url.clone(), reason: chain(&error.without_url()) }
            }
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(ClientError::Refused {
                url,
                status: status.as_u16(),
                text: String::from_utf8_lossy(&bytes).trim().to_owned(),
            });
        }
        Ok(bytes.to_vec())
    }
}

/// Whether the machine was reached and nobody listens there, which needs no more words.
fn is_refused(error: &reqwest::Error) -> bool {
    let first: &dyn std::error::Error = error;
    std::iter::successors(Some(first), |error| error.source()).any(|error| {
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// An error with what caused it: the outermost alone says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tidemark_common::local_url::local_url;

    use super::*;

    #[tokio::test]
    async fn nobody_there() {
        // Bound and not listening for long: the port is free again and answers nobody.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = AdminClient::new(&local_url(address)).unwrap().status().await.unwrap_err();
        assert!(error.is_unreachable());
        let expected = format!(
            "nothing answers at http://{address}; is the agent running, and is this its admin.listen?"
        );
        assert_eq!(error.to_string(), expected);
    }
}
