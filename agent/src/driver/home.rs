//! The agent's own side of the uplink: its journal and its intake, as the driver needs them.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use thiserror::Error;
use tidemark_common::batch::genesis;
use tidemark_common::id::{LedgerId, RulesVersion, Sequence};
use tidemark_common::wire::EventsPiece;
use tokio::sync::watch;

use crate::commit::{CommitHandle, CommitStopped};
use crate::intake::IntakeHandle;
use crate::journal::{self, JournalReader, JournalState, ReadError, Write};
use crate::session::{JournalWrite, Looked, StreamFacts, Welcomed};

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

    /// The first piece of raw events from there on, up to batch `last`.
    fn read_events(
        &self,
        from: (Sequence, u32),
        last: Sequence,
    ) -> impl Future<Output = Result<Option<EventsPiece>, HomeError>> + Send + 'static;

    /// Resolves once all accepted before is durable and sealed: up to which sequence, and how many
    /// events the stream had accepted. `None` once intake has ended.
    fn barrier(&self) -> impl Future<Output = Option<(Sequence, u64)>> + Send + 'static;

    /// Whether a batch that is sealed now could be sent now.
    fn room(&self, room: bool);
}

/// The real one: the commit thread and intake.
#[derive(Debug)]
pub struct AgentHome {
    commit: CommitHandle,
    intake: IntakeHandle,
    state: watch::Receiver<Arc<JournalState>>,
}

impl AgentHome {
    #[must_use]
    pub fn new(commit: CommitHandle, intake: IntakeHandle) -> Self {
        let state = commit.state();
        Self { commit, intake, state }
    }
}

impl Home for AgentHome {
    fn facts(&self) -> StreamFacts {
        let state = Arc::clone(&self.state.borrow());
        StreamFacts {
            stream: state.stream,
            opening: state.opening,
            ledger: state.ledger,
            posted_sequence: state.posted_sequence,
            posted_digest: state.posted_digest,
            sealed_sequence: state.sealed_sequence,
            accepted: state.accepted,
            unsealed_events: state.events_in_chunks,
            rules_version: self.intake.rules().map_or(RulesVersion(0), |rules| rules.version),
            openings: state.held.clone(),
            raw_events: state.raw_events,
            conflict: state.conflict.clone(),
        }
    }

    async fn changed(&mut self) -> Result<(), HomeError> {
        self.state.changed().await.map_err(|_| HomeError::Stopped)
    }

    fn write(
        &self,
        write: JournalWrite,
    ) -> impl Future<Output = Result<(), HomeError>> + Send + 'static {
        let (commit, intake) = (self.commit.clone(), self.intake.clone());
        async move {
            let write = match write {
                JournalWrite::Welcomed(welcomed) => {
                    return welcome(&commit, &intake, *welcomed).await;
                }
                JournalWrite::Posted(sequence) => Write::Posted(sequence),
                JournalWrite::Archived(sequence) => Write::Archived(sequence),
                JournalWrite::Conflict { message, answer } => {
                    Write::Conflict { reason: message, answer }
                }
                JournalWrite::Closed => Write::Closed,
            };
            commit.write(vec![write]).await?;
            Ok(())
        }
    }

    fn look(
        &self,
        ledger: LedgerId,
        sequence: Sequence,
    ) -> impl Future<Output = Result<Looked, HomeError>> + Send + 'static {
        let stream = self.state.borrow().stream;
        let reader = self.commit.reader();
        blocking(reader, move |reader| {
            let digest = match sequence {
                Sequence::ZERO => Some(genesis(ledger, stream)),
                sequence => reader.digest(sequence)?,
            };
            Ok(Looked { digest, first_held: reader.first_held()? })
        })
    }

    fn read(
        &self,
        sequence: Sequence,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, HomeError>> + Send + 'static {
        blocking(self.commit.reader(), move |reader| reader.batch(sequence))
    }

    fn read_events(
        &self,
        from: (Sequence, u32),
        last: Sequence,
    ) -> impl Future<Output = Result<Option<EventsPiece>, HomeError>> + Send + 'static {
        blocking(self.commit.reader(), move |reader| reader.raw_events(from, last))
    }

    fn barrier(&self) -> impl Future<Output = Option<(Sequence, u64)>> + Send + 'static {
        let intake = self.intake.clone();
        async move { intake.barrier().await.ok().map(|barrier| (barrier.sequence, barrier.accepted)) }
    }

    fn room(&self, room: bool) {
        self.commit.uplink_room(room);
    }
}

impl From<CommitStopped> for HomeError {
    fn from(_: CommitStopped) -> Self {
        Self::Stopped
    }
}

/// Stores what a Welcome said, then lets intake go by it: never the other way round, since a batch
/// names its rules for ever.
async fn welcome(
    commit: &CommitHandle,
    intake: &IntakeHandle,
    welcomed: Welcomed,
) -> Result<(), HomeError> {
    let Welcomed {
        ledger,
        rules,
        unique_key,
        posted_sequence,
        raw_events_taken,
        clock_offset_millis,
    } = welcomed;
    commit.raw_events_taken(raw_events_taken);
    let adopted = rules.clone().map(Arc::new);
    commit
        .write(vec![Write::Welcomed(journal::Welcomed {
            ledger,
            rules,
            unique_key,
            posted_sequence,
        })])
        .await?;
    // At shutdown intake has ended before the uplink: nothing is left to judge by the rules.
    if let Err(error) = intake.adopt(adopted, unique_key, clock_offset_millis).await {
        tracing::debug!(%error, "rules not taken over");
    }
    Ok(())
}

/// Reads the journal on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    reader: JournalReader,
    read: impl FnOnce(&JournalReader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, HomeError> {
    match tokio::task::spawn_blocking(move || read(&reader)).await {
        Ok(found) => found.map_err(|error| HomeError::Read { reason: error.reason }),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(HomeError::Stopped),
        },
    }
}
