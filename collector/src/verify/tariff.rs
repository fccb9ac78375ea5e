//! What a plan and a subscription say, read from their TOML texts.
//!
//! **Owns** its reading of these two tables, as `deploy/docs/pricing.md` has them: every key is known, every number is an
//! exact decimal. **Does not own** whether the text is what was agreed.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use toml::{Table, Value};

use super::exact::{self, PERCENT_PLACES, PRICE_PLACES, QUANTITY_PLACES, Rounding};
use super::{Refusal, ensure, instant};

/// A text has at most this many bytes, and a price this many tiers.
const TEXT_BYTES_MAX: usize = 16 << 20;
const TIERS_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) currency: String,
    pub(super) interval: String,
    pub(super) rounding: Option<Rounding>,
    /// A bucket, as all instants here.
    pub(super) effective: Option<u32>,
    /// In units of 10^-12, as all prices here.
    pub(super) commitment: Option<BigInt>,
    /// The commitment is for several periods.
    pub(super) has_term: bool,
    pub(super) fees: Vec<Fee>,
    pub(super) prices: Vec<Price>,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) customer: String,
    pub(super) plan: String,
    pub(super) start: Option<u32>,
    pub(super) end: Option<u32>,
    pub(super) trial_end: Option<u32>,
    /// In units of 10^-10 percent.
    pub(super) discount: Option<BigInt>,
    pub(super) fees: Vec<Fee>,
    pub(super) prices: Vec<Price>,
}

#[derive(Debug)]
pub(super) struct Fee {
    pub(super) name: String,
    pub(super) amount: BigInt,
    pub(super) timing: String,
    pub(super) tax: Option<String>,
}

#[derive(Debug)]
pub(super) struct Price {
    pub(super) meter: String,
    /// `where`.
    pub(super) filter: BTreeMap<String, String>,
    /// In units of 10^-9.
    pub(super) included: BigInt,
    pub(super) minimum: Option<BigInt>,
    pub(super) maximum: Option<BigInt>,
    pub(super) tax: Option<String>,
    pub(super) model: Model,
}

#[derive(Debug)]
pub(super) enum Model {
    PerUnit { unit_price: BigInt },
    Package { size: BigInt, price: BigInt },
    Graduated(Vec<Tier>),
    Volume(Vec<Tier>),
    Percentage { percent: BigInt, per_event: BigInt },
}

/// The last has no bound.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) up_to: Option<BigInt>,
    pub(super) unit_price: BigInt,
    pub(super) flat: BigInt,
}

impl Plan {
    pub(super) fn read(text: &str, place: &str) -> Result<Self, Refusal> {
        let mut keys = only_table(text, "plan", place)?;
        let rounding_name = keys.maybe("rounding")?;
        let wrong = |name: &String| Refusal::new(place, format!("{name:?} is no rounding"));
        let rounding = rounding_name
            .map(|name| Rounding::parse(&name).ok_or_else(|| wrong(&name)))
            .transpose()?;
        let plan = Self {
            name: keys.text("name")?,
            currency: keys.text("currency")?,
            interval: keys.maybe("interval")?.unwrap_or_else(|| "month".to_owned()),
            rounding,
            effective: keys.instant("effective")?,
            commitment: keys.maybe_decimal("commitment", PRICE_PLACES)?,
            has_term: keys.maybe("commitment_term")?.is_some(),
            fees: keys.each("fee", fee)?,
            prices: keys.each("price", price)?,
        };
        keys.finish()?;
        Ok(plan)
    }
}

impl Subscription {
    pub(super) fn read(text: &str, place: &str) -> Result<Self, Refusal> {
        let mut keys = only_table(text, "subscription", place)?;
        let subscription = Self {
            customer: keys.text("customer")?,
            plan: keys.text("plan")?,
            start: keys.instant("start")?,
            end: keys.instant("end")?,
            trial_end: keys.instant("trial_end")?,
            discount: keys.maybe_decimal("discount", PERCENT_PLACES)?,
            fees: keys.each("fee", fee)?,
            prices: keys.each("price", price)?,
        };
        keys.finish()?;
        Ok(subscription)
    }
}

