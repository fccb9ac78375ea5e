//! What is read is what was sealed, wherever it is cut into pieces; all else is told.

use super::*;
use tidemark_common::batch::Codec;
use tidemark_common::chunk::{ChunkWriter, SeriesSlot};
use tidemark_common::id::{OpeningId, RulesVersion, Sequence, StreamId};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::wire::put_events_chunk;

/// Three chunks of two events each; the second and third use a series that the first defines.
fn chunks() -> Vec<Vec<u8>> {
    let mut writer = ChunkWriter::new(1);
    (0..3)
        .map(|chunk| {
            for event in 0..2 {
                let record = Record {
                    slot: SeriesSlot(0),
                    time: Timestamp(1_000 + chunk),
                    quantity: Some(Quantity(i128::from(chunk * 10 + event))),
                    unique: None,
                    id: None,
                };
                writer.record(&record, b"series");
            }
            zstd::bulk::compress(&writer.take().unwrap().bytes, 1).unwrap()
        })
        .collect()
}

fn pieces(chunks: &[Vec<u8>], in_each: usize) -> Vec<Vec<u8>> {
    let piece = |chunks: &[Vec<u8>]| {
        let mut piece = Vec::new();
        chunks.iter().for_each(|chunk| put_events_chunk(&mut piece, chunk));
        piece
    };
    chunks.chunks(in_each).map(piece).collect()
}

fn digest(chunks: &[Vec<u8>]) -> Digest {
    let mut digest = EventsDigest::default();
    chunks.iter().for_each(|chunk| digest.chunk(chunk));
    digest.finish()
}

fn header(events: u64) -> Header {
    Header {
        body_version: 2,
        stream: StreamId([1; 16]),
        opening: OpeningId([2; 16]),
        sequence: Sequence(3),
        first_event: EventNumber(100),
        end_event: EventNumber(100 + events),
        first_bucket: Bucket(0),
        last_bucket: Bucket(0),
        lines: 1,
        codec: Codec::Raw,
        stored_length: 0,
        raw_length: 0,
        rules: RulesVersion(1),
        previous: Digest([0; 32]),
        body_digest: Digest([0; 32]),
        lines_root: Digest([0; 32]),
    }
}

fn places(of: usize) -> Vec<PiecePlace> {
    let of = u32::try_from(of).unwrap();
    let place =
        |index| PiecePlace { index, of, object: "events/1".to_owned(), offset: 0, length: 0 };
    (0..of).map(place).collect()
}

/// The quantities that are shown, by number; or why none are.
fn read(
    header: &Header,
    digest: Digest,
    places: &[PiecePlace],
    pieces: &[Vec<u8>],
) -> Result<Vec<(u64, i128)>, Missing> {
    let mut shown = Vec::new();
    let piece = |place: &PiecePlace| Ok(pieces.get(usize::try_from(place.index).unwrap()).cloned());
    read_events(header, digest, places, piece, &mut |event| {
        let quantity = event.record.quantity.map_or(-1, |quantity| quantity.0);
        shown.push((event.number.0, quantity, event.key_id, event.series.to_vec()));
    })?;
    assert!(shown.iter().all(|(_, _, key_id, series)| *key_id == 1 && series == b"series"));
    Ok(shown.into_iter().map(|(number, quantity, ..)| (number, quantity)).collect())
}

#[test]
fn events_are_read_in_order_however_they_are_cut() {
    let chunks = chunks();
    for in_each in 1..=3 {
        let pieces = pieces(&chunks, in_each);
        let shown = read(&header(6), digest(&chunks), &places(pieces.len()), &pieces).unwrap();
        assert_eq!(shown, [(100, 0), (101, 1), (102, 10), (103, 11), (104, 20), (105, 21)]);
    }
}

#[test]
fn what_is_not_there_is_told() {
    let chunks = chunks();
    let (digest, pieces) = (digest(&chunks), pieces(&chunks, 1));
    let of = |places: &[PiecePlace]| read(&header(6), digest, places, &pieces).unwrap_err();
    assert_eq!(of(&[]), Missing::NotArchived);
    assert_eq!(of(&places(3)[..2]), Missing::NotArchived);
    assert_eq!(of(&places(3)[1..]), Missing::NotArchived);
    let removed = read(&header(6), digest, &places(3), &pieces[..2]).unwrap_err();
    assert_eq!(removed, Missing::Removed { object: "events/1".to_owned() });
}

#[test]
fn other_events_than_the_batch_was_made_of_are_told() {
    let chunks = chunks();
    let check = |header: Header, digest: Digest, pieces: &[Vec<u8>], told: &str| {
        let missing = read(&header, digest, &places(pieces.len()), pieces).unwrap_err();
        let Missing::Differ { reason } = missing else { panic!("{missing:?}") };
        assert!(reason.contains(told), "{reason}");
    };
    let whole = pieces(&chunks, 3);
    check(header(6), Digest([7; 32]), &whole, "digest");
    check(header(5), digest(&chunks), &whole, "there are 6, and the batch has 5");
    // Chunks out of their order use what is not defined yet.
    let turned: Vec<_> = chunks.iter().rev().cloned().collect();
    check(header(6), digest(&chunks), &pieces(&turned, 3), "slot");
    let mut cut = whole.clone();
    cut[0].pop();
    check(header(6), digest(&chunks), &cut, "ends before its end");
    let mut broken = whole;
    broken[0][20] ^= 0xff;
    check(header(6), digest(&chunks), &broken, "");
}
