//! Golden bytes: what a released agent has sealed, every later version must read, and write the same.
//!
//! The literals and digests here were computed by a separate program from the drawings in
//! `deploy/docs/formats.md`. They are never adapted to the code.

use super::*;
use crate::id::{CustomerId, MeterName};
use crate::quantity::Quantity;
use crate::time::{Bucket, Timestamp};

/// Bytes as drawn: hexadecimal digits, blanks for the eye, and words behind a `#`.
pub(crate) fn hex(drawing: &str) -> Vec<u8> {
    let digits: Vec<u32> = drawing
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or(line).split_whitespace())
        .flat_map(str::chars)
        .map(|digit| {
            digit.to_digit(16).unwrap_or_else(|| panic!("{digit:?} is drawn where bytes are"))
        })
        .collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

/// The inverse of [`hex`], for messages that can be read.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_digest(text: &str) -> Digest {
    Digest(hex(text).try_into().unwrap())
}

pub(super) const SALT: [u8; 32] =
    *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\
    \x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";

const UNIQUE_KEY: UniqueKey = UniqueKey { id: 1, key: [7; 32] };

const HEADER: &str = "
    544d4248 0001 0001                                                  # magic, header version, body version
    51515151515151515151515151515151 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f   # stream, opening
    0000000000000001 000000000000000a 000000000000000d                  # sequence, first event, end event
    001cd278 001cd279 00000002                                          # first bucket, last bucket, lines
    0000 0000 0000015c 0000015c 0000000000000007                        # codec, zero, stored, raw, rules
    ec956f4e67e4182253344373099311c212d5858ebe2705711498128f92cfd731    # previous
    8fab7ef488fd8e8173da99f5dbcd5f6c20a677d4296b87d4cddc0961b2f35ab0    # body digest
    ab135b9cd90879d3ba87b9a3e0abb2dde6b57f9e7b2b32d43c29a8e1390ecf9e    # lines root";

/// Comes first: its key begins with a shorter length.
const SEATS: &str = "
    0005 7365617473 0004 61636d65 00 001cd278 0000                      # seats, acme, no dimensions, bucket, part
    0000000000000001 0000000000000000 0000000000000001                  # events, with quantity, with unique
    00000000000000000000000000000000                                    # sum
    00000000000000000000000000000000 00000000000000000000000000000000   # min, max
    0000000000000000 00000000000000000000000000000000                   # latest time, latest quantity
    0001 00000001 cb24db239382c28e32d96f9314288129                      # key id, n, digest of ada";

const CALLS: &str = "
    0009 6170692e63616c6c73 0004 61636d65                               # api.calls, acme
    01 0006 726567696f6e 0002 6575 001cd279 0000                        # region=eu, bucket, part
    0000000000000002 0000000000000002 0000000000000000                  # events, with quantity, with unique
    00000000000000000000000059682f00                                    # sum 1.5
    ffffffffffffffffffffffffc4653600                                    # min -1
    0000000000000000000000009502f900                                    # max 2.5
    0000018bcfe6eea0 0000000000000000000000009502f900                   # latest time, latest quantity 2.5
    0000 00000000                                                       # key id, n";

const BODY_START: &str = "
    000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f    # salt
    0003                                                                # three evidence codes
    0001 0000000000000003   0003 0000000000000001   0064 0000000000000002";

/// Since body version 2 they stand between evidence and lines.
const EXTRAS: &str = "
    0003                                                                # three extras
    0001 00000020 e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0  # digest of raw events
    0002 00000016 0001 00000000 14ec182a72be0f5186afba864718a076        # key id, line 0 and its keyed id
    0009 00000005 6c61746572                                            # of a later version
    ";

/// The same body as a released agent compressed it. Others may compress it otherwise, and all read this.
const COMPRESSED: &str = "
    28b52ffd0048150600040a000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f0003000100
    0300030001006400020000008a00057365617473000461636d6500001cd27800010001000100000001cb24db239382c2
    8e32d96f93142881290000008a00096170692e63616c6c010006726567696f6e00026575001cd27902020059682f00ff
    c46536009502f9000000018bcfe6eea0009502f9000000000000000e00c0f880139ca18007909125b350c02a262305d0
    0664033c0c70068374004f";

pub(super) fn evidence() -> Evidence {
    [(1, 3), (3, 1), (100, 2)].into_iter().collect()
}

