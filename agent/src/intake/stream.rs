//! The Unix stream doors: `events.socket`, which acknowledges, and `dsd-stream.socket`, which does not.
//!
//! **Owns** listening, the number of connections, and their end at shutdown. **Does not own** what a
//! connection says ([`events`], [`dsd`]) or what becomes of it (intake).
//!
//! Limits: [`CONNECTIONS_MAX`] for each door; for one more the longest silent one makes room ([`places`]), or it
//! is closed at once and counted. A silent connection holds no buffer, and one that has begun a line or frame
//! must end it in time ([`hearing`]). What all connections together have read and is not yet durable is bounded
//! by the [`Passage`]. Where `peer_uids` names users, others are closed at once and counted.

mod dsd;
mod events;
mod frames;
mod hearing;
mod lines;
mod places;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::passage::Passage;
use super::socket_file::{SocketFile, SocketFileError};
use super::{IntakeClosed, Item};
use crate::event::Door;

pub use frames::FRAME_BYTES_MAX;
pub use hearing::UNFINISHED_MAX;
pub use lines::LINE_BYTES_MAX;
pub use places::SILENT_MIN;
use places::{Place, Places};

/// A stream door serves at most this many connections at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Of one connection, at most this many submissions are on their way at once.
pub const OUTSTANDING_MAX: usize = 8;
/// A submission holds at most this many lines.
pub const SUBMISSION_LINES_MAX: usize = 512;
/// A submission is cut at this many bytes, its parsed events included.
const SUBMISSION_BYTES_MAX: usize = 256 << 10;
/// At shutdown, connections get this long to have their last lines answered.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Room that a read is given.
const READ_BYTES: usize = 64 << 10;
/// How long a failed accept lets the cause pass (too many open files, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where streams are accepted. An absent path closes that door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    pub dsd_stream: Option<PathBuf>,
    pub events: Option<PathBuf>,
    /// Permission bits of the socket files.
    pub socket_mode: u32,
    /// The users whose processes may connect; empty: all whom the socket file's permissions let in.
    pub peer_uids: Vec<u32>,
}

