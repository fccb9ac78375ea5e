//! The whole loop over real QUIC, against a collector that follows a script and a journal in memory.

use std::sync::Mutex;

use rcgen::date_time_ymd;
use tidemark_common::id::{
    Digest, EventNumber, Fence, LedgerId, OpeningId, RulesVersion, StreamId,
};
use tidemark_common::wire::{
    Ack, FirstHeld, HeldOpening, Hello, Refuse, RefuseReason, Rules, UniqueKey, Welcome,
};

use super::*;
use crate::journal::RawEventsHeld;
use crate::session::{JournalWrite, StreamFacts};
use crate::uplink::peer::{Authority, Peer, block_on, listen, listen_at, listen_tcp};

const LEDGER: LedgerId = LedgerId([1; 16]);

/// A journal and an intake in memory. Batch N is the bytes `[N; 3]`.
#[derive(Clone)]
struct Memory {
    facts: Arc<watch::Sender<StreamFacts>>,
    seen: watch::Receiver<StreamFacts>,
    written: Arc<Mutex<Vec<JournalWrite>>>,
}

impl Memory {
    fn holding(sealed: u64) -> Self {
        let (facts, seen) = watch::channel(StreamFacts {
            stream: StreamId([2; 16]),
            opening: OpeningId([3; 16]),
            ledger: None,
            posted_sequence: Sequence(0),
            posted_digest: digest(0),
            sealed_sequence: Sequence(sealed),
            accepted: 100,
            unsealed_events: 0,
            rules_version: RulesVersion(0),
            openings: vec![HeldOpening {
                opening: OpeningId([3; 16]),
                first: EventNumber(0),
                end: EventNumber(100),
            }],
            raw_events: RawEventsHeld::default(),
            conflict: None,
        });
        Self { facts: Arc::new(facts), seen, written: Arc::default() }
    }

    fn seal(&self, sequence: u64) {
        self.facts.send_modify(|facts| facts.sealed_sequence = Sequence(sequence));
    }

    fn written(&self) -> Vec<JournalWrite> {
        self.written.lock().unwrap().clone()
    }
}

impl Home for Memory {
    fn facts(&self) -> StreamFacts {
        self.facts.borrow().clone()
    }

    async fn changed(&mut self) -> Result<(), HomeError> {
        self.seen.changed().await.map_err(|_| HomeError::Stopped)
    }

    fn write(
        &self,
        write: JournalWrite,
    ) -> impl Future<Output = Result<(), HomeError>> + Send + 'static {
        let memory = self.clone();
        async move {
            memory.facts.send_modify(|facts| match &write {
                JournalWrite::Welcomed(welcomed) => {
                    facts.ledger = Some(welcomed.ledger);
                    facts.posted_sequence = welcomed.posted_sequence;
                }
                JournalWrite::Posted(sequence) => facts.posted_sequence = *sequence,
                JournalWrite::Conflict { message, .. } => facts.conflict = Some(message.clone()),
                JournalWrite::Archived(_) | JournalWrite::Closed => {}
            });
            memory.written.lock().unwrap().push(write);
            Ok(())
        }
    }

    fn look(
        &self,
        _: LedgerId,
        sequence: Sequence,
    ) -> impl Future<Output = Result<Looked, HomeError>> + Send + 'static {
        std::future::ready(Ok(Looked {
            digest: Some(digest(sequence.0)),
            first_held: Some(FirstHeld { sequence: Sequence(1), event: EventNumber(0) }),
        }))
    }

    fn read(
        &self,
        sequence: Sequence,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, HomeError>> + Send + 'static {
        std::future::ready(Ok(Some(vec![u8::try_from(sequence.0).unwrap(); 3])))
    }

    fn read_events(
        &self,
        _: (Sequence, u32),
        _: Sequence,
    ) -> impl Future<Output = Result<Option<EventsPiece>, HomeError>> + Send + 'static {
        std::future::ready(Ok(None))
    }

    fn barrier(&self) -> impl Future<Output = Option<(Sequence, u64)>> + Send + 'static {
        let facts = self.facts();
        std::future::ready(Some((facts.sealed_sequence, facts.accepted)))
    }

    fn room(&self, _: bool) {}
}

fn digest(sequence: u64) -> Digest {
    Digest([u8::try_from(sequence).unwrap(); 32])
}

fn config(agent: Pem, collectors: Vec<String>) -> DriverConfig {
    DriverConfig {
        collectors,
        server_name: Some("collector.example".to_owned()),
        transport: TransportChoice::Auto,
        quic_probe_interval: Duration::from_secs(60),
        pem: watch::channel(Arc::new(agent)).1,
        session: SessionConfig {
            batches_in_flight_max: 8,
            session_millis_max: 3_600_000,
            agent: "test".to_owned(),
        },
        times: LinkTimes::default(),
        close_max: Duration::from_secs(5),
        clock: || Timestamp(1_000),
    }
}

