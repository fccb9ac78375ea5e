//! The books: what was invoiced, paid and taken back, entry by entry.
//!
//! ```text
//! Change --judge--> Refused, or --record--> rows: an entry, a document with its number, states, what was invoiced
//! ```
//! **Owns** what each change asks for, and does to the rows, within the ledger's own transaction: so a number is drawn,
//! an entry chained and an invoice stored together, or nothing of it. **Does not own** the amounts of a document
//! (`invoice/draft.rs`), the bytes of rows (`books/rows.rs`), or the transaction.
//!
//! Invariants: entries are numbered without holes, each holds the digest of the one before, and balances. Documents of
//! a series are numbered without holes; a void one keeps its number. A change for a customer that was made of rows
//! which changed since is refused as stale. What is refused writes nothing.

pub mod check;
pub mod correction;
pub mod rows;

use thiserror::Error;

use tidemark_common::hex;
use tidemark_common::id::CustomerId;
use tidemark_common::time::Timestamp;

use self::correction::CorrectionRow;
use self::rows::{
    CustomerRow, DocumentState, Effect, Head, InvoicedLine, Minor, PeriodChange, PeriodRow,
    RequestRow, Settles, StateRow, UsedPlan, UsedTax,
};
use crate::billing::shown::LineShown;
use crate::invoice::Document;
use crate::ledger::entry::{self, Account, EntryError, EntryKind, LedgerEntry, Postings};
use crate::ledger::store::{Books, StoreError};
use crate::money::{Currency, Money, MoneyError};
use crate::period::{Day, Month, PeriodError, Zone};

/// Names, reasons and references are at most this many bytes.
pub const TEXT_BYTES_MAX: usize = 1_000;
/// Ledger time follows no leap of over 400 days.
const CLOCK_STEP_DAYS: i64 = 366;
/// Where a day begins first, and last, as against UTC.
const EAST_MILLIS: i64 = 14 * 3_600_000;
const WEST_MILLIS: i64 = -12 * 3_600_000;
/// A document's number has at most so many characters: rule 46 of India's CGST rules.
const NUMBER_CHARACTERS_MAX: usize = 16;
/// An idempotency key is at most this many bytes.
pub const REQUEST_KEY_BYTES_MAX: usize = 128;

/// The rows of the books, within a transaction.
pub trait BookRows {
    /// # Errors
    /// If they cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// # Errors
    /// If they cannot be written.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// # Errors
    /// If they cannot be written.
    fn remove(&mut self, key: &[u8]) -> Result<(), StoreError>;
}

/// Something to be booked.
#[derive(Debug, Clone)]
pub struct Change {
    /// Who asks for it.
    pub actor: String,
    pub reason: Option<String>,
    /// The day that it counts for; `None`: today.
    pub date: Option<Day>,
    /// One and the same request has one and the same key, however often it is sent.
    pub request: Option<RequestKey>,
    pub what: What,
}

/// A request's key, and the SHA-256 of what it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    pub key: String,
    pub asked: [u8; 32],
}

/// What is to be booked.
#[derive(Debug, Clone)]
pub enum What {
    Issue(Box<Issue>),
    /// Takes an invoice back, of which nothing was paid or credited.
    Void {
        number: String,
    },
    /// Money that came in.
    Pay {
        number: String,
        amount: Money,
        reference: Option<String>,
    },
    /// Gives up what is due.
    WriteOff {
        number: String,
    },
    /// Usage as it should have been.
    Correct(Box<Correct>),
    /// A sandbox's time goes to `to`, which is `by` milliseconds on, and then so far ahead.
    AdvanceClock {
        to: Timestamp,
        by: i64,
        ahead: i64,
    },
    /// A catalogue is taken into use.
    Adopt(Box<Adopt>),
    /// No entry counts for this month or one before it any more.
    Lock {
        through: Month,
    },
}

/// A document that is complete but for its number and dates.
#[derive(Debug, Clone)]
pub struct Issue {
    pub customer: CustomerId,
    /// The customer's version in the rows that it was made of.
    pub version: u64,
    pub paper: Paper,
    pub series: Series,
    pub due_days: u16,
    pub document: Document<LineShown>,
    pub total: Money,
    pub credit_applied: Money,
    pub due: Money,
    pub postings: Postings,
    pub effect: Effect,
}

