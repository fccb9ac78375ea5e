//! Golden bytes and hostile input.

mod golden;
mod other_codec;
mod samples;

use proptest::prelude::*;

use super::*;
use crate::id::MeterName;
use samples::*;

/// What a buffer makes of `bytes`, pushed at once.
fn read(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut buffer = FrameBuffer::default();
    buffer.push(bytes);
    buffer.next_frame()
}

/// A frame by hand, so that its length may be wrong.
fn framed(length: usize, number: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&length[..], &number.to_be_bytes(), payload].concat()
}

/// A frame by hand, of the right length.
fn whole(number: u16, payload: &[u8]) -> Vec<u8> {
    framed(payload.len().saturating_add(2), number, payload)
}

/// The number and payload of a frame.
fn parts(frame: &Frame) -> (u16, Vec<u8>) {
    let bytes = frame.encode().unwrap();
    (u16::from_be_bytes([bytes[4], bytes[5]]), bytes[6..].to_vec())
}

#[test]
fn lengths_out_of_bounds_are_refused_before_their_bytes_come() {
    let check = |length, number, bytes_max| {
        assert_eq!(
            read(&framed(length, number, b"")),
            Err(FrameError::Length { bytes: length, bytes_max })
        );
    };
    let widest = BATCH_FRAME_BYTES_MAX + 2;
    check(0, 4, widest);
    check(1, 4, widest);
    check(widest + 1, 3, widest);
    check(u32::MAX as usize, 3, widest);
    check(CONTROL_BYTES_MAX + 3, 4, CONTROL_BYTES_MAX + 2);
    assert_eq!(read(&framed(widest, 3, b"")), Ok(None));
    assert_eq!(read(&framed(CONTROL_BYTES_MAX + 2, 4, b"")), Ok(None));
    assert_eq!(
        read(&u32::MAX.to_be_bytes()),
        Err(FrameError::Length { bytes: u32::MAX as usize, bytes_max: widest })
    );
}

#[test]
fn unknown_types_are_refused() {
    for number in [0, 10, 265, u16::MAX] {
        assert_eq!(read(&whole(number, b"payload")), Err(FrameError::UnknownType { number }));
    }
}

#[test]
fn a_payload_is_read_whole() {
    for frame in every_frame() {
        let (number, payload) = parts(&frame);
        // What stands behind their heads has any length.
        if number == 3 || number == 9 {
            continue;
        }
        for length in 0..payload.len() {
            let cut = read(&whole(number, &payload[..length]));
            assert!(
                matches!(cut, Err(FrameError::Payload { .. })),
                "{length} bytes of {frame:?}: {cut:?}"
            );
        }
        let longer = read(&whole(number, &[&payload[..], &[0]].concat()));
        assert!(matches!(longer, Err(FrameError::Payload { .. })), "one byte more: {longer:?}");
    }
}

#[test]
fn an_empty_batch_is_a_frame_that_the_header_refuses_later() {
    assert_eq!(read(&whole(3, b"")), Ok(Some(Frame::Batch(vec![]))));
}

#[test]
fn counts_inside_a_payload_are_not_trusted() {
    let (number, mut payload) = parts(&Frame::Throttle(throttle()));
    payload.pop();
    for count in [u64::MAX, 1 << 40, 1 << 20] {
        let claimed = [&payload[..], &[253], &count.to_le_bytes()].concat();
        let read = read(&whole(number, &claimed));
        assert!(
            matches!(read, Err(FrameError::Payload { frame: "Throttle", .. })),
            "{count}: {read:?}"
        );
    }
}

#[test]
fn invalid_names_are_refused() {
    let (number, payload) = parts(&Frame::Welcome(welcome(Some(rules()))));
    let at = payload.windows(5).position(|bytes| bytes == b"seats").unwrap();
    let mut bad = payload;
    bad[at] = b'S';
    let read = read(&whole(number, &bad));
    assert!(matches!(read, Err(FrameError::Payload { frame: "Welcome", .. })), "{read:?}");
}

