//! Instants of UTC and the 15-minute buckets that usage is grouped by.
//!
//! Every civil time zone is a whole number of 15 minutes from UTC, so any customer's local midnight
//! is a bucket's edge.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds in a bucket.
pub const BUCKET_MILLIS: i64 = 900_000;

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This instant moved by `millis`, held at the ends of the range.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this; negative if `earlier` is later.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A bucket: unix seconds / 900. Bucket `b` covers [b * 15 min, (b + 1) * 15 min).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Bucket(pub u32);

impl Bucket {
    /// The bucket that holds `at`; `None` before 1970 or after bucket 2^32 - 1.
    #[must_use]
    pub fn of(at: Timestamp) -> Option<Self> {
        u32::try_from(at.0.div_euclid(BUCKET_MILLIS)).ok().map(Self)
    }

    /// The bucket that begins exactly at `at`; `None` if `at` is no bucket's edge.
    #[must_use]
    pub fn starting_at(at: Timestamp) -> Option<Self> {
        Self::of(at).filter(|bucket| bucket.start() == at)
    }

    /// The instant at which this bucket begins.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0).saturating_mul(BUCKET_MILLIS))
    }

    /// The instant at which the next bucket begins.
    #[must_use]
    pub fn end(self) -> Timestamp {
        self.start().plus_millis(BUCKET_MILLIS)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_time_without_overlap() {
        assert_eq!(Bucket::of(Timestamp(0)), Some(Bucket(0)));
        assert_eq!(Bucket::of(Timestamp(899_999)), Some(Bucket(0)));
        assert_eq!(Bucket::of(Timestamp(900_000)), Some(Bucket(1)));
        assert_eq!(Bucket::of(Timestamp(-1)), None);
        assert_eq!(Bucket(1).end(), Bucket(2).start());
    }

    #[test]
    fn only_an_edge_starts_a_bucket() {
        assert_eq!(Bucket::starting_at(Timestamp(1_800_000)), Some(Bucket(2)));
        assert_eq!(Bucket::starting_at(Timestamp(1_800_001)), None);
    }
}
