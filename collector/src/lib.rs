//! The collector: admits numbered usage batches exactly once, keeps the ledger, answers live bills.
//!
//! ```text
//! agents --QUIC or TCP, mutual TLS--> listen --frames--> session --requests--> ledger writer
//!                                 ^                  |                       | one transaction a group
//!                                 +---- replies -----+<---- after commit ----+
//!                                                                            v
//!                                                     ledger.redb (batches, streams)   tail (memory)
//!                                                                            |             |
//!                                                     folder, at intervals --+--> totals.redb
//!                                                                                          |
//! people, billing --HTTP--> api <-- rating, catalogue <-- live: one snapshot = totals + tail
//! ```
//!
//! The ledger is the truth, the totals are derived from it. Readers never block the writer. Whether
//! usage is explained by the catalogue is decided when it is read.

pub mod config;

pub mod document;
pub mod duration;

pub mod listen;
pub mod session;

pub mod dedupe;
pub mod grants;
pub mod ledger;
pub mod usage;

pub mod live;

pub mod billing;
pub mod billing_run;
pub mod catalog;
pub mod invoice;
pub mod money;
pub mod period;
pub mod rating;
pub mod reconcile;
pub mod terms;

pub mod adopt;
pub mod api;
pub mod archive;
pub mod backup;
pub mod certificate;
pub mod control;
pub mod dev_certs;
pub mod fsck;
pub mod ready;
pub mod restore;
mod run;
pub mod tax_service;
pub mod verify;

pub use run::{Addresses, RunError, Signal, run};