fn welcome(posted: u64) -> Frame {
    Frame::Welcome(Welcome {
        ledger: LEDGER,
        fence: Fence(7),
        posted_sequence: Sequence(posted),
        posted_digest: digest(posted),
        ledger_time: Timestamp(3_000),
        header_version: 1,
        body_version: 2,
        rules: Some(Rules { version: RulesVersion(3), ..Rules::default() }),
        unique_key: UniqueKey { id: 1, key: [0; 32] },
        batches_in_flight_max: 4,
        extras: vec![],
    })
}

fn ack(posted: u64, confirm: bool) -> Frame {
    let (posted_sequence, ledger_time) = (Sequence(posted), Timestamp(4_000));
    Frame::Ack(Ack { posted_sequence, ledger_time, confirm, extras: vec![] })
}

async fn hello(peer: &mut Peer) -> Hello {
    match peer.next().await.unwrap() {
        Frame::Hello(hello) => hello,
        frame => panic!("{frame:?}"),
    }
}

async fn batches(peer: &mut Peer, sequences: std::ops::RangeInclusive<u8>) {
    for sequence in sequences {
        assert_eq!(peer.next().await.unwrap(), Frame::Batch(vec![sequence; 3]));
    }
}

#[test]
fn a_stream_is_shipped_confirmed_and_closed() {
    let ca = Authority::named("ca");
    let memory = Memory::holding(2);
    block_on(async {
        let (endpoint, address) = listen(&ca.collector());
        let (driver, mut status) =
            Driver::new(config(ca.agent(), vec![address.to_string()]), memory.clone()).unwrap();
        let (seal_all, sealed) = tokio::sync::oneshot::channel();
        let collector = async {
            let mut peer = Peer::accept(endpoint.accept().await.unwrap()).await;
            let hello = hello(&mut peer).await;
            assert_eq!(
                (hello.sealed_sequence, hello.accepted, hello.openings.len()),
                (Sequence(2), 100, 1)
            );
            peer.send(&welcome(0)).await;
            batches(&mut peer, 1..=2).await;
            peer.send(&ack(2, false)).await;
            let live =
                status.wait_for(|status| status.in_flight == 0 && status.fence.is_some()).await;
            let live = live.unwrap().clone();
            assert_eq!(live.state, UplinkState::Live);
            assert_eq!((live.ledger, live.collector), (Some(LEDGER), address.to_string()));
            assert!(live.rtt_micros.is_some() && live.clock_offset_millis.is_some());

            memory.seal(3);
            batches(&mut peer, 3..=3).await;
            peer.send(&ack(3, true)).await;
            let Frame::Confirm(confirm) = peer.next().await.unwrap() else { panic!("no Confirm") };
            assert_eq!(
                (confirm.sequence, confirm.accepted, confirm.fence),
                (Sequence(3), 100, Fence(7))
            );

            seal_all.send(()).unwrap();
            let Frame::Close(close) = peer.next().await.unwrap() else { panic!("no Close") };
            assert_eq!((close.sequence, close.accepted), (Sequence(3), 100));
            peer.close("");
        };
        let (ended, ()) = tokio::join!(driver.run(async { sealed.await.unwrap() }), collector);
        ended.unwrap();
        assert_eq!(status.borrow().state, UplinkState::Closed);
    });
    let written = memory.written();
    assert!(
        matches!(&written[0], JournalWrite::Welcomed(welcomed) if welcomed.posted_sequence == Sequence(0)),
        "{written:?}"
    );
    let mut posted = written.iter().filter_map(|write| match write {
        JournalWrite::Posted(sequence) => Some(sequence.0),
        JournalWrite::Welcomed(_)
        | JournalWrite::Archived(_)
        | JournalWrite::Conflict { .. }
        | JournalWrite::Closed => None,
    });
    assert_eq!(posted.next_back(), Some(3));
    assert_eq!(written.last(), Some(&JournalWrite::Closed));
}

