//! Statuses in, text for people out.

use std::time::Duration;

use super::text::human;
use super::trouble::find;
use super::*;
use crate::paint::Paint;
use crate::uplink::LinkError;
use crate::uplink::chooser::Transport;
use tidemark_common::tls::CertificateFault;

/// An agent that is well: everything posted.
pub(crate) fn well() -> Status {
    Status {
        version: "1.2.3".to_owned(),
        stream: "0a".repeat(16),
        opening: "0b".repeat(16),
        ledger: Some("0c".repeat(16)),
        session: Session {
            state: SessionState::Connected,
            since_age_millis: 3_700_000,
            collector: Some("collector.example.com:8129".to_owned()),
            fence: Some("1.2".to_owned()),
            in_flight: 0,
            transport: Some("quic".to_owned()),
            throttles: 2,
            certificate_left_millis: Some(300 * 86_400_000),
            paused: false,
            rtt_micros: Some(850),
            clock_offset_millis: Some(-12),
            last_error: None,
            retry_in_millis: None,
        },
        events: EventFigures { accepted: 1_234_567, posted: 1_234_567, ..EventFigures::default() },
        recent: Recent { window_millis: 300_000, ..Recent::default() },
        backlog: Backlog { sealed_sequence: 420, posted_sequence: 420, ..Backlog::default() },
        journal: JournalFigures {
            bytes: 8 << 20,
            live_bytes: 1_500_000,
            bytes_max: 2 << 30,
            retained_batches: 420,
            retained_bytes: 1_200_000,
            ..JournalFigures::default()
        },
        forward: Forward::default(),
        fsync: Fsync {
            count: 9_000,
            p50_micros: 1_250,
            p99_micros: 4_800,
            max_micros: 31_000,
            sum_micros: 12_000_000,
            buckets: vec![0, 3_000, 5_000, 900, 60, 40],
        },
        shutdown_grace_millis: 30_000,
        stop_is_near: false,
        doors: BTreeMap::from([
            (
                "http".to_owned(),
                DoorStatus {
                    messages: 12,
                    bytes: 4_096,
                    connections_open: 1,
                    ..DoorStatus::default()
                },
            ),
            (
                "udp".to_owned(),
                DoorStatus { messages: 1, bytes: 25, errors: 1, ..DoorStatus::default() },
            ),
        ]),
        admin: DoorStatus::default(),
    }
}

#[test]
fn an_agent_that_is_well() {
    let expected = "\
OK. Connected; everything accepted is posted.

accepted     1,234,567 events
posted       1,234,567 events
in transit   0 events (0 not sealed, 0 in 0 batches)
rejected     0 events
duplicates   0 events
not metered  0 metrics
lost before  0 datagrams dropped by the kernel, 0 events missing in numbered sources
session      connected for 1h 1m, collector.example.com:8129 over quic, round trip 850us
sequences    420 posted, 420 sealed, 0 in flight
stream       0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a
ledger       0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c
journal      the file has 8.0 MiB, 1.4 MiB of it in use; it may grow to 2.0 GiB
kept         420 batches posted (1.1 MiB), 0 dead letters
fsync        half within 1.2ms, 99 of 100 within 4.8ms, at most 31.0ms
doors        http: 12 messages (4.0 KiB), 1 connection open, 0 errors
             udp: 1 message (25 B), 0 connections open, 1 error
";
    assert_eq!(human(&well(), Paint::Plain), expected);
}

#[test]
fn what_is_wrong_comes_first() {
    let mut status = well();
    status.session.state = SessionState::Disconnected;
    status.session.since_age_millis = 192_000;
    status.session.last_error = Some("failed to connect:\n refused".to_owned());
    status.events.accepted += 34;
    status.events.in_chunks = 10;
    status.events.in_unposted_batches = 24;
    status.events.rejected =
        BTreeMap::from([("bad_time".to_owned(), 2), ("sampled".to_owned(), 1_000)]);
    status.recent.rejected = BTreeMap::from([("sampled".to_owned(), 40)]);
    status.backlog.batches = 1;
    status.backlog.sealed_sequence = 421;
    status.backlog.oldest_unposted_age_millis = Some(190_000);
    status.journal.dead_letters = 1;
    let shown = human(&status, Paint::Plain);
    let expected = "\
No session with collector.example.com:8129 for 3m 12s: failed to connect: refused
  Nothing is lost: events are kept on disk. Check that the collector runs and that its UDP port, or the same TCP port, can be reached.
Also: Rejected 40 events in the last 5m: sampled 40
  `tidemark-agent dead-letters list` shows those that were kept, with a remedy each.

accepted     1,234,601 events
posted       1,234,567 events
in transit   34 events (10 not sealed, 24 in 1 batch), the oldest for 3m 10s
rejected     1,002 events
             bad_time 2
             sampled 1,000
";
    assert!(shown.starts_with(expected), "{shown}");
}

