//! A link over TLS on TCP, for networks that let no QUIC through: the same frames, certificates and
//! protocol name.
//!
//! Nothing is sent before the handshake is over, and TLS sessions are never resumed.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tidemark_common::tcp::watch_peer;
use tidemark_common::tls::{self, Notes, Pem};
use tidemark_common::wire::ALPN;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::chooser::Transport;
use super::link::Link;
use super::{LinkError, LinkTimes, explain};

/// Connects to `address`, where a collector with the certificate name `server_name` is expected.
///
/// # Errors
/// Unusable certificates, no answer or a refusal, or a collector that cannot be trusted. That the
/// collector does not trust this agent shows at the first read.
pub(super) async fn connect(
    pem: &Pem,
    server_name: &str,
    address: SocketAddr,
    times: LinkTimes,
) -> Result<Link, LinkError> {
    let notes = Notes::default();
    let config = tls::client_config_noting(pem, &notes)?;
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|error| LinkError::Start { reason: format!("{server_name:?}: {error}") })?;
    let connecting = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| LinkError::Refused { address, reason: error.to_string() })?;
        let start = |reason: String| LinkError::Start { reason };
        stream.set_nodelay(true).map_err(|error| start(error.to_string()))?;
        watch_peer(&stream, times.keep_alive, times.idle_max)
            .map_err(|error| start(error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(config));
        let connected = connector.connect(name, stream).await;
        connected.map_err(|error| explain::noted(explain::tcp(&error), &notes))
    };
    let after = times.connect_max;
    let stream = match timeout(after, connecting).await {
        Ok(connected) => connected?,
        Err(_) => return Err(LinkError::NoAnswer { transport: Transport::Tcp, address, after }),
    };
    // QUIC insists on a common protocol by itself.
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(LinkError::OtherProtocol);
    }
    Ok(Link::over_tcp(stream.into()))
}
