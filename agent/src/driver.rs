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
//! decision about batches (`session`) or transports (`uplink::chooser`), bytes on the wire (`uplink`),
//! or the journal (`home`).
//!
//! Bounds: one link and one probe beside it, one frame being written, and at most one write, one look,
//! one read and one barrier under way; what waits to be sent waits on disk.

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
use tidemark_common::tls::{self, Pem, Shown, TlsError};
use tidemark_common::wire::{EventsPiece, Frame};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::session::{Action, End, Looked, Monotonic, Session, SessionConfig};
use crate::uplink::chooser::{Chooser, LinkEnd, Order, Transport, TransportChoice};
use crate::uplink::connect::Target;
use crate::uplink::link::{FrameReader, FrameWriter, Link, LinkHandle};
use crate::uplink::{LinkError, LinkTimes};
use home::{Home, HomeError};
pub use status::{UplinkState, UplinkStatus};

/// A collector that has closed the link is given this long to have said why.
const LAST_WORD_MAX: Duration = Duration::from_millis(500);

/// What the driver is told; no file is read here.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// `host:port` each; resolved anew for each connection, the next one tried after a failure.
    pub collectors: Vec<String>,
    /// The name in the collectors' certificates; the host of the address if absent.
    pub server_name: Option<String>,
    /// What the session may go over.
    pub transport: TransportChoice,
    /// While it goes over TCP for want of QUIC, QUIC is probed this often.
    pub quic_probe_interval: Duration,
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
    uplink: Uplink,
    chooser: Chooser,
    /// Until when the newest certificate is valid.
    certified_until: Option<Timestamp>,
    tasks: JoinSet<Result<Done, HomeError>>,
    begun: Instant,
    status: watch::Sender<UplinkStatus>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;

/// A link that is being made, and the certificate that it shows, in words.
struct Attempt {
    connecting: Connecting,
    shown: Option<Shown>,
}

enum Uplink {
    Down,
    Connecting(Attempt),
    Up {
        reader: Box<FrameReader>,
        writer: FrameWriter,
        handle: LinkHandle,
        /// The certificate that this link showed. A refusal of it may come long after, when there is a newer one.
        shown: Option<Shown>,
        /// An attempt over QUIC, while the link goes over TCP.
        probe: Option<Connecting>,
    },
}

/// What a task of the journal or of intake has done.
enum Done {
    Written,
    Looked(Looked),
    Read(Sequence, Option<Vec<u8>>),
    ReadEvents((Sequence, u32), Sequence, Option<EventsPiece>),
    Barrier(Option<(Sequence, u64)>),
}

