//! The rows of the books: their keys and values.
//!
//! ```text
//! "g"                                   the catalogue's text, where it is in the ledger
//! "G" sha256 [32]                       every text that it had
//! "v" plan [16], effective u32          a version of a plan that an invoice used
//! "w" tax                               a tax that an invoice used
//! "h"                                   entries so far, digest of the last
//! "e" number u64                        an entry, as ledger/entry.rs writes it
//! "n" prefix + fiscal year              the last number of a series
//! "d" number                            a document, as it was issued
//! "s" number                            its state: what is due, paid, credited
//! "u" number                            its effect: what a reversal takes back
//! "c" customer                          version and credit
//! "p" customer, plan [16], start u32, end u32      what was invoiced for a period, line by line
//! "r" customer, date                    the document of a billing run
//! "x" customer, number                  the customer's documents
//! "i" key                               what a request with an idempotency key came to
//! "k" customer, bucket u32, entry u64   a correction of usage (ledger/books/correction.rs)
//! "l"                                   the last month that is locked
//! "L" stream [16]                       a stream that was declared lost (reconcile/loss.rs)
//! "W" finding's id                      a waiver (reconcile/waiver.rs)
//! "y" number u64                        a certificate (certificate.rs); "z" number u64, piece u32: its streams
//! "N"                                   the number and digest of the last certificate
//! "Y"                                   the public keys of certificates (certificate/keys.rs)
//! "q" number                            a document's proof (certificate/proof.rs)
//! "t"                                   of a sandbox: how far its time is ahead, in milliseconds
//! ```
//! Values are JSON; amounts are minor units in text. A customer's id stands with its length before it; of a plan's name
//! the first half of its SHA-256. Numbers are big-endian.
//!
//! **Owns** these bytes. **Does not own** what changes them (`ledger/books.rs`).

use std::ops::ControlFlow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use tidemark_common::id::{CustomerId, Digest};
use tidemark_common::time::Bucket;

use crate::invoice::DocumentKind;
use crate::ledger::codec::{RowError, put_str};
use crate::ledger::store::{Books, StoreError};
use crate::money::{Currency, Money};
use crate::period::Period;

pub const CATALOG: &[u8] = b"g";
pub const CATALOGS: &[u8] = b"G";
pub const USED_PLANS: &[u8] = b"v";
pub const USED_TAXES: &[u8] = b"w";
pub const HEAD: &[u8] = b"h";
pub const ENTRIES: &[u8] = b"e";
pub const SERIES: &[u8] = b"n";
pub const DOCUMENTS: &[u8] = b"d";
pub const STATES: &[u8] = b"s";
pub const EFFECTS: &[u8] = b"u";
pub const CUSTOMERS: &[u8] = b"c";
pub const PERIODS: &[u8] = b"p";
pub const RUNS: &[u8] = b"r";
pub const BY_CUSTOMER: &[u8] = b"x";
pub const REQUESTS: &[u8] = b"i";
pub const CORRECTIONS: &[u8] = b"k";
pub const LOCK: &[u8] = b"l";
pub const TEST_CLOCK: &[u8] = b"t";
pub const LOSSES: &[u8] = b"L";
pub const WAIVERS: &[u8] = b"W";
pub const CERTIFICATES: &[u8] = b"y";
pub const CERTIFIED_STREAMS: &[u8] = b"z";
pub const CERTIFIED: &[u8] = b"N";
pub const KEYS: &[u8] = b"Y";
pub const PROOFS: &[u8] = b"q";

/// A key: its kind, and what follows.
#[must_use]
pub fn key(kind: &[u8], rest: &[u8]) -> Vec<u8> {
    [kind, rest].concat()
}

/// What the keys of a customer's rows of one kind begin with.
#[must_use]
pub fn customer_prefix(kind: &[u8], customer: &CustomerId) -> Vec<u8> {
    let mut bytes = kind.to_vec();
    put_str(&mut bytes, customer.as_str());
    bytes
}

#[must_use]
pub fn customer_key(kind: &[u8], customer: &CustomerId, rest: &[u8]) -> Vec<u8> {
    [&customer_prefix(kind, customer), rest].concat()
}

#[must_use]
pub fn period_key(customer: &CustomerId, plan: &str, period: Period) -> Vec<u8> {
    let mut rest = Sha256::digest(plan.as_bytes()).get(..16).unwrap_or_default().to_vec();
    rest.extend_from_slice(&period.start.0.to_be_bytes());
    rest.extend_from_slice(&period.end.0.to_be_bytes());
    customer_key(PERIODS, customer, &rest)
}

/// A whole number of minor units, in text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Minor(pub i128);

impl TryFrom<String> for Minor {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<Minor> for String {
    fn from(minor: Minor) -> Self {
        minor.0.to_string()
    }
}

/// How far the chain of entries goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub entries: u64,
    /// Of the last entry; empty before the first.
    pub digest: String,
}

impl Head {
    /// The number of the next entry.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.entries.checked_add(1).expect("a ledger never holds 2^64 entries")
    }

    /// What the next entry names as the one before.
    #[must_use]
    pub fn previous(&self) -> Digest {
        Digest(tidemark_common::hex::decode_array(&self.digest).unwrap_or_default())
    }
}

/// What the books know of a customer as such.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerRow {
    /// Raised by everything that is booked for the customer.
    pub version: u64,
    /// What is left of credit notes and overpayments, by currency.
    pub credit: std::collections::BTreeMap<String, Minor>,
}

