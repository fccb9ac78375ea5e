//! Taxes and shares computed by hand, and documents that are wrong somewhere.

use serde_json::json;

use super::*;
use crate::second_rater::customer::{Line, What};
use crate::second_rater::document::{Status, Tax, Taxation, check};

fn taxation(status: Status) -> Taxation {
    let rate = |name: &str, percent: &str, inclusive| {
        (name.to_owned(), Tax { percent: percent.to_owned(), inclusive })
    };
    let rates = [rate("full", "19", false), rate("held", "19", true), rate("half", "50", false)];
    let otherwise = Some("full".to_owned());
    Taxation { status, otherwise, rates: rates.into(), half_even: false }
}

/// Net and tax.
fn taxed(tax: Option<&str>, sum: i64) -> (BigInt, BigInt) {
    let taxed = taxation(Status::Taxable).of(tax, &sum.into());
    (taxed.net, taxed.tax)
}

#[test]
fn taxes() {
    assert_eq!(taxed(Some("full"), 1000), (1000.into(), 190.into()));
    assert_eq!(taxed(Some("held"), 1190), (1000.into(), 190.into()));
    assert_eq!(taxed(Some("held"), -1000), ((-840).into(), (-160).into()));
    assert_eq!(taxed(Some("half"), -1), ((-1).into(), (-1).into()));
    assert_eq!(taxed(None, 1000), (1000.into(), 0.into()));
    assert_eq!(taxed(Some("exempt"), 1000), (1000.into(), 0.into()));
}

/// A discount of `amount` on lines `tax amount`: each line's tax and amount.
fn discounted(status: Status, amount: i64, lines: &str) -> Vec<String> {
    let line = |what, amount: i64, tax: Option<&str>| Line {
        plan: "p".to_owned(),
        span: MONTH,
        trial: false,
        what,
        quantity: None,
        amount: amount.into(),
        tax: tax.filter(|tax| *tax != "-").map(str::to_owned),
        half_even: false,
    };
    let mut all: Vec<Line> = Vec::new();
    for text in lines.split(", ") {
        let (tax, amount) = text.split_once(' ').unwrap();
        let what = What::Fee { name: all.len().to_string(), advance: false };
        all.push(line(what, amount.parse().unwrap(), Some(tax)));
    }
    all.push(line(What::Discount, amount, None));
    let told = |line: &Line| format!("{} {}", line.tax.as_deref().unwrap_or("-"), line.amount);
    let taxed = taxation(status).taxed(&all);
    taxed.iter().filter(|line| line.what == What::Discount).map(told).collect()
}

#[test]
fn shares_of_a_discount() {
    let check = |amount, lines, expected: &[&str]| {
        assert_eq!(discounted(Status::Taxable, amount, lines), expected, "{amount} on {lines}");
    };
    check(-100, "- 500, full 500", &["full -100"]);
    check(-100, "held 100, full 200, held 100", &["held -50", "full -50"]);
    check(-1, "held 100, full 100", &["held -1", "full 0"]);
    check(-5, "held 100, half 100, full 100", &["held -2", "half -1", "full -2"]);
    check(0, "held 100, full -100", &["held 0", "full 0"]);
    assert_eq!(discounted(Status::Exempt, -100, "held 500, full 500"), ["exempt -100"]);
}

/// What is said of a document of 10.00 at 19 % and 1.19 with it, after some key has become another.
fn said(key: &str, value: &str) -> Result<(), String> {
    let line = |amount: &str, tax: &str| json!({"amount": amount, "tax": tax});
    let tax = |name: &str, net: &str, tax: &str| json!({"name": name, "category": "taxable", "net": net, "tax": tax});
    let mut document = json!({
        "kind": "invoice",
        "sections": [{"total": "11.19", "lines": [line("10.00", "full"), line("1.19", "held")]}],
        "subtotal": "11.19",
        "taxes": [tax("full", "10.00", "1.90"), tax("held", "1.00", "0.19")],
        "total": "13.09", "credit_applied": "3.00", "amount_due": "10.09",
    });
    *document.pointer_mut(key).unwrap() = value.into();
    check(&document, &taxation(Status::Taxable), 2)
}

#[test]
fn a_wrong_figure_is_found() {
    assert_eq!(said("/kind", "invoice"), Ok(()));
    for key in [
        "/sections/0/total",
        "/sections/0/lines/1/amount",
        "/subtotal",
        "/taxes/0/net",
        "/taxes/0/tax",
        "/taxes/1/net",
        "/taxes/1/tax",
        "/total",
        "/credit_applied",
        "/amount_due",
    ] {
        assert!(said(key, "1.20").is_err(), "{key}");
        assert!(said(key, "1.2").is_err(), "{key}");
    }
    assert!(said("/sections/0/lines/1/tax", "half").is_err());
    assert!(said("/taxes/1/name", "half").is_err());
    assert!(said("/taxes/1/category", "exempt").is_err());
}
