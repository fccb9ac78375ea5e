//! The sockets that datagrams come in by.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use thiserror::Error;

use super::drops::{self, DropCount};
use crate::event::Door;
use crate::intake::socket_file::{SocketFile, SocketFileError};

/// Where datagrams are received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatagramConfig {
    pub udp: Vec<SocketAddr>,
    pub unix: Option<PathBuf>,
    /// Permission bits of the socket file.
    pub socket_mode: u32,
    /// What the kernel is asked to buffer for each UDP socket.
    pub receive_buffer_bytes: usize,
}

/// Why a datagram door could not be opened.
#[derive(Debug, Error)]
pub enum BindError {
    #[error(
        "failed to bind UDP {address}: {source}; is another agent or a DogStatsD server running there?"
    )]
    Udp { address: SocketAddr, source: io::Error },
    #[error("{sockets} datagram sockets are configured; at most {sockets_max} are served")]
    TooMany { sockets: usize, sockets_max: usize },
    #[error(transparent)]
    SocketFile(#[from] SocketFileError),
    #[error("failed to set up the datagram doors: {0}")]
    Setup(#[from] Errno),
    #[error("failed to set up the datagram doors: {0}")]
    Io(#[from] io::Error),
}

/// One open datagram socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) door: Door,
    kind: Kind,
    pub(super) drops: DropCount,
    /// The receive buffer that the kernel granted; 0 where senders are pushed back instead.
    pub(super) receive_buffer_bytes: usize,
}

#[derive(Debug)]
enum Kind {
    Udp { socket: UdpSocket, inode: u64 },
    Unix { socket: UnixDatagram, _file: SocketFile },
}

impl Socket {
    /// Opens all that `config` names.
    pub(super) fn open_all(config: &DatagramConfig) -> Result<Vec<Self>, BindError> {
        let mut sockets = Vec::new();
        let mut absent = None;
        for &address in &config.udp {
            match UdpSocket::bind(address) {
                Ok(socket) => sockets.push(Self::udp(socket, config.receive_buffer_bytes)?),
                Err(source) if is_absent_ipv6(address, &source) => absent = Some((address, source)),
                Err(source) => return Err(BindError::Udp { address, source }),
            }
        }
        if let Some((address, source)) = absent {
            if sockets.is_empty() {
                return Err(BindError::Udp { address, source });
            }
            tracing::warn!(%address, error = %source, "this host has no IPv6 loopback; the other UDP addresses serve");
        }
        if let Some(path) = &config.unix {
            let (socket, file) = SocketFile::datagram(path, config.socket_mode)?;
            socket.set_nonblocking(true)?;
            let kind = Kind::Unix { socket, _file: file };
            sockets.push(Self {
                door: Door::UnixDatagram,
                kind,
                drops: DropCount::default(),
                receive_buffer_bytes: 0,
            });
        }
        Ok(sockets)
    }

    fn udp(socket: UdpSocket, bytes: usize) -> Result<Self, BindError> {
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        let granted = enlarge_receive_buffer(&socket, bytes)?;
        let address = socket.local_addr()?;
        if granted < bytes {
            tracing::warn!(
                %address, asked_bytes = bytes, granted_bytes = granted,
                "the receive buffer is smaller than asked for, bursts may be lost; raise net.core.rmem_max"
            );
        }
        let inode = nix::sys::stat::fstat(&socket)?.st_ino;
        let kind = Kind::Udp { socket, inode };
        Ok(Self {
            door: Door::Udp,
            kind,
            drops: DropCount::default(),
            receive_buffer_bytes: granted,
        })
    }

    /// Reads what the kernel's tables say of this socket's drops.
    pub(super) fn look_up_drops(&mut self) -> io::Result<()> {
        match &self.kind {
            Kind::Udp { inode, .. } => {
                if let Some(count) = drops::listed(*inode)? {
                    self.drops.observe(count);
                }
                Ok(())
            }
            Kind::Unix { .. } => Ok(()),
        }
    }

    /// The address of a UDP socket.
    pub(super) fn udp_address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Udp { socket, .. } => socket.local_addr().ok(),
            Kind::Unix { .. } => None,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Udp { socket, .. } => socket.as_fd(),
            Kind::Unix { socket, .. } => socket.as_fd(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Nobody can send to ::1 on a host without it, so nothing is lost there.
pub(in crate::intake) fn is_absent_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    let absent = matches!(errno, Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT));
    address.is_ipv6() && address.ip().is_loopback() && absent
}

/// Asks for `bytes`, first past the system's limit (which needs a capability), then within it.
/// Returns what was granted: the kernel reports twice that, for its bookkeeping.
fn enlarge_receive_buffer(socket: &UdpSocket, bytes: usize) -> nix::Result<usize> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(getsockopt(socket, sockopt::RcvBuf)? / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_ipv6_loopback_is_forgiven() {
        let check = |address: &str, errno: Errno, expected: bool| {
            let error = io::Error::from(errno);
            assert_eq!(
                is_absent_ipv6(address.parse().unwrap(), &error),
                expected,
                "{address} {errno}"
            );
        };
        check("[::1]:8125", Errno::EADDRNOTAVAIL, true);
        check("[::1]:8125", Errno::EAFNOSUPPORT, true);
        check("[::1]:8125", Errno::EADDRINUSE, false);
        check("[2001:db8::1]:8125", Errno::EADDRNOTAVAIL, false);
        check("127.0.0.1:8125", Errno::EADDRNOTAVAIL, false);
    }
}
