//! Certificates for local use: a CA, the collector's and one for each agent and drainer.
//!
//! ```text
//! DIR/ca.pem         ca.key          signs the others
//! DIR/collector.pem  collector.key   DNS localhost, IP 127.0.0.1 and ::1, and the hosts that are given
//! DIR/NAME.pem       NAME.key        URI tidemark://agent/NAME, or tidemark://drainer/NAME
//! ```
//!
//! **Owns** these files; keys can be read by their owner only. **Does not own** a way to renew or
//! revoke them: they are for development, and last [`VALID_DAYS`] days.
//!
//! Nothing is overwritten unless asked for, since an agent is known by its certificate's CA.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::ToSpan;
use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::ServerName;
use thiserror::Error;

use tidemark_common::tls::AgentName;

/// The certificates last this many days.
pub const VALID_DAYS: i32 = 365;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;
/// Names of files that are not an agent's.
const RESERVED: [&str; 2] = ["ca", "collector"];

/// Whether files that are there already are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Keep,
    Overwrite,
}

/// Failed to make certificates.
#[derive(Debug, Error)]
pub enum DevCertsError {
    #[error("failed to make certificates: {} exists; give another folder, or --force to replace it", path.display())]
    Exists { path: PathBuf },
    #[error(
        "failed to make certificates: the name {name:?} is taken here; give the agent or drainer another name"
    )]
    Reserved { name: String },
    #[error(
        "failed to make certificates: {host:?} is no host; give a DNS name or an IP address, without a port"
    )]
    Host { host: String },
    #[error("failed to write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("failed to date the certificates: {0}")]
    Date(#[from] jiff::Error),
}

/// A file to be written.
struct File {
    path: PathBuf,
    mode: u32,
    pem: String,
}

/// Makes all certificates in `folder`, the collector's for `hosts` too, valid from the day before `today`, and names the files.
///
/// # Errors
/// See [`DevCertsError`]; nothing is written if any of the files exists and is to be kept.
pub fn make(
    folder: &Path,
    agents: &[AgentName],
    hosts: &[String],
    existing: Existing,
    today: Date,
) -> Result<Vec<PathBuf>, DevCertsError> {
    let mut taken = RESERVED.to_vec();
    for name in agents.iter().map(AgentName::name) {
        if taken.contains(&name) {
            return Err(DevCertsError::Reserved { name: name.to_owned() });
        }
        taken.push(name);
    }
    let files = files(folder, agents, hosts, today)?;
    if existing == Existing::Keep
        && let Some(file) = files.iter().find(|file| file.path.exists())
    {
        return Err(DevCertsError::Exists { path: file.path.clone() });
    }
    fs::create_dir_all(folder)
        .map_err(|source| DevCertsError::Write { path: folder.to_owned(), source })?;
    for file in &files {
        write(file).map_err(|source| DevCertsError::Write { path: file.path.clone(), source })?;
    }
    Ok(files.into_iter().map(|file| file.path).collect())
}

