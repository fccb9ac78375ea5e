//! A customer's usage as a certificate has it: texts, day by day, and the digest over them.
//!
//! ```text
//! totals, tail --merged by key--> ["row",..]     corrections --> ["correction",..]     -> days -> the customer's digest
//! ```
//! **Owns** the texts and digests of `deploy/docs/proofs.md`. **Does not own** the tree over customers (`tree.rs`).
//!
//! Invariants: the same batches and corrections give the same texts, however they came and whatever is folded. A sum is
//! exact at any size. Memory: a day of one customer, and the tail's rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use hashbrown::HashMap;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use tidemark_common::batch::Dimensions;
use tidemark_common::hex;
use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::time::{Bucket, Timestamp};

use super::tree::Node;
use crate::ledger::books::correction::{CorrectionKind, CorrectionRow};
use crate::ledger::books::rows::{self, CORRECTIONS};
use crate::ledger::store::{Books, StoreError, UsageQuestion};
use crate::live::Snapshot;
use crate::usage::{Accumulator, Class, UniqueValue, UsageRow};

/// Quarters of an hour in a day.
pub const DAY_BUCKETS: u32 = 96;

/// A row or a correction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    pub kind: TextKind,
    pub meter: MeterName,
    pub dimensions: Dimensions,
    pub class: Class,
    pub bucket: Bucket,
}

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextKind {
    Row { events: u128, sum: WideSum },
    Correction,
}

/// A day of one customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayTexts {
    pub day: u32,
    /// Ascending by their bytes.
    pub texts: Vec<Text>,
}

impl DayTexts {
    #[must_use]
    pub fn digest(&self) -> Node {
        let mut hash = Sha256::new()
            .chain_update(b"tidemark/day/1")
            .chain_update(self.day.to_be_bytes())
            .chain_update(length(self.texts.len()));
        for Text { text, .. } in &self.texts {
            hash.update(length(text.len()));
            hash.update(text.as_bytes());
        }
        hash.finalize().into()
    }
}

/// The digest of a customer with these days, ascending.
#[must_use]
pub fn customer_digest(customer: &CustomerId, days: &[(u32, Node)]) -> Node {
    let id = customer.as_str();
    let id_length = u16::try_from(id.len()).unwrap_or(u16::MAX);
    let mut hash = Sha256::new()
        .chain_update(b"tidemark/customer/1")
        .chain_update(id_length.to_be_bytes())
        .chain_update(id.as_bytes())
        .chain_update(length(days.len()));
    for (day, digest) in days {
        hash.update(day.to_be_bytes());
        hash.update(digest);
    }
    hash.finalize().into()
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// What a snapshot's tail holds beyond its totals, by customer.
#[derive(Debug, Default)]
pub struct Unfolded(HashMap<CustomerId, Vec<UsageRow>>);

impl Unfolded {
    /// # Errors
    /// If the totals cannot be read.
    pub fn of(snapshot: &Snapshot) -> Result<Self, StoreError> {
        let mut rows: HashMap<CustomerId, Vec<UsageRow>> = HashMap::new();
        for (customer, row) in snapshot.unfolded_rows()? {
            rows.entry_ref(customer).or_default().push(row);
        }
        Ok(Self(rows))
    }
}

/// Reads customers' days out of one snapshot.
#[derive(Debug)]
pub struct Days<'a> {
    pub snapshot: &'a Snapshot,
    /// The first bucket that counts.
    pub from: Bucket,
    pub tail: &'a Unfolded,
}

