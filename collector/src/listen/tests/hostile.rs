//! Peers that hold on to the door: after each, an honest agent is served.

use tidemark_common::wire::Confirm;

use super::*;
use crate::grants::{Grants, Identity, Otherwise, Pattern, Patterns};

/// Impatient, so that tests are quick.
fn impatient(options: &mut ListenOptions) {
    options.handshake_max = Duration::from_millis(300);
    options.idle_max = Duration::from_secs(5);
}

impl Collector {
    /// An agent that begins after all that was done before.
    async fn serves_an_honest_agent(&self) {
        self.greet(&mut Journal::new(99, self.ledger.ledger())).await;
    }

    /// Waits until a figure is as asked.
    async fn figure(&self, of: impl Fn(&ListenFigures) -> u64, expected: u64) {
        while of(&self.listener.figures()) != expected {
            tokio::task::yield_now().await;
        }
    }

    async fn dial(&self, config: ClientConfig) -> Result<Connection, quinn::ConnectionError> {
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        endpoint.connect_with(config, self.listener.address(), "localhost").unwrap().await
    }
}

#[tokio::test]
async fn garbage_datagrams_take_nothing() {
    let collector = Collector::start(impatient).await;
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    for number in 0..2_000_usize {
        // Long and short headers, known and unknown versions, of all lengths.
        let bytes: Vec<u8> = (0..number % 1_400)
            .map(|index| u8::try_from((number * 31 + index * 7) % 256).unwrap())
            .collect();
        drop(socket.send_to(&bytes, collector.listener.address()).await);
    }
    collector.serves_an_honest_agent().await;
    assert_eq!(collector.listener.figures().sessions_begun, 1);
}

#[tokio::test]
async fn only_our_protocol_is_spoken() {
    let collector = Collector::start(impatient).await;
    let pem = collector.authority.agent("till-7");
    for protocol in ["h3", "tidemark/0", ""] {
        let mut config = tls::client_config(&pem).unwrap();
        config.alpn_protocols = match protocol {
            "" => Vec::new(),
            other => vec![other.as_bytes().to_vec()],
        };
        let crypto = QuicClientConfig::try_from(config).unwrap();
        let dialled = collector.dial(ClientConfig::new(Arc::new(crypto))).await;
        assert!(dialled.is_err(), "{protocol:?}");
    }
    collector.figure(|figures| figures.handshakes_failed, 3).await;
    collector.serves_an_honest_agent().await;
}

#[tokio::test]
async fn one_who_shakes_hands_and_says_nothing_is_gone_in_time() {
    let collector = Collector::start(|options| {
        impatient(options);
        options.sessions_max = 1;
    })
    .await;
    let silent = collector.dial(client(&collector.authority.agent("till-7"))).await.unwrap();
    silent.closed().await;
    collector.figure(|figures| figures.sessions_open, 0).await;
    collector.serves_an_honest_agent().await;
}

#[tokio::test]
async fn a_peer_has_one_stream() {
    let collector = Collector::start(impatient).await;
    let connection = collector.dial(client(&collector.authority.agent("till-7"))).await.unwrap();
    let _first = connection.open_bi().await.unwrap();
    let never = Duration::from_millis(50);
    assert!(tokio::time::timeout(never, connection.open_bi()).await.is_err(), "no second one");
    assert!(tokio::time::timeout(never, connection.open_uni()).await.is_err(), "none of one way");
    assert!(connection.max_datagram_size().is_none(), "no datagrams");
}

#[tokio::test]
async fn an_identity_has_only_so_many_sessions() {
    let collector = Collector::start(|options| options.sessions_per_identity_max = 2).await;
    let ledger = collector.ledger.ledger();
    let first = collector.greet(&mut Journal::new(1, ledger)).await;
    let _second = collector.greet(&mut Journal::new(2, ledger)).await;
    let third = collector.dial(client(&collector.authority.agent("till-7"))).await.unwrap();
    let closed = third.closed().await.to_string();
    assert!(closed.contains("sessions_per_identity_max"), "{closed}");
    assert_eq!(collector.listener.figures().crowded_identities, 1);
    // Another identity is not concerned, and a place that is left is free.
    let mut other = collector.connect(&collector.authority.agent("till-8")).await;
    other.send(&Frame::Hello(Journal::new(3, ledger).hello(0))).await;
    assert!(matches!(other.next().await, Some(Frame::Welcome(_))));
    drop(first);
    collector.figure(|figures| figures.sessions_open, 2).await;
    collector.serves_an_honest_agent().await;
}

