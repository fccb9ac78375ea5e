//! Why a handshake failed, in words: who refused whose certificate, what it is, and what to do.
//!
//! With TLS 1.3 an agent that is refused sees its connection succeed, and is told by its first read. So
//! both ends log: this one what it refused, or what it was told of its own certificate.

use std::fmt;
use std::io;

use quinn::{ConnectionError, TransportErrorCode};
use rustls::Error as TlsError;
use tidemark_common::tls::{CertificateFault, Notes, Shown};

/// TLS alerts that speak of no certificate (RFC 8446, section 6).
const PROTOCOL_VERSION: u8 = 70;
const NO_APPLICATION_PROTOCOL: u8 = 120;

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
                Self::here(alert(error.code), notes).unwrap_or_else(other)
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::there(alert(close.error_code), own).unwrap_or_else(other)
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
                Self::there(Some(u8::from(*alert)), own).unwrap_or_else(other)
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
    fn here(alert: Option<u8>, notes: &Notes) -> Option<Self> {
        if let Some(refused) = notes.refused() {
            return Some(Self::Theirs { fault: refused.fault, told: refused.to_string() });
        }
        Self::without_certificate(alert?).or_else(|| {
            let fault = CertificateFault::of_alert(alert?)?;
            Some(Self::Theirs { fault, told: String::new() })
        })
    }

    /// The peer ended it, with `alert` if it was TLS that did.
    fn there(alert: Option<u8>, own: Option<&Shown>) -> Option<Self> {
        Self::without_certificate(alert?).or_else(|| {
            let fault = CertificateFault::of_alert(alert?)?;
            Some(Self::Ours { fault, shown: own.cloned() })
        })
    }

    fn without_certificate(alert: u8) -> Option<Self> {
        match alert {
            PROTOCOL_VERSION => Some(Self::NoTls13),
            NO_APPLICATION_PROTOCOL => Some(Self::OtherProtocol),
            _ => None,
        }
    }
}

/// QUIC carries alert N as error 0x100 + N (RFC 9001, section 4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    u8::try_from(u64::from(code).checked_sub(0x100)?).ok()
}
