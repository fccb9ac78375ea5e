//! Verification, offline: that an invoice is what its usage, its prices and its certificate say, from one file; and that a
//! certificate is what the archived batches come to.
//!
//! ```text
//! bytes --json--> bundle ---------------> signatures, by keys        days, path --tree--> usage_root of the head
//!                  |                                                    |
//!                  +--> document, parts, plans (tariff) --assignment--> usage of each line --rater--> amounts --> sums
//! ```
//! **Owns** a path of its own from bytes to amounts: a second rater, trees and canonical JSON, as
//! `deploy/docs/proofs.md` and `pricing.md` describe them. **Does not own** what writes proofs. Nothing of the catalogue,
//! of rating or of the writer of certificates is called: what they get wrong is found here.
//!
//! Invariants: no input makes it panic; what it does not know it refuses. It says place and reason of the first thing
//! that does not hold. No database, no network, no clock.
//!
//! Limits: [`FILE_BYTES_MAX`]; memory is about four times the file.

mod assignment;
mod audit;
mod bundle;
mod certificate;
pub mod command;
mod document;
mod exact;
mod instant;
mod invoice;
mod json;
mod keys;
mod lines;
mod parts;
mod rater;
mod report;
mod sums;
mod tariff;
#[cfg(test)]
mod tests;
mod tree;
mod usage;

use std::fmt;

pub use audit::verify as verify_certificate;
pub use invoice::verify as verify_invoice;
pub use keys::Keys;
pub use report::{CertificateReport, InvoiceReport};

/// A file to be verified has at most this many bytes: a million rows of usage are a quarter of it.
pub const FILE_BYTES_MAX: usize = 1 << 30;

/// What does not hold, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub place: String,
    pub what: String,
}

impl Refusal {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Refuses unless `holds`.
fn ensure(
    holds: bool,
    place: impl Into<String>,
    what: impl FnOnce() -> String,
) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::new(place, what())) }
}
