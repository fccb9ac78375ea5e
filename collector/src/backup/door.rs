//! The running collector's control socket: who owns the ledger's folder may ask for a copy of it.
//!
//! ```text
//! caller -> "rows 1\n"      collector -> the rows (backup/rows.rs), read as of now
//! ```
//! **Owns** the socket `data_dir/control.sock`. It is for the user that the collector runs as, and root:
//! the folder and the socket are closed to others, and the kernel says who calls. The API's tokens
//! do not open it: whoever has all rows can make the digests of unique values out.
//!
//! Limits: one copy at a time; a caller that takes nothing for [`WRITE_MAX`] is cut off. The collector's
//! end cuts it off at once.

use std::fs::{self, Permissions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};

use super::rows::{RowWriter, RowsError};
use crate::ledger::redb::RedbStore;
use crate::ledger::store::StoreError;

/// The socket's name in `data_dir`.
pub const SOCKET: &str = "control.sock";
const REQUEST: &[u8] = b"rows 1\n";
/// A caller asks within this time, and then takes something at least this often.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// What is written to a caller at once.
const BUFFER_BYTES: usize = 256 << 10;
const ROOT: u32 = 0;

/// Asks the collector behind `socket` for all rows, which then are to be read from it.
///
/// # Errors
/// If it cannot be asked.
pub(super) fn ask_for_rows(mut socket: UnixStream) -> io::Result<UnixStream> {
    socket.write_all(REQUEST)?;
    Ok(socket)
}

