//! A disk that counts its syncs, fails when told to, and forgets at a crash what was not synced.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

/// What a crash may keep or lose of a write: whole sectors.
const SECTOR_BYTES: usize = 512;

/// A handle to one disk; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What a crash leaves for certain.
    synced: Vec<u8>,
    /// What the running process sees.
    current: Vec<u8>,
    since_sync: Vec<Change>,
    syncs: u64,
    /// Changes and syncs until every one fails; `None`: never.
    fails_in: Option<u64>,
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

    /// The change in pieces that reach the disk each on its own.
    fn sectors(self) -> Vec<Self> {
        match self {
            Self::Length(_) => vec![self],
            Self::Bytes { offset, bytes } => bytes
                .chunks(SECTOR_BYTES)
                .enumerate()
                .map(|(index, sector)| Self::Bytes {
                    offset: offset + index * SECTOR_BYTES,
                    bytes: sector.to_vec(),
                })
                .collect(),
        }
    }
}

impl Disk {
    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    /// From now on the disk does `changes` more changes or syncs, and then none.
    pub(super) fn fail_in(&self, changes: Option<u64>) {
        self.0.lock().unwrap().fails_in = changes;
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().current.clone()
    }

    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            synced: bytes.clone(),
            current: bytes,
            ..Inner::default()
        })))
    }

    /// The disk after power came back: what was synced, and any part of what was not, as `seed` decides.
    pub(super) fn after_crash(&self, seed: u64) -> Self {
        let inner = self.0.lock().unwrap();
        let mut bytes = inner.synced.clone();
        let mut random = Random(seed);
        let share = random.next() % 5;
        for sector in inner.since_sync.iter().cloned().flat_map(Change::sectors) {
            if random.next() % 4 < share {
                sector.apply(&mut bytes);
            }
        }
        Self::holding(bytes)
    }
}

impl Inner {
    fn change(&mut self) -> io::Result<()> {
        match &mut self.fails_in {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the disk is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len().try_into().unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let found = inner.current.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.change()?;
        let change = Change::Length(usize::try_from(len).unwrap());
        change.apply(&mut inner.current);
        inner.since_sync.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.change()?;
        inner.syncs += 1;
        for change in std::mem::take(&mut inner.since_sync) {
            change.apply(&mut inner.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.change()?;
        let change =
            Change::Bytes { offset: usize::try_from(offset).unwrap(), bytes: data.to_vec() };
        change.apply(&mut inner.current);
        inner.since_sync.push(change);
        Ok(())
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
