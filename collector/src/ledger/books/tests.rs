//! What changes do to the rows, what is refused, and that a check finds each row that was edited.

use std::collections::BTreeMap;

use super::check::BooksCheck;
use super::rows::{Effect, InvoicedLine, PeriodChange};
use super::*;
use crate::invoice::{DocumentKind, PartyShown};
use crate::ledger::check::Findings;
use crate::ledger::entry::Account;

const NOON: Timestamp = Timestamp(1_780_315_200_000);

/// Rows in memory.
#[derive(Debug, Clone, Default)]
struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl BookRows for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(key);
        Ok(())
    }
}

impl Memory {
    /// What was found, a line each.
    fn findings(&self) -> Vec<String> {
        let (mut check, mut findings) = (BooksCheck::default(), Findings::default());
        for (key, value) in &self.0 {
            check.row(key, value, &mut findings);
        }
        let _counts = check.finish(&mut findings);
        findings.iter().map(|finding| finding.what.clone()).collect()
    }

    fn version(&self, customer: &str) -> u64 {
        customer_row(self, &CustomerId::parse(customer).unwrap()).unwrap().version
    }
}

fn eur(minor: i128) -> Money {
    Money { minor, currency: Currency::parse("EUR").unwrap() }
}

fn party(id: &str) -> PartyShown {
    PartyShown { id: id.to_owned(), name: None, address: Vec::new(), tax_id: None, email: None }
}

/// An invoice of one line, for the run of 1 June.
fn issue(rows: &Memory, customer: &str, minor: i128) -> What {
    let id = CustomerId::parse(customer).unwrap();
    let document = Document {
        kind: DocumentKind::Invoice,
        number: None,
        date: None,
        due_date: None,
        issued_at: None,
        seller: party("main"),
        customer: party(customer),
        currency: "EUR".to_owned(),
        period_end: Some("2026-06-01".to_owned()),
        credits: None,
        reason: None,
        sections: Vec::new(),
        subtotal: eur(minor).amount(),
        taxes: Vec::new(),
        total: eur(minor).amount(),
        credit_applied: "0.00".to_owned(),
        amount_due: eur(minor).amount(),
        notes: Vec::new(),
        cut: None,
    };
    let line = InvoicedLine {
        key: "fee/Base@0".to_owned(),
        description: "Base".to_owned(),
        product: "Base".to_owned(),
        tax: None,
        amount: Minor(minor),
        deferred: Minor(0),
    };
    let period = PeriodChange {
        plan: "p".to_owned(),
        start: 0,
        end: 96,
        scope: rows::Scope::Whole,
        scope_before: None,
        lines: vec![line],
    };
    let revenue = Account::Revenue { product: "Base".to_owned() };
    What::Issue(Box::new(Issue {
        version: rows.version(customer),
        paper: Paper::Document,
        customer: id,
        series: Series { prefix: "INV".to_owned(), fiscal_year_start: 4, zone: Zone::utc() },
        due_days: 14,
        document,
        total: eur(minor),
        credit_applied: eur(0),
        due: eur(minor),
        postings: Postings::new([
            (Account::Receivable, eur(minor)),
            (revenue, eur(minor).negated()),
        ])
        .unwrap(),
        effect: Effect {
            run: Some("2026-06-01".to_owned()),
            credit: Minor(0),
            periods: vec![period],
            plans: Vec::new(),
            taxes: Vec::new(),
            settles: None,
        },
        proof: None,
    }))
}

fn pay(number: &str, minor: i128) -> What {
    What::Pay { number: number.to_owned(), amount: eur(minor), reference: None }
}

fn void(number: &str) -> What {
    What::Void { number: number.to_owned() }
}

fn change(what: What) -> Change {
    Change { actor: "ann".to_owned(), reason: None, date: None, request: None, what }
}

/// Books it -> `entry document`, or why not; nothing is written then. The rows hold together after it.
fn check(rows: &mut Memory, what: What, expected: &str) {
    check_change(rows, &change(what), expected);
}

fn check_change(rows: &mut Memory, change: &Change, expected: &str) {
    let before = rows.clone();
    let told = match book(rows, change, NOON).unwrap() {
        Ok(booked) => format!("{} {}", booked.entry, booked.document.unwrap_or_default()),
        Err(refused) => {
            assert_eq!(before.0, rows.0, "what is refused writes nothing");
            refused.to_string()
        }
    };
    assert_eq!(told, expected);
    assert_eq!(rows.findings(), Vec::<String>::new());
}

#[test]
fn numbers_have_no_holes_and_the_fiscal_year_begins_in_april() {
    let mut rows = Memory::default();
    let stale = issue(&rows, "a", 500);
    let (first, second) = (issue(&rows, "a", 500), issue(&rows, "b", 700));
    check(&mut rows, first, "1 INV2026-000001");
    check(&mut rows, stale, "the billing run of that date has issued INV2026-000001 already");
    check(&mut rows, second, "2 INV2026-000002");
    let march =
        Change { date: Some(Day::parse("2026-03-31").unwrap()), ..change(issue(&rows, "c", 1)) };
    check_change(&mut rows, &march, "3 INV2025-000001");
    let mut overtaken = issue(&rows, "d", 1);
    let What::Issue(issue) = &mut overtaken else { unreachable!() };
    issue.version = 1;
    check(&mut rows, overtaken, "something else was booked for the customer meanwhile");
}

