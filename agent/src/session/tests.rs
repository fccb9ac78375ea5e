//! One table per case: what happens -> what the session does about it.
//!
//! The harness plays the driver, the journal and the collector. It answers looks, reads, writes and
//! disconnects at once; connections and barriers wait for their step. The journal's batch N is the
//! one byte N, its digest 32 times N.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers of a harness; debug builds trap an overflow"
)]

mod events;

use proptest::prelude::*;
use tidemark_common::id::{EventNumber, Fence};
use tidemark_common::wire::{
    EXTRA_COME_AGAIN, Events, Extra, PostedOpening, Refuse, Rules, Throttle, UniqueKey,
};

use super::*;
use events::Raw;

const LEDGER: LedgerId = LedgerId([1; 16]);
const STREAM: StreamId = StreamId([2; 16]);
const WINDOW: u64 = 4;

struct World {
    session: Session,
    now: Monotonic,
    sealed: u64,
    unsealed_events: u64,
    first_held: u64,
    posted: u64,
    ledger: Option<LedgerId>,
    conflict: Option<String>,
    answer: Option<ConflictAnswer>,
    rules: RulesVersion,
    /// Writes are not answered while they are held.
    hold: bool,
    held_writes: usize,
    /// The last batch that the link took since Welcome.
    sent: u64,
    raw: Raw,
    out: Vec<String>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            session: Session::new(config(), facts()),
            now: Monotonic(1_000_000),
            sealed: 0,
            unsealed_events: 0,
            first_held: 1,
            posted: 0,
            ledger: None,
            conflict: None,
            answer: None,
            rules: RulesVersion(0),
            hold: false,
            held_writes: 0,
            sent: 0,
            raw: Raw::default(),
            out: Vec::new(),
        };
        world.settle();
        world
    }

    /// Runs one step and says what the session did about it.
    fn step(&mut self, step: &str) -> String {
        let (verb, rest) = step.split_once(':').unwrap_or((step, ""));
        let number = || rest.parse::<u64>().unwrap_or_else(|_| panic!("{step}: not a number"));
        match verb {
            "start" => {}
            "seal" => self.sealed = number(),
            "forget" => self.first_held = number() + 1,
            "connect" => self.session.handle_connected(self.now, Timestamp(5_000), 0),
            "lost" => self.session.handle_disconnected(self.now, 99, "reset by peer"),
            "welcome" => self.frame(Frame::Welcome(welcome(number()))),
            "welcome-other-digest" => {
                self.frame(Frame::Welcome(Welcome {
                    posted_digest: Digest([99; 32]),
                    ..welcome(number())
                }));
            }
            "welcome-other-ledger" => {
                self.frame(Frame::Welcome(Welcome {
                    ledger: LedgerId([9; 16]),
                    ..welcome(number())
                }));
            }
            "welcome-window" => {
                let batches_in_flight_max = u32::try_from(number()).unwrap();
                self.frame(Frame::Welcome(Welcome { batches_in_flight_max, ..welcome(0) }));
            }
            "welcome-version" => {
                let body_version = u16::try_from(number()).unwrap();
                self.frame(Frame::Welcome(Welcome { body_version, ..welcome(0) }));
            }
            "raw" => self.raw.put(rest),
            "welcome-events" => self.frame(events::welcome_events(number())),
            "grant" => self.frame(events::grant(rest, self.posted)),
            "ack" => self.frame(ack(number(), 0, false)),
            "ask" => {
                let (posted, time) = rest.split_once('@').unwrap();
                self.frame(ack(posted.parse().unwrap(), time.parse().unwrap(), true));
            }
            "barrier" => {
                let passed = (rest != "closed").then(|| (Sequence(number()), 1_000));
                self.sealed = self.sealed.max(passed.map_or(0, |(sequence, _)| sequence.0));
                self.session.handle_barrier(passed);
            }
            "throttle" => {
                let pause_millis = u32::try_from(number()).unwrap();
                self.frame(Frame::Throttle(Throttle { pause_millis, extras: vec![] }));
            }
            "refuse" => self.frame(refuse(rest)),
            "hello" => self.frame(Frame::Batch(vec![])),
            "wait" => self.now = self.now.plus(number()),
            "hold" => self.hold = true,
            "release" => {
                self.hold = false;
                for _ in 0..std::mem::take(&mut self.held_writes) {
                    self.session.handle_written(self.now);
                }
            }
            "shutdown" => self.session.handle_shutdown(self.now),
            "leave" => self.session.handle_leave(self.now),
            "restart" => self.session = Session::new(config(), self.facts()),
            verb => panic!("{verb}: no such step"),
        }
        self.settle();
        std::mem::take(&mut self.out).join(" ")
    }

    fn frame(&mut self, frame: Frame) {
        if let Frame::Welcome(welcome) = &frame {
            self.sent = welcome.posted_sequence.0;
        }
        self.session.handle_frame(frame, self.now);
    }

    /// What the driver's loop does until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.session.handle_journal(self.facts());
            if self.session.poll_timeout().is_some_and(|due| due <= self.now) {
                self.session.handle_timeout(self.now);
            }
            if let Some(action) = self.session.poll_action() {
                self.act(action);
            } else if let Some(frame) = self.session.poll_frame() {
                self.send(&frame);
            } else {
                return;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => self.say("connect"),
            Action::Disconnect => {
                self.say("disconnect");
                self.session.handle_disconnected(self.now, 99, "closed here");
            }
            Action::Look { ledger, sequence } => {
                assert!(self.ledger.is_none_or(|pinned| pinned == ledger));
                self.say(&format!("look:{sequence}"));
                // The journal knows batch N's digest from batch N + 1 on.
                let known = sequence.0 + 1 >= self.first_held || sequence.0 == self.sealed;
                let looked = Looked {
                    digest: known.then(|| digest(sequence.0)),
                    first_held: (self.first_held <= self.sealed).then_some(held(self.first_held)),
                };
                self.session.handle_looked(&looked, self.now);
            }
            Action::Read(sequence) => {
                let held = (self.first_held..=self.sealed).contains(&sequence.0);
                let bytes = held.then(|| vec![u8::try_from(sequence.0).unwrap()]);
                self.session.handle_batch(sequence, bytes, self.now);
            }
            Action::ReadEvents { from, last } => {
                self.session.handle_events(from, last, self.raw.first(from, last));
            }
            Action::Write(write) => self.write(write),
            Action::Barrier => self.say("barrier"),
            Action::Finished(End::Closed) => self.say("finished"),
            Action::Finished(End::Conflict { .. }) => self.say("finished-in-conflict"),
        }
    }

    fn write(&mut self, write: JournalWrite) {
        match write {
            JournalWrite::Welcomed(welcomed) => {
                self.say(&format!("pin:{}", welcomed.posted_sequence));
                self.ledger = Some(welcomed.ledger);
                self.rules = welcomed.rules.map_or(self.rules, |rules| rules.version);
                self.posted = welcomed.posted_sequence.0;
            }
            JournalWrite::Posted(sequence) => {
                self.say(&format!("posted:{sequence}"));
                assert!(sequence.0 > self.posted && sequence.0 <= self.sealed);
                self.posted = sequence.0;
            }
            JournalWrite::Archived(sequence) => {
                self.say(&format!("archived:{sequence}"));
                self.raw.archived(sequence.0);
            }
            JournalWrite::Conflict { message, answer } => {
                self.say("write-conflict");
                self.conflict = Some(message);
                self.answer = answer;
            }
            JournalWrite::Closed => self.say("write-closed"),
        }
        match self.hold {
            true => self.held_writes += 1,
            false => self.session.handle_written(self.now),
        }
    }

    fn send(&mut self, frame: &Frame) {
        assert_eq!(
            *frame == Frame::Hello(self.session.hello(Timestamp(5_000))),
            matches!(frame, Frame::Hello(_))
        );
        match frame {
            Frame::Hello(hello) => {
                let held = FirstHeld::among(&hello.extras);
                let held = held.map_or(String::new(), |held| format!("/held:{}", held.sequence));
                self.say(&format!(
                    "hello:{}/{}{held}",
                    hello.posted_sequence, hello.sealed_sequence
                ));
            }
            Frame::Batch(bytes) => {
                self.sent += 1;
                assert_eq!(bytes, &[u8::try_from(self.sent).unwrap()], "in order, without holes");
                assert!(self.session.status().in_flight <= WINDOW);
                self.say(&format!("batch:{}", self.sent));
            }
            Frame::Confirm(confirm) => {
                assert!(confirm.sequence.0 <= self.sent, "a Confirm before its batches");
                assert_eq!((confirm.fence, confirm.accepted), (Fence(7), 1_000));
                self.say(&format!("confirm:{}@{}", confirm.sequence, confirm.ledger_time.0));
            }
            Frame::Events(events) => self.say(&events::told(events)),
            Frame::Close(close) => {
                self.say(&format!("close:{}/{}", close.sequence, close.accepted))
            }
            Frame::Welcome(_) | Frame::Ack(_) | Frame::Refuse(_) | Frame::Throttle(_) => {
                panic!("{frame:?}")
            }
        }
    }

    fn say(&mut self, what: &str) {
        self.out.push(what.to_owned());
    }

    fn facts(&self) -> StreamFacts {
        StreamFacts {
            ledger: self.ledger,
            posted_sequence: Sequence(self.posted),
            posted_digest: digest(self.posted),
            sealed_sequence: Sequence(self.sealed),
            unsealed_events: self.unsealed_events,
            rules_version: self.rules,
            conflict: self.conflict.clone(),
            raw_events: self.raw.held(),
            ..facts()
        }
    }

    fn last_error(&self) -> String {
        self.session.status().last_error.unwrap_or_default()
    }
}