/// Why a connection ended before its time.
#[derive(Debug, Error)]
enum ConnectionError {
    #[error("failed to read or write: {0}")]
    Io(#[from] io::Error),
    #[error("the client did not read its answers for {} s", .0.as_secs())]
    Unread(Duration),
    #[error("a frame of {bytes} bytes; at most {FRAME_BYTES_MAX} are read")]
    OversizeFrame { bytes: u32 },
    #[error(transparent)]
    Closed(#[from] IntakeClosed),
}

/// The stream doors, listening.
#[derive(Debug)]
pub struct StreamDoors {
    doors: Vec<StreamDoor>,
}

impl StreamDoors {
    /// Listens where `config` says. Called within a tokio runtime.
    ///
    /// # Errors
    /// See [`SocketFileError`].
    pub fn bind(config: &StreamConfig, passage: &Passage) -> Result<Self, SocketFileError> {
        let configured = [(Door::DsdStream, &config.dsd_stream), (Door::Events, &config.events)];
        let mut doors = Vec::new();
        for (door, path) in configured {
            if let Some(path) = path {
                doors.push(StreamDoor::bind(door, path, config, passage.clone())?);
            }
        }
        Ok(Self { doors })
    }

    /// Serves until `shutdown` turns true or its sender is gone; returns when all connections ended,
    /// at most [`DRAIN`] later.
    pub async fn serve(self, shutdown: watch::Receiver<bool>) {
        let mut serving = JoinSet::new();
        for door in self.doors {
            serving.spawn(door.serve(shutdown.clone()));
        }
        serving.join_all().await;
    }
}

/// One listening socket.
#[derive(Debug)]
struct StreamDoor {
    door: Door,
    listener: UnixListener,
    file: SocketFile,
    passage: Passage,
    peer_uids: Vec<u32>,
    places: Arc<Places>,
}

impl StreamDoor {
    fn bind(
        door: Door,
        path: &Path,
        config: &StreamConfig,
        passage: Passage,
    ) -> Result<Self, SocketFileError> {
        let failed = |source| SocketFileError::Bind { path: path.to_owned(), source };
        let (listener, file) = SocketFile::stream(path, config.socket_mode)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self {
            door,
            listener,
            file,
            passage,
            peer_uids: config.peer_uids.clone(),
            places: Places::new(CONNECTIONS_MAX),
        })
    }

    async fn serve(self, mut shutdown: watch::Receiver<bool>) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &mut open, shutdown.clone()).await,
                    Err(error) => {
                        tracing::warn!(door = self.door.name(), %error, "a connection could not be accepted");
                        self.passage.counts(self.door).errors.add(1);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = open.join_next() => {}
                () = fired(&mut shutdown) => break,
            }
        }
        // New clients are to find no socket, rather than one that never answers.
        let Self { listener, file, .. } = self;
        drop((file, listener));
        let drained = async { while open.join_next().await.is_some() {} };
        // What has not ended by now is cut off as the set is dropped; nothing of it was acknowledged.
        let _cut_off = tokio::time::timeout(DRAIN, drained).await;
    }

    async fn admit(
        &self,
        stream: UnixStream,
        open: &mut JoinSet<()>,
        shutdown: watch::Receiver<bool>,
    ) {
        let counts = self.passage.counts(self.door);
        if let Err(uid) = self.allows(&stream) {
            counts.connections_forbidden.add(1);
            tracing::debug!(
                door = self.door.name(),
                uid,
                "a user who is not in peer_uids was refused"
            );
            return;
        }
        let Some(place) = self.places.take().await else {
            counts.connections_refused.add(1);
            tracing::debug!(
                door = self.door.name(),
                connections_max = CONNECTIONS_MAX,
                "a connection was refused"
            );
            return;
        };
        counts.connections_accepted.add(1);
        counts.connections_open.add(1);
        let open_connection =
            OpenConnection { door: self.door, passage: self.passage.clone(), place };
        open.spawn(open_connection.run(stream, shutdown));
    }

    /// Whether the user at the other end may connect; who it is, if not.
    fn allows(&self, stream: &UnixStream) -> Result<(), Option<u32>> {
        if self.peer_uids.is_empty() {
            return Ok(());
        }
        // The kernel knows who connected; without an answer nobody is let in.
        let uid = stream.peer_cred().map(|peer| peer.uid()).ok();
        match uid {
            Some(known) if self.peer_uids.contains(&known) => Ok(()),
            Some(_) | None => Err(uid),
        }
    }
}

/// A connection's place among those that are allowed, until it ends in whichever way.
struct OpenConnection {
    door: Door,
    passage: Passage,
    place: Place,
}

impl OpenConnection {
    async fn run(self, stream: UnixStream, shutdown: watch::Receiver<bool>) {
        let passage = self.passage.clone();
        let ended = if self.door == Door::Events {
            events::serve(stream, passage, &self.place, shutdown).await
        } else {
            dsd::serve(stream, passage, &self.place, shutdown).await
        };
        if let Err(error) = ended {
            if let ConnectionError::Unread(_) = error {
                self.passage.counts(self.door).connections_timed_out.add(1);
            }
            tracing::debug!(door = self.door.name(), %error, "a connection ended early");
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.passage.counts(self.door).connections_open.subtract(1);
    }
}

/// Items that become one submission.
#[derive(Debug, Default)]
struct Gathered {
    items: Vec<Item>,
    bytes: usize,
}

impl Gathered {
    fn push(&mut self, item: Item, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(item.parsed.memory_bytes());
        self.items.push(item);
    }

    fn is_full(&self) -> bool {
        self.items.len() >= SUBMISSION_LINES_MAX || self.bytes >= SUBMISSION_BYTES_MAX
    }
}

/// Appends what can be read now to `buffer`, waiting for something; 0 at the end. A connection that
/// waits with nothing unfinished holds no memory.
async fn fill(half: &OwnedReadHalf, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        buffer.reserve(READ_BYTES);
        match half.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                buffer.shrink_to_fit();
                half.readable().await?;
            }
            // The client closed without reading its answers: what it sent before was read before.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
            read => return read,
        }
    }
}

/// Resolves when `shutdown` turns true, or nobody is left to turn it.
async fn fired(shutdown: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which ends the doors as well.
    let _fired = shutdown.wait_for(|fired| *fired).await;
}
