use tidemark_common::id::{Digest, RulesVersion};

use super::*;
use crate::dedupe::Flaw;
use crate::ledger::conformance::Journal;
use crate::session::claim::ClaimFlaw;
use crate::session::hello::Contradiction;

const LEDGER: LedgerId = LedgerId([9; 16]);
const FENCE: Fence = Fence(3);

fn terms() -> Terms {
    Terms {
        ledger: LEDGER,
        unique_key: UniqueKey { id: 1, key: [5; 32] },
        rules: Arc::new(Rules { version: RulesVersion(4), ..Rules::default() }),
        batches_in_flight_max: 2,
        raw_events: true,
    }
}

/// Feeds a session and names what it does. In: `hello` (with the newest rules: `hello!`), `batch N`
/// as `bN`, `confirm`, `close`, `garbage`; raw events of batch N, ten bytes, as `rawN` and `rawlastN`, `raw-ask`, `raw-none`;
/// replies: `welcomed`, `postedN`, `gapN`, `grantedN`, and so on.
fn check(fed: &str, expected: &str) {
    let mut session = Session::new(AgentName::parse("agent").unwrap(), terms());
    let mut journal = Journal::new(1, LEDGER);
    for bucket in 1..=4 {
        journal.seal(&[("c", "m", bucket, 1)]);
    }
    journal.fence = FENCE;
    let mut done = Vec::new();
    for word in fed.split(' ') {
        feed(&mut session, &journal, word);
        while let Some(action) = session.poll_action(Timestamp(50)) {
            done.push(name_of(&action));
        }
    }
    assert_eq!(done.join(" "), expected, "{fed}");
}

fn feed(session: &mut Session, journal: &Journal, word: &str) {
    let number: usize = word.trim_start_matches(char::is_alphabetic).parse().unwrap_or(0);
    let posted = Sequence(u64::try_from(number).unwrap());
    let judged = |verdict| Reply::Judged { verdict, posted, openings: Vec::new() };
    let hello_refused = |verdict| Reply::HelloRefused { verdict, posted, openings: Vec::new() };
    let confirm = Confirm {
        ledger_time: Timestamp(1),
        sequence: posted,
        accepted: 0,
        fence: FENCE,
        extras: Vec::new(),
    };
    let reply = match word.trim_end_matches(char::is_numeric) {
        "hello" => return session.handle_frame(Frame::Hello(journal.hello(0))),
        "hello!" => {
            let hello = Hello { rules_version: RulesVersion(4), ..journal.hello(0) };
            return session.handle_frame(Frame::Hello(hello));
        }
        "b" => return session.handle_frame(Frame::Batch(journal.sealed[number - 1].bytes.clone())),
        "other-stream" => {
            let mut other = Journal::new(2, LEDGER);
            return session.handle_frame(Frame::Batch(other.seal(&[("c", "m", 1, 1)]).bytes));
        }
        "bad-header" => return session.handle_frame(Frame::Batch(vec![0; 300])),
        "confirm" => return session.handle_frame(Frame::Confirm(confirm)),
        "close" => {
            let close = Close { sequence: posted, accepted: 0, fence: FENCE, extras: Vec::new() };
            return session.handle_frame(Frame::Close(close));
        }
        "ack" => return session.handle_frame(Frame::Ack(ack(posted))),
        word if word.starts_with("raw") => return session.handle_frame(raw(word, posted)),
        "granted" => return session.handle_granted(u32::try_from(number).unwrap()),
        "archived" => return session.handle_archived(posted),
        "garbage" => return session.handle_unreadable("no frame".to_owned()),
        "due" => return session.handle_confirm_due(),
        "stop" => return session.handle_unavailable("stopping"),
        "ending" => return session.handle_ending("aged"),
        "welcomed" => Reply::Welcomed(Welcomed {
            fence: FENCE,
            posted_sequence: posted,
            posted_digest: Digest([0; 32]),
        }),
        "posted" => judged(Verdict::Admit),
        "again" => judged(Verdict::Duplicate),
        "gap" => judged(Verdict::Gap { expected: Sequence(7) }),
        "conflict" => judged(Verdict::Conflict { sequence: posted }),
        "fenced" => judged(Verdict::Fenced { current: Fence(8) }),
        "broken" => judged(Verdict::Invalid(Flaw::SequenceZero)),
        "foreign" => judged(Verdict::OtherLedger),
        "rolled-back" => {
            hello_refused(HelloVerdict::Conflict(Contradiction::OtherDigest { sequence: posted }))
        }
        "other-identity" => hello_refused(HelloVerdict::OtherIdentity),
        "pinned-elsewhere" => hello_refused(HelloVerdict::OtherLedger),
        "too-old" => hello_refused(HelloVerdict::Version { header_version: 0 }),
        "too-many" => hello_refused(HelloVerdict::TooManyStreams),
        "too-fast" => hello_refused(HelloVerdict::TooManyNewStreams),
        "taken" => Reply::Claimed(ClaimVerdict::Take),
        "untaken" => Reply::Claimed(ClaimVerdict::Invalid(ClaimFlaw::AcceptedFell {
            accepted: 1,
            before: 2,
        })),
        other => panic!("{other}"),
    };
    session.handle_reply(reply, Timestamp(50));
}

