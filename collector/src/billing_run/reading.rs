//! What is due of one customer, as of one cut.
//!
//! **Owns** which periods a document is about: those that end, fees in advance of those that begin, and what earlier ones
//! come to now; and why a customer has to wait. **Does not own** amounts (`rating`, `invoice/draft.rs`).
//!
//! Reads block.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tidemark_common::hex;
use tidemark_common::id::CustomerId;
use tidemark_common::time::{Bucket, Timestamp};

use super::{Age, KeptBack, Mode, Problem, RunRequest};
use crate::adopt;
use crate::billing::shown::BillShown;
use crate::billing::{BillError, Terms};
use crate::catalog::seller::Seller;
use crate::catalog::{Catalog, Customer};
use crate::certificate::proof::Provenance;
use crate::invoice::charge::{Charge, Parties, Which, charges, number_repeated};
use crate::invoice::draft::{Basis, DraftError, DuePeriod, draft};
use crate::invoice::{CutShown, SectionKind};
use crate::ledger::Snapshot;
use crate::ledger::books::rows::{self, CustomerRow, PeriodRow, Scope, UsedPlan, get as read};
use crate::ledger::books::{Issue, sha256, test_clock};
use crate::ledger::store::{Books, StoreError};
use crate::period::Period;
use crate::reconcile::{Due, Worth, judged, suspense_of_bill};
use crate::terms::Section;

/// A customer's bill is made of at most this many rows of usage, each distinct value counted as one.
const ROWS_MAX: u64 = 4_000_000;
pub(super) const OLD_DAYS: i64 = 100;
const DAY_MILLIS: i64 = 86_400_000;

/// What is due of a customer.
#[derive(Debug)]
pub enum Drafted {
    Nothing,
    IssuedBefore {
        number: String,
    },
    Draft {
        issue: Box<Issue>,
        bill: Option<Box<BillShown>>,
        /// The usage on it; `None` without any, or of a dry run before its time.
        due: Option<Box<Due>>,
        /// Of a dry run: what a run that issues waits for.
        kept_back: Option<KeptBack>,
        /// What its proof is made by.
        provenance: Box<Provenance>,
    },
}

/// One cut, and what is asked of it.
#[derive(Debug)]
pub struct Reading<'a> {
    pub catalog: &'a Catalog,
    pub snapshot: &'a Snapshot,
    pub request: &'a RunRequest,
    /// Why nobody can be billed by this catalogue ([`why_blocked`]).
    pub blocked: Option<String>,
}

/// Why nobody can be billed by a catalogue: it edits what invoices used, as a file may that was changed while the
/// collector was stopped.
///
/// # Errors
/// If the books cannot be read.
pub(super) fn why_blocked(
    catalog: &Catalog,
    books: &dyn Books,
) -> Result<Option<String>, StoreError> {
    let edited = adopt::edited(catalog, books)?;
    Ok((!edited.is_empty()).then(|| edited.join("; ")))
}

