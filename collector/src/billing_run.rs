//! A billing run: reads one cut, rates every customer whose period ends, and issues what is due.
//!
//! ```text
//! one snapshot, the books --draft_for, customer by customer--> drafts --gate--> --one transaction each--> documents
//! ```
//! **Owns** which periods are due, and the order of things. **Does not own** amounts (`rating`, `invoice/draft.rs`), what
//! keeps an invoice back (`reconcile`), or that a document is issued once (`ledger/books.rs` judges that in its
//! transaction).
//!
//! A run is for a date: the first day after the periods that it bills, in each customer's own time zone. It issues, of
//! each customer, at most one document. Run twice, or by two at once, it issues the same once. Killed at any point, what
//! is issued is whole, and the next run issues the rest. One customer's problem keeps nobody else's document.
//!
//! Limits: [`DRAFTS_WAITING_MAX`] drafts wait, [`IN_FLIGHT_MAX`] are being issued: the writer takes those into one commit.

mod certifying;
pub mod command;
pub mod door;
mod gated;
mod reading;
pub mod runs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use tidemark_common::id::CustomerId;

use crate::billing::BillError;
use crate::billing::shown::BillShown;
use crate::catalog::Catalog;
use crate::invoice::DocumentKind;
use crate::invoice::draft::DraftError;
use crate::invoice::tax::TaxService;
use crate::ledger::archived::ArchiveState;
use crate::ledger::books::rows::{self, Head};
use crate::ledger::books::{Booked, Change, Issue, Paper, Refused, What};
use crate::ledger::request::{Reply, Request};
use crate::ledger::store::StoreError;
use crate::ledger::{Ledger, LedgerError};
use crate::money::{Currency, Money};
use crate::period::{Day, PeriodError};
use crate::reconcile::{self, Exposed, Finding};

pub(crate) use self::gated::Gated;
use self::reading::OLD_DAYS;
pub use self::reading::{Drafted, Reading};
use self::runs::Runs;

const DRAFTS_WAITING_MAX: usize = 64;
const IN_FLIGHT_MAX: usize = 256;
/// A draft that something else overtook is drawn up anew, so often.
const RETRIES_MAX: u32 = 5;
/// So long a run waits for the archive.
const ARCHIVE_WAIT_MAX: Duration = Duration::from_secs(30);
/// An outcome names so many findings with all that is known of them, and so many in its one sentence.
const FINDINGS_NAMED_MAX: usize = 20;
const FINDINGS_TOLD_MAX: usize = 5;

/// What holds for every run.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How long after its end a period waits for late events.
    pub grace_millis: i64,
    /// Who says what is taxed; `None`: the catalogue.
    pub taxes: Option<Arc<dyn TaxService>>,
    /// What the gate looks at.
    pub reconcile: reconcile::Settings,
    /// Where it is kept what became of them.
    pub runs: Arc<Runs>,
}

/// What is to be billed, and by whom.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The first day after the periods.
    pub date: Day,
    pub mode: Mode,
    pub actor: String,
    /// Why documents are issued though usage may be missing: a waiver, for this run, of all that is not complete.
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

/// What a customer's run ended as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedAs {
    Issued,
    Draft,
    IssuedBefore,
    /// It is issued, and the archive does not hold it yet: it is not to be sent before it does.
    AwaitsArchive,
    #[default]
    NothingDue,
    Problem,
}

/// What became of one customer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    pub customer: String,
    pub outcome: EndedAs,
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
    /// What keeps the document back, the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingNamed>,
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
            self.outcome = EndedAs::NothingDue;
        } else {
            (self.outcome, self.number) = (EndedAs::IssuedBefore, Some(number));
        }
    }
}

/// What the whole run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub issued: u64,
    pub drafts: u64,
    pub issued_before: u64,
    /// Documents that are issued, and that the archive does not hold yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub awaiting_archive: u64,
    /// Customers whose periods came to 0, and have no document.
    pub nothing_due: u64,
    pub problems: u64,
    /// Of the problems, those that the period, or the grace after it, is not over.
    #[serde(skip)]
    pub waiting: u64,
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
    #[error("{0}")]
    KeptBack(Box<KeptBack>),
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("the cut cannot be certified: {0}")]
    Certify(String),
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

/// Findings that an invoice waits for; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBack {
    pub findings: Vec<Finding>,
}

/// A finding, as an outcome names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FindingNamed {
    pub id: String,
    pub kind: &'static str,
    pub told: String,
    pub remedy: String,
    pub events: u64,
    /// What they may come to, by the average of this customer's bill, as if all were its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed: Option<Exposed>,
}

impl KeptBack {
    fn named(&self) -> Vec<FindingNamed> {
        let named = self.findings.iter().take(FINDINGS_NAMED_MAX).map(|finding| FindingNamed {
            id: finding.id.clone(),
            kind: finding.kind.name(),
            told: finding.told.clone(),
            remedy: finding.remedy.clone(),
            events: finding.events,
            exposed: finding.money.first().copied().map(Exposed::from),
        });
        named.collect()
    }
}

