//! The proof of one document: which texts of the usage tree each of its lines is made of, and the way to the root.
//!
//! ```text
//! document's lines --which part, which price--> parts     customer's days --which line takes each text--> rows
//! ```
//! **Owns** the texts of `deploy/docs/proofs.md` that stand beside document and certificate. **Does not own** what a line
//! comes to (`rating`), or who charges a row (`terms`).
//!
//! Invariant: a proof holds texts of one customer alone.

use std::ops::{ControlFlow, Range};

use serde::Serialize;

use tidemark_common::hex;
use tidemark_common::id::CustomerId;

use super::make::Made;
use super::tree;
use super::usage::{DAY_BUCKETS, DayTexts, Text};
use crate::catalog::plan::{MeterPrice, Plan};
use crate::catalog::{Catalog, Subscription};
use crate::invoice::charge::Source;
use crate::invoice::draft::Drawn;
use crate::ledger::store::StoreError;
use crate::live::Snapshot;
use crate::money::Rounding;
use crate::period::Period;
use crate::terms::{self, Charging, Part};
use crate::usage::{Accumulator, Class, Sign, UsageRow};

/// Indexes of texts, by the index of their day.
type Places = Vec<(usize, Vec<usize>)>;

/// What stands beside document and certificate. The order of fields is the format.
#[derive(Debug, Serialize)]
struct Proof {
    customer: String,
    path: Option<PathShown>,
    days: Vec<(u32, DayShown)>,
    plans: Vec<String>,
    subscriptions: Vec<String>,
    parts: Vec<PartShown>,
    tax_rounding: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct PathShown {
    position: String,
    siblings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum DayShown {
    Texts(Vec<String>),
    Digest(String),
}

#[derive(Debug, Serialize)]
struct PartShown {
    section: usize,
    lines: Vec<usize>,
    plan: usize,
    subscription: usize,
    from: u32,
    to: u32,
    trial: bool,
    rounding: &'static str,
    rows: Vec<Places>,
    elsewhere: Places,
}

/// A part of a section, its lines, and by which prices usage comes to them.
#[derive(Debug, Clone)]
struct PartLines {
    section: usize,
    lines: Vec<usize>,
    plan: usize,
    /// Of `Provenance::subscriptions`.
    subscription: usize,
    time: Period,
    charging: Charging,
    rounding: Rounding,
    /// All prices of the part, in the order in which they take usage, and the place of the line that each makes.
    prices: Vec<(MeterPrice, Option<usize>)>,
}

/// How a document's lines came about: what its proof is made by, once it is known to be issued.
#[derive(Debug, Clone)]
pub struct Provenance {
    parts: Vec<PartLines>,
    /// Texts of the catalogue.
    plans: Vec<String>,
    /// The same, and each one's place among the customer's.
    subscriptions: Vec<(usize, String)>,
    tax_rounding: Option<Rounding>,
}

impl Provenance {
    /// Of a document as it was drawn up.
    #[must_use]
    pub fn of(catalog: &Catalog, customer: &CustomerId, drawn: &Drawn<'_>) -> Self {
        let own = catalog.subscriptions.get(customer).map_or(&[][..], Vec::as_slice);
        let (mut plans, mut subscriptions) = (Listed::default(), Listed::default());
        let mut open: Option<Part<'_>> = None;
        let mut parts: Vec<PartLines> = Vec::new();
        for (section, sources) in drawn.sources.iter().enumerate() {
            for (line, source) in sources.iter().enumerate() {
                let Some(Source { part, price }) = *source else { continue };
                let goes_on = open.is_some_and(|open| is_same(open, part))
                    && parts.last().is_some_and(|last| last.section == section);
                if !goes_on {
                    parts.push(PartLines {
                        section,
                        lines: Vec::new(),
                        plan: plans.index(part.plan),
                        subscription: subscriptions.index(part.subscription),
                        time: part.share.part,
                        charging: part.charging,
                        rounding: part.rounding,
                        prices: part.prices().map(|price| (price.clone(), None)).collect(),
                    });
                    open = Some(part);
                }
                let Some(last) = parts.last_mut() else { continue };
                if let Some(place) =
                    price.and_then(|price| part.prices().position(|own| std::ptr::eq(own, price)))
                    && let Some((_, of)) = last.prices.get_mut(place)
                {
                    *of = Some(last.lines.len());
                }
                last.lines.push(line);
            }
        }
        let place = |on: &Subscription| own.iter().position(|own| std::ptr::eq(own, on));
        let subscription =
            |on: &Subscription| (place(on).unwrap_or(usize::MAX), on.to_toml(customer.as_str()));
        Self {
            parts,
            plans: plans.items.into_iter().map(Plan::to_toml).collect(),
            subscriptions: subscriptions.items.into_iter().map(subscription).collect(),
            tax_rounding: drawn.tax_rounding,
        }
    }

    /// The proof's text: what stands beside document and certificate.
    ///
    /// # Errors
    /// If usage cannot be read.
    pub fn proof(
        &self,
        catalog: &Catalog,
        customer: &CustomerId,
        made: &Made,
        snapshot: &Snapshot,
    ) -> Result<String, StoreError> {
        let mut parts: Vec<PartShown> = self.parts.iter().map(PartLines::shown).collect();
        let asked: Vec<Range<u32>> = self.parts.iter().filter_map(PartLines::days).collect();
        let placing = Placing { provenance: self, catalog, customer };
        let mut days = Vec::new();
        made.days(snapshot).visit(customer, &mut |day| {
            let is_asked = asked.iter().any(|asked| asked.contains(&day.day));
            let content = if is_asked {
                placing.place(&day, days.len(), &mut parts);
                DayShown::Texts(day.texts.into_iter().map(|text| text.text).collect())
            } else {
                DayShown::Digest(hex::encode(&day.digest()))
            };
            days.push((day.day, content));
            ControlFlow::Continue(())
        })?;
        let position = made.keyed.position(customer);
        let path = (!days.is_empty()).then(|| PathShown {
            position: hex::encode(&tree::bytes(position)),
            siblings: made.tree.path(position).iter().map(|node| hex::encode(node)).collect(),
        });
        let proof = Proof {
            customer: customer.as_str().to_owned(),
            path,
            days,
            plans: self.plans.clone(),
            subscriptions: self.subscriptions.iter().map(|(_, text)| text.clone()).collect(),
            parts,
            tax_rounding: self.tax_rounding.map(Rounding::name),
        };
        Ok(serde_json::to_string(&proof).expect("texts and numbers are JSON"))
    }
}

/// The same stretch of the same subscription, by the same version of its plan.
fn is_same(left: Part<'_>, right: Part<'_>) -> bool {
    left.share == right.share
        && left.charging == right.charging
        && std::ptr::eq(left.plan, right.plan)
        && std::ptr::eq(left.subscription, right.subscription)
}

/// Texts on their way to lines.
struct Placing<'p> {
    provenance: &'p Provenance,
    catalog: &'p Catalog,
    customer: &'p CustomerId,
}

impl Placing<'_> {
    /// Puts each text of a day to the line that is made of it.
    fn place(&self, day: &DayTexts, index: usize, parts: &mut [PartShown]) {
        let normal = day.texts.iter().enumerate().filter(|(_, text)| text.class == Class::Normal);
        for (number, text) in normal {
            let by = self.charged_by(text);
            for (lines, shown) in self.provenance.parts.iter().zip(parts.iter_mut()) {
                let Some(line) = lines.line_of(text) else { continue };
                let places = if by == self.place_of(lines) {
                    shown.rows.get_mut(line)
                } else {
                    Some(&mut shown.elsewhere)
                };
                let Some(places) = places else { continue };
                match places.last_mut().filter(|(held, _)| *held == index) {
                    Some((_, numbers)) => numbers.push(number),
                    None => places.push((index, vec![number])),
                }
            }
        }
    }

