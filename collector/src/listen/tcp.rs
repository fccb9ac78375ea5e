//! TLS over TCP, for agents whose network lets no QUIC through: the same frames, certificates, protocol
//! name and limits.
//!
//! Handshakes have room of their own: whoever only opens TCP connections keeps no QUIC agent out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidemark_common::tcp::watch_peer;
use tidemark_common::tls::Notes;
use tidemark_common::wire::ALPN;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::refusal::Refusal;
use super::serve::{self, Peer};
use super::{ListenError, ListenOptions, Shared};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1_024;
/// After a failed accept, such as for want of file descriptors, none is tried for this long.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The bound listener. What it accepts inherits its buffers.
pub(super) fn bind(
    options: &ListenOptions,
    address: SocketAddr,
) -> Result<TcpListener, ListenError> {
    let bind = |error| ListenError::Bind { protocol: "tcp", address, error };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(bind)?;
    // What is left of the connections of a collector that has ended does not keep the next one out.
    socket.set_reuseaddr(true).map_err(bind)?;
    socket.set_recv_buffer_size(options.receive_window_bytes).map_err(bind)?;
    socket.set_send_buffer_size(options.receive_window_bytes).map_err(bind)?;
    socket.bind(address).map_err(bind)?;
    socket.listen(BACKLOG).map_err(bind)
}

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no TCP connection can be accepted; is the limit of open files too low?");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&shared.tcp_handshakes.room).try_acquire_owned() {
            Ok(permit) if shared.sessions.available_permits() > 0 => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { welcome(stream, peer, permit, &shared).await });
            }
            Ok(_) | Err(_) => shared.counters.full.add(),
        }
    }
}

/// One connection, from its handshake to its end.
async fn welcome(
    stream: TcpStream,
    address: SocketAddr,
    handshake: OwnedSemaphorePermit,
    shared: &Shared,
) {
    let Some(place) = shared.address_place(&shared.tcp_handshakes, address) else {
        return;
    };
    let stream = match shake_hands(stream, shared).await {
        Ok(stream) => stream,
        Err(refusal) => return shared.refused(address, &refusal),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let (receive, send) = tokio::io::split(stream);
    let session = shared.session_place(&chain);
    let peer = Peer { address, chain, send, receive };
    match session {
        Ok(_session) => {
            drop((handshake, place));
            shared.counters.tcp_sessions_begun.add();
            serve::serve(peer, shared).await;
            shared.counters.tcp_sessions_ended.add();
        }
        // It keeps its handshake's room until it is gone.
        Err(reason) => peer.turn_away(reason).await,
    }
}

/// A connection whose certificate is verified.
async fn shake_hands(stream: TcpStream, shared: &Shared) -> Result<TlsStream<TcpStream>, Refusal> {
    let options = &shared.options;
    let other = |reason: String| Refusal::Other { reason };
    stream.set_nodelay(true).map_err(|error| other(error.to_string()))?;
    watch_peer(&stream, options.keep_alive, options.idle_max)
        .map_err(|error| other(error.to_string()))?;
    let (tls, notes) = (shared.tls(), Notes::default());
    let settings = tls.config(&notes).map_err(|error| other(error.to_string()))?;
    let accepting = TlsAcceptor::from(Arc::new(settings)).accept(stream).into_fallible();
    let stream = match timeout(options.handshake_max, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            let refusal = Refusal::of_tcp(&error, &notes, tls.shown());
            // The alert is on its way, and must not be overtaken by a reset.
            let (mut receive, mut send) = tokio::io::split(stream);
            serve::say_farewell(&mut receive, &mut send).await;
            return Err(refusal);
        }
        Err(_) => return Err(Refusal::TooLong),
    };
    // QUIC insists on a common protocol by itself.
    match stream.get_ref().1.alpn_protocol() {
        Some(ALPN) => Ok(stream),
        Some(_) | None => Err(Refusal::OtherProtocol),
    }
}
