//! `GET /v1/customers/{id}/usage?meter=&from=&to=&group_by=&window=`
//!
//! Without `window` and `group_by` each meter has one entry, also without usage; otherwise entries
//! without usage are left out. A dimension that an event did not have groups under null.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Serialize;

use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::time::Bucket;

use crate::catalog::{Catalog, Meter};
use crate::document::closest;
use crate::ledger::Snapshot;
use crate::ledger::store::UsageQuestion;
use crate::period::{Period, Window, Zone};
use crate::usage::{Accumulator, Class, UsageRow};

use super::cut::Cut;
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};
use super::{Api, ROWS_MAX};

/// A range spans at most this many days.
const RANGE_DAYS_MAX: u32 = 400;
const BUCKETS_PER_DAY: u32 = 96;
/// An answer has at most this many entries.
const ENTRIES_MAX: usize = 100_000;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    customer: String,
    /// Whether the catalogue knows the customer. Usage is kept and shown either way.
    known: bool,
    time_zone: String,
    from: String,
    to: String,
    window: &'static str,
    group_by: Vec<String>,
    usage: Vec<Entry>,
    #[serde(flatten)]
    cut: Cut,
}

/// One meter's usage in one window under one group of dimensions.
#[derive(Debug, Serialize)]
struct Entry {
    meter: String,
    aggregation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    from: String,
    to: String,
    dimensions: BTreeMap<String, Option<String>>,
    /// Null where the aggregation has no value for no events.
    quantity: Option<String>,
    events: u64,
}

/// What is asked for, checked as far as that takes no snapshot.
#[derive(Debug)]
struct Question {
    customer: CustomerId,
    meter: Option<MeterName>,
    from: Option<Bucket>,
    to: Option<Bucket>,
    group_by: Vec<String>,
    window: Window,
}

/// An entry's place: meter, index of its window, values of the grouped dimensions.
type Key = (MeterName, usize, Vec<Option<String>>);

pub(super) async fn handle(
    State(api): State<Api>,
    Path(customer): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Answer>, Problem> {
    let question = question(&customer, pairs)?;
    api.read(move |catalog, snapshot| answer(catalog, snapshot, question)).await.map(Json)
}

/// A customer's id in a path.
pub(super) fn customer_id(text: &str) -> Result<CustomerId, Problem> {
    CustomerId::parse(text).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "bad-customer", "This is no customer's id")
            .detail(format!("{text:?} {error}"))
            .remedy("use 1 to 128 bytes of printable text, percent-encoded")
    })
}

fn question(customer: &str, pairs: Pairs) -> Result<Question, Problem> {
    let parameters = Parameters::new(pairs, &["meter", "from", "to", "group_by", "window"])?;
    let window = match parameters.get("window") {
        None | Some("total") => Window::Total,
        Some("hour") => Window::Hour,
        Some("day") => Window::Day,
        Some(other) => {
            return Err(bad("window", &format!("is {other:?}"), "use total, hour or day"));
        }
    };
    let group_by = parameters.get("group_by").unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for name in group_by.split(',').filter(|name| !name.is_empty()) {
        if !names.iter().any(|named| named == name) {
            names.push(name.to_owned());
        }
    }
    Ok(Question {
        customer: customer_id(customer)?,
        meter: meter_name(&parameters)?,
        from: parameters.edge("from")?,
        to: parameters.edge("to")?,
        group_by: names,
        window,
    })
}

/// The meter that is asked for, if one is.
pub(super) fn meter_name(parameters: &Parameters) -> Result<Option<MeterName>, Problem> {
    let meter = parameters.get("meter").map(MeterName::parse).transpose();
    meter.map_err(|error| bad("meter", &error.to_string(), "use a meter's name"))
}

fn answer(catalog: &Catalog, snapshot: &Snapshot, question: Question) -> Result<Answer, Problem> {
    let zone = catalog.zone_of(&question.customer);
    let meters = meters(catalog, &question)?;
    let range = range(&zone, snapshot, question.from, question.to)?;
    let windows = zone.windows(range, question.window)?;
    let mut groups: BTreeMap<Key, Accumulator> = BTreeMap::new();
    if question.window == Window::Total && question.group_by.is_empty() {
        groups.extend(
            meters
                .keys()
                .map(|name| ((name.clone().clone(), 0, Vec::new()), Accumulator::default())),
        );
    }
    let asked = UsageQuestion {
        customer: &question.customer,
        meter: question.meter.as_ref(),
        from: range.start,
        to: range.end,
    };
    snapshot.visit_usage(&asked, ROWS_MAX, |row| {
        if row.class == Class::Normal && meters.contains_key(&row.meter) {
            let key = place(&row, &windows, &question.group_by);
            groups.entry(key).or_default().apply(&row)?;
        }
        if groups.len() > ENTRIES_MAX { Err(too_many_entries()) } else { Ok(()) }
    })?;
    let usage = groups
        .into_iter()
        .map(|((name, window, values), usage)| {
            let meter = meters.get(&name).ok_or_else(|| Problem::internal(&"a meter vanished"))?;
            entry(meter, &zone, windows[window], question.group_by.iter().zip(values), &usage)
        })
        .collect::<Result<_, Problem>>()?;
    Ok(Answer {
        known: catalog.customers.contains_key(&question.customer),
        customer: question.customer.as_str().to_owned(),
        time_zone: zone.name().to_owned(),
        from: zone.rfc3339(range.start.start()),
        to: zone.rfc3339(range.end.start()),
        window: match question.window {
            Window::Total => "total",
            Window::Hour => "hour",
            Window::Day => "day",
        },
        group_by: question.group_by,
        usage,
        cut: Cut::of(catalog, snapshot, &zone)?,
    })
}

