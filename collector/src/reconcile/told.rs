//! What is told and keeps no invoice back: rejects by reason, duplicates, and loss before the agent, as figures.
//!
//! **Owns** which counts of the agents' evidence become findings. **Does not own** counting (the agents do).
//!
//! Counts are cumulative over a stream's life; they are of streams that were heard in the time looked at.
//!
//! Limits: of each finding's streams the [`STREAMS_MAX`] with the greatest counts are named.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemark_common::code::EvidenceCode;

use super::{Certainty, Finding, Kind, Scope, Span, StreamPart};
use crate::ledger::stream::StreamRecord;

const STREAMS_MAX: usize = 20;

/// Counts by what they are of.
type Told<'a> = BTreeMap<(Kind, &'static str), Vec<(u64, &'a StreamRecord)>>;

pub(super) fn findings(streams: &[Arc<StreamRecord>], span: Span) -> Vec<Finding> {
    let mut told = Told::new();
    let heard =
        |record: &&Arc<StreamRecord>| record.last_heard >= span.from && record.begun < span.to;
    for record in streams.iter().filter(heard) {
        for (number, count) in record.evidence.iter().filter(|(_, count)| *count > 0) {
            let code = EvidenceCode::from_number(number);
            if let Some((kind, name)) = code.and_then(|code| Some((kind(code)?, code.name()))) {
                told.entry((kind, name)).or_default().push((count, record));
            }
        }
        if record.duplicates > 0 {
            let resent = told.entry((Kind::Duplicates, "batches")).or_default();
            resent.push((record.duplicates, record));
        }
    }
    told.into_iter().map(|((kind, name), counts)| finding(kind, name, counts, span)).collect()
}

fn kind(code: EvidenceCode) -> Option<Kind> {
    match code {
        EvidenceCode::KernelDrops => Some(Kind::KernelDrops),
        EvidenceCode::SourceGaps => Some(Kind::SourceGaps),
        EvidenceCode::Duplicates => Some(Kind::Duplicates),
        EvidenceCode::ExcludedByMetered => Some(Kind::ExcludedByMetered),
        code if code.is_rejection() => Some(Kind::Rejected),
        _ => None,
    }
}

fn finding(kind: Kind, name: &str, mut counts: Vec<(u64, &StreamRecord)>, span: Span) -> Finding {
    let events = counts.iter().fold(0_u64, |sum, (count, _)| sum.saturating_add(*count));
    let of = counts.len();
    counts.sort_by_key(|(count, record)| (std::cmp::Reverse(*count), record.stream));
    counts.truncate(STREAMS_MAX);
    let streams = counts.iter().map(|(_, record)| StreamPart {
        stream: record.stream,
        agent: record.agent.clone(),
        sequences: None,
    });
    let (told, remedy) = match kind {
        Kind::KernelDrops => (
            format!("{events} datagrams were dropped by kernels before agents could read them"),
            "send over the Unix socket, or let the agent ask for a larger receive buffer",
        ),
        Kind::SourceGaps => (
            format!("{events} numbers are missing in the counters of numbered sources"),
            "look at what is between these applications and their agents",
        ),
        Kind::Duplicates if name == "batches" => (
            format!("{events} batches came again and were not posted again"),
            "nothing: agents send again what was not acknowledged",
        ),
        Kind::Duplicates => (
            format!("{events} events had an id that their journal held already"),
            "nothing: applications send again what was not acknowledged",
        ),
        Kind::ExcludedByMetered => (
            format!("{events} metrics of the catalogue are excluded by an agent's `metered`"),
            "add their names to `metered` of these agents",
        ),
        _ => (
            format!("{events} events were rejected as {name}"),
            "`tidemark-agent dead-letters` shows them; mend what sends them, and replay",
        ),
    };
    Finding {
        kind,
        id: if name == kind.name() { name.to_owned() } else { format!("{}/{name}", kind.name()) },
        told: format!("{told}, over the lives of {of} streams"),
        remedy: remedy.to_owned(),
        events,
        certainty: Certainty::Exact,
        quantity: None,
        money: None,
        streams: streams.collect(),
        meter: None,
        scope: Scope::Nobody,
        span,
        since: span.from,
        cover: None,
    }
}
