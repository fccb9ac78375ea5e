//! What is wrong with an agent, the gravest first, each with what to do.

use super::{SessionState, Status};
use crate::status::text::{age, grouped, plural};

/// A session that has been gone for less is being remade, and no trouble yet.
const DISCONNECTED_MILLIS_MIN: u64 = 3_000;
/// While connected, events that wait longer than this wait for a reason.
const OLDEST_UNPOSTED_MILLIS_MAX: u64 = 60_000;
/// A journal that would be full sooner than this at its present growth.
const TIME_TO_FULL_MILLIS_MIN: u64 = 3_600_000;
/// A clock that is off by more bends event times and the limits that they are judged by.
const CLOCK_OFFSET_MILLIS_MAX: u64 = 60_000;
/// A certificate that ends sooner is to be renewed.
const CERTIFICATE_MILLIS_MIN: i64 = 7 * 86_400_000;
/// The reason of rejection that says nothing of the event; such events become no dead letters.
const NO_ROOM: &str = "journal_full";
/// Reasons of rejection that are named.
const REASONS_MAX: usize = 3;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One line.
    pub what: String,
    /// One line.
    pub remedy: String,
}

fn trouble(what: String, remedy: impl Into<String>) -> Trouble {
    Trouble { what, remedy: remedy.into() }
}

