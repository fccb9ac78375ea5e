//! The running collector's control socket: who owns the ledger's folder may ask for what no token of the API opens.
//!
//! ```text
//! caller -> "rows 1\n"          collector -> the rows (backup/rows.rs), read as of now
//! caller -> "bill 1 JSON\n"     collector -> one JSON object a line (billing_run/door.rs)
//! caller -> "catalog 1 JSON\n"  collector -> one JSON object (adopt/command.rs)
//! caller -> "keys 1 JSON\n"     collector -> one JSON object (certificate/keys/command.rs)
//! caller -> "reconcile 1 JSON\n", "waive 1 JSON\n", "lost 1 JSON\n"   collector -> one JSON object (reconcile/door.rs)
//! ```
//! **Owns** the socket `data_dir/control.sock`. It is for the user that the collector runs as, and root: the folder and
//! the socket are closed to others, and the kernel says who calls.
//!
//! Limits: a request is one line of [`REQUEST_BYTES_MAX`], said within [`WAIT_MAX`]; a caller that takes nothing for as
//! long is cut off. The collector's end cuts callers off at once.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::adopt::AdoptRequest;
use crate::adopt::command::adopt_for;
use crate::api::Changes;
use crate::backup::door::copy_to;
use crate::billing_run::Settings;
use crate::billing_run::door::bill_to;
use crate::catalog::Catalog;
use crate::certificate::keys::command::keys_for;
use crate::ledger::Ledger;
use crate::ledger::redb::RedbStore;
use crate::reconcile::door;

/// The socket's name in `data_dir`.
pub const SOCKET: &str = "control.sock";
/// A catalogue may have 16 MiB, in JSON.
const REQUEST_BYTES_MAX: u64 = 64 << 20;
/// A caller asks within this time, and then takes something at least this often.
const WAIT_MAX: Duration = Duration::from_secs(30);
const ROOT: u32 = 0;