fn config() -> SessionConfig {
    SessionConfig {
        batches_in_flight_max: 32,
        session_millis_max: 3_600_000,
        agent: "test".to_owned(),
    }
}

/// The batch with this sequence, where each holds ten events.
fn held(sequence: u64) -> FirstHeld {
    FirstHeld { sequence: Sequence(sequence), event: EventNumber(sequence * 10) }
}

fn facts() -> StreamFacts {
    StreamFacts {
        stream: STREAM,
        opening: OpeningId([3; 16]),
        ledger: None,
        posted_sequence: Sequence(0),
        posted_digest: digest(0),
        sealed_sequence: Sequence(0),
        accepted: 1_000,
        unsealed_events: 0,
        rules_version: RulesVersion(0),
        openings: vec![],
        raw_events: RawEventsHeld::default(),
        conflict: None,
    }
}

fn digest(sequence: u64) -> Digest {
    Digest([u8::try_from(sequence).unwrap(); 32])
}

fn welcome(posted: u64) -> Welcome {
    Welcome {
        ledger: LEDGER,
        fence: Fence(7),
        posted_sequence: Sequence(posted),
        posted_digest: digest(posted),
        ledger_time: Timestamp(6_000),
        header_version: 1,
        body_version: 2,
        rules: Some(Rules { version: RulesVersion(3), ..Rules::default() }),
        unique_key: UniqueKey { id: 1, key: [0; 32] },
        batches_in_flight_max: u32::try_from(WINDOW).unwrap(),
        extras: vec![],
    }
}

