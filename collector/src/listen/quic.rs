//! QUIC: accepts connections from addresses that have shown to be the peer's own.
//!
//! **Owns** the endpoint's settings and its connections' ends. **Does not own** what is said on a
//! connection's one stream (`serve.rs`).

use std::net::UdpSocket;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use tidemark_common::tls::Notes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::refusal::Refusal;
use super::serve::{self, Peer};
use super::{Credentials, ListenError, ListenOptions, Shared};

/// The bound endpoint, and the settings of its connections.
pub(super) fn bind(
    options: &ListenOptions,
    credentials: &Credentials,
) -> Result<(Endpoint, ServerConfig), ListenError> {
    let crypto = QuicServerConfig::try_from(credentials.tls.config(&Notes::default())?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(options)?));
    let address = options.address;
    let bind = |error| ListenError::Bind { protocol: "udp", address, error };
    let socket = UdpSocket::bind(address).map_err(bind)?;
    let mut settings = EndpointConfig::new(Arc::new(credentials.reset_key.clone()));
    let key = credentials.connection_key;
    settings.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(settings, Some(config.clone()), socket, runtime).map_err(bind)?;
    Ok((endpoint, config))
}

pub(super) async fn accept(endpoint: Endpoint, config: ServerConfig, shared: Arc<Shared>) {
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
        match Arc::clone(&shared.quic_handshakes.room).try_acquire_owned() {
            Ok(permit) if shared.sessions.available_permits() > 0 => {
                let (config, shared) = (config.clone(), Arc::clone(&shared));
                tokio::spawn(async move { welcome(incoming, config, permit, &shared).await });
            }
            Ok(_) | Err(_) => {
                shared.counters.full.add();
                incoming.refuse();
            }
        }
    }
}

/// One connection, from its first packet to its last.
async fn welcome(
    incoming: Incoming,
    config: ServerConfig,
    handshake: OwnedSemaphorePermit,
    shared: &Shared,
) {
    let peer = incoming.remote_address();
    let Some(place) = shared.address_place(&shared.quic_handshakes, peer) else {
        return incoming.refuse();
    };
    let connection = match shake_hands(incoming, config, shared).await {
        Ok(connection) => connection,
        Err(refusal) => return shared.refused(peer, &refusal),
    };
    drop((handshake, place));
    let chain = chain(&connection);
    let _place = match shared.session_place(&chain) {
        Ok(place) => place,
        Err(reason) => return connection.close(VarInt::from_u32(0), reason.as_bytes()),
    };
    match timeout(shared.options.handshake_max, connection.accept_bi()).await {
        Ok(Ok((send, receive))) => {
            serve::serve(Peer { address: peer, chain, send, receive }, shared).await;
        }
        // An agent whose session goes over TCP looks whether QUIC gets through.
        Ok(Err(ConnectionError::ApplicationClosed(_))) => {
            tracing::debug!(%peer, "a connection was closed before it said anything");
        }
        // With TLS 1.3 this end may learn only now that its certificate is refused.
        Ok(Err(error)) => {
            let refusal = Refusal::of_quic(&error, &Notes::default(), shared.tls().shown());
            tracing::warn!(%peer, %refusal, "a session did not begin");
        }
        Err(_) => tracing::warn!(%peer, "a session did not begin: it opened no stream in time"),
    }
    connection.close(VarInt::from_u32(0), b"");
}

/// A connection whose certificate is verified. The certificates of this end may have been renewed since the
/// door was opened, so each connection has settings of its own.
async fn shake_hands(
    incoming: Incoming,
    mut config: ServerConfig,
    shared: &Shared,
) -> Result<Connection, Refusal> {
    let (tls, notes) = (shared.tls(), Notes::default());
    let other = |reason: String| Refusal::Other { reason };
    let settings = tls.config(&notes).map_err(|error| other(error.to_string()))?;
    let crypto = QuicServerConfig::try_from(settings).map_err(|error| other(error.to_string()))?;
    config.crypto = Arc::new(crypto);
    let told = |error: ConnectionError| Refusal::of_quic(&error, &notes, tls.shown());
    let connecting = incoming.accept_with(Arc::new(config)).map_err(&told)?;
    match timeout(shared.options.handshake_max, connecting).await {
        Ok(connected) => connected.map_err(&told),
        Err(_) => Err(Refusal::TooLong),
    }
}

/// The certificates that the peer has shown, its own first.
fn chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let shown = connection.peer_identity().and_then(|shown| shown.downcast().ok());
    shown.map_or_else(Vec::new, |chain| *chain)
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
