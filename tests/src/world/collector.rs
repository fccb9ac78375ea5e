//! A host with a collector: the product's sessions and ledger, stepped by the world's clock.
//!
//! **Owns** the two disks, the process, and what stands in for the listener: whose turn it is.
//! **Does not own** any decision: those are the product's own parts.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use tidemark_collector::dedupe::Verdict;
use tidemark_collector::ledger::redb::{RedbOptions, RedbStore};
use tidemark_collector::ledger::request::{Admission, HelloRequest, Reply, Request};
use tidemark_collector::ledger::store::StoreError;
use tidemark_collector::ledger::{Folder, Ledger, LedgerOptions, Writer};
use tidemark_collector::session::{Action, Session, Terms};
use tidemark_common::id::{LedgerId, MeterName, RulesVersion, Sequence, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;
use tidemark_common::wire::{EventsPiece, Frame, FrameBuffer, MeterRule, Rules, Throttle};
use tokio::sync::oneshot;

use super::agent::poll;
use super::backup::Backup;
use super::disk::Disk;
use super::here::{self, Clocks};
use super::load::METERS;
use super::net::{Condition, LinkId, Network, Side};
use super::planted::Bug;
use super::raw_events::RawArchive;
use super::store::PlantedStore;
use super::story::Story;

/// A session is asked to confirm this often.
const CONFIRM_MILLIS: u64 = 2_000;
/// Without a Hello a link is given up.
const HELLO_MILLIS: u64 = 10_000;
/// The clock's limit is looked at this often.
const TICK_MILLIS: u64 = 1_000;
/// A throttled agent pauses for so long.
const PAUSE_MILLIS: u32 = 700;
/// An identity may begin so many streams: more than an agent that loses its disk again and again.
const STREAMS_PER_HOUR_MAX: u32 = 24;

/// A host with room for one collector.
#[derive(Debug)]
pub struct CollectorHost {
    pub number: usize,
    pub ledger: Disk,
    pub totals: Disk,
    pub process: Option<Process>,
    pub skew: i64,
    pub start_at: Option<u64>,
    pub paused_until: u64,
    /// The version of its rules.
    pub rules: u64,
    pub backup: Option<Backup>,
    pub restores: u32,
    pub step_at: u64,
    /// How often the tail is folded.
    pub fold_millis: u64,
    /// As many streams it takes.
    pub streams_max: usize,
    /// Agents are asked to pause until then.
    pub throttled_until: u64,
}

/// What is granted at once of raw events.
const GRANT_BYTES: u32 = 256 << 10;

/// One life of a collector.
#[derive(Debug)]
pub struct Process {
    pub id: u64,
    pub ledger: Ledger,
    pub store: RedbStore,
    writer: Writer<PlantedStore>,
    folder: Folder<PlantedStore>,
    sessions: BTreeMap<LinkId, Served>,
    terms: Terms,
    tick_at: u64,
    fold_at: u64,
    bug: Option<Bug>,
    /// Raw events that are taken, and not archived yet: they end with the process.
    desk: Vec<(LinkId, StreamId, EventsPiece)>,
    /// The newest reading of ledger time.
    pub newest: Timestamp,
}

#[derive(Debug)]
struct Served {
    session: Session,
    buffer: FrameBuffer,
    due: VecDeque<oneshot::Receiver<Reply>>,
    confirm_at: u64,
    hello_by: u64,
    ended: bool,
}

/// An Ack or Welcome that was sent: all up to there is in the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    pub ledger: LedgerId,
    pub stream: StreamId,
    pub posted: Sequence,
}

/// What a turn needs of the world.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The host.
    pub number: usize,
    pub network: &'a mut Network,
    pub names: &'a [AgentName],
    pub story: &'a mut Story,
    pub acknowledged: &'a mut Vec<Acknowledged>,
    pub archived: &'a mut RawArchive,
    /// Whoever sends a batch is asked to pause.
    pub throttles: bool,
    pub now: u64,
}

impl Surroundings<'_> {
    fn throttle(&mut self, link: LinkId) {
        let throttle = Throttle { pause_millis: PAUSE_MILLIS, extras: Vec::new() };
        let bytes = Frame::Throttle(throttle).encode().expect("a short frame");
        self.network.send(link, Side::Collector, &bytes, self.now);
    }
}

