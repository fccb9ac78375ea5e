//! Certificates and keys in the books.
//!
//! **Owns** that certificates are numbered without holes, each after the one before, and that keys follow each other.
//! **Does not own** their texts (`certificate`).

use tidemark_common::time::Timestamp;

use super::rows;
use super::{BookRows, Certify, Draft, Failed, Plan, Put, Refused, read};
use crate::certificate::keys::PublishedKey;
use crate::certificate::{Certified, row_key, streams_prefix};
use crate::ledger::entry::{EntryKind, Postings};
use crate::period::Zone;

pub(super) fn judge_certificate(
    rows: &dyn BookRows,
    certify: &Certify,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let Certify { certified, previous, file, streams } = certify;
    let last = read::<Certified>(rows, rows::CERTIFIED)?;
    let follows = match &last {
        None => certified.number == 1,
        Some(last) => {
            last.number.checked_add(1) == Some(certified.number) && last.sha256 == *previous
        }
    };
    if !follows {
        return Err(Refused::Stale.into());
    }
    let number = certified.number;
    let pieces = (0_u32..).zip(streams).map(|(piece, bytes)| -> Put {
        ([&streams_prefix(number)[..], &piece.to_be_bytes()].concat(), Some(bytes.clone()))
    });
    let own: [Put; 2] = [
        (row_key(number), Some(file.clone())),
        (rows::CERTIFIED.to_vec(), Some(rows::write(certified))),
    ];
    let entry = Draft {
        kind: EntryKind::Certificate,
        customer: None,
        document_sha256: Some(certified.sha256.clone()),
        subject: Some(number.to_string()),
        postings: Postings::default(),
        date: Zone::utc().day_of(at)?,
    };
    Ok(Plan { entry, puts: own.into_iter().chain(pieces).collect(), document: None })
}

pub(super) fn judge_key(
    rows: &dyn BookRows,
    key: &str,
    signature: Option<&String>,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut keys = read::<Vec<PublishedKey>>(rows, rows::KEYS)?.unwrap_or_default();
    if let Some(last) = keys.last_mut() {
        last.until = Some(at.0);
    }
    let signature = signature.cloned();
    keys.push(PublishedKey { key: key.to_owned(), from: at.0, until: None, signature });
    let entry = Draft {
        kind: EntryKind::Key,
        customer: None,
        document_sha256: None,
        subject: Some(key.to_owned()),
        postings: Postings::default(),
        date: Zone::utc().day_of(at)?,
    };
    Ok(Plan { entry, puts: vec![(rows::KEYS.to_vec(), Some(rows::write(&keys)))], document: None })
}
