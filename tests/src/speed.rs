//! How fast, and in how much memory: the agent against a bare loop that only receives.
//!
//! For each door, packets of many events are sent as fast as they are taken, in turn to a bare
//! receiving loop in this process (the yardstick) and to the agent, which parses, makes durable, seals
//! and ships them to a collector that posts them. Sender, receiver and collector share the machine.
//!
//! **Owns** the measurement. **Does not own** a verdict: it prints figures. Rates are of events that
//! arrived, and for the agent of events that are posted; over UDP some are lost, which is shown.

use std::io::{Read as _, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::doors::Lines;
use crate::settings::{Ports, Settings};
use crate::stack::Stack;
use crate::wait::{Stopwatch, pause};

const CATALOGUE: &str = r#"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["key"]
[[customer]]
id = "acme"
"#;
const READ_WAIT: Duration = Duration::from_millis(200);
const KEYS: u64 = 1_000;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// For each door and each of the two receivers.
    pub seconds: u64,
}

/// How events are sent, and packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Udp,
    UnixDatagram,
    Events,
}

impl Way {
    const ALL: [Self; 3] = [Self::Udp, Self::UnixDatagram, Self::Events];

    fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp, 1,400 bytes",
            Self::UnixDatagram => "unix datagram, 8,000 bytes",
            Self::Events => "events.socket, 60,000 bytes",
        }
    }

    fn packet_bytes(self) -> usize {
        match self {
            Self::Udp => 1_400,
            Self::UnixDatagram => 8_000,
            Self::Events => 60_000,
        }
    }
}

/// A packet and how many events it holds.
struct Packet {
    bytes: Vec<u8>,
    events: u64,
}

/// Packets that together hold every key.
fn packets(way: Way) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut packet = Packet { bytes: Vec::new(), events: 0 };
    for key in 0..KEYS {
        // Eight values a line, as clients pack them.
        let line = format!("api.calls:1:2:3:4:5:6:7:8|c|#customer:acme,key:k{key}\n");
        if packet.bytes.len().saturating_add(line.len()) > way.packet_bytes() {
            let next = Packet { bytes: Vec::new(), events: 0 };
            packets.push(std::mem::replace(&mut packet, next));
        }
        packet.bytes.extend_from_slice(line.as_bytes());
        packet.events = packet.events.saturating_add(8);
    }
    packets.push(packet);
    packets
}

/// Measures all doors; a line for each goes to `out`.
///
/// # Errors
/// When the programs do not come up, or what is sent does not arrive.
pub fn run(options: Options, out: &mut dyn Write) -> Result<()> {
    let mut stack = Stack::start(Settings::new(Ports::free()?, CATALOGUE))?;
    pause(Duration::from_secs(2));
    writeln!(out, "agent, idle:   {:>6} KiB resident", stack.agent()?.resident_kib()?)?;
    writeln!(
        out,
        "{:<28} {:>13} {:>13} {:>6} {:>9} {:>11}",
        "door", "bare loop/s", "agent/s", "ratio", "lost", "resident"
    )?;
    let length = Duration::from_secs(options.seconds);
    for way in Way::ALL {
        let bare = bare(way, length)?;
        let agent = agent(way, length, &mut stack)?;
        let percent = agent.per_second.saturating_mul(100).checked_div(bare).unwrap_or(0);
        writeln!(
            out,
            "{:<28} {bare:>13} {:>13} {percent:>5}% {:>9} {:>7} KiB",
            way.name(),
            agent.per_second,
            agent.lost,
            agent.resident_kib
        )?;
    }
    crate::conserved::assert_conserved(&stack)
}

/// Sends until `stop`; returns how many events the kernel took.
fn send(
    packets: &[Packet],
    stop: &AtomicBool,
    mut one: impl FnMut(&Packet) -> Result<()>,
) -> Result<u64> {
    let mut sent: u64 = 0;
    for packet in packets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        one(packet)?;
        sent = sent.saturating_add(packet.events);
    }
    Ok(sent)
}

/// Lets `sender` run for `length`; returns what it sent and how long it took.
fn for_a_while(
    length: Duration,
    sender: impl FnOnce(&AtomicBool) -> Result<u64> + Send,
) -> Result<(u64, Duration)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clock = Stopwatch::start();
        let sending = scope.spawn(|| sender(&stop));
        pause(length);
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join().ok().context("the sender panicked")??;
        Ok((sent, clock.elapsed()))
    })
}

fn per_second(events: u64, took: Duration) -> u64 {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    events.saturating_mul(1_000).checked_div(millis).unwrap_or(0)
}