fn ack(posted: u64, ledger_time: i64, confirm: bool) -> Frame {
    let (posted_sequence, ledger_time) = (Sequence(posted), Timestamp(ledger_time));
    Frame::Ack(Ack { posted_sequence, ledger_time, confirm, extras: vec![] })
}

fn refuse(name: &str) -> Frame {
    let reason = match name {
        "gap" => RefuseReason::Gap { expected: Sequence(2) },
        "conflict" => RefuseReason::Conflict {
            sequence: Sequence(2),
            openings: vec![PostedOpening { opening: OpeningId([3; 16]), end: EventNumber(17) }],
        },
        "fenced" => RefuseReason::Fenced { current: Fence(8) },
        "invalid" => RefuseReason::Invalid,
        "unauthorized" => RefuseReason::Unauthorized,
        "other-ledger" => RefuseReason::OtherLedger { ledger: LedgerId([9; 16]) },
        "unavailable" | "again" => RefuseReason::Unavailable,
        reason => panic!("{reason}: no such reason"),
    };
    let again = Extra { tag: EXTRA_COME_AGAIN, bytes: vec![] };
    let extras = if name == "again" { vec![again] } else { vec![] };
    Frame::Refuse(Refuse { reason, message: "because".to_owned(), extras })
}

/// Each line: `step -> what the session does`.
#[track_caller]
fn check(table: &str) -> World {
    let mut world = World::new();
    world.out.clear();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (steps, expected) = line.split_once("->").unwrap_or((line, ""));
        let done: Vec<String> = steps.split_whitespace().map(|step| world.step(step)).collect();
        let done = done.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            done,
            expected.trim(),
            "at `{}`; last error: {}",
            steps.trim(),
            world.last_error()
        );
    }
    world
}

