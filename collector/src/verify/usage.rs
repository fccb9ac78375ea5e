//! The customer's usage in a proof: that it is in the certificate, what its texts say, and what they come to.
//!
//! ```text
//! ["row",METER,[[NAME,VALUE],..],CLASS,BUCKET,EVENTS,QUANTITY_EVENTS,UNIQUE_EVENTS,SUM,MIN,MAX,LATEST,[UNIQUE,..]]
//! ["correction",ENTRY,KIND,METER,[[NAME,VALUE],..],BUCKET,EVENTS,QUANTITY_EVENTS,SUM]
//! ```
//! **Owns** these texts, the path to the root, corrections, and aggregations. **Does not own** which text is of which
//! line (`assignment`).

use std::collections::{BTreeSet, HashSet};

use num_bigint::BigInt;

use super::bundle::{Bundle, Day, DayContent};
use super::exact::{self, Rounding};
use super::json::{self, Value};
use super::rater::Used;
use super::tree::{self, Digest};
use super::{Refusal, ensure};

const BUCKETS_PER_DAY: u32 = 96;
const BUCKET_MILLIS: i64 = 900_000;
const DIMENSIONS_MAX: usize = 16;
/// The class of rows that are billed.
const BILLED: &str = "normal";

/// What texts are of one value of: corrections change the rows of their key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) meter: String,
    pub(super) dimensions: Vec<(String, String)>,
    pub(super) bucket: u32,
}

/// One text.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) key: Key,
    /// Empty of a correction.
    class: Box<str>,
    pub(super) kind: TextKind,
    pub(super) amount: Amount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    /// `normal` says whether it may be billed.
    Row {
        normal: bool,
    },
    Correction {
        entry: u64,
        act: Act,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Add,
    Take,
    Replace,
}

/// What is known of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Amount {
    events: u64,
    quantity_events: u64,
    /// `None`: beyond 128 bits.
    sum: Option<i128>,
    /// `None` without a quantity, as the next one.
    bounds: Option<(i128, i128)>,
    latest: Option<(i64, i128)>,
    uniques: BTreeSet<String>,
}

/// A day whose texts are given; of others there is none.
pub(super) type Texts = Option<Vec<Text>>;

/// Reads all days, and follows the path to the root.
pub(super) fn read(bundle: &Bundle) -> Result<Vec<Texts>, Refusal> {
    let from_day = bundle.head.from_day;
    let (mut read, mut digests) = (Vec::new(), Vec::new());
    for (index, day) in bundle.days.iter().enumerate() {
        let place = format!("days[{index}]");
        let before = digests.last().map(|(day, _): &(u32, Digest)| *day);
        ensure(before.is_none_or(|before| before < day.day), &place, || {
            "days do not ascend".to_owned()
        })?;
        ensure(day.day >= from_day, &place, || {
            format!("day {} is before {from_day}, where the usage tree begins", day.day)
        })?;
        let (texts, digest) = of_day(day, &place)?;
        read.push(texts);
        digests.push((day.day, digest));
    }
    let Some((position, siblings)) = &bundle.path else {
        ensure(digests.is_empty(), "path", || "there are days, and no path to them".to_owned())?;
        return Ok(read);
    };
    ensure(!digests.is_empty(), "path", || "there is a path, and no day".to_owned())?;
    let leaf = tree::leaf(position, &tree::customer(&bundle.customer, &digests)?);
    let root = tree::root_above(position, leaf, siblings);
    ensure(root == bundle.head.usage_root, "days", || {
        "they do not come to the certificate's `usage_root`: this is not the usage that was certified"
            .to_owned()
    })?;
    Ok(read)
}

fn of_day(day: &Day, place: &str) -> Result<(Texts, Digest), Refusal> {
    let texts = match &day.content {
        DayContent::Digest(digest) => return Ok((None, *digest)),
        DayContent::Texts(texts) => texts,
    };
    ensure(!texts.is_empty(), place, || "a day without texts is not in the tree".to_owned())?;
    let digest = tree::day(day.day, texts.iter().map(String::as_str))?;
    let mut read = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let place = format!("{place}: text {index}");
        let before = index.checked_sub(1).and_then(|before| texts.get(before));
        ensure(before.is_none_or(|before| before.as_bytes() < text.as_bytes()), &place, || {
            "texts do not ascend".to_owned()
        })?;
        let text = Text::read(text, &place)?;
        ensure(text.key.bucket.checked_div(BUCKETS_PER_DAY) == Some(day.day), &place, || {
            format!("its bucket {} is not of the day {}", text.key.bucket, day.day)
        })?;
        read.push(text);
    }
    none_twice(&read, place)?;
    Ok((Some(read), digest))
}

