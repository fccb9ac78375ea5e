use std::fmt::Write as _;

use krilla::SerializeSettings;

use super::{Printed, csv, html, pdf};

/// What is in every document here; `text` is each of its texts that people write.
fn document(text: &str, lines: usize) -> Printed {
    let line = |number: usize| {
        serde_json::json!({
            "description": format!("{text} {number}"), "details": format!("{text}, 0.02 each"),
            "rated": {"anything": 1}, "invoiced_before": "1.00", "tax": text, "amount": "12.34",
        })
    };
    let party = serde_json::json!({
        "id": text, "name": text, "address": [text, text], "tax_id": text, "email": text,
    });
    let section = serde_json::json!({
        "kind": "period", "plan": text, "start": "2026-03-01T00:00:00+01:00", "end": "2026-04-01T00:00:00+02:00",
        "lines": (0..lines).map(line).collect::<Vec<_>>(), "total": "12.34",
    });
    let advance = serde_json::json!({
        "kind": "advance", "plan": text, "start": "2026-04-01T12:30:00+02:00", "end": "2026-05-01T00:00:00+02:00",
        "lines": [line(0)], "total": "12.34",
    });
    serde_json::from_value(serde_json::json!({
        "kind": "invoice", "number": text, "date": "2026-04-01", "due_date": "2026-04-15",
        "seller": party, "customer": party, "currency": "EUR", "period_end": "2026-04-01",
        "credits": text, "reason": text, "sections": [section, advance], "subtotal": "24.68",
        "taxes": [{"name": text, "label": text, "category": "taxable", "percent": "20",
            "inclusive": false, "net": "24.68", "tax": "4.94"}],
        "total": "29.62", "credit_applied": "9.62", "amount_due": "20.00", "notes": [text, text],
        "cut": {"as_of": "2026-04-01T02:00:00Z", "complete_through": "2026-04-01T00:00:00Z"},
    }))
    .expect("a document")
}

fn draft(text: &str) -> Printed {
    Printed { number: None, date: None, due_date: None, ..document(text, 1) }
}

#[test]
fn html_escapes_every_text() {
    let page = html(&document("<script>alert('x')</script>\"&\u{0}", 2));
    assert!(!page.contains("<script"), "{page}");
    assert!(!page.contains("alert('"), "{page}");
    assert!(!page.contains("\"&\u{0}"), "{page}");
    // The title twice; number, customer, credits, reason; 5 of each party; two plans; 3 of each line; a tax; two notes.
    let told = page.matches("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}");
    assert_eq!(told.count(), 30, "{page}");
}

#[test]
fn html_sets_texts_apart_and_asks_for_nothing() {
    let page = html(&document("שלום", 1));
    for told in [
        "<html lang=\"en\">",
        "<p class=\"name\" dir=\"auto\">שלום</p>",
        "<p class=\"address\" dir=\"auto\">שלום</p>",
        "Tax id: <bdi>שלום</bdi>",
        "<td dir=\"auto\">שלום 0",
        "Period: <bdi>שלום</bdi> <span class=\"span\">2026-03-01 to 2026-03-31</span>",
        "Fees in advance: <bdi>שלום</bdi> <span class=\"span\">2026-04-01 12:30 to 2026-05-01 00:00</span>",
        "thead{display:table-header-group}",
        "<td class=\"number\">-9.62</td>",
        "Billed through</dt><dd><bdi>2026-03-31</bdi>",
    ] {
        assert!(page.contains(told), "{told} is not in {page}");
    }
    for asked in ["<script", "src=", "href=", "url(", "@import", "http:", "https:"] {
        assert!(!page.contains(asked), "{asked} is in {page}");
    }
    assert!(!page.contains("DRAFT"), "{page}");
    assert!(html(&draft("x")).contains("DRAFT: not issued"));
}

#[test]
fn a_credit_note_asks_for_nothing() {
    let mut note = document("x", 1);
    note.kind = crate::invoice::DocumentKind::CreditNote;
    (note.credit_applied, note.amount_due) = ("0.00".to_owned(), "0.00".to_owned());
    let page = html(&note);
    assert!(page.contains("Total credited"), "{page}");
    assert!(page.contains("<dt>Credits invoice</dt>"), "{page}");
    assert!(!page.contains("Amount due"), "{page}");
    assert!(!page.contains("Credit applied"), "{page}");
}

