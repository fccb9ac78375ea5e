//! A document as a page to read and to print: one file, which asks for nothing else and runs nothing.
//!
//! Every text is escaped, and what people wrote stands in a `<bdi>` or under `dir="auto"`, so that a name from right to
//! left neither moves its neighbours nor is moved. The table's head repeats on every sheet of paper.

use std::fmt::Write as _;

use super::{Fact, Printed, Sum, Weight};
use super::{cut, facts, is_any_invoiced_before, kind, name, span, sums, title};
use crate::invoice::{DocumentLine, DocumentSection, PartyShown};

/// Paper is A4; a reader of another size scales it.
const STYLE: &str = "\
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:9.5pt/1.35 'DejaVu Sans',system-ui,'Segoe UI',Roboto,'Noto Sans','Noto Sans Hebrew','Noto Sans Arabic',Arial,sans-serif;\
color:#111;background:#fff;max-width:186mm;margin:12mm auto;padding:0 4mm;overflow-wrap:anywhere}
h1{font-size:20pt;line-height:1.2;margin:0 0 5mm}
h2{font-size:8pt;font-weight:normal;color:#555;margin:0 0 1mm;text-transform:uppercase;letter-spacing:.05em}
.draft{border:2pt solid #a00;color:#a00;font-weight:bold;padding:1mm 3mm;margin:0 0 5mm;text-align:center}
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 6mm;margin:0 0 6mm}
dt{color:#555}dd{margin:0}
.parties{display:grid;grid-template-columns:1fr 1fr;gap:10mm;margin:0 0 8mm}
.parties p{margin:0}.parties .name{font-weight:bold}
table{width:100%;border-collapse:collapse;margin:0 0 5mm}
thead{display:table-header-group}
tr{break-inside:avoid}
th{text-align:start;font-weight:bold}
thead th{font-size:8pt;font-weight:normal;color:#555;border-bottom:.8pt solid #111;padding:1mm 4mm 1mm 0;vertical-align:bottom}
td{border-bottom:.4pt solid #ccc;padding:.9mm 4mm .9mm 0;vertical-align:top}
tbody th{padding:3mm 0 1mm;break-after:avoid}
tbody th .span{font-weight:normal;color:#555}
.details{display:block;font-size:8pt;color:#555}
.tax{width:34mm}
.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;padding-right:0;padding-left:3mm}
.sum td{border:0;border-bottom:.8pt solid #111;font-size:8pt;color:#555}
.totals{width:auto;min-width:50%;max-width:100%;margin-left:auto;break-inside:avoid}
.totals td{border:0;padding:.6mm 0}
.totals .strong td{font-weight:bold;border-top:.8pt solid #111}
.notes p{margin:0 0 1.5mm}.cut{font-size:8pt;color:#555}
@page{size:A4;margin:16mm 14mm 18mm;@bottom-right{content:'Page ' counter(page) ' of ' counter(pages);font-size:8pt}}
@media print{body{max-width:none;margin:0;padding:0}}
";

/// Renders `document` as a whole HTML page, in UTF-8.
#[must_use]
pub fn html(document: &Printed) -> String {
    let title = escaped(&title(document));
    let (seller, customer) = (party("From", &document.seller), party("To", &document.customer));
    let banner = match document.number {
        Some(_) => "",
        None => "<p class=\"draft\">DRAFT: not issued, not to be paid</p>\n",
    };
    let facts: String = facts(document).iter().map(fact).collect();
    let table = table(document);
    let currency = escaped(&document.currency);
    let totals: String = sums(document).iter().map(|sum| total(sum, &currency)).collect();
    let notes: String = document.notes.iter().map(|note| paragraph("note", note)).collect();
    let cut = cut(document).map(|cut| paragraph("cut", &cut)).unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n{banner}<h1><bdi>{title}</bdi></h1>\n\
         <dl>\n{facts}</dl>\n<div class=\"parties\">\n{seller}{customer}</div>\n{table}\
         <table class=\"totals\">\n<tbody>\n{totals}</tbody>\n</table>\n\
         <div class=\"notes\">\n{notes}{cut}</div>\n</body>\n</html>\n"
    )
}

fn fact(fact: &Fact<'_>) -> String {
    format!("<dt>{}</dt><dd><bdi>{}</bdi></dd>\n", fact.label, escaped(&fact.value))
}

fn party(role: &str, party: &PartyShown) -> String {
    let mut told = format!("<section>\n<h2>{role}</h2>\n{}", paragraph("name", name(party)));
    told.extend(party.address.iter().map(|line| paragraph("address", line)));
    for (label, value) in [("Tax id", &party.tax_id), ("E-mail", &party.email)] {
        if let Some(value) = value {
            push(&mut told, format_args!("<p>{label}: <bdi>{}</bdi></p>\n", escaped(value)));
        }
    }
    told.push_str("</section>\n");
    told
}

/// A paragraph that people wrote.
fn paragraph(class: &str, text: &str) -> String {
    format!("<p class=\"{class}\" dir=\"auto\">{}</p>\n", escaped(text))
}

fn table(document: &Printed) -> String {
    let is_before = is_any_invoiced_before(document);
    let before = match is_before {
        true => "<th scope=\"col\" class=\"number\">Invoiced before</th>",
        false => "",
    };
    let mut table = format!(
        "<table>\n<thead><tr><th scope=\"col\">Description</th><th scope=\"col\" class=\"tax\">Tax</th>{before}\
         <th scope=\"col\" class=\"number\">Amount, {}</th></tr></thead>\n",
        escaped(&document.currency)
    );
    let columns = if is_before { 4 } else { 3 };
    for section in &document.sections {
        push(&mut table, format_args!("<tbody>\n{}", heading(section, columns)));
        table.extend(section.lines.iter().map(|own| line(own, is_before)));
        if document.sections.len() > 1 {
            push(
                &mut table,
                format_args!(
                    "<tr class=\"sum\"><td colspan=\"{}\">Sum</td><td class=\"number\">{}</td></tr>\n",
                    if is_before { 3 } else { 2 },
                    escaped(&section.total)
                ),
            );
        }
        table.push_str("</tbody>\n");
    }
    table.push_str("</table>\n");
    table
}

fn heading<R>(section: &DocumentSection<R>, columns: usize) -> String {
    let mut heading = kind(section.kind).to_owned();
    if !section.plan.is_empty() {
        push(&mut heading, format_args!(": <bdi>{}</bdi>", escaped(&section.plan)));
    }
    if let Some(span) = span(section) {
        push(&mut heading, format_args!(" <span class=\"span\">{}</span>", escaped(&span)));
    }
    format!("<tr><th colspan=\"{columns}\" scope=\"rowgroup\">{heading}</th></tr>\n")
}

fn line<R>(line: &DocumentLine<R>, is_before: bool) -> String {
    let details = match &line.details {
        Some(details) => {
            format!("<span class=\"details\" dir=\"auto\">{}</span>", escaped(details))
        }
        None => String::new(),
    };
    let tax = escaped(line.tax.as_deref().unwrap_or_default());
    let before = match is_before {
        true => number(line.invoiced_before.as_deref().unwrap_or_default()),
        false => String::new(),
    };
    format!(
        "<tr><td dir=\"auto\">{}{details}</td><td class=\"tax\"><bdi>{tax}</bdi></td>{before}{}</tr>\n",
        escaped(&line.description),
        number(&line.amount)
    )
}

fn number(amount: &str) -> String {
    format!("<td class=\"number\">{}</td>", escaped(amount))
}

fn total(sum: &Sum<'_>, currency: &str) -> String {
    let (class, currency) = match sum.weight {
        Weight::Plain => ("plain", String::new()),
        Weight::Strong => ("strong", format!(", {currency}")),
    };
    let space = if sum.note.is_empty() { "" } else { " " };
    format!(
        "<tr class=\"{class}\"><td><bdi>{}</bdi>{currency}{space}{}</td>{}</tr>\n",
        escaped(sum.label),
        escaped(&sum.note),
        number(&sum.amount)
    )
}

fn push(page: &mut String, told: std::fmt::Arguments<'_>) {
    page.write_fmt(told).expect("a string takes everything");
}

/// A text as HTML, in an element or in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            // HTML has no way to write them.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
