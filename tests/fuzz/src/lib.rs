//! What must hold for any bytes, one module a format; each has `check(input)`, which panics where it does not.
//!
//! ```text
//! frames        a session's stream         batches       a batch's header, body and lines
//! dogstatsd     datagrams                  journal_rows  a journal with forged or damaged rows
//! json_lines    the events door            catalogue     the collector's catalogue
//! cloud_events  the HTTP door              decimals      quantities and prices
//! ```
//!
//! Damaged *pages* of a journal are no target: redb's checksums find them, and its own assertions are not ours.
//!
//! `tests/fuzz/run` builds one libFuzzer program of each; `cargo test -p tidemark-fuzz` replays their corpora and
//! former findings without it.
//!
//! **Owns** the properties, and slow readers to compare with. **Does not own** examples of single cases: unit
//! tests beside the code do.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers of a test; an overflow panics, which is a finding"
)]

pub mod batches;
pub mod catalogue;
pub mod choices;
pub mod cloud_events;
pub mod decimals;
pub mod dogstatsd;
pub mod fields;
pub mod frames;
pub mod journal_rows;
pub mod json_lines;
pub mod memory;
