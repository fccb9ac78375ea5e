//! Configuration: a TOML file, the environment over it, and files for secrets.
//!
//! **Owns** reading the file, the environment and the secrets; no other file does. **Does not own**
//! what the settings mean: [`mod@reference`] says it, and the parts that take them.
//!
//! An unknown key is an error that names the closest one, and every problem is reported at once, with
//! file, line and remedy. A misspelled limit that is silently ignored is found out during an outage.

pub mod reference;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use tidemark_common::tls::Pem;

use tidemark_common::hex;
use tidemark_common::id::CustomerId;

use crate::adopt::{self, CatalogSource};
use crate::api::{Role, Token};
use crate::archive::ArchiveError;
use crate::archive::store::{ArchiveStore, FolderStore};
use crate::archive::task::Place;
use crate::archive::writer::WriterOptions;
use crate::billing_run::Settings;
use crate::catalog::Catalog;
use crate::certificate::anchor::Anchors;
use crate::document::{self, Located, Problem, Problems, Table};
use crate::invoice::tax::TaxService;
use crate::ledger::Ledger;
use crate::reconcile::{self, ExpectedSource};
use crate::tax_service::HttpTaxService;

use values::Values;

/// Environment variables with this prefix are settings.
pub const VARIABLE_PREFIX: &str = "TIDEMARK_COLLECTOR__";
/// A token has at least this many characters.
pub const TOKEN_CHARACTERS_MIN: usize = 16;
/// At most this many tokens are configured.
pub const TOKENS_MAX: usize = 1_000;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub catalog: PathBuf,
    pub catalog_source: CatalogSource,
    pub billing: Billing,
    pub archive: Archive,
    /// `[certificate]`
    pub anchors: Anchors,
    pub reconcile: Reconcile,
    pub log_format: LogFormat,
    pub log_level: String,
    pub shutdown_grace_millis: u64,
    pub listen: Listen,
    pub tls: Tls,
    pub session: SessionLimits,
    pub ledger: LedgerLimits,
    pub streams: Streams,
    pub tokens: Vec<Token>,
    /// A word of the command line: a file would say it for ever.
    pub trust_clock: bool,
    /// As well.
    pub test_clock: bool,
}

/// `[billing]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Billing {
    pub schedule: Schedule,
    /// How long after its end a period waits for late events.
    pub grace_millis: u64,
    /// Where taxes are asked for; `None`: the catalogue says them.
    pub tax_service: Option<String>,
}

/// `[reconcile]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconcile {
    /// How much time before its cut a reconciliation looks at.
    pub range_millis: u64,
    /// Who should report.
    pub expected: ExpectedSource,
    /// How often the collector reconciles by itself; `None`: not at all.
    pub every_millis: Option<u64>,
}

impl Reconcile {
    /// What holds for every reconciliation.
    #[must_use]
    pub fn settings(&self) -> reconcile::Settings {
        let range_millis = i64::try_from(self.range_millis).unwrap_or(i64::MAX);
        reconcile::Settings { range_millis, expected: self.expected.clone() }
    }
}

/// `[archive]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// `None`: nothing is archived.
    pub folder: Option<PathBuf>,
    /// In place of the folder: an object store.
    pub url: Option<String>,
    pub every_millis: u64,
    pub segment_bytes: u32,
    /// 0: they stay.
    pub bodies_leave_after_millis: u64,
    /// Bytes a second that a session may send of raw events; 0: none are taken.
    pub raw_events_rate: u32,
}

impl Archive {
    /// Where it is, and how it is written.
    ///
    /// # Errors
    /// An object store that cannot be used.
    pub fn place(&self) -> Result<Place, ArchiveError> {
        let store = match (&self.folder, self.url.as_deref()) {
            (Some(folder), _) => Some(Arc::new(FolderStore::new(folder)) as Arc<dyn ArchiveStore>),
            (None, Some(url)) => Some(cloud(url)?),
            (None, None) => None,
        };
        Ok(Place {
            store,
            options: WriterOptions {
                every: Duration::from_millis(self.every_millis),
                segment_bytes: usize::try_from(self.segment_bytes).unwrap_or(usize::MAX),
                bodies_leave_after: Some(Duration::from_millis(self.bodies_leave_after_millis))
                    .filter(|age| !age.is_zero()),
            },
            index_in: None,
        })
    }
}

#[cfg(feature = "cloud-archive")]
fn cloud(url: &str) -> Result<Arc<dyn ArchiveStore>, ArchiveError> {
    Ok(Arc::new(crate::archive::cloud::CloudStore::open(url)?))
}

