//! A document as rows, for spreadsheets and imports: RFC 4180.
//!
//! ```text
//! number,kind,date,customer,currency,section_kind,plan,period_start,...,amount CR LF
//! one row a line of the document; one a tax, section_kind "tax"; a last one, "total"
//! ```
//! Spreadsheets take a cell that begins with one of `= + - @`, a tab or a line break for a formula, and run it: a text
//! that does gets an apostrophe in front. Amounts are our own decimals, and stay numbers.

use super::{DocumentKind, Printed, SectionKind};

const HEADER: [&str; 14] = [
    "number",
    "kind",
    "date",
    "customer",
    "currency",
    "section_kind",
    "plan",
    "period_start",
    "period_end",
    "description",
    "details",
    "tax",
    "invoiced_before",
    "amount",
];

/// What one row says beside what all rows do.
#[derive(Default)]
struct Row<'a> {
    section_kind: &'a str,
    plan: &'a str,
    start: Option<&'a str>,
    end: Option<&'a str>,
    description: &'a str,
    details: Option<&'a str>,
    tax: Option<&'a str>,
    invoiced_before: Option<&'a str>,
    amount: &'a str,
}

/// Renders `document` as CSV with a header row, in UTF-8 without a byte order mark.
#[must_use]
pub fn csv(document: &Printed) -> String {
    let mut page = String::new();
    write(&mut page, HEADER.into_iter().map(str::to_owned));
    for section in &document.sections {
        for line in &section.lines {
            let row = Row {
                section_kind: kind(section.kind),
                plan: &section.plan,
                start: section.start.as_deref(),
                end: section.end.as_deref(),
                description: &line.description,
                details: line.details.as_deref(),
                tax: line.tax.as_deref(),
                invoiced_before: line.invoiced_before.as_deref(),
                amount: &line.amount,
            };
            write(&mut page, cells(document, &row).into_iter());
        }
    }
    for tax in &document.taxes {
        let how = if tax.inclusive { "included, on" } else { "on" };
        let row = Row {
            section_kind: "tax",
            description: &tax.label,
            details: Some(&format!("{} % {how} {}", tax.percent, tax.net)),
            tax: Some(&tax.name),
            amount: &tax.tax,
            ..Row::default()
        };
        write(&mut page, cells(document, &row).into_iter());
    }
    let row = Row { section_kind: "total", amount: &document.total, ..Row::default() };
    write(&mut page, cells(document, &row).into_iter());
    page
}

/// As in the API.
fn kind(section: SectionKind) -> &'static str {
    match section {
        SectionKind::Period => "period",
        SectionKind::Advance => "advance",
        SectionKind::Correction => "correction",
        SectionKind::Credit => "credit",
    }
}

fn cells(document: &Printed, row: &Row<'_>) -> [String; 14] {
    let kind = match document.kind {
        DocumentKind::Invoice => "invoice",
        DocumentKind::CreditNote => "credit_note",
    };
    [
        text(document.number.as_deref().unwrap_or_default()),
        kind.to_owned(),
        text(document.date.as_deref().unwrap_or_default()),
        text(&document.customer.id),
        text(&document.currency),
        row.section_kind.to_owned(),
        text(row.plan),
        text(row.start.unwrap_or_default()),
        text(row.end.unwrap_or_default()),
        text(row.description),
        text(row.details.unwrap_or_default()),
        text(row.tax.unwrap_or_default()),
        row.invoiced_before.unwrap_or_default().to_owned(),
        row.amount.to_owned(),
    ]
}

/// A text that no spreadsheet takes for a formula.
fn text(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    if is_formula { format!("'{cell}") } else { cell.to_owned() }
}

fn write(page: &mut String, cells: impl Iterator<Item = String>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            page.push(',');
        }
        if cell.contains(['"', ',', '\r', '\n']) {
            page.push('"');
            page.push_str(&cell.replace('"', "\"\""));
            page.push('"');
        } else {
            page.push_str(&cell);
        }
    }
    page.push_str("\r\n");
}
