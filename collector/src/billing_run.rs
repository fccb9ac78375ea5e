//! A billing run: reads one cut, rates every customer whose period ends, and issues what is due.
//!
//! ```text
//! one snapshot, the books --draft_for, customer by customer--> drafts --one transaction each--> documents
//! ```
//! **Owns** which periods are due, and the order of things. **Does not own** amounts (`rating`, `invoice/draft.rs`), or
//! that a document is issued once (`ledger/books.rs` judges that in its transaction).
//!
//! A run is for a date: the first day after the periods that it bills, in each customer's own time zone. It issues, of
//! each customer, at most one document. Run twice, or by two at once, it issues the same once. Killed at any point, what
//! is issued is whole, and the next run issues the rest. One customer's problem keeps nobody else's document.
//!
//! Limits: [`DRAFTS_WAITING_MAX`] drafts wait, [`IN_FLIGHT_MAX`] are being issued: the writer takes those into one commit.

pub mod command;
pub mod door;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use tidemark_common::hex;
use tidemark_common::id::CustomerId;
use tidemark_common::time::{Bucket, Timestamp};

use crate::adopt;
use crate::billing::shown::BillShown;
use crate::billing::{BillError, Terms};
use crate::catalog::seller::Seller;
use crate::catalog::{Catalog, Customer};
use crate::invoice::charge::{Charge, Parties, Which, charges, number_repeated};
use crate::invoice::draft::{Basis, DraftError, DuePeriod, draft};
use crate::invoice::tax::TaxService;
use crate::invoice::{CutShown, DocumentKind, SectionKind};
use crate::ledger::books::rows::{self, CustomerRow, PeriodRow, Scope, UsedPlan};
use crate::ledger::books::{Booked, Change, Issue, Paper, Refused, What, sha256, test_clock};
use crate::ledger::request::{Reply, Request};
use crate::ledger::store::{Books, StoreError};
use crate::ledger::{Ledger, LedgerError, Snapshot};
use crate::money::{Currency, Money};
use crate::period::{Day, Period, PeriodError};
use crate::terms::Section;

/// A customer's bill is made of at most this many rows of usage, each distinct value counted as one.
const ROWS_MAX: u64 = 4_000_000;
const OLD_DAYS: i64 = 100;
const DAY_MILLIS: i64 = 86_400_000;
const DRAFTS_WAITING_MAX: usize = 64;
const IN_FLIGHT_MAX: usize = 256;
/// A draft that something else overtook is drawn up anew, so often.
const RETRIES_MAX: u32 = 5;

/// What holds for every run.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How long after its end a period waits for late events.
    pub grace_millis: i64,
    /// Who says what is taxed; `None`: the catalogue.
    pub taxes: Option<Arc<dyn TaxService>>,
}

/// What is to be billed, and by whom.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The first day after the periods.
    pub date: Day,
    pub mode: Mode,
    pub actor: String,
    /// Why documents are issued though usage may be missing; without it they are not.
    pub although_incomplete: Option<String>,
    pub settings: Settings,
    pub age: Age,
    /// Only these; `None`: all.
    pub customers: Option<BTreeSet<CustomerId>>,
}

/// Whether periods that ended long ago are billed: a year that was mistyped bills what nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Only what ended in the last [`OLD_DAYS`] days.
    Recent,
    Any,
}

/// Whether documents are issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Issue,
    /// Nothing is written: what would be issued is shown.
    DryRun,
}

/// What became of one customer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    pub customer: String,
    /// `issued`, `draft`, `issued_before`, `nothing_due` or `problem`.
    pub outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<DocumentKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_due: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The problem is that the period, or the grace after it, is not over.
    #[serde(skip)]
    pub waits: bool,
    /// Of a dry run: the periods that end, as the live bill shows them, to the byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bill: Option<BillShown>,
    /// Of a dry run: the document without number and dates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<crate::invoice::Document<crate::billing::shown::LineShown>>,
}

impl Outcome {
    /// By an earlier run for the date; without a number nothing was due.
    fn was_issued(&mut self, number: String) {
        if number.is_empty() {
            self.outcome = "nothing_due";
        } else {
            (self.outcome, self.number) = ("issued_before", Some(number));
        }
    }
}

