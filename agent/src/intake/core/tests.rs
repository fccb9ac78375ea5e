//! What intake makes of input: answers, counts, jobs; and that chunks and aggregates agree.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test panics, as it should")]

mod deduplicated;
mod replay;

use tidemark_common::chunk::GroupReader;
use tidemark_common::id::MeterName;
use tidemark_common::wire::MeterRule;

use super::*;
use crate::event::TimeLimits;
use crate::parse::naming::{Naming, Patterns};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn rules(version: u64) -> Arc<Rules> {
    let meter = |name: &str, dimensions: &[&str], negative| MeterRule {
        meter: MeterName::parse(name).unwrap(),
        dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
        negative,
    };
    Arc::new(Rules {
        version: RulesVersion(version),
        seal_interval_millis: 1_000,
        meters: vec![meter("calls", &["plan"], false), meter("credits", &[], true)],
        cloud_events: vec![],
        deduplicated: vec![],
    })
}

fn settings() -> IntakeSettings {
    IntakeSettings {
        naming: Naming::default(),
        negative: Patterns::default(),
        time: TimeLimits::default(),
        linger_millis: 5,
        linger_max_millis: 50,
        open_lines_max: 1_000,
        open_chunk_bytes_max: 1 << 20,
        ids_max: 1_000,
        ids_window_millis: 86_400_000,
    }
}

fn core_with(settings: IntakeSettings, rules: Option<Arc<Rules>>) -> Core {
    let start = IntakeStart {
        opening: OpeningId([9; 16]),
        accepted: 0,
        evidence: Evidence::default(),
        next_group: 1,
        newest: Timestamp(0),
        ids: vec![],
        sources: vec![],
        unique_key: rules.as_ref().map(|_| UniqueKey { id: 1, key: [3; 32] }),
        rules,
    };
    Core::new(settings, start)
}

fn core() -> Core {
    core_with(settings(), Some(rules(1)))
}

fn send(core: &mut Core, datagram: &str) {
    core.datagram(Door::Udp, datagram.as_bytes(), true, NOW);
}

