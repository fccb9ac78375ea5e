//! Sends as fast as what is sent is taken.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::doors::Lines;
use crate::wait::pause;

use super::Packet;

/// After so many datagrams the receiver's queue is looked at.
const LOOK_EVERY: u64 = 64;
/// Above this many queued bytes the receiver is let read; its buffer holds 4 MiB and more.
const QUEUED_BYTES_MAX: u64 = 1 << 20;
const LET_READ: Duration = Duration::from_micros(200);
/// A client of `events.socket` has at most this many packets on their way to the disk.
const PACKETS_ON_THEIR_WAY_MAX: usize = 16;

/// Where to.
#[derive(Debug, Clone)]
pub(super) enum To {
    Udp(u16),
    Datagrams(PathBuf),
    /// A stream that nobody answers.
    Stream(PathBuf),
    /// `events.socket`.
    Acknowledged(PathBuf),
}

/// One connection.
#[derive(Debug)]
pub(super) enum Sender {
    Udp { socket: UdpSocket, port: u16, sent: u64 },
    Datagrams(UnixDatagram),
    Stream(UnixStream),
    Acknowledged { lines: Lines, on_their_way: VecDeque<u64> },
}

impl Sender {
    pub(super) fn connect(to: &To) -> Result<Self> {
        Ok(match to {
            To::Udp(port) => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                socket.connect((Ipv4Addr::LOCALHOST, *port))?;
                Self::Udp { socket, port: *port, sent: 0 }
            }
            To::Datagrams(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Self::Datagrams(socket)
            }
            To::Stream(path) => Self::Stream(UnixStream::connect(path)?),
            To::Acknowledged(path) => {
                Self::Acknowledged { lines: Lines::to(path)?, on_their_way: VecDeque::new() }
            }
        })
    }

    pub(super) fn send(&mut self, packet: &Packet) -> Result<()> {
        match self {
            Self::Udp { socket, port, sent } => {
                socket.send(&packet.bytes)?;
                *sent = sent.saturating_add(1);
                if sent.is_multiple_of(LOOK_EVERY) {
                    while queued(*port)? > QUEUED_BYTES_MAX {
                        pause(LET_READ);
                    }
                }
            }
            Self::Datagrams(socket) => {
                socket.send(&packet.bytes)?;
            }
            Self::Stream(stream) => stream.write_all(&packet.bytes)?,
            Self::Acknowledged { lines, on_their_way } => {
                lines.send(&packet.bytes, packet.lines)?;
                on_their_way.push_back(lines.sent());
                if on_their_way.len() > PACKETS_ON_THEIR_WAY_MAX
                    && let Some(oldest) = on_their_way.pop_front()
                {
                    lines.wait_durable_to(oldest)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for what is still on its way, where one can.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Self::Acknowledged { lines, .. } = self {
            lines.wait_durable()?;
        }
        Ok(())
    }
}

/// Bytes in the receive queue of the UDP socket at `port`, as the kernel shows them.
fn queued(port: u16) -> Result<u64> {
    let table = std::fs::read_to_string("/proc/net/udp").context("failed to read /proc/net/udp")?;
    let local = format!(":{port:04X}");
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut at_port =
        columns.filter(|columns| columns.get(1).is_some_and(|address| address.ends_with(&local)));
    let queues = at_port.next().and_then(|columns| columns.get(4).map(|text| (*text).to_owned()));
    let queues = queues.context("the socket is not in /proc/net/udp")?;
    let receive = queues.split(':').nth(1).context("no queue in /proc/net/udp")?;
    Ok(u64::from_str_radix(receive, 16)?)
}
