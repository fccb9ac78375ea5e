//! A host with an agent: the product's intake, journal, sealer and session, stepped by the world's clock.
//!
//! **Owns** the disk, the process and what stands in for the agent's threads and driver: who has a turn when.
//! **Does not own** any decision: those are the product's own parts.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidemark_agent::commit::{CommitHandle, CommitStart, Committer, Next, Sealer, Shared};
use tidemark_agent::driver::home::{AgentHome, Home as _};
use tidemark_agent::event::{Door, TimeLimits};
use tidemark_agent::intake::answer::Answered;
use tidemark_agent::intake::core::Core;
use tidemark_agent::intake::datagram::{Datagram, Received};
use tidemark_agent::intake::job::{IntakeSettings, IntakeStart};
use tidemark_agent::intake::{DatagramSource, IntakeHandle, IntakeThread, Item, Submission};
use tidemark_agent::journal::{
    FreshIds, Journal, JournalOptions, JournalState, OpenError, Recovered,
};
use tidemark_agent::parse::json_line;
use tidemark_agent::parse::naming::{Naming, Patterns};
use tidemark_agent::session::{Session, SessionConfig};
use tidemark_common::batch::Evidence;
use tidemark_common::id::{OpeningId, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;

use super::disk::Disk;
use super::here::{self, Clocks};
use super::planted::Bug;
use super::uplink::Uplink;

/// How long an agent that was asked to stop may take over it.
const GRACE_MILLIS: u64 = 10_000;
/// Datagrams that the simulated kernel keeps.
const KERNEL_QUEUE_MAX: usize = 16;

/// A host with room for one agent.
#[derive(Debug)]
pub struct AgentHost {
    pub name: AgentName,
    pub number: usize,
    pub disk: Disk,
    /// A whole journal was on the disk once. Before, the file has a name of its own, and a crash leaves none.
    pub is_placed: bool,
    pub process: Option<Process>,
    /// Wall clock minus the world's time.
    pub skew: i64,
    /// Whether somebody starts the agent when it is down, and when.
    pub start_at: Option<u64>,
    /// It gets no turn until then.
    pub paused_until: u64,
    pub collectors: Vec<usize>,
    pub address: usize,
    /// Journals that the product set aside here, with their streams.
    pub aside: Vec<StreamId>,
    /// An earlier state of the disk.
    pub snapshot: Option<(Disk, StreamId)>,
    /// The stream of the journal on the disk.
    pub stream: Option<StreamId>,
    /// The journal retains at most this much of what was acknowledged.
    pub retain_bytes: u64,
    pub step_at: u64,
}

/// One life of an agent.
pub struct Process {
    pub id: u64,
    pub begun: u64,
    pub opening: OpeningId,
    /// Gone once it was told to stop and has sealed all.
    intake: Option<IntakeThread>,
    committer: Committer,
    sealer: Sealer,
    datagrams: KernelQueue,
    handle: IntakeHandle,
    pub commit: CommitHandle,
    pub uplink: Uplink,
    answers: BTreeMap<usize, Asked>,
    /// It was asked to stop, and ends then if it has not before.
    pub stop_by: Option<u64>,
}

type Asked = Pin<Box<dyn Future<Output = Option<Answered>>>>;

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What came of a start.
#[derive(Debug)]
pub enum Started {
    Running,
    /// Another process holds the disk.
    Held,
    /// The journal is in conflict: it is set aside, and a new one begins at the next start.
    SetAside(StreamId),
    Failed(OpenError),
}

/// How a process is after a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    Running,
    /// Asked to stop, it closed its stream.
    Closed,
    Conflict(String),
    /// It ended with an error.
    Failed(String),
}

/// The kernel's queue of a datagram socket.
#[derive(Debug, Clone, Default)]
pub struct KernelQueue(Rc<RefCell<Queued>>);

#[derive(Debug, Default)]
struct Queued {
    datagrams: VecDeque<Vec<u8>>,
    drops: u64,
}

impl KernelQueue {
    /// False if there was no room.
    pub fn push(&self, datagram: Vec<u8>) -> bool {
        let mut queued = self.0.borrow_mut();
        let room = queued.datagrams.len() < KERNEL_QUEUE_MAX;
        if room {
            queued.datagrams.push_back(datagram);
        } else {
            queued.drops += 1;
        }
        room
    }
}

