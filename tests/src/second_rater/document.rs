//! Taxes and totals of an invoice from its lines, and which tax a line has, by the document on invoices.
//!
//! **Owns** the choice of a tax, the shares of a discount on several, net and tax of each, totals. **Does not own**
//! the lines' amounts, and not what was paid.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;
use serde_json::Value;

use super::customer::{Line, What};
use super::exact::Rounding;
use super::{exact, written};

/// A customer's `tax_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Taxable,
    Exempt,
    ReverseCharge,
}

/// A `[[tax]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tax {
    pub percent: String,
    pub inclusive: bool,
}

/// How one customer is taxed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taxation {
    pub status: Status,
    /// The tax of what names none: the customer's, else the seller's.
    pub otherwise: Option<String>,
    pub rates: BTreeMap<String, Tax>,
    /// The seller's rounding.
    pub half_even: bool,
}

/// Net and tax of the lines of one tax, in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taxed {
    pub net: BigInt,
    pub tax: BigInt,
}

impl Status {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Taxable => "taxable",
            Self::Exempt => "exempt",
            Self::ReverseCharge => "reverse_charge",
        }
    }
}

impl Taxation {
    /// The tax of a line whose fee or price names `own`, as the document's line names it.
    fn tax_of(&self, own: Option<&String>) -> Option<String> {
        match self.status {
            Status::Exempt | Status::ReverseCharge => Some(self.status.name().to_owned()),
            Status::Taxable => own.or(self.otherwise.as_ref()).cloned(),
        }
    }

    /// The lines of one period, each with its tax; a discount on lines of several taxes is one line of each.
    #[must_use]
    pub fn taxed(&self, lines: &[Line]) -> Vec<Line> {
        let mut taxed: Vec<Line> = Vec::new();
        for line in lines {
            let tax = self.tax_of(line.tax.as_ref());
            let same_part = |before: &&Line| {
                before.plan == line.plan && before.span == line.span && line.what == What::Discount
            };
            let mut weights: Vec<(Option<String>, BigInt)> = Vec::new();
            for before in taxed.iter().filter(same_part) {
                match weights.iter_mut().find(|(tax, _)| *tax == before.tax) {
                    Some((_, weight)) => *weight += &before.amount,
                    None => weights.push((before.tax.clone(), before.amount.clone())),
                }
            }
            if weights.is_empty() {
                taxed.push(Line { tax, ..line.clone() });
                continue;
            }
            let amounts: Vec<BigInt> = weights.iter().map(|(_, weight)| weight.clone()).collect();
            let shares = spread(&line.amount, &amounts, Rounding::of(line.half_even));
            for ((tax, _), amount) in weights.into_iter().zip(shares) {
                taxed.push(Line { tax, amount, ..line.clone() });
            }
        }
        taxed
    }

    /// What comes of lines that are `sum` together and have this tax.
    #[must_use]
    pub fn of(&self, tax: Option<&str>, sum: &BigInt) -> Taxed {
        let rate = tax.and_then(|tax| self.rates.get(tax));
        let Some(Tax { percent, inclusive }) = rate else {
            return Taxed { net: sum.clone(), tax: BigInt::ZERO };
        };
        let (percent, hundred) = (exact(percent), exact("100"));
        let amount = BigRational::from_integer(sum.clone()) * &percent;
        let exact_tax = if *inclusive { amount / (hundred + percent) } else { amount / hundred };
        let tax = Rounding::of(self.half_even).minor_units(&exact_tax, 0);
        let net = if *inclusive { sum - &tax } else { sum.clone() };
        Taxed { net, tax }
    }
}

/// `amount` over the weights, so that the shares add up; all of it is the first's where the weights come to 0.
fn spread(amount: &BigInt, weights: &[BigInt], rounding: Rounding) -> Vec<BigInt> {
    let whole: BigInt = weights.iter().sum();
    let mut shares = Vec::new();
    let (mut weight_so_far, mut given) = (BigInt::ZERO, BigInt::ZERO);
    for weight in weights {
        weight_so_far += weight;
        let until = if whole == BigInt::ZERO {
            amount.clone()
        } else {
            let share = BigRational::new(amount * &weight_so_far, whole.clone());
            rounding.minor_units(&share, 0)
        };
        shares.push(&until - &given);
        given = until;
    }
    shares
}

/// Rates the document again from its lines' amounts and taxes alone.
///
/// # Errors
/// What it says otherwise.
pub fn check(document: &Value, taxation: &Taxation, places: u32) -> Result<(), String> {
    let mut sums: BTreeMap<Option<String>, BigInt> = BTreeMap::new();
    let mut subtotal = BigInt::ZERO;
    for section in list(&document["sections"]) {
        let mut of_section = BigInt::ZERO;
        for line in list(&section["lines"]) {
            let amount = minor(&line["amount"], places)?;
            let tax = line["tax"].as_str().map(str::to_owned);
            *sums.entry(tax).or_default() += &amount;
            of_section += amount;
        }
        same("a section's total", &section["total"], &of_section, places)?;
        subtotal += of_section;
    }
    same("subtotal", &document["subtotal"], &subtotal, places)?;

    let mut total = BigInt::ZERO;
    let taxes = list(&document["taxes"]);
    if taxes.len() != sums.len() {
        return Err(format!("taxes of {:?}, and {} of them", sums.keys(), taxes.len()));
    }
    for (tax, sum) in &sums {
        let category = match tax.as_deref() {
            None => "untaxed",
            Some(status @ ("exempt" | "reverse_charge")) => status,
            Some(_) => "taxable",
        };
        let of_it = |shown: &&Value| {
            shown["category"] == category
                && (category != "taxable" || shown["name"].as_str() == tax.as_deref())
        };
        let shown = taxes.iter().find(of_it).ok_or_else(|| format!("no tax {tax:?}"))?;
        let Taxed { net, tax } = taxation.of(tax.as_deref(), sum);
        same("net", &shown["net"], &net, places)?;
        same("tax", &shown["tax"], &tax, places)?;
        total += net + tax;
    }
    same("total", &document["total"], &total, places)?;
    if total < BigInt::ZERO {
        return Err(format!("a total of {total}"));
    }
    let (applied, due) =
        (minor(&document["credit_applied"], places)?, minor(&document["amount_due"], places)?);
    let invoice = document["kind"] == "invoice";
    if applied < BigInt::ZERO || due < BigInt::ZERO || (invoice && &applied + &due != total) {
        return Err(format!("{applied} of credit and {due} due are not {total}"));
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// An amount, which must have all places of the currency, in minor units.
///
/// # Errors
/// If it does not.
pub fn minor(amount: &Value, places: u32) -> Result<BigInt, String> {
    let text = amount.as_str().ok_or_else(|| format!("{amount} is no text"))?;
    let minor =
        (exact(text) * BigRational::from_integer(BigInt::from(10).pow(places))).to_integer();
    if written(&minor, places) == text {
        Ok(minor)
    } else {
        Err(format!("{text} is not written so"))
    }
}

fn same(what: &str, shown: &Value, expected: &BigInt, places: u32) -> Result<(), String> {
    let expected = written(expected, places);
    if *shown == expected.as_str() {
        Ok(())
    } else {
        Err(format!("{what} {shown}, not {expected}"))
    }
}