/// What the whole run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub issued: u64,
    pub drafts: u64,
    pub issued_before: u64,
    /// Customers whose periods came to 0, and have no document.
    pub nothing_due: u64,
    pub problems: u64,
    /// The totals of invoices less those of credit notes, by currency, issued or drafted now.
    pub totals: BTreeMap<String, String>,
    #[serde(skip)]
    sums: BTreeMap<Currency, Money>,
}

/// Why a customer has no document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("the catalogue edits what invoices used, so nobody is billed by it: {0}")]
    Catalog(String),
    #[error("the catalogue has no [[seller]]: add one, whose name and numbers stand on invoices")]
    NoSeller,
    #[error(
        "the period ends on {date} in {zone}, and that, or the grace after it, is not over: run it again then"
    )]
    NotOver { date: Day, zone: String },
    #[error(
        "the period ended on {date}, more than {OLD_DAYS} days ago: is the year right? If it is to be billed all the same, say so (`--old`, `\"old\": true`)"
    )]
    Old { date: Day },
    #[error(
        "usage may be missing: complete only through {through}, and the period ends at {end}; GET /v1/streams says which streams hold that back; wait, or give a reason for billing all the same"
    )]
    Incomplete { through: String, end: String },
    #[error("{0}")]
    Bill(#[from] BillError),
    #[error("{0}")]
    Draft(#[from] DraftError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Period(#[from] PeriodError),
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("something else was booked for the customer again and again; run it once more")]
    Overtaken,
}

/// What is due of a customer.
#[derive(Debug)]
pub enum Drafted {
    Nothing,
    IssuedBefore { number: String },
    Draft { issue: Box<Issue>, bill: Option<BillShown> },
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
pub fn why_blocked(catalog: &Catalog, books: &dyn Books) -> Result<Option<String>, StoreError> {
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
        let (mut periods, mut bill) = (Vec::new(), None);
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
            cut: Some(self.cut(parties.seller)),
            sandbox: test_clock(books)?.is_some(),
            tax_service: self.request.settings.taxes.as_deref(),
            plans: plans.into_values().collect(),
        };
        let Some(issue) = draft(&basis, &periods)? else { return Ok(Drafted::Nothing) };
        if self.request.mode == Mode::Issue {
            self.check_over(parties.customer, edge, bill.is_some())?;
        }
        Ok(Drafted::Draft { issue: Box::new(issue), bill })
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

    /// Nothing is issued before its time, or while usage of its time may be missing.
    fn check_over(
        &self,
        customer: &Customer,
        edge: Bucket,
        has_usage: bool,
    ) -> Result<(), Problem> {
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
        let through = self.snapshot.complete_through().through;
        let is_complete = through.is_some_and(|through| through >= edge.start());
        if has_usage && !is_complete && self.request.although_incomplete.is_none() {
            let through =
                through.map_or_else(|| "nothing".to_owned(), |through| zone.rfc3339(through));
            return Err(Problem::Incomplete { through, end: zone.rfc3339(edge.start()) });
        }
        Ok(())
    }

