//! An agent and a collector in a folder of their own.
//!
//! ```text
//! FOLDER/certs/             made by `tidemark-collector dev-certs`
//!        agent.toml         journal.redb  dsd.socket  dsd-stream.socket  events.socket  agent.log
//!        collector.toml     catalog.toml  ledger/                                       collector.log
//! ```
//!
//! **Owns** both processes and the folder: both are gone when this is dropped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::api::Api;
use crate::binaries::Program;
use crate::conserved;
use crate::http::Http;
use crate::metrics::Metrics;
use crate::process::{Launch, Process, log_tail};
use crate::settings::{Ports, Settings, TOKEN};
use crate::wait::until;

/// How long a program may take to be ready, on a busy machine.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How long what was accepted may take to be posted, a lost session included.
const POSTED_WAIT: Duration = Duration::from_secs(90);
const TRANSPORT_WAIT: Duration = Duration::from_secs(60);
const TOTAL: &str = "tidemark_agent_accepted_events_total";
const POSTED: &str = "tidemark_agent_posted_events_total";
const IN_TRANSIT: &str = "tidemark_agent_in_transit_events";
const CONNECTED: &str = "tidemark_agent_session_state{state=\"connected\"}";

/// Both programs and their folder.
#[derive(Debug)]
pub struct Stack {
    // Before the folder: programs end first.
    agent: Option<Process>,
    collector: Option<Process>,
    agent_launch: Launch,
    collector_launch: Launch,
    http: Http,
    settings: Settings,
    folder: TempDir,
}

impl Stack {
    /// A test: starts both programs, runs `body`, and checks conservation at its end. What fails is
    /// shown with both logs.
    ///
    /// # Errors
    /// What `body` or the check says.
    pub fn run(settings: Settings, body: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut stack = Self::start(settings)?;
        let outcome = body(&mut stack).and_then(|()| conserved::assert_conserved(&stack));
        outcome.with_context(|| stack.logs())
    }

