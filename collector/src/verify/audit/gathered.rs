//! All usage of an archive, summed by key, and the texts of the usage tree that it makes.
//!
//! **Owns** sums of lines, corrections as the books have them, and the texts of both. **Does not own** the tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use tidemark_common::batch::{Dimensions, Line};
use tidemark_common::hex;
use tidemark_common::id::{CustomerId, MeterName};

use super::of_archive;
use crate::archive::manifest::Kind;
use crate::archive::read::Archive;
use crate::verify::json::quoted;
use crate::verify::tree::{self, Digest};
use crate::verify::{Refusal, ensure, exact};

const BUCKETS_PER_DAY: u32 = 96;
const CLASSES: [&str; 3] = ["normal", "unauthorised", "suppressed"];
/// A suppressed line: its index u32, and where the event stands that came first [28].
const SUPPRESSED_BYTES: usize = 32;

/// What was judged of a batch's lines, as the archive has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) marks: &'a [u8],
    pub(super) suppressed: &'a [u8],
}
/// The table of the books in an archive's rows, and the letter of corrections.
const BOOKS_TABLE: u8 = 7;
const CORRECTION: u8 = b'k';

type Series = (CustomerId, MeterName, Dimensions);
/// Takes a customer and its days.
type Visit<'v> = &'v mut dyn FnMut(&str, &[(u32, Digest)]) -> Result<(), Refusal>;

/// Rows by series, class and bucket.
#[derive(Debug)]
pub(super) struct Gathered {
    from_day: u32,
    series: HashMap<Series, u32>,
    rows: HashMap<(u32, u8, u32), Row>,
}

#[derive(Debug, Default)]
struct Row {
    events: u128,
    quantity_events: u128,
    unique_events: u128,
    sum: Wide,
    bounds: Option<(i128, i128)>,
    latest: Option<(i64, i128)>,
    uniques: BTreeSet<(u16, [u8; 16])>,
}

/// A sum of 128-bit numbers in 256 bits, two's complement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wide {
    high: i128,
    low: u128,
}

/// What all rows come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) customers: u64,
    pub(super) days: u64,
    pub(super) rows: u64,
    pub(super) corrections: u64,
    /// By meter and class: rows, events, sum.
    pub(super) meters: BTreeMap<(String, String), (u64, u128, Wide)>,
}

impl Wide {
    fn add(&mut self, other: Self) {
        let (low, carry) = self.low.overflowing_add(other.low);
        let high = self.high.wrapping_add(other.high).wrapping_add(i128::from(carry));
        *self = Self { high, low };
    }

    fn of(value: i128) -> Self {
        let high = if value < 0 { -1 } else { 0 };
        Self { high, low: u128::from_be_bytes(value.to_be_bytes()) }
    }

    pub(super) fn text(self) -> String {
        let low = i128::from_be_bytes(self.low.to_be_bytes());
        if Self::of(low) == self {
            return low.to_string();
        }
        let (high, low) = (self.high.to_be_bytes(), self.low.to_be_bytes());
        format!("x{}{}", hex::encode(&high), hex::encode(&low))
    }
}

fn day_of(bucket: u32) -> u32 {
    bucket.checked_div(BUCKETS_PER_DAY).unwrap_or(0)
}

/// The lines that are suppressed; they ascend.
fn suppressed_lines(bytes: &[u8], lines: usize, place: &str) -> Result<BTreeSet<usize>, Refusal> {
    let (rows, rest) = bytes.as_chunks::<SUPPRESSED_BYTES>();
    let broken = || "what is suppressed of it is no list of its lines".to_owned();
    ensure(rest.is_empty(), place, broken)?;
    let mut found = BTreeSet::new();
    for [a, b, c, d, ..] in rows {
        let line = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let ascends = found.last().is_none_or(|last| *last < line) && line < lines;
        ensure(ascends, place, broken)?;
        found.insert(line);
    }
    Ok(found)
}

impl Gathered {
    pub(super) fn new(from_day: u32) -> Self {
        Self { from_day, series: HashMap::new(), rows: HashMap::new() }
    }