    /// The place, among the customer's, of the subscription that charges a text.
    fn charged_by(&self, text: &Text) -> Option<usize> {
        let on = terms::charged_by(self.catalog, self.customer, &row_of(text))?;
        let own = self.catalog.subscriptions.get(self.customer)?;
        own.iter().position(|own| std::ptr::eq(own, on))
    }

    fn place_of(&self, lines: &PartLines) -> Option<usize> {
        self.provenance.subscriptions.get(lines.subscription).map(|(place, _)| *place)
    }
}

impl PartLines {
    /// The days that it touches, if it has lines of usage.
    fn days(&self) -> Option<Range<u32>> {
        let has_usage = self.prices.iter().any(|(_, line)| line.is_some());
        let (from, to) = (self.time.start.0, self.time.end.0);
        has_usage.then(|| from.div_euclid(DAY_BUCKETS)..to.div_ceil(DAY_BUCKETS))
    }

    /// Which of its lines is made by the price that takes a text; `None` if none is.
    fn line_of(&self, text: &Text) -> Option<usize> {
        if !(self.time.start..self.time.end).contains(&text.bucket) {
            return None;
        }
        let takes = |(price, _): &&(MeterPrice, _)| price.takes(&text.meter, &text.dimensions);
        self.prices.iter().find(takes)?.1
    }

    fn shown(&self) -> PartShown {
        PartShown {
            section: self.section,
            lines: self.lines.clone(),
            plan: self.plan,
            subscription: self.subscription,
            from: self.time.start.0,
            to: self.time.end.0,
            trial: self.charging == Charging::Trial,
            rounding: self.rounding.name(),
            rows: vec![Vec::new(); self.lines.len()],
            elsewhere: Vec::new(),
        }
    }
}

/// Things, each once.
struct Listed<T> {
    items: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

impl<'a, T> Listed<&'a T> {
    fn index(&mut self, item: &'a T) -> usize {
        let held = self.items.iter().position(|held| std::ptr::eq(*held, item));
        held.unwrap_or_else(|| {
            self.items.push(item);
            self.items.len().saturating_sub(1)
        })
    }
}

fn row_of(text: &Text) -> UsageRow {
    UsageRow {
        class: text.class,
        sign: Sign::Added,
        meter: text.meter.clone(),
        dimensions: text.dimensions.clone(),
        bucket: text.bucket,
        usage: Accumulator::default(),
    }
}