/// One change to an agent that is well, and how its one trouble begins ("" for none).
#[track_caller]
fn check(change: fn(&mut Status), begins: &str) {
    let mut status = well();
    change(&mut status);
    let troubles = find(&status);
    match troubles.as_slice() {
        [] => assert_eq!(begins, ""),
        [trouble] => {
            assert!(!begins.is_empty() && trouble.what.starts_with(begins), "{trouble:?}");
            assert!(trouble.remedy.ends_with('.'), "{trouble:?}");
        }
        several => panic!("{several:?}"),
    }
}

#[test]
fn each_trouble_on_its_own() {
    check(|_| (), "");
    check(
        |status| status.journal.conflict = Some("posted beyond sealed".to_owned()),
        "Conflict: posted beyond sealed",
    );
    check(
        |status| status.journal.failed = Some("I/O error".to_owned()),
        "Commits have ended: I/O error",
    );
    check(
        |status| status.events.accepted += 1,
        "Not conserved: 1,234,568 accepted, but 1,234,567 posted and 0",
    );
    check(|status| status.journal.full = true, "The journal is full");
    check(
        |status| status.session.state = SessionState::Stopped,
        "The session with collector.example.com:8129 has ended",
    );
    check(
        |status| {
            status.session.state = SessionState::Stopped;
            status.session.retry_in_millis = Some(60_000);
        },
        "The session with collector.example.com:8129 was refused",
    );
    check(|status| status.session.state = SessionState::Connecting, "No session with");
    check(
        |status| {
            status.session.state = SessionState::Connecting;
            status.session.since_age_millis = 2_999;
        },
        "",
    );
    check(
        |status| status.journal.time_to_full_millis = Some(600_000),
        "At its present growth the journal is full in 10m",
    );
    check(|status| status.journal.time_to_full_millis = Some(7_200_000), "");
    check(
        |status| status.backlog.oldest_unposted_age_millis = Some(60_001),
        "Connected, yet the oldest",
    );
    check(|status| status.backlog.oldest_unposted_age_millis = Some(2_000), "");
    check(|status| status.recent.kernel_drops = 1, "The kernel has dropped 1 datagram that");
    check(|status| status.recent.rejected = [("negative".to_owned(), 0)].into(), "");
    check(
        |status| {
            let reasons = [("a", 1), ("b", 4), ("c", 3), ("d", 2), ("e", 1)];
            status.recent.rejected =
                reasons.map(|(reason, count)| (reason.to_owned(), count)).into();
        },
        "Rejected 11 events in the last 5m: b 4, c 3, d 2, 2 more",
    );
    check(
        |status| status.recent.rejected = [("journal_full".to_owned(), 5)].into(),
        "Refused 5 events in the last 5m: the journal was full",
    );
    check(|status| status.recent.excluded_by_metered = 2, "naming.metered excluded 2 events");
    check(
        |status| status.session.clock_offset_millis = Some(-61_000),
        "This machine's clock is 1m 1s off",
    );
    check(
        |status| status.recent.source_gaps = 3,
        "Numbered sources missed 3 events in the last 5m",
    );
}

/// Totals never go back.
#[test]
fn a_first_session_that_fails_is_trouble_at_once() {
    check(
        |status| {
            status.ledger = None;
            status.session.state = SessionState::Connecting;
            status.session.since_age_millis = 100;
            status.session.last_error = Some("the certificate has expired".to_owned());
        },
        "No session",
    );
}

