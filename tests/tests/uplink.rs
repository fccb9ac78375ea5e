//! The way from agent to collector in hard times: no UDP, dead addresses, renewed certificates.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::conserved::assert_conserved;
use tidemark_tests::doors::Lines;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::udp_relay::UdpRelay;
use tidemark_tests::wait::until;

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[customer]]
id = "acme"
"#;
const PATIENCE: Duration = Duration::from_secs(60);

fn send(stack: &Stack, ids: std::ops::Range<u32>) -> Result<()> {
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    let text: String = ids
        .clone()
        .map(|id| format!("api.calls:1|c|#customer:acme,source:uplink,id:{id}\n"))
        .collect();
    lines.send(text.as_bytes(), u64::try_from(ids.len())?)?;
    let refusals = lines.wait_durable()?;
    ensure!(refusals.is_empty(), "{refusals:?}");
    Ok(())
}

fn wait_transport(stack: &Stack, transport: &str) -> Result<()> {
    let sample = format!("tidemark_agent_uplink_transport{{transport=\"{transport}\"}}");
    until(&format!("a session over {transport}"), PATIENCE, || {
        let metrics = stack.agent_metrics().map_err(|error| error.to_string())?;
        let live = metrics.count("tidemark_agent_session_state{state=\"connected\"}");
        match (metrics.count(&sample), live) {
            (Ok(1), Ok(1)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
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
    wait_transport(&stack, "tcp")?;
    let over_tcp = stack.collector_metrics()?.count("tidemark_collector_sessions_open_tcp")?;
    ensure!(over_tcp == 1, "{over_tcp} sessions over TCP");
    send(&stack, 0..300)?;
    stack.wait_posted(300)?;

    let relay = UdpRelay::open(ports.quic, behind)?;
    send(&stack, 300..600)?;
    wait_transport(&stack, "quic")?;
    send(&stack, 500..700)?;
    stack.wait_posted(700)?;
    assert_conserved(&stack)?;

    // UDP is cut again in the middle of a session.
    drop(relay);
    send(&stack, 700..900)?;
    wait_transport(&stack, "tcp")?;
    stack.wait_posted(900)?;
    assert_conserved(&stack)
}

#[test]
fn an_agent_that_may_use_only_tcp_does() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE).agent("uplink.transport", "tcp");
    Stack::run(settings, |stack| {
        wait_transport(stack, "tcp")?;
        send(stack, 0..50)?;
        stack.kill_collector()?;
        send(stack, 50..100)?;
        stack.start_collector()?;
        stack.wait_posted(100)?;
        wait_transport(stack, "tcp")?;
        assert_conserved(stack)
    })
}
