//! A credit note that a person writes about an invoice: an amount of its total, taxes and products in its proportions.
//!
//! **Owns** how the amount is split. It lowers what is due of the invoice; what is beyond that is the customer's
//! credit. What was invoiced for a period stays: the next run does not charge it again.

use tidemark_common::id::CustomerId;

use thiserror::Error;

use crate::ledger::books::rows::{CustomerRow, Effect, Minor, Settles, StateRow};
use crate::ledger::books::{Issue, Paper};
use crate::ledger::entry::{Account, EntryError, Postings};
use crate::money::{Currency, Money, MoneyError, NotAnAmount};

use super::charge::Parties;
use super::draft::{SANDBOX_NOTE, customer_shown, seller_shown, series};
use super::{
    Document, DocumentKind, DocumentLine, DocumentSection, Printed, SectionKind, TaxShown,
};

/// Why there is no credit note.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CreditError {
    #[error("the amount must be above 0")]
    NoAmount,
    #[error("{number} comes to {total}, of which {noted} are credited already")]
    TooMuch { number: String, total: Money, noted: Money },
    #[error("{number} is {state}: only an invoice that was issued is credited")]
    State { number: String, state: &'static str },
    #[error(transparent)]
    Amount(#[from] NotAnAmount),
    #[error(transparent)]
    Money(#[from] MoneyError),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// The invoice as the books hold it.
#[derive(Debug)]
pub struct Credited<'a> {
    pub number: &'a str,
    pub document: &'a Printed,
    pub state: &'a StateRow,
    /// Of its entry.
    pub postings: &'a Postings,
    pub customer: &'a CustomerRow,
    /// Of a ledger whose time a person advances.
    pub sandbox: bool,
}

/// Draws up the note.
///
/// # Errors
/// An amount that cannot be credited.
pub fn credit_note(
    parties: Parties<'_>,
    id: &CustomerId,
    invoice: &Credited<'_>,
    amount: Money,
    reason: &str,
) -> Result<Issue, CreditError> {
    let Credited { number, document, state, postings, customer, .. } = invoice;
    let currency = amount.currency;
    check_amount(invoice, amount)?;
    let rounding = parties.seller.rounding;
    let parse = |text: &String| Money::parse(text, currency);
    let mut weights = Vec::new();
    for tax in &document.taxes {
        weights.extend([parse(&tax.net)?.minor, parse(&tax.tax)?.minor]);
    }
    let shares = amount.spread(&weights, rounding)?;
    let zero = Money::zero(currency);
    let (mut net, mut taxed, mut taxes) = (zero, zero, Vec::new());
    for (tax, share) in document.taxes.iter().zip(shares.chunks(2)) {
        let [of_net, of_tax] = *share else { continue };
        (net, taxed) = (net.checked_add(of_net)?, taxed.checked_add(of_tax)?);
        taxes.push(TaxShown { net: of_net.amount(), tax: of_tax.amount(), ..tax.clone() });
    }
    if document.taxes.is_empty() {
        net = amount;
    }
    let due = Money { minor: amount.minor.min(state.due.0).max(0), currency };
    let credit = amount.checked_sub(due)?;
    let booked = split_revenue(postings, net, rounding)?;
    let postings = Postings::new(booked.into_iter().chain([
        (Account::TaxPayable, taxed),
        (Account::Receivable, due.negated()),
        (Account::CustomerCredit, credit.negated()),
    ]))?;
    let effect = Effect {
        run: None,
        credit: Minor(credit.minor),
        periods: Vec::new(),
        plans: Vec::new(),
        taxes: Vec::new(),
        settles: Some(Settles {
            number: (*number).to_owned(),
            due: Minor(due.minor),
            total: Minor(amount.minor),
        }),
    };
    let note = note_of(parties, id, invoice, amount, taxes, reason);
    Ok(Issue {
        customer: id.clone(),
        version: customer.version,
        paper: Paper::Document,
        series: series(parties, DocumentKind::CreditNote),
        due_days: 0,
        document: note,
        total: amount,
        credit_applied: zero,
        due: zero,
        postings,
        effect,
        proof: None,
    })
}

/// Only an invoice that was issued is credited, and no more than it comes to.
fn check_amount(invoice: &Credited<'_>, amount: Money) -> Result<(), CreditError> {
    use crate::ledger::books::rows::DocumentState as State;
    let Credited { number, state, .. } = invoice;
    let told = |minor: Minor| Money { minor: minor.0, currency: amount.currency };
    let number = (*number).to_owned();
    if state.kind == DocumentKind::CreditNote
        || matches!(state.state, State::Void | State::Uncollectible)
    {
        let state = match state.kind {
            DocumentKind::CreditNote => "a credit note",
            DocumentKind::Invoice => state.state.name(),
        };
        return Err(CreditError::State { number, state });
    }
    if amount.minor <= 0 {
        return Err(CreditError::NoAmount);
    }
    let (total, noted) = (told(state.total), told(state.credit_notes));
    if amount.minor > total.checked_sub(noted)?.minor {
        return Err(CreditError::TooMuch { number, total, noted });
    }
    Ok(())
}

/// A net amount, taken from where the invoice's went.
fn split_revenue(
    postings: &Postings,
    net: Money,
    rounding: crate::money::Rounding,
) -> Result<Vec<(Account, Money)>, MoneyError> {
    let is_earned = |account: &Account| match account {
        Account::Revenue { .. } => true,
        Account::Receivable
        | Account::Unbilled
        | Account::Deferred
        | Account::CustomerCredit
        | Account::TaxPayable
        | Account::Rounding
        | Account::WriteOff
        | Account::Clearing => false,
    };
    let earned: Vec<_> = postings.iter().filter(|(account, _)| is_earned(account)).collect();
    if earned.is_empty() {
        return Ok(vec![(Account::Revenue { product: "credit".to_owned() }, net)]);
    }
    let weights: Vec<i128> = earned.iter().map(|(_, amount)| amount.minor).collect();
    let shares = net.spread(&weights, rounding)?;
    Ok(earned.into_iter().map(|(account, _)| account.clone()).zip(shares).collect())
}

fn note_of(
    parties: Parties<'_>,
    id: &CustomerId,
    invoice: &Credited<'_>,
    amount: Money,
    taxes: Vec<TaxShown>,
    reason: &str,
) -> Document<crate::billing::shown::LineShown> {
    let line = DocumentLine {
        description: format!("Credit on invoice {}", invoice.number),
        details: Some("taxes included".to_owned()),
        rated: None,
        invoiced_before: None,
        tax: None,
        amount: amount.amount(),
    };
    let currency: Currency = amount.currency;
    Document {
        kind: DocumentKind::CreditNote,
        number: None,
        date: None,
        due_date: None,
        issued_at: None,
        seller: seller_shown(parties),
        customer: customer_shown(parties, id),
        currency: currency.to_string(),
        period_end: None,
        credits: Some(invoice.number.to_owned()),
        reason: Some(reason.to_owned()),
        sections: vec![DocumentSection {
            kind: SectionKind::Credit,
            plan: String::new(),
            start: None,
            end: None,
            lines: vec![line],
            total: amount.amount(),
        }],
        subtotal: amount.amount(),
        taxes: taxes.into_iter().map(|tax| TaxShown { inclusive: true, ..tax }).collect(),
        total: amount.amount(),
        credit_applied: Money::zero(currency).amount(),
        amount_due: Money::zero(currency).amount(),
        notes: invoice
            .sandbox
            .then(|| SANDBOX_NOTE.to_owned())
            .into_iter()
            .chain(parties.seller.notes.clone())
            .collect(),
        cut: None,
    }
}
