//! Clients that stop half-way, trickle, say nothing, or are somebody else.

use super::*;

fn timed_out(doors: &Doors, door: Door) -> u64 {
    doors.passage.counts(door).connections_timed_out.value()
}

/// Reads until the door closes the connection.
async fn closed(stream: &mut UnixStream) {
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_line_or_frame_that_does_not_end_is_cut_off() {
    let (doors, intake) = answering();
    let mut client = doors.events().await;
    client.write_all(b"a:1|c|#customer:acme\nb:1|c|#cust").await.unwrap();
    assert_eq!(answers(&mut client).await, "2 truncated, durable 2");
    let mut client = doors.dsd().await;
    client.write_all(b"\x05\0\0\0a:1|c\x05\0\0\0b:1").await.unwrap();
    closed(&mut client).await;
    assert_eq!((timed_out(&doors, Door::Events), timed_out(&doors, Door::DsdStream)), (1, 1));
    assert!(intake.taken().iter().any(|taken| taken.starts_with("dsd_stream truncated")));
    doors.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_trickle_is_cut_off_and_an_endless_line_too() {
    for piece in [&b"x"[..], &[b'x'; 9_000]] {
        let (doors, _) = answering();
        let mut client = doors.events().await;
        let mut sent = Duration::ZERO;
        while client.write_all(piece).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sent += Duration::from_secs(1);
            assert!(sent < NEVER, "it is never cut off");
        }
        assert!(sent >= UNFINISHED_MAX);
        assert_eq!(timed_out(&doors, Door::Events), 1);
        doors.stop().await;
    }
}

/// A client that is always in the middle of a line, but ends each in time, is a good one; so is a silent one.
#[tokio::test(start_paused = true)]
async fn who_goes_on_or_says_nothing_stays() {
    let (doors, _) = answering();
    let mut busy = doors.events().await;
    let quiet = doors.events().await;
    for _ in 0..100 {
        busy.write_all(b"1|c|#customer:acme\na:").await.unwrap();
        tokio::time::sleep(UNFINISHED_MAX / 2).await;
    }
    assert_eq!(timed_out(&doors, Door::Events), 0);
    assert_eq!(doors.passage.counts(Door::Events).connections_open.value(), 2);
    drop((busy, quiet));
    doors.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_silent_client_makes_room_for_another() {
    let (doors, _) = answering();
    let mut first = doors.dsd().await;
    let mut others = Vec::new();
    for _ in 1..CONNECTIONS_MAX {
        others.push(doors.dsd().await);
    }
    let mut early = doors.dsd().await;
    closed(&mut early).await;
    tokio::time::sleep(SILENT_MIN).await;
    others[7].write_all(b"\0\0\0\0").await.unwrap();
    let mut next = doors.dsd().await;
    closed(&mut first).await;
    next.write_all(b"\x05\0\0\0a:1|c").await.unwrap();
    let counts = doors.passage.counts(Door::DsdStream);
    assert_eq!((counts.connections_refused.value(), timed_out(&doors, Door::DsdStream)), (1, 1));
    drop((others, next));
    doors.stop().await;
}

#[tokio::test]
async fn only_the_named_users_may_connect() {
    async fn check(uids: impl Fn(u32) -> Vec<u32>, expected: &str, forbidden: u64) {
        let (passage, _) = answering_passage(None);
        let own = nix::unistd::getuid().as_raw();
        let doors = open_for(passage, uids(own));
        let mut client = doors.events().await;
        // The door may be closed before the line is there.
        let _unsent = client.write_all(b"a:1|c|#customer:acme\n").await;
        let _unsent = client.shutdown().await;
        let mut text = Vec::new();
        let heard = client.read_to_end(&mut text).await;
        let text = heard.map_or(String::new(), |_| String::from_utf8(text).unwrap());
        assert_eq!(text.trim(), expected);
        let counts = doors.passage.counts(Door::Events);
        assert_eq!(counts.connections_forbidden.value(), forbidden);
        doors.stop().await;
    }
    check(|_| vec![], r#"{"durable":1}"#, 0).await;
    check(|own| vec![own + 1, own], r#"{"durable":1}"#, 0).await;
    check(|own| vec![own + 1], "", 1).await;
}
