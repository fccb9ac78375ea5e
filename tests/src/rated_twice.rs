//! Bills of a running product against the second rater's, of random catalogues, customers and usage.
//!
//! All goes through the product's own doors: the catalogue is its file, usage goes through an agent, and bills are
//! those of `/v1/bills`, at several instants.
//!
//! **Owns** the comparison: every line with its plan, period, part, quantity and amount; totals; and what is unpriced.
//! **Does not own** what is right.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "whole numbers of any size, and counts of what a test makes"
)]

pub mod documents;

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use num_bigint::BigInt;
use serde_json::{Value, json};

use crate::doors::Lines;
use crate::second_rater::calendar::{first_of_month, instant};
use crate::second_rater::customer::{Line, What, unpriced};
use crate::second_rater::document::minor;
use crate::second_rater::random::books::{Books, Customer};
use crate::second_rater::{exact, written};
use crate::settings::{Ports, Settings};
use crate::stack::Stack;

/// So many lines are sent before their answer is waited for.
const LINES_AT_ONCE: usize = 5_000;
/// Far more than any of the instants.
const AGE_MAX: &str = "20000d";
/// `2025-03-31T23:45` of a text in RFC 3339.
const MINUTE: usize = 16;

/// What both agreed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreed {
    pub bills: usize,
    pub lines: usize,
    pub events: usize,
}

/// Where a line stands, and what it is of.
pub type Lined = BTreeMap<String, String>;

/// Bills `customers` random customers at each of `instants`.
///
/// # Errors
/// When a program fails, or for the first customer that is billed otherwise: with its catalogue, usage and both bills.
pub fn run(seed: u64, customers: usize, instants: Vec<u32>) -> Result<Agreed> {
    let books = Books::new(seed, customers, instants);
    let mut agreed = Agreed::default();
    Stack::run(settings(&books)?, |stack| {
        agreed.events = send(stack, &books)?;
        for at in &books.instants {
            let bills = bills(stack, *at)?;
            for customer in &books.customers {
                let shown = bills.get(&customer.id);
                agreed.lines += check(&books, customer, *at, shown)
                    .with_context(|| format!("seed {seed}, customers {customers}"))?;
                agreed.bills += 1;
            }
        }
        Ok(())
    })?;
    Ok(agreed)
}

/// Both programs with the books' catalogue, and an agent that takes old usage.
///
/// # Errors
/// When no ports are free.
pub fn settings(books: &Books) -> Result<Settings> {
    Ok(Settings::new(Ports::free()?, &books.catalogue()).agent("events.age_max", AGE_MAX))
}

/// Sends all usage, and waits until it is posted.
///
/// # Errors
/// When some is refused.
pub fn send(stack: &Stack, books: &Books) -> Result<usize> {
    let mut lines = Vec::new();
    for customer in &books.customers {
        for event in &customer.events {
            let mut line = json!({
                "meter": event.meter, "customer": customer.id, "dimensions": event.dimensions,
                "time": time(event.time)?,
            });
            for (key, value) in [("quantity", &event.quantity), ("unique", &event.unique)] {
                if let Some(value) = value {
                    line[key] = value.as_str().into();
                }
            }
            lines.push(format!("{line}\n"));
        }
    }
    let mut door = Lines::to(&stack.path("events.socket"))?;
    for chunk in lines.chunks(LINES_AT_ONCE) {
        door.send(chunk.concat().as_bytes(), u64::try_from(chunk.len())?)?;
        let refusals = door.wait_durable()?;
        ensure!(
            refusals.is_empty(),
            "{} are refused, the first: {:?}",
            refusals.len(),
            refusals[0]
        );
    }
    stack.wait_posted(u64::try_from(lines.len())?)?;
    Ok(lines.len())
}

fn time(millis: i64) -> Result<String> {
    let quarter = u32::try_from(millis.div_euclid(900_000))?;
    let within = millis.rem_euclid(900_000);
    let (day, minute) = (&instant(quarter)[..14], instant(quarter)[14..16].parse::<i64>()?);
    let (minute, second, milli) = (minute + within / 60_000, within / 1_000 % 60, within % 1_000);
    Ok(format!("{day}{minute:02}:{second:02}.{milli:03}Z"))
}

fn bills(stack: &Stack, at: u32) -> Result<BTreeMap<String, Value>> {
    let answer = stack.api().get(&format!("/v1/bills?at={}", instant(at)))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    let mut bills = BTreeMap::new();
    for line in answer.body.lines() {
        let bill: Value = serde_json::from_str(line)?;
        match bill["customer"].as_str() {
            Some(customer) => bills.insert(customer.to_owned(), bill),
            None => bills.insert("end".to_owned(), bill),
        };
    }
    let end = bills.remove("end").context("the answer was cut off")?;
    ensure!(
        end["end"]["problems"] == 0,
        "{end}: {:?}",
        bills.values().find(|bill| bill["problem"] != Value::Null)
    );
    Ok(bills)
}

