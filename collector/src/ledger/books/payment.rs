//! Payments, and what is given up.
//!
//! **Owns** what both ask for and write. What is paid beyond what is due is the customer's credit.

use tidemark_common::time::Timestamp;

use super::rows::{self, DocumentState, Minor, StateRow};
use super::{
    BookRows, Change, Draft, Failed, Plan, Refused, add_credit, currency_of, customer_of,
    customer_row, customer_row_key, day_or, lower_due, plus, state_key, state_of, zone_of,
};
use crate::ledger::entry::{Account, EntryKind, Postings};
use crate::money::Money;

pub(super) fn judge_payment(
    rows: &dyn BookRows,
    change: &Change,
    number: &str,
    amount: Money,
    reference: Option<&String>,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut state = payable(rows, number, "paid")?;
    if amount.minor <= 0 {
        return Err(Refused::NoAmount.into());
    }
    let currency = currency_of(&state)?;
    if amount.currency != currency {
        let (found, currency) = (amount.currency, state.currency);
        return Err(Refused::Currency { number: number.to_owned(), found, currency }.into());
    }
    let applied = Money { minor: amount.minor.min(state.due.0), currency };
    let over = amount.checked_sub(applied)?;
    lower_due(&mut state, number, Minor(applied.minor))?;
    state.paid = Minor(plus(state.paid.0, applied.minor)?);
    let customer = customer_of(&state)?;
    let mut held = customer_row(rows, &customer)?;
    add_credit(&mut held, currency, Minor(over.minor))?;
    let postings = Postings::new([
        (Account::Clearing, amount),
        (Account::Receivable, applied.negated()),
        (Account::CustomerCredit, over.negated()),
    ])?;
    let puts = vec![
        (state_key(number), Some(rows::write(&state))),
        (customer_row_key(&customer), Some(rows::write(&held))),
    ];
    let entry = Draft {
        kind: EntryKind::Payment,
        customer: Some(state.customer.clone()),
        document_sha256: None,
        subject: reference.cloned(),
        postings,
        date: day_or(change, &zone_of(&state)?, at)?,
    };
    Ok(Plan { entry, puts, document: Some(number.to_owned()) })
}

pub(super) fn judge_write_off(
    rows: &dyn BookRows,
    change: &Change,
    number: &str,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut state = payable(rows, number, "written off")?;
    let due = Money { minor: state.due.0, currency: currency_of(&state)? };
    let postings = Postings::new([(Account::WriteOff, due), (Account::Receivable, due.negated())])?;
    (state.due, state.written_off) = (Minor(0), Minor(due.minor));
    state.state = DocumentState::Uncollectible;
    let customer = customer_of(&state)?;
    let mut held = customer_row(rows, &customer)?;
    add_credit(&mut held, due.currency, Minor(0))?;
    let puts = vec![
        (state_key(number), Some(rows::write(&state))),
        (customer_row_key(&customer), Some(rows::write(&held))),
    ];
    let entry = Draft {
        kind: EntryKind::WriteOff,
        customer: Some(state.customer.clone()),
        document_sha256: None,
        subject: None,
        postings,
        date: day_or(change, &zone_of(&state)?, at)?,
    };
    Ok(Plan { entry, puts, document: Some(number.to_owned()) })
}

/// The state of an invoice of which something is due.
fn payable(rows: &dyn BookRows, number: &str, act: &'static str) -> Result<StateRow, Failed> {
    let state = state_of(rows, number)?;
    match state.state {
        DocumentState::Issued | DocumentState::PartlyPaid if state.due.0 > 0 => Ok(state),
        _ => {
            let state = state.state.name();
            Err(Refused::State { number: number.to_owned(), state, act }.into())
        }
    }
}
