//! How many bytes of the journal's file its rows need, and when that is too much.
//!
//! **Owns** what a row costs and the marks at which the journal is tight, full, and no longer full.
//! **Does not own** what is done about it: `apply.rs` drops retained batches, the doors push back.
//!
//! redb gives a large value a power of two of 4 KiB pages, aligned to its size, doubles its file when it
//! grows, never shrinks it, and holds the old and the new pages of a transaction at once. So the file
//! stays under `bytes_max` only while the rows stay under `bytes_max / 2.2`; and the journal calls itself
//! full a *reserve* below that, so that what is on its way when the doors close still fits:
//!
//! ```text
//! 0 ......... clear ... full ...... live max ............................ bytes_max
//!             |         |<-reserve->| = bytes_max / 2.2                   length of the file
//!             |<------->| a full journal takes events again only below `clear`;
//!                         above `clear` retained batches leave, oldest first
//! ```
//!
//! The reserve is an eighth of the live maximum, or twice the largest batch if that is more (up to three
//! eighths): chunks that wait for their commit, and a batch sealed while its chunks still stand. Seal and
//! Posted are never refused, whatever the marks say.

/// A journal with a smaller budget could not hold one open batch.
pub const JOURNAL_BYTES_MIN: u64 = 16 << 20;

/// redb's page.
const PAGE_BYTES: u64 = 4_096;
/// A row that is larger than this has pages of its own.
const SMALL_ROW_BYTES_MAX: u64 = 2_000;
/// What redb adds to a page of one row (key, lengths, checksums of the path above).
const PAGE_OVERHEAD_BYTES: u64 = 36;
/// What redb adds to a small row: its key, two offsets, and its share of half-empty pages.
const SMALL_ROW_OVERHEAD_BYTES: u64 = 32;
/// Tables, roots and the pages that every commit replaces.
pub(super) const FIXED_BYTES: u64 = 256 << 10;

/// The bytes that a row with a value of `value_bytes` takes in the file.
pub(super) fn row_bytes(value_bytes: u64) -> u64 {
    if value_bytes <= SMALL_ROW_BYTES_MAX {
        // Pages of small rows are about two thirds full.
        let row = value_bytes.saturating_add(SMALL_ROW_OVERHEAD_BYTES);
        return row.saturating_add(row / 2);
    }
    let pages = value_bytes.saturating_add(PAGE_OVERHEAD_BYTES).div_ceil(PAGE_BYTES);
    pages.checked_next_power_of_two().unwrap_or(u64::MAX).saturating_mul(PAGE_BYTES)
}

/// The marks of one journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    live_max: u64,
}

impl Budget {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { live_max: bytes_max.saturating_mul(10) / 22 }
    }

    /// Whether retained batches must leave early. `largest_batch` is what its row costs.
    pub(super) fn is_tight(self, live_bytes: u64, largest_batch: u64) -> bool {
        live_bytes >= self.clear_at(largest_batch)
    }

    /// Whether the journal asks the doors to stop, given whether it did before.
    pub(super) fn is_full(self, live_bytes: u64, largest_batch: u64, was_full: bool) -> bool {
        let mark =
            if was_full { self.clear_at(largest_batch) } else { self.full_at(largest_batch) };
        live_bytes >= mark
    }

    /// The rows' bytes at which the journal calls itself full.
    pub(super) fn full_at(self, largest_batch: u64) -> u64 {
        let eighth = self.live_max / 8;
        let reserve = largest_batch.saturating_mul(2).clamp(eighth, eighth.saturating_mul(3));
        self.live_max.saturating_sub(reserve)
    }

    fn clear_at(self, largest_batch: u64) -> u64 {
        let full_at = self.full_at(largest_batch);
        full_at.saturating_sub(full_at / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_row_takes_a_power_of_two_of_pages() {
        for (value, bytes) in [
            (2_001, 4_096),
            (4_060, 4_096),
            (4_061, 8_192),
            (65_500, 65_536),
            (65_501, 131_072),
            (66_000, 131_072),
        ] {
            assert_eq!(row_bytes(value), bytes, "{value}");
        }
    }

    #[test]
    fn small_rows_cost_more_than_their_bytes() {
        for value in [0, 1, 16, 200, 2_000] {
            assert!((value + 20..value * 2 + 100).contains(&row_bytes(value)), "{value}");
        }
    }

    #[test]
    fn full_begins_at_one_mark_and_ends_at_a_lower_one() {
        let budget = Budget::new(22 << 20);
        for largest in [0, 1 << 20, 16 << 20] {
            let (full, clear) = (budget.full_at(largest), budget.clear_at(largest));
            assert!(clear < full && full < 10 << 20);
            assert!(!budget.is_full(full - 1, largest, false));
            assert!(budget.is_full(full, largest, false));
            assert!(budget.is_full(clear, largest, true));
            assert!(!budget.is_full(clear - 1, largest, true));
            assert!(budget.is_tight(clear, largest) && !budget.is_tight(clear - 1, largest));
        }
    }

    #[test]
    fn the_reserve_holds_two_of_the_largest_batches_within_reason() {
        let budget = Budget::new(22 << 20);
        for (largest, full_kib) in
            [(0, 8_960), (1 << 20, 8_192), (3 << 19, 7_168), (1 << 30, 6_400)]
        {
            assert_eq!(budget.full_at(largest), full_kib << 10, "{largest}");
        }
    }
}
