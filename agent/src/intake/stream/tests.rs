mod slow;

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::intake::passage::fake::{FakeIntake, answering_passage, next, passage};
use crate::intake::socket_file::SOCKET_MODE_DEFAULT;
use crate::intake::{Inbox, Submit};

/// Longer than anything that is expected to happen takes. Only waited for when it does not, and then
/// on a paused clock.
const NEVER: Duration = Duration::from_secs(3_600);

struct Doors {
    config: StreamConfig,
    passage: Passage,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

fn open(passage: Passage) -> Doors {
    open_for(passage, Vec::new())
}

fn open_for(passage: Passage, peer_uids: Vec<u32>) -> Doors {
    let folder = tempfile::tempdir().unwrap();
    let config = StreamConfig {
        dsd_stream: Some(folder.path().join("dsd-stream.socket")),
        events: Some(folder.path().join("events.socket")),
        socket_mode: SOCKET_MODE_DEFAULT,
        peer_uids,
    };
    let (stop, shutdown) = watch::channel(false);
    let serving = tokio::spawn(StreamDoors::bind(&config, &passage).unwrap().serve(shutdown));
    Doors { config, passage, stop, serving, _folder: folder }
}

fn answering() -> (Doors, FakeIntake) {
    let (passage, intake) = answering_passage(None);
    (open(passage), intake)
}

fn silent() -> (Doors, Inbox) {
    let (passage, inbox) = passage(None);
    (open(passage), inbox)
}

impl Doors {
    async fn events(&self) -> UnixStream {
        UnixStream::connect(self.config.events.as_ref().unwrap()).await.unwrap()
    }

    async fn dsd(&self) -> UnixStream {
        UnixStream::connect(self.config.dsd_stream.as_ref().unwrap()).await.unwrap()
    }

