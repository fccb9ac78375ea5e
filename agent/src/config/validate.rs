//! The configuration from its keys, and the rules between keys.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidemark_common::batch::BODY_LINES_MAX;
use tidemark_common::id::{self, DIMENSIONS_MAX, MeterName};

use crate::intake::datagram::SOCKETS_MAX;
use crate::journal::JOURNAL_BYTES_MIN;
use crate::parse::naming::{Naming, NamingError, NamingOptions, Patterns};
use crate::uplink::chooser::{Transport, TransportChoice};

use super::reader::Reader;
use super::source::{Located, Place, Value};
use super::{
    Admin, Config, Doors, Events, Journal, LogFormat, LogLevel, PemSource, SeedMeter, SeedRules,
    Uplink, value,
};

/// A door of one kind listens on at most this many addresses.
const ADDRESSES_MAX: usize = 16;
/// The kernel takes a receive buffer's size as a signed 32-bit number and doubles it.
const RECEIVE_BUFFER_BYTES_MAX: u64 = 1 << 30;
/// A collector may be listed among at most this many.
const COLLECTORS_MAX: usize = 16;
/// A seed names at most this many meters.
const SEED_METERS_MAX: usize = 10_000;

/// A body takes at most this many lines.
const OPEN_LINES_MAX: u64 = BODY_LINES_MAX as u64;

pub(super) fn config(reader: &mut Reader<'_>) -> Config {
    Config {
        doors: doors(reader),
        naming: naming(reader),
        forward: reader.optional("forward.address", value::forward_address),
        events: events(reader),
        journal: journal(reader),
        uplink: uplink(reader),
        rules: SeedRules { seed: seed(reader) },
        admin: Admin { listen: reader.address("admin.listen") },
        shutdown_grace: at_least(reader, "shutdown_grace", Duration::from_millis(1)),
        log_format: [LogFormat::Text, LogFormat::Json][reader.choice("log_format")],
        log_level: [
            LogLevel::Error,
            LogLevel::Warn,
            LogLevel::Info,
            LogLevel::Debug,
            LogLevel::Trace,
        ][reader.choice("log_level")],
    }
}

fn doors(reader: &mut Reader<'_>) -> Doors {
    let doors = Doors {
        udp: listening(reader, "doors.udp"),
        unix_datagram: reader.optional_path("doors.unix_datagram"),
        dsd_stream: reader.optional_path("doors.dsd_stream"),
        events: reader.optional_path("doors.events"),
        http: listening(reader, "doors.http"),
        http_token: reader.secret("doors.http_token"),
        socket_mode: reader.mode("doors.socket_mode"),
        peer_uids: reader.uids("doors.peer_uids"),
        receive_buffer_bytes: fitting(
            reader,
            "doors.receive_buffer_bytes",
            Reader::bytes,
            RECEIVE_BUFFER_BYTES_MAX,
        ),
    };
    let datagram_sockets =
        doors.udp.len().saturating_add(usize::from(doors.unix_datagram.is_some()));
    if datagram_sockets > SOCKETS_MAX {
        let message =
            format!("{datagram_sockets} datagram sockets are too many; {SOCKETS_MAX} are served");
        reader.problem("doors.udp", message, "remove some addresses, or listen on [::]");
    }
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let sockets = [
        ("doors.unix_datagram", &doors.unix_datagram),
        ("doors.dsd_stream", &doors.dsd_stream),
        ("doors.events", &doors.events),
    ];
    for (key, path) in sockets {
        if let Some(path) = path
            && !seen.insert(path.clone())
        {
            reader.problem(
                key,
                format!("{} is another door's socket", path.display()),
                "give each door a socket of its own",
            );
        }
    }
    doors
}

fn listening(reader: &mut Reader<'_>, path: &str) -> Vec<SocketAddr> {
    let addresses = reader.addresses(path);
    let mut seen = BTreeSet::new();
    for address in &addresses {
        // Port 0 asks for any free one, so it may stand there twice.
        if address.port() != 0 && !seen.insert(*address) {
            reader.problem(path, format!("{address} is given twice"), "remove one of the two");
        }
    }
    if addresses.len() > ADDRESSES_MAX {
        let message =
            format!("holds {} addresses; at most {ADDRESSES_MAX} are allowed", addresses.len());
        reader.problem(path, message, "remove some, or listen on [::]");
    }
    addresses
}

fn naming(reader: &mut Reader<'_>) -> NamingOptions {
    let options = NamingOptions {
        customer_tag: reader.text("naming.customer_tag"),
        id_tag: reader.text("naming.id_tag"),
        source_tag: reader.text("naming.source_tag"),
        source_count_tag: reader.text("naming.source_count_tag"),
        customer_default: reader.optional("naming.customer_default", |text| Ok(text.to_owned())),
        name_patterns: reader.texts("naming.name_patterns"),
        metered: reader.texts("naming.metered"),
    };
    if let Err(error) = Naming::new(&options) {
        let (key, remedy) = match &error {
            NamingError::Tag { key, .. } => (*key, "give each of the four tags a name of its own"),
            NamingError::CustomerDefault { .. } => {
                ("customer_default", "write 1 to 128 bytes of printable text")
            }
            NamingError::NamePattern { .. } => (
                "name_patterns",
                "write {customer} and {meter} once each, with text between them: \"{customer}.{meter}\"",
            ),
            NamingError::Metered { .. } | NamingError::MeteredEmpty => (
                "metered",
                "write names, with * for any text and a leading ! for what is not usage: [\"*\", \"!datadog.*\"]",
            ),
        };
        reader.problem(&format!("naming.{key}"), error.to_string(), remedy);
    }
    options
}

