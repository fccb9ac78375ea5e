//! A status as text for people: what is wrong first, then the figures in columns.

use std::fmt::Write as _;

use super::{DoorStatus, Forward, Status, trouble};
use crate::paint::Paint;

/// The width of the column of names.
const NAME_WIDTH: usize = 13;

/// What is gone sooner is on its way as ever.
const DRAIN_SHOWN_MILLIS_MIN: u64 = 5_000;

/// Beyond 30 days, the growth of some minutes says nothing of when the journal is full.
const TIME_TO_FULL_MILLIS_MAX: u64 = 30 * 86_400_000;

/// The whole text, ending in a newline.
#[must_use]
pub fn human(status: &Status, paint: Paint) -> String {
    let mut page = Page { text: String::new(), paint };
    let troubles = trouble::find(status);
    match troubles.split_first() {
        None => page.line(format_args!("{} {}", paint.good("OK."), well(status))),
        Some((first, others)) => {
            page.line(format_args!("{}", paint.bad(&first.what)));
            page.line(format_args!("  {}", first.remedy));
            for other in others {
                page.line(format_args!("{} {}", paint.warned("Also:"), other.what));
                page.line(format_args!("  {}", other.remedy));
            }
        }
    }
    if status.stop_is_near {
        page.line(format_args!(
            "It was told that a stop is near, and seals ten times a second until then."
        ));
    }
    page.line(format_args!(""));
    events(&mut page, status);
    session(&mut page, status);
    journal(&mut page, status);
    doors(&mut page, status);
    page.text
}

fn well(status: &Status) -> String {
    match status.events.in_transit() {
        0 => format!("{}; everything accepted is posted.", sentence(status.session.state.name())),
        waiting => format!(
            "{}; {} on the way.",
            sentence(status.session.state.name()),
            plural(waiting, "event", "events")
        ),
    }
}

fn events(page: &mut Page, status: &Status) {
    let events = &status.events;
    page.row("accepted", format_args!("{} events", grouped(events.accepted)));
    page.row("posted", format_args!("{} events", grouped(events.posted)));
    let oldest = match status.backlog.oldest_unposted_age_millis {
        Some(millis) if events.in_transit() > 0 => format!(", the oldest for {}", age(millis)),
        Some(_) | None => String::new(),
    };
    let gone = match status.backlog.drain_estimate_millis {
        Some(millis) if millis >= DRAIN_SHOWN_MILLIS_MIN => {
            format!("; posted in {} at the present rate", age(millis))
        }
        Some(_) | None => String::new(),
    };
    page.row(
        "in transit",
        format_args!(
            "{} events ({} not sealed, {} in {}){oldest}{gone}",
            grouped(events.in_transit()),
            grouped(events.in_chunks),
            grouped(events.in_unposted_batches),
            plural(status.backlog.batches, "batch", "batches"),
        ),
    );
    page.row("rejected", format_args!("{} events", grouped(events.rejected_total())));
    for (reason, count) in &events.rejected {
        page.row("", format_args!("{reason} {}", grouped(*count)));
    }
    if events.replayed > 0 {
        let replayed = plural(events.replayed, "event", "events");
        page.row("replayed", format_args!("{replayed}: rejected at first, accepted since"));
    }
    page.row("duplicates", format_args!("{} events", grouped(events.duplicates)));
    page.row("not metered", format_args!("{} metrics", grouped(events.not_metered)));
    let Forward { forwarded, forward_dropped } = status.forward;
    if forwarded > 0 || forward_dropped > 0 {
        let (sent, dropped) = (grouped(forwarded), grouped(forward_dropped));
        page.row("forwarded", format_args!("{sent} lines, {dropped} could not be"));
    }
    page.row(
        "lost before",
        format_args!(
            "{} dropped by the kernel, {} missing in numbered sources",
            plural(events.kernel_drops, "datagram", "datagrams"),
            plural(events.source_gaps, "event", "events"),
        ),
    );
}

fn session(page: &mut Page, status: &Status) {
    let session = &status.session;
    let collector = session.collector.as_deref().unwrap_or("no collector");
    let rtt =
        session.rtt_micros.map_or_else(String::new, |rtt| format!(", round trip {}", micros(rtt)));
    let over = session
        .transport
        .as_deref()
        .map_or_else(String::new, |transport| format!(" over {transport}"));
    let paused = if session.paused { ", asked to pause" } else { "" };
    page.row(
        "session",
        format_args!(
            "{} for {}, {collector}{over}{rtt}{paused}",
            session.state.name(),
            age(session.since_age_millis)
        ),
    );
    page.row(
        "sequences",
        format_args!(
            "{} posted, {} sealed, {} in flight",
            grouped(status.backlog.posted_sequence),
            grouped(status.backlog.sealed_sequence),
            grouped(session.in_flight),
        ),
    );
    page.row("stream", format_args!("{}", status.stream));
    page.row(
        "ledger",
        format_args!(
            "{}",
            status.ledger.as_deref().unwrap_or("none yet: no collector has answered")
        ),
    );
}

