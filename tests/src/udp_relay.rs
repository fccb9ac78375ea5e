//! A way for UDP packets that a test opens: what it does not carry finds silence, as behind a firewall.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// A stop is noticed after at most this long.
const READ_MAX: Duration = Duration::from_millis(20);
/// The largest datagram that there is.
const DATAGRAM_BYTES: usize = 65_535;

/// Carries packets between one port and another on loopback until it is dropped.
#[derive(Debug)]
pub struct UdpRelay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpRelay {
    /// # Errors
    /// When `from` is taken.
    pub fn open(from: u16, to: u16) -> Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, from))
            .with_context(|| format!("failed to open a relay on udp {from}"))?;
        front.set_read_timeout(Some(READ_MAX))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, to));
            carry(&Arc::new(front), to, &stopping);
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Each client has a socket towards `to` of its own, whose answers a thread of its own carries back.
fn carry(front: &Arc<UdpSocket>, to: SocketAddr, stop: &Arc<AtomicBool>) {
    let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut threads = Vec::new();
    let mut packet = vec![0; DATAGRAM_BYTES];
    while !stop.load(Ordering::SeqCst) {
        let Some((length, client)) = received(front, &mut packet) else { continue };
        let back = match clients.get(&client) {
            Some(back) => Arc::clone(back),
            None => {
                let Ok(back) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) else { continue };
                if back.set_read_timeout(Some(READ_MAX)).is_err() {
                    continue;
                }
                let back = Arc::new(back);
                clients.insert(client, Arc::clone(&back));
                let (front, from, stop) = (Arc::clone(front), Arc::clone(&back), Arc::clone(stop));
                threads.push(thread::spawn(move || answer(&front, &from, client, &stop)));
                back
            }
        };
        // A packet may be lost.
        drop(back.send_to(packet.get(..length).unwrap_or_default(), to));
    }
    for thread in threads {
        drop(thread.join());
    }
}

fn answer(front: &UdpSocket, from: &UdpSocket, client: SocketAddr, stop: &AtomicBool) {
    let mut packet = vec![0; DATAGRAM_BYTES];
    while !stop.load(Ordering::SeqCst) {
        if let Some((length, _)) = received(from, &mut packet) {
            drop(front.send_to(packet.get(..length).unwrap_or_default(), client));
        }
    }
}

fn received(socket: &UdpSocket, packet: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(packet) {
        Ok(received) => Some(received),
        // A refused packet of before, or nothing came for a while.
        Err(error) => {
            let quiet = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::ConnectionRefused];
            debug_assert!(quiet.contains(&error.kind()), "{error}");
            None
        }
    }
}
