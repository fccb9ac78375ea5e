//! A document in the making: what is due now, less what was invoiced before.
//!
//! ```text
//! for each period that is due, or was invoiced:   amount of a line = rated now - invoiced before
//! all lines of one tax, once                      -> taxes -> total
//! total >= 0: an invoice, of which the customer's credit pays what it can
//! total <  0: a credit note; its total is the customer's credit
//! ```
//! **Owns** this arithmetic, the postings, and what the books are told of it. **Does not own** rating, numbers and dates,
//! or which periods are due (`billing_run`).
//!
//! Pure. Invariants: the postings balance; the document's amounts are those that are posted.

use std::collections::BTreeSet;

use tidemark_common::hex;
use tidemark_common::id::CustomerId;

use thiserror::Error;

use crate::billing::shown::LineShown;
use crate::catalog::seller::TaxStatus;
use crate::ledger::books::rows::{
    Effect, InvoicedLine, Minor, PeriodChange, PeriodRow, Scope, UsedPlan, UsedTax,
};
use crate::ledger::books::{Issue, Paper, Series, sha256};
use crate::ledger::entry::{Account, EntryError, Postings};
use crate::money::{Currency, Money, MoneyError, Rounding};
use crate::period::{Day, Period};

use super::charge::{Charge, Parties, Source};
use super::tax::{AskedTax, TaxLine, TaxQuestion, TaxService, TaxedLine, Treatment, treatment};
use super::{
    CutShown, Document, DocumentKind, DocumentLine, DocumentSection, PartyShown, SectionKind,
    TaxShown,
};

/// Stands on each document of a sandbox.
pub(super) const SANDBOX_NOTE: &str = "TEST: this document is of a sandbox; nothing is due.";

/// One period whose lines are to be brought up to date.
#[derive(Debug)]
pub struct DuePeriod<'a> {
    pub kind: SectionKind,
    pub plan: &'a str,
    pub period: Period,
    /// As they are rated now.
    pub charges: Vec<Charge<'a>>,
    pub held: Option<&'a PeriodRow>,
}

/// What a document is made of.
#[derive(Debug)]
pub struct Basis<'a> {
    pub parties: Parties<'a>,
    pub id: &'a CustomerId,
    pub currency: Currency,
    /// The run's date.
    pub date: Day,
    /// The customer's version and credit in the books that were read.
    pub version: u64,
    pub credit: Money,
    pub cut: Option<CutShown>,
    /// Versions of plans that amounts are made by.
    pub plans: Vec<UsedPlan>,
    /// Of a ledger whose time a person advances.
    pub sandbox: bool,
    /// Who says what is taxed; `None`: the catalogue.
    pub tax_service: Option<&'a dyn TaxService>,
}

/// What each line of a section is made by; `None` of what is no longer charged.
pub type Sources<'a> = Vec<Option<Source<'a>>>;

/// A document, and what its lines are made by, section by section.
#[derive(Debug)]
pub struct Drawn<'a> {
    pub issue: Issue,
    pub sources: Vec<Sources<'a>>,
    /// Of taxes; `None` where a tax service said them.
    pub tax_rounding: Option<Rounding>,
}

