//! An invoice's proof, from bytes to what it came to.

use tidemark_common::hex;

use super::bundle::Bundle;
use super::document::Document;
use super::report::InvoiceReport;
use super::{Keys, Refusal, ensure, instant, parts, sums, usage};

/// Verifies the bytes of `invoice.json`. Without `keys` nobody says whose the signatures are.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(bytes: &[u8], keys: Option<&Keys>) -> Result<InvoiceReport, Refusal> {
    let bundle = Bundle::read(bytes)?;
    if let Some(keys) = keys {
        keys.hold(&bundle.head.ledger, &bundle.key, "the file")?;
        keys.hold(&bundle.head.ledger, &bundle.head.key, "the certificate")?;
    }
    let document = Document::read(&bundle.document)?;
    ensure(document.customer == bundle.customer, "customer", || {
        format!("it is {:?}, and the document's {:?}", bundle.customer, document.customer)
    })?;
    let names_certificate = check_cut(&bundle, &document)?;
    let texts = usage::read(&bundle)?;
    let checked = parts::check(&bundle, &document, &texts)?;
    sums::check(&document, bundle.tax_rounding)?;

    let mut unproved = checked.unproved.clone();
    if !names_certificate {
        unproved.push("the document: it names no certificate; this one was made later".to_owned());
    }
    if checked.elsewhere > 0 {
        let count = checked.elsewhere;
        unproved
            .push(format!("{count} texts of usage: another plan charges them, on its own lines"));
    }
    let before = document.sections.iter().flat_map(|section| &section.lines);
    let before = before.filter(|line| line.invoiced_before.is_some()).count();
    if before > 0 {
        unproved.push(format!("{before} lines: what earlier documents charged for them"));
    }
    if bundle.tax_rounding.is_none() {
        unproved.push("taxes: a service said them; only their sums are checked".to_owned());
    }
    Ok(InvoiceReport {
        number: document.number.clone(),
        kind: document.kind,
        customer: document.customer.clone(),
        currency: document.currency.clone(),
        places: document.places,
        total: document.total.clone(),
        amount_due: document.amount_due.clone(),
        file_key: hex::encode(&bundle.key),
        certificate_key: hex::encode(&bundle.head.key),
        keys_compared: keys.is_some(),
        ledger: hex::encode(&bundle.head.ledger),
        certificate: bundle.head.number,
        certificate_digest: hex::encode(&bundle.head.digest),
        as_of: bundle.head.as_of,
        complete_through: bundle.head.complete_through,
        texts: texts.iter().flatten().map(Vec::len).sum(),
        days: texts.len(),
        days_hidden: texts.iter().filter(|day| day.is_none()).count(),
        texts_charged: checked.texts,
        rated_lines: checked.rated_lines,
        usage_lines: checked.usage_lines,
        lines: document.sections.iter().map(|section| section.lines.len()).sum(),
        unproved,
    })
}

/// The document's certificate is this one, if it names any.
fn check_cut(bundle: &Bundle, document: &Document) -> Result<bool, Refusal> {
    let place = "cut";
    let Some(cut) = &document.cut else { return Ok(false) };
    let Some((number, digest)) = cut.certificate else { return Ok(false) };
    let head = &bundle.head;
    ensure((number, digest) == (head.number, head.digest), place, || {
        format!(
            "the document is of the certificate {number} ({}), and the file holds {} ({})",
            hex::encode(&digest),
            head.number,
            hex::encode(&head.digest)
        )
    })?;
    let through = match cut.complete_through.as_str() {
        "" => None,
        text => Some(instant::millis(text, place)?),
    };
    let same =
        instant::millis(&cut.as_of, place)? == head.as_of && through == head.complete_through;
    ensure(same, place, || "its instants are not the certificate's".to_owned())?;
    Ok(true)
}
