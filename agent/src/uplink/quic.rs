//! A link over QUIC: one connection, one bidirectional stream, a new UDP socket each time.
//!
//! A new socket per connection: after a change of network, or behind a middlebox that has gone
//! astray, the old port may lead nowhere for minutes. No 0-RTT: a replayed Hello would raise fences.
//!
//! Reading and writing are cancel-safe: what was half done goes on at the next call, so the driver
//! may wait for both at once.

#[cfg(test)]
pub(crate) mod tests;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, IdleTimeout, ReadError, RecvStream,
    SendStream, TransportConfig, TransportErrorCode, VarInt, WriteError,
};
use tidemark_common::tls::{self, Pem};
use tidemark_common::wire::{CONTROL_BYTES_MAX, Frame, FrameBuffer};
use tokio::task::JoinSet;

use super::{CertificateFault, LinkError, resolve};

/// Bytes written and not yet acknowledged by the other end's transport.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// Bytes that the collector may send before they are read: two of its largest frames.
const RECEIVE_WINDOW_BYTES: usize = 2 * CONTROL_BYTES_MAX;
/// Bytes asked for in one read.
const READ_BYTES: usize = 16 << 10;

/// An address is tried this long before the next one is tried beside it.
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

/// How long the parts of a link may take.
#[derive(Debug, Clone, Copy)]
pub struct LinkTimes {
    /// One address is tried for this long.
    pub connect_max: Duration,
    /// An idle link is kept open by a packet this often.
    pub keep_alive: Duration,
    /// A link that hears nothing for this long is given up.
    pub idle_max: Duration,
}

impl Default for LinkTimes {
    fn default() -> Self {
        Self {
            connect_max: Duration::from_secs(5),
            keep_alive: Duration::from_secs(10),
            idle_max: Duration::from_secs(30),
        }
    }
}

/// An open link. Its two ends are used independently.
#[derive(Debug)]
pub struct QuicLink {
    pub reader: FrameReader,
    pub writer: FrameWriter,
    pub handle: LinkHandle,
}

/// Measures and closes a link.
#[derive(Debug)]
pub struct LinkHandle {
    endpoint: Endpoint,
    connection: Connection,
}

/// Connects to `collector` (`host:port`) at the first of its addresses that answers. They are begun a
/// moment apart: `localhost` is often two addresses of which one leads nowhere, and QUIC learns that
/// only by silence.
///
/// # Errors
/// The most telling of what happened at its addresses.
pub async fn connect_to(
    collector: &str,
    server_name: &str,
    pem: Arc<Pem>,
    times: LinkTimes,
) -> Result<QuicLink, LinkError> {
    let mut attempts = JoinSet::new();
    let mut begin_after = Duration::ZERO;
    for address in resolve(collector).await? {
        let (pem, server_name) = (Arc::clone(&pem), server_name.to_owned());
        attempts.spawn(async move {
            tokio::time::sleep(begin_after).await;
            connect(&pem, &server_name, address, times).await
        });
        begin_after = begin_after.saturating_add(ADDRESS_HEAD_START);
    }
    let mut failure = LinkError::NoAddress;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => {
                if matches!(failure, LinkError::NoAddress | LinkError::NoAnswer { .. }) {
                    failure = error;
                }
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => failure = LinkError::Start { reason: error.to_string() },
            },
        }
    }
    Err(failure)
}

/// Connects to `address`, where a collector with the certificate name `server_name` is expected.
///
/// # Errors
/// Unusable certificates, no answer, or a collector that cannot be trusted. That the collector does
/// not trust this agent shows at the first read.
pub async fn connect(
    pem: &Pem,
    server_name: &str,
    address: SocketAddr,
    times: LinkTimes,
) -> Result<QuicLink, LinkError> {
    let start_error =
        |reason: &dyn std::error::Error| LinkError::Start { reason: reason.to_string() };
    let tls = QuicClientConfig::try_from(tls::client_config(pem)?)
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
    let no_answer = || LinkError::NoAnswer { address, after: times.connect_max };
    let connection = match tokio::time::timeout(times.connect_max, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(ConnectionError::TimedOut)) | Err(_) => return Err(no_answer()),
        Ok(Err(error)) => return Err(explain(error)),
    };
    let (send, receive) = connection.open_bi().await.map_err(explain)?;
    Ok(QuicLink {
        reader: FrameReader {
            stream: receive,
            buffer: FrameBuffer::default(),
            chunk: vec![0; READ_BYTES],
        },
        writer: FrameWriter { stream: send, bytes: Vec::new(), written: 0 },
        handle: LinkHandle { endpoint, connection },
    })
}

