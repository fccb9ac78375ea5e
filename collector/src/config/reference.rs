//! Every setting: its key, its default and what it means. The reference page is printed from here,
//! and the reader takes its defaults from here, so neither can drift from the other.

use std::fmt::Write;

/// How a setting's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `IP:PORT`.
    Address,
    /// `IP:PORT`, or one of these words.
    AddressOr(&'static [&'static str]),
    /// A file or folder; in the file, relative to the file's own folder.
    Path,
    /// `250ms`, `10s`, `5m`, `24h`, `35d`.
    Duration,
    /// The same, or one of these words.
    DurationOr(&'static [&'static str]),
    /// `64 KiB`, `16 MiB`.
    Size,
    /// A whole number.
    Count,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An address such as `http://127.0.0.1:9000/path`, or nothing.
    Url,
    /// A file, as above; or such an address; or nothing.
    PathOrUrl,
    /// Any text.
    Text,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// `section.key`, or `key` outside of any section.
    pub key: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn setting(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { key, kind, default, meaning }
}

/// All settings but `[[api.token]]`, in the order of the reference page.
pub const SETTINGS: [Setting; 52] = [
    setting(
        "data_dir",
        Kind::Path,
        "/var/lib/tidemark-collector",
        "The folder of `ledger.redb` and `totals.redb`.",
    ),
    setting(
        "catalog",
        Kind::Path,
        "/etc/tidemark/catalog.toml",
        "The catalogue file; read again on SIGHUP.",
    ),
    setting(
        "catalog_source",
        Kind::Choice(&["file", "ledger"]),
        "file",
        "Where the catalogue is kept: in that `file`, or in the `ledger`, where `tidemark-collector catalog apply` and `PUT /v1/catalog` change it; the file is then only what it begins with.",
    ),
    setting(
        "log_format",
        Kind::Choice(&["text", "json"]),
        "text",
        "How logs are written to standard error.",
    ),
    setting(
        "log_level",
        Kind::Text,
        "info",
        "Which logs are written: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,quinn=warn`.",
    ),
    setting(
        "shutdown_grace",
        Kind::Duration,
        "10s",
        "How long sessions and requests may take to end after SIGTERM.",
    ),
    setting(
        "billing.schedule",
        Kind::Choice(&["off", "on"]),
        "off",
        "With `on` the collector itself runs, once an hour, the billing of the last 7 days: what is issued already stays.",
    ),
    setting(
        "billing.grace",
        Kind::Duration,
        "0s",
        "How long after its end a period waits for late events before it is invoiced.",
    ),
    setting(
        "billing.tax_service",
        Kind::Url,
        "",
        "Where taxes of each document are asked for, over plain HTTP in a network of your own: an adapter to a tax service. Without it the catalogue says them.",
    ),
    setting(
        "archive.folder",
        Kind::Path,
        "",
        "The folder, on another disk, where what is admitted and booked is archived; without it nothing is. It is as secret as the ledger.",
    ),
    setting(
        "archive.url",
        Kind::Url,
        "",
        "In place of the folder, an object store: `s3://BUCKET/PREFIX`, `gs://..` or `az://..`, with credentials in the environment as the cloud's own tools read them. It needs a collector built with `--features cloud-archive`.",
    ),
    setting(
        "archive.every",
        Kind::Duration,
        "60s",
        "What there is is archived this often, and at once where a billing run waits for it.",
    ),
    setting(
        "archive.segment_size",
        Kind::Size,
        "16 MiB",
        "An object of the archive takes nothing further once it holds this much, which is held in memory.",
    ),
    setting(
        "archive.bodies_leave_after",
        Kind::Duration,
        "0s",
        "Bodies of batches leave the ledger once they are this old, their month is locked in the books, and the archive was seen to hold them; what needs one reads it there. With `0s` they stay.",
    ),
    setting(
        "archive.raw_events_rate",
        Kind::Size,
        "0 B",
        "Above 0, raw events of agents that keep them (`journal.raw_events_bytes_max`) are archived, so that single events can be looked up: at most so many bytes a second of one session, behind its batches.",
    ),
    setting(
        "certificate.anchor_path",
        Kind::Path,
        "",
        "A file that gets a line for each certificate: on a disk of somebody else's it shows that history was not rewritten. Without it there is none.",
    ),
    setting(
        "certificate.anchor_url",
        Kind::Url,
        "",
        "Where each certificate is sent by `POST`, over plain HTTP in a network of your own, until it is taken (2xx). Without it, nowhere.",
    ),
    setting(
        "reconcile.range",
        Kind::Duration,
        "400d",
        "How much time before its cut a reconciliation looks at.",
    ),
    setting(
        "reconcile.every",
        Kind::DurationOr(&["off"]),
        "1h",
        "How often the collector reconciles all by itself, for `/metrics` and its log; or `off`. Billing runs reconcile what they bill in any case.",
    ),
    setting(
        "reconcile.expected",
        Kind::PathOrUrl,
        "",
        "Who should report: a file of agents' names, one a line or as JSON; or the address of a service registry that answers such JSON, over plain HTTP in a network of your own. Who of it never registered is a finding.",
    ),
    setting("listen.quic", Kind::Address, "0.0.0.0:8129", "Where agents connect (UDP)."),
    setting(
        "listen.tcp",
        Kind::AddressOr(&["same", "off"]),
        "same",
        "Where agents connect whose network lets no UDP through (TLS over TCP): `same` address and port as `listen.quic`, `off`, or another address.",
    ),
    setting(
        "listen.http",
        Kind::Address,
        "127.0.0.1:8130",
        "Where the HTTP API listens (TCP, without TLS: keep it local or behind a proxy).",
    ),
    setting(
        "tls.ca",
        Kind::Path,
        "/etc/tidemark/ca.pem",
        "The CA that signs the agents' certificates.",
    ),
    setting(
        "tls.certificate",
        Kind::Path,
        "/etc/tidemark/collector.pem",
        "The collector's certificate and its chain.",
    ),
    setting("tls.key", Kind::Path, "/etc/tidemark/collector.key", "The collector's private key."),
    setting(
        "tls.renew_interval",
        Kind::Duration,
        "30s",
        "CA, certificate and key are read again this often, and on SIGHUP; what is new counts for sessions that begin after it.",
    ),
    setting(
        "session.sessions_max",
        Kind::Count,
        "10000",
        "At most this many agents are connected at once.",
    ),
    setting(
        "session.handshakes_max",
        Kind::Count,
        "1000",
        "At most this many connections are being made at once, over UDP and over TCP each; they count as agents once their certificate is verified.",
    ),
    setting(
        "session.sessions_per_identity_max",
        Kind::Count,
        "5000",
        "Of these agents, at most this many have one identity's certificates.",
    ),
    setting(
        "session.handshakes_per_address_max",
        Kind::Count,
        "250",
        "Of these connections, at most this many over UDP, and as many over TCP, are from one address; a /64 network of IPv6 counts as one.",
    ),
    setting(
        "session.age_max",
        Kind::Duration,
        "2h",
        "A session ends in good order after at most this long (the exact time is random) and begins anew at once, so that certificates are looked at again. Agents have a limit of their own.",
    ),
    setting(
        "session.confirm_interval",
        Kind::Duration,
        "10s",
        "How often agents are asked to confirm that all they accepted is here.",
    ),
    setting(
        "session.batches_in_flight_max",
        Kind::Count,
        "32",
        "At most this many batches of a session wait for their acknowledgement.",
    ),
    setting(
        "session.batch_bytes_in_flight_max",
        Kind::Size,
        "256 MiB",
        "Over all sessions, batches that take at most this much memory wait for their commit; further ones wait in their transports.",
    ),
    setting(
        "session.bodies_opened_max",
        Kind::Count,
        "4",
        "At most this many batch bodies are opened at once, each of up to 32 MiB.",
    ),
    setting(
        "session.handshake_max",
        Kind::Duration,
        "10s",
        "Time for a handshake, and again for the agent's first frame.",
    ),
    setting(
        "session.send_max",
        Kind::Duration,
        "30s",
        "Time in which an agent must read what it is sent.",
    ),
    setting(
        "session.keep_alive",
        Kind::Duration,
        "10s",
        "An idle session is kept open by a packet this often.",
    ),
    setting(
        "session.idle_max",
        Kind::Duration,
        "30s",
        "A session without any packet for this long has ended.",
    ),
    setting(
        "session.receive_window",
        Kind::Size,
        "1 MiB",
        "What a session's transport may hold unread.",
    ),
    setting(
        "ledger.requests_max",
        Kind::Count,
        "1024",
        "At most this many requests wait for the ledger's writer; sessions wait beyond.",
    ),
    setting(
        "ledger.group_bytes_max",
        Kind::Size,
        "16 MiB",
        "A commit takes no further batch once it holds this much, uncompressed.",
    ),
    setting(
        "ledger.fold_age",
        Kind::Duration,
        "5s",
        "Usage that is not in the totals yet is folded into them after at most this long.",
    ),
    setting("ledger.fold_lines_max", Kind::Count, "200000", "Or once this many batch lines wait."),
    setting(
        "ledger.tail_bytes_max",
        Kind::Size,
        "256 MiB",
        "Admission waits for the fold while what is not folded takes more memory than this.",
    ),
    setting(
        "ledger.silent_after",
        Kind::Duration,
        "30s",
        "A stream that did not confirm for this long is named as silent.",
    ),
    setting(
        "ledger.streams_max",
        Kind::Count,
        "1000000",
        "At most this many streams are known, but for those that retired; further ones wait for a person.",
    ),
    setting(
        "ledger.streams_per_hour_max",
        Kind::Count,
        "1000",
        "An identity may begin this many new streams at once, and as many an hour from then on; further ones wait. An agent that loses its journal begins one at each start.",
    ),
    setting("ledger.ledger_cache_bytes", Kind::Size, "32 MiB", "The page cache of `ledger.redb`."),
    setting("ledger.totals_cache_bytes", Kind::Size, "128 MiB", "The page cache of `totals.redb`."),
    setting(
        "streams.retire_after",
        Kind::Duration,
        "24h",
        "A stream whose agent left, and of which nothing is missing, leaves memory once it was not heard of for this long; it returns when its agent does.",
    ),
];

