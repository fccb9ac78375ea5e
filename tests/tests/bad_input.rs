//! Bad input on every door: it is counted under its reason, its neighbours are taken, and the agent
//! goes on serving.
//!
//! Not here: `journal_full`, which takes a journal at its budget; see the journal's own tests.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tidemark_tests::doors::{Datagrams, Frames, Lines, Udp};
use tidemark_tests::resend::CLOUDEVENTS_BATCH;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::until;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["region"]
[[meter]]
name = "users.active"
aggregation = "unique_count"
cloud_event = { type = "user.seen", unique = "data.user" }
[[customer]]
id = "acme"
"#;
const GOOD: &str = "api.calls:1|c|#customer:acme";
const COUNTED_WAIT: Duration = Duration::from_secs(20);

/// Every reason that a DogStatsD line can meet, whatever the door, and what it accepts besides.
fn dogstatsd_lines() -> Vec<(&'static str, Vec<u8>, u64)> {
    let tagged = |tag: String| format!("{GOOD},{tag}").into_bytes();
    let of = |value: &str| format!("api.calls:{value}|c|#customer:acme").into_bytes();
    let many = |count: usize| (0..count).map(|n| format!("t{n}:v")).collect::<Vec<_>>().join(",");
    let refused: Vec<(&'static str, Vec<u8>)> = vec![
        ("malformed", b"no metric at all".to_vec()),
        ("malformed", b"api.calls:1".to_vec()),
        ("malformed", b"\x00\x01\x02\xfe\xff".to_vec()),
        ("not_utf8", b"api.calls:1|c|#customer:\xff\xfe".to_vec()),
        ("bad_meter", b"API Calls:1|c|#customer:acme".to_vec()),
        ("no_customer", b"api.calls:1|c|#region:eu".to_vec()),
        ("bad_customer", format!("api.calls:1|c|#customer:{}", "x".repeat(129)).into_bytes()),
        ("bad_time", format!("{GOOD}|Tyesterday").into_bytes()),
        ("too_old", format!("{GOOD}|T1000000000").into_bytes()),
        ("in_future", format!("{GOOD}|T4000000000").into_bytes()),
        ("bad_quantity", of("many")),
        ("not_finite", of("NaN")),
        ("too_precise", of("0.0000000001")),
        ("too_large", of("1000000000000000")),
        ("negative", of("-1")),
        ("bad_id", tagged(format!("id:{}", "x".repeat(129)))),
        ("bad_dimension", tagged(format!("region:{}", "x".repeat(129)))),
        ("too_many_dimensions", tagged(many(17))),
        ("sampled", b"api.calls:1|c|@0.5|#customer:acme".to_vec()),
        ("service_check", b"_sc|up|0".to_vec()),
        ("dogstatsd_event", b"_e{1,1}:t|b".to_vec()),
        ("unsupported_type", b"api.calls:1|zz|#customer:acme".to_vec()),
        ("bad_unique", format!("users.active:{}|s|#customer:acme", "x".repeat(513)).into_bytes()),
        ("bad_source", tagged("source_seq:1".to_owned())),
    ];
    let mut lines: Vec<_> = refused.into_iter().map(|(reason, line)| (reason, line, 0)).collect();
    let packed = vec!["1"; 1_025].join(":");
    lines.push(("too_many_values", of(&packed), 1_024));
    lines
}

/// What should be counted in the end.
#[derive(Default)]
struct Counts {
    accepted: u64,
    rejected: BTreeMap<String, u64>,
}

