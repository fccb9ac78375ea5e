//! The agent.

pub mod admin;
pub mod aggregate;
pub mod chunk;
pub mod commit;
pub mod config;
pub mod driver;
pub mod event;
pub mod intake;
pub mod journal;
pub mod parse;
pub mod seal;
pub mod session;
pub mod status;
pub mod uplink;
