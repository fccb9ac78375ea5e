//! The uplink's one loop: async chooses what happened, sync applies it.
//!
//! ```text
//!             +--------------------- select -------------------+
//! collector --| frame, written, connected                      |
//! journal   --| committed; a write, look or read is done       |--> apply --> settle --> status
//! intake    --| barrier passed; all is sealed (shutdown)       |      |         |
//! clock     --| timeout                                        |      session (decides everything)
//!             +------------------------------------------------+
//! ```
//! **Owns** the session, the link, and what the admin door shows of them. **Does not own** any
//! decision about batches (`session`), bytes on the wire (`uplink`), or the journal (`home`).
//!
//! Bounds: one link, one frame being written, and at most one write, one look, one read and one
//! barrier under way; what waits to be sent waits on disk.

pub mod home;
mod status;

#[cfg(test)]
mod tests;

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tidemark_common::id::Sequence;
use tidemark_common::time::Timestamp;
use tidemark_common::tls::{self, Pem, TlsError};
use tidemark_common::wire::Frame;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::session::{Action, End, Looked, Monotonic, Session, SessionConfig};
use crate::uplink::LinkError;
use crate::uplink::quic::{self, FrameReader, FrameWriter, LinkHandle, LinkTimes, QuicLink};
use home::{Home, HomeError};
pub use status::{UplinkState, UplinkStatus};

/// What the driver is told; no file is read here.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// `host:port` each; resolved anew for each connection, the next one tried after a failure.
    pub collectors: Vec<String>,
    /// The name in the collectors' certificates; the host of the address if absent.
    pub server_name: Option<String>,
    /// The agent's certificates; what is newest counts at the next connection.
    pub pem: watch::Receiver<Arc<Pem>>,
    pub session: SessionConfig,
    pub times: LinkTimes,
    /// A last frame is waited for this long.
    pub close_max: Duration,
    /// Reads the wall clock.
    pub clock: fn() -> Timestamp,
}

/// Why the driver cannot begin.
#[derive(Debug, Error)]
pub enum DriverConfigError {
    #[error("failed to set up the uplink: no collector is configured")]
    NoCollector,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why the driver has stopped before it was told to.
#[derive(Debug, Error)]
pub enum DriverStop {
    /// It is stored in the journal. A person is needed; the message says for what.
    #[error("{message}")]
    Conflict { message: String },
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Drives one journal's session until it ends.
pub struct Driver<H> {
    config: DriverConfig,
    home: H,
    session: Session,
    link: Link,
    tasks: JoinSet<Result<Done, HomeError>>,
    /// The collector in use, or next to be tried: an index that wraps.
    collector: usize,
    begun: Instant,
    status: watch::Sender<UplinkStatus>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<QuicLink, LinkError>> + Send>>;

enum Link {
    Down,
    Connecting(Connecting),
    Up { reader: Box<FrameReader>, writer: FrameWriter, handle: LinkHandle },
}

/// What a task of the journal or of intake has done.
enum Done {
    Written,
    Looked(Looked),
    Read(Sequence, Option<Vec<u8>>),
    Barrier(Option<(Sequence, u64)>),
}

enum Event {
    Connected(Result<QuicLink, LinkError>),
    Frame(Result<Frame, LinkError>),
    Flushed(Result<(), LinkError>),
    Done(Result<Done, HomeError>),
    Journal(Result<(), HomeError>),
    Timeout,
    Sealed,
}

impl<H: Home> Driver<H> {
    /// A driver that has not begun, and where it will show how it stands.
    ///
    /// # Errors
    /// No collector, or certificates that cannot be used.
    pub fn new(
        config: DriverConfig,
        home: H,
    ) -> Result<(Self, watch::Receiver<UplinkStatus>), DriverConfigError> {
        if config.collectors.is_empty() {
            return Err(DriverConfigError::NoCollector);
        }
        tls::client_config(&config.pem.borrow())?;
        let session = Session::new(config.session.clone(), home.facts());
        let (status, shown) = watch::channel(UplinkStatus::beginning((config.clock)()));
        let driver = Self {
            config,
            home,
            session,
            link: Link::Down,
            tasks: JoinSet::new(),
            collector: 0,
            begun: Instant::now(),
            status,
        };
        Ok((driver, shown))
    }

