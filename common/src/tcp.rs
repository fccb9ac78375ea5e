//! How a TCP connection notices that its other end is gone, the same way at both ends.
//!
//! TCP by itself asks nothing of a silent peer for two hours, and sends again for a quarter of an hour
//! what is not acknowledged. QUIC has a keep-alive and an idle time; these settings are the same for TCP.
//!
//! **Owns** the socket options. **Does not own** sockets.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{
    KeepAlive, TcpKeepCount, TcpKeepIdle, TcpKeepInterval, TcpUserTimeout,
};
use thiserror::Error;

/// The kernel refuses an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("failed to set up a TCP connection: {0}")]
pub struct TcpSetupError(#[from] nix::errno::Errno);

/// An idle connection asks after its peer every `keep_alive`; one whose peer acknowledges nothing for
/// `idle_max` ends. The kernel counts keep-alives in whole seconds.
///
/// # Errors
/// If the kernel refuses.
pub fn watch_peer(
    socket: &impl AsFd,
    keep_alive: Duration,
    idle_max: Duration,
) -> Result<(), TcpSetupError> {
    let seconds =
        |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).clamp(1, 32_767);
    let every = seconds(keep_alive);
    // Unanswered probes until `idle_max` is over; the first is sent after `every`.
    let probes = seconds(idle_max).checked_div(every).unwrap_or(1).saturating_sub(1).clamp(1, 127);
    let millis = u32::try_from(idle_max.as_millis()).unwrap_or(u32::MAX);
    setsockopt(socket, KeepAlive, &true)?;
    setsockopt(socket, TcpKeepIdle, &every)?;
    setsockopt(socket, TcpKeepInterval, &every)?;
    setsockopt(socket, TcpKeepCount, &probes)?;
    setsockopt(socket, TcpUserTimeout, &millis)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn a_silent_peer_is_noticed_in_time() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let check = |keep_alive, idle_max, expected| {
            watch_peer(&socket, Duration::from_millis(keep_alive), Duration::from_millis(idle_max))
                .unwrap();
            let found = (
                getsockopt(&socket, TcpKeepIdle).unwrap(),
                getsockopt(&socket, TcpKeepInterval).unwrap(),
                getsockopt(&socket, TcpKeepCount).unwrap(),
                getsockopt(&socket, TcpUserTimeout).unwrap(),
            );
            assert_eq!(found, expected);
            assert!(getsockopt(&socket, KeepAlive).unwrap());
        };
        check(5_000, 15_000, (5, 5, 2, 15_000));
        check(10_000, 30_000, (10, 10, 2, 30_000));
        check(10, 100, (1, 1, 1, 100));
        check(u64::MAX, 1, (32_767, 32_767, 1, 1));
    }
}
