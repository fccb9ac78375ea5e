//! Real connections over loopback: certificates, frames, ends.

mod certificates;
mod hostile;

use std::net::Ipv4Addr;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use redb::backends::InMemoryBackend;
use rustls::pki_types::ServerName;
use tidemark_common::id::{LedgerId, RulesVersion, Sequence};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::{self, Pem};
use tidemark_common::wire::{
    Ack, EXTRA_COME_AGAIN, Frame, FrameBuffer, Hello, RefuseReason, Welcome,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;

use super::*;
use crate::ledger::clock::Reading;
use crate::ledger::conformance::{Journal, NOW, damaged};
use crate::ledger::redb::{RedbOptions, RedbStore};
use crate::ledger::{LedgerOptions, TimeSource};

/// A collector that says nothing for this long will say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

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

    fn issue(&self, name: SanType) -> Pem {
        self.issue_changed(name, |_| {})
    }

    fn issue_changed(&self, name: SanType, change: impl FnOnce(&mut CertificateParams)) -> Pem {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pem {
            ca: self.0.pem().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    fn agent(&self, name: &str) -> Pem {
        self.issue(agent_uri(name))
    }
}

fn agent_uri(name: &str) -> SanType {
    SanType::URI(format!("tidemark://agent/{name}").try_into().unwrap())
}

/// A collector on a free port, with its own authority.
struct Collector {
    authority: Authority,
    ledger: Ledger,
    listener: Listener,
}

impl Collector {
    async fn start(change: impl FnOnce(&mut ListenOptions)) -> Self {
        Self::start_on(LedgerOptions::default(), change).await
    }

    async fn start_on(ledger: LedgerOptions, change: impl FnOnce(&mut ListenOptions)) -> Self {
        let authority = Authority::new();
        let (store, recovered) = RedbStore::open_on(
            InMemoryBackend::new(),
            InMemoryBackend::new(),
            &RedbOptions::default(),
            NOW,
        )
        .unwrap();
        let still = TimeSource::new(|| Reading { wall: NOW, monotonic_micros: 0 });
        let ledger = Ledger::start(store, recovered, ledger, still).await.unwrap();
        let pem = authority.issue(SanType::DnsName("localhost".try_into().unwrap()));
        let mut options = ListenOptions {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tcp: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            ..ListenOptions::default()
        };
        change(&mut options);
        let rules = Arc::new(Rules { version: RulesVersion(4), ..Rules::default() });
        let credentials = Credentials::new(&pem).unwrap();
        let listener = Listener::start(options, credentials, ledger.clone(), rules).unwrap();
        Self { authority, ledger, listener }
    }

    async fn connect(&self, pem: &Pem) -> Agent {
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let connection = endpoint
            .connect_with(client(pem), self.listener.address(), "localhost")
            .unwrap()
            .await
            .unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        Agent {
            _connection: Some(connection),
            send: Box::new(send),
            receive: Box::new(receive),
            buffer: FrameBuffer::default(),
        }
    }

    async fn connect_tcp(&self, pem: &Pem) -> Agent {
        let stream = TcpStream::connect(self.listener.tcp_address().unwrap()).await.unwrap();
        let connector = TlsConnector::from(Arc::new(tls::client_config(pem).unwrap()));
        let name = ServerName::try_from("localhost").unwrap();
        let (receive, send) = tokio::io::split(connector.connect(name, stream).await.unwrap());
        Agent {
            _connection: None,
            send: Box::new(send),
            receive: Box::new(receive),
            buffer: FrameBuffer::default(),
        }
    }

    /// One over each transport.
    async fn connect_both(&self, pem: &Pem) -> [Agent; 2] {
        [self.connect(pem).await, self.connect_tcp(pem).await]
    }

    /// A session after its Welcome and first Ack.
    async fn greet(&self, journal: &mut Journal) -> Agent {
        let agent = self.connect(&self.authority.agent("till-7")).await;
        Self::welcomed(agent, journal).await
    }

    /// The same, of this identity and stream.
    async fn greet_as(&self, name: &str, stream: u8) -> Agent {
        let agent = self.connect(&self.authority.agent(name)).await;
        Self::welcomed(agent, &mut Journal::new(stream, self.ledger.ledger())).await
    }

    async fn greet_tcp(&self, journal: &mut Journal) -> Agent {
        let agent = self.connect_tcp(&self.authority.agent("till-7")).await;
        Self::welcomed(agent, journal).await
    }

    async fn welcomed(mut agent: Agent, journal: &mut Journal) -> Agent {
        agent.send(&Frame::Hello(journal.hello(0))).await;
        let Some(Frame::Welcome(Welcome { fence, .. })) = agent.next().await else {
            panic!("no Welcome")
        };
        journal.fence = fence;
        assert!(matches!(agent.next().await, Some(Frame::Ack(Ack { confirm: true, .. }))));
        agent
    }
}

fn client(pem: &Pem) -> ClientConfig {
    let crypto = QuicClientConfig::try_from(tls::client_config(pem).unwrap()).unwrap();
    ClientConfig::new(Arc::new(crypto))
}

struct Agent {
    _connection: Option<Connection>,
    send: Box<dyn AsyncWrite + Unpin>,
    receive: Box<dyn AsyncRead + Unpin>,
    buffer: FrameBuffer,
}

impl Agent {
    async fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.encode().unwrap()).await;
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
        self.send.flush().await.unwrap();
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        let mut chunk = vec![0; 4_096];
        loop {
            if let Some(frame) = self.buffer.next_frame().unwrap() {
                return Some(frame);
            }
            let read = tokio::time::timeout(PATIENCE, self.receive.read(&mut chunk)).await;
            match read.expect("the collector says nothing") {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => self.buffer.push(&chunk[..bytes]),
            }
        }
    }

    async fn posted(&mut self, sequence: u64) {
        loop {
            match self.next().await {
                Some(Frame::Ack(ack)) if ack.posted_sequence == Sequence(sequence) => return,
                Some(Frame::Ack(_) | Frame::Throttle(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn refusal(&mut self) -> RefuseReason {
        loop {
            match self.next().await {
                Some(Frame::Refuse(refuse)) => return refuse.reason,
                Some(Frame::Ack(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_agent_ships_confirms_and_closes() {
    for over_tcp in [false, true] {
        ships_confirms_and_closes(over_tcp).await;
    }
}

async fn ships_confirms_and_closes(over_tcp: bool) {
    let collector = Collector::start(|_| {}).await;
    let mut journal = Journal::new(1, collector.ledger.ledger());
    for bucket in 1..=6 {
        journal.seal(&[("c", "m", bucket, 5)]);
    }
    let mut agent = match over_tcp {
        true => collector.greet_tcp(&mut journal).await,
        false => collector.greet(&mut journal).await,
    };
    let figures = collector.listener.figures();
    assert_eq!((figures.sessions_open, figures.tcp_sessions_open), (1, u64::from(over_tcp)));
    for (index, batch) in journal.sealed.iter().enumerate() {
        let bytes = if index == 3 { damaged(batch).bytes } else { batch.bytes.clone() };
        agent.send(&Frame::Batch(bytes)).await;
    }
    agent.posted(6).await;
    let (sequence, accepted, fence) = (Sequence(6), 6, journal.fence);
    let ledger_time = collector.ledger.now();
    let extras = Vec::new();
    let confirm = tidemark_common::wire::Confirm { ledger_time, sequence, accepted, fence, extras };
    agent.send(&Frame::Confirm(confirm)).await;
    let close = tidemark_common::wire::Close { sequence, accepted, fence, extras: Vec::new() };
    agent.send(&Frame::Close(close)).await;
    assert_eq!(agent.next().await, None);
    let snapshot = collector.ledger.snapshot().unwrap();
    let [stream] = snapshot.streams() else { panic!("{:?}", snapshot.streams()) };
    assert_eq!((stream.agent.as_str(), stream.state.name()), ("till-7", "closed"));
    assert_eq!((stream.posted_events, stream.quarantined_events, stream.in_transit), (5, 1, 0));
    collector.listener.shutdown().await;
}

#[tokio::test]
async fn only_certified_agents_are_heard() {
    let collector = Collector::start(|_| {}).await;
    let ledger = collector.ledger.ledger();
    let nobody = collector.authority.issue(SanType::DnsName("till-7".try_into().unwrap()));
    for mut agent in collector.connect_both(&nobody).await {
        agent.send(&Frame::Hello(Journal::new(1, ledger).hello(0))).await;
        assert_eq!(agent.refusal().await, RefuseReason::Unauthorized);
    }

    // With TLS 1.3 the client learns at its first read that its certificate is refused.
    let stranger =
        Pem { ca: collector.authority.agent("x").ca, ..Authority::new().agent("till-7") };
    for mut agent in collector.connect_both(&stranger).await {
        drop(agent.send.write_all(b"anything").await);
        assert_eq!(agent.next().await, None);
    }

    let mut journal = Journal::new(1, ledger);
    let _first = collector.greet(&mut journal).await;
    let mut thief = collector.connect(&collector.authority.agent("till-8")).await;
    thief.send(&Frame::Hello(journal.hello(0))).await;
    assert_eq!(thief.refusal().await, RefuseReason::Unauthorized);
}

#[tokio::test]
async fn refusals_tell_the_agent_what_to_do() {
    let collector = Collector::start(|_| {}).await;
    let ledger = collector.ledger.ledger();
    let mut journal = Journal::new(1, ledger);
    journal.seal(&[("c", "m", 1, 5)]);
    journal.seal(&[("c", "m", 1, 5)]);

    let mut agent = collector.greet(&mut journal).await;
    agent.send(&Frame::Batch(journal.sealed[1].bytes.clone())).await;
    assert_eq!(agent.refusal().await, RefuseReason::Gap { expected: Sequence(1) });

    let mut old = collector.greet(&mut journal).await;
    let mut new = collector.greet(&mut journal).await;
    old.send(&Frame::Batch(journal.sealed[0].bytes.clone())).await;
    assert_eq!(old.refusal().await, RefuseReason::Fenced { current: journal.fence });
    new.send(&Frame::Batch(journal.sealed[0].bytes.clone())).await;
    new.posted(1).await;
    // The collector still has an ear for what cannot be read.
    new.send_bytes(&[0, 0, 0, 9, 0, 99, 1, 2, 3, 4, 5, 6, 7]).await;
    assert_eq!(new.refusal().await, RefuseReason::Invalid);

    let mut agent = collector.connect(&collector.authority.agent("till-7")).await;
    let pinned = Hello { ledger: Some(LedgerId([0; 16])), ..journal.hello(0) };
    agent.send(&Frame::Hello(pinned)).await;
    assert_eq!(agent.refusal().await, RefuseReason::OtherLedger { ledger });
    let figures = collector.listener.figures();
    assert_eq!((figures.refusals, figures.sessions_begun), (4, 4));
}

#[tokio::test]
async fn a_silent_peer_and_a_stop_end_sessions() {
    let collector =
        Collector::start(|options| options.handshake_max = Duration::from_millis(1_500)).await;
    for mut silent in collector.connect_both(&collector.authority.agent("till-7")).await {
        silent.send_bytes(&[0]).await;
        assert_eq!(silent.refusal().await, RefuseReason::Invalid);
    }
    // One that does not even begin its handshake is left alone too.
    let mut mute = TcpStream::connect(collector.listener.tcp_address().unwrap()).await.unwrap();
    assert_eq!(mute.read(&mut [0]).await.unwrap(), 0);

    let mut agents = Vec::new();
    let (mut one, mut other) =
        (Journal::new(1, collector.ledger.ledger()), Journal::new(2, collector.ledger.ledger()));
    agents.push(collector.greet(&mut one).await);
    agents.push(collector.greet_tcp(&mut other).await);
    let shutdown = tokio::spawn(collector.listener.shutdown());
    for mut agent in agents {
        assert_eq!(agent.refusal().await, RefuseReason::Unavailable);
        assert_eq!(agent.next().await, None);
    }
    shutdown.await.unwrap();
    assert!(collector.ledger.snapshot().unwrap().ledger_time() >= Timestamp(0));
}

#[tokio::test]
async fn a_slow_ledger_is_not_the_agents_fault() {
    // The writer waits for the folder as long as there is more than nothing in memory.
    let stuck = LedgerOptions { tail_bytes_max: 0, ..LedgerOptions::default() };
    let impatient =
        |options: &mut ListenOptions| options.handshake_max = Duration::from_millis(200);
    let collector = Collector::start_on(stuck, impatient).await;
    let mut agent = collector.connect(&collector.authority.agent("till-7")).await;
    agent.send(&Frame::Hello(Journal::new(1, collector.ledger.ledger()).hello(0))).await;
    assert_eq!(agent.refusal().await, RefuseReason::Unavailable);
}

#[tokio::test]
async fn a_handshake_from_an_address_not_its_own_takes_no_room() {
    let collector = Collector::start(|options| {
        (options.sessions_max, options.handshakes_max) = (1, 1);
    })
    .await;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let trap = UdpSocket::bind(loopback).await.unwrap();
    let victim = Endpoint::client(loopback).unwrap();
    let config = client(&collector.authority.agent("till-8"));
    let _half = victim.connect_with(config, trap.local_addr().unwrap(), "localhost").unwrap();
    let mut packet = vec![0; 2_048];
    let (length, _) = trap.recv_from(&mut packet).await.unwrap();
    trap.send_to(&packet[..length], collector.listener.address()).await.unwrap();
    while trap.recv_from(&mut packet).await.unwrap().1 != collector.listener.address() {}

    let mut journal = Journal::new(1, collector.ledger.ledger());
    collector.greet(&mut journal).await;
}

#[tokio::test]
async fn what_finds_no_room_is_told_so() {
    let collector = Collector::start(|options| options.sessions_max = 1).await;
    let first = collector.greet_tcp(&mut Journal::new(1, collector.ledger.ledger())).await;
    // Both are turned away before a handshake is begun.
    let mut second = TcpStream::connect(collector.listener.tcp_address().unwrap()).await.unwrap();
    assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
    let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let config = client(&collector.authority.agent("till-8"));
    let address = collector.listener.address();
    assert!(endpoint.connect_with(config, address, "localhost").unwrap().await.is_err());
    assert_eq!(collector.listener.figures().full, 2);
    drop(first);
}

#[tokio::test]
async fn tcp_connections_that_say_nothing_keep_no_quic_agent_out() {
    let collector = Collector::start(|options| options.handshakes_max = 1).await;
    let address = collector.listener.tcp_address().unwrap();
    let _mute = TcpStream::connect(address).await.unwrap();
    // The one handshake over TCP is taken once the next is turned away.
    let mut next = TcpStream::connect(address).await.unwrap();
    assert_eq!(next.read(&mut [0]).await.unwrap(), 0);
    collector.greet(&mut Journal::new(1, collector.ledger.ledger())).await;
}

#[tokio::test]
async fn who_does_not_speak_the_protocol_over_tcp_is_no_session() {
    let collector = Collector::start(|_| {}).await;
    let mut config = tls::client_config(&collector.authority.agent("till-7")).unwrap();
    config.alpn_protocols.clear();
    let stream = TcpStream::connect(collector.listener.tcp_address().unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    // It is closed, with or without a word.
    assert!(!matches!(stream.read(&mut [0]).await, Ok(1)));
    let figures = collector.listener.figures();
    assert_eq!((figures.handshakes_failed, figures.sessions_begun), (1, 0));
}

#[tokio::test]
async fn confirmations_are_asked_for_at_an_interval() {
    let collector =
        Collector::start(|options| options.confirm_interval = Duration::from_millis(20)).await;
    let mut journal = Journal::new(1, collector.ledger.ledger());
    let mut agent = collector.greet(&mut journal).await;
    for _ in 0..3 {
        assert!(matches!(agent.next().await, Some(Frame::Ack(Ack { confirm: true, .. }))));
    }
}

#[tokio::test]
async fn a_session_may_hold_more_than_the_room_for_batches_and_still_moves() {
    let collector = Collector::start(|options| options.batch_bytes_in_flight_max = 300).await;
    let mut journal = Journal::new(1, collector.ledger.ledger());
    for _ in 0..20 {
        journal.seal(&[("c", "m", 1, 5)]);
    }
    let mut agent = collector.greet(&mut journal).await;
    for batch in &journal.sealed {
        agent.send(&Frame::Batch(batch.bytes.clone())).await;
    }
    agent.posted(20).await;
}

/// Frames of this many bytes take their room before they are received.
const LARGE: usize = 150_000;

/// A batch that no session takes, whole.
fn large_frame() -> Vec<u8> {
    Frame::Batch(vec![0; LARGE - 6]).encode().unwrap()
}

#[tokio::test]
async fn large_frames_wait_for_room() {
    let collector = Collector::start(|options| options.frame_bytes_in_flight_max = 200_000).await;
    let free = async |bytes| {
        while collector.listener.shared.frame_bytes.bytes_free() != bytes {
            tokio::task::yield_now().await;
        }
    };
    let mut first = collector.greet_as("till-1", 1).await;
    let mut second = collector.greet_as("till-2", 2).await;
    let frame = large_frame();
    let (head, rest) = frame.split_at(10);
    first.send_bytes(head).await;
    free(200_000 - LARGE).await;
    second.send_bytes(&frame).await;
    first.send_bytes(rest).await;
    // Neither is a batch; the second is heard once the first has made room.
    assert_eq!(first.refusal().await, RefuseReason::Invalid);
    drop(first);
    assert_eq!(second.refusal().await, RefuseReason::Invalid);
    drop(second);
    free(200_000).await;
}

#[tokio::test]
async fn further_rules_reach_the_sessions_that_begin_after_them() {
    let collector = Collector::start(|_| {}).await;
    let journal = Journal::new(1, collector.ledger.ledger());
    for version in [4, 5] {
        let rules = Rules { version: RulesVersion(version), ..Rules::default() };
        collector.listener.set_rules(Arc::new(rules.clone()));
        let mut agent = collector.connect(&collector.authority.agent("till-7")).await;
        agent.send(&Frame::Hello(journal.hello(0))).await;
        let Some(Frame::Welcome(welcome)) = agent.next().await else { panic!("no Welcome") };
        assert_eq!(welcome.rules, Some(rules));
    }
}

#[tokio::test]
async fn a_session_at_its_age_ends_with_everything_acknowledged() {
    let collector =
        Collector::start(|options| options.session_age_max = Duration::from_millis(400)).await;
    let mut journal = Journal::new(1, collector.ledger.ledger());
    for _ in 0..3 {
        journal.seal(&[("c", "m", 1, 5)]);
    }
    for over_tcp in [false, true] {
        let mut agent = match over_tcp {
            true => collector.greet_tcp(&mut journal).await,
            false => collector.greet(&mut journal).await,
        };
        for batch in &journal.sealed {
            agent.send(&Frame::Batch(batch.bytes.clone())).await;
        }
        let mut acknowledged = Sequence::ZERO;
        let refuse = loop {
            match agent.next().await {
                Some(Frame::Ack(ack)) => acknowledged = ack.posted_sequence,
                Some(Frame::Throttle(_)) => {}
                Some(Frame::Refuse(refuse)) => break refuse,
                other => panic!("{other:?}"),
            }
        };
        // However much was taken by then: nothing was taken without its Ack.
        let snapshot = collector.ledger.snapshot().unwrap();
        assert_eq!(snapshot.streams()[0].posted_sequence, acknowledged);
        assert_eq!(refuse.reason, RefuseReason::Unavailable);
        assert!(refuse.extras.iter().any(|extra| extra.tag == EXTRA_COME_AGAIN));
        assert_eq!(agent.next().await, None);
    }
}

#[tokio::test]
async fn an_agent_is_asked_to_pause_while_the_collector_is_pressed() {
    // One batch needs all the room that there is.
    let collector = Collector::start(|options| options.batch_bytes_in_flight_max = 64).await;
    let mut journal = Journal::new(1, collector.ledger.ledger());
    journal.seal(&[("c", "m", 1, 5)]);
    let mut agent = collector.greet(&mut journal).await;
    let taken = Arc::clone(&collector.listener.shared.batch_bytes).acquire_owned().await.unwrap();
    agent.send(&Frame::Batch(journal.sealed[0].bytes.clone())).await;
    let Some(Frame::Throttle(throttle)) = agent.next().await else { panic!("no Throttle") };
    assert!((250..=500).contains(&throttle.pause_millis), "{}", throttle.pause_millis);
    drop(taken);
    agent.posted(1).await;
    assert_eq!(collector.listener.figures().throttles, 1);
}
