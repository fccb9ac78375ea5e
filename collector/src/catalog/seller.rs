//! Who sells, and the taxes on it.
//!
//! **Owns** these shapes. **Does not own** their grammar (`read/seller.rs`), or what a tax comes to (`invoice/tax.rs`).

use crate::money::{Percent, Rounding};
use crate::period::Zone;

/// A legal entity that issues invoices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seller {
    /// How customers name it in the catalogue.
    pub name: String,
    /// As it stands on invoices.
    pub legal_name: String,
    pub address: Vec<String>,
    pub tax_id: Option<String>,
    pub email: Option<String>,
    /// Its days begin here: the day of issue, and so the fiscal year.
    pub zone: Zone,
    /// What numbers of documents begin with.
    pub invoice_prefix: String,
    pub credit_note_prefix: String,
    /// The month in which its fiscal year begins, 1 to 12.
    pub fiscal_year_start: i8,
    /// Where a plan does not say, and for taxes.
    pub rounding: Rounding,
    /// An invoice is due so many days after its issue, where the customer does not say.
    pub due_days: u16,
    /// The tax of what names none.
    pub tax: Option<String>,
    /// Stand on each document.
    pub notes: Vec<String>,
}

/// A rate of tax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tax {
    pub name: String,
    /// As it stands on invoices.
    pub label: String,
    pub percent: Percent,
    /// Whether prices hold it.
    pub inclusive: bool,
}

/// Whether a customer pays taxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TaxStatus {
    #[default]
    Taxable,
    Exempt,
    /// The customer owes the tax itself (article 196 of the EU's directive 2006/112/EC).
    ReverseCharge,
}

impl TaxStatus {
    pub const ALL: [Self; 3] = [Self::Taxable, Self::Exempt, Self::ReverseCharge];

    /// The name, as the catalogue and invoices write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Taxable => "taxable",
            Self::Exempt => "exempt",
            Self::ReverseCharge => "reverse_charge",
        }
    }
}
