//! Why a handshake failed, in words: who refused whose certificate, what it is, and what to do.
//!
//! With TLS 1.3 an agent that is refused sees its connection succeed, and is told by its first read. So
//! both ends log: this one what it refused, or what it was told of its own certificate.

use std::fmt;
use std::io;

use quinn::ConnectionError;
use rustls::Error as TlsError;
use tidemark_common::tls::{Alert, CertificateFault, Notes, Shown};

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This end refuses the peer's certificate.
    Theirs {
        fault: CertificateFault,
        told: String,
    },
    /// The peer refuses this end's.
    Ours {
        fault: CertificateFault,
        shown: Option<Shown>,
    },
    NoTls13,
    OtherProtocol,
    TooLong,
    Other {
        reason: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Theirs { fault: CertificateFault::Missing, .. } => f.write_str(
                "the peer's certificate is missing (an agent shows one: uplink.certificate)",
            ),
            Self::Theirs { fault, told } => {
                write!(f, "the peer's certificate {fault}: {told}")
            }
            Self::Ours { fault, shown } => {
                write!(f, "the peer says that this collector's certificate {fault}")?;
                match shown {
                    Some(shown) => write!(f, ": {shown}"),
                    None => Ok(()),
                }
            }
            Self::NoTls13 => f.write_str("the peer does not speak TLS 1.3: is it an agent?"),
            Self::OtherProtocol => {
                f.write_str("the peer does not speak tidemark/1: is it an agent?")
            }
            Self::TooLong => f.write_str("it took too long"),
            Self::Other { reason } => f.write_str(reason),
        }
    }
}

impl Refusal {
    pub(super) fn of_quic(error: &ConnectionError, notes: &Notes, own: Option<&Shown>) -> Self {
        let other = || Self::Other { reason: error.to_string() };
        match error {
            ConnectionError::TransportError(error) => {
                Self::here(Alert::of_quic(error.code.into()), notes).unwrap_or_else(other)
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::there(Alert::of_quic(close.error_code.into()), own).unwrap_or_else(other)
            }
            ConnectionError::VersionMismatch
            | ConnectionError::ApplicationClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => other(),
        }
    }

    pub(super) fn of_tcp(error: &io::Error, notes: &Notes, own: Option<&Shown>) -> Self {
        let other = || Self::Other { reason: error.to_string() };
        match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            Some(TlsError::AlertReceived(alert)) => {
                Self::there(Alert::of(u8::from(*alert)), own).unwrap_or_else(other)
            }
            Some(TlsError::NoCertificatesPresented) => {
                Self::Theirs { fault: CertificateFault::Missing, told: String::new() }
            }
            Some(TlsError::PeerIncompatible(_)) => Self::NoTls13,
            Some(TlsError::NoApplicationProtocol) => Self::OtherProtocol,
            Some(_) | None => Self::here(None, notes).unwrap_or_else(other),
        }
    }

    /// This end ended the handshake, with `alert` if it was TLS that did.
    fn here(alert: Option<Alert>, notes: &Notes) -> Option<Self> {
        match notes.refused() {
            Some(refused) => Some(Self::Theirs { fault: refused.fault, told: refused.to_string() }),
            None => Some(match alert? {
                Alert::Certificate(fault) => Self::Theirs { fault, told: String::new() },
                Alert::Version => Self::NoTls13,
                Alert::Protocol => Self::OtherProtocol,
            }),
        }
    }

    /// The peer ended it, with `alert` if it was TLS that did.
    fn there(alert: Option<Alert>, own: Option<&Shown>) -> Option<Self> {
        Some(match alert? {
            Alert::Certificate(fault) => Self::Ours { fault, shown: own.cloned() },
            Alert::Version => Self::NoTls13,
            Alert::Protocol => Self::OtherProtocol,
        })
    }
}
