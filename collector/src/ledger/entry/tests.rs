//! Entries balance or are none; their bytes and digests are frozen.

use super::*;

fn money(text: &str) -> (Account, Money) {
    let (account, amount) = text.split_once(' ').unwrap();
    let (amount, currency) = amount.split_once(' ').unwrap();
    let currency = Currency::parse(currency).unwrap();
    (Account::parse(account).unwrap(), Money::parse(amount, currency).unwrap())
}

/// `account amount currency`, comma separated -> the postings, or why there are none.
fn check(amounts: &str, expected: &str) {
    let amounts = amounts.split(", ").filter(|text| !text.is_empty()).map(money);
    let told = match Postings::new(amounts) {
        Ok(postings) => {
            let told = postings.iter().map(|(account, amount)| format!("{account} {amount}"));
            told.collect::<Vec<_>>().join(", ")
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(told, expected);
}

#[test]
fn postings_come_to_nothing_or_are_none() {
    check("receivable 1.00 EUR, revenue/a -1.00 EUR", "receivable 1.00 EUR, revenue/a -1.00 EUR");
    check("receivable 1.00 EUR, receivable -1.00 EUR", "");
    check(
        "receivable 2.00 EUR, deferred -1.50 EUR, deferred -0.50 EUR",
        "receivable 2.00 EUR, deferred -2.00 EUR",
    );
    check("", "");
    check(
        "receivable 1.00 EUR, revenue/a -0.99 EUR",
        "failed to make an entry: its postings do not come to nothing but to 0.01 EUR",
    );
    // Each currency by itself.
    check(
        "receivable 1.00 EUR, revenue/a -1.00 USD",
        "failed to make an entry: its postings do not come to nothing but to 1.00 EUR",
    );
}

fn entry() -> LedgerEntry {
    LedgerEntry {
        number: 2,
        previous: Digest([7; 32]),
        at: 1_764_000_000_000,
        date: "2025-11-24".to_owned(),
        kind: EntryKind::Payment,
        actor: "ann".to_owned(),
        reason: None,
        customer: Some("acme".to_owned()),
        document: Some("INV2025-000001".to_owned()),
        document_sha256: None,
        subject: Some("bank 7".to_owned()),
        postings: Postings::new(["clearing 5.00 EUR", "receivable -5.00 EUR"].map(money)).unwrap(),
    }
}

#[test]
fn frozen_bytes() {
    let stored = entry().encode();
    let previous = "07".repeat(32);
    let expected = format!(
        r#"{{"version":1,"number":2,"previous":"{previous}","at":1764000000000,"date":"2025-11-24","kind":"payment","actor":"ann","customer":"acme","document":"INV2025-000001","subject":"bank 7","postings":[{{"account":"receivable","amount":"-5.00","currency":"EUR"}},{{"account":"clearing","amount":"5.00","currency":"EUR"}}]}}"#
    );
    assert_eq!(String::from_utf8(stored.clone()).unwrap(), expected);
    // By `(printf 'tidemark ledger entry 1\n'; printf %s "$ENTRY") | sha256sum`.
    assert_eq!(
        digest(&stored).to_string(),
        "f55643bd1a2a2ddb641f00349c70ff8cd494d0579d71c2ae1f822c56d3b03f86"
    );
    assert_eq!(LedgerEntry::decode(&stored).unwrap(), entry());
}

#[test]
fn broken_entries_are_refused() {
    let check = |from: &str, to: &str, expected: &str| {
        let stored = String::from_utf8(entry().encode()).unwrap().replace(from, to);
        let error = LedgerEntry::decode(stored.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("\"5.00\"", "\"5.01\"", "come to nothing but to 0.01 EUR");
    check("\"5.00\"", "\"5.001\"", "is no amount of EUR");
    check("clearing", "petty_cash", "there is no account");
    check("\"version\":1", "\"version\":2", "version 2 is unknown");
    check("0707", "07", "no digest");
    check("\"number\"", "\"numbers\"", "missing field");
}

#[test]
fn a_reversal_takes_everything_back() {
    let postings = entry().postings;
    let reversed = postings.reversed();
    let both = postings.iter().chain(reversed.iter());
    let amounts: Vec<_> = both.map(|(account, amount)| (account.clone(), amount)).collect();
    assert_eq!(Postings::new(amounts).unwrap(), Postings::default());
}