fn events(reader: &mut Reader<'_>) -> Events {
    let negative = reader.texts("events.negative");
    if let Err(error) = Patterns::parse(&negative) {
        reader.problem(
            "events.negative",
            error.to_string(),
            "write names of meters, with * for any text: [\"credits.*\"]",
        );
    }
    Events {
        future_max: reader.duration("events.future_max"),
        age_max: at_least(reader, "events.age_max", Duration::from_secs(1)),
        negative,
    }
}

fn journal(reader: &mut Reader<'_>) -> Journal {
    let journal = Journal {
        path: reader.path("journal.path"),
        bytes_max: reader.bytes("journal.bytes_max"),
        linger: reader.duration("journal.linger"),
        linger_max: reader.duration("journal.linger_max"),
        retain_acked: reader.duration("journal.retain_acked"),
        retain_acked_bytes_max: reader.bytes("journal.retain_acked_bytes_max"),
        ids_max: fitting(reader, "journal.ids_max", Reader::count, 100_000_000),
        ids_window: reader.duration("journal.ids_window"),
        dead_letters_max: fitting(reader, "journal.dead_letters_max", Reader::count, 10_000_000),
        dead_letter_bytes_max: fitting(
            reader,
            "journal.dead_letter_bytes_max",
            Reader::bytes,
            1 << 30,
        ),
        raw_events_bytes_max: reader.bytes("journal.raw_events_bytes_max"),
        open_lines_max: fitting(reader, "journal.open_lines_max", Reader::count, OPEN_LINES_MAX),
        open_chunk_bytes_max: reader.bytes("journal.open_chunk_bytes_max"),
    };
    if journal.bytes_max < JOURNAL_BYTES_MIN {
        reader.problem(
            "journal.bytes_max",
            format!("{} bytes is too small a journal", journal.bytes_max),
            format!("give it at least {}MiB", JOURNAL_BYTES_MIN >> 20),
        );
    }
    if journal.linger > journal.linger_max && reader.is_sound("journal.linger_max") {
        reader.problem(
            "journal.linger",
            format!("{:?} is longer than linger_max, {:?}", journal.linger, journal.linger_max),
            "raise linger_max or lower linger",
        );
    }
    if journal.linger_max > Duration::from_secs(1) {
        reader.problem(
            "journal.linger_max",
            format!("{:?} is too long", journal.linger_max),
            "give it at most 1s: what waits is not durable",
        );
    }
    let empty = [
        ("journal.open_lines_max", journal.open_lines_max == 0),
        ("journal.open_chunk_bytes_max", journal.open_chunk_bytes_max == 0),
    ];
    for (path, _) in empty.into_iter().filter(|(_, empty)| *empty) {
        reader.problem(
            path,
            "0 leaves no room for a batch",
            "give it 1 or more, or remove it for the default",
        );
    }
    journal
}

fn uplink(reader: &mut Reader<'_>) -> Uplink {
    let collectors = reader.collectors("uplink.collectors");
    if collectors.is_empty() {
        reader.problem(
            "uplink.collectors",
            "names no collector",
            "name the one that this agent ships to: [\"collector.example.com:8129\"]",
        );
    }
    if collectors.len() > COLLECTORS_MAX {
        let message =
            format!("holds {} addresses; at most {COLLECTORS_MAX} are allowed", collectors.len());
        reader.problem("uplink.collectors", message, "remove some");
    }
    Uplink {
        server_name: reader.optional("uplink.server_name", |text| Ok(text.to_owned())),
        transport: [
            TransportChoice::Auto,
            TransportChoice::Only(Transport::Quic),
            TransportChoice::Only(Transport::Tcp),
        ][reader.choice("uplink.transport")],
        quic_probe_interval: at_least(
            reader,
            "uplink.quic_probe_interval",
            Duration::from_millis(100),
        ),
        ca: pem(reader, "uplink.ca", "uplink.ca_pem", |reader, path| {
            reader.optional(path, |text| Ok(text.to_owned()))
        }),
        certificate: pem(reader, "uplink.certificate", "uplink.certificate_pem", |reader, path| {
            reader.optional(path, |text| Ok(text.to_owned()))
        }),
        key: pem(reader, "uplink.key", "uplink.key_pem", |reader, path| {
            reader.secret(path).map(|secret| secret.reveal().to_owned())
        }),
        renew_interval: at_least(reader, "uplink.renew_interval", Duration::from_millis(100)),
        session_age_max: at_least(reader, "uplink.session_age_max", Duration::from_secs(1)),
        collectors,
    }
}

