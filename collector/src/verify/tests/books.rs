//! A customer's books from a seed: a catalogue, usage, and documents as the product draws them up.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use tidemark_common::batch::Dimensions;
use tidemark_common::hex;
use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};

use super::super::json::{self, Value};
use super::catalogue::{CUSTOMER, catalog_text};
use super::writer::{Proof, Random, number, object, text};
use crate::billing::RatedSection;
use crate::catalog::Catalog;
use crate::invoice::charge::{Charge, Parties, Which, charges, number_repeated};
use crate::invoice::draft::{Basis, DuePeriod, draft};
use crate::invoice::tax::{AskedTax, TaxQuestion, TaxService};
use crate::invoice::{CutShown, SectionKind};
use crate::ledger::books::Issue;
use crate::ledger::books::rows::{PeriodRow, Scope};
use crate::money::{Currency, Money};
use crate::period::{Day, Period, Zone};
use crate::rating::{self, Gathered, Line, TermDue};
use crate::terms::{self, Charging, Part};
use crate::usage::{Accumulator, Class, Sign, UsageRow};

/// A text of the tree, and what it is to the product.
#[derive(Debug, Clone)]
pub(super) struct Used {
    row: UsageRow,
    /// Entry and kind of a correction.
    correction: Option<(u64, &'static str)>,
}

/// Where a charge comes from: a part, and the filter's price by its place.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    part: Part<'a>,
    price: Option<usize>,
}

/// A month of Berlin: October or November 2026.
fn month(start: &str) -> Period {
    let at = crate::period::parse_edge(start).unwrap();
    Zone::parse("Europe/Berlin").unwrap().month_of(at.start()).unwrap()
}

fn usage(random: &mut Random, time: Period, count: usize, entries: &mut u64) -> Vec<Used> {
    let mut all: Vec<Used> = Vec::new();
    let meters =
        ["calls", "tokens", "storage", "seats", "users", "pay", "ping", "load", "low", "unpriced"];
    for _ in 0..count {
        let meter = *random.pick(&meters);
        let (model, region) = (*random.pick(&["l", "s", "\"q\""]), *random.pick(&["eu", "us"]));
        let pairs = match random.below(3) {
            0 => vec![],
            1 => vec![("model".into(), model.into())],
            _ => vec![("model".into(), model.into()), ("region".into(), region.into())],
        };
        let length = usize::try_from(time.end.0 - time.start.0).unwrap();
        let bucket = Bucket(time.start.0 + u32::try_from(random.below(length)).unwrap());
        let row = UsageRow {
            class: if random.chance(12) { Class::Unauthorised } else { Class::Normal },
            sign: Sign::Added,
            meter: MeterName::parse(meter).unwrap(),
            dimensions: Dimensions::new(pairs).unwrap(),
            bucket,
            usage: accumulated(random, bucket),
        };
        let correction = (row.class == Class::Normal && random.chance(5)).then(|| {
            *entries += 1;
            (*entries, *random.pick(&["add", "replace", "take"]))
        });
        let is_same = |used: &Used| {
            (used.row.bucket, &used.row.meter, &used.row.dimensions)
                == (row.bucket, &row.meter, &row.dimensions)
        };
        if all.iter().any(is_same) {
            continue;
        }
        all.push(Used { row: row.clone(), correction: None });
        if let Some((entry, kind)) = correction {
            all.push(Used { row: corrected(random, &row, kind), correction: Some((entry, kind)) });
        }
    }
    all
}

