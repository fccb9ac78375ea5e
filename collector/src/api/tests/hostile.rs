//! Clients that hold on to the door, each behind a door with room for one: the next is served.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::world::{TOKEN, World};
use super::{CATALOG, NOW};
use crate::api::DoorLimits;

async fn world() -> World {
    let limits = DoorLimits {
        connections_max: 1,
        head_read_max: Duration::from_millis(100),
        send_max: Duration::from_millis(200),
        ..DoorLimits::default()
    };
    World::start_behind(CATALOG, NOW, limits).await
}

async fn metric(world: &World, name: &str) -> u64 {
    let metrics = world.get("/metrics").await.body;
    let name = format!("tidemark_collector_{name} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name.as_str()));
    line.unwrap_or_else(|| panic!("{name} in {metrics}")).parse().unwrap()
}

/// Reads to the end, whether it comes as one or as a reset.
async fn read_all(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    drop(connection.read_to_end(&mut bytes).await);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_gone_in_time() {
    let world = world().await;
    for (sent, slow) in [("", 1), ("GET /healthz HTTP/1.1\r\nX: ", 2)] {
        let mut held = TcpStream::connect(world.address).await.unwrap();
        held.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(world.get("/healthz").await.status, 200, "{sent:?}");
        assert_eq!(metric(&world, "api_connections_slow_total").await, slow, "{sent:?}");
        drop(held);
    }
}

#[tokio::test]
async fn a_head_of_too_many_bytes_or_lines_is_refused() {
    let world = world().await;
    let lines = "X: 1\r\n".repeat(200);
    let bytes = format!("X: {}\r\n", "a".repeat(1 << 20));
    for (head, unreadable) in [(lines, 1), (bytes, 2)] {
        let mut connection = TcpStream::connect(world.address).await.unwrap();
        let request = format!("GET /healthz HTTP/1.1\r\nHost: t\r\n{head}\r\n");
        drop(connection.write_all(request.as_bytes()).await);
        let answer = read_all(&mut connection).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        assert_eq!(metric(&world, "api_requests_unreadable_total").await, unreadable);
    }
}

#[tokio::test]
async fn a_body_without_an_end_is_not_waited_for() {
    let world = world().await;
    let mut connection = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "GET /v1/streams HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000000000\r\n\r\nx"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    assert!(read_all(&mut connection).await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_who_reads_none_is_gone_in_time() {
    let world = world().await;
    let mut connection = TcpStream::connect(world.address).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    connection.write_all(request.repeat(50).as_bytes()).await.unwrap();
    let answers = read_all(&mut connection).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 50);

    // Its answers fill all buffers between, and it asks on.
    let mut deaf = TcpStream::connect(world.address).await.unwrap();
    let requests = "GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n".repeat(1_000);
    while deaf.write_all(requests.as_bytes()).await.is_ok() {}
    assert!(metric(&world, "api_connections_slow_total").await >= 1);
}

#[tokio::test]
async fn guesses_are_limited_and_known_clients_read_on() {
    let world = world().await;
    assert_eq!(world.get("/v1/streams").await.status, 200);
    let mut statuses = Vec::new();
    for number in 0..70 {
        let guess = format!("Bearer wrong-wrong-wrong-{number}");
        statuses.push(world.get_with("/v1/streams", Some(&guess)).await.status);
    }
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((count(401), count(429)), (60, 10));
    assert_eq!(metric(&world, "api_logins_failed_total").await, 60);
    assert_eq!(metric(&world, "api_logins_limited_total").await, 10);
    assert_eq!(world.get("/v1/streams").await.status, 200, "it has passed from here before");
}

#[tokio::test]
async fn guesses_are_limited_by_the_minute_though_ledger_time_stands_still() {
    let world = world().await;
    let before = world.ledger.now();
    for number in 0..61 {
        let guess = format!("Bearer wrong-wrong-wrong-{number}");
        drop(world.get_with("/v1/streams", Some(&guess)).await);
    }
    assert_eq!(world.get("/v1/streams").await.status, 429, "it has not passed from here");
    world.passed.store(61_000_000, Ordering::Relaxed);
    assert_eq!(world.ledger.now(), before);
    assert_eq!(world.get("/v1/streams").await.status, 200);
}

#[tokio::test]
async fn one_address_does_not_keep_others_out() {
    let limits =
        DoorLimits { connections_max: 4, connections_per_address_max: 3, ..DoorLimits::default() };
    let world = World::start_behind(CATALOG, NOW, limits).await;
    let from = async |address: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        socket.connect(world.address).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(from("127.0.0.2").await);
    }
    for _ in 0..3 {
        assert_eq!(read_all(&mut from("127.0.0.2").await).await, "", "closed at once");
    }
    assert_eq!(world.get("/healthz").await.status, 200, "of another address");
    assert_eq!(metric(&world, "api_connections_over_address_total").await, 3);
    // A place that is free again is had again, once the door has seen it.
    drop(held);
    let request = b"GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    loop {
        let mut again = from("127.0.0.2").await;
        drop(again.write_all(request).await);
        if read_all(&mut again).await.starts_with("HTTP/1.1 200") {
            break;
        }
    }
}
