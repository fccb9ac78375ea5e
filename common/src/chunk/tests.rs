//! Golden bytes of chunks, and that what is written is what is read.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test panics, as it should")]

use proptest::prelude::*;

use super::*;

const DIGEST: [u8; 16] = [0xd1; 16];

fn record(slot: u32, time: i64, quantity: Option<i128>, unique: Option<Unique<'_>>) -> Record<'_> {
    Record {
        slot: SeriesSlot(slot),
        time: Timestamp(time),
        quantity: quantity.map(Quantity),
        unique,
        id: None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_chunks_of_a_group() {
    let mut writer = ChunkWriter::new(1);
    writer.record(&record(0, 1_000, Some(3_000_000_000), None), b"series");
    writer.record(&record(0, 1_000, Some(1), None), b"series");
    writer.record(&record(1, 1_001, None, Some(Unique::Digest(DIGEST))), b"t");
    let first = writer.take().expect("three records");
    assert_eq!(first.events, 3);
    assert_eq!(
        hex(&first.bytes),
        // version, key id, base time 1000, | slot 0 + series + quantity, 3 | slot 0, 10^-9 | slot 1 + series + time +1 + unique
        format!(
            "01{}{}{}{}{}",
            "0001d00f",
            "0906736572696573".to_owned() + "0c",
            "0105",
            "1e017402",
            "d1".repeat(16)
        )
    );
    writer.record(&record(1, 2_000, Some(-1_500_000_000), Some(Unique::Digest(DIGEST))), b"t");
    let second = writer.take().expect("one record");
    assert_eq!(hex(&second.bytes), format!("010001a01f13fff782ad16{}", "d1".repeat(16)));
    assert_eq!(writer.take(), None);
}

#[test]
fn golden_chunk_before_any_rules() {
    let mut writer = ChunkWriter::new(0);
    writer.record(&record(0, 0, None, Some(Unique::Raw("u1"))), b"s");
    assert_eq!(hex(&writer.take().expect("one record").bytes), "010000000a0173027531");
}

#[test]
fn golden_chunks_with_ids() {
    let with = |id| Record { id: Some(id), ..record(0, 0, Some(1), None) };
    let mut writer = ChunkWriter::new(1);
    writer.record(&record(0, 0, Some(1), None), b"s");
    writer.record(&with(RecordId::Keyed(KeyedId([0xa1; 16]))), b"s");
    let first = writer.take().expect("two records");
    let keyed = "a1".repeat(16);
    assert_eq!(hex(&first.bytes), format!("020001000901730580808020{keyed}0105"));
    assert_eq!(first.events, 2);
    writer.record(&record(0, 0, Some(1), None), b"s");
    assert_eq!(hex(&writer.take().expect("one record").bytes), "010001000105");

    let mut early = ChunkWriter::new(0);
    let id = NumberedId { id: [0xb2; 16], number: 300 };
    early.record(&with(RecordId::Raw(id)), b"s");
    let digest = "b2".repeat(16);
    let bytes = hex(&early.take().expect("one record").bytes);
    assert_eq!(bytes, format!("0200000080808020{digest}ac0209017305"));
}

fn check(records: &[Record<'_>], unique_key: u16, chunk_every: usize) {
    let series: Vec<Vec<u8>> = (0..32_u8).map(|slot| vec![b's', slot]).collect();
    let mut writer = ChunkWriter::new(unique_key);
    let mut chunks = Vec::new();
    for (number, record) in records.iter().enumerate() {
        writer.record(record, &series[index(record.slot)]);
        if number % chunk_every == 0 {
            chunks.extend(writer.take());
        }
    }
    chunks.extend(writer.take());
    let mut reader = GroupReader::default();
    let mut read = 0;
    for chunk in &chunks {
        let events = reader.read(&chunk.bytes, |key, found, name| {
            assert_eq!((key, *found), (unique_key, records[read]));
            assert_eq!(name, series[index(found.slot)]);
            read += 1;
        });
        assert_eq!(events, Ok(chunk.events));
    }
    assert_eq!(read, records.len());
}

fn any_record(raw: bool) -> impl Strategy<Value = Record<'static>> {
    let quantity = prop_oneof![
        Just(None),
        (-1_000_000_i128..1_000_000).prop_map(|whole| Some(whole * UNITS_PER_ONE)),
        (-(10_i128.pow(24))..10_i128.pow(24)).prop_map(Some),
    ];
    let unique = prop_oneof![
        Just(None),
        Just(Some(if raw { Unique::Raw("x") } else { Unique::Digest(DIGEST) }))
    ];
    let id = prop_oneof![
        Just(None),
        any::<([u8; 16], u32)>().prop_map(move |(id, number)| Some(match raw {
            true => RecordId::Raw(NumberedId { id, number }),
            false => RecordId::Keyed(KeyedId(id)),
        })),
    ];
    (0..32_u32, 0..4_000_000_000_000_i64, quantity, unique, id).prop_map(
        |(slot, time, quantity, unique, id)| Record { id, ..record(slot, time, quantity, unique) },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in proptest::collection::vec(any_record(false), 1..200), every in 1..50_usize) {
        check(&records, 7, every);
    }

    #[test]
    fn raw_unique_values_are_read(records in proptest::collection::vec(any_record(true), 1..50)) {
        check(&records, 0, 10);
    }

    #[test]
    fn hostile_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut forged = vec![VERSION_WITH_IDS, 0, 1];
        forged.extend_from_slice(&bytes);
        let _read = GroupReader::default().read(&forged, |_, _, _| {});
        let _read = GroupReader::default().read(&bytes, |_, _, _| {});
    }
}

#[test]
fn what_no_writer_wrote_is_named() {
    let read = |bytes: &[u8]| GroupReader::default().read(bytes, |_, _, _| {});
    assert_eq!(read(&[3]), Err(ChunkError::Version { found: 3 }));
    assert_eq!(read(&[1, 0]), Err(ChunkError::Truncated { at: 2 }));
    assert_eq!(
        read(&[1, 0, 0, 0, 0x10]),
        Err(ChunkError::Range { what: "slot", at: 5 }),
        "never defined"
    );
    assert_eq!(read(&[1, 0, 0, 0, 0x09, 0xff]), Err(ChunkError::Truncated { at: 6 }));
}
