//! `GET /v1/streams?limit=&after=`: streams, ascending by id: what is posted of each and what its agent last said.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;

use tidemark_common::batch::Evidence;
use tidemark_common::code::EvidenceCode;
use tidemark_common::hex;
use tidemark_common::id::StreamId;

use crate::ledger::{Missing, Snapshot, StreamStatus};
use crate::period::Zone;

use super::Api;
use super::cut::Cut;
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};

/// A page holds so many, if the request does not say less.
const STREAMS_MAX: usize = 10_000;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    streams: Vec<StreamShown>,
    /// Pass it as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// When the ledger was last restored from a backup.
    restored_at: Option<String>,
    #[serde(flatten)]
    cut: Cut,
}

#[derive(Debug, Serialize)]
struct StreamShown {
    stream: String,
    agent: String,
    state: &'static str,
    /// The last session's: the ledger's incarnation and a counter.
    fence: String,
    posted_sequence: u64,
    sealed_sequence: u64,
    accepted: u64,
    posted_events: u64,
    events_in_transit: u64,
    quarantined_events: u64,
    quarantined_batches: u64,
    /// Batches that came again and were not posted again.
    duplicates: u64,
    conflicts: u64,
    missing: Option<MissingShown>,
    /// Its agent did not come since the ledger was restored: what it posted after the backup is not here.
    unheard_since_restore: bool,
    /// Events that the agent refused, by reason.
    rejected: BTreeMap<String, u64>,
    /// What else the agent counted: kernel drops, source gaps, what is not metered, ...
    evidence: BTreeMap<String, u64>,
    last_heard: String,
    confirmed: Option<ConfirmedShown>,
}

/// All that the agent accepted before `through` is in the batches up to `sequence`.
#[derive(Debug, Serialize)]
struct ConfirmedShown {
    through: String,
    sequence: u64,
    accepted: u64,
}

/// Batches that are neither in the ledger nor in the agent's journal.
#[derive(Debug, Serialize)]
struct MissingShown {
    first_sequence: u64,
    last_sequence: u64,
    events: u64,
}

pub(super) async fn handle(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    let parameters = Parameters::new(pairs, &["limit", "after"])?;
    let limit = match parameters.get("limit").map(str::parse::<usize>) {
        None => STREAMS_MAX,
        Some(Ok(limit)) if (1..=STREAMS_MAX).contains(&limit) => limit,
        Some(_) => {
            let remedy = format!("give a number from 1 to {STREAMS_MAX}");
            return Err(bad("limit", "is no such number", remedy));
        }
    };
    let after = parameters.get("after").map(|after| {
        let stream = hex::decode_array(after).map(StreamId);
        stream.ok_or_else(|| bad("after", "is no stream's id", "give `next` of the page before"))
    });
    let after = after.transpose()?;
    api.read(move |_, snapshot| Ok(answer(snapshot, limit, after))).await.map(Json)
}

fn answer(snapshot: &Snapshot, limit: usize, after: Option<StreamId>) -> Answer {
    let utc = Zone::utc();
    let streams = snapshot.streams();
    // They ascend by id.
    let first = after.map_or(0, |after| streams.partition_point(|status| status.stream <= after));
    let rest = streams.get(first..).unwrap_or_default();
    let page = rest.get(..limit).unwrap_or(rest);
    let more = page.len() < rest.len();
    Answer {
        streams: page.iter().map(|status| shown(snapshot, status, &utc)).collect(),
        next: page.last().filter(|_| more).map(|last| last.stream.to_string()),
        restored_at: snapshot.restored_at().map(|at| utc.rfc3339(at)),
        cut: Cut::of(snapshot, &utc),
    }
}

fn shown(snapshot: &Snapshot, status: &StreamStatus, zone: &Zone) -> StreamShown {
    let (rejected, evidence) = split(&status.evidence);
    StreamShown {
        stream: status.stream.to_string(),
        agent: status.agent.to_string(),
        state: status.state.name(),
        fence: status.fence.to_string(),
        posted_sequence: status.posted_sequence.0,
        sealed_sequence: status.sealed_sequence.0,
        accepted: status.accepted,
        posted_events: status.posted_events,
        events_in_transit: status.in_transit,
        quarantined_events: status.quarantined_events,
        quarantined_batches: status.quarantined_batches,
        duplicates: status.duplicates,
        conflicts: status.conflicts,
        missing: status.missing.map(|Missing { first, last, events }| MissingShown {
            first_sequence: first.0,
            last_sequence: last.0,
            events,
        }),
        unheard_since_restore: snapshot.is_unheard_since_restore(status),
        rejected,
        evidence,
        last_heard: zone.rfc3339(status.last_heard),
        confirmed: status.confirmed.map(|confirmed| ConfirmedShown {
            through: zone.rfc3339(confirmed.ledger_time),
            sequence: confirmed.sequence.0,
            accepted: confirmed.accepted,
        }),
    }
}

/// Evidence by name: rejected events, and everything else but `accepted`, which stands on its own. A
/// code that this version does not know is shown by its number.
fn split(evidence: &Evidence) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let mut rejected = BTreeMap::new();
    let mut others = BTreeMap::new();
    for (number, count) in evidence.iter() {
        match EvidenceCode::from_number(number) {
            Some(EvidenceCode::Accepted) => {}
            Some(code) if code.is_rejection() => {
                rejected.insert(code.name().to_owned(), count);
            }
            Some(code) => {
                others.insert(code.name().to_owned(), count);
            }
            None => {
                others.insert(format!("code_{number}"), count);
            }
        }
    }
    (rejected, others)
}
