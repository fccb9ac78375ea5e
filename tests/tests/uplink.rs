//! The way from agent to collector in hard times: no UDP, dead addresses, renewed certificates.

use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::conserved::assert_conserved;
use tidemark_tests::doors::send_durably;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::udp_relay::UdpRelay;
use tidemark_tests::wait::{Stopwatch, until};

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[customer]]
id = "acme"
"#;
const PATIENCE: Duration = Duration::from_secs(60);

fn send(stack: &Stack, ids: Range<u32>) -> Result<()> {
    send_durably(&stack.path("events.socket"), "uplink", ids)
}

#[test]
fn without_udp_usage_goes_over_tcp_and_returns_to_quic_once_udp_passes() -> Result<()> {
    let ports = Ports::free()?;
    let behind = Ports::free()?.quic;
    // UDP packets to the agents' port find nobody, until the relay carries them.
    let settings = Settings::new(ports, CATALOGUE)
        .agent("uplink.quic_probe_interval", "500ms")
        .collector("listen.quic", format!("127.0.0.1:{behind}"))
        .collector("listen.tcp", format!("127.0.0.1:{}", ports.quic));
    let mut stack = Stack::prepare(settings)?;
    stack.start_collector()?;
    stack.start_agent()?;
    stack.wait_transport("tcp")?;
    let over_tcp = stack.collector_metrics()?.count("tidemark_collector_sessions_open_tcp")?;
    ensure!(over_tcp == 1, "{over_tcp} sessions over TCP");
    send(&stack, 0..300)?;
    stack.wait_posted(300)?;

    let relay = UdpRelay::open(ports.quic, behind)?;
    send(&stack, 300..600)?;
    stack.wait_transport("quic")?;
    send(&stack, 500..700)?;
    stack.wait_posted(700)?;
    assert_conserved(&stack)?;

    // UDP is cut again in the middle of a session.
    drop(relay);
    send(&stack, 700..900)?;
    stack.wait_transport("tcp")?;
    stack.wait_posted(900)?;
    assert_conserved(&stack)
}

