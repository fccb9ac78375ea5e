//! Moves frames between the session and a collector, and decides nothing.
//!
//! **Owns** finding a collector's addresses, and what can go wrong with a link, in words for people.
//! **Does not own** when to connect, what to send, or what a frame means.
//!
//! "Connected" here means that a link can carry frames. Whether the collector lets this agent in is
//! known only with its Welcome: with TLS 1.3 a client whose certificate is refused connects first and
//! is told at its first read.

pub mod quic;

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tidemark_common::tls::TlsError;
use tidemark_common::wire::FrameError;

/// Of the addresses that a collector's name stands for, at most this many are tried.
pub const ADDRESSES_MAX: usize = 4;

/// What is wrong with a certificate, in words that follow "certificate".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFault {
    Expired,
    UnknownAuthority,
    OtherSignature,
    Revoked,
    Missing,
    NotAccepted,
}

impl CertificateFault {
    /// What a TLS alert says of the certificate; `None` if it speaks of something else.
    #[must_use]
    pub fn of_alert(alert: u8) -> Option<Self> {
        // RFC 8446, section 6.
        match alert {
            45 => Some(Self::Expired),
            48 => Some(Self::UnknownAuthority),
            51 => Some(Self::OtherSignature),
            44 => Some(Self::Revoked),
            116 => Some(Self::Missing),
            42 | 43 | 46 | 49 => Some(Self::NotAccepted),
            _ => None,
        }
    }
}

impl std::fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "has expired or is not valid yet (look at both clocks, or renew it)",
            Self::UnknownAuthority => {
                "is signed by an unknown CA (compare the CA files of both ends)"
            }
            Self::OtherSignature => {
                "is signed by a CA of the right name with another key (was the CA made anew?)"
            }
            Self::Revoked => "is revoked",
            Self::Missing => "is missing",
            Self::NotAccepted => "is not accepted",
        })
    }
}

/// Why there is no link, or no longer one.
#[derive(Debug, Error)]
pub enum LinkError {
    #[error("failed to find the collector's address: {0}")]
    Resolve(std::io::Error),
    #[error("failed to find the collector's address: the name stands for none")]
    NoAddress,
    #[error("failed to open a UDP socket: {0}")]
    Socket(std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("failed to connect: {reason}")]
    Start { reason: String },
    #[error(
        "failed to connect: no answer from {address} within {} ms; is the collector running there, and may UDP pass?",
        .after.as_millis()
    )]
    NoAnswer { address: SocketAddr, after: Duration },
    #[error("failed to trust the collector: its certificate {fault}: {detail}")]
    CollectorCertificate { fault: CertificateFault, detail: String },
    #[error(
        "failed to be let in: the collector says that this agent's certificate {fault}: {detail}"
    )]
    AgentCertificate { fault: CertificateFault, detail: String },
    #[error(
        "failed to agree on a protocol: the other end does not speak tidemark/1; is it a collector?"
    )]
    OtherProtocol,
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

/// The addresses that `collector` (`host:port`) stands for now.
///
/// # Errors
/// A name that cannot be resolved, or stands for nothing.
pub async fn resolve(collector: &str) -> Result<Vec<SocketAddr>, LinkError> {
    let found = tokio::net::lookup_host(collector).await.map_err(LinkError::Resolve)?;
    let addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        return Err(LinkError::NoAddress);
    }
    Ok(addresses)
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
