//! The clients of a stack under faults, and what must have become of all that they sent.
//!
//! | client | door | counted as accepted |
//! |---|---|---|
//! | `resend::Client`, two of each | `events.socket`, HTTP | what was acknowledged |
//! | PyPI `openmeter` | HTTP | what was acknowledged |
//! | numbered datagrams, one event each | UDP | what the agent counts |
//! | PyPI `datadog` | UDP | what the agent counts |
//!
//! Invariants, checked after each case over everything since the first: each acknowledged event is
//! posted once, count and sum; of the plain ones at most what was sent is posted, and all of it if the
//! agent lived and the kernel dropped none; both together are what the agent accepted, and what the
//! collector posted.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tidemark_common::quantity::Quantity;

use crate::conserved::assert_conserved;
use crate::doors::Udp;
use crate::expected::{Expected, Tally};
use crate::random::Random;
use crate::resend::{Client, Mix, Route, Shared, with_clients};
use crate::settings::{Ports, Settings};
use crate::stack::Stack;
use crate::wait::{pause, until, wide_range};

/// Sums only, sealed often, so that a fault finds every stage at work.
const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["door"]
[[meter]]
name = "tokens"
aggregation = "sum"
dimensions = ["door"]
"#;
const CUSTOMERS: &[&str] = &["acme", "globex", "initech"];
const METERS: &[&str] = &["api.calls", "tokens"];
/// Of the library over HTTP; of the plain datagrams; of the library over UDP. The scripts say the same.
const LIBRARY: &str = "openmeter";
const PLAIN: &str = "plain";
const LIBRARY_PLAIN: &str = "datadog";
const CLIENTS_PER_DOOR: u32 = 2;
const BATCH_PAUSE: Duration = Duration::from_millis(20);
const PLAIN_PAUSE: Duration = Duration::from_millis(5);
/// How long clients may need to get going, and to be served again after a fault.
const ADVANCE_WAIT: Duration = Duration::from_secs(60);
const SETTLE_WAIT: Duration = Duration::from_secs(10);
const DROPS: &str = "tidemark_agent_kernel_drops_total";
const ACCEPTED: &str = "tidemark_agent_accepted_events_total";

/// Whether the agent's process lives through a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgentLife {
    Lives,
    Dies,
}

/// What a case came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub acknowledged: u64,
    /// Datagrams that the kernel took.
    pub plain: u64,
    pub plain_lost: u64,
    /// Batches that clients sent again.
    pub resent: u64,
    pub posted: u64,
}

impl Figures {
    fn since(&self, before: &Self) -> Self {
        Self {
            acknowledged: self.acknowledged.saturating_sub(before.acknowledged),
            plain: self.plain.saturating_sub(before.plain),
            plain_lost: self.plain_lost.saturating_sub(before.plain_lost),
            resent: self.resent.saturating_sub(before.resent),
            posted: self.posted.saturating_sub(before.posted),
        }
    }
}

/// What the script prints in the end.
#[derive(Debug, Deserialize)]
struct LibraryCounts {
    acknowledged: u64,
    resent: u64,
    sent: u64,
}

/// Defaults with short seals, on free ports.
pub(super) fn settings() -> Result<Settings> {
    Ok(Settings::new(Ports::free()?, CATALOGUE).collector("ledger.fold_age", "500ms"))
}

/// Waits until more is acknowledged than now.
pub(super) fn wait_advance(shared: &Shared) -> Result<()> {
    let before = shared.acknowledged();
    until("an acknowledgement", ADVANCE_WAIT, || match shared.acknowledged() {
        now if now > before => Ok(()),
        now => Err(format!("{now} events acknowledged")),
    })
}

/// The clients of one stack, through all its cases.
pub(super) struct Books {
    random: Random,
    expected: Expected,
    cases: u32,
    plain: u64,
    library_plain: u64,
    resent: u64,
    /// All of it after the case before.
    before: Figures,
    /// Datagrams that the agent had by then counted as dropped or refused.
    explained: u64,
    /// Python with the libraries, where they are installed.
    python: Option<PathBuf>,
    library: Option<Library>,
    /// Where usage is looked for, in unix seconds.
    pub(super) ranges: Vec<(u64, u64)>,
}

