//! A simulated network, and on it what QUIC gives: an ordered stream of bytes each way, or a broken link.
//!
//! ```text
//! send -> segments -> packets: lost, late, twice, in another order, flipped, or never across a partition
//!                        -> checksum -> in order again -> received       acks come back the same way
//! ```
//! **Owns** packets, retransmission and idle time. **Does not own** frames: bytes in, bytes out.
//!
//! Limits: [`WINDOW`] segments under way, [`IDLE_MILLIS`] without a packet.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::story::Story;
use crate::random::Random;

/// A link on which nothing is heard for this long is lost.
pub const IDLE_MILLIS: u64 = 30_000;
/// A link that is not made by then cannot be.
const CONNECT_MILLIS: u64 = 5_000;
const PING_MILLIS: u64 = 10_000;
const RETRANSMIT_MILLIS: u64 = 250;
const SEGMENT_BYTES: usize = 1_200;
/// Segments sent and not acknowledged.
const WINDOW: usize = 64;

/// One of a link's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Agent,
    Collector,
}

impl Side {
    fn index(self) -> usize {
        match self {
            Self::Agent => 0,
            Self::Collector => 1,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Agent => Self::Collector,
            Self::Collector => Self::Agent,
        }
    }
}

/// A link's number.
pub type LinkId = u64;

/// What happens to packets between an agent and a collector: chances out of 1,000, delays in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Path {
    pub loss: u64,
    pub duplication: u64,
    pub corruption: u64,
    pub reordering: u64,
    pub delay: u64,
    /// Milliseconds that a segment occupies the path.
    pub slowness: u64,
    /// Nothing gets through to this side.
    pub to_agent_blocked: bool,
    pub to_collector_blocked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Payload {
    Open,
    Opened,
    Segment { number: u64, bytes: Vec<u8>, last: bool },
    Ack { next: u64 },
    Ping,
    Reset,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    link: LinkId,
    to: Side,
    payload: Payload,
    checksum: u64,
}

#[derive(Debug)]
struct Outgoing {
    number: u64,
    bytes: Vec<u8>,
    last: bool,
    again_at: u64,
    attempts: u32,
}

/// How an end of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Opening,
    Up,
    /// The other side said that it is done.
    Finished,
    Lost(&'static str),
}

#[derive(Debug)]
struct End {
    /// The process that had it may be gone.
    exists: bool,
    condition: Condition,
    queue: VecDeque<Outgoing>,
    next_number: u64,
    awaited: u64,
    early: BTreeMap<u64, (Vec<u8>, bool)>,
    received: Vec<u8>,
    heard: u64,
    ping_at: u64,
}

impl End {
    fn new(now: u64, exists: bool) -> Self {
        Self {
            exists,
            condition: Condition::Opening,
            queue: VecDeque::new(),
            next_number: 0,
            awaited: 0,
            early: BTreeMap::new(),
            received: Vec::new(),
            heard: now,
            ping_at: now + PING_MILLIS,
        }
    }

    fn is_live(&self) -> bool {
        self.exists && !matches!(self.condition, Condition::Lost(_))
    }
}

#[derive(Debug)]
struct Link {
    agent: usize,
    collector: usize,
    ends: [End; 2],
    open_at: u64,
    begun: u64,
}

/// All links and what is on its way.
#[derive(Debug)]
pub struct Network {
    random: Random,
    links: BTreeMap<LinkId, Link>,
    next_link: LinkId,
    packets: BinaryHeap<Reverse<(u64, u64, Packet)>>,
    order: u64,
    paths: BTreeMap<(usize, usize), Path>,
    /// Until when each path is occupied, each way.
    busy_until: BTreeMap<(usize, usize, Side), u64>,
    collectors_up: BTreeMap<usize, bool>,
    arrived: Vec<(usize, LinkId)>,
    /// Hosts that something has come in for.
    touched: BTreeSet<(Side, usize)>,
}

