//! One collector from start to clean end: opens the ledger, listens, serves, and stops in order.
//!
//! **Owns** the order of starting and stopping, and reading the catalogue again. **Does not own** what
//! the parts do.
//!
//! Stopping: no new sessions and requests, then the running ones end within the grace, then the ledger
//! takes what waits and checkpoints. Agents keep what was not acknowledged, so nothing is lost by it.

mod rules;
mod schedule;
mod sweeps;

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tidemark_common::supervisor;
use tidemark_common::tls::{Pem, ServerTls, TlsError};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Interval;

use crate::adopt::{self, AdoptError, AdoptRequest, Adopted, AskedChange, CatalogSource, Judged};
use crate::api::{self, DoorCounters, DoorLimits};
use crate::archive::ArchiveError;
use crate::archive::events::{EVENTS_FILE, RawEvents};
use crate::archive::task::{Archiving, Place};
use crate::backup::last::BackupNote;
use crate::billing_run::Settings;
use crate::catalog::{Aggregations, Catalog};
use crate::certificate::anchor;
use crate::config::{Config, ConfigError, Schedule, SessionLimits};
use crate::control;
use crate::ledger::redb::{RedbOptions, RedbStore};
use crate::ledger::{Ledger, LedgerError, LedgerOptions};
use crate::listen::{Credentials, ListenError, ListenOptions, Listener};
use crate::reconcile::Sweeps;

/// Failed to run the collector.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}; for local use, `tidemark-collector dev-certs DIR` makes certificates")]
    Tls(#[from] TlsError),
    #[error("failed to make the folder {}: {source}; make it, or set `data_dir`", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("failed to open the ledger in {}: {source}", path.display())]
    Open { path: PathBuf, source: LedgerError },
    #[error(
        "failed to open the ledger: there is none in {}, and the archive in {archive} holds one: run `tidemark-collector restore-from-archive`, or set another `archive.folder` or `archive.url` to begin a new one", path.display()
    )]
    Lost { path: PathBuf, archive: String },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("failed to keep the version of the rules in {}: {source}; is the disk full?", path.display())]
    Rules { path: PathBuf, source: io::Error },
    #[error("{0}; stop what holds the port, or set `listen.quic` and `listen.tcp`")]
    Listen(#[from] ListenError),
    #[error(
        "failed to listen on {address} for the HTTP API: {source}; stop what holds the port, or set `listen.http`"
    )]
    Http { address: SocketAddr, source: io::Error },
    #[error("failed to read the catalogue: {0}")]
    Catalog(String),
    #[error("failed to serve the HTTP API: {0}")]
    Serve(io::Error),
    #[error("failed to keep the ledger: {0}; restart the collector to reopen and verify it")]
    Ledger(LedgerError),
}

/// What a person asks of the running collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Read the catalogue again.
    Reload,
    /// End.
    Stop,
}

/// Where a collector that has started listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub quic: SocketAddr,
    /// Absent where TCP is off.
    pub tcp: Option<SocketAddr>,
    pub http: SocketAddr,
}

/// Everything that runs.
struct Collector {
    config: Config,
    ledger: Ledger,
    listener: Listener,
    catalogs: watch::Sender<Arc<Catalog>>,
    /// What each meter has had since the start, those too that a later catalogue left out.
    aggregations: Aggregations,
    serving: JoinHandle<io::Result<()>>,
    /// Answers on the control socket, where there is one.
    control: Option<JoinHandle<()>>,
    /// Wishes for another catalogue.
    adoptions: mpsc::Receiver<AdoptRequest>,
    /// Writes the archive, where there is one.
    archiving: Option<Archiving>,
    /// Bills, reconciles and anchors certificates, where it is asked to.
    by_itself: Vec<JoinHandle<()>>,
    /// Reads certificates again.
    renewing: JoinHandle<()>,
    renew: mpsc::Sender<()>,
    stop: watch::Sender<bool>,
}