#[test]
fn hello_welcome_ship_ack() {
    let world = check(
        "seal:2
         connect   -> hello:0/2
         welcome:0 -> look:0 pin:0 batch:1 batch:2
         ack:1     -> posted:1
         ack:2     -> posted:2
         seal:3    -> batch:3
         ack:2     ->
         ack:3     -> posted:3",
    );
    let status = world.session.status();
    assert_eq!(status.state, SessionState::Live);
    assert_eq!((status.ledger, status.fence, status.in_flight), (Some(LEDGER), Some(Fence(7)), 0));
    assert_eq!(status.clock_offset_millis, Some(1_000));
    assert_eq!(world.rules, RulesVersion(3));
}

#[test]
fn nothing_is_sent_before_the_welcome_is_stored() {
    check(
        "seal:1 connect   -> hello:0/1
         hold welcome:0   -> look:0 pin:0
         ask:0@7          ->
         release          -> barrier batch:1",
    );
}

#[test]
fn a_lost_ack_is_learnt_from_welcome() {
    check(
        "seal:3 connect welcome:0 -> hello:0/3 look:0 pin:0 batch:1 batch:2 batch:3
         ack:1                    -> posted:1
         lost                     ->
         wait:100                 -> connect
         connect                  -> hello:1/3
         welcome:2                -> look:2 pin:2 batch:3",
    );
}

#[test]
fn a_restored_ledger_gets_the_retained_batches_again() {
    check(
        "seal:3 connect welcome:0 ack:3 -> hello:0/3 look:0 pin:0 batch:1 batch:2 batch:3 posted:3
         lost wait:100 connect          -> connect hello:3/3
         welcome:1                      -> look:1 pin:1 batch:2 batch:3
         ack:3                          -> posted:3",
    );
}

#[test]
fn a_hole_stops_and_is_named() {
    let mut world = check(
        "seal:9 connect welcome:0 ack:4 -> hello:0/9 look:0 pin:0 batch:1 batch:2 batch:3 batch:4 posted:4 batch:5 batch:6 batch:7 batch:8
         forget:4 lost wait:100 connect -> connect hello:4/9
         welcome:2                      -> look:2 disconnect
         wait:100 connect               -> connect hello:4/9/held:5
         welcome:2                      -> look:2 disconnect",
    );
    // By then the collector was told what the journal begins with.
    assert_eq!(FirstHeld::among(&world.session.hello(Timestamp(0)).extras), Some(held(5)));
    assert!(world.last_error().contains("batches 3 to 4"), "{}", world.last_error());
    assert!(matches!(world.session.status().state, SessionState::Stopped { until: Some(_) }));
    // The ledger's newer backup heals it, without anybody restarting the agent.
    assert_eq!(world.step("wait:30000"), "");
    assert_eq!(world.step("wait:90000"), "connect");
    assert_eq!(world.step("connect"), "hello:4/9/held:5");
    assert_eq!(world.step("welcome:4"), "look:4 pin:4 batch:5 batch:6 batch:7 batch:8");
    // Forgotten under our hands.
    world.first_held = 10;
    assert_eq!(world.step("ack:8"), "posted:8 disconnect");
    assert!(world.last_error().contains("batches 9 to 9"), "{}", world.last_error());
}

