//! Bills: what a customer owes of the periods that hold one instant, from one snapshot.
//!
//! **Owns** which usage each subscription is charged for, and what is on no line. **Does not own** what it comes to
//! (`rating`), which terms hold (`terms`), or where usage is read (`live`).
//!
//! Usage is charged once: by the first subscription, in the catalogue's order, whose plan in force at the time of the
//! events has a price that takes it; where that is in another period of its, it is on that period's bill alone.

pub mod shown;

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use tidemark_common::id::{CustomerId, MeterName};
use tidemark_common::time::Timestamp;

use crate::catalog::plan::{MeterPrice, Plan};
use crate::catalog::{Catalog, Customer, Subscription, Unbilled};
use crate::ledger::store::UsageQuestion;
use crate::live::{ReadError, Snapshot};
use crate::money::{Money, MoneyError, Price};
use crate::period::{Period, PeriodError};
use crate::rating::{self, Gathered, RatingError, Taken, TermDue, UsageLine};
use crate::terms::{self, Charging, Part, Section};
use crate::usage::{Class, Overflow, UsageRow};

/// A customer's bill.
#[derive(Debug)]
pub struct Bill<'a> {
    pub customer: &'a Customer,
    /// One for each subscription, in the catalogue's order.
    pub sections: Vec<RatedSection<'a>>,
    /// The sum of the sections' totals, and of what they are projected to come to.
    pub total: Money,
    pub projected: Money,
    /// Events that are on no line, by meter and reason: of the time that all sections have in common.
    pub suspense: BTreeMap<(MeterName, Unbilled), u64>,
}

/// A subscription's share.
#[derive(Debug)]
pub struct RatedSection<'a> {
    pub plan: &'a str,
    pub period: Period,
    /// The version of the plan that each part is priced by.
    pub plans: Vec<&'a Plan>,
    /// The lines of each part, ascending.
    pub parts: Vec<rating::Bill<'a>>,
    pub total: Money,
    /// What the total will be at the period's end, if usage goes on as it did.
    pub projected: Money,
}

