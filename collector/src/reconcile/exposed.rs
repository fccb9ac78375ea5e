//! What the events of a report's findings may come to, in money.
//!
//! **Owns** the estimate: for each customer that a finding may keep back, its events at the average of that customer's bill, as
//! if all were its own; of each currency the greatest is told. **Does not own** bills (`billing.rs`), or what a billing run says of
//! one customer (`gate.rs`).
//!
//! Limits: a finding of more than [`CUSTOMERS_MAX`] customers is not estimated; a report makes at most [`BILLS_MAX`] bills.

use std::collections::{BTreeMap, HashMap};

use tidemark_common::id::CustomerId;
use tidemark_common::time::Timestamp;

use super::gate::MayBill;
use super::{Finding, Scope, Worth};
use crate::billing::Terms;
use crate::catalog::Catalog;
use crate::ledger::Snapshot;
use crate::money::Money;

const CUSTOMERS_MAX: usize = 1_000;
const BILLS_MAX: usize = 10_000;
/// As many as a bill may be made of.
const ROWS_MAX: u64 = 4_000_000;

/// Says of each finding that could keep invoices back what its events may come to.
pub(super) fn estimate(catalog: &Catalog, snapshot: &Snapshot, findings: &mut [Finding]) {
    let mut bills = Bills { catalog, snapshot, known: HashMap::new() };
    let is_one = |finding: &&mut Finding| finding.kind.class().blocks() && finding.events > 0;
    for finding in findings.iter_mut().filter(is_one) {
        let last = finding.span.to.plus_millis(-1).min(snapshot.as_of);
        let mut greatest: BTreeMap<String, Money> = BTreeMap::new();
        for customer in concerned(catalog, finding) {
            let worth = bills.worth(customer, last).and_then(|worth| worth.of(finding.events));
            let Some(money) = worth.filter(|money| money.minor > 0) else { continue };
            let held = greatest.entry(money.currency.to_string()).or_insert(money);
            held.minor = held.minor.max(money.minor);
        }
        finding.money = greatest.into_values().collect();
    }
}

/// Of too many nobody is named.
fn concerned<'c>(catalog: &'c Catalog, finding: &Finding) -> Vec<&'c CustomerId> {
    let all = catalog.customers.keys();
    let found: Vec<_> = match &finding.scope {
        Scope::Nobody => Vec::new(),
        Scope::Customer(id) => all.filter(|known| *known == id).collect(),
        Scope::Global => all.take(CUSTOMERS_MAX.saturating_add(1)).collect(),
        Scope::Billable(agent) => {
            let may = MayBill::of(catalog, agent);
            all.filter(|id| may.bill(id)).take(CUSTOMERS_MAX.saturating_add(1)).collect()
        }
    };
    if found.len() > CUSTOMERS_MAX { Vec::new() } else { found }
}

struct Bills<'a> {
    catalog: &'a Catalog,
    snapshot: &'a Snapshot,
    known: HashMap<(&'a CustomerId, Timestamp), Option<Worth>>,
}

impl<'a> Bills<'a> {
    /// What a customer's usage comes to, of the period that holds this instant, or of the one before where that has none yet.
    fn worth(&mut self, customer: &'a CustomerId, at: Timestamp) -> Option<Worth> {
        if let Some(known) = self.known.get(&(customer, at)) {
            return *known;
        }
        if self.known.len() >= BILLS_MAX {
            return None;
        }
        let (worth, begins) = self.of_bill(customer, at).unzip();
        let is_empty = worth.is_some_and(|worth| worth.events == 0);
        let before = begins.filter(|_| is_empty).map(|begins| begins.plus_millis(-1));
        let earlier = before.and_then(|before| self.of_bill(customer, before));
        let worth = earlier.map(|(worth, _)| worth).or(worth);
        self.known.insert((customer, at), worth);
        worth
    }

    /// And when the period begins. Who has no bill has nothing to lose by it; that it cannot be made is the bill's to say.
    fn of_bill(&self, customer: &CustomerId, at: Timestamp) -> Option<(Worth, Timestamp)> {
        let terms = Terms::at(self.catalog, customer, at).ok()?;
        let begins = terms.span().start.start();
        let bill = terms.bill(self.catalog, self.snapshot, ROWS_MAX).ok()?;
        Some((Worth::of_bill(&bill).ok()?, begins))
    }
}
