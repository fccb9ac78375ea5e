//! Reads an archive, with nothing else at hand: manifests, objects, batches.
//!
//! **Owns** going through them, and that each is what its manifest says. **Does not own** what they are read for.
//!
//! Invariants: manifests are shown in their order, each continuing the one before. Bytes are given out only if their
//! digest is the manifest's.
//!
//! A copy may leave out kinds of objects: batches are read from `manifests/` and `batches/` alone. A batch may come more
//! than once, with the same bytes: a ledger that was put together of a backup and an archive archives some again.
//!
//! Limits: one object is in memory at a time.

use std::path::Path;
use std::sync::Arc;

use super::ArchiveError;
use super::events::Row;
use super::manifest::{self, Kind, MANIFESTS, Manifest, NO_DIGEST, manifest_name, manifest_number};
use super::segment::{ArchivedBatch, ArchivedPiece, Puts, SegmentReader, decode_books};
use super::store::{ArchiveStore, FolderStore};

/// An archive, open for reading.
#[derive(Debug, Clone)]
pub struct Archive {
    store: Arc<dyn ArchiveStore>,
    /// How many manifests there were when it was opened.
    last: u64,
}

impl Archive {
    /// The archive in a folder.
    ///
    /// # Errors
    /// A folder that cannot be read, or manifests with a hole.
    pub fn in_folder(folder: &Path) -> Result<Self, ArchiveError> {
        Self::open(Arc::new(FolderStore::new(folder)))
    }

    /// As it is now: what is written later is not read.
    ///
    /// # Errors
    /// A store that cannot be read, or manifests with a hole.
    pub fn open(store: Arc<dyn ArchiveStore>) -> Result<Self, ArchiveError> {
        let names = store.list(MANIFESTS)?;
        let mut numbers: Vec<_> = names.iter().filter_map(|name| manifest_number(name)).collect();
        numbers.sort_unstable();
        for (number, due) in numbers.iter().zip(1_u64..) {
            if *number != due {
                return Err(ArchiveError::Missing { name: manifest_name(due) });
            }
        }
        let last = numbers.last().copied().unwrap_or(0);
        Ok(Self { store, last })
    }

    /// How many manifests it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.last
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last == 0
    }

    #[must_use]
    pub fn shared_store(&self) -> Arc<dyn ArchiveStore> {
        Arc::clone(&self.store)
    }

    #[must_use]
    pub fn store(&self) -> &dyn ArchiveStore {
        &*self.store
    }

    /// Every manifest, in order, each continuing the one before. Behind an error there is none.
    #[must_use]
    pub fn manifests(&self) -> Manifests {
        Manifests { archive: self.clone(), next: 1, previous: NO_DIGEST.to_owned(), ledger: None }
    }

    /// What a manifest tells of.
    ///
    /// # Errors
    /// If it is missing, or another one.
    pub fn object(&self, manifest: &Manifest) -> Result<Vec<u8>, ArchiveError> {
        object(&*self.store, manifest)
    }

    /// The records of an object.
    ///
    /// # Errors
    /// As [`Self::object`], or bytes that are no segment of its kind.
    pub fn records(&self, manifest: &Manifest) -> Result<Records, ArchiveError> {
        records(&*self.store, manifest)
    }

    /// Every batch, in the order of admission. Behind an error there is none.
    #[must_use]
    pub fn batches(&self) -> Batches {
        Batches { manifests: self.manifests(), records: None }
    }
}

fn object(store: &dyn ArchiveStore, manifest: &Manifest) -> Result<Vec<u8>, ArchiveError> {
    let name = &manifest.object;
    let object = store.get(name)?;
    let object = object.ok_or_else(|| ArchiveError::Missing { name: name.clone() })?;
    if manifest::digest(&object) != manifest.sha256 {
        let reason = "its SHA-256 is not the one of its manifest";
        return Err(ArchiveError::damaged(name, reason));
    }
    Ok(object)
}

/// The records of the object that a manifest tells of.
///
/// # Errors
/// As [`Archive::records`].
pub fn records(store: &dyn ArchiveStore, manifest: &Manifest) -> Result<Records, ArchiveError> {
    let object = object(store, manifest)?;
    let name = manifest.object.clone();
    let reader = SegmentReader::new(manifest.kind, object);
    let reader = reader.map_err(|error| ArchiveError::segment(&name, &error))?;
    Ok(Records { name, reader, next: manifest.first, manifest: manifest.clone(), read: 0 })
}

/// Manifests one by one.
#[derive(Debug)]
pub struct Manifests {
    archive: Archive,
    next: u64,
    previous: String,
    ledger: Option<String>,
}