fn accumulated(random: &mut Random, bucket: Bucket) -> Accumulator {
    let quantities: Vec<i128> = (0..1 + random.below(4))
        .map(|_| {
            i128::from(random.next() % 90_000_000_000)
                - if random.chance(6) { 95_000_000_000 } else { 0 }
        })
        .collect();
    let count = u64::try_from(quantities.len()).unwrap();
    let latest = Timestamp(bucket.start().0 + i64::try_from(random.below(800_000)).unwrap());
    let uniques: BTreeSet<_> =
        (0..random.below(3)).map(|_| (1, [u8::try_from(random.below(9)).unwrap(); 16])).collect();
    let unique_events = u64::try_from(uniques.len()).unwrap();
    Accumulator {
        events: count + unique_events + 1,
        quantity_events: count,
        unique_events,
        sum: Quantity(quantities.iter().sum()),
        min: Quantity(*quantities.iter().min().unwrap()),
        max: Quantity(*quantities.iter().max().unwrap()),
        latest: Some((latest, Quantity(quantities[0]))),
        uniques,
    }
}

/// A correction of a row: what it adds, takes or puts there.
fn corrected(random: &mut Random, row: &UsageRow, kind: &str) -> UsageRow {
    let sum = Quantity(i128::from(random.next() % 9_000_000_000));
    let usage = Accumulator {
        events: 1,
        quantity_events: 1,
        sum,
        min: sum,
        max: sum,
        latest: Some((row.bucket.start(), sum)),
        ..Accumulator::default()
    };
    let sign = if kind == "take" { Sign::Taken } else { Sign::Added };
    UsageRow { usage, sign, ..row.clone() }
}

impl Used {
    fn text(&self) -> String {
        let UsageRow { meter, dimensions, bucket, usage, class, .. } = &self.row;
        let units = |quantity: Quantity| text(&quantity.0.to_string());
        let pairs =
            dimensions.iter().map(|(name, value)| Value::List(vec![text(name), text(value)]));
        let (meter, pairs) = (text(meter.as_str()), Value::List(pairs.collect()));
        let bounds =
            |quantity| if usage.quantity_events > 0 { units(quantity) } else { Value::Null };
        let latest = usage
            .latest
            .map_or(Value::Null, |(at, quantity)| Value::List(vec![number(at.0), units(quantity)]));
        let uniques = usage
            .uniques
            .iter()
            .map(|(id, digest)| text(&format!("{id:04x}{}", hex::encode(digest))));
        let items = match self.correction {
            None => vec![
                text("row"),
                meter,
                pairs,
                text(class.name()),
                number(bucket.0),
                number(usage.events),
                number(usage.quantity_events),
                number(usage.unique_events),
                units(usage.sum),
                bounds(usage.min),
                bounds(usage.max),
                latest,
                Value::List(uniques.collect()),
            ],
            Some((entry, kind)) => vec![
                text("correction"),
                number(entry),
                text(kind),
                meter,
                pairs,
                number(bucket.0),
                number(usage.events),
                number(usage.quantity_events),
                units(usage.sum),
            ],
        };
        super::writer::written(&Value::List(items))
    }
}

/// As the product reads it: replaced rows are gone, what is taken comes last.
fn read_rows(all: &[Used]) -> Vec<UsageRow> {
    let key = |row: &UsageRow| (row.bucket, row.meter.clone(), row.dimensions.clone());
    let is_replaced = |used: &Used| {
        used.correction.is_none()
            && used.row.class == Class::Normal
            && all.iter().any(|other| {
                matches!(other.correction, Some((_, "replace")))
                    && key(&other.row) == key(&used.row)
            })
    };
    let mut rows: Vec<UsageRow> =
        all.iter().filter(|used| !is_replaced(used)).map(|used| used.row.clone()).collect();
    rows.sort_by_key(|row| row.sign == Sign::Taken);
    rows
}

/// Lines of a part: each by its index in the section, with its price's place.
type Lines = Vec<(usize, Option<usize>)>;
/// Texts: day and index.
type Places = Vec<(usize, usize)>;

/// One plan's period as it is rated now, and where each charge comes from.
type Rated<'a> = (String, Period, Vec<(Charge<'a>, Origin<'a>)>);