impl CustomerRow {
    #[must_use]
    pub fn credit_in(&self, currency: Currency) -> Money {
        let minor = self.credit.get(currency.code()).copied().unwrap_or_default().0;
        Money { minor, currency }
    }
}

/// How much of a period was invoiced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Fees in advance alone.
    Advance,
    /// All of it.
    Whole,
}

/// What all documents so far charged for one plan and period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodRow {
    pub plan: String,
    /// Quarters of an hour since 1970.
    pub start: u32,
    pub end: u32,
    pub scope: Scope,
    pub lines: Vec<InvoicedLine>,
}

impl PeriodRow {
    #[must_use]
    pub fn period(&self) -> Period {
        Period { start: Bucket(self.start), end: Bucket(self.end) }
    }
}

/// What was charged for one line; in a change: what comes to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoicedLine {
    /// Which line it is, whatever its amount (`invoice/draft.rs`).
    pub key: String,
    pub description: String,
    /// Whose revenue it is.
    pub product: String,
    /// The name of its tax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<String>,
    pub amount: Minor,
    /// How much of it, without tax, is not earned yet.
    #[serde(default)]
    pub deferred: Minor,
}

/// What a document changes beside the accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Of a billing run: its date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// What comes to the customer's credit.
    #[serde(default)]
    pub credit: Minor,
    pub periods: Vec<PeriodChange>,
    /// Versions of plans that it is made by; their `document` is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<UsedPlan>,
    /// Taxes that are on it; their `document` is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taxes: Vec<UsedTax>,
    /// The invoice that a credit note is about, and how much less is due of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles: Option<Settles>,
}

/// What a credit note does to its invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settles {
    pub number: String,
    /// How much less is due of it; the rest is the customer's credit.
    pub due: Minor,
    /// The note's total.
    pub total: Minor,
}

/// What comes to one period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodChange {
    pub plan: String,
    pub start: u32,
    pub end: u32,
    pub scope: Scope,
    /// What it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_before: Option<Scope>,
    pub lines: Vec<InvoicedLine>,
}

impl PeriodChange {
    #[must_use]
    pub fn period(&self) -> Period {
        Period { start: Bucket(self.start), end: Bucket(self.end) }
    }
}

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentState {
    Issued,
    PartlyPaid,
    /// Nothing is due.
    Paid,
    Void,
    Uncollectible,
}

impl DocumentState {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::PartlyPaid => "partly_paid",
            Self::Paid => "paid",
            Self::Void => "void",
            Self::Uncollectible => "uncollectible",
        }
    }
}

/// A document's state and figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRow {
    pub customer: String,
    pub kind: DocumentKind,
    pub state: DocumentState,
    pub currency: String,
    /// The seller's: what is done with it counts for the day there.
    pub time_zone: String,
    pub date: String,
    pub due_date: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_end: Option<String>,
    pub total: Minor,
    /// The customer's credit that was used for it.
    pub credit_applied: Minor,
    pub due: Minor,
    pub paid: Minor,
    /// By credit notes, of what was due.
    pub credited: Minor,
    /// The total of all credit notes about it.
    pub credit_notes: Minor,
    pub written_off: Minor,
    /// The entry that issued it.
    pub entry: u64,
    pub sha256: String,
}

/// A version of a plan that an invoice used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedPlan {
    pub plan: String,
    /// Quarters of an hour since 1970; `None`: it always was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<u32>,
    /// Of its text (`catalog/write.rs`).
    pub sha256: String,
    /// The first that used it.
    pub document: String,
}

impl UsedPlan {
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let digest = Sha256::digest(self.plan.as_bytes());
        let effective = self.effective.unwrap_or(0).to_be_bytes();
        [USED_PLANS, digest.get(..16).unwrap_or_default(), &effective].concat()
    }
}

/// A tax that an invoice used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedTax {
    pub name: String,
    /// Of its text (`catalog/write.rs`).
    pub sha256: String,
    /// The first that used it.
    pub document: String,
}

/// What a request with an idempotency key came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRow {
    /// SHA-256 of what was asked.
    pub asked: String,
    pub entry: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// A row, if it is there.
///
/// # Errors
/// A row that cannot be read.
pub fn get<T: DeserializeOwned>(books: &dyn Books, key: &[u8]) -> Result<Option<T>, StoreError> {
    let row = books.get(key)?.map(|bytes| read("books", &bytes)).transpose();
    row.map_err(|error| StoreError::books(error.to_string()))
}

/// Shows every row of a kind, with what its key holds beside the kind.
///
/// # Errors
/// A row that cannot be read.
pub fn visit<T: DeserializeOwned>(
    books: &dyn Books,
    kind: &[u8],
    mut show: impl FnMut(&[u8], T),
) -> Result<(), StoreError> {
    let mut broken = None;
    books.visit(kind, &[], &mut |key, value| match read("books", value) {
        Ok(row) => {
            show(key.get(kind.len()..).unwrap_or_default(), row);
            ControlFlow::Continue(())
        }
        Err(error) => {
            broken = Some(StoreError::books(error.to_string()));
            ControlFlow::Break(())
        }
    })?;
    broken.map_or(Ok(()), Err)
}

#[must_use]
pub fn write(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("texts and numbers are JSON")
}

/// # Errors
/// Bytes that are no row of this kind.
pub fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, RowError> {
    serde_json::from_slice(bytes).map_err(|error| RowError { row: what, reason: error.to_string() })
}
