//! A document for people: a page to print, rows for a spreadsheet, PDF.
//!
//! **Owns** the words around a document's texts, and in which order they are read. **Does not own** the document: what
//! is printed is what was stored, so that a rendering never disagrees with it.
//!
//! Pure, and the same document gives the same bytes. Texts that people wrote (names, addresses, descriptions) may run
//! either way, and hold anything: each rendering sets them apart from ours, and escapes them as its format asks.
//!
//! Limits: the words are English; dates and amounts stand as they are in the document.

mod csv;
mod html;
mod pdf;

pub use csv::csv;
pub use html::html;
pub use pdf::{PdfError, pdf};

use std::borrow::Cow;

use jiff::civil::Date;

use super::{DocumentKind, DocumentSection, PartyShown, Printed, SectionKind};

/// What stands beside a name of ours.
struct Fact<'a> {
    label: &'static str,
    value: Cow<'a, str>,
}

/// One of the amounts at the end.
struct Sum<'a> {
    label: &'a str,
    /// What it is of, in our words.
    note: String,
    amount: Cow<'a, str>,
    weight: Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Plain,
    Strong,
}

/// `Invoice 2026-0001`; a draft has no number, and says so.
fn title(document: &Printed) -> String {
    match &document.number {
        Some(number) => format!("{} {number}", document.kind.title()),
        None => format!("DRAFT: {}", document.kind.title()),
    }
}

fn facts(document: &Printed) -> Vec<Fact<'_>> {
    let fact = |label, value: Option<Cow<'static, str>>| value.map(|value| Fact { label, value });
    let told = |label, value: &'_ Option<String>| fact(label, value.clone().map(Cow::Owned));
    let number = document.number.clone().unwrap_or_else(|| "DRAFT".to_owned());
    let through = document.period_end.as_deref().map(|end| Cow::Owned(last_day(end)));
    [
        fact("Number", Some(Cow::Owned(number))),
        told("Date", &document.date),
        told("Due date", &document.due_date),
        fact("Billed through", through),
        fact("Customer", Some(Cow::Owned(document.customer.id.clone()))),
        told("Credits invoice", &document.credits),
        told("Reason", &document.reason),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A party's name.
fn name(party: &PartyShown) -> &str {
    party.name.as_deref().unwrap_or(&party.id)
}

/// What a section's lines are.
fn kind(section: SectionKind) -> &'static str {
    match section {
        SectionKind::Period => "Period",
        SectionKind::Advance => "Fees in advance",
        SectionKind::Correction => "Correction",
        SectionKind::Credit => "Credit",
    }
}

/// `2026-03-01 to 2026-03-31`, both included, where days are whole; with the times where they are not.
fn span<R>(section: &DocumentSection<R>) -> Option<String> {
    let (start, end) = (section.start.as_deref()?, section.end.as_deref()?);
    Some(match (whole_day(start), whole_day(end)) {
        (Some(first), Some(_)) => format!("{first} to {}", last_day(end)),
        (None, _) | (_, None) => format!("{} to {}", minute(start), minute(end)),
    })
}

/// The day that begins at `instant`, of RFC 3339 or a day alone.
fn whole_day(instant: &str) -> Option<Date> {
    let (day, time) = instant.split_once('T').unwrap_or((instant, "00:00:00"));
    if time.starts_with("00:00:00") { day.parse().ok() } else { None }
}

/// The day before `end`, where it is the first moment of a day.
fn last_day(end: &str) -> String {
    match whole_day(end).and_then(|day| day.yesterday().ok()) {
        Some(day) => day.to_string(),
        None => minute(end),
    }
}

/// `2026-03-10 14:05`, of RFC 3339; anything else as it is.
fn minute(instant: &str) -> String {
    match instant.split_once('T') {
        Some((day, time)) => format!("{day} {}", time.get(..5).unwrap_or(time)),
        None => instant.to_owned(),
    }
}

fn sums(document: &Printed) -> Vec<Sum<'_>> {
    let sum = |label, amount, weight| Sum { label, note: String::new(), amount, weight };
    let (total, is_note) = match document.kind {
        DocumentKind::Invoice => ("Total", false),
        DocumentKind::CreditNote => ("Total credited", true),
    };
    let mut sums = vec![sum("Subtotal", Cow::from(&document.subtotal), Weight::Plain)];
    sums.extend(document.taxes.iter().map(|tax| {
        let percent = match tax.label.contains(&tax.percent) || is_zero(&tax.percent) {
            true => String::new(),
            false => format!("{} % ", tax.percent),
        };
        let note = match tax.inclusive {
            true => format!("{percent}included, on {} net", tax.net),
            false => format!("{percent}on {}", tax.net),
        };
        Sum { label: &tax.label, note, amount: Cow::from(&tax.tax), weight: Weight::Plain }
    }));
    sums.push(sum(total, Cow::from(&document.total), Weight::Strong));
    if !is_zero(&document.credit_applied) {
        let paid = Cow::from(format!("-{}", document.credit_applied));
        sums.push(sum("Credit applied", paid, Weight::Plain));
    }
    // A credit note asks for nothing.
    if !is_note || !is_zero(&document.amount_due) {
        sums.push(sum("Amount due", Cow::from(&document.amount_due), Weight::Strong));
    }
    sums
}

fn is_zero(amount: &str) -> bool {
    amount.chars().all(|character| matches!(character, '0' | '.' | '-'))
}

/// Whether any line was charged for before.
fn is_any_invoiced_before(document: &Printed) -> bool {
    let mut lines = document.sections.iter().flat_map(|section| &section.lines);
    lines.any(|line| line.invoiced_before.is_some())
}

/// Which usage was read, in a sentence.
fn cut(document: &Printed) -> Option<String> {
    let cut = document.cut.as_ref()?;
    Some(format!("Usage posted by {}, complete through {}.", cut.as_of, cut.complete_through))
}

#[cfg(test)]
mod tests;
