//! Documents: listed, shown, and what is done with them.
//!
//! ```text
//! GET  /v1/invoices?customer=&after=&limit=        states, ascending by number
//! GET  /v1/invoices/{number}                       state and document
//! GET  /v1/invoices/{number}/document              the document alone, byte for byte as it was issued
//! GET  /v1/invoices/{number}/html | csv | pdf      the same for people
//! POST /v1/invoices/{number}/void | payments | credit-notes | write-off
//! GET  /v1/customers/{customer}/invoices ...       the same of one customer, for tokens that see no other
//! ```
//! **Does not own** what they do (`ledger/books.rs`, `invoice/credit.rs`).

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use tidemark_common::id::CustomerId;

use crate::catalog::Catalog;
use crate::invoice::Printed;
use crate::invoice::charge::Parties;
use crate::invoice::credit::{CreditError, Credited, credit_note};
use crate::invoice::print::{csv, html, pdf};
use crate::ledger::books::rows::{self, CustomerRow, Minor, StateRow};
use crate::ledger::books::{Issue, TEXT_BYTES_MAX, What, test_clock};
use crate::ledger::entry::LedgerEntry;
use crate::ledger::store::{Books, StoreError};
use crate::money::{Currency, Money};
use crate::period::Day;

use super::Api;
use super::books::{BookedShown, asked, page, read};
use super::problem::Problem;
use super::query::{Pairs, Parameters, bad};
use super::usage::customer_id;

/// A page holds so many rows, if the request does not say; and at most.
pub(super) const PAGE_ROWS: usize = 100;
pub(super) const PAGE_ROWS_MAX: usize = 1_000;

/// What is known of a document beside itself.
#[derive(Debug, Serialize)]
pub(super) struct StateShown {
    number: String,
    customer: String,
    kind: crate::invoice::DocumentKind,
    state: &'static str,
    currency: String,
    date: String,
    due_date: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_end: Option<String>,
    total: String,
    credit_applied: String,
    amount_due: String,
    paid: String,
    /// By credit notes, of what was due; and their total, of which the rest is the customer's credit.
    credited: String,
    credit_notes: String,
    written_off: String,
    /// The ledger entry that issued it.
    entry: u64,
    /// The SHA-256 of the document.
    sha256: String,
}

impl StateShown {
    fn of(number: &str, row: StateRow) -> Result<Self, StoreError> {
        let currency = Currency::parse(&row.currency)
            .map_err(|error| StoreError::books(format!("document {number}: {error}")))?;
        let told = |Minor(minor): Minor| Money { minor, currency }.amount();
        Ok(Self {
            number: number.to_owned(),
            kind: row.kind,
            state: row.state.name(),
            total: told(row.total),
            credit_applied: told(row.credit_applied),
            amount_due: told(row.due),
            paid: told(row.paid),
            credited: told(row.credited),
            credit_notes: told(row.credit_notes),
            written_off: told(row.written_off),
            customer: row.customer,
            currency: row.currency,
            date: row.date,
            due_date: row.due_date,
            period_end: row.period_end,
            entry: row.entry,
            sha256: row.sha256,
        })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    invoices: Vec<StateShown>,
    /// Pass it as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    state: StateShown,
    document: Box<RawValue>,
}

/// `limit`, within its bounds.
pub(super) fn limit_of(parameters: &Parameters) -> Result<usize, Problem> {
    let Some(text) = parameters.get("limit") else { return Ok(PAGE_ROWS) };
    let limit = text.parse().ok().filter(|limit| (1..=PAGE_ROWS_MAX).contains(limit));
    limit.ok_or_else(|| {
        bad("limit", "is no such number", format!("give a number from 1 to {PAGE_ROWS_MAX}"))
    })
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Listed>, Problem> {
    let parameters = Parameters::new(pairs, &["customer", "after", "limit"])?;
    let customer = parameters.get("customer").map(customer_id).transpose()?;
    listed(&api, customer, &parameters).await
}

pub(super) async fn list_of_customer(
    State(api): State<Api>,
    Path(customer): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Listed>, Problem> {
    let parameters = Parameters::new(pairs, &["after", "limit"])?;
    listed(&api, Some(customer_id(&customer)?), &parameters).await
}

async fn listed(
    api: &Api,
    customer: Option<CustomerId>,
    parameters: &Parameters,
) -> Result<Json<Listed>, Problem> {
    let limit = limit_of(parameters)?;
    let after = parameters.get("after").unwrap_or_default().to_owned();
    api.read_books(move |_, books| {
        let prefix = match &customer {
            Some(customer) => rows::customer_prefix(rows::BY_CUSTOMER, customer),
            None => rows::STATES.to_vec(),
        };
        let (found, more) = page(books, &prefix, after.as_bytes(), limit)?;
        let numbers = found.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned());
        let mut invoices = Vec::new();
        for number in numbers {
            invoices.push(StateShown::of(&number, state_of(books, &number)?)?);
        }
        let next = invoices.last().filter(|_| more).map(|last| last.number.clone());
        Ok(Listed { invoices, next })
    })
    .await
    .map(Json)
}

/// A document, by its number alone or among those of one customer.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    customer: Option<String>,
    number: String,
}

impl Which {
    pub(super) fn number(&self) -> &str {
        &self.number
    }

