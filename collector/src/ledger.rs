//! The ledger: admits batches exactly once, answers what was used, and never lets one wait for the other.
//!
//! ```text
//! sessions --Request--> writer --one transaction a group--> store: ledger
//!                          | appends                         store: totals <--one slice-- folder
//!                          v                                                               ^
//!                   published: tail, streams ------------------ the tail's batches --------+
//!                          |
//!                   snapshot(): tail and streams, then totals --> live usage
//! ```
//! **Owns** the tasks, the tail and the ledger's clock. **Does not own** judgements (`dedupe.rs`,
//! `session/`), files (`ledger/redb.rs`), or what usage means (`live.rs`, rating).
//!
//! Invariants: a reply is sent after the commit that it tells of. The totals hold only batches that
//! were published before, so a snapshot (tail and streams, then totals, under the lock that publishing
//! takes) is one cut. A storage error ends the ledger: the process reopens and verifies.
//!
//! Limits: [`LedgerOptions`].

pub mod allowance;
pub mod archived;
pub mod books;
pub mod check;
pub mod clock;
pub mod codec;
pub mod completeness;
pub mod duplicates;
pub mod entry;
pub mod figures;
pub mod fold;
pub mod marks;
pub mod redb;
pub mod request;
pub mod retired;
pub mod store;
pub mod stream;
pub mod tail;

mod folder;
mod retirer;
mod time_source;
mod writer;

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
pub(crate) mod conformance;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tidemark_common::id::{LedgerId, StreamId};
use tidemark_common::time::Timestamp;
use tidemark_common::tls::AgentName;
use tidemark_common::wire::UniqueKey;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use crate::ledger::completeness::Completeness;
pub use crate::ledger::figures::{Latencies, LedgerFigures};
pub use crate::ledger::folder::Folder;
pub use crate::ledger::stream::{Missing, StreamState, StreamStatus};
pub use crate::ledger::time_source::TimeSource;
pub use crate::ledger::writer::Writer;
pub use crate::live::{ReadError, Snapshot};
pub use crate::usage::{Seen, UsageRow};

use crate::certificate::keys::Signer;
use crate::period::Zone;

use self::archived::{ArchiveDoor, ArchiveState};
use self::books::{Booked, Change, Refused, RequestKey, What};
use self::clock::LedgerClock;
use self::figures::LedgerCounters;
use self::redb::{RedbOptions, RedbStore};
use self::request::{Reply, Request};
use self::retired::RetiredSums;
use self::store::{
    Books, LedgerStore, Recovered, Retired, StoreError, Totals, VisitBatch, VisitStored,
    VisitSuppressed, WhichBatches,
};
use self::stream::StreamRecord;
use self::tail::{Tail, TailSize};

/// The ledger's limits and intervals.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    pub redb: RedbOptions,
    /// At most this many requests wait for the writer.
    pub requests_max: usize,
    /// A group takes no further batch once its bodies hold this many bytes, raw.
    pub group_bytes_max: usize,
    /// The tail is folded once it holds this many lines, or its oldest batch is this old.
    pub fold_lines_max: u64,
    pub fold_age_millis: u64,
    /// Admission waits for the folder while the tail's bodies hold more than this.
    pub tail_bytes_max: u64,
    /// A stream that did not confirm for this long is named as silent.
    pub silent_after_millis: i64,
    /// A stream that is closed and whole retires once it was not heard of for this long.
    pub retire_after_millis: i64,
    /// The wall clock is right, however far ahead of the ledger's time it is.
    pub trust_clock: bool,
    /// A new ledger is a sandbox, whose time a person advances.
    pub test_clock: bool,
    /// Where the key of certificates is; `None`: nothing can be certified.
    pub keys: Option<PathBuf>,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            redb: RedbOptions::default(),
            requests_max: 1_024,
            group_bytes_max: 16 << 20,
            fold_lines_max: 200_000,
            fold_age_millis: 5_000,
            tail_bytes_max: 256 << 20,
            silent_after_millis: 30_000,
            retire_after_millis: 86_400_000,
            trust_clock: false,
            test_clock: false,
            keys: None,
        }
    }
}

