//! Real TLS over TCP on loopback.

use std::time::Duration;

use tidemark_common::id::Sequence;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Ack, Frame};
use tokio::net::TcpSocket;

use super::super::peer::{Authority, Peer, block_on, listen_tcp, send_and_hear};
use super::*;

async fn dial(pem: &Pem, address: SocketAddr) -> Result<Link, LinkError> {
    connect(pem, "collector.example", address, LinkTimes::default()).await
}

fn ack(sequence: u64) -> Frame {
    let (posted_sequence, ledger_time) = (Sequence(sequence), Timestamp(1));
    Frame::Ack(Ack { posted_sequence, ledger_time, confirm: false, extras: vec![] })
}

#[test]
fn frames_go_both_ways_whole_and_in_order() {
    let ca = Authority::named("ca");
    block_on(async {
        let (listener, address) = listen_tcp().await;
        // Larger than all buffers, so that both ends wait for each other on the way.
        let large = Frame::Batch((0..10_000_000_u32).map(|byte| byte.to_le_bytes()[0]).collect());
        let sent = [large, ack(1), ack(2)];
        let collector = async {
            let mut peer = Peer::accept_tcp(&listener, &ca.collector()).await.unwrap();
            for expected in &sent {
                assert!(peer.next().await.unwrap() == *expected, "another frame came");
                peer.send(&ack(9)).await;
            }
            assert!(matches!(peer.next().await, Err(LinkError::Closed { .. })));
            peer.send(&ack(10)).await;
            peer.writer.finish().await.unwrap();
        };
        let agent = async {
            let mut link = dial(&ca.agent(), address).await.unwrap();
            assert_eq!((link.handle.transport(), link.handle.round_trip()), (Transport::Tcp, None));
            for frame in &sent {
                send_and_hear(&mut link, frame, &ack(9)).await;
            }
            link.writer.finish().await.unwrap();
            // What the collector says after this end has finished is still heard.
            assert_eq!(link.reader.next().await.unwrap(), ack(10));
            assert!(matches!(link.reader.next().await, Err(LinkError::Closed { .. })));
        };
        tokio::join!(collector, agent);
    });
}

#[test]
fn what_tls_has_taken_is_written_before_the_writer_is_idle() {
    let ca = Authority::named("ca");
    block_on(async {
        // A frame that TLS takes at once, and the sockets do not.
        let [door, socket] = [(), ()].map(|()| TcpSocket::new_v4().unwrap());
        door.set_recv_buffer_size(4 << 10).unwrap();
        door.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = door.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        socket.set_send_buffer_size(4 << 10).unwrap();
        let frame = Frame::Batch(vec![7; 60 << 10]);
        let agent = async {
            let stream = socket.connect(address).await.unwrap();
            let config = tls::client_config(&ca.agent()).unwrap();
            let name = ServerName::try_from("collector.example").unwrap();
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
            let mut link = Link::over_tcp(stream.into());
            link.writer.put(&frame).unwrap();
            link.writer.flush().await.unwrap();
            assert!(link.writer.is_idle());
            link
        };
        let collector = async {
            let mut peer = Peer::accept_tcp(&listener, &ca.collector()).await.unwrap();
            timeout(Duration::from_secs(30), peer.next())
                .await
                .expect("the rest never comes")
                .unwrap()
        };
        let (_link, received) = tokio::join!(agent, collector);
        assert!(received == frame);
    });
}

#[test]
fn nobody_there_and_nobody_who_answers() {
    let ca = Authority::named("ca");
    block_on(async {
        // The kernel accepts, and no program does.
        let (_silent, address) = listen_tcp().await;
        let times = LinkTimes { connect_max: Duration::from_millis(50), ..LinkTimes::default() };
        let check = async |address, expected: String| {
            let error =
                connect(&ca.agent(), "collector.example", address, times).await.unwrap_err();
            assert!(error.to_string().contains(&expected), "{error}");
            assert!(error.is_silence(), "{error}");
        };
        check(address, format!("no answer from {address} over tcp within 50 ms")).await;
        let (closed, address) = listen_tcp().await;
        drop(closed);
        check(address, format!("failed to connect to {address} over tcp: Connection refused"))
            .await;
    });
}

#[test]
fn only_a_collector_is_spoken_to() {
    let ca = Authority::named("ca");
    block_on(async {
        let (listener, address) = listen_tcp().await;
        let another_service = async {
            let mut config = tls::server_config(&ca.collector()).unwrap();
            config.alpn_protocols.clear();
            let (stream, _) = listener.accept().await.unwrap();
            tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.map(drop)
        };
        let agent = ca.agent();
        let (_, link) = tokio::join!(another_service, dial(&agent, address));
        assert!(matches!(link.unwrap_err(), LinkError::OtherProtocol));
    });
}
