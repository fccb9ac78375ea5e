//! Where a journal is looked at: in its file, or through the agent that holds it.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tidemark_common::id::Sequence;

use super::batch::BatchShown;
use super::{Inspection, JournalSeen};
use crate::admin::client::{AdminClient, ClientError};
use crate::fsck::{Fsck, Pages};
use crate::journal::{JournalReader, OpenError, ReadError};

/// One journal.
#[derive(Debug)]
pub enum JournalAt {
    /// A file that no agent holds.
    File {
        path: PathBuf,
        seen: JournalSeen,
    },
    /// A file that is no journal any more.
    Damaged {
        path: PathBuf,
        reason: String,
    },
    Agent(AdminClient),
}

/// Why there is nothing to be shown.
#[derive(Debug, Error)]
pub enum LookError {
    #[error(
        "failed to look at {}: an agent holds it; name that agent with --config or --admin instead",
        path.display()
    )]
    Held { path: PathBuf },
    #[error("failed to look at {}: it is damaged: {reason}; `tidemark-agent fsck` says what to do", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Agent(#[from] ClientError),
    #[error("batch {sequence} is not held; `tidemark-agent inspect` says which are")]
    NoBatch { sequence: Sequence },
}

impl JournalAt {
    /// The journal's file, whose budget is `bytes_max` if that is known. Nothing is made or changed.
    ///
    /// # Errors
    /// `Held` if an agent has it open; or if it cannot be read.
    pub fn file(path: &Path, bytes_max: Option<u64>) -> Result<Self, LookError> {
        match JournalReader::open(path) {
            Ok(reader) => {
                let file_bytes = std::fs::metadata(path).map_or(0, |file| file.len());
                let seen = JournalSeen { reader, file_bytes, bytes_max };
                Ok(Self::File { path: path.to_owned(), seen })
            }
            Err(OpenError::Held { path, .. }) => Err(LookError::Held { path }),
            Err(OpenError::Corrupt { reason }) => {
                Ok(Self::Damaged { path: path.to_owned(), reason })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// # Errors
    /// If it cannot be read.
    pub async fn inspect(&self) -> Result<Inspection, LookError> {
        match self {
            Self::File { seen, .. } => Ok(Inspection::of(seen)?),
            Self::Damaged { path, reason } => Err(damaged(path, reason)),
            Self::Agent(client) => Ok(client.inspect().await?),
        }
    }

    /// # Errors
    /// If it cannot be read at all. Damage is no error.
    pub async fn fsck(&self) -> Result<Fsck, LookError> {
        match self {
            Self::File { seen, .. } => Ok(Fsck::of(&seen.reader, Pages::Checked)?),
            Self::Damaged { reason, .. } => Ok(Fsck::of_damaged_pages(reason)),
            Self::Agent(client) => Ok(client.fsck().await?),
        }
    }

    /// # Errors
    /// If it is not held, or cannot be read.
    pub async fn batch(&self, sequence: Sequence) -> Result<BatchShown, LookError> {
        let bytes = match self {
            Self::File { seen, .. } => seen.reader.batch(sequence)?,
            Self::Damaged { path, reason } => return Err(damaged(path, reason)),
            Self::Agent(client) => client.batch(sequence).await?,
        };
        bytes.map(|bytes| BatchShown::of(&bytes)).ok_or(LookError::NoBatch { sequence })
    }
}

fn damaged(path: &Path, reason: &str) -> LookError {
    LookError::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}
