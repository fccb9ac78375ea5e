//! `GET /metrics`: Prometheus text, made of one snapshot, so that no gauge can drift from the ledger.
//!
//! The conservation pair: `tidemark_collector_conservation_posted_events` comes from the headers of
//! the admitted batches, `tidemark_collector_conservation_usage_events` from the usage totals and the
//! tail. They are equal at any moment.

use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use tidemark_common::time::Timestamp;

use crate::catalog::Catalog;
use crate::ledger::{LedgerFigures, Snapshot, StreamStatus};
use crate::listen::ListenFigures;

use super::Api;
use super::problem::Problem;
use super::streams::split;
use super::suspense::reason;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    reason: String,
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
struct SuspenseLabels {
    reason: &'static str,
}

pub(super) async fn handle(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let (ledger, sessions) = (api.ledger.clone(), (api.sessions.0)());
    let text = api
        .read(move |catalog, snapshot| text(catalog, snapshot, &ledger.figures()?, &sessions))
        .await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

fn text(
    catalog: &Catalog,
    snapshot: &Snapshot,
    figures: &LedgerFigures,
    sessions: &ListenFigures,
) -> Result<String, Problem> {
    let mut registry = Registry::with_prefix("tidemark_collector");
    totals(&mut registry, catalog, snapshot)?;
    process(&mut registry, figures);
    door(&mut registry, sessions);
    streams(&mut registry, snapshot.streams());
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Problem::internal(&error))?;
    Ok(text)
}

fn totals(registry: &mut Registry, catalog: &Catalog, snapshot: &Snapshot) -> Result<(), Problem> {
    let suspense = Family::<SuspenseLabels, Count>::default();
    for seen in snapshot.seen()? {
        if let Some(reason) = reason(catalog, &seen) {
            suspense.get_or_create(&SuspenseLabels { reason: reason.name() }).inc_by(seen.events);
        }
    }
    let posted = snapshot
        .streams()
        .iter()
        .fold(0, |sum, status| u64::saturating_add(sum, status.posted_events));
    let complete = snapshot.complete_through();
    let held_back = u64::try_from(complete.held_back_by.len()).unwrap_or(u64::MAX);
    let streams = u64::try_from(snapshot.streams().len()).unwrap_or(u64::MAX);
    for (name, help, value) in [
        ("conservation_posted_events", "Events of admitted batches, by their headers", posted),
        (
            "conservation_usage_events",
            "Events in the usage totals and the tail",
            snapshot.events_by_lines()?,
        ),
        ("in_transit_events", "Accepted events known to be on their way", snapshot.in_transit()),
        ("streams", "Streams known", streams),
        ("ledger_time_seconds", "Ledger time, unix seconds", seconds(snapshot.ledger_time())),
        (
            "complete_through_seconds",
            "All usage accepted before this is posted, unix seconds; 0 while a stream never confirmed",
            complete.through.map_or(0, seconds),
        ),
        ("held_back_by_streams", "Streams that keep complete_through from moving", held_back),
    ] {
        gauge(registry, name, help, value);
    }
    registry.register(
        "suspense_events",
        "Posted events that the catalogue does not explain",
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
        ("clock_jumps", "Jumps of the machine's clock by over a minute", figures.clock_jumps),
    ] {
        counter(registry, name, help, value);
    }
    for (name, help, value) in [
        ("commit_p50_micros", "Ledger commits, median", figures.commit.p50_micros),
        ("commit_p99_micros", "Ledger commits, 99th percentile", figures.commit.p99_micros),
        ("fold_p99_micros", "Folds, 99th percentile", figures.fold.p99_micros),
        ("tail_lines", "Batch lines not folded yet", figures.tail.lines),
        ("tail_bytes", "Bodies not folded yet, bytes", figures.tail.bytes),
    ] {
        gauge(registry, name, help, value);
    }
}