#[test]
fn after_a_failure_the_next_collector_is_tried_and_resumes() {
    let ca = Authority::named("ca");
    let memory = Memory::holding(3);
    block_on(async {
        let (first, first_address) = listen(&ca.collector());
        let (second, second_address) = listen(&ca.collector());
        let collectors = vec![first_address.to_string(), second_address.to_string()];
        let (driver, mut status) =
            Driver::new(config(ca.agent(), collectors), memory.clone()).unwrap();
        let collectors = async {
            let mut peer = Peer::accept(first.accept().await.unwrap()).await;
            hello(&mut peer).await;
            peer.send(&welcome(0)).await;
            batches(&mut peer, 1..=3).await;
            // Posted two, and no ack leaves before it dies.
            peer.close("out of memory");

            let mut peer = Peer::accept(second.accept().await.unwrap()).await;
            assert_eq!(hello(&mut peer).await.ledger, Some(LEDGER));
            peer.send(&welcome(2)).await;
            batches(&mut peer, 3..=3).await;
            let live =
                status.wait_for(|status| status.state == UplinkState::Live).await.unwrap().clone();
            assert_eq!(live.collector, second_address.to_string());
            let error = live.last_error.unwrap();
            assert!(
                error.starts_with(&first_address.to_string()) && error.ends_with("out of memory"),
                "{error}"
            );
        };
        tokio::select! {
            ended = driver.run(pending()) => panic!("{ended:?}"),
            () = collectors => {}
        }
    });
}

#[test]
fn a_session_over_tcp_drains_and_returns_to_quic_once_that_gets_through() {
    let ca = Authority::named("ca");
    let memory = Memory::holding(2);
    block_on(async {
        let (listener, address) = listen_tcp().await;
        let black_hole = std::net::UdpSocket::bind(address).unwrap();
        let mut config = config(ca.agent(), vec![address.to_string()]);
        config.times.transport_head_start = Duration::from_millis(20);
        config.quic_probe_interval = Duration::from_millis(100);
        let (driver, mut status) = Driver::new(config, memory.clone()).unwrap();
        let (seal_all, sealed) = tokio::sync::oneshot::channel();
        let mut over = async |transport| {
            let is_so = |status: &UplinkStatus| {
                status.transport == Some(transport) && status.state == UplinkState::Live
            };
            status.wait_for(is_so).await.unwrap();
        };
        let collector = async {
            let mut peer = Peer::accept_tcp(&listener, &ca.collector()).await.unwrap();
            hello(&mut peer).await;
            peer.send(&welcome(0)).await;
            batches(&mut peer, 1..=2).await;
            over(Transport::Tcp).await;
            // Now QUIC gets through, and a batch is on its way.
            drop(black_hole);
            let endpoint = listen_at(&ca.collector(), address);
            let probe = endpoint.accept().await.unwrap().await.unwrap();
            probe.closed().await;
            peer.send(&ack(2, false)).await;
            // Everything was acknowledged before the link was left.
            assert!(matches!(peer.next().await, Err(LinkError::Closed { .. })));
            assert!(memory.written().contains(&JournalWrite::Posted(Sequence(2))));

            let mut peer = Peer::accept(endpoint.accept().await.unwrap()).await;
            assert_eq!(hello(&mut peer).await.posted_sequence, Sequence(2));
            peer.send(&welcome(2)).await;
            peer.send(&ack(2, false)).await;
            over(Transport::Quic).await;
            seal_all.send(()).unwrap();
            let Frame::Close(_) = peer.next().await.unwrap() else { panic!("no Close") };
            peer.close("");
        };
        let (ended, ()) = tokio::join!(driver.run(async { sealed.await.unwrap() }), collector);
        ended.unwrap();
        assert_eq!(status.borrow().last_error, None);
    });
}

