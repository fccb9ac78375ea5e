//! `churn`: see `tidemark_tests::churn`. Build it with --release.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tidemark_tests::churn::{Options, fill, read};
use tidemark_tests::interrupts;

/// Prints what a ledger holds of pods that come and go, day after day, and how long it takes to start and to read.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// So many pods a day, each with a stream of its own.
    #[arg(long, default_value_t = 10_000)]
    pods: u32,
    /// Of a hundred pods so many vanish: their streams are never closed.
    #[arg(long, default_value_t = 2)]
    dirty: u32,
    /// Streams that are done stay where they are, to compare.
    #[arg(long)]
    keep: bool,
    /// The ledger is made here, and stays. Otherwise it is made where temporary files are, and removed.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Reads a ledger that was made before.
    #[arg(long, hide = true)]
    read: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Arguments { days, pods, dirty, keep, data_dir, read: of } = Arguments::parse();
    let _interrupted = interrupts::watch()?;
    let out = &mut std::io::stdout().lock();
    let options = Options { days, pods, dirty, retires: !keep };
    if let Some(data_dir) = of {
        return read(options, &data_dir, out).map(drop);
    }
    let folder = tempfile::tempdir()?;
    let data_dir = data_dir.unwrap_or_else(|| folder.path().join("ledger"));
    fill(options, &data_dir, out)?;
    // In a process of its own: its memory is that of a start and of what is read.
    let mut reader = Command::new(std::env::current_exe()?);
    reader.args([format!("--days={days}"), format!("--pods={pods}"), format!("--dirty={dirty}")]);
    reader.args(keep.then_some("--keep")).arg("--read").arg(&data_dir);
    let status = reader.status().context("failed to start the reader")?;
    ensure!(status.success(), "the reader ended with {status}");
    Ok(())
}
