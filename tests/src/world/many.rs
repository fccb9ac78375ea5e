//! Many worlds, several at once, and what they came to together.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::fault::Fault;
use super::story::Story;
use super::{Options, Outcome, run};
use crate::wait::Stopwatch;

/// How often a line of progress is written.
const PROGRESS: Duration = Duration::from_secs(10);
/// After so many failures there is enough to look at.
const FAILURES_MAX: usize = 20;

/// What many worlds must come to, besides every fault: all verdicts but two, and every way back. No session can
/// bring about `NotOpen`, for it says nothing after Close, and whoever opens the stream again has another fence:
/// `dedupe.rs` and `session/claim.rs` judge it all the same.
const EXPECTED: [&str; 37] = [
    "verdict batch: Admit",
    "verdict batch: Conflict",
    "verdict batch: Duplicate",
    "verdict batch: Fenced",
    "verdict batch: Gap",
    "verdict batch: Invalid",
    "verdict batch: OtherLedger",
    "verdict claim: Fenced",
    "verdict claim: Gap",
    "verdict claim: Invalid",
    "verdict claim: Take",
    "verdict collector: unreadable frame",
    "verdict hello: Conflict",
    "verdict hello: OtherIdentity",
    "verdict hello: OtherLedger",
    "verdict hello: TooManyNewStreams",
    "verdict hello: TooManyStreams",
    "verdict hello: Version",
    "verdict hello: Welcome",
    "fault hostile frame",
    "fault packet corrupted",
    "fault process killed at an operation of its disk",
    "fault second process on a disk",
    "frame Throttle",
    "recovery agent did not start",
    "recovery agent ended after its grace",
    "recovery agent ended by an error",
    "recovery agent started",
    "recovery body quarantined",
    "recovery collector did not start",
    "recovery collector ended by an error",
    "recovery collector started",
    "recovery hole named",
    "recovery journal in conflict",
    "recovery journal set aside",
    "recovery second collector is kept out",
    "recovery stream closed",
];

/// Seeds from `first` up to and without `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub end: u64,
}

impl Span {
    /// All seeds from this one on.
    #[must_use]
    pub fn from(first: u64) -> Self {
        Self { first, end: u64::MAX }
    }

    /// Reads `A..B`.
    ///
    /// # Errors
    /// Says what it should be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is no range of seeds; write 1..101 for a hundred");
        let (first, end) = text.split_once("..").ok_or_else(wanted)?;
        let first = first.parse().map_err(|_| wanted())?;
        let end = end.parse().map_err(|_| wanted())?;
        if first < end { Ok(Self { first, end }) } else { Err(wanted()) }
    }
}

/// Worlds to run.
#[derive(Debug, Clone, Copy)]
pub struct Many {
    pub span: Span,
    pub minutes: Option<u64>,
    pub threads: Option<usize>,
    pub options: Options,
}

/// What they came to.
#[derive(Debug, Default)]
pub struct Summary {
    pub worlds: u64,
    pub events: u64,
    pub millis: u64,
    pub story: Story,
    /// Seeds of worlds in which a promise was broken, and how.
    pub failures: Vec<(u64, String)>,
}

impl Many {
    /// Runs them, with a line to `progress` now and then.
    pub fn run(&self, progress: impl Fn(&str) + Sync) -> Summary {
        let threads = self.threads.or_else(|| thread::available_parallelism().ok().map(Into::into));
        let (next, over) = (AtomicU64::new(self.span.first), AtomicBool::new(false));
        let summary = Mutex::new(Summary::default());
        let limit = self.minutes.map(|minutes| Duration::from_secs(minutes * 60));
        let begun = Stopwatch::start();
        let shown = Mutex::new(Stopwatch::start());
        thread::scope(|scope| {
            for _ in 0..threads.unwrap_or(1) {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let late = limit.is_some_and(|limit| begun.elapsed() >= limit);
                        if seed >= self.span.end || late {
                            break;
                        }
                        let outcome = guarded(seed, self.options);
                        if let Some(broken) = &outcome.broken {
                            progress(&format!("seed {seed}: {broken}"));
                        }
                        let mut all = summary.lock().unwrap_or_else(PoisonError::into_inner);
                        all.add(outcome);
                        if all.failures.len() >= FAILURES_MAX {
                            over.store(true, Ordering::Relaxed);
                        }
                        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                        if shown.elapsed() >= PROGRESS {
                            *shown = Stopwatch::start();
                            progress(&all.progress());
                        }
                    }
                });
            }
        });
        summary.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A world that panics is broken too.
fn guarded(seed: u64, options: Options) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, options))).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            seed,
            broken: Some(format!("panic: {}", message.unwrap_or_default())),
            story: Story::default(),
            events: 0,
            millis: 0,
        }
    })
}

impl Summary {
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Faults that came less than `times` times, and other things that never came.
    #[must_use]
    pub fn not_reached(&self, times: u64) -> Vec<String> {
        let count = |what: &str| self.story.counts.get(what).copied().unwrap_or(0);
        let faults = Fault::ALL.iter().map(|fault| format!("fault {fault:?}"));
        let others = EXPECTED.iter().filter(|what| count(what) == 0).map(ToString::to_string);
        faults.filter(|fault| count(fault) < times).chain(others).collect()
    }

    fn add(&mut self, outcome: Outcome) {
        self.worlds += 1;
        self.events += u64::try_from(outcome.events).unwrap_or(u64::MAX);
        self.millis += outcome.millis;
        self.story.add(&outcome.story);
        self.failures.extend(outcome.broken.map(|broken| (outcome.seed, broken)));
    }

    fn progress(&self) -> String {
        let Self { worlds, events, failures, .. } = self;
        format!("{worlds} worlds, {events} events, {} failed", failures.len())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.story.counts {
            writeln!(f, "{count:>12}  {what}")?;
        }
        for (seed, broken) in &self.failures {
            writeln!(f, "seed {seed}: {broken}")?;
        }
        for what in self.not_reached(1) {
            writeln!(f, "not reached: {what}")?;
        }
        let hours = self.millis / 3_600_000;
        let Self { worlds, events, failures, .. } = self;
        writeln!(
            f,
            "{worlds} worlds, {events} events, {hours} simulated hours, {} failed",
            failures.len()
        )
    }
}
