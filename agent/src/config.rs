//! What a person configures: one TOML file, with environment variables laid over it.
//!
//! **Owns** every read of a configuration file, of the environment and of certificate files, the
//! rules for valid values, and the reference table that they are documented from
//! ([`mod@reference`]). **Does not own** what the values mean to the parts that get them.
//!
//! `TIDEMARK_AGENT__SECTION__KEY` lays a value over `[section] key`; the same name with `_FILE`
//! reads the value from a file. An unknown key is an error, since a misspelt one would leave a
//! default at work that nobody chose. All problems are reported at once, each with its place and
//! what to do about it; a relative path is meant from the configuration file's folder.

pub mod check;
mod closest;
mod reader;
pub mod reference;
mod source;
mod validate;
mod value;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fmt};

use thiserror::Error;
use tidemark_common::id::MeterName;
use tidemark_common::tls::Pem;

use crate::intake::forward::ForwardAddress;
use crate::parse::naming::NamingOptions;
use crate::uplink::chooser::TransportChoice;

/// A configuration file is at most this many bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where a configuration file is that no argument names.
pub const FILE_DEFAULT: &str = "/etc/tidemark/agent.toml";
/// What problems call a configuration without a file.
pub const ENVIRONMENT: &str = "the environment";
/// What every environment variable of the overlay begins with.
pub const VARIABLE_PREFIX: &str = "TIDEMARK_AGENT__";

/// Everything that can be configured, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub doors: Doors,
    /// `[naming]`: how metrics become meters and customers.
    pub naming: NamingOptions,
    /// `[forward]`: where to what is not metered goes; absent: nowhere.
    pub forward: Option<ForwardAddress>,
    pub events: Events,
    pub journal: Journal,
    pub uplink: Uplink,
    pub rules: SeedRules,
    pub admin: Admin,
    /// From SIGTERM to the end of the process.
    pub shutdown_grace: Duration,
    pub log_format: LogFormat,
    pub log_level: LogLevel,
}

/// `[doors]`: where applications send to. An empty list or an absent path closes that door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doors {
    pub udp: Vec<SocketAddr>,
    pub unix_datagram: Option<PathBuf>,
    pub dsd_stream: Option<PathBuf>,
    pub events: Option<PathBuf>,
    pub http: Vec<SocketAddr>,
    /// The bearer token that the HTTP door asks for.
    pub http_token: Option<Secret>,
    /// Permission bits of the socket files.
    pub socket_mode: u32,
    /// The users whose processes may connect to the stream sockets; empty: all.
    pub peer_uids: Vec<u32>,
    /// What the kernel is asked to buffer for each datagram socket.
    pub receive_buffer_bytes: usize,
}

/// `[events]`: which events are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    pub future_max: Duration,
    pub age_max: Duration,
    /// Patterns of meters whose quantities may be below zero.
    pub negative: Vec<String>,
}

/// `[journal]`: the file on local disk, and when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    pub path: PathBuf,
    /// The file's length.
    pub bytes_max: u64,
    /// A commit waits this long for company while an acknowledgement waits for it.
    pub linger: Duration,
    /// And this long otherwise.
    pub linger_max: Duration,
    pub retain_acked: Duration,
    pub retain_acked_bytes_max: u64,
    pub ids_max: usize,
    pub ids_window: Duration,
    pub dead_letters_max: usize,
    pub dead_letter_bytes_max: usize,
    /// 0: no raw events are kept for the archive.
    pub raw_events_bytes_max: u64,
    pub open_lines_max: usize,
    pub open_chunk_bytes_max: u64,
}

impl Journal {
    /// Whether raw events are kept for the collector's archive.
    #[must_use]
    pub fn keeps_raw_events(&self) -> bool {
        self.raw_events_bytes_max > 0
    }
}

/// `[uplink]`: which collector, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub collectors: Vec<CollectorAddress>,
    /// The name that the collector's certificate must bear; absent: the host of its address.
    pub server_name: Option<String>,
    pub transport: TransportChoice,
    /// While QUIC does not get through, it is probed this often.
    pub quic_probe_interval: Duration,
    pub ca: PemSource,
    pub certificate: PemSource,
    pub key: PemSource,
    /// The three are read again this often; what is new counts at the next connection.
    pub renew_interval: Duration,
    /// A session ends and is begun anew after at most this long.
    pub session_age_max: Duration,
}

