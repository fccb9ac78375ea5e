//! The network between agent and collector: partitions, one-way too, loss, a slow link, no UDP at all,
//! and packets that are late, doubled, out of order and corrupt.
//!
//! As root, both stand in network namespaces of their own and the kernel does the harm (nftables, `tc`).
//! What this kernel cannot do (often `netem`), and everything where namespaces are not to be had, is
//! done by a relay on loopback. The row says which it was.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::bench::{Bench, Form};
use super::books::{AgentLife, settings, wait_advance};
use super::namespaces::{End, Namespaces};
use super::relay::{Faults, Relay, Weather};
use super::system::not_root;
use crate::binaries::Program;
use crate::settings::Settings;
use crate::stack::Stack;
use crate::wait::pause;

/// 256 kbit/s.
const SLOW_BYTES_PER_SECOND: u64 = 32_000;
const LOSS_PERCENT: u64 = 30;
const MANGLED: Weather = Weather {
    loss_percent: 10,
    duplicate_percent: 10,
    corrupt_percent: 10,
    delay: Duration::from_millis(100),
    jitter: Duration::from_millis(60),
    bytes_per_second: None,
};
/// The same for `tc`.
const NETEM: &[&str] = &[
    "netem",
    "delay",
    "100ms",
    "60ms",
    "loss",
    "10%",
    "duplicate",
    "10%",
    "corrupt",
    "10%",
    "reorder",
    "25%",
];
const TBF: &[&str] = &["tbf", "rate", "256kbit", "burst", "10kb", "latency", "400ms"];

/// What is done to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    BothWays,
    ToCollector,
    ToAgent,
    Loss,
    Slow,
    NoUdp,
    Mangled,
}

impl Harm {
    /// The relay passes UDP alone, so that `NoUdp` is `BothWays` there.
    const BY_RELAY: [Self; 6] =
        [Self::BothWays, Self::ToCollector, Self::ToAgent, Self::Loss, Self::Slow, Self::Mangled];
    const BY_KERNEL: [Self; 6] =
        [Self::BothWays, Self::ToCollector, Self::ToAgent, Self::Loss, Self::Slow, Self::NoUdp];

    fn name(self) -> &'static str {
        match self {
            Self::BothWays => "nothing passes",
            Self::ToCollector => "nothing passes to the collector",
            Self::ToAgent => "nothing passes to the agent",
            Self::Loss => "30% loss both ways",
            Self::Slow => "256 kbit/s both ways",
            Self::NoUdp => "no UDP",
            Self::Mangled => "late, doubled, shuffled, corrupt",
        }
    }

    fn faults(self) -> Faults {
        let lossy = |loss_percent| Weather { loss_percent, ..Weather::default() };
        let slow = Weather { bytes_per_second: Some(SLOW_BYTES_PER_SECOND), ..Weather::default() };
        let (to_collector, to_agent) = match self {
            Self::BothWays | Self::NoUdp => (lossy(100), lossy(100)),
            Self::ToCollector => (lossy(100), lossy(0)),
            Self::ToAgent => (lossy(0), lossy(100)),
            Self::Loss => (lossy(LOSS_PERCENT), lossy(LOSS_PERCENT)),
            Self::Slow => (slow, slow),
            Self::Mangled => (MANGLED, MANGLED),
        };
        Faults { to_collector, to_agent }
    }

    fn by_kernel(self, net: &Namespaces) -> Result<()> {
        let loss = format!("numgen random mod 100 < {LOSS_PERCENT}");
        match self {
            Self::BothWays => {
                net.drop_at(End::Agent, "").and_then(|()| net.drop_at(End::Collector, ""))
            }
            Self::ToCollector => net.drop_at(End::Collector, ""),
            Self::ToAgent => net.drop_at(End::Agent, ""),
            Self::Loss => {
                net.drop_at(End::Agent, &loss)?;
                net.drop_at(End::Collector, &loss)
            }
            Self::NoUdp => {
                net.drop_at(End::Agent, "meta l4proto udp")?;
                net.drop_at(End::Collector, "meta l4proto udp")
            }
            Self::Slow => net.shape(End::Agent, TBF).and_then(|()| net.shape(End::Collector, TBF)),
            Self::Mangled => {
                net.shape(End::Agent, NETEM).and_then(|()| net.shape(End::Collector, NETEM))
            }
        }
    }

    /// Whether packets are lost to the filters, whose count must show it.
    fn filters(self) -> bool {
        match self {
            Self::BothWays | Self::ToCollector | Self::ToAgent | Self::Loss | Self::NoUdp => true,
            Self::Slow | Self::Mangled => false,
        }
    }
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let namespaces = match not_root() {
        Some(why) => Err(why),
        None => Namespaces::new(&mut bench.random()).map_err(|error| format!("{error:#}")),
    };
    match namespaces {
        Ok(net) if net.has_netem() => {
            by_kernel(bench, &net, &[&Harm::BY_KERNEL[..], &[Harm::Mangled]].concat())
        }
        Ok(net) => {
            by_kernel(bench, &net, &Harm::BY_KERNEL)?;
            by_relay(bench, &[Harm::Mangled])
        }
        Err(why) => {
            bench.skip("between namespaces", why)?;
            by_relay(bench, &Harm::BY_RELAY)
        }
    }
}

