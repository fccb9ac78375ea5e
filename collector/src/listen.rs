//! The agents' door: accepts them by certificate and moves their frames, over QUIC, or TLS over TCP where a
//! network lets no QUIC through.
//!
//! **Owns** sockets, timers and what one session may hold. **Does not own** what frames mean
//! (`session.rs`) or the ledger.
//!
//! A connection becomes a session once its certificate is verified; until then it takes none of their
//! room, and nothing is kept for an address that has not shown to be the peer's own.
//!
//! Limits, all in [`ListenOptions`]: sessions and handshakes, in all and for one identity or address; time
//! for a handshake, a Hello and a send; bytes of batches that wait for their commit over all sessions, of
//! frames that are not here whole yet, bodies opened at once. A session buffers at most one frame, for
//! which it has room if it is large, and its transport's window. What a slow peer does not read, or does
//! not finish, ends its session.

mod events;
mod figures;
mod frames;
mod holders;
mod pressure;
mod quic;
mod refusal;
mod serve;
mod tcp;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quinn::crypto::rustls::NoInitialCipherSuite;
use quinn::{Endpoint, VarInt};
use ring::{digest, hmac};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tidemark_common::tls::{self, AgentName, Pem, ServerTls, Shown, TlsError};
use tidemark_common::wire::Rules;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;

use crate::archive::events::Desk;
use crate::grants::Grants;
use crate::ledger::Ledger;
use crate::session::Terms;

use self::figures::ListenCounters;
pub use self::figures::ListenFigures;
use self::frames::FrameRoom;
use self::holders::Place;
pub(crate) use self::holders::{Holders, one_address};
use self::refusal::Refusal;

/// What an agent is told that finds no room.
const FULL: &str = "as many agents are connected as may be";
const CROWDED: &str = "this identity has as many sessions as it may (sessions_per_identity_max)";

/// The door's address, limits and intervals.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Where QUIC listens.
    pub address: SocketAddr,
    /// Where TLS over TCP listens, if at all.
    pub tcp: Option<SocketAddr>,
    pub sessions_max: usize,
    /// At most this many handshakes are under way, over each transport.
    pub handshakes_max: usize,
    /// Of all these, at most so many for one identity, and over each transport for one address.
    pub sessions_per_identity_max: u32,
    pub handshakes_per_address_max: u32,
    /// A session ends in good order between half of this age and all of it, so that certificates are looked at
    /// again and agents spread.
    pub session_age_max: Duration,
    /// A session is asked to confirm this often.
    pub confirm_interval: Duration,
    /// At most this many batches of a session may be sent and not yet acknowledged.
    pub batches_in_flight_max: u32,
    /// Over all sessions, batches that take at most this much memory when opened wait for their commit;
    /// further ones wait in their transports. One that takes more waits until it is alone.
    pub batch_bytes_in_flight_max: u32,
    /// Over all sessions, large frames of at most this many bytes are received at once, of one identity a
    /// quarter; further ones wait in their transports.
    pub frame_bytes_in_flight_max: u32,
    /// Time in which a large frame must be received once it has room: four times as long while there is room
    /// for others.
    pub frame_max: Duration,
    /// At most this many bodies are opened at once, each of up to 32 MiB.
    pub bodies_opened_max: usize,
    /// Time for a handshake, and again for a Hello.
    pub handshake_max: Duration,
    /// Time in which a peer must read what it is sent.
    pub send_max: Duration,
    /// An idle connection is kept open by a packet this often, and given up after `idle_max`.
    pub keep_alive: Duration,
    pub idle_max: Duration,
    /// Bytes that a session's transport may hold unread.
    pub receive_window_bytes: u32,
    /// Where raw events go, and how many bytes of them a session may send a second; `None`: none are archived.
    pub raw_events: Option<(Arc<Desk>, u32)>,
    /// Which agents may bill whom, until [`Listener::set_grants`] says otherwise.
    pub grants: Arc<Grants>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 8129)),
            tcp: Some(SocketAddr::from(([0, 0, 0, 0], 8129))),
            sessions_max: 10_000,
            handshakes_max: 1_000,
            sessions_per_identity_max: 5_000,
            handshakes_per_address_max: 250,
            session_age_max: Duration::from_secs(7_200),
            confirm_interval: Duration::from_secs(10),
            batches_in_flight_max: 32,
            batch_bytes_in_flight_max: 256 << 20,
            frame_bytes_in_flight_max: 64 << 20,
            // 16 MiB at 4 megabits a second, or at one.
            frame_max: Duration::from_secs(32),
            bodies_opened_max: 4,
            handshake_max: Duration::from_secs(10),
            send_max: Duration::from_secs(30),
            keep_alive: Duration::from_secs(10),
            idle_max: Duration::from_secs(30),
            receive_window_bytes: 1 << 20,
            raw_events: None,
            grants: Arc::default(),
        }
    }
}

