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

mod audit;
mod certify;
pub mod check;
pub mod correction;
mod documents;
mod payment;
pub mod rows;

use thiserror::Error;

use tidemark_common::hex;
use tidemark_common::id::{CustomerId, Fence, StreamId};
use tidemark_common::time::Timestamp;

use self::correction::CorrectionRow;
use self::rows::{CustomerRow, DocumentState, Effect, Head, Minor, RequestRow, StateRow};
use crate::billing::shown::LineShown;
use crate::certificate::Certified;
use crate::invoice::Document;
use crate::ledger::entry::{self, EntryError, EntryKind, LedgerEntry, Postings};
use crate::ledger::store::StoreError;
use crate::money::{Currency, Money, MoneyError};
use crate::period::{Day, Month, PeriodError, Zone};

use self::audit::CLOCK_STEP_DAYS;
pub use self::audit::{is_clock_step, test_clock};

/// Names, reasons and references are at most this many bytes.
pub const TEXT_BYTES_MAX: usize = 1_000;
/// Where a day begins first, and last, as against UTC.
const EAST_MILLIS: i64 = 14 * 3_600_000;
const WEST_MILLIS: i64 = -12 * 3_600_000;
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
    /// Invoices need not wait for a finding of at most so many events.
    Waive {
        finding: String,
        events_max: u64,
    },
    /// A stream's agent will not come again.
    Lose {
        stream: StreamId,
        agent: String,
        /// Its last session by now.
        fence: Fence,
    },
    /// A cut was certified.
    Certify(Box<Certify>),
    /// Certificates are signed by another key from now on, which the one before signed.
    AddKey {
        key: String,
        signature: Option<String>,
    },
}

/// A certificate, and what it lists.
#[derive(Debug, Clone)]
pub struct Certify {
    pub certified: Certified,
    /// The digest of the one before.
    pub previous: String,
    pub file: Vec<u8>,
    pub streams: Vec<Vec<u8>>,
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
    /// Of a document that a run issues (certificate/proof.rs), compressed.
    pub proof: Option<Vec<u8>>,
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
    #[error("nothing is booked until this ledger is known to hold what its archive does: {why}")]
    Archive { why: String },
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

/// A row's key, and what it is to hold; `None`: it goes.
type Put = (Vec<u8>, Option<Vec<u8>>);

/// Judged: what would be written.
struct Plan {
    entry: Draft,
    puts: Vec<Put>,
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
    let head = read::<Head>(rows, rows::HEAD)?.unwrap_or_default();
    match judge(rows, change, head.next(), at) {
        Ok(Judged::Replay(booked)) => Ok(Ok(booked)),
        Ok(Judged::Book(plan)) => record(rows, change, *plan, &head, at).map(Ok),
        Err(Failed::Refused(refused)) => Ok(Err(refused)),
        Err(Failed::Store(error)) => Err(error),
    }
}

enum Judged {
    Replay(Booked),
    Book(Box<Plan>),
}

/// `entry` is the number that it is booked as.
fn judge(
    rows: &dyn BookRows,
    change: &Change,
    entry: u64,
    at: Timestamp,
) -> Result<Judged, Failed> {
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
        What::Issue(issue) => documents::judge_issue(rows, change, issue, entry, at)?,
        What::Void { number } => documents::judge_void(rows, change, number, at)?,
        What::Pay { number, amount, reference } => {
            payment::judge_payment(rows, change, number, *amount, reference.as_ref(), at)?
        }
        What::WriteOff { number } => payment::judge_write_off(rows, change, number, at)?,
        What::Correct(correct) => audit::judge_correction(rows, change, correct, entry, at)?,
        What::AdvanceClock { to, by, ahead } => audit::judge_clock(*to, *by, *ahead, at)?,
        What::Adopt(adopt) => audit::judge_adoption(rows, change, adopt, at)?,
        What::Certify(certify) => certify::judge_certificate(rows, certify, at)?,
        What::AddKey { key, signature } => certify::judge_key(rows, key, signature.as_ref(), at)?,
        What::Lock { through } => audit::judge_lock(rows, *through, at)?,
        What::Waive { finding, events_max } => {
            audit::judge_waiver(change, finding, *events_max, entry, at)?
        }
        What::Lose { stream, agent, fence } => {
            audit::judge_loss(change, (*stream, *fence), agent, entry, at)?
        }
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
    head: &Head,
    at: Timestamp,
) -> Result<Booked, StoreError> {
    let number = head.next();
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
    Ok(Booked { entry: number, document: plan.document, replayed: false })
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
