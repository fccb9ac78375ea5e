use super::*;

#[test]
fn each_rejection_code_has_one_reason() {
    let codes: Vec<_> = EvidenceCode::ALL.into_iter().filter(|code| code.is_rejection()).collect();
    assert_eq!(RejectReason::ALL.map(RejectReason::code).to_vec(), codes);
    for reason in RejectReason::ALL {
        assert_eq!(RejectReason::from_code(reason.code()), Some(reason));
    }
    assert_eq!(RejectReason::from_code(EvidenceCode::Accepted), None);
}

#[test]
fn each_remedy_is_a_sentence_of_its_own() {
    for (index, reason) in RejectReason::ALL.into_iter().enumerate() {
        let remedy = reason.remedy();
        assert!(remedy.ends_with('.') && remedy.len() < 120, "{reason}: {remedy}");
        assert!(
            RejectReason::ALL[..index].iter().all(|other| other.remedy() != remedy),
            "{reason}"
        );
    }
}

#[test]
fn id_digests_keep_their_parts_apart() {
    let digest = IdDigest::of("s", "m", "1");
    assert_eq!(digest, IdDigest::of("s", "m", "1"));
    for (source, name, id) in
        [("", "m", "1"), ("s", "m", "2"), ("sm", "", "1"), ("s", "m1", ""), ("", "sm", "1")]
    {
        assert_ne!(digest, IdDigest::of(source, name, id), "{source} {name} {id}");
    }
    // The journal keeps these bytes: a change of the key's layout forgets every id.
    let golden = [0xcd, 0xa6, 0x63, 0x31];
    assert_eq!(digest.0[..4], golden, "{:02x?}", digest.0);
}

const NOW: i64 = 1_795_362_675_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

fn check_time(time: Option<i64>, newest: i64, expected: Result<i64, RejectReason>) {
    let limits = TimeLimits { newest: Timestamp(newest), ..TimeLimits::default() };
    let judged = judge_time(time.map(Timestamp), Timestamp(NOW), &limits);
    assert_eq!(judged, expected.map(Timestamp), "{time:?} {newest}");
}

#[test]
fn times_are_judged_against_arrival() {
    check_time(None, 0, Ok(NOW));
    check_time(Some(NOW - DAY), 0, Ok(NOW - DAY));
    check_time(Some(NOW + 5 * MINUTE), 0, Ok(NOW + 5 * MINUTE));
    check_time(Some(NOW + 5 * MINUTE + 1), 0, Err(RejectReason::InFuture));
    check_time(Some(NOW - 35 * DAY), 0, Ok(NOW - 35 * DAY));
    check_time(Some(NOW - 35 * DAY - 1), 0, Err(RejectReason::TooOld));
    check_time(Some(i64::MAX), 0, Err(RejectReason::InFuture));
    check_time(Some(i64::MIN), 0, Err(RejectReason::TooOld));
}

#[test]
fn a_clock_behind_the_journal_rejects_nothing_that_a_bucket_holds() {
    check_time(Some(NOW + DAY), NOW + DAY, Ok(NOW + DAY));
    check_time(Some(1), NOW + DAY, Ok(1));
    check_time(None, NOW + 1, Ok(NOW));
    check_time(Some(-1), NOW + DAY, Err(RejectReason::BadTime));
    check_time(Some(i64::MAX), NOW + DAY, Err(RejectReason::BadTime));
}