/// A door that cannot be opened.
#[derive(Debug, Error)]
pub enum ListenError {
    #[error("failed to listen on {protocol} {address}: {error}")]
    Bind { protocol: &'static str, address: SocketAddr, error: io::Error },
    #[error("failed to set up QUIC: {0}")]
    Crypto(#[from] NoInitialCipherSuite),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("failed to set up QUIC: an idle time of {idle_max:?} is too long")]
    IdleTime { idle_max: Duration },
}

/// The open door.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
    tcp: Option<SocketAddr>,
    shared: Arc<Shared>,
    accepting: Vec<JoinHandle<()>>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    terms: RwLock<Terms>,
    grants: RwLock<Arc<Grants>>,
    tls: RwLock<ServerTls>,
    options: ListenOptions,
    counters: ListenCounters,
    sessions: Arc<Semaphore>,
    identities: Holders<AgentName>,
    quic_handshakes: Handshakes,
    tcp_handshakes: Handshakes,
    batch_bytes: Arc<Semaphore>,
    frame_bytes: FrameRoom,
    bodies: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

/// Room for the handshakes over one transport.
#[derive(Debug)]
struct Handshakes {
    room: Arc<Semaphore>,
    addresses: Holders<IpAddr>,
}

/// Room for a session, until it is dropped.
#[derive(Debug)]
struct SessionPlace<'s> {
    _session: SemaphorePermit<'s>,
    /// One without a name has none: it is told so, and holds nothing for long.
    _identity: Option<Place<'s, AgentName>>,
}

impl Handshakes {
    fn new(options: &ListenOptions) -> Self {
        Self {
            room: Arc::new(Semaphore::new(options.handshakes_max)),
            addresses: Holders::new(options.handshakes_per_address_max),
        }
    }
}

/// Who the collector is to its agents.
#[derive(Debug)]
pub struct Credentials {
    tls: ServerTls,
    /// Signs stateless resets. It comes from the certificate's key, so that it is the same after a crash:
    /// then an agent learns at its first packet that its session is gone, instead of by the idle time. (After
    /// the first restart with a renewed key it learns by the idle time.)
    reset_key: hmac::Key,
    /// By this the next process knows the ids of connections that this one gave out.
    connection_key: u64,
}

impl Credentials {
    /// # Errors
    /// Certificates that cannot be used.
    pub fn new(pem: &Pem) -> Result<Self, TlsError> {
        let key = digest::digest(&digest::SHA256, &[b"tidemark/reset/1", &pem.key[..]].concat());
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
        let connection = hmac::sign(&reset_key, b"tidemark/connection/1");
        let (first, _) = connection.as_ref().split_first_chunk().expect("a digest has 32 bytes");
        let connection_key = u64::from_be_bytes(*first);
        Ok(Self { tls: ServerTls::new(pem)?, reset_key, connection_key })
    }
}

impl Listener {
    /// Opens the door.
    ///
    /// # Errors
    /// An address in use, or settings that QUIC cannot take.
    pub fn start(
        options: ListenOptions,
        credentials: Credentials,
        ledger: Ledger,
        rules: Arc<Rules>,
    ) -> Result<Self, ListenError> {
        let (endpoint, config) = quic::bind(&options, &credentials)?;
        let named = |protocol, address| move |error| ListenError::Bind { protocol, address, error };
        let address = endpoint.local_addr().map_err(named("udp", options.address))?;
        let (door, tcp) = match options.tcp {
            Some(address) => {
                let door = tcp::bind(&options, address)?;
                let bound = door.local_addr().map_err(named("tcp", address))?;
                (Some(door), Some(bound))
            }
            None => (None, None),
        };
        let terms = Terms {
            ledger: ledger.ledger(),
            unique_key: ledger.unique_key(),
            rules,
            batches_in_flight_max: options.batches_in_flight_max,
            raw_events: options.raw_events.is_some(),
        };
        let batch_bytes = usize::try_from(options.batch_bytes_in_flight_max);
        let batch_bytes = batch_bytes.unwrap_or(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            ledger,
            terms: RwLock::new(terms),
            grants: RwLock::new(Arc::clone(&options.grants)),
            tls: RwLock::new(credentials.tls),
            counters: ListenCounters::default(),
            sessions: Arc::new(Semaphore::new(options.sessions_max)),
            identities: Holders::new(options.sessions_per_identity_max),
            quic_handshakes: Handshakes::new(&options),
            tcp_handshakes: Handshakes::new(&options),
            batch_bytes: Arc::new(Semaphore::new(batch_bytes)),
            frame_bytes: FrameRoom::new(options.frame_bytes_in_flight_max),
            bodies: Arc::new(Semaphore::new(options.bodies_opened_max)),
            stopping: watch::Sender::new(false),
            options,
        });
        let mut accepting =
            vec![tokio::spawn(quic::accept(endpoint.clone(), config, Arc::clone(&shared)))];
        accepting.extend(door.map(|door| tokio::spawn(tcp::accept(door, Arc::clone(&shared)))));
        Ok(Self { endpoint, address, tcp, shared, accepting })
    }

