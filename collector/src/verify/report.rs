//! What a verification came to: for people and for machines.
//!
//! **Owns** the words. **Does not own** any check.

use num_bigint::BigInt;
use serde::Serialize;

use super::document::DocumentKind;
use super::{exact, instant};

/// A file of an invoice that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceReport {
    pub(super) number: String,
    pub(super) kind: DocumentKind,
    pub(super) customer: String,
    pub(super) currency: String,
    pub(super) places: u32,
    pub(super) total: BigInt,
    pub(super) amount_due: BigInt,
    pub(super) file_key: String,
    pub(super) certificate_key: String,
    pub(super) keys_compared: bool,
    pub(super) ledger: String,
    pub(super) certificate: u64,
    pub(super) certificate_digest: String,
    pub(super) as_of: i64,
    pub(super) complete_through: Option<i64>,
    /// Rows and corrections whose texts are in the file, and the customer's days, some of them as digests alone.
    pub(super) texts: usize,
    pub(super) days: usize,
    pub(super) days_hidden: usize,
    pub(super) texts_charged: usize,
    pub(super) rated_lines: u64,
    pub(super) usage_lines: u64,
    pub(super) lines: usize,
    pub(super) unproved: Vec<String>,
}

#[derive(Debug, Serialize)]
struct InvoiceShown<'r> {
    verified: bool,
    number: &'r str,
    kind: &'static str,
    customer: &'r str,
    currency: &'r str,
    total: String,
    amount_due: String,
    ledger: &'r str,
    certificate: u64,
    certificate_sha256: &'r str,
    as_of: String,
    complete_through: Option<String>,
    file_key: &'r str,
    certificate_key: &'r str,
    keys_compared: bool,
    days: usize,
    days_as_digests: usize,
    texts: usize,
    texts_charged: usize,
    lines: usize,
    lines_rated_again: u64,
    lines_of_usage: u64,
    not_proved: &'r [String],
}

impl InvoiceReport {
    /// What this file cannot prove.
    #[must_use]
    pub fn unproved(&self) -> &[String] {
        &self.unproved
    }

    /// A line each, aligned.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { number, customer, currency, places, .. } = self;
        let kind = match self.kind {
            DocumentKind::Invoice => "invoice",
            DocumentKind::CreditNote => "credit note",
        };
        let total = exact::with_places(&self.total, *places);
        let due = exact::with_places(&self.amount_due, *places);
        let through = self
            .complete_through
            .map_or_else(|| "never: some stream never confirmed".to_owned(), instant::told);
        let compared = match self.keys_compared {
            true => "published by the ledger, as the keys' file says",
            false => "NOT compared with published keys: give them with --keys",
        };
        let mut told = vec![
            ("verified", format!("{kind} {number} of {customer}: {total} {currency}, due {due}")),
            ("signed by", format!("{} (the file)", self.file_key)),
            ("", format!("{} (the certificate)", self.certificate_key)),
            ("", compared.to_owned()),
            ("certificate", format!("{} of the ledger {}", self.certificate, self.ledger)),
            ("", format!("sha256 {}", self.certificate_digest)),
            ("", format!("as of {}, complete through {through}", instant::told(self.as_of))),
            (
                "usage",
                format!(
                    "{} texts of {} days are in it, {} days as digests alone",
                    self.texts,
                    self.days.saturating_sub(self.days_hidden),
                    self.days_hidden
                ),
            ),
            ("", format!("{} of them make {} lines", self.texts_charged, self.usage_lines)),
            ("amounts", format!("{} of {} lines rated again", self.rated_lines, self.lines)),
            ("sums", "sections, subtotal, taxes, total".to_owned()),
        ];
        told.extend(self.unproved.iter().map(|what| ("not proved", what.clone())));
        let words = "names, addresses, dates, labels and details are signed, not computed";
        told.push(("not proved", words.to_owned()));
        aligned(told)
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        let shown = InvoiceShown {
            verified: true,
            number: &self.number,
            kind: match self.kind {
                DocumentKind::Invoice => "invoice",
                DocumentKind::CreditNote => "credit_note",
            },
            customer: &self.customer,
            currency: &self.currency,
            total: exact::with_places(&self.total, self.places),
            amount_due: exact::with_places(&self.amount_due, self.places),
            ledger: &self.ledger,
            certificate: self.certificate,
            certificate_sha256: &self.certificate_digest,
            as_of: instant::told(self.as_of),
            complete_through: self.complete_through.map(instant::told),
            file_key: &self.file_key,
            certificate_key: &self.certificate_key,
            keys_compared: self.keys_compared,
            days: self.days,
            days_as_digests: self.days_hidden,
            texts: self.texts,
            texts_charged: self.texts_charged,
            lines: self.lines,
            lines_rated_again: self.rated_lines,
            lines_of_usage: self.usage_lines,
            not_proved: &self.unproved,
        };
        let text = serde_json::to_string_pretty(&shown).expect("a report is text and numbers");
        format!("{text}\n")
    }
}

