//! For tests: a collector's end of both transports, with certificates made on the spot.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, Incoming, ServerConfig, VarInt};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use tidemark_common::tls::{self, Pem};
use tidemark_common::wire::Frame;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::link::{FrameReader, FrameWriter, Link, LinkHandle};
use super::{LinkError, explain};

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
        self.issue("tidemark://agent/test", |_| {})
    }

    pub(crate) fn collector(&self) -> Pem {
        self.issue("collector.example", |_| {})
    }

    /// A certificate for a URI or a host.
    pub(crate) fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pem {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![if name.contains("://") {
            SanType::URI(name.try_into().unwrap())
        } else {
            SanType::DnsName(name.try_into().unwrap())
        }];
        params.not_after = date_time_ymd(2100, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pem {
            ca: self.ca(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    pub(crate) fn ca(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A collector's QUIC end on a free port.
pub(crate) fn listen(pem: &Pem) -> (Endpoint, SocketAddr) {
    let endpoint = listen_at(pem, loopback(0));
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

/// The same at `address`.
pub(crate) fn listen_at(pem: &Pem, address: SocketAddr) -> Endpoint {
    let tls = QuicServerConfig::try_from(tls::server_config(pem).unwrap()).unwrap();
    Endpoint::server(ServerConfig::with_crypto(Arc::new(tls)), address).unwrap()
}

/// A collector's TCP end on a free port, which may be taken for UDP too.
pub(crate) async fn listen_tcp() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(loopback(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The collector's side of a link.
pub(crate) struct Peer {
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
    handle: LinkHandle,
}

impl Peer {
    pub(crate) async fn accept(incoming: Incoming) -> Self {
        let connection = incoming.await.unwrap();
        Self::of_quic(connection).await
    }

    async fn of_quic(connection: Connection) -> Self {
        let streams = connection.accept_bi().await.unwrap();
        let unused = Endpoint::client(loopback(0)).unwrap();
        Self::of(Link::over_quic(unused, connection, streams))
    }

    /// The peer of the next TCP connection, or why it has none.
    pub(crate) async fn accept_tcp(listener: &TcpListener, pem: &Pem) -> Result<Self, LinkError> {
        let (stream, _) = listener.accept().await.unwrap();
        Self::of_tcp(stream, pem).await
    }

    async fn of_tcp(stream: TcpStream, pem: &Pem) -> Result<Self, LinkError> {
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(pem).unwrap()));
        let stream = acceptor.accept(stream).await.map_err(|error| explain::tcp(&error))?;
        Ok(Self::of(Link::over_tcp(stream.into())))
    }

    fn of(link: Link) -> Self {
        let Link { reader, writer, handle } = link;
        Self { reader, writer, handle }
    }

    pub(crate) async fn send(&mut self, frame: &Frame) {
        self.writer.put(frame).unwrap();
        self.writer.flush().await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<Frame, LinkError> {
        self.reader.next().await
    }

    /// The QUIC connection.
    pub(crate) fn connection(&self) -> &Connection {
        match &self.handle {
            LinkHandle::Quic { connection, .. } => connection,
            LinkHandle::Tcp => panic!("a connection over TCP"),
        }
    }

    pub(crate) fn close(&self, reason: &str) {
        self.connection().close(VarInt::from_u32(1), reason.as_bytes());
    }
}

/// Sends `frame` and hears `answer`, cancelled at every step of the way, and reading meanwhile, as the
/// driver does.
pub(crate) async fn send_and_hear(link: &mut Link, frame: &Frame, answer: &Frame) {
    link.writer.put(frame).unwrap();
    let mut answered = false;
    while !(link.writer.is_idle() && answered) {
        tokio::select! {
            flushed = link.writer.flush(), if !link.writer.is_idle() => flushed.unwrap(),
            heard = link.reader.next() => {
                assert_eq!(heard.unwrap(), *answer);
                answered = true;
            }
            () = tokio::task::yield_now() => {}
        }
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
