//! Identities and certificates, the same way at both ends.
//!
//! TLS 1.3 only, certificates on both sides, ring as the one crypto provider (passed explicitly: no
//! process-wide default that a second dependency could take first). An agent is who its certificate
//! says: the URI `tidemark://agent/NAME` among the subject's alternative names, which survives
//! renewal of the certificate. `tidemark://drainer/NAME` names a drainer, which ships the journals that
//! agents left behind.
//!
//! **Owns** the rules of who may speak, and the TLS settings. **Does not own** files (callers pass
//! PEM bytes), sockets, or what a name may do.
//!
//! Sessions are never resumed: a resumed one would not look at the certificate again, and an agent
//! whose certificate has expired could go on for ever.

mod expiry;
mod fault;
mod seen;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::id::NameError;
use crate::wire::ALPN;

pub use expiry::{not_after, now};
pub use fault::{Alert, CertificateFault};
use seen::{NotedClients, NotedServers};
pub use seen::{Notes, Refused, Shown};

/// An agent's name is at most this many bytes.
pub const AGENT_NAME_BYTES_MAX: usize = 128;
/// What an agent's certificate calls it, before its name.
const AGENT_URI: &str = "tidemark://agent/";
/// What a drainer's certificate calls it, before its name.
const DRAINER_URI: &str = "tidemark://drainer/";
/// What a drainer's identity begins with: no agent's name holds a colon.
const DRAINER_PREFIX: &str = "drainer:";

/// One end's certificates and key, as the PEM bytes of three files.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The authorities that the other end's certificate must be signed by.
    pub ca: Vec<u8>,
    /// This end's certificate, then any intermediate ones.
    pub certificate: Vec<u8>,
    /// This end's private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem")
            .field("ca_bytes", &self.ca.len())
            .field("certificate_bytes", &self.certificate.len())
            .finish_non_exhaustive()
    }
}

/// Which of the three PEM texts an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemPart {
    Authority,
    Certificate,
    Key,
}

impl fmt::Display for PemPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority => "CA certificate",
            Self::Certificate => "certificate",
            Self::Key => "private key",
        })
    }
}

/// Why certificates cannot be used, or do not say who somebody is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    #[error("failed to read the {part}: {reason}; is it a PEM file?")]
    Pem { part: PemPart, reason: String },
    #[error("failed to find a {part}: the file holds no such PEM section")]
    Missing { part: PemPart },
    #[error("failed to use the {part}: {reason}")]
    Unusable { part: PemPart, reason: String },
    #[error("failed to identify the agent: it showed no certificate")]
    NoCertificate,
    #[error("failed to identify the agent: its certificate cannot be read: {reason}")]
    Unreadable { reason: String },
    #[error(
        "failed to identify the agent: its certificate has no URI name {AGENT_URI}NAME or {DRAINER_URI}NAME"
    )]
    NoAgentName,
    #[error(
        "failed to identify the agent: its certificate has {names} names {AGENT_URI}... or {DRAINER_URI}..., where \
         one is due"
    )]
    ManyAgentNames { names: usize },
    #[error("failed to identify the agent: the name {name:?} in its certificate {error}")]
    BadAgentName { name: String, error: NameError },
}

/// Who an agent is, from its certificate: 1-128 of `[A-Za-z0-9._-]`; a drainer's stands behind `drainer:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentName(String);

