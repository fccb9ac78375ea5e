//! A control group that bounds what its processes may keep in memory, as a container engine does it.
//!
//! **Owns** the group: it is removed when this is dropped. Version 2 or 1 of the interface, whichever this machine has; it
//! needs root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::Launch;

const FOLDERS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"];

/// What the interface's two versions call the same.
#[derive(Debug)]
struct Names {
    limit: &'static str,
    swap: (&'static str, Swap),
    resident: &'static str,
    events: &'static str,
}

/// What stands in the file of swap for "no swap".
#[derive(Debug)]
enum Swap {
    Zero,
    Limit,
}

const V2: Names = Names {
    limit: "memory.max",
    swap: ("memory.swap.max", Swap::Zero),
    resident: "anon",
    events: "memory.events",
};
const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    swap: ("memory.memsw.limit_in_bytes", Swap::Limit),
    resident: "rss",
    events: "memory.oom_control",
};

/// A control group for memory.
#[derive(Debug)]
pub struct ControlGroup {
    folder: PathBuf,
    names: Names,
}

impl ControlGroup {
    /// Makes one in which all processes together may keep `limit` bytes.
    ///
    /// # Errors
    /// When this machine, or this user, cannot have one.
    pub fn new(name: &str, limit: u64) -> Result<Self> {
        for folder in FOLDERS.map(Path::new) {
            let names = match fs::read_to_string(folder.join("cgroup.controllers")) {
                Ok(controllers) if controllers.split_whitespace().any(|one| one == "memory") => V2,
                _ if folder.join(V1.limit).exists() => V1,
                _ => continue,
            };
            let own = folder.join(format!("tidemark-{name}-{}", std::process::id()));
            // On version 2 the parent must hand the controller on; it may do so already.
            let _handed_on = fs::write(folder.join("cgroup.subtree_control"), "+memory").is_ok();
            fs::create_dir(&own).with_context(|| format!("failed to make {}", own.display()))?;
            let group = Self { folder: own, names };
            fs::write(group.folder.join(group.names.limit), limit.to_string())
                .context("failed to limit a control group")?;
            let (file, swap) = &group.names.swap;
            let swap = match swap {
                Swap::Zero => 0,
                Swap::Limit => limit,
            };
            // A kernel may not account for swap.
            let _without_swap = fs::write(group.folder.join(file), swap.to_string()).is_ok();
            return Ok(group);
        }
        bail!("no control group for memory can be made here")
    }

    /// Surroundings for a program that is to be in it from its first instruction on.
    #[must_use]
    pub fn launch(&self) -> Launch {
        let enter = format!("echo $$ > '{}/cgroup.procs' && exec \"$@\"", self.folder.display());
        let before = ["sh", "-c", enter.as_str(), "sh"].map(str::to_owned).to_vec();
        Launch { before, variables: Vec::new() }
    }

    /// Bytes of its processes that only their end gives back; the page cache is not among them.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn resident(&self) -> Result<u64> {
        self.figure("memory.stat", self.names.resident)
    }

    /// How often the kernel has killed one of its processes for want of memory.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn killed(&self) -> Result<u64> {
        self.figure(self.names.events, "oom_kill")
    }

    fn figure(&self, file: &str, name: &str) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(file))?;
        let mut words = text.lines().filter_map(|line| line.split_once(' '));
        let found = words.find(|(found, _)| *found == name);
        let (_, figure) = found.with_context(|| format!("{file} does not say {name}"))?;
        Ok(figure.trim().parse()?)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Its last process may not be gone yet; a group that stays is empty, and does no harm.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            crate::wait::pause(std::time::Duration::from_millis(20));
        }
    }
}
