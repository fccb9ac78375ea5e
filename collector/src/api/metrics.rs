//! `GET /metrics`: Prometheus text, made of one snapshot, so that no gauge can drift from the ledger.
//!
//! The conservation pair: `tidemark_collector_conservation_posted_events` comes from the headers of
//! the admitted batches, `tidemark_collector_conservation_usage_events` from the usage totals and the
//! tail. They are equal at any moment.
//!
//! Series are bounded: `streams_*` are over all streams, and at most [`STREAMS_SHOWN_MAX`] streams, those
//! heard of last, have series of their own. A reason is a known code's name, or `unknown`.

mod archive;
mod invoicing;
mod kept;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use tidemark_common::code::EvidenceCode;
use tidemark_common::time::Timestamp;
use tidemark_common::tls;

use crate::catalog::Unbilled;
use crate::ledger::completeness::REASONS;
use crate::ledger::retired::RetiredSums;
use crate::ledger::{Completeness, Latencies, LedgerFigures, Snapshot, StreamState, StreamStatus};
use crate::listen::ListenFigures;
use crate::reconcile;

use super::Api;
use super::door::DoorCounters;
use super::problem::Problem;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// At most this many streams have series of their own; all are in `/v1/streams`.
const STREAMS_SHOWN_MAX: usize = 200;

type Count = Gauge<u64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    stream: String,
    agent: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    stream: String,
    agent: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    stream: String,
    agent: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnyReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnyStateLabels {
    state: &'static str,
}