#[test]
fn conflicts_are_written_and_final() {
    let check_final = |table: &str, expected: &str| {
        let mut world = check(table);
        let message = world.conflict.clone().expect("a stored conflict");
        assert!(
            message.contains(expected)
                && message.contains("next start sets the journal's file aside"),
            "{message}"
        );
        assert_eq!(world.session.status().state, SessionState::Stopped { until: None });
        for step in ["lost", "wait:1000000", "seal:50", "ack:1"] {
            assert_eq!(world.step(step), "", "{step}");
        }
        assert_eq!(world.step("restart"), "finished-in-conflict");
    };
    check_final(
        "seal:3 connect -> hello:0/3
         welcome:4      -> write-conflict finished-in-conflict",
        "posted sequence 4, and this journal has sealed only 3",
    );
    // What the agent finds itself it states in its next Hello, for the collector to answer.
    check_final(
        "seal:3 connect         -> hello:0/3
         welcome-other-digest:2 -> look:2 disconnect
         wait:60000             -> connect
         connect                -> hello:2/3
         refuse:conflict        -> write-conflict finished-in-conflict",
        "opening 03030303030303030303030303030303 it has posted the events below 17",
    );
    // The answer to a batch tells of that batch alone.
    check_final(
        "seal:3 connect welcome:0 -> hello:0/3 look:0 pin:0 batch:1 batch:2 batch:3
         refuse:conflict          -> disconnect
         wait:60000 connect       -> connect hello:0/3
         welcome-other-digest:2   -> look:2 disconnect
         wait:60000 connect       -> connect hello:2/3
         refuse:conflict          -> write-conflict finished-in-conflict",
        "opening 03030303030303030303030303030303 it has posted the events below 17",
    );
    // An accusation that a Welcome answers is withdrawn.
    let mut world = check(
        "seal:3 connect         -> hello:0/3
         welcome-other-digest:2 -> look:2 disconnect
         wait:60000 connect     -> connect hello:2/3
         welcome:2              -> look:2 pin:2 batch:3
         lost                   ->
         wait:60000 connect     -> connect hello:2/3",
    );
    assert_eq!((world.conflict.take(), world.session.accusation), (None, None));
    let world =
        check("seal:3 connect refuse:conflict -> hello:0/3 write-conflict finished-in-conflict");
    let own = OpeningId([3; 16]);
    let settled = vec![PostedOpening { opening: own, end: EventNumber(17) }];
    assert_eq!(world.answer, Some(ConflictAnswer { asked: vec![own], settled }));
    // Durable before the agent leaves.
    let mut world = World::new();
    for step in ["connect", "hold"] {
        world.step(step);
    }
    assert_eq!(world.step("refuse:conflict"), "write-conflict");
    assert_eq!(world.step("release"), "finished-in-conflict");
}

#[test]
fn another_ledger_gets_nothing() {
    let world = check(
        "seal:1 connect welcome:0 -> hello:0/1 look:0 pin:0 batch:1
         lost wait:100 connect    -> connect hello:0/1
         welcome-other-ledger:0   -> disconnect
         wait:59000               ->
         wait:61000               -> connect
         connect                  -> hello:0/1
         refuse:other-ledger      -> disconnect",
    );
    assert!(
        world.last_error().contains(&format!("belongs to ledger {LEDGER}")),
        "{}",
        world.last_error()
    );
}

#[test]
fn refusals() {
    let check = |reason: &str, late: bool, expected: &str| {
        let mut world = check(&format!(
            "seal:1 connect welcome:0 -> hello:0/1 look:0 pin:0 batch:1
             refuse:{reason}          -> disconnect"
        ));
        assert!(world.last_error().contains(expected), "{}", world.last_error());
        assert_eq!(
            matches!(world.session.status().state, SessionState::Stopped { .. }),
            late,
            "{reason}"
        );
        assert_eq!(world.step("wait:100"), if late { "" } else { "connect" }, "{reason}");
    };
    check("gap", false, "batches from 2 on: because");
    check("fenced", false, "a newer session holds the stream (fence 0.8)");
    check("unavailable", false, "not available now: because");
    check("invalid", true, "cannot read what this agent sends: because");
    check("unauthorized", true, "tidemark://agent/NAME");
    check("other-ledger", true, "belongs to ledger");
}