fn files(
    folder: &Path,
    agents: &[AgentName],
    hosts: &[String],
    today: Date,
) -> Result<Vec<File>, DevCertsError> {
    let authority = authority(today)?;
    let mut files = pair(folder, "ca", authority.pem(), authority.key());
    let mut issue = |name: &str, names: Vec<SanType>, usage| -> Result<(), DevCertsError> {
        let key = KeyPair::generate()?;
        let mut params = params(name, today)?;
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &authority)?;
        files.extend(pair(folder, name, certificate.pem(), &key));
        Ok(())
    };
    let mut names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    for host in hosts {
        let name = named(host)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    issue("collector", names, ExtendedKeyUsagePurpose::ServerAuth)?;
    for agent in agents {
        issue(
            agent.name(),
            vec![SanType::URI(agent.uri().try_into()?)],
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;
    }
    Ok(files)
}

/// A name that agents may find in the collector's certificate.
fn named(host: &str) -> Result<SanType, DevCertsError> {
    match ServerName::try_from(host) {
        Ok(ServerName::DnsName(name)) => Ok(SanType::DnsName(name.as_ref().try_into()?)),
        Ok(ServerName::IpAddress(address)) => Ok(SanType::IpAddress(address.into())),
        Ok(_) | Err(_) => Err(DevCertsError::Host { host: host.to_owned() }),
    }
}

fn authority(today: Date) -> Result<CertifiedIssuer<'static, KeyPair>, DevCertsError> {
    let mut params = params("ca", today)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn params(name: &str, today: Date) -> Result<CertificateParams, DevCertsError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Tidemark development");
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let day = |date: Date| {
        let [month, day] = [date.month(), date.day()].map(|part| u8::try_from(part).unwrap_or(1));
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    // Another machine's clock may be behind this one's.
    params.not_before = day(today.yesterday()?);
    params.not_after = day(today.checked_add(VALID_DAYS.days())?);
    Ok(params)
}

fn pair(folder: &Path, name: &str, certificate: String, key: &KeyPair) -> Vec<File> {
    vec![
        File { path: folder.join(format!("{name}.pem")), mode: CERTIFICATE_MODE, pem: certificate },
        File { path: folder.join(format!("{name}.key")), mode: KEY_MODE, pem: key.serialize_pem() },
    ]
}

/// A file that exists is removed first, so that its permissions cannot survive.
fn write(file: &File) -> io::Result<()> {
    match fs::remove_file(&file.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut handle =
        OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&file.path)?;
    handle.write_all(file.pem.as_bytes())?;
    handle.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tidemark_common::tls::{self, Pem};

    use super::*;

    fn today() -> Date {
        jiff::civil::date(2026, 3, 1)
    }

    fn agents(names: &[&str]) -> Vec<AgentName> {
        names.iter().map(|name| AgentName::parse(name).unwrap()).collect()
    }

    fn pem(folder: &Path, name: &str) -> Pem {
        let read = |file: String| fs::read(folder.join(file)).unwrap();
        Pem {
            ca: read("ca.pem".into()),
            certificate: read(format!("{name}.pem")),
            key: read(format!("{name}.key")),
        }
    }

    #[test]
    fn both_ends_take_the_certificates_and_agents_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            make(folder.path(), &agents(&["edge-1", "b"]), &[], Existing::Keep, today()).unwrap();
        assert_eq!(files.len(), 8);
        tls::server_config(&pem(folder.path(), "collector")).unwrap();
        let agent = pem(folder.path(), "edge-1");
        tls::client_config(&agent).unwrap();
        let chain = certificates(&agent.certificate);
        assert_eq!(tls::agent_name(&chain).unwrap().as_str(), "edge-1");
    }

    #[test]
    fn a_collector_is_known_by_its_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = ["tidemark.billing.svc", "10.0.0.7", "localhost"].map(str::to_owned);
        make(folder.path(), &agents(&["a"]), &hosts, Existing::Keep, today()).unwrap();
        let chain = certificates(&pem(folder.path(), "collector").certificate);
        let certificate = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
        for host in ["tidemark.billing.svc", "10.0.0.7", "localhost", "127.0.0.1", "::1"] {
            let name = ServerName::try_from(host).unwrap();
            certificate.verify_is_valid_for_subject_name(&name).unwrap();
        }
        let other = ServerName::try_from("tidemark.other.svc").unwrap();
        certificate.verify_is_valid_for_subject_name(&other).unwrap_err();
        for host in ["", "a b", "tidemark:8129", "-"] {
            let hosts = [host.to_owned()];
            let made = make(folder.path(), &agents(&["a"]), &hosts, Existing::Overwrite, today());
            assert!(matches!(made, Err(DevCertsError::Host { .. })), "{host:?}");
        }
    }

    fn certificates(pem: &[u8]) -> Vec<rustls::pki_types::CertificateDer<'static>> {
        use rustls::pki_types::pem::PemObject;
        rustls::pki_types::CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_drainer_has_a_role_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let drainer = AgentName::parse_drainer("node").unwrap();
        let both = [agents(&["a"]), vec![drainer.clone()]].concat();
        make(folder.path(), &both, &[], Existing::Keep, today()).unwrap();
        let named = |name| tls::agent_name(&certificates(&pem(folder.path(), name).certificate));
        assert_eq!(named("node"), Ok(drainer.clone()));
        assert!(!named("a").unwrap().is_drainer());
        let twice = [agents(&["node"]), vec![drainer]].concat();
        let error = make(folder.path(), &twice, &[], Existing::Overwrite, today()).unwrap_err();
        assert!(matches!(error, DevCertsError::Reserved { .. }), "{error}");
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.key"), "old").unwrap();
        fs::set_permissions(folder.path().join("ca.key"), fs::Permissions::from_mode(0o666))
            .unwrap();
        for file in make(folder.path(), &agents(&["a"]), &[], Existing::Overwrite, today()).unwrap()
        {
            let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o077;
            let is_key = file.extension().is_some_and(|extension| extension == "key");
            assert_eq!(mode == 0, is_key, "{}", file.display());
        }
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.pem"), "mine").unwrap();
        let error = make(folder.path(), &agents(&["a"]), &[], Existing::Keep, today()).unwrap_err();
        assert!(
            matches!(&error, DevCertsError::Exists { path } if path.ends_with("a.pem")),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_agent_cannot_take_the_collectors_files() {
        let folder = tempfile::tempdir().unwrap();
        for name in RESERVED {
            let error = make(folder.path(), &agents(&[name]), &[], Existing::Overwrite, today())
                .unwrap_err();
            assert!(matches!(error, DevCertsError::Reserved { .. }), "{error}");
        }
    }
}
