//! Names, refusals and settings, with certificates made on the spot.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::time::Timestamp;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self::named("tidemark tests")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pem {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        change(&mut params);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pem {
            ca: self.0.pem().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }
}

fn name_in(names: &[&str]) -> Result<String, TlsError> {
    let pem = Authority::new().issue(names, |_| {});
    agent_name(&certificates(&pem.certificate).unwrap()).map(|name| name.to_string())
}

#[test]
fn an_agent_is_who_its_certificate_says() {
    let check = |names: &[&str], expected: Result<&str, TlsError>| {
        assert_eq!(name_in(names), expected.map(str::to_owned), "{names:?}");
    };
    check(&["tidemark://agent/web-1"], Ok("web-1"));
    check(&["web.example", "spiffe://x/y", "tidemark://agent/A.b_c-9"], Ok("A.b_c-9"));
    check(&["web.example"], Err(TlsError::NoAgentName));
    check(&["tidemark://collector/a"], Err(TlsError::NoAgentName));
    check(&["tidemark://drainer/node-7"], Ok("drainer:node-7"));
    let both = ["tidemark://drainer/a", "tidemark://agent/a"];
    check(&both, Err(TlsError::ManyAgentNames { names: 2 }));
    check(
        &["tidemark://agent/a", "tidemark://agent/b"],
        Err(TlsError::ManyAgentNames { names: 2 }),
    );
    let bad = |name: &str, error| Err(TlsError::BadAgentName { name: name.to_owned(), error });
    check(&["tidemark://agent/"], bad("", NameError::Empty));
    check(&["tidemark://agent/a/b"], bad("a/b", NameError::Character { found: '/' }));
    assert_eq!(agent_name(&[]), Err(TlsError::NoCertificate));
}

