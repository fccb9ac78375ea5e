//! The HTTP API: what customers used and owe, and what the collector knows of its streams.
//!
//! ```text
//! GET /v1/customers/{id}/usage   usage          GET /healthz   the process answers
//! GET /v1/customers/{id}/events  the single events, where they are archived
//! GET /v1/customers/{id}/bill    live bill      GET /readyz    the ledger can be read
//! GET /v1/customers/{id}/bill/explain   how one of its lines came about
//! GET /v1/bills                  every customer's bill, from one snapshot
//! GET /v1/streams                every stream   GET /metrics   Prometheus text
//! GET /v1/suspense               what the catalogue does not explain
//! GET /v1/duplicates             what was admitted before, and is not billed again
//! GET /v1/reconciliation, waivers, POST /v1/waivers, /v1/streams/{id}/lost   reconciliation.rs
//! GET /v1/invoices ...           documents: invoices.rs      POST /v1/billing-runs   runs.rs
//! GET, PUT /v1/catalog           catalog.rs
//! GET /v1/certificates ...       certificates and proofs: certificates.rs
//! GET /v1/ledger/ ...            entries, balances, locks: entries.rs     POST /v1/corrections   corrections.rs
//! GET /openapi.json              all of this for machines: openapi.json beside this file
//! ```
//!
//! **Owns** JSON: its shapes live below and nowhere else. **Does not own** what the figures mean.
//!
//! Every answer is made of one snapshot and says which (its *cut*). Quantities and money are strings.
//! Reads block, so they run on the blocking pool: at most [`READS_MAX`] at once, and at most
//! [`READS_WAITING_MAX`] are waited for; more are told to come again. Readers never wait for the
//! ledger's writer.

mod auth;
mod bill;
mod bills;
mod books;
mod catalog;
mod certificates;
mod clock;
mod corrections;
mod cut;
mod door;
mod duplicates;
mod entries;
mod events;
mod explain;
mod invoices;
mod logins;
mod metrics;
mod openapi;
mod patient;
mod problem;
mod query;
mod reconciliation;
mod routes;
mod runs;
mod sources;
mod streams;
mod suspense;
mod usage;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::adopt::AdoptRequest;
use crate::archive::events::RawEvents;
use crate::backup::last::BackupNote;
use crate::billing_run::Settings;
use crate::catalog::Catalog;
use crate::ledger::store::Books;
use crate::ledger::{Ledger, Snapshot};
use crate::listen::ListenFigures;
use crate::reconcile::Sweeps;

use auth::{Need, Tokens};
use invoices::Form;
use problem::Problem;
use routes::Routes;

pub use auth::{Role, Token};
pub use door::{DoorCounters, DoorLimits, serve};

/// At most this many reads run at once.
pub const READS_MAX: usize = 8;
/// An answer is made of at most this many rows of usage, each distinct value counted as one.
const ROWS_MAX: u64 = 4_000_000;
/// At most this many reads run or wait.
pub const READS_WAITING_MAX: usize = 512;

/// What the handlers share.
#[derive(Debug, Clone)]
struct Api {
    ledger: Ledger,
    catalog: watch::Receiver<Arc<Catalog>>,
    sessions: Sessions,
    tokens: Arc<Tokens>,
    door: Arc<DoorCounters>,
    suspense: Arc<suspense::Counts>,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    adoptions: mpsc::Sender<AdoptRequest>,
    billing: Settings,
    sweeps: Arc<Sweeps>,
    raw_events: Option<RawEvents>,
    backups: BackupNote,
}

/// Reads the QUIC door's figures.
#[derive(Clone)]
struct Sessions(Arc<dyn Fn() -> ListenFigures + Send + Sync>);

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

/// What the resources that change something need.
#[derive(Debug)]
pub struct Changes {
    /// Takes new catalogues.
    pub adoptions: mpsc::Sender<AdoptRequest>,
    /// What holds for billing runs.
    pub billing: Settings,
    /// What the last sweep found.
    pub sweeps: Arc<Sweeps>,
    /// Raw events, where they are archived.
    pub raw_events: Option<RawEvents>,
    /// The newest backup.
    pub backups: BackupNote,
}