/// Names in one column; one that stands again is left out.
fn aligned(told: Vec<(&'static str, String)>) -> String {
    let mut before = "";
    let lines = told.into_iter().map(|(name, text)| {
        let shown = if name == before { "" } else { name };
        before = name;
        format!("{shown:<12} {text}\n")
    });
    lines.collect()
}

/// A certificate that agrees with an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateReport {
    pub(super) number: u64,
    pub(super) ledger: String,
    pub(super) digest: String,
    pub(super) key: String,
    pub(super) keys_compared: bool,
    /// Unix milliseconds, as the next one.
    pub(super) as_of: i64,
    pub(super) complete_through: Option<i64>,
    pub(super) batches: u64,
    pub(super) batches_again: u64,
    pub(super) set_aside: u64,
    pub(super) readable_set_aside: u64,
    pub(super) streams: usize,
    /// How many texts were given, if any were.
    pub(super) streams_listed: Option<u64>,
    pub(super) events: u128,
    pub(super) customers: u64,
    pub(super) days: u64,
    pub(super) rows: u64,
    pub(super) corrections: u64,
    pub(super) findings: usize,
    pub(super) waivers: usize,
    pub(super) policies: usize,
}

impl CertificateReport {
    /// A line each, aligned.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { number, ledger, batches, streams, events, set_aside, .. } = self;
        let compared = match self.keys_compared {
            true => "published by the ledger, as the keys' file says",
            false => "NOT compared with published keys: give them with --keys",
        };
        let through = self
            .complete_through
            .map_or_else(|| "never: some stream never confirmed".to_owned(), instant::told);
        let listed = match self.streams_listed {
            Some(listed) => format!("{listed} texts of streams come to the streams' root"),
            None => "the streams' root is NOT compared: give the texts with --streams".to_owned(),
        };
        let Self { findings, waivers, policies, .. } = self;
        let mut told = vec![
            ("verified", format!("certificate {number} of the ledger {ledger}")),
            ("", format!("sha256 {}", self.digest)),
            ("", format!("as of {}, complete through {through}", instant::told(self.as_of))),
            ("signed by", self.key.clone()),
            ("", compared.to_owned()),
            (
                "chains",
                format!(
                    "{batches} batches of {streams} streams with {events} events, without holes"
                ),
            ),
            ("", listed),
            (
                "usage tree",
                format!(
                    "{} rows and {} corrections of {} days of {} customers",
                    self.rows, self.corrections, self.days, self.customers
                ),
            ),
            ("sums", "of every meter and class".to_owned()),
            (
                "not proved",
                format!(
                    "evidence, duplicates, {findings} findings, {waivers} waivers, {policies} policies: they are signed, no batch has them"
                ),
            ),
        ];
        if *set_aside > 0 {
            let readable = self.readable_set_aside;
            told.push((
                "note",
                format!("{set_aside} batches were set aside and are in no sum; {readable} of them can be read now"),
            ));
        }
        if self.batches_again > 0 {
            told.push(("note", format!("{} batches came again", self.batches_again)));
        }
        aligned(told)
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        let mut shown = serde_json::to_value(self).expect("a report is text and numbers");
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("verified".to_owned(), true.into());
        }
        format!("{shown:#}\n")
    }
}