/// Failed to draw up a document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DraftError {
    #[error("failed to draw up the invoice: {0}")]
    Money(#[from] MoneyError),
    #[error("failed to draw up the invoice: {0}")]
    Entry(#[from] EntryError),
    #[error("failed to draw up the invoice: the tax service says: {0}")]
    Tax(String),
}

/// A line and where its amount goes.
struct Item<'t, 'a> {
    section: usize,
    line: DocumentLine<LineShown>,
    source: Option<Source<'a>>,
    key: String,
    product: String,
    treatment: Treatment<'t>,
    /// What this document charges.
    amount: Money,
    /// Without tax.
    net: Money,
    /// Not earned yet.
    is_advance: bool,
    /// What was deferred before and is earned now.
    earned: Money,
}

/// Draws up the document of all periods. `None` if there is nothing to say.
///
/// # Errors
/// An amount beyond 128 bits.
pub fn draft<'a>(
    basis: &Basis<'a>,
    periods: &[DuePeriod<'a>],
) -> Result<Option<Drawn<'a>>, DraftError> {
    let mut items = Vec::new();
    for (section, due) in periods.iter().enumerate() {
        items.extend(items_of(basis, section, due)?);
    }
    let is_due = periods.iter().any(|due| due.kind == SectionKind::Period);
    if items.is_empty() && !is_due {
        return Ok(None);
    }
    let asked = ask_taxes(basis, &items)?;
    let mut items: Vec<Item<'_, '_>> = items;
    for tax in &asked {
        for item in tax.lines.iter().filter_map(|number| number.checked_sub(1)) {
            if let Some(item) = items.get_mut(item) {
                item.treatment = Treatment::Asked(tax);
                item.line.tax = Some(tax.name.clone());
            }
        }
    }
    let rounding = basis.parties.seller.rounding;
    let zero = Money::zero(basis.currency);
    let sum = |amounts: &[Money]| amounts.iter().try_fold(zero, |sum, next| sum.checked_add(*next));
    let mut taxes: Vec<TaxLine<'_>> = Vec::new();
    let mut treatments: Vec<Treatment<'_>> = Vec::new();
    for item in &items {
        if !treatments.contains(&item.treatment) {
            treatments.push(item.treatment);
        }
    }
    for treatment in treatments {
        let of = |item: &&mut Item<'_, '_>| item.treatment == treatment;
        let mut lines: Vec<_> = items.iter_mut().filter(of).collect();
        let amounts: Vec<Money> = lines.iter().map(|item| item.amount).collect();
        let tax = treatment.of(sum(&amounts)?, rounding)?;
        if treatment.is_inclusive() {
            let weights: Vec<i128> = lines.iter().map(|item| item.amount.minor).collect();
            for (item, net) in lines.iter_mut().zip(tax.net.spread(&weights, rounding)?) {
                item.net = net;
            }
        }
        taxes.push(tax);
    }
    let gross = taxes.iter().map(TaxLine::gross).collect::<Result<Vec<_>, _>>()?;
    let total = sum(&gross)?;
    let (issue, sources) = issue(basis, periods, items, &taxes, total)?;
    let tax_rounding = basis.tax_service.is_none().then_some(rounding);
    Ok(Some(Drawn { issue, sources, tax_rounding }))
}

/// What the tax service makes of the lines; nothing where the catalogue says it.
fn ask_taxes(basis: &Basis<'_>, items: &[Item<'_, '_>]) -> Result<Vec<AskedTax>, DraftError> {
    let Some(service) = basis.tax_service else { return Ok(Vec::new()) };
    if items.iter().all(|item| item.amount.minor == 0) {
        return Ok(Vec::new());
    }
    let lines = items.iter().enumerate().map(|(index, item)| TaxedLine {
        number: index.saturating_add(1),
        description: &item.line.description,
        product: &item.product,
        tax: item.treatment.name(),
        amount: item.amount.amount(),
    });
    let question = TaxQuestion {
        seller: &seller_shown(basis.parties),
        customer: &customer_shown(basis.parties, basis.id),
        tax_status: basis.parties.customer.tax_status.name(),
        currency: basis.currency.to_string(),
        period_end: basis.date.to_string(),
        lines: lines.collect(),
    };
    let taxes = service.ask(&question).map_err(DraftError::Tax)?;
    check_taxes(items, &taxes, basis.currency)?;
    Ok(taxes)
}

/// Each line is taxed once, and the amounts of a rate are those of its lines.
fn check_taxes(
    items: &[Item<'_, '_>],
    taxes: &[AskedTax],
    currency: Currency,
) -> Result<(), DraftError> {
    let wrong = |what: String| Err(DraftError::Tax(what));
    let mut seen = BTreeSet::new();
    for tax in taxes {
        let mut sum = Money::zero(currency);
        for number in &tax.lines {
            let item = number.checked_sub(1).and_then(|index| items.get(index));
            let Some(item) = item else {
                return wrong(format!("a tax of line {number}, which is not there"));
            };
            if !seen.insert(*number) {
                return wrong(format!("two taxes of line {number}"));
            }
            sum = sum.checked_add(item.amount)?;
        }
        let told = if tax.inclusive { tax.net.checked_add(tax.tax)? } else { tax.net };
        if told != sum {
            return wrong(format!("{told} for lines of {:?} that come to {sum}", tax.name));
        }
    }
    match (1..=items.len()).find(|number| !seen.contains(number)) {
        Some(number) => wrong(format!("no tax of line {number}: name one of 0 %")),
        None => Ok(()),
    }
}