fn too_many_entries() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "too-many-entries", "The answer is too long")
        .detail(format!("it would have more than {ENTRIES_MAX} entries"))
        .remedy("ask for one meter, a shorter range, a larger window or fewer dimensions")
}

/// The meters that are asked for, each of which must exist and at least one keep each dimension.
fn meters<'c>(
    catalog: &'c Catalog,
    question: &Question,
) -> Result<BTreeMap<MeterName, &'c Meter>, Problem> {
    let asked: BTreeMap<MeterName, &Meter> = catalog
        .meters
        .iter()
        .filter(|(name, _)| question.meter.as_ref().is_none_or(|asked| asked == *name))
        .map(|(name, meter)| (name.clone(), meter))
        .collect();
    if let Some(name) = question.meter.as_ref().filter(|_| asked.is_empty()) {
        let remedy = match closest(name.as_str(), catalog.meters.keys().map(MeterName::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                "add a [[meter]] to the catalogue; what was sent for it is kept, see /v1/suspense"
                    .to_owned()
            }
        };
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-meter", "The meter is not known")
            .detail(format!("the catalogue has no meter {name}"))
            .remedy(remedy));
    }
    for name in &question.group_by {
        if !asked.values().any(|meter| meter.dimensions.contains(name)) {
            let mut kept: Vec<&str> = asked
                .values()
                .flat_map(|meter| meter.dimensions.iter().map(String::as_str))
                .collect();
            kept.sort_unstable();
            kept.dedup();
            let detail = format!("names the dimension {name:?}, which is not kept");
            return Err(bad("group_by", &detail, format!("use some of: {}", kept.join(", "))));
        }
    }
    Ok(asked)
}

/// The range asked for: by default the current period, from its start to its end.
pub(super) fn range(
    zone: &Zone,
    snapshot: &Snapshot,
    from: Option<Bucket>,
    to: Option<Bucket>,
) -> Result<Period, Problem> {
    let current = zone.month_of(snapshot.ledger_time())?;
    let range = Period { start: from.unwrap_or(current.start), end: to.unwrap_or(current.end) };
    if range.start >= range.end {
        let detail = format!(
            "is not before `to`: {} and {}",
            zone.rfc3339(range.start.start()),
            zone.rfc3339(range.end.start())
        );
        return Err(bad("from", &detail, "give both; without them the current period is meant"));
    }
    if range.end.0.saturating_sub(range.start.0) > RANGE_DAYS_MAX.saturating_mul(BUCKETS_PER_DAY) {
        let detail = format!("is more than {RANGE_DAYS_MAX} days before `to`");
        return Err(bad("from", &detail, "ask for shorter ranges"));
    }
    Ok(range)
}

fn place(row: &UsageRow, windows: &[Period], group_by: &[String]) -> Key {
    let window = windows.partition_point(|window| window.end <= row.bucket);
    let values =
        group_by.iter().map(|name| row.dimensions.value(name).map(str::to_owned)).collect();
    (row.meter.clone(), window.min(windows.len().saturating_sub(1)), values)
}

fn entry<'g>(
    meter: &Meter,
    zone: &Zone,
    window: Period,
    dimensions: impl Iterator<Item = (&'g String, Option<String>)>,
    usage: &Accumulator,
) -> Result<Entry, Problem> {
    let quantity = meter.aggregation.quantity(usage)?;
    Ok(Entry {
        meter: meter.name.as_str().to_owned(),
        aggregation: meter.aggregation.name(),
        unit: meter.unit.clone(),
        from: zone.rfc3339(window.start.start()),
        to: zone.rfc3339(window.end.start()),
        dimensions: dimensions.map(|(name, value)| (name.clone(), value)).collect(),
        quantity: quantity.map(|quantity| quantity.to_string()),
        events: usage.events,
    })
}