/// Such an address is refused before.
#[cfg(not(feature = "cloud-archive"))]
fn cloud(url: &str) -> Result<Arc<dyn ArchiveStore>, ArchiveError> {
    let reason = "this collector is built without `--features cloud-archive`".to_owned();
    Err(ArchiveError::Store { act: "open", name: url.to_owned(), reason })
}

/// Whether the collector bills by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    Off,
    On,
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub quic: SocketAddr,
    /// `None`: not at all.
    pub tcp: Option<SocketAddr>,
    pub http: SocketAddr,
}

/// `[tls]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// They are read again this often.
    pub renew_interval_millis: u64,
}

/// `[session]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    pub sessions_max: u32,
    pub handshakes_max: u32,
    pub sessions_per_identity_max: u32,
    pub handshakes_per_address_max: u32,
    pub age_max_millis: u64,
    pub confirm_interval_millis: u64,
    pub batches_in_flight_max: u32,
    pub batch_bytes_in_flight_max: u32,
    pub bodies_opened_max: u32,
    pub handshake_max_millis: u64,
    pub send_max_millis: u64,
    pub keep_alive_millis: u64,
    pub idle_max_millis: u64,
    pub receive_window_bytes: u32,
}

/// `[ledger]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerLimits {
    pub requests_max: u32,
    pub group_bytes_max: u64,
    pub fold_age_millis: u64,
    pub fold_lines_max: u32,
    pub tail_bytes_max: u64,
    pub silent_after_millis: u64,
    pub streams_max: u32,
    pub streams_per_hour_max: u32,
    pub ledger_cache_bytes: u64,
    pub totals_cache_bytes: u64,
}

/// `[streams]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// A stream that is closed and whole retires once it was not heard of for this long.
    pub retire_after_millis: u64,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Failed to configure the collector.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("failed to read {}: {source}; give the configuration with --config, the catalogue as `catalog` in it", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to read the {what} {}: {source}; for local use, `tidemark-collector dev-certs DIR` makes one", path.display())]
    Certificate { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}", Listed(.0))]
    Problems(Vec<Problem>),
}

/// One problem a line.
struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads the file at `path` and lays this process's environment over it.
    ///
    /// # Errors
    /// The file cannot be read, or every problem that it or the environment has.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &path.display().to_string(), folder, &variables)
            .map_err(ConfigError::Problems)
    }

    /// Reads `text`; relative paths in it are meant from `folder`. `variables` are those with the
    /// prefix. Files are read for `*_FILE` and `token_file` only.
    ///
    /// # Errors
    /// Every problem.
    pub fn parse(
        text: &str,
        file: &str,
        folder: &Path,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<Problem>> {
        let (mut root, mut problems) = document::parse(text, file)?;
        let mut tokens = Vec::new();
        let mut values = Values::from_file(&mut root, folder, &mut problems, |api, problems| {
            tokens = file_tokens(api, folder, problems);
        });
        root.finish(&mut problems);
        tokens.extend(values.overlay(variables));
        let config = values.config(tokens);
        let mut found = problems.into_found();
        found.extend(values.into_found());
        match config {
            Some(config) if found.is_empty() => Ok(config),
            Some(_) | None => Err(found),
        }
    }

    /// What holds for every billing run.
    #[must_use]
    pub fn billing_settings(&self) -> Settings {
        let service = self.billing.tax_service.as_deref().map(HttpTaxService::new);
        Settings {
            grace_millis: i64::try_from(self.billing.grace_millis).unwrap_or(i64::MAX),
            taxes: service.map(|service| Arc::new(service) as Arc<dyn TaxService>),
            reconcile: self.reconcile.settings(),
            runs: Arc::default(),
        }
    }

    /// The catalogue of a ledger that no collector runs on: the file's, or the ledger's. Blocks.
    ///
    /// # Errors
    /// In words: it cannot be read, or every problem that it has.
    pub fn catalog_of(&self, ledger: &Ledger) -> Result<Catalog, String> {
        let told = |error: &dyn fmt::Display| error.to_string();
        match self.catalog_source {
            CatalogSource::File => self.load_catalog().map_err(|error| told(&error)),
            CatalogSource::Ledger => {
                let books = ledger.books().map_err(|error| told(&error))?;
                let stored = adopt::stored(&*books).map_err(|error| told(&error))?;
                let text = stored.ok_or_else(|| "the ledger has no catalogue yet".to_owned())?;
                Catalog::parse(&text, "catalogue in the ledger")
                    .map_err(|problems| Listed(&problems).to_string())
            }
        }
    }

    /// Reads the catalogue file.
    ///
    /// # Errors
    /// The file cannot be read, or every problem that it has.
    pub fn load_catalog(&self) -> Result<Catalog, ConfigError> {
        let text = self.read_catalog()?;
        Catalog::parse(&text, &self.catalog.display().to_string()).map_err(ConfigError::Problems)
    }

    /// The catalogue file's text.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_catalog(&self) -> Result<String, ConfigError> {
        let path = &self.catalog;
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })
    }

    /// Reads the certificates.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load_pem(&self) -> Result<Pem, ConfigError> {
        let read = |what, path: &Path| {
            fs::read(path).map_err(|source| ConfigError::Certificate {
                what,
                path: path.to_owned(),
                source,
            })
        };
        Ok(Pem {
            ca: read("CA certificate", &self.tls.ca)?,
            certificate: read("certificate", &self.tls.certificate)?,
            key: read("private key", &self.tls.key)?,
        })
    }
}

