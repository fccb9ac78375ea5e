//! The yardstick: loops that receive, count bytes, and do nothing else.

use std::io::{IoSliceMut, Read as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, setsockopt, sockopt};

use super::sender::{Sender, To};
use super::{Way, for_a_while, packets, per_second, send};

/// After this much silence a receiver looks whether it is done.
const READ_WAIT: Duration = Duration::from_millis(200);
/// As much as the agent asks for.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
const DATAGRAMS_A_CALL: usize = 64;
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Events a second that arrive.
pub(super) fn bare(way: Way, length: Duration) -> Result<u64> {
    let packets = packets(way);
    let bytes_sent = packets.iter().map(|packet| packet.bytes.len()).sum::<usize>();
    let events_sent = packets.iter().map(|packet| packet.events).sum::<u64>();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bare.socket");
    let received = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let (_, took) = std::thread::scope(|scope| -> Result<(u64, Duration)> {
        let receiver = Receiver::bind(way, &path)?;
        let to = match &receiver {
            Receiver::Udp(socket) => To::Udp(socket.local_addr()?.port()),
            Receiver::Datagrams(_) => To::Datagrams(path.clone()),
            Receiver::Stream(_) => To::Stream(path.clone()),
        };
        let sender = Sender::connect(&to)?;
        let (received, done) = (&received, &done);
        let receiving = scope.spawn(move || receiver.run(received, done));
        let outcome = for_a_while(length, |stop| send(&packets, stop, sender));
        done.store(true, Ordering::Relaxed);
        receiving.join().ok().context("the receiver panicked")??;
        outcome
    })?;
    let bytes = u128::from(received.load(Ordering::Relaxed));
    let events = bytes.saturating_mul(u128::from(events_sent));
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
            Way::UdpSingle | Way::Udp => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
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
        match self {
            Self::Udp(socket) => datagrams(socket.as_fd(), received, done),
            Self::Datagrams(socket) => datagrams(socket.as_fd(), received, done),
            Self::Stream(listener) => {
                let mut stream = listener.accept()?.0;
                let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
                loop {
                    match stream.read(&mut buffer)? {
                        0 => return Ok(()),
                        bytes => received.fetch_add(u64::try_from(bytes)?, Ordering::Relaxed),
                    };
                }
            }
        }
    }
}

fn datagrams(socket: BorrowedFd<'_>, received: &AtomicU64, done: &AtomicBool) -> Result<()> {
    let mut buffers = vec![vec![0; DATAGRAM_BYTES_MAX]; DATAGRAMS_A_CALL];
    let mut headers = MultiHeaders::<()>::preallocate(DATAGRAMS_A_CALL, None);
    loop {
        let mut slices: Vec<_> =
            buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None) {
            Ok(messages) => {
                let bytes: usize = messages.map(|message| message.bytes).sum();
                received.fetch_add(u64::try_from(bytes)?, Ordering::Relaxed);
            }
            Err(_) if done.load(Ordering::Relaxed) => return Ok(()),
            // Silence.
            Err(_) => {}
        }
    }
}
