use tidemark_common::id::{EventNumber, Fence, LedgerId, Sequence};
use tidemark_common::tls::AgentName;

use super::*;
use crate::grants::{Pattern, Patterns};
use crate::ledger::stream::Confirmed;

const HOUR: i64 = 3_600_000;
const NOW: Timestamp = Timestamp(100 * HOUR);

/// `what` is words such as `confirmed=99 heard=100 accepted=50 posted=40 closed`, times in hours.
fn record(what: &str) -> StreamRecord {
    let agent = AgentName::parse("spot-1").unwrap();
    let mut record =
        StreamRecord::new(StreamId([1; 16]), agent, LedgerId([9; 16]), Timestamp(10 * HOUR));
    record.last_heard = NOW;
    for word in what.split_whitespace() {
        let (name, number) = word.split_once('=').unwrap_or((word, "0"));
        let number: i64 = number.parse().unwrap();
        let count = number.unsigned_abs();
        match name {
            "confirmed" => {
                record.confirmed = Some(Confirmed {
                    ledger_time: Timestamp(number * HOUR),
                    sequence: Sequence(0),
                    accepted: 0,
                });
            }
            "heard" => record.last_heard = Timestamp(number * HOUR),
            "accepted" => record.accepted = count,
            "posted" => record.posted_end = EventNumber(count),
            "fence" => record.fence = Fence(count),
            "closed" => record.state = StreamState::Closed,
            "conflict" => record.mark_conflict(),
            "quarantine" => {
                record.quarantined_batches = 1;
                record.quarantined_events = count;
                record.quarantine_cap = Some(record.complete_through());
            }
            "missing" => {
                let (first, last) = (Sequence(5), Sequence(7));
                record.missing = Some(Missing { first, last, events: count });
            }
            other => panic!("{other}"),
        }
    }
    record
}

fn policy() -> Policy {
    Policy {
        name: "spot".to_owned(),
        signed_by: "the board".to_owned(),
        kinds: [Kind::Lost].into(),
        identities: Patterns::new([Pattern::parse("spot-*").unwrap()]),
        lost_after_millis: Some(20 * HOUR),
        events_per_stream_max: 100,
        events_total_max: 150,
    }
}

/// Each finding as `kind from-to events certainty`; `lost` is the hour at which a person declared the stream lost.
fn check_with(what: &str, lost: Option<i64>, policies: &[Policy], expected: &str) {
    let record = Arc::new(record(what));
    let losses = lost.map(|hour| {
        let (actor, reason) = ("ada".to_owned(), "burnt".to_owned());
        (
            record.stream,
            Loss { at: Timestamp(hour * HOUR), actor, reason, entry: 1, fence: Fence(0) },
        )
    });
    let losses = losses.into_iter().collect();
    let span = Span { from: Timestamp(0), to: Timestamp(99 * HOUR) };
    let judging =
        Judging { now: NOW, span, silent_after_millis: 30_000, losses: &losses, policies };
    let found = judging.findings(&[Arc::clone(&record)]);
    let shown: Vec<_> = found
        .iter()
        .map(|finding| {
            let (from, to) = (finding.span.from.0 / HOUR, finding.span.to.0 / HOUR);
            let sure = match finding.certainty {
                Certainty::Exact => "",
                Certainty::Estimated => "~",
                Certainty::AtLeast => "+",
            };
            format!(
                "{} {from}-{to} {}{sure}",
                finding.id.replace(&"01".repeat(16), "S"),
                finding.events
            )
        })
        .collect();
    assert_eq!(shown.join(", "), expected, "{what}");
    assert!(found.iter().all(|finding| !finding.remedy.is_empty() && !finding.told.is_empty()));
}

fn check(what: &str, expected: &str) {
    check_with(what, None, &[], expected);
}

#[test]
fn each_kind_is_named_with_its_time_and_size() {
    check("confirmed=99", "");
    check("confirmed=98", "unconfirmed/S 98-99 0~");
    check("confirmed=98 accepted=90 posted=80", "backlog/S 98-99 11~");
    // It lived from 10 to 90, 80 hours, and accepted one event in each; since 70 it did not confirm: 29 hours.
    check("confirmed=70 heard=90 accepted=80 posted=80", "silent/S 70-99 29~");
    check("heard=90 accepted=80 posted=80", "silent/S 0-99 89~");
    check("", "never_confirmed/S 0-99 0~");
    check("closed", "");
    check("closed accepted=5 posted=3", "closed_short/S 0-99 2");
    check("confirmed=99 missing=4", "");
}

#[test]
fn what_is_wrong_stays_so_whatever_else_is() {
    check("confirmed=50 conflict confirmed=99", "conflict/S 50-99 0+");
    check("confirmed=50 quarantine=3 confirmed=99", "quarantine/S 50-99 3");
    check("confirmed=50 quarantine=3 conflict closed", "conflict/S 50-99 0+, quarantine/S 50-99 3");
    check("confirmed=60 missing=4", "missing/S/5-7 60-99 4");
    check("confirmed=60 missing=4 heard=70", "missing/S/5-7 60-99 4, silent/S 60-99 0~");
}

#[test]
fn a_lost_stream_bears_on_the_time_between_its_last_word_and_the_declaration() {
    let lost = "confirmed=70 heard=71 accepted=61 posted=61";
    check_with(lost, Some(80), &[], "lost/S 70-80 10~");
    // Heard again: it is lost no more.
    check_with("confirmed=70 heard=81", Some(80), &[], "silent/S 70-99 0~");
    check_with("confirmed=70 heard=80 fence=1", Some(80), &[], "silent/S 70-99 0~");
    check_with("closed", Some(80), &[], "");
    // 20 hours after it was last heard.
    check_with(lost, None, &[policy()], "lost/S 70-91 21~");
    check_with(lost, Some(80), &[policy()], "lost/S 70-80 10~");
    let others =
        Policy { identities: Patterns::new([Pattern::parse("web-*").unwrap()]), ..policy() };
    check_with(lost, None, &[others], "silent/S 70-99 29~");
    // Not yet: 85 and 20 hours.
    check_with("confirmed=84 heard=85", None, &[policy()], "silent/S 84-99 0~");
}

#[test]
fn a_stream_without_a_known_beginning_has_no_rate() {
    let mut record = record("confirmed=70 heard=90 accepted=80 posted=70");
    record.begun = Timestamp(0);
    let span = Span { from: Timestamp(0), to: Timestamp(99 * HOUR) };
    let losses = BTreeMap::new();
    let judging =
        Judging { now: NOW, span, silent_after_millis: 30_000, losses: &losses, policies: &[] };
    let [found] = &judging.findings(&[Arc::new(record)])[..] else { panic!() };
    assert_eq!((found.events, found.certainty), (10, Certainty::AtLeast));
}
