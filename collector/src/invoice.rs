//! Invoices and credit notes: the documents, as they are issued.
//!
//! **Owns** their shape, which is that of the API, the archive and every rendering; amounts are decimal texts in the
//! document's one currency. **Does not own** what is charged (`draft`), or numbers and states (`ledger/books.rs`).
//!
//! Invariants: a document never changes once it has a number. All amounts of a credit note are what is taken back: of
//! an invoice it would be the same with the other sign. `total` and `amount_due` are never negative.
//!
//! ```text
//! sum of all sections' lines = sum over taxes (net + tax) of exclusive rates, (net + tax) of inclusive ones = total
//! total = credit_applied + amount_due
//! ```
//! where an exclusive rate's tax comes on top of its lines, and an inclusive one's is in them.

pub mod charge;
pub mod credit;
pub mod draft;
pub mod print;
pub mod tax;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::certificate::Certified;

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    Invoice,
    CreditNote,
}

impl DocumentKind {
    /// As people read it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Invoice => "Invoice",
            Self::CreditNote => "Credit note",
        }
    }
}

/// A whole document. In a draft what issuing gives it is empty. `R` is how a line's amount came about
/// ([`LineShown`](crate::billing::shown::LineShown)).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
pub struct Document<R> {
    pub kind: DocumentKind,
    /// At most 16 characters; no other document of the seller's has it. A draft has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// The day of issue, in the seller's time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_date: Option<String>,
    /// RFC 3339, ledger time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<String>,
    pub seller: PartyShown,
    pub customer: PartyShown,
    pub currency: String,
    /// The first day after what is billed; empty for a credit note that a person wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_end: Option<String>,
    /// For a credit note that a person wrote: which invoice it is about, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub sections: Vec<DocumentSection<R>>,
    /// The sum of all lines.
    pub subtotal: String,
    pub taxes: Vec<TaxShown>,
    /// With taxes.
    pub total: String,
    /// What the customer's credit paid of it.
    pub credit_applied: String,
    pub amount_due: String,
    /// What must be said on it: of taxes, of the seller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Which usage was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutShown>,
}

/// A document as it is printed: what stands in its texts.
pub type Printed = Document<IgnoredAny>;

/// Who sells, or buys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyShown {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// The usage that was read: all that was posted by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutShown {
    pub as_of: String,
    pub complete_through: String,
    /// Which certificate says what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certified>,
}

/// Why lines are on a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SectionKind {
    /// A period that has ended.
    Period,
    /// Fees in advance, of the period that begins.
    Advance,
    /// What an earlier period comes to now, less what was invoiced for it.
    Correction,
    /// A credit that a person gave.
    Credit,
}

/// The lines of one plan and period.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
pub struct DocumentSection<R> {
    pub kind: SectionKind,
    pub plan: String,
    /// RFC 3339 in the customer's time zone; empty for a person's credit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    pub lines: Vec<DocumentLine<R>>,
    /// The sum of its lines.
    pub total: String,
}

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
pub struct DocumentLine<R> {
    pub description: String,
    /// The same amount in words: quantity and price, the part of the period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// How the amount came about, as in the live bill; nothing where the catalogue knows of it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rated: Option<R>,
    /// What earlier documents charged for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoiced_before: Option<String>,
    /// The name of its tax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<String>,
    pub amount: String,
}

/// What one rate comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaxShown {
    pub name: String,
    pub label: String,
    pub category: String,
    pub percent: String,
    /// Whether the lines' amounts hold it.
    pub inclusive: bool,
    pub net: String,
    pub tax: String,
}
