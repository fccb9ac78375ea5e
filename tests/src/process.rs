//! One program that a test started: its log, and its end.
//!
//! **Owns** the process: whatever happens, it is gone when this is dropped. Only processes started
//! here are ever signalled, by their own number.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binaries::Program;
use crate::wait::until;

const END_WAIT: Duration = Duration::from_secs(60);
/// Of a log, a failure shows at most this many lines.
const LOG_LINES_SHOWN: usize = 60;

/// What stands before a program's name, and what its environment has besides.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// A command that becomes the program, as `ip netns exec NAME` does.
    pub before: Vec<String>,
    pub variables: Vec<(String, String)>,
}

/// A running program; its output goes to a file that outlives restarts.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; output is appended to `log`.
    ///
    /// # Errors
    /// When it is not built, or cannot be started.
    pub fn start(program: Program, arguments: &[&str], log: &Path) -> Result<Self> {
        Self::start_with(&Launch::default(), program, arguments, log)
    }

    /// The same in surroundings of its own.
    ///
    /// # Errors
    /// When it is not built, or cannot be started.
    pub fn start_with(
        launch: &Launch,
        program: Program,
        arguments: &[&str],
        log: &Path,
    ) -> Result<Self> {
        let path = program.path()?;
        let mut file = append(log)?;
        writeln!(file, "--- {} {}", program.name(), arguments.join(" "))?;
        let mut words = launch.before.iter().map(OsStr::new).chain([path.as_os_str()]);
        let child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .args(arguments)
            .envs(launch.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C is for the one who started this; it ends the process in its own way.
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {}", path.display()))?;
        Ok(Self { program, child, log: log.to_owned() })
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended by itself before.
    pub fn kill_9(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} had ended by itself: {status}\n{}", self.program.name(), self.log_tail());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        until(&format!("the end of {}", self.program.name()), END_WAIT, || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err("it runs".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .with_context(|| self.log_tail())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not end in time, or reports a failure.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait_end()?;
        if !status.success() {
            bail!("{} ended with {status} on SIGTERM\n{}", self.program.name(), self.log_tail());
        }
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("a process id fits 31 bits")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("failed to send {signal}"))
    }

    /// How many files and sockets it has open.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn files_open(&self) -> Result<u64> {
        let path = format!("/proc/{}/fd", self.child.id());
        let files =
            std::fs::read_dir(&path).with_context(|| format!("failed to read {path}"))?.count();
        Ok(u64::try_from(files)?)
    }

    /// Resident memory in KiB, as the kernel counts it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_kib(&self) -> Result<u64> {
        resident_kib(self.child.id())
    }

    /// Processor time that it has used so far, in milliseconds.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn processor_millis(&self) -> Result<u64> {
        /// /proc counts in hundredths of a second, on every machine that Linux runs on.
        const MILLIS_PER_TICK: u64 = 10;
        let path = format!("/proc/{}/stat", self.child.id());
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        // The second column is the name in brackets, which may hold blanks; user and system time are
        // the 14th and 15th.
        let columns = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: Vec<u64> =
            columns.skip(11).take(2).filter_map(|tick| tick.parse().ok()).collect();
        ensure!(ticks.len() == 2, "no processor time in {path}: {text}");
        Ok(ticks.iter().sum::<u64>().saturating_mul(MILLIS_PER_TICK))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(self.program, &self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The most memory in KiB that the process with this id ever had, as the kernel counts it.
///
/// # Errors
/// When the process is gone.
pub fn resident_peak_kib(id: u32) -> Result<u64> {
    status_kib(id, "VmHWM:")
}

/// Memory that a process has now, in KiB.
///
/// # Errors
/// When the process is gone.
pub fn resident_kib(id: u32) -> Result<u64> {
    status_kib(id, "VmRSS:")
}

fn status_kib(id: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let number = number.with_context(|| format!("no {name} in {path}"))?.trim();
    number.parse().with_context(|| format!("failed to read {name}"))
}

/// The last lines of a log, under a heading.
#[must_use]
pub fn log_tail(program: Program, log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
    format!("--- the end of the log of {}:\n{}\n---", program.name(), lines[first..].join("\n"))
}

fn append(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open {}", log.display()))
}