fn none_twice(texts: &[Text], place: &str) -> Result<(), Refusal> {
    let mut seen: HashSet<(&Key, TwiceBy<'_>)> = HashSet::with_capacity(texts.len());
    for text in texts {
        let by = match text.kind {
            TextKind::Row { .. } => TwiceBy::Class(&text.class),
            TextKind::Correction { entry, .. } => TwiceBy::Entry(entry),
        };
        ensure(seen.insert((&text.key, by)), place, || {
            format!("usage of {} in the bucket {} stands twice", text.key.meter, text.key.bucket)
        })?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum TwiceBy<'t> {
    Class(&'t str),
    Entry(u64),
}

impl Text {
    pub(super) fn read(text: &str, place: &str) -> Result<Self, Refusal> {
        let value = json::parse(text, place)?;
        let items = value.list(place)?;
        match items {
            [Value::Text(kind), rest @ ..] if kind == "row" => row(rest, place),
            [Value::Text(kind), rest @ ..] if kind == "correction" => correction(rest, place),
            _ => Err(Refusal::new(place, "it is neither a row nor a correction")),
        }
    }
}

fn row(items: &[Value], place: &str) -> Result<Text, Refusal> {
    let [
        meter,
        dimensions,
        class,
        bucket,
        events,
        quantity_events,
        unique_events,
        sum,
        min,
        max,
        latest,
        uniques,
    ] = items
    else {
        return Err(Refusal::new(place, "a row has 13 items"));
    };
    let class = class.text(place)?;
    let (events, quantity_events) = (events.number(place)?, quantity_events.number(place)?);
    let unique_events: u64 = unique_events.number(place)?;
    let bounds = match (min.is_null(), max.is_null()) {
        (true, true) => None,
        (false, false) => Some((units(min, place)?, units(max, place)?)),
        _ => return Err(Refusal::new(place, "it has one of minimum and maximum")),
    };
    let uniques: Result<Vec<_>, _> =
        uniques.list(place)?.iter().map(|one| unique(one, place)).collect();
    let uniques = uniques?;
    let is_sound = quantity_events <= events
        && unique_events <= events
        && (quantity_events == 0) == bounds.is_none()
        && (quantity_events == 0) == latest.is_null()
        && bounds.is_none_or(|(min, max)| min <= max)
        && uniques.iter().zip(uniques.iter().skip(1)).all(|(one, next)| one < next);
    ensure(is_sound, place, || "its figures contradict each other".to_owned())?;
    let amount = Amount {
        events,
        quantity_events,
        sum: wide(sum, place)?,
        bounds,
        latest: moment(latest, place)?,
        uniques: uniques.into_iter().collect(),
    };
    let key = key(meter, dimensions, bucket, place)?;
    Ok(Text { key, class: class.into(), kind: TextKind::Row { normal: class == BILLED }, amount })
}

fn correction(items: &[Value], place: &str) -> Result<Text, Refusal> {
    let [entry, kind, meter, dimensions, bucket, events, quantity_events, sum] = items else {
        return Err(Refusal::new(place, "a correction has 9 items"));
    };
    let act = match kind.text(place)? {
        "add" => Act::Add,
        "take" => Act::Take,
        "replace" => Act::Replace,
        other => return Err(Refusal::new(place, format!("{other:?} is no kind of correction"))),
    };
    let kind = TextKind::Correction { entry: entry.number(place)?, act };
    let key = key(meter, dimensions, bucket, place)?;
    let sum = units(sum, place)?;
    let quantity_events: u64 = quantity_events.number(place)?;
    let has_quantity = quantity_events > 0;
    let amount = Amount {
        events: events.number(place)?,
        quantity_events,
        sum: Some(sum),
        bounds: has_quantity.then_some((sum, sum)),
        latest: has_quantity.then(|| (i64::from(key.bucket).saturating_mul(BUCKET_MILLIS), sum)),
        uniques: BTreeSet::new(),
    };
    Ok(Text { key, class: Box::default(), kind, amount })
}

fn key(meter: &Value, dimensions: &Value, bucket: &Value, place: &str) -> Result<Key, Refusal> {
    let pair = |pair: &Value| match pair.list(place)? {
        [name, value] => Ok((name.text(place)?.to_owned(), value.text(place)?.to_owned())),
        _ => Err(Refusal::new(place, "a dimension is a pair")),
    };
    let dimensions: Result<Vec<_>, _> = dimensions.list(place)?.iter().map(pair).collect();
    let dimensions = dimensions?;
    let ascend = dimensions.iter().zip(dimensions.iter().skip(1)).all(|(one, next)| one.0 < next.0);
    ensure(ascend && dimensions.len() <= DIMENSIONS_MAX, place, || {
        "its dimensions do not ascend, or are too many".to_owned()
    })?;
    let meter = meter.text(place)?.to_owned();
    Ok(Key { meter, dimensions, bucket: bucket.number(place)? })
}

/// Units that fit 128 bits.
fn units(value: &Value, place: &str) -> Result<i128, Refusal> {
    let text = value.text(place)?;
    json::whole(text).ok_or_else(|| Refusal::new(place, format!("{text:?} is no number of units")))
}

/// The same, or `x` and 32 bytes.
fn wide(value: &Value, place: &str) -> Result<Option<i128>, Refusal> {
    match value.text(place)?.strip_prefix('x').map(json::hex::<32>) {
        Some(Some(_)) => Ok(None),
        Some(None) => Err(Refusal::new(place, "a wide sum has 64 hexadecimal digits")),
        None => units(value, place).map(Some),
    }
}

fn moment(value: &Value, place: &str) -> Result<Option<(i64, i128)>, Refusal> {
    if value.is_null() {
        return Ok(None);
    }
    match value.list(place)? {
        [at, quantity] => Ok(Some((at.number(place)?, units(quantity, place)?))),
        _ => Err(Refusal::new(place, "the latest is a pair")),
    }
}

/// Key id and digest.
fn unique(value: &Value, place: &str) -> Result<String, Refusal> {
    value.hex::<18>(place)?;
    value.text(place).map(str::to_owned)
}

/// What the texts of one key come to, corrections in the order of their entries.
pub(super) fn of_key(texts: &[&Text], place: &str) -> Result<Amount, Refusal> {
    let mut amount = Amount { sum: Some(0), ..Amount::default() };
    let mut corrections = Vec::new();
    for text in texts {
        match text.kind {
            TextKind::Row { .. } => amount.add(&text.amount, place)?,
            TextKind::Correction { entry, act } => corrections.push((entry, act, &text.amount)),
        }
    }
    corrections.sort_by_key(|(entry, ..)| *entry);
    for (entry, act, change) in corrections {
        let place = format!("{place}: the correction of entry {entry}");
        match act {
            Act::Add => amount.add(change, &place)?,
            Act::Take => amount.take(change, &place)?,
            Act::Replace => amount = change.clone(),
        }
    }
    Ok(amount)
}

impl Amount {
    pub(super) fn nothing() -> Self {
        Self { sum: Some(0), ..Self::default() }
    }

    /// Comes to it.
    pub(super) fn add(&mut self, other: &Self, place: &str) -> Result<(), Refusal> {
        let too_large = || Refusal::new(place, "the usage comes to more than 128 bits hold");
        let count = |one: u64, other: u64| one.checked_add(other).ok_or_else(too_large);
        self.events = count(self.events, other.events)?;
        self.quantity_events = count(self.quantity_events, other.quantity_events)?;
        let sums = self.sum.zip(other.sum).ok_or_else(too_large)?;
        self.sum = Some(sums.0.checked_add(sums.1).ok_or_else(too_large)?);
        self.bounds = match (self.bounds, other.bounds) {
            (Some((min, max)), Some((low, high))) => Some((min.min(low), max.max(high))),
            (own, other) => own.or(other),
        };
        self.latest = self.latest.max(other.latest);
        self.uniques.extend(other.uniques.iter().cloned());
        Ok(())
    }

    fn take(&mut self, other: &Self, place: &str) -> Result<(), Refusal> {
        let too_much = || Refusal::new(place, "it takes more than there is");
        let less = |one: u64, other: u64| one.checked_sub(other).ok_or_else(too_much);
        self.events = less(self.events, other.events)?;
        self.quantity_events = less(self.quantity_events, other.quantity_events)?;
        let sums = self.sum.zip(other.sum).ok_or_else(too_much)?;
        self.sum = Some(sums.0.checked_sub(sums.1).ok_or_else(too_much)?);
        Ok(())
    }

    /// What is charged of it, by the meter's aggregation.
    pub(super) fn used(&self, aggregation: &str, place: &str) -> Result<Used, Refusal> {
        Ok(Used { quantity: self.quantity(aggregation, place)?, events: self.events })
    }

    /// In units.
    fn quantity(&self, aggregation: &str, place: &str) -> Result<BigInt, Refusal> {
        let whole =
            |count: BigInt| exact::multiply(&count, &exact::power_of_ten(exact::QUANTITY_PLACES));
        let too_large = || Refusal::new(place, "the sum of its usage is beyond 128 bits");
        let sum = self.sum.ok_or_else(too_large)?;
        Ok(match aggregation {
            "sum" => sum.into(),
            "count" => whole(self.events.into()),
            "unique_count" => whole(self.uniques.len().into()),
            "min" | "max" | "average" if self.quantity_events == 0 => BigInt::ZERO,
            "min" => self.bounds.map_or(0, |(min, _)| min).into(),
            "max" => self.bounds.map_or(0, |(_, max)| max).into(),
            "latest" => self.latest.map_or(0, |(_, quantity)| quantity).into(),
            "average" => {
                exact::round(&sum.into(), &self.quantity_events.into(), Rounding::HalfEven)
            }
            other => return Err(Refusal::new(place, format!("{other:?} is no aggregation"))),
        })
    }
}
