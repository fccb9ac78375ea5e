//! A file that is only looked at: what redb writes to it stays in memory.
//!
//! After a crash redb repairs a file before it can be read, and a check of all pages commits. Neither may
//! change what is being examined, so the file is open for reading alone, and written pages lie over it.
//!
//! **Owns** the pages on top. **Does not own** locks: those of the file are taken, shared, so that an agent
//! that holds it is noticed, and one that starts meanwhile waits.
//!
//! Limits: [`WRITTEN_BYTES_MAX`] of pages; a repair writes far fewer, whatever the file's size.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

const PAGE_BYTES: u64 = 4_096;
/// Written pages take at most this much memory.
const WRITTEN_BYTES_MAX: usize = 256 << 20;

/// Reads through to `base`, and never writes to it.
#[derive(Debug)]
pub(super) struct Overlay<B> {
    base: B,
    top: Mutex<Top>,
}

#[derive(Debug)]
struct Top {
    pages: BTreeMap<u64, Vec<u8>>,
    length: u64,
    /// Of the base, what was never cut off.
    base_length: u64,
}

impl<B: StorageBackend> Overlay<B> {
    pub(super) fn new(base: B) -> io::Result<Self> {
        let length = base.len()?;
        let top = Top { pages: BTreeMap::new(), length, base_length: length };
        Ok(Self { base, top: Mutex::new(top) })
    }

    fn top(&self) -> MutexGuard<'_, Top> {
        self.top.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the base holds from `offset` on, and zeros behind its end.
    fn read_base(&self, top: &Top, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(top.base_length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (held, beyond) = out.split_at_mut(there.min(out.len()));
        beyond.fill(0);
        if held.is_empty() { Ok(()) } else { self.base.read(offset, held) }
    }
}

/// The part of a page that starts at `page_start` within `[offset, offset + length)`: where it begins in the
/// page, where in the range, and how long it is.
fn overlap(page_start: u64, offset: u64, length: usize) -> (usize, usize, usize) {
    let small = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let in_page = small(offset.saturating_sub(page_start));
    let in_range = small(page_start.saturating_sub(offset));
    let page = small(PAGE_BYTES).saturating_sub(in_page);
    (in_page, in_range, page.min(length.saturating_sub(in_range)))
}

fn end_of(offset: u64, length: usize) -> u64 {
    offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX))
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.top().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let top = self.top();
        let end = end_of(offset, out.len());
        if end > top.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_base(&top, offset, out)?;
        for (index, page) in top.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let start = index.saturating_mul(PAGE_BYTES);
            let (in_page, in_range, length) = overlap(start, offset, out.len());
            let to = &mut out[in_range..in_range.saturating_add(length)];
            to.copy_from_slice(&page[in_page..in_page.saturating_add(length)]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut top = self.top();
        top.length = len;
        top.base_length = top.base_length.min(len);
        let cut = top.pages.split_off(&len.div_ceil(PAGE_BYTES));
        drop(cut);
        if let Some(last) = top.pages.get_mut(&(len / PAGE_BYTES)) {
            let kept = usize::try_from(len % PAGE_BYTES).unwrap_or(usize::MAX);
            last.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut top = self.top();
        let end = end_of(offset, data.len());
        for index in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let start = index.saturating_mul(PAGE_BYTES);
            let mut page = match top.pages.remove(&index) {
                Some(page) => page,
                None => {
                    let mut page = vec![0; usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX)];
                    self.read_base(&top, start, &mut page)?;
                    page
                }
            };
            let (in_page, in_range, length) = overlap(start, offset, data.len());
            let from = &data[in_range..in_range.saturating_add(length)];
            page[in_page..in_page.saturating_add(length)].copy_from_slice(from);
            top.pages.insert(index, page);
        }
        top.length = top.length.max(end);
        let page_bytes = usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX);
        if top.pages.len().saturating_mul(page_bytes) > WRITTEN_BYTES_MAX {
            let told = "to look at this file would take more than 256 MiB of memory: look at a copy with an agent";
            return Err(io::Error::other(told));
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.base.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.base.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.query_lock_range(start, end)
    }
}
