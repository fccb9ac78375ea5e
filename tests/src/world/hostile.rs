//! A stranger with a valid certificate: it says what no agent would.
//!
//! **Owns** its own stream and its lies. Whatever it sends, the others' usage must not change, and the collector
//! must go on.

use tidemark_common::batch::{
    BodyWriter, Evidence, HEADER_BYTES, LineValue, NewHeader, SealedBatch, genesis, series_bytes,
};
use tidemark_common::id::{
    Digest, EventNumber, Fence, LedgerId, OpeningId, RulesVersion, Sequence, StreamId,
};
use tidemark_common::quantity::Quantity;
use tidemark_common::time::{Bucket, Timestamp};
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{Close, Confirm, Frame, FrameBuffer, Hello};

use super::net::{Condition, LinkId, Side};
use super::{World, here, spare};
use crate::random::Random;

/// A flood begins a stream with every third or fourth of its turns.
const FLOOD_ROUNDS: u64 = 120;

/// One who may connect, and means no good.
#[derive(Debug)]
pub struct Hostile {
    pub name: AgentName,
    host: usize,
    random: Random,
    link: Option<LinkId>,
    said_hello: bool,
    buffer: FrameBuffer,
    stream: StreamId,
    ledger: Option<LedgerId>,
    fence: Fence,
    next: Position,
    /// This time it begins as many streams as it can.
    floods: bool,
    pub next_at: u64,
    rounds: u64,
}

/// Where its own stream stands.
#[derive(Debug, Clone, Copy)]
struct Position {
    sequence: Sequence,
    digest: Digest,
    end: EventNumber,
}

impl Hostile {
    #[must_use]
    pub fn new(host: usize, random: Random) -> Self {
        Self {
            name: AgentName::parse("stranger").expect("a name"),
            host,
            random,
            link: None,
            said_hello: false,
            buffer: FrameBuffer::default(),
            stream: StreamId(here::nonce()),
            ledger: None,
            fence: Fence(0),
            next: Position {
                sequence: Sequence::ZERO,
                digest: Digest([0; 32]),
                end: EventNumber(0),
            },
            floods: false,
            next_at: u64::MAX,
            rounds: 0,
        }
    }

    /// It comes for a while.
    pub fn come(&mut self, now: u64) {
        self.floods = self.random.below(4) == 0;
        self.rounds = if self.floods { FLOOD_ROUNDS } else { 12 };
        self.next_at = now;
    }

    pub fn leave(&mut self) {
        self.rounds = 0;
        self.next_at = u64::MAX;
    }

    fn hello(&mut self, stream: StreamId) -> Frame {
        // Now and then it seals only what nobody can read.
        let header_version = u16::from(self.random.below(12) > 0);
        Frame::Hello(Hello {
            header_version,
            body_version: 1,
            stream,
            ledger: self.ledger,
            opening: OpeningId([9; 16]),
            posted_sequence: Sequence::ZERO,
            posted_digest: Digest([0; 32]),
            sealed_sequence: Sequence(1_000_000),
            accepted: 0,
            rules_version: RulesVersion(0),
            openings: Vec::new(),
            clock: Timestamp(0),
            token: None,
            agent: "stranger".to_owned(),
            extras: Vec::new(),
        })
    }

    /// A batch of its own, sealed as an agent would.
    fn batch(&mut self, at: Position) -> SealedBatch {
        let mut body = BodyWriter::new([7; 32], &Evidence::default());
        let one = Quantity::whole(1);
        let value = LineValue {
            events: 1,
            quantity_events: 1,
            sum: one,
            min: one,
            max: one,
            latest_time: here::wall(),
            latest: one,
            ..LineValue::default()
        };
        let series = series_bytes("mystery", "stranger", &[]);
        body.line(&series, Bucket(1_963_584), 0, &value).expect("a line as an agent writes it");
        let header = NewHeader {
            stream: self.stream,
            opening: OpeningId([9; 16]),
            sequence: at.sequence.next(),
            first_event: at.end,
            end_event: at.end.plus(1),
            rules: RulesVersion(1),
            previous: at.digest,
        };
        SealedBatch::assemble(header, body.finish().expect("a small body"))
    }