/// The receiving end.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    buffer: FrameBuffer,
    chunk: Vec<u8>,
}

impl FrameReader {
    /// The next frame. Cancel-safe.
    ///
    /// # Errors
    /// The end of the link, or bytes that are no frame.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(frame);
            }
            match self.stream.read(&mut self.chunk).await {
                Ok(Some(bytes)) => self.buffer.push(self.chunk.get(..bytes).unwrap_or_default()),
                Ok(None) => return Err(LinkError::Closed { reason: String::new() }),
                Err(ReadError::ConnectionLost(error)) => return Err(explain(error)),
                Err(error) => return Err(LinkError::Lost { reason: error.to_string() }),
            }
        }
    }
}

/// The sending end. It holds one frame at a time, so what waits to be sent waits on disk.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    bytes: Vec<u8>,
    written: usize,
}

impl FrameWriter {
    /// Whether [`Self::put`] may be called.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Takes the next frame, to be written by [`Self::flush`].
    ///
    /// # Errors
    /// A frame that breaks a limit of its own format.
    pub fn put(&mut self, frame: &Frame) -> Result<(), LinkError> {
        assert!(self.is_idle(), "a frame is put only after the one before is written");
        self.bytes = frame.encode()?;
        self.written = 0;
        Ok(())
    }

    /// Writes what was put. Cancel-safe.
    ///
    /// # Errors
    /// The end of the link.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = self.stream.write(rest).await.map_err(explain_write)?;
            self.written = self.written.saturating_add(written);
        }
        self.bytes = Vec::new();
        self.written = 0;
        Ok(())
    }

    /// Ends the stream and waits until the other end's transport has all of it.
    ///
    /// # Errors
    /// The end of the link before that.
    pub async fn finish(&mut self) -> Result<(), LinkError> {
        self.flush().await?;
        // Finished before is finished.
        drop(self.stream.finish());
        match self.stream.stopped().await {
            Ok(_) => Ok(()),
            Err(error) => Err(explain_write(error.into())),
        }
    }
}

impl LinkHandle {
    /// The smoothed round trip time.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    /// Closes the link. The other end is told in the background.
    pub fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Closes the link and waits until the other end was told.
    pub async fn close_and_wait(self, wait_max: Duration) {
        self.close();
        // Whoever does not hear of it finds out by its idle timeout.
        drop(tokio::time::timeout(wait_max, self.endpoint.wait_idle()).await);
    }
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

fn explain_write(error: WriteError) -> LinkError {
    match error {
        WriteError::ConnectionLost(error) => explain(error),
        error => LinkError::Lost { reason: error.to_string() },
    }
}

/// Puts the end of a connection into words. Who refused whose certificate shows in who closed: this
/// end with a transport error, or the collector.
fn explain(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::TransportError(error) => {
            let detail = error.reason.clone();
            match Alert::of(error.code) {
                Some(Alert::Certificate(fault)) => {
                    LinkError::CollectorCertificate { fault, detail }
                }
                Some(Alert::Protocol) => LinkError::OtherProtocol,
                None => LinkError::Lost { reason: error.to_string() },
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let detail = String::from_utf8_lossy(&close.reason).into_owned();
            match Alert::of(close.error_code) {
                Some(Alert::Certificate(fault)) => LinkError::AgentCertificate { fault, detail },
                Some(Alert::Protocol) => LinkError::OtherProtocol,
                None => LinkError::Closed { reason: close.to_string() },
            }
        }
        ConnectionError::ApplicationClosed(close) => {
            LinkError::Closed { reason: String::from_utf8_lossy(&close.reason).into_owned() }
        }
        ConnectionError::Reset => LinkError::Reset,
        ConnectionError::TimedOut => LinkError::Lapsed,
        ConnectionError::VersionMismatch
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => LinkError::Lost { reason: error.to_string() },
    }
}

/// What a TLS alert means for a link.
enum Alert {
    Certificate(CertificateFault),
    Protocol,
}

impl Alert {
    /// QUIC carries alert N as error 0x100 + N (RFC 9001, section 4.8).
    fn of(code: TransportErrorCode) -> Option<Self> {
        let alert = u8::try_from(u64::from(code).checked_sub(0x100)?).ok()?;
        if alert == 120 {
            return Some(Self::Protocol);
        }
        CertificateFault::of_alert(alert).map(Self::Certificate)
    }
}