impl Days<'_> {
    /// Shows every day of a customer's that has texts, ascending, until `visit` breaks.
    ///
    /// # Errors
    /// If usage cannot be read.
    pub fn visit(
        &self,
        customer: &CustomerId,
        visit: &mut dyn FnMut(DayTexts) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut gathering = Gathering { open: None, beside: self.beside(customer)?, visit };
        let question =
            UsageQuestion { customer, meter: None, from: self.from, to: Bucket(u32::MAX) };
        let totals = &self.snapshot.totals;
        if totals.visit_usage(&question, &mut |row| gathering.take(&row))?.is_continue() {
            let _shown = gathering.finish();
        }
        Ok(())
    }

    /// The days of a customer's, with their digests.
    ///
    /// # Errors
    /// If usage cannot be read.
    pub fn digests(
        &self,
        customer: &CustomerId,
        counted: &mut dyn FnMut(&DayTexts),
    ) -> Result<Vec<(u32, Node)>, StoreError> {
        let mut days = Vec::new();
        self.visit(customer, &mut |day| {
            counted(&day);
            days.push((day.day, day.digest()));
            ControlFlow::Continue(())
        })?;
        Ok(days)
    }

    /// What is not in the totals, by day: the tail's rows, and corrections in the order of their entries.
    fn beside(&self, customer: &CustomerId) -> Result<BTreeMap<u32, Beside>, StoreError> {
        let mut beside: BTreeMap<u32, Beside> = BTreeMap::new();
        for row in self.tail.0.get(customer).into_iter().flatten() {
            if row.bucket >= self.from {
                beside.entry(day_of(row.bucket)).or_default().rows.push(row.clone());
            }
        }
        for (entry, correction) in corrections(&*self.snapshot.books, customer)? {
            if correction.bucket >= self.from.0 {
                let row = correction.usage()?;
                let text = correction_text(entry, &correction, &row);
                let UsageRow { class, meter, dimensions, bucket, .. } = row;
                let kind = TextKind::Correction;
                let of_day = beside.entry(day_of(bucket)).or_default();
                of_day.corrections.push(Text { text, kind, meter, dimensions, class, bucket });
            }
        }
        Ok(beside)
    }
}

/// A day, as far as the totals do not hold it.
#[derive(Debug, Default)]
struct Beside {
    rows: Vec<UsageRow>,
    corrections: Vec<Text>,
}

/// Days in the making.
struct Gathering<'v> {
    /// The day whose rows the totals show now.
    open: Option<(u32, BTreeMap<RowKey, Sums>)>,
    beside: BTreeMap<u32, Beside>,
    visit: &'v mut dyn FnMut(DayTexts) -> ControlFlow<()>,
}

impl Gathering<'_> {
    fn take(&mut self, row: &UsageRow) -> ControlFlow<()> {
        let day = day_of(row.bucket);
        if self.open.as_ref().is_some_and(|(open, _)| *open != day) {
            self.close()?;
        }
        let (_, rows) = self.open.get_or_insert_with(|| (day, BTreeMap::new()));
        add(rows, row);
        ControlFlow::Continue(())
    }

    /// Shows the open day, and those before it that the totals do not hold.
    fn close(&mut self) -> ControlFlow<()> {
        let Some((day, rows)) = self.open.take() else { return ControlFlow::Continue(()) };
        while let Some(first) = self.beside.first_entry().filter(|first| *first.key() < day) {
            let (earlier, beside) = first.remove_entry();
            (self.visit)(texts(earlier, BTreeMap::new(), beside))?;
        }
        let beside = self.beside.remove(&day).unwrap_or_default();
        (self.visit)(texts(day, rows, beside))
    }

    fn finish(&mut self) -> ControlFlow<()> {
        self.close()?;
        while let Some((day, beside)) = self.beside.pop_first() {
            (self.visit)(texts(day, BTreeMap::new(), beside))?;
        }
        ControlFlow::Continue(())
    }
}

fn day_of(bucket: Bucket) -> u32 {
    bucket.0.div_euclid(DAY_BUCKETS)
}

/// What a row is known by.
type RowKey = (MeterName, Dimensions, Class, Bucket);

/// All usage of one key, exactly.
#[derive(Debug, Clone, Default)]
struct Sums {
    events: u128,
    quantity_events: u128,
    unique_events: u128,
    sum: WideSum,
    min: Option<i128>,
    max: Option<i128>,
    latest: Option<(Timestamp, i128)>,
    uniques: BTreeSet<UniqueValue>,
}

fn add(rows: &mut BTreeMap<RowKey, Sums>, row: &UsageRow) {
    let key = (row.meter.clone(), row.dimensions.clone(), row.class, row.bucket);
    rows.entry(key).or_default().add(&row.usage);
}

impl Sums {
    fn add(&mut self, usage: &Accumulator) {
        // Counts of 64 bits: as many as would not fit are never read.
        self.events = self.events.saturating_add(usage.events.into());
        self.quantity_events = self.quantity_events.saturating_add(usage.quantity_events.into());
        self.unique_events = self.unique_events.saturating_add(usage.unique_events.into());
        self.sum.add(usage.sum.0);
        if usage.quantity_events > 0 {
            self.min = Some(self.min.map_or(usage.min.0, |min| min.min(usage.min.0)));
            self.max = Some(self.max.map_or(usage.max.0, |max| max.max(usage.max.0)));
        }
        self.latest = self.latest.max(usage.latest.map(|(time, quantity)| (time, quantity.0)));
        self.uniques.extend(&usage.uniques);
    }
}

