//! Certificates against the entries that booked them.
//!
//! **Owns** that each is there, as it was booked, and follows the one before. **Does not own** whether what it certifies is
//! so: `tidemark-collector verify` says that.

use std::collections::BTreeMap;

use tidemark_common::hex;

use super::{Findings, add};
use crate::certificate::keys::PublishedKey;
use crate::certificate::{CertificateFile, Certified, Head, digest};
use crate::ledger::books::{rows, sha256};
use crate::ledger::codec::RowError;
use crate::ledger::entry::{EntryKind, LedgerEntry};

/// What the rows so far came to. The last one's row comes first, then entries, then files.
#[derive(Debug, Default)]
pub(super) struct CertificatesCheck {
    last: Option<Certified>,
    /// Digests by number, as entries say them. Files take theirs out.
    booked: BTreeMap<u64, String>,
    files: u64,
    before: Option<String>,
}

impl CertificatesCheck {
    pub(super) fn last(&mut self, value: &[u8]) -> Result<(), RowError> {
        self.last = Some(rows::read("last certificate", value)?);
        Ok(())
    }

    pub(super) fn keys(value: &[u8]) -> Result<(), RowError> {
        rows::read::<Vec<PublishedKey>>("keys", value).map(drop)
    }

    pub(super) fn entry(&mut self, entry: &LedgerEntry) {
        let number = entry.subject.as_ref().and_then(|subject| subject.parse().ok());
        if let (EntryKind::Certificate, Some(number)) = (entry.kind, number) {
            self.booked.insert(number, entry.document_sha256.clone().unwrap_or_default());
        }
    }

    pub(super) fn file(
        &mut self,
        key: &[u8],
        value: &[u8],
        findings: &mut Findings,
    ) -> Result<(), RowError> {
        let file: CertificateFile = rows::read("certificate", value)?;
        let head: Head = rows::read("head of a certificate", file.head.as_bytes())?;
        let (number, own) = (head.number, digest(&file.head));
        self.files = self.files.saturating_add(1);
        if key != number.to_be_bytes() || number != self.files {
            let due = self.files;
            add(findings, || format!("certificate {due} is due, and {number} stands there"));
        }
        if self.booked.remove(&number).as_ref() != Some(&own) {
            add(findings, || format!("certificate {number} is not the one that was booked"));
        }
        if self.before.as_ref().is_some_and(|before| *before != head.previous) {
            add(findings, || format!("certificate {number} does not name the one before"));
        }
        if hex::encode(&sha256(file.statement.as_bytes())) != head.statement_sha256 {
            add(findings, || format!("certificate {number} has another statement"));
        }
        self.before = Some(own);
        Ok(())
    }

    pub(super) fn finish(&self, findings: &mut Findings) {
        for number in self.booked.keys() {
            add(findings, || format!("certificate {number} is not there"));
        }
        let last = self.last.as_ref().map(|last| (last.number, &last.sha256));
        if last != self.before.as_ref().map(|before| (self.files, before)) {
            add(findings, || "the last certificate is not the one that the books name".to_owned());
        }
    }
}
