//! The same control frames by another codec: bincode's way out.
//!
//! bincode is no longer maintained. wincode has its own traits, so the frames are mirrored here; it must
//! write the bytes that bincode writes, and read them.

use std::fmt::Debug;

use wincode::config::{self, Configuration, DEFAULT_PREALLOCATION_SIZE_LIMIT};
use wincode::int_encoding::{LittleEndian, VarInt};
use wincode::len::BincodeLen;
use wincode::{SchemaRead, SchemaWrite};

use super::*;

type Varint =
    Configuration<true, DEFAULT_PREALLOCATION_SIZE_LIMIT, BincodeLen, LittleEndian, VarInt>;

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct MirrorExtra {
    tag: u16,
    bytes: Vec<u8>,
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct MirrorOpening {
    opening: [u8; 16],
    first: u64,
    end: u64,
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct MirrorHello {
    header_version: u16,
    body_version: u16,
    stream: [u8; 16],
    ledger: Option<[u8; 16]>,
    opening: [u8; 16],
    posted_sequence: u64,
    posted_digest: [u8; 32],
    sealed_sequence: u64,
    accepted: u64,
    rules_version: u64,
    openings: Vec<MirrorOpening>,
    clock: i64,
    token: Option<String>,
    agent: String,
    extras: Vec<MirrorExtra>,
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct MirrorWelcome {
    ledger: [u8; 16],
    fence: u64,
    posted_sequence: u64,
    posted_digest: [u8; 32],
    ledger_time: i64,
    header_version: u16,
    body_version: u16,
    rules: Option<MirrorRules>,
    unique_key: (u16, [u8; 32]),
    batches_in_flight_max: u32,
    extras: Vec<MirrorExtra>,
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct MirrorRules {
    version: u64,
    seal_interval_millis: u32,
    meters: Vec<(String, Vec<String>, bool)>,
    cloud_events: Vec<(String, Vec<MirrorCloudEventMeter>)>,
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct MirrorCloudEventMeter {
    meter: String,
    quantity: Option<String>,
    unique: Option<String>,
    dimensions: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
enum MirrorReason {
    Gap { expected: u64 },
    Conflict { sequence: u64, openings: Vec<([u8; 16], u64)> },
    Fenced { current: u64 },
    Invalid,
    Unauthorized,
    OtherLedger { ledger: [u8; 16] },
    Unavailable,
}

/// Writes and reads `mirror` with wincode, whose bytes must be the payload of `frame`.
fn check<M>(frame: &Frame, mirror: &M)
where
    M: Debug + PartialEq + SchemaWrite<Varint, Src = M> + for<'a> SchemaRead<'a, Varint, Dst = M>,
{
    let config: Varint = Configuration::default().with_varint_encoding();
    let encoded = frame.encode().unwrap();
    let payload = &encoded[6..];
    assert_eq!(config::serialize(mirror, config).unwrap(), payload, "{frame:?}");
    assert_eq!(&config::deserialize_exact::<M, _>(payload, config).unwrap(), mirror, "{frame:?}");
}

fn mirror_hello(hello: &Hello) -> MirrorHello {
    let opening = |held: &HeldOpening| MirrorOpening {
        opening: held.opening.0,
        first: held.first.0,
        end: held.end.0,
    };
    MirrorHello {
        header_version: hello.header_version,
        body_version: hello.body_version,
        stream: hello.stream.0,
        ledger: hello.ledger.map(|ledger| ledger.0),
        opening: hello.opening.0,
        posted_sequence: hello.posted_sequence.0,
        posted_digest: hello.posted_digest.0,
        sealed_sequence: hello.sealed_sequence.0,
        accepted: hello.accepted,
        rules_version: hello.rules_version.0,
        openings: hello.openings.iter().map(opening).collect(),
        clock: hello.clock.0,
        token: hello.token.clone(),
        agent: hello.agent.clone(),
        extras: mirror_extras(&hello.extras),
    }
}

fn mirror_extras(extras: &[Extra]) -> Vec<MirrorExtra> {
    extras.iter().map(|extra| MirrorExtra { tag: extra.tag, bytes: extra.bytes.clone() }).collect()
}

fn mirror_rules(rules: &Rules) -> MirrorRules {
    let path = |dimension: &DimensionPath| (dimension.name.clone(), dimension.path.clone());
    let cloud_event_meter = |meter: &CloudEventMeter| MirrorCloudEventMeter {
        meter: meter.meter.to_string(),
        quantity: meter.quantity.clone(),
        unique: meter.unique.clone(),
        dimensions: meter.dimensions.iter().map(path).collect(),
    };
    let cloud_event = |rule: &CloudEventRule| {
        (rule.event_type.clone(), rule.meters.iter().map(cloud_event_meter).collect())
    };
    let meter = |rule: &MeterRule| (rule.meter.to_string(), rule.dimensions.clone(), rule.negative);
    MirrorRules {
        version: rules.version.0,
        seal_interval_millis: rules.seal_interval_millis,
        meters: rules.meters.iter().map(meter).collect(),
        cloud_events: rules.cloud_events.iter().map(cloud_event).collect(),
    }
}

fn mirror_reason(reason: &RefuseReason) -> MirrorReason {
    match reason {
        RefuseReason::Gap { expected } => MirrorReason::Gap { expected: expected.0 },
        RefuseReason::Conflict { sequence, openings } => MirrorReason::Conflict {
            sequence: sequence.0,
            openings: openings.iter().map(|posted| (posted.opening.0, posted.end.0)).collect(),
        },
        RefuseReason::Fenced { current } => MirrorReason::Fenced { current: current.0 },
        RefuseReason::Invalid => MirrorReason::Invalid,
        RefuseReason::Unauthorized => MirrorReason::Unauthorized,
        RefuseReason::OtherLedger { ledger } => MirrorReason::OtherLedger { ledger: ledger.0 },
        RefuseReason::Unavailable => MirrorReason::Unavailable,
    }
}

#[test]
fn hello_and_welcome() {
    for hello in [hello(), first_hello()] {
        check(&Frame::Hello(hello.clone()), &mirror_hello(&hello));
    }
    for rules in [None, Some(rules())] {
        let frame = welcome(rules.clone());
        let mirror = MirrorWelcome {
            ledger: frame.ledger.0,
            fence: frame.fence.0,
            posted_sequence: frame.posted_sequence.0,
            posted_digest: frame.posted_digest.0,
            ledger_time: frame.ledger_time.0,
            header_version: frame.header_version,
            body_version: frame.body_version,
            rules: rules.as_ref().map(mirror_rules),
            unique_key: (frame.unique_key.id, frame.unique_key.key),
            batches_in_flight_max: frame.batches_in_flight_max,
            extras: mirror_extras(&frame.extras),
        };
        check(&Frame::Welcome(frame), &mirror);
    }
}

#[test]
fn refusals() {
    for reason in reasons() {
        let mirror = (mirror_reason(&reason), "why".to_owned(), Vec::<MirrorExtra>::new());
        check(&Frame::Refuse(refuse(reason)), &mirror);
    }
}

#[test]
fn small_frames() {
    let none = Vec::<MirrorExtra>::new;
    let (time, fence) = (TIME.0, FENCE.0);
    check(&Frame::Ack(ack()), &(65_536_u64, time, true, none()));
    check(&Frame::Confirm(confirm()), &(time, 251_u64, 70_000_u64, fence, none()));
    check(&Frame::Close(close()), &(251_u64, 70_000_u64, fence, none()));
    check(&Frame::Throttle(throttle()), &(5_000_u32, none()));
}

#[test]
fn every_width_of_a_number() {
    let widths = [0, 250, 251, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX];
    for sequence in widths {
        let frame = Ack { posted_sequence: Sequence(sequence), ..ack() };
        check(&Frame::Ack(frame), &(sequence, TIME.0, true, Vec::<MirrorExtra>::new()));
    }
    for time in [0, -1, 124, 125, -125, -126, 32_767, 32_768, -32_768, -32_769, i64::MIN, i64::MAX]
    {
        let frame = Ack { ledger_time: Timestamp(time), ..ack() };
        check(&Frame::Ack(frame), &(65_536_u64, time, true, Vec::<MirrorExtra>::new()));
    }
}