#[test]
fn an_inclusive_tax_is_called_included() {
    let mut invoice = document("VAT", 1);
    invoice.taxes[0].inclusive = true;
    assert!(html(&invoice).contains("20 % included, on 24.68 net"));
    assert!(
        csv(&invoice).contains(",\"20 % included, on 24.68\",VAT,,4.94\r\n"),
        "{}",
        csv(&invoice)
    );
}

/// The line's description, as CSV tells it.
fn check_cell(text: &str, expected: &str) {
    let page = csv(&document(text, 1));
    assert!(page.contains(&format!(",{expected},")), "{expected} is not in {page}");
}

#[test]
fn csv_quotes_and_disarms() {
    check_cell("plain", "plain 0");
    check_cell("a,b", "\"a,b 0\"");
    check_cell("say \"so\"", "\"say \"\"so\"\" 0\"");
    check_cell("two\nlines", "\"two\nlines 0\"");
    check_cell("=1+1", "'=1+1 0");
    check_cell("+1", "'+1 0");
    check_cell("-1", "'-1 0");
    check_cell("@SUM(A1)", "'@SUM(A1) 0");
    check_cell("\tx", "'\tx 0");
    check_cell("\rx", "\"'\rx 0\"");
    check_cell("=HYPERLINK(\"x\",1)", "\"'=HYPERLINK(\"\"x\"\",1) 0\"");
}

#[test]
fn csv_has_a_row_for_each_line_tax_and_the_total() {
    let mut document = document("x", 2);
    document.sections[0].lines[1].amount = "-3.00".to_owned();
    let rows = csv(&document);
    let rows: Vec<&str> = rows.split("\r\n").collect();
    assert_eq!(
        rows,
        [
            "number,kind,date,customer,currency,section_kind,plan,period_start,period_end,description,details,tax,invoiced_before,amount",
            "x,invoice,2026-04-01,x,EUR,period,x,2026-03-01T00:00:00+01:00,2026-04-01T00:00:00+02:00,x 0,\"x, 0.02 each\",x,1.00,12.34",
            "x,invoice,2026-04-01,x,EUR,period,x,2026-03-01T00:00:00+01:00,2026-04-01T00:00:00+02:00,x 1,\"x, 0.02 each\",x,1.00,-3.00",
            "x,invoice,2026-04-01,x,EUR,advance,x,2026-04-01T12:30:00+02:00,2026-05-01T00:00:00+02:00,x 0,\"x, 0.02 each\",x,1.00,12.34",
            "x,invoice,2026-04-01,x,EUR,tax,,,,x,20 % on 24.68,x,,4.94",
            "x,invoice,2026-04-01,x,EUR,total,,,,,,,,29.62",
            "",
        ]
    );
}

/// The file with its streams as they are, as text.
fn plain_pdf(document: &Printed) -> String {
    let settings = SerializeSettings {
        ascii_compatible: true,
        compress_content_streams: false,
        ..SerializeSettings::default()
    };
    let file = pdf::written(document, settings).expect("a file");
    String::from_utf8_lossy(&file).into_owned()
}

fn page_count(file: &str) -> usize {
    file.matches("/Type/Page/").count()
}

#[test]
fn pdf_is_a_file_and_always_the_same() {
    let invoice = document("Zażółć gęślą jaźń, 5 € ₹ שלום عليكم", 40);
    let (one, two) = (pdf(&invoice).expect("a file"), pdf(&invoice).expect("a file"));
    assert!(one.starts_with(b"%PDF-"));
    assert!(one == two, "the same document gave other bytes");
}

#[test]
fn pdf_text_can_be_copied() {
    let (file, other) = (plain_pdf(&document("€ zł ₹ שלום", 1)), plain_pdf(&document("x", 1)));
    assert!(file.contains("/ToUnicode"));
    for character in "€ł₹שלום".chars() {
        let mut code = String::new();
        writeln!(code, "> <{:04X}>", u32::from(character)).unwrap();
        assert!(file.contains(&code), "{character} has no entry {code}");
        assert!(!other.contains(&code), "{character} is where it was not written");
    }
}

