//! What is not metered, sent on to another DogStatsD server.
//!
//! **Owns** the socket, what is counted as forwarded or dropped, and the refusal to send to a door of this
//! agent. **Does not own** which lines are sent ([`super::core`]) or how they are packed ([`packer`]).
//!
//! Invariants: sending never waits: what the kernel does not take at once is counted and gone, like any
//! datagram. Nothing here is usage, so nothing of it is kept.
//!
//! A loop through other agents cannot be seen from here: two that forward to each other send the same lines
//! for ever. One's `metered` must take what the other forwards.

pub mod packer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::figures::DoorFigures;
use packer::{Packed, Packer};

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardAddress {
    Udp(SocketAddr),
    /// The path of a datagram socket.
    Unix(PathBuf),
}

impl fmt::Display for ForwardAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Why nothing can be forwarded.
#[derive(Debug, Error)]
pub enum ForwardError {
    #[error(
        "failed to forward to {address}: it is this agent's own door, and what is not metered would go round in \
         circles; name another server in forward.address"
    )]
    OwnDoor { address: ForwardAddress },
    #[error("failed to forward to {address}: {source}")]
    Socket { address: ForwardAddress, source: io::Error },
}

/// Whether sending to `address` would come in again by one of these datagram doors.
#[must_use]
pub fn is_own_door(address: &ForwardAddress, udp: &[SocketAddr], unix: Option<&Path>) -> bool {
    match address {
        ForwardAddress::Udp(address) => udp.iter().any(|door| reaches(*address, *door)),
        ForwardAddress::Unix(path) => unix.is_some_and(|door| is_same_file(path, door)),
    }
}

fn reaches(address: SocketAddr, door: SocketAddr) -> bool {
    let (to, at) = (address.ip().to_canonical(), door.ip().to_canonical());
    let is_here = || to.is_loopback() || UdpSocket::bind((to, 0)).is_ok();
    // A door on [::] takes what is sent by IPv4, too.
    let takes = at.is_unspecified() && (at.is_ipv6() || to.is_ipv4());
    address.port() == door.port() && (to == at || (takes && is_here()))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    one == other
        || id(one).is_some_and(|found| id(other) == Some(found))
        || place(one).is_some_and(|found| place(other) == Some(found))
}

/// Sends packed lines.
#[derive(Debug)]
pub struct Forwarder {
    socket: Socket,
    figures: Arc<DoorFigures>,
    /// The log has told of a failure.
    told: bool,
}

#[derive(Debug)]
enum Socket {
    /// Connected, so that the kernel tells when nobody is there.
    Udp(UdpSocket),
    /// Not connected: the server may be started anew, with a new socket at the same path.
    Unix { socket: UnixDatagram, path: PathBuf },
}

impl Socket {
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => match socket.send(bytes) {
                // This is about a datagram before; the present one was not sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    socket.send(bytes).map(drop)
                }
                sent => sent.map(drop),
            },
            Self::Unix { socket, path } => socket.send_to(bytes, path).map(drop),
        }
    }
}

impl Forwarder {
    /// Opens a socket to `address`. `udp` and `unix` are the agent's own doors, as they are bound.
    ///
    /// # Errors
    /// If the address is one of those, or there is no socket to be had.
    pub fn open(
        address: &ForwardAddress,
        udp: &[SocketAddr],
        unix: Option<&Path>,
        figures: Arc<DoorFigures>,
    ) -> Result<Self, ForwardError> {
        if is_own_door(address, udp, unix) {
            return Err(ForwardError::OwnDoor { address: address.clone() });
        }
        let socket = open(address)
            .map_err(|source| ForwardError::Socket { address: address.clone(), source })?;
        Ok(Self { socket, figures, told: false })
    }

    /// Sends what `packer` has packed; all of it with [`Packed::All`].
    pub fn send(&mut self, packer: &mut Packer, packed: Packed) {
        self.figures.forward_dropped.add(packer.take_left_out());
        while let Some(packet) = packer.take(packed) {
            match self.socket.send(&packet.bytes) {
                Ok(()) => self.figures.forwarded.add(packet.lines),
                Err(error) => {
                    self.figures.forward_dropped.add(packet.lines);
                    if !std::mem::replace(&mut self.told, true) {
                        tracing::warn!(%error, "what is not metered could not be forwarded, the first time since the start; forward_dropped counts such lines");
                    }
                }
            }
        }
    }
}

fn open(address: &ForwardAddress) -> io::Result<Socket> {
    match address {
        ForwardAddress::Udp(address) => {
            let any: SocketAddr = if address.is_ipv4() {
                (Ipv4Addr::UNSPECIFIED, 0).into()
            } else {
                (Ipv6Addr::UNSPECIFIED, 0).into()
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            socket.set_nonblocking(true)?;
            Ok(Socket::Udp(socket))
        }
        ForwardAddress::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Socket::Unix { socket, path: path.clone() })
        }
    }
}
