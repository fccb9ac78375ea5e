//! Another agent beside a stack's: its own name, journal and doors, the same collector.
//!
//! **Owns** its process; its files are in the stack's folder, below `second`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries::Program;
use crate::metrics::Metrics;
use crate::process::Process;
use crate::settings::{Ports, Settings};
use crate::stack::Stack;
use crate::wait::until;

/// As long as the stack's own has.
const WAIT: Duration = Duration::from_secs(90);

/// See the module.
#[derive(Debug)]
pub struct SecondAgent {
    process: Option<Process>,
    ports: Ports,
    folder: PathBuf,
}

impl SecondAgent {
    /// Configures and starts it, and waits until it has heard from the collector.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn beside(stack: &Stack) -> Result<Self> {
        let Ports { quic, api, .. } = stack.ports();
        let ports = Ports { quic, api, ..Ports::free()? };
        let settings = Settings::new(ports, "")
            .agent("journal.raw_events_bytes_max", "8MiB")
            .agent("uplink.ca", "../certs/ca.pem")
            .agent("uplink.certificate", "../certs/other.pem")
            .agent("uplink.key", "../certs/other.key");
        let folder = stack.path("second");
        std::fs::create_dir(&folder)?;
        settings.write(&folder)?;
        let mut second = Self { process: None, ports, folder };
        second.start(stack)?;
        Ok(second)
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&mut self, stack: &Stack) -> Result<()> {
        let config = self.path("agent.toml");
        let config = config.to_str().context("the folder's name is UTF-8")?;
        let log = self.path("agent.log");
        let process = Process::start(Program::Agent, &["run", "--config", config], &log)?;
        self.process = Some(process);
        self.wait(stack, "a session", |metrics| {
            match metrics.count_or_zero("tidemark_agent_session_state{state=\"connected\"}") {
                1 => Ok(()),
                _ => Err("not connected".to_owned()),
            }
        })
    }

    /// # Errors
    /// When it was not running.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the second agent is not running")?.kill_9()
    }

    /// Waits until all that it has accepted, `accepted` events or more, is posted.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_posted(&self, stack: &Stack, accepted: u64) -> Result<()> {
        self.wait(stack, &format!("{accepted} events to be posted"), |metrics| {
            let count = |name| metrics.count_or_zero(name);
            let seen = count("tidemark_agent_accepted_events_total");
            let posted = count("tidemark_agent_posted_events_total");
            if seen >= accepted && posted == seen && count("tidemark_agent_in_transit_events") == 0
            {
                return Ok(());
            }
            Err(format!("accepted {seen}, posted {posted}"))
        })
    }

    fn wait(
        &self,
        stack: &Stack,
        what: &str,
        is_so: impl Fn(&Metrics) -> Result<(), String>,
    ) -> Result<()> {
        until(&format!("the second agent: {what}"), WAIT, || {
            let metrics = self.metrics(stack).map_err(|error| format!("{error:#}"))?;
            is_so(&metrics)
        })
    }

    /// One scrape of it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self, stack: &Stack) -> Result<Metrics> {
        let url = format!("http://127.0.0.1:{}/metrics", self.ports.admin);
        let answer = stack.http().get(&url, None)?;
        ensure!(answer.status == 200, "{url}: {} {}", answer.status, answer.body);
        Ok(Metrics::read(&answer.body))
    }

    #[must_use]
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// A file of its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where its HTTP door takes events.
    #[must_use]
    pub fn events_url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/events", self.ports.http)
    }
}