#[tokio::test]
async fn an_identity_has_its_places_over_both_transports() {
    let collector = Collector::start(|options| options.sessions_per_identity_max = 1).await;
    let ledger = collector.ledger.ledger();
    let over_tcp = collector.greet_tcp(&mut Journal::new(1, ledger)).await;
    let second = collector.dial(client(&collector.authority.agent("till-7"))).await.unwrap();
    let closed = second.closed().await.to_string();
    assert!(closed.contains("sessions_per_identity_max"), "{closed}");
    let mut third = collector.connect_tcp(&collector.authority.agent("till-7")).await;
    assert_eq!(third.refusal().await, RefuseReason::Unavailable);
    assert_eq!(collector.listener.figures().crowded_identities, 2);
    drop((over_tcp, third));
    collector.figure(|figures| figures.sessions_open, 0).await;
    collector.serves_an_honest_agent().await;
}

#[tokio::test]
async fn an_address_has_only_so_many_handshakes() {
    let collector = Collector::start(|options| options.handshakes_per_address_max = 0).await;
    let refused = collector.dial(client(&collector.authority.agent("till-7"))).await;
    assert!(refused.is_err());
    assert_eq!(collector.listener.figures().crowded_addresses, 1);
}

#[tokio::test]
async fn an_address_has_only_so_many_handshakes_over_tcp_and_others_over_quic() {
    let collector = Collector::start(|options| options.handshakes_per_address_max = 1).await;
    let tcp = collector.listener.tcp_address().unwrap();
    let _mute = TcpStream::connect(tcp).await.unwrap();
    let mut refused = TcpStream::connect(tcp).await.unwrap();
    assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0, "closed");
    assert_eq!(collector.listener.figures().crowded_addresses, 1);
    collector.serves_an_honest_agent().await;
}

#[tokio::test]
async fn a_frame_that_is_announced_and_trickles_holds_room_for_one() {
    let collector = Collector::start(|options| {
        impatient(options);
        options.frame_bytes_in_flight_max = 16 << 20;
    })
    .await;
    let ledger = collector.ledger.ledger();
    let mut trickling = collector.greet(&mut Journal::new(1, ledger)).await;
    // The largest frame there is, and the first bytes of it.
    let largest = Frame::Batch(vec![0; (16 << 20) - 6]).encode().unwrap();
    trickling.send_bytes(&largest[..10]).await;
    while collector.listener.shared.frame_bytes.bytes_free() > 64 {
        tokio::task::yield_now().await;
    }
    // Whoever sends small frames needs no such room.
    let mut journal = Journal::new(2, ledger);
    let batch = journal.seal(&[("c", "m", 1, 5)]);
    let mut honest = collector.greet(&mut journal).await;
    honest.send(&Frame::Batch(batch.bytes)).await;
    honest.posted(1).await;
}

#[tokio::test]
async fn an_identity_whose_frames_trickle_leaves_room_for_others() {
    let collector = Collector::start(|options| {
        let large = u32::try_from(LARGE).unwrap();
        options.frame_bytes_in_flight_max = 4 * large;
        options.frame_max = Duration::from_secs(3_600);
    })
    .await;
    let mut trickling = Vec::new();
    for stream in 1..=5 {
        let mut agent = collector.greet_as("till-7", stream).await;
        agent.send_bytes(&large_frame()[..10]).await;
        trickling.push(agent);
    }
    while collector.listener.shared.frame_bytes.bytes_free() > 3 * LARGE {
        tokio::task::yield_now().await;
    }
    for stream in 11..=13 {
        let mut honest = collector.greet_as(&format!("till-{stream}"), stream).await;
        honest.send_bytes(&large_frame()).await;
        assert_eq!(
            honest.refusal().await,
            RefuseReason::Invalid,
            "it was received, and is no batch"
        );
    }
    drop(trickling);
}