impl DatagramSource for KernelQueue {
    fn receive(
        &mut self,
        _wait: Duration,
        mut each: impl FnMut(Door, Datagram<'_>),
    ) -> io::Result<Received> {
        let queued = std::mem::take(&mut self.0.borrow_mut().datagrams);
        for bytes in &queued {
            each(Door::Udp, Datagram { bytes, truncated: false });
        }
        Ok(Received { datagrams: queued.len(), woken: false })
    }

    fn kernel_drops(&self) -> u64 {
        self.0.borrow().drops
    }

    fn close(&mut self) {
        self.0.borrow_mut().datagrams.clear();
    }
}

impl AgentHost {
    #[must_use]
    pub fn new(number: usize, name: &str) -> Self {
        Self {
            name: AgentName::parse(name).expect("the world's names are names"),
            number,
            disk: Disk::default(),
            is_placed: false,
            process: None,
            skew: 0,
            start_at: None,
            paused_until: 0,
            collectors: Vec::new(),
            address: 0,
            aside: Vec::new(),
            snapshot: None,
            stream: None,
            retain_bytes: 8 << 20,
            step_at: 0,
        }
    }

    /// The host's clocks at `now`.
    #[must_use]
    pub fn clocks(&self, epoch: Timestamp, now: u64) -> Clocks {
        let wall = epoch.plus_millis(i64::try_from(now).expect("a world is short") + self.skew);
        Clocks { wall, ticks: now }
    }

    /// Starts an agent on the disk, as the product does. The host is entered.
    pub fn start(&mut self, id: u64, now: u64, bug: Option<Bug>) -> Started {
        let Some(held) = self.disk.hold(id) else { return Started::Held };
        if bug == Some(Bug::JournalNotSynced) {
            self.disk.ignore_syncs();
        }
        let reused = self.stream.filter(|_| bug == Some(Bug::StreamReused));
        let fresh = FreshIds {
            stream: reused.unwrap_or_else(|| StreamId(here::nonce())),
            opening: OpeningId(here::nonce()),
        };
        match Journal::open_on(held, options(self.retain_bytes), fresh, here::wall()) {
            Ok((journal, recovered)) => {
                self.stream = Some(recovered.state.stream);
                self.is_placed = true;
                self.process = Some(Process::begin(id, now, journal, recovered, bug));
                Started::Running
            }
            Err(OpenError::Conflicted { stream, .. }) => {
                self.disk.release();
                self.disk = Disk::default();
                self.is_placed = false;
                self.stream = None;
                self.aside.push(stream);
                Started::SetAside(stream)
            }
            Err(error) => {
                self.disk.release();
                if !self.is_placed {
                    self.disk = Disk::default();
                }
                Started::Failed(error)
            }
        }
    }
}

fn options(retain_acked_bytes_max: u64) -> JournalOptions {
    JournalOptions {
        path: PathBuf::from("journal.redb"),
        bytes_max: 32 << 20,
        retain_acked_millis: 86_400_000,
        retain_acked_bytes_max,
        raw_events_bytes_max: 8 << 20,
        ids_max: 100_000,
        ids_window_millis: 86_400_000,
        dead_letters_max: 100,
        dead_letter_bytes_max: 64 << 10,
    }
}

fn settings() -> IntakeSettings {
    IntakeSettings {
        naming: Naming::default(),
        negative: Patterns::default(),
        time: TimeLimits::default(),
        linger_millis: 5,
        linger_max_millis: 50,
        open_lines_max: 64,
        open_chunk_bytes_max: 1 << 20,
        ids_max: 100_000,
        ids_window_millis: 86_400_000,
    }
}

impl Process {
    fn begin(
        id: u64,
        now: u64,
        journal: Journal,
        mut recovered: Recovered,
        bug: Option<Bug>,
    ) -> Self {
        if bug == Some(Bug::IdsForgotten) {
            recovered.ids.clear();
        }
        let mut evidence = recovered.state.evidence.clone();
        if bug == Some(Bug::EvidenceLost) {
            evidence = Evidence::default();
        }
        let opening = recovered.state.opening;
        let shared = Arc::new(Shared::with_raw_events(true));
        let rules = recovered.rules.clone().map(Arc::new);
        let start = CommitStart {
            journal,
            groups: recovered.groups.clone(),
            rules: rules.clone(),
            unique_key: recovered.unique_key,
            shared: Arc::clone(&shared),
            machine: here::machine(),
        };
        let (committer, sealer, commit, jobs) =
            Committer::new(start).expect("the compressor has its memory");
        let (handle, inbox) =
            IntakeHandle::channel(Arc::clone(&shared), rules.clone(), Arc::new(|| {}));
        let core = Core::new(
            settings(),
            IntakeStart {
                opening,
                accepted: recovered.state.accepted,
                evidence,
                next_group: recovered.next_group,
                newest: recovered.newest,
                ids: recovered.ids,
                sources: recovered.sources,
                rules,
                unique_key: recovered.unique_key,
            },
        );
        let intake = IntakeThread::new(core, inbox, jobs, shared, here::machine());
        let home = AgentHome::new(commit.clone(), handle.clone());
        let config = SessionConfig {
            batches_in_flight_max: 8,
            session_millis_max: 120_000,
            agent: "world".to_owned(),
        };
        let session = Session::new(config, home.facts());
        let uplink = Uplink::new(session, home, handle.clone(), commit.clone(), bug);
        Self {
            id,
            begun: now,
            opening,
            intake: Some(intake),
            committer,
            sealer,
            datagrams: KernelQueue::default(),
            handle,
            commit,
            uplink,
            answers: BTreeMap::new(),
            stop_by: None,
        }
    }