pub(super) async fn handle(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let (ledger, sessions) = (api.ledger.clone(), (api.sessions.0)());
    let (counts, own) = (api.suspense.clone(), api.door.clone());
    let (swept, billed) = (api.sweeps.last(), api.billing.runs.figures());
    let backups = api.backups.clone();
    let text = api
        .read(move |catalog, snapshot| {
            let suspense = counts.read(catalog, snapshot)?;
            let complete =
                reconcile::judged(catalog, snapshot, |judging| judging.complete_through(snapshot))?;
            let mut all = Registry::with_prefix("tidemark");
            kept::identity(&mut all, &ledger);
            let registry = all.sub_registry_with_prefix("collector");
            kept::backup(registry, backups.read().as_ref());
            totals(registry, &suspense, snapshot, &complete)?;
            invoicing::sweep(registry, swept.as_ref());
            invoicing::billing_runs(registry, &billed);
            process(registry, &ledger.figures()?);
            latencies(registry, ledger.latencies());
            archive::register(registry, &ledger);
            door(registry, &sessions, tls::now());
            own_door(registry, &own);
            streams(registry, snapshot.streams(), snapshot.retired());
            let mut text = String::new();
            encode(&mut text, &all).map_err(|error| Problem::internal(&error))?;
            Ok(text)
        })
        .await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

fn totals(
    registry: &mut Registry,
    counts: &BTreeMap<Unbilled, u64>,
    snapshot: &Snapshot,
    complete: &Completeness,
) -> Result<(), Problem> {
    let suspense = Family::<AnyReasonLabels, Count>::default();
    for (reason, events) in counts {
        suspense.get_or_create(&AnyReasonLabels { reason: reason.name() }).set(*events);
    }
    let retired = snapshot.retired();
    let posted = snapshot
        .streams()
        .iter()
        .fold(retired.posted_events(), |sum, status| sum.saturating_add(status.posted_events));
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let held_back = count(complete.held_back_by.len());
    let streams = count(snapshot.streams().len()).saturating_add(retired.streams);
    let missing: Vec<_> = snapshot.streams().iter().filter_map(|status| status.missing).collect();
    let unheard = snapshot.streams().iter();
    let unheard = unheard.filter(|status| snapshot.is_unheard_since_restore(status)).count();
    for (name, help, value) in [
        ("conservation_posted_events", "Events of admitted batches, by their headers", posted),
        (
            "conservation_usage_events",
            "Events in the usage totals and the tail",
            snapshot.events_by_lines()?,
        ),
        ("in_transit_events", "Accepted events known to be on their way", snapshot.in_transit()),
        ("streams", "Streams known", streams),
        ("streams_retired", "Of them, those that are done and out of memory", retired.streams),
        ("ledger_time_seconds", "Ledger time, unix seconds", seconds(snapshot.ledger_time())),
        (
            "complete_through_seconds",
            "All usage accepted before this is posted, but for lost streams, unix seconds; 0 while a stream never confirmed",
            complete.through.map_or(0, seconds),
        ),
        (
            "missing_events",
            "Events in batches that are neither here nor in their agents' journals",
            missing
                .iter()
                .fold(retired.missing_events, |sum, missing| sum.saturating_add(missing.events)),
        ),
        (
            "missing_streams",
            "Streams with such batches",
            count(missing.len()).saturating_add(retired.missing_streams),
        ),
        (
            "unheard_since_restore_streams",
            "Open streams whose agents did not come since the ledger was restored",
            count(unheard),
        ),
        ("held_back_by_streams", "Streams that keep complete_through from moving", held_back),
    ] {
        gauge(registry, name, help, value);
    }
    let reasons = Family::<AnyReasonLabels, Count>::default();
    for reason in REASONS {
        let held = complete.held_back_by.iter().filter(|(_, why)| why.reason == reason).count();
        reasons.get_or_create(&AnyReasonLabels { reason }).set(count(held));
    }
    registry.register("held_back_streams", "Of held_back_by_streams, by why", reasons);
    registry.register(
        "suspense_events",
        "Posted events that the catalogue does not explain, counted once a minute",
        suspense,
    );
    Ok(())
}

/// What this process did since it started.
fn process(registry: &mut Registry, figures: &LedgerFigures) {
    let batches = Family::<VerdictLabels, Counter>::default();
    for (verdict, count) in [
        ("admitted", figures.admitted),
        ("duplicate", figures.duplicates),
        ("gap", figures.gaps),
        ("conflict", figures.conflicts),
        ("fenced", figures.fenced),
        ("refused", figures.refused),
        ("quarantined", figures.quarantined),
    ] {
        batches.get_or_create(&VerdictLabels { verdict }).inc_by(count);
    }
    registry.register("batches", "Batches judged since the start, by verdict", batches);
    for (name, help, value) in [
        ("commits", "Ledger commits since the start", figures.groups),
        ("folds", "Folds since the start", figures.folds),
        ("folded_lines", "Batch lines folded since the start", figures.folded_lines),
        (
            "duplicates_suppressed",
            "Events that were admitted before and are not billed, since the start",
            figures.suppressed,
        ),
        ("clock_jumps", "Jumps of the machine's clock by over a minute", figures.clock_jumps),
    ] {
        counter(registry, name, help, value);
    }
    for (name, help, value) in [
        ("tail_lines", "Batch lines not folded yet", figures.tail.lines),
        ("tail_bytes", "Bodies not folded yet, bytes", figures.tail.bytes),
    ] {
        gauge(registry, name, help, value);
    }
}

fn latencies(registry: &mut Registry, latencies: Latencies) {
    let Latencies { commit, fold, writer_wait } = latencies;
    for (name, help, histogram) in [
        ("commit_duration", "How long ledger commits took, fsync included", commit),
        ("fold_duration", "How long folds took", fold),
        ("writer_wait", "How long requests waited for the begin of their commit", writer_wait),
    ] {
        registry.register_with_unit(name, help, Unit::Seconds, histogram);
    }
}

/// What the agents' door did since it was opened.
fn door(registry: &mut Registry, figures: &ListenFigures, now: Timestamp) {
    if let Some(until) = figures.certified_until {
        let left = u64::try_from(until.millis_since(now) / 1_000).unwrap_or(0);
        let help = "Until the collector's certificate ends; 0 once it has";
        gauge(registry, "certificate_left_seconds", help, left);
    }
    gauge(registry, "sessions_open", "Agents connected", figures.sessions_open);
    gauge(
        registry,
        "sessions_open_tcp",
        "Agents connected over TCP, for want of QUIC or by their configuration",
        figures.tcp_sessions_open,
    );
    for (name, help, value) in [
        ("sessions", "Sessions begun", figures.sessions_begun),
        ("sessions_refused", "Sessions that the collector ended with Refuse", figures.refusals),
        ("handshakes_failed", "Handshakes that failed or took too long", figures.handshakes_failed),
        ("sessions_full", "Connections refused because sessions_max were open", figures.full),
        ("sessions_slow", "Sessions ended because the agent did not read in time", figures.slow),
        ("sessions_drainers", "Sessions of drainers, for streams of others", figures.drainers),
        ("sessions_unnamed", "Connections whose certificate names no agent", figures.unnamed),
        ("throttles", "Times that an agent was asked to pause", figures.throttles),
        (
            "unauthorised_batches",
            "Batches with usage that their agent's identity may not bill",
            figures.unauthorised,
        ),
        (
            "sessions_over_identity",
            "Connections refused because their identity had sessions_per_identity_max",
            figures.crowded_identities,
        ),
        (
            "handshakes_over_address",
            "Connections refused because their address had handshakes_per_address_max",
            figures.crowded_addresses,
        ),
        (
            "streams_refused_full",
            "New streams refused because streams_max are known",
            figures.streams_full,
        ),
        (
            "streams_refused_rate",
            "New streams refused because their identity began streams_per_hour_max",
            figures.streams_limited,
        ),
    ] {
        counter(registry, name, help, value);
    }
}

/// What the HTTP door did since it was opened.
fn own_door(registry: &mut Registry, counters: &DoorCounters) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    gauge(registry, "api_connections_open", "Connections to the API", read(&counters.open));
    for (name, help, value) in [
        ("api_connections_slow", "Connections too slow to ask or to read", read(&counters.slow)),
        (
            "api_connections_over_address",
            "Connections closed because their address had its share of them",
            read(&counters.crowded),
        ),
        ("api_requests_unreadable", "Requests without a sound head", read(&counters.unreadable)),
        ("api_requests_busy", "Requests told to come again", read(&counters.busy)),
        ("api_logins_failed", "Requests with a token not ours", read(&counters.logins_failed)),
        (
            "api_logins_limited",
            "Requests refused after too many such, whatever their token",
            read(&counters.logins_limited),
        ),
    ] {
        counter(registry, name, help, value);
    }
}