#[tokio::test]
async fn a_frame_that_trickles_is_waited_for_longer_while_there_is_room() {
    for (parts, is_longer) in [(4, true), (1, false)] {
        let collector = Collector::start(|options| {
            // The first Confirm after Welcome comes between one turn and four.
            options.frame_max = Duration::from_millis(200);
            options.confirm_interval = Duration::from_millis(500);
            options.frame_bytes_in_flight_max = parts * u32::try_from(LARGE).unwrap();
        })
        .await;
        let mut agent = collector.greet_as("till-1", 1).await;
        agent.send_bytes(&large_frame()[..10]).await;
        let was_asked = matches!(agent.next().await, Some(Frame::Ack(_)));
        assert_eq!(was_asked, is_longer, "{parts}");
        collector.figure(|figures| figures.slow, 1).await;
    }
}

#[tokio::test]
async fn a_session_that_waits_for_room_goes_on() {
    let collector = Collector::start(|options| {
        options.frame_bytes_in_flight_max = u32::try_from(LARGE).unwrap();
        options.confirm_interval = Duration::from_millis(50);
    })
    .await;
    let mut first = collector.greet_as("till-1", 1).await;
    first.send_bytes(&large_frame()[..10]).await;
    while collector.listener.shared.frame_bytes.bytes_free() > 0 {
        tokio::task::yield_now().await;
    }
    let mut waiting = collector.greet_as("till-2", 2).await;
    waiting.send_bytes(&large_frame()).await;
    for _ in 0..3 {
        assert!(matches!(waiting.next().await, Some(Frame::Ack(Ack { confirm: true, .. }))));
    }
    collector.listener.shared.stopping.send_replace(true);
    assert_eq!(waiting.refusal().await, RefuseReason::Unavailable);
}

#[tokio::test]
async fn a_flood_of_confirms_ends_its_session() {
    let collector = Collector::start(impatient).await;
    let mut journal = Journal::new(1, collector.ledger.ledger());
    let mut agent = collector.greet(&mut journal).await;
    let confirm = Confirm {
        ledger_time: collector.ledger.now(),
        sequence: Sequence(0),
        accepted: 0,
        fence: journal.fence,
        extras: Vec::new(),
    };
    for _ in 0..100 {
        let frame = Frame::Confirm(confirm.clone()).encode().unwrap();
        if agent.send.write_all(&frame).await.is_err() {
            break;
        }
    }
    assert_eq!(agent.refusal().await, RefuseReason::Invalid);
    collector.serves_an_honest_agent().await;
}

#[tokio::test]
async fn a_war_of_two_copies_of_one_journal_leaves_others_alone() {
    let collector = Collector::start(impatient).await;
    let ledger = collector.ledger.ledger();
    let mut journal = Journal::new(1, ledger);
    let batch = journal.seal(&[("c", "m", 1, 5)]);
    for _ in 0..5 {
        let mut old = collector.greet(&mut journal).await;
        let _newer = collector.greet(&mut journal).await;
        old.send(&Frame::Batch(batch.bytes.clone())).await;
        assert!(matches!(old.refusal().await, RefuseReason::Fenced { .. }));
    }
    assert_eq!(collector.ledger.snapshot().unwrap().streams().len(), 1, "a war makes no streams");
    let mut last = collector.greet(&mut journal).await;
    last.send(&Frame::Batch(batch.bytes)).await;
    last.posted(1).await;
    collector.serves_an_honest_agent().await;
}

#[tokio::test]
async fn a_drainer_bills_what_the_agent_might_that_it_ships_for() {
    let pattern = |text| Pattern::parse(text).unwrap();
    let till = Identity {
        name: pattern("till-*"),
        meters: Patterns::new([pattern("*")]),
        customers: Patterns::new([pattern("c")]),
    };
    let grants = Grants { otherwise: Otherwise::Deny, identities: vec![till] };
    let collector = Collector::start(|options| options.grants = Arc::new(grants)).await;
    let mut journal = Journal::new(1, collector.ledger.ledger());
    let batches = [journal.seal(&[("c", "m", 1, 5)]), journal.seal(&[("d", "m", 1, 5)])];
    drop(collector.greet(&mut journal).await);
    let uri = SanType::URI("tidemark://drainer/node".try_into().unwrap());
    let drainer = collector.connect(&collector.authority.issue(uri)).await;
    let mut drainer = Collector::welcomed(drainer, &mut journal).await;
    for (batch, unauthorised) in batches.into_iter().zip([0, 1]) {
        drainer.send(&Frame::Batch(batch.bytes)).await;
        drainer.posted(batch.header.sequence.0).await;
        assert_eq!(collector.listener.figures().unauthorised, unauthorised);
    }
}
