//! Golden bytes of every frame: what one release sends, every later one must read, and send the same.
//!
//! The literals were computed by a separate program from the drawings in `deploy/docs/formats.md`.

use super::*;
use crate::batch::golden::{hex, to_hex};

const HELLO: &str = "
    00000087 0001                                                       # length, type
    0101                                                                # header version, body version
    51515151515151515151515151515151                                    # stream
    014c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c                                  # ledger: present
    0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f                                    # opening
    fa                                                                  # posted sequence 250
    d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0    # posted digest
    fbfb00                                                              # sealed sequence 251
    fc70110100                                                          # accepted 70,000
    07                                                                  # rules version
    010f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f                                  # one opening
    00fc70110100                                                        # its first and end event
    fd00d0ca9f17030000                                                  # clock
    00                                                                  # no token
    05302e312e30                                                        # agent 0.1.0
    00                                                                  # no extras";

const FIRST_HELLO: &str = "
    0000005f 0001                                                       # length, type
    0101                                                                # header version, body version
    51515151515151515151515151515151                                    # stream
    00                                                                  # no ledger
    0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f                                    # opening
    00                                                                  # posted sequence 0
    d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0    # posted digest
    000000                                                              # sealed sequence, accepted, rules version
    00                                                                  # no openings
    01                                                                  # clock -1
    0106736563726574                                                    # token
    05302e312e30                                                        # agent 0.1.0
    0102030102ff                                                        # one extra: tag 2, three bytes";

const WELCOME: &str = "
    000000b4 0002                                                       # length, type
    4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c                                    # ledger
    fd0300000001000000                                                  # fence 1.3
    fa                                                                  # posted sequence
    d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0    # posted digest
    fd00d0ca9f17030000                                                  # ledger time
    0101                                                                # header version, body version
    0107                                                                # rules: present, version 7
    fbe803                                                              # seal interval 1,000 ms
    02096170692e63616c6c73                                              # two meters: api.calls
    0206726567696f6e                                                    # two dimensions: region
    0474696572                                                          # tier
    00                                                                  # not negative
    0573656174730001                                                    # seats, no dimensions, negative
    01036c6c6d                                                          # one CloudEvents type: llm
    0106746f6b656e73                                                    # one meter: tokens
    0106646174612e6e                                                    # quantity: data.n
    00                                                                  # unique: absent
    01056d6f64656c                                                      # one dimension: model
    06646174612e6d                                                      # at data.m
    01                                                                  # unique key: id 1
    0707070707070707070707070707070707070707070707070707070707070707    # its bytes
    40                                                                  # batches in flight
    00                                                                  # no extras";

const WELCOME_WITHOUT_RULES: &str = "
    0000006b 0002                                                       # length, type
    4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c                                    # ledger
    fd0300000001000000                                                  # fence 1.3
    fa                                                                  # posted sequence
    d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0    # posted digest
    fd00d0ca9f17030000                                                  # ledger time
    0101                                                                # header version, body version
    00                                                                  # no rules
    01                                                                  # unique key: id 1
    0707070707070707070707070707070707070707070707070707070707070707    # its bytes
    40                                                                  # batches in flight
    00                                                                  # no extras";

const ACK: &str = "
    00000012 0004                                                       # length, type
    fc00000100                                                          # posted sequence 65,536
    fd00d0ca9f17030000                                                  # ledger time
    01                                                                  # confirm
    00                                                                  # no extras";

const REFUSE_GAP: &str = "
    00000009 0005                                                       # length, type
    0009                                                                # Gap: expected 9
    03776879                                                            # message
    00                                                                  # no extras";

const REFUSE_CONFLICT: &str = "
    0000001f 0005                                                       # length, type
    010901                                                              # Conflict: sequence 9, one opening
    0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f                                    # its id
    fc70110100                                                          # its end 70,000
    03776879                                                            # message
    00                                                                  # no extras";

const REFUSE_FENCED: &str = "
    00000011 0005                                                       # length, type
    02                                                                  # Fenced
    fd0400000001000000                                                  # current 1.4
    03776879                                                            # message
    00                                                                  # no extras";