#[test]
fn agent_names() {
    for good in ["a", "web-1.eu_west", &"x".repeat(128)] {
        assert_eq!(AgentName::parse(good).unwrap().uri(), format!("tidemark://agent/{good}"));
    }
    for bad in ["", "a b", "é", "a/b", &"x".repeat(129)] {
        assert!(AgentName::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn unusable_parts_are_named() {
    let good = Authority::new().issue(&["tidemark://agent/a"], |_| {});
    let other = Authority::new().issue(&["tidemark://agent/a"], |_| {});
    let check = |change: &dyn Fn(&mut Pem), part: &str| {
        let mut pem = good.clone();
        change(&mut pem);
        for error in [server_config(&pem).unwrap_err(), client_config(&pem).unwrap_err()] {
            assert!(error.to_string().contains(part), "{error}");
        }
    };
    assert!(server_config(&good).is_ok() && client_config(&good).is_ok());
    check(&|pem| pem.ca.clear(), "CA certificate");
    check(
        &|pem| pem.ca = b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_vec(),
        "CA certificate",
    );
    check(&|pem| pem.certificate = b"hello".to_vec(), "find a certificate");
    check(&|pem| pem.key.clear(), "private key");
    check(&|pem| pem.key = other.key.clone(), "certificate");
}

#[test]
fn a_key_is_not_printed() {
    let pem = Pem { ca: vec![], certificate: vec![], key: b"SECRET".to_vec() };
    let printed = format!("{pem:?}");
    assert!(!printed.contains("83") && !printed.contains("SECRET"), "{printed}");
}

#[test]
fn a_certificate_is_told_in_words() {
    let check = |names: &[&str], expected: &str| {
        let pem = Authority::new().issue(names, |params| {
            params.not_before = date_time_ymd(2024, 2, 29);
            params.not_after = date_time_ymd(2100, 3, 1);
        });
        let shown = Shown::of(&certificates(&pem.certificate).unwrap()[0]);
        let valid = "valid from 2024-02-29 00:00 UTC to 2100-03-01 00:00 UTC";
        assert_eq!(shown.to_string(), format!("{expected}, {valid}"));
    };
    check(&["tidemark://agent/a"], "for tidemark://agent/a");
    check(&["a.example", "b.example"], "for a.example, b.example");
    check(&[], "without a name");
    check(&["x://\n\u{1b}[31m"], "for x://\\n\\u{1b}[31m");
    let broken = Shown::of(&CertificateDer::from(&[0x30, 0][..]));
    assert_eq!(broken.to_string(), "without a name, which cannot be read");
}

#[test]
fn minutes_are_told_as_dates() {
    let check = |millis, expected| assert_eq!(expiry::minute(Timestamp(millis)), expected);
    check(0, "1970-01-01 00:00 UTC");
    check(-1, "1969-12-31 23:59 UTC");
    check(951_782_399_999, "2000-02-28 23:59 UTC");
    check(951_825_600_000, "2000-02-29 12:00 UTC");
    check(1_709_164_800_000, "2024-02-29 00:00 UTC");
    check(4_107_542_399_000, "2100-02-28 23:59 UTC");
    check(4_107_542_400_000, "2100-03-01 00:00 UTC");
}

#[test]
fn the_end_of_a_certificate_is_read() {
    let check = |(year, month, day), millis| {
        let pem = Authority::new()
            .issue(&["a.example"], |params| params.not_after = date_time_ymd(year, month, day));
        assert_eq!(
            not_after(&certificates(&pem.certificate).unwrap()[0]),
            Some(Timestamp(millis)),
            "{year}"
        );
    };
    check((1999, 12, 31), 946_598_400_000);
    check((2024, 2, 29), 1_709_164_800_000);
    check((2027, 3, 1), 1_803_859_200_000);
    check((2060, 1, 1), 2_840_140_800_000); // GeneralizedTime
    for broken in [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x80, 0, 0]] {
        assert_eq!(not_after(&CertificateDer::from(broken)), None);
    }
}

/// Moves bytes between the two ends until neither has any left.
fn shake_hands(
    agent: &Pem,
    collector: &Pem,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("collector.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config(agent).unwrap()), name)?;
    let mut server = ServerConnection::new(Arc::new(server_config(collector).unwrap()))?;
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}

#[test]
fn both_ends_are_known_and_sessions_are_not_resumed() {
    let ca = Authority::new();
    let agent = ca.issue(&["tidemark://agent/web-1"], |_| {});
    let collector = ca.issue(&["collector.example"], |_| {});
    let (client, server) = shake_hands(&agent, &collector).unwrap();
    assert_eq!(agent_name(server.peer_certificates().unwrap()).unwrap().as_str(), "web-1");
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.tls13_tickets_received(), 0);
}

#[test]
fn strangers_and_the_expired_are_refused() {
    let (ca, stranger, namesake) =
        (Authority::new(), Authority::named("stranger"), Authority::new());
    let agent = ca.issue(&["tidemark://agent/web-1"], |_| {});
    let collector = ca.issue(&["collector.example"], |_| {});
    let check = |agent: &Pem, collector: &Pem, expected: &str| {
        let error = shake_hands(agent, collector).map(drop).expect_err("a refusal").to_string();
        assert!(error.contains(expected), "{error}");
    };
    let with_ca = |mut pem: Pem| {
        pem.ca = agent.ca.clone();
        pem
    };
    let long_ago = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    check(
        &with_ca(stranger.issue(&["tidemark://agent/web-1"], |_| {})),
        &collector,
        "UnknownIssuer",
    );
    check(
        &with_ca(namesake.issue(&["tidemark://agent/web-1"], |_| {})),
        &collector,
        "BadSignature",
    );
    check(&ca.issue(&["tidemark://agent/web-1"], long_ago), &collector, "expired");
    check(&agent, &with_ca(stranger.issue(&["collector.example"], |_| {})), "UnknownIssuer");
    check(&agent, &ca.issue(&["collector.example"], long_ago), "expired");
    check(&agent, &ca.issue(&["elsewhere.example"], |_| {}), "not valid for name");
}

#[test]
fn a_drainer_is_no_agent_of_the_same_name() {
    let (agent, drainer) = (AgentName::parse("a").unwrap(), AgentName::parse_drainer("a").unwrap());
    assert_ne!(agent, drainer);
    for identity in [agent, drainer] {
        assert_eq!(AgentName::parse_identity(identity.as_str()).as_ref(), Ok(&identity));
        assert_eq!(name_in(&[&identity.uri()]), Ok(identity.to_string()));
        assert_eq!(identity.name(), "a");
    }
    assert!(AgentName::parse("drainer:a").is_err() && AgentName::parse_identity("x:a").is_err());
}