/// Why there is no bill.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BillError {
    #[error("the catalogue has no customer {id:?}")]
    UnknownCustomer { id: String },
    #[error("the customer {id:?} is on no plan in this period")]
    NoPlan { id: String },
    #[error(transparent)]
    Period(#[from] PeriodError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Usage(#[from] Overflow),
    #[error(transparent)]
    Rating(#[from] RatingError),
    #[error("failed to total the bill: {0}")]
    Total(#[from] MoneyError),
}

/// The customer's terms at one instant.
#[derive(Debug)]
pub struct Terms<'a> {
    id: &'a CustomerId,
    customer: &'a Customer,
    sections: Vec<Section<'a>>,
}

impl<'a> Terms<'a> {
    /// What the customer is on in the periods that hold `at`.
    ///
    /// # Errors
    /// A customer that is not known, or on nothing.
    pub fn at(catalog: &'a Catalog, id: &'a CustomerId, at: Timestamp) -> Result<Self, BillError> {
        let unknown = || BillError::UnknownCustomer { id: id.as_str().to_owned() };
        let customer = catalog.customers.get(id).ok_or_else(unknown)?;
        let sections = terms::sections(catalog, id, customer, at)?;
        if sections.is_empty() {
            return Err(BillError::NoPlan { id: id.as_str().to_owned() });
        }
        Ok(Self { id, customer, sections })
    }

    /// Those of the customer's sections in the periods that hold `at` that `keep` chooses, if there are any.
    ///
    /// # Errors
    /// An instant outside of what calendars cover.
    pub fn chosen(
        catalog: &'a Catalog,
        (id, customer): (&'a CustomerId, &'a Customer),
        at: Timestamp,
        keep: impl Fn(&Section<'a>) -> bool,
    ) -> Result<Option<Self>, BillError> {
        let mut sections = terms::sections(catalog, id, customer, at)?;
        sections.retain(keep);
        Ok((!sections.is_empty()).then_some(Self { id, customer, sections }))
    }

    /// What the customer is on of one plan, in a period that is known already.
    #[must_use]
    pub fn of_period(
        catalog: &'a Catalog,
        (id, customer): (&'a CustomerId, &'a Customer),
        plan: &str,
        period: Period,
    ) -> Option<Self> {
        let sections = terms::sections_of(catalog, id, customer, plan, period);
        (!sections.is_empty()).then_some(Self { id, customer, sections })
    }

    /// The same as [`Self::bill`] for a customer without any usage: what fees come to.
    ///
    /// # Errors
    /// Fees that cannot be summed.
    pub fn bill_without_usage(
        &'a self,
        catalog: &'a Catalog,
        now: Timestamp,
    ) -> Result<Bill<'a>, BillError> {
        Gathering::new(self.id, &self.sections).rate(catalog, self, now)
    }

    /// Reads the usage of these terms from `snapshot`, row by row, and rates it.
    ///
    /// # Errors
    /// Usage that cannot be read or summed; see [`BillError`].
    pub fn bill(
        &'a self,
        catalog: &'a Catalog,
        snapshot: &Snapshot,
        rows_max: u64,
    ) -> Result<Bill<'a>, BillError> {
        let mut gathering = Gathering::new(self.id, &self.sections);
        let Period { start: from, end: to } = self.span();
        let asked = UsageQuestion { customer: self.id, meter: None, from, to };
        snapshot.visit_usage(&asked, rows_max, |row| gathering.take(catalog, &row))?;
        let mut bill = gathering.rate(catalog, self, snapshot.ledger_time())?;
        self.true_up(catalog, snapshot, rows_max, &mut bill)?;
        Ok(bill)
    }

    /// Adds what terms that end are short of their commitments.
    fn true_up(
        &'a self,
        catalog: &'a Catalog,
        snapshot: &Snapshot,
        rows_max: u64,
        bill: &mut Bill<'a>,
    ) -> Result<(), BillError> {
        for (section, rated) in self.sections.iter().zip(&mut bill.sections) {
            let Some((commitment, last, term)) = self.ending_term(section)? else { continue };
            let due = self.due_of_term(catalog, section, commitment, last, term)?;
            let earlier = self.charged_before(catalog, snapshot, rows_max, section, term)?;
            let short = |charged: Money| -> Result<Money, MoneyError> {
                let short = due.checked_sub(charged)?;
                Ok(Money { minor: short.minor.max(0), ..short })
            };
            let charged = earlier.checked_add(rated.total)?;
            let amount = short(charged)?;
            let projected = short(earlier.checked_add(rated.projected)?)?;
            let term = Some(TermDue { term, due, charged });
            let line = rating::Line::Commitment { commitment, part: last, amount, term };
            rated.parts.last_mut().expect("a section has parts").add(line)?;
            rated.total = rated.total.checked_add(amount)?;
            rated.projected = rated.projected.checked_add(projected)?;
            bill.total = bill.total.checked_add(amount)?;
            bill.projected = bill.projected.checked_add(projected)?;
        }
        Ok(())
    }

    /// The commitment of several periods that ends with this section: its last part says how much, and which term.
    fn ending_term(
        &self,
        section: &Section<'a>,
    ) -> Result<Option<(Price, Part<'a>, Period)>, BillError> {
        let Some(last) = section.parts.last().copied() else { return Ok(None) };
        let (Some(commitment), Some(interval)) = (last.plan.commitment, last.plan.commitment_term)
        else {
            return Ok(None);
        };
        let Period { start, end } = section.period;
        let term = self.customer.zone.period_of(start.start(), interval, self.customer.anchor)?;
        let ends = section.subscription.end.map_or(term.end, |own| own.min(term.end));
        Ok((start < ends && ends <= end).then_some((commitment, last, term)))
    }

    /// The commitment, for the parts of the term in which a version with one is in force and charged.
    fn due_of_term(
        &self,
        catalog: &'a Catalog,
        section: &Section<'a>,
        commitment: Price,
        last: Part<'a>,
        term: Period,
    ) -> Result<Money, BillError> {
        let plan = &section.subscription.plan;
        let all = terms::sections_of(catalog, self.id, self.customer, plan, term);
        let own = all.iter().filter(|all| std::ptr::eq(all.subscription, section.subscription));
        let mut due = Money::zero(last.plan.currency);
        for part in own.flat_map(|all| &all.parts) {
            if part.charging == Charging::Charged && part.plan.commitment_term.is_some() {
                let share = part.share.of(commitment, last.plan.currency, last.rounding)?;
                due = due.checked_add(share)?;
            }
        }
        Ok(due)
    }

    /// What this subscription was charged in the term's earlier periods, as they are rated now.
    fn charged_before(
        &self,
        catalog: &'a Catalog,
        snapshot: &Snapshot,
        rows_max: u64,
        section: &Section<'a>,
        term: Period,
    ) -> Result<Money, BillError> {
        let last = section.parts.last().expect("a section has parts");
        let mut charged = Money::zero(last.plan.currency);
        let mut start = term.start;
        while start < section.period.start {
            let (interval, anchor) = (last.plan.interval, self.customer.anchor);
            let period = self.customer.zone.period_of(start.start(), interval, anchor)?;
            let plan = &section.subscription.plan;
            let who = (self.id, self.customer);
            if let Some(terms) = Terms::of_period(catalog, who, plan, period) {
                let bill = terms.bill(catalog, snapshot, rows_max)?;
                for (earlier, rated) in terms.sections.iter().zip(&bill.sections) {
                    if std::ptr::eq(earlier.subscription, section.subscription) {
                        charged = charged.checked_add(rated.total)?;
                    }
                }
            }
            start = period.end;
        }
        Ok(charged)
    }

    /// The meters that have a price here.
    #[must_use]
    pub fn meters(&self) -> BTreeSet<MeterName> {
        let parts = self.sections.iter().flat_map(|section| &section.parts);
        parts.flat_map(|part| part.prices()).map(|price| price.meter.clone()).collect()
    }

    /// From the first beginning to the last end of its periods.
    #[must_use]
    pub fn span(&self) -> Period {
        let periods = self.sections.iter().map(|section| section.period);
        periods
            .reduce(|all, one| Period {
                start: all.start.min(one.start),
                end: all.end.max(one.end),
            })
            .expect("terms have a section")
    }
}