    /// Where agents connect to over QUIC.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where they connect to over TCP, if they may.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Gives further rules to agents: a running session is asked to begin anew within one
    /// `confirm_interval`, since an agent hears of rules in Welcome only.
    pub fn set_rules(&self, rules: Arc<Rules>) {
        self.shared.terms.write().unwrap_or_else(PoisonError::into_inner).rules = rules;
    }

    /// Judges further batches by these; what is posted stays as it was judged.
    pub fn set_grants(&self, grants: Arc<Grants>) {
        *self.shared.grants.write().unwrap_or_else(PoisonError::into_inner) = grants;
    }

    /// A writer of further certificates that outlives moves of the listener: they count for each connection
    /// that begins after it. Sessions go on until their age.
    pub fn renewer(&self) -> impl Fn(ServerTls) + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |tls| *shared.tls.write().unwrap_or_else(PoisonError::into_inner) = tls
    }

    #[must_use]
    pub fn figures(&self) -> ListenFigures {
        self.shared.figures()
    }

    /// A reader of the figures that outlives moves of the listener.
    pub fn figures_reader(&self) -> impl Fn() -> ListenFigures + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.figures()
    }

    /// Tells every session that the collector is unavailable, and closes the door.
    pub async fn shutdown(self) {
        self.shared.stopping.send_replace(true);
        let sessions = u32::try_from(self.shared.options.sessions_max).unwrap_or(u32::MAX);
        let all_ended = self.shared.sessions.acquire_many(sessions);
        if tokio::time::timeout(self.shared.options.handshake_max, all_ended).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
        self.endpoint.close(VarInt::from_u32(0), b"stopping");
        for accepting in self.accepting {
            drop(accepting.await);
        }
    }
}

impl Shared {
    fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.grants.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn terms(&self) -> Terms {
        self.terms.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A place among the handshakes of one address; without one the connection is refused.
    fn address_place<'s>(
        &self,
        handshakes: &'s Handshakes,
        peer: SocketAddr,
    ) -> Option<Place<'s, IpAddr>> {
        let place = handshakes.addresses.enter(one_address(peer.ip()));
        if place.is_none() {
            self.counters.crowded_addresses.add();
        }
        place
    }

    /// Room for a session of whoever has shown `chain`.
    ///
    /// # Errors
    /// What the peer is told if there is none.
    fn session_place(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<SessionPlace<'_>, &'static str> {
        let Ok(session) = self.sessions.try_acquire() else {
            self.counters.full.add();
            return Err(FULL);
        };
        let identity = match tls::agent_name(chain).map(|agent| self.identities.enter(agent)) {
            Ok(Some(place)) => Some(place),
            Ok(None) => {
                self.counters.crowded_identities.add();
                return Err(CROWDED);
            }
            Err(_) => None,
        };
        Ok(SessionPlace { _session: session, _identity: identity })
    }

    fn figures(&self) -> ListenFigures {
        let certified_until = self.tls().shown().and_then(Shown::until);
        self.counters.figures(certified_until)
    }

    fn refused(&self, peer: SocketAddr, refusal: &Refusal) {
        self.counters.handshakes_failed.add();
        tracing::warn!(%peer, %refusal, "a handshake failed");
    }

    fn tls(&self) -> ServerTls {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