    /// The state, and the bytes of the document.
    pub(super) fn read(&self, books: &dyn Books) -> Result<(StateRow, Vec<u8>), Problem> {
        let customer = self.customer.as_deref().map(customer_id).transpose()?;
        let state = state_of(books, &self.number)?;
        if customer.is_some_and(|customer| state.customer != customer.as_str()) {
            return Err(unknown(&self.number));
        }
        Ok((state, document_of(books, &self.number)?))
    }
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(which): Path<Which>,
    Query(pairs): Query<Pairs>,
) -> Result<Json<Shown>, Problem> {
    Parameters::new(pairs, &[])?;
    api.read_books(move |_, books| {
        let ((state, document), number) = (which.read(books)?, &which.number);
        let document = String::from_utf8(document)
            .ok()
            .and_then(|text| RawValue::from_string(text).ok())
            .ok_or_else(|| StoreError::books(format!("document {number} is no JSON")))?;
        Ok(Shown { state: StateShown::of(number, state)?, document })
    })
    .await
    .map(Json)
}

fn state_of(books: &dyn Books, number: &str) -> Result<StateRow, Problem> {
    let state = read(books, &rows::key(rows::STATES, number.as_bytes()))?;
    state.ok_or_else(|| unknown(number))
}

fn unknown(number: &str) -> Problem {
    crate::ledger::books::Refused::UnknownDocument { number: number.to_owned() }.into()
}

fn document_of(books: &dyn Books, number: &str) -> Result<Vec<u8>, Problem> {
    let bytes = books.get(&rows::key(rows::DOCUMENTS, number.as_bytes()))?;
    bytes.ok_or_else(|| unknown(number))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reasoned {
    reason: String,
}

pub(super) async fn void(
    State(api): State<Api>,
    Path(number): Path<String>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<Reasoned>(request).await?;
    let reason = Some(text("reason", &asked.body.reason)?);
    let change = asked.change(What::Void { number }, reason, None)?;
    api.book(change).await.map(Json)
}

pub(super) async fn write_off(
    State(api): State<Api>,
    Path(number): Path<String>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<Reasoned>(request).await?;
    let reason = Some(text("reason", &asked.body.reason)?);
    let change = asked.change(What::WriteOff { number }, reason, None)?;
    api.book(change).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payment {
    amount: String,
    #[serde(default)]
    date: Option<String>,
    #[serde(default)]
    reference: Option<String>,
}

pub(super) async fn pay(
    State(api): State<Api>,
    Path(number): Path<String>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<Payment>(request).await?;
    let Payment { amount, date, reference } = &asked.body;
    let date = date.as_deref().map(day).transpose()?;
    let reference =
        reference.as_deref().map(|reference| text("reference", reference)).transpose()?;
    let (amount, of) = (amount.clone(), number.clone());
    let currency = api.read_books(move |_, books| Ok(state_of(books, &of)?.currency)).await?;
    let amount = money("amount", &amount, &currency)?;
    let change = asked.change(What::Pay { number, amount, reference }, None, date)?;
    api.book(change).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credit {
    amount: String,
    reason: String,
}

pub(super) async fn credit(
    State(api): State<Api>,
    Path(number): Path<String>,
    request: Request,
) -> Result<Json<BookedShown>, Problem> {
    let asked = asked::<Credit>(request).await?;
    if let Some(booked) = api.replayed(&asked).await? {
        return Ok(Json(booked));
    }
    let (amount, reason) = (asked.body.amount.clone(), text("reason", &asked.body.reason)?);
    let why = reason.clone();
    let issue = api
        .read_books(move |catalog, books| credited(catalog, books, &number, &amount, &why))
        .await?;
    let change = asked.change(What::Issue(Box::new(issue)), Some(reason), None)?;
    api.book(change).await.map(Json)
}

/// The credit note, as the books and the catalogue are now.
fn credited(
    catalog: &Catalog,
    books: &dyn Books,
    number: &str,
    amount: &str,
    reason: &str,
) -> Result<Issue, Problem> {
    let state = state_of(books, number)?;
    let broken = |what: &str| StoreError::books(format!("document {number}: {what}"));
    let id = CustomerId::parse(&state.customer).map_err(|_| broken("its customer"))?;
    let customer = catalog.customers.get(&id);
    let parties = customer.zip(customer.and_then(|customer| catalog.seller_of(customer)));
    let Some((customer, seller)) = parties else {
        return Err(crate::billing::BillError::UnknownCustomer { id: state.customer }.into());
    };
    let amount = money("amount", amount, &state.currency)?;
    let document: Printed = serde_json::from_slice(&document_of(books, number)?)
        .map_err(|error| broken(&error.to_string()))?;
    let entry = books.get(&rows::key(rows::ENTRIES, &state.entry.to_be_bytes()))?;
    let entry = LedgerEntry::decode(&entry.unwrap_or_default())
        .map_err(|error| broken(&error.to_string()))?;
    let held: Option<CustomerRow> = read(books, &rows::customer_prefix(rows::CUSTOMERS, &id))?;
    let invoice = Credited {
        number,
        document: &document,
        state: &state,
        postings: &entry.postings,
        customer: &held.unwrap_or_default(),
        sandbox: test_clock(books)?.is_some(),
    };
    Ok(credit_note(Parties { catalog, seller, customer }, &id, &invoice, amount, reason)?)
}

impl From<CreditError> for Problem {
    fn from(error: CreditError) -> Self {
        Self::new(StatusCode::CONFLICT, "document-state", "The credit note cannot be written")
            .detail(error.to_string())
            .remedy("GET /v1/invoices/{number} shows its state and what of it is credited")
    }
}

/// An amount of a document's currency.
fn money(field: &str, text: &str, currency: &str) -> Result<Money, Problem> {
    let currency = Currency::parse(currency)
        .map_err(|error| StoreError::books(format!("a document's currency: {error}")))?;
    Money::parse(text, currency).map_err(|error| field_problem(field, &error.to_string()))
}

pub(super) fn day(text: &str) -> Result<Day, Problem> {
    Day::parse(text).map_err(|error| field_problem("date", &error.to_string()))
}

/// A text for people.
pub(super) fn text(field: &str, text: &str) -> Result<String, Problem> {
    let is_sound =
        !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    if is_sound {
        return Ok(text.to_owned());
    }
    Err(field_problem(field, &format!("is not 1 to {TEXT_BYTES_MAX} bytes of printable text")))
}

pub(super) fn field_problem(field: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-field", "A field cannot be used")
        .detail(format!("`{field}`: {detail}"))
        .remedy("deploy/docs/api.md says what it may hold")
}

/// As which file a document is given out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// Byte for byte as it was issued.
    Json,
    Html,
    Csv,
    Pdf,
}

impl Form {
    /// The document in this form, made of its stored bytes alone.
    fn print(self, number: &str, stored: Vec<u8>) -> Result<Response, Problem> {
        let printed = || -> Result<Printed, StoreError> {
            serde_json::from_slice(&stored)
                .map_err(|error| StoreError::books(format!("document {number}: {error}")))
        };
        let (media, extension, disposition, body) = match self {
            Self::Json => {
                let media = [(header::CONTENT_TYPE, "application/json")];
                return Ok((media, stored).into_response());
            }
            Self::Html => {
                ("text/html; charset=utf-8", "html", "inline", html(&printed()?).into_bytes())
            }
            Self::Csv => {
                ("text/csv; charset=utf-8", "csv", "attachment", csv(&printed()?).into_bytes())
            }
            Self::Pdf => {
                let pdf = pdf(&printed()?).map_err(|error| Problem::internal(&error))?;
                ("application/pdf", "pdf", "inline", pdf)
            }
        };
        // A number is of capital letters, digits and a dash.
        let name = format!("{disposition}; filename=\"{number}.{extension}\"");
        let headers = [
            (header::CONTENT_TYPE, media.to_owned()),
            (header::CONTENT_DISPOSITION, name),
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'".to_owned(),
            ),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        ];
        Ok((headers, body).into_response())
    }
}

/// The document in that form.
pub(super) async fn print(
    State(api): State<Api>,
    Path(which): Path<Which>,
    Query(pairs): Query<Pairs>,
    form: Form,
) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    api.read_books(move |_, books| form.print(&which.number, which.read(books)?.1)).await
}