impl Price {
    /// Whether it takes usage of these dimensions, if no price before does.
    pub(super) fn takes(&self, meter: &str, dimensions: &[(String, String)]) -> bool {
        let has = |(name, value): (&String, &String)| {
            dimensions.iter().any(|(own, held)| (own, held) == (name, value))
        };
        self.meter == meter && self.filter.iter().all(has)
    }

    /// Whether nothing is left for `other`.
    pub(super) fn hides(&self, other: &Self) -> bool {
        let has = |(name, value): (&String, &String)| other.filter.get(name) == Some(value);
        self.meter == other.meter && self.filter.iter().all(has)
    }
}

fn fee(keys: &mut Keys) -> Result<Fee, Refusal> {
    let timing = keys.maybe("timing")?.unwrap_or_else(|| "arrears".to_owned());
    ensure(matches!(timing.as_str(), "arrears" | "advance"), &keys.place, || {
        format!("{timing:?} is no timing")
    })?;
    Ok(Fee {
        name: keys.text("name")?,
        amount: keys.decimal("amount", PRICE_PLACES)?,
        timing,
        tax: keys.maybe("tax")?,
    })
}

fn price(keys: &mut Keys) -> Result<Price, Refusal> {
    let none = BigInt::ZERO;
    Ok(Price {
        meter: keys.text("meter")?,
        filter: keys.filter()?,
        included: keys.maybe_decimal("included", QUANTITY_PLACES)?.unwrap_or(none),
        minimum: keys.maybe_decimal("minimum", PRICE_PLACES)?,
        maximum: keys.maybe_decimal("maximum", PRICE_PLACES)?,
        tax: keys.maybe("tax")?,
        model: model(keys)?,
    })
}

fn model(keys: &mut Keys) -> Result<Model, Refusal> {
    let name = keys.maybe("model")?.unwrap_or_else(|| "per_unit".to_owned());
    match name.as_str() {
        "per_unit" => Ok(Model::PerUnit { unit_price: keys.decimal("unit_price", PRICE_PLACES)? }),
        "package" => {
            let size = keys.decimal("package_size", QUANTITY_PLACES)?;
            ensure(size > BigInt::ZERO, &keys.place, || "its package holds nothing".to_owned())?;
            Ok(Model::Package { size, price: keys.decimal("package_price", PRICE_PLACES)? })
        }
        "graduated" => tiers(keys).map(Model::Graduated),
        "volume" => tiers(keys).map(Model::Volume),
        "percentage" => {
            let percent = keys.decimal("percent", PERCENT_PLACES)?;
            let per_event = keys.maybe_decimal("per_event", PRICE_PLACES)?;
            Ok(Model::Percentage { percent, per_event: per_event.unwrap_or(BigInt::ZERO) })
        }
        other => Err(Refusal::new(&keys.place, format!("{other:?} is no model"))),
    }
}

fn tiers(keys: &mut Keys) -> Result<Vec<Tier>, Refusal> {
    let tiers = keys.each("tier", |keys| {
        let flat = keys.maybe_decimal("flat", PRICE_PLACES)?;
        Ok(Tier {
            up_to: keys.maybe_decimal("up_to", QUANTITY_PLACES)?,
            unit_price: keys.decimal("unit_price", PRICE_PLACES)?,
            flat: flat.unwrap_or(BigInt::ZERO),
        })
    })?;
    let none = BigInt::ZERO;
    let begins = [&none].into_iter().chain(tiers.iter().filter_map(|tier| tier.up_to.as_ref()));
    let mut bounds = tiers.iter().map(|tier| tier.up_to.as_ref());
    let ends_open = bounds.next_back() == Some(None);
    let ascends = bounds.zip(begins).all(|(end, begin)| end.is_some_and(|end| end > begin));
    ensure(ends_open && ascends && tiers.len() <= TIERS_MAX, &keys.place, || {
        "its tiers do not ascend to one without `up_to`".to_owned()
    })?;
    Ok(tiers)
}

