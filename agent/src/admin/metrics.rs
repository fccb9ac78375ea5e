//! A status as OpenMetrics text.
//!
//! **Owns** the names of the metrics, which dashboards and alerts depend on: they are only added.
//! **Does not own** the figures.
//!
//! The conservation pair, for every agent at any moment:
//! `accepted_events_total = posted_events_total + in_transit_events`.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, GaugeValueEncoder, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::commit::FSYNC_BOUNDS_MICROS;
use crate::status::{DoorStatus, Fsync, SessionState, Status};
use crate::uplink::chooser::Transport;

/// What the answer's Content-Type says.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one instant.
#[must_use]
pub fn encode(status: &Status) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Info(status.clone())));
    registry
        .sub_registry_with_prefix("tidemark_agent")
        .register_collector(Box::new(Scrape(status.clone())));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("writing to a String does not fail");
    out
}

#[derive(Debug)]
struct Scrape(Status);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        events(&mut page, &self.0)?;
        backlog(&mut page, &self.0)?;
        journal(&mut page, &self.0)?;
        session(&mut page, &self.0)?;
        doors(&mut page, &self.0)
    }
}

#[derive(Debug)]
struct Info(Status);

impl Collector for Info {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let labels = [
            ("version", self.0.version.as_str()),
            ("stream", self.0.stream.as_str()),
            ("ledger", self.0.ledger.as_deref().unwrap_or("")),
        ];
        // The encoder ends an info's name in _info.
        encoder
            .encode_descriptor("tidemark_agent", "Who this is.", None, MetricType::Info)?
            .encode_info(&labels)
    }
}

fn events(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    let events = &status.events;
    page.counter("accepted_events", "Durable events of the stream.", events.accepted)?;
    page.counter("posted_events", "Events that the collector has posted.", events.posted)?;
    page.gauge(
        "in_transit_events",
        "Events accepted and not posted, counted on their own.",
        events.in_transit(),
    )?;
    let rejected: Vec<_> = events
        .rejected
        .iter()
        .map(|(reason, count)| ([("reason", reason.as_str())], *count))
        .collect();
    page.counters("rejected_events", "Rejected events by reason.", &rejected)?;
    page.counter("not_metered", "Metrics that no metered pattern matches.", events.not_metered)?;
    page.counter(
        "forwarded",
        "Lines that are not metered, sent to another server.",
        status.forward.forwarded,
    )?;
    page.counter(
        "forward_dropped",
        "Lines that are not metered and could not be forwarded.",
        status.forward.forward_dropped,
    )?;
    page.counter(
        "excluded_by_metered",
        "Metrics of the catalogue that metered excludes.",
        events.excluded_by_metered,
    )?;
    page.counter(
        "duplicates",
        "Events with an id that the journal already held.",
        events.duplicates,
    )?;
    page.counter(
        "dropped_dimensions",
        "Dimensions that the rules do not list.",
        events.dropped_dimensions,
    )?;
    page.counter("replayed_events", "Events accepted from dead letters.", events.replayed)?;
    page.counter(
        "events_without_id",
        "Events without an id, of meters that the catalogue deduplicates.",
        events.without_id,
    )?;
    page.counter("kernel_drops", "Datagrams that the kernel dropped.", events.kernel_drops)?;
    page.counter("source_gaps", "Numbers missing in numbered sources.", events.source_gaps)?;
    page.counter(
        "unclean_starts",
        "Openings without a clean end of the one before.",
        events.unclean_starts,
    )
}

