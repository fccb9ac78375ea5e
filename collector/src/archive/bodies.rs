//! Bodies that have left the ledger, out of its archive.
//!
//! **Owns** finding them: by position, in the newest object that holds that batch. **Does not own** when they leave
//! (`retention.rs`).
//!
//! Limits: the manifests' positions are in memory once a body was asked for, and one object.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidemark_common::batch::Header;

use super::ArchiveError;
use super::manifest::{Kind, Manifest};
use super::read::{self, Archive};
use super::store::ArchiveStore;
use crate::ledger::store::StoredBodies;

/// The bodies in an archive.
#[derive(Debug)]
pub struct ArchivedBodies {
    store: Arc<dyn ArchiveStore>,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// Of objects of batches, in their order; as of the first question that they do not answer.
    manifests: Vec<Manifest>,
    /// The object that was read last, and its batches by position.
    object: u64,
    batches: BTreeMap<u64, Vec<u8>>,
}

impl ArchivedBodies {
    #[must_use]
    pub fn new(store: Arc<dyn ArchiveStore>) -> Self {
        Self { store, found: Mutex::default() }
    }

    fn find(&self, position: u64, header: &Header) -> Result<Option<Vec<u8>>, ArchiveError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = header.encode();
        if let Some(batch) = found.batches.get(&position).filter(|batch| batch.starts_with(&wanted))
        {
            return Ok(Some(batch.clone()));
        }
        if found.manifests.last().is_none_or(|last| last.last < position) {
            let archive = Archive::open(Arc::clone(&self.store))?;
            let all = archive.manifests().filter(|manifest| {
                manifest.as_ref().map_or(true, |manifest| manifest.kind == Kind::Batches)
            });
            found.manifests = all.collect::<Result<_, _>>()?;
        }
        let holds = |manifest: &&Manifest| (manifest.first..=manifest.last).contains(&position);
        let holding: Vec<Manifest> = found.manifests.iter().rev().filter(holds).cloned().collect();
        for manifest in holding {
            if found.object != manifest.number {
                let mut records = read::records(&*self.store, &manifest)?;
                found.batches.clear();
                found.object = manifest.number;
                while let Some(batch) = records.batch()? {
                    found.batches.insert(batch.position, batch.bytes);
                }
            }
            let batch = found.batches.get(&position);
            if let Some(batch) = batch.filter(|batch| batch.starts_with(&wanted)) {
                return Ok(Some(batch.clone()));
            }
        }
        Ok(None)
    }
}

impl StoredBodies for ArchivedBodies {
    fn batch(&self, position: u64, header: &Header) -> Result<Vec<u8>, String> {
        match self.find(position, header) {
            Ok(Some(batch)) => Ok(batch),
            Ok(None) => Err(format!("the archive in {} does not hold it", self.store.place())),
            Err(error) => Err(error.to_string()),
        }
    }
}
