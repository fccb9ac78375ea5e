//! `tidemark-collector bill` as processes that tell of a run line by line, and may be killed amid it.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::prepared::Prepared;
use crate::binaries::Program;

/// More than a run tells: nobody reads while a kill is waited for.
const LINES_WAITING_MAX: usize = 65_536;
/// A run tells something at least this often.
const LINE_WAIT: Duration = Duration::from_secs(60);

/// A customer's line.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct OutcomeLine {
    pub(super) customer: String,
    pub(super) outcome: String,
    pub(super) number: Option<String>,
}

/// The last line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Counts {
    pub(super) issued: u64,
    pub(super) drafts: u64,
    pub(super) issued_before: u64,
    pub(super) problems: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Outcome(OutcomeLine),
    End { end: Counts },
    Failed { failed: String },
}

/// A command that has ended, and what it told.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) outcomes: Vec<OutcomeLine>,
    pub(super) end: Option<Counts>,
    status: ExitStatus,
}

impl Ended {
    pub(super) fn is_complete(&self) -> bool {
        self.status.success() && self.end.is_some_and(|end| end.problems == 0)
    }

    /// It could not begin.
    pub(super) fn is_refused(&self) -> bool {
        self.status.code() == Some(2) && self.outcomes.is_empty()
    }
}

/// Commands that run at once. They are gone when this is dropped.
pub(super) struct Commands {
    children: Vec<Child>,
    told: Receiver<(usize, String)>,
    /// What was told so far, for each.
    lines: Vec<Vec<String>>,
}

impl Commands {
    pub(super) fn start(prepared: &Prepared, count: usize) -> Result<Self> {
        let stack = &prepared.stack;
        let (tell, told) = sync_channel(LINES_WAITING_MAX);
        let mut commands = Self { children: Vec::new(), told, lines: vec![Vec::new(); count] };
        let log = OpenOptions::new().create(true).append(true).open(stack.path("bill.log"))?;
        for index in 0..count {
            let mut child = Command::new(Program::Collector.path()?)
                .args(["bill", "--config", "collector.toml", "--json", "--period-end"])
                .arg(&prepared.period_end)
                .current_dir(stack.folder())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(log.try_clone()?)
                .spawn()?;
            let output = child.stdout.take();
            commands.children.push(child);
            let (output, tell) = (output.context("its output is a pipe")?, tell.clone());
            std::thread::spawn(move || read(index, output, &tell));
        }
        Ok(commands)
    }

    /// Waits until they have told so many lines together, or have ended.
    pub(super) fn wait_told(&mut self, lines: u64) -> Result<()> {
        for _ in 0..lines {
            if !self.take_line()? {
                break;
            }
        }
        Ok(())
    }

    /// Takes the next line of any of them; none comes once all have ended.
    fn take_line(&mut self) -> Result<bool> {
        match self.told.recv_timeout(LINE_WAIT) {
            Ok((index, line)) => {
                self.lines[index].push(line);
                Ok(true)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => bail!("a run tells nothing"),
        }
    }

    /// kill -9, unless it has ended.
    pub(super) fn kill_first(&mut self) -> Result<()> {
        Ok(self.children.first_mut().context("one was started")?.kill()?)
    }

    /// Takes what is still told, and waits for the ends.
    pub(super) fn finish(mut self) -> Result<Vec<Ended>> {
        while self.take_line()? {}
        let mut ended = Vec::new();
        for index in 0..self.children.len() {
            // All that it wrote is read: it has ended, or is about to.
            let status = self.children[index].wait()?;
            ended.push(read_lines(&self.lines[index], status)?);
        }
        Ok(ended)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended already, which is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn read(index: usize, output: ChildStdout, tell: &SyncSender<(usize, String)>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        if tell.send((index, line)).is_err() {
            return;
        }
    }
}

fn read_lines(lines: &[String], status: ExitStatus) -> Result<Ended> {
    let mut ended = Ended { outcomes: Vec::new(), end: None, status };
    for (index, text) in lines.iter().enumerate() {
        match serde_json::from_str(text) {
            Ok(Line::Outcome(outcome)) => ended.outcomes.push(outcome),
            Ok(Line::End { end }) => ended.end = Some(end),
            Ok(Line::Failed { failed }) => bail!("a run failed: {failed}"),
            // One that was killed may have written half a line.
            Err(error) => {
                let is_torn = !status.success() && index + 1 == lines.len();
                ensure!(is_torn, "{error}: {text}");
            }
        }
    }
    Ok(ended)
}