#[test]
fn an_agent_that_may_use_only_tcp_does_through_sessions_that_end_and_a_collector_that_dies()
-> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .agent("uplink.transport", "tcp")
        .collector("session.age_max", "1s");
    Stack::run(settings, |stack| {
        let mut sent = 0;
        until("five sessions", PATIENCE, || {
            send(stack, sent..sent + 20).map_err(|error| error.to_string())?;
            sent += 20;
            let metrics = stack.collector_metrics().map_err(|error| error.to_string())?;
            match metrics.count("tidemark_collector_sessions_total") {
                Ok(5..) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        stack.wait_posted(u64::from(sent))?;
        // Each ended in good order.
        ensure!(last_error(stack)?.is_empty(), "{}", last_error(stack)?);
        stack.wait_transport("tcp")?;

        stack.kill_collector()?;
        send(stack, sent..sent + 50)?;
        stack.start_collector()?;
        stack.wait_posted(u64::from(sent + 50))?;
        stack.wait_transport("tcp")?;
        Ok(())
    })
}

#[test]
fn addresses_that_lead_nowhere_are_left_for_one_that_answers() -> Result<()> {
    let ports = Ports::free()?;
    // The kernel takes what is sent to them, and nobody ever answers.
    let silent_tcp = TcpListener::bind(("127.0.0.1", 0))?;
    let dead = silent_tcp.local_addr()?;
    let _silent_udp = UdpSocket::bind(dead)?;
    // And nobody listens on this one at all.
    let closed = Ports::free()?.quic;
    let collectors = vec![
        dead.to_string(),
        format!("127.0.0.1:{closed}"),
        "nowhere.invalid:8129".to_owned(),
        format!("127.0.0.1:{}", ports.quic),
    ];
    let mut stack = Stack::prepare(
        Settings::new(ports, CATALOGUE)
            .agent("uplink.collectors", collectors)
            .agent("uplink.server_name", "localhost"),
    )?;
    stack.start_collector()?;
    let clock = Stopwatch::start();
    stack.start_agent()?;
    send(&stack, 0..100)?;
    stack.wait_posted(100)?;
    // 7 s for each of the first two by their limits, and as much for a name server that does not answer.
    ensure!(clock.elapsed() < Duration::from_secs(45), "it took {:?}", clock.elapsed());
    assert_conserved(&stack)
}

/// Makes a further CA, with certificates of both ends that it signed, in a folder of the stack.
fn further_certificates(stack: &Stack, name: &str) -> Result<PathBuf> {
    let folder = stack.path(name);
    let made = Command::new(Program::Collector.path()?).arg("dev-certs").arg(&folder).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(folder)
}

fn install(stack: &Stack, from: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        // As tools do it: the new file replaces the old one whole.
        let next = stack.path(&format!("certs/{name}.next"));
        std::fs::copy(from.join(name), &next)?;
        std::fs::rename(next, stack.path("certs").join(name))?;
    }
    Ok(())
}

/// Waits until `log` says `what` at least so many times.
fn wait_logged(stack: &Stack, log: &str, what: &str, times: usize) -> Result<()> {
    until(&format!("{times} times {what:?} in {log}"), PATIENCE, || {
        let text = std::fs::read_to_string(stack.path(log)).map_err(|error| error.to_string())?;
        let found = text.matches(what).count();
        if found >= times { Ok(()) } else { Err(format!("{found} times")) }
    })
}

fn last_error(stack: &Stack) -> Result<String> {
    let url = format!("http://127.0.0.1:{}/status", stack.ports().admin);
    let status = stack.http().get(&url, None)?.json()?;
    Ok(status["session"]["last_error"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_ca_and_all_certificates_are_replaced_while_usage_flows() -> Result<()> {
    const READ: &str = "certificates were read again";
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .agent("uplink.renew_interval", "200ms")
        .agent("uplink.session_age_max", "2s")
        .collector("tls.renew_interval", "200ms");
    Stack::run(settings, |stack| {
        let first = stack.path("first");
        std::fs::create_dir(&first)?;
        for entry in std::fs::read_dir(stack.path("certs"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), first.join(entry.file_name()))?;
        }
        let second = further_certificates(stack, "second")?;
        send(stack, 0..100)?;

        // Both trust both CAs, then everybody is given new certificates, then the former CA goes.
        let both =
            [std::fs::read(first.join("ca.pem"))?, std::fs::read(second.join("ca.pem"))?].concat();
        std::fs::write(stack.path("both.pem"), both)?;
        std::fs::rename(stack.path("both.pem"), stack.path("certs/ca.pem"))?;
        wait_logged(stack, "agent.log", READ, 1)?;
        wait_logged(stack, "collector.log", READ, 1)?;
        send(stack, 100..200)?;
        install(stack, &second, &["collector.pem", "collector.key", "agent.pem", "agent.key"])?;
        wait_logged(stack, "agent.log", READ, 2)?;
        wait_logged(stack, "collector.log", READ, 2)?;
        send(stack, 200..300)?;
        install(stack, &second, &["ca.pem"])?;
        wait_logged(stack, "agent.log", READ, 3)?;
        wait_logged(stack, "collector.log", READ, 3)?;
        let sessions = stack.collector_metrics()?.count("tidemark_collector_sessions_total")?;
        until("a session with the new certificates", PATIENCE, || {
            let metrics = stack.collector_metrics().map_err(|error| error.to_string())?;
            match metrics.count("tidemark_collector_sessions_total") {
                Ok(now) if now > sessions + 1 => Ok(()),
                other => Err(format!("{other:?} after {sessions}")),
            }
        })?;
        send(stack, 300..400)?;
        stack.wait_posted(400)?;
        ensure!(last_error(stack)?.is_empty(), "{}", last_error(stack)?);

        // A certificate of the former CA: named at both ends, nothing is lost, and mended without a restart.
        install(stack, &first, &["agent.pem", "agent.key"])?;
        wait_logged(stack, "collector.log", "the peer's certificate is signed by", 1)?;
        send(stack, 400..500)?;
        until("the agent's error", PATIENCE, || match last_error(stack) {
            Ok(error) if error.contains("this agent's certificate is signed by") => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        ensure!(
            last_error(stack)?.contains("for tidemark://agent/agent, valid"),
            "{}",
            last_error(stack)?
        );
        install(stack, &second, &["agent.pem", "agent.key"])?;
        stack.wait_posted(500)?;
        Ok(())
    })
}
