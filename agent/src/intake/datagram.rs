//! The doors that cannot answer: UDP and the Unix datagram socket.
//!
//! **Owns** the sockets, their receive buffers, and the count of what the kernel dropped. **Does not
//! own** what is in a datagram, nor the thread that calls [`Datagrams::receive`].
//!
//! Datagrams are read by the batch (recvmmsg) into one arena, and handed on as borrowed bytes: never
//! copied, never sent between threads. After a UDP batch that was not full the next wait begins with a
//! nap of 100 us, so that the next batch is a larger one: a third more datagrams a second at full
//! load, and one more system call per lone datagram. A Unix datagram ends the nap, since its sender is
//! blocked when a few (`net.unix.max_dgram_qlen`) are queued.
//!
//! Limits: a datagram is read up to 65,536 bytes, which no UDP datagram exceeds; a longer Unix one is
//! flagged. The arena is 4 MiB of addresses, of which only pages that a datagram reached take memory.
//!
//! Invariants: no error of one socket, datagram or call closes a door. Such an error is counted, and
//! followed by a pause, so that a lasting one cannot take the processor.

mod drops;
mod sockets;

#[cfg(test)]
mod tests;

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg};
use nix::sys::time::TimeSpec;

use super::DatagramSource;
use super::figures::DoorFigures;
use crate::event::Door;
use sockets::Socket;

pub(super) use sockets::is_absent_ipv6;
pub use sockets::{BindError, DatagramConfig};

/// Of a datagram, at most this many bytes are read.
pub const DATAGRAM_BYTES_MAX: usize = 65_536;
/// One system call reads at most this many datagrams.
pub const BATCH_DATAGRAMS_MAX: usize = 64;
/// At most this many datagram sockets are served.
pub const SOCKETS_MAX: usize = 16;
/// What the kernel is asked to buffer for each UDP socket, unless configured. The kernel's usual
/// default loses 0.2 % at 200,000 datagrams a second.
pub const RECEIVE_BUFFER_BYTES_DEFAULT: usize = 8 << 20;

/// A slot of the arena. Slots a power of two apart would contend for the same lines of the cache.
const SLOT_BYTES: usize = DATAGRAM_BYTES_MAX + 64;
/// How long a short UDP batch lets the next one gather.
const NAP: Duration = Duration::from_micros(100);
/// How long a failed receive call lets the cause pass.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// After this long without a datagram the kernel is asked what it dropped after the last one.
const QUIET: Duration = Duration::from_secs(1);

/// The open datagram doors.
#[derive(Debug)]
pub struct Datagrams {
    sockets: Vec<Socket>,
    waker: Arc<EventFd>,
    arena: Box<[u8]>,
    figures: Arc<DoorFigures>,
    pause: Pause,
    quiet: Quiet,
    /// Drops of sockets that are closed.
    closed_drops: u64,
}

/// One datagram, as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub bytes: &'a [u8],
    /// Whether the datagram was longer than [`DATAGRAM_BYTES_MAX`]: its last line is cut.
    pub truncated: bool,
}

/// What one call of [`Datagrams::receive`] brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    pub datagrams: usize,
    pub woken: bool,
}

/// Ends a wait in [`Datagrams::receive`] from another thread; a wake before the wait is not lost.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub fn wake(&self) {
        // Fails only when 2^64 - 2 wakes are pending, and then the receiver is awake.
        let _pending = self.0.write(1);
    }
}

/// What comes before the next wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    Nothing,
    /// A short UDP batch.
    Nap,
    Error,
}

/// Whether drops after the last datagram are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quiet {
    /// Datagrams came, and this long nothing has come since.
    Since(Duration),
    /// The kernel was asked since the last datagram.
    LookedUp,
}

/// What a wait ended with: bit `n` of `sockets` stands for the socket at index `n`.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    sockets: u32,
    woken: bool,
}

