//! A small file system of its own: ext4 in a file, mounted through a loop device.
//!
//! **Owns** the mount; it is gone when this is dropped. Drop it after what has files open on it.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::system::call;

/// Large enough for a journal or a ledger of a few seconds, small enough to fill in one.
const BYTES: u64 = 64 << 20;
const PAGE: usize = 4_096;
const FILLER: &str = "filler";

pub(super) struct Disk {
    folder: TempDir,
}

impl Disk {
    pub(super) fn new() -> Result<Self> {
        let disk = Self { folder: tempfile::Builder::new().prefix("tidemark-disk-").tempdir()? };
        let image = disk.folder.path().join("image");
        File::create(&image)?.set_len(BYTES)?;
        std::fs::create_dir(disk.path())?;
        let (image, mount) = (image.to_string_lossy(), disk.path());
        // No blocks for root alone: the programs run as root here.
        call(&["mkfs.ext4", "-q", "-F", "-m", "0", &image])?;
        call(&["mount", "-o", "loop", &image, &mount.to_string_lossy()])?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// Fills it to the last page, as somebody else's log would.
    pub(super) fn fill(&self) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.path().join(FILLER))?;
        let page = [0; PAGE];
        loop {
            match file.write_all(&page) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!("failed to fill the disk: {error}"),
            }
        }
    }

    /// Makes room.
    pub(super) fn free(&self) -> Result<()> {
        std::fs::remove_file(self.path().join(FILLER)).context("failed to make room")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is just dying may still hold a file.
        drop(call(&["umount", "-l", &self.path().to_string_lossy()]));
    }
}
