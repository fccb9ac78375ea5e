//! Reads a catalogue file: every key is checked, every problem is placed on its line.
//!
//! **Owns** the file's grammar and the checks between its tables. **Does not own** TOML itself
//! (`document`), or what a name, a price or a zone may be: their own types say so.

mod customer;
mod plan;
mod policy;
mod seller;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use tidemark_common::id::{DIMENSIONS_MAX, MeterName, check_dimension_name};
use tidemark_common::wire::{CONTROL_BYTES_MAX, CloudEventMeter, DimensionPath, encode_rules};

use crate::document::{self, Located, Problem, Problems, Table, closest};
use crate::duration;

use super::{Aggregation, Catalog, CloudEvent, Deduplicate, METERS_MAX, Meter, identities};

const SEAL_INTERVAL_DEFAULT_MILLIS: u32 = 1_000;
const SEAL_INTERVAL_MIN_MILLIS: u32 = 10;
const SEAL_INTERVAL_MAX_MILLIS: u32 = 3_600_000;
/// Names for people and CloudEvents paths are at most this many bytes.
const TEXT_BYTES_MAX: usize = 256;
/// What Welcome holds besides the rules fits into this.
const WELCOME_BYTES: usize = 4_096;

/// Reads a whole file.
pub(super) fn catalog(text: &str, file: &str) -> Result<Catalog, Vec<Problem>> {
    let (mut root, mut problems) = document::parse(text, file)?;
    let seal_interval_millis = seal_interval(&mut root, &mut problems);
    let (meters, broken) = meters(&mut root, &mut problems);
    let taxes = seller::taxes(&mut root, &mut problems);
    let sellers = seller::sellers(&mut root, &taxes, &mut problems);
    let known = plan::Known { meters: &meters, broken: &broken, taxes: &taxes };
    let (plans, broken_plans) = plan::plans(&mut root, &known, &mut problems);
    let offered =
        customer::Offered { known, plans: &plans, broken: &broken_plans, sellers: &sellers };
    let (customers, subscriptions) = customer::customers(&mut root, &offered, &mut problems);
    let grants = Arc::new(identities::grants(&mut root, &mut problems));
    let policies = policy::policies(&mut root, &mut problems);
    root.finish(&mut problems);
    let catalog = Catalog {
        seal_interval_millis,
        meters,
        plans,
        sellers,
        taxes,
        customers,
        subscriptions,
        grants,
        policies,
    };
    if problems.is_empty() {
        check_rules_fit(&catalog, &mut problems);
    }
    if problems.is_empty() { Ok(catalog) } else { Err(problems.into_found()) }
}

fn seal_interval(root: &mut Table<'_>, problems: &mut Problems<'_>) -> u32 {
    let Some(text) = root.text("seal_interval", problems) else {
        return SEAL_INTERVAL_DEFAULT_MILLIS;
    };
    let millis =
        duration::parse_millis(&text.value).ok().and_then(|millis| u32::try_from(millis).ok());
    match millis
        .filter(|millis| (SEAL_INTERVAL_MIN_MILLIS..=SEAL_INTERVAL_MAX_MILLIS).contains(millis))
    {
        Some(millis) => millis,
        None => {
            let message = format!("`seal_interval` is {:?}", text.value);
            problems.report(text.span, message, "write a duration between \"10ms\" and \"1h\"");
            SEAL_INTERVAL_DEFAULT_MILLIS
        }
    }
}

/// The meters, and the names of those that have problems of their own.
fn meters(
    root: &mut Table<'_>,
    problems: &mut Problems<'_>,
) -> (BTreeMap<MeterName, Meter>, BTreeSet<MeterName>) {
    let (mut meters, mut broken) = (BTreeMap::new(), BTreeSet::new());
    for mut table in root.tables("meter", problems) {
        let span = table.span.clone();
        let name = table.required_text("name", "api.calls", problems);
        let name = name.and_then(|name| meter_name(&name, problems));
        let read = meter(&mut table, name.as_ref(), problems);
        table.finish(problems);
        let Some(meter) = read else {
            broken.extend(name);
            continue;
        };
        let name = meter.name.clone();
        if meters.insert(name.clone(), meter).is_some() {
            problems.report(span, format!("the meter {name} stands twice"), "remove one of them");
        } else if meters.len() == METERS_MAX.saturating_add(1) {
            let message = format!("there are more than {METERS_MAX} meters");
            problems.report(span, message, "use dimensions for what varies");
        }
    }
    (meters, broken)
}