impl CollectorHost {
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self {
            number,
            ledger: Disk::default(),
            totals: Disk::default(),
            process: None,
            skew: 0,
            start_at: None,
            paused_until: 0,
            rules: 1,
            backup: None,
            restores: 0,
            step_at: 0,
            fold_millis: 3_000,
            streams_max: 1_000,
            throttled_until: 0,
        }
    }

    #[must_use]
    pub fn clocks(&self, epoch: Timestamp, now: u64) -> Clocks {
        let wall = epoch.plus_millis(i64::try_from(now).expect("a world is short") + self.skew);
        Clocks { wall, ticks: now }
    }

    /// Whether its process may go on: neither disk has stopped it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            self.ledger.is_held_by(process.id) && self.totals.is_held_by(process.id)
        })
    }

    /// Starts a collector on the disks. The host is entered. `Ok(false)`: another process holds them.
    ///
    /// # Errors
    /// What the product says.
    pub fn start(&mut self, id: u64, now: u64, bug: Option<Bug>) -> Result<bool, String> {
        let Some(ledger) = self.ledger.hold(id) else { return Ok(false) };
        let Some(totals) = self.totals.hold(id) else {
            self.ledger.release();
            return Ok(false);
        };
        if bug == Some(Bug::LedgerNotSynced) {
            self.ledger.ignore_syncs();
        }
        let began = self.begin((ledger, totals), id, now, bug);
        if began.is_err() {
            self.release();
        }
        began.map(|process| {
            self.process = Some(process);
            true
        })
    }

    pub fn release(&mut self) {
        self.ledger.release();
        self.totals.release();
    }

    fn begin(
        &self,
        (ledger, totals): (super::disk::Held, super::disk::Held),
        id: u64,
        now: u64,
        bug: Option<Bug>,
    ) -> Result<Process, String> {
        let options = RedbOptions {
            random: here::fill,
            streams_max: self.streams_max,
            streams_per_hour_max: STREAMS_PER_HOUR_MAX,
            ..RedbOptions::default()
        };
        let remake = || {
            let wiped = totals.clone();
            wiped.wipe();
            wiped
        };
        let opened =
            RedbStore::open_remaking(ledger, totals.clone(), remake, &options, here::wall());
        let (store, mut recovered) = opened.map_err(|error| error.to_string())?;
        if bug == Some(Bug::LedgerTimeFell) {
            recovered.clock_limit = Timestamp(0);
        }
        let planted = PlantedStore::new(store.clone(), bug);
        let options = LedgerOptions { redb: options, ..LedgerOptions::default() };
        let prepared = Ledger::prepare(planted, recovered, options, here::time_source());
        let (ledger, writer, folder) =
            at_once(Box::pin(prepared)).map_err(|error| error.to_string())?;
        let terms = Terms {
            ledger: ledger.ledger(),
            unique_key: ledger.unique_key(),
            rules: Arc::new(rules(self.rules)),
            batches_in_flight_max: 8,
            raw_events: true,
        };
        Ok(Process {
            id,
            newest: ledger.now(),
            ledger,
            store,
            writer,
            folder,
            sessions: BTreeMap::new(),
            desk: Vec::new(),
            terms,
            tick_at: now,
            fold_at: now + self.fold_millis,
            bug,
        })
    }
}

fn rules(version: u64) -> Rules {
    // An odd version keeps one dimension more.
    let meter = |name: &&str| MeterRule {
        meter: MeterName::parse(name).expect("the world's names are names"),
        dimensions: if version % 2 == 1 {
            vec!["plan".to_owned()]
        } else {
            vec!["plan".to_owned(), "region".to_owned()]
        },
        negative: false,
    };
    Rules {
        version: RulesVersion(version),
        seal_interval_millis: 300,
        meters: METERS.iter().map(meter).collect(),
        cloud_events: vec![],
        deduplicated: vec![],
    }
}

/// The value of a future that has nothing to wait for: its store does everything at once.
pub fn at_once<T>(mut future: Pin<Box<dyn Future<Output = T> + '_>>) -> T {
    use std::task::{Context, Poll, Waker};
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a ledger without a runtime does everything at once"),
    }
}

impl Process {
    /// Rules of another version: sessions are asked to come again for them.
    pub fn adopt_rules(&mut self, version: u64) {
        self.terms.rules = Arc::new(rules(version));
        for served in self.sessions.values_mut() {
            served.session.handle_unavailable("the rules have changed; say Hello for the new ones");
        }
    }

    /// Ends its sessions politely, takes what waits, and writes what makes the next start quick.
    ///
    /// # Errors
    /// If the store fails.
    pub fn stop(&mut self, around: &mut Surroundings<'_>) -> Result<(), StoreError> {
        for served in self.sessions.values_mut() {
            served.session.handle_unavailable("the collector is stopping");
        }
        self.serve(around)?;
        at_once(Box::pin(self.writer.checkpoint()))?;
        at_once(Box::pin(self.folder.turn()))
    }

