//! How long commits take.

use hdrhistogram::Histogram;

/// How long commits took, fsync included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsyncFigures {
    pub count: u64,
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub max_micros: u64,
    pub sum_micros: u64,
}

#[derive(Debug)]
pub(super) struct FsyncRecorder {
    histogram: Histogram<u64>,
    sum_micros: u64,
}

impl FsyncRecorder {
    pub(super) fn new() -> Self {
        // 1 us to 1 h, two significant digits: 15 KiB.
        let histogram =
            Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("the bounds are valid");
        Self { histogram, sum_micros: 0 }
    }

    pub(super) fn record(&mut self, micros: u64) {
        self.histogram.saturating_record(micros);
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    pub(super) fn figures(&self) -> FsyncFigures {
        FsyncFigures {
            count: self.histogram.len(),
            p50_micros: self.histogram.value_at_quantile(0.5),
            p99_micros: self.histogram.value_at_quantile(0.99),
            max_micros: self.histogram.max(),
            sum_micros: self.sum_micros,
        }
    }
}