fn backlog(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    let backlog = &status.backlog;
    let places = [
        ([("place", "chunks")], status.events.in_chunks),
        ([("place", "batches")], status.events.in_unposted_batches),
    ];
    page.gauges("backlog_events", "Events that are not posted, by where they are.", None, &places)?;
    page.gauge("backlog_batches", "Sealed batches that are not posted.", backlog.batches)?;
    page.gauge_in(
        "backlog",
        "Bytes of sealed batches that are not posted.",
        &Unit::Bytes,
        backlog.bytes,
    )?;
    let oldest = Millis(backlog.oldest_unposted_age_millis.unwrap_or(0));
    page.gauge_in(
        "oldest_unposted_age",
        "Age of the oldest unposted event; 0 without one.",
        &Unit::Seconds,
        oldest,
    )?;
    if let Some(millis) = backlog.drain_estimate_millis {
        page.gauge_in(
            "drain_estimate",
            "Until all that is in transit is posted, at the rate of the last minute; absent while nothing is posted.",
            &Unit::Seconds,
            Millis(millis),
        )?;
    }
    page.gauge_in(
        "shutdown_grace",
        "What the agent has for that once it is told to end.",
        &Unit::Seconds,
        Millis(status.shutdown_grace_millis),
    )?;
    page.gauge("sealed_sequence", "The last sealed batch.", backlog.sealed_sequence)?;
    page.gauge("posted_sequence", "The last posted batch.", backlog.posted_sequence)
}

fn journal(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    let journal = &status.journal;
    page.gauge_in("journal", "Length of the journal's file.", &Unit::Bytes, journal.bytes)?;
    page.gauge_in(
        "journal_live",
        "What the journal's rows need of it.",
        &Unit::Bytes,
        journal.live_bytes,
    )?;
    page.gauge("journal_bytes_max", "The journal's budget.", journal.bytes_max)?;
    page.gauge("journal_full", "1 while the journal is at its budget.", u64::from(journal.full))?;
    page.gauge(
        "journal_conflict",
        "1 if the journal may not be used any more.",
        u64::from(journal.conflict.is_some()),
    )?;
    page.gauge("journal_failed", "1 if commits have ended.", u64::from(journal.failed.is_some()))?;
    if let Some(millis) = journal.time_to_full_millis {
        page.gauge_in(
            "time_to_full",
            "Until the journal is full at its present growth; absent while it does not grow.",
            &Unit::Seconds,
            Millis(millis),
        )?;
    }
    page.gauge("retained_batches", "Posted batches that are kept.", journal.retained_batches)?;
    page.gauge_in(
        "retained",
        "Bytes of posted batches that are kept.",
        &Unit::Bytes,
        journal.retained_bytes,
    )?;
    let raw = journal.raw_events;
    page.gauge("raw_events_batches", "Batches whose events wait for the archive.", raw.batches)?;
    page.gauge_in(
        "raw_events",
        "Bytes of events that wait for the archive.",
        &Unit::Bytes,
        raw.bytes,
    )?;
    page.counter(
        "raw_events_batches_given_up",
        "Batches whose events had to leave before they were archived.",
        raw.given_up,
    )?;
    page.gauge("dead_letters", "Rejected events that are kept.", journal.dead_letters)?;
    let fsync = &status.fsync;
    let quantiles = [
        ([("quantile", "0.5")], Micros(fsync.p50_micros)),
        ([("quantile", "0.99")], Micros(fsync.p99_micros)),
        ([("quantile", "1")], Micros(fsync.max_micros)),
    ];
    page.gauges(
        "fsync",
        "How long commits took to reach the disk.",
        Some(&Unit::Seconds),
        &quantiles,
    )?;
    page.counter("commits", "Commits that reached the disk.", fsync.count)?;
    page.commit_durations(fsync)
}

fn session(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    let session = &status.session;
    let states = SessionState::ALL
        .map(|state| ([("state", state.name())], u64::from(state == session.state)));
    page.gauges("session_state", "1 for the session's state, 0 for the others.", None, &states)?;
    let transports = Transport::ALL.map(|transport| {
        let used = session.transport.as_deref() == Some(transport.name());
        ([("transport", transport.name())], u64::from(used))
    });
    page.gauges(
        "uplink_transport",
        "1 for what carries the link, 0 for the other; 0 for both while there is no link.",
        None,
        &transports,
    )?;
    page.gauge("uplink_in_flight", "Batches sent and not yet acknowledged.", session.in_flight)?;
    page.counter(
        "uplink_throttles",
        "Times that a collector asked for a pause, since the process began.",
        session.throttles,
    )?;
    if let Some(rtt) = session.rtt_micros {
        page.gauge_in(
            "uplink_round_trip",
            "Round trip to the collector.",
            &Unit::Seconds,
            Micros(rtt),
        )?;
    }
    if let Some(left) = session.certificate_left_millis {
        page.gauge_in(
            "certificate_left",
            "Until the agent's certificate ends; below zero once it has.",
            &Unit::Seconds,
            SignedMillis(left),
        )?;
    }
    match session.clock_offset_millis {
        None => Ok(()),
        Some(offset) => page.gauge_in(
            "clock_offset",
            "Ledger time less this machine's clock; absent until measured.",
            &Unit::Seconds,
            SignedMillis(offset),
        ),
    }
}

