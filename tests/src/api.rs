//! The collector's answers, as far as tests read them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::http::{Answer, Http};
use crate::wait::wide_range;

/// The HTTP API of one collector.
#[derive(Debug)]
pub struct Api<'h> {
    http: &'h Http,
    base: String,
    token: String,
}

/// `GET /v1/customers/{id}/usage`
#[derive(Debug, Clone, Deserialize)]
pub struct Usage {
    pub known: bool,
    pub time_zone: String,
    pub usage: Vec<Entry>,
    pub as_of: String,
    pub complete_through: Option<String>,
    pub events_in_transit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    pub meter: String,
    pub quantity: Option<String>,
    pub events: u64,
    pub from: String,
    pub to: String,
    pub dimensions: BTreeMap<String, Option<String>>,
}

/// `GET /v1/customers/{id}/bill`
#[derive(Debug, Clone, Deserialize)]
pub struct Bill {
    pub customer: String,
    pub sections: Vec<BillSection>,
    pub total: String,
    pub currency: String,
    pub as_of: String,
    pub complete_through: Option<String>,
    pub events_in_transit: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct BillSection {
    pub plan: String,
    pub lines: Vec<BillLine>,
}

/// A line of usage per unit.
#[derive(Debug, Clone, Deserialize)]
pub struct BillLine {
    pub meter: String,
    pub unit: Option<String>,
    pub quantity: String,
    pub events: u64,
    pub unit_price: String,
    pub amount: String,
}

/// `GET /v1/streams`
#[derive(Debug, Clone, Deserialize)]
pub struct Streams {
    pub streams: Vec<Stream>,
    pub as_of: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Stream {
    pub stream: String,
    pub agent: String,
    pub state: String,
    pub fence: String,
    pub posted_sequence: u64,
    pub sealed_sequence: u64,
    pub accepted: u64,
    pub posted_events: u64,
    pub events_in_transit: u64,
    pub quarantined_events: u64,
    pub duplicates: u64,
    pub missing: Option<Missing>,
    pub unheard_since_restore: bool,
    pub rejected: BTreeMap<String, u64>,
    pub evidence: BTreeMap<String, u64>,
}

/// Batches that nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Missing {
    pub first_sequence: u64,
    pub last_sequence: u64,
    pub events: u64,
}

/// `GET /v1/suspense`
#[derive(Debug, Clone, Deserialize)]
pub struct Suspense {
    pub suspense: Vec<SuspenseEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SuspenseEntry {
    pub customer: String,
    pub meter: String,
    pub reason: String,
    /// Of what is unauthorised.
    pub agent: Option<String>,
    pub events: u64,
}

impl<'h> Api<'h> {
    #[must_use]
    pub fn new(http: &'h Http, port: u16, token: &str) -> Self {
        Self::at(http, Ipv4Addr::LOCALHOST, port, token)
    }

    /// The same at another address.
    #[must_use]
    pub fn at(http: &'h Http, host: Ipv4Addr, port: u16, token: &str) -> Self {
        Self { http, base: format!("http://{host}:{port}"), token: token.to_owned() }
    }

    /// Any path below the API's address, with the token.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.http.get(&format!("{}{path}", self.base), Some(&self.token))
    }

    /// The same with another token, or without.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get_as(&self, path: &str, token: Option<&str>) -> Result<Answer> {
        self.http.get(&format!("{}{path}", self.base), token)
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.body);
        serde_json::from_str(&answer.body).with_context(|| format!("GET {path}: {}", answer.body))
    }

    /// All usage that a test can have sent, with further parameters such as `&group_by=region`.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn usage(&self, customer: &str, parameters: &str) -> Result<Usage> {
        self.usage_between(customer, wide_range(), parameters)
    }

    /// The same in a range of unix seconds.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn usage_between(
        &self,
        customer: &str,
        (from, to): (u64, u64),
        parameters: &str,
    ) -> Result<Usage> {
        let customer = percent_encoded(customer);
        self.read(&format!("/v1/customers/{customer}/usage?from={from}&to={to}{parameters}"))
    }

    /// The live bill of the current month.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn bill(&self, customer: &str) -> Result<Bill> {
        self.read(&format!("/v1/customers/{}/bill", percent_encoded(customer)))
    }

    /// # Errors
    /// When it is not answered with 200.
    pub fn streams(&self) -> Result<Streams> {
        self.read("/v1/streams")
    }

    /// # Errors
    /// When it is not answered with 200.
    pub fn suspense(&self) -> Result<Vec<SuspenseEntry>> {
        Ok(self.read::<Suspense>("/v1/suspense")?.suspense)
    }
}

/// Text as one segment of a path.
fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