impl Manifests {
    fn read(&mut self) -> Result<Manifest, ArchiveError> {
        let name = manifest_name(self.next);
        let bytes = self.archive.store.get(&name)?;
        let bytes = bytes.ok_or_else(|| ArchiveError::Missing { name: name.clone() })?;
        let manifest = Manifest::decode(&name, &bytes)?;
        let ledger = self.ledger.get_or_insert_with(|| manifest.ledger.clone());
        for (what, is_so) in [
            ("it says that it is another number", manifest.number == self.next),
            ("it does not continue the manifest before", manifest.previous == self.previous),
            ("it is of another ledger than those before", manifest.ledger == *ledger),
        ] {
            if !is_so {
                return Err(ArchiveError::damaged(&name, what));
            }
        }
        self.previous = manifest::digest(&bytes);
        self.next = self.next.saturating_add(1);
        Ok(manifest)
    }

    /// The digest of the manifest that was shown last; zeros before the first.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.previous
    }
}

impl Iterator for Manifests {
    type Item = Result<Manifest, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.archive.last {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.next = u64::MAX;
        }
        Some(read)
    }
}

/// The records of one object.
#[derive(Debug)]
pub struct Records {
    name: String,
    reader: SegmentReader,
    next: u64,
    manifest: Manifest,
    read: u64,
}

impl Records {
    /// The next batch, in an object of batches.
    ///
    /// # Errors
    /// A record that is none, or does not stand where its manifest says.
    pub fn batch(&mut self) -> Result<Option<ArchivedBatch>, ArchiveError> {
        let Some(batch) = self.next_as(ArchivedBatch::decode)? else { return Ok(None) };
        self.numbered(batch.position)?;
        Ok(Some(batch))
    }

    /// The next transaction's number and puts, in an object of books.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn puts(&mut self) -> Result<Option<(u64, Puts)>, ArchiveError> {
        let Some((number, puts)) = self.next_as(decode_books)? else { return Ok(None) };
        self.numbered(number)?;
        Ok(Some((number, puts)))
    }

    /// The next row, in an object of streams.
    ///
    /// # Errors
    /// A broken segment.
    pub fn row(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.next_as(|record| Ok(record.to_vec()))
    }

    /// The next piece of raw events, in an object of these: where its bytes stand in the object.
    ///
    /// # Errors
    /// A broken segment.
    pub fn piece(&mut self) -> Result<Option<Row>, ArchiveError> {
        let read = self.next_as(|record| {
            let piece = ArchivedPiece::decode(record)?;
            let ArchivedPiece { stream, sequence, index, of, bytes } = piece;
            let length = u32::try_from(bytes.len()).map_err(|_| "is too long")?;
            Ok(Row { stream, sequence, index, of, offset: 0, length })
        })?;
        let end = u64::try_from(self.reader.at()).unwrap_or(u64::MAX);
        Ok(read.map(|row| Row { offset: end.saturating_sub(u64::from(row.length)), ..row }))
    }

    fn next_as<T>(
        &mut self,
        read: impl FnOnce(&[u8]) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ArchiveError> {
        let record = self.reader.next_record();
        let record = record.map_err(|error| ArchiveError::segment(&self.name, &error))?;
        let Some(record) = record else {
            return match self.read == self.manifest.count {
                true => Ok(None),
                false => {
                    let reason = "it has another number of records than its manifest says";
                    Err(ArchiveError::damaged(&self.name, reason))
                }
            };
        };
        self.read = self.read.saturating_add(1);
        let broken =
            |what| ArchiveError::damaged(&self.name, format!("record {} {what}", self.read));
        read(record).map(Some).map_err(broken)
    }

    /// Records of batches and books are numbered without holes.
    fn numbered(&mut self, found: u64) -> Result<(), ArchiveError> {
        if found != self.next || found > self.manifest.last {
            let reason =
                format!("record {} is number {found}, where {} is due", self.read, self.next);
            return Err(ArchiveError::damaged(&self.name, reason));
        }
        self.next = self.next.saturating_add(1);
        Ok(())
    }
}

/// Batches one by one.
#[derive(Debug)]
pub struct Batches {
    manifests: Manifests,
    records: Option<Records>,
}

impl Batches {
    fn read(&mut self) -> Result<Option<ArchivedBatch>, ArchiveError> {
        loop {
            if let Some(records) = &mut self.records
                && let Some(batch) = records.batch()?
            {
                return Ok(Some(batch));
            }
            let Some(manifest) = self.manifests.next().transpose()? else { return Ok(None) };
            if manifest.kind == Kind::Batches {
                self.records = Some(self.manifests.archive.records(&manifest)?);
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<ArchivedBatch, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read().transpose();
        if let Some(Err(_)) = &read {
            (self.records, self.manifests.next) = (None, u64::MAX);
        }
        read
    }
}

#[cfg(test)]
mod tests;
