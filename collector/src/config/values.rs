//! Settings as text, each with the place that it comes from, and how they are read.
//!
//! **Owns** which of file, environment and default wins, and the ranges of values. **Does not own**
//! the settings themselves ([`super::reference`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::adopt::CatalogSource;
use crate::api::Token;
use crate::certificate::anchor::Anchors;
use crate::document::{Problem, Problems, Table, closest};
use crate::duration::{parse_bytes, parse_millis};
use crate::reconcile::ExpectedSource;

use super::reference::{SETTINGS, Setting, find};
use super::{
    Archive, Billing, Config, LedgerLimits, Listen, LogFormat, Reconcile, Schedule, SessionLimits,
    Streams, Tls, VARIABLE_PREFIX, read_value, token,
};

/// One batch must be able to wait for its commit, however large.
const BATCH_BYTES_MAX: u32 = 16 << 20;
/// A private key begins so, and is not to be shown.
const PEM_BEGIN: &str = "-----BEGIN";
const TOKEN_VARIABLE: &str = "TIDEMARK_COLLECTOR__API__TOKEN";

/// Where a value that is not the default comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File { file: String, line: usize },
    Variable { name: String },
}

#[derive(Debug)]
struct Value {
    text: String,
    source: Source,
}

/// Every setting's text, and what is wrong with them.
#[derive(Debug)]
pub(super) struct Values {
    values: BTreeMap<&'static str, Value>,
    folder: PathBuf,
    found: Vec<Problem>,
}

