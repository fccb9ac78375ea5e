//! The gate: which findings an invoice waits for.
//!
//! **Owns** whom each finding keeps back. **Does not own** findings, or what is due (`billing_run`).
//!
//! A finding of a stream keeps back whom the stream's identity may bill, by the catalogue's grants, for a meter that the
//! customer is charged for, if the billed period and the finding's time overlap. A customer's own finding keeps back that
//! customer; a global one everybody. What is waived or covered by a policy keeps nobody back.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_common::id::{CustomerId, MeterName};

use super::{Finding, Reconciliation, RunWaiver, Scope, Span, Waiver, waiver};
use crate::billing::{Bill, BillError};
use crate::catalog::Catalog;
use crate::grants::Grant;
use crate::money::Money;
use crate::rating::Line;

/// Of the customers that a finding is about, so many are named.
const CUSTOMERS_SHOWN_MAX: usize = 100;

/// A customer's usage that is to be invoiced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The billed periods.
    pub span: Span,
    /// What the customer is charged for.
    pub meters: BTreeSet<MeterName>,
    /// What its bill leaves out.
    pub suspense: Vec<Finding>,
    pub worth: Worth,
}

/// What the usage on a bill comes to, and of how many events it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    pub amount: Money,
    pub events: u64,
}

impl Worth {
    /// What the usage on a bill comes to.
    ///
    /// # Errors
    /// If it is too large.
    pub fn of_bill(bill: &Bill<'_>) -> Result<Self, BillError> {
        let sections = bill.sections.iter().flat_map(|section| &section.parts);
        let zero = Self { amount: Money::zero(bill.total.currency), events: 0 };
        sections.flat_map(|part| &part.lines).try_fold(zero, |sum, line| match line {
            Line::Usage(line) => Ok(Self {
                amount: sum.amount.checked_add(line.amount)?,
                events: sum.events.saturating_add(line.events),
            }),
            Line::Fee { .. } | Line::Discount { .. } | Line::Commitment { .. } => Ok(sum),
        })
    }

    /// What so many events would come to, at the average of those on the bill: an estimate, rounded up; `None` without
    /// any.
    #[must_use]
    pub fn of(self, events: u64) -> Option<Money> {
        let product = self.amount.minor.checked_mul(i128::from(events))?;
        let own = i128::from(self.events);
        let (whole, rest) = (product.checked_div_euclid(own)?, product.checked_rem_euclid(own)?);
        let minor = whole.checked_add(i128::from(rest > 0))?;
        Some(Money { minor, currency: self.amount.currency })
    }
}

/// A reconciliation, looked up by customer.
#[derive(Debug)]
pub struct Gate {
    pub reconciliation: Reconciliation,
    waivers: BTreeMap<String, Waiver>,
    run: Option<RunWaiver>,
    /// Places of findings.
    global: Vec<usize>,
    customers: BTreeMap<CustomerId, Vec<usize>>,
    groups: Vec<Group>,
}

/// The findings of streams whose identities may bill the same.
#[derive(Debug)]
struct Group {
    /// Places of the catalogue's `[[identity]]` tables; `None`: everything.
    entries: Option<Vec<usize>>,
    findings: Vec<usize>,
}

impl Gate {
    #[must_use]
    pub fn new(
        catalog: &Catalog,
        reconciliation: Reconciliation,
        waivers: BTreeMap<String, Waiver>,
        run: Option<RunWaiver>,
    ) -> Self {
        let (mut global, mut customers) = (Vec::new(), BTreeMap::<_, Vec<usize>>::new());
        let mut groups: BTreeMap<Option<Vec<usize>>, Vec<usize>> = BTreeMap::new();
        let mut known: BTreeMap<&str, Option<Vec<usize>>> = BTreeMap::new();
        let blocking = reconciliation.findings.iter().enumerate();
        for (place, finding) in blocking.filter(|(_, finding)| finding.blocks()) {
            match &finding.scope {
                Scope::Global => global.push(place),
                Scope::Customer(id) => customers.entry(id.clone()).or_default().push(place),
                Scope::Billable(agent) => {
                    let entries =
                        known.entry(agent.as_str()).or_insert_with(|| entries(catalog, agent));
                    groups.entry(entries.clone()).or_default().push(place);
                }
                Scope::Nobody => {}
            }
        }
        let groups = groups.into_iter().map(|(entries, findings)| Group { entries, findings });
        let groups = groups.collect();
        Self { reconciliation, waivers, run, global, customers, groups }
    }

