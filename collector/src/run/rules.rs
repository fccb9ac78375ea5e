//! The version of the rules that agents are given: it goes up whenever their content changes.
//!
//! A version is the ledger time of the change, in milliseconds, so that it goes up even where the file
//! that remembers the last one is lost, or is older than the ledger beside it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tidemark_common::id::RulesVersion;
use tidemark_common::time::Timestamp;
use tidemark_common::wire::{Rules, decode_rules, encode_rules};

/// The file in `data_dir`, and what it is written as before it takes its name.
const FILE: &str = "rules";
const DRAFT: &str = "rules.new";

/// Numbers `content` as of ledger time `now`: with the version in the file of `folder` if nothing
/// changed, else with a new one, which the file then holds durably.
///
/// # Errors
/// The file cannot be written. One that cannot be read counts as absent.
pub(super) fn adopt(folder: &Path, content: Rules, now: Timestamp) -> io::Result<Rules> {
    let before = match read(folder) {
        Ok(before) => before,
        Err(error) => {
            tracing::warn!(%error, "the rules' last version cannot be read; they get a new one");
            None
        }
    };
    if let Some(before) = &before
        && content == (Rules { version: RulesVersion(0), ..before.clone() })
    {
        return Ok(before.clone());
    }
    let after = before.map_or(1, |before| before.version.0.saturating_add(1));
    let version = RulesVersion(u64::try_from(now.0).unwrap_or(0).max(after));
    let rules = Rules { version, ..content };
    write(folder, &encode_rules(&rules).map_err(io::Error::other)?)?;
    Ok(rules)
}

/// The rules as they were last given; `None` if they never were.
fn read(folder: &Path) -> io::Result<Option<Rules>> {
    match fs::read(folder.join(FILE)) {
        Ok(bytes) => decode_rules(&bytes).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Before this returns, a crash leaves the old file or the new one.
fn write(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = File::create(folder.join(DRAFT))?;
    draft.write_all(bytes)?;
    draft.sync_all()?;
    fs::rename(folder.join(DRAFT), folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(seal_interval_millis: u32) -> Rules {
        Rules { seal_interval_millis, ..Rules::default() }
    }

    /// (content, ledger time) one after another -> the versions.
    fn check(folder: &Path, steps: &[(u32, i64)], expected: &[u64]) {
        let versions = steps.iter().map(|(seal, now)| {
            let rules = adopt(folder, content(*seal), Timestamp(*now)).unwrap();
            assert_eq!(rules.seal_interval_millis, *seal);
            rules.version.0
        });
        assert_eq!(versions.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_version_goes_up_with_each_change_only() {
        let folder = tempfile::tempdir().unwrap();
        check(
            folder.path(),
            &[(1, 100), (1, 200), (2, 300), (1, 300), (1, 400)],
            &[100, 100, 300, 301, 301],
        );
        assert_eq!(read(folder.path()).unwrap().unwrap().version, RulesVersion(301));
        fs::write(folder.path().join(FILE), b"damaged").unwrap();
        assert!(read(folder.path()).is_err(), "which is told");
        check(folder.path(), &[(1, 500)], &[500]);
        fs::remove_file(folder.path().join(FILE)).unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        check(folder.path(), &[(1, 0)], &[1]);
    }
}
