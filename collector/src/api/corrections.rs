//! `POST /v1/corrections`: usage as it should have been, by a person, with a reason.
//!
//! ```text
//! backfill   adds events that never came          events, quantity (their sum)
//! amend      changes sums and counts              events and quantity, each more or less: "-3"
//! void       takes events back                    events, quantity: what they had
//! replace    puts one value in place of all       quantity, for max, min, latest and average; events (default 1)
//! ```
//! Each is of one customer, meter, set of dimensions and quarter of an hour.
//!
//! **Owns** what each kind asks for. **Does not own** how it is read with usage (`ledger/books/correction.rs`).

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;

use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Bucket;

use crate::catalog::{Aggregation, Catalog, Meter};
use crate::ledger::Snapshot;
use crate::ledger::books::correction::{CorrectionKind, CorrectionRow};
use crate::ledger::books::rows::{self, CustomerRow};
use crate::ledger::books::{Correct, What};
use crate::ledger::store::UsageQuestion;
use crate::period::parse_edge;
use crate::usage::{Accumulator, Class};

use super::books::{BookedShown, asked, read};
use super::invoices::text;
use super::problem::Problem;
use super::usage::customer_id;
use super::{Api, ROWS_MAX};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    customer: String,
    meter: String,
    #[serde(default)]
    dimensions: BTreeMap<String, String>,
    /// The beginning of the quarter of an hour.
    at: String,
    kind: Kind,
    #[serde(default)]
    events: Option<i64>,
    #[serde(default)]
    quantity: Option<String>,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Backfill,
    Amend,
    Void,
    Replace,
}

pub(super) async fn correct(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<Asked>(request).await?;
    if let Some(booked) = api.replayed(&asked).await? {
        return Ok(Json(booked));
    }
    let reason = text("reason", &asked.body.reason)?;
    let body = asked.body.clone();
    let correct = api.read(move |catalog, snapshot| judge(catalog, snapshot, &body)).await?;
    let change = asked.change(What::Correct(Box::new(correct)), Some(reason), None)?;
    api.book(change).await.map(Json)
}

/// The correction, if it can be made of what is there.
fn judge(catalog: &Catalog, snapshot: &Snapshot, asked: &Asked) -> Result<Correct, Problem> {
    let customer = customer_id(&asked.customer)?;
    if !catalog.customers.contains_key(&customer) {
        return Err(
            crate::billing::BillError::UnknownCustomer { id: asked.customer.clone() }.into()
        );
    }
    let name = MeterName::parse(&asked.meter).ok();
    let meter = name.and_then(|name| catalog.meters.get(&name));
    let meter = meter.ok_or_else(|| wrong("meter", "the catalogue has no such meter"))?;
    if let Some(unknown) = asked.dimensions.keys().find(|name| !meter.dimensions.contains(name)) {
        return Err(wrong("dimensions", &format!("the meter does not keep {unknown:?}")));
    }
    let bucket = parse_edge(&asked.at).map_err(|error| wrong("at", &error.to_string()))?;
    if bucket.start() > snapshot.ledger_time() {
        return Err(wrong("at", "is in the future"));
    }
    let quantity = asked.quantity.as_deref().map(|text| Quantity::parse(text.as_bytes()));
    let quantity = quantity.transpose().map_err(|error| wrong("quantity", &error.to_string()))?;
    let row = row_of(meter, asked, bucket, quantity)?;
    row.usage().map_err(|error| wrong("dimensions", &error.to_string()))?;
    if row.kind != CorrectionKind::Replace {
        check_there(snapshot, &customer, meter, &row)?;
    }
    let key = rows::customer_prefix(rows::CUSTOMERS, &customer);
    let held: Option<CustomerRow> = read(&*snapshot.books, &key)?;
    Ok(Correct { customer, version: held.unwrap_or_default().version, row })
}

