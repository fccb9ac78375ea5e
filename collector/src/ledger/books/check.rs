//! Checks the books row by row: the chain of entries, their balance, documents, numbers and states.
//!
//! **Owns** what holds together in sound books. **Does not own** reading them.
//!
//! Rows come ascending by key. Memory holds a few words for each document.

mod certificates;

use std::collections::BTreeMap;

use tidemark_common::hex;
use tidemark_common::id::{CustomerId, Digest};

use super::correction::CorrectionRow;
use super::rows::{self, DocumentState, Head, InvoicedLine, Minor, PeriodRow, StateRow};
use super::sha256;
use crate::ledger::check::{FindingKind, Findings, Place};
use crate::ledger::codec::RowError;
use crate::ledger::entry::{self, Account, EntryKind, LedgerEntry};
use crate::reconcile::{LossRow, Waiver};
use certificates::CertificatesCheck;

/// What the rows so far came to.
#[derive(Debug, Default)]
pub struct BooksCheck {
    entries: u64,
    last: Option<Digest>,
    /// By number: the SHA-256 of each stored document.
    documents: BTreeMap<String, String>,
    /// What entries say was issued.
    issued: BTreeMap<String, String>,
    /// What entries leave receivable of each document, and its currency.
    receivable: BTreeMap<String, i128>,
    /// The last number of each series.
    series: BTreeMap<String, u64>,
    states: BTreeMap<String, StateRow>,
    /// By entry: what was corrected. Rows take theirs out.
    corrections: BTreeMap<u64, String>,
    /// By a period's key: what its row says was invoiced, less what the documents charge.
    invoiced: BTreeMap<Vec<u8>, i128>,
    /// By customer and currency: the credit that its row tells, and that the entries leave.
    credit: BTreeMap<(String, String), i128>,
    certificates: CertificatesCheck,
    head: Option<Head>,
    rows: u64,
}

impl BooksCheck {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Takes the next row.
    pub fn row(&mut self, key: &[u8], value: &[u8], findings: &mut Findings) {
        self.rows = self.rows.saturating_add(1);
        let (kind, rest) = key.split_at_checked(1).unwrap_or((key, &[]));
        let text = String::from_utf8_lossy(rest).into_owned();
        let read = match kind {
            rows::ENTRIES => return self.entry(rest, value, findings),
            rows::DOCUMENTS => {
                self.documents.insert(text, hex::encode(&sha256(value)));
                Ok(())
            }
            rows::HEAD => rows::read("head", value).map(|head| self.head = Some(head)),
            rows::SERIES => rows::read("series", value).map(|last| {
                self.series.insert(text, last);
            }),
            rows::STATES => rows::read("state", value).map(|state| {
                self.states.insert(text, state);
            }),
            rows::PERIODS => rows::read("period", value)
                .map(|row: PeriodRow| self.charge(key.to_vec(), sum_of(&row.lines))),
            rows::EFFECTS => rows::read("effect", value).map(|effect| self.effect(&text, &effect)),
            rows::CUSTOMERS => rows::read("customer", value).map(|row| self.customer(rest, row)),
            rows::RUNS | rows::LOCK => rows::read::<String>("text", value).map(drop),
            rows::CORRECTIONS => rows::read("correction", value)
                .map(|row: CorrectionRow| self.correction(rest, &row, findings)),
            rows::REQUESTS => rows::read::<rows::RequestRow>("request", value).map(drop),
            rows::USED_PLANS => rows::read::<rows::UsedPlan>("used plan", value).map(drop),
            rows::USED_TAXES => rows::read::<rows::UsedTax>("used tax", value).map(drop),
            rows::LOSSES => rows::read::<LossRow>("loss", value).map(drop),
            rows::WAIVERS => rows::read::<Waiver>("waiver", value).map(drop),
            rows::TEST_CLOCK => rows::read::<i64>("test clock", value).map(drop),
            rows::CERTIFIED => self.certificates.last(value),
            rows::KEYS => CertificatesCheck::keys(value),
            rows::CERTIFICATES => self.certificates.file(rest, value, findings),
            rows::BY_CUSTOMER | rows::CATALOG | rows::PROOFS | rows::CERTIFIED_STREAMS => Ok(()),
            rows::CATALOGS => match rest == sha256(value) {
                true => Ok(()),
                false => {
                    Err(RowError { row: "catalogue", reason: "it is another text".to_owned() })
                }
            },
            _ => Err(RowError { row: "books", reason: "its kind is unknown".to_owned() }),
        };
        if let Err(error) = read {
            let key = hex::encode(key);
            add(findings, || format!("row {key}: {error}"));
        }
    }

