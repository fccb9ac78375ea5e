//! Batches whose bodies have left the ledger for its archive.
//!
//! **Owns** fetching them, and that none has left but those which the ledger says. **Does not own** the archive.

use std::sync::Arc;

use tidemark_common::batch::{HEADER_BYTES, Header};

use super::{FindingKind, Findings, Place};
use crate::ledger::archived::LeftBodies;
use crate::ledger::redb::has_left;
use crate::ledger::store::StoredBodies;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct LeftCheck {
    /// Where they are, if that is known.
    pub(super) bodies: Option<Arc<dyn StoredBodies>>,
    said: LeftBodies,
    /// What was not looked at, as nobody said where it is.
    pub(super) batches: u64,
    pub(super) events: u64,
}

/// A batch as it stands in the ledger.
pub(super) enum Found {
    /// With its body.
    Whole,
    /// The body has left, and this is the batch with it.
    Fetched(Vec<u8>),
    /// The body has left, and is not here.
    Left(Header),
}

impl Found {
    pub(super) fn fetched(self) -> Option<Vec<u8>> {
        match self {
            Self::Fetched(whole) => Some(whole),
            Self::Whole | Self::Left(_) => None,
        }
    }
}

/// A batch whose header alone may stand there.
fn left_header(bytes: &[u8]) -> Option<Header> {
    let header = Header::decode(bytes.first_chunk::<HEADER_BYTES>()?).ok()?;
    has_left(&header, bytes).then_some(header)
}

/// As it stands there: nobody opens bodies.
pub(super) fn unopened(bytes: &[u8]) -> Found {
    left_header(bytes).map_or(Found::Whole, Found::Left)
}

impl LeftCheck {
    /// A row of `meta`.
    pub(super) fn say(&mut self, value: &[u8]) {
        self.said = serde_json::from_slice(value).unwrap_or_default();
    }

    pub(super) fn find(&mut self, position: u64, bytes: &[u8], findings: &mut Findings) -> Found {
        let Some(header) = left_header(bytes) else { return Found::Whole };
        let place = Place::Batch { stream: header.stream, sequence: header.sequence, position };
        let events = Some(header.events());
        if position >= self.said.position {
            let why =
                || "its body is missing, and the ledger does not say that it has left".to_owned();
            findings.add(FindingKind::BatchBody, place, events, why);
        } else if let Some(bodies) = &self.bodies {
            match bodies.batch(position, &header) {
                Ok(whole) => return Found::Fetched(whole),
                Err(reason) => findings.add(FindingKind::BatchBody, place, events, || {
                    format!("its body has left the ledger for the archive: {reason}")
                }),
            }
        }
        self.batches = self.batches.saturating_add(1);
        self.events = self.events.saturating_add(header.events());
        Found::Left(header)
    }
}
