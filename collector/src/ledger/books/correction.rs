//! Corrections of usage: what a person adds to it, takes from it, or puts in place of it.
//!
//! ```text
//! row   "k" customer, bucket u32, entry u64 -> what is corrected, JSON
//! ```
//! **Owns** these rows, and what each does to usage that is read. **Does not own** who may correct, or the entry that
//! says who did and why (`ledger/books.rs`).
//!
//! Invariants: no batch changes and no total: corrections are read beside them, by everything that reads usage. A
//! correction is never edited; another one corrects it. Of two that replace one value, the later entry holds. The text
//! of a row ([`CorrectionRow::told`]) stands in its entry, so that the chain of digests covers it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use tidemark_common::batch::Dimensions;
use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Bucket;

use super::rows::{self, CORRECTIONS};
use crate::ledger::store::{Books, StoreError, UsageQuestion};
use crate::usage::{Accumulator, Class, Sign, UsageRow};

/// What a correction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CorrectionKind {
    /// Comes to what is there; amounts may be negative.
    Add,
    /// Is taken from what is there.
    Take,
    /// Stands in place of all under the key.
    Replace,
}

/// One correction: of one meter, dimensions and quarter of an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorrectionRow {
    pub kind: CorrectionKind,
    pub meter: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dimensions: BTreeMap<String, String>,
    pub bucket: u32,
    pub events: u64,
    /// Events that have a quantity.
    pub quantity_events: u64,
    /// The sum of their quantities.
    pub sum: String,
}

impl CorrectionRow {
    /// All of it in one line.
    #[must_use]
    pub fn told(&self) -> String {
        let kind = match self.kind {
            CorrectionKind::Add => "add",
            CorrectionKind::Take => "take",
            CorrectionKind::Replace => "replace",
        };
        let Self { meter, bucket, events, quantity_events, sum, .. } = self;
        let dimensions: Vec<_> =
            self.dimensions.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let dimensions = dimensions.join(",");
        format!(
            "{kind} {meter}{{{dimensions}}} bucket {bucket}: events {events}, with a quantity {quantity_events}, sum {sum}"
        )
    }

    #[must_use]
    pub fn key(&self, customer: &CustomerId, entry: u64) -> Vec<u8> {
        let rest = [&self.bucket.to_be_bytes()[..], &entry.to_be_bytes()].concat();
        rows::customer_key(CORRECTIONS, customer, &rest)
    }

    /// As it is read with usage.
    ///
    /// # Errors
    /// Texts that are no names or quantities.
    pub fn usage(&self) -> Result<UsageRow, StoreError> {
        let broken = |what: &str| StoreError::books(format!("a correction's {what}"));
        let sum = Quantity::parse(self.sum.as_bytes()).map_err(|_| broken("sum"))?;
        let bucket = Bucket(self.bucket);
        let pairs = self
            .dimensions
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()));
        let dimensions = Dimensions::new(pairs.collect()).map_err(|_| broken("dimensions"))?;
        let usage = Accumulator {
            events: self.events,
            quantity_events: self.quantity_events,
            sum,
            min: sum,
            max: sum,
            latest: (self.quantity_events > 0).then_some((bucket.start(), sum)),
            ..Accumulator::default()
        };
        Ok(UsageRow {
            class: Class::Normal,
            sign: match self.kind {
                CorrectionKind::Add | CorrectionKind::Replace => Sign::Added,
                CorrectionKind::Take => Sign::Taken,
            },
            meter: MeterName::parse(&self.meter).map_err(|_| broken("meter"))?,
            dimensions,
            bucket,
            usage,
        })
    }
}

/// What a person has corrected of the usage that a question asks for.
#[derive(Debug, Default)]
pub struct Corrections {
    /// Added and taken, in the order of time.
    changes: Vec<UsageRow>,
    /// In place of all that is there.
    replaced: Vec<UsageRow>,
}

impl Corrections {
    /// Those of a question.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn of(books: &dyn Books, question: &UsageQuestion<'_>) -> Result<Self, StoreError> {
        let prefix = rows::customer_prefix(CORRECTIONS, question.customer);
        let (mut found, mut failed) = (Self::default(), None);
        let first = [&prefix[..], &question.from.0.to_be_bytes()].concat();
        books.visit(&prefix, &first, &mut |_, value| match Self::read(value) {
            Ok((_, row)) if row.bucket >= question.to => ControlFlow::Break(()),
            Ok((kind, row)) => {
                if question.meter.is_none_or(|meter| *meter == row.meter) {
                    found.take(kind, row);
                }
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(found), Err)
    }

    fn read(value: &[u8]) -> Result<(CorrectionKind, UsageRow), StoreError> {
        let row: CorrectionRow = rows::read("correction", value)
            .map_err(|error| StoreError::books(error.to_string()))?;
        Ok((row.kind, row.usage()?))
    }

    /// In the order of entries.
    fn take(&mut self, kind: CorrectionKind, row: UsageRow) {
        match kind {
            CorrectionKind::Add | CorrectionKind::Take => self.changes.push(row),
            CorrectionKind::Replace => {
                self.replaced.retain(|held| !is_same(held, &row));
                // What was changed before is replaced too.
                self.changes.retain(|held| !is_same(held, &row));
                self.replaced.push(row);
            }
        }
    }

    /// Whether this row, which was posted, does not count any more.
    #[must_use]
    pub fn replace(&self, row: &UsageRow) -> bool {
        row.class == Class::Normal && self.replaced.iter().any(|other| is_same(other, row))
    }

    /// What stands beside the posted rows; what is taken comes last.
    pub fn into_rows(self) -> impl Iterator<Item = UsageRow> {
        let (taken, added): (Vec<_>, Vec<_>) =
            self.changes.into_iter().partition(|row| row.sign == Sign::Taken);
        self.replaced.into_iter().chain(added).chain(taken)
    }
}

/// Everybody whose usage was corrected.
///
/// # Errors
/// If that cannot be read.
pub fn customers(books: &dyn Books) -> Result<BTreeSet<CustomerId>, StoreError> {
    let mut found = BTreeSet::new();
    books.visit(CORRECTIONS, &[], &mut |key, _| {
        let id = key.get(CORRECTIONS.len()..).and_then(|rest| rest.split_first_chunk::<2>());
        let id = id.and_then(|(length, rest)| rest.get(..u16::from_be_bytes(*length).into()));
        let id = id.and_then(|id| CustomerId::parse(std::str::from_utf8(id).ok()?).ok());
        found.extend(id);
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn is_same(left: &UsageRow, right: &UsageRow) -> bool {
    (left.bucket, &left.meter, &left.dimensions) == (right.bucket, &right.meter, &right.dimensions)
}
