//! The tables of the journal's file.
//!
//! **Owns** their names, keys and order. **Does not own** what the values hold (`record.rs`).

use redb::TableDefinition;

/// The format of the whole file, in [`meta::FORMAT`]. A higher one is refused.
pub(super) const FORMAT: u16 = 1;

/// Small rows that nearly every commit rewrites together.
pub(super) const META: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("meta");
/// One row, apart from `meta`, because a leaf is rewritten whole.
pub(super) const RULES: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("rules");
/// (group, index in the group) -> the events of one group commit.
pub(super) const CHUNKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("chunks");
/// Sequence -> the batch's frozen bytes.
pub(super) const SEALED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sealed");
/// Sequence -> what a start must know of the batch without reading its bytes.
pub(super) const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
/// (sequence, index of the piece) -> chunks of the batch, until the collector has archived them.
pub(super) const RAW_EVENTS: TableDefinition<'_, (u64, u32), &[u8]> =
    TableDefinition::new("raw_events");
/// Posted sequence -> when the journal learnt of it (unix ms, by the clock that ages follow). A batch was
/// posted at the first at or after it.
pub(super) const POSTED: TableDefinition<'_, u64, i64> = TableDefinition::new("posted");
/// Ascending number -> the ids of one commit.
pub(super) const IDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ids");
/// Ascending number -> one rejected input.
pub(super) const DEAD_LETTERS: TableDefinition<'_, u64, &[u8]> =
    TableDefinition::new("dead_letters");
/// A numbered source's name -> its last number.
pub(super) const SOURCES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sources");

/// The rows of [`META`].
pub(super) mod meta {
    pub(in crate::journal) const FORMAT: u16 = 0;
    pub(in crate::journal) const IDENTITY: u16 = 1;
    pub(in crate::journal) const OPENED: u16 = 2;
    pub(in crate::journal) const COUNTERS: u16 = 3;
    pub(in crate::journal) const EVIDENCE: u16 = 4;
    pub(in crate::journal) const PINNED: u16 = 5;
    pub(in crate::journal) const CONFLICTED: u16 = 6;
    pub(in crate::journal) const ANSWERED: u16 = 7;
    pub(in crate::journal) const MOVED: u16 = 8;
}

/// The one row of [`RULES`].
pub(super) const RULES_ROW: u16 = 0;