impl Datagrams {
    /// Opens what `config` names. Without any socket there is still the waker to wait on.
    ///
    /// # Errors
    /// See [`BindError`]. An absent IPv6 loopback is only a warning while another UDP address serves.
    pub fn bind(
        config: &DatagramConfig,
        figures: Arc<DoorFigures>,
    ) -> Result<(Self, Waker), BindError> {
        let count = config.udp.len().saturating_add(usize::from(config.unix.is_some()));
        if count > SOCKETS_MAX {
            return Err(BindError::TooMany { sockets: count, sockets_max: SOCKETS_MAX });
        }
        let sockets = Socket::open_all(config)?;
        let granted = sockets
            .iter()
            .filter(|socket| socket.door == Door::Udp)
            .map(|socket| socket.receive_buffer_bytes);
        let granted = granted.min().unwrap_or(0);
        figures.of(Door::Udp).receive_buffer_bytes.set(u64::try_from(granted).unwrap_or(u64::MAX));
        let waker = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let datagrams = Self {
            sockets,
            waker: Arc::clone(&waker),
            // Zeroed lazily by the kernel: pages that no datagram reaches never exist.
            arena: vec![0; BATCH_DATAGRAMS_MAX * SLOT_BYTES].into_boxed_slice(),
            figures,
            pause: Pause::Nothing,
            quiet: Quiet::LookedUp,
            closed_drops: 0,
        };
        Ok((datagrams, Waker(waker)))
    }

    /// Waits up to `wait` for datagrams or a wake, then hands one batch of each ready socket to `each`.
    ///
    /// # Errors
    /// Only when waiting itself fails, which no client can cause.
    pub fn receive(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(Door, Datagram<'_>),
    ) -> io::Result<Received> {
        match std::mem::replace(&mut self.pause, Pause::Nothing) {
            Pause::Nothing => {}
            Pause::Nap => drop(self.poll(NAP, |socket| socket.door == Door::UnixDatagram)?),
            Pause::Error => drop(self.poll(ERROR_PAUSE, |_| false)?),
        }
        let wait = match self.quiet {
            Quiet::Since(_) => wait.min(QUIET),
            Quiet::LookedUp => wait,
        };
        let ready = self.poll(wait, |_| true)?;
        if ready.woken {
            // Fails only when it is no longer readable, and then there is nothing to take.
            let _wakes = self.waker.read();
        }
        let mut datagrams = 0_usize;
        for index in 0..self.sockets.len() {
            if ready.sockets & (1 << index) != 0 {
                datagrams = datagrams.saturating_add(self.receive_from(index, &mut each));
            }
        }
        self.watch_quiet(datagrams, ready, wait);
        Ok(Received { datagrams, woken: ready.woken })
    }

    /// Datagrams that the kernel dropped since the sockets were opened.
    #[must_use]
    pub fn kernel_drops(&self) -> u64 {
        self.sockets
            .iter()
            .fold(self.closed_drops, |sum, socket| sum.saturating_add(socket.drops.total()))
    }

    /// The addresses that UDP is received on.
    #[must_use]
    pub fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(Socket::udp_address).collect()
    }

    /// Closes the sockets and removes the socket file; wakes still arrive. What was not received yet is
    /// lost, so the caller receives until nothing comes before.
    pub fn close_datagram_doors(&mut self) {
        self.look_up_drops();
        self.closed_drops = self.kernel_drops();
        self.sockets.clear();
    }

    /// Waits for a wake or for one of the `watched` sockets.
    fn poll(&self, wait: Duration, watched: impl Fn(&Socket) -> bool) -> io::Result<Ready> {
        let mut descriptors = Vec::with_capacity(SOCKETS_MAX + 1);
        descriptors.push(PollFd::new(self.waker.as_fd(), PollFlags::POLLIN));
        for socket in &self.sockets {
            let events = if watched(socket) { PollFlags::POLLIN } else { PollFlags::empty() };
            descriptors.push(PollFd::new(socket.as_fd(), events));
        }
        match ppoll(&mut descriptors, Some(TimeSpec::from(wait)), None) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Ready::default()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Any event counts, so that an error of a socket is fetched by receiving from it.
        let mut happened = descriptors.iter().map(|descriptor| descriptor.any().unwrap_or(true));
        let woken = happened.next().unwrap_or(false);
        let sockets = happened
            .enumerate()
            .filter(|(_, ready)| *ready)
            .fold(0, |bits, (index, _)| bits | 1 << index);
        Ok(Ready { sockets, woken })
    }

