use std::collections::BTreeMap;

use tidemark_common::batch::SealedBatch;
use tidemark_common::id::StreamId;
use tidemark_common::tls::AgentName;

use super::*;
use crate::ledger::conformance::Journal;
use crate::ledger::stream::Missing;

const LEDGER: LedgerId = LedgerId([9; 16]);
const FENCE: Fence = Fence(7);

/// Ten batches of one event each, in stream `name`; `units` makes their bytes differ.
fn journal(name: char, ledger: LedgerId, units: i128) -> Vec<SealedBatch> {
    let mut journal = Journal::new(u8::try_from(name).unwrap(), ledger);
    (1..=10).map(|bucket| journal.seal(&[("c", "m", bucket, units)])).collect()
}

/// Sends batches to streams `a` and `b`, and names the verdict of each. A batch is `stream sequence
/// how`; how is: nothing, as sealed; `'` from a clone of the journal that sealed other bytes; `<` by
/// a session with an older fence; `@` sealed for another ledger; `~` with another previous digest; `+` with
/// its event numbers one too high; `l` with more lines than events; `0` with events and no lines; `b`
/// with its buckets swapped; `r` with its event range backwards.
fn check(sent: &str, expected: &str) {
    let mut streams = BTreeMap::new();
    for name in ['a', 'b'] {
        let stream = StreamId([u8::try_from(name).unwrap(); 16]);
        let mut record =
            StreamRecord::new(stream, AgentName::parse("agent").unwrap(), LEDGER, Timestamp(0));
        record.fence = FENCE;
        streams.insert(stream, record);
    }
    let mut stored = BTreeMap::new();
    let verdicts: Vec<_> =
        sent.split(' ').map(|word| send(word, &mut streams, &mut stored)).collect();
    assert_eq!(verdicts.join(" "), expected, "{sent}");
}

type Stored = BTreeMap<(StreamId, Sequence), Digest>;

fn send(word: &str, streams: &mut BTreeMap<StreamId, StreamRecord>, stored: &mut Stored) -> String {
    let mut parts = word.chars();
    let name = parts.next().unwrap();
    let sequence = usize::try_from(parts.next().unwrap().to_digit(10).unwrap()).unwrap();
    let how = parts.next().unwrap_or(' ');
    let (ledger, units) = match how {
        '\'' => (LEDGER, 6),
        '@' => (LedgerId([8; 16]), 5),
        _ => (LEDGER, 5),
    };
    let mut header = journal(name, ledger, units)[sequence.max(1) - 1].header;
    if sequence == 0 {
        header.sequence = Sequence(0);
    }
    match how {
        '~' => header.previous = Digest([1; 32]),
        '+' => {
            (header.first_event, header.end_event) =
                (header.first_event.plus(1), header.end_event.plus(1))
        }
        'l' => header.lines = 2,
        '0' => header.lines = 0,
        'b' => header.last_bucket = Bucket(0),
        'r' => (header.end_event, header.lines) = (EventNumber(0), 0),
        _ => {}
    }
    let fence = if how == '<' { Fence(6) } else { FENCE };
    let candidate = Candidate { header: &header, digest: header.digest(), fence };
    let known = streams.get(&header.stream);
    let needed = known.and_then(|known| digest_needed(known, &header));
    let digest = needed.and_then(|sequence| stored.get(&(header.stream, sequence)).copied());
    let verdict = judge(known, &candidate, digest, LEDGER);
    if verdict == Verdict::Admit {
        let known = streams.get_mut(&header.stream).unwrap();
        record(
            known,
            &header,
            candidate.digest,
            Content::Posted(&Evidence::default()),
            Timestamp(1),
        );
        stored.insert((header.stream, header.sequence), candidate.digest);
    }
    match verdict {
        Verdict::Admit => "admit".to_owned(),
        Verdict::Duplicate => "duplicate".to_owned(),
        Verdict::Gap { expected } => format!("gap:{expected}"),
        Verdict::Conflict { sequence } => format!("conflict:{sequence}"),
        Verdict::Fenced { .. } => "fenced".to_owned(),
        Verdict::OtherLedger => "other-ledger".to_owned(),
        Verdict::NotOpen => "not-open".to_owned(),
        Verdict::Invalid(flaw) => match flaw {
            Flaw::BrokenChain { .. } => "broken-chain".to_owned(),
            Flaw::EventNumbers { .. } => "event-numbers".to_owned(),
            Flaw::EventRange { .. } => "event-range".to_owned(),
            Flaw::Lines { .. } => "lines".to_owned(),
            Flaw::Buckets { .. } => "buckets".to_owned(),
            Flaw::SequenceZero => "zero".to_owned(),
        },
    }
}

#[test]
fn each_batch_once_and_in_order() {
    check("a1", "admit");
    check("a1 a1 a2", "admit duplicate admit");
    check("a1 a3 a2 a3", "admit gap:2 admit admit");
    check("a2", "gap:1");
    check("a1 b1 b2 a2 a1 b1", "admit admit admit admit duplicate duplicate");
    check("c1", "not-open");
}

#[test]
fn a_resend_after_a_lost_ack_is_a_duplicate() {
    check("a1 a2 a3 a2 a3 a4", "admit admit admit duplicate duplicate admit");
}

#[test]
fn the_same_sequence_with_other_bytes_is_a_conflict() {
    check("a1 a1'", "admit conflict:1");
    check("a1 a2 a3 a1' a2' a3'", "admit admit admit conflict:1 conflict:2 conflict:3");
    check("a1' a1", "admit conflict:1");
}

#[test]
fn the_chain_must_hold() {
    check("a1 a2'", "admit broken-chain");
    check("a1 a2~ a2", "admit broken-chain admit");
    check("a1@ a1", "other-ledger admit");
    check("a1~", "other-ledger");
}

#[test]
fn an_older_fence_is_refused_whatever_it_sends() {
    check("a1< a1 a1< a2<", "fenced admit fenced fenced");
}

#[test]
fn a_header_must_hold_together() {
    check("a1+ a1", "event-numbers admit");
    check("a1 a2+ a2", "admit event-numbers admit");
    check("a1 a2r a2", "admit event-range admit");
    check("a1l", "lines");
    check("a10", "lines");
    check("a1b", "buckets");
    check("a0", "zero");
}

#[test]
fn a_batch_that_left_the_ledger_is_vouched_for_by_the_chain() {
    let batches = journal('a', LEDGER, 5);
    let mut record = StreamRecord::new(
        batches[0].header.stream,
        AgentName::parse("x").unwrap(),
        LEDGER,
        Timestamp(0),
    );
    record.posted_sequence = Sequence(4);
    let header = &batches[1].header;
    let candidate = Candidate { header, digest: header.digest(), fence: Fence(0) };
    assert_eq!(digest_needed(&record, header), Some(Sequence(2)));
    assert_eq!(judge(Some(&record), &candidate, None, LEDGER), Verdict::Duplicate);
}

#[test]
fn the_batch_that_is_due_ends_what_was_missing() {
    let first = journal('a', LEDGER, 5)[0].header;
    let agent = AgentName::parse("agent").unwrap();
    let mut held = StreamRecord::new(first.stream, agent, LEDGER, Timestamp(0));
    held.missing = Some(Missing { first: Sequence(1), last: Sequence(3), events: 3 });
    record(&mut held, &first, first.digest(), Content::Quarantined, Timestamp(1));
    assert_eq!(held.missing, None);
}
