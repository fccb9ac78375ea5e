//! Where in the archive each piece of raw events stands: `events.redb`, beside the ledger.
//!
//! ```text
//! pieces   stream [16], sequence u64, index u32 -> object u64, offset u64, length u32, of u32      (big-endian)
//! objects  number u64 -> the object's name
//! meta     0 -> number u64 of the last manifest that was looked at, digest [64] of it, in text
//! ```
//! **Owns** these rows. It is derived: where it is missing, or of another archive, the archive's writer makes it anew.
//!
//! Invariant: rows of an object are written together with the number of its manifest.

use std::fmt;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition};
use thiserror::Error;
use tidemark_common::id::{Sequence, StreamId};

use crate::archive::manifest::Manifest;
use crate::ledger::codec::Fields;

/// Its name, beside the ledger.
pub const EVENTS_FILE: &str = "events.redb";
const CACHE_BYTES: usize = 8 << 20;

const PIECES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pieces");
const OBJECTS: TableDefinition<'_, u64, &str> = TableDefinition::new("objects");
const META: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("meta");
const SEEN: u64 = 0;

/// The index of one ledger's raw events.
pub struct EventsIndex {
    database: Database,
    path: PathBuf,
}

/// Failed to find raw events.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "failed to use {}, the index of raw events: {reason}; stop the collector and remove the file: it is made anew from the archive",
    path.display()
)]
pub struct IndexError {
    pub path: PathBuf,
    pub reason: String,
}

/// Where a piece stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PiecePlace {
    pub index: u32,
    pub of: u32,
    /// The object's name.
    pub object: String,
    pub offset: u64,
    pub length: u32,
}

/// A piece of an object that is being indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub stream: StreamId,
    pub sequence: Sequence,
    pub index: u32,
    pub of: u32,
    pub offset: u64,
    pub length: u32,
}

impl EventsIndex {
    /// The index in the ledger's folder, made if there is none.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn open(data_dir: &Path) -> Result<Self, IndexError> {
        let path = data_dir.join(EVENTS_FILE);
        let failed =
            |error: redb::Error| IndexError { path: path.clone(), reason: error.to_string() };
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(&path);
        let database = database.map_err(|error| failed(error.into()))?;
        let made = || -> Result<(), redb::Error> {
            let write = database.begin_write()?;
            write.open_table(PIECES)?;
            write.open_table(OBJECTS)?;
            write.open_table(META)?;
            write.commit()?;
            Ok(())
        };
        made().map_err(failed)?;
        Ok(Self { database, path })
    }

    /// The number and digest of the last manifest that was looked at; `None` for a new index.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn seen(&self) -> Result<Option<(u64, String)>, IndexError> {
        let read = || -> Result<Option<(u64, String)>, redb::Error> {
            let meta = self.database.begin_read()?.open_table(META)?;
            let Some(row) = meta.get(SEEN)? else { return Ok(None) };
            let mut fields = Fields(row.value());
            let number = fields.u64().unwrap_or(0);
            Ok(Some((number, String::from_utf8_lossy(fields.0).into_owned())))
        };
        read().map_err(|error| self.failed(&error))
    }

    /// Takes note of a manifest, whose digest this is, and of the pieces that its object holds.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn put(&self, manifest: &Manifest, digest: &str, rows: &[Row]) -> Result<(), IndexError> {
        let write = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                if !rows.is_empty() {
                    write.open_table(OBJECTS)?.insert(manifest.number, manifest.object.as_str())?;
                }
                let mut pieces = write.open_table(PIECES)?;
                for row in rows {
                    let value = [
                        &manifest.number.to_be_bytes()[..],
                        &row.offset.to_be_bytes(),
                        &row.length.to_be_bytes(),
                        &row.of.to_be_bytes(),
                    ];
                    let key = key(row.stream, row.sequence, row.index);
                    pieces.insert(key.as_slice(), value.concat().as_slice())?;
                }
                let seen = [&manifest.number.to_be_bytes()[..], digest.as_bytes()].concat();
                write.open_table(META)?.insert(SEEN, seen.as_slice())?;
            }
            write.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(&error))
    }

    /// Forgets all: it was of another archive.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn clear(&self) -> Result<(), IndexError> {
        let write = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            write.delete_table(PIECES)?;
            write.delete_table(OBJECTS)?;
            write.delete_table(META)?;
            write.open_table(PIECES)?;
            write.open_table(OBJECTS)?;
            write.open_table(META)?;
            write.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(&error))
    }

    /// The pieces of a batch that are archived, in their order.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn find(
        &self,
        stream: StreamId,
        sequence: Sequence,
    ) -> Result<Vec<PiecePlace>, IndexError> {
        let read = || -> Result<Vec<PiecePlace>, redb::Error> {
            let read = self.database.begin_read()?;
            let (pieces, objects) = (read.open_table(PIECES)?, read.open_table(OBJECTS)?);
            let (first, last) = (key(stream, sequence, 0), key(stream, sequence, u32::MAX));
            let mut found = Vec::new();
            for row in pieces.range(first.as_slice()..=last.as_slice())? {
                let (key, value) = row?;
                let (mut key, mut value) = (Fields(key.value()), Fields(value.value()));
                let index = key.array::<24>().and_then(|_| key.u32());
                let place = (value.u64(), value.u64(), value.u32(), value.u32());
                let (Some(index), (Some(object), Some(offset), Some(length), Some(of))) =
                    (index, place)
                else {
                    continue;
                };
                let Some(object) = objects.get(object)?.map(|name| name.value().to_owned()) else {
                    continue;
                };
                found.push(PiecePlace { index, of, object, offset, length });
            }
            Ok(found)
        };
        read().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &redb::Error) -> IndexError {
        IndexError { path: self.path.clone(), reason: error.to_string() }
    }
}

