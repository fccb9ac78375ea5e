//! The bytes of every record, as `deploy/docs/journal.md` draws them.

use proptest::prelude::*;
use wincode::{SchemaRead, SchemaWrite};

use super::*;
use crate::event::{Door, IdDigest};
use crate::journal::record::{
    BatchRow, ChunkHeader, Conflicted, Counters, Identity, MovedRow, Opened, Pinned, Record,
    RecordError, SourceRow, decode_chunk, decode_dead_letter, decode_evidence, decode_ids,
    encode_chunk, encode_dead_letter, encode_evidence, encode_ids,
};
use crate::journal::{ConflictAnswer, DeadLetter, StoredDeadLetter};
use tidemark_common::id::Digest;
use tidemark_common::wire::PostedOpening;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `golden` is hex, with spaces between fields.
fn check<R: Record + PartialEq + std::fmt::Debug>(record: &R, golden: &str) {
    let bytes = record.encode();
    assert_eq!(hex(&bytes), golden.replace(' ', ""));
    assert_eq!(R::decode(&bytes).as_ref(), Ok(record));
    assert!(matches!(R::decode(&bytes[..bytes.len() - 1]), Err(RecordError::Damaged { .. })));
    assert!(matches!(
        R::decode(&[bytes.as_slice(), &[0]].concat()),
        Err(RecordError::Damaged { .. })
    ));
    let newer = [&[2], &bytes[1..]].concat();
    assert_eq!(R::decode(&newer), Err(RecordError::Newer { record: R::NAME, version: 2 }));
}

fn counters() -> Counters {
    Counters {
        accepted: 300,
        sealed_events: 250,
        posted_events: 0,
        sealed_sequence: Sequence(65_536),
        posted_sequence: Sequence(2),
        sealed_digest: Digest([0xd1; 32]),
        posted_digest: Digest([0xd2; 32]),
        newest: NOON,
    }
}

#[test]
fn meta_rows() {
    check(&Identity { stream: StreamId([0xaa; 16]) }, &format!("01 {}", "aa".repeat(16)));
    check(
        &Opened { opening: OpeningId([0xbb; 16]), clean: true },
        &format!("01 {} 01", "bb".repeat(16)),
    );
    check(
        &counters(),
        &format!(
            "01 fb2c01 fa 00 fc00000100 02 {} {} fd00a0b83046030000",
            "d1".repeat(32),
            "d2".repeat(32)
        ),
    );
    check(
        &Pinned {
            ledger: LedgerId([0xcc; 16]),
            unique_key: UniqueKey { id: 300, key: [0xee; 32] },
        },
        &format!("01 {} fb2c01 {}", "cc".repeat(16), "ee".repeat(32)),
    );
    check(&Conflicted { at: Timestamp(-1), reason: "cloned".to_owned() }, "01 01 06 636c6f6e6564");
    let (one, other) = (OpeningId([0xbb; 16]), OpeningId([0xbc; 16]));
    let settled = vec![PostedOpening { opening: other, end: EventNumber(300) }];
    check(
        &ConflictAnswer { asked: vec![one, other], settled },
        &format!("01 02 {} {} 01 {} fb2c01", "bb".repeat(16), "bc".repeat(16), "bc".repeat(16)),
    );
    check(
        &MovedRow { to: StreamId([0xaa; 16]), openings: vec![one] },
        &format!("01 {} 01 {}", "aa".repeat(16), "bb".repeat(16)),
    );
}

#[test]
fn rows_of_other_tables() {
    let row = BatchRow {
        bytes: 400,
        opening: OpeningId([0xbb; 16]),
        first_event: EventNumber(7),
        end_event: EventNumber(9),
        oldest: Some(Timestamp(5)),
        digest: Digest([0xdd; 32]),
    };
    check(&row, &format!("01 fb9001 {} 07 09 01 0a {}", "bb".repeat(16), "dd".repeat(32)));
    let alone = BatchRow { oldest: None, ..row };
    check(&alone, &format!("01 fb9001 {} 07 09 00 {}", "bb".repeat(16), "dd".repeat(32)));
    check(&SourceRow { count: 9, at: Timestamp(3) }, "01 09 06");
}

#[test]
fn evidence() {
    let counts = Evidence::from_iter([(1, 300), (3, 2), (60_000, 1)]);
    let bytes = encode_evidence(&counts);
    assert_eq!(hex(&bytes), "01 03 01 fb2c01 03 02 fb60ea 01".replace(' ', ""));
    assert_eq!(decode_evidence(&bytes), Ok(counts));
}

#[test]
fn ids() {
    let digests = vec![IdDigest([0x11; 16]), IdDigest([0x22; 16])];
    let bytes = encode_ids(Timestamp(258), &digests);
    assert_eq!(hex(&bytes), format!("010000000000000102{}{}", "11".repeat(16), "22".repeat(16)));
    assert_eq!(decode_ids(&bytes), Ok((Timestamp(258), digests)));
    assert!(decode_ids(&bytes[..bytes.len() - 1]).is_err());
    assert!(matches!(decode_ids(&[2]), Err(RecordError::Newer { .. })));
}