impl<'a> Reading<'a> {
    /// What is due of one customer: the periods that end, fees in advance of those that begin, and what earlier ones
    /// come to now. Blocks.
    ///
    /// # Errors
    /// Whatever keeps the customer from having a document.
    pub fn draft_for(&self, books: &dyn Books, id: &'a CustomerId) -> Result<Drafted, Problem> {
        let Self { catalog, request, .. } = *self;
        let Some(customer) = catalog.customers.get(id) else {
            return Err(BillError::UnknownCustomer { id: id.as_str().to_owned() }.into());
        };
        if let Some(why) = &self.blocked {
            return Err(Problem::Catalog(why.clone()));
        }
        let date = request.date;
        let run = rows::customer_key(rows::RUNS, id, date.to_string().as_bytes());
        if let Some(number) = read::<String>(books, &run)? {
            return Ok(Drafted::IssuedBefore { number });
        }
        let held = held_periods(books, id)?;
        if held.is_empty() && !catalog.subscriptions.contains_key(id) {
            return Ok(Drafted::Nothing);
        }
        let edge = customer.zone.start_of(date)?;
        let before = edge.start().plus_millis(-1);
        let who = (id, customer);
        let ending = Terms::chosen(catalog, who, before, |section| section.period.end == edge)?;
        // One that was invoiced as a whole is a correction.
        let is_whole = |section: &Section<'_>| {
            let plan = &section.subscription.plan;
            let is_it = |row: &PeriodRow| row.plan == *plan && row.period() == section.period;
            held.iter().any(|row| is_it(row) && row.scope == Scope::Whole)
        };
        let beginning = Terms::chosen(catalog, who, edge.start(), |section| {
            section.period.start == edge && !is_whole(section)
        })?;
        if ending.is_none() && beginning.is_none() && !has_departed(catalog, id, edge) {
            return Ok(Drafted::Nothing);
        }
        let seller = catalog.seller_of(customer).ok_or(Problem::NoSeller)?;
        let earlier = self.earlier(who, &held, edge);
        let terms = Chosen { ending, beginning, earlier };
        self.draft_of(books, id, Parties { catalog, seller, customer }, &held, &terms, edge)
    }

    fn draft_of<'t>(
        &'t self,
        books: &dyn Books,
        id: &'t CustomerId,
        parties: Parties<'t>,
        held: &'t [PeriodRow],
        terms: &'t Chosen<'t>,
        edge: Bucket,
    ) -> Result<Drafted, Problem> {
        let (catalog, now) = (self.catalog, self.snapshot.ledger_time());
        let row_of = |plan: &str, period: Period| {
            held.iter().find(|row| row.plan == plan && row.period() == period)
        };
        let (mut periods, mut bill, mut due) = (Vec::new(), None, None);
        let mut plans = BTreeMap::new();
        let mut add = |kind, rated: &[crate::billing::RatedSection<'t>], which| {
            note_plans(rated, &mut plans);
            for (plan, period, charges) in by_period(parties, rated, which)? {
                periods.push(DuePeriod { kind, plan, period, charges, held: row_of(plan, period) });
            }
            Ok::<_, Problem>(())
        };
        if let Some(ending) = &terms.ending {
            let rated = ending.bill(catalog, self.snapshot, ROWS_MAX)?;
            add(SectionKind::Period, &rated.sections, Which::All)?;
            let (span, meters) = (ending.span().into(), ending.meters());
            let suspense = suspense_of_bill(id, &rated.suspense, span);
            let worth = Worth::of_bill(&rated)?;
            due = Some(Box::new(Due { span, meters, suspense, worth }));
            bill = Some(BillShown::of(&rated, id));
        }
        if let Some(beginning) = &terms.beginning {
            let rated = beginning.bill_without_usage(catalog, now)?;
            add(SectionKind::Advance, &rated.sections, Which::InAdvance)?;
        }
        for (row, earlier) in &terms.earlier {
            let (rated, which) = match (earlier, row.scope) {
                (None, _) => (Vec::new(), Which::All),
                (Some(terms), Scope::Whole) => {
                    (terms.bill(catalog, self.snapshot, ROWS_MAX)?.sections, Which::All)
                }
                (Some(terms), Scope::Advance) => {
                    (terms.bill_without_usage(catalog, now)?.sections, Which::InAdvance)
                }
            };
            note_plans(&rated, &mut plans);
            let mut found = by_period(parties, &rated, which)?;
            let charges = if found.is_empty() { Vec::new() } else { found.swap_remove(0).2 };
            let (kind, held) = (SectionKind::Correction, Some(*row));
            periods.push(DuePeriod { kind, plan: &row.plan, period: row.period(), charges, held });
        }
        periods.retain(|due| {
            due.kind != SectionKind::Advance || !due.charges.is_empty() || due.held.is_some()
        });
        let Some(currency) = parties.customer.currency else { return Ok(Drafted::Nothing) };
        let account = read::<CustomerRow>(books, &rows::customer_prefix(rows::CUSTOMERS, id))?;
        let account = account.unwrap_or_default();
        let basis = Basis {
            parties,
            id,
            currency,
            date: self.request.date,
            version: account.version,
            credit: account.credit_in(currency),
            cut: Some(self.cut(parties.seller)?),
            sandbox: test_clock(books)?.is_some(),
            tax_service: self.request.settings.taxes.as_deref(),
            plans: plans.into_values().collect(),
        };
        let Some(drawn) = draft(&basis, &periods)? else { return Ok(Drafted::Nothing) };
        let provenance = Box::new(Provenance::of(catalog, id, &drawn));
        let (issue, bill) = (Box::new(drawn.issue), bill.map(Box::new));
        match (self.check_over(parties.customer, edge), self.request.mode) {
            (Ok(()), _) => {}
            (Err(early), Mode::Issue) => return Err(early),
            (Err(_), Mode::DryRun) => due = None,
        }
        Ok(Drafted::Draft { issue, bill, due, kept_back: None, provenance })
    }

    /// The periods that were invoiced before, but those that end or begin now; with the terms that hold for them, or
    /// none if the customer is on their plan no longer. Those of a plan that the catalogue does not connect with the
    /// customer at all are left as they are.
    fn earlier<'t>(
        &self,
        who: (&'a CustomerId, &'a Customer),
        held: &'t [PeriodRow],
        edge: Bucket,
    ) -> Vec<(&'t PeriodRow, Option<Terms<'a>>)> {
        let catalog = self.catalog;
        let mut earlier = Vec::new();
        for row in held {
            let is_known = catalog
                .subscriptions
                .get(who.0)
                .is_some_and(|on| on.iter().any(|on| on.plan == row.plan));
            let period = row.period();
            // What ends now is due; what begins now too, if only its fees in advance were.
            let is_due =
                period.end == edge || (period.start == edge && row.scope == Scope::Advance);
            if is_known && !is_due {
                earlier.push((row, Terms::of_period(catalog, who, &row.plan, period)));
            }
        }
        earlier
    }

    /// Nothing is issued before its time.
    fn check_over(&self, customer: &Customer, edge: Bucket) -> Result<(), Problem> {
        let zone = &customer.zone;
        let due = edge.start().plus_millis(self.request.settings.grace_millis);
        if self.snapshot.ledger_time() < due {
            let (date, zone) = (self.request.date, zone.name().to_owned());
            return Err(Problem::NotOver { date, zone });
        }
        let passed = self.snapshot.ledger_time().millis_since(edge.start());
        if self.request.age == Age::Recent && passed > OLD_DAYS.saturating_mul(DAY_MILLIS) {
            return Err(Problem::Old { date: self.request.date });
        }
        Ok(())
    }

    fn cut(&self, seller: &Seller) -> Result<CutShown, StoreError> {
        let shown = |at: Timestamp| seller.zone.rfc3339(at);
        let (catalog, snapshot) = (self.catalog, self.snapshot);
        let complete = judged(catalog, snapshot, |judging| judging.complete_through(snapshot))?;
        let through = complete.through;
        Ok(CutShown {
            as_of: shown(self.snapshot.ledger_time()),
            complete_through: through.map_or_else(String::new, shown),
            certificate: None,
        })
    }
}

