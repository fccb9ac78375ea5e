//! Documents as people see them: what `pdftotext` reads out of a PDF.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tidemark_collector::invoice::Printed;
use tidemark_collector::invoice::print::{html, pdf};

const LINES: usize = 300;

/// An invoice with many lines, long names and texts that run from right to left.
fn document() -> Result<Printed> {
    let long = "An extraordinarily long description of a service that does not fit ".repeat(4);
    let line = |number: usize| {
        format!(
            r#"{{"description":"line-{number}","details":"{long}","tax":"vat","amount":"1.00"}}"#
        )
    };
    let lines = (1..=LINES).map(line).collect::<Vec<_>>().join(",");
    let text = format!(
        r#"{{"kind":"invoice","number":"INV2026-000001","date":"2026-12-01","due_date":"2026-12-15",
        "seller":{{"id":"main","name":"Łódzka Spółka z o.o.","address":["ul. Żółta 1","Łódź"],"tax_id":"PL123"}},
        "customer":{{"id":"acme","name":"אקמה בע״מ","address":["شارع الملك","₹ Bazaar"]}},
        "currency":"EUR","period_end":"2026-12-01",
        "sections":[{{"kind":"period","plan":"price in € and zł and ₹","lines":[{lines}],"total":"300.00"}}],
        "subtotal":"300.00","taxes":[{{"name":"vat","label":"VAT 19 %","category":"taxable","percent":"19",
        "inclusive":false,"net":"300.00","tax":"57.00"}}],"total":"357.00","credit_applied":"0.00",
        "amount_due":"357.00","notes":["<script>alert(1)</script>"]}}"#
    );
    serde_json::from_str(&text).context("the document")
}

#[test]
fn a_pdf_is_read_as_text() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("invoice.pdf");
    std::fs::write(&path, pdf(&document()?)?)?;
    let read = Command::new("pdftotext").arg("-layout").arg(&path).arg("-").output();
    let read = read.context("pdftotext is missing: tests/run installs poppler-utils")?;
    ensure!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let text = String::from_utf8(read.stdout)?;
    for expected in [
        "INV2026-000001",
        "Łódzka Spółka z o.o.",
        "ul. Żółta 1",
        "€",
        "zł",
        "₹",
        "אקמה",
        "الملك",
        "357.00",
    ] {
        ensure!(text.contains(expected), "{expected} is not in it:\n{text}");
    }
    for number in 1..=LINES {
        let is_there = text.split_whitespace().any(|word| word == format!("line-{number}"));
        ensure!(is_there, "line {number} is not in it");
    }
    let pages = text.matches('\u{c}').count();
    ensure!(text.contains(&format!("Page {pages} of {pages}")) && pages > 10, "{pages} pages");
    Ok(())
}

#[test]
fn a_page_holds_no_script() -> Result<()> {
    let page = html(&document()?);
    ensure!(!page.contains("<script") && page.contains("&lt;script"), "{page}");
    ensure!(page.contains("אקמה") && page.contains("<bdi"), "{page}");
    Ok(())
}
