//! What is wrong with a certificate, in words that say what to do.
//!
//! An end that refuses a certificate knows exactly why; the other end is told by a TLS alert, which says
//! less. Both are put into the same words.

use std::fmt;

use rustls::{AlertDescription, CertificateError};

/// What is wrong with a certificate, in words that follow "certificate".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFault {
    Expired,
    NotYetValid,
    /// The alert does not tell which.
    ExpiredOrNotYetValid,
    UnknownAuthority,
    OtherSignature,
    OtherName,
    OtherUse,
    Revoked,
    Missing,
    NotAccepted,
}

/// What a TLS alert says to the end that receives it (RFC 8446, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    Certificate(CertificateFault),
    /// The other end speaks no TLS version of this one.
    Version,
    /// The other end does not speak [`crate::wire::ALPN`].
    Protocol,
}

impl Alert {
    /// `None` if it speaks of something else.
    #[must_use]
    pub fn of(alert: u8) -> Option<Self> {
        match alert {
            70 => Some(Self::Version),
            120 => Some(Self::Protocol),
            _ => CertificateFault::of_alert(alert).map(Self::Certificate),
        }
    }

    /// QUIC carries alert N as error 0x100 + N (RFC 9001, section 4.8).
    #[must_use]
    pub fn of_quic(error: u64) -> Option<Self> {
        Self::of(u8::try_from(error.checked_sub(0x100)?).ok()?)
    }
}

impl CertificateFault {
    /// What a TLS alert says of the certificate; `None` if it speaks of something else.
    #[must_use]
    pub fn of_alert(alert: u8) -> Option<Self> {
        // RFC 8446, section 6.
        match alert {
            45 => Some(Self::ExpiredOrNotYetValid),
            48 => Some(Self::UnknownAuthority),
            51 => Some(Self::OtherSignature),
            44 => Some(Self::Revoked),
            43 => Some(Self::OtherUse),
            116 => Some(Self::Missing),
            42 | 46 | 49 => Some(Self::NotAccepted),
            _ => None,
        }
    }

    /// What this end's own check says of the certificate.
    #[must_use]
    pub fn of_error(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName
            }
            other => Self::of_alert(u8::from(AlertDescription::from(other.clone())))
                .unwrap_or(Self::NotAccepted),
        }
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "has expired (renew it; if it should be valid, look at both clocks)",
            Self::NotYetValid => "is not valid yet (look at both clocks, or wait)",
            Self::ExpiredOrNotYetValid => {
                "has expired or is not valid yet (look at both clocks, or renew it)"
            }
            Self::UnknownAuthority => {
                "is signed by an unknown CA (compare the CA files of both ends)"
            }
            Self::OtherSignature => {
                "is signed by a CA of the right name with another key (was the CA made anew?)"
            }
            Self::OtherName => {
                "is for another name (correct the address, or set uplink.server_name, or issue it anew)"
            }
            Self::OtherUse => {
                "is for another use (an agent's must be for clients, a collector's for servers: were the two mixed up?)"
            }
            Self::Revoked => "is revoked (issue another)",
            Self::Missing => "is missing (configure it)",
            Self::NotAccepted => "is not accepted (the other end's log says why)",
        })
    }
}
