//! Every key there is: its kind, default and meaning.
//!
//! **Owns** the one table that values are looked up in, defaults come from and the documentation is
//! printed from, so that the three cannot disagree. **Does not own** the rules of single kinds
//! (`value.rs`) or those between keys (`validate.rs`).

use std::fmt::Write as _;

use super::VARIABLE_PREFIX;

/// One configuration key.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, or `key` at the top level.
    pub path: &'static str,
    pub kind: Kind,
    /// As written in TOML; `None`: must be given (or see the meaning).
    pub default: Option<&'static str>,
    pub meaning: &'static str,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Never shown; `KEY_file` names a file that holds it.
    Secret,
    Texts,
    Path,
    /// A path, or empty for "none".
    OptionalPath,
    Address,
    Addresses,
    /// `host:port`, the host may be a name.
    Collectors,
    Duration,
    Bytes,
    Count,
    Mode,
    /// Numbers of users.
    Uids,
    Choice(&'static [&'static str]),
    /// Tables of `meter` and `dimensions`.
    Seed,
}

impl Kind {
    /// The kind in words, for the reference.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Secret => "text, secret".to_owned(),
            Self::Texts => "list of texts".to_owned(),
            Self::Path => "path".to_owned(),
            Self::OptionalPath => "path, empty = none".to_owned(),
            Self::Address => "address:port".to_owned(),
            Self::Addresses => "list of address:port, empty = off".to_owned(),
            Self::Collectors => "list of host:port".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Bytes => "size".to_owned(),
            Self::Count => "number".to_owned(),
            Self::Mode => "octal text".to_owned(),
            Self::Uids => "list of numbers".to_owned(),
            Self::Choice(words) => words.join(" or "),
            Self::Seed => "list of tables".to_owned(),
        }
    }
}

const fn key(path: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, default: Some(default), meaning }
}

const fn needed(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { path, kind, default: None, meaning }
}

