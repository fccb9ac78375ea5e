//! Taxes: which one is on a line, and what all lines of one rate come to.
//!
//! **Owns** both rules. A tax is computed once for all lines of one rate, and rounded once, as the seller says.
//! **Does not own** rates (the catalogue), or what is charged.

use serde::Serialize;

use crate::catalog::seller::{Seller, Tax, TaxStatus};
use crate::catalog::{Catalog, Customer};
use crate::money::{Money, MoneyError, Percent, Rounding};

use super::PartyShown;

/// Says what is taxed, in place of the catalogue.
pub trait TaxService: std::fmt::Debug + Send + Sync {
    /// All taxes of a document. Blocks.
    ///
    /// # Errors
    /// Why there is no answer, in words: the document then waits.
    fn ask(&self, question: &TaxQuestion<'_>) -> Result<Vec<AskedTax>, String>;
}

/// A document that is to be taxed.
#[derive(Debug, Serialize)]
pub struct TaxQuestion<'q> {
    pub seller: &'q PartyShown,
    pub customer: &'q PartyShown,
    /// As the catalogue has it: `taxable`, `exempt`, `reverse_charge`.
    pub tax_status: &'q str,
    pub currency: String,
    pub period_end: String,
    /// Numbered from 1.
    pub lines: Vec<TaxedLine<'q>>,
}

/// One of its lines.
#[derive(Debug, Serialize)]
pub struct TaxedLine<'q> {
    pub number: usize,
    pub description: &'q str,
    pub product: &'q str,
    /// What the catalogue names; or, of what was invoiced before, what was on it then.
    pub tax: Option<&'q str>,
    pub amount: String,
}

/// One rate, as the service answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedTax {
    pub name: String,
    pub label: String,
    pub percent: Percent,
    pub inclusive: bool,
    pub net: Money,
    pub tax: Money,
    /// Its lines, by number.
    pub lines: Vec<usize>,
}

/// How a line is taxed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment<'a> {
    /// As the tax service says.
    Asked(&'a AskedTax),
    /// Nobody named a tax.
    Untaxed,
    Taxed(&'a Tax),
    Exempt,
    ReverseCharge,
}

/// All lines of one rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaxLine<'a> {
    pub treatment: Treatment<'a>,
    /// Without the tax.
    pub net: Money,
    pub tax: Money,
}

/// What the catalogue says of a line that names the tax `own`, or none.
#[must_use]
pub fn treatment<'a>(
    catalog: &'a Catalog,
    seller: &'a Seller,
    customer: &'a Customer,
    own: Option<&str>,
) -> Treatment<'a> {
    match customer.tax_status {
        TaxStatus::Exempt => return Treatment::Exempt,
        TaxStatus::ReverseCharge => return Treatment::ReverseCharge,
        TaxStatus::Taxable => {}
    }
    let name = own.or(customer.tax.as_deref()).or(seller.tax.as_deref());
    match name.and_then(|name| catalog.taxes.get(name)) {
        Some(tax) => Treatment::Taxed(tax),
        None => Treatment::Untaxed,
    }
}

impl<'a> Treatment<'a> {
    /// The name by which it is known again.
    #[must_use]
    pub fn name(self) -> Option<&'a str> {
        match self {
            Self::Untaxed => None,
            Self::Asked(tax) => Some(&tax.name),
            Self::Taxed(tax) => Some(&tax.name),
            Self::Exempt => Some(TaxStatus::Exempt.name()),
            Self::ReverseCharge => Some(TaxStatus::ReverseCharge.name()),
        }
    }

    /// As it stands on the document.
    #[must_use]
    pub fn label(self) -> &'a str {
        match self {
            Self::Untaxed => "No tax",
            Self::Asked(tax) => &tax.label,
            Self::Taxed(tax) => &tax.label,
            Self::Exempt => "Exempt from tax",
            Self::ReverseCharge => "Reverse charge",
        }
    }

    #[must_use]
    pub fn category(self) -> &'static str {
        match self {
            Self::Untaxed => "untaxed",
            Self::Asked(_) => "asked",
            Self::Taxed(_) => TaxStatus::Taxable.name(),
            Self::Exempt => TaxStatus::Exempt.name(),
            Self::ReverseCharge => TaxStatus::ReverseCharge.name(),
        }
    }

    #[must_use]
    pub fn percent(self) -> Percent {
        match self {
            Self::Asked(tax) => tax.percent,
            Self::Taxed(tax) => tax.percent,
            Self::Untaxed | Self::Exempt | Self::ReverseCharge => Percent::ZERO,
        }
    }

    /// Whether amounts hold the tax.
    #[must_use]
    pub fn is_inclusive(self) -> bool {
        match self {
            Self::Asked(tax) => tax.inclusive,
            Self::Taxed(tax) => tax.inclusive,
            Self::Untaxed | Self::Exempt | Self::ReverseCharge => false,
        }
    }

    /// What a document must say of it.
    #[must_use]
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Untaxed | Self::Taxed(_) | Self::Asked(_) => None,
            Self::Exempt => Some("Exempt from tax."),
            Self::ReverseCharge => Some("Reverse charge: the recipient is liable for the tax."),
        }
    }

    /// What lines that come to `sum` are taxed.
    ///
    /// # Errors
    /// An amount beyond 128 bits.
    pub fn of(self, sum: Money, rounding: Rounding) -> Result<TaxLine<'a>, MoneyError> {
        if let Self::Asked(AskedTax { net, tax, .. }) = self {
            return Ok(TaxLine { treatment: self, net: *net, tax: *tax });
        }
        let (net, tax) = if self.is_inclusive() {
            let tax = sum.percent_within(self.percent(), rounding)?;
            (sum.checked_sub(tax)?, tax)
        } else {
            (sum, sum.percent(self.percent(), rounding)?)
        };
        Ok(TaxLine { treatment: self, net, tax })
    }
}

impl TaxLine<'_> {
    /// What is paid for all lines of the rate.
    ///
    /// # Errors
    /// An amount beyond 128 bits.
    pub fn gross(&self) -> Result<Money, MoneyError> {
        self.net.checked_add(self.tax)
    }
}
