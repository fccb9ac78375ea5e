//! Invoices that a running product issues, beside what the second rater makes of the same catalogue and usage.
//!
//! Runs follow each other, so that what was charged in advance is charged once, and credit of one run is used by the
//! next. No usage comes between them: there are no corrections.
//!
//! **Owns** which sections a document has, what was charged before, and credit. **Does not own** amounts and taxes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use num_bigint::BigInt;
use serde_json::Value;

use super::{difference, minute, place, send, settings, shown_place};
use crate::binaries::Program;
use crate::rated_twice::Lined;
use crate::second_rater::calendar::{day, instant};
use crate::second_rater::customer::{Line, What};
use crate::second_rater::document::{check, minor};
use crate::second_rater::random::books::{Books, Customer};
use crate::second_rater::written;
use crate::stack::Stack;

/// What both agreed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreed {
    pub invoices: usize,
    pub credit_notes: usize,
    pub credit_used: usize,
    pub lines: usize,
    pub nothing_due: usize,
}

/// What a customer was charged, by line, and its credit.
#[derive(Debug, Default)]
struct Account {
    charged: BTreeMap<String, BigInt>,
    credit: BigInt,
}

/// Lines of a document: the section's kind, where the line stands, and its tax.
type Lines = BTreeMap<(String, String, Option<String>), BigInt>;

/// Bills `customers` random customers by one run for each of `dates`.
///
/// # Errors
/// When a program fails, or for the first document that is otherwise.
pub fn run(seed: u64, customers: usize, dates: Vec<u32>) -> Result<Agreed> {
    let books = Books::new(seed, customers, dates);
    let mut agreed = Agreed::default();
    let mut accounts: Vec<Account> = books.customers.iter().map(|_| Account::default()).collect();
    Stack::run(settings(&books)?, |stack| {
        send(stack, &books)?;
        for date in &books.instants {
            let documents = issue(stack, *date)?;
            for (customer, account) in books.customers.iter().zip(&mut accounts) {
                let document = documents.get(&customer.id);
                judge(&books, customer, account, *date, document, &mut agreed).with_context(
                    || {
                        format!(
                            "seed {seed}, customers {customers}: {} of {}\n{}\n{:#?}\n{}",
                            customer.id,
                            day(*date),
                            books.catalogue_of(&[customer]),
                            customer.events,
                            document.map_or_else(String::new, |document| format!("{document:#}"))
                        )
                    },
                )?;
            }
        }
        Ok(())
    })?;
    Ok(agreed)
}

/// Runs the month's end, and reads each document that it issued, by customer.
fn issue(stack: &Stack, date: u32) -> Result<BTreeMap<String, Value>> {
    let day = day(date);
    let arguments = ["bill", "--config", "collector.toml", "--period-end", &day, "--json", "--old"];
    let more = ["--although-incomplete", "the agent goes on"];
    let (code, text) = stack.command(Program::Collector, &[&arguments[..], &more].concat())?;
    ensure!(code == Some(0), "bill exits with {code:?}: {text}");
    let mut documents = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line)?;
        let Some(customer) = line["customer"].as_str() else { continue };
        if line["outcome"] == "nothing_due" {
            continue;
        }
        let number = line["number"].as_str().with_context(|| format!("no number: {line}"))?;
        let answer = stack.api().get(&format!("/v1/invoices/{number}/document"))?;
        ensure!(answer.status == 200, "{number}: {} {}", answer.status, answer.body);
        documents.insert(customer.to_owned(), answer.json()?);
    }
    Ok(documents)
}

fn judge(
    books: &Books,
    customer: &Customer,
    account: &mut Account,
    date: u32,
    document: Option<&Value>,
    agreed: &mut Agreed,
) -> Result<()> {
    let expected = expected(books, customer, account, date);
    let Some(document) = document else {
        let due = expected.values().any(|amount| *amount != BigInt::ZERO);
        ensure!(!due, "no document, and not {expected:#?}");
        agreed.nothing_due += 1;
        return Ok(());
    };
    let places = customer.places;
    let credit_note = document["kind"] == "credit_note";
    let found = found(document, places, credit_note)?;
    let (shown, wanted) = (lined(&found, places), lined(&expected, places));
    ensure!(shown == wanted, "{}", difference(&shown, &wanted));
    check(document, &books.taxation(customer), places).map_err(anyhow::Error::msg)?;

    let total = minor(&document["total"], places).map_err(anyhow::Error::msg)?;
    let applied = minor(&document["credit_applied"], places).map_err(anyhow::Error::msg)?;
    if credit_note {
        agreed.credit_notes += 1;
        account.credit += &total;
    } else {
        let usable = account.credit.clone().min(total);
        ensure!(applied == usable, "{applied} of credit applied, not {usable}");
        account.credit -= &applied;
        agreed.invoices += 1;
        agreed.credit_used += usize::from(applied != BigInt::ZERO);
    }
    agreed.lines += found.len();
    Ok(())
}

/// The sections of the periods that end and begin, less what was charged before.
fn expected(books: &Books, customer: &Customer, account: &mut Account, date: u32) -> Lines {
    let ends = |line: &Line| line.span.end == date;
    let begins = |line: &Line| {
        line.span.start == date && matches!(line.what, What::Fee { advance: true, .. })
    };
    let taxation = books.taxation(customer);
    let mut lines = Lines::new();
    let ending: Vec<Line> = books.bill(customer, date - 1).into_iter().filter(ends).collect();
    let beginning: Vec<Line> = books.bill(customer, date).into_iter().filter(begins).collect();
    for (kind, of_kind) in [("period", ending), ("advance", beginning)] {
        for line in taxation.taxed(&of_kind) {
            // A share of a discount does not say of which part it is.
            let part = if line.what == What::Discount {
                let span = line.span;
                format!("{} {} discount", line.plan, &instant(span.start)[..16])
            } else {
                place(&line)
            };
            let charged = account.charged.entry(format!("{part} {:?}", line.tax)).or_default();
            let key = (kind.to_owned(), part, line.tax);
            *lines.entry(key).or_default() += &line.amount - &*charged;
            if kind == "advance" {
                *charged = line.amount;
            }
        }
    }
    lines
}

fn found(document: &Value, places: u32, credit_note: bool) -> Result<Lines> {
    let mut lines = Lines::new();
    for section in document["sections"].as_array().context("no sections")? {
        let kind = section["kind"].as_str().context("no kind")?;
        let plan = section["plan"].as_str().context("no plan")?;
        let (start, end) = (minute(&section["start"])?, minute(&section["end"])?);
        for line in section["lines"].as_array().context("no lines")? {
            let description = line["description"].as_str().context("no description")?;
            let part = if description.starts_with("Discount") {
                format!("{plan} {start} discount")
            } else {
                format!("{plan} {start}..{end} {}", shown_place(&line["rated"], start, end)?)
            };
            let amount = minor(&line["amount"], places).map_err(anyhow::Error::msg)?;
            let tax = line["tax"].as_str().map(str::to_owned);
            let amount = if credit_note { -amount } else { amount };
            *lines.entry((kind.to_owned(), part, tax)).or_default() += amount;
        }
    }
    Ok(lines)
}

/// A credit note's amounts are what is taken back; here both are what is charged.
fn lined(lines: &Lines, places: u32) -> Lined {
    let text = |((kind, part, tax), amount): (&(String, String, Option<String>), &BigInt)| {
        (format!("{kind} {part} {tax:?}"), written(amount, places))
    };
    lines.iter().map(text).collect()
}