impl Network {
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self {
            random,
            links: BTreeMap::new(),
            next_link: 0,
            packets: BinaryHeap::new(),
            order: 0,
            paths: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            collectors_up: BTreeMap::new(),
            arrived: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    /// The path between an agent and a collector, to be changed.
    pub fn path(&mut self, agent: usize, collector: usize) -> &mut Path {
        self.paths.entry((agent, collector)).or_default()
    }

    pub fn heal(&mut self) {
        self.paths.clear();
    }

    /// The hosts that something has come in for since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<(Side, usize)> {
        std::mem::take(&mut self.touched)
    }

    /// Begins a link from an agent.
    pub fn open(&mut self, agent: usize, collector: usize, now: u64) -> LinkId {
        let id = self.next_link;
        self.next_link += 1;
        let ends = [End::new(now, true), End::new(now, false)];
        self.links.insert(id, Link { agent, collector, ends, open_at: now, begun: now });
        id
    }

    /// Links that have arrived at a collector since the last call.
    pub fn accept(&mut self, collector: usize) -> Vec<LinkId> {
        let (mine, others) =
            std::mem::take(&mut self.arrived).into_iter().partition(|(at, _)| *at == collector);
        self.arrived = others;
        let mine: Vec<(usize, LinkId)> = mine;
        mine.into_iter().map(|(_, link)| link).collect()
    }

    #[must_use]
    pub fn agent_of(&self, link: LinkId) -> Option<usize> {
        self.links.get(&link).map(|link| link.agent)
    }

    #[must_use]
    pub fn condition(&self, link: LinkId, side: Side) -> Condition {
        let end = self.links.get(&link).map(|link| &link.ends[side.index()]);
        end.map_or(Condition::Lost("gone"), |end| end.condition)
    }

    /// Whether more may be sent now without piling up.
    #[must_use]
    pub fn has_room(&self, link: LinkId, side: Side) -> bool {
        self.links.get(&link).is_some_and(|link| link.ends[side.index()].queue.len() < WINDOW)
    }

    pub fn send(&mut self, link: LinkId, side: Side, bytes: &[u8], now: u64) {
        let Some(link) = self.links.get_mut(&link) else { return };
        let end = &mut link.ends[side.index()];
        for segment in bytes.chunks(SEGMENT_BYTES) {
            let number = end.next_number;
            end.next_number += 1;
            end.queue.push_back(Outgoing {
                number,
                bytes: segment.to_vec(),
                last: false,
                again_at: now,
                attempts: 0,
            });
        }
    }

    /// What came in since the last call.
    pub fn receive(&mut self, link: LinkId, side: Side) -> Vec<u8> {
        let end = self.links.get_mut(&link).map(|link| &mut link.ends[side.index()]);
        end.map_or_else(Vec::new, |end| std::mem::take(&mut end.received))
    }

    /// Says that nothing more is sent. What was sent still arrives.
    pub fn finish(&mut self, link: LinkId, side: Side, now: u64) {
        let Some(link) = self.links.get_mut(&link) else { return };
        let end = &mut link.ends[side.index()];
        let number = end.next_number;
        end.next_number += 1;
        end.queue.push_back(Outgoing {
            number,
            bytes: Vec::new(),
            last: true,
            again_at: now,
            attempts: 0,
        });
    }

    /// The end's process has no use for it any more.
    pub fn drop_end(&mut self, link: LinkId, side: Side, now: u64, story: &mut Story) {
        let Some(found) = self.links.get_mut(&link) else { return };
        found.ends[side.index()].exists = false;
        let finishing = found.ends[side.index()].queue.iter().any(|out| out.last);
        if !finishing {
            self.put(link, side.other(), Payload::Reset, now, story);
        }
    }

    /// The process on a host is gone, without a word to anybody.
    pub fn vanish(&mut self, side: Side, host: usize) {
        for link in self.links.values_mut() {
            let of = if side == Side::Agent { link.agent } else { link.collector };
            if of == host {
                link.ends[side.index()].exists = false;
                link.ends[side.index()].queue.clear();
            }
        }
    }

    pub fn collector_up(&mut self, collector: usize, up: bool) {
        self.collectors_up.insert(collector, up);
    }

