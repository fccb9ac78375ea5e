//! One of each frame. Numbers are chosen to need every width of a varint.

use super::*;

pub(super) const STREAM: StreamId = StreamId([0x51; 16]);
pub(super) const LEDGER: LedgerId = LedgerId([0x4c; 16]);
pub(super) const OPENING: OpeningId = OpeningId([0x0f; 16]);
pub(super) const DIGEST: Digest = Digest([0xd0; 32]);
pub(super) const TIME: Timestamp = Timestamp(1_700_000_000_000);
pub(super) const FENCE: Fence = Fence(1 << 32 | 3);

pub(super) fn hello() -> Hello {
    Hello {
        header_version: 1,
        body_version: 1,
        stream: STREAM,
        ledger: Some(LEDGER),
        opening: OPENING,
        posted_sequence: Sequence(250),
        posted_digest: DIGEST,
        sealed_sequence: Sequence(251),
        accepted: 70_000,
        rules_version: RulesVersion(7),
        openings: vec![HeldOpening {
            opening: OPENING,
            first: EventNumber(0),
            end: EventNumber(70_000),
        }],
        clock: TIME,
        token: None,
        agent: "0.1.0".to_owned(),
        extras: vec![],
    }
}

/// Of a new journal, to a collector that asks for a token.
pub(super) fn first_hello() -> Hello {
    Hello {
        ledger: None,
        posted_sequence: Sequence::ZERO,
        sealed_sequence: Sequence::ZERO,
        accepted: 0,
        rules_version: RulesVersion(0),
        openings: vec![],
        clock: Timestamp(-1),
        token: Some("secret".to_owned()),
        extras: vec![Extra { tag: 2, bytes: vec![1, 2, 255] }],
        ..hello()
    }
}

pub(super) fn rules() -> Rules {
    let meter = |name| MeterName::parse(name).unwrap();
    let tokens = CloudEventMeter {
        meter: meter("tokens"),
        quantity: Some("data.n".to_owned()),
        unique: None,
        dimensions: vec![DimensionPath { name: "model".to_owned(), path: "data.m".to_owned() }],
    };
    let dimensions = vec!["region".to_owned(), "tier".to_owned()];
    Rules {
        version: RulesVersion(7),
        seal_interval_millis: 1_000,
        meters: vec![
            MeterRule { meter: meter("api.calls"), dimensions, negative: false },
            MeterRule { meter: meter("seats"), dimensions: vec![], negative: true },
        ],
        cloud_events: vec![CloudEventRule { event_type: "llm".to_owned(), meters: vec![tokens] }],
        deduplicated: vec![],
    }
}

pub(super) fn deduplicating_rules() -> Rules {
    Rules { deduplicated: vec![MeterName::parse("api.calls").unwrap()], ..rules() }
}

pub(super) fn welcome(rules: Option<Rules>) -> Welcome {
    Welcome {
        ledger: LEDGER,
        fence: FENCE,
        posted_sequence: Sequence(250),
        posted_digest: DIGEST,
        ledger_time: TIME,
        header_version: 1,
        body_version: 1,
        rules,
        unique_key: UniqueKey { id: 1, key: [7; 32] },
        batches_in_flight_max: 64,
        extras: vec![],
    }
}

pub(super) fn ack() -> Ack {
    Ack { posted_sequence: Sequence(65_536), ledger_time: TIME, confirm: true, extras: vec![] }
}

/// Every reason, in the order of their numbers.
pub(super) fn reasons() -> [RefuseReason; 7] {
    let openings = vec![PostedOpening { opening: OPENING, end: EventNumber(70_000) }];
    [
        RefuseReason::Gap { expected: Sequence(9) },
        RefuseReason::Conflict { sequence: Sequence(9), openings },
        RefuseReason::Fenced { current: Fence(1 << 32 | 4) },
        RefuseReason::Invalid,
        RefuseReason::Unauthorized,
        RefuseReason::OtherLedger { ledger: LEDGER },
        RefuseReason::Unavailable,
    ]
}

pub(super) fn refuse(reason: RefuseReason) -> Refuse {
    Refuse { reason, message: "why".to_owned(), extras: vec![] }
}

pub(super) fn confirm() -> Confirm {
    Confirm {
        ledger_time: TIME,
        sequence: Sequence(251),
        accepted: 70_000,
        fence: FENCE,
        extras: vec![],
    }
}

pub(super) fn close() -> Close {
    Close { sequence: Sequence(251), accepted: 70_000, fence: FENCE, extras: vec![] }
}

pub(super) fn throttle() -> Throttle {
    Throttle { pause_millis: 5_000, extras: vec![] }
}

pub(super) fn events() -> Events {
    let piece = EventsPiece { sequence: Sequence(251), index: 1, of: 2, bytes: vec![7; 300] };
    Events { rest: 70_000, piece: Some(piece) }
}

/// One of each type, and of Refuse one of each reason.
pub(super) fn every_frame() -> Vec<Frame> {
    let mut frames = vec![
        Frame::Hello(hello()),
        Frame::Hello(first_hello()),
        Frame::Welcome(welcome(Some(rules()))),
        Frame::Welcome(welcome(None)),
        Frame::Welcome(welcome(Some(deduplicating_rules()))),
        Frame::Batch(vec![7; 300]),
        Frame::Ack(ack()),
        Frame::Confirm(confirm()),
        Frame::Close(close()),
        Frame::Throttle(throttle()),
        Frame::Events(events()),
    ];
    frames.extend(reasons().map(|reason| Frame::Refuse(refuse(reason))));
    frames
}