fn doors(page: &mut Page<'_>, status: &Status) -> fmt::Result {
    /// Name, help, and which of a door's counts it is.
    type Row = (&'static str, &'static str, fn(&DoorStatus) -> u64);
    const COUNTERS: [Row; 9] = [
        (
            "door_messages",
            "Datagrams, frames, lines or requests since the process began.",
            |door| door.messages,
        ),
        ("door_bytes", "Payload bytes since the process began.", |door| door.bytes),
        ("door_truncated", "Datagrams longer than the agent reads.", |door| door.truncated),
        ("door_errors", "Receive and accept calls that failed.", |door| door.errors),
        ("door_connections", "Connections accepted.", |door| door.connections_accepted),
        ("door_connections_refused", "Connections closed at once: too many were open.", |door| {
            door.connections_refused
        }),
        (
            "door_connections_forbidden",
            "Connections of users that peer_uids does not name.",
            |door| door.connections_forbidden,
        ),
        (
            "door_connections_timed_out",
            "Connections closed for what they did not send or read in time.",
            |door| door.connections_timed_out,
        ),
        (
            "door_kernel_drops",
            "Datagrams dropped by the kernel since the socket was made.",
            |door| door.kernel_drops,
        ),
    ];
    let all: Vec<(&str, &DoorStatus)> = status
        .doors
        .iter()
        .map(|(door, figures)| (door.as_str(), figures))
        .chain([("admin", &status.admin)])
        .collect();
    for (name, help, count) in COUNTERS {
        let rows: Vec<_> =
            all.iter().map(|(door, figures)| ([("door", *door)], count(figures))).collect();
        page.counters(name, help, &rows)?;
    }
    let open: Vec<_> =
        all.iter().map(|(door, of)| ([("door", *door)], of.connections_open)).collect();
    page.gauges("door_connections_open", "Connections open now.", None, &open)?;
    let buffers: Vec<_> = status
        .doors
        .iter()
        .filter(|(_, figures)| figures.receive_buffer_bytes > 0)
        .map(|(door, figures)| ([("door", door.as_str())], figures.receive_buffer_bytes))
        .collect();
    page.gauges(
        "door_receive_buffer",
        "The smallest receive buffer granted.",
        Some(&Unit::Bytes),
        &buffers,
    )
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<[(&str, &str); 0], u64, f64>(&value, None)
    }

    fn commit_durations(&mut self, fsync: &Fsync) -> fmt::Result {
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let bounds = FSYNC_BOUNDS_MICROS.map(seconds).into_iter().chain([f64::MAX]);
        let buckets: Vec<_> = bounds.zip(fsync.buckets.iter().copied()).collect();
        let (name, help) = ("commit_duration", "How long commits took to reach the disk.");
        self.0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<[(&str, &str); 0]>(
                seconds(fsync.sum_micros),
                fsync.count,
                &buckets,
                None,
            )
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: &[(L, u64)],
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            metric
                .encode_family(labels)?
                .encode_counter::<[(&str, &str); 0], u64, f64>(value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauge_in(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.0.encode_descriptor(name, help, Some(unit), MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: &[(L, V)],
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in rows {
            metric.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }
}

/// Shown in seconds, which is what metrics are in; the figure behind it stays an integer.
struct Micros(u64);
struct Millis(u64);
struct SignedMillis(i64);

impl EncodeGaugeValue for Micros {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        seconds(encoder, i128::from(self.0))
    }
}

impl EncodeGaugeValue for Millis {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        seconds(encoder, i128::from(self.0).saturating_mul(1_000))
    }
}

impl EncodeGaugeValue for SignedMillis {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        seconds(encoder, i128::from(self.0).saturating_mul(1_000))
    }
}

