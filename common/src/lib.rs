//! What a Tidemark agent and a collector exchange, and nothing else.
//!
//! **The contract.** An agent numbers frozen batches ([`batch`]) and ships them over one ordered
//! stream of frames ([`wire`]). The collector posts a stream's batches in order, exactly once, and
//! acknowledges them only after its ledger has committed. Both ends know each other by certificate
//! ([`tls`]).
//!
//! **The rule of admission.** A type lives here only if both ends use it. Everything but [`tls`],
//! [`tcp`] and [`supervisor`] is pure: no I/O, no clock, no random numbers.

pub mod batch;
pub mod chunk;
pub mod code;
pub mod hex;
pub mod id;
pub mod local_url;
pub mod quantity;
pub mod supervisor;
pub mod tcp;
pub mod time;
pub mod tls;
pub mod version;
pub mod wire;
