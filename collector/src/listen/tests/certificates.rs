//! What the log says of certificates that do not fit, and how they are renewed.

use std::io::Write;
use std::sync::Mutex;

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
        (log.clone(), tracing::subscriber::set_default(subscriber))
    }

    /// Waits for a warning that says all of these.
    async fn says(&self, parts: &[&str]) {
        let said = async {
            loop {
                let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
                if text.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, said).await.is_err() {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            panic!("{parts:?} is not in\n{text}");
        }
        self.0.lock().unwrap().clear();
    }
}

/// Connects over both transports, whatever comes of it, and waits for what the collector says of each.
async fn check(collector: &Collector, log: &Log, agent: &tls_client::Client, parts: &[&str]) {
    let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let quic = QuicClientConfig::try_from(agent.config.clone()).unwrap();
    let connecting = endpoint.connect_with(
        ClientConfig::new(Arc::new(quic)),
        collector.listener.address(),
        agent.server_name,
    );
    if let Ok(connection) = connecting.unwrap().await {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        drop(send.write_all(&[0]).await);
        drop(receive.read(&mut [0]).await);
    }
    log.says(parts).await;

    let stream = TcpStream::connect(collector.listener.tcp_address().unwrap()).await.unwrap();
    let name = ServerName::try_from(agent.server_name).unwrap();
    let connecting = TlsConnector::from(Arc::new(agent.config.clone())).connect(name, stream);
    if let Ok(mut stream) = connecting.await {
        drop(stream.read(&mut [0]).await);
    }
    log.says(parts).await;
}

/// Agents that show what they should not.
mod tls_client {
    use rustls::RootCertStore;
    use tidemark_common::wire::ALPN;

    use super::*;

    pub(super) struct Client {
        pub(super) config: rustls::ClientConfig,
        pub(super) server_name: &'static str,
    }

    impl Client {
        pub(super) fn of(pem: &Pem) -> Self {
            Self { config: tls::client_config(pem).unwrap(), server_name: "localhost" }
        }

        pub(super) fn without_certificate(ca: &[u8]) -> Self {
            let mut roots = RootCertStore::empty();
            roots.add(tls::certificates(ca).unwrap().remove(0)).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![ALPN.to_vec()];
            Self { config, server_name: "localhost" }
        }
    }
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_named() {
    use tls_client::Client;
    let (log, _guard) = Log::begin();
    let collector = Collector::start(|_| {}).await;
    let ca = &collector.authority;
    let theirs = "the peer's certificate";
    let named = "for tidemark://agent/till-7, valid from";

    let agent = ca.issue_changed(agent_uri("till-7"), |params| {
        params.not_after = date_time_ymd(2001, 2, 3);
    });
    let until = "to 2001-02-03 00:00 UTC";
    check(&collector, &log, &Client::of(&agent), &[theirs, "has expired (renew", named, until])
        .await;

    let agent = ca.issue_changed(agent_uri("till-7"), |params| {
        params.not_before = date_time_ymd(2090, 2, 3);
    });
    let from = "valid from 2090-02-03 00:00 UTC";
    check(&collector, &log, &Client::of(&agent), &[theirs, "is not valid yet", from]).await;

    let trusting = |pem: Pem| Pem { ca: ca.agent("x").ca, ..pem };
    let stranger = trusting(Authority::named("stranger").agent("till-7"));
    check(&collector, &log, &Client::of(&stranger), &[theirs, "by an unknown CA", named]).await;

    let namesake = trusting(Authority::new().agent("till-7"));
    check(&collector, &log, &Client::of(&namesake), &[theirs, "with another key", named]).await;

    let for_servers = ca.issue_changed(agent_uri("till-7"), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    check(&collector, &log, &Client::of(&for_servers), &[theirs, "is for another use", named])
        .await;

    // It is signed by the CA, and names a collector.
    let collectors = ca.issue(SanType::DnsName("localhost".try_into().unwrap()));
    let parts = ["no URI name tidemark://agent/NAME", "it is for localhost, valid from"];
    check(&collector, &log, &Client::of(&collectors), &parts).await;

    let nothing = Client::without_certificate(&ca.agent("x").ca);
    check(&collector, &log, &nothing, &["the peer's certificate is missing"]).await;

    let ours = "this collector's certificate";
    let suspicious = Pem { ca: Authority::named("stranger").agent("x").ca, ..ca.agent("till-7") };
    let parts = [ours, "by an unknown CA", "for localhost, valid from"];
    check(&collector, &log, &Client::of(&suspicious), &parts).await;

    let elsewhere = Client { server_name: "elsewhere.example", ..Client::of(&ca.agent("till-7")) };
    check(&collector, &log, &elsewhere, &[ours, "is not accepted", "for localhost"]).await;
}

/// A ClientHello as TLS 1.2 has it: without the extension that names later versions.
const TLS12_CLIENT_HELLO: [u8; 83] = [
    0x16, 0x03, 0x01, 0x00, 0x4e, // record: handshake, 78 bytes
    0x01, 0x00, 0x00, 0x4a, // ClientHello, 74 bytes
    0x03, 0x03, // TLS 1.2
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    0x00, // no session
    0x00, 0x02, 0xc0, 0x2b, // one cipher suite: ECDHE-ECDSA with AES-128-GCM
    0x01, 0x00, // no compression
    0x00, 0x1f, // extensions, 31 bytes
    0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // groups: P-256
    0x00, 0x0b, 0x00, 0x02, 0x01, 0x00, // points: uncompressed
    0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03, // signatures: ECDSA with SHA-256
    0x00, 0x17, 0x00, 0x00, // extended master secret
    0xff, 0x01, 0x00, 0x01, 0x00, // renegotiation
];

#[tokio::test]
async fn a_peer_of_an_older_tls_is_told_so() {
    let (log, _guard) = Log::begin();
    let collector = Collector::start(|_| {}).await;
    let address = collector.listener.tcp_address().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&TLS12_CLIENT_HELLO).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // A fatal alert: protocol_version.
    assert_eq!((answer.first(), answer.get(5..)), (Some(&0x15), Some(&[2, 70][..])));
    log.says(&["does not speak TLS 1.3"]).await;

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    log.says(&["a handshake failed", "corrupt message"]).await;
}

#[tokio::test]
async fn renewed_certificates_count_for_the_next_session_and_end_none() {
    let collector = Collector::start(|_| {}).await;
    let renew = collector.listener.renewer();
    let mut journal = Journal::new(1, collector.ledger.ledger());
    journal.seal(&[("c", "m", 1, 5)]);
    let mut running = collector.greet(&mut journal).await;

    // Another CA signs everything from now on.
    let next = Authority::named("next");
    renew(ServerTls::new(&next.issue(SanType::DnsName("localhost".try_into().unwrap()))).unwrap());
    running.send(&Frame::Batch(journal.sealed[0].bytes.clone())).await;
    running.posted(1).await;

    let mut others = Journal::new(2, collector.ledger.ledger());
    for agent in collector.connect_both(&next.agent("till-8")).await {
        Collector::welcomed(agent, &mut others).await;
    }
    // The former CA is trusted no more, at either end.
    let former = Pem { ca: next.agent("x").ca, ..collector.authority.agent("till-7") };
    for mut agent in collector.connect_both(&former).await {
        drop(agent.send.write_all(b"anything").await);
        assert_eq!(agent.next().await, None);
    }
}
