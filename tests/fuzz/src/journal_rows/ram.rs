//! Storage in memory that begins with given bytes, and can be looked at.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// A handle to one file; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ram(Arc<Mutex<Vec<u8>>>);

impl Ram {
    #[must_use]
    pub fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.held().clone()
    }

    fn held(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a file in memory is smaller than memory")
}

impl StorageBackend for Ram {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.held().len()).expect("a length fits 64 bits"))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let held = self.held();
        let start = index(offset);
        let found = held.get(start..start + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.held().resize(index(len), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = index(offset);
        let mut held = self.held();
        let end = start + data.len();
        if held.len() < end {
            held.resize(end, 0);
        }
        held[start..end].copy_from_slice(data);
        Ok(())
    }
}