/// A ledger that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LedgerError {
    #[error("failed to use the ledger: it is stopping")]
    Stopped,
    #[error(
        "failed to open the ledger: it goes by real time; a sandbox (--test-clock) begins in an empty data_dir"
    )]
    NotASandbox,
    #[error(
        "failed to open the ledger: reading its files ended in a panic, told above; run `tidemark-collector fsck`"
    )]
    Opening,
    #[error(
        "the machine's clock shows {wall}, and the ledger's time is {ledger_time}: set the clock right; if it is right, start once with --trust-clock"
    )]
    ClockLeaps { wall: String, ledger_time: String },
    #[error("nothing is booked without the archive: {why}")]
    Archive { why: String },
    #[error("failed to use the ledger: {0}")]
    Store(#[from] StoreError),
}

/// A handle on the running ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Waiting>,
}

/// A request and who waits for its reply.
#[derive(Debug)]
struct Waiting {
    request: Request,
    reply: oneshot::Sender<Reply>,
    /// When it came, by the machine's monotonic clock.
    since_micros: u64,
    /// Held while the request is in memory.
    room: Option<OwnedSemaphorePermit>,
}

/// Shows all batches as they are stored.
type VisitAllStored = dyn Fn(VisitStored<'_>) -> Result<(), StoreError> + Send + Sync;

/// Shows all batches.
type VisitAll = dyn Fn(WhichBatches, VisitBatch<'_>) -> Result<(), StoreError> + Send + Sync;

/// Shows batches with suppressed lines, from a position on.
type VisitAllSuppressed = dyn Fn(u64, VisitSuppressed<'_>) -> Result<(), StoreError> + Send + Sync;

/// What the handle, the writer and the folder share.
struct Shared {
    ledger: LedgerId,
    unique_key: UniqueKey,
    restored_at: Option<Timestamp>,
    options: LedgerOptions,
    time: TimeSource,
    clock: Mutex<LedgerClock>,
    published: RwLock<Published>,
    totals: Box<dyn Fn() -> Result<Box<dyn Totals>, StoreError> + Send + Sync>,
    books: Box<dyn Fn() -> Result<Box<dyn Books>, StoreError> + Send + Sync>,
    retired: Box<dyn Fn() -> Result<Box<dyn Retired>, StoreError> + Send + Sync>,
    batches: Box<VisitAll>,
    suppressed: Box<VisitAllSuppressed>,
    signer: Option<Signer>,
    stored: Box<VisitAllStored>,
    counters: LedgerCounters,
    size: watch::Sender<TailSize>,
    stage: watch::Sender<Stage>,
    archive: ArchiveDoor,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What readers see: changed under one lock, after commits and folds.
#[derive(Debug)]
struct Published {
    tail: Arc<Tail>,
    /// The live ones.
    streams: BTreeMap<StreamId, Arc<StreamRecord>>,
    /// What the others come to.
    retired: Arc<RetiredSums>,
}

/// How far the ledger is from its end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Running,
    /// The writer takes what is waiting and stops.
    Stopping,
    /// The writer has stopped; the folder folds once more.
    Folding,
    Stopped,
    Failed(StoreError),
}

impl Ledger {
    /// Opens or makes the embedded ledger in `data_dir` and starts its tasks.
    ///
    /// # Errors
    /// A file that is locked, newer, damaged, or cannot be written.
    pub async fn open(data_dir: &Path, options: LedgerOptions) -> Result<Self, LedgerError> {
        Self::open_embedded(data_dir, options).await.map(|(ledger, _)| ledger)
    }

    /// The same, and its store: for what concerns the files as such.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_embedded(
        data_dir: &Path,
        options: LedgerOptions,
    ) -> Result<(Self, RedbStore), LedgerError> {
        let options = LedgerOptions { keys: Some(data_dir.to_owned()), ..options };
        let (folder, redb, time) =
            (data_dir.to_owned(), options.redb.clone(), TimeSource::system());
        let now = time.read().wall;
        let opened =
            tokio::task::spawn_blocking(move || RedbStore::open(&folder, &redb, now)).await;
        let (store, recovered) = opened.map_err(|_| LedgerError::Opening)??;
        let ahead = books::test_clock(&*store.books()?)?;
        let is_new = recovered.clock_limit == Timestamp(0) && recovered.streams.is_empty();
        let (time, begins) = match (ahead, options.test_clock) {
            (Some(ahead), _) => (time.ahead(ahead), false),
            (None, true) if is_new => (time.ahead(0), true),
            (None, true) => return Err(LedgerError::NotASandbox),
            (None, false) => (time, false),
        };
        let ledger = Self::start(store.clone(), recovered, options, time).await?;
        if begins {
            let begun = ledger.advance_test_clock(ledger.now(), "--test-clock", None).await?;
            assert!(begun.is_ok(), "a new sandbox's clock begins");
        }
        if store.archive_facts()?.note.is_some() {
            let why = "it was not compared with its archive: start the collector, or name the archive in its configuration";
            ledger.tell_archive(ArchiveState::Unknown { why: why.to_owned() });
        }
        Ok((ledger, store))
    }

    /// Starts the tasks of an opened store. Returns once ledger time can advance.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn start<S: LedgerStore>(
        store: S,
        recovered: Recovered,
        options: LedgerOptions,
        time: TimeSource,
    ) -> Result<Self, LedgerError> {
        let (ledger, writer, folder) = Self::prepare(store, recovered, options, time).await?;
        let shared = &ledger.shared;
        let tasks = vec![
            shared.supervise("writer", writer.run()),
            shared.supervise("folder", folder.run()),
            shared.supervise(
                "retirer",
                retirer::run(Arc::clone(shared), ledger.requests.downgrade()),
            ),
        ];
        *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Ok(ledger)
    }

    /// The ledger of an opened store and its two tasks, which whoever asks for them steps by hand.
    /// Returns once ledger time can advance.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn prepare<S: LedgerStore>(
        store: S,
        recovered: Recovered,
        options: LedgerOptions,
        time: TimeSource,
    ) -> Result<(Self, Writer<S>, Folder<S>), LedgerError> {
        let store = Arc::new(store);
        let totals = {
            let store = Arc::clone(&store);
            Box::new(move || store.totals())
        };
        let books = {
            let store = Arc::clone(&store);
            Box::new(move || store.books())
        };
        let retired = {
            let store = Arc::clone(&store);
            Box::new(move || store.retired())
        };
        let batches = {
            let store = Arc::clone(&store);
            Box::new(move |which, visit: VisitBatch<'_>| store.visit_batches(which, visit))
        };
        let suppressed = {
            let store = Arc::clone(&store);
            Box::new(move |from, visit: VisitSuppressed<'_>| store.visit_suppressed(from, visit))
        };
        let stored = {
            let store = Arc::clone(&store);
            Box::new(move |visit: VisitStored<'_>| store.visit_stored(visit))
        };
        let mut clock = LedgerClock::resume(recovered.clock_limit);
        if options.trust_clock {
            clock.trust();
        }
        let reading = time.read();
        if let Some(ledger_time) = clock.leap(reading) {
            let [wall, ledger_time] = [reading.wall, ledger_time].map(|at| Zone::utc().rfc3339(at));
            return Err(LedgerError::ClockLeaps { wall, ledger_time });
        }
        let (requests, waiting) = mpsc::channel(options.requests_max);
        let tail = Tail::default().appended(recovered.tail);
        let streams = recovered.streams.into_iter().map(|record| (record.stream, Arc::new(record)));
        let shared = Arc::new(Shared {
            ledger: recovered.ledger,
            unique_key: recovered.unique_key,
            restored_at: recovered.restored_at,
            signer: options.keys.as_ref().map(|folder| Signer::at(folder, recovered.ledger)),
            options,
            time,
            clock: Mutex::new(clock),
            size: watch::Sender::new(tail.size()),
            published: RwLock::new(Published {
                tail: Arc::new(tail),
                streams: streams.collect(),
                retired: Arc::new(recovered.retired),
            }),
            totals,
            books,
            retired,
            batches,
            suppressed,
            stored,
            counters: LedgerCounters::default(),
            stage: watch::Sender::new(Stage::Running),
            archive: ArchiveDoor::default(),
            tasks: Mutex::new(Vec::new()),
        });
        let mut writer = Writer::new(Arc::clone(&shared), Arc::clone(&store), waiting);
        writer.extend_clock().await?;
        let folder = Folder::new(Arc::clone(&shared), store);
        Ok((Self { shared, requests }, writer, folder))
    }

    /// Hands a request to the writer, waiting for room. The receiver resolves after the commit, in the
    /// order of the requests; it fails if the ledger stopped before.
    ///
    /// # Errors
    /// If the ledger has stopped.
    pub async fn submit(&self, request: Request) -> Result<oneshot::Receiver<Reply>, LedgerError> {
        self.send(request, None).await
    }

    /// The same for a request whose memory is accounted for: the writer gives `room` back once it is
    /// committed, whether or not anybody still waits for the reply.
    ///
    /// # Errors
    /// If the ledger has stopped.
    pub async fn submit_holding(
        &self,
        request: Request,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Reply>, LedgerError> {
        self.send(request, Some(room)).await
    }

    async fn send(
        &self,
        request: Request,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Reply>, LedgerError> {
        let (reply, receiver) = oneshot::channel();
        if let Some(refused) = self.refuses(&request) {
            // Whoever does not wait for it needs no answer.
            let _heard = reply.send(Reply::Booked(Err(refused))).is_ok();
            return Ok(receiver);
        }
        let since_micros = self.shared.time.read().monotonic_micros;
        match self.requests.send(Waiting { request, reply, since_micros, room }).await {
            Ok(()) => Ok(receiver),
            Err(_) => Err(self.shared.ended()),
        }
    }

    /// Books a change, in a transaction that holds all of it or nothing.
    ///
    /// # Errors
    /// If the ledger has stopped: whether it was booked is then unknown.
    pub async fn book(&self, change: Change) -> Result<Result<Booked, Refused>, LedgerError> {
        let reply = self.submit(Request::Book(Box::new(change))).await?;
        match reply.await {
            Ok(Reply::Booked(booked)) => Ok(booked),
            Ok(_) | Err(_) => Err(self.shared.ended()),
        }
    }

    /// Whether this is a sandbox, whose time a person advances.
    #[must_use]
    pub fn is_sandbox(&self) -> bool {
        self.shared.time.ahead.is_some()
    }

    /// Advances a sandbox's time to `to`, for good.
    ///
    /// # Errors
    /// If the ledger has stopped.
    pub async fn advance_test_clock(
        &self,
        to: Timestamp,
        actor: &str,
        request: Option<RequestKey>,
    ) -> Result<Result<Booked, Refused>, LedgerError> {
        let Some(ahead) = &self.shared.time.ahead else { return Ok(Err(Refused::NotASandbox)) };
        let by = to.millis_since(self.now());
        if !books::is_clock_step(by) {
            return Ok(Err(Refused::ClockStep));
        }
        let after = ahead.load(Ordering::Relaxed).saturating_add(by);
        let what = What::AdvanceClock { to, by, ahead: after };
        let (actor, reason, date) = (actor.to_owned(), None, None);
        // Before it is booked, so that the commit takes the limit of ledger time along.
        let before = ahead.swap(after, Ordering::Relaxed);
        let booked = self.book(Change { actor, reason, date, request, what }).await?;
        if !matches!(&booked, Ok(Booked { replayed: false, .. })) {
            ahead.store(before, Ordering::Relaxed);
        }
        Ok(booked)
    }

    /// Shows the lines of every stored batch, until `visit` breaks. Blocks for as long as reading all of them takes.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn visit_batches(
        &self,
        which: WhichBatches,
        visit: VisitBatch<'_>,
    ) -> Result<(), LedgerError> {
        Ok((self.shared.batches)(which, visit)?)
    }

    /// Shows batches with suppressed lines from `position` on, until `visit` breaks. Blocks.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn visit_suppressed(
        &self,
        position: u64,
        visit: VisitSuppressed<'_>,
    ) -> Result<(), LedgerError> {
        Ok((self.shared.suppressed)(position, visit)?)
    }

    /// Shows every batch as it is stored, until `visit` breaks. Blocks for as long as reading all of them takes.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn visit_stored(&self, visit: VisitStored<'_>) -> Result<(), LedgerError> {
        Ok((self.shared.stored)(visit)?)
    }

    /// The books at this moment. Blocks, as do its reads.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn books(&self) -> Result<Box<dyn Books>, LedgerError> {
        Ok((self.shared.books)()?)
    }

    /// Whose a live stream is, if it is known.
    #[must_use]
    pub fn agent_of(&self, stream: StreamId) -> Option<AgentName> {
        let published = self.shared.published.read().unwrap_or_else(PoisonError::into_inner);
        published.streams.get(&stream).map(|record| record.agent.clone())
    }

    /// The ledger at this moment.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, LedgerError> {
        let shared = &self.shared;
        let as_of = shared.now();
        let published = shared.published.read().unwrap_or_else(PoisonError::into_inner);
        let (tail, totals) = (Arc::clone(&published.tail), (shared.totals)()?);
        let records = published.streams.values().cloned().collect();
        let (retired_sums, retired) = (Arc::clone(&published.retired), (shared.retired)()?);
        drop(published);
        let books = (shared.books)()?;
        Ok(Snapshot {
            ledger: shared.ledger,
            as_of,
            restored_at: shared.restored_at,
            silent_after_millis: shared.options.silent_after_millis,
            tail,
            totals,
            books,
            records,
            statuses: OnceLock::new(),
            agents: OnceLock::new(),
            retired,
            retired_sums,
        })
    }

    /// How long commits, folds and waits took.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        self.shared.counters.latencies()
    }

    /// The figures at this moment. Blocks as a snapshot's reads do.
    ///
    /// # Errors
    /// If the totals cannot be read.
    pub fn figures(&self) -> Result<LedgerFigures, LedgerError> {
        let snapshot = self.snapshot()?;
        let mut figures = self.shared.counters.figures();
        figures.tail = snapshot.tail.size();
        figures.clock_jumps = self.shared.clock().jumps();
        let retired = &*snapshot.retired_sums;
        let sum = |retired: u64, of: fn(&StreamRecord) -> u64| {
            snapshot.records.iter().fold(retired, |sum, record| sum.saturating_add(of(record)))
        };
        figures.streams = sum(retired.streams, |_| 1);
        figures.events_by_headers = sum(retired.events, |record| record.posted_end.0);
        figures.events_quarantined =
            sum(retired.quarantined_events, |record| record.quarantined_events);
        figures.events_by_lines =
            snapshot.events_by_lines()?.saturating_add(figures.events_quarantined);
        figures.events_accepted = sum(retired.accepted, |record| record.accepted);
        figures.events_in_transit = sum(retired.in_transit, StreamRecord::in_transit);
        Ok(figures)
    }

    /// What signs certificates of this ledger, where there is a place for its key.
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.shared.signer.as_ref()
    }

    #[must_use]
    pub fn ledger(&self) -> LedgerId {
        self.shared.ledger
    }

    #[must_use]
    pub fn unique_key(&self) -> UniqueKey {
        self.shared.unique_key
    }

    /// Bytes that are not folded yet, and at how many admission waits.
    #[must_use]
    pub fn tail_bytes(&self) -> (u64, u64) {
        (self.shared.size.borrow().bytes, self.shared.options.tail_bytes_max)
    }

    /// Ledger time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.now()
    }

    /// Time by the monotonic clock, since any fixed moment: what is counted by the minute or the hour goes by
    /// it, as ledger time may stand still.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        Duration::from_micros(self.shared.time.read().monotonic_micros)
    }

    /// Waits until the ledger has failed, and says why; for ever if it does not.
    pub async fn failed(&self) -> LedgerError {
        let mut stage = self.shared.stage.subscribe();
        match stage.wait_for(|stage| matches!(stage, Stage::Failed(_))).await.as_deref() {
            Ok(Stage::Failed(error)) => LedgerError::Store(error.clone()),
            Ok(Stage::Running | Stage::Stopping | Stage::Folding | Stage::Stopped) | Err(_) => {
                LedgerError::Stopped
            }
        }
    }

    /// Takes what waits, folds, writes a checkpoint and stops.
    ///
    /// # Errors
    /// If the ledger failed before or while stopping.
    pub async fn shutdown(&self) -> Result<(), LedgerError> {
        self.shared.advance(&Stage::Running, Stage::Stopping);
        let tasks =
            std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.await.map_err(|_| LedgerError::Stopped)?;
        }
        match &*self.shared.stage.borrow() {
            Stage::Failed(error) => Err(LedgerError::Store(error.clone())),
            Stage::Running | Stage::Stopping | Stage::Folding | Stage::Stopped => Ok(()),
        }
    }
}

