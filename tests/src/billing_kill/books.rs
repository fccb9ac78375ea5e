//! What is in a collector's books, against what must be there, reckoned here in whole cents.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::prepared::AUDITOR_TOKEN;
use crate::api::Api;

const PAGE_ROWS: u64 = 300;
/// For each customer: the month's fee; the support of that month and of the next one, in advance.
const BASE: i128 = 1_000;
const SUPPORT: i128 = 500;
/// A call costs a cent.
const TAX_PERCENT: i128 = 19;

/// What was found, and was right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) invoices: u64,
}

#[derive(Debug, Deserialize)]
struct Page {
    invoices: Vec<Invoice>,
    next: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Invoice {
    number: String,
    customer: String,
    kind: String,
    state: String,
    total: String,
    amount_due: String,
}

#[derive(Debug, Deserialize)]
struct TrialBalance {
    entries: u64,
    currencies: BTreeMap<String, Balances>,
}

#[derive(Debug, Deserialize)]
struct Balances {
    accounts: BTreeMap<String, String>,
    sum: String,
}

impl TrialBalance {
    /// Of how many invoices it is: keys and certificates are entries too, so deferred support tells.
    fn invoices(&self) -> Result<u64> {
        let Some(euros) = self.currencies.get("EUR") else { return Ok(0) };
        let deferred =
            cents(euros.accounts.get("deferred").context("an account of what is deferred")?)?;
        ensure!(deferred % SUPPORT == 0, "{self:?}");
        Ok(u64::try_from(-deferred / SUPPORT)?)
    }
}

/// Net and tax of a customer's only invoice, in cents.
fn reckoned(calls: u64) -> (i128, i128) {
    let net = BASE + 2 * SUPPORT + i128::from(calls);
    (net, (net * TAX_PERCENT + 50) / 100)
}

/// Checks every invoice, the numbers, and the trial balance of both.
pub(super) fn check(
    api: &Api<'_>,
    calls: &BTreeMap<String, u64>,
    told: &BTreeMap<String, String>,
) -> Result<Found> {
    // A run may be going on. What is booked stays, so the balance is of no more than the invoices that are read after it.
    let balance: TrialBalance = read(api, "/v1/ledger/trial-balance")?;
    let invoices = invoices(api)?;
    let mut by_customer = BTreeMap::new();
    for invoice in &invoices {
        let (net, tax) = reckoned(*calls.get(&invoice.customer).context("a customer")?);
        let is_right = invoice.kind == "invoice"
            && invoice.state == "issued"
            && cents(&invoice.total)? == net + tax
            && invoice.total == invoice.amount_due;
        ensure!(is_right, "{invoice:?}, and {net} + {tax} were due");
        let before = by_customer.insert(invoice.customer.clone(), invoice.number.clone());
        ensure!(before.is_none(), "{invoice:?}, and {before:?} for the same customer");
    }
    for (customer, number) in told {
        let found = by_customer.get(customer);
        ensure!(found == Some(number), "{customer}: {number} was told, {found:?} is there");
    }
    check_numbers(&invoices)?;
    let booked = u64::try_from(invoices.len())?;
    let balanced = balance.invoices()?;
    ensure!(
        balanced <= booked && balanced <= balance.entries,
        "{balanced} of {booked}: {balance:?}"
    );
    let first = invoices.iter().take(usize::try_from(balanced)?);
    check_balance(&balance, first.map(|invoice| calls[&invoice.customer]))?;
    Ok(Found { invoices: booked })
}

fn invoices(api: &Api<'_>) -> Result<Vec<Invoice>> {
    let (mut invoices, mut after) = (Vec::new(), String::new());
    loop {
        let page: Page = read(api, &format!("/v1/invoices?limit={PAGE_ROWS}{after}"))?;
        invoices.extend(page.invoices);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(invoices),
        }
    }
}

/// Each series counts from 1 on: there are two, if the year ends meanwhile.
fn check_numbers(invoices: &[Invoice]) -> Result<()> {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for Invoice { number, .. } in invoices {
        let (series, count) = number.split_once('-').context("a number has a series")?;
        let last = last.entry(series).or_default();
        ensure!(count.parse::<u64>()? == *last + 1, "{number} follows {last}");
        *last += 1;
    }
    Ok(())
}

/// All accounts of the invoices to customers with these calls.
fn check_balance(balance: &TrialBalance, invoiced: impl Iterator<Item = u64>) -> Result<()> {
    let mut expected: BTreeMap<&str, i128> = BTreeMap::new();
    for calls in invoiced {
        let (net, tax) = reckoned(calls);
        for (account, amount) in [
            ("receivable", net + tax),
            ("tax_payable", -tax),
            ("deferred", -SUPPORT),
            ("revenue/Base", -BASE),
            ("revenue/Support", -SUPPORT),
            ("revenue/api.calls", -i128::from(calls)),
        ] {
            *expected.entry(account).or_default() += amount;
        }
    }
    let Some(euros) = balance.currencies.get("EUR") else {
        ensure!(expected.is_empty() && balance.currencies.is_empty(), "{balance:?}");
        return Ok(());
    };
    let mut found = BTreeMap::new();
    for (account, amount) in &euros.accounts {
        found.insert(account.as_str(), cents(amount)?);
    }
    ensure!(found == expected, "the trial balance is {found:?}, and {expected:?} was invoiced");
    ensure!(cents(&euros.sum)? == 0 && balance.currencies.len() == 1, "{balance:?}");
    Ok(())
}

/// `-12.34` as -1234.
fn cents(amount: &str) -> Result<i128> {
    let (whole, part) = amount.split_once('.').context("an amount in euros")?;
    ensure!(part.len() == 2, "{amount}");
    format!("{whole}{part}").parse().with_context(|| amount.to_owned())
}

fn read<T: DeserializeOwned>(api: &Api<'_>, path: &str) -> Result<T> {
    let answer = api.get_as(path, Some(AUDITOR_TOKEN))?;
    ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.body);
    serde_json::from_str(&answer.body).with_context(|| format!("GET {path}: {}", answer.body))
}
