//! The agent's own side of the uplink: its journal and its intake, as the driver needs them.

use thiserror::Error;
use tidemark_common::id::{LedgerId, Sequence};

use crate::session::{JournalWrite, Looked, StreamFacts};

/// Why the driver cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HomeError {
    #[error("failed to reach the journal: its thread has stopped")]
    Stopped,
    #[error("failed to read the journal: {reason}")]
    Read { reason: String },
}

/// What the driver asks of the agent. The returned futures run side by side and outlive links.
pub trait Home {
    /// What the journal holds now, durably.
    fn facts(&self) -> StreamFacts;

    /// Waits until the facts may have changed. Cancel-safe.
    fn changed(&mut self) -> impl Future<Output = Result<(), HomeError>> + Send;

    /// Makes `write` durable. What a Welcome says is then taken over by intake as well.
    fn write(
        &self,
        write: JournalWrite,
    ) -> impl Future<Output = Result<(), HomeError>> + Send + 'static;

    /// What the journal knows of `sequence`, which `ledger` has posted.
    fn look(
        &self,
        ledger: LedgerId,
        sequence: Sequence,
    ) -> impl Future<Output = Result<Looked, HomeError>> + Send + 'static;

    /// A batch's frozen bytes; `None` if they are not held any more.
    fn read(
        &self,
        sequence: Sequence,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, HomeError>> + Send + 'static;

    /// Resolves once all accepted before is durable and sealed: up to which sequence, and how many
    /// events the stream had accepted. `None` once intake has ended.
    fn barrier(&self) -> impl Future<Output = Option<(Sequence, u64)>> + Send + 'static;

    /// Whether a batch that is sealed now could be sent now.
    fn room(&self, room: bool);
}