#[test]
fn totals_are_figures_and_not_trouble() {
    check(
        |status| {
            status.events.kernel_drops = 1;
            status.events.source_gaps = 1;
            status.events.excluded_by_metered = 1;
            status.events.rejected = [("negative".to_owned(), 1)].into();
        },
        "",
    );
}

#[test]
fn the_gravest_trouble_comes_first() {
    let mut status = well();
    status.recent.kernel_drops = 1;
    status.session.state = SessionState::Stopped;
    status.journal.conflict = Some("cloned".to_owned());
    let troubles: Vec<_> = find(&status).into_iter().map(|trouble| trouble.what).collect();
    assert!(troubles[0].starts_with("Conflict"), "{troubles:?}");
    assert!(troubles[2].starts_with("The kernel"), "{troubles:?}");
}

#[test]
fn each_remedy_fits_its_trouble() {
    let check = |change: &dyn Fn(&mut Status), named: &str, not: &str| {
        let mut status = well();
        change(&mut status);
        let remedy = find(&status).remove(0).remedy;
        assert!(remedy.contains(named) && !remedy.contains(not), "{remedy}");
    };
    let unreachable = |error: LinkError| {
        move |status: &mut Status| {
            status.session.state = SessionState::Disconnected;
            status.session.last_error = Some(format!("localhost:8129: {error}"));
        }
    };
    let fault = CertificateFault::UnknownAuthority;
    let detail = String::new;
    check(
        &unreachable(LinkError::CollectorCertificate { fault, detail: detail() }),
        "uplink.ca",
        "UDP port",
    );
    check(
        &unreachable(LinkError::AgentCertificate { fault, detail: detail() }),
        "uplink.ca",
        "UDP port",
    );
    let address = "127.0.0.1:8129".parse().unwrap();
    let after = Duration::from_secs(1);
    let silence = LinkError::NoAnswer { transport: Transport::Quic, address, after };
    check(&unreachable(silence), "UDP port", "uplink.ca");
    let (soon, over) = (Some(2 * 86_400_000), Some(-60_000));
    let ends = |left| move |status: &mut Status| status.session.certificate_left_millis = left;
    check(&ends(soon), "reads it again", "UDP port");
    check(&ends(over), "reads it again", "UDP port");
    check(
        &|status| status.recent.rejected = [("journal_full".to_owned(), 5)].into(),
        "journal.bytes_max",
        "dead-letters",
    );
}

#[test]
fn a_journal_that_is_full_in_years_is_not_full_soon() {
    let check = |millis, expected| {
        let mut status = well();
        status.journal.time_to_full_millis = Some(millis);
        assert_eq!(human(&status, Paint::Plain).contains(", full in"), expected, "{millis}");
    };
    check(29 * 86_400_000, true);
    check(3_562 * 86_400_000, false);
}

/// `status --json` is read by scripts: its names only grow.
#[test]
fn names_in_json_are_stable() {
    let json = serde_json::to_value(well()).unwrap();
    for path in [
        "/version",
        "/stream",
        "/opening",
        "/ledger",
        "/session/state",
        "/session/collector",
        "/session/transport",
        "/session/since_age_millis",
        "/session/in_flight",
        "/session/last_error",
        "/session/clock_offset_millis",
        "/events/accepted",
        "/events/posted",
        "/events/in_chunks",
        "/events/in_unposted_batches",
        "/events/rejected",
        "/events/not_metered",
        "/events/duplicates",
        "/events/kernel_drops",
        "/events/source_gaps",
        "/events/unclean_starts",
        "/recent/window_millis",
        "/recent/rejected",
        "/recent/kernel_drops",
        "/recent/source_gaps",
        "/backlog/batches",
        "/backlog/bytes",
        "/backlog/oldest_unposted_age_millis",
        "/backlog/sealed_sequence",
        "/backlog/posted_sequence",
        "/journal/bytes",
        "/journal/live_bytes",
        "/journal/bytes_max",
        "/journal/full",
        "/journal/time_to_full_millis",
        "/journal/dead_letters",
        "/journal/conflict",
        "/fsync/p99_micros",
        "/doors/udp/messages",
    ] {
        assert!(json.pointer(path).is_some(), "{path} is gone from {json}");
    }
    assert_eq!(json.pointer("/session/state"), Some(&"connected".into()));
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), well());
}
