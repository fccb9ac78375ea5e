//! Taking a new catalogue into use.
//!
//! ```text
//! text -> parsed -> may it follow the one before? -> told, or (no dry run) booked -> in use
//! ```
//! **Owns** these steps, and that a price which an invoice used is never edited. **Does not own** the grammar
//! (`catalog`), or who is told of the new rules (`run`).
//!
//! Where the configuration says `catalog_source = "ledger"`, the catalogue is in the ledger's books: every version of its
//! text, and an entry that says who changed what, and why. Else it is a file, and a change of it is an entry once
//! there are books.

pub mod command;

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;

use tidemark_common::hex;

use crate::catalog::write::{ItemChange, changes};
use crate::catalog::{Aggregations, Catalog, NotASuccessor};
use crate::document::Problem;
use crate::ledger::books::rows::{self, UsedPlan, UsedTax};
use crate::ledger::books::{Adopt, Booked, Change, Refused, What, sha256};
use crate::ledger::store::{Books, StoreError};
use crate::ledger::{Ledger, LedgerError};
use crate::period::Zone;

/// Where the catalogue is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogSource {
    File,
    Ledger,
}

/// A wish to change it.
#[derive(Debug)]
pub struct AdoptRequest {
    pub asked: AskedChange,
    pub reply: oneshot::Sender<Result<Adopted, AdoptError>>,
}

/// What is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedChange {
    pub text: String,
    #[serde(default)]
    pub dry_run: bool,
    pub actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a change comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The entry that tells of it; none of a dry run, or where nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// One for each table that differs: `+`, `-` or `~`, its name, and its lines.
    pub changes: Vec<String>,
}

/// Why a catalogue is not taken.
#[derive(Debug, Error)]
pub enum AdoptError {
    #[error(
        "the catalogue is the file that `catalog` in collector.toml names: change that, and send SIGHUP; or set catalog_source = \"ledger\""
    )]
    FileManaged,
    #[error("{}", shown(.0))]
    Problems(Vec<Problem>),
    #[error(transparent)]
    NotASuccessor(#[from] NotASuccessor),
    #[error("{}", .0.join("\n"))]
    Used(Vec<String>),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<StoreError> for AdoptError {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error.into())
    }
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A catalogue that may be used, and what it changes.
#[derive(Debug)]
pub struct Judged {
    pub catalog: Catalog,
    pub changes: Vec<ItemChange>,
}

/// Whether the text may take the place of `current`. Blocks.
///
/// # Errors
/// Everything that is wrong with it.
pub fn judge(
    text: &str,
    file: &str,
    current: Option<&Catalog>,
    had: &Aggregations,
    books: &dyn Books,
) -> Result<Judged, AdoptError> {
    let catalog = Catalog::parse(text, file).map_err(AdoptError::Problems)?;
    catalog.check_follows(had)?;
    let mut edited = edited(&catalog, books)?;
    if let Some(current) = current {
        check_customers(current, &catalog, books, &mut edited)?;
    }
    if !edited.is_empty() {
        return Err(AdoptError::Used(edited));
    }
    let changes = changes(current, &catalog);
    Ok(Judged { catalog, changes })
}

/// What the catalogue edits of what invoices used, and the remedy of each.
///
/// # Errors
/// If the books cannot be read.
pub fn edited(catalog: &Catalog, books: &dyn Books) -> Result<Vec<String>, StoreError> {
    let mut edited = Vec::new();
    each(books, rows::USED_PLANS, |used: UsedPlan| edited.extend(why_edited(catalog, &used)))?;
    each(books, rows::USED_TAXES, |used: UsedTax| edited.extend(why_changed(catalog, &used)))?;
    Ok(edited)
}

