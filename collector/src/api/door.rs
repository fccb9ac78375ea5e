//! The HTTP API's connections.
//!
//! **Owns** how many there are and how long one may take to ask. **Does not own** requests (`api.rs`).
//!
//! Limits: [`DoorLimits`]. Connections beyond wait in the kernel's queue.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// After an accept failed for want of memory or descriptors, the next is tried after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    pub connections_max: u32,
    /// Time for a request's head; also how long a connection may be idle between two requests.
    pub head_read_max: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self { connections_max: 1_024, head_read_max: Duration::from_secs(10) }
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
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let room = usize::try_from(limits.connections_max).unwrap_or(Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(room));
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
            Ok((stream, _)) => {
                let answering = answer(stream, router.clone(), limits, stopping.clone());
                tokio::spawn(async move {
                    answering.await;
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
    router: Router,
    limits: DoorLimits,
    mut stopping: watch::Receiver<bool>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read_max)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the HTTP API ended");
    }
}