/// All keys, in the order in which the reference shows them.
pub const KEYS: &[Key] = &[
    key(
        "shutdown_grace",
        Kind::Duration,
        r#""30s""#,
        "From SIGTERM to the end: half of it at most with the doors open, the rest to seal, ship and close. What could not be shipped stays on disk.",
    ),
    key(
        "log_format",
        Kind::Choice(&["text", "json"]),
        r#""text""#,
        "How logs are written to standard error.",
    ),
    key(
        "log_level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        r#""info""#,
        "The least severe log line that is written.",
    ),
    // Doors.
    key(
        "doors.udp",
        Kind::Addresses,
        r#"["127.0.0.1:8125", "[::1]:8125"]"#,
        "DogStatsD over UDP. Loss is measured, not prevented.",
    ),
    key(
        "doors.unix_datagram",
        Kind::OptionalPath,
        r#""/run/tidemark/dsd.socket""#,
        "DogStatsD over a Unix datagram socket.",
    ),
    key(
        "doors.dsd_stream",
        Kind::OptionalPath,
        r#""/run/tidemark/dsd-stream.socket""#,
        "DogStatsD over a Unix stream socket (4-byte little-endian length, then the payload).",
    ),
    key(
        "doors.events",
        Kind::OptionalPath,
        r#""/run/tidemark/events.socket""#,
        "JSON or DogStatsD lines over a Unix stream socket, acknowledged after fsync.",
    ),
    key(
        "doors.http",
        Kind::Addresses,
        r#"["127.0.0.1:8127", "[::1]:8127"]"#,
        "CloudEvents over HTTP (POST /api/v1/events), acknowledged after fsync.",
    ),
    key(
        "doors.http_token",
        Kind::Secret,
        r#""""#,
        "The bearer token that the HTTP door asks for. Empty: none is asked for. `http_token_file` names a file that holds it.",
    ),
    key(
        "doors.socket_mode",
        Kind::Mode,
        r#""0722""#,
        "Permission bits of the socket files. To send needs the permission to write.",
    ),
    key(
        "doors.peer_uids",
        Kind::Uids,
        "[]",
        "The users (`id -u NAME`) whose processes may connect to the two stream sockets; others are closed at once and counted as forbidden. Empty: whoever the permissions let in. Not for the datagram socket.",
    ),
    key(
        "doors.receive_buffer_bytes",
        Kind::Bytes,
        r#""8MiB""#,
        "The receive buffer asked of the kernel for each datagram socket. Less than asked is a warning: raise net.core.rmem_max.",
    ),
    // Naming.
    key(
        "naming.customer_tag",
        Kind::Text,
        r#""customer""#,
        "The DogStatsD tag that names the customer.",
    ),
    key("naming.id_tag", Kind::Text, r#""id""#, "The DogStatsD tag that holds the idempotency id."),
    key(
        "naming.source_tag",
        Kind::Text,
        r#""source""#,
        "The DogStatsD tag that names the producer.",
    ),
    key(
        "naming.source_count_tag",
        Kind::Text,
        r#""source_seq""#,
        "The DogStatsD tag that holds the producer's own counter; gaps in it are reported.",
    ),
    key(
        "naming.customer_default",
        Kind::Text,
        r#""""#,
        "Who is billed for an event that names no customer. Empty: such an event is rejected.",
    ),
    key(
        "naming.name_patterns",
        Kind::Texts,
        "[]",
        "For clients without tags: how meter and customer stand in a metric's name, such as `{customer}.{meter}`. The first that fits is used.",
    ),
    key(
        "naming.metered",
        Kind::Texts,
        r#"["*", "!datadog.*"]"#,
        "Which metric names are usage; `*` stands for any text, a leading `!` excludes. What does not match is counted as not metered.",
    ),
    key(
        "forward.address",
        Kind::Text,
        r#""""#,
        "Where DogStatsD lines that are not metered go, unchanged: another server's `address:port` (UDP) or `unix:///path` (datagrams). Empty: nowhere. It may not be a door of this agent; nor may that server send them back here.",
    ),
    // Events.
    key(
        "events.future_max",
        Kind::Duration,
        r#""5m""#,
        "An event further ahead of the clock is rejected as in_future.",
    ),
    key("events.age_max", Kind::Duration, r#""35d""#, "An older event is rejected as too_old."),
    key(
        "events.negative",
        Kind::Texts,
        "[]",
        "Meters whose quantities may be below zero, besides those that the collector's catalogue names; `*` stands for any text.",
    ),
    // Journal.
    key(
        "journal.path",
        Kind::Path,
        r#""/var/lib/tidemark-agent/journal.redb""#,
        "The journal's file. It must be on a local disk that outlives the process.",
    ),
    key(
        "journal.bytes_max",
        Kind::Bytes,
        r#""2GiB""#,
        "The file's greatest length. Give it at least 2.2 times the backlog that it is meant to hold. At the limit acknowledged doors push back and the others count what they refuse.",
    ),
    key(
        "journal.linger",
        Kind::Duration,
        r#""5ms""#,
        "How long a commit waits for company while an acknowledgement waits for it.",
    ),
    key(
        "journal.linger_max",
        Kind::Duration,
        r#""50ms""#,
        "How long a commit waits for company otherwise.",
    ),
    key(
        "journal.retain_acked",
        Kind::Duration,
        r#""24h""#,
        "How long posted batches are kept, so that a collector restored from a backup can ask for them again.",
    ),
    key(
        "journal.retain_acked_bytes_max",
        Kind::Bytes,
        r#""256MiB""#,
        "How much of them is kept. At the journal's limit they go first.",
    ),
    key("journal.ids_max", Kind::Count, "400000", "How many idempotency ids are remembered."),
    key(
        "journal.ids_window",
        Kind::Duration,
        r#""24h""#,
        "How long an idempotency id is remembered.",
    ),
    key(
        "journal.dead_letters_max",
        Kind::Count,
        "10000",
        "How many rejected events are kept; the oldest go first.",
    ),
    key(
        "journal.dead_letter_bytes_max",
        Kind::Bytes,
        r#""16MiB""#,
        "How many bytes of rejected events are kept together.",
    ),
    key(
        "journal.raw_events_bytes_max",
        Kind::Bytes,
        r#""0""#,
        "Above 0, the events of sealed batches are kept until the collector has archived them, so that single ones can be looked up later (`GET /v1/customers/{id}/events`): at most this many bytes of them, the oldest go first. At the journal's limit they go before anything else. The collector must have `archive.raw_events`.",
    ),
    key(
        "journal.open_lines_max",
        Kind::Count,
        "100000",
        "A batch with this many lines (distinct meter, customer, dimensions and quarter of an hour) is sealed even while the collector is away; and so is one that takes 8 MiB of memory, some 35,000 lines.",
    ),
    key(
        "journal.open_chunk_bytes_max",
        Kind::Bytes,
        r#""32MiB""#,
        "A batch of which the journal holds this many bytes of events is sealed even while the collector is away. Bounds the time that a start after a crash takes.",
    ),
    // Uplink.
    needed(
        "uplink.collectors",
        Kind::Collectors,
        "Where the collector listens (one port for both UDP and TCP). Several addresses, of one ledger, are tried in turn: the next one whenever a session ends. Must be given.",
    ),
    key(
        "uplink.server_name",
        Kind::Text,
        r#""""#,
        "The name that the collector's certificate must bear. Empty: the host in `collectors`.",
    ),
    key(
        "uplink.transport",
        Kind::Choice(&["auto", "quic", "tcp"]),
        r#""auto""#,
        "What sessions go over. `auto`: QUIC (UDP), and TLS over TCP where QUIC finds silence for two seconds.",
    ),
    key(
        "uplink.quic_probe_interval",
        Kind::Duration,
        r#""1m""#,
        "While a session goes over TCP for want of QUIC, QUIC is tried beside it between half of this time and all of it; when it gets through, the session moves.",
    ),
    key(
        "uplink.ca",
        Kind::OptionalPath,
        r#""""#,
        "The file of the certificates (PEM) that sign collectors. This or `ca_pem` must be given.",
    ),
    key(
        "uplink.certificate",
        Kind::OptionalPath,
        r#""""#,
        "The file of the agent's certificate chain (PEM) with the URI name tidemark://agent/NAME. This or `certificate_pem` must be given.",
    ),
    key(
        "uplink.key",
        Kind::OptionalPath,
        r#""""#,
        "The file of the agent's private key (PEM). This or `key_pem` must be given.",
    ),
    key("uplink.ca_pem", Kind::Text, r#""""#, "The certificates of `ca` themselves."),
    key(
        "uplink.certificate_pem",
        Kind::Text,
        r#""""#,
        "The certificate chain of `certificate` itself.",
    ),
    key("uplink.key_pem", Kind::Secret, r#""""#, "The private key of `key` itself."),
    key(
        "uplink.renew_interval",
        Kind::Duration,
        r#""30s""#,
        "Certificates and key are read again this often; what is new counts from the next session on.",
    ),
    key(
        "uplink.session_age_max",
        Kind::Duration,
        r#""1h""#,
        "A session is begun anew after at most this long (the exact time is random), so that sessions spread over collectors.",
    ),
    // Rules and admin.
    key(
        "rules.seed",
        Kind::Seed,
        "[]",
        "Meters with the dimensions that are kept, as `[[rules.seed]]` tables of `meter` and `dimensions`. They open the HTTP door before the collector has been heard for the first time; its rules replace them.",
    ),
    key(
        "admin.listen",
        Kind::Address,
        r#""127.0.0.1:8128""#,
        "Where /metrics, /healthz, /readyz and /status are answered, and to this machine alone /dead-letters, /prepare-stop, /inspect and /fsck. It asks for no password: keep it off public addresses.",
    ),
];

/// The key at `path`.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The sections, in the reference's order.
pub fn sections() -> impl Iterator<Item = &'static str> {
    let mut before = "";
    KEYS.iter().filter_map(move |key| {
        let section = key.section();
        let new = section != before;
        before = section;
        (new && !section.is_empty()).then_some(section)
    })
}

impl Key {
    /// The part before the dot; empty at the top level.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// The part after the dot.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The environment variable that is laid over it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path.to_uppercase().replace('.', "__"))
    }
}

/// The reference as Markdown, one table a section.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    let mut before = None;
    for key in KEYS {
        if before != Some(key.section()) {
            before = Some(key.section());
            let heading = match key.section() {
                "" => "### Top level".to_owned(),
                section => format!("### `[{section}]`"),
            };
            push(
                &mut out,
                format_args!(
                    "\n{heading}\n\n| key | kind | default | meaning |\n|---|---|---|---|\n"
                ),
            );
        }
        let default =
            key.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
        push(
            &mut out,
            format_args!(
                "| `{}` | {} | {default} | {} |\n",
                key.name(),
                key.kind.words(),
                key.meaning
            ),
        );
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String does not fail");
}

const INTRODUCTION: &str = "\
## Configuration of tidemark-agent

One TOML file. `TIDEMARK_AGENT__SECTION__KEY` in the environment is laid over `[section] key`
(`TIDEMARK_AGENT__KEY` over a key at the top level; lists are separated by commas), and the same
name with `_FILE` at its end names a file that holds the value. Durations are a whole number and a
unit (`5ms`, `10s`, `5m`, `24h`, `35d`); sizes are a whole number of bytes or a number and a unit
(`64KiB`, `8MiB`, `1GiB`; `KB`, `MB`, `GB` for powers of ten). Relative paths are meant from the
file's folder. Unknown keys are errors. Without `--config` the file is `/etc/tidemark/agent.toml`; where that
is not there, variables alone are enough (`TIDEMARK_AGENT__UPLINK__CA_PEM` and the like hold what files would).
";