/// The lines of one period that this document has.
fn items_of<'a>(
    basis: &Basis<'a>,
    section: usize,
    due: &DuePeriod<'a>,
) -> Result<Vec<Item<'a, 'a>>, MoneyError> {
    let currency = basis.currency;
    let held = due.held.map_or(&[][..], |held| &held.lines);
    // A correction of fees in advance leaves them in advance.
    let is_advance = match due.kind {
        SectionKind::Advance => true,
        SectionKind::Correction => due.held.is_some_and(|held| held.scope == Scope::Advance),
        SectionKind::Period | SectionKind::Credit => false,
    };
    let mut items = Vec::new();
    for charge in &due.charges {
        let before = held.iter().find(|line| line.key == charge.key);
        let invoiced = Money { minor: before.map_or(0, |line| line.amount.0), currency };
        let deferred = before.map_or(0, |line| line.deferred.0);
        let earned = if is_advance { 0 } else { deferred };
        let amount = charge.amount.checked_sub(invoiced)?;
        // Of an earlier period only what is different.
        if due.kind == SectionKind::Correction && amount.minor == 0 && earned == 0 {
            continue;
        }
        // What was charged before keeps its tax.
        let treatment = match before.map(|line| line.tax.as_deref()) {
            Some(tax) if tax != charge.treatment.name() => known(basis, tax),
            _ => charge.treatment,
        };
        items.push(Item {
            section,
            line: DocumentLine {
                description: charge.description.clone(),
                details: charge.details.clone(),
                rated: charge.rated.clone(),
                invoiced_before: before.map(|_| invoiced.amount()),
                tax: treatment.name().map(str::to_owned),
                amount: String::new(),
            },
            source: Some(charge.source),
            key: charge.key.clone(),
            product: charge.product.clone(),
            treatment,
            amount,
            net: amount,
            is_advance,
            earned: Money { minor: earned, currency },
        });
    }
    for line in held.iter().filter(|line| due.charges.iter().all(|now| now.key != line.key)) {
        let (treatment, invoiced) =
            (known(basis, line.tax.as_deref()), Money { minor: line.amount.0, currency });
        items.push(Item {
            section,
            line: DocumentLine {
                description: line.description.clone(),
                details: Some("no longer charged".to_owned()),
                rated: None,
                invoiced_before: Some(invoiced.amount()),
                tax: treatment.name().map(str::to_owned),
                amount: String::new(),
            },
            source: None,
            key: line.key.clone(),
            product: line.product.clone(),
            treatment,
            amount: invoiced.negated(),
            net: invoiced.negated(),
            is_advance,
            earned: Money { minor: if is_advance { 0 } else { line.deferred.0 }, currency },
        });
    }
    Ok(items)
}

/// The tax of a line that was invoiced before.
fn known<'a>(basis: &Basis<'a>, name: Option<&str>) -> Treatment<'a> {
    let Parties { catalog, seller, customer } = basis.parties;
    match name {
        None => Treatment::Untaxed,
        Some(name) if name == TaxStatus::Exempt.name() => Treatment::Exempt,
        Some(name) if name == TaxStatus::ReverseCharge.name() => Treatment::ReverseCharge,
        Some(name) => match catalog.taxes.get(name) {
            Some(tax) => Treatment::Taxed(tax),
            None => treatment(catalog, seller, customer, None),
        },
    }
}

