//! The collector.

pub mod api;
pub mod catalog;
pub mod config;
pub mod dedupe;
pub mod dev_certs;
pub mod document;
pub mod duration;
pub mod ledger;
pub mod listen;
pub mod live;
pub mod money;
pub mod period;
pub mod rating;
pub mod session;
pub mod usage;
