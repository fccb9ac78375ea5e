//! Ledger entries: what happened to money, in double entry, each chained to the one before.
//!
//! ```text
//! entry as stored: one JSON object, see [`LedgerEntry::encode`]
//! digest  = SHA-256("tidemark ledger entry 1\n" + the entry as stored)
//! previous of the next entry = digest;  of the first: 64 zeros
//! ```
//! **Owns** accounts, postings and the bytes of an entry. **Does not own** which postings a change makes (`books`).
//!
//! Invariants: the postings of an entry come to nothing in each currency, or it cannot be made. A debit is positive.
//! An entry without postings is an audit entry: it says who did what, and why.
//!
//! | account | what a debit balance is | moved by |
//! |---|---|---|
//! | `receivable` | what customers owe | invoices, payments, credit notes, write-offs |
//! | `unbilled` | what is used and not invoiced | nothing yet: its place is kept |
//! | `revenue/PRODUCT` | (credit) what was earned, by meter, fee or plan | invoices, credit notes |
//! | `deferred` | (credit) what was invoiced in advance | invoices, when the period is over |
//! | `customer_credit` | (credit) what customers have to their credit | credit notes, overpayment, invoices that use it |
//! | `tax_payable` | (credit) taxes that were invoiced | invoices, credit notes |
//! | `rounding` | what rounding left over | nothing yet: shares always add up |
//! | `write_off` | what will not be paid | write-offs |
//! | `clearing` | payments that came in | payments |

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use tidemark_common::hex;
use tidemark_common::id::Digest;

use crate::money::{Currency, Money, MoneyError};

const DIGEST_PREFIX: &[u8] = b"tidemark ledger entry 1\n";

/// Where an amount is booked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    Receivable,
    Unbilled,
    Revenue { product: String },
    Deferred,
    CustomerCredit,
    TaxPayable,
    Rounding,
    WriteOff,
    Clearing,
}

impl Account {
    /// # Errors
    /// A text that names no account.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        Ok(match text {
            "receivable" => Self::Receivable,
            "unbilled" => Self::Unbilled,
            "deferred" => Self::Deferred,
            "customer_credit" => Self::CustomerCredit,
            "tax_payable" => Self::TaxPayable,
            "rounding" => Self::Rounding,
            "write_off" => Self::WriteOff,
            "clearing" => Self::Clearing,
            _ => match text.strip_prefix("revenue/") {
                Some(product) => Self::Revenue { product: product.to_owned() },
                None => return Err(EntryError::Account { text: text.to_owned() }),
            },
        })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receivable => "receivable",
            Self::Unbilled => "unbilled",
            Self::Revenue { product } => return write!(f, "revenue/{product}"),
            Self::Deferred => "deferred",
            Self::CustomerCredit => "customer_credit",
            Self::TaxPayable => "tax_payable",
            Self::Rounding => "rounding",
            Self::WriteOff => "write_off",
            Self::Clearing => "clearing",
        })
    }
}

/// An entry that cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryError {
    #[error("failed to make an entry: its postings do not come to nothing but to {rest}")]
    Unbalanced { rest: Money },
    #[error("failed to make an entry: {0}")]
    Money(#[from] MoneyError),
    #[error("failed to read an entry: there is no account {text:?}")]
    Account { text: String },
    #[error("failed to read an entry: {reason}")]
    Broken { reason: String },
}

/// Amounts by account, which come to nothing in each currency; no account twice, none with nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Postings(BTreeMap<(Account, Currency), i128>);

impl Postings {
    /// Sums amounts by account; a debit is positive.
    ///
    /// # Errors
    /// Amounts that do not come to nothing, or sums beyond 128 bits.
    pub fn new(amounts: impl IntoIterator<Item = (Account, Money)>) -> Result<Self, EntryError> {
        let (mut postings, mut rests) = (BTreeMap::new(), BTreeMap::new());
        for (account, amount) in amounts {
            let currency = amount.currency;
            let held = postings.entry((account, currency)).or_insert(0_i128);
            let sum = Money { minor: *held, currency }.checked_add(amount)?;
            *held = sum.minor;
            let rest = rests.entry(currency).or_insert_with(|| Money::zero(currency));
            *rest = rest.checked_add(amount)?;
        }
        if let Some(rest) = rests.into_values().find(|rest| rest.minor != 0) {
            return Err(EntryError::Unbalanced { rest });
        }
        postings.retain(|_, minor| *minor != 0);
        Ok(Self(postings))
    }