    /// Entries come before corrections.
    fn correction(&mut self, key: &[u8], row: &CorrectionRow, findings: &mut Findings) {
        let entry = key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number));
        if self.corrections.remove(&entry) != Some(row.told()) {
            add(findings, || format!("a correction is not the one of entry {entry}"));
        }
    }

    fn charge(&mut self, key: Vec<u8>, amount: i128) {
        let sum = self.invoiced.entry(key).or_default();
        *sum = sum.saturating_add(amount);
    }

    /// States come before effects.
    fn effect(&mut self, number: &str, effect: &rows::Effect) {
        let Some(state) = self.states.get(number) else { return };
        let Ok(customer) = CustomerId::parse(&state.customer) else { return };
        if state.state == DocumentState::Void {
            return;
        }
        for change in &effect.periods {
            let key = rows::period_key(&customer, &change.plan, change.period());
            self.charge(key, sum_of(&change.lines).saturating_neg());
        }
    }

    fn customer(&mut self, key: &[u8], row: rows::CustomerRow) {
        let name = String::from_utf8_lossy(key.get(2..).unwrap_or_default()).into_owned();
        for (currency, credit) in row.credit {
            self.credit.insert((name.clone(), currency), credit.0);
        }
    }

    fn entry(&mut self, key: &[u8], value: &[u8], findings: &mut Findings) {
        let due = self.entries.saturating_add(1);
        let entry = match LedgerEntry::decode(value) {
            Ok(entry) => entry,
            Err(error) => {
                self.entries = due;
                self.last = Some(entry::digest(value));
                return add(findings, || format!("entry {due}: {error}"));
            }
        };
        if key != entry.number.to_be_bytes() || entry.number != due {
            let found = entry.number;
            add(findings, || format!("entry {due} is due, and entry {found} stands there"));
        }
        if entry.previous != self.last.unwrap_or(Digest([0; 32])) {
            add(findings, || format!("entry {due} does not continue the digest of the one before"));
        }
        self.entries = entry.number;
        self.last = Some(entry::digest(value));
        for (account, amount) in entry.postings.iter() {
            let document = match (entry.kind, &entry.subject, &entry.document) {
                // A credit note lowers what is due of the invoice that it is about.
                (EntryKind::Issue, Some(invoice), _) => Some(invoice),
                (_, _, document) => document.as_ref(),
            };
            if let (Account::CustomerCredit, Some(customer)) = (account, &entry.customer) {
                let key = (customer.clone(), amount.currency.to_string());
                let credit = self.credit.entry(key).or_default();
                *credit = credit.saturating_add(amount.minor);
            }
            if let (Account::Receivable, Some(document)) = (account, document) {
                let sum = self.receivable.entry(document.clone()).or_default();
                *sum = sum.saturating_add(amount.minor);
            }
        }
        self.certificates.entry(&entry);
        if let (EntryKind::Correction, Some(subject)) = (entry.kind, &entry.subject) {
            self.corrections.insert(entry.number, subject.clone());
        }
        if let (EntryKind::Issue, Some(document)) = (entry.kind, entry.document) {
            self.issued.insert(document, entry.document_sha256.unwrap_or_default());
        }
    }

    /// Judges what only the end can tell. How many entries there are, and documents.
    #[must_use]
    pub fn finish(self, findings: &mut Findings) -> (u64, u64) {
        let head = self.head.unwrap_or_default();
        let digest = self.last.map(|last| last.to_string()).unwrap_or_default();
        if (head.entries, &head.digest) != (self.entries, &digest) {
            let (said, found) = (head.entries, self.entries);
            add(findings, || format!("the head tells of {said} entries, there are {found}"));
        }
        self.certificates.finish(findings);
        for entry in self.corrections.keys() {
            add(findings, || format!("the correction of entry {entry} is not there"));
        }
        for (number, sha256) in &self.issued {
            if self.documents.get(number) != Some(sha256) {
                add(findings, || format!("document {number} is not the one that was issued"));
            }
            if !self.states.contains_key(number) {
                add(findings, || format!("document {number} has no state"));
            }
        }
        for number in self.documents.keys().filter(|number| !self.issued.contains_key(*number)) {
            add(findings, || format!("no entry has issued document {number}"));
        }
        for ((customer, currency), rest) in self.credit.iter().filter(|(_, rest)| **rest != 0) {
            add(findings, || {
                format!(
                    "the credit of {customer:?} is not what entries come to: {rest} minor units of {currency} more"
                )
            });
        }
        for (key, rest) in self.invoiced.iter().filter(|(_, rest)| **rest != 0) {
            let key = hex::encode(key);
            add(findings, || {
                format!(
                    "the period {key} is invoiced by {rest} minor units more than documents charge"
                )
            });
        }
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (series, number) in self.issued.keys().filter_map(|number| number.split_once('-')) {
            let count = counts.entry(series).or_default();
            *count = count.saturating_add(1);
            let last = self.series.get(series).copied().unwrap_or(0);
            if number.parse::<u64>().is_ok_and(|number| number > last) {
                add(findings, || format!("document {series}-{number} is beyond its series"));
            }
        }
        for (series, last) in &self.series {
            let found = counts.get(series.as_str()).copied().unwrap_or(0);
            if found != *last {
                add(findings, || {
                    format!("series {series} gave {last} numbers, and {found} are used")
                });
            }
        }
        for (number, state) in &self.states {
            let receivable = self.receivable.get(number).copied().unwrap_or(0);
            if let Some(what) = broken_state(state, receivable) {
                add(findings, || format!("document {number}: {what}"));
            }
        }
        let documents = u64::try_from(self.documents.len()).unwrap_or(u64::MAX);
        (self.entries, documents)
    }
}

/// What does not hold together in a document's state; `receivable` is what the entries leave of it.
fn broken_state(state: &StateRow, receivable: i128) -> Option<String> {
    let parts = [state.credit_applied, state.due, state.paid, state.credited, state.written_off];
    let sum = parts.iter().try_fold(0_i128, |sum, Minor(part)| sum.checked_add(*part));
    let is_void = state.state == DocumentState::Void;
    if state.due.0 != receivable {
        let due = state.due.0;
        return Some(format!("{due} minor units are due, by the entries {receivable}"));
    }
    let is_note = state.kind == crate::invoice::DocumentKind::CreditNote;
    if !is_void && !is_note && sum != Some(state.total.0) {
        return Some("due, paid, credited and written off do not come to its total".to_owned());
    }
    None
}

/// The sum of what lines say.
fn sum_of(lines: &[InvoicedLine]) -> i128 {
    lines.iter().fold(0, |sum, line| sum.saturating_add(line.amount.0))
}

fn add(findings: &mut Findings, what: impl FnOnce() -> String) {
    findings.add(FindingKind::Books, Place::Table("books"), None, what);
}
