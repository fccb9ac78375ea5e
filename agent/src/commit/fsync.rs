//! How long commits take.

use hdrhistogram::Histogram;

/// The longest that belongs into each bucket of the histogram: 0.5 ms, and twice as much each, up to 8.2 s.
pub const FSYNC_BOUNDS_MICROS: [u64; 15] = [
    500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000,
    2_048_000, 4_096_000, 8_192_000,
];

/// How long commits took, fsync included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsyncFigures {
    pub count: u64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub max_micros: u64,
    pub sum_micros: u64,
    /// Of each bucket, and those that took longer than all of them.
    pub buckets: [u64; FSYNC_BOUNDS_MICROS.len() + 1],
}

#[derive(Debug)]
pub(super) struct FsyncRecorder {
    histogram: Histogram<u64>,
    sum_micros: u64,
    buckets: [u64; FSYNC_BOUNDS_MICROS.len() + 1],
}

impl FsyncRecorder {
    pub(super) fn new() -> Self {
        // 1 us to 1 h, two significant digits: 15 KiB.
        let histogram =
            Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("the bounds are valid");
        Self { histogram, sum_micros: 0, buckets: Default::default() }
    }

    pub(super) fn record(&mut self, micros: u64) {
        self.histogram.saturating_record(micros);
        self.sum_micros = self.sum_micros.saturating_add(micros);
        let index = FSYNC_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket = bucket.saturating_add(1);
        }
    }

    pub(super) fn figures(&self) -> FsyncFigures {
        FsyncFigures {
            count: self.histogram.len(),
            p50_micros: self.histogram.value_at_quantile(0.5),
            p99_micros: self.histogram.value_at_quantile(0.99),
            max_micros: self.histogram.max(),
            sum_micros: self.sum_micros,
            buckets: self.buckets,
        }
    }
}