/// The whole document, and what is booked with it.
fn issue<'a>(
    basis: &Basis<'a>,
    periods: &[DuePeriod<'a>],
    items: Vec<Item<'_, 'a>>,
    taxes: &[TaxLine<'_>],
    total: Money,
) -> Result<(Issue, Vec<Sources<'a>>), DraftError> {
    let Basis { parties, id, currency, .. } = *basis;
    let zero = Money::zero(currency);
    let is_note = total.minor < 0;
    let is_empty = items.iter().all(|item| item.amount.minor == 0);
    let paper = if is_empty { Paper::NothingDue } else { Paper::Document };
    let credit_applied = Money { minor: basis.credit.minor.min(total.minor).max(0), currency };
    let due = if is_note { zero } else { total.checked_sub(credit_applied)? };
    // To the customer's credit: what a note gives, less what an invoice uses.
    let credit = if is_note { total.negated() } else { credit_applied.negated() };
    let postings = postings(&items, taxes, due, credit)?;
    let change = |(number, due): (usize, &DuePeriod<'_>)| {
        period_change(due, items.iter().filter(|item| item.section == number))
    };
    let effect = Effect {
        run: Some(basis.date.to_string()),
        credit: Minor(credit.minor),
        periods: periods.iter().enumerate().map(change).collect(),
        plans: basis.plans.clone(),
        taxes: taxes.iter().filter_map(used_tax).collect(),
        settles: None,
    };
    let shown = |amount: Money| if is_note { amount.negated() } else { amount }.amount();
    let (sections, sources) = sections(basis, periods, items, &shown)?;
    let mut subtotal = zero;
    for line in taxes {
        let sum = if line.treatment.is_inclusive() { line.gross()? } else { line.net };
        subtotal = subtotal.checked_add(sum)?;
    }
    let document = Document {
        kind: if is_note { DocumentKind::CreditNote } else { DocumentKind::Invoice },
        number: None,
        date: None,
        due_date: None,
        issued_at: None,
        seller: seller_shown(parties),
        customer: customer_shown(parties, id),
        currency: currency.to_string(),
        period_end: Some(basis.date.to_string()),
        credits: None,
        reason: None,
        sections,
        subtotal: shown(subtotal),
        taxes: taxes.iter().map(|line| tax_shown(line, &shown)).collect(),
        total: shown(total),
        credit_applied: credit_applied.amount(),
        amount_due: due.amount(),
        notes: notes(basis, taxes, is_note),
        cut: basis.cut.clone(),
    };
    let version = basis.version;
    let issue = Issue {
        customer: id.clone(),
        version,
        paper,
        series: series(parties, document.kind),
        due_days: if is_note {
            0
        } else {
            parties.customer.due_days.unwrap_or(parties.seller.due_days)
        },
        document,
        total: Money { minor: total.minor.saturating_abs(), currency },
        credit_applied,
        due,
        postings,
        effect,
        proof: None,
    };
    Ok((issue, sources))
}

/// What is booked of all lines.
fn postings(
    items: &[Item<'_, '_>],
    taxes: &[TaxLine<'_>],
    due: Money,
    credit: Money,
) -> Result<Postings, EntryError> {
    let mut amounts = vec![(Account::Receivable, due), (Account::CustomerCredit, credit.negated())];
    for item in items {
        let revenue = Account::Revenue { product: item.product.clone() };
        let account = if item.is_advance { Account::Deferred } else { revenue.clone() };
        amounts.push((account, item.net.negated()));
        amounts.push((Account::Deferred, item.earned));
        amounts.push((revenue, item.earned.negated()));
    }
    amounts.extend(taxes.iter().map(|line| (Account::TaxPayable, line.tax.negated())));
    Postings::new(amounts)
}

/// The sections, and of each what its lines are made by.
type Sections<'a> = (Vec<DocumentSection<LineShown>>, Vec<Sources<'a>>);

fn sections<'a>(
    basis: &Basis<'a>,
    periods: &[DuePeriod<'a>],
    items: Vec<Item<'_, 'a>>,
    shown: &dyn Fn(Money) -> String,
) -> Result<Sections<'a>, MoneyError> {
    let zone = &basis.parties.customer.zone;
    let mut sections: Vec<_> = periods
        .iter()
        .map(|due| DocumentSection {
            kind: due.kind,
            plan: due.plan.to_owned(),
            start: Some(zone.rfc3339(due.period.start.start())),
            end: Some(zone.rfc3339(due.period.end.start())),
            lines: Vec::new(),
            total: String::new(),
        })
        .collect();
    let mut totals = vec![(Money::zero(basis.currency), Sources::new()); sections.len()];
    for item in items {
        let places = sections.get_mut(item.section).zip(totals.get_mut(item.section));
        let (section, (total, sources)) = places.expect("an item is of a section");
        *total = total.checked_add(item.amount)?;
        sources.push(item.source);
        section.lines.push(DocumentLine { amount: shown(item.amount), ..item.line });
    }
    let all = sections.into_iter().zip(totals).map(|(mut section, (total, sources))| {
        section.total = shown(total);
        (section, sources)
    });
    let is_shown = |(section, _): &(DocumentSection<_>, _)| {
        section.kind == SectionKind::Period || !section.lines.is_empty()
    };
    Ok(all.filter(is_shown).unzip())
}

