//! The agent: usage events in on localhost, numbered batches out to a collector.
//!
//! ```text
//!  UDP, Unix datagrams          Unix streams, HTTP
//!        | recvmmsg                   | parse            (tokio, one thread)
//!        v                            v Submission
//!      intake thread: judge, aggregate, pack chunks      intake.rs, intake/core.rs
//!        | Task                        ^ answers
//!        v                             |
//!      commit thread: compress, commit (fsync), seal --- commit.rs  ->  journal.rs
//!        | closed batches      ^ bodies      | published state
//!        v                     |             v
//!      sealer thread: sort, encode, hash     driver.rs: session.rs + uplink.rs --- QUIC --> collector
//! ```
//!
//! The modules stand in the order of the data's way. Channels are bounded and form no cycle that
//! waits: the commit thread never waits for the sealer, the sealer never for intake.

pub mod config;
mod machine;

pub mod event;
pub mod paint;
pub mod parse;

pub mod intake;

pub mod aggregate;

pub mod commit;
pub mod journal;
pub mod seal;

pub mod driver;
pub mod session;
pub mod top;
pub mod uplink;

pub mod admin;
pub mod drain;
pub mod export;
pub mod fsck;
pub mod import;
pub mod inspect;
mod life;
pub mod replay;
pub mod status;

pub use life::{Ended, RunError, run};
pub use machine::Machine;
