//! A link over QUIC: one connection, one bidirectional stream, a new UDP socket each time.
//!
//! A new socket per connection: after a change of network, or behind a middlebox that has gone
//! astray, the old port may lead nowhere for minutes. No 0-RTT: a replayed Hello would raise fences.

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, Endpoint, IdleTimeout, TransportConfig, VarInt};
use tidemark_common::tls::{self, Notes, Pem};

use super::chooser::Transport;
use super::link::{Link, RECEIVE_WINDOW_BYTES};
use super::{LinkError, LinkTimes, explain};

/// Bytes written and not yet acknowledged by the other end's transport.
const SEND_WINDOW_BYTES: u64 = 4 << 20;

/// Connects to `address`, where a collector with the certificate name `server_name` is expected.
///
/// # Errors
/// Unusable certificates, no answer, or a collector that cannot be trusted. That the collector does
/// not trust this agent shows at the first read.
pub(super) async fn connect(
    pem: &Pem,
    server_name: &str,
    address: SocketAddr,
    times: LinkTimes,
) -> Result<Link, LinkError> {
    let start_error =
        |reason: &dyn std::error::Error| LinkError::Start { reason: reason.to_string() };
    let notes = Notes::default();
    let tls = QuicClientConfig::try_from(tls::client_config_noting(pem, &notes)?)
        .map_err(|error| start_error(&error))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport(times)?));

    let local = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint = Endpoint::client(local).map_err(LinkError::Socket)?;
    let connecting =
        endpoint.connect_with(config, address, server_name).map_err(|error| start_error(&error))?;
    let after = times.connect_max;
    let connection = match tokio::time::timeout(after, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(ConnectionError::TimedOut)) | Err(_) => {
            return Err(LinkError::NoAnswer { transport: Transport::Quic, address, after });
        }
        Ok(Err(error)) => return Err(explain::noted(explain::quic(error), &notes)),
    };
    let streams = connection.open_bi().await.map_err(explain::quic)?;
    Ok(Link::over_quic(endpoint, connection, streams))
}

fn transport(times: LinkTimes) -> Result<TransportConfig, LinkError> {
    let idle = IdleTimeout::try_from(times.idle_max)
        .map_err(|error| LinkError::Start { reason: error.to_string() })?;
    let receive_window = VarInt::try_from(RECEIVE_WINDOW_BYTES).unwrap_or(VarInt::MAX);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(times.keep_alive))
        .send_window(SEND_WINDOW_BYTES)
        .stream_receive_window(receive_window)
        .receive_window(receive_window)
        // The agent opens the one stream that there is.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    Ok(config)
}
