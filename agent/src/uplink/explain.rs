//! What ended a link, in words: from the errors of both transports.
//!
//! Who refused whose certificate shows in who closed: this end with an error of its own, or the
//! collector with a TLS alert.

use std::io;

use quinn::{ConnectionError, ReadError, WriteError};
use rustls::Error as TlsError;

use tidemark_common::tls::{Alert, CertificateFault, Notes};

use super::LinkError;

pub(super) fn read(error: ReadError) -> LinkError {
    match error {
        ReadError::ConnectionLost(error) => quic(error),
        error => LinkError::Lost { reason: error.to_string() },
    }
}

pub(super) fn write(error: WriteError) -> LinkError {
    match error {
        WriteError::ConnectionLost(error) => quic(error),
        error => LinkError::Lost { reason: error.to_string() },
    }
}

/// Why a handshake failed: `notes` know more of a certificate that this end has refused.
pub(super) fn noted(error: LinkError, notes: &Notes) -> LinkError {
    match notes.refused() {
        Some(refused) => {
            LinkError::CollectorCertificate { fault: refused.fault, detail: refused.to_string() }
        }
        None => error,
    }
}

/// The end of a QUIC connection.
pub(super) fn quic(error: ConnectionError) -> LinkError {
    match error {
        ConnectionError::TransportError(error) => {
            let detail = error.reason.clone();
            match Alert::of_quic(error.code.into()) {
                Some(Alert::Certificate(fault)) => {
                    LinkError::CollectorCertificate { fault, detail }
                }
                Some(Alert::Protocol) => LinkError::OtherProtocol,
                Some(Alert::Version) => LinkError::OldTls,
                None => LinkError::Lost { reason: error.to_string() },
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let detail = String::from_utf8_lossy(&close.reason).into_owned();
            match Alert::of_quic(close.error_code.into()) {
                Some(alert) => told(alert, detail),
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

/// The end of a TLS connection over TCP.
pub(super) fn tcp(error: &io::Error) -> LinkError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match tls {
        Some(TlsError::AlertReceived(alert)) => match Alert::of(u8::from(*alert)) {
            Some(alert) => told(alert, String::new()),
            None => LinkError::Closed { reason: error.to_string() },
        },
        Some(TlsError::InvalidCertificate(found)) => LinkError::CollectorCertificate {
            fault: CertificateFault::of_error(found),
            detail: error.to_string(),
        },
        Some(TlsError::NoApplicationProtocol) => LinkError::OtherProtocol,
        Some(TlsError::PeerIncompatible(_)) => LinkError::OldTls,
        Some(other) => LinkError::Lost { reason: other.to_string() },
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof => LinkError::Closed { reason: String::new() },
            io::ErrorKind::TimedOut => LinkError::Lapsed,
            _ => LinkError::Lost { reason: error.to_string() },
        },
    }
}

/// What the collector's alert says to this end.
fn told(alert: Alert, detail: String) -> LinkError {
    match alert {
        Alert::Certificate(fault) => LinkError::AgentCertificate { fault, detail },
        Alert::Protocol => LinkError::OtherProtocol,
        Alert::Version => LinkError::OldTls,
    }
}
