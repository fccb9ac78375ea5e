//! One life of the agent: opening, running, leaving.
//!
//! **Owns** the order in which the parts begin and end, and the threads. **Does not own** what any part
//! does.
//!
//! Opening: journal, commit thread, doors, intake thread, uplink, admin. A door is open only once what
//! comes in by it can be made durable.
//!
//! Leaving (SIGTERM): the doors stay open until the applications are gone, or half of
//! `shutdown_grace` is used; then intake ends and seals, the uplink ships what is left, waits for
//! acks and closes the stream. What cannot be shipped in time stays on disk.

mod beside;
mod opening;
mod ship;

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tidemark_common::supervisor;
use tidemark_common::time::Timestamp;
use tidemark_common::tls::Pem;
use tidemark_common::wire::Rules;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::Machine;
use crate::admin::observed::{Doors, Parts};
use crate::admin::replay::Replayer;
use crate::admin::{self, Admin};
use crate::commit::{CommitError, CommitHandle, CommitStart, Committer, Shared};
use crate::config::{Config, ConfigError};
use crate::driver::home::AgentHome;
use crate::driver::{
    Driver, DriverConfig, DriverConfigError, DriverStop, UplinkState, UplinkStatus,
};
use crate::event::{Door, TimeLimits};
use crate::intake::core::Core;
use crate::intake::datagram::{BindError, DatagramConfig, Datagrams};
use crate::intake::figures::DoorFigures;
use crate::intake::forward::{ForwardError, Forwarder};
use crate::intake::http::{HttpBindError, HttpConfig, HttpDoor, HttpToken};
use crate::intake::job::{IntakeSettings, IntakeStart};
use crate::intake::passage::Passage;
use crate::intake::socket_file::SocketFileError;
use crate::intake::stream::{StreamConfig, StreamDoors};
use crate::intake::{Barrier, IntakeHandle, IntakeThread};
use crate::journal::{JournalState, OpenError, Recovered, Write};
use crate::parse::naming::{Naming, NamingError, Patterns};
use crate::session::SessionConfig;
use crate::uplink::LinkTimes;

use beside::Beside;
pub(crate) use opening::journal_options;
pub(crate) use ship::{MadeBy, ShipEnd, Shipped, ship};

/// Batches sent and not acknowledged; a collector may ask for fewer.
const BATCHES_IN_FLIGHT_MAX: u32 = 64;
/// Applications that have sent nothing for this long, and hold no connection, are gone.
const QUIET: Duration = Duration::from_millis(500);
/// The last frame is waited for this long.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How a life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Stopped,
    /// The journal was cloned or rolled back; a person is needed.
    Conflict { message: String },
}