impl fmt::Debug for EventsIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsIndex").field("path", &self.path).finish_non_exhaustive()
    }
}

fn key(stream: StreamId, sequence: Sequence, index: u32) -> Vec<u8> {
    [&stream.0[..], &sequence.0.to_be_bytes(), &index.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::tests::manifest;

    fn row(sequence: u64, index: u32) -> Row {
        let (stream, sequence) = (StreamId([7; 16]), Sequence(sequence));
        Row { stream, sequence, index, of: 2, offset: 40, length: 9 }
    }

    #[test]
    fn pieces_are_found_in_order_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let index = EventsIndex::open(folder.path()).unwrap();
        assert_eq!(index.seen(), Ok(None));
        index.put(&manifest(), "aa", &[row(3, 1), row(3, 0), row(4, 0)]).unwrap();
        drop(index);
        let index = EventsIndex::open(folder.path()).unwrap();
        assert_eq!(index.seen(), Ok(Some((2, "aa".to_owned()))));
        let found = index.find(StreamId([7; 16]), Sequence(3)).unwrap();
        let place =
            |index| PiecePlace { index, of: 2, object: manifest().object, offset: 40, length: 9 };
        assert_eq!(found, [place(0), place(1)]);
        assert_eq!(index.find(StreamId([7; 16]), Sequence(5)), Ok(Vec::new()));
        assert_eq!(index.find(StreamId([8; 16]), Sequence(3)), Ok(Vec::new()));
        index.clear().unwrap();
        assert_eq!(index.seen(), Ok(None));
        assert_eq!(index.find(StreamId([7; 16]), Sequence(3)), Ok(Vec::new()));
    }

    #[test]
    fn a_file_that_is_none_is_told_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(EVENTS_FILE), b"no database at all").unwrap();
        let told = EventsIndex::open(folder.path()).unwrap_err().to_string();
        assert!(
            told.contains(EVENTS_FILE) && told.contains("made anew from the archive"),
            "{told}"
        );
    }
}
