//! Where an archive is: named objects that are made once and never replaced.
//!
//! **Owns** the trait, and the folder: the default. **Does not own** names and contents.
//!
//! Invariant of [`ArchiveStore::put_new`]: once it returns, the object is there as a whole, after a loss of power too; of two
//! that put the same name, one makes it.
//!
//! A folder is written with the standard library, as an archive stands and falls with what is synced, and when.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ArchiveError;

/// Named objects. Every method blocks.
pub trait ArchiveStore: Debug + Send + Sync {
    /// Makes an object, durably, unless there is one of this name.
    ///
    /// # Errors
    /// If it cannot be told whether it was made: ask again.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Made, ArchiveError>;

    /// An object; `None` if there is none of this name.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ArchiveError>;

    /// `length` bytes of an object, from `offset` on; `None` if there is no such object, or it ends before.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: u32,
    ) -> Result<Option<Vec<u8>>, ArchiveError>;

    /// The names of all objects in one of the archive's folders, in no order.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn list(&self, folder: &str) -> Result<Vec<String>, ArchiveError>;

    /// Where it is, for people.
    fn place(&self) -> String;
}

/// What came of putting an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    Now,
    /// There is one of this name, whatever it holds.
    Before,
}

/// Puts an object that may be there already, as it is.
///
/// # Errors
/// If it cannot be put, or another one is there.
pub fn put_same(store: &dyn ArchiveStore, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    match store.put_new(name, bytes)? {
        Made::Now => Ok(()),
        Made::Before if store.get(name)?.as_deref() == Some(bytes) => Ok(()),
        Made::Before => Err(ArchiveError::Other { name: name.to_owned() }),
    }
}

/// A folder of this machine, or of what is mounted on it.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<Made> {
        let path = self.root.join(name);
        if path.try_exists()? {
            return Ok(Made::Before);
        }
        let folder = path.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        // Of this process, as another may put the same name; what a crash leaves is written over, or ignored.
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let draft = folder.join(format!(".{file}.{}", std::process::id()));
        let mut options = OpenOptions::new();
        let mut written =
            options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        written.write_all(bytes)?;
        written.sync_all()?;
        // By a second name: a rename would replace what is there.
        let made = match fs::hard_link(&draft, &path) {
            Ok(()) => Made::Now,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Made::Before,
            Err(error) => return Err(error),
        };
        fs::remove_file(&draft)?;
        File::open(folder)?.sync_all()?;
        Ok(made)
    }

    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // Drafts are no objects.
            if !name.starts_with('.') {
                names.push(format!("{folder}/{name}"));
            }
        }
        Ok(names)
    }
}

/// Makes a folder for its owner alone, and each above it, durably.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_folder(above)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

impl ArchiveStore for FolderStore {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Made, ArchiveError> {
        self.put(name, bytes).map_err(|error| fault("write", name, &error))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        match fs::read(self.root.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault("read", name, &error)),
        }
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: u32,
    ) -> Result<Option<Vec<u8>>, ArchiveError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            File::open(self.root.join(name))?.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(fault("read", name, &error)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, ArchiveError> {
        self.names(folder).map_err(|error| fault("list", folder, &error))
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

fn fault(act: &'static str, name: &str, error: &io::Error) -> ArchiveError {
    ArchiveError::Store { act, name: name.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b");
        let store = FolderStore::new(&root);
        assert_eq!(store.list("books"), Ok(Vec::new()));
        assert_eq!(store.put_new("books/1", b"one"), Ok(Made::Now));
        assert_eq!(store.put_new("books/1", b"two"), Ok(Made::Before));
        assert_eq!(store.get("books/1"), Ok(Some(b"one".to_vec())));
        assert_eq!(store.get("books/2"), Ok(None));
        assert_eq!(store.get_range("books/1", 1, 2), Ok(Some(b"ne".to_vec())));
        assert_eq!(store.get_range("books/1", 1, 3), Ok(None));
        assert_eq!(store.get_range("books/2", 0, 1), Ok(None));
        assert_eq!(put_same(&store, "books/1", b"one"), Ok(()));
        let told = put_same(&store, "books/1", b"two").unwrap_err().to_string();
        assert!(told.contains("books/1") && told.contains("another"), "{told}");
        // What a crash has left is no object.
        fs::write(root.join("books/.2.77"), b"half").unwrap();
        assert_eq!(store.list("books"), Ok(vec!["books/1".to_owned()]));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        let store = FolderStore::new(&folder.path().join("file"));
        let told = store.put_new("books/1", b"one").unwrap_err().to_string();
        assert!(told.starts_with("failed to write books/1 of the archive"), "{told}");
    }
}
