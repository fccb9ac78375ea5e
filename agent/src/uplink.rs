//! Moves frames between the session and a collector, and decides nothing.
//!
//! ```text
//! chooser   which collector, and over what          quic, tcp   the two transports
//! connect   its addresses and transports, raced     link        frames in, frames out
//! ```
//! **Owns** what can go wrong with a link, in words for people. **Does not own** when to connect, what
//! to send, or what a frame means.
//!
//! "Connected" here means that a link can carry frames. Whether the collector lets this agent in is
//! known only with its Welcome: with TLS 1.3 a client whose certificate is refused connects first and
//! is told at its first read.

pub mod chooser;
pub mod connect;
mod explain;
pub mod link;
mod quic;
mod tcp;

#[cfg(test)]
pub(crate) mod peer;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tidemark_common::tls::{CertificateFault, TlsError};
use tidemark_common::wire::FrameError;

use self::chooser::Transport;

/// How long the parts of a link may take.
#[derive(Debug, Clone, Copy)]
pub struct LinkTimes {
    /// One address is tried for this long over one transport, and a name is looked up for this long.
    pub connect_max: Duration,
    /// A transport that finds silence is alone for this long; then the other one is tried beside it.
    pub transport_head_start: Duration,
    /// An idle link is kept open by a packet this often.
    pub keep_alive: Duration,
    /// A link that hears nothing for this long is given up.
    pub idle_max: Duration,
}

impl Default for LinkTimes {
    fn default() -> Self {
        Self {
            connect_max: Duration::from_secs(5),
            transport_head_start: Duration::from_secs(2),
            keep_alive: Duration::from_secs(5),
            idle_max: Duration::from_secs(15),
        }
    }
}

/// Why there is no link, or no longer one.
#[derive(Debug, Error)]
pub enum LinkError {
    #[error("failed to find the collector's address: {0}")]
    Resolve(std::io::Error),
    #[error("failed to find the collector's address: the name stands for none")]
    NoAddress,
    #[error("failed to find the collector's address: no answer within {} ms; does the name server answer?", .after.as_millis())]
    ResolveOverdue { after: Duration },
    #[error("failed to open a UDP socket: {0}")]
    Socket(std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("failed to connect: {reason}")]
    Start { reason: String },
    #[error(
        "failed to connect: no answer from {address} over {} within {} ms; is the collector running there, and may {} pass?",
        .transport.name(), .after.as_millis(), packets(*.transport)
    )]
    NoAnswer { transport: Transport, address: SocketAddr, after: Duration },
    #[error("failed to connect to {address} over tcp: {reason}")]
    Refused { address: SocketAddr, reason: String },
    #[error("{first}; {second}")]
    Neither { first: Box<Self>, second: Box<Self> },
    #[error("failed to trust the collector: its certificate {fault}: {detail}")]
    CollectorCertificate { fault: CertificateFault, detail: String },
    #[error(
        "failed to be let in: the collector says that this agent's certificate {fault}{}", after_colon(.detail)
    )]
    AgentCertificate { fault: CertificateFault, detail: String },
    #[error(
        "failed to agree on a protocol: the other end does not speak tidemark/1; is it a collector?"
    )]
    OtherProtocol,
    #[error(
        "failed to agree on a protocol: the other end does not speak TLS 1.3; is it a collector?"
    )]
    OldTls,
    #[error("failed to keep the connection: nothing was heard for too long")]
    Lapsed,
    #[error("failed to keep the connection: the collector has restarted")]
    Reset,
    #[error("failed to keep the connection: the collector closed it{}", after_colon(.reason))]
    Closed { reason: String },
    #[error("failed to keep the connection: {reason}")]
    Lost { reason: String },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl LinkError {
    /// Whether this end has heard nothing at all, so that another transport or address may do better. Where UDP
    /// sockets are forbidden, QUIC is never sent, and TCP may be allowed.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        match self {
            Self::NoAddress
            | Self::Socket(_)
            | Self::NoAnswer { .. }
            | Self::Refused { .. }
            | Self::Neither { .. }
            | Self::Lapsed => true,
            Self::Resolve(_)
            | Self::ResolveOverdue { .. }
            | Self::Tls(_)
            | Self::Start { .. }
            | Self::CollectorCertificate { .. }
            | Self::AgentCertificate { .. }
            | Self::OtherProtocol
            | Self::OldTls
            | Self::Reset
            | Self::Closed { .. }
            | Self::Lost { .. }
            | Self::Frame(_) => false,
        }
    }

    /// What is told where both transports failed: what was said, or both silences.
    fn neither(first: Self, second: Self) -> Self {
        if second.is_silence() {
            Self::Neither { first: Box::new(first), second: Box::new(second) }
        } else {
            second
        }
    }
}

fn packets(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "UDP",
        Transport::Tcp => "TCP",
    }
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