#[test]
fn pdf_errors_pass_between_threads() {
    fn check<T: std::error::Error + Send + Sync + 'static>() {}
    check::<super::PdfError>();
}

#[test]
fn pdf_says_what_it_is() {
    let file = plain_pdf(&document("acme", 1));
    for told in ["/Title(Invoice acme)", "/Author(acme)", "/Lang(en)"] {
        assert!(file.contains(told), "{told} is not in it");
    }
    assert!(plain_pdf(&draft("acme")).contains("/Title(DRAFT: Invoice)"));
}

#[test]
fn pdf_of_many_lines_has_many_pages() {
    let file = plain_pdf(&document("a line", 500));
    assert!(page_count(&file) > 5, "{} pages", page_count(&file));
    assert_eq!(page_count(&plain_pdf(&document("a line", 1))), 1);
}

#[test]
fn pdf_repeats_the_head_and_numbers_its_pages() {
    let pages = pdf::said(&document("a line", 200));
    assert!(pages.len() > 3, "{} pages", pages.len());
    for (number, page) in pages.iter().enumerate() {
        let texts: Vec<&str> = page.iter().map(|(text, _)| text.as_str()).collect();
        let foot = format!("Page {} of {}", number + 1, pages.len());
        assert_eq!(texts.last(), Some(&foot.as_str()));
        if number > 0 {
            let head = ["Description", "Tax", "Invoiced before", "Amount, EUR"];
            assert_eq!(texts[..4], head, "page {}", number + 1);
            assert!(texts[4].ends_with("(continued)"), "{texts:?}");
        }
        assert_eq!(texts.contains(&"Amount due|, EUR"), number + 1 == pages.len(), "{texts:?}");
    }
}

#[test]
fn pdf_keeps_all_text_on_the_paper() {
    for text in [
        "a long name of many words ".repeat(20),
        "unbroken".repeat(40),
        "שלום".repeat(90),
        "عليكم".repeat(90),
    ] {
        for (said, [left, right]) in pdf::said(&document(&text, 2)).into_iter().flatten() {
            assert!(left > 47.9 && right < 595.3 - 47.9, "{left} to {right}: {said}");
        }
    }
}

/// What is drawn from left to right, of a description.
fn check_order(text: &str, expected: &str) {
    let page = pdf::said(&document(text, 1)).into_iter().flatten();
    let said: Vec<String> = page.map(|(said, _)| said).collect();
    assert!(said.iter().any(|said| said == expected), "{expected} is not in {said:?}");
}

#[test]
fn pdf_orders_what_runs_both_ways() {
    check_order("plain", "plain 0");
    // Each run is in the order of reading; the runs are in the order of drawing.
    check_order("שלום abc", "abc 0|שלום ");
    check_order("abc שלום (def)", "abc |שלום| (def) 0");
    // What would turn the rest of the line is left out.
    check_order("\u{202e}abc", "abc 0");
}

#[test]
fn pdf_takes_any_text() {
    let texts = [
        "",
        " ",
        "\n\n",
        "\u{0}\u{1}\u{7f}\u{85}\u{2028}\u{2029}\u{1c}",
        "漢字かな交じり文 हिन्दी ภาษาไทย 🧾👩‍👩‍👧‍👦",
        "\u{202e}\u{2066}\u{2067}abc\u{2069}\u{2069}\u{2069}\u{202c}",
        "\u{300}\u{301}\u{5b0}\u{64b}\u{fe0f}",
        "abc שלום 123 عليكم (מסגרת) 4.50-",
        "\u{10ffff}\u{e000}\u{fffe}",
        &"longword".repeat(50),
    ];
    for text in texts {
        assert!(pdf(&document(text, 2)).expect(text).starts_with(b"%PDF-"));
        assert!(pdf(&draft(text)).expect(text).starts_with(b"%PDF-"));
        assert!(html(&document(text, 2)).ends_with("</html>\n"));
    }
    let mut invoice = document("x", 1);
    invoice.sections[0].lines[0].description = "longword".repeat(2_000);
    let file = plain_pdf(&invoice);
    assert!(page_count(&file) > 3, "{} pages", page_count(&file));
}