    /// Adds a body's lines, with those that may not be billed, and those that came before.
    pub(super) fn take(
        &mut self,
        lines: &[Line],
        Judged { marks, suppressed }: Judged<'_>,
        place: &str,
    ) -> Result<(), Refusal> {
        let again = suppressed_lines(suppressed, lines.len(), place)?;
        ensure(marks.len() <= lines.len().div_ceil(8), place, || {
            "it has marks of more lines than it has".to_owned()
        })?;
        for (index, line) in lines.iter().enumerate() {
            let byte = index.checked_div(8).and_then(|byte| marks.get(byte)).copied().unwrap_or(0);
            let bit = u32::try_from(index & 7).unwrap_or(0);
            let class = match byte.checked_shr(bit).unwrap_or(0) & 1 {
                0 if again.contains(&index) => 2,
                class => class,
            };
            if day_of(line.key.bucket.0) >= self.from_day {
                self.add(line, class, place)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, line: &Line, class: u8, place: &str) -> Result<(), Refusal> {
        let (key, value) = (&line.key, &line.value);
        let too_many = |_| Refusal::new(place, "the archive has more series than 32 bits count");
        let next = u32::try_from(self.series.len()).map_err(too_many)?;
        let series = (key.customer.clone(), key.meter.clone(), key.dimensions.clone());
        let series = *self.series.entry(series).or_insert(next);
        let row = self.rows.entry((series, class, key.bucket.0)).or_default();
        let count = |sum: &mut u128, events: u64| *sum = sum.saturating_add(events.into());
        count(&mut row.events, value.events);
        count(&mut row.quantity_events, value.quantity_events);
        count(&mut row.unique_events, value.unique_events);
        row.sum.add(Wide::of(value.sum.0));
        if value.quantity_events > 0 {
            let (min, max) = row.bounds.unwrap_or((value.min.0, value.max.0));
            row.bounds = Some((min.min(value.min.0), max.max(value.max.0)));
            row.latest = row.latest.max(Some((value.latest_time.0, value.latest.0)));
        }
        row.uniques.extend(value.uniques.iter().map(|digest| (value.unique_key, *digest)));
        Ok(())
    }

    /// Shows the days of each customer that has usage or corrections, and sums them all.
    pub(super) fn each_customer(
        self,
        mut corrections: Corrections,
        visit: Visit<'_>,
    ) -> Result<Sums, Refusal> {
        let Self { series, rows, .. } = self;
        let mut names: Vec<(u32, Series)> =
            series.into_iter().map(|(name, id)| (id, name)).collect();
        names.sort_unstable_by_key(|(id, _)| *id);
        let name = |id: u32| {
            let place = usize::try_from(id).ok().and_then(|id| names.get(id));
            place.map(|(_, series)| series)
        };
        let mut by_customer: BTreeMap<&str, Vec<(u32, u8, u32)>> = BTreeMap::new();
        for key in rows.keys() {
            if let Some((customer, ..)) = name(key.0) {
                by_customer.entry(customer.as_str()).or_default().push(*key);
            }
        }
        let mut sums = Sums::default();
        let mut show = |customer: &str, keys: &[(u32, u8, u32)], corrected: Vec<Corrected>| {
            let mut days: BTreeMap<u32, Vec<String>> = BTreeMap::new();
            for key in keys {
                let (Some(row), Some((_, meter, dimensions))) = (rows.get(key), name(key.0)) else {
                    continue;
                };
                let (_, class, bucket) = *key;
                let class = CLASSES.get(usize::from(class)).copied().unwrap_or_default();
                days.entry(day_of(bucket))
                    .or_default()
                    .push(row.text(meter, dimensions, class, bucket));
                sums.add_row(meter, class, row);
            }
            for Corrected { bucket, text } in corrected {
                days.entry(day_of(bucket)).or_default().push(text);
                sums.corrections = sums.corrections.saturating_add(1);
            }
            let mut digests = Vec::with_capacity(days.len());
            for (day, mut texts) in days {
                texts.sort_unstable();
                digests.push((day, tree::day(day, texts.iter().map(String::as_str))?));
            }
            sums.customers = sums.customers.saturating_add(1);
            sums.days = sums.days.saturating_add(u64::try_from(digests.len()).unwrap_or(u64::MAX));
            visit(customer, &digests)
        };
        for (customer, keys) in &by_customer {
            show(customer, keys, corrections.0.remove(*customer).unwrap_or_default())?;
        }
        for (customer, corrected) in corrections.0 {
            show(&customer, &[], corrected)?;
        }
        Ok(sums)
    }
}

impl Sums {
    fn add_row(&mut self, meter: &MeterName, class: &str, row: &Row) {
        self.rows = self.rows.saturating_add(1);
        let key = (meter.as_str().to_owned(), class.to_owned());
        let (rows, events, sum) = self.meters.entry(key).or_default();
        *rows = rows.saturating_add(1);
        *events = events.saturating_add(row.events);
        sum.add(row.sum);
    }
}

fn pairs<'d>(dimensions: impl Iterator<Item = (&'d str, &'d str)>) -> String {
    let pairs = dimensions.map(|(name, value)| format!("[{},{}]", quoted(name), quoted(value)));
    format!("[{}]", pairs.collect::<Vec<_>>().join(","))
}

impl Row {
    fn text(&self, meter: &MeterName, dimensions: &Dimensions, class: &str, bucket: u32) -> String {
        let Self { events, quantity_events, unique_events, sum, .. } = self;
        let bounds = self
            .bounds
            .map_or_else(|| "null,null".to_owned(), |(min, max)| format!("\"{min}\",\"{max}\""));
        let latest = self
            .latest
            .map_or_else(|| "null".to_owned(), |(at, quantity)| format!("[{at},\"{quantity}\"]"));
        let uniques: Vec<String> = self
            .uniques
            .iter()
            .map(|(key, digest)| format!("\"{key:04x}{}\"", hex::encode(digest)))
            .collect();
        format!(
            "[\"row\",{},{},\"{class}\",{bucket},{events},{quantity_events},{unique_events},\"{}\",{bounds},{latest},[{}]]",
            quoted(meter.as_str()),
            pairs(dimensions.iter()),
            sum.text(),
            uniques.join(",")
        )
    }
}

/// Corrections of usage, by customer.
#[derive(Debug, Default)]
pub(super) struct Corrections(BTreeMap<String, Vec<Corrected>>);

/// One of them, as the tree has it.
#[derive(Debug)]
struct Corrected {
    bucket: u32,
    text: String,
}

/// A row of the books.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CorrectionRow {
    kind: String,
    meter: String,
    #[serde(default)]
    dimensions: BTreeMap<String, String>,
    bucket: u32,
    events: u64,
    quantity_events: u64,
    sum: String,
}

