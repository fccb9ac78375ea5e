//! Invoices that a running product issues, beside what the second rater makes of the same catalogue and usage.
//!
//! Runs follow each other, so that what was charged in advance is charged once, and credit of one run is used by the
//! next. No usage comes between them: there are no corrections. The proof of each document is verified as well.
//!
//! **Owns** which sections a document has, what was charged before, and credit. **Does not own** amounts and taxes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use num_bigint::BigInt;
use serde_json::Value;
use tidemark_collector::verify::{Keys, Refusal, verify_invoice};

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
    let arguments = [&arguments[..], &more].concat();
    let (mut code, mut text) = stack.command(Program::Collector, &arguments)?;
    if code == Some(1) {
        waive_all(stack, &text)?;
        let kept = text;
        (code, text) = stack.command(Program::Collector, &arguments)?;
        let before = kept.lines().filter(|line| line.contains(r#""outcome":"issued""#));
        text.extend(before.map(|line| format!("{line}\n")));
    }
    ensure!(code == Some(0), "bill exits with {code:?}: {text}");
    let keys = stack.api().get("/.well-known/tidemark-keys")?;
    ensure!(keys.status == 200, "{} {}", keys.status, keys.body);
    let keys = keys.body;
    let keys = Keys::read(keys.as_bytes()).map_err(refused)?;
    let mut documents = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line)?;
        let Some(customer) = line["customer"].as_str() else { continue };
        if line["outcome"] == "nothing_due" || line["outcome"] == "issued_before" {
            continue;
        }
        let number = line["number"].as_str().with_context(|| format!("no number: {line}"))?;
        let answer = stack.api().get(&format!("/v1/invoices/{number}/document"))?;
        ensure!(answer.status == 200, "{number}: {} {}", answer.status, answer.body);
        verify(stack, &keys, number)?;
        documents.insert(customer.to_owned(), answer.json()?);
    }
    Ok(documents)
}

/// Waives by name each finding that keeps somebody back: what has no price, as random plans have it.
fn waive_all(stack: &Stack, told: &str) -> Result<()> {
    for line in told.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line)?;
        for finding in line["findings"].as_array().into_iter().flatten() {
            let asked = serde_json::json!({
                "finding": finding["id"], "events_max": finding["events"], "actor": "test", "reason": "it is free",
            });
            let mut socket = UnixStream::connect(stack.path("ledger").join("control.sock"))?;
            socket.write_all(format!("waive 1 {asked}\n").as_bytes())?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            ensure!(answer.contains("entry"), "{asked}: {answer}");
        }
    }
    Ok(())
}

/// The document's proof holds, from its usage to its total.
fn verify(stack: &Stack, keys: &Keys, number: &str) -> Result<()> {
    let answer = stack.api().get(&format!("/v1/invoices/{number}/proof"))?;
    ensure!(answer.status == 200, "{number}: {} {}", answer.status, answer.body);
    let verified = verify_invoice(answer.body.as_bytes(), Some(keys));
    verified.map(drop).map_err(refused).with_context(|| format!("{number}: {}", answer.body))
}

fn refused(refusal: Refusal) -> anyhow::Error {
    anyhow::Error::msg(refusal.to_string())
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
