//! Which collector is next, and over what: QUIC wherever it gets through, else TLS over TCP.
//!
//! ```text
//! Auto, at one collector      first   second, where the first finds silence
//! nothing is known            QUIC    TCP
//! QUIC did not get through    TCP     QUIC    until a probe of QUIC succeeds, or its time is over
//! ```
//! While a session goes over TCP, QUIC is probed beside it now and then; when it gets through, the session
//! drains and the next one begins over QUIC. What a collector *says* (a certificate that it refuses, that
//! it is full) is the same over both, so only silence leads to the other transport.
//!
//! **Owns** the memory of what got through where. **Does not own** when to connect (`session`), sockets,
//! clock or random numbers.

#[cfg(test)]
mod tests;

use crate::session::Monotonic;

/// QUIC that dies in silence, session after session, is left alone for at most 2^(this - 1) intervals.
const LAPSES_COUNTED_MAX: u32 = 5;
/// A session over QUIC that lived for longer got through; its silence is an outage, which ends TCP too.
const LAPSED_MILLIS_MAX: u64 = 600_000;

/// What carries a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Quic,
    Tcp,
}

impl Transport {
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tcp];

    /// The transport's name, as metric label, in JSON and configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// What may carry a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportChoice {
    /// QUIC where it gets through, else TCP.
    Auto,
    Only(Transport),
}

/// How one address is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub first: Transport,
    /// Tried beside the first once that has found silence for a while.
    pub second: Option<Transport>,
}

impl Order {
    #[must_use]
    pub fn only(first: Transport) -> Self {
        Self { first, second: None }
    }
}

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// The other end was not heard any more.
    Silence,
    Otherwise,
}

/// The memory of one agent's uplink. Collectors are known by their place in the configuration.
#[derive(Debug)]
pub struct Chooser {
    choice: TransportChoice,
    /// QUIC is probed between half of this time and all of it after it did not get through.
    probe_millis: u64,
    paths: Vec<Path>,
    /// The collector in use, or next to be tried.
    at: usize,
    /// Collectors tried in a row without a link.
    failures: usize,
    link: Option<LinkUp>,
    /// The next session goes to the same collector: QUIC has just got through to it.
    stays: bool,
}

#[derive(Debug, Clone, Copy)]
struct LinkUp {
    transport: Transport,
    since: Monotonic,
}

/// What is known of one collector.
#[derive(Debug, Clone, Copy, Default)]
struct Path {
    /// QUIC did not get through; it is tried again first, or probed, at this time.
    quic_after: Option<Monotonic>,
    /// Sessions over QUIC in a row that soon died in silence.
    lapses: u32,
}

impl Chooser {
    #[must_use]
    pub fn new(choice: TransportChoice, collectors: usize, probe_millis: u64) -> Self {
        Self {
            choice,
            probe_millis,
            paths: vec![Path::default(); collectors],
            at: 0,
            failures: 0,
            link: None,
            stays: false,
        }
    }

    /// The collector in use, or next to be tried.
    #[must_use]
    pub fn collector(&self) -> usize {
        self.at
    }

    /// How it is tried now.
    #[must_use]
    pub fn order(&self, now: Monotonic) -> Order {
        match self.choice {
            TransportChoice::Only(transport) => Order::only(transport),
            TransportChoice::Auto => match self.path().quic_after {
                Some(after) if now < after => {
                    Order { first: Transport::Tcp, second: Some(Transport::Quic) }
                }
                Some(_) | None => Order { first: Transport::Quic, second: Some(Transport::Tcp) },
            },
        }
    }

    /// How often all collectors have failed in a row: each round tries other addresses of a name that has
    /// many.
    #[must_use]
    pub fn round(&self) -> usize {
        self.failures.checked_div(self.paths.len()).unwrap_or(0)
    }

    /// A link is up. `random` is uniform over its range.
    pub fn connected(&mut self, transport: Transport, now: Monotonic, random: u64) {
        self.failures = 0;
        self.link = Some(LinkUp { transport, since: now });
        self.stays = false;
        let after = self.probe_at(now, random);
        let Some(path) = self.paths.get_mut(self.at) else { return };
        match (self.choice, transport) {
            (TransportChoice::Auto, Transport::Tcp) => {
                path.quic_after = path.quic_after.max(Some(after))
            }
            (TransportChoice::Auto, Transport::Quic) | (TransportChoice::Only(_), _) => {
                path.quic_after = None;
            }
        }
    }

    /// When QUIC is to be probed beside the present link, if at all.
    #[must_use]
    pub fn probe_due(&self) -> Option<Monotonic> {
        match (self.link.map(|link| link.transport), self.stays) {
            (Some(Transport::Tcp), false) => self.path().quic_after,
            (Some(Transport::Tcp), true) | (Some(Transport::Quic) | None, _) => None,
        }
    }

    /// QUIC was probed beside the present link. If it got through, the session may drain.
    pub fn probed(&mut self, got_through: bool, now: Monotonic, random: u64) {
        let after = self.probe_at(now, random);
        self.stays = got_through;
        if let Some(path) = self.paths.get_mut(self.at) {
            path.quic_after = (!got_through).then_some(after);
        }
    }

    /// The link has ended, or none could be made: the next collector is due, unless QUIC has just got
    /// through to this one.
    pub fn disconnected(&mut self, end: LinkEnd, now: Monotonic, random: u64) {
        let after = self.probe_at(now, random);
        let link = self.link.take();
        if link.is_none() {
            self.failures = self.failures.saturating_add(1);
        }
        if let (
            Some(path),
            TransportChoice::Auto,
            Some(LinkUp { transport: Transport::Quic, since }),
        ) = (self.paths.get_mut(self.at), self.choice, link)
        {
            match end {
                LinkEnd::Silence if now.since(since) < LAPSED_MILLIS_MAX => {
                    path.lapses = path.lapses.saturating_add(1).min(LAPSES_COUNTED_MAX);
                    let wait = after.since(now).saturating_mul(1 << path.lapses.saturating_sub(1));
                    path.quic_after = Some(now.plus(wait));
                }
                LinkEnd::Silence | LinkEnd::Otherwise => path.lapses = 0,
            }
        }
        if !std::mem::take(&mut self.stays) {
            self.at = self.at.saturating_add(1).checked_rem(self.paths.len()).unwrap_or(0);
        }
    }

    fn path(&self) -> Path {
        self.paths.get(self.at).copied().unwrap_or_default()
    }

    fn probe_at(&self, now: Monotonic, random: u64) -> Monotonic {
        let half = self.probe_millis / 2;
        let spread = half.checked_add(1).and_then(|values| random.checked_rem(values)).unwrap_or(0);
        now.plus(half).plus(spread)
    }
}