    /// The commit thread begins. Errors end the process.
    pub fn ready(&mut self) -> Turn {
        match self.committer.begin() {
            Ok(()) => Turn::Running,
            Err(error) => Turn::Failed(error.to_string()),
        }
    }

    /// Where datagrams go.
    #[must_use]
    pub fn kernel(&self) -> &KernelQueue {
        &self.datagrams
    }

    /// The journal's published figures.
    #[must_use]
    pub fn state(&self) -> Arc<JournalState> {
        Arc::clone(&self.commit.state().borrow())
    }

    /// Hands lines to the acknowledged door, for `client`.
    pub fn submit(&mut self, client: usize, lines: &[String]) {
        let naming = Naming::default();
        let item = |line: &String| Item {
            parsed: json_line::message(line.as_bytes(), &naming),
            raw: line.clone().into_bytes().into(),
        };
        let submission =
            Submission { door: Door::Events, rules: None, items: lines.iter().map(item).collect() };
        let handle = self.handle.clone();
        let asked = async move {
            let answered = handle.submit(submission).await.ok()?;
            answered.await.ok()
        };
        self.answers.insert(client, Box::pin(asked));
    }

    /// Stops taking events; what is left is shipped and the stream closed.
    pub fn stop(&mut self, now: u64) {
        if self.stop_by.is_none() {
            self.stop_by = Some(now + GRACE_MILLIS);
            self.uplink.stop();
        }
    }

    /// The threads' turns. Answers to clients are put to `told`.
    pub fn turn(&mut self, told: &mut Vec<(usize, Option<Answered>)>) -> Turn {
        for _ in 0..2 {
            self.poll_answers(told);
            // It ends when it is told to; then only the commit thread is left.
            if let Some(intake) = &mut self.intake
                && intake.turn(&mut self.datagrams).is_err()
            {
                self.intake = None;
            }
            for _ in 0..2 {
                match self.committer.turn() {
                    Ok(Next::GoOn) => {}
                    Ok(Next::Stop) => return Turn::Failed("the commit thread stopped".to_owned()),
                    Err(error) => return Turn::Failed(error.to_string()),
                }
                self.sealer.turn();
            }
        }
        self.poll_answers(told);
        Turn::Running
    }

    fn poll_answers(&mut self, told: &mut Vec<(usize, Option<Answered>)>) {
        self.answers.retain(|client, asked| match poll(asked) {
            Some(answered) => {
                told.push((*client, answered));
                false
            }
            None => true,
        });
    }

    /// How long nothing is due but what comes in.
    #[must_use]
    pub fn wait_millis(&self) -> u64 {
        match self.intake.as_ref().map_or(100, IntakeThread::wait_millis) {
            // An idle turn only writes evidence, once a second.
            100 if self.answers.is_empty() => 500,
            wait => wait.max(1),
        }
    }
}

/// What a future came to, if it did.
pub fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// At any moment all that is accepted is posted or on its way, each counted on its own.
///
/// # Errors
/// Says what does not add up.
pub fn conserved(state: &JournalState) -> Result<(), String> {
    let JournalState {
        accepted, posted_events, events_in_chunks, events_in_unposted_batches, ..
    } = state;
    if posted_events + events_in_chunks + events_in_unposted_batches == *accepted {
        return Ok(());
    }
    Err(format!(
        "not conserved: stream {} accepted {accepted}, posted {posted_events}, in chunks {events_in_chunks}, in batches \
         {events_in_unposted_batches}",
        state.stream
    ))
}
