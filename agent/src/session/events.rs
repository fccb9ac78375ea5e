//! The raw events of posted batches: sent behind everything else, as far as the collector grants it.
//!
//! ```text
//! something waits, no grant --- Events without a piece ---> asked --- Ack with a grant ---> pieces, while they fit
//!                                                                                             |
//!                             grant is over <--- an Events frame that says that nothing waits -+
//! ```
//! **Owns** what is sent next, and the grant. **Does not own** the pieces (the journal), or the frames' bytes
//! (`tidemark_common::wire`).
//!
//! Invariant: pieces go in the order of their batches, none skipped, so that "archived up to" a batch covers all before it.

use tidemark_common::id::Sequence;
use tidemark_common::wire::{Events, EventsAck, EventsPiece};

use super::reasons::Leave;
use crate::journal::RawEventsHeld;

/// A batch, and a piece of its raw events.
pub(super) type Place = (Sequence, u32);

#[derive(Debug)]
pub(super) struct EventsSender {
    /// Whether the collector archives them.
    taken: bool,
    /// Bytes that may be sent.
    grant: u64,
    /// A frame has said that something waits, and no grant has come since.
    asked: bool,
    next: Place,
    /// What is to be sent next, read.
    loaded: Option<EventsPiece>,
}

impl EventsSender {
    pub(super) fn new(taken: bool) -> Self {
        Self { taken, grant: 0, asked: false, next: (Sequence(1), 0), loaded: None }
    }

    pub(super) fn are_taken(&self) -> bool {
        self.taken
    }

    /// The last batch of which something may be sent, if anything waits.
    pub(super) fn waiting(&self, held: &RawEventsHeld, acked: Sequence) -> Option<Sequence> {
        let last = held.last?.min(acked);
        (self.taken && self.next.0 <= last).then_some(last)
    }

    /// What is to be read: from there on, up to that batch.
    pub(super) fn read_due(
        &self,
        held: &RawEventsHeld,
        acked: Sequence,
    ) -> Option<(Place, Sequence)> {
        let last = self.waiting(held, acked)?;
        (self.loaded.is_none() && self.grant > 0).then_some((self.next, last))
    }

    /// What was found from `from` on, up to batch `last`.
    pub(super) fn read(&mut self, from: Place, last: Sequence, piece: Option<EventsPiece>) {
        // Asked for by the session before: this one may have to begin earlier.
        if from != self.next {
            return;
        }
        self.next = piece.as_ref().map_or((last.next(), 0), |piece| (piece.sequence, piece.index));
        self.loaded = piece;
    }

    pub(super) fn take_frame(&mut self, held: &RawEventsHeld, acked: Sequence) -> Option<Events> {
        if self.asked {
            return None;
        }
        let fits = |piece: &mut EventsPiece| to_u64(piece.bytes.len()) <= self.grant;
        if let Some(piece) = self.loaded.take_if(fits) {
            self.grant = self.grant.saturating_sub(to_u64(piece.bytes.len()));
            let behind = piece.index.saturating_add(1);
            self.next = if behind < piece.of {
                (piece.sequence, behind)
            } else {
                (piece.sequence.next(), 0)
            };
            return Some(self.frame(held, acked, Some(piece)));
        }
        let waits = self.loaded.is_some() || self.waiting(held, acked).is_some();
        let is_due = match (waits, self.grant) {
            (true, 0) | (false, 1..) => true,
            (true, 1..) => self.loaded.is_some(),
            (false, 0) => false,
        };
        is_due.then(|| self.frame(held, acked, None))
    }

    fn frame(
        &mut self,
        held: &RawEventsHeld,
        acked: Sequence,
        piece: Option<EventsPiece>,
    ) -> Events {
        let waits = self.loaded.is_some() || self.waiting(held, acked).is_some();
        let rest = if waits { held.bytes.max(1) } else { 0 };
        if rest == 0 {
            self.grant = 0;
        }
        self.asked = piece.is_none() && rest > 0;
        Events { rest, piece }
    }

    /// Takes what an Ack says of them: up to which batch they may leave the journal.
    pub(super) fn acknowledge(&mut self, ack: EventsAck) -> Result<Sequence, Leave> {
        if ack.archived >= self.next.0 {
            return Err(Leave::soon(format!(
                "the collector says that the raw events of batch {} are archived, and this session has not sent all of them",
                ack.archived
            )));
        }
        self.grant = self.grant.saturating_add(u64::from(ack.grant));
        self.asked &= ack.grant == 0;
        Ok(ack.archived)
    }
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
