//! A simulated disk: it forgets at a crash what was not synced, tears pages, fills up, fails, and stops a
//! process at any of its operations.
//!
//! **Owns** the bytes. One process at a time holds a disk, as a file lock has it; a process that is gone can
//! change nothing any more, whatever its destructors try.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::random::Random;

/// What a crash keeps or loses of a write: whole sectors.
const SECTOR_BYTES: usize = 512;

/// A disk; clones are handles to the same one.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What a crash leaves for certain.
    synced: Vec<u8>,
    /// What the running process sees.
    current: Vec<u8>,
    since_sync: Vec<Change>,
    holder: Option<u64>,
    trouble: Trouble,
    /// Changes and syncs, ever.
    operations: u64,
    /// A planted bug: syncs change nothing.
    ignores_syncs: bool,
}

/// What goes wrong with a disk, once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// The process dies at the operation after so many, in the middle of a write.
    Kill {
        after: u64,
    },
    /// A write, or a change of length, fails.
    WriteError {
        after: u64,
    },
    SyncError {
        after: u64,
    },
    /// The file cannot grow any more, until somebody makes room.
    NoSpace,
}

#[derive(Debug, Clone)]
enum Change {
    Length(usize),
    Bytes { offset: usize, bytes: Vec<u8> },
}

impl Change {
    fn apply(&self, disk: &mut Vec<u8>) {
        match self {
            Self::Length(length) => disk.resize(*length, 0),
            Self::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if disk.len() < end {
                    disk.resize(end, 0);
                }
                disk[*offset..end].copy_from_slice(bytes);
            }
        }
    }

    /// The pieces that reach the platter each on its own.
    fn sectors(self) -> Vec<Self> {
        match self {
            Self::Length(_) => vec![self],
            Self::Bytes { offset, bytes } => bytes
                .chunks(SECTOR_BYTES)
                .zip(0..)
                .map(|(sector, index)| Self::Bytes {
                    offset: offset + index * SECTOR_BYTES,
                    bytes: sector.to_vec(),
                })
                .collect(),
        }
    }
}

impl Disk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        // Every change under the lock is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for `process`; `None` while another one holds it.
    #[must_use]
    pub fn hold(&self, process: u64) -> Option<Held> {
        let mut platter = self.platter();
        if platter.holder.is_some() {
            return None;
        }
        platter.holder = Some(process);
        Some(Held { disk: self.clone(), process })
    }

    /// Whether the process that holds it may go on.
    #[must_use]
    pub fn is_held_by(&self, process: u64) -> bool {
        self.platter().holder == Some(process)
    }

    /// The process is gone; what it wrote stays, synced or not.
    pub fn release(&self) {
        let mut platter = self.platter();
        platter.holder = None;
        if platter.trouble != Trouble::NoSpace {
            platter.trouble = Trouble::None;
        }
    }

    /// Power is lost: what was synced stays, and of the rest any sectors.
    pub fn crash(&self, random: &mut Random) {
        let mut platter = self.platter();
        platter.holder = None;
        platter.trouble = Trouble::None;
        let mut bytes = std::mem::take(&mut platter.synced);
        let share = random.below(5);
        let changes = std::mem::take(&mut platter.since_sync);
        for sector in changes.into_iter().flat_map(Change::sectors) {
            if random.below(4) < share {
                sector.apply(&mut bytes);
            }
        }
        platter.synced.clone_from(&bytes);
        platter.current = bytes;
    }

    pub fn trouble(&self, trouble: Trouble) {
        self.platter().trouble = trouble;
    }

    /// Whether anything was written and not synced.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.platter().since_sync.is_empty()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.platter().current.is_empty()
    }

    #[must_use]
    pub fn operations(&self) -> u64 {
        self.platter().operations
    }

    pub fn ignore_syncs(&self) {
        self.platter().ignores_syncs = true;
    }

    /// Another disk with the same bytes.
    #[must_use]
    pub fn copy(&self) -> Self {
        let platter = self.platter();
        let copy = Platter {
            synced: platter.current.clone(),
            current: platter.current.clone(),
            ignores_syncs: platter.ignores_syncs,
            ..Platter::default()
        };
        Self(Arc::new(Mutex::new(copy)))
    }
}

/// A disk as one process sees it.
#[derive(Debug, Clone)]
pub struct Held {
    disk: Disk,
    process: u64,
}

impl Held {
    fn platter(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = self.disk.platter();
        if platter.holder == Some(self.process) {
            Ok(platter)
        } else {
            Err(io::Error::other("this process is gone"))
        }
    }
}

impl Held {
    /// The file is removed and made again.
    pub fn wipe(&self) {
        let mut platter = self.disk.platter();
        if platter.holder == Some(self.process) {
            platter.current.clear();
            platter.synced.clear();
            platter.since_sync.clear();
        }
    }
}

impl Platter {
    /// Counts an operation, and fails it if that is due.
    fn operate(&mut self, is_sync: bool) -> io::Result<()> {
        self.operations += 1;
        match &mut self.trouble {
            Trouble::None | Trouble::NoSpace => Ok(()),
            Trouble::Kill { after: 0 } => {
                self.holder = None;
                Err(io::Error::other("the process was killed"))
            }
            Trouble::WriteError { after: 0 } if !is_sync => {
                self.trouble = Trouble::None;
                Err(io::Error::from_raw_os_error(5))
            }
            Trouble::SyncError { after: 0 } if is_sync => {
                self.trouble = Trouble::None;
                Err(io::Error::from_raw_os_error(5))
            }
            Trouble::Kill { after }
            | Trouble::WriteError { after }
            | Trouble::SyncError { after } => {
                *after = after.saturating_sub(1);
                Ok(())
            }
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.since_sync.push(change);
    }
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.platter()?.current.len()).expect("a length fits 64 bits"))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter()?;
        let offset = usize::try_from(offset).expect("a simulated disk is small");
        let found = platter.current.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.platter()?;
        let length = usize::try_from(len).expect("a simulated disk is small");
        if platter.trouble == Trouble::NoSpace && length > platter.current.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        platter.operate(false)?;
        platter.change(Change::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter()?;
        platter.operate(true)?;
        if !platter.ignores_syncs {
            for change in std::mem::take(&mut platter.since_sync) {
                change.apply(&mut platter.synced);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.platter()?;
        let offset = usize::try_from(offset).expect("a simulated disk is small");
        if let Err(error) = platter.operate(false) {
            // The first half reached the file.
            let half = data[..data.len() / 2].to_vec();
            platter.change(Change::Bytes { offset, bytes: half });
            return Err(error);
        }
        platter.change(Change::Bytes { offset, bytes: data.to_vec() });
        Ok(())
    }
}