impl fmt::Display for KeptBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.findings[..] {
            [only] => {
                write!(f, "a finding keeps it back: {}: {}; {}", only.id, only.told, only.remedy)
            }
            all => {
                let ids: Vec<_> =
                    all.iter().take(FINDINGS_TOLD_MAX).map(|finding| finding.id.as_str()).collect();
                let more = if all.len() > FINDINGS_TOLD_MAX { ", .." } else { "" };
                let (count, ids) = (all.len(), ids.join(", "));
                write!(
                    f,
                    "{count} findings keep it back: {ids}{more}; `tidemark-collector reconcile` says what to do about each"
                )
            }
        }
    }
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
    if request.mode == Mode::DryRun {
        return run_all(ledger, catalog, request, outcomes).await;
    }
    let runs = Arc::clone(&request.settings.runs);
    let _under_way = runs.begun();
    let ended = run_all(ledger, catalog, request, outcomes).await;
    runs.ended(&ended, ledger.now());
    ended
}

async fn run_all(
    ledger: &Ledger,
    catalog: Arc<Catalog>,
    request: RunRequest,
    outcomes: &mpsc::Sender<Outcome>,
) -> Result<Summary, LedgerError> {
    if request.mode == Mode::Issue {
        before_issuing(ledger).await?;
    }
    let (drafts, mut drafted) = mpsc::channel(DRAFTS_WAITING_MAX);
    let request = Arc::new(request);
    let opening = tokio::task::spawn_blocking({
        let (ledger, request) = (ledger.clone(), Arc::clone(&request));
        move || Gated::open(&ledger, catalog, request).map(Arc::new)
    });
    let gated = opening.await.unwrap_or(Err(LedgerError::Stopped))?;
    let drafting = tokio::task::spawn_blocking({
        let (ledger, gated, request) = (ledger.clone(), Arc::clone(&gated), Arc::clone(&request));
        move || draft_all(&ledger, &gated, &request, &drafts)
    });
    let mut issuing = Issuing {
        ledger: ledger.clone(),
        gated,
        request,
        outcomes,
        waiting: VecDeque::new(),
        summary: Summary::default(),
        archive_fails: None,
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

/// Waits until the archive holds all that is booked: what an earlier run has issued too is told as issued only then.
async fn before_issuing(ledger: &Ledger) -> Result<(), LedgerError> {
    let state = ledger.archive_state();
    if state == ArchiveState::Off {
        return Ok(());
    }
    if let Some(why) = state.refuses() {
        return Err(LedgerError::Archive { why: why.to_owned() });
    }
    let reading = ledger.clone();
    let head = tokio::task::spawn_blocking(move || {
        let books = reading.books()?;
        Ok::<_, LedgerError>(rows::get::<Head>(&*books, rows::HEAD)?.unwrap_or_default())
    });
    let Head { entries, .. } = head.await.unwrap_or(Err(LedgerError::Stopped))?;
    archived(ledger, entries).await.map_err(|why| LedgerError::Archive {
        why: format!("it does not hold entry {entries} yet: {why}"),
    })
}

/// Waits for the archive, and no longer than a run may; else says why.
pub(crate) async fn archived(ledger: &Ledger, entries: u64) -> Result<(), String> {
    let archived = tokio::time::timeout(ARCHIVE_WAIT_MAX, ledger.archived(entries));
    archived.await.unwrap_or_else(|_| Err("it takes too long to be written".to_owned()))
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Draws up every customer's draft from one snapshot; blocks.
fn draft_all(
    ledger: &Ledger,
    gated: &Gated,
    request: &RunRequest,
    drafts: &mpsc::Sender<(CustomerId, Result<Drafted, Problem>)>,
) -> Result<(), LedgerError> {
    let (books, catalog) = (ledger.books()?, gated.catalog());
    let asked =
        |id: &&CustomerId| request.customers.as_ref().is_none_or(|asked| asked.contains(*id));
    let unknown = request.customers.iter().flatten();
    let unknown = unknown.filter(|id| !catalog.customers.contains_key(*id));
    for id in catalog.customers.keys().filter(asked).chain(unknown) {
        let drafted = gated.draft_for(&*books, id);
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
    gated: Arc<Gated>,
    request: Arc<RunRequest>,
    outcomes: &'o mpsc::Sender<Outcome>,
    waiting: VecDeque<InFlight>,
    summary: Summary,
    /// Why the archive does not hold what this run has issued.
    archive_fails: Option<String>,
}

impl Issuing<'_> {
    /// Takes the next draft; tells what has become of those before, as far as that is known.
    async fn take(
        &mut self,
        id: CustomerId,
        drafted: Result<Drafted, Problem>,
    ) -> Result<ControlFlow<()>, LedgerError> {
        self.waiting.extend(self.begin(id, drafted).await?);
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

    /// `None` if no period of the customer's ends.
    async fn begin(
        &self,
        id: CustomerId,
        drafted: Result<Drafted, Problem>,
    ) -> Result<Option<InFlight>, LedgerError> {
        let mut shown = Outcome { customer: id.as_str().to_owned(), ..Outcome::default() };
        let (mut total, mut reply) = (None, None);
        match drafted {
            Ok(Drafted::Nothing) => return Ok(None),
            Ok(Drafted::IssuedBefore { number }) => shown.was_issued(number),
            Err(problem) => {
                shown.waits = matches!(problem, Problem::NotOver { .. });
                (shown.outcome, shown.problem) = (EndedAs::Problem, Some(problem.to_string()));
                if let Problem::KeptBack(kept_back) = problem {
                    shown.findings = kept_back.named();
                }
            }
            Ok(Drafted::Draft { issue, bill, kept_back, .. }) => {
                shown.kind = Some(issue.document.kind);
                shown.total = Some(issue.document.total.clone());
                shown.amount_due = Some(issue.document.amount_due.clone());
                shown.currency = Some(issue.document.currency.clone());
                total = Some(signed(&issue));
                shown.outcome = match issue.paper {
                    Paper::Document => EndedAs::Draft,
                    Paper::NothingDue => EndedAs::NothingDue,
                };
                if let Some(kept_back) = kept_back {
                    shown.outcome = EndedAs::Problem;
                    (shown.problem, shown.findings) =
                        (Some(kept_back.to_string()), kept_back.named());
                    total = None;
                }
                match self.request.mode {
                    Mode::DryRun => {
                        (shown.bill, shown.document) =
                            (bill.map(|bill| *bill), Some(issue.document));
                    }
                    Mode::Issue => reply = Some(self.submit(*issue).await?),
                }
            }
        }
        Ok(Some(InFlight { id, shown, total, reply }))
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
                Ok(Reply::Booked(Ok(Booked { document, entry, .. }))) => {
                    first.shown.outcome =
                        if document.is_some() { EndedAs::Issued } else { EndedAs::NothingDue };
                    first.shown.number = document;
                    self.await_archive(&mut first.shown, entry).await;
                }
                Ok(Reply::Booked(Err(Refused::AlreadyIssued { number }))) => {
                    first.shown.was_issued(number);
                    first.total = None;
                }
                Ok(Reply::Booked(Err(Refused::Stale))) if tries < RETRIES_MAX => {
                    let drafted = self.draft_again(first.id.clone()).await?;
                    let Some(again) = self.begin(first.id, drafted).await? else { return Ok(()) };
                    first = again;
                }
                Ok(Reply::Booked(Err(refused))) => {
                    let problem = match refused {
                        Refused::Stale => Problem::Overtaken,
                        refused => refused.into(),
                    };
                    (first.shown.outcome, first.total) = (EndedAs::Problem, None);
                    first.shown.problem = Some(problem.to_string());
                }
                Ok(_) | Err(_) => return Err(LedgerError::Stopped),
            }
        }
        self.tell(first).await;
        Ok(())
    }

    /// What the archive does not hold may be lost with the ledger, and its number be given again: so nobody is told before
    /// that it is issued.
    async fn await_archive(&mut self, shown: &mut Outcome, entry: u64) {
        let why = match &self.archive_fails {
            // Once is enough for a run.
            Some(_) if self.ledger.archive_state().holds(entry) => return,
            Some(why) => why.clone(),
            None => match archived(&self.ledger, entry).await {
                Ok(()) => return,
                Err(why) => why,
            },
        };
        shown.outcome = EndedAs::AwaitsArchive;
        shown.problem = Some(format!(
            "it is issued, and the archive does not hold entry {entry} yet ({why}): do not send it; a later run says issued_before once it does"
        ));
        self.archive_fails = Some(why);
    }

    async fn draft_again(&self, id: CustomerId) -> Result<Result<Drafted, Problem>, LedgerError> {
        let (ledger, gated) = (self.ledger.clone(), Arc::clone(&self.gated));
        let drafting =
            tokio::task::spawn_blocking(move || Ok(gated.draft_for(&*ledger.books()?, &id)));
        drafting.await.unwrap_or(Err(LedgerError::Stopped))
    }

    async fn tell(&mut self, settled: InFlight) {
        let InFlight { shown, total, .. } = settled;
        let summary = &mut self.summary;
        let count = match shown.outcome {
            EndedAs::Issued => &mut summary.issued,
            EndedAs::Draft => &mut summary.drafts,
            EndedAs::IssuedBefore => &mut summary.issued_before,
            EndedAs::AwaitsArchive => &mut summary.awaiting_archive,
            EndedAs::NothingDue => &mut summary.nothing_due,
            EndedAs::Problem => &mut summary.problems,
        };
        *count = count.saturating_add(1);
        summary.waiting = summary.waiting.saturating_add(u64::from(shown.waits));
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