    /// When something is due, unless something is sent before.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let packet = self.packets.peek().map(|Reverse((at, _, _))| *at);
        let ends = self.links.values().flat_map(|link| {
            let open = (link.ends[0].condition == Condition::Opening && link.ends[0].exists)
                .then_some(link.open_at);
            let resend = link.ends.iter().filter(|end| end.is_live()).flat_map(|end| {
                let first = end.queue.iter().take(WINDOW).map(|out| out.again_at).min();
                let up = end.condition == Condition::Up;
                first.into_iter().chain(up.then_some(end.ping_at.min(end.heard + IDLE_MILLIS)))
            });
            open.into_iter().chain(resend).collect::<Vec<_>>()
        });
        packet.into_iter().chain(ends).min()
    }

    /// Moves what is due at `now`.
    pub fn step(&mut self, now: u64, story: &mut Story) {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            self.drive(id, now, story);
        }
        while self.packets.peek().is_some_and(|Reverse((at, _, _))| *at <= now) {
            if let Some(Reverse((_, _, packet))) = self.packets.pop() {
                self.deliver(packet, now, story);
            }
        }
        self.links.retain(|_, link| link.ends.iter().any(End::is_live));
    }

    fn drive(&mut self, id: LinkId, now: u64, story: &mut Story) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut due = Vec::new();
        if link.ends[0].condition == Condition::Opening && link.ends[0].exists {
            if now >= link.begun + CONNECT_MILLIS {
                link.ends[0].condition = Condition::Lost("no answer");
                self.touched.insert((Side::Agent, link.agent));
            } else if now >= link.open_at {
                link.open_at = now + 1_000;
                due.push((Side::Collector, Payload::Open));
            }
        }
        for side in [Side::Agent, Side::Collector] {
            let end = &mut link.ends[side.index()];
            // A last word is still sent by a process that has let go of the link.
            let speaks = end.is_live() || end.queue.iter().any(|out| out.last);
            if !speaks || end.condition == Condition::Opening {
                continue;
            }
            if now >= end.heard + IDLE_MILLIS {
                end.condition = Condition::Lost("idle");
                end.queue.clear();
                let host = if side == Side::Agent { link.agent } else { link.collector };
                self.touched.insert((side, host));
                continue;
            }
            if now >= end.ping_at {
                end.ping_at = now + PING_MILLIS;
                due.push((side.other(), Payload::Ping));
            }
            for out in end.queue.iter_mut().take(WINDOW).filter(|out| out.again_at <= now) {
                if out.attempts > 0 {
                    story.count("network retransmission");
                }
                out.again_at = now + (RETRANSMIT_MILLIS << out.attempts.min(4));
                out.attempts += 1;
                let (number, bytes, last) = (out.number, out.bytes.clone(), out.last);
                due.push((side.other(), Payload::Segment { number, bytes, last }));
            }
        }
        for (to, payload) in due {
            self.put(id, to, payload, now, story);
        }
    }

    /// Sends one packet on its way, with whatever happens to it there.
    fn put(&mut self, link: LinkId, to: Side, payload: Payload, now: u64, story: &mut Story) {
        let Some(found) = self.links.get(&link) else { return };
        let ends = (found.agent, found.collector);
        let path = self.paths.get(&ends).copied().unwrap_or_default();
        let blocked = match to {
            Side::Agent => path.to_agent_blocked,
            Side::Collector => path.to_collector_blocked,
        };
        if blocked {
            return story.count("fault packet at a partition");
        }
        let mut chance = |per_mille: u64| per_mille > 0 && self.random.below(1_000) < per_mille;
        if chance(path.loss) {
            return story.count("fault packet lost");
        }
        let copies = if chance(path.duplication) { 2 } else { 1 };
        let (flipped, late) = (chance(path.corruption), chance(path.reordering));
        let mut at = now + 1 + path.delay;
        if path.slowness > 0 {
            let busy = self.busy_until.entry((ends.0, ends.1, to)).or_default();
            *busy = (*busy).max(now) + path.slowness;
            at += *busy - now;
        }
        if late {
            story.count("fault packet reordered");
            at += self.random.below(400);
        }
        if copies > 1 {
            story.count("fault packet duplicated");
        }
        let mut packet = Packet { link, to, checksum: checksum(&payload), payload };
        if flipped {
            story.count("fault packet corrupted");
            packet.flip(&mut self.random);
        }
        for copy in 0..copies {
            self.order += 1;
            self.packets.push(Reverse((at + copy * 3, self.order, packet.clone())));
        }
    }

    fn deliver(&mut self, packet: Packet, now: u64, story: &mut Story) {
        let Packet { link: id, to, payload, checksum: said } = packet;
        if checksum(&payload) != said {
            return story.count("network flipped packet dropped");
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let collector = link.collector;
        let host = if to == Side::Agent { link.agent } else { collector };
        self.touched.insert((to, host));
        let up = self.collectors_up.get(&collector).copied().unwrap_or_default();
        let end = &mut link.ends[to.index()];
        if payload == Payload::Open {
            if up && !end.exists && end.condition == Condition::Opening {
                (end.exists, end.condition, end.heard) = (true, Condition::Up, now);
                self.arrived.push((collector, id));
            }
            if up {
                self.put(id, Side::Agent, Payload::Opened, now, story);
            }
            return;
        }
        if !end.is_live() {
            // A host that has forgotten a link says so; one that is down says nothing.
            let answers = to == Side::Agent || up;
            if answers && payload != Payload::Reset && !matches!(payload, Payload::Ack { .. }) {
                self.put(id, to.other(), Payload::Reset, now, story);
            }
            return;
        }
        end.heard = now;
        match payload {
            Payload::Open | Payload::Ping => {}
            Payload::Opened if end.condition == Condition::Opening => {
                end.condition = Condition::Up;
            }
            Payload::Opened => {}
            Payload::Reset => {
                end.condition = Condition::Lost("reset");
                end.queue.clear();
            }
            Payload::Ack { next } => end.queue.retain(|out| out.number >= next),
            Payload::Segment { number, bytes, last } => {
                if end.condition == Condition::Opening {
                    end.condition = Condition::Up;
                }
                if number >= end.awaited && end.early.len() < 4 * WINDOW {
                    end.early.insert(number, (bytes, last));
                }
                while let Some((bytes, last)) = end.early.remove(&end.awaited) {
                    end.awaited += 1;
                    end.received.extend_from_slice(&bytes);
                    if last && !matches!(end.condition, Condition::Lost(_)) {
                        end.condition = Condition::Finished;
                    }
                }
                let next = end.awaited;
                self.put(id, to.other(), Payload::Ack { next }, now, story);
            }
        }
    }
}

