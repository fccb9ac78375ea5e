//! The QUIC door: accepts agents by certificate and moves their frames.
//!
//! **Owns** sockets, timers and what one session may hold. **Does not own** what frames mean
//! (`session.rs`) or the ledger.
//!
//! A connection becomes a session once its certificate is verified; until then it takes none of their
//! room, and nothing is kept for an address that has not shown to be the peer's own.
//!
//! Limits, all in [`ListenOptions`]: sessions and handshakes, in all and for one identity or address; time for a handshake, a Hello and a send, bytes
//! of batches that wait for their commit over all sessions, of frames that are not here whole yet, bodies
//! opened at once. A session buffers at most one frame, for which it has room if it is large, and its
//! transport's window. What a slow peer does not read, or does not finish, ends its session.

mod figures;
mod holders;
mod serve;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TransportConfig,
    VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::{digest, hmac};
use thiserror::Error;
use tidemark_common::tls::{self, AgentName, Pem, TlsError};
use tidemark_common::wire::Rules;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::grants::Grants;
use crate::ledger::Ledger;
use crate::session::Terms;

use self::figures::ListenCounters;
pub use self::figures::ListenFigures;
use self::holders::Holders;
pub(crate) use self::holders::one_address;

/// The door's address, limits and intervals.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    pub address: SocketAddr,
    pub sessions_max: usize,
    /// At most this many handshakes are under way.
    pub handshakes_max: usize,
    /// Of all these, at most so many for one identity, and for one address.
    pub sessions_per_identity_max: u32,
    pub handshakes_per_address_max: u32,
    /// A session is asked to confirm this often.
    pub confirm_interval: Duration,
    /// At most this many batches of a session may be sent and not yet acknowledged.
    pub batches_in_flight_max: u32,
    /// Over all sessions, batches that take at most this much memory when opened wait for their commit;
    /// further ones wait in their transports. One that takes more waits until it is alone.
    pub batch_bytes_in_flight_max: u32,
    /// Over all sessions, large frames of at most this many bytes are received at once.
    pub frame_bytes_in_flight_max: u32,
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
    /// Which agents may bill whom, until [`Listener::set_grants`] says otherwise.
    pub grants: Arc<Grants>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 8129)),
            sessions_max: 10_000,
            handshakes_max: 1_000,
            sessions_per_identity_max: 5_000,
            handshakes_per_address_max: 250,
            confirm_interval: Duration::from_secs(10),
            batches_in_flight_max: 32,
            batch_bytes_in_flight_max: 256 << 20,
            frame_bytes_in_flight_max: 64 << 20,
            bodies_opened_max: 4,
            handshake_max: Duration::from_secs(10),
            send_max: Duration::from_secs(30),
            keep_alive: Duration::from_secs(10),
            idle_max: Duration::from_secs(30),
            receive_window_bytes: 1 << 20,
            grants: Arc::default(),
        }
    }
}

/// A door that cannot be opened.
#[derive(Debug, Error)]
pub enum ListenError {
    #[error("failed to listen on udp {address}: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    #[error("failed to set up QUIC: {0}")]
    Crypto(#[from] NoInitialCipherSuite),
    #[error("failed to set up QUIC: an idle time of {idle_max:?} is too long")]
    IdleTime { idle_max: Duration },
}

/// The open door.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    terms: RwLock<Terms>,
    grants: RwLock<Arc<Grants>>,
    options: ListenOptions,
    counters: ListenCounters,
    sessions: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    identities: Holders<AgentName>,
    addresses: Holders<IpAddr>,
    batch_bytes: Arc<Semaphore>,
    frame_bytes: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

/// Who the collector is to its agents.
#[derive(Debug)]
pub struct Credentials {
    tls: rustls::ServerConfig,
    /// Signs stateless resets. It comes from the certificate's key, so that it is the same after a crash:
    /// then an agent learns at its first packet that its session is gone, instead of by the idle time.
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
        Ok(Self { tls: tls::server_config(pem)?, reset_key, connection_key })
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
        let mut config =
            ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(credentials.tls)?));
        config.transport_config(Arc::new(transport(&options)?));
        let bind = |error| ListenError::Bind { address: options.address, error };
        let socket = UdpSocket::bind(options.address).map_err(bind)?;
        let mut settings = EndpointConfig::new(Arc::new(credentials.reset_key));
        let key = credentials.connection_key;
        settings.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(settings, Some(config), socket, runtime).map_err(bind)?;
        let address = endpoint.local_addr().map_err(bind)?;
        let terms = Terms {
            ledger: ledger.ledger(),
            unique_key: ledger.unique_key(),
            rules,
            batches_in_flight_max: options.batches_in_flight_max,
        };
        let room = |bytes| {
            Arc::new(Semaphore::new(usize::try_from(bytes).unwrap_or(Semaphore::MAX_PERMITS)))
        };
        let shared = Arc::new(Shared {
            ledger,
            terms: RwLock::new(terms),
            grants: RwLock::new(Arc::clone(&options.grants)),
            counters: ListenCounters::default(),
            sessions: Arc::new(Semaphore::new(options.sessions_max)),
            handshakes: Arc::new(Semaphore::new(options.handshakes_max)),
            identities: Holders::new(options.sessions_per_identity_max),
            addresses: Holders::new(options.handshakes_per_address_max),
            batch_bytes: room(options.batch_bytes_in_flight_max),
            frame_bytes: room(options.frame_bytes_in_flight_max),
            bodies: Arc::new(Semaphore::new(options.bodies_opened_max)),
            stopping: watch::Sender::new(false),
            options,
        });
        let accepting = tokio::spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        Ok(Self { endpoint, address, shared, accepting })
    }

    /// Where agents connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
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

    #[must_use]
    pub fn figures(&self) -> ListenFigures {
        self.shared.counters.figures()
    }

    /// A reader of the figures that outlives moves of the listener.
    pub fn figures_reader(&self) -> impl Fn() -> ListenFigures + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.counters.figures()
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
        drop(self.accepting.await);
    }
}

