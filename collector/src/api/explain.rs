//! `GET /v1/customers/{id}/bill/explain?line=N&at=&sources=`: how the amount of a bill's line came about.

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use serde::Serialize;

use tidemark_common::id::CustomerId;
use tidemark_common::time::{Bucket, Timestamp};

use crate::billing::shown::LineShown;
use crate::billing::{Bill, Terms};
use crate::catalog::Catalog;
use crate::ledger::{Ledger, Snapshot};
use crate::money::Money;
use crate::rating::Line;
use crate::rating::explain::{Step, steps};

use super::auth::Actor;
use super::cut::Cut;
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};
use super::sources::{self, Sources};
use super::usage::customer_id;
use super::{Api, ROWS_MAX};

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    customer: String,
    plan: String,
    /// As the bill shows it.
    line: LineShown,
    /// From events to the line's amount, which is the last one's value.
    steps: Vec<StepShown>,
    /// Where the line's usage came from, if that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Sources>,
    #[serde(flatten)]
    cut: Cut,
}

#[derive(Debug, Serialize)]
struct StepShown {
    text: String,
    value: String,
}

impl From<Step> for StepShown {
    fn from(Step { text, value }: Step) -> Self {
        Self { text, value }
    }
}

pub(super) async fn handle(
    State(api): State<Api>,
    Extension(actor): Extension<Actor>,
    Path(customer): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    let parameters = Parameters::new(pairs, &["line", "at", "sources"])?;
    let customer = customer_id(&customer)?;
    let at = parameters.edge("at")?.map(Bucket::start);
    let sources = match parameters.get("sources") {
        None | Some("false") => None,
        Some("true") if actor.is_limited => {
            return Err(bad("sources", "is not for a token of one customer", "leave it out"));
        }
        Some("true") => Some(api.ledger.clone()),
        Some(_) => return Err(bad("sources", "is neither true nor false", "leave it out")),
    };
    let line = parameters.get("line").unwrap_or_default();
    let number = line.parse::<usize>().ok().filter(|number| *number > 0).ok_or_else(|| {
        let remedy =
            "give the number of a line of the bill: 1 is the first line of its first section";
        bad("line", &format!("is {line:?}"), remedy)
    })?;
    api.read(move |catalog, snapshot| {
        answer(catalog, snapshot, &customer, at, number, sources.as_ref())
    })
    .await
    .map(Json)
}

fn answer(
    catalog: &Catalog,
    snapshot: &Snapshot,
    id: &CustomerId,
    at: Option<Timestamp>,
    number: usize,
    sources: Option<&Ledger>,
) -> Result<Answer, Problem> {
    let terms = Terms::at(catalog, id, at.unwrap_or(snapshot.ledger_time()))?;
    let bill = terms.bill(catalog, snapshot, ROWS_MAX)?;
    let zone = &bill.customer.zone;
    let (plan, line, before) = line_of(&bill, number).ok_or_else(|| no_line(&bill, number))?;
    let sources = match (line, sources) {
        (Line::Usage(line), Some(ledger)) => {
            Some(sources::of(ledger, snapshot, catalog, id, line)?)
        }
        _ => None,
    };
    Ok(Answer {
        customer: id.as_str().to_owned(),
        plan: plan.to_owned(),
        line: LineShown::of(line, zone),
        steps: steps(line, before).into_iter().map(StepShown::from).collect(),
        sources,
        cut: Cut::of(catalog, snapshot, zone)?,
    })
}

/// A line by its number, with its plan and the sum of the lines of its part before it.
fn line_of<'b>(bill: &'b Bill<'_>, number: usize) -> Option<(&'b str, &'b Line<'b>, Money)> {
    let mut left = number;
    for section in &bill.sections {
        for part in &section.parts {
            let mut before = Money::zero(part.total.currency);
            for line in &part.lines {
                left = left.saturating_sub(1);
                if left == 0 {
                    return Some((section.plan, line, before));
                }
                before = before.checked_add(line.amount()).ok()?;
            }
        }
    }
    None
}

fn no_line(bill: &Bill<'_>, number: usize) -> Problem {
    let lines: usize =
        bill.sections.iter().flat_map(|section| &section.parts).map(|part| part.lines.len()).sum();
    Problem::new(StatusCode::NOT_FOUND, "no-line", "The bill has no such line")
        .detail(format!("the bill has {lines} lines, and no line {number}"))
        .remedy("count the lines of all sections of the bill, from 1")
}