    /// Starts both programs, and waits until the agent has heard from the collector.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start(mut settings: Settings) -> Result<Self> {
        for last in [false, false, true] {
            let mut stack = Self::prepare(settings.clone())?;
            let started = stack
                .start_collector()
                .and_then(|()| stack.start_agent())
                .and_then(|()| stack.wait_connected());
            match started {
                Ok(()) => return Ok(stack),
                // Somebody else took a port in between.
                Err(_) if !last && stack.logs().contains("in use") => {
                    settings.move_to_free_ports()?;
                }
                Err(error) => return Err(error.context(stack.logs())),
            }
        }
        unreachable!("the last of the tries returns")
    }

    /// Makes the folder, certificates and configuration; starts nothing.
    ///
    /// # Errors
    /// When that fails.
    pub fn prepare(settings: Settings) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidemark-").tempdir()?;
        let certificates = folder.path().join("certs");
        let output = Command::new(Program::Collector.path()?)
            .arg("dev-certs")
            .arg(&certificates)
            .args(["--agent", "agent", "--agent", "other", "--drainer", "drainer"])
            .output()
            .context("failed to run dev-certs")?;
        ensure!(
            output.status.success(),
            "dev-certs failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        settings.write(folder.path())?;
        Ok(Self {
            agent: None,
            collector: None,
            agent_launch: Launch::default(),
            collector_launch: Launch::default(),
            http: Http::new()?,
            settings,
            folder,
        })
    }

    /// Starts a program in these surroundings from now on.
    pub fn launch(&mut self, program: Program, launch: Launch) {
        match program {
            Program::Agent => self.agent_launch = launch,
            Program::Collector => self.collector_launch = launch,
        }
    }

    /// Starts both, and waits until the agent has heard from the collector.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start_both(&mut self) -> Result<()> {
        self.start_collector()?;
        self.start_agent()?;
        self.wait_connected()
    }

    /// # Errors
    /// When it is not ready in time.
    pub fn start_collector(&mut self) -> Result<()> {
        self.spawn_collector()?;
        self.wait_ready(Program::Collector)
    }

    /// Starts it, and does not wait until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_collector(&mut self) -> Result<()> {
        let config = self.path("collector.toml");
        let log = self.path("collector.log");
        let arguments = ["serve", "--config", text(&config)?];
        self.collector = Some(Process::start_with(
            &self.collector_launch,
            Program::Collector,
            &arguments,
            &log,
        )?);
        Ok(())
    }

    /// # Errors
    /// When it is not ready in time.
    pub fn start_agent(&mut self) -> Result<()> {
        self.spawn_agent()?;
        self.wait_ready(Program::Agent)
    }

    /// Starts it, and does not wait until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_agent(&mut self) -> Result<()> {
        let config = self.path("agent.toml");
        let log = self.path("agent.log");
        let arguments = ["run", "--config", text(&config)?];
        self.agent =
            Some(Process::start_with(&self.agent_launch, Program::Agent, &arguments, &log)?);
        Ok(())
    }

    fn wait_ready(&mut self, program: Program) -> Result<()> {
        let url = self.address(program, "readyz");
        let process = match program {
            Program::Agent => &mut self.agent,
            Program::Collector => &mut self.collector,
        };
        let process = process.as_mut().context("it was not started")?;
        let http = &self.http;
        let ready = until(&format!("{} to be ready", program.name()), READY_WAIT, || {
            match process.ended() {
                Ok(Some(status)) => return Ok(Err(status)),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            match http.get(&url, None) {
                Ok(answer) if answer.status == 200 => Ok(Ok(())),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.body.trim())),
                Err(error) => Err(format!("{error:#}")),
            }
        })?;
        if let Err(status) = ready {
            bail!("{} ended with {status}\n{}", program.name(), process.log_tail());
        }
        Ok(())
    }

    /// Waits for a session: from then on rules are known and every door is open.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_connected(&self) -> Result<()> {
        until("the agent's session", READY_WAIT, || {
            let metrics = self.agent_metrics().map_err(|error| format!("{error:#}"))?;
            match metrics.count_or_zero(CONNECTED) {
                1 => Ok(()),
                _ => Err("not connected".to_owned()),
            }
        })
    }

    /// Waits until the agent has accepted at least `accepted` events of its stream, and all that it
    /// has accepted are posted, by its own count and by the collector's.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_posted(&self, accepted: u64) -> Result<u64> {
        until(&format!("{accepted} events to be accepted and posted"), POSTED_WAIT, || {
            let metrics = self.agent_metrics().map_err(|error| format!("{error:#}"))?;
            let [seen, posted, in_transit] =
                [TOTAL, POSTED, IN_TRANSIT].map(|name| metrics.count_or_zero(name));
            let figures = format!(
                "accepted {seen}, posted {posted}, in transit {in_transit}, rejected {:?}",
                metrics.rejected()
            );
            if seen < accepted || posted != seen || in_transit != 0 {
                return Err(figures);
            }
            let streams = self.api().streams().map_err(|error| format!("{error:#}"))?;
            let there: u64 = streams.streams.iter().map(|stream| stream.posted_events).sum();
            if there == posted { Ok(seen) } else { Err(format!("{figures}; collector: {there}")) }
        })
    }

    /// # Errors
    /// When it was not running.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent is not running")?.kill_9()
    }

    /// # Errors
    /// When it was not running.
    pub fn kill_collector(&mut self) -> Result<()> {
        self.collector.take().context("the collector is not running")?.kill_9()
    }

    /// Kills both before either can see the other gone.
    ///
    /// # Errors
    /// When one was not running.
    pub fn kill_both(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("the agent is not running")?;
        let collector = self.collector.as_mut().context("the collector is not running")?;
        ensure!(agent.ended()?.is_none(), "the agent had ended by itself");
        agent.signal(Signal::SIGKILL)?;
        collector.kill_9()?;
        self.collector = None;
        agent.wait_end()?;
        Ok(())
    }

    /// SIGTERM, and waits.
    ///
    /// # Errors
    /// When it does not end in time, or with a failure.
    pub fn stop_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent is not running")?.terminate()
    }

    /// SIGTERM, and waits.
    ///
    /// # Errors
    /// When it does not end in time, or with a failure.
    pub fn stop_collector(&mut self) -> Result<()> {
        self.collector.take().context("the collector is not running")?.terminate()
    }

    /// Replaces the catalogue, and has the collector read it again.
    ///
    /// # Errors
    /// When it cannot be written, or the collector is not running.
    pub fn change_catalogue(&mut self, catalogue: &str) -> Result<()> {
        self.settings.catalogue = catalogue.to_owned();
        self.settings.write(self.folder.path())?;
        let collector = self.collector.as_ref().context("the collector is not running")?;
        collector.signal(Signal::SIGHUP)
    }

    /// Runs a command in the folder; its exit code, and what it wrote.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn command(&self, program: Program, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let launch = match program {
            Program::Agent => &self.agent_launch,
            Program::Collector => &self.collector_launch,
        };
        let variables = launch.variables.iter().map(|(name, value)| (name, value));
        let mut command = Command::new(program.path()?);
        let output = command.args(arguments).envs(variables).current_dir(self.folder()).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(text)?))
    }

    /// Waits until an agent that was spawned is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn wait_agent_ready(&mut self) -> Result<()> {
        self.wait_ready(Program::Agent)
    }

    /// The agent's process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("the agent is not running")
    }

    /// The collector's process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn collector(&mut self) -> Result<&mut Process> {
        self.collector.as_mut().context("the collector is not running")
    }

    /// Waits for a live session over `quic` or `tcp`.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_transport(&self, transport: &str) -> Result<()> {
        let sample = format!("tidemark_agent_uplink_transport{{transport=\"{transport}\"}}");
        until(&format!("a session over {transport}"), TRANSPORT_WAIT, || {
            let metrics = self.agent_metrics().map_err(|error| error.to_string())?;
            let live = metrics.count("tidemark_agent_session_state{state=\"connected\"}");
            match (metrics.count(&sample), live) {
                (Ok(1), Ok(1)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// One scrape of the agent.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn agent_metrics(&self) -> Result<Metrics> {
        self.scrape(&self.address(Program::Agent, "metrics"))
    }

    /// One scrape of the collector.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn collector_metrics(&self) -> Result<Metrics> {
        self.scrape(&self.address(Program::Collector, "metrics"))
    }

    /// A resource of the agent's admin address, or of the collector's API.
    fn address(&self, program: Program, resource: &str) -> String {
        let Settings { ports, hosts, .. } = &self.settings;
        match program {
            Program::Agent => format!("http://{}:{}/{resource}", hosts.agent, ports.admin),
            Program::Collector => format!("http://{}:{}/{resource}", hosts.collector, ports.api),
        }
    }

    fn scrape(&self, url: &str) -> Result<Metrics> {
        let answer = self.http.get(url, None)?;
        ensure!(answer.status == 200, "{url}: {} {}", answer.status, answer.body);
        Ok(Metrics::read(&answer.body))
    }

    /// The collector's API with the configured token.
    #[must_use]
    pub fn api(&self) -> Api<'_> {
        Api::at(&self.http, self.settings.hosts.collector, self.settings.ports.api, TOKEN)
    }

    #[must_use]
    pub fn http(&self) -> &Http {
        &self.http
    }

    #[must_use]
    pub fn ports(&self) -> Ports {
        self.settings.ports
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file of the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The HTTP door, as client libraries are told it.
    #[must_use]
    pub fn http_door(&self) -> String {
        format!("http://{}:{}", self.settings.hosts.agent, self.settings.ports.http)
    }

    /// Where the HTTP door takes events.
    #[must_use]
    pub fn events_url(&self) -> String {
        format!("{}/api/v1/events", self.http_door())
    }

    /// The ends of both logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let agent = log_tail(Program::Agent, &self.path("agent.log"));
        let collector = log_tail(Program::Collector, &self.path("collector.log"));
        format!("{collector}\n{agent}")
    }
}

impl Drop for Stack {
    #[expect(clippy::print_stderr, reason = "a test that panics shows the logs, as one that fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the folder's name is UTF-8")
}