/// A connection to the collector that runs on `data_dir`; `None` if nobody listens there: it is stopped, was killed, or
/// has no socket, as the path is too long for one. The ledger's lock tells which.
///
/// # Errors
/// A socket that cannot be used.
pub fn connect(data_dir: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(data_dir.join(SOCKET)) {
        Ok(socket) => Ok(Some(socket)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A caller's line: its verb, and what is asked in JSON.
///
/// # Errors
/// What is no JSON.
pub fn request(verb: &str, asked: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut request = verb.as_bytes().to_vec();
    request.extend(serde_json::to_vec(asked).map_err(io::Error::other)?);
    request.push(b'\n');
    Ok(request)
}

/// The one line that answers a request. Blocks.
///
/// # Errors
/// A collector that ends meanwhile.
pub fn ask(mut socket: UnixStream, request: &[u8]) -> io::Result<String> {
    socket.write_all(request)?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    Ok(line)
}

/// What the socket gives access to.
#[derive(Debug, Clone)]
pub struct Served {
    pub store: RedbStore,
    pub ledger: Ledger,
    pub catalogs: watch::Receiver<Arc<Catalog>>,
    pub adoptions: mpsc::Sender<AdoptRequest>,
    pub billing: Settings,
    /// One copy at a time.
    copies: Arc<Semaphore>,
}

impl Served {
    #[must_use]
    pub fn new(
        store: RedbStore,
        ledger: Ledger,
        catalogs: watch::Receiver<Arc<Catalog>>,
        Changes { adoptions, billing, .. }: Changes,
    ) -> Self {
        Self { store, ledger, catalogs, adoptions, billing, copies: Arc::new(Semaphore::new(1)) }
    }
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
    served: Served,
    mut stopping: watch::Receiver<bool>,
) {
    let owner = fs::metadata(data_dir.join(SOCKET)).map_or(ROOT, |socket| socket.uid());
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
        tokio::spawn(answer(caller, served.clone(), stopping.clone()));
    }
    // A caller that finds nobody reads the file; the lock tells whether it may.
    let _removed = fs::remove_file(data_dir.join(SOCKET)).is_ok();
}

/// Waits until the collector stops, or is gone.
async fn until_stopping(stopping: &mut watch::Receiver<bool>) {
    let _told = stopping.wait_for(|stopping| *stopping).await.is_ok();
}

async fn answer(caller: UnixStream, served: Served, mut stopping: watch::Receiver<bool>) {
    let Ok(cut) = caller.try_clone() else { return };
    let runtime = tokio::runtime::Handle::current();
    let mut answering =
        tokio::task::spawn_blocking(move || answer_blocking(&caller, &served, &runtime));
    let ended = tokio::select! {
        answered = &mut answering => Some(answered),
        () = until_stopping(&mut stopping) => None,
    };
    let answered = match ended {
        Some(answered) => answered,
        None => {
            let _cut = cut.shutdown(Shutdown::Both).is_ok();
            answering.await
        }
    };
    match answered {
        Ok(Ok(told)) => tracing::info!("{told}"),
        Ok(Err(error)) => tracing::warn!("{error}"),
        Err(error) => tracing::error!(%error, "a caller of the control socket was not answered"),
    }
}

/// Reads what is asked, and answers it; what was done, or why not, in words.
fn answer_blocking(
    mut caller: &UnixStream,
    served: &Served,
    runtime: &tokio::runtime::Handle,
) -> Result<String, String> {
    let asked = read_request(caller).map_err(|error| format!("a caller asked nothing: {error}"))?;
    if let Some(asked) = asked.strip_prefix(b"bill 1 ") {
        return bill_to(caller, asked, &served.ledger, &served.catalogs, &served.billing, runtime)
            .map_err(|error| error.to_string());
    }
    if let Some(asked) = asked.strip_prefix(b"catalog 1 ") {
        return adopt_for(caller, asked, &served.adoptions).map_err(|error| error.to_string());
    }
    if let Some(asked) = asked.strip_prefix(b"keys 1 ") {
        return keys_for(caller, asked, &served.ledger, runtime).map_err(|error| error.to_string());
    }
    if [door::REPORT, door::WAIVE, door::LOSE].iter().any(|verb| asked.starts_with(verb.as_bytes()))
    {
        let (ledger, catalog) = (served.ledger.clone(), served.catalogs.borrow().clone());
        let settings = served.billing.reconcile.clone();
        let line = door::Answering { ledger, catalog, settings }.line(&asked, runtime);
        let told = caller.write_all(&line).and_then(|()| caller.flush());
        let verb =
            String::from_utf8_lossy(asked.split(|byte| *byte == b' ').next().unwrap_or_default())
                .into_owned();
        return told
            .map(|()| format!("answered a caller: {verb}"))
            .map_err(|error| error.to_string());
    }
    let copy = served.copies.try_acquire().ok();
    let copied = copy_to(caller, &asked, &served.store, copy.is_some());
    copied
        .map(|bytes| format!("sent a copy of the ledger: {bytes} bytes"))
        .map_err(|e| e.to_string())
}

/// One line, without its end.
fn read_request(mut caller: &UnixStream) -> io::Result<Vec<u8>> {
    caller.set_nonblocking(false)?;
    caller.set_read_timeout(Some(WAIT_MAX))?;
    caller.set_write_timeout(Some(WAIT_MAX))?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(&mut caller).take(REQUEST_BYTES_MAX);
    reader.read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        _ => Err(io::Error::other("the request has no end")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::backup;
    use crate::backup::last::BackupNote;
    use crate::backup::rows::RowReader;
    use crate::ledger::conformance::{Journal, NOW, commit, greet};
    use crate::ledger::redb::RedbOptions;
    use crate::ledger::{LedgerOptions, TimeSource};

    struct Running {
        folder: tempfile::TempDir,
        stop: watch::Sender<bool>,
        serving: tokio::task::JoinHandle<()>,
        store: RedbStore,
        copies: Arc<Semaphore>,
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
        let listener = open(&data_dir).unwrap();
        let options = LedgerOptions::default();
        let (ledger, _, _) =
            Ledger::prepare(store.clone(), recovered, options, TimeSource::system()).await.unwrap();
        let (_, catalogs) = watch::channel(Arc::new(Catalog::parse("", "c.toml").unwrap()));
        let (adoptions, _) = mpsc::channel(1);
        let changes = Changes {
            adoptions,
            billing: Settings::default(),
            sweeps: Arc::default(),
            raw_events: None,
            backups: BackupNote::of(&data_dir),
        };
        let served = Served::new(store.clone(), ledger, catalogs, changes);
        let copies = Arc::clone(&served.copies);
        let serving =
            tokio::spawn(async move { serve(listener, &data_dir, served, stopping).await });
        Running { folder, stop, serving, store, copies, journal }
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
            let held = Arc::clone(&running.copies).acquire_owned().await.unwrap();
            let told = answer_to(running.call(), b"rows 1\n").await;
            assert!(told.contains("a backup is being made already"), "{told}");
            drop(held);
            assert_eq!(answer_to(running.call(), b"rows 1\n").await, "whole");
            let first = running.call();
            // The collector's end cuts off a caller that holds it up.
            running.stop.send_replace(true);
            running.serving.await.unwrap();
            assert!(!running.folder.path().join("ledger").join(SOCKET).exists());
            let cut = blocking(move || {
                let mut first = first;
                // One that was not accepted yet is reset.
                first.read(&mut [0]).unwrap_or(0)
            });
            assert_eq!(cut.await, 0);
        });
    }
}
