//! Documents: issued with a number, or made void.
//!
//! **Owns** what issuing and voiding ask for and write. **Does not own** amounts (`invoice/draft.rs`), or the entry's place in
//! the chain (`ledger/books.rs`).

use tidemark_common::hex;
use tidemark_common::id::CustomerId;
use tidemark_common::time::Timestamp;

use super::rows::{
    self, CustomerRow, DocumentState, Effect, InvoicedLine, Minor, PeriodChange, PeriodRow,
    Settles, StateRow, UsedPlan, UsedTax,
};
use super::{
    BookRows, Change, Draft, Failed, Issue, Paper, Plan, Put, Refused, Series, add_credit,
    currency_of, customer_of, customer_row, customer_row_key, day_or, entry_of, lower_due, missing,
    plus, read, sha256, state_key, state_of, zone_of,
};
use crate::billing::shown::LineShown;
use crate::invoice::{Document, DocumentKind};
use crate::ledger::entry::EntryKind;
use crate::period::Day;

/// A document's number has at most so many characters: rule 46 of India's CGST rules.
const NUMBER_CHARACTERS_MAX: usize = 16;

pub(super) fn judge_issue(
    rows: &dyn BookRows,
    change: &Change,
    issue: &Issue,
    entry: u64,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let Issue { customer, series, document, effect, .. } = issue;
    let run = effect.run.as_ref();
    let run = run.map(|date| rows::customer_key(rows::RUNS, customer, date.as_bytes()));
    if let Some(number) = run.as_ref().map(|key| read::<String>(rows, key)).transpose()?.flatten() {
        return Err(Refused::AlreadyIssued { number }.into());
    }
    let mut held = customer_row(rows, customer)?;
    if held.version != issue.version {
        return Err(Refused::Stale.into());
    }
    let date = day_or(change, &series.zone, at)?;
    if issue.paper == Paper::NothingDue {
        return nothing_due(rows, issue, held, run, date);
    }
    let mut puts = Vec::new();
    let number = draw_number(rows, series, date, &mut puts)?;
    let mut document = document.clone();
    document.number = Some(number.clone());
    document.date = Some(date.to_string());
    document.due_date = Some(date.plus_days(issue.due_days).to_string());
    document.issued_at = Some(series.zone.rfc3339(at));
    let stored = rows::write(&document);
    let sha256 = hex::encode(&sha256(&stored));
    let state = issued_state(issue, &document, &sha256, entry);
    let effect = settle_periods(rows, customer, effect, &mut puts)?;
    if let Some(Settles { number, due, total }) = &effect.settles {
        let mut state = state_of(rows, number)?;
        lower_due(&mut state, number, *due)?;
        state.credited = Minor(plus(state.credited.0, due.0)?);
        state.credit_notes = Minor(plus(state.credit_notes.0, total.0)?);
        puts.push((state_key(number), Some(rows::write(&state))));
    }
    for used in &effect.taxes {
        let key = rows::key(rows::USED_TAXES, used.name.as_bytes());
        if rows.get(&key)?.is_none() {
            let used = UsedTax { document: number.clone(), ..used.clone() };
            puts.push((key, Some(rows::write(&used))));
        }
    }
    for used in &effect.plans {
        if rows.get(&used.key())?.is_none() {
            let used = UsedPlan { document: number.clone(), ..used.clone() };
            puts.push((used.key(), Some(rows::write(&used))));
        }
    }
    add_credit(&mut held, issue.total.currency, effect.credit)?;
    puts.push((customer_row_key(customer), Some(rows::write(&held))));
    puts.extend(run.map(|key| (key, Some(rows::write(&number)))));
    puts.push((rows::key(rows::DOCUMENTS, number.as_bytes()), Some(stored)));
    if let Some(proof) = &issue.proof {
        puts.push((rows::key(rows::PROOFS, number.as_bytes()), Some(proof.clone())));
    }
    puts.push((state_key(&number), Some(rows::write(&state))));
    puts.push((rows::key(rows::EFFECTS, number.as_bytes()), Some(rows::write(&effect))));
    puts.push((
        rows::customer_key(rows::BY_CUSTOMER, customer, number.as_bytes()),
        Some(Vec::new()),
    ));
    let entry = Draft {
        kind: EntryKind::Issue,
        customer: Some(customer.as_str().to_owned()),
        document_sha256: Some(sha256),
        subject: effect.settles.map(|settles| settles.number),
        postings: issue.postings.clone(),
        date,
    };
    Ok(Plan { entry, puts, document: Some(number) })
}

