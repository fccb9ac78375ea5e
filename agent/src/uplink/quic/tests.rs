//! Real QUIC over loopback, with certificates made on the spot.

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, ServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use tidemark_common::id::Sequence;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Ack, Throttle};

use super::*;

/// Certificates for both ends.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn agent(&self) -> Pem {
        self.issue(SanType::URI("tidemark://agent/test".try_into().unwrap()), 2100)
    }

    pub(crate) fn collector(&self) -> Pem {
        self.issue(SanType::DnsName("collector.example".try_into().unwrap()), 2100)
    }

    fn issue(&self, name: SanType, until: i32) -> Pem {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pem {
            ca: self.0.pem().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }
}

/// A collector's listening end on a free port.
pub(crate) fn listen(pem: &Pem) -> (Endpoint, SocketAddr) {
    let tls = QuicServerConfig::try_from(tls::server_config(pem).unwrap()).unwrap();
    let config = ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

/// The collector's side of a link.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    send: SendStream,
    reader: FrameReader,
}

impl Peer {
    pub(crate) async fn accept(incoming: Incoming) -> Self {
        let connection = incoming.await.unwrap();
        let (send, stream) = connection.accept_bi().await.unwrap();
        let reader =
            FrameReader { stream, buffer: FrameBuffer::default(), chunk: vec![0; READ_BYTES] };
        Self { connection, send, reader }
    }