    /// The findings that the customer's invoice waits for.
    #[must_use]
    pub fn keeps_back(&self, catalog: &Catalog, id: &CustomerId, due: &Due) -> Vec<Finding> {
        let billable = self.groups.iter().filter(|group| group.may_bill(catalog, id, &due.meters));
        let places = self.global.iter().chain(self.customers.get(id).into_iter().flatten());
        let places = places.chain(billable.flat_map(|group| &group.findings));
        let findings = places.filter_map(|place| self.reconciliation.findings.get(*place));
        // What the report knows of suspense is of another time than the bill's; that one is asked below.
        let is_due = |finding: &&Finding| {
            finding.kind.class() != super::Class::Suspense && finding.span.overlaps(due.span)
        };
        let mut kept: Vec<Finding> = findings.filter(is_due).cloned().collect();
        let mut suspense = due.suspense.clone();
        waiver::apply(&mut suspense, &self.waivers, self.run.as_ref());
        kept.extend(suspense.into_iter().filter(Finding::blocks));
        // As if all of it were this customer's.
        kept.iter_mut()
            .for_each(|finding| finding.money = due.worth.of(finding.events).into_iter().collect());
        kept
    }
}

/// Which customers findings are about, for people: each identity's tables are looked through once.
#[derive(Debug)]
pub struct Concerned<'c> {
    catalog: &'c Catalog,
    known: BTreeMap<Option<Vec<usize>>, Customers<'c>>,
}

/// The first of them, and how many there are.
#[derive(Debug, Clone, Default)]
pub struct Customers<'c> {
    pub first: Vec<&'c str>,
    pub count: usize,
}

impl<'c> Concerned<'c> {
    #[must_use]
    pub fn new(catalog: &'c Catalog) -> Self {
        Self { catalog, known: BTreeMap::new() }
    }

    /// All of the catalogue that the finding may keep back, whatever they are charged for.
    pub fn of(&mut self, finding: &Finding) -> Customers<'c> {
        let catalog = self.catalog;
        let entries = match &finding.scope {
            Scope::Global => None,
            Scope::Nobody => return Customers::default(),
            Scope::Customer(id) => {
                let known = catalog.customers.get_key_value(id);
                let first: Vec<_> = known.map(|(id, _)| id.as_str()).into_iter().collect();
                return Customers { count: first.len(), first };
            }
            Scope::Billable(agent) => entries(catalog, agent),
        };
        let made = self.known.entry(entries.clone()).or_insert_with(|| {
            let group = Group { entries, findings: Vec::new() };
            let all = catalog.customers.keys().map(CustomerId::as_str);
            let may: Vec<_> = all.filter(|id| group.may_bill_customer(catalog, id)).collect();
            let count = may.len();
            Customers { first: may.into_iter().take(CUSTOMERS_SHOWN_MAX).collect(), count }
        });
        made.clone()
    }
}

/// Whom an agent may bill, for any meter.
pub(super) struct MayBill<'c> {
    catalog: &'c Catalog,
    group: Group,
}

impl<'c> MayBill<'c> {
    pub(super) fn of(catalog: &'c Catalog, agent: &tidemark_common::tls::AgentName) -> Self {
        let group = Group { entries: entries(catalog, agent), findings: Vec::new() };
        Self { catalog, group }
    }

    pub(super) fn bill(&self, id: &CustomerId) -> bool {
        self.group.may_bill_customer(self.catalog, id.as_str())
    }
}

/// Which `[[identity]]` tables an agent's name matches; `None`: it may bill everything.
fn entries(catalog: &Catalog, agent: &tidemark_common::tls::AgentName) -> Option<Vec<usize>> {
    match catalog.grants.of(agent) {
        Grant::All => None,
        Grant::Only(matching) => {
            let all = catalog.grants.identities.iter().enumerate();
            let is_one = |(_, entry): &(usize, &_)| {
                matching.iter().any(|matching| std::ptr::eq(*matching, *entry))
            };
            Some(all.filter(is_one).map(|(place, _)| place).collect())
        }
    }
}

impl Group {
    fn may_bill(&self, catalog: &Catalog, id: &CustomerId, meters: &BTreeSet<MeterName>) -> bool {
        let Some(entries) = &self.entries else { return !meters.is_empty() };
        let identities = entries.iter().filter_map(|place| catalog.grants.identities.get(*place));
        identities
            .filter(|entry| entry.customers.match_any(id.as_str()))
            .any(|entry| meters.iter().any(|meter| entry.meters.match_any(meter.as_str())))
    }

    fn may_bill_customer(&self, catalog: &Catalog, id: &str) -> bool {
        let Some(entries) = &self.entries else { return true };
        let mut identities =
            entries.iter().filter_map(|place| catalog.grants.identities.get(*place));
        identities.any(|entry| entry.customers.match_any(id))
    }
}

/// The billed time of a customer.
impl From<crate::period::Period> for Span {
    fn from(period: crate::period::Period) -> Self {
        Self { from: period.start.start(), to: period.end.start() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;

    #[test]
    fn an_estimate_is_of_the_average_and_rounded_up() {
        let currency = Currency::parse("EUR").unwrap();
        let check = |minor, of, events, expected: Option<i128>| {
            let worth = Worth { amount: Money { minor, currency }, events: of };
            assert_eq!(worth.of(events).map(|money| money.minor), expected);
        };
        check(1_000, 10, 3, Some(300));
        check(1_000, 3, 1, Some(334));
        check(1_000, 3, 0, Some(0));
        check(1_000, 0, 5, None);
        check(i128::MAX, 1, 2, None);
    }
}