const REFUSE_INVALID: &str = "
    00000008 0005                                                       # length, type
    03                                                                  # Invalid
    03776879                                                            # message
    00                                                                  # no extras";

const REFUSE_UNAUTHORIZED: &str = "
    00000008 0005                                                       # length, type
    04                                                                  # Unauthorized
    03776879                                                            # message
    00                                                                  # no extras";

const REFUSE_OTHER_LEDGER: &str = "
    00000018 0005                                                       # length, type
    05                                                                  # OtherLedger
    4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c                                    # ledger
    03776879                                                            # message
    00                                                                  # no extras";

const REFUSE_UNAVAILABLE: &str = "
    00000008 0005                                                       # length, type
    06                                                                  # Unavailable
    03776879                                                            # message
    00                                                                  # no extras";

const CONFIRM: &str = "
    0000001d 0006                                                       # length, type
    fd00d0ca9f17030000                                                  # ledger time
    fbfb00                                                              # sequence
    fc70110100                                                          # accepted
    fd0300000001000000                                                  # fence 1.3
    00                                                                  # no extras";

const CLOSE: &str = "
    00000014 0007                                                       # length, type
    fbfb00                                                              # sequence
    fc70110100                                                          # accepted
    fd0300000001000000                                                  # fence 1.3
    00                                                                  # no extras";

const THROTTLE: &str = "
    00000006 0008                                                       # length, type
    fb8813                                                              # pause 5,000 ms
    00                                                                  # no extras";

const BATCH: &str = "
    00000005 0003                                                       # length, type
    616263                                                              # header and body, verbatim";

/// As it stands in [`WELCOME`], less its length and the last byte, behind this.
const ONE_DEDUPLICATED: &str = "
    01                                                                  # one extra
    02 07                                                               # tag 2, seven bytes
    01 057365617473                                                     # one meter: seats";

#[test]
fn deduplicated_meters_stand_among_the_extras_and_behind_cached_rules() {
    let seats = MeterName::parse("seats").unwrap();
    let with = Rules { deduplicated: vec![seats], ..rules() };
    let extras = hex(ONE_DEDUPLICATED);
    let mut expected = hex(WELCOME);
    expected.pop();
    expected.extend(&extras);
    expected[3] += 9;
    check(&to_hex(&expected), &Frame::Welcome(welcome(Some(with.clone()))));

    let cached = encode_rules(&with).unwrap();
    assert_eq!(cached, [&encode_rules(&rules()).unwrap()[..], &extras[3..]].concat());
    assert_eq!(decode_rules(&cached), Ok(with));
    assert!(decode_rules(&cached[..cached.len() - 1]).is_err());
    assert!(decode_rules(&[&cached[..], &[0]].concat()).is_err());
}

#[test]
fn frames() {
    check(HELLO, &Frame::Hello(hello()));
    check(FIRST_HELLO, &Frame::Hello(first_hello()));
    check(WELCOME, &Frame::Welcome(welcome(Some(rules()))));
    check(WELCOME_WITHOUT_RULES, &Frame::Welcome(welcome(None)));
    check(BATCH, &Frame::Batch(b"abc".to_vec()));
    check(ACK, &Frame::Ack(ack()));
    for (bytes, reason) in [
        REFUSE_GAP,
        REFUSE_CONFLICT,
        REFUSE_FENCED,
        REFUSE_INVALID,
        REFUSE_UNAUTHORIZED,
        REFUSE_OTHER_LEDGER,
        REFUSE_UNAVAILABLE,
    ]
    .into_iter()
    .zip(reasons())
    {
        check(bytes, &Frame::Refuse(refuse(reason)));
    }
    check(CONFIRM, &Frame::Confirm(confirm()));
    check(CLOSE, &Frame::Close(close()));
    check(THROTTLE, &Frame::Throttle(throttle()));
}

fn check(drawing: &str, frame: &Frame) {
    let bytes = hex(drawing);
    assert_eq!(to_hex(&frame.encode().unwrap()), to_hex(&bytes), "{frame:?}");
    let mut buffer = FrameBuffer::default();
    buffer.push(&bytes);
    assert_eq!(buffer.next_frame().unwrap().as_ref(), Some(frame));
    assert_eq!(buffer.next_frame(), Ok(None));
}