fn meter(
    table: &mut Table<'_>,
    name: Option<&MeterName>,
    problems: &mut Problems<'_>,
) -> Option<Meter> {
    let aggregation = aggregation(table, problems);
    let dimensions = dimensions(table, problems);
    let negative = table.flag("negative", problems);
    let deduplicate =
        one_of(table, "deduplicate", &Deduplicate::ALL, Deduplicate::name, problems).flatten();
    let unit = label(table, "unit", problems);
    let event = table.table("cloud_event", problems);
    let cloud_event = match (event, name) {
        (Some(event), Some(name)) => cloud_event(event, name, &dimensions, problems),
        (Some(_), None) | (None, _) => None,
    };
    Some(Meter {
        name: name?.clone(),
        aggregation: aggregation?,
        dimensions,
        negative,
        deduplicate: deduplicate.unwrap_or_default(),
        unit,
        cloud_event,
    })
}

fn aggregation(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Aggregation> {
    const KEY: &str = "aggregation";
    if table.has(KEY) {
        return one_of(table, KEY, &Aggregation::ALL, Aggregation::name, problems).flatten();
    }
    // Says that it is missing.
    table.required_text(KEY, "sum", problems).map(|_| Aggregation::Sum)
}

/// One of a few names; `None`: it is wrong; `Some(None)`: it is not there.
fn one_of<T: Copy>(
    table: &mut Table<'_>,
    key: &'static str,
    all: &[T],
    name: fn(T) -> &'static str,
    problems: &mut Problems<'_>,
) -> Option<Option<T>> {
    let Some(text) = table.text(key, problems) else { return Some(None) };
    let found = all.iter().copied().find(|one| name(*one) == text.value);
    if found.is_none() {
        let names = || all.iter().copied().map(name);
        let remedy = match closest(&text.value, names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("write one of {}", names().collect::<Vec<_>>().join(", ")),
        };
        problems.report(text.span, format!("{:?} is no {key}", text.value), remedy);
    }
    found.map(Some)
}

fn dimensions(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<String> {
    let listed = table.texts("dimensions", problems);
    if let Some(extra) = listed.get(DIMENSIONS_MAX) {
        let message = format!("the meter lists {} dimensions", listed.len());
        problems.report(extra.span.clone(), message, format!("keep at most {DIMENSIONS_MAX}"));
    }
    let mut names = Vec::new();
    for name in listed {
        if let Err(error) = check_dimension_name(&name.value) {
            let message = format!("the dimension {:?} {error}", name.value);
            problems.report(name.span, message, "write 1 to 64 bytes of printable text");
        } else if names.contains(&name.value) {
            problems.report(
                name.span,
                format!("the dimension {:?} stands twice", name.value),
                "remove one of them",
            );
        } else {
            names.push(name.value);
        }
    }
    names.sort();
    names
}

fn cloud_event(
    mut table: Table<'_>,
    meter: &MeterName,
    dimensions: &[String],
    problems: &mut Problems<'_>,
) -> Option<CloudEvent> {
    let event_type = table.required_text("type", "com.example.api.called", problems);
    let quantity = path(table.text("quantity", problems), problems);
    let unique = path(table.text("unique", problems), problems);
    let mut paths = Vec::new();
    if let Some(mut listed) = table.table("dimensions", problems) {
        for name in listed.names() {
            let Some(path) = path(listed.text_named(&name.value, problems), problems) else {
                continue;
            };
            if dimensions.contains(&name.value) {
                paths.push(DimensionPath { name: name.value, path });
            } else {
                let message =
                    format!("the meter {meter} does not keep the dimension {:?}", name.value);
                problems.report(name.span, message, "list it in the meter's `dimensions`");
            }
        }
        listed.finish(problems);
    }
    table.finish(problems);
    let event_type = bounded(event_type?, "type", problems)?;
    let meter = CloudEventMeter { meter: meter.clone(), quantity, unique, dimensions: paths };
    Some(CloudEvent { event_type, meter })
}

/// Dotted names from the CloudEvent's root.
fn path(text: Option<Located<String>>, problems: &mut Problems<'_>) -> Option<String> {
    let text = text?;
    let sound = text.value.len() <= TEXT_BYTES_MAX
        && text
            .value
            .split('.')
            .all(|name| !name.is_empty() && !name.chars().any(char::is_control));
    if !sound {
        let message = format!("{:?} is no path into a CloudEvent", text.value);
        problems.report(
            text.span,
            message,
            "write dotted names from the event's root, such as \"data.tokens\"",
        );
        return None;
    }
    Some(text.value)
}

fn known_meter(
    text: &Located<String>,
    meters: &BTreeMap<MeterName, Meter>,
    broken: &BTreeSet<MeterName>,
    problems: &mut Problems<'_>,
) -> Option<MeterName> {
    let name = meter_name(text, problems)?;
    // A broken meter was reported where it stands; its price need not be.
    if meters.contains_key(&name) || broken.contains(&name) {
        return Some(name);
    }
    let remedy = match closest(&text.value, meters.keys().map(MeterName::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "add a [[meter]] with that name".to_owned(),
    };
    problems.report(text.span.clone(), format!("there is no meter {:?}", text.value), remedy);
    None
}

fn meter_name(text: &Located<String>, problems: &mut Problems<'_>) -> Option<MeterName> {
    let remedy = "write 1 to 64 of a-z, 0-9, `_`, `.` and `-`, beginning with a letter";
    match MeterName::parse(&text.value) {
        Ok(name) => Some(name),
        Err(error) => {
            problems.report(
                text.span.clone(),
                format!("the meter's name {:?} {error}", text.value),
                remedy,
            );
            None
        }
    }
}

/// A text for people.
fn label(table: &mut Table<'_>, key: &'static str, problems: &mut Problems<'_>) -> Option<String> {
    bounded(table.text(key, problems)?, key, problems)
}

fn bounded(text: Located<String>, key: &str, problems: &mut Problems<'_>) -> Option<String> {
    let sound = !text.value.is_empty()
        && text.value.len() <= TEXT_BYTES_MAX
        && !text.value.chars().any(char::is_control);
    if sound {
        return Some(text.value);
    }
    let remedy = format!("write 1 to {TEXT_BYTES_MAX} bytes of printable text");
    problems.report(text.span, format!("`{key}` is empty, too long or not printable"), remedy);
    None
}

fn parsed<T, E: Display>(
    text: &Located<String>,
    parse: impl FnOnce(&str) -> Result<T, E>,
    remedy: &str,
    problems: &mut Problems<'_>,
) -> Option<T> {
    match parse(&text.value) {
        Ok(value) => Some(value),
        Err(error) => {
            let shown = error.to_string();
            let quoted = format!("{:?}", text.value);
            // Some errors name the text themselves, others only say what is wrong with it.
            let message =
                if shown.starts_with(&quoted) { shown } else { format!("{quoted} {shown}") };
            problems.report(text.span.clone(), message, remedy);
            None
        }
    }
}

fn check_rules_fit(catalog: &Catalog, problems: &mut Problems<'_>) {
    let bytes_max = CONTROL_BYTES_MAX.saturating_sub(WELCOME_BYTES);
    let fits = encode_rules(&catalog.rules_content()).is_ok_and(|bytes| bytes.len() <= bytes_max);
    if !fits {
        let message = format!("the rules that agents are sent take more than {bytes_max} bytes");
        problems.report(0..0, message, "use fewer meters, or shorter names and paths");
    }
}
