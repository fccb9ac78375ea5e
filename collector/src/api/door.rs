//! The HTTP API's connections.
//!
//! **Owns** how many there are, how long one may take to ask and to read its answer, and how long a head may
//! be. **Does not own** requests (`api.rs`). No resource reads a body: what follows a head is thrown away.
//!
//! Limits: [`DoorLimits`]. Connections beyond wait in the kernel's queue; those of an address that holds its
//! share are closed, so that one alone keeps nobody out.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::patient::Patient;
use crate::listen::{Holders, one_address};

/// After an accept failed for want of memory or descriptors, the next is tried after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    pub connections_max: u32,
    /// Of all these, at most so many for one address.
    pub connections_per_address_max: u32,
    /// Time for a request's head; also how long a connection may be idle between two requests.
    pub head_read_max: Duration,
    /// Bytes of a request's head, and lines of it.
    pub head_bytes_max: usize,
    pub head_lines_max: usize,
    /// Time in which a client must read an answer, once it lets it wait.
    pub send_max: Duration,
}

/// What the door counts since it was opened.
#[derive(Debug, Default)]
pub struct DoorCounters {
    pub(super) open: AtomicU64,
    /// Connections closed because their address had `connections_per_address_max`.
    pub(super) crowded: AtomicU64,
    /// Connections that were too slow to ask or to read.
    pub(super) slow: AtomicU64,
    /// Requests whose head is none, or too long.
    pub(super) unreadable: AtomicU64,
    pub(super) logins_failed: AtomicU64,
    pub(super) logins_limited: AtomicU64,
    /// Requests that were told to come again.
    pub(super) busy: AtomicU64,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            connections_per_address_max: 256,
            head_read_max: Duration::from_secs(10),
            head_bytes_max: 64 << 10,
            head_lines_max: 64,
            send_max: Duration::from_secs(60),
        }
    }
}

/// Serves `router` until `stopping` says so (or is dropped) and every connection has answered.
///
/// # Errors
/// If the listener cannot be used any more.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: DoorLimits,
    counters: Arc<DoorCounters>,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let room = usize::try_from(limits.connections_max).unwrap_or(Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(room));
    let addresses = Arc::new(Holders::new(limits.connections_per_address_max));
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            io::Result::Ok((permit, listener.accept().await))
        };
        let (permit, accepted) = tokio::select! {
            () = stopped(&mut stopping) => break,
            accepted = accepted => accepted?,
        };
        match accepted {
            Ok((stream, peer)) => {
                let answering =
                    answer(stream, Peer(peer.ip()), router.clone(), limits, stopping.clone());
                let (counters, addresses) = (Arc::clone(&counters), Arc::clone(&addresses));
                tokio::spawn(async move {
                    let Some(_place) = addresses.enter(one_address(peer.ip())) else {
                        counters.crowded.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    counters.open.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = answering.await {
                        counters.count_end(&error);
                    }
                    counters.open.fetch_sub(1, Ordering::Relaxed);
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the HTTP API could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(room.acquire_many(limits.connections_max).await.map_err(io::Error::other)?);
    Ok(())
}

/// Resolves once the server is to stop; a closed channel says so too.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Answers one connection's requests.
async fn answer(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: DoorLimits,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request| {
        Request::extensions_mut(&mut request).insert(peer);
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read_max)
        .max_buf_size(limits.head_bytes_max)
        .max_headers(limits.head_lines_max)
        .serve_connection(TokioIo::new(Patient::new(stream, limits.send_max)), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

impl DoorCounters {
    fn count_end(&self, error: &hyper::Error) {
        let stalled = || {
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            source.is_some_and(|source| source.kind() == io::ErrorKind::TimedOut)
        };
        if error.is_timeout() || stalled() {
            self.slow.fetch_add(1, Ordering::Relaxed);
        } else if error.is_parse() {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        tracing::debug!(%error, "a connection to the HTTP API ended");
    }
}
