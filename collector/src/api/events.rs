//! `GET /v1/customers/{id}/events?meter=&from=&to=&limit=&after=`: the single events behind a customer's usage.
//!
//! They are those of agents that send raw events to the archive, in the order of admission. Of each batch either all that is
//! asked for is shown, held against its lines, or it is said why not: so over all answers, what is shown as billed and what is not
//! archived come to `posted`.
//!
//! **Owns** the search, and this shape. **Does not own** where raw events are, or that they are the batch's (`archive/events.rs`).
//!
//! Limits: an answer has at most `limit` events, and opens at most [`BATCHES_MAX`] batches; where it ends before all are looked at,
//! its `next` is the `after` of the next one. Each answer reads through what is stored behind the one before.

mod batch;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use serde::Serialize;

use tidemark_common::hex;
use tidemark_common::id::{CustomerId, MeterName, Sequence, StreamId};
use tidemark_common::time::Bucket;

use crate::archive::events::{Missing, RawEvent, RawEvents};
use crate::catalog::Catalog;
use crate::ledger::store::{ShownBatch, UsageQuestion, WhichBatches};
use crate::ledger::{Ledger, Snapshot};
use crate::period::{Period, Zone};
use crate::usage::Class;

use self::batch::{Expected, Found, FoundEvent};
use super::Api;
use super::auth::Actor;
use super::cut::Cut;
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};
use super::sources::posted_of;
use super::usage::{customer_id, meter_name, range};

/// Without `limit`, an answer has at most this many events.
const LIMIT_DEFAULT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
/// An answer opens no more batches.
const BATCHES_MAX: usize = 2_000;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    customer: String,
    time_zone: String,
    from: String,
    to: String,
    /// Events that are billed, of all that is asked for, by the totals; what persons corrected is not in it.
    posted: u64,
    events: Vec<Event>,
    not_archived: Vec<Gap>,
    /// Null where nothing follows.
    next: Option<String>,
    #[serde(flatten)]
    cut: Cut,
}

/// One event.
#[derive(Debug, Serialize)]
struct Event {
    time: String,
    meter: String,
    /// As its agent recorded them.
    dimensions: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<String>,
    /// The keyed digest of its unique value.
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<String>,
    /// `normal` is billed; `unauthorised` and `duplicate` are not.
    class: &'static str,
    stream: String,
    agent: Option<String>,
    sequence: u64,
    /// Its number in the stream.
    number: u64,
}

/// Batches whose events cannot be shown.
#[derive(Debug, Serialize)]
struct Gap {
    stream: String,
    agent: Option<String>,
    first_sequence: u64,
    last_sequence: u64,
    /// The 15 minutes that their events are of, from the first to the last.
    from: String,
    to: String,
    /// How many events that are billed.
    events: u64,
    reason: &'static str,
    detail: String,
}

/// What is asked for.
#[derive(Debug)]
struct Question {
    customer: CustomerId,
    meter: Option<MeterName>,
    from: Option<Bucket>,
    to: Option<Bucket>,
    limit: usize,
    /// The position of a batch, and the event to begin with.
    after: (u64, u64),
}

pub(super) async fn handle(
    State(api): State<Api>,
    Extension(actor): Extension<Actor>,
    Path(customer): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    let question = question(&customer, pairs)?;
    if actor.is_limited {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "limited-token", "The token is limited")
            .detail("single events name agents and streams: not for a token of one customer")
            .remedy("use a token without `customer`"));
    }
    let (ledger, raw) = (api.ledger.clone(), api.raw_events.clone());
    api.read(move |catalog, snapshot| answer(catalog, snapshot, &ledger, raw.as_ref(), &question))
        .await
        .map(Json)
}

fn question(customer: &str, pairs: Pairs) -> Result<Question, Problem> {
    let parameters = Parameters::new(pairs, &["meter", "from", "to", "limit", "after"])?;
    let limit = parameters.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = match parameters.get("after") {
        None => (0, 0),
        Some(text) => place(text).ok_or_else(|| {
            let remedy = "copy `next` of the answer before, or leave it out";
            bad("after", "is no answer's `next`", remedy)
        })?,
    };
    Ok(Question {
        customer: customer_id(customer)?,
        meter: meter_name(&parameters)?,
        from: parameters.edge("from")?,
        to: parameters.edge("to")?,
        limit,
        after,
    })
}

fn place(text: &str) -> Option<(u64, u64)> {
    let (position, number) = text.split_once('.')?;
    Some((position.parse().ok()?, number.parse().ok()?))
}

fn answer(
    catalog: &Catalog,
    snapshot: &Snapshot,
    ledger: &Ledger,
    raw: Option<&RawEvents>,
    question: &Question,
) -> Result<Answer, Problem> {
    let zone = catalog.zone_of(&question.customer);
    let Period { start, end } = range(&zone, snapshot, question.from, question.to)?;
    let asked = UsageQuestion {
        customer: &question.customer,
        meter: question.meter.as_ref(),
        from: start,
        to: end,
    };
    let mut page = Page::new(question, &zone, ledger);
    let mut posted: HashMap<StreamId, Sequence> = snapshot.posted().collect();
    let last = Bucket(end.0.saturating_sub(1));
    let which = WhichBatches { from: question.after.0, first: start, last };
    let mut failed = None;
    ledger.visit_batches(which, &mut |batch| {
        let seen = posted_of(&mut posted, snapshot, batch.header.stream).map_err(Problem::from);
        let looked = seen.and_then(|seen| match batch.header.sequence <= seen {
            true => page.take(raw, &asked, batch),
            false => Ok(ControlFlow::Continue(())),
        });
        looked.unwrap_or_else(|problem| {
            failed = Some(problem);
            ControlFlow::Break(())
        })
    })?;
    if let Some(problem) = failed {
        return Err(problem);
    }
    Ok(Answer {
        customer: question.customer.as_str().to_owned(),
        time_zone: zone.name().to_owned(),
        from: zone.rfc3339(start.start()),
        to: zone.rfc3339(end.start()),
        posted: snapshot.posted_events(&asked).map_err(Problem::from)?,
        events: page.events,
        not_archived: page.gaps.into_iter().map(|(gap, _)| gap).collect(),
        next: page.next.map(|(position, number)| format!("{position}.{number}")),
        cut: Cut::of(catalog, snapshot, &zone)?,
    })
}