#[test]
fn dead_letters() {
    let letter = DeadLetter {
        at: Timestamp(1),
        door: Door::Events,
        reason: EvidenceCode::RejectedTooPrecise,
        bytes: b"a:b|c".to_vec(),
    };
    let bytes = encode_dead_letter(letter);
    assert_eq!(hex(&bytes), "01 02 04 70 05 613a627c63".replace(' ', ""));
    let read = StoredDeadLetter {
        number: 5,
        at: Timestamp(1),
        door: Some(Door::Events),
        reason: Some(EvidenceCode::RejectedTooPrecise),
        bytes: b"a:b|c".to_vec(),
    };
    assert_eq!(decode_dead_letter(5, &bytes), Ok(read));
    // A door and a reason of a newer agent.
    let newer = decode_dead_letter(1, &[1, 2, 99, 0xfb, 0xff, 0xff, 0]).unwrap();
    assert_eq!((newer.door, newer.reason), (None, None));
}

fn chunk() -> Append {
    Append {
        group: 1,
        opening: OpeningId([0xbb; 16]),
        rules: RulesVersion(3),
        first_event: EventNumber(258),
        events: 4,
        oldest: Timestamp(5),
        evidence: Evidence::from_iter([(1, 262), (100, 1)]),
        bytes: b"packed".to_vec(),
    }
}

#[test]
fn chunks() {
    let bytes = encode_chunk(&chunk());
    let golden = format!(
        "01 52b809ea {} 0000000000000003 0000000000000102 00000004 0000000000000005 \
         0002 0001 0000000000000106 0064 0000000000000001 7061636b6564",
        "bb".repeat(16)
    );
    assert_eq!(hex(&bytes), golden.replace(' ', ""));
    let Append { opening, rules, first_event, events, oldest, evidence, bytes: payload, .. } =
        chunk();
    let header = ChunkHeader { opening, rules, first_event, events, oldest, evidence };
    assert_eq!(decode_chunk(&bytes), Ok((header, payload.as_slice())));
    assert!(matches!(decode_chunk(&[2, 0]), Err(RecordError::Newer { .. })));
}

#[test]
fn any_flipped_bit_of_a_chunk_is_found() {
    let bytes = encode_chunk(&chunk());
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_chunk(&damaged).is_err(), "bit {bit}");
    }
}

/// The way out of bincode: the same bytes by another crate.
#[derive(SchemaWrite, SchemaRead)]
struct CountersByWincode {
    accepted: u64,
    sealed_events: u64,
    posted_events: u64,
    sealed_sequence: u64,
    posted_sequence: u64,
    sealed_digest: [u8; 32],
    posted_digest: [u8; 32],
    newest: i64,
}

#[derive(SchemaWrite, SchemaRead)]
struct BatchRowByWincode {
    bytes: u64,
    opening: [u8; 16],
    first_event: u64,
    end_event: u64,
    oldest: Option<i64>,
    digest: [u8; 32],
}

#[derive(SchemaWrite, SchemaRead)]
struct DeadLetterByWincode {
    at: i64,
    door: u8,
    reason: u16,
    bytes: Vec<u8>,
}

proptest! {
    #[test]
    fn wincode_writes_the_same_bytes(
        numbers in proptest::array::uniform5(any::<u64>()),
        at in any::<i64>(),
        reason in proptest::sample::select(&EvidenceCode::ALL[..]),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let config = wincode::config::Configuration::default().with_varint_encoding();
        let [accepted, sealed_events, posted_events, sealed, posted] = numbers;
        let ours = Counters {
            accepted,
            sealed_events,
            posted_events,
            sealed_sequence: Sequence(sealed),
            posted_sequence: Sequence(posted),
            newest: Timestamp(at),
            ..counters()
        };
        let theirs = CountersByWincode {
            accepted,
            sealed_events,
            posted_events,
            sealed_sequence: sealed,
            posted_sequence: posted,
            sealed_digest: [0xd1; 32],
            posted_digest: [0xd2; 32],
            newest: at,
        };
        prop_assert_eq!(&ours.encode()[1..], wincode::config::serialize(&theirs, config).unwrap());

        let oldest = (accepted % 2 == 0).then_some(at);
        let ours = BatchRow {
            bytes: accepted,
            opening: OpeningId([3; 16]),
            first_event: EventNumber(sealed),
            end_event: EventNumber(posted),
            oldest: oldest.map(Timestamp),
            digest: Digest([4; 32]),
        };
        let theirs = BatchRowByWincode {
            bytes: accepted,
            opening: [3; 16],
            first_event: sealed,
            end_event: posted,
            oldest,
            digest: [4; 32],
        };
        prop_assert_eq!(&ours.encode()[1..], wincode::config::serialize(&theirs, config).unwrap());

        let ours = DeadLetter { at: Timestamp(at), door: Door::Http, reason, bytes: bytes.clone() };
        let theirs = DeadLetterByWincode { at, door: 5, reason: reason.number(), bytes };
        prop_assert_eq!(&encode_dead_letter(ours)[1..], wincode::config::serialize(&theirs, config).unwrap());
    }

    #[test]
    fn hostile_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let versioned = [&[1], bytes.as_slice()].concat();
        drop((decode_chunk(&versioned), decode_ids(&versioned), decode_evidence(&versioned)));
        drop((decode_dead_letter(1, &versioned), Counters::decode(&versioned), Conflicted::decode(&versioned)));
    }
}
