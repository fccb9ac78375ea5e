//! What a header holds and what it refuses.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of a test are its own")]

use proptest::prelude::*;

use super::*;

fn header() -> Header {
    super::super::golden::header()
}

/// Writes `bytes` over an encoded header at `offset` and reads it.
fn check(offset: usize, bytes: &[u8], expected: Result<(), HeaderError>) {
    let mut encoded = header().encode();
    encoded[offset..offset + bytes.len()].copy_from_slice(bytes);
    assert_eq!(Header::decode(&encoded).map(|_| ()), expected, "{bytes:02x?} at {offset}");
}

#[test]
fn refused_fields() {
    check(0, b"TMBI", Err(HeaderError::Magic { found: *b"TMBI" }));
    check(4, &[0, 0], Err(HeaderError::Version { version: 0 }));
    check(4, &[0, 2], Err(HeaderError::Version { version: 2 }));
    check(40, &[0; 8], Err(HeaderError::SequenceZero));
    check(76, &[0, 2], Err(HeaderError::Codec { number: 2 }));
    check(76, &[1, 0], Err(HeaderError::Codec { number: 256 }));
    check(78, &[0, 1], Err(HeaderError::NotZero { found: 1 }));
    check(56, &[0; 8], Err(HeaderError::Events { first: EventNumber(10), end: EventNumber(0) }));
    let (first, last) = (Bucket(1_888_888), Bucket(0));
    check(68, &[0; 4], Err(HeaderError::Buckets { first, last }));
}

#[test]
fn left_to_the_body() {
    check(6, &[0, 9], Ok(()));
    check(72, &[0xff; 4], Ok(()));
    check(80, &[0xff; 8], Ok(()));
    check(88, &[0xff; 8 + 3 * 32], Ok(()));
}

#[test]
fn lengths() {
    let mut encoded = header().encode().to_vec();
    assert_eq!(Header::decode(&encoded[..191]), Err(HeaderError::Length { bytes: 191 }));
    encoded.push(0);
    assert_eq!(Header::decode(&encoded), Err(HeaderError::Length { bytes: 193 }));
}

#[test]
fn every_bit_is_in_the_digest() {
    let encoded = header().encode();
    for bit in 0..HEADER_BYTES * 8 {
        let mut changed = encoded;
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = Header::decode(&changed) {
            assert_ne!(changed.digest(), header().digest(), "bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_read_is_written_back(bytes in proptest::collection::vec(any::<u8>(), HEADER_BYTES)) {
        let mut bytes = bytes;
        bytes[..6].copy_from_slice(b"TMBH\x00\x01");
        let codec = bytes[76] % 2;
        bytes[76..80].copy_from_slice(&[0, codec, 0, 0]);
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(&header.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _judged = Header::decode(&bytes);
        let _judged = super::super::SealedBatch::split(&bytes);
    }
}
