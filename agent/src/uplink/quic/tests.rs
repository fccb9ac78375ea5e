//! Real QUIC over loopback.

use std::time::Duration;

use tidemark_common::id::Sequence;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Ack, Frame, Throttle};

use super::super::link::LinkHandle;
use super::super::peer::{Authority, Peer, block_on, listen, send_and_hear};
use super::*;

async fn dial(pem: &Pem, address: SocketAddr) -> Result<Link, LinkError> {
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
            let shown = peer.connection().peer_identity().unwrap();
            let chain =
                shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
            assert_eq!(tls::agent_name(&chain).unwrap().as_str(), "test");
        };
        let agent = async {
            let mut link = dial(&ca.agent(), address).await.unwrap();
            for frame in &sent {
                send_and_hear(&mut link, frame, &ack(9)).await;
            }
            link.writer.finish().await.unwrap();
            assert!(link.handle.round_trip() > Some(Duration::ZERO));
            link.handle.close_and_wait(Duration::from_secs(5)).await;
        };
        tokio::join!(collector, agent);
    });
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
            error.to_string().contains(&format!("no answer from {address} over quic within 20 ms")),
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
            peer.writer.finish().await.unwrap();
            peer.close("going down");
            endpoint.wait_idle().await;
        };
        let agent = async {
            let mut link = dial(&ca.agent(), address).await.unwrap();
            link.writer.put(&ack(1)).unwrap();
            link.writer.flush().await.unwrap();
            assert_eq!(link.reader.next().await.unwrap(), ack(3));
            let LinkHandle::Quic { connection, .. } = &link.handle else { panic!("not QUIC") };
            connection.closed().await;
            link.writer.put(&ack(1)).unwrap();
            link.writer.flush().await.unwrap_err().to_string()
        };
        let text = tokio::join!(agent, collector).0;
        assert!(text.contains("the collector closed it: going down"), "{text}");
    });
}