/// A sum of 128-bit numbers, in 256 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WideSum {
    high: i128,
    low: u128,
}

impl WideSum {
    pub fn add(&mut self, other: i128) {
        let (low, carries) = self.low.overflowing_add(u128::from_be_bytes(other.to_be_bytes()));
        let step = i128::from(carries).saturating_sub(i128::from(other < 0));
        (self.low, self.high) = (low, self.high.saturating_add(step));
    }

    pub fn merge(&mut self, other: Self) {
        let (low, carries) = self.low.overflowing_add(other.low);
        let high = self.high.saturating_add(other.high).saturating_add(carries.into());
        (self.low, self.high) = (low, high);
    }

    /// In decimal, or beyond 128 bits `x` and its two's complement in hex.
    #[must_use]
    pub fn text(self) -> String {
        let low = i128::from_be_bytes(self.low.to_be_bytes());
        if self.high == if low < 0 { -1 } else { 0 } {
            return low.to_string();
        }
        format!(
            "x{}{}",
            hex::encode(&self.high.to_be_bytes()),
            hex::encode(&self.low.to_be_bytes())
        )
    }
}

fn texts(day: u32, mut rows: BTreeMap<RowKey, Sums>, beside: Beside) -> DayTexts {
    for row in &beside.rows {
        add(&mut rows, row);
    }
    let rows = rows.into_iter().map(|(key, sums)| row_text(key, sums));
    let mut texts: Vec<Text> = rows.chain(beside.corrections).collect();
    texts.sort_unstable_by(|left, right| left.text.cmp(&right.text));
    DayTexts { day, texts }
}

fn row_text((meter, dimensions, class, bucket): RowKey, sums: Sums) -> Text {
    let uniques: Vec<String> = sums
        .uniques
        .iter()
        .map(|(key, digest)| format!("{key:04x}{}", hex::encode(digest)))
        .collect();
    let units = |units: i128| units.to_string();
    let text = written(&(
        "row",
        meter.as_str(),
        pairs(&dimensions),
        class.name(),
        bucket.0,
        sums.events,
        sums.quantity_events,
        sums.unique_events,
        sums.sum.text(),
        sums.min.map(units),
        sums.max.map(units),
        sums.latest.map(|(time, quantity)| (time.0, units(quantity))),
        uniques,
    ));
    let kind = TextKind::Row { events: sums.events, sum: sums.sum };
    Text { text, kind, meter, dimensions, class, bucket }
}

fn correction_text(entry: u64, correction: &CorrectionRow, row: &UsageRow) -> String {
    let kind = match correction.kind {
        CorrectionKind::Add => "add",
        CorrectionKind::Take => "take",
        CorrectionKind::Replace => "replace",
    };
    written(&(
        "correction",
        entry,
        kind,
        row.meter.as_str(),
        pairs(&row.dimensions),
        row.bucket.0,
        correction.events,
        correction.quantity_events,
        row.usage.sum.0.to_string(),
    ))
}

fn pairs(dimensions: &Dimensions) -> Vec<(&str, &str)> {
    dimensions.iter().collect()
}

fn written(text: &impl Serialize) -> String {
    serde_json::to_string(text).expect("texts and numbers are JSON")
}

/// All corrections of a customer's, in the order of time and entries.
fn corrections(
    books: &dyn Books,
    customer: &CustomerId,
) -> Result<Vec<(u64, CorrectionRow)>, StoreError> {
    let prefix = rows::customer_prefix(CORRECTIONS, customer);
    let (mut found, mut broken) = (Vec::new(), None);
    books.visit(&prefix, &[], &mut |key, value| {
        let entry = key.last_chunk().map(|entry| u64::from_be_bytes(*entry));
        match (entry, rows::read::<CorrectionRow>("correction", value)) {
            (Some(entry), Ok(row)) => found.push((entry, row)),
            (_, Err(error)) => broken = Some(StoreError::books(error.to_string())),
            (None, _) => broken = Some(StoreError::books("a correction without its entry")),
        }
        if broken.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    broken.map_or(Ok(found), Err)
}
