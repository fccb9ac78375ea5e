//! Raw events in the archive: from sessions into objects, and found again.
//!
//! ```text
//! session --- piece, with its room ---> desk --- taken by the archive's writer ---> object, manifest
//!    ^                                                                                  |
//!    +--- archived up to this ticket ---------------- index: where each piece stands <--+
//! ```
//! **Owns** what waits for the archive, the index, and reading a batch's raw events. **Does not own** the writer's order
//! (`writer.rs`), who may send how much (`session.rs`, `listen/events.rs`), or what is shown of them (`api/events.rs`).
//!
//! Invariant: an agent is told that raw events are archived once their object and its manifest are. The ledger never waits for
//! them, and no figure is made of them.

mod desk;
mod index;
mod read;

use std::sync::Arc;

use tidemark_common::batch::Header;
use tidemark_common::id::Digest;

use super::ArchiveError;
use super::store::ArchiveStore;

pub use desk::{Desk, Kept};
pub use index::{EVENTS_FILE, EventsIndex, IndexError, PiecePlace, Row};
pub use read::{Missing, RawEvent, read_events};

/// The raw events of one archive, as the doors and the API need them.
#[derive(Debug, Clone)]
pub struct RawEvents {
    pub desk: Arc<Desk>,
    pub(super) index: Arc<EventsIndex>,
    store: Arc<dyn ArchiveStore>,
}

impl RawEvents {
    pub(super) fn new(index: EventsIndex, store: Arc<dyn ArchiveStore>) -> Self {
        Self { desk: Arc::default(), index: Arc::new(index), store }
    }

    /// Those of an archive in this folder, which is also the index's.
    #[cfg(test)]
    pub(crate) fn in_folder(folder: &std::path::Path) -> Self {
        let store = super::store::FolderStore::new(folder);
        Self::new(EventsIndex::open(folder).unwrap(), Arc::new(store))
    }

    /// Puts a batch's pieces into the archive and the index, without a manifest.
    #[cfg(test)]
    pub(crate) fn put(&self, header: &Header, pieces: &[Vec<u8>]) {
        use super::manifest::{Kind, Manifest, object_name, tests::manifest};
        let number = self.index.seen().unwrap().map_or(1, |(number, _)| number.saturating_add(1));
        let object = object_name(Kind::Events, number, &"0".repeat(64));
        let (mut bytes, mut rows) = (Vec::new(), Vec::new());
        for (index, piece) in (0..).zip(pieces) {
            rows.push(Row {
                stream: header.stream,
                sequence: header.sequence,
                index,
                of: u32::try_from(pieces.len()).unwrap(),
                offset: u64::try_from(bytes.len()).unwrap(),
                length: u32::try_from(piece.len()).unwrap(),
            });
            bytes.extend_from_slice(piece);
        }
        self.store.put_new(&object, &bytes).unwrap();
        let manifest = Manifest { number, object, ..manifest() };
        self.index.put(&manifest, "digest", &rows).unwrap();
    }

    /// Shows each raw event of a batch with its number, in order; nothing of it counts if this fails.
    ///
    /// # Errors
    /// Why they cannot be shown, or an archive that cannot be read.
    pub fn read(
        &self,
        header: &Header,
        digest: Option<Digest>,
        each: &mut dyn FnMut(&RawEvent<'_>),
    ) -> Result<(), Missing> {
        let digest = digest.ok_or(Missing::NotSent)?;
        let places = self.index.find(header.stream, header.sequence);
        let places = places.map_err(|error| Missing::Unreadable(error.to_string()))?;
        let piece = |place: &PiecePlace| -> Result<Option<Vec<u8>>, ArchiveError> {
            self.store.get_range(&place.object, place.offset, place.length)
        };
        read_events(header, digest, &places, piece, each)
    }
}