impl Packet {
    /// Flips a bit of what it carries, or of its checksum.
    fn flip(&mut self, random: &mut Random) {
        let bit = random.below(8);
        match &mut self.payload {
            Payload::Segment { bytes, .. } if !bytes.is_empty() => {
                let length = u64::try_from(bytes.len()).expect("a segment is short");
                let at = usize::try_from(random.below(length)).expect("a segment is short");
                bytes[at] ^= 1 << bit;
            }
            Payload::Open
            | Payload::Opened
            | Payload::Segment { .. }
            | Payload::Ack { .. }
            | Payload::Ping
            | Payload::Reset => self.checksum ^= 1 << bit,
        }
    }
}

/// FNV-1a over all that a packet carries.
fn checksum(payload: &Payload) -> u64 {
    let (tag, number, bytes): (u8, u64, &[u8]) = match payload {
        Payload::Open => (0, 0, &[]),
        Payload::Opened => (1, 0, &[]),
        Payload::Segment { number, bytes, last } => (2 + u8::from(*last), *number, bytes),
        Payload::Ack { next } => (4, *next, &[]),
        Payload::Ping => (5, 0, &[]),
        Payload::Reset => (6, 0, &[]),
    };
    let head = [tag].into_iter().chain(number.to_be_bytes());
    head.chain(bytes.iter().copied()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