/// Which sections a document is about.
struct Chosen<'a> {
    ending: Option<Terms<'a>>,
    beginning: Option<Terms<'a>>,
    earlier: Vec<(&'a PeriodRow, Option<Terms<'a>>)>,
}

/// A plan, one of its periods, and what is charged for it.
type PeriodCharges<'a> = (&'a str, Period, Vec<Charge<'a>>);

/// Rated sections' charges; several subscriptions to one plan come together.
fn by_period<'a>(
    parties: Parties<'a>,
    rated: &[crate::billing::RatedSection<'a>],
    which: Which,
) -> Result<Vec<PeriodCharges<'a>>, Problem> {
    let mut found: Vec<PeriodCharges<'a>> = Vec::new();
    for section in rated {
        let now = charges(parties, section, which).map_err(DraftError::from)?;
        let key = (section.plan, section.period);
        match found.iter_mut().find(|(plan, period, _)| (*plan, *period) == key) {
            Some((_, _, held)) => held.extend(now),
            None => found.push((key.0, key.1, now)),
        }
    }
    for (_, _, charges) in &mut found {
        number_repeated(charges);
    }
    Ok(found)
}

/// Notes which versions of plans amounts are made by.
fn note_plans(
    rated: &[crate::billing::RatedSection<'_>],
    plans: &mut BTreeMap<(String, Option<u32>), UsedPlan>,
) {
    for plan in rated.iter().flat_map(|section| &section.plans) {
        let effective = plan.effective.map(|effective| effective.0);
        plans.entry((plan.name.clone(), effective)).or_insert_with(|| UsedPlan {
            plan: plan.name.clone(),
            effective,
            sha256: hex::encode(&sha256(plan.to_toml().as_bytes())),
            document: String::new(),
        });
    }
}

/// No subscription of the customer goes on from `edge`.
fn has_departed(catalog: &Catalog, id: &CustomerId, edge: Bucket) -> bool {
    let goes_on = |on: &crate::catalog::Subscription| on.end.is_none_or(|end| end > edge);
    !catalog.subscriptions.get(id).is_some_and(|on| on.iter().any(goes_on))
}

/// What was invoiced to the customer so far, by plan and period.
fn held_periods(books: &dyn Books, id: &CustomerId) -> Result<Vec<PeriodRow>, StoreError> {
    let (mut held, mut broken) = (Vec::new(), None);
    let prefix = rows::customer_prefix(rows::PERIODS, id);
    books.visit(&prefix, &[], &mut |_, value| match rows::read::<PeriodRow>("period", value) {
        Ok(row) => {
            held.push(row);
            ControlFlow::Continue(())
        }
        Err(error) => {
            broken = Some(StoreError::books(error.to_string()));
            ControlFlow::Break(())
        }
    })?;
    match broken {
        Some(error) => Err(error),
        None => {
            held.sort_by_key(|row| (row.start, row.end));
            Ok(held)
        }
    }
}
