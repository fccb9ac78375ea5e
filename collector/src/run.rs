//! One collector from start to clean end: opens the ledger, listens, serves, and stops in order.
//!
//! **Owns** the order of starting and stopping, and reading the catalogue again. **Does not own** what
//! the parts do.
//!
//! Stopping: no new sessions and requests, then the running ones end within the grace, then the ledger
//! takes what waits and checkpoints. Agents keep what was not acknowledged, so nothing here may hurry.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;

use crate::api;
use crate::catalog::Catalog;
use crate::config::{Config, ConfigError, LedgerLimits};
use crate::ledger::redb::RedbOptions;
use crate::ledger::{Ledger, LedgerError, LedgerOptions};

/// Failed to run the collector.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("failed to make the folder {}: {source}; make it, or set `data_dir`", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("failed to open the ledger in {}: {source}", path.display())]
    Open { path: PathBuf, source: LedgerError },
    #[error(
        "failed to listen on {address} for the HTTP API: {source}; stop what holds the port, or set `listen.http`"
    )]
    Http { address: SocketAddr, source: io::Error },
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

/// Runs a collector until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting, or ends it: see [`RunError`].
pub async fn run(config: Config, signals: mpsc::Receiver<Signal>) -> Result<(), RunError> {
    let pem = config.load_pem()?;
    let catalog = config.load_catalog()?;
    let http = TcpListener::bind(config.listen.http)
        .await
        .map_err(|source| RunError::Http { address: config.listen.http, source })?;
    let ledger = open(&config).await?;
    let (catalogs, watched) = watch::channel(Arc::new(catalog));
    if config.tokens.is_empty() {
        tracing::warn!(
            "no API token is configured, so /v1 answers 401 to everybody; add [[api.token]]"
        );
    }
    let (stop, stopping) = watch::channel(false);
    let router = api::router(ledger.clone(), watched, config.tokens.clone());
    let mut serving = tokio::spawn(serve_http(http, router, stopping));

    let ended = tokio::select! {
        () = obey(&config, &catalogs, signals) => Ok(()),
        error = ledger.failed() => Err(RunError::Ledger(error)),
        served = &mut serving => return Err(RunError::Serve(flatten(served))),
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    let grace = Duration::from_millis(config.shutdown_grace_millis);
    if tokio::time::timeout(grace, &mut serving).await.is_err() {
        serving.abort();
    }
    ended?;
    ledger.shutdown().await.map_err(RunError::Ledger)?;
    tracing::info!("stopped");
    Ok(())
}

async fn open(config: &Config) -> Result<Ledger, RunError> {
    let path = &config.data_dir;
    fs::create_dir_all(path).map_err(|source| RunError::DataDir { path: path.clone(), source })?;
    let options = ledger_options(&config.ledger);
    let ledger = Ledger::open(path, options)
        .await
        .map_err(|source| RunError::Open { path: path.clone(), source })?;
    tracing::info!(ledger = %ledger.ledger(), data_dir = %path.display(), "opened the ledger");
    Ok(ledger)
}

fn ledger_options(limits: &LedgerLimits) -> LedgerOptions {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    LedgerOptions {
        redb: RedbOptions {
            ledger_cache_bytes: size(limits.ledger_cache_bytes),
            totals_cache_bytes: size(limits.totals_cache_bytes),
            streams_max: size(limits.streams_max.into()),
            ..RedbOptions::default()
        },
        requests_max: size(limits.requests_max.into()),
        group_bytes_max: size(limits.group_bytes_max),
        fold_lines_max: limits.fold_lines_max.into(),
        fold_age_millis: limits.fold_age_millis,
        tail_bytes_max: limits.tail_bytes_max,
        silent_after_millis: i64::try_from(limits.silent_after_millis).unwrap_or(i64::MAX),
    }
}

async fn serve_http(
    listener: TcpListener,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "listening for HTTP");
    let stopped = async move {
        // A closed channel stops too.
        let _stopped = stopping.wait_for(|stop| *stop).await.is_ok();
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
}

fn flatten(served: Result<io::Result<()>, JoinError>) -> io::Error {
    match served {
        Ok(Ok(())) => io::Error::other("the server ended by itself"),
        Ok(Err(error)) => error,
        Err(panic) => io::Error::other(panic),
    }
}

/// Returns when told to stop. A catalogue that cannot be read leaves the old one in place.
async fn obey(
    config: &Config,
    catalogs: &watch::Sender<Arc<Catalog>>,
    mut signals: mpsc::Receiver<Signal>,
) {
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Stop => return,
            Signal::Reload => match config.load_catalog() {
                Ok(catalog) => {
                    tracing::info!(
                        meters = catalog.meters.len(),
                        customers = catalog.customers.len(),
                        "read the catalogue"
                    );
                    catalogs.send_replace(Arc::new(catalog));
                }
                Err(error) => {
                    tracing::warn!(%error, "the catalogue cannot be used; the one before stays")
                }
            },
        }
    }
}