impl Corrections {
    /// Those of the first `entries` entries, from `from_day` on. An archive may be without books: then there are none.
    pub(super) fn read(archive: &Archive, entries: u64, from_day: u32) -> Result<Self, Refusal> {
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for manifest in archive.manifests() {
            let manifest = manifest.map_err(|error| of_archive(&error))?;
            if manifest.kind != Kind::Books {
                continue;
            }
            let exists =
                archive.store().get(&manifest.object).map_err(|error| of_archive(&error))?;
            if exists.is_none() {
                continue;
            }
            let mut records = archive.records(&manifest).map_err(|error| of_archive(&error))?;
            while let Some((_, puts)) = records.puts().map_err(|error| of_archive(&error))? {
                for put in puts.0 {
                    if (put.table, put.key.first()) != (BOOKS_TABLE, Some(&CORRECTION)) {
                        continue;
                    }
                    match put.value {
                        Some(value) => found.insert(put.key, value),
                        None => found.remove(&put.key),
                    };
                }
            }
        }
        let mut corrections = Self::default();
        for (key, value) in found {
            corrections.take(&key, &value, entries, from_day)?;
        }
        Ok(corrections)
    }

    /// `"k"`, the customer, the bucket and the entry.
    fn take(
        &mut self,
        key: &[u8],
        value: &[u8],
        entries: u64,
        from_day: u32,
    ) -> Result<(), Refusal> {
        let place = "a correction in the archive's books";
        let broken = || Refusal::new(place, "its key or its row is none");
        let split = || {
            let (length, rest) = key.get(1..)?.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (customer, rest) = rest.split_at_checked(length)?;
            let (bucket, rest) = rest.split_first_chunk::<4>()?;
            let entry = u64::from_be_bytes(rest.try_into().ok()?);
            Some((std::str::from_utf8(customer).ok()?, u32::from_be_bytes(*bucket), entry))
        };
        let (customer, bucket, entry) = split().ok_or_else(broken)?;
        if entry > entries || day_of(bucket) < from_day {
            return Ok(());
        }
        let row: CorrectionRow = serde_json::from_slice(value).map_err(|_| broken())?;
        let units = exact::signed(&row.sum, exact::QUANTITY_PLACES).ok_or_else(broken)?;
        ensure(row.bucket == bucket, place, || "its key names another bucket".to_owned())?;
        let dimensions = row.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let text = format!(
            "[\"correction\",{entry},{},{},{},{bucket},{},{},\"{units}\"]",
            quoted(&row.kind),
            quoted(&row.meter),
            pairs(dimensions),
            row.events,
            row.quantity_events
        );
        self.0.entry(customer.to_owned()).or_default().push(Corrected { bucket, text });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_256_bits() {
        let mut sum = Wide::default();
        sum.add(Wide::of(-5));
        assert_eq!(sum.text(), "-5");
        sum.add(Wide::of(i128::MIN));
        let low = "7ffffffffffffffffffffffffffffffb";
        assert_eq!(sum.text(), format!("x{}{low}", "f".repeat(32)));
        sum.add(Wide::of(i128::MAX));
        assert_eq!(sum.text(), "-6");
        sum.add(Wide::of(i128::MAX));
        sum.add(Wide::of(i128::MAX));
        assert_eq!(sum.text().len(), 65);
    }
}
