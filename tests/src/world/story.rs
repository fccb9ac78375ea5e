//! What happened in a world: counts of everything, and on demand the story, line by line.

use std::collections::BTreeMap;
use std::fmt::Display;

/// Counts by name, and the story of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Story {
    /// How often each thing happened: faults as `fault ...`, verdicts as `verdict ...`, and so on.
    pub counts: BTreeMap<String, u64>,
    lines: Option<Vec<String>>,
}

impl Story {
    /// A story that is told in full.
    #[must_use]
    pub fn told() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// A line of the story at `now`, in milliseconds. It is put together only if somebody listens.
    pub fn tell<T: Display>(&mut self, now: u64, line: impl FnOnce() -> T) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{} s  {}", Seconds(now), line()));
        }
    }

    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
    }
}

/// Milliseconds, shown as seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>5}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}
