//! The machine's own tools, called by name.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

/// Runs a command to its end, and returns what it printed.
pub(super) fn call(words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("a command has a name")?;
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to run {program}"))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why this process may not change mounts and networks, if it may not.
pub(super) fn not_root() -> Option<String> {
    (!geteuid().is_root()).then(|| "needs root".to_owned())
}
