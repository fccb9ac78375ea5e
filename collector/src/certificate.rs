//! Certificates: what a cut of the ledger holds, signed; and the proofs that rest on them.
//!
//! ```text
//! snapshot --usage.rs, tree.rs--> usage root    --streams.rs--> streams' root     books -> entries
//!          + what reconciliation says -> statement -> head -> signature      make.rs
//! ```
//! **Owns** the texts of `deploy/docs/proofs.md`, and their rows. **Does not own** what is found wrong (`reconcile`), or
//! when one is made (`billing_run`).
//!
//! ```text
//! row  "y" number u64              the file
//!      "z" number u64, piece u32   its streams, zstd
//!      "N"                         the last one's number and digest
//!      "Y"                         the public keys
//! ```
//! Invariants: a certificate never changes once it has its number, and names the one before. A head holds no name and no
//! figure of any customer's.

pub mod anchor;
pub mod bundle;
pub mod keys;
pub mod make;
pub mod proof;
pub mod streams;
pub mod tree;
pub mod usage;

use serde::{Deserialize, Serialize};

use tidemark_common::hex;

use crate::ledger::books::rows;
use crate::ledger::books::sha256;
use crate::ledger::store::{Books, StoreError};

/// A certificate that is booked: what documents name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    pub number: u64,
    /// The digest of its head.
    pub sha256: String,
}

/// What is signed. The order of fields is the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub format: String,
    pub ledger: String,
    pub number: u64,
    pub previous: String,
    pub at: i64,
    pub as_of: i64,
    pub complete_through: Option<i64>,
    pub from_day: u32,
    pub batches: u64,
    pub entries: u64,
    pub entries_digest: String,
    pub usage_root: String,
    pub streams_root: String,
    pub statement_sha256: String,
    pub key: String,
}

impl Head {
    pub const FORMAT: &'static str = "tidemark certificate 1";
}

/// A certificate as a file holds it, and the ledger's row. The order of fields is the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFile {
    pub head: String,
    pub signature: String,
    pub statement: String,
}

/// The bytes of a file.
#[must_use]
pub fn file(head: &str, signature: &str, statement: &str) -> Vec<u8> {
    let [head, signature, statement] = [head, signature, statement].map(str::to_owned);
    let mut bytes = rows::write(&CertificateFile { head, signature, statement });
    bytes.push(b'\n');
    bytes
}

/// A head's digest in hex.
#[must_use]
pub fn digest(head: &str) -> String {
    hex::encode(&sha256(head.as_bytes()))
}

/// The newest certificate; before the first, number 0 and zeros.
///
/// # Errors
/// If the row cannot be read.
pub fn last(books: &dyn Books) -> Result<Certified, StoreError> {
    let none = || Certified { number: 0, sha256: "0".repeat(64) };
    Ok(rows::get(books, rows::CERTIFIED)?.unwrap_or_else(none))
}

/// The key of a certificate's row.
#[must_use]
pub fn row_key(number: u64) -> Vec<u8> {
    rows::key(rows::CERTIFICATES, &number.to_be_bytes())
}

/// What the keys of a certificate's streams begin with.
#[must_use]
pub fn streams_prefix(number: u64) -> Vec<u8> {
    rows::key(rows::CERTIFIED_STREAMS, &number.to_be_bytes())
}
