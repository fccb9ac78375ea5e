//! Real processes under real faults: each scenario starts an agent and a collector, has clients send
//! through every kind of door, does them harm, and checks in the end that what was accepted is posted,
//! exactly.
//!
//! ```text
//! bench      a run: its plan, its rows, the table     books    the clients, and what must be posted
//! kills      kill -9 of one, of both, storms          sigstop  both, for longer than every timeout
//! partition  between network namespaces, or a relay   clock    steps, by libfaketime
//! full_disk  a small ext4                             fd_exhaustion
//! ```
//!
//! **Owns** the list of scenarios. A scenario that this machine cannot run is a row that says why; it
//! is never counted among those that passed.

use std::io::Write;

use anyhow::{Result, bail};

mod bench;
mod books;
mod clock;
mod disk;
mod fd_exhaustion;
mod full_disk;
mod kills;
mod namespaces;
mod partition;
mod relay;
mod sigstop;
mod system;

use crate::wait::is_interrupted;
use bench::Bench;
pub use bench::{Form, Outcome, Plan, Row, failed, write_table};

type Run = fn(&mut Bench<'_>) -> Result<()>;

const ALL: &[(&str, Run)] = &[
    ("kill-9", kills::kill_9),
    ("both-at-once", kills::both_at_once),
    ("restart-storm", kills::restart_storm),
    ("sigstop", sigstop::run),
    ("partition", partition::run),
    ("full-disk", full_disk::run),
    ("clock", clock::run),
    ("fd-exhaustion", fd_exhaustion::run),
];

/// The scenarios' names.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}

/// Runs the named scenarios, or all where none is named. What goes wrong in one is a row, and the
/// next one runs.
///
/// # Errors
/// When a name is unknown, or `out` is closed.
pub fn run(wanted: &[String], plan: Plan, out: &mut dyn Write) -> Result<Vec<Row>> {
    if let Some(unknown) = wanted.iter().find(|name| !names().contains(&name.as_str())) {
        bail!("there is no scenario {unknown}; there are {}", names().join(", "));
    }
    let mut rows = Vec::new();
    for (name, scenario) in ALL {
        if is_interrupted() {
            break;
        }
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            let mut bench = Bench::new(name, plan, out);
            let outcome = scenario(&mut bench);
            rows.extend(bench.finish(outcome)?);
        }
    }
    Ok(rows)
}