/// `accepted` and every other count that is not zero, by name.
fn counts(core: &Core) -> String {
    let known = |(number, count)| (EvidenceCode::from_number(number).unwrap().name(), count);
    core.evidence()
        .iter()
        .map(known)
        .map(|(name, count)| format!("{name}={count}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn check(datagram: &str, expected: &str) {
    let mut core = core();
    send(&mut core, datagram);
    assert_eq!(counts(&core), expected, "{datagram:?}");
}

#[test]
fn a_datagram_is_counted_event_by_event() {
    check("calls:1|c|#customer:a", "accepted=1");
    check("calls:1|c|#customer:a\ncalls:2:3:4|d|#customer:a\n", "accepted=4");
    check("calls:1:x:3|d|#customer:a", "accepted=2 bad_quantity=1");
    check("calls:1|c\ncalls:1|c|#customer:a", "accepted=1 no_customer=1");
    check("calls:1|c|@0.5|#customer:a", "sampled=1");
    check("calls:-1|c|#customer:a\ncredits:-1|c|#customer:a", "accepted=1 negative=1");
    check("datadog.x:1|c\ndatadog.x:1|c|@0.1", "not_metered=2");
    check("calls:1|c|#customer:a,plan:x,host:h", "accepted=1 dropped_dimensions=1");
    check("users:u1|s|#customer:a\nusers:u1|s|#customer:a", "accepted=2");
    check("calls:1|c|#customer:a,id:7\ncalls:1|c|#customer:a,id:7", "accepted=1 duplicates=1");
    check("calls:1|c|T1|#customer:a", "too_old=1");
    check("\u{0}\u{1}garbage", "malformed=1");
    check("", "");
}

#[test]
fn the_second_sight_counts_as_the_first_did() {
    for line in [
        "calls:1:2|c|#customer:a,host:h",
        "credits:-1|c|#customer:a",
        "datadog.x:1|c",
        "calls:-1|g|#customer:a",
    ] {
        let mut once = core();
        send(&mut once, line);
        let mut thrice = core();
        for _ in 0..3 {
            send(&mut thrice, line);
        }
        for (code, count) in once.evidence().iter() {
            let code = EvidenceCode::from_number(code).unwrap();
            assert_eq!(thrice.evidence().get(code), count * 3, "{line} {code:?}");
        }
    }
}

#[test]
fn what_is_not_metered_is_handed_out_unchanged_by_whatever_door() {
    use crate::intake::forward::packer::Packed;
    let mut core = core();
    send(&mut core, "datadog.x:1|c");
    assert!(core.outgoing().is_none(), "unless that is wanted, nothing is kept");
    core.begin_forwarding();
    // First sight, second sight, and one that cannot be split; usage and bad lines are not handed out.
    send(&mut core, "datadog.x:1|c|c:ci\ncalls:1|c|#customer:a\ndatadog.x:1|c|c:ci\r\nbad");
    send(&mut core, "datadog.y:1|c|@0.1\n_sc|datadog.up|0");
    // No DogStatsD server reads JSON.
    let items = [
        (Door::Events, "datadog.z:1|g"),
        (Door::Events, r#"{"meter":"datadog.z","customer":"a"}"#),
        (Door::DsdStream, "datadog.z:2|g"),
        (Door::Http, "{}"),
    ];
    for (door, line) in items {
        let parsed = Parsed::NotMetered { name: "datadog.z".to_owned() };
        core.item(door, parsed, line.as_bytes(), NOW);
    }
    let packer = core.outgoing().unwrap();
    let packet = packer.take(Packed::All).unwrap();
    let expected =
        "datadog.x:1|c|c:ci\ndatadog.x:1|c|c:ci\ndatadog.y:1|c|@0.1\ndatadog.z:1|g\ndatadog.z:2|g";
    assert_eq!(String::from_utf8(packet.bytes).unwrap(), expected);
    assert_eq!((packet.lines, packer.take(Packed::All)), (5, None));
    assert_eq!(packer.take_left_out(), 1, "a line that was to go on");
}

#[test]
fn a_truncated_datagram_loses_its_last_line_only() {
    let mut core = core();
    core.datagram(Door::Udp, b"calls:1|c|#customer:a\ncalls:2|c|#custo", false, NOW);
    assert_eq!(counts(&core), "accepted=1 truncated=1");
}

#[test]
fn numbered_sources_tell_what_is_missing() {
    let mut core = core();
    for number in [5, 6, 9, 10, 2, 3] {
        send(&mut core, &format!("calls:1|c|#customer:a,source:s,source_seq:{number}"));
    }
    assert_eq!(counts(&core), "accepted=6 source_gaps=2");
}

#[test]
fn a_full_journal_counts_what_datagrams_lose() {
    let mut core = core();
    send(&mut core, "calls:1|c|#customer:a");
    core.set_full(true);
    send(&mut core, "calls:1:2|c|#customer:a\ncalls:1|c|#customer:new");
    core.set_full(false);
    send(&mut core, "calls:1|c|#customer:a");
    assert_eq!(counts(&core), "accepted=2 journal_full=3");
}

/// Events in the chunks of the jobs, and in the aggregates of those that close.
fn totals(jobs: &[Job]) -> (u64, u64) {
    let mut reader = GroupReader::default();
    let (mut chunked, mut aggregated) = (0, 0);
    for job in jobs {
        match job {
            Job::Commit(commit) => {
                if let Some(chunk) = &commit.chunk {
                    chunked += u64::from(reader.read(&chunk.bytes, |_, _, _| {}).unwrap());
                }
            }
            Job::Close(close) => {
                reader = GroupReader::default();
                aggregated += close.batch.as_ref().map_or(0, OpenBatch::events);
            }
        }
    }
    (chunked, aggregated)
}

#[test]
fn chunks_and_aggregates_hold_the_same_events() {
    let mut core = core_with(IntakeSettings { open_lines_max: 50, ..settings() }, Some(rules(1)));
    for number in 0..5_000 {
        send(
            &mut core,
            &format!("calls:{number}|c|#customer:c{},plan:p{}", number % 37, number % 3),
        );
    }
    core.close(NOW);
    let jobs = core.take_jobs();
    assert!(
        jobs.iter().filter(|job| matches!(job, Job::Close(_))).count() > 10,
        "the limit on lines closes"
    );
    assert_eq!(totals(&jobs), (5_000, 5_000));
}

#[test]
fn a_batch_that_takes_its_share_of_memory_is_closed() {
    let closed = |bytes_max: usize| {
        let settings = IntakeSettings { open_lines_max: 1_000_000, ..settings() };
        let mut core = core_with(settings, Some(rules(1)));
        core.set_batch_bytes_max(bytes_max);
        for number in 0..2_000 {
            send(&mut core, &format!("calls:1|c|#customer:c{number}"));
            assert!(core.batch.memory_bytes() < bytes_max);
        }
        let jobs = core.take_jobs();
        jobs.iter().filter(|job| matches!(job, Job::Close(_))).count()
    };
    assert_eq!(closed(ROOM_BYTES), 0, "2,000 lines are few");
    let few = closed(1 << 16);
    assert!((4..10).contains(&few), "some 200 bytes a line: {few}");
}

#[test]
fn groups_follow_each_other_without_holes() {
    let mut core = core_with(IntakeSettings { open_lines_max: 10, ..settings() }, Some(rules(1)));
    for number in 0..200 {
        send(&mut core, &format!("calls:1|c|#customer:c{number}"));
    }
    core.close(NOW);
    let mut next = EventNumber(0);
    for job in core.take_jobs() {
        if let Job::Close(close) = job {
            assert_eq!(close.position.first_event, next);
            next = close.position.end_event;
        }
    }
    assert_eq!(next, EventNumber(200));
}

#[test]
fn what_is_due_is_handed_over() {
    let mut core = core();
    send(&mut core, "calls:1|c|#customer:a");
    core.turn(4, NOW, true, false);
    assert!(core.take_jobs().is_empty(), "the linger is not over");
    core.turn(5, NOW, true, false);
    assert_eq!(totals(&core.take_jobs()), (1, 0));
    core.turn(1_000, NOW, false, false);
    assert_eq!(totals(&core.take_jobs()), (0, 0), "no room at the uplink: nothing is sealed");
    core.turn(1_001, NOW, false, true);
    assert_eq!(totals(&core.take_jobs()), (0, 1));
    core.turn(9_000, NOW, false, true);
    assert!(core.take_jobs().is_empty(), "an idle stream seals nothing");
}

#[test]
fn with_a_stop_near_everything_is_sealed_within_a_tenth_of_a_second() {
    let mut core = core();
    core.turn(70_000, NOW, false, true);
    core.take_jobs();
    send(&mut core, "calls:1|c|#customer:a");
    core.turn(70_100, NOW, false, true);
    assert_eq!(totals(&core.take_jobs()), (1, 0), "the rules say a second");
    core.set_stop_near(true);
    assert_eq!(core.wait_millis(false), 5, "it is due");
    core.turn(70_101, NOW, false, true);
    assert_eq!(totals(&core.take_jobs()), (0, 1));
    send(&mut core, "calls:1|c|#customer:a");
    core.turn(70_152, NOW, false, true);
    core.turn(70_153, NOW, false, true);
    assert_eq!(totals(&core.take_jobs()), (1, 0));
    assert_eq!(core.wait_millis(false), 48, "not the whole time that an idle one waits");
    core.turn(70_201, NOW, false, true);
    assert_eq!(totals(&core.take_jobs()), (0, 1));
    send(&mut core, "calls:x|c|#customer:a");
    core.turn(70_302, NOW, false, true);
    assert!(matches!(&core.take_jobs()[..], [.., Job::Close(close)] if close.group.is_none()));
}

#[test]
fn changed_evidence_is_committed_within_a_second_and_sealed_alone_each_minute() {
    let mut core = core();
    core.turn(70_000, NOW, false, true);
    core.take_jobs();
    send(&mut core, "calls:x|c|#customer:a");
    core.turn(71_000, NOW, false, true);
    assert!(matches!(&core.take_jobs()[..], [Job::Commit(commit)] if commit.chunk.is_none()));
    core.turn(131_000, NOW, false, true);
    assert!(matches!(&core.take_jobs()[..], [Job::Close(close)] if close.group.is_none()));
}

#[test]
fn before_any_rules_dimensions_and_unique_values_are_kept_whole() {
    let mut core = core_with(settings(), None);
    send(&mut core, "calls:u1|s|#customer:a,host:h");
    core.close(NOW);
    let jobs = core.take_jobs();
    let [Job::Commit(commit), Job::Close(close)] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!(commit.rules, RulesVersion(0));
    assert!(close.batch.is_none(), "it is made from its chunks once rules are known");
    let chunk = commit.chunk.as_ref().unwrap();
    GroupReader::default()
        .read(&chunk.bytes, |key, record, series| {
            assert_eq!((key, record.unique), (0, Some(Unique::Raw("u1"))));
            assert_eq!(series, series_bytes("calls", "a", &[("host", "h")]));
        })
        .unwrap();
}

#[test]
fn a_change_of_rules_closes_the_batch() {
    let mut core = core();
    let key = UniqueKey { id: 1, key: [3; 32] };
    send(&mut core, "calls:1|c|#customer:a");
    core.adopt(Some(rules(1)), key, NOW);
    assert!(core.take_jobs().is_empty(), "the same rules change nothing");
    core.adopt(Some(rules(2)), key, NOW);
    assert_eq!(totals(&core.take_jobs()), (1, 1));
    send(&mut core, "calls:1|c|#customer:a");
    core.close(NOW);
    let jobs = core.take_jobs();
    assert!(
        matches!(&jobs[..], [Job::Commit(_), Job::Close(close)] if close.position.rules == RulesVersion(2))
    );
    assert_eq!(totals(&jobs), (1, 1), "the new group defines its series anew");
}

#[test]
fn a_message_and_its_id_are_in_one_job() {
    let mut core = core();
    for number in 0..3_000 {
        let line = format!(
            "calls:{}|d|#customer:c{number},id:{number}",
            vec!["12345.678901234"; 20].join(":")
        );
        send(&mut core, &line);
    }
    core.hand_over(NOW);
    let mut ids = 0;
    for job in core.take_jobs() {
        let Job::Commit(commit) = job else { continue };
        let events = commit.chunk.map_or(0, |chunk| chunk.events);
        assert_eq!(usize::try_from(events).unwrap(), commit.ids.len() * 20);
        ids += commit.ids.len();
    }
    assert_eq!(ids, 3_000);
}

#[test]
fn dead_letters_are_bounded_in_each_job() {
    let mut core = core();
    for _ in 0..1_000 {
        send(&mut core, &format!("{}:x|c|#customer:a", "y".repeat(10_000)));
    }
    core.turn(2_000, NOW, false, false);
    let jobs = core.take_jobs();
    let [Job::Commit(commit)] = &jobs[..] else { panic!("{}", jobs.len()) };
    assert_eq!(commit.dead_letters.len(), DEAD_LETTERS_PER_JOB_MAX);
    assert!(commit.dead_letters.iter().all(|letter| letter.bytes.len() <= DEAD_LETTER_BYTES_MAX));
}

#[test]
fn series_whose_events_are_all_rejected_do_not_pile_up() {
    let mut core = core_with(IntakeSettings { open_lines_max: 50, ..settings() }, Some(rules(1)));
    for number in 0..5_000 {
        send(&mut core, &format!("calls:x|c|#customer:c{number}"));
        assert!(core.batch.lines() <= 50, "{number}");
    }
    send(&mut core, "calls:1|c|#customer:c");
    core.close(NOW);
    assert_eq!(totals(&core.take_jobs()), (1, 1));
}

#[test]
fn an_id_outlives_a_clock_that_was_ahead_and_came_back() {
    let mut core = core();
    core.datagram(Door::Udp, b"calls:1|c|#customer:a", true, NOW.plus_millis(2 * 86_400_000));
    core.hand_over(NOW);
    send(&mut core, "calls:1|c|#customer:a,id:7");
    core.hand_over(NOW);
    // A full chunk is handed over at the time of its arrival.
    for number in 0..400 {
        let values = vec!["12345.678901234"; 20].join(":");
        send(&mut core, &format!("calls:{values}|d|#customer:c{number}"));
    }
    send(&mut core, "calls:1|c|#customer:a,id:7");
    assert_eq!(core.evidence().get(EvidenceCode::Duplicates), 1);
}

#[test]
fn one_datagram_makes_chunks_of_the_usual_size() {
    let options = crate::parse::naming::NamingOptions {
        customer_default: Some("c".repeat(128)),
        ..Default::default()
    };
    let naming = Naming::new(&options).unwrap();
    let settings = IntakeSettings { naming, open_lines_max: 100_000, ..settings() };
    let mut core = core_with(settings, Some(rules(1)));
    let letter = |number: usize| char::from(b"abcdefghijklmnopqrstuvwxyz"[number % 26]);
    let line = |number: usize| {
        format!("{}{}{}:1|c\n", letter(number), letter(number / 26), letter(number / 676))
    };
    let datagram: String = (0..8_000).map(line).collect();
    send(&mut core, &datagram);
    core.hand_over(NOW);
    for job in core.take_jobs() {
        let Job::Commit(commit) = job else { continue };
        let bytes = commit.chunk.map_or(0, |chunk| chunk.bytes.len());
        assert!(bytes < tidemark_common::chunk::CHUNK_RAW_BYTES_MAX + 1_024, "{bytes}");
    }
}

#[test]
fn nothing_is_sealed_before_the_first_rules() {
    let mut core = core_with(settings(), None);
    core.close(NOW);
    core.close_evidence(NOW);
    assert!(!core.take_jobs().iter().any(|job| matches!(job, Job::Close(_))));
}

#[test]
fn a_full_journal_seals_its_open_batch() {
    let mut core = core();
    send(&mut core, "calls:1|c|#customer:a");
    core.set_full(true);
    core.turn(10, NOW, false, false);
    assert_eq!(totals(&core.take_jobs()), (1, 1));
}

#[test]
fn a_door_and_a_reason_are_told_of_once() {
    let mut core = core();
    let mut check = |full, door, text: &str, told: &[(Door, RejectReason)]| {
        core.set_full(full);
        core.datagram(door, text.as_bytes(), true, NOW);
        assert_eq!(core.take_new_rejections(), told, "{text}");
    };
    let (malformed, sampled) = (RejectReason::Malformed, RejectReason::Sampled);
    let known = "calls:1|c|#customer:a";
    check(false, Door::Udp, known, &[]);
    check(
        false,
        Door::Udp,
        "x\ny\ncalls:1|c|@0.5",
        &[(Door::Udp, malformed), (Door::Udp, sampled)],
    );
    check(false, Door::Udp, "z\ncalls:1|c|@0.1", &[]);
    check(false, Door::UnixDatagram, "z", &[(Door::UnixDatagram, malformed)]);
    check(true, Door::Udp, known, &[(Door::Udp, RejectReason::JournalFull)]);
    check(true, Door::Udp, known, &[]);
}
