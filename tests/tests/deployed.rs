//! The programs as deployments start them: by the environment alone, and under a supervisor that is told how they are.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::http::Http;
use tidemark_tests::process::{Launch, Process};
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::{SEEN_WAIT, send, wait_used};
use tidemark_tests::wait::until;
use toml::{Table, Value};

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
"#;

/// A file's settings as variables of the overlay; what names a file of a certificate becomes its text.
fn variables(stack: &Stack) -> Result<Vec<(String, String)>> {
    let file: Table = std::fs::read_to_string(stack.path("agent.toml"))?.parse()?;
    let mut found = Vec::new();
    for (section, value) in &file {
        match value {
            Value::Table(keys) => {
                for (key, value) in keys {
                    found.push((format!("{section}__{key}"), value.clone()));
                }
            }
            other => found.push((section.clone(), other.clone())),
        }
    }
    let mut variables = Vec::new();
    for (name, value) in found {
        let (name, text) = (name.to_uppercase(), said(&value));
        let (name, text) = match name.as_str() {
            "UPLINK__CA" | "UPLINK__CERTIFICATE" | "UPLINK__KEY" => {
                (format!("{name}_PEM"), std::fs::read_to_string(stack.path(&text))?)
            }
            "JOURNAL__PATH" | "DOORS__UNIX_DATAGRAM" | "DOORS__DSD_STREAM" | "DOORS__EVENTS" => {
                (name, stack.path(&text).display().to_string())
            }
            _ => (name, text),
        };
        variables.push((format!("TIDEMARK_AGENT__{name}"), text));
    }
    Ok(variables)
}

fn said(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(said).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[test]
fn an_agent_needs_no_file() -> Result<()> {
    let mut stack = Stack::prepare(Settings::new(Ports::free()?, CATALOGUE))?;
    stack.start_collector()?;
    let launch = Launch { variables: variables(&stack)?, ..Launch::default() };
    std::fs::remove_file(stack.path("agent.toml"))?;
    let log = stack.path("agent.log");
    let mut agent = Process::start_with(&launch, Program::Agent, &["run"], &log)?;
    let http = Http::new()?;
    let ready = format!("http://127.0.0.1:{}/readyz", stack.ports().admin);
    let shown = until("the agent to be ready", SEEN_WAIT, || match http.get(&ready, None) {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(answer.body),
        Err(error) => Err(format!("{error:#}")),
    })
    .and_then(|()| send(&stack, 30))
    .and_then(|()| wait_used(&stack, 30));
    shown.with_context(|| agent.log_tail())?;
    agent.terminate()?;
    ensure!(agent.wait_end()?.success(), "{}", agent.log_tail());
    Ok(())
}

/// What a program told its supervisor, up to and with `last`.
fn told(supervisor: &UnixDatagram, last: &str) -> Result<Vec<String>> {
    let (mut lines, mut buffer) = (Vec::new(), [0_u8; 1024]);
    while !lines.iter().any(|line| line == last) {
        let length = supervisor
            .recv(&mut buffer)
            .with_context(|| format!("waited for {last} after {lines:?}"))?;
        let text = std::str::from_utf8(buffer.get(..length).unwrap_or_default())?;
        lines.extend(text.lines().map(str::to_owned));
    }
    Ok(lines)
}

#[test]
fn a_supervisor_is_told_how_they_are() -> Result<()> {
    let mut stack = Stack::prepare(Settings::new(Ports::free()?, CATALOGUE))?;
    let supervisor = |program: Program| -> Result<(UnixDatagram, Launch)> {
        let path = stack.path(&format!("{}.notify", program.name()));
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let variables =
            [("NOTIFY_SOCKET", path.display().to_string().as_str()), ("WATCHDOG_USEC", "200000")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok((socket, Launch { variables: variables.into(), ..Launch::default() }))
    };
    let (of_collector, launch) = supervisor(Program::Collector)?;
    let (of_agent, agent_launch) = supervisor(Program::Agent)?;
    stack.launch(Program::Collector, launch);
    stack.launch(Program::Agent, agent_launch);
    stack.start_both()?;
    for supervisor in [&of_collector, &of_agent] {
        let lines = told(supervisor, "READY=1")?;
        ensure!(lines.first().is_some_and(|line| line == "READY=1"), "{lines:?}");
        told(supervisor, "WATCHDOG=1")?;
        told(supervisor, "WATCHDOG=1")?;
    }
    stack.stop_agent()?;
    told(&of_agent, "STOPPING=1")?;
    stack.stop_collector()?;
    told(&of_collector, "STOPPING=1").map(drop)
}
