//! What the commit thread is asked to do, and who waits for it.
//!
//! **Owns** these shapes, and whether a closed batch's aggregate goes along. **Does not own** what becomes of them.

use tokio::sync::oneshot;

use super::room::{ROOM_BYTES, Reserved};
use super::{SealError, Shared};
use crate::aggregate::OpenBatch;
use crate::intake::answer::{Answer, Answered, Barrier};
use crate::intake::job::{CloseJob, CommitJob};
use crate::journal::{Committed, Seal, Write};

/// Who waits for a commit, and what he is to be told.
#[derive(Debug)]
pub struct Waiter {
    pub reply: oneshot::Sender<Answered>,
    pub answers: Vec<Answer>,
}

/// What the commit thread is asked to do.
#[derive(Debug)]
pub enum Task {
    Commit {
        commit: CommitJob,
        waiters: Vec<Waiter>,
    },
    /// Nothing to write, but all before must be durable.
    Answer {
        waiters: Vec<Waiter>,
    },
    /// Made by [`Task::close`].
    Close {
        close: CloseJob,
        aggregate: Option<Box<Aggregate>>,
        /// How much memory it takes, also if it is made again.
        bytes: usize,
    },
    Barrier {
        reply: oneshot::Sender<Barrier>,
        accepted: u64,
    },
    Write {
        writes: Vec<Write>,
        reply: oneshot::Sender<Committed>,
    },
    Sealed(Sealed),
    Stop,
}

/// A closed batch's aggregate, and the memory that is reserved for it.
#[derive(Debug)]
pub struct Aggregate {
    pub(super) batch: OpenBatch,
    pub(super) _reserved: Reserved,
}

impl Task {
    /// The task for a closed batch. Its aggregate goes along if there is room; else it is made again
    /// from its chunks.
    #[must_use]
    pub fn close(mut close: CloseJob, shared: &Shared) -> Self {
        let batch = close.batch.take();
        let bytes = batch.as_ref().map_or(ROOM_BYTES, OpenBatch::memory_bytes);
        let aggregate = batch.and_then(|batch| {
            let reserved = shared.room.try_reserve(bytes)?;
            Some(Box::new(Aggregate { batch, _reserved: reserved }))
        });
        Self::Close { close, aggregate, bytes }
    }
}

/// What of events that were taken before there were rules is counted when they are sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AtReplay {
    pub dropped_dimensions: u64,
    pub without_id: u64,
}

/// What comes back from the sealer, in the order in which it was handed over.
#[derive(Debug)]
pub enum Sealed {
    Batch { seal: Box<Seal>, at_replay: AtReplay },
    Barrier { reply: oneshot::Sender<Barrier>, accepted: u64 },
    Failed(SealError),
}
