//! How long one event takes: to be durable, and to be seen in live usage.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use crate::doors::Lines;
use crate::stack::Stack;
use crate::wait::{Stopwatch, until};

const CUSTOMER: &str = "latency";
const LINE: &[u8] = b"api.calls:1|c|#customer:latency,key:k\n";
const ACKNOWLEDGEMENTS: u64 = 300;
const SIGHTINGS: u64 = 30;
const SEEN_WAIT: Duration = Duration::from_secs(30);

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    Percentiles {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        max: histogram.max(),
    }
}

fn record(histogram: &mut Histogram<u64>, took: Duration) -> Result<()> {
    histogram.record(u64::try_from(took.as_micros())?).context("a latency fits the histogram")
}

/// From sending a line to `events.socket` to being told that it is durable, one at a time.
pub(super) fn acknowledged(stack: &Stack) -> Result<Percentiles> {
    let mut histogram = Histogram::new(3)?;
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    for _ in 0..ACKNOWLEDGEMENTS {
        let clock = Stopwatch::start();
        lines.send(LINE, 1)?;
        let refused = lines.wait_durable()?;
        record(&mut histogram, clock.elapsed())?;
        ensure!(refused.is_empty(), "{refused:?}");
    }
    Ok(percentiles(&histogram))
}

/// From sending a line until the usage API counts it, one at a time, on an idle system.
pub(super) fn seen(stack: &Stack) -> Result<Percentiles> {
    let mut histogram = Histogram::new(3)?;
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    stack.wait_posted(0)?;
    let before = counted(stack)?;
    for sent in 1..=SIGHTINGS {
        let clock = Stopwatch::start();
        lines.send(LINE, 1)?;
        until("an event in live usage", SEEN_WAIT, || match counted(stack) {
            Ok(now) if now >= before.saturating_add(sent) => Ok(()),
            Ok(now) => Err(format!("{now} events")),
            Err(error) => Err(format!("{error:#}")),
        })?;
        record(&mut histogram, clock.elapsed())?;
    }
    Ok(percentiles(&histogram))
}

fn counted(stack: &Stack) -> Result<u64> {
    Ok(stack.api().usage(CUSTOMER, "")?.usage.iter().map(|entry| entry.events).sum())
}
