//! Sums of a document: sections, taxes, total.
//!
//! **Owns** these sums and the taxes of each rate, by `deploy/docs/invoices.md`. **Does not own** the lines' amounts.

use std::collections::BTreeMap;

use num_bigint::BigInt;

use super::document::{Document, DocumentKind, Tax, section_place};
use super::exact::{self, PERCENT_PLACES, Rounding};
use super::{Refusal, ensure};

/// Checks every sum. Without a rounding a service said the taxes.
pub(super) fn check(document: &Document, rounding: Option<Rounding>) -> Result<(), Refusal> {
    let places = document.places;
    let same = |place: &str, shown: &BigInt, due: &BigInt| {
        ensure(shown == due, place, || {
            let [shown, due] = [shown, due].map(|amount| exact::with_places(amount, places));
            format!("it is {shown}, and what it is of comes to {due}")
        })
    };
    let mut by_tax: BTreeMap<&str, BigInt> = BTreeMap::new();
    let mut subtotal = BigInt::ZERO;
    for (index, section) in document.sections.iter().enumerate() {
        for line in &section.lines {
            let sum = by_tax.entry(line.tax.as_deref().unwrap_or_default()).or_default();
            *sum = exact::add(sum, &line.amount);
        }
        let total = exact::sum(section.lines.iter().map(|line| &line.amount));
        same(&format!("the total of {}", section_place(index)), &section.total, &total)?;
        subtotal = exact::add(&subtotal, &total);
    }
    same("the subtotal", &document.subtotal, &subtotal)?;

    let mut total = BigInt::ZERO;
    for tax in &document.taxes {
        let place = format!("the tax {:?}", tax.name);
        let sum = by_tax.remove(tax.name.as_str());
        let sum = sum.ok_or_else(|| Refusal::new(&place, "it is of no line, or stands twice"))?;
        let (net, of_tax) = due(tax, &sum, rounding, &place)?;
        same(&format!("{place}: `net`"), &tax.net, &net)?;
        same(&format!("{place}: `tax`"), &tax.tax, &of_tax)?;
        total = exact::add(&total, &exact::add(&net, &of_tax));
    }
    let untaxed = by_tax.first_key_value();
    ensure(untaxed.is_none(), "the taxes", || {
        let name = untaxed.map(|(name, _)| *name).unwrap_or_default();
        format!("there is none of the lines that name {name:?}")
    })?;
    same("the total", &document.total, &total)?;
    check_paid(document)
}

/// Net and tax of lines that come to `sum`.
fn due(
    tax: &Tax,
    sum: &BigInt,
    rounding: Option<Rounding>,
    place: &str,
) -> Result<(BigInt, BigInt), Refusal> {
    let is_nothing = tax.percent == BigInt::ZERO && !tax.inclusive;
    let fits = match tax.category.as_str() {
        "untaxed" => tax.name.is_empty() && is_nothing,
        "exempt" | "reverse_charge" => tax.name == tax.category && is_nothing,
        "taxable" => !matches!(tax.name.as_str(), "" | "exempt" | "reverse_charge"),
        "asked" => true,
        _ => false,
    };
    ensure(fits, place, || {
        format!("its category {:?} does not go with its name and percentage", tax.category)
    })?;
    let is_asked = tax.category == "asked";
    ensure(!is_asked || rounding.is_none(), place, || {
        "a service said it, and `tax_rounding` is there".to_owned()
    })?;
    let Some(rounding) = rounding else {
        ensure(is_asked || *sum == BigInt::ZERO, place, || {
            "no service said it, and `tax_rounding` is not there".to_owned()
        })?;
        let asked = if is_asked { tax.tax.clone() } else { BigInt::ZERO };
        let net = if tax.inclusive { exact::subtract(sum, &asked) } else { sum.clone() };
        return Ok((net, asked));
    };
    let product = exact::multiply(sum, &tax.percent);
    let hundred = exact::power_of_ten(PERCENT_PLACES.saturating_add(2));
    if tax.inclusive {
        let of_tax = exact::round(&product, &exact::add(&hundred, &tax.percent), rounding);
        Ok((exact::subtract(sum, &of_tax), of_tax))
    } else {
        Ok((sum.clone(), exact::round(&product, &hundred, rounding)))
    }
}

/// Nothing is below 0, and an invoice's total is paid by credit or due.
fn check_paid(document: &Document) -> Result<(), Refusal> {
    let Document { kind, total, credit_applied, amount_due, .. } = document;
    let none = BigInt::ZERO;
    ensure(*total >= none && *credit_applied >= none && *amount_due >= none, "the total", || {
        "it, the credit applied or the amount due is below 0".to_owned()
    })?;
    let paid = exact::add(credit_applied, amount_due);
    let due = match kind {
        DocumentKind::Invoice => total,
        DocumentKind::CreditNote => &none,
    };
    ensure(paid == *due, "the amount due", || {
        "with the credit applied it is not the total, or not 0 of a credit note".to_owned()
    })
}