    /// What it says next, after Welcome.
    fn lie(&mut self) -> Vec<u8> {
        let honest = self.next;
        let choice = self.random.below(14);
        let frame = match choice {
            // As it should be, so that its stream goes on; or a body that cannot be read.
            0..=3 => {
                let batch = self.batch(honest);
                self.next = Position {
                    sequence: batch.header.sequence,
                    digest: batch.header.digest(),
                    end: batch.header.end_event,
                };
                let mut bytes = batch.bytes;
                if choice == 3 {
                    bytes[HEADER_BYTES] ^= 0xff;
                }
                Frame::Batch(bytes)
            }
            4 => Frame::Batch(
                self.batch(Position { sequence: Sequence(honest.sequence.0 + 3), ..honest }).bytes,
            ),
            5 => Frame::Batch(self.batch(Position { digest: Digest([3; 32]), ..honest }).bytes),
            6 => Frame::Batch(
                self.batch(Position { end: EventNumber(honest.end.0 + 9), ..honest }).bytes,
            ),
            // The last one again, with other bytes.
            7 => {
                let sequence = Sequence(honest.sequence.0.saturating_sub(1));
                Frame::Batch(
                    self.batch(Position { sequence, digest: Digest([4; 32]), ..honest }).bytes,
                )
            }
            8 => Frame::Confirm(Confirm {
                ledger_time: Timestamp(i64::MAX),
                sequence: Sequence(u64::MAX),
                accepted: u64::MAX,
                fence: self.fence,
                extras: Vec::new(),
            }),
            9 => Frame::Close(Close {
                sequence: Sequence(u64::MAX),
                accepted: 1,
                fence: Fence(self.fence.0.wrapping_sub(self.random.below(2))),
                extras: Vec::new(),
            }),
            10 => self.hello(self.stream),
            11 => {
                let mut bytes = self.batch(honest).bytes;
                bytes.truncate(HEADER_BYTES / 2);
                Frame::Batch(bytes)
            }
            _ => return self.garbage(),
        };
        let mut bytes = frame.encode().expect("lies are well formed");
        // Now and then all of it twice.
        if self.random.below(8) == 0 {
            bytes.extend_from_within(..);
        }
        if self.random.below(10) == 0 {
            let length = u64::try_from(bytes.len()).expect("a frame is short");
            let at = usize::try_from(self.random.below(length)).expect("a frame is short");
            bytes[at] ^= 1 << self.random.below(8);
        }
        bytes
    }

    /// What it learns from the collector. Whether that said anything.
    fn hear(&mut self) -> bool {
        let mut heard = false;
        while let Ok(Some(frame)) = self.buffer.next_frame() {
            heard = true;
            let Frame::Welcome(welcome) = frame else { continue };
            if self.floods {
                continue;
            }
            self.fence = welcome.fence;
            if welcome.posted_sequence != self.next.sequence || self.ledger.is_none() {
                // Its stream stands elsewhere than it thinks: a restored ledger, a lost link.
                let fresh = welcome.posted_sequence == Sequence::ZERO;
                let digest = if fresh {
                    genesis(welcome.ledger, self.stream)
                } else {
                    welcome.posted_digest
                };
                let end = EventNumber(welcome.posted_sequence.0);
                self.next = Position { sequence: welcome.posted_sequence, digest, end };
            }
            self.ledger = Some(welcome.ledger);
        }
        heard
    }

    fn garbage(&mut self) -> Vec<u8> {
        let length = self.random.below(300);
        (0..length).map(|_| self.random.next_u64().to_le_bytes()[0]).collect()
    }
}

impl World {
    pub(super) fn step_hostile(&mut self) {
        let now = self.now;
        let hostile = &mut self.hostile;
        let pause = if hostile.floods { 20 } else { 100 };
        hostile.next_at = if hostile.rounds == 0 { u64::MAX } else { now + pause };
        self.strangers.insert(hostile.stream);
        let Some(link) = hostile.link else {
            if hostile.rounds > 0 {
                hostile.link = Some(self.network.open(hostile.host, 0, now));
                hostile.said_hello = false;
                hostile.buffer = FrameBuffer::default();
            }
            return;
        };
        match self.network.condition(link, Side::Agent) {
            Condition::Opening => return,
            Condition::Up => {}
            Condition::Finished | Condition::Lost(_) => {
                self.network.drop_end(link, Side::Agent, now, &mut self.story);
                hostile.link = None;
                return;
            }
        }
        hostile.rounds = hostile.rounds.saturating_sub(1);
        if hostile.rounds == 0 {
            self.network.drop_end(link, Side::Agent, now, &mut self.story);
            hostile.link = None;
            hostile.next_at = u64::MAX;
            return;
        }
        if !hostile.said_hello {
            return self.hostile_hello(link);
        }
        hostile.buffer.push(&self.network.receive(link, Side::Agent));
        let heard = hostile.hear();
        if hostile.floods {
            // Once it is heard, the next stream.
            if heard {
                self.network.drop_end(link, Side::Agent, now, &mut self.story);
                hostile.link = None;
            }
            return;
        }
        for _ in 0..=hostile.random.below(3) {
            self.story.count("fault hostile frame");
            let lie = hostile.lie();
            self.network.send(link, Side::Agent, &lie, now);
        }
    }

    /// For its own stream, for a new one, or now and then for somebody else's.
    fn hostile_hello(&mut self, link: LinkId) {
        let hostile = &mut self.hostile;
        hostile.said_hello = true;
        let victim = usize::try_from(hostile.random.below(2)).expect("an index");
        let victim = self.agents[..spare(self.agents.len())].get(victim);
        // Nobody can guess the id of a stream before its ledger knows it.
        let known = self.collectors[0].process.as_ref().and_then(|process| {
            let stream = victim.and_then(|victim| victim.stream)?;
            let snapshot = process.ledger.snapshot().ok()?;
            snapshot.streams().iter().any(|status| status.stream == stream).then_some(stream)
        });
        let stream = match (hostile.random.below(3), known) {
            (0, Some(stream)) => stream,
            _ if hostile.floods => {
                let fresh = StreamId(here::nonce());
                self.strangers.insert(fresh);
                fresh
            }
            _ => hostile.stream,
        };
        let hello = hostile.hello(stream).encode().expect("a Hello is within its limits");
        self.network.send(link, Side::Agent, &hello, self.now);
    }
}
