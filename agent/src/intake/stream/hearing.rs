//! What a connection hears next: bytes, its end, or that its time is over.
//!
//! A line or frame that has begun must end within [`UNFINISHED_MAX`]: a client that stops in the middle, or
//! trickles, would hold its buffer for ever. A client with nothing unfinished may be silent.

use std::io;
use std::time::Duration;

use tokio::net::unix::OwnedReadHalf;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::places::Place;
use super::{fill, fired};

/// From the first byte of a line or frame to its last.
pub const UNFINISHED_MAX: Duration = Duration::from_secs(30);

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Bytes(usize),
    /// The client sends no more.
    End,
    /// What it began took too long.
    Unfinished,
    /// Its place is needed, and it has been silent for long.
    PlaceNeeded,
    Shutdown,
}

/// One connection's ear.
#[derive(Debug)]
pub(super) struct Hearing<'a> {
    half: &'a OwnedReadHalf,
    place: &'a Place,
    shutdown: watch::Receiver<bool>,
    /// When the line or frame began that is not whole yet.
    unfinished: Option<Instant>,
}

impl<'a> Hearing<'a> {
    pub(super) fn new(
        half: &'a OwnedReadHalf,
        place: &'a Place,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self { half, place, shutdown, unfinished: None }
    }

    /// Waits, and appends what comes to `buffer`.
    pub(super) async fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Heard> {
        self.place.waits();
        let unfinished = self.unfinished;
        let heard = tokio::select! {
            // What is there is read first: nobody is cut off for a wait of the agent's own.
            biased;
            read = fill(self.half, buffer) => match read? {
                0 => Heard::End,
                bytes => Heard::Bytes(bytes),
            },
            () = fired(&mut self.shutdown) => Heard::Shutdown,
            () = over(unfinished) => Heard::Unfinished,
            () = self.place.must_leave() => Heard::PlaceNeeded,
        };
        self.place.is_busy();
        Ok(heard)
    }

    /// Takes note of what became of the bytes: whether anything became whole, and whether something is left.
    pub(super) fn took(&mut self, whole: usize, unfinished: bool) {
        let began = if whole > 0 { None } else { self.unfinished };
        self.unfinished = unfinished.then(|| began.unwrap_or_else(Instant::now));
    }
}

async fn over(unfinished: Option<Instant>) {
    match unfinished.and_then(|began| began.checked_add(UNFINISHED_MAX)) {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