/// Whether there is anything to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paper {
    /// A document with a number.
    Document,
    /// All its lines are 0: the periods count as invoiced, and no number is drawn.
    NothingDue,
}

/// A correction of a customer's usage.
#[derive(Debug, Clone)]
pub struct Correct {
    pub customer: CustomerId,
    /// The customer's version in the rows that it was judged by.
    pub version: u64,
    pub row: CorrectionRow,
}

/// A catalogue.
#[derive(Debug, Clone)]
pub struct Adopt {
    pub sha256: String,
    /// To be kept; `None` where it is a file.
    pub text: Option<String>,
    /// What is different.
    pub told: String,
}

/// What a document is numbered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    pub prefix: String,
    pub fiscal_year_start: i8,
    /// The seller's.
    pub zone: Zone,
}

/// What was booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    /// The number of the entry.
    pub entry: u64,
    /// The document that was issued or changed.
    pub document: Option<String>,
    /// The same request was booked before: nothing was done now.
    pub replayed: bool,
}

/// Why nothing was booked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("something else was booked for the customer meanwhile")]
    Stale,
    #[error("the billing run of that date has issued {number} already")]
    AlreadyIssued { number: String },
    #[error("there is no document {number:?}")]
    UnknownDocument { number: String },
    #[error("{number} is {state}, so it cannot be {act}")]
    State { number: String, state: &'static str, act: &'static str },
    #[error("{number} has payments or credit notes, so it cannot be void; write a credit note")]
    Settled { number: String },
    #[error("{month} is locked")]
    Locked { month: Month },
    #[error(
        "this ledger goes by real time; a sandbox begins with --test-clock in an empty data_dir"
    )]
    NotASandbox,
    #[error("time goes forward, and by at most {CLOCK_STEP_DAYS} days at once")]
    ClockStep,
    #[error("{date} is in the future")]
    Future { date: Day },
    #[error(
        "the series {series} has given its last number, of 16 characters: begin another prefix"
    )]
    SeriesFull { series: String },
    #[error("{through} is not over yet")]
    NotOver { through: Month },
    #[error("months up to {through} are locked already")]
    LockedAlready { through: Month },
    #[error("the catalogue is this one already")]
    NothingNew,
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("the amount is in {found}, and {number} in {currency}")]
    Currency { number: String, found: Currency, currency: String },
    #[error("the amount must be above 0")]
    NoAmount,
    #[error("only {due} are due of {number}")]
    TooMuch { number: String, due: Money },
    #[error("an amount exceeds what 128 bits hold")]
    TooLarge,
    #[error(transparent)]
    Period(#[from] PeriodError),
    #[error(transparent)]
    Money(#[from] MoneyError),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// Judged: what would be written.
struct Plan {
    entry: Draft,
    puts: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    document: Option<String>,
}

/// An entry that lacks its place in the chain.
struct Draft {
    kind: EntryKind,
    customer: Option<String>,
    document_sha256: Option<String>,
    subject: Option<String>,
    postings: Postings,
    date: Day,
}

/// Either of two ways of not being booked.
enum Failed {
    Refused(Refused),
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<PeriodError> for Failed {
    fn from(error: PeriodError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<EntryError> for Failed {
    fn from(error: EntryError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<MoneyError> for Failed {
    fn from(error: MoneyError) -> Self {
        Self::Refused(error.into())
    }
}

/// Judges a change against the rows, and writes what it comes to, or nothing.
///
/// # Errors
/// If the rows cannot be read or written.
pub fn book(
    rows: &mut dyn BookRows,
    change: &Change,
    at: Timestamp,
) -> Result<Result<Booked, Refused>, StoreError> {
    match judge(rows, change, at) {
        Ok(Judged::Replay(booked)) => Ok(Ok(booked)),
        Ok(Judged::Book(plan)) => record(rows, change, *plan, at).map(Ok),
        Err(Failed::Refused(refused)) => Ok(Err(refused)),
        Err(Failed::Store(error)) => Err(error),
    }
}

enum Judged {
    Replay(Booked),
    Book(Box<Plan>),
}

fn judge(rows: &dyn BookRows, change: &Change, at: Timestamp) -> Result<Judged, Failed> {
    if let Some(request) = &change.request
        && let Some(held) = read::<RequestRow>(rows, &request_key(request))?
    {
        if held.asked != hex::encode(&request.asked) {
            return Err(Refused::KeyReused.into());
        }
        let booked = Booked { entry: held.entry, document: held.document, replayed: true };
        return Ok(Judged::Replay(booked));
    }
    let plan = match &change.what {
        What::Issue(issue) => judge_issue(rows, change, issue, at)?,
        What::Void { number } => judge_void(rows, change, number, at)?,
        What::Pay { number, amount, reference } => {
            judge_payment(rows, change, number, *amount, reference.as_ref(), at)?
        }
        What::WriteOff { number } => judge_write_off(rows, change, number, at)?,
        What::Correct(correct) => judge_correction(rows, change, correct, at)?,
        What::AdvanceClock { to, by, ahead } => judge_clock(*to, *by, *ahead, at)?,
        What::Adopt(adopt) => judge_adoption(rows, change, adopt, at)?,
        What::Lock { through } => judge_lock(rows, *through, at)?,
    };
    if !matches!(change.what, What::Lock { .. }) {
        check_month(rows, plan.entry.date)?;
    }
    Ok(Judged::Book(Box::new(plan)))
}

/// Writes the entry, with its place in the chain, and all else.
fn record(
    rows: &mut dyn BookRows,
    change: &Change,
    plan: Plan,
    at: Timestamp,
) -> Result<Booked, StoreError> {
    let head = read::<Head>(rows, rows::HEAD)?.unwrap_or_default();
    let number = head.entries.checked_add(1).expect("a ledger never holds 2^64 entries");
    let entry = LedgerEntry {
        number,
        previous: head.previous(),
        at: at.0,
        date: plan.entry.date.to_string(),
        kind: plan.entry.kind,
        actor: change.actor.clone(),
        reason: change.reason.clone(),
        customer: plan.entry.customer,
        document: plan.document.clone(),
        document_sha256: plan.entry.document_sha256,
        subject: plan.entry.subject,
        postings: plan.entry.postings,
    };
    let stored = entry.encode();
    let head = Head { entries: number, digest: entry::digest(&stored).to_string() };
    rows.put(&rows::key(rows::ENTRIES, &number.to_be_bytes()), &stored)?;
    rows.put(rows::HEAD, &rows::write(&head))?;
    for (key, value) in plan.puts {
        match value {
            Some(value) => rows.put(&key, &value)?,
            None => rows.remove(&key)?,
        }
    }
    if let Some(request) = &change.request {
        let asked = hex::encode(&request.asked);
        let row = RequestRow { asked, entry: number, document: plan.document.clone() };
        rows.put(&request_key(request), &rows::write(&row))?;
    }
    // A state knows the entry that issued it.
    if let (EntryKind::Issue, Some(document)) = (entry.kind, &plan.document) {
        let key = rows::key(rows::STATES, document.as_bytes());
        if let Some(state) = read::<StateRow>(rows, &key)? {
            rows.put(&key, &rows::write(&StateRow { entry: number, ..state }))?;
        }
    }
    Ok(Booked { entry: number, document: plan.document, replayed: false })
}

fn judge_issue(
    rows: &dyn BookRows,
    change: &Change,
    issue: &Issue,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let Issue { customer, series, document, effect, .. } = issue;
    let run = effect.run.as_ref();
    let run = run.map(|date| rows::customer_key(rows::RUNS, customer, date.as_bytes()));
    if let Some(number) = run.as_ref().map(|key| read::<String>(rows, key)).transpose()?.flatten() {
        return Err(Refused::AlreadyIssued { number }.into());
    }
    let mut held = customer_row(rows, customer)?;
    if held.version != issue.version {
        return Err(Refused::Stale.into());
    }
    let date = day_or(change, &series.zone, at)?;
    if issue.paper == Paper::NothingDue {
        return nothing_due(rows, issue, held, run, date);
    }
    let mut puts = Vec::new();
    let number = draw_number(rows, series, date, &mut puts)?;
    let mut document = document.clone();
    document.number = Some(number.clone());
    document.date = Some(date.to_string());
    document.due_date = Some(date.plus_days(issue.due_days).to_string());
    document.issued_at = Some(series.zone.rfc3339(at));
    let stored = rows::write(&document);
    let sha256 = hex::encode(&sha256(&stored));
    let state = issued_state(issue, &document, &sha256);
    let effect = settle_periods(rows, customer, effect, &mut puts)?;
    if let Some(Settles { number, due, total }) = &effect.settles {
        let mut state = state_of(rows, number)?;
        lower_due(&mut state, number, *due)?;
        state.credited = Minor(plus(state.credited.0, due.0)?);
        state.credit_notes = Minor(plus(state.credit_notes.0, total.0)?);
        puts.push((state_key(number), Some(rows::write(&state))));
    }
    for used in &effect.taxes {
        let key = rows::key(rows::USED_TAXES, used.name.as_bytes());
        if rows.get(&key)?.is_none() {
            let used = UsedTax { document: number.clone(), ..used.clone() };
            puts.push((key, Some(rows::write(&used))));
        }
    }
    for used in &effect.plans {
        if rows.get(&used.key())?.is_none() {
            let used = UsedPlan { document: number.clone(), ..used.clone() };
            puts.push((used.key(), Some(rows::write(&used))));
        }
    }
    add_credit(&mut held, issue.total.currency, effect.credit)?;
    puts.push((customer_row_key(customer), Some(rows::write(&held))));
    puts.extend(run.map(|key| (key, Some(rows::write(&number)))));
    puts.push((rows::key(rows::DOCUMENTS, number.as_bytes()), Some(stored)));
    puts.push((state_key(&number), Some(rows::write(&state))));
    puts.push((rows::key(rows::EFFECTS, number.as_bytes()), Some(rows::write(&effect))));
    puts.push((
        rows::customer_key(rows::BY_CUSTOMER, customer, number.as_bytes()),
        Some(Vec::new()),
    ));
    let entry = Draft {
        kind: EntryKind::Issue,
        customer: Some(customer.as_str().to_owned()),
        document_sha256: Some(sha256),
        subject: effect.settles.map(|settles| settles.number),
        postings: issue.postings.clone(),
        date,
    };
    Ok(Plan { entry, puts, document: Some(number) })
}

/// Periods of which nothing is due: what comes to them later is a correction.
fn nothing_due(
    rows: &dyn BookRows,
    issue: &Issue,
    mut held: CustomerRow,
    run: Option<Vec<u8>>,
    date: Day,
) -> Result<Plan, Failed> {
    let mut puts = Vec::new();
    let effect = settle_periods(rows, &issue.customer, &issue.effect, &mut puts)?;
    held.version = held.version.saturating_add(1);
    puts.push((customer_row_key(&issue.customer), Some(rows::write(&held))));
    puts.extend(run.map(|key| (key, Some(rows::write(&String::new())))));
    let entry = Draft {
        kind: EntryKind::NothingDue,
        customer: Some(issue.customer.as_str().to_owned()),
        document_sha256: None,
        subject: effect.run,
        postings: issue.postings.clone(),
        date,
    };
    Ok(Plan { entry, puts, document: None })
}

/// The state of a document that has its number and dates; its entry is not known yet.
fn issued_state(issue: &Issue, document: &Document<LineShown>, sha256: &str) -> StateRow {
    let is_settled = issue.due.minor == 0;
    StateRow {
        customer: issue.customer.as_str().to_owned(),
        kind: document.kind,
        state: if is_settled { DocumentState::Paid } else { DocumentState::Issued },
        currency: document.currency.clone(),
        time_zone: issue.series.zone.name().to_owned(),
        date: document.date.clone().unwrap_or_default(),
        due_date: document.due_date.clone().unwrap_or_default(),
        period_end: document.period_end.clone(),
        total: Minor(issue.total.minor),
        credit_applied: Minor(issue.credit_applied.minor),
        due: Minor(issue.due.minor),
        paid: Minor(0),
        credited: Minor(0),
        credit_notes: Minor(0),
        written_off: Minor(0),
        entry: 0,
        sha256: sha256.to_owned(),
    }
}

/// The next number of a series.
fn draw_number(
    rows: &dyn BookRows,
    series: &Series,
    date: Day,
    puts: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>,
) -> Result<String, Failed> {
    let year = date.fiscal_year(series.fiscal_year_start);
    let name = format!("{}{year}", series.prefix);
    let key = rows::key(rows::SERIES, name.as_bytes());
    let last = read::<u64>(rows, &key)?.unwrap_or(0);
    let next = last.checked_add(1).expect("a series never holds 2^64 documents");
    puts.push((key, Some(rows::write(&next))));
    let number = format!("{name}-{next:06}");
    if number.len() > NUMBER_CHARACTERS_MAX {
        return Err(Refused::SeriesFull { series: name }.into());
    }
    Ok(number)
}

/// Adds what comes to each period; the effect, with what each was before.
fn settle_periods(
    rows: &dyn BookRows,
    customer: &CustomerId,
    effect: &Effect,
    puts: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>,
) -> Result<Effect, Failed> {
    let mut effect = effect.clone();
    for change in &mut effect.periods {
        let key = rows::period_key(customer, &change.plan, change.period());
        let held = read::<PeriodRow>(rows, &key)?;
        change.scope_before = held.as_ref().map(|held| held.scope);
        let lines = held.map(|held| held.lines).unwrap_or_default();
        let lines = add_lines(lines, &change.lines, Sign::Plus)?;
        puts.push((key, Some(rows::write(&period_row(change, change.scope, lines)))));
    }
    Ok(effect)
}

fn period_row(change: &PeriodChange, scope: rows::Scope, lines: Vec<InvoicedLine>) -> PeriodRow {
    let PeriodChange { plan, start, end, .. } = change;
    PeriodRow { plan: plan.clone(), start: *start, end: *end, scope, lines }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

fn add_lines(
    mut held: Vec<InvoicedLine>,
    change: &[InvoicedLine],
    sign: Sign,
) -> Result<Vec<InvoicedLine>, Failed> {
    let signed = |Minor(minor): Minor| match sign {
        Sign::Plus => minor,
        Sign::Minus => minor.saturating_neg(),
    };
    for line in change {
        let (amount, deferred) = (signed(line.amount), signed(line.deferred));
        match held.iter_mut().find(|held| held.key == line.key) {
            Some(held) => {
                held.amount = Minor(plus(held.amount.0, amount)?);
                held.deferred = Minor(plus(held.deferred.0, deferred)?);
            }
            None => held.push(InvoicedLine {
                amount: Minor(amount),
                deferred: Minor(deferred),
                ..line.clone()
            }),
        }
    }
    held.retain(|line| line.amount != Minor(0) || line.deferred != Minor(0));
    Ok(held)
}

fn judge_void(
    rows: &dyn BookRows,
    change: &Change,
    number: &str,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut state = state_of(rows, number)?;
    let refused = |state: &StateRow| Refused::State {
        number: number.to_owned(),
        state: state.state.name(),
        act: "void",
    };
    if state.kind != crate::invoice::DocumentKind::Invoice {
        return Err(Refused::State {
            number: number.to_owned(),
            state: "a credit note",
            act: "void",
        }
        .into());
    }
    match state.state {
        DocumentState::Issued | DocumentState::PartlyPaid | DocumentState::Paid => {}
        DocumentState::Void | DocumentState::Uncollectible => return Err(refused(&state).into()),
    }
    if state.paid != Minor(0) || state.credit_notes != Minor(0) {
        return Err(Refused::Settled { number: number.to_owned() }.into());
    }
    let customer = customer_of(&state)?;
    let mut held = customer_row(rows, &customer)?;
    let effect = read::<Effect>(rows, &rows::key(rows::EFFECTS, number.as_bytes()))?;
    let effect = effect.ok_or_else(|| missing("effect", number))?;
    let mut puts = Vec::new();
    for period in &effect.periods {
        let key = rows::period_key(&customer, &period.plan, period.period());
        let held = read::<PeriodRow>(rows, &key)?;
        let scope = held.as_ref().map_or(period.scope, |held| held.scope);
        let lines = held.map(|held| held.lines).unwrap_or_default();
        let lines = add_lines(lines, &period.lines, Sign::Minus)?;
        // Later documents may have charged more of it than this one: then what is missing now is a correction.
        let row = match period.scope_before {
            None if lines.is_empty() => None,
            _ => Some(rows::write(&period_row(period, scope, lines))),
        };
        puts.push((key, row));
    }
    if let Some(run) = &effect.run {
        puts.push((rows::customer_key(rows::RUNS, &customer, run.as_bytes()), None));
    }
    let currency = currency_of(&state)?;
    add_credit(&mut held, currency, Minor(effect.credit.0.saturating_neg()))?;
    puts.push((customer_row_key(&customer), Some(rows::write(&held))));
    let issued = entry_of(rows, state.entry)?;
    state.state = DocumentState::Void;
    state.due = Minor(0);
    puts.push((state_key(number), Some(rows::write(&state))));
    let entry = Draft {
        kind: EntryKind::Void,
        customer: Some(state.customer.clone()),
        document_sha256: None,
        subject: None,
        postings: issued.postings.reversed(),
        date: day_or(change, &zone_of(&state)?, at)?,
    };
    Ok(Plan { entry, puts, document: Some(number.to_owned()) })
}

fn judge_payment(
    rows: &dyn BookRows,
    change: &Change,
    number: &str,
    amount: Money,
    reference: Option<&String>,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut state = payable(rows, number, "paid")?;
    if amount.minor <= 0 {
        return Err(Refused::NoAmount.into());
    }
    let currency = currency_of(&state)?;
    if amount.currency != currency {
        let (found, currency) = (amount.currency, state.currency);
        return Err(Refused::Currency { number: number.to_owned(), found, currency }.into());
    }
    let applied = Money { minor: amount.minor.min(state.due.0), currency };
    let over = amount.checked_sub(applied)?;
    lower_due(&mut state, number, Minor(applied.minor))?;
    state.paid = Minor(plus(state.paid.0, applied.minor)?);
    let customer = customer_of(&state)?;
    let mut held = customer_row(rows, &customer)?;
    add_credit(&mut held, currency, Minor(over.minor))?;
    let postings = Postings::new([
        (Account::Clearing, amount),
        (Account::Receivable, applied.negated()),
        (Account::CustomerCredit, over.negated()),
    ])?;
    let puts = vec![
        (state_key(number), Some(rows::write(&state))),
        (customer_row_key(&customer), Some(rows::write(&held))),
    ];
    let entry = Draft {
        kind: EntryKind::Payment,
        customer: Some(state.customer.clone()),
        document_sha256: None,
        subject: reference.cloned(),
        postings,
        date: day_or(change, &zone_of(&state)?, at)?,
    };
    Ok(Plan { entry, puts, document: Some(number.to_owned()) })
}

fn judge_write_off(
    rows: &dyn BookRows,
    change: &Change,
    number: &str,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut state = payable(rows, number, "written off")?;
    let due = Money { minor: state.due.0, currency: currency_of(&state)? };
    let postings = Postings::new([(Account::WriteOff, due), (Account::Receivable, due.negated())])?;
    (state.due, state.written_off) = (Minor(0), Minor(due.minor));
    state.state = DocumentState::Uncollectible;
    let customer = customer_of(&state)?;
    let mut held = customer_row(rows, &customer)?;
    add_credit(&mut held, due.currency, Minor(0))?;
    let puts = vec![
        (state_key(number), Some(rows::write(&state))),
        (customer_row_key(&customer), Some(rows::write(&held))),
    ];
    let entry = Draft {
        kind: EntryKind::WriteOff,
        customer: Some(state.customer.clone()),
        document_sha256: None,
        subject: None,
        postings,
        date: day_or(change, &zone_of(&state)?, at)?,
    };
    Ok(Plan { entry, puts, document: Some(number.to_owned()) })
}

fn judge_correction(
    rows: &dyn BookRows,
    change: &Change,
    correct: &Correct,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let Correct { customer, version, row } = correct;
    let mut held = customer_row(rows, customer)?;
    if held.version != *version {
        return Err(Refused::Stale.into());
    }
    held.version = held.version.saturating_add(1);
    let head = read::<Head>(rows, rows::HEAD)?.unwrap_or_default();
    let puts = vec![
        (row.key(customer, head.entries.saturating_add(1)), Some(rows::write(row))),
        (customer_row_key(customer), Some(rows::write(&held))),
    ];
    let entry = Draft {
        kind: EntryKind::Correction,
        customer: Some(customer.as_str().to_owned()),
        document_sha256: None,
        subject: Some(row.told()),
        postings: Postings::default(),
        date: day_or(change, &Zone::utc(), at)?,
    };
    Ok(Plan { entry, puts, document: None })
}

fn judge_adoption(
    rows: &dyn BookRows,
    change: &Change,
    adopt: &Adopt,
    at: Timestamp,
) -> Result<Plan, Failed> {
    let mut puts = Vec::new();
    match &adopt.text {
        Some(text) if rows.get(rows::CATALOG)?.is_some_and(|held| held == text.as_bytes()) => {
            return Err(Refused::NothingNew.into());
        }
        Some(text) => {
            let key = rows::key(rows::CATALOGS, &sha256(text.as_bytes()));
            puts.push((rows::CATALOG.to_vec(), Some(text.clone().into_bytes())));
            puts.push((key, Some(text.clone().into_bytes())));
        }
        // Of a file, changes are told once there are books.
        None if rows.get(rows::HEAD)?.is_none() => return Err(Refused::NothingNew.into()),
        None => {}
    }
    let entry = Draft {
        kind: EntryKind::Catalog,
        customer: None,
        document_sha256: Some(adopt.sha256.clone()),
        subject: Some(adopt.told.clone()),
        postings: Postings::default(),
        date: day_or(change, &Zone::utc(), at)?,
    };
    Ok(Plan { entry, puts, document: None })
}

fn judge_clock(to: Timestamp, by: i64, ahead: i64, at: Timestamp) -> Result<Plan, Failed> {
    if !is_clock_step(by) {
        return Err(Refused::ClockStep.into());
    }
    let entry = Draft {
        kind: EntryKind::TestClock,
        customer: None,
        document_sha256: None,
        subject: Some(Zone::utc().rfc3339(to)),
        postings: Postings::default(),
        date: Zone::utc().day_of(at)?,
    };
    let puts = vec![(rows::TEST_CLOCK.to_vec(), Some(rows::write(&ahead)))];
    Ok(Plan { entry, puts, document: None })
}

/// Whether a sandbox's time may be advanced by so many milliseconds at once.
#[must_use]
pub fn is_clock_step(by: i64) -> bool {
    (0..=CLOCK_STEP_DAYS.saturating_mul(86_400_000)).contains(&by)
}

/// How far a sandbox's time is ahead; `None` if this is none.
///
/// # Errors
/// If that cannot be read.
pub fn test_clock(books: &dyn Books) -> Result<Option<i64>, StoreError> {
    let row = books.get(rows::TEST_CLOCK)?.map(|bytes| rows::read("test clock", &bytes));
    row.transpose().map_err(|error| StoreError::books(error.to_string()))
}

fn judge_lock(rows: &dyn BookRows, through: Month, at: Timestamp) -> Result<Plan, Failed> {
    // Somewhere a day lasts twelve hours longer than in UTC.
    let today = Zone::utc().day_of(at.plus_millis(WEST_MILLIS))?;
    if through >= today.month() {
        return Err(Refused::NotOver { through }.into());
    }
    if let Some(locked) = locked_through(rows)?.filter(|locked| *locked >= through) {
        return Err(Refused::LockedAlready { through: locked }.into());
    }
    let entry = Draft {
        kind: EntryKind::Lock,
        customer: None,
        document_sha256: None,
        subject: Some(through.to_string()),
        postings: Postings::default(),
        date: today,
    };
    let puts = vec![(rows::LOCK.to_vec(), Some(rows::write(&through.to_string())))];
    Ok(Plan { entry, puts, document: None })
}

fn check_month(rows: &dyn BookRows, date: Day) -> Result<(), Failed> {
    match locked_through(rows)? {
        Some(locked) if date.month() <= locked => {
            Err(Refused::Locked { month: date.month() }.into())
        }
        _ => Ok(()),
    }
}

/// The last month that takes no entries any more.
fn locked_through(rows: &dyn BookRows) -> Result<Option<Month>, Failed> {
    let month = read::<String>(rows, rows::LOCK)?;
    Ok(month.map(|month| Month::parse(&month)).transpose()?)
}

/// The state of an invoice of which something is due.
fn payable(rows: &dyn BookRows, number: &str, act: &'static str) -> Result<StateRow, Failed> {
    let state = state_of(rows, number)?;
    match state.state {
        DocumentState::Issued | DocumentState::PartlyPaid if state.due.0 > 0 => Ok(state),
        _ => {
            let state = state.state.name();
            Err(Refused::State { number: number.to_owned(), state, act }.into())
        }
    }
}

fn lower_due(state: &mut StateRow, number: &str, amount: Minor) -> Result<(), Failed> {
    let due = plus(state.due.0, amount.0.saturating_neg())?;
    if due < 0 {
        let due = Money { minor: state.due.0, currency: currency_of(state)? };
        return Err(Refused::TooMuch { number: number.to_owned(), due }.into());
    }
    state.due = Minor(due);
    state.state = match (due, state.state) {
        (0, _) => DocumentState::Paid,
        (_, DocumentState::Issued) => DocumentState::PartlyPaid,
        (_, state) => state,
    };
    Ok(())
}

/// Counts a change for the customer, and what it adds to its credit.
fn add_credit(held: &mut CustomerRow, currency: Currency, change: Minor) -> Result<(), Failed> {
    held.version = held.version.saturating_add(1);
    let credit = plus(held.credit_in(currency).minor, change.0)?;
    match credit {
        0 => held.credit.remove(currency.code()),
        _ => held.credit.insert(currency.code().to_owned(), Minor(credit)),
    };
    Ok(())
}

fn plus(left: i128, right: i128) -> Result<i128, Refused> {
    left.checked_add(right).ok_or(Refused::TooLarge)
}

/// The day that a change counts for: as it says, or today in `zone`.
fn day_or(change: &Change, zone: &Zone, at: Timestamp) -> Result<Day, Failed> {
    match change.date {
        Some(date) if date > Zone::utc().day_of(at.plus_millis(EAST_MILLIS))? => {
            Err(Refused::Future { date }.into())
        }
        Some(date) => Ok(date),
        None => Ok(zone.day_of(at)?),
    }
}

fn zone_of(state: &StateRow) -> Result<Zone, StoreError> {
    Zone::parse(&state.time_zone).map_err(|error| StoreError::books(error.to_string()))
}

fn customer_row(rows: &dyn BookRows, customer: &CustomerId) -> Result<CustomerRow, StoreError> {
    Ok(read(rows, &customer_row_key(customer))?.unwrap_or_default())
}

fn customer_row_key(customer: &CustomerId) -> Vec<u8> {
    rows::customer_prefix(rows::CUSTOMERS, customer)
}

fn state_key(number: &str) -> Vec<u8> {
    rows::key(rows::STATES, number.as_bytes())
}

fn state_of(rows: &dyn BookRows, number: &str) -> Result<StateRow, Failed> {
    let state = read::<StateRow>(rows, &state_key(number))?;
    Ok(state.ok_or_else(|| Refused::UnknownDocument { number: number.to_owned() })?)
}

fn entry_of(rows: &dyn BookRows, number: u64) -> Result<LedgerEntry, Failed> {
    let bytes = rows.get(&rows::key(rows::ENTRIES, &number.to_be_bytes()))?;
    let bytes = bytes.ok_or_else(|| missing("entry", &number.to_string()))?;
    Ok(LedgerEntry::decode(&bytes)?)
}

fn customer_of(state: &StateRow) -> Result<CustomerId, StoreError> {
    CustomerId::parse(&state.customer).map_err(|_| missing("customer", &state.customer))
}

fn currency_of(state: &StateRow) -> Result<Currency, StoreError> {
    Currency::parse(&state.currency).map_err(|_| missing("currency", &state.currency))
}

fn request_key(request: &RequestKey) -> Vec<u8> {
    rows::key(rows::REQUESTS, request.key.as_bytes())
}

fn read<T: serde::de::DeserializeOwned>(
    rows: &dyn BookRows,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    let row = rows.get(key)?.map(|bytes| rows::read("books", &bytes)).transpose();
    row.map_err(|error| StoreError::books(error.to_string()))
}

fn missing(what: &str, of: &str) -> StoreError {
    StoreError::books(format!("there is no {what} of {of:?}"))
}

/// Of a text or a document.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests;
