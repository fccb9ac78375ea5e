use std::collections::VecDeque;

use axum::http::header::RETRY_AFTER;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::intake::passage::fake::{FakeIntake, adopt, answering_passage, next, passage, rules};
use crate::intake::{Inbox, Submit};

/// Longer than any wait of the door. Only on a paused clock.
const LONG: Duration = Duration::from_secs(3_600);

struct Served {
    address: SocketAddr,
    passage: Passage,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

fn open(passage: Passage, token: Option<&str>) -> Served {
    let config = HttpConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        token: token.map(HttpToken::new),
    };
    let door = HttpDoor::bind(config, &passage).unwrap();
    let address = door.addresses()[0];
    let (stop, shutdown) = watch::channel(false);
    Served { address, passage, stop, serving: tokio::spawn(door.serve(shutdown)) }
}

fn answering() -> (Served, FakeIntake) {
    let (passage, intake) = answering_passage(Some(rules(1)));
    (open(passage, None), intake)
}

fn silent() -> (Served, Inbox) {
    let (passage, inbox) = passage(Some(rules(1)));
    (open(passage, None), inbox)
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut client = self.connect().await;
        let head = format!(
            "{head}\r\nhost: agent\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        client
    }

    async fn post(&self, headers: &str, body: &[u8]) -> Reply {
        reply(self.send(&format!("POST /api/v1/events HTTP/1.1\r\n{headers}"), body).await).await
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.serving.await.unwrap();
        while self.passage.counts(Door::Http).connections_open.value() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: serde_json::Value,
}

async fn reply(mut client: TcpStream) -> Reply {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body =
        if body.is_empty() { serde_json::Value::Null } else { serde_json::from_str(body).unwrap() };
    if status >= 400 {
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert_eq!(body["status"], status, "{body}");
        for member in ["type", "title", "detail", "remedy"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
        }
    }
    Reply { status, head: head.to_owned(), body }
}

impl Reply {
    /// `status accepted+duplicates+not_metered`, then `index:id:reason` of each rejected event.
    fn summary(&self) -> String {
        let Some(rejected) = self.body["rejected"].as_array() else {
            return self.status.to_string();
        };
        let counts = ["accepted", "duplicates", "not_metered"]
            .map(|name| self.body[name].to_string())
            .join("+");
        let mut shown = format!("{} {counts}", self.status);
        for event in rejected {
            assert!(!event["remedy"].as_str().unwrap().is_empty());
            let id = event["id"].as_str().unwrap_or("-");
            shown.push_str(&format!(
                " {}:{id}:{}",
                event["index"],
                event["reason"].as_str().unwrap()
            ));
        }
        shown
    }
}

const ONE: &str = "content-type: application/cloudevents+json";
const BATCH: &str = "content-type: application/cloudevents-batch+json; charset=UTF-8";
const EITHER: &str = "content-type: Application/JSON";

fn event(id: &str) -> String {
    format!(r#"{{"specversion":"1.0","type":"calls","source":"s","id":"{id}","subject":"acme"}}"#)
}

async fn check(headers: &str, body: &[u8], expected: &str) {
    let (door, _) = answering();
    assert_eq!(
        door.post(headers, body).await.summary(),
        expected,
        "{}",
        String::from_utf8_lossy(body)
    );
    door.stop().await;
}

#[tokio::test]
async fn one_event_a_batch_or_either() {
    let batch = format!("[{}, {}]", event("a"), event("b"));
    check(ONE, event("a").as_bytes(), "204").await;
    check(BATCH, batch.as_bytes(), "204").await;
    check(BATCH, b" [ ] ", "204").await;
    check(EITHER, event("a").as_bytes(), "204").await;
    check(EITHER, format!(" \n{batch}").as_bytes(), "204").await;
    check(ONE, batch.as_bytes(), "400").await;
}

#[tokio::test]
async fn a_bad_event_never_costs_its_neighbours() {
    let around = |bad: &str| format!("[{},{bad},{}]", event("a"), event("b"));
    let (door, intake) = answering();
    for (bad, expected) in [
        ("{}", "200 2+0+0 1:-:bad_cloudevent"),
        ("7", "200 0+2+0 1:-:bad_cloudevent"),
        (r#"{"id":"x"}"#, "200 0+2+0 1:x:bad_cloudevent"),
        (&event("c").replace("acme", ""), "200 0+2+0 1:c:bad_customer"),
        (&event("c").replace("calls", "Calls"), "200 0+2+0 1:c:bad_meter"),
        (&event("c").replace("acme", "\\u0000"), "200 0+2+0 1:c:bad_customer"),
    ] {
        assert_eq!(door.post(BATCH, around(bad).as_bytes()).await.summary(), expected, "{bad}");
    }
    let taken = intake.taken();
    assert_eq!(taken[1], "http bad_cloudevent {}", "a dead letter is the event's own text");
    assert_eq!(taken[4], "http bad_cloudevent 7");
    door.stop().await;
}

#[tokio::test]
async fn what_none_can_be_taken_of_is_a_problem() {
    check(ONE, b"{}", "400 0+0+0 0:-:bad_cloudevent").await;
    check(BATCH, b"[1,2]", "400 0+0+0 0:-:bad_cloudevent 1:-:bad_cloudevent").await;
    check(ONE, b"", "400").await;
    check(ONE, b"{", "400").await;
    check(ONE, b"\xff\x00\x01", "400").await;
    check(BATCH, b"{}", "400").await;
    check(BATCH, "[".repeat(100_000).as_bytes(), "400").await;
    check("content-type: text/plain", b"{}", "415").await;
    check("x: y", b"{}", "415").await;
    check(BATCH, format!("[{}0]", "0,".repeat(cloudevents::EVENTS_MAX)).as_bytes(), "413").await;
}

#[tokio::test]
async fn a_duplicate_is_acknowledged() {
    let (door, _) = answering();
    assert_eq!(door.post(ONE, event("a").as_bytes()).await.summary(), "204");
    assert_eq!(door.post(ONE, event("a").as_bytes()).await.summary(), "204");
    door.stop().await;
}

#[tokio::test]
async fn a_body_may_be_so_long_and_no_longer() {
    let padded = |bytes: usize| {
        let mut body = event("a").into_bytes();
        body.resize(bytes, b' ');
        body
    };
    check(ONE, &padded(BODY_BYTES_MAX), "204").await;
    check(ONE, &padded(BODY_BYTES_MAX + 1), "413").await;
    let (door, _) = answering();
    let mut chunked = door.connect().await;
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n{ONE}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    chunked.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..5 {
        chunked.write_all(b"100000\r\n").await.unwrap();
        chunked.write_all(&vec![b' '; 1 << 20]).await.unwrap();
        chunked.write_all(b"\r\n").await.unwrap();
    }
    chunked.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(reply(chunked).await.summary(), "413");
    let huge = door.connect().await;
    let head = "POST /api/v1/events HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-length: 99999999999\r\n";
    let mut huge = huge;
    huge.write_all(format!("{head}{ONE}\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(reply(huge).await.summary(), "413");
    door.stop().await;
}

#[tokio::test]
async fn other_methods_and_paths_are_told_the_right_one() {
    let (door, _) = answering();
    let get = reply(door.send("GET /api/v1/events HTTP/1.1", b"").await).await;
    assert_eq!(get.status, 405);
    assert!(get.head.to_ascii_lowercase().contains("allow: post"), "{}", get.head);
    assert_eq!(reply(door.send("POST / HTTP/1.1", b"").await).await.status, 404);
    door.stop().await;
}

#[tokio::test]
async fn a_token_is_asked_for_only_if_configured() {
    let (passage, _intake) = answering_passage(Some(rules(1)));
    let door = open(passage, Some("secret"));
    let body = event("a");
    for (authorization, expected) in [
        ("x: y", 401),
        ("authorization: Bearer wrong", 401),
        ("authorization: secret", 401),
        ("authorization: Basic secret", 401),
        ("authorization: Bearer secret", 204),
        ("authorization: bearer  secret ", 204),
    ] {
        let reply = door.post(&format!("{ONE}\r\n{authorization}"), body.as_bytes()).await;
        assert_eq!(reply.status, expected, "{authorization}");
        assert_eq!(reply.head.contains("www-authenticate: Bearer"), expected == 401);
    }
    door.stop().await;
    check(&format!("{ONE}\r\nauthorization: Bearer any"), body.as_bytes(), "204").await;
}

#[tokio::test]
async fn without_rules_the_answer_is_come_again() {
    let (passage, _inbox) = passage(None);
    let door = open(passage, None);
    let reply = door.post(ONE, event("a").as_bytes()).await;
    assert_eq!(reply.status, 503);
    assert!(reply.head.contains("retry-after: 2"), "{}", reply.head);
    door.stop().await;
}

#[test]
fn a_full_journal_takes_nothing() {
    let known = || Some(Arc::new(rules(1)));
    assert!(takes(known(), false).is_ok());
    for (rules, full) in [(known(), true), (None, false), (None, true)] {
        let response = takes(rules, full).unwrap_err().into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
    }
}

#[tokio::test]
async fn a_body_is_read_again_when_the_rules_have_changed() {
    let (door, mut inbox) = silent();
    let client =
        door.send(&format!("POST /api/v1/events HTTP/1.1\r\n{ONE}"), event("a").as_bytes()).await;
    let Submit { submission, reply: answer } = next(&mut inbox).await;
    assert_eq!(submission.rules, Some(rules(1).version));
    adopt(&mut inbox, &door.passage.intake, 2).await;
    answer.send(Answered::RulesChanged).unwrap();
    let Submit { submission, reply: answer } = next(&mut inbox).await;
    assert_eq!(submission.rules, Some(rules(2).version));
    answer.send(FakeIntake::default().judge(&submission)).unwrap();
    assert_eq!(reply(client).await.summary(), "204");
    door.stop().await;
}

#[tokio::test]
async fn rules_that_keep_changing_are_not_followed_for_ever() {
    let (door, mut inbox) = silent();
    let client =
        door.send(&format!("POST /api/v1/events HTTP/1.1\r\n{ONE}"), event("a").as_bytes()).await;
    for _ in 0..PARSE_TRIES_MAX {
        next(&mut inbox).await.reply.send(Answered::RulesChanged).unwrap();
    }
    assert_eq!(reply(client).await.summary(), "503");
    door.stop().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable_nor_when_intake_has_stopped() {
    let (door, mut inbox) = silent();
    let head = format!("POST /api/v1/events HTTP/1.1\r\n{ONE}");
    let client = door.send(&head, event("a").as_bytes()).await;
    let Submit { submission, reply: answer } = next(&mut inbox).await;
    tokio::task::yield_now().await;
    assert_eq!(
        client.try_read(&mut [0; 1]).unwrap_err().kind(),
        io::ErrorKind::WouldBlock,
        "no answer yet"
    );
    answer.send(FakeIntake::default().judge(&submission)).unwrap();
    assert_eq!(reply(client).await.summary(), "204");

    let client = door.send(&head, event("b").as_bytes()).await;
    drop(next(&mut inbox).await);
    assert_eq!(reply(client).await.summary(), "503");
    drop(inbox);
    let client = door.send(&head, event("c").as_bytes()).await;
    assert_eq!(reply(client).await.summary(), "503");
    door.stop().await;
}

#[tokio::test]
async fn a_client_that_left_before_its_answer_harms_nobody() {
    let (door, mut inbox) = silent();
    let head = format!("POST /api/v1/events HTTP/1.1\r\n{ONE}");
    drop(door.send(&head, event("a").as_bytes()).await);
    let Submit { submission, reply: answer } = next(&mut inbox).await;
    // The passage still listens, though the request is gone.
    answer.send(FakeIntake::default().judge(&submission)).unwrap();
    let client = door.send(&head, event("b").as_bytes()).await;
    let Submit { submission, reply: answer } = next(&mut inbox).await;
    answer.send(FakeIntake::default().judge(&submission)).unwrap();
    assert_eq!(reply(client).await.summary(), "204");
    door.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_an_idle_connection_and_a_trickle_are_cut_off() {
    let (door, _) = answering();
    let mut slow = door.connect().await;
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: a\r\n{ONE}\r\ncontent-length: 100\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    slow.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");

    let timed_out = |door: &Served| door.passage.counts(Door::Http).connections_timed_out.value();
    let before = timed_out(&door);
    let mut idle = door.connect().await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(timed_out(&door), before + 1);

    let mut trickle = door.connect().await;
    let mut sent = Duration::ZERO;
    while trickle.write_all(b"P").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        sent += Duration::from_secs(1);
        assert!(sent < LONG, "it is never cut off");
    }
    door.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_too_long_is_come_again() {
    let (door, mut inbox) = silent();
    let client =
        door.send(&format!("POST /api/v1/events HTTP/1.1\r\n{ONE}"), event("a").as_bytes()).await;
    let unanswered = next(&mut inbox).await;
    assert_eq!(reply(client).await.summary(), "503");
    drop(unanswered);
    door.stop().await;
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_closed_at_once() {
    let (door, _) = answering();
    let mut clients = VecDeque::new();
    for _ in 0..CONNECTIONS_MAX {
        clients.push_back(door.connect().await);
    }
    let counts = door.passage.counts(Door::Http);
    let mut refused = door.connect().await;
    assert!(refused.read(&mut [0; 1]).await.map_or(true, |read| read == 0));
    assert_eq!((counts.connections_open.value(), counts.connections_refused.value()), (128, 1));
    drop(clients.pop_front());
    while counts.connections_open.value() == 128 {
        tokio::task::yield_now().await;
    }
    assert_eq!(door.post(ONE, event("a").as_bytes()).await.summary(), "204");
    drop(clients);
    door.stop().await;
}

#[tokio::test]
async fn hostile_heads_leave_the_door_serving() {
    let (door, _) = answering();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    for noise in [
        b"\x00\xff\x16\x03\x01\r\n\r\n".as_slice(),
        b"GET / HTTP/9.9\r\n\r\n",
        many.as_bytes(),
        b"\r\n\r\nx\r\n",
    ] {
        let mut client = door.connect().await;
        drop(client.write_all(noise).await);
        drop(client.shutdown().await);
        // Whatever it says, it ends.
        drop(client.read_to_end(&mut Vec::new()).await);
    }
    assert_eq!(door.post(ONE, event("a").as_bytes()).await.summary(), "204");
    door.stop().await;
}

#[tokio::test]
async fn at_shutdown_a_request_is_answered_and_new_ones_are_not_taken() {
    let (door, mut inbox) = silent();
    let client =
        door.send(&format!("POST /api/v1/events HTTP/1.1\r\n{ONE}"), event("a").as_bytes()).await;
    let Submit { submission, reply: answer } = next(&mut inbox).await;
    door.stop.send_replace(true);
    answer.send(FakeIntake::default().judge(&submission)).unwrap();
    assert_eq!(reply(client).await.summary(), "204");
    let address = door.address;
    door.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn an_address_that_is_taken_is_named_and_a_token_is_not_shown() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (passage, _inbox) = passage(None);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = HttpDoor::bind(HttpConfig { listen: vec![address], token: None }, &passage)
            .unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    });
    assert_eq!(format!("{:?}", HttpToken::new("secret")), "HttpToken(..)");
}

#[test]
fn a_token_is_right_only_as_a_whole() {
    let token = HttpToken::new("abcdef");
    for (sent, right) in
        [("abcdef", true), ("abcdeg", false), ("Abcdef", false), ("abcde", false), ("", false)]
    {
        assert_eq!(token.is(sent), right, "{sent}");
    }
    assert_eq!(format!("{token:?}"), "HttpToken(..)");
}