/// Shows every row of a kind.
fn each<T: serde::de::DeserializeOwned>(
    books: &dyn Books,
    kind: &[u8],
    mut show: impl FnMut(T),
) -> Result<(), StoreError> {
    let mut broken = None;
    books.visit(kind, &[], &mut |_, value| {
        match rows::read("used", value) {
            Ok(row) => show(row),
            Err(error) => broken = Some(StoreError::books(error.to_string())),
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(()), Err)
}

/// Whoever was invoiced stays, with the periods and the currency of those invoices.
fn check_customers(
    current: &Catalog,
    after: &Catalog,
    books: &dyn Books,
    edited: &mut Vec<String>,
) -> Result<(), StoreError> {
    for (id, before) in &current.customers {
        let now = after.customers.get(id);
        let what = match now {
            None => "is gone; keep it, and give its subscriptions an `end`",
            Some(now) if now.zone != before.zone => {
                "has another time_zone; keep it, or make a new [[customer]] of it"
            }
            Some(now) if now.anchor != before.anchor => {
                "has another billing_anchor; keep it, or make a new [[customer]] of it"
            }
            Some(now) if now.currency != before.currency => {
                "has another currency; keep it, or make a new [[customer]] of it"
            }
            Some(_) => continue,
        };
        let (mut is_invoiced, prefix) = (false, rows::customer_prefix(rows::PERIODS, id));
        books.visit(&prefix, &[], &mut |_, _| {
            is_invoiced = true;
            ControlFlow::Break(())
        })?;
        if is_invoiced {
            edited.push(format!("the customer {:?}, which was invoiced, {what}", id.as_str()));
        }
    }
    Ok(())
}

fn why_changed(catalog: &Catalog, used: &UsedTax) -> Option<String> {
    let UsedTax { name, sha256: held, document } = used;
    let what = match catalog.taxes.get(name) {
        Some(tax) if hex::encode(&sha256(tax.to_toml().as_bytes())) == *held => return None,
        Some(_) => "is changed",
        None => "is gone",
    };
    Some(format!(
        "the tax {name:?} {what}, and document {document} used it; put it back, and add a [[tax]] with another name"
    ))
}

fn why_edited(catalog: &Catalog, used: &UsedPlan) -> Option<String> {
    let versions = catalog.plans.get(&used.plan).into_iter().flatten();
    let mut versions =
        versions.filter(|plan| plan.effective.map(|effective| effective.0) == used.effective);
    let what = match versions.next() {
        Some(plan) if hex::encode(&sha256(plan.to_toml().as_bytes())) == used.sha256 => {
            return None;
        }
        Some(_) => "is changed",
        None => "is gone",
    };
    let from = used.effective.map_or_else(
        || "that always was".to_owned(),
        |effective| {
            let effective = tidemark_common::time::Bucket(effective).start();
            format!("from {}", Zone::utc().rfc3339(effective))
        },
    );
    let UsedPlan { plan, document, .. } = used;
    Some(format!(
        "the version of the plan {plan:?} {from} {what}, and invoice {document} used it; put it back, and add a \
         [[plan]] {plan:?} with another `effective`, which may be in the past: the difference is charged"
    ))
}

/// Tells of the change, in an entry; with the text, where the catalogue is in the ledger.
///
/// # Errors
/// A ledger that cannot be written.
pub async fn book(
    ledger: &Ledger,
    asked: &AskedChange,
    source: CatalogSource,
    changes: &[ItemChange],
) -> Result<Option<u64>, AdoptError> {
    let change = Change {
        actor: asked.actor.clone(),
        reason: asked.reason.clone(),
        date: None,
        request: None,
        what: What::Adopt(Box::new(Adopt {
            sha256: hex::encode(&sha256(asked.text.as_bytes())),
            text: match source {
                CatalogSource::Ledger => Some(asked.text.clone()),
                CatalogSource::File => None,
            },
            told: told(changes),
        })),
    };
    match ledger.book(change).await? {
        Ok(Booked { entry, .. }) => Ok(Some(entry)),
        Err(Refused::NothingNew) => Ok(None),
        Err(refused) => Err(refused.into()),
    }
}

/// `2 added, 1 changed, 0 removed: plan p, ..`
fn told(changes: &[ItemChange]) -> String {
    const NAMED_MAX: usize = 20;
    let (mut added, mut removed, mut changed) = (0_usize, 0_usize, 0_usize);
    let mut names = Vec::new();
    for change in changes {
        let (count, item) = match change {
            ItemChange::Added { item, .. } => (&mut added, item),
            ItemChange::Removed { item, .. } => (&mut removed, item),
            ItemChange::Changed { item, .. } => (&mut changed, item),
        };
        *count = count.saturating_add(1);
        names.push(item.as_str());
    }
    let more = if names.len() > NAMED_MAX { ", .." } else { "" };
    names.truncate(NAMED_MAX);
    format!("{added} added, {changed} changed, {removed} removed: {}{more}", names.join(", "))
}

/// The text of the catalogue that is in the books; `None` if there is none.
///
/// # Errors
/// If it cannot be read.
pub fn stored(books: &dyn Books) -> Result<Option<String>, StoreError> {
    let Some(bytes) = books.get(rows::CATALOG)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| StoreError::books("the catalogue is no text"))
}