/// One of a file and an inline text: exactly one must be given.
fn pem(
    reader: &mut Reader<'_>,
    file: &str,
    inline: &str,
    read: impl Fn(&mut Reader<'_>, &str) -> Option<String>,
) -> PemSource {
    match (reader.optional_path(file), read(reader, inline)) {
        (Some(path), None) => PemSource::File(path),
        (None, Some(text)) => PemSource::Inline(text),
        (Some(path), Some(_)) => {
            reader.problem(inline, format!("`{file}` is given too"), "give one of the two");
            PemSource::File(path)
        }
        (None, None) => {
            reader.problem(
                file,
                "is missing",
                format!("give the path of a PEM file, or the text itself in `{inline}`"),
            );
            PemSource::Inline(String::new())
        }
    }
}

fn at_least(reader: &mut Reader<'_>, path: &str, least: Duration) -> Duration {
    let duration = reader.duration(path);
    if duration < least {
        reader.problem(
            path,
            format!("{duration:?} is too short"),
            format!("give it at least {least:?}"),
        );
    }
    duration
}

/// A number within what its part can hold.
fn fitting<'a>(
    reader: &mut Reader<'a>,
    path: &str,
    read: fn(&mut Reader<'a>, &str) -> u64,
    most: u64,
) -> usize {
    let given = read(reader, path);
    if given > most {
        reader.problem(path, format!("{given} is too large"), format!("give it at most {most}"));
    }
    usize::try_from(given.min(most)).unwrap_or(usize::MAX)
}

fn seed(reader: &mut Reader<'_>) -> Vec<SeedMeter> {
    let tables = reader.tables("rules.seed");
    if tables.len() > SEED_METERS_MAX {
        reader.problem(
            "rules.seed",
            format!("names {} meters", tables.len()),
            format!("name at most {SEED_METERS_MAX}"),
        );
    }
    let mut meters: Vec<SeedMeter> = Vec::new();
    for (place, fields) in tables {
        if let Some(meter) = seed_meter(reader, &place, fields) {
            if meters.iter().any(|other| other.meter == meter.meter) {
                reader.problem_at(
                    &place,
                    "rules.seed",
                    format!("names {} twice", meter.meter),
                    "remove one of the two",
                );
            }
            meters.push(meter);
        }
    }
    meters.sort_by(|a, b| a.meter.cmp(&b.meter));
    meters
}

fn seed_meter(
    reader: &mut Reader<'_>,
    place: &Place,
    fields: Vec<(String, Located)>,
) -> Option<SeedMeter> {
    let mut meter = None;
    let mut dimensions = Vec::new();
    for (name, field) in fields {
        match (name.as_str(), field.value) {
            ("meter", Value::Text(text)) => match MeterName::parse(&text) {
                Ok(parsed) => meter = Some(parsed),
                Err(error) => {
                    let message = format!("the meter {text:?} {error}");
                    reader.problem_at(
                        &field.place,
                        "rules.seed",
                        message,
                        "write 1 to 64 bytes of a-z, 0-9, '_', '.' and '-', a letter first",
                    );
                    return None;
                }
            },
            ("dimensions", Value::List(names)) => {
                dimensions = seed_dimensions(reader, &field.place, names)
            }
            ("meter" | "dimensions", other) => {
                let message = format!("`{name}` is {}", other.words());
                reader.problem_at(
                    &field.place,
                    "rules.seed",
                    message,
                    "write meter = \"name\" and dimensions = [\"name\"]",
                );
                return None;
            }
            _ => {
                let message = format!("there is no key `{name}` in a seed");
                reader.problem_at(
                    &field.place,
                    "rules.seed",
                    message,
                    "a seed has `meter` and `dimensions`",
                );
            }
        }
    }
    let Some(meter) = meter else {
        reader.problem_at(
            place,
            "rules.seed",
            "a seed names no meter".to_owned(),
            "add meter = \"name\"",
        );
        return None;
    };
    Some(SeedMeter { meter, dimensions })
}

fn seed_dimensions(reader: &mut Reader<'_>, place: &Place, names: Vec<Located>) -> Vec<String> {
    let mut dimensions = BTreeSet::new();
    let count = names.len();
    for name in names {
        match name.value {
            Value::Text(text) if id::check_dimension_name(&text).is_ok() => {
                dimensions.insert(text);
            }
            other => {
                let message = format!(
                    "{} is not a dimension's name",
                    if let Value::Text(text) = &other {
                        format!("{text:?}")
                    } else {
                        other.words().to_owned()
                    }
                );
                reader.problem_at(
                    &name.place,
                    "rules.seed",
                    message,
                    "write 1 to 64 bytes of printable text",
                );
            }
        }
    }
    if count > DIMENSIONS_MAX {
        reader.problem_at(
            place,
            "rules.seed",
            format!("{count} dimensions are too many"),
            "name at most 16",
        );
    }
    dimensions.into_iter().collect()
}