enum Event {
    Connected(Result<Link, LinkError>),
    Probed(Result<Link, LinkError>),
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
        let probe_millis =
            u64::try_from(config.quic_probe_interval.as_millis()).unwrap_or(u64::MAX);
        let chooser = Chooser::new(config.transport, config.collectors.len(), probe_millis);
        let driver = Self {
            config,
            home,
            session,
            uplink: Uplink::Down,
            chooser,
            certified_until: None,
            tasks: JoinSet::new(),
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
        let due = self.session.poll_timeout().into_iter().chain(self.probe_due()).min();
        let timeout = due.map(|due| self.instant(due));
        let Self { uplink, tasks, home, .. } = self;
        tokio::select! {
            event = uplink.next_event() => event,
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
                self.chooser.connected(link.handle.transport(), now, random());
                self.uplink = std::mem::replace(&mut self.uplink, Uplink::Down).up(link);
                self.session.handle_journal(self.home.facts());
                self.session.handle_connected(now, (self.config.clock)(), random());
            }
            Event::Connected(Err(error))
            | Event::Frame(Err(error))
            | Event::Flushed(Err(error)) => {
                self.disconnected(Some(&error));
            }
            Event::Probed(probed) => self.probed(probed, now),
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
                Done::ReadEvents(from, last, piece) => {
                    self.session.handle_events(from, last, piece)
                }
                Done::Barrier(passed) => self.session.handle_barrier(passed),
            },
            Event::Journal(changed) => {
                changed?;
                self.session.handle_journal(self.home.facts());
            }
            Event::Timeout => {
                self.session.handle_timeout(now);
                self.probe(now);
            }
            Event::Sealed => {
                self.session.handle_journal(self.home.facts());
                self.session.handle_shutdown(now);
            }
        }
        Ok(())
    }

    /// Does what the session asks for until it asks for nothing more, or is over.
    fn settle(&mut self) -> Option<End> {
        loop {
            match self.session.poll_action() {
                Some(Action::Connect) => {
                    let order = self.chooser.order(self.now());
                    self.uplink = Uplink::Connecting(self.connect(order));
                }
                Some(Action::Disconnect) => self.disconnected(None),
                Some(Action::Look { ledger, sequence }) => {
                    let look = self.home.look(ledger, sequence);
                    self.tasks.spawn(async move { look.await.map(Done::Looked) });
                }
                Some(Action::Read(sequence)) => {
                    let read = self.home.read(sequence);
                    self.tasks.spawn(async move { Ok(Done::Read(sequence, read.await?)) });
                }
                Some(Action::ReadEvents { from, last }) => {
                    let read = self.home.read_events(from, last);
                    self.tasks.spawn(async move { Ok(Done::ReadEvents(from, last, read.await?)) });
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
        let Uplink::Up { writer, .. } = &mut self.uplink else { return false };
        if !writer.is_idle() {
            return false;
        }
        let Some(frame) = self.session.poll_frame() else { return false };
        if let Err(error) = writer.put(&frame) {
            self.disconnected(Some(&error));
        }
        true
    }

    /// The link is closed, or has ended with `error`.
    fn disconnected(&mut self, error: Option<&LinkError>) {
        let ended = std::mem::replace(&mut self.uplink, Uplink::Down);
        if let Uplink::Up { handle, .. } = &ended {
            handle.close();
        }
        let told = match (error, ended.shown()) {
            (Some(error @ LinkError::AgentCertificate { .. }), Some(shown)) => {
                format!("{error}: {shown}")
            }
            (Some(error), _) => error.to_string(),
            (None, _) => String::new(),
        };
        let reason = format!("{}: {told}", self.collector_address());
        let end = match error {
            Some(error) if error.is_silence() => LinkEnd::Silence,
            Some(_) | None => LinkEnd::Otherwise,
        };
        let now = self.now();
        self.chooser.disconnected(end, now, random());
        self.session.handle_disconnected(now, random(), &reason);
    }

    fn connect(&self, order: Order) -> Attempt {
        let collector = self.collector_address().to_owned();
        let host = collector.rsplit_once(':').map_or(collector.as_str(), |(host, _)| host);
        let server_name = match &self.config.server_name {
            Some(name) => name.clone(),
            None => host.trim_matches(['[', ']']).to_owned(),
        };
        let pem = Arc::clone(&self.config.pem.borrow());
        let shown = shown(&pem);
        let target = Target { collector, server_name, pem, times: self.config.times };
        Attempt { connecting: Box::pin(target.connect(order, self.chooser.round())), shown }
    }

    fn probe_due(&self) -> Option<Monotonic> {
        match &self.uplink {
            Uplink::Up { probe: None, .. } => self.chooser.probe_due(),
            Uplink::Up { probe: Some(_), .. } | Uplink::Down | Uplink::Connecting(_) => None,
        }
    }

    /// Begins to probe QUIC beside the link, if that is due.
    fn probe(&mut self, now: Monotonic) {
        if self.probe_due().is_some_and(|due| due <= now) {
            let attempt = self.connect(Order::only(Transport::Quic));
            if let Uplink::Up { probe, .. } = &mut self.uplink {
                *probe = Some(attempt.connecting);
            }
        }
    }

    /// Where QUIC gets through, the session drains, and the next one goes over it.
    fn probed(&mut self, probed: Result<Link, LinkError>, now: Monotonic) {
        let got_through = match probed {
            Ok(link) => {
                link.handle.close();
                tracing::info!(collector = self.collector_address(), "QUIC gets through again");
                self.session.handle_leave(now);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "QUIC was probed and does not get through");
                false
            }
        };
        if let Uplink::Up { probe, .. } = &mut self.uplink {
            *probe = None;
        }
        self.chooser.probed(got_through, now, random());
    }

    async fn finish(mut self, end: End) -> Result<(), DriverStop> {
        self.publish();
        let close_max = self.config.close_max;
        if let Uplink::Up { mut reader, mut writer, handle, .. } = self.uplink {
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
        let link = match &self.uplink {
            Uplink::Up { handle, .. } => Some((handle.transport(), handle.round_trip())),
            Uplink::Down | Uplink::Connecting(_) => None,
        };
        let clock = (self.config.clock)();
        let now = self.now();
        let wall =
            |due: Monotonic| clock.plus_millis(i64::try_from(due.since(now)).unwrap_or(i64::MAX));
        // It is looked at again only when it was read again.
        if self.certified_until.is_none() || self.config.pem.has_changed().unwrap_or(false) {
            let pem = Arc::clone(&self.config.pem.borrow_and_update());
            self.certified_until = shown(&pem).and_then(|shown| shown.until());
        }
        let (collector, until) = (self.collector_address().to_owned(), self.certified_until);
        let session = self.session.status();
        self.status
            .send_if_modified(|shown| shown.update(session, collector, link, until, clock, wall));
    }

    fn collector_address(&self) -> &str {
        self.config.collectors.get(self.chooser.collector()).map_or("", String::as_str)
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

impl Uplink {
    /// What was being made is up.
    fn up(self, link: Link) -> Self {
        let shown = match self {
            Self::Connecting(attempt) => attempt.shown,
            Self::Down | Self::Up { .. } => unreachable!("only an attempt connects"),
        };
        let Link { reader, writer, handle } = link;
        Self::Up { reader: Box::new(reader), writer, handle, shown, probe: None }
    }

    /// The certificate that it shows, in words; not that of a probe beside it.
    fn shown(&self) -> Option<&Shown> {
        match self {
            Self::Down => None,
            Self::Connecting(attempt) => attempt.shown.as_ref(),
            Self::Up { shown, .. } => shown.as_ref(),
        }
    }

    /// Waits for what happens to the link. Cancel-safe.
    async fn next_event(&mut self) -> Event {
        match self {
            Self::Down => pending().await,
            Self::Connecting(attempt) => Event::Connected((&mut attempt.connecting).await),
            Self::Up { reader, writer, probe, .. } => {
                let writes = !writer.is_idle();
                tokio::select! {
                    frame = reader.next() => Event::Frame(frame),
                    flushed = writer.flush(), if writes => Event::Flushed(match flushed {
                        Ok(()) => Ok(()),
                        Err(error) => Err(last_word(reader).await.unwrap_or(error)),
                    }),
                    probed = async {
                        match probe {
                            Some(connecting) => connecting.await,
                            None => pending().await,
                        }
                    } => Event::Probed(probed),
                }
            }
        }
    }
}

/// The agent's own certificate.
fn shown(pem: &Pem) -> Option<Shown> {
    tls::certificates(&pem.certificate).ok().and_then(|chain| Shown::first_of(&chain))
}

/// Why the other end has gone, where it said so before this end found that it cannot write any more.
async fn last_word(reader: &mut FrameReader) -> Option<LinkError> {
    let said = async {
        loop {
            // Frames mean nothing any more.
            if let Err(error) = reader.next().await {
                return error;
            }
        }
    };
    timeout(LAST_WORD_MAX, said).await.ok()
}

/// A random number for jitter. Without a source of randomness there is no jitter, and no harm.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