/// Whether a row of the customer's is on this line: its subscription charges it, in its part, by its price.
#[must_use]
pub fn is_of(catalog: &Catalog, id: &CustomerId, line: &UsageLine<'_>, row: &UsageRow) -> bool {
    let part = line.part;
    let Period { start, end } = part.share.part;
    let charges = |on: &Subscription| std::ptr::eq(on, part.subscription);
    let takes = |price: &&MeterPrice| price.takes(&row.meter, &row.dimensions);
    row.class == Class::Normal
        && (start..end).contains(&row.bucket)
        && terms::charged_by(catalog, id, row).is_some_and(charges)
        && part.prices().find(takes).is_some_and(|price| std::ptr::eq(price, line.price))
}

/// Usage on its way to the lines.
struct Gathering<'a> {
    id: &'a CustomerId,
    sections: &'a [Section<'a>],
    /// For each section, its parts.
    gathered: Vec<Vec<Gathered<'a>>>,
    suspense: BTreeMap<(MeterName, Unbilled), u64>,
}

impl<'a> Gathering<'a> {
    fn new(id: &'a CustomerId, sections: &'a [Section<'a>]) -> Self {
        let parts =
            |section: &'a Section<'a>| section.parts.iter().copied().map(Gathered::new).collect();
        Self {
            id,
            sections,
            gathered: sections.iter().map(parts).collect(),
            suspense: BTreeMap::new(),
        }
    }

    fn take(&mut self, catalog: &Catalog, row: &UsageRow) -> Result<(), BillError> {
        let reason = match row.class {
            // Its event is charged where it came first.
            Class::Suppressed => return Ok(()),
            Class::Unauthorised => Unbilled::Unauthorised,
            Class::Normal if !catalog.meters.contains_key(&row.meter) => Unbilled::UnknownMeter,
            Class::Normal => match terms::charged_by(catalog, self.id, row) {
                None => Unbilled::Unpriced,
                Some(subscription) => return self.charge(subscription, row),
            },
        };
        let holds = |section: &Section<'_>| {
            (section.period.start..section.period.end).contains(&row.bucket)
        };
        if self.sections.iter().all(holds) {
            let events = self.suspense.entry((row.meter.clone(), reason)).or_default();
            *events = events.saturating_add(row.usage.events);
        }
        Ok(())
    }

    /// Takes a row that is the subscription's, if it is of the periods of this bill.
    fn charge(&mut self, subscription: &Subscription, row: &UsageRow) -> Result<(), BillError> {
        let sections = self.sections.iter().zip(&mut self.gathered);
        let of = sections.filter(|(section, _)| std::ptr::eq(section.subscription, subscription));
        for part in of.flat_map(|(_, parts)| parts) {
            if part.take(row)? == Taken::Priced {
                break;
            }
        }
        Ok(())
    }

    fn rate(
        self,
        catalog: &'a Catalog,
        terms: &'a Terms<'a>,
        now: Timestamp,
    ) -> Result<Bill<'a>, BillError> {
        let rated = self.sections.iter().zip(&self.gathered).map(|(section, gathered)| {
            let parts = gathered.iter().map(|part| part.rate(catalog));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let projected = gathered.iter().map(|part| Ok(part.project(catalog, now)?.total));
            let projected = projected.collect::<Result<Vec<_>, RatingError>>()?;
            let (total, projected) =
                (sum(parts.iter().map(|part| part.total))?, sum(projected.into_iter())?);
            let plan = &section.subscription.plan;
            let plans = section.parts.iter().map(|part| part.plan).collect();
            Ok(RatedSection { plan, period: section.period, plans, parts, total, projected })
        });
        let sections = rated.collect::<Result<Vec<_>, BillError>>()?;
        let total = sum(sections.iter().map(|section| section.total))?;
        let projected = sum(sections.iter().map(|section| section.projected))?;
        Ok(Bill { customer: terms.customer, sections, total, projected, suspense: self.suspense })
    }
}

/// The sum of at least one amount.
fn sum(amounts: impl Iterator<Item = Money>) -> Result<Money, MoneyError> {
    let summed = amounts.map(Ok).reduce(|sum, next| sum?.checked_add(next?));
    summed.expect("a bill has sections, and a section parts")
}
