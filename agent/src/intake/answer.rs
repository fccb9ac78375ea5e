//! What intake and the commit thread answer to doors and to the driver.

use thiserror::Error;
use tidemark_common::id::Sequence;

use crate::event::RejectReason;

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// Its id is known: it is durable already, or becomes so with this submission's commit.
    Duplicate,
    NotMetered,
    Rejected(RejectReason),
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// An answer for each item, in order. What is accepted is durable.
    Durable(Vec<Answer>),
    /// Nothing was taken: the rules have changed, parse again.
    RulesChanged,
}

/// All that was accepted before is durable and sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    pub sequence: Sequence,
    pub accepted: u64,
}

/// The agent is stopping, or its journal has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("failed to hand events to intake: it has stopped")]
pub struct IntakeClosed;