/// Every route; each is described in `openapi.json` too.
fn routes() -> [Routes; 5] {
    let read = Routes::new(Some(Need::Read))
        .route("/v1/customers/{customer}/usage", get(usage::handle))
        .route("/v1/customers/{customer}/events", get(events::handle))
        .route("/v1/customers/{customer}/bill", get(bill::handle))
        .route("/v1/customers/{customer}/bill/explain", get(explain::handle))
        .route("/v1/bills", get(bills::handle))
        .route("/v1/streams", get(streams::handle))
        .route("/v1/suspense", get(suspense::handle))
        .route("/v1/duplicates", get(duplicates::handle))
        .route("/v1/test-clock", get(clock::show))
        .route("/v1/invoices", get(invoices::list))
        .route("/v1/customers/{customer}/invoices", get(invoices::list_of_customer))
        .route("/v1/invoices/{number}", get(invoices::show))
        .route("/v1/invoices/{number}/document", printed(Form::Json))
        .route("/v1/invoices/{number}/html", printed(Form::Html))
        .route("/v1/invoices/{number}/csv", printed(Form::Csv))
        .route("/v1/invoices/{number}/pdf", printed(Form::Pdf))
        .route("/v1/customers/{customer}/invoices/{number}", get(invoices::show))
        .route("/v1/customers/{customer}/invoices/{number}/document", printed(Form::Json))
        .route("/v1/customers/{customer}/invoices/{number}/html", printed(Form::Html))
        .route("/v1/customers/{customer}/invoices/{number}/csv", printed(Form::Csv))
        .route("/v1/customers/{customer}/invoices/{number}/pdf", printed(Form::Pdf))
        .route("/v1/invoices/{number}/proof", get(certificates::proof))
        .route("/v1/customers/{customer}/invoices/{number}/proof", get(certificates::proof));
    let audited = Routes::new(Some(Need::Audit))
        .route("/v1/reconciliation", get(reconciliation::report))
        .route("/v1/reconciliation/html", get(reconciliation::page))
        .route("/v1/waivers", get(reconciliation::waivers))
        .route("/v1/catalog", get(catalog::show))
        .route("/v1/certificates", get(certificates::list))
        .route("/v1/certificates/{number}", get(certificates::show))
        .route("/v1/certificates/{number}/streams", get(certificates::streams))
        .route("/v1/ledger/entries", get(entries::list))
        .route("/v1/ledger/trial-balance", get(entries::trial_balance));
    let billing = Routes::new(Some(Need::Bill))
        .route("/v1/streams/{stream}/lost", post(reconciliation::lose))
        .route("/v1/waivers", post(reconciliation::waive))
        .route("/v1/billing-runs", post(runs::run))
        .route("/v1/corrections", post(corrections::correct))
        .route("/v1/invoices/{number}/void", post(invoices::void))
        .route("/v1/invoices/{number}/payments", post(invoices::pay))
        .route("/v1/invoices/{number}/credit-notes", post(invoices::credit))
        .route("/v1/invoices/{number}/write-off", post(invoices::write_off));
    let admin = Routes::new(Some(Need::Administer))
        .route("/v1/ledger/locks", post(entries::lock))
        .route("/v1/test-clock", post(clock::advance))
        .route("/v1/catalog", put(catalog::replace));
    let open = Routes::new(None)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/.well-known/tidemark-keys", get(certificates::published))
        .route("/metrics", get(metrics::handle))
        .route("/openapi.json", get(openapi::handle));
    [read, audited, billing, admin, open]
}

fn printed(form: Form) -> MethodRouter<Api> {
    get(move |api, path, query| invoices::print(api, path, query, form))
}

/// The API. `catalog` always holds the newest catalogue; `sessions` reads the QUIC door's figures, `door` are
/// this one's.
pub fn router(
    ledger: Ledger,
    catalog: watch::Receiver<Arc<Catalog>>,
    sessions: Arc<dyn Fn() -> ListenFigures + Send + Sync>,
    tokens: Vec<Token>,
    door: Arc<DoorCounters>,
    changes: Changes,
) -> Router {
    let api = Api {
        ledger,
        catalog,
        sessions: Sessions(sessions),
        tokens: Arc::new(Tokens::new(tokens)),
        door,
        suspense: Arc::default(),
        running: Arc::new(Semaphore::new(READS_MAX)),
        waiting: Arc::new(Semaphore::new(READS_WAITING_MAX)),
        adoptions: changes.adoptions,
        billing: changes.billing,
        sweeps: changes.sweeps,
        raw_events: changes.raw_events,
        backups: changes.backups,
    };
    let guarded = routes().into_iter().map(|routes| routes.guarded(&api));
    guarded
        .fold(Router::new(), Router::merge)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::map_response(problem::of_refusal))
        .with_state(api)
}

impl Api {
    /// Runs `read` on one snapshot, on the blocking pool.
    async fn read<T, F>(&self, read: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Catalog, &Snapshot) -> Result<T, Problem> + Send + 'static,
    {
        let ledger = self.ledger.clone();
        self.blocking(move |catalog| read(catalog, &ledger.snapshot()?)).await
    }

    /// Runs `read` on the blocking pool, with the others in its turn.
    async fn blocking<T, F>(&self, read: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Catalog) -> Result<T, Problem> + Send + 'static,
    {
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| {
            self.door.busy.fetch_add(1, Ordering::Relaxed);
            Problem::busy()
        })?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| Problem::busy())?;
        let catalog = self.catalog.borrow().clone();
        let task = tokio::task::spawn_blocking(move || {
            let answer = read(&catalog);
            drop((running, waiting));
            answer
        });
        task.await.map_err(|error| Problem::internal(&error))?
    }
}

impl Api {
    /// Runs `read` on the books as they are now, on the blocking pool.
    async fn read_books<T, F>(&self, read: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Catalog, &dyn Books) -> Result<T, Problem> + Send + 'static,
    {
        let ledger = self.ledger.clone();
        self.blocking(move |catalog| read(catalog, &*ledger.books()?)).await
    }
}

async fn ready(State(api): State<Api>) -> Response {
    match api.read(|_, _| Ok(())).await {
        Ok(()) => "ready\n".into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here")
        .detail(format!("no resource has the path {}", uri.path()))
        .remedy(
            "use /v1/customers/{id}/usage, /v1/customers/{id}/bill, /v1/streams or /v1/suspense; /openapi.json describes all",
        )
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed")
        .detail("the resource is not asked so")
        .remedy("use GET to read, and POST where deploy/docs/api.md says so")
}