/// What the books are told of one period.
fn period_change<'i>(
    due: &DuePeriod<'_>,
    items: impl Iterator<Item = &'i Item<'i, 'i>>,
) -> PeriodChange {
    let scope = match due.kind {
        SectionKind::Advance => Scope::Advance,
        SectionKind::Period | SectionKind::Correction | SectionKind::Credit => Scope::Whole,
    };
    let scope = match due.held.map(|held| held.scope) {
        Some(held) if due.kind == SectionKind::Correction => held,
        _ => scope,
    };
    let lines = items.map(|item| {
        let deferred = if item.is_advance { item.net.minor } else { item.earned.negated().minor };
        InvoicedLine {
            key: item.key.clone(),
            description: item.line.description.clone(),
            product: item.product.clone(),
            tax: item.treatment.name().map(str::to_owned),
            amount: Minor(item.amount.minor),
            deferred: Minor(deferred),
        }
    });
    PeriodChange {
        plan: due.plan.to_owned(),
        start: due.period.start.0,
        end: due.period.end.0,
        scope,
        scope_before: None,
        lines: lines.collect(),
    }
}

fn used_tax(line: &TaxLine<'_>) -> Option<UsedTax> {
    match line.treatment {
        Treatment::Taxed(tax) => Some(UsedTax {
            name: tax.name.clone(),
            sha256: hex::encode(&sha256(tax.to_toml().as_bytes())),
            document: String::new(),
        }),
        Treatment::Untaxed | Treatment::Exempt | Treatment::ReverseCharge | Treatment::Asked(_) => {
            None
        }
    }
}

pub(super) fn series(parties: Parties<'_>, kind: DocumentKind) -> Series {
    let seller = parties.seller;
    let prefix = match kind {
        DocumentKind::Invoice => &seller.invoice_prefix,
        DocumentKind::CreditNote => &seller.credit_note_prefix,
    };
    Series {
        prefix: prefix.clone(),
        fiscal_year_start: seller.fiscal_year_start,
        zone: seller.zone.clone(),
    }
}

pub(super) fn seller_shown(parties: Parties<'_>) -> PartyShown {
    let seller = parties.seller;
    PartyShown {
        id: seller.name.clone(),
        name: Some(seller.legal_name.clone()),
        address: seller.address.clone(),
        tax_id: seller.tax_id.clone(),
        email: seller.email.clone(),
    }
}

pub(super) fn customer_shown(parties: Parties<'_>, id: &CustomerId) -> PartyShown {
    let customer = parties.customer;
    PartyShown {
        id: id.as_str().to_owned(),
        name: customer.name.clone(),
        address: customer.address.clone(),
        tax_id: customer.tax_id.clone(),
        email: None,
    }
}

fn tax_shown(line: &TaxLine<'_>, shown: &dyn Fn(Money) -> String) -> TaxShown {
    let treatment = line.treatment;
    TaxShown {
        name: treatment.name().unwrap_or_default().to_owned(),
        label: treatment.label().to_owned(),
        category: treatment.category().to_owned(),
        percent: treatment.percent().to_string(),
        inclusive: treatment.is_inclusive(),
        net: shown(line.net),
        tax: shown(line.tax),
    }
}

fn notes(basis: &Basis<'_>, taxes: &[TaxLine<'_>], is_note: bool) -> Vec<String> {
    let sandbox = basis.sandbox.then_some(SANDBOX_NOTE);
    let parties = basis.parties;
    let credited = is_note.then_some("The total is credited to your account.");
    let of_taxes = taxes.iter().filter_map(|line| line.treatment.note());
    let own = parties.seller.notes.iter().map(String::as_str);
    sandbox.into_iter().chain(credited).chain(of_taxes).chain(own).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