    pub(crate) async fn send(&mut self, frame: &Frame) {
        self.send.write_all(&frame.encode().unwrap()).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<Frame, LinkError> {
        self.reader.next().await
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn dial(pem: &Pem, address: SocketAddr) -> Result<QuicLink, LinkError> {
    connect(pem, "collector.example", address, LinkTimes::default()).await
}

fn ack(sequence: u64) -> Frame {
    let ledger_time = Timestamp(1);
    Frame::Ack(Ack {
        posted_sequence: Sequence(sequence),
        ledger_time,
        confirm: false,
        extras: vec![],
    })
}

#[test]
fn frames_go_both_ways_whole_and_in_order() {
    let ca = Authority::named("ca");
    block_on(async {
        let (endpoint, address) = listen(&ca.collector());
        // Larger than any window, so that both ends wait for each other on the way.
        let large = Frame::Batch((0..10_000_000_u32).map(|byte| byte.to_le_bytes()[0]).collect());
        let sent = [large, ack(1), Frame::Throttle(Throttle { pause_millis: 7, extras: vec![] })];
        let collector = async {
            let mut peer = Peer::accept(endpoint.accept().await.unwrap()).await;
            for expected in &sent {
                let frame = peer.next().await.unwrap();
                assert!(frame == *expected, "another frame came");
                peer.send(&ack(9)).await;
            }
            assert!(matches!(peer.next().await, Err(LinkError::Closed { .. })));
            let shown = peer.connection.peer_identity().unwrap();
            let chain =
                shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
            assert_eq!(tls::agent_name(&chain).unwrap().as_str(), "test");
        };
        let agent = async {
            let mut link = dial(&ca.agent(), address).await.unwrap();
            for frame in &sent {
                link.writer.put(frame).unwrap();
                // Cancelled at every step of the way, reading meanwhile, as the driver does.
                let mut answered = false;
                while !(link.writer.is_idle() && answered) {
                    tokio::select! {
                        flushed = link.writer.flush(), if !link.writer.is_idle() => flushed.unwrap(),
                        frame = link.reader.next() => {
                            assert_eq!(frame.unwrap(), ack(9));
                            answered = true;
                        }
                        () = tokio::task::yield_now() => {}
                    }
                }
            }
            link.writer.finish().await.unwrap();
            assert!(link.handle.round_trip() > Duration::ZERO);
            link.handle.close_and_wait(Duration::from_secs(5)).await;
        };
        tokio::join!(collector, agent);
    });
}

/// What the agent is told, at the latest at its first read.
fn told(agent: &Pem, collector: &Pem) -> String {
    block_on(async {
        let (endpoint, address) = listen(collector);
        let collector = async {
            // The handshake fails here or there.
            drop(endpoint.accept().await.unwrap().await);
            endpoint.wait_idle().await;
        };
        let agent = async {
            match dial(agent, address).await {
                Ok(mut link) => link.reader.next().await.unwrap_err().to_string(),
                Err(error) => error.to_string(),
            }
        };
        tokio::join!(agent, collector).0
    })
}

#[test]
fn refused_certificates_are_explained() {
    let (ca, stranger, namesake) =
        (Authority::named("ca"), Authority::named("stranger"), Authority::named("ca"));
    let trusting = |pem: Pem, ca: &Authority| Pem { ca: ca.agent_ca(), ..pem };
    let expired_agent = ca.issue(SanType::URI("tidemark://agent/test".try_into().unwrap()), 2001);
    let expired_collector =
        ca.issue(SanType::DnsName("collector.example".try_into().unwrap()), 2001);
    let elsewhere = ca.issue(SanType::DnsName("elsewhere.example".try_into().unwrap()), 2100);
    let check = |agent: &Pem, collector: &Pem, whose: &str, expected: &str| {
        let text = told(agent, collector);
        assert!(text.contains(whose) && text.contains(expected), "{text}");
    };
    let (its, own) = ("trust the collector: its certificate", "this agent's certificate");
    check(&ca.agent(), &trusting(stranger.collector(), &ca), its, "unknown CA");
    check(&ca.agent(), &trusting(namesake.collector(), &ca), its, "another key");
    check(&ca.agent(), &expired_collector, its, "has expired");
    check(&ca.agent(), &elsewhere, its, "not valid for name");
    check(&trusting(stranger.agent(), &ca), &ca.collector(), own, "unknown CA");
    check(&expired_agent, &ca.collector(), own, "has expired");
}

impl Authority {
    fn agent_ca(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let ca = Authority::named("ca");
    block_on(async {
        // Bound and never read: what is sent there gets no answer.
        let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = silent.local_addr().unwrap();
        let times = LinkTimes { connect_max: Duration::from_millis(20), ..LinkTimes::default() };
        let error = connect(&ca.agent(), "collector.example", address, times).await.unwrap_err();
        assert!(
            error.to_string().contains(&format!("no answer from {address} within 20 ms")),
            "{error}"
        );
    });
}

#[test]
fn a_closed_link_says_why() {
    let ca = Authority::named("ca");
    block_on(async {
        let (endpoint, address) = listen(&ca.collector());
        let collector = async {
            let mut peer = Peer::accept(endpoint.accept().await.unwrap()).await;
            peer.next().await.unwrap();
            peer.send(&ack(3)).await;
            peer.send.finish().unwrap();
            peer.send.stopped().await.unwrap();
            peer.connection.close(VarInt::from_u32(0), b"going down");
            endpoint.wait_idle().await;
        };
        let agent = async {
            let mut link = dial(&ca.agent(), address).await.unwrap();
            link.writer.put(&ack(1)).unwrap();
            link.writer.flush().await.unwrap();
            assert_eq!(link.reader.next().await.unwrap(), ack(3));
            link.handle.connection.closed().await;
            link.writer.put(&ack(1)).unwrap();
            link.writer.flush().await.unwrap_err().to_string()
        };
        let text = tokio::join!(agent, collector).0;
        assert!(text.contains("the collector closed it: going down"), "{text}");
    });
}

#[test]
fn a_name_is_tried_at_each_of_its_addresses() {
    let ca = Authority::named("ca");
    block_on(async {
        // On most machines ::1 and 127.0.0.1, of which only the second listens here.
        let (endpoint, address) = listen(&ca.collector());
        let name = format!("localhost:{}", address.port());
        let dialled =
            connect_to(&name, "collector.example", Arc::new(ca.agent()), LinkTimes::default());
        let (link, _) = tokio::join!(dialled, async { endpoint.accept().await.unwrap().await });
        assert_eq!(link.unwrap().handle.connection.remote_address(), address);

        let times = LinkTimes { connect_max: Duration::from_millis(20), ..LinkTimes::default() };
        let check = async |name: &str, expected: &str| {
            let error = connect_to(name, "collector.example", Arc::new(ca.agent()), times)
                .await
                .unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check("127.0.0.1", "failed to find the collector's address").await;
        check("127.0.0.1:9", "no answer from 127.0.0.1:9").await;
    });
}
