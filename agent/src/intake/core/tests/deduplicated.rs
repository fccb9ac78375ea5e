//! Events of meters that are told apart by their ids in the whole ledger.

use std::cell::RefCell;

use super::*;
use crate::aggregate::ID_EVENTS_MAX;
use crate::intake::replay::{Replay, Share};
use crate::parse::dogstatsd;

fn deduplicating() -> Option<Arc<Rules>> {
    let logins = MeterName::parse("logins").unwrap();
    Some(Arc::new(Rules { deduplicated: vec![logins], ..(*rules(1)).clone() }))
}

/// What the chunks of all jobs say of their events' ids.
fn ids(core: &mut Core) -> Vec<Option<RecordId>> {
    core.close(NOW);
    let (ids, mut reader) = (RefCell::new(Vec::new()), GroupReader::default());
    for job in core.take_jobs() {
        match job {
            Job::Commit(commit) => {
                let Some(chunk) = commit.chunk else { continue };
                let each = |_, record: &Record<'_>, _: &[u8]| ids.borrow_mut().push(record.id);
                reader.read(&chunk.bytes, each).unwrap();
            }
            Job::Close(_) => reader = GroupReader::default(),
        }
    }
    ids.into_inner()
}

fn keyed(customer: &str, source: &str, id: &str, number: u32) -> Option<RecordId> {
    let key = UniqueKey { id: 1, key: [3; 32] };
    let id = IdDigest::of(source, "logins", id);
    Some(RecordId::Keyed(keyed_id(&key, "logins", customer, &id.0, number)))
}

#[test]
fn an_id_is_of_customer_source_name_id_and_number_and_of_nothing_else() {
    let mut core = core_with(settings(), deduplicating());
    send(
        &mut core,
        "logins:1|c|#customer:a,id:7\nlogins:5|c|#customer:a,id:7,source:s,source_seq:1",
    );
    send(&mut core, "logins:1:x:3|c|#customer:b,id:8,plan:p|T1799999990");
    send(&mut core, "logins:1|c|#customer:a\ncalls:1|c|#customer:a,id:7");
    let expected = [
        keyed("a", "", "7", 0),
        keyed("a", "s", "7", 0),
        keyed("b", "", "8", 0),
        keyed("b", "", "8", 2),
        None,
        None,
    ];
    assert_eq!(ids(&mut core), expected);
    assert_eq!(core.evidence().get(EvidenceCode::WithoutId), 1);
}

#[test]
fn every_door_makes_the_same_ids() {
    let line = b"logins:1:2|c|#customer:a,id:7";
    let mut core = core_with(settings(), deduplicating());
    let parsed = dogstatsd::message(line, &Naming::default());
    core.item(Door::Events, parsed, line, NOW);
    assert_eq!(ids(&mut core), [keyed("a", "", "7", 0), keyed("a", "", "7", 1)]);
}

#[test]
fn before_any_rules_ids_are_kept_for_whoever_will_ask() {
    let mut core = core_with(settings(), None);
    send(
        &mut core,
        "logins:1:2|c|#customer:a,id:7\ncalls:1|c|#customer:a,id:8\ncalls:1|c|#customer:a",
    );
    let raw = |name: &str, id: &str, number| {
        Some(RecordId::Raw(NumberedId { id: IdDigest::of("", name, id).0, number }))
    };
    let expected = [raw("logins", "7", 0), raw("logins", "7", 1), raw("calls", "8", 0), None];
    assert_eq!(ids(&mut core), expected);
    assert_eq!(core.evidence().get(EvidenceCode::WithoutId), 0, "nobody knows who should have one");
}

#[test]
fn a_batch_closes_before_a_line_has_too_many_parts() {
    for rules in [deduplicating(), None] {
        let settings = IntakeSettings { open_lines_max: usize::MAX, ids_max: 1, ..settings() };
        let mut core = core_with(settings, rules);
        for id in 0..ID_EVENTS_MAX {
            send(&mut core, &format!("logins:1|c|#customer:a,id:{id}"));
        }
        let closed = core.take_jobs().iter().filter(|job| matches!(job, Job::Close(_))).count();
        assert_eq!(closed, 1);
    }
}

#[test]
fn one_value_of_a_packed_line_has_no_id_when_it_is_mended() {
    for (share, expected) in [(Share::Whole, keyed("a", "", "7", 0)), (Share::OneValue, None)] {
        let Parsed::Message(message) =
            dogstatsd::message(b"logins:1|c|#customer:a,id:7", &Naming::default())
        else {
            panic!("it is a line")
        };
        let mut core = core_with(settings(), deduplicating());
        core.replay(&Replay { number: 1, at: NOW, share, message }, NOW);
        assert_eq!(ids(&mut core), [expected]);
    }
}