/// Periods of which nothing is due: what comes to them later is a correction.
fn nothing_due(
    rows: &dyn BookRows,
    issue: &Issue,
    mut held: CustomerRow,
    run: Option<Vec<u8>>,
    date: Day,
) -> Result<Plan, Failed> {
    let mut puts = Vec::new();
    let effect = settle_periods(rows, &issue.customer, &issue.effect, &mut puts)?;
    held.version = held.version.saturating_add(1);
    puts.push((customer_row_key(&issue.customer), Some(rows::write(&held))));
    puts.extend(run.map(|key| (key, Some(rows::write(&String::new())))));
    let entry = Draft {
        kind: EntryKind::NothingDue,
        customer: Some(issue.customer.as_str().to_owned()),
        document_sha256: None,
        subject: effect.run,
        postings: issue.postings.clone(),
        date,
    };
    Ok(Plan { entry, puts, document: None })
}

/// The state of a document that has its number and dates, and is issued by `entry`.
fn issued_state(
    issue: &Issue,
    document: &Document<LineShown>,
    sha256: &str,
    entry: u64,
) -> StateRow {
    let is_settled = issue.due.minor == 0;
    StateRow {
        customer: issue.customer.as_str().to_owned(),
        kind: document.kind,
        state: if is_settled { DocumentState::Paid } else { DocumentState::Issued },
        currency: document.currency.clone(),
        time_zone: issue.series.zone.name().to_owned(),
        date: document.date.clone().unwrap_or_default(),
        due_date: document.due_date.clone().unwrap_or_default(),
        period_end: document.period_end.clone(),
        total: Minor(issue.total.minor),
        credit_applied: Minor(issue.credit_applied.minor),
        due: Minor(issue.due.minor),
        paid: Minor(0),
        credited: Minor(0),
        credit_notes: Minor(0),
        written_off: Minor(0),
        entry,
        sha256: sha256.to_owned(),
    }
}

/// The next number of a series.
fn draw_number(
    rows: &dyn BookRows,
    series: &Series,
    date: Day,
    puts: &mut Vec<Put>,
) -> Result<String, Failed> {
    let year = date.fiscal_year(series.fiscal_year_start);
    let name = format!("{}{year}", series.prefix);
    let key = rows::key(rows::SERIES, name.as_bytes());
    let last = read::<u64>(rows, &key)?.unwrap_or(0);
    let next = last.checked_add(1).expect("a series never holds 2^64 documents");
    puts.push((key, Some(rows::write(&next))));
    let number = format!("{name}-{next:06}");
    if number.len() > NUMBER_CHARACTERS_MAX {
        return Err(Refused::SeriesFull { series: name }.into());
    }
    Ok(number)
}

/// Adds what comes to each period; the effect, with what each was before.
fn settle_periods(
    rows: &dyn BookRows,
    customer: &CustomerId,
    effect: &Effect,
    puts: &mut Vec<Put>,
) -> Result<Effect, Failed> {
    let mut effect = effect.clone();
    for change in &mut effect.periods {
        let key = rows::period_key(customer, &change.plan, change.period());
        let held = read::<PeriodRow>(rows, &key)?;
        change.scope_before = held.as_ref().map(|held| held.scope);
        let lines = held.map(|held| held.lines).unwrap_or_default();
        let lines = add_lines(lines, &change.lines, Sign::Plus)?;
        puts.push((key, Some(rows::write(&period_row(change, change.scope, lines)))));
    }
    Ok(effect)
}