fn rated<'a>(
    parties: Parties<'a>,
    id: &CustomerId,
    period: Period,
    rows: &[UsageRow],
    which: Which,
) -> Vec<Rated<'a>> {
    let catalog = parties.catalog;
    let sections = terms::sections(catalog, id, parties.customer, period.start.start()).unwrap();
    let mut found = Vec::new();
    for section in sections {
        let (mut all, mut origins) = (Vec::new(), Vec::new());
        for (index, part) in section.parts.iter().enumerate() {
            let mut gathered = Gathered::new(*part);
            for row in rows.iter().filter(|row| row.class == Class::Normal) {
                let by = terms::charged_by(catalog, id, row);
                if by.is_some_and(|on| std::ptr::eq(on, section.subscription)) {
                    gathered.take(row).unwrap();
                }
            }
            let mut bill: rating::Bill<'a> = gathered.rate(catalog).unwrap();
            if index + 1 == section.parts.len() && part.plan.commitment_term.is_some() {
                let currency = part.plan.currency;
                let due = TermDue {
                    term: period,
                    due: Money { minor: 500_000, currency },
                    charged: Money { minor: bill.total.minor + 100, currency },
                };
                let amount = Money { minor: (500_000 - due.charged.minor).max(0), currency };
                let commitment = part.plan.commitment.unwrap();
                bill.add(Line::Commitment { commitment, part: *part, amount, term: Some(due) })
                    .unwrap();
            }
            let total = bill.total;
            let lines = bill.lines.clone();
            let section = RatedSection {
                plan: &section.subscription.plan,
                period,
                plans: vec![part.plan],
                parts: vec![bill],
                total,
                projected: total,
            };
            for charge in charges(parties, &section, which).unwrap() {
                let price = lines.iter().filter_map(|line| match line {
                    Line::Usage(usage) => Some(usage.price),
                    Line::Fee { .. } | Line::Discount { .. } | Line::Commitment { .. } => None,
                });
                let price = charge.key.starts_with("usage/").then(|| {
                    price.clone().position(|price| told(price) == charge.description).unwrap()
                });
                origins.push(Origin { part: *part, price });
                all.push(charge);
            }
        }
        number_repeated(&mut all);
        let charges = all.into_iter().zip(origins).collect();
        found.push((section.subscription.plan.clone(), period, charges));
    }
    found
}

fn with(kind: SectionKind, rated: Vec<Rated<'_>>) -> Vec<(SectionKind, Rated<'_>)> {
    rated.into_iter().map(|one| (kind, one)).collect()
}

fn told(price: &crate::catalog::plan::MeterPrice) -> String {
    let filter: Vec<_> =
        price.filter.iter().map(|(name, value)| format!("{name}={value}")).collect();
    match filter.is_empty() {
        true => price.meter.to_string(),
        false => format!("{}{{{}}}", price.meter, filter.join(",")),
    }
}

/// The document of `date`, if it is one, and its proof.
struct Run<'a> {
    parties: Parties<'a>,
    id: &'a CustomerId,
    used: &'a [Used],
    held: Vec<PeriodRow>,
    /// A service says the taxes.
    asks: bool,
}

/// A service that says some tax of all lines.
#[derive(Debug)]
struct AnyTax;

impl TaxService for AnyTax {
    fn ask(&self, question: &TaxQuestion<'_>) -> Result<Vec<AskedTax>, String> {
        let currency = Currency::parse(&question.currency).unwrap();
        let amounts =
            question.lines.iter().map(|line| Money::parse(&line.amount, currency).unwrap());
        let sum: i128 = amounts.map(|amount| amount.minor).sum();
        Ok(vec![AskedTax {
            name: "county".to_owned(),
            label: "County".to_owned(),
            percent: crate::money::Percent::parse("3").unwrap(),
            inclusive: false,
            net: Money { minor: sum, currency },
            tax: Money { minor: 777, currency },
            lines: question.lines.iter().map(|line| line.number).collect(),
        }])
    }
}

/// A day, and its texts.
type DayTexts = (u32, Vec<String>);