/// Where a collector listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorAddress {
    /// A name or an address, an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for CollectorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Uplink {
    /// The certificates and the key, read now.
    ///
    /// # Errors
    /// Names each file that cannot be read.
    pub fn pem(&self) -> Result<Pem, ConfigError> {
        let mut problems = Vec::new();
        let mut read = |source: &PemSource| match source {
            PemSource::Inline(text) => text.clone().into_bytes(),
            PemSource::File(path) => source::read_file(path)
                .map_err(|problem| problems.push(problem))
                .unwrap_or_default()
                .into_bytes(),
        };
        let pem =
            Pem { ca: read(&self.ca), certificate: read(&self.certificate), key: read(&self.key) };
        if problems.is_empty() { Ok(pem) } else { Err(ConfigError { problems }) }
    }
}

/// A PEM text: in a file that is read at each use (so that a renewed one is seen), or given inline.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    File(PathBuf),
    Inline(String),
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline(..)"),
        }
    }
}

/// `[rules]`: what stands in for the collector's rules before it has been heard once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeedRules {
    /// Ascending by meter. Empty: none.
    pub seed: Vec<SeedMeter>,
}

/// One meter of the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedMeter {
    pub meter: MeterName,
    /// The dimensions that are kept, ascending.
    pub dimensions: Vec<String>,
}

/// `[admin]`: where metrics, health and status are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub listen: SocketAddr,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The least severe log line that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// A value that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that compares or sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ConfigError {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `agent.toml:12`, or the name of an environment variable, or a file.
    pub place: String,
    pub message: String,
    pub remedy: String,
}

impl Problem {
    /// The line that it stands in; after all lines for what stands in none.
    fn line(&self) -> usize {
        self.place.rsplit_once(':').and_then(|(_, line)| line.parse().ok()).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.message, self.remedy)
    }
}

impl Config {
    /// Reads the file and the process's environment.
    ///
    /// # Errors
    /// All problems at once, each with its place and remedy.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            source::read_file(path).map_err(|problem| ConfigError { problems: vec![problem] })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::under_environment(&text, &path.display().to_string(), folder)
    }

    /// The file that is meant: the one that is named, or that at [`FILE_DEFAULT`]. `None`: none is named, that one is
    /// not there, and variables are, so the environment alone is the configuration.
    #[must_use]
    pub fn file_meant(named: Option<&Path>) -> Option<&Path> {
        let is_of_overlay =
            |name: OsString| name.to_str().is_some_and(|name| name.starts_with(VARIABLE_PREFIX));
        let default = Path::new(FILE_DEFAULT);
        let has_variables = || env::vars_os().any(|(name, _)| is_of_overlay(name));
        named.or_else(|| (default.exists() || !has_variables()).then_some(default))
    }

    /// Reads [what is meant](Self::file_meant). Without a file relative paths are meant from the working folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_any(named: Option<&Path>) -> Result<Self, ConfigError> {
        match Self::file_meant(named) {
            Some(path) => Self::load(path),
            None => Self::under_environment("", ENVIRONMENT, Path::new("")),
        }
    }

    fn under_environment(text: &str, file: &str, folder: &Path) -> Result<Self, ConfigError> {
        let (variables, mut problems) = source::environment();
        match Self::read(text, file, folder, &variables) {
            Ok(config) if problems.is_empty() => Ok(config),
            Ok(_) => Err(ConfigError { problems }),
            Err(error) => {
                problems.extend(error.problems);
                Err(ConfigError { problems })
            }
        }
    }

    /// Reads `text`, which messages call `file`, with `variables` laid over it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(
        text: &str,
        file: &str,
        folder: &Path,
        variables: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let (found, problems) = source::gather(text, file, folder, variables)
            .map_err(|problems| ConfigError { problems })?;
        let mut reader = reader::Reader::new(found, file, folder, problems);
        let config = validate::config(&mut reader);
        let mut problems = reader.finish();
        problems.sort_by_key(Problem::line);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }
}