/// Everything that is wrong, the gravest first.
#[must_use]
pub fn find(status: &Status) -> Vec<Trouble> {
    [
        conflict(status),
        failed(status),
        unconserved(status),
        full(status),
        session(status),
        full_soon(status),
        waiting(status),
        kernel_drops(status),
        refused(status),
        rejected(status),
        excluded(status),
        clock(status),
        certificate(status),
        source_gaps(status),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn conflict(status: &Status) -> Option<Trouble> {
    let conflict = status.journal.conflict.as_ref()?;
    Some(trouble(
        format!("Conflict: {}", line(conflict)),
        "The journal was cloned or rolled back. The next start sets it aside and begins a new stream: keep the file that it names.",
    ))
}

fn failed(status: &Status) -> Option<Trouble> {
    let failed = status.journal.failed.as_ref()?;
    Some(trouble(
        format!("Commits have ended: {}", line(failed)),
        "Nothing more is accepted. Check the disk, then restart the agent: it verifies the journal at its start.",
    ))
}

fn unconserved(status: &Status) -> Option<Trouble> {
    let events = &status.events;
    if events.are_conserved() {
        return None;
    }
    Some(trouble(
        format!(
            "Not conserved: {} accepted, but {} posted and {} in transit",
            grouped(events.accepted),
            grouped(events.posted),
            grouped(events.in_transit())
        ),
        "This is a defect. Keep a copy of the journal and report it.",
    ))
}

fn full(status: &Status) -> Option<Trouble> {
    status.journal.full.then(|| {
        trouble(
            "The journal is full: acknowledged doors push back, the others refuse and count"
                .to_owned(),
            "Let it reach the collector, or raise journal.bytes_max and restart.",
        )
    })
}

fn session(status: &Status) -> Option<Trouble> {
    let session = &status.session;
    let with = session
        .collector
        .as_ref()
        .map_or_else(String::new, |collector| format!(" with {collector}"));
    let why =
        session.last_error.as_ref().map_or_else(String::new, |error| format!(": {}", line(error)));
    match session.state {
        SessionState::Connected => None,
        SessionState::Stopped => Some(match session.retry_in_millis {
            None => trouble(
                format!("The session{with} has ended for good{why}"),
                "Accepted events stay on disk. Mend what it says, then restart the agent.",
            ),
            Some(left) => trouble(
                format!("The session{with} was refused{why}"),
                format!(
                    "Accepted events stay on disk. Mend what it says; the agent tries again in {}.",
                    age(left)
                ),
            ),
        }),
        SessionState::Disconnected | SessionState::Connecting => {
            let named = session.last_error.as_deref().unwrap_or_default();
            // The collector was reached, or this end has nothing to show it.
            let remedy = if named.contains("certificate") || named.contains("private key") {
                "Nothing is lost: events are kept on disk. Mend the certificates (uplink.ca, .certificate, .key; the collector's tls); the agent reads its own again every 30 s."
            } else {
                "Nothing is lost: events are kept on disk. Check that the collector runs and that its UDP port, or the same TCP port, can be reached."
            };
            // Between two sessions a moment passes; that the first one fails is trouble at once.
            let never = status.ledger.is_none() && session.last_error.is_some();
            (never || session.since_age_millis >= DISCONNECTED_MILLIS_MIN).then(|| {
                trouble(
                    format!("No session{with} for {}{why}", age(session.since_age_millis)),
                    remedy,
                )
            })
        }
    }
}

fn full_soon(status: &Status) -> Option<Trouble> {
    let left = status.journal.time_to_full_millis.filter(|left| *left < TIME_TO_FULL_MILLIS_MIN)?;
    (!status.journal.full).then(|| {
        trouble(
            format!("At its present growth the journal is full in {}", age(left)),
            "Let it reach the collector, or raise journal.bytes_max and restart.",
        )
    })
}

fn waiting(status: &Status) -> Option<Trouble> {
    let oldest = status
        .backlog
        .oldest_unposted_age_millis
        .filter(|age| *age > OLDEST_UNPOSTED_MILLIS_MAX)?;
    (status.session.state == SessionState::Connected).then(|| {
        trouble(
            format!("Connected, yet the oldest unposted event has waited {}", age(oldest)),
            "Either a backlog is draining (see whether posted grows) or the collector cannot keep up.",
        )
    })
}

fn kernel_drops(status: &Status) -> Option<Trouble> {
    let drops = status.recent.kernel_drops;
    (drops > 0).then(|| {
        trouble(
            format!(
                "The kernel has dropped {} that the agent never saw {}",
                plural(drops, "datagram", "datagrams"),
                lately(status)
            ),
            "Raise net.core.rmem_max to doors.receive_buffer_bytes, or send over a Unix socket.",
        )
    })
}

fn refused(status: &Status) -> Option<Trouble> {
    let refused = status.recent.rejected.get(NO_ROOM).copied().unwrap_or(0);
    (refused > 0).then(|| {
        trouble(
            format!(
                "Refused {} {}: the journal was full",
                plural(refused, "event", "events"),
                lately(status)
            ),
            "They are counted and not kept. Give the journal room (journal.bytes_max), or send over a door that acknowledges: it makes senders wait.",
        )
    })
}

fn rejected(status: &Status) -> Option<Trouble> {
    let mut reasons: Vec<_> = status
        .recent
        .rejected
        .iter()
        .filter(|(reason, count)| **count > 0 && reason.as_str() != NO_ROOM)
        .collect();
    let total = reasons.iter().fold(0_u64, |total, (_, count)| total.saturating_add(**count));
    reasons.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let more = reasons.len().saturating_sub(REASONS_MAX);
    let mut named: Vec<_> = reasons
        .iter()
        .take(REASONS_MAX)
        .map(|(reason, count)| format!("{reason} {}", grouped(**count)))
        .collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    (total > 0).then(|| {
        trouble(
            format!(
                "Rejected {} {}: {}",
                plural(total, "event", "events"),
                lately(status),
                named.join(", ")
            ),
            "`tidemark-agent dead-letters list` shows those that were kept, with a remedy each.",
        )
    })
}

fn excluded(status: &Status) -> Option<Trouble> {
    let excluded = status.recent.excluded_by_metered;
    (excluded > 0).then(|| {
        trouble(
            format!(
                "naming.metered excluded {} of the catalogue's meters {}",
                plural(excluded, "event", "events"),
                lately(status)
            ),
            "Let naming.metered match the catalogue's meters, or remove the meter from the catalogue.",
        )
    })
}

fn clock(status: &Status) -> Option<Trouble> {
    let offset = status.session.clock_offset_millis?.unsigned_abs();
    (offset > CLOCK_OFFSET_MILLIS_MAX).then(|| {
        trouble(
            format!("This machine's clock is {} off the collector's", age(offset)),
            "Let NTP set it. Completeness does not depend on it, but event times do.",
        )
    })
}

fn certificate(status: &Status) -> Option<Trouble> {
    let left =
        status.session.certificate_left_millis.filter(|left| *left < CERTIFICATE_MILLIS_MIN)?;
    let what = match u64::try_from(left) {
        Ok(left) => format!("This agent's certificate ends in {}", age(left)),
        Err(_) => format!("This agent's certificate ended {} ago", age(left.unsigned_abs())),
    };
    Some(trouble(what, "Renew the file; the agent reads it again every uplink.renew_interval."))
}

fn source_gaps(status: &Status) -> Option<Trouble> {
    let gaps = status.recent.source_gaps;
    (gaps > 0).then(|| {
        trouble(
            format!("Numbered sources missed {} {}", plural(gaps, "event", "events"), lately(status)),
            "They were lost between the application and the agent: send them over an acknowledged door.",
        )
    })
}

fn lately(status: &Status) -> String {
    format!("in the last {}", age(status.recent.window_millis))
}

/// A message of another part, on one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