impl Books {
    pub(super) fn new(random: Random) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("../.scratch/clients/venv/bin/python");
        Self {
            random,
            expected: Expected::default(),
            cases: 0,
            plain: 0,
            library_plain: 0,
            resent: 0,
            before: Figures::default(),
            explained: 0,
            python: python.is_file().then_some(python),
            library: None,
            ranges: vec![wide_range()],
        }
    }

    /// Why no client library sends, if none does.
    pub(super) fn library_missing(&self) -> Option<String> {
        let missing = self.python.is_none();
        missing.then(|| "not installed in .scratch/clients: run tests/run".to_owned())
    }

    /// Has all clients send while `during` runs, and settles what they were told.
    pub(super) fn under_load(
        &mut self,
        stack: &mut Stack,
        agent: AgentLife,
        during: impl FnOnce(&mut Stack, &Shared) -> Result<()>,
    ) -> Result<Figures> {
        self.cases = self.cases.saturating_add(1);
        let clients = self.clients(stack)?;
        self.start_library(stack)?;
        let udp = Udp::at(stack.settings().hosts.agent, stack.ports().udp)?;
        let (stop, plain) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut resent = 0;
        let sent = std::thread::scope(|scope| {
            scope.spawn(|| send_plain(&udp, &stop, &plain));
            let sent = with_clients(clients, |shared| {
                wait_advance(shared)?;
                during(stack, shared)?;
                wait_advance(shared)?;
                resent = shared.resent();
                Ok(())
            });
            stop.store(true, Ordering::SeqCst);
            sent
        })?;
        self.expected.merge(&sent)?;
        self.resent = self.resent.saturating_add(resent);
        self.plain = self.plain.saturating_add(plain.into_inner());
        if let Some(library) = &mut self.library {
            let counts = library.stop()?;
            self.take(&counts)?;
        }
        self.settle(stack, agent)
    }

    fn clients(&mut self, stack: &Stack) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for number in 0..CLIENTS_PER_DOOR {
            let routes = [
                ("events", Route::Events(stack.path("events.socket"))),
                ("http", Route::Http(stack.events_url())),
            ];
            for (door, route) in routes {
                let mix = Mix {
                    customers: CUSTOMERS,
                    meters: METERS,
                    door,
                    quantity_end: 100,
                    pause: BATCH_PAUSE,
                };
                let name = format!("case-{}-{door}-{number}", self.cases);
                clients.push(Client::new(&name, route, mix, self.random.fork())?);
            }
        }
        Ok(clients)
    }

    /// One process for all cases of a stack; it is slow to start.
    fn start_library(&mut self, stack: &Stack) -> Result<()> {
        let Some(python) = &self.python else { return Ok(()) };
        let library = match self.library.take() {
            Some(library) => library,
            None => Library::start(python, stack)?,
        };
        self.library.insert(library).go()
    }

    fn take(&mut self, counts: &LibraryCounts) -> Result<()> {
        self.library_plain = self.library_plain.saturating_add(counts.sent);
        self.resent = self.resent.saturating_add(counts.resent);
        // 1.5 each.
        let halves = counts.acknowledged.saturating_mul(3);
        let sum = format!("{}.{}", halves / 2, if halves.is_multiple_of(2) { 0 } else { 5 });
        let tally = Tally { events: counts.acknowledged, sum: Quantity::parse(sum.as_bytes())? };
        self.expected.add_tally(LIBRARY, "api.calls", tally)
    }

    /// Waits until the books agree: the last datagrams may still be in the kernel's queue, or between
    /// two of the figures. What is lost or doubled stays so, and fails after a while.
    fn settle(&mut self, stack: &Stack, agent: AgentLife) -> Result<Figures> {
        until("all to be accounted for", SETTLE_WAIT, || {
            self.compare(stack, agent).map_err(|error| format!("{error:#}"))
        })
    }

    /// Waits until all that was accepted is posted, and compares.
    fn compare(&mut self, stack: &Stack, agent: AgentLife) -> Result<Figures> {
        let acknowledged = self.expected.events();
        let posted = stack.wait_posted(acknowledged)?;
        assert_conserved(stack)?;
        self.expected.check_in(&stack.api(), &self.ranges)?;
        let seen = |customer| -> Result<u64> {
            Ok(Expected::shown(&stack.api(), customer, &self.ranges)?.events())
        };
        let (plain, library_plain) = (seen(PLAIN)?, seen(LIBRARY_PLAIN)?);
        let metrics = stack.agent_metrics()?;
        let accepted = metrics.count(ACCEPTED)?;
        let known = [acknowledged, plain, library_plain].iter().sum::<u64>();
        ensure!(
            accepted == known,
            "accepted {accepted} is not acknowledged {acknowledged} + plain {plain} + {library_plain}"
        );
        ensure!(
            plain <= self.plain && library_plain <= self.library_plain,
            "more datagrams posted than sent: {plain} of {}, {library_plain} of {}",
            self.plain,
            self.library_plain
        );
        let explained = metrics.count_or_zero(DROPS);
        let explained = explained.saturating_add(metrics.rejected().values().sum::<u64>());
        let whole = Figures {
            acknowledged,
            plain: self.plain.saturating_add(self.library_plain),
            plain_lost: self.plain.saturating_sub(plain),
            resent: self.resent,
            posted,
        };
        let figures = whole.since(&self.before);
        let counted = explained.saturating_sub(self.explained);
        ensure!(
            agent == AgentLife::Dies || figures.plain_lost <= counted,
            "{} datagrams are missing, {counted} are counted as dropped or refused",
            figures.plain_lost
        );
        self.before = whole;
        self.explained = explained;
        Ok(figures)
    }
}

/// One event a datagram, until asked to stop. What the kernel refuses while nobody listens is not
/// counted as sent.
fn send_plain(udp: &Udp, stop: &AtomicBool, sent: &AtomicU64) {
    let line = format!("api.calls:1|c|#customer:{PLAIN}");
    while !stop.load(Ordering::SeqCst) {
        if udp.send(line.as_bytes()).is_ok() {
            sent.fetch_add(1, Ordering::SeqCst);
        }
        pause(PLAIN_PAUSE);
    }
}

/// The script of client libraries; it is gone when this is dropped.
struct Library {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Library {
    fn start(python: &Path, stack: &Stack) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/steady_client.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(stack.http_door())
            .arg(stack.settings().hosts.agent.to_string())
            .arg(stack.ports().udp.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the client library")?;
        let input = child.stdin.take().context("its input is a pipe")?;
        let output = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Self { child, input, output })
    }

    /// Has it send, and waits until its first batch is acknowledged.
    fn go(&mut self) -> Result<()> {
        let ready = self.ask("go")?;
        ensure!(ready == "ready\n", "the client library said {ready:?}");
        Ok(())
    }

    /// Asks it to finish its batch, and reads its counts.
    fn stop(&mut self) -> Result<LibraryCounts> {
        serde_json::from_str(&self.ask("stop")?).context("the client library's counts")
    }

    fn ask(&mut self, word: &str) -> Result<String> {
        writeln!(self.input, "{word}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