    /// One batch of the socket at `index`; how many datagrams it held.
    fn receive_from(&mut self, index: usize, each: &mut impl FnMut(Door, Datagram<'_>)) -> usize {
        let socket = &mut self.sockets[index];
        let counts = self.figures.of(socket.door);
        match receive_batch(socket, &mut self.arena, each) {
            Ok(batch) => {
                if socket.door == Door::Udp
                    && batch.datagrams > 0
                    && batch.datagrams < BATCH_DATAGRAMS_MAX
                {
                    self.pause = Pause::Nap;
                }
                counts.messages.add_len(batch.datagrams);
                counts.bytes.add_len(batch.bytes);
                counts.truncated.add_len(batch.truncated);
                batch.datagrams
            }
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => {
                tracing::debug!(door = socket.door.name(), %errno, "a receive call failed");
                counts.errors.add(1);
                self.pause = Pause::Error;
                0
            }
        }
    }

    /// Asks for the drops after the last datagram, once nothing has come for a while.
    fn watch_quiet(&mut self, datagrams: usize, ready: Ready, waited: Duration) {
        if datagrams > 0 {
            self.quiet = Quiet::Since(Duration::ZERO);
            self.figures.of(Door::Udp).kernel_drops.set(self.kernel_drops());
        } else if let Quiet::Since(quiet) = self.quiet
            && ready.sockets == 0
            && !ready.woken
        {
            let quiet = quiet.saturating_add(waited);
            self.quiet = Quiet::Since(quiet);
            if quiet >= QUIET {
                self.look_up_drops();
            }
        }
    }

    fn look_up_drops(&mut self) {
        self.quiet = Quiet::LookedUp;
        for socket in &mut self.sockets {
            if let Err(error) = socket.look_up_drops() {
                tracing::debug!(%error, "the kernel's table of UDP sockets cannot be read");
            }
        }
        self.figures.of(Door::Udp).kernel_drops.set(self.kernel_drops());
    }
}

/// What one system call brought.
#[derive(Debug, Clone, Copy, Default)]
struct Batch {
    datagrams: usize,
    bytes: usize,
    truncated: usize,
}

impl DatagramSource for Datagrams {
    fn receive(
        &mut self,
        wait: Duration,
        each: impl FnMut(Door, Datagram<'_>),
    ) -> io::Result<Received> {
        Self::receive(self, wait, each)
    }

    fn kernel_drops(&self) -> u64 {
        Self::kernel_drops(self)
    }

    fn close(&mut self) {
        self.close_datagram_doors();
    }
}

fn receive_batch(
    socket: &mut Socket,
    arena: &mut [u8],
    each: &mut impl FnMut(Door, Datagram<'_>),
) -> nix::Result<Batch> {
    let door = socket.door;
    // Made anew for each call: the kernel shortens the room for control messages to what it used, and
    // nix does not restore it, so that a second call with the same headers would see no drops.
    let room = (door == Door::Udp).then(|| nix::cmsg_space!(u32));
    let mut headers = MultiHeaders::<()>::preallocate(BATCH_DATAGRAMS_MAX, room);
    let mut slots = arena.chunks_exact_mut(SLOT_BYTES);
    let mut slices: [[IoSliceMut<'_>; 1]; BATCH_DATAGRAMS_MAX] = std::array::from_fn(|_| {
        let slot = slots.next().expect("the arena has a slot for each datagram of a batch");
        let (read, _spare) = slot.split_at_mut(DATAGRAM_BYTES_MAX);
        [IoSliceMut::new(read)]
    });
    let fd = socket.as_raw_fd();
    let messages = recvmmsg(fd, &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
    let mut batch = Batch::default();
    for message in messages {
        let bytes = message.iovs().next().unwrap_or_default();
        let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
        // Without control messages, or with other ones than were asked for, nothing is known of drops.
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::RxqOvfl(count) = control {
                socket.drops.observe(count);
            }
        }
        batch.datagrams = batch.datagrams.saturating_add(1);
        batch.bytes = batch.bytes.saturating_add(bytes.len());
        batch.truncated = batch.truncated.saturating_add(usize::from(truncated));
        each(door, Datagram { bytes, truncated });
    }
    Ok(batch)
}
