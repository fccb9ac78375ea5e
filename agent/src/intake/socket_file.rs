//! Socket files: made where nobody listens, removed when their door closes.
//!
//! **Owns** the folder, the stale file of a killed process, the permissions, the removal. **Does not
//! own** what comes through the socket.
//!
//! Invariants: a file that a living process listens on is never removed, nor anything that is no
//! socket. Two agents that start at once are kept apart by a lock on the folder.
//!
//! To connect needs the permission to write, so the mode 0o722 lets every user send and only the owner
//! look. Containers mount the folder rather than the file: the file is a new one after each restart.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

/// The permissions of a socket file, unless configured.
pub const SOCKET_MODE_DEFAULT: u32 = 0o722;

/// Why a socket file could not be made.
#[derive(Debug, Error)]
pub enum SocketFileError {
    #[error("failed to make or lock the folder {}: {source}; make it, writable for the agent's user", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("another process listens on {}; stop it, or configure another path here", path.display())]
    InUse { path: PathBuf },
    #[error("{} exists and is not a socket; move it away, or configure another path", path.display())]
    NotASocket { path: PathBuf },
    #[error("failed to find out whether anyone listens on {}: {source}", path.display())]
    Unknown { path: PathBuf, source: io::Error },
    #[error("failed to make the socket {}: {source}", path.display())]
    Bind { path: PathBuf, source: io::Error },
}

/// A socket's file, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// A datagram socket at `path`.
    ///
    /// # Errors
    /// See [`SocketFileError`].
    pub fn datagram(path: &Path, mode: u32) -> Result<(UnixDatagram, Self), SocketFileError> {
        Self::make(path, mode, |path| UnixDatagram::bind(path))
    }

    /// A listening stream socket at `path`.
    ///
    /// # Errors
    /// See [`SocketFileError`].
    pub fn stream(path: &Path, mode: u32) -> Result<(UnixListener, Self), SocketFileError> {
        Self::make(path, mode, |path| UnixListener::bind(path))
    }

    fn make<S>(
        path: &Path,
        mode: u32,
        bind: impl FnOnce(&Path) -> io::Result<S>,
    ) -> Result<(S, Self), SocketFileError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let locked = lock(folder);
        let _lock = locked
            .map_err(|source| SocketFileError::Folder { folder: folder.to_owned(), source })?;
        remove_stale(path)?;
        let failed = |source| SocketFileError::Bind { path: path.to_owned(), source };
        let socket = bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        Ok((socket, Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file stays behind");
        }
    }
}

/// Makes the folder if it is missing, and holds it against another agent that starts now.
fn lock(folder: &Path) -> io::Result<Flock<File>> {
    fs::create_dir_all(folder)?;
    Flock::lock(File::open(folder)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Removes what a killed process left behind at `path`.
fn remove_stale(path: &Path) -> Result<(), SocketFileError> {
    let unknown = |source| SocketFileError::Unknown { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unknown(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketFileError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    if is_listened_on(path).map_err(unknown)? {
        return Err(SocketFileError::InUse { path: path.to_owned() });
    }
    tracing::info!(path = %path.display(), "removing a socket file that nobody listens on");
    fs::remove_file(path).map_err(unknown)
}

/// Whether a living process holds the socket at `path`, of whichever type. A datagram socket's
/// connect never waits, and is refused only where nobody is.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    match UnixDatagram::unbound()?.connect(path) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPROTOTYPE) => Ok(true),
            Some(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Before {
        Nothing,
        Stale,
        LiveDatagram,
        LiveStream,
        File,
        Folder,
    }

    fn check(before: Before, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/dsd.socket");
        let mut living: Vec<Box<dyn std::any::Any>> = Vec::new();
        if !matches!(before, Before::Nothing) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        match before {
            Before::Nothing => {}
            Before::Stale => drop(UnixListener::bind(&path).unwrap()),
            Before::LiveDatagram => living.push(Box::new(UnixDatagram::bind(&path).unwrap())),
            Before::LiveStream => living.push(Box::new(UnixListener::bind(&path).unwrap())),
            Before::File => fs::write(&path, "kept").unwrap(),
            Before::Folder => fs::create_dir(&path).unwrap(),
        }
        let outcome = match SocketFile::datagram(&path, 0o722) {
            Ok((_socket, file)) => {
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o722);
                drop(file);
                assert!(!path.exists(), "the file goes with its door");
                "made"
            }
            Err(error) => {
                assert!(path.exists(), "what is not ours stays");
                match error {
                    SocketFileError::InUse { .. } => "in use",
                    SocketFileError::NotASocket { .. } => "not a socket",
                    other => panic!("{other}"),
                }
            }
        };
        assert_eq!(outcome, expected, "{before:?}");
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        check(Before::Nothing, "made");
        check(Before::Stale, "made");
        check(Before::LiveDatagram, "in use");
        check(Before::LiveStream, "in use");
        check(Before::File, "not a socket");
        check(Before::Folder, "not a socket");
    }

    #[test]
    fn a_file_that_another_put_in_our_place_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.socket");
        let (_socket, file) = SocketFile::stream(&path, SOCKET_MODE_DEFAULT).unwrap();
        fs::rename(&path, folder.path().join("ours")).unwrap();
        fs::write(&path, "theirs").unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = SocketFile::stream(&file.join("x.socket"), 0o722).unwrap_err();
        assert!(
            matches!(&error, SocketFileError::Folder { folder, .. } if *folder == file),
            "{error}"
        );
    }
}