/// Opens the socket of the ledger in `data_dir`. A socket that a killed collector has left is replaced:
/// the ledger's lock is ours.
///
/// # Errors
/// If it cannot be made; a path may be too long for a socket.
pub fn open(data_dir: &Path) -> io::Result<UnixListener> {
    let path = data_dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers callers until `stopping`.
pub async fn serve(
    listener: UnixListener,
    data_dir: &Path,
    store: RedbStore,
    mut stopping: watch::Receiver<bool>,
) {
    let owner = fs::metadata(data_dir.join(SOCKET)).map_or(ROOT, |socket| socket.uid());
    let copies = Arc::new(Semaphore::new(1));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until_stopping(&mut stopping) => break,
        };
        let caller = match accepted {
            Ok((caller, _)) => caller,
            Err(error) => {
                tracing::warn!(%error, "the control socket refused a caller");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let uid = caller.peer_cred().map(|cred| cred.uid());
        if !uid.as_ref().is_ok_and(|uid| *uid == owner || *uid == ROOT) {
            tracing::warn!(?uid, "the control socket is not for this user");
            continue;
        }
        let Ok(caller) = caller.into_std() else { continue };
        tokio::spawn(answer(caller, store.clone(), Arc::clone(&copies), stopping.clone()));
    }
    // A caller that finds nobody reads the file; the lock tells whether it may.
    let _removed = fs::remove_file(data_dir.join(SOCKET)).is_ok();
}

/// Waits until the collector stops, or is gone.
async fn until_stopping(stopping: &mut watch::Receiver<bool>) {
    let _told = stopping.wait_for(|stopping| *stopping).await.is_ok();
}

async fn answer(
    caller: UnixStream,
    store: RedbStore,
    copies: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) {
    let Ok(cut) = caller.try_clone() else { return };
    let copy = copies.try_acquire_owned().ok();
    let mut copying = tokio::task::spawn_blocking(move || {
        let copied = copy_to(&caller, &store, copy.is_some());
        drop(copy);
        copied
    });
    let ended = tokio::select! {
        copied = &mut copying => Some(copied),
        () = until_stopping(&mut stopping) => None,
    };
    let copied = match ended {
        Some(copied) => copied,
        None => {
            let _cut = cut.shutdown(Shutdown::Both).is_ok();
            copying.await
        }
    };
    match copied {
        Ok(Ok(bytes)) => tracing::info!(bytes, "sent a copy of the ledger"),
        Ok(Err(error)) => tracing::warn!(%error, "a copy of the ledger was not sent to its end"),
        Err(error) => tracing::error!(%error, "copying the ledger ended in a panic"),
    }
}

/// Sends every row; blocks.
fn copy_to(caller: &UnixStream, store: &RedbStore, is_alone: bool) -> Result<u64, CopyError> {
    caller.set_nonblocking(false)?;
    caller.set_read_timeout(Some(WRITE_MAX))?;
    caller.set_write_timeout(Some(WRITE_MAX))?;
    let mut request = [0; REQUEST.len()];
    BufReader::new(caller).read_exact(&mut request)?;
    let mut writer = RowWriter::new(BufWriter::with_capacity(BUFFER_BYTES, caller))?;
    if request != REQUEST {
        writer.fail("this version answers \"rows 1\" only; use the same version of both")?;
        return Err(CopyError::Request);
    }
    if !is_alone {
        writer.fail("a backup is being made already; try again after it")?;
        return Err(CopyError::Busy);
    }
    let copied = store.export(&mut |table, key, value| -> Result<(), CopyError> {
        writer.row(table, key, value).map_err(CopyError::from)
    });
    match copied {
        Ok(()) => Ok(writer.end()?.1.bytes),
        Err(error) => {
            let _told = writer.fail(&error.to_string()).is_ok();
            Err(error)
        }
    }
}

/// Failed to send a copy.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("failed to send a copy: {0}")]
    Rows(#[from] RowsError),
    #[error("failed to send a copy: {0}")]
    Store(#[from] StoreError),
    #[error("failed to send a copy: the request is unknown")]
    Request,
    #[error("failed to send a copy: another one is under way")]
    Busy,
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Rows(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::backup;
    use crate::backup::rows::RowReader;
    use crate::ledger::conformance::{Journal, NOW, commit, greet};
    use crate::ledger::redb::RedbOptions;

    struct Running {
        folder: tempfile::TempDir,
        stop: watch::Sender<bool>,
        serving: tokio::task::JoinHandle<()>,
        store: RedbStore,
        journal: Journal,
    }

    impl Running {
        fn data_dir(&self) -> PathBuf {
            self.folder.path().join("ledger")
        }

        fn call(&self) -> UnixStream {
            UnixStream::connect(self.data_dir().join(SOCKET)).unwrap()
        }
    }

    /// A ledger of two batches, open and served.
    async fn running() -> Running {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("ledger");
        let (store, recovered) = RedbStore::open(&data_dir, &RedbOptions::default(), NOW).unwrap();
        let mut journal = Journal::new(1, recovered.ledger);
        for bucket in 0..3 {
            journal.seal(&[("c", "m", bucket, 5)]);
        }
        greet(&store, &mut journal, 0).await;
        commit(&store, vec![journal.admit(1), journal.admit(2)]).await;
        // As a killed collector leaves it.
        drop(open(&data_dir).unwrap());
        let (stop, stopping) = watch::channel(false);
        let (listener, served) = (open(&data_dir).unwrap(), store.clone());
        let serving =
            tokio::spawn(async move { serve(listener, &data_dir, served, stopping).await });
        Running { folder, stop, serving, store, journal }
    }

    async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(act).await.unwrap()
    }

    /// What is answered to `request`, up to its end.
    async fn answer_to(mut caller: UnixStream, request: &'static [u8]) -> String {
        blocking(move || {
            caller.write_all(request).unwrap();
            let mut reader = RowReader::new(caller).unwrap();
            loop {
                match reader.row() {
                    Ok(Some(_)) => {}
                    Ok(None) => return "whole".to_owned(),
                    Err(error) => return error.to_string(),
                }
            }
        })
        .await
    }

    #[test]
    fn a_running_ledger_is_copied_as_of_one_moment() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let running = running().await;
            let mode = fs::metadata(running.data_dir().join(SOCKET)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let (data_dir, to) = (running.data_dir(), running.folder.path().join("backup"));
            let made = blocking(move || backup::make(&data_dir, &to, &mut |_| ())).await.unwrap();
            assert_eq!((made.batches, made.events), (2, 2));
            // What comes after is in the next one.
            commit(&running.store, vec![running.journal.admit(3)]).await;
            let (data_dir, to) = (running.data_dir(), running.folder.path().join("later"));
            let made = blocking(move || backup::make(&data_dir, &to, &mut |_| ())).await.unwrap();
            assert_eq!((made.batches, made.events), (3, 3));
        });
    }

    #[test]
    fn one_copy_at_a_time_and_none_beyond_the_end() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let running = running().await;
            let told = answer_to(running.call(), b"rows 9\n").await;
            assert!(told.contains("rows 1"), "{told}");
            let mut first = running.call();
            let mut told = answer_to(running.call(), REQUEST).await;
            while told == "whole" {
                // The first caller was not seen yet, or before the last one was gone: then it holds nothing.
                first = running.call();
                told = answer_to(running.call(), REQUEST).await;
            }
            assert!(told.contains("a backup is being made already"), "{told}");
            // The collector's end cuts off a caller that holds it up.
            running.stop.send_replace(true);
            running.serving.await.unwrap();
            assert!(!running.folder.path().join("ledger").join(SOCKET).exists());
            let cut = blocking(move || {
                let mut first = first;
                first.read(&mut [0])
            });
            assert_eq!(cut.await.unwrap(), 0);
        });
    }
}
