//! A bad network in one thread: it passes datagrams on between the agent and the collector, and loses,
//! delays, reorders, doubles and corrupts them. For machines whose kernel cannot (`tc netem`).
//!
//! **Owns** one socket for the agent's side and one for each of the agent's addresses, as a translating
//! router does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::random::Random;
use crate::wait::{Stopwatch, delay};

const DATAGRAM_BYTES_MAX: usize = 65_536;
/// A slow link's queue: what would wait longer is lost.
const QUEUE_MAX: Duration = Duration::from_millis(400);

/// What happens to datagrams of one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    pub(super) loss_percent: u64,
    pub(super) duplicate_percent: u64,
    pub(super) corrupt_percent: u64,
    pub(super) delay: Duration,
    /// At most so much is added to the delay, by chance: datagrams overtake each other.
    pub(super) jitter: Duration,
    pub(super) bytes_per_second: Option<u64>,
}

/// Both directions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) to_collector: Weather,
    pub(super) to_agent: Weather,
}

/// How often each thing was done.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) passed: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) doubled: AtomicU64,
    pub(super) corrupted: AtomicU64,
}

/// It passes on until this is dropped.
pub(super) struct Relay {
    port: u16,
    faults: Arc<Mutex<Faults>>,
    pub(super) counts: Arc<Counts>,
    _stop: oneshot::Sender<()>,
}

impl Relay {
    /// Passes on to `target`, well at first.
    pub(super) fn start(target: SocketAddr, random: Random) -> Result<Self> {
        let faults = Arc::new(Mutex::new(Faults::default()));
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let socket = runtime.block_on(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let port = socket.local_addr()?.port();
        let link = Link {
            inside: Arc::new(socket),
            target,
            faults: Arc::clone(&faults),
            counts: Arc::clone(&counts),
            random: Arc::new(Mutex::new(random)),
        };
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    // A socket that fails ends it, and the agent finds no collector: the case fails.
                    _ = link.outward() => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { port, faults, counts, _stop: stop })
    }

    /// Where the agent finds the collector.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }
}

#[derive(Clone)]
struct Link {
    inside: Arc<UdpSocket>,
    target: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    counts: Arc<Counts>,
    random: Arc<Mutex<Random>>,
}

impl Link {
    /// From the agent, and for each of its addresses the way back.
    async fn outward(self) -> Result<()> {
        let mut outside: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
        let mut queue = Queue::new();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let (length, from) = self.inside.recv_from(&mut buffer).await?;
            let socket = match outside.get(&from) {
                Some(socket) => Arc::clone(socket),
                None => {
                    let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
                    outside.insert(from, Arc::clone(&socket));
                    tokio::spawn(self.clone().homeward(Arc::clone(&socket), from));
                    socket
                }
            };
            let weather = self.faults.lock().unwrap_or_else(PoisonError::into_inner).to_collector;
            let datagram = buffer.get(..length).context("a datagram fits")?;
            self.pass(datagram, weather, &mut queue, &socket, self.target);
        }
    }

    async fn homeward(self, socket: Arc<UdpSocket>, agent: SocketAddr) {
        let mut queue = Queue::new();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // A collector that is away refuses; it may come back.
            let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
            let weather = self.faults.lock().unwrap_or_else(PoisonError::into_inner).to_agent;
            let datagram = buffer.get(..length).unwrap_or_default();
            self.pass(datagram, weather, &mut queue, &self.inside, agent);
        }
    }

    fn pass(
        &self,
        datagram: &[u8],
        weather: Weather,
        queue: &mut Queue,
        socket: &Arc<UdpSocket>,
        to: SocketAddr,
    ) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chance = |percent| random.below(100) < percent;
        let (lost, doubled) = (chance(weather.loss_percent), chance(weather.duplicate_percent));
        let corrupted = chance(weather.corrupt_percent);
        let Some(wait) = queue.wait(datagram.len(), weather.bytes_per_second).filter(|_| !lost)
        else {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut bytes = datagram.to_vec();
        if corrupted && let Some(byte) = pick(&mut random, &mut bytes) {
            *byte = !*byte;
            self.counts.corrupted.fetch_add(1, Ordering::Relaxed);
        }
        for _ in 0..=u8::from(doubled) {
            let jitter = u64::try_from(weather.jitter.as_micros()).unwrap_or(u64::MAX);
            let jitter = Duration::from_micros(random.below(jitter.saturating_add(1)));
            let after = weather.delay.saturating_add(jitter).saturating_add(wait);
            let (socket, bytes) = (Arc::clone(socket), bytes.clone());
            tokio::spawn(async move {
                if !after.is_zero() {
                    delay(after).await;
                }
                // What cannot be sent is lost, as on any network.
                drop(socket.send_to(&bytes, to).await);
            });
        }
        self.counts.doubled.fetch_add(u64::from(doubled), Ordering::Relaxed);
        self.counts.passed.fetch_add(1, Ordering::Relaxed);
    }
}

fn pick<'b>(random: &mut Random, bytes: &'b mut [u8]) -> Option<&'b mut u8> {
    let at = random.below(u64::try_from(bytes.len()).ok()?.max(1));
    bytes.get_mut(usize::try_from(at).ok()?)
}

/// When a slow link is through with what it was given.
struct Queue {
    clock: Stopwatch,
    free_at: Duration,
}

impl Queue {
    fn new() -> Self {
        Self { clock: Stopwatch::start(), free_at: Duration::ZERO }
    }

    /// How long a datagram waits; nothing if the queue is too long for it.
    fn wait(&mut self, length: usize, bytes_per_second: Option<u64>) -> Option<Duration> {
        let Some(rate) = bytes_per_second else { return Some(Duration::ZERO) };
        let now = self.clock.elapsed();
        let micros = u64::try_from(length).ok()?.saturating_mul(1_000_000).checked_div(rate)?;
        let done = self.free_at.max(now).saturating_add(Duration::from_micros(micros));
        let wait = done.saturating_sub(now);
        (wait <= QUEUE_MAX).then(|| {
            self.free_at = done;
            wait
        })
    }
}
