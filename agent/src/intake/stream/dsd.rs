//! One connection of the DogStatsD stream: frames of lines, never answered.
//!
//! The client is pushed back by not reading while [`OUTSTANDING_MAX`] submissions are on their way. A
//! frame that is too long or cut counts as one rejected event and ends the connection; the frames
//! before it are kept.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

use super::frames::{Frames, OversizeFrame};
use super::hearing::{Heard, Hearing};
use super::places::Place;
use super::{ConnectionError, Gathered, OUTSTANDING_MAX};
use crate::event::{Door, Parsed, RejectReason};
use crate::intake::passage::{Passage, raw};
use crate::intake::{Answered, IntakeClosed, Item, Submission};
use crate::parse::dogstatsd;

pub(super) async fn serve(
    stream: UnixStream,
    passage: Passage,
    place: &Place,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let (half, writer) = stream.into_split();
    let mut connection =
        Connection { passage, gathered: Gathered::default(), on_their_way: VecDeque::new() };
    let ended = connection.read(Hearing::new(&half, place, shutdown)).await;
    // Whatever ended the connection, what came before it is kept.
    connection.submit().await?;
    drop(writer);
    ended
}

struct Connection {
    passage: Passage,
    gathered: Gathered,
    on_their_way: VecDeque<oneshot::Receiver<Answered>>,
}

impl Connection {
    async fn read(&mut self, mut hearing: Hearing<'_>) -> Result<(), ConnectionError> {
        let mut frames = Frames::default();
        loop {
            match hearing.next(frames.buffer()).await? {
                Heard::Bytes(read) => self.passage.counts(Door::DsdStream).bytes.add_len(read),
                Heard::End => break,
                Heard::Unfinished | Heard::PlaceNeeded => {
                    self.passage.counts(Door::DsdStream).connections_timed_out.add(1);
                    break;
                }
                Heard::Shutdown => return Ok(()),
            }
            let whole = self.take(&mut frames).await?;
            hearing.took(whole, frames.is_unfinished());
        }
        let rest = frames.rest();
        if !rest.is_empty() {
            self.reject(RejectReason::Truncated, rest);
        }
        Ok(())
    }

    /// All whole frames that were read; how many there were.
    async fn take(&mut self, frames: &mut Frames) -> Result<usize, ConnectionError> {
        let mut whole = 0_usize;
        loop {
            match frames.next() {
                Ok(Some(payload)) => {
                    whole = whole.saturating_add(1);
                    self.passage.counts(Door::DsdStream).messages.add(1);
                    self.payload(payload).await?;
                }
                Ok(None) => break,
                Err(OversizeFrame { bytes }) => {
                    self.reject(RejectReason::Oversize, frames.rest());
                    return Err(ConnectionError::OversizeFrame { bytes });
                }
            }
        }
        self.submit().await?;
        Ok(whole)
    }

    async fn payload(&mut self, payload: &[u8]) -> Result<(), IntakeClosed> {
        for line in dogstatsd::lines(payload) {
            let parsed = dogstatsd::message(line, &self.passage.naming);
            self.gathered.push(Item { parsed, raw: Bytes::copy_from_slice(raw(line)) }, line.len());
            if self.gathered.is_full() {
                self.submit().await?;
            }
        }
        Ok(())
    }

    fn reject(&mut self, reason: RejectReason, input: &[u8]) {
        let item =
            Item { parsed: Parsed::Rejected(reason), raw: Bytes::copy_from_slice(raw(input)) };
        let bytes = item.raw.len();
        self.gathered.push(item, bytes);
    }

    /// Hands over what was gathered, once few enough submissions are on their way.
    async fn submit(&mut self) -> Result<(), IntakeClosed> {
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.items.is_empty() {
            return Ok(());
        }
        if self.on_their_way.len() >= OUTSTANDING_MAX
            && let Some(oldest) = self.on_their_way.pop_front()
        {
            oldest.await.map_err(|_| IntakeClosed)?;
        }
        let reservation = self.passage.reserve(gathered.bytes).await;
        let submission = Submission { door: Door::DsdStream, rules: None, items: gathered.items };
        self.on_their_way.push_back(self.passage.submit(submission, reservation).await?);
        Ok(())
    }
}
