//! Compares the totals with what the batches come to, row by row.
//!
//! The totals are summed anew, into a file beside, from the batches that the found ones say they hold; then
//! both files are walked side by side.
//!
//! **Owns** the comparison. **Does not own** the walk over the batches (`ledger/check.rs`) or the sums
//! (`ledger/fold.rs`, `usage.rs`). Memory holds one slice of batches and one key's rows.
//!
//! A key whose sum does not fit into 128 bits has several rows, and where they part depends on what was folded
//! together: such keys are compared by what does not depend on it, sums modulo 2^128.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Key, Range, ReadTransaction, TableDefinition, Value};
use tidemark_common::hex;
use tidemark_common::id::{LedgerId, Sequence, StreamId};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::Bucket;

use super::gather::Gather;
use super::totals::{Derivation, FOLDED, INDEX, SEEN, TOTALS, TotalsFile, UNIQUES};
use super::{Fault, RedbOptions, TOTALS_FILE, files};
use crate::ledger::check::{CheckedBatch, FindingKind, Findings, Place};
use crate::ledger::codec;
use crate::ledger::store::StoreError;
use crate::usage::{Accumulator, Class, SeenAs};

/// Totals under comparison.
#[derive(Debug)]
pub struct TotalsCheck {
    found: TotalsFile,
    derivation: Derivation,
    expected: TotalsFile,
    gather: Gather,
    /// The next batch of each stream. One that does not come in order, or whose stream has no row, ends the sums.
    due: BTreeMap<StreamId, Sequence>,
    is_broken: bool,
}

/// What the totals' file turned out to be.
#[derive(Debug)]
pub enum FoundTotals {
    /// None: the next start makes them.
    None,
    /// Nothing that a collector would use.
    Unusable(String),
    Usable(Box<TotalsCheck>),
}