#[test]
fn after_a_gap_the_batches_go_again_from_there() {
    check(
        "seal:3 connect welcome:0 -> hello:0/3 look:0 pin:0 batch:1 batch:2 batch:3
         ack:1                    -> posted:1
         refuse:gap               -> disconnect
         wait:100 connect         -> connect hello:1/3
         welcome:1                -> look:1 pin:1 batch:2 batch:3",
    );
}

#[test]
fn fenced_again_and_again_is_another_agent() {
    let mut world = World::new();
    for round in 1..=FENCED_IN_A_ROW_MAX {
        assert!(!world.last_error().contains("copy of this journal"), "round {round}");
        world.step("connect");
        world.step("welcome:0");
        world.step("refuse:fenced");
        world.step("wait:30000");
    }
    assert!(world.last_error().contains("another agent is running on a copy of this journal"));
    // A session that lasts forgives.
    for step in ["connect", "welcome:0", "wait:50000", "ack:0", "wait:50000", "refuse:fenced"] {
        world.step(step);
    }
    assert!(world.last_error().contains("a newer session"), "{}", world.last_error());
}

#[test]
fn confirms_follow_their_batches() {
    check(
        "connect welcome:0 -> hello:0/0 look:0 pin:0
         ask:0@10          -> barrier
         barrier:0         -> confirm:0@10
         ask:0@20          -> barrier
         barrier:2         -> batch:1 batch:2 confirm:2@20",
    );
    // Behind a full window it waits; of those asked meanwhile only the newest is answered.
    check(
        "seal:4 connect welcome:0 -> hello:0/4 look:0 pin:0 batch:1 batch:2 batch:3 batch:4
         ask:0@10                 -> barrier
         ask:0@20 ask:0@30        ->
         barrier:6                ->
         ack:1                    -> posted:1 batch:5
         ack:2                    -> posted:2 batch:6 confirm:6@10 barrier
         ask:2@25                 ->
         barrier:6                -> confirm:6@30 barrier",
    );
    // A barrier of a session that is gone answers nobody.
    check(
        "connect welcome:0 ask:0@10 -> hello:0/0 look:0 pin:0 barrier
         lost wait:100 connect      -> connect hello:0/0
         welcome:0 ask:0@20         -> look:0 pin:0
         barrier:0                  -> barrier
         barrier:0                  -> confirm:0@20
         ask:0@30                   -> barrier
         barrier:closed             ->",
    );
}

#[test]
fn the_window_is_kept_and_room_follows_it() {
    let mut world = check(
        "seal:9 connect welcome:0 -> hello:0/9 look:0 pin:0 batch:1 batch:2 batch:3 batch:4
         ack:2                    -> posted:2 batch:5 batch:6",
    );
    assert!(!world.session.has_room(), "a backlog waits");
    for step in ["ack:6", "ack:9"] {
        world.step(step);
    }
    assert!(world.session.has_room());
    world.step("lost");
    assert!(!world.session.has_room());
    check("seal:9 connect welcome-window:0 -> hello:0/9 look:0 pin:0 batch:1");
    check("seal:9 connect welcome-window:2 -> hello:0/9 look:0 pin:0 batch:1 batch:2");
}

#[test]
fn throttle_pauses_all_that_leaves() {
    check(
        "connect welcome:0 throttle:500 -> hello:0/0 look:0 pin:0
         seal:2                         ->
         ask:0@10 barrier:2             -> barrier
         wait:499                       ->
         wait:1                         -> batch:1 batch:2 confirm:2@10
         throttle:4000000000 seal:3     ->
         wait:30000                     -> batch:3",
    );
    let mut world = check("connect welcome:0 throttle:500 -> hello:0/0 look:0 pin:0");
    let shown =
        |world: &World| (world.session.status().throttles, world.session.status().is_paused);
    assert_eq!(shown(&world), (1, true));
    world.step("wait:500");
    assert_eq!(shown(&world), (1, false));
}

