//! One connection's loop: waits for a frame, a reply, a timer or the end; the session decides.
//!
//! **Owns** the order of replies: they are taken in the order of their requests.

use std::collections::VecDeque;
use std::error::Error;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, ReadError};
use rustls::pki_types::CertificateDer;
use tidemark_common::id::{RulesVersion, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::{self, AgentName, Shown};
use tidemark_common::wire::{Frame, FrameBuffer, Refuse, RefuseReason, Throttle};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::Shared;
use super::events::EventsDoor;
use super::frames::{FramePlace, Share};
use super::pressure::{Pressure, Throttling};
use crate::ledger::LedgerError;
use crate::ledger::request::{Admission, HelloRequest, Reply, Request, body_bytes};
use crate::session::hello::HelloVerdict;
use crate::session::{Action, Incoming, Session};

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;
/// A frame up to this length needs no room before it is received.
const FREE_FRAME_BYTES: usize = 64 << 10;
/// A large frame is waited for so many times `frame_max`, while there is room for others.
const FRAME_TURNS_MAX: u32 = 4;
/// An opened body takes at most about this many times its raw bytes: short dimensions are the worst, each
/// name and value an allocation of its own, and lines stand in two lists while customers are told apart.
const OPENED_FACTOR: usize = 9;
/// After its last frame a connection is kept this long for the peer to read it.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Ages are spread over this many parts of their range.
const RANDOM_PARTS: u32 = 1 << 16;
const STOPPING: &str = "the collector is stopping";
const AGED: &str = "the session has reached its age; come again";
const OTHER_RULES: &str = "the rules have changed; come again for the new ones";

/// The other end of a connection whose certificate is verified.
pub(super) struct Peer<R, W> {
    pub(super) address: SocketAddr,
    /// Its own certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) receive: R,
    pub(super) send: W,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Peer<R, W> {
    /// Says why there is no room for a session.
    pub(super) async fn turn_away(self, reason: &str) {
        self.refuse(RefuseReason::Unavailable, reason.to_owned()).await;
    }

    async fn refuse(mut self, reason: RefuseReason, message: String) {
        if let Ok(bytes) = Frame::Refuse(Refuse { reason, message, extras: Vec::new() }).encode() {
            drop(timeout(FAREWELL_MAX, self.send.write_all(&bytes)).await);
            say_farewell(&mut self.receive, &mut self.send).await;
        }
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve<R, W>(peer: Peer<R, W>, shared: &Shared)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    shared.counters.sessions_begun.add();
    let address = peer.address;
    match tls::agent_name(&peer.chain) {
        Ok(agent) => {
            if agent.is_drainer() {
                shared.counters.drainers.add();
            }
            let terms = shared.terms();
            let frame_share = shared.frame_bytes.share_of(&agent);
            let certified = certified(&peer.chain, tls::now());
            let mut link = Link {
                shared,
                certified,
                rules: terms.rules.version,
                session: Session::new(agent, terms),
                send: peer.send,
                receive: peer.receive,
                buffer: FrameBuffer::default(),
                chunk: vec![0; READ_BYTES],
                due: VecDeque::new(),
                frame_share,
                frame_place: None,
                frame_placed: None,
                told_of_unauthorised: false,
                begun: Instant::now(),
                throttling: Throttling::default(),
                events: EventsDoor::new(&shared.options),
            };
            let ended = link.run().await;
            say_farewell(&mut link.receive, &mut link.send).await;
            let agent = link.session.agent();
            let stream = link.session.stream();
            match ended {
                Ended::Said if agent.is_drainer() => {
                    tracing::info!(peer = %address, %agent, ?stream, "a drainer's session ended")
                }
                Ended::Said => tracing::debug!(peer = %address, %agent, ?stream, "a session ended"),
                Ended::Lost(reason) => {
                    tracing::info!(peer = %address, %agent, ?stream, %reason, "a session was lost")
                }
            }
        }
        Err(error) => {
            shared.counters.unnamed.add();
            let shown = Shown::first_of(&peer.chain)
                .map_or_else(String::new, |shown| format!("; it is {shown}"));
            let message = format!("{error}{shown}");
            tracing::warn!(peer = %address, message, "a session did not begin");
            peer.refuse(RefuseReason::Unauthorized, message).await;
        }
    }
    shared.counters.sessions_ended.add();
}

/// How a session ended.
enum Ended {
    /// By a frame of either side.
    Said,
    /// By the transport.
    Lost(String),
}

struct Link<'a, R, W> {
    shared: &'a Shared,
    session: Session,
    /// The rules that its Welcome names.
    rules: RulesVersion,
    send: W,
    receive: R,
    buffer: FrameBuffer,
    chunk: Vec<u8>,
    due: VecDeque<Due>,
    frame_share: Share,
    /// Asked for when a large frame is announced; nothing is read until it is had.
    frame_place: Option<Pin<Box<dyn Future<Output = FramePlace> + Send>>>,
    /// Held until the frame's batch has room, or it turns out to be none.
    frame_placed: Option<FramePlaced>,
    told_of_unauthorised: bool,
    begun: Instant,
    /// How long the agent's certificate is still valid.
    certified: Duration,
    throttling: Throttling,
    events: EventsDoor,
}

/// A reply that is due.
struct Due {
    since: Instant,
    reply: oneshot::Receiver<Reply>,
}

struct FramePlaced {
    _place: FramePlace,
    since: Instant,
    turns: u32,
}

/// What a turn of the loop woke up to.
enum Woken {
    Read(usize),
    FramePlaced(FramePlace),
    Reply(Result<Reply, oneshot::error::RecvError>),
    ConfirmDue,
    Archived,
    Aged,
    WelcomeOverdue,
    FrameOverdue,
    Stopping,
    Closed,
    Lost(String),
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Link<'_, R, W> {
    async fn run(&mut self) -> Ended {
        let options = &self.shared.options;
        let begun = self.begun;
        let aged = begun.checked_add(self.age_max());
        let welcome_due = tokio::time::sleep(options.handshake_max);
        tokio::pin!(welcome_due);
        let first = begun.checked_add(options.confirm_interval).unwrap_or(begun);
        let mut confirm = interval_at(first, options.confirm_interval);
        confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = self.shared.stopping.subscribe();
        let (mut told, mut ending) = (false, false);
        loop {
            if let Err(ended) = self.act().await {
                return ended;
            }
            if self.session.wants_frames() {
                match self.buffer.next_frame() {
                    Ok(Some(frame)) => {
                        self.session.handle_frame(frame);
                        continue;
                    }
                    Ok(None) => self.ask_for_frame_place(),
                    Err(error) => {
                        self.session.handle_unreadable(error.to_string());
                        continue;
                    }
                }
            }
            let welcome = self.session.is_welcome();
            let reads = self.session.wants_frames() && self.frame_place.is_none();
            let frame_due = self.frame_due();
            let woken = tokio::select! {
                reply = next_reply(&mut self.due) => Woken::Reply(reply),
                place = next_place(&mut self.frame_place) => Woken::FramePlaced(place),
                read = self.receive.read(&mut self.chunk), if reads => match read {
                    Ok(0) => Woken::Closed,
                    Ok(bytes) => Woken::Read(bytes),
                    Err(error) if is_goodbye(&error) => Woken::Closed,
                    Err(error) => Woken::Lost(cause_of(&error)),
                },
                () = self.events.archived() => Woken::Archived,
                _ = confirm.tick(), if welcome => Woken::ConfirmDue,
                () = until(aged), if welcome && !ending => Woken::Aged,
                () = &mut welcome_due, if !welcome => Woken::WelcomeOverdue,
                () = until(frame_due), if self.session.wants_frames() => Woken::FrameOverdue,
                _ = stopping.wait_for(|stopping| *stopping), if !told => Woken::Stopping,
            };
            told |= matches!(woken, Woken::Stopping);
            ending |= matches!(woken, Woken::Aged);
            if let Some(ended) = self.wake(woken) {
                return ended;
            }
        }
    }

    fn wake(&mut self, woken: Woken) -> Option<Ended> {
        match woken {
            Woken::Read(bytes) => self.buffer.push(self.chunk.get(..bytes).unwrap_or_default()),
            Woken::Reply(Ok(reply)) => {
                self.tell_of_new_stream(&reply);
                self.session.handle_reply(reply, self.shared.ledger.now());
            }
            Woken::Reply(Err(_)) => {
                self.session.handle_unavailable("the ledger cannot be written now")
            }
            // An agent hears of rules in Welcome only. Sessions' timers are spread over the interval, and so
            // are the Hellos that follow.
            Woken::ConfirmDue if self.shared.terms().rules.version != self.rules => {
                self.session.handle_ending(OTHER_RULES)
            }
            Woken::ConfirmDue => self.session.handle_confirm_due(),
            Woken::Archived => {
                if let Some(sequence) = self.events.take_archived() {
                    self.session.handle_archived(sequence);
                }
            }
            Woken::Aged => self.session.handle_ending(AGED),
            Woken::WelcomeOverdue if self.session.awaits_hello() => {
                self.session.handle_unreadable("no Hello came in time".to_owned())
            }
            Woken::WelcomeOverdue => {
                self.session.handle_unavailable("the ledger did not answer in time")
            }
            Woken::FramePlaced(place) => {
                let since = Instant::now();
                self.frame_placed = Some(FramePlaced { _place: place, since, turns: 1 });
            }
            Woken::FrameOverdue if self.has_another_turn() => {}
            Woken::FrameOverdue => {
                self.shared.counters.slow.add();
                return Some(Ended::Lost("it did not finish a frame in time".to_owned()));
            }
            Woken::Stopping => self.session.handle_unavailable(STOPPING),
            Woken::Closed => return Some(Ended::Said),
            Woken::Lost(reason) => return Some(Ended::Lost(reason)),
        }
        None
    }

    /// Does all that the session asks for now.
    async fn act(&mut self) -> Result<(), Ended> {
        while let Some(action) = self.session.poll_action(self.shared.ledger.now()) {
            match action {
                Action::Send(frame) => self.send(&frame).await?,
                Action::Hello(hello) => {
                    let agent = self.session.agent().clone();
                    let said = self.shared.ledger.monotonic();
                    let request = HelloRequest { hello: *hello, agent, said };
                    self.submit(Request::Hello(Box::new(request))).await;
                }
                Action::Admit(incoming) => self.admit(*incoming).await?,
                Action::Confirm(stream, confirm) => {
                    self.submit(Request::Confirm { stream, confirm }).await
                }
                Action::Close(stream, close) => self.submit(Request::Close { stream, close }).await,
                Action::Grant(rest) => {
                    let bytes = self.events.grant(rest, Instant::now());
                    self.session.handle_granted(bytes);
                }
                Action::GrantOver => self.events.grant_over(),
                Action::Keep(stream, piece) => self.events.keep(stream, piece),
                Action::End => return Err(Ended::Said),
            }
        }
        Ok(())
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), Ended> {
        if matches!(frame, Frame::Refuse(_)) {
            self.shared.counters.refusals.add();
        }
        let bytes = frame.encode().map_err(|error| Ended::Lost(error.to_string()))?;
        let sending = async {
            self.send.write_all(&bytes).await?;
            // What TLS has sealed and the socket has not taken yet.
            self.send.flush().await
        };
        match timeout(self.shared.options.send_max, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ended::Lost(cause_of(&error))),
            Err(_) => {
                self.shared.counters.slow.add();
                Err(Ended::Lost("it did not read in time".to_owned()))
            }
        }
    }

    /// Asks for room for the frame that is being received, if that is a large one, before more of it is read.
    /// Whoever holds such room waits for its peer, but not for ever, or for the writer: never for another
    /// session's frame.
    fn ask_for_frame_place(&mut self) {
        let unfinished = self.buffer.unfinished().filter(|bytes| *bytes > FREE_FRAME_BYTES);
        let Some(bytes) = unfinished else {
            self.frame_placed = None;
            return;
        };
        if self.frame_placed.is_none() && self.frame_place.is_none() {
            self.frame_place = Some(Box::pin(self.frame_share.place(bytes)));
        }
    }

    /// When the frame that has room must be here.
    fn frame_due(&self) -> Option<Instant> {
        let placed = self.frame_placed.as_ref()?;
        placed.since.checked_add(self.shared.options.frame_max.saturating_mul(placed.turns))
    }

    /// Whether the frame that is late may go on arriving: agents have slow lines, and nobody else waits.
    fn has_another_turn(&mut self) -> bool {
        let is_ample = self.shared.frame_bytes.is_ample();
        let placed = self.frame_placed.as_mut().filter(|placed| placed.turns < FRAME_TURNS_MAX);
        let placed = placed.filter(|_| is_ample);
        placed.map(|placed| placed.turns = placed.turns.saturating_add(1)).is_some()
    }

    /// Opens a batch's body on the blocking pool and hands it to the writer.
    async fn admit(&mut self, incoming: Incoming) -> Result<(), Ended> {
        let closed = |_| Ended::Lost(STOPPING.to_owned());
        self.relieve(&incoming).await?;
        let bytes = body_bytes(&incoming.header).saturating_mul(OPENED_FACTOR);
        let most = self.shared.options.batch_bytes_in_flight_max;
        let room = room(&self.shared.batch_bytes, bytes, most).await?;
        self.frame_placed = None;
        let turn = Arc::clone(&self.shared.bodies).acquire_owned().await.map_err(closed)?;
        let Incoming { header, bytes, fence } = incoming;
        let (grants, agent) = (self.shared.grants(), self.biller(header.stream));
        let open = move || {
            let admission = Admission::open_for(&grants.of(&agent), header, bytes, fence);
            drop(turn);
            admission
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let admission = opened.map_err(|error| Ended::Lost(error.to_string()))?;
        self.tell_of_unauthorised(&admission);
        let request = Request::Admit(Box::new(admission));
        let submitted = self.shared.ledger.submit_holding(request, room).await;
        self.expect_reply(submitted);
        Ok(())
    }

    /// Whose grants count for a batch of `stream`: a drainer bills for whom it ships.
    fn biller(&self, stream: StreamId) -> AgentName {
        let agent = self.session.agent();
        let owner = agent.is_drainer().then(|| self.shared.ledger.agent_of(stream)).flatten();
        owner.unwrap_or_else(|| agent.clone())
    }

    /// Counts a batch some of which its sender may not bill; the log tells of a session's first.
    fn tell_of_unauthorised(&mut self, admission: &Admission) {
        if !admission.has_unauthorised_lines() {
            return;
        }
        self.shared.counters.unauthorised.add();
        if !std::mem::replace(&mut self.told_of_unauthorised, true) {
            let (agent, stream) = (self.session.agent(), admission.header.stream);
            let sequence = admission.header.sequence;
            tracing::warn!(%agent, %stream, %sequence, "an agent sent usage that it may not bill; it is in suspense");
        }
    }

    /// Counts a stream that may not begin, and logs whose it is.
    fn tell_of_new_stream(&self, reply: &Reply) {
        let Reply::HelloRefused { verdict, .. } = reply else {
            return;
        };
        let counters = &self.shared.counters;
        let reason = match verdict {
            HelloVerdict::TooManyStreams => {
                counters.streams_full.add();
                "streams_max"
            }
            HelloVerdict::TooManyNewStreams => {
                counters.streams_limited.add();
                "streams_per_hour_max"
            }
            HelloVerdict::Welcome
            | HelloVerdict::Conflict(_)
            | HelloVerdict::OtherIdentity
            | HelloVerdict::OtherLedger
            | HelloVerdict::Version { .. } => return,
        };
        tracing::warn!(agent = %self.session.agent(), reason, "a new stream may not begin");
    }

    /// Asks the agent to pause before its batch waits for room, if the collector is pressed.
    async fn relieve(&mut self, incoming: &Incoming) -> Result<(), Ended> {
        let now = Instant::now();
        let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let needed = size(body_bytes(&incoming.header).saturating_mul(OPENED_FACTOR));
        let (tail_bytes, tail_bytes_max) = self.shared.ledger.tail_bytes();
        let room_bytes_max = u64::from(self.shared.options.batch_bytes_in_flight_max);
        let pressure = Pressure {
            tail_bytes,
            tail_bytes_max,
            room_bytes_max,
            room_bytes_free: size(self.shared.batch_bytes.available_permits()),
            room_bytes_needed: needed.min(room_bytes_max),
            waited_millis: self.due.front().map_or(0, |due| millis(now.duration_since(due.since))),
        };
        let elapsed = millis(now.duration_since(self.begun));
        let Some(pause) = self.throttling.pause_millis(&pressure, elapsed, random()) else {
            return Ok(());
        };
        self.shared.counters.throttles.add();
        tracing::debug!(agent = %self.session.agent(), pause, ?pressure, "an agent is asked to pause");
        self.send(&Frame::Throttle(Throttle { pause_millis: pause, extras: Vec::new() })).await
    }

    /// Between half of the configured age and all of it, so that agents do not come again all at once; and not
    /// beyond the end of the agent's certificate.
    fn age_max(&self) -> Duration {
        let age_max = self.shared.options.session_age_max;
        let half = age_max.checked_div(2).unwrap_or_default();
        let part = half.checked_div(RANDOM_PARTS).unwrap_or_default();
        half.saturating_add(part.saturating_mul(random() % RANDOM_PARTS)).min(self.certified)
    }

    async fn submit(&mut self, request: Request) {
        let submitted = self.shared.ledger.submit(request).await;
        self.expect_reply(submitted);
    }

    fn expect_reply(&mut self, submitted: Result<oneshot::Receiver<Reply>, LedgerError>) {
        match submitted {
            Ok(reply) => self.due.push_back(Due { since: Instant::now(), reply }),
            Err(error) => self.session.handle_unavailable(&error.to_string()),
        }
    }
}

/// Room for `bytes`; all of it for more than there is.
async fn room(of: &Arc<Semaphore>, bytes: usize, most: u32) -> Result<OwnedSemaphorePermit, Ended> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(most);
    let permit = Arc::clone(of).acquire_many_owned(bytes).await;
    permit.map_err(|_| Ended::Lost(STOPPING.to_owned()))
}

/// How long the certificate of this chain is still valid. One that cannot be read was refused before.
fn certified(chain: &[CertificateDer<'_>], now: Timestamp) -> Duration {
    let left = chain.first().and_then(tls::not_after).map(|end| end.millis_since(now));
    Duration::from_millis(left.map_or(u64::MAX, |left| u64::try_from(left).unwrap_or(0)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// For jitter. Without a source of randomness there is none, and no harm.
fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}

/// Until then; for ever if nothing is due.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => pending().await,
    }
}

/// Lets the peer read what was sent, for a while. What it still sends is read and means nothing: TCP would
/// answer it with a reset, and that would overtake what was sent.
pub(super) async fn say_farewell(
    receive: &mut (impl AsyncRead + Unpin),
    send: &mut (impl AsyncWrite + Unpin),
) {
    let ending = async {
        send.shutdown().await?;
        let mut chunk = vec![0; FREE_FRAME_BYTES];
        while receive.read(&mut chunk).await? > 0 {}
        io::Result::Ok(())
    };
    drop(timeout(FAREWELL_MAX, ending).await);
}

/// Whether the peer has closed the connection as it should, or ended its half without a word of TLS: frames
/// say whether anything is missing.
fn is_goodbye(error: &io::Error) -> bool {
    let lost = error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>());
    error.kind() == io::ErrorKind::UnexpectedEof
        || matches!(lost, Some(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(_))))
}

/// The error's innermost cause, which says why a connection was lost.
fn cause_of(error: &io::Error) -> String {
    let mut cause: Option<&dyn Error> = error.get_ref().map(|inner| inner as _);
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

/// The place that is asked for; for ever if none is. Cancel-safe.
async fn next_place(
    asked: &mut Option<Pin<Box<dyn Future<Output = FramePlace> + Send>>>,
) -> FramePlace {
    let Some(place) = asked else {
        return pending().await;
    };
    let place = place.await;
    *asked = None;
    place
}

/// The reply to the oldest request; for ever if none is due. Cancel-safe.
async fn next_reply(due: &mut VecDeque<Due>) -> Result<Reply, oneshot::error::RecvError> {
    let Some(oldest) = due.front_mut() else {
        return pending().await;
    };
    let reply = (&mut oldest.reply).await;
    due.pop_front();
    reply
}