    /// Sessions, the writer and the folder have a turn each.
    ///
    /// # Errors
    /// If the store fails: the process must end.
    pub fn turn(
        &mut self,
        fold_millis: u64,
        around: &mut Surroundings<'_>,
    ) -> Result<(), StoreError> {
        for link in around.network.accept(around.number) {
            self.accept(link, around);
        }
        self.serve(around)?;
        if around.now >= self.fold_at {
            self.fold_at = around.now + fold_millis;
            at_once(Box::pin(self.folder.turn()))?;
            around.story.count("ledger folded");
            self.archive(around);
        }
        Ok(())
    }

    /// Raw events go to the archive, and their sessions hear of it.
    fn archive(&mut self, around: &mut Surroundings<'_>) {
        for (link, stream, piece) in self.desk.drain(..) {
            let (sequence, is_last) = (piece.sequence, piece.index + 1 == piece.of);
            around.archived.take(stream, piece);
            if let Some(served) = self.sessions.get_mut(&link).filter(|_| is_last) {
                around.story.count("raw events archived");
                served.session.handle_archived(sequence);
            }
        }
    }

    fn serve(&mut self, around: &mut Surroundings<'_>) -> Result<(), StoreError> {
        for _ in 0..2 {
            let links: Vec<LinkId> = self.sessions.keys().copied().collect();
            for link in links {
                self.drive(link, around);
            }
            at_once(Box::pin(self.writer.turn()))?;
            self.tick_at = around.now + TICK_MILLIS;
            for served in self.sessions.values_mut() {
                served.take_replies(self.ledger.now(), around.story);
            }
        }
        self.sessions.retain(|_, served| !served.ended);
        Ok(())
    }

    fn drive(&mut self, link: LinkId, around: &mut Surroundings<'_>) {
        let Self { ledger, sessions, desk, bug, .. } = self;
        let Some(served) = sessions.get_mut(&link) else { return };
        served.buffer.push(&around.network.receive(link, Side::Collector));
        served.watch(around.now);
        loop {
            served.act(link, ledger, *bug, desk, around);
            if served.ended || !served.session.wants_frames() {
                break;
            }
            match served.buffer.next_frame() {
                Ok(Some(frame)) => {
                    if around.throttles && matches!(frame, Frame::Batch(_)) {
                        around.throttle(link);
                    }
                    served.session.handle_frame(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    around.story.count("verdict collector: unreadable frame");
                    served.session.handle_unreadable(error.to_string());
                }
            }
        }
        let lost = matches!(
            around.network.condition(link, Side::Collector),
            Condition::Lost(_) | Condition::Finished
        );
        if served.ended {
            around.network.finish(link, Side::Collector, around.now);
            around.network.drop_end(link, Side::Collector, around.now, around.story);
        } else if lost && served.due.is_empty() {
            served.ended = true;
            around.network.drop_end(link, Side::Collector, around.now, around.story);
        }
    }

    fn accept(&mut self, link: LinkId, around: &mut Surroundings<'_>) {
        let agent = around.network.agent_of(link).and_then(|agent| around.names.get(agent));
        let Some(agent) = agent else { return };
        let session = Session::new(agent.clone(), self.terms.clone());
        self.sessions.insert(
            link,
            Served {
                session,
                buffer: FrameBuffer::default(),
                due: VecDeque::new(),
                confirm_at: around.now + CONFIRM_MILLIS,
                hello_by: around.now + HELLO_MILLIS,
                ended: false,
            },
        );
    }
}

impl Served {
    fn watch(&mut self, now: u64) {
        if self.session.is_welcome() && now >= self.confirm_at {
            self.confirm_at = now + CONFIRM_MILLIS;
            self.session.handle_confirm_due();
        }
        if !self.session.is_welcome() && now >= self.hello_by {
            self.hello_by = u64::MAX;
            self.session.handle_unreadable("no Hello came in time".to_owned());
        }
    }

