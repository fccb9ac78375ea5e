//! A report as a page for people: one file, which asks for nothing else and runs nothing.
//!
//! **Owns** what is on it, and that every text is escaped.
//!
//! Limits: [`SHOWN_MAX`] findings of each group; JSON has all.

use std::fmt::Write as _;

use super::shown::{CoverShown, Exposed, FindingShown, ReportShown};

const SHOWN_MAX: usize = 500;

const STYLE: &str = "\
:root{color-scheme:light dark}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,'Segoe UI',Roboto,'Noto Sans',Arial,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0 0 .5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.state{display:inline-block;font-weight:bold;padding:.2rem .7rem;border-radius:.3rem;color:#fff}
.passes{background:#176f2c}.blocked{background:#a3160f}
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1.5rem;margin:1rem 0}dt{opacity:.7}dd{margin:0}
article{border:1px solid #8886;border-left:.3rem solid #8886;border-radius:.3rem;padding:.6rem .9rem;margin:.6rem 0}
article.blocks{border-left-color:#a3160f}article.covered{border-left-color:#176f2c}
article p{margin:.2rem 0}.id{font:13px ui-monospace,'Cascadia Mono',Menlo,monospace;opacity:.75}
.do{font-weight:600}
";

/// Renders the report, in UTF-8.
#[must_use]
pub fn page(report: &ReportShown) -> String {
    let (class, state) = match report.passes {
        true => ("passes", "No finding keeps an invoice back"),
        false => ("blocked", "Findings keep invoices back"),
    };
    let mut page = String::new();
    let mut put = |text: &str| page.push_str(text);
    put("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    put(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    );
    put("<meta name=\"viewport\" content=\"width=device-width\">\n<title>Reconciliation</title>\n");
    put(&format!("<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Reconciliation</h1>\n"));
    put(&format!("<p class=\"state {class}\">{state}</p>\n"));
    put(&facts(report));
    let group = |title: &str, is: &dyn Fn(&FindingShown) -> bool| {
        let all: Vec<_> = report.findings.iter().filter(|finding| is(finding)).collect();
        if all.is_empty() {
            return String::new();
        }
        let mut text = format!("<h2>{title} ({})</h2>\n", all.len());
        all.iter().take(SHOWN_MAX).for_each(|finding| text.push_str(&article(finding)));
        if all.len() > SHOWN_MAX {
            text.push_str("<p>Further ones are in the JSON report.</p>\n");
        }
        text
    };
    put(&group("Keeping invoices back", &|finding| finding.blocks));
    put(&group("Waived, or covered by a policy", &|finding| finding.cover.is_some()));
    put(&group("Told", &|finding| !finding.blocks && finding.cover.is_none()));
    put("</body>\n</html>\n");
    page
}

fn facts(report: &ReportShown) -> String {
    let counts = &report.counts;
    let streams: Vec<_> =
        counts.streams.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let through = report.complete_through.as_deref().unwrap_or("nothing: a stream never confirmed");
    let rows = [
        ("Cut", report.at.clone()),
        ("Looked at from", report.from.clone()),
        ("Snapshot", format!("{} of ledger {}", report.as_of, report.ledger)),
        ("Depth", report.depth.to_owned()),
        ("Complete through", through.to_owned()),
        ("Streams", streams.join(", ")),
        (
            "Events",
            format!(
                "{} accepted = {} posted + {} in transit + {} quarantined",
                counts.events_accepted,
                counts.events_posted,
                counts.events_in_transit,
                counts.events_quarantined
            ),
        ),
        (
            "Recomputed",
            format!("{} batches against {} rows", counts.batches_read, counts.rows_compared),
        ),
    ];
    let mut text = String::from("<dl>\n");
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    text.push_str("</dl>\n");
    text
}

fn article(finding: &FindingShown) -> String {
    let class = match (finding.blocks, &finding.cover) {
        (true, _) => " class=\"blocks\"",
        (false, Some(_)) => " class=\"covered\"",
        (false, None) => "",
    };
    let mut text = format!(
        "<article{class}>\n<p>{}</p>\n<p class=\"id\">{}</p>\n",
        escaped(&finding.told),
        escaped(&finding.id)
    );
    let mut put = |line: String| text.push_str(&format!("<p>{line}</p>\n"));
    if finding.blocks {
        let whom = match finding.scope {
            "global" => "everybody".to_owned(),
            _ => {
                let more = finding.customers_concerned.saturating_sub(finding.customers.len());
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("{}{more}", escaped(&finding.customers.join(", ")))
            }
        };
        put(format!("Keeps back: {whom}; usage from {} to {}", finding.from, finding.to));
        if let Some(exposed) = Exposed::told(&finding.exposed) {
            put(format!("May come to: {exposed}"));
        }
        put(format!("<span class=\"do\">{}</span>", escaped(&finding.remedy)));
    }
    match &finding.cover {
        Some(CoverShown::Waiver { actor, reason, .. }) => {
            put(format!("Waived by {}: {}", escaped(actor), escaped(reason)));
        }
        Some(CoverShown::Policy { name, signed_by }) => {
            put(format!("Covered by {}, signed by {}", escaped(name), escaped(signed_by)));
        }
        None => {}
    }
    text.push_str("</article>\n");
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
