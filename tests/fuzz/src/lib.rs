//! What must hold for any bytes, one module a format; each has `check(input)`, which panics where it does not.
//!
//! ```text
//! frames        a session's stream                 journal_file  a journal whose sectors are damaged
//! dogstatsd     datagrams                          journal_rows  a whole redb file with damaged rows
//! json_lines    the events door                    batches       a batch's header, body and lines
//! cloud_events  the HTTP door                      catalogue     the collector's catalogue
//! decimals      quantities and prices
//! ```
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

pub mod catalogue;
pub mod choices;
pub mod cloud_events;
pub mod decimals;
pub mod dogstatsd;
pub mod fields;
pub mod frames;
pub mod json_lines;
pub mod memory;