fn ack(posted_sequence: Sequence) -> Ack {
    Ack { posted_sequence, ledger_time: Timestamp(0), confirm: false, extras: Vec::new() }
}

fn raw(word: &str, sequence: Sequence) -> Frame {
    let piece = Some(EventsPiece { sequence, index: 0, of: 1, bytes: vec![1; 10] });
    let (rest, piece) = match word {
        "raw" => (9, piece),
        "rawlast" => (0, piece),
        "raw-ask" => (9, None),
        "raw-none" => (0, None),
        other => panic!("{other}"),
    };
    Frame::Events(Events { rest, piece })
}

fn name_of(action: &Action) -> String {
    match action {
        Action::Hello(_) => "?hello".to_owned(),
        Action::Admit(incoming) => {
            assert_eq!(incoming.fence, FENCE);
            format!("?b{}", incoming.header.sequence)
        }
        Action::Confirm(..) => "?confirm".to_owned(),
        Action::Close(..) => "?close".to_owned(),
        Action::Grant(rest) => format!("?grant{rest}"),
        Action::GrantOver => "over".to_owned(),
        Action::Keep(_, piece) => format!("keep{}", piece.sequence),
        Action::End => "end".to_owned(),
        Action::Send(Frame::Welcome(welcome)) => {
            assert_eq!(
                (welcome.fence, welcome.ledger, welcome.ledger_time),
                (FENCE, LEDGER, Timestamp(50))
            );
            format!(
                "Welcome{}{}",
                welcome.posted_sequence,
                if welcome.rules.is_some() { "+rules" } else { "" }
            )
        }
        Action::Send(Frame::Ack(ack)) => {
            let said = EventsAck::among(&ack.extras);
            let said =
                said.map_or(String::new(), |said| format!("/{}+{}", said.archived, said.grant));
            format!("Ack{}{}{said}", ack.posted_sequence, if ack.confirm { "?" } else { "" })
        }
        Action::Send(Frame::Refuse(refuse)) => {
            assert!(!refuse.message.is_empty());
            let reason = format!("{:?}", refuse.reason);
            let again = refuse.extras.iter().any(|extra| extra.tag == EXTRA_COME_AGAIN);
            let again = if again { "+again" } else { "" };
            format!("Refuse:{}{again}", reason.split([' ', '(', '{']).next().unwrap())
        }
        Action::Send(frame) => panic!("{frame:?} is the agent's to send"),
    }
}

const OPEN: &str = "hello welcomed0";
const OPENED: &str = "?hello Welcome0+rules Ack0?";

fn check_open(fed: &str, expected: &str) {
    check(&format!("{OPEN} {fed}"), &format!("{OPENED} {expected}"));
}

#[test]
fn hello_is_answered_by_welcome_or_refuse() {
    check("hello welcomed7", "?hello Welcome7+rules Ack7?");
    check("hello! welcomed7", "?hello Welcome7 Ack7?");
    check("hello rolled-back4", "?hello Refuse:Conflict end");
    check("hello other-identity", "?hello Refuse:Unauthorized end");
    check("hello pinned-elsewhere", "?hello Refuse:OtherLedger end");
    check("hello too-old", "?hello Refuse:Invalid end");
    check("hello too-many", "?hello Refuse:Unavailable end");
    check("hello too-fast", "?hello Refuse:Unavailable end");
}

#[test]
fn nothing_comes_before_hello_and_no_second_one() {
    check("b1", "Refuse:Invalid end");
    check("confirm", "Refuse:Invalid end");
    check("hello b1", "?hello Refuse:Invalid end");
    check_open("hello", "Refuse:Invalid end");
    check_open("ack", "Refuse:Invalid end");
}

#[test]
fn only_replies_are_acknowledged() {
    check_open("b1 posted1 b2 b3 posted2 posted3", "?b1 Ack1 ?b2 ?b3 Ack2 Ack3");
    check_open("b1 again4", "?b1 Ack4");
}

#[test]
fn verdicts_end_the_session() {
    check_open("b1 gap0", "?b1 Refuse:Gap end");
    check_open("b1 conflict1", "?b1 Refuse:Conflict end");
    check_open("b1 fenced", "?b1 Refuse:Fenced end");
    check_open("b1 broken", "?b1 Refuse:Invalid end");
    check_open("b1 foreign", "?b1 Refuse:OtherLedger end");
    // What was in flight behind it says nothing more.
    check_open("b1 b2 gap0 gap0 b3", "?b1 ?b2 Refuse:Gap end");
}

#[test]
fn batches_in_flight_are_bounded() {
    check_open("b1 b2 b3", "?b1 ?b2 Refuse:Invalid end");
    check_open("b1 b2 posted1 b3", "?b1 ?b2 Ack1 ?b3");
}

#[test]
fn batches_must_be_readable_and_of_the_stream() {
    check_open("bad-header", "Refuse:Invalid end");
    check_open("other-stream", "Refuse:Invalid end");
    check_open("garbage", "Refuse:Invalid end");
}

