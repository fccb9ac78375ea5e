//! Real sockets that answer, refuse, or keep silent.

use std::io::ErrorKind;
use std::net::UdpSocket;

use super::super::peer::{Authority, Peer, block_on, listen, listen_at, listen_tcp};
use super::*;

const AUTO: Order = Order { first: Transport::Quic, second: Some(Transport::Tcp) };
const TCP_FIRST: Order = Order { first: Transport::Tcp, second: Some(Transport::Quic) };

fn target(collector: &str, pem: Pem, connect_max: u64) -> Target {
    Target {
        collector: collector.to_owned(),
        server_name: "collector.example".to_owned(),
        pem: Arc::new(pem),
        times: LinkTimes {
            connect_max: Duration::from_millis(connect_max),
            transport_head_start: Duration::from_millis(20),
            ..LinkTimes::default()
        },
    }
}

#[test]
fn a_name_is_tried_at_each_of_its_addresses() {
    let ca = Authority::named("ca");
    block_on(async {
        // On most machines ::1 and 127.0.0.1, of which only the second listens here.
        let (endpoint, address) = listen(&ca.collector());
        let name = format!("localhost:{}", address.port());
        let dialled = target(&name, ca.agent(), 5_000).connect(Order::only(Transport::Quic), 0);
        let (link, peer) = tokio::join!(dialled, async { endpoint.accept().await.unwrap().await });
        assert_eq!(link.unwrap().handle.transport(), Transport::Quic);
        assert_eq!(peer.unwrap().local_ip(), Some(address.ip()));

        let check = async |name: &str, expected: &str| {
            let dialled = target(name, ca.agent(), 20).connect(Order::only(Transport::Quic), 1);
            let error = dialled.await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check("127.0.0.1", "failed to find the collector's address").await;
        check("127.0.0.1:9", "no answer from 127.0.0.1:9").await;
    });
}

#[test]
fn where_udp_leads_nowhere_tcp_is_used() {
    let ca = Authority::named("ca");
    block_on(async {
        let (listener, address) = listen_tcp().await;
        let _black_hole = UdpSocket::bind(address).unwrap();
        for order in [AUTO, TCP_FIRST] {
            let dialled = target(&address.to_string(), ca.agent(), 5_000).connect(order, 0);
            let collector = ca.collector();
            let (link, peer) = tokio::join!(dialled, Peer::accept_tcp(&listener, &collector));
            assert_eq!(link.unwrap().handle.transport(), Transport::Tcp);
            peer.unwrap();
        }
    });
}

/// The kernel forbids UDP sockets, as a sandbox does; and TCP is there, or is not.
#[test]
fn where_udp_sockets_are_forbidden_tcp_is_used() {
    let ca = Authority::named("ca");
    block_on(async {
        let (listener, address) = listen_tcp().await;
        let target = &target(&address.to_string(), ca.agent(), 5_000);
        let connect = |transport| async move {
            match transport {
                Transport::Quic => Err(LinkError::Socket(ErrorKind::PermissionDenied.into())),
                Transport::Tcp => target.connect_over(transport, address).await,
            }
        };
        for order in [AUTO, TCP_FIRST] {
            let dialled = race(order, Duration::ZERO, connect);
            let collector = ca.collector();
            let both = tokio::try_join!(dialled, Peer::accept_tcp(&listener, &collector));
            assert_eq!(both.unwrap().0.handle.transport(), Transport::Tcp);
        }
        drop(listener);
        for order in [AUTO, TCP_FIRST] {
            let error = race(order, Duration::ZERO, connect).await.unwrap_err().to_string();
            let told = ["failed to open a UDP socket: permission denied", "Connection refused"];
            assert!(told.iter().all(|part| error.contains(part)), "{error}");
        }
    });
}

#[test]
fn where_tcp_is_refused_quic_is_used_whatever_came_first() {
    let ca = Authority::named("ca");
    block_on(async {
        let (listener, address) = listen_tcp().await;
        drop(listener);
        let endpoint = listen_at(&ca.collector(), address);
        for order in [AUTO, TCP_FIRST] {
            let dialled = target(&address.to_string(), ca.agent(), 5_000).connect(order, 0);
            let (link, _) =
                tokio::join!(dialled, async { endpoint.accept().await.unwrap().await.unwrap() });
            assert_eq!(link.unwrap().handle.transport(), Transport::Quic);
        }
    });
}

#[test]
fn what_a_collector_says_over_quic_is_not_asked_again_over_tcp() {
    let (ca, stranger) = (Authority::named("ca"), Authority::named("stranger"));
    block_on(async {
        let (listener, address) = listen_tcp().await;
        let endpoint = listen_at(&stranger.collector(), address);
        let target = target(&address.to_string(), ca.agent(), 5_000);
        let target = Target {
            times: LinkTimes { transport_head_start: Duration::MAX, ..target.times },
            ..target
        };
        let (link, _) =
            tokio::join!(target.connect(AUTO, 0), async { endpoint.accept().await.unwrap().await });
        let error = link.unwrap_err();
        assert!(matches!(error, LinkError::CollectorCertificate { .. }), "{error}");
        let accepted = tokio::select! {
            biased;
            _ = listener.accept() => true,
            () = std::future::ready(()) => false,
        };
        assert!(!accepted, "TCP was tried");
    });
}

#[test]
fn both_silences_are_told() {
    let ca = Authority::named("ca");
    block_on(async {
        let (listener, address) = listen_tcp().await;
        let _black_hole = UdpSocket::bind(address).unwrap();
        let check = async |order, parts: &[&str]| {
            let dialled = target(&address.to_string(), ca.agent(), 200).connect(order, 0);
            let error = dialled.await.unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        };
        let (quic, tcp) = (format!("{address} over quic"), format!("{address} over tcp"));
        check(AUTO, &[&quic, &tcp]).await;
        drop(listener);
        check(AUTO, &[&quic, "Connection refused"]).await;
        check(TCP_FIRST, &[&quic, "Connection refused"]).await;
    });
}