    fn act(
        &mut self,
        link: LinkId,
        ledger: &Ledger,
        bug: Option<Bug>,
        desk: &mut Vec<(LinkId, StreamId, EventsPiece)>,
        around: &mut Surroundings<'_>,
    ) {
        while let Some(action) = self.session.poll_action(ledger.now()) {
            match action {
                Action::Send(frame) => {
                    self.note(&frame, ledger.ledger(), around);
                    if let Ok(bytes) = frame.encode() {
                        around.network.send(link, Side::Collector, &bytes, around.now);
                    }
                }
                Action::Hello(hello) => {
                    let agent = self.session.agent().clone();
                    let said = ledger.monotonic();
                    let request = HelloRequest { hello: *hello, agent, said };
                    self.submit(ledger, Request::Hello(Box::new(request)));
                }
                Action::Admit(incoming) => {
                    let admission =
                        Admission::open(incoming.header, incoming.bytes, incoming.fence);
                    let sequence = admission.header.sequence;
                    self.submit(ledger, Request::Admit(Box::new(admission)));
                    if bug == Some(Bug::PostedBeforeCommit) && self.due.len() == 1 {
                        self.due.clear();
                        let posted = Reply::Judged {
                            verdict: Verdict::Admit,
                            posted: sequence,
                            openings: Vec::new(),
                        };
                        self.session.handle_reply(posted, ledger.now());
                    }
                }
                Action::Confirm(stream, confirm) => {
                    self.submit(ledger, Request::Confirm { stream, confirm });
                }
                Action::Close(stream, close) => {
                    self.submit(ledger, Request::Close { stream, close });
                }
                // There is no room now and then.
                Action::Grant(_) if around.now.is_multiple_of(3) => {}
                Action::Grant(_) => self.session.handle_granted(GRANT_BYTES),
                Action::GrantOver => {}
                Action::Keep(stream, piece) => {
                    if bug == Some(Bug::RawEventsSaidEarly) && piece.index + 1 == piece.of {
                        self.session.handle_archived(piece.sequence);
                    }
                    desk.push((link, stream, piece));
                }
                Action::End => self.ended = true,
            }
        }
    }

    /// Keeps what the agent is told is posted.
    fn note(&self, frame: &Frame, ledger: LedgerId, around: &mut Surroundings<'_>) {
        let posted = match frame {
            Frame::Welcome(welcome) => welcome.posted_sequence,
            Frame::Ack(ack) => ack.posted_sequence,
            Frame::Refuse(refuse) => {
                let reason = format!("{:?}", refuse.reason);
                let reason = reason.split([' ', '{']).next().unwrap_or_default();
                return around.story.count(format!("refused {reason}"));
            }
            Frame::Hello(_)
            | Frame::Batch(_)
            | Frame::Confirm(_)
            | Frame::Close(_)
            | Frame::Throttle(_)
            | Frame::Events(_) => return,
        };
        if let Some(stream) = self.session.stream() {
            around.acknowledged.push(Acknowledged { ledger, stream, posted });
        }
    }

    fn submit(&mut self, ledger: &Ledger, request: Request) {
        let mut submitting: Pin<Box<dyn Future<Output = _>>> = {
            let ledger = ledger.clone();
            Box::pin(async move { ledger.submit(request).await })
        };
        match poll(&mut submitting) {
            Some(Ok(reply)) => self.due.push_back(reply),
            Some(Err(error)) => self.session.handle_unavailable(&error.to_string()),
            None => self.session.handle_unavailable("too many requests wait"),
        }
    }

    fn take_replies(&mut self, now: Timestamp, story: &mut Story) {
        while let Some(oldest) = self.due.front_mut() {
            match oldest.try_recv() {
                Ok(reply) => {
                    story.count(verdict_name(&reply));
                    self.session.handle_reply(reply, now);
                    self.due.pop_front();
                }
                Err(oneshot::error::TryRecvError::Empty) => return,
                Err(oneshot::error::TryRecvError::Closed) => {
                    self.session.handle_unavailable("the ledger cannot be written now");
                    self.due.clear();
                }
            }
        }
    }
}

fn verdict_name(reply: &Reply) -> String {
    let (of, verdict) = match reply {
        Reply::Welcomed(_) => return "verdict hello: Welcome".to_owned(),
        Reply::HelloRefused { verdict, .. } => ("hello", format!("{verdict:?}")),
        Reply::Judged { verdict, .. } => ("batch", format!("{verdict:?}")),
        Reply::Claimed(verdict) => ("claim", format!("{verdict:?}")),
        Reply::Booked(booked) => ("booking", format!("{booked:?}")),
        Reply::Archived => ("archiving", String::new()),
        Reply::Retired(streams) => ("retirement", format!("{streams} streams")),
    };
    let name = verdict.split([' ', '{']).next().unwrap_or_default();
    let name = if name.starts_with("Invalid") { "Invalid" } else { name };
    let name = name.split('(').next().unwrap_or_default();
    format!("verdict {of}: {name}")
}