impl Counts {
    fn reject(&mut self, reason: &str) {
        let count = self.rejected.entry(reason.to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    fn accept(&mut self, events: u64) {
        self.accepted = self.accepted.saturating_add(events);
    }
}

/// Runs a stack, lets `send` say what it sent, and checks that exactly this is counted, and that the
/// agent still serves.
fn check(send: impl FnOnce(&mut Stack, &mut Counts) -> Result<()>) -> Result<()> {
    Stack::run(Settings::new(Ports::free()?, CATALOGUE), |stack| {
        let mut counts = Counts::default();
        send(stack, &mut counts)?;
        until("every reason to be counted", COUNTED_WAIT, || {
            let metrics = stack.agent_metrics().map_err(|error| format!("{error:#}"))?;
            let rejected = metrics.rejected();
            if rejected == counts.rejected {
                Ok(())
            } else {
                Err(format!("{rejected:?}, and not {:?}", counts.rejected))
            }
        })?;
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        lines.send(format!("{GOOD}\n").as_bytes(), 1)?;
        ensure!(lines.wait_durable()?.is_empty(), "the agent refuses a good line");
        let expected = counts.accepted.saturating_add(1);
        let seen = stack.wait_posted(expected)?;
        ensure!(seen == expected, "{seen} events accepted, not {expected}");
        Ok(())
    })
}

/// Each bad line between two good ones, in one packet.
fn packets(counts: &mut Counts) -> Vec<Vec<u8>> {
    let packets = dogstatsd_lines().into_iter().map(|(reason, line, besides)| {
        counts.reject(reason);
        counts.accept(besides.saturating_add(2));
        [GOOD.as_bytes(), b"\n", &line, b"\n", GOOD.as_bytes()].concat()
    });
    packets.collect()
}

#[test]
fn udp() -> Result<()> {
    check(|stack, counts| {
        let udp = Udp::to(stack.ports().udp)?;
        udp.send(b"")?;
        packets(counts).iter().try_for_each(|packet| udp.send(packet))
    })
}

#[test]
fn unix_datagram() -> Result<()> {
    check(|stack, counts| {
        let datagrams = Datagrams::to(&stack.path("dsd.socket"))?;
        packets(counts).iter().try_for_each(|packet| datagrams.send(packet))?;
        // Longer than the door reads; what came whole before the cut is taken.
        let mut long = format!("{GOOD}\n").into_bytes();
        long.resize(70_000, b'x');
        datagrams.send(&long)?;
        counts.accept(1);
        counts.reject("truncated");
        Ok(())
    })
}

#[test]
fn dsd_stream() -> Result<()> {
    check(|stack, counts| {
        let path = stack.path("dsd-stream.socket");
        let mut frames = Frames::to(&path)?;
        packets(counts).iter().try_for_each(|packet| frames.send(packet))?;

        let mut cut = Frames::to(&path)?;
        cut.send(GOOD.as_bytes())?;
        cut.send_raw(&[200, 0, 0, 0, b'x'])?;
        drop(cut);
        counts.accept(1);
        counts.reject("truncated");

        let mut long = Frames::to(&path)?;
        long.send(GOOD.as_bytes())?;
        // A length that no client sends: these are no frames.
        long.send_raw(b"GET / HTTP/1.1\r\n\r\n")?;
        counts.accept(1);
        counts.reject("oversize");
        Ok(())
    })
}

#[test]
fn events_socket() -> Result<()> {
    check(|stack, counts| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        let mut text = Vec::new();
        let mut expected = Vec::new();
        let mut number: u64 = 0;
        let json = json_lines().into_iter().map(|(reason, line)| (reason, line.into_bytes(), 0));
        let long = ("oversize", vec![b'x'; 200_000], 0);
        for (reason, line, besides) in dogstatsd_lines().into_iter().chain(json).chain([long]) {
            text.extend_from_slice(&[&line, b"\n".as_slice(), GOOD.as_bytes(), b"\n"].concat());
            expected.push((number.saturating_add(1), reason));
            number = number.saturating_add(2);
            counts.reject(reason);
            counts.accept(besides.saturating_add(1));
        }
        lines.send(&text, number)?;
        lines.send(b"api.calls:1|c|#cust", 0)?;
        lines.finish(1)?;
        expected.push((number.saturating_add(1), "truncated"));
        counts.reject("truncated");
        let refusals = lines.wait_durable()?;
        let told: Vec<(u64, &str)> =
            refusals.iter().map(|refusal| (refusal.rejected, refusal.reason.as_str())).collect();
        ensure!(told == expected, "told {told:?}, not {expected:?}");
        ensure!(refusals.iter().all(|refusal| !refusal.remedy.is_empty()), "{refusals:?}");
        Ok(())
    })
}

/// Every reason that a JSON line can meet.
fn json_lines() -> Vec<(&'static str, String)> {
    let with = |member: &str| format!(r#"{{"meter":"api.calls","customer":"acme",{member}}}"#);
    vec![
        ("malformed", "{".to_owned()),
        ("malformed", with(r#""quantitiy":1"#)),
        ("malformed", "{\"dimensions\":".repeat(2_000)),
        ("bad_meter", r#"{"meter":"No","customer":"acme"}"#.to_owned()),
        ("no_customer", r#"{"meter":"api.calls"}"#.to_owned()),
        ("bad_customer", r#"{"meter":"api.calls","customer":7}"#.to_owned()),
        ("bad_time", with(r#""time":"now""#)),
        ("too_old", with(r#""time":1000000000"#)),
        ("in_future", with(r#""time":"2096-01-01T00:00:00Z""#)),
        ("bad_quantity", with(r#""quantity":null"#)),
        ("not_finite", with(r#""quantity":"Infinity""#)),
        ("too_precise", with(r#""quantity":1e-10"#)),
        ("too_large", with(r#""quantity":1e15"#)),
        ("negative", with(r#""quantity":-0.5"#)),
        ("bad_id", with(r#""id":"""#)),
        ("bad_dimension", with(r#""dimensions":{"region":[]}"#)),
        ("bad_unique", with(r#""unique":[]"#)),
        ("bad_source", with(r#""source":"""#)),
    ]
}

#[test]
fn http() -> Result<()> {
    check(|stack, counts| {
        let url = stack.events_url();
        for (number, (reason, change)) in cloud_events().into_iter().enumerate() {
            let event = |id: String| {
                json!({"specversion": "1.0", "id": id, "source": "/t", "type": "api.calls",
                    "subject": "acme"})
            };
            let mut bad = event(format!("bad-{number}"));
            match (change, bad.as_object_mut()) {
                (Value::Object(change), Some(bad)) => bad.extend(change),
                (other, _) => bad = other,
            }
            let batch = json!([event(format!("a-{number}")), bad, event(format!("b-{number}"))]);
            let answer = stack.http().post(&url, CLOUDEVENTS_BATCH, batch.to_string())?;
            ensure!(answer.status == 200, "{reason}: {} {}", answer.status, answer.body);
            let told = answer.json()?;
            let first = &told["rejected"][0];
            ensure!(first["reason"] == reason && first["index"] == 1, "{reason}: {}", answer.body);
            ensure!(first["remedy"].as_str().is_some_and(|text| !text.is_empty()), "no remedy");
            ensure!(told["accepted"] == 2, "{reason}: {}", answer.body);
            counts.reject(reason);
            counts.accept(2);
        }
        // Whole bodies that cannot be read are answered, and nothing of them is taken.
        for (body, content_type, status) in [
            (b"{".to_vec(), CLOUDEVENTS_BATCH, 400),
            (b"\xff\xfe".to_vec(), CLOUDEVENTS_BATCH, 400),
            (b"{}".to_vec(), CLOUDEVENTS_BATCH, 400),
            (b"[]".to_vec(), "text/plain", 415),
            (vec![b' '; 5 << 20], CLOUDEVENTS_BATCH, 413),
        ] {
            let answer = stack.http().post(&url, content_type, body)?;
            ensure!(answer.status == status, "{status}: {} {}", answer.status, answer.body);
        }
        Ok(())
    })
}

/// Every reason that a CloudEvent can meet: attributes that replace those of a good one.
fn cloud_events() -> Vec<(&'static str, Value)> {
    vec![
        ("bad_cloudevent", json!({"specversion": "0.3"})),
        ("bad_cloudevent", json!({"id": null})),
        ("bad_cloudevent", json!(7)),
        ("bad_meter", json!({"type": "No meter"})),
        ("no_customer", json!({"subject": null})),
        ("bad_customer", json!({"subject": "x".repeat(129)})),
        ("bad_time", json!({"time": "now"})),
        ("too_old", json!({"time": "2001-01-01T00:00:00Z"})),
        ("in_future", json!({"time": "2096-01-01T00:00:00Z"})),
        ("bad_quantity", json!({"data": {"value": null}})),
        ("not_finite", json!({"data": {"value": "NaN"}})),
        ("too_precise", json!({"data": {"value": "0.0000000001"}})),
        ("too_large", json!({"data": {"value": "1000000000000000"}})),
        ("negative", json!({"data": {"value": -1}})),
        ("bad_id", json!({"id": "x".repeat(129)})),
        ("bad_source", json!({"source": "x".repeat(257)})),
        ("bad_dimension", json!({"data": {"region": ["eu"]}})),
        ("bad_unique", json!({"type": "user.seen", "data": {}})),
    ]
}