fn period_row(change: &PeriodChange, scope: rows::Scope, lines: Vec<InvoicedLine>) -> PeriodRow {
    let PeriodChange { plan, start, end, .. } = change;
    PeriodRow { plan: plan.clone(), start: *start, end: *end, scope, lines }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

fn add_lines(
    mut held: Vec<InvoicedLine>,
    change: &[InvoicedLine],
    sign: Sign,
) -> Result<Vec<InvoicedLine>, Failed> {
    let signed = |Minor(minor): Minor| match sign {
        Sign::Plus => minor,
        Sign::Minus => minor.saturating_neg(),
    };
    for line in change {
        let (amount, deferred) = (signed(line.amount), signed(line.deferred));
        match held.iter_mut().find(|held| held.key == line.key) {
            Some(held) => {
                held.amount = Minor(plus(held.amount.0, amount)?);
                held.deferred = Minor(plus(held.deferred.0, deferred)?);
            }
            None => held.push(InvoicedLine {
                amount: Minor(amount),
                deferred: Minor(deferred),
                ..line.clone()
            }),
        }
    }
    held.retain(|line| line.amount != Minor(0) || line.deferred != Minor(0));
    Ok(held)
}

pub(super) fn judge_void(
    rows: &dyn BookRows,
    change: &Change,
    number: &str,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut state = state_of(rows, number)?;
    let refused = |state: &StateRow| Refused::State {
        number: number.to_owned(),
        state: state.state.name(),
        act: "void",
    };
    if state.kind != DocumentKind::Invoice {
        return Err(Refused::State {
            number: number.to_owned(),
            state: "a credit note",
            act: "void",
        }
        .into());
    }
    match state.state {
        DocumentState::Issued | DocumentState::PartlyPaid | DocumentState::Paid => {}
        DocumentState::Void | DocumentState::Uncollectible => return Err(refused(&state).into()),
    }
    if state.paid != Minor(0) || state.credit_notes != Minor(0) {
        return Err(Refused::Settled { number: number.to_owned() }.into());
    }
    let customer = customer_of(&state)?;
    let mut held = customer_row(rows, &customer)?;
    let effect = read::<Effect>(rows, &rows::key(rows::EFFECTS, number.as_bytes()))?;
    let effect = effect.ok_or_else(|| missing("effect", number))?;
    let mut puts = Vec::new();
    for period in &effect.periods {
        let key = rows::period_key(&customer, &period.plan, period.period());
        let held = read::<PeriodRow>(rows, &key)?;
        let scope = held.as_ref().map_or(period.scope, |held| held.scope);
        let lines = held.map(|held| held.lines).unwrap_or_default();
        let lines = add_lines(lines, &period.lines, Sign::Minus)?;
        // Later documents may have charged more of it than this one: then what is missing now is a correction.
        let row = match period.scope_before {
            None if lines.is_empty() => None,
            _ => Some(rows::write(&period_row(period, scope, lines))),
        };
        puts.push((key, row));
    }
    if let Some(run) = &effect.run {
        puts.push((rows::customer_key(rows::RUNS, &customer, run.as_bytes()), None));
    }
    let currency = currency_of(&state)?;
    add_credit(&mut held, currency, Minor(effect.credit.0.saturating_neg()))?;
    puts.push((customer_row_key(&customer), Some(rows::write(&held))));
    let issued = entry_of(rows, state.entry)?;
    state.state = DocumentState::Void;
    state.due = Minor(0);
    puts.push((state_key(number), Some(rows::write(&state))));
    let entry = Draft {
        kind: EntryKind::Void,
        customer: Some(state.customer.clone()),
        document_sha256: None,
        subject: None,
        postings: issued.postings.reversed(),
        date: day_or(change, &zone_of(&state)?, at)?,
    };
    Ok(Plan { entry, puts, document: Some(number.to_owned()) })
}
