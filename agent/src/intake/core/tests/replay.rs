//! Dead letters that are taken once more.

use super::*;
use crate::intake::replay::{Replay, Share};
use crate::parse;

const DAY_MILLIS: i64 = 86_400_000;

fn letter(number: u64, line: &str, age_millis: i64) -> Replay {
    let Parsed::Message(message) = parse::line(line.as_bytes(), &Naming::default()) else {
        panic!("{line} is no message")
    };
    Replay { number, at: NOW.plus_millis(-age_millis), share: Share::Whole, message }
}

/// What becomes of letter 7, which came `age_millis` ago; whether it leaves; what is counted.
fn check_letter(line: &str, age_millis: i64, answer: Answer, leaves: bool, counted: &str) {
    let mut core = core();
    send(&mut core, "calls:1|c|#customer:a,id:known");
    core.hand_over(NOW);
    core.take_jobs();
    assert_eq!(core.replay(&letter(7, line, age_millis), NOW), answer, "{line}");
    core.hand_over(NOW);
    let jobs = core.take_jobs();
    let left: Vec<u64> = jobs
        .iter()
        .flat_map(|job| match job {
            Job::Commit(commit) => commit.replayed.clone(),
            Job::Close(_) => Vec::new(),
        })
        .collect();
    assert_eq!(left, if leaves { vec![7] } else { vec![] }, "{line}");
    assert_eq!(counts(&core), counted, "{line}");
}

#[test]
fn a_letter_is_taken_whole_or_stays() {
    let rejected = Answer::Rejected;
    check_letter("calls:1|c|#customer:a", 0, Answer::Accepted, true, "accepted=2 replayed=1");
    check_letter("calls:1:2:3|c|#customer:a", 0, Answer::Accepted, true, "accepted=4 replayed=3");
    check_letter(
        "calls:1|c|#customer:a,id:known",
        0,
        Answer::Duplicate,
        true,
        "accepted=1 duplicates=1",
    );
    check_letter(
        "calls:x|c|#customer:a",
        0,
        rejected(RejectReason::BadQuantity),
        false,
        "accepted=1",
    );
    check_letter(
        "calls:1:x|c|#customer:a",
        0,
        rejected(RejectReason::BadQuantity),
        false,
        "accepted=1",
    );
    check_letter(
        "calls:-1|c|#customer:a",
        0,
        rejected(RejectReason::Negative),
        false,
        "accepted=1",
    );
}

/// Both letters of a line of which one value was counted, or none; and a letter that is a whole line.
#[test]
fn values_of_one_line_share_its_id_and_are_no_duplicates_of_each_other() {
    fn check(line: &str, share: Share, answer: Answer, counted: &str) {
        let mut core = core();
        send(&mut core, line);
        for number in [7, 8] {
            let letter = Replay { share, ..letter(number, "calls:5|c|#customer:a,id:7", 0) };
            assert_eq!(core.replay(&letter, NOW), answer, "{line} {number}");
        }
        // The id is known from then on, whatever made it so.
        send(&mut core, "calls:5|c|#customer:a,id:7");
        assert_eq!(counts(&core), counted, "{line}");
    }
    let taken = "accepted=3 duplicates=1 replayed=2 bad_quantity=2";
    check("calls:1:x:y|c|#customer:a,id:7", Share::OneValue, Answer::Accepted, taken);
    let taken = "accepted=2 duplicates=1 replayed=2 bad_quantity=2";
    check("calls:x:y|c|#customer:a,id:7", Share::OneValue, Answer::Accepted, taken);
    let known = "accepted=1 duplicates=3";
    check("calls:1|c|#customer:a,id:7", Share::Whole, Answer::Duplicate, known);
}

#[test]
fn an_age_is_judged_now_and_not_when_the_letter_came() {
    let check = |line: &str, age_days: i64, answer: Answer| {
        let counted = match answer {
            Answer::Accepted => "accepted=2 replayed=1",
            _ => "accepted=1",
        };
        check_letter(line, age_days * DAY_MILLIS, answer, answer == Answer::Accepted, counted);
    };
    let too_old = Answer::Rejected(RejectReason::TooOld);
    check("calls:1|c|#customer:a", 35, Answer::Accepted);
    check("calls:1|c|#customer:a", 36, too_old);
    // Its own time goes before that of its arrival, either way.
    check("calls:1|c|#customer:a|T1799999990", 36, Answer::Accepted);
    check("calls:1|c|#customer:a|T1000000000", 0, too_old);
}

#[test]
fn an_event_without_a_time_is_billed_when_it_came_first() {
    let mut core = core();
    let hour = 3_600_000;
    core.replay(&letter(1, "calls:5|c|#customer:a", 3 * hour), NOW);
    core.close(NOW);
    let raw = core.take_jobs().into_iter().find_map(|job| match job {
        Job::Commit(commit) => commit.chunk,
        Job::Close(_) => None,
    });
    let mut times = Vec::new();
    GroupReader::default()
        .read(&raw.unwrap().bytes, |_, record, _| times.push(record.time))
        .unwrap();
    assert_eq!(times, [NOW.plus_millis(-3 * hour)]);
}

#[test]
fn a_letter_and_its_events_are_in_one_job_however_many_there_are() {
    let mut core = core();
    let packed = vec!["12345.678901234"; 100].join(":");
    for number in 0..1_000 {
        let line = format!("calls:{packed}|d|#customer:c{number},id:{number}");
        assert_eq!(core.replay(&letter(number, &line, 0), NOW), Answer::Accepted);
    }
    core.hand_over(NOW);
    let mut replayed = Vec::new();
    for job in core.take_jobs() {
        let Job::Commit(commit) = job else { continue };
        let events = commit.chunk.map_or(0, |chunk| chunk.events);
        assert_eq!(usize::try_from(events).unwrap(), commit.replayed.len() * 100);
        assert_eq!(commit.ids.len(), commit.replayed.len());
        replayed.extend(commit.replayed);
    }
    assert_eq!(replayed, (0..1_000).collect::<Vec<_>>());
}