    /// Takes back what these posted: a reversal.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let negated =
            |(key, minor): (&(Account, Currency), &i128)| (key.clone(), minor.saturating_neg());
        Self(self.0.iter().map(negated).collect())
    }

    /// By account and currency, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&Account, Money)> {
        self.0.iter().map(|((account, currency), minor)| {
            (account, Money { minor: *minor, currency: *currency })
        })
    }

    /// What is posted to one account.
    #[must_use]
    pub fn of(&self, account: &Account, currency: Currency) -> Money {
        let minor = self.0.get(&(account.clone(), currency)).copied().unwrap_or(0);
        Money { minor, currency }
    }
}

/// What an entry tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A document was issued.
    Issue,
    /// Of the periods of a run nothing was due.
    NothingDue,
    /// An invoice is void: its postings are reversed.
    Void,
    Payment,
    WriteOff,
    /// A person corrected usage.
    Correction,
    /// A catalogue was taken into use.
    Catalog,
    /// A sandbox's time was advanced.
    TestClock,
    /// A month takes no further entries.
    Lock,
    /// A cut was certified.
    Certificate,
    /// Certificates are signed by another key from now on.
    Key,
    /// Invoices need not wait for a finding.
    Waiver,
    /// A stream was declared lost.
    StreamLost,
}

impl EntryKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::NothingDue => "nothing_due",
            Self::Void => "void",
            Self::Payment => "payment",
            Self::WriteOff => "write_off",
            Self::Correction => "correction",
            Self::Catalog => "catalog",
            Self::TestClock => "test_clock",
            Self::Lock => "lock",
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Waiver => "waiver",
            Self::StreamLost => "stream_lost",
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// From 1, without holes.
    pub number: u64,
    /// The digest of the entry before; zeros for the first.
    pub previous: Digest,
    /// Ledger time, unix milliseconds.
    pub at: i64,
    /// The day that it counts for: `2026-01-31`.
    pub date: String,
    pub kind: EntryKind,
    /// Who did it.
    pub actor: String,
    pub reason: Option<String>,
    pub customer: Option<String>,
    /// The number of the document that it is about, and the SHA-256 of one that was issued.
    pub document: Option<String>,
    pub document_sha256: Option<String>,
    /// A payment's reference, the invoice of a credit note, what is corrected, a month that is locked.
    pub subject: Option<String>,
    pub postings: Postings,
}

/// The order of fields is the format.
#[derive(Debug, Serialize, Deserialize)]
struct EntryRow {
    version: u16,
    number: u64,
    previous: String,
    at: i64,
    date: String,
    kind: EntryKind,
    actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    customer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    postings: Vec<PostingRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PostingRow {
    account: String,
    amount: String,
    currency: String,
}

const VERSION: u16 = 1;

impl LedgerEntry {
    /// The entry as it is stored, shown and hashed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let postings = self.postings.iter().map(|(account, amount)| PostingRow {
            account: account.to_string(),
            amount: amount.amount(),
            currency: amount.currency.to_string(),
        });
        let row = EntryRow {
            version: VERSION,
            number: self.number,
            previous: self.previous.to_string(),
            at: self.at,
            date: self.date.clone(),
            kind: self.kind,
            actor: self.actor.clone(),
            reason: self.reason.clone(),
            customer: self.customer.clone(),
            document: self.document.clone(),
            document_sha256: self.document_sha256.clone(),
            subject: self.subject.clone(),
            postings: postings.collect(),
        };
        serde_json::to_vec(&row).expect("texts and numbers are JSON")
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Other bytes, or postings that do not come to nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let broken = |reason: String| EntryError::Broken { reason };
        let row: EntryRow =
            serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
        if row.version != VERSION {
            return Err(broken(format!("its version {} is unknown", row.version)));
        }
        let mut amounts = Vec::with_capacity(row.postings.len());
        for PostingRow { account, amount, currency } in &row.postings {
            let currency = Currency::parse(currency).map_err(|error| broken(error.to_string()))?;
            let amount =
                Money::parse(amount, currency).map_err(|error| broken(error.to_string()))?;
            amounts.push((Account::parse(account)?, amount));
        }
        let previous = hex::decode_array(&row.previous);
        Ok(Self {
            number: row.number,
            previous: Digest(previous.ok_or_else(|| broken("`previous` is no digest".to_owned()))?),
            at: row.at,
            date: row.date,
            kind: row.kind,
            actor: row.actor,
            reason: row.reason,
            customer: row.customer,
            document: row.document,
            document_sha256: row.document_sha256,
            subject: row.subject,
            postings: Postings::new(amounts)?,
        })
    }
}

/// The digest of an entry as stored.
#[must_use]
pub fn digest(stored: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(DIGEST_PREFIX);
    hash.update(stored);
    Digest(hash.finalize().into())
}

#[cfg(test)]
mod tests;