/// A session that is cut off is noticed soon in the short form.
fn timed(bench: &Bench<'_>) -> Result<Settings> {
    let settings = settings()?.agent("uplink.quic_probe_interval", "1s");
    Ok(match bench.plan.form {
        Form::Short => settings
            .collector("session.idle_max", "2s")
            .collector("session.keep_alive", "500ms")
            .collector("session.confirm_interval", "1s"),
        Form::Long => settings,
    })
}

fn by_kernel(bench: &mut Bench<'_>, net: &Namespaces, harms: &[Harm]) -> Result<()> {
    let length = bench.length(Duration::from_secs(4), Duration::from_secs(90));
    let settings = timed(bench)?.apart(net.hosts(), net.uplink());
    let mut stack = Stack::prepare(settings)?;
    stack.launch(Program::Agent, net.launch(End::Agent));
    stack.launch(Program::Collector, net.launch(End::Collector));
    stack.start_both().with_context(|| stack.logs())?;
    let mut books = bench.books()?;
    for harm in harms {
        let by = match harm {
            Harm::Slow => "tc tbf",
            Harm::Mangled => "tc netem",
            Harm::BothWays | Harm::ToCollector | Harm::ToAgent | Harm::Loss | Harm::NoUdp => "nft",
        };
        bench.case(
            &mut books,
            &mut stack,
            (harm.name(), by),
            AgentLife::Lives,
            |stack, shared| {
                // After the harm before, too, the session finds back to QUIC.
                stack.wait_transport("quic")?;
                harm.by_kernel(net)?;
                pause(length);
                if *harm == Harm::NoUdp {
                    stack.wait_transport("tcp")?;
                }
                // Whatever the network does, the acknowledged doors go on.
                wait_advance(shared)?;
                let dropped = net.heal()?;
                ensure!(!harm.filters() || dropped > 0, "the filter dropped nothing");
                Ok(())
            },
        )?;
    }
    Ok(())
}

fn by_relay(bench: &mut Bench<'_>, harms: &[Harm]) -> Result<()> {
    let length = bench.length(Duration::from_secs(4), Duration::from_secs(90));
    let settings = timed(bench)?;
    let collector = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.ports.quic));
    let relay = Relay::start(collector, bench.random())?;
    let uplink = vec![format!("127.0.0.1:{}", relay.port())];
    let mut stack = Stack::prepare(settings.agent("uplink.collectors", uplink))?;
    stack.start_both().with_context(|| stack.logs())?;
    let mut books = bench.books()?;
    for harm in harms {
        bench.case(
            &mut books,
            &mut stack,
            (harm.name(), "relay"),
            AgentLife::Lives,
            |_, shared| {
                relay.set(harm.faults());
                pause(length);
                wait_advance(shared)?;
                relay.set(Faults::default());
                Ok(())
            },
        )?;
    }
    let counts = &relay.counts;
    let [passed, lost, doubled, corrupted] =
        [&counts.passed, &counts.lost, &counts.doubled, &counts.corrupted]
            .map(|count| count.load(Ordering::Relaxed));
    ensure!(
        passed > 0 && lost > 0 && doubled > 0 && corrupted > 0,
        "the relay did no harm: {passed} passed, {lost} lost, {doubled} doubled, {corrupted} corrupt"
    );
    writeln!(
        bench.out(),
        "relay: {passed} datagrams passed, {lost} lost, {doubled} doubled, {corrupted} corrupted"
    )?;
    Ok(())
}