/// Why the agent could not begin, or had to end.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Journal(#[from] OpenError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Naming(#[from] NamingError),
    #[error(transparent)]
    Datagrams(#[from] BindError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Socket(#[from] SocketFileError),
    #[error(transparent)]
    Http(#[from] HttpBindError),
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    #[error(transparent)]
    Certificates(#[from] ConfigError),
    #[error(transparent)]
    Uplink(#[from] DriverConfigError),
    #[error(transparent)]
    Driver(DriverStop),
    #[error("failed to start a thread: {0}")]
    Thread(std::io::Error),
    #[error("failed to draw random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("a part of the agent has ended unasked; its error is in the log")]
    PartEnded,
}

/// Runs the agent until `asked` resolves or it cannot go on.
///
/// Asked while another process holds the journal, it returns at once and leaves the waiting thread
/// behind: whoever owns the runtime must not wait for that.
///
/// # Errors
/// See [`RunError`]. What was acknowledged is durable in every case.
pub async fn run(config: Config, asked: impl Future<Output = ()>) -> Result<Ended, RunError> {
    let mut asked = pin!(asked);
    // Until the journal is open, nothing is accepted that would have to be sealed first; what begins
    // after that begins without waiting for anything.
    let agent = tokio::select! {
        begun = Agent::begin(config) => begun?,
        () = &mut asked => return Ok(Ended::Stopped),
    };
    agent.live(asked).await
}

/// The running parts.
struct Agent {
    config: Config,
    commit: CommitHandle,
    intake: IntakeHandle,
    figures: Arc<DoorFigures>,
    committed: oneshot::Receiver<Result<(), CommitError>>,
    intake_ended: oneshot::Receiver<()>,
    doors: Vec<JoinHandle<()>>,
    doors_stop: watch::Sender<bool>,
    doors_shown: watch::Sender<Doors>,
    driver: JoinHandle<Result<(), DriverStop>>,
    uplink: watch::Receiver<UplinkStatus>,
    /// Dropped once intake has ended and all is sealed.
    sealed: oneshot::Sender<()>,
    /// Ends with this struct.
    _beside: Vec<Beside>,
}

impl Agent {
    async fn begin(config: Config) -> Result<Self, RunError> {
        let naming = Arc::new(Naming::new(&config.naming)?);
        let settings = settings(&config, Naming::clone(&naming))?;
        let (pem_sender, pem) = watch::channel(Arc::new(read_pem(&config)?));
        let admin = Admin::bind(config.admin.listen).await?;
        let (journal, recovered) = opening::open_journal(config.journal.clone()).await?;

        let machine = Machine::real();
        let shared = Arc::new(Shared::with_raw_events(config.journal.keeps_raw_events()));
        let rules = recovered.rules.clone().map(Arc::new);
        let start = CommitStart {
            journal,
            groups: recovered.groups.clone(),
            rules: rules.clone(),
            unique_key: recovered.unique_key,
            shared: Arc::clone(&shared),
            machine,
        };
        let (committer, sealer, commit, jobs) = Committer::new(start)?;

        let figures = Arc::new(DoorFigures::default());
        let (datagrams, waker) = Datagrams::bind(&datagram_config(&config), Arc::clone(&figures))?;
        let forwarder = forwarder(&config, &datagrams, &figures)?;
        let known = rules.clone().or_else(|| opening::seed_rules(&config.rules));
        let wake = Arc::new(move || waker.wake());
        let (intake, inbox) = IntakeHandle::channel(Arc::clone(&shared), known, wake);
        let passage = Passage::new(intake.clone(), Arc::clone(&naming), Arc::clone(&figures));
        let streams = StreamDoors::bind(&stream_config(&config), &passage)?;
        let http = HttpDoor::bind(http_config(&config), &passage)?;

        spawn("tidemark-sealer", move || sealer.run())?;
        let committed = spawn("tidemark-commit", move || committer.run())?;
        let core = Core::new(settings, intake_start(recovered, rules));
        let thread = IntakeThread::new(core, inbox, jobs, shared, machine).forward_to(forwarder);
        let intake_ended = spawn("tidemark-intake", move || thread.run(datagrams))?;

        let (doors_stop, stop) = watch::channel(false);
        let doors = vec![tokio::spawn(streams.serve(stop.clone())), tokio::spawn(http.serve(stop))];
        let home = AgentHome::new(commit.clone(), intake.clone());
        let (driver, uplink) = Driver::new(driver_config(&config, pem), home)?;
        let (sealed, all_sealed) = oneshot::channel();
        // Nothing is ever sent: the sender goes when all is sealed.
        let driver = tokio::spawn(driver.run(async move { drop(all_sealed.await) }));

        let (doors_shown, doors_seen) = watch::channel(Doors::Open);
        let parts = Parts {
            commit: commit.clone(),
            uplink: uplink.clone(),
            figures: Arc::clone(&figures),
            admin: admin.counts(),
            doors: doors_seen,
            replayer: Replayer::new(commit.reader(), intake.clone(), naming),
            shutdown_grace: config.shutdown_grace,
            clock,
        };
        let beside = beside::begin(parts, admin, config.clone(), pem_sender);
        Ok(Self {
            config,
            commit,
            intake,
            figures,
            committed,
            intake_ended,
            doors,
            doors_stop,
            doors_shown,
            driver,
            uplink,
            sealed,
            _beside: beside,
        })
    }

    async fn live(mut self, asked: impl Future<Output = ()>) -> Result<Ended, RunError> {
        let journal = Arc::clone(&self.commit.state().borrow());
        tracing::info!(stream = %journal.stream, accepted = journal.accepted, "the doors are open");
        drop(journal);
        supervisor::ready("the doors are open");
        tokio::select! {
            () = asked => {
                supervisor::stopping();
                self.leave().await
            }
            ended = &mut self.committed => commit_ended(ended),
            _ = &mut self.intake_ended => {
                // Intake also ends when the commit thread does; that one knows why. Alone, its panic or
                // error is in the log.
                self.commit.stop().await;
                commit_ended(self.committed.await)
            }
            ended = &mut self.driver => match ended {
                Ok(Err(DriverStop::Conflict { message })) => {
                    self.abandon().await;
                    Ok(Ended::Conflict { message })
                }
                Ok(Err(stop @ DriverStop::Home(_))) => {
                    // Where the commit thread has failed, it knows why.
                    self.commit.stop().await;
                    match self.committed.await {
                        Ok(Err(error)) => Err(error.into()),
                        Ok(Ok(())) | Err(_) => Err(RunError::Driver(stop)),
                    }
                }
                Ok(Ok(())) | Err(_) => Err(RunError::PartEnded),
            },
        }
    }

    /// Stops taking events; what is accepted stays in the journal.
    async fn abandon(self) {
        self.doors_shown.send_replace(Doors::Closed);
        self.doors_stop.send_replace(true);
        let end = deadline(self.config.shutdown_grace);
        for door in self.doors {
            ended_by(end, door).await;
        }
        if timeout_at(end, self.intake.stop()).await.is_err() {
            tracing::warn!("intake did not end in time; what is accepted is durable");
        }
        self.commit.stop().await;
        ended_by(end, self.committed).await;
    }

    async fn leave(mut self) -> Result<Ended, RunError> {
        let grace = self.config.shutdown_grace;
        let end = deadline(grace);
        let part_of_grace = |parts| grace.checked_div(parts).unwrap_or_default();
        applications_gone(&self.figures, &self.commit, part_of_grace(2)).await;
        self.doors_shown.send_replace(Doors::Closed);
        self.doors_stop.send_replace(true);
        let drained = deadline(part_of_grace(4));
        for door in self.doors {
            ended_by(drained, door).await;
        }
        if let Ok(Ok(barrier)) = timeout_at(end, self.intake.stop()).await {
            tracing::info!(accepted = barrier.accepted, sequence = %barrier.sequence, "all is sealed");
            drop(self.sealed);
            let told = tokio::select! {
                ended = timeout_at(end, &mut self.driver) => ended.is_ok(),
                () = nothing_to_ship(self.uplink, self.commit.state(), barrier) => false,
            };
            if !told {
                self.driver.abort();
                Self::close_untold(&self.commit).await;
            }
        } else {
            // Then the stream must not be closed either.
            tracing::warn!("not all is sealed; it will be after the next start");
            self.driver.abort();
        }
        self.commit.stop().await;
        match timeout_at(end.max(deadline(CLOSE_MAX)), self.committed).await {
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Ok(Ok(())) | Err(_)) | Err(_) => Ok(Ended::Stopped),
        }
    }

    /// The collector is away: it knows the stream as open. But this opening ends in order.
    async fn close_untold(commit: &CommitHandle) {
        let state = Arc::clone(&commit.state().borrow());
        if state.events_in_unposted_batches == 0 && state.events_in_chunks == 0 {
            tracing::info!(
                "all is posted; the collector is away, and hears of this end at the next start"
            );
        } else {
            tracing::warn!(
                batches = state.backlog_batches,
                not_sealed = state.events_in_chunks,
                "the grace is over; what is not shipped stays on disk"
            );
        }
        if state.events_in_chunks == 0 && commit.write(vec![Write::Closed]).await.is_err() {
            tracing::warn!("the journal took no more writes");
        }
    }
}

fn commit_ended(
    ended: Result<Result<(), CommitError>, oneshot::error::RecvError>,
) -> Result<Ended, RunError> {
    match ended {
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(())) | Err(_) => Err(RunError::PartEnded),
    }
}

/// Resolves once no connection is open and nothing has come for a while, or `longest` is over.
async fn applications_gone(figures: &DoorFigures, commit: &CommitHandle, longest: Duration) {
    let end = deadline(longest);
    loop {
        let before = commit.state().borrow().accepted;
        sleep(QUIET.min(longest)).await;
        let connected = [Door::DsdStream, Door::Events]
            .iter()
            .any(|door| figures.of(*door).connections_open.value() > 0);
        let quiet = commit.state().borrow().accepted == before;
        if (quiet && !connected) || now() >= end {
            return;
        }
    }
}

/// Resolves once there is no session, and nothing that one would be needed for.
async fn nothing_to_ship(
    mut uplink: watch::Receiver<UplinkStatus>,
    mut journal: watch::Receiver<Arc<JournalState>>,
    barrier: Barrier,
) {
    // The driver's end, or the commit thread's, is seen by whoever waits for it.
    let away = |status: &UplinkStatus| is_away(&status.state);
    let empty = |state: &Arc<JournalState>| is_all_posted(state, barrier);
    loop {
        if uplink.wait_for(away).await.is_err() || journal.wait_for(empty).await.is_err() {
            return std::future::pending().await;
        }
        // It may have come back while the journal was waited for.
        if away(&uplink.borrow()) {
            return;
        }
    }
}

fn is_away(state: &UplinkState) -> bool {
    match state {
        UplinkState::Connecting | UplinkState::Backoff { .. } | UplinkState::Stopped { .. } => true,
        // A live session is told of the end; a closed one was.
        UplinkState::Live | UplinkState::Closed => false,
    }
}

/// Whether nothing that was accepted before `barrier` is left to ship. The journal's state is published
/// after the barrier passes, so an older one may be seen.
fn is_all_posted(state: &JournalState, barrier: Barrier) -> bool {
    state.sealed_sequence >= barrier.sequence
        && state.accepted >= barrier.accepted
        && state.events_in_chunks == 0
        && state.events_in_unposted_batches == 0
}

async fn ended_by<T>(end: Instant, part: impl Future<Output = T>) {
    if timeout_at(end, part).await.is_err() {
        tracing::warn!("a part did not end in time; it is left behind");
    }
}

fn read_pem(config: &Config) -> Result<Pem, RunError> {
    Ok(config.uplink.pem()?)
}

/// Runs `body` on a thread of its own; what it returns is received.
fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, RunError> {
    let (ended, receiver) = oneshot::channel();
    let thread = thread::Builder::new().name(name.to_owned());
    thread
        .spawn(move || {
            // Nobody may wait any more when a process ends.
            drop(ended.send(body()));
        })
        .map_err(RunError::Thread)?;
    Ok(receiver)
}

fn settings(config: &Config, naming: Naming) -> Result<IntakeSettings, RunError> {
    Ok(IntakeSettings {
        naming,
        negative: Patterns::parse(&config.events.negative)?,
        time: TimeLimits {
            ahead_millis_max: millis_i64(config.events.future_max),
            age_millis_max: millis_i64(config.events.age_max),
            ..TimeLimits::default()
        },
        linger_millis: millis(config.journal.linger),
        linger_max_millis: millis(config.journal.linger_max),
        open_lines_max: config.journal.open_lines_max,
        open_chunk_bytes_max: config.journal.open_chunk_bytes_max,
        ids_max: config.journal.ids_max,
        ids_window_millis: millis_i64(config.journal.ids_window),
    })
}

fn intake_start(recovered: Recovered, rules: Option<Arc<Rules>>) -> IntakeStart {
    IntakeStart {
        opening: recovered.state.opening,
        accepted: recovered.state.accepted,
        evidence: recovered.state.evidence,
        next_group: recovered.next_group,
        newest: recovered.newest,
        ids: recovered.ids,
        sources: recovered.sources,
        rules,
        unique_key: recovered.unique_key,
    }
}

fn datagram_config(config: &Config) -> DatagramConfig {
    DatagramConfig {
        udp: config.doors.udp.clone(),
        unix: config.doors.unix_datagram.clone(),
        socket_mode: config.doors.socket_mode,
        receive_buffer_bytes: config.doors.receive_buffer_bytes,
    }
}

fn forwarder(
    config: &Config,
    datagrams: &Datagrams,
    figures: &Arc<DoorFigures>,
) -> Result<Option<Forwarder>, ForwardError> {
    let Some(address) = &config.forward else { return Ok(None) };
    let unix = config.doors.unix_datagram.as_deref();
    Forwarder::open(address, &datagrams.udp_addresses(), unix, Arc::clone(figures)).map(Some)
}

fn stream_config(config: &Config) -> StreamConfig {
    StreamConfig {
        dsd_stream: config.doors.dsd_stream.clone(),
        events: config.doors.events.clone(),
        socket_mode: config.doors.socket_mode,
        peer_uids: config.doors.peer_uids.clone(),
    }
}

fn http_config(config: &Config) -> HttpConfig {
    HttpConfig {
        listen: config.doors.http.clone(),
        token: config.doors.http_token.as_ref().map(|token| HttpToken::new(token.reveal())),
    }
}

fn driver_config(config: &Config, pem: watch::Receiver<Arc<Pem>>) -> DriverConfig {
    DriverConfig {
        collectors: config.uplink.collectors.iter().map(ToString::to_string).collect(),
        server_name: config.uplink.server_name.clone(),
        transport: config.uplink.transport,
        quic_probe_interval: config.uplink.quic_probe_interval,
        pem,
        session: SessionConfig {
            batches_in_flight_max: BATCHES_IN_FLIGHT_MAX,
            session_millis_max: millis(config.uplink.session_age_max),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
        },
        times: LinkTimes::default(),
        close_max: CLOSE_MAX,
        clock,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis_i64(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn deadline(after: Duration) -> Instant {
    let now = now();
    now.checked_add(after).unwrap_or(now)
}

fn now() -> Instant {
    Instant::now()
}

fn clock() -> Timestamp {
    (Machine::real().wall)()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parts_are_given_shows_no_secret() {
        let text = "[uplink]\ncollectors = [\"localhost:1\"]\nca_pem = \"x\"\ncertificate_pem = \"x\"\nkey_pem = \"s3cr3t\"\n\
                    [doors]\nhttp_token = \"s3cr3t\"\n";
        let config = Config::read(text, "agent.toml", std::path::Path::new("/"), &[]).unwrap();
        let (_sender, pem) = watch::channel(Arc::new(read_pem(&config).unwrap()));
        let shown = format!(
            "{:?} {:?} {:?} {:?}",
            http_config(&config),
            stream_config(&config),
            datagram_config(&config),
            driver_config(&config, pem)
        );
        assert!(shown.contains("HttpToken(..)"), "{shown}");
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}
