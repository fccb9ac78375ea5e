//! Client libraries as they come from PyPI and npm, unchanged: each sends a known set, and the usage
//! API shows it exactly.
//!
//! They are ignored unless asked for: `tests/run` installs the libraries into `.scratch/clients`, and
//! asks. The scripts are in `tests/clients`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["region"]
[[meter]]
name = "storage.gib"
aggregation = "latest"
[[meter]]
name = "latency.ms"
aggregation = "average"
[[meter]]
name = "users.active"
aggregation = "unique_count"
"#;

/// Runs a script against a stack, and checks what the usage API shows of each customer:
/// `meter quantity/events`.
fn check(
    script: &str,
    arguments: impl FnOnce(&Stack) -> Vec<String>,
    accepted: u64,
    expected: &[(&str, &[&str])],
) -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .agent("naming.name_patterns", vec!["tenant.{customer}.{meter}"]);
    Stack::run(settings, |stack| {
        run_script(script, &arguments(stack))?;
        let seen = stack.wait_posted(accepted)?;
        ensure!(seen == accepted, "{seen} events accepted, {accepted} sent");
        let rejected = stack.agent_metrics()?.rejected();
        ensure!(rejected.is_empty(), "rejected: {rejected:?}");
        for (customer, expected) in expected {
            let used = stack.api().usage(customer, "")?.usage;
            let shown: Vec<String> = used
                .into_iter()
                .filter(|entry| entry.events > 0)
                .map(|entry| {
                    let quantity = entry.quantity.unwrap_or_default();
                    format!("{} {quantity}/{}", entry.meter, entry.events)
                })
                .collect();
            ensure!(shown == *expected, "{customer}: {shown:?}, and not {expected:?}");
        }
        Ok(())
    })
}

fn run_script(script: &str, arguments: &[String]) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.scratch/clients");
    let mut command = if script.ends_with(".py") {
        let mut python = Command::new(installed.join("venv/bin/python"));
        python.arg(&source);
        python
    } else {
        // Node looks for libraries beside the script.
        let copy: PathBuf = installed.join("node").join(script);
        std::fs::copy(&source, &copy)
            .with_context(|| format!("{}: run tests/run", copy.display()))?;
        let mut node = Command::new("node");
        node.arg(copy);
        node
    };
    let output =
        command.args(arguments).output().context("failed to run; tests/run installs it")?;
    ensure!(
        output.status.success(),
        "{script} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// `localhost`, which Node takes for ::1 first, and others for 127.0.0.1.
fn door(stack: &Stack) -> Vec<String> {
    vec![format!("http://localhost:{}", stack.ports().http)]
}

#[test]
#[ignore = "needs the clients that tests/run installs"]
fn datadog_over_udp_and_unix_datagrams() -> Result<()> {
    let shown: &[&str] =
        &["api.calls 600/300", "latency.ms 20/2", "storage.gib 12.5/2", "users.active 2/2"];
    let arguments = |stack: &Stack| {
        vec![stack.ports().udp.to_string(), stack.path("dsd.socket").display().to_string()]
    };
    check("datadog_client.py", arguments, 612, &[("datadog-udp", shown), ("datadog-unix", shown)])
}

#[test]
#[ignore = "needs the clients that tests/run installs"]
fn hot_shots_over_udp_packed_and_not() -> Result<()> {
    let shown: &[&str] =
        &["api.calls 500/500", "latency.ms 40/1", "storage.gib 3.25/1", "users.active 1/2"];
    let arguments = |stack: &Stack| vec![stack.ports().udp.to_string()];
    check("hot-shots.js", arguments, 1_008, &[("hot-shots-buffered", shown), ("hot-shots", shown)])
}

#[test]
#[ignore = "needs the clients that tests/run installs"]
fn statsd_by_name_patterns() -> Result<()> {
    let arguments = |stack: &Stack| vec![stack.ports().udp.to_string()];
    let shown: &[&str] = &["api.calls 350/150", "latency.ms 25/1", "storage.gib 7/1"];
    check("statsd_client.py", arguments, 152, &[("statsd", shown)])
}

#[test]
#[ignore = "needs the clients that tests/run installs"]
fn openmeter_from_python() -> Result<()> {
    check("openmeter_client.py", door, 40, &[("openmeter-python", &["api.calls 60/40"])])
}

#[test]
#[ignore = "needs the clients that tests/run installs"]
fn openmeter_from_node() -> Result<()> {
    check("openmeter-sdk.mjs", door, 41, &[("openmeter-node", &["api.calls 80.5/41"])])
}

#[test]
#[ignore = "needs the clients that tests/run installs"]
fn cloudevents_from_python() -> Result<()> {
    check("cloudevents_client.py", door, 25, &[("cloudevents-python", &["api.calls 300/25"])])
}