#[test]
fn hello_names_a_bounded_number_of_openings() {
    let of = |openings| {
        let held = HeldOpening { opening: OPENING, first: EventNumber(0), end: EventNumber(1) };
        Frame::Hello(Hello { openings: vec![held; openings], ..hello() })
    };
    assert_eq!(read(&of(OPENINGS_MAX).encode().unwrap()), Ok(Some(of(OPENINGS_MAX))));
    let unsent = of(OPENINGS_MAX + 1).encode();
    assert!(matches!(unsent, Err(FrameError::Payload { frame: "Hello", .. })), "{unsent:?}");

    // One more by hand: the count stands before openings of 18 bytes each.
    let (number, payload) = parts(&of(OPENINGS_MAX));
    let count = [&[251][..], &u16::try_from(OPENINGS_MAX).unwrap().to_le_bytes()].concat();
    let at = payload.windows(3).position(|bytes| bytes == count).unwrap();
    let (before, openings) = (&payload[..at], &payload[at + 3..]);
    let more = u16::try_from(OPENINGS_MAX + 1).unwrap().to_le_bytes();
    let forged = [before, &[251], &more, &openings[..18], openings].concat();
    let refused = read(&whole(number, &forged));
    let Err(FrameError::Payload { frame: "Hello", reason }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(reason, "it names 4097 openings; at most 4096");
}

#[test]
fn frames_beyond_their_limit_are_not_sent() {
    let batch = Frame::Batch(vec![0; BATCH_FRAME_BYTES_MAX]);
    assert!(batch.encode().is_ok());
    let batch = Frame::Batch(vec![0; BATCH_FRAME_BYTES_MAX + 1]);
    assert!(matches!(batch.encode(), Err(FrameError::Length { .. })));
    let message = "x".repeat(CONTROL_BYTES_MAX);
    let refuse = Frame::Refuse(Refuse { message, ..refuse(RefuseReason::Invalid) });
    assert!(refuse.encode().is_err());
}

/// Every control frame with one extension.
fn extended(tag: u16) -> Vec<(&'static str, Frame)> {
    let extras = vec![Extra { tag, bytes: b"later".to_vec() }];
    let extras = || extras.clone();
    vec![
        ("Hello", Frame::Hello(Hello { extras: extras(), ..hello() })),
        ("Welcome", Frame::Welcome(Welcome { extras: extras(), ..welcome(None) })),
        ("Ack", Frame::Ack(Ack { extras: extras(), ..ack() })),
        ("Refuse", Frame::Refuse(Refuse { extras: extras(), ..refuse(RefuseReason::Invalid) })),
        ("Confirm", Frame::Confirm(Confirm { extras: extras(), ..confirm() })),
        ("Close", Frame::Close(Close { extras: extras(), ..close() })),
        ("Throttle", Frame::Throttle(Throttle { extras: extras(), ..throttle() })),
    ]
}

#[test]
fn a_newer_writers_even_extension_is_carried() {
    for tag in [0, 2, 65_534] {
        for (_, frame) in extended(tag) {
            assert_eq!(read(&frame.encode().unwrap()), Ok(Some(frame)));
        }
    }
}

#[test]
fn a_newer_writers_odd_extension_is_refused() {
    for tag in [1, 3, 65_535] {
        for (name, frame) in extended(tag) {
            assert_eq!(
                read(&frame.encode().unwrap()),
                Err(FrameError::UnknownExtra { frame: name, tag })
            );
        }
    }
}

#[test]
fn rules_are_cached_as_they_are_sent() {
    let bytes = encode_rules(&rules()).unwrap();
    assert_eq!(decode_rules(&bytes), Ok(rules()));
    let (_, welcome) = parts(&Frame::Welcome(welcome(Some(rules()))));
    assert!(welcome.windows(bytes.len()).any(|window| window == bytes));
    assert!(decode_rules(&[&bytes[..], &[0]].concat()).is_err());
    assert!(decode_rules(&bytes[..bytes.len() - 1]).is_err());
}

#[test]
fn an_unfinished_frame_tells_its_length_and_a_large_batch_keeps_its_memory() {
    let ack = Frame::Ack(ack()).encode().unwrap();
    let batch = Frame::Batch(vec![7; 1_000_000]);
    let bytes = [ack.clone(), batch.encode().unwrap(), ack.clone()].concat();
    let whole = bytes.len() - 2 * ack.len();
    let mut buffer = FrameBuffer::default();
    assert_eq!(buffer.unfinished(), None);
    buffer.push(&bytes[..ack.len() + 3]);
    assert!(matches!(buffer.next_frame(), Ok(Some(Frame::Ack(_)))));
    assert_eq!((buffer.next_frame(), buffer.unfinished()), (Ok(None), None), "3 of 4 bytes");
    let mut received = Vec::new();
    for piece in bytes[ack.len() + 3..].chunks(30_000) {
        buffer.push(piece);
        while let Some(frame) = buffer.next_frame().unwrap() {
            received.push(frame);
        }
        let due = received.is_empty().then_some(whole);
        assert_eq!(buffer.unfinished(), due);
    }
    let [Frame::Batch(taken), Frame::Ack(_)] = &received[..] else { panic!("{received:?}") };
    assert_eq!(taken[..], [7; 1_000_000]);
    let moved = whole..=whole + 2 * 30_000;
    assert!(moved.contains(&taken.capacity()), "moved, and not grown beyond: {}", taken.capacity());
}

#[test]
fn a_broken_frame_stays_broken() {
    let mut buffer = FrameBuffer::default();
    buffer.push(&[Frame::Ack(ack()).encode().unwrap(), whole(10, b"")].concat());
    assert_eq!(buffer.next_frame(), Ok(Some(Frame::Ack(ack()))));
    assert_eq!(buffer.next_frame(), Err(FrameError::UnknownType { number: 10 }));
    buffer.push(&Frame::Ack(ack()).encode().unwrap());
    assert_eq!(buffer.next_frame(), Err(FrameError::UnknownType { number: 10 }));
}

proptest! {
    #[test]
    fn frames_come_through_however_they_are_split(
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
        pieces in prop::collection::vec(1_usize..40, 1..40),
    ) {
        let every = every_frame();
        let sent: Vec<Frame> = order.iter().map(|index| every[index.index(every.len())].clone()).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|frame| frame.encode().unwrap()).collect();
        let (mut buffer, mut received, mut rest) = (FrameBuffer::default(), Vec::new(), &bytes[..]);
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            buffer.push(now);
            while let Some(frame) = buffer.next_frame().unwrap() {
                received.push(frame);
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn any_bytes_are_judged_without_panic(number in 0_u16..10, payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let _judged = read(&payload);
        let _judged = read(&whole(number, &payload));
        let _judged = decode_rules(&payload);
    }

    #[test]
    fn a_changed_byte_is_judged_without_panic_and_writes_back(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let every = every_frame();
        let mut bytes = every[which.index(every.len())].encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Some(frame)) = read(&bytes) {
            prop_assert_eq!(read(&frame.encode().unwrap()), Ok(Some(frame)));
        }
    }
}

#[test]
fn a_welcome_must_hold_together() {
    let check = |change: fn(&mut Rules, &mut UniqueKey), expected: &str| {
        let mut rules = rules();
        let mut unique_key = UniqueKey { id: 1, key: [0; 32] };
        change(&mut rules, &mut unique_key);
        let welcome = Welcome { unique_key, ..welcome(Some(rules)) };
        let mut buffer = FrameBuffer::default();
        buffer.push(&Frame::Welcome(welcome).encode().unwrap());
        let told = buffer.next_frame().unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    };
    check(|_, key| key.id = 0, "a unique key without an id");
    check(|rules, _| rules.version.0 = 0, "rules without a version");
    check(|rules, _| rules.meters.push(rules.meters[0].clone()), "meters that do not ascend");
    check(
        |rules, _| rules.meters[0].dimensions = vec!["b".to_owned(), "a".to_owned()],
        "dimensions that do not ascend",
    );
}