/// How many lines agree.
fn check(books: &Books, customer: &Customer, at: u32, shown: Option<&Value>) -> Result<usize> {
    let lines = books.bill(customer, at);
    let total: BigInt = lines.iter().map(|line| &line.amount).sum();
    let expected = expected(&lines, customer.places)?;
    let told = || {
        format!(
            "{} at {}\n{}\n{:#?}",
            customer.id,
            instant(at),
            books.catalogue_of(&[customer]),
            customer.events
        )
    };
    let Some(shown) = shown else {
        ensure!(expected.is_empty(), "no bill, and not {expected:#?} of {}", told());
        return Ok(0);
    };
    let found = found(shown, customer.places).with_context(told)?;
    ensure!(found == expected, "{}\nof {}", difference(&found, &expected), told());
    let total = written(&total, customer.places);
    ensure!(shown["total"] == total, "total {}, not {total} of {}", shown["total"], told());
    let common = common(shown)?;
    let unpriced_of = |(from, to)| unpriced(books.terms(customer), &customer.events, from, to);
    let suspended = unpriced_of(common);
    let suspense = shown["suspense"].as_array().context("no suspense")?;
    let shown_suspended: u64 = suspense.iter().filter_map(|entry| entry["events"].as_u64()).sum();
    ensure!(
        shown_suspended == suspended,
        "{shown_suspended} events unpriced, not {suspended} of {}",
        told()
    );
    Ok(found.len())
}

/// What only one of both has, or has otherwise.
#[must_use]
pub fn difference(found: &Lined, expected: &Lined) -> String {
    let only = |sign: char, some: &Lined, others: &Lined| -> String {
        some.iter()
            .filter(|(key, value)| others.get(*key) != Some(value))
            .map(|(key, value)| format!("{sign} {key}: {value}\n"))
            .collect()
    };
    format!(
        "+ is the product's, - the second rater's:\n{}{}",
        only('+', found, expected),
        only('-', expected, found)
    )
}

fn expected(lines: &[Line], places: u32) -> Result<Lined> {
    let mut lined = Lined::new();
    for line in lines {
        let quantity = line.quantity.as_ref().map(ToString::to_string);
        let value = format!("{quantity:?} {}", written(&line.amount, places));
        ensure!(lined.insert(place(line), value).is_none(), "twice: {line:?}");
    }
    Ok(lined)
}

/// Where a line of the second rater's stands.
#[must_use]
pub fn place(line: &Line) -> String {
    let minute = |at| instant(at)[..MINUTE].to_owned();
    let span = line.span;
    let what = match &line.what {
        What::Fee { name, .. } => format!("fee {name}"),
        What::Usage { meter, filter } => format!("usage {meter} {filter:?}"),
        What::Discount => "discount".to_owned(),
        What::Commitment => "commitment".to_owned(),
    };
    format!(
        "{} {}..{} {}..{}{} {what}",
        line.plan,
        minute(span.start),
        minute(span.end),
        minute(span.from),
        minute(span.to),
        if line.trial { " trial" } else { "" }
    )
}

fn found(bill: &Value, places: u32) -> Result<Lined> {
    let mut lined = Lined::new();
    for section in bill["sections"].as_array().context("no sections")? {
        let plan = section["plan"].as_str().context("no plan")?;
        let period = &section["period"];
        let (start, end) = (minute(&period["start"])?, minute(&period["end"])?);
        let mut total = BigInt::ZERO;
        for line in section["lines"].as_array().context("no lines")? {
            let amount = minor(&line["amount"], places).map_err(anyhow::Error::msg)?;
            let quantity = line["quantity"].as_str().map(|quantity| exact(quantity).to_string());
            let value = format!("{quantity:?} {}", written(&amount, places));
            let key = format!("{plan} {start}..{end} {}", shown_place(line, start, end)?);
            ensure!(lined.insert(key, value).is_none(), "twice: {line}");
            total += amount;
        }
        let total = written(&total, places);
        ensure!(
            section["total"] == total.as_str(),
            "{} of a section, not {total}",
            section["total"]
        );
    }
    Ok(lined)
}

/// Part and kind of a line of the live bill.
///
/// # Errors
/// If it is of no kind.
pub fn shown_place(line: &Value, start: &str, end: &str) -> Result<String> {
    let part = &line["part"];
    let (from, to) = match part {
        Value::Null => (start, end),
        _ => (minute(&part["from"])?, minute(&part["to"])?),
    };
    let trial = if part["trial"] == true { " trial" } else { "" };
    let what = match line["kind"].as_str().context("no kind")? {
        "fee" => format!("fee {}", line["name"].as_str().context("no name")?),
        "usage" => {
            let filter: BTreeMap<String, String> = match &line["where"] {
                Value::Null => BTreeMap::new(),
                filter => serde_json::from_value(filter.clone())?,
            };
            format!("usage {} {filter:?}", line["meter"].as_str().context("no meter")?)
        }
        kind => kind.to_owned(),
    };
    Ok(format!("{from}..{to}{trial} {what}"))
}

/// `2025-03-31T23:45` of an instant.
///
/// # Errors
/// If it is none in UTC.
pub fn minute(at: &Value) -> Result<&str> {
    let text = at.as_str().context("an instant is a text")?;
    ensure!(text.ends_with('Z') || text.ends_with("+00:00"), "{text} is not in UTC");
    text.get(..MINUTE).context("an instant has minutes")
}

/// The time that all sections have in common; none, if they have none.
fn common(bill: &Value) -> Result<(u32, u32)> {
    let (mut from, mut to) = (0, u32::MAX);
    for section in bill["sections"].as_array().context("no sections")? {
        let quarter = |at: &Value| -> Result<u32> {
            let text = minute(at)?;
            let number = |range: Range<usize>| {
                text.get(range).context("a day")?.parse::<u32>().context("a day")
            };
            ensure!(text.ends_with("T00:00"), "{text} begins no day");
            Ok(first_of_month(number(0..4)?, number(5..7)?) + (number(8..10)? - 1) * 96)
        };
        from = from.max(quarter(&section["period"]["start"])?);
        to = to.min(quarter(&section["period"]["end"])?);
    }
    Ok((from, to))
}
