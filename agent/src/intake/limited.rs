//! Connections of HTTP servers, those of the HTTP door and of the admin address: how many, and for how long.
//!
//! The server underneath sets no limits of its own, so they are here, on the bytes: a connection on
//! which nothing moves for [`Limits::idle_max`] is closed, and so is one whose request is not answered
//! [`Limits::request_max`] after its first byte, however it trickles in. An answer that is known to take long
//! has its connection wait for it ([`Patience`]).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::figures::DoorCounts;

/// How long a failed accept lets the cause pass (too many open files, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Nothing moved on a connection for this long: it is closed. Longer than clients keep one alive, and
    /// than any answer takes.
    pub(crate) idle_max: Duration,
    /// From a request's first byte to its answer.
    pub(crate) request_max: Duration,
}

/// Accepts connections, and closes those that are too many.
#[derive(Debug)]
pub(crate) struct LimitedListener {
    pub(crate) listener: TcpListener,
    pub(crate) counts: Arc<DoorCounts>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) limits: Limits,
}

/// Has a connection wait for the answer to its present request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patience(Arc<AtomicBool>);

impl Patience {
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Listener for LimitedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                        self.counts.connections_refused.add(1);
                        continue;
                    };
                    // Answers are small and awaited; a socket that is broken already says so when read.
                    let _broken = stream.set_nodelay(true);
                    let counts = Arc::clone(&self.counts);
                    return (Connection::new(stream, counts, permit, self.limits), address);
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    self.counts.errors.add(1);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One open connection, and its place among those that are allowed.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    /// When the request that is not answered yet began.
    request: Option<Instant>,
    counts: Arc<DoorCounts>,
    limits: Limits,
    patience: Patience,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(
        stream: TcpStream,
        counts: Arc<DoorCounts>,
        permit: OwnedSemaphorePermit,
        limits: Limits,
    ) -> Self {
        counts.connections_accepted.add(1);
        counts.connections_open.add(1);
        let deadline = Box::pin(tokio::time::sleep(limits.idle_max));
        let patience = Patience::default();
        Self { stream, deadline, request: None, counts, limits, patience, _permit: permit }
    }

    pub(crate) fn patience(&self) -> Patience {
        self.patience.clone()
    }

    fn moved(&mut self) {
        let now = Instant::now();
        let Limits { idle_max, request_max } = self.limits;
        let idle = later(now, idle_max);
        let deadline = self.request.map_or(idle, |began| idle.min(later(began, request_max)));
        self.deadline.as_mut().reset(deadline);
    }

    /// Called when nothing moves now.
    fn stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.deadline.as_mut().poll(cx));
        while self.patience.is_asked_for() {
            self.deadline.as_mut().reset(later(Instant::now(), self.limits.idle_max));
            ready!(self.deadline.as_mut().poll(cx));
        }
        self.counts.connections_timed_out.add(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counts.connections_open.subtract(1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.request.get_or_insert_with(Instant::now);
                self.moved();
                Poll::Ready(read)
            }
            Poll::Pending => self.stalled(cx),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Ready(written) => {
                self.request = None;
                self.patience.end();
                self.moved();
                Poll::Ready(written)
            }
            Poll::Pending => self.stalled(cx),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn later(from: Instant, after: Duration) -> Instant {
    from.checked_add(after).expect("a few minutes from now are within the clock's range")
}