/// Runs a collector until it is told to stop. `started` is called once both doors are open.
///
/// # Errors
/// Whatever keeps it from starting, or ends it: see [`RunError`].
pub async fn run(
    config: Config,
    mut signals: mpsc::Receiver<Signal>,
    started: impl FnOnce(Addresses),
) -> Result<(), RunError> {
    let (mut collector, addresses) = Collector::start(config).await?;
    let Addresses { quic, tcp, http } = addresses;
    tracing::info!(%quic, tcp = tcp.map(tracing::field::display), %http, "listening");
    started(addresses);
    supervisor::ready("listening");
    let mut at_work = supervisor::at_work_every().map(tokio::time::interval);
    let ended = loop {
        tokio::select! {
            () = due(&mut at_work) => supervisor::at_work(),
            signal = signals.recv() => match signal {
                Some(Signal::Reload) => collector.reload().await,
                Some(Signal::Stop) | None => break Ok(()),
            },
            Some(AdoptRequest { asked, reply }) = collector.adoptions.recv() => {
                // Whoever has gone needs no answer.
                let _heard = reply.send(collector.adopt(&asked).await).is_ok();
            }
            error = collector.ledger.failed() => break Err(RunError::Ledger(error)),
            served = &mut collector.serving => break Err(RunError::Serve(flatten(served))),
        }
    };
    supervisor::stopping();
    let stopped = collector.stop().await;
    ended.and(stopped)
}

