//! A session's raw events: what of the desk's room it may use, and up to where they are archived.
//!
//! **Owns** the rate of a session. **Does not own** the room of all (`archive/events/desk.rs`), or what is said to the agent
//! (`session.rs`).
//!
//! Limits: a grant is what the rate gives in [`GRANT_SECONDS`], but one piece at the least; the next one waits until the rate has
//! made up for it.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tidemark_common::id::{Sequence, StreamId};
use tidemark_common::wire::{EVENTS_PIECE_BYTES_MAX, EventsPiece};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::ListenOptions;
use crate::archive::events::Desk;

/// A grant lasts about so long at the configured rate.
const GRANT_SECONDS: u32 = 10;
const MILLIS: u64 = 1_000;

/// What a session has of the desk.
#[derive(Debug, Default)]
pub(super) struct EventsDoor {
    desk: Option<OpenDesk>,
    /// Granted, and not used yet.
    room: Option<OwnedSemaphorePermit>,
    next_grant: Option<Instant>,
    /// What is on the desk: of a batch's last piece the batch.
    kept: VecDeque<(u64, Option<Sequence>)>,
}

#[derive(Debug)]
struct OpenDesk {
    desk: Arc<Desk>,
    bytes_per_second: u32,
    archived: watch::Receiver<u64>,
}

impl EventsDoor {
    pub(super) fn new(options: &ListenOptions) -> Self {
        let desk = options.raw_events.clone().map(|(desk, bytes_per_second)| {
            let archived = desk.watch();
            OpenDesk { desk, bytes_per_second, archived }
        });
        Self { desk, ..Self::default() }
    }

    /// Bytes that may be sent of `rest` now, whose room is had; 0 while the rate or the room give none.
    pub(super) fn grant(&mut self, rest: u64, now: Instant) -> u32 {
        let Some(OpenDesk { desk, bytes_per_second, .. }) = &self.desk else { return 0 };
        if self.next_grant.is_some_and(|next| now < next) {
            return 0;
        }
        let least = u32::try_from(EVENTS_PIECE_BYTES_MAX).unwrap_or(u32::MAX);
        let most = bytes_per_second.saturating_mul(GRANT_SECONDS).max(least);
        let wanted = u32::try_from(rest).unwrap_or(u32::MAX).clamp(least, most);
        let Some(room) = desk.room(least, wanted) else { return 0 };
        let bytes = u32::try_from(room.num_permits()).unwrap_or(0);
        match &mut self.room {
            Some(held) => held.merge(room),
            None => self.room = Some(room),
        }
        // What is granted and not sent counts as sent: a session in a hurry can wait.
        let sent = u64::from(bytes).min(rest).saturating_mul(MILLIS);
        let millis = sent.checked_div(u64::from(*bytes_per_second)).unwrap_or(0);
        self.next_grant = now.checked_add(Duration::from_millis(millis));
        bytes
    }

    pub(super) fn grant_over(&mut self) {
        self.room = None;
    }

    /// Takes a piece that was granted.
    pub(super) fn keep(&mut self, stream: StreamId, piece: EventsPiece) {
        let room = self.room.as_mut().and_then(|held| held.split(piece.bytes.len()));
        let (Some(OpenDesk { desk, .. }), Some(room)) = (&self.desk, room) else { return };
        let is_last = piece.index.saturating_add(1) == piece.of;
        let batch = is_last.then_some(piece.sequence);
        self.kept.push_back((desk.keep(stream, piece, room), batch));
    }

    /// Resolves once more of what this session sent is archived. Cancel-safe.
    pub(super) async fn archived(&mut self) {
        let (Some(OpenDesk { archived, .. }), Some((ticket, _))) =
            (&mut self.desk, self.kept.front())
        else {
            return pending().await;
        };
        // A desk that is gone archives nothing any more.
        if archived.wait_for(|archived| archived >= ticket).await.is_err() {
            pending().await
        }
    }

    /// The last batch of which all that came is archived, since the last call.
    pub(super) fn take_archived(&mut self) -> Option<Sequence> {
        let archived = *self.desk.as_ref()?.archived.borrow();
        let mut last = None;
        while let Some((_, batch)) = self.kept.pop_front_if(|(ticket, _)| *ticket <= archived) {
            last = batch.or(last);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(bytes_per_second: u32) -> (Arc<Desk>, EventsDoor) {
        let desk = Arc::new(Desk::default());
        let raw_events = Some((Arc::clone(&desk), bytes_per_second));
        let door = EventsDoor::new(&ListenOptions { raw_events, ..ListenOptions::default() });
        (desk, door)
    }

    fn piece(sequence: u64, index: u32, of: u32) -> EventsPiece {
        EventsPiece { sequence: Sequence(sequence), index, of, bytes: vec![0; 100] }
    }

    #[tokio::test]
    async fn a_session_is_granted_what_its_rate_gives() {
        let (_desk, mut door) = door(100_000);
        let begun = Instant::now();
        let at = |millis: u64| begun.checked_add(Duration::from_millis(millis)).unwrap();
        assert_eq!(door.grant(5_000_000, at(0)), 1_000_000, "ten seconds of it");
        assert_eq!(door.grant(5_000_000, at(9_999)), 0);
        assert_eq!(door.grant(1_000, at(10_000)), 256 << 10, "a piece at the least");
        assert_eq!(door.grant(5_000_000, at(10_009)), 0);
        assert_eq!(
            door.grant(5_000_000, at(10_010)),
            1_000_000,
            "what was not needed is not counted"
        );
    }

    #[tokio::test]
    async fn batches_are_archived_once_their_last_pieces_are() {
        let (desk, mut door) = door(1 << 20);
        assert!(door.grant(1 << 20, Instant::now()) > 0);
        for piece in [piece(1, 0, 2), piece(1, 1, 2), piece(2, 0, 1), piece(3, 0, 2)] {
            door.keep(StreamId([1; 16]), piece);
        }
        assert_eq!(door.take_archived(), None);
        desk.archived(1);
        door.archived().await;
        assert_eq!(door.take_archived(), None, "half of a batch");
        desk.archived(4);
        door.archived().await;
        assert_eq!(door.take_archived(), Some(Sequence(2)));
        assert_eq!(door.take_archived(), None);
    }

    #[tokio::test]
    async fn room_that_is_not_needed_is_given_back() {
        let (desk, mut door) = door(8 << 20);
        assert!(door.grant(64 << 20, Instant::now()) > 0);
        assert!(desk.room(1, 1).is_none());
        door.grant_over();
        assert!(desk.room(64 << 20, 64 << 20).is_some());
    }
}