#[expect(
    clippy::float_arithmetic,
    reason = "a duration on a dashboard; metrics have no other type"
)]
fn seconds(encoder: &mut GaugeValueEncoder<'_>, micros: i128) -> fmt::Result {
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    let micros = micros as f64;
    EncodeGaugeValue::encode(&(micros / 1_000_000.0), encoder)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::status::tests::well;

    /// Each sample as (name with labels, value).
    fn samples(text: &str) -> BTreeMap<String, String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                (name.to_owned(), value.to_owned())
            })
            .collect()
    }

    #[test]
    fn each_sample_is_named_typed_and_stable() {
        let mut status = well();
        status.events.accepted = 44;
        status.events.posted = 10;
        status.events.in_chunks = 4;
        status.events.in_unposted_batches = 30;
        status.events.rejected = BTreeMap::from([("sampled".to_owned(), 3)]);
        status.backlog.oldest_unposted_age_millis = Some(1_500);
        status.journal.time_to_full_millis = Some(60_000);
        status.backlog.drain_estimate_millis = Some(7_500);
        let text = encode(&status);
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = samples(&text);
        for (name, value) in [
            ("accepted_events_total", "44"),
            ("posted_events_total", "10"),
            ("in_transit_events", "34"),
            ("backlog_events{place=\"chunks\"}", "4"),
            ("backlog_events{place=\"batches\"}", "30"),
            ("rejected_events_total{reason=\"sampled\"}", "3"),
            ("not_metered_total", "0"),
            ("duplicates_total", "0"),
            ("kernel_drops_total", "0"),
            ("source_gaps_total", "0"),
            ("unclean_starts_total", "0"),
            ("backlog_batches", "0"),
            ("backlog_bytes", "0"),
            ("oldest_unposted_age_seconds", "1.5"),
            ("journal_bytes", "8388608"),
            ("journal_live_bytes", "1500000"),
            ("journal_bytes_max", "2147483648"),
            ("journal_full", "0"),
            ("time_to_full_seconds", "60.0"),
            ("drain_estimate_seconds", "7.5"),
            ("shutdown_grace_seconds", "30.0"),
            ("commit_duration_seconds_count", "9000"),
            ("commit_duration_seconds_sum", "12.0"),
            ("commit_duration_seconds_bucket{le=\"0.002\"}", "8000"),
            ("sealed_sequence", "420"),
            ("posted_sequence", "420"),
            ("fsync_seconds{quantile=\"0.5\"}", "0.00125"),
            ("fsync_seconds{quantile=\"0.99\"}", "0.0048"),
            ("session_state{state=\"connected\"}", "1"),
            ("session_state{state=\"disconnected\"}", "0"),
            ("uplink_in_flight", "0"),
            ("clock_offset_seconds", "-0.012"),
            ("dead_letters", "0"),
            ("door_messages_total{door=\"udp\"}", "1"),
        ] {
            let name = format!("tidemark_agent_{name}");
            assert_eq!(samples.get(&name).map(String::as_str), Some(value), "{name} in\n{text}");
        }
        let who = samples.keys().find(|name| name.starts_with("tidemark_agent_info{")).unwrap();
        assert!(who.contains("version=\"1.2.3\"") && who.contains("stream=\"0a0a"), "{who}");
    }

    #[test]
    fn no_growth_no_time_to_full() {
        assert!(!encode(&well()).contains("time_to_full"));
    }

    #[test]
    fn every_sample_belongs_to_a_described_metric() {
        let text = encode(&well());
        let described: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for name in samples(&text).keys() {
            let bare = name.split('{').next().unwrap();
            let endings = ["_total", "_info", "_bucket", "_sum", "_count"];
            let base = endings.into_iter().find_map(|end| bare.strip_suffix(end)).unwrap_or(bare);
            assert!(described.contains(base), "{name} is not described");
        }
    }
}
