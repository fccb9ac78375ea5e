//! The agent within 64 MiB, under all the load that its doors take, in its short form. For the long one:
//! `cargo run --release -p tidemark-tests --bin small-memory -- --help`.

use std::io::Write as _;

use anyhow::Result;
use tidemark_tests::control_group::ControlGroup;
use tidemark_tests::small_memory::{Options, run};

/// What the sidecar's chart gives it: see helm/tidemark-agent/values.yaml.
const LIMIT: u64 = 64 << 20;

#[test]
#[ignore = "needs root, and what tests/run installs"]
fn the_limit_holds_under_full_load() -> Result<()> {
    if let Err(error) = ControlGroup::new("tried", LIMIT) {
        writeln!(std::io::stdout(), "SKIPPED: the agent within 64 MiB: {error:#}")?;
        return Ok(());
    }
    let agent = [("journal.bytes_max", "24MiB"), ("doors.receive_buffer_bytes", "1MiB")];
    let agent = agent.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let options = Options { limit: LIMIT, seconds: 5, only: Vec::new(), agent };
    run(&options, &mut std::io::stdout().lock())
}