fn journal(page: &mut Page, status: &Status) {
    let journal = &status.journal;
    let full = match journal.time_to_full_millis {
        _ if journal.full => ", FULL".to_owned(),
        Some(millis) if millis <= TIME_TO_FULL_MILLIS_MAX => {
            format!(", full in {} at its present growth", age(millis))
        }
        Some(_) | None => String::new(),
    };
    page.row(
        "journal",
        format_args!(
            "the file has {}, {} of it in use; it may grow to {}{full}",
            bytes(journal.bytes),
            bytes(journal.live_bytes.min(journal.bytes)),
            bytes(journal.bytes_max)
        ),
    );
    page.row(
        "kept",
        format_args!(
            "{} posted ({}), {}",
            plural(journal.retained_batches, "batch", "batches"),
            bytes(journal.retained_bytes),
            plural(journal.dead_letters, "dead letter", "dead letters"),
        ),
    );
    let raw = journal.raw_events;
    if raw.batches > 0 || raw.given_up > 0 {
        let given_up = match raw.given_up {
            0 => String::new(),
            batches => {
                format!("; those of {} left unarchived", plural(batches, "batch", "batches"))
            }
        };
        page.row(
            "raw events",
            format_args!(
                "of {} ({}) wait for the archive{given_up}",
                plural(raw.batches, "batch", "batches"),
                bytes(raw.bytes)
            ),
        );
    }
    let fsync = &status.fsync;
    page.row(
        "fsync",
        format_args!(
            "half within {}, 99 of 100 within {}, at most {}",
            micros(fsync.p50_micros),
            micros(fsync.p99_micros),
            micros(fsync.max_micros)
        ),
    );
}

fn doors(page: &mut Page, status: &Status) {
    for (index, (name, door)) in status.doors.iter().enumerate() {
        let DoorStatus { messages, bytes: received, connections_open, errors, .. } = *door;
        let title = if index == 0 { "doors" } else { "" };
        page.row(
            title,
            format_args!(
                "{name}: {} ({}), {} open, {}",
                plural(messages, "message", "messages"),
                bytes(received),
                plural(connections_open, "connection", "connections"),
                plural(errors, "error", "errors"),
            ),
        );
    }
}

struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{text}").expect("writing to a String does not fail");
    }

    fn row(&mut self, name: &str, text: std::fmt::Arguments<'_>) {
        let name = self.paint.faint(&format!("{name:NAME_WIDTH$}"));
        self.line(format_args!("{name}{text}"));
    }
}

fn sentence(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// 1234567 as `1,234,567`.
#[must_use]
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len().saturating_sub(index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 batch`, `2 batches`.
#[must_use]
pub(crate) fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Two units at most: `350ms`, `12s`, `3m 12s`, `2h 5m`, `4d 3h`.
#[must_use]
pub(crate) fn age(millis: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let seconds = millis / 1_000;
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (unit, length) in UNITS {
        let number = rest.div_euclid(length);
        rest = rest.rem_euclid(length);
        if number > 0 {
            parts.push(format!("{number}{unit}"));
        } else if !parts.is_empty() {
            // `1d 0h 3m` would claim more than two units can say.
            break;
        }
    }
    parts.truncate(2);
    parts.join(" ")
}

/// `850us`, `1.2ms`, `3.0s`.
fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..1_000_000 => format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// `850 B`, `1.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((name, unit)) => {
            let tenths = bytes.rem_euclid(unit).saturating_mul(10).div_euclid(unit);
            format!("{}.{tenths} {name}", bytes.div_euclid(unit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let check = |shown: String, expected: &str| assert_eq!(shown, expected);
        check(grouped(0), "0");
        check(grouped(999), "999");
        check(grouped(1_000), "1,000");
        check(grouped(1_234_567), "1,234,567");
        check(age(0), "0ms");
        check(age(59_999), "59s");
        check(age(60_000), "1m");
        check(age(192_000), "3m 12s");
        check(age(86_400_000 + 180_000), "1d");
        check(age(4 * 86_400_000 + 3 * 3_600_000 + 59_000), "4d 3h");
        check(micros(999), "999us");
        check(micros(1_250), "1.2ms");
        check(micros(3_000_000), "3.0s");
        check(bytes(1_023), "1023 B");
        check(bytes(1_536), "1.5 KiB");
        check(bytes(2 << 30), "2.0 GiB");
    }
}