/// What is known of the streams: summed over all, and of those heard of last each on its own.
fn streams(registry: &mut Registry, live: &[StreamStatus], retired: &RetiredSums) {
    let shown = last_heard(live);
    for (name, help, figure, of_retired) in COUNTED {
        let retired = of_retired(retired);
        let sum = live.iter().fold(retired, |sum, status| sum.saturating_add(figure(status)));
        counter(registry, &format!("streams_{name}"), &format!("{help}, all streams"), sum);
        let family = Family::<StreamLabels, Counter>::default();
        for status in &shown {
            family.get_or_create(&labels(status)).inc_by(figure(status));
        }
        registry.register(name, help, family);
    }
    for (name, help, figure) in GAUGED {
        let family = Family::<StreamLabels, Count>::default();
        for status in &shown {
            family.get_or_create(&labels(status)).set(figure(status));
        }
        registry.register(name, help, family);
    }
    evidence(registry, (live, retired), &shown);
    states(registry, (live, retired), &shown);
}

type Figure = (&'static str, &'static str, fn(&StreamStatus) -> u64);

/// The same, and what it comes to of the streams that retired.
type Counted = (&'static str, &'static str, fn(&StreamStatus) -> u64, fn(&RetiredSums) -> u64);

const COUNTED: [Counted; 6] = [
    ("accepted_events", "Durable events", |status| status.accepted, |sums| sums.accepted),
    (
        "posted_events",
        "Events in the ledger",
        |status| status.posted_events,
        RetiredSums::posted_events,
    ),
    (
        "quarantined_events",
        "Events of unreadable batches",
        |status| status.quarantined_events,
        |sums| sums.quarantined_events,
    ),
    (
        "quarantined_batches",
        "Unreadable batches",
        |status| status.quarantined_batches,
        |sums| sums.quarantined_batches,
    ),
    (
        "duplicate_batches",
        "Batches that came again",
        |status| status.duplicates,
        |sums| sums.duplicates,
    ),
    (
        "conflicts",
        "Signs of a cloned or rolled-back journal",
        |status| status.conflicts,
        |sums| sums.conflicts,
    ),
];

const GAUGED: [Figure; 5] = [
    ("stream_in_transit_events", "Accepted events on their way", |status| status.in_transit),
    ("posted_sequence", "Highest posted sequence", |status| status.posted_sequence.0),
    ("sealed_sequence", "Highest sealed sequence", |status| status.sealed_sequence.0),
    ("last_heard_seconds", "When the agent was last heard, unix seconds", |status| {
        seconds(status.last_heard)
    }),
    ("confirmed_through_seconds", "Confirmed complete, unix seconds; 0 never", |status| {
        status.confirmed.map_or(0, |confirmed| seconds(confirmed.ledger_time))
    }),
];

/// The streams that have series of their own.
fn last_heard(all: &[StreamStatus]) -> Vec<&StreamStatus> {
    let mut shown: Vec<_> = all.iter().collect();
    shown.sort_by_key(|status| (Reverse(status.last_heard), status.stream));
    shown.truncate(STREAMS_SHOWN_MAX);
    shown
}

/// The live streams, and what the others come to.
type All<'a> = (&'a [StreamStatus], &'a RetiredSums);