impl Shared {
    fn clock(&self) -> std::sync::MutexGuard<'_, LedgerClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.clock().now(self.time.read())
    }

    /// Changes what readers see. What `change` returns is dropped by the caller, not under the lock.
    fn publish<T>(&self, change: impl FnOnce(&mut Published) -> T) -> T {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = change(&mut published);
        let size = published.tail.size();
        drop(published);
        self.size.send_replace(size);
        replaced
    }

    /// Runs one of the ledger's tasks. One that panics fails the ledger: nobody would wait for it in vain.
    fn supervise(
        self: &Arc<Self>,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (shared, task) = (Arc::clone(self), tokio::spawn(task));
        tokio::spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                let reason = format!("its {name} panicked");
                shared.fail(StoreError::Storage { act: "run", file: "ledger", reason });
            }
        })
    }

    /// Moves from one stage to the next, unless the ledger failed or moved on meanwhile.
    fn advance(&self, from: &Stage, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let moves = stage == from;
            if moves {
                *stage = to;
            }
            moves
        });
    }

    fn has_failed(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Failed(_))
    }

    fn fail(&self, error: StoreError) {
        tracing::error!(%error, "the ledger has failed; restart the collector to reopen and verify it");
        self.stage.send_replace(Stage::Failed(error));
    }

    fn ended(&self) -> LedgerError {
        match &*self.stage.borrow() {
            Stage::Failed(error) => LedgerError::Store(error.clone()),
            Stage::Running | Stage::Stopping | Stage::Folding | Stage::Stopped => {
                LedgerError::Stopped
            }
        }
    }
}

/// Does what blocks on the runtime's threads for that. Whoever steps the ledger by hand has no runtime, and
/// does it himself.
///
/// # Errors
/// A panic, in words.
async fn off_task<T: Send + 'static>(
    act: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(act).await.map_err(|error| error.to_string()),
        Err(_) => Ok(act()),
    }
}

/// Waits until what is watched is as asked; for ever if its sender is gone.
async fn until<T>(watched: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) {
    if watched.wait_for(is_so).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests count in small numbers")]
mod tests;