async fn due(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

impl Collector {
    async fn start(config: Config) -> Result<(Self, Addresses), RunError> {
        let pem = config.load_pem()?;
        let credentials = Credentials::new(&pem)?;
        let in_use = |source| RunError::Http { address: config.listen.http, source };
        let door = TcpListener::bind(config.listen.http).await.map_err(in_use)?;
        let http = door.local_addr().map_err(in_use)?;
        let (ledger, store) = open(&config).await?;
        let place = Place { index_in: index_of_events(&config), ..config.archive.place()? };
        let archiving = Archiving::begin(place, &ledger, &store).await;
        let raw_events = archiving.as_ref().and_then(|archiving| archiving.raw_events().cloned());
        let catalog = load_catalog(&config, &ledger).await?;
        let rules = rules::adopt(&config.data_dir, catalog.rules_content(), ledger.now())
            .map_err(|source| RunError::Rules { path: config.data_dir.clone(), source })?;
        let mut options = listen_options(&config, raw_events.as_ref());
        options.grants = Arc::clone(&catalog.grants);
        let listener = Listener::start(options, credentials, ledger.clone(), Arc::new(rules))?;
        let addresses = Addresses { quic: listener.address(), tcp: listener.tcp_address(), http };

        let aggregations = catalog.aggregations();
        let (catalogs, watched) = watch::channel(Arc::new(catalog));
        warn_without_tokens(&config);
        let sessions = Arc::new(listener.figures_reader());
        let counters = Arc::new(DoorCounters::default());
        let tokens = config.tokens.clone();
        let (adoptions, asked_for) = mpsc::channel(1);
        let (settings, sweeps) = (config.billing_settings(), Arc::new(Sweeps::default()));
        let changes = || api::Changes {
            adoptions: adoptions.clone(),
            billing: settings.clone(),
            sweeps: Arc::clone(&sweeps),
            raw_events: raw_events.clone(),
            backups: BackupNote::of(&config.data_dir),
        };
        let router = api::router(
            ledger.clone(),
            watched,
            sessions,
            tokens,
            Arc::clone(&counters),
            changes(),
        );
        let (stop, stopping) = watch::channel(false);
        let serving = tokio::spawn(api::serve(
            door,
            router,
            DoorLimits::default(),
            counters,
            stopping.clone(),
        ));
        let served = control::Served::new(store, ledger.clone(), catalogs.subscribe(), changes());
        let control = open_control(&config.data_dir, served, stopping);
        let (renew, asked) = mpsc::channel(1);
        let renewing = tokio::spawn(renew_pem(config.clone(), pem, listener.renewer(), asked));
        let by_itself = begin_by_itself(&config, &ledger, &catalogs, &settings, &sweeps);
        let started = Self {
            config,
            ledger,
            listener,
            catalogs,
            aggregations,
            serving,
            control,
            adoptions: asked_for,
            archiving,
            by_itself,
            renewing,
            renew,
            stop,
        };
        Ok((started, addresses))
    }

    /// Takes the catalogue file and the certificates as they are now. A catalogue that cannot be used, or cannot follow the
    /// one before, leaves that in place.
    async fn reload(&mut self) {
        // One that is under way may have read the former files: one more is enough.
        let _under_way = self.renew.try_send(()).is_err();
        if self.config.catalog_source == CatalogSource::Ledger {
            return tracing::info!("the catalogue is in the ledger: its file is not read");
        }
        let text = match self.config.read_catalog() {
            Ok(text) => text,
            Err(error) => {
                return tracing::warn!(%error, "the catalogue cannot be read; the one before stays");
            }
        };
        let actor = "the catalogue file".to_owned();
        let asked = AskedChange { text, dry_run: false, actor, reason: None };
        let file = self.config.catalog.display().to_string();
        if let Err(error) = self.take(&asked, &file).await {
            tracing::warn!(%error, "the catalogue is not taken; the one before stays");
        }
    }

    /// Another catalogue, where it is in the ledger.
    async fn adopt(&mut self, asked: &AskedChange) -> Result<Adopted, AdoptError> {
        match self.config.catalog_source {
            CatalogSource::File => Err(AdoptError::FileManaged),
            CatalogSource::Ledger => self.take(asked, "catalog").await,
        }
    }

    /// Judges a catalogue, books it, and takes it into use.
    async fn take(&mut self, asked: &AskedChange, file: &str) -> Result<Adopted, AdoptError> {
        let (ledger, had) = (self.ledger.clone(), self.aggregations.clone());
        let (text, file) = (asked.text.clone(), file.to_owned());
        let current = self.catalogs.borrow().clone();
        let judged = tokio::task::spawn_blocking(move || {
            adopt::judge(&text, &file, Some(&current), &had, &*ledger.books()?)
        });
        let Judged { catalog, changes } = judged.await.map_err(|_| LedgerError::Stopped)??;
        let told = changes.iter().map(|change| change.told()).collect();
        if asked.dry_run {
            return Ok(Adopted { entry: None, changes: told });
        }
        let source = self.config.catalog_source;
        let entry = if changes.is_empty() && source == CatalogSource::File {
            None
        } else {
            adopt::book(&self.ledger, asked, source, &changes).await?
        };
        match rules::adopt(&self.config.data_dir, catalog.rules_content(), self.ledger.now()) {
            Ok(rules) => self.listener.set_rules(Arc::new(rules)),
            Err(error) => {
                tracing::error!(%error, "the rules' version cannot be kept; agents keep the ones before");
            }
        }
        self.listener.set_grants(Arc::clone(&catalog.grants));
        tracing::info!(
            meters = catalog.meters.len(),
            identities = catalog.grants.identities.len(),
            customers = catalog.customers.len(),
            "read the catalogue"
        );
        self.aggregations.extend(catalog.aggregations());
        self.catalogs.send_replace(Arc::new(catalog));
        Ok(Adopted { entry, changes: told })
    }

    async fn stop(self) -> Result<(), RunError> {
        tracing::info!("stopping");
        self.renewing.abort();
        self.by_itself.iter().for_each(JoinHandle::abort);
        self.stop.send_replace(true);
        let grace = Duration::from_millis(self.config.shutdown_grace_millis);
        let abort = self.serving.abort_handle();
        let doors = async {
            self.listener.shutdown().await;
            // Where the server ended first, its end was told already.
            if !self.serving.is_finished() {
                let _told = self.serving.await.is_ok();
            }
            if let Some(control) = self.control {
                let _ended = control.await.is_ok();
            }
        };
        if tokio::time::timeout(grace, doors).await.is_err() {
            tracing::warn!("some sessions or requests did not end within the grace");
            abort.abort();
        }
        if let Some(archiving) = self.archiving {
            archiving.end(grace).await;
        }
        self.ledger.shutdown().await.map_err(RunError::Ledger)?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn warn_without_tokens(config: &Config) {
    if config.tokens.is_empty() {
        tracing::warn!(
            "no API token is configured, so /v1 answers 401 to everybody; add [[api.token]]"
        );
    }
}

/// Where the index of raw events is kept: while they are taken, and as long as there are some.
fn index_of_events(config: &Config) -> Option<PathBuf> {
    let is_kept = config.archive.raw_events_rate > 0 || config.data_dir.join(EVENTS_FILE).exists();
    is_kept.then(|| config.data_dir.clone())
}

/// Begins what a collector does without being asked each time.
fn begin_by_itself(
    config: &Config,
    ledger: &Ledger,
    catalogs: &watch::Sender<Arc<Catalog>>,
    settings: &Settings,
    sweeps: &Arc<Sweeps>,
) -> Vec<JoinHandle<()>> {
    let mut begun = Vec::new();
    if config.billing.schedule == Schedule::On {
        let (ledger, catalogs) = (ledger.clone(), catalogs.subscribe());
        begun.push(tokio::spawn(schedule::run(ledger, catalogs, settings.clone())));
    }
    if let Some(millis) = config.reconcile.every_millis {
        let (every, settings) = (Duration::from_millis(millis), settings.reconcile.clone());
        let (ledger, catalogs) = (ledger.clone(), catalogs.subscribe());
        let sweeping = sweeps::run(ledger, catalogs, settings, every, Arc::clone(sweeps));
        begun.push(tokio::spawn(sweeping));
    }
    begun.extend(anchor::begin(ledger, &config.anchors, &config.data_dir));
    begun
}

/// Opens the control socket. Without it the collector runs as well; it cannot be copied while it does.
fn open_control(
    data_dir: &Path,
    served: control::Served,
    stopping: watch::Receiver<bool>,
) -> Option<JoinHandle<()>> {
    match control::open(data_dir) {
        Ok(listener) => {
            let data_dir = data_dir.to_owned();
            Some(tokio::spawn(async move {
                control::serve(listener, &data_dir, served, stopping).await;
            }))
        }
        Err(error) => {
            let socket = control::SOCKET;
            tracing::warn!(%error, socket, "no control socket: no backup and no `bill` while the collector runs");
            None
        }
    }
}

/// Reads the certificates again now and then, and when asked to; what is new counts for each connection
/// that begins after it. Without a restart, and no session ends by it.
async fn renew_pem(
    config: Config,
    mut held: Pem,
    renew: impl Fn(ServerTls) + Send + 'static,
    mut asked: mpsc::Receiver<()>,
) {
    let interval = Duration::from_millis(config.tls.renew_interval_millis);
    loop {
        if let Ok(None) = tokio::time::timeout(interval, asked.recv()).await {
            return;
        }
        let read = config.load_pem().map_err(RunError::from).and_then(|pem| {
            let tls = if pem == held { None } else { Some(ServerTls::new(&pem)?) };
            Ok((pem, tls))
        });
        match read {
            Ok((_, None)) => {}
            Ok((pem, Some(tls))) => {
                let certificate = tls.shown().map(tracing::field::display);
                tracing::info!(certificate, "certificates were read again");
                renew(tls);
                held = pem;
            }
            // Files that are just being replaced may not fit together.
            Err(error) => {
                tracing::warn!(%error, "certificates could not be read again; the former ones are used")
            }
        }
    }
}

/// The catalogue to begin with: the file's, or the ledger's; a ledger without one takes the file's.
async fn load_catalog(config: &Config, ledger: &Ledger) -> Result<Catalog, RunError> {
    if config.catalog_source == CatalogSource::File {
        let catalog = config.load_catalog()?;
        let (reading, checked) = (ledger.clone(), catalog.clone());
        let edited = tokio::task::spawn_blocking(move || {
            Ok::<_, LedgerError>(adopt::edited(&checked, &*reading.books()?)?)
        });
        for what in edited.await.unwrap_or(Err(LedgerError::Stopped)).map_err(RunError::Ledger)? {
            tracing::error!("nobody is billed by this catalogue: {what}");
        }
        return Ok(catalog);
    }
    let reading = ledger.clone();
    let stored = tokio::task::spawn_blocking(move || {
        Ok::<_, LedgerError>(adopt::stored(&*reading.books()?)?)
    });
    let stored = stored.await.unwrap_or(Err(LedgerError::Stopped)).map_err(RunError::Ledger)?;
    if let Some(text) = stored {
        let read = Catalog::parse(&text, "catalogue in the ledger");
        return read.map_err(|problems| RunError::Config(ConfigError::Problems(problems)));
    }
    let (text, catalog) = (config.read_catalog()?, config.load_catalog()?);
    let actor = "the catalogue file".to_owned();
    let asked = AskedChange { text, dry_run: false, actor, reason: None };
    let changes = crate::catalog::write::changes(None, &catalog);
    let booked = adopt::book(ledger, &asked, CatalogSource::Ledger, &changes).await;
    booked.map_err(|error| RunError::Catalog(error.to_string()))?;
    Ok(catalog)
}

async fn open(config: &Config) -> Result<(Ledger, RedbStore), RunError> {
    let path = &config.data_dir;
    // Names and usage of customers: for the owner only.
    let folder = DirBuilder::new().recursive(true).mode(0o700).create(path);
    folder.map_err(|source| RunError::DataDir { path: path.clone(), source })?;
    let (place, data_dir) = (config.archive.place()?, path.clone());
    let bodies = place.bodies();
    let holding = tokio::task::spawn_blocking(move || place.holding_the_lost_one(&data_dir));
    if let Some(archive) = holding.await.map_err(|_| RunError::Ledger(LedgerError::Stopped))?? {
        return Err(RunError::Lost { path: path.clone(), archive });
    }
    let mut options = ledger_options(config);
    options.redb.bodies = bodies;
    let (ledger, store) = Ledger::open_embedded(path, options)
        .await
        .map_err(|source| RunError::Open { path: path.clone(), source })?;
    tracing::info!(ledger = %ledger.ledger(), data_dir = %path.display(), "opened the ledger");
    if let Some(signer) = ledger.signer()
        && let Err(error) = signer.ensure(&ledger, "collector").await
    {
        tracing::error!(%error, "no certificate can be signed, and no invoice issued");
    }
    Ok((ledger, store))
}

fn ledger_options(config: &Config) -> LedgerOptions {
    let limits = &config.ledger;
    LedgerOptions {
        redb: RedbOptions {
            ledger_cache_bytes: size(limits.ledger_cache_bytes),
            totals_cache_bytes: size(limits.totals_cache_bytes),
            streams_max: size(limits.streams_max.into()),
            streams_per_hour_max: limits.streams_per_hour_max,
            ..RedbOptions::default()
        },
        requests_max: size(limits.requests_max.into()),
        group_bytes_max: size(limits.group_bytes_max),
        fold_lines_max: limits.fold_lines_max.into(),
        fold_age_millis: limits.fold_age_millis,
        tail_bytes_max: limits.tail_bytes_max,
        silent_after_millis: i64::try_from(limits.silent_after_millis).unwrap_or(i64::MAX),
        retire_after_millis: i64::try_from(config.streams.retire_after_millis).unwrap_or(i64::MAX),
        trust_clock: config.trust_clock,
        test_clock: config.test_clock,
        keys: Some(config.data_dir.clone()),
    }
}

fn listen_options(config: &Config, raw_events: Option<&RawEvents>) -> ListenOptions {
    let raw_events = raw_events.map(|events| Arc::clone(&events.desk));
    let raw_events_rate = config.archive.raw_events_rate;
    let SessionLimits {
        sessions_max,
        handshakes_max,
        sessions_per_identity_max,
        handshakes_per_address_max,
        age_max_millis,
        confirm_interval_millis,
        batches_in_flight_max,
        batch_bytes_in_flight_max,
        bodies_opened_max,
        handshake_max_millis,
        send_max_millis,
        keep_alive_millis,
        idle_max_millis,
        receive_window_bytes,
    } = config.session;
    ListenOptions {
        raw_events: raw_events.map(|desk| (desk, raw_events_rate)).filter(|(_, rate)| *rate > 0),
        address: config.listen.quic,
        tcp: config.listen.tcp,
        sessions_max: size(sessions_max.into()),
        handshakes_max: size(handshakes_max.into()),
        sessions_per_identity_max,
        handshakes_per_address_max,
        session_age_max: Duration::from_millis(age_max_millis),
        confirm_interval: Duration::from_millis(confirm_interval_millis),
        batches_in_flight_max,
        batch_bytes_in_flight_max,
        bodies_opened_max: size(bodies_opened_max.into()),
        handshake_max: Duration::from_millis(handshake_max_millis),
        send_max: Duration::from_millis(send_max_millis),
        keep_alive: Duration::from_millis(keep_alive_millis),
        idle_max: Duration::from_millis(idle_max_millis),
        receive_window_bytes,
        ..ListenOptions::default()
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn flatten(served: Result<io::Result<()>, JoinError>) -> io::Error {
    match served {
        Ok(Ok(())) => io::Error::other("the server ended by itself"),
        Ok(Err(error)) => error,
        Err(panic) => io::Error::other(panic),
    }
}
