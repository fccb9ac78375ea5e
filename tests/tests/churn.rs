//! Pods that come and go: the short form of `churn`.

use anyhow::{Result, ensure};
use tidemark_tests::churn::{Found, Options, fill, read};

#[test]
fn what_is_done_leaves_memory_and_stays_counted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options { days: 4, pods: 250, dirty: 2, retires: true };
    let mut told = Vec::new();
    fill(options, folder.path(), &mut told)?;
    let found = read(options, folder.path(), &mut told)?;
    let text = String::from_utf8(told)?;
    let expected = Found { live: 20, retired: 980, of_month: 980, covered: 20, blocking: 0 };
    ensure!(found == expected, "{found:?}\n{text}");
    for part in ["retired_ids", "complete_through in", "start "] {
        ensure!(text.contains(part), "no {part} in\n{text}");
    }
    print!("{text}");
    Ok(())
}