impl Shared {
    fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.grants.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn terms(&self) -> Terms {
        self.terms.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        let incoming = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            return;
        };
        if incoming.may_retry() && !incoming.remote_address_validated() {
            // The peer comes again with a token that only its address gets to see.
            incoming.retry().expect("it may be told to retry");
            continue;
        }
        match Arc::clone(&shared.handshakes).try_acquire_owned() {
            Ok(permit) if shared.sessions.available_permits() > 0 => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { welcome(incoming, permit, &shared).await });
            }
            Ok(_) | Err(_) => {
                shared.counters.full.add();
                incoming.refuse();
            }
        }
    }
}

/// One connection, from its first packet to its last.
async fn welcome(incoming: Incoming, handshake: OwnedSemaphorePermit, shared: &Shared) {
    let Some(place) = shared.addresses.enter(one_address(incoming.remote_address().ip())) else {
        shared.counters.crowded_addresses.add();
        incoming.refuse();
        return;
    };
    let Some(connection) = shake_hands(incoming, shared).await else {
        return;
    };
    drop((handshake, place));
    let Ok(_session) = shared.sessions.try_acquire() else {
        shared.counters.full.add();
        connection.close(VarInt::from_u32(0), b"as many agents are connected as may be");
        return;
    };
    // One without a name has no place of its own: it is told so, and holds none for long.
    let _place = match serve::identity(&connection).map(|agent| shared.identities.enter(agent)) {
        Ok(Some(place)) => Some(place),
        Ok(None) => {
            shared.counters.crowded_identities.add();
            let reason =
                b"this identity has as many sessions as it may (sessions_per_identity_max)";
            connection.close(VarInt::from_u32(0), reason);
            return;
        }
        Err(_) => None,
    };
    serve::serve(&connection, shared).await;
}

/// A connection whose certificate is verified; `None` if there is none in time.
async fn shake_hands(incoming: Incoming, shared: &Shared) -> Option<Connection> {
    let peer = incoming.remote_address();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => {
            shared.counters.handshakes_failed.add();
            tracing::warn!(%peer, %error, "a handshake could not begin");
            return None;
        }
    };
    match tokio::time::timeout(shared.options.handshake_max, connecting).await {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(error)) => {
            shared.counters.handshakes_failed.add();
            tracing::warn!(%peer, %error, "a handshake failed");
        }
        Err(_) => {
            shared.counters.handshakes_failed.add();
            tracing::warn!(%peer, "a handshake took too long");
        }
    }
    None
}

fn transport(options: &ListenOptions) -> Result<TransportConfig, ListenError> {
    let idle_max = options.idle_max;
    let idle = IdleTimeout::try_from(idle_max).map_err(|_| ListenError::IdleTime { idle_max })?;
    let window = VarInt::from_u32(options.receive_window_bytes);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(window)
        .receive_window(window)
        .send_window(u64::from(options.receive_window_bytes))
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(Some(idle));
    Ok(transport)
}
