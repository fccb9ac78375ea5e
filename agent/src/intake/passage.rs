//! The way from an acknowledged door into intake, with room for so many bytes at once.
//!
//! **Owns** the bound on what the stream connections together, and the HTTP requests together, have
//! read and intake has not yet made durable. **Does not own** connections, or what is answered.
//!
//! Whoever reserves first is served first, so no connection starves. A client that does not read its
//! answers keeps no room: what it waits for is released when it is durable, not when it is answered.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::figures::{DoorCounts, DoorFigures};
use super::{Answered, IntakeClosed, IntakeHandle, Submission};
use crate::event::Door;
use crate::parse::naming::Naming;

/// The stream doors together hold at most this many bytes of input that is not yet durable, parsed events
/// included, and the HTTP door as many of its bodies: slow ones keep room, and are not to stop the streams.
pub const PASSAGE_BYTES_MAX: u32 = 5 << 20;
/// Of the HTTP door's bodies, so many bytes at once become events, which take several times as much. One body may be
/// longer.
const PARSED_BYTES_MAX: u32 = 1 << 20;
/// A dead letter keeps at most this many bytes of an input, so no more are carried along.
pub const RAW_BYTES_MAX: usize = 4_096;

/// What every connection of an acknowledged door works with.
#[derive(Clone)]
pub struct Passage {
    pub(super) intake: IntakeHandle,
    pub(super) naming: Arc<Naming>,
    pub(super) figures: Arc<DoorFigures>,
    room: Arc<Semaphore>,
    parsed: Arc<Semaphore>,
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passage").field("room", &self.room).finish_non_exhaustive()
    }
}

/// Room for some bytes, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    _bytes: OwnedSemaphorePermit,
    _parsed: Option<OwnedSemaphorePermit>,
}

impl Passage {
    #[must_use]
    pub fn new(intake: IntakeHandle, naming: Arc<Naming>, figures: Arc<DoorFigures>) -> Self {
        let room = |bytes| {
            let bytes = usize::try_from(bytes).expect("32 bits fit into a usize");
            Arc::new(Semaphore::new(bytes))
        };
        let (room, parsed) = (room(PASSAGE_BYTES_MAX), room(PARSED_BYTES_MAX));
        Self { intake, naming, figures, room, parsed }
    }

    /// The same way, with room of its own.
    #[must_use]
    pub(super) fn beside(&self) -> Self {
        Self::new(self.intake.clone(), Arc::clone(&self.naming), Arc::clone(&self.figures))
    }

    pub(super) fn counts(&self, door: Door) -> &DoorCounts {
        self.figures.of(door)
    }

    /// Waits for room for `bytes`.
    ///
    /// # Panics
    /// Never: the semaphore is not closed.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        Reservation { _bytes: acquire(&self.room, bytes, PASSAGE_BYTES_MAX).await, _parsed: None }
    }

    /// Waits until those `bytes` may become events.
    ///
    /// # Panics
    /// Never, as above.
    pub async fn reserve_parsed(&self, room: Reservation, bytes: usize) -> Reservation {
        let parsed = acquire(&self.parsed, bytes, PARSED_BYTES_MAX).await;
        Reservation { _parsed: Some(parsed), ..room }
    }

    /// Hands `submission` over as soon as intake has room. The receiver resolves when it is durable;
    /// nobody has to listen.
    ///
    /// # Errors
    /// When intake has stopped.
    pub async fn submit(
        &self,
        submission: Submission,
        reservation: Reservation,
    ) -> Result<oneshot::Receiver<Answered>, IntakeClosed> {
        let durable = self.intake.submit(submission).await?;
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let durable = durable.await;
            drop(reservation);
            if let Ok(durable) = durable {
                // The connection may be gone; its events are durable all the same.
                let _unheard = answer.send(durable);
            }
        });
        Ok(answered)
    }
}

async fn acquire(room: &Arc<Semaphore>, bytes: usize, most: u32) -> OwnedSemaphorePermit {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(most);
    let permit = Arc::clone(room).acquire_many_owned(bytes).await;
    permit.expect("the semaphore is never closed")
}

/// As much of `input` as a dead letter may keep.
pub(super) fn raw(input: &[u8]) -> &[u8] {
    input.get(..RAW_BYTES_MAX).unwrap_or(input)
}

#[cfg(test)]
pub(super) mod fake;

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    /// Whether there is room for `bytes` now.
    async fn has_room(passage: &Passage, bytes: usize) -> bool {
        let mut reserving = std::pin::pin!(passage.reserve(bytes));
        std::future::poll_fn(|cx| Poll::Ready(reserving.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn room_is_held_until_what_it_was_for_is_durable() {
        let (passage, mut inbox) = fake::passage(None);
        let all = usize::try_from(PASSAGE_BYTES_MAX).unwrap();
        let room = passage.reserve(usize::MAX).await;
        assert!(!has_room(&passage, 1).await, "more than all is all");
        assert!(has_room(&passage.beside(), all).await, "the other has its own");

        let submission = Submission { door: Door::Events, rules: None, items: Vec::new() };
        let answered = passage.submit(submission, room).await.unwrap();
        let submit = fake::next(&mut inbox).await;
        assert!(!has_room(&passage, 1).await, "nothing is durable yet");
        submit.reply.send(Answered::Durable(Vec::new())).unwrap();
        answered.await.unwrap();
        assert!(has_room(&passage, all).await);
    }

    #[tokio::test]
    async fn room_is_given_back_by_whoever_does_not_listen_and_when_intake_stops() {
        let (passage, mut inbox) = fake::passage(None);
        let all = usize::try_from(PASSAGE_BYTES_MAX).unwrap();
        let submission = || Submission { door: Door::Events, rules: None, items: Vec::new() };
        drop(passage.submit(submission(), passage.reserve(all).await).await.unwrap());
        fake::next(&mut inbox).await.reply.send(Answered::RulesChanged).unwrap();
        let room = passage.reserve(all).await;
        drop(passage.submit(submission(), room).await.unwrap());
        drop(fake::next(&mut inbox).await);
        let room = passage.reserve(all).await;
        drop(inbox);
        assert!(passage.submit(submission(), room).await.is_err());
        assert!(has_room(&passage, all).await);
    }

    #[test]
    fn a_dead_letter_keeps_the_beginning() {
        assert_eq!(raw(b"abc"), b"abc");
        assert_eq!(raw(&[b'x'; RAW_BYTES_MAX + 1]).len(), RAW_BYTES_MAX);
    }
}
