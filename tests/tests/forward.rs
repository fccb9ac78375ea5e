//! What is not metered goes on to another DogStatsD server, and usage does not.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::conserved::assert_conserved;
use tidemark_tests::doors::{Datagrams, Frames, Lines, Udp};
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::until;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
"#;
const ARRIVAL_WAIT: Duration = Duration::from_secs(10);
const COUNTED_WAIT: Duration = Duration::from_secs(20);

fn settings(address: String) -> Result<Settings> {
    let settings = Settings::new(Ports::free()?, CATALOGUE);
    Ok(settings.agent("naming.metered", vec!["api.*"]).agent("forward.address", address))
}

/// Sends by every door, and checks what `receive` brings.
fn check(stack: &mut Stack, mut receive: impl FnMut() -> Result<String>) -> Result<()> {
    let mixed = "web.hits:1|c|#host:a|c:ci-1\napi.calls:1|c|#customer:acme\nweb.time:12.5|ms|@0.25";
    let expected = "web.hits:1|c|#host:a|c:ci-1\nweb.time:12.5|ms|@0.25";
    Udp::to(stack.ports().udp)?.send(mixed.as_bytes())?;
    ensure!(receive()? == expected);
    Datagrams::to(&stack.path("dsd.socket"))?.send(mixed.as_bytes())?;
    ensure!(receive()? == expected);
    Frames::to(&stack.path("dsd-stream.socket"))?.send(mixed.as_bytes())?;
    ensure!(receive()? == expected);
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    lines.send(format!("{mixed}\n").as_bytes(), 3)?;
    ensure!(lines.wait_durable()?.is_empty(), "nothing is refused");
    ensure!(receive()? == expected);
    drop(lines);
    until("all lines to be counted", COUNTED_WAIT, || {
        let metrics = stack.agent_metrics().map_err(|error| format!("{error:#}"))?;
        let counts = ["not_metered", "forwarded", "forward_dropped"]
            .map(|name| metrics.count_or_zero(&format!("tidemark_agent_{name}_total")));
        if counts == [8, 8, 0] { Ok(()) } else { Err(format!("{counts:?}")) }
    })?;
    stack.wait_posted(4)?;
    assert_conserved(stack)
}

fn received(receive: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> Result<String> {
    let mut datagram = vec![0; 65_536];
    let length = receive(&mut datagram)?;
    datagram.truncate(length);
    Ok(String::from_utf8(datagram)?)
}

#[test]
fn over_udp() -> Result<()> {
    let server = UdpSocket::bind("127.0.0.1:0")?;
    server.set_read_timeout(Some(ARRIVAL_WAIT))?;
    Stack::run(settings(server.local_addr()?.to_string())?, |stack| {
        check(stack, || received(|datagram| server.recv(datagram)))
    })
}

#[test]
fn over_a_unix_socket() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("server.socket");
    let server = UnixDatagram::bind(&path)?;
    server.set_read_timeout(Some(ARRIVAL_WAIT))?;
    Stack::run(settings(format!("unix://{}", path.display()))?, |stack| {
        check(stack, || received(|datagram| server.recv(datagram)))
    })
}

/// A server that is away, or that reads nothing, costs its own lines only.
#[test]
fn a_server_that_reads_nothing_stops_nobody() -> Result<()> {
    const LINES: u64 = 20_000;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("server.socket");
    let _deaf = UnixDatagram::bind(&path)?;
    Stack::run(settings(format!("unix://{}", path.display()))?, |stack| {
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        let text = "web.hits:1|c\napi.calls:1|c|#customer:acme\n".repeat(500);
        for _ in 0..LINES / 500 {
            lines.send(text.as_bytes(), 1_000)?;
        }
        ensure!(lines.wait_durable()?.is_empty(), "nothing is refused");
        drop(lines);
        stack.wait_posted(LINES)?;
        let metrics = stack.agent_metrics()?;
        let [forwarded, dropped] = ["forwarded", "forward_dropped"]
            .map(|name| metrics.count_or_zero(&format!("tidemark_agent_{name}_total")));
        let all = forwarded.saturating_add(dropped);
        ensure!(all == LINES && dropped > 0, "{forwarded} {dropped}");
        Ok(())
    })
}

#[test]
fn the_own_doors_are_refused_before_anything_starts() -> Result<()> {
    let ports = Ports::free()?;
    let own = format!("127.0.0.1:{}", ports.udp);
    let settings = Settings::new(ports, CATALOGUE).agent("forward.address", own);
    let stack = Stack::prepare(settings)?;
    for command in ["check-config", "run"] {
        let mut agent = Command::new(Program::Agent.path()?);
        agent.args([command, "--config", "agent.toml"]).current_dir(stack.folder());
        let output = agent.output()?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && told.contains("own door"), "{command}: {told}");
    }
    Ok(())
}