#[test]
fn posted_writes_are_coalesced() {
    check(
        "seal:4 connect welcome:0 -> hello:0/4 look:0 pin:0 batch:1 batch:2 batch:3 batch:4
         hold ack:1               -> posted:1
         ack:2 ack:4 ack:3        ->
         release                  -> posted:4",
    );
}

#[test]
fn an_ack_beyond_what_was_sent_ends_the_session() {
    let world = check(
        "seal:6 connect welcome:0 -> hello:0/6 look:0 pin:0 batch:1 batch:2 batch:3 batch:4
         ack:5                    -> disconnect",
    );
    assert!(world.last_error().contains("acknowledged sequence 5"), "{}", world.last_error());
}

#[test]
fn a_collector_that_does_not_answer_is_left() {
    check(
        "connect           -> hello:0/0
         wait:29999        ->
         wait:1            -> disconnect
         wait:100          -> connect
         connect welcome:0 -> hello:0/0 look:0 pin:0
         wait:59999 ack:0  ->
         wait:59999        ->
         wait:1            -> disconnect",
    );
}

#[test]
fn frames_out_of_turn_end_the_session() {
    check("connect ack:0 -> hello:0/0 disconnect");
    check("connect welcome:0 welcome:0 -> hello:0/0 look:0 pin:0 disconnect");
    check("connect welcome:0 hello -> hello:0/0 look:0 pin:0 disconnect");
    check("connect lost ack:0 throttle:5 -> hello:0/0");
}

#[test]
fn older_collectors_are_not_sent_newer_batches() {
    let world = check("seal:1 connect welcome-version:0 -> hello:0/1 disconnect");
    assert!(world.last_error().contains("upgrade the collectors first"), "{}", world.last_error());
}

#[test]
fn a_session_at_its_age_drains_and_leaves_in_good_order() {
    let mut world = check("seal:1 connect welcome:0 -> hello:0/1 look:0 pin:0 batch:1");
    for _ in 0..35 {
        assert_eq!(world.step("wait:50000") + &world.step("ack:0"), "");
    }
    assert_eq!(world.step("wait:50000"), "", "it waits for its acks");
    assert_eq!(world.step("seal:2"), "", "and sends nothing new");
    assert_eq!(world.step("ack:1"), "posted:1 disconnect");
    assert_eq!(world.last_error(), "");
    assert_eq!(world.step("wait:100"), "connect");
    for step in ["connect", "welcome:1"] {
        world.step(step);
    }
    for _ in 0..36 {
        world.step("wait:50000");
        world.step("ack:1");
    }
    assert_eq!(
        world.step("wait:10000"),
        "disconnect",
        "an ack that does not come is not waited for"
    );
}

#[test]
fn a_better_link_is_moved_to_once_all_is_acknowledged() {
    let world = check("seal:1 connect leave welcome:0 -> hello:0/1 disconnect");
    assert_eq!(world.last_error(), "");
    check(
        "seal:2 connect welcome:0 -> hello:0/2 look:0 pin:0 batch:1 batch:2
         leave ack:1 seal:3       -> posted:1
         ack:2                    -> posted:2 disconnect
         wait:100                 -> connect",
    );
    check("leave connect welcome:0 wait:60000 -> hello:0/0 look:0 pin:0 disconnect");
}

#[test]
fn a_collector_that_ends_a_session_in_good_order_is_no_trouble() {
    let world = check("connect welcome:0 refuse:again -> hello:0/0 look:0 pin:0 disconnect");
    assert_eq!(world.last_error(), "");
    let world = check("connect welcome:0 refuse:unavailable -> hello:0/0 look:0 pin:0 disconnect");
    assert!(world.last_error().contains("not available"), "{}", world.last_error());
}