pub(super) fn lines() -> Vec<Line> {
    let key = |meter, pairs: Vec<(_, _)>, bucket| LineKey {
        meter: MeterName::parse(meter).unwrap(),
        customer: CustomerId::parse("acme").unwrap(),
        dimensions: Dimensions::new(pairs).unwrap(),
        bucket: Bucket(bucket),
        part: 0,
    };
    let seats = LineValue {
        events: 1,
        unique_events: 1,
        unique_key: UNIQUE_KEY.id,
        uniques: vec![unique_digest(&UNIQUE_KEY, "seats", "acme", "ada")],
        ..LineValue::default()
    };
    let calls = LineValue {
        events: 2,
        quantity_events: 2,
        sum: Quantity(1_500_000_000),
        min: Quantity(-1_000_000_000),
        max: Quantity(2_500_000_000),
        latest_time: Timestamp(1_700_000_100_000),
        latest: Quantity(2_500_000_000),
        ..LineValue::default()
    };
    vec![
        Line { key: key("seats", vec![], 1_888_888), value: seats },
        Line {
            key: key("api.calls", vec![("region".into(), "eu".into())], 1_888_889),
            value: calls,
        },
    ]
}

/// Of version 1.
pub(super) fn raw_body() -> Vec<u8> {
    raw_body_with("")
}