#[test]
fn payments_are_applied_and_the_rest_is_credit() {
    let mut rows = Memory::default();
    let first = issue(&rows, "a", 500);
    check(&mut rows, first, "1 INV2026-000001");
    check(&mut rows, pay("INV2026-000001", 200), "2 INV2026-000001");
    check(
        &mut rows,
        void("INV2026-000001"),
        "INV2026-000001 has payments or credit notes, so it cannot be void; write a credit note",
    );
    check(&mut rows, pay("INV2026-000001", 400), "3 INV2026-000001");
    check(&mut rows, pay("INV2026-000001", 1), "INV2026-000001 is paid, so it cannot be paid");
    let held = customer_row(&rows, &CustomerId::parse("a").unwrap()).unwrap();
    assert_eq!((held.version, held.credit_in(eur(0).currency)), (3, eur(100)));
    check(&mut rows, pay("INV2026-000009", 1), "there is no document \"INV2026-000009\"");
    check(&mut rows, pay("INV2026-000001", 0), "INV2026-000001 is paid, so it cannot be paid");
}

#[test]
fn a_void_invoice_takes_all_back_but_its_number() {
    let mut rows = Memory::default();
    let first = issue(&rows, "a", 500);
    check(&mut rows, first, "1 INV2026-000001");
    check(&mut rows, void("INV2026-000001"), "2 INV2026-000001");
    check(&mut rows, void("INV2026-000001"), "INV2026-000001 is void, so it cannot be void");
    assert!(!rows.0.keys().any(|key| key.starts_with(rows::PERIODS)), "nothing is invoiced");
    let again = issue(&rows, "a", 600);
    check(&mut rows, again, "3 INV2026-000002");
}

#[test]
fn what_is_written_off_is_not_due() {
    let mut rows = Memory::default();
    let first = issue(&rows, "a", 500);
    check(&mut rows, first, "1 INV2026-000001");
    let write_off = || What::WriteOff { number: "INV2026-000001".to_owned() };
    check(&mut rows, write_off(), "2 INV2026-000001");
    check(&mut rows, write_off(), "INV2026-000001 is uncollectible, so it cannot be written off");
    check(
        &mut rows,
        pay("INV2026-000001", 1),
        "INV2026-000001 is uncollectible, so it cannot be paid",
    );
}

#[test]
fn a_request_is_booked_once() {
    let mut rows = Memory::default();
    let first = issue(&rows, "a", 500);
    check(&mut rows, first, "1 INV2026-000001");
    let keyed = |asked: u8, minor| Change {
        request: Some(RequestKey { key: "k".to_owned(), asked: [asked; 32] }),
        ..change(pay("INV2026-000001", minor))
    };
    check_change(&mut rows, &keyed(1, 100), "2 INV2026-000001");
    let before = rows.clone();
    check_change(&mut rows, &keyed(1, 100), "2 INV2026-000001");
    assert_eq!(before.0, rows.0);
    check_change(&mut rows, &keyed(2, 200), "the idempotency key was used for another request");
}

#[test]
fn locked_months_take_no_entries() {
    let mut rows = Memory::default();
    let lock = |month: &str| What::Lock { through: Month::parse(month).unwrap() };
    check(&mut rows, lock("2026-06"), "2026-06 is not over yet");
    check(&mut rows, lock("2026-05"), "1 ");
    check(&mut rows, lock("2026-04"), "months up to 2026-05 are locked already");
    let dated = |date: &str| Change {
        date: Some(Day::parse(date).unwrap()),
        ..change(issue(&Memory::default(), "a", 500))
    };
    check_change(&mut rows, &dated("2026-05-31"), "2026-05 is locked");
    check_change(&mut rows, &dated("2026-06-01"), "2 INV2026-000001");
}

/// One edit of a row's text -> what is found.
fn check_edit(kind: &[u8], from: &str, to: &str, expected: &str) {
    let mut rows = Memory::default();
    let first = issue(&rows, "a", 500);
    check(&mut rows, first, "1 INV2026-000001");
    check(&mut rows, pay("INV2026-000001", 600), "2 INV2026-000001");
    let row = rows.0.iter_mut().find(|(key, _)| key.starts_with(kind)).unwrap();
    let text = String::from_utf8(row.1.clone()).unwrap();
    assert!(text.contains(from), "{text}");
    *row.1 = text.replace(from, to).into_bytes();
    let found = rows.findings();
    assert!(found.iter().any(|what| what.contains(expected)), "{found:?}");
}

#[test]
fn each_edit_behind_the_ledgers_back_is_found() {
    check_edit(rows::ENTRIES, "ann", "bob", "entry 2 does not continue the digest");
    check_edit(rows::ENTRIES, "\"5.00\"", "\"5.01\"", "come to nothing");
    check_edit(rows::DOCUMENTS, "5.00", "4.00", "is not the one that was issued");
    check_edit(rows::HEAD, "2", "3", "the head tells of");
    check_edit(rows::SERIES, "1", "2", "gave 2 numbers, and 1 are used");
    check_edit(
        rows::STATES,
        "\"due\":\"0\"",
        "\"due\":\"1\"",
        "1 minor units are due, by the entries 0",
    );
    check_edit(rows::STATES, "\"paid\":\"500\"", "\"paid\":\"400\"", "do not come to its total");
    check_edit(rows::CUSTOMERS, "100", "200", "the credit of \"a\" is not what entries come to");
    check_edit(rows::PERIODS, "\"500\"", "\"600\"", "invoiced by 100 minor units more");
    check_edit(rows::EFFECTS, "\"500\"", "\"600\"", "invoiced by -100 minor units more");
    check_edit(rows::RUNS, "\"", "", "row 72");
}