fn row_of(
    meter: &Meter,
    asked: &Asked,
    bucket: Bucket,
    quantity: Option<Quantity>,
) -> Result<CorrectionRow, Problem> {
    use Aggregation::{Average, Count, Latest, Max, Min, Sum, UniqueCount};
    let adds_up = matches!(meter.aggregation, Sum | Count);
    let events = asked.events.unwrap_or(match asked.kind {
        Kind::Replace => 1,
        Kind::Backfill | Kind::Amend | Kind::Void => 0,
    });
    let sum = quantity.unwrap_or(Quantity::ZERO);
    if meter.aggregation == UniqueCount {
        return Err(wrong("meter", "distinct values cannot be corrected by number"));
    }
    if meter.aggregation != Count && quantity.is_none() {
        return Err(wrong("quantity", "is missing"));
    }
    let (kind, events, sum) = match asked.kind {
        Kind::Backfill if events < 1 => return Err(wrong("events", "must be 1 or more")),
        Kind::Backfill if !adds_up && events != 1 => {
            return Err(wrong(
                "events",
                "must be 1: each event of this meter has a value of its own",
            ));
        }
        Kind::Backfill => (CorrectionKind::Add, events, sum),
        Kind::Amend | Kind::Void if !adds_up => {
            return Err(wrong("kind", "only sums and counts are amended; use \"replace\""));
        }
        Kind::Amend if events == 0 && sum == Quantity::ZERO => {
            return Err(wrong("quantity", "changes nothing"));
        }
        Kind::Amend if events >= 0 => (CorrectionKind::Add, events, sum),
        Kind::Amend => {
            let sum = Quantity(sum.0.saturating_neg());
            (CorrectionKind::Take, events.saturating_neg(), sum)
        }
        Kind::Void if events < 1 => return Err(wrong("events", "must be 1 or more")),
        Kind::Void => (CorrectionKind::Take, events, sum),
        Kind::Replace if !matches!(meter.aggregation, Max | Min | Latest | Average) => {
            return Err(wrong("kind", "sums and counts are not replaced; use \"amend\""));
        }
        Kind::Replace if events != 1 && meter.aggregation != Average => {
            return Err(wrong("events", "must be 1"));
        }
        Kind::Replace => {
            let sum = sum.0.checked_mul(i128::from(events)).map(Quantity);
            let sum = sum.ok_or_else(|| wrong("quantity", "is too large"))?;
            (CorrectionKind::Replace, events, sum)
        }
    };
    let events = u64::try_from(events).map_err(|_| wrong("events", "is not 0 or more"))?;
    Ok(CorrectionRow {
        kind,
        meter: meter.name.as_str().to_owned(),
        dimensions: asked.dimensions.clone(),
        bucket: bucket.0,
        events,
        quantity_events: if quantity.is_some() { events } else { 0 },
        sum: sum.to_string(),
    })
}

/// No more is taken than there is.
fn check_there(
    snapshot: &Snapshot,
    customer: &CustomerId,
    meter: &Meter,
    row: &CorrectionRow,
) -> Result<(), Problem> {
    let taken = row.usage()?;
    let question = UsageQuestion {
        customer,
        meter: Some(&meter.name),
        from: taken.bucket,
        to: Bucket(taken.bucket.0.saturating_add(1)),
    };
    let mut there = Accumulator::default();
    snapshot.visit_usage(&question, ROWS_MAX, |row| -> Result<(), Problem> {
        if row.class == Class::Normal && row.dimensions == taken.dimensions {
            there.apply(&row)?;
        }
        Ok(())
    })?;
    there.apply(&taken).map_err(|_| {
        let (events, quantities) = (there.events, there.quantity_events);
        wrong(
            "events",
            &format!("only {events} events are there, {quantities} of them with a quantity"),
        )
    })?;
    if there.sum.is_negative() && !meter.negative {
        let sum = there.sum;
        return Err(wrong(
            "quantity",
            &format!("would leave {sum}, and the meter is not `negative`"),
        ));
    }
    Ok(())
}

fn wrong(field: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-field", "A field cannot be used")
        .detail(format!("`{field}`: {detail}"))
        .remedy("deploy/docs/api.md says what each kind of correction asks for")
}
