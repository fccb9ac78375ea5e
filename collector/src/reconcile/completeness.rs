//! What keeps streams from being complete up to the cut.
//!
//! **Owns** which findings a stream's record comes to, and how much each puts in danger. **Does not own** when a
//! confirmation counts (`ledger/stream.rs`), or who declares a stream lost (`reconcile/loss.rs`, `policy.rs`).
//!
//! Pure. A stream is *open*, *closed* or *lost*. A closed one of which nothing is missing comes to nothing; a lost one
//! bears only on the time between its last confirmation and the declaration.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemark_common::id::StreamId;
use tidemark_common::time::Timestamp;

use super::loss::Loss;
use super::policy::Policy;
use super::{Certainty, Finding, Kind, Scope, Span, StreamPart};
use crate::ledger::completeness::{self, Completeness};
use crate::ledger::stream::{Missing, StreamRecord, StreamState};
use crate::live::Snapshot;

/// What streams are judged by.
#[derive(Debug)]
pub struct Judging<'a> {
    /// The snapshot's ledger time.
    pub now: Timestamp,
    /// The time looked at; its end is the cut.
    pub span: Span,
    pub silent_after_millis: i64,
    /// Declared by persons.
    pub losses: &'a BTreeMap<StreamId, Loss>,
    pub policies: &'a [Policy],
}

/// Since when a stream counts as lost, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    pub at: Timestamp,
    pub by: String,
}

