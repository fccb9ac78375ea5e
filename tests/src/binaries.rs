//! Where cargo put the two programs: beside this one.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Agent,
    Collector,
}

impl Program {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "tidemark-agent",
            Self::Collector => "tidemark-collector",
        }
    }

    /// The program's file: beside this program, or one folder above a test's.
    ///
    /// # Errors
    /// When it is not built.
    pub fn path(self) -> Result<PathBuf> {
        let this = std::env::current_exe().context("failed to find this program's own file")?;
        for folder in this.ancestors().skip(1).take(2) {
            let path = folder.join(self.name());
            if path.is_file() {
                return Ok(path);
            }
        }
        bail!(
            "{} is not built beside {}; run: cargo build -p tidemark-agent -p tidemark-collector",
            self.name(),
            this.display()
        )
    }
}
