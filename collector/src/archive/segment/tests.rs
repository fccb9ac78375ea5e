//! What is written is read, and what is not is named.

use tidemark_common::id::LedgerId;

use super::*;
use crate::ledger::conformance::Journal;

fn batch() -> ArchivedBatch {
    let mut journal = Journal::new(1, LedgerId([1; 16]));
    let sealed = journal.seal(&[("c", "m", 1, 5)]);
    ArchivedBatch {
        position: 7,
        agent: "web-1".to_owned(),
        marks: vec![5],
        quarantined: None,
        judged: Vec::new(),
        header: sealed.header,
        bytes: sealed.bytes,
    }
}

fn records(kind: Kind, object: Vec<u8>) -> Result<Vec<Vec<u8>>, SegmentError> {
    let mut reader = SegmentReader::new(kind, object)?;
    let mut all = Vec::new();
    while let Some(record) = reader.next_record()? {
        all.push(record.to_vec());
    }
    Ok(all)
}

#[test]
fn records_of_every_kind_come_back() {
    for kind in [Kind::Batches, Kind::Books, Kind::Streams] {
        let mut writer = SegmentWriter::new(kind);
        assert!(writer.is_empty());
        writer.record(b"one");
        writer.record(&[7; 70_000]);
        assert!(!writer.is_empty() && writer.len() > 70_000);
        let object = writer.finish().unwrap();
        assert_eq!(records(kind, object.clone()), Ok(vec![b"one".to_vec(), vec![7; 70_000]]));
        let other = if kind == Kind::Books { Kind::Streams } else { Kind::Books };
        assert!(records(other, object).is_err());
    }
}

#[test]
fn frozen_bytes() {
    let mut writer = SegmentWriter::new(Kind::Batches);
    writer.record(b"ab");
    assert_eq!(writer.finish().unwrap(), b"TMAS\x00\x01\x02\x00\x00\x00\x00\x02ab");
    let put = Put { table: 7, key: b"h".to_vec(), value: Some(b"{}".to_vec()) };
    let gone = Put { table: 7, key: b"x".to_vec(), value: None };
    let encoded = Puts(vec![put, gone]).encode();
    assert_eq!(encoded, b"\x07\x00\x00\x00\x01h\x01\x00\x00\x00\x02{}\x07\x00\x00\x00\x01x\x00");
    let record = batch().encode();
    assert_eq!(
        &record[..27],
        b"\0\0\0\0\0\0\0\x07\x00\x05web-1\x00\x00\x00\x01\x05\x00\x00\x00\0\0\0\0"
    );
    assert_eq!(record[27..], batch().bytes);
}

#[test]
fn a_batch_comes_back_whole_or_not_at_all() {
    assert_eq!(ArchivedBatch::decode(&batch().encode()), Ok(batch()));
    let quarantined = ArchivedBatch { quarantined: Some("torn".to_owned()), ..batch() };
    assert_eq!(ArchivedBatch::decode(&quarantined.encode()), Ok(quarantined));
    let record = batch().encode();
    for length in 0..27 + HEADER_BYTES {
        assert!(ArchivedBatch::decode(&record[..length]).is_err(), "{length}");
    }
}

#[test]
fn puts_come_back_whole_or_not_at_all() {
    let puts = Puts(vec![
        Put { table: 7, key: b"d1".to_vec(), value: Some(vec![9; 300]) },
        Put { table: 3, key: vec![1; 32], value: None },
    ]);
    let record = encode_books(12, &puts.encode());
    assert_eq!(decode_books(&record), Ok((12, puts)));
    let whole = [8, record.len(), record.len() - 38];
    for length in 0..=record.len() {
        let is_whole = decode_books(&record[..length]).is_ok();
        assert_eq!(is_whole, whole.contains(&length), "{length}");
    }
}

#[test]
fn no_part_of_a_segment_is_taken_for_all() {
    let mut writer = SegmentWriter::new(Kind::Batches);
    writer.record(b"some record");
    let object = writer.finish().unwrap();
    for length in 0..object.len() {
        let read = records(Kind::Batches, object[..length].to_vec());
        assert!(read.is_err() || length == HEAD_BYTES, "{length}: {read:?}");
    }
}