/// The keys of one table that are not read yet.
struct Keys {
    place: String,
    table: Table,
}

/// A text that is one table of this kind, and nothing else.
fn only_table(text: &str, kind: &str, place: &str) -> Result<Keys, Refusal> {
    ensure(text.len() <= TEXT_BYTES_MAX, place, || "the text is too long".to_owned())?;
    let parsed: Result<Table, _> = text.parse();
    let table = parsed.map_err(|error| {
        Refusal::new(place, format!("it is no TOML: {}", error.message().trim_end()))
    })?;
    let mut root = Keys { place: place.to_owned(), table };
    let mut tables = root.tables(kind)?;
    root.finish()?;
    let only = tables.pop();
    only.filter(|_| tables.is_empty())
        .ok_or_else(|| Refusal::new(place, format!("it is not one [[{kind}]]")))
}

impl Keys {
    fn wrong<T>(&self, key: &str, due: &str) -> Result<T, Refusal> {
        Err(Refusal::new(&self.place, format!("`{key}` is not {due}")))
    }

    fn maybe(&mut self, key: &str) -> Result<Option<String>, Refusal> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => self.wrong(key, "a text in quotes"),
        }
    }

    fn text(&mut self, key: &str) -> Result<String, Refusal> {
        self.maybe(key)?.map_or_else(|| self.wrong(key, "there"), Ok)
    }

    fn maybe_decimal(&mut self, key: &str, places: u32) -> Result<Option<BigInt>, Refusal> {
        let Some(text) = self.maybe(key)? else { return Ok(None) };
        exact::decimal(&text, places).map_or_else(
            || self.wrong(key, &format!("a decimal of at most {places} places: {text:?}")),
            |value| Ok(Some(value)),
        )
    }

    fn decimal(&mut self, key: &str, places: u32) -> Result<BigInt, Refusal> {
        self.maybe_decimal(key, places)?.map_or_else(|| self.wrong(key, "there"), Ok)
    }

    fn instant(&mut self, key: &str) -> Result<Option<u32>, Refusal> {
        let place = format!("{}: `{key}`", self.place);
        self.maybe(key)?.map(|text| instant::bucket(&text, &place)).transpose()
    }

    fn filter(&mut self) -> Result<BTreeMap<String, String>, Refusal> {
        let mut filter = BTreeMap::new();
        match self.table.remove("where") {
            None => {}
            Some(Value::Table(listed)) => {
                for (name, value) in listed {
                    let Value::String(value) = value else { return self.wrong("where", "texts") };
                    filter.insert(name, value);
                }
            }
            Some(_) => return self.wrong("where", "a table"),
        }
        Ok(filter)
    }

    fn tables(&mut self, key: &str) -> Result<Vec<Self>, Refusal> {
        let listed = match self.table.remove(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(listed)) => listed,
            Some(_) => return self.wrong(key, "a list of tables"),
        };
        let mut tables = Vec::new();
        for (index, item) in listed.into_iter().enumerate() {
            let Value::Table(table) = item else { return self.wrong(key, "a list of tables") };
            tables.push(Self { place: format!("{}: {key} {index}", self.place), table });
        }
        Ok(tables)
    }

    fn each<T>(
        &mut self,
        key: &str,
        read: impl Fn(&mut Self) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let mut found = Vec::new();
        for mut keys in self.tables(key)? {
            found.push(read(&mut keys)?);
            keys.finish()?;
        }
        Ok(found)
    }

    fn finish(self) -> Result<(), Refusal> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(key) => Err(Refusal::new(&self.place, format!("nobody knows the key `{key}`"))),
        }
    }
}
