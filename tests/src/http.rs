//! HTTP requests with a time limit, from plain threads.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// A client with a runtime of its own. One a thread.
#[derive(Debug)]
pub struct Http {
    runtime: Runtime,
    client: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// A header's value, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}

impl Http {
    /// # Errors
    /// When the system gives no runtime.
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        // The runtime sleeps between requests, and cannot see that a server closed an idle connection.
        let client = reqwest::Client::builder()
            .timeout(REQUEST_WAIT)
            .pool_max_idle_per_host(0)
            .no_proxy()
            .build()?;
        Ok(Self { runtime, client })
    }

    /// # Errors
    /// When there is no answer.
    pub fn get(&self, url: &str, token: Option<&str>) -> Result<Answer> {
        let mut request = self.client.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        self.send(request).with_context(|| format!("failed to GET {url}"))
    }

    /// # Errors
    /// When there is no answer.
    pub fn post(&self, url: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Result<Answer> {
        let request = self.client.post(url).header("content-type", content_type).body(body.into());
        self.send(request).with_context(|| format!("failed to POST {url}"))
    }

    /// # Errors
    /// When there is no answer.
    pub fn put(&self, url: &str, body: impl Into<Vec<u8>>) -> Result<Answer> {
        let request = self.client.put(url).body(body.into());
        self.send(request).with_context(|| format!("failed to PUT {url}"))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        self.runtime.block_on(async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let headers = response.headers().iter();
            let headers = headers.map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            });
            Ok(Answer { status, headers: headers.collect(), body: response.text().await? })
        })
    }
}