impl<'a> Run<'a> {
    fn issue(&self, date: &str, periods: &[(SectionKind, Rated<'a>)]) -> Issue {
        let held = |plan: &str, period: Period| {
            self.held.iter().find(|row| row.plan == plan && row.period() == period)
        };
        let due: Vec<DuePeriod<'_>> = periods
            .iter()
            .map(|(kind, (plan, period, charges))| DuePeriod {
                kind: *kind,
                plan,
                period: *period,
                charges: charges.iter().map(|(charge, _)| charge.clone()).collect(),
                held: held(plan, *period),
            })
            .collect();
        let currency = Currency::parse("EUR").unwrap();
        let basis = Basis {
            parties: self.parties,
            id: self.id,
            currency,
            date: Day::parse(date).unwrap(),
            version: 1,
            credit: Money { minor: 1_234, currency },
            cut: Some(CutShown {
                as_of: Zone::utc().rfc3339(Timestamp(AS_OF)),
                complete_through: Zone::parse("Asia/Kolkata")
                    .unwrap()
                    .rfc3339(Timestamp(AS_OF - 1_001)),
                certificate: None,
            }),
            plans: Vec::new(),
            sandbox: false,
            tax_service: self.asks.then_some(&AnyTax),
        };
        draft(&basis, &due).unwrap().unwrap().issue
    }

    fn proof(
        &self,
        random: &mut Random,
        issue: &Issue,
        periods: &[(SectionKind, Rated<'a>)],
    ) -> Proof {
        let (given, list) = self.days();
        let (mut parts, mut plans, mut subscriptions) = (Vec::new(), Vec::new(), Vec::new());
        let mut asked: Vec<Period> = Vec::new();
        let mut section = 0;
        for (kind, (plan, period, charges)) in periods {
            let shown = self.shown(*kind, plan, *period, charges);
            let taken_back = issue
                .effect
                .periods
                .iter()
                .find(|change| change.plan == *plan && change.period() == *period);
            let lines = taken_back.map_or(0, |change| change.lines.len());
            if *kind != SectionKind::Period && lines == 0 {
                continue;
            }
            let mut grouped: Vec<(Part<'a>, Lines)> = Vec::new();
            for (line, origin) in shown.iter().enumerate() {
                match grouped.last_mut() {
                    Some((part, lines)) if *part == origin.part => lines.push((line, origin.price)),
                    _ => grouped.push((origin.part, vec![(line, origin.price)])),
                }
            }
            for (part, lines) in grouped {
                if lines.iter().any(|(_, price)| price.is_some()) {
                    asked.push(part.share.part);
                }
                let plan = index_of(&mut plans, part.plan.to_toml());
                let toml = subscription_toml(self.parties.catalog, part.subscription);
                let subscription = index_of(&mut subscriptions, toml);
                let (rows, elsewhere) = self.rows(part, &lines, &given);
                parts.push(object([
                    ("section", number(section)),
                    ("lines", Value::List(lines.iter().map(|(line, _)| number(*line)).collect())),
                    ("plan", number(plan)),
                    ("subscription", number(subscription)),
                    ("from", number(part.share.part.start.0)),
                    ("to", number(part.share.part.end.0)),
                    ("trial", Value::Bool(part.charging == Charging::Trial)),
                    ("rounding", text(part.rounding.name())),
                    ("rows", Value::List(rows.iter().map(|row| places(row)).collect())),
                    ("elsewhere", places(&elsewhere)),
                ]));
            }
            section += 1;
        }
        let touched = |day: u32| {
            asked.iter().any(|time| (time.start.0 / 96..=(time.end.0 - 1) / 96).contains(&day))
        };
        let document = named_document(issue);
        Proof {
            document,
            as_of: AS_OF,
            complete_through: AS_OF - 1_001,
            from_day: list.first().map_or(0, |(day, _)| *day).saturating_sub(40),
            customer: CUSTOMER.to_owned(),
            siblings: (0..48)
                .map(|_| super::writer::sha(&[&random.next().to_be_bytes()]))
                .collect(),
            days: list.into_iter().map(|(day, texts)| (day, texts, touched(day))).collect(),
            plans,
            subscriptions,
            parts: Value::List(parts),
            tax_rounding: match self.asks {
                true => Value::Null,
                false => text(self.parties.seller.rounding.name()),
            },
        }
    }

    /// Each day's usage, in the order of its texts, and the texts.
    fn days(&self) -> (Vec<Vec<&Used>>, Vec<DayTexts>) {
        let mut days: BTreeMap<u32, Vec<(String, &Used)>> = BTreeMap::new();
        for used in self.used {
            days.entry(used.row.bucket.0 / 96).or_default().push((used.text(), used));
        }
        days.values_mut().for_each(|texts| texts.sort_by(|one, other| one.0.cmp(&other.0)));
        let given: Vec<Vec<&Used>> =
            days.values().map(|texts| texts.iter().map(|(_, used)| *used).collect()).collect();
        let texts = |texts: Vec<(String, &Used)>| texts.into_iter().map(|(text, _)| text).collect();
        let list: Vec<(u32, Vec<String>)> =
            days.into_iter().map(|(day, all)| (day, texts(all))).collect();
        (given, list)
    }

    /// Where the lines of a section come from: of a correction only those that are different.
    fn shown(
        &self,
        kind: SectionKind,
        plan: &str,
        period: Period,
        charges: &[(Charge<'a>, Origin<'a>)],
    ) -> Vec<Origin<'a>> {
        let held = self.held.iter().find(|row| row.plan == plan && row.period() == period);
        let mut shown = Vec::new();
        for (charge, origin) in charges {
            let before =
                held.and_then(|held| held.lines.iter().find(|line| line.key == charge.key));
            let (amount, deferred) = before.map_or((0, 0), |line| (line.amount.0, line.deferred.0));
            let is_advance = held.is_some_and(|held| held.scope == Scope::Advance);
            let earned = if is_advance { 0 } else { deferred };
            if kind != SectionKind::Correction || charge.amount.minor != amount || earned != 0 {
                shown.push(*origin);
            }
        }
        shown
    }

    /// The texts of each line, and those that another plan charges.
    fn rows(&self, part: Part<'a>, lines: &Lines, days: &[Vec<&Used>]) -> (Vec<Places>, Places) {
        let (mut rows, mut elsewhere) = (vec![Vec::new(); lines.len()], Vec::new());
        for (day, texts) in days.iter().enumerate() {
            for (index, used) in texts.iter().enumerate() {
                let row = &used.row;
                let is_of = (part.share.part.start..part.share.part.end).contains(&row.bucket);
                let price =
                    part.prices().position(|price| price.takes(&row.meter, &row.dimensions));
                let line = lines.iter().position(|(_, of)| price.is_some() && *of == price);
                let Some(line) = line.filter(|_| is_of && row.class == Class::Normal) else {
                    continue;
                };
                let by = terms::charged_by(self.parties.catalog, self.id, row).unwrap();
                if std::ptr::eq(by, part.subscription) {
                    rows[line].push((day, index));
                } else {
                    elsewhere.push((day, index));
                }
            }
        }
        (rows, elsewhere)
    }
}

/// As it is issued, with the certificate that it names.
fn named_document(issue: &Issue) -> Value {
    let mut document = issue.document.clone();
    document.number = Some("INV2026-000007".to_owned());
    document.date = Some("2026-12-02".to_owned());
    let document = serde_json::to_string(&document).unwrap();
    let mut document = json::parse(&document, "document").unwrap();
    let Value::Object(cut) = super::writer::field(&mut document, "cut") else { panic!("a cut") };
    let named = object([("number", number(3)), ("sha256", text(&"0".repeat(64)))]);
    cut.push(("certificate".to_owned(), named));
    document
}

const AS_OF: i64 = 1_796_083_800_123;

fn index_of(texts: &mut Vec<String>, text: String) -> usize {
    texts.iter().position(|held| *held == text).unwrap_or_else(|| {
        texts.push(text);
        texts.len() - 1
    })
}

/// As the catalogue writes it.
fn subscription_toml(catalog: &Catalog, on: &crate::catalog::Subscription) -> String {
    let own = &catalog.subscriptions[&CustomerId::parse(CUSTOMER).unwrap()];
    let number = own.iter().position(|own| std::ptr::eq(own, on)).unwrap() + 1;
    let name = format!("subscription {CUSTOMER} {number} to {}", on.plan);
    catalog.items().into_iter().find(|(item, _)| *item == name).unwrap().1
}

pub(super) fn places(all: &[(usize, usize)]) -> Value {
    let mut days: Vec<(usize, Vec<Value>)> = Vec::new();
    for (day, index) in all {
        match days.last_mut() {
            Some((held, texts)) if held == day => texts.push(number(*index)),
            _ => days.push((*day, vec![number(*index)])),
        }
    }
    let days =
        days.into_iter().map(|(day, texts)| Value::List(vec![number(day), Value::List(texts)]));
    Value::List(days.collect())
}

/// The proofs of a customer's documents: of October, and of November with what October comes to by then.
pub(super) fn proofs(seed: u64) -> Vec<Proof> {
    proofs_of(seed, WithUsage::Yes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WithUsage {
    Yes,
    No,
}

pub(super) fn proofs_of(seed: u64, with_usage: WithUsage) -> Vec<Proof> {
    let mut random = Random(seed);
    let asks = seed % 5 == 4;
    let toml = catalog_text(&mut random);
    let catalog =
        Catalog::parse(&toml, "c").unwrap_or_else(|problems| panic!("{problems:?}\n{toml}"));
    let id = CustomerId::parse(CUSTOMER).unwrap();
    let customer = &catalog.customers[&id];
    let parties = Parties { catalog: &catalog, seller: &catalog.sellers[0], customer };
    let [october, november, december] =
        ["2026-10-05T00:00:00Z", "2026-11-05T00:00:00Z", "2026-12-05T00:00:00Z"].map(month);
    let mut entries = 0;
    let count = if with_usage == WithUsage::Yes { 60 } else { 0 };
    let mut used = usage(&mut random, october, count, &mut entries);
    let mut made = Vec::new();

    let rows = read_rows(&used);
    let of = |period, rows: &[UsageRow], which| rated(parties, &id, period, rows, which);
    let mut due = with(SectionKind::Period, of(october, &rows, Which::All));
    due.extend(with(SectionKind::Advance, of(november, &[], Which::InAdvance)));
    due.retain(|(kind, (_, _, charges))| *kind == SectionKind::Period || !charges.is_empty());
    let run = Run { parties, id: &id, used: &used, held: Vec::new(), asks };
    let first = run.issue("2026-11-01", &due);
    made.push(run.proof(&mut random, &first, &due));
    let held = first.effect.periods.iter().map(|change| PeriodRow {
        plan: change.plan.clone(),
        start: change.start,
        end: change.end,
        scope: change.scope,
        lines: change.lines.clone(),
    });
    let mut held: Vec<PeriodRow> = held.collect();
    if seed % 4 == 1 {
        // More was invoiced than is due: a credit note.
        held[0].lines[1].amount.0 += 10_000_000;
    }

    // Late usage of October, of other times than before.
    let late = usage(&mut random, october, count, &mut entries);
    let is_new = |one: &Used| used.iter().all(|other| other.row.bucket != one.row.bucket);
    let late: Vec<Used> = late.into_iter().filter(is_new).take(random.below(30)).collect();
    used.extend(late);
    used.extend(usage(&mut random, november, count, &mut entries));
    let rows = read_rows(&used);
    let mut due = with(SectionKind::Period, of(november, &rows, Which::All));
    due.extend(with(SectionKind::Advance, of(december, &[], Which::InAdvance)));
    due.extend(with(SectionKind::Correction, of(october, &rows, Which::All)));
    due.retain(|(kind, (_, _, charges))| *kind == SectionKind::Period || !charges.is_empty());
    let run = Run { parties, id: &id, used: &used, held, asks };
    let second = run.issue("2026-12-01", &due);
    made.push(run.proof(&mut random, &second, &due));
    made
}