fn raw_body_with(extras: &str) -> Vec<u8> {
    let mut bytes = hex(BODY_START);
    bytes.extend(hex(extras));
    for line in [SEATS, CALLS] {
        let line = hex(line);
        bytes.extend_from_slice(&u32::try_from(line.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&line);
    }
    bytes
}

pub(super) fn header() -> Header {
    Header {
        body_version: 1,
        stream: StreamId([0x51; 16]),
        opening: OpeningId([0x0f; 16]),
        sequence: Sequence(1),
        first_event: EventNumber(10),
        end_event: EventNumber(13),
        first_bucket: Bucket(1_888_888),
        last_bucket: Bucket(1_888_889),
        lines: 2,
        codec: Codec::Raw,
        stored_length: 348,
        raw_length: 348,
        rules: RulesVersion(7),
        previous: genesis(LedgerId([0x4c; 16]), StreamId([0x51; 16])),
        body_digest: hex_digest("8fab7ef488fd8e8173da99f5dbcd5f6c20a677d4296b87d4cddc0961b2f35ab0"),
        lines_root: hex_digest("ab135b9cd90879d3ba87b9a3e0abb2dde6b57f9e7b2b32d43c29a8e1390ecf9e"),
    }
}

/// The header of the body with [`EXTRAS`].
fn header_of_version_2() -> Header {
    Header {
        body_version: 2,
        stored_length: 427,
        raw_length: 427,
        body_digest: hex_digest("9f11631b10b3ba417291821a901338f1784936102b9c82cea798f53c4a3ccaaa"),
        ..header()
    }
}

fn extras() -> Extras {
    let mut extras = Extras::default();
    extras.set_events_digest(Digest([0xe0; 32]));
    let id = hex("837e9e6c092f14fdaae3269f76503f6b").try_into().unwrap();
    let id = keyed_id(&UNIQUE_KEY, "seats", "acme", &id, 0);
    extras.set_line_ids(UNIQUE_KEY.id, &[LineId { line: 0, id }]);
    extras.push(9, b"later".to_vec()).unwrap();
    extras
}

pub(super) fn encoded(extras: Extras) -> EncodedBody {
    let mut writer = BodyWriter::with_extras(SALT, &evidence(), extras);
    for Line { key, value } in &lines() {
        writer.line(&key.series(), key.bucket, key.part, value).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn headers() {
    assert_eq!(to_hex(&header().encode()), to_hex(&hex(HEADER)));
    assert_eq!(Header::decode(&hex(HEADER)), Ok(header()));
}

#[test]
fn digests() {
    let check = |found: &[u8], expected: &str| assert_eq!(to_hex(found), expected);
    check(&header().previous.0, "ec956f4e67e4182253344373099311c212d5858ebe2705711498128f92cfd731");
    check(&header().digest().0, "bb8dcc04a873d6ee555c331eaef3a639a7d7d62e9d7ab7317e2ce58817785c35");
    check(
        &header_of_version_2().digest().0,
        "adf39d0b125845632a603880df7ac148891fb456bf3f5964f2ee054b90a7a7d7",
    );
    let id = hex("837e9e6c092f14fdaae3269f76503f6b").try_into().unwrap();
    check(&keyed_id(&UNIQUE_KEY, "seats", "acme", &id, 0).0, "14ec182a72be0f5186afba864718a076");
    check(&unique_digest(&UNIQUE_KEY, "seats", "acme", "ada"), "cb24db239382c28e32d96f9314288129");
    let salts = merkle::Salts::new(&SALT);
    check(&salts.of(0), "1ce5ecdfbcab9e7af7683371115ab292");
    check(&salts.of(1), "3d8070dda2696137a1d638d84dd1bbf9");
    let seats = merkle::leaf(&salts.of(0), 0, &hex(SEATS));
    let calls = merkle::leaf(&salts.of(1), 1, &hex(CALLS));
    check(&seats.0, "44bfc3dca073bce3946c3eb13d941f51196a61eb79de3770443454d67ab36e80");
    check(&calls.0, "cfca749c865063a76e71c0749a688800f03e42d3cd2eb5d13429430097414de8");
    check(
        &merkle::node(&seats, &calls).0,
        "ab135b9cd90879d3ba87b9a3e0abb2dde6b57f9e7b2b32d43c29a8e1390ecf9e",
    );
    check(
        &merkle::Tree::default().root().0,
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    );
}

#[test]
fn lines_are_as_drawn() {
    for (line, drawing) in lines().iter().zip([SEATS, CALLS]) {
        assert_eq!(to_hex(&line.encode()), to_hex(&hex(drawing)));
        assert_eq!(Line::decode(&hex(drawing)).as_ref(), Ok(line));
    }
    assert_eq!(series_bytes("api.calls", "acme", &[("region", "eu")]), hex(CALLS)[..30]);
}

#[test]
fn bodies_are_written_as_drawn() {
    for (extras, drawing, length) in [(Extras::default(), "0000", 350), (extras(), EXTRAS, 427)] {
        let body = encoded(extras);
        let raw = zstd::stream::decode_all(&body.stored[..]).unwrap();
        assert_eq!(to_hex(&raw), to_hex(&raw_body_with(drawing)));
        assert_eq!((body.raw_length, body.lines), (length, 2));
    }
    let body = encoded(Extras::default());
    assert_eq!(body.codec, Codec::Zstd, "350 bytes, most of them zeros, become smaller");
    assert_eq!((body.first_bucket, body.last_bucket), (Bucket(1_888_888), Bucket(1_888_889)));
    assert_eq!(body.lines_root, header().lines_root);
}

#[test]
fn bodies_are_read_as_drawn_and_as_compressed() {
    let body = |extras| Ok(Body { salt: SALT, evidence: evidence(), extras, lines: lines() });
    assert_eq!(Body::open(&header_of_version_2(), &raw_body_with(EXTRAS)), body(extras()));
    let expected = body(Extras::default());
    assert_eq!(Body::open(&header(), &raw_body()), expected);

    let compressed = hex(COMPRESSED);
    let header = Header {
        codec: Codec::Zstd,
        stored_length: u32::try_from(compressed.len()).unwrap(),
        body_digest: sha256(b"tidemark/body/1", &[&compressed]),
        ..header()
    };
    assert_eq!(Body::open(&header, &compressed), expected);
}

#[test]
fn a_batch_is_its_header_and_its_body() {
    let body = encoded(extras());
    let Header { stream, opening, sequence, first_event, end_event, rules, previous, .. } =
        header();
    let fields = NewHeader { stream, opening, sequence, first_event, end_event, rules, previous };
    let batch = SealedBatch::assemble(fields, body.clone());
    let (split, stored) = SealedBatch::split(&batch.bytes).unwrap();
    assert_eq!((split, stored), (batch.header, &body.stored[..]));
    assert_eq!(batch.bytes[..HEADER_BYTES], batch.header.encode());
    assert_eq!(Body::open(&split, stored).unwrap().lines, lines());
    assert_eq!(batch.header.events(), 3);

    let short = batch.bytes.len() - 1;
    assert_eq!(
        SealedBatch::split(&batch.bytes[..short]),
        Err(HeaderError::StoredLength { said: split.stored_length, bytes: stored.len() - 1 })
    );
    assert_eq!(SealedBatch::split(&batch.bytes[..191]), Err(HeaderError::Length { bytes: 191 }));
}