impl TotalsCheck {
    /// Opens the totals in `folder`; sums anew in `scratch`, which is empty.
    ///
    /// # Errors
    /// If the file is locked, or `scratch` cannot be written.
    pub fn begin(
        folder: &Path,
        scratch: &Path,
        ledger: LedgerId,
        options: &RedbOptions,
    ) -> Result<FoundTotals, StoreError> {
        if !folder.join(TOTALS_FILE).exists() {
            return Ok(FoundTotals::None);
        }
        let found = match files::open_stopped(folder, TOTALS_FILE, options.totals_cache_bytes) {
            Ok(found) => TotalsFile::new(found),
            Err(error @ StoreError::Corrupt { .. }) => {
                return Ok(FoundTotals::Unusable(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        let derivation = match found.derivation() {
            Ok(Some(derivation)) if derivation.ledger == ledger => derivation,
            Ok(Some(other)) => {
                return Ok(FoundTotals::Unusable(format!("they are of ledger {}", other.ledger)));
            }
            Ok(None) => return Ok(FoundTotals::Unusable("they do not say of what".to_owned())),
            Err(error) => return Ok(FoundTotals::Unusable(error.to_string())),
        };
        let expected = TotalsFile::new(files::open_totals(scratch, options)?);
        expected.create(ledger)?;
        let gather = Gather::new(options);
        let (due, is_broken) = (BTreeMap::new(), false);
        let check = Self { found, derivation, expected, gather, due, is_broken };
        Ok(FoundTotals::Usable(Box::new(check)))
    }

    /// Adds a batch, if the found totals say that they hold it.
    ///
    /// # Errors
    /// If the sums cannot be written.
    pub fn take(&mut self, batch: CheckedBatch) -> Result<(), StoreError> {
        let (header, position) = (batch.header, batch.position);
        let due = self.due.entry(header.stream).or_insert(Sequence(1));
        self.is_broken |= *due != header.sequence;
        if self.is_broken || position >= self.derivation.end_position {
            return Ok(());
        }
        *due = due.next();
        let Some(batch) = batch.into_tail() else {
            self.is_broken = true;
            return Ok(());
        };
        match self.gather.add(batch) {
            Some(slice) => self.expected.fold(&slice),
            None => Ok(()),
        }
    }

    /// Compares, once every batch was taken. `end_position` is the ledger's. Nothing is compared where
    /// batches did not come in order, or of a stream without a row.
    ///
    /// # Errors
    /// If either file cannot be read, or the sums not be written.
    pub fn finish(mut self, end_position: u64, findings: &mut Findings) -> Result<(), StoreError> {
        if self.is_broken {
            return Ok(());
        }
        let slice = self.gather.slice();
        self.expected.fold(&slice)?;
        if self.derivation.end_position > end_position {
            let found = self.derivation.end_position;
            findings.add(FindingKind::Totals, Place::File(TOTALS_FILE), None, || {
                format!("they reach to position {found}, and the ledger ends at {end_position}")
            });
        }
        let (found, expected) = (self.found.begin_read()?, self.expected.begin_read()?);
        compare_totals(&found, &expected, findings)?;
        compare(UNIQUES, "uniques", &found, &expected, findings)?;
        compare_seen(&found, &expected, findings)?;
        compare(FOLDED, "folded", &found, &expected, findings)?;
        compare(INDEX, "index", &found, &expected, findings)?;
        let events = (self.found.events()?, self.expected.events()?);
        if events.0 != events.1 {
            let place = Place::File(TOTALS_FILE);
            findings.add(
                FindingKind::Conservation,
                place,
                Some(events.0.abs_diff(events.1)),
                || format!("they count {} events, and the batches {}", events.0, events.1),
            );
        }
        Ok(())
    }
}

/// A key and its value.
type Row = (Vec<u8>, Vec<u8>);

/// Rows of `found` and `expected` side by side, in the order of their keys.
struct Walk<'r, K: Key + 'static, V: Value + 'static> {
    rows: Range<'r, K, V>,
    next: Option<Row>,
}

impl<'r, K: Key + 'static, V: Value + 'static> Walk<'r, K, V> {
    fn new(rows: Range<'r, K, V>) -> Result<Self, StoreError> {
        let mut walk = Self { rows, next: None };
        walk.step()?;
        Ok(walk)
    }

    /// The row that was next, as bytes.
    fn step(&mut self) -> Result<Option<Row>, StoreError> {
        let row = self.rows.next().transpose().map_err(Fault::read(TOTALS_FILE))?;
        let row = row.map(|(key, value)| {
            let key = K::as_bytes(&key.value()).as_ref().to_vec();
            (key, V::as_bytes(&value.value()).as_ref().to_vec())
        });
        Ok(std::mem::replace(&mut self.next, row))
    }

    /// All rows whose keys have the next one's part that `of` shows.
    fn group(&mut self, of: impl Fn(&[u8]) -> &[u8]) -> Result<Group, StoreError> {
        let mut group = Group::new();
        let Some(prefix) = self.next.as_ref().map(|(key, _)| of(key).to_vec()) else {
            return Ok(group);
        };
        while self.next.as_ref().is_some_and(|(key, _)| of(key) == prefix) {
            group.extend(self.step()?);
        }
        Ok(group)
    }
}

/// A total's key without its part.
fn without_part(key: &[u8]) -> &[u8] {
    key.get(..key.len().saturating_sub(2)).unwrap_or_default()
}

/// Which side's key comes next.
enum Side {
    Found,
    Expected,
    Both,
}

fn next_side(found: Option<&[u8]>, expected: Option<&[u8]>) -> Option<Side> {
    match (found, expected) {
        (None, None) => None,
        (Some(_), None) => Some(Side::Found),
        (None, Some(_)) => Some(Side::Expected),
        (Some(found), Some(expected)) => Some(match found.cmp(expected) {
            std::cmp::Ordering::Less => Side::Found,
            std::cmp::Ordering::Greater => Side::Expected,
            std::cmp::Ordering::Equal => Side::Both,
        }),
    }
}

/// Any table but the totals: a row is the same in both, or it is wrong.
fn compare<K: Key + 'static, V: Value + 'static>(
    table: TableDefinition<'static, K, V>,
    name: &'static str,
    found: &ReadTransaction,
    expected: &ReadTransaction,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let open = |read: &ReadTransaction| read.open_table(table).map_err(Fault::read(TOTALS_FILE));
    let (found, expected) = (open(found)?, open(expected)?);
    let all = |table: &redb::ReadOnlyTable<K, V>| {
        table.range::<K::SelfType<'_>>(..).map_err(Fault::read(TOTALS_FILE))
    };
    let (mut found, mut expected) = (Walk::new(all(&found)?)?, Walk::new(all(&expected)?)?);
    let key = |next: &Option<Row>| next.as_ref().map(|(key, _)| key.clone());
    while let Some(side) = next_side(key(&found.next).as_deref(), key(&expected.next).as_deref()) {
        let (row, what) = match side {
            Side::Found => (found.step()?, "no batch comes to this row"),
            Side::Expected => (expected.step()?, "the row is missing"),
            Side::Both => match (found.step()?, expected.step()?) {
                (found, expected) if found == expected => continue,
                (found, _) => (found, "the row is not what its batches come to"),
            },
        };
        let row = row.unwrap_or_default();
        let place = Place::Row { table: name, key: told_key(name, &row.0) };
        findings.add(FindingKind::Totals, place, None, || what.to_owned());
    }
    Ok(())
}

/// The rows whose keys have one part in common.
type Group = BTreeMap<Vec<u8>, Vec<u8>>;

/// Groups of both sides whose keys have the same part that `of` shows, where they differ; one may have no rows.
fn compare_groups(
    table: TableDefinition<'static, &'static [u8], &'static [u8]>,
    of: impl Fn(&[u8]) -> &[u8] + Copy,
    (found, expected): (&ReadTransaction, &ReadTransaction),
    mut differ: impl FnMut(&[u8], &Group, &Group),
) -> Result<(), StoreError> {
    let open = |read: &ReadTransaction| read.open_table(table).map_err(Fault::read(TOTALS_FILE));
    let (found, expected) = (open(found)?, open(expected)?);
    let all = |table: &redb::ReadOnlyTable<&'static [u8], &'static [u8]>| {
        table.range::<&[u8]>(..).map_err(Fault::read(TOTALS_FILE))
    };
    let (mut found, mut expected) = (Walk::new(all(&found)?)?, Walk::new(all(&expected)?)?);
    let key = |next: &Option<Row>| next.as_ref().map(|(key, _)| of(key).to_vec());
    loop {
        let keys = (key(&found.next), key(&expected.next));
        let Some(side) = next_side(keys.0.as_deref(), keys.1.as_deref()) else { return Ok(()) };
        let (name, found, expected) = match side {
            Side::Found => (keys.0, found.group(of)?, Group::new()),
            Side::Expected => (keys.1, Group::new(), expected.group(of)?),
            Side::Both => (keys.0, found.group(of)?, expected.group(of)?),
        };
        if found != expected {
            differ(&name.unwrap_or_default(), &found, &expected);
        }
    }
}

/// The totals: by key, all parts of it together.
fn compare_totals(
    found: &ReadTransaction,
    expected: &ReadTransaction,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    compare_groups(TOTALS, without_part, (found, expected), |key, found, expected| {
        let (found, expected) = (Sum::of(found.values()), Sum::of(expected.values()));
        if found != expected {
            let place = Place::Row { table: "totals", key: told_total(key) };
            let events = found.usage.events.max(expected.usage.events);
            findings.add(FindingKind::Totals, place, Some(events), || found.against(&expected));
        }
    })
}

/// What was seen: without the identities, for one that took a stream over from a drainer is told of what came
/// before by the stream's name of now.
fn compare_seen(
    found: &ReadTransaction,
    expected: &ReadTransaction,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    compare_groups(SEEN, codec::seen_prefix, (found, expected), |_, found, expected| {
        if SeenSum::of(found) != SeenSum::of(expected) {
            let row = found.keys().chain(expected.keys()).next().map(|key| told_key("seen", key));
            let place = Place::Row { table: "seen", key: row.unwrap_or_default() };
            let what = match (found.is_empty(), expected.is_empty()) {
                (false, true) => "no batch comes to this row",
                (true, false) => "the row is missing",
                _ => "the row is not what its batches come to",
            };
            findings.add(FindingKind::Totals, place, None, || what.to_owned());
        }
    })
}

/// All rows of a customer, a meter and a class; `None` if one cannot be read.
#[derive(Debug, PartialEq)]
struct SeenSum(Option<(u64, Option<Bucket>, Option<Bucket>)>);

impl SeenSum {
    fn of(rows: &Group) -> Self {
        let seen = rows.iter().map(|(key, value)| codec::read_seen(key, value));
        let Ok(seen) = seen.collect::<Result<Vec<_>, _>>() else { return Self(None) };
        let events = seen.iter().fold(0_u64, |sum, seen| sum.saturating_add(seen.events));
        let first = seen.iter().map(|seen| seen.first).min();
        let last = seen.iter().map(|seen| seen.last).max();
        Self(Some((events, first, last)))
    }
}

/// All parts of one key.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    rows: bool,
    /// Its sum is that of all parts, modulo 2^128.
    usage: Accumulator,
    broken: Option<String>,
}

impl Sum {
    fn of<'v>(values: impl Iterator<Item = &'v Vec<u8>>) -> Self {
        let mut all = Self::default();
        for value in values {
            match codec::read_total(value) {
                Ok(part) => all.add(&part),
                Err(error) => all.broken = Some(error.to_string()),
            }
        }
        all
    }

    fn add(&mut self, part: &Accumulator) {
        let sum = Quantity(self.usage.sum.0.wrapping_add(part.sum.0));
        let without = Accumulator { sum: Quantity(0), ..part.clone() };
        self.usage.sum = Quantity(0);
        if self.usage.merge(&without).is_err() {
            self.broken = Some("its counts do not fit into 64 bits".to_owned());
        }
        (self.usage.sum, self.rows) = (sum, true);
    }

    /// What differs, in words.
    fn against(&self, expected: &Self) -> String {
        if let Some(broken) = &self.broken {
            return broken.clone();
        }
        match (self.rows, expected.rows) {
            (true, false) => return "no batch comes to this row".to_owned(),
            (false, true) => return "the row is missing".to_owned(),
            (true, true) | (false, false) => {}
        }
        let (found, expected) = (&self.usage, &expected.usage);
        let fields = [
            ("events", found.events.to_string(), expected.events.to_string()),
            (
                "events with a quantity",
                found.quantity_events.to_string(),
                expected.quantity_events.to_string(),
            ),
            (
                "events with a unique value",
                found.unique_events.to_string(),
                expected.unique_events.to_string(),
            ),
            ("sum", found.sum.to_string(), expected.sum.to_string()),
            ("min", found.min.to_string(), expected.min.to_string()),
            ("max", found.max.to_string(), expected.max.to_string()),
            ("latest", format!("{:?}", found.latest), format!("{:?}", expected.latest)),
        ];
        let differing = fields.iter().filter(|(_, found, expected)| found != expected);
        let told = differing
            .map(|(name, found, expected)| format!("{name} {found}, by its batches {expected}"));
        told.collect::<Vec<_>>().join("; ")
    }
}

/// A total's key without part, as people read it.
fn told_total(key: &[u8]) -> String {
    let whole = codec::with_part(key, 0);
    match (codec::customer_of(key), codec::read_total_key(&whole)) {
        (Some(customer), Ok(row)) => {
            let dimensions: String =
                row.dimensions.iter().map(|(name, value)| format!(", {name}={value}")).collect();
            let seconds = row.bucket.start().0.div_euclid(1_000);
            let class = row.class.name();
            format!("{customer}, {}{dimensions}, {class}, from unix second {seconds}", row.meter)
        }
        _ => hex::encode(key),
    }
}

/// Another table's key.
fn told_key(table: &str, key: &[u8]) -> String {
    match table {
        "uniques" => match codec::read_unique_key(key) {
            Ok((total, (id, digest))) => {
                format!("{}, value {id} {}", told_total(total), hex::encode(&digest))
            }
            Err(_) => hex::encode(key),
        },
        "seen" => match codec::read_seen(key, &[0; 16]) {
            Ok(seen) => format!("{}, {}, {}", seen.customer, seen.meter, told_as(&seen.seen_as)),
            Err(_) => hex::encode(key),
        },
        "index" => match key.split_at_checked(16) {
            Some((stream, sequence)) => {
                let sequence = sequence.try_into().map_or(0, u64::from_be_bytes);
                format!("stream {}, batch {sequence}", hex::encode(stream))
            }
            None => hex::encode(key),
        },
        _ => hex::encode(key),
    }
}

fn told_as(seen_as: &SeenAs) -> String {
    match seen_as {
        SeenAs::Normal => Class::Normal.name().to_owned(),
        SeenAs::Unauthorised(agent) => format!("{} of {agent}", Class::Unauthorised.name()),
        SeenAs::Suppressed => Class::Suppressed.name().to_owned(),
    }
}
