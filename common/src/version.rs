//! Which version a program is, and of which commit.

use std::sync::LazyLock;

/// The version of both programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that `TIDEMARK_COMMIT` named in the environment of the build. `None`: it named none.
pub const COMMIT: Option<&str> = option_env!("TIDEMARK_COMMIT");

/// What `--version` shows: `0.1.0 (4f2c91a)`, and without a commit `0.1.0`.
#[must_use]
pub fn shown() -> &'static str {
    static SHOWN: LazyLock<String> = LazyLock::new(|| match COMMIT {
        Some(commit) if !commit.is_empty() => format!("{VERSION} ({commit})"),
        Some(_) | None => VERSION.to_owned(),
    });
    &SHOWN
}
