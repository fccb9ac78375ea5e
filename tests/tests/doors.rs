//! Who may connect to the doors, by real processes.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::doors::{Datagrams, Lines};
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::until;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
"#;
const GOOD: &[u8] = b"api.calls:1|c|#customer:acme";
const COUNTED_WAIT: Duration = Duration::from_secs(20);

fn own_uid() -> Result<i64> {
    Ok(std::fs::metadata("/proc/self")?.uid().into())
}

/// A line to events.socket of an agent that lets these users in; whether it was acknowledged.
fn acknowledged(stack: &Stack) -> Result<bool> {
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    let sent = lines.send(&[GOOD, b"\n"].concat(), 1);
    Ok(sent.is_ok() && lines.wait_durable().is_ok())
}

#[test]
fn a_user_that_is_not_named_is_refused_and_counted() -> Result<()> {
    let other = own_uid()?.saturating_add(1);
    let settings = Settings::new(Ports::free()?, CATALOGUE);
    let settings =
        settings.agent("doors.peer_uids", vec![other]).agent("doors.socket_mode", "0600");
    Stack::run(settings, |stack| {
        ensure!(!acknowledged(stack)?, "another user was let in");
        until("the refusal to be counted", COUNTED_WAIT, || {
            let metrics = stack.agent_metrics().map_err(|error| format!("{error:#}"))?;
            let name = r#"tidemark_agent_door_connections_forbidden_total{door="events"}"#;
            match metrics.count_or_zero(name) {
                1 => Ok(()),
                count => Err(count.to_string()),
            }
        })?;
        for socket in ["events.socket", "dsd-stream.socket", "dsd.socket"] {
            let mode = std::fs::metadata(stack.path(socket))?.permissions().mode() & 0o777;
            ensure!(mode == 0o600, "{socket} has mode {mode:o}");
        }
        // The datagram socket has its permissions alone.
        Datagrams::to(&stack.path("dsd.socket"))?.send(GOOD)?;
        stack.wait_posted(1)?;
        Ok(())
    })
}

#[test]
fn a_user_that_is_named_is_let_in() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE);
    let settings = settings.agent("doors.peer_uids", vec![own_uid()?]);
    Stack::run(settings, |stack| {
        ensure!(acknowledged(stack)?, "the named user was refused");
        stack.wait_posted(1)?;
        Ok(())
    })
}
