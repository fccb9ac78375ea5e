//! What the other end showed of itself, for the log: a handshake that fails leaves only an error, and that
//! does not say whose certificate it was about.
//!
//! **Owns** notes on refused certificates, and certificates in words. **Does not own** the judgement: it is
//! `webpki`'s, and passes through unchanged.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::EndEntityCert;

use super::expiry::{minute, validity};
use super::fault::CertificateFault;
use crate::time::Timestamp;

/// Of a certificate's names at most this many are told, each up to so many characters.
const NAMES_TOLD_MAX: usize = 4;
const NAME_CHARACTERS_TOLD_MAX: usize = 160;

/// A certificate in words. Whoever showed it may have no business here, so its names are told escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    names: Vec<String>,
    validity: Option<(Timestamp, Timestamp)>,
}

impl Shown {
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let names = match EndEntityCert::try_from(certificate) {
            Ok(read) => read
                .valid_uri_names()
                .chain(read.valid_dns_names())
                .take(NAMES_TOLD_MAX)
                .map(|name| name.escape_default().take(NAME_CHARACTERS_TOLD_MAX).collect())
                .collect(),
            Err(_) => Vec::new(),
        };
        Self { names, validity: validity(certificate) }
    }

    /// The last instant at which it is valid, if that can be read.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.validity.map(|(_, until)| until)
    }

    /// The first certificate of a chain: that of its end.
    #[must_use]
    pub fn first_of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        chain.first().map(Self::of)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names.as_slice() {
            [] => f.write_str("without a name")?,
            names => write!(f, "for {}", names.join(", "))?,
        }
        match self.validity {
            Some((from, until)) => write!(f, ", valid from {} to {}", minute(from), minute(until)),
            None => f.write_str(", which cannot be read"),
        }
    }
}

/// A certificate that this end has refused. As text it follows the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub fault: CertificateFault,
    pub shown: Shown,
    /// What the check said.
    pub detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shown)?;
        match self.fault {
            CertificateFault::OtherName
            | CertificateFault::OtherUse
            | CertificateFault::NotAccepted => write!(f, " ({})", self.detail),
            CertificateFault::Expired
            | CertificateFault::NotYetValid
            | CertificateFault::ExpiredOrNotYetValid
            | CertificateFault::UnknownAuthority
            | CertificateFault::OtherSignature
            | CertificateFault::Revoked
            | CertificateFault::Missing => Ok(()),
        }
    }
}

/// Where one handshake notes the certificate that it refuses.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<OnceLock<Refused>>);

impl Notes {
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        self.0.get()
    }

    fn note<T>(
        &self,
        certificate: &CertificateDer<'_>,
        judged: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(Error::InvalidCertificate(error)) = &judged {
            // A handshake looks at one certificate; a second judgement would say the same.
            self.0.get_or_init(|| Refused {
                fault: CertificateFault::of_error(error),
                shown: Shown::of(certificate),
                detail: error.to_string(),
            });
        }
        judged
    }
}

/// Judges clients, and notes whom it refuses.
#[derive(Debug)]
pub(super) struct NotedClients {
    pub(super) judge: Arc<dyn ClientCertVerifier>,
    pub(super) notes: Notes,
}

impl ClientCertVerifier for NotedClients {
    fn offer_client_auth(&self) -> bool {
        self.judge.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.judge.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.judge.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = self.judge.verify_client_cert(end_entity, intermediates, now);
        self.notes.note(end_entity, judged)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.judge.requires_raw_public_keys()
    }
}

/// Judges servers, and notes whom it refuses.
#[derive(Debug)]
pub(super) struct NotedServers {
    pub(super) judge: Arc<dyn ServerCertVerifier>,
    pub(super) notes: Notes,
}

impl ServerCertVerifier for NotedServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.judge.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        self.notes.note(end_entity, judged)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.judge.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.judge.root_hint_subjects()
    }
}
