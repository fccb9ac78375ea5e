//! When the ledger was last copied: `backup.json` in its folder, written when the copy is whole.
//!
//! **Owns** that file. `backup` writes it, and a running collector shows it as a metric, so that a backup that nobody makes
//! any more is seen. It is a note for people: nothing else goes by it, and a ledger without it is a sound one. A restored
//! ledger begins without.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use tidemark_common::time::Timestamp;

use super::ignore_missing;

const FILE: &str = "backup.json";

/// The newest backup of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// When its copying began, unix milliseconds: what came later may not be in it.
    pub begun_at: i64,
    /// How much it is.
    pub bytes: u64,
    pub folder: PathBuf,
}

/// Where the newest backup of a ledger is noted.
#[derive(Debug, Clone)]
pub struct BackupNote(PathBuf);

impl BackupNote {
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Notes a backup that is whole.
    ///
    /// # Errors
    /// If the ledger's folder cannot be written.
    pub fn write(&self, begun_at: Timestamp, bytes: u64, folder: &Path) -> io::Result<()> {
        let folder = std::path::absolute(folder)?;
        let last = LastBackup { begun_at: begun_at.0, bytes, folder };
        // Whole or not at all: a collector reads it at any moment.
        let draft = self.0.with_extension("json.partial");
        ignore_missing(fs::remove_file(&draft))?;
        // Made anew, so that root, who may make backups, follows no link; and readable whatever the umask: the folder
        // is closed to others.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&draft)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        serde_json::to_writer_pretty(&mut file, &last).map_err(io::Error::other)?;
        fs::rename(&draft, &self.0)
    }

    /// Forgets it: the ledger in this folder is to be another.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        ignore_missing(fs::remove_file(&self.0))
    }

    /// What is noted; `None` if nothing is, or nothing that can be read.
    #[must_use]
    pub fn read(&self) -> Option<LastBackup> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let note = BackupNote::of(folder.path());
        assert_eq!(note.read(), None);
        note.write(Timestamp(1), 10, Path::new("/backup/first")).unwrap();
        note.write(Timestamp(2), 20, Path::new("/backup/second")).unwrap();
        let expected = LastBackup { begun_at: 2, bytes: 20, folder: "/backup/second".into() };
        assert_eq!(note.read(), Some(expected));
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(note.read(), None, "what cannot be read is not noted");
        note.remove().unwrap();
        note.remove().unwrap();
        assert!(!folder.path().join(FILE).exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "kept").unwrap();
        for name in ["backup.json.partial", FILE] {
            std::os::unix::fs::symlink(&other, folder.path().join(name)).unwrap();
        }
        let note = BackupNote::of(folder.path());
        note.write(Timestamp(1), 10, Path::new("/backup/first")).unwrap();
        assert_eq!(note.read().map(|last| last.bytes), Some(10));
        assert_eq!(fs::read_to_string(other).unwrap(), "kept");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let note = BackupNote::of(&folder.path().join("missing"));
        note.write(Timestamp(1), 10, Path::new("x")).unwrap_err();
    }
}