#[test]
fn only_a_proven_session_resets_the_backoff() {
    let mut world = World::new();
    let fail = |world: &mut World| {
        world.session.handle_disconnected(world.now, 30_000, "away");
        let SessionState::Backoff { until } = world.session.status().state else {
            panic!("not waiting")
        };
        let waits = until.since(world.now);
        world.step(&format!("wait:{waits}"));
        waits
    };
    // 30,000 modulo (ceiling + 1): 3 of 101, 51 of 201, ...
    assert_eq!([fail(&mut world), fail(&mut world), fail(&mut world)], [3, 51, 326]);
    for step in ["connect", "welcome:0", "wait:1000", "ack:0"] {
        world.step(step);
    }
    assert_eq!(fail(&mut world), 363, "a short success resets nothing");
    for step in ["connect", "welcome:0", "wait:59000", "ack:0", "wait:1000"] {
        world.step(step);
    }
    assert_eq!(fail(&mut world), 3);
}

#[test]
fn shutdown_closes_once_all_is_acknowledged() {
    let world = check(
        "seal:2 connect welcome:0 -> hello:0/2 look:0 pin:0 batch:1 batch:2
         shutdown ack:1           -> posted:1
         ack:2                    -> posted:2 write-closed close:2/1000 finished
         lost wait:100            ->",
    );
    assert_eq!(world.session.status().state, SessionState::Closed);
    // What is not sealed would be cut off.
    let mut world = check("seal:1 connect welcome:0 -> hello:0/1 look:0 pin:0 batch:1");
    world.unsealed_events = 5;
    assert_eq!(world.step("shutdown") + &world.step("ack:1"), "posted:1");
    world.unsealed_events = 0;
    assert_eq!(world.step("seal:2"), "batch:2");
    assert_eq!(world.step("ack:2"), "posted:2 write-closed close:2/1000 finished");
    // With the link down it comes back, and an idle stream closes too.
    check(
        "shutdown connect         -> hello:0/0
         welcome:0                -> look:0 pin:0 write-closed close:0/1000 finished",
    );
}

#[test]
fn the_stream_is_not_closed_over_events_that_are_not_sealed() {
    let mut world = World::new();
    for step in ["connect", "welcome:0", "seal:1", "ack:1", "hold", "shutdown"] {
        world.step(step);
    }
    world.unsealed_events = 5;
    let told = world.step("release");
    assert!(!told.contains("close:"), "{told}");
}

proptest! {
    /// Whatever happens on the way, the harness's assertions hold, and once the way is free all that
    /// is sealed is posted.
    #[test]
    fn all_is_posted_in_the_end(steps in proptest::collection::vec((0..9_u8, 0..8_u64), 0..120)) {
        let mut world = World::new();
        let mut ledger = 0;
        let mut up = false;
        for (what, amount) in steps {
            match what {
                0 | 1 => { world.step(&format!("seal:{}", (world.sealed + amount).min(200))); }
                2 if up => { world.step(&format!("throttle:{}", amount * 100)); }
                3 => { world.step("lost"); up = false; }
                4 if up => { world.step(&format!("ask:{ledger}@{amount}")); }
                5 if matches!(world.session.barrier, Barrier::Running(_)) => {
                    world.step(&format!("barrier:{}", world.sealed));
                }
                6 if up && ledger < world.sent => {
                    ledger = (ledger + amount).min(world.sent);
                    world.step(&format!("ack:{ledger}"));
                }
                // Posted, and the ack is lost with the link.
                7 if up => { ledger = world.sent; world.step("lost"); up = false; }
                _ => {
                    world.step("wait:3000");
                    if !up && matches!(world.session.state, State::Connecting) {
                        world.step("connect");
                        world.step(&format!("welcome:{ledger}"));
                        up = true;
                    }
                }
            }
        }
        for _ in 0..400 {
            world.step("wait:30000");
            if matches!(world.session.state, State::Connecting) {
                world.step("connect");
                world.step(&format!("welcome:{ledger}"));
            }
            ledger = ledger.max(world.sent);
            world.step(&format!("ack:{ledger}"));
            if world.posted == world.sealed { break; }
        }
        prop_assert_eq!((world.posted, ledger), (world.sealed, world.sealed));
        prop_assert_eq!(world.conflict, None);
    }
}