impl AgentName {
    /// # Errors
    /// Says what about `text` is not an agent's name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.len() {
            0 => return Err(NameError::Empty),
            bytes if bytes > AGENT_NAME_BYTES_MAX => {
                return Err(NameError::TooLong { bytes, bytes_max: AGENT_NAME_BYTES_MAX });
            }
            _ => {}
        }
        let allowed =
            |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        match text.chars().find(|character| !allowed(*character)) {
            Some(found) => Err(NameError::Character { found }),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The identity of the drainer called `text`.
    ///
    /// # Errors
    /// Says what about `text` is not a name.
    pub fn parse_drainer(text: &str) -> Result<Self, NameError> {
        Self::parse(text).map(|name| Self(format!("{DRAINER_PREFIX}{}", name.0)))
    }

    /// Reads back what [`Self::as_str`] gave, of a drainer too.
    ///
    /// # Errors
    /// Says what about `text` is no identity.
    pub fn parse_identity(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix(DRAINER_PREFIX) {
            Some(name) => Self::parse_drainer(name),
            None => Self::parse(text),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in the certificate, without the role.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.strip_prefix(DRAINER_PREFIX).unwrap_or(&self.0)
    }

    /// Whether this is a drainer, which may ship the streams of others.
    #[must_use]
    pub fn is_drainer(&self) -> bool {
        self.0.starts_with(DRAINER_PREFIX)
    }

    /// The URI that stands for this identity in its certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        let role = if self.is_drainer() { DRAINER_URI } else { AGENT_URI };
        format!("{role}{}", self.name())
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The collector's side of TLS: agents must show a certificate that its CA signed.
#[derive(Debug, Clone)]
pub struct ServerTls {
    judge: Arc<dyn ClientCertVerifier>,
    key: Arc<dyn ResolvesServerCert>,
    shown: Option<Shown>,
}

impl ServerTls {
    /// # Errors
    /// Names the part of `pem` that cannot be used.
    pub fn new(pem: &Pem) -> Result<Self, TlsError> {
        let roots = Arc::new(authorities(pem)?);
        let judge = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| unusable(PemPart::Authority, &error))?;
        let chain = chain(pem)?;
        let shown = Shown::first_of(&chain);
        let key = CertifiedKey::from_der(chain, key(pem)?, &provider())
            .map_err(|error| unusable(PemPart::Certificate, &error))?;
        Ok(Self { judge, key: Arc::new(SingleCertAndKey::from(key)), shown })
    }

    /// The certificate that it shows, in words.
    #[must_use]
    pub fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    /// The settings of one connection, whose refusals `notes` tells of.
    ///
    /// # Errors
    /// If the crypto provider has no TLS 1.3.
    pub fn config(&self, notes: &Notes) -> Result<ServerConfig, TlsError> {
        let judge = NotedClients { judge: Arc::clone(&self.judge), notes: notes.clone() };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(PemPart::Key, &error))?
            .with_client_cert_verifier(Arc::new(judge))
            .with_cert_resolver(Arc::clone(&self.key));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// The collector's TLS settings, for whoever does not ask what is refused.
///
/// # Errors
/// Names the part of `pem` that cannot be used.
pub fn server_config(pem: &Pem) -> Result<ServerConfig, TlsError> {
    ServerTls::new(pem)?.config(&Notes::default())
}

/// The agent's TLS settings: it shows its certificate and trusts a collector that `pem.ca` signed.
///
/// # Errors
/// Names the part of `pem` that cannot be used.
pub fn client_config(pem: &Pem) -> Result<ClientConfig, TlsError> {
    client_config_noting(pem, &Notes::default())
}

/// The same for one connection, whose refusals `notes` tells of.
///
/// # Errors
/// Names the part of `pem` that cannot be used.
pub fn client_config_noting(pem: &Pem, notes: &Notes) -> Result<ClientConfig, TlsError> {
    let judge =
        WebPkiServerVerifier::builder_with_provider(Arc::new(authorities(pem)?), provider())
            .build()
            .map_err(|error| unusable(PemPart::Authority, &error))?;
    let judge = NotedServers { judge, notes: notes.clone() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(PemPart::Key, &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge))
        .with_client_auth_cert(chain(pem)?, key(pem)?)
        .map_err(|error| unusable(PemPart::Certificate, &error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Who the agent with this verified chain is. The chain's first certificate is its own.
///
/// # Errors
/// A certificate without exactly one valid `tidemark://agent/NAME` or `tidemark://drainer/NAME`: guessing
/// which of two identities is meant would bill the wrong one.
pub fn agent_name(chain: &[CertificateDer<'_>]) -> Result<AgentName, TlsError> {
    let own = chain.first().ok_or(TlsError::NoCertificate)?;
    let certificate = EndEntityCert::try_from(own)
        .map_err(|error| TlsError::Unreadable { reason: error.to_string() })?;
    let names: Vec<&str> = certificate
        .valid_uri_names()
        .filter(|uri| uri.starts_with(AGENT_URI) || uri.starts_with(DRAINER_URI))
        .collect();
    let [uri] = names.as_slice() else {
        return Err(match names.len() {
            0 => TlsError::NoAgentName,
            names => TlsError::ManyAgentNames { names },
        });
    };
    let (name, parsed) = match (uri.strip_prefix(AGENT_URI), uri.strip_prefix(DRAINER_URI)) {
        (Some(name), _) => (name, AgentName::parse(name)),
        (None, Some(name)) => (name, AgentName::parse_drainer(name)),
        (None, None) => return Err(TlsError::NoAgentName),
    };
    parsed.map_err(|error| TlsError::BadAgentName { name: name.to_owned(), error })
}

/// The certificates of a PEM text, in its order: for [`agent_name`] and [`not_after`] of one's own.
///
/// # Errors
/// A text without a certificate.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(pem, PemPart::Certificate)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn authorities(pem: &Pem) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in sections(&pem.ca, PemPart::Authority)? {
        store.add(certificate).map_err(|error| unusable(PemPart::Authority, &error))?;
    }
    Ok(store)
}

fn chain(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(&pem.certificate, PemPart::Certificate)
}

fn key(pem: &Pem) -> Result<PrivateKeyDer<'static>, TlsError> {
    let part = PemPart::Key;
    PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Missing { part },
        error => TlsError::Pem { part, reason: error.to_string() },
    })
}

fn sections(pem: &[u8], part: PemPart) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { part, reason: error.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::Missing { part });
    }
    Ok(found)
}

fn unusable(part: PemPart, error: &dyn std::error::Error) -> TlsError {
    TlsError::Unusable { part, reason: error.to_string() }
}