#[test]
fn confirmations_are_asked_for_and_taken() {
    check_open("due confirm taken due", "Ack0? ?confirm Ack0?");
    check_open("confirm untaken", "?confirm Refuse:Invalid end");
    check("due", "");
}

#[test]
fn no_more_confirmations_are_taken_than_were_asked_for() {
    check_open("confirm confirm", "?confirm Refuse:Invalid end");
    check_open("due confirm confirm confirm", "Ack0? ?confirm ?confirm Refuse:Invalid end");
    // Their replies are not Close's.
    check_open("due confirm close taken taken", "Ack0? ?confirm ?close end");
}

#[test]
fn raw_events_are_taken_as_far_as_they_are_granted() {
    let posted = "b1 posted1 b2 posted2";
    let check_raw = |fed: &str, expected: &str| {
        check_open(&format!("{posted} {fed}"), &format!("?b1 Ack1 ?b2 Ack2 {expected}"));
    };
    check_raw(
        "raw-ask granted25 raw1 rawlast2 archived2",
        "?grant9 Ack2/0+25 keep1 keep2 over Ack2/2+0",
    );
    check_raw("raw1", "Refuse:Invalid end");
    check_raw("raw-ask granted15 raw1 raw1", "?grant9 Ack2/0+15 keep1 Refuse:Invalid end");
    // A grant that is over is not counted on any more.
    check_raw("raw-ask granted25 raw-none raw1", "?grant9 Ack2/0+25 over Refuse:Invalid end");
    check_raw("raw-ask granted25 raw3", "?grant9 Ack2/0+25 Refuse:Invalid end");
}

#[test]
fn room_that_was_not_found_is_asked_for_with_each_confirm() {
    check_open("raw-ask granted0 due", "?grant9 ?grant9 Ack0?");
    check_open("raw-ask granted7 due", "?grant9 Ack0/0+7 Ack0?");
    check_open("raw-ask granted0 raw-none due", "?grant9 over Ack0?");
    // What is archived after its session closed is said to nobody.
    check_open("close archived1 taken", "?close end");
}

#[test]
fn raw_events_that_are_not_archived_end_the_session() {
    let terms = Terms { raw_events: false, ..terms() };
    let mut session = Session::new(AgentName::parse("agent").unwrap(), terms);
    let journal = Journal::new(1, LEDGER);
    for word in ["hello", "welcomed0"] {
        feed(&mut session, &journal, word);
    }
    while let Some(action) = session.poll_action(Timestamp(50)) {
        let Action::Send(Frame::Welcome(welcome)) = action else { continue };
        assert!(!Events::are_taken(&welcome.extras));
    }
    feed(&mut session, &journal, "raw-ask");
    let refused = session.poll_action(Timestamp(50)).map(|action| name_of(&action));
    assert_eq!(refused.as_deref(), Some("Refuse:Invalid"));
}

#[test]
fn frames_wait_while_many_confirmations_do() {
    let mut session = Session::new(AgentName::parse("agent").unwrap(), terms());
    let journal = Journal::new(1, LEDGER);
    let mut turn = |word: &str| {
        feed(&mut session, &journal, word);
        while session.poll_action(Timestamp(50)).is_some() {}
        session.wants_frames()
    };
    turn("hello");
    turn("welcomed");
    (1..CONFIRMS_IN_FLIGHT_MAX).for_each(|_| assert!(turn("due") && turn("confirm")));
    assert!(turn("due") && !turn("confirm") && turn("taken"));
}

#[test]
fn close_ends_in_silence() {
    check_open("close taken b1", "?close end");
    check_open("close b1", "?close Refuse:Invalid end");
}

#[test]
fn the_collector_may_stop_at_any_time() {
    check("stop", "Refuse:Unavailable end");
    check_open("b1 stop posted1", "?b1 Refuse:Unavailable end");
}

#[test]
fn a_session_that_is_to_end_answers_what_has_come_first() {
    check_open("ending", "Refuse:Unavailable+again end");
    check_open("b1 b2 ending posted1 posted2", "?b1 ?b2 Ack1 Ack2 Refuse:Unavailable+again end");
    check_open("due confirm ending taken", "Ack0? ?confirm Refuse:Unavailable+again end");
    check_open("ending due", "Refuse:Unavailable+again end");
    check_open("close ending taken", "?close end");
    check_open("b1 ending gap0", "?b1 Refuse:Gap end");
    check_open("b1 ending stop", "?b1 Refuse:Unavailable end");
    check("hello ending welcomed0", "?hello Welcome0+rules Ack0? Refuse:Unavailable+again end");
}

#[test]
fn a_session_that_is_to_end_takes_no_further_frame() {
    let mut session = Session::new(AgentName::parse("agent").unwrap(), terms());
    let mut journal = Journal::new(1, LEDGER);
    journal.seal(&[("c", "m", 1, 1)]);
    journal.fence = FENCE;
    for word in ["hello", "welcomed0", "b1"] {
        feed(&mut session, &journal, word);
        while session.poll_action(Timestamp(50)).is_some() {}
    }
    assert!(session.wants_frames());
    feed(&mut session, &journal, "ending");
    assert!(!session.wants_frames());
}