/// What the QUIC door did since it was opened.
fn door(registry: &mut Registry, figures: &ListenFigures) {
    gauge(registry, "sessions_open", "Agents connected", figures.sessions_open);
    for (name, help, value) in [
        ("sessions", "Sessions begun", figures.sessions_begun),
        ("sessions_refused", "Sessions that the collector ended with Refuse", figures.refusals),
        ("handshakes_failed", "Handshakes that failed or took too long", figures.handshakes_failed),
        ("sessions_full", "Connections refused because sessions_max were open", figures.full),
        ("sessions_slow", "Sessions ended because the agent did not read in time", figures.slow),
        ("sessions_unnamed", "Connections whose certificate names no agent", figures.unnamed),
    ] {
        counter(registry, name, help, value);
    }
}

fn streams(registry: &mut Registry, streams: &[StreamStatus]) {
    counters(registry, streams, "accepted_events", "Durable events of the stream", |status| {
        status.accepted
    });
    counters(registry, streams, "posted_events", "Events in the ledger", |status| {
        status.posted_events
    });
    counters(registry, streams, "quarantined_events", "Events of unreadable batches", |status| {
        status.quarantined_events
    });
    counters(registry, streams, "quarantined_batches", "Unreadable batches", |status| {
        status.quarantined_batches
    });
    counters(registry, streams, "duplicate_batches", "Batches that came again", |status| {
        status.duplicates
    });
    counters(
        registry,
        streams,
        "conflicts",
        "Signs of a cloned or rolled-back journal",
        |status| status.conflicts,
    );
    gauges(
        registry,
        streams,
        "stream_in_transit_events",
        "Accepted events on their way",
        |status| status.in_transit,
    );
    gauges(registry, streams, "posted_sequence", "Highest posted sequence", |status| {
        status.posted_sequence.0
    });
    gauges(registry, streams, "sealed_sequence", "Highest sealed sequence", |status| {
        status.sealed_sequence.0
    });
    gauges(
        registry,
        streams,
        "last_heard_seconds",
        "When the agent was last heard, unix seconds",
        |status| seconds(status.last_heard),
    );
    gauges(
        registry,
        streams,
        "confirmed_through_seconds",
        "Confirmed complete, unix seconds; 0 never",
        |status| status.confirmed.map_or(0, |confirmed| seconds(confirmed.ledger_time)),
    );
    evidence(registry, streams);
}

fn evidence(registry: &mut Registry, streams: &[StreamStatus]) {
    let rejected = Family::<ReasonLabels, Counter>::default();
    let others = Family::<ReasonLabels, Counter>::default();
    let states = Family::<StateLabels, Count>::default();
    for status in streams {
        let StreamLabels { stream, agent } = labels(status);
        let by_reason = |reason: &str| ReasonLabels {
            stream: stream.clone(),
            agent: agent.clone(),
            reason: reason.to_owned(),
        };
        let (by_rejection, by_kind) = split(&status.evidence);
        for (reason, count) in &by_rejection {
            rejected.get_or_create(&by_reason(reason)).inc_by(*count);
        }
        for (reason, count) in &by_kind {
            others.get_or_create(&by_reason(reason)).inc_by(*count);
        }
        states.get_or_create(&StateLabels { stream, agent, state: status.state.name() }).set(1);
    }
    registry.register("rejected_events", "Events that the agent refused, by reason", rejected);
    registry.register(
        "evidence",
        "What else the agent counted: kernel drops, source gaps, ...",
        others,
    );
    registry.register("stream_state", "1 for the state that a stream is in", states);
}

fn counters(
    registry: &mut Registry,
    streams: &[StreamStatus],
    name: &str,
    help: &str,
    figure: fn(&StreamStatus) -> u64,
) {
    let family = Family::<StreamLabels, Counter>::default();
    for status in streams {
        family.get_or_create(&labels(status)).inc_by(figure(status));
    }
    registry.register(name, help, family);
}

fn gauges(
    registry: &mut Registry,
    streams: &[StreamStatus],
    name: &str,
    help: &str,
    figure: fn(&StreamStatus) -> u64,
) {
    let family = Family::<StreamLabels, Count>::default();
    for status in streams {
        family.get_or_create(&labels(status)).set(figure(status));
    }
    registry.register(name, help, family);
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
