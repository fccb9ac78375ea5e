//! One connection's loop: waits for a frame, a reply, a timer or the end; the session decides.
//!
//! **Owns** the order of replies: they are taken in the order of their requests.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tidemark_common::id::RulesVersion;
use tidemark_common::tls::{self, AgentName};
use tidemark_common::wire::{Frame, FrameBuffer, Refuse, RefuseReason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::Shared;
use crate::ledger::LedgerError;
use crate::ledger::request::{Admission, HelloRequest, Reply, Request, body_bytes};
use crate::session::hello::HelloVerdict;
use crate::session::{Action, Incoming, Session};

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;
/// A frame up to this length needs no room before it is received.
const FREE_FRAME_BYTES: usize = 64 << 10;
/// A frame that has room must be received in this time: 16 MiB at a megabit a second.
const FRAME_MAX: Duration = Duration::from_secs(128);
/// An opened body takes at most about this many times its raw bytes: short dimensions are the worst, each
/// name and value an allocation of its own, and lines stand in two lists while customers are told apart.
const OPENED_FACTOR: usize = 9;
/// After its last frame a connection is kept this long for the peer to read it.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Serves a connection until it ends.
pub(super) async fn serve(connection: &Connection, shared: &Shared) {
    shared.counters.sessions_begun.add();
    let peer = connection.remote_address();
    match begin(connection, shared).await {
        Ok(mut link) => {
            let ended = link.run().await;
            link.say_farewell().await;
            let agent = link.session.agent();
            let stream = link.session.stream();
            match ended {
                Ended::Said => tracing::debug!(%peer, %agent, ?stream, "a session ended"),
                Ended::Lost(reason) => {
                    tracing::info!(%peer, %agent, ?stream, %reason, "a session was lost")
                }
            }
        }
        Err(Ended::Lost(reason)) => tracing::warn!(%peer, %reason, "a session did not begin"),
        Err(Ended::Said) => {}
    }
    connection.close(VarInt::from_u32(0), b"");
    shared.counters.sessions_ended.add();
}

/// How a session ended.
enum Ended {
    /// By a frame of either side.
    Said,
    /// By the transport.
    Lost(String),
}

struct Link<'a> {
    shared: &'a Shared,
    session: Session,
    /// The rules that its Welcome names.
    rules: RulesVersion,
    send: SendStream,
    receive: RecvStream,
    buffer: FrameBuffer,
    chunk: Vec<u8>,
    due: VecDeque<oneshot::Receiver<Reply>>,
    /// Held from when a large frame is announced until its batch has room, or it turns out to be none.
    frame_room: Option<FrameRoom>,
    told_of_unauthorised: bool,
}

struct FrameRoom {
    _permit: OwnedSemaphorePermit,
    due: Instant,
}

/// What a turn of the loop woke up to.
enum Woken {
    Read(usize),
    Reply(Result<Reply, oneshot::error::RecvError>),
    ConfirmDue,
    WelcomeOverdue,
    FrameOverdue,
    Stopping,
    Closed,
    Lost(String),
}

async fn begin<'a>(connection: &Connection, shared: &'a Shared) -> Result<Link<'a>, Ended> {
    let opened = timeout(shared.options.handshake_max, connection.accept_bi()).await;
    let (mut send, receive) = match opened {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return Err(Ended::Lost(error.to_string())),
        Err(_) => return Err(Ended::Lost("it opened no stream in time".to_owned())),
    };
    match identity(connection) {
        Ok(agent) => {
            let terms = shared.terms();
            Ok(Link {
                shared,
                rules: terms.rules.version,
                session: Session::new(agent, terms),
                send,
                receive,
                buffer: FrameBuffer::default(),
                chunk: vec![0; READ_BYTES],
                due: VecDeque::new(),
                frame_room: None,
                told_of_unauthorised: false,
            })
        }
        Err(message) => {
            shared.counters.unnamed.add();
            let refuse = Refuse {
                reason: RefuseReason::Unauthorized,
                message: message.clone(),
                extras: Vec::new(),
            };
            if let Ok(bytes) = Frame::Refuse(refuse).encode() {
                drop(timeout(FAREWELL_MAX, send.write_all(&bytes)).await);
                farewell(&mut send).await;
            }
            Err(Ended::Lost(message))
        }
    }
}

pub(super) fn identity(connection: &Connection) -> Result<AgentName, String> {
    let identity =
        connection.peer_identity().ok_or_else(|| "it showed no certificate".to_owned())?;
    let chain = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| "its identity is no certificate chain".to_owned())?;
    tls::agent_name(&chain).map_err(|error| error.to_string())
}

