//! What is told and keeps no invoice back: rejects by reason, duplicates, and loss before the agent, as figures.
//!
//! **Owns** which counts of the agents' evidence become findings. **Does not own** counting (the agents do).
//!
//! Counts are cumulative over a stream's life; they are of streams that were heard in the time looked at.
//!
//! Limits: of each finding's streams the [`STREAMS_MAX`] with the greatest counts are named.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tidemark_common::code::EvidenceCode;
use tidemark_common::id::StreamId;
use tidemark_common::tls::AgentName;

use super::{Certainty, Finding, Kind, Scope, Span, StreamPart};
use crate::ledger::Snapshot;
use crate::ledger::store::StoreError;
use crate::ledger::stream::StreamRecord;

const STREAMS_MAX: usize = 20;

/// What is counted of one kind and name.
#[derive(Default)]
struct Told {
    events: u64,
    streams: u64,
    /// The streams with the greatest counts, those first.
    greatest: BTreeMap<(Reverse<u64>, StreamId), AgentName>,
}

/// By what the counts are of.
type AllTold = BTreeMap<(Kind, &'static str), Told>;

pub(super) fn findings(snapshot: &Snapshot, span: Span) -> Result<Vec<Finding>, StoreError> {
    let mut told = AllTold::new();
    for record in &snapshot.records {
        take(&mut told, record, span);
    }
    let _all = snapshot.visit_retired(span.from, |retired| {
        take(&mut told, &retired.record, span);
        ControlFlow::Continue(())
    })?;
    Ok(told.into_iter().map(|((kind, name), counts)| finding(kind, name, counts, span)).collect())
}

fn take(told: &mut AllTold, record: &StreamRecord, span: Span) {
    if record.last_heard < span.from || span.to <= record.begun {
        return;
    }
    for (number, count) in record.evidence.iter().filter(|(_, count)| *count > 0) {
        let code = EvidenceCode::from_number(number);
        if let Some((kind, name)) = code.and_then(|code| Some((kind(code)?, code.name()))) {
            told.entry((kind, name)).or_default().add(count, record);
        }
    }
    if record.duplicates > 0 {
        told.entry((Kind::Duplicates, "batches")).or_default().add(record.duplicates, record);
    }
}

impl Told {
    fn add(&mut self, count: u64, record: &StreamRecord) {
        self.events = self.events.saturating_add(count);
        self.streams = self.streams.saturating_add(1);
        self.greatest.insert((Reverse(count), record.stream), record.agent.clone());
        if self.greatest.len() > STREAMS_MAX {
            self.greatest.pop_last();
        }
    }
}

fn kind(code: EvidenceCode) -> Option<Kind> {
    match code {
        EvidenceCode::KernelDrops => Some(Kind::KernelDrops),
        EvidenceCode::SourceGaps => Some(Kind::SourceGaps),
        EvidenceCode::Duplicates => Some(Kind::Duplicates),
        EvidenceCode::WithoutId => Some(Kind::WithoutId),
        EvidenceCode::ExcludedByMetered => Some(Kind::ExcludedByMetered),
        code if code.is_rejection() => Some(Kind::Rejected),
        _ => None,
    }
}

fn finding(kind: Kind, name: &str, counts: Told, span: Span) -> Finding {
    let Told { events, streams: of, greatest } = counts;
    let streams = greatest.into_iter().map(|((_, stream), agent)| StreamPart {
        stream,
        agent,
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
        Kind::WithoutId => (
            format!(
                "{events} events of deduplicated meters had no id, and count each time they come"
            ),
            "let what sends them give each event an id",
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
        money: Vec::new(),
        streams: streams.collect(),
        meter: None,
        scope: Scope::Nobody,
        span,
        since: span.from,
        cover: None,
    }
}

#[cfg(test)]
mod tests {
    use tidemark_common::time::Timestamp;

    use super::*;

    #[test]
    fn each_count_has_an_id_by_kind_and_name_and_keeps_nobody_back() {
        let span = Span { from: Timestamp(0), to: Timestamp(1) };
        let check = |code: EvidenceCode, id: &str, told: &str| {
            let kind = kind(code).unwrap();
            let counts = Told { events: 7, streams: 2, ..Told::default() };
            let finding = finding(kind, code.name(), counts, span);
            assert_eq!((finding.id.as_str(), finding.events, finding.blocks()), (id, 7, false));
            assert!(finding.told.starts_with(told), "{}", finding.told);
        };
        check(EvidenceCode::KernelDrops, "kernel_drops", "7 datagrams were dropped");
        check(EvidenceCode::WithoutId, "without_id", "7 events of deduplicated meters had no id");
        check(EvidenceCode::Duplicates, "duplicates", "7 events had an id");
        check(EvidenceCode::RejectedMalformed, "rejected/malformed", "7 events were rejected");
        assert_eq!(kind(EvidenceCode::Accepted), None);
    }
}
