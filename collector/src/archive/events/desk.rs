//! What sessions have handed over, until it is archived.
//!
//! **Owns** its room, and the order. **Does not own** who may take how much of the room (`listen/events.rs`).
//!
//! Limits: [`ROOM_BYTES`] over all sessions, of what is granted, waits, or is being written.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemark_common::id::StreamId;
use tidemark_common::wire::EventsPiece;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// Raw events in memory, and those that agents may send.
const ROOM_BYTES: u32 = 64 << 20;
/// When so much waits it is archived at once.
const FULL_BYTES: usize = 16 << 20;

/// The place of raw events between the sessions and the archive.
#[derive(Debug)]
pub struct Desk {
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    full: Notify,
    archived: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Kept>,
    bytes: usize,
    ticket: u64,
}

/// A piece that is to be archived, and its room.
#[derive(Debug)]
pub struct Kept {
    pub stream: StreamId,
    pub piece: EventsPiece,
    /// Ascending, from 1.
    pub ticket: u64,
    _room: OwnedSemaphorePermit,
}

impl Default for Desk {
    fn default() -> Self {
        let room = usize::try_from(ROOM_BYTES).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(room)),
            waiting: Mutex::default(),
            full: Notify::new(),
            archived: watch::Sender::new(0),
        }
    }
}

impl Desk {
    /// Room for up to `most` bytes, and for `least` at the least.
    #[must_use]
    pub fn room(&self, least: u32, most: u32) -> Option<OwnedSemaphorePermit> {
        let free = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        let bytes = free.min(most);
        if bytes < least {
            return None;
        }
        Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()
    }

    /// Takes a piece; its ticket.
    pub fn keep(&self, stream: StreamId, piece: EventsPiece, room: OwnedSemaphorePermit) -> u64 {
        let mut waiting = self.waiting();
        waiting.ticket = waiting.ticket.saturating_add(1);
        waiting.bytes = waiting.bytes.saturating_add(piece.bytes.len());
        let ticket = waiting.ticket;
        waiting.pieces.push_back(Kept { stream, piece, ticket, _room: room });
        if waiting.bytes >= FULL_BYTES {
            self.full.notify_one();
        }
        ticket
    }

    /// Gives out what waits, oldest first, until it holds `bytes_max`.
    pub fn take(&self, bytes_max: usize) -> Vec<Kept> {
        let mut waiting = self.waiting();
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        while bytes < bytes_max
            && let Some(kept) = waiting.pieces.pop_front()
        {
            bytes = bytes.saturating_add(kept.piece.bytes.len());
            taken.push(kept);
        }
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        taken
    }

    /// All up to this ticket is archived.
    pub fn archived(&self, ticket: u64) {
        self.archived.send_replace(ticket);
    }

    /// Up to which ticket all is archived, as it goes on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.archived.subscribe()
    }

    /// Resolves once so much waits that it should be archived now.
    pub async fn is_full(&self) {
        self.full.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_common::id::Sequence;

    fn piece(sequence: u64, length: usize) -> EventsPiece {
        EventsPiece { sequence: Sequence(sequence), index: 0, of: 1, bytes: vec![0; length] }
    }

    #[test]
    fn pieces_are_taken_in_order_and_hold_their_room_until_they_are_archived() {
        let desk = Desk::default();
        let mut room = desk.room(1, ROOM_BYTES).unwrap();
        assert!(desk.room(1, 1).is_none(), "all of it is granted");
        for sequence in 1..=3 {
            let ticket = desk.keep(StreamId([1; 16]), piece(sequence, 10), room.split(10).unwrap());
            assert_eq!(ticket, sequence);
        }
        drop(room);
        let taken = desk.take(15);
        let sequences: Vec<u64> = taken.iter().map(|kept| kept.piece.sequence.0).collect();
        assert_eq!(sequences, [1, 2]);
        let free = |desk: &Desk| ROOM_BYTES - u32::try_from(desk.room.available_permits()).unwrap();
        assert_eq!(free(&desk), 30);
        drop(taken);
        assert_eq!(free(&desk), 10);
        assert_eq!(desk.take(usize::MAX).len(), 1);
        assert_eq!(desk.take(usize::MAX).len(), 0);
        assert!(desk.room(ROOM_BYTES, u32::MAX).is_some(), "nothing is held any more");
    }

    #[test]
    fn less_room_than_is_needed_is_none() {
        let desk = Desk::default();
        let held = desk.room(1, ROOM_BYTES - 5).unwrap();
        assert!(desk.room(6, 10).is_none());
        assert_eq!(desk.room(5, 10).unwrap().num_permits(), 5);
        drop(held);
    }
}
