//! Room in memory for the aggregates of batches: of the open one, and of closed ones until they are encoded.
//!
//! **Owns** the sum. The open batch may take what closed ones leave, and is closed when it has it: with nothing to seal,
//! as while the collector is away, one batch takes in all there is to aggregate, and under load few large ones never stand
//! beside each other. However slow sealing is, an eighth is left, so that intake goes on. One such eighth may wait beside
//! a full room; of what is closed beyond that, the aggregate is dropped, and made again from its chunks in its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all aggregates together take, some 35,000 lines; for moments [`OPEN_BYTES_MIN`] more.
pub const ROOM_BYTES: usize = 8 << 20;
/// What the open batch may take even if nothing is left.
const OPEN_BYTES_MIN: usize = ROOM_BYTES / 8;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Room {
    reserved: Arc<AtomicUsize>,
}

/// Some of the room, until it is dropped.
#[derive(Debug)]
pub struct Reserved {
    room: Room,
    bytes: usize,
}

impl Room {
    /// Room for a closed batch of `bytes`; `None` if others have it. A batch is closed by the message that fills it, so it
    /// may be a little larger than what was left.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let most = ROOM_BYTES.saturating_add(OPEN_BYTES_MIN);
        let reserve = |reserved: usize| {
            reserved.checked_add(bytes).filter(|sum| reserved == 0 || *sum <= most)
        };
        self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).ok()?;
        Some(Reserved { room: self.clone(), bytes })
    }

    /// The same whatever others have: for a batch that is made from its chunks now.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Reserved {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Reserved { room: self.clone(), bytes }
    }

    /// What the open batch may take now.
    #[must_use]
    pub fn left_for_open(&self) -> usize {
        ROOM_BYTES.saturating_sub(self.reserved.load(Ordering::Relaxed)).max(OPEN_BYTES_MIN)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the message that fills a batch adds to it.
    const OVER: usize = 10_000;

    #[test]
    fn what_closed_batches_have_is_not_left_for_the_open_one() {
        let room = Room::default();
        assert_eq!(room.left_for_open(), ROOM_BYTES);
        let first = room.try_reserve(ROOM_BYTES / 2).unwrap();
        assert_eq!(room.left_for_open(), ROOM_BYTES / 2);
        let second = room.try_reserve(room.left_for_open() + OVER).unwrap();
        assert_eq!(room.left_for_open(), OPEN_BYTES_MIN, "intake goes on");
        assert!(room.try_reserve(OPEN_BYTES_MIN).is_none(), "there is no more");
        drop((first, second));
        assert_eq!(room.left_for_open(), ROOM_BYTES);
    }

    #[test]
    fn a_batch_that_is_closed_while_a_large_one_is_encoded_waits_beside_it() {
        let room = Room::default();
        let large = room.try_reserve(room.left_for_open() + OVER).unwrap();
        let _small = room.try_reserve(room.left_for_open() - OVER).unwrap();
        assert!(room.try_reserve(room.left_for_open()).is_none(), "one of them, not several");
        drop(large);
        let _next = room.try_reserve(room.left_for_open() + OVER).unwrap();
    }

    #[test]
    fn one_that_is_too_large_is_taken_alone() {
        let room = Room::default();
        let large = room.try_reserve(2 * ROOM_BYTES).unwrap();
        assert!(room.try_reserve(1).is_none());
        drop(large);
        assert!(room.try_reserve(1).is_some());
    }

    #[test]
    fn one_that_is_made_again_is_not_refused() {
        let room = Room::default();
        let again = room.reserve(ROOM_BYTES);
        assert_eq!(room.left_for_open(), OPEN_BYTES_MIN);
        let _small = room.try_reserve(OPEN_BYTES_MIN).unwrap();
        assert!(room.try_reserve(OPEN_BYTES_MIN).is_none());
        drop(again);
        assert_eq!(room.left_for_open(), ROOM_BYTES - OPEN_BYTES_MIN);
    }
}
