//! `GET /v1/duplicates?customer=&meter=&limit=&after=`: events that were admitted before, and are not billed again.
//!
//! In the order of admission. Limits: an answer has at most `limit` entries and looks at [`BATCHES_MAX`] batches that
//! hold some; where it ends before all are looked at, its `next` is the `after` of the next one.

use std::ops::ControlFlow;

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;

use tidemark_common::batch::Header;
use tidemark_common::id::{CustomerId, MeterName};

use crate::ledger::Ledger;
use crate::ledger::duplicates::{LinePlace, Suppressed};
use crate::ledger::tail::{ClassedLine, CustomerLines};
use crate::period::Zone;

use super::Api;
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};

/// Without `limit`, an answer has at most this many entries.
const LIMIT_DEFAULT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
/// An answer opens no more batches.
const BATCHES_MAX: usize = 500;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    duplicates: Vec<Entry>,
    /// Null where nothing follows.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct Entry {
    customer: String,
    meter: String,
    /// The beginning of its 15 minutes, by its own time.
    time: String,
    events: u64,
    /// Absent without a quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<String>,
    #[serde(flatten)]
    place: Place,
    /// The event that is billed.
    first: Place,
}

#[derive(Debug, Serialize)]
struct Place {
    stream: String,
    /// Whose stream it is, if it is known.
    agent: Option<String>,
    sequence: u64,
    line: u32,
}

pub(super) async fn handle(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    let question = question(pairs)?;
    let ledger = api.ledger.clone();
    api.blocking(move |_| answer(&ledger, &question)).await.map(Json)
}

#[derive(Debug)]
struct Question {
    customer: Option<CustomerId>,
    meter: Option<MeterName>,
    limit: usize,
    /// The position of a batch, and the line to begin with.
    from: (u64, u32),
}

fn question(pairs: Pairs) -> Result<Question, Problem> {
    let parameters = Parameters::new(pairs, &["customer", "meter", "limit", "after"])?;
    let name = |parameter: &'static str, error: &dyn std::error::Error| {
        bad(parameter, &error.to_string(), "give a name as it was sent")
    };
    let customer = parameters.get("customer").map(CustomerId::parse).transpose();
    let meter = parameters.get("meter").map(MeterName::parse).transpose();
    let limit = parameters.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let from = match parameters.get("after") {
        None => (0, 0),
        Some(text) => place(text).ok_or_else(|| {
            bad(
                "after",
                "is no answer's `next`",
                "copy `next` of the answer before, or leave it out",
            )
        })?,
    };
    Ok(Question {
        customer: customer.map_err(|error| name("customer", &error))?,
        meter: meter.map_err(|error| name("meter", &error))?,
        limit,
        from,
    })
}

fn place(text: &str) -> Option<(u64, u32)> {
    let (position, line) = text.split_once('.')?;
    Some((position.parse().ok()?, line.parse().ok()?))
}

fn answer(ledger: &Ledger, question: &Question) -> Result<Answer, Problem> {
    let (first_position, first_line) = question.from;
    let (mut duplicates, mut looked_at, mut next) = (Vec::new(), 0_usize, None);
    ledger.visit_suppressed(first_position, &mut |position, header, lines, suppressed| {
        let least = if position == first_position { first_line } else { 0 };
        if looked_at == BATCHES_MAX {
            next = Some((position, least));
            return ControlFlow::Break(());
        }
        looked_at = looked_at.saturating_add(1);
        for (line, first) in asked(question, lines, suppressed, least) {
            if duplicates.len() == question.limit {
                next = Some((position, line.index));
                return ControlFlow::Break(());
            }
            duplicates.push(entry(ledger, header, line, first));
        }
        ControlFlow::Continue(())
    })?;
    let next = next.map(|(position, line)| format!("{position}.{line}"));
    Ok(Answer { duplicates, next })
}

/// The suppressed lines of a batch that are asked for, from `least` on.
fn asked<'a>(
    question: &Question,
    lines: &'a CustomerLines,
    suppressed: &Suppressed,
    least: u32,
) -> Vec<(&'a ClassedLine, LinePlace)> {
    let meter = |line: &ClassedLine| {
        question.meter.as_ref().is_none_or(|meter| *meter == line.line.key.meter)
    };
    let place = |line: &'a ClassedLine| {
        let is_asked = line.index >= least && meter(line);
        Some((line, suppressed.first_of(line.index).filter(|_| is_asked)?))
    };
    let mut found: Vec<_> = match &question.customer {
        Some(customer) => lines.of(customer).iter().filter_map(place).collect(),
        None => lines.iter().filter_map(place).collect(),
    };
    found.sort_unstable_by_key(|(line, _)| line.index);
    found
}

fn entry(ledger: &Ledger, header: &Header, line: &ClassedLine, first: LinePlace) -> Entry {
    let (key, value) = (&line.line.key, &line.line.value);
    let here = LinePlace { stream: header.stream, sequence: header.sequence, line: line.index };
    let shown = |place: LinePlace| Place {
        stream: place.stream.to_string(),
        agent: ledger.agent_of(place.stream).map(|agent| agent.to_string()),
        sequence: place.sequence.0,
        line: place.line,
    };
    Entry {
        customer: key.customer.as_str().to_owned(),
        meter: key.meter.as_str().to_owned(),
        time: Zone::utc().rfc3339(key.bucket.start()),
        events: value.events,
        quantity: (value.quantity_events > 0).then(|| value.sum.to_string()),
        place: shown(here),
        first: shown(first),
    }
}