impl Link<'_> {
    async fn run(&mut self) -> Ended {
        let options = &self.shared.options;
        let begun = Instant::now();
        let welcome_due = tokio::time::sleep(options.handshake_max);
        tokio::pin!(welcome_due);
        let first = begun.checked_add(options.confirm_interval).unwrap_or(begun);
        let mut confirm = interval_at(first, options.confirm_interval);
        confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = self.shared.stopping.subscribe();
        let mut told = false;
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
                    Ok(None) => {
                        if let Err(ended) = self.await_frame_room().await {
                            return ended;
                        }
                    }
                    Err(error) => {
                        self.session.handle_unreadable(error.to_string());
                        continue;
                    }
                }
            }
            let welcome = self.session.is_welcome();
            let frame_due = self.frame_room.as_ref().map(|room| room.due);
            let woken = tokio::select! {
                reply = next_reply(&mut self.due) => Woken::Reply(reply),
                read = self.receive.read(&mut self.chunk), if self.session.wants_frames() => match read {
                    Ok(Some(bytes)) => Woken::Read(bytes),
                    Ok(None) => Woken::Closed,
                    Err(error) => Woken::Lost(error.to_string()),
                },
                _ = confirm.tick(), if welcome => Woken::ConfirmDue,
                () = &mut welcome_due, if !welcome => Woken::WelcomeOverdue,
                () = until(frame_due), if self.session.wants_frames() => Woken::FrameOverdue,
                _ = stopping.wait_for(|stopping| *stopping), if !told => Woken::Stopping,
            };
            told |= matches!(woken, Woken::Stopping);
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
            Woken::ConfirmDue if self.shared.terms().rules.version != self.rules => self
                .session
                .handle_unavailable("the rules have changed; say Hello for the new ones"),
            Woken::ConfirmDue => self.session.handle_confirm_due(),
            Woken::WelcomeOverdue if self.session.awaits_hello() => {
                self.session.handle_unreadable("no Hello came in time".to_owned())
            }
            Woken::WelcomeOverdue => {
                self.session.handle_unavailable("the ledger did not answer in time")
            }
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
                    let request = HelloRequest { hello: *hello, agent };
                    self.submit(Request::Hello(Box::new(request))).await;
                }
                Action::Admit(incoming) => self.admit(*incoming).await?,
                Action::Confirm(stream, confirm) => {
                    self.submit(Request::Confirm { stream, confirm }).await
                }
                Action::Close(stream, close) => self.submit(Request::Close { stream, close }).await,
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
        match timeout(self.shared.options.send_max, self.send.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ended::Lost(error.to_string())),
            Err(_) => {
                self.shared.counters.slow.add();
                Err(Ended::Lost("it did not read in time".to_owned()))
            }
        }
    }

    /// Has room for the frame that is being received, if that is a large one, before more of it is read.
    /// Whoever holds such room waits for its peer, but not for ever, or for the writer: never for another
    /// session's frame.
    async fn await_frame_room(&mut self) -> Result<(), Ended> {
        let unfinished = self.buffer.unfinished().filter(|bytes| *bytes > FREE_FRAME_BYTES);
        let Some(bytes) = unfinished else {
            self.frame_room = None;
            return Ok(());
        };
        if self.frame_room.is_none() {
            let most = self.shared.options.frame_bytes_in_flight_max;
            let permit = room(&self.shared.frame_bytes, bytes, most).await?;
            let now = Instant::now();
            let due = now.checked_add(FRAME_MAX).unwrap_or(now);
            self.frame_room = Some(FrameRoom { _permit: permit, due });
        }
        Ok(())
    }

    /// Opens a batch's body on the blocking pool and hands it to the writer.
    async fn admit(&mut self, incoming: Incoming) -> Result<(), Ended> {
        let closed = |_| Ended::Lost(STOPPING.to_owned());
        let bytes = body_bytes(&incoming.header).saturating_mul(OPENED_FACTOR);
        let most = self.shared.options.batch_bytes_in_flight_max;
        let room = room(&self.shared.batch_bytes, bytes, most).await?;
        self.frame_room = None;
        let turn = Arc::clone(&self.shared.bodies).acquire_owned().await.map_err(closed)?;
        let Incoming { header, bytes, fence } = incoming;
        let (grants, agent) = (self.shared.grants(), self.session.agent().clone());
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

    async fn submit(&mut self, request: Request) {
        let submitted = self.shared.ledger.submit(request).await;
        self.expect_reply(submitted);
    }

    fn expect_reply(&mut self, submitted: Result<oneshot::Receiver<Reply>, LedgerError>) {
        match submitted {
            Ok(reply) => self.due.push_back(reply),
            Err(error) => self.session.handle_unavailable(&error.to_string()),
        }
    }

    async fn say_farewell(&mut self) {
        farewell(&mut self.send).await;
    }
}

const STOPPING: &str = "the collector is stopping";

/// Room for `bytes`; all of it for more than there is.
async fn room(of: &Arc<Semaphore>, bytes: usize, most: u32) -> Result<OwnedSemaphorePermit, Ended> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(most);
    let permit = Arc::clone(of).acquire_many_owned(bytes).await;
    permit.map_err(|_| Ended::Lost(STOPPING.to_owned()))
}

/// Until then; for ever if nothing is due.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => pending().await,
    }
}

/// Lets the peer read what was sent, for a while.
async fn farewell(send: &mut SendStream) {
    if send.finish().is_ok() {
        drop(timeout(FAREWELL_MAX, send.stopped()).await);
    }
}

/// The reply to the oldest request; for ever if none is due. Cancel-safe.
async fn next_reply(
    due: &mut VecDeque<oneshot::Receiver<Reply>>,
) -> Result<Reply, oneshot::error::RecvError> {
    let Some(oldest) = due.front_mut() else {
        return pending().await;
    };
    let reply = oldest.await;
    due.pop_front();
    reply
}
