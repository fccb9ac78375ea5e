//! The ledger's entries, its trial balance, and its locked months.
//!
//! ```text
//! GET  /v1/ledger/entries?after=&limit=      as they are stored, ascending by number
//! GET  /v1/ledger/trial-balance?at=          every account's balance; each currency comes to nothing
//! POST /v1/ledger/locks                      {"through": "2026-10", "reason": ..}
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use tidemark_common::time::{Bucket, Timestamp};

use crate::ledger::books::What;
use crate::ledger::books::rows::{self, Head};
use crate::ledger::entry::{self, LedgerEntry};
use crate::ledger::store::{Books, StoreError};
use crate::money::{Currency, Money};
use crate::period::{Month, Zone};

use super::Api;
use super::books::{BookedShown, asked, page, read};
use super::invoices::{limit_of, text};
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    entries: Vec<EntryShown>,
    /// Pass it as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct EntryShown {
    /// SHA-256 of "tidemark ledger entry 1\n" and the entry's bytes: what the next one names as `previous`.
    digest: String,
    /// Byte for byte as stored.
    entry: Box<RawValue>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Listed>, Problem> {
    let parameters = Parameters::new(pairs, &["after", "limit"])?;
    let limit = limit_of(&parameters)?;
    let after = match parameters.get("after").map(str::parse::<u64>) {
        None => Vec::new(),
        Some(Ok(after)) => after.to_be_bytes().to_vec(),
        Some(Err(_)) => return Err(bad("after", "is no entry's number", "give `next` of a page")),
    };
    api.read_books(move |_, books| {
        let (found, more) = page(books, rows::ENTRIES, &after, limit)?;
        let mut entries = Vec::new();
        let mut last = 0;
        for (key, stored) in found {
            last = key.try_into().map_or(0, u64::from_be_bytes);
            let digest = entry::digest(&stored).to_string();
            let entry =
                String::from_utf8(stored).ok().and_then(|text| RawValue::from_string(text).ok());
            let entry =
                entry.ok_or_else(|| StoreError::books(format!("entry {last} is no JSON")))?;
            entries.push(EntryShown { digest, entry });
        }
        Ok(Listed { entries, next: more.then(|| last.to_string()) })
    })
    .await
    .map(Json)
}

/// Every account's balance.
#[derive(Debug, Serialize)]
pub(super) struct TrialBalance {
    /// Entries up to then, by ledger time.
    at: String,
    /// How many they are, and the digest of the last one of all.
    entries: u64,
    head: String,
    currencies: BTreeMap<String, Balances>,
}

#[derive(Debug, Default, Serialize)]
struct Balances {
    /// A debit is positive.
    accounts: BTreeMap<String, String>,
    /// Of all accounts: nothing.
    sum: String,
}

pub(super) async fn trial_balance(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<TrialBalance>, Problem> {
    let parameters = Parameters::new(pairs, &["at"])?;
    let at = parameters.edge("at")?.map(Bucket::start);
    let at = at.unwrap_or_else(|| api.ledger.now());
    api.read_books(move |_, books| balance(books, at)).await.map(Json)
}

fn balance(books: &dyn Books, at: Timestamp) -> Result<TrialBalance, Problem> {
    let mut sums: BTreeMap<Currency, BTreeMap<String, Money>> = BTreeMap::new();
    let (mut entries, mut broken) = (0_u64, None);
    books.visit(rows::ENTRIES, &[], &mut |_, stored| {
        let entry = match LedgerEntry::decode(stored) {
            Ok(entry) => entry,
            Err(error) => {
                broken = Some(error.to_string());
                return ControlFlow::Break(());
            }
        };
        // Ledger time never goes back.
        if entry.at > at.0 {
            return ControlFlow::Break(());
        }
        entries = entries.saturating_add(1);
        for (account, amount) in entry.postings.iter() {
            let accounts = sums.entry(amount.currency).or_default();
            let sum = accounts.entry(account.to_string()).or_insert(Money::zero(amount.currency));
            match sum.checked_add(amount) {
                Ok(added) => *sum = added,
                Err(error) => broken = Some(error.to_string()),
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(reason) = broken {
        return Err(StoreError::books(reason).into());
    }
    let mut currencies = BTreeMap::new();
    for (currency, accounts) in sums {
        let add = |sum: Money, next: &Money| sum.checked_add(*next);
        let sum = accounts.values().try_fold(Money::zero(currency), add);
        let sum = sum.map_err(crate::rating::RatingError::Total)?.amount();
        let accounts =
            accounts.into_iter().map(|(account, amount)| (account, amount.amount())).collect();
        currencies.insert(currency.to_string(), Balances { accounts, sum });
    }
    let head: Head = read(books, rows::HEAD)?.unwrap_or_default();
    Ok(TrialBalance { at: Zone::utc().rfc3339(at), entries, head: head.digest, currencies })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lock {
    through: String,
    reason: String,
}

pub(super) async fn lock(
    State(api): State<Api>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<Lock>(request).await?;
    let reason = Some(text("reason", &asked.body.reason)?);
    let through = Month::parse(&asked.body.through).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-field", "A field cannot be used")
            .detail(format!("`through`: {error}"))
            .remedy("write a month such as 2026-10")
    })?;
    let change = asked.change(What::Lock { through }, reason, None)?;
    api.book(change).await.map(Json)
}