fn evidence(registry: &mut Registry, (live, retired): All<'_>, shown: &[&StreamStatus]) {
    let rejections = ("rejected_events", "Events that the agent refused, by reason");
    let others = ("evidence", "What else the agent counted: kernel drops, source gaps, ...");
    for ((name, help), kind) in [(rejections, Kind::Rejection), (others, Kind::Other)] {
        let sums = Family::<AnyReasonLabels, Counter>::default();
        let of_retired = retired.evidence.iter().map(|(number, count)| (*number, *count));
        let of_live = live.iter().flat_map(|status| status.evidence.iter());
        for (reason, count) in reasons(of_live.chain(of_retired), kind) {
            sums.get_or_create(&AnyReasonLabels { reason }).inc_by(count);
        }
        registry.register(format!("streams_{name}"), format!("{help}, all streams"), sums);
        let family = Family::<ReasonLabels, Counter>::default();
        for status in shown {
            for (reason, count) in reasons(status.evidence.iter(), kind) {
                let StreamLabels { stream, agent } = labels(status);
                family.get_or_create(&ReasonLabels { stream, agent, reason }).inc_by(count);
            }
        }
        registry.register(name, help, family);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rejection,
    Other,
}

/// Evidence of one kind by name; `accepted` stands on its own.
fn reasons(
    evidence: impl Iterator<Item = (u16, u64)>,
    kind: Kind,
) -> impl Iterator<Item = (&'static str, u64)> {
    evidence.filter_map(move |(number, count)| {
        let (of, reason) = match EvidenceCode::from_number(number) {
            Some(EvidenceCode::Accepted) => return None,
            Some(code) if code.is_rejection() => (Kind::Rejection, code.name()),
            Some(code) => (Kind::Other, code.name()),
            None => (Kind::Other, "unknown"),
        };
        (of == kind).then_some((reason, count))
    })
}

fn states(registry: &mut Registry, (live, retired): All<'_>, shown: &[&StreamStatus]) {
    let sums = Family::<AnyStateLabels, Count>::default();
    for status in live {
        sums.get_or_create(&AnyStateLabels { state: status.state.name() }).inc();
    }
    if retired.closed > 0 {
        let state = StreamState::Closed.name();
        sums.get_or_create(&AnyStateLabels { state }).inc_by(retired.closed);
    }
    registry.register("streams_by_state", "Streams in each state", sums);
    let family = Family::<StateLabels, Count>::default();
    for status in shown {
        let StreamLabels { stream, agent } = labels(status);
        family.get_or_create(&StateLabels { stream, agent, state: status.state.name() }).set(1);
    }
    registry.register("stream_state", "1 for the state that a stream is in", family);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Count::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn labels(status: &StreamStatus) -> StreamLabels {
    StreamLabels { stream: status.stream.to_string(), agent: status.agent.to_string() }
}

/// Whole unix seconds; 0 before 1970.
fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.0.div_euclid(1_000)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use tidemark_common::id::{LedgerId, StreamId};
    use tidemark_common::tls::AgentName;

    use super::*;
    use crate::ledger::stream::StreamRecord;

    /// A stream that was heard of at `number`, with one event and as many codes that nobody knows.
    fn status(number: u16) -> StreamStatus {
        record(number).status()
    }

    fn record(number: u16) -> StreamRecord {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let agent = AgentName::parse("a").unwrap();
        let at = Timestamp(i64::from(number));
        let mut record = StreamRecord::new(StreamId(id), agent, LedgerId([1; 16]), at);
        record.accepted = 1;
        record.evidence = [(60_000, 1), (60_001_u16.wrapping_add(number), 1)].into_iter().collect();
        record
    }

    #[test]
    fn series_are_bounded_and_sums_are_over_all_streams() {
        let all: Vec<_> = (0..300).map(status).collect();
        let mut registry = Registry::with_prefix("t");
        let mut retired = RetiredSums::default();
        for number in 300..400 {
            retired.add(&StreamRecord { state: StreamState::Closed, ..record(number) });
        }
        streams(&mut registry, &all, &retired);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(count("t_accepted_events_total{"), STREAMS_SHOWN_MAX);
        assert_eq!(count("t_stream_state{"), STREAMS_SHOWN_MAX);
        for sum in [
            "t_streams_accepted_events_total 400",
            "t_streams_evidence_total{reason=\"unknown\"} 800",
            "t_streams_by_state{state=\"open\"} 300",
            "t_streams_by_state{state=\"closed\"} 100",
        ] {
            assert!(text.lines().any(|line| line == sum), "{sum} in {text}");
        }
        let newest = format!("t_last_heard_seconds{{stream=\"{}\"", all[299].stream);
        assert_eq!((count(&newest), count(&newest.replace("012b", "0000"))), (1, 0));
    }
}