    /// Ends the doors and waits until every connection has ended.
    async fn stop(self) -> Passage {
        self.stop.send_replace(true);
        self.serving.await.unwrap();
        for door in Door::ALL {
            assert_eq!(self.passage.counts(door).connections_open.value(), 0, "{}", door.name());
        }
        self.passage
    }
}

/// Everything the door says until it closes, with remedies left out, and of acknowledgements in a row
/// only the last: how many lines share one depends on how they arrive.
async fn answers(stream: &mut UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let mut shown: Vec<String> = Vec::new();
    let mut durable = 0;
    for line in text.lines() {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(number) = answer["durable"].as_u64() {
            assert!(number > durable, "acknowledgements rise");
            durable = number;
            if shown.last().is_some_and(|last| last.starts_with("durable")) {
                shown.pop();
            }
            shown.push(format!("durable {number}"));
        } else {
            let number = answer["rejected"].as_u64().unwrap();
            assert!(number > durable, "a rejection comes before its acknowledgement");
            assert!(!answer["remedy"].as_str().unwrap().is_empty());
            if shown.last().is_some_and(|last| last.starts_with("durable")) {
                shown.pop();
            }
            shown.push(format!("{number} {}", answer["reason"].as_str().unwrap()));
        }
    }
    shown.join(", ")
}

/// Sends `input`, closes the sending side, reads all answers.
async fn check_events(input: &[u8], expected: &str) {
    for step in [1, 7, input.len().max(1)] {
        // A byte at a time is for short inputs.
        if input.len() > step.saturating_mul(1_000) {
            continue;
        }
        let (doors, _) = answering();
        let mut client = doors.events().await;
        for piece in input.chunks(step) {
            client.write_all(piece).await.unwrap();
        }
        client.shutdown().await.unwrap();
        assert_eq!(answers(&mut client).await, expected, "in pieces of {step}");
        doors.stop().await;
    }
}

const GOOD: &str = r#"{"meter":"a","customer":"acme","quantity":1}"#;

#[tokio::test]
async fn each_line_is_acknowledged_or_rejected() {
    check_events(b"", "").await;
    check_events(b"\n", "durable 1").await;
    check_events(b"a:1|c|#customer:acme\n", "durable 1").await;
    check_events(format!("{GOOD}\r\n{GOOD}\n\n \t\n").as_bytes(), "durable 4").await;
    check_events(b"datadog.agent.up:1|c\n", "durable 1").await;
    check_events(b"a:1|c|#customer:acme,id:7\na:1|c|#customer:acme,id:7\n", "durable 2").await;
}

#[tokio::test]
async fn a_bad_line_never_costs_its_neighbours() {
    let around = |bad: &[u8]| [GOOD.as_bytes(), b"\n", bad, b"\n", GOOD.as_bytes(), b"\n"].concat();
    check_events(&around(b"oops"), "2 malformed, durable 3").await;
    check_events(&around(b"{\"meter\":"), "2 malformed, durable 3").await;
    check_events(&around(b"a:1|c"), "2 no_customer, durable 3").await;
    check_events(&around(b"a:x|c|#customer:acme"), "2 bad_quantity, durable 3").await;
    check_events(&around(b"a:1|c|@0.5|#customer:acme"), "2 sampled, durable 3").await;
    check_events(&around(b"_sc|x|0"), "2 service_check, durable 3").await;
    check_events(&around(b"a:1|c|#customer:\xff"), "2 not_utf8, durable 3").await;
    check_events(&around(&[b'x'; LINE_BYTES_MAX + 1]), "2 oversize, durable 3").await;
    check_events(&around(&[b'x'; 3 * LINE_BYTES_MAX]), "2 oversize, durable 3").await;
    check_events(&around(b"\n\noops"), "4 malformed, durable 5").await;
}

#[tokio::test]
async fn a_last_line_without_an_end_is_truncated() {
    check_events(format!("{GOOD}\n{GOOD}").as_bytes(), "2 truncated, durable 2").await;
    check_events(b"a", "1 truncated, durable 1").await;
    check_events(&[b'x'; LINE_BYTES_MAX + 1], "1 oversize, durable 1").await;
}

#[tokio::test]
async fn many_lines_are_answered_in_order() {
    let count = 5 * SUBMISSION_LINES_MAX;
    let mut input = String::new();
    let mut expected = Vec::new();
    for line in 1..=count {
        let bad = line % 700 == 0;
        input.push_str(if bad { "oops\n" } else { "a:1|c|#customer:acme\n" });
        expected.extend(bad.then(|| format!("{line} malformed")));
    }
    expected.push(format!("durable {count}"));
    check_events(input.as_bytes(), &expected.join(", ")).await;
}

#[tokio::test]
async fn binary_noise_leaves_the_door_serving() {
    let (doors, _) = answering();
    let noise: Vec<u8> = (0..300_000_u32)
        .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    let mut hostile = doors.events().await;
    hostile.write_all(&noise[..100_000]).await.unwrap();
    let mut framed = doors.dsd().await;
    // The door closes it at the first impossible length.
    drop(framed.write_all(&noise).await);
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(answers(&mut client).await, "durable 1");
    drop(hostile);
    doors.stop().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable() {
    let (doors, mut inbox) = silent();
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\noops\n").await.unwrap();
    let Submit { submission, reply } = next(&mut inbox).await;
    tokio::task::yield_now().await;
    let read = client.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(read.kind(), ErrorKind::WouldBlock, "no answer yet");
    reply.send(FakeIntake::default().judge(&submission)).unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(answers(&mut client).await, "2 malformed, durable 2");
    doors.stop().await;
}

#[tokio::test]
async fn without_an_answer_from_intake_there_is_no_acknowledgement() {
    let (doors, mut inbox) = silent();
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\n").await.unwrap();
    drop(next(&mut inbox).await);
    assert_eq!(answers(&mut client).await, "", "the connection closes");
    drop(inbox);
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\n").await.unwrap();
    assert_eq!(answers(&mut client).await, "");
    doors.stop().await;
}

/// Sends one line or frame at a time until no submission comes of it, while none is answered.
async fn check_backpressure(mut client: UnixStream, line: &[u8], inbox: &mut Inbox) {
    let mut waiting = std::collections::VecDeque::new();
    loop {
        client.write_all(line).await.unwrap();
        match tokio::time::timeout(NEVER, inbox.submissions.recv()).await {
            Ok(submit) => waiting.push_back(submit.unwrap()),
            Err(_) => break,
        }
        // The oldest may have left the queue for the writer of answers.
        assert!(waiting.len() <= OUTSTANDING_MAX + 1, "read further than that");
    }
    assert!(waiting.len() >= OUTSTANDING_MAX, "{} are fewer than allowed", waiting.len());
    let Submit { submission, reply } = waiting.pop_front().unwrap();
    reply.send(FakeIntake::default().judge(&submission)).unwrap();
    // An answer makes room.
    next(inbox).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_runs_ahead_is_read_no_further() {
    let (doors, mut inbox) = silent();
    check_backpressure(doors.events().await, b"a:1|c|#customer:acme\n", &mut inbox).await;
    check_backpressure(doors.dsd().await, b"\x01\0\0\0a", &mut inbox).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let (doors, intake) = answering();
    let mut deaf = doors.events().await;
    // Some 100 bytes of answer for each of these; the kernel holds a few hundred thousand.
    let mut sent = 0;
    while deaf.write_all(&b"x\n".repeat(10_000)).await.is_ok() {
        sent += 10_000;
        assert!(sent < 10_000_000, "it is never cut off");
    }
    assert_eq!(doors.passage.counts(Door::Events).connections_timed_out.value(), 1);
    assert!(!intake.taken().is_empty());
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(answers(&mut client).await, "durable 1");
    doors.stop().await;
}

#[tokio::test]
async fn what_a_client_sent_before_it_left_is_taken() {
    let (doors, mut inbox) = silent();
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\n").await.unwrap();
    let first = next(&mut inbox).await;
    client.write_all(b"b:1|c|#customer:acme\nc:1|c").await.unwrap();
    drop(client);
    let mut intake = FakeIntake::default();
    let mut waiting = vec![first];
    while waiting.iter().map(|submit| submit.submission.items.len()).sum::<usize>() < 3 {
        waiting.push(next(&mut inbox).await);
    }
    for Submit { submission, reply } in waiting {
        reply.send(intake.judge(&submission)).unwrap();
    }
    assert_eq!(
        intake.taken(),
        [
            "events accepted a:1|c|#customer:acme",
            "events accepted b:1|c|#customer:acme",
            "events truncated c:1|c"
        ]
    );
    doors.stop().await;
}

#[tokio::test]
async fn all_that_a_client_sent_is_taken_though_its_answers_find_nobody() {
    let (doors, mut inbox) = silent();
    let mut client = doors.events().await;
    // More than is read ahead, so that answers fail while lines are still to be read.
    let count = 2 * OUTSTANDING_MAX * SUBMISSION_LINES_MAX;
    client.write_all(&b"a:1|c\n".repeat(count)).await.unwrap();
    drop(client);
    let mut intake = FakeIntake::default();
    while intake.taken().len() < count {
        let Submit { submission, reply } = next(&mut inbox).await;
        reply.send(intake.judge(&submission)).unwrap();
    }
    doors.stop().await;
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_closed_at_once() {
    let (doors, _) = answering();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        clients.push(doors.events().await);
    }
    let mut refused = doors.events().await;
    assert_eq!(answers(&mut refused).await, "");
    let counts = doors.passage.counts(Door::Events);
    assert_eq!((counts.connections_open.value(), counts.connections_refused.value()), (256, 1));

    let mut first = clients.remove(0);
    first.shutdown().await.unwrap();
    assert_eq!(answers(&mut first).await, "");
    let mut next = doors.events().await;
    next.write_all(b"\n").await.unwrap();
    next.shutdown().await.unwrap();
    assert_eq!(answers(&mut next).await, "durable 1", "a place that was left is given again");
    drop(clients);
    doors.stop().await;
}

#[tokio::test]
async fn at_shutdown_what_was_read_is_answered_and_an_open_line_is_not() {
    let (doors, mut inbox) = silent();
    let events = doors.config.events.clone().unwrap();
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\nb:1|c").await.unwrap();
    let Submit { submission, reply } = next(&mut inbox).await;
    doors.stop.send_replace(true);
    reply.send(FakeIntake::default().judge(&submission)).unwrap();
    assert_eq!(answers(&mut client).await, "durable 1");
    doors.stop().await;
    assert!(!events.exists(), "the socket file goes with the door");
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_ever() {
    let (doors, mut inbox) = silent();
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\n").await.unwrap();
    let unanswered = next(&mut inbox).await;
    doors.stop().await;
    assert_eq!(answers(&mut client).await, "");
    drop(unanswered);
}

async fn check_dsd(input: &[u8], expected: &[&str]) {
    for step in [1, 7, input.len().max(1)] {
        if input.len() > step.saturating_mul(1_000) {
            continue;
        }
        let (doors, intake) = answering();
        let mut client = doors.dsd().await;
        for piece in input.chunks(step) {
            // After a frame that is too long nobody reads.
            drop(client.write_all(piece).await);
        }
        drop(client.shutdown().await);
        let end = client.read_to_end(&mut Vec::new()).await;
        assert!(
            end.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |read| read == 0),
            "never answered"
        );
        doors.stop().await;
        // The door has handed all of it over by now, and waited for no answer.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(intake.taken(), expected, "in pieces of {step}");
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&u32::try_from(payload.len()).unwrap().to_le_bytes(), payload].concat()
}

#[tokio::test]
async fn frames_hold_lines_and_a_bad_one_costs_only_itself() {
    let good = frame(b"a:1|c|#customer:x");
    check_dsd(
        &frame(b"a:1|c|#customer:x\n\nb:2|c|#customer:x\n"),
        &["dsd_stream accepted a:1|c|#customer:x", "dsd_stream accepted b:2|c|#customer:x"],
    )
    .await;
    check_dsd(
        &[good.clone(), frame(b"oops\n\xff:1|c\na:1|c"), frame(b""), good.clone()].concat(),
        &[
            "dsd_stream accepted a:1|c|#customer:x",
            "dsd_stream malformed oops",
            "dsd_stream not_utf8 \u{fffd}:1|c",
            "dsd_stream no_customer a:1|c",
            "dsd_stream accepted a:1|c|#customer:x",
        ],
    )
    .await;
    check_dsd(
        &[good.as_slice(), b"\x09\0\0\0a:1"].concat(),
        &["dsd_stream accepted a:1|c|#customer:x", "dsd_stream truncated \t\0\0\0a:1"],
    )
    .await;
    check_dsd(
        &[good.as_slice(), b"\x01\0\x01\0", &good].concat()[..good.len() + 4],
        &["dsd_stream accepted a:1|c|#customer:x", "dsd_stream oversize \u{1}\0\u{1}\0"],
    )
    .await;
}

#[tokio::test]
async fn a_frame_of_very_many_lines_becomes_several_submissions() {
    let (doors, mut inbox) = silent();
    let mut client = doors.dsd().await;
    client.write_all(&frame(&b"x\n".repeat(SUBMISSION_LINES_MAX + 1))).await.unwrap();
    let first = next(&mut inbox).await;
    let second = next(&mut inbox).await;
    assert_eq!(
        (first.submission.items.len(), second.submission.items.len()),
        (SUBMISSION_LINES_MAX, 1)
    );
    drop((first, second, client));
    doors.stop().await;
}

#[tokio::test]
async fn a_second_agent_does_not_take_the_sockets() {
    let (doors, _) = answering();
    let error = StreamDoors::bind(&doors.config, &doors.passage).unwrap_err();
    assert!(matches!(error, SocketFileError::InUse { .. }), "{error}");
    let mut client = doors.events().await;
    client.write_all(b"\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(answers(&mut client).await, "durable 1");
    doors.stop().await;
}
