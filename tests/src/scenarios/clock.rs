//! Steps of the wall clock, at the agent and at the collector, while they run.
//!
//! libfaketime stands between the program and the C library's clock, and reads what time it is from a
//! file; the monotonic clock is left alone. That it works is checked by what the programs show.
//!
//! What must hold: each event counts once, in whatever quarter of an hour the clocks put it; ledger
//! time never goes back; `complete_through` is not after it; `clock_jumps` counts the collector's
//! steps; and a collector neither follows a clock that leaps by years nor starts under one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::bench::Bench;
use super::books::{AgentLife, settings, wait_advance};
use crate::binaries::Program;
use crate::process::Launch;
use crate::resend::Shared;
use crate::stack::Stack;
use crate::wait::{pause, until, wide_range};

const JUMPS: &str = "tidemark_collector_clock_jumps_total";
const NOTICE_WAIT: Duration = Duration::from_secs(15);
const YEAR_SECONDS: u64 = 365 * 86_400;
/// 2039-07-01, so that a year from there holds 2040's first half.
const BEFORE_2040: u64 = 2_193_091_200;
/// One change of a clock.
struct Step {
    name: &'static str,
    /// In libfaketime's file: an offset, or a time that goes on from there.
    time: &'static str,
    /// Kill -9 and a start: certificates are judged by the clock anew.
    restart: bool,
}

const STEPS: [Step; 7] = [
    Step { name: "6 hours ahead", time: "+6h", restart: false },
    Step { name: "6 hours behind", time: "-6h", restart: false },
    Step { name: "1970", time: "@1970-01-02 00:00:00", restart: false },
    Step { name: "right again", time: RIGHT, restart: false },
    Step { name: "1970, and restarted", time: "@1970-01-02 00:00:00", restart: true },
    Step { name: "2040", time: IN_2040, restart: false },
    Step { name: "2040, and restarted", time: IN_2040, restart: true },
];
const IN_2040: &str = "@2040-01-02 00:00:00";
const RIGHT: &str = "+0";

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let Some(library) = library() else {
        return bench.skip("agent, collector", "libfaketime is not installed (Debian: faketime)");
    };
    let length = bench.length(Duration::from_millis(1_500), Duration::from_secs(45));
    for program in [Program::Agent, Program::Collector] {
        let clock = FakeClock::new(&library)?;
        let mut stack = Stack::prepare(settings()?)?;
        stack.launch(program, clock.launch());
        stack.start_both().with_context(|| stack.logs())?;
        let mut books = bench.books()?;
        books.ranges = vec![
            (0, YEAR_SECONDS),
            wide_range(),
            (BEFORE_2040, BEFORE_2040.saturating_add(YEAR_SECONDS)),
        ];
        let mut seen = LedgerTime::default();
        let side = match program {
            Program::Agent => "agent",
            Program::Collector => "collector",
        };
        for Step { name, time, restart } in STEPS {
            let during = |stack: &mut Stack, shared: &Shared| {
                let jumps = stack.collector_metrics()?.count_or_zero(JUMPS);
                clock.set(time)?;
                if restart && program == Program::Collector && time == IN_2040 {
                    start_refused(stack)?;
                    clock.set(RIGHT)?;
                    return stack.start_collector();
                }
                if restart {
                    start_again(stack, program)?;
                    pause(length);
                    wait_advance(shared)?;
                    // By a clock that wrong no certificate is valid, and no session begins.
                    clock.set(RIGHT)?;
                    return Ok(());
                }
                if program == Program::Collector {
                    wait_jump(stack, jumps)?;
                }
                pause(length);
                wait_advance(shared)?;
                seen.look(stack)?;
                ensure!(
                    seen.as_of.as_str() < "2040",
                    "ledger time followed a clock that leapt: {seen:?}"
                );
                Ok(())
            };
            let name = format!("{side}: {name}");
            let life = match (program, restart) {
                (Program::Agent, true) => AgentLife::Dies,
                (Program::Agent, false) | (Program::Collector, _) => AgentLife::Lives,
            };
            bench.case(&mut books, &mut stack, (&name, "faketime"), life, during)?;
            seen.look(&stack)?;
        }
        if program == Program::Agent {
            let past = stack.api().usage_between("plain", (0, YEAR_SECONDS), "")?.usage;
            ensure!(
                past.iter().any(|entry| entry.events > 0),
                "the agent's clock was never in 1970: libfaketime does not work here"
            );
        }
    }
    Ok(())
}

fn start_again(stack: &mut Stack, program: Program) -> Result<()> {
    match program {
        Program::Agent => stack.kill_agent().and_then(|()| stack.start_agent()),
        Program::Collector => stack.kill_collector().and_then(|()| stack.start_collector()),
    }
}

/// A collector whose clock has leapt says so and does not start.
fn start_refused(stack: &mut Stack) -> Result<()> {
    stack.kill_collector()?;
    let refused = stack.start_collector();
    let log = stack.logs();
    ensure!(
        refused.is_err() && log.contains("--trust-clock"),
        "a collector followed its clock to 2040: {refused:?}\n{log}"
    );
    Ok(())
}

/// Where Debian puts it, on each of its architectures.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.is_file())
}

/// A clock that is set by a file.
struct FakeClock<'l> {
    library: &'l Path,
    folder: TempDir,
}

impl<'l> FakeClock<'l> {
    fn new(library: &'l Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidemark-clock-").tempdir()?;
        let clock = Self { library, folder };
        clock.set(RIGHT)?;
        Ok(clock)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("time")
    }

    fn launch(&self) -> Launch {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let variables = [
            ("LD_PRELOAD", text(self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file())),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
            ("TZ", "UTC".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Launch { variables, ..Launch::default() }
    }

    /// At once, and never half.
    fn set(&self, step: &str) -> Result<()> {
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{step}\n"))?;
        std::fs::rename(&new, self.file()).context("failed to set the clock")
    }
}

fn wait_jump(stack: &Stack, before: u64) -> Result<()> {
    until("the collector to count a jump of its clock", NOTICE_WAIT, || {
        match stack.collector_metrics().map(|metrics| metrics.count_or_zero(JUMPS)) {
            Ok(now) if now > before => Ok(()),
            Ok(now) => Err(format!("{now} jumps")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
}

/// A time in UTC with all its digits, so that text order is time's.
fn in_order(time: &str) -> String {
    let (seconds, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time, ""));
    format!("{}.{fraction:0<9}", seconds.trim_end_matches('Z'))
}

/// Ledger time and completeness, as answered so far, in text order.
#[derive(Debug, Default)]
struct LedgerTime {
    as_of: String,
    complete_through: String,
}

impl LedgerTime {
    fn look(&mut self, stack: &Stack) -> Result<()> {
        let usage = stack.api().usage("acme", "")?;
        let as_of = in_order(&usage.as_of);
        let complete_through = usage.complete_through.as_deref().map(in_order).unwrap_or_default();
        ensure!(as_of >= self.as_of, "ledger time went back: {self:?}, then {as_of}");
        ensure!(
            complete_through >= self.complete_through,
            "complete_through went back: {self:?}, then {complete_through}"
        );
        ensure!(
            complete_through <= as_of,
            "complete_through {complete_through} is after ledger time {as_of}"
        );
        *self = Self { as_of, complete_through };
        Ok(())
    }
}