impl Judging<'_> {
    /// All streams' findings that bear on the time looked at.
    #[must_use]
    pub fn findings(&self, streams: &[Arc<StreamRecord>]) -> Vec<Finding> {
        let found = streams.iter().flat_map(|record| self.of(record));
        found.filter(|finding| finding.span.overlaps(self.span)).collect()
    }

    /// Up to when all that streams accepted is posted, but for those that are lost: what is lost is a finding.
    #[must_use]
    pub fn complete_through(&self, snapshot: &Snapshot) -> Completeness {
        let kept = snapshot.records.iter().filter(|record| self.declared(record).is_none());
        completeness::complete_through(kept, self.now, self.silent_after_millis)
    }

    /// The state that people are shown: a declared loss holds until the agent is heard again.
    #[must_use]
    pub fn state_of(&self, record: &StreamRecord) -> &'static str {
        match self.declared(record) {
            Some(_) => "lost",
            None => record.state.name(),
        }
    }

    /// Whether the stream is lost: not closed, and not heard since a person said so, or for longer than a policy waits.
    #[must_use]
    pub fn declared(&self, record: &StreamRecord) -> Option<Declared> {
        if record.state == StreamState::Closed {
            return None;
        }
        let by_person = self.losses.get(&record.stream).filter(|loss| loss.holds(record));
        let by_person = by_person.map(|loss| Declared { at: loss.at, by: loss.actor.clone() });
        let by_policy = self.policies.iter().filter_map(|policy| {
            let after = policy.lost_after_millis?;
            let at = record.last_heard.plus_millis(after);
            (at <= self.now && policy.is_of(record.agent.as_str()))
                .then(|| Declared { at, by: format!("policy {}", policy.name) })
        });
        by_person.into_iter().chain(by_policy).min_by_key(|declared| declared.at)
    }

    fn of(&self, record: &StreamRecord) -> Vec<Finding> {
        let mut found = Vec::new();
        let capped = |cap: Option<Option<Timestamp>>| cap.flatten().unwrap_or(self.span.from);
        if record.state == StreamState::Conflict || record.conflict_cap.is_some() {
            let from = match record.conflict_cap {
                Some(_) => capped(record.conflict_cap),
                None => self.confirmed(record),
            };
            found.push(self.finding(record, Kind::Conflict, from));
        }
        if record.quarantined_batches > 0 {
            let from = capped(record.quarantine_cap);
            found.push(self.finding(record, Kind::Quarantine, from));
        }
        if record.missing.is_some() {
            found.push(self.finding(record, Kind::Missing, self.confirmed(record)));
        }
        found.extend(self.tail_of(record));
        found
    }

    /// What is known of the time since the last confirmation.
    fn tail_of(&self, record: &StreamRecord) -> Option<Finding> {
        let missing = record.missing.map_or(0, |missing| missing.events);
        let confirmed = record.confirmed.map(|confirmed| confirmed.ledger_time);
        let from = self.confirmed(record);
        if record.state == StreamState::Closed {
            let is_short = record.in_transit() > missing;
            return is_short.then(|| self.finding(record, Kind::ClosedShort, from));
        }
        if let Some(declared) = self.declared(record) {
            let mut finding = self.finding(record, Kind::Lost, from);
            finding.span.to = declared.at.max(from);
            (finding.events, finding.certainty) = self.exposed(record, declared.at);
            let Declared { at, by } = declared;
            let at = crate::period::Zone::utc().rfc3339(at);
            finding.told = format!(
                "lost: declared at {at} by {by}; {} events that it accepted are not here, {} in danger",
                record.in_transit(),
                finding.events
            );
            return Some(finding);
        }
        if confirmed.is_some_and(|confirmed| confirmed >= self.span.to) {
            return None;
        }
        let is_silent = self.now.millis_since(record.last_heard) > self.silent_after_millis;
        let kind = match (is_silent, confirmed) {
            (true, _) => Kind::Silent,
            // What is missing holds up all behind it, and is told.
            (false, _) if record.missing.is_some() => return None,
            (false, None) => Kind::NeverConfirmed,
            (false, Some(_)) if record.in_transit() > 0 => Kind::Backlog,
            (false, Some(_)) => Kind::Unconfirmed,
        };
        Some(self.finding(record, kind, from))
    }

    /// Up to when all is posted, by the stream's own word; before the time looked at if it never said.
    fn confirmed(&self, record: &StreamRecord) -> Timestamp {
        record.confirmed.map_or(self.span.from, |confirmed| confirmed.ledger_time)
    }

    /// Events that may be missing if the stream went on until `until` as it did: what is known to be on its way, and
    /// its rate times its silence.
    fn exposed(&self, record: &StreamRecord, until: Timestamp) -> (u64, Certainty) {
        let since = record.confirmed.map_or(record.begun, |confirmed| confirmed.ledger_time);
        let lived = u64::try_from(record.last_heard.millis_since(record.begun)).unwrap_or(0);
        let silence = u64::try_from(until.millis_since(since)).unwrap_or(0);
        // Rows of before streams' beginnings were kept say 0.
        if lived == 0 || record.begun == Timestamp(0) {
            return (record.in_transit(), Certainty::AtLeast);
        }
        let accepted = record.accepted.max(record.posted_end.0);
        let product = u128::from(accepted).saturating_mul(u128::from(silence));
        let more = product.div_ceil(u128::from(lived));
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        (record.in_transit().saturating_add(more), Certainty::Estimated)
    }

    fn finding(&self, record: &StreamRecord, kind: Kind, from: Timestamp) -> Finding {
        let (stream, agent) = (record.stream, record.agent.clone());
        let part = |first, last| StreamPart {
            stream,
            agent: agent.clone(),
            sequences: Some((first, last)),
        };
        let whole = StreamPart { stream, agent: agent.clone(), sequences: None };
        let mut id = format!("{}/{stream}", kind.name());
        let (mut streams, to) = (vec![whole], self.span.to.max(from));
        let (events, certainty, told) = match (kind, record.missing) {
            (Kind::Conflict, _) => {
                let told = "conflict: its journal was cloned or rolled back; the other one may hold events that nobody ships";
                (record.in_transit(), Certainty::AtLeast, told.to_owned())
            }
            (Kind::Quarantine, _) => {
                let (batches, events) = (record.quarantined_batches, record.quarantined_events);
                let told =
                    format!("quarantine: {batches} batches with {events} events cannot be read");
                (events, Certainty::Exact, told)
            }
            (Kind::Missing, Some(Missing { first, last, events })) => {
                streams = vec![part(first, last)];
                id = format!("{id}/{first}-{last}");
                let told = format!(
                    "missing: batches {first} to {last} with {events} events are neither here nor in its journal"
                );
                (events, Certainty::Exact, told)
            }
            (Kind::ClosedShort, _) => {
                let events = record.in_transit();
                let told = format!("closed: {events} events that it accepted never came");
                (events, Certainty::Exact, told)
            }
            _ => {
                let (events, certainty) = self.exposed(record, self.span.to);
                if kind == Kind::Backlog {
                    let first = record.posted_sequence.next();
                    streams = vec![part(first, record.sealed_sequence.max(first))];
                }
                (events, certainty, self.told(record, kind))
            }
        };
        Finding {
            kind,
            id,
            told,
            remedy: remedy(kind).to_owned(),
            events,
            certainty,
            quantity: None,
            money: Vec::new(),
            streams,
            meter: None,
            scope: Scope::Billable(agent),
            span: Span { from, to },
            since: record.confirmed.map_or(record.begun, |confirmed| confirmed.ledger_time),
            cover: None,
        }
    }

    fn told(&self, record: &StreamRecord, kind: Kind) -> String {
        let seconds = self.now.millis_since(record.last_heard).div_euclid(1_000);
        let (posted, sealed) = (record.posted_sequence, record.sealed_sequence);
        let on_way = record.in_transit();
        match kind {
            Kind::Silent => {
                format!("silent: last heard {seconds} s ago; {on_way} events on their way")
            }
            Kind::NeverConfirmed => "it never confirmed that all it accepted is posted".to_owned(),
            Kind::Backlog => format!(
                "backlog: batch {posted} of {sealed} is posted; {on_way} events on their way"
            ),
            _ => "it has not yet confirmed up to the cut".to_owned(),
        }
    }
}

/// What to do next.
fn remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::Missing => {
            "restore a newer backup or the archive, which has these batches; else waive the finding with what is known of them"
        }
        Kind::Backlog => {
            "wait until its agent has shipped what it holds; its `status` says how long that takes"
        }
        Kind::Unconfirmed => {
            "ask again in some seconds: agents confirm every `session.confirm_interval`"
        }
        Kind::Silent => {
            "start its agent again, or ship its journal with `tidemark-agent drain`; if its disk is gone, declare the stream lost"
        }
        Kind::NeverConfirmed => {
            "let its agent run until it has confirmed; if it is gone, declare the stream lost"
        }
        Kind::Lost => {
            "ship its journal if it turns up; else waive the finding, or cover it by a [[policy]]"
        }
        Kind::Conflict => {
            "find the other journal, `tidemark-agent export` it, correct what nobody shipped, and waive the finding"
        }
        Kind::Quarantine => {
            "keep the agent's journal, find out what the batches held, correct that, and waive the finding"
        }
        Kind::ClosedShort => {
            "ship its journal with `tidemark-agent drain`; if its disk is gone, waive the finding"
        }
        _ => "look at the stream in GET /v1/streams",
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests;