    fn cut(&self, seller: &Seller) -> CutShown {
        let shown = |at: Timestamp| seller.zone.rfc3339(at);
        let through = self.snapshot.complete_through().through;
        CutShown {
            as_of: shown(self.snapshot.ledger_time()),
            complete_through: through.map_or_else(String::new, shown),
        }
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

fn read<T: serde::de::DeserializeOwned>(
    books: &dyn Books,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    let row = books.get(key)?.map(|bytes| rows::read("books", &bytes)).transpose();
    row.map_err(|error| StoreError::books(error.to_string()))
}

/// Runs it all, and tells each outcome but that nothing is due, in the order of the customers' ids. Whoever stops
/// listening to the outcomes ends it.
///
/// # Errors
/// If the ledger cannot be used; what was issued by then is issued.
pub async fn run(
    ledger: &Ledger,
    catalog: Arc<Catalog>,
    request: RunRequest,
    outcomes: &mpsc::Sender<Outcome>,
) -> Result<Summary, LedgerError> {
    let (drafts, mut drafted) = mpsc::channel(DRAFTS_WAITING_MAX);
    let request = Arc::new(request);
    let drafting = tokio::task::spawn_blocking({
        let (ledger, catalog, request) =
            (ledger.clone(), Arc::clone(&catalog), Arc::clone(&request));
        move || draft_all(&ledger, &catalog, &request, &drafts)
    });
    let mut issuing = Issuing {
        ledger: ledger.clone(),
        catalog,
        request,
        outcomes,
        waiting: VecDeque::new(),
        summary: Summary::default(),
    };
    while let Some((id, drafted)) = drafted.recv().await {
        if issuing.take(id, drafted).await?.is_break() {
            break;
        }
    }
    drop(drafted);
    while !issuing.waiting.is_empty() {
        issuing.settle().await?;
    }
    match drafting.await {
        Ok(drafted) => drafted?,
        Err(_) => return Err(LedgerError::Stopped),
    }
    let mut summary = issuing.summary;
    let shown = |(currency, sum): (&Currency, &Money)| (currency.to_string(), sum.amount());
    summary.totals = summary.sums.iter().map(shown).collect();
    Ok(summary)
}

/// Draws up every customer's draft from one snapshot; blocks.
fn draft_all(
    ledger: &Ledger,
    catalog: &Catalog,
    request: &RunRequest,
    drafts: &mpsc::Sender<(CustomerId, Result<Drafted, Problem>)>,
) -> Result<(), LedgerError> {
    let (books, snapshot) = (ledger.books()?, ledger.snapshot()?);
    let blocked = why_blocked(catalog, &*books)?;
    let reading = Reading { catalog, snapshot: &snapshot, request, blocked };
    let asked =
        |id: &&CustomerId| request.customers.as_ref().is_none_or(|asked| asked.contains(*id));
    let unknown = request.customers.iter().flatten();
    let unknown = unknown.filter(|id| !catalog.customers.contains_key(*id));
    for id in catalog.customers.keys().filter(asked).chain(unknown) {
        let drafted = reading.draft_for(&*books, id);
        if matches!(drafted, Ok(Drafted::Nothing)) {
            continue;
        }
        if drafts.blocking_send((id.clone(), drafted)).is_err() {
            break;
        }
    }
    Ok(())
}

/// A draft on its way into the books.
struct InFlight {
    id: CustomerId,
    shown: Outcome,
    total: Option<Money>,
    reply: Option<oneshot::Receiver<Reply>>,
}

struct Issuing<'o> {
    ledger: Ledger,
    catalog: Arc<Catalog>,
    request: Arc<RunRequest>,
    outcomes: &'o mpsc::Sender<Outcome>,
    waiting: VecDeque<InFlight>,
    summary: Summary,
}

impl Issuing<'_> {
    /// Takes the next draft; tells what has become of those before, as far as that is known.
    async fn take(
        &mut self,
        id: CustomerId,
        drafted: Result<Drafted, Problem>,
    ) -> Result<ControlFlow<()>, LedgerError> {
        let in_flight = self.begin(id, drafted).await?;
        self.waiting.push_back(in_flight);
        while self.waiting.len() >= IN_FLIGHT_MAX {
            self.settle().await?;
        }
        while self.waiting.front().is_some_and(|first| first.reply.is_none()) {
            self.settle().await?;
        }
        Ok(if self.outcomes.is_closed() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    async fn begin(
        &self,
        id: CustomerId,
        drafted: Result<Drafted, Problem>,
    ) -> Result<InFlight, LedgerError> {
        let mut shown = Outcome { customer: id.as_str().to_owned(), ..Outcome::default() };
        let (mut total, mut reply) = (None, None);
        match drafted {
            Ok(Drafted::Nothing) => shown.outcome = "nothing",
            Ok(Drafted::IssuedBefore { number }) => shown.was_issued(number),
            Err(problem) => {
                shown.waits = matches!(problem, Problem::NotOver { .. });
                (shown.outcome, shown.problem) = ("problem", Some(problem.to_string()));
            }
            Ok(Drafted::Draft { issue, bill }) => {
                shown.kind = Some(issue.document.kind);
                shown.total = Some(issue.document.total.clone());
                shown.amount_due = Some(issue.document.amount_due.clone());
                shown.currency = Some(issue.document.currency.clone());
                total = Some(signed(&issue));
                shown.outcome = match issue.paper {
                    Paper::Document => "draft",
                    Paper::NothingDue => "nothing_due",
                };
                match self.request.mode {
                    Mode::DryRun => (shown.bill, shown.document) = (bill, Some(issue.document)),
                    Mode::Issue => reply = Some(self.submit(*issue).await?),
                }
            }
        }
        Ok(InFlight { id, shown, total, reply })
    }

    async fn submit(&self, issue: Issue) -> Result<oneshot::Receiver<Reply>, LedgerError> {
        let change = Change {
            actor: self.request.actor.clone(),
            reason: self.request.although_incomplete.clone(),
            date: None,
            request: None,
            what: What::Issue(Box::new(issue)),
        };
        self.ledger.submit(Request::Book(Box::new(change))).await
    }

    /// Waits for the first one's end, and tells it.
    async fn settle(&mut self) -> Result<(), LedgerError> {
        let Some(mut first) = self.waiting.pop_front() else { return Ok(()) };
        for tries in 0_u32.. {
            let Some(reply) = first.reply.take() else { break };
            match reply.await {
                Ok(Reply::Booked(Ok(Booked { document, .. }))) => {
                    first.shown.outcome = if document.is_some() { "issued" } else { "nothing_due" };
                    first.shown.number = document;
                }
                Ok(Reply::Booked(Err(Refused::AlreadyIssued { number }))) => {
                    first.shown.was_issued(number);
                    first.total = None;
                }
                Ok(Reply::Booked(Err(Refused::Stale))) if tries < RETRIES_MAX => {
                    let drafted = self.draft_again(first.id.clone()).await?;
                    first = self.begin(first.id, drafted).await?;
                }
                Ok(Reply::Booked(Err(refused))) => {
                    let problem = match refused {
                        Refused::Stale => Problem::Overtaken,
                        refused => refused.into(),
                    };
                    (first.shown.outcome, first.total) = ("problem", None);
                    first.shown.problem = Some(problem.to_string());
                }
                Ok(_) | Err(_) => return Err(LedgerError::Stopped),
            }
        }
        self.tell(first).await;
        Ok(())
    }

    async fn draft_again(&self, id: CustomerId) -> Result<Result<Drafted, Problem>, LedgerError> {
        let (ledger, catalog) = (self.ledger.clone(), Arc::clone(&self.catalog));
        let request = Arc::clone(&self.request);
        let drafting = tokio::task::spawn_blocking(move || {
            let (books, snapshot) = (ledger.books()?, ledger.snapshot()?);
            let blocked = why_blocked(&catalog, &*books)?;
            let reading =
                Reading { catalog: &catalog, snapshot: &snapshot, request: &request, blocked };
            Ok(reading.draft_for(&*books, &id))
        });
        drafting.await.unwrap_or(Err(LedgerError::Stopped))
    }

    async fn tell(&mut self, settled: InFlight) {
        let InFlight { shown, total, .. } = settled;
        let summary = &mut self.summary;
        let count = match shown.outcome {
            "issued" => &mut summary.issued,
            "draft" => &mut summary.drafts,
            "issued_before" => &mut summary.issued_before,
            "nothing_due" => &mut summary.nothing_due,
            "problem" => &mut summary.problems,
            _ => return,
        };
        *count = count.saturating_add(1);
        if let Some(total) = total {
            let sum = summary.sums.entry(total.currency).or_insert(Money::zero(total.currency));
            // A sum beyond 128 bits is for nobody's eyes.
            *sum = sum.checked_add(total).unwrap_or(*sum);
        }
        // Whoever has gone needs no outcomes.
        let _heard = self.outcomes.send(shown).await.is_ok();
    }
}

/// A credit note's total counts below zero.
fn signed(issue: &Issue) -> Money {
    match issue.document.kind {
        DocumentKind::Invoice => issue.total,
        DocumentKind::CreditNote => issue.total.negated(),
    }
}