impl Values {
    /// Takes what `root` sets; `api` reads what else `[api]` holds.
    pub(super) fn from_file(
        root: &mut Table<'_>,
        folder: &Path,
        problems: &mut Problems<'_>,
        api: impl FnOnce(&mut Table<'_>, &mut Problems<'_>),
    ) -> Self {
        let mut values = BTreeMap::new();
        let mut take = |setting: &Setting,
                        table: &mut Table<'_>,
                        key: &'static str,
                        problems: &mut Problems<'_>| {
            if let Some(value) = table.scalar(key, problems) {
                let source = Source::File {
                    file: problems.file().to_owned(),
                    line: problems.line_of(value.span.start),
                };
                values.insert(setting.key, Value { text: value.value, source });
            }
        };
        let mut sections: Vec<&'static str> = Vec::new();
        for setting in &SETTINGS {
            match setting.key.split_once('.') {
                None => take(setting, root, setting.key, problems),
                Some((section, _)) if !sections.contains(&section) => sections.push(section),
                Some(_) => {}
            }
        }
        for section in sections {
            let Some(mut table) = root.table(section, problems) else { continue };
            for setting in &SETTINGS {
                if let Some((of, key)) = setting.key.split_once('.')
                    && of == section
                {
                    take(setting, &mut table, key, problems);
                }
            }
            table.finish(problems);
        }
        if let Some(mut table) = root.table("api", problems) {
            api(&mut table, problems);
            table.finish(problems);
        }
        Self { values, folder: folder.to_owned(), found: Vec::new() }
    }

    /// Lays environment variables over the file, and returns the token that they hold.
    pub(super) fn overlay(&mut self, variables: &BTreeMap<String, String>) -> Option<Token> {
        let mut secret = None;
        for (name, given) in variables {
            let (base, text) = match name.strip_suffix("_FILE") {
                Some(base) => match read_value(Path::new(given)) {
                    Ok(text) => (base, text),
                    Err(message) => {
                        self.report_variable(
                            name,
                            message,
                            "name a file that the collector may read",
                        );
                        continue;
                    }
                },
                None => (name.as_str(), given.clone()),
            };
            if base == TOKEN_VARIABLE {
                match token("environment", &text) {
                    Ok(token) => secret = Some(token),
                    Err(message) => {
                        self.report_variable(name, message, "make one with `openssl rand -hex 32`")
                    }
                }
            } else if let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == base)
            {
                self.values.insert(
                    setting.key,
                    Value { text, source: Source::Variable { name: name.clone() } },
                );
            } else {
                self.report_unknown(name, base);
            }
        }
        secret
    }

    /// All settings read; `None` if any cannot be. All are read before the first is missed, so that
    /// every problem is found.
    pub(super) fn config(&mut self, tokens: Vec<Token>) -> Option<Config> {
        let listen = self.listen();
        let renew_interval_millis = self.millis("tls.renew_interval", 100);
        let shutdown_grace_millis = self.millis("shutdown_grace", 0);
        let log_format = self.log_format();
        let catalog_source = self.catalog_source();
        let billing = self.billing();
        let archive = self.archive();
        let anchors = self.anchors();
        let reconcile = self.reconcile();
        let session = self.session();
        let ledger = self.ledger();
        let retire_after_millis = self.millis("streams.retire_after", 1_000);
        let (data_dir, catalog) = (self.path("data_dir"), self.path("catalog"));
        let (ca, certificate) = (self.path("tls.ca"), self.path("tls.certificate"));
        let key = self.path("tls.key");
        Some(Config {
            data_dir: data_dir?,
            catalog: catalog?,
            catalog_source: catalog_source?,
            billing: billing?,
            archive: archive?,
            anchors: anchors?,
            reconcile: reconcile?,
            log_format: log_format?,
            log_level: self.text("log_level").to_owned(),
            shutdown_grace_millis: shutdown_grace_millis?,
            listen: listen?,
            tls: Tls {
                ca: ca?,
                certificate: certificate?,
                key: key?,
                renew_interval_millis: renew_interval_millis?,
            },
            session: session?,
            ledger: ledger?,
            streams: Streams { retire_after_millis: retire_after_millis? },
            tokens,
            trust_clock: false,
            test_clock: false,
        })
    }

    fn listen(&mut self) -> Option<Listen> {
        let quic = self.address("listen.quic");
        let tcp = match self.text("listen.tcp") {
            "same" => quic.map(Some),
            "off" => Some(None),
            _ => self.address("listen.tcp").map(Some),
        };
        let http = self.address("listen.http");
        Some(Listen { quic: quic?, tcp: tcp?, http: http? })
    }

    fn session(&mut self) -> Option<SessionLimits> {
        let sessions_max = self.count("session.sessions_max", 1);
        let handshakes_max = self.count("session.handshakes_max", 1);
        let sessions_per_identity_max = self.count("session.sessions_per_identity_max", 1);
        let handshakes_per_address_max = self.count("session.handshakes_per_address_max", 1);
        let age_max_millis = self.millis("session.age_max", 100);
        let confirm_interval_millis = self.millis("session.confirm_interval", 10);
        let batches_in_flight_max = self.count("session.batches_in_flight_max", 1);
        let batch_bytes_in_flight_max =
            self.bytes_u32("session.batch_bytes_in_flight_max", BATCH_BYTES_MAX);
        let bodies_opened_max = self.count("session.bodies_opened_max", 1);
        let handshake_max_millis = self.millis("session.handshake_max", 100);
        let send_max_millis = self.millis("session.send_max", 100);
        let keep_alive_millis = self.millis("session.keep_alive", 10);
        let idle_max_millis = self.millis("session.idle_max", 100);
        let receive_window_bytes = self.bytes_u32("session.receive_window", 16 << 10);
        Some(SessionLimits {
            sessions_max: sessions_max?,
            handshakes_max: handshakes_max?,
            sessions_per_identity_max: sessions_per_identity_max?,
            handshakes_per_address_max: handshakes_per_address_max?,
            age_max_millis: age_max_millis?,
            confirm_interval_millis: confirm_interval_millis?,
            batches_in_flight_max: batches_in_flight_max?,
            batch_bytes_in_flight_max: batch_bytes_in_flight_max?,
            bodies_opened_max: bodies_opened_max?,
            handshake_max_millis: handshake_max_millis?,
            send_max_millis: send_max_millis?,
            keep_alive_millis: keep_alive_millis?,
            idle_max_millis: idle_max_millis?,
            receive_window_bytes: receive_window_bytes?,
        })
    }

    fn ledger(&mut self) -> Option<LedgerLimits> {
        let requests_max = self.count("ledger.requests_max", 1);
        let group_bytes_max = self.bytes("ledger.group_bytes_max", 64 << 10);
        let fold_age_millis = self.millis("ledger.fold_age", 10);
        let fold_lines_max = self.count("ledger.fold_lines_max", 1);
        let tail_bytes_max = self.bytes("ledger.tail_bytes_max", 1 << 20);
        let silent_after_millis = self.millis("ledger.silent_after", 1_000);
        let streams_max = self.count("ledger.streams_max", 1);
        let streams_per_hour_max = self.count("ledger.streams_per_hour_max", 1);
        let ledger_cache_bytes = self.bytes("ledger.ledger_cache_bytes", 1 << 20);
        let totals_cache_bytes = self.bytes("ledger.totals_cache_bytes", 1 << 20);
        Some(LedgerLimits {
            requests_max: requests_max?,
            group_bytes_max: group_bytes_max?,
            fold_age_millis: fold_age_millis?,
            fold_lines_max: fold_lines_max?,
            tail_bytes_max: tail_bytes_max?,
            silent_after_millis: silent_after_millis?,
            streams_max: streams_max?,
            streams_per_hour_max: streams_per_hour_max?,
            ledger_cache_bytes: ledger_cache_bytes?,
            totals_cache_bytes: totals_cache_bytes?,
        })
    }

    pub(super) fn into_found(self) -> Vec<Problem> {
        self.found
    }

    fn text(&self, key: &'static str) -> &str {
        let default = find(key).expect("only settings of the reference are read").default;
        self.values.get(key).map_or(default, |value| &value.text)
    }

    /// A path in the file is meant from the file's folder; one in the environment, from the process's.
    /// The text of a key in its place would be shown wherever the path is: in errors, in the log.
    fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = match self.values.get(key) {
            Some(Value { text, source: Source::File { .. } }) => self.folder.join(text),
            Some(_) | None => PathBuf::from(self.text(key)),
        };
        let parsed = (!self.text(key).contains(PEM_BEGIN)).then_some(path);
        self.or_report(key, parsed, "the path of the file that holds it")
    }

    fn address(&mut self, key: &'static str) -> Option<std::net::SocketAddr> {
        let parsed = self.text(key).parse().ok();
        self.or_report(
            key,
            parsed,
            "an address and a port such as \"127.0.0.1:8130\" or \"[::]:8129\"",
        )
    }

    fn millis(&mut self, key: &'static str, least: u64) -> Option<u64> {
        let parsed = parse_millis(self.text(key)).ok().filter(|millis| *millis >= least);
        self.or_report(
            key,
            parsed,
            &format!("a duration such as \"10s\" or \"250ms\", of at least {least}ms"),
        )
    }

    fn bytes(&mut self, key: &'static str, least: u64) -> Option<u64> {
        let parsed = parse_bytes(self.text(key)).ok().filter(|bytes| *bytes >= least);
        self.or_report(
            key,
            parsed,
            &format!("a size such as \"16 MiB\", of at least {least} bytes"),
        )
    }

    /// A size that must fit 32 bits, below 1 GiB.
    fn bytes_u32(&mut self, key: &'static str, least: u32) -> Option<u32> {
        let parsed = parse_bytes(self.text(key)).ok().and_then(|bytes| u32::try_from(bytes).ok());
        let parsed = parsed.filter(|bytes| (least..1 << 30).contains(bytes));
        self.or_report(
            key,
            parsed,
            &format!("a size such as \"16 MiB\", from {least} bytes to below 1 GiB"),
        )
    }

    fn count(&mut self, key: &'static str, least: u32) -> Option<u32> {
        let parsed = self.text(key).parse().ok().filter(|count| *count >= least);
        self.or_report(key, parsed, &format!("a whole number from {least} to {}", u32::MAX))
    }

    fn catalog_source(&mut self) -> Option<CatalogSource> {
        let parsed = match self.text("catalog_source") {
            "file" => Some(CatalogSource::File),
            "ledger" => Some(CatalogSource::Ledger),
            _ => None,
        };
        self.or_report("catalog_source", parsed, "\"file\" or \"ledger\"")
    }

    fn billing(&mut self) -> Option<Billing> {
        let parsed = match self.text("billing.schedule") {
            "off" => Some(Schedule::Off),
            "on" => Some(Schedule::On),
            _ => None,
        };
        let schedule = self.or_report("billing.schedule", parsed, "\"on\" or \"off\"");
        let grace_millis = self.millis("billing.grace", 0);
        let tax_service = self.url("billing.tax_service");
        Some(Billing {
            schedule: schedule?,
            grace_millis: grace_millis?,
            tax_service: tax_service?,
        })
    }

    fn archive(&mut self) -> Option<Archive> {
        let folder = match self.text("archive.folder") {
            "" => Some(None),
            _ => self.path("archive.folder").map(Some),
        };
        let url = self.archive_url();
        let every_millis = self.millis("archive.every", 10);
        let segment_bytes = self.bytes_u32("archive.segment_size", 64 << 10);
        let bodies_leave_after = self.millis("archive.bodies_leave_after", 0);
        let raw_events_rate = self.raw_events_rate();
        Some(Archive {
            folder: folder?,
            url: url?,
            every_millis: every_millis?,
            segment_bytes: segment_bytes?,
            bodies_leave_after_millis: bodies_leave_after?,
            raw_events_rate: raw_events_rate?,
        })
    }

    fn raw_events_rate(&mut self) -> Option<u32> {
        let rate = self.bytes_u32("archive.raw_events_rate", 0)?;
        let has_archive = ["archive.folder", "archive.url"].map(|key| !self.text(key).is_empty());
        let parsed = (rate == 0 || has_archive.contains(&true)).then_some(rate);
        let expected = "0, or, with an `archive.folder`, a size such as \"256 KiB\"";
        self.or_report("archive.raw_events_rate", parsed, expected)
    }

    fn archive_url(&mut self) -> Option<Option<String>> {
        let is_cloud = |url: &str| ["s3://", "gs://", "az://"].iter().any(|at| url.starts_with(at));
        let parsed = match self.text("archive.url") {
            "" => Some(None),
            _ if !self.text("archive.folder").is_empty() => None,
            url if is_cloud(url) && cfg!(feature = "cloud-archive") => Some(Some(url.to_owned())),
            _ => None,
        };
        let expected = if cfg!(feature = "cloud-archive") {
            "\"\", or, without `archive.folder`, an address such as \"s3://bucket/prefix\""
        } else {
            "\"\", and name `archive.folder`: this collector is built without `--features cloud-archive`"
        };
        self.or_report("archive.url", parsed, expected)
    }

    fn anchors(&mut self) -> Option<Anchors> {
        let file = match self.text("certificate.anchor_path") {
            "" => Some(None),
            _ => self.path("certificate.anchor_path").map(Some),
        };
        let url = self.url("certificate.anchor_url");
        Some(Anchors { file: file?, url: url? })
    }

    /// An address, or none.
    fn url(&mut self, key: &'static str) -> Option<Option<String>> {
        let parsed = match self.text(key) {
            "" => Some(None),
            url if url.starts_with("http://") => Some(Some(url.to_owned())),
            _ => None,
        };
        let expected = "\"\", or an address such as \"http://127.0.0.1:9000/path\"";
        self.or_report(key, parsed, expected)
    }

    fn reconcile(&mut self) -> Option<Reconcile> {
        let range_millis = self.millis("reconcile.range", 86_400_000);
        let every = match self.text("reconcile.every") {
            "off" => Some(None),
            text => parse_millis(text).ok().filter(|millis| *millis >= 1_000).map(Some),
        };
        let wanted = "\"off\", or a duration such as \"1h\", of at least 1s";
        let every_millis = self.or_report("reconcile.every", every, wanted);
        let expected = match self.text("reconcile.expected") {
            "" => Some(ExpectedSource::Nowhere),
            url if url.starts_with("http://") => Some(ExpectedSource::Url(url.to_owned())),
            _ => self.path("reconcile.expected").map(ExpectedSource::File),
        };
        Some(Reconcile {
            range_millis: range_millis?,
            expected: expected?,
            every_millis: every_millis?,
        })
    }

    fn log_format(&mut self) -> Option<LogFormat> {
        let parsed = match self.text("log_format") {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        };
        self.or_report("log_format", parsed, "\"text\" or \"json\"")
    }

    fn or_report<T>(&mut self, key: &'static str, parsed: Option<T>, expected: &str) -> Option<T> {
        if parsed.is_none() {
            let message = match self.text(key) {
                text if text.contains(PEM_BEGIN) => format!("`{key}` is the text of a PEM file"),
                text => format!("`{key}` is {text:?}"),
            };
            let (file, line) = match self.values.get(key).map(|value| &value.source) {
                Some(Source::File { file, line }) => (file.clone(), *line),
                Some(Source::Variable { name }) => (format!("the environment variable {name}"), 0),
                None => ("the default".to_owned(), 0),
            };
            self.found.push(Problem { file, line, message, remedy: format!("write {expected}") });
        }
        parsed
    }

    fn report_variable(&mut self, name: &str, message: String, remedy: &str) {
        let file = format!("the environment variable {name}");
        self.found.push(Problem { file, line: 0, message, remedy: remedy.to_owned() });
    }

    fn report_unknown(&mut self, name: &str, base: &str) {
        let known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
        let short = |name: &str| name.trim_start_matches(VARIABLE_PREFIX).to_owned();
        let names: Vec<String> = known.iter().map(|name| short(name)).collect();
        let remedy = match closest(&short(base), names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {VARIABLE_PREFIX}{near}?"),
            None => "`tidemark-collector config-reference` lists them".to_owned(),
        };
        self.report_variable(name, "it names no setting".to_owned(), &remedy);
    }
}
