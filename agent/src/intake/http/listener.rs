//! Connections of the HTTP door: how many, and for how long.
//!
//! The server underneath sets no limits of its own, so they are here, on the bytes: a connection on
//! which nothing moves for [`IDLE_MAX`] is closed, and so is one whose request is not answered
//! [`REQUEST_MAX`] after its first byte, however it trickles in.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::event::Door;
use crate::intake::passage::Passage;

/// The HTTP door serves at most this many connections at once.
pub const CONNECTIONS_MAX: usize = 128;
/// Nothing moved on a connection for this long: it is closed. Longer than clients keep one alive, and
/// than any answer takes.
pub const IDLE_MAX: Duration = Duration::from_secs(75);
/// From a request's first byte to its answer.
pub const REQUEST_MAX: Duration = Duration::from_secs(120);

/// How long a failed accept lets the cause pass (too many open files, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, and closes those that are too many.
#[derive(Debug)]
pub(super) struct DoorListener {
    pub(super) listener: TcpListener,
    pub(super) passage: Passage,
    pub(super) connections: Arc<Semaphore>,
}

impl Listener for DoorListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let counts = self.passage.counts(Door::Http);
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                        counts.connections_refused.add(1);
                        continue;
                    };
                    // Answers are small and awaited; a socket that is broken already says so when read.
                    let _broken = stream.set_nodelay(true);
                    return (Connection::new(stream, self.passage.clone(), permit), address);
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    counts.errors.add(1);
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
pub(super) struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    /// When the request that is not answered yet began.
    request: Option<Instant>,
    passage: Passage,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, passage: Passage, permit: OwnedSemaphorePermit) -> Self {
        let counts = passage.counts(Door::Http);
        counts.connections_accepted.add(1);
        counts.connections_open.add(1);
        let deadline = Box::pin(tokio::time::sleep(IDLE_MAX));
        Self { stream, deadline, request: None, passage, _permit: permit }
    }

    fn moved(&mut self) {
        let now = Instant::now();
        let idle = later(now, IDLE_MAX);
        let deadline = self.request.map_or(idle, |began| idle.min(later(began, REQUEST_MAX)));
        self.deadline.as_mut().reset(deadline);
    }

    /// Called when nothing moves now.
    fn stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.deadline.as_mut().poll(cx));
        self.passage.counts(Door::Http).connections_timed_out.add(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.passage.counts(Door::Http).connections_open.subtract(1);
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
