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

use thiserror::Error;

use tidemark_common::tls::Pem;

use crate::api::Token;
use crate::catalog::Catalog;
use crate::document::{self, Problem, Problems, Table};

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
    pub log_format: LogFormat,
    pub log_level: String,
    pub shutdown_grace_millis: u64,
    pub listen: Listen,
    pub tls: Tls,
    pub session: SessionLimits,
    pub ledger: LedgerLimits,
    pub tokens: Vec<Token>,
    /// A word of the command line: a file would say it for ever.
    pub trust_clock: bool,
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

    /// Reads the catalogue file.
    ///
    /// # Errors
    /// The file cannot be read, or every problem that it has.
    pub fn load_catalog(&self) -> Result<Catalog, ConfigError> {
        let path = &self.catalog;
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Catalog::parse(&text, &path.display().to_string()).map_err(ConfigError::Problems)
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
        let name = table.required_text("name", "dashboard", problems);
        let inline = table.text("token", problems);
        let file = table.text("token_file", problems);
        table.finish(problems);
        let secret = match (inline, file) {
            (Some(secret), None) => Ok(secret.value),
            (None, Some(file)) => read_value(&folder.join(&file.value)),
            (None, None) => Err("the token has neither `token` nor `token_file`".to_owned()),
            (Some(_), Some(_)) => Err("the token has both `token` and `token_file`".to_owned()),
        };
        let name = name.map_or_else(String::new, |name| name.value);
        match secret.and_then(|secret| token(&name, secret)) {
            Ok(token) => tokens.push(token),
            Err(message) => {
                problems.report(
                    span.clone(),
                    message,
                    "make one with `openssl rand -hex 32`, and give it or its file",
                );
            }
        }
        if tokens.iter().filter(|token| token.name == name).count() > 1 {
            problems.report(
                span,
                format!("two tokens are called {name:?}"),
                "give each its own name",
            );
        }
    }
    if tokens.len() > TOKENS_MAX {
        problems.report(
            0..0,
            format!("there are {} tokens", tokens.len()),
            format!("keep at most {TOKENS_MAX}"),
        );
    }
    tokens
}

fn token(name: &str, secret: String) -> Result<Token, String> {
    if secret.chars().count() < TOKEN_CHARACTERS_MIN {
        return Err(format!("the token {name:?} has fewer than {TOKEN_CHARACTERS_MIN} characters"));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("the token {name:?} holds characters that a header cannot carry"));
    }
    Ok(Token { name: name.to_owned(), secret })
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