/// An answer in the making.
struct Page<'a> {
    zone: &'a Zone,
    ledger: &'a Ledger,
    limit: usize,
    after: (u64, u64),
    opened: usize,
    events: Vec<Event>,
    /// Each with the buckets that it is of.
    gaps: Vec<(Gap, (Bucket, Bucket))>,
    /// The last gap of each stream, as long as it can grow.
    open_gaps: HashMap<StreamId, usize>,
    next: Option<(u64, u64)>,
}

impl<'a> Page<'a> {
    fn new(question: &Question, zone: &'a Zone, ledger: &'a Ledger) -> Self {
        Self {
            zone,
            ledger,
            limit: question.limit,
            after: question.after,
            opened: 0,
            events: Vec::new(),
            gaps: Vec::new(),
            open_gaps: HashMap::new(),
            next: None,
        }
    }

    /// Looks at the next batch.
    fn take(
        &mut self,
        raw: Option<&RawEvents>,
        asked: &UsageQuestion<'_>,
        batch: &ShownBatch<'_>,
    ) -> Result<ControlFlow<()>, Problem> {
        let expected = Expected::of(asked, batch);
        if expected.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let (position, number) = self.after;
        let least = if batch.position == position { number } else { 0 };
        if self.opened == BATCHES_MAX || self.events.len() == self.limit {
            self.next = Some((batch.position, least));
            return Ok(ControlFlow::Break(()));
        }
        self.opened = self.opened.saturating_add(1);
        let room = self.limit.saturating_sub(self.events.len());
        let read = |each: &mut dyn FnMut(&RawEvent<'_>)| match raw {
            Some(raw) => raw.read(batch.header, batch.raw_events, each),
            None => Err(Missing::NotSent),
        };
        match expected.find(&self.ledger.unique_key(), least, room, read) {
            Ok(Found { events, next }) => {
                self.open_gaps.remove(&batch.header.stream);
                self.show(batch, events);
                self.next = next.map(|next| (batch.position, next));
            }
            Err(Missing::Unreadable(reason)) => return Err(unreadable(reason)),
            Err(missing) => self.gap(batch, &expected, &missing),
        }
        match self.next {
            Some(_) => Ok(ControlFlow::Break(())),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    fn show(&mut self, batch: &ShownBatch<'_>, events: Vec<FoundEvent>) {
        let (stream, sequence) = (batch.header.stream, batch.header.sequence.0);
        let agent = self.ledger.agent_of(stream).map(|agent| agent.to_string());
        self.events.extend(events.into_iter().map(|event| Event {
            time: self.zone.rfc3339(event.time),
            meter: event.meter.as_str().to_owned(),
            dimensions: event.dimensions,
            quantity: event.quantity.map(|quantity| quantity.to_string()),
            unique: event.unique.map(|digest| hex::encode(&digest)),
            class: match event.class {
                Class::Normal => "normal",
                Class::Unauthorised => "unauthorised",
                Class::Suppressed => "duplicate",
            },
            stream: stream.to_string(),
            agent: agent.clone(),
            sequence,
            number: event.number.0,
        }));
    }

    /// Says that this batch's events cannot be shown, with those of the batches before it if it is for the same reason.
    fn gap(&mut self, batch: &ShownBatch<'_>, expected: &Expected<'_>, missing: &Missing) {
        let (stream, sequence) = (batch.header.stream, batch.header.sequence.0);
        let (reason, detail, billed) = (reason(missing), missing.to_string(), expected.billed());
        let (mut first, mut end) = expected.buckets();
        let open = self.open_gaps.get(&stream).and_then(|index| self.gaps.get_mut(*index));
        if let Some((gap, buckets)) = open.filter(|(gap, _)| gap.detail == detail) {
            (first, end) = (first.min(buckets.0), end.max(buckets.1));
            *buckets = (first, end);
            gap.last_sequence = sequence;
            gap.events = gap.events.saturating_add(billed);
            gap.from = self.zone.rfc3339(first.start());
            gap.to = self.zone.rfc3339(end.start());
            return;
        }
        self.open_gaps.insert(stream, self.gaps.len());
        let gap = Gap {
            stream: stream.to_string(),
            agent: self.ledger.agent_of(stream).map(|agent| agent.to_string()),
            first_sequence: sequence,
            last_sequence: sequence,
            from: self.zone.rfc3339(first.start()),
            to: self.zone.rfc3339(end.start()),
            events: billed,
            reason,
            detail,
        };
        self.gaps.push((gap, (first, end)));
    }
}

fn reason(missing: &Missing) -> &'static str {
    match missing {
        Missing::NotSent => "not_sent",
        Missing::NotArchived => "not_archived",
        Missing::Removed { .. } => "removed",
        Missing::Differ { .. } => "differ",
        Missing::Unreadable(_) => "unreadable",
    }
}

fn unreadable(reason: String) -> Problem {
    tracing::error!(reason, "raw events could not be read");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "archive", "The archive cannot be read")
        .detail(reason)
        .remedy("see to the archive, and ask again")
}