/// The yardstick: events a second that arrive at a loop which counts bytes and does nothing else.
fn bare(way: Way, length: Duration) -> Result<u64> {
    let packets = packets(way);
    let bytes_sent = packets.iter().map(|packet| packet.bytes.len()).sum::<usize>();
    let events_sent = packets.iter().map(|packet| packet.events).sum::<u64>();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bare.socket");
    let received = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let (_, took) = std::thread::scope(|scope| -> Result<(u64, Duration)> {
        let receiver = Receiver::bind(way, &path)?;
        let sender = Sender::connect(way, &receiver, &path)?;
        let (received, done) = (&received, &done);
        let receiving = scope.spawn(move || receiver.run(received, done));
        let outcome = for_a_while(length, |stop| {
            let mut sender = sender;
            send(&packets, stop, |packet| sender.send(&packet.bytes))
        });
        done.store(true, Ordering::Relaxed);
        receiving.join().ok().context("the receiver panicked")??;
        outcome
    })?;
    let bytes = received.load(Ordering::Relaxed);
    let events = u128::from(bytes).saturating_mul(u128::from(events_sent));
    let events = events.checked_div(u128::try_from(bytes_sent)?).unwrap_or(0);
    Ok(per_second(u64::try_from(events)?, took))
}

enum Receiver {
    Udp(UdpSocket),
    Datagrams(UnixDatagram),
    Stream(UnixListener),
}

impl Receiver {
    fn bind(way: Way, path: &Path) -> Result<Self> {
        Ok(match way {
            Way::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                nix::sys::socket::setsockopt(
                    &socket,
                    nix::sys::socket::sockopt::RcvBuf,
                    &(8 << 20),
                )?;
                socket.set_read_timeout(Some(READ_WAIT))?;
                Self::Udp(socket)
            }
            Way::UnixDatagram => {
                let socket = UnixDatagram::bind(path)?;
                socket.set_read_timeout(Some(READ_WAIT))?;
                Self::Datagrams(socket)
            }
            Way::Events => Self::Stream(UnixListener::bind(path)?),
        })
    }

    /// Counts bytes until `done` and nothing more comes.
    fn run(self, received: &AtomicU64, done: &AtomicBool) -> Result<()> {
        let mut buffer = vec![0; 65_536];
        let mut stream = match &self {
            Self::Stream(listener) => Some(listener.accept()?.0),
            Self::Udp(_) | Self::Datagrams(_) => None,
        };
        loop {
            let read = match (&self, &mut stream) {
                (Self::Udp(socket), _) => socket.recv(&mut buffer),
                (Self::Datagrams(socket), _) => socket.recv(&mut buffer),
                (Self::Stream(_), Some(stream)) => stream.read(&mut buffer),
                (Self::Stream(_), None) => Ok(0),
            };
            match read {
                // The end of a stream.
                Ok(0) => return Ok(()),
                Ok(bytes) => {
                    received.fetch_add(u64::try_from(bytes)?, Ordering::Relaxed);
                }
                Err(_) if done.load(Ordering::Relaxed) => return Ok(()),
                Err(_) => {}
            }
        }
    }
}

enum Sender {
    Udp(UdpSocket),
    Datagrams(UnixDatagram),
    Stream(UnixStream),
}

impl Sender {
    fn connect(way: Way, receiver: &Receiver, path: &Path) -> Result<Self> {
        Ok(match (way, receiver) {
            (Way::Udp, Receiver::Udp(to)) => Self::udp(to.local_addr()?.port())?,
            (Way::Events, _) => Self::Stream(UnixStream::connect(path)?),
            (Way::Udp | Way::UnixDatagram, _) => Self::datagrams(path)?,
        })
    }

    fn udp(port: u16) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, port))?;
        Ok(Self::Udp(socket))
    }

    fn datagrams(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self::Datagrams(socket))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Udp(socket) => drop(socket.send(bytes)?),
            Self::Datagrams(socket) => drop(socket.send(bytes)?),
            Self::Stream(stream) => stream.write_all(bytes)?,
        }
        Ok(())
    }
}

/// What the agent reached.
struct Reached {
    per_second: u64,
    lost: u64,
    resident_kib: u64,
}

/// Events a second that are accepted, durable and posted, the wait for the last of them included.
fn agent(way: Way, length: Duration, stack: &mut Stack) -> Result<Reached> {
    let packets = packets(way);
    let before = stack.wait_posted(0)?;
    let clock = Stopwatch::start();
    let port = stack.ports().udp;
    let (sent, _) = match way {
        Way::Udp | Way::UnixDatagram => {
            let mut sender = match way {
                Way::Udp => Sender::udp(port)?,
                Way::UnixDatagram | Way::Events => Sender::datagrams(&stack.path("dsd.socket"))?,
            };
            for_a_while(length, |stop| send(&packets, stop, |packet| sender.send(&packet.bytes)))?
        }
        Way::Events => {
            let path = stack.path("events.socket");
            for_a_while(length, |stop| {
                let mut lines = Lines::to(&path)?;
                send(&packets, stop, |packet| {
                    // Every packet is durable before the next is sent.
                    lines.send(&packet.bytes, packet.events / 8)?;
                    lines.wait_durable().map(drop)
                })
            })?
        }
    };
    let resident_kib = stack.agent()?.resident_kib()?;
    let accepted = stack.wait_posted(before)?.saturating_sub(before);
    Ok(Reached {
        per_second: per_second(accepted, clock.elapsed()),
        lost: sent.saturating_sub(accepted),
        resident_kib,
    })
}
