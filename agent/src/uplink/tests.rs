//! What the agent is told of certificates that do not fit, over both transports.

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use tidemark_common::tls::Pem;

use super::chooser::Transport;
use super::peer::{Authority, Peer, block_on, listen, listen_tcp};
use super::*;

/// What the agent is told, at the latest at its first read: with TLS 1.3 a client that is refused is
/// connected first.
fn told(agent: &Pem, collector: &Pem, transport: Transport) -> LinkError {
    let (name, times) = ("collector.example", LinkTimes::default());
    let read = async |link: Result<link::Link, LinkError>| match link {
        Ok(mut link) => link.reader.next().await.unwrap_err(),
        Err(error) => error,
    };
    block_on(async {
        match transport {
            Transport::Quic => {
                let (endpoint, address) = listen(collector);
                let collector = async {
                    // The handshake fails here or there.
                    drop(endpoint.accept().await.unwrap().await);
                    endpoint.wait_idle().await;
                };
                let agent = async { read(quic::connect(agent, name, address, times).await).await };
                tokio::join!(agent, collector).0
            }
            Transport::Tcp => {
                let (listener, address) = listen_tcp().await;
                let agent = async { read(tcp::connect(agent, name, address, times).await).await };
                tokio::join!(agent, Peer::accept_tcp(&listener, collector)).0
            }
        }
    })
}

#[test]
fn certificates_that_do_not_fit_are_named() {
    let (ca, stranger, namesake) =
        (Authority::named("ca"), Authority::named("stranger"), Authority::named("ca"));
    let trusting = |pem: Pem, ca: &Authority| Pem { ca: ca.ca(), ..pem };
    let check = |agent: &Pem, collector: &Pem, parts: &[&str]| {
        for transport in Transport::ALL {
            let error = told(agent, collector, transport);
            let text = error.to_string();
            let name = transport.name();
            assert!(parts.iter().all(|part| text.contains(part)), "{name}: {text}");
            assert!(!error.is_silence(), "{name}: {text}");
        }
    };
    let its = "trust the collector: its certificate";
    let named = "for collector.example, valid from";
    check(&ca.agent(), &trusting(stranger.collector(), &ca), &[its, "unknown CA", named]);
    check(&ca.agent(), &trusting(namesake.collector(), &ca), &[its, "another key", named]);
    let expired =
        |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2001, 2, 3);
    let collector = ca.issue("collector.example", expired);
    check(&ca.agent(), &collector, &[its, "has expired", named, "to 2001-02-03 00:00 UTC"]);
    let collector =
        ca.issue("collector.example", |params| params.not_before = date_time_ymd(2090, 1, 1));
    check(&ca.agent(), &collector, &[its, "not valid yet", "from 2090-01-01 00:00 UTC"]);
    let elsewhere = ca.issue("elsewhere.example", |_| {});
    let parts = [its, "another name", "for elsewhere.example", "not valid for name \"collector"];
    check(&ca.agent(), &elsewhere, &parts);
    let for_clients = ca.issue("collector.example", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    check(&ca.agent(), &for_clients, &[its, "another use", named]);

    let own = "this agent's certificate";
    check(&trusting(stranger.agent(), &ca), &ca.collector(), &[own, "unknown CA"]);
    check(&trusting(namesake.agent(), &ca), &ca.collector(), &[own, "another key"]);
    let agent = ca.issue("tidemark://agent/test", expired);
    check(&agent, &ca.collector(), &[own, "has expired or is not valid yet"]);
    let for_servers = ca.issue("tidemark://agent/test", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    check(&for_servers, &ca.collector(), &[own, "another use"]);
}

#[test]
fn a_collector_of_an_older_tls_is_none() {
    let ca = Authority::named("ca");
    block_on(async {
        let (listener, address) = listen_tcp().await;
        let old = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(stream.read(&mut [0; 1_024]).await);
            // A fatal alert: protocol_version.
            stream.write_all(&[0x15, 3, 3, 0, 2, 2, 70]).await.unwrap();
        };
        let agent = ca.agent();
        let dialled = tcp::connect(&agent, "collector.example", address, LinkTimes::default());
        let (link, ()) = tokio::join!(dialled, old);
        assert!(matches!(link.unwrap_err(), LinkError::OldTls));
    });
}