/// `[[api.token]]`
fn file_tokens(api: &mut Table<'_>, folder: &Path, problems: &mut Problems<'_>) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for mut table in api.tables("token", problems) {
        let span = table.span.clone();
        let read = file_token(&mut table, folder, problems);
        table.finish(problems);
        let Some(token) = read else { continue };
        if tokens.iter().any(|other| other.name == token.name) {
            let message = format!("two tokens are called {:?}", token.name);
            problems.report(span, message, "give each its own name");
        }
        tokens.push(token);
    }
    if tokens.len() > TOKENS_MAX {
        let message = format!("there are {} tokens", tokens.len());
        problems.report(0..0, message, format!("keep at most {TOKENS_MAX}"));
    }
    tokens
}

fn file_token(table: &mut Table<'_>, folder: &Path, problems: &mut Problems<'_>) -> Option<Token> {
    let span = table.span.clone();
    let name = table.required_text("name", "dashboard", problems);
    let name = name.map_or_else(String::new, |name| name.value);
    let inline = table.text("token", problems);
    let file = table.text("token_file", problems);
    let digest = table.text("token_sha256", problems);
    let customer = table.text("customer", problems);
    let role = table.text("role", problems).and_then(|text| role(&text, problems));
    let read = match (inline, file, digest) {
        (Some(secret), None, None) => token(&name, &secret.value),
        (None, Some(file), None) => {
            read_value(&folder.join(&file.value)).and_then(|secret| token(&name, &secret))
        }
        (None, None, Some(digest)) => token_of_digest(&name, &digest.value),
        (None, None, None) => {
            Err("the token has neither `token` nor `token_file` nor `token_sha256`".to_owned())
        }
        _ => Err("the token has several of `token`, `token_file` and `token_sha256`".to_owned()),
    };
    let customer = customer.map(|text| {
        let id = CustomerId::parse(&text.value);
        let message = |error| format!("the customer {:?} {error}", text.value);
        let remedy = "write a customer's id as the catalogue has it";
        id.map_err(|error| problems.report(text.span.clone(), message(error), remedy)).ok()
    });
    match (read, customer) {
        (Ok(token), customer) => Some(Token {
            customer: customer.unwrap_or_default(),
            role: role.unwrap_or_default(),
            ..token
        }),
        (Err(message), _) => {
            let remedy =
                "make one with `openssl rand -hex 32`, and give it, its file or its SHA-256";
            problems.report(span, message, remedy);
            None
        }
    }
}

fn role(text: &Located<String>, problems: &mut Problems<'_>) -> Option<Role> {
    let found = Role::ALL.into_iter().find(|role| role.name() == text.value);
    if found.is_none() {
        let names = Role::ALL.map(Role::name).join(", ");
        let message = format!("{:?} is no role", text.value);
        problems.report(text.span.clone(), message, format!("write one of {names}"));
    }
    found
}

fn token(name: &str, secret: &str) -> Result<Token, String> {
    if secret.chars().count() < TOKEN_CHARACTERS_MIN {
        return Err(format!("the token {name:?} has fewer than {TOKEN_CHARACTERS_MIN} characters"));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("the token {name:?} holds characters that a header cannot carry"));
    }
    Ok(Token::of_secret(name, secret))
}

/// As `sha256sum` prints it.
fn token_of_digest(name: &str, digest: &str) -> Result<Token, String> {
    let digest = hex::decode_array(digest)
        .ok_or_else(|| format!("the `token_sha256` of {name:?} is not 64 hexadecimal digits"))?;
    Ok(Token { name: name.to_owned(), digest, customer: None, role: Role::default() })
}

/// The value that a file holds, without the newline that editors leave.
fn read_value(path: &Path) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests;