    /// Runs until the stream is closed. `sealed` resolves once intake has ended and all that it
    /// accepted is sealed: then what is left is shipped, the stream closed, and this returns. Whoever
    /// cannot wait for that drops this future; what is not shipped stays on disk.
    ///
    /// # Errors
    /// A conflict, which needs a person, or a journal that cannot go on.
    pub async fn run(mut self, sealed: impl Future<Output = ()>) -> Result<(), DriverStop> {
        let mut sealed = Box::pin(sealed);
        let mut waits_for_sealed = true;
        loop {
            if let Some(end) = self.settle() {
                return self.finish(end).await;
            }
            self.publish();
            let event = tokio::select! {
                () = &mut sealed, if waits_for_sealed => {
                    waits_for_sealed = false;
                    Event::Sealed
                }
                event = self.next_event() => event,
            };
            self.apply(event)?;
        }
    }

    /// Waits for whatever happens next. Cancel-safe.
    async fn next_event(&mut self) -> Event {
        let timeout = self.session.poll_timeout().map(|due| self.instant(due));
        let Self { link, tasks, home, .. } = self;
        tokio::select! {
            event = link.next_event() => event,
            Some(done) = tasks.join_next() => Event::Done(match done {
                Ok(done) => done,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(HomeError::Stopped),
                },
            }),
            changed = home.changed() => Event::Journal(changed),
            () = async {
                match timeout {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            } => Event::Timeout,
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), DriverStop> {
        let now = self.now();
        match event {
            Event::Connected(Ok(link)) => {
                let QuicLink { reader, writer, handle } = link;
                self.link = Link::Up { reader: Box::new(reader), writer, handle };
                self.session.handle_journal(self.home.facts());
                self.session.handle_connected(now, (self.config.clock)(), random());
            }
            Event::Connected(Err(error))
            | Event::Frame(Err(error))
            | Event::Flushed(Err(error)) => {
                self.disconnected(&error.to_string());
            }
            Event::Frame(Ok(frame)) => self.session.handle_frame(frame, now),
            Event::Flushed(Ok(())) => {}
            Event::Done(done) => match done? {
                Done::Written => {
                    // What is written counts from now on, before anything else is decided.
                    self.session.handle_journal(self.home.facts());
                    self.session.handle_written(now);
                }
                Done::Looked(looked) => self.session.handle_looked(&looked, now),
                Done::Read(sequence, bytes) => self.session.handle_batch(sequence, bytes, now),
                Done::Barrier(passed) => self.session.handle_barrier(passed),
            },
            Event::Journal(changed) => {
                changed?;
                self.session.handle_journal(self.home.facts());
            }
            Event::Timeout => self.session.handle_timeout(now),
            Event::Sealed => {
                self.session.handle_journal(self.home.facts());
                self.session.handle_shutdown();
            }
        }
        Ok(())
    }

    /// Does what the session asks for until it asks for nothing more, or is over.
    fn settle(&mut self) -> Option<End> {
        loop {
            match self.session.poll_action() {
                Some(Action::Connect) => self.link = Link::Connecting(self.connect()),
                Some(Action::Disconnect) => self.disconnected(""),
                Some(Action::Look { ledger, sequence }) => {
                    let look = self.home.look(ledger, sequence);
                    self.tasks.spawn(async move { look.await.map(Done::Looked) });
                }
                Some(Action::Read(sequence)) => {
                    let read = self.home.read(sequence);
                    self.tasks.spawn(async move { Ok(Done::Read(sequence, read.await?)) });
                }
                Some(Action::Write(write)) => {
                    let write = self.home.write(write);
                    self.tasks.spawn(async move { write.await.map(|()| Done::Written) });
                }
                Some(Action::Barrier) => {
                    let barrier = self.home.barrier();
                    self.tasks.spawn(async move { Ok(Done::Barrier(barrier.await)) });
                }
                Some(Action::Finished(end)) => return Some(end),
                None => {
                    if !self.put_frame() {
                        return None;
                    }
                }
            }
        }
    }

    /// Hands the session's next frame to the link; false if there is none, or no room for it.
    fn put_frame(&mut self) -> bool {
        let Link::Up { writer, .. } = &mut self.link else { return false };
        if !writer.is_idle() {
            return false;
        }
        let Some(frame) = self.session.poll_frame() else { return false };
        if let Err(error) = writer.put(&frame) {
            self.disconnected(&error.to_string());
        }
        true
    }

    fn disconnected(&mut self, reason: &str) {
        if let Link::Up { handle, .. } = &self.link {
            handle.close();
        }
        self.link = Link::Down;
        let reason = format!("{}: {reason}", self.collector_address());
        self.collector = self.collector.wrapping_add(1);
        self.session.handle_disconnected(self.now(), random(), &reason);
    }

    fn connect(&self) -> Connecting {
        let collector = self.collector_address().to_owned();
        let pem = Arc::clone(&self.config.pem.borrow());
        let host = collector.rsplit_once(':').map_or(collector.as_str(), |(host, _)| host);
        let server_name = match &self.config.server_name {
            Some(name) => name.clone(),
            None => host.trim_matches(['[', ']']).to_owned(),
        };
        let times = self.config.times;
        Box::pin(async move { quic::connect_to(&collector, &server_name, pem, times).await })
    }

    async fn finish(mut self, end: End) -> Result<(), DriverStop> {
        self.publish();
        let close_max = self.config.close_max;
        if let Link::Up { mut reader, mut writer, handle } = self.link {
            if end == End::Closed {
                // The collector ends the link once it has taken in the last frame.
                let taken_in = async {
                    if writer.finish().await.is_ok() {
                        while reader.next().await.is_ok() {}
                    }
                };
                if timeout(close_max, taken_in).await.is_err() {
                    tracing::warn!(
                        "the collector did not answer Close; all is posted, and it hears at the next start"
                    );
                }
            }
            handle.close_and_wait(close_max).await;
        }
        match end {
            End::Closed => Ok(()),
            End::Conflict { message } => Err(DriverStop::Conflict { message }),
        }
    }

    fn publish(&mut self) {
        self.home.room(self.session.has_room());
        let round_trip = match &self.link {
            Link::Up { handle, .. } => Some(handle.round_trip()),
            Link::Down | Link::Connecting(_) => None,
        };
        let clock = (self.config.clock)();
        let now = self.now();
        let wall =
            |due: Monotonic| clock.plus_millis(i64::try_from(due.since(now)).unwrap_or(i64::MAX));
        let collector = self.collector_address().to_owned();
        let session = self.session.status();
        self.status
            .send_if_modified(|shown| shown.update(session, collector, round_trip, clock, wall));
    }

    fn collector_address(&self) -> &str {
        let index = self.collector.checked_rem(self.config.collectors.len()).unwrap_or_default();
        self.config.collectors.get(index).map_or("", String::as_str)
    }

    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self, due: Monotonic) -> Instant {
        // Centuries ahead is never.
        let never = Duration::from_secs(u64::from(u32::MAX));
        let after = Duration::from_millis(due.0).min(never);
        self.begun.checked_add(after).unwrap_or(self.begun)
    }
}

impl<H> std::fmt::Debug for Driver<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Link {
    /// Waits for what happens to the link. Cancel-safe.
    async fn next_event(&mut self) -> Event {
        match self {
            Self::Down => pending().await,
            Self::Connecting(connecting) => Event::Connected(connecting.await),
            Self::Up { reader, writer, .. } => {
                let writes = !writer.is_idle();
                tokio::select! {
                    frame = reader.next() => Event::Frame(frame),
                    flushed = writer.flush(), if writes => Event::Flushed(flushed),
                }
            }
        }
    }
}

/// A random number for jitter. Without a source of randomness there is no jitter, and no harm.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
