//! `GET /v1/streams?limit=&after=&retired=`: streams, ascending by id: what is posted of each and what its agent last
//! said. The live ones, or those that retired.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;

use tidemark_common::batch::Evidence;
use tidemark_common::code::EvidenceCode;
use tidemark_common::hex;
use tidemark_common::id::StreamId;
use tidemark_common::time::Timestamp;

use crate::ledger::retired::RetiredStream;
use crate::ledger::store::StoreError;
use crate::ledger::{Missing, Snapshot, StreamStatus};
use crate::period::Zone;
use crate::reconcile::{Declared, Judging, judged};

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
    /// How many have retired, whichever are shown.
    streams_retired: u64,
    /// When the ledger was last restored from a backup.
    restored_at: Option<String>,
    #[serde(flatten)]
    cut: Cut,
}

#[derive(Debug, Serialize)]
struct StreamShown {
    stream: String,
    agent: String,
    /// The first hello; null of a stream that began before this was noted.
    begun: Option<String>,
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
    /// Its agent will not come again, say a person or a policy; until it is heard after all.
    lost: Option<LostShown>,
    /// Its agent did not come since the ledger was restored: what it posted after the backup is not here.
    unheard_since_restore: bool,
    /// Events that the agent refused, by reason.
    rejected: BTreeMap<String, u64>,
    /// What else the agent counted: kernel drops, source gaps, what is not metered, ...
    evidence: BTreeMap<String, u64>,
    last_heard: String,
    /// Nothing of it changed since; null of a live stream.
    retired_at: Option<String>,
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

/// Since when a stream counts as lost, and who says so.
#[derive(Debug, Serialize)]
struct LostShown {
    at: String,
    by: String,
}

pub(super) async fn handle(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    let parameters = Parameters::new(pairs, &["limit", "after", "retired"])?;
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
    let which = match parameters.get("retired") {
        None | Some("false") => Which::Live,
        Some("true") => Which::Retired,
        Some(_) => return Err(bad("retired", "is neither true nor false", "leave it out")),
    };
    let read = api.read(move |catalog, snapshot| {
        let page = match which {
            Which::Live => {
                judged(catalog, snapshot, |judging| live(snapshot, judging, limit, after))?
            }
            Which::Retired => retired(snapshot, limit, after)?,
        };
        Ok(answer(snapshot, page, Cut::of(catalog, snapshot, &Zone::utc())?))
    });
    read.await.map(Json)
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Live,
    Retired,
}

/// One of a page.
struct Listed {
    status: StreamStatus,
    lost: Option<Declared>,
    /// When it retired, if it did.
    retired: Option<Timestamp>,
}

/// Streams, and the last one's id if there are more.
struct Page {
    streams: Vec<Listed>,
    next: Option<StreamId>,
}

fn answer(snapshot: &Snapshot, page: Page, cut: Cut) -> Answer {
    let utc = Zone::utc();
    Answer {
        streams: page.streams.into_iter().map(|listed| shown(snapshot, listed, &utc)).collect(),
        next: page.next.map(|last| last.to_string()),
        streams_retired: snapshot.retired().streams,
        restored_at: snapshot.restored_at().map(|at| utc.rfc3339(at)),
        cut,
    }
}

fn live(snapshot: &Snapshot, judging: &Judging<'_>, limit: usize, after: Option<StreamId>) -> Page {
    let streams = snapshot.streams();
    // They ascend by id.
    let first = after.map_or(0, |after| streams.partition_point(|status| status.stream <= after));
    let rest = streams.get(first..).unwrap_or_default();
    let page = rest.get(..limit).unwrap_or(rest);
    let more = page.len() < rest.len();
    let listed = page.iter().zip(snapshot.records.iter().skip(first));
    let listed = listed.map(|(status, record)| Listed {
        status: status.clone(),
        lost: judging.declared(record),
        retired: None,
    });
    Page { streams: listed.collect(), next: page.last().filter(|_| more).map(|last| last.stream) }
}

fn retired(snapshot: &Snapshot, limit: usize, after: Option<StreamId>) -> Result<Page, StoreError> {
    let mut streams: Vec<Listed> = Vec::new();
    let more = snapshot.visit_retired_after(after, |RetiredStream { at, record }| {
        if streams.len() >= limit {
            return ControlFlow::Break(());
        }
        streams.push(Listed { status: record.status(), lost: None, retired: Some(at) });
        ControlFlow::Continue(())
    })?;
    let next = streams.last().filter(|_| more.is_break()).map(|last| last.status.stream);
    Ok(Page { streams, next })
}

fn shown(
    snapshot: &Snapshot,
    Listed { status, lost, retired }: Listed,
    zone: &Zone,
) -> StreamShown {
    let (rejected, evidence) = split(&status.evidence);
    StreamShown {
        stream: status.stream.to_string(),
        agent: status.agent.to_string(),
        begun: status.begun.map(|begun| zone.rfc3339(begun)),
        state: if lost.is_some() { "lost" } else { status.state.name() },
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
        lost: lost.map(|Declared { at, by }| LostShown { at: zone.rfc3339(at), by }),
        unheard_since_restore: snapshot.is_unheard_since_restore(&status),
        rejected,
        evidence,
        last_heard: zone.rfc3339(status.last_heard),
        retired_at: retired.map(|at| zone.rfc3339(at)),
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
