//! The files that a stack is configured by: ports, agent.toml, collector.toml, the catalogue.
//!
//! **Owns** which keys a test sets. **Does not own** defaults: what is not set here is as shipped.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use crate::random::Random;

/// The API token that every stack is given.
pub const TOKEN: &str = "a-token-for-tests-and-demos-only";

/// Ports are taken from below those that the kernel gives to outgoing connections (32768 and up),
/// so that nobody takes one while its program is being restarted.
const PORT_FIRST: u64 = 20_000;
const PORT_COUNT: u64 = 12_000;
const PORT_TRIES_MAX: usize = 1_000;

/// Where the two programs listen, on localhost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub udp: u16,
    pub http: u16,
    pub admin: u16,
    pub quic: u16,
    pub api: u16,
}

impl Ports {
    /// Those of the documentation.
    pub const DOCUMENTED: Self = Self { udp: 8125, http: 8127, admin: 8128, quic: 8129, api: 8130 };

    /// Five that are free, and not given to another stack of this process.
    ///
    /// # Errors
    /// When none are found.
    pub fn free() -> Result<Self> {
        Ok(Self {
            udp: free_port()?,
            http: free_port()?,
            admin: free_port()?,
            quic: free_port()?,
            api: free_port()?,
        })
    }

    /// The first of them that somebody listens on, with the configuration key that moves it.
    #[must_use]
    pub fn first_in_use(self) -> Option<(u16, &'static str)> {
        [
            (self.udp, "doors.udp"),
            (self.http, "doors.http"),
            (self.admin, "admin.listen"),
            (self.quic, "listen.quic and listen.tcp"),
            (self.api, "listen.http"),
        ]
        .into_iter()
        .find(|(port, _)| !is_free(*port))
    }
}

fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut random = Random::new(Random::fresh_seed());
    for _ in 0..PORT_TRIES_MAX {
        let port = u16::try_from(PORT_FIRST.saturating_add(random.below(PORT_COUNT)))?;
        if is_free(port) && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    bail!("no free port was found from {PORT_FIRST} on")
}

/// Whether UDP and TCP can be bound on both loopback addresses.
fn is_free(port: u16) -> bool {
    let v6 = !has_v6()
        || (UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).is_ok()
            && TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok());
    v6 && UdpSocket::bind(("127.0.0.1", port)).is_ok()
        && TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Whether this machine has ::1; some containers do not.
fn has_v6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// `port` on every loopback address that this machine has.
fn loopbacks(port: u16) -> Value {
    let mut addresses = vec![Value::from(format!("127.0.0.1:{port}"))];
    if has_v6() {
        addresses.push(Value::from(format!("[::1]:{port}")));
    }
    Value::Array(addresses)
}

/// Which addresses the two programs are reached at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hosts {
    pub agent: Ipv4Addr,
    pub collector: Ipv4Addr,
}

impl Hosts {
    /// Both on this machine.
    pub const LOCAL: Self = Self { agent: Ipv4Addr::LOCALHOST, collector: Ipv4Addr::LOCALHOST };
}

/// What a stack is configured by. Paths are relative to its folder.
#[derive(Debug, Clone)]
pub struct Settings {
    pub ports: Ports,
    pub hosts: Hosts,
    pub catalogue: String,
    agent: Table,
    collector: Table,
}

impl Settings {
    /// Defaults, at `ports`, with files below one folder.
    #[must_use]
    pub fn new(ports: Ports, catalogue: &str) -> Self {
        let mut settings = Self {
            ports,
            hosts: Hosts::LOCAL,
            catalogue: catalogue.to_owned(),
            agent: Table::new(),
            collector: Table::new(),
        };
        settings.place();
        settings
    }

    /// The same at other ports.
    ///
    /// # Errors
    /// When none are free.
    pub fn move_to_free_ports(&mut self) -> Result<()> {
        self.ports = Ports::free()?;
        self.place();
        Ok(())
    }

    /// Has both listen at other addresses than localhost; `uplink` is where the agent finds the
    /// collector.
    #[must_use]
    pub fn apart(mut self, hosts: Hosts, uplink: Ipv4Addr) -> Self {
        self.hosts = hosts;
        let Ports { udp, http, admin, quic, api } = self.ports;
        let Hosts { agent, collector } = hosts;
        self.agent("uplink.collectors", vec![format!("{uplink}:{quic}")])
            .agent("uplink.server_name", "localhost")
            .agent("doors.udp", vec![format!("{agent}:{udp}")])
            .agent("doors.http", vec![format!("{agent}:{http}")])
            .agent("admin.listen", format!("{agent}:{admin}"))
            .collector("listen.quic", format!("0.0.0.0:{quic}"))
            .collector("listen.http", format!("{collector}:{api}"))
    }

    /// Sets a key of agent.toml, written `section.key`.
    #[must_use]
    pub fn agent(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.agent, path, value.into());
        self
    }

    /// Sets a key of collector.toml, written `section.key`.
    #[must_use]
    pub fn collector(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.collector, path, value.into());
        self
    }

    fn place(&mut self) {
        let Ports { udp, http, admin, quic, api } = self.ports;
        let agent = &mut self.agent;
        set(agent, "uplink.collectors", vec![format!("127.0.0.1:{quic}")].into());
        set(agent, "uplink.ca", "certs/ca.pem".into());
        set(agent, "uplink.certificate", "certs/agent.pem".into());
        set(agent, "uplink.key", "certs/agent.key".into());
        set(agent, "journal.path", "journal.redb".into());
        set(agent, "doors.udp", loopbacks(udp));
        set(agent, "doors.http", loopbacks(http));
        set(agent, "doors.unix_datagram", "dsd.socket".into());
        set(agent, "doors.dsd_stream", "dsd-stream.socket".into());
        set(agent, "doors.events", "events.socket".into());
        set(agent, "admin.listen", format!("127.0.0.1:{admin}").into());
        let collector = &mut self.collector;
        set(collector, "data_dir", "ledger".into());
        set(collector, "catalog", "catalog.toml".into());
        set(collector, "listen.quic", format!("127.0.0.1:{quic}").into());
        set(collector, "tls.ca", "certs/ca.pem".into());
        set(collector, "tls.certificate", "certs/collector.pem".into());
        set(collector, "tls.key", "certs/collector.key".into());
        set(collector, "listen.http", format!("127.0.0.1:{api}").into());
        let mut token = Table::new();
        set(&mut token, "name", "tests".into());
        set(&mut token, "token", TOKEN.into());
        set(&mut token, "role", "auditor".into());
        set(collector, "api.token", Value::Array(vec![Value::Table(token)]));
    }

    /// Writes all three files into `folder`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let files = [
            ("agent.toml", toml::to_string(&self.agent)?),
            ("collector.toml", toml::to_string(&self.collector)?),
            ("catalog.toml", self.catalogue.clone()),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(())
    }
}

fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