/// The setting of this key.
#[must_use]
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

impl Setting {
    /// The environment variable that overrides it: `TIDEMARK_COLLECTOR__LISTEN__QUIC`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{}{}", super::VARIABLE_PREFIX, self.key.to_ascii_uppercase().replace('.', "__"))
    }

    /// The default as it would stand in the file.
    #[must_use]
    pub fn default_toml(&self) -> String {
        match self.kind {
            Kind::Count => self.default.to_owned(),
            Kind::Address
            | Kind::AddressOr(_)
            | Kind::Path
            | Kind::Duration
            | Kind::DurationOr(_)
            | Kind::Size
            | Kind::Choice(_)
            | Kind::Url
            | Kind::PathOrUrl
            | Kind::Text => {
                format!("\"{}\"", self.default)
            }
        }
    }
}

/// The reference page's table, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from("| key | default | meaning |\n|---|---|---|\n");
    for setting in &SETTINGS {
        let choices = match setting.kind {
            Kind::Choice(words) => format!(" One of `{}`.", words.join("`, `")),
            Kind::Address
            | Kind::AddressOr(_)
            | Kind::Path
            | Kind::Duration
            | Kind::DurationOr(_)
            | Kind::Size
            | Kind::Count
            | Kind::Url
            | Kind::PathOrUrl
            | Kind::Text => String::new(),
        };
        // Writing to a string cannot fail.
        let _ignored = writeln!(
            page,
            "| `{}` | `{}` | {}{choices} |",
            setting.key,
            setting.default_toml(),
            setting.meaning
        );
    }
    page.push_str(
        "| `[[api.token]]` | none | Who may use the API: `name`, and `token` (16 characters or more), `token_file` or \
         `token_sha256` (64 hexadecimal digits, as of `printf %s TOKEN \\| sha256sum`). With `customer` it sees that \
         customer alone, else everything. Without any, the API answers 401. |\n\n\
         A relative path is meant from the configuration file's folder. \
         `TIDEMARK_COLLECTOR__SECTION__KEY` in the environment overrides a key, and the same with `_FILE` \
         appended names a file that holds the value; `TIDEMARK_COLLECTOR__API__TOKEN` (or `_FILE`) adds a token \
         called `environment`. Unknown keys are errors.\n",
    );
    page
}
