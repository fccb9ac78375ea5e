//! Streams that are declared lost: their agents will not come again.
//!
//! ```text
//! row   "L" stream [16] -> who declared it lost, when and why, JSON
//! ```
//! **Owns** these rows. **Does not own** what a loss comes to (`completeness.rs`), or the entry that tells of it
//! (`ledger/books/audit.rs`).
//!
//! A declaration has no effect once the agent was heard after it: later in ledger time, which may stand still for a while after a
//! restart, or in a new session, which has a higher fence. The newest one counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tidemark_common::id::{Fence, StreamId};
use tidemark_common::time::Timestamp;

use crate::ledger::books::rows;
use crate::ledger::store::{Books, StoreError};
use crate::ledger::stream::StreamRecord;

/// A stream that a person gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Ledger time.
    pub at: Timestamp,
    pub actor: String,
    pub reason: String,
    /// The entry that tells of it.
    pub entry: u64,
    /// The stream's last session by then.
    pub fence: Fence,
}

impl Loss {
    /// Whether the stream was not heard since.
    #[must_use]
    pub fn holds(&self, record: &StreamRecord) -> bool {
        record.fence == self.fence && record.last_heard <= self.at
    }
}

/// The same as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossRow {
    /// Milliseconds since 1970.
    pub at: i64,
    pub actor: String,
    pub reason: String,
    pub entry: u64,
    pub fence: u64,
}

impl LossRow {
    #[must_use]
    pub fn key(stream: StreamId) -> Vec<u8> {
        rows::key(rows::LOSSES, &stream.0)
    }
}

/// All declarations.
///
/// # Errors
/// If the rows cannot be read.
pub fn losses(books: &dyn Books) -> Result<BTreeMap<StreamId, Loss>, StoreError> {
    let mut found = BTreeMap::new();
    rows::visit(books, rows::LOSSES, |key, row: LossRow| {
        if let Ok(stream) = key.try_into() {
            let LossRow { at, actor, reason, entry, fence } = row;
            let (at, fence) = (Timestamp(at), Fence(fence));
            found.insert(StreamId(stream), Loss { at, actor, reason, entry, fence });
        }
    })?;
    Ok(found)
}