/// A session over TCP whose certificate is judged late; meanwhile there is a newer one, with which QUIC is probed.
#[test]
fn a_refusal_names_the_certificate_that_was_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
    let (ca, stranger) = (Authority::named("ca"), Authority::named("stranger"));
    let until = |year| {
        ca.issue("tidemark://agent/test", |params| params.not_after = date_time_ymd(year, 1, 1))
    };
    block_on(async {
        let (listener, address) = listen_tcp().await;
        let black_hole = tokio::net::UdpSocket::bind(address).await.unwrap();
        let (behind, behind_address) = listen_tcp().await;
        let (newest, pem) = watch::channel(Arc::new(until(2098)));
        let mut config = config(ca.agent(), vec![address.to_string()]);
        config.pem = pem;
        config.times.transport_head_start = Duration::from_millis(20);
        config.quic_probe_interval = Duration::from_millis(100);
        let (driver, mut status) = Driver::new(config, Memory::holding(0)).unwrap();
        // Where QUIC is tried; each attempt has a connection id of its own.
        let tried = async || {
            let mut packet = [0; 2_048];
            black_hole.recv(&mut packet).await.unwrap();
            packet[6..14].to_vec()
        };
        let between = async {
            let first = tried().await;
            let (mut agent, _) = listener.accept().await.unwrap();
            newest.send(Arc::new(until(2099))).unwrap();
            let mut collector = tokio::net::TcpStream::connect(behind_address).await.unwrap();
            let (mut from_agent, mut to_agent) = agent.split();
            let (mut from_collector, mut to_collector) = collector.split();
            // One TLS record, behind a head of 5 bytes: enough for the agent to be connected.
            let mut record = vec![0; 5];
            from_agent.read_exact(&mut record).await.unwrap();
            let end = 5 + usize::from(u16::from_be_bytes([record[3], record[4]]));
            record.resize(end, 0);
            from_agent.read_exact(&mut record[5..]).await.unwrap();
            to_collector.write_all(&record).await.unwrap();
            let there = async {
                while tried().await == first {}
                copy(&mut from_agent, &mut to_collector).await
            };
            let back = copy(&mut from_collector, &mut to_agent);
            let collector = Pem { ca: stranger.ca(), ..ca.collector() };
            let refused = async { assert!(Peer::accept_tcp(&behind, &collector).await.is_err()) };
            drop(tokio::join!(there, back, refused));
            pending::<()>().await;
        };
        let told = async {
            let status = status.wait_for(|status| status.last_error.is_some()).await.unwrap();
            status.last_error.clone().unwrap()
        };
        let told = tokio::select! {
            ended = driver.run(pending()) => panic!("{ended:?}"),
            () = between => unreachable!("it waits at its end"),
            told = told => told,
        };
        let parts = ["this agent's certificate", "to 2098-01-01 00:00 UTC"];
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    });
}

#[test]
fn a_dead_address_is_left_in_seconds() {
    let ca = Authority::named("ca");
    let memory = Memory::holding(1);
    block_on(async {
        // Both keep silent: the kernel takes what is sent, and nobody answers.
        let (_silent, dead) = listen_tcp().await;
        let _black_hole = std::net::UdpSocket::bind(dead).unwrap();
        let (endpoint, address) = listen(&ca.collector());
        let collectors = vec![dead.to_string(), address.to_string()];
        let (driver, mut status) = Driver::new(config(ca.agent(), collectors), memory).unwrap();
        let collector = async {
            let mut peer = Peer::accept(endpoint.accept().await.unwrap()).await;
            hello(&mut peer).await;
            peer.send(&welcome(1)).await;
            status.wait_for(|status| status.state == UplinkState::Live).await.unwrap();
        };
        tokio::select! {
            ended = driver.run(pending()) => panic!("{ended:?}"),
            // 7 s by the agent's own limits; the rest is for a busy machine.
            arrived = timeout(Duration::from_secs(20), collector) => arrived.unwrap(),
        }
        let error = status.borrow().last_error.clone().unwrap();
        assert!(error.contains("over quic") && error.contains("over tcp"), "{error}");
    });
}

#[test]
fn a_conflict_is_stored_and_ends_the_driver() {
    let ca = Authority::named("ca");
    let memory = Memory::holding(1);
    let stop = |memory: Memory| {
        block_on(async {
            let (endpoint, address) = listen(&ca.collector());
            let (driver, _status) =
                Driver::new(config(ca.agent(), vec![address.to_string()]), memory).unwrap();
            let collector = async {
                let mut peer = Peer::accept(endpoint.accept().await.unwrap()).await;
                hello(&mut peer).await;
                let reason = RefuseReason::Conflict { sequence: Sequence(1), openings: vec![] };
                peer.send(&Frame::Refuse(Refuse {
                    reason,
                    message: "other bytes".to_owned(),
                    extras: vec![],
                }))
                .await;
                pending::<()>().await;
            };
            tokio::select! {
                ended = driver.run(pending()) => ended.unwrap_err().to_string(),
                () = collector => unreachable!(),
            }
        })
    };
    let message = stop(memory.clone());
    assert!(message.contains("(other bytes)"), "{message}");
    let written = memory.written();
    assert!(
        matches!(&written[..], [JournalWrite::Conflict { message: stored, answer: Some(answer) }]
            if *stored == message && answer.settled.is_empty()),
        "{written:?}"
    );
    // Started again, it says the same and does not even connect.
    assert_eq!(stop(memory), message);
}

#[test]
fn a_driver_that_cannot_work_does_not_begin() {
    let pem = Pem { ca: vec![], certificate: vec![], key: vec![] };
    let check = |collectors: &[&str], expected: &str| {
        let collectors = collectors.iter().map(|name| (*name).to_owned()).collect();
        let error = Driver::new(config(pem.clone(), collectors), Memory::holding(0))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&[], "no collector is configured");
    check(&["127.0.0.1:8129"], "CA certificate");
}
